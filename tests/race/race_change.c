/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_change.c - those who change things: allocators, a splitter, folders, regions that come and go.
 *
 * Owns what is written in race.owner[]: two never own one frame.
 */
#include <sched.h>

#include "tests/race/race.h"
#include "tests/tap.h"

enum { NR_SLOTS = 48 };

/* ---- Ownership --------------------------------------------------------------------------------------------- */

void race_mark(mf_pfn_t pfn, unsigned order, uint32_t from, uint32_t to)
{
	for (mf_pfn_t end = pfn + ((mf_pfn_t)1 << order); pfn < end; pfn++) {
		uint32_t was = atomic_exchange_explicit(&race.owner[pfn], to, memory_order_relaxed);

		if (was != from) {
			TAP_NOTE("frame %llu belongs to %u, not to %u", (unsigned long long)pfn, was, from);
			TAP_OK(was == from);
			return;
		}
	}
}

/* Called with count 0.  Half of the folios it ends itself; and it may allocate, which waits. */
static bool on_release(struct mf_map *m, struct mf_folio *folio, const struct mf_owner *self)
{
	uint64_t choice = folio->page.index;
	struct mf_folio *other;

	TAP_OK(mf_folio_refcount(folio) == 0 && mf_folio_owner(folio) == self);
	count(RELEASES);
	if (choice % 8 == 0 && mf_folio_alloc(m, 0, 1, MF_ALLOC_WAIT, &other) == 0)
		mf_folio_put(m, other);
	if (choice % 2)
		return false;
	mf_folio_free_frozen(m, folio);
	return true;
}

static const struct mf_owner tenant = { "tenant", on_release };

void race_hint(struct worker *w, mf_pfn_t pfn)
{
	atomic_store_explicit(&race.hint[pick(w, NR_HINTS)], pfn, memory_order_relaxed);
}

struct mf_folio *race_obtain(struct worker *w, int node, unsigned order, unsigned flags)
{
	struct mf_folio *folio;
	mf_pfn_t pfn;

	if (mf_folio_alloc(race.map, node, order, flags, &folio))
		return NULL;
	pfn = mf_folio_pfn(race.map, folio);
	TAP_OK(mf_folio_order(folio) == order && pfn % ((mf_pfn_t)1 << order) == 0);
	race_mark(pfn, order, 0, w->number);
	folio->page.index = pick(w, 1 << 16);
	mf_folio_set_owner(folio, &tenant);
	race_hint(w, pfn);
	count(ALLOCS);
	return folio;
}

void race_give_up(struct worker *w, struct mf_folio *folio)
{
	race_mark(mf_folio_pfn(race.map, folio), mf_folio_order(folio), w->number, 0);
	mf_folio_put(race.map, folio);
}

/* ---- Allocate, split, fold --------------------------------------------------------------------------------- */

static unsigned any_order(struct worker *w)
{
	if (one_in(w, 400))
		return 13 + (unsigned)pick(w, TOP - 12);
	return one_in(w, 12) ? 9 + (unsigned)pick(w, 3) : (unsigned)pick(w, one_in(w, 2) ? 9 : 1);
}

static void give_up_all(struct worker *w, struct mf_folio *slot[NR_SLOTS])
{
	for (unsigned s = 0; s < NR_SLOTS; s++) {
		if (slot[s])
			race_give_up(w, slot[s]);
		slot[s] = NULL;
	}
}

void race_allocator(struct worker *w)
{
	struct mf_folio *slot[NR_SLOTS] = { NULL };

	for (uint64_t i = 0; i < race.nr_ops; i++) {
		unsigned s = (unsigned)pick(w, NR_SLOTS), flags = one_in(w, 4) ? MF_ALLOC_NOWAIT : MF_ALLOC_WAIT;

		if (slot[s]) {
			race_give_up(w, slot[s]);
			slot[s] = NULL;
		} else {
			slot[s] = race_obtain(w, 0, any_order(w), flags);
			if (slot[s] && flags == MF_ALLOC_NOWAIT)
				count(NOWAITS);
		}
		if (i % 256 == 0 || i == race.nr_ops - 1)
			give_up_all(w, slot);
	}
}

