/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_plan_diet.c - mf_plan() of the classic diets against the engine, frame by frame, over random ranges on sim.
 *
 * A range is brought into the state that the plan speaks of: all of it handed out as units that are on the diet, the
 * lowest ones restored and used as base pages; devdax: the lowest ones compounds of one frame.  Then the map's
 * statistics, which are counted by walking the page tables, are what the plan says.
 *
 * The plan counts the range's array of descriptors alone, the engine all it has.  What it has beside the array is what
 * flat has (test_plan_engine.c holds that), so with `bare` for an array that is on no diet:
 *
 *   slots                    plan + flat - bare
 *   tables, shared           plan + flat - bare      where a unit fills no table, so that none becomes uniform
 *   tables, private          plan, one for each leaf that the plan has, those of the other windows, those for nothing
 *
 * Where the last leaf's last slot is not full, the plan takes it for full; flat maps by leaves what lies under whole
 * blocks.  Units smaller than a block are on no diet in a part of one, which the plan does not know.
 */
#include "tests/model/plan_rig.h"

/* ---- One case ---------------------------------------------------------------------------------------------------- */

struct trial {
	const char *machine;
	enum mf_scheme scheme;
	bool is_private; /* tables; else they are shared                                                  */
	struct mf_plan_input in;
	struct mf_plan plan, flat, bare;
	struct world w;
	struct folios unit, rest, base; /* held; none of devdax                                     */
	uint64_t nr_remapped;
};

static enum mf_layout layout_of(enum mf_scheme scheme)
{
	static const enum mf_layout layouts[MF_NR_SCHEMES] = {
		[MF_SCHEME_HVO_5_14] = MF_LAYOUT_HVO_5_14, [MF_SCHEME_HVO_5_18] = MF_LAYOUT_HVO_5_18,
		[MF_SCHEME_HVO_7_1] = MF_LAYOUT_HVO_7_1,   [MF_SCHEME_DEVDAX] = MF_LAYOUT_DEVDAX,
		[MF_SCHEME_DEVDAX_ALTMAP] = MF_LAYOUT_DEVDAX,
	};

	return layouts[scheme];
}

static bool is_compound(const struct trial *t)
{
	return layout_of(t->scheme) == MF_LAYOUT_DEVDAX;
}

static unsigned step_of(const struct trial *t)
{
	return t->w.machine->paging.page_shift - 3;
}

static uint64_t nr_units(const struct trial *t)
{
	return t->in.described_frames >> t->in.unit_order;
}

/* Where the split units end. */
static mf_pfn_t border(const struct trial *t)
{
	return t->in.nr_split_units << t->in.unit_order;
}

/* ---- Bringing it into the state that the plan speaks of ---------------------------------------------------------- */

/* Frames of an altmap that suffice: 8 for each block of tier 1, in whole units. */
static uint64_t altmap_frames(const struct trial *t)
{
	uint64_t slots = t->in.described_frames >> step_of(t) << 3;

	return mf_round_up(slots, (uint64_t)1 << t->in.unit_order);
}

static bool add_part(struct trial *t, mf_pfn_t start, mf_pfn_t end, unsigned unit_order)
{
	struct mf_region_config region = {
		.start_pfn = start,
		.end_pfn = end,
		.layout = layout_of(t->scheme),
		.source = t->scheme == MF_SCHEME_DEVDAX_ALTMAP ? MF_SOURCE_ALTMAP : MF_SOURCE_RAM,
		.unit_order = is_compound(t) ? unit_order : 0,
		.nr_altmap = t->scheme == MF_SCHEME_DEVDAX_ALTMAP ? altmap_frames(t) : 0,
	};

	return start == end || world_add_region(&t->w, &region, NULL) == 0;
}

/* Compounds are never split: those that the plan has split are compounds of one frame, in a region of their own. */
static bool add_all(struct trial *t)
{
	mf_pfn_t middle = is_compound(t) ? border(t) : 0;

	return add_part(t, 0, middle, 0) && add_part(t, middle, t->in.described_frames, t->in.unit_order);
}

static bool remap(struct trial *t, const struct folios *units)
{
	struct mf_list list;
	bool good = true;

	mf_list_init(&list);
	for (uint64_t i = 0; i < units->nr; i++) {
		good = mf_folio_freeze(units->folio[i], 1) && good;
		mf_list_push_back(&list, &units->folio[i]->page.list);
	}
	good = mf_diet_remap_list(t->w.map, &list, &t->nr_remapped) == 0 && good;
	for (uint64_t i = 0; i < units->nr; i++) {
		mf_list_remove(&units->folio[i]->page.list);
		mf_folio_unfreeze(units->folio[i], 1);
	}
	return good;
}

