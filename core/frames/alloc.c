/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alloc.c - what users get, and in which order it is looked for.
 *
 *   1  this CPU's cache (base frames, 2 MiB)      6  blocks that can be folded (large orders)
 *   2  a normal free block                        7  wait for blocks in transition, and again
 *   3  unfold a normal block                      8  the map pool's idle frames (small orders)
 *   4  a free block of the home block             9  the stock (base frames)
 *   5  restore what is kept, drain the caches, and again
 *
 * Between 6 and 7, one at a time: a block that was freed from a classic diet settles, or hosts its own map (hosted.c).
 * 8 and 9 come after every zone that may serve the request was asked for the rest.  Callers that may not wait get 1,
 * 2, the home block's lists, 8 and 9: nothing that unfolds, folds, flushes or waits.  Freeing never folds: it lists
 * the block (zone.c).
 */
#include "core/frames/zone.h"

static bool is_small(const struct mf_zone *zone, unsigned order)
{
	return order < zone->map->geo.step;
}

static struct mf_page *take_last_resort_locked(struct mf_zone *zone, unsigned order)
{
	struct mf_page *page = is_small(zone, order) ? zone_take(zone, ZONE_POOL, order) : NULL;

	if (!page && order == 0)
		page = stock_take_locked(zone);
	return page;
}

static int alloc_nowait(struct mf_zone *zone, unsigned order, struct mf_page **page)
{
	zone_lock(zone);
	*page = zone_take(zone, ZONE_NORMAL, order);
	if (!*page)
		*page = zone_take(zone, ZONE_HOME, order);
	zone_unlock(zone);
	return *page ? 0 : -MF_ENOMEM;
}

/*
 * Folds what may give a block of this order; false when nothing folded.  Small orders gain only where an unfold has
 * just failed for lack of map frames: a fold gives some back.
 */
static bool fold_for(struct mf_zone *zone, unsigned order, bool unfold_failed)
{
	const struct mf_geometry *g = &zone->map->geo;
	uint64_t nr = 0;

	if (order < g->step)
		return unfold_failed && fold_one(zone, 0);
	/* One block of tier 1 is enough for one block of tier 1; larger ones need neighbours. */
	while (fold_one(zone, 0)) {
		nr++;
		if (order == g->step)
			return true;
	}
	if (nr == 0 || order >= g->shift[g->top])
		nr += fold_set(zone, 0, FOLD_LAZILY);
	return nr > 0;
}

struct attempt {
	struct mf_page *page;  /* what was asked for                                                           */
	struct mf_page *block; /* or what to unfold for it                                                     */
	bool others_changing;  /* or a reason to wait                                                          */
	bool is_empty;         /* or none to do anything: no region of the zone is left, or all are reserved     */
};

static struct attempt attempt(struct mf_zone *zone, unsigned order, bool may_unfold)
{
	struct attempt a = { 0 };

	zone_lock(zone);
	a.page = zone_take(zone, ZONE_NORMAL, order);
	if (!a.page && may_unfold)
		a.block = zone_begin_unfold(zone, ZONE_NORMAL, order);
	if (!a.page && !a.block)
		a.page = zone_take(zone, ZONE_HOME, order);
	if (!a.page && !a.block && may_unfold)
		a.block = zone_begin_unfold(zone, ZONE_HOME, order);
	a.others_changing = zone->nr_changing > 0;
	a.is_empty = zone->nr_present == 0;
	zone_unlock(zone);
	return a;
}

static int unfold_for(struct mf_zone *zone, struct mf_page *block, unsigned order)
{
	int err = unfold_free(zone, block, false);

	if (!err && order == 0) {
		zone_lock(zone);
		stock_fill_locked(zone);
		zone_unlock(zone);
	}
	return err;
}

