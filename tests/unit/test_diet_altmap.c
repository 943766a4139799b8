/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_altmap.c - folios whose map lies in a reserve of the region itself: what a diet frees goes back there and
 * is used again before any RAM; and folios in partial blocks, whose slots are no reserve's.
 */
#include "tests/lib/hog.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

static struct hog hog;

/* Two GiB, described by their own first frames: 16 larger leaves. */
static bool open_altmap(struct world *w, enum mf_layout layout, enum mf_map_flags flags)
{
	struct mf_region_config region = {
		.end_pfn = 2 * G, .layout = layout, .source = MF_SOURCE_ALTMAP, .nr_altmap = 2 * G / 64
	};

	return world_open(w, &(struct world_config){ .nr_frames = 2 * G, .nr_ram_frames = 9000, .flags = flags }) &&
	       world_add_region(w, &region, NULL) == 0;
}

/* Frames of the reserve in use and not; slots and tables of RAM. */
struct use {
	uint64_t nr_map, nr_reserved, nr_ram;
};

static struct use use_of(struct world *w)
{
	struct mf_map_stats stats = diet_stats(w);

	TAP_EQ(stats.nr_ram, mf_sim_ram_used(w->sim));
	TAP_EQ(stats.nr_map + stats.nr_reserved, 2 * G / 64);
	return (struct use){ stats.nr_map, stats.nr_reserved, stats.nr_ram };
}

static void check_use(struct world *w, const struct use *before, int64_t spare, int64_t ram)
{
	struct use now = use_of(w);

	TAP_EQ((int64_t)(now.nr_reserved - before->nr_reserved), spare);
	TAP_EQ((int64_t)(now.nr_ram - before->nr_ram), ram);
}

/*
 * On and off, three times; `split`: tables that a larger leaf is split into.  hvo-7.1: the zone's tails are of RAM, and
 * every other time the head as well: when the reserve has nothing to spare, and what is spared then is the old head's
 * frame.
 */
static void check_round_trips(enum mf_layout layout, unsigned order, enum mf_map_flags flags, int64_t split)
{
	const struct mf_diet *diet = mf_layout_diet(layout);
	int64_t saved, zone = diet->tails == MF_TAILS_ZONE;
	struct mf_folio *folio;
	struct use before;
	struct world w;

	TAP_REQUIRE(open_altmap(&w, layout, flags));
	folio = diet_folio(&w, order);
	TAP_REQUIRE(folio);
	saved = (int64_t)diet_nr_slots(&w, order) - diet->nr_kept;
	before = use_of(&w);
	TAP_EQ(before.nr_reserved, 0);
	for (unsigned i = 0; i < 3; i++) {
		int64_t moved = zone && i % 2 == 0;

		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		check_use(&w, &before, saved + moved, split + zone + moved);
		TAP_OK(diet_answers(&w, folio, order));
		TAP_OK(world_check(&w));
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		check_use(&w, &before, moved, split + zone + moved);
		TAP_OK(diet_answers(&w, folio, order));
		TAP_OK(world_check(&w));
	}
	diet_folio_free(&w, folio);
	TAP_OK(world_close(&w));
}

TAP_TEST(frames_go_back_to_the_altmap_and_are_used_again)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		check_round_trips(diet_layouts[i], 9, MF_MAP_SHARE_TABLES, 1);
		check_round_trips(diet_layouts[i], 9, MF_MAP_PRIVATE_TABLES, 0);
		check_round_trips(diet_layouts[i], 13, MF_MAP_SHARE_TABLES, 1);
		check_round_trips(diet_layouts[i], 18, MF_MAP_PRIVATE_TABLES, 0);
	}
}

/* Of a whole leaf's frames, too: single ones stand behind its slots afterwards, under tables, and no block of RAM. */
TAP_TEST(leaves_of_the_altmap_are_not_replaced_by_ram)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		const struct mf_diet *diet = mf_layout_diet(diet_layouts[i]);
		int64_t zone = diet->tails == MF_TAILS_ZONE;
		struct mf_folio *folio;
		struct use before;
		struct world w;

		TAP_REQUIRE(open_altmap(&w, diet_layouts[i], MF_MAP_SHARE_TABLES));
		folio = diet_folio(&w, 18);
		TAP_REQUIRE(folio);
		before = use_of(&w);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		check_use(&w, &before, 4096 - diet->nr_kept + zone, 2 + 2 * zone);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		check_use(&w, &before, zone, 8 + 3 * zone);
		TAP_OK(world_check(&w));
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

/* With no RAM at all a folio goes off its diet, and on it again. */
TAP_TEST(restore_needs_no_ram)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(open_altmap(&w, diet_layouts[i], MF_MAP_SHARE_TABLES));
		folio = diet_folio(&w, 9);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		hog_all(&hog, w.sim);
		for (unsigned j = 0; j < 3; j++) {
			TAP_EQ(mf_diet_restore(w.map, folio), 0);
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
		}
		TAP_OK(world_check(&w));
		/* Freed, and restored by whoever wants it. */
		diet_folio_free(&w, folio);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_KEEP, NULL), 0);
		TAP_EQ(diet_stats(&w).nr_kept, 0);
		hog_end(&hog);
		TAP_OK(world_close(&w));
	}
}

