/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_contract.c - what every machine must give alike: one sequence of operations, run on each, answered the same.
 *
 * Sizes are told in tiers (a block of tier 1, twice that, ...), so that machines with other frame sizes can be
 * compared. An answer is a number: an error, a count, an order, a kind, a yes; never a pfn, since where memory comes
 * from is the machine's business.  A machine that answers otherwise is not a port.  Those that are not in one process
 * are compared by a digest, which is a comment here (tests/metal/t_metal.sh).
 *
 *   contract_diet.c   the chapters on the classic layouts
 */
#include "tests/contract/contract.h"

#include <string.h>

void say(struct transcript *t, const char *question, int64_t number)
{
	MF_PANIC_IF(t->nr == ANSWERS_MAX, "the test has room for %u answers.", (unsigned)ANSWERS_MAX);
	t->answer[t->nr++] = (struct answer){ question, number };
}

static void say_stats(struct transcript *t)
{
	struct mf_map_stats stats;

	mf_map_stats(t->w.map, &stats);
	SAY(t, stats.nr_used >> t->low_order);
	SAY(t, stats.nr_used % t->low < 64 ? stats.nr_used % t->low : 64);
	SAY(t, stats.nr_used + stats.nr_free + stats.nr_map == stats.nr_described);
	SAY(t, stats.nr_described / t->top);
	SAY(t, stats.nr_described % t->top / t->low);
	SAY(t, world_check(&t->w));
}

/* ---- The chapters ----------------------------------------------------------------------------------------------- */

static void tell_regions(struct transcript *t)
{
	struct mf_region_config c = { .start_pfn = t->top, .end_pfn = 5 * t->top };
	struct mf_region_config bad = c;
	struct mf_region_info info;
	unsigned id = 99;

	SAY(t, mf_pfn_is_valid(t->w.map, t->top));
	SAY(t, mf_region_add(t->w.map, &c, &id));
	SAY(t, id);
	SAY(t, mf_region_add(t->w.map, &c, &id));
	bad.start_pfn = bad.end_pfn;
	SAY(t, mf_region_add(t->w.map, &bad, &id));
	bad = (struct mf_region_config){ .start_pfn = 0, .end_pfn = mf_map_geometry(t->w.map)->span + 1 };
	SAY(t, mf_region_add(t->w.map, &bad, &id));
	bad = (struct mf_region_config){ .start_pfn = 0, .end_pfn = 1, .node = MF_NODES_MAX };
	SAY(t, mf_region_add(t->w.map, &bad, &id));
	bad = (struct mf_region_config){ .start_pfn = 0, .end_pfn = 1, .layout = MF_NR_LAYOUTS };
	SAY(t, mf_region_add(t->w.map, &bad, &id));
	/* Odd ends, on another node. */
	c = (struct mf_region_config){ .start_pfn = 77, .end_pfn = t->low + 5, .node = 1 };
	SAY(t, mf_region_add(t->w.map, &c, &id));
	SAY(t, id);
	c = (struct mf_region_config){ .start_pfn = 6 * t->top, .end_pfn = 6 * t->top + 3 * t->low, .node = 2,
				       .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_RAM };
	SAY(t, mf_region_add(t->w.map, &c, &id));
	SAY(t, mf_region_info(t->w.map, 1, &info));
	SAY(t, info.config.node);
	SAY(t, mf_region_info(t->w.map, 7, &info));
	SAY(t, mf_region_remove(t->w.map, 7));
	SAY(t, mf_pfn_is_valid(t->w.map, 76));
	SAY(t, mf_pfn_is_valid(t->w.map, 77));
	SAY(t, mf_pfn_is_valid(t->w.map, t->low + 4));
	SAY(t, mf_pfn_is_valid(t->w.map, t->low + 5));
	SAY(t, mf_pfn_is_valid(t->w.map, 5 * t->top - 1));
	SAY(t, mf_pfn_is_valid(t->w.map, 5 * t->top));
	SAY(t, mf_pfn_is_valid(t->w.map, UINT64_MAX));
	say_stats(t);
}

