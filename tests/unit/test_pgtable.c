/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable.c - page tables on the flat machine, against an array of what each address should translate to.
 *
 * Every step of the random tests is followed by mf_pgtable_check() and a count of all frames: what the page tables hold
 * and what the machine has left is always the whole.
 */
#include "tests/lib/flat_machine.h"
#include "tests/tap.h"

#include <memfold/pgtable.h>
#include <stdlib.h>
#include <string.h>

enum { NR_FRAMES = 160 };

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

/* ---- A machine with page tables in it -------------------------------------------------------------------- */

struct world {
	struct flat_machine flat;
	struct mf_pgtable pt;
	struct mf_bag bag; /* empty between the steps */
};

static unsigned fanout_of(const struct world *w)
{
	return 1u << (w->flat.machine.paging.page_shift - 3);
}

static unsigned root_level(const struct world *w)
{
	return w->flat.machine.paging.levels - 1;
}

static uint64_t *frame_words(const struct world *w, mf_pfn_t pfn)
{
	return mf_machine_frame(&w->flat.machine, pfn);
}

static void draw(struct world *w, unsigned nr)
{
	mf_pfn_t pfn;

	while (w->bag.nr < nr) {
		if (w->flat.machine.ops->ram_get(&w->flat.machine, 0, 0, &pfn) != 0) {
			TAP_NOTE("the machine has no frame left");
			exit(1);
		}
		mf_bag_put(&w->bag, pfn);
	}
}

static void give_back(struct world *w)
{
	while (w->bag.nr > 0)
		w->flat.machine.ops->ram_put(&w->flat.machine, 0, 0, mf_bag_take(&w->bag));
}

/* Half of what the levels reach, at most 2^40 bytes, in the upper half of the address space. */
static void world_open(struct world *w, struct mf_paging paging, enum mf_pgtable_flags flags)
{
	unsigned reach = paging.page_shift + paging.levels * (paging.page_shift - 3);
	uint64_t size_bytes = (uint64_t)1 << (reach - 1 < 40 ? reach - 1 : 40);

	memset(w, 0, sizeof(*w));
	if (flat_machine_create(&w->flat, paging, NR_FRAMES) != 0)
		exit(1);
	draw(w, mf_pgtable_init_frames(&paging));
	TAP_EQ(mf_pgtable_init(&w->pt, &w->flat.machine, flags, (uintptr_t)0xffff800000000000, size_bytes, &w->bag), 0);
	TAP_EQ(w->bag.nr, 0);
	TAP_EQ(w->flat.nr_read_only, paging.levels);
}

static bool world_is_sound(struct world *w)
{
	char text[200];
	const char *finding = mf_pgtable_check(&w->pt, text, sizeof(text));
	uint64_t nr_taken = w->flat.nr_frames - 1 - w->flat.nr_free;

	if (finding)
		TAP_NOTE("%s", finding);
	return !finding && mf_pgtable_frames(&w->pt) + w->bag.nr == nr_taken;
}

/* Everything has been cleared: nothing may leak. */
static void world_close(struct world *w)
{
	TAP_EQ(mf_pgtable_frames(&w->pt), w->flat.machine.paging.levels + 1);
	mf_pgtable_destroy(&w->pt, &w->bag);
	give_back(w);
	TAP_EQ(w->flat.nr_free, w->flat.nr_frames - 1);
	TAP_EQ(w->flat.nr_read_only, 0);
	flat_machine_destroy(&w->flat);
}

static int map_drawn(struct world *w, uintptr_t va, unsigned level, const mf_pfn_t *pfn, unsigned nr, enum mf_prot prot)
{
	int err;

	draw(w, mf_pgtable_tables_needed(&w->pt, va, level));
	err = mf_pgtable_map(&w->pt, va, level, pfn, nr, prot, &w->bag);
	give_back(w);
	return err;
}

static void clear_given(struct world *w, uintptr_t va, unsigned level, unsigned nr)
{
	mf_pgtable_clear(&w->pt, va, level, nr, NULL, &w->bag);
	give_back(w);
}

static bool finding_is(struct world *w, const char *start)
{
	char text[200];
	const char *finding = mf_pgtable_check(&w->pt, text, sizeof(text));

	TAP_NOTE("found: %s", finding ? finding : "nothing");
	return finding && strncmp(finding, start, strlen(start)) == 0 && mf_pgtable_check(&w->pt, NULL, 0) != NULL;
}

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
	struct world w;

	for (unsigned levels = 4; levels <= 5; levels++) {
		world_open(&w, mf_paging_x86_64(levels), MF_PGTABLE_SHARE);
		TAP_EQ(w.pt.size_bytes, (uint64_t)1 << 40);
		TAP_EQ(mf_pgtable_frames(&w.pt), levels + 1);
		for (uintptr_t at = 0; at < w.pt.size_bytes; at += w.pt.size_bytes / 64 + 12345)
			TAP_OK(mf_pgtable_walk(&w.pt, w.pt.base + at).background);
		TAP_OK(world_is_sound(&w));
		world_close(&w);
	}
}

