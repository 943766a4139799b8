/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_set_random.c - random states, everything folded, and a search for a block without users that stays split though
 * no slot of a block with users is in it.
 *
 * The states are made to hang GiB on each other: memory runs out, so that the map pool does, too, and GiB that unfold
 * then have to find their map frames wherever they can; whole GiB are given back in between.
 */
#include "tests/lib/chain.h"
#include "tests/tap.h"

#include "core/frames/zone.h"

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

enum { GIBS = 7, ROUNDS = 8, SEEDS = 60 };

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1du >> 20;
}

/* ---- What may keep a block that has no users ------------------------------------------------------------------- */

static bool block_is_idle(const struct mf_page *block)
{
	return mf_page_kind(block) == MF_KIND_SPLIT && mf_page_word(block) & MF_FLAG_SET_ASIDE &&
	       block->nr_free + block->nr_map == block->capacity;
}

static bool gib_is_idle(const struct mf_map *map, mf_pfn_t pfn)
{
	mf_pfn_t gib = mf_round_down(pfn, G);
	unsigned nr = 0;

	for (mf_pfn_t at = gib; at < gib + G; at += B)
		nr += block_is_idle(map_record(map, 1, at));
	return map_record(map, 2, gib)->nr_free + nr == B;
}

/* Does this frame back a slot of a block with users?  A block of tier 1 without users would be folded by now. */
static bool frame_pins(const struct mf_map *map, const struct mf_page *frame)
{
	mf_pfn_t whose = mf_page_to_pfn(map, (const struct mf_page *)frame->index);

	if (mf_page_kind(frame) != MF_KIND_MAP || map_backs_is_table(frame->mapping))
		return false;
	return frame->mapping == map_backs_slot(0) || !gib_is_idle(map, whose);
}

static bool block_is_pinned(const struct mf_map *map, const struct mf_page *block)
{
	mf_pfn_t pfn = mf_page_to_pfn(map, block), own = pfn + block->host - 1;

	for (mf_pfn_t at = pfn; at < pfn + B; at++)
		if ((at < own || at >= own + MF_BLOCK_SLOTS) && frame_pins(map, map_record(map, 0, at)))
			return true;
	return false;
}

struct search {
	uint64_t nr_folds, nr_pinned, nr_hanging, nr_found;
};

static int look(void *ctx, struct mf_map *map, const struct map_visit *at)
{
	struct search *search = ctx;

	if (at->tier == 2 && mf_word_kind(at->word) == MF_KIND_SPLIT)
		search->nr_hanging += gib_is_idle(map, at->pfn);
	if (at->tier != 1 || !block_is_idle(at->page))
		return 0;
	if (block_is_pinned(map, at->page)) {
		search->nr_pinned++;
	} else {
		search->nr_found++;
		TAP_NOTE("nothing in use keeps the block at pfn %llu, but it is split", (unsigned long long)at->pfn);
	}
	return 0;
}

/* ---- States ----------------------------------------------------------------------------------------------------- */

struct state {
	struct world w;
	uint64_t random;
	bool scarce; /* without RAM for what moves, blocks may stay                                              */
};

static void take(struct state *s, unsigned order, uint64_t nr)
{
	while (nr-- > 0 && world_alloc(&s->w, order))
		;
}

/* All memory, whole GiB first or not, and the pool but for a few frames. */
static void exhaust(struct state *s)
{
	struct mf_map_stats stats;
	uint64_t leave = next_random(&s->random) % 24;

	take(s, 9, 1);
	take(s, 18, next_random(&s->random) % 2 * GIBS);
	take(s, 9, GIBS * B);
	mf_map_stats(s->w.map, &stats);
	take(s, 0, stats.nr_pool_idle - mf_min(stats.nr_pool_idle, leave));
}

static struct mf_folio *any_folio(struct state *s, unsigned order)
{
	for (unsigned tries = 0; tries < 64; tries++) {
		mf_pfn_t at = next_random(&s->random) % (GIBS * G), next;
		struct mf_folio *folio = mf_folio_next(s->w.map, at, GIBS * G, &next);

		if (folio && mf_folio_order(folio) == order)
			return folio;
	}
	return NULL;
}

