/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_frames_figures.c - what memory costs to describe, in frames counted by walking the page tables, and whether
 * it all comes back: the figures that memfold promises.
 *
 * One frame is 4 KiB.  Counted: every frame that backs a slot of a window, and every table, the shared ones and the
 * root included.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/linux.h>
#include <memfold/sim.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/frames/zone.h"

#define G WORLD_GIB_FRAMES

enum { FRAME_BYTES = 4096 };

static struct mf_folio **list_of(uint64_t nr)
{
	struct mf_folio **list = calloc(nr, sizeof(struct mf_folio *));

	MF_PANIC_IF(!list, "the test has no memory for its list of folios.");
	return list;
}

static uint64_t take(struct world *w, unsigned order, struct mf_folio **folio, uint64_t nr_max)
{
	uint64_t nr = 0;

	while (nr < nr_max && (folio[nr] = world_alloc(w, order)) != NULL)
		nr++;
	return nr;
}

static void put(struct world *w, struct mf_folio **folio, uint64_t nr)
{
	while (nr > 0)
		mf_folio_put(w->map, folio[--nr]);
}

/* ---- Frames counted by walking ---------------------------------------------------------------------------------- */

struct cost {
	uint64_t nr_slots, nr_tables;
};

static int count_private(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table)
{
	struct cost *cost = ctx;

	(void)level;
	(void)va;
	(void)pfn;
	cost->nr_tables += is_table;
	cost->nr_slots += !is_table;
	return 0;
}

/* Private tables and slots by a walk from the root; the root; one shared table for each level below it. */
static struct cost cost_of(const struct world *w)
{
	struct cost cost = { 0, 1 + w->machine->paging.levels - 1 };

	(void)mf_pgtable_for_each(&w->map->pgtable, count_private, &cost);
	return cost;
}

/* ---- What units cost -------------------------------------------------------------------------------------------- */

static const struct unit_row {
	uint64_t size_gib;
	unsigned order;
	uint64_t nr_at_least;
	double bytes_per_unit;     /* at most, slots and tables,                       */
	uint64_t constant_frames;  /* beside so many                                   */
} unit_rows[] = {
	{ 64, 9, 32760, 68, 0 },
	{ 1024, 9, 1024 * 512 - 64, 66, 0 },
	{ 64, 18, 64, 64, 24 },
	{ 1024, 18, 1024, 64, 24 },
};

TAP_TEST(units_cost_what_is_promised)
{
	for (unsigned i = 0; i < sizeof(unit_rows) / sizeof(unit_rows[0]); i++) {
		const struct unit_row *row = &unit_rows[i];
		uint64_t nr_max = row->size_gib << (18 - row->order), nr;
		struct mf_folio **folio = list_of(nr_max);
		struct cost cost;
		struct world w;
		double bytes;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = row->size_gib * G }));
		TAP_EQ(world_add(&w, 0, row->size_gib * G), 0);
		nr = take(&w, row->order, folio, nr_max);
		cost = cost_of(&w);
		bytes = (double)(cost.nr_slots + cost.nr_tables) * FRAME_BYTES;
		TAP_NOTE("%llu GiB, order %u: %llu folios, %llu slots, %llu tables, %.2f bytes each",
			 (unsigned long long)row->size_gib, row->order, (unsigned long long)nr,
			 (unsigned long long)cost.nr_slots, (unsigned long long)cost.nr_tables, bytes / (double)nr);
		TAP_OK(nr >= row->nr_at_least);
		TAP_OK(bytes - (double)row->constant_frames * FRAME_BYTES <= row->bytes_per_unit * (double)nr);
		TAP_OK(world_check(&w));
		put(&w, folio, nr);
		free(folio);
		TAP_OK(world_close(&w));
	}
}

/* The statistics call says what the walk says.  R-MEM-22 */
TAP_TEST(statistics_agree_with_a_walk_of_the_tables)
{
	static const unsigned orders[] = { 0, 3, 9, 18 };

	for (unsigned i = 0; i < 4; i++) {
		struct mf_folio *folio[512];
		struct mf_map_stats stats;
		struct cost cost;
		struct world w;
		uint64_t nr;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
		TAP_EQ(world_add(&w, 0, 4 * G), 0);
		nr = take(&w, orders[i], folio, 512);
		mf_map_stats(w.map, &stats);
		cost = cost_of(&w);
		TAP_EQ(stats.nr_slots, cost.nr_slots);
		TAP_EQ(stats.nr_tables + 1, cost.nr_tables);
		TAP_EQ(stats.nr_ram, mf_sim_ram_used(w.sim));
		/* Every slot and table is a frame of the pool, a host or RAM; beside these only the zero frame is. */
		TAP_EQ(stats.nr_slots + stats.nr_tables + 2, stats.nr_ram + stats.nr_map);
		put(&w, folio, nr);
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(four_gib_of_base_pages_leave_enough_to_use)
{
	struct mf_folio **folio = list_of(4 * G);
	struct world w;
	uint64_t nr;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, 4 * G), 0);
	nr = take(&w, 0, folio, 4 * G);
	TAP_NOTE("%.3f %% of 4 GiB usable at order 0", 100.0 * (double)nr / (double)(4 * G));
	TAP_OK((double)nr >= 0.984 * (double)(4 * G));
	TAP_OK(world_check(&w));
	put(&w, folio, nr);
	free(folio);
	TAP_OK(world_close(&w));
}

