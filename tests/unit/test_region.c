/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_region.c - regions come and go at any pfn alignment, in any order, beside each other, and leave nothing behind.
 *
 * The odd cases are a table; each is added and removed in several orders, and after every step each pfn near a border
 * answers for the region that holds it, from above and from below.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>

#define B ((mf_pfn_t)512)
#define G WORLD_GIB_FRAMES

enum { SPAN_GIB = 8, NR_MAX = 4, ABSENT = -1 };

struct odd {
	const char *name;
	unsigned nr;
	struct mf_region_config region[NR_MAX];
};

#define TIERED(from, to) { .start_pfn = (from), .end_pfn = (to) }
#define FLAT(from, to) { .start_pfn = (from), .end_pfn = (to), .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_RAM }
#define TOP1(from, to) { .start_pfn = (from), .end_pfn = (to), .top = 1 }
#define FROM_RAM(from, to) { .start_pfn = (from), .end_pfn = (to), .source = MF_SOURCE_RAM }
#define FLAT_SELF(from, to) { .start_pfn = (from), .end_pfn = (to), .layout = MF_LAYOUT_FLAT }
#define ALTMAP(from, to, nr) { .start_pfn = (from), .end_pfn = (to), .source = MF_SOURCE_ALTMAP, .nr_altmap = (nr) }
#define FLAT_ALTMAP(from, to, nr)                                                                               \
	{ .start_pfn = (from),                                                                                  \
	  .end_pfn = (to),                                                                                      \
	  .layout = MF_LAYOUT_FLAT,                                                                             \
	  .source = MF_SOURCE_ALTMAP,                                                                           \
	  .nr_altmap = (nr) }
#define ON_NODE(n, from, to) { .start_pfn = (from), .end_pfn = (to), .node = (n) }

static const struct odd odds[] = {
	{ "one frame", 1, { TIERED(777, 778) } },
	{ "frame 0", 1, { TIERED(0, 1) } },
	{ "the last frame of the span", 1, { TIERED(SPAN_GIB * G - 1, SPAN_GIB * G) } },
	{ "inside one block", 1, { TIERED(1000, 1010) } },
	{ "one block", 1, { TIERED(B, 2 * B) } },
	{ "across a block border", 1, { TIERED(500, 1030) } },
	{ "both sides of a block border", 2, { TIERED(511, 512), TIERED(512, 513) } },
	{ "across a GiB border", 1, { TIERED(G - 3, G + 5) } },
	{ "one GiB", 1, { TIERED(G, 2 * G) } },
	{ "from the middle to the middle of a GiB", 1, { TIERED(G / 2 + 7, 3 * G + 1001) } },
	{ "three in one block", 3, { TIERED(1024, 1100), TIERED(1100, 1101), TIERED(1200, 1536) } },
	{ "three in one GiB", 3, { TIERED(G, G + 1000), TIERED(G + 1000, G + 4096), TIERED(G + 5000, 2 * G) } },
	{ "four whole GiBs in one map slot", 4,
	  { ON_NODE(3, 0, G), ON_NODE(0, 2 * G, 3 * G), ON_NODE(63, 4 * G, 5 * G), ON_NODE(1, 5 * G, 6 * G) } },
	{ "three nodes in one block", 3,
	  { ON_NODE(0, B, B + 100), ON_NODE(1, B + 100, B + 300), ON_NODE(2, B + 300, 2 * B) } },
	{ "flat, whole GiB", 1, { FLAT(G, 2 * G) } },
	{ "flat, odd ends", 1, { FLAT(G - 700, G + 300) } },
	{ "flat and tiered in one block", 2, { FLAT(G, G + 100), TIERED(G + 100, G + 3 * B) } },
	{ "tiered and flat in one block", 2, { TIERED(G, G + 3 * B + 9), FLAT(G + 3 * B + 9, G + 8 * B) } },
	{ "flat beside tiered, border at a GiB", 2, { FLAT(0, G), TIERED(G, 2 * G) } },
	{ "flat between tiered in one GiB", 3, { TIERED(0, 10 * B), FLAT(10 * B, 20 * B), TIERED(20 * B, G) } },
	{ "top 1", 1, { TOP1(0, 2 * G) } },
	{ "top 1 beside top 2 in one GiB", 3, { TOP1(0, G / 2), TIERED(G / 2, 3 * G), TOP1(3 * G, 4 * G + 5) } },
	{ "holes of a few frames", 4, { TIERED(10, 20), TIERED(30, 40), TIERED(50, 60), TIERED(511, 513) } },
	{ "sources side by side", 3, { FROM_RAM(G, 2 * G), TIERED(2 * G, 3 * G), FROM_RAM(3 * G, 3 * G + 777) } },
	{ "flat on its own frames", 1, { FLAT_SELF(G, 2 * G) } },
	{ "flat on its own frames, odd ends, between tiered", 3,
	  { TIERED(0, 10 * B + 7), FLAT_SELF(10 * B + 7, 30 * B + 3), TIERED(30 * B + 3, G) } },
	{ "flat on its own frames, two in one block", 2, { FLAT_SELF(G, G + 100), FLAT_SELF(G + 100, G + 3 * B) } },
	{ "altmap", 1, { ALTMAP(G, 2 * G, 8 * B) } },
	{ "altmap in a part of a GiB, beside self", 2,
	  { ALTMAP(G + 5 * B, G + 60 * B, B), TIERED(G + 60 * B, 2 * G) } },
	{ "altmap, flat", 2, { FLAT_ALTMAP(G, 2 * G, 8 * B), FROM_RAM(2 * G, 2 * G + 99) } },
};

