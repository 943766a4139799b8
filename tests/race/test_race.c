/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_race.c - everything at once: allocators, a splitter, folders, regions that come and go, folios that go on a diet and
 * off it, speculative takers from above and below, pinners, an iterator, on a machine that yields in between.  The threads
 * are in race_change.c, race_diet.c and race_look.c, what they share is in race.h.
 *
 * Laws held in every thread: two never own one frame (owner[]); what I hold keeps its word and answers alike from above
 * and below; nothing is unbacked below a reader section that saw a count (armed[]); who iterates finds the folios that
 * stay (sentinels).  In the end everything is freed and folded, and the map is what it was at first, page for page, and
 * on page tables frame for frame.
 *
 * The number of operations is fixed, not the time: MF_OPS=n sets it, MF_SOAK makes it 20 times as many.  MF_SEED=n
 * repeats the choices, not the interleaving.  That the laws are watched: t_sabotage.sh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* On page tables the first touch of a slot after a flush is a signal: that takes longer. */
enum { OPS = WITH_TSAN ? 20000 : 40000, OPS_TABLES = 10000, OPS_UNIT = 10000 };

struct race race;

/* The least of what is counted in OPS_UNIT operations that makes a run worth something; and the same with diets. */
static const struct {
	const char *name;
	uint64_t least, least_with_diets;
} tally_of[NR_TALLIES] = {
	[ALLOCS] = { "allocations", 3000, 3000 },
	[NOWAITS] = { "of them without waiting", 500, 500 },
	[SPLITS] = { "splits", 300, 300 },
	[MERGES] = { "merges", 300, 300 },
	[FOLDED] = { "blocks folded on request", 20, 4 },
	[GETS_BELOW] = { "takes from below", 50, 50 },
	[GETS_ABOVE] = { "takes from above", 100, 100 },
	[PINS] = { "pins", 100, 100 },
	[RELEASES] = { "owner releases", 3000, 3000 },
	[PASSES] = { "iterations", 50, 0 },
	[REGIONS] = { "regions added and removed", 50, 0 },
	[ARMED] = { "sections that saw a count", 100, 100 },
	[REMAPS] = { "remaps", 0, 200 },
	[RESTORES] = { "restores", 0, 100 },
	[KEPT] = { "freed on a diet", 0, 100 },
	[LIVES] = { "merged from folios that others saw", 0, 100 },
	[BIG] = { "of several tables", 0, 10 },
	[DEVICES] = { "regions of compounds", 0, 10 },
	[GETS_ALIASED] = { "takes at an alias of a head", 0, 20 },
	[REFUSED] = { "failures for lack of memory", 0, 0 },
};

/* ---- Threads ------------------------------------------------------------------------------------------------ */

static void *worker_main(void *ctx)
{
	struct worker *w = ctx;

	TAP_OK(slow_thread_register(&race.slow));
	w->run(w);
	if (w->changes)
		atomic_fetch_sub(&race.nr_working, 1);
	return NULL;
}

enum { NR_WORKERS = 16 };

static const struct worker tiered_workers[NR_WORKERS] = {
	{ .run = race_allocator, .changes = true }, { .run = race_allocator, .changes = true },
	{ .run = race_splitter, .changes = true },  { .run = race_folder, .changes = true },
	{ .run = race_regions, .changes = true },   { .run = race_look },
	{ .run = race_look },                       { .run = race_arm },
	{ .run = race_arm },                        { .run = race_iterator },
};

static const struct worker diet_workers[NR_WORKERS] = {
	{ .run = race_allocator, .changes = true }, { .run = race_splitter, .changes = true },
	{ .run = race_folder, .changes = true },    { .run = race_dieter, .changes = true },
	{ .run = race_dieter, .changes = true },    { .run = race_dieter, .changes = true },
	{ .run = race_big, .changes = true },       { .run = race_devices, .changes = true },
	{ .run = race_switch, .changes = true },    { .run = race_look },
	{ .run = race_look },                       { .run = race_arm },
	{ .run = race_arm },                        { .run = race_iterator },
};