TAP_TEST(destroy_refuses_while_something_is_mapped)
{
	struct world w;

	world_open(&w, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&w, w.pt.base, 0, &(mf_pfn_t){0x1000}, 1, MF_PROT_READ), 0);
	TAP_OK(TAP_PANICS(mf_pgtable_destroy(&w.pt, &w.bag)));
	clear_given(&w, w.pt.base, 0, 1);
	world_close(&w);
}

/* ---- Every granule, every depth --------------------------------------------------------------------------- */

static void map_and_clear_at(struct world *w, uintptr_t va)
{
	mf_pfn_t pfn[8], old[8];

	for (unsigned i = 0; i < 8; i++)
		pfn[i] = 0x100000 + i * 3;
	TAP_EQ(mf_pgtable_tables_needed(&w->pt, va, 0), root_level(w));
	TAP_EQ(map_drawn(w, va, 0, pfn, 8, MF_PROT_WRITE), 0);
	TAP_OK(world_is_sound(w));
	TAP_EQ(mf_pgtable_tables_needed(&w->pt, va, 0), 0);
	for (unsigned i = 0; i < 8; i++) {
		struct mf_translation t =
			mf_pgtable_walk(&w->pt, va + i * mf_pgtable_span(&w->flat.machine.paging, 0) + 5);

		TAP_OK(t.pfn == pfn[i] && t.writable && !t.background && t.level == 0);
	}
	mf_pgtable_clear(&w->pt, va, 0, 8, old, &w->bag);
	TAP_OK(memcmp(pfn, old, sizeof(old)) == 0);
	TAP_EQ(w->bag.nr, root_level(w));
	TAP_OK(world_is_sound(w));
	give_back(w);
}

TAP_TEST(every_granule_and_depth_maps_and_clears)
{
	struct world w;

	for (unsigned shift = 12; shift <= 16; shift += 2) {
		for (unsigned levels = 2; levels <= MF_PGTABLE_LEVELS_MAX; levels++) {
			world_open(&w, mf_paging_arm64(shift, levels), MF_PGTABLE_SHARE);
			map_and_clear_at(&w, w.pt.base);
			map_and_clear_at(&w, w.pt.base + w.pt.size_bytes - ((uintptr_t)8 << shift));
			world_close(&w);
		}
	}
}

TAP_TEST(full_table_counts_its_last_entry)
{
	struct world w;

	for (unsigned shift = 12; shift <= 16; shift += 2) {
		mf_pfn_t pfn[8192];

		world_open(&w, mf_paging_arm64(shift, 3), MF_PGTABLE_SHARE);
		for (unsigned i = 0; i < fanout_of(&w); i++)
			pfn[i] = 0x200001 + i;
		TAP_EQ(map_drawn(&w, w.pt.base, 0, pfn, fanout_of(&w), MF_PROT_READ), 0);
		/* Contiguous, but no block starts there. */
		TAP_EQ(mf_pgtable_merge(&w.pt, w.pt.base, 1, &w.bag), -MF_EINVAL);
		TAP_OK(world_is_sound(&w));
		for (unsigned i = 0; i < fanout_of(&w); i++)
			clear_given(&w, w.pt.base + ((uintptr_t)i << shift), 0, 1);
		world_close(&w);
	}
}

/* ---- Refusals ------------------------------------------------------------------------------------------------ */

