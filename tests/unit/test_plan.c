/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_plan.c - the plan against what Linux was measured to cost, against figures worked out by hand, and against a
 * naive count that marks every slot of every window in turn.
 */
#include <memfold/plan.h>
#include <stdlib.h>
#include <string.h>
#include "tests/tap.h"

static struct mf_plan plan_of(enum mf_scheme scheme, const struct mf_plan_input *in)
{
	struct mf_plan out;

	memset(&out, 0, sizeof(out));
	TAP_EQ(mf_plan(scheme, in, &out), 0);
	return out;
}

static struct mf_plan_input range(uint64_t bytes, uint64_t unit)
{
	return (struct mf_plan_input){
		.described_frames = bytes >> 12,
		.page_shift = 12,
		.unit_order = mf_log2(unit) - 12,
		.source = MF_SOURCE_RAM,
	};
}

/* ---- Names and refusals ---------------------------------------------------------------------------------- */

TAP_TEST(plan_names_schemes_both_ways)
{
	enum mf_scheme scheme;

	for (unsigned i = 0; i < MF_NR_SCHEMES; i++) {
		TAP_REQUIRE(mf_scheme_by_name(mf_scheme_name((enum mf_scheme)i), &scheme) == 0);
		TAP_EQ(scheme, i);
	}
	TAP_OK(mf_scheme_name(MF_NR_SCHEMES) == NULL);
	TAP_EQ(mf_scheme_by_name("hvo", &scheme), -MF_EINVAL);
	TAP_EQ(mf_scheme_by_name("tieredd", &scheme), -MF_EINVAL);
	TAP_EQ(mf_scheme_by_name("", &scheme), -MF_EINVAL);
}

TAP_TEST(plan_shares_its_vocabulary_with_layouts)
{
	enum mf_scheme scheme;

	for (unsigned i = 0; i < MF_NR_LAYOUTS; i++)
		TAP_EQ(mf_scheme_by_name(mf_layout_name((enum mf_layout)i), &scheme), 0);
}

static void refuses(struct mf_plan_input in, int error)
{
	struct mf_plan out, before;

	memset(&out, 0x5a, sizeof(out));
	memcpy(&before, &out, sizeof(out));
	for (unsigned i = 0; i < MF_NR_SCHEMES; i++)
		TAP_EQ(mf_plan((enum mf_scheme)i, &in, &out), error);
	TAP_OK(memcmp(&before, &out, sizeof(out)) == 0);
}

TAP_TEST(plan_refuses_what_cannot_be)
{
	struct mf_plan_input good = range(MF_GIB, 2 * MF_MIB), in;
	struct mf_plan out;

	TAP_EQ(mf_plan(MF_NR_SCHEMES, &good, &out), -MF_EINVAL);
	in = good, in.described_frames = 0, refuses(in, -MF_EINVAL);
	in = good, in.page_shift = 13, refuses(in, -MF_EINVAL);
	in = good, in.levels = 1, refuses(in, -MF_EINVAL);
	in = good, in.levels = 7, refuses(in, -MF_EINVAL);
	in = good, in.top = 3, refuses(in, -MF_EINVAL);
	in = good, in.unit_order = 19, refuses(in, -MF_EINVAL);
	in = good, in.unit_order = 4000000000u, refuses(in, -MF_EINVAL);
	in = good, in.nr_split_units = 513, refuses(in, -MF_EINVAL);
	in = good, in.source = MF_NR_SOURCES, refuses(in, -MF_EINVAL);
	in = good, in.described_frames = (MF_PLAN_BYTES_MAX >> 12) + 1, refuses(in, -MF_E2BIG);
	in = good, in.described_frames = UINT64_MAX, refuses(in, -MF_E2BIG);
	in = range(64 * MF_TIB, MF_GIB), in.levels = 3, refuses(in, -MF_E2BIG);
}

