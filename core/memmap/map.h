/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map.h - what the rooms memmap, frames and folio share of a map's inside.
 *
 * memmap owns the mechanism: windows, records, regions, how one block is unfolded and folded.  Which block, when, and
 * with which frames is the business of the room above (frames), which memmap reaches only through struct map_client.
 */
#ifndef MEMFOLD_CORE_MEMMAP_MAP_H
#define MEMFOLD_CORE_MEMMAP_MAP_H

#include <memfold/memmap.h>

#include "core/pgtable/due.h"

struct mf_zone;

/* One per CPU: the epoch in which its open reader section began, 0 when none is open.  Written by that CPU only. */
struct map_reader {
	_Alignas(64) uint64_t epoch;
	unsigned depth;
	unsigned spin_locks; /* zone locks this CPU holds, counted in debug builds                            */
};

/*
 * Frames at a region's start that are kept for its map (reserve.c); start == end when there are none.
 * flat: taken while the region is added, larger leaves from the first aligned block up, slots from both ends.
 * tiered: groups of eight, for one unfolded block each, on a stack under `lock`.
 */
struct reserve {
	mf_pfn_t start, end;
	mf_pfn_t low_next, low_end, leaf_next, high_next;
	struct mf_lock lock;
	unsigned nr_free;
	uint32_t *group;
	unsigned nr_spare;     /* classic diets on an altmap: frames that a diet gave back, a stack under `lock`    */
	uint32_t *spare;
};

struct mf_region {
	struct mf_region_config config;
	struct reserve reserve;
	uint64_t nr_flat_slots; /* slots of tier 0 that a flat region has under full blocks                      */
	mf_pfn_t free_start;   /* first frame that was given to the allocator; the end when none was           */
	enum mf_source source; /* as asked, or HOST where windows are the host's                              */
	unsigned id;
	unsigned zone;         /* index into map->zone                                                        */
	unsigned top;          /* T: highest tier of its blocks, 0 for flat                                   */
};

/* What a walk over all records found in one zone. */
struct check_zone_totals {
	uint64_t listed, cached; /* frames in free blocks on lists, and in caches                               */
	uint64_t present;        /* frames that were given to the allocator                                    */
	uint64_t set_aside;      /* split blocks: of the map pool,                                             */
	uint64_t foldable;       /* of tier 1 without users,                                                   */
	uint64_t split_top;      /* of a top tier that folds in sets                                           */
	uint64_t kept;           /* folios, freed and still on a diet                                          */
	uint64_t hosts;          /* frames of blocks freed from a diet that back slots of their own block       */
};

struct check_totals {
	struct check_zone_totals zone[MF_ZONES_MAX];
};

/* What memmap asks of the room above it. */
struct map_client {
	/* The zone for this node and source, made when there is none.  -MF_ENOMEM, -MF_E2BIG. */
	int (*zone_get)(struct mf_map *map, unsigned node, enum mf_source source, unsigned *zone);
	/* Free blocks of one tier, [start, end) in whole blocks, whose records say so, for the lists. */
	void (*online)(struct mf_map *map, const struct mf_region *region, unsigned tier, mf_pfn_t start, mf_pfn_t end);
	/* Takes every frame of the region off the lists, all blocks whole.  0, or -MF_EBUSY and nothing taken. */
	int (*offline)(struct mf_map *map, const struct mf_region *region);
	/* A table that became uniform, flushed: back to where it came from, a map pool or RAM. */
	void (*table_put)(struct mf_map *map, unsigned node, mf_pfn_t pfn);
	/* A frame of the region itself that backed a slot and does so no more, flushed: free memory, for the lists. */
	void (*frame_put)(struct mf_map *map, const struct mf_region *region, mf_pfn_t pfn);
	/* The room's share of mf_map_check() and mf_map_stats(). */
	int (*check)(struct mf_map *map, const struct check_totals *totals, struct mf_violation *violation);
	void (*stats)(struct mf_map *map, struct mf_map_stats *stats);
};

struct mf_map {
	struct mf_geometry geo;    /* first: mf_map_geometry() relies on it                                    */
	struct mf_machine *machine;
	const struct map_client *client;
	enum mf_map_flags flags;
	uint64_t window_bytes;     /* of all windows together, from geo.window[0]                              */

	struct mf_lock region_lock; /* regions come and go; held across waits and flushes                      */
	struct mf_lock table_lock;  /* page tables of the windows; held across flushes and quiesce: not with a zone's */
	struct mf_pgtable pgtable;  /* table_lock (walks: anyone)                                              */

