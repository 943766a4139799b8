/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_exhaustion.c - map frames run out: what is cached, or idle in blocks that fold, still serves; empty memory can
 * always be removed; zones that share page tables fold and leave in any order.
 *
 * What a zone gives with map frames at hand: test_frames.c.  The n-th allocation fails: tests/failure.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>

#include "core/frames/zone.h"

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

static bool open_with(struct world *w, const char *machine, mf_pfn_t nr_frames, uint64_t nr_ram, enum mf_source source)
{
	const struct mf_region_config region = {
		.end_pfn = nr_frames,
		.source = source,
		.nr_altmap = source == MF_SOURCE_ALTMAP ? B : 0,
	};
	const struct world_config config = { .machine = machine, .nr_frames = nr_frames, .nr_ram_frames = nr_ram };

	return world_open(w, &config) && world_add_region(w, &region, NULL) == 0;
}

static struct mf_zone_info zone_of(struct world *w, unsigned id)
{
	struct mf_zone_info info = { 0 };

	TAP_EQ(mf_zone_info(w->map, id, &info), 0);
	return info;
}

static struct mf_map_stats stats_of(struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats;
}

/* Takes folios of one order until there is none; how many. */
static uint64_t take_all(struct world *w, unsigned order)
{
	uint64_t nr = 0;

	while (world_alloc(w, order))
		nr++;
	return nr;
}

/* Puts the folios of this order that lie in [start, end), but one; how many. */
static uint64_t put_all(struct world *w, mf_pfn_t start, mf_pfn_t end, unsigned order, const struct mf_folio *keep)
{
	struct mf_folio *folio;
	uint64_t nr = 0;
	mf_pfn_t next;

	for (; (folio = mf_folio_next(w->map, start, end, &next)) != NULL; start = next) {
		if (folio == keep || mf_folio_order(folio) != order)
			continue;
		mf_folio_put(w->map, folio);
		nr++;
	}
	return nr;
}

/* Everything in use goes back, and the world ends. */
static bool put_and_close(struct world *w, mf_pfn_t end)
{
	struct mf_folio *folio;
	mf_pfn_t start = 0, next;

	for (; (folio = mf_folio_next(w->map, start, end, &next)) != NULL; start = next)
		mf_folio_put(w->map, folio);
	return world_close(w);
}

/* ---- No map frame is to be had ---------------------------------------------------------------------------------- */

enum { FAMINE_MAX = 1024 };

/* Source RAM is taken away, on linux the host's memory. */
struct famine {
	mf_pfn_t frame[FAMINE_MAX];
	unsigned nr;
	const struct mf_machine_ops *ops;
	struct mf_machine_ops failing;
};

static int failing_populate(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	(void)m;
	(void)addr;
	(void)size_bytes;
	return -MF_ENOMEM;
}

static void famine_begin(struct famine *f, struct world *w)
{
	struct mf_machine *m = w->machine;

	f->nr = 0;
	f->ops = m->ops;
	if (w->sim) {
		while (f->nr < FAMINE_MAX && m->ops->ram_get(m, 0, 0, &f->frame[f->nr]) == 0)
			f->nr++;
		TAP_OK(f->nr < FAMINE_MAX);
		return;
	}
	f->failing = *m->ops;
	f->failing.host_populate = failing_populate;
	m->ops = &f->failing;
}

static void famine_end(struct famine *f, struct world *w)
{
	w->machine->ops = f->ops;
	while (f->nr > 0)
		f->ops->ram_put(w->machine, 0, 0, f->frame[--f->nr]);
}

static const char *const two_machines[] = { "sim", "linux", NULL };

