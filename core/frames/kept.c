/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kept.c - folios on a diet that were freed: kept until their map slots are restored.
 *
 * A put may neither wait nor fail, and restoring takes memory.  So it lists the folio, frozen, its record of kind used and
 * marked CACHED.  Whoever needs memory restores all of them at once; what cannot be restored stays kept.  Law: no frame of a
 * kept folio is handed out, and none is lost.
 */
#include "core/frames/zone.h"

void kept_put(struct mf_zone *zone, struct mf_page *page)
{
	__atomic_fetch_or(&page->word, MF_FLAG_CACHED, __ATOMIC_RELAXED);
	zone_lock(zone);
	mf_list_push_back(&zone->kept, &page->list);
	zone->nr_kept++;
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

uint64_t kept_restore(struct mf_zone *zone)
{
	struct mf_map *map = zone->map;
	struct mf_list tried, restored;
	uint64_t nr = 0;
	bool taken;
	int err;

	/* Whether it is empty may be told without the lock: who has freed something sees it. */
	if (__atomic_load_n(&zone->nr_kept, __ATOMIC_RELAXED) == 0)
		return 0;
	mf_list_init(&tried);
	mf_list_init(&restored);
	zone_lock(zone);
	move_all(&zone->kept, &tried);
	taken = !mf_list_is_empty(&tried);
	zone->nr_changing += taken;
	zone_unlock(zone);
	if (!taken)
		return 0;
	err = mf_diet_restore_list(map, &tried, &restored, NULL);
	for (; !mf_list_is_empty(&restored); nr++) {
		struct mf_page *page = mf_container_of(restored.next, struct mf_page, list);

		mf_list_remove(&page->list);
		zone_free_folio(zone, page);
	}
	zone_lock(zone);
	move_all(&tried, &zone->kept);
	__atomic_store_n(&zone->nr_kept, zone->nr_kept - nr, __ATOMIC_RELAXED);
	zone->nr_changing--;
	zone_unlock(zone);
	if (err)
		mf_log(MF_LOG_DEBUG, "memfold: zone %u keeps folios whose map cannot be restored: %s", zone->id,
		       mf_strerror(err));
	return nr;
}
