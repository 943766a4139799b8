/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diet_rig.h - what the tests of the classic diets share: a world with one dieted region, folios frozen and linked in
 * lists, and the contents of every descriptor of a folio as readers see them.
 */
#ifndef TESTS_UNIT_DIET_RIG_H
#define TESTS_UNIT_DIET_RIG_H

#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/diet.h>
#include <stdlib.h>
#include <string.h>

/* The three that remap. */
static const enum mf_layout diet_layouts[] = { MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18, MF_LAYOUT_HVO_7_1 };
enum { NR_DIET_LAYOUTS = sizeof(diet_layouts) / sizeof(diet_layouts[0]) };

/* All of the world becomes one region of this layout, source RAM (host on linux). */
static inline bool diet_open(struct world *w, const struct world_config *config, enum mf_layout layout)
{
	struct mf_region_config region = { .end_pfn = config->nr_frames, .layout = layout, .source = MF_SOURCE_RAM };

	if (!world_open(w, config))
		return false;
	return world_add_region(w, &region, NULL) == 0;
}

/* A frozen folio of this order, or NULL. */
static inline struct mf_folio *diet_folio(struct world *w, unsigned order)
{
	struct mf_folio *folio = world_alloc(w, order);

	return folio && mf_folio_freeze(folio, 1) ? folio : NULL;
}

static inline void diet_folio_free(struct world *w, struct mf_folio *folio)
{
	mf_folio_unfreeze(folio, 1);
	mf_folio_put(w->map, folio);
}

/* Map slots of a folio, descriptors of a slot, and the first descriptor of one. */
static inline uint64_t diet_nr_slots(const struct world *w, unsigned order)
{
	return (uint64_t)MF_DESCRIPTOR_SIZE << order >> w->machine->paging.page_shift;
}

static inline uint64_t diet_per_slot(const struct world *w)
{
	return ((uint64_t)1 << w->machine->paging.page_shift) / MF_DESCRIPTOR_SIZE;
}

static inline struct mf_page *diet_slot(const struct world *w, struct mf_folio *folio, uint64_t index)
{
	return &folio->page + index * diet_per_slot(w);
}

/* Frozen folios for the calls that take lists: adds `nr` of this order; false when there are not so many. */
static inline bool diet_list_fill(struct world *w, struct mf_list *list, unsigned order, uint64_t nr)
{
	for (; nr > 0; nr--) {
		struct mf_folio *folio = diet_folio(w, order);

		if (!folio)
			return false;
		mf_list_push_back(list, &folio->page.list);
	}
	return true;
}

static inline struct mf_folio *diet_list_folio(struct mf_list *node)
{
	return (struct mf_folio *)mf_container_of(node, struct mf_page, list);
}

/* All of them leave the list and are dropped. */
static inline void diet_list_free(struct world *w, struct mf_list *list)
{
	while (!mf_list_is_empty(list)) {
		struct mf_list *node = list->next;

		mf_list_remove(node);
		diet_folio_free(w, diet_list_folio(node));
	}
}

static inline struct mf_map_stats diet_stats(struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats;
}

/*
 * Does every descriptor of the folio answer as it should: from below and from above its head, as a tail unless it is
 * the head, with no count of its own?
 */
static inline bool diet_answers(struct world *w, struct mf_folio *folio, unsigned order)
{
	mf_pfn_t pfn = mf_folio_pfn(w->map, folio);

	for (mf_pfn_t i = 0; i < (mf_pfn_t)1 << order; i++) {
		struct mf_page *page = mf_pfn_to_page(w->map, pfn + i);

		if (mf_page_folio(w->map, page) != folio || mf_pfn_folio(w->map, pfn + i) != folio ||
		    mf_page_kind(page) != (i == 0 ? MF_KIND_USED : MF_KIND_TAIL))
			return false;
	}
	return true;
}

/* ---- Contents --------------------------------------------------------------------------------------------------- */

/* Every descriptor of a folio, as it was. */
struct diet_copy {
	struct mf_folio *folio;
	unsigned order;
	enum mf_diet_tails tails; /* of the folio's layout                                                      */
	unsigned nr_kept;
	struct mf_page *page;
};

static inline bool diet_copy_take(struct diet_copy *copy, struct mf_folio *folio, unsigned order, enum mf_layout layout)
{
	const struct mf_diet *diet = mf_layout_diet(layout);
	size_t bytes = sizeof(*copy->page) << order;

	*copy = (struct diet_copy){ folio, order, diet->tails, diet->nr_kept, malloc(bytes) };
	if (copy->page)
		memcpy(copy->page, &folio->page, bytes);
	return copy->page != NULL;
}

static inline void diet_copy_free(struct diet_copy *copy)
{
	free(copy->page);
}

/* The same but for the marks of a diet. */
static inline bool diet_same(const struct mf_page *seen, const struct mf_page *copied)
{
	uint64_t marks = copied->word & 1 ? 0 : MF_FLAG_DIET | MF_WORD_ALIASED;

	return (seen->word & ~marks) == (copied->word & ~marks) &&
	       memcmp((const char *)seen + sizeof(seen->word), (const char *)copied + sizeof(copied->word),
		      sizeof(*seen) - sizeof(seen->word)) == 0;
}

/*
 * Is `seen` what may be read at descriptor `index`?  What was copied; and where the head's slot stands in for a tails'
 * slot, at the first descriptor of it, also the head with its mark.
 */
static inline bool diet_may_read(const struct world *w, const struct diet_copy *copy, uint64_t index,
				 const struct mf_page *seen)
{
	uint64_t slot = index / diet_per_slot(w);

	if (diet_same(seen, &copy->page[index]))
		return true;
	return copy->tails == MF_TAILS_HEAD && index % diet_per_slot(w) == 0 && slot >= copy->nr_kept &&
	       seen->word & MF_WORD_ALIASED && diet_same(seen, &copy->page[0]);
}

/* All of it, read in the window. */
static inline bool diet_copy_is_read(const struct world *w, const struct diet_copy *copy)
{
	for (uint64_t i = 0; i < (uint64_t)1 << copy->order; i++) {
		if (diet_may_read(w, copy, i, &copy->folio->page + i))
			continue;
		TAP_NOTE("descriptor %llu is not what it was", (unsigned long long)i);
		return false;
	}
	return true;
}

#endif
