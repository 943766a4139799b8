/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable_shapes.c - page tables in every shape: all granules and depths, full tables, leaves split and merged,
 * private and shared tables, walks over all of them.
 */
#include "tests/unit/pgtable_rig.h"

/* ---- Every granule, every depth --------------------------------------------------------------------------- */

static void map_and_clear_at(struct rig *r, uintptr_t va)
{
	mf_pfn_t pfn[8], old[8];

	for (unsigned i = 0; i < 8; i++)
		pfn[i] = 0x100000 + i * 3;
	TAP_EQ(mf_pgtable_tables_needed(&r->pt, va, 0), root_level(r));
	TAP_EQ(map_drawn(r, va, 0, pfn, 8, MF_PROT_WRITE), 0);
	TAP_OK(rig_is_sound(r));
	TAP_EQ(mf_pgtable_tables_needed(&r->pt, va, 0), 0);
	for (unsigned i = 0; i < 8; i++) {
		struct mf_translation t =
			mf_pgtable_walk(&r->pt, va + i * mf_pgtable_span(&r->flat.machine.paging, 0) + 5);

		TAP_OK(t.pfn == pfn[i] && t.writable && !t.background && t.level == 0);
	}
	mf_pgtable_clear(&r->pt, va, 0, 8, old, &r->bag);
	TAP_OK(memcmp(pfn, old, sizeof(old)) == 0);
	TAP_EQ(r->bag.nr, root_level(r));
	TAP_OK(rig_is_sound(r));
	give_back(r);
}

/* R-MEM-43 */
TAP_TEST(every_granule_and_depth_maps_and_clears)
{
	struct rig r;

	for (unsigned shift = 12; shift <= 16; shift += 2) {
		for (unsigned levels = 2; levels <= MF_PGTABLE_LEVELS_MAX; levels++) {
			rig_open(&r, mf_paging_arm64(shift, levels), MF_PGTABLE_SHARE);
			map_and_clear_at(&r, r.pt.base);
			map_and_clear_at(&r, r.pt.base + r.pt.size_bytes - ((uintptr_t)8 << shift));
			rig_close(&r);
		}
	}
}

TAP_TEST(full_table_counts_its_last_entry)
{
	struct rig r;

	for (unsigned shift = 12; shift <= 16; shift += 2) {
		mf_pfn_t pfn[8192];

		rig_open(&r, mf_paging_arm64(shift, 3), MF_PGTABLE_SHARE);
		for (unsigned i = 0; i < fanout_of(&r); i++)
			pfn[i] = 0x200001 + i;
		TAP_EQ(map_drawn(&r, r.pt.base, 0, pfn, fanout_of(&r), MF_PROT_READ), 0);
		/* Contiguous, but no block starts there. */
		TAP_EQ(mf_pgtable_merge(&r.pt, r.pt.base, 1, &r.bag), -MF_EINVAL);
		TAP_OK(rig_is_sound(&r));
		for (unsigned i = 0; i < fanout_of(&r); i++)
			clear_given(&r, r.pt.base + ((uintptr_t)i << shift), 0, 1);
		rig_close(&r);
	}
}

/* ---- Shapes -------------------------------------------------------------------------------------------------- */

