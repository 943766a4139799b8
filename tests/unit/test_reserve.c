/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_reserve.c - frames of a region that are kept for its map: an altmap, a flat region on its own frames; and maps
 * that share no tables, with every layout and source.
 *
 * Each is added and removed at odd places; what the reserve's frames answer, what is missing when it is too small, and
 * what is left when the n-th allocation fails: nothing.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>
#include <stdlib.h>

#include "core/memmap/map.h"

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

enum { SPAN_GIB = 4 };

#define FLAT_SELF(from, to) { .start_pfn = (from), .end_pfn = (to), .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_SELF }
#define FLAT_ALTMAP(from, to, nr)                                                                      \
	{ .start_pfn = (from), .end_pfn = (to), .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_ALTMAP, \
	  .nr_altmap = (nr) }
#define ALTMAP(from, to, nr) { .start_pfn = (from), .end_pfn = (to), .source = MF_SOURCE_ALTMAP, .nr_altmap = (nr) }
#define PLAIN(layout_, source_, from, to) \
	{ .start_pfn = (from), .end_pfn = (to), .layout = (layout_), .source = (source_) }

static const struct place {
	const char *name;
	struct mf_region_config config;
} places[] = {
	{ "flat self, one GiB", FLAT_SELF(0, G) },
	{ "flat self, two GiB and odd ends", FLAT_SELF(G - 777, 3 * G + 5) },
	{ "flat self, inside one block", FLAT_SELF(1000, 1010) },
	{ "flat self, one frame", FLAT_SELF(G - 1, G) },
	{ "flat self, one block", FLAT_SELF(B, 2 * B) },
	{ "flat self, across a block border", FLAT_SELF(B - 1, B + 1) },
	{ "flat self, a block with an edge before it", FLAT_SELF(B - 3, 2 * B) },
	{ "flat self, to the end of the span", FLAT_SELF(SPAN_GIB * G - 3 * B - 1, SPAN_GIB * G) },
	{ "flat altmap, more than it needs", FLAT_ALTMAP(G, G + 100 * B, 2 * B) },
	{ "flat altmap, just what it needs", FLAT_ALTMAP(G + 1, G + 1 + 100 * B, 99 * MF_BLOCK_SLOTS) },
	{ "flat altmap, across a GiB border", FLAT_ALTMAP(G - 5 * B, G + 200 * B, 4 * B) },
	{ "altmap, one block", ALTMAP(G, 2 * G, B) },
	{ "altmap, odd end", ALTMAP(G + B, 2 * G + 7 * B + 3, 3 * B) },
	{ "altmap, the reserve is a whole GiB", ALTMAP(0, 2 * G, G) },
	{ "altmap, the reserve ends at a GiB border", ALTMAP(G - 4 * B, 2 * G, 4 * B) },
	{ "altmap, the reserve reaches across a GiB border", ALTMAP(G - 2 * B, 3 * G, 5 * B) },
	{ "altmap, all but the last block", ALTMAP(B, 9 * B, 7 * B) },
};

enum { NR_PLACES = sizeof(places) / sizeof(places[0]) };

static bool open_span(struct world *w, enum mf_map_flags flags)
{
	return world_open(w, &(struct world_config){ .nr_frames = SPAN_GIB * G, .flags = flags });
}

/* Slots of W_0 for the whole blocks of tier 1: what a flat region takes from its own frames. */
static uint64_t flat_slots(const struct mf_region_config *c)
{
	mf_pfn_t first = mf_round_up(c->start_pfn, B), last = mf_round_down(c->end_pfn, B);

	return last > first ? (last - first) / B * MF_BLOCK_SLOTS : 0;
}

static uint64_t reserve_frames(const struct mf_region_config *c)
{
	return c->source == MF_SOURCE_ALTMAP ? c->nr_altmap : flat_slots(c);
}

/* ---- What the frames answer -------------------------------------------------------------------------------------- */

