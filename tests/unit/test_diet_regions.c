/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_regions.c - regions of different layouts side by side in one map: each keeps its own diet, lookups work
 * across them, every zone has tails of its own for every order, and what belongs to a zone goes with the last region
 * that needs it.
 */
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

static unsigned nr_tails(const struct world *w)
{
	unsigned nr = 0;

	for (const struct diet_tails *t = w->map->tails; t; t = t->next)
		nr++;
	TAP_EQ(w->map->nr_tails, nr);
	return nr;
}

static struct mf_folio *folio_of_node(struct world *w, unsigned node, unsigned order)
{
	struct mf_folio *folio;

	if (mf_folio_alloc(w->map, (int)node, order, MF_ALLOC_WAIT | MF_ALLOC_THIS_NODE, &folio) != 0)
		return NULL;
	return mf_folio_freeze(folio, 1) ? folio : NULL;
}

static bool add(struct world *w, unsigned gib, unsigned node, enum mf_layout layout, unsigned *id)
{
	struct mf_region_config region = {
		.start_pfn = gib * G, .end_pfn = (gib + 1) * G, .node = node, .layout = layout, .source = MF_SOURCE_RAM
	};

	return world_add_region(w, &region, id) == 0;
}

/* ---- Layouts side by side ---------------------------------------------------------------------------------------- */

static const enum mf_layout mixed[] = {
	MF_LAYOUT_HVO_5_14, MF_LAYOUT_TIERED, MF_LAYOUT_HVO_5_18, MF_LAYOUT_FLAT, MF_LAYOUT_HVO_7_1,
};

enum { NR_MIXED = sizeof(mixed) / sizeof(mixed[0]) };

static void check_all(struct world *w, struct mf_folio *folio[], unsigned order)
{
	for (unsigned i = 0; i < NR_MIXED; i++) {
		mf_pfn_t pfn = mf_folio_pfn(w->map, folio[i]);

		TAP_EQ(pfn / G, i);
		for (mf_pfn_t at = 0; at < (mf_pfn_t)1 << order; at += 61) {
			TAP_OK(mf_pfn_folio(w->map, pfn + at) == folio[i]);
			TAP_OK(mf_page_folio(w->map, mf_pfn_to_page(w->map, pfn + at)) == folio[i]);
		}
	}
	TAP_OK(world_check(w));
}

/* One list holds folios of all: each goes on its own region's diet, or on none. */
static void play_mixed(unsigned order, enum mf_map_flags flags)
{
	struct mf_folio *folio[NR_MIXED];
	struct mf_list list, restored;
	uint64_t nr = 0, nr_aliases = 0;
	struct world w;

	mf_list_init(&list);
	mf_list_init(&restored);
	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = NR_MIXED * G, .flags = flags }));
	for (unsigned i = 0; i < NR_MIXED; i++)
		TAP_REQUIRE(add(&w, i, i, mixed[i], NULL));
	for (unsigned i = 0; i < NR_MIXED; i++) {
		folio[i] = folio_of_node(&w, i, order);
		TAP_REQUIRE(folio[i]);
		mf_list_push_back(&list, &folio[i]->page.list);
		nr_aliases += mf_diet_saves(mixed[i], 12, MF_DESCRIPTOR_SIZE, order);
	}
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
	TAP_EQ(nr, NR_DIET_LAYOUTS);
	TAP_EQ(diet_stats(&w).nr_aliases, nr_aliases);
	for (unsigned i = 0; i < NR_MIXED; i++) {
		TAP_EQ(mf_folio_is_on_diet(folio[i]), mf_layout_diet(mixed[i])->is_by_remap);
		TAP_EQ((mf_page_word(&folio[i]->page) & MF_WORD_ALIASED) != 0, mixed[i] == MF_LAYOUT_HVO_5_18);
	}
	check_all(&w, folio, order);
	TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), 0);
	TAP_EQ(nr, NR_DIET_LAYOUTS);
	check_all(&w, folio, order);
	diet_list_free(&w, &restored);
	TAP_OK(world_close(&w));
}

