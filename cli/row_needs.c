/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row_needs.c - is there enough memory, addresses and mappings for a row, before anything is taken; and what was short
 * when it was taken in spite of that.
 *
 * Owns no state.  Sums are a little more than what will be used.  Limits of a control group are not looked at.
 */
#include "cli/measure.h"
#include "cli/row_work.h"
#include "cli/size.h"
#include <inttypes.h>
#include <stdio.h>

/* What bringing up may not take, because the machine has other work too. */
#define RESERVE_BYTES (256 * MF_MIB)
/* What the host keeps for a mapping: measured, 220 on Linux 6.18. */
#define MAPPING_BYTES 256
/* Mappings of the row that are no alias: memory, windows, what the machine keeps for undoing; a thread, lists. */
#define MAPPINGS_ELSE 64
/* Aliases leave one in so many of the allowed mappings to the rest of the process (linux.h). */
#define MAPPINGS_SPARE 64

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* The tier on which the region's units are described. */
static unsigned unit_tier(const struct work *w, const struct description_region *r)
{
	unsigned top = row_layout(w, r) == MF_LAYOUT_TIERED ? r->top : 0, step = w->page_shift - 3;

	return (unsigned)mf_min(top, row_unit_order(w, r) / step);
}

/* Before any of it is given back: what is put on a diet later needs all its slots first. */
static uint64_t map_bytes(const struct work *w, const struct description_region *r)
{
	const struct mf_diet *diet = mf_layout_diet(row_layout(w, r));
	uint64_t records = r->size_bytes >> (w->page_shift + unit_tier(w, r) * (w->page_shift - 3));

	if (row_saved_slots(w, r) > 0 && !diet->is_by_remap)
		return r->size_bytes / r->unit_bytes * diet->nr_kept << w->page_shift;
	return records * (MF_DESCRIPTOR_SIZE + 1);
}

static uint64_t mappings_of(const struct work *w, const struct description_region *r)
{
	uint64_t saved = row_saved_slots(w, r);

	/* Each alias is one, and so are the slots that are kept. */
	return saved > 0 ? r->size_bytes / r->unit_bytes * (saved + 1) : 0;
}

/* The region's descriptors, its folios' list and, with --touch, fresh memory itself. */
static uint64_t bytes_needed(const struct work *w, const struct description_region *r)
{
	bool fresh = w->request->backing == MF_LINUX_MEMFD || w->request->backing == MF_LINUX_ANON;

	return map_bytes(w, r) + r->size_bytes / r->unit_bytes * sizeof(struct mf_folio *) +
	       mappings_of(w, r) * MAPPING_BYTES + (w->request->touch && fresh ? r->size_bytes : 0);
}

static uint64_t memory_needed(const struct work *w)
{
	uint64_t need = RESERVE_BYTES;

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++)
		need += bytes_needed(w, &w->request->machine->regions[i]);
	return need;
}

static bool is_enough_memory(struct work *w)
{
	uint64_t need = memory_needed(w), have = mf_linux_available_bytes();
	char text[2][SIZE_TEXT_MAX];

	if (need <= have)
		return true;
	return row_unable(w, ROW_UNABLE, "needs about %s of memory, %s is available", size_rounded(text[0], need),
			  size_rounded(text[1], have));
}

/* ---- Addresses --------------------------------------------------------------------------------------------------- */

/* Memory and windows are mapped side by side.  Whatever else goes wrong with addresses the host says when it does. */
static uint64_t addresses_needed(const struct work *w)
{
	uint64_t span = mf_max(row_span(w), (uint64_t)1 << 2 * (w->page_shift - 3));

	return w->row->described_bytes + (uint64_t)MF_DESCRIPTOR_SIZE * ((uint64_t)1 << mf_log2(2 * span - 1));
}

static bool is_enough_addresses(struct work *w)
{
	uint64_t need = addresses_needed(w), have = measure_addresses();
	char text[2][SIZE_TEXT_MAX];

	if (need <= have)
		return true;
	return row_unable(w, ROW_UNABLE, "needs %s of addresses, for the memory and for its map; %s is available",
			  size_rounded(text[0], need), size_rounded(text[1], have));
}

/* ---- Mappings ---------------------------------------------------------------------------------------------------- */

/* 0: nothing of the row is an alias. */
static uint64_t mappings_needed(const struct work *w)
{
	uint64_t need = 0;

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++)
		need += mappings_of(w, &w->request->machine->regions[i]);
	return need > 0 ? need + MAPPINGS_ELSE : 0;
}

static uint64_t mappings_usable(uint64_t limit)
{
	return limit - limit / MAPPINGS_SPARE;
}

/* What vm.max_map_count has to be. */
static uint64_t mappings_limit(const struct work *w)
{
	uint64_t usable = mappings_needed(w) + w->mappings_before;

	return mf_round_up((usable / (MAPPINGS_SPARE - 1) + 1) * MAPPINGS_SPARE, 1024);
}

static bool is_enough_mappings(struct work *w)
{
	uint64_t need = mappings_needed(w), limit, usable;

	if (need == 0 || mf_linux_mappings(&w->mappings_before, &limit) != 0)
		return true;
	usable = mappings_usable(limit);
	if (need + w->mappings_before <= usable)
		return true;
	return row_unable(w, ROW_UNABLE,
			  "needs %" PRIu64 " mappings, one for each alias and one for each unit; %" PRIu64
			  " are available; allow them by sysctl vm.max_map_count=%" PRIu64,
			  need, usable - mf_min(w->mappings_before, usable), mappings_limit(w));
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

bool row_is_enough(struct work *w)
{
	return is_enough_memory(w) && is_enough_addresses(w) && is_enough_mappings(w);
}

/* Fewer are left than the next unit needs; or were: a region that cannot be added gives back what it had. */
static bool is_out_of_mappings(const struct work *w, uint64_t used, uint64_t limit)
{
	uint64_t next = MAPPINGS_ELSE;

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++)
		next = mf_max(next, row_saved_slots(w, &w->request->machine->regions[i]) + 1);
	return mf_max(used + next, w->mappings_before + mappings_needed(w)) > mappings_usable(limit);
}

bool row_short(struct work *w, const char *what)
{
	uint64_t need = mappings_needed(w), used, limit;
	char text[4][SIZE_TEXT_MAX];

	if (need > 0 && mf_linux_mappings(&used, &limit) == 0 && is_out_of_mappings(w, used, limit))
		return row_unable(w, ROW_UNABLE,
				  "%s (all in all %" PRIu64 " mappings are needed, and of %" PRIu64 " allowed ones "
				  "%" PRIu64 " are in use by now; allow them by sysctl vm.max_map_count=%" PRIu64 ")",
				  what, need, limit, used, mappings_limit(w));
	return row_unable(w, ROW_UNABLE,
			  "%s (all in all about %s of memory and %s of addresses are needed, %s and %s are left by "
			  "now)",
			  what, size_rounded(text[0], memory_needed(w)), size_rounded(text[1], addresses_needed(w)),
			  size_rounded(text[2], mf_linux_available_bytes()),
			  size_rounded(text[3], measure_addresses()));
}
