/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_memmap.c - maps by themselves: creation, geometry, lookups from both sides, validity, iteration, statistics.
 *
 * Regions at odd places: test_region.c.  What is counted where much is split: test_frames_figures.c.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>
#include <string.h>

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

/* ---- Creation --------------------------------------------------------------------------------------------------- */

static struct mf_machine *bare_sim(uint64_t nr_ram_frames)
{
	struct mf_sim_config config = {
		.paging = mf_paging_x86_64(4),
		.nr_ram_frames = nr_ram_frames,
		.flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE,
	};
	struct mf_machine *m = NULL;

	TAP_EQ(mf_sim_create(&config, &m), 0);
	return m;
}

TAP_TEST(map_refuses_what_cannot_be)
{
	struct mf_machine *m = bare_sim(64);
	struct mf_map *map = NULL;
	struct refusal {
		struct mf_map_config config;
		int err;
	} refusals[] = {
		{ { .machine = NULL, .span = G }, -MF_EINVAL },
		{ { .machine = m, .span = 0 }, -MF_EINVAL },
		{ { .machine = m, .span = G, .top = 3 }, -MF_EINVAL },
		{ { .machine = m, .span = G, .top = ~0u }, -MF_EINVAL },
		{ { .machine = m, .span = G, .flags = (enum mf_map_flags)2 }, -MF_EINVAL },
		{ { .machine = m, .span = UINT64_MAX }, -MF_E2BIG },
		{ { .machine = m, .span = (uint64_t)1 << 57 }, -MF_E2BIG },
	};

	TAP_REQUIRE(m);
	TAP_EQ(mf_map_create(NULL, &map), -MF_EINVAL);
	for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		TAP_EQ(mf_map_create(&refusals[i].config, &map), refusals[i].err);
	TAP_OK(!map);
	TAP_EQ(mf_sim_ram_used(m), 0);
	mf_sim_destroy(m);
}

TAP_TEST(map_of_windows_beyond_the_addresses_is_refused)
{
	struct mf_machine *m = bare_sim(64);
	struct mf_map_config config = { .machine = m, .span = (uint64_t)1 << 50 };
	struct mf_map *map = NULL;
	struct mf_sim_stats stats;
	int err;

	TAP_REQUIRE(m);
	err = mf_map_create(&config, &map);
	TAP_OK(err == -MF_E2BIG || err == -MF_ENOMEM);
	TAP_OK(!map);
	mf_sim_stats(m, &stats);
	TAP_EQ(stats.nr_ram_used + stats.nr_meta_used, 0);
	mf_sim_destroy(m);
}

TAP_TEST(map_span_is_rounded_to_a_power_of_two_of_a_top_block)
{
	static const struct {
		mf_pfn_t span, want;
		unsigned top;
	} rows[] = {
		{ 1, G, 0 },	     { G, G, 2 },	  { G + 1, 2 * G, 2 }, { 3 * G, 4 * G, 2 },
		{ 1, B, 1 },	     { B + 1, 2 * B, 1 }, { 3 * B, 4 * B, 1 },
	};
	struct mf_machine *m = bare_sim(64);

	TAP_REQUIRE(m);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct mf_map_config config = { .machine = m, .span = rows[i].span, .top = rows[i].top };
		struct mf_map *map = NULL;

		TAP_EQ(mf_map_create(&config, &map), 0);
		TAP_REQUIRE(map);
		TAP_EQ(mf_map_geometry(map)->span, rows[i].want);
		TAP_EQ(mf_map_geometry(map)->top, rows[i].top ? rows[i].top : 2);
		TAP_EQ(mf_map_destroy(map), 0);
		TAP_EQ(mf_sim_ram_used(m), 0);
	}
	mf_sim_destroy(m);
}

TAP_TEST(map_with_a_region_is_not_destroyed)
{
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add(&w, 0, B), 0);
	TAP_OK(TAP_PANICS((void)mf_map_destroy(w.map)));
	TAP_OK(strstr(tap_state.panic, "region 0 is still in it.") != NULL);
	TAP_OK(world_close(&w));
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

