/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_set.c - fold sets: only slots of a GiB with users keep a block that has none; other slots move.
 *
 * Tables that move, regions and zones: test_exhaustion.c.  Moves with a step left out: tests/laws/test_laws_move.c.
 * Random states until one contradicts: test_set_random.c.
 */
#include "tests/lib/chain.h"
#include "tests/lib/saboteur.h"
#include "tests/tap.h"

#include <memfold/sim.h>

#include "core/frames/zone.h"

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

static struct mf_map_stats stats_of(struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats;
}

static void fold_all(struct world *w)
{
	TAP_EQ(mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(world_check(w));
}

/* How many slots of `gib` lie in frames of `host`. */
static unsigned slots_in(struct world *w, mf_pfn_t gib, mf_pfn_t host)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		nr += mf_round_down(chain_slot(w, gib, i), G) == host;
	return nr;
}

/* ---- Where slots go --------------------------------------------------------------------------------------------- */

TAP_TEST(slots_of_a_gib_without_users_move_to_the_pool)
{
	static const char *const machines[] = { "sim", "sim-5" };

	for (unsigned i = 0; i < 2; i++) {
		struct mf_map_stats before, after;
		struct mf_folio *folio;
		uint64_t nr = 0;
		struct chain c;

		TAP_REQUIRE(chain_open(&c, &(struct chain_config){ .world.machine = machines[i] }));
		before = stats_of(&c.w);
		TAP_EQ(before.nr_split[2], 4);
		fold_all(&c.w);
		after = stats_of(&c.w);
		TAP_OK(!chain_is_split(&c.w, c.a));
		TAP_EQ(after.nr_split[2], 2);
		TAP_EQ(after.nr_set_aside, 1);
		TAP_EQ(after.nr_ram, before.nr_ram);
		TAP_EQ(slots_in(&c.w, c.b, c.b), MF_BLOCK_SLOTS);
		TAP_EQ(slots_in(&c.w, c.d, c.b), MF_BLOCK_SLOTS);
		/* B serves again, all but the set-aside block. */
		while ((folio = world_alloc(&c.w, 9)) != NULL && mf_round_down(mf_folio_pfn(c.w.map, folio), G) == c.b)
			nr++;
		TAP_EQ(nr, 511);
		TAP_OK(world_check(&c.w));
		TAP_OK(chain_close(&c));
	}
}

TAP_TEST(slots_move_to_ram_when_the_pool_is_short)
{
	struct mf_map_stats before, after;
	uint64_t first_ram, nr_pool;
	struct chain c;

	TAP_REQUIRE(chain_open(&c, &(struct chain_config){ .pool_is_short = true }));
	before = stats_of(&c.w);
	nr_pool = c.set_aside->nr_free;
	TAP_OK(nr_pool > 0 && nr_pool < MF_BLOCK_SLOTS);
	first_ram = c.first_ram;
	fold_all(&c.w);
	after = stats_of(&c.w);
	TAP_OK(!chain_is_split(&c.w, c.a) && chain_is_split(&c.w, c.b));
	TAP_EQ(c.set_aside->nr_free, 0);
	TAP_EQ(after.nr_ram - before.nr_ram, MF_BLOCK_SLOTS + (after.tables_moved - before.tables_moved) - nr_pool);
	/* With D the rest goes, RAM as well. */
	chain_put(&c.w, 0, CHAIN_GIBS * G, NULL);
	fold_all(&c.w);
	after = stats_of(&c.w);
	TAP_EQ(after.nr_split[2], 0);
	TAP_EQ(after.nr_ram, first_ram);
	TAP_OK(world_close(&c.w));
}

TAP_TEST(without_a_frame_for_them_slots_stay)
{
	enum { RAM_MAX = 1 << 16 };
	static mf_pfn_t ram[RAM_MAX];
	struct mf_machine *m;
	struct chain c;
	unsigned nr = 0;

	TAP_REQUIRE(chain_open(&c, &(struct chain_config){ .pool_is_short = true, .world.nr_ram_frames = 200 }));
	m = c.w.machine;
	while (nr < RAM_MAX && m->ops->ram_get(m, 0, 0, &ram[nr]) == 0)
		nr++;
	TAP_OK(nr > 0 && nr < RAM_MAX);
	fold_all(&c.w);
	TAP_EQ(slots_in(&c.w, c.b, c.a), MF_BLOCK_SLOTS);
	TAP_EQ(stats_of(&c.w).nr_split[2], 3);
	while (nr > 0)
		m->ops->ram_put(m, 0, 0, ram[--nr]);
	fold_all(&c.w);
	TAP_OK(!chain_is_split(&c.w, c.a));
	TAP_OK(chain_close(&c));
}

/* ---- When they move --------------------------------------------------------------------------------------------- */