enum { NR_ODDS = sizeof(odds) / sizeof(odds[0]) };

/* ---- What a pfn should answer ----------------------------------------------------------------------------------- */

struct state {
	struct world w;
	const struct odd *odd;
	int id[NR_MAX]; /* ABSENT: not there */
};

static int region_at(const struct state *s, mf_pfn_t pfn)
{
	for (unsigned i = 0; i < s->odd->nr; i++)
		if (s->id[i] != ABSENT && pfn >= s->odd->region[i].start_pfn && pfn < s->odd->region[i].end_pfn)
			return s->id[i];
	return ABSENT;
}

/*
 * From a descriptor of any tier: what its block's first frame answers from above, or the split record that stands
 * there.  (Where nothing stands, as on tier 1 in a flat region, a descriptor speaks for its first frame.)
 */
static bool below_agrees(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_geometry *g = mf_map_geometry(map);

	for (unsigned tier = 0; tier <= g->top; tier++) {
		const struct mf_page *page = mf_geometry_descriptor(g, tier, pfn);
		const struct mf_folio *below = mf_page_folio(map, page);

		if ((const struct mf_page *)below == page && mf_page_kind(page) == MF_KIND_SPLIT)
			continue;
		if (below != mf_pfn_folio(map, mf_page_to_pfn(map, page)))
			return false;
	}
	return true;
}

static bool pfn_is_right(const struct state *s, mf_pfn_t pfn)
{
	const struct mf_map *map = s->w.map;
	const struct mf_folio *folio;
	int want = region_at(s, pfn);

	if (pfn >= mf_map_geometry(map)->span)
		return !mf_pfn_is_valid(map, pfn) && !mf_pfn_folio(map, pfn);
	folio = mf_pfn_folio(map, pfn);
	if (mf_pfn_is_valid(map, pfn) != (want != ABSENT) || !below_agrees(map, pfn))
		return false;
	return want == ABSENT ? !folio || mf_page_kind(&folio->page) == MF_KIND_HOLE :
				(int)mf_word_region(mf_page_word(&folio->page)) == want;
}

