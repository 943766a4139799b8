/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alias.c - many slots behind which stands one frame: entries switched, uniform tables, entries of level 1 exchanged.
 *
 *      level 1     [ T | U | U | U ... ]            7 of the 8 entries of a 1 GiB folio's map lead to
 *                    |   \   |   /                  one uniform table: 4095 slots, one frame, one table
 *      level 0     [ h | f | f ... ]   [ f | f | f ... ]
 *                      private              uniform
 *
 * Owns nothing: who leads to a uniform table is the caller's to know.  Law: a uniform table is read-only, entry by
 * entry and in the direct map, from fill to unfill; an entry changes from one translation to another by one store.
 * Does not flush and does not allocate.
 */
#include "due.h"
#include "entry.h"

void mf_pgtable_switch(struct mf_pgtable *pt, uintptr_t va, const mf_pfn_t *pfn, unsigned stride, unsigned nr,
		       enum mf_prot prot, mf_pfn_t *old_pfn)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *entry, bits = leaf_bits(p, 0, prot);
	unsigned nr_new = 0;

	MF_PANIC_IF(pgtable_check_range(pt, va, 0, nr) != 0,
		    "memfold: %u entries at 0x%llx cannot be switched: not in one table, or outside.", nr,
		    (unsigned long long)va);
	MF_PANIC_IF(pgtable_descend(pt, va, 0, path) != 0 || table_is_uniform(pt, path[0]),
		    "memfold: a switch at 0x%llx, where there is no private table.", (unsigned long long)va);
	MF_PANIC_IF(stride == 0 && nr > 1 && prot != MF_PROT_READ,
		    "memfold: frame 0x%llx is to stand behind %u writable entries.", (unsigned long long)pfn[0], nr);
	for (unsigned i = 0; i < nr; i++)
		MF_PANIC_IF(!pgtable_may_map(pt, 0, pfn[(size_t)i * stride]),
			    "memfold: frame 0x%llx cannot stand behind a leaf.",
			    (unsigned long long)pfn[(size_t)i * stride]);

	entry = &path[0][table_index(pt, va, 0)];
	for (unsigned i = 0; i < nr; i++) {
		uint64_t old = entry_load_own(&entry[i]);
		mf_pfn_t new_pfn = pfn[(size_t)i * stride];

		nr_new += pgtable_is_background(pt, 0, old);
		if (old_pfn)
			old_pfn[i] = entry_pfn(p, old);
		entry_change(pt, &entry[i], frame_paddr(p, new_pfn) | bits);
		if (((frame_paddr(p, new_pfn) | bits) ^ old) & ~pt->soft_mask)
			due_changed(pt, va + i * mf_pgtable_span(p, 0), 0, old);
	}
	table_count_add(pt, path[0], (int)nr_new);
}

/* ---- Tables --------------------------------------------------------------------------------------------- */

void mf_pgtable_fill(struct mf_pgtable *pt, mf_pfn_t table_pfn, enum mf_entry_kind kind, mf_pfn_t pfn, unsigned stride,
		     enum mf_prot prot)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *table = pgtable_table(pt, table_pfn), bits = leaf_bits(p, 0, prot);

	MF_PANIC_IF(kind != MF_ENTRY_TABLE && kind != MF_ENTRY_UNIFORM, "memfold: a table of kind %d is filled.",
		    (int)kind);
	MF_PANIC_IF(stride == 0 ? prot != MF_PROT_READ : kind == MF_ENTRY_UNIFORM,
		    "memfold: a table is filled with one frame and writable, or with several and uniform.");
	for (unsigned i = 0; i < paging_fanout(p); i++, pfn += stride) {
		MF_PANIC_IF(!pgtable_may_map(pt, 0, pfn), "memfold: frame 0x%llx cannot stand behind a leaf.",
			    (unsigned long long)pfn);
		table[i] = frame_paddr(p, pfn) | bits;
	}
	table_count_add(pt, table, (int)paging_fanout(p));
	if (kind == MF_ENTRY_TABLE)
		return;
	table[UNIFORM_MARK] |= pt->soft_mask;
	pgtable_protect_frame(pt, table_pfn, false);
}

void mf_pgtable_unfill(struct mf_pgtable *pt, mf_pfn_t table_pfn)
{
	uint64_t *table = pgtable_table(pt, table_pfn);

	MF_PANIC_IF(!table_is_uniform(pt, table), "memfold: frame 0x%llx is no uniform table.",
		    (unsigned long long)table_pfn);
	pgtable_protect_frame(pt, table_pfn, true);
	/* What is no uniform table any more must not pass for one. */
	entry_store(&table[UNIFORM_MARK], 0);
}

/* ---- Entries of level 1 --------------------------------------------------------------------------------- */

static struct mf_entry entry_decode(const struct mf_pgtable *pt, uint64_t bits)
{
	const struct mf_paging *p = &pt->machine->paging;
	mf_pfn_t pfn = entry_pfn(p, bits);

