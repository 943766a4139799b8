/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan.c - what flat and tiered cost, and the one entry for all schemes.
 *
 * Owns constant tables.  Law: what plan.h says under "How it counts", frame by frame what the engine builds.  All
 * sums stay below 2^64 because a range is at most 1 EiB: its windows take less than 2^55 addresses.
 */
#include "plan_count.h"

static const char *const scheme_names[MF_NR_SCHEMES] = {
	[MF_SCHEME_FLAT] = "flat",
	[MF_SCHEME_HVO_5_14] = "hvo-5.14",
	[MF_SCHEME_HVO_5_18] = "hvo-5.18",
	[MF_SCHEME_HVO_7_1] = "hvo-7.1",
	[MF_SCHEME_DEVDAX] = "devdax",
	[MF_SCHEME_DEVDAX_ALTMAP] = "devdax-altmap",
	[MF_SCHEME_TIERED] = "tiered",
};

const char *mf_scheme_name(enum mf_scheme scheme)
{
	return (unsigned)scheme < MF_NR_SCHEMES ? scheme_names[scheme] : NULL;
}

int mf_scheme_by_name(const char *name, enum mf_scheme *scheme)
{
	for (unsigned i = 0; name && i < MF_NR_SCHEMES; i++) {
		const char *a = scheme_names[i], *b = name;

		while (*a && *a == *b)
			a++, b++;
		if (*a == *b) {
			*scheme = (enum mf_scheme)i;
			return 0;
		}
	}
	return -MF_EINVAL;
}

/* ---- The windows of a range ------------------------------------------------------------------------------- */

struct view {
	const struct mf_plan_input *in;
	unsigned b, unit_order, levels;
	uint64_t n;                    /* frames                                                         */
	uint64_t full_blocks, full_tops; /* whole blocks of tier 1, of tier 2                              */
	uint64_t nr_blocks, nr_tops;   /* partial ones too                                               */
	uint64_t w1, w2;               /* addresses of W_1, W_2                                          */
	uint64_t shared;               /* shared tables                                                  */
};

struct numbers {
	uint64_t start, end;
};

/* Whose slots are backed: leaves of W_0 in numbers of leaves, blocks of tier 1, top blocks.  Ascending. */
struct shape {
	uint64_t leaves;
	struct numbers blocks[3];
	struct numbers tops[2];
};

static int view_init(struct view *v, const struct mf_plan_input *in)
{
	unsigned b = in->page_shift - 3;
	uint64_t n = in->described_frames, span = (uint64_t)1 << 2 * b;
	int err;

	if (n > span)
		span = mf_is_power_of_two(n) ? n : (uint64_t)2 << mf_log2(n);
	*v = (struct view){
		.in = in,
		.b = b,
		.unit_order = in->unit_order,
		.n = n,
		.full_blocks = n >> b,
		.full_tops = n >> 2 * b,
		.nr_blocks = plan_div_up(n, (uint64_t)1 << b),
		.nr_tops = plan_div_up(n, (uint64_t)1 << 2 * b),
		.w1 = span << MF_DESCRIPTOR_SHIFT,
		.w2 = (span + (span >> b)) << MF_DESCRIPTOR_SHIFT,
	};
	err = plan_levels(in, v->w2 + (span >> 2 * b << MF_DESCRIPTOR_SHIFT), &v->levels);
	v->shared = v->levels - 1;
	return err;
}

static void shape_map(const struct view *v, const struct shape *s, struct plan_mappings *m)
{
	unsigned block_shift = v->in->page_shift + 3; /* MF_BLOCK_SLOTS slots */
	uint64_t slots_end = v->w2 + (v->nr_tops << MF_DESCRIPTOR_SHIFT);

	m->nr = 0;
	plan_map(m, 0, s->leaves << (v->in->page_shift + v->b), 1);
	for (unsigned i = 0; i < 3; i++)
		plan_map(m, s->blocks[i].start << block_shift, s->blocks[i].end << block_shift, 0);
	for (unsigned i = 0; i < 2; i++)
		plan_map(m, v->w1 + (s->tops[i].start << block_shift), v->w1 + (s->tops[i].end << block_shift), 0);
	plan_map(m, v->w2, mf_round_up(slots_end, (uint64_t)1 << v->in->page_shift), 0);
}

