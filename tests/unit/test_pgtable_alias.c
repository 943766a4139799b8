/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable_alias.c - one frame behind many slots: entries switched, uniform tables, entries of level 1 exchanged.
 * Random steps on them: test_pgtable_alias_random.c.
 */
#include "tests/unit/pgtable_alias_rig.h"

enum { FRAME = 0x5000 }; /* what aliases show: no frame of the machine, since nobody reads it here */

static void for_each_paging(void (*run)(struct mf_paging paging))
{
	run(mf_paging_x86_64(4));
	run(mf_paging_x86_64(5));
	run(mf_paging_arm64(12, 2));
	run(mf_paging_arm64(12, 4));
	run(mf_paging_arm64(14, 4));
	run(mf_paging_arm64(16, 3));
}

/* ---- Entries of level 0 ------------------------------------------------------------------------------------- */

static void slots_go_on_a_diet_and_off_it(struct mf_paging paging)
{
	struct rig r;
	mf_pfn_t own[8], old[8], spread[7 * 3 + 1];

	for (unsigned i = 0; i < 8; i++)
		own[i] = 0x1000 + i * 3;
	rig_open(&r, paging, MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&r, slot(&r, 8), 0, own, 8, MF_PROT_WRITE), 0);
	mf_pgtable_switch(&r.pt, slot(&r, 9), &own[0], 0, 7, MF_PROT_READ, old);
	TAP_OK(memcmp(old, own + 1, 7 * sizeof(old[0])) == 0);
	TAP_OK(is_sound(&r, 0));
	TAP_OK(shows(&r, slot(&r, 8), own[0], true));
	for (unsigned i = 9; i < 16; i++)
		TAP_OK(shows(&r, slot(&r, i), own[0], false));

	/* Off it again, with frames that lie three apart in what is given; nobody wants to know the old ones. */
	for (unsigned i = 0; i < 7; i++)
		spread[i * 3] = own[i + 1];
	mf_pgtable_switch(&r.pt, slot(&r, 9), spread, 3, 7, MF_PROT_WRITE, NULL);
	TAP_OK(is_sound(&r, 0));
	for (unsigned i = 0; i < 8; i++)
		TAP_OK(shows(&r, slot(&r, 8 + i), own[i], true));

	mf_pgtable_switch(&r.pt, slot(&r, 8), &own[3], 0, 1, MF_PROT_WRITE, old);
	TAP_OK(old[0] == own[0] && shows(&r, slot(&r, 8), own[3], true));
	mf_pgtable_switch(&r.pt, slot(&r, 8), own, 1, 1, MF_PROT_WRITE, NULL);

	/* Over background and leaves: those are counted, these were. */
	mf_pgtable_switch(&r.pt, slot(&r, 4), own, 1, 8, MF_PROT_READ, old);
	for (unsigned i = 0; i < 8; i++)
		TAP_EQ(old[i], i < 4 ? r.pt.zero : own[i - 4]);
	TAP_OK(is_sound(&r, 0));
	clear_given(&r, slot(&r, 4), 0, 12);
	rig_close(&r);
}

TAP_TEST(switched_slots_are_aliases_and_own_again)
{
	for_each_paging(slots_go_on_a_diet_and_off_it);
}

/* ---- Uniform tables ------------------------------------------------------------------------------------------ */

