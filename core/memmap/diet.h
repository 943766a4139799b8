/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diet.h - the engine of the classic diets, below folios: the map slots of one unit become aliases and own again.
 *
 *   diet.c      the parameters of the layouts
 *   tails.c     the frames that serve the tails of a whole zone
 *   work.c      what waits for a flush
 *   remap.c     one folio goes on its diet
 *   restore.c   one folio goes off it
 *   onoff.c     the calls: one folio, or a list
 *   hosted.c    freed folios that host their own slots
 *   merge.c     larger leaves again, under memory that is all free
 *   compound.c  a region that is populated on its diet (devdax): its slots
 *   compound_folio.c  ... its records
 *   check_diet.c  what mf_map_check() finds of it
 *
 * The contents of all descriptors are the same before, during and after; only which frames they lie in changes.  A unit
 * is frozen by its owner meanwhile, so its descriptors are read and never written.  Order, always: copy, switch the
 * entries, flush, release (law M5).  Before slots turn read-only, and only then, quiesce: a reader may have loaded a
 * count in a descriptor that was a head before the folio was made, and be about to compare-and-swap there.
 */
#ifndef MEMFOLD_CORE_MEMMAP_DIET_H
#define MEMFOLD_CORE_MEMMAP_DIET_H

#include <memfold/diet.h>

#include "core/memmap/map.h"

/* ---- diet.c ---------------------------------------------------------------------------------------------------- */

#define DIET_NO_FRAME (~(mf_pfn_t)0)

/*
 * What stands behind the aliased slots of all units of one order in a zone (MF_TAILS_ZONE).  Lives until the last
 * region of such a layout leaves the zone.
 */
struct diet_tails {
	struct diet_tails *next;
	unsigned zone, order, node;
	mf_pfn_t frame;   /* TABLES: full of tails                                                             */
	mf_pfn_t uniform; /* a uniform table of that frame, or DIET_NO_FRAME where none is needed               */
	void *slot;       /* HOST: a window of one slot, full of tails                                          */
};

/*
 * A unit that hosts its own slots: frames come from the altmap, in the order of the slots, until that has none to
 * spare, and from then on from the unit's end, whatever others give back meanwhile.  So a smaller folio has a slot in
 * the block's own frames only if its last slot is in one.
 */
struct diet_host {
	mf_pfn_t first; /* the unit's frames from here on are given away                                       */
	bool has_slots; /* slots among them, not only tables                                                   */
};

/* The slots of one unit. */
struct diet_unit {
	struct mf_map *map;
	const struct mf_region *r;
	const struct mf_diet *diet;
	struct mf_page *head;
	unsigned order;
	uintptr_t start;   /* the first slot; all are aligned to their own size                                  */
	uint64_t nr_slots;
	struct diet_host *host; /* restore only; or NULL                                                         */
};

/* By its head's word; and of this order before the head says so. */
struct diet_unit diet_unit(struct mf_map *map, struct mf_page *head);
struct diet_unit diet_unit_at(struct mf_map *map, const struct mf_region *r, struct mf_page *head, unsigned order);

/* Does its layout save slots of it, by remap? */
bool diet_unit_saves(const struct diet_unit *u);

/* Slots that one table of level 0 serves. */
static inline uint64_t diet_table_slots(const struct mf_map *map)
{
	return (uint64_t)1 << map->geo.step;
}

static inline uint64_t diet_slot_bytes(const struct mf_map *map)
{
	return (uint64_t)1 << map->machine->paging.page_shift;
}

static inline uintptr_t diet_slot_address(const struct diet_unit *u, uint64_t index)
{
	return u->start + index * diet_slot_bytes(u->map);
}

static inline bool diet_on_tables(const struct mf_map *map)
{
	return map->machine->backing == MF_WINDOW_TABLES;
}

/* Addresses that it serves. */
static inline uint64_t diet_table_bytes(const struct mf_map *map)
{
	return mf_pgtable_span(&map->machine->paging, 1);
}

/* Full tables may be uniform ones: sharing is on, and a table is full of the unit's slots. */
static inline bool diet_shares_tables(const struct diet_unit *u)
{
	return !(u->map->flags & MF_MAP_PRIVATE_TABLES) && u->nr_slots > diet_table_slots(u->map);
}

/* The first slots of a frozen unit, as they are, in frames that nothing shows yet. */
void diet_copy_kept(const struct diet_unit *u, void *to, uint64_t nr_slots);

/* One frame full of tails of this order. */
void diet_write_tails(struct mf_map *map, void *slot, unsigned order);

/* ---- tails.c --------------------------------------------------------------------------------------------------- */

/*
 * The tails of a zone and order, made when there are none, with a uniform table where units of that order share one.
 * -MF_ENOMEM, nothing changed.  drop: those of a zone that no region needs any more; nothing leads there, and that is
 * flushed.
 */
