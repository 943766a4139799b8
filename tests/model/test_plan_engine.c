/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_plan_engine.c - mf_plan() against the engine, frame by frame, over random ranges on sim.
 *
 * A range is brought into the state that the plan speaks of: all of it handed out as units, the lowest ones freed and
 * used up as base pages, nothing in a cache.  Then the map's statistics, which are counted by walking the page tables,
 * are what the plan says.
 *
 * MF_SEED=n replays one run of ranges; MF_SOAK makes it 20 times as long, with ranges of its own.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* ---- One case ---------------------------------------------------------------------------------------------------- */

enum { REST_MAX = 1 << 17 };

struct trial {
	const char *machine;
	enum mf_layout layout;
	struct mf_plan_input in;
	struct mf_plan plan;
	struct world w;
	struct mf_folio **unit, **rest, **base;
	uint64_t nr_units, nr_rest, nr_base; /* held                                           */
	uint64_t nr_obtained;                /* units that could be had before any was split   */
};

static void trial_name(const struct trial *t, char *text, size_t size)
{
	(void)mf_format(text, size, "%s %s, source %s, %llu frames, units of order %u, %llu of them split, top %u",
			t->machine, mf_layout_name(t->layout), mf_source_name(t->in.source),
			(unsigned long long)t->in.described_frames, t->in.unit_order,
			(unsigned long long)t->in.nr_split_units, t->in.top);
}

static struct mf_folio **list_of(uint64_t nr)
{
	struct mf_folio **list = calloc(nr ? nr : 1, sizeof(struct mf_folio *));

	MF_PANIC_IF(!list, "the test has no memory for its list of folios.");
	return list;
}

static bool trial_open(struct trial *t)
{
	struct mf_region_config region = {
		.end_pfn = t->in.described_frames,
		.layout = t->layout,
		.source = t->in.source,
		.top = t->layout == MF_LAYOUT_TIERED ? t->in.top : 0,
	};
	enum mf_scheme scheme = t->layout == MF_LAYOUT_FLAT ? MF_SCHEME_FLAT : MF_SCHEME_TIERED;

	struct world_config config = { .machine = t->machine, .nr_frames = t->in.described_frames };

	if (!world_open(&t->w, &config))
		return false;
	t->in.page_shift = t->w.machine->paging.page_shift;
	t->in.levels = t->w.machine->paging.levels;
	t->unit = list_of(t->in.described_frames >> t->in.unit_order);
	t->rest = list_of(REST_MAX);
	t->base = list_of(t->in.nr_split_units << t->in.unit_order);
	return mf_plan(scheme, &t->in, &t->plan) == 0 && world_add_region(&t->w, &region, NULL) == 0;
}

static void put_all(struct trial *t, struct mf_folio **list, uint64_t *nr)
{
	while (*nr > 0)
		mf_folio_put(t->w.map, list[--*nr]);
}

static bool trial_close(struct trial *t)
{
	put_all(t, t->base, &t->nr_base);
	put_all(t, t->rest, &t->nr_rest);
	put_all(t, t->unit, &t->nr_units);
	free(t->unit);
	free(t->rest);
	free(t->base);
	return world_close(&t->w);
}

/* ---- Bringing it into the state that the plan speaks of ---------------------------------------------------------- */

static uint64_t free_frames(struct trial *t)
{
	struct mf_zone_info info;
	uint64_t nr = 0;

	for (unsigned zone = 0; mf_zone_info(t->w.map, zone, &info) == 0; zone++)
		nr += info.nr_free;
	return nr;
}

/* Frames behind the last unit: in pieces as large as they come, so that nothing is split for them. */
static void take_rest(struct trial *t)
{
	for (unsigned order = t->in.unit_order; order-- > 0;) {
		while (t->nr_rest < REST_MAX && free_frames(t) >> order) {
			struct mf_folio *folio = world_alloc(&t->w, order);

			if (!folio)
				break;
			t->rest[t->nr_rest++] = folio;
		}
	}
}

