/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_region_reserved.c - memory that is there and is not memfold's: described as reserved, wherever it lies, never
 * allocated, never written to, on every machine.
 *
 * Places are in blocks of the machine's own tiers, so that each is as odd with every size of frame.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <string.h>

#include "core/memmap/map.h"

enum { SPAN_TOPS = 4, PATTERN = 0x5b };

/* A pfn: top blocks, blocks of tier 1, frames. */
struct at {
	int tops, blocks, frames;
};

static const struct place {
	const char *name;
	struct at start, end;
	enum mf_layout layout;
	unsigned top;
	uint64_t nr_at[MF_TIERS_MAX]; /* blocks of each tier that it is described by; tier 0: 0 is not counted */
} places[] = {
	{ "one frame", { 0, 0, 7 }, { 0, 0, 8 }, MF_LAYOUT_TIERED, 0, { 1, 0, 0 } },
	{ "one block", { 1, 3, 0 }, { 1, 4, 0 }, MF_LAYOUT_TIERED, 0, { 0, 1, 0 } },
	{ "one top block", { 1, 0, 0 }, { 2, 0, 0 }, MF_LAYOUT_TIERED, 0, { 0, 0, 1 } },
	{ "top blocks with odd ends", { 1, -1, 3 }, { 3, 2, 5 }, MF_LAYOUT_TIERED, 0, { 0, 2, 2 } },
	{ "across a border", { 2, 0, -1 }, { 2, 0, 1 }, MF_LAYOUT_TIERED, 0, { 2, 0, 0 } },
	{ "to the end of the span", { 4, -3, 0 }, { 4, 0, 0 }, MF_LAYOUT_TIERED, 0, { 0, 3, 0 } },
	{ "blocks of tier 1 only", { 1, 0, 0 }, { 2, 1, 0 }, MF_LAYOUT_TIERED, 1, { 0, 0, 0 } },
	{ "flat", { 0, 1, 0 }, { 0, 3, 0 }, MF_LAYOUT_FLAT, 0, { 0, 0, 0 } },
	{ "flat with odd ends", { 0, 1, -9 }, { 0, 5, 11 }, MF_LAYOUT_FLAT, 0, { 0, 0, 0 } },
	{ "flat, one frame", { 3, 0, 0 }, { 3, 0, 1 }, MF_LAYOUT_FLAT, 0, { 1, 0, 0 } },
};

enum { NR_PLACES = sizeof(places) / sizeof(places[0]) };

static bool open_on(struct world *w, const char *machine)
{
	unsigned page_shift = strstr(machine, "16k") ? 14 : strstr(machine, "64k") ? 16 : 12;
	uint64_t top = (uint64_t)1 << (2 * (page_shift - 3));
	bool opened;

	/* What is flat or odd lies in a few blocks; RAM for all of it would be too much where frames are large. */
	opened = world_open(w, &(struct world_config){
				       .machine = machine, .nr_frames = SPAN_TOPS * top, .nr_ram_frames = 1 << 14 });
	TAP_NOTE("%s", machine);
	return opened;
}

static mf_pfn_t pfn_of(const struct world *w, struct at at)
{
	return ((mf_pfn_t)at.tops << world_block_order(w, 2)) + ((mf_pfn_t)at.blocks << world_block_order(w, 1)) +
	       (mf_pfn_t)at.frames;
}

/* Negative parts wrap, and the sum does so back. */
static struct mf_region_config config_of(const struct world *w, const struct place *p)
{
	return (struct mf_region_config){
		.start_pfn = pfn_of(w, p->start),
		.end_pfn = pfn_of(w, p->end),
		.layout = p->layout,
		.top = p->top,
		.source = MF_SOURCE_RAM,
		.flags = MF_REGION_RESERVED,
	};
}

static struct mf_map_stats stats_of(struct world *w)
{
	struct mf_map_stats stats;

	mf_map_stats(w->map, &stats);
	return stats;
}

/* ---- What it answers --------------------------------------------------------------------------------------------- */

/* One pfn, from above and from below; *tier: of its record. */
static bool is_reserved_at(struct world *w, mf_pfn_t pfn, unsigned *tier)
{
	struct mf_folio *above = mf_pfn_folio(w->map, pfn);

	if (!above || above != mf_page_folio(w->map, mf_pfn_to_page(w->map, pfn)))
		return false;
	*tier = mf_page_tier(w->map, &above->page);
	return mf_page_kind(&above->page) == MF_KIND_RESERVED && mf_pfn_is_valid(w->map, pfn) &&
	       !mf_pfn_try_get(w->map, pfn);
}