struct mf_folio *race_merge(struct worker *w, mf_pfn_t pfn, unsigned order, unsigned piece)
{
	struct mf_folio *folio;

	for (int tries = 0; tries < 50; tries++) {
		int err = mf_folio_merge(race.map, pfn, order, &folio);

		TAP_OK(err == 0 || err == -MF_EBUSY);
		if (!err) {
			TAP_OK(mf_folio_pfn(race.map, folio) == pfn && mf_folio_order(folio) == order);
			return folio;
		}
		sched_yield();
	}
	for (mf_pfn_t end = pfn + ((mf_pfn_t)1 << order); pfn < end; pfn += (mf_pfn_t)1 << piece)
		race_give_up(w, mf_pfn_folio(race.map, pfn));
	return NULL;
}

/* Another may hold a reference for a moment: that is -MF_EBUSY, and then all is as it was. */
static void split_and_merge(struct worker *w, struct mf_folio *folio, unsigned order, unsigned piece)
{
	mf_pfn_t pfn = mf_folio_pfn(race.map, folio);
	int err = mf_folio_split(race.map, folio, piece);

	TAP_OK(err == 0 || err == -MF_EBUSY);
	if (err) {
		race_give_up(w, folio);
		return;
	}
	count(SPLITS);
	sched_yield();
	folio = race_merge(w, pfn, order, piece);
	if (!folio)
		return;
	count(MERGES);
	race_give_up(w, folio);
}

/*
 * Now and then without edges the map pool needs several blocks for what this one splits.  What others unfold meanwhile
 * has tables there, which must leave when those blocks fold.
 */
static void split_much(struct worker *w)
{
	struct mf_folio *folio = race_obtain(w, 0, TOP - 1, MF_ALLOC_WAIT);

	if (folio)
		split_and_merge(w, folio, TOP - 1, 8);
}

void race_splitter(struct worker *w)
{
	for (uint64_t i = 0; i < race.nr_ops / 8; i++) {
		/* Across two tiers, across one, and within one. */
		unsigned order = one_in(w, 64) ? TOP :
				 one_in(w, 3)  ? 2 + (unsigned)pick(w, 7) :
						 9 + (unsigned)pick(w, 2);
		unsigned piece = order == TOP ? 9 + (unsigned)pick(w, 6) : (unsigned)pick(w, order < 9 ? order : 9);
		struct mf_folio *folio = race_obtain(w, 0, order, MF_ALLOC_WAIT);

		if (folio)
			split_and_merge(w, folio, order, piece);
		if (!race.with_edges && one_in(w, 64))
			split_much(w);
	}
}

static void fold(struct worker *w)
{
	uint64_t nr;

	TAP_EQ(mf_fold(race.map, MF_ANY_NODE, one_in(w, 2) ? MF_FOLD_ALL : MF_FOLD_KEEP, &nr), 0);
	atomic_fetch_add(&race.tally[FOLDED], nr);
}

void race_folder(struct worker *w)
{
	struct mf_map_stats stats;
	struct mf_zone_info zone;

	for (uint64_t i = 0; i < race.nr_ops / 12; i++) {
		fold(w);
		if (one_in(w, 4))
			TAP_EQ(mf_drain(race.map), 0);
		if (one_in(w, 64)) {
			mf_map_stats(race.map, &stats);
			TAP_OK(stats.nr_described >= race.a.end_pfn - race.a.start_pfn);
			TAP_EQ(mf_zone_info(race.map, 0, &zone), 0);
		}
		sched_yield();
	}
}

/* ---- Caches ------------------------------------------------------------------------------------------------ */

static struct mf_folio *take(struct worker *w)
{
	unsigned order = one_in(w, 512) ? 9 : 0;
	struct mf_folio *folio;

	if (mf_folio_alloc(race.map, 0, order, MF_ALLOC_WAIT, &folio))
		return NULL;
	race_mark(mf_folio_pfn(race.map, folio), order, 0, w->number);
	count(ALLOCS);
	return folio;
}

/*
 * What caches hold, base frames and a block now and then, with as little in between as there can be: two who meet in a
 * cache meet for a few instructions.  Folds, rarely, since that waits for all CPUs, where it has nothing that keeps a
 * block.
 */
