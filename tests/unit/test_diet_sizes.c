/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_sizes.c - every size of HugeTLB pages goes on its diet and off it, in every era, with tables shared and
 * private: what that frees and takes, to the frame.
 *
 * Frames are counted twice: by the map (mf_map_stats) and by the machine that gave them (mf_sim_ram_used).
 */
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

/* Frames beside slots and tables: the root and the zero frame. */
enum { NR_ELSE = 2 };

struct cost {
	uint64_t nr_slots, nr_tables;
};

static struct cost cost_of(struct world *w)
{
	struct mf_map_stats stats = diet_stats(w);

	TAP_EQ(mf_sim_ram_used(w->sim), stats.nr_ram);
	TAP_EQ(stats.nr_ram, stats.nr_slots + stats.nr_tables + NR_ELSE);
	return (struct cost){ stats.nr_slots, stats.nr_tables };
}

static void check_cost(struct world *w, const struct cost *before, int64_t slots, int64_t tables)
{
	struct cost now = cost_of(w);

	TAP_EQ((int64_t)(now.nr_slots - before->nr_slots), slots);
	TAP_EQ((int64_t)(now.nr_tables - before->nr_tables), tables);
}

/*
 * Tables on the diet: one where a larger leaf is split, and a uniform one where all slots of a table are the folio's.
 * `left`: those that stay when it is off its diet again.  With sharing off every table stands from the beginning.
 */
struct size {
	const char *machine;
	unsigned order;
	uint64_t nr_frames;
	int64_t nr_slots, tables, left;
};

static const struct size sizes[] = {
	{ "sim", 9, G, 8, 1, 1 },
	{ "sim", 13, G, 128, 1, 1 },
	{ "sim", 18, 2 * G, 4096, 2, 0 },
	{ "sim", 19, 2 * G, 8192, 2, 0 },
	{ "sim-5", 9, G, 8, 1, 1 },
	{ "sim-5", 18, 2 * G, 4096, 2, 0 },
	/* Larger leaves are for 8 GiB of memory and more there. */
	{ "sim-arm64-16k", 11, 1 << 17, 8, 0, 0 },
	{ "sim-arm64-16k", 16, 1 << 17, 256, 0, 0 },
	{ "sim-arm64-16k", 16, 1 << 19, 256, 1, 1 },
	{ "sim-arm64-64k", 13, 1 << 18, 8, 0, 0 },
	{ "sim-arm64-64k", 18, 1 << 18, 256, 0, 0 },
};