/* Every block, and both ends of it; how many there are of each tier. */
static bool answers(struct world *w, const struct mf_region_config *c, uint64_t nr_at[MF_TIERS_MAX])
{
	mf_pfn_t pfn = c->start_pfn;

	memset(nr_at, 0, MF_TIERS_MAX * sizeof(*nr_at));
	while (pfn < c->end_pfn) {
		unsigned tier, tier_of_last;
		mf_pfn_t nr;

		if (!is_reserved_at(w, pfn, &tier))
			return false;
		nr = (mf_pfn_t)1 << world_block_order(w, tier);
		if (pfn % nr != 0 || !is_reserved_at(w, pfn + nr - 1, &tier_of_last) || tier_of_last != tier)
			return false;
		nr_at[tier]++;
		pfn += nr;
	}
	return pfn == c->end_pfn;
}

static bool nothing_can_be_allocated(struct world *w)
{
	for (unsigned order = 0; order < MF_ORDERS_MAX; order++) {
		struct mf_folio *folio;

		if (mf_folio_alloc(w->map, MF_ANY_NODE, order, MF_ALLOC_WAIT, &folio) != -MF_ENOMEM)
			return false;
	}
	return true;
}

static void check_place(struct world *w, const struct place *p)
{
	struct mf_region_config c = config_of(w, p);
	uint64_t nr = c.end_pfn - c.start_pfn, digest = mf_map_digest(w->map), nr_at[MF_TIERS_MAX];
	struct world_used before;
	struct mf_map_stats stats;
	struct mf_region_info info;
	unsigned id;

	/* The zone is there for good. */
	TAP_EQ(world_add_region(w, &c, &id), 0);
	TAP_EQ(mf_region_remove(w->map, id), 0);
	before = world_used(w);

	TAP_EQ(world_add_region(w, &c, &id), 0);
	stats = stats_of(w);
	TAP_OK(stats.nr_described == nr && stats.nr_reserved == nr && stats.nr_free == 0 && stats.nr_used == 0);
	TAP_EQ(stats.nr_map, 0);
	TAP_OK(answers(w, &c, nr_at));
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++)
		if (p->nr_at[tier])
			TAP_EQ(nr_at[tier], p->nr_at[tier]);
	TAP_OK(p->layout != MF_LAYOUT_FLAT || nr_at[0] == nr);
	TAP_OK(p->top != 1 || (nr_at[1] << world_block_order(w, 1)) == nr);
	TAP_OK(nothing_can_be_allocated(w) && world_check(w));
	TAP_EQ(mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(answers(w, &c, nr_at) && world_check(w));
	TAP_OK(mf_region_info(w->map, id, &info) == 0 && info.config.flags == MF_REGION_RESERVED);
	TAP_EQ(world_add_region(w, &c, NULL), -MF_EEXIST);

	TAP_EQ(mf_region_remove(w->map, id), 0);
	TAP_EQ(mf_map_digest(w->map), digest);
	TAP_EQ(world_used(w).nr_ram, before.nr_ram);
	TAP_EQ(world_used(w).nr_meta, before.nr_meta);
	TAP_OK(!mf_pfn_is_valid(w->map, c.start_pfn) && world_check(w));
}

TAP_TEST(reserved_memory_is_described_wherever_it_lies)
{
	for (const char *const *machine = world_machines; *machine; machine++) {
		struct world w;

		TAP_REQUIRE(open_on(&w, *machine));
		for (unsigned i = 0; i < NR_PLACES; i++) {
			check_place(&w, &places[i]);
			if (tap_state.failed) {
				TAP_NOTE("%s", places[i].name);
				break;
			}
		}
		TAP_OK(world_close(&w));
	}
}

/* ---- Beside memory that is ours ---------------------------------------------------------------------------------- */

/* The kernel's image, and a page of firmware, in the midst of a top block and a half: in one block with the rest. */
enum { NR_REGIONS = 5 };

static void neighbours(const struct world *w, struct mf_region_config *c)
{
	const struct at borders[NR_REGIONS + 1] = {
		{ 0, 0, 1 }, { 0, 1, 3 }, { 0, 4, 17 }, { 0, 9, 0 }, { 0, 9, 1 }, { 1, 8, 2 },
	};

	for (unsigned i = 0; i < NR_REGIONS; i++)
		c[i] = (struct mf_region_config){
			.start_pfn = pfn_of(w, borders[i]),
			.end_pfn = pfn_of(w, borders[i + 1]),
			.source = i % 2 ? MF_SOURCE_RAM : MF_SOURCE_SELF,
			.flags = i % 2 ? MF_REGION_RESERVED : 0,
		};
}

