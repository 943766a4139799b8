/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pgtable.c - page tables come up and go down, and the questions one asks them: walk, table, frames.
 *
 * Owns the zero frame, the shared tables and the root from init to destroy.  Law: those are read-only in the direct map
 * while they are shared, and every address of the range translates at all times.  Does not change entries (change.c,
 * shape.c, alias.c) and does not judge them (check.c).
 */
#include "entry.h"

/* ---- Bags --------------------------------------------------------------------------------------------- */

void mf_bag_put(struct mf_bag *bag, mf_pfn_t pfn)
{
	MF_PANIC_IF(bag->nr >= MF_BAG_MAX, "memfold: a bag for %d frames is full.", (int)MF_BAG_MAX);
	bag->pfn[bag->nr++] = pfn;
}

mf_pfn_t mf_bag_take(struct mf_bag *bag)
{
	MF_PANIC_IF(bag->nr == 0, "memfold: a frame is taken from an empty bag.");
	return bag->pfn[--bag->nr];
}

/* ---- Up ----------------------------------------------------------------------------------------------- */

static bool paging_is_usable(const struct mf_paging *p)
{
	return p->page_shift >= 12 && p->page_shift <= 16 && p->levels >= 2 && p->levels <= MF_PGTABLE_LEVELS_MAX &&
	       p->max_leaf_level <= p->levels - 2 &&
	       p->page_shift + (p->max_leaf_level + 1) * paging_fanout_shift(p) < 64 &&
	       (p->frame0 & (~p->address_mask | (mf_pgtable_span(p, p->max_leaf_level) - 1))) == 0 &&
	       p->soft_bits >= 1 && p->soft_bits <= 16 && p->soft_shift + p->soft_bits <= 64 &&
	       (p->soft_bits << paging_fanout_shift(p)) >= paging_fanout_shift(p) + 1;
}

/* Does one root serve the whole range?  Address bits above the root's are the same throughout (a canonical half). */
static bool range_is_reachable(const struct mf_paging *p, uintptr_t base, uint64_t size_bytes)
{
	unsigned reach_shift = p->page_shift + p->levels * paging_fanout_shift(p);
	uint64_t frame_mask = ((uint64_t)1 << p->page_shift) - 1;
	uintptr_t last = base + (size_bytes - 1);

	if (size_bytes == 0 || ((base | size_bytes) & frame_mask) != 0 || last < base)
		return false;
	return reach_shift >= 64 || base >> reach_shift == last >> reach_shift;
}

void pgtable_protect_frame(const struct mf_pgtable *pt, mf_pfn_t pfn, bool writable)
{
	if (pt->machine->ops->direct_protect)
		pt->machine->ops->direct_protect(pt->machine, pfn, writable);
}

/* Bits that no pfn may have if its address is to fit the entry: beyond frame0 a power of two of frames is used. */
static mf_pfn_t bits_beyond_entry(const struct mf_paging *p)
{
	uint64_t last = (p->address_mask | (mf_pgtable_span(p, 0) - 1)) - p->frame0;

	return ~(p->address_mask >> p->page_shift) | ~(((mf_pfn_t)1 << mf_log2((last >> p->page_shift) + 1)) - 1);
}

/* pt->zero and the shared tables below this level are known. */
static void set_up_level(struct mf_pgtable *pt, unsigned level)
{
	const struct mf_paging *p = &pt->machine->paging;
	unsigned shift = p->page_shift + level * paging_fanout_shift(p);
	/* Beyond max_leaf_level there is no leaf, and the number of frames may not fit 64 bits. */
	mf_pfn_t inside = level <= p->max_leaf_level ? leaf_frames(p, level) - 1 : ~(mf_pfn_t)0;

	pt->level[level] = (struct mf_pgtable_level){
		.background = level == 0 ? frame_paddr(p, pt->zero) | leaf_bits(p, 0, MF_PROT_READ)
					 : table_entry(p, pt->shared[level - 1]),
		.span_mask = mf_pgtable_span(p, level) - 1,
		.shift = shift < 64 ? shift : 0,
		.index_mask = shift < 64 ? paging_fanout(p) - 1 : 0,
		.forbidden_bits = bits_beyond_entry(p) | inside,
		.forbidden_pfn = pt->zero & ~inside,
	};
}

unsigned mf_pgtable_init_frames(const struct mf_paging *paging)
{
	return 2 + (paging->levels - 1);
}

