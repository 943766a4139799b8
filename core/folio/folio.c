/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * folio.c - folios come from a zone and go back to it: preparation, release, iteration.
 *
 * A free record is zero but for its word.  Allocation writes the tails, the head's word, and last the count; freeing
 * sets the owner's fields back to zero and every descriptor to "free", while the count is 0 and nobody can take a
 * reference.
 */
#include "core/folio/folio.h"

void mf_page_prepare_head(struct mf_page *head, uint64_t record_word, unsigned order)
{
	map_set_word(head, map_word_as(record_word, MF_KIND_USED) | map_word_order(order));
}

void mf_page_prepare_tail(struct mf_page *tail, unsigned order_in_tier)
{
	map_set_word(tail, map_tail_word(order_in_tier));
}

/* ---- Allocate -------------------------------------------------------------------------------------------------- */

static unsigned node_distance(unsigned a, unsigned b)
{
	return a > b ? a - b : b - a;
}

/* From the caches first: base frames and whole blocks of tier 1. */
static int alloc_from_zone(struct mf_zone *zone, unsigned order, unsigned alloc_flags, struct mf_page **page)
{
	if ((order == 0 || order == zone->map->geo.step) && cache_get(zone, order != 0, page))
		return 0;
	return zone_alloc(zone, order, alloc_flags, page);
}

typedef int (*alloc_from_fn)(struct mf_zone *zone, unsigned order, unsigned alloc_flags, struct mf_page **page);

static int alloc_last_resort(struct mf_zone *zone, unsigned order, unsigned alloc_flags, struct mf_page **page)
{
	(void)alloc_flags;
	return zone_alloc_last_resort(zone, order, page);
}

/* Zones by distance of their node from the preferred one, those of equal distance in the order they were made. */
static __attribute__((noinline)) int alloc_from_zones(struct mf_map *map, int node, unsigned order,
						      unsigned alloc_flags, alloc_from_fn alloc_from,
						      struct mf_page **page)
{
	unsigned preferred = node == MF_ANY_NODE ? 0 : (unsigned)node;
	unsigned last = alloc_flags & MF_ALLOC_THIS_NODE ? 0 : MF_NODES_MAX - 1;
	unsigned nr_zones = map_nr_zones(map), tried = 0;

	for (unsigned distance = 0; distance <= last && tried < nr_zones; distance++) {
		for (unsigned i = 0; i < nr_zones; i++) {
			struct mf_zone *zone = map->zone[i];

			if (node_distance(zone->node, preferred) != distance)
				continue;
			tried++;
			if (alloc_from(zone, order, alloc_flags, page) == 0)
				return 0;
		}
	}
	return -MF_ENOMEM;
}

static __attribute__((noinline)) int alloc_slow(struct mf_map *map, int node, unsigned order, unsigned alloc_flags,
						struct mf_folio **folio)
{
	struct mf_page *page;
	uint64_t word;
	int err = map_permit(map);

	if (err)
		return err;
	if (order >= MF_ORDERS_MAX || node < MF_ANY_NODE || node >= MF_NODES_MAX ||
	    alloc_flags > MF_ALLOC_FLAGS_ALL || (node == MF_ANY_NODE && alloc_flags & MF_ALLOC_THIS_NODE))
		return -MF_EINVAL;
	err = alloc_from_zones(map, node, order, alloc_flags, alloc_from_zone, &page);
	if (err)
		err = alloc_from_zones(map, node, order, alloc_flags, alloc_last_resort, &page);
	if (err)
		return err;
	word = mf_page_word(page);
	write_tails(page, order - map->geo.shift[mf_word_tier(word)]);
	mf_page_prepare_head(page, word, order);
	__atomic_store_n(&page->counts, COUNT_REF, __ATOMIC_RELEASE);
	*folio = (struct mf_folio *)page;
	return 0;
}

/* The word of a free record that is cached, but for what never changes; and what turns it into that of a folio. */
#define CACHED_WORD ((uint64_t)MF_KIND_FREE << MF_WORD_KIND_SHIFT | MF_FLAG_CACHED)
#define CACHED_TO_USED ((uint64_t)(MF_KIND_FREE ^ MF_KIND_USED) << MF_WORD_KIND_SHIFT | MF_FLAG_CACHED)

/*
 * A base frame (kind 0) or a whole block of tier 1 that is at hand for this CPU.  After an empty cache the zone stands
 * for the node that was asked for: fewer values have to survive the common case.
 */
static inline int alloc_at_hand(struct mf_zone *zone, unsigned kind, unsigned order, unsigned alloc_flags,
				struct mf_folio **folio)
{
	struct mf_machine *m = zone->machine;
	struct mf_page *page;
	uint64_t word;

