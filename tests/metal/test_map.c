/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_map.c - maps on bare metal: what docs/PORTING.md asks of a port before the contract tests do, on real tables,
 * with real faults.
 */
#include "tests/metal/machine_rig.h"

#include <memfold/memfold.h>
#include <string.h>

#include "core/memmap/map.h"

struct rig {
	struct mf_machine *m;
	struct mf_map *map;
	unsigned id;
	mf_pfn_t start, end; /* of the region                                                  */
};

static bool nothing_is_out(struct mf_machine *m)
{
	struct x86_machine_stats stats = stats_of(m);

	if (stats.nr_ram_used || stats.nr_meta_used)
		TAP_NOTE("%llu frames, %llu pieces of control memory", (unsigned long long)stats.nr_ram_used,
			 (unsigned long long)stats.nr_meta_used);
	return stats.nr_ram_used == 0 && stats.nr_meta_used == 0;
}

static bool check_holds(const struct rig *r)
{
	struct mf_violation violation = {.law = "error", .text = ""};
	int err = mf_map_check(r->map, &violation);

	if (err)
		TAP_NOTE("%s at pfn %llu: %s", violation.law, (unsigned long long)violation.pfn, violation.text);
	return err == 0;
}

/* The region: what is there before RAM, at most two GiB; from a block of 2 MiB on. */
static bool rig_open(struct rig *r, enum mf_layout layout)
{
	struct x86_machine_config config = config_usual();
	struct mf_region_config region = {
		.layout = layout,
		.source = layout == MF_LAYOUT_FLAT ? MF_SOURCE_RAM : MF_SOURCE_SELF,
	};
	struct mf_map_config map = {0};

	if (x86_machine_create(&config, &r->m) != 0)
		return false;
	r->start = pfn_of(r->m, mf_round_up(largest_ram().start, 2 * MF_MIB));
	r->end = mf_min(pfn_of(r->m, config.ram_start), r->start + ((mf_pfn_t)1 << 19));
	region.start_pfn = r->start;
	region.end_pfn = layout == MF_LAYOUT_FLAT ? mf_min(r->end, r->start + (1 << 15)) : r->end;
	map.machine = r->m;
	map.span = r->end;
	return mf_map_create(&map, &r->map) == 0 && mf_region_add(r->map, &region, &r->id) == 0;
}

static void rig_close(struct rig *r)
{
	TAP_OK(check_holds(r));
	TAP_EQ(mf_region_remove(r->map, r->id), 0);
	TAP_OK(check_holds(r));
	TAP_EQ(mf_map_destroy(r->map), 0);
	TAP_OK(nothing_is_out(r->m));
	x86_machine_destroy(r->m);
}

TAP_TEST(map_of_one_top_block_leaves_nothing_behind)
{
	struct x86_machine_config config = config_usual();
	struct mf_map_config map_config = {.span = (mf_pfn_t)1 << 18};
	struct mf_map *map;
	uint64_t flushes;

	TAP_REQUIRE(x86_machine_create(&config, &map_config.machine) == 0);
	for (unsigned i = 0; i < 2 * X86_NR_WINDOWS; i++) {
		TAP_REQUIRE(mf_map_create(&map_config, &map) == 0);
		TAP_OK(is_read_only(mf_pfn_to_page(map, 0)) && is_read_only(mf_pfn_to_page(map, (1 << 18) - 1)));
		flushes = stats_of(map_config.machine).nr_flushes;
		TAP_EQ(mf_map_destroy(map), 0);
		TAP_OK(stats_of(map_config.machine).nr_flushes > flushes);
		TAP_OK(is_absent((void *)X86_WINDOWS));
		TAP_OK(nothing_is_out(map_config.machine));
	}
	x86_machine_destroy(map_config.machine);
}

TAP_TEST(map_too_large_for_a_window_is_refused)
{
	struct x86_machine_config config = config_usual();
	struct mf_map_config map_config = {.span = (mf_pfn_t)1 << 32};
	struct mf_map *map;

	TAP_REQUIRE(x86_machine_create(&config, &map_config.machine) == 0);
	/* 16 TiB of frames: 256 GiB of descriptors, aligned to as much again. */
	TAP_REQUIRE(mf_map_create(&map_config, &map) == 0);
	TAP_EQ(mf_map_destroy(map), 0);
	map_config.span *= 2;
	TAP_EQ(mf_map_create(&map_config, &map), -MF_ENOMEM);
	TAP_OK(nothing_is_out(map_config.machine));
	x86_machine_destroy(map_config.machine);
}

static bool is_zero(const struct mf_page *page)
{
	const uint64_t *words = (const void *)page;
	uint64_t all = 0;

	for (unsigned i = 0; i < MF_DESCRIPTOR_SIZE / 8; i++)
		all |= words[i];
	return all == 0;
}

