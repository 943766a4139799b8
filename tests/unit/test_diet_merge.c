/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_merge.c - larger leaves again after a diet: when every folio is restored and free, mf_fold(MF_FOLD_ALL)
 * gives back every table, to the frame; what is in use, what finds no frames and what lies in the memory itself stays
 * as it is.
 */
#include "tests/lib/hog.h"
#include "tests/lib/saboteur.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

/* What one table of level 0 describes: 512 slots of 64 descriptors. */
#define PIECE ((mf_pfn_t)512 * 64)

static struct hog hog;

static int fold_all(struct world *w)
{
	return mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
}

/* nr folios of this order go on their diet, and are dropped on it. */
static bool diet_and_drop(struct world *w, unsigned order, uint64_t nr)
{
	struct mf_list list;
	bool good;

	mf_list_init(&list);
	good = diet_list_fill(w, &list, order, nr) && mf_diet_remap_list(w->map, &list, NULL) == 0;
	diet_list_free(w, &list);
	return good;
}

/* What the map costs, beside nr_tails slots and nr_uniform tables that a zone of hvo-7.1 keeps for folios to come. */
static void check_cost(struct world *w, const struct mf_map_stats *before, uint64_t nr_tails, uint64_t nr_uniform)
{
	struct mf_map_stats now = diet_stats(w);

	TAP_EQ(now.nr_slots, before->nr_slots + nr_tails);
	TAP_EQ(now.nr_tables, before->nr_tables + nr_uniform);
	TAP_EQ(now.nr_ram, before->nr_ram + nr_tails + nr_uniform);
	TAP_EQ(now.nr_free, before->nr_free);
	TAP_EQ(now.nr_kept + now.nr_dieted + now.nr_aliases + now.nr_map, 0);
}

static uint64_t nr_tails(unsigned i)
{
	return mf_layout_diet(diet_layouts[i])->tails == MF_TAILS_ZONE;
}

/* ---- To the frame ------------------------------------------------------------------------------------------------ */

/* Two tables were made of leaves; 7.1 keeps its tail frame [R-HVO-18].  Lifts L-HVO-6 */
TAP_TEST(a_map_that_was_on_a_diet_costs_what_it_did)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_map_stats before;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, diet_layouts[i]));
		before = diet_stats(&w);
		digest = mf_map_digest(w.map);
		TAP_OK(diet_and_drop(&w, 9, 100));
		TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 2);
		TAP_EQ(fold_all(&w), 0);
		check_cost(&w, &before, nr_tails(i), 0);
		TAP_EQ(mf_map_digest(w.map), digest);
		/* And again, as if it were the first time. */
		TAP_OK(diet_and_drop(&w, 9, 512));
		TAP_EQ(fold_all(&w), 0);
		check_cost(&w, &before, nr_tails(i), 0);
		TAP_OK(world_close(&w));
	}
}

/* Where a table is full of one folio's aliases, it is shared, and 7.1 keeps that table, too. */
TAP_TEST(a_map_with_uniform_tables_costs_what_it_did)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_map_stats before;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = 2 * G }, diet_layouts[i]));
		before = diet_stats(&w);
		TAP_OK(diet_and_drop(&w, 18, 1));
		TAP_OK(diet_and_drop(&w, 15, 3));
		TAP_OK(diet_and_drop(&w, 16, 2));
		TAP_EQ(fold_all(&w), 0);
		check_cost(&w, &before, 3 * nr_tails(i), 2 * nr_tails(i));
		TAP_OK(world_close(&w));
	}
}

/* Without shared tables there are no larger leaves to begin with, and none afterwards. */
TAP_TEST(a_map_of_private_tables_costs_what_it_did)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct world_config config = { .nr_frames = 2 * G, .flags = MF_MAP_PRIVATE_TABLES };
		struct mf_map_stats before;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &config, diet_layouts[i]));
		before = diet_stats(&w);
		TAP_OK(diet_and_drop(&w, 9, 100));
		TAP_OK(diet_and_drop(&w, 18, 1));
		TAP_EQ(fold_all(&w), 0);
		check_cost(&w, &before, 2 * nr_tails(i), 0);
		TAP_OK(world_close(&w));
	}
}

/* A table of 2^11 slots of 256 descriptors; the region reaches a little beyond both ends of what one describes. */
TAP_TEST(a_map_of_16_kib_frames_costs_what_it_did)
{
	mf_pfn_t piece = (mf_pfn_t)2048 * 256;

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct world_config config = { .machine = "sim-arm64-16k", .nr_frames = 4 * piece };
		struct mf_region_config region = { .start_pfn = piece - 4096,
						   .end_pfn = 2 * piece + 4096,
						   .layout = diet_layouts[i],
						   .source = MF_SOURCE_RAM };
		struct mf_map_stats before;
		struct world w;

		TAP_REQUIRE(world_open(&w, &config) && world_add_region(&w, &region, NULL) == 0);
		before = diet_stats(&w);
		TAP_OK(diet_and_drop(&w, 11, 20));
		TAP_EQ(fold_all(&w), 0);
		check_cost(&w, &before, nr_tails(i), 0);
		TAP_OK(world_close(&w));
	}
}

