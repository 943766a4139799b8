/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * instructions.c - the operations whose instructions bench/instructions.sh counts, under callgrind, on sim.
 *
 * Every bench_* and loop_* function is one question; it runs what it names NR times on memory that is mapped already.
 * What is counted is memfold: the simulated hardware (its walker and its flush) is left out by the script.  Inlined lookups are
 * counted as the difference between a loop with them and the same loop without.
 *
 * What comes before the unfolds leaves one split block under every table of the lowest level, so that the tables which
 * the unfolds need are private already; the statistics are set back there.
 */
#include <stdio.h>
#include <stdlib.h>

#include <valgrind/callgrind.h>

#include <memfold/diet.h>
#include <memfold/folio.h>
#include <memfold/sim.h>

/* A name of its own for callgrind. */
#define BENCH static __attribute__((noinline, used))

enum { NR = 1000, DIETS = 200, GIBS = 2, BLOCKS_PER_GIB = 512, HALVES_MAX = 2 * BLOCKS_PER_GIB, UNFOLDS = 200, ORDER_HALF = 8 };

static struct mf_map *map;
static struct mf_folio *half[HALVES_MAX];
static struct mf_folio *found[NR];
static struct mf_page *page[NR];
static mf_pfn_t pfn[NR];

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "instructions: %s: %s\n", what, mf_strerror(err));
	exit(1);
}

/* ---- Allocation ---------------------------- */

static inline __attribute__((always_inline)) void allocate_and_free(unsigned order)
{
	struct mf_folio *folio;

	must(mf_folio_alloc(map, 0, order, 0, &folio), "allocate");
	mf_folio_put(map, folio);
}

BENCH void bench_order_9(void)
{
	for (int i = 0; i < NR; i++)
		allocate_and_free(9);
}

BENCH void bench_order_0(void)
{
	for (int i = 0; i < NR; i++)
		allocate_and_free(0);
}

/* ---- References ---------------------------- */

BENCH void bench_get_put(struct mf_folio *folio)
{
	for (int i = 0; i < NR; i++) {
		mf_folio_get(folio);
		mf_folio_put(map, folio);
	}
}

BENCH void bench_pin_unpin(struct mf_folio *folio)
{
	for (int i = 0; i < NR; i++) {
		must(mf_folio_pin(folio), "pin");
		mf_folio_unpin(map, folio);
	}
}

BENCH void bench_try_get_put(mf_pfn_t at)
{
	for (int i = 0; i < NR; i++)
		mf_folio_put(map, mf_pfn_try_get(map, at));
}

/* ---- Lookups ---------------------------- */

/* One store, which the compiler may not make a part of a larger copy. */
static inline void keep(int i, struct mf_folio *folio)
{
	__atomic_store_n(&found[i], folio, __ATOMIC_RELAXED);
}

BENCH void loop_without_lookup(const struct mf_map *in)
{
	(void)in;
	for (int i = 0; i < NR; i++)
		keep(i, (struct mf_folio *)page[i]);
}

BENCH void loop_from_below(const struct mf_map *in)
{
	for (int i = 0; i < NR; i++)
		keep(i, mf_page_folio(in, page[i]));
}

BENCH void loop_from_above(const struct mf_map *in)
{
	for (int i = 0; i < NR; i++)
		keep(i, mf_pfn_folio(in, pfn[i]));
}

static void look_at(struct mf_page *at, mf_pfn_t at_pfn)
{
	for (int i = 0; i < NR; i++) {
		page[i] = at;
		pfn[i] = at_pfn;
	}
}

static void expect_found(const struct mf_folio *folio)
{
	for (int i = 0; i < NR; i++)
		must(found[i] == folio ? 0 : -MF_EFAULT, "a lookup found another folio");
}

BENCH void lookups_of_base_page(struct mf_folio *base)
{
	look_at(&base->page, 0);
	loop_without_lookup(map);
	loop_from_below(map);
	expect_found(base);
}

BENCH void lookups_one_tier_up(struct mf_folio *huge)
{
	look_at(mf_pfn_to_page(map, mf_folio_pfn(map, huge) + 77), 0);
	loop_from_below(map);
	expect_found(huge);
}

BENCH void lookups_from_above(struct mf_folio *gib)
{
	look_at(NULL, mf_folio_pfn(map, gib) + 12345);
	loop_from_above(map);
	expect_found(gib);
}

