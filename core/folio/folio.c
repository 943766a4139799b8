/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * folio.c - folios come from a zone and go back to it: preparation, release, iteration.
 *
 * A free record is zero but for its word.  Allocation writes the tails, the head's word, and last the count; freeing sets
 * the owner's fields back to zero and every descriptor to "free", while the count is 0 and nobody can take a reference.
 */
#include "core/folio/folio.h"

void mf_page_prepare_head(struct mf_page *head, uint64_t record_word, unsigned order)
{
	map_set_word(head, map_word_as(record_word, MF_KIND_USED) | map_word_order(order));
}

void mf_page_prepare_tail(struct mf_page *tail, unsigned order_in_tier)
{
	map_set_word(tail, ~(((uint64_t)MF_DESCRIPTOR_SIZE << order_in_tier) - 1) | 1);
}

/* ---- Allocate ------------------------------------------------------------------------------------------------------------- */

static unsigned node_distance(unsigned a, unsigned b)
{
	return a > b ? a - b : b - a;
}

/* Zones by distance of their node from the preferred one, those of equal distance in the order they were made. */
static int alloc_from_zones(struct mf_map *map, int node, unsigned order, unsigned alloc_flags, struct mf_page **page)
{
	unsigned preferred = node == MF_ANY_NODE ? 0 : (unsigned)node;
	unsigned last = alloc_flags & MF_ALLOC_THIS_NODE ? 0 : MF_NODES_MAX - 1;
	unsigned nr_zones = __atomic_load_n(&map->nr_zones, __ATOMIC_ACQUIRE), tried = 0;

	for (unsigned distance = 0; distance <= last && tried < nr_zones; distance++) {
		for (unsigned i = 0; i < nr_zones; i++) {
			struct mf_zone *zone = map->zone[i];

			if (node_distance(zone->node, preferred) != distance)
				continue;
			tried++;
			if (zone_alloc(zone, order, alloc_flags, page) == 0)
				return 0;
		}
	}
	return -MF_ENOMEM;
}

int mf_folio_alloc(struct mf_map *map, int node, unsigned order, unsigned alloc_flags, struct mf_folio **folio)
{
	struct mf_page *page;
	uint64_t word;
	int err = map_permit(map);

	if (MF_UNLIKELY(err))
		return err;
	if (MF_UNLIKELY(order >= MF_ORDERS_MAX || node < MF_ANY_NODE || node >= MF_NODES_MAX ||
			alloc_flags & ~(unsigned)(MF_ALLOC_NOWAIT | MF_ALLOC_THIS_NODE)))
		return -MF_EINVAL;
	err = alloc_from_zones(map, node, order, alloc_flags, &page);
	if (MF_UNLIKELY(err))
		return err;
	word = mf_page_word(page);
	write_tails(page, order - map->geo.shift[mf_word_tier(word)]);
	mf_page_prepare_head(page, word, order);
	__atomic_store_n(&page->counts, COUNT_REF, __ATOMIC_RELEASE);
	*folio = (struct mf_folio *)page;
	return 0;
}

/* ---- Free ----------------------------------------------------------------------------------------------------------------- */

static void check_may_free(const struct mf_map *map, const struct mf_page *page)
{
	uint64_t word = mf_page_word(page);
	unsigned long long pfn = mf_page_to_pfn(map, page);

	MF_PANIC_IF(mf_word_is_tail(word), "memfold: pfn %llu is freed, but it is a tail; free the head of its folio.", pfn);
	MF_PANIC_IF(mf_word_kind(word) == MF_KIND_FREE, "memfold: the folio at pfn %llu is freed twice.", pfn);
	MF_PANIC_IF(mf_word_kind(word) != MF_KIND_USED,
		    "memfold: pfn %llu is freed, but it is no folio in use (kind %d).", pfn, (int)mf_word_kind(word));
	MF_PANIC_IF(page->counts != 0,
		    "memfold: the folio at pfn %llu is freed with %u references and %u pins; both must be 0.", pfn,
		    (unsigned)page->counts, (unsigned)(page->counts >> 32));
	MF_PANIC_IF(page->mapcount != 0, "memfold: the folio at pfn %llu is freed while it is mapped %d times.", pfn,
		    page->mapcount);
}

void mf_folio_free_frozen(struct mf_map *map, struct mf_folio *folio)
{
	struct mf_page *page = &folio->page;
	uint64_t word = mf_page_word(page);
	unsigned order = mf_word_order(word);
	uint64_t free_word, nr;

	check_may_free(map, page);
	free_word = map_word_as(word, MF_KIND_FREE);
	nr = (uint64_t)1 << (order - map->geo.shift[mf_word_tier(word)]);
	page->list = (struct mf_list){ 0 };
	page->mapping = 0;
	page->index = 0;
	page->private_data = 0;
	for (uint64_t i = 0; i < nr; i++)
		map_set_word(&page[i], free_word);
	zone_free(zone_of_word(map, word), page, order);
}

/* The last reference is gone: the owner decides. */
static void release(struct mf_map *map, struct mf_folio *folio)
{
	const struct mf_owner *owner = mf_folio_owner(folio);

	__atomic_thread_fence(__ATOMIC_ACQUIRE); /* what other holders wrote before they dropped theirs */
	if (owner && owner->release && owner->release(map, folio, owner))
		return;
	mf_folio_free_frozen(map, folio);
}

void mf_folio_put(struct mf_map *map, struct mf_folio *folio)
{
	uint64_t old = __atomic_fetch_sub(&folio->page.counts, COUNT_REF, __ATOMIC_RELEASE);

	MF_PANIC_IF((uint32_t)old <= old >> 32,
		    "memfold: a reference to the folio at pfn %llu is dropped that nobody holds (%u references, %u of them pins).",
		    (unsigned long long)mf_folio_pfn(map, folio), (unsigned)old, (unsigned)(old >> 32));
	if ((uint32_t)old == 1)
		release(map, folio);
}

void mf_folio_unpin(struct mf_map *map, struct mf_folio *folio)
{
	uint64_t old = __atomic_fetch_sub(&folio->page.counts, COUNT_PIN, __ATOMIC_RELEASE);

	MF_PANIC_IF(old >> 32 == 0, "memfold: the folio at pfn %llu is unpinned, but nobody has pinned it.",
		    (unsigned long long)mf_folio_pfn(map, folio));
	if ((uint32_t)old == 1)
		release(map, folio);
}

/* ---- Where it is, and which comes next ------------------------------------------------------------------------------------ */

void *mf_folio_data(struct mf_map *map, const struct mf_folio *folio)
{
	struct mf_machine *m = map->machine;

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
		size = map_block_frames(map, mf_word_tier(word));
		if (mf_word_kind(word) == MF_KIND_USED || word & MF_FLAG_BUDDY)
			size = (mf_pfn_t)1 << mf_word_order(word);
		pfn = mf_round_down(pfn, size) + size;
		if (mf_word_kind(word) == MF_KIND_USED) {
			*next_pfn = pfn;
			return folio;
		}
	}
	*next_pfn = end_pfn;
	return NULL;
}