static void one_table_serves_many_entries(struct mf_paging paging)
{
	struct rig r;
	mf_pfn_t table;
	uint64_t nr_frames, nr_read_only;

	rig_open(&r, paging, MF_PGTABLE_SHARE);
	nr_read_only = r.flat.nr_read_only;
	table = uniform_new(&r, FRAME);
	TAP_EQ(r.flat.nr_read_only, nr_read_only + 1);
	TAP_OK(r.flat.read_only[table]);
	for (unsigned i = 0; i < 7; i++) {
		uintptr_t va = r.pt.base + i * span_of(&r);

		TAP_OK(is_entry(exchange_drawn(&r, va, MF_ENTRY_UNIFORM, table, false), MF_ENTRY_BACKGROUND, 0, false));
		TAP_OK(is_sound(&r, 1));
		TAP_OK(is_entry(mf_pgtable_entry(&r.pt, va + 12345), MF_ENTRY_UNIFORM, table, false));
		TAP_OK(shows(&r, va, FRAME, false));
		TAP_OK(shows(&r, va + span_of(&r) - 1, FRAME, false));
		TAP_EQ(mf_pgtable_walk(&r.pt, va + span_of(&r) - 1).level, 0);
	}
	/* In no count: only the ways to level 1 are private. */
	nr_frames = 1 + (paging.levels - 1) + (paging.levels - 1);
	TAP_EQ(mf_pgtable_frames(&r.pt), nr_frames);
	TAP_OK(mf_pgtable_walk(&r.pt, r.pt.base + 7 * span_of(&r)).background);
	for (unsigned i = 7; i > 0; i--) {
		uintptr_t va = r.pt.base + (i - 1) * span_of(&r);

		TAP_OK(is_entry(exchange_drawn(&r, va, MF_ENTRY_BACKGROUND, 0, false), MF_ENTRY_UNIFORM, table, false));
		TAP_OK(is_sound(&r, 1));
	}
	TAP_EQ(mf_pgtable_frames(&r.pt), paging.levels + 1);
	uniform_end(&r, table);
	TAP_EQ(r.flat.nr_read_only, nr_read_only);
	rig_close(&r);
}

TAP_TEST(uniform_table_serves_many_entries)
{
	for_each_paging(one_table_serves_many_entries);
}

static bool dies(void *ctx, uintptr_t va)
{
	(void)ctx;
	(void)va;
	return true;
}

static int count_visit(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table)
{
	unsigned *nr = ctx;

	(void)va;
	TAP_OK(pfn != 0 && (is_table || level > 0));
	nr[is_table ? level : 0]++;
	return 0;
}

TAP_TEST(uniform_tables_are_left_alone_by_everybody)
{
	struct rig r;
	mf_pfn_t table, upper, moved;
	unsigned nr[MF_PGTABLE_LEVELS_MAX] = {0};
	uintptr_t base, end;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	base = r.pt.base;
	end = base + r.pt.size_bytes;
	table = uniform_new(&r, FRAME);
	exchange_drawn(&r, base, MF_ENTRY_UNIFORM, table, false);
	exchange_drawn(&r, base + span_of(&r), MF_ENTRY_UNIFORM, table, false);

	TAP_OK(!mf_pgtable_table(&r.pt, base, 0, &upper));
	TAP_OK(mf_pgtable_table(&r.pt, base, 1, &upper));
	TAP_OK(mf_pgtable_survives(&r.pt, base, 1, dies, NULL) && mf_pgtable_survives(&r.pt, base, 2, dies, NULL));
	TAP_OK(!mf_pgtable_survives(&r.pt, base, 0, dies, NULL));
	TAP_EQ(mf_pgtable_for_each(&r.pt, count_visit, nr), 0);
	TAP_OK(nr[0] == 0 && nr[1] == 2 && nr[2] == 1 && nr[3] == 1);
	TAP_EQ(mf_pgtable_tables_needed(&r.pt, base, 0), 0);
	TAP_EQ(mf_pgtable_privatise(&r.pt, base, &r.bag), 0);
	TAP_EQ(mf_pgtable_split(&r.pt, base, 1, &r.bag), -MF_ENOENT);
	TAP_EQ(mf_pgtable_merge(&r.pt, base, 1, &r.bag), -MF_EINVAL);
	TAP_EQ(mf_pgtable_merge(&r.pt, base, 2, &r.bag), -MF_EINVAL);
	TAP_OK(mf_pgtable_share(&r.pt, base, end, &r.bag));
	TAP_EQ(r.bag.nr, 0);
	TAP_OK(is_sound(&r, 1));

	moved = frame_new(&r);
	TAP_EQ(mf_pgtable_move(&r.pt, base, 1, moved), upper);
	frame_end(&r, upper);
	TAP_OK(is_sound(&r, 1) && shows(&r, base + span_of(&r), FRAME, false));

	exchange_drawn(&r, base, MF_ENTRY_BACKGROUND, 0, false);
	exchange_drawn(&r, base + span_of(&r), MF_ENTRY_BACKGROUND, 0, false);
	uniform_end(&r, table);
	rig_close(&r);
}

