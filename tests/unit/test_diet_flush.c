/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_flush.c - who is flushed, how far, and when, line by line: one folio goes on its diet and off it, and fails
 * to.
 *
 * What frees a frame too early is found by the machine in every test (MF_SIM_CHECK_REUSE); here the moments are told.
 */
#include "tests/lib/hog.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"
#include "tests/unit/flush_log.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

enum { SLOT = 4096, TABLE = 2 << 20 };

static struct flush_log record;
static struct hog hog;

static struct mf_folio *open_one(struct world *w, enum mf_layout layout, unsigned order, enum mf_map_flags flags)
{
	struct world_config config = {
		.nr_frames = G, .nr_ram_frames = 10000, .flags = flags, .wrap = flush_log_wrap, .wrap_ctx = &record
	};
	struct mf_folio *folio;

	if (!diet_open(w, &config, layout))
		return NULL;
	folio = diet_folio(w, order);
	flush_log_start(&record, w->map);
	record.watched = folio;
	return folio;
}

static void close_one(struct world *w, struct mf_folio *folio)
{
	flush_log_stop(&record);
	diet_folio_free(w, folio);
	TAP_OK(world_close(w));
}

static uintptr_t slot_at(struct mf_folio *folio, uint64_t index)
{
	return (uintptr_t)folio + index * SLOT;
}

/* The first slot whose entry changes: the head's where it moves, else the one that tails are shown from or the next. */
static uint64_t first_changed(enum mf_layout layout)
{
	return mf_layout_diet(layout)->moves_head ? 0 : 1;
}

/* ---- Remap ------------------------------------------------------------------------------------------------------- */

/*
 * A leaf that is split on the way is flushed at once, its range alone; then readers are waited for; then the range of
 * the folio's map, once, and only then frames go back.  R-HVO-22, R-HVO-23, R-HVO-28, R-HVO-80, R-GEN-6 R-HVO-27
 */
TAP_TEST(remap_flushes_the_split_leaf_then_the_slots)
{
	static const uint64_t nr_back[] = { 6, 7, 8 };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		uintptr_t leaf;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 9, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(folio);
		leaf = mf_round_down((uintptr_t)folio, TABLE);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_REQUIRE(flush_log_flushes(&record) == 2);
		TAP_EQ(flush_log_frames_before(&record), 0);
		TAP_EQ(flush_log_nth(&record, 0)->start, leaf);
		TAP_EQ(flush_log_nth(&record, 0)->end, leaf + TABLE);
		TAP_EQ(flush_log_nth(&record, 0)->nr_quiesces, 0);
		TAP_EQ(flush_log_frames_after(&record, 0), 0);
		TAP_EQ(flush_log_nth(&record, 1)->start, slot_at(folio, first_changed(diet_layouts[i])));
		TAP_EQ(flush_log_nth(&record, 1)->end, slot_at(folio, 8));
		TAP_EQ(flush_log_nth(&record, 1)->scope, MF_FLUSH_LEAVES);
		TAP_EQ(flush_log_nth(&record, 1)->nr_quiesces, 1);
		TAP_OK(flush_log_nth(&record, 1)->was_marked);
		TAP_EQ(flush_log_frames_after(&record, 1), nr_back[i]);
		close_one(&w, folio);
	}
}

/* The leaf's table stands: one flush, one wait.  R-HVO-22, R-HVO-80, R-SCN-1, R-HVO-27 */
TAP_TEST(remap_without_a_leaf_flushes_once)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 9, MF_MAP_PRIVATE_TABLES);
		TAP_REQUIRE(folio);
		for (unsigned round = 0; round < 2; round++) {
			flush_log_start(&record, w.map);
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
			TAP_EQ(flush_log_flushes(&record), 1);
			TAP_OK(flush_reaches(flush_log_nth(&record, 0), slot_at(folio, first_changed(diet_layouts[i])),
					     slot_at(folio, 8)));
			TAP_EQ(flush_log_nth(&record, 0)->nr_quiesces, 1);
			TAP_EQ(flush_log_frames_before(&record), 0);
			TAP_EQ(mf_diet_restore(w.map, folio), 0);
		}
		close_one(&w, folio);
	}
}

/* Whole leaves become uniform tables: all contexts are flushed.  R-HVO-22, R-HVO-80, R-GEN-6 */
TAP_TEST(remap_of_whole_tables_flushes_tables)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 18, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_EQ(flush_log_flushes(&record), 2);
		TAP_OK(flush_reaches(flush_log_nth(&record, 1), slot_at(folio, first_changed(diet_layouts[i])),
				     slot_at(folio, 4096)));
		TAP_EQ(flush_log_frames_before(&record) + flush_log_frames_after(&record, 0), 0);
		TAP_EQ(flush_log_frames_after(&record, 1),
		       4096 - mf_layout_diet(diet_layouts[i])->nr_kept + mf_layout_diet(diet_layouts[i])->moves_head);

		/* Off it: uniform tables go, and may be cached by whoever walked through them. */
		flush_log_start(&record, w.map);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_EQ(flush_log_flushes(&record), 1);
		TAP_EQ(flush_log_nth(&record, 0)->scope, MF_FLUSH_TABLES);
		TAP_OK(flush_reaches(flush_log_nth(&record, 0), slot_at(folio, 0), slot_at(folio, 4096)));
		TAP_EQ(flush_log_frames_before(&record), 0);
		close_one(&w, folio);
	}
}