TAP_TEST(layouts_and_sources_have_names)
{
	enum mf_layout layout = MF_NR_LAYOUTS;
	enum mf_source source = MF_NR_SOURCES;

	for (unsigned i = 0; i < MF_NR_LAYOUTS; i++) {
		TAP_EQ(mf_layout_by_name(mf_layout_name((enum mf_layout)i), &layout), 0);
		TAP_EQ(layout, i);
	}
	for (unsigned i = 0; i < MF_NR_SOURCES; i++) {
		TAP_EQ(mf_source_by_name(mf_source_name((enum mf_source)i), &source), 0);
		TAP_EQ(source, i);
	}
	TAP_OK(!mf_layout_name(MF_NR_LAYOUTS) && !mf_source_name(MF_NR_SOURCES));
	TAP_EQ(mf_layout_by_name("Tiered", &layout), -MF_EINVAL);
	TAP_EQ(mf_layout_by_name("tiere", &layout), -MF_EINVAL);
	TAP_EQ(mf_layout_by_name("tieredx", &layout), -MF_EINVAL);
	TAP_EQ(mf_layout_by_name("", &layout), -MF_EINVAL);
	TAP_EQ(mf_layout_by_name(NULL, &layout), -MF_EINVAL);
	TAP_EQ(mf_source_by_name("selfish", &source), -MF_EINVAL);
}

/* ---- Geometry --------------------------------------------------------------------------------------------------- */

/* No address below is touched: the arithmetic must hold at any pfn.  R-GEN-1 */
TAP_TEST(descriptors_and_pfns_convert_both_ways)
{
	for (const char *const *name = world_machines; *name; name++) {
		const struct mf_geometry *g;
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = *name, .nr_frames = (mf_pfn_t)1 << 28 }));
		g = mf_map_geometry(w.map);
		for (unsigned tier = 0; tier <= g->top; tier++) {
			for (mf_pfn_t pfn = 0, step = 1; pfn < g->span; pfn += step, step = step * 3 + 1) {
				struct mf_page *page = mf_geometry_descriptor(g, tier, pfn);
				mf_pfn_t first = pfn >> g->shift[tier] << g->shift[tier];
				uintptr_t parent = (((uintptr_t)page >> g->step) & ~(uintptr_t)63) + g->parent_add;

				TAP_EQ(mf_page_tier(w.map, page), tier);
				TAP_EQ(mf_page_to_pfn(w.map, page), first);
				if (tier < g->top)
					TAP_EQ(parent, (uintptr_t)mf_geometry_descriptor(g, tier + 1, pfn));
				else
					TAP_EQ(mf_pfn_folio(w.map, pfn), NULL);
			}
		}
		TAP_OK(mf_pfn_to_page(w.map, 4711) == mf_geometry_descriptor(g, 0, 4711));
		TAP_OK(world_close(&w));
	}
}

/* ---- Lookups ---------------------------------------------------------------------------------------------------- */

/* Every descriptor address of the folio, on every tier at or below its own, answers with the folio. */
static bool answers_everywhere(const struct world *w, const struct mf_folio *folio)
{
	const struct mf_geometry *g = mf_map_geometry(w->map);
	unsigned own = mf_word_tier(mf_page_word(&folio->page));
	mf_pfn_t pfn = mf_folio_pfn(w->map, folio), nr = mf_folio_nr_frames(folio);
	mf_pfn_t at[] = { 0, 1, nr / 3, nr / 2, nr - 1 };

	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		mf_pfn_t probe = pfn + at[i] % nr;

		if (mf_pfn_folio(w->map, probe) != folio)
			return false;
		for (unsigned tier = 0; tier <= own; tier++)
			if (mf_page_folio(w->map, mf_geometry_descriptor(g, tier, probe)) != folio)
				return false;
	}
	return true;
}

