/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_frames.c - what a zone gives, from where, and what it does not do: every order, groups of top blocks, in which
 * order it looks, callers that may not wait, caches, folding, and memory at its end.
 *
 * How much it costs: test_frames_figures.c.  What folios are: test_folio.c.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>
#include <stdlib.h>

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

static bool open_with(struct world *w, mf_pfn_t nr_frames)
{
	return world_open(w, &(struct world_config){ .nr_frames = nr_frames }) && world_add(w, 0, nr_frames) == 0;
}

static struct mf_folio *alloc(struct world *w, unsigned order, unsigned alloc_flags)
{
	struct mf_folio *folio;

	return mf_folio_alloc(w->map, MF_ANY_NODE, order, alloc_flags, &folio) == 0 ? folio : NULL;
}

/* Folios of one order, as many as there are, and back. */
struct hoard {
	struct mf_folio **folio;
	unsigned nr, nr_max;
};

static void hoard_take(struct hoard *h, struct world *w, unsigned order, unsigned alloc_flags, unsigned nr_max)
{
	struct mf_folio *folio;

	for (unsigned i = 0; i < nr_max && (folio = alloc(w, order, alloc_flags)) != NULL; i++) {
		if (h->nr == h->nr_max) {
			h->nr_max = h->nr_max ? 2 * h->nr_max : 1024;
			h->folio = realloc(h->folio, h->nr_max * sizeof(*h->folio));
			MF_PANIC_IF(!h->folio, "the test has no memory for its list of folios.");
		}
		h->folio[h->nr++] = folio;
	}
}

static void hoard_put_from(struct hoard *h, struct world *w, unsigned keep)
{
	while (h->nr > keep)
		mf_folio_put(w->map, h->folio[--h->nr]);
}

static void hoard_end(struct hoard *h, struct world *w)
{
	hoard_put_from(h, w, 0);
	free(h->folio);
	*h = (struct hoard){ 0 };
}

static struct mf_map_stats stats_of(struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats;
}

static uint64_t fold(struct world *w, enum mf_fold_flags flags)
{
	uint64_t nr = 0;

	TAP_EQ(mf_fold(w->map, MF_ANY_NODE, flags, &nr), 0);
	return nr;
}

/* ---- Bad input -------------------------------------------------------------------------------------------------- */

TAP_TEST(alloc_refuses_what_cannot_be)
{
	struct mf_folio *folio = NULL;
	struct world w;
	uint64_t digest;

	TAP_REQUIRE(open_with(&w, 4 * G));
	digest = mf_map_digest(w.map);
	TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, MF_ORDERS_MAX, 0, &folio), -MF_EINVAL);
	TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, ~0u, 0, &folio), -MF_EINVAL);
	TAP_EQ(mf_folio_alloc(w.map, -2, 0, 0, &folio), -MF_EINVAL);
	TAP_EQ(mf_folio_alloc(w.map, MF_NODES_MAX, 0, 0, &folio), -MF_EINVAL);
	TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, 0, 4, &folio), -MF_EINVAL);
	TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, 21, 0, &folio), -MF_ENOMEM);
	TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, MF_ORDERS_MAX - 1, 0, &folio), -MF_ENOMEM);
	TAP_EQ(mf_folio_alloc(w.map, 7, 0, MF_ALLOC_THIS_NODE, &folio), -MF_ENOMEM);
	TAP_OK(!folio);
	TAP_EQ(mf_map_digest(w.map), digest);
	TAP_EQ(mf_fold(w.map, -2, MF_FOLD_ALL, NULL), -MF_EINVAL);
	TAP_EQ(mf_fold(w.map, MF_NODES_MAX, MF_FOLD_ALL, NULL), -MF_EINVAL);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, (enum mf_fold_flags)2, NULL), -MF_EINVAL);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(world_close(&w));
}

