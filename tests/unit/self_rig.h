/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * self_rig.h - what the tests of folios that host their own map slots share: regions with flags, RAM that is gone,
 * folios that are dropped on their diet, and what all of that adds up to.
 */
#ifndef TESTS_UNIT_SELF_RIG_H
#define TESTS_UNIT_SELF_RIG_H

#include "tests/lib/hog.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

/* All of the world is one region of this layout and source, with these flags. */
static inline bool self_open(struct world *w, const struct world_config *config, enum mf_layout layout,
			     enum mf_source source, unsigned flags)
{
	struct mf_region_config region = {
		.end_pfn = config->nr_frames, .layout = layout, .source = source, .flags = flags
	};

	return world_open(w, config) && world_add_region(w, &region, NULL) == 0;
}

/* nr folios of this order on their diet, still in the list. */
static inline bool self_diet(struct world *w, struct mf_list *list, unsigned order, uint64_t nr)
{
	uint64_t nr_remapped = 0;

	mf_list_init(list);
	return diet_list_fill(w, list, order, nr) && mf_diet_remap_list(w->map, list, &nr_remapped) == 0 &&
	       nr_remapped == nr;
}

static inline int self_fold(struct world *w)
{
	return mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
}

/* Base pages, all that can be had, linked by their owner's list; how many. */
static inline uint64_t self_take_all(struct world *w, struct mf_list *list)
{
	struct mf_folio *folio;
	uint64_t nr = 0;

	mf_list_init(list);
	for (; (folio = world_alloc(w, 0)) != NULL; nr++)
		mf_list_push_back(list, &folio->page.list);
	return nr;
}

static inline void self_drop(struct world *w, struct mf_list *list)
{
	while (!mf_list_is_empty(list)) {
		struct mf_list *node = list->next;

		mf_list_remove(node);
		mf_folio_put(w->map, diet_list_folio(node));
	}
}

/* Slots of a folio that its diet does not keep. */
static inline uint64_t self_saved(const struct world *w, enum mf_layout layout, unsigned order)
{
	return diet_nr_slots(w, order) - mf_layout_diet(layout)->nr_kept;
}

#endif
