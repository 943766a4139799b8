/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet.c - one folio and the two calls: the switch, what is done already, what is refused, and what of the folio
 * survives.
 */
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

static bool open_each(struct world *w, unsigned i)
{
	return diet_open(w, &(struct world_config){ .nr_frames = G }, diet_layouts[i]);
}

/* Digest, slots, tables, waits and flushes are what they were. */
static bool nothing_was_done(struct world *w, uint64_t digest, const struct mf_map_stats *before)
{
	struct mf_map_stats now = diet_stats(w);

	return mf_map_digest(w->map) == digest && memcmp(&now, before, sizeof(now)) == 0;
}

/* ---- The switch -------------------------------------------------------------------------------------------------- */

/* On at first; off, a remap does nothing and succeeds; what is on a diet stays so.  R-HVO-10, R-HVO-11, R-HVO-13 */
TAP_TEST(switch_decides_what_is_remapped_from_now_on)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *early, *late;
		struct mf_map_stats before;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(open_each(&w, i));
		TAP_OK(mf_diet_is_on(w.map));
		early = diet_folio(&w, 9);
		late = diet_folio(&w, 9);
		TAP_REQUIRE(early && late);
		TAP_EQ(mf_diet_remap(w.map, early), 0);

		mf_diet_switch(w.map, false);
		TAP_OK(!mf_diet_is_on(w.map));
		TAP_OK(mf_folio_is_on_diet(early));
		digest = mf_map_digest(w.map);
		before = diet_stats(&w);
		TAP_EQ(mf_diet_remap(w.map, late), 0);
		TAP_OK(!mf_folio_is_on_diet(late));
		TAP_OK(nothing_was_done(&w, digest, &before));

		mf_diet_switch(w.map, true);
		TAP_OK(mf_diet_is_on(w.map));
		TAP_OK(!mf_folio_is_on_diet(late));
		TAP_EQ(mf_diet_remap(w.map, late), 0);
		TAP_OK(mf_folio_is_on_diet(late));
		diet_folio_free(&w, early);
		diet_folio_free(&w, late);
		TAP_OK(world_close(&w));
	}
}

/* R-HVO-12 */
TAP_TEST(restore_never_asks_the_switch)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *restored, *freed;
		struct world w;

		TAP_REQUIRE(open_each(&w, i));
		restored = diet_folio(&w, 9);
		freed = diet_folio(&w, 9);
		TAP_REQUIRE(restored && freed);
		TAP_EQ(mf_diet_remap(w.map, restored), 0);
		TAP_EQ(mf_diet_remap(w.map, freed), 0);
		mf_diet_switch(w.map, false);
		TAP_EQ(mf_diet_restore(w.map, restored), 0);
		TAP_OK(!mf_folio_is_on_diet(restored));
		diet_folio_free(&w, freed);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_EQ(diet_stats(&w).nr_dieted, 0);
		diet_folio_free(&w, restored);
		TAP_OK(world_close(&w));
	}
}

/* ---- Done already ------------------------------------------------------------------------------------------------ */

/* A second remap, a second restore, a restore of what never was on a diet.  R-HVO-13, R-HVO-43 */
TAP_TEST(nothing_to_do_is_a_success)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct mf_map_stats before;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(open_each(&w, i));
		folio = diet_folio(&w, 9);
		TAP_REQUIRE(folio);
		digest = mf_map_digest(w.map);
		before = diet_stats(&w);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_OK(nothing_was_done(&w, digest, &before));

		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		digest = mf_map_digest(w.map);
		before = diet_stats(&w);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_OK(nothing_was_done(&w, digest, &before));

		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		digest = mf_map_digest(w.map);
		before = diet_stats(&w);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_OK(nothing_was_done(&w, digest, &before));
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

/* Layouts without a diet: tiered and flat. */
TAP_TEST(layouts_without_a_diet_do_nothing)
{
	static const enum mf_layout layouts[] = { MF_LAYOUT_TIERED, MF_LAYOUT_FLAT };

	for (unsigned i = 0; i < 2; i++) {
		struct mf_folio *folio;
		struct mf_map_stats before;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = 2 * G }, layouts[i]));
		for (unsigned order = 0; order <= 18; order += 9) {
			folio = diet_folio(&w, order);
			TAP_REQUIRE(folio);
			digest = mf_map_digest(w.map);
			before = diet_stats(&w);
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
			TAP_EQ(mf_diet_restore(w.map, folio), 0);
			TAP_OK(nothing_was_done(&w, digest, &before));
			diet_folio_free(&w, folio);
		}
		TAP_OK(world_close(&w));
	}
}

/* ---- Refused ----------------------------------------------------------------------------------------------------- */

