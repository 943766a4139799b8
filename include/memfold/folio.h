/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * folio.h - the unit of ownership: allocate, reference, pin, map counts, split, merge, release.
 *
 * A folio is 2^order naturally aligned frames with one record, its head descriptor.  All counts live there; tails are
 * written once and hold nothing that ever changes.
 *
 *   count      meaning
 *   0          free, or frozen by its owner: nobody can take a reference
 *   1 .. max   holders; each pin is a holder too
 *
 * Reference and pin count are the halves of one atomic 64-bit word, so that a pin is one atomic operation and can
 * be told from a reference exactly.  A take that would pass MF_COUNT_MAX is refused.
 *
 * In a forked child, to which the map does not belong, calls that return an error return -MF_EPERM; try_get, try_pin
 * and iteration find nothing; mf_folio_put(), mf_folio_unpin() and mf_folio_free_frozen() do nothing; mf_folio_data()
 * is NULL. Calls without a map cannot tell, and must not be made there: get, pin, freeze, unfreeze, the map counts,
 * prepare_head, prepare_tail; what inline functions read there (order, counts, owner, flags) is 0, and what they set
 * is lost.
 */
#ifndef MEMFOLD_FOLIO_H
#define MEMFOLD_FOLIO_H

#include <memfold/frames.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MF_COUNT_MAX ((uint32_t)1 << 31)

/* ---- Owners ---------------------------------------------------------------------------------------------------- */

/*
 * Who is told when the last reference to a folio is dropped.  release() is called with the folio frozen (count 0),
 * once, on the CPU that dropped it, with no lock held; it may not sleep if put may not.  true: the owner keeps the
 * folio, frozen, and hands it out again by mf_folio_unfreeze() or ends it by mf_folio_free_frozen(); false: it goes
 * back to the allocator.
 */
struct mf_owner {
	const char *name;
	bool (*release)(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner);
};

/* The owner, and two words that are the owner's own.  Needs: a reference, or the folio frozen by the caller. */
static inline void mf_folio_set_owner(struct mf_folio *folio, const struct mf_owner *owner)
{
	__atomic_store_n(&folio->page.mapping, (uint64_t)(uintptr_t)owner, __ATOMIC_RELEASE);
}

static inline const struct mf_owner *mf_folio_owner(const struct mf_folio *folio)
{
	return (const struct mf_owner *)(uintptr_t)__atomic_load_n(&folio->page.mapping, __ATOMIC_ACQUIRE);
}

/* ---- Allocate and free ----------------------------------------------------------------------------------------- */

/*
 * Allocates 2^order naturally aligned frames, contents undefined.
 * Gives: *folio with count 1, no pins, no maps, no owner; the caller drops it by mf_folio_put().
 * Fails, nothing changed: -MF_EINVAL (order beyond MF_ORDERS_MAX, no such node), -MF_ENOMEM (none of that order,
 * after folding, draining and waiting for blocks in transition, unless MF_ALLOC_NOWAIT), -MF_EPERM.
 * node: preferred node, or MF_ANY_NODE.  May: wait, flush, populate (not with MF_ALLOC_NOWAIT).
 */
MF_API MF_MUST_CHECK int mf_folio_alloc(struct mf_map *map, int node, unsigned order, unsigned alloc_flags,
					struct mf_folio **folio);

/*
 * A frozen folio goes back to the allocator.  Needs: count 0, kind used, no pins, no maps (panics otherwise).  Never
 * waits or folds.
 */
MF_API void mf_folio_free_frozen(struct mf_map *map, struct mf_folio *folio);

/* ---- What it is ------------------------------------------------------------------------------------------------ */

static inline unsigned mf_folio_order(const struct mf_folio *folio)
{
	return mf_word_order(mf_page_word(&folio->page));
}

static inline uint64_t mf_folio_nr_frames(const struct mf_folio *folio)
{
	return (uint64_t)1 << mf_folio_order(folio);
}

static inline mf_pfn_t mf_folio_pfn(const struct mf_map *map, const struct mf_folio *folio)
{
	return mf_page_to_pfn(map, &folio->page);
}

/* The address of its memory, or NULL when the machine does not map it (described only), and in a forked child. */
MF_API void *mf_folio_data(struct mf_map *map, const struct mf_folio *folio);

/* ---- References ------------------------------------------------------------------------------------------------ */

static inline uint32_t mf_folio_refcount(const struct mf_folio *folio)
{
	return (uint32_t)__atomic_load_n(&folio->page.counts, __ATOMIC_RELAXED);
}

static inline uint32_t mf_folio_pincount(const struct mf_folio *folio)
{
	return (uint32_t)(__atomic_load_n(&folio->page.counts, __ATOMIC_RELAXED) >> 32);
}

/* One more reference.  Needs: the caller holds one (panics when the count is 0 or at MF_COUNT_MAX). */
MF_API void mf_folio_get(struct mf_folio *folio);

/*
 * Drops a reference; the last one calls the owner's release and then frees.  Needs: the caller holds one (panics at
 * 0, or when only pins are left).  Never waits, folds or flushes.
 */
MF_API void mf_folio_put(struct mf_map *map, struct mf_folio *folio);

/*
 * Speculative: takes a reference on whatever folio the descriptor (or pfn) belongs to at that moment.
 * Gives: the folio, with a reference, and that descriptor still part of it; NULL when free, frozen, no folio, or at
 * MF_COUNT_MAX.
 * Needs: `page` inside the windows; a registered thread.  Opens its own reader section.  Lock-free.
 */
