/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_self_hosted.c - folios whose map lies in the memory that it describes go on a diet, when asked for: what
 * becomes free, to the frame; who may have it; and that a region comes and goes as before.
 */
#include "tests/tap.h"
#include "tests/unit/self_rig.h"

#define G WORLD_GIB_FRAMES

static struct hog hog;

/* Less RAM than a hog holds. */
static bool open_each(struct world *w, uint64_t nr_frames, unsigned i, enum mf_map_flags sharing, unsigned flags)
{
	struct world_config config = { .nr_frames = nr_frames, .nr_ram_frames = 20000, .flags = sharing };

	return self_open(w, &config, diet_layouts[i], MF_SOURCE_SELF, MF_REGION_DIET_SELF_HOSTED | flags);
}

/* Frames of the region that a folio's diet makes free: with the head's, if that moves. */
static uint64_t nr_freed(const struct world *w, unsigned i, unsigned order)
{
	return self_saved(w, diet_layouts[i], order) + mf_layout_diet(diet_layouts[i])->moves_head;
}

static const enum mf_map_flags sharing[] = { MF_MAP_SHARE_TABLES, MF_MAP_PRIVATE_TABLES };

/* ---- Figures ----------------------------------------------------------------------------------------------------- */

/* RAM is for what the diet adds: tables, a head that moves, the zone's tails.  Lifts L-HVO-5, L-HP-4 */
static void check_order(unsigned i, enum mf_map_flags flags, unsigned order, uint64_t nr_tables)
{
	uint64_t freed, moved = mf_layout_diet(diet_layouts[i])->moves_head;
	struct mf_map_stats before, now;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_each(&w, 2 * G, i, flags, 0));
	freed = nr_freed(&w, i, order);
	folio = diet_folio(&w, order);
	TAP_REQUIRE(folio);
	before = diet_stats(&w);
	TAP_EQ(mf_diet_remap(w.map, folio), 0);
	now = diet_stats(&w);
	TAP_EQ(now.nr_free, before.nr_free + freed);
	TAP_EQ(now.nr_map, before.nr_map - freed);
	TAP_EQ(now.nr_slots, before.nr_slots - freed + 2 * moved);
	TAP_EQ(now.nr_tables, before.nr_tables + nr_tables);
	TAP_EQ(now.nr_ram, before.nr_ram + nr_tables + 2 * moved);
	TAP_OK(diet_answers(&w, folio, order));
	TAP_OK(world_check(&w));

	/* A larger leaf that comes back takes in what was kept. */
	if (nr_tables == 2)
		freed += mf_layout_diet(diet_layouts[i])->nr_kept - moved;
	TAP_EQ(mf_diet_restore(w.map, folio), 0);
	now = diet_stats(&w);
	TAP_EQ(now.nr_free, before.nr_free + freed);
	TAP_EQ(now.nr_slots, before.nr_slots + moved);
	TAP_OK(diet_answers(&w, folio, order));
	TAP_OK(world_check(&w));
	diet_folio_free(&w, folio);
	TAP_OK(world_close(&w));
}

TAP_TEST(a_self_hosted_2_mib_folio_frees_what_its_era_saves)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < 2; j++)
			check_order(i, sharing[j], 9, sharing[j] == MF_MAP_SHARE_TABLES);
}

/* The first table, and the uniform one. */
TAP_TEST(a_self_hosted_256_mib_folio_frees_what_its_era_saves)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < 2; j++)
			check_order(i, sharing[j], 16, sharing[j] == MF_MAP_SHARE_TABLES ? 2 : 0);
}

/*
 * hvo-7.1: 504 folios of 2 MiB beside a map of 16 MiB for one GiB, and 7 in what their diet makes free of that; the
 * eighth block holds the slots of all the eight.
 */
TAP_TEST(what_comes_free_is_memory_like_any)
{
	struct mf_list folios, more, pages;
	uint64_t nr_more = 0;
	struct mf_folio *folio;
	struct mf_map_stats now;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, 2, MF_MAP_SHARE_TABLES, 0));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 504));
	TAP_OK(world_check(&w));
	mf_list_init(&more);
	for (; (folio = diet_folio(&w, 9)) != NULL; nr_more++)
		mf_list_push_back(&more, &folio->page.list);
	TAP_EQ(nr_more, 7);
	TAP_EQ(mf_diet_remap_list(w.map, &more, NULL), 0);
	TAP_OK(world_check(&w));
	now = diet_stats(&w);
	TAP_EQ(now.nr_map, 8);
	TAP_EQ(self_take_all(&w, &pages), 504);
	TAP_EQ(diet_stats(&w).nr_free, 0);
	TAP_OK(world_check(&w));
	self_drop(&w, &pages);
	diet_list_free(&w, &more);
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	TAP_EQ(diet_stats(&w).nr_free, G - 8);
	TAP_OK(world_close(&w));
}

/* ---- Regions ----------------------------------------------------------------------------------------------------- */

