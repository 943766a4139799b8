/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * split.c - a folio in use becomes several, and several become one.
 *
 * Everything happens while every record concerned has count 0, frozen by the sole holder; so lookups see valid records
 * all the time and nobody can take a reference.  Inside a tier only words are rewritten; across tiers blocks are
 * unfolded or folded in use (frames room).  Splitting may lack frames: what was unfolded is folded back, which cannot
 * fail.
 */
#include "core/folio/folio.h"

/* ---- Records of one tier --------------------------------------------------------------------------------------- */

static uint64_t used_word(uint64_t word, unsigned tier, unsigned order)
{
	return map_word(MF_KIND_USED, tier, mf_word_zone(word), mf_word_node(word), mf_word_region(word)) |
	       map_word_order(order) | (word & MF_FLAGS_USER);
}

/* [pfn, pfn + 2^order) on one tier becomes folios of `piece` order, frozen, without owners. */
static void write_pieces(struct mf_map *map, uint64_t like, unsigned tier, mf_pfn_t pfn, unsigned order, unsigned piece)
{
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order);
	unsigned in_tier = piece - map->geo.shift[tier];

	for (; pfn < end; pfn += (mf_pfn_t)1 << piece) {
		struct mf_page *head = map_record(map, tier, pfn);

		for (uint64_t i = 0; i < (uint64_t)1 << in_tier; i++)
			map_clear_fields(&head[i]);
		write_tails(head, in_tier);
		map_set_word(head, used_word(like, tier, piece));
	}
}

/* ---- Across tiers ---------------------------------------------------------------------------------------------- */

/* [pfn, pfn + 2^order), frozen, becomes one folio at `tier`: blocks that are split are folded, lowest first. */
static void join(struct mf_map *map, uint64_t like, unsigned tier, mf_pfn_t pfn, unsigned order)
{
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order), size = map_block_frames(map, tier);

	for (mf_pfn_t at = pfn; at < end && tier > 0; at += size) {
		struct mf_page *block = map_record(map, tier, at);

		if (mf_page_kind(block) != MF_KIND_SPLIT)
			continue;
		join(map, like, mf_word_child(mf_page_word(block)), at, map->geo.shift[tier]);
		fold_used(zone_of_word(map, like), block, used_word(like, tier, map->geo.shift[tier]));
	}
	write_pieces(map, like, tier, pfn, order, order);
}

/* A frozen folio becomes frozen folios of a lower order; all of them, or -MF_ENOMEM and it is what it was. */
static int divide(struct mf_map *map, uint64_t like, unsigned tier, mf_pfn_t pfn, unsigned order, unsigned piece)
{
	unsigned block_order = map->geo.shift[tier];
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order);
	int err = 0;

	if (piece >= block_order) {
		write_pieces(map, like, tier, pfn, order, piece);
		return 0;
	}
	write_pieces(map, like, tier, pfn, order, block_order);
	for (mf_pfn_t at = pfn; at < end && !err; at += (mf_pfn_t)1 << block_order) {
		struct mf_page *block = map_record(map, tier, at);

		err = unfold_used(zone_of_word(map, like), block, used_word(like, tier - 1, map->geo.shift[tier - 1]));
		/* Whole blocks of that tier are written already. */
		if (!err && piece != map->geo.shift[tier - 1])
			err = divide(map, like, tier - 1, at, block_order, piece);
	}
	if (err)
		join(map, like, tier, pfn, order);
	return err;
}

/* ---- The calls ------------------------------------------------------------------------------------------------- */

/* What an owner keeps in the head while the records are rewritten. */
struct kept {
	uint64_t mapping, index, private_data;
};

static struct kept keep(const struct mf_page *page)
{
	return (struct kept){ page->mapping, page->index, page->private_data };
}

static void restore(struct mf_page *page, const struct kept *kept)
{
	page->mapping = kept->mapping;
	page->index = kept->index;
	page->private_data = kept->private_data;
}

static void hand_out(struct mf_map *map, mf_pfn_t pfn, unsigned order, unsigned piece, const struct kept *kept)
{
	struct mf_folio *folio = mf_pfn_folio(map, pfn);
	uint64_t step = (uint64_t)1 << (piece - map->geo.shift[mf_word_tier(mf_page_word(&folio->page))]);
	struct kept each = *kept;

	/* All on one tier, side by side. */
	for (uint64_t nr = (uint64_t)1 << (order - piece); nr > 0; nr--, folio += step) {
		restore(&folio->page, &each);
		each.private_data = 0;
		each.index += (mf_pfn_t)1 << piece;
		__atomic_store_n(&folio->page.counts, 1, __ATOMIC_RELEASE);
	}
}