TAP_TEST(plan_splits_shares_of_any_number)
{
	uint64_t n = 77;

	TAP_EQ(mf_plan_split_units(UINT64_MAX, 999999999, 1000000000, &n), 0);
	TAP_EQ(n, UINT64_MAX / 1000000000 * 999999999 + UINT64_MAX % 1000000000 * 999999999 / 1000000000);
	TAP_EQ(mf_plan_split_units(10, 1, 3, &n), 0);
	TAP_EQ(n, 3);
	TAP_EQ(mf_plan_split_units(10, 1, 0, &n), -MF_EINVAL);
	TAP_EQ(mf_plan_split_units(10, 4, 3, &n), -MF_EINVAL);
	TAP_EQ(mf_plan_split_units(10, 1, UINT64_MAX, &n), -MF_EINVAL);
	TAP_EQ(n, 3);
}

/* ---- Figures ---------------------------------------------------------------------------------------------- */

/* Measured on Linux, per TiB of 2 MiB pages: 16384 and 2080 MiB; device DAX 16512 KiB per 4 GiB; and upper tables. */
TAP_TEST(plan_reproduces_linux_per_tib)
{
	struct mf_plan_input in = range(MF_TIB, 2 * MF_MIB);

	TAP_EQ(plan_of(MF_SCHEME_FLAT, &in).total_bytes >> 20, 16384);
	TAP_EQ(plan_of(MF_SCHEME_HVO_5_14, &in).total_bytes, 4128 * MF_MIB + 64 * MF_KIB);
	TAP_EQ(plan_of(MF_SCHEME_HVO_5_18, &in).total_bytes, 2080 * MF_MIB + 64 * MF_KIB);
	TAP_EQ(plan_of(MF_SCHEME_HVO_7_1, &in).total_bytes, 2080 * MF_MIB + 68 * MF_KIB);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX, &in).total_bytes, 4128 * MF_MIB + 64 * MF_KIB);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX_ALTMAP, &in).descriptor_bytes, 16384 * MF_MIB);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX_ALTMAP, &in).table_bytes, 64 * MF_KIB);
}

/* Floors of a window: 4096 + 64 bytes per 2 MiB, 4096 + 32768 per GiB, when every slot has an entry of its own. */
TAP_TEST(plan_reproduces_linux_per_unit)
{
	struct mf_plan_input small = range(MF_TIB, 2 * MF_MIB), large = range(MF_TIB, MF_GIB);
	const uint64_t upper = 64 * MF_KIB;

	TAP_EQ((plan_of(MF_SCHEME_HVO_5_18, &small).total_bytes - upper) / (MF_TIB / (2 * MF_MIB)), 4096 + 64);
	TAP_EQ((plan_of(MF_SCHEME_DEVDAX, &small).total_bytes - upper) / (MF_TIB / (2 * MF_MIB)), 8192 + 64);
	TAP_EQ((plan_of(MF_SCHEME_DEVDAX_ALTMAP, &small).total_bytes - upper) / (MF_TIB / (2 * MF_MIB)), 32768);
	TAP_EQ((plan_of(MF_SCHEME_DEVDAX_ALTMAP, &large).total_bytes - upper) / 1024, 16 * MF_MIB);
	TAP_EQ((plan_of(MF_SCHEME_HVO_5_18, &large).total_bytes - upper) / 1024, 4096 + 32768);
	TAP_EQ((plan_of(MF_SCHEME_DEVDAX, &large).total_bytes - upper) / 1024, 8192 + 32768);
}

/* HVO needs two slots a unit, device DAX and hvo-5.14 three; smaller units stay as they are. */
TAP_TEST(plan_keeps_small_units_whole)
{
	struct mf_plan_input in = range(MF_GIB, 256 * MF_KIB);
	const uint64_t all = MF_GIB / 64 / 4096;

	TAP_EQ(plan_of(MF_SCHEME_HVO_5_18, &in).descriptor_frames, all);
	in = range(MF_GIB, 512 * MF_KIB);
	TAP_EQ(plan_of(MF_SCHEME_HVO_5_18, &in).descriptor_frames, all / 2);
	TAP_EQ(plan_of(MF_SCHEME_HVO_7_1, &in).descriptor_frames, all / 2 + 1);
	TAP_EQ(plan_of(MF_SCHEME_HVO_5_14, &in).descriptor_frames, all);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX, &in).descriptor_frames, all);
	in = range(MF_GIB, MF_MIB);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX, &in).descriptor_frames, all / 2);
	in.nr_split_units = 1024;
	TAP_EQ(plan_of(MF_SCHEME_HVO_7_1, &in).descriptor_frames, all);
}