TAP_TEST(zones_are_listed_until_there_is_no_more)
{
	struct mf_zone_info info;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(mf_zone_info(w.map, 0, &info), -MF_ENOENT);
	TAP_EQ(world_add(&w, 0, 2 * G), 0);
	TAP_EQ(world_add_flat(&w, 3 * G, 3 * G + 777), 0);
	TAP_EQ(mf_zone_info(w.map, 0, &info), 0);
	TAP_EQ(info.source, MF_SOURCE_SELF);
	TAP_EQ(info.nr_free, 2 * G);
	TAP_EQ(info.nr_free_blocks[2][19], 1);
	TAP_EQ(mf_zone_info(w.map, 1, &info), 0);
	TAP_EQ(info.source, MF_SOURCE_RAM);
	TAP_EQ(info.nr_free, 777);
	TAP_EQ(mf_zone_info(w.map, 2, &info), -MF_ENOENT);
	TAP_EQ(mf_zone_info(w.map, ~0u, &info), -MF_ENOENT);
	TAP_OK(world_close(&w));
}

/* ---- Every order ------------------------------------------------------------------------------------------------ */

/* R-GEN-8, R-CPD-15 */
TAP_TEST(every_order_is_given_and_taken_back)
{
	struct world w;

	TAP_REQUIRE(open_with(&w, 8 * G));
	for (unsigned order = 0; order <= 21; order++) {
		struct hoard h = { 0 };
		uint64_t nr;

		hoard_take(&h, &w, order, MF_ALLOC_WAIT, order < 9 ? 100 : 10000);
		nr = h.nr;
		TAP_OK(nr > 0 && nr <= (8 * G) >> order);
		for (unsigned i = 0; i < h.nr; i++) {
			TAP_EQ(mf_folio_order(h.folio[i]), order);
			TAP_EQ(mf_folio_pfn(w.map, h.folio[i]) & (((mf_pfn_t)1 << order) - 1), 0);
			TAP_EQ(mf_folio_refcount(h.folio[i]), 1);
		}
		TAP_EQ(stats_of(&w).nr_used, nr << order);
		TAP_OK(world_check(&w));
		hoard_end(&h, &w);
		TAP_EQ(stats_of(&w).nr_used, 0);
		TAP_OK(world_check(&w));
		/* Groups of top blocks: all of it can be had as such again. */
		if (order >= 18)
			TAP_EQ(nr, (8 * G) >> order);
	}
	TAP_OK(world_close(&w));
}

TAP_TEST(groups_of_top_blocks_split_and_merge_as_buddies)
{
	struct mf_folio *one, *two, *four;
	struct world w;

	TAP_REQUIRE(open_with(&w, 8 * G));
	one = alloc(&w, 18, 0);
	two = alloc(&w, 19, 0);
	four = alloc(&w, 20, 0);
	TAP_REQUIRE(one && two && four);
	TAP_OK(!alloc(&w, 19, 0));
	TAP_OK(world_check(&w));
	mf_folio_put(w.map, two);
	TAP_OK(!alloc(&w, 20, 0));
	mf_folio_put(w.map, one);
	one = alloc(&w, 20, 0);
	TAP_REQUIRE(one);
	mf_folio_put(w.map, one);
	mf_folio_put(w.map, four);
	one = alloc(&w, 21, 0);
	TAP_REQUIRE(one);
	mf_folio_put(w.map, one);
	TAP_EQ(stats_of(&w).unfolds[2], 0);
	TAP_OK(world_close(&w));
}

TAP_TEST(every_frame_is_given_once)
{
	static uint8_t seen[2 * WORLD_GIB_FRAMES];
	struct hoard h = { 0 };
	struct mf_map_stats stats;
	struct world w;

	TAP_REQUIRE(open_with(&w, 2 * G));
	hoard_take(&h, &w, 0, MF_ALLOC_WAIT, ~0u);
	for (unsigned i = 0; i < h.nr; i++)
		TAP_OK(seen[mf_folio_pfn(w.map, h.folio[i])]++ == 0);
	stats = stats_of(&w);
	TAP_EQ(stats.nr_used, h.nr);
	TAP_EQ(stats.nr_free, 0);
	TAP_EQ(stats.nr_used + stats.nr_map, 2 * G);
	TAP_OK(world_check(&w));
	hoard_end(&h, &w);
	TAP_OK(world_close(&w));
}

