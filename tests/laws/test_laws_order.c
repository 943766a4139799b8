/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_laws_order.c - laws broken by a step left out, or done in the wrong order; each is caught, and by what.
 *
 * The steps are those of the core and of the machine below it; a saboteur stands between them (tests/lib/saboteur.h),
 * or the steps of an unfold or fold are taken here by hand, one missing.  docs/INVARIANTS.md lists which test breaks
 * what.
 */
#include "tests/lib/saboteur.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>
#include <string.h>

#include "core/frames/zone.h"

#define G WORLD_GIB_FRAMES

static bool open_spoilt(struct world *w, struct saboteur *s, enum mf_source source)
{
	struct world_config config = {
		.nr_frames = 2 * G,
		.wrap = saboteur_wrap,
		.wrap_ctx = s,
		.will_break = true,
	};
	struct mf_region_config region = { .end_pfn = 2 * G, .source = source };

	*s = (struct saboteur){ .nr_cpus = 2 };
	return world_open(w, &config) && world_add_region(w, &region, NULL) == 0;
}

static void use_and_fold(struct world *w)
{
	struct mf_folio *folio = world_alloc(w, 0);
	mf_pfn_t pfn;

	MF_PANIC_IF(!folio, "the test's machine has too little memory");
	pfn = mf_folio_pfn(w->map, folio);
	mf_folio_put(w->map, folio);
	(void)mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
	/* Readers from below touch what was unlinked. */
	(void)mf_page_folio(w->map, mf_pfn_to_page(w->map, pfn));
}

static bool sentence_says(const char *part)
{
	if (strstr(tap_state.panic, part))
		return true;
	TAP_NOTE("the sentence was: %s", tap_state.panic);
	return false;
}

/* The same operations with nothing left out: nobody complains. */
TAP_TEST(nothing_is_caught_where_nothing_is_broken)
{
	enum mf_source sources[] = { MF_SOURCE_SELF, MF_SOURCE_RAM };

	for (unsigned i = 0; i < 2; i++) {
		struct saboteur s;
		struct world w;

		TAP_REQUIRE(open_spoilt(&w, &s, sources[i]));
		use_and_fold(&w);
		TAP_EQ(mf_sim_stale(w.sim), 0);
		TAP_OK(s.nr_flushes > 0);
		TAP_OK(world_close(&w));
	}
}

/* ---- M5: change, flush, reuse ----------------------------------------------------------------------------------- */

/* A reader from below had asked before; no flush tells its processor that there are records now. */
TAP_TEST(m5_unfold_without_flush_is_stale)
{
	struct saboteur s;
	struct world w;

	TAP_REQUIRE(open_spoilt(&w, &s, MF_SOURCE_SELF));
	for (mf_pfn_t pfn = 0; pfn < 2 * G; pfn += 512)
		(void)mf_page_folio(w.map, mf_pfn_to_page(w.map, pfn));
	TAP_EQ(mf_sim_stale(w.sim), 0);
	s.what = SABOTAGE_FLUSH;
	TAP_OK(TAP_PANICS((void)world_alloc(&w, 9)));
	TAP_OK(sentence_says("the TLB still holds it read-only: a flush is missing"));
	TAP_OK(mf_sim_stale(w.sim) > 0);
	world_abandon(&w);
}

TAP_TEST(m5_fold_without_flush_is_stale)
{
	struct mf_folio *folio;
	struct saboteur s;
	struct world w;

	TAP_REQUIRE(open_spoilt(&w, &s, MF_SOURCE_SELF));
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	mf_folio_put(w.map, folio);
	s.what = SABOTAGE_FLUSH;
	(void)mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
	TAP_OK(mf_sim_stale(w.sim) > 0);
	world_abandon(&w);
}

/* R-GEN-6 */
TAP_TEST(m5_reuse_without_flush_is_caught)
{
	static const enum sabotage ways[] = { SABOTAGE_FLUSH, SABOTAGE_FLUSH_LATE };

	for (unsigned i = 0; i < 2; i++) {
		struct mf_folio *folio;
		struct saboteur s;
		struct world w;

		TAP_REQUIRE(open_spoilt(&w, &s, MF_SOURCE_RAM));
		folio = world_alloc(&w, 0);
		TAP_REQUIRE(folio);
		mf_folio_put(w.map, folio);
		s.what = ways[i];
		TAP_OK(TAP_PANICS((void)mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL)));
		TAP_OK(sentence_says("a flush is missing"));
		world_abandon(&w);
	}
}

