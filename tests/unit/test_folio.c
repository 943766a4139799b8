/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_folio.c - one folio: references, pins, freezing, map counts, its owner, its flags, its memory; and every
 * way to break the contract, each of which ends in the panic hook with a full sentence.
 *
 * Splitting and merging: test_folio_split.c.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/linux.h>
#include <memfold/sim.h>
#include <string.h>

#define G WORLD_GIB_FRAMES

static const unsigned orders[] = { 0, 1, 8, 9, 10, 17, 18, 19 };

enum { NR_ORDERS = sizeof(orders) / sizeof(orders[0]) };

static bool open_world(struct world *w)
{
	return world_open(w, &(struct world_config){ .nr_frames = 8 * G }) && world_add(w, 0, 8 * G) == 0;
}

static void set_counts(struct mf_folio *folio, uint32_t references, uint32_t pins)
{
	__atomic_store_n(&folio->page.counts, (uint64_t)pins << 32 | references, __ATOMIC_RELAXED);
}

static bool sentence_says(const char *part)
{
	size_t length = strlen(tap_state.panic);

	if (strstr(tap_state.panic, part) && length > 20 && tap_state.panic[length - 1] == '.')
		return true;
	TAP_NOTE("the sentence was: %s", tap_state.panic);
	return false;
}

/* ---- References ------------------------------------------------------------------------------------------------- */

/* R-CPD-5, R-CPD-28 */
TAP_TEST(folio_counts_references)
{
	struct world w;

	TAP_REQUIRE(open_world(&w));
	for (unsigned i = 0; i < NR_ORDERS; i++) {
		struct mf_folio *folio = world_alloc(&w, orders[i]);
		mf_pfn_t pfn;

		TAP_REQUIRE(folio);
		pfn = mf_folio_pfn(w.map, folio);
		TAP_EQ(mf_folio_order(folio), orders[i]);
		TAP_EQ(mf_folio_nr_frames(folio), (uint64_t)1 << orders[i]);
		TAP_EQ(mf_folio_refcount(folio), 1);
		mf_folio_get(folio);
		TAP_EQ(mf_folio_refcount(folio), 2);
		TAP_OK(mf_pfn_try_get(w.map, pfn + mf_folio_nr_frames(folio) - 1) == folio);
		TAP_OK(mf_folio_try_get(w.map, mf_pfn_to_page(w.map, pfn + mf_folio_nr_frames(folio) / 2)) == folio);
		TAP_EQ(mf_folio_refcount(folio), 4);
		TAP_EQ(mf_folio_pincount(folio), 0);
		for (unsigned k = 0; k < 3; k++)
			mf_folio_put(w.map, folio);
		TAP_EQ(mf_folio_refcount(folio), 1);
		TAP_OK(world_check(&w));
		mf_folio_put(w.map, folio);
		TAP_OK(!mf_pfn_try_get(w.map, pfn));
	}
	TAP_OK(world_close(&w));
}

TAP_TEST(try_get_takes_only_folios)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	TAP_EQ(world_add(&w, 10, G + 5), 0);
	TAP_OK(!mf_pfn_try_get(w.map, 0));         /* a hole */
	TAP_OK(!mf_pfn_try_get(w.map, 10));        /* free */
	TAP_OK(!mf_pfn_try_get(w.map, 2 * G));     /* no memory */
	TAP_OK(!mf_pfn_try_get(w.map, 4 * G));     /* beyond the span */
	TAP_OK(!mf_pfn_try_get(w.map, UINT64_MAX));
	TAP_OK(!mf_folio_try_get(w.map, mf_pfn_to_page(w.map, 3 * G)));
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	for (mf_pfn_t pfn = 0; pfn < 3 * G; pfn += pfn < 2048 ? 1 : 511) {
		struct mf_folio *found = mf_pfn_try_get(w.map, pfn), *pinned = mf_pfn_try_pin(w.map, pfn);

		TAP_OK(found == (pfn == mf_folio_pfn(w.map, folio) ? folio : NULL) && pinned == found);
		if (found) {
			mf_folio_put(w.map, found);
			mf_folio_unpin(w.map, pinned);
		}
	}
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* R-CPD-5, R-CPD-31 */
TAP_TEST(frozen_folio_is_taken_by_nobody)
{
	struct mf_folio *folio;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_world(&w));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w.map, folio);
	mf_folio_get(folio);
	TAP_OK(!mf_folio_freeze(folio, 1));
	TAP_OK(!mf_folio_freeze(folio, 3));
	TAP_EQ(mf_folio_refcount(folio), 2);
	TAP_OK(mf_folio_freeze(folio, 2));
	TAP_EQ(mf_folio_refcount(folio), 0);
	TAP_OK(!mf_pfn_try_get(w.map, pfn) && !mf_pfn_try_pin(w.map, pfn));
	TAP_OK(!mf_folio_try_get(w.map, &folio->page));
	TAP_OK(mf_pfn_folio(w.map, pfn) == folio);
	mf_folio_unfreeze(folio, 5);
	TAP_EQ(mf_folio_refcount(folio), 5);
	TAP_EQ(mf_folio_pin(folio), 0);
	TAP_OK(!mf_folio_freeze(folio, 6));
	mf_folio_unpin(w.map, folio);
	TAP_OK(mf_folio_freeze(folio, 5));
	mf_folio_free_frozen(w.map, folio);
	TAP_OK(!mf_pfn_try_get(w.map, pfn));
	TAP_OK(world_close(&w));
}