/* ---- Entries of level 1 ---------------------------------------------------------------------------------------- */

/* An entry of this kind to put somewhere; the tables are the caller's. */
static struct mf_entry entry_new(struct rig *r, enum mf_entry_kind kind, unsigned stride)
{
	struct mf_entry entry = {.kind = kind};

	if (kind == MF_ENTRY_LEAF)
		entry = (struct mf_entry){kind, (mf_pfn_t)fanout_of(r) * (2 + stride), stride != 0};
	if (kind == MF_ENTRY_UNIFORM)
		entry.pfn = uniform_new(r, FRAME + stride);
	if (kind == MF_ENTRY_TABLE) {
		entry.pfn = frame_new(r);
		mf_pgtable_fill(&r->pt, entry.pfn, kind, FRAME, stride, stride ? MF_PROT_WRITE : MF_PROT_READ);
	}
	return entry;
}

static void entry_end(struct rig *r, struct mf_entry entry)
{
	if (entry.kind == MF_ENTRY_UNIFORM)
		uniform_end(r, entry.pfn);
	if (entry.kind == MF_ENTRY_TABLE)
		frame_end(r, entry.pfn);
}

static unsigned nr_tables(struct mf_entry entry)
{
	return entry.kind == MF_ENTRY_UNIFORM || entry.kind == MF_ENTRY_TABLE ? 1 : 0;
}

/* Does every address that the entry at va maps translate as it says? */
static bool entry_holds(struct rig *r, uintptr_t va, struct mf_entry e, unsigned stride)
{
	for (unsigned i = 0; i < fanout_of(r); i++) {
		uintptr_t at = va + ((uintptr_t)i << r->flat.machine.paging.page_shift);

		if (e.kind == MF_ENTRY_BACKGROUND ? !mf_pgtable_walk(&r->pt, at).background
		    : e.kind == MF_ENTRY_LEAF     ? !shows(r, at, e.pfn + i, e.writable)
		    : e.kind == MF_ENTRY_TABLE    ? !shows(r, at, FRAME + (mf_pfn_t)stride * i, stride != 0)
						  : !shows(r, at, FRAME + stride, false))
			return false;
	}
	return true;
}

static void exchange_from_to(struct rig *r, enum mf_entry_kind from, enum mf_entry_kind to)
{
	/* Away from the digits, and not the first of the table above. */
	uintptr_t va = r->pt.base + 77 * span_of(r);
	struct mf_entry first = entry_new(r, from, 0), second = entry_new(r, to, 2);
	unsigned nr_own = nr_tables(first) + nr_tables(second);

	TAP_OK(is_entry(exchange_drawn(r, va, from, first.pfn, first.writable), MF_ENTRY_BACKGROUND, 0, false));
	TAP_OK(entry_holds(r, va, first, 0));
	TAP_OK(is_sound(r, nr_own - (from == MF_ENTRY_TABLE)));
	TAP_OK(is_entry(exchange_drawn(r, va, to, second.pfn, second.writable), from, first.pfn, first.writable));
	TAP_OK(entry_holds(r, va, second, 2));
	TAP_OK(is_sound(r, nr_own - (to == MF_ENTRY_TABLE)));
	entry_end(r, first);
	TAP_OK(is_entry(exchange_drawn(r, va, MF_ENTRY_BACKGROUND, 0, false), to, second.pfn, second.writable));
	entry_end(r, second);
	TAP_OK(is_sound(r, 0));
	TAP_EQ(mf_pgtable_frames(&r->pt), r->flat.machine.paging.levels + 1);
}