/*
 * 1 GiB: 8 leaves of 2 MiB of descriptors, each of 64 units of 2 MiB; a level-1 table, and level-0 ones under the
 * diet.
 * R-MEM-20
 */
TAP_TEST(plan_maps_undieted_units_by_leaves)
{
	struct mf_plan_input in = range(MF_GIB, 2 * MF_MIB);

	TAP_EQ(plan_of(MF_SCHEME_HVO_7_1, &in).table_frames, 1 + 8);
	in.nr_split_units = 512;
	TAP_EQ(plan_of(MF_SCHEME_HVO_7_1, &in).table_frames, 1);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX, &in).table_frames, 1 + 8);
	in.nr_split_units = 511;
	TAP_EQ(plan_of(MF_SCHEME_HVO_7_1, &in).table_frames, 1 + 1);
	in.nr_split_units = 128;
	TAP_EQ(plan_of(MF_SCHEME_HVO_5_14, &in).table_frames, 1 + 6);
	in = range(MF_GIB, 64 * MF_KIB);
	TAP_EQ(plan_of(MF_SCHEME_HVO_5_18, &in).table_frames, 1);
	in = range(MF_GIB + 2 * MF_MIB, 2 * MF_MIB);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX_ALTMAP, &in).table_frames, 1 + 1);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX_ALTMAP, &in).hosted_frames, 8 * 512);
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX_ALTMAP, &in).nr_units_obtainable, 513 - 8);
	in.page_shift = 16, in.described_frames >>= 4, in.unit_order -= 4;
	TAP_EQ(plan_of(MF_SCHEME_DEVDAX_ALTMAP, &in).hosted_frames, 17);
}

/* 1 TiB in 2 MiB units: 8192 slots of W_1, 16 of W_2, the zero frame; W_1 and W_2 lie under 17 tables of level 0. */
TAP_TEST(plan_counts_tiered_by_hand)
{
	struct mf_plan_input in = range(MF_TIB, 2 * MF_MIB);
	struct mf_plan out = plan_of(MF_SCHEME_TIERED, &in);

	TAP_EQ(out.levels, 3);
	TAP_EQ(out.descriptor_frames, 8192 + 16 + 1);
	TAP_EQ(out.table_frames, (16 + 1) + 1 + (out.levels - 1));
	TAP_EQ(out.hosted_frames, 0);
	in = range(MF_TIB, MF_GIB);
	out = plan_of(MF_SCHEME_TIERED, &in);
	TAP_EQ(out.descriptor_frames, 16 + 1);
	TAP_EQ(out.table_frames, 2 + (out.levels - 1));
	TAP_OK(out.total_bytes <= 256 * MF_KIB);
}

/* The goals of the project: 66 bytes per 2 MiB over 1 TiB, 68 over 64 GiB; 17 set-aside blocks, 32766 folios. */
TAP_TEST(plan_meets_the_goals_when_memory_hosts_its_map)
{
	struct mf_plan_input in = range(MF_TIB, 2 * MF_MIB);
	struct mf_plan out;

	in.source = MF_SOURCE_SELF;
	out = plan_of(MF_SCHEME_TIERED, &in);
	TAP_EQ(out.set_aside_blocks, 17);
	TAP_EQ(out.nr_units_obtainable, 524288 - 17);
	TAP_OK(out.total_bytes <= 66 * out.nr_units_obtainable);
	in = range(64 * MF_GIB, 2 * MF_MIB);
	in.source = MF_SOURCE_SELF;
	out = plan_of(MF_SCHEME_TIERED, &in);
	TAP_EQ(out.nr_units_obtainable, 32766);
	TAP_OK(out.total_bytes <= 68 * out.nr_units_obtainable);
	in = range(4 * MF_GIB, 4 * MF_KIB);
	in.source = MF_SOURCE_SELF;
	out = plan_of(MF_SCHEME_TIERED, &in);
	TAP_OK(out.nr_units_obtainable * 1000 >= out.nr_units * 984);
	TAP_EQ(out.nr_units_obtainable + out.hosted_frames, out.nr_units);
}

