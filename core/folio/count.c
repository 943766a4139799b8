/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * count.c - taking references and pins, with and without holding one; freezing; map counts.
 *
 * A speculative take is:  enter a reader section; resolve; add unless the count is 0; resolve again; leave the
 * section; if the answer changed, drop the reference and start over.  The section spans load to compare-and-swap, so
 * that a folder never makes the slot read-only in between.  Free, split, map and hole records have count 0, always,
 * so nothing is ever written to them here.
 */
#include "core/folio/folio.h"

void mf_folio_get(struct mf_folio *folio)
{
	uint32_t old = (uint32_t)__atomic_fetch_add(&folio->page.counts, COUNT_REF, __ATOMIC_RELAXED);

	MF_PANIC_IF(old == 0, "memfold: a reference is taken to a folio at %p that the caller does not hold.",
		    (void *)folio);
	MF_PANIC_IF(old >= MF_COUNT_MAX, "memfold: the folio at %p has too many references; its count would wrap.",
		    (void *)folio);
}

/* What a descriptor, or a pfn, belongs to now. */
struct lookup {
	const struct mf_page *page;
	mf_pfn_t pfn;
};

static inline struct mf_folio *resolve(const struct mf_map *map, const struct lookup *at)
{
	return at->page ? mf_page_folio(map, at->page) : mf_pfn_folio(map, at->pfn);
}

static inline void drop(struct mf_map *map, struct mf_folio *folio, uint64_t what)
{
	if (what == COUNT_PIN)
		mf_folio_unpin(map, folio);
	else
		mf_folio_put(map, folio);
}

static inline struct mf_folio *try_take(struct mf_map *map, const struct lookup *at, uint64_t what)
{
	for (;;) {
		struct mf_folio *folio;
		bool still;

		mf_reader_enter(map);
		folio = resolve(map, at);
		if (!folio || !counts_try_add(&folio->page, what))
			folio = NULL;
		/* Between resolve and take it may have been freed and become part of something else. */
		still = !folio || resolve(map, at) == folio;
		mf_reader_exit(map);
		if (MF_LIKELY(still))
			return folio;
		/* Outside the section: it may be the last reference, and the owner's release may do what waits. */
		drop(map, folio, what);
	}
}

struct mf_folio *mf_folio_try_get(struct mf_map *map, struct mf_page *page)
{
	return try_take(map, &(struct lookup){ .page = page }, COUNT_REF);
}

struct mf_folio *mf_pfn_try_get(struct mf_map *map, mf_pfn_t pfn)
{
	return try_take(map, &(struct lookup){ .pfn = pfn }, COUNT_REF);
}

struct mf_folio *mf_pfn_try_pin(struct mf_map *map, mf_pfn_t pfn)
{
	return try_take(map, &(struct lookup){ .pfn = pfn }, COUNT_PIN);
}

/* Refused, or a contract broken: what mf_folio_pin() has added goes again. */
static __attribute__((noinline, cold)) int pin_undo(struct mf_folio *folio, uint64_t old)
{
	__atomic_fetch_sub(&folio->page.counts, COUNT_PIN, __ATOMIC_RELAXED);
	MF_PANIC_IF((uint32_t)old == 0, "memfold: a folio at %p is pinned that the caller does not hold.",
		    (void *)folio);
	return -MF_EOVERFLOW;
}

/* One unconditional add: the caller holds a reference, and MF_COUNT_MAX leaves room for those who undo theirs. */
int mf_folio_pin(struct mf_folio *folio)
{
	uint64_t old = __atomic_fetch_add(&folio->page.counts, COUNT_PIN, __ATOMIC_ACQUIRE);

	if (MF_UNLIKELY((uint32_t)old - 1 >= MF_COUNT_MAX - 1))
		return pin_undo(folio, old);
	return 0;
}

bool mf_folio_freeze(struct mf_folio *folio, uint32_t expected)
{
	uint64_t counts = expected;

	return __atomic_compare_exchange_n(&folio->page.counts, &counts, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void mf_folio_unfreeze(struct mf_folio *folio, uint32_t count)
{
	MF_PANIC_IF(__atomic_load_n(&folio->page.counts, __ATOMIC_RELAXED) != 0 || count == 0,
		    "memfold: a folio at %p is unfrozen to count %u, but it is not frozen or that is 0.",
		    (void *)folio, count);
	__atomic_store_n(&folio->page.counts, count, __ATOMIC_RELEASE);
}

/* ---- Map counts ------------------------------------------------------------------------------------------------ */

static int map_count_add(int32_t *count, uint32_t nr)
{
	int32_t old = __atomic_load_n(count, __ATOMIC_RELAXED);

	do {
		if (nr > (uint32_t)(INT32_MAX - old))
			return -MF_EOVERFLOW;
	} while (!__atomic_compare_exchange_n(count, &old, old + (int32_t)nr, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return 0;
}

static void map_count_sub(const struct mf_folio *folio, int32_t *count, uint32_t nr)
{
	int32_t old = __atomic_fetch_sub(count, (int32_t)nr, __ATOMIC_RELEASE);

	MF_PANIC_IF(old < 0 || (uint32_t)old < nr,
		    "memfold: %u mappings of the folio at %p end, but it has only %d.", nr, (const void *)folio, old);
}

int mf_folio_map_whole(struct mf_folio *folio)
{
	int err = map_count_add(&folio->page.mapcount, 1);

	if (!err && map_count_add(&folio->page.whole_mapcount, 1)) {
		map_count_sub(folio, &folio->page.mapcount, 1);
		err = -MF_EOVERFLOW;
	}
	return err;
}

void mf_folio_unmap_whole(struct mf_folio *folio)
{
	map_count_sub(folio, &folio->page.whole_mapcount, 1);
	map_count_sub(folio, &folio->page.mapcount, 1);
}

int mf_folio_map_frames(struct mf_folio *folio, uint32_t nr_frames)
{
	return map_count_add(&folio->page.mapcount, nr_frames);
}

void mf_folio_unmap_frames(struct mf_folio *folio, uint32_t nr_frames)
{
	int32_t whole = mf_folio_whole_mapcount(folio), old = __atomic_load_n(&folio->page.mapcount, __ATOMIC_RELAXED);

	/* Whole mappings enter the sum first and leave it last, so the sum is never below them. */
	MF_PANIC_IF(nr_frames <= (uint32_t)old && old - (int32_t)nr_frames < whole,
		    "memfold: %u frames of the folio at %p are unmapped, but %d of its %d mappings are of the whole.",
		    nr_frames, (void *)folio, whole, old);
	map_count_sub(folio, &folio->page.mapcount, nr_frames);
}