static void exchange_all(struct mf_paging paging)
{
	struct rig r;

	rig_open(&r, paging, MF_PGTABLE_SHARE);
	for (unsigned from = MF_ENTRY_BACKGROUND; from <= MF_ENTRY_UNIFORM; from++)
		for (unsigned to = MF_ENTRY_BACKGROUND; to <= MF_ENTRY_UNIFORM; to++)
			if (paging.max_leaf_level > 0 || (from != MF_ENTRY_LEAF && to != MF_ENTRY_LEAF))
				exchange_from_to(&r, (enum mf_entry_kind)from, (enum mf_entry_kind)to);
	rig_close(&r);
}

TAP_TEST(every_kind_of_entry_becomes_every_other)
{
	for_each_paging(exchange_all);
}

TAP_TEST(private_tables_go_and_come_back_with_what_they_map)
{
	struct rig r;
	struct mf_entry old;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	TAP_EQ(map_drawn(&r, slot(&r, 0), 0, &(mf_pfn_t){FRAME}, 1, MF_PROT_WRITE), 0);
	TAP_EQ(map_drawn(&r, slot(&r, 511), 0, &(mf_pfn_t){FRAME + 1}, 1, MF_PROT_READ), 0);
	old = exchange_drawn(&r, r.pt.base, MF_ENTRY_BACKGROUND, 0, false);
	TAP_EQ(old.kind, MF_ENTRY_TABLE);
	TAP_EQ(mf_pgtable_frames(&r.pt), 5);
	TAP_OK(is_sound(&r, 1));
	/* Asked and answered in one place. */
	draw(&r, 2);
	TAP_EQ(mf_pgtable_exchange(&r.pt, r.pt.base + span_of(&r), &old, &r.bag, &old), 0);
	TAP_OK(is_entry(old, MF_ENTRY_BACKGROUND, 0, false) && r.bag.nr == 0);
	TAP_OK(is_sound(&r, 0));
	TAP_OK(shows(&r, slot(&r, 512), FRAME, true) && shows(&r, slot(&r, 1023), FRAME + 1, false));
	old = (struct mf_entry){MF_ENTRY_BACKGROUND, 99, true};
	TAP_EQ(mf_pgtable_exchange(&r.pt, r.pt.base, &old, NULL, &old), 0);
	TAP_OK(is_entry(old, MF_ENTRY_BACKGROUND, 0, false) && is_sound(&r, 0));
	TAP_OK(mf_pgtable_walk(&r.pt, slot(&r, 0)).background && mf_pgtable_walk(&r.pt, slot(&r, 513)).background);
	clear_given(&r, slot(&r, 512), 0, 1);
	clear_given(&r, slot(&r, 1023), 0, 1);
	rig_close(&r);
}

TAP_TEST(entry_under_a_giant_leaf_is_a_part_of_it)
{
	struct rig r;
	mf_pfn_t giant = (mf_pfn_t)1 << 18;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	TAP_OK(is_entry(mf_pgtable_entry(&r.pt, r.pt.base), MF_ENTRY_BACKGROUND, 0, false));
	TAP_EQ(map_drawn(&r, r.pt.base, 2, &giant, 1, MF_PROT_WRITE), 0);
	TAP_OK(is_entry(mf_pgtable_entry(&r.pt, slot(&r, 3 * 512 + 9)), MF_ENTRY_LEAF, giant + 3 * 512, true));
	clear_given(&r, r.pt.base, 2, 1);
	rig_close(&r);
}