/* Kept until an allocation finds nothing else: each base page is one of theirs. */
static bool split_lowest(struct trial *t)
{
	folios_put(&t->unit, &t->w, t->in.nr_split_units);
	while (t->base.nr < border(t) && folios_add(&t->base, &t->w, 0))
		if (mf_folio_pfn(t->w.map, t->base.folio[t->base.nr - 1]) >= border(t))
			return false;
	return t->base.nr == border(t);
}

/* Private tables are there from the beginning; of shared ones those would stay that the split units' diet needed. */
static bool fill(struct trial *t)
{
	while (folios_add(&t->unit, &t->w, t->in.unit_order))
		;
	if (t->unit.nr != nr_units(t))
		return false;
	take_rest(&t->rest, &t->w, t->in.unit_order);
	folios_sort(&t->unit, mf_pfn_to_page(t->w.map, 0));
	return t->is_private ? remap(t, &t->unit) && split_lowest(t) : split_lowest(t) && remap(t, &t->unit);
}

static struct mf_plan plan_of(struct trial *t, enum mf_scheme scheme, unsigned unit_order, uint64_t nr_split)
{
	struct mf_plan_input in = t->in;
	struct mf_plan plan;

	in.unit_order = unit_order;
	in.nr_split_units = nr_split;
	TAP_EQ(mf_plan(scheme, &in, &plan), 0);
	return plan;
}

static bool trial_open(struct trial *t)
{
	struct world_config config = {
		.machine = t->machine,
		.nr_frames = t->in.described_frames,
		.flags = t->is_private ? MF_MAP_PRIVATE_TABLES : MF_MAP_SHARE_TABLES,
	};

	if (!world_open(&t->w, &config))
		return false;
	t->in.page_shift = t->w.machine->paging.page_shift;
	t->in.levels = t->w.machine->paging.levels;
	folios_init(&t->unit, nr_units(t));
	folios_init(&t->rest, REST_MAX);
	folios_init(&t->base, border(t));
	t->plan = plan_of(t, t->scheme, t->in.unit_order, t->in.nr_split_units);
	t->flat = plan_of(t, MF_SCHEME_FLAT, 0, 0);
	t->bare = plan_of(t, MF_SCHEME_HVO_7_1, 0, 0);
	return add_all(t) && (is_compound(t) || fill(t));
}

static bool trial_close(struct trial *t)
{
	folios_exit(&t->base, &t->w);
	folios_exit(&t->rest, &t->w);
	folios_exit(&t->unit, &t->w);
	return world_close(&t->w);
}

/* ---- What the engine has beside the plan ------------------------------------------------------------------------- */

static uint64_t saved_slots(const struct trial *t)
{
	if (t->scheme == MF_SCHEME_DEVDAX_ALTMAP)
		return 0;
	return mf_diet_saves(layout_of(t->scheme), t->in.page_shift, MF_DESCRIPTOR_SIZE, t->in.unit_order);
}

static uint64_t dieted_units(const struct trial *t)
{
	return saved_slots(t) > 0 ? nr_units(t) - t->in.nr_split_units : 0;
}

/* Two regions that meet inside a top block: an edge where flat has none, with 8 slots of tier 1. */
static uint64_t border_slots(const struct trial *t)
{
	unsigned shift = 2 * step_of(t);
	bool is_edge = is_compound(t) && border(t) & (((uint64_t)1 << shift) - 1);

	if (!is_edge || border(t) == t->in.described_frames)
		return 0;
	return border(t) >> shift == t->in.described_frames >> shift ? 0 : MF_BLOCK_SLOTS;
}

/* Units for which the plan has a diet, and the engine none. */
static uint64_t edge_units(const struct trial *t)
{
	uint64_t first = mf_round_down(t->in.described_frames, (uint64_t)1 << step_of(t)) >> t->in.unit_order;
	uint64_t kept_whole = mf_max(first, t->in.nr_split_units);

	if (t->in.unit_order >= step_of(t) || dieted_units(t) == 0)
		return 0;
	return nr_units(t) - mf_min(kept_whole, nr_units(t));
}

/* A zone's frame of tails comes with the first unit that it serves, and stays when the last one has gone. */
static uint64_t tails(const struct trial *t, bool are_there)
{
	return t->scheme == MF_SCHEME_HVO_7_1 && are_there;
}

static uint64_t leaf_frames(const struct trial *t)
{
	return (uint64_t)1 << (2 * t->in.page_shift - 3 - MF_DESCRIPTOR_SHIFT);
}