static bool pfns_around(const struct state *s, mf_pfn_t at)
{
	static const int64_t step[] = { 0, 1, 2, 8, 63, 64, 511, 512, 513, 32768, 262143, 262144 };

	for (unsigned i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
		mf_pfn_t up = at + (mf_pfn_t)step[i], down = at - (mf_pfn_t)step[i];

		if (!pfn_is_right(s, up) || ((mf_pfn_t)step[i] <= at && !pfn_is_right(s, down))) {
			TAP_NOTE("%s: wrong answer %lld around pfn %llu", s->odd->name, (long long)step[i],
				 (unsigned long long)at);
			return false;
		}
	}
	return true;
}

/* Frames of a tiered altmap are reserved: neither free, used nor the map's. */
static uint64_t nr_reserved(const struct mf_region_config *r)
{
	return r->layout == MF_LAYOUT_TIERED ? r->nr_altmap : 0;
}

static bool state_is_right(struct state *s)
{
	struct mf_map_stats stats;
	uint64_t nr = 0, reserved = 0;
	bool good = world_check(&s->w);

	for (unsigned i = 0; i < s->odd->nr; i++) {
		const struct mf_region_config *r = &s->odd->region[i];

		good = pfns_around(s, r->start_pfn) && pfns_around(s, r->end_pfn) && good;
		if (s->id[i] == ABSENT)
			continue;
		nr += r->end_pfn - r->start_pfn;
		reserved += nr_reserved(r);
	}
	mf_map_stats(s->w.map, &stats);
	return good && stats.nr_described == nr && stats.nr_free + stats.nr_map + reserved == nr && stats.nr_used == 0;
}

/* ---- Orders of adding and removing ------------------------------------------------------------------------------ */

static unsigned factorial(unsigned n)
{
	return n < 2 ? 1 : n * factorial(n - 1);
}

/* The which-th order of 0 .. n-1. */
static void permutation(unsigned which, unsigned n, unsigned *order)
{
	bool taken[NR_MAX] = { false };

	for (unsigned i = 0; i < n; i++) {
		unsigned skip = which / factorial(n - 1 - i) % (n - i), at = 0;

		while (taken[at] || skip-- > 0)
			at++;
		taken[at] = true;
		order[i] = at;
	}
}

static bool add_and_remove(struct state *s, unsigned adding, unsigned removing)
{
	unsigned order[NR_MAX];
	bool good = true;

	permutation(adding, s->odd->nr, order);
	for (unsigned i = 0; i < s->odd->nr && good; i++) {
		unsigned id;
		int err = world_add_region(&s->w, &s->odd->region[order[i]], &id);

		TAP_EQ(err, 0);
		s->id[order[i]] = err ? ABSENT : (int)id;
		good = !err && state_is_right(s);
	}
	permutation(removing, s->odd->nr, order);
	for (unsigned i = 0; i < s->odd->nr && good; i++) {
		int err = mf_region_remove(s->w.map, (unsigned)s->id[order[i]]);

		TAP_EQ(err, 0);
		s->id[order[i]] = ABSENT;
		good = !err && state_is_right(s);
	}
	return good;
}

static bool state_open(struct state *s, const struct odd *odd)
{
	*s = (struct state){ .odd = odd, .id = { ABSENT, ABSENT, ABSENT, ABSENT } };
	return world_open(&s->w, &(struct world_config){ .nr_frames = SPAN_GIB * G });
}

/* R-MEM-17, R-MEM-21, R-MEM-25, R-MEM-45, R-MEM-46, R-MEM-54 */
TAP_TEST(region_adds_and_removes_in_any_order)
{
	for (unsigned i = 0; i < NR_ODDS; i++) {
		unsigned nr = factorial(odds[i].nr), removals = nr < 4 ? nr : 4;
		struct state s;
		uint64_t ram;

		TAP_REQUIRE(state_open(&s, &odds[i]));
		ram = mf_sim_ram_used(s.w.sim);
		for (unsigned n = 0; n < nr * removals; n++) {
			unsigned adding = n / removals, removing = (adding + n * 5) % nr;

			if (!add_and_remove(&s, adding, removing)) {
				TAP_NOTE("%s: added in order %u, removed in order %u", odds[i].name, adding, removing);
				TAP_OK(false);
				break;
			}
			TAP_EQ(mf_sim_ram_used(s.w.sim), ram);
		}
		TAP_OK(world_close(&s.w));
	}
}

