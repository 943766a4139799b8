/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row_diet.c - what the classic layouts add to the steps of a row: units go on the diet, and compounds of a device are
 * found and held instead of allocated.
 *
 * Owns nothing.  Units come off the diet by themselves when they are freed and their memory is wanted otherwise.
 */
#include "cli/progress.h"
#include "cli/row_work.h"
#include "cli/size.h"
#include <inttypes.h>

/* Folios of one call: many enough to share what calls cost, few enough to say how far it is. */
enum { REMAP_BATCH = 64 };

bool row_is_by_remap(const struct work *w, const struct description_region *r)
{
	return row_saved_slots(w, r) > 0 && mf_layout_diet(row_layout(w, r))->is_by_remap;
}

static bool remap_batch(struct work *w, struct mf_folio **folio, uint64_t nr)
{
	bool frozen = true;
	struct mf_list list;
	int err;

	mf_list_init(&list);
	for (uint64_t i = 0; i < nr && frozen; i++) {
		frozen = mf_folio_freeze(folio[i], 1);
		if (frozen)
			mf_list_push_back(&list, &folio[i]->page.list);
	}
	err = frozen ? mf_diet_remap_list(w->map, &list, NULL) : 0;
	while (!mf_list_is_empty(&list)) {
		struct mf_page *page = mf_container_of(list.next, struct mf_page, list);

		mf_list_remove(&page->list);
		mf_folio_unfreeze((struct mf_folio *)page, 1);
	}
	if (!frozen)
		return row_unable(w, ROW_BROKEN, "a unit that nobody else holds cannot be frozen");
	return err ? row_failed(w, "putting units on the diet", err) : true;
}

bool row_remap(struct work *w, uint64_t first)
{
	while (first < w->nr_folios) {
		uint64_t nr = mf_min(w->nr_folios - first, (uint64_t)REMAP_BATCH);

		if (!remap_batch(w, &w->folio[first], nr))
			return false;
		first += nr;
		w->nr_done += nr;
		progress_at(w->nr_done, w->nr_to_do);
	}
	return true;
}

bool row_compounds_fit(struct work *w)
{
	unsigned largest = 2 * (w->page_shift - 3);
	char text[2][SIZE_TEXT_MAX];

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++) {
		const struct description_region *r = &w->request->machine->regions[i];

		if (row_layout(w, r) == MF_LAYOUT_DEVDAX && row_unit_order(w, r) > largest)
			return row_unable(w, ROW_UNABLE, "units of %s are larger than a compound can be, %s",
					  size_exact(text[0], r->unit_bytes),
					  size_exact(text[1], (uint64_t)1 << (largest + w->page_shift)));
	}
	return true;
}

bool row_hold_compounds(struct work *w, const struct description_region *r)
{
	mf_pfn_t pfn = r->start_bytes >> w->page_shift, end = pfn + (r->size_bytes >> w->page_shift);
	uint64_t nr = r->size_bytes / r->unit_bytes, nr_found = 0;
	struct mf_folio *folio;

	while (nr_found < nr && (folio = mf_folio_next(w->map, pfn, end, &pfn)) != NULL) {
		if (mf_folio_order(folio) != row_unit_order(w, r) ||
		    mf_pfn_try_get(w->map, mf_folio_pfn(w->map, folio)) != folio)
			return row_unable(w, ROW_BROKEN, "the compound at pfn %" PRIu64 " cannot be held",
					  mf_folio_pfn(w->map, folio));
		w->folio[w->nr_folios++] = folio;
		w->nr_devices++;
		w->nr_done++;
		if ((nr_found++ & 1023) == 0)
			progress_at(w->nr_done, w->nr_to_do);
	}
	if (nr_found == nr)
		return true;
	return row_unable(w, ROW_BROKEN, "of %" PRIu64 " compounds of a region %" PRIu64 " were found", nr, nr_found);
}

void row_devices_first(struct work *w)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < w->nr_folios; i++) {
		struct mf_folio *folio = w->folio[i];

		if (mf_page_kind(&folio->page) != MF_KIND_DEVICE)
			continue;
		w->folio[i] = w->folio[nr];
		w->folio[nr++] = folio;
	}
}
