/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_folio_split.c - a folio in use becomes several and several become one, within a tier and across tiers; who may
 * do it, and that a refusal changes nothing.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

static bool open_on(struct world *w, const char *machine)
{
	return world_open(w, &(struct world_config){ .machine = machine, .nr_frames = (mf_pfn_t)1 << 28 }) &&
	       world_add(w, 0, (mf_pfn_t)4 << world_block_order(w, 2)) == 0;
}

static const struct mf_owner owner_a = { "a", NULL }, owner_b = { "b", NULL };

/* [pfn, pfn + 2^order) in folios of `piece`, each with count 1 and what split promises of the first. */
static bool pieces_are_right(const struct world *w, mf_pfn_t pfn, unsigned order, unsigned piece, uint64_t index,
			     uint64_t private_data)
{
	for (mf_pfn_t at = pfn; at < pfn + ((mf_pfn_t)1 << order); at += (mf_pfn_t)1 << piece) {
		struct mf_folio *folio = mf_pfn_folio(w->map, at);

		if (mf_folio_pfn(w->map, folio) != at || mf_folio_order(folio) != piece ||
		    mf_folio_refcount(folio) != 1 || mf_folio_pincount(folio) || mf_folio_mapcount(folio) ||
		    mf_folio_owner(folio) != &owner_a || folio->page.index != index + (at - pfn) ||
		    folio->page.private_data != (at == pfn ? private_data : 0) ||
		    mf_folio_flags(folio) != (MF_FLAG_USER1 | MF_FLAG_USER2))
			return false;
		/* From the last frame of it, from below. */
		if (mf_page_folio(w->map, mf_pfn_to_page(w->map, at + ((mf_pfn_t)1 << piece) - 1)) != folio)
			return false;
	}
	return true;
}

static struct mf_folio *owned(struct world *w, unsigned order)
{
	struct mf_folio *folio = world_alloc(w, order);

	if (!folio)
		return NULL;
	mf_folio_set_owner(folio, &owner_a);
	mf_folio_set_flags(folio, MF_FLAG_USER1 | MF_FLAG_USER2);
	folio->page.index = 1000;
	folio->page.private_data = 77;
	return folio;
}

static void put_all(struct world *w, mf_pfn_t pfn, unsigned order)
{
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order);

	while (pfn < end) {
		struct mf_folio *folio = mf_pfn_folio(w->map, pfn);

		pfn += mf_folio_nr_frames(folio);
		mf_folio_put(w->map, folio);
	}
}

/* ---- Every way down, and back ----------------------------------------------------------------------------------- */

struct way {
	unsigned from, to; /* 4 KiB orders; on other machines in the same place within the tier */
};

static const struct way ways[] = {
	{ 1, 0 },   { 8, 0 },   { 8, 3 },    { 9, 0 },    { 9, 8 },    { 10, 9 },   { 12, 3 },	{ 12, 0 },
	{ 17, 9 },  { 18, 9 },  { 18, 17 },  { 18, 8 },   { 18, 0 },   { 19, 18 },  { 19, 9 },
};

static void go_there_and_back(struct world *w, unsigned from, unsigned to)
{
	struct mf_folio *folio = owned(w, from), *merged = NULL;
	mf_pfn_t pfn;

	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w->map, folio);
	TAP_EQ(mf_folio_split(w->map, folio, to), 0);
	TAP_OK(pieces_are_right(w, pfn, from, to, 1000, 77));
	TAP_OK(world_check(w));
	TAP_EQ(mf_folio_merge(w->map, pfn, from, &merged), 0);
	TAP_OK(merged && mf_folio_pfn(w->map, merged) == pfn);
	TAP_OK(pieces_are_right(w, pfn, from, from, 1000, 77));
	TAP_OK(world_check(w));
	/* Once more, and this time the pieces go back one by one. */
	TAP_EQ(mf_folio_split(w->map, merged, to), 0);
	put_all(w, pfn, from);
	TAP_OK(world_check(w));
}

