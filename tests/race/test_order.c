/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_order.c - interleavings forced one by one: nothing is unbacked under a reader section that began before, and
 * what may be called inside a section.  Also, in order_hosted.c: that the thread sanitizer would speak up.
 *
 * A reader opens a section, loads a count that is not 0, and stays until the other thread has been seen waiting for it,
 * or has gone on without.  On page tables going on shows in a flush of the record it has looked at.
 */
#include <pthread.h>
#include <sched.h>

#include <memfold/memfold.h>

#include "tests/lib/slow_machine.h"
#include "tests/tap.h"

enum { TOP = 18, TOP_FRAMES = 1 << TOP, WAITS = 3 };

struct order {
	struct slow_machine slow;
	struct mf_map *map;
	unsigned region;
	struct mf_folio *folio;  /* what the reader looks at */
	atomic_uint nr_relaxes;
	atomic_uint nr_discards; /* of the record of that */
	atomic_bool open;        /* the reader is in its section */
	bool counted, overtaken; /* it loaded a count; slots were unbacked while it was open */
};

static void count_relax(void *ctx)
{
	struct order *o = ctx;

	if (atomic_load(&o->open))
		atomic_fetch_add(&o->nr_relaxes, 1);
}

static void count_discard(void *ctx, uintptr_t addr, uint64_t size_bytes)
{
	struct order *o = ctx;

	if (atomic_load(&o->open) && (uintptr_t)o->folio - addr < size_bytes)
		atomic_fetch_add(&o->nr_discards, 1);
}

static bool order_create(struct order *o)
{
	struct mf_region_config region = { .end_pfn = TOP_FRAMES };
	struct mf_map_config config = { .machine = &o->slow.machine, .span = TOP_FRAMES };

	*o = (struct order){ 0 };
	if (slow_machine_create(&o->slow, SLOW_PINNED, TOP_FRAMES))
		return false;
	o->slow.on_relax = count_relax;
	o->slow.on_discard = count_discard;
	o->slow.on_flush = count_discard;
	o->slow.ctx = o;
	return mf_map_create(&config, &o->map) == 0 && mf_region_add(o->map, &region, &o->region) == 0;
}

static void order_destroy(struct order *o, bool with_region)
{
	struct mf_violation v = { 0 };

	if (with_region) {
		TAP_EQ(mf_fold(o->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_EQ(mf_map_check(o->map, &v), 0);
		TAP_EQ(mf_region_remove(o->map, o->region), 0);
	}
	TAP_EQ(mf_map_destroy(o->map), 0);
	slow_machine_destroy(&o->slow);
}

static void *reader(void *ctx)
{
	struct order *o = ctx;

	if (!slow_thread_register(&o->slow))
		return NULL;
	mf_reader_enter(o->map);
	o->counted = mf_folio_refcount(o->folio) == 1;
	atomic_store(&o->open, true);
	while (atomic_load(&o->nr_relaxes) < WAITS && atomic_load(&o->nr_discards) == 0)
		sched_yield();
	o->overtaken = atomic_load(&o->nr_discards) != 0;
	atomic_store(&o->open, false);
	mf_reader_exit(o->map);
	return NULL;
}

/* change() ends what the reader has seen, and must wait for the reader before it unbacks the record. */
static void check_waits(struct order *o, void (*change)(struct order *o))
{
	pthread_t thread;

	TAP_REQUIRE(pthread_create(&thread, NULL, reader, o) == 0);
	while (!atomic_load(&o->open))
		sched_yield();
	change(o);
	pthread_join(thread, NULL);
	TAP_OK(o->counted);
	TAP_OK(!o->overtaken);
}

static void put_and_fold(struct order *o)
{
	mf_folio_put(o->map, o->folio);
	TAP_EQ(mf_fold(o->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
}

TAP_TEST(order_fold_of_free_pieces_waits_for_readers)
{
	struct order o;

	TAP_REQUIRE(order_create(&o));
	TAP_REQUIRE(mf_folio_alloc(o.map, 0, 0, MF_ALLOC_WAIT, &o.folio) == 0);
	check_waits(&o, put_and_fold);
	order_destroy(&o, true);
}

/* A folio of tier 1 keeps its top block split, which folds in a set. */
TAP_TEST(order_fold_of_a_set_waits_for_readers)
{
	struct order o;

	TAP_REQUIRE(order_create(&o));
	TAP_REQUIRE(mf_folio_alloc(o.map, 0, 9, MF_ALLOC_WAIT, &o.folio) == 0);
	check_waits(&o, put_and_fold);
	order_destroy(&o, true);
}

static void merge(struct order *o)
{
	TAP_EQ(mf_folio_merge(o->map, mf_folio_pfn(o->map, o->folio), 9, &o->folio), 0);
}

TAP_TEST(order_merge_waits_for_readers)
{
	struct order o;

	TAP_REQUIRE(order_create(&o));
	TAP_REQUIRE(mf_folio_alloc(o.map, 0, 9, MF_ALLOC_WAIT, &o.folio) == 0);
	mf_pfn_t pfn = mf_folio_pfn(o.map, o.folio);
	TAP_EQ(mf_folio_split(o.map, o.folio, 0), 0);
	o.folio = mf_pfn_folio(o.map, pfn);
	check_waits(&o, merge);
	mf_folio_put(o.map, o.folio);
	order_destroy(&o, true);
}

static void put_and_remove(struct order *o)
{
	mf_folio_put(o->map, o->folio);
	TAP_EQ(mf_region_remove(o->map, o->region), 0);
}

/* R-MEM-48 */
TAP_TEST(order_region_remove_waits_for_readers)
{
	struct order o;

	TAP_REQUIRE(order_create(&o));
	TAP_REQUIRE(mf_folio_alloc(o.map, 0, TOP, MF_ALLOC_WAIT, &o.folio) == 0);
	check_waits(&o, put_and_remove);
	order_destroy(&o, false);
}

/* ---- Inside a section ----------------------------------------------------------------------------------------- */

TAP_TEST(section_allows_what_never_waits)
{
	struct order o;
	struct mf_folio *folio, *again;

	TAP_REQUIRE(order_create(&o));
	TAP_REQUIRE(mf_folio_alloc(o.map, 0, 0, MF_ALLOC_WAIT, &o.folio) == 0);
	mf_reader_enter(o.map);
	TAP_EQ(mf_folio_alloc(o.map, 0, 3, MF_ALLOC_NOWAIT, &folio), 0);
	again = mf_pfn_try_get(o.map, mf_folio_pfn(o.map, folio) + 5);
	TAP_OK(again == folio);
	mf_folio_put(o.map, folio);
	mf_folio_put(o.map, folio); /* the last reference, freed inside the section */
	TAP_OK(!mf_pfn_try_get(o.map, mf_folio_pfn(o.map, folio)));
	mf_reader_exit(o.map);
	mf_folio_put(o.map, o.folio);
	order_destroy(&o, true);
}

/* It would wait for itself. */
TAP_TEST(section_refuses_what_may_wait)
{
	struct order o;
	struct mf_folio *folio = NULL;

	TAP_REQUIRE(order_create(&o));
	mf_reader_enter(o.map);
	TAP_OK(TAP_PANICS(if (mf_folio_alloc(o.map, 0, 3, MF_ALLOC_WAIT, &folio)) folio = NULL));
	TAP_OK(tap_contains(tap_state.panic, "inside a reader section"));
	mf_reader_exit(o.map);
	order_destroy(&o, true);
}

TAP_MAIN()