void race_taker(struct worker *w)
{
	struct mf_folio *slot[NR_SLOTS] = { NULL };

	for (uint64_t i = 0; i < race.nr_ops; i++) {
		unsigned s = (unsigned)pick(w, NR_SLOTS);

		if (slot[s])
			race_give_up(w, slot[s]);
		slot[s] = slot[s] ? NULL : take(w);
		if (i % 128 && i != race.nr_ops - 1)
			continue;
		give_up_all(w, slot);
		if (one_in(w, 64))
			fold(w);
	}
}

/* The only one who takes the lock of another CPU's cache: as often as it can, while there is somebody to meet. */
void race_drainer(struct worker *w)
{
	while (atomic_load_explicit(&race.nr_working, memory_order_relaxed) > 0) {
		TAP_EQ(mf_drain(race.map), 0);
		count(DRAINS);
		if (one_in(w, 1024))
			fold(w);
	}
}

/* ---- Regions ----------------------------------------------------------------------------------------------- */

static void use_node(struct worker *w, mf_pfn_t start, mf_pfn_t end)
{
	struct mf_folio *folio[8];
	uint64_t nr_folded;
	int nr = 0;

	while (nr < 8 && mf_folio_alloc(race.map, 1, (unsigned)pick(w, 11), MF_ALLOC_THIS_NODE, &folio[nr]) == 0) {
		mf_pfn_t pfn = mf_folio_pfn(race.map, folio[nr]);

		TAP_OK(pfn >= start && pfn + mf_folio_nr_frames(folio[nr]) <= end);
		race_mark(pfn, mf_folio_order(folio[nr]), 0, w->number);
		race_hint(w, pfn);
		nr++;
	}
	while (nr > 0)
		race_give_up(w, folio[--nr]);
	TAP_EQ(mf_fold(race.map, 1, MF_FOLD_ALL, &nr_folded), 0);
	atomic_fetch_add(&race.tally[FOLDED], nr_folded);
}

/* Behind A's last edge nothing is left: not even for those who ask from below. */
static void check_gone(void)
{
	for (mf_pfn_t pfn = mf_round_up(A_END, 512); pfn < B_END; pfn++)
		if (mf_page_word(mf_pfn_to_page(race.map, pfn)) != 0) {
			TAP_NOTE("pfn %llu is still described", (unsigned long long)pfn);
			TAP_OK(mf_page_word(mf_pfn_to_page(race.map, pfn)) == 0);
			return;
		}
}

/* Where the host owns the map's memory every source is the host. */
static struct mf_region_config any_region(struct worker *w)
{
	struct mf_region_config config = {
		.start_pfn = A_END + pick(w, 1000), .end_pfn = B_END - pick(w, 600),
		.node = race.with_edges ? (unsigned)pick(w, 2) : 1, .layout = one_in(w, 3) ? MF_LAYOUT_FLAT : MF_LAYOUT_TIERED,
		.top = 1 + (unsigned)pick(w, 2),
	};

	if (race.slow.kind != SLOW_TABLES)
		return config;
	config.source = (enum mf_source)pick(w, MF_SOURCE_HOST);
	if (config.source == MF_SOURCE_ALTMAP) {
		config.start_pfn = mf_round_up(config.start_pfn, 512);
		config.nr_altmap = 512;
	}
	return config;
}

void race_regions(struct worker *w)
{
	for (uint64_t i = 0; i < race.nr_ops / 40; i++) {
		struct mf_region_config config = any_region(w);
		struct mf_region_info info;
		unsigned id;
		int err = mf_region_add(race.map, &config, &id);

		TAP_EQ(err, 0);
		if (err)
			return;
		if (config.node == 1)
			use_node(w, config.start_pfn, config.end_pfn);
		TAP_EQ(mf_region_info(race.map, id, &info), 0);
		TAP_EQ(info.config.start_pfn, config.start_pfn);
		while ((err = mf_region_remove(race.map, id)) == -MF_EBUSY)
			sched_yield(); /* others hold frames of it, each for a bounded number of operations */
		TAP_EQ(err, 0);
		TAP_EQ(mf_region_info(race.map, id, &info), -MF_ENOENT);
		check_gone();
		count(REGIONS);
	}
}