/* What a diet has made free is part of the region, in use or not. */
TAP_TEST(a_region_goes_when_what_came_free_is_free)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_region_config region = {
			.end_pfn = G, .layout = diet_layouts[i], .source = MF_SOURCE_SELF,
			.flags = MF_REGION_DIET_SELF_HOSTED
		};
		struct mf_list folios, pages;
		struct mf_folio *user = NULL;
		struct world w;
		unsigned id;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
		TAP_REQUIRE(world_add_region(&w, &region, &id) == 0);
		TAP_REQUIRE(self_diet(&w, &folios, 9, 504));
		self_take_all(&w, &pages);
		TAP_REQUIRE(!mf_list_is_empty(&pages));
		user = diet_list_folio(pages.next);
		TAP_OK(mf_folio_pfn(w.map, user) < 4096);
		mf_list_remove(&user->page.list);
		self_drop(&w, &pages);
		diet_list_free(&w, &folios);
		TAP_EQ(mf_region_remove(w.map, id), -MF_EBUSY);
		TAP_OK(world_check(&w));
		mf_folio_put(w.map, user);
		TAP_EQ(mf_region_remove(w.map, id), 0);
		TAP_OK(world_check(&w));
		/* The same zone serves again. */
		TAP_EQ(world_add_region(&w, &region, &id), 0);
		TAP_EQ(diet_stats(&w).nr_free, G - 4096);
		TAP_OK(world_close(&w));
	}
}

/* At odd places, with edges whose slots are of RAM. */
TAP_TEST(a_self_hosted_region_lies_anywhere)
{
	static const struct {
		mf_pfn_t start, end;
	} places[] = { { 777, 40000 }, { 512, 33000 }, { G - 2000, G + 70000 }, { 5, 1600 } };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned p = 0; p < sizeof(places) / sizeof(places[0]); p++) {
			struct mf_region_config region = { .start_pfn = places[p].start,
							   .end_pfn = places[p].end,
							   .layout = diet_layouts[i],
							   .source = MF_SOURCE_SELF,
							   .flags = MF_REGION_DIET_FLAGS };
			struct mf_list folios;
			struct world w;

			mf_list_init(&folios);
			TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
			TAP_REQUIRE(world_add_region(&w, &region, NULL) == 0);
			TAP_OK(diet_list_fill(&w, &folios, 8, 3));
			TAP_EQ(mf_diet_remap_list(w.map, &folios, NULL), 0);
			TAP_OK(world_check(&w));
			diet_list_free(&w, &folios);
			TAP_OK(world_close(&w));
		}
	}
}

/* ---- Without memory ---------------------------------------------------------------------------------------------- */

/* The frames that were given away do not come back.  R-HVO-43 */
TAP_TEST(a_restore_takes_memory_and_is_refused_without)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(open_each(&w, G, i, MF_MAP_SHARE_TABLES, 0));
		folio = diet_folio(&w, 9);
		TAP_REQUIRE(folio && mf_diet_remap(w.map, folio) == 0);
		hog_all(&hog, w.sim);
		digest = mf_map_digest(w.map);
		TAP_EQ(mf_diet_restore(w.map, folio), -MF_ENOMEM);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_OK(mf_folio_is_on_diet(folio));
		hog_put(&hog, self_saved(&w, diet_layouts[i], 9));
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

/* Both flags: all memory of the region and of its map, dieted, dropped, and had again, without a frame from anywhere. */
TAP_TEST(with_both_flags_nothing_waits_for_memory)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		uint64_t nr = 504 + (mf_layout_diet(diet_layouts[i])->moves_head ? 7 : 0), freed, hosts;
		struct mf_list folios, pages;
		struct mf_map_stats now;
		struct world w;

		TAP_REQUIRE(open_each(&w, G, i, MF_MAP_SHARE_TABLES, MF_REGION_RESTORE_FROM_SELF));
		freed = nr * nr_freed(&w, i, 9);
		hosts = nr * self_saved(&w, diet_layouts[i], 9);
		TAP_REQUIRE(self_diet(&w, &folios, 9, 504));
		TAP_REQUIRE(diet_list_fill(&w, &folios, 9, nr - 504) && mf_diet_remap_list(w.map, &folios, NULL) == 0);
		hog_all(&hog, w.sim);
		diet_list_free(&w, &folios);
		TAP_EQ(self_fold(&w), 0);
		now = diet_stats(&w);
		TAP_EQ(now.nr_hosted, nr);
		TAP_EQ(now.nr_kept, 0);
		TAP_EQ(now.nr_free, G - 4096 + freed - hosts);
		TAP_EQ(now.nr_map, 4096 - freed + hosts);
		TAP_OK(world_check(&w));
		TAP_EQ(self_take_all(&w, &pages), G - 4096 + freed - hosts);
		self_drop(&w, &pages);
		TAP_EQ(mf_region_remove(w.map, 0), 0);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		TAP_OK(world_close(&w));
	}
}

/* The n-th frame is lacking: on its diet or as it was, and nothing of the reserve is lost. */
TAP_TEST(nth_failure_of_a_remap_frees_nothing)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_map_stats before, now;
		struct mf_folio *folio;
		int err = -MF_ENOMEM;
		struct world w;

		TAP_REQUIRE(open_each(&w, 2 * G, i, MF_MAP_SHARE_TABLES, 0));
		folio = diet_folio(&w, 16);
		TAP_REQUIRE(folio);
		before = diet_stats(&w);
		for (uint64_t nth = 1; err && nth < 10; nth++) {
			mf_sim_fail_ram(w.sim, nth);
			err = mf_diet_remap(w.map, folio);
			mf_sim_fail_ram(w.sim, 0);
			now = diet_stats(&w);
			TAP_EQ(now.nr_free, before.nr_free + (err ? 0 : nr_freed(&w, i, 16)));
			TAP_EQ(now.nr_free + now.nr_map + now.nr_used, 2 * G);
			TAP_OK(world_check(&w));
		}
		TAP_EQ(err, 0);
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
