/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_flush.c - that each flush is sent: whatever a map does, no processor sees an old translation after a flush, nor
 * when the call has ended (flush_look.h), and none was due that was not sent (core/pgtable/due.h).  t_flush.sh takes
 * one flush after the other out of the core, and this must fail.
 *
 * Who notices that a flush is left out:
 *
 *   processors   whatever makes an entry lead elsewhere, or read-only
 *   the dues     that, and what no processor here can show: a table that goes, comes or moves while all that it says
 *                stays the same (the emulator keeps no inner entries); a leaf that becomes a table; a slot that
 *                becomes writable (a processor looks again before it faults); the end of a map (the machine drops the
 *                window by itself); slots behind which another flush follows at once (the emulator drops more than it
 *                is asked to: the seed of an unfold, a set that has too many frames).  Slots that moved show as well:
 *                the processor that goes on with them spins for ever
 *   nobody       the first of two flushes for a list: what it splits is flushed with the rest before anybody relies
 *                on it
 *
 * In the command line: panic, the dues end the program at once.
 */
#include "tests/lib/chain.h"
#include "machines/x86_64/x86_64.h"
#include "tests/metal/flush_look.h"

#include <memfold/diet.h>
#include <memfold/memfold.h>

#define G WORLD_GIB_FRAMES

static struct look l;

static int add(mf_pfn_t start, mf_pfn_t end, enum mf_layout layout, enum mf_source source, unsigned unit_order)
{
	struct mf_region_config region = {
		.start_pfn = start, .end_pfn = end, .layout = layout, .source = source, .unit_order = unit_order,
		.nr_altmap = source == MF_SOURCE_ALTMAP ? G / 16 : 0,
	};

	look_load(&l);
	return world_add_region(l.w, &region, NULL);
}