static void tell_one_folio(struct transcript *t, int node, unsigned order)
{
	struct mf_map *map = t->w.map;
	struct mf_folio *folio = NULL;
	mf_pfn_t pfn, last;

	SAY(t, mf_folio_alloc(map, node, order, MF_ALLOC_THIS_NODE, &folio));
	if (!folio)
		return;
	pfn = mf_folio_pfn(map, folio);
	last = pfn + mf_folio_nr_frames(folio) - 1;
	SAY(t, mf_folio_order(folio) == order);
	SAY(t, pfn % mf_folio_nr_frames(folio));
	SAY(t, mf_word_node(mf_page_word(&folio->page)));
	SAY(t, mf_pfn_folio(map, last) == folio);
	SAY(t, mf_page_folio(map, mf_pfn_to_page(map, last)) == folio);
	SAY(t, mf_pfn_try_get(map, last) == folio);
	SAY(t, mf_folio_try_get(map, mf_pfn_to_page(map, pfn)) == folio);
	SAY(t, mf_folio_pin(folio));
	SAY(t, mf_pfn_try_pin(map, last) == folio);
	SAY(t, mf_folio_refcount(folio));
	SAY(t, mf_folio_pincount(folio));
	SAY(t, mf_folio_freeze(folio, 5));
	mf_folio_unpin(map, folio);
	mf_folio_unpin(map, folio);
	SAY(t, mf_folio_freeze(folio, 3));
	SAY(t, mf_pfn_try_get(map, pfn) != NULL);
	mf_folio_unfreeze(folio, 2);
	mf_folio_put(map, folio);
	SAY(t, mf_folio_map_whole(folio));
	SAY(t, mf_folio_map_frames(folio, INT32_MAX));
	SAY(t, mf_folio_split(map, folio, 0));
	mf_folio_unmap_whole(folio);
	SAY(t, mf_folio_mapcount(folio));
	mf_folio_put(map, folio);
	SAY(t, mf_pfn_try_get(map, pfn) != NULL);
}