TAP_TEST(first_region_is_described_and_reads_as_zero_below)
{
	struct rig r;

	TAP_REQUIRE(rig_open(&r, MF_LAYOUT_TIERED));
	TAP_OK(check_holds(&r));
	for (unsigned i = 0; i < 2; i++) {
		struct mf_page *page = mf_pfn_to_page(r.map, i == 0 ? r.start : mf_round_down(r.end, 512) - 1);

		TAP_OK(is_zero(page) && is_read_only(page));
	}
	TAP_OK(mf_pfn_is_valid(r.map, r.start) && mf_pfn_is_valid(r.map, r.end - 1));
	TAP_OK(!mf_pfn_is_valid(r.map, r.start - 1));
	rig_close(&r);
}

TAP_TEST(zero_frame_and_shared_tables_are_read_only_in_the_direct_map)
{
	mf_pfn_t zero, shared;
	struct rig r;

	TAP_REQUIRE(rig_open(&r, MF_LAYOUT_TIERED));
	zero = r.map->pgtable.zero;
	shared = r.map->pgtable.shared[0];
	TAP_OK(is_read_only(mf_machine_frame(r.m, zero)) && is_read_only(mf_machine_frame(r.m, shared)));
	write_to(mf_machine_frame(r.m, r.start));
	rig_close(&r);
	write_to(mf_machine_frame(r.m, zero));
	write_to(mf_machine_frame(r.m, shared));
}

