/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client.c - maps with zones: creation, and what memmap asks of this room when regions come and go.
 *
 * Zones are made with the first region of their node and source and live as long as the map.
 */
#include "core/frames/zone.h"

#include "core/memmap/diet.h"

static uint64_t cache_bytes(const struct mf_map *map)
{
	return map->machine->nr_cpus * sizeof(struct zone_cache);
}

static void zone_destroy(struct mf_zone *zone)
{
	struct mf_map *map = zone->map;
	struct mf_machine *m = map->machine;

	m->ops->meta_free(m, zone->cache, cache_bytes(map));
	m->ops->meta_free(m, zone, sizeof(*zone));
}

static struct mf_zone *zone_create(struct mf_map *map, unsigned node, enum mf_source source, unsigned id)
{
	struct mf_machine *m = map->machine;
	struct mf_zone *zone = m->ops->meta_alloc(m, sizeof(*zone));

	if (!zone)
		return NULL;
	zone->cache = m->ops->meta_alloc(m, cache_bytes(map));
	if (!zone->cache) {
		m->ops->meta_free(m, zone, sizeof(*zone));
		return NULL;
	}
	zone->map = map;
	zone->machine = m;
	zone->id = id;
	zone->node = node;
	zone->source = source;
	zone->home = ZONE_NO_HOME;
	mf_list_init(&zone->split_top);
	mf_list_init(&zone->set_aside);
	mf_list_init(&zone->kept);
	mf_list_init(&zone->hosted);
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++) {
		mf_list_init(&zone->foldable[tier]);
		for (unsigned class = 0; class < ZONE_NR_CLASSES; class++)
			for (unsigned order = 0; order < MF_ORDERS_MAX; order++)
				mf_list_init(&zone->area[class].list[tier][order]);
	}
	return zone;
}

static int client_zone_get(struct mf_map *map, unsigned node, enum mf_source source, unsigned *id)
{
	struct mf_zone *zone;
	unsigned i;

	for (i = 0; i < map->nr_zones; i++) {
		/* An altmap serves its own region only, so its zone is for one region at a time. */
		if (map->zone[i]->node == node && map->zone[i]->source == source &&
		    (source != MF_SOURCE_ALTMAP || map->zone[i]->nr_present == 0)) {
			*id = i;
			return 0;
		}
	}
	if (i == MF_ZONES_MAX)
		return -MF_E2BIG;
	zone = zone_create(map, node, source, i);
	if (!zone)
		return -MF_ENOMEM;
	map->zone[i] = zone;
	__atomic_store_n(&map->nr_zones, i + 1, __ATOMIC_RELEASE);
	*id = i;
	return 0;
}

/* The first zone of a node that has memory is asked first: one of reserved memory alone has nothing to give. */
static void ask_first(struct mf_map *map, struct mf_zone *zone)
{
	if (!map->zone_of_node[1 + zone->node])
		__atomic_store_n(&map->zone_of_node[1 + zone->node], zone, __ATOMIC_RELEASE);
	if (zone->node == 0 && !map->zone_of_node[0])
		__atomic_store_n(&map->zone_of_node[0], zone, __ATOMIC_RELEASE);
}

static void client_online(struct mf_map *map, const struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	struct mf_zone *zone = map->zone[r->zone];
	const struct mf_geometry *g = &map->geo;
	mf_pfn_t top_block = map_block_frames(map, g->top);

	zone_lock(zone);
	/* Whole blocks of tier 1 in an edge of the top tier: that top block never folds, the best home for the pool. */
	if (zone->source == MF_SOURCE_SELF && zone->home == ZONE_NO_HOME && tier == 1 && r->top > 1 &&
	    end - start < top_block)
		zone->home = mf_round_down(start, top_block);
	zone_insert_range(zone, tier, start, end);
	zone->nr_present += end - start;
	zone_unlock(zone);
	ask_first(map, zone);
}