static void tell_folios(struct transcript *t)
{
	unsigned orders[] = { 0, 1, 5, t->low_order - 1, t->low_order, t->low_order + 1, t->top_order - 1, t->top_order,
			      t->top_order + 1, t->top_order + 4 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
		for (int node = 0; node < 3; node++)
			tell_one_folio(t, node, orders[i]);
	say_stats(t);
}

static unsigned nr_folios(struct transcript *t)
{
	unsigned nr = 0;
	mf_pfn_t pfn = 0;

	while (mf_folio_next(t->w.map, pfn, mf_map_geometry(t->w.map)->span, &pfn))
		nr++;
	return nr;
}

static void put_all(struct transcript *t, mf_pfn_t pfn, mf_pfn_t end)
{
	struct mf_folio *folio;

	while ((folio = mf_folio_next(t->w.map, pfn, end, &pfn)) != NULL)
		mf_folio_put(t->w.map, folio);
}

static void tell_split_and_merge(struct transcript *t, unsigned from, unsigned to)
{
	struct mf_map *map = t->w.map;
	struct mf_folio *folio = NULL, *merged = NULL;
	mf_pfn_t pfn;

	SAY(t, mf_folio_alloc(map, 0, from, MF_ALLOC_THIS_NODE, &folio));
	if (!folio)
		return;
	pfn = mf_folio_pfn(map, folio);
	SAY(t, mf_folio_split(map, folio, from));
	SAY(t, mf_folio_split(map, folio, to));
	SAY(t, nr_folios(t) == 1u << (from - to));
	SAY(t, mf_folio_order(mf_pfn_folio(map, pfn + mf_folio_nr_frames(folio))) == to);
	SAY(t, mf_folio_merge(map, pfn + 1, from, &merged));
	mf_folio_get(mf_pfn_folio(map, pfn));
	SAY(t, mf_folio_merge(map, pfn, from, &merged));
	mf_folio_put(map, mf_pfn_folio(map, pfn));
	SAY(t, mf_folio_merge(map, pfn, from, &merged));
	SAY(t, nr_folios(t));
	SAY(t, mf_folio_order(merged) == from);
	SAY(t, mf_folio_split(map, merged, to));
	mf_folio_put(map, mf_pfn_folio(map, pfn));
	SAY(t, mf_folio_merge(map, pfn, from, &merged));
	SAY(t, world_check(&t->w));
	put_all(t, pfn, pfn + ((mf_pfn_t)1 << from));
	SAY(t, nr_folios(t));
	SAY(t, world_check(&t->w));
}

static void tell_splits(struct transcript *t)
{
	tell_split_and_merge(t, 3, 0);
	tell_split_and_merge(t, t->low_order, 0);
	tell_split_and_merge(t, t->low_order, t->low_order - 1);
	tell_split_and_merge(t, t->low_order + 2, 4);
	tell_split_and_merge(t, t->top_order, t->low_order);
	tell_split_and_merge(t, t->top_order, t->top_order - 1);
	say_stats(t);
}

/* A failed call is no call. */
static void tell_failures(struct transcript *t)
{
	struct mf_map *map = t->w.map;
	struct mf_folio *folio = NULL, *none = NULL;
	uint64_t digest;

	SAY(t, mf_folio_alloc(map, 0, t->low_order, 0, &folio));
	digest = mf_map_digest(map);
	SAY(t, mf_folio_alloc(map, 0, MF_ORDERS_MAX, 0, &none));
	SAY(t, mf_folio_alloc(map, MF_NODES_MAX, 0, 0, &none));
	SAY(t, mf_folio_alloc(map, 9, 0, MF_ALLOC_THIS_NODE, &none));
	SAY(t, mf_folio_alloc(map, 0, 0, 8, &none));
	SAY(t, mf_folio_alloc(map, 0, t->top_order + 3, 0, &none));
	SAY(t, mf_region_remove(map, 0));
	SAY(t, mf_fold(map, MF_NODES_MAX, MF_FOLD_ALL, NULL));
	SAY(t, none != NULL);
	SAY(t, mf_map_digest(map) == digest);
	mf_folio_put(map, folio);
}

static void tell_the_end(struct transcript *t)
{
	struct mf_map_stats stats;
	uint64_t nr = 1;

	SAY(t, mf_drain(t->w.map));
	SAY(t, mf_fold(t->w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL));
	SAY(t, mf_fold(t->w.map, MF_ANY_NODE, MF_FOLD_ALL, &nr));
	SAY(t, nr);
	mf_map_stats(t->w.map, &stats);
	SAY(t, stats.nr_free == stats.nr_described);
	SAY(t, stats.nr_map);
	SAY(t, mf_region_remove(t->w.map, 1));
	SAY(t, mf_region_remove(t->w.map, 1));
	SAY(t, mf_pfn_is_valid(t->w.map, 100));
	SAY(t, mf_region_remove(t->w.map, 2));
	SAY(t, mf_region_remove(t->w.map, 0));
	SAY(t, mf_pfn_folio(t->w.map, t->top) == NULL);
	say_stats(t);
}

static bool tell(struct transcript *t, const char *machine)
{
	struct world_config config = {
		.machine = machine,
		.nr_frames = (mf_pfn_t)1 << 29,
		.nr_real_frames = 9 * WORLD_GIB_FRAMES, /* with frames of 4 KiB no region goes beyond */
	};

	memset(t, 0, sizeof(*t));
	if (!world_open(&t->w, &config))
		return false;
	t->low_order = world_block_order(&t->w, 1);
	t->top_order = world_block_order(&t->w, 2);
	t->low = (mf_pfn_t)1 << t->low_order;
	t->top = (mf_pfn_t)1 << t->top_order;
	tell_regions(t);
	tell_folios(t);
	tell_splits(t);
	tell_failures(t);
	tell_diets(t);
	tell_compounds(t);
	tell_the_end(t);
	return world_close(&t->w);
}

/* ---- Compared --------------------------------------------------------------------------------------------------- */

static struct transcript first, other;

static void compare(const char *name)
{
	TAP_EQ(other.nr, first.nr);
	for (unsigned i = 0; i < other.nr && i < first.nr; i++) {
		if (other.answer[i].number == first.answer[i].number)
			continue;
		TAP_NOTE("%s, answer %u: %s is %lld, on %s %lld", name, i, other.answer[i].question,
			 (long long)other.answer[i].number, world_machines[0], (long long)first.answer[i].number);
		TAP_OK(false);
	}
}

static uint64_t add_byte(uint64_t digest, uint8_t byte)
{
	return (digest ^ byte) * 0x100000001b3; /* FNV-1a */
}

static uint64_t transcript_digest(const struct transcript *t)
{
	uint64_t digest = 0xcbf29ce484222325;

	for (unsigned i = 0; i < t->nr; i++) {
		for (const char *c = t->answer[i].question; *c; c++)
			digest = add_byte(digest, (uint8_t)*c);
		for (unsigned shift = 0; shift < 64; shift += 8)
			digest = add_byte(digest, (uint8_t)((uint64_t)t->answer[i].number >> shift));
	}
	return digest;
}

/* R-GEN-2, R-HVO-4, R-HVO-11, R-HVO-12, R-HVO-13, R-HVO-14, R-HVO-43, R-DAX-7, R-DAX-31 */
TAP_TEST(every_machine_gives_the_same_answers)
{
	TAP_REQUIRE(tell(&first, world_machines[0]));
	TAP_NOTE("transcript: %u answers, digest %llx", first.nr, (unsigned long long)transcript_digest(&first));
	TAP_OK(first.nr > 1500);
	for (const char *const *name = world_machines + 1; *name; name++) {
		TAP_OK(tell(&other, *name));
		compare(*name);
	}
}

TAP_TEST(every_machine_gives_the_same_answers_twice)
{
	for (const char *const *name = world_machines; *name; name++) {
		TAP_OK(tell(&first, *name));
		TAP_OK(tell(&other, *name));
		compare(*name);
	}
}

TAP_MAIN()
