/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache.c - at hand for one CPU: base frames, and whole blocks of tier 1; and the zone's stock for callers that may
 * not wait.
 *
 * What is cached is of kind free with flag CACHED, on no list, and not counted in its parent's nr_free: a block with a
 * cached child does not fold until the caches are drained.  A cache's lock ranks above the zone's: it may be held
 * while the zone's is taken.  It is contended only by a drain.  Taking and giving one is inline, in zone.h.
 */
#include "core/frames/zone.h"

static void set_cached(struct mf_page *page)
{
	map_set_word(page, mf_page_word(page) | MF_FLAG_CACHED);
}

/*
 * The uppermost of a stack goes back to the lists, with those below it, down to `keep`, that lie in a row with it: what
 * was freed one by one in some order goes back as a few large pieces.
 */
static void return_row_locked(struct mf_zone *zone, unsigned kind, struct mf_page **stack, unsigned *nr, unsigned keep)
{
	struct mf_page *first = stack[--*nr], *last = first, *record = map_record(zone->map, kind, 0);
	unsigned shift = zone->map->geo.shift[kind];
	uint64_t word = mf_page_word(first);

	for (; *nr > keep && mf_page_word(stack[*nr - 1]) == word; --*nr) {
		if (stack[*nr - 1] == first - 1)
			first--;
		else if (stack[*nr - 1] == last + 1)
			last++;
		else
			break;
	}
	for (struct mf_page *page = first; page <= last; page++)
		map_set_word(page, word & ~MF_FLAG_CACHED);
	zone_insert_range(zone, kind, (mf_pfn_t)(first - record) << shift, (mf_pfn_t)(last + 1 - record) << shift);
}

/*
 * Half a cache of blocks of this tier, from the normal lists.  A larger tier's children on a lower one are no such
 * blocks.
 */
static void cache_refill(struct mf_zone *zone, struct zone_cache *cache, unsigned kind)
{
	unsigned nr_wanted = cache_capacity(kind) / 2;

	zone_lock(zone);
	while (cache->nr[kind] < nr_wanted) {
		unsigned nr = nr_wanted - cache->nr[kind];
		struct mf_page *page = zone_take_row(zone, ZONE_NORMAL, kind, zone->map->geo.shift[kind], &nr);

		if (!page)
			break;
		for (; nr > 0; nr--, page++) {
			set_cached(page);
			cache_stack(cache, kind)[cache->nr[kind]++] = page;
		}
	}
	zone_unlock(zone);
}

static void cache_spill(struct mf_zone *zone, struct zone_cache *cache, unsigned kind, unsigned keep)
{
	zone_lock(zone);
	while (cache->nr[kind] > keep)
		return_row_locked(zone, kind, cache_stack(cache, kind), &cache->nr[kind], keep);
	zone_unlock(zone);
}

/* The caller is held on its CPU until cache_unlock_own(). */
static struct zone_cache *cache_lock_own(struct mf_zone *zone)
{
	struct mf_machine *m = zone->machine;
	struct zone_cache *cache;

	if (m->ops->pin_cpu)
		m->ops->pin_cpu(m);
	cache = &zone->cache[m->ops->cpu(m)];
	mf_machine_lock(m, &cache->lock);
	return cache;
}

static void cache_unlock_own(struct mf_zone *zone, struct zone_cache *cache)
{
	struct mf_machine *m = zone->machine;

	mf_machine_unlock(m, &cache->lock);
	if (m->ops->unpin_cpu)
		m->ops->unpin_cpu(m);
}

struct mf_page *cache_get_slow(struct mf_zone *zone, unsigned kind)
{
	struct zone_cache *cache = cache_lock_own(zone);
	struct mf_page *page = NULL;

	if (cache->nr[kind] == 0)
		cache_refill(zone, cache, kind);
	if (cache->nr[kind] > 0)
		page = cache_stack(cache, kind)[--cache->nr[kind]];
	cache_unlock_own(zone, cache);
	return page;
}

void cache_put_slow(struct mf_zone *zone, unsigned kind, struct mf_page *page)
{
	struct zone_cache *cache = cache_lock_own(zone);

	if (cache->nr[kind] == cache_capacity(kind))
		cache_spill(zone, cache, kind, cache_capacity(kind) / 2);
	cache_stack(cache, kind)[cache->nr[kind]++] = page;
	cache_unlock_own(zone, cache);
}

void cache_drain(struct mf_zone *zone)
{
	struct mf_machine *m = zone->map->machine;

	for (unsigned cpu = 0; cpu < m->nr_cpus; cpu++) {
		struct zone_cache *cache = &zone->cache[cpu];

		mf_machine_lock(m, &cache->lock);
		for (unsigned kind = 0; kind < CACHE_KINDS; kind++)
			if (cache->nr[kind])
				cache_spill(zone, cache, kind, 0);
		mf_machine_unlock(m, &cache->lock);
	}
	zone_lock(zone);
	while (zone->nr_stock > 0)
		return_row_locked(zone, 0, zone->stock, &zone->nr_stock, 0);
	zone_unlock(zone);
}

uint64_t cache_count(struct mf_zone *zone)
{
	struct mf_machine *m = zone->map->machine;
	uint64_t nr;

	zone_lock(zone);
	nr = zone->nr_stock;
	zone_unlock(zone);
	for (unsigned cpu = 0; cpu < m->nr_cpus; cpu++) {
		struct zone_cache *cache = &zone->cache[cpu];

		mf_machine_lock(m, &cache->lock);
		for (unsigned kind = 0; kind < CACHE_KINDS; kind++)
			nr += cache->nr[kind] * map_block_frames(zone->map, kind);
		mf_machine_unlock(m, &cache->lock);
	}
	return nr;
}

struct mf_page *stock_take_locked(struct mf_zone *zone)
{
	return zone->nr_stock ? zone->stock[--zone->nr_stock] : NULL;
}

void stock_fill_locked(struct mf_zone *zone)
{
	while (zone->nr_stock < STOCK_SIZE) {
		struct mf_page *page = zone_take(zone, ZONE_NORMAL, 0);

		if (!page)
			page = zone_take(zone, ZONE_HOME, 0);
		if (!page)
			break;
		set_cached(page);
		zone->stock[zone->nr_stock++] = page;
	}
}