/*
 * Rounds of folding before a region that is free, but not whole, counts as busy (its frames may back slots of
 * others).
 */
enum { OFFLINE_TRIES = 8 };

struct offline {
	struct mf_map *map;
	const struct mf_region *r;
	struct mf_zone *zone;
	uint64_t nr; /* frames, free or hosting, that the allocator was given                                     */
};

/*
 * One that goes with the region, since it backs slots of the region's own whole blocks only: of its reserve, or hosting
 * its own block.
 */
static bool is_own_map_frame(const struct mf_region *r, uint64_t word, mf_pfn_t pfn)
{
	enum mf_kind kind = mf_word_kind(word);

	return diet_word_hosts(word) || (pfn < r->free_start && (kind == MF_KIND_MAP || kind == MF_KIND_RESERVED));
}

/*
 * -MF_EBUSY: in use.  -MF_ENOMEM: kept, since the memory to restore its map is lacking.  -MF_EAGAIN: kept, but put just
 * now, or somebody restores; free, but in a cache, in transition, or part of a split block that may yet fold.
 */
static int take_free(struct offline *o, bool take)
{
	/* What a diet has made free of the reserve goes, too. */
	bool all = o->r->source == MF_SOURCE_SELF && o->r->config.flags & MF_REGION_DIET_SELF_HOSTED;
	mf_pfn_t pfn = all ? o->r->config.start_pfn : o->r->free_start;

	o->nr = 0;
	while (pfn < o->r->config.end_pfn) {
		struct mf_folio *folio = mf_pfn_folio(o->map, pfn);
		struct mf_page *page = &folio->page;
		uint64_t word = mf_page_word(page);

		if (map_word_is_kept(word))
			return kept_lacks_memory_locked(o->zone, page) ? -MF_ENOMEM : -MF_EAGAIN;
		if (!mf_word_is_tail(word) && mf_word_kind(word) == MF_KIND_USED)
			return -MF_EBUSY;
		if (is_own_map_frame(o->r, word, pfn)) {
			if (diet_word_hosts(word)) {
				o->nr++;
				if (take && page->private_data)
					hosted_unlist_locked(o->zone, page);
			}
			pfn++;
			continue;
		}
		if (mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_FREE || !(word & MF_FLAG_BUDDY) ||
		    zone_parent(o->zone, mf_word_tier(word), pfn))
			return -MF_EAGAIN;
		pfn += (mf_pfn_t)1 << mf_word_order(word);
		o->nr += (mf_pfn_t)1 << mf_word_order(word);
		if (take)
			zone_remove(o->zone, page);
	}
	return 0;
}

static int offline_once(struct mf_map *map, const struct mf_region *r)
{
	struct offline o = { .map = map, .r = r, .zone = map->zone[r->zone] };
	mf_pfn_t first_block = mf_round_down(r->config.start_pfn, map_block_frames(map, map->geo.top));
	int err;

	zone_lock(o.zone);
	err = take_free(&o, false);
	if (!err) {
		take_free(&o, true);
		o.zone->nr_present -= o.nr;
		if (o.zone->home != ZONE_NO_HOME && o.zone->home >= first_block && o.zone->home < r->config.end_pfn)
			o.zone->home = ZONE_NO_HOME;
	}
	zone_unlock(o.zone);
	return err;
}

/* What is free but not whole is folded; other threads may free, fold and unfold blocks of it meanwhile. */
static int client_offline(struct mf_map *map, const struct mf_region *r)
{
	int err = -MF_EAGAIN;

	for (int tries = 0; tries < OFFLINE_TRIES && err == -MF_EAGAIN; tries++) {
		zones_fold(map, MF_ANY_NODE, MF_FOLD_ALL);
		err = offline_once(map, r);
		if (err)
			map->machine->ops->relax(map->machine);
	}
	return err == -MF_EAGAIN ? -MF_EBUSY : err;
}

static void client_table_put(struct mf_map *map, unsigned node, mf_pfn_t pfn)
{
	pool_put(map, node, pfn);
}