	struct mf_region *region[MF_REGIONS_MAX]; /* region_lock; entries are read by anyone who holds a block of it */
	unsigned region_limit;     /* region_lock; all regions have lower numbers than this                     */
	struct mf_zone *zone[MF_ZONES_MAX];       /* set once                                                    */
	struct mf_zone *zone_of_node[1 + MF_NODES_MAX]; /* set once; [1 + node]: the first to ask; [0]: MF_ANY_NODE */
	unsigned nr_zones;         /* atomic: map_nr_zones()                                                    */

	uint64_t epoch;            /* atomic: the current reader epoch, from 1                                  */
	struct map_reader *reader; /* [machine->nr_cpus]                                                        */

	struct mf_lock tails_lock;
	struct diet_tails *tails;   /* tails_lock                                                               */
	bool diet_is_off;           /* atomic                                                                   */
	uint64_t remaps_begun, remaps_ended; /* atomic: of a folio, or a list: on the way on a diet              */

	/* Counters, atomic, relaxed. */
	uint64_t nr_described, nr_ram;
	uint64_t nr_tails, nr_uniform; /* zones' tail frames; uniform tables                                       */
	uint64_t quiesces, tables_moved;
	struct map_flushes {
		uint64_t nr, nr_interrupts;
	} flushes_for[MF_NR_FLUSH_FOR];
	uint64_t unfolds[MF_TIERS_MAX], folds[MF_TIERS_MAX];

#ifdef MF_DEBUG
	struct due_log due;        /* TABLES: what the window's entries require of flushes                       */
#endif
};

static inline void map_count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* Zones below this number are there for good: map->zone[] may be read without a lock. */
static inline unsigned map_nr_zones(const struct mf_map *map)
{
	return __atomic_load_n(&map->nr_zones, __ATOMIC_ACQUIRE);
}

/* 0, or -MF_EPERM in a process the map does not belong to. */
static inline int map_permit(const struct mf_map *map)
{
	struct mf_machine *m = map->machine;

	return MF_LIKELY(!m->ops->may_use || m->ops->may_use(m)) ? 0 : -MF_EPERM;
}

/* ---- map.c: an empty map, without the room above --------------------------------------------------------------- */

/* Fills a zeroed map.  Fails as mf_map_create() does, nothing left behind. */
MF_MUST_CHECK int map_init(struct mf_map *map, const struct mf_map_config *config, const struct map_client *client);
void map_exit(struct mf_map *map);

/* ---- Records --------------------------------------------------------------------------------------------------- */

static inline struct mf_page *map_record(const struct mf_map *map, unsigned tier, mf_pfn_t pfn)
{
	return mf_geometry_descriptor(&map->geo, tier, pfn);
}

static inline mf_pfn_t map_block_frames(const struct mf_map *map, unsigned tier)
{
	return (mf_pfn_t)1 << map->geo.shift[tier];
}

/* The word of a record.  Order and flags 0; add them by map_word_order() and |. */
static inline uint64_t map_word(enum mf_kind kind, unsigned tier, unsigned zone, unsigned node, unsigned region)
{
	return (uint64_t)kind << MF_WORD_KIND_SHIFT | (uint64_t)tier << MF_WORD_TIER_SHIFT |
	       (uint64_t)zone << MF_WORD_ZONE_SHIFT | (uint64_t)node << MF_WORD_NODE_SHIFT |
	       (uint64_t)region << MF_WORD_REGION_SHIFT;
}

static inline uint64_t map_region_word(const struct mf_region *r, enum mf_kind kind, unsigned tier)
{
	return map_word(kind, tier, r->zone, r->config.node, r->id);
}

static inline uint64_t map_word_order(unsigned order)
{
	return (uint64_t)order << MF_WORD_ORDER_SHIFT;
}

/* A head with counts: used, or a device's.  Needs: no tail. */
static inline bool map_word_is_folio(uint64_t word)
{
	return mf_word_kind(word) == MF_KIND_USED || mf_word_kind(word) == MF_KIND_DEVICE;
}

/* Of them: freed on its diet, and nobody's until it is restored.  Needs nothing. */
static inline bool map_word_is_kept(uint64_t word)
{
	return !mf_word_is_tail(word) && mf_word_kind(word) == MF_KIND_USED && word & MF_FLAG_CACHED;
}

static inline uint64_t map_word_child(unsigned tier)
{
	return (uint64_t)tier << MF_WORD_CHILD_SHIFT;
}

/* A tail of a folio of 2^order_in_tier descriptors: the AND-mask. */
static inline uint64_t map_tail_word(unsigned order_in_tier)
{
	return ~(((uint64_t)MF_DESCRIPTOR_SIZE << order_in_tier) - 1) | 1;
}

