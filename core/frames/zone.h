/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zone.h - the inside of a zone: free lists over the tiers, the map pool, caches; what its files share.
 *
 *   zone.c     free lists: insert with merging, remove, take; a split block's count of free children
 *   pool.c     map frames: from set-aside blocks, back to them
 *   unfold.c   one block unfolds (free, or held by its sole owner)
 *   fold.c     one block without users folds
 *   set.c      blocks of the top tier fold in sets
 *   move.c     what outlives a set leaves its frame
 *   alloc.c    what users ask for; the slow path
 *   cache.c    per-CPU caches and the stock
 *   kept.c     freed folios that are still on a diet
 *   hosted.c   freed folios that host their own map slots
 *   isolate.c  free memory that nobody may have for a while
 *   leaves.c   larger leaves of the map again
 *   client.c   what memmap asks: regions online and offline
 *   check.c    the laws, recounted
 */
#ifndef MEMFOLD_CORE_FRAMES_ZONE_H
#define MEMFOLD_CORE_FRAMES_ZONE_H

#include <memfold/frames.h>

#include "core/memmap/map.h"

#include <memfold/diet.h>

/*
 * Whom a free block serves, by where it lies:
 *   NORMAL   users first
 *   HOME     in the home block, where new set-aside blocks come from: users when there is nothing normal
 *   POOL     in a set-aside block: map frames; users of small orders when nothing else is left
 */
enum zone_class { ZONE_NORMAL, ZONE_HOME, ZONE_POOL, ZONE_NR_CLASSES };

struct zone_area {
	struct mf_list list[MF_TIERS_MAX][MF_ORDERS_MAX];
	uint64_t mask[MF_TIERS_MAX]; /* bit o set: list[tier][o] is not empty                                    */
	uint64_t nr_frames;          /* on all the lists                                                       */
};

enum { CACHE_BASES = 62, CACHE_BLOCKS = 14, CACHE_KINDS = 2, STOCK_SIZE = 64 };

/* At hand for one CPU: base frames, and whole blocks of tier 1.  The lock is taken by others only to drain. */
struct zone_cache {
	_Alignas(64) struct mf_lock lock;
	unsigned nr[CACHE_KINDS];
	struct mf_page *base[CACHE_BASES];
	struct mf_page *block[CACHE_BLOCKS];
};

#define ZONE_NO_HOME (~(mf_pfn_t)0)

/*
 * Top blocks whose slots move, and what is held with them (move.c).  The lists: the zone's lock.  One at a time:
 * map->table_lock.  nr_changing does not count them beside the set they move for.
 */
struct move {
	struct mf_list tops;   /* off split_top, their free children off the lists                             */
	struct mf_list blocks; /* set-aside blocks in them: CHANGING, off set_aside, free frames off the lists    */
	struct mf_list parked; /* records of their map frames that came back meanwhile                          */
};

struct mf_zone {
	struct mf_map *map;
	struct mf_machine *machine;
	unsigned id, node;
	enum mf_source source;
	struct zone_cache *cache; /* [machine->nr_cpus], each under its own lock                                 */

	_Alignas(64) struct mf_lock lock; /* all below                                                           */
	struct zone_area area[ZONE_NR_CLASSES];
	struct mf_list foldable[MF_TIERS_MAX];  /* split records without users, by their own tier, below the top   */
	uint64_t nr_foldable[MF_TIERS_MAX];
	struct mf_list split_top;  /* split records of the top tier that are no edge                            */
	struct mf_list set_aside;  /* set-aside blocks, those whose frames should be claimed first in front      */
	uint64_t nr_set_aside;
	uint64_t nr_changing;      /* blocks in transition: allocators wait for them before they give up         */
	mf_pfn_t home;             /* first pfn of the home block (top tier), or ZONE_NO_HOME                     */
	unsigned nr_stock;         /* base frames for callers that may not wait                                 */
	struct mf_page *stock[STOCK_SIZE];
	uint64_t nr_present;       /* frames given online                                                       */
	struct mf_list kept;       /* freed folios on a diet                                                    */
	uint64_t nr_kept;          /* written under the lock, read by anyone                                     */
	struct mf_list hosted;     /* blocks that host slots of their own, by their first hosting frame           */
	uint64_t nr_hosted;        /* written under the lock, read by anyone                                     */
	struct move *move;         /* while slots move, else NULL                                               */
};

