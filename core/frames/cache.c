/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache.c - base frames at hand: a stack for each CPU, and the zone's stock for callers that may not wait.
 *
 * A cached frame is of kind free with flag CACHED, on no list, and not counted in its block's nr_free: a block with a
 * cached frame does not fold until the caches are drained.  A cache's lock ranks above the zone's: it may be held while the
 * zone's is taken.  It is contended only by a drain.
 */
#include "core/frames/zone.h"

static struct zone_cache *lock_own(struct mf_zone *zone)
{
	struct mf_machine *m = zone->map->machine;
	struct zone_cache *cache;

	if (m->ops->pin_cpu)
		m->ops->pin_cpu(m);
	cache = &zone->cache[m->ops->cpu(m)];
	while (!mf_lock_try(&cache->lock))
		m->ops->relax(m);
	return cache;
}

static void unlock_own(struct mf_zone *zone, struct zone_cache *cache)
{
	mf_machine_unlock(zone->map->machine, &cache->lock);
}

static void set_cached(struct mf_page *page)
{
	map_set_word(page, mf_page_word(page) | MF_FLAG_CACHED);
}

static void return_locked(struct mf_zone *zone, struct mf_page *page)
{
	map_set_word(page, mf_page_word(page) & ~MF_FLAG_CACHED);
	zone_insert(zone, 0, mf_page_to_pfn(zone->map, page), 0);
}

static void refill(struct mf_zone *zone, struct zone_cache *cache)
{
	zone_lock(zone);
	while (cache->nr < CACHE_BATCH) {
		struct mf_page *page = zone_take(zone, ZONE_NORMAL, 0);

		if (!page)
			break;
		set_cached(page);
		cache->page[cache->nr++] = page;
	}
	zone_unlock(zone);
}

static void spill(struct mf_zone *zone, struct zone_cache *cache, unsigned keep)
{
	zone_lock(zone);
	while (cache->nr > keep)
		return_locked(zone, cache->page[--cache->nr]);
	zone_unlock(zone);
}

struct mf_page *cache_get(struct mf_zone *zone)
{
	struct zone_cache *cache = lock_own(zone);
	struct mf_page *page = NULL;

	if (MF_UNLIKELY(cache->nr == 0))
		refill(zone, cache);
	if (MF_LIKELY(cache->nr > 0))
		page = cache->page[--cache->nr];
	unlock_own(zone, cache);
	return page;
}

void cache_put(struct mf_zone *zone, struct mf_page *page)
{
	struct zone_cache *cache = lock_own(zone);

	if (MF_UNLIKELY(cache->nr == CACHE_SIZE))
		spill(zone, cache, CACHE_SIZE - CACHE_BATCH);
	set_cached(page);
	cache->page[cache->nr++] = page;
	unlock_own(zone, cache);
}

void cache_drain(struct mf_zone *zone)
{
	struct mf_machine *m = zone->map->machine;

	for (unsigned cpu = 0; cpu < m->nr_cpus; cpu++) {
		struct zone_cache *cache = &zone->cache[cpu];

		mf_machine_lock(m, &cache->lock);
		if (cache->nr)
			spill(zone, cache, 0);
		mf_machine_unlock(m, &cache->lock);
	}
	zone_lock(zone);
	while (zone->nr_stock > 0)
		return_locked(zone, zone->stock[--zone->nr_stock]);
	zone_unlock(zone);
}

uint64_t cache_count(struct mf_zone *zone)
{
	struct mf_machine *m = zone->map->machine;
	uint64_t nr = zone->nr_stock;

	for (unsigned cpu = 0; cpu < m->nr_cpus; cpu++) {
		mf_machine_lock(m, &zone->cache[cpu].lock);
		nr += zone->cache[cpu].nr;
		mf_machine_unlock(m, &zone->cache[cpu].lock);
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
			break;
		set_cached(page);
		zone->stock[zone->nr_stock++] = page;
	}
}