/* ---- What stays -------------------------------------------------------------------------------------------------- */

/* One folio, on its diet or off it, keeps the table of its piece; those next to it go. */
TAP_TEST(a_piece_with_users_keeps_its_table)
{
	struct mf_map_stats before;
	struct mf_folio *user;
	struct mf_list list;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_5_18));
	before = diet_stats(&w);
	mf_list_init(&list);
	TAP_REQUIRE(diet_list_fill(&w, &list, 9, 512));
	TAP_EQ(mf_diet_remap_list(w.map, &list, NULL), 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + G / PIECE);
	user = diet_list_folio(list.next);
	mf_list_remove(&user->page.list);
	diet_list_free(&w, &list);
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
	TAP_OK(diet_answers(&w, user, 9));
	TAP_OK(world_check(&w));
	TAP_EQ(mf_diet_restore(w.map, user), 0);
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
	diet_folio_free(&w, user);
	TAP_EQ(fold_all(&w), 0);
	check_cost(&w, &before, 0, 0);
	TAP_OK(world_close(&w));
}

/* Only who asks for everything pays for the copy. */
TAP_TEST(folding_that_keeps_merges_nothing)
{
	struct mf_map_stats before, after;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_5_18));
	before = diet_stats(&w);
	TAP_OK(diet_and_drop(&w, 9, 64));
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_KEEP, NULL), 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
	TAP_EQ(mf_fold(w.map, 1, MF_FOLD_ALL, NULL), 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
	TAP_EQ(mf_fold(w.map, 0, MF_FOLD_ALL, NULL), 0);
	after = diet_stats(&w);
	check_cost(&w, &before, 0, 0);
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).flushes, after.flushes);
	TAP_OK(world_close(&w));
}

/* No error: the next one may find them. */
TAP_TEST(without_a_block_of_frames_a_table_stays)
{
	struct mf_map_stats before;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_5_18));
	before = diet_stats(&w);
	TAP_OK(diet_and_drop(&w, 9, 64));
	hog_all(&hog, w.sim);
	hog_put(&hog, 5000);
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).nr_kept, 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
	TAP_OK(world_check(&w));
	hog_end(&hog);
	TAP_EQ(fold_all(&w), 0);
	check_cost(&w, &before, 0, 0);
	TAP_OK(world_close(&w));
}

/* A flat region that found no blocks when it came has them later. */
TAP_TEST(a_flat_region_gets_the_leaves_that_it_never_had)
{
	struct mf_region_config region = { .end_pfn = G, .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_RAM };
	uint64_t nr_tables;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	hog_all(&hog, w.sim);
	hog_put(&hog, 4200);
	TAP_REQUIRE(world_add_region(&w, &region, NULL) == 0);
	hog_end(&hog);
	nr_tables = diet_stats(&w).nr_tables;
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).nr_tables, nr_tables - 8);
	TAP_EQ(diet_stats(&w).nr_slots, G / 64 + 1);
	TAP_OK(world_close(&w));
}

/* Frames of a reserve are where the owner of the memory wants its map.  Heads that 7.1 has moved to RAM stay there. */
TAP_TEST(a_map_in_its_altmap_is_not_moved_to_ram)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_region_config region = {
			.end_pfn = G, .layout = diet_layouts[i], .source = MF_SOURCE_ALTMAP, .nr_altmap = 4096
		};
		struct mf_map_stats before, after;
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
		TAP_REQUIRE(world_add_region(&w, &region, NULL) == 0);
		before = diet_stats(&w);
		TAP_OK(diet_and_drop(&w, 9, 80));
		TAP_EQ(fold_all(&w), 0);
		after = diet_stats(&w);
		TAP_EQ(after.nr_slots, before.nr_slots + nr_tails(i));
		TAP_EQ(after.nr_tables, before.nr_tables + 2);
		TAP_EQ(after.nr_map, before.nr_map - 80 * nr_tails(i));
		TAP_EQ(after.nr_ram, before.nr_ram + 2 + 81 * nr_tails(i));
		TAP_OK(world_check(&w));
		TAP_OK(world_close(&w));
	}
}

