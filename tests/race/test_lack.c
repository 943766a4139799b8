/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_lack.c - threads that allocate at the same time where nothing is to be had, since memory for the map of what was
 * freed is lacking: each is refused after a few attempts, however many others attempt the same.
 *
 * An attempt counts as a transition, which others wait for before they give up.  Here it takes its time: until another
 * thread has met it.  Threads that attempted again and again would never all be refused; so that such a program ends,
 * and fails, there is memory after ENOUGH attempts of one call.  Attempts are counted, not timed.
 */
#include <pthread.h>
#include <sched.h>

#include <memfold/diet.h>
#include <memfold/memfold.h>

#include "tests/lib/slow_machine.h"
#include "tests/tap.h"

enum { UNIT_ORDER = 9, UNIT = 1 << UNIT_ORDER, SPAN = 1 << 18, NR_THREADS = 4, ROUNDS = 100, ENOUGH = 1000 };

static struct slow_machine slow;
static struct mf_map *map;
static unsigned region, order;
static int (*ram_get)(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn);
static atomic_bool is_lacking;
static atomic_uint nr_asking, nr_attempting, nr_relaxes, nr_refused, nr_attempts, most_attempts;
static pthread_barrier_t barrier;
static unsigned attempts[1 + NR_THREADS]; /* of each thread's call */

static void count_relax(void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&nr_relaxes, 1);
}

/* The first frame that an attempt asks for is the last: there is none. */
static int get_nothing(struct mf_machine *m, unsigned node, unsigned frames_order, mf_pfn_t *pfn)
{
	unsigned relaxes = atomic_load(&nr_relaxes), *mine = &attempts[slow_thread_number()];

	if (!atomic_load(&is_lacking))
		return ram_get(m, node, frames_order, pfn);
	if (++*mine == ENOUGH)
		atomic_store(&is_lacking, false);
	atomic_fetch_add(&nr_attempts, 1);
	atomic_fetch_add(&nr_attempting, 1);
	while (atomic_load(&nr_asking) > atomic_load(&nr_attempting) && atomic_load(&nr_relaxes) == relaxes)
		sched_yield();
	atomic_fetch_sub(&nr_attempting, 1);
	return -MF_ENOMEM;
}

static void *ask(void *unused)
{
	unsigned *mine;

	(void)unused;
	TAP_OK(slow_thread_register(&slow));
	mine = &attempts[slow_thread_number()];
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct mf_folio *folio;

		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			atomic_store(&nr_asking, NR_THREADS);
		pthread_barrier_wait(&barrier);
		*mine = 0;
		if (mf_folio_alloc(map, 0, order, MF_ALLOC_WAIT, &folio) == -MF_ENOMEM)
			atomic_fetch_add(&nr_refused, 1);
		else
			mf_folio_put(map, folio);
		atomic_fetch_sub(&nr_asking, 1);
		for (unsigned most = atomic_load(&most_attempts); most < *mine;)
			atomic_compare_exchange_weak(&most_attempts, &most, *mine);
	}
	return NULL;
}

/* All threads at once, again and again. */
static void ask_for(unsigned wanted)
{
	pthread_t thread[NR_THREADS];

	order = wanted;
	atomic_store(&slow.nr_threads, 0);
	atomic_store(&nr_refused, 0);
	atomic_store(&nr_attempts, 0);
	atomic_store(&most_attempts, 0);
	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	for (unsigned i = 0; i < NR_THREADS; i++)
		TAP_REQUIRE(pthread_create(&thread[i], NULL, ask, NULL) == 0);
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&barrier);
	TAP_NOTE("order %u: %u attempts for %u calls, at most %u for one", order, atomic_load(&nr_attempts),
		 NR_THREADS * ROUNDS, atomic_load(&most_attempts));
	TAP_EQ(atomic_load(&nr_refused), NR_THREADS * ROUNDS);
	TAP_OK(atomic_load(&nr_attempts) >= ROUNDS);
	/* Nothing is gained in between, so one more than the first would be in vain. */
	TAP_EQ(atomic_load(&most_attempts), 1);
}

/* ---- What is freed, and cannot be had --------------------------------------------------------------------------- */

/* A region of so many folios, all of them on their diet and freed, and from now on no RAM. */
static bool open_kept(enum mf_layout layout, unsigned nr_units, unsigned flags)
{
	const struct mf_region_config config = {
		.end_pfn = nr_units * UNIT, .layout = layout, .source = MF_SOURCE_RAM, .flags = flags
	};
	struct mf_map_config map_config = { .machine = &slow.machine, .span = SPAN };
	struct mf_folio *folio[NR_THREADS];
	struct mf_map_stats stats;

	if (slow_machine_create(&slow, SLOW_TABLES, SPAN) != 0)
		return false;
	slow.on_relax = count_relax;
	ram_get = slow.ops.ram_get;
	slow.ops.ram_get = get_nothing;
	atomic_store(&is_lacking, false);
	if (mf_map_create(&map_config, &map) != 0 || mf_region_add(map, &config, &region) != 0)
		return false;
	for (unsigned i = 0; i < nr_units; i++)
		if (mf_folio_alloc(map, 0, UNIT_ORDER, MF_ALLOC_WAIT, &folio[i]) != 0 ||
		    !mf_folio_freeze(folio[i], 1) || mf_diet_remap(map, folio[i]) != 0)
			return false;
	for (unsigned i = 0; i < nr_units; i++)
		mf_folio_free_frozen(map, folio[i]);
	mf_map_stats(map, &stats);
	atomic_store(&is_lacking, true);
	return stats.nr_kept == nr_units && stats.nr_free == 0;
}

/* With memory again the first that asks has it. */
static void close_kept(void)
{
	struct mf_violation violation;
	struct mf_folio *folio;

	atomic_store(&is_lacking, false);
	TAP_REQUIRE(mf_folio_alloc(map, 0, UNIT_ORDER, MF_ALLOC_WAIT, &folio) == 0);
	mf_folio_put(map, folio);
	TAP_EQ(mf_map_check(map, &violation), 0);
	TAP_EQ(mf_region_remove(map, region), 0);
	TAP_EQ(mf_map_destroy(map), 0);
	slow_machine_destroy(&slow);
}

/* Folios that stay kept.  R-HVO-48, R-HVO-52 */
TAP_TEST(lack_of_memory_to_restore_refuses_all_threads)
{
	static const enum mf_layout layouts[] = { MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18, MF_LAYOUT_HVO_7_1 };
	static const unsigned orders[] = { UNIT_ORDER, 3, 0 };

	for (unsigned i = 0; i < 3; i++) {
		TAP_REQUIRE(open_kept(layouts[i], NR_THREADS, 0));
		ask_for(orders[i]);
		close_kept();
	}
}

/* A block that hosts its own map, and is asked for as a whole: it cannot settle. */
TAP_TEST(lack_of_memory_to_settle_refuses_all_threads)
{
	struct mf_folio *piece;

	TAP_REQUIRE(open_kept(MF_LAYOUT_HVO_7_1, 1, MF_REGION_RESTORE_FROM_SELF));
	TAP_REQUIRE(mf_folio_alloc(map, 0, 3, MF_ALLOC_WAIT, &piece) == 0);
	mf_folio_put(map, piece);
	ask_for(UNIT_ORDER);
	close_kept();
}

TAP_MAIN()
