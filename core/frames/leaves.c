/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * leaves.c - which memory gets larger leaves behind its descriptors again: all that is free, as far as there are
 * frames.
 *
 * A piece is what one table of level 0 describes, 128 MiB for frames of 4 KiB.  Under map->region_lock, so regions
 * stay.
 */
#include "core/frames/zone.h"

#include "core/memmap/diet.h"

static bool isolate(struct mf_zone *zone, mf_pfn_t start, mf_pfn_t end)
{
	bool isolated;

	zone_lock(zone);
	isolated = zone_isolate(zone, start, end);
	zone_unlock(zone);
	return isolated;
}

static void merge_region(struct mf_map *map, const struct mf_region *r)
{
	struct mf_zone *zone = map->zone[r->zone];
	mf_pfn_t nr = diet_table_frames(map), pfn = mf_round_up(r->config.start_pfn, nr);
	int err = 0;

	for (; pfn < r->config.end_pfn && r->config.end_pfn - pfn >= nr && err != -MF_ENOMEM; pfn += nr) {
		if (!merge_is_due(map, r, pfn) || !isolate(zone, pfn, pfn + nr))
			continue;
		err = merge_leaf(map, r, pfn);
		zone_lock(zone);
		zone_release(zone, pfn, pfn + nr);
		zone_unlock(zone);
	}
}

/* Who wants no shared tables wants what Linux does, in this, too. */
void leaves_merge(struct mf_map *map, int node)
{
	if (map->machine->backing != MF_WINDOW_TABLES || map->flags & MF_MAP_PRIVATE_TABLES)
		return;
	region_lock(map);
	for (unsigned i = 0; i < map->region_limit; i++) {
		const struct mf_region *r = map->region[i];

		if (r && r->top == 0 && r->config.layout != MF_LAYOUT_DEVDAX &&
		    (node == MF_ANY_NODE || r->config.node == (unsigned)node))
			merge_region(map, r);
	}
	region_unlock(map);
}