/* ---- Nodes ------------------------------------------------------------------------------------------------------ */

TAP_TEST(nodes_follow_by_distance)
{
	static const unsigned nodes[] = { 0, 2, 5 };
	struct mf_folio *folio;
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	for (mf_pfn_t i = 0; i < 3; i++) {
		struct mf_region_config r = { .start_pfn = i * G, .end_pfn = i * G + 4 * B, .node = nodes[i] };

		TAP_EQ(world_add_region(&w, &r, NULL), 0);
	}
	TAP_EQ(mf_folio_alloc(w.map, 5, 3, 0, &folio), 0);
	TAP_EQ(mf_word_node(mf_page_word(&folio->page)), 5);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_folio_alloc(w.map, 3, 3, 0, &folio), 0);
	TAP_EQ(mf_word_node(mf_page_word(&folio->page)), 2);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_folio_alloc(w.map, 3, 3, MF_ALLOC_THIS_NODE, &folio), -MF_ENOMEM);
	while (mf_folio_alloc(w.map, 5, 0, MF_ALLOC_THIS_NODE, &folio) == 0) {
		h.folio = realloc(h.folio, (h.nr + 1) * sizeof(*h.folio));
		TAP_REQUIRE(h.folio);
		h.folio[h.nr++] = folio;
	}
	TAP_EQ(mf_folio_alloc(w.map, 5, 0, 0, &folio), 0);
	TAP_EQ(mf_word_node(mf_page_word(&folio->page)), 2);
	mf_folio_put(w.map, folio);
	hoard_end(&h, &w);
	TAP_OK(world_close(&w));
}

/* ---- Callers that may not wait ---------------------------------------------------------------------------------- */

TAP_TEST(nowait_unfolds_nothing)
{
	struct mf_map_stats before, after;
	struct mf_folio *folio;
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(open_with(&w, 4 * G));
	TAP_OK(!alloc(&w, 0, MF_ALLOC_NOWAIT));
	TAP_OK(!alloc(&w, 9, MF_ALLOC_NOWAIT));
	folio = alloc(&w, 18, MF_ALLOC_NOWAIT);
	TAP_REQUIRE(folio);
	mf_folio_put(w.map, folio);
	folio = alloc(&w, 0, MF_ALLOC_WAIT);
	TAP_REQUIRE(folio);
	before = stats_of(&w);
	hoard_take(&h, &w, 0, MF_ALLOC_NOWAIT, ~0u);
	after = stats_of(&w);
	TAP_NOTE("%u base frames without waiting", h.nr);
	TAP_OK(h.nr >= 64);
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++) {
		TAP_EQ(after.unfolds[tier], before.unfolds[tier]);
		TAP_EQ(after.folds[tier], before.folds[tier]);
	}
	TAP_EQ(after.flushes, before.flushes);
	TAP_EQ(after.quiesces, before.quiesces);
	TAP_OK(world_check(&w));
	hoard_end(&h, &w);
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* The block is used up by larger folios; base frames come from the stock that was laid in when it was unfolded. */
TAP_TEST(nowait_lives_off_the_stock)
{
	struct mf_zone_info info;
	struct hoard large = { 0 }, small = { 0 };
	struct world w;

	TAP_REQUIRE(open_with(&w, 4 * G));
	hoard_take(&small, &w, 0, MF_ALLOC_WAIT, 1);
	TAP_EQ(mf_zone_info(w.map, 0, &info), 0);
	TAP_OK(info.nr_cached >= 64);
	for (unsigned order = 9; order-- > 1;)
		hoard_take(&large, &w, order, MF_ALLOC_NOWAIT, ~0u);
	hoard_take(&small, &w, 0, MF_ALLOC_NOWAIT, ~0u);
	TAP_OK(small.nr >= 1 + 64);
	TAP_EQ(mf_zone_info(w.map, 0, &info), 0);
	TAP_EQ(info.nr_cached, 0);
	TAP_OK(world_check(&w));
	hoard_end(&small, &w);
	hoard_end(&large, &w);
	TAP_OK(world_close(&w));
}