TAP_TEST(split_and_merge_go_every_way)
{
	static const char *const names[] = { "sim", "sim-5", "linux" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct world w;

		TAP_REQUIRE(open_on(&w, names[i]));
		for (unsigned k = 0; k < sizeof(ways) / sizeof(ways[0]); k++)
			go_there_and_back(&w, ways[k].from, ways[k].to);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(split_and_merge_with_other_frame_sizes)
{
	static const char *const names[] = { "sim-arm64-16k", "sim-arm64-64k" };

	for (unsigned i = 0; i < 2; i++) {
		struct world w;
		unsigned low, top;

		TAP_REQUIRE(open_on(&w, names[i]));
		low = world_block_order(&w, 1);
		top = world_block_order(&w, 2);
		go_there_and_back(&w, low, 0);
		go_there_and_back(&w, low + 2, 5);
		go_there_and_back(&w, top, low);
		go_there_and_back(&w, top, top - 1);
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(split_and_merge_in_a_flat_region_and_below_top_1)
{
	struct mf_region_config top1 = { .start_pfn = 2 * G, .end_pfn = 4 * G, .node = 1, .top = 1 };
	struct mf_folio *folio, *merged;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add_flat(&w, 0, G), 0);
	TAP_EQ(world_add_region(&w, &top1, NULL), 0);
	go_there_and_back(&w, 9, 0);
	go_there_and_back(&w, 17, 9);
	for (unsigned order = 9; order <= 18; order += 9) {
		TAP_EQ(mf_folio_alloc(w.map, 1, order, MF_ALLOC_THIS_NODE, &folio), 0);
		pfn = mf_folio_pfn(w.map, folio);
		TAP_EQ(mf_word_tier(mf_page_word(&folio->page)), 1);
		TAP_EQ(mf_folio_split(w.map, folio, 3), 0);
		TAP_OK(world_check(&w));
		TAP_EQ(mf_folio_merge(w.map, pfn, order, &merged), 0);
		TAP_OK(merged == folio);
		TAP_OK(world_check(&w));
		mf_folio_put(w.map, merged);
	}
	TAP_OK(world_close(&w));
}

/* Pieces of several sizes, and only a part of what was split. */
TAP_TEST(merge_takes_pieces_of_any_size)
{
	struct mf_folio *folio, *merged;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_on(&w, "sim"));
	folio = owned(&w, 18);
	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w.map, folio);
	TAP_EQ(mf_folio_split(w.map, folio, 12), 0);
	TAP_EQ(mf_folio_split(w.map, mf_pfn_folio(w.map, pfn), 3), 0);
	TAP_EQ(mf_folio_split(w.map, mf_pfn_folio(w.map, pfn + 8192), 9), 0);
	TAP_OK(world_check(&w));
	TAP_EQ(mf_folio_merge(w.map, pfn, 9, &merged), 0);
	TAP_OK(pieces_are_right(&w, pfn, 9, 9, 1000, 77));
	TAP_EQ(mf_folio_merge(w.map, pfn + 512, 5, &merged), 0);
	TAP_EQ(merged->page.index, 1512);
	TAP_OK(world_check(&w));
	TAP_EQ(mf_folio_merge(w.map, pfn, 18, &merged), 0);
	TAP_OK(pieces_are_right(&w, pfn, 18, 18, 1000, 77));
	/* A folio alone is what it was. */
	TAP_EQ(mf_folio_merge(w.map, pfn, 18, &merged), 0);
	TAP_OK(pieces_are_right(&w, pfn, 18, 18, 1000, 77));
	mf_folio_put(w.map, merged);
	TAP_OK(world_close(&w));
}

/* ---- Refusals --------------------------------------------------------------------------------------------------- */

TAP_TEST(split_is_for_the_sole_holder)
{
	struct mf_folio *folio;
	struct world w;
	uint64_t digest;

	TAP_REQUIRE(open_on(&w, "sim"));
	folio = owned(&w, 9);
	TAP_REQUIRE(folio);
	TAP_EQ(mf_folio_split(w.map, folio, 9), -MF_EINVAL);
	TAP_EQ(mf_folio_split(w.map, folio, 10), -MF_EINVAL);
	TAP_EQ(mf_folio_split(w.map, folio, ~0u), -MF_EINVAL);
	mf_folio_get(folio);
	digest = mf_map_digest(w.map);
	TAP_EQ(mf_folio_split(w.map, folio, 0), -MF_EBUSY);
	TAP_EQ(mf_map_digest(w.map), digest);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_folio_pin(folio), 0);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_folio_split(w.map, folio, 0), -MF_EBUSY);
	mf_folio_get(folio);
	mf_folio_unpin(w.map, folio);
	TAP_EQ(mf_folio_map_whole(folio), 0);
	digest = mf_map_digest(w.map);
	TAP_EQ(mf_folio_split(w.map, folio, 0), -MF_EBUSY);
	TAP_EQ(mf_map_digest(w.map), digest);
	mf_folio_unmap_whole(folio);
	TAP_EQ(mf_folio_split(w.map, folio, 0), 0);
	TAP_OK(world_check(&w));
	put_all(&w, mf_folio_pfn(w.map, folio), 9);
	TAP_OK(world_close(&w));
}