/* Where set-aside blocks begin, or 0: in the top block that was split first; the plan has that as the lowest. */
static mf_pfn_t first_set_aside(const struct trial *t)
{
	const struct mf_geometry *g = mf_map_geometry(t->w.map);
	uint64_t step = (uint64_t)1 << g->shift[1];

	for (mf_pfn_t pfn = 0; pfn < t->in.described_frames; pfn += step) {
		const struct mf_page *page = mf_geometry_descriptor(g, 1, pfn);

		if (mf_page_kind(page) == MF_KIND_SPLIT && mf_page_word(page) & MF_FLAG_SET_ASIDE)
			return pfn;
	}
	return 0;
}

static uintptr_t lowest; /* address of the head that comes first */

/* Heads of one tier: their addresses are in the order of their pfns.  What lies below the lowest comes last. */
static int by_address(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)*(struct mf_folio *const *)a - lowest;
	uintptr_t y = (uintptr_t)*(struct mf_folio *const *)b - lowest;

	return (x > y) - (x < y);
}

/* Base pages that the split units give if all they host is their own slots; else all that can be had. */
static uint64_t base_pages(const struct trial *t)
{
	unsigned b = t->w.machine->paging.page_shift - 3;
	uint64_t frames = t->in.nr_split_units << t->in.unit_order;
	bool is_self = t->in.source == MF_SOURCE_SELF && t->in.unit_order < 2 * b;

	return is_self ? (frames >> b) * (((uint64_t)1 << b) - MF_BLOCK_SLOTS) : frames;
}

/* The lowest units are freed, with those that the plan says are lost for the map, and used as base pages. */
static void split_lowest(struct trial *t)
{
	const struct mf_geometry *g = mf_map_geometry(t->w.map);
	uint64_t whole = t->plan.nr_units_obtainable - t->in.nr_split_units, nr_base = base_pages(t);
	uint64_t nr = t->nr_units - mf_min(whole, t->nr_units);

	if (t->nr_units == 0)
		return;
	lowest = (uintptr_t)mf_geometry_descriptor(g, mf_page_tier(t->w.map, &t->unit[0]->page), first_set_aside(t));
	qsort(t->unit, t->nr_units, sizeof(struct mf_folio *), by_address);
	for (uint64_t i = 0; i < nr; i++)
		mf_folio_put(t->w.map, t->unit[i]);
	memmove(t->unit, t->unit + nr, (t->nr_units - nr) * sizeof(struct mf_folio *));
	t->nr_units -= nr;
	while (t->nr_base < nr_base && free_frames(t) > 0) {
		struct mf_folio *folio;

		/* What the stock keeps would be missed in the end, and one more block split for it. */
		if (nr_base - t->nr_base < 256)
			TAP_EQ(mf_drain(t->w.map), 0);
		folio = world_alloc(&t->w, 0);
		if (!folio)
			break;
		t->base[t->nr_base++] = folio;
	}
}

