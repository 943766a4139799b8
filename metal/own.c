/* SPDX-License-Identifier: BSD-2-Clause */
/* own.c - boot map in, one map of all memory out.  Owns nothing after it returns; the caller has the machine. */
#include "metal/own.h"

#include "machines/x86_64/x86_64.h"
#include "metal/explain.h"

/* The size of a block that is one record: where something begins or ends inside, it is described frame by frame. */
static const uint64_t OWN_BLOCK = 2 * MF_MIB;
/* As far as the windows of one map reach (docs/decisions/0016). */
static const uint64_t OWN_REACH = 16 * MF_TIB;
/* What that costs: eight slots, and the tables that lead to them. */
static const uint64_t OWN_FINE_BYTES = 10 * X86_PAGE;

/* The smallest range that is large enough: larger ones keep whole blocks up to their ends. */
static const struct boot_range *range_to_take_from(uint64_t size_bytes)
{
	const struct boot_range *best = NULL;

	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++)
		if (r->kind == BOOT_RAM && r->end - r->start > size_bytes + OWN_BLOCK &&
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

/* Physical addresses of one node that are one region, or to become one. */
struct stretch {
	uint64_t start, end;
	unsigned node;
};

static void add_region(struct own *own, const struct stretch *s, bool owned)
{
	struct mf_region_config config = {
		.start_pfn = s->start >> X86_PAGE_SHIFT,
		.end_pfn = s->end >> X86_PAGE_SHIFT,
		.node = s->node,
		.source = owned ? MF_SOURCE_SELF : MF_SOURCE_RAM,
		.flags = owned ? 0 : MF_REGION_RESERVED,
	};
	unsigned id;
	int err;

	if (s->start == s->end)
		return;
	err = mf_region_add(own->map, &config, &id);
	MF_PANIC_IF(err != 0, "memfold: memory from 0x%llx to 0x%llx cannot be described: %s.",
		    (unsigned long long)s->start, (unsigned long long)s->end, mf_strerror(err));
	if (owned)
		own->described_bytes += s->end - s->start;
}

/* Is there more memory to be had in the block around this address than it takes to describe it frame by frame? */
static bool is_worth_it(const struct x86_machine_config *machine, uint64_t paddr)
{
	uint64_t start = mf_round_down(paddr, OWN_BLOCK), nr_bytes = 0;

	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++) {
		uint64_t from = mf_max(r->start, start), to = mf_min(r->end, start + OWN_BLOCK);

		if (r->end == machine->ram_end)
			to = mf_min(to, machine->ram_start);
		if (r->kind == BOOT_RAM && from < to)
			nr_bytes += to - from;
	}
	return nr_bytes > OWN_FINE_BYTES;
}

static uint64_t bound_down(const struct x86_machine_config *machine, uint64_t paddr)
{
	return is_worth_it(machine, paddr) ? paddr : mf_round_down(paddr, OWN_BLOCK);
}

static uint64_t bound_up(const struct x86_machine_config *machine, uint64_t paddr)
{
	return is_worth_it(machine, paddr) ? paddr : mf_round_up(paddr, OWN_BLOCK);
}

/* What is memfold's of this range: maybe nothing. */
static struct stretch owned_part(const struct boot_range *r, const struct x86_machine_config *machine)
{
	uint64_t start = bound_up(machine, r->start), end = bound_down(machine, r->end);

	if (r->end == machine->ram_end)
		end = machine->ram_start;
	if (r->kind != BOOT_RAM || start > end)
		start = end = bound_down(machine, r->start);
	return (struct stretch){ start, end, r->node };
}

/* One more piece is reserved, unless a piece before has it already; pieces side by side are one region. */
static void reserve(struct own *own, struct stretch *reserved, uint64_t start, uint64_t end, unsigned node)
{
	start = mf_max(start, reserved->end);
	if (start >= end)
		return;
	if (start > reserved->end || node != reserved->node) {
		add_region(own, reserved, false);
		*reserved = (struct stretch){ start, start, node };
	}
	reserved->end = end;
}

static void describe_all(struct own *own, const struct x86_machine_config *machine)
{
	struct stretch reserved = { 0 };
	uint64_t ram_bytes = 0;

	for (const struct boot_range *r = boot_map.range; r < boot_map.range + boot_map.nr; r++) {
		struct stretch owned = owned_part(r, machine);

		if (!is_memory(r))
			continue;
		reserve(own, &reserved, bound_down(machine, r->start), owned.start, r->node);
		add_region(own, &owned, true);
		reserve(own, &reserved, owned.end, bound_up(machine, r->end), r->node);
		ram_bytes += r->kind == BOOT_RAM ? r->end - r->start : 0;
	}
	add_region(own, &reserved, false);
	own->ram_start = machine->ram_start;
	own->ram_bytes = machine->ram_end - machine->ram_start;
	own->withheld_bytes = ram_bytes - own->described_bytes - own->ram_bytes;
}

void own_all_memory(struct own *own, uint64_t ram_bytes)
{
	const struct boot_range *spared = range_to_take_from(ram_bytes);
	struct x86_machine_config machine = {
		.ram_start = mf_round_down(spared->end - ram_bytes, OWN_BLOCK), .ram_end = spared->end
	};
	/* Whatever address memory may come at, it has its place in the windows: what is not described costs nothing. */
	struct mf_map_config map = { .span = mf_min((uint64_t)1 << x86_features.paddr_bits, OWN_REACH) >> X86_PAGE_SHIFT };
	int err = x86_machine_create(&machine, &own->machine);

	MF_PANIC_IF(err != 0, "memfold: no machine: %s.", mf_strerror(err));
	map.machine = own->machine;
	err = mf_map_create(&map, &own->map);
	MF_PANIC_IF(err != 0, "memfold: no map: %s.", mf_strerror(err));
	own->described_bytes = 0;
	describe_all(own, &machine);
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