/* R-GEN-8, R-CPD-22 */
TAP_TEST(lookups_agree_from_above_and_below_at_every_tier)
{
	for (const char *const *name = world_machines; *name; name++) {
		struct world w;
		mf_pfn_t top;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = *name, .nr_frames = (mf_pfn_t)1 << 28 }));
		top = (mf_pfn_t)1 << world_block_order(&w, 2);
		TAP_EQ(world_add(&w, 0, 4 * top), 0);
		for (unsigned order = 0; order <= world_block_order(&w, 2) + 1; order++) {
			struct mf_folio *folio = world_alloc(&w, order);

			TAP_REQUIRE(folio);
			TAP_EQ(mf_folio_order(folio), order);
			TAP_EQ(mf_folio_pfn(w.map, folio) % ((mf_pfn_t)1 << order), 0);
			TAP_OK(answers_everywhere(&w, folio));
			mf_folio_put(w.map, folio);
		}
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(lookups_in_a_flat_region_start_at_any_tier)
{
	const struct mf_geometry *g;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add_flat(&w, G, 2 * G), 0);
	g = mf_map_geometry(w.map);
	folio = world_alloc(&w, 12);
	TAP_REQUIRE(folio);
	TAP_EQ(mf_word_tier(mf_page_word(&folio->page)), 0);
	for (mf_pfn_t i = 0; i < 4096; i += 7) {
		mf_pfn_t pfn = mf_folio_pfn(w.map, folio) + i;

		TAP_OK(mf_page_folio(w.map, mf_pfn_to_page(w.map, pfn)) == folio);
		TAP_OK(mf_page_folio(w.map, mf_geometry_descriptor(g, 1, pfn)) == folio);
		TAP_OK(mf_pfn_folio(w.map, pfn) == folio);
	}
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* R-MEM-8 */
TAP_TEST(a_pfn_is_valid_where_there_is_memory)
{
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_OK(!mf_pfn_is_valid(w.map, 0));
	TAP_EQ(world_add(&w, G + 100, G + 200), 0);
	TAP_EQ(world_add(&w, 2 * G, 3 * G), 0);
	for (mf_pfn_t pfn = G; pfn < G + 600; pfn++)
		TAP_EQ(mf_pfn_is_valid(w.map, pfn), pfn >= G + 100 && pfn < G + 200);
	TAP_OK(!mf_pfn_is_valid(w.map, 2 * G - 1) && mf_pfn_is_valid(w.map, 2 * G));
	TAP_OK(mf_pfn_is_valid(w.map, 3 * G - 1) && !mf_pfn_is_valid(w.map, 3 * G));
	TAP_OK(!mf_pfn_is_valid(w.map, 4 * G) && !mf_pfn_is_valid(w.map, UINT64_MAX));
	TAP_OK(world_close(&w));
}

/* ---- Iteration -------------------------------------------------------------------------------------------------- */

enum { NR_FOLIOS = 64 };

static unsigned iterate(struct world *w, mf_pfn_t pfn, mf_pfn_t end, struct mf_folio **seen)
{
	unsigned nr = 0;
	mf_pfn_t last = 0;

	for (;;) {
		struct mf_folio *folio = mf_folio_next(w->map, pfn, end, &pfn);

		if (!folio || nr == NR_FOLIOS)
			break;
		TAP_OK(nr == 0 || mf_folio_pfn(w->map, folio) > last);
		last = mf_folio_pfn(w->map, folio);
		TAP_EQ(pfn, last + mf_folio_nr_frames(folio));
		seen[nr++] = folio;
	}
	TAP_EQ(pfn, end);
	return nr;
}

