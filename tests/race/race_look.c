/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_look.c - those who look: takers without a reference from above and from below, pinners, reader sections that saw
 * a count, an iterator.
 *
 * Owns race.armed[].  Laws: what I hold keeps its word and answers alike from above and below; nothing is unbacked
 * below a section that saw a count; who iterates finds the folios that stay.
 */
#include <sched.h>

#include "tests/race/race.h"
#include "tests/tap.h"

/* Who looks goes on until nothing changes any more. */
static bool others_work(void)
{
	return atomic_load_explicit(&race.nr_working, memory_order_relaxed) > 0;
}

/* ---- Takers ------------------------------------------------------------------------------------------------ */

static mf_pfn_t somewhere(struct worker *w)
{
	uint64_t near = atomic_load_explicit(&race.hint[pick(w, NR_HINTS)], memory_order_relaxed);

	if (one_in(w, 4))
		return pick(w, SPAN);
	/* The first descriptor of a map slot: an alias of a head, where there are such. */
	if (race.with_diets && one_in(w, 2))
		return mf_min(mf_round_down(near, 64) + 64 * pick(w, 32), SPAN - 1);
	return mf_min(near + pick(w, one_in(w, 4) ? 1024 : 2), SPAN - 1);
}

/* It is mine as long as I hold it: the same word, the same answer from every side. */
static void check_held(struct worker *w, struct mf_folio *folio, mf_pfn_t pfn)
{
	uint64_t word = mf_page_word(&folio->page);
	mf_pfn_t first = mf_folio_pfn(race.map, folio);

	TAP_OK(!mf_word_is_tail(word) &&
	       mf_word_kind(word) == (race.with_diets && pfn >= E_END && pfn < F_END ? MF_KIND_DEVICE : MF_KIND_USED));
	TAP_OK(pfn >= first && pfn < first + ((mf_pfn_t)1 << mf_word_order(word)));
	if (one_in(w, 4))
		sched_yield();
	TAP_OK(mf_folio_refcount(folio) > 0);
	TAP_OK(mf_pfn_folio(race.map, pfn) == folio && mf_page_folio(race.map, mf_pfn_to_page(race.map, pfn)) == folio);
	TAP_OK(mf_pfn_is_valid(race.map, pfn));
	TAP_OK(mf_page_word(&folio->page) == word);
	if (word & MF_WORD_ALIASED && pfn != first && !mf_word_is_tail(mf_page_word(mf_pfn_to_page(race.map, pfn))))
		count(GETS_ALIASED);
}

static void look_once(struct worker *w, enum tally how)
{
	mf_pfn_t pfn = somewhere(w);
	unsigned tier = (unsigned)pick(w, 3);
	struct mf_page *page = mf_geometry_descriptor(mf_map_geometry(race.map), tier, pfn);
	struct mf_folio *folio;

	if (how == GETS_BELOW) {
		folio = mf_folio_try_get(race.map, page);
		pfn = mf_page_to_pfn(race.map, page); /* of the tier's block: what the descriptor stands for */
	} else {
		folio = how == PINS ? mf_pfn_try_pin(race.map, pfn) : mf_pfn_try_get(race.map, pfn);
	}
	if (!folio)
		return;
	count(how);
	check_held(w, folio, pfn);
	if (how == PINS) {
		TAP_OK(mf_folio_pincount(folio) > 0);
		TAP_EQ(mf_folio_pin(folio), 0);
		mf_folio_unpin(race.map, folio);
		mf_folio_unpin(race.map, folio);
		return;
	}
	mf_folio_get(folio);
	mf_folio_put(race.map, folio);
	mf_folio_put(race.map, folio);
}

void race_look(struct worker *w)
{
	static const enum tally how[] = { GETS_BELOW, GETS_ABOVE, PINS };

	for (uint64_t i = 0; i < race.nr_ops || others_work(); i++)
		look_once(w, how[i % 3]);
}

/* ---- Sections ---------------------------------------------------------------------------------------------- */

/* What a taker does that was overtaken: a compare-and-swap that fails, but wants to write.  On page tables it faults. */
static void write_nothing(struct mf_folio *folio)
{
	uint64_t never = ~(uint64_t)0;

	TAP_OK(!__atomic_compare_exchange_n(&folio->page.counts, &never, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/* A section that has seen a count: its record stays backed until the section ends. */
void race_arm(struct worker *w)
{
	_Atomic uintptr_t *mine = &race.armed[w->number % NR_ARMED];

	for (uint64_t i = 0; i < race.nr_ops / 4 || others_work(); i++) {
		struct mf_folio *folio;

		mf_reader_enter(race.map);
		folio = mf_pfn_folio(race.map, somewhere(w));
		if (folio && mf_folio_refcount(folio) > 0) {
			atomic_store(mine, (uintptr_t)folio);
			count(ARMED);
			sched_yield();
			write_nothing(folio);
			atomic_store(mine, 0);
		}
		mf_reader_exit(race.map);
	}
}

void race_check_not_armed(void *ctx, uintptr_t addr, uint64_t size_bytes)
{
	(void)ctx;
	for (unsigned i = 0; i < NR_ARMED; i++) {
		uintptr_t record = atomic_load(&race.armed[i]);

		TAP_OK(record < addr || record >= addr + size_bytes);
	}
}

/* ---- Iteration --------------------------------------------------------------------------------------------- */

/* It calls nothing that yields of its own accord, and others may want its processor. */
void race_iterator(struct worker *w)
{
	for (uint64_t i = 0; i < race.nr_ops / 200 || others_work(); i++) {
		mf_pfn_t pfn = 0;
		struct mf_folio *folio;
		unsigned found = 0;

		while ((folio = mf_folio_next(race.map, pfn, SPAN, &pfn)) != NULL) {
			for (unsigned s = 0; s < NR_SENTINELS; s++)
				found += mf_folio_pfn(race.map, folio) == race.sentinel[s];
			if (one_in(w, 8))
				sched_yield();
		}
		TAP_EQ(found, NR_SENTINELS);
		count(PASSES);
	}
}