static void merge_is_refused(struct world *w, mf_pfn_t pfn, unsigned order, int err)
{
	struct mf_folio *merged = NULL;
	uint64_t digest = mf_map_digest(w->map);

	TAP_EQ(mf_folio_merge(w->map, pfn, order, &merged), err);
	TAP_OK(!merged);
	TAP_EQ(mf_map_digest(w->map), digest);
}

TAP_TEST(merge_is_for_the_sole_holder_of_all)
{
	struct mf_folio *folio, *last;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_on(&w, "sim"));
	folio = owned(&w, 9);
	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w.map, folio);
	merge_is_refused(&w, pfn + 1, 1, -MF_EINVAL);
	merge_is_refused(&w, pfn, MF_ORDERS_MAX, -MF_EINVAL);
	merge_is_refused(&w, pfn, ~0u, -MF_EINVAL);
	merge_is_refused(&w, UINT64_MAX - 511, 9, -MF_EINVAL);
	merge_is_refused(&w, (mf_pfn_t)1 << 28, 0, -MF_EINVAL);
	merge_is_refused(&w, pfn, 8, -MF_EBUSY);     /* less than the folio */
	TAP_EQ(mf_folio_split(w.map, folio, 2), 0);
	last = mf_pfn_folio(w.map, pfn + 508);
	mf_folio_get(last);
	merge_is_refused(&w, pfn, 9, -MF_EBUSY);     /* another holder */
	mf_folio_put(w.map, last);
	TAP_EQ(mf_folio_pin(last), 0);
	merge_is_refused(&w, pfn, 9, -MF_EBUSY);     /* a pin */
	mf_folio_unpin(w.map, last);
	TAP_EQ(mf_folio_map_frames(last, 1), 0);
	merge_is_refused(&w, pfn, 9, -MF_EBUSY);     /* a mapping */
	mf_folio_unmap_frames(last, 1);
	mf_folio_set_owner(last, &owner_b);
	merge_is_refused(&w, pfn, 9, -MF_EBUSY);     /* another owner */
	mf_folio_set_owner(last, &owner_a);
	mf_folio_put(w.map, last);
	merge_is_refused(&w, pfn, 9, -MF_EBUSY);     /* free */
	TAP_OK(world_check(&w));
	for (mf_pfn_t at = pfn; at < pfn + 508; at += 4)
		mf_folio_put(w.map, mf_pfn_folio(w.map, at));
	merge_is_refused(&w, pfn, 9, -MF_EBUSY);     /* all of it free */
	TAP_OK(world_close(&w));
}

