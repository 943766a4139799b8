/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check.c - mf_map_check(): the laws that a map at rest can be held against, by walking all of it.
 *
 *   M1  the same record from above and from below; no reference on anything but a folio; no transition left over
 *   M2  a record that is there is non-zero, and what is zero has an answer above
 *   M3  nothing is backed below a whole block
 *   M6  shared tables and the zero frame are what they should be (core/pgtable), and nobody else's
 *   M8  every counter equals a recount (this room's here, the zones' by the client)
 *
 * M4, M5 and M7 speak of what happens over time: tests hold them (docs/INVARIANTS.md).
 */
#include <stdarg.h>

#include "core/memmap/diet.h"

struct check {
	struct mf_violation *violation;
	struct check_totals totals;
	struct diet_totals diet;
	uint64_t nr_present; /* frames that are no hole */
};

int check_fail(struct mf_violation *violation, const char *law, mf_pfn_t pfn, const char *format, ...)
{
	va_list args;

	violation->law = law;
	violation->pfn = pfn;
	va_start(args, format);
	mf_vformat(violation->text, sizeof(violation->text), format, args);
	va_end(args);
	return 1;
}

/* ---- One record ------------------------------------------------------------------------------------------------ */

static int check_word(struct check *c, const struct mf_map *map, const struct map_visit *at)
{
	enum mf_kind kind = mf_word_kind(at->word);
	const struct mf_region *r = map->region[mf_word_region(at->word) & (MF_REGIONS_MAX - 1)];

	if (mf_word_is_tail(at->word))
		return check_fail(c->violation, "M1", at->pfn, "a tail stands where a head was expected");
	if (kind < MF_KIND_FREE || kind > MF_KIND_DEVICE || mf_word_tier(at->word) != at->tier)
		return check_fail(c->violation, "M1", at->pfn, "kind %d, tier %u is no record of tier %u", (int)kind,
				  mf_word_tier(at->word), at->tier);
	if (at->word & (MF_FLAG_CHANGING | MF_FLAG_CHOSEN | MF_FLAG_PENDING))
		return check_fail(c->violation, "M1", at->pfn, "a transition was left unfinished");
	if (at->word & MF_WORD_ALIASED && !(at->word & MF_FLAG_DIET))
		return check_fail(c->violation, "M1", at->pfn,
				  "a record is marked as read through aliases, but is on no diet");
	if (!map_word_is_folio(at->word) && at->page->counts != 0)
		return check_fail(c->violation, "M1", at->pfn, "kind %d has count %u; only folios may have one",
				  (int)kind, (unsigned)at->page->counts);
	if (kind == MF_KIND_HOLE || (kind == MF_KIND_SPLIT && at->word & MF_FLAG_EDGE))
		return 0;
	if (!r || at->pfn < r->config.start_pfn || at->pfn + at->nr_frames > r->config.end_pfn ||
	    mf_word_zone(at->word) != r->zone || mf_word_node(at->word) != r->config.node)
		return check_fail(c->violation, "M1", at->pfn, "the record names region %u, which does not hold it",
				  mf_word_region(at->word));
	if (r->config.flags & MF_REGION_RESERVED && kind != MF_KIND_RESERVED)
		return check_fail(c->violation, "M1", at->pfn, "kind %d lies in region %u, where all is reserved",
				  (int)kind, r->id);
	return 0;
}

/* Nothing but the word: tails for which one frame stands in are the same bytes.  is_counter: and what that counts. */
static bool is_bare(const struct mf_page *page, bool is_counter)
{
	struct mf_page rest = *page;

	if (is_counter)
		rest.private_data = 0;
	return rest.counts == 0 && map_fields_are_clear(&rest);
}

