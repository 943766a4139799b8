/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diet.h - the classic diets: several map slots of one folio backed by one frame.
 *
 * What Linux runs, by era, on one engine with parameters.  A folio of 2^order frames has V = 2^order * 64 / P map
 * slots on tier 0; a diet keeps the first one or two and makes the others read-only aliases, which is possible because
 * all tails of one order are the same bytes (memmap.h: the AND-mask).
 *
 *   slots of a 2 MiB folio      0      1      2      3      4      5      6      7
 *   flat                      [own]  [own]  [own]  [own]  [own]  [own]  [own]  [own]
 *   hvo-5.14, devdax          [own]  [own]<-----------------------------------       slot 1 read-only, too
 *   hvo-5.18                  [own]<------------------------------------------       the head is read there: fake heads
 *   hvo-7.1                   [new]  \______\______\______\______\______\______\___ [one frame per zone and order]
 *
 * hvo-*: a region like `flat`, whose folios are put on the diet one by one or in lists (remap) and taken off it
 * (restore).
 * devdax: compounds of one order, deduplicated while the region is added, never remapped.  Each is a folio of kind
 * `device` from the beginning, with one reference that is the region's own; the allocator has none of them.
 *
 * A folio on a diet is a folio like any other: counts, pins, maps, lookups from every address.  It cannot be split or
 * merged (-MF_EBUSY): restore it first.  The last put of one cannot fail and waits for nothing: the folio is kept,
 * frozen, until an allocation that finds nothing else, mf_fold() or the removal of the region restores its slots;
 * while the memory for that is lacking it stays kept (mf_map_stats.nr_kept), or with MF_REGION_RESTORE_FROM_SELF takes
 * it from itself.
 *
 *   restored from self, 2 MiB   [ free ................................ 505 frames | slots 1 to 7 ]    hvo-5.18, 7.1
 *
 * Beyond Linux: mf_fold() with MF_FOLD_ALL also puts larger leaves back behind the descriptors of memory that is all
 * free and whose map lies in RAM, as far as there are frames for them.
 *
 * Sources of the rules: Linux as in HugeTLB Vmemmap Optimization (5.14 and later) and compound device maps;
 * docs/RULES.md.
 */
#ifndef MEMFOLD_DIET_H
#define MEMFOLD_DIET_H

#include <memfold/memmap.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- What a classic layout is ---------------------------------------------------------------------------------- */

enum mf_diet_tails {
	MF_TAILS_OWN,        /* no diet                                                                     */
	MF_TAILS_FIRST_TAIL, /* the slots not kept show the last one kept, the first that holds tails only      */
	MF_TAILS_HEAD,       /* ... the head's slot                                                         */
	MF_TAILS_ZONE,       /* ... one frame per zone and order                                            */
};

struct mf_diet {
	unsigned nr_kept;          /* slots kept: 1 or 2; 0: no diet                                           */
	enum mf_diet_tails tails;
	bool is_by_remap;          /* by mf_diet_remap(); else while the region is added                         */
	bool is_counted;           /* the frame behind the aliases counts the slots that show it                */
	bool moves_head;           /* the head's slot gets a fresh frame, so that all old ones go back             */
};

/* The parameters of a layout; those of MF_TAILS_OWN for tiered, flat, and a number that is none. */
MF_API const struct mf_diet *mf_layout_diet(enum mf_layout layout);

/*
 * Map slots that a folio of 2^order frames saves under a layout, in a system of descriptors of `descriptor_bytes`: V -
 * nr_kept, or 0 where that is not positive and where descriptors are no power of two.  page_shift: log2(P).  0, too,
 * where the descriptors are larger than a frame or the slots beyond 64 bits.  Pure function.
 */
MF_API uint64_t mf_diet_saves(enum mf_layout layout, unsigned page_shift, unsigned descriptor_bytes, unsigned order);

/*
 * ---- Run time ------------------------------------------------------------------------------------------------------
 */

/*
 * The switch of the map; on at first.  Off: mf_diet_remap() does nothing and succeeds.  Folios on a diet stay so,
 * restore never asks. Any thread, any time.
 */
MF_API void mf_diet_switch(struct mf_map *map, bool on);
MF_API bool mf_diet_is_on(const struct mf_map *map);

/* Needs: a reference, or the folio frozen by the caller. */
static inline bool mf_folio_is_on_diet(const struct mf_folio *folio)
{
	return mf_page_word(&folio->page) & MF_FLAG_DIET;
}

/*
 * Puts one folio on the diet of its region's layout.
 * Needs: the folio used and frozen by the caller (panics otherwise): nobody can take a reference; readers may look.  No
 * reader section.
 * Gives: mf_folio_is_on_diet(), frames it no longer needs back where they came from (RAM, the altmap; self: free
 * memory).  Nothing to do is success: already on the diet, the switch off, a layout or order that saves nothing, a
 * folio in a block of tier 1 of which the region has only a part.
 * Fails, the folio usable and the map as it was: -MF_ENOMEM (a page table to split a larger leaf, the head's new
 * frame, the zone's tail frame; on MF_WINDOW_HOST machines also mappings), -MF_EOPNOTSUPP (the map lies in the memory
 * that it describes: source self without MF_REGION_DIET_SELF_HOSTED, or part of a block that was restored from self),
 * -MF_EPERM.
 * May: allocate, wait for readers, flush (once for a split leaf, once for the slots).
 */
MF_API MF_MUST_CHECK int mf_diet_remap(struct mf_map *map, struct mf_folio *folio);

/*
 * The same for folios linked by their `list`, with one wait for readers and two flushes for all: leaves are split
 * first, and frames go back at the end.  When memory runs out in between, what has become free goes back early, and
 * that folio is tried again.  A failure does not stop the others; the larger leaf of one that fails may stay split.
 * The switch is read once.
 * Gives: *nr_remapped (NULL: not told), those that are on the diet now and were not; the list as it was.  0, or the
 * error of the first folio that failed.
 */
MF_API MF_MUST_CHECK int mf_diet_remap_list(struct mf_map *map, struct mf_list *folios, uint64_t *nr_remapped);

/*
 * Takes one folio off the diet: every slot has a frame of its own again, with the same contents.
 * Needs, as remap.  Gives: larger leaves again where a whole one belongs to the folio and frames for it can be had.
 * Nothing to do is success.
 * Fails, the folio on its diet as it was: -MF_ENOMEM, -MF_EPERM.  May: allocate, flush.
 */
MF_API MF_MUST_CHECK int mf_diet_restore(struct mf_map *map, struct mf_folio *folio);

/*
 * The same for a list, in its order, with one flush.  What is off its diet, before or by this, moves to the end of
 * `restored`; the first failure stops: that folio and the rest stay.
 * Gives: *nr_restored (NULL: not told), those that were on a diet and moved.
 */
MF_API MF_MUST_CHECK int mf_diet_restore_list(struct mf_map *map, struct mf_list *folios, struct mf_list *restored,
					      uint64_t *nr_restored);

#ifdef __cplusplus
}
#endif
#endif