TAP_TEST(slots_of_a_gib_with_users_stay)
{
	static const unsigned orders[] = { 0, 3, 9, 17 };

	for (unsigned i = 0; i < 4; i++) {
		struct mf_folio *folio;
		struct chain c;

		TAP_REQUIRE(chain_open(&c, &(struct chain_config){ 0 }));
		do
			folio = world_alloc(&c.w, orders[i]);
		while (folio && mf_round_down(mf_folio_pfn(c.w.map, folio), G) != c.b);
		TAP_REQUIRE(folio);
		chain_put(&c.w, 0, c.d, folio);
		chain_put(&c.w, c.d + G, CHAIN_GIBS * G, folio);
		fold_all(&c.w);
		TAP_EQ(slots_in(&c.w, c.b, c.a), MF_BLOCK_SLOTS);
		TAP_OK(chain_is_split(&c.w, c.a));
		mf_folio_put(c.w.map, folio);
		fold_all(&c.w);
		TAP_OK(!chain_is_split(&c.w, c.a));
		TAP_OK(chain_close(&c));
	}
}

/* A whole GiB is wanted: the fold that an allocation makes moves slots, too. */
TAP_TEST(slots_move_for_an_allocation)
{
	struct chain c;
	unsigned nr = 0;

	TAP_REQUIRE(chain_open(&c, &(struct chain_config){ 0 }));
	while (world_alloc(&c.w, 18))
		nr++;
	TAP_EQ(nr, 2);
	TAP_OK(!chain_is_split(&c.w, c.a));
	TAP_OK(world_check(&c.w));
	TAP_OK(chain_close(&c));
}

/* One GiB without users is kept split: the first of the list, and its slots are in A.  A goes all the same. */
TAP_TEST(slots_of_a_gib_that_is_kept_move)
{
	struct mf_page *top;
	struct chain c;

	TAP_REQUIRE(chain_open(&c, &(struct chain_config){ 0 }));
	top = map_record(c.w.map, 2, c.a);
	mf_list_remove(&top->list);
	mf_list_push_back(&c.w.map->zone[0]->split_top, &top->list);
	TAP_OK(fold_one(c.w.map->zone[0], 0)); /* else that is kept, and B with it */
	TAP_EQ(mf_fold(c.w.map, MF_ANY_NODE, MF_FOLD_KEEP, NULL), 0);
	TAP_OK(world_check(&c.w));
	TAP_OK(!chain_is_split(&c.w, c.a));
	TAP_EQ(stats_of(&c.w).nr_split[2], 3);
	fold_all(&c.w);
	TAP_EQ(stats_of(&c.w).nr_split[2], 2);
	TAP_OK(chain_close(&c));
}

/* ---- What others do meanwhile ------------------------------------------------------------------------------------ */

/* A machine whose flush lets another processor look, and give a frame back, before it is done. */
struct meanwhile {
	struct saboteur machine;
	struct mf_machine_ops ops;
	const struct mf_machine_ops *own;
	struct chain c;
	mf_pfn_t claimed;
	unsigned nr_moves;
};

static struct meanwhile meanwhile;

static void look_at_b(struct mf_map *map)
{
	for (mf_pfn_t pfn = meanwhile.c.b; pfn < meanwhile.c.b + G; pfn += B) {
		struct mf_page *page = map_record(map, 1, pfn);

		TAP_OK(!mf_pfn_try_get(map, pfn));
		TAP_OK(mf_page_kind(page) == MF_KIND_SPLIT || mf_pfn_folio(map, pfn) == (struct mf_folio *)page);
		TAP_OK(mf_page_folio(map, mf_pfn_to_page(map, pfn)) == mf_pfn_folio(map, pfn));
	}
}

static void act(struct mf_map *map)
{
	struct mf_page *block = meanwhile.c.set_aside;
	unsigned nr_map = block->nr_map;
	struct mf_folio *folio;

	look_at_b(map);
	for (unsigned order = 0; order <= 18; order += 9)
		TAP_EQ(mf_folio_alloc(map, MF_ANY_NODE, order, MF_ALLOC_NOWAIT, &folio), -MF_ENOMEM);
	pool_put(map, 0, meanwhile.claimed);
	TAP_EQ(block->nr_map, nr_map);
	look_at_b(map);
}

static unsigned flush_and_act(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct mf_map *map = meanwhile.c.w.map;

	if (map->zone[0]->move && meanwhile.nr_moves++ == 0) {
		meanwhile.machine.cpu = 1;
		act(map);
		meanwhile.machine.cpu = 0;
	}
	return meanwhile.own->flush(m, start, size_bytes, scope);
}

TAP_TEST(nobody_takes_or_gives_while_slots_move)
{
	struct world_config world = { .wrap = saboteur_wrap, .wrap_ctx = &meanwhile.machine };
	struct chain *c = &meanwhile.c;
	struct mf_machine *m;

	meanwhile.machine.nr_cpus = 2;
	TAP_REQUIRE(chain_open(c, &(struct chain_config){ .world = world }));
	m = c->w.machine;
	meanwhile.own = m->ops;
	meanwhile.ops = *m->ops;
	meanwhile.ops.flush = flush_and_act;
	meanwhile.claimed = chain_claim(c);
	m->ops = &meanwhile.ops;
	fold_all(&c->w);
	m->ops = meanwhile.own;
	TAP_EQ(meanwhile.nr_moves, 1);
	TAP_OK(!chain_is_split(&c->w, c->a));
	TAP_EQ(mf_page_kind(map_record(c->w.map, 0, meanwhile.claimed)), MF_KIND_FREE);
	TAP_OK(chain_close(c));
}

TAP_MAIN()