/* What never changes about a record as long as its region lives. */
#define MAP_WORD_IDENTITY                                                                                   \
	((uint64_t)3 << MF_WORD_TIER_SHIFT | ~(uint64_t)0 << MF_WORD_ZONE_SHIFT)

/* The same record with another kind; order, child and flags 0. */
static inline uint64_t map_word_as(uint64_t word, enum mf_kind kind)
{
	return (word & MAP_WORD_IDENTITY) | (uint64_t)kind << MF_WORD_KIND_SHIFT;
}

/* Release: whoever sees the word sees what was written to the descriptors before. */
static inline void map_set_word(struct mf_page *page, uint64_t word)
{
	__atomic_store_n(&page->word, word, __ATOMIC_RELEASE);
}

static inline const struct mf_region *map_word_region(const struct mf_map *map, uint64_t word)
{
	return map->region[mf_word_region(word)];
}

/* Everything but the word and the counts, which readers may load at any time and which are 0 here. */
static inline void map_clear_fields(struct mf_page *page)
{
	/* Stores, not memset: without vector registers that becomes a loop. */
	page->mapcount = 0;
	page->whole_mapcount = 0;
	page->list.next = NULL;
	page->list.prev = NULL;
	page->mapping = 0;
	page->index = 0;
	page->private_data = 0;
}

static inline bool map_fields_are_clear(const struct mf_page *page)
{
	static const struct mf_page clear;
	const size_t from = offsetof(struct mf_page, mapcount);

	return __builtin_memcmp((const char *)page + from, (const char *)&clear + from, sizeof(clear) - from) == 0;
}

/* What a map frame backs, in the mapping field of its record: a slot of a tier, or a table of a level. */
static inline uint64_t map_backs_slot(unsigned tier)
{
	return 2 * (uint64_t)tier + 1;
}

static inline uint64_t map_backs_table(unsigned level)
{
	return 2 * (uint64_t)level + 2;
}

static inline bool map_backs_is_table(uint64_t backs)
{
	return (backs & 1) == 0;
}

static inline unsigned map_backs_level(uint64_t backs)
{
	return (unsigned)((backs - 1) / 2);
}

/* ---- reader.c -------------------------------------------------------------------------------------------------- */

/*
 * Returns when every reader section that began before the call has ended.  Never called in a section or under a spin
 * lock.
 */
void mf_quiesce(struct mf_map *map);
/* Panics when this CPU is in a reader section: what follows may wait for the end of all of them. */
void reader_none_open(struct mf_map *map);

/*
 * Debug builds hold the rule that nothing waits, flushes or quiesces under a zone's lock: a CPU that must answer may be
 * spinning on it.
 */
#ifdef MF_DEBUG
static inline void map_spin_enter(struct mf_map *map)
{
	map->reader[map->machine->ops->cpu(map->machine)].spin_locks++;
}

static inline void map_spin_exit(struct mf_map *map)
{
	map->reader[map->machine->ops->cpu(map->machine)].spin_locks--;
}

static inline void map_may_wait(const struct mf_map *map)
{
	MF_ASSERT(map->reader[map->machine->ops->cpu(map->machine)].spin_locks == 0);
}
#else
static inline void map_spin_enter(struct mf_map *map)
{
	(void)map;
}

static inline void map_spin_exit(struct mf_map *map)
{
	(void)map;
}

static inline void map_may_wait(const struct mf_map *map)
{
	(void)map;
}
#endif

/*
 * Law M5, watched in debug builds (core/pgtable/due.h).  watch: from now on.  reuse: the frames [pfn, pfn + nr) go back
 * to whoever gave them.  rely: what was mapped at [start, start + size) is used from now on.  is_due: what is still to
 * be flushed, a sentence.  tell_dues: in the log, what it came to.
 */
#ifdef MF_DEBUG
MF_BUILD_ASSERT((int)MF_NR_FLUSH_FOR <= (int)DUE_PURPOSES_MAX, "the dues count by purpose");

static inline struct due_log *map_due(struct mf_map *map)
{
	return &map->due;
}

static inline void map_watch(struct mf_map *map)
{
	map->pgtable.due = &map->due;
}

static inline void map_tell_dues(struct mf_map *map)
{
	const struct due_counts *c = &map->due.counts;

	mf_log(MF_LOG_DEBUG,
	       "memfold: flushes: %llu changes required one, %llu were met by %llu, of which %llu met none; %llu were "
	       "not watched",
	       (unsigned long long)c->required, (unsigned long long)c->met,
	       (unsigned long long)c->sent, (unsigned long long)c->needless, (unsigned long long)c->overflowed);
}
#else
static inline struct due_log *map_due(struct mf_map *map)
{
	(void)map;
	return NULL;
}

