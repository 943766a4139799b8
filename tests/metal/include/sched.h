/* SPDX-License-Identifier: BSD-2-Clause */
/* sched.h - what tests use of it, on bare metal: tests/metal/threads.h. */
#ifndef TESTS_METAL_SCHED_H
#define TESTS_METAL_SCHED_H

/*
 * Others run: another processor, and then the next thread of this one, where a switch is allowed (threads.h).  Serves
 * flushes.
 */
int sched_yield(void);

#endif
