/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * slow_kind.h - what slow_machine.c wants of where the tests run, and what it gives to that.
 *
 *   tests/lib/slow_hosted.c     a process: linux and the sim, a thread is a CPU
 *   tests/metal/slow_metal.c    bare metal: x86_64, threads share its CPUs
 */
#ifndef TESTS_LIB_SLOW_KIND_H
#define TESTS_LIB_SLOW_KIND_H

#include "tests/lib/slow_machine.h"

/* Zero when a thread begins. */
struct slow_thread {
	uint64_t noise;
	unsigned number;
};

/* The calling thread's. */
struct slow_thread *slow_thread(void);

/* Sets slow->inner; slow->kind is what was asked for, and what it is afterwards.  0, or the machine's error. */
int slow_kind_create(struct slow_machine *slow, uint64_t nr_frames);
/* slow->ops forwards every operation that the inner machine has: what is to be otherwise. */
void slow_kind_change_ops(struct slow_machine *slow);
void slow_kind_destroy(struct slow_machine *slow);
bool slow_kind_register(struct slow_machine *slow, unsigned number);

/* Yields once in slow->yields_in calls; the inner machine. */
struct mf_machine *slow_dawdle(struct mf_machine *m);
/* The operation, as it is where nobody changes it. */
void slow_relax(struct mf_machine *m);

#endif
