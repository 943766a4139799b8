/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_plan_engine.c - mf_plan() of flat and tiered against the engine, frame by frame, over random ranges on sim.
 *
 * A range is brought into the state that the plan speaks of: all of it handed out as units, the lowest ones freed and
 * used up as base pages, nothing in a cache.  Then the map's statistics, which are counted by walking the page tables,
 * are what the plan says.
 */
#include "tests/model/plan_rig.h"

/* ---- One case ---------------------------------------------------------------------------------------------------- */

struct trial {
	const char *machine;
	enum mf_layout layout;
	struct mf_plan_input in;
	struct mf_plan plan;
	struct world w;
	struct folios unit, rest, base; /* held                                                     */
	uint64_t nr_obtained;           /* units that could be had before any was split             */
};

static void trial_name(const struct trial *t, char *text, size_t size)
{
	(void)mf_format(text, size, "%s %s, source %s, %llu frames, units of order %u, %llu of them split, top %u",
			t->machine, mf_layout_name(t->layout), mf_source_name(t->in.source),
			(unsigned long long)t->in.described_frames, t->in.unit_order,
			(unsigned long long)t->in.nr_split_units, t->in.top);
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
	folios_init(&t->unit, t->in.described_frames >> t->in.unit_order);
	folios_init(&t->rest, REST_MAX);
	folios_init(&t->base, t->in.nr_split_units << t->in.unit_order);
	return mf_plan(scheme, &t->in, &t->plan) == 0 && world_add_region(&t->w, &region, NULL) == 0;
}

static bool trial_close(struct trial *t)
{
	folios_exit(&t->base, &t->w);
	folios_exit(&t->rest, &t->w);
	folios_exit(&t->unit, &t->w);
	return world_close(&t->w);
}

/* ---- Bringing it into the state that the plan speaks of ---------------------------------------------------------- */

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
	uint64_t nr = t->unit.nr - mf_min(whole, t->unit.nr);

	if (t->unit.nr == 0)
		return;
	folios_sort(&t->unit, mf_geometry_descriptor(g, mf_page_tier(t->w.map, &t->unit.folio[0]->page),
						     first_set_aside(t)));
	folios_put(&t->unit, &t->w, nr);
	while (t->base.nr < nr_base && free_frames(&t->w) > 0) {
		/* What the stock keeps would be missed in the end, and one more block split for it. */
		if (nr_base - t->base.nr < 256)
			TAP_EQ(mf_drain(t->w.map), 0);
		if (!folios_add(&t->base, &t->w, 0))
			break;
	}
}

static void trial_fill(struct trial *t)
{
	while (folios_add(&t->unit, &t->w, t->in.unit_order))
		;
	t->nr_obtained = t->unit.nr;
	if (t->layout == MF_LAYOUT_FLAT)
		return;
	take_rest(&t->rest, &t->w, t->in.unit_order);
	if (t->in.unit_order > 0 && t->in.nr_split_units > 0)
		split_lowest(t);
	TAP_EQ(mf_drain(t->w.map), 0);
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

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

static struct trial random_flat(void)
{
	unsigned m = (unsigned)random_below(NR_MACHINES);
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
	unsigned m = (unsigned)random_below(NR_MACHINES), b = machines[m].b;
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

static bool trial_flat(void)
{
	struct trial t = random_flat();

	return trial_run(&t);
}

static bool trial_tiered(void)
{
	struct trial t = random_tiered();

	return trial_run(&t);
}

/* R-MEM-24 */
TAP_TEST(plan_of_flat_is_what_the_engine_builds)
{
	run_many(trial_flat, 60);
}

TAP_TEST(plan_of_tiered_is_what_the_engine_builds)
{
	run_many(trial_tiered, 100);
}

TAP_MAIN()