static void client_frame_put(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	struct mf_zone *zone = map->zone[r->zone];
	struct mf_page *page = map_record(map, 0, pfn);

	page->mapping = 0;
	page->index = 0;
	map_set_word(page, map_region_word(r, MF_KIND_FREE, 0));
	zone_lock(zone);
	zone_insert(zone, 0, pfn, 0);
	zone->nr_present++;
	zone_unlock(zone);
}

static void client_stats(struct mf_map *map, struct mf_map_stats *stats)
{
	unsigned nr_zones = map_nr_zones(map);

	for (unsigned i = 0; i < nr_zones; i++) {
		struct mf_zone *zone = map->zone[i];

		zone_lock(zone);
		stats->nr_pool_idle += zone->area[ZONE_POOL].nr_frames;
		stats->nr_set_aside += zone->nr_set_aside;
		stats->nr_kept += zone->nr_kept;
		stats->nr_hosted += zone->nr_hosted;
		zone_unlock(zone);
	}
}

const struct map_client zone_client = {
	.zone_get = client_zone_get,
	.online = client_online,
	.offline = client_offline,
	.table_put = client_table_put,
	.frame_put = client_frame_put,
	.check = zone_check,
	.stats = client_stats,
};

/* ---- The public calls ------------------------------------------------------------------------------------------ */

int mf_map_create(const struct mf_map_config *config, struct mf_map **out)
{
	struct mf_machine *m = config ? config->machine : NULL;
	struct mf_map *map;
	int err;

	if (!m || !m->ops || !m->ops->meta_alloc || !m->ops->meta_free)
		return -MF_EINVAL;
	if (m->ops->may_use && !m->ops->may_use(m))
		return -MF_EPERM;
	map = m->ops->meta_alloc(m, sizeof(*map));
	if (!map)
		return -MF_ENOMEM;
	err = map_init(map, config, &zone_client);
	if (err) {
		m->ops->meta_free(m, map, sizeof(*map));
		return err;
	}
	*out = map;
	return 0;
}

int mf_map_destroy(struct mf_map *map)
{
	struct mf_machine *m = map->machine;
	int err = map_permit(map);

	if (err)
		return err;
	for (unsigned i = 0; i < MF_REGIONS_MAX; i++)
		MF_PANIC_IF(map->region[i], "memfold: a map is destroyed while region %u is still in it.", i);
	for (unsigned i = 0; i < map->nr_zones; i++)
		zone_destroy(map->zone[i]);
	map_exit(map);
	m->ops->meta_free(m, map, sizeof(*map));
	return 0;
}

int mf_zone_info(struct mf_map *map, unsigned id, struct mf_zone_info *info)
{
	struct mf_zone *zone;
	int err = map_permit(map);

	if (err)
		return err;
	if (id >= map_nr_zones(map))
		return -MF_ENOENT;
	zone = map->zone[id];
	__builtin_memset(info, 0, sizeof(*info));
	info->node = zone->node;
	info->source = zone->source;
	info->nr_cached = cache_count(zone);
	zone_lock(zone);
	info->nr_free = zone->area[ZONE_NORMAL].nr_frames + zone->area[ZONE_HOME].nr_frames + info->nr_cached;
	info->nr_pool_idle = zone->area[ZONE_POOL].nr_frames;
	info->nr_set_aside = zone->nr_set_aside;
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++) {
		info->nr_foldable[tier] = zone_folds_in_sets(zone->map, tier) ? set_count_idle_locked(zone) :
										zone->nr_foldable[tier];
		for (unsigned class = 0; class < ZONE_NR_CLASSES; class++)
			for (unsigned order = 0; order < MF_ORDERS_MAX; order++)
				for (struct mf_list *l = zone->area[class].list[tier][order].next;
				     l != &zone->area[class].list[tier][order]; l = l->next)
					info->nr_free_blocks[tier][order]++;
	}
	zone_unlock(zone);
	return 0;
}
