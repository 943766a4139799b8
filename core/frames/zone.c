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

/*
 * A split block (NULL: none that can fold) gained or lost free children.  One that lost none of its capacity can be
 * folded.
 */
static void account(struct mf_zone *zone, struct mf_page *parent, unsigned tier, int64_t nr_children)
{
	bool was, is;

	if (!parent)
		return;
	was = parent->nr_free == parent->capacity;
	parent->nr_free = (uint16_t)(parent->nr_free + nr_children);
	is = parent->nr_free == parent->capacity;
	/* Top blocks fold in sets and stay on split_top; set-aside ones are found on set_aside. */
	if (was == is || zone_folds_in_sets(zone->map, tier + 1) || mf_page_word(parent) & MF_FLAG_SET_ASIDE)
		return;
	if (is) {
		mf_list_push_back(&zone->foldable[tier + 1], &parent->list);
		zone->nr_foldable[tier + 1]++;
	} else {
		mf_list_remove(&parent->list);
		zone->nr_foldable[tier + 1]--;
	}
}

/* As wide as an order can be: a flat region's blocks on tier 0 reach 2^47 descriptors. */
static int64_t children_in(const struct mf_zone *zone, unsigned tier, unsigned order)
{
	return (int64_t)1 << (order - zone->map->geo.shift[tier]);
}

static inline void link_head(struct mf_zone *zone, struct mf_page *page, uint64_t base, unsigned tier, unsigned order,
			     enum zone_class class)
{
	struct zone_area *area = &zone->area[class];

	page->private_data = (uint64_t)class;
	mf_list_push_front(&area->list[tier][order], &page->list);
	area->mask[tier] |= (uint64_t)1 << order;
	area->nr_frames += (uint64_t)1 << order;
	map_set_word(page, base | map_word_order(order) | MF_FLAG_BUDDY);
}

/* base: its word without order and flags. */
static inline enum zone_class unlink_known(struct mf_zone *zone, struct mf_page *page, uint64_t base, unsigned tier,
					   unsigned order)
{
	enum zone_class class = (enum zone_class)page->private_data;
	struct zone_area *area = &zone->area[class];

	mf_list_remove(&page->list);
	page->private_data = 0;
	if (mf_list_is_empty(&area->list[tier][order]))
		area->mask[tier] &= ~((uint64_t)1 << order);
	area->nr_frames -= (uint64_t)1 << order;
	map_set_word(page, base);
	return class;
}

static enum zone_class unlink_head(struct mf_zone *zone, struct mf_page *page)
{
	uint64_t word = mf_page_word(page);

	MF_ASSERT(mf_word_kind(word) == MF_KIND_FREE && word & MF_FLAG_BUDDY);
	return unlink_known(zone, page, map_word_as(word, MF_KIND_FREE), mf_word_tier(word), mf_word_order(word));
}

static void insert_piece(struct mf_zone *zone, struct mf_page *parent, unsigned tier, mf_pfn_t pfn, unsigned order)
{
	const struct mf_map *map = zone->map;
	struct mf_page *record = map_record(map, tier, 0);
	unsigned shift = map->geo.shift[tier];
	uint64_t index = pfn >> shift, base = map_word_as(mf_page_word(&record[index]), MF_KIND_FREE);
	unsigned highest = (unsigned)mf_min(mf_log2(map->geo.span), MF_ORDERS_MAX - 1);
	unsigned order_max = parent ? shift + map->geo.step - 1 : highest;
	int64_t nr_children = children_in(zone, tier, order);

	map_reuse(zone->map, pfn, (uint64_t)1 << order);
	for (; order < order_max; order++) {
		uint64_t size = (uint64_t)1 << (order - shift);
		struct mf_page *buddy = &record[index ^ size];

		/* One compare: free, head, same order, tier, zone, node and region. */
		if (mf_page_word(buddy) != (base | map_word_order(order) | MF_FLAG_BUDDY))
			break;
		unlink_known(zone, buddy, base, tier, order);
		index &= ~size;
	}
	link_head(zone, &record[index], base, tier, order, classify(zone, parent, index << shift));
	account(zone, parent, tier, nr_children);
}

void zone_insert(struct mf_zone *zone, unsigned tier, mf_pfn_t pfn, unsigned order)
{
	insert_piece(zone, zone_parent(zone, tier, pfn), tier, pfn, order);
}

/* The order of the largest aligned piece at `start` that ends by `end` and may stand on this tier. */
static unsigned piece_order(const struct mf_zone *zone, const struct mf_page *parent, unsigned tier, mf_pfn_t start,
			    mf_pfn_t end)
{
	unsigned order = start ? mf_ctz(start) : MF_ORDERS_MAX - 1;

	order = (unsigned)mf_min(order, mf_log2(end - start));
	return (unsigned)mf_min(order, parent ? zone->map->geo.step * (tier + 1) - 1 : MF_ORDERS_MAX - 1);
}

void zone_insert_range(struct mf_zone *zone, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	while (start < end) {
		struct mf_page *parent = zone_parent(zone, tier, start);
		unsigned order = piece_order(zone, parent, tier, start, end);

		insert_piece(zone, parent, tier, start, order);
		start += (mf_pfn_t)1 << order;
	}
}

