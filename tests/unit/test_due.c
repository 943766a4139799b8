/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_due.c - flushes that are due: what each change notes, which flush meets it, and what panics until one has.
 *
 * By hand on the tables of a map; the map's own flushes are the business of every other test, and of
 * tests/metal/test_flush.c.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

static struct world w;
static mf_pfn_t frame[3]; /* of RAM                                                                       */

static uintptr_t slot(unsigned i)
{
	return (uintptr_t)mf_pfn_to_page(w.map, G) + i * 4096;
}

static bool begin(void)
{
	if (!world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .will_break = true }))
		return false;
	for (unsigned i = 0; i < 3; i++)
		if (ram_get(w.map, 0, 0, &frame[i]) != 0)
			return false;
	return true;
}

/* Frames in slots 0 and 1 of W_0 under GiB 1, where nothing is; flushed. */
static void map_two(void)
{
	struct mf_bag tables = { 0 };

	TAP_EQ(ram_fill(w.map, 0, &tables, 3), 0);
	TAP_EQ(mf_pgtable_map(&w.map->pgtable, slot(0), 0, frame, 2, MF_PROT_WRITE, &tables), 0);
	window_flush(w.map, MF_FLUSH_FOR_ADD, slot(0), 2 * 4096, MF_FLUSH_TABLES);
	ram_empty(w.map, 0, &tables);
}

static void flush(unsigned first, unsigned nr, enum mf_flush_scope scope)
{
	window_flush(w.map, MF_FLUSH_FOR_ADD, slot(first), nr * (uint64_t)4096, scope);
}

static bool is_due(void)
{
	char text[160];

	return map_is_due(w.map, text, sizeof(text));
}

static struct due_counts counts(void)
{
	return due_counts(w.machine, map_due(w.map));
}

TAP_TEST(a_slot_that_appears_is_due_until_it_is_flushed)
{
	struct mf_bag tables = { 0 };

	TAP_REQUIRE(begin());
	TAP_EQ(ram_fill(w.map, 0, &tables, 3), 0);
	TAP_EQ(mf_pgtable_map(&w.map->pgtable, slot(0), 0, frame, 2, MF_PROT_WRITE, &tables), 0);
	TAP_OK(is_due());
	TAP_OK(TAP_PANICS(map_rely(w.map, slot(1), 64)));
	/* The tables that came are due with it. */
	flush(0, 2, MF_FLUSH_LEAVES);
	TAP_OK(is_due());
	flush(0, 1, MF_FLUSH_TABLES);
	TAP_OK(!is_due());
	map_rely(w.map, slot(0), 2 * 4096);
	world_abandon(&w);
}

TAP_TEST(a_frame_goes_back_after_the_flush)
{
	TAP_REQUIRE(begin());
	map_two();
	TAP_EQ(mf_pgtable_replace(&w.map->pgtable, slot(1), frame[2]), frame[1]);
	TAP_OK(TAP_PANICS(ram_put(w.map, 0, 0, frame[1])));
	flush(0, 1, MF_FLUSH_TABLES);
	TAP_OK(TAP_PANICS(ram_put(w.map, 0, 0, frame[1])));
	flush(1, 1, MF_FLUSH_LEAVES);
	ram_put(w.map, 0, 0, frame[1]);
	world_abandon(&w);
}

TAP_TEST(a_table_goes_back_after_a_flush_of_tables)
{
	struct mf_bag out = { 0 };
	mf_pfn_t old[2];

	TAP_REQUIRE(begin());
	map_two();
	mf_pgtable_clear(&w.map->pgtable, slot(0), 0, 2, old, &out);
	TAP_OK(out.nr > 0);
	flush(0, 2, MF_FLUSH_LEAVES);
	ram_put(w.map, 0, 0, old[0]);
	TAP_OK(TAP_PANICS(ram_put(w.map, 0, 0, out.pfn[0])));
	/* Some address of it will do: what the others say stays the same. */
	flush(7, 1, MF_FLUSH_TABLES);
	ram_empty(w.map, 0, &out);
	TAP_OK(!is_due());
	world_abandon(&w);
}