static inline void zone_lock(struct mf_zone *zone)
{
	mf_machine_lock(zone->machine, &zone->lock);
	map_spin_enter(zone->map);
}

static inline void zone_unlock(struct mf_zone *zone)
{
	map_spin_exit(zone->map);
	mf_machine_unlock(zone->machine, &zone->lock);
}

/* ---- zone.c: under the zone's lock ----------------------------------------------------------------------------- */

/* A free block goes on the lists and merges with its buddies.  Its records are of kind free, its head's flags 0. */
void zone_insert(struct mf_zone *zone, unsigned tier, mf_pfn_t pfn, unsigned order);
/* [start, end), free records of one tier, in whole blocks, as the largest aligned pieces. */
void zone_insert_range(struct mf_zone *zone, unsigned tier, mf_pfn_t start, mf_pfn_t end);
/* The same for children of one block that has just been unfolded, and of which no piece can merge. */
void zone_insert_fresh(struct mf_zone *zone, unsigned tier, mf_pfn_t start, mf_pfn_t end);
/* Every free piece of a split block of tier 1 leaves the lists. */
void zone_remove_children(struct mf_zone *zone, struct mf_page *block);
/* A block leaves the lists; its head's flags and order become 0. */
void zone_remove(struct mf_zone *zone, struct mf_page *head);
/* A block of exactly this order, from those of its class that need no unfolding; NULL.  Off the lists, kind free. */
struct mf_page *zone_take(struct mf_zone *zone, enum zone_class class, unsigned order);
/* The same from one tier. */
struct mf_page *zone_take_on(struct mf_zone *zone, enum zone_class class, unsigned tier, unsigned order);
/* From 1 to *nr blocks of this order in a row, of which it gives the first, and in *nr how many they are. */
struct mf_page *zone_take_row(struct mf_zone *zone, enum zone_class class, unsigned tier, unsigned order,
			      unsigned *nr);
/*
 * Up to nr of the lowest free frames of a split block of tier 1; how many.  Their records are of kind free, on no
 * list.
 */
unsigned zone_take_frames(struct mf_zone *zone, struct mf_page *block, mf_pfn_t *pfn, unsigned nr);
/*
 * One block, whole, that could be unfolded to serve `order`: of the lowest tier above it; NULL.  Off the lists,
 * CHANGING, counted in nr_changing.
 */
struct mf_page *zone_begin_unfold(struct mf_zone *zone, enum zone_class class, unsigned order);
/* Transition over: clears CHANGING unless the record is no longer free. */
void zone_end_change(struct mf_zone *zone, struct mf_page *block);

/* The split record that counts the children of this tier around pfn; NULL when nothing above can fold. */
struct mf_page *zone_parent(const struct mf_zone *zone, unsigned tier, mf_pfn_t pfn);

static inline struct mf_zone *zone_of_word(const struct mf_map *map, uint64_t word)
{
	return map->zone[mf_word_zone(word)];
}

/*
 * Blocks of the top tier fold in sets, unless the top is the lowest that can be split: then there are set-aside
 * blocks only.
 */
static inline bool zone_folds_in_sets(const struct mf_map *map, unsigned tier)
{
	return tier == map->geo.top && tier > 1;
}

/* ---- pool.c ---------------------------------------------------------------------------------------------------- */

/* Where more map frames may come from when the pool is empty. */
enum pool_growth {
	POOL_AS_IT_IS,   /* nowhere: the caller is growing the pool                                              */
	POOL_FROM_HOME,  /* free blocks of the home block                                                       */
	POOL_FROM_ANY,   /* any free block: for blocks in use, which cannot seed                                 */
};

