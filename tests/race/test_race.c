/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_race.c - everything at once: allocators, a splitter, folders, regions that come and go, speculative takers from
 * above and below, pinners, an iterator, on a machine that yields in between.  The threads are in race_change.c and
 * race_look.c, what they share is in race.h.
 *
 * Laws held in every thread: two never own one frame (owner[]); what I hold keeps its word and answers alike from above
 * and below; nothing is unbacked below a reader section that saw a count (armed[]); who iterates finds the folios that
 * stay (sentinels).  In the end everything is freed and folded, and the map is what it was at first, page for page.
 *
 * The number of operations is fixed, not the time: MF_OPS=n sets it, MF_SOAK makes it 20 times as many.  MF_SEED=n
 * repeats the choices, not the interleaving.  That the laws are watched: t_sabotage.sh.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/race/race.h"
#include "tests/tap.h"

#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif
#ifndef WITH_TSAN
#define WITH_TSAN 0
#endif

enum { OPS = WITH_TSAN ? 20000 : 40000, OPS_UNIT = 10000 };

struct race race;

/* The least of what is counted in OPS_UNIT operations that makes a run worth something. */
static const struct {
	const char *name;
	uint64_t least;
} tally_of[NR_TALLIES] = {
	[ALLOCS] = { "allocations", 3000 },
	[NOWAITS] = { "of them without waiting", 500 },
	[SPLITS] = { "splits", 300 },
	[MERGES] = { "merges", 300 },
	[FOLDED] = { "blocks folded on request", 20 },
	[GETS_BELOW] = { "takes from below", 50 },
	[GETS_ABOVE] = { "takes from above", 100 },
	[PINS] = { "pins", 100 },
	[RELEASES] = { "owner releases", 3000 },
	[PASSES] = { "iterations", 50 },
	[REGIONS] = { "regions added and removed", 50 },
	[ARMED] = { "sections that saw a count", 100 },
};

/* ---- Threads ------------------------------------------------------------------------------------------------ */

static void *worker_main(void *ctx)
{
	struct worker *w = ctx;

	TAP_OK(mf_linux_thread_register(race.slow.inner) == 0);
	w->run(w);
	if (w->changes)
		atomic_fetch_sub(&race.nr_working, 1);
	return NULL;
}

static void run_all(void)
{
	static struct worker worker[] = {
		{ .run = race_allocator, .changes = true }, { .run = race_allocator, .changes = true },
		{ .run = race_splitter, .changes = true },  { .run = race_folder, .changes = true },
		{ .run = race_regions, .changes = true },   { .run = race_look },
		{ .run = race_look },                       { .run = race_arm },
		{ .run = race_arm },                        { .run = race_iterator },
	};
	enum { NR = sizeof(worker) / sizeof(worker[0]) };

	for (unsigned i = 0; i < NR; i++) {
		worker[i].number = i + 1;
		worker[i].random = race.seed + i;
		if (worker[i].changes)
			atomic_fetch_add(&race.nr_working, 1);
	}
	for (unsigned i = 0; i < NR; i++)
		if (pthread_create(&worker[i].thread, NULL, worker_main, &worker[i]) != 0)
			abort();
	for (unsigned i = 0; i < NR; i++)
		pthread_join(worker[i].thread, NULL);
}

/* ---- Beginning and end ------------------------------------------------------------------------------------- */

/* Pages of the windows that are really there: what a compare-and-swap on an unbacked slot would add to. */
static uint64_t resident_kib(void)
{
	uintptr_t base = (uintptr_t)mf_pfn_to_page(race.map, 0);
	unsigned long start = 0, end = 0, kib;
	uint64_t sum = 0;
	char line[256];
	FILE *file = fopen("/proc/self/smaps", "re");

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2)
			start = a, end = b;
		else if (start <= base && base < end && sscanf(line, "Anonymous: %lu kB", &kib) == 1)
			sum += kib;
	}
	if (file)
		fclose(file);
	return sum;
}

/*
 * The folios that stay: 2 MiB each, all over the last top block and A's far edge, so that whatever splits and merges
 * stands before and between them.
 */