/* ---- Every frame of them can be had ----------------------------------------------------------------------------- */

static unsigned take_all(struct state *s, struct mf_folio **folio, unsigned nr_max)
{
	unsigned nr = 0;

	while (nr < nr_max && (folio[nr] = world_alloc(&s->w, 0)) != NULL) {
		TAP_OK(region_at(s, mf_folio_pfn(s->w.map, folio[nr])) != ABSENT);
		nr++;
	}
	return nr;
}

TAP_TEST(region_gives_every_frame_of_its_own_once)
{
	static struct mf_folio *folio[8192];

	for (unsigned i = 0; i < NR_ODDS; i++) {
		struct mf_map_stats stats;
		struct state s;
		uint64_t reserved = 0;
		unsigned nr;

		TAP_REQUIRE(state_open(&s, &odds[i]));
		for (unsigned k = 0; k < odds[i].nr; k++) {
			unsigned id = 0;

			reserved += nr_reserved(&odds[i].region[k]);
			TAP_EQ(world_add_region(&s.w, &odds[i].region[k], &id), 0);
			s.id[k] = (int)id;
		}
		nr = take_all(&s, folio, 8192);
		mf_map_stats(s.w.map, &stats);
		TAP_EQ(stats.nr_used, nr);
		TAP_EQ(stats.nr_used + stats.nr_free + stats.nr_map + reserved, stats.nr_described);
		TAP_OK(nr == 8192 || stats.nr_free == 0);
		TAP_OK(world_check(&s.w));
		while (nr > 0)
			mf_folio_put(s.w.map, folio[--nr]);
		TAP_OK(world_close(&s.w));
	}
}

/* ---- Refusals --------------------------------------------------------------------------------------------------- */

static const struct refusal {
	struct mf_region_config config;
	int err;
} refusals[] = {
	{ TIERED(5, 5), -MF_EINVAL },
	{ TIERED(6, 5), -MF_EINVAL },
	{ TIERED(UINT64_MAX, 5), -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .node = MF_NODES_MAX }, -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .layout = MF_NR_LAYOUTS }, -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .source = MF_NR_SOURCES }, -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .top = 3 }, -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .nr_altmap = 512 }, -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .source = MF_SOURCE_ALTMAP }, -MF_EINVAL },
	{ { .start_pfn = 0, .end_pfn = 5, .source = MF_SOURCE_HOST }, -MF_EOPNOTSUPP },
	{ TIERED(0, SPAN_GIB *G + 1), -MF_E2BIG },
	{ TIERED(SPAN_GIB *G, SPAN_GIB *G + 1), -MF_E2BIG },
	{ TIERED(1, UINT64_MAX), -MF_E2BIG },
	/* One region stands at [G, G + 1000). */
	{ TIERED(G, G + 1000), -MF_EEXIST },
	{ TIERED(G + 999, G + 1000), -MF_EEXIST },
	{ TIERED(0, G + 1), -MF_EEXIST },
	{ TIERED(G + 999, 2 * G), -MF_EEXIST },
	{ TIERED(0, SPAN_GIB *G), -MF_EEXIST },
	{ FLAT(G + 5, G + 6), -MF_EEXIST },
};

