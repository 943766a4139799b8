/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable.c - what page tables promise: constants, beginning and end, refusals that change nothing, and that
 * mf_pgtable_check() names what is broken.  Shapes: test_pgtable_shapes.c.  Random steps: test_pgtable_random.c.
 */
#include "tests/unit/pgtable_rig.h"

/* ---- Constants -------------------------------------------------------------------------------------------- */

TAP_TEST(paging_x86_64_is_what_the_manual_says)
{
	struct mf_paging p = mf_paging_x86_64(5);

	TAP_EQ(p.page_shift, 12);
	TAP_EQ(p.levels, 5);
	TAP_EQ(p.max_leaf_level, 2);
	TAP_EQ(p.address_mask, 0x000ffffffffff000);
	TAP_EQ(p.table_bits, 0x23);
	TAP_EQ(p.leaf_bits | p.leaf_base_bits | p.write_set, 0x8000000000000163);
	TAP_EQ(p.leaf_bits | p.leaf_block_bits | p.write_clear, 0x80000000000001a1);
	TAP_EQ(p.frame0, 0);
	TAP_EQ(mf_paging_x86_64(3).levels, 3);
	TAP_EQ(mf_paging_x86_64(3).max_leaf_level, 1);
	TAP_OK(TAP_PANICS(mf_paging_x86_64(1)));
}

TAP_TEST(paging_arm64_is_what_the_manual_says)
{
	struct mf_paging p = mf_paging_arm64(16, 3);

	TAP_EQ(p.max_leaf_level, 1);
	TAP_EQ(p.address_mask, 0x0000ffffffff0000);
	TAP_EQ(p.table_bits, 3);
	TAP_EQ(p.leaf_bits | p.leaf_base_bits | p.write_set, 0x0060000000000703);
	TAP_EQ(p.leaf_bits | p.leaf_block_bits | p.write_clear, 0x0060000000000781);
	TAP_EQ(mf_paging_arm64(12, 4).max_leaf_level, 2);
	TAP_EQ(mf_paging_arm64(12, 2).max_leaf_level, 0);
	TAP_OK(TAP_PANICS(mf_paging_arm64(13, 3)));
}

/* ---- Up and down -------------------------------------------------------------------------------------------- */

TAP_TEST(bag_panics_when_full_or_empty)
{
	struct mf_bag bag = {0};

	TAP_OK(TAP_PANICS(mf_bag_take(&bag)));
	for (unsigned i = 0; i < MF_BAG_MAX; i++)
		mf_bag_put(&bag, i);
	TAP_OK(TAP_PANICS(mf_bag_put(&bag, 99)));
	TAP_EQ(mf_bag_take(&bag), MF_BAG_MAX - 1);
}

TAP_TEST(init_refuses_what_cannot_be)
{
	struct flat_machine flat;
	struct mf_pgtable pt;
	struct mf_bag bag = {.nr = 5, .pfn = {1, 2, 3, 4, 5}}, few = {.nr = 4, .pfn = {1, 2, 3, 4}};

	TAP_REQUIRE(flat_machine_create(&flat, mf_paging_x86_64(4), 10) == 0);
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, 4096, 0, &bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, 4097, 4096, &bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, 4096, 4095, &bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, ((uintptr_t)1 << 48) - 4096, 8192, &bag),
	       -MF_EINVAL);
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, (uintptr_t)-4096, 8192, &bag), -MF_EINVAL);
	flat.machine.unbacked = MF_UNBACKED_ABSENT;
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, 4096, 4096, &bag), -MF_EOPNOTSUPP);
	flat.machine.unbacked = MF_UNBACKED_ZERO;
	flat.machine.paging.soft_bits = 0;
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, 4096, 4096, &bag), -MF_EINVAL);
	flat.machine.paging.soft_bits = 7;
	TAP_EQ(bag.nr, 5);
	TAP_EQ(flat.nr_read_only, 0);
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, 4096, 4096, &few), 0)));
	/* The last page of the address space: sums must not wrap. */
	TAP_EQ(mf_pgtable_init(&pt, &flat.machine, MF_PGTABLE_SHARE, (uintptr_t)-4096, 4096, &bag), 0);
	TAP_EQ(mf_pgtable_map(&pt, (uintptr_t)-4096, 0, &(mf_pfn_t){77}, 1, MF_PROT_READ,
			      &(struct mf_bag){3, {6, 7, 8}}),
	       0);
	TAP_EQ(mf_pgtable_walk(&pt, UINTPTR_MAX).pfn, 77);
	TAP_OK(mf_pgtable_check(&pt, NULL, 0) == NULL);
	flat_machine_destroy(&flat);
}

