/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * threads.h - threads on bare metal, for tests: more of them than processors, on real processors.
 *
 * Each has a home CPU, and never leaves it: the one after the creator's for the first of those alive, then round robin.
 * The threads of a CPU take turns, and change only in sched_yield(), with interrupts on and no thread_pin() in force:
 * that is a kernel without preemption, whose pin_cpu keeps a sleeper from giving up its CPU.  So who holds a short lock
 * or is in a reader section is not switched away from, as long as the machine that its map is on pins
 * (tests/metal/slow_metal.c).
 */
#ifndef TESTS_METAL_THREADS_H
#define TESTS_METAL_THREADS_H

enum { THREAD_OWN_BYTES = 64 };

/* They nest; of this CPU, which is the same for the calling thread. */
void thread_pin(void);
void thread_unpin(void);

/* THREAD_OWN_BYTES that are the calling thread's, zero when it begins. */
void *thread_own(void);

#endif