	if (MF_UNLIKELY(m->ops->may_use && !m->ops->may_use(m)))
		return -MF_EPERM;
	if (MF_UNLIKELY(!cache_get(zone, kind, &page)))
		return alloc_slow(zone->map, (int)zone->node, order, alloc_flags, folio);
	word = mf_page_word(page);
	MF_ASSERT((word & ~MAP_WORD_IDENTITY) == CACHED_WORD);
	map_set_word(page, word ^ (CACHED_TO_USED | map_word_order(order)));
	__atomic_store_n(&page->counts, COUNT_REF, __ATOMIC_RELEASE);
	*folio = (struct mf_folio *)page;
	return 0;
}

/* Functions of their own, since each needs fewer registers than the two together. */
static __attribute__((noinline)) int alloc_base(struct mf_zone *zone, unsigned alloc_flags, struct mf_folio **folio)
{
	return alloc_at_hand(zone, 0, 0, alloc_flags, folio);
}

static __attribute__((noinline)) int alloc_block(struct mf_zone *zone, unsigned alloc_flags, struct mf_folio **folio)
{
	return alloc_at_hand(zone, 1, zone->map->geo.step, alloc_flags, folio);
}

int mf_folio_alloc(struct mf_map *map, int node, unsigned order, unsigned alloc_flags, struct mf_folio **folio)
{
	struct mf_zone *zone = NULL;

	if (MF_LIKELY((unsigned)node + 1 <= MF_NODES_MAX && (alloc_flags <= MF_ALLOC_NOWAIT ||
								(node >= 0 && alloc_flags <= MF_ALLOC_FLAGS_ALL))))
		zone = __atomic_load_n(&map->zone_of_node[(unsigned)node + 1], __ATOMIC_ACQUIRE);
	if (MF_LIKELY(zone != NULL)) {
		if (order == 0)
			return alloc_base(zone, alloc_flags, folio);
		if (order == map->geo.step)
			return alloc_block(zone, alloc_flags, folio);
	}
	return alloc_slow(map, node, order, alloc_flags, folio);
}

/* ---- Free ------------------------------------------------------------------------------------------------------ */

/* Says which part of the contract is broken.  In a forked child, where every record is wiped, none is: it returns. */
static __attribute__((noinline, cold)) void panic_not_freeable(const struct mf_map *map, const struct mf_page *page)
{
	uint64_t word = mf_page_word(page), counts = __atomic_load_n(&page->counts, __ATOMIC_RELAXED);
	unsigned long long pfn = mf_page_to_pfn(map, page);

	if (map_permit(map))
		return;
	if (mf_word_is_tail(word))
		mf_panic("memfold: pfn %llu is freed, but it is a tail; free the head of its folio.", pfn);
	if (mf_word_kind(word) == MF_KIND_FREE || word & MF_FLAG_CACHED)
		mf_panic("memfold: the folio at pfn %llu is freed twice.", pfn);
	if (mf_word_kind(word) == MF_KIND_DEVICE)
		mf_panic("memfold: the reference to the compound at pfn %llu is dropped that is its region's own.",
			 pfn);
	if (mf_word_kind(word) != MF_KIND_USED)
		mf_panic("memfold: pfn %llu is freed, but it is no folio in use (kind %d).", pfn,
			 (int)mf_word_kind(word));
	if (counts != 0)
		mf_panic("memfold: the folio at pfn %llu is freed with %u references and %u pins; both must be 0.", pfn,
			 (unsigned)counts, (unsigned)(counts >> 32));
	mf_panic("memfold: the folio at pfn %llu is freed while it is mapped %d times.", pfn, page->mapcount);
}

/* What the owner kept in the record; its counts are 0 and stay as they are, since anyone may read them. */
static inline void forget_owner(struct mf_page *page)
{
	char *from = (char *)page + offsetof(struct mf_page, list);

	__builtin_memset(from, 0, sizeof(*page) - offsetof(struct mf_page, list));
}

/* Needs: the contract of mf_folio_free_frozen() checked. */
static inline void free_to_cache(struct mf_map *map, struct mf_page *page, uint64_t word, unsigned kind)
{
	forget_owner(page);
	map_set_word(page, (word & MAP_WORD_IDENTITY) | CACHED_WORD);
	cache_put(zone_of_word(map, word), kind, page);
}

static __attribute__((noinline)) void free_any(struct mf_map *map, struct mf_page *page)
{
	uint64_t word = mf_page_word(page);
	unsigned order = mf_word_order(word), tier = mf_word_tier(word);

	if (MF_UNLIKELY(mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_USED ||
			(word & (MF_FLAG_DIET | MF_FLAG_CACHED)) == (MF_FLAG_DIET | MF_FLAG_CACHED) ||
			__atomic_load_n(&page->counts, __ATOMIC_RELAXED) != 0 || page->mapcount != 0)) {
		panic_not_freeable(map, page);
		return;
	}
	if (MF_LIKELY(zone_caches(map, order, tier))) {
		free_to_cache(map, page, word, tier);
	} else if (MF_UNLIKELY(word & MF_FLAG_DIET)) {
		forget_owner(page);
		kept_put(zone_of_word(map, word), page);
	} else {
		zone_free_folio(zone_of_word(map, word), page);
	}
}