/* A leaf of the altmap that was split for nothing has lost no frame: it needs none. */
TAP_TEST(a_leaf_that_lost_nothing_is_merged_in_place)
{
	struct mf_region_config region = {
		.end_pfn = G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_ALTMAP, .nr_altmap = 4096
	};
	struct mf_list list, others;
	struct mf_map_stats before;
	struct diet_work work;
	struct diet_unit u;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_REQUIRE(world_add_region(&w, &region, NULL) == 0);
	before = diet_stats(&w);
	mf_list_init(&list);
	mf_list_init(&others);
	/* Away from the piece that describes the reserve, which is not free. */
	TAP_REQUIRE(diet_list_fill(&w, &others, 9, PIECE / 512 - 8) && diet_list_fill(&w, &list, 9, 2));
	diet_list_free(&w, &others);
	TAP_OK(mf_folio_pfn(w.map, diet_list_folio(list.next)) >= PIECE);
	/* As a list leaves it that finds no memory for one of many. */
	u = diet_unit(w.map, &diet_list_folio(list.next)->page);
	diet_work_begin(&work, w.map, MF_FLUSH_FOR_REMAP, 1);
	TAP_EQ(diet_split(&u, &work, true), 0);
	diet_work_end(&work);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
	hog_all(&hog, w.sim);
	diet_list_free(&w, &list);
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables);
	TAP_EQ(diet_stats(&w).nr_ram, before.nr_ram);
	hog_end(&hog);
	TAP_OK(world_close(&w));
}

/* Forwards, but for blocks of RAM while there are none. */
static struct saboteur saboteur;
static struct mf_machine_ops without_blocks;
static const struct mf_machine_ops *with_blocks;
static bool no_blocks;

static int get_no_block(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	return no_blocks && order > 0 ? -MF_ENOMEM : with_blocks->ram_get(m, node, order, pfn);
}

static struct mf_machine *wrap(void *ctx, struct mf_machine *machine)
{
	struct mf_machine *m = saboteur_wrap(ctx, machine);

	with_blocks = m->ops;
	without_blocks = *with_blocks;
	without_blocks.ram_get = get_no_block;
	m->ops = &without_blocks;
	return m;
}

/* Single frames in a row are given back as they were got, one by one; sim would panic. */
TAP_TEST(frames_that_happen_to_lie_in_a_row_are_no_block)
{
	struct world_config config = { .nr_frames = G, .wrap = wrap, .wrap_ctx = &saboteur };
	struct mf_map_stats stats;
	struct world w;

	no_blocks = true;
	TAP_REQUIRE(diet_open(&w, &config, MF_LAYOUT_HVO_5_14));
	no_blocks = false;
	stats = diet_stats(&w);
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(diet_stats(&w).nr_tables, stats.nr_tables - G / PIECE);
	TAP_EQ(diet_stats(&w).nr_ram, stats.nr_ram - G / PIECE);
	TAP_OK(world_close(&w));
}

/* ---- What readers and the allocator see -------------------------------------------------------------------------- */

/* Free memory is the same free memory, descriptors are writable, and nothing is stale. */
TAP_TEST(free_blocks_are_what_they_were)
{
	struct mf_zone_info before, after;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_5_14));
	TAP_EQ(mf_zone_info(w.map, 0, &before), 0);
	TAP_OK(diet_and_drop(&w, 9, 300));
	TAP_EQ(fold_all(&w), 0);
	TAP_EQ(mf_zone_info(w.map, 0, &after), 0);
	TAP_EQ(memcmp(&before, &after, sizeof(before)), 0);
	for (mf_pfn_t pfn = 0; pfn < G; pfn += 61) {
		struct mf_page *page = mf_pfn_to_page(w.map, pfn);

		TAP_OK(mf_page_kind(page) == MF_KIND_FREE && mf_page_folio(w.map, page) == mf_pfn_folio(w.map, pfn));
	}
	folio = diet_folio(&w, 18);
	TAP_REQUIRE(folio);
	TAP_OK(diet_answers(&w, folio, 18));
	diet_folio_free(&w, folio);
	TAP_OK(world_close(&w));
}

/* The n-th allocation of a fold fails: it folds what it can, every law holds, and the next one does the rest. */
TAP_TEST(nth_failure_of_a_fold_is_made_good_by_the_next)
{
	for (uint64_t nth = 1; nth < 30; nth++) {
		struct mf_map_stats before;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_5_18));
		before = diet_stats(&w);
		digest = mf_map_digest(w.map);
		TAP_OK(diet_and_drop(&w, 9, 3));
		mf_sim_fail_ram(w.sim, nth);
		TAP_EQ(fold_all(&w), 0);
		mf_sim_fail_ram(w.sim, 0);
		TAP_OK(world_check(&w));
		TAP_EQ(fold_all(&w), 0);
		check_cost(&w, &before, 0, 0);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