TAP_TEST(plan_reaches_one_eib)
{
	static const unsigned shifts[] = {12, 14, 16};

	for (unsigned i = 0; i < 3; i++) {
		struct mf_plan_input in = {.page_shift = shifts[i], .source = MF_SOURCE_SELF};

		in.described_frames = MF_PLAN_BYTES_MAX >> shifts[i];
		for (in.unit_order = 0; in.unit_order <= mf_log2(in.described_frames); in.unit_order++)
			for (unsigned scheme = 0; scheme < MF_NR_SCHEMES; scheme++) {
				struct mf_plan out = plan_of((enum mf_scheme)scheme, &in);

				TAP_OK(out.total_bytes >= out.table_bytes && out.total_bytes < MF_PLAN_BYTES_MAX / 32);
				TAP_OK(out.nr_units_obtainable <= out.nr_units);
				TAP_OK(out.described_bytes == MF_PLAN_BYTES_MAX);
			}
	}
}

/* ---- Against a naive count ------------------------------------------------------------------------------------- */

/* Slots of all windows, one byte each: not backed, by a slot, by a part of a leaf of level 1. */
enum mark { UNBACKED, SLOT, LEAF };

struct naive {
	unsigned b;
	uint64_t span, n, nr_slots[3], first[3]; /* by tier: slots of the window, first of them in mark[] */
	uint8_t *mark;
	uint64_t nr_marks;
};

static bool naive_init(struct naive *v, const struct mf_plan_input *in)
{
	v->b = in->page_shift - 3;
	v->n = in->described_frames;
	for (v->span = (uint64_t)1 << 2 * v->b; v->span < v->n;)
		v->span *= 2;
	v->nr_marks = 0;
	for (unsigned tier = 0; tier < 3; tier++) {
		v->first[tier] = v->nr_marks;
		v->nr_slots[tier] = (((v->span >> v->b * tier) * 64 - 1) >> in->page_shift) + 1;
		v->nr_marks += v->nr_slots[tier];
	}
	v->mark = calloc(v->nr_marks, 1);
	return v->mark != NULL;
}

/* Backs the descriptors [first, end) of a tier. */
static void naive_back(struct naive *v, const struct mf_plan_input *in, unsigned tier, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++)
		v->mark[v->first[tier] + (i * 64 >> in->page_shift)] = SLOT;
}

static bool naive_top_is_split(const struct naive *v, const struct mf_plan_input *in, uint64_t top)
{
	return (top + 1) << 2 * v->b > v->n || in->unit_order < 2 * v->b || in->top == 1 ||
	       top << 2 * v->b < in->nr_split_units << in->unit_order;
}

static bool naive_block_is_split(const struct naive *v, const struct mf_plan_input *in, uint64_t block)
{
	return (block + 1) << v->b > v->n || in->unit_order < v->b ||
	       block << v->b < in->nr_split_units << in->unit_order;
}

static void naive_back_tiered(struct naive *v, const struct mf_plan_input *in)
{
	uint64_t fan_out = (uint64_t)1 << v->b;

	for (uint64_t top = 0; top << 2 * v->b < v->n; top++) {
		naive_back(v, in, 2, top, top + 1);
		if (naive_top_is_split(v, in, top))
			naive_back(v, in, 1, top << v->b, (top + 1) << v->b);
	}
	for (uint64_t block = 0; block << v->b < v->n; block++)
		if (naive_block_is_split(v, in, block))
			naive_back(v, in, 0, block * fan_out, (block + 1) * fan_out);
}