TAP_TEST(regions_of_all_layouts_in_one_map)
{
	play_mixed(9, MF_MAP_SHARE_TABLES);
	play_mixed(9, MF_MAP_PRIVATE_TABLES);
	play_mixed(18, MF_MAP_SHARE_TABLES);
}

/* A tiered neighbour unfolds and folds, a flat one is used, while folios beside them are on their diet. */
TAP_TEST(neighbours_live_on_beside_a_diet)
{
	struct mf_folio *dieted, *tiered, *flat;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 3 * G }));
	TAP_REQUIRE(add(&w, 0, 0, MF_LAYOUT_HVO_5_18, NULL));
	TAP_REQUIRE(add(&w, 1, 1, MF_LAYOUT_TIERED, NULL));
	TAP_REQUIRE(add(&w, 2, 2, MF_LAYOUT_FLAT, NULL));
	dieted = folio_of_node(&w, 0, 18);
	TAP_REQUIRE(dieted);
	TAP_EQ(mf_diet_remap(w.map, dieted), 0);
	for (unsigned i = 0; i < 3; i++) {
		tiered = folio_of_node(&w, 1, 0);
		flat = folio_of_node(&w, 2, 3);
		TAP_REQUIRE(tiered && flat);
		TAP_OK(diet_answers(&w, dieted, 18));
		TAP_OK(world_check(&w));
		diet_folio_free(&w, tiered);
		diet_folio_free(&w, flat);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_OK(world_check(&w));
	}
	TAP_OK(mf_folio_is_on_diet(dieted));
	diet_folio_free(&w, dieted);
	TAP_OK(world_close(&w));
}

/* ---- Tails of zones ---------------------------------------------------------------------------------------------- */

static mf_pfn_t shown_by(const struct world *w, struct mf_folio *folio)
{
	return mf_pgtable_walk(&w->map->pgtable, (uintptr_t)diet_slot(w, folio, 1)).pfn;
}

/* Two sizes in two zones: four frames of tails, never mixed.  R-HVO-17, R-GEN-4, R-SCN-2 */
TAP_TEST(every_zone_and_order_has_one_tail_frame)
{
	static const unsigned orders[] = { 9, 15 };
	struct mf_folio *folio[2][2][2];
	mf_pfn_t frame[4];
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	for (unsigned zone = 0; zone < 2; zone++)
		TAP_REQUIRE(add(&w, zone, zone, MF_LAYOUT_HVO_7_1, NULL));
	for (unsigned i = 0; i < 8; i++) {
		struct mf_folio *new = folio_of_node(&w, i & 1, orders[i >> 1 & 1]);

		TAP_REQUIRE(new);
		TAP_EQ(mf_diet_remap(w.map, new), 0);
		folio[i & 1][i >> 1 & 1][i >> 2] = new;
		frame[i & 3] = shown_by(&w, new);
		TAP_EQ(mf_word_zone(mf_page_word(&new->page)), i & 1);
	}
	TAP_EQ(nr_tails(&w), 4);
	for (unsigned i = 0; i < 4; i++) {
		/* Both folios of a zone and order show the same, and nobody else does. */
		TAP_EQ(shown_by(&w, folio[i & 1][i >> 1][0]), frame[i]);
		TAP_EQ(shown_by(&w, folio[i & 1][i >> 1][1]), frame[i]);
		for (unsigned j = 0; j < i; j++)
			TAP_OK(frame[i] != frame[j]);
	}
	TAP_OK(world_check(&w));
	for (unsigned i = 0; i < 8; i++)
		diet_folio_free(&w, folio[i & 1][i >> 1 & 1][i >> 2]);
	TAP_OK(world_close(&w));
}

