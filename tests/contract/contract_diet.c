/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract_diet.c - the chapters on the classic layouts: folios go on their diet and off it, compounds of a device come
 * and go, in every size that a machine has HugeTLB pages of.
 *
 * Sizes and what they save stand in a table, so that a machine answers whether it holds.  Whether a map may lie in the
 * memory that it describes is the machine's business, so every region here has its map in RAM, or in an altmap where
 * none of the questions is about frames.
 */
#include "tests/contract/contract.h"

#include <memfold/diet.h>

/* Folios of 2^order frames, and slots that they save by what a layout keeps of them.  [R-HVO-4] */
static const struct size {
	unsigned page_shift, order;
	uint64_t saves_of_1, saves_of_2;
} sizes[] = {
	{ 12, 4, 0, 0 },	 /* 64 KiB  */
	{ 12, 9, 7, 6 },	 /* 2 MiB   */
	{ 12, 13, 127, 126 },	 /* 32 MiB  */
	{ 12, 18, 4095, 4094 },	 /* 1 GiB   */
	{ 14, 7, 0, 0 },	 /* 2 MiB   */
	{ 14, 11, 7, 6 },	 /* 32 MiB  */
	{ 14, 16, 255, 254 },	 /* 1 GiB   */
	{ 16, 5, 0, 0 },	 /* 2 MiB   */
	{ 16, 13, 7, 6 },	 /* 512 MiB */
	{ 16, 18, 255, 254 },	 /* 16 GiB  */
};

enum { NR_SIZES = sizeof(sizes) / sizeof(sizes[0]), SIZES_ASKED = 4, NODE = 5 };

/* The n-th size of this machine; where it has fewer, its largest again. */
static const struct size *size_of(const struct transcript *t, unsigned n)
{
	const struct size *found = NULL;

	for (unsigned i = 0; i < NR_SIZES && n < SIZES_ASKED; i++) {
		if (sizes[i].page_shift != t->w.machine->paging.page_shift)
			continue;
		found = &sizes[i];
		if (n-- == 0)
			break;
	}
	return found;
}

static uint64_t saved_by(enum mf_layout layout, const struct size *size)
{
	return mf_layout_diet(layout)->nr_kept == 1 ? size->saves_of_1 : size->saves_of_2;
}

/* Behind what the other chapters have added, as aligned as can be; so many units of a size. */
static struct mf_region_config region_of(const struct transcript *t, enum mf_layout layout, unsigned order, unsigned nr)
{
	return (struct mf_region_config){
		.start_pfn = 7 * t->top,
		.end_pfn = 7 * t->top + mf_round_up((mf_pfn_t)nr << order, t->low),
		.node = NODE,
		.layout = layout,
		.source = MF_SOURCE_RAM,
		.unit_order = layout == MF_LAYOUT_DEVDAX ? order : 0,
	};
}

static void say_dieted(struct transcript *t)
{
	struct mf_map_stats stats;

	mf_map_stats(t->w.map, &stats);
	SAY(t, stats.nr_dieted);
	SAY(t, stats.nr_kept);
	SAY_YES(t, world_check(&t->w));
}

static uint64_t nr_aliases(struct transcript *t)
{
	struct mf_map_stats stats;

	mf_map_stats(t->w.map, &stats);
	return stats.nr_aliases;
}

/* ---- One folio --------------------------------------------------------------------------------------------------- */

/* Descriptors that do not lead to the head, from below or from above, or that are not what they should be. */
static uint64_t nr_astray(const struct transcript *t, const struct mf_folio *folio, enum mf_kind kind)
{
	const struct mf_map *map = t->w.map;
	mf_pfn_t pfn = mf_folio_pfn(map, folio), end = pfn + mf_folio_nr_frames(folio);
	uint64_t nr = 0;

	for (mf_pfn_t at = pfn; at < end; at++) {
		const struct mf_page *page = mf_pfn_to_page(map, at);

		nr += mf_page_folio(map, page) != folio || mf_pfn_folio(map, at) != folio ||
		      !mf_pfn_is_valid(map, at) || mf_page_kind(page) != (at == pfn ? kind : MF_KIND_TAIL);
	}
	return nr;
}