/* Adds map frames, pending, to the bag until it holds nr, or as many as it can get. */
void pool_claim(struct mf_zone *zone, struct mf_bag *bag, unsigned nr, enum pool_growth growth);
/*
 * Under the zone's lock: a block that is split, and so marked, joins the pool; the first one makes its top block the
 * home.
 */
void pool_adopt_locked(struct mf_zone *zone, struct mf_page *block);
/* POOL_AS_IT_IS, under the zone's lock. */
void pool_claim_locked(struct mf_zone *zone, struct mf_bag *bag, unsigned nr);
/* A map frame, flushed and linked nowhere, goes back: to its pool, or to RAM when it came from there. */
void pool_put(struct mf_map *map, unsigned node, mf_pfn_t pfn);
/* The same for the record of a frame of this zone's pool, under its lock. */
void pool_put_locked(struct mf_zone *zone, struct mf_page *page);
void pool_empty(struct mf_map *map, unsigned node, struct mf_bag *bag);
/* The same for the eight slots of a block's children; r: the block's region, whose reserve they may come from. */
void pool_put_slots(struct mf_map *map, unsigned node, const mf_pfn_t slot[MF_BLOCK_SLOTS], struct mf_region *r);
/* Records what a linked frame backs, if it has a record. */
void pool_set_backs(struct mf_map *map, mf_pfn_t pfn, uint64_t backs, uintptr_t address);
/* The same for the eight slots and for every table on the way to them that is still marked pending. */
void pool_set_backs_children(struct mf_map *map, const struct children *c);
/* The record of a map frame that comes from a pool; NULL for RAM. */
struct mf_page *pool_record(const struct mf_map *map, mf_pfn_t pfn);

/* ---- unfold.c -------------------------------------------------------------------------------------------------- */

/*
 * A free block, begun by zone_begin_unfold(), is split and its children go on the lists; nr_changing falls.
 * set_aside: for the map pool.  -MF_ENOMEM (source RAM or HOST only): the block is back on the lists.
 */
MF_MUST_CHECK int unfold_free(struct mf_zone *zone, struct mf_page *block, bool set_aside);

/*
 * A block in use, frozen by its sole holder: its children become used records of the child's block order with count
 * 0, prepared by the caller's `word`; -MF_ENOMEM, nothing changed.
 */
MF_MUST_CHECK int unfold_used(struct mf_zone *zone, struct mf_page *block, uint64_t child_word);

/* ---- fold.c ---------------------------------------------------------------------------------------------------- */

/* Folds one block of tier 1 without users if there are more than `keep` of them; false when not. */
bool fold_one(struct mf_zone *zone, uint64_t keep);
/* The children, all frozen by the caller, become one record `word` with count 0; map frames are released.  Any tier. */
void fold_used(struct mf_zone *zone, struct mf_page *block, uint64_t word);

/* ---- set.c ----------------------------------------------------------------------------------------------------- */

/* Folds every set-aside block, and every top block but `keep`, that can be folded; how many. */
enum fold_effort {
	FOLD_LAZILY, /* a block that folds for itself moves its tables within the pool only                    */
	FOLD_HARD,   /* to RAM as well: asked for by name, or the memory is to be removed                      */
};
uint64_t fold_set(struct mf_zone *zone, uint64_t keep, enum fold_effort effort);
/* Split top blocks without users; under the zone's lock. */
uint64_t set_count_idle_locked(struct mf_zone *zone);
/* Any frame: is it part of a block that the set under way folds?  Under map->table_lock. */
bool set_holds_frame(const struct mf_map *map, mf_pfn_t pfn);

/* ---- move.c ---------------------------------------------------------------------------------------------------- */

