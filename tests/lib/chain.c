/* SPDX-License-Identifier: BSD-2-Clause */
/* chain.c - all memory is taken, so that the map pool can be used up frame by frame; see chain.h. */
#include "tests/lib/chain.h"

#include "tests/tap.h"

#include "core/frames/zone.h"

#define G WORLD_GIB_FRAMES

static mf_pfn_t gib_of(const struct world *w, const struct mf_folio *folio)
{
	return mf_round_down(mf_folio_pfn(w->map, folio), G);
}

static uint64_t pool_of(struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats.nr_pool_idle;
}

/* A is split, as is the GiB it unfolded for; the other two are whole, and held.  No frame is free but the pool's. */
static bool take_all(struct chain *c, struct mf_folio *top[2])
{
	struct world *w = &c->w;

	if (!world_alloc(w, 9))
		return false;
	c->a = w->map->zone[0]->home;
	top[0] = world_alloc(w, 18);
	top[1] = world_alloc(w, 18);
	if (c->a == ZONE_NO_HOME || !top[0] || !top[1])
		return false;
	while (world_alloc(w, 9))
		;
	return true;
}

/* B unfolds with the last frames of A's pool, so that a block of B finds none. */
static bool hang_b_on_a(struct chain *c, struct mf_folio *top)
{
	struct world *w = &c->w;
	struct mf_folio *folio;

	while (pool_of(w) > MF_BLOCK_SLOTS)
		if (!world_alloc(w, 0))
			return false;
	c->b = gib_of(w, top);
	mf_folio_put(w->map, top);
	folio = world_alloc(w, 0);
	return folio && gib_of(w, folio) == c->b;
}

/* D is divided in use, and when the pool is to be short its pieces are, too: 8 slots each. */
static bool hang_d_on_b(struct chain *c, struct mf_folio *top, bool pool_is_short)
{
	struct world *w = &c->w;
	mf_pfn_t pfn;

	pfn = c->d = gib_of(w, top);
	if (mf_folio_split(w->map, top, 9))
		return false;
	c->set_aside = map_record(w->map, 1, chain_slot(w, c->d, 0));
	for (; pool_is_short && pool_of(w) >= MF_BLOCK_SLOTS; pfn += 512)
		if (mf_folio_split(w->map, mf_pfn_folio(w->map, pfn), 0))
			return false;
	chain_put(w, 0, c->d, NULL);
	chain_put(w, c->d + G, CHAIN_GIBS * G, NULL);
	return mf_drain(w->map) == 0;
}

/* Every slot of `gib` is in a frame of `host`. */
static bool hangs(const struct world *w, mf_pfn_t gib, mf_pfn_t host)
{
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		if (mf_round_down(chain_slot(w, gib, i), G) != host)
			return false;
	return chain_is_split(w, gib);
}

bool chain_open(struct chain *c, const struct chain_config *config)
{
	struct world_config world = config->world;
	struct mf_map_stats stats;
	struct mf_folio *top[2];

	world.nr_frames = CHAIN_GIBS * G;
	if (!world_open(&c->w, &world) || world_add(&c->w, 0, CHAIN_GIBS * G))
		return false;
	mf_map_stats(c->w.map, &stats);
	c->first_ram = stats.nr_ram;
	if (take_all(c, top) && hang_b_on_a(c, top[0]) && hang_d_on_b(c, top[1], config->pool_is_short) &&
	    hangs(&c->w, c->b, c->a) && hangs(&c->w, c->d, c->b) && world_check(&c->w))
		return true;
	TAP_NOTE("the chain of GiB cannot be built");
	world_abandon(&c->w);
	return false;
}

bool chain_close(struct chain *c)
{
	chain_put(&c->w, 0, CHAIN_GIBS * G, NULL);
	return world_close(&c->w);
}

void chain_put(struct world *w, mf_pfn_t start, mf_pfn_t end, const struct mf_folio *keep)
{
	struct mf_folio *folio;
	mf_pfn_t next;

	for (; (folio = mf_folio_next(w->map, start, end, &next)) != NULL; start = next)
		if (folio != keep)
			mf_folio_put(w->map, folio);
}

bool chain_is_split(const struct world *w, mf_pfn_t gib)
{
	return mf_page_kind(map_record(w->map, 2, gib)) == MF_KIND_SPLIT;
}

mf_pfn_t chain_claim(struct chain *c)
{
	struct mf_zone *zone = c->w.map->zone[0];
	struct mf_page *page;
	mf_pfn_t pfn = 0;

	zone_lock(zone);
	MF_PANIC_IF(zone_take_frames(zone, c->set_aside, &pfn, 1) != 1, "the set-aside block has no free frame");
	c->set_aside->nr_map++;
	page = map_record(zone->map, 0, pfn);
	map_set_word(page, map_word_as(mf_page_word(page), MF_KIND_MAP) | MF_FLAG_PENDING);
	zone_unlock(zone);
	return pfn;
}

uintptr_t chain_slot_address(const struct world *w, mf_pfn_t gib, unsigned i)
{
	return (uintptr_t)map_record(w->map, 1, gib) + ((uintptr_t)i << w->machine->paging.page_shift);
}

mf_pfn_t chain_slot(const struct world *w, mf_pfn_t gib, unsigned i)
{
	return mf_pgtable_walk(&w->map->pgtable, chain_slot_address(w, gib, i)).pfn;
}