/* ---- Pins ------------------------------------------------------------------------------------------------------- */

/* R-CPD-42, R-CPD-43 */
TAP_TEST(pins_are_counted_exactly)
{
	struct world w;

	TAP_REQUIRE(open_world(&w));
	for (unsigned i = 0; i < NR_ORDERS; i++) {
		struct mf_folio *folio = world_alloc(&w, orders[i]);

		TAP_REQUIRE(folio);
		/* More references than any biased counter would tell from pins. */
		for (unsigned k = 0; k < 5000; k++)
			mf_folio_get(folio);
		TAP_EQ(mf_folio_pincount(folio), 0);
		for (unsigned k = 0; k < 1000; k++)
			TAP_EQ(k % 2 ? mf_folio_pin(folio) :
				       mf_pfn_try_pin(w.map, mf_folio_pfn(w.map, folio)) == folio ? 0 : -1, 0);
		TAP_EQ(mf_folio_pincount(folio), 1000);
		TAP_EQ(mf_folio_refcount(folio), 6001);
		for (unsigned k = 0; k < 1000; k++)
			mf_folio_unpin(w.map, folio);
		TAP_EQ(mf_folio_pincount(folio), 0);
		for (unsigned k = 0; k < 5001; k++)
			mf_folio_put(w.map, folio);
		TAP_OK(!mf_pfn_try_get(w.map, mf_page_to_pfn(w.map, &folio->page)));
	}
	TAP_OK(world_close(&w));
}

TAP_TEST(the_last_pin_frees)
{
	struct mf_folio *folio;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_world(&w));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w.map, folio);
	TAP_EQ(mf_folio_pin(folio), 0);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_folio_refcount(folio), 1);
	TAP_OK(world_check(&w));
	mf_folio_unpin(w.map, folio);
	TAP_EQ(mf_page_kind(&mf_pfn_folio(w.map, pfn)->page), MF_KIND_FREE);
	TAP_OK(world_close(&w));
}

/* R-CPD-28, R-CPD-30 */
TAP_TEST(counts_are_refused_at_their_limit)
{
	struct mf_folio *folio;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_world(&w));
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w.map, folio);
	set_counts(folio, MF_COUNT_MAX, 0);
	TAP_OK(!mf_pfn_try_get(w.map, pfn) && !mf_pfn_try_pin(w.map, pfn));
	TAP_OK(!mf_folio_try_get(w.map, &folio->page));
	TAP_EQ(mf_folio_pin(folio), -MF_EOVERFLOW);
	TAP_EQ(mf_folio_refcount(folio), MF_COUNT_MAX);
	TAP_EQ(mf_folio_pincount(folio), 0);
	TAP_OK(TAP_PANICS(mf_folio_get(folio)));
	TAP_OK(sentence_says("too many references"));
	/* One below, the last is taken. */
	set_counts(folio, MF_COUNT_MAX - 1, MF_COUNT_MAX - 1);
	TAP_EQ(mf_folio_pin(folio), 0);
	TAP_EQ(mf_folio_pincount(folio), MF_COUNT_MAX);
	TAP_EQ(mf_folio_pin(folio), -MF_EOVERFLOW);
	set_counts(folio, 1, 0);
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* ---- Map counts ------------------------------------------------------------------------------------------------- */