TAP_TEST(base_frame_is_allocated_freed_and_folded)
{
	static const enum mf_layout layouts[] = {MF_LAYOUT_TIERED, MF_LAYOUT_FLAT};

	for (unsigned i = 0; i < 2; i++) {
		struct mf_map_stats before, after;
		struct mf_folio *folio;
		struct rig r;

		TAP_REQUIRE(rig_open(&r, layouts[i]));
		mf_map_stats(r.map, &before);
		TAP_REQUIRE(mf_folio_alloc(r.map, MF_ANY_NODE, 0, MF_ALLOC_WAIT, &folio) == 0);
		TAP_OK(check_holds(&r));
		TAP_OK(folio == mf_page_folio(r.map, &folio->page) && mf_folio_order(folio) == 0);
		write_to(mf_folio_data(r.map, folio));
		mf_folio_put(r.map, folio);
		TAP_EQ(mf_fold(r.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_OK(check_holds(&r));
		mf_map_stats(r.map, &after);
		memcpy(after.unfolds, before.unfolds, sizeof(after.unfolds));
		memcpy(after.folds, before.folds, sizeof(after.folds));
		after.flushes = before.flushes;
		after.interrupts = before.interrupts;
		memcpy(after.flushes_for, before.flushes_for, sizeof(after.flushes_for));
		memcpy(after.interrupts_for, before.interrupts_for, sizeof(after.interrupts_for));
		after.quiesces = before.quiesces;
		after.tables_moved = before.tables_moved;
		TAP_OK(memcmp(&before, &after, sizeof(before)) == 0);
		rig_close(&r);
	}
}

/* 512 frames in each of three blocks: blocks unfold, fold and host each other's slots. */
TAP_TEST(many_frames_come_and_go)
{
	static struct mf_folio *folio[1536];
	struct rig r;
	bool good = true;

	TAP_REQUIRE(rig_open(&r, MF_LAYOUT_TIERED));
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 1536; i++)
			good &= mf_folio_alloc(r.map, MF_ANY_NODE, i % 512 == 9 ? 9 : 0, MF_ALLOC_WAIT, &folio[i]) == 0;
		TAP_OK(good && check_holds(&r));
		for (unsigned i = 0; good && i < 1536; i++)
			mf_folio_put(r.map, folio[i * 5 % 1536]);
		TAP_EQ(mf_fold(r.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_OK(check_holds(&r));
	}
	rig_close(&r);
}

TAP_TEST(every_failure_leaves_the_map_as_it_was)
{
	struct mf_folio *folio;
	uint64_t digest, n = 0;
	struct rig r;
	int err;

	TAP_REQUIRE(rig_open(&r, MF_LAYOUT_FLAT));
	TAP_EQ(mf_region_remove(r.map, r.id), 0);
	digest = mf_map_digest(r.map);
	do {
		struct mf_region_config region = {
			.start_pfn = r.start + 3, .end_pfn = r.start + 5000, .source = MF_SOURCE_RAM};

		x86_machine_fail_any(r.m, ++n);
		err = mf_region_add(r.map, &region, &r.id);
		if (!err && (err = mf_folio_alloc(r.map, MF_ANY_NODE, 0, MF_ALLOC_WAIT, &folio)) != 0)
			TAP_EQ(mf_region_remove(r.map, r.id), 0);
		x86_machine_fail_any(r.m, 0);
		TAP_OK(err == 0 || (err == -MF_ENOMEM && mf_map_digest(r.map) == digest));
		TAP_OK(check_holds(&r));
	} while (err && n < 1000);
	TAP_NOTE("%llu allocations", (unsigned long long)n - 1);
	TAP_OK(n > 5 && err == 0);
	mf_folio_put(r.map, folio);
	rig_close(&r);
}

/* What a test that broke a map leaves: windows are free again, RAM can be written. */
TAP_TEST(machine_destroyed_under_a_map_is_as_good_as_new)
{
	struct rig r;

	for (unsigned i = 0; i < X86_NR_WINDOWS + 1; i++) {
		TAP_REQUIRE(rig_open(&r, MF_LAYOUT_TIERED));
		x86_machine_destroy(r.m);
		TAP_OK(is_absent((void *)X86_WINDOWS));
	}
	TAP_REQUIRE(rig_open(&r, MF_LAYOUT_TIERED));
	rig_close(&r);
}

/* ---- All that was told at boot ----------------------------------------------------------------------------------- */

/* RAM is memfold's, but what the machine keeps; the image, boot data and firmware are reserved, holes are nothing. */
static void describe_all(struct mf_map *map, const struct x86_machine_config *config, uint64_t *nr_ours,
			 uint64_t *nr_reserved)
{
	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *range = &boot_map.range[i];
		uint64_t end = range->end == config->ram_end ? config->ram_start : range->end;
		bool is_ours = range->kind == BOOT_RAM;
		struct mf_region_config region = {
			.start_pfn = range->start >> X86_PAGE_SHIFT,
			.end_pfn = end >> X86_PAGE_SHIFT,
			.node = range->node,
			.source = is_ours ? MF_SOURCE_SELF : MF_SOURCE_RAM,
			.flags = is_ours ? 0 : MF_REGION_RESERVED,
		};
		unsigned id;

		*(is_ours ? nr_ours : nr_reserved) += region.end_pfn - region.start_pfn;
		TAP_EQ(mf_region_add(map, &region, &id), 0);
	}
}

/* From blocks of 2 MiB down to frames, each written to, chained, until there is no more. */
static uint64_t fill_all(struct mf_map *map, struct mf_folio **chain)
{
	uint64_t nr = 0;
	int order = 9;

	while (order >= 0) {
		struct mf_folio *folio;

		if (mf_folio_alloc(map, MF_ANY_NODE, (unsigned)order, MF_ALLOC_WAIT, &folio) != 0) {
			order--;
			continue;
		}
		memset(mf_folio_data(map, folio), 0x5a, (size_t)X86_PAGE << order);
		folio->page.private_data = (uintptr_t)*chain;
		*chain = folio;
		nr += (uint64_t)1 << order;
	}
	return nr;
}

TAP_TEST(all_memory_is_described_as_what_it_is)
{
	struct x86_machine_config config = config_usual();
	uint64_t nr_ours = 0, nr_reserved = 0, nr_filled;
	struct mf_folio *chain = NULL;
	struct mf_map_config map = {.span = boot_map.range[boot_map.nr - 1].end >> X86_PAGE_SHIFT};
	struct mf_map_stats stats;
	struct rig r;

	config.first_paddr = 0;
	TAP_REQUIRE(x86_machine_create(&config, &r.m) == 0);
	map.machine = r.m;
	TAP_REQUIRE(mf_map_create(&map, &r.map) == 0);
	describe_all(r.map, &config, &nr_ours, &nr_reserved);
	TAP_OK(check_holds(&r));
	mf_map_stats(r.map, &stats);
	TAP_EQ(stats.nr_reserved, nr_reserved);
	TAP_EQ(stats.nr_free + stats.nr_map, nr_ours);
	/* So much that nobody waits for it. */
	if (nr_ours < (mf_pfn_t)1 << 18) {
		nr_filled = fill_all(r.map, &chain);
		TAP_OK(nr_filled > nr_ours / 100 * 95);
	}
	TAP_OK(check_holds(&r));
	while (chain) {
		struct mf_folio *folio = chain;

		chain = (struct mf_folio *)(uintptr_t)folio->page.private_data;
		mf_folio_put(r.map, folio);
	}
	TAP_EQ(mf_fold(r.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(check_holds(&r));
	for (unsigned i = 0; i < boot_map.nr; i++)
		TAP_EQ(mf_region_remove(r.map, i), 0);
	TAP_EQ(mf_map_destroy(r.map), 0);
	TAP_OK(nothing_is_out(r.m));
	x86_machine_destroy(r.m);
}

TAP_MAIN()
