/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_linux.c - what the diets of Linux cost: HugeTLB Vmemmap Optimization by era, and device DAX.
 *
 * Owns a constant table.  The array of descriptors is one run of map slots.  A unit on the diet keeps its first slots
 * and maps the others to frames that are counted already, each by a leaf of level 0.  What is on no diet is populated
 * by leaves of level 1 where one fits; only device DAX with its map in RAM never is (docs/decisions/0010).
 */
#include "plan_count.h"

static const struct diet {
	unsigned kept;        /* slots with a frame of their own in a unit on the diet; 0: no diet    */
	unsigned shared_tail; /* frames that serve the tails of all units of one order and zone       */
	bool by_slots;        /* populated by leaves of level 0, units that are on no diet too          */
	bool on_device;       /* the slots lie in the described memory                              */
} diets[MF_NR_SCHEMES] = {
	[MF_SCHEME_HVO_5_14] = {.kept = 2},
	[MF_SCHEME_HVO_5_18] = {.kept = 1},
	[MF_SCHEME_HVO_7_1] = {.kept = 1, .shared_tail = 1},
	[MF_SCHEME_DEVDAX] = {.kept = 2, .by_slots = true},
	[MF_SCHEME_DEVDAX_ALTMAP] = {.on_device = true},
};

/* log2 of the addresses of a leaf of level 1 where the scheme has such leaves, else of a slot. */
static unsigned leaf_shift(const struct diet *diet, const struct mf_plan_input *in, unsigned levels)
{
	bool by_slots = diet->by_slots || levels == 2 || (diet->on_device && in->page_shift != 12);

	return by_slots ? in->page_shift : 2 * in->page_shift - 3;
}

/* Maps [0, end): full leaves, but slots where a leaf has a part of [diet_start, diet_end), and at the end. */
static void map_array(struct plan_mappings *m, uint64_t end, uint64_t diet_start, uint64_t diet_end, unsigned shift)
{
	uint64_t leaf = (uint64_t)1 << shift;

	if (diet_start < diet_end) {
		plan_map(m, 0, mf_round_down(diet_start, leaf), 1);
		plan_map(m, 0, mf_min(mf_round_up(diet_end, leaf), end), 0);
	}
	plan_map(m, 0, mf_round_down(end, leaf), 1);
	plan_map(m, 0, end, 0);
}

int plan_linux(enum mf_scheme scheme, const struct mf_plan_input *in, struct mf_plan *out)
{
	const struct diet *diet = &diets[scheme];
	uint64_t array = mf_round_up(in->described_frames << MF_DESCRIPTOR_SHIFT, (uint64_t)1 << in->page_shift);
	uint64_t unit_bytes = (uint64_t)1 << in->unit_order << MF_DESCRIPTOR_SHIFT;
	uint64_t unit_slots = unit_bytes >> in->page_shift, nr_dieted = 0;
	struct plan_mappings m = {.nr = 0};
	int err = plan_levels(in, array, &out->levels);
	unsigned shift;

	if (err)
		return err;
	if (diet->kept > 0 && unit_slots > diet->kept)
		nr_dieted = out->nr_units - in->nr_split_units;
	shift = leaf_shift(diet, in, out->levels);
	if (shift == in->page_shift)
		plan_map(&m, 0, array, 0);
	else
		map_array(&m, array, in->nr_split_units * unit_bytes, (in->nr_split_units + nr_dieted) * unit_bytes,
			  shift);
	out->table_frames = plan_tables(&m, in->page_shift, out->levels);
	out->descriptor_frames = plan_slots(&m, in->page_shift);
	if (nr_dieted > 0)
		out->descriptor_frames -= nr_dieted * (unit_slots - diet->kept) - diet->shared_tail;
	if (diet->on_device) {
		/* What is no full leaf comes from RAM [R-MEM-20]. */
		out->hosted_frames = mf_round_down(array, (uint64_t)1 << shift) >> in->page_shift;
		out->nr_units_obtainable -= plan_div_up(out->hosted_frames, (uint64_t)1 << in->unit_order);
	}
	return 0;
}