static int alloc_wait(struct mf_zone *zone, unsigned order, struct mf_page **page)
{
	bool drained = false, dry = false, unfold_failed = false, restore_failed = false, settle_failed = false;

	reader_none_open(zone->map);
	for (;;) {
		struct attempt a = attempt(zone, order, !unfold_failed);

		*page = a.page;
		if (a.page)
			return 0;
		if (a.block) {
			/* Where RAM, an altmap or the host is out of memory, what is free elsewhere may still do. */
			unfold_failed = unfold_for(zone, a.block, order) != 0;
			continue;
		}
		if (a.is_empty)
			return -MF_ENOMEM;
		/*
		 * What failed once is not tried again before something was gained: attempts count as transitions, and
		 * threads that all fail would keep each other waiting.
		 */
		if (!restore_failed && kept_restore(zone) > 0)
			continue;
		restore_failed = true;
		if (!drained) {
			cache_drain(zone);
			drained = true;
			continue;
		}
		if (fold_for(zone, order, unfold_failed)) {
			dry = unfold_failed = restore_failed = settle_failed = false;
			continue;
		}
		if (!settle_failed && (hosted_settle(zone, 1) > 0 || kept_host(zone, order, 1) > 0)) {
			dry = false;
			continue;
		}
		settle_failed = true;
		/*
		 * Another may have begun to fold between our attempt and our fold, and have left us nothing: look
		 * again.
		 */
		if (dry && !a.others_changing)
			return -MF_ENOMEM;
		dry = !a.others_changing;
		drained = false;
		zone->map->machine->ops->relax(zone->map->machine);
	}
}

int zone_alloc_last_resort(struct mf_zone *zone, unsigned order, struct mf_page **page)
{
	zone_lock(zone);
	*page = take_last_resort_locked(zone, order);
	zone_unlock(zone);
	return *page ? 0 : -MF_ENOMEM;
}

int zone_alloc(struct mf_zone *zone, unsigned order, unsigned alloc_flags, struct mf_page **page)
{
	return alloc_flags & MF_ALLOC_NOWAIT ? alloc_nowait(zone, order, page) : alloc_wait(zone, order, page);
}

void zone_free(struct mf_zone *zone, struct mf_page *page, unsigned order)
{
	zone_lock(zone);
	zone_insert(zone, mf_word_tier(mf_page_word(page)), mf_page_to_pfn(zone->map, page), order);
	zone_unlock(zone);
}

void zone_free_folio(struct mf_zone *zone, struct mf_page *page)
{
	uint64_t word = mf_page_word(page);
	unsigned order = mf_word_order(word);
	char *from = (char *)page + offsetof(struct mf_page, list);

	/* The counts are 0 and stay as they are, since anyone may read them. */
	__builtin_memset(from, 0, sizeof(*page) - offsetof(struct mf_page, list));
	for (uint64_t i = 0; i < (uint64_t)1 << (order - zone->map->geo.shift[mf_word_tier(word)]); i++)
		map_set_word(&page[i], map_word_as(word, MF_KIND_FREE));
	zone_free(zone, page, order);
}

/* ---- The public calls ------------------------------------------------------------------------------------------ */

static uint64_t zone_fold(struct mf_zone *zone, enum mf_fold_flags flags)
{
	uint64_t nr = 0, more, keep = flags == MF_FOLD_KEEP ? 1 : 0;

	kept_restore(zone);
	if (flags == MF_FOLD_ALL)
		kept_host(zone, 0, ~(uint64_t)0);
	cache_drain(zone);
	hosted_settle(zone, ~(uint64_t)0);
	while (fold_one(zone, keep))
		nr++;
	do {
		more = fold_set(zone, keep, keep ? FOLD_LAZILY : FOLD_HARD);
		nr += more;
	} while (more);
	return nr;
}

uint64_t zones_fold(struct mf_map *map, int node, enum mf_fold_flags flags)
{
	unsigned nr_zones = map_nr_zones(map);
	uint64_t nr = 0, before;

	/* Again while anything folds: zones share page tables, so one may hold a frame of another's. */
	do {
		before = nr;
		for (unsigned i = 0; i < nr_zones; i++)
			if (node == MF_ANY_NODE || map->zone[i]->node == (unsigned)node)
				nr += zone_fold(map->zone[i], flags);
	} while (nr != before);
	return nr;
}

int mf_fold(struct mf_map *map, int node, enum mf_fold_flags flags, uint64_t *nr_folded)
{
	int err = map_permit(map);
	uint64_t nr;

	if (err)
		return err;
	if (node < MF_ANY_NODE || node >= MF_NODES_MAX || (flags != MF_FOLD_KEEP && flags != MF_FOLD_ALL))
		return -MF_EINVAL;
	nr = zones_fold(map, node, flags);
	if (flags == MF_FOLD_ALL)
		leaves_merge(map, node);
	if (nr_folded)
		*nr_folded = nr;
	return 0;
}

int mf_drain(struct mf_map *map)
{
	unsigned nr_zones = map_nr_zones(map);
	int err = map_permit(map);

	for (unsigned i = 0; i < nr_zones && !err; i++)
		cache_drain(map->zone[i]);
	return err;
}