/* A whole GiB cannot be unfolded; the block next to 511 folios is idle. */
TAP_TEST(an_idle_block_serves_when_no_map_frame_is_left)
{
	for (unsigned i = 0; two_machines[i]; i++) {
		struct mf_folio *base;
		struct famine famine;
		struct world w;

		TAP_REQUIRE(open_with(&w, two_machines[i], 2 * G, 400, MF_SOURCE_RAM));
		base = world_alloc(&w, 0);
		TAP_REQUIRE(base);
		for (unsigned n = 0; n < 511; n++)
			TAP_OK(world_alloc(&w, 9));
		mf_folio_put(w.map, base);
		TAP_EQ(mf_drain(w.map), 0);
		TAP_EQ(zone_of(&w, 0).nr_foldable[1], 1);
		TAP_EQ(stats_of(&w).nr_split[2], 1);
		famine_begin(&famine, &w);
		TAP_OK(world_alloc(&w, 9));
		TAP_OK(world_check(&w));
		famine_end(&famine, &w);
		TAP_OK(put_and_close(&w, 2 * G));
	}
}

/* Every other frame is in use, and no whole block can be unfolded. */
static void cached_frames_serve(const char *machine, enum mf_source source)
{
	struct famine famine;
	struct mf_folio *base;
	mf_pfn_t start, at;
	struct world w;

	TAP_REQUIRE(open_with(&w, machine, 2 * G, 800, source));
	base = world_alloc(&w, 0);
	TAP_REQUIRE(base);
	start = mf_round_down(mf_folio_pfn(w.map, base), B) + 64;
	if (source == MF_SOURCE_ALTMAP)
		TAP_EQ(take_all(&w, 0), 64 * B - 1);
	famine_begin(&famine, &w);
	if (source != MF_SOURCE_ALTMAP)
		TAP_EQ(take_all(&w, 0), B - 1);
	for (at = start; at < start + 40; at++)
		mf_folio_put(w.map, mf_pfn_folio(w.map, at));
	TAP_EQ(zone_of(&w, 0).nr_cached, 40);
	for (unsigned n = 0; n < 5; n++)
		TAP_OK(world_alloc(&w, 3));
	TAP_OK(!world_alloc(&w, 3));
	TAP_OK(world_check(&w));
	famine_end(&famine, &w);
	TAP_OK(put_and_close(&w, 2 * G));
}

TAP_TEST(cached_frames_serve_when_no_map_frame_is_left)
{
	cached_frames_serve("sim", MF_SOURCE_RAM);
	cached_frames_serve("sim", MF_SOURCE_ALTMAP);
	cached_frames_serve("linux", MF_SOURCE_RAM);
}

/* ---- A folio in use is split ------------------------------------------------------------------------------------ */

TAP_TEST(a_split_in_use_takes_frames_from_the_caches)
{
	struct mf_folio *folio[1024];
	struct world w;
	unsigned nr = 0;

	TAP_REQUIRE(open_with(&w, "sim", 2 * G, 400, MF_SOURCE_SELF));
	while (nr < 1024 && (folio[nr] = world_alloc(&w, 9)) != NULL)
		nr++;
	TAP_REQUIRE(nr > 1000 && nr < 1024);
	TAP_OK(take_all(&w, 0) > 0);
	for (unsigned i = 0; i < 7; i++)
		mf_folio_put(w.map, folio[--nr]);
	TAP_EQ(zone_of(&w, 0).nr_cached, 7 * B);
	TAP_EQ(zone_of(&w, 0).nr_pool_idle, 0);
	TAP_EQ(mf_folio_split(w.map, folio[0], 0), 0);
	TAP_OK(world_check(&w));
	TAP_OK(put_and_close(&w, 2 * G));
}