static bool lies_in(const struct mf_region_config *c, mf_pfn_t pfn, unsigned order)
{
	return pfn < c->end_pfn && c->start_pfn < pfn + ((mf_pfn_t)1 << order);
}

/* Fills what is reserved, on machines that have frames; or looks whether it is still so. */
static bool pattern(struct world *w, const struct mf_region_config *c, bool write)
{
	size_t size = (size_t)1 << w->machine->paging.page_shift;

	for (mf_pfn_t pfn = c->start_pfn; pfn < c->end_pfn && w->machine->direct_map; pfn++) {
		unsigned char *bytes = mf_machine_frame(w->machine, pfn);

		if (write)
			memset(bytes, PATTERN, size);
		else if (bytes[0] != PATTERN || memcmp(bytes, bytes + 1, size - 1) != 0)
			return false;
	}
	return true;
}

/* Folios of all sizes until there is no more, base frames last; chained by their private words. */
static uint64_t allocate_all(struct world *w, const struct mf_region_config *c, struct mf_folio **chain)
{
	unsigned order = world_block_order(w, 1) + 1;
	uint64_t nr = 0;

	for (*chain = NULL;; ) {
		struct mf_folio *folio = world_alloc(w, order);
		mf_pfn_t pfn;

		if (!folio && order == 0)
			return nr;
		if (!folio) {
			order--;
			continue;
		}
		pfn = mf_page_to_pfn(w->map, &folio->page);
		TAP_OK(!lies_in(&c[1], pfn, order) && !lies_in(&c[3], pfn, order));
		folio->page.private_data = (uintptr_t)*chain;
		*chain = folio;
		nr += (uint64_t)1 << order;
	}
}

static void put_all(struct world *w, struct mf_folio *chain)
{
	while (chain) {
		struct mf_folio *next = (struct mf_folio *)(uintptr_t)chain->page.private_data;

		mf_folio_put(w->map, chain);
		chain = next;
	}
}

static void live_beside(struct world *w, const unsigned *sequence)
{
	struct mf_region_config c[NR_REGIONS];
	uint64_t nr_reserved = 0, nr = 0, nr_at[MF_TIERS_MAX];
	struct mf_map_stats stats;
	struct mf_folio *chain;
	unsigned id[NR_REGIONS];

	neighbours(w, c);
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		unsigned k = sequence[i];

		TAP_EQ(world_add_region(w, &c[k], &id[k]), 0);
		TAP_OK(world_check(w));
		nr += c[k].end_pfn - c[k].start_pfn;
		nr_reserved += k % 2 ? c[k].end_pfn - c[k].start_pfn : 0;
	}
	pattern(w, &c[1], true);
	pattern(w, &c[3], true);
	stats = stats_of(w);
	TAP_OK(stats.nr_reserved == nr_reserved && stats.nr_free + stats.nr_map == nr - nr_reserved);
	TAP_OK(allocate_all(w, c, &chain) > (nr - nr_reserved) / 8 * 7);
	TAP_OK(world_check(w) && answers(w, &c[1], nr_at) && answers(w, &c[3], nr_at));
	TAP_EQ(mf_region_remove(w->map, id[2]), -MF_EBUSY);
	/* What is reserved may go while its neighbours are in use. */
	TAP_EQ(mf_region_remove(w->map, id[3]), 0);
	TAP_OK(world_check(w));
	TAP_EQ(world_add_region(w, &c[3], &id[3]), 0);
	put_all(w, chain);
	TAP_EQ(mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(world_check(w) && pattern(w, &c[1], false) && pattern(w, &c[3], false));
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		TAP_EQ(mf_region_remove(w->map, id[sequence[i]]), 0);
		TAP_OK(world_check(w));
	}
}

TAP_TEST(reserved_memory_is_never_allocated_and_never_written_to)
{
	static const unsigned sequences[][NR_REGIONS] = { { 0, 1, 2, 3, 4 }, { 3, 1, 4, 0, 2 }, { 4, 2, 0, 3, 1 } };

	for (const char *const *machine = world_machines; *machine; machine++) {
		struct world w;

		/* Every base frame is taken: where blocks have few frames that is soon done. */
		if (strstr(*machine, "arm64"))
			continue;
		TAP_REQUIRE(open_on(&w, *machine));
		for (unsigned i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++)
			live_beside(&w, sequences[i]);
		TAP_OK(world_close(&w));
	}
}

