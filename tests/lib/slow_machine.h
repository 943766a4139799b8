/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * slow_machine.h - the linux machine behind a table of operations that dawdles: it yields at random, and lets a test
 * look, wherever the core leaves its own code between two steps of a protocol.
 *
 * Owns the inner machine.  Threads register with `inner`; maps are made on `machine`.  One per program.
 */
#ifndef TESTS_LIB_SLOW_MACHINE_H
#define TESTS_LIB_SLOW_MACHINE_H

#include <memfold/linux.h>

enum slow_kind {
	SLOW_THREADS, /* threads are CPUs: nobody is pinned, as on linux itself             */
	SLOW_PINNED,  /* pin_cpu and unpin_cpu are there, and dawdle: what a kernel's paths take */
};

struct slow_machine {
	struct mf_machine machine;
	struct mf_machine *inner;
	struct mf_machine_ops ops;
	unsigned yields_in; /* yield once in so many operations; 0: never.  Constant while threads run */
	/* Told before the operation is done; may be NULL.  Called by any thread. */
	void (*on_relax)(void *ctx);
	void (*on_discard)(void *ctx, uintptr_t addr, uint64_t size_bytes);
	void *ctx;
};

/* Fails as mf_linux_create().  The calling thread is registered. */
int slow_machine_create(struct slow_machine *slow, enum slow_kind kind);
void slow_machine_destroy(struct slow_machine *slow);

/* A small generator of its own, so that threads share nothing: splitmix64. */
static inline uint64_t slow_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

#endif
