/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable_frame0.c - machines whose memory does not begin at physical address 0: what entries hold, what is
 * refused, and that a whole map there is the same as one at 0.
 */
#include "tests/unit/pgtable_rig.h"

#include <memfold/memfold.h>
#include <memfold/sim.h>

static const struct base {
	bool is_arm;
	unsigned page_shift, levels;
	uint64_t frame0;
} bases[] = {
	{false, 12, 3, 2 * MF_MIB}, /* leaves of 2 MiB at most */
	{false, 12, 4, 3 * MF_GIB},
	{true, 12, 4, MF_TIB},
	{true, 14, 3, 0x82000000},
	{true, 16, 3, 3 * MF_TIB},
};

enum { NR_BASES = sizeof(bases) / sizeof(bases[0]) };

static struct mf_paging paging_of(unsigned i)
{
	const struct base *b = &bases[i];

	return from_paddr(b->is_arm ? mf_paging_arm64(b->page_shift, b->levels) : mf_paging_x86_64(b->levels),
			  b->frame0);
}

/* ---- Entries ----------------------------------------------------------------------------------------------------- */

/* The physical address in the entry of `level` for the first address of the range, found without core/pgtable. */
static uint64_t paddr_in_entry(const struct rig *r, unsigned level)
{
	const struct mf_paging *p = &r->flat.machine.paging;
	uint64_t entry, table = p->frame0 + (r->pt.root << p->page_shift);
	unsigned at = p->levels;

	do {
		unsigned shift = p->page_shift + --at * (p->page_shift - 3);
		uint64_t offset = table - p->frame0;
		uint64_t index = r->pt.base >> shift & (fanout_of(r) - 1);

		entry = ((const uint64_t *)(const void *)(r->flat.machine.direct_map + offset))[index];
		table = entry & p->address_mask;
	} while (at > level);
	return table;
}

