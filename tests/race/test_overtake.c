/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_overtake.c - two threads, one narrow window each: an iterator that merges overtake, and a region that is removed
 * while the last of its frames comes back.
 */
#include <pthread.h>
#include <sched.h>

#include <memfold/memfold.h>

#include "tests/lib/slow_machine.h"
#include "tests/tap.h"

enum { FRAMES = 8 * 512, ROUNDS = 600 };

static struct slow_machine slow;
static struct mf_map *map;
static const struct mf_region_config region = { .end_pfn = FRAMES };
static atomic_bool done;

static bool map_create(void)
{
	struct mf_map_config config = { .machine = &slow.machine, .span = FRAMES };

	atomic_store(&done, false);
	return slow_machine_create(&slow, SLOW_THREADS, 0) == 0 && mf_map_create(&config, &map) == 0;
}

static void map_destroy(void)
{
	TAP_EQ(mf_map_destroy(map), 0);
	slow_machine_destroy(&slow);
}

/* ---- The iterator ----------------------------------------------------------------------------------------------- */

static void *split_and_merge(void *ctx)
{
	struct mf_folio *folio = ctx;
	mf_pfn_t pfn = mf_folio_pfn(map, folio);

	TAP_OK(slow_thread_register(&slow));
	for (unsigned i = 0; i < ROUNDS; i++) {
		TAP_EQ(mf_folio_split(map, folio, 2), 0);
		sched_yield();
		TAP_EQ(mf_folio_merge(map, pfn, 8, &folio), 0);
	}
	atomic_store(&done, true);
	return NULL;
}

static bool iterator_finds(const struct mf_folio *wanted)
{
	mf_pfn_t pfn = 0;
	struct mf_folio *folio;
	bool found = false;

	while ((folio = mf_folio_next(map, pfn, FRAMES, &pfn)) != NULL)
		found |= folio == wanted;
	return found;
}

TAP_TEST(iterator_finds_what_stays)
{
	struct mf_folio *folio, *stays, *before;
	unsigned id, passes = 0, missed = 0;
	pthread_t thread;

	TAP_REQUIRE(map_create() && mf_region_add(map, &region, &id) == 0);
	TAP_REQUIRE(mf_folio_alloc(map, 0, 8, MF_ALLOC_WAIT, &folio) == 0);
	TAP_REQUIRE(mf_folio_alloc(map, 0, 9, MF_ALLOC_WAIT, &before) == 0);
	TAP_REQUIRE(mf_folio_alloc(map, 0, 9, MF_ALLOC_WAIT, &stays) == 0);
	if (mf_folio_pfn(map, stays) < mf_folio_pfn(map, before)) {
		mf_folio_put(map, stays);
		stays = before;
	} else {
		mf_folio_put(map, before);
	}
	TAP_REQUIRE(mf_folio_pfn(map, stays) > mf_folio_pfn(map, folio));
	TAP_REQUIRE(pthread_create(&thread, NULL, split_and_merge, folio) == 0);
	while (!atomic_load(&done)) {
		missed += !iterator_finds(stays);
		passes++;
	}
	pthread_join(thread, NULL);
	TAP_EQ(missed, 0);
	TAP_NOTE("%u passes", passes);
	TAP_OK(passes > 0);
	mf_folio_put(map, mf_pfn_folio(map, mf_folio_pfn(map, folio)));
	mf_folio_put(map, stays);
	TAP_EQ(mf_region_remove(map, id), 0);
	map_destroy();
}

/* ---- The region -------------------------------------------------------------------------------------------------- */

static void *take_and_give(void *ctx)
{
	atomic_uint *taken = ctx;

	TAP_OK(slow_thread_register(&slow));
	while (!atomic_load(&done)) {
		struct mf_folio *folio;

		if (mf_folio_alloc(map, 0, 3, MF_ALLOC_WAIT, &folio)) {
			sched_yield();
			continue;
		}
		atomic_fetch_add(taken, 1);
		for (int i = 0; i < 4; i++)
			sched_yield();
		mf_folio_put(map, folio);
		for (int i = 0; i < 4; i++)
			sched_yield();
	}
	return NULL;
}

static unsigned nr_described_from_below(void)
{
	unsigned nr = 0;

	for (mf_pfn_t pfn = 0; pfn < FRAMES; pfn++)
		nr += mf_page_word(mf_pfn_to_page(map, pfn)) != 0;
	return nr;
}

TAP_TEST(region_remove_leaves_nothing)
{
	unsigned id, left = 0, busy = 0;
	atomic_uint taken = 0;
	pthread_t thread;
	int err;

	TAP_REQUIRE(map_create());
	TAP_REQUIRE(pthread_create(&thread, NULL, take_and_give, &taken) == 0);
	/* Until the two have met often enough; how many rounds that takes is the scheduler's business. */
	for (unsigned i = 0; i < ROUNDS || ((atomic_load(&taken) < 10 || busy < 1) && i < 200 * ROUNDS); i++) {
		err = mf_region_add(map, &region, &id);
		TAP_EQ(err, 0);
		sched_yield();
		while (!err && (err = mf_region_remove(map, id)) == -MF_EBUSY) {
			busy++;
			err = 0;
			sched_yield();
		}
		TAP_EQ(err, 0);
		left += nr_described_from_below();
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	TAP_EQ(left, 0);
	TAP_NOTE("%u folios were taken, %u removals found the region busy", atomic_load(&taken), busy);
	TAP_OK(atomic_load(&taken) >= 10 && busy >= 1);
	map_destroy();
}

TAP_MAIN()