static void fold_all(void)
{
	look_load(&l);
	TAP_EQ(mf_fold(l.w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	look_after(&l);
}

static struct mf_folio *alloc(unsigned order)
{
	struct mf_folio *folio;

	look_load(&l);
	folio = world_alloc(l.w, order);
	look_after(&l);
	MF_PANIC_IF(!folio, "the test finds no memory");
	return folio;
}

/* ---- Blocks that unfold and fold -------------------------------------------------------------------------------- */

enum { NR_PAGES = 1100 };

/* Base pages of three blocks, of which the first was where `pages` begin when this was done before. */
static void divide_and_fold(unsigned rounds)
{
	static struct mf_folio *page[NR_PAGES];

	for (unsigned round = 0; round < rounds; round++) {
		look_load(&l);
		for (unsigned i = 0; i < NR_PAGES; i++) {
			page[i] = world_alloc(l.w, 0);
			TAP_REQUIRE(page[i] != NULL);
		}
		look_after(&l);
		for (unsigned i = 0; i < NR_PAGES; i += 500)
			look_focus(&l, mf_folio_pfn(l.w->map, page[i]) & ~(mf_pfn_t)511, 9);
		look_load(&l);
		for (unsigned i = 0; i < NR_PAGES; i++)
			mf_folio_put(l.w->map, page[i]);
		fold_all();
	}
}

/* A folio of 1 GiB in 2 MiB and base pages, and whole again. */
static void divide_in_use(void)
{
	struct mf_folio *folio = alloc(18);
	mf_pfn_t pfn = mf_folio_pfn(l.w->map, folio);

	look_focus(&l, pfn, 18);
	look_load(&l);
	TAP_EQ(mf_folio_split(l.w->map, folio, 9), 0);
	look_load(&l);
	TAP_EQ(mf_folio_split(l.w->map, mf_pfn_folio(l.w->map, pfn + 512), 0), 0);
	look_load(&l);
	TAP_EQ(mf_folio_merge(l.w->map, pfn + 512, 9, &folio), 0);
	look_load(&l);
	for (mf_pfn_t i = 0; i < G; i += 512)
		mf_folio_put(l.w->map, mf_pfn_folio(l.w->map, pfn + i));
	fold_all();
}

static void life_of_blocks(enum mf_source source)
{
	TAP_REQUIRE(look_open(&l, &(struct world_config){ .nr_frames = 2 * G }));
	look_focus(&l, 0, 18);
	look_focus(&l, G, 18);
	TAP_EQ(add(0, 2 * G, MF_LAYOUT_TIERED, source, 0), 0);
	divide_and_fold(2);
	if (source != MF_SOURCE_ALTMAP)
		divide_in_use();
	look_close(&l);
}

TAP_TEST(flushes_of_blocks_self)
{
	life_of_blocks(MF_SOURCE_SELF);
}

TAP_TEST(flushes_of_blocks_ram)
{
	life_of_blocks(MF_SOURCE_RAM);
}

TAP_TEST(flushes_of_blocks_altmap)
{
	life_of_blocks(MF_SOURCE_ALTMAP);
}

/* More frames than a set holds until its flush: eight blocks of 1 GiB, with eight slots of RAM each. */
TAP_TEST(flushes_of_many_blocks)
{
	enum { NR = 8 };
	struct mf_folio *top[NR];

	TAP_REQUIRE(look_open(&l, &(struct world_config){ .nr_frames = NR * G }));
	TAP_EQ(add(0, NR * G, MF_LAYOUT_TIERED, MF_SOURCE_RAM, 0), 0);
	for (unsigned i = 0; i < NR; i++)
		TAP_REQUIRE((top[i] = world_alloc(l.w, 18)) != NULL);
	for (unsigned i = 0; i < NR; i++) {
		look_focus(&l, i * G, 9);
		TAP_EQ(mf_folio_split(l.w->map, top[i], 9), 0);
	}
	look_load(&l);
	chain_put(l.w, 0, NR * G, NULL);
	fold_all();
	look_close(&l);
}

TAP_TEST(flushes_of_slots_that_move)
{
	struct chain c;
	struct chain_config config = { 0 };

	config.world = look_config(&l, &config.world);
	TAP_REQUIRE(chain_open(&c, &config));
	look_begin(&l, &c.w);
	look_focus(&l, c.b, 18);
	look_focus(&l, c.d, 18);
	fold_all();
	TAP_OK(!chain_is_split(&c.w, c.a));
	chain_put(&c.w, 0, CHAIN_GIBS * G, NULL);
	fold_all();
	look_close(&l);
}

/* ---- Regions ---------------------------------------------------------------------------------------------------- */

/* Edges on both sides, and a neighbour that shares a slot with it. */
static void life_of_regions(enum mf_source source, enum mf_map_flags flags)
{
	mf_pfn_t middle = G / 4 + 96;

	TAP_REQUIRE(look_open(&l, &(struct world_config){ .nr_frames = 2 * G, .flags = flags }));
	look_focus(&l, 0, 18);
	look_focus(&l, middle & ~(mf_pfn_t)511, 9);
	look_focus(&l, G, 18);
	TAP_EQ(add(96, middle, MF_LAYOUT_FLAT, source, 0), 0);
	look_load(&l);
	TAP_EQ(add(middle, G + 4096, MF_LAYOUT_TIERED, MF_SOURCE_RAM, 0), 0);
	look_load(&l);
	mf_folio_put(l.w->map, alloc(0));
	fold_all();
	TAP_EQ(mf_region_remove(l.w->map, 0), 0);
	look_load(&l);
	look_close(&l);
}

TAP_TEST(flushes_of_regions)
{
	life_of_regions(MF_SOURCE_RAM, MF_MAP_SHARE_TABLES);
	life_of_regions(MF_SOURCE_SELF, MF_MAP_SHARE_TABLES);
}

TAP_TEST(flushes_of_regions_with_private_tables)
{
	life_of_regions(MF_SOURCE_RAM, MF_MAP_PRIVATE_TABLES);
}

static void life_of_compounds(unsigned order, enum mf_map_flags flags)
{
	TAP_REQUIRE(look_open(&l, &(struct world_config){ .nr_frames = 2 * G, .flags = flags }));
	look_focus(&l, 0, 18);
	look_focus(&l, G, 18);
	TAP_EQ(add(0, 2 * G, MF_LAYOUT_DEVDAX, MF_SOURCE_RAM, order), 0);
	look_load(&l);
	TAP_EQ(mf_region_remove(l.w->map, 0), 0);
	look_after(&l);
	look_close(&l);
}

TAP_TEST(flushes_of_compounds)
{
	life_of_compounds(9, MF_MAP_SHARE_TABLES);
	life_of_compounds(18, MF_MAP_SHARE_TABLES);
}

/* ---- Diets ------------------------------------------------------------------------------------------------------ */

static struct mf_folio *frozen(unsigned order)
{
	struct mf_folio *folio = alloc(order);

	TAP_OK(mf_folio_freeze(folio, 1));
	look_focus(&l, mf_folio_pfn(l.w->map, folio), order);
	return folio;
}

static void thaw(struct mf_folio *folio)
{
	mf_folio_unfreeze(folio, 1);
	mf_folio_put(l.w->map, folio);
}

static void diet_of_one(unsigned order)
{
	struct mf_folio *folio = frozen(order);

	look_focus(&l, mf_folio_pfn(l.w->map, folio) & ~(mf_pfn_t)0x7fff, 15);
	look_load(&l);
	TAP_EQ(mf_diet_remap(l.w->map, folio), 0);
	TAP_OK(mf_folio_is_on_diet(folio));
	TAP_OK(world_check(l.w));
	look_load(&l);
	TAP_EQ(mf_diet_restore(l.w->map, folio), 0);
	look_load(&l);
	thaw(folio);
}

static void diet_of_list(unsigned nr)
{
	struct mf_list list, restored;
	uint64_t nr_done;

	mf_list_init(&list);
	mf_list_init(&restored);
	look_away(&l);
	for (unsigned i = 0; i < nr; i++)
		mf_list_push_back(&list, &frozen(9)->page.list);
	look_load(&l);
	TAP_EQ(mf_diet_remap_list(l.w->map, &list, &nr_done), 0);
	TAP_EQ(nr_done, nr);
	look_load(&l);
	TAP_EQ(mf_diet_restore_list(l.w->map, &list, &restored, &nr_done), 0);
	TAP_EQ(nr_done, nr);
	look_load(&l);
	while (!mf_list_is_empty(&restored)) {
		struct mf_list *node = restored.next;

		mf_list_remove(node);
		thaw((struct mf_folio *)mf_container_of(node, struct mf_page, list));
	}
	fold_all();
}

static void life_of_diet(enum mf_layout layout, enum mf_map_flags flags)
{
	TAP_REQUIRE(look_open(&l, &(struct world_config){ .nr_frames = G, .flags = flags }));
	look_focus(&l, 0, 18);
	TAP_EQ(add(0, G, layout, MF_SOURCE_RAM, 0), 0);
	diet_of_one(9);
	fold_all();
	diet_of_list(5);
	look_away(&l);
	diet_of_one(18);
	fold_all();
	look_close(&l);
}

TAP_TEST(flushes_of_diet_hvo_5_14)
{
	life_of_diet(MF_LAYOUT_HVO_5_14, MF_MAP_SHARE_TABLES);
}

TAP_TEST(flushes_of_diet_hvo_5_18)
{
	life_of_diet(MF_LAYOUT_HVO_5_18, MF_MAP_SHARE_TABLES);
}

TAP_TEST(flushes_of_diet_hvo_7_1)
{
	life_of_diet(MF_LAYOUT_HVO_7_1, MF_MAP_SHARE_TABLES);
	life_of_diet(MF_LAYOUT_HVO_7_1, MF_MAP_PRIVATE_TABLES);
}

/* ---- Without interrupts ----------------------------------------------------------------------------------------- */

static struct look_left_out total[MF_NR_FLUSH_FOR];

static void without_interrupts(void (*life)(void))
{
	l.leaves_out = true;
	life();
	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++) {
		total[i].flushes += l.left_out[i].flushes;
		total[i].required += l.left_out[i].required;
		total[i].visible += l.left_out[i].visible;
		total[i].seen += l.left_out[i].seen;
	}
	l.leaves_out = false;
}

static void lives_of_blocks(void)
{
	life_of_blocks(MF_SOURCE_SELF);
}

static void lives_of_regions(void)
{
	life_of_regions(MF_SOURCE_RAM, MF_MAP_SHARE_TABLES);
}

static void lives_of_compounds(void)
{
	life_of_compounds(9, MF_MAP_SHARE_TABLES);
}

static void lives_of_diets(void)
{
	life_of_diet(MF_LAYOUT_HVO_7_1, MF_MAP_SHARE_TABLES);
}

/* Every flush of these lives in turn; those behind which nothing changed that a processor can tell need not be seen. */
TAP_TEST(every_flush_without_its_interrupts_is_seen_by_others)
{
	static const enum mf_flush_for must_show[] = {
		MF_FLUSH_FOR_ADD, MF_FLUSH_FOR_REMOVE, MF_FLUSH_FOR_UNFOLD, MF_FLUSH_FOR_FOLD, MF_FLUSH_FOR_SET,
		MF_FLUSH_FOR_REMAP, MF_FLUSH_FOR_RESTORE, MF_FLUSH_FOR_MERGE, MF_FLUSH_FOR_POPULATE,
		MF_FLUSH_FOR_DEPOPULATE,
	};

	TAP_REQUIRE(x86_nr_cpus > 1);
	without_interrupts(lives_of_blocks);
	without_interrupts(lives_of_regions);
	without_interrupts(lives_of_compounds);
	without_interrupts(lives_of_diets);
	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++) {
		if (total[i].flushes)
			TAP_NOTE("%s: of %llu flushes %llu were due, %llu for what others had loaded, seen %llu times",
				 mf_flush_for_name((enum mf_flush_for)i), (unsigned long long)total[i].flushes,
				 (unsigned long long)total[i].required, (unsigned long long)total[i].visible,
				 (unsigned long long)total[i].seen);
		TAP_OK(total[i].seen == total[i].visible && total[i].visible <= total[i].required);
	}
	for (unsigned i = 0; i < sizeof(must_show) / sizeof(must_show[0]); i++)
		TAP_OK(total[must_show[i]].seen > 0);
}

TAP_MAIN()