/* R-CPD-35, R-CPD-37 */
TAP_TEST(mappings_are_counted_per_folio)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_world(&w));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	TAP_EQ(mf_folio_map_whole(folio), 0);
	TAP_EQ(mf_folio_map_whole(folio), 0);
	TAP_EQ(mf_folio_map_frames(folio, 500), 0);
	TAP_EQ(mf_folio_mapcount(folio), 502);
	TAP_EQ(mf_folio_whole_mapcount(folio), 2);
	TAP_EQ(mf_folio_map_frames(folio, INT32_MAX - 502), 0);
	TAP_EQ(mf_folio_map_frames(folio, 1), -MF_EOVERFLOW);
	TAP_EQ(mf_folio_map_whole(folio), -MF_EOVERFLOW);
	TAP_EQ(mf_folio_map_frames(folio, UINT32_MAX), -MF_EOVERFLOW);
	TAP_EQ(mf_folio_mapcount(folio), INT32_MAX);
	TAP_EQ(mf_folio_whole_mapcount(folio), 2);
	mf_folio_unmap_frames(folio, INT32_MAX - 2);
	mf_folio_unmap_whole(folio);
	TAP_EQ(mf_folio_mapcount(folio), 1);
	TAP_EQ(mf_folio_whole_mapcount(folio), 1);
	TAP_OK(world_check(&w));
	mf_folio_unmap_whole(folio);
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

TAP_TEST(a_whole_mapping_that_cannot_be_counted_leaves_no_trace)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_world(&w));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	folio->page.whole_mapcount = INT32_MAX;
	TAP_EQ(mf_folio_map_whole(folio), -MF_EOVERFLOW);
	TAP_EQ(mf_folio_mapcount(folio), 0);
	TAP_EQ(mf_folio_whole_mapcount(folio), INT32_MAX);
	folio->page.whole_mapcount = 0;
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* ---- Owners ----------------------------------------------------------------------------------------------------- */

struct spy {
	struct mf_owner owner;
	unsigned nr_calls;
	struct mf_folio *last;
	uint32_t count;
	bool keep;
};

static bool spy_release(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner)
{
	struct spy *spy = (struct spy *)(uintptr_t)mf_container_of(owner, const struct spy, owner);

	(void)map;
	spy->nr_calls++;
	spy->last = folio;
	spy->count = mf_folio_refcount(folio);
	return spy->keep;
}

/* R-CPD-33 */
TAP_TEST(owner_is_told_once_and_may_keep)
{
	struct spy spy = { .owner = { "spy", spy_release } };
	struct mf_folio *folio;
	struct world w;
	mf_pfn_t pfn;

	TAP_REQUIRE(open_world(&w));
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	pfn = mf_folio_pfn(w.map, folio);
	TAP_OK(!mf_folio_owner(folio));
	mf_folio_set_owner(folio, &spy.owner);
	TAP_OK(mf_folio_owner(folio) == &spy.owner);
	mf_folio_get(folio);
	mf_folio_put(w.map, folio);
	TAP_EQ(spy.nr_calls, 0);

	spy.keep = true;
	mf_folio_put(w.map, folio);
	TAP_EQ(spy.nr_calls, 1);
	TAP_OK(spy.last == folio);
	TAP_EQ(spy.count, 0);
	TAP_EQ(mf_page_kind(&folio->page), MF_KIND_USED);
	TAP_OK(!mf_pfn_try_get(w.map, pfn));
	TAP_OK(world_check(&w));
	mf_folio_unfreeze(folio, 1);
	TAP_EQ(mf_folio_pin(folio), 0);
	mf_folio_put(w.map, folio);
	mf_folio_unpin(w.map, folio);
	TAP_EQ(spy.nr_calls, 2);
	mf_folio_unfreeze(folio, 1);

	spy.keep = false;
	mf_folio_put(w.map, folio);
	TAP_EQ(spy.nr_calls, 3);
	TAP_EQ(mf_page_kind(&mf_pfn_folio(w.map, pfn)->page), MF_KIND_FREE);
	TAP_OK(world_close(&w));
}