MF_MUST_CHECK int diet_tails_get(const struct diet_unit *u, struct diet_tails **tails);
void diet_tails_drop(struct mf_map *map, unsigned zone);

/* A uniform table of `frame` from RAM, counted; and its end, flushed. */
MF_MUST_CHECK int diet_uniform_make(struct mf_map *map, unsigned node, mf_pfn_t frame, mf_pfn_t *table);
void diet_uniform_end(struct mf_map *map, unsigned node, mf_pfn_t table);

/* ---- diet.c again: frames -------------------------------------------------------------------------------------- */

/*
 * Slots of the region come from RAM or its altmap, singly or (RAM) as 2^b for a larger leaf; -MF_ENOMEM.  What the
 * region held itself goes back to its altmap, or (source self) becomes free memory.
 */
MF_MUST_CHECK int diet_frame_get(struct mf_map *map, const struct mf_region *r, unsigned order, mf_pfn_t *pfn);
void diet_frame_put(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn);
/* The frames of a larger leaf. */
void diet_block_put(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn);

/* Law M5: the slots of the unit are relied on as they are now. */
static inline void diet_rely(const struct diet_unit *u)
{
	map_rely(u->map, u->start, u->nr_slots * diet_slot_bytes(u->map));
}

/* ---- work.c ---------------------------------------------------------------------------------------------------- */

/*
 * What was switched away and waits for a flush: frames, tables, and the addresses that led to them.  Flushes and
 * releases by itself when it is full.
 */
enum diet_waste {
	DIET_FRAMES,  /* single ones in a row                                                                 */
	DIET_BLOCK,   /* of a larger leaf                                                                     */
	DIET_TABLE,
	DIET_UNIFORM,
};

enum { DIET_CHUNK = 64, DIET_RUNS_OWN = DIET_CHUNK + 8 };

struct diet_run {
	const struct mf_region *r;
	mf_pfn_t pfn;
	uint32_t nr;
	enum diet_waste what;
};

struct diet_work {
	struct mf_map *map;
	uintptr_t start, end; /* to be flushed                                                                 */
	enum mf_flush_scope scope;
	enum mf_flush_for purpose;
	bool has_split;       /* the last diet_split() has made a table of a leaf                               */
	uint64_t nth_remap;   /* of the map's remaps, if no other was on its way when this began; else 0         */
	unsigned nr, max;
	struct diet_run *run;
	struct diet_run own[DIET_RUNS_OWN];
};

/* nr_units: 1 works on what it has; more asks for control memory, and does with less. */
void diet_work_begin(struct diet_work *w, struct mf_map *map, enum mf_flush_for purpose, uint64_t nr_units);
/* Flushes what was changed, then releases. */
void diet_work_flush(struct diet_work *w);
void diet_work_end(struct diet_work *w);
/* Entries for [va, va + bytes) were switched. */
void diet_work_changed(struct diet_work *w, uintptr_t va, uint64_t bytes, enum mf_flush_scope scope);
/* What they led to.  Needs: diet_work_changed() before. */
void diet_work_add(struct diet_work *w, const struct mf_region *r, mf_pfn_t pfn, uint32_t nr, enum diet_waste what);

/*
 * Under table_lock: what va leads to; the entry of level 1 for it; another in its place, under tables that stand;
 * protection of one slot.
 */
struct mf_translation diet_walk(struct mf_map *map, uintptr_t va);
struct mf_entry diet_entry(struct mf_map *map, uintptr_t va);
struct mf_entry diet_exchange(struct mf_map *map, uintptr_t va, enum mf_entry_kind kind, mf_pfn_t pfn);
void diet_protect(const struct diet_unit *u, struct diet_work *w, uint64_t index, enum mf_prot prot);

/* ---- remap.c --------------------------------------------------------------------------------------------------- */

/*
 * A leaf of level 1 that holds slots to be switched singly becomes a table; `flush` it at once, or leave it to the
 * work.  -MF_ENOMEM, nothing changed.
 */
MF_MUST_CHECK int diet_split(const struct diet_unit *u, struct diet_work *w, bool flush);
/* Right after a diet_split() that split: a leaf again, where no other remap can have found the table. */
void diet_unsplit(const struct diet_unit *u, struct diet_work *w);
/*
 * The unit goes on its diet.  Needs: frozen, quiesced, diet_split().  -MF_ENOMEM: nothing changed but leaves split.
 * Marks the head.
 */
MF_MUST_CHECK int diet_remap(const struct diet_unit *u, struct diet_work *w);
/* Slots that are not kept, whatever they were, show `frame`, whole tables of them through `uniform` if there is one. */
void diet_alias_all(const struct diet_unit *u, struct diet_work *w, mf_pfn_t frame, mf_pfn_t uniform);

/* ---- restore.c ------------------------------------------------------------------------------------------------- */

