/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_overtake.c - two threads, one narrow window each: an iterator that merges overtake; a region that is removed
 * while the last of its frames comes back, also when that was on a diet; compounds that are taken while they come.
 */
#include <pthread.h>
#include <sched.h>

#include <memfold/diet.h>
#include <memfold/memfold.h>

#include "tests/lib/slow_machine.h"
#include "tests/tap.h"

enum { FRAMES = 8 * 512, SPAN = 64 * 512, ROUNDS = 200, HELD_LONG = 2000 };

static struct slow_machine slow;
static struct mf_map *map;
static const struct mf_region_config region = { .end_pfn = FRAMES };
static atomic_bool done;

static bool map_create(void)
{
	struct mf_map_config config = { .machine = &slow.machine, .span = SPAN };

	atomic_store(&done, false);
	return slow_machine_create(&slow, SLOW_THREADS, SPAN) == 0 && mf_map_create(&config, &map) == 0;
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
		sched_yield();
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
		/* Now and then for longer than a removal tries. */
		for (int i = atomic_fetch_add(taken, 1) % 16 == 15 ? HELD_LONG : 4; i > 0; i--)
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

/* ---- The region whose folios are on a diet ------------------------------------------------------------------------ */

static void *remap_and_give(void *ctx)
{
	atomic_uint *taken = ctx;

	TAP_OK(slow_thread_register(&slow));
	while (!atomic_load(&done)) {
		struct mf_folio *folio;

		if (mf_folio_alloc(map, 0, 9, MF_ALLOC_WAIT, &folio)) {
			sched_yield();
			continue;
		}
		TAP_OK(mf_folio_freeze(folio, 1));
		TAP_EQ(mf_diet_remap(map, folio), 0);
		mf_folio_unfreeze(folio, 1);
		atomic_fetch_add(taken, 1);
		mf_folio_put(map, folio);
	}
	return NULL;
}

/* Memory is not lacking here: what was freed and not yet restored is no reason to say so. */
TAP_TEST(region_remove_blames_memory_only_where_it_lacks)
{
	const struct mf_region_config dieted = {
		.end_pfn = FRAMES, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_RAM
	};
	unsigned id, busy = 0, blamed = 0;
	atomic_uint taken = 0;
	pthread_t thread;
	int err;

	TAP_REQUIRE(map_create());
	TAP_REQUIRE(mf_region_add(map, &dieted, &id) == 0);
	TAP_REQUIRE(pthread_create(&thread, NULL, remap_and_give, &taken) == 0);
	while (atomic_load(&taken) < 5000) {
		err = mf_region_remove(map, id);
		busy += err == -MF_EBUSY;
		blamed += err == -MF_ENOMEM;
		TAP_OK(err == 0 || err == -MF_EBUSY || err == -MF_ENOMEM);
		if (!err)
			TAP_EQ(mf_region_add(map, &dieted, &id), 0);
		sched_yield();
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	TAP_EQ(mf_region_remove(map, id), 0);
	TAP_EQ(blamed, 0);
	TAP_NOTE("%u folios were on a diet, %u removals found the region busy", atomic_load(&taken), busy);
	TAP_OK(busy > 0);
	map_destroy();
}

/* ---- Compounds --------------------------------------------------------------------------------------------------- */

static void *add_and_remove(void *unused)
{
	const struct mf_region_config devices = {
		.end_pfn = SPAN, .layout = MF_LAYOUT_DEVDAX, .unit_order = 3,
		.source = slow.kind == SLOW_TABLES ? MF_SOURCE_RAM : MF_SOURCE_HOST,
	};
	unsigned id;

	(void)unused;
	TAP_OK(slow_thread_register(&slow));
	while (!atomic_load(&done)) {
		int err = mf_region_add(map, &devices, &id);

		TAP_EQ(err, 0);
		sched_yield();
		while (!err && (err = mf_region_remove(map, id)) == -MF_EBUSY) {
			err = 0;
			sched_yield();
		}
		TAP_EQ(err, 0);
	}
	return NULL;
}

/* A reference is taken to what both lookups find, or not at all.  R-DAX-31 */
TAP_TEST(compound_that_is_taken_is_found_from_above)
{
	unsigned taken = 0, lost = 0;
	struct mf_page *page;
	pthread_t thread;

	TAP_REQUIRE(map_create());
	page = mf_pfn_to_page(map, 0);
	TAP_REQUIRE(pthread_create(&thread, NULL, add_and_remove, NULL) == 0);
	for (uint64_t i = 0; taken < 2000 && i < (uint64_t)1 << 32; i++) {
		struct mf_folio *folio = mf_folio_try_get(map, page);

		if (!folio) {
			sched_yield();
			continue;
		}
		taken++;
		lost += mf_pfn_folio(map, 0) != folio || !mf_pfn_is_valid(map, 0);
		mf_folio_put(map, folio);
		if (taken % 8 == 0)
			sched_yield();
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	TAP_EQ(taken, 2000);
	TAP_EQ(lost, 0);
	map_destroy();
}

TAP_MAIN()
