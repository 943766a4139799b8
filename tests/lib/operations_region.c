/* SPDX-License-Identifier: BSD-2-Clause */
/* operations_region.c - regions come and go, of every layout and source, where there is room and where there is not. */
#include "tests/lib/operations.h"

/* ---- Adding ---------------------------------------------------------------------------------------------------- */

/* Compounds lie in whole ones, in RAM or an altmap, and are no larger than a block of the top tier. */
static bool is_misfit(const struct operations *ops, const struct mf_region_config *c)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	mf_pfn_t inside = ((mf_pfn_t)1 << c->unit_order) - 1;

	if (c->layout != MF_LAYOUT_DEVDAX)
		return c->unit_order != 0;
	return c->source == MF_SOURCE_SELF || c->unit_order > g->shift[g->top] ||
	       ((c->start_pfn | c->end_pfn | c->nr_altmap) & inside);
}

static int expected_add(const struct operations *ops, const struct mf_region_config *c)
{
	if (c->start_pfn >= c->end_pfn || is_misfit(ops, c))
		return -MF_EINVAL;
	if (c->end_pfn > ops->oracle.span)
		return -MF_E2BIG;
	return oracle_overlaps(&ops->oracle, c->start_pfn, c->end_pfn) ? -MF_EEXIST : 0;
}

bool operations_add_region(struct operations *ops, const struct mf_region_config *config)
{
	unsigned id = ORACLE_REGIONS_MAX;
	int expected = expected_add(ops, config);
	int err = mf_region_add(ops->map, config, &id);

	if (err != expected && !(operations_lack_ram(ops) && err == -MF_ENOMEM && !expected))
		return oracle_fail(&ops->oracle, "mf_region_add(%llu, %llu, %s) gave %d; %d was expected",
				   (unsigned long long)config->start_pfn, (unsigned long long)config->end_pfn,
				   mf_layout_name(config->layout), err, expected);
	operations_end(ops, err);
	if (!err) {
		oracle_region_added(&ops->oracle, id, config);
		oracle_check_range(&ops->oracle, config->start_pfn, config->end_pfn);
	}
	return !ops->oracle.failed;
}

static uint64_t frames_present(const struct operations *ops, unsigned *nr_regions)
{
	uint64_t nr = 0;

	*nr_regions = 0;
	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
		const struct oracle_region *r = &ops->oracle.region[i];

		*nr_regions += r->present;
		nr += r->present ? r->config.end_pfn - r->config.start_pfn : 0;
	}
	return nr;
}

static enum mf_layout any_layout(struct operations *ops)
{
	static const enum mf_layout others[] = { MF_LAYOUT_FLAT,    MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18,
						 MF_LAYOUT_HVO_7_1, MF_LAYOUT_HVO_7_1,	MF_LAYOUT_DEVDAX };

	if (!ops->has_classic)
		return choose(ops, 4) ? MF_LAYOUT_TIERED : MF_LAYOUT_FLAT;
	return choose(ops, 3) ? others[choose(ops, sizeof(others) / sizeof(others[0]))] : MF_LAYOUT_TIERED;
}

/* Of whole compounds, not too many of them; now and then of any. */
static void choose_compounds(struct operations *ops, struct mf_region_config *c)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	uint64_t order = choose(ops, 4) ? g->step + choose(ops, 3) : choose(ops, g->shift[g->top] + 1);
	unsigned least = mf_log2(mf_max(c->end_pfn - c->start_pfn, 1));

	least = least > 11 ? least - 11 : 0;
	c->unit_order = (unsigned)mf_max(mf_min(order, g->shift[g->top]), least);
	if (choose(ops, 8) == 0)
		return;
	c->start_pfn = mf_round_down(c->start_pfn, (mf_pfn_t)1 << c->unit_order);
	c->end_pfn = mf_round_up(c->end_pfn, (mf_pfn_t)1 << c->unit_order);
}

/*
 * In the last quarter of the span: restoring a list costs one flush, from its first slot to its last, and what lies
 * between has to be looked up anew.  Mostly in RAM; the flags say something to some sources only.  An altmap has room
 * for all slots.
 */