/* Its copy translates as it did, so slots below it may be relied on at once; its frame waits. */
TAP_TEST(a_table_that_moves_is_due_in_all_of_its_range)
{
	mf_pfn_t old;

	TAP_REQUIRE(begin());
	map_two();
	old = mf_pgtable_move(&w.map->pgtable, slot(0), 0, frame[2]);
	map_rely(w.map, slot(0), 2 * 4096);
	TAP_OK(is_due());
	flush(0, 2, MF_FLUSH_TABLES);
	TAP_OK(TAP_PANICS(ram_put(w.map, 0, 0, old)));
	flush(0, 512, MF_FLUSH_TABLES);
	ram_put(w.map, 0, 0, old);
	world_abandon(&w);
}

/* One that began before the change may have been over before it. */
TAP_TEST(a_flush_that_began_before_meets_nothing)
{
	uint64_t begun;

	TAP_REQUIRE(begin());
	map_two();
	begun = due_flush_begin(w.machine, map_due(w.map));
	TAP_EQ(mf_pgtable_protect(&w.map->pgtable, slot(0), MF_PROT_READ), 0);
	due_flush_end(w.machine, map_due(w.map), begun, MF_FLUSH_FOR_ADD, slot(0), 4096, MF_FLUSH_TABLES);
	TAP_OK(is_due());
	flush(0, 1, MF_FLUSH_LEAVES);
	TAP_OK(!is_due());
	world_abandon(&w);
}

/* What is noted in a row is met in pieces. */
TAP_TEST(a_run_is_met_in_pieces)
{
	mf_pfn_t shown = 0, old[8];
	struct mf_bag out = { 0 };

	TAP_REQUIRE(begin());
	map_two();
	shown = frame[2];
	mf_pgtable_switch(&w.map->pgtable, slot(2), &shown, 0, 8, MF_PROT_READ, NULL);
	flush(2, 8, MF_FLUSH_LEAVES);
	mf_pgtable_clear(&w.map->pgtable, slot(2), 0, 8, old, &out);
	flush(4, 3, MF_FLUSH_LEAVES);
	map_rely(w.map, slot(4), 3 * 4096);
	TAP_OK(TAP_PANICS(map_rely(w.map, slot(3), 4096)));
	TAP_OK(TAP_PANICS(map_rely(w.map, slot(7), 4096)));
	flush(2, 2, MF_FLUSH_LEAVES);
	/* All of them led to it. */
	TAP_OK(TAP_PANICS(ram_put(w.map, 0, 0, shown)));
	flush(7, 3, MF_FLUSH_LEAVES);
	ram_put(w.map, 0, 0, shown);
	world_abandon(&w);
}

TAP_TEST(a_needless_flush_is_counted)
{
	struct due_counts before;

	TAP_REQUIRE(begin());
	map_two();
	before = counts();
	flush(0, 2, MF_FLUSH_TABLES);
	TAP_EQ(counts().sent, before.sent + 1);
	TAP_EQ(counts().needless, before.needless + 1);
	TAP_EQ(due_needless(w.machine, map_due(w.map), MF_FLUSH_FOR_ADD), 1);
	world_abandon(&w);
}

/* More changes, none beside the one before, than there is room for: counted, not watched; those before them are. */
TAP_TEST(what_finds_no_room_is_counted)
{
	TAP_REQUIRE(begin());
	map_two();
	for (unsigned i = 0; i < DUE_RUNS_MAX; i++)
		TAP_EQ(mf_pgtable_protect(&w.map->pgtable, slot(0), i % 2 ? MF_PROT_WRITE : MF_PROT_READ), 0);
	TAP_EQ(counts().overflowed, 0);
	TAP_EQ(mf_pgtable_protect(&w.map->pgtable, slot(0), MF_PROT_READ), 0);
	TAP_EQ(counts().overflowed, 1);
	flush(0, 2, MF_FLUSH_LEAVES);
	TAP_OK(!is_due());
	world_abandon(&w);
}

/* Found by the check, when nothing else is wrong. */
TAP_TEST(m5_what_is_due_is_found)
{
	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add_flat(&w, 0, G), 0);
	TAP_EQ(mf_pgtable_protect(&w.map->pgtable, (uintptr_t)mf_pfn_to_page(w.map, 0), MF_PROT_WRITE), 0);
	TAP_OK(world_broken_law(&w)[1] == '5');
	window_flush(w.map, MF_FLUSH_FOR_ADD, (uintptr_t)mf_pfn_to_page(w.map, 0), 2 * MF_MIB, MF_FLUSH_LEAVES);
	TAP_OK(world_check(&w));
	TAP_EQ(counts().overflowed, 0);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
