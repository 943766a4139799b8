/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_list.c - lists of folios: one wait for readers and one flush a pass for all, whom a failure stops and whom
 * not, and what is told.
 */
#include "tests/lib/hog.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"
#include "tests/unit/flush_log.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

enum { SLOT = 4096, TABLE = 2 << 20, PER_TABLE = 64 };

/* A table, the head's frame, the zone's tail frame. */
enum { FIRST_NEEDS = 3 };

static struct flush_log record;
static struct hog hog;

static bool open_list(struct world *w, enum mf_layout layout, enum mf_map_flags flags, struct mf_list *list,
		      uint64_t nr)
{
	struct world_config config = {
		.nr_frames = G, .nr_ram_frames = 5000, .flags = flags, .wrap = flush_log_wrap, .wrap_ctx = &record
	};

	mf_list_init(list);
	if (!diet_open(w, &config, layout) || !diet_list_fill(w, list, 9, nr))
		return false;
	flush_log_start(&record, w->map);
	return true;
}

static void close_list(struct world *w, struct mf_list *list)
{
	flush_log_stop(&record);
	diet_list_free(w, list);
	TAP_OK(world_close(w));
}

static uint64_t length(const struct mf_list *list)
{
	uint64_t nr = 0;

	for (const struct mf_list *at = list->next; at != list; at = at->next)
		nr++;
	return nr;
}

/* ---- Waits and flushes ------------------------------------------------------------------------------------------- */

/*
 * Leaves are split first, all of them, and flushed once; then readers are waited for; then every folio goes on its
 * diet, and is flushed with the others, before the first frame goes back.  R-HVO-31, R-HVO-36, R-HVO-37, R-HVO-40,
 * R-HVO-80
 */
TAP_TEST(a_list_waits_once_and_flushes_twice)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		const struct mf_diet *diet = mf_layout_diet(diet_layouts[i]);
		uint64_t nr = 0, nr_back = 8 - diet->nr_kept + diet->moves_head;
		struct mf_list list;
		uintptr_t first, last;
		struct world w;

		TAP_REQUIRE(open_list(&w, diet_layouts[i], MF_MAP_SHARE_TABLES, &list, 2 * PER_TABLE + 10));
		first = mf_round_down((uintptr_t)diet_list_folio(list.next), TABLE);
		last = (uintptr_t)diet_list_folio(list.prev);
		TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
		TAP_EQ(nr, 2 * PER_TABLE + 10);
		TAP_EQ(w.map->quiesces - record.quiesces, 1);
		TAP_REQUIRE(flush_log_flushes(&record) == 2);
		/* The tables. */
		TAP_OK(flush_reaches(flush_log_nth(&record, 0), first, mf_round_down(last, TABLE) + TABLE));
		TAP_EQ(flush_log_nth(&record, 0)->nr_quiesces, 0);
		TAP_EQ(flush_log_frames_before(&record) + flush_log_frames_after(&record, 0), 0);
		/* The slots. */
		TAP_OK(flush_reaches(flush_log_nth(&record, 1), first + SLOT, last + 8 * SLOT));
		TAP_EQ(flush_log_nth(&record, 1)->nr_quiesces, 1);
		TAP_EQ(flush_log_frames_after(&record, 1), nr * nr_back);
		TAP_OK(world_check(&w));
		close_list(&w, &list);
	}
}

/* Nothing to split: one flush.  R-HVO-40 */
TAP_TEST(a_list_without_leaves_flushes_once)
{
	struct mf_list list;
	struct world w;

	TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_7_1, MF_MAP_PRIVATE_TABLES, &list, 20));
	TAP_EQ(mf_diet_remap_list(w.map, &list, NULL), 0);
	TAP_EQ(flush_log_flushes(&record), 1);
	TAP_EQ(w.map->quiesces - record.quiesces, 1);
	TAP_EQ(flush_log_frames_before(&record), 0);
	close_list(&w, &list);
}

/* R-HVO-41 */
TAP_TEST(an_empty_list_does_nothing)
{
	struct mf_list list, restored;
	uint64_t nr = 99;
	struct world w;

	mf_list_init(&restored);
	TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_5_18, MF_MAP_SHARE_TABLES, &list, 0));
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
	TAP_EQ(nr, 0);
	nr = 99;
	TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), 0);
	TAP_EQ(nr, 0);
	TAP_EQ(record.nr, 0);
	TAP_EQ(w.map->quiesces, record.quiesces);
	close_list(&w, &list);
}