/* Of the array, in frames: rounded up to a slot. */
static mf_pfn_t array_end(const struct trial *t)
{
	return mf_round_up(t->in.described_frames, (uint64_t)1 << (t->in.page_shift - MF_DESCRIPTOR_SHIFT));
}

static bool has_dieted_part(const struct trial *t, mf_pfn_t start, mf_pfn_t end)
{
	mf_pfn_t dieted_end = border(t) + (dieted_units(t) << t->in.unit_order);

	return mf_max(start, border(t)) < mf_min(end, dieted_end);
}

/* Leaves of level 1 that the plan maps the array by: whole ones, with no part of a unit that is on the diet. */
static uint64_t leaves_planned(const struct trial *t)
{
	uint64_t size = leaf_frames(t), nr = 0;

	if (t->scheme == MF_SCHEME_DEVDAX || (t->scheme == MF_SCHEME_DEVDAX_ALTMAP && t->in.page_shift != 12))
		return 0;
	for (mf_pfn_t pfn = 0; pfn + size <= array_end(t); pfn += size)
		nr += !has_dieted_part(t, pfn, pfn + size);
	return nr;
}

/* One that the plan has taken for a whole leaf until a part of it went on the diet, and flat never. */
static uint64_t last_leaf(const struct trial *t)
{
	mf_pfn_t start = mf_round_down(t->in.described_frames, leaf_frames(t));

	return start + leaf_frames(t) == array_end(t) && has_dieted_part(t, start, array_end(t));
}

/* Tables that lead to the descriptors of the upper tiers, and not to those of tier 0. */
static uint64_t upper_tables(const struct trial *t)
{
	const struct mf_geometry *g = mf_map_geometry(t->w.map);
	uint64_t nr = 0;

	for (unsigned level = 0; level + 1 < t->in.levels; level++) {
		unsigned shift = t->in.page_shift + step_of(t) * (level + 1);
		uintptr_t next = 0;

		for (unsigned tier = 0; tier <= g->top; tier++) {
			const struct mf_page *last = mf_geometry_descriptor(g, tier, t->in.described_frames - 1);
			uintptr_t from = mf_max(g->window[tier] >> shift, next), to = ((uintptr_t)last >> shift) + 1;

			nr += tier > 0 && to > from ? to - from : 0;
			next = mf_max(to, next);
		}
	}
	return nr;
}

