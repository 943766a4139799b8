/* SPDX-License-Identifier: BSD-2-Clause */
/* sched.h - what tests use of it, on bare metal: there is nobody to yield to. */
#ifndef TESTS_METAL_SCHED_H
#define TESTS_METAL_SCHED_H

static inline int sched_yield(void)
{
	__builtin_ia32_pause();
	return 0;
}

#endif
