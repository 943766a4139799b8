/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * entry.h - one entry, one table, one path: the small steps that all of core/pgtable is made of.
 *
 * Owns no state.  Law: an entry is read and written as one atomic 64-bit word, and whoever changes an entry keeps its
 * soft bits, because they belong to the table and not to the entry.  Knows nothing of bags and flushes.
 *
 * The count of private entries of a table, in base 2^soft_bits, lowest digit in entry 0:
 *
 *      entry   0          1          2 ...  15    16 ...
 *      soft    count % B  count / B  0      mark  0          x86-64: B = 128, 2 digits;  arm64: B = 16, 3 or 4 digits
 *
 * The mark is 0 in private tables, and all ones in uniform tables.  Those count all of their entries, too, so that
 * nobody takes one for empty.
 */
#ifndef CORE_PGTABLE_ENTRY_H
#define CORE_PGTABLE_ENTRY_H

#include <memfold/pgtable.h>

/* ---- An entry ----------------------------------------------------------------------------------------- */

static inline uint64_t entry_load(const uint64_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

/* For whoever may change the table: nobody else does meanwhile, so there is nothing to be ordered with. */
static inline uint64_t entry_load_own(const uint64_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

/* Release: what the entry leads to was written before. */
static inline void entry_store(uint64_t *entry, uint64_t bits)
{
	__atomic_store_n(entry, bits, __ATOMIC_RELEASE);
}

static inline void entry_change(const struct mf_pgtable *pt, uint64_t *entry, uint64_t bits)
{
	entry_store(entry, bits | (entry_load_own(entry) & pt->soft_mask));
}

/* An entry without address: what all leaves of one level and protection share. */
static inline uint64_t leaf_bits(const struct mf_paging *p, unsigned level, enum mf_prot prot)
{
	return p->leaf_bits | (level == 0 ? p->leaf_base_bits : p->leaf_block_bits) |
	       (prot == MF_PROT_WRITE ? p->write_set : p->write_clear);
}

static inline uint64_t frame_paddr(const struct mf_paging *p, mf_pfn_t pfn)
{
	return p->frame0 + (pfn << p->page_shift);
}

static inline uint64_t table_entry(const struct mf_paging *p, mf_pfn_t table)
{
	return frame_paddr(p, table) | p->table_bits;
}

static inline bool entry_is_leaf(const struct mf_paging *p, unsigned level, uint64_t entry)
{
	return level == 0 || (entry & p->block_mask) == p->block_value;
}

static inline bool entry_is_writable(const struct mf_paging *p, uint64_t entry)
{
	return (entry & p->write_mask) == p->write_set;
}

static inline mf_pfn_t entry_pfn(const struct mf_paging *p, uint64_t entry)
{
	return ((entry & p->address_mask) - p->frame0) >> p->page_shift;
}

static inline bool pgtable_is_background(const struct mf_pgtable *pt, unsigned level, uint64_t entry)
{
	return (entry & ~pt->soft_mask) == pt->level[level].background;
}

/* ---- A table ------------------------------------------------------------------------------------------ */

static inline unsigned paging_fanout_shift(const struct mf_paging *p)
{
	return p->page_shift - 3;
}

static inline unsigned paging_fanout(const struct mf_paging *p)
{
	return 1u << paging_fanout_shift(p);
}

static inline unsigned table_index(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	return (unsigned)(va >> pt->level[level].shift) & pt->level[level].index_mask;
}

/* Frames under one leaf of this level. */
static inline uint64_t leaf_frames(const struct mf_paging *p, unsigned level)
{
	return (uint64_t)1 << (level * paging_fanout_shift(p));
}

static inline uint64_t *pgtable_table(const struct mf_pgtable *pt, mf_pfn_t pfn)
{
	return mf_machine_frame(pt->machine, pfn);
}

static inline uint64_t *entry_table(const struct mf_pgtable *pt, uint64_t entry)
{
	return (uint64_t *)(pt->paddr0 + (entry & pt->machine->paging.address_mask));
}

/* For a table that is not linked yet: plain stores, in groups that compilers turn into vector stores at -O2. */
static inline void table_fill(const struct mf_paging *p, uint64_t *table, uint64_t entry)
{
	unsigned fanout = paging_fanout(p);

	for (unsigned i = 0; i < fanout; i += 8)
		for (unsigned k = 0; k < 8; k++)
			table[i + k] = entry;
}

/* Entries that hold a digit of the count. */
static inline unsigned table_digits(const struct mf_paging *p)
{
	return (paging_fanout_shift(p) + p->soft_bits) / p->soft_bits;
}

static inline unsigned table_count(const struct mf_paging *p, const uint64_t *table)
{
	unsigned shift = p->soft_shift, bits = p->soft_bits, end = paging_fanout_shift(p) + 1, count = 0;

	for (unsigned at = 0; at < end; at += bits, table++)
		count |= ((unsigned)(entry_load_own(table) >> shift) & ((1u << bits) - 1)) << at;
	return count;
}

/* The entry whose soft bits are 0 but in a uniform table: beyond the digits, of which there are at most 14. */
enum { UNIFORM_MARK = 15 };

static inline bool table_is_uniform(const struct mf_pgtable *pt, const uint64_t *table)
{
	return (entry_load_own(&table[UNIFORM_MARK]) & pt->soft_mask) != 0;
}

/* Mostly answered by entry 0. */
static inline bool table_is_empty(const struct mf_pgtable *pt, const uint64_t *table)
{
	return (entry_load_own(table) & pt->soft_mask) == 0 && table_count(&pt->machine->paging, table) == 0;
}

/* Carries from digit to digit; a small change seldom gets beyond entry 0.  False: the count is certainly not 0. */
static inline bool table_count_add(const struct mf_pgtable *pt, uint64_t *table, int nr)
{
	const struct mf_paging *p = &pt->machine->paging;
	unsigned shift = p->soft_shift, bits = p->soft_bits, at = 0;
	uint64_t mask = pt->soft_mask, low;
	int64_t carry = nr;

	for (uint64_t *digit = table;; digit++) {
		uint64_t entry = entry_load_own(digit);

		carry += (int64_t)((entry & mask) >> shift);
		low = (uint64_t)carry << shift & mask;
		entry_store(digit, (entry & ~mask) | low);
		carry >>= bits;
		if (MF_LIKELY(carry == 0))
			return low == 0;
		at += bits;
		MF_PANIC_IF(at > paging_fanout_shift(p), "memfold: a page table's count of entries is out of range.");
	}
}

/* ---- A path ------------------------------------------------------------------------------------------- */

static inline bool pgtable_contains(const struct mf_pgtable *pt, uintptr_t va)
{
	return va - pt->base < pt->size_bytes;
}

/*
 * Do `nr` entries of `level` from va on lie in one table, and in the range?  In this order, and with these differences,
 * so that nothing overflows; nr = 0 is caught by its wrapping.
 */
static inline int pgtable_check_range(const struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr)
{
	const struct mf_pgtable_level *l = &pt->level[level];
	uint64_t offset = va - pt->base;

	if ((va & l->span_mask) != 0 || nr - 1 > l->index_mask - table_index(pt, va, level))
		return -MF_EINVAL;
	if (offset >= pt->size_bytes || (uint64_t)nr << l->shift > pt->size_bytes - offset)
		return -MF_EFAULT;
	return 0;
}

/* Can this frame, or the block that it begins, stand behind a leaf of this level?  Beyond max_leaf_level none can. */
static inline bool pgtable_may_map(const struct mf_pgtable *pt, unsigned level, mf_pfn_t pfn)
{
	return (pfn & pt->level[level].forbidden_bits) == 0 && pfn != pt->level[level].forbidden_pfn;
}

/* The first address that the root would serve: the range's own high bits, zeroes below. */
static inline uintptr_t pgtable_first(const struct mf_pgtable *pt)
{
	const struct mf_paging *p = &pt->machine->paging;

	return pt->base & ~(uintptr_t)(mf_pgtable_span(p, p->levels) - 1);
}

/*
 * Follows private tables from the root towards `level`; path[l] is the table of level l on the way.  Gives the
 * level of the last one: `level`, or a higher one, whose entry for va is then background or a leaf.  The one of level 0
 * may be uniform: whoever changes something there has to look.
 */
static inline unsigned pgtable_descend(const struct mf_pgtable *pt, uintptr_t va, unsigned level,
				       uint64_t *path[MF_PGTABLE_LEVELS_MAX])
{
	/* Copies: an acquiring load makes the compiler read again whatever lies in memory. */
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t address_mask = p->address_mask, block_mask = p->block_mask, block_value = p->block_value;
	uintptr_t paddr0 = pt->paddr0;
	uint64_t *table = pgtable_table(pt, pt->root);
	unsigned at = p->levels - 1;

	for (path[at] = table; at > level; path[at] = table) {
		uint64_t entry = entry_load(&table[table_index(pt, va, at)]);

		/* Above level 0 the background is the one table entry with its address. */
		if ((entry & block_mask) == block_value || ((entry ^ pt->level[at].background) & address_mask) == 0)
			break;
		table = (uint64_t *)(paddr0 + (entry & address_mask));
		at--;
	}
	return at;
}

/* ---- Shared by the files of this room ------------------------------------------------------------------ */

/* Makes private the tables below path[at] down to `level`, from `in`, which holds at - level frames.  In change.c. */
void pgtable_grow(struct mf_pgtable *pt, uintptr_t va, unsigned at, unsigned level, uint64_t *path[],
		  struct mf_bag *in);

/*
 * Puts an entry of `table`, which is of `level`, back to background; the table it led to, which is empty, goes to
 * `bag`. In change.c.
 */
void pgtable_unlink(struct mf_pgtable *pt, uint64_t *table, unsigned index, unsigned level, struct mf_bag *bag);

/* The table of `level` for va has become empty: unlinks it, and those above that become so by that.  In change.c. */
void pgtable_unlink_empty(struct mf_pgtable *pt, uintptr_t va, unsigned level, uint64_t *path[], struct mf_bag *out);

/* In the direct map, where the machine can.  In pgtable.c. */
void pgtable_protect_frame(const struct mf_pgtable *pt, mf_pfn_t pfn, bool writable);

#endif