/* Nothing of the last owner's shows to the next.  R-CPD-11 */
TAP_TEST(a_new_folio_has_nothing_of_the_old)
{
	struct spy spy = { .owner = { "spy", spy_release } };
	struct world w;

	TAP_REQUIRE(open_world(&w));
	for (unsigned i = 0; i < NR_ORDERS; i++) {
		for (unsigned round = 0; round < 2; round++) {
			struct mf_folio *folio = world_alloc(&w, orders[i]);

			TAP_REQUIRE(folio);
			TAP_OK(!mf_folio_owner(folio) && folio->page.index == 0 && folio->page.private_data == 0);
			TAP_OK(!folio->page.list.next && !folio->page.list.prev);
			TAP_EQ(mf_folio_flags(folio), 0);
			TAP_EQ(mf_folio_mapcount(folio) | mf_folio_whole_mapcount(folio), 0);
			mf_folio_set_owner(folio, &spy.owner);
			mf_folio_set_flags(folio, MF_FLAG_USER0 | MF_FLAG_USER3 | MF_FLAG_CHANGING);
			TAP_EQ(mf_folio_flags(folio), MF_FLAG_USER0 | MF_FLAG_USER3);
			TAP_OK(!(mf_page_word(&folio->page) & MF_FLAG_CHANGING));
			mf_folio_clear_flags(folio, MF_FLAG_USER0);
			TAP_EQ(mf_folio_flags(folio), MF_FLAG_USER3);
			folio->page.index = 1;
			folio->page.private_data = 2;
			mf_list_init(&folio->page.list);
			mf_folio_put(w.map, folio);
		}
	}
	TAP_OK(world_close(&w));
}

/* ---- Its memory ------------------------------------------------------------------------------------------------- */

TAP_TEST(data_is_the_memory_of_the_folio)
{
	struct mf_folio *a, *b;
	struct world w;
	char *at;

	TAP_REQUIRE(open_world(&w));
	a = world_alloc(&w, 0);
	b = world_alloc(&w, 9);
	TAP_REQUIRE(a && b);
	at = mf_folio_data(w.map, b);
	TAP_OK(at == (char *)mf_machine_frame(w.sim, mf_folio_pfn(w.map, b)));
	memset(at, 0x5a, (size_t)512 * 4096);
	memset(mf_folio_data(w.map, a), 0x3c, 4096);
	TAP_OK(at[0] == 0x5a && at[512 * 4096 - 1] == 0x5a);
	TAP_OK(world_check(&w));
	mf_folio_put(w.map, a);
	mf_folio_put(w.map, b);
	TAP_OK(world_close(&w));
}

TAP_TEST(described_only_memory_has_no_data)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "linux", .nr_frames = G }));
	TAP_EQ(world_add(&w, 0, G), 0);
	folio = world_alloc(&w, 0);
	TAP_REQUIRE(folio);
	TAP_OK(!mf_folio_data(w.map, folio));
	mf_folio_put(w.map, folio);
	TAP_OK(world_close(&w));
}

/* ---- Broken contracts ------------------------------------------------------------------------------------------- */

static void breaks_free_twice(struct world *w, struct mf_folio *folio)
{
	TAP_OK(mf_folio_freeze(folio, 1));
	mf_folio_free_frozen(w->map, folio);
	mf_folio_free_frozen(w->map, folio);
}

static void breaks_put_twice(struct world *w, struct mf_folio *folio)
{
	mf_folio_put(w->map, folio);
	mf_folio_put(w->map, folio);
}

static void breaks_put_of_a_pin(struct world *w, struct mf_folio *folio)
{
	TAP_EQ(mf_folio_pin(folio), 0);
	mf_folio_put(w->map, folio);
	mf_folio_put(w->map, folio);
}

static void breaks_unpin(struct world *w, struct mf_folio *folio)
{
	mf_folio_get(folio);
	mf_folio_unpin(w->map, folio);
}

static void breaks_free_of_a_tail(struct world *w, struct mf_folio *folio)
{
	mf_folio_free_frozen(w->map, (struct mf_folio *)(&folio->page + 1));
}

static void breaks_free_in_use(struct world *w, struct mf_folio *folio)
{
	mf_folio_free_frozen(w->map, folio);
}

static void breaks_free_mapped(struct world *w, struct mf_folio *folio)
{
	TAP_EQ(mf_folio_map_frames(folio, 3), 0);
	mf_folio_put(w->map, folio);
}

static void breaks_unmap(struct world *w, struct mf_folio *folio)
{
	(void)w;
	TAP_EQ(mf_folio_map_frames(folio, 3), 0);
	mf_folio_unmap_frames(folio, 4);
}