/* The switch off, or all on their diet already: nobody waits, nothing is flushed.  R-HVO-13, R-HVO-37 */
TAP_TEST(a_list_that_wants_nothing_does_nothing)
{
	struct mf_list list;
	uint64_t nr = 99;
	struct world w;

	TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_5_18, MF_MAP_SHARE_TABLES, &list, 5));
	mf_diet_switch(w.map, false);
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
	TAP_EQ(nr, 0);
	TAP_EQ(record.nr, 0);
	TAP_EQ(w.map->quiesces, record.quiesces);
	mf_diet_switch(w.map, true);
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
	TAP_EQ(nr, 5);
	flush_log_start(&record, w.map);
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
	TAP_EQ(nr, 0);
	TAP_EQ(record.nr, 0);
	TAP_EQ(w.map->quiesces, record.quiesces);
	close_list(&w, &list);
}

/* ---- Who goes on ------------------------------------------------------------------------------------------------- */

/*
 * Not counted: what was on its diet, what saves nothing.  Refused, and told: self-hosted.  The others go on.  R-HVO-38
 */
TAP_TEST(a_list_of_all_sorts)
{
	struct mf_region_config self = {
		.start_pfn = G, .end_pfn = 2 * G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_SELF, .node = 1
	};
	struct mf_region_config ram = { .end_pfn = G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_RAM };
	struct mf_folio *dieted, *small, *hosted, *wants;
	struct mf_list list;
	uint64_t nr = 99;
	struct world w;

	mf_list_init(&list);
	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(world_add_region(&w, &ram, NULL) | world_add_region(&w, &self, NULL), 0);
	dieted = diet_folio(&w, 9);
	small = diet_folio(&w, 3);
	wants = diet_folio(&w, 9);
	TAP_EQ(mf_folio_alloc(w.map, 1, 9, MF_ALLOC_THIS_NODE, &hosted), 0);
	TAP_REQUIRE(dieted && small && wants && mf_folio_freeze(hosted, 1));
	TAP_EQ(mf_diet_remap(w.map, dieted), 0);
	mf_list_push_back(&list, &hosted->page.list);
	mf_list_push_back(&list, &dieted->page.list);
	mf_list_push_back(&list, &small->page.list);
	mf_list_push_back(&list, &wants->page.list);
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), -MF_EOPNOTSUPP);
	TAP_EQ(nr, 1);
	TAP_OK(mf_folio_is_on_diet(dieted) && mf_folio_is_on_diet(wants));
	TAP_OK(!mf_folio_is_on_diet(hosted) && !mf_folio_is_on_diet(small));
	TAP_EQ(length(&list), 4);
	TAP_OK(list.next == &hosted->page.list && list.prev == &wants->page.list);
	diet_list_free(&w, &list);
	TAP_OK(world_close(&w));
}

/*
 * A table is lacking in the first pass, at the second of three leaves: that pass ends; in the second each leaf that was
 * not reached is split by itself and flushed by itself.  R-HVO-36, R-HVO-39, R-HVO-80, R-SCN-6
 */
TAP_TEST(leaves_not_split_first_are_split_later)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		uint64_t nr = 0, nr_late = 0;
		struct mf_list list;
		uintptr_t first;
		struct world w;

		TAP_REQUIRE(open_list(&w, diet_layouts[i], MF_MAP_SHARE_TABLES, &list, 2 * PER_TABLE + 1));
		first = mf_round_down((uintptr_t)diet_list_folio(list.next), TABLE);
		mf_sim_fail_ram(w.sim, 2);
		TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
		mf_sim_fail_ram(w.sim, 0);
		TAP_EQ(nr, 2 * PER_TABLE + 1);
		TAP_EQ(flush_log_nth(&record, 0)->start, first);
		TAP_EQ(flush_log_nth(&record, 0)->end, first + TABLE);
		TAP_EQ(flush_log_nth(&record, 0)->nr_quiesces, 0);
		for (unsigned n = 1; n < flush_log_flushes(&record); n++) {
			const struct flush_entry *flush = flush_log_nth(&record, n);

			TAP_EQ(flush->nr_quiesces, 1);
			nr_late += flush->end - flush->start == TABLE && (flush->start - first) % TABLE == 0 &&
				   flush->start > first && flush_log_frames_after(&record, n) == 0;
		}
		TAP_EQ(nr_late, 2);
		TAP_OK(world_check(&w));
		close_list(&w, &list);
	}
}

