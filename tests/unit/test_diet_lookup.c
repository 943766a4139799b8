/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_lookup.c - from every descriptor of a folio on a diet the head is found, and nothing else is taken for one;
 * fake heads (hvo-5.18) above all: there the head's record is read at the first descriptor of every aliased slot.
 */
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#define G WORLD_GIB_FRAMES

static const struct kind {
	const char *machine;
	unsigned order;
	uint64_t nr_frames;
	enum mf_map_flags flags;
} kinds[] = {
	{ "sim", 9, G, MF_MAP_SHARE_TABLES },
	{ "sim", 18, G, MF_MAP_SHARE_TABLES },
	{ "sim", 18, G, MF_MAP_PRIVATE_TABLES },
	{ "sim-arm64-16k", 11, 1 << 17, MF_MAP_SHARE_TABLES },
	{ "sim-arm64-64k", 13, 1 << 17, MF_MAP_SHARE_TABLES },
};

enum { NR_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* A folio on its diet, with one reference, the first of its kind in the world. */
static struct mf_folio *open_dieted(struct world *w, const struct kind *kind, enum mf_layout layout)
{
	struct world_config config = { .machine = kind->machine, .nr_frames = kind->nr_frames, .flags = kind->flags };
	struct mf_folio *folio;

	if (!diet_open(w, &config, layout))
		return NULL;
	folio = diet_folio(w, kind->order);
	if (!folio || mf_diet_remap(w->map, folio) != 0)
		return NULL;
	mf_folio_unfreeze(folio, 1);
	return folio;
}

static void close_dieted(struct world *w, struct mf_folio *folio)
{
	TAP_OK(world_check(w));
	mf_folio_put(w->map, folio);
	TAP_OK(world_close(w));
}

/* The first and last descriptor of every slot, and one between. */
struct spot {
	struct world *w;
	struct mf_folio *folio;
	struct mf_page *page;
	mf_pfn_t pfn;
	bool is_head;
};

static void for_each_spot(struct world *w, struct mf_folio *folio, unsigned order,
			  void (*check)(const struct spot *spot))
{
	uint64_t per_slot = diet_per_slot(w);
	uint64_t in_slot[] = { 0, 1, per_slot / 2, per_slot - 1 };
	mf_pfn_t first = mf_folio_pfn(w->map, folio);

	for (uint64_t slot = 0; slot < diet_nr_slots(w, order); slot++) {
		for (unsigned i = 0; i < 4; i++) {
			uint64_t index = slot * per_slot + in_slot[i];
			struct spot spot = { w, folio, &folio->page + index, first + index, index == 0 };

			check(&spot);
			if (atomic_load(&tap_state.failed)) {
				TAP_NOTE("at descriptor %llu of order %u", (unsigned long long)index, order);
				return;
			}
		}
	}
}

static void each_world(void (*check)(const struct spot *spot))
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned j = 0; j < NR_KINDS; j++) {
			struct mf_folio *folio;
			struct world w;

			folio = open_dieted(&w, &kinds[j], diet_layouts[i]);
			TAP_REQUIRE(folio);
			for_each_spot(&w, folio, kinds[j].order, check);
			TAP_EQ(mf_folio_refcount(folio), 1);
			TAP_EQ(mf_folio_pincount(folio), 0);
			close_dieted(&w, folio);
		}
	}
}

/* ---- Every layout ------------------------------------------------------------------------------------------------ */

static void check_answers(const struct spot *s)
{
	TAP_OK(mf_page_folio(s->w->map, s->page) == s->folio);
	TAP_OK(mf_pfn_folio(s->w->map, s->pfn) == s->folio);
	TAP_EQ(mf_page_kind(s->page), s->is_head ? MF_KIND_USED : MF_KIND_TAIL);
	TAP_OK(mf_pfn_is_valid(s->w->map, s->pfn));
	TAP_EQ(mf_page_to_pfn(s->w->map, s->page), s->pfn);
}

/* From below and from above: the head; a tail is told from the head.  R-GEN-1, R-GEN-2, R-HVO-19, R-CPD-18, R-SCN-17 */
TAP_TEST(every_descriptor_answers_with_its_head)
{
	each_world(check_answers);
}

static void check_takes(const struct spot *s)
{
	TAP_OK(mf_folio_try_get(s->w->map, s->page) == s->folio);
	TAP_OK(mf_pfn_try_get(s->w->map, s->pfn) == s->folio);
	TAP_OK(mf_pfn_try_pin(s->w->map, s->pfn) == s->folio);
	TAP_EQ(mf_folio_refcount(s->folio), 4);
	TAP_EQ(mf_folio_pincount(s->folio), 1);
	mf_folio_unpin(s->w->map, s->folio);
	mf_folio_put(s->w->map, s->folio);
	mf_folio_put(s->w->map, s->folio);
}

/* All references are the head's, whatever address they were asked at.  R-CPD-27, R-CPD-29, R-CPD-47 */
TAP_TEST(references_and_pins_from_every_address_are_the_heads)
{
	each_world(check_takes);
}

/* R-CPD-29, R-CPD-44, R-CPD-47 */
static void check_takes_nothing(const struct spot *s)
{
	mf_folio_freeze(s->folio, 1);
	TAP_OK(mf_folio_try_get(s->w->map, s->page) == NULL);
	TAP_OK(mf_pfn_try_get(s->w->map, s->pfn) == NULL);
	TAP_OK(mf_pfn_try_pin(s->w->map, s->pfn) == NULL);
	TAP_EQ(s->folio->page.counts, 0);
	mf_folio_unfreeze(s->folio, 1);
}