enum { NR_SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/* On and off, twice: the second time nothing has to be split and no frame of tails be made. */
static void round_trips(struct world *w, const struct size *size, enum mf_layout layout, bool is_private)
{
	const struct mf_diet *diet = mf_layout_diet(layout);
	int64_t saved = size->nr_slots - diet->nr_kept, zone = diet->tails == MF_TAILS_ZONE;
	int64_t tables = is_private ? 0 : size->tables;
	int64_t left = is_private ? 0 : size->left + (zone && size->tables == 2); /* the zone's uniform table */
	struct mf_folio *folio = diet_folio(w, size->order);
	struct cost before;

	TAP_OK(folio != NULL);
	if (!folio)
		return;
	TAP_EQ(diet_nr_slots(w, size->order), size->nr_slots);
	TAP_EQ(mf_diet_saves(layout, w->machine->paging.page_shift, MF_DESCRIPTOR_SIZE, size->order), saved);
	before = cost_of(w);
	for (unsigned i = 0; i < 2; i++) {
		TAP_EQ(mf_diet_remap(w->map, folio), 0);
		TAP_OK(mf_folio_is_on_diet(folio));
		check_cost(w, &before, zone - saved, tables);
		TAP_EQ(diet_stats(w).nr_dieted, 1);
		TAP_EQ(diet_stats(w).nr_aliases, saved);
		TAP_OK(diet_answers(w, folio, size->order));
		TAP_OK(world_check(w));

		TAP_EQ(mf_diet_restore(w->map, folio), 0);
		TAP_OK(!mf_folio_is_on_diet(folio));
		check_cost(w, &before, zone, left);
		TAP_EQ(diet_stats(w).nr_dieted, 0);
		TAP_EQ(diet_stats(w).nr_aliases, 0);
		TAP_OK(diet_answers(w, folio, size->order));
		TAP_OK(world_check(w));
	}
	diet_folio_free(w, folio);
}

static void play_sizes(enum mf_layout layout, enum mf_map_flags flags)
{
	for (unsigned i = 0; i < NR_SIZES; i++) {
		const struct size *size = &sizes[i];
		struct world_config config = { .machine = size->machine, .nr_frames = size->nr_frames, .flags = flags };
		struct world w;

		TAP_REQUIRE(diet_open(&w, &config, layout));
		round_trips(&w, size, layout, flags == MF_MAP_PRIVATE_TABLES);
		TAP_OK(world_close(&w));
		if (atomic_load(&tap_state.failed)) {
			TAP_NOTE("%s on %s, order %u, %s tables", mf_layout_name(layout), size->machine, size->order,
				 flags == MF_MAP_PRIVATE_TABLES ? "private" : "shared");
			return;
		}
	}
}

/* R-HVO-4 (the 2020 design), R-HVO-8, R-HVO-46, R-SCN-22 */
TAP_TEST(every_size_in_hvo_5_14)
{
	play_sizes(MF_LAYOUT_HVO_5_14, MF_MAP_SHARE_TABLES);
	play_sizes(MF_LAYOUT_HVO_5_14, MF_MAP_PRIVATE_TABLES);
}

/* R-HVO-2, R-HVO-4, R-HVO-46, R-SCN-22 */
TAP_TEST(every_size_in_hvo_5_18)
{
	play_sizes(MF_LAYOUT_HVO_5_18, MF_MAP_SHARE_TABLES);
	play_sizes(MF_LAYOUT_HVO_5_18, MF_MAP_PRIVATE_TABLES);
}

/*
 * One frame of tails for the zone and order, made once and found again.  R-HVO-2, R-HVO-4, R-HVO-17, R-SCN-1, R-SCN-22
 */
TAP_TEST(every_size_in_hvo_7_1)
{
	play_sizes(MF_LAYOUT_HVO_7_1, MF_MAP_SHARE_TABLES);
	play_sizes(MF_LAYOUT_HVO_7_1, MF_MAP_PRIVATE_TABLES);
}

/* ---- Sizes that save nothing ----------------------------------------------------------------------------------- */

/* A success that does nothing: no flush, no wait, no frame.  R-HVO-1, R-HVO-13 */
static void check_does_nothing(struct world *w, unsigned order)
{
	struct mf_folio *folio = diet_folio(w, order);
	struct mf_map_stats before = diet_stats(w), after;
	uint64_t digest = mf_map_digest(w->map);
	struct mf_list list;

	TAP_OK(folio != NULL);
	if (!folio)
		return;
	TAP_EQ(mf_diet_remap(w->map, folio), 0);
	mf_list_init(&list);
	mf_list_push_back(&list, &folio->page.list);
	TAP_EQ(mf_diet_remap_list(w->map, &list, NULL), 0);
	mf_list_remove(&folio->page.list);
	TAP_OK(!mf_folio_is_on_diet(folio));
	after = diet_stats(w);
	TAP_OK(memcmp(&before, &after, sizeof(before)) == 0);
	TAP_EQ(mf_map_digest(w->map), digest);
	diet_folio_free(w, folio);
}

TAP_TEST(sizes_that_save_nothing_do_nothing)
{
	/* The largest of each machine: one slot; of hvo-5.14: two. */
	static const struct {
		const char *machine;
		unsigned order;
	} cases[] = { { "sim", 6 }, { "sim-5", 6 }, { "sim-arm64-16k", 8 }, { "sim-arm64-64k", 10 } };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned j = 0; j < sizeof(cases) / sizeof(cases[0]); j++) {
			unsigned last = cases[j].order + (mf_layout_diet(diet_layouts[i])->nr_kept == 2);
			struct world_config config = { .machine = cases[j].machine, .nr_frames = 1 << 17 };
			struct world w;

			TAP_REQUIRE(diet_open(&w, &config, diet_layouts[i]));
			for (unsigned order = 0; order <= last; order++)
				check_does_nothing(&w, order);
			TAP_OK(world_close(&w));
		}
	}
}