void move_init(struct move *m);
/*
 * A split top block without users: its free children leave the lists, its set-aside blocks that are not chosen to fold
 * go to `held`, CHANGING, without a listed frame.  Under the zone's lock.
 */
void move_take_children_locked(struct mf_zone *zone, struct mf_page *top, struct mf_list *held);
/*
 * From here to the release nobody has a reason to write to a record of a child of `top`, which has no users.  Under the
 * zone's lock, and map->table_lock to the release.  The release ends it for all of them, after a flush.
 */
void move_hold_locked(struct mf_zone *zone, struct move *m, struct mf_page *top);
void move_release_locked(struct mf_zone *zone, struct move *m);
/*
 * The contents of a slot of a held block, or of the table that `page` is the record of, are in new_pfn from now on; the
 * old frame dies with a flush of MF_FLUSH_TABLES.  Under map->table_lock.
 */
void move_slot(struct mf_map *map, uintptr_t slot, mf_pfn_t new_pfn);
/* The slots of a top block's children that are in frames of the set: moves them, or counts them (spare NULL). */
unsigned move_slots_of(struct mf_map *map, const struct mf_page *top, struct mf_bag *spare);
void move_table(struct mf_map *map, const struct mf_page *page, mf_pfn_t new_pfn);

/* ---- cache.c --------------------------------------------------------------------------------------------------- */

static inline struct mf_page **cache_stack(struct zone_cache *cache, unsigned kind)
{
	return kind == 0 ? cache->base : cache->block;
}

static inline unsigned cache_capacity(unsigned kind)
{
	return kind == 0 ? CACHE_BASES : CACHE_BLOCKS;
}

/*
 * What the inline functions below leave to these: an empty or full cache, a drain that holds its lock, a caller that
 * must be held on its CPU first.
 */
struct mf_page *cache_get_slow(struct mf_zone *zone, unsigned kind);
void cache_put_slow(struct mf_zone *zone, unsigned kind, struct mf_page *page);

/* This CPU's cache, locked by one exchange; false: ask the slow function. */
static inline bool cache_try_own(struct mf_zone *zone, struct zone_cache **own)
{
	struct mf_machine *m = zone->machine;
	unsigned cpu;

	if (MF_UNLIKELY(m->ops->pin_cpu != NULL))
		return false;
	cpu = m->ops->cpu(m);
	*own = &zone->cache[cpu];
	return __atomic_exchange_n(&(*own)->lock.held, 1, __ATOMIC_ACQUIRE) == 0;
}

/* A block of tier `kind`: 0 base frames, 1 whole blocks of tier 1.  false: neither cache nor normal lists have one. */
static inline bool cache_get(struct mf_zone *zone, unsigned kind, struct mf_page **page)
{
	struct zone_cache *cache;

	if (MF_LIKELY(cache_try_own(zone, &cache))) {
		unsigned nr = cache->nr[kind];

		if (MF_LIKELY(nr > 0)) {
			*page = cache_stack(cache, kind)[nr - 1];
			cache->nr[kind] = nr - 1;
			mf_lock_release(&cache->lock);
			return true;
		}
		mf_lock_release(&cache->lock);
	}
	*page = cache_get_slow(zone, kind);
	return *page != NULL;
}

/* Its word says free and cached already. */
static inline void cache_put(struct mf_zone *zone, unsigned kind, struct mf_page *page)
{
	struct zone_cache *cache;

	if (MF_LIKELY(cache_try_own(zone, &cache))) {
		unsigned nr = cache->nr[kind];

		if (MF_LIKELY(nr < cache_capacity(kind))) {
			cache_stack(cache, kind)[nr] = page;
			cache->nr[kind] = nr + 1;
			mf_lock_release(&cache->lock);
			return;
		}
		mf_lock_release(&cache->lock);
	}
	cache_put_slow(zone, kind, page);
}

void cache_drain(struct mf_zone *zone);
/* Frames in all caches and the stock. */
uint64_t cache_count(struct mf_zone *zone);
/* Under the zone's lock. */
struct mf_page *stock_take_locked(struct mf_zone *zone);
void stock_fill_locked(struct mf_zone *zone);