TAP_TEST(giant_leaf_splits_and_merges_all_the_way)
{
	struct rig r;
	uint64_t giant = (uint64_t)1 << 18;
	uintptr_t inside;

	rig_open(&r, mf_paging_x86_64(5), MF_PGTABLE_SHARE);
	inside = r.pt.base + 300 * (2 << 20) + 77 * 4096 + 9;
	TAP_EQ(map_drawn(&r, r.pt.base, 2, &giant, 1, MF_PROT_WRITE), 0);
	TAP_EQ(mf_pgtable_tables_needed(&r.pt, inside, 0), 0);
	draw(&r, 2);
	TAP_EQ(mf_pgtable_split(&r.pt, inside, 1, &r.bag), -MF_ENOENT);
	for (unsigned level = 2; level > 0; level--) {
		TAP_EQ(mf_pgtable_split(&r.pt, inside, level, &r.bag), 0);
		TAP_OK(rig_is_sound(&r));
		TAP_EQ(mf_pgtable_walk(&r.pt, inside).level, level - 1);
		TAP_EQ(mf_pgtable_walk(&r.pt, inside).pfn, giant + 300 * 512 + 77);
		TAP_OK(mf_pgtable_walk(&r.pt, inside).writable);
	}
	TAP_EQ(mf_pgtable_merge(&r.pt, inside, 2, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_protect(&r.pt, inside, MF_PROT_READ), 0);
	TAP_EQ(mf_pgtable_merge(&r.pt, inside, 1, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_protect(&r.pt, inside, MF_PROT_WRITE), 0);
	for (unsigned level = 1; level <= 2; level++)
		TAP_EQ(mf_pgtable_merge(&r.pt, inside, level, &r.bag), 0);
	TAP_EQ(r.bag.nr, 2);
	TAP_EQ(mf_pgtable_walk(&r.pt, inside).level, 2);
	TAP_OK(rig_is_sound(&r));
	give_back(&r);
	clear_given(&r, r.pt.base, 2, 1);
	rig_close(&r);
}

static bool dies_in(void *ctx, uintptr_t va)
{
	const uintptr_t *range = ctx;

	return va >= range[0] && va < range[1];
}

TAP_TEST(survives_tells_whether_a_table_outlives_leaves)
{
	struct rig r;
	uintptr_t range[2];
	mf_pfn_t pfn[8] = {1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007}, block = 0x10000;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	range[0] = r.pt.base + 4096;
	range[1] = range[0] + 8 * 4096;
	TAP_OK(!mf_pgtable_survives(&r.pt, range[0], 0, dies_in, range));
	TAP_EQ(map_drawn(&r, range[0], 0, pfn, 8, MF_PROT_WRITE), 0);
	for (unsigned level = 0; level < root_level(&r); level++)
		TAP_OK(!mf_pgtable_survives(&r.pt, range[0] + 3 * 4096, level, dies_in, range));
	range[1] -= 4096;
	for (unsigned level = 0; level < root_level(&r); level++)
		TAP_OK(mf_pgtable_survives(&r.pt, range[0], level, dies_in, range));
	range[1] += 4096;
	TAP_EQ(map_drawn(&r, r.pt.base + (2 << 20), 1, &block, 1, MF_PROT_WRITE), 0);
	range[1] = r.pt.base + r.pt.size_bytes;
	TAP_OK(!mf_pgtable_survives(&r.pt, range[0], 0, dies_in, range));
	TAP_OK(mf_pgtable_survives(&r.pt, range[0], 1, dies_in, range));
	clear_given(&r, r.pt.base + (2 << 20), 1, 1);
	clear_given(&r, range[0], 0, 8);
	rig_close(&r);
}

TAP_TEST(private_tables_stay_until_shared)
{
	struct rig r;
	uintptr_t base;
	mf_pfn_t block[2] = {0x10000, 0x10200}, pfn;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_PRIVATE);
	base = r.pt.base;
	draw(&r, 4);
	TAP_EQ(mf_pgtable_privatise(&r.pt, base, &r.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&r.pt, base, &r.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&r.pt, base + (2 << 20), &r.bag), 0);
	TAP_EQ(r.bag.nr, 0);
	TAP_OK(mf_pgtable_table(&r.pt, base, 0, &pfn) && mf_pgtable_walk(&r.pt, base).background);
	TAP_OK(rig_is_sound(&r));
	TAP_EQ(mf_pgtable_map(&r.pt, base, 0, block, 2, MF_PROT_READ, NULL), 0);
	clear_given(&r, base, 0, 2);
	TAP_EQ(mf_pgtable_frames(&r.pt), 5 + 4);
	TAP_OK(TAP_PANICS(mf_pgtable_destroy(&r.pt, &r.bag)));

	/* Part of what the level-1 table serves: the level-0 table goes, the others stay. */
	TAP_OK(mf_pgtable_share(&r.pt, base, base, &r.bag));
	TAP_EQ(r.bag.nr, 0);
	TAP_OK(mf_pgtable_share(&r.pt, base, base + (2 << 20) - 4096, &r.bag));
	TAP_EQ(r.bag.nr, 0);
	TAP_OK(mf_pgtable_share(&r.pt, base, base + (2 << 20), &r.bag));
	TAP_EQ(r.bag.nr, 1);
	TAP_OK(!mf_pgtable_table(&r.pt, base, 0, &pfn) && mf_pgtable_table(&r.pt, base, 1, &pfn));
	TAP_OK(rig_is_sound(&r));
	give_back(&r);

	/* Leaves over one absent and one empty table: the empty one comes back in the bag. */
	TAP_EQ(mf_pgtable_map(&r.pt, base, 1, block, 2, MF_PROT_READ, NULL), -MF_ENOSPC);
	TAP_EQ(mf_pgtable_map(&r.pt, base, 1, block, 2, MF_PROT_READ, &r.bag), 0);
	TAP_EQ(r.bag.nr, 1);
	TAP_OK(rig_is_sound(&r));
	clear_given(&r, base, 1, 2);

	/* A bag with room for one only. */
	while (r.bag.nr < MF_BAG_MAX - 1)
		draw(&r, r.bag.nr + 1);
	TAP_OK(!mf_pgtable_share(&r.pt, base, base + r.pt.size_bytes, &r.bag));
	TAP_OK(rig_is_sound(&r));
	give_back(&r);
	TAP_OK(mf_pgtable_share(&r.pt, base, base + r.pt.size_bytes, &r.bag));
	TAP_EQ(r.bag.nr, 1);
	give_back(&r);
	rig_close(&r);
}

TAP_TEST(share_releases_tables_that_reach_beyond_the_range)
{
	struct rig r = {0};
	uintptr_t base = (uintptr_t)0xffff800000000000 + 3 * 4096;

	TAP_REQUIRE(flat_machine_create(&r.flat, mf_paging_x86_64(4), NR_FRAMES) == 0);
	draw(&r, 5 + 6);
	TAP_EQ(mf_pgtable_init(&r.pt, &r.flat.machine, MF_PGTABLE_PRIVATE, base, (uint64_t)1 << 40, &r.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&r.pt, base, &r.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&r.pt, base + r.pt.size_bytes - 4096, &r.bag), 0);
	TAP_OK(rig_is_sound(&r));
	TAP_OK(mf_pgtable_share(&r.pt, base, base + r.pt.size_bytes, &r.bag));
	TAP_EQ(r.bag.nr, 6);
	give_back(&r);
	rig_close(&r);
}

struct tally {
	unsigned nr_tables, nr_leaves, stop_at;
	uintptr_t last_va;
};

static int count_visit(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table)
{
	struct tally *tally = ctx;

	(void)level;
	TAP_OK(va >= tally->last_va || is_table);
	TAP_OK(pfn != 0);
	tally->last_va = va;
	tally->nr_tables += is_table;
	tally->nr_leaves += !is_table;
	return tally->nr_leaves == tally->stop_at ? 42 : 0;
}

TAP_TEST(for_each_visits_private_entries_in_order)
{
	struct rig r;
	mf_pfn_t pfn[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct tally all = {.stop_at = 1000}, some = {.stop_at = 5};
	uintptr_t high;

	for (unsigned i = 0; i < 8; i++)
		pfn[i] += 0x5000;
	rig_open(&r, mf_paging_arm64(12, 4), MF_PGTABLE_SHARE);
	high = r.pt.base + r.pt.size_bytes - 8 * 4096;
	TAP_EQ(map_drawn(&r, high, 0, pfn, 8, MF_PROT_WRITE), 0);
	TAP_EQ(map_drawn(&r, r.pt.base, 1, &(mf_pfn_t){0x10000}, 1, MF_PROT_WRITE), 0);
	TAP_EQ(mf_pgtable_for_each(&r.pt, count_visit, &all), 0);
	TAP_EQ(all.nr_leaves, 9);
	TAP_EQ(all.nr_tables, 5);
	TAP_EQ(all.last_va, high + 7 * 4096);
	TAP_EQ(mf_pgtable_for_each(&r.pt, count_visit, &some), 42);
	TAP_EQ(some.nr_leaves, 5);
	clear_given(&r, high, 0, 8);
	clear_given(&r, r.pt.base, 1, 1);
	rig_close(&r);
}

TAP_MAIN()
