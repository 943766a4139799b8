/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_kept.c - folios that are freed on their diet: a put neither fails nor waits, the folio is kept until
 * somebody restores it, and is never lost, handed out too early, or freed twice.
 */
#include "tests/lib/hog.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"
#include "tests/unit/flush_log.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

static struct flush_log record;
static struct hog hog;

static bool open_kept(struct world *w, enum mf_layout layout)
{
	struct world_config config = {
		.nr_frames = G, .nr_ram_frames = 5500, .wrap = flush_log_wrap, .wrap_ctx = &record
	};

	if (!diet_open(w, &config, layout))
		return false;
	flush_log_start(&record, w->map);
	return true;
}

static bool close_kept(struct world *w)
{
	flush_log_stop(&record);
	return world_close(w);
}

/* On a diet, with one reference. */
static struct mf_folio *dieted(struct world *w, unsigned order)
{
	struct mf_folio *folio = diet_folio(w, order);

	if (!folio || mf_diet_remap(w->map, folio) != 0)
		return NULL;
	mf_folio_unfreeze(folio, 1);
	return folio;
}

/* ---- Put --------------------------------------------------------------------------------------------------------- */

/*
 * No frame, no flush, no wait: also in a reader section.  Nobody can take what is kept.  R-HVO-48, R-HVO-50, R-CPD-32
 */
TAP_TEST(put_on_a_diet_keeps_the_folio)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_map_stats before, after;
		struct mf_folio *folio;
		struct mf_page *tail;
		struct world w;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		folio = dieted(&w, 9);
		TAP_REQUIRE(folio);
		tail = &folio->page + 300;
		before = diet_stats(&w);
		TAP_EQ(before.nr_kept, 0);
		flush_log_start(&record, w.map);
		hog_all(&hog, w.sim);
		mf_reader_enter(w.map);
		mf_folio_put(w.map, folio);
		mf_reader_exit(w.map);
		after = diet_stats(&w);
		TAP_EQ(record.nr, 0);
		TAP_EQ(after.quiesces, before.quiesces);
		TAP_EQ(after.nr_kept, 1);
		TAP_EQ(after.nr_dieted, before.nr_dieted);
		TAP_EQ(after.nr_slots, before.nr_slots);
		TAP_EQ(after.nr_ram, before.nr_ram);
		TAP_EQ(after.nr_free, before.nr_free);
		TAP_OK(mf_folio_try_get(w.map, tail) == NULL);
		TAP_OK(mf_pfn_try_get(w.map, mf_page_to_pfn(w.map, tail)) == NULL);
		TAP_OK(mf_pfn_try_pin(w.map, mf_page_to_pfn(w.map, tail)) == NULL);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		TAP_OK(close_kept(&w));
	}
}

/* Who looks for folios in use finds none; its frames count as used until they are free. */
TAP_TEST(what_is_kept_is_no_folio_in_use)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio, *after;
		struct mf_zone_info zone;
		struct world w;
		mf_pfn_t next;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		folio = dieted(&w, 9);
		after = world_alloc(&w, 9);
		TAP_REQUIRE(folio && after && after > folio);
		TAP_OK(mf_folio_next(w.map, 0, G, &next) == folio);
		mf_folio_put(w.map, folio);
		TAP_OK(mf_folio_next(w.map, 0, G, &next) == after);
		TAP_EQ(next, mf_folio_pfn(w.map, after) + 512);
		TAP_EQ(diet_stats(&w).nr_used, 1024);
		TAP_EQ(mf_zone_info(w.map, 0, &zone), 0);
		TAP_EQ(zone.nr_free, G - 1024);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_EQ(diet_stats(&w).nr_used, 512);
		mf_folio_put(w.map, after);
		TAP_OK(mf_folio_next(w.map, 0, G, &next) == NULL);
		TAP_EQ(next, G);
		TAP_OK(close_kept(&w));
	}
}

