/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_own.c - all memory of the machine in one map, as a kernel begins: every byte of RAM is somebody's, or is one of
 * few that would take as many again to be described.
 */
#include "machines/x86_64/x86_64.h"

#include <memfold/memfold.h>

#include "metal/own.h"
#include "tests/tap.h"

static uint64_t bytes_of_ram(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < boot_map.nr; i++)
		if (boot_map.range[i].kind == BOOT_RAM)
			sum += boot_map.range[i].end - boot_map.range[i].start;
	return sum;
}

static const struct mf_page *record_of(const struct own *own, uint64_t paddr)
{
	const struct mf_folio *folio = mf_pfn_folio(own->map, paddr >> X86_PAGE_SHIFT);

	return folio ? &folio->page : NULL;
}

static bool is_free(const struct own *own, uint64_t paddr)
{
	const struct mf_page *page = record_of(own, paddr);

	return page && mf_page_kind(page) == MF_KIND_FREE;
}

static bool is_reserved(const struct own *own, uint64_t paddr)
{
	const struct mf_page *page = record_of(own, paddr);

	return page && mf_page_kind(page) == MF_KIND_RESERVED;
}

TAP_TEST(all_ram_is_somebodys)
{
	struct mf_violation violation;
	struct mf_map_stats stats;
	struct own own;

	own_all_memory(&own, MF_MIB);
	TAP_EQ(mf_map_check(own.map, &violation), 0);
	mf_map_stats(own.map, &stats);
	TAP_EQ(stats.nr_free << X86_PAGE_SHIFT, own.described_bytes);
	TAP_EQ(own.described_bytes + own.withheld_bytes + own.ram_bytes, bytes_of_ram());
	TAP_OK(own.ram_bytes >= MF_MIB);
	TAP_NOTE("%llu KiB are memfold's, %llu KiB source RAM, %llu KiB withheld",
		 (unsigned long long)(own.described_bytes / MF_KIB), (unsigned long long)(own.ram_bytes / MF_KIB),
		 (unsigned long long)(own.withheld_bytes / MF_KIB));
	own_nothing(&own);
}

/* What is no RAM is reserved, from its first byte to its last; RAM is free, source RAM, or withheld. */
TAP_TEST(ranges_are_what_they_are)
{
	struct own own;

	own_all_memory(&own, MF_MIB);
	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *r = &boot_map.range[i];

		if (r->kind == BOOT_FIRMWARE)
			continue;
		TAP_OK(is_reserved(&own, r->start) || (r->kind == BOOT_RAM && is_free(&own, r->start)));
		TAP_OK(is_reserved(&own, r->end - 1) || (r->kind == BOOT_RAM && is_free(&own, r->end - 1)));
		if (r->end - r->start >= 4 * MF_MIB)
			TAP_EQ(is_free(&own, mf_round_up(r->start, 2 * MF_MIB)), r->kind == BOOT_RAM);
	}
	own_nothing(&own);
}

static bool is_ram(uint64_t paddr)
{
	for (unsigned i = 0; i < boot_map.nr; i++)
		if (paddr >= boot_map.range[i].start && paddr < boot_map.range[i].end)
			return boot_map.range[i].kind == BOOT_RAM;
	return false;
}

/* Bytes of RAM in the block of 2 MiB around this address that nobody can have. */
static uint64_t withheld_around(const struct own *own, uint64_t paddr)
{
	uint64_t start = mf_round_down(paddr, 2 * MF_MIB), sum = 0;

	for (uint64_t at = start; at < start + 2 * MF_MIB; at += X86_PAGE)
		if (is_ram(at) && at - own->ram_start >= own->ram_bytes && is_reserved(own, at))
			sum += X86_PAGE;
	return sum;
}

/* No more than the eight slots and two tables that it would take; and there is no more than is said. */
TAP_TEST(little_is_withheld)
{
	uint64_t sum = 0, last = UINT64_MAX;
	struct own own;

	own_all_memory(&own, MF_MIB);
	for (unsigned i = 0; i < 2 * boot_map.nr; i++) {
		uint64_t paddr = i % 2 ? boot_map.range[i / 2].end - 1 : boot_map.range[i / 2].start;
		uint64_t block = mf_round_down(paddr, 2 * MF_MIB);

		if (block == last)
			continue;
		last = block;
		TAP_OK(withheld_around(&own, block) <= 10 * X86_PAGE);
		sum += withheld_around(&own, block);
	}
	TAP_EQ(sum, own.withheld_bytes);
	own_nothing(&own);
}

/* Where nothing is for 2 MiB and more, by the boot map. */
TAP_TEST(holes_are_described_by_nothing)
{
	bool found = false;
	struct own own;

	own_all_memory(&own, MF_MIB);
	for (unsigned i = 1; i < boot_map.nr; i++) {
		uint64_t start = mf_round_up(boot_map.range[i - 1].end, 2 * MF_MIB);

		if (start + 2 * MF_MIB > boot_map.range[i].start ||
		    start >> X86_PAGE_SHIFT >= mf_map_geometry(own.map)->span)
			continue;
		found = true;
		TAP_OK(!mf_pfn_is_valid(own.map, start >> X86_PAGE_SHIFT));
	}
	if (!found)
		TAP_NOTE("this machine has no hole");
	own_nothing(&own);
}

TAP_MAIN()