/* ---- Unfold and fold ---------------------------- */

static void fold_all(void)
{
	must(mf_fold(map, 0, MF_FOLD_ALL, NULL), "fold");
}

/* Of all blocks that unfold, each 32nd stays split: two under every table of 64. */
static void make_tables_private(void)
{
	unsigned nr = 0;

	while (nr < HALVES_MAX && mf_folio_alloc(map, 0, ORDER_HALF, 0, &half[nr]) == 0)
		nr++;
	for (unsigned i = 0; i < nr; i++)
		if ((mf_folio_pfn(map, half[i]) >> 9) % 32 != 0)
			mf_folio_put(map, half[i]);
	fold_all();
}

/* Half a block is what no whole one can give: two of them unfold one. */
BENCH void bench_unfold_and_fold(void)
{
	for (unsigned i = 0; i < 2 * UNFOLDS; i++)
		must(mf_folio_alloc(map, 0, ORDER_HALF, 0, &half[i]), "allocate");
	for (unsigned i = 0; i < 2 * UNFOLDS; i++)
		mf_folio_put(map, half[i]);
	fold_all();
}

static void unfold_and_fold(void)
{
	struct mf_map_stats before, after;

	make_tables_private();
	mf_map_stats(map, &before);
	CALLGRIND_ZERO_STATS;
	bench_unfold_and_fold();
	mf_map_stats(map, &after);
	printf("unfolds %llu\nfolds %llu\n", (unsigned long long)(after.unfolds[1] - before.unfolds[1]),
	       (unsigned long long)(after.folds[1] - before.folds[1]));
}

/* ---- Remap and restore ---------------------------- */

BENCH void bench_remap(void)
{
	for (int i = 0; i < DIETS; i++)
		must(mf_diet_remap(map, half[i]), "remap");
}

BENCH void bench_restore(void)
{
	for (int i = 0; i < DIETS; i++)
		must(mf_diet_restore(map, half[i]), "restore");
}

/* The first round splits the larger leaves; the second is counted, as again and again. */
static void remap_and_restore(void)
{
	for (int i = 0; i < DIETS; i++) {
		must(mf_folio_alloc(map, 0, 9, 0, &half[i]), "allocate");
		must(mf_folio_freeze(half[i], 1) ? 0 : -MF_EBUSY, "freeze");
	}
	bench_remap();
	bench_restore();
	CALLGRIND_ZERO_STATS;
	bench_remap();
	bench_restore();
	printf("diets %d\n", DIETS);
}

int main(int argc, char **argv)
{
	bool dieted = argc > 1 && argv[1][0] == 'd';
	struct mf_sim_config sim = { .paging = mf_paging_x86_64(4), .nr_frames = GIBS * (MF_GIB >> 12),
				     .nr_ram_frames = dieted ? 3 << 13 : 64 };
	struct mf_map_config config = { .span = sim.nr_frames };
	struct mf_region_config region = { .end_pfn = sim.nr_frames,
					   .layout = dieted ? MF_LAYOUT_HVO_7_1 : MF_LAYOUT_TIERED,
					   .source = dieted ? MF_SOURCE_RAM : MF_SOURCE_SELF };
	struct mf_folio *gib, *huge, *base;
	unsigned id;

	must(mf_sim_create(&sim, &config.machine), "machine");
	must(mf_map_create(&config, &map), "map");
	must(mf_region_add(map, &region, &id), "region");
	if (dieted) {
		remap_and_restore();
		return 0;
	}
	must(mf_folio_alloc(map, 0, 18, 0, &gib), "allocate");
	must(mf_folio_alloc(map, 0, 9, 0, &huge), "allocate");
	if (argc > 1 && argv[1][0] == 'u') {
		unfold_and_fold();
		return 0;
	}
	must(mf_folio_alloc(map, 0, 0, 0, &base), "allocate");
	bench_order_9();
	bench_order_0();
	bench_get_put(huge);
	bench_pin_unpin(huge);
	bench_try_get_put(mf_folio_pfn(map, huge));
	lookups_of_base_page(base);
	lookups_one_tier_up(huge);
	lookups_from_above(gib);
	printf("runs %d\n", NR);
	return 0;
}