/* Freed by its owner while frozen: the same.  R-HVO-48 */
TAP_TEST(free_frozen_on_a_diet_keeps_the_folio)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_kept(&w, MF_LAYOUT_HVO_5_18));
	folio = dieted(&w, 18);
	TAP_REQUIRE(folio);
	TAP_OK(mf_folio_freeze(folio, 1));
	mf_folio_free_frozen(w.map, folio);
	TAP_EQ(diet_stats(&w).nr_kept, 1);
	TAP_OK(world_check(&w));
	TAP_OK(close_kept(&w));
}

TAP_TEST(what_is_kept_is_not_freed_again)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct world_config config = { .nr_frames = G, .will_break = true };
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &config, diet_layouts[i]));
		folio = dieted(&w, 9);
		TAP_REQUIRE(folio);
		mf_folio_put(w.map, folio);
		TAP_OK(TAP_PANICS(mf_folio_free_frozen(w.map, folio)));
		TAP_OK(tap_contains(tap_state.panic, "freed twice"));
		TAP_OK(world_check(&w));
		TAP_OK(TAP_PANICS(mf_folio_put(w.map, folio)));
		TAP_OK(tap_contains(tap_state.panic, "nobody holds"));
		world_abandon(&w);
	}
}

/* ---- Who restores ------------------------------------------------------------------------------------------------ */

/* R-HVO-44, R-HVO-49, R-HVO-78, R-SCN-3 */
TAP_TEST(fold_restores_what_is_kept)
{
	static const enum mf_fold_flags flags[] = { MF_FOLD_KEEP, MF_FOLD_ALL };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned j = 0; j < 2; j++) {
			uint64_t nr_free;
			struct world w;

			TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
			nr_free = diet_stats(&w).nr_free;
			for (unsigned k = 0; k < 5; k++) {
				struct mf_folio *folio = dieted(&w, k == 4 ? 12 : 9);

				TAP_REQUIRE(folio);
				mf_folio_put(w.map, folio);
			}
			TAP_EQ(diet_stats(&w).nr_kept, 5);
			TAP_EQ(mf_fold(w.map, MF_ANY_NODE, flags[j], NULL), 0);
			TAP_EQ(diet_stats(&w).nr_kept, 0);
			TAP_EQ(diet_stats(&w).nr_dieted, 0);
			TAP_EQ(diet_stats(&w).nr_aliases, 0);
			TAP_EQ(diet_stats(&w).nr_free, nr_free);
			TAP_OK(close_kept(&w));
		}
	}
}

/* An allocation that finds nothing else, and may wait. */
TAP_TEST(allocation_restores_what_is_kept)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio, *other = NULL;
		struct mf_map_stats before;
		struct world w;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		folio = dieted(&w, 18);
		TAP_REQUIRE(folio);
		mf_folio_put(w.map, folio);
		before = diet_stats(&w);
		TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, 9, MF_ALLOC_NOWAIT, &other), -MF_ENOMEM);
		TAP_EQ(diet_stats(&w).nr_kept, 1);
		TAP_EQ(diet_stats(&w).quiesces, before.quiesces);
		TAP_EQ(diet_stats(&w).flushes, before.flushes);
		other = world_alloc(&w, 9);
		TAP_REQUIRE(other);
		TAP_EQ(diet_stats(&w).nr_kept, 0);
		TAP_OK(!mf_folio_is_on_diet(other));
		TAP_OK(diet_answers(&w, other, 9));
		mf_folio_put(w.map, other);
		TAP_OK(close_kept(&w));
	}
}

/* While there is other memory nothing is restored. */
TAP_TEST(allocation_takes_what_is_free_first)
{
	struct mf_folio *folio, *other;
	struct world w;

	TAP_REQUIRE(open_kept(&w, MF_LAYOUT_HVO_7_1));
	folio = dieted(&w, 9);
	TAP_REQUIRE(folio);
	mf_folio_put(w.map, folio);
	other = world_alloc(&w, 9);
	TAP_REQUIRE(other);
	TAP_EQ(diet_stats(&w).nr_kept, 1);
	mf_folio_put(w.map, other);
	TAP_OK(close_kept(&w));
}