/* From above and from below alike; the kinds of the reserve's frames counted. */
static bool answers(const struct world *w, const struct mf_region_config *c, uint64_t *nr_map, uint64_t *nr_reserved)
{
	mf_pfn_t end = c->start_pfn + reserve_frames(c);
	bool good = true;

	*nr_map = *nr_reserved = 0;
	for (mf_pfn_t pfn = c->start_pfn; pfn < end && good; pfn += 1) {
		struct mf_folio *above = mf_pfn_folio(w->map, pfn);
		enum mf_kind kind = above ? mf_page_kind(&above->page) : MF_KIND_NONE;
		uint64_t step = c->layout == MF_LAYOUT_FLAT ? 1 : B;

		good = above && above == mf_page_folio(w->map, mf_pfn_to_page(w->map, pfn)) &&
		       mf_pfn_is_valid(w->map, pfn) && !mf_pfn_try_get(w->map, pfn);
		*nr_map += kind == MF_KIND_MAP ? step : 0;
		*nr_reserved += kind == MF_KIND_RESERVED ? step : 0;
		pfn += step - 1; /* a tiered one's blocks are looked at once */
	}
	return good;
}

static bool place_is_right(struct world *w, const struct mf_region_config *c)
{
	uint64_t nr = reserve_frames(c), nr_map, nr_reserved;
	uint64_t want = c->layout == MF_LAYOUT_FLAT ? flat_slots(c) : 0;
	struct mf_map_stats stats;

	if (!answers(w, c, &nr_map, &nr_reserved) || nr_map != want || nr_map + nr_reserved != nr) {
		TAP_NOTE("%llu map frames, %llu reserved, of %llu", (unsigned long long)nr_map,
			 (unsigned long long)nr_reserved, (unsigned long long)nr);
		return false;
	}
	mf_map_stats(w->map, &stats);
	return world_check(w) && stats.nr_free == c->end_pfn - c->start_pfn - nr && stats.nr_map == want;
}

/* R-MEM-22, R-MEM-24, R-MEM-36, R-MEM-41, R-SCN-9 */
TAP_TEST(reserve_is_kept_wherever_the_region_lies)
{
	for (unsigned i = 0; i < NR_PLACES; i++) {
		uint64_t ram, digest;
		struct world w;
		unsigned id;

		TAP_REQUIRE(open_span(&w, MF_MAP_SHARE_TABLES));
		ram = mf_sim_ram_used(w.sim);
		digest = mf_map_digest(w.map);
		for (unsigned round = 0; round < 2; round++) {
			bool good = world_add_region(&w, &places[i].config, &id) == 0;

			TAP_REQUIRE(good);
			good = place_is_right(&w, &places[i].config);
			if (!good)
				TAP_NOTE("%s", places[i].name);
			TAP_OK(good);
			TAP_EQ(mf_region_remove(w.map, id), 0);
			TAP_EQ(mf_sim_ram_used(w.sim), ram);
			TAP_EQ(mf_map_digest(w.map), digest);
			TAP_OK(world_check(&w));
		}
		TAP_OK(world_close(&w));
	}
}

/* A tiered neighbour in the same blocks, before and behind. */
TAP_TEST(reserve_has_neighbours_in_its_blocks)
{
	const struct mf_region_config before = { .start_pfn = 0, .end_pfn = G - 700 };
	const struct mf_region_config flat = FLAT_SELF(G - 700, G + 20 * B + 100);
	const struct mf_region_config behind = { .start_pfn = G + 20 * B + 100, .end_pfn = 2 * G };
	unsigned id[3];
	struct world w;

	TAP_REQUIRE(open_span(&w, MF_MAP_SHARE_TABLES));
	TAP_EQ(world_add_region(&w, &before, &id[0]), 0);
	TAP_EQ(world_add_region(&w, &flat, &id[1]), 0);
	TAP_EQ(world_add_region(&w, &behind, &id[2]), 0);
	TAP_OK(world_check(&w));
	TAP_EQ(mf_region_remove(w.map, id[0]), 0);
	TAP_OK(world_check(&w));
	TAP_EQ(mf_region_remove(w.map, id[1]), 0);
	TAP_OK(world_check(&w));
	TAP_EQ(world_add_region(&w, &flat, &id[1]), 0);
	TAP_OK(world_close(&w));
}

