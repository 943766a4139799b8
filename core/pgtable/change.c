/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * change.c - what a range maps to: map, clear, protect, replace.
 *
 * Owns nothing.  Law: a table is whole before it is linked; a table that becomes empty is unlinked (without
 * MF_PGTABLE_PRIVATE); a uniform table stays as it is; a call that fails has changed nothing.  Does not flush and does
 * not allocate: frames go through the caller's bags.
 */
#include "due.h"
#include "entry.h"

/*
 * The 8 slots of a block are mapped and cleared on every unfold and fold: those loops are unrolled, and what happens
 * seldom is kept out of the registers of what happens always.
 */
#define IN_EIGHTS _Pragma("GCC unroll 8")
#define SELDOM    __attribute__((noinline, cold))

static inline int check_entries(const struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr)
{
	return level > pt->machine->paging.max_leaf_level ? -MF_EINVAL : pgtable_check_range(pt, va, level, nr);
}

/*
 * What `nr` frames and the entries that are to take them amount to, in few instructions an entry: false when one of the
 * frames can stand behind no leaf; *live is 0 when all entries are background.
 */
static inline bool check_frames(const struct mf_pgtable *pt, unsigned level, const mf_pfn_t *pfn, unsigned nr,
				const uint64_t *entry, uint64_t *live)
{
	const struct mf_pgtable_level *l = &pt->level[level];
	uint64_t background = l->background, unlike = 0;
	mf_pfn_t forbidden = l->forbidden_pfn, bits = 0;

	IN_EIGHTS
	for (unsigned i = 0; i < nr; i++) {
		bits |= pfn[i];
		unlike |= entry_load_own(&entry[i]) ^ background;
		if (pfn[i] == forbidden)
			return false;
	}
	*live = unlike & ~pt->soft_mask;
	return (bits & l->forbidden_bits) == 0;
}

/* How many of the entries lead to a private table without private entries.  Panics when one is mapped. */
static SELDOM unsigned count_empty_tables(const struct mf_pgtable *pt, unsigned level, const uint64_t *entry,
					  unsigned nr)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t background = pt->level[level].background, keep = ~pt->soft_mask;
	unsigned nr_empty = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint64_t old = entry_load_own(&entry[i]);

		if ((old & keep) == background)
			continue;
		MF_PANIC_IF(entry_is_leaf(p, level, old) || !table_is_empty(pt, entry_table(pt, old)),
			    "memfold: a map over entry 0x%llx of level %u, which is mapped already.",
			    (unsigned long long)old, level);
		nr_empty++;
	}
	return nr_empty;
}

void pgtable_grow(struct mf_pgtable *pt, uintptr_t va, unsigned at, unsigned level, uint64_t *path[], struct mf_bag *in)
{
	const struct mf_paging *p = &pt->machine->paging;

	for (; at > level; at--) {
		mf_pfn_t pfn = mf_bag_take(in);

		path[at - 1] = pgtable_table(pt, pfn);
		table_fill(p, path[at - 1], pt->level[at - 1].background);
		entry_change(pt, &path[at][table_index(pt, va, at)], table_entry(p, pfn));
		due_table_came(pt, va, at - 1);
		table_count_add(pt, path[at], 1);
		pt->nr_private[at - 1]++;
	}
}

void pgtable_unlink(struct mf_pgtable *pt, uint64_t *table, unsigned index, unsigned level, struct mf_bag *bag)
{
	const struct mf_paging *p = &pt->machine->paging;

	mf_bag_put(bag, entry_pfn(p, entry_load_own(&table[index])));
	entry_change(pt, &table[index], pt->level[level].background);
	pt->nr_private[level - 1]--;
	table_count_add(pt, table, -1);
}

/*
 * What map needs when the tables do not stand, or stand in the way: makes the ones down to `level` private, or unlinks
 * the empty ones under the `nr` entries.
 */
static SELDOM int make_room(struct mf_pgtable *pt, uintptr_t va, unsigned at, unsigned level, unsigned nr,
			    unsigned nr_empty, uint64_t *path[], struct mf_bag *in)
{
	unsigned held = in ? in->nr : 0, index = table_index(pt, va, level);

	if (at > level) {
		MF_PANIC_IF(!pgtable_is_background(pt, at, entry_load_own(&path[at][table_index(pt, va, at)])),
			    "memfold: a map at 0x%llx under a leaf of level %u.", (unsigned long long)va, at);
		if (held < at - level)
			return -MF_ENOMEM;
		pgtable_grow(pt, va, at, level, path, in);
		return 0;
	}
	if (!in || nr_empty > MF_BAG_MAX - held)
		return -MF_ENOSPC;
	for (unsigned i = index; i < index + nr; i++)
		if (!pgtable_is_background(pt, level, entry_load_own(&path[level][i]))) {
			pgtable_unlink(pt, path[level], i, level, in);
			due_table_emptied(pt, va + (i - index) * mf_pgtable_span(&pt->machine->paging, level),
					  level - 1, in->pfn[in->nr - 1]);
		}
	return 0;
}