/* R-HVO-55, R-HVO-79, R-SCN-13 */
TAP_TEST(removal_restores_what_is_kept)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio, *other;
		struct world w;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		folio = dieted(&w, 17);
		other = dieted(&w, 9);
		TAP_REQUIRE(folio && other);
		mf_folio_put(w.map, folio);
		TAP_EQ(mf_region_remove(w.map, 0), -MF_EBUSY); /* the other one is in use */
		TAP_OK(mf_folio_is_on_diet(other));
		TAP_OK(world_check(&w));
		mf_folio_put(w.map, other);
		TAP_EQ(mf_region_remove(w.map, 0), 0);
		TAP_EQ(diet_stats(&w).nr_described, 0);
		TAP_OK(w.map->tails == NULL);
		TAP_OK(close_kept(&w));
	}
}

/* ---- No memory --------------------------------------------------------------------------------------------------- */

/*
 * It stays kept: fold and allocation say so, removal is refused, nothing is changed; with memory again all of it works.
 * R-HVO-15, R-HVO-43, R-HVO-48, R-HVO-55, R-SCN-3, R-SCN-13
 */
TAP_TEST(without_memory_it_stays_kept)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_map_stats before, after;
		struct mf_folio *folio;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		folio = dieted(&w, 18);
		TAP_REQUIRE(folio);
		mf_folio_put(w.map, folio);
		hog_all(&hog, w.sim);
		TAP_EQ(hog_put(&hog, 100), 100);
		before = diet_stats(&w);
		digest = mf_map_digest(w.map);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_OK(world_alloc(&w, 0) == NULL);
		TAP_EQ(mf_region_remove(w.map, 0), -MF_ENOMEM);
		after = diet_stats(&w);
		TAP_EQ(after.nr_kept, 1);
		TAP_EQ(after.nr_dieted, 1);
		TAP_EQ(after.nr_slots, before.nr_slots);
		TAP_EQ(after.nr_tables, before.nr_tables);
		TAP_EQ(after.nr_ram, before.nr_ram);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_OK(world_check(&w));

		hog_end(&hog);
		folio = world_alloc(&w, 18);
		TAP_REQUIRE(folio);
		TAP_EQ(diet_stats(&w).nr_kept, 0);
		mf_folio_put(w.map, folio);
		TAP_OK(close_kept(&w));
	}
}

/* Those that can be restored are, whatever was freed before them and cannot.  R-HVO-52 */
TAP_TEST(smaller_ones_do_not_wait_for_larger_ones)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio[4];
		struct world w;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		folio[0] = dieted(&w, 17);
		folio[1] = dieted(&w, 9);
		folio[2] = dieted(&w, 16);
		folio[3] = dieted(&w, 9);
		for (unsigned j = 0; j < 4; j++) {
			TAP_REQUIRE(folio[j]);
			mf_folio_put(w.map, folio[j]);
		}
		hog_all(&hog, w.sim);
		TAP_EQ(hog_put(&hog, 14), 14);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_EQ(diet_stats(&w).nr_kept, 2);
		TAP_EQ(diet_stats(&w).nr_dieted, 2);
		TAP_OK(mf_folio_is_on_diet(folio[0]) && mf_folio_is_on_diet(folio[2]));
		TAP_OK(world_check(&w));
		hog_end(&hog);
		TAP_OK(close_kept(&w));
	}
}

