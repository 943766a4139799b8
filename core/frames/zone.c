/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zone.c - a zone's free lists: one per class, tier and order.
 *
 * Owns: BUDDY heads and their order, links and class (kept in private_data while the block is free), and of every split
 * record that can fold its nr_free.  A block of tier t merges with its buddy inside its parent only; blocks that fill
 * their parent do not become one here: that is a fold, and lazy.
 *
 * Everything in this file runs under the zone's lock.  Nothing allocates, waits or flushes.
 */
#include "core/frames/zone.h"

struct mf_zone *zone_of_word(const struct mf_map *map, uint64_t word)
{
	return map->zone[mf_word_zone(word)];
}

struct mf_page *zone_parent(const struct mf_zone *zone, unsigned tier, mf_pfn_t pfn)
{
	const struct mf_map *map = zone->map;
	struct mf_page *parent;
	uint64_t word;

	if (tier == map->geo.top)
		return NULL;
	parent = map_record(map, tier + 1, pfn);
	word = mf_page_word(parent);
	if (mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_SPLIT || word & MF_FLAG_EDGE)
		return NULL;
	return parent;
}

static enum zone_class classify(const struct mf_zone *zone, const struct mf_page *parent, mf_pfn_t pfn)
{
	const struct mf_geometry *g = &zone->map->geo;

	if (parent && mf_page_word(parent) & MF_FLAG_SET_ASIDE)
		return ZONE_POOL;
	return pfn >> g->shift[g->top] == zone->home >> g->shift[g->top] ? ZONE_HOME : ZONE_NORMAL;
}

/* A split block gained or lost free children.  One that lost none of its capacity can be folded. */
static void account(struct mf_zone *zone, struct mf_page *parent, unsigned tier, int nr_children)
{
	bool was = parent->nr_free == parent->capacity, is;

	parent->nr_free = (uint16_t)(parent->nr_free + nr_children);
	is = parent->nr_free == parent->capacity;
	/* Top blocks fold in sets and stay on split_top; set-aside ones are found on set_aside. */
	if (was == is || tier + 1 == zone->map->geo.top || mf_page_word(parent) & MF_FLAG_SET_ASIDE)
		return;
	if (is) {
		mf_list_push_back(&zone->foldable[tier + 1], &parent->list);
		zone->nr_foldable[tier + 1]++;
	} else {
		mf_list_remove(&parent->list);
		zone->nr_foldable[tier + 1]--;
	}
}

static int children_in(const struct mf_zone *zone, unsigned tier, unsigned order)
{
	return 1 << (order - zone->map->geo.shift[tier]);
}

static void link_head(struct mf_zone *zone, struct mf_page *page, uint64_t base, unsigned order, enum zone_class class)
{
	struct zone_area *area = &zone->area[class];
	unsigned tier = mf_word_tier(base);

	page->private_data = (uint64_t)class;
	mf_list_push_front(&area->list[tier][order], &page->list);
	area->mask[tier] |= (uint64_t)1 << order;
	area->nr_frames += (uint64_t)1 << order;
	map_set_word(page, base | map_word_order(order) | MF_FLAG_BUDDY);
}

static enum zone_class unlink_head(struct mf_zone *zone, struct mf_page *page)
{
	enum zone_class class = (enum zone_class)page->private_data;
	struct zone_area *area = &zone->area[class];
	uint64_t word = mf_page_word(page);
	unsigned tier = mf_word_tier(word), order = mf_word_order(word);

	MF_ASSERT(mf_word_kind(word) == MF_KIND_FREE && word & MF_FLAG_BUDDY);
	mf_list_remove(&page->list);
	page->private_data = 0;
	if (mf_list_is_empty(&area->list[tier][order]))
		area->mask[tier] &= ~((uint64_t)1 << order);
	area->nr_frames -= (uint64_t)1 << order;
	map_set_word(page, map_word_as(word, MF_KIND_FREE));
	return class;
}

