/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_laws_diet.c - the laws of the classic diets broken by a step left out or done too late; each is found by the
 * machine.
 *
 * The same without any of it: nobody complains (the first test).
 */
#include "tests/lib/saboteur.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

static struct saboteur saboteur;

static bool open_spoilt(struct world *w, enum mf_layout layout)
{
	struct world_config config = {
		.nr_frames = G, .wrap = saboteur_wrap, .wrap_ctx = &saboteur, .will_break = true
	};

	saboteur = (struct saboteur){ .nr_cpus = 2 };
	return diet_open(w, &config, layout);
}

static void touch_all(struct world *w, struct mf_folio *folio, unsigned order)
{
	for (uint64_t i = 0; i < diet_nr_slots(w, order); i++)
		(void)mf_page_folio(w->map, diet_slot(w, folio, i));
}

static bool sentence_says(const char *part)
{
	if (tap_contains(tap_state.panic, part))
		return true;
	TAP_NOTE("the sentence was: %s", tap_state.panic);
	return false;
}

/* What the tests below do with something left out. */
TAP_TEST(nothing_is_caught_where_nothing_is_broken)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned order = 9; order <= 18; order += 9) {
			struct mf_folio *folio;
			struct world w;

			TAP_REQUIRE(open_spoilt(&w, diet_layouts[i]));
			folio = diet_folio(&w, order);
			TAP_REQUIRE(folio);
			touch_all(&w, folio, order);
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
			touch_all(&w, folio, order);
			TAP_EQ(mf_sim_stale(w.sim), 0);
			TAP_OK(world_check(&w));
			TAP_EQ(mf_diet_restore(w.map, folio), 0);
			TAP_EQ(mf_sim_stale(w.sim), 0);
			TAP_OK(saboteur.nr_flushes >= 2);
			diet_folio_free(&w, folio);
			TAP_OK(world_close(&w));
		}
	}
}

/* ---- M5: change, flush, reuse ----------------------------------------------------------------------------------- */

/* Frames go back while a processor still reads tails there.  R-GEN-6, R-HVO-22, R-HVO-40, R-HVO-80 */
TAP_TEST(m5_remap_without_a_flush_is_caught)
{
	static const enum sabotage ways[] = { SABOTAGE_FLUSH, SABOTAGE_FLUSH_LATE };

	for (unsigned i = 0; i < 2 * NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		volatile int err = 0;
		struct world w;

		TAP_REQUIRE(open_spoilt(&w, diet_layouts[i / 2]));
		folio = diet_folio(&w, 9);
		TAP_REQUIRE(folio);
		/* The second time no leaf is split, whose flush would do. */
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		touch_all(&w, folio, 9);
		saboteur.what = ways[i % 2];
		TAP_OK(TAP_PANICS(err = mf_diet_remap(w.map, folio)));
		TAP_OK(sentence_says("a flush is missing"));
		TAP_EQ(err, 0);
		world_abandon(&w);
	}
}

/* A processor may walk through the table that was freed.  R-HVO-80 */
TAP_TEST(m5_table_freed_behind_a_flush_of_leaves_is_caught)
{
	static const enum mf_layout layouts[] = { MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18 };

	for (unsigned i = 0; i < 2; i++) {
		struct mf_folio *folio;
		volatile int err = 0;
		struct world w;

		TAP_REQUIRE(open_spoilt(&w, layouts[i]));
		folio = diet_folio(&w, 18);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		touch_all(&w, folio, 18);
		saboteur.what = SABOTAGE_FLUSH_SCOPE;
		TAP_OK(TAP_PANICS(err = mf_diet_restore(w.map, folio)));
		TAP_OK(sentence_says("flush"));
		TAP_EQ(err, 0);
		world_abandon(&w);
	}
}

static void write_count(void *arg)
{
	struct mf_page *page = arg;
	uint64_t one = 1;

	/* What a reader does who has loaded a count of 1: writes, whatever is there by now. */
	(void)__atomic_compare_exchange_n(&page->counts, &one, 2, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* No frame goes back, but processors still believe in aliases: a write to what is writable by now faults.  R-HVO-44 */
TAP_TEST(m5_restore_without_a_flush_is_stale)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_sim_fault fault = { 0 };
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(open_spoilt(&w, diet_layouts[i]));
		folio = diet_folio(&w, 9);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		touch_all(&w, folio, 9);
		saboteur.what = SABOTAGE_FLUSH;
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_OK(mf_sim_stale(w.sim) > 0);
		TAP_EQ(mf_sim_catch_fault(w.sim, write_count, diet_slot(&w, folio, 5), &fault), 1);
		TAP_EQ(fault.kind, MF_SIM_FAULT_STALE);
		world_abandon(&w);
	}
}