/* Off it.  Needs: frozen.  -MF_ENOMEM: as it was.  diet_restored() clears the mark, after the flush. */
MF_MUST_CHECK int diet_restore(const struct diet_unit *u, struct diet_work *w);
void diet_restored(const struct diet_unit *u);

/* What stands behind slot `index` of a unit on its diet is not its own. */
static inline bool diet_slot_is_alias(const struct diet_unit *u, uint64_t index)
{
	return index >= u->diet->nr_kept;
}

/* ---- hosted.c -------------------------------------------------------------------------------------------------- */

/* Is this the record of a frame that backs a slot, or is a table, of the block that it is the end of? */
static inline bool diet_word_hosts(uint64_t word)
{
	return (word & (MF_WORD_KIND_MASK | MF_FLAG_DIET)) ==
	       ((uint64_t)MF_KIND_MAP << MF_WORD_KIND_SHIFT | MF_FLAG_DIET);
}

bool diet_frame_hosts(const struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn);

/* Do slots or tables of the unit lie in frames of a larger block that is restored from itself? */
bool diet_unit_is_hosted(const struct diet_unit *u);

/*
 * Freed folios, kept, frozen and linked by their `list`, go off their diet without memory from anywhere: the frames at
 * the end of each become map frames, with records that say so (MF_FLAG_DIET).  Gives: in the head's `index` the first
 * of them; the rest of the folio as it was, to be freed as [head, index).  Cannot fail.  TABLES only.
 */
void diet_host_list(struct mf_map *map, struct mf_list *folios);

/*
 * The map frames [host, end) of one such block: what they hold moves to RAM or the altmap, and they are nobody's, with
 * records of kind free.  Needs: everything else in the block isolated.  -MF_ENOMEM: as it was.
 */
MF_MUST_CHECK int diet_settle(struct mf_map *map, const struct mf_region *r, mf_pfn_t host, mf_pfn_t end);

/* ---- merge.c --------------------------------------------------------------------------------------------------- */

/* Frames whose descriptors one table of level 0 serves. */
static inline mf_pfn_t diet_table_frames(const struct mf_map *map)
{
	return diet_table_bytes(map) >> MF_DESCRIPTOR_SHIFT;
}

/*
 * Could the descriptors of the region's frames from pfn on, so many and aligned, stand behind one leaf, and do not?
 * TABLES only.
 */
bool merge_is_due(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn);
/*
 * They do from now on.  Needs: due, and all of the frames, of this region, isolated.  As it was: -MF_ENOMEM, no block
 * of frames; -MF_EINVAL, the map lies in the region itself, not all of it or not in a row.
 */
MF_MUST_CHECK int merge_leaf(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn);

/* ---- check_diet.c ---------------------------------------------------------------------------------------------- */

/* What the folios on a diet amount to. */
struct diet_totals {
	uint64_t nr_read_only;   /* slots that they show read-only; nobody else does (TABLES)                      */
	uint64_t nr_aliases;
	uint64_t nr_ram_aliases; /* of them: those that show a frame outside every region                          */
	uint64_t nr_uniform;     /* uniform tables of single folios                                              */
};

int diet_check_unit(struct mf_map *map, struct mf_page *head, struct diet_totals *totals,
		    struct mf_violation *violation);
int diet_check_tails(struct mf_map *map, const struct diet_totals *totals, struct mf_violation *violation);

/* ---- compound.c ------------------------------------------------------------------------------------------------ */

/*
 * Populates, and depopulates, the slots [start, end) of compounds of the region's unit order: any piece, in any order
 * [R-DAX-57]; HOST: whole compounds.  A slot that is backed already is left as it is.  -MF_ENOMEM: what this call
 * backed is unbacked again.  Where tables are shared, one whose slots one call backs as a whole is unbacked as a whole
 * (panics otherwise).  The first descriptor of a tail frame counts, in private_data, the slots that show it [R-DAX-15].
 * Needs: region_lock; depopulate: nobody looks there.
 */
MF_MUST_CHECK int compound_populate(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end);
void compound_depopulate(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end);

/* ---- compound_folio.c ------------------------------------------------------------------------------------------ */

MF_MUST_CHECK int compound_populate_host(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end);

/*
 * The compounds of [start, end) become device folios, frozen.  is_dieted: populated by compound_populate(), and only
 * what has a slot of its own is written [R-DAX-25]; else every descriptor is.
 */
void compound_commit(struct mf_map *map, const struct mf_region *r, mf_pfn_t start, mf_pfn_t end, bool is_dieted);
/*
 * All get one reference, the region's own, and can be taken.  Needs: the records of the tiers above are written, else
 * who takes one from below would not find it from above.
 */
void compound_online(struct mf_map *map, const struct mf_region *r);
/* All of them frozen; or -MF_EBUSY, and none. */
MF_MUST_CHECK int compound_offline(struct mf_map *map, const struct mf_region *r);

#endif