/* Taken from its tails: from the first and last frame of what may be a slot, and in the middle. */
static void tell_holders(struct transcript *t, struct mf_folio *folio)
{
	struct mf_map *map = t->w.map;
	mf_pfn_t pfn = mf_folio_pfn(map, folio), half = mf_folio_nr_frames(folio) / 2, last = pfn + 2 * half - 1;
	uint32_t before = mf_folio_refcount(folio);

	SAY(t, mf_pfn_try_get(map, last) == folio);
	SAY(t, mf_folio_try_get(map, mf_pfn_to_page(map, pfn + half)) == folio);
	SAY(t, mf_folio_try_get(map, mf_pfn_to_page(map, pfn + half - 1)) == folio);
	SAY(t, mf_pfn_try_pin(map, pfn + half) == folio);
	SAY(t, mf_folio_pin(folio));
	mf_folio_get(folio);
	SAY(t, mf_folio_refcount(folio) - before);
	SAY(t, mf_folio_pincount(folio));
	SAY(t, mf_folio_map_whole(folio));
	SAY(t, mf_folio_map_frames(folio, 9));
	SAY(t, mf_folio_mapcount(folio));
	SAY(t, mf_folio_whole_mapcount(folio));
	SAY(t, mf_folio_freeze(folio, before));
	mf_folio_unmap_frames(folio, 9);
	mf_folio_unmap_whole(folio);
	mf_folio_unpin(map, folio);
	mf_folio_unpin(map, folio);
	for (unsigned i = 0; i < 4; i++)
		mf_folio_put(map, folio);
	SAY(t, mf_folio_refcount(folio) - before);
}

/* Frozen, and given back with its owner's words as they were. */
static void tell_one_diet(struct transcript *t, struct mf_folio *folio, bool saves)
{
	struct mf_map *map = t->w.map;

	folio->page.index = 4711;
	folio->page.private_data = 42;
	mf_folio_set_flags(folio, MF_FLAG_USER1);
	SAY(t, mf_folio_freeze(folio, 1));
	SAY_YES(t, mf_diet_restore(map, folio) == 0);
	SAY_YES(t, mf_diet_remap(map, folio) == 0);
	SAY_YES(t, mf_diet_remap(map, folio) == 0);
	SAY_YES(t, mf_folio_is_on_diet(folio) == saves);
	SAY_YES(t, !mf_pfn_try_get(map, mf_folio_pfn(map, folio)));
	SAY_YES(t, nr_astray(t, folio, MF_KIND_USED) == 0);
	mf_folio_unfreeze(folio, 1);
	SAY_YES(t, folio->page.index == 4711 && folio->page.private_data == 42);
	SAY_YES(t, mf_folio_flags(folio) == MF_FLAG_USER1);
	say_dieted(t);
	tell_holders(t, folio);
	if (saves) {
		SAY(t, mf_folio_split(map, folio, 0));
		SAY(t, mf_folio_split(map, folio, mf_folio_order(folio)));
	}
}

/* ---- Two of a size ---------------------------------------------------------------------------------------------- */

static struct mf_folio *folio_of_list(struct mf_list *node)
{
	return (struct mf_folio *)mf_container_of(node, struct mf_page, list);
}

static uint64_t length(const struct mf_list *list)
{
	uint64_t nr = 0;

	for (const struct mf_list *at = list->next; at != list; at = at->next)
		nr++;
	return nr;
}