/* The leaves are flushed, but a processor may still walk through the table that was freed.  R-MEM-45 */
TAP_TEST(m5_table_freed_behind_a_flush_of_leaves_is_caught)
{
	struct mf_folio *folio;
	struct saboteur s;
	struct world w;

	TAP_REQUIRE(open_spoilt(&w, &s, MF_SOURCE_RAM));
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	mf_folio_put(w.map, folio);
	s.what = SABOTAGE_FLUSH_SCOPE;
	TAP_OK(TAP_PANICS({
		(void)mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
		TAP_EQ(mf_region_remove(w.map, 0), 0);
	}));
	TAP_OK(sentence_says("a flush is missing"));
	world_abandon(&w);
}

/* ---- M6: what is shared is read-only ---------------------------------------------------------------------------- */

static void write_count(void *arg)
{
	struct mf_page *page = arg;
	uint64_t expected = 1;

	(void)__atomic_compare_exchange_n(&page->counts, &expected, 2, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/*
 * Quiesce left out, from the reader's side: it loaded a count of 1, opened no section, and swaps after the block has
 * been folded.  The slot is the shared zero frame by then.
 */
TAP_TEST(m6_reader_without_a_section_writes_to_a_read_only_slot)
{
	struct mf_sim_fault fault = { 0 };
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(world_add(&w, 0, 2 * G), 0);
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	TAP_EQ(mf_sim_catch_fault(w.sim, write_count, &folio->page, NULL), 0);
	mf_folio_put(w.map, folio);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_EQ(mf_sim_catch_fault(w.sim, write_count, &folio->page, &fault), 1);
	TAP_EQ(fault.kind, MF_SIM_FAULT_STRAY);
	TAP_EQ(fault.pfn, w.map->pgtable.zero);
	w.stray_writes = 1;
	TAP_OK(world_close(&w));
}

static void write_frame(void *arg)
{
	*(volatile uint64_t *)arg = 0x41;
}

TAP_TEST(m6_write_to_a_shared_table_or_the_zero_frame_faults)
{
	struct mf_sim_fault fault = { 0 };
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add(&w, 0, G), 0);
	for (unsigned level = 0; level < 4; level++) {
		mf_pfn_t pfn = level < 3 ? w.map->pgtable.shared[level] : w.map->pgtable.zero;

		TAP_EQ(mf_sim_catch_fault(w.sim, write_frame, mf_machine_frame(w.sim, pfn), &fault), 1);
		TAP_EQ(fault.kind, MF_SIM_FAULT_DIRECT);
		TAP_EQ(fault.pfn, pfn);
	}
	w.stray_writes = 4;
	TAP_OK(world_close(&w));
}

TAP_TEST(m6_unprotected_shared_frame_is_found_when_written)
{
	for (unsigned level = 0; level < 4; level++) {
		struct saboteur s = { .what = SABOTAGE_PROTECT };
		struct world w;
		mf_pfn_t pfn;
		struct world_config config = {
			.nr_frames = G,
			.wrap = saboteur_wrap,
			.wrap_ctx = &s,
			.will_break = true,
		};

		TAP_REQUIRE(world_open(&w, &config));
		TAP_EQ(world_add(&w, 0, G), 0);
		pfn = level < 3 ? w.map->pgtable.shared[level] : w.map->pgtable.zero;
		TAP_EQ(mf_sim_catch_fault(w.sim, write_frame, (char *)mf_machine_frame(w.sim, pfn) + 2048, NULL), 0);
		TAP_OK(strcmp(world_broken_law(&w), "M6") == 0);
		world_abandon(&w);
	}
}

/* ---- M1, M2, M3: a step of unfold or fold left out -------------------------------------------------------------- */

/* "Split" is published before the slots are linked.  R-MEM-48 */
TAP_TEST(m2_published_before_linked_is_found)
{
	struct mf_folio *folio;
	struct mf_page *block;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .will_break = true }));
	TAP_EQ(world_add(&w, 0, 2 * G), 0);
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	TAP_OK(mf_folio_freeze(folio, 1));
	block = &folio->page;
	unfold_publish(w.map, block, 0, 0, 512, 0, 0);
	TAP_OK(strcmp(world_broken_law(&w), "M2") == 0);
	world_abandon(&w);
}

