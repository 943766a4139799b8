/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * failure_diet.h - what the failure tests of the classic diets share: allocations that fail, and the state of a map
 * that a failure must not change.
 */
#ifndef TESTS_FAILURE_FAILURE_DIET_H
#define TESTS_FAILURE_FAILURE_DIET_H

#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

/* RAM: a flat map of one GiB, and what restoring one folio could need. */
enum { NR_RAM_MAX = 9000, ATTEMPTS_MAX = 64 };

/* ---- Failing --------------------------------------------------------------------------------------------------- */

enum sort { SORT_RAM, SORT_META, SORT_ANY, NR_SORTS };

static inline void fail_nth(struct world *w, enum sort sort, uint64_t n)
{
	if (sort == SORT_RAM)
		mf_sim_fail_ram(w->sim, n);
	else if (sort == SORT_META)
		mf_sim_fail_meta(w->sim, n);
	else
		mf_sim_fail_any(w->sim, n);
}

static inline uint64_t calls(struct world *w, enum sort sort)
{
	struct mf_sim_stats stats;

	mf_sim_stats(w->sim, &stats);
	return sort == SORT_RAM ? stats.ram_calls : sort == SORT_META ? stats.meta_calls : stats.any_calls;
}

/* ---- What must not change -------------------------------------------------------------------------------------- */

struct state {
	uint64_t digest, nr_slots, nr_tables, nr_ram, nr_dieted, nr_aliases, ram_used, meta_used;
};

static inline struct state state_of(struct world *w)
{
	struct mf_map_stats stats = diet_stats(w);
	struct mf_sim_stats sim;

	mf_sim_stats(w->sim, &sim);
	return (struct state){ mf_map_digest(w->map), stats.nr_slots,	stats.nr_tables,  stats.nr_ram,
			       stats.nr_dieted,	      stats.nr_aliases, sim.nr_ram_used, sim.nr_meta_used };
}

static inline void check_state(struct world *w, const struct state *before)
{
	struct state now = state_of(w);

	TAP_EQ(now.digest, before->digest);
	TAP_EQ(now.nr_slots, before->nr_slots);
	TAP_EQ(now.nr_tables, before->nr_tables);
	TAP_EQ(now.nr_ram, before->nr_ram);
	TAP_EQ(now.nr_dieted, before->nr_dieted);
	TAP_EQ(now.nr_aliases, before->nr_aliases);
	TAP_EQ(now.ram_used, before->ram_used);
	TAP_EQ(now.meta_used, before->meta_used);
}

#endif
