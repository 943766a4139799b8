/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * change.c - what a range maps to: map, clear, protect, replace.
 *
 * Owns nothing.  Law: a table is whole before it is linked; a table that becomes uniform is unlinked (without
 * MF_PGTABLE_PRIVATE); a call that fails has changed nothing.  Does not flush and does not allocate: frames go through
 * the caller's bags.
 */
#include "entry.h"

/* Needs nr > 0.  In this order, so that nothing overflows. */
static int check_entries(const struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr)
{
	const struct mf_paging *p = &pt->machine->paging;
	unsigned fanout = paging_fanout(p);
	uint64_t span;

	if (level > p->max_leaf_level || nr == 0 || nr > fanout)
		return -MF_EINVAL;
	span = mf_pgtable_span(p, level);
	if ((va & (span - 1)) != 0 || table_index(p, va, level) + nr > fanout)
		return -MF_EINVAL;
	if (!pgtable_contains(pt, va) || nr * span > pt->size_bytes - (va - pt->base))
		return -MF_EFAULT;
	return 0;
}

/* What may stand behind a leaf of one level. */
struct frame_rule {
	mf_pfn_t never; /* bits that do not fit the entry, or are not aligned to the level */
	mf_pfn_t zero;  /* the block of the zero frame: to map that is to map nothing      */
};

static inline struct frame_rule frame_rule(const struct mf_pgtable *pt, unsigned level)
{
	const struct mf_paging *p = &pt->machine->paging;
	mf_pfn_t inside = leaf_frames(p, level) - 1;

	return (struct frame_rule){~(p->address_mask >> p->page_shift) | inside, pt->zero & ~inside};
}

static inline bool frame_is_allowed(struct frame_rule rule, mf_pfn_t pfn)
{
	return (pfn & rule.never) == 0 && pfn != rule.zero;
}

/* How many of the entries lead to a private table without private entries.  Panics when one is mapped. */
static unsigned count_empty_tables(const struct mf_pgtable *pt, unsigned level, const uint64_t *entry, unsigned nr)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t background = pgtable_background(pt, level), keep = ~paging_soft_mask(p);
	unsigned nr_empty = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint64_t old = entry_load_own(&entry[i]);

		if ((old & keep) == background)
			continue;
		MF_PANIC_IF(entry_is_leaf(p, level, old) || table_count(p, entry_table(pt, old)) != 0,
			    "memfold: a map over entry 0x%llx of level %u, which is mapped already.",
			    (unsigned long long)old, level);
		nr_empty++;
	}
	return nr_empty;
}

void pgtable_grow(struct mf_pgtable *pt, uintptr_t va, unsigned at, unsigned level, uint64_t *path[],
		  struct mf_bag *in)
{
	const struct mf_paging *p = &pt->machine->paging;

	for (; at > level; at--) {
		mf_pfn_t pfn = mf_bag_take(in);

		path[at - 1] = pgtable_table(pt, pfn);
		table_fill(p, path[at - 1], pgtable_background(pt, at - 1));
		entry_change(p, &path[at][table_index(p, va, at)], table_entry(p, pfn));
		table_count_add(p, path[at], 1);
		pt->nr_private[at - 1]++;
	}
}

void pgtable_unlink(struct mf_pgtable *pt, uint64_t *entry, unsigned level, struct mf_bag *bag)
{
	const struct mf_paging *p = &pt->machine->paging;

	mf_bag_put(bag, entry_pfn(p, entry_load(entry)));
	entry_change(p, entry, pgtable_background(pt, level));
	pt->nr_private[level - 1]--;
}

int mf_pgtable_map(struct mf_pgtable *pt, uintptr_t va, unsigned level, const mf_pfn_t *pfn, unsigned nr,
		   enum mf_prot prot, struct mf_bag *in)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	unsigned page_shift = p->page_shift, at, held = in ? in->nr : 0, nr_empty = 0;
	struct frame_rule rule = frame_rule(pt, level);
	uint64_t *entry, change;
	int err;

	err = check_entries(pt, va, level, nr);
	if (err)
		return err;
	for (unsigned i = 0; i < nr; i++)
		if (!frame_is_allowed(rule, pfn[i]))
			return -MF_EINVAL;

	at = pgtable_descend(pt, va, level, path);
	if (at == level)
		nr_empty = count_empty_tables(pt, level, &path[at][table_index(p, va, at)], nr);
	else
		MF_PANIC_IF(!pgtable_is_background(pt, at, entry_load(&path[at][table_index(p, va, at)])),
			    "memfold: a map at 0x%llx under a leaf of level %u.", (unsigned long long)va, at);
	if (held < at - level)
		return -MF_ENOMEM;
	if (nr_empty > 0 && (!in || nr_empty > MF_BAG_MAX - held))
		return -MF_ENOSPC;

	pgtable_grow(pt, va, at, level, path, in);
	entry = &path[level][table_index(p, va, level)];
	for (unsigned i = 0; nr_empty > 0 && i < nr; i++)
		if (!pgtable_is_background(pt, level, entry_load(&entry[i])))
			pgtable_unlink(pt, &entry[i], level, in);
	/* All are background now, soft bits aside: one exclusive-or makes the leaf and keeps those. */
	change = pgtable_background(pt, level) ^ leaf_bits(p, level, prot);
	for (unsigned i = 0; i < nr; i++)
		entry_store(&entry[i], entry_load_own(&entry[i]) ^ change ^ pfn[i] << page_shift);
	/* An entry that led to an empty table was counted already. */
	table_count_add(p, path[level], (int)(nr - nr_empty));
	return 0;
}