TAP_TEST(nothing_is_taken_while_it_is_frozen)
{
	each_world(check_takes_nothing);
}

static void check_iterates(const struct spot *s)
{
	mf_pfn_t first = mf_folio_pfn(s->w->map, s->folio), end = first + mf_folio_nr_frames(s->folio), next = 0;

	TAP_OK(mf_folio_next(s->w->map, s->pfn, end + 1, &next) == s->folio);
	TAP_EQ(next, end);
}

TAP_TEST(iteration_finds_it_from_every_pfn)
{
	each_world(check_iterates);
}

/* R-OBS-11 */
TAP_TEST(there_is_one_head_and_the_rest_are_tails)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		for (unsigned j = 0; j < 2; j++) {
			uint64_t nr_heads = 0, nr_tails = 0;
			struct mf_folio *folio;
			struct world w;

			folio = open_dieted(&w, &kinds[j], diet_layouts[i]);
			TAP_REQUIRE(folio);
			for (uint64_t k = 0; k < (uint64_t)1 << kinds[j].order; k++) {
				enum mf_kind kind = mf_page_kind(&folio->page + k);

				nr_heads += kind == MF_KIND_USED;
				nr_tails += kind == MF_KIND_TAIL;
			}
			TAP_EQ(nr_heads, 1);
			TAP_EQ(nr_tails, ((uint64_t)1 << kinds[j].order) - 1);
			close_dieted(&w, folio);
		}
	}
}

/* ---- Fake heads -------------------------------------------------------------------------------------------------- */

/* The head's record is read there, counts and all, and its mark says so; elsewhere no record is marked.  R-CPD-18 */
TAP_TEST(fake_heads_are_marked_and_stand_where_they_should)
{
	for (unsigned j = 0; j < NR_KINDS; j++) {
		struct mf_folio *folio;
		uint64_t nr_fake = 0;
		struct world w;

		folio = open_dieted(&w, &kinds[j], MF_LAYOUT_HVO_5_18);
		TAP_REQUIRE(folio);
		mf_folio_set_flags(folio, MF_FLAG_USER2);
		for (uint64_t i = 1; i < (uint64_t)1 << kinds[j].order; i++) {
			const struct mf_page *page = &folio->page + i;

			if (mf_word_is_tail(mf_page_word(page)))
				continue;
			nr_fake++;
			TAP_EQ(i % diet_per_slot(&w), 0);
			TAP_OK(mf_page_word(page) & MF_WORD_ALIASED);
			TAP_OK(memcmp(page, &folio->page, sizeof(*page)) == 0);
		}
		TAP_EQ(nr_fake, diet_nr_slots(&w, kinds[j].order) - 1);
		close_dieted(&w, folio);
	}
}

/* Slots that are copied back are repaired: tails only, no mark.  R-CPD-19 */
TAP_TEST(restored_slots_hold_tails_only)
{
	for (unsigned j = 0; j < NR_KINDS; j++) {
		struct mf_folio *folio;
		struct world w;

		folio = open_dieted(&w, &kinds[j], MF_LAYOUT_HVO_5_18);
		TAP_REQUIRE(folio);
		TAP_OK(mf_folio_freeze(folio, 1));
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		mf_folio_unfreeze(folio, 1);
		TAP_OK(!(mf_page_word(&folio->page) & (MF_WORD_ALIASED | MF_FLAG_DIET)));
		for (uint64_t i = 1; i < (uint64_t)1 << kinds[j].order; i++) {
			const struct mf_page *page = &folio->page + i;
			struct mf_page tail = { 0 };

			mf_page_prepare_tail(&tail, kinds[j].order);
			TAP_OK(memcmp(page, &tail, sizeof(tail)) == 0);
		}
		close_dieted(&w, folio);
	}
}

/*
 * A genuine head is found by its neighbour too; neighbours that are folios of their own stay what they are.  R-CPD-18
 */
TAP_TEST(genuine_heads_are_not_taken_for_fake_ones)
{
	struct mf_folio *folio, *small, *same;
	struct world w;

	folio = open_dieted(&w, &kinds[0], MF_LAYOUT_HVO_5_18);
	TAP_REQUIRE(folio);
	same = diet_folio(&w, 9);
	TAP_REQUIRE(same);
	mf_folio_unfreeze(same, 1);
	TAP_OK(mf_page_folio(w.map, &folio->page) == folio);
	TAP_OK(mf_page_folio(w.map, &same->page) == same);
	TAP_EQ(mf_page_kind(&same->page), MF_KIND_USED);
	/* The first descriptors of slots, and no head of a large folio. */
	for (unsigned i = 0; i < 128; i++) {
		small = world_alloc(&w, 0);
		TAP_REQUIRE(small);
		TAP_OK(mf_page_folio(w.map, &small->page) == small);
		TAP_EQ(mf_page_kind(&small->page), MF_KIND_USED);
		small->page.index = i;
	}
	for (mf_pfn_t pfn = 0; (small = mf_folio_next(w.map, pfn, G, &pfn)) != NULL;)
		if (mf_folio_order(small) == 0)
			mf_folio_put(w.map, small);
	mf_folio_put(w.map, same);
	close_dieted(&w, folio);
}

TAP_MAIN()