/* ---- After pressure --------------------------------------------------------------------------------------------- */

enum { PRESSURE_GIB = 6 };

static void hold_all_as_top_blocks(struct world *w, struct mf_folio **top)
{
	for (unsigned i = 0; i < PRESSURE_GIB; i++)
		top[i] = world_alloc(w, 18);
}

/* Each GiB is unfolded when nothing else is free, and used up as base pages with the pool's idle frames. */
TAP_TEST(after_pressure_every_freed_gib_is_whole_again)
{
	struct mf_folio *top[PRESSURE_GIB], **base = list_of(PRESSURE_GIB * G);
	uint64_t nr[PRESSURE_GIB + 1] = { 0 };
	bool freed[PRESSURE_GIB] = { false };
	unsigned nr_whole = 0;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = PRESSURE_GIB * G }));
	TAP_EQ(world_add(&w, 0, PRESSURE_GIB * G), 0);
	hold_all_as_top_blocks(&w, top);
	for (unsigned i = 0; i < PRESSURE_GIB; i++) {
		TAP_REQUIRE(top[i]);
		mf_folio_put(w.map, top[i]);
		nr[i + 1] = nr[i] + take(&w, 0, base + nr[i], PRESSURE_GIB * G - nr[i]);
		TAP_OK(nr[i + 1] - nr[i] > G - G / 50);
	}
	TAP_OK(world_check(&w));
	for (mf_pfn_t gib = 0; gib < PRESSURE_GIB; gib += 2)
		freed[gib] = true;
	for (uint64_t i = 0; i < nr[PRESSURE_GIB]; i++)
		if (freed[mf_folio_pfn(w.map, base[i]) / G]) {
			mf_folio_put(w.map, base[i]);
			base[i] = NULL;
		}
	TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(world_check(&w));
	while (nr_whole < PRESSURE_GIB && (top[nr_whole] = world_alloc(&w, 18)) != NULL)
		nr_whole++;
	TAP_EQ(nr_whole, PRESSURE_GIB / 2);
	TAP_OK(world_check(&w));
	put(&w, top, nr_whole);
	for (uint64_t i = 0; i < nr[PRESSURE_GIB]; i++)
		if (base[i])
			mf_folio_put(w.map, base[i]);
	free(base);
	TAP_OK(world_close(&w));
}

/* ---- Back to the first state ------------------------------------------------------------------------------------ */

/* Everything that can be compared: entries of the tables, what the map holds of RAM, the free lists. */
struct shot {
	uint64_t entries, words, nr_ram, nr_map;
	struct cost cost;
	struct mf_zone_info zone[2];
};

static int mix_entry(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table)
{
	uint64_t *sum = ctx;

	*sum = (*sum ^ va ^ pfn << 1 ^ (uint64_t)level << 60 ^ is_table) * 0x9e3779b97f4a7c15u;
	return 0;
}

static int mix_word(void *ctx, struct mf_map *map, const struct map_visit *at)
{
	uint64_t *sum = ctx;

	(void)map;
	*sum = (*sum ^ at->word ^ at->pfn * 3) * 0x9e3779b97f4a7c15u;
	return 0;
}

static struct shot shoot(struct world *w)
{
	struct shot shot = { .cost = cost_of(w) };
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	shot.nr_ram = stats.nr_ram;
	shot.nr_map = stats.nr_map;
	(void)mf_pgtable_for_each(&w->map->pgtable, mix_entry, &shot.entries);
	(void)map_walk(w->map, mix_word, &shot.words);
	for (unsigned i = 0; i < 2; i++)
		if (mf_zone_info(w->map, i, &shot.zone[i]) != 0)
			memset(&shot.zone[i], 0, sizeof(shot.zone[i]));
	return shot;
}