/* The first order above saves one slot.  R-HVO-7 */
TAP_TEST(the_smallest_order_saves_one_slot)
{
	static const struct {
		const char *machine;
		unsigned order;
	} cases[] = { { "sim", 7 }, { "sim-arm64-16k", 9 }, { "sim-arm64-64k", 11 } };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned j = 0; j < 3; j++) {
			const struct mf_diet *diet = mf_layout_diet(diet_layouts[i]);
			unsigned order = cases[j].order + (diet->nr_kept == 2);
			struct size size = { cases[j].machine, order, 1 << 17, diet->nr_kept == 2 ? 4 : 2, 0, 0 };
			struct world_config config = { .machine = size.machine, .nr_frames = size.nr_frames };
			struct world w;

			/* Where there are larger leaves one is split, and stays so. */
			if (j == 0)
				size.tables = size.left = 1;
			TAP_REQUIRE(diet_open(&w, &config, diet_layouts[i]));
			round_trips(&w, &size, diet_layouts[i], false);
			TAP_OK(world_close(&w));
		}
	}
}

/* ---- What a folio costs ---------------------------------------------------------------------------------------- */

/* Frames of slots and tables when all of `nr_gib` is folios of this order, on hvo-7.1. */
static uint64_t frames_for(unsigned nr_gib, unsigned order, enum mf_map_flags flags)
{
	struct mf_region_config region = {
		.end_pfn = nr_gib * G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_RAM
	};
	uint64_t nr_remapped = 0, nr = nr_gib * G >> order;
	struct mf_list list;
	struct cost cost;
	struct world w;

	mf_list_init(&list);
	if (!world_open(&w, &(struct world_config){ .nr_frames = 4 * G, .flags = flags }) ||
	    world_add_region(&w, &region, NULL) != 0 || !diet_list_fill(&w, &list, order, nr)) {
		TAP_OK(false);
		return 0;
	}
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr_remapped), 0);
	TAP_EQ(nr_remapped, nr);
	cost = cost_of(&w);
	TAP_OK(world_check(&w));
	diet_list_free(&w, &list);
	TAP_OK(world_close(&w));
	return cost.nr_slots + cost.nr_tables;
}

/* One frame of slots and a share of a table: 4096 + 64 bytes, with 512 folios more.  R-HVO-6 */
TAP_TEST(a_2_mib_folio_of_hvo_7_1_costs_4160_bytes)
{
	static const enum mf_map_flags flags[] = { MF_MAP_SHARE_TABLES, MF_MAP_PRIVATE_TABLES };

	for (unsigned i = 0; i < 2; i++) {
		uint64_t frames = frames_for(3, 9, flags[i]) - frames_for(2, 9, flags[i]);

		TAP_EQ(frames * 4096, 512 * (4096 + 64));
	}
}

/* With one folio more: its head's frame, and 8 tables; or, where tables are shared, 1. */
TAP_TEST(a_1_gib_folio_of_hvo_7_1_costs_36864_or_8192_bytes)
{
	uint64_t apart = frames_for(3, 18, MF_MAP_PRIVATE_TABLES) - frames_for(2, 18, MF_MAP_PRIVATE_TABLES);
	uint64_t together = frames_for(3, 18, MF_MAP_SHARE_TABLES) - frames_for(2, 18, MF_MAP_SHARE_TABLES);

	TAP_EQ(apart * 4096, 4096 + 32768);
	TAP_EQ(together * 4096, 4096 + 4096);
}

/* N folios of one order in one zone free N * (V - 1) frames, less one of tails and a table for each leaf.  R-HVO-6 */
TAP_TEST(n_folios_free_what_the_rule_says)
{
	static const uint64_t numbers[] = { 1, 2, 63, 64, 65, 200 };

	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uint64_t nr = numbers[i], before;
		struct mf_list list;
		struct world w;

		mf_list_init(&list);
		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_7_1));
		TAP_REQUIRE(diet_list_fill(&w, &list, 9, nr));
		before = mf_sim_ram_used(w.sim);
		TAP_EQ(mf_diet_remap_list(w.map, &list, NULL), 0);
		TAP_EQ(before - mf_sim_ram_used(w.sim), nr * 7 - 1 - (nr + 63) / 64);
		diet_list_free(&w, &list);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