void mf_folio_free_frozen(struct mf_map *map, struct mf_folio *folio)
{
	free_any(map, &folio->page);
}

static __attribute__((noinline)) void release_owned(struct mf_map *map, struct mf_folio *folio,
						    const struct mf_owner *owner)
{
	if (!owner->release || !owner->release(map, folio, owner))
		free_any(map, &folio->page);
}

/* A used record of a base frame: its kind, tier and order in one compare. */
#define SHAPE_MASK (MF_WORD_KIND_MASK | (uint64_t)3 << MF_WORD_TIER_SHIFT | (uint64_t)63 << MF_WORD_ORDER_SHIFT)
#define SHAPE_BASE ((uint64_t)MF_KIND_USED << MF_WORD_KIND_SHIFT)

/*
 * The last reference is gone (acquire: what other holders wrote before they dropped theirs is seen): the owner decides,
 * and where there is none, the folio is freed.  Whatever is no base frame that may be freed goes the long way, which
 * says why not.
 */
static inline void release(struct mf_map *map, struct mf_folio *folio)
{
	const struct mf_owner *owner = mf_folio_owner(folio);
	uint64_t word = mf_page_word(&folio->page);

	if (MF_UNLIKELY(owner != NULL))
		release_owned(map, folio, owner);
	else if (MF_LIKELY((word & SHAPE_MASK) == SHAPE_BASE && folio->page.mapcount == 0))
		free_to_cache(map, &folio->page, word, 0);
	else
		free_any(map, &folio->page);
}

/*
 * The count was impossible.  In a forked child that is no mistake: the record is wiped, and what was taken from it
 * goes back.
 */
static __attribute__((noinline, cold)) void panic_not_held(const struct mf_map *map, struct mf_folio *folio,
							   uint64_t counts)
{
	if (map_permit(map)) {
		__atomic_fetch_add(&folio->page.counts, COUNT_REF, __ATOMIC_RELAXED);
		return;
	}
	mf_panic("memfold: a reference to the folio at pfn %llu is dropped that nobody holds "
		 "(%u references, %u of them pins).",
		 (unsigned long long)mf_folio_pfn(map, folio), (unsigned)counts, (unsigned)(counts >> 32));
}

static __attribute__((noinline, cold)) void panic_not_pinned(const struct mf_map *map, struct mf_folio *folio)
{
	if (map_permit(map)) {
		__atomic_fetch_add(&folio->page.counts, COUNT_PIN, __ATOMIC_RELAXED);
		return;
	}
	mf_panic("memfold: the folio at pfn %llu is unpinned, but nobody has pinned it.",
		 (unsigned long long)mf_folio_pfn(map, folio));
}

void mf_folio_put(struct mf_map *map, struct mf_folio *folio)
{
	uint64_t old = __atomic_fetch_sub(&folio->page.counts, COUNT_REF, __ATOMIC_ACQ_REL);

	if (old == COUNT_REF)
		release(map, folio);
	else if (MF_UNLIKELY((uint32_t)old <= old >> 32))
		panic_not_held(map, folio, old);
}

void mf_folio_unpin(struct mf_map *map, struct mf_folio *folio)
{
	uint64_t old = __atomic_fetch_sub(&folio->page.counts, COUNT_PIN, __ATOMIC_ACQ_REL);

	if (MF_UNLIKELY(old >> 32 == 0))
		panic_not_pinned(map, folio);
	else if ((uint32_t)old == 1)
		release(map, folio);
}

/* ---- Where it is, and which comes next ------------------------------------------------------------------------- */

void *mf_folio_data(struct mf_map *map, const struct mf_folio *folio)
{
	struct mf_machine *m = map->machine;

	if (map_permit(map))
		return NULL;
	return m->ops->data ? m->ops->data(m, mf_folio_pfn(map, folio), mf_folio_nr_frames(folio)) : NULL;
}

struct mf_folio *mf_folio_next(struct mf_map *map, mf_pfn_t pfn, mf_pfn_t end_pfn, mf_pfn_t *next_pfn)
{
	mf_pfn_t end = mf_min(end_pfn, map->geo.span);

	while (pfn < end) {
		struct mf_folio *folio = mf_pfn_folio(map, pfn);
		mf_pfn_t size = map_block_frames(map, folio ? 0 : map->geo.top);
		uint64_t word;

		if (!folio) {
			pfn = mf_round_down(pfn, size) + size;
			continue;
		}
		word = mf_page_word(&folio->page);
		if (mf_word_is_tail(word))
			continue; /* a merge overtook us: ask again */
		size = map_block_frames(map, mf_word_tier(word));
		if (map_word_is_folio(word) || word & MF_FLAG_BUDDY)
			size = (mf_pfn_t)1 << mf_word_order(word);
		pfn = mf_round_down(pfn, size) + size;
		if (map_word_is_folio(word) && !map_word_is_kept(word)) {
			*next_pfn = pfn;
			return folio;
		}
	}
	*next_pfn = end_pfn;
	return NULL;
}