/* ---- Too small --------------------------------------------------------------------------------------------------- */

/* R-MEM-14, R-SCN-9 */
TAP_TEST(reserve_that_cannot_be_is_refused)
{
	static const struct {
		struct mf_region_config config;
		int err;
	} refused[] = {
		{ FLAT_ALTMAP(G, G + 100 * B, 100 * MF_BLOCK_SLOTS - 1), -MF_ENOMEM },
		{ FLAT_ALTMAP(G, G + 100 * B, 1), -MF_ENOMEM },
		{ FLAT_ALTMAP(G, G + 100 * B, 100 * B), -MF_EINVAL },
		{ FLAT_ALTMAP(G, G + 100 * B, 101 * B), -MF_EINVAL },
		{ FLAT_ALTMAP(G, G + 100 * B, UINT64_MAX), -MF_EINVAL },
		{ FLAT_ALTMAP(G, G + 100 * B, 0), -MF_EINVAL },
		{ ALTMAP(G, G + 100 * B, 0), -MF_EINVAL },
		{ ALTMAP(G, G + 100 * B, 100), -MF_EINVAL },
		{ ALTMAP(G + 1, G + 100 * B, B), -MF_EINVAL },
		{ ALTMAP(G, G + 100 * B, 100 * B), -MF_EINVAL },
	};
	uint64_t digest, ram;
	struct world w;

	TAP_REQUIRE(open_span(&w, MF_MAP_SHARE_TABLES));
	digest = mf_map_digest(w.map);
	ram = mf_sim_ram_used(w.sim);
	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		TAP_EQ(world_add_region(&w, &refused[i].config, NULL), refused[i].err);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
		TAP_OK(world_check(&w));
	}
	TAP_OK(world_close(&w));
}

static uint64_t take_base_pages(struct world *w, struct mf_folio **folio, uint64_t nr_max)
{
	uint64_t nr = 0;

	while (nr < nr_max && (folio[nr] = world_alloc(w, 0)) != NULL)
		nr++;
	return nr;
}

/* A reserve of two blocks serves 2 * 64 blocks, all of them in full, and then no more. */
TAP_TEST(altmap_runs_out_and_is_whole_again)
{
	enum { NR_BLOCKS = 2 * 64 };
	const struct mf_region_config config = ALTMAP(G, 2 * G, 2 * B);
	struct mf_folio **folio = calloc(G, sizeof(struct mf_folio *)), *large, *more;
	uint64_t digest, nr, ram;
	struct world w;

	TAP_REQUIRE(folio && open_span(&w, MF_MAP_SHARE_TABLES));
	TAP_EQ(world_add_region(&w, &config, NULL), 0);
	ram = mf_sim_ram_used(w.sim);
	for (unsigned round = 0; round < 3; round++) {
		struct mf_map_stats stats;

		nr = take_base_pages(&w, folio, G);
		TAP_EQ(nr, NR_BLOCKS * B);
		digest = mf_map_digest(w.map);
		TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, 0, MF_ALLOC_WAIT, &more), -MF_ENOMEM);
		TAP_EQ(mf_folio_alloc(w.map, MF_ANY_NODE, 8, MF_ALLOC_WAIT, &more), -MF_ENOMEM);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_OK(world_check(&w));
		/* What needs no slots is there. */
		large = world_alloc(&w, 9);
		TAP_OK(large != NULL);
		while (nr > 0)
			mf_folio_put(w.map, folio[--nr]);
		mf_folio_put(w.map, large);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
		mf_map_stats(w.map, &stats);
		TAP_EQ(stats.nr_free, G - 2 * B);
		TAP_OK(world_check(&w));
	}
	free(folio);
	TAP_OK(world_close(&w));
}