static inline void map_watch(struct mf_map *map)
{
	(void)map;
}

static inline void map_tell_dues(struct mf_map *map)
{
	(void)map;
}
#endif

static inline void map_reuse(struct mf_map *map, mf_pfn_t pfn, uint64_t nr)
{
	due_reuse(map->machine, map_due(map), pfn, nr);
}

static inline void map_rely(struct mf_map *map, uintptr_t start, uint64_t size_bytes)
{
	due_rely(map->machine, map_due(map), start, size_bytes);
}

static inline bool map_is_due(struct mf_map *map, char *text, size_t size)
{
	return due_is_pending(map->machine, map_due(map), text, size);
}

/* ---- ram.c: frames of source RAM ------------------------------------------------------------------------------- */

MF_MUST_CHECK int ram_get(struct mf_map *map, unsigned node, unsigned order, mf_pfn_t *pfn);
void ram_put(struct mf_map *map, unsigned node, unsigned order, mf_pfn_t pfn);
/* Adds frames until the bag holds nr; -MF_ENOMEM leaves the bag as it was. */
MF_MUST_CHECK int ram_fill(struct mf_map *map, unsigned node, struct mf_bag *bag, unsigned nr);
void ram_empty(struct mf_map *map, unsigned node, struct mf_bag *bag);
/* In the direct map, where the machine can. */
void ram_protect(struct mf_map *map, mf_pfn_t pfn, bool writable);

/* ---- window.c: which slots are backed -------------------------------------------------------------------------- */

/* The children of one block: 2^b records in MF_BLOCK_SLOTS slots. */
struct children {
	mf_pfn_t pfn;    /* first pfn of the block                                                              */
	unsigned tier;   /* of the children                                                                    */
	mf_pfn_t slot[MF_BLOCK_SLOTS]; /* TABLES: the map frames                                                */
};

static inline struct children children_of(mf_pfn_t pfn, unsigned tier)
{
	return (struct children){ .pfn = pfn, .tier = tier };
}

static inline unsigned children_nr(const struct mf_map *map)
{
	return 1u << map->geo.step;
}

static inline uintptr_t children_address(const struct mf_map *map, const struct children *c)
{
	return (uintptr_t)map_record(map, c->tier, c->pfn);
}

static inline uint64_t children_bytes(const struct mf_map *map)
{
	return (uint64_t)MF_DESCRIPTOR_SIZE << map->geo.step;
}

/*
 * Record number `index` before the slots are linked: in its frame (TABLES) or in the window (HOST, where it is the
 * same).
 */
struct mf_page *children_record(const struct mf_map *map, const struct children *c, unsigned index);

/* Every child becomes a record with this word, everything else zero.  HOST: needs the slots populated. */
void children_write(struct mf_map *map, const struct children *c, uint64_t word);

/* Tables that window_link() will need; a later link or unlink next door may change it. */
unsigned window_tables_needed(struct mf_map *map, const struct children *c);

/*
 * The slots become visible.  TABLES: takes tables from `tables`; -MF_ENOMEM when there are too few, nothing changed.
 * HOST: populated earlier by window_populate_host(); nothing to do.  Flush afterwards.
 */
MF_MUST_CHECK int window_link(struct mf_map *map, const struct children *c, struct mf_bag *tables);
MF_MUST_CHECK int window_populate_host(struct mf_map *map, const struct children *c);

/*
 * The slots read as zero again.  TABLES: the frames go to c->slot, tables that became uniform to `tables`; both may be
 * reused after the flush.  The _locked form is called with table_lock held.
 */
void window_unlink(struct mf_map *map, struct children *c, struct mf_bag *tables);
void window_unlink_locked(struct mf_map *map, struct children *c, struct mf_bag *tables);

void window_flush(struct mf_map *map, enum mf_flush_for purpose, uintptr_t start, uint64_t size_bytes,
		  enum mf_flush_scope scope);
void window_flush_children(struct mf_map *map, enum mf_flush_for purpose, const struct children *c,
			   enum mf_flush_scope scope);

/*
 * Slots that live as long as a region (top slots, edges, all of a flat one), from source RAM.
 * ensure backs every slot that touches [start, end), zeroed, keeping those that are backed already; -MF_ENOMEM leaves
 * new ones in place for window_trim().  `leaves`: larger leaves for aligned pieces that lie inside, where frames for
 * them can be had. trim: [start, end) holds no record that counts any more; unbacks every slot inside, and a slot
 * that reaches beyond if nothing but zeros is left in it.  Flushes before it returns frames.  `own`: a region that
 * goes, whose own frames go back to nobody; NULL: all are RAM.
 */
