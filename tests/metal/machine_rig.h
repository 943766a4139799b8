/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * machine_rig.h - machines on the largest range of RAM, and accesses that fault or do not, for tests on bare metal.
 *
 * What regions may describe lies at the start of that range, RAM for the map at its end.
 */
#ifndef TESTS_METAL_MACHINE_RIG_H
#define TESTS_METAL_MACHINE_RIG_H

#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

enum { RAM_FRAMES = 2048 };

static inline struct boot_range largest_ram(void)
{
	struct boot_range largest = {0};

	for (unsigned i = 0; i < boot_map.nr; i++)
		if (boot_map.range[i].kind == BOOT_RAM &&
		    boot_map.range[i].end - boot_map.range[i].start > largest.end - largest.start)
			largest = boot_map.range[i];
	return largest;
}

/* The last frames of the range are RAM. */
static inline struct x86_machine_config config_usual(void)
{
	struct boot_range ram = largest_ram();

	return (struct x86_machine_config){
		.first_paddr = mf_round_down(ram.start, MF_GIB),
		.ram_start = ram.end - RAM_FRAMES * X86_PAGE,
		.ram_end = ram.end,
		.poison_ram = true,
	};
}

static inline mf_pfn_t pfn_of(const struct mf_machine *m, uint64_t paddr)
{
	return (paddr - m->paging.frame0) >> X86_PAGE_SHIFT;
}

static inline struct x86_machine_stats stats_of(struct mf_machine *m)
{
	struct x86_machine_stats stats;

	x86_machine_stats(m, &stats);
	return stats;
}

static inline void write_to(void *at)
{
	*(volatile uint64_t *)at = 1;
}

static inline void read_from(void *at)
{
	(void)*(volatile uint64_t *)at;
}

/* A write there faults although something is mapped; and reading is allowed. */
static inline bool is_read_only(void *at)
{
	struct x86_fault fault = {0};

	return !x86_expect_fault(read_from, at, &fault) && x86_expect_fault(write_to, at, &fault) &&
	       fault.address == (uintptr_t)at && (fault.error & 3) == 3;
}

static inline bool is_absent(void *at)
{
	struct x86_fault fault = {0};

	return x86_expect_fault(read_from, at, &fault) && fault.address == (uintptr_t)at && (fault.error & 3) == 0;
}

#endif
