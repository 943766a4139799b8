/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_linux.c - what the diets of Linux cost: HugeTLB Vmemmap Optimization by era, and device DAX.
 *
 * Owns a constant table.  The array of descriptors is one run of map slots, each a leaf of level 0 below private
 * tables; a unit on the diet keeps its first slots and maps the others to frames that are counted already.
 */
#include "plan_count.h"

static const struct diet {
	unsigned kept;        /* slots with a frame of their own in a unit on the diet; 0: no diet    */
	unsigned shared_tail; /* frames that serve the tails of all units of one order and zone       */
	bool on_device;       /* the slots lie in the described memory                              */
} diets[MF_NR_SCHEMES] = {
	[MF_SCHEME_HVO_5_14] = {.kept = 2},
	[MF_SCHEME_HVO_5_18] = {.kept = 1},
	[MF_SCHEME_HVO_7_1] = {.kept = 1, .shared_tail = 1},
	[MF_SCHEME_DEVDAX] = {.kept = 2},
	[MF_SCHEME_DEVDAX_ALTMAP] = {.on_device = true},
};

int plan_linux(enum mf_scheme scheme, const struct mf_plan_input *in, struct mf_plan *out)
{
	const struct diet *diet = &diets[scheme];
	uint64_t array = mf_round_up(in->described_frames << MF_DESCRIPTOR_SHIFT, (uint64_t)1 << in->page_shift);
	uint64_t unit_slots = ((uint64_t)1 << in->unit_order << MF_DESCRIPTOR_SHIFT) >> in->page_shift;
	uint64_t nr_dieted = out->nr_units - in->nr_split_units;
	struct plan_mappings m = {.nr = 0};
	int err = plan_levels(in, array, &out->levels);

	if (err)
		return err;
	plan_map(&m, 0, array, 0);
	out->table_frames = plan_tables(&m, in->page_shift, out->levels);
	out->descriptor_frames = plan_slots(&m, in->page_shift);
	if (diet->kept > 0 && unit_slots > diet->kept && nr_dieted > 0)
		out->descriptor_frames -= nr_dieted * (unit_slots - diet->kept) - diet->shared_tail;
	if (diet->on_device) {
		out->hosted_frames = out->descriptor_frames;
		out->nr_units_obtainable = (in->described_frames >> in->unit_order) -
					   plan_div_up(out->hosted_frames, (uint64_t)1 << in->unit_order);
	}
	return 0;
}
