/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * set.c - blocks of the top tier, and set-aside blocks, fold in sets.
 *
 * The frames of a set-aside block back slots and tables of others, so such blocks depend on each other, also in
 * circles. Which of them fold is decided for all at once, before anything moves:
 *
 *   chosen    set-aside blocks without users, and top blocks whose children are all free or chosen,
 *   less      set-aside blocks with a slot of a block that has users (such slots never move),
 *   less      those whose surviving tables and slots find no other frame; to a fixpoint.
 *
 * Then, for the whole set: what outlives it moves out (move.c); parents whole; one quiesce; every entry switched; one
 * flush; frames outside the set released.  map->table_lock is held from the decision to the flush, so no link
 * overtakes us.
 *
 * A top block counts its chosen children in private_data while we decide.  A claimed frame that the page tables do
 * not confirm is in another CPU's hands, and keeps its block.
 */
#include "core/frames/zone.h"

/* Frames for what moves: so many from RAM when the pool has none, so many at all. */
enum { SET_RAM_MAX = 16, SET_MOVES_MAX = MF_BAG_MAX };

struct set {
	struct mf_map *map;
	struct mf_zone *zone;
	struct mf_list tops;   /* chosen top blocks, off split_top                                            */
	struct mf_list blocks; /* chosen set-aside blocks, off zone->set_aside                                 */
	struct mf_list later;  /* records of map frames outside the set, to be released after the flush        */
	enum fold_effort effort;
	struct mf_bag spare;   /* frames for what moves: RAM first, then the pool's on top                     */
	struct move move;      /* top blocks that stay and have a slot in the set                              */
	struct mf_bag dead;    /* RAM frames to be released after the flush                                   */
	uint64_t nr;
};

#define set_for_each(page, next, head)                                                                     \
	for (page = mf_container_of((head)->next, struct mf_page, list),                                   \
	    next = mf_container_of(page->list.next, struct mf_page, list);                                 \
	     &page->list != (head); page = next, next = mf_container_of(page->list.next, struct mf_page, list))

static bool is_chosen(const struct mf_page *page)
{
	return (mf_page_word(page) & MF_FLAG_CHOSEN) != 0;
}

static struct mf_page *top_of(const struct mf_map *map, mf_pfn_t pfn)
{
	return map_record(map, map->geo.top, pfn);
}

/* Does the block of tier 1 at pfn fold with the top block around it? */
static bool folds_with_top(const struct mf_map *map, mf_pfn_t pfn)
{
	return map->geo.top > 1 && is_chosen(top_of(map, pfn));
}

static void choose(struct mf_page *page)
{
	map_set_word(page, mf_page_word(page) | MF_FLAG_CHOSEN);
}

static void drop(struct mf_page *page)
{
	map_set_word(page, mf_page_word(page) & ~MF_FLAG_CHOSEN);
}

/* The block of tier 1 or the top block around pfn folds with the set. */
static bool in_set(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_page *top = top_of(map, pfn);

	return is_chosen(top) || (mf_page_kind(top) == MF_KIND_SPLIT && mf_word_child(mf_page_word(top)) == 1 &&
				  is_chosen(map_record(map, 1, pfn)));
}

/* RAM may lie beyond the span, where no record is. */
bool set_holds_frame(const struct mf_map *map, mf_pfn_t pfn)
{
	return pfn < map->geo.span && in_set(map, pfn);
}

static unsigned window_tier(const struct mf_map *map, uintptr_t address)
{
	return mf_page_tier(map, (const struct mf_page *)address);
}

/* mf_pgtable_dies_fn: this slot goes with the set. */
static bool slot_dies(void *ctx, uintptr_t address)
{
	const struct mf_map *map = ctx;
	unsigned tier = window_tier(map, address);
	mf_pfn_t pfn = mf_page_to_pfn(map, (const struct mf_page *)address);

	if (tier == map->geo.top)
		return false;
	return tier == 0 ? in_set(map, pfn) : is_chosen(top_of(map, pfn));
}

/* ---- The claims of a set-aside block --------------------------------------------------------------------------- */

/* Every child is free or a set-aside block without users: as counted for this decision. */
static bool top_is_idle(const struct mf_page *top)
{
	return top->nr_free + top->private_data == top->capacity;
}

/* One that is on its way on split_top or off it was not counted; it has no free child. */
static bool top_may_move(const struct mf_page *top)
{
	return top->nr_free > 0 && top_is_idle(top);
}

/* Not of tier 0: those are in the block itself, or it was divided in use and folds by itself when it is not. */
static bool slot_may_move(const struct mf_map *map, uintptr_t slot)
{
	return zone_folds_in_sets(map, window_tier(map, slot) + 1) &&
	       top_may_move(top_of(map, mf_page_to_pfn(map, (const struct mf_page *)slot)));
}