int mf_pgtable_map(struct mf_pgtable *pt, uintptr_t va, unsigned level, const mf_pfn_t *pfn, unsigned nr,
		   enum mf_prot prot, struct mf_bag *in)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	unsigned page_shift = p->page_shift, at, index, nr_empty = 0;
	uint64_t *entry, background, first, live;
	int err = check_entries(pt, va, level, nr);

	if (err)
		return err;
	at = pgtable_descend(pt, va, level, path);
	index = table_index(pt, va, level);
	/* Where the table is not private yet, the shared one stands for it: all background. */
	entry = at == level ? &path[level][index] : &pgtable_table(pt, pt->shared[level])[index];
	if (!check_frames(pt, level, pfn, nr, entry, &live))
		return -MF_EINVAL;
	if (live != 0)
		nr_empty = count_empty_tables(pt, level, entry, nr);
	if (at > level || nr_empty > 0) {
		err = make_room(pt, va, at, level, nr, nr_empty, path, in);
		if (err)
			return err;
	}

	/* All are background now, soft bits aside: the exclusive-or leaves those, and the leaf is put beside them. */
	entry = &path[level][index];
	background = pt->level[level].background;
	first = p->frame0 + leaf_bits(p, level, prot);
	IN_EIGHTS
	for (unsigned i = 0; i < nr; i++)
		entry_store(&entry[i], (entry_load_own(&entry[i]) ^ background) + first + (pfn[i] << page_shift));
	due_shown(pt, va, level, nr);
	table_count_add(pt, path[level], (int)nr);
	return 0;
}

SELDOM void pgtable_unlink_empty(struct mf_pgtable *pt, uintptr_t va, unsigned level, uint64_t *path[],
				 struct mf_bag *out)
{
	unsigned root_level = pt->machine->paging.levels - 1;

	do {
		level++;
		pgtable_unlink(pt, path[level], table_index(pt, va, level), level, out);
		due_table_emptied(pt, va, level - 1, out->pfn[out->nr - 1]);
	} while (level < root_level && table_is_empty(pt, path[level]));
}

/* Panics unless all entries are leaves or background; only above level 0 can they be anything else. */
static SELDOM void check_no_tables(const struct mf_pgtable *pt, unsigned level, const uint64_t *entry, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		MF_PANIC_IF(!entry_is_leaf(&pt->machine->paging, level, entry_load_own(&entry[i])),
			    "memfold: a clear of entry 0x%llx of level %u, which is a table.",
			    (unsigned long long)entry_load_own(&entry[i]), level);
}

void mf_pgtable_clear(struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr, mf_pfn_t *old_pfn,
		      struct mf_bag *out)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t background, keep = ~pt->soft_mask, address_mask = p->address_mask, frame0 = p->frame0;
	unsigned page_shift = p->page_shift;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *table, *entry;

	MF_PANIC_IF(check_entries(pt, va, level, nr) != 0,
		    "memfold: %u entries of level %u at 0x%llx cannot be cleared: not in one table, or outside.", nr,
		    level, (unsigned long long)va);
	MF_PANIC_IF(pgtable_descend(pt, va, level, path) != level || table_is_uniform(pt, path[level]),
		    "memfold: a clear of 0x%llx, which is not mapped at level %u in a private table.",
		    (unsigned long long)va, level);
	table = path[level];
	entry = &table[table_index(pt, va, level)];
	background = pt->level[level].background;
	if (level > 0)
		check_no_tables(pt, level, entry, nr);
	IN_EIGHTS
	for (unsigned i = 0; i < nr; i++) {
		uint64_t old = entry_load_own(&entry[i]), change = (old ^ background) & keep;

		MF_PANIC_IF(change == 0, "memfold: a clear of entry %u of level %u at 0x%llx, which is not mapped.", i,
			    level, (unsigned long long)va);
		if (old_pfn)
			old_pfn[i] = ((old & address_mask) - frame0) >> page_shift;
		entry_store(&entry[i], old ^ change);
		due_changed(pt, va + i * mf_pgtable_span(p, level), level, old);
	}
	if (table_count_add(pt, table, -(int)nr) && table_is_empty(pt, table) && (pt->flags & MF_PGTABLE_PRIVATE) == 0)
		pgtable_unlink_empty(pt, va, level, path, out);
}

/* The entry that translates va, to be changed; NULL when that is background. */
static uint64_t *find_leaf(const struct mf_pgtable *pt, uintptr_t va, unsigned *level)
{
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *entry;

	*level = pgtable_descend(pt, va, 0, path);
	MF_PANIC_IF(table_is_uniform(pt, path[*level]),
		    "memfold: a change of 0x%llx, which lies in a uniform table.", (unsigned long long)va);
	entry = &path[*level][table_index(pt, va, *level)];
	return pgtable_is_background(pt, *level, entry_load(entry)) ? NULL : entry;
}

int mf_pgtable_protect(struct mf_pgtable *pt, uintptr_t va, enum mf_prot prot)
{
	const struct mf_paging *p = &pt->machine->paging;
	unsigned level;
	uint64_t *entry, old;

	if (!pgtable_contains(pt, va))
		return -MF_EFAULT;
	entry = find_leaf(pt, va, &level);
	if (!entry)
		return -MF_ENOENT;
	old = entry_load(entry);
	entry_change(pt, entry, (old & p->address_mask) | leaf_bits(p, level, prot));
	due_changed(pt, va, level, old);
	return 0;
}

mf_pfn_t mf_pgtable_replace(struct mf_pgtable *pt, uintptr_t va, mf_pfn_t new_pfn)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *entry = NULL, old;
	unsigned level = 0;

	if (pgtable_contains(pt, va))
		entry = find_leaf(pt, va, &level);
	MF_PANIC_IF(!entry || level != 0,
		    "memfold: the frame behind 0x%llx is replaced, but no leaf of level 0 is there.",
		    (unsigned long long)va);
	MF_PANIC_IF(!pgtable_may_map(pt, 0, new_pfn),
		    "memfold: frame 0x%llx cannot stand behind a leaf.", (unsigned long long)new_pfn);
	old = entry_load(entry);
	entry_change(pt, entry, frame_paddr(p, new_pfn) | (old & ~p->address_mask & ~pt->soft_mask));
	due_changed(pt, va, level, old);
	return entry_pfn(p, old);
}
