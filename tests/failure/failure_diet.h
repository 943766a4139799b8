/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * failure_diet.h - what the failure tests of the classic diets share: the state of a map that a failure must not
 * change.
 */
#ifndef TESTS_FAILURE_FAILURE_DIET_H
#define TESTS_FAILURE_FAILURE_DIET_H

#include "tests/unit/diet_rig.h"

#define G WORLD_GIB_FRAMES

/* RAM: a flat map of one GiB, and what restoring one folio could need. */
enum { NR_RAM_MAX = 9000, ATTEMPTS_MAX = 64 };

/* ---- What must not change -------------------------------------------------------------------------------------- */

struct state {
	uint64_t digest, nr_slots, nr_tables, nr_ram, nr_dieted, nr_aliases, ram_used, meta_used;
};

static inline struct state state_of(struct world *w)
{
	struct mf_map_stats stats = diet_stats(w);
	struct world_used used = world_used(w);

	return (struct state){ mf_map_digest(w->map), stats.nr_slots,	stats.nr_tables,  stats.nr_ram,
			       stats.nr_dieted,	      stats.nr_aliases, used.nr_ram,	  used.nr_meta };
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