/* The first is on its diet already; both are again in the end. */
static void tell_lists(struct transcript *t, struct mf_folio *const folio[2], uint64_t saves)
{
	struct mf_map *map = t->w.map;
	struct mf_list list, restored;
	uint64_t nr = 99;

	mf_list_init(&list);
	mf_list_init(&restored);
	SAY(t, mf_diet_remap_list(map, &list, &nr));
	SAY(t, nr);
	for (unsigned i = 0; i < 2; i++) {
		SAY(t, mf_folio_freeze(folio[i], 1));
		mf_list_push_back(&list, &folio[i]->page.list);
	}
	SAY(t, mf_diet_remap_list(map, &list, &nr));
	SAY(t, nr);
	SAY_YES(t, nr_aliases(t) == 2 * saves);
	SAY(t, length(&list));
	SAY(t, mf_diet_restore_list(map, &list, &restored, &nr));
	SAY(t, nr);
	SAY(t, length(&list));
	SAY(t, length(&restored));
	SAY(t, folio_of_list(restored.next) == folio[0]);
	SAY(t, nr_aliases(t));
	SAY_YES(t, nr_astray(t, folio[0], MF_KIND_USED) == 0);
	SAY_YES(t, nr_astray(t, folio[1], MF_KIND_USED) == 0);
	SAY(t, mf_diet_restore_list(map, &list, &restored, &nr));
	SAY(t, mf_diet_remap_list(map, &restored, NULL));
	SAY_YES(t, nr_aliases(t) == 2 * saves);
	for (unsigned i = 0; i < 2; i++) {
		mf_list_remove(&folio[i]->page.list);
		mf_folio_unfreeze(folio[i], 1);
	}
	SAY(t, mf_list_is_empty(&restored));
	say_dieted(t);
}

static void tell_switch(struct transcript *t, struct mf_folio *folio, bool saves)
{
	struct mf_map *map = t->w.map;

	SAY_YES(t, mf_diet_is_on(map));
	mf_diet_switch(map, false);
	SAY_YES(t, !mf_diet_is_on(map));
	SAY_YES(t, mf_folio_is_on_diet(folio) == saves);
	SAY_YES(t, mf_folio_freeze(folio, 1));
	SAY_YES(t, mf_diet_restore(map, folio) == 0);
	SAY_YES(t, !mf_folio_is_on_diet(folio));
	SAY_YES(t, mf_diet_remap(map, folio) == 0);
	SAY_YES(t, !mf_folio_is_on_diet(folio));
	mf_diet_switch(map, true);
	SAY_YES(t, mf_diet_remap(map, folio) == 0);
	SAY_YES(t, mf_folio_is_on_diet(folio) == saves);
	mf_folio_unfreeze(folio, 1);
}

/* Freed on its diet: kept, until the next who asks for so much finds nothing else; or until somebody folds. */
static void tell_kept(struct transcript *t, struct mf_folio *folio[2], unsigned order)
{
	struct mf_map *map = t->w.map;
	mf_pfn_t pfn = mf_folio_pfn(map, folio[0]);
	struct mf_folio *base = NULL;

	mf_folio_put(map, folio[0]);
	SAY(t, mf_pfn_try_get(map, pfn) != NULL);
	say_dieted(t);
	SAY(t, mf_folio_alloc(map, NODE, order, MF_ALLOC_THIS_NODE, &folio[0]));
	SAY(t, mf_folio_is_on_diet(folio[0]));
	SAY_YES(t, nr_astray(t, folio[0], MF_KIND_USED) == 0);
	say_dieted(t);

	mf_folio_put(map, folio[0]);
	mf_folio_put(map, folio[1]);
	SAY(t, mf_fold(map, NODE, MF_FOLD_KEEP, NULL));
	say_dieted(t);
	SAY(t, mf_folio_alloc(map, NODE, 0, MF_ALLOC_THIS_NODE, &base));
	SAY(t, mf_folio_order(base));
	SAY_YES(t, nr_astray(t, base, MF_KIND_USED) == 0);
	mf_folio_put(map, base);
}

/* A folio in use holds its region; one that was freed on its diet does not. */
static void tell_removal(struct transcript *t, unsigned id, unsigned order)
{
	struct mf_map *map = t->w.map;
	struct mf_folio *folio = NULL;

	SAY(t, mf_folio_alloc(map, NODE, order, MF_ALLOC_THIS_NODE, &folio));
	SAY(t, mf_folio_freeze(folio, 1));
	SAY(t, mf_diet_remap(map, folio));
	mf_folio_unfreeze(folio, 1);
	SAY(t, mf_region_remove(map, id));
	mf_folio_put(map, folio);
	SAY(t, mf_region_remove(map, id));
	SAY(t, mf_pfn_is_valid(map, 7 * t->top));
	say_dieted(t);
}