static void shots_equal(const struct shot *a, const struct shot *b)
{
	TAP_EQ(a->cost.nr_slots, b->cost.nr_slots);
	TAP_EQ(a->cost.nr_tables, b->cost.nr_tables);
	TAP_EQ(a->nr_ram, b->nr_ram);
	TAP_EQ(a->nr_map, b->nr_map);
	TAP_OK(a->entries == b->entries);
	TAP_OK(a->words == b->words);
	TAP_OK(memcmp(a->zone, b->zone, sizeof(a->zone)) == 0);
}

/* A small generator: the same run every time. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void churn(struct world *w, uint64_t seed, unsigned nr_steps)
{
	struct mf_folio *folio[2000] = { NULL };

	for (unsigned step = 0; step < nr_steps; step++) {
		uint64_t random = next_random(&seed);
		struct mf_folio **slot = &folio[random % 2000];
		unsigned order = (unsigned)(random >> 32) % 19;

		if (*slot)
			mf_folio_put(w->map, *slot);
		/* Seldom a large one, or nothing is left to divide. */
		*slot = *slot ? NULL : world_alloc(w, order > 10 && random >> 56 & 15 ? order - 10 : order);
	}
	TAP_OK(world_check(w));
	for (unsigned i = 0; i < 2000; i++)
		if (folio[i])
			mf_folio_put(w->map, folio[i]);
}

TAP_TEST(after_everything_the_map_is_in_its_first_state)
{
	struct shot first, last;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 16 * G }));
	TAP_EQ(world_add(&w, 1234, 5 * G), 0);
	TAP_EQ(world_add(&w, 6 * G, 9 * G + 100000), 0);
	TAP_EQ(world_add_flat(&w, 10 * G + 77, 10 * G + 50000), 0);
	first = shoot(&w);
	for (uint64_t seed = 1; seed <= 4; seed++) {
		churn(&w, seed * 7919, 10000);
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		last = shoot(&w);
		shots_equal(&first, &last);
		TAP_OK(world_check(&w));
	}
	TAP_OK(world_close(&w));
}

TAP_TEST(after_every_order_to_exhaustion_the_map_is_in_its_first_state)
{
	static const unsigned orders[] = { 0, 5, 9, 12, 17 };
	struct mf_folio **folio = list_of(3 * G);
	struct shot first, last;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 0, 3 * G), 0);
	first = shoot(&w);
	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		put(&w, folio, take(&w, orders[i], folio, 3 * G));
		TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
		last = shoot(&w);
		shots_equal(&first, &last);
	}
	free(folio);
	TAP_OK(world_close(&w));
}

/* ---- On the host ------------------------------------------------------------------------------------------------ */

/* A number of kB from a file of /proc/self, the sum of all lines that begin so. */
static uint64_t proc_bytes(const char *path, const char *field)
{
	FILE *file = fopen(path, "r");
	char line[256];
	uint64_t sum = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, field, strlen(field)) == 0)
			sum += strtoull(line + strlen(field), NULL, 10) * 1024;
	fclose(file);
	return sum;
}

static uint64_t private_bytes(void)
{
	return proc_bytes("/proc/self/smaps", "Anonymous:") + proc_bytes("/proc/self/status", "VmPTE:");
}

static void linux_unit_costs(unsigned order, uint64_t nr_max, uint64_t bytes_max)
{
	struct mf_folio **folio = list_of(nr_max);
	uint64_t before, after, nr;
	struct world w;

	memset(folio, 1, nr_max * sizeof(*folio));
	before = private_bytes();
	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "linux", .nr_frames = 1024 * G }));
	TAP_EQ(world_add(&w, 0, 1024 * G), 0);
	nr = take(&w, order, folio, nr_max);
	after = private_bytes();
	TAP_EQ(nr, nr_max);
	TAP_NOTE("1 TiB in folios of order %u: %llu KiB", order, (unsigned long long)(after - before) / 1024);
	TAP_OK(after - before <= bytes_max);
	put(&w, folio, nr);
	free(folio);
	TAP_OK(world_close(&w));
}

/* The sanitizers keep shadows of what is touched, so there the host's figures are not memfold's. */
#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

TAP_TEST(linux_describes_a_tib_in_33_mib)
{
	if (SANITIZED)
		TAP_SKIP("the sanitizer's shadow would be counted");
	linux_unit_costs(9, 1024 * 512, 33 * MF_MIB);
}

TAP_TEST(linux_describes_a_tib_of_gib_folios_in_256_kib)
{
	if (SANITIZED)
		TAP_SKIP("the sanitizer's shadow would be counted");
	linux_unit_costs(18, 1024, 256 * MF_KIB);
}

TAP_MAIN()