static void place_sentinels(struct mf_folio *stays[NR_SENTINELS])
{
	enum { NR = (A_END - A_START) / 512, STEP = 512 / (NR_SENTINELS - 1) * 512 };
	static struct mf_folio *all[NR];
	unsigned nr = 0, nr_stay = 0;

	while (nr < NR && mf_folio_alloc(race.map, 0, 9, MF_ALLOC_WAIT, &all[nr]) == 0)
		nr++;
	for (unsigned i = 0; i < nr; i++) {
		mf_pfn_t pfn = mf_folio_pfn(race.map, all[i]);

		if (pfn >= 2 << TOP && (pfn - (2 << TOP)) % STEP == 0 && nr_stay < NR_SENTINELS) {
			race.sentinel[nr_stay] = pfn;
			race_mark(pfn, 9, 0, UINT32_MAX);
			stays[nr_stay++] = all[i];
		} else {
			mf_folio_put(race.map, all[i]);
		}
	}
	TAP_EQ(nr_stay, NR_SENTINELS);
}

static void check_laws(void)
{
	struct mf_violation v = { 0 };

	if (mf_map_check(race.map, &v))
		TAP_NOTE("law %s at pfn %llu: %s", v.law, (unsigned long long)v.pfn, v.text);
	TAP_OK(v.law == NULL);
}

static void check_tallies(uint64_t units)
{
	struct mf_map_stats stats;
	char line[480];
	size_t used = 0;

	mf_map_stats(race.map, &stats);
	for (unsigned i = 0; i < NR_TALLIES; i++) {
		uint64_t n = atomic_load(&race.tally[i]);

		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%s %llu", i ? ", " : "", tally_of[i].name,
					 (unsigned long long)n);
		if (n < tally_of[i].least * units)
			TAP_NOTE("only %llu %s", (unsigned long long)n, tally_of[i].name);
		TAP_OK(n >= tally_of[i].least * units);
	}
	TAP_NOTE("%s", line);
	TAP_NOTE("unfolds %llu + %llu, folds %llu + %llu of tiers 1 + 2, quiesces %llu",
		 (unsigned long long)stats.unfolds[1], (unsigned long long)stats.unfolds[2],
		 (unsigned long long)stats.folds[1], (unsigned long long)stats.folds[2],
		 (unsigned long long)stats.quiesces);
	TAP_OK(stats.folds[1] >= 300 * units);
	TAP_OK(stats.folds[2] >= 5 * units);
}

/* From the first state to the first state. */
static void there_and_back(void)
{
	struct mf_folio *stays[NR_SENTINELS];
	uint64_t digest = mf_map_digest(race.map), kib = resident_kib();

	TAP_OK(kib > 0);
	place_sentinels(stays);
	run_all();
	check_laws();
	check_tallies(race.nr_ops / OPS_UNIT);
	for (unsigned i = 0; i < NR_SENTINELS; i++) {
		race_mark(race.sentinel[i], 9, UINT32_MAX, 0);
		TAP_EQ(mf_folio_refcount(stays[i]), 1);
		mf_folio_put(race.map, stays[i]);
	}
	TAP_EQ(mf_fold(race.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	check_laws();
	TAP_EQ(mf_map_digest(race.map), digest);
	TAP_EQ(resident_kib(), kib);
}

/* ---- The whole --------------------------------------------------------------------------------------------- */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *given = getenv(name);

	return given ? strtoull(given, NULL, 0) : otherwise;
}

static void race_on(enum slow_kind kind)
{
	struct mf_region_config region = { .start_pfn = A_START, .end_pfn = A_END };
	struct mf_map_config config = { .machine = &race.slow.machine, .span = SPAN };
	unsigned id;

	race.seed = number_from("MF_SEED", 20240607);
	race.nr_ops = number_from("MF_OPS", getenv("MF_SOAK") ? 20 * OPS : OPS);
	TAP_NOTE("MF_SEED=%llu MF_OPS=%llu", (unsigned long long)race.seed, (unsigned long long)race.nr_ops);
	for (unsigned i = 0; i < NR_TALLIES; i++)
		atomic_store(&race.tally[i], 0);
	TAP_REQUIRE(slow_machine_create(&race.slow, kind) == 0);
	race.slow.yields_in = 64;
	race.slow.on_discard = race_check_not_armed;
	TAP_REQUIRE(mf_map_create(&config, &race.map) == 0);
	TAP_REQUIRE(mf_region_add(race.map, &region, &id) == 0);
	there_and_back();
	TAP_EQ(mf_region_remove(race.map, id), 0);
	TAP_EQ(mf_map_destroy(race.map), 0);
	slow_machine_destroy(&race.slow);
}

TAP_TEST(race_of_threads_that_are_cpus)
{
	race_on(SLOW_THREADS);
}

TAP_TEST(race_of_threads_that_are_pinned)
{
	race_on(SLOW_PINNED);
}

TAP_MAIN()
