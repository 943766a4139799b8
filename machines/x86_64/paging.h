/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * paging.h - the entries of the kernel's own tables, for paging.c, protect.c and describe.c.
 *
 * Owns nothing.  Levels are numbered from the leaves, as in core/pgtable; these tables are none of the core's, which
 * builds those of the windows and shares no code with them, so that one can be held against the other.
 */
#ifndef MEMFOLD_MACHINES_X86_64_PAGING_H
#define MEMFOLD_MACHINES_X86_64_PAGING_H

#include "machines/x86_64/x86_64.h"

#define ENTRY_PRESENT ((uint64_t)1 << 0)
#define ENTRY_WRITE ((uint64_t)1 << 1)
#define ENTRY_UNCACHED ((uint64_t)3 << 3) /* PWT and PCD: strongly uncached in the PAT as it is after reset */
#define ENTRY_ACCESSED ((uint64_t)1 << 5)
#define ENTRY_DIRTY ((uint64_t)1 << 6)
#define ENTRY_BLOCK ((uint64_t)1 << 7)    /* a leaf, in levels above 0                                      */
#define ENTRY_GLOBAL ((uint64_t)1 << 8)
#define ENTRY_PROTECTED ((uint64_t)1 << 9) /* ours, ignored by hardware: read-only by paging_protect()       */
#define ENTRY_NO_EXECUTE ((uint64_t)1 << 63)
#define ENTRY_ADDRESS ((uint64_t)0x000ffffffffff000)

/* Accessed and Dirty are preset: the processor has nothing to write. */
#define ENTRY_TABLE (ENTRY_PRESENT | ENTRY_WRITE | ENTRY_ACCESSED)
#define ENTRY_READ_ONLY (ENTRY_PRESENT | ENTRY_ACCESSED | ENTRY_GLOBAL | ENTRY_NO_EXECUTE)
#define ENTRY_WRITABLE (ENTRY_READ_ONLY | ENTRY_WRITE | ENTRY_DIRTY)

/* Physical: boot.S maps no more, and processors that come up load CR3 in 32 bits. */
#define BOOT_TABLES_BELOW (4 * MF_GIB)

enum { ENTRIES = 512, BITS_PER_LEVEL = 9 };

static inline uint64_t entry_span(unsigned level)
{
	return (uint64_t)X86_PAGE << (BITS_PER_LEVEL * level);
}

static inline unsigned entry_index(uintptr_t va, unsigned level)
{
	return (unsigned)(va / entry_span(level) % ENTRIES);
}

static inline uint64_t *entry_table(uint64_t entry)
{
	return x86_direct(entry & ENTRY_ADDRESS);
}

static inline bool entry_is_leaf(uint64_t entry, unsigned level)
{
	return level == 0 || entry & ENTRY_BLOCK;
}

/* Where the walk for va ends: at a leaf or an absent entry, at `last` at the lowest.  *level: of that entry. */
uint64_t *paging_walk(uintptr_t va, unsigned last, unsigned *level);

/* Symbols of link.ld, page by page: text, constants, data. */
extern char x86_text_start[], x86_text_end[], x86_rodata_end[], x86_image_end[];

#endif
