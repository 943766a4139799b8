/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_linux.c - what the diets of Linux cost: HugeTLB Vmemmap Optimization by era, and device DAX.
 *
 * Owns no state.  What a unit on the diet saves is what the engine's parameters say (diet.h); known here is only what
 * is planned and no layout.  The array of descriptors is one run of map slots.  A unit on the diet keeps its first
 * slots and maps the others to frames that are counted already, each by a leaf of level 0.  What is on no diet is
 * populated by leaves of level 1 where one fits; only device DAX with its map in RAM never is (docs/decisions/0010).
 */
#include "plan_count.h"

#include <memfold/diet.h>

/* On an altmap nothing is deduplicated [R-DAX-4], and all slots that fill leaves lie in the described memory. */
static bool is_on_device(enum mf_scheme scheme)
{
	return scheme == MF_SCHEME_DEVDAX_ALTMAP;
}

/* The layout of the same name; a scheme that is none has no diet. */
static enum mf_layout layout_of(enum mf_scheme scheme)
{
	enum mf_layout layout;

	return mf_layout_by_name(mf_scheme_name(scheme), &layout) == 0 ? layout : MF_LAYOUT_FLAT;
}

/* log2 of the addresses of a leaf of level 1 where the scheme has such leaves, else of a slot. */
static unsigned leaf_shift(enum mf_scheme scheme, const struct mf_plan_input *in, unsigned levels)
{
	const struct mf_diet *diet = mf_layout_diet(layout_of(scheme));
	bool at_populate = diet->nr_kept > 0 && !diet->is_by_remap;

	if (at_populate || levels == 2 || (is_on_device(scheme) && in->page_shift != 12))
		return in->page_shift;
	return 2 * in->page_shift - 3;
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
	enum mf_layout layout = layout_of(scheme);
	uint64_t saved = mf_diet_saves(layout, in->page_shift, MF_DESCRIPTOR_SIZE, in->unit_order);
	uint64_t array = mf_round_up(in->described_frames << MF_DESCRIPTOR_SHIFT, (uint64_t)1 << in->page_shift);
	uint64_t unit_bytes = (uint64_t)1 << in->unit_order << MF_DESCRIPTOR_SHIFT;
	uint64_t nr_dieted = saved > 0 ? out->nr_units - in->nr_split_units : 0;
	struct plan_mappings m = {.nr = 0};
	int err = plan_levels(in, array, &out->levels);
	unsigned shift;

	if (err)
		return err;
	shift = leaf_shift(scheme, in, out->levels);
	if (shift == in->page_shift)
		plan_map(&m, 0, array, 0);
	else
		map_array(&m, array, in->nr_split_units * unit_bytes, (in->nr_split_units + nr_dieted) * unit_bytes,
			  shift);
	out->table_frames = plan_tables(&m, in->page_shift, out->levels);
	out->descriptor_frames = plan_slots(&m, in->page_shift) - nr_dieted * saved;
	if (nr_dieted > 0 && mf_layout_diet(layout)->tails == MF_TAILS_ZONE)
		out->descriptor_frames++;
	if (is_on_device(scheme)) {
		/* What is no full leaf comes from RAM [R-MEM-20]. */
		out->hosted_frames = mf_round_down(array, (uint64_t)1 << shift) >> in->page_shift;
		out->nr_units_obtainable -= plan_div_up(out->hosted_frames, (uint64_t)1 << in->unit_order);
	}
	return 0;
}