/* A map that lies in the memory it describes: nothing is split, nothing changed.  R-HVO-30, R-MEM-37, R-SCN-11 */
TAP_TEST(self_hosted_maps_are_refused)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_region_config region = {
			.end_pfn = 2 * G, .layout = diet_layouts[i], .source = MF_SOURCE_SELF
		};
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
		TAP_EQ(world_add_region(&w, &region, NULL), 0);
		for (unsigned order = 9; order <= 18; order += 9) {
			struct mf_folio *folio = diet_folio(&w, order);
			struct mf_map_stats before = diet_stats(&w);
			uint64_t digest = mf_map_digest(w.map);

			TAP_REQUIRE(folio);
			TAP_EQ(mf_diet_remap(w.map, folio), -MF_EOPNOTSUPP);
			TAP_OK(!mf_folio_is_on_diet(folio));
			TAP_OK(nothing_was_done(&w, digest, &before));
			TAP_EQ(mf_diet_restore(w.map, folio), 0);
			/* A size that saves nothing is not refused, nor anything while the switch is off. */
			mf_diet_switch(w.map, false);
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
			mf_diet_switch(w.map, true);
			diet_folio_free(&w, folio);
		}
		TAP_OK(world_close(&w));
	}
}

static bool remap_panics(struct world *w, struct mf_folio *folio)
{
	volatile int err = 0;

	return TAP_PANICS(err = mf_diet_remap(w->map, folio)) && err == 0;
}

static bool restore_panics(struct world *w, struct mf_folio *folio)
{
	volatile int err = 0;

	return TAP_PANICS(err = mf_diet_restore(w->map, folio)) && err == 0;
}

/* Not frozen, a tail, free memory: no folio that its owner has frozen.  R-HVO-16 */
TAP_TEST(what_is_not_frozen_panics)
{
	struct mf_folio *folio, *tail;
	struct mf_page *free_page;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G, .will_break = true }, MF_LAYOUT_HVO_7_1));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	tail = (struct mf_folio *)(&folio->page + 1);
	free_page = mf_pfn_to_page(w.map, mf_folio_pfn(w.map, folio) ^ 512);
	TAP_EQ(mf_page_kind(free_page), MF_KIND_FREE);
	TAP_OK(remap_panics(&w, folio));
	TAP_OK(tap_contains(tap_state.panic, "no folio frozen by its owner"));
	TAP_OK(restore_panics(&w, folio));
	TAP_OK(mf_folio_freeze(folio, 1));
	TAP_OK(remap_panics(&w, tail));
	TAP_OK(restore_panics(&w, tail));
	TAP_OK(remap_panics(&w, (struct mf_folio *)free_page));
	/* Nothing was locked or changed. */
	TAP_OK(!mf_folio_is_on_diet(folio));
	TAP_OK(world_check(&w));
	world_abandon(&w);
}

/* In a list as well. */
TAP_TEST(what_is_not_frozen_panics_in_a_list)
{
	struct mf_list list, restored;
	struct mf_folio *folio;
	volatile int err = 0;
	struct world w;

	mf_list_init(&list);
	mf_list_init(&restored);
	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G, .will_break = true }, MF_LAYOUT_HVO_7_1));
	TAP_REQUIRE(diet_list_fill(&w, &list, 9, 2));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	mf_list_push_back(&list, &folio->page.list);
	TAP_OK(TAP_PANICS(err = mf_diet_remap_list(w.map, &list, NULL)));
	TAP_OK(TAP_PANICS(err = mf_diet_restore_list(w.map, &list, &restored, NULL)));
	TAP_EQ(err, 0);
	world_abandon(&w);
}

/* Restore it first.  R-HVO-69 */
TAP_TEST(split_and_merge_are_refused_on_a_diet)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *half, *other, *whole;
		mf_pfn_t pfn;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(open_each(&w, i));
		whole = world_alloc(&w, 10);
		TAP_REQUIRE(whole);
		pfn = mf_folio_pfn(w.map, whole);
		TAP_EQ(mf_folio_split(w.map, whole, 9), 0);
		half = mf_pfn_folio(w.map, pfn);
		other = mf_pfn_folio(w.map, pfn + 512);
		TAP_OK(mf_folio_freeze(half, 1));
		TAP_EQ(mf_diet_remap(w.map, half), 0);
		mf_folio_unfreeze(half, 1);
		digest = mf_map_digest(w.map);
		TAP_EQ(mf_folio_split(w.map, half, 0), -MF_EBUSY);
		TAP_EQ(mf_folio_split(w.map, half, 8), -MF_EBUSY);
		TAP_EQ(mf_folio_merge(w.map, pfn, 10, &whole), -MF_EBUSY);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_EQ(mf_folio_refcount(half), 1);
		TAP_EQ(mf_folio_refcount(other), 1);
		TAP_OK(world_check(&w));

		TAP_OK(mf_folio_freeze(half, 1));
		TAP_EQ(mf_diet_restore(w.map, half), 0);
		mf_folio_unfreeze(half, 1);
		TAP_EQ(mf_folio_merge(w.map, pfn, 10, &whole), 0);
		TAP_EQ(mf_folio_split(w.map, whole, 0), 0);
		TAP_OK(world_check(&w));
		for (mf_pfn_t at = pfn; at < pfn + 1024; at++)
			mf_folio_put(w.map, mf_pfn_folio(w.map, at));
		TAP_OK(world_close(&w));
	}
}