TAP_TEST(private_tables_above_stay_when_sharing_is_off)
{
	struct rig r;
	struct mf_entry old, empty;
	mf_pfn_t table;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_PRIVATE);
	old = entry_new(&r, MF_ENTRY_TABLE, 1);
	exchange_drawn(&r, r.pt.base, MF_ENTRY_TABLE, old.pfn, false);
	TAP_OK(is_entry(exchange_drawn(&r, r.pt.base, MF_ENTRY_BACKGROUND, 0, false), MF_ENTRY_TABLE, old.pfn, false));
	TAP_OK(mf_pgtable_table(&r.pt, r.pt.base, 1, &table) && !mf_pgtable_table(&r.pt, r.pt.base, 0, &table));
	TAP_EQ(mf_pgtable_frames(&r.pt), 5 + 2);
	TAP_OK(is_sound(&r, 1));
	entry_end(&r, old);

	/* An empty one goes and comes back. */
	draw(&r, 1);
	TAP_EQ(mf_pgtable_privatise(&r.pt, r.pt.base, &r.bag), 0);
	empty = mf_pgtable_entry(&r.pt, r.pt.base);
	TAP_EQ(empty.kind, MF_ENTRY_TABLE);
	old = entry_new(&r, MF_ENTRY_UNIFORM, 0);
	TAP_OK(is_entry(exchange_drawn(&r, r.pt.base, old.kind, old.pfn, false), MF_ENTRY_TABLE, empty.pfn, false));
	TAP_OK(is_sound(&r, 2));
	TAP_OK(mf_pgtable_share(&r.pt, r.pt.base, r.pt.base + r.pt.size_bytes, &r.bag));
	TAP_EQ(r.bag.nr, 0);
	exchange_drawn(&r, r.pt.base, empty.kind, empty.pfn, false);
	entry_end(&r, old);
	TAP_OK(is_sound(&r, 0));
	TAP_OK(mf_pgtable_share(&r.pt, r.pt.base, r.pt.base + r.pt.size_bytes, &r.bag));
	TAP_EQ(r.bag.nr, 3);
	give_back(&r);
	rig_close(&r);
}

/* ---- Refusals ------------------------------------------------------------------------------------------------ */

static uint64_t digest(const struct rig *r)
{
	uint64_t hash = 1469598103934665603u;
	const uint64_t *word = (const void *)r->flat.machine.direct_map;
	const unsigned char *at = (const void *)&r->pt;

	for (size_t i = 0; i < r->flat.nr_frames << (r->flat.machine.paging.page_shift - 3); i++)
		hash = (hash ^ word[i]) * 1099511628211u;
	for (size_t i = 0; i < sizeof(r->pt); i++)
		hash = (hash ^ at[i]) * 1099511628211u;
	return hash;
}

static void every_small_bag_changes_nothing(struct mf_paging paging)
{
	struct rig r;
	struct mf_entry uniform, old = {.pfn = 99};
	uint64_t before;

	rig_open(&r, paging, MF_PGTABLE_SHARE);
	uniform = entry_new(&r, MF_ENTRY_UNIFORM, 0);
	for (unsigned nr = 0; nr + 1 < root_level(&r); nr++) {
		draw(&r, nr);
		before = digest(&r);
		TAP_EQ(mf_pgtable_exchange(&r.pt, r.pt.base, &uniform, &r.bag, &old), -MF_ENOMEM);
		TAP_EQ(mf_pgtable_exchange(&r.pt, r.pt.base, &uniform, NULL, &old), -MF_ENOMEM);
		TAP_OK(r.bag.nr == nr && old.pfn == 99 && digest(&r) == before);
	}
	give_back(&r);

	/* Background is there already: nothing is needed, and nothing happens. */
	before = digest(&r);
	TAP_EQ(mf_pgtable_exchange(&r.pt, r.pt.base, &(struct mf_entry){MF_ENTRY_BACKGROUND, 99, true}, NULL, &old), 0);
	TAP_OK(is_entry(old, MF_ENTRY_BACKGROUND, 0, false) && digest(&r) == before);
	uniform_end(&r, uniform.pfn);
	rig_close(&r);
}

