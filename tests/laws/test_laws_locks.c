/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_laws_locks.c - the rule that nothing waits, flushes or allocates under a zone's lock (docs/LOCKING.md), broken
 * on purpose.
 *
 * Debug builds count the zone locks a CPU holds; this program is built in flavours that have MF_DEBUG.
 */
#include <string.h>

#include <memfold/memfold.h>

#include "core/frames/zone.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

static void breaks_with(struct world *w, void (*wrong)(struct mf_map *map))
{
	struct mf_zone *zone = w->map->zone[0];

	zone_lock(zone);
	TAP_OK(TAP_PANICS(wrong(w->map)));
	TAP_OK(strstr(tap_state.panic, "spin_locks") != NULL);
	zone_unlock(zone);
}

static void flushes(struct mf_map *map)
{
	window_flush(map, MF_FLUSH_FOR_FOLD, map->geo.window[0], 4096, MF_FLUSH_LEAVES);
}

static void takes_ram(struct mf_map *map)
{
	mf_pfn_t pfn;

	if (ram_get(map, 0, 0, &pfn) == 0)
		ram_put(map, 0, 0, pfn);
}

TAP_TEST(locks_nothing_waits_under_a_zones_lock)
{
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = WORLD_GIB_FRAMES }));
	TAP_EQ(world_add(&w, 0, WORLD_GIB_FRAMES), 0);
	breaks_with(&w, mf_quiesce);
	breaks_with(&w, table_lock);
	breaks_with(&w, flushes);
	breaks_with(&w, takes_ram);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