/* The only free frames are those of a block that is split and idle; some of them are cached. */
TAP_TEST(a_split_in_use_folds_an_idle_block_for_its_frames)
{
	struct mf_folio *first, *last = NULL, *folio;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_with(&w, "sim", 2 * G, 400, MF_SOURCE_SELF));
	first = world_alloc(&w, 9);
	TAP_REQUIRE(first);
	while ((folio = world_alloc(&w, 9)) != NULL)
		last = folio;
	TAP_REQUIRE(last);
	pfn = mf_folio_pfn(w.map, last);
	mf_folio_put(w.map, last);
	/* The pool still has tables for the block, so it is not set aside. */
	TAP_OK(take_all(&w, 0) > B - MF_BLOCK_SLOTS);
	TAP_EQ(put_all(&w, pfn, pfn + B, 0, NULL), B - MF_BLOCK_SLOTS);
	TAP_EQ(zone_of(&w, 0).nr_pool_idle, 0);
	TAP_EQ(zone_of(&w, 0).nr_free, B - MF_BLOCK_SLOTS);
	TAP_OK(zone_of(&w, 0).nr_cached > 0);
	TAP_EQ(mf_folio_split(w.map, first, 0), 0);
	TAP_OK(world_check(&w));
	TAP_OK(put_and_close(&w, 2 * G));
}

/* RAM, or the reserve, has gone into slots of blocks that nobody uses any more. */
TAP_TEST(a_split_in_use_folds_idle_blocks_for_ram_and_altmap)
{
	static const struct {
		enum mf_source source;
		uint64_t nr_ram;
	} rows[] = { { MF_SOURCE_RAM, 70 }, { MF_SOURCE_ALTMAP, 200 } };

	for (unsigned i = 0; i < 2; i++) {
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(open_with(&w, "sim", 2 * G, rows[i].nr_ram, rows[i].source));
		folio = world_alloc(&w, 9);
		TAP_REQUIRE(folio);
		TAP_OK(take_all(&w, 0) >= B);
		TAP_OK(put_all(&w, 0, 2 * G, 0, NULL) >= B);
		TAP_EQ(mf_folio_split(w.map, folio, 0), 0);
		TAP_OK(world_check(&w));
		TAP_OK(put_and_close(&w, 2 * G));
	}
}

/* ---- Regions that share page tables ----------------------------------------------------------------------------- */

/* Both in one zone; frames of the first back the tables through which a block of the second is reached. */
TAP_TEST(an_empty_region_goes_when_its_frames_back_tables_of_its_zone)
{
	const mf_pfn_t middle = G / 8;
	struct mf_region_config a = { .end_pfn = middle, .top = 1 };
	struct mf_region_config b = { .start_pfn = middle, .end_pfn = G / 4, .top = 1 };
	struct mf_folio *folio, *keep;
	struct world w;
	unsigned id;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add_region(&w, &a, &id), 0);
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	TAP_EQ(world_add_region(&w, &b, NULL), 0);
	/* The first block is set aside, the second gave the base page. */
	TAP_EQ(take_all(&w, 9), G / 4 / B - 2);
	mf_folio_put(w.map, mf_pfn_folio(w.map, middle));
	TAP_EQ(mf_drain(w.map), 0);
	do
		keep = world_alloc(&w, 0);
	while (keep && mf_folio_pfn(w.map, keep) < middle);
	TAP_REQUIRE(keep);
	put_all(&w, 0, G / 4, 0, keep);
	put_all(&w, 0, G / 4, 9, NULL);
	TAP_EQ(mf_region_remove(w.map, id), 0);
	TAP_OK(world_check(&w));
	TAP_OK(mf_pfn_folio(w.map, mf_folio_pfn(w.map, keep)) == keep);
	TAP_OK(put_and_close(&w, G / 4));
}

/* Half a GiB each, on two nodes, with a base page of both handed out. */
struct halves {
	struct world w;
	unsigned id[2];
	struct mf_folio *folio[2];
	struct mf_map_stats first; /* before any was                                                          */
};

static bool halves_open(struct halves *h)
{
	if (!world_open(&h->w, &(struct world_config){ .nr_frames = 256 * G, .nr_ram_frames = 4000 }))
		return false;
	for (unsigned node = 0; node < 2; node++) {
		mf_pfn_t start = node * G / 2;
		struct mf_region_config half = { .start_pfn = start, .end_pfn = start + G / 2, .node = node };

		if (world_add_region(&h->w, &half, &h->id[node]) != 0)
			return false;
	}
	h->first = stats_of(&h->w);
	for (unsigned node = 0; node < 2; node++)
		if (mf_folio_alloc(h->w.map, (int)node, 0, MF_ALLOC_THIS_NODE, &h->folio[node]) != 0)
			return false;
	return true;
}

