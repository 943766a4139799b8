/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * slow_machine.h - a machine behind a table of operations that dawdles: it yields at random, and lets a test look,
 * wherever the core leaves its own code between two steps of a protocol.
 *
 * Owns the inner machine: linux or the sim in a process, x86_64 on bare metal (slow_kind.h).  Maps are made on
 * `machine`.  One at a time in a program.
 */
#ifndef TESTS_LIB_SLOW_MACHINE_H
#define TESTS_LIB_SLOW_MACHINE_H

#include <memfold/machine.h>
#include <stdatomic.h>

enum { SLOW_CPUS = 32 };

/*
 * What there is in a process.  On bare metal whoever asks is given SLOW_TABLES: page tables, and several threads for
 * each CPU, which pin_cpu keeps from taking turns; for SLOW_THREADS one thread for each CPU, and no pin_cpu.
 */
enum slow_kind {
	SLOW_THREADS, /* threads are CPUs: nobody is pinned, as on linux itself             */
	SLOW_PINNED,  /* pin_cpu and unpin_cpu are there, and dawdle: what a kernel's paths take */
	SLOW_TABLES,  /* page tables: the sim, whose CPUs are threads                         */
};

struct slow_machine {
	struct mf_machine machine;
	struct mf_machine *inner;
	struct mf_machine_ops ops;
	enum slow_kind kind; /* what it is                                                    */
	atomic_uint nr_threads;
	unsigned yields_in; /* yield once in so many operations; 0: never.  Constant while threads run */
	/* Told before the operation is done; may be NULL.  Called by any thread. */
	void (*on_relax)(void *ctx);
	void (*on_discard)(void *ctx, uintptr_t addr, uint64_t size_bytes);
	void (*on_alias)(void *ctx, uintptr_t addr, uint64_t size_bytes);
	void (*on_flush)(void *ctx, uintptr_t addr, uint64_t size_bytes);
	void *ctx;
};

/*
 * nr_frames: what regions may describe, if it is on page tables.  Fails as the machine's own.  The calling thread is
 * registered.
 */
int slow_machine_create(struct slow_machine *slow, enum slow_kind kind, uint64_t nr_frames);
void slow_machine_destroy(struct slow_machine *slow);

/* The calling thread gets a number of its own; at most SLOW_CPUS threads in all, the first included. */
bool slow_thread_register(struct slow_machine *slow);
/* Of the calling thread: 1 for the first that registered since the machine came, or since nr_threads was set to 0. */
unsigned slow_thread_number(void);

/* On page tables: the n-th call from now that takes memory or a window fails, once; 0: none does. */
void slow_machine_fail_any(struct slow_machine *slow, uint64_t n);

/* A small generator of its own, so that threads share nothing: splitmix64. */
static inline uint64_t slow_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

#endif
