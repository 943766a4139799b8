/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kept.c - folios on a diet that were freed: kept until their map slots are restored.
 *
 * A put may neither wait nor fail, and restoring takes memory.  So it lists the folio, frozen, its record of kind used
 * and marked CACHED.  Whoever needs memory restores all of them at once; one that finds too little keeps those behind
 * it waiting that need no less [R-HVO-52].  What cannot be restored stays kept, or hosts its own slots (hosted.c).
 * Law: no frame of a kept folio is handed out, and none is lost.  Its private_data is 0 until a restore of it, or of
 * one that needs no more, has failed for lack of memory.
 */
#include "core/frames/zone.h"

#include "core/memmap/diet.h"

void kept_put(struct mf_zone *zone, struct mf_page *page)
{
	/* Release: who sees the mark sees the owner's fields cleared. */
	__atomic_fetch_or(&page->word, MF_FLAG_CACHED, __ATOMIC_RELEASE);
	zone_lock(zone);
	mf_list_push_back(&zone->kept, &page->list);
	__atomic_store_n(&zone->nr_kept, zone->nr_kept + 1, __ATOMIC_RELAXED);
	zone_unlock(zone);
}

static void move_all(struct mf_list *from, struct mf_list *to)
{
	while (!mf_list_is_empty(from)) {
		struct mf_list *node = from->next;

		mf_list_remove(node);
		mf_list_push_back(to, node);
	}
}

static struct mf_page *page_of(struct mf_list *at)
{
	return mf_container_of(at, struct mf_page, list);
}

/* Slots that it has to get frames for: by its order and layout. */
static uint64_t needed_for(struct mf_map *map, struct mf_list *at)
{
	struct diet_unit u = diet_unit(map, page_of(at));

	return u.nr_slots - u.diet->nr_kept;
}

/* The first of those tried found too little memory; what needs as much is not tried.  All of these are marked so. */
static void give_up(struct mf_map *map, struct mf_list *tried, struct mf_list *stay)
{
	uint64_t needed = needed_for(map, tried->next);

	for (struct mf_list *at = tried->next, *next; at != tried; at = next) {
		next = at->next;
		if (needed_for(map, at) < needed)
			continue;
		page_of(at)->private_data = 1;
		mf_list_remove(at);
		mf_list_push_back(stay, at);
	}
}

uint64_t kept_restore(struct mf_zone *zone)
{
	struct mf_map *map = zone->map;
	struct mf_list tried, restored, stay;
	uint64_t nr = 0;
	bool taken;
	int err;

	/* Whether it is empty may be told without the lock: who has freed something sees it. */
	if (__atomic_load_n(&zone->nr_kept, __ATOMIC_RELAXED) == 0)
		return 0;
	mf_list_init(&tried);
	mf_list_init(&restored);
	mf_list_init(&stay);
	zone_lock(zone);
	move_all(&zone->kept, &tried);
	taken = !mf_list_is_empty(&tried);
	zone->nr_changing += taken;
	zone_unlock(zone);
	if (!taken)
		return 0;
	while (!mf_list_is_empty(&tried)) {
		err = mf_diet_restore_list(map, &tried, &restored, NULL);
		if (!err)
			continue;
		mf_log(MF_LOG_DEBUG, "memfold: zone %u keeps folios whose map cannot be restored: %s", zone->id,
		       mf_strerror(err));
		give_up(map, &tried, &stay);
	}
	for (; !mf_list_is_empty(&restored); nr++) {
		struct mf_page *page = page_of(restored.next);

		mf_list_remove(&page->list);
		zone_free_folio(zone, page);
	}
	zone_lock(zone);
	move_all(&stay, &zone->kept);
	__atomic_store_n(&zone->nr_kept, zone->nr_kept - nr, __ATOMIC_RELAXED);
	zone->nr_changing--;
	zone_unlock(zone);
	return nr;
}

/* Restored from itself it would have a free block of this order. */
static bool may_host(const struct mf_map *map, const struct mf_page *page, unsigned order)
{
	uint64_t word = mf_page_word(page);

	return diet_on_tables(map) && mf_word_order(word) > order &&
	       map_word_region(map, word)->config.flags & MF_REGION_RESTORE_FROM_SELF;
}

/* Moves up to nr of those kept to `hosts`; how many. */
static uint64_t take_hosts_locked(struct mf_zone *zone, unsigned order, uint64_t nr, struct mf_list *hosts)
{
	struct mf_list *at, *next;
	uint64_t nr_taken = 0;

	for (at = zone->kept.next; at != &zone->kept && nr_taken < nr; at = next) {
		next = at->next;
		if (!may_host(zone->map, page_of(at), order))
			continue;
		mf_list_remove(at);
		mf_list_push_back(hosts, at);
		nr_taken++;
	}
	return nr_taken;
}

uint64_t kept_host(struct mf_zone *zone, unsigned order, uint64_t nr)
{
	struct mf_list hosts;

	if (__atomic_load_n(&zone->nr_kept, __ATOMIC_RELAXED) == 0)
		return 0;
	mf_list_init(&hosts);
	zone_lock(zone);
	nr = take_hosts_locked(zone, order, nr, &hosts);
	zone->nr_changing += nr > 0;
	zone_unlock(zone);
	if (nr == 0)
		return 0;
	diet_host_list(zone->map, &hosts);
	while (!mf_list_is_empty(&hosts)) {
		struct mf_page *page = page_of(hosts.next);

		mf_list_remove(&page->list);
		hosted_free(zone, page);
	}
	zone_lock(zone);
	__atomic_store_n(&zone->nr_kept, zone->nr_kept - nr, __ATOMIC_RELAXED);
	zone->nr_changing--;
	zone_unlock(zone);
	return nr;
}

/* While somebody restores or hosts, the record may be his; and memory is lacking for the moment only. */
bool kept_lacks_memory_locked(const struct mf_zone *zone, const struct mf_page *page)
{
	return zone->nr_changing == 0 && page->private_data && !may_host(zone->map, page, 0);
}