/* ---- No table shared --------------------------------------------------------------------------------------------- */

/* Tables of all levels on the way to the region's descriptors, on every tier; windows lie one behind the other. */
static uint64_t tables_of(const struct world *w, const struct mf_region_config *c)
{
	const struct mf_paging *p = &w->machine->paging;
	uint64_t nr = 0;

	for (unsigned level = 0; level + 1 < p->levels; level++) {
		uint64_t span = mf_pgtable_span(p, level + 1);
		uintptr_t next = 0;

		for (unsigned tier = 0; tier <= 2; tier++) {
			uintptr_t va = (uintptr_t)map_record(w->map, tier, c->start_pfn) & ~(span - 1);
			uintptr_t last = (uintptr_t)map_record(w->map, tier, c->end_pfn - 1) & ~(span - 1);

			for (va = mf_max(va, next); va <= last; va += span)
				nr++;
			next = mf_max(next, last + span);
		}
	}
	return nr;
}

static bool nothing_is_shared(const struct world *w, const struct mf_region_config *c)
{
	for (unsigned tier = 0; tier <= 2; tier++) {
		uintptr_t va = (uintptr_t)map_record(w->map, tier, c->start_pfn);
		uintptr_t last = (uintptr_t)map_record(w->map, tier, c->end_pfn - 1);
		mf_pfn_t table;

		for (;; va = mf_min(va + mf_pgtable_span(&w->machine->paging, 1), last)) {
			if (!mf_pgtable_table(&w->map->pgtable, va, 0, &table))
				return false;
			if (va == last)
				break;
		}
	}
	return true;
}

static const struct mf_region_config unshared[] = {
	PLAIN(MF_LAYOUT_TIERED, MF_SOURCE_RAM, 0, 2 * G),
	PLAIN(MF_LAYOUT_TIERED, MF_SOURCE_RAM, G - 1000, 2 * G + 77),
	PLAIN(MF_LAYOUT_FLAT, MF_SOURCE_RAM, G, 2 * G),
	PLAIN(MF_LAYOUT_FLAT, MF_SOURCE_RAM, G - 5 * B - 9, G + 3),
	ALTMAP(G, 2 * G, B),
	ALTMAP(G - 3 * B, G + 40 * B + 5, 4 * B),
	FLAT_ALTMAP(G, G + 100 * B, 2 * B),
	FLAT_SELF(G, 2 * G),
	FLAT_SELF(G - 777, G + 30 * B + 5),
	PLAIN(MF_LAYOUT_TIERED, MF_SOURCE_SELF, 0, 2 * G),
	PLAIN(MF_LAYOUT_TIERED, MF_SOURCE_SELF, G - 1000, 2 * G + 77),
};

static void hold_unshared(const struct mf_region_config *config)
{
	struct mf_map_stats before, stats;
	struct mf_folio *folio[600];
	struct world w;
	unsigned id;

	TAP_REQUIRE(open_span(&w, MF_MAP_PRIVATE_TABLES));
	mf_map_stats(w.map, &before);
	TAP_REQUIRE(world_add_region(&w, config, &id) == 0);
	TAP_OK(nothing_is_shared(&w, config));
	mf_map_stats(w.map, &stats);
	TAP_EQ(stats.nr_tables, before.nr_tables + tables_of(&w, config));
	TAP_OK(world_check(&w));
	for (unsigned i = 0; i < 600; i++)
		folio[i] = world_alloc(&w, 0);
	TAP_OK(folio[599] && nothing_is_shared(&w, config) && world_check(&w));
	mf_map_stats(w.map, &before);
	TAP_EQ(before.nr_tables, stats.nr_tables);
	for (unsigned i = 0; i < 600; i++)
		if (folio[i])
			mf_folio_put(w.map, folio[i]);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(nothing_is_shared(&w, config) && world_check(&w));
	TAP_EQ(mf_region_remove(w.map, id), 0);
	TAP_OK(world_check(&w));
	TAP_OK(world_close(&w));
}

