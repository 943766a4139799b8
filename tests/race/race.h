/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race.h - what the sources of test_race share: the map they race on, what the threads tell each other, what is
 * counted.
 *
 *      region A  [edge | 1 GiB | 1 GiB | edge)            always there, node 0
 *      region B                              (edge | 2 MiB ...)   comes and goes, node 0 or 1, shares A's last edge
 *
 * Where A has edges its map pool is there, and never folds.  In the race of the sets it has none:
 *
 *      region A  [1 GiB | 1 GiB | 1 GiB)                  always there, node 0: tables may move
 *      region B                          (edge | 2 MiB ...)       comes and goes, node 1
 *
 * In that of few there is the same A, and no B.  And in the race of the diets:
 *
 *      [ E | F |           A           |  B  ][ 5.14 | 5.18 | 7.1 )   always there, nodes 2, 3 and 4
 *        |   devdax, comes and goes
 *        any of the three, comes and goes, node 5, for two folios of two tables of map slots each
 *
 *   test_race.c     the race as a whole: its beginning, its end, its tallies; race_where.h: where it runs
 *   race_change.c   threads that change things
 *   race_diet.c     threads that put folios on a diet and take them off it
 *   race_look.c     threads that look
 */
#ifndef TESTS_RACE_RACE_H
#define TESTS_RACE_RACE_H

#include <memfold/memfold.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/lib/slow_machine.h"

enum {
	TOP = 18,
	A_START = (1 << TOP) - 3 * 512 - 17,
	A_END = (3 << TOP) + 2 * 512 + 100,
	B_END = A_END + 6 * 512 + 33,
	SPAN = 4 << TOP,
	NR_HINTS = 256,
	NR_SENTINELS = 8,
	NR_ARMED = 2,
	BIG_ORDER = 16,
	E_END = 2 << BIG_ORDER,
	F_END = E_END + (1 << BIG_ORDER),
	NR_DIETS = 3,
	DIET_FRAMES = 1 << BIG_ORDER,
	DIETS_START = SPAN - NR_DIETS * DIET_FRAMES,
	DIET_NODE = 2, /* of the first */
	BIG_NODE = DIET_NODE + NR_DIETS,
	DEVICE_NODE,
};

/* What is counted. */
enum tally {
	ALLOCS, NOWAITS, SPLITS, MERGES, FOLDED, GETS_BELOW, GETS_ABOVE, PINS, RELEASES, PASSES, REGIONS, ARMED,
	REMAPS, RESTORES, KEPT, LIVES, BIG, DEVICES, GETS_ALIASED, REFUSED, DRAINS, NR_TALLIES,
};

struct race {
	struct slow_machine slow;
	struct mf_map *map;
	struct mf_region_config a;
	bool with_diets, with_edges, with_few;
	uint64_t seed, nr_ops;             /* nr_ops: of an allocator; others by their price                */
	mf_pfn_t sentinel[NR_SENTINELS];   /* folios that stay                                             */
	_Atomic uint32_t owner[SPAN];      /* number of the worker, 0: nobody                              */
	_Atomic uint64_t hint[NR_HINTS];   /* pfns that were in use lately                                 */
	_Atomic uintptr_t armed[NR_ARMED]; /* the record whose count a section has seen, 0: none           */
	atomic_uint_least64_t tally[NR_TALLIES];
	atomic_uint nr_working;            /* threads that change things                                   */
	struct {
		uint64_t nr_operations, nr_folds;
	} total;                           /* of all races of the program; main thread                     */
};
extern struct race race;

struct worker {
	pthread_t thread;
	void (*run)(struct worker *w);
	unsigned number;
	bool changes;   /* the readers go on until all of these are done */
	uint64_t random;
};

static inline uint64_t pick(struct worker *w, uint64_t below)
{
	return slow_random(&w->random) % below;
}

static inline bool one_in(struct worker *w, uint64_t n)
{
	return pick(w, n) == 0;
}

static inline void count(enum tally what)
{
	atomic_fetch_add_explicit(&race.tally[what], 1, memory_order_relaxed);
}

/* Every frame changes hands from `from` to `to`, and from nobody else. */
void race_mark(mf_pfn_t pfn, unsigned order, uint32_t from, uint32_t to);
/* Lookers will look there. */
void race_hint(struct worker *w, mf_pfn_t pfn);
/* A folio of this worker's, with an owner; NULL when there is none.  And its end. */
struct mf_folio *race_obtain(struct worker *w, int node, unsigned order, unsigned flags);
void race_give_up(struct worker *w, struct mf_folio *folio);
/* NULL: somebody else holds a piece of it again and again; all of them are given up. */
struct mf_folio *race_merge(struct worker *w, mf_pfn_t pfn, unsigned order, unsigned piece);

/* What threads run.  Those who change things end after their share of race.nr_ops, the others after all of them. */
void race_allocator(struct worker *w);
void race_splitter(struct worker *w);
void race_folder(struct worker *w);
void race_regions(struct worker *w);
void race_taker(struct worker *w);
void race_drainer(struct worker *w);
void race_dieter(struct worker *w);
void race_big(struct worker *w);
void race_devices(struct worker *w);
void race_switch(struct worker *w);
void race_look(struct worker *w);
void race_arm(struct worker *w);
void race_iterator(struct worker *w);

/* For slow_machine.on_discard and on_alias: nothing is unbacked, or read-only, under a section that has seen a count. */
void race_check_not_armed(void *ctx, uintptr_t addr, uint64_t size_bytes);

#endif