static void run_all(void)
{
	static struct worker worker[NR_WORKERS];
	unsigned nr = 0;

	memcpy(worker, race.with_diets ? diet_workers : tiered_workers, sizeof(worker));
	while (worker[nr].run)
		nr++;
	for (unsigned i = 0; i < nr; i++) {
		worker[i].number = i + 1;
		worker[i].random = race.seed + i;
		if (worker[i].changes)
			atomic_fetch_add(&race.nr_working, 1);
	}
	for (unsigned i = 0; i < nr; i++)
		if (pthread_create(&worker[i].thread, NULL, worker_main, &worker[i]) != 0)
			abort();
	for (unsigned i = 0; i < nr; i++)
		pthread_join(worker[i].thread, NULL);
}

/* ---- Beginning and end ------------------------------------------------------------------------------------- */

static uint64_t frames_of_map(void)
{
	struct mf_map_stats stats;

	mf_map_stats(race.map, &stats);
	return stats.nr_slots + stats.nr_tables + stats.nr_ram;
}

/* Pages of the windows that are really there: what a compare-and-swap on an unbacked slot would add to. */
static uint64_t resident_kib(void)
{
	const struct mf_geometry *g = mf_map_geometry(race.map);
	uintptr_t base = g->window[0], last = (uintptr_t)mf_geometry_descriptor(g, g->top, SPAN - 1);
	unsigned long start = 0, end = 0, kib;
	uint64_t sum = 0;
	char line[256];
	FILE *file = fopen("/proc/self/smaps", "re");

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2)
			start = a, end = b;
		else if (start <= last && base < end && sscanf(line, "Anonymous: %lu kB", &kib) == 1)
			sum += kib;
	}
	if (file)
		fclose(file);
	return sum;
}

/*
 * The folios that stay: 2 MiB each, all over the last top block and A's far edge, so that whatever splits and merges stands
 * before and between them.  Without edges all over the middle block, so that the last, which is the home of the map pool,
 * can fold.  Not the first of a block, which may be set aside.
 */
