/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unfold.c - one block is described by its 2^b children one tier down.
 *
 *   begin (zone_begin_unfold)  off the lists, CHANGING                      zone lock
 *   frames                     for the eight slots and the missing tables    no lock
 *   children_write             records in those frames, counts 0
 *   window_link, flush         readers from below see the children           table_lock; none
 *   unfold_publish             readers from above do too
 *   insert                     the pieces go on the lists                    zone lock
 *
 * Source self: a block of tier 1 hosts its own slots in eight of its frames; everything else comes from the map pool,
 * and when that is empty the block *seeds* it: being off the lists and written before it is linked, it can back its
 * own slots and tables.  So unfolding a free block cannot fail for lack of memory (law M4).
 *
 *   a seeding block of tier 2
 *       [ first child, set aside: .. own 8 | 8 for tier 1 | tables | free -> pool ][ child ][ child ] ...
 */
#include "core/frames/zone.h"

/* Most frames that a seeding block gives up beside its own eight slots: eight slots more and two walks of tables. */
enum { SEED_MAX = MF_BLOCK_SLOTS + 2 * (MF_PGTABLE_LEVELS_MAX - 1) };

struct unfold {
	struct mf_map *map;
	struct mf_zone *zone;
	struct mf_page *block;
	uint64_t child_word;     /* of every child, before those below are set apart                           */
	struct children c;
	struct children seed;    /* of the set-aside child, when a block of tier 2 seeds                        */
	struct mf_bag frames;    /* tables, to be linked                                                       */
	unsigned host;           /* 1 + index of the first hosting frame in its block of tier 1; 0: none         */
	unsigned nr_own;         /* frames of the block, behind the eight hosts, that became map frames          */
	bool seeded, set_aside;
	bool pending;            /* frames of a pool are among them: say what they back                          */
};

/* Where a block hosts its slots: coloured by block number, and with room behind for what a seed adds. */
static unsigned host_place(const struct mf_map *map, mf_pfn_t pfn)
{
	unsigned room = (children_nr(map) - MF_BLOCK_SLOTS - SEED_MAX) / MF_BLOCK_SLOTS;

	return (unsigned)((pfn >> map->geo.shift[1]) % room) * MF_BLOCK_SLOTS;
}

static void host_slots(struct children *c, unsigned place)
{
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		c->slot[i] = c->pfn + place + i;
}

/* The records of the frames that the block keeps for the map. */
static void mark_hosts(struct unfold *u, const struct children *base)
{
	uintptr_t address = children_address(u->map, base);
	unsigned first = u->host - 1, shift = u->map->machine->paging.page_shift;
	uint64_t word = map_word(MF_KIND_MAP, 0, u->zone->id, u->zone->node, mf_word_region(u->child_word));

	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++) {
		struct mf_page *page = children_record(u->map, base, first + i);

		page->mapping = map_backs_slot(0);
		page->index = address + ((uintptr_t)i << shift);
		map_set_word(page, word);
	}
	for (unsigned i = 0; i < u->nr_own; i++)
		map_set_word(children_record(u->map, base, first + MF_BLOCK_SLOTS + i), word | MF_FLAG_PENDING);
}

/* One more frame of the block itself for the map: the next behind those it has given. */
static mf_pfn_t own_frame(struct unfold *u, const struct children *base)
{
	MF_ASSERT(u->nr_own < SEED_MAX);
	return base->pfn + u->host - 1 + MF_BLOCK_SLOTS + u->nr_own++;
}

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

static struct mf_region *region_of(const struct unfold *u)
{
	return u->map->region[mf_word_region(u->child_word)];
}

/* Slots of tier 0 from an altmap where there is one, everything else from RAM. */
static int slots_from_outside(struct unfold *u)
{
	struct mf_bag bag = { 0 };
	int err;

	if (u->zone->source == MF_SOURCE_ALTMAP && u->c.tier == 0)
		return reserve_take_slots(u->map, region_of(u), u->c.slot);
	err = ram_fill(u->map, u->zone->node, &bag, MF_BLOCK_SLOTS);
	for (unsigned i = 0; i < MF_BLOCK_SLOTS && !err; i++)
		u->c.slot[i] = mf_bag_take(&bag);
	return err;
}

static int frames_from_outside(struct unfold *u)
{
	int err = slots_from_outside(u);

	if (err)
		return err;
	err = ram_fill(u->map, u->zone->node, &u->frames, window_tables_needed(u->map, &u->c));
	if (err)
		pool_put_slots(u->map, u->zone->node, u->c.slot, region_of(u));
	return err;
}

static void slots_from_bag(struct children *c, struct mf_bag *bag)
{
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		c->slot[i] = mf_bag_take(bag);
}

/* A block of tier 1: its own slots are in itself; tables from the pool, or from itself, and then it is set aside. */
static void frames_of_low_block(struct unfold *u)
{
	unsigned need = window_tables_needed(u->map, &u->c);

	u->pending = need > 0;
	u->host = 1 + host_place(u->map, u->c.pfn);
	host_slots(&u->c, u->host - 1);
	pool_claim(u->zone, &u->frames, need, u->set_aside ? POOL_AS_IT_IS : POOL_FROM_HOME);
	while (u->frames.nr < need) {
		mf_bag_put(&u->frames, own_frame(u, &u->c));
		u->set_aside = true;
	}
}