static uint64_t tables_expected(const struct trial *t)
{
	if (!t->is_private)
		return t->plan.table_frames + t->flat.table_frames - t->bare.table_frames - last_leaf(t);
	/* Those for nothing: one for each level below the root, which all maps share. */
	return t->plan.table_frames + leaves_planned(t) + upper_tables(t) + t->in.levels - 1;
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

/* Slots of the range's map, the zero frame's among them. */
static uint64_t slots_expected(const struct trial *t)
{
	uint64_t array = t->plan.descriptor_frames + edge_units(t) * saved_slots(t);

	array += tails(t, t->nr_remapped > 0) - tails(t, dieted_units(t) > 0);
	return array + t->flat.descriptor_frames - t->bare.descriptor_frames + border_slots(t);
}

static bool trial_compare(struct trial *t)
{
	uint64_t nr_dieted = dieted_units(t) - edge_units(t);
	struct mf_map_stats stats;
	bool good;

	mf_map_stats(t->w.map, &stats);
	good = same("descriptor frames", stats.nr_slots + stats.nr_zero, slots_expected(t));
	good = same("table frames", stats.nr_tables, tables_expected(t)) && good;
	good = same("units on the diet", stats.nr_dieted, nr_dieted) && good;
	good = same("aliases", stats.nr_aliases, nr_dieted * saved_slots(t)) && good;
	if (t->scheme == MF_SCHEME_DEVDAX_ALTMAP) {
		good = same("units", stats.nr_device >> t->in.unit_order, t->plan.nr_units_obtainable) && good;
		good = same("hosted frames", stats.nr_map, t->plan.hosted_frames) && good;
	}
	return world_check(&t->w) && good;
}

static bool trial_run(struct trial *t)
{
	bool good = trial_open(t);

	good = good && trial_compare(t);
	good = trial_close(t) && good;
	if (!good)
		TAP_NOTE("%s %s, %s tables, %llu frames, units of order %u, %llu of them split", t->machine,
			 mf_scheme_name(t->scheme), t->is_private ? "private" : "shared",
			 (unsigned long long)t->in.described_frames, t->in.unit_order,
			 (unsigned long long)t->in.nr_split_units);
	return good;
}

/* ---- Random cases ------------------------------------------------------------------------------------------------ */

/* 2 MiB and 1 GiB where pages are 4 KiB; of other pages the same number of slots; or any that has a slot or about. */
static unsigned random_order(unsigned b)
{
	const unsigned orders[] = { b, b, b, 2 * b, 2 * b, b + 1, b + 4, 2 * b - 1 };

	return random_below(3) > 0 ? orders[random_below(8)] : b - 4 + (unsigned)random_below(b + 5);
}

/* None, all, or about some of them. */
static uint64_t random_split(uint64_t nr)
{
	switch (random_below(4)) {
	case 0:
		return 0;
	case 1:
		return random_below(4) ? random_below(nr + 1) : nr;
	default:
		return random_below(mf_min(nr, 16) + 1);
	}
}

static struct trial random_hvo(enum mf_scheme scheme)
{
	unsigned m = (unsigned)random_below(NR_MACHINES), b = machines[m].b;
	struct trial t = { .machine = machines[m].name, .scheme = scheme };

	t.in.described_frames = random_size(machines[m].flat_frames_max, b);
	t.in.unit_order = (unsigned)mf_min(random_order(b), mf_log2(t.in.described_frames));
	t.in.nr_split_units = random_split(t.in.described_frames >> t.in.unit_order);
	/* Of 2^b slots, each of 2^b / 8 descriptors. */
	t.is_private = t.in.unit_order > 2 * b - 3 || random_below(2);
	return t;
}

/* Whole units in whole blocks: a compound in a part of a block is on no diet, which the plan does not know. */
static struct trial random_compound(enum mf_scheme scheme)
{
	unsigned m = (unsigned)random_below(NR_MACHINES), b = machines[m].b;
	struct trial t = { .machine = machines[m].name, .scheme = scheme, .is_private = true };
	unsigned inside;

	t.in.unit_order = (unsigned)mf_min(random_order(b), mf_log2(machines[m].flat_frames_max) - 1);
	inside = t.in.unit_order > b ? t.in.unit_order : b;
	t.in.described_frames = (2 + random_below((machines[m].flat_frames_max >> inside) - 1)) << inside;
	if (scheme == MF_SCHEME_DEVDAX && t.in.unit_order >= b)
		t.in.nr_split_units = random_split(t.in.described_frames >> t.in.unit_order);
	return t;
}

/* On an altmap what fills no leaf is in RAM; the engine puts all slots on the device. */
static struct trial random_altmap(void)
{
	struct trial t = random_compound(MF_SCHEME_DEVDAX_ALTMAP);
	uint64_t leaf_frames = (uint64_t)1 << 15;

	if (strcmp(t.machine, "sim") == 0 || strcmp(t.machine, "sim-5") == 0) {
		t.in.described_frames = mf_max(mf_round_down(t.in.described_frames, leaf_frames), leaf_frames);
		t.in.unit_order = (unsigned)mf_min(t.in.unit_order, mf_log2(t.in.described_frames) - 1);
	}
	return t;
}

static bool trial_of_hvo_5_14(void)
{
	struct trial t = random_hvo(MF_SCHEME_HVO_5_14);

	return trial_run(&t);
}

static bool trial_of_hvo_5_18(void)
{
	struct trial t = random_hvo(MF_SCHEME_HVO_5_18);

	return trial_run(&t);
}

static bool trial_of_hvo_7_1(void)
{
	struct trial t = random_hvo(MF_SCHEME_HVO_7_1);

	return trial_run(&t);
}

static bool trial_of_devdax(void)
{
	struct trial t = random_compound(MF_SCHEME_DEVDAX);

	return trial_run(&t);
}

static bool trial_of_altmap(void)
{
	struct trial t = random_altmap();

	return trial_run(&t);
}

/* Two slots kept.  R-HVO-8 */
TAP_TEST(plan_of_hvo_5_14_is_what_the_engine_builds)
{
	run_many(trial_of_hvo_5_14, 32);
}

/* One slot kept, no frame for the zone.  R-HVO-2 */
TAP_TEST(plan_of_hvo_5_18_is_what_the_engine_builds)
{
	run_many(trial_of_hvo_5_18, 32);
}

/* N * (V - 1) frames less the one of tails and the tables for leaves.  R-HVO-2, R-HVO-6, R-SCN-22 */
TAP_TEST(plan_of_hvo_7_1_is_what_the_engine_builds)
{
	run_many(trial_of_hvo_7_1, 32);
}

/* R-DAX-6, R-DAX-7 */
TAP_TEST(plan_of_devdax_is_what_the_engine_builds)
{
	run_many(trial_of_devdax, 32);
}

/* Nothing is deduplicated.  R-DAX-4 */
TAP_TEST(plan_of_devdax_altmap_is_what_the_engine_builds)
{
	run_many(trial_of_altmap, 32);
}

TAP_MAIN()