enum claim { CLAIM_NONE, CLAIM_DIES, CLAIM_MOVES, CLAIM_PINS };

static enum claim claim_of_table(const struct mf_map *map, const struct mf_page *page, mf_pfn_t pfn)
{
	unsigned level = map_backs_level(page->mapping);
	mf_pfn_t table;

	if (!mf_pgtable_table(&map->pgtable, page->index, level, &table) || table != pfn)
		return CLAIM_PINS;
	return mf_pgtable_survives(&map->pgtable, page->index, level, slot_dies, (void *)(uintptr_t)map) ? CLAIM_MOVES :
													  CLAIM_DIES;
}

static enum claim claim_of_slot(const struct mf_map *map, const struct mf_page *page, mf_pfn_t pfn)
{
	struct mf_translation t = mf_pgtable_walk(&map->pgtable, page->index);

	if (t.background || t.pfn != pfn)
		return CLAIM_PINS;
	if (slot_dies((void *)(uintptr_t)map, page->index))
		return CLAIM_DIES;
	return slot_may_move(map, page->index) ? CLAIM_MOVES : CLAIM_PINS;
}

static enum claim claim_of(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_page *page = map_record(map, 0, pfn);

	if (mf_page_kind(page) != MF_KIND_MAP)
		return CLAIM_NONE;
	if (mf_page_word(page) & MF_FLAG_PENDING)
		return CLAIM_PINS;
	return map_backs_is_table(page->mapping) ? claim_of_table(map, page, pfn) : claim_of_slot(map, page, pfn);
}

/* How many tables and slots of the block have to move; false when something else keeps it. */
static bool claims_allow(const struct mf_map *map, const struct mf_page *block, unsigned *nr_moves)
{
	mf_pfn_t start = mf_page_to_pfn(map, block);

	*nr_moves = 0;
	if (block->nr_map == 0)
		return true;
	for (unsigned i = 0; i < children_nr(map); i++) {
		enum claim claim;

		if (i == block->host - 1u) {
			i += MF_BLOCK_SLOTS - 1;
			continue;
		}
		claim = claim_of(map, start + i);
		if (claim == CLAIM_PINS)
			return false;
		*nr_moves += claim == CLAIM_MOVES;
	}
	return true;
}

/* ---- The decision, under table_lock and the zone's lock -------------------------------------------------------- */

static bool block_is_idle(const struct mf_page *block)
{
	return block->nr_free + block->nr_map == block->capacity;
}

/* Every top block counts its idle set-aside children. */
static void count_idle_children(struct mf_zone *zone)
{
	struct mf_page *page, *next;

	set_for_each(page, next, &zone->split_top)
		page->private_data = 0;
	set_for_each(page, next, &zone->set_aside)
		if (block_is_idle(page))
			top_of(zone->map, mf_page_to_pfn(zone->map, page))->private_data++;
}

uint64_t set_count_idle_locked(struct mf_zone *zone)
{
	struct mf_page *page, *next;
	uint64_t nr = 0;

	count_idle_children(zone);
	set_for_each(page, next, &zone->split_top)
		nr += top_is_idle(page);
	return nr;
}

static void choose_all(struct set *s, uint64_t keep)
{
	struct mf_zone *zone = s->zone;
	struct mf_page *page, *next;

	count_idle_children(zone);
	set_for_each(page, next, &zone->set_aside)
		if (block_is_idle(page))
			choose(page);
	set_for_each(page, next, &zone->split_top) {
		if (!top_is_idle(page))
			continue;
		/* The blocks of one that is kept may fold for themselves. */
		if (keep > 0)
			keep--;
		else
			choose(page);
	}
}

/*
 * Could tables and slots move to RAM?  Those of a top block that folds, or of any block when it is to be; a full zone
 * asks for none.
 */
static bool may_use_ram(struct mf_zone *zone, enum fold_effort effort)
{
	struct mf_page *page, *next;
	bool may;

	zone_lock(zone);
	may = effort == FOLD_HARD && zone->nr_set_aside > 0;
	set_for_each(page, next, &zone->split_top)
		may |= page->nr_free + zone->nr_set_aside >= page->capacity;
	zone_unlock(zone);
	return may;
}

static void drop_block(struct set *s, struct mf_page *block)
{
	struct mf_page *top = top_of(s->map, mf_page_to_pfn(s->map, block));

	drop(block);
	drop(top);
}

/* What a pass over the chosen blocks has left of the frames for what moves. */
struct budget {
	uint64_t pool, ram;
};

