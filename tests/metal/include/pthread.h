/* SPDX-License-Identifier: BSD-2-Clause */
/* pthread.h - what tests use of it, on bare metal: tests/metal/threads.h, barrier.c. */
#ifndef TESTS_METAL_PTHREAD_H
#define TESTS_METAL_PTHREAD_H

typedef struct thread *pthread_t;

typedef struct {
	unsigned nr, nr_waiting, nr_passed; /* the last two are atomic */
} pthread_barrier_t;

enum { PTHREAD_BARRIER_SERIAL_THREAD = -1 };

/*
 * On the first CPU, both.  0, or 1 when there is no memory.  attributes: NULL, there are none.  Each is joined; the
 * others of the first CPU run meanwhile.
 */
int pthread_create(pthread_t *thread, const void *attributes, void *(*run)(void *ctx), void *ctx);
int pthread_join(pthread_t thread, void **result);

int pthread_barrier_init(pthread_barrier_t *barrier, const void *attributes, unsigned nr);
int pthread_barrier_wait(pthread_barrier_t *barrier);
int pthread_barrier_destroy(pthread_barrier_t *barrier);

#endif