/* `nr` entries of the table of `level` went back to background. */
static void subtract_entries(struct mf_pgtable *pt, uintptr_t va, unsigned level, uint64_t *path[], unsigned nr,
			     struct mf_bag *out)
{
	const struct mf_paging *p = &pt->machine->paging;

	for (;; level++, nr = 1) {
		unsigned count = table_count(p, path[level]);

		MF_PANIC_IF(count < nr, "memfold: the table of level %u at 0x%llx counts %u entries, %u were cleared.",
			    level, (unsigned long long)va, count, nr);
		table_count_add(p, path[level], -(int)nr);
		if (count > nr || level == p->levels - 1 || (pt->flags & MF_PGTABLE_PRIVATE) != 0)
			return;
		pgtable_unlink(pt, &path[level + 1][table_index(p, va, level + 1)], level + 1, out);
	}
}

void mf_pgtable_clear(struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr, mf_pfn_t *old_pfn,
		      struct mf_bag *out)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	uint64_t *entry, background, soft = paging_soft_mask(p), address_mask = p->address_mask;
	unsigned page_shift = p->page_shift;

	MF_PANIC_IF(check_entries(pt, va, level, nr) != 0,
		    "memfold: %u entries of level %u at 0x%llx cannot be cleared: not in one table, or outside.", nr,
		    level, (unsigned long long)va);
	MF_PANIC_IF(pgtable_descend(pt, va, level, path) != level,
		    "memfold: a clear of 0x%llx, which is not mapped at level %u.", (unsigned long long)va, level);
	entry = &path[level][table_index(p, va, level)];
	background = pgtable_background(pt, level);
	for (unsigned i = 0; i < nr; i++) {
		uint64_t old = entry_load_own(&entry[i]);

		MF_PANIC_IF((old & ~soft) == background || !entry_is_leaf(p, level, old),
			    "memfold: a clear of entry %u of level %u at 0x%llx, which is no leaf.", i, level,
			    (unsigned long long)va);
		if (old_pfn)
			old_pfn[i] = (old & address_mask) >> page_shift;
		entry_store(&entry[i], background | (old & soft));
	}
	subtract_entries(pt, va, level, path, nr, out);
}

/* The entry that translates va, NULL when that is background. */
static uint64_t *find_leaf(const struct mf_pgtable *pt, uintptr_t va, unsigned *level)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *entry;

	*level = pgtable_descend(pt, va, 0, path);
	entry = &path[*level][table_index(p, va, *level)];
	return pgtable_is_background(pt, *level, entry_load(entry)) ? NULL : entry;
}

int mf_pgtable_protect(struct mf_pgtable *pt, uintptr_t va, enum mf_prot prot)
{
	const struct mf_paging *p = &pt->machine->paging;
	unsigned level;
	uint64_t *entry;

	if (!pgtable_contains(pt, va))
		return -MF_EFAULT;
	entry = find_leaf(pt, va, &level);
	if (!entry)
		return -MF_ENOENT;
	entry_change(p, entry, (entry_load(entry) & p->address_mask) | leaf_bits(p, level, prot));
	return 0;
}

mf_pfn_t mf_pgtable_replace(struct mf_pgtable *pt, uintptr_t va, mf_pfn_t new_pfn)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *entry = NULL, old;
	unsigned level = 0;

	if (pgtable_contains(pt, va))
		entry = find_leaf(pt, va, &level);
	MF_PANIC_IF(!entry || level != 0, "memfold: the frame behind 0x%llx is replaced, but no leaf of level 0 is there.",
		    (unsigned long long)va);
	MF_PANIC_IF(!frame_is_allowed(frame_rule(pt, 0), new_pfn), "memfold: frame 0x%llx cannot stand behind a leaf.",
		    (unsigned long long)new_pfn);
	old = entry_load(entry);
	entry_change(p, entry, new_pfn << p->page_shift | (old & ~p->address_mask & ~paging_soft_mask(p)));
	return entry_pfn(p, old);
}
