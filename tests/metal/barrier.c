/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * barrier.c - pthread barriers on bare metal.
 *
 * Owns nothing.  Law: who waits goes on when as many as the barrier's number have come since it was passed last, and
 * one of them is told to be the one.
 */
#include <memfold/base.h>
#include <pthread.h>
#include <sched.h>

int pthread_barrier_init(pthread_barrier_t *barrier, const void *attributes, unsigned nr)
{
	MF_PANIC_IF(attributes || nr == 0, "tests: a barrier has no attributes, and waits for somebody.");
	*barrier = (pthread_barrier_t){ .nr = nr };
	return 0;
}

/* nr_waiting goes back to 0 before the others are let go, so that who comes again is counted for the next time. */
int pthread_barrier_wait(pthread_barrier_t *barrier)
{
	unsigned nr_passed = __atomic_load_n(&barrier->nr_passed, __ATOMIC_ACQUIRE);

	if (__atomic_add_fetch(&barrier->nr_waiting, 1, __ATOMIC_ACQ_REL) == barrier->nr) {
		__atomic_store_n(&barrier->nr_waiting, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&barrier->nr_passed, nr_passed + 1, __ATOMIC_RELEASE);
		return PTHREAD_BARRIER_SERIAL_THREAD;
	}
	while (__atomic_load_n(&barrier->nr_passed, __ATOMIC_ACQUIRE) == nr_passed)
		sched_yield();
	return 0;
}

int pthread_barrier_destroy(pthread_barrier_t *barrier)
{
	MF_PANIC_IF(__atomic_load_n(&barrier->nr_waiting, __ATOMIC_RELAXED) != 0,
		    "tests: a barrier goes while somebody waits there.");
	return 0;
}