/* ---- Caches ----------------------------------------------------------------------------------------------------- */

TAP_TEST(caches_hold_frames_until_drained)
{
	struct mf_zone_info info;
	struct mf_folio *folio;
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(open_with(&w, 4 * G));
	hoard_take(&h, &w, 0, MF_ALLOC_WAIT, 300);
	hoard_end(&h, &w);
	TAP_EQ(mf_zone_info(w.map, 0, &info), 0);
	TAP_OK(info.nr_cached > 0);
	TAP_EQ(info.nr_free + info.nr_pool_idle + stats_of(&w).nr_map, 4 * G);
	TAP_OK(world_check(&w));
	TAP_EQ(mf_drain(w.map), 0);
	TAP_EQ(mf_zone_info(w.map, 0, &info), 0);
	TAP_EQ(info.nr_cached, 0);
	TAP_EQ(info.nr_free + info.nr_pool_idle + stats_of(&w).nr_map, 4 * G);
	TAP_OK(world_check(&w));
	/* A frame that was just freed comes back first: it is warm. */
	folio = alloc(&w, 0, 0);
	TAP_REQUIRE(folio);
	mf_folio_put(w.map, folio);
	TAP_OK(alloc(&w, 0, 0) == folio);
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

TAP_TEST(large_orders_drain_the_caches)
{
	struct mf_folio *folio;
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(open_with(&w, 2 * G));
	hoard_take(&h, &w, 0, MF_ALLOC_WAIT, ~0u);
	hoard_end(&h, &w);
	folio = alloc(&w, 19, 0);
	TAP_REQUIRE(folio);
	TAP_OK(world_check(&w));
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* ---- Folding ---------------------------------------------------------------------------------------------------- */

TAP_TEST(put_never_folds)
{
	struct mf_map_stats before, after;
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(open_with(&w, 2 * G));
	hoard_take(&h, &w, 3, MF_ALLOC_WAIT, 5000);
	before = stats_of(&w);
	hoard_end(&h, &w);
	after = stats_of(&w);
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++)
		TAP_EQ(after.folds[tier], before.folds[tier]);
	TAP_EQ(after.flushes, before.flushes);
	TAP_OK(world_close(&w));
}

static unsigned nr_foldable_low(struct world *w)
{
	struct mf_zone_info info;

	TAP_EQ(mf_zone_info(w->map, 0, &info), 0);
	return (unsigned)info.nr_foldable[1];
}

TAP_TEST(fold_keeps_one_block_or_none)
{
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(open_with(&w, 4 * G));
	hoard_take(&h, &w, 0, MF_ALLOC_WAIT, 10000);
	hoard_end(&h, &w);
	TAP_EQ(mf_drain(w.map), 0);
	TAP_OK(nr_foldable_low(&w) > 10);
	TAP_OK(fold(&w, MF_FOLD_KEEP) > 0);
	TAP_EQ(nr_foldable_low(&w), 1);
	TAP_OK(stats_of(&w).nr_split[2] >= 1);
	TAP_OK(world_check(&w));
	TAP_OK(fold(&w, MF_FOLD_ALL) > 0);
	TAP_EQ(nr_foldable_low(&w), 0);
	TAP_EQ(stats_of(&w).nr_split[1] + stats_of(&w).nr_split[2], 0);
	TAP_EQ(fold(&w, MF_FOLD_ALL), 0);
	TAP_OK(world_check(&w));
	TAP_OK(world_close(&w));
}

/* At a boundary the same block would be unfolded and folded each time, if put folded. */
TAP_TEST(a_boundary_does_not_thrash)
{
	static const unsigned orders[] = { 0, 3, 8, 9, 12, 17 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		unsigned tier = orders[i] < 9 ? 1 : 2;
		struct mf_map_stats stats;
		struct world w;

		TAP_REQUIRE(open_with(&w, 4 * G));
		for (unsigned n = 0; n < 1000; n++) {
			struct mf_folio *folio = alloc(&w, orders[i], 0);

			TAP_REQUIRE(folio);
			mf_folio_put(w.map, folio);
		}
		stats = stats_of(&w);
		/* The first GiB is home, whose blocks are the last to be used: so two of them are split, once. */
		TAP_EQ(stats.unfolds[2], 2);
		TAP_EQ(stats.unfolds[1] - stats.nr_set_aside, tier == 1);
		TAP_EQ(stats.folds[1] + stats.folds[2], 0);
		TAP_OK(world_close(&w));
	}
}

/* Folding between the pairs, with one block kept: still one unfold of a block of 2 MiB. */
TAP_TEST(a_boundary_does_not_thrash_beside_a_folder)
{
	struct mf_map_stats stats;
	struct world w;

	TAP_REQUIRE(open_with(&w, 4 * G));
	for (unsigned n = 0; n < 1000; n++) {
		struct mf_folio *folio = alloc(&w, 3, 0);

		TAP_REQUIRE(folio);
		mf_folio_put(w.map, folio);
		(void)fold(&w, MF_FOLD_KEEP);
	}
	stats = stats_of(&w);
	TAP_EQ(stats.unfolds[1] - stats.nr_set_aside, 1);
	TAP_EQ(stats.unfolds[2], 2);
	TAP_EQ(stats.folds[1] + stats.folds[2], 0);
	TAP_OK(world_close(&w));
}

/* ---- From where ------------------------------------------------------------------------------------------------- */

TAP_TEST(the_home_block_is_used_last)
{
	struct hoard h = { 0 };
	struct world w;
	mf_pfn_t home = 0;
	unsigned per_gib[4] = { 0 };

	TAP_REQUIRE(open_with(&w, 4 * G));
	hoard_take(&h, &w, 9, MF_ALLOC_WAIT, ~0u);
	TAP_OK(h.nr >= 4 * 512 - 4);
	home = mf_folio_pfn(w.map, h.folio[h.nr - 1]) / G;
	for (unsigned i = 0; i < h.nr; i++) {
		mf_pfn_t gib = mf_folio_pfn(w.map, h.folio[i]) / G;

		TAP_OK(gib == home ? i >= 3 * 512 : per_gib[home] == 0);
		per_gib[gib]++;
	}
	hoard_end(&h, &w);
	TAP_OK(world_close(&w));
}

/* Blocks of an edge GiB never fold with it: the map pool belongs there, and the whole GiBs stay whole. */
TAP_TEST(the_home_block_is_the_edge_if_there_is_one)
{
	struct mf_folio *folio;
	struct hoard h = { 0 };
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, G / 2, 4 * G), 0);
	hoard_take(&h, &w, 9, MF_ALLOC_WAIT, 512);
	for (unsigned i = 0; i < h.nr; i++)
		TAP_OK(mf_folio_pfn(w.map, h.folio[i]) >= G);
	hoard_end(&h, &w);
	TAP_OK(fold(&w, MF_FOLD_ALL) > 0);
	TAP_OK(world_check(&w));
	folio = alloc(&w, 18, 0);
	TAP_REQUIRE(folio);
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* ---- At the end of memory --------------------------------------------------------------------------------------- */

