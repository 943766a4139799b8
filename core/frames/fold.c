/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fold.c - one block is described as one again.
 *
 *   begin                the free pieces off the lists (or: the owner froze the children)     zone lock
 *   fold_publish_whole   parent whole, count 0, CHANGING: readers from above                  none
 *   mf_quiesce           readers that loaded a count before have ended                        none
 *   window_unlink        the slots read as zero: readers from below                          table_lock
 *   flush, release       map frames go back                                                 none
 *   insert               the block goes on the lists (or: the owner unfreezes it)             zone lock
 *
 * Blocks of tier 1 without users are found on zone->foldable.  Set-aside blocks, and blocks of the top tier, fold in
 * sets (set.c), because their frames back each other's slots and tables.
 */
#include "core/frames/zone.h"

/* From the whole parent on; the block's counts are 0.  Slots that the block hosted itself need no release. */
static void finish(struct mf_map *map, unsigned node, struct mf_page *block, uint64_t word)
{
	struct children c = children_of(mf_page_to_pfn(map, block), mf_word_child(mf_page_word(block)));
	struct mf_bag tables = { 0 };
	bool own_hosts = block->host != 0;

	fold_publish_whole(map, block, word);
	mf_quiesce(map);
	window_unlink(map, &c, &tables);
	window_flush_children(map, MF_FLUSH_FOR_FOLD, &c, tables.nr ? MF_FLUSH_TABLES : MF_FLUSH_LEAVES);
	if (map->machine->backing != MF_WINDOW_TABLES)
		return;
	pool_empty(map, node, &tables);
	if (!own_hosts)
		pool_put_slots(map, node, c.slot, map->region[mf_word_region(word)]);
}

static struct mf_page *begin_fold_one(struct mf_zone *zone, uint64_t keep)
{
	struct mf_page *block = NULL;

	zone_lock(zone);
	if (zone->nr_foldable[1] > keep) {
		block = mf_container_of(zone->foldable[1].next, struct mf_page, list);
		zone_remove_children(zone, block); /* and so leaves the foldable list */
		zone->nr_changing++;
	}
	zone_unlock(zone);
	return block;
}

bool fold_one(struct mf_zone *zone, uint64_t keep)
{
	struct mf_page *block = begin_fold_one(zone, keep);
	uint64_t word;

	if (!block)
		return false;
	word = map_word_as(mf_page_word(block), MF_KIND_FREE);
	finish(zone->map, zone->node, block, word | MF_FLAG_CHANGING);
	zone_lock(zone);
	zone_end_change(zone, block);
	zone_insert(zone, 1, mf_page_to_pfn(zone->map, block), zone->map->geo.shift[1]);
	zone_unlock(zone);
	return true;
}

void fold_used(struct mf_zone *zone, struct mf_page *block, uint64_t word)
{
	if (zone_folds_in_sets(zone->map, mf_word_tier(word))) {
		zone_lock(zone);
		mf_list_remove(&block->list);
		zone_unlock(zone);
	}
	finish(zone->map, zone->node, block, word);
}
