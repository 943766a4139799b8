/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool.c - map frames: claimed from set-aside blocks, and given back.
 *
 * The pool is no list of its own: the free frames of a set-aside block stand on the zone's lists in class POOL.
 * Claims take the lowest frame of the best block (zone->set_aside is in that order).  A claimed
 * frame has a record of kind map, count 0, that says what it backs (mapping: slot or table, index: the first window
 * address served); it is marked pending until it is linked, so that nobody folds its block meanwhile.
 *
 * When the pool is empty, a free block of the home block is set aside; when there is none the caller seeds the pool
 * from the block it is unfolding (unfold.c).
 */
#include "core/frames/zone.h"

struct mf_page *pool_record(const struct mf_map *map, mf_pfn_t pfn)
{
	struct mf_folio *folio = mf_pfn_folio(map, pfn);

	if (!folio || mf_page_kind(&folio->page) != MF_KIND_MAP)
		return NULL;
	return &folio->page;
}

/*
 * Best first: a block in an edge never folds; the home block folds last; elsewhere a claim would keep a top block
 * from folding.
 */
static unsigned rank(const struct mf_zone *zone, mf_pfn_t pfn)
{
	const struct mf_geometry *g = &zone->map->geo;

	if (mf_page_word(map_record(zone->map, g->top, pfn)) & MF_FLAG_EDGE)
		return 0;
	return pfn >> g->shift[g->top] == zone->home >> g->shift[g->top] ? 1 : 2;
}

static bool is_better(const struct mf_zone *zone, mf_pfn_t a, mf_pfn_t b)
{
	unsigned rank_a = rank(zone, a), rank_b = rank(zone, b);

	return rank_a != rank_b ? rank_a < rank_b : a < b;
}

void pool_adopt_locked(struct mf_zone *zone, struct mf_page *block)
{
	mf_pfn_t pfn = mf_page_to_pfn(zone->map, block);
	struct mf_list *next = zone->set_aside.next;

	while (next != &zone->set_aside &&
	       is_better(zone, mf_page_to_pfn(zone->map, mf_container_of(next, struct mf_page, list)), pfn))
		next = next->next;
	mf_list_push_back(next, &block->list); /* before next */
	zone->nr_set_aside++;
}

void pool_claim_locked(struct mf_zone *zone, struct mf_bag *bag, unsigned nr)
{
	struct mf_list *at = zone->set_aside.next;

	for (; at != &zone->set_aside && bag->nr < nr; at = at->next) {
		struct mf_page *block = mf_container_of(at, struct mf_page, list);
		mf_pfn_t pfn[MF_BAG_MAX];
		unsigned nr_taken = block->nr_free ? zone_take_frames(zone, block, pfn, nr - bag->nr) : 0;

		block->nr_map = (uint16_t)(block->nr_map + nr_taken);
		for (unsigned i = 0; i < nr_taken; i++) {
			struct mf_page *page = map_record(zone->map, 0, pfn[i]);

			map_set_word(page, map_word_as(mf_page_word(page), MF_KIND_MAP) | MF_FLAG_PENDING);
			mf_bag_put(bag, pfn[i]);
		}
	}
}

void pool_claim(struct mf_zone *zone, struct mf_bag *bag, unsigned nr, enum pool_growth growth)
{
	for (;;) {
		struct mf_page *block = NULL;

		zone_lock(zone);
		pool_claim_locked(zone, bag, nr);
		if (bag->nr < nr && growth != POOL_AS_IT_IS)
			block = zone_begin_unfold(zone, ZONE_HOME, 0);
		if (bag->nr < nr && growth == POOL_FROM_ANY && !block)
			block = zone_begin_unfold(zone, ZONE_NORMAL, 0);
		zone_unlock(zone);
		/* A block of the lowest tier is set aside; a larger one is split first (and seeds the pool by that). */
		if (!block || unfold_free(zone, block, mf_word_tier(mf_page_word(block)) == 1))
			return;
	}
}

void pool_put_locked(struct mf_zone *zone, struct mf_page *page)
{
	mf_pfn_t pfn = mf_page_to_pfn(zone->map, page);
	struct mf_page *block = zone_parent(zone, 0, pfn);

	/* The slot with the block's record is being copied: whoever moves it takes the frame when that is done. */
	if (mf_page_word(block) & MF_FLAG_CHANGING) {
		mf_list_push_back(&zone->move->parked, &page->list);
		return;
	}
	page->mapping = 0;
	page->index = 0;
	map_set_word(page, map_word_as(mf_page_word(page), MF_KIND_FREE));
	block->nr_map--;
	zone_insert(zone, 0, pfn, 0);
}

void pool_put(struct mf_map *map, unsigned node, mf_pfn_t pfn)
{
	struct mf_page *page = pool_record(map, pfn);
	struct mf_zone *zone;

	if (!page) {
		ram_put(map, node, 0, pfn);
		return;
	}
	zone = zone_of_word(map, mf_page_word(page));
	zone_lock(zone);
	pool_put_locked(zone, page);
	zone_unlock(zone);
}

void pool_put_slots(struct mf_map *map, unsigned node, const mf_pfn_t slot[MF_BLOCK_SLOTS], struct mf_region *r)
{
	if (reserve_holds(&r->reserve, slot[0])) {
		reserve_put_slots(map, r, slot[0]);
		return;
	}
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		pool_put(map, node, slot[i]);
}

void pool_empty(struct mf_map *map, unsigned node, struct mf_bag *bag)
{
	while (bag->nr > 0)
		pool_put(map, node, mf_bag_take(bag));
}

void pool_set_backs(struct mf_map *map, mf_pfn_t pfn, uint64_t backs, uintptr_t address)
{
	struct mf_page *page = pool_record(map, pfn);

	if (!page)
		return;
	page->mapping = backs;
	page->index = address;
	map_set_word(page, mf_page_word(page) & ~MF_FLAG_PENDING);
}

void pool_set_backs_children(struct mf_map *map, const struct children *c)
{
	uintptr_t address = children_address(map, c);
	const struct mf_paging *p = &map->machine->paging;

	if (map->machine->backing != MF_WINDOW_TABLES)
		return;
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		pool_set_backs(map, c->slot[i], map_backs_slot(c->tier), address + ((uintptr_t)i << p->page_shift));
	/* Tables on the way: those we gave are still pending; others were recorded by whoever linked them. */
	table_lock(map);
	for (unsigned level = 0; level + 1 < p->levels; level++) {
		mf_pfn_t table;
		struct mf_page *page;

		if (!mf_pgtable_table(&map->pgtable, address, level, &table))
			continue;
		page = pool_record(map, table);
		if (page && mf_page_word(page) & MF_FLAG_PENDING)
			pool_set_backs(map, table, map_backs_table(level),
				       mf_round_down(address, mf_pgtable_span(p, level + 1)));
	}
	table_unlock(map);
}
