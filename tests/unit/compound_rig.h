/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compound_rig.h - what the tests of compounds of a device share: regions of them, what each map slot shows, and
 * whether every descriptor leads to its compound.
 */
#ifndef TESTS_UNIT_COMPOUND_RIG_H
#define TESTS_UNIT_COMPOUND_RIG_H

#include "core/memmap/diet.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/memfold.h>
#include <memfold/sim.h>

/* A region of compounds of 2^order frames, source RAM (the host's on linux). */
static inline struct mf_region_config compound_config(mf_pfn_t start, mf_pfn_t end, unsigned order)
{
	return (struct mf_region_config){
		.start_pfn = start,
		.end_pfn = end,
		.layout = MF_LAYOUT_DEVDAX,
		.source = MF_SOURCE_RAM,
		.unit_order = order,
	};
}

static inline int compound_add(struct world *w, mf_pfn_t start, mf_pfn_t end, unsigned order, unsigned *id)
{
	struct mf_region_config config = compound_config(start, end, order);

	return world_add_region(w, &config, id);
}

static inline uint64_t slot_size(const struct world *w)
{
	return (uint64_t)1 << w->machine->paging.page_shift;
}

/* Map slots of a compound of this order. */
static inline uint64_t nr_slots(const struct world *w, unsigned order)
{
	return ((uint64_t)MF_DESCRIPTOR_SIZE << order) / slot_size(w);
}

static inline struct mf_folio *compound_at(const struct world *w, mf_pfn_t pfn)
{
	return (struct mf_folio *)mf_pfn_to_page(w->map, pfn);
}

static inline struct mf_map_stats stats_of(const struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats;
}

/* ---- Slots, read off the tables -------------------------------------------------------------------------------- */

static inline uintptr_t slot_va(const struct world *w, mf_pfn_t pfn, uint64_t slot)
{
	return (uintptr_t)mf_pfn_to_page(w->map, pfn) + slot * slot_size(w);
}

static inline struct mf_translation slot_shows(const struct world *w, mf_pfn_t pfn, uint64_t slot)
{
	return mf_pgtable_walk(&w->map->pgtable, slot_va(w, pfn, slot));
}

/* What backs the slots of one compound. */
struct backing {
	mf_pfn_t head, tails;  /* frames; DIET_NO_FRAME: none                                                  */
	uint64_t nr_tails;     /* slots that show the tail frame                                               */
	uint64_t counted;      /* what that frame counts                                                       */
	bool good;             /* one writable head, tails read-only and all of one other frame                */
};

static inline struct backing backing_of(const struct world *w, mf_pfn_t pfn, unsigned order)
{
	struct backing b = { .head = DIET_NO_FRAME, .tails = DIET_NO_FRAME, .good = true };

	for (uint64_t i = 0; i < nr_slots(w, order); i++) {
		struct mf_translation t = slot_shows(w, pfn, i);

		if (t.background)
			continue;
		b.good = b.good && t.level == 0 && t.writable == (i == 0);
		if (i == 0) {
			b.head = t.pfn;
			continue;
		}
		b.good = b.good && (b.nr_tails == 0 || b.tails == t.pfn) && t.pfn != b.head;
		b.tails = t.pfn;
		b.nr_tails++;
	}
	if (b.tails != DIET_NO_FRAME)
		b.counted = ((const struct mf_page *)mf_machine_frame(w->machine, b.tails))->private_data;
	b.good = b.good && b.counted == b.nr_tails;
	return b;
}

/* ---- Descriptors, read in the window ---------------------------------------------------------------------------- */

/* From below and from above the head, no count but the head's, and nothing but a mask in a tail. */
static inline bool descriptor_is_right(const struct world *w, mf_pfn_t pfn, mf_pfn_t head_pfn, unsigned order)
{
	const struct mf_page *page = mf_pfn_to_page(w->map, pfn);
	const struct mf_folio *head = compound_at(w, head_pfn);
	bool is_head = pfn == head_pfn;

	return mf_page_folio(w->map, page) == head && mf_pfn_folio(w->map, pfn) == head &&
	       mf_page_kind(page) == (is_head ? MF_KIND_DEVICE : MF_KIND_TAIL) && page->counts == is_head &&
	       page->mapcount == 0 && page->mapping == 0 && page->index == 0 && mf_pfn_is_valid(w->map, pfn) &&
	       (!is_head || mf_folio_order(head) == order);
}

/* A sim holds few translations: of larger compounds a sample. */
enum { SLOTS_SEEN_MAX = 4096 };

static inline bool compound_is_right(const struct world *w, mf_pfn_t head_pfn, unsigned order)
{
	mf_pfn_t end = head_pfn + ((mf_pfn_t)1 << order), per_slot = slot_size(w) / MF_DESCRIPTOR_SIZE;
	uint64_t step = nr_slots(w, order) / SLOTS_SEEN_MAX;
	mf_pfn_t pfn;

	for (pfn = head_pfn; pfn < end; pfn++) {
		uint64_t slot = (pfn - head_pfn) / per_slot;

		if (step > 1 && slot > 2 && slot % step != 1 && end - pfn > per_slot)
			continue;
		if (!descriptor_is_right(w, pfn, head_pfn, order)) {
			TAP_NOTE("order %u: descriptor %llu of the compound at pfn %llu is wrong", order,
				 (unsigned long long)(pfn - head_pfn), (unsigned long long)head_pfn);
			return false;
		}
	}
	return true;
}

#endif