static struct budget budget_of(const struct set *s)
{
	struct budget b = { .pool = s->zone->area[ZONE_POOL].nr_frames, .ram = s->spare.nr };
	struct mf_page *page, *next;

	set_for_each(page, next, &s->zone->set_aside)
		if (is_chosen(page))
			b.pool -= page->nr_free;
	b.pool = mf_min(b.pool, SET_MOVES_MAX - b.ram);
	return b;
}

/* A block that folds alone pushes what it hosts out to RAM only when it has to: that saves no memory. */
static bool afford(const struct set *s, struct budget *b, const struct mf_page *block, unsigned nr_moves)
{
	bool with_top = folds_with_top(s->map, mf_page_to_pfn(s->map, block));
	uint64_t of_pool = mf_min(nr_moves, b->pool);

	if (nr_moves - of_pool > (with_top || s->effort == FOLD_HARD ? b->ram : 0))
		return false;
	b->pool -= of_pool;
	b->ram -= nr_moves - of_pool;
	return true;
}

/*
 * Drops what something keeps.  Only when nothing does, drops what finds too few frames for what has to move: the frames
 * of what was dropped are the pool's.  True when it dropped anything.  *nr_moves: what the rest takes from the pool.
 */
static bool drop_some(struct set *s, uint64_t *nr_moves)
{
	struct budget b = budget_of(s);
	uint64_t had = b.pool;
	struct mf_page *page, *next;
	bool dropped = false, poor = false;
	unsigned moves;

	set_for_each(page, next, &s->zone->set_aside) {
		if (!is_chosen(page))
			continue;
		if (!claims_allow(s->map, page, &moves)) {
			drop_block(s, page);
			dropped = true;
		} else if (!poor) {
			poor = !afford(s, &b, page, moves);
		}
	}
	*nr_moves = had - b.pool;
	if (dropped || !poor)
		return dropped;
	b = budget_of(s);
	set_for_each(page, next, &s->zone->set_aside)
		if (is_chosen(page) && (!claims_allow(s->map, page, &moves) || !afford(s, &b, page, moves)))
			drop_block(s, page);
	return true;
}

static void take_top(struct set *s, struct mf_page *top)
{
	move_take_children_locked(s->zone, top, NULL); /* its set-aside blocks are chosen, and taken */
	mf_list_remove(&top->list);
	mf_list_push_back(&s->tops, &top->list);
	s->nr++;
}

static void take_all(struct set *s)
{
	struct mf_zone *zone = s->zone;
	struct mf_page *page, *next;

	set_for_each(page, next, &zone->set_aside) {
		if (!is_chosen(page))
			continue;
		zone_remove_children(zone, page);
		mf_list_remove(&page->list);
		mf_list_push_back(&s->blocks, &page->list);
		zone->nr_set_aside--;
		s->nr += !folds_with_top(s->map, mf_page_to_pfn(s->map, page));
	}
	set_for_each(page, next, &zone->split_top)
		if (is_chosen(page))
			take_top(s, page);
	zone->nr_changing += s->nr;
}

/* ---- Moving, switching, releasing ------------------------------------------------------------------------------ */

static void move_tables(struct set *s)
{
	struct mf_page *page, *next;

	set_for_each(page, next, &s->blocks) {
		mf_pfn_t start = mf_page_to_pfn(s->map, page);

		for (unsigned i = 0; i < children_nr(s->map) && page->nr_map; i++) {
			const struct mf_page *table = map_record(s->map, 0, start + i);

			if (i == page->host - 1u)
				i += MF_BLOCK_SLOTS - 1;
			else if (map_backs_is_table(table->mapping) && claim_of(s->map, start + i) == CLAIM_MOVES)
				move_table(s->map, table, mf_bag_take(&s->spare));
		}
	}
}

/* Top blocks that stay, with slots in the set. */
static void hold_movers(struct set *s)
{
	struct mf_page *page, *next;

	if (mf_list_is_empty(&s->blocks))
		return; /* also where there are no tables to walk */
	set_for_each(page, next, &s->zone->split_top)
		if (top_may_move(page) && move_slots_of(s->map, page, NULL))
			move_hold_locked(s->zone, &s->move, page);
}

/* Flushed by itself: a set-aside block that becomes whole may have its record in one of these slots. */
static void move_slots(struct set *s)
{
	struct mf_page *page, *next;

	if (mf_list_is_empty(&s->move.tops))
		return;
	set_for_each(page, next, &s->move.tops)
		move_slots_of(s->map, page, &s->spare);
	window_flush(s->map, MF_FLUSH_FOR_MOVE, s->map->geo.window[0], s->map->window_bytes, MF_FLUSH_TABLES);
	zone_lock(s->zone);
	move_release_locked(s->zone, &s->move);
	zone_unlock(s->zone);
}