TAP_TEST(entries_hold_physical_addresses)
{
	for (unsigned i = 0; i < NR_BASES; i++) {
		struct mf_paging p = paging_of(i);
		unsigned fanout = 1u << (p.page_shift - 3);
		mf_pfn_t pfn = 0x777, block = (mf_pfn_t)5 * fanout, old;
		struct rig r;

		rig_open(&r, p, MF_PGTABLE_SHARE);
		TAP_EQ(paddr_in_entry(&r, 0), p.frame0 + (r.pt.zero << p.page_shift));
		TAP_EQ(map_drawn(&r, r.pt.base, 0, &pfn, 1, MF_PROT_WRITE), 0);
		TAP_EQ(paddr_in_entry(&r, 0), p.frame0 + (pfn << p.page_shift));
		TAP_EQ(mf_pgtable_walk(&r.pt, r.pt.base).pfn, pfn);
		TAP_EQ(mf_pgtable_replace(&r.pt, r.pt.base, 0x778), pfn);
		TAP_EQ(paddr_in_entry(&r, 0), p.frame0 + ((mf_pfn_t)0x778 << p.page_shift));
		TAP_OK(rig_is_sound(&r));
		mf_pgtable_clear(&r.pt, r.pt.base, 0, 1, &old, &r.bag);
		give_back(&r);
		TAP_EQ(old, 0x778);

		TAP_EQ(map_drawn(&r, r.pt.base, 1, &block, 1, MF_PROT_WRITE), 0);
		TAP_EQ(paddr_in_entry(&r, 1), p.frame0 + (block << p.page_shift));
		draw(&r, 1);
		TAP_EQ(mf_pgtable_split(&r.pt, r.pt.base, 1, &r.bag), 0);
		TAP_EQ(paddr_in_entry(&r, 0), p.frame0 + (block << p.page_shift));
		TAP_EQ(mf_pgtable_merge(&r.pt, r.pt.base, 1, &r.bag), 0);
		TAP_EQ(paddr_in_entry(&r, 1), p.frame0 + (block << p.page_shift));
		TAP_OK(rig_is_sound(&r));
		clear_given(&r, r.pt.base, 1, 1);
		rig_close(&r);
	}
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static int init_with(struct flat_machine *flat, uint64_t frame0)
{
	struct mf_bag bag = {.nr = 5, .pfn = {1, 2, 3, 4, 5}};
	struct mf_pgtable pt;

	flat->machine.paging.frame0 = frame0;
	return mf_pgtable_init(&pt, &flat->machine, MF_PGTABLE_SHARE, MF_GIB, MF_GIB, &bag);
}

TAP_TEST(frame0_is_a_multiple_of_the_largest_leaf)
{
	struct flat_machine flat;

	TAP_REQUIRE(flat_machine_create(&flat, mf_paging_x86_64(4), 10) == 0);
	TAP_EQ(init_with(&flat, 4096), -MF_EINVAL);
	TAP_EQ(init_with(&flat, MF_GIB - 2 * MF_MIB), -MF_EINVAL);
	TAP_EQ(init_with(&flat, MF_GIB + 1), -MF_EINVAL);
	TAP_EQ(init_with(&flat, (uint64_t)1 << 52), -MF_EINVAL);
	TAP_EQ(init_with(&flat, (uint64_t)1 << 63), -MF_EINVAL);
	TAP_EQ(flat.nr_read_only, 0);
	TAP_EQ(init_with(&flat, MF_GIB), 0);
	flat.machine.paging.max_leaf_level = 1;
	TAP_EQ(init_with(&flat, MF_GIB + MF_MIB), -MF_EINVAL);
	TAP_EQ(init_with(&flat, MF_GIB + 2 * MF_MIB), 0);
	flat_machine_destroy(&flat);
}

/* 48 bits of address, 16 TiB of them below frame 0: a power of two of frames fits the rest, 128 TiB. */
TAP_TEST(frames_beyond_what_an_entry_holds_are_refused)
{
	mf_pfn_t last = ((mf_pfn_t)1 << (47 - 12)) - 1;
	mf_pfn_t bad[] = {last + 1, ((mf_pfn_t)1 << 36) - 1, (mf_pfn_t)1 << 51, (mf_pfn_t)-1};
	struct rig r;

	rig_open(&r, from_paddr(mf_paging_arm64(12, 4), 16 * MF_TIB), MF_PGTABLE_SHARE);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		TAP_EQ(map_drawn(&r, r.pt.base, 0, &bad[i], 1, MF_PROT_WRITE), -MF_EINVAL);
	TAP_EQ(map_drawn(&r, r.pt.base, 0, &last, 1, MF_PROT_WRITE), 0);
	TAP_EQ(paddr_in_entry(&r, 0), 144 * MF_TIB - 4096);
	TAP_OK(rig_is_sound(&r));
	clear_given(&r, r.pt.base, 0, 1);
	rig_close(&r);
}

TAP_TEST(check_finds_a_leaf_below_frame_0)
{
	char text[200];
	const char *finding;
	mf_pfn_t table;
	struct rig r;

	rig_open(&r, from_paddr(mf_paging_x86_64(4), 4 * MF_GIB), MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&r, r.pt.base, 0, &(mf_pfn_t){0x1000}, 1, MF_PROT_WRITE), 0);
	TAP_REQUIRE(mf_pgtable_table(&r.pt, r.pt.base, 0, &table));
	frame_words(&r, table)[0] -= 4 * MF_GIB;
	finding = mf_pgtable_check(&r.pt, text, sizeof(text));
	TAP_OK(finding && strncmp(finding, "M1: leaf", 8) == 0);
	frame_words(&r, table)[0] += 4 * MF_GIB;
	TAP_OK(rig_is_sound(&r));
	clear_given(&r, r.pt.base, 0, 1);
	rig_close(&r);
}

/* ---- A whole map ------------------------------------------------------------------------------------------------- */