static void naive_back_flat(struct naive *v, const struct mf_plan_input *in)
{
	uint64_t per_leaf = (uint64_t)1 << v->b, whole = v->n >> v->b;

	for (uint64_t block = 0; block << v->b < v->n; block++)
		naive_back(v, in, 0, block << v->b, (block + 1) << v->b);
	for (uint64_t slot = 0; slot + per_leaf <= whole * 8; slot += per_leaf)
		memset(v->mark + slot, LEAF, per_leaf);
	for (uint64_t top = 0; top << 2 * v->b < v->n; top++)
		naive_back(v, in, 2, top, top + 1);
	if (v->n & (((uint64_t)1 << 2 * v->b) - 1))
		naive_back(v, in, 1, v->n >> 2 * v->b << v->b, ((v->n >> 2 * v->b) + 1) << v->b);
}

static uint64_t naive_tables(const struct naive *v, unsigned levels)
{
	uint64_t nr = levels - 1, next;

	for (unsigned level = 0; level + 1 < levels; level++) {
		next = 0;
		for (uint64_t i = 0; i < v->nr_marks; i++) {
			unsigned shift = v->b * (level + 1);
			uint64_t table = shift < 64 ? i >> shift : 0;

			if (table < next || v->mark[i] == UNBACKED || (v->mark[i] == LEAF && level == 0))
				continue;
			nr++;
			next = table + 1;
		}
	}
	return nr;
}

static void compare(enum mf_scheme scheme, const struct mf_plan_input *in)
{
	struct mf_plan out = plan_of(scheme, in);
	uint64_t backed = 1;
	struct naive v;

	TAP_REQUIRE(naive_init(&v, in));
	if (scheme == MF_SCHEME_FLAT)
		naive_back_flat(&v, in);
	else
		naive_back_tiered(&v, in);
	for (uint64_t i = 0; i < v.nr_marks; i++)
		backed += v.mark[i] != UNBACKED;
	TAP_EQ(out.descriptor_frames, backed);
	TAP_EQ(out.table_frames, naive_tables(&v, out.levels));
	TAP_EQ(out.total_frames, out.descriptor_frames + out.table_frames);
	TAP_EQ(out.nr_units, in->described_frames >> in->unit_order);
	free(v.mark);
}

/* Slots with a frame of their own in a dieted unit; 0: the scheme has no diet. */
static unsigned naive_kept(enum mf_scheme scheme)
{
	if (scheme == MF_SCHEME_DEVDAX_ALTMAP)
		return 0;
	return scheme == MF_SCHEME_HVO_5_14 || scheme == MF_SCHEME_DEVDAX ? 2 : 1;
}

/* Marks every slot of a one-window map, a leaf at a time; answers the frames they need. */
static uint64_t naive_back_linux(struct naive *v, enum mf_scheme scheme, const struct mf_plan_input *in)
{
	uint64_t per_leaf = (uint64_t)1 << v->b, unit = ((uint64_t)64 << in->unit_order) >> in->page_shift, frames = 0;
	uint64_t nr_units = in->described_frames >> in->unit_order;
	unsigned kept = naive_kept(scheme);
	bool can_leaf = scheme == MF_SCHEME_DEVDAX_ALTMAP ? in->page_shift == 12 : scheme != MF_SCHEME_DEVDAX;
	bool dieted, any = false;

	for (uint64_t leaf = 0; leaf < v->nr_marks; leaf += per_leaf) {
		bool by_slots = !can_leaf || leaf + per_leaf > v->nr_marks;

		for (uint64_t i = leaf; i < leaf + per_leaf && i < v->nr_marks; i++) {
			dieted = kept > 0 && unit > kept && i / unit >= in->nr_split_units && i / unit < nr_units;
			by_slots |= dieted;
			any |= dieted;
			frames += !dieted || i % unit < kept;
		}
		for (uint64_t i = leaf; i < leaf + per_leaf && i < v->nr_marks; i++)
			v->mark[i] = by_slots ? SLOT : LEAF;
	}
	return frames + (any && scheme == MF_SCHEME_HVO_7_1);
}

