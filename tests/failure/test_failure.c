/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_failure.c - every call that can allocate, with its n-th allocation failing, for every n until none is left.
 *
 * Each n has a world of its own.  When the call fails: -MF_ENOMEM, the digest as before, every law held, and, when all
 * is folded that had been unfolded on the way, the same cost in slots, tables and RAM; then the same call succeeds.
 * Calls that may not fail for lack of memory (source self, law M4; merging; folding; removing) must not.  Allocations
 * are RAM, control memory and windows; on linux the same with host_populate for RAM.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#define GIB WORLD_GIB_FRAMES

/* Machines: the one with page tables that there is, and the host's memory where there is a host. */
#define TABLES NULL
#define HOST "linux"

enum { BLOCK = 512, FOLIOS_MAX = 64, ATTEMPTS_MAX = 2000 };

struct stage {
	struct world world;
	const struct scenario *scenario;
	struct mf_folio *folio; /* in use: what prepare allocated or the call gave                              */
	mf_pfn_t pfn;           /* where it was                                                                */
	unsigned region;
};

struct scenario {
	const char *name;
	const char *machine;
	struct mf_region_config region; /* there before, unless empty                                          */
	struct mf_region_config added;  /* by the call                                                         */
	unsigned order, new_order;
	bool (*prepare)(struct stage *s);
	int (*call)(struct stage *s);
	bool may_fail;                  /* and so it does, for some n                                           */
};

/* ---- What must not change -------------------------------------------------------------------------------------- */

struct cost {
	uint64_t digest, nr_slots, nr_tables, nr_ram, nr_split[MF_TIERS_MAX], ram_used, meta_used;
};

static uint64_t nr_zones(struct mf_map *map)
{
	struct mf_zone_info info;
	unsigned nr = 0;

	while (mf_zone_info(map, nr, &info) == 0)
		nr++;
	return nr;
}

/* A zone, two pieces of control memory, stays with the map when the region that it was made for could not be added. */
static struct cost cost_of(struct stage *s)
{
	struct world_used used = world_used(&s->world);
	struct mf_map_stats stats;
	struct cost cost = { .digest = mf_map_digest(s->world.map) };

	mf_map_stats(s->world.map, &stats);
	cost.nr_slots = stats.nr_slots;
	cost.nr_tables = stats.nr_tables;
	cost.nr_ram = stats.nr_ram;
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++)
		cost.nr_split[tier] = stats.nr_split[tier];
	cost.ram_used = used.nr_ram;
	cost.meta_used = s->world.machine->backing == MF_WINDOW_TABLES ? used.nr_meta - 2 * nr_zones(s->world.map) : 0;
	return cost;
}

static void check_same_cost(const struct cost *now, const struct cost *before)
{
	TAP_EQ(now->digest, before->digest);
	TAP_EQ(now->nr_slots, before->nr_slots);
	TAP_EQ(now->nr_tables, before->nr_tables);
	TAP_EQ(now->nr_ram, before->nr_ram);
	TAP_EQ(now->nr_split[1], before->nr_split[1]);
	TAP_EQ(now->nr_split[2], before->nr_split[2]);
	TAP_EQ(now->ram_used, before->ram_used);
	TAP_EQ(now->meta_used, before->meta_used);
}

/* ---- One scenario ---------------------------------------------------------------------------------------------- */

static bool stage_open(struct stage *s, const struct scenario *scenario)
{
	struct world_config config = { .machine = scenario->machine, .nr_frames = 4 * GIB };

	*s = (struct stage){ .scenario = scenario };
	if (!world_open(&s->world, &config))
		return false;
	if (scenario->region.end_pfn && world_add_region(&s->world, &scenario->region, &s->region) != 0)
		return false;
	if (scenario->prepare && !scenario->prepare(s))
		return false;
	return mf_fold(s->world.map, MF_ANY_NODE, MF_FOLD_ALL, NULL) == 0;
}

static void put_all(struct stage *s)
{
	struct mf_folio *folio;
	mf_pfn_t pfn = 0;

	while ((folio = mf_folio_next(s->world.map, pfn, 4 * GIB, &pfn)) != NULL)
		mf_folio_put(s->world.map, folio);
}

