/* SPDX-License-Identifier: BSD-2-Clause */
/* check.c - the zones' share of law M8: every list, mask and counter against a recount. */
#include "core/frames/zone.h"

#include "core/memmap/diet.h"

static int check_list(const struct mf_zone *zone, enum zone_class class, unsigned tier, unsigned order,
		      uint64_t *nr_frames, struct mf_violation *v)
{
	const struct zone_area *area = &zone->area[class];
	const struct mf_list *head = &area->list[tier][order];
	bool listed = (area->mask[tier] >> order & 1) != 0;

	if (listed == mf_list_is_empty(head))
		return check_fail(v, "M8", 0,
				  "zone %u: the mask of tier %u, order %u does not tell whether its list is empty",
				  zone->id, tier, order);
	for (const struct mf_list *l = head->next; l != head; l = l->next) {
		const struct mf_page *page = mf_container_of(l, struct mf_page, list);
		uint64_t word = mf_page_word(page);

		if (mf_word_kind(word) != MF_KIND_FREE || !(word & MF_FLAG_BUDDY) || mf_word_tier(word) != tier ||
		    mf_word_order(word) != order || mf_word_zone(word) != zone->id ||
		    page->private_data != (uint64_t)class)
			return check_fail(v, "M8", mf_page_to_pfn(zone->map, page),
					  "a block on zone %u's list of tier %u, order %u does not belong there",
					  zone->id, tier, order);
		*nr_frames += (uint64_t)1 << order;
	}
	return 0;
}

static int check_lists(const struct mf_zone *zone, uint64_t *nr_listed, struct mf_violation *v)
{
	for (unsigned class = 0; class < ZONE_NR_CLASSES; class++) {
		uint64_t nr = 0;

		for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++)
			for (unsigned order = 0; order < MF_ORDERS_MAX; order++)
				if (check_list(zone, (enum zone_class)class, tier, order, &nr, v))
					return 1;
		if (nr != zone->area[class].nr_frames)
			return check_fail(v, "M8", 0,
					  "zone %u counts %llu free frames of class %u; its lists hold %llu", zone->id,
					  (unsigned long long)zone->area[class].nr_frames, class,
					  (unsigned long long)nr);
		*nr_listed += nr;
	}
	return 0;
}

static int check_foldable(const struct mf_zone *zone, struct mf_violation *v)
{
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++) {
		const struct mf_list *head = &zone->foldable[tier];
		uint64_t nr = 0;

		for (const struct mf_list *l = head->next; l != head; l = l->next, nr++) {
			const struct mf_page *page = mf_container_of(l, struct mf_page, list);

			if (mf_page_kind(page) != MF_KIND_SPLIT || page->nr_free != page->capacity)
				return check_fail(v, "M8", mf_page_to_pfn(zone->map, page),
						  "zone %u lists a block as foldable that has users", zone->id);
		}
		if (nr != zone->nr_foldable[tier])
			return check_fail(v, "M8", 0,
					  "zone %u counts %llu foldable blocks of tier %u; its list holds %llu",
					  zone->id, (unsigned long long)zone->nr_foldable[tier], tier,
					  (unsigned long long)nr);
	}
	return 0;
}

static uint64_t list_length(const struct mf_list *head)
{
	uint64_t nr = 0;

	for (const struct mf_list *l = head->next; l != head; l = l->next)
		nr++;
	return nr;
}

/*
 * Hosts are the frames from the first to the end of a listed block, and each backs something of that block; there are
 * no others.
 */
static int check_hosted(const struct mf_zone *zone, uint64_t nr_found, struct mf_violation *v)
{
	const struct mf_map *map = zone->map;
	uint64_t nr = 0;

	for (const struct mf_list *l = zone->hosted.next; l != &zone->hosted; l = l->next) {
		struct hosted_block b = hosted_block_of(zone, mf_container_of(l, struct mf_page, list));
		uintptr_t first = (uintptr_t)map_record(map, 0, b.start);
		uintptr_t last = (uintptr_t)map_record(map, 0, b.end - 1);

		for (mf_pfn_t pfn = b.host; pfn < b.end; pfn++, nr++) {
			const struct mf_page *page = map_record(map, 0, pfn);

			if (!diet_word_hosts(mf_page_word(page)) || page->index < first || page->index > last ||
			    (page->private_data != 0) != (pfn == b.host))
				return check_fail(v, "M6", pfn,
						  "zone %u: no hosting frame of the block from pfn %llu on", zone->id,
						  (unsigned long long)b.start);
		}
	}
	if (nr != nr_found)
		return check_fail(v, "M8", 0, "zone %u lists blocks with %llu hosting frames; there are %llu", zone->id,
				  (unsigned long long)nr, (unsigned long long)nr_found);
	return 0;
}

/* One counter against its list, if it has one, and against what the records say. */
struct compared {
	const char *what;
	uint64_t counted, listed, found;
};

static int check_zone(struct mf_zone *zone, const struct check_zone_totals *t, struct mf_violation *v)
{
	uint64_t listed = 0, cached = cache_count(zone), set_aside = list_length(&zone->set_aside);
	uint64_t split_top = list_length(&zone->split_top);

	if (check_lists(zone, &listed, v) || check_foldable(zone, v) || check_hosted(zone, t->hosts, v))
		return 1;
	const struct compared all[] = {
		{ "free frames", listed, listed, t->listed },
		{ "cached frames", cached, cached, t->cached },
		{ "frames", zone->nr_present, zone->nr_present, t->present },
		{ "set-aside blocks", zone->nr_set_aside, set_aside, t->set_aside },
		{ "foldable blocks", zone->nr_foldable[1], zone->nr_foldable[1], t->foldable },
		{ "split top blocks", split_top, split_top, t->split_top },
		{ "kept folios", zone->nr_kept, list_length(&zone->kept), t->kept },
		{ "blocks that host themselves", zone->nr_hosted, list_length(&zone->hosted), zone->nr_hosted },
		{ "blocks in transition", zone->nr_changing, zone->nr_changing, 0 },
	};
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].counted != all[i].found || all[i].listed != all[i].found)
			return check_fail(v, "M8", 0, "zone %u counts %llu %s and lists %llu; the records say %llu",
					  zone->id, (unsigned long long)all[i].counted, all[i].what,
					  (unsigned long long)all[i].listed, (unsigned long long)all[i].found);
	return 0;
}

int zone_check(struct mf_map *map, const struct check_totals *totals, struct mf_violation *violation)
{
	for (unsigned i = 0; i < map->nr_zones; i++)
		if (check_zone(map->zone[i], &totals->zone[i], violation))
			return 1;
	return 0;
}
