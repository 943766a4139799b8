/* SPDX-License-Identifier: BSD-2-Clause */
/* own.c - boot map in, one map of all memory out.  Owns nothing after it returns; the caller has the machine. */
#include "metal/own.h"

#include "machines/x86_64/x86_64.h"
#include "metal/explain.h"

/* The smallest range that is large enough: larger ones keep whole blocks up to their ends. */
static const struct boot_range *range_to_take_from(uint64_t size_bytes)
{
	const struct boot_range *best = NULL;

	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++)
		if (r->kind == BOOT_RAM && r->end - r->start > size_bytes + 2 * MF_MIB &&
		    (!best || r->end - r->start < best->end - best->start))
			best = r;
	MF_PANIC_IF(!best, "memfold: no range of memory has %llu KiB to spare for tables and edges.",
		    (unsigned long long)size_bytes / MF_KIB);
	return best;
}

/*
 * What firmware names and is not memory, a flash chip or a bus's window, stands alone; memory that it keeps for itself
 * goes on where other memory ends.
 */
static bool is_memory(const struct boot_range *r)
{
	return r->kind != BOOT_FIRMWARE || (r > boot_map.range && r[-1].end == r->start && is_memory(r - 1));
}

static uint64_t end_of_memory(void)
{
	uint64_t end = 0;

	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++)
		if (is_memory(r))
			end = r->end;
	return end;
}

static void add_region(struct own *own, uint64_t start, uint64_t end, bool owned, unsigned node)
{
	struct mf_region_config config = {
		.start_pfn = start >> X86_PAGE_SHIFT,
		.end_pfn = end >> X86_PAGE_SHIFT,
		.node = node,
		.source = owned ? MF_SOURCE_SELF : MF_SOURCE_RAM,
		.flags = owned ? 0 : MF_REGION_RESERVED,
	};
	unsigned id;
	int err = mf_region_add(own->map, &config, &id);

	MF_PANIC_IF(err != 0, "memfold: memory from 0x%llx to 0x%llx cannot be described: %s.",
		    (unsigned long long)start, (unsigned long long)end, mf_strerror(err));
	if (owned)
		own->described_bytes += end - start;
}

void own_all_memory(struct own *own, uint64_t ram_bytes)
{
	const struct boot_range *spared = range_to_take_from(ram_bytes);
	/* From the start of a block of 2 MiB on, so that no further one is split. */
	uint64_t ram_start = mf_round_down(spared->end - ram_bytes, 2 * MF_MIB);
	struct x86_machine_config machine = { .ram_start = ram_start, .ram_end = spared->end };
	struct mf_map_config map = { .span = end_of_memory() >> X86_PAGE_SHIFT };
	int err = x86_machine_create(&machine, &own->machine);

	MF_PANIC_IF(err != 0, "memfold: no machine: %s.", mf_strerror(err));
	map.machine = own->machine;
	err = mf_map_create(&map, &own->map);
	MF_PANIC_IF(err != 0, "memfold: no map: %s.", mf_strerror(err));
	own->described_bytes = 0;
	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++) {
		if (!is_memory(r))
			continue;
		add_region(own, r->start, r == spared ? ram_start : r->end, r->kind == BOOT_RAM, r->node);
		if (r == spared)
			add_region(own, ram_start, r->end, false, r->node);
	}
	explain_map(own->map);
}

void own_nothing(struct own *own)
{
	struct mf_region_info info;
	struct x86_machine_stats stats;

	for (unsigned id = MF_REGIONS_MAX; id > 0; id--) {
		int err = mf_region_info(own->map, id - 1, &info) ? 0 : mf_region_remove(own->map, id - 1);

		MF_PANIC_IF(err != 0, "memfold: region %u cannot be removed: %s.", id - 1, mf_strerror(err));
	}
	explain_map(NULL);
	MF_PANIC_IF(mf_map_destroy(own->map) != 0, "memfold: the map cannot be destroyed.");
	x86_machine_stats(own->machine, &stats);
	MF_PANIC_IF(stats.nr_ram_used + stats.nr_meta_used > 0, "memfold: %llu frames and %llu pieces of memory are left.",
		    (unsigned long long)stats.nr_ram_used, (unsigned long long)stats.nr_meta_used);
	x86_machine_destroy(own->machine);
}
