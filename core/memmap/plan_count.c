/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_count.c - counts slots and page tables of mapped ranges by division, never by walking them.
 *
 * Owns no state.  Does not know schemes or tiers.
 */
#include "plan_count.h"

/* Fewer would let no leaf of level 1 stand below the root. */
enum { LEVELS_MIN = 3 };

void plan_map(struct plan_mappings *m, uint64_t start, uint64_t end, unsigned level)
{
	if (m->nr > 0)
		start = mf_max(start, m->range[m->nr - 1].end);
	if (start >= end)
		return;
	MF_ASSERT(m->nr < PLAN_MAPPED_MAX);
	m->range[m->nr++] = (struct plan_mapped){start, end, level};
}

uint64_t plan_slots(const struct plan_mappings *m, unsigned page_shift)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < m->nr; i++)
		bytes += m->range[i].end - m->range[i].start;
	return bytes >> page_shift;
}

/* shift: log2 of the addresses that one table serves. */
static uint64_t tables_of_level(const struct plan_mappings *m, unsigned level, unsigned shift)
{
	uint64_t nr = 0, next = 0; /* every table below index `next` is counted */

	for (unsigned i = 0; i < m->nr; i++) {
		const struct plan_mapped *r = &m->range[i];
		uint64_t first, end;

		if (r->level > level)
			continue;
		first = mf_max(shift < 64 ? r->start >> shift : 0, next);
		end = (shift < 64 ? (r->end - 1) >> shift : 0) + 1;
		if (end > first) {
			nr += end - first;
			next = end;
		}
	}
	return nr;
}

uint64_t plan_tables(const struct plan_mappings *m, unsigned page_shift, unsigned levels)
{
	uint64_t nr = 0;

	for (unsigned level = 0; level + 1 < levels; level++)
		nr += tables_of_level(m, level, page_shift + (page_shift - 3) * (level + 1));
	return nr;
}

static bool levels_reach(unsigned page_shift, unsigned levels, uint64_t bytes)
{
	unsigned bits = page_shift + (page_shift - 3) * levels;

	return bits >= 64 || bytes <= (uint64_t)1 << bits;
}

int plan_levels(const struct mf_plan_input *in, uint64_t window_bytes, unsigned *levels)
{
	unsigned nr = in->levels ? in->levels : LEVELS_MIN;

	while (!in->levels && nr < MF_PGTABLE_LEVELS_MAX && !levels_reach(in->page_shift, nr, window_bytes))
		nr++;
	if (!levels_reach(in->page_shift, nr, window_bytes))
		return -MF_E2BIG;
	*levels = nr;
	return 0;
}
