/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * protect.c - single frames of the direct map made read-only, and writable again.
 *
 * Owns a stock of frames, with which leaves of the direct map are split.  Laws: what was split translates as before; a
 * frame that is protected has ENTRY_PROTECTED in its entry, so that nothing that is read-only for another reason ever
 * becomes writable here.
 *
 * A table of the stock counts the entries in it that are unlike the leaf it stands for.  One that counts none stays as
 * it is, since the next frame there is likely to be near, until the stock is empty: then its leaf is put back.
 *
 *   [ 1 GiB leaf ]  ->  [ 2 MiB | 2 MiB | table | 2 MiB ... ]   counts 1
 *                                          |
 *                                [ 4 KiB | 4 KiB protected | ... ]   counts 1
 */
#include "machines/x86_64/paging.h"

#include "machines/x86_64/cpu.h"

enum { STOCK_ORDER = 6, STOCK_FRAMES = 1 << STOCK_ORDER };

struct split {
	bool is_used;
	unsigned level;  /* of the table                                              */
	uintptr_t va;    /* where what it maps begins                                 */
	unsigned nr_own; /* entries unlike the leaf: protected, or tables             */
};

static struct mf_lock lock; /* over all below, and over the direct map's entries */
static uint64_t stock;      /* physical, STOCK_FRAMES of them                     */
static struct split splits[STOCK_FRAMES];
static unsigned nr_free;
static uint64_t nr_unprotected;

void paging_protect_init(void)
{
	stock = boot_frames(STOCK_ORDER, BOOT_TABLES_BELOW);
	nr_free = STOCK_FRAMES;
}

/* The holder may wait until every CPU has flushed: who waits for it does so, too, be its interrupts on or off. */
static void protect_lock(void)
{
	while (!mf_lock_try(&lock)) {
		smp_serve_flush();
		cpu_pause();
	}
}

uint64_t paging_nr_unprotected(void)
{
	uint64_t nr;

	protect_lock();
	nr = nr_unprotected;
	mf_lock_release(&lock);
	return nr;
}

/* Counts in the table that this entry stands in, if it is of the stock. */
static void count(const uint64_t *entry, int change)
{
	uint64_t index = ((uintptr_t)entry - (uintptr_t)x86_direct(stock)) / X86_PAGE;

	if (index < STOCK_FRAMES)
		splits[index].nr_own += (unsigned)change;
}

static void split_locked(uint64_t *entry, uintptr_t va, unsigned level)
{
	uint64_t leaf = *entry;
	unsigned i = 0;
	uint64_t *table;

	while (splits[i].is_used)
		i++;
	splits[i] = (struct split){.is_used = true, .level = level - 1, .va = mf_round_down(va, entry_span(level))};
	nr_free--;
	table = x86_direct(stock + (uint64_t)i * X86_PAGE);
	for (unsigned k = 0; k < ENTRIES; k++)
		table[k] = (leaf & ~(level == 1 ? ENTRY_BLOCK : 0)) + k * entry_span(level - 1);
	count(entry, 1);
	__atomic_store_n(entry, (stock + (uint64_t)i * X86_PAGE) | ENTRY_TABLE, __ATOMIC_RELEASE);
}

/* Puts the leaf of one table back; false when every table is needed. */
static bool merge_one_locked(void)
{
	for (unsigned i = 0; i < STOCK_FRAMES; i++) {
		struct split *split = &splits[i];
		unsigned level = split->level + 1;
		uint64_t *entry;

		if (!split->is_used || split->nr_own > 0)
			continue;
		entry = paging_walk(split->va, level, &level);
		/* The first entry is the leaf's but for its level. */
		__atomic_store_n(entry, entry_table(*entry)[0] | ENTRY_BLOCK, __ATOMIC_RELEASE);
		count(entry, -1);
		smp_flush(split->va, entry_span(level), MF_FLUSH_TABLES);
		split->is_used = false;
		nr_free++;
		return true;
	}
	return false;
}

/* The entry of the frame alone, whatever stood for it; NULL when there are no tables for that. */
static uint64_t *entry_of_frame_locked(uintptr_t va)
{
	unsigned level;
	uint64_t *entry;

	while (entry = paging_walk(va, 0, &level), nr_free < level)
		if (!merge_one_locked())
			return NULL;
	for (; level > 0; entry = paging_walk(va, 0, &level))
		split_locked(entry, va, level);
	return entry;
}

enum outcome { UNCHANGED, CHANGED, NOT_MAPPED, NOT_OURS };

static enum outcome protect_locked(uintptr_t va, bool writable)
{
	uint64_t bits = writable ? ENTRY_WRITE | ENTRY_DIRTY : ENTRY_PROTECTED;
	unsigned level;
	uint64_t *entry = paging_walk(va, 0, &level);

	if (!(*entry & ENTRY_PRESENT))
		return NOT_MAPPED;
	if (!(*entry & ENTRY_WRITE) == !writable)
		return UNCHANGED;
	if (writable && !(*entry & ENTRY_PROTECTED))
		return NOT_OURS;
	entry = entry_of_frame_locked(va);
	if (!entry) {
		if (nr_unprotected++ == 0)
			mf_log(MF_LOG_WARNING, "memfold: x86_64: 0x%llx stays writable, since all %u tables for "
			       "read-only frames of the direct map are used; further ones are only counted.",
			       (unsigned long long)va, STOCK_FRAMES);
		return UNCHANGED;
	}
	__atomic_store_n(entry, (*entry & ~(ENTRY_WRITE | ENTRY_DIRTY | ENTRY_PROTECTED)) | bits, __ATOMIC_RELEASE);
	count(entry, writable ? -1 : 1);
	return CHANGED;
}

void paging_protect(uint64_t paddr, bool writable)
{
	uintptr_t va = X86_DIRECT + paddr;
	enum outcome outcome;

	protect_lock();
	outcome = protect_locked(va, writable);
	mf_lock_release(&lock);
	MF_PANIC_IF(outcome == NOT_MAPPED, "memfold: x86_64: frame 0x%llx is not in the direct map.",
		    (unsigned long long)paddr);
	MF_PANIC_IF(outcome == NOT_OURS, "memfold: x86_64: frame 0x%llx is read-only for good.",
		    (unsigned long long)paddr);
	if (outcome == CHANGED)
		smp_flush(va, X86_PAGE, MF_FLUSH_LEAVES);
}
