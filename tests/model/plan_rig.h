/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_rig.h - what the tests of plan against engine share: random ranges on every sim, lists of folios, and the one
 * comparison of figures.
 *
 * MF_SEED=n replays one run of ranges; MF_SOAK makes it 20 times as long, with ranges of its own.
 */
#ifndef TESTS_MODEL_PLAN_RIG_H
#define TESTS_MODEL_PLAN_RIG_H

#include "tests/lib/world.h"
#include "tests/tap.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Chance ------------------------------------------------------------------------------------------------------ */

static uint64_t random_state;

static inline uint64_t random_below(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* b = log2(P) - 3; what is described frame by frame, and in top blocks, so that a trial takes some milliseconds. */
static const struct {
	const char *name;
	unsigned b;
	uint64_t flat_frames_max, tops_max;
} machines[] = {
	{ "sim", 9, (uint64_t)1 << 20, 6 },
	{ "sim-5", 9, (uint64_t)1 << 19, 4 },
	{ "sim-arm64-16k", 11, (uint64_t)1 << 18, 4 },
	{ "sim-arm64-64k", 13, (uint64_t)1 << 17, 4 },
};
enum { NR_MACHINES = sizeof(machines) / sizeof(machines[0]) };

/* Around a border, or anywhere. */
static inline uint64_t random_size(uint64_t max, unsigned b)
{
	uint64_t n = 1 + random_below(max);

	switch (random_below(4)) {
	case 0:
		return n;
	case 1:
		return mf_max(n >> b << b, (uint64_t)1 << b);
	case 2:
		return (n >> b << b) + 1 + random_below(16);
	default:
		return mf_max(n >> b << b, (uint64_t)1 << b) - random_below(16);
	}
}

/* Runs trials, each a case that `trial` makes up by random_below(), until 8 of them were not good. */
static inline void run_many(bool (*trial)(void), unsigned nr)
{
	const char *seed = getenv("MF_SEED"), *soak = getenv("MF_SOAK");
	uint64_t first = seed ? strtoull(seed, NULL, 0) : soak ? (uint64_t)time(NULL) : nr;
	unsigned nr_bad = 0;

	random_state = first;
	TAP_NOTE("MF_SEED=%llu", (unsigned long long)first);
	for (unsigned i = 0; i < nr * (soak ? 20u : 1u) && nr_bad < 8; i++)
		nr_bad += !trial();
	TAP_EQ(nr_bad, 0);
}

/* ---- Folios ------------------------------------------------------------------------------------------------------ */

struct folios {
	struct mf_folio **folio;
	uint64_t nr, max;
};

static inline void folios_init(struct folios *list, uint64_t max)
{
	*list = (struct folios){ calloc(max ? max : 1, sizeof(*list->folio)), 0, max };
	MF_PANIC_IF(!list->folio, "the test has no memory for its list of folios.");
}

static inline bool folios_add(struct folios *list, struct world *w, unsigned order)
{
	struct mf_folio *folio = list->nr < list->max ? world_alloc(w, order) : NULL;

	if (folio)
		list->folio[list->nr++] = folio;
	return folio != NULL;
}

/* The first `nr` of them go; what stays keeps its order. */
static inline void folios_put(struct folios *list, struct world *w, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		mf_folio_put(w->map, list->folio[i]);
	list->nr -= nr;
	memmove(list->folio, list->folio + nr, list->nr * sizeof(*list->folio));
}

static inline void folios_exit(struct folios *list, struct world *w)
{
	folios_put(list, w, list->nr);
	free(list->folio);
}

static uintptr_t folios_lowest; /* address of the head that comes first */

/* Heads of one tier: their addresses are in the order of their pfns.  What lies below the lowest comes last. */
static inline int folios_by_address(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)*(struct mf_folio *const *)a - folios_lowest;
	uintptr_t y = (uintptr_t)*(struct mf_folio *const *)b - folios_lowest;

	return (x > y) - (x < y);
}

static inline void folios_sort(struct folios *list, const void *lowest)
{
	folios_lowest = (uintptr_t)lowest;
	qsort(list->folio, list->nr, sizeof(*list->folio), folios_by_address);
}

static inline uint64_t free_frames(struct world *w)
{
	struct mf_zone_info info;
	uint64_t nr = 0;

	for (unsigned zone = 0; mf_zone_info(w->map, zone, &info) == 0; zone++)
		nr += info.nr_free;
	return nr;
}

enum { REST_MAX = 1 << 17 };

/* Frames behind the last unit: in pieces as large as they come, so that nothing is split for them. */
static inline void take_rest(struct folios *rest, struct world *w, unsigned unit_order)
{
	for (unsigned order = unit_order; order-- > 0;)
		while (free_frames(w) >> order && folios_add(rest, w, order))
			;
}

/* ---- Figures ----------------------------------------------------------------------------------------------------- */

static inline bool same(const char *what, uint64_t engine, uint64_t plan)
{
	if (engine != plan)
		TAP_NOTE("%s: the engine has %llu, the plan says %llu", what, (unsigned long long)engine,
			 (unsigned long long)plan);
	return engine == plan;
}

#endif