/* A region whose top tier is 1 has nothing but edges for top blocks. */
static uint64_t first_edge_top(const struct view *v)
{
	return v->in->top == 1 ? 0 : v->full_tops;
}

static struct shape shape_of_edges(const struct view *v)
{
	return (struct shape){
		.blocks = {[2] = {v->full_blocks, v->nr_blocks}},
		.tops = {[1] = {first_edge_top(v), v->nr_tops}},
	};
}

static void out_set(const struct view *v, const struct plan_mappings *m, struct mf_plan *out)
{
	out->levels = v->levels;
	out->descriptor_frames = plan_slots(m, v->in->page_shift) + 1; /* the zero frame */
	out->table_frames = plan_tables(m, v->in->page_shift, v->levels) + v->shared;
}

/* ---- flat -------------------------------------------------------------------------------------------------- */

static int plan_flat(const struct mf_plan_input *in, struct mf_plan *out)
{
	struct plan_mappings m;
	struct shape shape;
	struct view v;
	int err = view_init(&v, in);

	if (err)
		return err;
	shape = shape_of_edges(&v);
	shape.tops[1].start = v.full_tops; /* flat has no blocks above tier 0, so no top block is split for its size */
	if (v.levels > 2)
		shape.leaves = v.full_blocks >> (v.b - 3); /* a leaf has 2^b slots, a block 8 */
	shape.blocks[0] = (struct numbers){shape.leaves << (v.b - 3), v.nr_blocks};
	shape_map(&v, &shape, &m);
	out_set(&v, &m, out);
	if (in->source == MF_SOURCE_SELF) {
		out->hosted_frames = v.full_blocks * MF_BLOCK_SLOTS;
		out->nr_units_obtainable -= mf_min(out->nr_units,
						   plan_div_up(out->hosted_frames, (uint64_t)1 << in->unit_order));
	}
	return 0;
}

/* ---- tiered -------------------------------------------------------------------------------------------------- */

/*
 * Units that set-aside blocks take from those who want them whole.  A block may be set aside inside a split unit
 * too, and a split top block holds all it needs; units below a block of tier 1 are counted by small_units().
 */
static uint64_t units_lost(const struct view *v, uint64_t set_aside)
{
	uint64_t not_split = (v->n >> v->unit_order) - v->in->nr_split_units;

	if (v->unit_order < v->b || v->unit_order >= 2 * v->b)
		return 0;
	return mf_min(plan_div_up(set_aside, (uint64_t)1 << (v->unit_order - v->b)), not_split);
}

static struct numbers split_blocks(const struct view *v, uint64_t set_aside)
{
	unsigned shift = v->unit_order - v->b;
	uint64_t first = units_lost(v, set_aside);

	if (v->unit_order < v->b)
		return (struct numbers){0, v->full_blocks};
	return (struct numbers){first << shift, (first + v->in->nr_split_units) << shift};
}

static struct shape shape_of_tiered(const struct view *v, uint64_t set_aside)
{
	struct shape shape = shape_of_edges(v);
	struct numbers split = split_blocks(v, set_aside);
	uint64_t tops = v->unit_order < 2 * v->b ? v->full_tops : split.end >> v->b;

	shape.blocks[0] = (struct numbers){0, set_aside};
	shape.blocks[1] = split;
	shape.tops[0] = (struct numbers){0, mf_min(tops, first_edge_top(v))};
	return shape;
}

/* Frames that the map pool has to give when so many blocks are set aside. */
static uint64_t pool_demand(const struct view *v, uint64_t set_aside, uint64_t edge_tables)
{
	struct shape shape = shape_of_tiered(v, set_aside);
	struct plan_mappings m;

	shape_map(v, &shape, &m);
	return shape.tops[0].end * MF_BLOCK_SLOTS + plan_tables(&m, v->in->page_shift, v->levels) - edge_tables;
}

/* Units of less than one block of tier 1: what 8 slots leave of each block, of the pool and of the partial block. */
static uint64_t small_units(const struct view *v, uint64_t set_aside, uint64_t idle)
{
	uint64_t usable = ((uint64_t)1 << v->b) - MF_BLOCK_SLOTS, rest = v->n & (((uint64_t)1 << v->b) - 1);

	return (v->full_blocks - set_aside) * (usable >> v->unit_order) + (idle >> v->unit_order) +
	       (rest >> v->unit_order);
}