/* A frame that nothing translates to any more, but stale translations may. */
static void release_later(struct set *s, mf_pfn_t pfn)
{
	struct mf_page *page;

	if (set_holds_frame(s->map, pfn))
		return; /* it is part of a block that is whole now */
	page = pool_record(s->map, pfn);
	if (page) {
		mf_list_push_back(&s->later, &page->list);
		return;
	}
	if (s->dead.nr == MF_BAG_MAX) {
		window_flush(s->map, MF_FLUSH_FOR_SET, s->map->geo.window[0], s->map->window_bytes, MF_FLUSH_TABLES);
		ram_empty(s->map, s->zone->node, &s->dead);
	}
	mf_bag_put(&s->dead, pfn);
}

static void unlink_children(struct set *s, struct mf_page *block, unsigned child_tier)
{
	struct children c = children_of(mf_page_to_pfn(s->map, block), child_tier);
	struct mf_bag tables = { 0 };

	window_unlink_locked(s->map, &c, &tables);
	if (s->map->machine->backing != MF_WINDOW_TABLES)
		return;
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		release_later(s, c.slot[i]);
	while (tables.nr > 0)
		release_later(s, mf_bag_take(&tables));
}

static uint64_t whole_word(const struct mf_page *page)
{
	return map_word_as(mf_page_word(page), MF_KIND_FREE) | MF_FLAG_CHANGING | MF_FLAG_CHOSEN;
}

/* Blocks that fold with their top block end with it; their own records vanish. */
static void fold_all(struct set *s)
{
	struct mf_map *map = s->map;
	struct mf_page *page, *next;

	set_for_each(page, next, &s->tops)
		fold_publish_whole(map, page, whole_word(page));
	set_for_each(page, next, &s->blocks)
		if (!folds_with_top(map, mf_page_to_pfn(map, page)))
			fold_publish_whole(map, page, whole_word(page));
	mf_quiesce(map);
	set_for_each(page, next, &s->blocks) {
		unlink_children(s, page, 0);
		if (folds_with_top(map, mf_page_to_pfn(map, page)))
			mf_list_remove(&page->list);
	}
	set_for_each(page, next, &s->tops)
		unlink_children(s, page, map->geo.top - 1);
	window_flush(map, MF_FLUSH_FOR_SET, map->geo.window[0], map->window_bytes, MF_FLUSH_TABLES);
	ram_empty(map, s->zone->node, &s->dead);
}

static void insert_whole(struct set *s, struct mf_list *list, unsigned tier)
{
	struct mf_page *page, *next;

	set_for_each(page, next, list) {
		mf_list_remove(&page->list);
		drop(page);
		zone_end_change(s->zone, page);
		zone_insert(s->zone, tier, mf_page_to_pfn(s->map, page), s->map->geo.shift[tier]);
	}
}

static void release_all(struct set *s)
{
	struct mf_zone *zone = s->zone;
	struct mf_page *page, *next;

	set_for_each(page, next, &s->later) {
		mf_list_remove(&page->list);
		pool_put(s->map, zone->node, mf_page_to_pfn(s->map, page));
	}
	zone_lock(zone);
	if (zone->home != ZONE_NO_HOME && is_chosen(top_of(s->map, zone->home)))
		zone->home = ZONE_NO_HOME;
	insert_whole(s, &s->blocks, 1);
	insert_whole(s, &s->tops, s->map->geo.top);
	zone_unlock(zone);
}

uint64_t fold_set(struct mf_zone *zone, uint64_t keep, enum fold_effort effort)
{
	struct mf_map *map = zone->map;
	struct set s = { .map = map, .zone = zone, .effort = effort };
	uint64_t nr_moves = 0;

	mf_list_init(&s.tops);
	mf_list_init(&s.blocks);
	mf_list_init(&s.later);
	move_init(&s.move);
	if (map->machine->backing == MF_WINDOW_TABLES && may_use_ram(zone, effort))
		(void)!ram_fill(map, zone->node, &s.spare, SET_RAM_MAX); /* none is fine: then the pool has to do */
	table_lock(map);
	zone_lock(zone);
	choose_all(&s, keep);
	while (drop_some(&s, &nr_moves))
		;
	take_all(&s);
	pool_claim_locked(zone, &s.spare, s.spare.nr + (unsigned)nr_moves);
	hold_movers(&s);
	zone_unlock(zone);
	if (s.nr) {
		move_tables(&s);
		move_slots(&s);
		fold_all(&s);
	}
	table_unlock(map);
	if (s.nr)
		release_all(&s);
	pool_empty(map, zone->node, &s.spare);
	return s.nr;
}