/* A block above: slots and tables from the pool; else its first child of tier 1 is set aside and backs them all. */
static void frames_of_high_block(struct unfold *u)
{
	unsigned need = MF_BLOCK_SLOTS + window_tables_needed(u->map, &u->c);

	u->pending = true;
	pool_claim(u->zone, &u->frames, need, POOL_FROM_HOME);
	if (u->frames.nr >= need) {
		slots_from_bag(&u->c, &u->frames);
		return;
	}
	pool_empty(u->map, u->zone->node, &u->frames);
	u->seeded = true;
	u->seed = children_of(u->c.pfn, 0);
	u->host = 1 + host_place(u->map, u->seed.pfn);
	host_slots(&u->seed, u->host - 1);
	need = MF_BLOCK_SLOTS + window_tables_needed(u->map, &u->c) + window_tables_needed(u->map, &u->seed);
	while (u->frames.nr < need)
		mf_bag_put(&u->frames, own_frame(u, &u->seed));
	slots_from_bag(&u->c, &u->frames);
}

static int frames_get(struct unfold *u)
{
	switch (u->zone->source) {
	case MF_SOURCE_HOST:
		return window_populate_host(u->map, &u->c);
	case MF_SOURCE_SELF:
		if (u->c.tier == 0)
			frames_of_low_block(u);
		else
			frames_of_high_block(u);
		return 0;
	default:
		return frames_from_outside(u);
	}
}

/* A link wanted more tables than we had: a fold next door took one away meanwhile. */
static int frames_more(struct unfold *u, const struct children *c)
{
	const struct children *base = u->seeded ? &u->seed : &u->c;
	unsigned need = window_tables_needed(u->map, c);

	if (u->zone->source != MF_SOURCE_SELF)
		return ram_fill(u->map, u->zone->node, &u->frames, need);
	u->pending = true;
	pool_claim(u->zone, &u->frames, need, POOL_AS_IT_IS);
	while (u->frames.nr < need) {
		if (!u->host)
			return -MF_EAGAIN; /* a high block on pool frames: start over, and seed */
		mf_bag_put(&u->frames, own_frame(u, base));
		u->set_aside |= !u->seeded;
		mark_hosts(u, base);
	}
	return 0;
}

static void frames_return(struct unfold *u)
{
	if (u->map->machine->backing != MF_WINDOW_TABLES)
		return;
	pool_empty(u->map, u->zone->node, &u->frames);
	pool_put_slots(u->map, u->zone->node, u->c.slot, region_of(u));
}

/* ---- Write, link, publish -------------------------------------------------------------------------------------- */

static int link_children(struct unfold *u, const struct children *c)
{
	int err;

	while ((err = window_link(u->map, c, &u->frames)) == -MF_ENOMEM) {
		err = frames_more(u, c);
		if (err)
			return err;
	}
	return err;
}

static int write_and_link(struct unfold *u)
{
	struct mf_map *map = u->map;
	int err;

	children_write(map, &u->c, u->child_word);
	if (u->seeded) {
		children_write(map, &u->seed, map_word(MF_KIND_FREE, 0, u->zone->id, u->zone->node,
						       mf_word_region(u->child_word)));
		mark_hosts(u, &u->seed);
		err = link_children(u, &u->seed);
		if (err)
			return err;
	} else if (u->host) {
		mark_hosts(u, &u->c);
	}
	err = link_children(u, &u->c);
	if (err)
		return err;
	window_flush_children(map, MF_FLUSH_FOR_UNFOLD, &u->c, MF_FLUSH_TABLES);
	if (u->seeded) {
		window_flush_children(map, MF_FLUSH_FOR_UNFOLD, &u->seed, MF_FLUSH_TABLES);
		unfold_publish(map, map_record(map, 1, u->seed.pfn), 0, MF_FLAG_SET_ASIDE,
			       children_nr(map) - MF_BLOCK_SLOTS, u->nr_own, u->host);
	}
	return 0;
}

static void publish(struct unfold *u)
{
	unsigned capacity = children_nr(u->map) - (u->host && !u->seeded ? MF_BLOCK_SLOTS : 0);

	unfold_publish(u->map, u->block, u->c.tier, u->set_aside ? MF_FLAG_SET_ASIDE : 0, capacity,
		       u->seeded ? 0 : u->nr_own, u->seeded ? 0 : u->host);
	/* Hosts were marked when their records were written: only frames that came as pending are left. */
	if (u->pending)
		pool_set_backs_children(u->map, &u->c);
	if (u->seeded)
		pool_set_backs_children(u->map, &u->seed);
}

/* ---- Free blocks ----------------------------------------------------------------------------------------------- */