	if (pgtable_is_background(pt, 1, bits))
		return (struct mf_entry){.kind = MF_ENTRY_BACKGROUND};
	if (entry_is_leaf(p, 1, bits))
		return (struct mf_entry){MF_ENTRY_LEAF, pfn, entry_is_writable(p, bits)};
	return (struct mf_entry){
		.kind = table_is_uniform(pt, pgtable_table(pt, pfn)) ? MF_ENTRY_UNIFORM : MF_ENTRY_TABLE,
		.pfn = pfn,
	};
}

/* The reverse.  Panics for what no entry of level 1 can be. */
static uint64_t entry_encode(const struct mf_pgtable *pt, const struct mf_entry *entry)
{
	const struct mf_paging *p = &pt->machine->paging;
	const uint64_t *table;

	if (entry->kind == MF_ENTRY_BACKGROUND)
		return pt->level[1].background;
	if (entry->kind == MF_ENTRY_LEAF) {
		MF_PANIC_IF(!pgtable_may_map(pt, 1, entry->pfn),
			    "memfold: frame 0x%llx cannot stand behind a leaf of level 1.",
			    (unsigned long long)entry->pfn);
		return frame_paddr(p, entry->pfn) | leaf_bits(p, 1, entry->writable ? MF_PROT_WRITE : MF_PROT_READ);
	}
	table = pgtable_table(pt, entry->pfn);
	MF_PANIC_IF(table_is_uniform(pt, table) != (entry->kind == MF_ENTRY_UNIFORM) ||
			    (table_is_empty(pt, table) && (pt->flags & MF_PGTABLE_PRIVATE) == 0),
		    "memfold: table 0x%llx is to be linked as what it is not, or with nothing in it.",
		    (unsigned long long)entry->pfn);
	return table_entry(p, entry->pfn);
}

struct mf_entry mf_pgtable_entry(const struct mf_pgtable *pt, uintptr_t va)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], bits;
	unsigned at;
	mf_pfn_t inside;

	MF_PANIC_IF(!pgtable_contains(pt, va), "memfold: the entry for 0x%llx, outside the page tables' range.",
		    (unsigned long long)va);
	at = pgtable_descend(pt, va, 1, path);
	bits = entry_load_own(&path[at][table_index(pt, va, at)]);
	if (at == 1)
		return entry_decode(pt, bits);
	if (pgtable_is_background(pt, at, bits))
		return (struct mf_entry){.kind = MF_ENTRY_BACKGROUND};
	inside = mf_round_down((va >> p->page_shift) & (leaf_frames(p, at) - 1), leaf_frames(p, 1));
	return (struct mf_entry){MF_ENTRY_LEAF, entry_pfn(p, bits) + inside, entry_is_writable(p, bits)};
}

int mf_pgtable_exchange(struct mf_pgtable *pt, uintptr_t va, const struct mf_entry *entry, struct mf_bag *bag,
			struct mf_entry *old)
{
	uint64_t *path[MF_PGTABLE_LEVELS_MAX], *at_entry, bits = entry_encode(pt, entry), old_bits;
	enum mf_entry_kind kind = entry->kind;
	unsigned at;

	MF_PANIC_IF(pgtable_check_range(pt, va, 1, 1) != 0,
		    "memfold: the entry of level 1 at 0x%llx cannot be exchanged: not aligned, or outside.",
		    (unsigned long long)va);
	at = pgtable_descend(pt, va, 1, path);
	if (at > 1) {
		MF_PANIC_IF(!pgtable_is_background(pt, at, entry_load_own(&path[at][table_index(pt, va, at)])),
			    "memfold: an exchange at 0x%llx under a leaf of level %u.", (unsigned long long)va, at);
		if (kind == MF_ENTRY_BACKGROUND) {
			*old = (struct mf_entry){.kind = MF_ENTRY_BACKGROUND};
			return 0;
		}
		if (!bag || bag->nr < at - 1)
			return -MF_ENOMEM;
		pgtable_grow(pt, va, at, 1, path, bag);
	}

	at_entry = &path[1][table_index(pt, va, 1)];
	old_bits = entry_load_own(at_entry);
	*old = entry_decode(pt, old_bits);
	entry_change(pt, at_entry, bits);
	if ((old_bits ^ bits) & ~pt->soft_mask)
		due_changed(pt, va, 1, old_bits);
	pt->nr_private[0] += (kind == MF_ENTRY_TABLE) - (uint64_t)(old->kind == MF_ENTRY_TABLE);
	table_count_add(pt, path[1], (kind != MF_ENTRY_BACKGROUND) - (old->kind != MF_ENTRY_BACKGROUND));
	if (pt->machine->paging.levels > 2 && table_is_empty(pt, path[1]) && (pt->flags & MF_PGTABLE_PRIVATE) == 0)
		pgtable_unlink_empty(pt, va, 1, path, bag);
	return 0;
}
