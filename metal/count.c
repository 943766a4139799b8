/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * count.c - what the windows cost, counted as the processor sees them: every distinct frame below the entry of the top
 * table.  Knows nothing of the core's own counters, so that the two can be held against each other.
 *
 * A table is gone through once, however often it is shared: what stands in it does not depend on the address.
 */
#include "machines/x86_64/x86_64.h"
#include "metal/own.h"

enum { PRESENT = 1, LARGE = 1 << 7, ENTRIES = 512 };
static const uint64_t ADDRESS_MASK = 0x000ffffffffff000;

struct count {
	uint64_t *seen; /* a bit for each frame, up to the last that is memory                                  */
	uint64_t nr_frames;
	struct counted counted;
};

static bool first_time(struct count *c, uint64_t pfn)
{
	uint64_t bit = (uint64_t)1 << (pfn & 63);
	bool first;

	MF_PANIC_IF(pfn >= c->nr_frames, "memfold: a page table names frame 0x%llx, which is not there.",
		    (unsigned long long)pfn);
	first = !(c->seen[pfn >> 6] & bit);
	c->seen[pfn >> 6] |= bit;
	return first;
}

static void count_table(struct count *c, unsigned level, uint64_t paddr)
{
	const uint64_t *entry = x86_direct(paddr);

	if (!first_time(c, paddr >> X86_PAGE_SHIFT))
		return;
	c->counted.tables++;
	for (unsigned i = 0; i < ENTRIES; i++) {
		uint64_t address = entry[i] & ADDRESS_MASK;
		uint64_t nr = (uint64_t)1 << (9 * level);

		if (!(entry[i] & PRESENT))
			continue;
		if (level > 0 && !(entry[i] & LARGE)) {
			count_table(c, level - 1, address);
			continue;
		}
		address = mf_round_down(address, nr << X86_PAGE_SHIFT);
		for (uint64_t f = 0; f < nr; f++)
			c->counted.slots += first_time(c, (address >> X86_PAGE_SHIFT) + f);
	}
}

static uint64_t end_of_memory(void)
{
	uint64_t end = 0;

	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++)
		if (r->kind != BOOT_FIRMWARE)
			end = r->end;
	return end;
}

struct counted count_windows(const struct own *own)
{
	unsigned top = x86_features.levels - 1;
	uintptr_t base = mf_map_geometry(own->map)->window[0];
	const uint64_t *root = x86_direct(paging_root());
	uint64_t entry = root[base >> (X86_PAGE_SHIFT + 9 * top) & (ENTRIES - 1)];
	struct count c = { .nr_frames = end_of_memory() >> X86_PAGE_SHIFT };

	/* A window is one entry of the table that has 512 GiB an entry. */
	if (x86_features.levels == 5) {
		const uint64_t *below = x86_direct(entry & ADDRESS_MASK);

		entry = below[base >> (X86_PAGE_SHIFT + 9 * 3) & (ENTRIES - 1)];
		top--;
	}
	c.seen = heap_alloc(c.nr_frames / 8 + sizeof(uint64_t));
	MF_PANIC_IF(!c.seen, "memfold: no memory to count %llu frames.", (unsigned long long)c.nr_frames);
	count_table(&c, top - 1, entry & ADDRESS_MASK);
	heap_free(c.seen);
	return c.counted;
}