int mf_pgtable_init(struct mf_pgtable *pt, struct mf_machine *machine, enum mf_pgtable_flags flags, uintptr_t base,
		    uint64_t size_bytes, struct mf_bag *in)
{
	const struct mf_paging *p = &machine->paging;

	if (!paging_is_usable(p) || !range_is_reachable(p, base, size_bytes))
		return -MF_EINVAL;
	if (machine->unbacked != MF_UNBACKED_ZERO)
		return -MF_EOPNOTSUPP;
	MF_PANIC_IF(in->nr < mf_pgtable_init_frames(p), "memfold: page tables need %u frames to begin with, not %u.",
		    mf_pgtable_init_frames(p), in->nr);

	*pt = (struct mf_pgtable){.machine = machine, .base = base, .size_bytes = size_bytes, .flags = flags};
	pt->paddr0 = (uintptr_t)machine->direct_map - p->frame0;
	pt->soft_mask = (((uint64_t)1 << p->soft_bits) - 1) << p->soft_shift;
	pt->zero = mf_bag_take(in);
	__builtin_memset(mf_machine_frame(machine, pt->zero), 0, (size_t)1 << p->page_shift);
	pgtable_protect_frame(pt, pt->zero, false);
	for (unsigned level = 0; level < p->levels - 1; level++) {
		set_up_level(pt, level);
		pt->shared[level] = mf_bag_take(in);
		table_fill(p, pgtable_table(pt, pt->shared[level]), pt->level[level].background);
		pgtable_protect_frame(pt, pt->shared[level], false);
	}
	set_up_level(pt, p->levels - 1);
	pt->root = mf_bag_take(in);
	table_fill(p, pgtable_table(pt, pt->root), pt->level[p->levels - 1].background);
	pt->nr_private[p->levels - 1] = 1;
	return 0;
}

/* ---- Down --------------------------------------------------------------------------------------------- */

void mf_pgtable_destroy(struct mf_pgtable *pt, struct mf_bag *out)
{
	unsigned levels = pt->machine->paging.levels;

	MF_PANIC_IF(!table_is_empty(pt, pgtable_table(pt, pt->root)),
		    "memfold: page tables are destroyed while something is mapped in them.");
	mf_bag_put(out, pt->root);
	for (unsigned level = 0; level < levels - 1; level++) {
		pgtable_protect_frame(pt, pt->shared[level], true);
		mf_bag_put(out, pt->shared[level]);
	}
	pgtable_protect_frame(pt, pt->zero, true);
	mf_bag_put(out, pt->zero);
	*pt = (struct mf_pgtable){0};
}

/* ---- Questions ---------------------------------------------------------------------------------------- */

struct mf_translation mf_pgtable_walk(const struct mf_pgtable *pt, uintptr_t va)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	unsigned at;
	uint64_t entry;
	mf_pfn_t inside;

	MF_PANIC_IF(!pgtable_contains(pt, va), "memfold: walk to 0x%llx, outside the page tables' range.",
		    (unsigned long long)va);
	at = pgtable_descend(pt, va, 0, path);
	/* Read again: it may have changed since the descent.  Whatever it is now, it is an answer of this moment... */
	entry = entry_load(&path[at][table_index(pt, va, at)]);
	if (pgtable_is_background(pt, at, entry))
		return (struct mf_translation){.pte = {pt->level[0].background}, .pfn = pt->zero, .background = true};
	/* ... but where a table has just been linked here, the way down is longer. */
	if (!entry_is_leaf(p, at, entry))
		return mf_pgtable_walk(pt, va);
	inside = (va >> p->page_shift) & (leaf_frames(p, at) - 1);
	return (struct mf_translation){
		.pte = {entry & ~pt->soft_mask},
		.pfn = entry_pfn(p, entry) + inside,
		.level = at,
		.writable = entry_is_writable(p, entry),
	};
}

unsigned mf_pgtable_tables_needed(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];
	unsigned at;

	MF_PANIC_IF(!pgtable_contains(pt, va) || level >= p->levels,
		    "memfold: 0x%llx at level %u is outside the page tables.", (unsigned long long)va, level);
	at = pgtable_descend(pt, va, level, path);
	/* Under a larger leaf there is nothing to make private; nor in a uniform table, which counts as being there. */
	if (!pgtable_is_background(pt, at, entry_load(&path[at][table_index(pt, va, at)])))
		return 0;
	return at - level;
}

bool mf_pgtable_table(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t *pfn)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t *path[MF_PGTABLE_LEVELS_MAX];

	if (!pgtable_contains(pt, va) || level + 1 >= p->levels || pgtable_descend(pt, va, level, path) != level ||
	    table_is_uniform(pt, path[level]))
		return false;
	*pfn = entry_pfn(p, entry_load(&path[level + 1][table_index(pt, va, level + 1)]));
	return true;
}

uint64_t mf_pgtable_frames(const struct mf_pgtable *pt)
{
	unsigned levels = pt->machine->paging.levels;
	uint64_t nr_frames = 1 + (levels - 1);

	for (unsigned level = 0; level < levels; level++)
		nr_frames += pt->nr_private[level];
	return nr_frames;
}