TAP_TEST(iteration_finds_every_folio_once_in_order)
{
	static const unsigned orders[] = { 0, 3, 9, 12, 18, 1, 9, 0, 8, 17 };
	struct mf_folio *folio[sizeof(orders) / sizeof(orders[0])], *seen[NR_FOLIOS];
	unsigned nr = sizeof(orders) / sizeof(orders[0]);
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 16 * G }));
	TAP_EQ(world_add(&w, G + 5, 5 * G + 1000), 0);
	TAP_EQ(world_add_flat(&w, 8 * G, 9 * G), 0);
	TAP_EQ(iterate(&w, 0, 16 * G, seen), 0);
	for (unsigned i = 0; i < nr; i++) {
		folio[i] = world_alloc(&w, orders[i]);
		TAP_REQUIRE(folio[i]);
	}
	TAP_EQ(iterate(&w, 0, 16 * G, seen), nr);
	TAP_EQ(iterate(&w, 0, UINT64_MAX, seen), nr);
	for (unsigned i = 0; i < nr; i++) {
		mf_pfn_t next, first = mf_folio_pfn(w.map, folio[i]), end = first + mf_folio_nr_frames(folio[i]);

		/* From the middle of a folio, and not beyond the end. */
		TAP_OK(mf_folio_next(w.map, end - 1, end, &next) == folio[i]);
		TAP_EQ(next, end);
		TAP_OK(mf_folio_next(w.map, first, first, &next) == NULL);
		TAP_EQ(next, first);
	}
	for (unsigned i = 0; i < nr; i++)
		mf_folio_put(w.map, folio[i]);
	TAP_OK(world_close(&w));
}

/* ---- Statistics against figures counted one by one -------------------------------------------------------------- */

struct counted {
	uint64_t nr_free, nr_used, nr_map, nr_hole;
};

/* Every frame of [0, span) asked from above. */
static struct counted count_frames(const struct world *w, mf_pfn_t end)
{
	struct counted n = { 0 };

	for (mf_pfn_t pfn = 0; pfn < end; pfn++) {
		const struct mf_folio *folio = mf_pfn_folio(w->map, pfn);

		if (!folio)
			continue;
		switch (mf_page_kind(&folio->page)) {
		case MF_KIND_FREE:
			n.nr_free++;
			break;
		case MF_KIND_USED:
			n.nr_used++;
			break;
		case MF_KIND_MAP:
			n.nr_map++;
			break;
		case MF_KIND_HOLE:
			n.nr_hole++;
			break;
		default:
			TAP_OK(false);
		}
	}
	return n;
}

TAP_TEST(statistics_agree_with_a_count_of_every_frame)
{
	static const unsigned orders[] = { 0, 18, 9, 4, 10, 0, 0, 17 };
	struct mf_folio *folio[sizeof(orders) / sizeof(orders[0])];
	unsigned nr = sizeof(orders) / sizeof(orders[0]);
	struct mf_map_stats stats;
	struct counted n;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 8 * G }));
	TAP_EQ(world_add(&w, 0, 4 * G), 0);
	TAP_EQ(world_add(&w, 5 * G + 77, 6 * G - 5), 0);
	for (unsigned i = 0; i < nr; i++) {
		folio[i] = world_alloc(&w, orders[i]);
		TAP_REQUIRE(folio[i]);
	}
	mf_map_stats(w.map, &stats);
	n = count_frames(&w, 8 * G);
	TAP_EQ(stats.nr_described, 5 * G - 82);
	TAP_EQ(stats.nr_used, n.nr_used);
	TAP_EQ(stats.nr_free, n.nr_free);
	TAP_EQ(stats.nr_map, n.nr_map);
	/* From above the holes of an absent block of 2 MiB count as many frames as it has. */
	TAP_EQ(stats.nr_hole, n.nr_hole);
	TAP_EQ(n.nr_hole, 82);
	TAP_EQ(n.nr_free + n.nr_used + n.nr_map, stats.nr_described);
	TAP_EQ(stats.nr_ram, mf_sim_ram_used(w.sim));
	for (unsigned i = 0; i < nr; i++)
		mf_folio_put(w.map, folio[i]);
	TAP_OK(world_close(&w));
}