/* ---- alloc.c: for the room above ------------------------------------------------------------------------------- */

/* Is this what the caches hold? */
static inline bool zone_caches(const struct mf_map *map, unsigned order, unsigned tier)
{
	return tier < CACHE_KINDS && order == map->geo.shift[tier];
}

/* A block of 2^order frames that the cache did not have: off the lists, records of kind free, flags 0. */
MF_MUST_CHECK int zone_alloc(struct mf_zone *zone, unsigned order, unsigned alloc_flags, struct mf_page **page);
/* What is kept for the map and for callers that may not wait, when no zone has anything else. */
MF_MUST_CHECK int zone_alloc_last_resort(struct mf_zone *zone, unsigned order, struct mf_page **page);
/* The reverse, for what is not cached.  Every record of it is of kind free, counts 0, links zero. */
void zone_free(struct mf_zone *zone, struct mf_page *page, unsigned order);

/* Folds all that can be folded and restores what is kept; how many blocks folded. */
uint64_t zones_fold(struct mf_map *map, int node, enum mf_fold_flags flags);

/* The same for a frozen folio, whose records are still those of one: whoever owned it is forgotten. */
void zone_free_folio(struct mf_zone *zone, struct mf_page *page);

/* ---- kept.c ---------------------------------------------------------------------------------------------------- */

/* A frozen folio on a diet, owned by nobody.  Neither waits nor fails. */
void kept_put(struct mf_zone *zone, struct mf_page *page);
/* Restores the slots of what is kept and frees it, as far as memory goes; how many. */
uint64_t kept_restore(struct mf_zone *zone);
/*
 * Where regions allow it, frees up to nr of the kept folios above this order by letting them host their own slots; how
 * many.
 */
uint64_t kept_host(struct mf_zone *zone, unsigned order, uint64_t nr);
/*
 * Does this kept folio wait for memory from elsewhere, since there was too little for it or for one that needs no more?
 * Under the zone's lock.
 */
bool kept_lacks_memory_locked(const struct mf_zone *zone, const struct mf_page *page);

/* ---- hosted.c -------------------------------------------------------------------------------------------------- */

/* What diet_host_list() has made of a kept folio: its frames up to the first hosting one are free. */
void hosted_free(struct mf_zone *zone, struct mf_page *page);
/* Up to nr blocks become whole again, as far as they are free and memory goes; how many. */
uint64_t hosted_settle(struct mf_zone *zone, uint64_t nr);

/* [start, end), hosting from `host` on: by the record of that frame.  Off the list, under the zone's lock. */
struct hosted_block {
	mf_pfn_t start, host, end;
};
struct hosted_block hosted_block_of(const struct mf_zone *zone, const struct mf_page *first);
void hosted_unlist_locked(struct mf_zone *zone, struct mf_page *first);

/* ---- isolate.c: under the zone's lock ---------------------------------------------------------------------------- */

/*
 * Takes [start, end), frames of one classic region, off the lists; false, and nothing changed, when not all of it is
 * there.  nr_changing counts it until the release, which may add to it what lies next to it and is free, too.
 */
bool zone_isolate(struct mf_zone *zone, mf_pfn_t start, mf_pfn_t end);
void zone_release(struct mf_zone *zone, mf_pfn_t start, mf_pfn_t end);

/* ---- leaves.c -------------------------------------------------------------------------------------------------- */

/* All of a node's classic memory that is free gets larger leaves back.  Takes region_lock. */
void leaves_merge(struct mf_map *map, int node);

/* ---- client.c -------------------------------------------------------------------------------------------------- */

extern const struct map_client zone_client;

/* ---- check.c --------------------------------------------------------------------------------------------------- */

int zone_check(struct mf_map *map, const struct check_totals *totals, struct mf_violation *violation);

#endif