TAP_TEST(untouched_window_costs_a_handful_of_frames)
{
	struct rig r;

	for (unsigned levels = 3; levels <= 5; levels++) {
		rig_open(&r, mf_paging_x86_64(levels), MF_PGTABLE_SHARE);
		TAP_EQ(r.pt.size_bytes, levels == 3 ? MF_TIB / 4 : MF_TIB);
		TAP_EQ(mf_pgtable_frames(&r.pt), levels + 1);
		for (uintptr_t at = 0; at < r.pt.size_bytes; at += r.pt.size_bytes / 64 + 12345)
			TAP_OK(mf_pgtable_walk(&r.pt, r.pt.base + at).background);
		TAP_OK(rig_is_sound(&r));
		rig_close(&r);
	}
}

TAP_TEST(destroy_refuses_while_something_is_mapped)
{
	struct rig r;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&r, r.pt.base, 0, &(mf_pfn_t){0x1000}, 1, MF_PROT_READ), 0);
	TAP_OK(TAP_PANICS(mf_pgtable_destroy(&r.pt, &r.bag)));
	clear_given(&r, r.pt.base, 0, 1);
	rig_close(&r);
}

/* ---- Refusals ------------------------------------------------------------------------------------------------ */

TAP_TEST(map_refuses_bad_arguments)
{
	struct rig r;
	mf_pfn_t pfn[4] = {0x1000, 0x1001, 0x1002, 0x1003};
	uintptr_t base, end;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	base = r.pt.base;
	end = base + r.pt.size_bytes;
	draw(&r, 3);
	TAP_EQ(mf_pgtable_map(&r.pt, base + 1, 0, pfn, 1, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base, 0, pfn, 0, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base + 4096, 1, pfn, 1, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base, 1, &pfn[1], 1, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base, 3, pfn, 1, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base + 510 * 4096, 0, pfn, 3, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base, 0, &(mf_pfn_t){(mf_pfn_t)1 << 40}, 1, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, base, 0, &r.pt.zero, 1, MF_PROT_READ, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&r.pt, end, 0, pfn, 1, MF_PROT_READ, &r.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_map(&r.pt, base - 4096, 0, pfn, 1, MF_PROT_READ, &r.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_protect(&r.pt, end, MF_PROT_READ), -MF_EFAULT);
	TAP_EQ(mf_pgtable_protect(&r.pt, base, MF_PROT_READ), -MF_ENOENT);
	TAP_EQ(mf_pgtable_split(&r.pt, base, 1, &r.bag), -MF_ENOENT);
	TAP_EQ(mf_pgtable_split(&r.pt, end, 1, &r.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_merge(&r.pt, base, 1, &r.bag), -MF_ENOENT);
	TAP_EQ(mf_pgtable_merge(&r.pt, base, 0, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_merge(&r.pt, base, 3, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_merge(&r.pt, end, 1, &r.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_privatise(&r.pt, end, &r.bag), -MF_EFAULT);
	TAP_EQ(r.bag.nr, 3);
	TAP_OK(rig_is_sound(&r));
	give_back(&r);
	rig_close(&r);
}

TAP_TEST(broken_contracts_panic)
{
	struct rig r;
	mf_pfn_t pfn[2] = {0x200000, 0x200001};
	uintptr_t base;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	base = r.pt.base;
	TAP_OK(TAP_PANICS(mf_pgtable_walk(&r.pt, base - 1)));
	TAP_OK(TAP_PANICS(mf_pgtable_tables_needed(&r.pt, base - 1, 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&r.pt, base, 0, 1, NULL, &r.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&r.pt, base, 0, 0, NULL, &r.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&r.pt, base, 7)));
	TAP_OK(TAP_PANICS(mf_pgtable_move(&r.pt, base, 0, 7)));
	TAP_OK(TAP_PANICS(mf_pgtable_move(&r.pt, base, root_level(&r), 7)));
	TAP_OK(TAP_PANICS(mf_pgtable_share(&r.pt, base - 4096, base, &r.bag)));
	TAP_EQ(map_drawn(&r, base, 0, pfn, 1, MF_PROT_READ), 0);
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&r.pt, base, 0, pfn, 1, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&r.pt, base, 1, pfn, 1, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&r.pt, base + 4096, 0, 1, NULL, &r.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&r.pt, base, 1, 1, NULL, &r.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&r.pt, base, r.pt.zero)));
	clear_given(&r, base, 0, 1);
	TAP_EQ(map_drawn(&r, base, 1, pfn, 1, MF_PROT_READ), 0);
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&r.pt, base, 0, pfn, 1, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&r.pt, base, 7)));
	clear_given(&r, base, 1, 1);
	rig_close(&r);
}

static uint64_t digest(const struct rig *r)
{
	uint64_t hash = 1469598103934665603u;
	const unsigned char *at = (const void *)r->flat.machine.direct_map;

	for (size_t i = 0; i < r->flat.nr_frames << r->flat.machine.paging.page_shift; i++)
		hash = (hash ^ at[i]) * 1099511628211u;
	at = (const void *)&r->pt;
	for (size_t i = 0; i < sizeof(r->pt); i++)
		hash = (hash ^ at[i]) * 1099511628211u;
	return hash;
}