static void choose_classic(struct operations *ops, struct mf_region_config *c)
{
	mf_pfn_t span = ops->oracle.span, nr = mf_min(c->end_pfn - c->start_pfn, span / 32);
	uint64_t source = choose(ops, 8);

	c->start_pfn = span - span / 4 + c->start_pfn % (span / 4);
	for (unsigned i = 0; i < 8 && oracle_overlaps(&ops->oracle, c->start_pfn, c->start_pfn + nr); i++)
		c->start_pfn = span - span / 4 + choose(ops, span / 4);
	c->end_pfn = c->start_pfn + nr;
	if (c->layout == MF_LAYOUT_DEVDAX)
		choose_compounds(ops, c);
	c->flags = (unsigned)choose(ops, MF_REGION_DIET_FLAGS + 1);
	c->source = source < 2 ? MF_SOURCE_SELF : MF_SOURCE_RAM;
	nr = mf_round_up((c->end_pfn - c->start_pfn) >> (ops->oracle.page_shift - MF_DESCRIPTOR_SHIFT),
			 (mf_pfn_t)1 << c->unit_order) + ((mf_pfn_t)1 << c->unit_order);
	if (source >= 5 && c->start_pfn + nr < c->end_pfn) {
		c->source = MF_SOURCE_ALTMAP;
		c->nr_altmap = nr;
	}
}

/* Small, of some blocks of tier 1, or large; at any alignment or at a block's. */
static void region_add(struct operations *ops)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	unsigned nr_regions, size = (unsigned)choose(ops, 4), align = (unsigned)choose(ops, 4);
	uint64_t present = frames_present(ops, &nr_regions);
	mf_pfn_t start = choose(ops, ops->oracle.span), nr, unit;
	struct mf_region_config config;

	if (present < ops->frames_max / 4 * 3)
		size = 3;
	nr = choose(ops, size == 0 ? 64 : size < 3 ? (uint64_t)40 << g->step : ops->oracle.span / 3);
	unit = (mf_pfn_t)1 << (align == 0 ? 0 : align == 1 ? g->shift[1] : align == 2 ? g->shift[g->top] : 3);
	start = mf_round_down(start, unit);
	for (unsigned i = 0; i < 8 && oracle_overlaps(&ops->oracle, start, start + nr); i++)
		start = mf_round_down(choose(ops, ops->oracle.span), unit);
	config = (struct mf_region_config){
		.start_pfn = start,
		.end_pfn = align ? mf_round_up(start + nr, unit) : start + nr,
		.node = (unsigned)choose(ops, 3),
		.layout = any_layout(ops),
		.top = (unsigned)choose(ops, g->top + 1),
	};
	if (config.layout == MF_LAYOUT_TIERED || config.layout == MF_LAYOUT_FLAT)
		config.source = choose(ops, config.layout == MF_LAYOUT_FLAT ? 8 : 2) ? MF_SOURCE_RAM : MF_SOURCE_SELF;
	else
		choose_classic(ops, &config);
	operations_begin(ops, OP_REGION_ADD, config.start_pfn, config.end_pfn);
	if (nr_regions >= OPERATIONS_REGIONS || present + nr > ops->frames_max)
		return;
	operations_add_region(ops, &config);
}

/* ---- Removing -------------------------------------------------------------------------------------------------- */

/*
 * With users it must be refused.  Without, it may host map slots of others where the map lies in frames; and where
 * memory lacks, folios freed on their diet may be kept in it.
 */
static void region_remove(struct operations *ops)
{
	unsigned id = (unsigned)choose(ops, ORACLE_REGIONS_MAX);
	struct oracle_region *r = &ops->oracle.region[id];
	bool evacuate = choose(ops, 4) == 0, busy, may_refuse;
	unsigned nr_regions;
	int err;

	operations_begin(ops, OP_REGION_REMOVE, id, evacuate);
	if (r->present && evacuate && frames_present(ops, &nr_regions) > ops->frames_max / 3 * 2)
		operations_drop_range(ops, r->config.start_pfn, r->config.end_pfn);
	if (ops->oracle.failed)
		return;
	busy = r->nr_used || oracle_has_busy_compound(&ops->oracle, id);
	may_refuse = busy || (ops->on_tables && r->config.source == MF_SOURCE_SELF);
	err = mf_region_remove(ops->map, id);
	operations_end(ops, err);
	if (!r->present) {
		if (err != -MF_ENOENT)
			oracle_fail(&ops->oracle, "mf_region_remove(%u) of no region gave %d", id, err);
		return;
	}
	if (!err && !busy)
		oracle_region_removed(&ops->oracle, id);
	else if (!(err == -MF_EBUSY && may_refuse) && !(err == -MF_ENOMEM && operations_lack_ram(ops)))
		oracle_fail(&ops->oracle, "mf_region_remove(%u) gave %d with %llu frames in use", id, err,
			    (unsigned long long)r->nr_used);
	oracle_check_range(&ops->oracle, r->config.start_pfn, r->config.end_pfn);
}

void operations_run_region(struct operations *ops, enum operation what)
{
	if (what == OP_REGION_ADD)
		region_add(ops);
	else
		region_remove(ops);
}