static void host_by_itself(const struct view *v, struct mf_plan *out, struct plan_mappings *m)
{
	uint64_t usable = ((uint64_t)1 << v->b) - MF_BLOCK_SLOTS, nr = 0, demand, needed;
	struct shape edges = shape_of_edges(v);
	struct plan_mappings of_edges;
	uint64_t edge_tables, ram;

	shape_map(v, &edges, &of_edges);
	edge_tables = plan_tables(&of_edges, v->in->page_shift, v->levels);
	/* 64 set-aside blocks and more share one table, and give 504 frames each: two or three rounds. */
	for (;;) {
		demand = pool_demand(v, nr, edge_tables);
		needed = plan_div_up(demand, usable);
		if (needed <= nr)
			break;
		nr = needed;
	}
	edges = shape_of_tiered(v, nr);
	shape_map(v, &edges, m);
	out_set(v, m, out);
	ram = plan_slots(&of_edges, v->in->page_shift) + 1 + edge_tables + v->shared;
	out->hosted_frames = out->descriptor_frames + out->table_frames - ram;
	out->set_aside_blocks = nr;
	out->pool_idle_frames = nr * usable - demand;
	if (v->unit_order < v->b)
		out->nr_units_obtainable = small_units(v, nr, out->pool_idle_frames);
	else
		out->nr_units_obtainable -= units_lost(v, nr);
}

static int plan_tiered(const struct mf_plan_input *in, struct mf_plan *out)
{
	struct plan_mappings m;
	struct shape shape;
	struct view v;
	int err = view_init(&v, in);

	if (err)
		return err;
	if (in->source == MF_SOURCE_SELF) {
		host_by_itself(&v, out, &m);
		return 0;
	}
	shape = shape_of_tiered(&v, 0);
	shape_map(&v, &shape, &m);
	out_set(&v, &m, out);
	return 0;
}

/* ---- The entry ------------------------------------------------------------------------------------------------- */

static int input_check(enum mf_scheme scheme, const struct mf_plan_input *in)
{
	if ((unsigned)scheme >= MF_NR_SCHEMES || (unsigned)in->source >= MF_NR_SOURCES)
		return -MF_EINVAL;
	if (in->page_shift != 12 && in->page_shift != 14 && in->page_shift != 16)
		return -MF_EINVAL;
	if (in->levels == 1 || in->levels > MF_PGTABLE_LEVELS_MAX || in->top > 2 || in->described_frames == 0)
		return -MF_EINVAL;
	if (in->described_frames > MF_PLAN_BYTES_MAX >> in->page_shift)
		return -MF_E2BIG;
	if (in->unit_order > mf_log2(in->described_frames) ||
	    in->nr_split_units > in->described_frames >> in->unit_order)
		return -MF_EINVAL;
	return 0;
}

int mf_plan(enum mf_scheme scheme, const struct mf_plan_input *in, struct mf_plan *out)
{
	struct mf_plan plan = {.nr_units = 0};
	int err = input_check(scheme, in);

	if (err)
		return err;
	plan.nr_units = in->described_frames >> in->unit_order;
	plan.nr_units_obtainable = plan.nr_units;
	if (scheme == MF_SCHEME_FLAT)
		err = plan_flat(in, &plan);
	else if (scheme == MF_SCHEME_TIERED)
		err = plan_tiered(in, &plan);
	else
		err = plan_linux(scheme, in, &plan);
	if (err)
		return err;
	plan.total_frames = plan.descriptor_frames + plan.table_frames;
	plan.described_bytes = in->described_frames << in->page_shift;
	plan.descriptor_bytes = plan.descriptor_frames << in->page_shift;
	plan.table_bytes = plan.table_frames << in->page_shift;
	plan.total_bytes = plan.total_frames << in->page_shift;
	plan.pool_idle_bytes = plan.pool_idle_frames << in->page_shift;
	*out = plan;
	return 0;
}

int mf_plan_split_units(uint64_t nr_units, uint64_t numerator, uint64_t denominator, uint64_t *nr_split)
{
	if (denominator == 0 || denominator > (uint64_t)1 << 32 || numerator > denominator)
		return -MF_EINVAL;
	/* In two steps: the product of the whole may not fit, that of the remainder does. */
	*nr_split = nr_units / denominator * numerator + nr_units % denominator * numerator / denominator;
	return 0;
}
