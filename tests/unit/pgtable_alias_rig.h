/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pgtable_alias_rig.h - pgtable_rig.h and what tests of aliases and uniform tables do besides: make and end such
 * tables, exchange entries, account for frames that the page tables do not know.
 *
 *	table = uniform_new(&r, 0x5000);
 *	exchange_drawn(&r, r.pt.base, MF_ENTRY_UNIFORM, table, false);
 *	TAP_OK(is_sound(&r, 1) && shows(&r, r.pt.base, 0x5000, false));
 *	exchange_drawn(&r, r.pt.base, MF_ENTRY_BACKGROUND, 0, false);
 *	uniform_end(&r, table);
 */
#ifndef TESTS_UNIT_PGTABLE_ALIAS_RIG_H
#define TESTS_UNIT_PGTABLE_ALIAS_RIG_H

#include "tests/unit/pgtable_rig.h"

/* What one entry of level 1 maps. */
static inline uint64_t span_of(const struct rig *r)
{
	return mf_pgtable_span(&r->flat.machine.paging, 1);
}

static inline uintptr_t slot(const struct rig *r, unsigned i)
{
	return r->pt.base + ((uintptr_t)i << r->flat.machine.paging.page_shift);
}

static inline mf_pfn_t frame_new(struct rig *r)
{
	draw(r, r->bag.nr + 1);
	return mf_bag_take(&r->bag);
}

static inline void frame_end(struct rig *r, mf_pfn_t pfn)
{
	mf_bag_put(&r->bag, pfn);
	give_back(r);
}

static inline mf_pfn_t uniform_new(struct rig *r, mf_pfn_t pfn)
{
	mf_pfn_t table = frame_new(r);

	mf_pgtable_fill(&r->pt, table, MF_ENTRY_UNIFORM, pfn, 0, MF_PROT_READ);
	return table;
}

static inline void uniform_end(struct rig *r, mf_pfn_t table)
{
	mf_pgtable_unfill(&r->pt, table);
	frame_end(r, table);
}

/* With exactly the frames it needs; what comes back goes back, but for what *old names. */
static inline struct mf_entry exchange_drawn(struct rig *r, uintptr_t va, enum mf_entry_kind kind, mf_pfn_t pfn,
					     bool writable)
{
	struct mf_entry entry = {kind, pfn, writable}, old = {0};
	unsigned needed = kind == MF_ENTRY_BACKGROUND ? 0 : mf_pgtable_tables_needed(&r->pt, va, 1);

	draw(r, needed);
	TAP_EQ(mf_pgtable_exchange(&r->pt, va, &entry, &r->bag, &old), 0);
	TAP_OK(needed == 0 || r->bag.nr == 0);
	give_back(r);
	return old;
}

/* The laws hold, and but for `nr_held` frames the page tables have all that was taken. */
static inline bool is_sound(struct rig *r, unsigned nr_held)
{
	char text[200];
	const char *finding = mf_pgtable_check(&r->pt, text, sizeof(text));

	if (finding)
		TAP_NOTE("%s", finding);
	return !finding && mf_pgtable_frames(&r->pt) + r->bag.nr + nr_held == r->flat.nr_frames - 1 - r->flat.nr_free;
}

static inline bool shows(const struct rig *r, uintptr_t va, mf_pfn_t pfn, bool writable)
{
	struct mf_translation t = mf_pgtable_walk(&r->pt, va);

	return !t.background && t.pfn == pfn && t.writable == writable;
}

static inline bool is_entry(struct mf_entry e, enum mf_entry_kind kind, mf_pfn_t pfn, bool writable)
{
	return e.kind == kind && e.pfn == pfn && e.writable == writable;
}

#endif