/* ---- What survives ----------------------------------------------------------------------------------------------- */

/*
 * Owner, its words and flags, map counts; pins and references from every address while on the diet.  R-HVO-14, R-CPD-27
 */
static void check_survives(struct world *w, unsigned order)
{
	static const struct mf_owner owner = { "owner", NULL };
	struct mf_folio *folio = world_alloc(w, order);
	mf_pfn_t pfn = folio ? mf_folio_pfn(w->map, folio) : 0, last = pfn + ((mf_pfn_t)1 << order) - 1;

	TAP_OK(folio != NULL);
	if (!folio)
		return;
	mf_folio_set_owner(folio, &owner);
	mf_folio_set_flags(folio, MF_FLAG_USER0 | MF_FLAG_USER3);
	folio->page.index = 4711;
	folio->page.private_data = 42;
	TAP_EQ(mf_folio_map_whole(folio), 0);
	TAP_EQ(mf_folio_map_frames(folio, 7), 0);
	for (unsigned i = 0; i < 3; i++) {
		TAP_OK(mf_folio_freeze(folio, 1));
		TAP_EQ(i == 1 ? mf_diet_restore(w->map, folio) : mf_diet_remap(w->map, folio), 0);
		TAP_OK(mf_pfn_try_get(w->map, last) == NULL);
		mf_folio_unfreeze(folio, 1);
		TAP_EQ(mf_folio_is_on_diet(folio), i != 1);
		TAP_OK(mf_folio_owner(folio) == &owner);
		TAP_EQ(mf_folio_flags(folio), MF_FLAG_USER0 | MF_FLAG_USER3);
		TAP_EQ(folio->page.index, 4711);
		TAP_EQ(folio->page.private_data, 42);
		TAP_EQ(mf_folio_mapcount(folio), 8);
		TAP_EQ(mf_folio_whole_mapcount(folio), 1);
		TAP_EQ(mf_folio_order(folio), order);

		TAP_OK(mf_pfn_try_pin(w->map, last) == folio);
		TAP_OK(mf_folio_try_get(w->map, mf_pfn_to_page(w->map, last)) == folio);
		TAP_EQ(mf_folio_refcount(folio), 3);
		TAP_EQ(mf_folio_pincount(folio), 1);
		TAP_OK(!mf_folio_freeze(folio, 3));
		mf_folio_unpin(w->map, folio);
		mf_folio_put(w->map, folio);
	}
	mf_folio_unmap_frames(folio, 7);
	mf_folio_unmap_whole(folio);
	TAP_OK(world_check(w));
	mf_folio_put(w->map, folio);
}

/* R-GEN-5, R-CPD-7, R-CPD-40 */
TAP_TEST(what_the_owner_knows_survives_remap_and_restore)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct world w;

		TAP_REQUIRE(open_each(&w, i));
		check_survives(&w, 9);
		check_survives(&w, 18);
		TAP_OK(world_close(&w));
	}
}

/* ---- Split against a holder who goes ------------------------------------------------------------------------------ */

static struct mf_machine_ops ops;
static const struct mf_machine_ops *real;
static struct world *going_in;
static struct mf_folio *going;

/* Another holder: puts the folio on its diet and goes, after the split has looked at its word. */
static bool holder_goes(struct mf_machine *m)
{
	struct mf_folio *folio = going;

	going = NULL;
	if (folio) {
		TAP_OK(mf_folio_freeze(folio, 2));
		TAP_EQ(mf_diet_remap(going_in->map, folio), 0);
		mf_folio_unfreeze(folio, 2);
		mf_folio_put(going_in->map, folio);
	}
	return !real->may_use || real->may_use(m);
}

TAP_TEST(split_looks_for_a_diet_once_it_is_alone)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_5_18));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio != NULL);
	mf_folio_get(folio);
	real = w.sim->ops;
	ops = *real;
	ops.may_use = holder_goes;
	going_in = &w;
	going = folio;
	w.sim->ops = &ops;
	TAP_EQ(mf_folio_split(w.map, folio, 0), -MF_EBUSY);
	w.sim->ops = real;
	TAP_EQ(mf_folio_refcount(folio), 1);
	TAP_OK(mf_folio_is_on_diet(folio));
	TAP_OK(world_check(&w));
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* A folio of exactly one table gets its larger leaf back, too. */
TAP_TEST(a_folio_of_one_table_gets_its_leaf_back)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_map_stats before;
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, diet_layouts[i]));
		folio = diet_folio(&w, 15);
		TAP_REQUIRE(folio != NULL);
		before = diet_stats(&w);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables + 1);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_EQ(diet_stats(&w).nr_tables, before.nr_tables);
		TAP_OK(diet_answers(&w, folio, 15));
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
