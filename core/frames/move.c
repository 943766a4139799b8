/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * move.c - what outlives a fold set leaves its frame: tables, and slots of top blocks without users.
 *
 * A table is changed under map->table_lock only, which the set holds.  A slot holds records, and those change under the
 * zone's lock at any time: a block is taken or freed, a neighbour on its list comes or goes, a set-aside block gives or
 * gets a frame.  So nobody may have a reason to write to one between its copy and the flush:
 *
 *   move_hold_locked     every child off the lists, claimed from by nobody              zone lock
 *   move_slot            copy, then switch the entry                                    table_lock
 *   flush                every processor sees the copy                                  table_lock
 *   move_release_locked  the children on the lists again; what came back meanwhile      zone lock
 *
 * No folio is in such a block, so every count in the slot is 0, and no reader writes there: it adds to what is not 0
 * only, by compare-and-swap.  Whoever reads gets the same answer from the old frame and from the new.
 * Map frames in others' hands come back when they like: those of a held block wait on `parked`, since counting them
 * would write to a record of the slot.
 */
#include "core/frames/zone.h"

void move_init(struct move *m)
{
	mf_list_init(&m->tops);
	mf_list_init(&m->blocks);
	mf_list_init(&m->parked);
}

/* ---- Hold and release, under the zone's lock ------------------------------------------------------------------- */

static void hold_block(struct mf_zone *zone, struct mf_page *block, struct mf_list *held)
{
	zone_remove_children(zone, block);
	map_set_word(block, mf_page_word(block) | MF_FLAG_CHANGING);
	mf_list_remove(&block->list);
	mf_list_push_back(held, &block->list);
	zone->nr_set_aside--;
}

void move_take_children_locked(struct mf_zone *zone, struct mf_page *top, struct mf_list *held)
{
	const struct mf_map *map = zone->map;
	unsigned tier = map->geo.top - 1;
	mf_pfn_t pfn = mf_page_to_pfn(map, top), end = pfn + map_block_frames(map, map->geo.top);

	while (pfn < end) {
		struct mf_page *page = map_record(map, tier, pfn);
		uint64_t word = mf_page_word(page);

		if (mf_word_kind(word) == MF_KIND_FREE) {
			pfn += (mf_pfn_t)1 << mf_word_order(word);
			zone_remove(zone, page);
			continue;
		}
		MF_ASSERT(mf_word_kind(word) == MF_KIND_SPLIT && word & MF_FLAG_SET_ASIDE);
		if (!(word & MF_FLAG_CHOSEN))
			hold_block(zone, page, held);
		pfn += map_block_frames(map, tier);
	}
}

void move_hold_locked(struct mf_zone *zone, struct move *m, struct mf_page *top)
{
	zone->move = m;
	move_take_children_locked(zone, top, &m->blocks);
	mf_list_remove(&top->list);
	mf_list_push_back(&m->tops, &top->list);
}

/* The free children of a held block, in runs: what is between them is split or a map frame. */
static void list_children(struct mf_zone *zone, const struct mf_page *block)
{
	const struct mf_map *map = zone->map;
	unsigned tier = mf_word_child(mf_page_word(block));
	mf_pfn_t pfn = mf_page_to_pfn(map, block), start = pfn, size = map_block_frames(map, tier);
	mf_pfn_t end = pfn + map_block_frames(map, tier + 1);

	for (; pfn < end; pfn += size) {
		if (mf_page_kind(map_record(map, tier, pfn)) == MF_KIND_FREE)
			continue;
		zone_insert_fresh(zone, tier, start, pfn);
		start = pfn + size;
	}
	zone_insert_fresh(zone, tier, start, end);
}

static struct mf_page *first_of(struct mf_list *list)
{
	struct mf_page *page = mf_container_of(list->next, struct mf_page, list);

	mf_list_remove(&page->list);
	return page;
}

void move_release_locked(struct mf_zone *zone, struct move *m)
{
	zone->move = NULL;
	while (!mf_list_is_empty(&m->blocks)) {
		struct mf_page *block = first_of(&m->blocks);

		map_rely(zone->map, (uintptr_t)block, sizeof(*block));
		map_set_word(block, mf_page_word(block) & ~MF_FLAG_CHANGING);
		pool_adopt_locked(zone, block);
		list_children(zone, block);
	}
	while (!mf_list_is_empty(&m->tops)) {
		struct mf_page *top = first_of(&m->tops);
		struct children c = children_of(mf_page_to_pfn(zone->map, top), zone->map->geo.top - 1);

		map_rely(zone->map, children_address(zone->map, &c), children_bytes(zone->map));
		mf_list_push_back(&zone->split_top, &top->list);
		list_children(zone, top);
	}
	while (!mf_list_is_empty(&m->parked))
		pool_put_locked(zone, first_of(&m->parked));
}

/* ---- Move, under table_lock ------------------------------------------------------------------------------------ */

void move_table(struct mf_map *map, const struct mf_page *page, mf_pfn_t new_pfn)
{
	mf_pgtable_move(&map->pgtable, page->index, map_backs_level(page->mapping), new_pfn);
	pool_set_backs(map, new_pfn, page->mapping, page->index);
	map_count(&map->tables_moved, 1);
}

void move_slot(struct mf_map *map, uintptr_t slot, mf_pfn_t new_pfn)
{
	mf_pfn_t old_pfn = mf_pgtable_walk(&map->pgtable, slot).pfn;

	__builtin_memcpy(mf_machine_frame(map->machine, new_pfn), mf_machine_frame(map->machine, old_pfn),
			 (size_t)1 << map->machine->paging.page_shift);
	mf_pgtable_replace(&map->pgtable, slot, new_pfn);
	pool_set_backs(map, new_pfn, map_backs_slot(mf_page_tier(map, (const struct mf_page *)slot)), slot);
}

unsigned move_slots_of(struct mf_map *map, const struct mf_page *top, struct mf_bag *spare)
{
	struct children c = children_of(mf_page_to_pfn(map, top), map->geo.top - 1);
	unsigned nr = 0;

	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++) {
		uintptr_t slot = children_address(map, &c) + ((uintptr_t)i << map->machine->paging.page_shift);

		if (!set_holds_frame(map, mf_pgtable_walk(&map->pgtable, slot).pfn))
			continue;
		nr++;
		if (spare)
			move_slot(map, slot, mf_bag_take(spare));
	}
	return nr;
}
