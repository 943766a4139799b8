/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_race.c - everything at once: allocators, a splitter, folders, regions that come and go, folios that go on a diet
 * and off it, speculative takers from above and below, pinners, an iterator, on a machine that yields in between.  The
 * threads are in race_change.c, race_diet.c and race_look.c, what they share is in race.h; the tests, which differ in
 * the kind of machine and in who takes part, in race_hosted.c for a process and in tests/metal/race_metal.c for bare
 * metal.
 *
 * Laws held in every thread: two never own one frame (owner[]); what I hold keeps its word and answers alike from above
 * and below; nothing is unbacked below a reader section that saw a count (armed[]); who iterates finds the folios that
 * stay (sentinels).  In the end everything is freed and folded, and the map is what it was at first, page for page, and
 * on page tables frame for frame.
 *
 * The number of operations is fixed, not the time: MF_OPS=n sets it.  MF_SEED=n repeats the choices, not the
 * interleaving.  That the laws are watched: t_sabotage.sh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/race/race_where.h"
#include "tests/tap.h"

enum { OPS_UNIT = 10000 };

struct race race;

/* The least of what is counted in OPS_UNIT operations that makes a run worth something; with diets; of few. */
static const struct {
	const char *name;
	uint64_t least, least_with_diets, least_of_few;
} tally_of[NR_TALLIES] = {
	[ALLOCS] = { "allocations", 3000, 3000, 3000 },
	[NOWAITS] = { "of them without waiting", 500, 500, 0 },
	[SPLITS] = { "splits", 300, 300, 0 },
	[MERGES] = { "merges", 300, 300, 0 },
	[FOLDED] = { "blocks folded on request", 20, 4, 0 },
	[GETS_BELOW] = { "takes from below", 50, 50, 0 },
	[GETS_ABOVE] = { "takes from above", 100, 100, 0 },
	[PINS] = { "pins", 100, 100, 0 },
	[RELEASES] = { "owner releases", 3000, 3000, 0 },
	[PASSES] = { "iterations", 50, 0, 0 },
	[REGIONS] = { "regions added and removed", 50, 0, 0 },
	[ARMED] = { "sections that saw a count", 100, 100, 0 },
	[REMAPS] = { "remaps", 0, 200, 0 },
	[RESTORES] = { "restores", 0, 100, 0 },
	[KEPT] = { "freed on a diet", 0, 100, 0 },
	[LIVES] = { "merged from folios that others saw", 0, 100, 0 },
	[BIG] = { "of several tables", 0, 10, 0 },
	[DEVICES] = { "regions of compounds", 0, 10, 0 },
	[GETS_ALIASED] = { "takes at an alias of a head", 0, 20, 0 },
	[REFUSED] = { "failures for lack of memory", 0, 0, 0 },
	[DRAINS] = { "drains", 0, 0, 1 },
};