TAP_TEST(an_empty_region_goes_when_its_frames_back_tables_of_another_zone)
{
	for (unsigned gone = 0; gone < 2; gone++) {
		struct mf_folio *keep;
		struct halves h;

		TAP_REQUIRE(halves_open(&h));
		keep = h.folio[!gone];
		mf_folio_put(h.w.map, h.folio[gone]);
		TAP_EQ(mf_region_remove(h.w.map, h.id[gone]), 0);
		TAP_OK(world_check(&h.w));
		TAP_OK(mf_pfn_folio(h.w.map, mf_folio_pfn(h.w.map, keep)) == keep);
		TAP_OK(put_and_close(&h.w, G));
	}
}

TAP_TEST(a_region_goes_when_nobody_uses_anything)
{
	for (unsigned gone = 0; gone < 2; gone++) {
		struct halves h;

		TAP_REQUIRE(halves_open(&h));
		mf_folio_put(h.w.map, h.folio[0]);
		mf_folio_put(h.w.map, h.folio[1]);
		TAP_EQ(mf_region_remove(h.w.map, h.id[gone]), 0);
		TAP_OK(world_check(&h.w));
		TAP_OK(world_close(&h.w));
	}
}

TAP_TEST(one_fold_of_all_nodes_returns_the_map_to_its_first_state)
{
	struct mf_map_stats now;
	struct halves h;
	uint64_t nr;

	TAP_REQUIRE(halves_open(&h));
	mf_folio_put(h.w.map, h.folio[0]);
	mf_folio_put(h.w.map, h.folio[1]);
	TAP_EQ(mf_fold(h.w.map, MF_ANY_NODE, MF_FOLD_ALL, &nr), 0);
	TAP_EQ(nr, 4); /* on each node a set-aside block and the one beside it */
	now = stats_of(&h.w);
	TAP_EQ(now.nr_free, h.first.nr_free);
	TAP_EQ(now.nr_map, h.first.nr_map);
	TAP_EQ(now.nr_slots, h.first.nr_slots);
	TAP_EQ(now.nr_tables, h.first.nr_tables);
	TAP_EQ(now.nr_ram, h.first.nr_ram);
	TAP_EQ(now.nr_set_aside, 0);
	TAP_EQ(now.nr_split[1], h.first.nr_split[1]);
	TAP_EQ(now.nr_split[2], h.first.nr_split[2]);
	TAP_EQ(mf_fold(h.w.map, MF_ANY_NODE, MF_FOLD_ALL, &nr), 0);
	TAP_EQ(nr, 0);
	TAP_OK(world_close(&h.w));
}

/* ---- The rest --------------------------------------------------------------------------------------------------- */

/*
 * What a flat region of 16 TiB is given online as, one block of order 32, is halved.  Only the descriptors that are
 * written exist: the heads of the block and of its upper half.
 */