static void check_refused(struct stage *s, int err, const struct cost *before)
{
	struct cost now;

	TAP_EQ(err, -MF_ENOMEM);
	TAP_OK(s->scenario->may_fail);
	TAP_EQ(mf_map_digest(s->world.map), before->digest);
	TAP_OK(world_check(&s->world));
	TAP_EQ(mf_fold(s->world.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	now = cost_of(s);
	check_same_cost(&now, before);
	TAP_EQ(s->scenario->call(s), 0);
}

/* One n.  True when there were that many allocations; *failed: the call could not do without. */
static bool attempt(const struct scenario *scenario, uint64_t n, bool *failed)
{
	struct stage s;
	struct cost before;
	uint64_t nr;
	bool staged;
	int err;

	*failed = false;
	staged = stage_open(&s, scenario);
	TAP_OK(staged);
	if (!staged)
		return false;
	before = cost_of(&s);
	world_fail(&s.world, WORLD_ANY, n);
	err = scenario->call(&s);
	nr = world_fail_end(&s.world);
	*failed = err != 0;
	if (err)
		check_refused(&s, err, &before);
	TAP_OK(world_check(&s.world));
	put_all(&s);
	TAP_OK(world_close(&s.world));
	return nr >= n;
}

static void play(const struct scenario *scenario)
{
	uint64_t n = 0, nr_failed = 0;
	bool failed, more;

	if (!world_has(scenario->machine)) {
		TAP_NOTE("%s: no machine \"%s\" here", scenario->name, scenario->machine);
		return;
	}
	do {
		more = attempt(scenario, ++n, &failed);
		nr_failed += failed;
		if (atomic_load(&tap_state.failed)) {
			TAP_NOTE("%s: with allocation %llu failing", scenario->name, (unsigned long long)n);
			return;
		}
	} while (more && n < ATTEMPTS_MAX);
	TAP_OK(n < ATTEMPTS_MAX);
	if (scenario->may_fail)
		TAP_OK(nr_failed > 0);
	TAP_NOTE("%s: %llu allocations, %llu of them could not be done without", scenario->name, (unsigned long long)(n - 1),
		 (unsigned long long)nr_failed);
}

static void play_all(const struct scenario *scenarios, unsigned nr)
{
	for (unsigned i = 0; i < nr && !atomic_load(&tap_state.failed); i++)
		play(&scenarios[i]);
}

#define PLAY(scenarios) play_all(scenarios, sizeof(scenarios) / sizeof((scenarios)[0]))

/* ---- Regions --------------------------------------------------------------------------------------------------- */

static int call_add(struct stage *s)
{
	unsigned id;

	return mf_region_add(s->world.map, &s->scenario->added, &id);
}

#define REGION(start, end, ...) { .start_pfn = (start), .end_pfn = (end), __VA_ARGS__ }
#define SELF .source = MF_SOURCE_SELF
#define RAM .source = MF_SOURCE_RAM
#define FLAT .layout = MF_LAYOUT_FLAT, RAM

/* R-GEN-7, R-MEM-15, R-MEM-30 */
TAP_TEST(failure_of_region_add)
{
	static const struct scenario scenarios[] = {
		{ "add: aligned, self", TABLES, .added = REGION(GIB, 3 * GIB, SELF), .call = call_add, .may_fail = true },
		{ "add: aligned, ram", TABLES, .added = REGION(GIB, 2 * GIB, RAM), .call = call_add, .may_fail = true },
		{ "add: odd, self", TABLES, .added = REGION(1001, 2 * GIB + 777, SELF), .call = call_add, .may_fail = true },
		{ "add: odd, ram, top 1", TABLES, .added = REGION(GIB - 700, GIB + 9001, RAM, .top = 1), .call = call_add,
		  .may_fail = true },
		{ "add: within one block", TABLES, .added = REGION(5, 300, RAM), .call = call_add, .may_fail = true },
		{ "add: beside another, a block shared", TABLES, REGION(100, GIB + 100, SELF, .node = 1),
		  REGION(GIB + 100, GIB + 5000, RAM, .node = 2), .call = call_add, .may_fail = true },
		{ "add: flat, aligned", TABLES, .added = REGION(2 * GIB, 2 * GIB + 16 * BLOCK, FLAT), .call = call_add,
		  .may_fail = true },
		{ "add: flat, of whole leaves", TABLES, .added = REGION(0, GIB, FLAT), .call = call_add, .may_fail = true },
		{ "add: flat, odd", TABLES, .added = REGION(3333, 9999, FLAT), .call = call_add, .may_fail = true },
		{ "add: flat, beside another", TABLES, REGION(0, 3000, RAM), REGION(3000, 7000, FLAT), .call = call_add,
		  .may_fail = true },
	};

	PLAY(scenarios);
}

TAP_TEST(failure_of_region_add_on_linux)
{
	static const struct scenario scenarios[] = {
		{ "add: aligned", HOST, .added = REGION(GIB, 3 * GIB, SELF), .call = call_add, .may_fail = true },
		{ "add: odd", HOST, .added = REGION(1001, 2 * GIB + 777, SELF), .call = call_add, .may_fail = true },
		{ "add: odd, top 1", HOST, .added = REGION(GIB - 700, GIB + 9001, SELF, .top = 1), .call = call_add,
		  .may_fail = true },
		{ "add: beside another, a block shared", HOST, REGION(100, GIB + 100, SELF, .node = 1),
		  REGION(GIB + 100, GIB + 5000, SELF, .node = 2), .call = call_add, .may_fail = true },
		{ "add: flat, odd", HOST, .added = REGION(3333, 9999, FLAT), .call = call_add, .may_fail = true },
	};

	if (!world_has(HOST))
		TAP_SKIP("there is no host here");
	PLAY(scenarios);
}

/* The region has been split throughout, and is free again, but not folded. */
static bool prepare_used(struct stage *s)
{
	struct mf_folio *folio[FOLIOS_MAX];

	for (unsigned i = 0; i < FOLIOS_MAX; i++) {
		folio[i] = world_alloc(&s->world, i % 2 ? 9 : 0);
		if (!folio[i])
			return false;
	}
	for (unsigned i = 0; i < FOLIOS_MAX; i++)
		mf_folio_put(s->world.map, folio[i]);
	return true;
}

static int call_remove(struct stage *s)
{
	return prepare_used(s) ? mf_region_remove(s->world.map, s->region) : -MF_EINVAL;
}

static int call_fold(struct stage *s)
{
	return prepare_used(s) ? mf_fold(s->world.map, MF_ANY_NODE, MF_FOLD_ALL, NULL) : -MF_EINVAL;
}

/* With source self nothing is allocated but room for tables that move, and that only if there is any. */
TAP_TEST(failure_of_fold_and_remove)
{
	static const struct scenario scenarios[] = {
		{ "fold: self", TABLES, REGION(0, 2 * GIB, SELF), .call = call_fold },
		{ "fold: self, odd", TABLES, REGION(1001, 2 * GIB + 777, SELF), .call = call_fold },
		{ "remove: self", TABLES, REGION(0, 2 * GIB, SELF), .call = call_remove },
		{ "remove: self, odd", TABLES, REGION(1001, 2 * GIB + 777, SELF), .call = call_remove },
	};

	PLAY(scenarios);
}

/* ---- Folios ---------------------------------------------------------------------------------------------------- */

static int call_alloc(struct stage *s)
{
	return mf_folio_alloc(s->world.map, MF_ANY_NODE, s->scenario->order, MF_ALLOC_WAIT, &s->folio);
}

static bool prepare_folio(struct stage *s)
{
	static const struct mf_owner nobody = { "nobody", NULL };

	s->folio = world_alloc(&s->world, s->scenario->order);
	if (!s->folio)
		return false;
	s->pfn = mf_folio_pfn(s->world.map, s->folio);
	mf_folio_set_owner(s->folio, &nobody);
	mf_folio_set_flags(s->folio, MF_FLAG_USER1);
	s->folio->page.index = 4711;
	s->folio->page.private_data = 42;
	return true;
}

static int call_split(struct stage *s)
{
	return mf_folio_split(s->world.map, s->folio, s->scenario->new_order);
}

static bool prepare_pieces(struct stage *s)
{
	return prepare_folio(s) && call_split(s) == 0;
}

static int call_merge(struct stage *s)
{
	return mf_folio_merge(s->world.map, s->pfn, s->scenario->order, &s->folio);
}

TAP_TEST(failure_of_alloc)
{
	static const struct scenario scenarios[] = {
		{ "alloc: order 0, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 0, .call = call_alloc, .may_fail = true },
		{ "alloc: order 5, ram, odd", TABLES, REGION(GIB + 5000, 2 * GIB, RAM), .order = 5, .call = call_alloc,
		  .may_fail = false },
		{ "alloc: order 9, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 9, .call = call_alloc, .may_fail = true },
		{ "alloc: order 12, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 12, .call = call_alloc, .may_fail = true },
		{ "alloc: order 18, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 18, .call = call_alloc },
		{ "alloc: order 0, self", TABLES, REGION(0, 2 * GIB, SELF), .order = 0, .call = call_alloc },
		{ "alloc: order 9, self", TABLES, REGION(0, 2 * GIB, SELF), .order = 9, .call = call_alloc },
		{ "alloc: order 0, linux", HOST, REGION(0, 2 * GIB, SELF), .order = 0, .call = call_alloc, .may_fail = true },
		{ "alloc: order 9, linux", HOST, REGION(0, 2 * GIB, SELF), .order = 9, .call = call_alloc, .may_fail = true },
	};

	PLAY(scenarios);
}

/*
 * One failure is made good: what is cached is drained and the split tried again.  test_folio_split has RAM that stays
 * short.
 */
TAP_TEST(failure_of_split)
{
	static const struct scenario scenarios[] = {
		{ "split: 9 to 0, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 9, .new_order = 0, .prepare = prepare_folio,
		  .call = call_split },
		{ "split: 12 to 3, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 12, .new_order = 3, .prepare = prepare_folio,
		  .call = call_split },
		{ "split: 18 to 9, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 18, .new_order = 9, .prepare = prepare_folio,
		  .call = call_split },
		{ "split: 19 to 17, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 19, .new_order = 17,
		  .prepare = prepare_folio, .call = call_split },
		{ "split: 18 to 9, self", TABLES, REGION(0, 2 * GIB, SELF), .order = 18, .new_order = 9,
		  .prepare = prepare_folio, .call = call_split },
		{ "split: 9 to 0, self", TABLES, REGION(0, 2 * GIB, SELF), .order = 9, .new_order = 0,
		  .prepare = prepare_folio, .call = call_split },
		{ "split: 12 to 3, linux", HOST, REGION(0, 2 * GIB, SELF), .order = 12, .new_order = 3,
		  .prepare = prepare_folio, .call = call_split },
		{ "split: 18 to 9, linux", HOST, REGION(0, 2 * GIB, SELF), .order = 18, .new_order = 9,
		  .prepare = prepare_folio, .call = call_split },
	};

	PLAY(scenarios);
}

TAP_TEST(failure_of_merge)
{
	static const struct scenario scenarios[] = {
		{ "merge: 0 to 9, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 9, .new_order = 0, .prepare = prepare_pieces,
		  .call = call_merge },
		{ "merge: 9 to 18, ram", TABLES, REGION(0, 2 * GIB, RAM), .order = 18, .new_order = 9, .prepare = prepare_pieces,
		  .call = call_merge },
		{ "merge: 3 to 12, self", TABLES, REGION(0, 2 * GIB, SELF), .order = 12, .new_order = 3,
		  .prepare = prepare_pieces, .call = call_merge },
		{ "merge: 3 to 12, linux", HOST, REGION(0, 2 * GIB, SELF), .order = 12, .new_order = 3,
		  .prepare = prepare_pieces, .call = call_merge },
	};

	PLAY(scenarios);
}

/* ---- Maps ------------------------------------------------------------------------------------------------------ */

static bool is_unused(const struct world *w)
{
	struct world_used used = world_used(w);

	return used.nr_ram == 0 && used.nr_meta == 0 && used.nr_fills == 0;
}

static void play_create(const char *machine, unsigned top, enum mf_map_flags flags)
{
	struct world_config config = { .machine = machine, .nr_frames = GIB, .nr_ram_frames = 1024 };
	struct mf_map_config map_config = { .span = GIB, .top = top, .flags = flags };
	struct world w;
	uint64_t n = 0;
	int err;

	if (!world_has(machine))
		return;
	TAP_REQUIRE(world_open_machine(&w, &config));
	map_config.machine = w.machine;
	do {
		world_fail(&w, WORLD_ANY, ++n);
		err = mf_map_create(&map_config, &w.map);
		world_fail_end(&w);
		if (err) {
			TAP_EQ(err, -MF_ENOMEM);
			TAP_OK(w.map == NULL && is_unused(&w));
		}
	} while (err && n < ATTEMPTS_MAX);
	TAP_NOTE("map on %s: %llu allocations", w.name, (unsigned long long)(n - 1));
	TAP_OK(n > 5 && err == 0); /* the map, its readers, the windows, the root, the zero frame, a shared table at least */
	TAP_OK(world_close(&w));
}

TAP_TEST(failure_of_map_create)
{
	play_create(TABLES, 2, MF_MAP_SHARE_TABLES);
	play_create(TABLES, 1, MF_MAP_PRIVATE_TABLES);
	play_create("sim-arm64-64k", 1, MF_MAP_SHARE_TABLES);
}

TAP_MAIN()