/* No RAM either: nothing but the block itself is there to describe its pieces.  R-MEM-36 */
TAP_TEST(unfolding_needs_no_free_frame_anywhere)
{
	static const char *const names[] = { "sim", "sim-5", "sim-arm64-16k", "sim-arm64-64k" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct world_config config = { .machine = names[i], .nr_frames = (mf_pfn_t)1 << 28 };
		struct mf_folio *last[4], *small[4];
		struct world w;
		mf_pfn_t top;

		TAP_REQUIRE(world_open(&w, &config));
		top = (mf_pfn_t)1 << world_block_order(&w, 2);
		TAP_EQ(world_add(&w, 0, 4 * top), 0);
		for (unsigned k = 0; k < 4; k++)
			TAP_REQUIRE((last[k] = world_alloc(&w, world_block_order(&w, 2))) != NULL);
		/* One at a time becomes free, and is the only free memory; every RAM call would fail. */
		for (unsigned k = 0; k < 4; k++) {
			mf_sim_fail_ram(w.sim, 1);
			mf_folio_put(w.map, last[k]);
			small[k] = alloc(&w, k % 2 ? 0 : world_block_order(&w, 1), 0);
			TAP_OK(small[k] != NULL);
			TAP_OK(world_check(&w));
		}
		mf_sim_fail_ram(w.sim, 0);
		for (unsigned k = 0; k < 4; k++)
			if (small[k])
				mf_folio_put(w.map, small[k]);
		TAP_OK(world_close(&w));
	}
}