static void insert_low(struct mf_zone *zone, const struct children *c, unsigned host, unsigned nr_own)
{
	mf_pfn_t hosts = c->pfn + host - 1, end = c->pfn + children_nr(zone->map);

	zone_insert_fresh(zone, 0, c->pfn, hosts);
	zone_insert_fresh(zone, 0, hosts + MF_BLOCK_SLOTS + nr_own, end);
}

static void insert_children(struct unfold *u)
{
	struct mf_zone *zone = u->zone;
	mf_pfn_t start = u->c.pfn, end = start + map_block_frames(u->map, u->c.tier + 1);

	zone_lock(zone);
	if (zone_folds_in_sets(u->map, u->c.tier + 1))
		mf_list_push_back(&zone->split_top, &u->block->list);
	if (u->set_aside)
		pool_adopt_locked(zone, u->block);
	if (u->seeded) {
		/*
		 * None of its blocks is listed yet: one that is would stay in its class, and be split while it is
		 * searched.
		 */
		if (zone->home == ZONE_NO_HOME)
			zone->home = start;
		pool_adopt_locked(zone, map_record(u->map, 1, start));
		insert_low(zone, &u->seed, u->host, u->nr_own);
		start += map_block_frames(u->map, u->c.tier);
	}
	if (u->host && !u->seeded)
		insert_low(zone, &u->c, u->host, u->nr_own);
	else
		zone_insert_fresh(zone, u->c.tier, start, end);
	zone_end_change(zone, u->block);
	zone_unlock(zone);
}

static void give_back_block(struct mf_zone *zone, struct mf_page *block)
{
	unsigned tier = mf_word_tier(mf_page_word(block));

	zone_lock(zone);
	zone_end_change(zone, block);
	zone_insert(zone, tier, mf_page_to_pfn(zone->map, block), zone->map->geo.shift[tier]);
	zone_unlock(zone);
}

static struct unfold unfold_of(struct mf_zone *zone, struct mf_page *block, enum mf_kind child_kind)
{
	uint64_t word = mf_page_word(block);
	unsigned child = mf_word_tier(word) - 1;

	return (struct unfold){
		.map = zone->map,
		.zone = zone,
		.block = block,
		.child_word = map_word(child_kind, child, zone->id, zone->node, mf_word_region(word)),
		.c = children_of(mf_page_to_pfn(zone->map, block), child),
	};
}

int unfold_free(struct mf_zone *zone, struct mf_page *block, bool set_aside)
{
	struct unfold u;
	int err;

	do {
		u = unfold_of(zone, block, MF_KIND_FREE);
		u.set_aside = set_aside && u.c.tier == 0 && zone->source == MF_SOURCE_SELF;
		err = frames_get(&u);
		if (err)
			break;
		err = write_and_link(&u);
		if (err)
			frames_return(&u);
	} while (err == -MF_EAGAIN);
	if (err) {
		give_back_block(zone, block);
		return err;
	}
	publish(&u);
	insert_children(&u);
	pool_empty(u.map, zone->node, &u.frames);
	return 0;
}

/* ---- Blocks in use --------------------------------------------------------------------------------------------- */

static int frames_for_used(struct unfold *u)
{
	unsigned need;

	if (u->zone->source == MF_SOURCE_HOST)
		return window_populate_host(u->map, &u->c);
	if (u->zone->source != MF_SOURCE_SELF)
		return frames_from_outside(u);
	need = MF_BLOCK_SLOTS + window_tables_needed(u->map, &u->c);
	u->pending = true;
	pool_claim(u->zone, &u->frames, need, POOL_FROM_ANY);
	if (u->frames.nr < need) {
		pool_empty(u->map, u->zone->node, &u->frames);
		return -MF_ENOMEM;
	}
	slots_from_bag(&u->c, &u->frames);
	return 0;
}

static int unfold_used_once(struct mf_zone *zone, struct mf_page *block, uint64_t child_word)
{
	struct unfold u;
	int err;

	do {
		u = unfold_of(zone, block, MF_KIND_USED);
		u.child_word = child_word;
		err = frames_for_used(&u);
		if (err)
			return err;
		err = write_and_link(&u);
		if (err)
			frames_return(&u);
	} while (err == -MF_EAGAIN);
	if (err)
		return err;
	publish(&u);
	zone_lock(zone);
	if (zone_folds_in_sets(u.map, u.c.tier + 1))
		mf_list_push_back(&zone->split_top, &block->list);
	zone_unlock(zone);
	pool_empty(u.map, zone->node, &u.frames);
	return 0;
}

/* Frames may be had from what is cached or idle: before it is given up, that is drained and folded. */
int unfold_used(struct mf_zone *zone, struct mf_page *block, uint64_t child_word)
{
	int err = unfold_used_once(zone, block, child_word);

	if (err != -MF_ENOMEM)
		return err;
	cache_drain(zone);
	do {
		err = unfold_used_once(zone, block, child_word);
	} while (err == -MF_ENOMEM && (fold_one(zone, 0) || fold_set(zone, 0, FOLD_LAZILY)));
	return err;
}