static int check_tails(struct check *c, struct mf_map *map, const struct map_visit *at)
{
	unsigned order = mf_word_order(at->word), shift = map->geo.shift[at->tier];
	uint64_t nr = at->nr_frames >> shift, counter = 0;
	bool used = map_word_is_folio(at->word);

	/* Slots that are aliases are looked at as such, and what a tail frame counts, too (check_diet.c). */
	if (at->word & MF_FLAG_DIET) {
		const struct mf_diet *diet = mf_layout_diet(map_word_region(map, at->word)->config.layout);
		uint64_t per_slot = diet_slot_bytes(map) / sizeof(*at->page);

		nr = mf_min(nr, diet->nr_kept * per_slot);
		counter = diet->is_counted && diet_on_tables(map) ? (diet->nr_kept - 1) * per_slot : 0;
	}
	if (order < shift || at->pfn & (at->nr_frames - 1))
		return check_fail(c->violation, "M1", at->pfn, "order %u does not fit tier %u or this pfn", order,
				  at->tier);
	for (uint64_t i = 1; i < nr; i++) {
		const struct mf_page *tail = at->page + i;
		uint64_t word = mf_page_word(tail);

		if (used && word != map_tail_word(order - shift))
			return check_fail(c->violation, "M1", at->pfn, "descriptor %llu of the folio leads elsewhere",
					  (unsigned long long)i);
		if (!used && word != map_word_as(at->word, MF_KIND_FREE))
			return check_fail(c->violation, "M1", at->pfn, "descriptor %llu of the free block is not free",
					  (unsigned long long)i);
		if (!is_bare(tail, i == counter))
			return check_fail(c->violation, "M1", at->pfn,
					  "descriptor %llu is no head, and holds more than its word",
					  (unsigned long long)i);
	}
	return 0;
}

/*
 * From below the same answer as from above, at both ends of what the record speaks for.  On TABLES machines from the
 * record's own tier: that nothing is backed below it is read off the tables (check_backed), without a translation for
 * every block.
 */
static int check_below(struct check *c, struct mf_map *map, const struct map_visit *at)
{
	unsigned tier = map->machine->backing == MF_WINDOW_TABLES ? at->tier : 0;
	mf_pfn_t ends[2] = { at->pfn, at->pfn + at->nr_frames - 1 };

	for (unsigned i = 0; i < 2; i++)
		if (mf_page_folio(map, map_record(map, tier, ends[i])) != mf_pfn_folio(map, ends[i]))
			return check_fail(c->violation, "M1", ends[i], "from below and from above the answers differ");
	return 0;
}

/* ---- Edges --- */

static bool overlaps_in_part(mf_pfn_t start, mf_pfn_t end, mf_pfn_t block, mf_pfn_t block_end)
{
	return start < end && start < block_end && block < end && (block < start || end < block_end);
}

/*
 * A block in an edge counts the parts of regions that lie in it and do not cover it; a reserve of whole blocks is a
 * part.
 */
static int check_edge(struct check *c, struct mf_map *map, const struct map_visit *at)
{
	mf_pfn_t end = at->pfn + at->nr_frames;
	uint64_t nr = 0;

	for (unsigned i = 0; i < MF_REGIONS_MAX; i++) {
		const struct mf_region *r = map->region[i];
		mf_pfn_t middle;

		if (!r)
			continue;
		middle = r->reserve.group ? r->reserve.end : r->config.start_pfn;
		nr += overlaps_in_part(r->config.start_pfn, middle, at->pfn, end);
		nr += overlaps_in_part(middle, r->config.end_pfn, at->pfn, end);
	}
	if (at->page->mapping != nr)
		return check_fail(c->violation, "M8", at->pfn, "an edge counts %llu parts of regions; there are %llu",
				  (unsigned long long)at->page->mapping, (unsigned long long)nr);
	return 0;
}

/* ---- Split records --------------------------------------------------------------------------------------------- */

struct recount {
	unsigned nr_free, nr_map, nr_host;
};

