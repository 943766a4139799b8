/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fold.c - the two words that publish an unfold and a fold.
 *
 *   unfold   children_write   window_link   flush   unfold_publish
 *   fold     fold_publish_whole   mf_quiesce   window_unlink   flush   (release)
 *
 * In between, parent and children both answer with count 0, so nobody can take a reference (law M1).
 */
#include "core/memmap/map.h"

void unfold_publish(struct mf_map *map, struct mf_page *block, unsigned child_tier, uint64_t flags, unsigned capacity,
		    unsigned nr_map, unsigned host)
{
	uint64_t word = mf_page_word(block);
	struct children c = children_of(mf_page_to_pfn(map, block), child_tier);

	map_rely(map, children_address(map, &c), children_bytes(map));
	MF_ASSERT(__atomic_load_n(&block->counts, __ATOMIC_RELAXED) == 0);
	block->nr_free = 0;
	block->capacity = (uint16_t)capacity;
	block->nr_map = (uint16_t)nr_map;
	block->host = (uint16_t)host;
	block->mapping = 0;
	block->index = 0;
	map_set_word(block, map_word_as(word, MF_KIND_SPLIT) | map_word_child(child_tier) | flags);
	map_count(&map->unfolds[mf_word_tier(word)], 1);
}

void fold_publish_whole(struct mf_map *map, struct mf_page *block, uint64_t word)
{
	block->nr_free = 0;
	block->capacity = 0;
	block->nr_map = 0;
	block->host = 0;
	block->mapping = 0;
	block->index = 0;
	block->private_data = 0;
	map_set_word(block, word);
	map_count(&map->folds[mf_word_tier(word)], 1);
}