static bool open_divided(struct world *w, struct mf_folio **folio)
{
	if (!world_open(w, &(struct world_config){ .nr_frames = 2 * G, .will_break = true }) ||
	    world_add(w, 0, 2 * G) != 0)
		return false;
	*folio = world_alloc(w, 9);
	return *folio && mf_folio_split(w->map, *folio, 0) == 0 && world_check(w);
}

/* The parent says whole; the slots of its pieces were never unlinked. */
TAP_TEST(m3_fold_that_unlinks_nothing_is_found)
{
	struct mf_folio *folio;
	struct mf_page *block;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_divided(&w, &folio));
	pfn = mf_page_to_pfn(w.map, &folio->page);
	for (mf_pfn_t at = pfn - pfn % 512; at < pfn - pfn % 512 + 512; at++)
		TAP_OK(mf_folio_freeze(mf_pfn_folio(w.map, at), 1));
	block = mf_geometry_descriptor(mf_map_geometry(w.map), 1, pfn);
	fold_publish_whole(w.map, block,
			   map_word_as(mf_page_word(block), MF_KIND_USED) | map_word_order(9));
	mf_folio_unfreeze((struct mf_folio *)block, 1);
	TAP_OK(strcmp(world_broken_law(&w), "M3") == 0);
	world_abandon(&w);
}

/* The block that folds still has a holder below: the piece goes on the lists before its count is 0. */
TAP_TEST(m1_freed_before_the_last_holder_is_found)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_divided(&w, &folio));
	folio = mf_pfn_folio(w.map, mf_page_to_pfn(w.map, &folio->page));
	TAP_OK(TAP_PANICS(mf_folio_free_frozen(w.map, folio)));
	TAP_OK(sentence_says("both must be 0"));
	map_set_word(&folio->page, map_word_as(mf_page_word(&folio->page), MF_KIND_FREE) | MF_FLAG_CACHED);
	TAP_OK(strcmp(world_broken_law(&w), "M1") == 0);
	world_abandon(&w);
}

/* What a reader on another CPU sees while a folder waits for it: parent and children with count 0, the slots there. */
struct onlooker {
	struct world *w;
	struct saboteur *machine;
	struct mf_page *child;
	unsigned nr_calls;
	bool child_is_there, parent_is_whole, none_taken;
};

static void look_and_leave(void *ctx)
{
	struct onlooker *o = ctx;
	const struct mf_folio *above;

	if (o->nr_calls++)
		return;
	o->machine->cpu = 1;
	above = mf_pfn_folio(o->w->map, mf_page_to_pfn(o->w->map, o->child));
	o->child_is_there = mf_page_word(o->child) != 0;
	o->parent_is_whole = mf_word_tier(mf_page_word(&above->page)) > 0;
	o->none_taken = o->child->counts == 0 && above->page.counts == 0 &&
			!mf_pfn_try_get(o->w->map, mf_page_to_pfn(o->w->map, o->child));
	mf_reader_exit(o->w->map);
	o->machine->cpu = 0;
}

TAP_TEST(m1_nobody_takes_a_reference_while_a_folder_waits)
{
	struct onlooker o = { 0 };
	struct mf_folio *folio;
	struct saboteur s;
	struct world w;

	TAP_REQUIRE(open_spoilt(&w, &s, MF_SOURCE_SELF));
	folio = world_alloc(&w, 3);
	TAP_REQUIRE(folio);
	o.w = &w;
	o.child = &folio->page;
	mf_folio_put(w.map, folio);
	s.relaxed = look_and_leave;
	s.relaxed_ctx = &o;
	o.machine = &s;
	s.cpu = 1;
	mf_reader_enter(w.map);
	s.cpu = 0;
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(o.nr_calls > 0);
	TAP_OK(o.child_is_there && o.parent_is_whole && o.none_taken);
	TAP_EQ(mf_page_word(o.child), 0);
	TAP_OK(world_close(&w));
}

/* ---- M4: unfolding a free block cannot fail --------------------------------------------------------------------- */

/* All memory held as top blocks, no RAM, one becomes free: can a base page be had? */
static bool unfolds_without_a_frame(enum mf_source source)
{
	struct mf_folio *top[2] = { NULL }, *small;
	struct saboteur s;
	struct world w;
	bool could;

	if (!open_spoilt(&w, &s, source) || !(top[0] = world_alloc(&w, 18)) || !(top[1] = world_alloc(&w, 18))) {
		TAP_OK(false);
		return false;
	}
	s.what = SABOTAGE_RAM;
	mf_folio_put(w.map, top[0]);
	small = world_alloc(&w, 0);
	could = small != NULL;
	TAP_OK(world_check(&w));
	if (small)
		mf_folio_put(w.map, small);
	mf_folio_put(w.map, top[1]);
	s.what = SABOTAGE_NOTHING;
	TAP_OK(world_close(&w));
	return could;
}