/* They stay while a region of the zone could use them, and go with the last one, also when other layouts stay. */
TAP_TEST(tails_go_with_the_last_region_that_needs_them)
{
	unsigned id[3];
	uint64_t before;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 3 * G }));
	TAP_REQUIRE(add(&w, 2, 0, MF_LAYOUT_HVO_5_18, &id[2]));
	before = mf_sim_ram_used(w.sim);
	TAP_REQUIRE(add(&w, 0, 0, MF_LAYOUT_HVO_7_1, &id[0]));
	TAP_REQUIRE(add(&w, 1, 0, MF_LAYOUT_HVO_7_1, &id[1]));
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 3; i++) {
			struct mf_folio *folio = diet_folio(&w, i == 2 ? 9 : 18);

			TAP_REQUIRE(folio);
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
			diet_folio_free(&w, folio);
		}
		/* Whichever region they came from: two orders at most. */
		TAP_OK(nr_tails(&w) >= 1 && nr_tails(&w) <= 2);
		TAP_EQ(mf_region_remove(w.map, id[0]), 0);
		TAP_OK(nr_tails(&w) >= 1);
		TAP_OK(world_check(&w));
		TAP_EQ(mf_region_remove(w.map, id[1]), 0);
		TAP_EQ(nr_tails(&w), 0);
		TAP_EQ(w.map->nr_uniform, 0);
		TAP_OK(world_check(&w));
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		if (round == 0) {
			TAP_REQUIRE(add(&w, 0, 0, MF_LAYOUT_HVO_7_1, &id[0]));
			TAP_REQUIRE(add(&w, 1, 0, MF_LAYOUT_HVO_7_1, &id[1]));
		}
	}
	/* The zone's other region may have had a leaf split, no more. */
	TAP_OK(mf_sim_ram_used(w.sim) - before <= 1);
	TAP_OK(world_close(&w));
}

/* A zone's tails are its own: another zone's stay. */
TAP_TEST(tails_of_other_zones_stay)
{
	struct mf_folio *folio[2];
	unsigned id[2];
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	for (unsigned i = 0; i < 2; i++) {
		TAP_REQUIRE(add(&w, i, i, MF_LAYOUT_HVO_7_1, &id[i]));
		folio[i] = folio_of_node(&w, i, 18);
		TAP_REQUIRE(folio[i]);
		TAP_EQ(mf_diet_remap(w.map, folio[i]), 0);
	}
	TAP_EQ(nr_tails(&w), 2);
	TAP_EQ(w.map->nr_uniform, 2);
	diet_folio_free(&w, folio[0]);
	TAP_EQ(mf_region_remove(w.map, id[0]), 0);
	TAP_EQ(nr_tails(&w), 1);
	TAP_EQ(w.map->nr_uniform, 1);
	TAP_OK(diet_answers(&w, folio[1], 18));
	TAP_OK(world_check(&w));
	diet_folio_free(&w, folio[1]);
	TAP_OK(world_close(&w));
}

/* ---- Adding ------------------------------------------------------------------------------------------------------ */

/* A classic layout is a flat map at first: nothing is on a diet, and it costs what flat costs. */
TAP_TEST(a_classic_region_begins_flat)
{
	uint64_t flat = 0;

	for (unsigned i = 0; i <= NR_DIET_LAYOUTS; i++) {
		enum mf_layout layout = i == 0 ? MF_LAYOUT_FLAT : diet_layouts[i - 1];
		struct mf_map_stats stats;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, layout));
		stats = diet_stats(&w);
		flat = i == 0 ? stats.nr_ram : flat;
		TAP_EQ(stats.nr_ram, flat);
		TAP_EQ(stats.nr_dieted + stats.nr_aliases + stats.nr_kept, 0);
		TAP_EQ(nr_tails(&w), 0);
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(unit_orders_are_for_devdax)
{
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_region_config region = {
			.end_pfn = G, .layout = diet_layouts[i], .source = MF_SOURCE_RAM, .unit_order = 9
		};

		TAP_EQ(world_add_region(&w, &region, NULL), -MF_EINVAL);
	}
	TAP_OK(world_close(&w));
}

TAP_MAIN()
