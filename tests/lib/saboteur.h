/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * saboteur.h - a machine in front of the sim that leaves out, or does wrong, one step that a port owes to the core, and
 * that lets one thread play several CPUs.
 *
 *	struct saboteur s = { 0 };
 *
 *	world_open(&w, &(struct world_config){ .nr_frames = G, .wrap = saboteur_wrap, .wrap_ctx = &s });
 *	s.what = SABOTAGE_FLUSH;
 *
 * Owns nothing; lives as long as the map.  Everything but the sabotaged step is passed on to the sim.
 */
#ifndef TESTS_LIB_SABOTEUR_H
#define TESTS_LIB_SABOTEUR_H

#include <memfold/machine.h>

enum sabotage {
	SABOTAGE_NOTHING,
	SABOTAGE_FLUSH,       /* nothing is flushed                                                          */
	SABOTAGE_FLUSH_SCOPE, /* tables are replaced or freed, and only leaves are flushed                     */
	SABOTAGE_FLUSH_LATE,  /* what should be flushed now is flushed with the next flush                     */
	SABOTAGE_PROTECT,     /* the direct map stays writable                                               */
	SABOTAGE_RAM,         /* there is no RAM                                                            */
	SABOTAGE_RAM_LEAK,    /* RAM that comes back is kept                                                  */
};

struct saboteur {
	struct mf_machine machine;
	struct mf_machine *inner;
	enum sabotage what;
	uint64_t nr_flushes;
	unsigned nr_cpus, cpu; /* 0: one; the CPU that the caller is on from now on                          */
	/* Called in relax(), when somebody waits for somebody. */
	void (*relaxed)(void *ctx);
	void *relaxed_ctx;
	/* Called before a flush is done, after it, and before RAM comes back, with watch_ctx; NULL: nobody watches. */
	void (*flushing)(void *ctx, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);
	void (*flushed)(void *ctx, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);
	void (*putting)(void *ctx, mf_pfn_t pfn, unsigned order);
	void *watch_ctx;
	uintptr_t late_start;
	uint64_t late_bytes;
	enum mf_flush_scope late_scope;
};

/* For struct world_config.wrap; ctx is the saboteur. */
struct mf_machine *saboteur_wrap(void *ctx, struct mf_machine *machine);

#endif