static void trial_fill(struct trial *t)
{
	uint64_t nr_max = t->in.described_frames >> t->in.unit_order;

	while (t->nr_units < nr_max && (t->unit[t->nr_units] = world_alloc(&t->w, t->in.unit_order)) != NULL)
		t->nr_units++;
	t->nr_obtained = t->nr_units;
	if (t->layout == MF_LAYOUT_FLAT)
		return;
	take_rest(t);
	if (t->in.unit_order > 0 && t->in.nr_split_units > 0)
		split_lowest(t);
	TAP_EQ(mf_drain(t->w.map), 0);
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

static bool same(const char *what, uint64_t engine, uint64_t plan)
{
	if (engine != plan)
		TAP_NOTE("%s: the engine has %llu, the plan says %llu", what, (unsigned long long)engine,
			 (unsigned long long)plan);
	return engine == plan;
}

static bool trial_compare(struct trial *t)
{
	struct mf_map_stats stats;
	bool good;

	mf_map_stats(t->w.map, &stats);
	good = same("descriptor frames", stats.nr_slots + stats.nr_zero, t->plan.descriptor_frames);
	good = same("table frames", stats.nr_tables, t->plan.table_frames) && good;
	good = same("hosted frames", stats.nr_map, t->plan.hosted_frames) && good;
	good = same("set-aside blocks", stats.nr_set_aside, t->plan.set_aside_blocks) && good;
	/* Small units were served by idle frames too, in the end: what plan.h counts among the obtainable ones. */
	if (t->in.unit_order >= t->w.machine->paging.page_shift - 3)
		good = same("idle frames", stats.nr_pool_idle, t->plan.pool_idle_frames) && good;
	if (t->in.nr_split_units == 0 && (t->layout == MF_LAYOUT_TIERED || t->in.source != MF_SOURCE_SELF))
		good = same("units", t->nr_obtained, t->plan.nr_units_obtainable) && good;
	return world_check(&t->w) && good;
}

static bool trial_run(struct trial *t)
{
	char name[256];
	bool good = trial_open(t);

	if (good) {
		trial_fill(t);
		good = trial_compare(t);
		good = trial_close(t) && good;
	}
	trial_name(t, name, sizeof(name));
	if (!good)
		TAP_NOTE("%s", name);
	return good;
}

/* ---- Random cases ------------------------------------------------------------------------------------------------ */

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

/* Around a border, or anywhere. */
static uint64_t random_size(uint64_t max, unsigned b)
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

static struct trial random_flat(void)
{
	unsigned m = (unsigned)random_below(4);
	struct trial t = { .machine = machines[m].name, .layout = MF_LAYOUT_FLAT };

	t.in.described_frames = random_size(machines[m].flat_frames_max, machines[m].b);
	t.in.source = random_below(2) ? MF_SOURCE_RAM : MF_SOURCE_SELF;
	t.in.unit_order = (unsigned)mf_min(machines[m].b, mf_log2(t.in.described_frames));
	return t;
}

/* Units as large as a block of either tier or about, or small ones in a range that is small enough to be all split. */
static unsigned random_order(unsigned b, uint64_t described_frames, bool small)
{
	const unsigned large[] = { b, b, b + 1, b + 3, 2 * b - 1, 2 * b, 2 * b, 2 * b + 1 };
	const unsigned order = small ? (unsigned)random_below(b) : large[random_below(8)];

	return (unsigned)mf_min(order, mf_log2(described_frames));
}

/* What may be described by base pages without taking forever. */
static uint64_t random_split(const struct trial *t, unsigned b)
{
	uint64_t nr = t->in.described_frames >> t->in.unit_order, max = ((uint64_t)1 << 17) >> t->in.unit_order;

	if (t->in.unit_order < b || random_below(2) == 0)
		return 0;
	return random_below(mf_min(nr, max) + 1);
}

static struct trial random_tiered(void)
{
	unsigned m = (unsigned)random_below(4), b = machines[m].b;
	uint64_t top = (uint64_t)1 << 2 * b;
	struct trial t = { .machine = machines[m].name, .layout = MF_LAYOUT_TIERED };
	bool small = random_below(4) == 0;

	t.in.top = 1 + (random_below(4) != 0);
	t.in.source = random_below(2) ? MF_SOURCE_RAM : MF_SOURCE_SELF;
	if (t.in.source == MF_SOURCE_SELF) {
		/*
		 * The plan promises nothing about partial top blocks; one of the largest takes too long in small
		 * units.
		 */
		small = small && b == 9;
		t.in.described_frames = (small ? 1 : 1 + random_below(machines[m].tops_max)) * top;
	} else {
		t.in.described_frames = random_size(small ? (uint64_t)1 << 17 : machines[m].tops_max * top, b);
	}
	t.in.unit_order = random_order(b, t.in.described_frames, small);
	t.in.nr_split_units = random_split(&t, b);
	return t;
}

static void run_many(struct trial (*random_trial)(void), unsigned nr)
{
	const char *seed = getenv("MF_SEED"), *soak = getenv("MF_SOAK");
	uint64_t first = seed ? strtoull(seed, NULL, 0) : soak ? (uint64_t)time(NULL) : nr;
	unsigned nr_bad = 0;

	random_state = first;
	TAP_NOTE("MF_SEED=%llu", (unsigned long long)first);
	for (unsigned i = 0; i < nr * (soak ? 20u : 1u) && nr_bad < 8; i++) {
		struct trial t = random_trial();

		nr_bad += !trial_run(&t);
	}
	TAP_EQ(nr_bad, 0);
}

TAP_TEST(plan_of_flat_is_what_the_engine_builds)
{
	run_many(random_flat, 60);
}

TAP_TEST(plan_of_tiered_is_what_the_engine_builds)
{
	run_many(random_tiered, 100);
}

TAP_MAIN()