/* With everything in base frames: what is left over is the map's, and nothing is lost when all of it comes back. */
TAP_TEST(memory_used_to_the_last_frame_comes_back_whole)
{
	struct hoard h = { 0 };
	struct world w;
	uint64_t ram;

	TAP_REQUIRE(open_with(&w, G));
	ram = mf_sim_ram_used(w.sim);
	for (unsigned round = 0; round < 2; round++) {
		hoard_take(&h, &w, 0, MF_ALLOC_WAIT, ~0u);
		TAP_EQ(stats_of(&w).nr_free, 0);
		TAP_OK(!alloc(&w, 0, MF_ALLOC_NOWAIT) && !alloc(&w, 0, MF_ALLOC_WAIT));
		TAP_OK(world_check(&w));
		hoard_end(&h, &w);
		(void)fold(&w, MF_FOLD_ALL);
		TAP_EQ(stats_of(&w).nr_split[1] + stats_of(&w).nr_split[2], 0);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
		TAP_OK(world_check(&w));
	}
	TAP_OK(world_close(&w));
}

/* Several pools at once: each GiB was unfolded when nothing else was free, so each seeded its own. */
TAP_TEST(several_seeds_fold_back)
{
	struct mf_folio *top[8], *small[8];
	struct world w;

	TAP_REQUIRE(open_with(&w, 8 * G));
	for (unsigned i = 0; i < 8; i++)
		TAP_REQUIRE((top[i] = alloc(&w, 18, 0)) != NULL);
	for (unsigned i = 0; i < 8; i++) {
		struct hoard idle = { 0 };

		mf_folio_put(w.map, top[i]);
		TAP_REQUIRE((small[i] = alloc(&w, 9, 0)) != NULL);
		/* Everything else that is free, the pool's idle frames too. */
		for (unsigned order = 18; order-- > 0;)
			hoard_take(&idle, &w, order, MF_ALLOC_WAIT, ~0u);
		hoard_end(&idle, &w);
		TAP_OK(fold(&w, MF_FOLD_ALL) <= 600);
		TAP_OK(world_check(&w));
	}
	for (unsigned i = 0; i < 8; i++)
		mf_folio_put(w.map, small[i]);
	(void)fold(&w, MF_FOLD_ALL);
	TAP_EQ(stats_of(&w).nr_split[2], 0);
	TAP_EQ(stats_of(&w).nr_set_aside, 0);
	TAP_OK(world_close(&w));
}

/* ---- Source RAM: unfolding can fail, changing nothing ----------------------------------------------------------- */

TAP_TEST(source_ram_fails_without_ram_and_changes_nothing)
{
	struct mf_folio *folio = NULL;
	struct world w;
	uint64_t digest, ram;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(world_add_region(&w, &(struct mf_region_config){ .end_pfn = 2 * G, .source = MF_SOURCE_RAM }, NULL), 0);
	digest = mf_map_digest(w.map);
	ram = mf_sim_ram_used(w.sim);
	for (uint64_t n = 1; !folio; n++) {
		mf_sim_fail_ram(w.sim, n);
		folio = alloc(&w, 9, 0);
		if (folio)
			break;
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
		TAP_OK(world_check(&w));
		TAP_REQUIRE(n < 100);
	}
	mf_sim_fail_ram(w.sim, 0);
	mf_folio_put(w.map, folio);
	(void)fold(&w, MF_FOLD_ALL);
	TAP_EQ(mf_sim_ram_used(w.sim), ram);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