static void divide(struct state *s, unsigned order, uint64_t nr)
{
	while (nr-- > 0) {
		struct mf_folio *folio = any_folio(s, order);

		if (!folio || mf_folio_split(s->w.map, folio, order - 9))
			return;
	}
}

/* Each GiB, or all but one folio of it, or not. */
static void give_back(struct state *s)
{
	static const unsigned orders[] = { 0, 9, 18 };

	for (mf_pfn_t gib = 0; gib < GIBS * G; gib += G) {
		uint64_t choice = next_random(&s->random) % 8;
		struct mf_folio *keep = choice == 0 ? any_folio(s, orders[next_random(&s->random) % 3]) : NULL;

		if (choice < 6)
			chain_put(&s->w, gib, gib + G, keep);
	}
}

/* One GiB more unfolds, and a block of it, with what the pool has left. */
static void unfold_one(struct state *s)
{
	struct mf_folio *folio = any_folio(s, 18);

	if (!folio)
		return;
	mf_folio_put(s->w.map, folio);
	take(s, next_random(&s->random) % 4 ? 0 : 9, 1);
}

static bool fold_and_look(struct state *s, struct search *search)
{
	uint64_t found = search->nr_found;

	if (mf_fold(s->w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL) || !world_check(&s->w))
		return false;
	search->nr_folds++;
	(void)map_walk(s->w.map, look, search);
	return s->scarce || search->nr_found == found;
}

static void step(struct state *s)
{
	switch (next_random(&s->random) % 8) {
	case 0:
		take(s, 9, next_random(&s->random) % 700);
		break;
	case 1:
		take(s, 0, next_random(&s->random) % 600);
		break;
	case 2:
		divide(s, 9, next_random(&s->random) % 70);
		break;
	case 3:
	case 4:
		divide(s, 18, 1);
		break;
	case 5:
		exhaust(s);
		break;
	default:
		unfold_one(s);
	}
}

static bool run(uint64_t seed, const struct world_config *config, struct search *search)
{
	struct state s = { .random = seed * 7919, .scarce = config->nr_ram_frames != 0 };
	bool good = true;

	if (!world_open(&s.w, config))
		return false;
	good = world_add(&s.w, 0, GIBS * G) == 0;
	for (unsigned round = 0; round < ROUNDS && good; round++) {
		exhaust(&s);
		for (uint64_t i = next_random(&s.random) % 6; i > 0; i--)
			step(&s);
		give_back(&s);
		good = fold_and_look(&s, search);
	}
	if (!good)
		TAP_NOTE("seed %llu", (unsigned long long)seed);
	chain_put(&s.w, 0, GIBS * G, NULL);
	return world_close(&s.w) && good;
}

static void tell(const struct search *search)
{
	TAP_NOTE("%llu states: %llu set-aside blocks and %llu GiB without users stay, %llu blocks for nothing in use",
		 (unsigned long long)search->nr_folds, (unsigned long long)(search->nr_pinned + search->nr_found),
		 (unsigned long long)search->nr_hanging, (unsigned long long)search->nr_found);
}

TAP_TEST(only_what_is_in_use_keeps_a_block)
{
	static const char *const machines[] = { "sim", "sim-5" };
	struct search search = { 0 };

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world_config config = { .machine = machines[seed % 2], .nr_frames = GIBS * G };

		TAP_OK(run(seed, &config, &search));
	}
	tell(&search);
	TAP_EQ(search.nr_found, 0);
	TAP_OK(search.nr_pinned > 0);
}

/* With RAM for the top window, its tables, and little more: what finds no frame stays, and nothing is lost. */
TAP_TEST(whatever_ram_there_is_the_laws_hold)
{
	struct search search = { 0 };

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world_config config = { .nr_frames = GIBS * G, .nr_ram_frames = 16 + seed % 20 };

		TAP_OK(run(1000 + seed, &config, &search));
	}
	tell(&search);
}

TAP_MAIN()