static void tell_size(struct transcript *t, enum mf_layout layout, const struct size *size)
{
	struct mf_region_config c = region_of(t, layout, size->order, 2);
	struct mf_folio *folio[2] = { NULL, NULL };
	uint64_t saves = saved_by(layout, size);
	unsigned id = 99;

	SAY_YES(t, mf_diet_saves(layout, size->page_shift, MF_DESCRIPTOR_SIZE, size->order) == saves);
	SAY(t, mf_region_add(t->w.map, &c, &id));
	SAY(t, id);
	for (unsigned i = 0; i < 2; i++)
		SAY(t, mf_folio_alloc(t->w.map, NODE, size->order, MF_ALLOC_THIS_NODE, &folio[i]));
	if (!folio[0] || !folio[1])
		return;
	tell_one_diet(t, folio[0], saves);
	SAY_YES(t, nr_aliases(t) == saves);
	tell_lists(t, folio, saves);
	tell_switch(t, folio[1], saves);
	SAY_YES(t, nr_aliases(t) == 2 * saves);
	tell_kept(t, folio, size->order);
	tell_removal(t, id, size->order);
}

/* ---- Beside the sizes ------------------------------------------------------------------------------------------- */

/* With a map in an altmap a folio goes on its diet like any other, and the whole region goes again. */
static void tell_altmap(struct transcript *t, enum mf_layout layout)
{
	struct mf_region_config c = region_of(t, layout, t->low_order, 16);
	struct mf_map *map = t->w.map;
	struct mf_folio *folio = NULL;
	unsigned id = 99;

	c.source = MF_SOURCE_ALTMAP;
	c.nr_altmap = 16 * MF_BLOCK_SLOTS + 3;
	SAY(t, mf_region_add(map, &c, &id));
	SAY(t, mf_folio_alloc(map, NODE, t->low_order, MF_ALLOC_THIS_NODE, &folio));
	if (!folio)
		return;
	tell_one_diet(t, folio, true);
	SAY(t, nr_aliases(t));
	SAY(t, mf_folio_freeze(folio, 1));
	SAY(t, mf_diet_restore(map, folio));
	mf_folio_unfreeze(folio, 1);
	SAY_YES(t, nr_astray(t, folio, MF_KIND_USED) == 0);
	mf_folio_put(map, folio);
	SAY(t, mf_region_remove(map, id));
	say_dieted(t);
}

/* What is described otherwise saves nothing, and that is no failure; nor is a folio in the odd end of a region. */
static void tell_nothing_to_save(struct transcript *t)
{
	struct mf_map *map = t->w.map;
	struct mf_region_config c = region_of(t, MF_LAYOUT_HVO_7_1, t->low_order - 1, 1);
	struct mf_folio *folio = NULL;
	unsigned id = 99;

	SAY(t, mf_folio_alloc(map, 0, t->low_order, MF_ALLOC_THIS_NODE, &folio));
	SAY(t, mf_folio_freeze(folio, 1));
	SAY(t, mf_diet_remap(map, folio));
	SAY(t, mf_folio_is_on_diet(folio));
	SAY(t, mf_diet_restore(map, folio));
	mf_folio_unfreeze(folio, 1);
	mf_folio_put(map, folio);

	c.end_pfn = c.start_pfn + t->low / 2;
	SAY(t, mf_region_add(map, &c, &id));
	SAY(t, mf_folio_alloc(map, NODE, t->low_order - 1, MF_ALLOC_THIS_NODE, &folio));
	SAY(t, mf_folio_freeze(folio, 1));
	SAY(t, mf_diet_remap(map, folio));
	SAY(t, mf_folio_is_on_diet(folio));
	mf_folio_unfreeze(folio, 1);
	mf_folio_put(map, folio);
	SAY(t, mf_region_remove(map, id));
}