void zone_insert(struct mf_zone *zone, unsigned tier, mf_pfn_t pfn, unsigned order)
{
	const struct mf_map *map = zone->map;
	struct mf_page *parent = zone_parent(zone, tier, pfn);
	uint64_t base = map_word_as(mf_page_word(map_record(map, tier, pfn)), MF_KIND_FREE);
	unsigned order_max = parent ? map->geo.step * (tier + 1) - 1 : mf_log2(map->geo.span) - 1;
	int nr_children = children_in(zone, tier, order);

	while (order < order_max && order < MF_ORDERS_MAX - 1) {
		struct mf_page *buddy = map_record(map, tier, pfn ^ (mf_pfn_t)1 << order);

		/* One compare: free, head, same order, tier, zone, node and region. */
		if (mf_page_word(buddy) != (base | map_word_order(order) | MF_FLAG_BUDDY))
			break;
		unlink_head(zone, buddy);
		pfn &= ~((mf_pfn_t)1 << order);
		order++;
	}
	link_head(zone, map_record(map, tier, pfn), base, order, classify(zone, parent, pfn));
	if (parent)
		account(zone, parent, tier, nr_children);
}

void zone_insert_range(struct mf_zone *zone, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	while (start < end) {
		unsigned order = start ? mf_ctz(start) : MF_ORDERS_MAX - 1;

		order = (unsigned)mf_min(order, mf_log2(end - start));
		order = (unsigned)mf_min(order, MF_ORDERS_MAX - 1);
		zone_insert(zone, tier, start, order);
		start += (mf_pfn_t)1 << order;
	}
}

void zone_remove(struct mf_zone *zone, struct mf_page *head)
{
	uint64_t word = mf_page_word(head);
	unsigned tier = mf_word_tier(word);
	struct mf_page *parent = zone_parent(zone, tier, mf_page_to_pfn(zone->map, head));

	unlink_head(zone, head);
	if (parent)
		account(zone, parent, tier, -children_in(zone, tier, mf_word_order(word)));
}

/* Takes a listed block of at least this order and tier and gives back what is above the order. */
static struct mf_page *take_listed(struct mf_zone *zone, enum zone_class class, unsigned tier, unsigned order)
{
	struct zone_area *area = &zone->area[class];
	uint64_t orders = area->mask[tier] >> order;
	struct mf_page *page, *parent;
	unsigned had;
	uint64_t base;

	if (!orders)
		return NULL;
	had = order + mf_ctz(orders);
	page = mf_container_of(area->list[tier][had].next, struct mf_page, list);
	unlink_head(zone, page);
	base = mf_page_word(page);
	while (had > order) {
		had--;
		link_head(zone, page + children_in(zone, tier, had), base, had, class);
	}
	parent = zone_parent(zone, tier, mf_page_to_pfn(zone->map, page));
	if (parent)
		account(zone, parent, tier, -children_in(zone, tier, order));
	return page;
}

struct mf_page *zone_take(struct mf_zone *zone, enum zone_class class, unsigned order)
{
	const struct mf_geometry *g = &zone->map->geo;
	unsigned tier = (unsigned)mf_min(order / g->step, g->top);

	for (;; tier--) {
		struct mf_page *page = take_listed(zone, class, tier, order);

		if (page || tier == 0)
			return page;
	}
}

struct mf_page *zone_begin_unfold(struct mf_zone *zone, enum zone_class class, unsigned order)
{
	const struct mf_geometry *g = &zone->map->geo;

	for (unsigned tier = order / g->step + 1; tier <= g->top; tier++) {
		struct mf_page *block = take_listed(zone, class, tier, g->shift[tier]);

		if (!block)
			continue;
		map_set_word(block, mf_page_word(block) | MF_FLAG_CHANGING);
		zone->nr_changing++;
		return block;
	}
	return NULL;
}

void zone_end_change(struct mf_zone *zone, struct mf_page *block)
{
	uint64_t word = mf_page_word(block);

	if (mf_word_kind(word) == MF_KIND_FREE)
		map_set_word(block, word & ~MF_FLAG_CHANGING);
	zone->nr_changing--;
}