TAP_TEST(m4_holds_for_source_self_and_not_for_ram)
{
	TAP_OK(unfolds_without_a_frame(MF_SOURCE_SELF));
	TAP_OK(!unfolds_without_a_frame(MF_SOURCE_RAM));
}

/* A frame claimed for the map and forgotten: no user is left, and yet not everything folds. */
TAP_TEST(m4_forgotten_map_frame_is_found)
{
	struct mf_bag bag = { 0 };
	struct mf_map_stats stats;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .will_break = true }));
	TAP_EQ(world_add(&w, 0, 2 * G), 0);
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	pool_claim(w.map->zone[0], &bag, 1, POOL_AS_IT_IS);
	TAP_EQ(bag.nr, 1);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	mf_map_stats(w.map, &stats);
	TAP_OK(stats.nr_split[2] > 0);
	TAP_OK(strcmp(world_broken_law(&w), "M1") == 0);
	pool_empty(w.map, 0, &bag);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	mf_map_stats(w.map, &stats);
	TAP_EQ(stats.nr_split[2], 0);
	TAP_OK(world_close(&w));
}

/* RAM that does not come back, and nothing else amiss. */
TAP_TEST(m4_leaked_ram_is_found)
{
	struct mf_map_stats stats;
	struct saboteur s;
	struct world w;
	uint64_t first;

	TAP_REQUIRE(open_spoilt(&w, &s, MF_SOURCE_RAM));
	first = mf_sim_ram_used(w.sim);
	s.what = SABOTAGE_RAM_LEAK;
	use_and_fold(&w);
	mf_map_stats(w.map, &stats);
	TAP_EQ(stats.nr_ram, first);
	TAP_OK(mf_sim_ram_used(w.sim) > first);
	world_abandon(&w);
}

/* ---- M7: an operation that fails leaves the world as it was ----------------------------------------------------- */

/* What a failing operation could leave behind, each seen by the digest. */
TAP_TEST(m7_every_trace_changes_the_digest)
{
	static const struct mf_owner owner = { "somebody", NULL };
	struct mf_folio *folio, *other;
	struct world w;
	uint64_t digest;
	unsigned id = 0;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, 2 * G), 0);
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	digest = mf_map_digest(w.map);

	TAP_OK(mf_folio_freeze(folio, 1)); /* frozen and not thawed */
	TAP_OK(mf_map_digest(w.map) != digest);
	mf_folio_unfreeze(folio, 1);
	TAP_EQ(mf_map_digest(w.map), digest);
	TAP_EQ(mf_folio_pin(folio), 0);    /* a pin kept for a reference */
	TAP_OK(mf_map_digest(w.map) != digest);
	mf_folio_unpin(w.map, folio);
	mf_folio_set_owner(folio, &owner); /* the wrong owner */
	TAP_OK(mf_map_digest(w.map) != digest);
	mf_folio_set_owner(folio, NULL);
	TAP_EQ(mf_folio_map_frames(folio, 1), 0);
	TAP_OK(mf_map_digest(w.map) != digest);
	mf_folio_unmap_frames(folio, 1);
	other = world_alloc(&w, 0);        /* a frame taken and not given back */
	TAP_REQUIRE(other);
	TAP_OK(mf_map_digest(w.map) != digest);
	mf_folio_put(w.map, other);
	TAP_EQ(mf_folio_split(w.map, folio, 0), 0); /* split, and not merged again */
	TAP_OK(mf_map_digest(w.map) != digest);
	TAP_EQ(mf_folio_merge(w.map, mf_page_to_pfn(w.map, &folio->page), 9, &folio), 0);
	TAP_EQ(mf_map_digest(w.map), digest);
	TAP_EQ(world_add_region(&w, &(struct mf_region_config){ .start_pfn = 3 * G, .end_pfn = 3 * G + 1 }, &id), 0);
	TAP_OK(mf_map_digest(w.map) != digest);
	TAP_EQ(mf_region_remove(w.map, id), 0);
	TAP_EQ(mf_map_digest(w.map), digest);
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