/*
 * No frame for the second leaf's table but those that the first folios free: it is tried again with these.  R-HVO-38,
 * R-SCN-6
 */
TAP_TEST(leaves_are_split_with_what_was_freed)
{
	for (unsigned i = 0; i < 2; i++) {
		uint64_t nr = 0;
		struct mf_list list;
		struct world w;

		TAP_REQUIRE(open_list(&w, diet_layouts[i], MF_MAP_SHARE_TABLES, &list, 2 * PER_TABLE));
		hog_all(&hog, w.sim);
		TAP_EQ(hog_put(&hog, 1), 1);
		TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
		TAP_EQ(nr, 2 * PER_TABLE);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		close_list(&w, &list);
	}
}

/*
 * RAM ends in the second pass: what is free by then is flushed and goes back early, and the folio is tried once more.
 * hvo-7.1: each folio takes a frame and gives eight.  R-HVO-38, R-HVO-80
 */
TAP_TEST(what_was_freed_goes_back_early_when_ram_ends)
{
	uint64_t nr = 0, nr_early;
	struct mf_list list;
	struct world w;

	TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_7_1, MF_MAP_PRIVATE_TABLES, &list, 12));
	hog_all(&hog, w.sim);
	TAP_EQ(hog_put(&hog, 3), 3); /* the tails of the zone, and the heads of two */
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
	TAP_EQ(nr, 12);
	/* Two folios' frames, then 16 more heads. */
	TAP_REQUIRE(flush_log_flushes(&record) == 2);
	TAP_EQ(flush_log_frames_before(&record), 0);
	nr_early = flush_log_frames_after(&record, 0);
	TAP_EQ(nr_early, 2 * 8);
	TAP_EQ(flush_log_frames_after(&record, 1), 10 * 8);
	TAP_EQ(w.map->quiesces - record.quiesces, 1);
	TAP_OK(world_check(&w));
	hog_end(&hog);
	close_list(&w, &list);
}

/*
 * Nothing was freed by then: no second try, but the others are tried, and the first error is told.  R-HVO-35, R-HVO-38
 */
TAP_TEST(a_failure_does_not_stop_the_others)
{
	uint64_t nr = 99;
	struct mf_list list;
	struct world w;

	TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_7_1, MF_MAP_PRIVATE_TABLES, &list, 3));
	hog_all(&hog, w.sim);
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), -MF_ENOMEM);
	TAP_EQ(nr, 0);
	TAP_EQ(flush_log_flushes(&record), 0);
	TAP_EQ(length(&list), 3);
	TAP_OK(world_check(&w));
	hog_end(&hog);
	/* One call fails: the first folio, with nothing to try again with. */
	mf_sim_fail_ram(w.sim, 1);
	TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), -MF_ENOMEM);
	mf_sim_fail_ram(w.sim, 0);
	TAP_EQ(nr, 2);
	TAP_OK(!mf_folio_is_on_diet(diet_list_folio(list.next)));
	TAP_OK(mf_folio_is_on_diet(diet_list_folio(list.next->next)));
	TAP_OK(mf_folio_is_on_diet(diet_list_folio(list.prev)));
	close_list(&w, &list);
}

/*
 * All memory can become tables before the first folio goes on its diet; then some become leaves again.  A list goes on its
 * diet with as little memory as its folios one by one.  R-HVO-38
 */
TAP_TEST(a_list_needs_no_more_than_its_folios_one_by_one)
{
	for (unsigned left = FIRST_NEEDS; left < 12; left++) {
		uint64_t nr = 0;
		struct mf_list list, others;
		struct world w;

		mf_list_init(&others);
		TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_7_1, MF_MAP_SHARE_TABLES, &others, 512));
		mf_list_init(&list);
		/* One under each larger leaf. */
		for (unsigned i = 0; i < 512; i++) {
			struct mf_list *node = others.next;

			mf_list_remove(node);
			mf_list_push_back(i % PER_TABLE == 0 ? &list : &others, node);
		}
		TAP_EQ(length(&list), 512 / PER_TABLE);
		hog_all(&hog, w.sim);
		hog_put(&hog, left);
		TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
		TAP_EQ(nr, 512 / PER_TABLE);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		diet_list_free(&w, &others);
		close_list(&w, &list);
	}
}