static void every_small_bag_changes_nothing(struct mf_paging paging)
{
	struct rig r;
	uint64_t before;
	mf_pfn_t pfn[8] = {0x10000, 0x10001, 0x10002, 0x10003, 0x10004, 0x10005, 0x10006, 0x10007};

	rig_open(&r, paging, MF_PGTABLE_SHARE);
	for (unsigned nr = 0; nr < root_level(&r); nr++) {
		draw(&r, nr);
		before = digest(&r);
		TAP_EQ(mf_pgtable_map(&r.pt, r.pt.base, 0, pfn, 8, MF_PROT_WRITE, &r.bag), -MF_ENOMEM);
		TAP_EQ(mf_pgtable_privatise(&r.pt, r.pt.base, &r.bag), -MF_ENOMEM);
		TAP_EQ(r.bag.nr, nr);
		TAP_EQ(digest(&r), before);
	}
	give_back(&r);
	before = digest(&r);
	TAP_EQ(mf_pgtable_map(&r.pt, r.pt.base, 0, pfn, 8, MF_PROT_WRITE, NULL), -MF_ENOMEM);
	TAP_EQ(digest(&r), before);
	TAP_EQ(map_drawn(&r, r.pt.base, 1, &(mf_pfn_t){0x10000}, 1, MF_PROT_WRITE), 0);
	before = digest(&r);
	TAP_EQ(mf_pgtable_split(&r.pt, r.pt.base, 1, &r.bag), -MF_ENOMEM);
	TAP_EQ(digest(&r), before);
	clear_given(&r, r.pt.base, 1, 1);
	rig_close(&r);
}

TAP_TEST(too_few_frames_change_nothing)
{
	every_small_bag_changes_nothing(mf_paging_x86_64(3));
	every_small_bag_changes_nothing(mf_paging_x86_64(4));
	every_small_bag_changes_nothing(mf_paging_x86_64(5));
	every_small_bag_changes_nothing(mf_paging_arm64(14, 4));
	every_small_bag_changes_nothing(mf_paging_arm64(16, 3));
}

/* ---- Laws broken on purpose ------------------------------------------------------------------------------------ */

static bool finding_is(struct rig *r, const char *start)
{
	char text[200];
	const char *finding = mf_pgtable_check(&r->pt, text, sizeof(text));

	TAP_NOTE("found: %s", finding ? finding : "nothing");
	return finding && strncmp(finding, start, strlen(start)) == 0 && mf_pgtable_check(&r->pt, NULL, 0) != NULL;
}

TAP_TEST(check_names_what_is_broken)
{
	struct rig r;
	mf_pfn_t table;
	uint64_t *word, good, soft_one;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&r, r.pt.base, 0, &(mf_pfn_t){0x1000}, 1, MF_PROT_WRITE), 0);
	TAP_REQUIRE(mf_pgtable_table(&r.pt, r.pt.base, 0, &table));
	soft_one = (uint64_t)1 << r.flat.machine.paging.soft_shift;
	TAP_OK(rig_is_sound(&r));

#define BREAK(where, value, expected)                                                                                  \
	do {                                                                                                           \
		word = (where);                                                                                        \
		good = *word;                                                                                          \
		*word = (value);                                                                                       \
		TAP_OK(finding_is(&r, expected));                                                                      \
		*word = good;                                                                                          \
		TAP_OK(rig_is_sound(&r));                                                                              \
	} while (0)

	BREAK(frame_words(&r, table), *word ^ soft_one, "M8: the table of level 0");
	BREAK(frame_words(&r, table) + 1, *word ^ soft_one, "M8: the table of level 0");
	BREAK(frame_words(&r, table) + 2, *word ^ soft_one, "M8: entry 2");
	BREAK(frame_words(&r, table), *frame_words(&r, r.pt.shared[0]), "M3: the table of level 0");
	BREAK(frame_words(&r, table), (r.pt.zero << 12 | *word) & ~((uint64_t)0x1000 << 12), "M6: leaf");
	BREAK(frame_words(&r, table), 0, "M1: leaf");
	BREAK(frame_words(&r, table) + 5, *frame_words(&r, table) & ~soft_one, "M8: the table of level 0");
	BREAK(frame_words(&r, r.pt.root) + 511, 0x5000023, "M1: entry 511 of level 3");
	BREAK(frame_words(&r, r.pt.root) + 256, *word | 0x4, "M1: entry");
	BREAK(frame_words(&r, r.pt.root) + 257, r.pt.shared[1] << 12 | 0x23, "M6: entry");
	BREAK(frame_words(&r, r.pt.shared[0]) + 300, *word | 2, "M6: entry 300 of the shared table of level 0");
	BREAK(frame_words(&r, r.pt.shared[2]), *word | soft_one, "M6: entry 0 of the shared table of level 2");
	BREAK(frame_words(&r, r.pt.zero) + 511, 1, "M6: the zero frame");
	BREAK(&r.pt.nr_private[1], 2, "M8: 2 private tables of level 1");
#undef BREAK

	clear_given(&r, r.pt.base, 0, 1);
	rig_close(&r);
}

TAP_MAIN()