/* ---- Quiesce ----------------------------------------------------------------------------------------------------- */

/*
 * A reader on CPU 1 has loaded the count of a folio of one frame, 1; meanwhile its owner made it part of a large folio,
 * and puts that on its diet.  When the reader comes to compare-and-swap, the slot must still be writable.
 */
struct reader {
	struct world *w;
	struct mf_page *page;
	unsigned nr_calls;
	bool faulted, found_tail;
	struct mf_sim_fault fault;
};

static void swap_and_leave(void *ctx)
{
	struct reader *r = ctx;

	if (r->nr_calls++)
		return;
	saboteur.cpu = 1;
	r->faulted = mf_sim_catch_fault(r->w->sim, write_count, r->page, &r->fault);
	r->found_tail = mf_word_is_tail(mf_page_word(r->page));
	mf_reader_exit(r->w->map);
	saboteur.cpu = 0;
}

static struct mf_folio *merged_under_a_reader(struct world *w, struct reader *r, enum mf_layout layout)
{
	struct mf_folio *folio;
	mf_pfn_t pfn;

	*r = (struct reader){ .w = w };
	if (!open_spoilt(w, layout))
		return NULL;
	folio = world_alloc(w, 9);
	if (!folio || mf_folio_split(w->map, folio, 0) != 0)
		return NULL;
	pfn = mf_folio_pfn(w->map, folio);
	r->page = mf_pfn_to_page(w->map, pfn + 300);
	saboteur.cpu = 1;
	mf_reader_enter(w->map);
	TAP_EQ(r->page->counts, 1);
	saboteur.cpu = 0;
	if (mf_folio_merge(w->map, pfn, 9, &folio) != 0 || !mf_folio_freeze(folio, 1))
		return NULL;
	return folio;
}

/* The call waits for it.  R-CPD-47, R-HVO-16 */
TAP_TEST(quiesce_comes_before_slots_turn_read_only)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned as_list = 0; as_list < 2; as_list++) {
			struct mf_folio *folio;
			struct mf_list list;
			struct reader r;
			struct world w;

			folio = merged_under_a_reader(&w, &r, diet_layouts[i]);
			TAP_REQUIRE(folio);
			saboteur.relaxed = swap_and_leave;
			saboteur.relaxed_ctx = &r;
			mf_list_init(&list);
			mf_list_push_back(&list, &folio->page.list);
			TAP_EQ(as_list ? mf_diet_remap_list(w.map, &list, NULL) : mf_diet_remap(w.map, folio), 0);
			mf_list_remove(&folio->page.list);
			TAP_OK(r.nr_calls > 0 && r.found_tail);
			TAP_OK(!r.faulted);
			TAP_OK(mf_folio_is_on_diet(folio));
			saboteur.relaxed = NULL;
			diet_folio_free(&w, folio);
			TAP_OK(world_close(&w));
		}
	}
}

static void remap_by_hand(struct world *w, struct mf_folio *folio)
{
	struct diet_unit u = diet_unit(w->map, &folio->page);
	struct diet_work work;

	diet_work_begin(&work, w->map, MF_FLUSH_FOR_RESTORE, 1);
	TAP_EQ(diet_split(&u, &work, true), 0);
	TAP_EQ(diet_remap(&u, &work), 0);
	diet_work_end(&work);
}

/* Left out, and done too late.  R-CPD-47 */
TAP_TEST(remap_without_a_quiesce_faults_in_the_reader)
{
	for (unsigned i = 0; i < 2 * NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct reader r;
		struct world w;

		folio = merged_under_a_reader(&w, &r, diet_layouts[i / 2]);
		TAP_REQUIRE(folio);
		remap_by_hand(&w, folio);
		if (i % 2) {
			saboteur.relaxed = swap_and_leave;
			saboteur.relaxed_ctx = &r;
			mf_quiesce(w.map);
		} else {
			swap_and_leave(&r);
		}
		TAP_EQ(r.nr_calls > 0, true);
		TAP_OK(r.faulted);
		TAP_EQ(r.fault.kind, MF_SIM_FAULT_STRAY);
		world_abandon(&w);
	}
}

/* ---- M7: what fails leaves the world as it was ------------------------------------------------------------------- */

/* A diet that is left behind, or taken off, is seen. */
TAP_TEST(m7_a_diet_changes_the_digest)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		uint64_t digest;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, diet_layouts[i]));
		folio = diet_folio(&w, 9);
		TAP_REQUIRE(folio);
		digest = mf_map_digest(w.map);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_OK(mf_map_digest(w.map) != digest);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_EQ(mf_map_digest(w.map), digest);
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