/* ---- Restore ----------------------------------------------------------------------------------------------------- */

/*
 * In the list's order, with one wait and one flush; what is not on a diet passes through; what is done moves to the end
 * of the other list.  R-HVO-47, R-HVO-80
 */
TAP_TEST(restored_folios_move_in_order)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio[4], *other;
		struct mf_list list, restored;
		uint64_t nr = 99;
		struct world w;

		mf_list_init(&restored);
		TAP_REQUIRE(open_list(&w, diet_layouts[i], MF_MAP_SHARE_TABLES, &list, 4));
		for (unsigned j = 0; j < 4; j++) {
			folio[j] = diet_list_folio(j == 0 ? list.next : folio[j - 1]->page.list.next);
			if (j != 1)
				TAP_EQ(mf_diet_remap(w.map, folio[j]), 0);
		}
		other = diet_folio(&w, 9);
		TAP_REQUIRE(other);
		mf_list_push_back(&restored, &other->page.list);
		flush_log_start(&record, w.map);
		TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), 0);
		TAP_EQ(nr, 3);
		TAP_OK(mf_list_is_empty(&list));
		TAP_OK(restored.next == &other->page.list);
		for (unsigned j = 0; j < 4; j++)
			TAP_OK((j == 0 ? &other->page.list : &folio[j - 1]->page.list)->next == &folio[j]->page.list);
		TAP_OK(restored.prev == &folio[3]->page.list);
		TAP_EQ(w.map->quiesces - record.quiesces, 0);
		TAP_EQ(flush_log_flushes(&record), 1);
		TAP_OK(flush_reaches(flush_log_nth(&record, 0), (uintptr_t)folio[0] + 2 * SLOT,
				     (uintptr_t)folio[3] + 8 * SLOT));
		TAP_OK(world_check(&w));
		close_list(&w, &restored);
	}
}

/* Nothing on a diet: moved, not counted, nothing flushed.  R-HVO-47 */
TAP_TEST(what_is_on_no_diet_passes_through)
{
	struct mf_list list, restored;
	uint64_t nr = 99;
	struct world w;

	mf_list_init(&restored);
	TAP_REQUIRE(open_list(&w, MF_LAYOUT_HVO_7_1, MF_MAP_SHARE_TABLES, &list, 3));
	TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), 0);
	TAP_EQ(nr, 0);
	TAP_EQ(length(&restored), 3);
	TAP_OK(mf_list_is_empty(&list));
	TAP_EQ(record.nr, 0);
	TAP_EQ(w.map->quiesces, record.quiesces);
	close_list(&w, &restored);
}

/* The first failure stops: that folio and the rest stay, those before are done.  R-HVO-47, R-SCN-4 */
TAP_TEST(the_first_failure_of_a_restore_stops)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		uint64_t nr = 99, needed = 8 - mf_layout_diet(diet_layouts[i])->nr_kept;
		struct mf_list list, restored, *first_left;
		struct world w;

		mf_list_init(&restored);
		TAP_REQUIRE(open_list(&w, diet_layouts[i], MF_MAP_SHARE_TABLES, &list, 5));
		TAP_EQ(mf_diet_remap_list(w.map, &list, NULL), 0);
		first_left = list.next->next->next;
		hog_all(&hog, w.sim);
		TAP_EQ(hog_put(&hog, 3 * needed - 1), 3 * needed - 1);
		flush_log_start(&record, w.map);
		TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), -MF_ENOMEM);
		TAP_EQ(nr, 2);
		TAP_EQ(length(&restored), 2);
		TAP_EQ(length(&list), 3);
		TAP_OK(list.next == first_left);
		TAP_OK(mf_folio_is_on_diet(diet_list_folio(list.next)));
		TAP_OK(!mf_folio_is_on_diet(diet_list_folio(restored.prev)));
		TAP_EQ(flush_log_flushes(&record), 1);
		TAP_OK(world_check(&w));
		/* The rest, when there is memory again. */
		hog_end(&hog);
		TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), 0);
		TAP_EQ(nr, 3);
		TAP_OK(mf_list_is_empty(&list));
		close_list(&w, &restored);
	}
}

TAP_MAIN()