/* The zone of reserved memory has nothing to give, so it is no node's first. */
TAP_TEST(reserved_memory_is_not_asked_first)
{
	struct mf_region_config reserved = { .end_pfn = 7, .source = MF_SOURCE_RAM, .flags = MF_REGION_RESERVED };
	struct mf_region_info info;
	struct world w;
	unsigned id;

	TAP_REQUIRE(open_on(&w, world_machines[0]));
	TAP_EQ(world_add_region(&w, &reserved, &id), 0);
	TAP_OK(w.map->zone_of_node[0] == NULL && w.map->zone_of_node[1] == NULL);
	TAP_OK(world_alloc(&w, 0) == NULL);
	TAP_EQ(world_add_region(&w, &(struct mf_region_config){ .start_pfn = 7, .end_pfn = 5000 }, &id), 0);
	TAP_EQ(mf_region_info(w.map, id, &info), 0);
	TAP_OK(w.map->zone_of_node[0] == w.map->zone[info.zone] && w.map->zone_of_node[1] == w.map->zone[info.zone]);
	TAP_OK(world_close(&w));
}

/* ---- Refusals, failures, and what the check finds ---------------------------------------------------------------- */

TAP_TEST(reserved_memory_takes_no_map_frames_of_its_own)
{
	for (const char *const *machine = world_machines; *machine; machine++) {
		mf_pfn_t block;
		struct world w;

		TAP_REQUIRE(open_on(&w, *machine));
		block = pfn_of(&w, (struct at){ 0, 1, 0 });
		for (unsigned layout = 0; layout < MF_NR_LAYOUTS; layout++) {
			for (unsigned source = 0; source < MF_NR_SOURCES; source++) {
				bool fits = layout <= MF_LAYOUT_FLAT &&
					    (source == MF_SOURCE_RAM || source == MF_SOURCE_HOST);
				bool is_host = w.machine->backing == MF_WINDOW_HOST;
				struct mf_region_config c = {
					.end_pfn = 2 * block,
					.layout = (enum mf_layout)layout,
					.source = (enum mf_source)source,
					.nr_altmap = source == MF_SOURCE_ALTMAP ? block : 0,
					.flags = MF_REGION_RESERVED | MF_REGION_DIET_FLAGS,
				};

				TAP_EQ(world_add_region(&w, &c, NULL),
				       !fits ? -MF_EINVAL : source == MF_SOURCE_HOST && !is_host ? -MF_EOPNOTSUPP : 0);
				if (fits && (is_host || source == MF_SOURCE_RAM))
					TAP_EQ(mf_region_remove(w.map, 0), 0);
			}
		}
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(reserved_memory_fails_to_be_described_or_is)
{
	for (unsigned i = 0; i < NR_PLACES; i++) {
		struct mf_region_config c;
		uint64_t digest, n = 0;
		struct world w;
		int err;

		TAP_REQUIRE(open_on(&w, world_machines[0]));
		c = config_of(&w, &places[i]);
		digest = mf_map_digest(w.map);
		do {
			world_fail(&w, WORLD_ANY, ++n);
			err = world_add_region(&w, &c, NULL);
			world_fail_end(&w);
			TAP_OK(err == 0 || (err == -MF_ENOMEM && mf_map_digest(w.map) == digest));
			TAP_OK(world_check(&w));
		} while (err == -MF_ENOMEM && n < 1000);
		TAP_OK(err == 0 && n > 2);
		TAP_OK(world_close(&w));
	}
}

TAP_TEST(check_finds_what_is_not_reserved_in_reserved_memory)
{
	struct mf_region_config c;
	struct mf_page *page;
	uint64_t word;
	struct world w;

	TAP_REQUIRE(open_on(&w, world_machines[0]));
	c = config_of(&w, &places[3]);
	TAP_EQ(world_add_region(&w, &c, NULL), 0);
	page = map_record(w.map, 2, pfn_of(&w, (struct at){ 1, 0, 0 }));
	word = mf_page_word(page);
	map_set_word(page, map_word_as(word, MF_KIND_FREE));
	TAP_OK(strcmp(world_broken_law(&w), "M1") == 0);
	map_set_word(page, map_word_as(word, MF_KIND_USED) | map_word_order(world_block_order(&w, 2)));
	TAP_OK(strcmp(world_broken_law(&w), "M1") == 0);
	map_set_word(page, word);
	TAP_OK(world_check(&w));
	TAP_OK(world_close(&w));
}

TAP_MAIN()
