/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * frames.c - what a folio on a classic diet costs: frames of map slots and of their page tables, on sim, where every
 * one is counted by walking the tables.
 *
 * All of a range is folios of one order on their diet; once 2 GiB, once 3 GiB.  What the third GiB adds, divided by its
 * folios, is the cost of one, without what a map has once.  A count has no spread: one build gives one number.
 */
#include <memfold/diet.h>
#include <memfold/sim.h>

#include "bench/bench.h"

enum { ORDER_2M = 9, ORDER_1G = 18, GIBS = 3, SLOTS_PER_GIB = 4096 };

#define GIB_FRAMES ((mf_pfn_t)1 << ORDER_1G)

/* All of [0, nr_gib GiB) on the diet of the layout. */
static struct described on_diet(enum mf_layout layout, unsigned order, enum mf_map_flags flags, unsigned nr_gib)
{
	struct mf_sim_config sim = { .paging = mf_paging_x86_64(4), .nr_frames = GIBS * GIB_FRAMES,
				     .nr_ram_frames = (GIBS + 2) * SLOTS_PER_GIB };
	struct mf_map_config config = { .span = sim.nr_frames, .flags = flags };
	struct mf_region_config region = { .end_pfn = nr_gib * GIB_FRAMES, .layout = layout, .source = MF_SOURCE_RAM };
	struct described d = { .end = region.end_pfn };
	bool is_by_remap = mf_layout_diet(layout)->is_by_remap;

	region.unit_order = is_by_remap ? 0 : order;
	must(mf_sim_create(&sim, &d.machine), "machine");
	config.machine = d.machine;
	must(mf_map_create(&config, &d.map), "map");
	must(mf_region_add(d.map, &region, &d.region), "region");
	if (is_by_remap) {
		described_allocate(&d, order);
		described_remap(&d);
	}
	return d;
}

static uint64_t frames_of(enum mf_layout layout, unsigned order, enum mf_map_flags flags, unsigned nr_gib)
{
	struct described d = on_diet(layout, order, flags, nr_gib);
	struct mf_map_stats stats;

	mf_map_stats(d.map, &stats);
	must(stats.nr_dieted == d.end >> order ? 0 : -MF_EINVAL, "put every folio on its diet");
	described_check(&d);
	if (mf_layout_diet(layout)->is_by_remap)
		described_free(&d);
	must(mf_region_remove(d.map, d.region), "remove");
	must(mf_map_destroy(d.map), "destroy");
	mf_sim_destroy(d.machine);
	return stats.nr_slots + stats.nr_tables;
}

int main(void)
{
	static const struct {
		struct question question;
		enum mf_layout layout;
		unsigned order;
		enum mf_map_flags flags;
	} rows[] = {
		{ { "map and tables for a 2 MiB folio on hvo-7.1, tables private", "bytes", 4096 + 64 },
		  MF_LAYOUT_HVO_7_1, ORDER_2M, MF_MAP_PRIVATE_TABLES },
		{ { "map and tables for a 2 MiB folio on hvo-7.1, tables shared", "bytes", 4096 + 64 },
		  MF_LAYOUT_HVO_7_1, ORDER_2M, MF_MAP_SHARE_TABLES },
		{ { "map and tables for a 1 GiB folio on hvo-7.1, tables private", "bytes", 4096 + 32768 },
		  MF_LAYOUT_HVO_7_1, ORDER_1G, MF_MAP_PRIVATE_TABLES },
		{ { "map and tables for a 1 GiB folio on hvo-7.1, tables shared", "bytes", 4096 + 4096 },
		  MF_LAYOUT_HVO_7_1, ORDER_1G, MF_MAP_SHARE_TABLES },
		{ { "map and tables for a 2 MiB compound of devdax, tables private", "bytes", 8192 + 64 },
		  MF_LAYOUT_DEVDAX, ORDER_2M, MF_MAP_PRIVATE_TABLES },
		{ { "map and tables for a 1 GiB compound of devdax, tables private", "bytes", 8192 + 32768 },
		  MF_LAYOUT_DEVDAX, ORDER_1G, MF_MAP_PRIVATE_TABLES },
		{ { "map and tables for a 1 GiB compound of devdax, tables shared", "bytes", 0 },
		  MF_LAYOUT_DEVDAX, ORDER_1G, MF_MAP_SHARE_TABLES },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t frames = frames_of(rows[i].layout, rows[i].order, rows[i].flags, GIBS) -
				  frames_of(rows[i].layout, rows[i].order, rows[i].flags, GIBS - 1);
		struct samples s = { 0 };

		samples_add(&s, (double)(frames * 4096) / (double)(GIB_FRAMES >> rows[i].order));
		report(&rows[i].question, &s, "%llu frames for a GiB", (unsigned long long)frames);
	}
	return 0;
}