static int recount_children(struct check *c, struct mf_map *map, const struct map_visit *at, struct recount *n)
{
	unsigned child = mf_word_child(at->word), nr = children_nr(map), host = at->page->host;
	struct mf_page *page = map_record(map, child, at->pfn);

	for (unsigned i = 0; i < nr; i++) {
		uint64_t word = mf_page_word(&page[i]);
		bool hosts = host && i >= host - 1u && i < host - 1u + MF_BLOCK_SLOTS;

		if (word == 0)
			return check_fail(c->violation, "M2", at->pfn, "child %u of a split block reads as zero", i);
		if (word & MF_FLAG_BUDDY && !mf_word_is_tail(word))
			n->nr_free += 1u << (mf_word_order(word) - map->geo.shift[child]);
		if (!mf_word_is_tail(word) && mf_word_kind(word) == MF_KIND_MAP && !hosts)
			n->nr_map++;
		n->nr_host += hosts && mf_word_kind(word) == MF_KIND_MAP;
	}
	return 0;
}

static int check_split(struct check *c, struct mf_map *map, const struct map_visit *at)
{
	const struct mf_page *p = at->page;
	struct recount n = { 0 };
	unsigned host = p->host ? MF_BLOCK_SLOTS : 0;

	if (mf_word_child(at->word) >= at->tier)
		return check_fail(c->violation, "M1", at->pfn, "a split block of tier %u has children on tier %u",
				  at->tier, mf_word_child(at->word));
	if (at->word & MF_FLAG_EDGE)
		return check_edge(c, map, at);
	if (recount_children(c, map, at, &n))
		return 1;
	if (p->nr_free != n.nr_free || p->nr_map != n.nr_map || n.nr_host != host ||
	    p->capacity != children_nr(map) - host)
		return check_fail(c->violation, "M8", at->pfn,
				  "a split block says %u free, %u map, capacity %u; counted %u free, %u map, %u hosts",
				  p->nr_free, p->nr_map, p->capacity, n.nr_free, n.nr_map, n.nr_host);
	if (at->word & MF_FLAG_SET_ASIDE)
		c->totals.zone[mf_word_zone(at->word)].set_aside++;
	else if (at->tier == map->geo.top && at->tier > 1)
		c->totals.zone[mf_word_zone(at->word)].split_top++;
	else if (p->nr_free == p->capacity)
		c->totals.zone[mf_word_zone(at->word)].foldable++;
	return 0;
}

/* On a classic diet the frame of the slot that tails are shown from is read-only. */
static bool shows_tails(const struct mf_map *map, const struct map_visit *at)
{
	return mf_layout_diet(map_word_region(map, at->word)->config.layout)->tails == MF_TAILS_FIRST_TAIL;
}

/* A map frame says what it backs, and the page tables agree. */
static int check_map_frame(struct check *c, struct mf_map *map, const struct map_visit *at)
{
	uint64_t backs = at->page->mapping;
	uintptr_t address = at->page->index;
	unsigned level = map_backs_level(backs);
	mf_pfn_t found = 0;

	if (map_backs_is_table(backs) && backs) {
		if (mf_pgtable_table(&map->pgtable, address, level, &found) && found == at->pfn)
			return 0;
	} else if (backs) {
		struct mf_translation t = mf_pgtable_walk(&map->pgtable, address);

		if (!t.background && t.pfn == at->pfn && (t.writable || shows_tails(map, at)) && level < MF_TIERS_MAX)
			return 0;
	}
	return check_fail(c->violation, "M6", at->pfn, "a map frame does not back what its record says (%llu at %llx)",
			  (unsigned long long)backs, (unsigned long long)address);
}

/* To the allocator: everything behind a reserve, and of a reserve what a diet has made free. */
static bool was_given(const struct mf_map *map, const struct map_visit *at)
{
	enum mf_kind kind = mf_word_kind(at->word);

	return kind == MF_KIND_FREE || kind == MF_KIND_USED || diet_word_hosts(at->word) ||
	       (kind != MF_KIND_DEVICE && at->pfn >= map_word_region(map, at->word)->free_start);
}