TAP_TEST(too_few_frames_change_nothing)
{
	for_each_paging(every_small_bag_changes_nothing);
}

#define EXCHANGE_PANICS(r, va, ...)                                                                               \
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_exchange(&(r)->pt, va, &(struct mf_entry){__VA_ARGS__}, &(r)->bag,    \
						     &(struct mf_entry){0}),                                      \
				 0)))

TAP_TEST(broken_contracts_panic)
{
	struct rig r;
	uint64_t before;
	mf_pfn_t frame = FRAME, two[2] = {FRAME, FRAME + 1}, old[2], block = 512, spare, uniform, table;
	uintptr_t base, end;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	base = r.pt.base;
	end = base + r.pt.size_bytes;
	uniform = uniform_new(&r, FRAME);
	exchange_drawn(&r, base, MF_ENTRY_UNIFORM, uniform, false);
	TAP_EQ(map_drawn(&r, base + span_of(&r), 0, two, 2, MF_PROT_WRITE), 0);
	TAP_REQUIRE(mf_pgtable_table(&r.pt, base + span_of(&r), 0, &table));
	spare = frame_new(&r);
	before = digest(&r);

	/* In a uniform table, in a shared one, outside, across two. */
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&r.pt, base, 0, two, 2, MF_PROT_READ, NULL), 0)));
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_map(&r.pt, base, 1, &block, 1, MF_PROT_READ, &r.bag), 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&r.pt, base, 0, 2, old, &r.bag)));
	TAP_OK(TAP_PANICS(mf_pgtable_clear(&r.pt, base, 1, 1, old, &r.bag)));
	TAP_OK(TAP_PANICS(TAP_EQ(mf_pgtable_protect(&r.pt, base + 9, MF_PROT_WRITE), 0)));
	TAP_OK(TAP_PANICS(mf_pgtable_replace(&r.pt, base, FRAME)));
	TAP_OK(TAP_PANICS(mf_pgtable_move(&r.pt, base, 0, spare)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, base, two, 1, 2, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, base + 2 * span_of(&r), two, 1, 2, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, base + span_of(&r) + 1, two, 1, 2, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, slot(&r, 1023), two, 1, 2, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, slot(&r, 512), two, 1, 0, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, end, two, 1, 2, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_entry(&r.pt, end)));

	/* Frames. */
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, slot(&r, 512), &r.pt.zero, 0, 1, MF_PROT_READ, NULL)));
	two[1] = (mf_pfn_t)1 << 40;
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, slot(&r, 512), two, 1, 2, MF_PROT_READ, NULL)));
	TAP_OK(TAP_PANICS(mf_pgtable_switch(&r.pt, slot(&r, 512), &frame, 0, 2, MF_PROT_WRITE, NULL)));
	EXCHANGE_PANICS(&r, base, MF_ENTRY_LEAF, 513, false);
	EXCHANGE_PANICS(&r, base, MF_ENTRY_LEAF, 0, false); /* the block that the zero frame lies in */
	EXCHANGE_PANICS(&r, base, MF_ENTRY_TABLE, uniform, false);
	EXCHANGE_PANICS(&r, base, MF_ENTRY_UNIFORM, table, false);
	EXCHANGE_PANICS(&r, base, MF_ENTRY_TABLE, r.pt.shared[0], false);
	EXCHANGE_PANICS(&r, slot(&r, 1), MF_ENTRY_UNIFORM, uniform, false);
	EXCHANGE_PANICS(&r, end, MF_ENTRY_UNIFORM, uniform, false);
	TAP_OK(TAP_PANICS(mf_pgtable_unfill(&r.pt, table)));
	TAP_EQ(digest(&r), before);

	/* A spare frame, which it may spoil. */
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_LEAF, FRAME, 0, MF_PROT_READ)));
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_UNIFORM, FRAME, 0, MF_PROT_WRITE)));
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_UNIFORM, FRAME, 1, MF_PROT_READ)));
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_TABLE, FRAME, 0, MF_PROT_WRITE)));
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_TABLE, r.pt.zero - 1, 1, MF_PROT_WRITE)));
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_TABLE, ((mf_pfn_t)1 << 40) - 511, 1, MF_PROT_READ)));
	TAP_OK(TAP_PANICS(mf_pgtable_fill(&r.pt, spare, MF_ENTRY_UNIFORM, r.pt.zero, 0, MF_PROT_READ)));
	frame_end(&r, spare);

	exchange_drawn(&r, base, MF_ENTRY_BACKGROUND, 0, false);
	uniform_end(&r, uniform);
	clear_given(&r, base + span_of(&r), 0, 2);

	/* Under a giant leaf. */
	TAP_EQ(map_drawn(&r, base, 2, &(mf_pfn_t){1 << 18}, 1, MF_PROT_READ), 0);
	EXCHANGE_PANICS(&r, base, MF_ENTRY_LEAF, 512, false);
	EXCHANGE_PANICS(&r, base, MF_ENTRY_BACKGROUND, 0, false);
	clear_given(&r, base, 2, 1);
	rig_close(&r);
}

