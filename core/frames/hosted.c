/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hosted.c - blocks that were freed from a diet without memory for it, and so host slots of their own.
 *
 * What is left of such a block is free memory like any.  The block is listed by the record of its first hosting frame,
 * and settles once all the rest is free and there is memory for its slots: then it is whole again.  Law: the list holds
 * every such block but those that are settling, and nr_hosted is its length.
 */
#include "core/frames/zone.h"

#include "core/memmap/diet.h"

static void list_locked(struct mf_zone *zone, struct mf_page *first)
{
	mf_list_push_back(&zone->hosted, &first->list);
	__atomic_store_n(&zone->nr_hosted, zone->nr_hosted + 1, __ATOMIC_RELAXED);
}

void hosted_free(struct mf_zone *zone, struct mf_page *page)
{
	struct mf_map *map = zone->map;
	uint64_t word = mf_page_word(page);
	mf_pfn_t start = mf_page_to_pfn(map, page), host = page->index;
	struct mf_page *first = map_record(map, 0, host);

	char *from = (char *)page + offsetof(struct mf_page, list);

	/* As zone_free_folio() does. */
	__builtin_memset(from, 0, sizeof(*page) - offsetof(struct mf_page, list));
	for (mf_pfn_t i = 0; i < host - start; i++)
		map_set_word(&page[i], map_word_as(word, MF_KIND_FREE));
	zone_lock(zone);
	if (host - start < (mf_pfn_t)1 << mf_word_order(word))
		list_locked(zone, first);
	zone_insert_range(zone, 0, start, host);
	zone_unlock(zone);
}

struct hosted_block hosted_block_of(const struct mf_zone *zone, const struct mf_page *first)
{
	mf_pfn_t host = mf_page_to_pfn(zone->map, first), size = (mf_pfn_t)1 << first->private_data;

	return (struct hosted_block){ mf_round_down(host, size), host, mf_round_down(host, size) + size };
}

void hosted_unlist_locked(struct mf_zone *zone, struct mf_page *first)
{
	mf_list_remove(&first->list);
	__atomic_store_n(&zone->nr_hosted, zone->nr_hosted - 1, __ATOMIC_RELAXED);
}

/* The next block, off the list and the rest of it isolated; else at the end of the list. */
static bool begin_settle(struct mf_zone *zone, uint64_t less_than, struct hosted_block *b)
{
	struct mf_page *first;
	bool begun;

	zone_lock(zone);
	begun = !mf_list_is_empty(&zone->hosted);
	if (begun) {
		first = mf_container_of(zone->hosted.next, struct mf_page, list);
		*b = hosted_block_of(zone, first);
		hosted_unlist_locked(zone, first);
		begun = b->end - b->host < less_than && zone_isolate(zone, b->start, b->host);
		if (!begun)
			list_locked(zone, first);
	}
	zone_unlock(zone);
	return begun;
}

/* 0, or -MF_ENOMEM and it is on the list again. */
static int settle(struct mf_zone *zone, const struct hosted_block *b)
{
	struct mf_map *map = zone->map;
	struct mf_page *first = map_record(map, 0, b->host);
	int err = diet_settle(map, map_word_region(map, mf_page_word(first)), b->host, b->end);

	zone_lock(zone);
	zone_release(zone, b->start, err ? b->host : b->end);
	if (err)
		list_locked(zone, first);
	zone_unlock(zone);
	return err;
}

uint64_t hosted_settle(struct mf_zone *zone, uint64_t nr_max)
{
	uint64_t nr_blocks = __atomic_load_n(&zone->nr_hosted, __ATOMIC_RELAXED), lacking = ~(uint64_t)0, nr = 0;
	struct hosted_block b;

	/* What was too much once is not asked for again. */
	for (; nr_blocks > 0 && nr < nr_max; nr_blocks--) {
		if (!begin_settle(zone, lacking, &b))
			continue;
		if (settle(zone, &b) == 0)
			nr++;
		else
			lacking = b.end - b.host;
	}
	return nr;
}