/* A failure: what was split is merged again, and flushed before the table goes back.  R-HVO-32, R-HVO-80 */
TAP_TEST(remap_that_fails_flushes_what_it_undoes)
{
	struct mf_folio *folio;
	uintptr_t leaf;
	struct world w;

	folio = open_one(&w, MF_LAYOUT_HVO_7_1, 9, MF_MAP_SHARE_TABLES);
	TAP_REQUIRE(folio);
	leaf = mf_round_down((uintptr_t)folio, TABLE);
	mf_sim_fail_ram(w.sim, 2); /* the table is had, the head's frame is not */
	TAP_EQ(mf_diet_remap(w.map, folio), -MF_ENOMEM);
	mf_sim_fail_ram(w.sim, 0);
	TAP_REQUIRE(flush_log_flushes(&record) == 2);
	TAP_OK(flush_reaches(flush_log_nth(&record, 1), leaf, leaf + TABLE));
	TAP_EQ(flush_log_nth(&record, 1)->scope, MF_FLUSH_TABLES);
	TAP_EQ(flush_log_frames_before(&record) + flush_log_frames_after(&record, 0), 0);
	TAP_EQ(flush_log_frames_after(&record, 1), 1);
	close_one(&w, folio);
}

/* Nothing can be done at all: nothing is flushed, nobody waited for.  R-HVO-33 */
TAP_TEST(remap_that_fails_at_once_flushes_nothing)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 9, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(folio);
		mf_sim_fail_ram(w.sim, 1);
		TAP_EQ(mf_diet_remap(w.map, folio), -MF_ENOMEM);
		mf_sim_fail_ram(w.sim, 0);
		TAP_EQ(record.nr, 0);
		TAP_EQ(w.map->quiesces, record.quiesces);
		close_one(&w, folio);
	}
}

/* ---- Restore ----------------------------------------------------------------------------------------------------- */

/* The slots that were aliases, after the walk, before the mark goes; nothing goes back.  R-HVO-44, R-HVO-80 */
TAP_TEST(restore_flushes_the_aliased_slots)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 9, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		flush_log_start(&record, w.map);
		record.watched = folio;
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_REQUIRE(flush_log_flushes(&record) == 1);
		/* hvo-5.14: the slot that was shown is writable again, too. */
		TAP_EQ(flush_log_nth(&record, 0)->start, slot_at(folio, 1));
		TAP_EQ(flush_log_nth(&record, 0)->end, slot_at(folio, 8));
		TAP_EQ(flush_log_nth(&record, 0)->scope, MF_FLUSH_LEAVES);
		TAP_EQ(flush_log_nth(&record, 0)->nr_quiesces, 0);
		TAP_OK(flush_log_nth(&record, 0)->was_marked);
		TAP_OK(!mf_folio_is_on_diet(folio));
		TAP_EQ(record.nr, 1);
		close_one(&w, folio);
	}
}

/*
 * Frames run out in between: what was switched is switched back and flushed before its frames go back.  R-HVO-43,
 * R-HVO-80
 */
TAP_TEST(restore_that_fails_flushes_before_it_gives_back)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 18, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		hog_all(&hog, w.sim);
		TAP_EQ(hog_put(&hog, 1000), 1000);
		flush_log_start(&record, w.map);
		record.watched = folio;
		TAP_EQ(mf_diet_restore(w.map, folio), -MF_ENOMEM);
		TAP_OK(flush_log_flushes(&record) >= 1);
		/* A chunk that was never switched goes back at once. */
		TAP_OK(flush_log_frames_before(&record) < 64);
		for (unsigned n = 0; n < flush_log_flushes(&record); n++)
			TAP_OK(flush_log_nth(&record, n)->was_marked);
		TAP_OK(mf_folio_is_on_diet(folio));
		hog_end(&hog);
		TAP_OK(world_check(&w));
		close_one(&w, folio);
	}
}

/* Not even one frame: nothing is switched, nothing flushed. */
TAP_TEST(restore_that_fails_at_once_switches_nothing)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_one(&w, diet_layouts[i], 9, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		flush_log_start(&record, w.map);
		mf_sim_fail_ram(w.sim, 1);
		TAP_EQ(mf_diet_restore(w.map, folio), -MF_ENOMEM);
		mf_sim_fail_ram(w.sim, 0);
		for (unsigned n = 0; n < record.nr; n++)
			TAP_OK(record.entry[n].is_flush);
		TAP_OK(mf_folio_is_on_diet(folio));
		TAP_OK(world_check(&w));
		close_one(&w, folio);
	}
}

TAP_MAIN()