TAP_TEST(unfilled_table_is_uniform_no_more)
{
	struct rig r;
	mf_pfn_t table;

	rig_open(&r, mf_paging_arm64(12, 2), MF_PGTABLE_SHARE);
	table = uniform_new(&r, FRAME);
	mf_pgtable_unfill(&r.pt, table);
	TAP_OK(!r.flat.read_only[table]);
	TAP_OK(TAP_PANICS(mf_pgtable_unfill(&r.pt, table)));
	EXCHANGE_PANICS(&r, r.pt.base, MF_ENTRY_UNIFORM, table, false);
	/* No leaf can stand at level 1 of this machine. */
	EXCHANGE_PANICS(&r, r.pt.base, MF_ENTRY_LEAF, 512, false);
	frame_end(&r, table);
	rig_close(&r);
}

/* The last block of the range is cut off. */
TAP_TEST(exchange_needs_all_of_the_entry_in_the_range)
{
	struct rig r = {0};
	uintptr_t base = (uintptr_t)0xffff800000000000;
	mf_pfn_t table;

	TAP_REQUIRE(flat_machine_create(&r.flat, mf_paging_x86_64(4), NR_FRAMES) == 0);
	draw(&r, 5);
	TAP_EQ(mf_pgtable_init(&r.pt, &r.flat.machine, MF_PGTABLE_SHARE, base, (4 << 20) - 4096, &r.bag), 0);
	table = uniform_new(&r, FRAME);
	EXCHANGE_PANICS(&r, base + span_of(&r), MF_ENTRY_UNIFORM, table, false);
	exchange_drawn(&r, base, MF_ENTRY_UNIFORM, table, false);
	TAP_OK(is_sound(&r, 1));
	exchange_drawn(&r, base, MF_ENTRY_BACKGROUND, 0, false);
	uniform_end(&r, table);
	rig_close(&r);
}

/* ---- Laws broken on purpose ------------------------------------------------------------------------------------ */

static bool finding_is(struct rig *r, const char *start)
{
	char text[200];
	const char *finding = mf_pgtable_check(&r->pt, text, sizeof(text));

	TAP_NOTE("found: %s", finding ? finding : "nothing");
	return finding && strncmp(finding, start, strlen(start)) == 0;
}

static void check_with(struct rig *r, mf_pfn_t table, unsigned i, uint64_t flip, const char *expected)
{
	frame_words(r, table)[i] ^= flip;
	TAP_OK(finding_is(r, expected));
	frame_words(r, table)[i] ^= flip;
	TAP_OK(is_sound(r, 1));
}