TAP_TEST(a_block_of_16_tib_on_tier_0_is_halved)
{
	const unsigned order = 32;
	const mf_pfn_t half = (mf_pfn_t)1 << (order - 1);
	struct mf_page *head, *upper;
	struct mf_zone *zone;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "linux", .nr_frames = 2 * half }));
	TAP_EQ(world_add_flat(&w, 0, G), 0);
	zone = w.map->zone[0];
	head = map_record(w.map, 0, 0);
	upper = map_record(w.map, 0, half);
	TAP_EQ(w.machine->ops->host_populate(w.machine, upper, (uint64_t)1 << w.machine->paging.page_shift), 0);
	zone_lock(zone);
	zone_remove(zone, head);
	zone_insert(zone, 0, 0, order);
	TAP_EQ(zone->area[ZONE_NORMAL].nr_frames, 2 * half);
	TAP_OK(zone_take_on(zone, ZONE_NORMAL, 0, order - 1) == head);
	TAP_EQ(zone->area[ZONE_NORMAL].nr_frames, half);
	TAP_EQ(mf_word_order(mf_page_word(upper)), order - 1);
	TAP_OK(zone->area[ZONE_NORMAL].list[0][order - 1].next == &upper->list);
	zone_remove(zone, upper);
	map_set_word(upper, 0);
	zone_insert(zone, 0, 0, mf_log2(G));
	zone_unlock(zone);
	w.machine->ops->host_discard(w.machine, upper, (uint64_t)1 << w.machine->paging.page_shift);
	TAP_OK(world_close(&w));
}

/* The first zone's idle map frames are for its map, and for users when no zone of the node has anything else. */
TAP_TEST(another_zones_free_memory_comes_before_the_map_pool)
{
	struct mf_region_config ram = { .start_pfn = G, .end_pfn = 3 * G, .source = MF_SOURCE_RAM };
	struct mf_folio *folio;
	uint64_t pool, nr = 0;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, G), 0);
	TAP_EQ(world_add_region(&w, &ram, NULL), 0);
	do
		folio = world_alloc(&w, 9);
	while (folio && mf_folio_pfn(w.map, folio) < G);
	TAP_REQUIRE(folio);
	pool = zone_of(&w, 0).nr_pool_idle;
	TAP_OK(pool > 0);
	for (unsigned i = 0; i < 600; i++) {
		folio = world_alloc(&w, 0);
		nr += folio && mf_folio_pfn(w.map, folio) >= G;
	}
	TAP_EQ(nr, 600);
	TAP_EQ(zone_of(&w, 0).nr_pool_idle, pool);
	folio = mf_pfn_folio(w.map, G - B);
	TAP_EQ(mf_folio_split(w.map, folio, 0), 0);
	TAP_OK(take_all(&w, 9) > 0);
	TAP_OK(take_all(&w, 0) > 0);
	TAP_EQ(zone_of(&w, 0).nr_pool_idle, 0);
	TAP_OK(put_and_close(&w, 3 * G));
}

TAP_TEST(any_node_and_this_node_contradict_each_other)
{
	static const unsigned orders[] = { 0, 9, 1, 18 };
	struct mf_folio *folio = NULL;
	struct world w;

	TAP_REQUIRE(open_with(&w, "sim", 2 * G, 0, MF_SOURCE_SELF));
	/* Once with empty caches, once with something in each. */
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
			TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, orders[i], MF_ALLOC_THIS_NODE, &folio), -MF_EINVAL);
			TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, orders[i], MF_ALLOC_FLAGS_ALL, &folio), -MF_EINVAL);
			TAP_OK(!folio);
		}
		mf_folio_put(w.map, world_alloc(&w, 0));
		mf_folio_put(w.map, world_alloc(&w, 9));
	}
	TAP_EQ(mf_folio_alloc(w.map, 0, 0, MF_ALLOC_FLAGS_ALL, &folio), 0);
	TAP_OK(put_and_close(&w, 2 * G));
}

TAP_TEST(foldable_blocks_are_counted_where_the_top_is_the_lowest_tier)
{
	struct mf_region_config ram = { .end_pfn = 2 * G, .source = MF_SOURCE_RAM };
	struct mf_folio *folio;
	struct world w;
	uint64_t nr;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .top = 1 }));
	TAP_EQ(world_add_region(&w, &ram, NULL), 0);
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	TAP_EQ(zone_of(&w, 0).nr_foldable[1], 0);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_drain(w.map), 0);
	TAP_EQ(zone_of(&w, 0).nr_foldable[1], 1);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, &nr), 0);
	TAP_EQ(nr, 1);
	TAP_EQ(zone_of(&w, 0).nr_foldable[1], 0);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