/* Calls that did something, each in one of these. */
static const enum tally operations[] = {
	ALLOCS, RELEASES, SPLITS, MERGES, GETS_BELOW, GETS_ABOVE, PINS, PASSES, REGIONS, REMAPS, RESTORES, DEVICES,
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

/* As many of these as there are CPUs for. */
static const struct worker few_workers[NR_WORKERS] = {
	{ .run = race_drainer },                { .run = race_taker, .changes = true },
	{ .run = race_taker, .changes = true }, { .run = race_taker, .changes = true },
};

static void run_all(void)
{
	static struct worker worker[NR_WORKERS];
	unsigned nr = 0, nr_max = race.with_few ? race.slow.machine.nr_cpus - 1 : NR_WORKERS;

	memcpy(worker, race.with_few ? few_workers : race.with_diets ? diet_workers : tiered_workers, sizeof(worker));
	while (nr < nr_max && worker[nr].run)
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

uint64_t race_frames_of_map(void)
{
	struct mf_map_stats stats;

	mf_map_stats(race.map, &stats);
	return stats.nr_slots + stats.nr_tables + stats.nr_ram;
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

/* In lines that a comment has room for. */
static void tell_tallies(void)
{
	char line[400];
	size_t used = 0;

	for (unsigned i = 0; i < NR_TALLIES; i++) {
		uint64_t n = atomic_load(&race.tally[i]);

		if (n > 0)
			used += (size_t)snprintf(line + used, sizeof(line) - used, "%s %llu, ", tally_of[i].name,
						 (unsigned long long)n);
		if (used > 0 && (used > 300 || i == NR_TALLIES - 1)) {
			TAP_NOTE("%s", line);
			used = 0;
		}
	}
}

static void check_tallies(uint64_t units)
{
	struct mf_map_stats stats;

	mf_map_stats(race.map, &stats);
	for (unsigned i = 0; i < NR_TALLIES; i++) {
		uint64_t n = atomic_load(&race.tally[i]);
		uint64_t least = units * (race.with_few   ? tally_of[i].least_of_few :
					  race.with_diets ? tally_of[i].least_with_diets :
							    tally_of[i].least);

		if (n < least)
			TAP_NOTE("only %llu %s", (unsigned long long)n, tally_of[i].name);
		TAP_OK(n >= least);
	}
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		race.total.nr_operations += atomic_load(&race.tally[operations[i]]);
	race.total.nr_folds += stats.folds[1] + stats.folds[2];
	tell_tallies();
	TAP_NOTE("unfolds %llu + %llu, folds %llu + %llu of tiers 1 + 2, quiesces %llu, tables moved %llu",
		 (unsigned long long)stats.unfolds[1], (unsigned long long)stats.unfolds[2],
		 (unsigned long long)stats.folds[1], (unsigned long long)stats.folds[2],
		 (unsigned long long)stats.quiesces, (unsigned long long)stats.tables_moved);
	if (race.with_few)
		return;
	TAP_OK(stats.folds[1] >= 300 * units);
	TAP_OK(stats.folds[2] >= 5 * units);
}

void race_there_and_back(void)
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

void race_with_diets(void)
{
	unsigned id[NR_DIETS];

	for (unsigned i = 0; i < NR_DIETS; i++) {
		struct mf_region_config config = {
			.start_pfn = DIETS_START + i * DIET_FRAMES, .end_pfn = DIETS_START + (i + 1) * DIET_FRAMES,
			.node = DIET_NODE + i, .layout = MF_LAYOUT_HVO_5_14 + (enum mf_layout)i, .source = MF_SOURCE_RAM,
		};

		TAP_REQUIRE(mf_region_add(race.map, &config, &id[i]) == 0);
	}
	race_there_and_back();
	for (unsigned i = 0; i < NR_DIETS; i++)
		TAP_EQ(mf_region_remove(race.map, id[i]), 0);
	check_laws();
}

void race_without_edges(void)
{
	race_there_and_back();
}

void race_of_few(void)
{
	race_there_and_back();
}

/* ---- The whole --------------------------------------------------------------------------------------------- */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *given = getenv(name);

	return given ? strtoull(given, NULL, 0) : otherwise;
}

void race_on(enum slow_kind kind, void (*run)(void))
{
	struct mf_map_config config = { .machine = &race.slow.machine, .span = SPAN };
	uint64_t before;
	unsigned id;

	race.with_diets = run == race_with_diets;
	race.with_edges = run != race_without_edges && run != race_of_few;
	race.with_few = run == race_of_few;
	race.a = (struct mf_region_config){ .start_pfn = A_START, .end_pfn = A_END };
	if (!race.with_edges)
		race.a = (struct mf_region_config){ .end_pfn = 3 << TOP };
	race.seed = number_from("MF_SEED", 20240607);
	race.nr_ops = number_from("MF_OPS", race_usual_ops(kind));
	TAP_NOTE("MF_SEED=%llu MF_OPS=%llu", (unsigned long long)race.seed, (unsigned long long)race.nr_ops);
	for (unsigned i = 0; i < NR_TALLIES; i++)
		atomic_store(&race.tally[i], 0);
	TAP_REQUIRE(slow_machine_create(&race.slow, kind, SPAN) == 0);
	race.slow.yields_in = 64;
	race.slow.on_discard = race_check_not_armed;
	race.slow.on_alias = race_check_not_armed;
	TAP_REQUIRE(mf_map_create(&config, &race.map) == 0);
	TAP_REQUIRE(mf_region_add(race.map, &race.a, &id) == 0);
	before = race_size();
	TAP_OK(before > 0);
	run();
	TAP_EQ(race_size(), before);
	TAP_EQ(mf_region_remove(race.map, id), 0);
	TAP_EQ(mf_map_destroy(race.map), 0);
	slow_machine_destroy(&race.slow);
	TAP_NOTE("in all so far %llu operations, %llu folds", (unsigned long long)race.total.nr_operations,
		 (unsigned long long)race.total.nr_folds);
}

TAP_MAIN()