MF_API struct mf_folio *mf_folio_try_get(struct mf_map *map, struct mf_page *page);
MF_API struct mf_folio *mf_pfn_try_get(struct mf_map *map, mf_pfn_t pfn);

/*
 * Count expected -> 0 if it is exactly that and there are no pins; then nobody can take a reference.  unfreeze: 0 ->
 * count (> 0).
 */
MF_API bool mf_folio_freeze(struct mf_folio *folio, uint32_t expected);
MF_API void mf_folio_unfreeze(struct mf_folio *folio, uint32_t count);

/* ---- Pins ------------------------------------------------------------------------------------------------------ */

/* A reference that is also counted as a pin: the memory is being read or written by a device or another party.
 * pin needs a reference held by the caller; try_pin is speculative as try_get.  unpin without a pin panics.
 * pin fails with -MF_EOVERFLOW at MF_COUNT_MAX, nothing changed. */
MF_API MF_MUST_CHECK int mf_folio_pin(struct mf_folio *folio);
MF_API struct mf_folio *mf_pfn_try_pin(struct mf_map *map, mf_pfn_t pfn);
MF_API void mf_folio_unpin(struct mf_map *map, struct mf_folio *folio);

/* ---- Map counts ------------------------------------------------------------------------------------------------ */

/*
 * Mappings are counted per folio: of the whole folio by one leaf, or of nr frames of it by smaller leaves.
 * Needs: a reference.  add fails with -MF_EOVERFLOW, nothing changed; remove below zero panics.
 */
MF_API MF_MUST_CHECK int mf_folio_map_whole(struct mf_folio *folio);
MF_API void mf_folio_unmap_whole(struct mf_folio *folio);
MF_API MF_MUST_CHECK int mf_folio_map_frames(struct mf_folio *folio, uint32_t nr_frames);
MF_API void mf_folio_unmap_frames(struct mf_folio *folio, uint32_t nr_frames);

/* Mappings of any part of the folio, a whole mapping counted once. */
static inline int32_t mf_folio_mapcount(const struct mf_folio *folio)
{
	return __atomic_load_n(&folio->page.mapcount, __ATOMIC_RELAXED);
}

static inline int32_t mf_folio_whole_mapcount(const struct mf_folio *folio)
{
	return __atomic_load_n(&folio->page.whole_mapcount, __ATOMIC_RELAXED);
}

/* ---- Owner flags: four bits of the record that are the owner's ------------------------------------------------- */

static inline void mf_folio_set_flags(struct mf_folio *folio, uint64_t flags)
{
	__atomic_fetch_or(&folio->page.word, flags & MF_FLAGS_USER, __ATOMIC_RELAXED);
}

static inline void mf_folio_clear_flags(struct mf_folio *folio, uint64_t flags)
{
	__atomic_fetch_and(&folio->page.word, ~(flags & MF_FLAGS_USER), __ATOMIC_RELAXED);
}

static inline uint64_t mf_folio_flags(const struct mf_folio *folio)
{
	return mf_page_word(&folio->page) & MF_FLAGS_USER;
}

/* ---- Split and merge ------------------------------------------------------------------------------------------- */

/*
 * Splits a folio into folios of a lower order, each with count 1 and the owner, index and flags of the first (index
 * grows by frames); private_data stays with the first.  Crossing a tier unfolds blocks that are in use, from a source
 * outside them.
 * Needs: the caller is the sole holder (count 1, no pins, no maps) and has it on no list.  Gives: references to all;
 * the first in place of the old.
 * Fails, nothing changed: -MF_EINVAL (order not lower; a device's compound), -MF_EBUSY (other holders, pins or maps; or
 * on a diet, diet.h), -MF_ENOMEM (no frame for the slots).
 * May: wait, flush.
 */
MF_API MF_MUST_CHECK int mf_folio_split(struct mf_map *map, struct mf_folio *folio, unsigned new_order);

/*
 * The reverse: the folios that lie in [pfn, pfn + 2^order) become one of count 1, with the owner, index, private_data
 * and flags of the first.
 * Needs: the caller is the sole holder of every one of them and has none on a list; they cover the range exactly, in
 * one region.
 * Fails, nothing changed: -MF_EINVAL (pfn not aligned, order too large), -MF_EBUSY (a part is free, held by others,
 * pinned or mapped, on a diet, is a map frame, or of another owner).
 * May: wait, flush.
 */
MF_API MF_MUST_CHECK int mf_folio_merge(struct mf_map *map, mf_pfn_t pfn, unsigned order, struct mf_folio **folio);

/* ---- Iteration ------------------------------------------------------------------------------------------------- */

/*
 * The first folio in use that covers pfn or follows it, before end_pfn; from above, whole blocks in one step; NULL
 * when there is none.  What is kept after its last put (diet.h) is in use no more.  Takes no reference: use
 * mf_pfn_try_get() on what it gives.  *next_pfn is where to go on.
 */
MF_API struct mf_folio *mf_folio_next(struct mf_map *map, mf_pfn_t pfn, mf_pfn_t end_pfn, mf_pfn_t *next_pfn);

/* ---- For those who build folios themselves: preparation as two independent steps ------------------------------- */

/* Writes the record of the head; writes one tail, which needs no other tail.  Both leave every count 0. */
MF_API void mf_page_prepare_head(struct mf_page *head, uint64_t record_word, unsigned order);
MF_API void mf_page_prepare_tail(struct mf_page *tail, unsigned order_in_tier);

#ifdef __cplusplus
}
#endif
#endif