static void compare_linux(enum mf_scheme scheme, const struct mf_plan_input *in)
{
	struct mf_plan out = plan_of(scheme, in);
	struct naive v = {.b = in->page_shift - 3};

	v.nr_marks = ((in->described_frames * 64 - 1) >> in->page_shift) + 1;
	v.mark = calloc(v.nr_marks, 1);
	TAP_REQUIRE(v.mark != NULL);
	TAP_EQ(out.descriptor_frames, naive_back_linux(&v, scheme, in));
	TAP_EQ(out.table_frames, naive_tables(&v, out.levels) - (out.levels - 1)); /* none is shared */
	free(v.mark);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A range of a random length, often at or beside the border of a block. */
static struct mf_plan_input random_input(uint64_t *state)
{
	struct mf_plan_input in = {.page_shift = next_random(state) % 16 ? 12 : 14, .source = MF_SOURCE_RAM};
	unsigned b = in.page_shift - 3;
	uint64_t largest = (uint64_t)(in.page_shift == 12 ? 24 : 3) << 2 * b;

	in.described_frames = 1 + next_random(state) % largest;
	if (next_random(state) % 2)
		in.described_frames = mf_max(mf_round_down(in.described_frames, (uint64_t)1 << b), 1);
	if (next_random(state) % 4 == 0)
		in.described_frames = mf_max(mf_round_down(in.described_frames, (uint64_t)1 << 2 * b), 1);
	in.unit_order = (unsigned)(next_random(state) % (mf_log2(in.described_frames) + 1));
	if (next_random(state) % 2)
		in.nr_split_units = next_random(state) % ((in.described_frames >> in.unit_order) + 1);
	in.top = (unsigned)(next_random(state) % 3);
	in.levels = next_random(state) % 3 == 0 ? 4 + (unsigned)(next_random(state) % 3) : 0;
	return in;
}

TAP_TEST(plan_agrees_with_a_naive_count)
{
	uint64_t state = 0x9e3779b97f4a7c15;

	for (unsigned i = 0; i < 60 && !tap_state.failed; i++) {
		struct mf_plan_input in = random_input(&state);

		compare(MF_SCHEME_TIERED, &in);
		compare(MF_SCHEME_FLAT, &in);
		for (unsigned scheme = MF_SCHEME_HVO_5_14; scheme <= MF_SCHEME_DEVDAX_ALTMAP; scheme++)
			compare_linux((enum mf_scheme)scheme, &in);
		if (tap_state.failed)
			TAP_NOTE("input %u: %llu frames, order %u, %llu split, top %u, levels %u", i,
				 (unsigned long long)in.described_frames, in.unit_order,
				 (unsigned long long)in.nr_split_units, in.top, in.levels);
	}
}

/* Source self is the same map from other frames, plus what the set-aside blocks need: the books balance. */
TAP_TEST(plan_balances_the_map_pool)
{
	uint64_t state = 0x2545f4914f6cdd1d;

	for (unsigned i = 0; i < 2000 && !tap_state.failed; i++) {
		struct mf_plan_input in = random_input(&state);
		uint64_t usable = ((uint64_t)1 << (in.page_shift - 3)) - MF_BLOCK_SLOTS, pool;
		struct mf_plan ram = plan_of(MF_SCHEME_TIERED, &in), self;

		in.source = MF_SOURCE_SELF;
		self = plan_of(MF_SCHEME_TIERED, &in);
		pool = self.set_aside_blocks * usable - self.pool_idle_frames;
		TAP_OK(self.pool_idle_frames < usable);
		TAP_OK(self.hosted_frames >= pool && (self.hosted_frames - pool) % MF_BLOCK_SLOTS == 0);
		TAP_OK(self.total_frames >= ram.total_frames);
		TAP_OK(self.total_frames - ram.total_frames <= self.set_aside_blocks * 9 + 2);
		TAP_OK(self.nr_units_obtainable <= ram.nr_units);
		TAP_OK(self.set_aside_blocks <= in.described_frames >> (in.page_shift - 3));
		if (tap_state.failed)
			TAP_NOTE("input %u: %llu frames, order %u, %llu split, top %u, levels %u", i,
				 (unsigned long long)in.described_frames, in.unit_order,
				 (unsigned long long)in.nr_split_units, in.top, in.levels);
	}
}

TAP_MAIN()
