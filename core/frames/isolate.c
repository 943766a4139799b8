/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * isolate.c - free memory of a classic layout that is kept from everybody for a while, whole or not at all.
 *
 *   on the lists     [   free    |  free  |      free      |  free   ]
 *   isolate               [==========================]                 off the lists; what reaches beyond stays on
 *   release               [==========================]                 on them again, and merged
 *
 * Between the two nobody has a reason to write to a descriptor of it: no folio is there, no list leads through it,
 * nobody merges with it.  Its slots may move.  Counted in nr_changing, so that allocators wait before they give up.
 * Everything here runs under the zone's lock.  Does not drain caches: what is there is no free block.
 */
#include "core/frames/zone.h"

/* What the words of free frames of one region have in common. */
static uint64_t free_word(uint64_t word)
{
	return map_word_as(word, MF_KIND_FREE);
}

/* The listed block around a frame, NULL when there is none: up to its head, every record says free. */
static struct mf_page *block_around(const struct mf_zone *zone, mf_pfn_t pfn)
{
	uint64_t base = free_word(mf_page_word(map_record(zone->map, 0, pfn)));

	for (unsigned order = 0; order < MF_ORDERS_MAX; order++) {
		struct mf_page *page = map_record(zone->map, 0, mf_round_down(pfn, (mf_pfn_t)1 << order));
		uint64_t word = mf_page_word(page);

		if (mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_FREE || free_word(word) != base)
			return NULL;
		if (word & MF_FLAG_BUDDY)
			return mf_word_order(word) >= order ? page : NULL;
	}
	return NULL;
}

/* The end of the listed block that starts at pfn; pfn itself when none does. */
static mf_pfn_t block_end(const struct mf_zone *zone, mf_pfn_t pfn)
{
	uint64_t word = mf_page_word(map_record(zone->map, 0, pfn));

	if (mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_FREE || !(word & MF_FLAG_BUDDY))
		return pfn;
	return pfn + ((mf_pfn_t)1 << mf_word_order(word));
}

bool zone_isolate(struct mf_zone *zone, mf_pfn_t start, mf_pfn_t end)
{
	struct mf_page *first = block_around(zone, start);
	mf_pfn_t from, to, next;

	if (!first)
		return false;
	from = mf_page_to_pfn(zone->map, first);
	for (to = from; to < end; to = next) {
		next = block_end(zone, to);
		if (next == to)
			return false;
	}
	for (mf_pfn_t pfn = from; pfn < to; pfn = next) {
		next = block_end(zone, pfn);
		zone_remove(zone, map_record(zone->map, 0, pfn));
	}
	zone_insert_range(zone, 0, from, start);
	zone_insert_range(zone, 0, end, to);
	zone->nr_changing++;
	return true;
}

void zone_release(struct mf_zone *zone, mf_pfn_t start, mf_pfn_t end)
{
	zone_insert_range(zone, 0, start, end);
	zone->nr_changing--;
}