/*
 * Frozen, unmapped and on no diet, or -MF_EBUSY.  Looked at once it is frozen: a holder that has gone may have put it
 * on its diet before.
 */
static int seize(struct mf_folio *folio)
{
	if (!mf_folio_freeze(folio, 1))
		return -MF_EBUSY;
	if (mf_folio_mapcount(folio) == 0 && !(mf_page_word(&folio->page) & MF_FLAG_DIET))
		return 0;
	mf_folio_unfreeze(folio, 1);
	return -MF_EBUSY;
}

int mf_folio_split(struct mf_map *map, struct mf_folio *folio, unsigned new_order)
{
	uint64_t word = mf_page_word(&folio->page);
	unsigned order = mf_word_order(word);
	mf_pfn_t pfn = mf_folio_pfn(map, folio);
	struct kept kept;
	int err = map_permit(map);

	if (err)
		return err;
	if (mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_USED || new_order >= order)
		return -MF_EINVAL;
	err = seize(folio);
	if (err)
		return err;
	word = mf_page_word(&folio->page); /* again: a holder that has gone may have changed the owner's flags */
	kept = keep(&folio->page);
	err = divide(map, word, mf_word_tier(word), pfn, order, new_order);
	hand_out(map, pfn, order, err ? order : new_order, &kept);
	return err;
}

/*
 * Freezes the folio that starts at pfn and ends by `end`, if it has the region and owner of `first` (NULL: any).  In a
 * reader section: what the caller does not hold may be freed, and its slot fold, before the compare-and-swap.
 */
static int seize_at(struct mf_map *map, mf_pfn_t pfn, mf_pfn_t end, const struct mf_folio *first,
		    struct mf_folio **seized)
{
	struct mf_folio *folio;
	uint64_t word;
	int err = -MF_EBUSY;

	mf_reader_enter(map);
	folio = mf_pfn_folio(map, pfn);
	word = folio ? mf_page_word(&folio->page) : 0;
	if (!mf_word_is_tail(word) && mf_word_kind(word) == MF_KIND_USED && mf_folio_pfn(map, folio) == pfn &&
	    pfn + ((mf_pfn_t)1 << mf_word_order(word)) <= end &&
	    (!first || (mf_folio_owner(folio) == mf_folio_owner(first) &&
			mf_word_region(word) == mf_word_region(mf_page_word(&first->page)))))
		err = seize(folio);
	mf_reader_exit(map);
	*seized = folio;
	return err;
}

/*
 * Freezes every folio of [pfn, end); on -MF_EBUSY none is frozen.  Only folios of the same region and owner as the
 * first.
 */
static int seize_all(struct mf_map *map, mf_pfn_t pfn, mf_pfn_t end)
{
	mf_pfn_t at = pfn, thawed = pfn;
	struct mf_folio *first = NULL;
	int err = 0;

	while (at < end) {
		struct mf_folio *folio;

		err = seize_at(map, at, end, first, &folio);
		if (err)
			break;
		at += mf_folio_nr_frames(folio);
		first = first ? first : folio;
	}
	while (err && thawed < at) {
		struct mf_folio *folio = mf_pfn_folio(map, thawed);

		thawed += mf_folio_nr_frames(folio);
		mf_folio_unfreeze(folio, 1);
	}
	return err;
}

int mf_folio_merge(struct mf_map *map, mf_pfn_t pfn, unsigned order, struct mf_folio **folio)
{
	const struct mf_region *r;
	const struct mf_folio *first;
	struct kept kept;
	uint64_t word;
	unsigned tier;
	mf_pfn_t end;
	int err = map_permit(map);

	if (err)
		return err;
	if (order >= MF_ORDERS_MAX || pfn & (((mf_pfn_t)1 << order) - 1) ||
	    !mf_add_fits(pfn, (mf_pfn_t)1 << order, &end) || end > map->geo.span)
		return -MF_EINVAL;
	err = seize_all(map, pfn, end);
	if (err)
		return err;
	first = mf_pfn_folio(map, pfn);
	word = mf_page_word(&first->page);
	kept = keep(&first->page);
	r = map_word_region(map, word);
	tier = (unsigned)mf_min(order / map->geo.step, r->top);
	join(map, word, tier, pfn, order);
	hand_out(map, pfn, order, order, &kept);
	*folio = mf_pfn_folio(map, pfn);
	return 0;
}