static int check_record(void *ctx, struct mf_map *map, const struct map_visit *at)
{
	struct check *c = ctx;
	struct check_zone_totals *zone;
	enum mf_kind kind = mf_word_kind(at->word);

	if (check_word(c, map, at))
		return 1;
	if (kind == MF_KIND_SPLIT)
		return check_split(c, map, at);
	if ((map_word_is_folio(at->word) || at->word & MF_FLAG_BUDDY) && check_tails(c, map, at))
		return 1;
	if (map_word_is_folio(at->word) && at->word & MF_FLAG_DIET &&
	    diet_check_unit(map, at->page, &c->diet, c->violation))
		return 1;
	if (kind == MF_KIND_MAP && check_map_frame(c, map, at))
		return 1;
	zone = &c->totals.zone[mf_word_zone(at->word)];
	if (kind == MF_KIND_FREE && at->word & MF_FLAG_BUDDY)
		zone->listed += at->nr_frames;
	else if (kind == MF_KIND_FREE && at->word & MF_FLAG_CACHED)
		zone->cached += at->nr_frames;
	else if (kind == MF_KIND_FREE)
		return check_fail(c->violation, "M8", at->pfn, "a free frame is on no list and in no cache");
	if (kind == MF_KIND_USED && at->word & MF_FLAG_CACHED)
		zone->kept++;
	zone->hosts += diet_word_hosts(at->word);
	if (kind != MF_KIND_HOLE) {
		c->nr_present += at->nr_frames;
		if (was_given(map, at))
			zone->present += at->nr_frames;
	}
	return check_below(c, map, at);
}

/* ---- What is backed, from the tables' side --------------------------------------------------------------------- */

struct backed {
	struct check *c;
	struct mf_map *map;
	uint64_t nr_ram;       /* frames of slots and tables that lie in no region, each slot counted             */
	uint64_t nr_read_only; /* slots that cannot be written                                                 */
};

bool map_frame_is_described(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_folio *folio = mf_pfn_folio(map, pfn);
	uint64_t word = folio ? mf_page_word(&folio->page) : 0;

	if (mf_word_kind(word) == MF_KIND_MAP)
		return true;
	return mf_word_kind(word) == MF_KIND_RESERVED && reserve_holds(&map_word_region(map, word)->reserve, pfn);
}

/* A uniform table stands for the slots in it; it is counted itself by who made it. */
static uint64_t nr_uniform_ram(const struct mf_map *map, uintptr_t address)
{
	bool described = map_frame_is_described(map, mf_pgtable_walk(&map->pgtable, address).pfn);

	return described ? 0 : (uint64_t)1 << map->geo.step;
}

/* A leaf or a uniform table: one protection for all of its slots. */
static void count_read_only(struct backed *b, unsigned level, uintptr_t address)
{
	if (!mf_pgtable_walk(&b->map->pgtable, address).writable)
		b->nr_read_only += (uint64_t)1 << (level * b->map->geo.step);
}

/* A slot below the top is backed only under a split block whose children live on its tier. */
static int check_backed(void *ctx, unsigned level, uintptr_t address, mf_pfn_t pfn, bool is_table)
{
	struct backed *b = ctx;
	const struct mf_page *page = (const struct mf_page *)address;
	unsigned tier = mf_page_tier(b->map, page), above;
	mf_pfn_t first = mf_page_to_pfn(b->map, page);
	bool is_uniform = is_table && level == 1 &&
			  mf_pgtable_entry(&b->map->pgtable, address).kind == MF_ENTRY_UNIFORM;

	if (is_uniform)
		b->nr_ram += nr_uniform_ram(b->map, address);
	else if (!map_frame_is_described(b->map, pfn))
		b->nr_ram += is_table ? 1 : (uint64_t)1 << (level * b->map->geo.step);
	if (is_uniform || !is_table)
		count_read_only(b, level, address);
	if (is_table || tier == b->map->geo.top)
		return 0;
	for (above = tier + 1; above <= b->map->geo.top; above++) {
		uint64_t word = mf_page_word(map_record(b->map, above, first));

		if (word == 0)
			continue;
		if (!mf_word_is_tail(word) && mf_word_kind(word) == MF_KIND_SPLIT && mf_word_child(word) == tier)
			return 0;
		break;
	}
	return check_fail(b->c->violation, "M3", first, "a slot of tier %u is backed, but no block above it is split",
			  tier);
}

