/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shape.c - how the tables stand, while what they say stays the same: split, merge, privatise, share, move.
 *
 * Owns nothing.  Law: every address translates to the same frame with the same protection before, during and after.
 * Does not flush: a table in an `out` bag may still be read by a processor.
 */
#include "due.h"
#include "entry.h"

/* ---- A leaf and the table that says the same ------------------------------------------------------------- */

int mf_pgtable_split(struct mf_pgtable *pt, uintptr_t va, unsigned level, struct mf_bag *in)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *entry, *table, old, bits;
	mf_pfn_t table_pfn, first;

	if (!pgtable_contains(pt, va))
		return -MF_EFAULT;
	if (level == 0 || level > p->max_leaf_level || pgtable_descend(pt, va, level, path) != level)
		return -MF_ENOENT;
	entry = &path[level][table_index(pt, va, level)];
	old = entry_load(entry);
	if (!entry_is_leaf(p, level, old))
		return -MF_ENOENT;
	if (in->nr == 0)
		return -MF_ENOMEM;

	table_pfn = mf_bag_take(in);
	table = pgtable_table(pt, table_pfn);
	first = entry_pfn(p, old);
	bits = leaf_bits(p, level - 1, entry_is_writable(p, old) ? MF_PROT_WRITE : MF_PROT_READ);
	for (unsigned i = 0; i < paging_fanout(p); i++)
		table[i] = frame_paddr(p, first + i * leaf_frames(p, level - 1)) | bits;
	table_count_add(pt, table, (int)paging_fanout(p));
	entry_change(pt, entry, table_entry(p, table_pfn));
	due_split(pt, va, level);
	pt->nr_private[level - 1]++;
	return 0;
}

static bool table_is_one_leaf(const struct mf_pgtable *pt, const uint64_t *table, unsigned level)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t keep = ~pt->soft_mask, expected = entry_load(table) & keep;
	uint64_t step = leaf_frames(p, level) << p->page_shift;

	if (table_count(p, table) != paging_fanout(p) || !entry_is_leaf(p, level, expected) ||
	    (entry_pfn(p, expected) & (leaf_frames(p, level + 1) - 1)) != 0)
		return false;
	for (unsigned i = 0; i < paging_fanout(p); i++, expected += step)
		if ((entry_load(&table[i]) & keep) != expected)
			return false;
	return true;
}

int mf_pgtable_merge(struct mf_pgtable *pt, uintptr_t va, unsigned level, struct mf_bag *out)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *entry, first;

	if (!pgtable_contains(pt, va))
		return -MF_EFAULT;
	if (level == 0 || level > p->max_leaf_level)
		return -MF_EINVAL;
	if (pgtable_descend(pt, va, level - 1, path) != level - 1)
		return -MF_ENOENT;
	if (!table_is_one_leaf(pt, path[level - 1], level - 1))
		return -MF_EINVAL;

	entry = &path[level][table_index(pt, va, level)];
	first = entry_load(path[level - 1]);
	mf_bag_put(out, entry_pfn(p, entry_load(entry)));
	entry_change(pt, entry,
		     (first & p->address_mask) |
			     leaf_bits(p, level, entry_is_writable(p, first) ? MF_PROT_WRITE : MF_PROT_READ));
	due_table_left(pt, va, level - 1, out->pfn[out->nr - 1]);
	pt->nr_private[level - 1]--;
	return 0;
}

/* ---- Private tables with nothing in them ------------------------------------------------------------------- */

int mf_pgtable_privatise(struct mf_pgtable *pt, uintptr_t va, struct mf_bag *in)
{
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	unsigned at, needed;

	if (!pgtable_contains(pt, va))
		return -MF_EFAULT;
	needed = mf_pgtable_tables_needed(pt, va, 0);
	if (needed == 0)
		return 0;
	if (in->nr < needed)
		return -MF_ENOMEM;
	at = pgtable_descend(pt, va, 0, path);
	pgtable_grow(pt, va, at, 0, path, in);
	return 0;
}

struct range {
	uintptr_t first, last; /* last inclusive: a range may end at the top of the address space */
};

/*
 * Releases what can be released below `table`, which is the table of `level` for addresses from table_va on.  Bounded
 * recursion: once a level.
 */
static bool share_below(struct mf_pgtable *pt, uint64_t *table, unsigned level, uintptr_t table_va, struct range range,
			struct mf_bag *out)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t span = mf_pgtable_span(p, level);
	uintptr_t pt_last = pt->base + (pt->size_bytes - 1);

	for (unsigned i = 0; i < paging_fanout(p); i++) {
		uintptr_t first = table_va + i * span, last = first + (span - 1);
		uint64_t entry = entry_load(&table[i]);
		uint64_t *child;

		if (last < range.first || first > range.last || entry_is_leaf(p, level, entry) ||
		    pgtable_is_background(pt, level, entry))
			continue;
		child = entry_table(pt, entry);
		if (level > 1 && !share_below(pt, child, level - 1, first, range, out))
			return false;
		/* What a table serves ends where the range of the page tables does. */
		if (!table_is_empty(pt, child) || mf_max(first, pt->base) < range.first ||
		    mf_min(last, pt_last) > range.last)
			continue;
		if (out->nr == MF_BAG_MAX)
			return false;
		pgtable_unlink(pt, table, i, level, out);
		due_table_emptied(pt, mf_max(first, pt->base), level - 1, out->pfn[out->nr - 1]);
	}
	return true;
}

bool mf_pgtable_share(struct mf_pgtable *pt, uintptr_t start, uintptr_t end, struct mf_bag *out)
{
	unsigned top = pt->machine->paging.levels - 1;
	struct range range = {start, end - 1};

	if (start == end)
		return true;
	MF_PANIC_IF(!pgtable_contains(pt, start) || !pgtable_contains(pt, end - 1) || end - 1 < start,
		    "memfold: tables of [0x%llx, 0x%llx) are shared, which is outside the page tables' range.",
		    (unsigned long long)start, (unsigned long long)end);
	return share_below(pt, pgtable_table(pt, pt->root), top, pgtable_first(pt), range, out);
}

/* ---- A table moves ------------------------------------------------------------------------------------- */

mf_pfn_t mf_pgtable_move(struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t new_pfn)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	mf_pfn_t old_pfn;

	MF_PANIC_IF(!mf_pgtable_table(pt, va, level, &old_pfn),
		    "memfold: the table of level %u at 0x%llx cannot move: it is shared or the root.", level,
		    (unsigned long long)va);
	pgtable_descend(pt, va, level, path);
	__builtin_memcpy(mf_machine_frame(pt->machine, new_pfn), path[level], (size_t)1 << p->page_shift);
	entry_change(pt, &path[level + 1][table_index(pt, va, level + 1)], table_entry(p, new_pfn));
	due_table_left(pt, va, level, old_pfn);
	return old_pfn;
}