static void breaks_unmap_of_whole(struct world *w, struct mf_folio *folio)
{
	(void)w;
	TAP_EQ(mf_folio_map_whole(folio), 0);
	TAP_EQ(mf_folio_map_frames(folio, 2), 0);
	mf_folio_unmap_frames(folio, 3);
}

static void breaks_unmap_whole(struct world *w, struct mf_folio *folio)
{
	(void)w;
	TAP_EQ(mf_folio_map_frames(folio, 3), 0);
	mf_folio_unmap_whole(folio);
}

static void breaks_get_of_none(struct world *w, struct mf_folio *folio)
{
	(void)w;
	TAP_OK(mf_folio_freeze(folio, 1));
	mf_folio_get(folio);
}

static void breaks_pin_of_none(struct world *w, struct mf_folio *folio)
{
	(void)w;
	TAP_OK(mf_folio_freeze(folio, 1));
	TAP_EQ(mf_folio_pin(folio), 0);
}

static void breaks_unfreeze(struct world *w, struct mf_folio *folio)
{
	(void)w;
	mf_folio_unfreeze(folio, 1);
}

static void breaks_unfreeze_to_none(struct world *w, struct mf_folio *folio)
{
	(void)w;
	TAP_OK(mf_folio_freeze(folio, 1));
	mf_folio_unfreeze(folio, 0);
}

static void breaks_reader_exit(struct world *w, struct mf_folio *folio)
{
	(void)folio;
	mf_reader_exit(w->map);
}

static const struct breach {
	void (*run)(struct world *w, struct mf_folio *folio);
	const char *says;
} breaches[] = {
	{ breaks_free_twice, "freed twice" },
	{ breaks_put_twice, "that nobody holds" },
	{ breaks_put_of_a_pin, "that nobody holds" },
	{ breaks_unpin, "nobody has pinned it" },
	{ breaks_free_of_a_tail, "it is a tail" },
	{ breaks_free_in_use, "1 references and 0 pins" },
	{ breaks_free_mapped, "is mapped 3 times" },
	{ breaks_unmap, "it has only 3" },
	{ breaks_unmap_of_whole, "1 of its 3 mappings are of the whole" },
	{ breaks_unmap_whole, "it has only 0" },
	{ breaks_get_of_none, "does not hold" },
	{ breaks_pin_of_none, "does not hold" },
	{ breaks_unfreeze, "it is not frozen" },
	{ breaks_unfreeze_to_none, "that is 0" },
	{ breaks_reader_exit, "never entered" },
};

/* R-CPD-28, R-CPD-31 */
TAP_TEST(broken_contracts_end_in_a_sentence)
{
	for (unsigned i = 0; i < sizeof(breaches) / sizeof(breaches[0]); i++) {
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G, .will_break = true }));
		TAP_EQ(world_add(&w, 0, G), 0);
		folio = world_alloc(&w, 4);
		TAP_REQUIRE(folio);
		TAP_OK(TAP_PANICS(breaches[i].run(&w, folio)));
		TAP_OK(sentence_says(breaches[i].says));
		world_abandon(&w);
	}
}

/* R-CPD-9, R-CPD-14: two steps in any order, which write what a word says and no count. */
TAP_TEST(preparation_leaves_counts_alone)
{
	struct mf_page page[3] = { { .counts = 7, .mapcount = 3, .whole_mapcount = 2 }, { .mapcount = 1 } };
	const struct mf_page *head = &page[0], *tail = &page[1];

	mf_page_prepare_tail(&page[1], 9);
	mf_page_prepare_head(&page[0], (uint64_t)MF_KIND_FREE << MF_WORD_KIND_SHIFT, 9);
	TAP_EQ(head->counts, 7);
	TAP_EQ(head->mapcount, 3);
	TAP_EQ(head->whole_mapcount, 2);
	TAP_EQ(mf_page_kind(head), MF_KIND_USED);
	TAP_EQ(mf_word_order(head->word), 9);
	TAP_EQ(tail->counts, 0);
	TAP_EQ(tail->mapcount, 1);
	TAP_EQ(mf_page_kind(tail), MF_KIND_TAIL);
	TAP_EQ(tail->word, ~(uint64_t)(64 * 512 - 1) | 1);
}

TAP_MAIN()