/* Four whole GiB, nothing split: one top slot, and the tables that lead to it. */
TAP_TEST(statistics_of_a_whole_map_are_known)
{
	struct mf_map_stats stats;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, 4 * G), 0);
	mf_map_stats(w.map, &stats);
	TAP_EQ(stats.nr_slots, 1);
	TAP_EQ(stats.nr_tables, 3 + 3); /* one shared and one private for each level below the root */
	TAP_EQ(stats.nr_zero, 1);
	TAP_EQ(stats.nr_ram, 1 + 6 + 1 + 1); /* the root, the tables, the zero frame, the slot */
	TAP_EQ(stats.nr_free, 4 * G);
	TAP_EQ(stats.nr_map + stats.nr_used + stats.nr_hole + stats.nr_pool_idle + stats.nr_set_aside, 0);
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++)
		TAP_EQ(stats.nr_split[tier] + stats.unfolds[tier] + stats.folds[tier], 0);
	TAP_OK(world_close(&w));
}

TAP_TEST(digest_tells_what_users_see_and_no_more)
{
	struct mf_folio *folio;
	uint64_t empty, one, held;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, 4 * G), 0);
	empty = mf_map_digest(w.map);
	folio = world_alloc(&w, 3);
	TAP_REQUIRE(folio);
	one = mf_map_digest(w.map);
	TAP_OK(one != empty);
	mf_folio_get(folio);
	held = mf_map_digest(w.map);
	TAP_OK(held != one);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_map_digest(w.map), one);
	TAP_EQ(mf_drain(w.map), 0);
	TAP_EQ(mf_map_digest(w.map), one);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_map_digest(w.map), empty);
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_EQ(mf_map_digest(w.map), empty);
	TAP_EQ(world_add(&w, 4 * G - 1, 4 * G), -MF_EEXIST);
	TAP_EQ(mf_map_digest(w.map), empty);
	TAP_OK(world_close(&w));
}

/* ---- A map with top 1, and one that shares no tables ------------------------------------------------------------ */

TAP_TEST(a_map_of_two_tiers_works)
{
	struct mf_folio *folio[11];
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 64 * B, .top = 1 }));
	TAP_EQ(world_add(&w, 3, 63 * B + 5), 0);
	TAP_OK(!world_alloc(&w, 18));
	for (unsigned order = 0; order <= 10; order++) {
		folio[order] = world_alloc(&w, order);
		TAP_REQUIRE(folio[order]);
		TAP_OK(answers_everywhere(&w, folio[order]));
		TAP_OK(world_check(&w));
	}
	for (unsigned order = 0; order <= 10; order++)
		mf_folio_put(w.map, folio[order]);
	TAP_OK(world_close(&w));
}

/* Every table under a region is there from the start, from RAM: nothing that happens below changes their number. */
TAP_TEST(a_map_of_private_tables_keeps_them)
{
	struct world_config config = { .nr_frames = 8 * G, .flags = MF_MAP_PRIVATE_TABLES };
	struct mf_map_stats first, last;
	struct mf_folio *folio;
	struct world w;
	uint64_t ram;

	TAP_REQUIRE(world_open(&w, &config));
	ram = mf_sim_ram_used(w.sim);
	TAP_EQ(world_add(&w, 1234, 2 * G), 0);
	TAP_EQ(world_add_flat(&w, 3 * G, 4 * G - 77), 0);
	mf_map_stats(w.map, &first);
	TAP_OK(first.nr_tables >= 3 * 8); /* a table of leaves for each 2 MiB of W_0, which is 16 MiB a GiB */
	for (unsigned order = 0; order < 12; order += 3) {
		folio = world_alloc(&w, order);
		TAP_REQUIRE(folio);
		TAP_OK(world_check(&w));
		mf_map_stats(w.map, &last);
		TAP_EQ(last.nr_tables, first.nr_tables);
		mf_folio_put(w.map, folio);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		TAP_OK(world_check(&w));
	}
	mf_map_stats(w.map, &last);
	TAP_EQ(last.nr_slots, first.nr_slots);
	TAP_EQ(last.nr_tables, first.nr_tables);
	TAP_EQ(mf_region_remove(w.map, 0), 0);
	TAP_EQ(mf_region_remove(w.map, 1), 0);
	/* What serves the edges of windows that others could share may stay until the map ends, and no more. */
	TAP_OK(mf_sim_ram_used(w.sim) - ram <= 3 * 2);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