static void flip_all(struct rig *r, mf_pfn_t table, uint64_t flip)
{
	for (unsigned i = 0; i < fanout_of(r); i++)
		frame_words(r, table)[i] ^= flip;
}

TAP_TEST(check_names_what_is_broken)
{
	struct rig r;
	const struct mf_paging *p;
	mf_pfn_t uniform, table, upper;
	uint64_t soft_one, soft_all, writable, one_frame;
	unsigned mark = 0;

	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
	p = &r.flat.machine.paging;
	uniform = uniform_new(&r, FRAME);
	exchange_drawn(&r, r.pt.base, MF_ENTRY_UNIFORM, uniform, false);
	table = entry_new(&r, MF_ENTRY_TABLE, 0).pfn;
	exchange_drawn(&r, r.pt.base + span_of(&r), MF_ENTRY_TABLE, table, false);
	TAP_REQUIRE(mf_pgtable_table(&r.pt, r.pt.base, 1, &upper));
	TAP_OK(is_sound(&r, 1));
	soft_one = (uint64_t)1 << p->soft_shift;
	soft_all = ((1u << p->soft_bits) - 1) * soft_one;
	writable = p->write_set;
	one_frame = (uint64_t)1 << p->page_shift;
	for (unsigned i = 2; i < fanout_of(&r) && mark == 0; i++)
		mark = (frame_words(&r, uniform)[i] & soft_all) == soft_all ? i : 0;
	TAP_REQUIRE(mark != 0);

	check_with(&r, uniform, 300, one_frame, "M6: entry 300 of the uniform table");
	check_with(&r, uniform, 300, writable, "M6: entry 300 of the uniform table");
	check_with(&r, uniform, 0, one_frame, "M6: entry 1 of the uniform table");
	check_with(&r, uniform, 511, 1, "M6: entry 511 of the uniform table");
	check_with(&r, uniform, 0, soft_one, "M8: the uniform table");
	check_with(&r, uniform, 511, soft_one, "M8: entry 511 of the uniform table");
	check_with(&r, uniform, mark, soft_one, "M8: entry 15 of the uniform table");
	/* Without its mark it passes for a private table, which is one too many. */
	check_with(&r, uniform, mark, soft_all, "M8: 1 private tables of level 0 are counted and 2");
	/* And the reverse, in a table that is full of one frame, read-only; or one that is not. */
	check_with(&r, table, mark, soft_all, "M8: 1 private tables of level 0 are counted and 0");
	check_with(&r, table, mark, soft_one, "M8: entry 15 of the uniform table");
	check_with(&r, upper, mark, soft_all, "M8: entry 15 of the table of level 1");
	/* All alike, and wrong all the same. */
	flip_all(&r, uniform, writable);
	TAP_OK(finding_is(&r, "M6: the uniform table at 0xffff800000000000 is writable"));
	flip_all(&r, uniform, writable);
	flip_all(&r, uniform, (FRAME ^ r.pt.zero) << p->page_shift);
	TAP_OK(finding_is(&r, "M6: leaf"));
	flip_all(&r, uniform, (FRAME ^ r.pt.zero) << p->page_shift);
	TAP_OK(is_sound(&r, 1));

	/* One writable slot with aliases is what some diets are; two neighbours are none. */
	TAP_EQ(mf_pgtable_protect(&r.pt, slot(&r, 512 + 7), MF_PROT_WRITE), 0);
	check_with(&r, table, 8, writable, "M6: entries 7 and 8 of the table at 0xffff800000200000 write");

	TAP_EQ(exchange_drawn(&r, r.pt.base + span_of(&r), MF_ENTRY_BACKGROUND, 0, false).pfn, table);
	frame_end(&r, table);
	exchange_drawn(&r, r.pt.base, MF_ENTRY_BACKGROUND, 0, false);
	uniform_end(&r, uniform);
	rig_close(&r);
}

TAP_MAIN()