TAP_TEST(unshared_tables_are_private_throughout)
{
	for (unsigned i = 0; i < sizeof(unshared) / sizeof(unshared[0]); i++)
		hold_unshared(&unshared[i]);
}

/* ---- The n-th allocation fails ----------------------------------------------------------------------------------- */

static const struct mf_region_config failing[] = {
	FLAT_SELF(B - 30, 5 * B + 7),
	FLAT_SELF(G - 2 * B - 1, G + 3 * B),
	FLAT_ALTMAP(G + 5, G + 9 * B, B),
	ALTMAP(G, G + 9 * B + 3, 2 * B),
	ALTMAP(G - B, 2 * G, B),
	PLAIN(MF_LAYOUT_TIERED, MF_SOURCE_RAM, G - 5, G + 3 * B),
	PLAIN(MF_LAYOUT_FLAT, MF_SOURCE_RAM, G - 5, G + 3 * B),
};

/* An unshared map may keep tables that it made private; world_close() sees that they go with it. */
static void fail_adding(struct world *w, const struct mf_region_config *config, enum mf_map_flags flags)
{
	uint64_t digest = mf_map_digest(w->map), ram = mf_sim_ram_used(w->sim), n = 0;
	uint64_t kept_max = flags == MF_MAP_PRIVATE_TABLES ? tables_of(w, config) : 0;
	unsigned id;
	int err;

	do {
		mf_sim_fail_any(w->sim, ++n);
		err = world_add_region(w, config, &id);
		mf_sim_fail_any(w->sim, 0);
		if (!err)
			break;
		TAP_EQ(err, -MF_ENOMEM);
		TAP_EQ(mf_map_digest(w->map), digest);
		TAP_OK(mf_sim_ram_used(w->sim) >= ram && mf_sim_ram_used(w->sim) <= ram + kept_max);
		TAP_OK(world_check(w));
	} while (n < 10000);
	TAP_EQ(err, 0);
	TAP_OK(n > 3);
	TAP_OK(world_check(w));
}

/* Unfolding takes tables, and slots where there is no reserve, from RAM. */
static void fail_unfolding(struct world *w)
{
	struct mf_sim_stats before, after;
	uint64_t n = 0;

	do {
		uint64_t digest = mf_map_digest(w->map);
		struct mf_folio *folio;

		mf_sim_stats(w->sim, &before);
		mf_sim_fail_any(w->sim, ++n);
		folio = world_alloc(w, 0);
		mf_sim_fail_any(w->sim, 0);
		mf_sim_stats(w->sim, &after);
		if (!folio)
			TAP_EQ(mf_map_digest(w->map), digest);
		TAP_OK(world_check(w));
		if (folio)
			mf_folio_put(w->map, folio);
		TAP_EQ(mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_EQ(mf_map_digest(w->map), digest);
	} while (after.any_calls - before.any_calls >= n && n < 10000);
	TAP_OK(world_check(w));
}

static void fail_everywhere(const struct mf_region_config *config, enum mf_map_flags flags)
{
	struct world w;

	TAP_REQUIRE(open_span(&w, flags));
	fail_adding(&w, config, flags);
	fail_unfolding(&w);
	TAP_OK(world_close(&w));
}

/* R-GEN-7, R-MEM-30 */
TAP_TEST(reserve_and_failures)
{
	for (unsigned i = 0; i < sizeof(failing) / sizeof(failing[0]); i++)
		fail_everywhere(&failing[i], MF_MAP_SHARE_TABLES);
}

TAP_TEST(unshared_tables_and_failures)
{
	for (unsigned i = 0; i < sizeof(failing) / sizeof(failing[0]); i++)
		fail_everywhere(&failing[i], MF_MAP_PRIVATE_TABLES);
}

TAP_MAIN()