static bool check_holds(struct mf_map *map)
{
	struct mf_violation violation;
	int err = mf_map_check(map, &violation);

	if (err)
		TAP_NOTE("%s: %s", err > 0 ? violation.law : "error", err > 0 ? violation.text : mf_strerror(err));
	return err == 0;
}

/* Blocks split by every layout; the digest at the end tells what the map was. */
static uint64_t live(struct mf_machine *m)
{
	unsigned b = m->paging.page_shift - 3;
	mf_pfn_t top = (mf_pfn_t)1 << (2 * b);
	struct mf_map_config config = {.machine = m, .span = 2 * top};
	const struct mf_region_config regions[] = {
		{.start_pfn = 3, .end_pfn = top + (3u << b)},
		{.start_pfn = top + (3u << b), .end_pfn = top + (19u << b) + 5, .layout = MF_LAYOUT_FLAT,
		 .source = MF_SOURCE_RAM},
		{.start_pfn = top + (32u << b), .end_pfn = top + (64u << b), .layout = MF_LAYOUT_HVO_5_18},
	};
	struct mf_folio *folio[24];
	struct mf_map *map;
	uint64_t digest;
	unsigned id[3];

	if (mf_map_create(&config, &map) != 0)
		return 0;
	for (unsigned i = 0; i < 3; i++)
		TAP_EQ(mf_region_add(map, &regions[i], &id[i]), 0);
	for (unsigned i = 0; i < 24; i++)
		TAP_EQ(mf_folio_alloc(map, MF_ANY_NODE, i % 3 ? 0 : i % 2 ? b : 3, MF_ALLOC_WAIT, &folio[i]), 0);
	TAP_OK(check_holds(map));
	digest = mf_map_digest(map);
	for (unsigned i = 0; i < 24; i++)
		mf_folio_put(map, folio[i]);
	TAP_EQ(mf_fold(map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(check_holds(map));
	TAP_EQ(mf_sim_stale(m), 0);
	for (unsigned i = 0; i < 3; i++)
		TAP_EQ(mf_region_remove(map, id[i]), 0);
	TAP_EQ(mf_map_destroy(map), 0);
	TAP_EQ(mf_sim_ram_used(m), 0);
	return digest;
}

TAP_TEST(whole_map_is_the_same_wherever_memory_begins)
{
	for (unsigned i = 0; i < NR_BASES; i++) {
		struct mf_sim_config config = {
			.paging = paging_of(i),
			.nr_frames = (mf_pfn_t)2 << (2 * (bases[i].page_shift - 3)),
			.nr_ram_frames = 1 << 17,
			.flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE,
		};
		struct mf_machine *high, *low;
		uint64_t digest;

		TAP_REQUIRE(mf_sim_create(&config, &high) == 0);
		config.paging.frame0 = 0;
		TAP_REQUIRE(mf_sim_create(&config, &low) == 0);
		digest = live(high);
		TAP_OK(digest != 0 && digest == live(low));
		mf_sim_destroy(high);
		mf_sim_destroy(low);
	}
}

TAP_TEST(sim_refuses_a_base_that_cannot_be)
{
	struct mf_sim_config config = {.paging = mf_paging_x86_64(4), .nr_frames = 1024};
	struct mf_machine *m;

	config.paging.frame0 = MF_GIB - 2 * MF_MIB;
	TAP_EQ(mf_sim_create(&config, &m), -MF_EINVAL);
	config.paging.frame0 = (uint64_t)1 << 52;
	TAP_EQ(mf_sim_create(&config, &m), -MF_E2BIG);
	config.paging.frame0 = ((uint64_t)1 << 52) - MF_GIB;
	config.nr_frames = MF_GIB / 4096 + 1;
	TAP_EQ(mf_sim_create(&config, &m), -MF_E2BIG);
	config.nr_frames--;
	TAP_REQUIRE(mf_sim_create(&config, &m) == 0);
	mf_sim_destroy(m);
}

TAP_MAIN()