void zone_insert_fresh(struct mf_zone *zone, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	struct mf_page *parent;
	enum zone_class class;
	uint64_t base;

	if (start == end)
		return;
	map_reuse(zone->map, start, end - start);
	parent = zone_parent(zone, tier, start);
	class = classify(zone, parent, start);
	base = map_word_as(mf_page_word(map_record(zone->map, tier, start)), MF_KIND_FREE);
	account(zone, parent, tier, (int64_t)((end - start) >> zone->map->geo.shift[tier]));
	while (start < end) {
		unsigned order = piece_order(zone, parent, tier, start, end);

		link_head(zone, map_record(zone->map, tier, start), base, tier, order, class);
		start += (mf_pfn_t)1 << order;
	}
}

void zone_remove_children(struct mf_zone *zone, struct mf_page *block)
{
	const struct mf_map *map = zone->map;
	unsigned nr = children_nr(map), host = block->host ? block->host - 1u : nr, i = 0;
	struct mf_page *child = map_record(map, 0, mf_page_to_pfn(map, block));
	int nr_removed = 0;

	while (i < nr) {
		uint64_t word = mf_page_word(&child[i]);

		if (i == host) {
			i += MF_BLOCK_SLOTS;
		} else if (word & MF_FLAG_BUDDY && mf_word_kind(word) == MF_KIND_FREE) {
			unlink_head(zone, &child[i]);
			nr_removed += 1 << mf_word_order(word);
			i += 1u << mf_word_order(word);
		} else {
			MF_ASSERT(mf_word_kind(word) == MF_KIND_MAP);
			i++;
		}
	}
	account(zone, block, 0, -nr_removed);
}

void zone_remove(struct mf_zone *zone, struct mf_page *head)
{
	uint64_t word = mf_page_word(head);
	unsigned tier = mf_word_tier(word);
	struct mf_page *parent = zone_parent(zone, tier, mf_page_to_pfn(zone->map, head));

	unlink_head(zone, head);
	account(zone, parent, tier, -children_in(zone, tier, mf_word_order(word)));
}

struct mf_page *zone_take_row(struct mf_zone *zone, enum zone_class class, unsigned tier, unsigned order, unsigned *nr)
{
	struct zone_area *area = &zone->area[class];
	unsigned shift = zone->map->geo.shift[tier], had;
	uint64_t orders = area->mask[tier] >> order, nr_in_piece, base;
	struct mf_page *page;
	mf_pfn_t pfn;

	if (!orders)
		return NULL;
	had = order + mf_ctz(orders);
	page = mf_container_of(area->list[tier][had].next, struct mf_page, list);
	base = map_word_as(mf_page_word(page), MF_KIND_FREE);
	unlink_known(zone, page, base, tier, had);
	nr_in_piece = (uint64_t)1 << (had - order);
	*nr = (unsigned)mf_min(*nr, nr_in_piece);
	/* The rest as the largest aligned pieces: each is as large as what lies before it is aligned. */
	for (uint64_t at = *nr; at < nr_in_piece; at += at & -at)
		link_head(zone, page + (at << (order - shift)), base, tier, order + mf_ctz(at), class);
	pfn = (mf_pfn_t)(page - map_record(zone->map, tier, 0)) << shift;
	account(zone, zone_parent(zone, tier, pfn), tier, -((int64_t)*nr << (order - shift)));
	return page;
}

struct mf_page *zone_take_on(struct mf_zone *zone, enum zone_class class, unsigned tier, unsigned order)
{
	unsigned nr = 1;

	return zone_take_row(zone, class, tier, order, &nr);
}

struct mf_page *zone_take(struct mf_zone *zone, enum zone_class class, unsigned order)
{
	const struct mf_geometry *g = &zone->map->geo;
	unsigned tier = (unsigned)mf_min(order / g->step, g->top);

	for (;; tier--) {
		struct mf_page *page = zone_take_on(zone, class, tier, order);

		if (page || tier == 0)
			return page;
	}
}

unsigned zone_take_frames(struct mf_zone *zone, struct mf_page *block, mf_pfn_t *pfn, unsigned nr)
{
	const struct mf_map *map = zone->map;
	mf_pfn_t at = mf_page_to_pfn(map, block), end = at + children_nr(map);
	unsigned nr_taken = 0;

	while (at < end && nr_taken < nr) {
		struct mf_page *page = map_record(map, 0, at);
		uint64_t word = mf_page_word(page);
		mf_pfn_t piece_end;

		if (mf_word_kind(word) != MF_KIND_FREE || !(word & MF_FLAG_BUDDY)) {
			at++;
			continue;
		}
		piece_end = at + ((mf_pfn_t)1 << mf_word_order(word));
		zone_remove(zone, page);
		while (at < piece_end && nr_taken < nr)
			pfn[nr_taken++] = at++;
		zone_insert_range(zone, 0, at, piece_end);
	}
	return nr_taken;
}

struct mf_page *zone_begin_unfold(struct mf_zone *zone, enum zone_class class, unsigned order)
{
	const struct mf_geometry *g = &zone->map->geo;

	for (unsigned tier = order / g->step + 1; tier <= g->top; tier++) {
		struct mf_page *block = zone_take_on(zone, class, tier, g->shift[tier]);

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