static void place_sentinels(struct mf_folio *stays[NR_SENTINELS])
{
	enum { NR = SPAN / 512 };
	static struct mf_folio *all[NR];
	unsigned step = (race.with_edges ? 512u / (NR_SENTINELS - 1) : 512u / NR_SENTINELS) * 512, nr = 0, nr_stay = 0;
	mf_pfn_t first = race.with_edges ? 2 << TOP : 1 << TOP;

	while (nr < NR && mf_folio_alloc(race.map, 0, 9, MF_ALLOC_WAIT, &all[nr]) == 0)
		nr++;
	for (unsigned i = 0; i < nr; i++) {
		mf_pfn_t pfn = mf_folio_pfn(race.map, all[i]);

		if (pfn >= first && (pfn - first) % step == 512 && nr_stay < NR_SENTINELS) {
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
	char line[800];
	size_t used = 0;

	mf_map_stats(race.map, &stats);
	for (unsigned i = 0; i < NR_TALLIES; i++) {
		uint64_t n = atomic_load(&race.tally[i]);
		uint64_t least = units * (race.with_diets ? tally_of[i].least_with_diets : tally_of[i].least);

		used += n == 0 ? 0 : (size_t)snprintf(line + used, sizeof(line) - used, "%s %llu, ", tally_of[i].name,
						      (unsigned long long)n);
		if (n < least)
			TAP_NOTE("only %llu %s", (unsigned long long)n, tally_of[i].name);
		TAP_OK(n >= least);
	}
	for (const char *part = line; *part; part += strlen(part) < 400 ? strlen(part) : 400)
		TAP_NOTE("%.400s", part);
	TAP_NOTE("unfolds %llu + %llu, folds %llu + %llu of tiers 1 + 2, quiesces %llu, tables moved %llu",
		 (unsigned long long)stats.unfolds[1], (unsigned long long)stats.unfolds[2],
		 (unsigned long long)stats.folds[1], (unsigned long long)stats.folds[2],
		 (unsigned long long)stats.quiesces, (unsigned long long)stats.tables_moved);
	TAP_OK(stats.folds[1] >= 300 * units);
	TAP_OK(stats.folds[2] >= 5 * units);
}

/* From the first state to the first state. */
static void there_and_back(void)
{
	struct mf_folio *stays[NR_SENTINELS];
	uint64_t digest = mf_map_digest(race.map);

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
}

static void with_diets(void)
{
	unsigned id[NR_DIETS];

	for (unsigned i = 0; i < NR_DIETS; i++) {
		struct mf_region_config config = {
			.start_pfn = DIETS_START + i * DIET_FRAMES, .end_pfn = DIETS_START + (i + 1) * DIET_FRAMES,
			.node = DIET_NODE + i, .layout = MF_LAYOUT_HVO_5_14 + (enum mf_layout)i, .source = MF_SOURCE_RAM,
		};

		TAP_REQUIRE(mf_region_add(race.map, &config, &id[i]) == 0);
	}
	there_and_back();
	for (unsigned i = 0; i < NR_DIETS; i++)
		TAP_EQ(mf_region_remove(race.map, id[i]), 0);
	check_laws();
}

static void without_edges(void)
{
	there_and_back();
}

/* ---- The whole --------------------------------------------------------------------------------------------- */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *given = getenv(name);

	return given ? strtoull(given, NULL, 0) : otherwise;
}

static uint64_t ops(enum slow_kind kind)
{
	uint64_t nr = kind == SLOW_TABLES ? OPS_TABLES : OPS;

	return number_from("MF_OPS", getenv("MF_SOAK") ? 20 * nr : nr);
}

static void race_on(enum slow_kind kind, void (*run)(void))
{
	uint64_t (*size)(void) = kind == SLOW_TABLES ? frames_of_map : resident_kib, before;
	struct mf_map_config config = { .machine = &race.slow.machine, .span = SPAN };
	unsigned id;

	race.with_diets = run == with_diets;
	race.with_edges = run != without_edges;
	race.a = (struct mf_region_config){ .start_pfn = A_START, .end_pfn = A_END };
	if (!race.with_edges)
		race.a = (struct mf_region_config){ .end_pfn = 3 << TOP };
	race.seed = number_from("MF_SEED", 20240607);
	race.nr_ops = ops(kind);
	TAP_NOTE("MF_SEED=%llu MF_OPS=%llu", (unsigned long long)race.seed, (unsigned long long)race.nr_ops);
	for (unsigned i = 0; i < NR_TALLIES; i++)
		atomic_store(&race.tally[i], 0);
	TAP_REQUIRE(slow_machine_create(&race.slow, kind, SPAN) == 0);
	race.slow.yields_in = 64;
	race.slow.on_discard = race_check_not_armed;
	race.slow.on_alias = race_check_not_armed;
	TAP_REQUIRE(mf_map_create(&config, &race.map) == 0);
	TAP_REQUIRE(mf_region_add(race.map, &race.a, &id) == 0);
	before = size();
	TAP_OK(before > 0);
	run();
	TAP_EQ(size(), before);
	TAP_EQ(mf_region_remove(race.map, id), 0);
	TAP_EQ(mf_map_destroy(race.map), 0);
	slow_machine_destroy(&race.slow);
}

TAP_TEST(race_of_threads_that_are_cpus)
{
	race_on(SLOW_THREADS, there_and_back);
}

TAP_TEST(race_of_threads_that_are_pinned)
{
	race_on(SLOW_PINNED, there_and_back);
}

TAP_TEST(race_on_page_tables)
{
	race_on(SLOW_TABLES, there_and_back);
}

TAP_TEST(race_of_sets_on_page_tables)
{
	race_on(SLOW_TABLES, without_edges);
}

/* R-HVO-77, R-SCN-17 */
TAP_TEST(race_of_diets_on_the_host)
{
	race_on(SLOW_THREADS, with_diets);
}

/* R-HVO-77, R-SCN-16, R-SCN-17 */
TAP_TEST(race_of_diets_on_page_tables)
{
	race_on(SLOW_TABLES, with_diets);
}

TAP_MAIN()