/* R-GEN-9, R-MEM-16, R-MEM-54, R-MEM-56 */
TAP_TEST(region_refuses_what_cannot_be)
{
	struct world w;
	uint64_t digest, ram;
	unsigned id = 12345;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = SPAN_GIB * G }));
	TAP_EQ(world_add(&w, G, G + 1000), 0);
	digest = mf_map_digest(w.map);
	ram = mf_sim_ram_used(w.sim);
	for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		int err = world_add_region(&w, &refusals[i].config, &id);

		if (err != refusals[i].err)
			TAP_NOTE("refusal %u", i);
		TAP_EQ(err, refusals[i].err);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
	}
	TAP_EQ(id, 12345);
	TAP_EQ(world_add(&w, G - 1, G), 0);
	TAP_EQ(world_add(&w, G + 1000, G + 1001), 0);
	TAP_OK(world_close(&w));
}

TAP_TEST(region_numbers_run_out_and_are_used_again)
{
	struct world w;
	unsigned id = 0;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	for (mf_pfn_t i = 0; i < MF_REGIONS_MAX; i++)
		if (world_add(&w, 2 * i, 2 * i + 1) != 0)
			TAP_OK(false);
	TAP_EQ(world_add(&w, G - 1, G), -MF_E2BIG);
	TAP_EQ(mf_region_remove(w.map, 1000), 0);
	TAP_EQ(world_add_region(&w, &(struct mf_region_config)TIERED(G - 1, G), &id), 0);
	TAP_EQ(id, 1000);
	TAP_OK(world_close(&w));
}

TAP_TEST(region_that_is_not_there_is_not_found)
{
	static const unsigned ids[] = { 1, 17, MF_REGIONS_MAX - 1, MF_REGIONS_MAX, ~0u };
	struct mf_region_info info;
	struct world w;
	unsigned id;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add_region(&w, &(struct mf_region_config)ON_NODE(5, 3, 4), &id), 0);
	TAP_EQ(mf_region_info(w.map, id, &info), 0);
	TAP_EQ(info.config.start_pfn, 3);
	TAP_EQ(info.config.end_pfn, 4);
	TAP_EQ(info.config.node, 5);
	for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		TAP_EQ(mf_region_info(w.map, ids[i], &info), -MF_ENOENT);
		TAP_EQ(mf_region_remove(w.map, ids[i]), -MF_ENOENT);
	}
	TAP_EQ(mf_region_remove(w.map, id), 0);
	TAP_EQ(mf_region_remove(w.map, id), -MF_ENOENT);
	TAP_OK(world_close(&w));
}

TAP_TEST(region_in_use_stays)
{
	struct mf_folio *folio;
	struct world w;
	uint64_t digest;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(world_add(&w, 100, G + 100), 0);
	for (unsigned order = 0; order <= 17; order++) {
		folio = world_alloc(&w, order);
		TAP_REQUIRE(folio);
		digest = mf_map_digest(w.map);
		TAP_EQ(mf_region_remove(w.map, 0), -MF_EBUSY);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_OK(world_check(&w));
		mf_folio_put(w.map, folio);
	}
	TAP_EQ(mf_region_remove(w.map, 0), 0);
	TAP_OK(world_close(&w));
}

/* The GiB unfolded first is home: it hosts the slots of the other, and its own frames are given out last. */
TAP_TEST(region_that_hosts_slots_in_use_elsewhere_stays)
{
	struct mf_folio *folio;
	struct world w;
	unsigned id[2], user;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(world_add_region(&w, &(struct mf_region_config)TIERED(0, G), &id[0]), 0);
	TAP_EQ(world_add_region(&w, &(struct mf_region_config)TIERED(G, 2 * G), &id[1]), 0);
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	user = (unsigned)(mf_folio_pfn(w.map, folio) / G);
	TAP_EQ(mf_region_remove(w.map, id[1 - user]), -MF_EBUSY);
	TAP_OK(world_check(&w));
	TAP_OK(mf_folio_try_get(w.map, &folio->page) == folio);
	mf_folio_put(w.map, folio);
	mf_folio_put(w.map, folio);
	TAP_EQ(mf_region_remove(w.map, id[1 - user]), 0);
	TAP_EQ(mf_region_remove(w.map, id[user]), 0);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
