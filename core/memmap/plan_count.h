/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_count.h - what the schemes of the plan share: mapped ranges of window addresses, and the slots and tables
 * they take.
 *
 * Private to plan*.c.  Owns no state.
 */
#ifndef CORE_MEMMAP_PLAN_COUNT_H
#define CORE_MEMMAP_PLAN_COUNT_H

#include <memfold/plan.h>

/* W_0: leaves, set-aside, split, edge; W_1: split, edge; W_2. */
enum { PLAN_MAPPED_MAX = 7 };

/* Window addresses [start, end) that are mapped by leaves of one level (0 or 1). */
struct plan_mapped {
	uint64_t start, end;
	unsigned level;
};

/* Ascending, disjoint, none empty. */
struct plan_mappings {
	unsigned nr;
	struct plan_mapped range[PLAN_MAPPED_MAX];
};

/* Appends a range, less what is mapped already.  Needs: no range before it ends behind its end. */
void plan_map(struct plan_mappings *m, uint64_t start, uint64_t end, unsigned level);

uint64_t plan_slots(const struct plan_mappings *m, unsigned page_shift);

/* Tables of all levels below the root on the way to the mappings. */
uint64_t plan_tables(const struct plan_mappings *m, unsigned page_shift, unsigned levels);

/* The levels asked for, or the fewest that reach window_bytes.  -MF_E2BIG when they do not. */
int plan_levels(const struct mf_plan_input *in, uint64_t window_bytes, unsigned *levels);

int plan_linux(enum mf_scheme scheme, const struct mf_plan_input *in, struct mf_plan *out);

static inline uint64_t plan_div_up(uint64_t n, uint64_t by)
{
	return n / by + (n % by != 0);
}

#endif