void tell_diets(struct transcript *t)
{
	static const enum mf_layout layouts[] = { MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18, MF_LAYOUT_HVO_7_1 };

	for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		SAY(t, mf_layout_diet(layouts[i])->nr_kept);
		for (unsigned n = 0; n < SIZES_ASKED; n++)
			tell_size(t, layouts[i], size_of(t, n));
		tell_altmap(t, layouts[i]);
	}
	tell_nothing_to_save(t);
}

/* ---- Compounds of a device -------------------------------------------------------------------------------------- */

static void tell_misfits(struct transcript *t)
{
	struct mf_region_config good = region_of(t, MF_LAYOUT_DEVDAX, t->low_order, 4), bad;
	struct mf_map *map = t->w.map;
	unsigned id = 99;

	bad = good;
	bad.start_pfn += t->low / 2;
	SAY_YES(t, mf_region_add(map, &bad, &id) == -MF_EINVAL);
	bad = good;
	bad.end_pfn--;
	SAY_YES(t, mf_region_add(map, &bad, &id) == -MF_EINVAL);
	bad = good;
	bad.source = MF_SOURCE_SELF;
	SAY_YES(t, mf_region_add(map, &bad, &id) == -MF_EINVAL);
	bad = good;
	bad.unit_order = t->top_order + 1;
	SAY_YES(t, mf_region_add(map, &bad, &id) == -MF_EINVAL);
	bad = good;
	bad.layout = MF_LAYOUT_HVO_7_1;
	SAY_YES(t, mf_region_add(map, &bad, &id) == -MF_EINVAL);
	bad.unit_order = 0;
	bad.flags = MF_REGION_FLAGS_ALL + 1;
	SAY_YES(t, mf_region_add(map, &bad, &id) == -MF_EINVAL);
}

/* They belong to their region: found and held by anyone, ended by nobody. */
static void tell_compounds_of(struct transcript *t, const struct size *size)
{
	struct mf_region_config c = region_of(t, MF_LAYOUT_DEVDAX, size->order, 2);
	struct mf_map *map = t->w.map;
	struct mf_folio *folio, *merged;
	mf_pfn_t next = 0;
	unsigned id = 99;

	SAY(t, mf_region_add(map, &c, &id));
	folio = mf_pfn_folio(map, c.start_pfn + 1);
	SAY(t, mf_folio_pfn(map, folio) == c.start_pfn);
	SAY(t, mf_folio_order(folio) == size->order);
	SAY_YES(t, mf_folio_is_on_diet(folio) == (size->saves_of_2 > 0));
	SAY_YES(t, mf_folio_refcount(folio) == 1);
	SAY_YES(t, nr_astray(t, folio, MF_KIND_DEVICE) == 0);
	SAY(t, mf_folio_next(map, c.start_pfn, c.end_pfn, &next) == folio);
	SAY(t, next == c.start_pfn + mf_folio_nr_frames(folio));
	SAY_YES(t, nr_aliases(t) == (c.end_pfn - c.start_pfn) / mf_folio_nr_frames(folio) * size->saves_of_2);
	say_dieted(t);

	SAY(t, mf_folio_try_get(map, mf_pfn_to_page(map, c.start_pfn)) == folio);
	tell_holders(t, folio);
	SAY(t, mf_folio_split(map, folio, 0));
	SAY(t, mf_folio_merge(map, c.start_pfn, size->order, &merged));
	SAY(t, mf_region_remove(map, id));
	mf_folio_put(map, folio);
	SAY(t, mf_folio_alloc(map, NODE, 0, MF_ALLOC_THIS_NODE, &merged));
	SAY(t, mf_region_remove(map, id));
	SAY(t, mf_pfn_try_get(map, c.start_pfn) != NULL);
	say_dieted(t);
}

void tell_compounds(struct transcript *t)
{
	tell_misfits(t);
	for (unsigned n = 0; n < SIZES_ASKED; n++)
		tell_compounds_of(t, size_of(t, n));
}