TAP_TEST(merge_crosses_no_region_hole_or_map_frame)
{
	struct mf_folio *folio[1024];
	mf_pfn_t map_frame = 0;
	struct world w;
	unsigned nr = 0;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add(&w, 0, 512), 0);
	TAP_EQ(world_add(&w, 512, 1000), 0);
	while (nr < 1024 && (folio[nr] = world_alloc(&w, 0)) != NULL)
		nr++;
	for (mf_pfn_t pfn = 0; pfn < 1000; pfn++)
		if (mf_page_kind(&mf_pfn_folio(w.map, pfn)->page) == MF_KIND_MAP)
			map_frame = pfn;
	TAP_OK(map_frame != 0);
	merge_is_refused(&w, map_frame, 0, -MF_EBUSY);
	merge_is_refused(&w, map_frame & ~(mf_pfn_t)1, 1, -MF_EBUSY);
	merge_is_refused(&w, 0, 10, -MF_EBUSY);      /* two regions, holes */
	merge_is_refused(&w, 0, 18, -MF_EBUSY);
	merge_is_refused(&w, 992, 5, -MF_EBUSY);     /* holes */
	TAP_OK(world_check(&w));
	while (nr > 0)
		mf_folio_put(w.map, folio[--nr]);
	TAP_OK(world_close(&w));
}

/* ---- No frames for it ------------------------------------------------------------------------------------------- */

/* Everything is held as top blocks: there is no frame that could describe the pieces. */
TAP_TEST(split_without_a_frame_changes_nothing)
{
	static const unsigned pieces[] = { 17, 9, 8, 0 };
	struct mf_folio *folio[4];
	struct world w;
	uint64_t digest;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, 4 * G), 0);
	for (unsigned i = 0; i < 4; i++)
		TAP_REQUIRE((folio[i] = owned(&w, 18)) != NULL);
	digest = mf_map_digest(w.map);
	for (unsigned i = 0; i < 4; i++) {
		TAP_EQ(mf_folio_split(w.map, folio[0], pieces[i]), -MF_ENOMEM);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_OK(pieces_are_right(&w, mf_folio_pfn(w.map, folio[0]), 18, 18, 1000, 77));
		TAP_OK(world_check(&w));
	}
	/* One free block is enough for the slots of many. */
	mf_folio_put(w.map, folio[3]);
	TAP_EQ(mf_folio_split(w.map, folio[0], 8), 0);
	TAP_OK(world_check(&w));
	put_all(&w, mf_folio_pfn(w.map, folio[0]), 18);
	mf_folio_put(w.map, folio[1]);
	mf_folio_put(w.map, folio[2]);
	TAP_OK(world_close(&w));
}

enum { RAM_FRAMES = 160 };

/* Takes what RAM is left; how many frames. */
static unsigned hoard(struct world *w, mf_pfn_t *pfn)
{
	unsigned nr = 0;

	while (nr < RAM_FRAMES && w->sim->ops->ram_get(w->sim, 0, 0, &pfn[nr]) == 0)
		nr++;
	return nr;
}

/* Source RAM: with ever more frames of it left, until they suffice, the folio is what it was each time. */
TAP_TEST(split_that_fails_half_way_is_undone)
{
	struct mf_region_config region = { .end_pfn = 2 * G, .source = MF_SOURCE_RAM };
	mf_pfn_t pfn[RAM_FRAMES];
	unsigned nr, nr_failed = 0;
	struct mf_folio *folio;
	uint64_t digest, ram;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .nr_ram_frames = RAM_FRAMES }));
	TAP_EQ(world_add_region(&w, &region, NULL), 0);
	folio = owned(&w, 12);
	TAP_REQUIRE(folio);
	nr = hoard(&w, pfn);
	digest = mf_map_digest(w.map);
	ram = mf_sim_ram_used(w.sim);
	while (mf_folio_split(w.map, folio, 0) == -MF_ENOMEM && nr > 0) {
		nr_failed++;
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
		TAP_OK(world_check(&w));
		w.sim->ops->ram_put(w.sim, 0, 0, pfn[--nr]);
		ram--;
	}
	TAP_OK(nr_failed >= 8 * 8); /* eight blocks of eight slots */
	TAP_EQ(mf_folio_order(folio), 0);
	while (nr > 0)
		w.sim->ops->ram_put(w.sim, 0, 0, pfn[--nr]);
	TAP_OK(world_check(&w));
	put_all(&w, mf_folio_pfn(w.map, folio), 12);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