static const char *const laws[] = { "M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8" };

static int check_tables(struct check *c, struct mf_map *map)
{
	struct backed b = { .c = c, .map = map };
	uint64_t nr_own;
	char text[128];
	const char *broken;

	if (map->machine->backing != MF_WINDOW_TABLES)
		return 0;
	broken = mf_pgtable_check(&map->pgtable, text, sizeof(text));
	/* A sentence that begins with the law: "M8: ..." */
	if (broken)
		return check_fail(c->violation, laws[broken[1] - '1'], 0, "%s", broken + 4);
	if (mf_pgtable_for_each(&map->pgtable, check_backed, &b))
		return 1;
	/* Those of folios on a diet were found right one by one. */
	if (b.nr_read_only != c->diet.nr_read_only)
		return check_fail(c->violation, "M6", 0,
				  "%llu map slots cannot be written; folios on a diet account for %llu",
				  (unsigned long long)b.nr_read_only, (unsigned long long)c->diet.nr_read_only);
	/* The root, the zero frame and the shared tables are no private entries; an alias has no frame of its own. */
	nr_own = mf_pgtable_init_frames(&map->machine->paging) + map->nr_tails + map->nr_uniform;
	b.nr_ram -= c->diet.nr_ram_aliases;
	if (map->nr_ram != b.nr_ram + nr_own)
		return check_fail(c->violation, "M8", 0, "%llu frames of RAM are counted; %llu back slots and tables",
				  (unsigned long long)map->nr_ram, (unsigned long long)(b.nr_ram + nr_own));
	return 0;
}

/* Every region is described: no zero in the top window where there is memory. */
static int check_regions(struct check *c, struct mf_map *map)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < MF_REGIONS_MAX; i++) {
		const struct mf_region *r = map->region[i];
		mf_pfn_t size = map_block_frames(map, map->geo.top);

		if (!r)
			continue;
		nr += r->config.end_pfn - r->config.start_pfn;
		for (mf_pfn_t pfn = mf_round_down(r->config.start_pfn, size); pfn < r->config.end_pfn; pfn += size)
			if (mf_page_word(map_record(map, map->geo.top, pfn)) == 0)
				return check_fail(c->violation, "M2", pfn, "region %u is not described here", i);
	}
	if (nr != map->nr_described || nr != c->nr_present)
		return check_fail(c->violation, "M8", 0, "%llu frames in regions, %llu described, %llu present",
				  (unsigned long long)nr, (unsigned long long)map->nr_described,
				  (unsigned long long)c->nr_present);
	return 0;
}

/* Last: whoever broke something else by hand has seldom flushed it. */
static int check_dues(struct mf_map *map, struct mf_violation *violation)
{
	char text[128];

	return map_is_due(map, text, sizeof(text)) ? check_fail(violation, "M5", 0, "%s", text) : 0;
}

int mf_map_check(struct mf_map *map, struct mf_violation *violation)
{
	struct check c = { .violation = violation };
	int err = map_permit(map);

	if (!err)
		err = map_walk(map, check_record, &c);
	if (!err)
		err = check_tables(&c, map);
	if (!err)
		err = diet_check_tails(map, &c.diet, violation);
	if (!err)
		err = check_regions(&c, map);
	if (!err)
		err = map->client->check(map, &c.totals, violation);
	if (!err)
		err = check_dues(map, violation);
	return err;
}