TAP_TEST(map_refuses_bad_arguments)
{
	struct world w;
	mf_pfn_t pfn[4] = {0x1000, 0x1001, 0x1002, 0x1003};
	uintptr_t base, end;

	world_open(&w, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	base = w.pt.base;
	end = base + w.pt.size_bytes;
	draw(&w, 3);
	TAP_EQ(mf_pgtable_map(&w.pt, base + 1, 0, pfn, 1, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base, 0, pfn, 0, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base + 4096, 1, pfn, 1, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base, 1, &pfn[1], 1, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base, 3, pfn, 1, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base + 510 * 4096, 0, pfn, 3, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base, 0, &(mf_pfn_t){(mf_pfn_t)1 << 40}, 1, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, base, 0, &w.pt.zero, 1, MF_PROT_READ, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_map(&w.pt, end, 0, pfn, 1, MF_PROT_READ, &w.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_map(&w.pt, base - 4096, 0, pfn, 1, MF_PROT_READ, &w.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_protect(&w.pt, end, MF_PROT_READ), -MF_EFAULT);
	TAP_EQ(mf_pgtable_protect(&w.pt, base, MF_PROT_READ), -MF_ENOENT);
	TAP_EQ(mf_pgtable_split(&w.pt, base, 1, &w.bag), -MF_ENOENT);
	TAP_EQ(mf_pgtable_split(&w.pt, end, 1, &w.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_merge(&w.pt, base, 1, &w.bag), -MF_ENOENT);
	TAP_EQ(mf_pgtable_merge(&w.pt, base, 0, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_merge(&w.pt, base, 3, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_merge(&w.pt, end, 1, &w.bag), -MF_EFAULT);
	TAP_EQ(mf_pgtable_privatise(&w.pt, end, &w.bag), -MF_EFAULT);
	TAP_EQ(w.bag.nr, 3);
	TAP_OK(world_is_sound(&w));
	give_back(&w);
	world_close(&w);
}

TAP_TEST(broken_contracts_panic)
{
	struct world w;
	mf_pfn_t pfn[2] = {0x200000, 0x200001};
	uintptr_t base;

	world_open(&w, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	base = w.pt.base;
	TAP_OK(TAP_PANICS(mf_pgtable_walk(&w.pt, base - 1)));
	TAP_OK(TAP_PANICS(mf_pgtable_tables_needed(&w.pt, base - 1, 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&w.pt, base, 0, 1, NULL, &w.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&w.pt, base, 0, 0, NULL, &w.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&w.pt, base, 7)));
	TAP_OK(TAP_PANICS(mf_pgtable_move(&w.pt, base, 0, 7)));
	TAP_OK(TAP_PANICS(mf_pgtable_move(&w.pt, base, root_level(&w), 7)));
	TAP_OK(TAP_PANICS(mf_pgtable_share(&w.pt, base - 4096, base, &w.bag)));
	TAP_EQ(map_drawn(&w, base, 0, pfn, 1, MF_PROT_READ), 0);
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&w.pt, base, 0, pfn, 1, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&w.pt, base, 1, pfn, 1, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&w.pt, base + 4096, 0, 1, NULL, &w.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&w.pt, base, 1, 1, NULL, &w.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&w.pt, base, w.pt.zero)));
	clear_given(&w, base, 0, 1);
	TAP_EQ(map_drawn(&w, base, 1, pfn, 1, MF_PROT_READ), 0);
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&w.pt, base, 0, pfn, 1, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&w.pt, base, 7)));
	clear_given(&w, base, 1, 1);
	world_close(&w);
}

static uint64_t digest(const struct world *w)
{
	uint64_t hash = 1469598103934665603u;
	const unsigned char *at = (const void *)w->flat.machine.direct_map;

	for (size_t i = 0; i < w->flat.nr_frames << w->flat.machine.paging.page_shift; i++)
		hash = (hash ^ at[i]) * 1099511628211u;
	at = (const void *)&w->pt;
	for (size_t i = 0; i < sizeof(w->pt); i++)
		hash = (hash ^ at[i]) * 1099511628211u;
	return hash;
}

static void every_small_bag_changes_nothing(struct mf_paging paging)
{
	struct world w;
	uint64_t before;
	mf_pfn_t pfn[8] = {0x10000, 0x10001, 0x10002, 0x10003, 0x10004, 0x10005, 0x10006, 0x10007};

	world_open(&w, paging, MF_PGTABLE_SHARE);
	for (unsigned nr = 0; nr < root_level(&w); nr++) {
		draw(&w, nr);
		before = digest(&w);
		TAP_EQ(mf_pgtable_map(&w.pt, w.pt.base, 0, pfn, 8, MF_PROT_WRITE, &w.bag), -MF_ENOMEM);
		TAP_EQ(mf_pgtable_privatise(&w.pt, w.pt.base, &w.bag), -MF_ENOMEM);
		TAP_EQ(w.bag.nr, nr);
		TAP_EQ(digest(&w), before);
	}
	give_back(&w);
	before = digest(&w);
	TAP_EQ(mf_pgtable_map(&w.pt, w.pt.base, 0, pfn, 8, MF_PROT_WRITE, NULL), -MF_ENOMEM);
	TAP_EQ(digest(&w), before);
	TAP_EQ(map_drawn(&w, w.pt.base, 1, &(mf_pfn_t){0x10000}, 1, MF_PROT_WRITE), 0);
	before = digest(&w);
	TAP_EQ(mf_pgtable_split(&w.pt, w.pt.base, 1, &w.bag), -MF_ENOMEM);
	TAP_EQ(digest(&w), before);
	clear_given(&w, w.pt.base, 1, 1);
	world_close(&w);
}

TAP_TEST(too_few_frames_change_nothing)
{
	every_small_bag_changes_nothing(mf_paging_x86_64(4));
	every_small_bag_changes_nothing(mf_paging_x86_64(5));
	every_small_bag_changes_nothing(mf_paging_arm64(14, 4));
	every_small_bag_changes_nothing(mf_paging_arm64(16, 3));
}

/* ---- Shapes -------------------------------------------------------------------------------------------------- */

TAP_TEST(giant_leaf_splits_and_merges_all_the_way)
{
	struct world w;
	uint64_t giant = (uint64_t)1 << 18;
	uintptr_t inside;

	world_open(&w, mf_paging_x86_64(5), MF_PGTABLE_SHARE);
	inside = w.pt.base + 300 * (2 << 20) + 77 * 4096 + 9;
	TAP_EQ(map_drawn(&w, w.pt.base, 2, &giant, 1, MF_PROT_WRITE), 0);
	TAP_EQ(mf_pgtable_tables_needed(&w.pt, inside, 0), 0);
	draw(&w, 2);
	TAP_EQ(mf_pgtable_split(&w.pt, inside, 1, &w.bag), -MF_ENOENT);
	for (unsigned level = 2; level > 0; level--) {
		TAP_EQ(mf_pgtable_split(&w.pt, inside, level, &w.bag), 0);
		TAP_OK(world_is_sound(&w));
		TAP_EQ(mf_pgtable_walk(&w.pt, inside).level, level - 1);
		TAP_EQ(mf_pgtable_walk(&w.pt, inside).pfn, giant + 300 * 512 + 77);
		TAP_OK(mf_pgtable_walk(&w.pt, inside).writable);
	}
	TAP_EQ(mf_pgtable_merge(&w.pt, inside, 2, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_protect(&w.pt, inside, MF_PROT_READ), 0);
	TAP_EQ(mf_pgtable_merge(&w.pt, inside, 1, &w.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_protect(&w.pt, inside, MF_PROT_WRITE), 0);
	for (unsigned level = 1; level <= 2; level++)
		TAP_EQ(mf_pgtable_merge(&w.pt, inside, level, &w.bag), 0);
	TAP_EQ(w.bag.nr, 2);
	TAP_EQ(mf_pgtable_walk(&w.pt, inside).level, 2);
	TAP_OK(world_is_sound(&w));
	give_back(&w);
	clear_given(&w, w.pt.base, 2, 1);
	world_close(&w);
}

static bool dies_in(void *ctx, uintptr_t va)
{
	const uintptr_t *range = ctx;

	return va >= range[0] && va < range[1];
}

TAP_TEST(survives_tells_whether_a_table_outlives_leaves)
{
	struct world w;
	uintptr_t range[2];
	mf_pfn_t pfn[8] = {1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007}, block = 0x10000;

	world_open(&w, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	range[0] = w.pt.base + 4096;
	range[1] = range[0] + 8 * 4096;
	TAP_OK(!mf_pgtable_survives(&w.pt, range[0], 0, dies_in, range));
	TAP_EQ(map_drawn(&w, range[0], 0, pfn, 8, MF_PROT_WRITE), 0);
	for (unsigned level = 0; level < root_level(&w); level++)
		TAP_OK(!mf_pgtable_survives(&w.pt, range[0] + 3 * 4096, level, dies_in, range));
	range[1] -= 4096;
	for (unsigned level = 0; level < root_level(&w); level++)
		TAP_OK(mf_pgtable_survives(&w.pt, range[0], level, dies_in, range));
	range[1] += 4096;
	TAP_EQ(map_drawn(&w, w.pt.base + (2 << 20), 1, &block, 1, MF_PROT_WRITE), 0);
	range[1] = w.pt.base + w.pt.size_bytes;
	TAP_OK(!mf_pgtable_survives(&w.pt, range[0], 0, dies_in, range));
	TAP_OK(mf_pgtable_survives(&w.pt, range[0], 1, dies_in, range));
	clear_given(&w, w.pt.base + (2 << 20), 1, 1);
	clear_given(&w, range[0], 0, 8);
	world_close(&w);
}

TAP_TEST(private_tables_stay_until_shared)
{
	struct world w;
	uintptr_t base;
	mf_pfn_t block[2] = {0x10000, 0x10200}, pfn;

	world_open(&w, mf_paging_x86_64(4), MF_PGTABLE_PRIVATE);
	base = w.pt.base;
	draw(&w, 4);
	TAP_EQ(mf_pgtable_privatise(&w.pt, base, &w.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&w.pt, base, &w.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&w.pt, base + (2 << 20), &w.bag), 0);
	TAP_EQ(w.bag.nr, 0);
	TAP_OK(mf_pgtable_table(&w.pt, base, 0, &pfn) && mf_pgtable_walk(&w.pt, base).background);
	TAP_OK(world_is_sound(&w));
	TAP_EQ(mf_pgtable_map(&w.pt, base, 0, block, 2, MF_PROT_READ, NULL), 0);
	clear_given(&w, base, 0, 2);
	TAP_EQ(mf_pgtable_frames(&w.pt), 5 + 4);
	TAP_OK(TAP_PANICS(mf_pgtable_destroy(&w.pt, &w.bag)));

	/* Part of what the level-1 table serves: the level-0 table goes, the others stay. */
	TAP_OK(mf_pgtable_share(&w.pt, base, base, &w.bag));
	TAP_EQ(w.bag.nr, 0);
	TAP_OK(mf_pgtable_share(&w.pt, base, base + (2 << 20) - 4096, &w.bag));
	TAP_EQ(w.bag.nr, 0);
	TAP_OK(mf_pgtable_share(&w.pt, base, base + (2 << 20), &w.bag));
	TAP_EQ(w.bag.nr, 1);
	TAP_OK(!mf_pgtable_table(&w.pt, base, 0, &pfn) && mf_pgtable_table(&w.pt, base, 1, &pfn));
	TAP_OK(world_is_sound(&w));
	give_back(&w);

	/* Leaves over one absent and one empty table: the empty one comes back in the bag. */
	TAP_EQ(mf_pgtable_map(&w.pt, base, 1, block, 2, MF_PROT_READ, NULL), -MF_ENOSPC);
	TAP_EQ(mf_pgtable_map(&w.pt, base, 1, block, 2, MF_PROT_READ, &w.bag), 0);
	TAP_EQ(w.bag.nr, 1);
	TAP_OK(world_is_sound(&w));
	clear_given(&w, base, 1, 2);

	/* A bag with room for one only. */
	while (w.bag.nr < MF_BAG_MAX - 1)
		draw(&w, w.bag.nr + 1);
	TAP_OK(!mf_pgtable_share(&w.pt, base, base + w.pt.size_bytes, &w.bag));
	TAP_OK(world_is_sound(&w));
	give_back(&w);
	TAP_OK(mf_pgtable_share(&w.pt, base, base + w.pt.size_bytes, &w.bag));
	TAP_EQ(w.bag.nr, 1);
	give_back(&w);
	world_close(&w);
}

TAP_TEST(share_releases_tables_that_reach_beyond_the_range)
{
	struct world w = {0};
	uintptr_t base = (uintptr_t)0xffff800000000000 + 3 * 4096;

	TAP_REQUIRE(flat_machine_create(&w.flat, mf_paging_x86_64(4), NR_FRAMES) == 0);
	draw(&w, 5 + 6);
	TAP_EQ(mf_pgtable_init(&w.pt, &w.flat.machine, MF_PGTABLE_PRIVATE, base, (uint64_t)1 << 40, &w.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&w.pt, base, &w.bag), 0);
	TAP_EQ(mf_pgtable_privatise(&w.pt, base + w.pt.size_bytes - 4096, &w.bag), 0);
	TAP_OK(world_is_sound(&w));
	TAP_OK(mf_pgtable_share(&w.pt, base, base + w.pt.size_bytes, &w.bag));
	TAP_EQ(w.bag.nr, 6);
	give_back(&w);
	world_close(&w);
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
	struct world w;
	mf_pfn_t pfn[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct tally all = {.stop_at = 1000}, some = {.stop_at = 5};
	uintptr_t high;

	for (unsigned i = 0; i < 8; i++)
		pfn[i] += 0x5000;
	world_open(&w, mf_paging_arm64(12, 4), MF_PGTABLE_SHARE);
	high = w.pt.base + w.pt.size_bytes - 8 * 4096;
	TAP_EQ(map_drawn(&w, high, 0, pfn, 8, MF_PROT_WRITE), 0);
	TAP_EQ(map_drawn(&w, w.pt.base, 1, &(mf_pfn_t){0x10000}, 1, MF_PROT_WRITE), 0);
	TAP_EQ(mf_pgtable_for_each(&w.pt, count_visit, &all), 0);
	TAP_EQ(all.nr_leaves, 9);
	TAP_EQ(all.nr_tables, 5);
	TAP_EQ(all.last_va, high + 7 * 4096);
	TAP_EQ(mf_pgtable_for_each(&w.pt, count_visit, &some), 42);
	TAP_EQ(some.nr_leaves, 5);
	clear_given(&w, high, 0, 8);
	clear_given(&w, w.pt.base, 1, 1);
	world_close(&w);
}

/* ---- Laws broken on purpose ------------------------------------------------------------------------------------ */

TAP_TEST(check_names_what_is_broken)
{
	struct world w;
	mf_pfn_t table;
	uint64_t *word, good, soft_one;

	world_open(&w, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&w, w.pt.base, 0, &(mf_pfn_t){0x1000}, 1, MF_PROT_WRITE), 0);
	TAP_REQUIRE(mf_pgtable_table(&w.pt, w.pt.base, 0, &table));
	soft_one = (uint64_t)1 << w.flat.machine.paging.soft_shift;
	TAP_OK(world_is_sound(&w));

#define BREAK(where, value, expected)                                                                                  \
	do {                                                                                                           \
		word = (where);                                                                                        \
		good = *word;                                                                                          \
		*word = (value);                                                                                       \
		TAP_OK(finding_is(&w, expected));                                                                      \
		*word = good;                                                                                          \
		TAP_OK(world_is_sound(&w));                                                                            \
	} while (0)

	BREAK(frame_words(&w, table), *word ^ soft_one, "M8: the table of level 0");
	BREAK(frame_words(&w, table) + 1, *word ^ soft_one, "M8: the table of level 0");
	BREAK(frame_words(&w, table) + 2, *word ^ soft_one, "M8: entry 2");
	BREAK(frame_words(&w, table), *frame_words(&w, w.pt.shared[0]), "M3: the table of level 0");
	BREAK(frame_words(&w, table), (w.pt.zero << 12 | *word) & ~((uint64_t)0x1000 << 12), "M6: leaf");
	BREAK(frame_words(&w, table), 0, "M1: leaf");
	BREAK(frame_words(&w, table) + 5, *frame_words(&w, table) & ~soft_one, "M8: the table of level 0");
	BREAK(frame_words(&w, w.pt.root) + 511, 0x5000023, "M1: entry 511 of level 3");
	BREAK(frame_words(&w, w.pt.root) + 256, *word | 0x4, "M1: entry");
	BREAK(frame_words(&w, w.pt.root) + 257, w.pt.shared[1] << 12 | 0x23, "M6: entry");
	BREAK(frame_words(&w, w.pt.shared[0]) + 300, *word | 2, "M6: entry 300 of the shared table of level 0");
	BREAK(frame_words(&w, w.pt.shared[2]), *word | soft_one, "M6: entry 0 of the shared table of level 2");
	BREAK(frame_words(&w, w.pt.zero) + 511, 1, "M6: the zero frame");
	BREAK(&w.pt.nr_private[1], 2, "M8: 2 private tables of level 1");
#undef BREAK

	clear_given(&w, w.pt.base, 0, 1);
	world_close(&w);
}

/* ---- Anything in any order, against an array ----------------------------------------------------------------------
 */

enum { NR_SITES = 3, SITE_TABLES = 2 };

/* What one frame's worth of addresses should translate to; level is that of its leaf. */
struct expected {
	mf_pfn_t pfn;
	unsigned level;
	bool mapped, writable;
};

/* SITE_TABLES neighbouring level-0 tables' worth of addresses. */
struct site {
	uintptr_t va;
	struct expected *at;
};

struct model {
	struct world w;
	struct site site[NR_SITES];
	unsigned fanout;
};

/* `nr` frames' worth from `index` on, within one level-0 table. */
struct spot {
	struct site *site;
	unsigned index, nr;
	uintptr_t va;
};

static struct spot spot_at(struct model *m, struct site *site, unsigned index, unsigned nr)
{
	return (struct spot){site, index, nr, site->va + ((uintptr_t)index << m->w.flat.machine.paging.page_shift)};
}

static struct spot random_spot(struct model *m)
{
	unsigned nr = 1 + (unsigned)random_below(8), table = (unsigned)random_below(SITE_TABLES);
	/* Few places, so that steps meet: the start, which holds the digits, and the end. */
	unsigned start = random_below(2) ? (unsigned)random_below(16) : m->fanout - nr - (unsigned)random_below(8);

	return spot_at(m, &m->site[random_below(NR_SITES)], table * m->fanout + start, nr);
}

static struct spot table_spot(struct model *m, const struct spot *s)
{
	return spot_at(m, s->site, s->index / m->fanout * m->fanout, m->fanout);
}

static bool all_mapped(const struct spot *s, bool mapped, unsigned level)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (s->site->at[s->index + i].mapped != mapped || (mapped && s->site->at[s->index + i].level != level))
			return false;
	return true;
}

/* The frame that would continue a block of level 1, so that merges can succeed; or any frame. */
static mf_pfn_t choose_pfn(struct model *m, const struct spot *s, unsigned i)
{
	mf_pfn_t first = (mf_pfn_t)(1000 + (s->site - m->site)) * SITE_TABLES * m->fanout;

	return s->nr <= 8 && random_below(20) == 0 ? 0x700000 + random_below(0x1000) : first + s->index + i;
}

static void step_map(struct model *m, struct spot s, unsigned level)
{
	mf_pfn_t pfn[8192];
	mf_pfn_t block = 0x40000000u + random_below(8) * m->fanout;
	enum mf_prot prot = random_below(4) ? MF_PROT_WRITE : MF_PROT_READ;

	if (!all_mapped(&s, false, 0))
		return;
	for (unsigned i = 0; i < s.nr; i++) {
		pfn[i] = level == 0 ? choose_pfn(m, &s, i) : block + i;
		s.site->at[s.index + i] = (struct expected){pfn[i], level, true, prot == MF_PROT_WRITE};
	}
	TAP_EQ(map_drawn(&m->w, s.va, level, pfn, level == 0 ? s.nr : 1, prot), 0);
}

static void step_clear(struct model *m, struct spot s, unsigned level)
{
	mf_pfn_t old[8192];

	if (!all_mapped(&s, true, level))
		return;
	mf_pgtable_clear(&m->w.pt, s.va, level, level == 0 ? s.nr : 1, old, &m->w.bag);
	for (unsigned i = 0; i < s.nr; i++) {
		TAP_OK(level == 1 || old[i] == s.site->at[s.index + i].pfn);
		s.site->at[s.index + i] = (struct expected){0};
	}
	TAP_OK(m->w.bag.nr <= root_level(&m->w));
	give_back(&m->w);
}

static void clear_all(struct model *m, struct spot s)
{
	for (unsigned i = 0; i < s.nr; i++) {
		const struct expected *e = &s.site->at[s.index + i];

		if (e->mapped)
			step_clear(m, spot_at(m, s.site, s.index + i, e->level == 1 ? m->fanout : 1), e->level);
	}
}

static void step_protect(struct model *m, struct spot s)
{
	bool writable = random_below(2);
	struct expected *e = &s.site->at[s.index];
	unsigned first = e->level == 1 ? s.index / m->fanout * m->fanout : s.index;

	TAP_EQ(mf_pgtable_protect(&m->w.pt, s.va + 17, writable ? MF_PROT_WRITE : MF_PROT_READ),
	       e->mapped ? 0 : -MF_ENOENT);
	for (unsigned i = 0; e->mapped && i < (e->level == 1 ? m->fanout : 1); i++)
		s.site->at[first + i].writable = writable;
}

static void step_replace(struct model *m, struct spot s)
{
	struct expected *e = &s.site->at[s.index];
	mf_pfn_t pfn = choose_pfn(m, &s, 0);

	if (!e->mapped || e->level != 0)
		return;
	TAP_EQ(mf_pgtable_replace(&m->w.pt, s.va, pfn), e->pfn);
	e->pfn = pfn;
}

static void step_split(struct model *m, struct spot s)
{
	struct spot whole = table_spot(m, &s);
	bool is_block = all_mapped(&whole, true, 1);

	draw(&m->w, 1);
	TAP_EQ(mf_pgtable_split(&m->w.pt, s.va, 1, &m->w.bag), is_block ? 0 : -MF_ENOENT);
	TAP_EQ(m->w.bag.nr, is_block ? 0 : 1);
	give_back(&m->w);
	for (unsigned i = 0; is_block && i < m->fanout; i++)
		whole.site->at[whole.index + i].level = 0;
}

static void step_merge(struct model *m, struct spot s)
{
	struct spot whole = table_spot(m, &s);
	struct expected *e = &whole.site->at[whole.index];
	bool fits = all_mapped(&whole, true, 0) && e->pfn % m->fanout == 0;
	mf_pfn_t table;
	int expected;

	for (unsigned i = 0; fits && i < m->fanout; i++)
		fits = e[i].pfn == e->pfn + i && e[i].writable == e->writable;
	expected = fits ? 0 : mf_pgtable_table(&m->w.pt, s.va, 0, &table) ? -MF_EINVAL : -MF_ENOENT;
	TAP_EQ(mf_pgtable_merge(&m->w.pt, s.va, 1, &m->w.bag), expected);
	give_back(&m->w);
	for (unsigned i = 0; fits && i < m->fanout; i++)
		e[i].level = 1;
}

static void step_move(struct model *m, struct spot s)
{
	unsigned level = (unsigned)random_below(root_level(&m->w));
	mf_pfn_t table;

	if (!mf_pgtable_table(&m->w.pt, s.va, level, &table))
		return;
	draw(&m->w, 1);
	TAP_EQ(mf_pgtable_move(&m->w.pt, s.va, level, mf_bag_take(&m->w.bag)), table);
	memset(frame_words(&m->w, table), 0xee, (size_t)1 << m->w.flat.machine.paging.page_shift);
	mf_bag_put(&m->w.bag, table);
	give_back(&m->w);
}

static void step_privatise_or_share(struct model *m, struct spot s)
{
	uintptr_t end = s.site->va + ((uintptr_t)SITE_TABLES * m->fanout << m->w.flat.machine.paging.page_shift);

	if ((m->w.pt.flags & MF_PGTABLE_PRIVATE) == 0)
		return;
	if (random_below(4) == 0) {
		TAP_OK(mf_pgtable_share(&m->w.pt, s.va, end, &m->w.bag));
	} else {
		draw(&m->w, mf_pgtable_tables_needed(&m->w.pt, s.va, 0));
		TAP_EQ(mf_pgtable_privatise(&m->w.pt, s.va, &m->w.bag), 0);
		TAP_EQ(m->w.bag.nr, 0);
	}
	give_back(&m->w);
}

static bool spot_translates(struct model *m, struct spot s)
{
	unsigned shift = m->w.flat.machine.paging.page_shift;

	for (unsigned i = 0; i < s.nr; i++) {
		const struct expected *e = &s.site->at[s.index + i];
		struct mf_translation t =
			mf_pgtable_walk(&m->w.pt, s.va + ((uintptr_t)i << shift) + random_below(4096));

		if (t.background == e->mapped || t.writable != e->writable || t.level != e->level ||
		    t.pfn != (e->mapped ? e->pfn : m->w.pt.zero))
			return false;
	}
	return true;
}

static bool model_holds(struct model *m)
{
	for (unsigned i = 0; i < NR_SITES; i++)
		if (!spot_translates(m, spot_at(m, &m->site[i], 0, SITE_TABLES * m->fanout)))
			return false;
	return true;
}

static void random_step(struct model *m)
{
	struct spot s = random_spot(m), whole = table_spot(m, &s);

	switch (random_below(16)) {
	case 0:
	case 1:
	case 2:
	case 3:
		step_map(m, s, 0);
		break;
	case 4:
	case 5:
	case 6:
		step_clear(m, s, 0);
		break;
	case 7:
		clear_all(m, whole);
		step_map(m, whole, (unsigned)random_below(2));
		break;
	case 8:
		step_clear(m, whole, (unsigned)random_below(2));
		break;
	case 9:
		step_protect(m, s);
		break;
	case 10:
		step_replace(m, s);
		break;
	case 11:
	case 12:
		step_split(m, s);
		break;
	case 13:
		step_merge(m, s);
		break;
	case 14:
		step_move(m, s);
		break;
	default:
		step_privatise_or_share(m, s);
		break;
	}
}

/* The start of the range, its end, and a place between that is aligned to a site. */
static uintptr_t site_address(const struct world *w, unsigned i, uint64_t site_bytes)
{
	return w->pt.base + mf_round_down((w->pt.size_bytes - site_bytes) / (NR_SITES - 1) * i, site_bytes);
}

static void model_open(struct model *m, struct mf_paging paging, enum mf_pgtable_flags flags)
{
	uint64_t site_bytes;

	world_open(&m->w, paging, flags);
	m->fanout = fanout_of(&m->w);
	site_bytes = (uint64_t)SITE_TABLES * m->fanout << paging.page_shift;
	for (unsigned i = 0; i < NR_SITES; i++) {
		m->site[i].va = site_address(&m->w, i, site_bytes);
		m->site[i].at = calloc((size_t)SITE_TABLES * m->fanout, sizeof(struct expected));
	}
}

static void model_close(struct model *m)
{
	for (unsigned i = 0; i < NR_SITES; i++) {
		clear_all(m, spot_at(m, &m->site[i], 0, SITE_TABLES * m->fanout));
		free(m->site[i].at);
	}
	TAP_OK(mf_pgtable_share(&m->w.pt, m->w.pt.base, m->w.pt.base + m->w.pt.size_bytes, &m->w.bag));
	give_back(&m->w);
	world_close(&m->w);
}

static void run_random(struct mf_paging paging, enum mf_pgtable_flags flags, unsigned nr_steps)
{
	struct model m;

	random_state = 0x9e3779b97f4a7c15u + paging.page_shift * 8 + paging.levels;
	model_open(&m, paging, flags);
	for (unsigned step = 0; step < nr_steps; step++) {
		struct spot s = random_spot(&m);

		random_step(&m);
		if (!world_is_sound(&m.w) || !spot_translates(&m, s) || (step % 64 == 0 && !model_holds(&m))) {
			TAP_NOTE("shift %u, %u levels, step %u", paging.page_shift, paging.levels, step);
			TAP_OK(model_holds(&m) && step == nr_steps);
			return;
		}
	}
	TAP_OK(model_holds(&m));
	model_close(&m);
}

TAP_TEST(random_steps_x86_64_4_levels)
{
	run_random(mf_paging_x86_64(4), MF_PGTABLE_SHARE, 8000);
}
TAP_TEST(random_steps_x86_64_5_levels)
{
	run_random(mf_paging_x86_64(5), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_4_kib)
{
	run_random(mf_paging_arm64(12, 4), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_16_kib)
{
	run_random(mf_paging_arm64(14, 4), MF_PGTABLE_SHARE, 2000);
}
TAP_TEST(random_steps_arm64_64_kib)
{
	run_random(mf_paging_arm64(16, 3), MF_PGTABLE_SHARE, 1000);
}
TAP_TEST(random_steps_private_tables)
{
	run_random(mf_paging_x86_64(4), MF_PGTABLE_PRIVATE, 8000);
}
TAP_TEST(random_steps_6_levels)
{
	run_random(mf_paging_x86_64(6), MF_PGTABLE_SHARE, 2000);
}

TAP_MAIN()