struct window_ensure {
	uintptr_t start, end;
	unsigned node;
	bool leaves;
	bool can_alias;          /* HOST: memory whose slots can become aliases                                 */
	struct reserve *reserve; /* where the slots' frames come from; NULL: RAM                                */
};
MF_MUST_CHECK int window_ensure(struct mf_map *map, const struct window_ensure *want);
void window_trim(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node, const struct mf_region *own);

/*
 * Sharing off (MF_MAP_PRIVATE_TABLES): every table that serves [start, end) becomes private, from RAM; and the
 * reverse.
 */
MF_MUST_CHECK int window_privatise(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node);
void window_share(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node);

/*
 * table_lock serialises changes of the windows' tables.  It may be held across flushes and quiesce, never with a
 * zone's lock.
 */
void table_lock(struct mf_map *map);
void table_unlock(struct mf_map *map);

/* ---- region.c -------------------------------------------------------------------------------------------------- */

/* region_lock: map->region stays as it is.  Above all other locks; never taken in a reader section. */
void region_lock(struct mf_map *map);
void region_unlock(struct mf_map *map);

/* ---- reserve.c: frames of a region that are kept for its map --------------------------------------------------- */

/*
 * Sets the reserve apart, of a region whose config, source, top and nr_flat_slots are known.  -MF_ENOMEM (also: an
 * altmap that is too small for a flat region), -MF_EINVAL; nothing left behind.
 */
MF_MUST_CHECK int reserve_init(struct mf_map *map, struct mf_region *r);
void reserve_exit(struct mf_map *map, struct mf_region *r);
static inline bool reserve_holds(const struct reserve *reserve, mf_pfn_t pfn)
{
	return reserve && pfn >= reserve->start && pfn < reserve->end;
}
/*
 * flat, under region_lock: a frame for a slot (order 0), or the frames of a larger leaf.  untake gives back the last
 * one taken.
 */
MF_MUST_CHECK int reserve_take(struct reserve *reserve, unsigned order, mf_pfn_t *pfn);
void reserve_untake(struct reserve *reserve, unsigned order, mf_pfn_t pfn);
/* tiered: the slots of one block's children, eight frames in a row; -MF_ENOMEM when no group is left. */
MF_MUST_CHECK int reserve_take_slots(struct mf_map *map, struct mf_region *r, mf_pfn_t slot[MF_BLOCK_SLOTS]);
void reserve_put_slots(struct mf_map *map, struct mf_region *r, mf_pfn_t first);

/*
 * Classic diets on an altmap: a frame that backed a slot and does so no more; and one to back a slot with, false when
 * there is none.  set_backs records what such a frame backs; frames of elsewhere have no record.
 */
void reserve_put_frame(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn);
bool reserve_take_frame(struct mf_map *map, const struct mf_region *r, mf_pfn_t *pfn);
void reserve_set_backs(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn, uintptr_t va);

/* ---- fold.c: publishing ---------------------------------------------------------------------------------------- */

/*
 * The block's record says "split, children at tier".  Needs: the children are visible and flushed.  capacity counts
 * children that users can have.
 */
void unfold_publish(struct mf_map *map, struct mf_page *block, unsigned child_tier, uint64_t flags, unsigned capacity,
		    unsigned nr_map, unsigned host);

/*
 * The block's record says it is whole: `word`, every count 0.  The children still exist: quiesce, unlink, flush,
 * release.
 */
void fold_publish_whole(struct mf_map *map, struct mf_page *block, uint64_t word);

/* ---- walk.c ---------------------------------------------------------------------------------------------------- */

/*
 * Visits, in ascending order of pfn, every record from above: split records before their children, then heads of
 * folios and of free blocks, and every other record.  nr_frames: what the record speaks for.  A non-zero answer ends
 * the walk and is returned.
 */
struct map_visit {
	struct mf_page *page;
	uint64_t word;
	unsigned tier;
	mf_pfn_t pfn;
	uint64_t nr_frames;
};
typedef int (*map_visit_fn)(void *ctx, struct mf_map *map, const struct map_visit *at);
int map_walk(struct mf_map *map, map_visit_fn visit, void *ctx);

/* ---- check.c --------------------------------------------------------------------------------------------------- */

/* Does a region hold this frame, as one for its map? */
bool map_frame_is_described(const struct mf_map *map, mf_pfn_t pfn);

/* Fills the violation and returns 1. */
int check_fail(struct mf_violation *violation, const char *law, mf_pfn_t pfn, const char *format, ...)
	MF_PRINTF(4, 5);

#endif