/* As many as there is memory for, in the order in which they were freed.  R-HVO-52, R-SCN-3, R-SCN-4 */
TAP_TEST(as_many_are_restored_as_memory_allows)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		uint64_t needed = 8 - mf_layout_diet(diet_layouts[i])->nr_kept;
		struct mf_list list;
		struct world w;

		mf_list_init(&list);
		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		TAP_REQUIRE(diet_list_fill(&w, &list, 9, 10));
		TAP_EQ(mf_diet_remap_list(w.map, &list, NULL), 0);
		diet_list_free(&w, &list);
		TAP_EQ(diet_stats(&w).nr_kept, 10);
		hog_all(&hog, w.sim);
		for (unsigned left = 10; left > 0; left -= 2) {
			TAP_EQ(hog_put(&hog, 2 * needed), 2 * needed);
			TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_KEEP, NULL), 0);
			TAP_EQ(diet_stats(&w).nr_kept, left - 2);
			TAP_OK(world_check(&w));
		}
		hog_end(&hog);
		TAP_OK(close_kept(&w));
	}
}

/* ---- Owners ------------------------------------------------------------------------------------------------------ */

static int restored_by_owner;

static bool restore_and_free(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner)
{
	(void)owner;
	restored_by_owner = mf_diet_restore(map, folio);
	mf_folio_set_owner(folio, NULL);
	mf_folio_free_frozen(map, folio);
	return true;
}

/* M7: what is kept is nobody's, so a removal that restores some of it and then fails has changed nothing.  R-HVO-55 */
TAP_TEST(a_removal_that_fails_half_way_leaves_the_same_world)
{
	struct mf_folio *folio[2];
	struct world w;
	uint64_t digest;

	TAP_REQUIRE(open_kept(&w, MF_LAYOUT_HVO_5_18));
	for (unsigned i = 0; i < 2; i++)
		TAP_REQUIRE((folio[i] = dieted(&w, 9)) != NULL);
	for (unsigned i = 0; i < 2; i++)
		mf_folio_put(w.map, folio[i]);
	hog_all(&hog, w.sim);
	hog_put(&hog, 7);
	digest = mf_map_digest(w.map);
	TAP_EQ(diet_stats(&w).nr_kept, 2);
	TAP_EQ(mf_region_remove(w.map, 0), -MF_ENOMEM);
	TAP_EQ(diet_stats(&w).nr_kept, 1);
	TAP_EQ(mf_map_digest(w.map), digest);
	hog_end(&hog);
	TAP_OK(close_kept(&w));
}

/* A release hook that may wait restores by itself: nothing is kept.  R-HVO-48 */
TAP_TEST(owners_may_restore_when_they_are_told)
{
	static const struct mf_owner owner = { "restores", restore_and_free };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		uint64_t nr_free;
		struct world w;

		TAP_REQUIRE(open_kept(&w, diet_layouts[i]));
		nr_free = diet_stats(&w).nr_free;
		folio = dieted(&w, 9);
		TAP_REQUIRE(folio);
		mf_folio_set_owner(folio, &owner);
		restored_by_owner = 1;
		mf_folio_put(w.map, folio);
		TAP_EQ(restored_by_owner, 0);
		TAP_EQ(diet_stats(&w).nr_kept, 0);
		TAP_EQ(diet_stats(&w).nr_dieted, 0);
		TAP_EQ(diet_stats(&w).nr_free, nr_free);
		TAP_OK(close_kept(&w));
	}
}

static bool keep_it(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner)
{
	(void)map;
	(void)folio;
	(void)owner;
	return true;
}

/* A pool's folio stays on its diet while it is the owner's: frozen, not kept.  R-HVO-14, R-CPD-32 */
TAP_TEST(owners_may_keep_it_on_its_diet)
{
	static const struct mf_owner owner = { "pool", keep_it };
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_kept(&w, MF_LAYOUT_HVO_7_1));
	folio = dieted(&w, 9);
	TAP_REQUIRE(folio);
	mf_folio_set_owner(folio, &owner);
	mf_folio_put(w.map, folio);
	TAP_EQ(diet_stats(&w).nr_kept, 0);
	TAP_OK(mf_folio_is_on_diet(folio));
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(mf_folio_is_on_diet(folio));
	TAP_OK(world_check(&w));
	mf_folio_free_frozen(w.map, folio);
	TAP_EQ(diet_stats(&w).nr_kept, 1);
	TAP_OK(close_kept(&w));
}

TAP_MAIN()