/* What one folio frees serves another: the reserve is the region's, not the folio's. */
TAP_TEST(one_folio_is_restored_with_what_another_freed)
{
	struct mf_folio *folio[3];
	struct use before;
	struct world w;

	TAP_REQUIRE(open_altmap(&w, MF_LAYOUT_HVO_5_18, MF_MAP_PRIVATE_TABLES));
	for (unsigned i = 0; i < 3; i++) {
		folio[i] = diet_folio(&w, 9);
		TAP_REQUIRE(folio[i]);
	}
	before = use_of(&w);
	for (unsigned i = 0; i < 3; i++)
		TAP_EQ(mf_diet_remap(w.map, folio[i]), 0);
	check_use(&w, &before, 21, 0);
	/* In another order than they went on it. */
	TAP_EQ(mf_diet_restore(w.map, folio[1]), 0);
	TAP_EQ(mf_diet_restore(w.map, folio[0]), 0);
	check_use(&w, &before, 7, 0);
	TAP_EQ(mf_diet_remap(w.map, folio[1]), 0);
	TAP_OK(world_check(&w));
	for (unsigned i = 0; i < 3; i++)
		diet_folio_free(&w, folio[i]);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	check_use(&w, &before, 0, 0);
	TAP_OK(world_close(&w));
}

/* The region goes with whatever stands behind its slots by then, and another may come in its place. */
TAP_TEST(the_altmap_goes_with_its_region)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_region_config flat = { .end_pfn = 2 * G, .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_RAM };
		struct mf_folio *folio[2];
		uint64_t ram;
		struct world w;

		TAP_REQUIRE(open_altmap(&w, diet_layouts[i], MF_MAP_SHARE_TABLES));
		folio[0] = diet_folio(&w, 18);
		folio[1] = diet_folio(&w, 9);
		TAP_REQUIRE(folio[0] && folio[1]);
		for (unsigned j = 0; j < 2; j++)
			TAP_EQ(mf_diet_remap(w.map, folio[j]), 0);
		TAP_EQ(mf_diet_restore(w.map, folio[0]), 0);
		diet_folio_free(&w, folio[0]);
		diet_folio_free(&w, folio[1]);
		TAP_EQ(mf_region_remove(w.map, 0), 0);
		ram = mf_sim_ram_used(w.sim);
		TAP_OK(ram <= 8); /* an empty map */
		TAP_EQ(world_add_region(&w, &flat, NULL), 0);
		TAP_OK(world_check(&w));
		TAP_OK(world_close(&w));
	}
}

/* ---- Partial blocks ---------------------------------------------------------------------------------------------- */

/*
 * A block of tier 1 of which the region has a part: its slots are RAM's, perhaps another region's too.  Folios in it
 * are too small for any page of HugeTLB, and stay as they are.
 */
static void check_edge(enum mf_layout layout, enum mf_source source)
{
	struct mf_region_config region = {
		.start_pfn = 256,
		.end_pfn = G + 256,
		.layout = layout,
		.source = source,
		.nr_altmap = source == MF_SOURCE_ALTMAP ? 8192 - 256 : 0,
	};
	struct mf_region_config beside = {
		.start_pfn = G + 256, .end_pfn = 2 * G, .layout = layout, .source = MF_SOURCE_RAM
	};
	struct mf_map_stats before, after;
	struct mf_list edges;
	struct mf_folio *folio;
	mf_pfn_t pfn;
	struct world w;

	mf_list_init(&edges);
	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(world_add_region(&w, &region, NULL), 0);
	TAP_EQ(world_add_region(&w, &beside, NULL), 0);
	for (;;) {
		folio = diet_folio(&w, 8);
		TAP_REQUIRE(folio);
		pfn = mf_folio_pfn(w.map, folio);
		if (pfn >= 512 && pfn != G && pfn != G + 256)
			break;
		mf_list_push_back(&edges, &folio->page.list);
		before = diet_stats(&w);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_OK(!mf_folio_is_on_diet(folio));
		after = diet_stats(&w);
		TAP_OK(memcmp(&before, &after, sizeof(before)) == 0);
	}
	TAP_OK(!mf_list_is_empty(&edges));
	/* The next one lies in a whole block, where the same size saves what it saves. */
	TAP_EQ(mf_diet_remap(w.map, folio), 0);
	TAP_OK(mf_folio_is_on_diet(folio));
	TAP_OK(world_check(&w));
	diet_folio_free(&w, folio);
	diet_list_free(&w, &edges);
	TAP_EQ(mf_region_remove(w.map, 0), 0);
	TAP_OK(world_check(&w));
	TAP_OK(world_close(&w));
}

TAP_TEST(folios_in_partial_blocks_stay_as_they_are)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		check_edge(diet_layouts[i], MF_SOURCE_RAM);
		check_edge(diet_layouts[i], MF_SOURCE_ALTMAP);
	}
}

TAP_MAIN()
