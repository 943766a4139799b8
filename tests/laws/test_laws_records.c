/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_laws_records.c - a record, an entry or a counter is changed behind the map's back: mf_map_check() names the law.
 *
 * Each row starts from the same small world: a GiB with folios of several sizes, a flat region beside it, and something
 * in every cache and list.  That the world is sound before is checked each time.
 */
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <string.h>

#include "core/frames/zone.h"

#define G WORLD_GIB_FRAMES

struct scene {
	struct world w;
	struct mf_map *map;
	struct mf_zone *zone;
	struct mf_folio *base, *middle, *large, *top;
	struct mf_page *split_low, *split_top, *set_aside, *idle, *edge, *free_low, *map_frame, *hole;
};

static struct mf_page *record_at(const struct scene *s, unsigned tier, mf_pfn_t pfn)
{
	return mf_geometry_descriptor(mf_map_geometry(s->map), tier, pfn);
}

static int look_around(void *ctx, struct mf_map *map, const struct map_visit *at)
{
	struct scene *s = ctx;
	enum mf_kind kind = mf_word_kind(at->word);

	(void)map;
	if (kind == MF_KIND_FREE && at->word & MF_FLAG_BUDDY && at->tier == 0 && !s->free_low && at->nr_frames > 1)
		s->free_low = at->page;
	if (kind == MF_KIND_MAP && !s->map_frame)
		s->map_frame = at->page;
	if (kind == MF_KIND_HOLE && !s->hole)
		s->hole = at->page;
	if (kind != MF_KIND_SPLIT)
		return 0;
	if (at->word & MF_FLAG_SET_ASIDE)
		s->set_aside = at->page;
	else if (at->word & MF_FLAG_EDGE)
		s->edge = at->page;
	else if (at->tier == 1 && at->page->nr_free == at->page->capacity)
		s->idle = at->page;
	return 0;
}

/* A block of tier 1 that is split and of which nobody uses anything. */
static bool leave_idle_block(struct scene *s)
{
	struct mf_folio *folio = world_alloc(&s->w, 9);
	mf_pfn_t pfn = folio ? mf_folio_pfn(s->map, folio) : 0;

	if (!folio || mf_folio_split(s->map, folio, 8) != 0)
		return false;
	mf_folio_put(s->map, mf_pfn_folio(s->map, pfn));
	mf_folio_put(s->map, mf_pfn_folio(s->map, pfn + 256));
	return true;
}

static bool scene_open(struct scene *s)
{
	struct world_config config = { .nr_frames = 8 * G, .will_break = true };
	mf_pfn_t pfn;

	*s = (struct scene){ 0 };
	if (!world_open(&s->w, &config) || world_add(&s->w, 0, 4 * G) != 0 ||
	    world_add_flat(&s->w, 5 * G + 3, 5 * G + 5000) != 0)
		return false;
	s->map = s->w.map;
	s->zone = s->map->zone[0];
	s->base = world_alloc(&s->w, 0);
	s->middle = world_alloc(&s->w, 4);
	s->large = world_alloc(&s->w, 11);
	s->top = world_alloc(&s->w, 18);
	if (!s->base || !s->middle || !s->large || !s->top || !leave_idle_block(s))
		return false;
	pfn = mf_folio_pfn(s->map, s->base);
	s->split_low = record_at(s, 1, pfn);
	s->split_top = record_at(s, 2, pfn);
	(void)map_walk(s->map, look_around, s);
	return s->free_low && s->map_frame && s->hole && s->set_aside && s->idle && s->edge && world_check(&s->w);
}

/* ---- M1 --------------------------------------------------------------------------------------------------------- */

static void m1_count_on_a_free_record(struct scene *s)
{
	s->free_low->counts = 1;
}

static void m1_count_on_a_split_record(struct scene *s)
{
	s->split_top->counts = 1;
}

static void m1_count_on_a_map_frame(struct scene *s)
{
	s->map_frame->counts = 1;
}

static void m1_count_on_a_hole(struct scene *s)
{
	s->hole->counts = 1;
}

static void m1_count_on_a_tail(struct scene *s)
{
	(&s->middle->page + 5)->counts = 1;
}

static void m1_tail_leads_elsewhere(struct scene *s)
{
	mf_page_prepare_tail(&s->middle->page + 5, 2);
}

static void m1_tail_is_a_head(struct scene *s)
{
	map_set_word(&s->large->page + 2, mf_page_word(&s->large->page));
}

static void m1_head_is_a_tail(struct scene *s)
{
	mf_page_prepare_tail(&s->base->page, 1);
}

static void m1_transition_left_over(struct scene *s)
{
	map_set_word(s->free_low, mf_page_word(s->free_low) | MF_FLAG_CHANGING);
}

static void m1_pending_map_frame(struct scene *s)
{
	map_set_word(s->map_frame, mf_page_word(s->map_frame) | MF_FLAG_PENDING);
}

static void m1_wrong_tier(struct scene *s)
{
	map_set_word(&s->top->page, mf_page_word(&s->top->page) & ~((uint64_t)3 << MF_WORD_TIER_SHIFT));
}

static void m1_wrong_kind(struct scene *s)
{
	map_set_word(&s->top->page, (uint64_t)MF_KIND_TAIL << MF_WORD_KIND_SHIFT | (uint64_t)2 << MF_WORD_TIER_SHIFT);
}

static void m1_wrong_order(struct scene *s)
{
	map_set_word(&s->middle->page, map_word_as(mf_page_word(&s->middle->page), MF_KIND_USED) | map_word_order(5));
}

static void m1_wrong_region(struct scene *s)
{
	map_set_word(&s->base->page, mf_page_word(&s->base->page) ^ (uint64_t)1 << MF_WORD_REGION_SHIFT);
}

static void m1_wrong_node(struct scene *s)
{
	map_set_word(&s->base->page, mf_page_word(&s->base->page) ^ (uint64_t)1 << MF_WORD_NODE_SHIFT);
}

static void m1_uninitialised(struct scene *s)
{
	map_set_word(&s->base->page, MF_WORD_UNINITIALISED);
}

/* ---- M2 --------------------------------------------------------------------------------------------------------- */

static void m2_zero_in_the_top_window(struct scene *s)
{
	map_set_word(&s->top->page, 0);
}

static void m2_zero_below_a_split_block(struct scene *s)
{
	map_set_word(&s->base->page, 0);
}

static void m2_zero_tail(struct scene *s)
{
	map_set_word(&s->middle->page + 7, 0);
}

/* ---- M3 --------------------------------------------------------------------------------------------------------- */

/* Slots of tier 0 are backed below a folio of 2 MiB blocks. */
static void m3_backed_below_a_whole_block(struct scene *s)
{
	struct children c = children_of(mf_folio_pfn(s->map, s->large), 0);
	struct mf_bag slots = { 0 }, tables = { 0 };

	TAP_EQ(ram_fill(s->map, 0, &slots, MF_BLOCK_SLOTS), 0);
	TAP_EQ(ram_fill(s->map, 0, &tables, 3), 0);
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++) {
		c.slot[i] = mf_bag_take(&slots);
		memset(mf_machine_frame(s->w.sim, c.slot[i]), 0, 4096);
	}
	TAP_EQ(window_link(s->map, &c, &tables), 0);
	window_flush_children(s->map, MF_FLUSH_FOR_FOLD, &c, MF_FLUSH_TABLES);
}

/* ---- M6 --------------------------------------------------------------------------------------------------------- */

static void m6_map_frame_backs_something_else(struct scene *s)
{
	s->map_frame->index += 4096;
}

static void m6_map_frame_backs_nothing(struct scene *s)
{
	s->map_frame->mapping = 0;
}

static void m8_private_count_of_a_table(struct scene *s)
{
	uintptr_t address = (uintptr_t)&s->base->page;
	unsigned shift = s->w.sim->paging.soft_shift;
	mf_pfn_t table = 0;
	uint64_t *entry;

	TAP_OK(mf_pgtable_table(&s->map->pgtable, address, 0, &table));
	entry = mf_machine_frame(s->w.sim, table);
	*entry ^= (uint64_t)1 << shift;
}

/* ---- M8 --------------------------------------------------------------------------------------------------------- */

static void m8_nr_free_of_a_split_block(struct scene *s)
{
	s->split_low->nr_free--;
}

static void m8_capacity_of_a_split_block(struct scene *s)
{
	s->split_top->capacity--;
}

static void m8_nr_map_of_a_set_aside_block(struct scene *s)
{
	s->set_aside->nr_map++;
}

static void m8_host_of_a_split_block(struct scene *s)
{
	s->split_low->host += 8;
}

static void m8_frames_of_a_class(struct scene *s)
{
	s->zone->area[ZONE_NORMAL].nr_frames++;
}

static void m8_mask_of_a_list(struct scene *s)
{
	s->zone->area[ZONE_NORMAL].mask[1] ^= 1 << 9;
}

static void m8_block_off_its_list(struct scene *s)
{
	mf_list_remove(&s->free_low->list);
}

static void m8_order_of_a_listed_block(struct scene *s)
{
	uint64_t word = mf_page_word(s->free_low), order = map_word_order(mf_word_order(word) - 1);

	map_set_word(s->free_low, map_word_as(word, MF_KIND_FREE) | order | MF_FLAG_BUDDY);
}

static void m8_free_frame_nowhere(struct scene *s)
{
	uint64_t word = map_word_as(mf_page_word(&s->base->page), MF_KIND_FREE);

	s->base->page.counts = 0;
	map_set_word(&s->base->page, word);
}

static void m8_set_aside_blocks(struct scene *s)
{
	s->zone->nr_set_aside++;
}

static void m8_foldable_blocks(struct scene *s)
{
	s->zone->nr_foldable[1]++;
}

/* The list and its counter agree with each other; the block is lost to every fold. */
static void m8_idle_block_off_foldable(struct scene *s)
{
	s->zone->nr_foldable[1]--;
	mf_list_remove(&s->idle->list);
}

static void m8_top_block_off_split_top(struct scene *s)
{
	mf_list_remove(&s->split_top->list);
}

static void m8_regions_of_an_edge(struct scene *s)
{
	s->edge->mapping++;
}

static void m8_frames_from_ram(struct scene *s)
{
	s->map->nr_ram += 99;
}

static void m8_frames_of_a_zone(struct scene *s)
{
	s->zone->nr_present--;
}

static void m8_blocks_in_transition(struct scene *s)
{
	s->zone->nr_changing++;
}

static void m8_described_frames(struct scene *s)
{
	s->map->nr_described++;
}

#define BREAK(law, name) { #law, #name, law##_##name }

static const struct row {
	const char *number, *name;
	void (*run)(struct scene *s);
} rows[] = {
	BREAK(m1, count_on_a_free_record),
	BREAK(m1, count_on_a_split_record),
	BREAK(m1, count_on_a_map_frame),
	BREAK(m1, count_on_a_hole),
	BREAK(m1, count_on_a_tail),
	BREAK(m1, tail_leads_elsewhere),
	BREAK(m1, tail_is_a_head),
	BREAK(m1, head_is_a_tail),
	BREAK(m1, transition_left_over),
	BREAK(m1, pending_map_frame),
	BREAK(m1, wrong_tier),
	BREAK(m1, wrong_kind),
	BREAK(m1, wrong_order),
	BREAK(m1, wrong_region),
	BREAK(m1, wrong_node),
	BREAK(m1, uninitialised),
	BREAK(m2, zero_in_the_top_window),
	BREAK(m2, zero_below_a_split_block),
	BREAK(m2, zero_tail),
	BREAK(m3, backed_below_a_whole_block),
	BREAK(m6, map_frame_backs_something_else),
	BREAK(m6, map_frame_backs_nothing),
	BREAK(m8, private_count_of_a_table),
	BREAK(m8, nr_free_of_a_split_block),
	BREAK(m8, capacity_of_a_split_block),
	BREAK(m8, nr_map_of_a_set_aside_block),
	BREAK(m8, host_of_a_split_block),
	BREAK(m8, frames_of_a_class),
	BREAK(m8, mask_of_a_list),
	BREAK(m8, block_off_its_list),
	BREAK(m8, order_of_a_listed_block),
	BREAK(m8, free_frame_nowhere),
	BREAK(m8, set_aside_blocks),
	BREAK(m8, foldable_blocks),
	BREAK(m8, idle_block_off_foldable),
	BREAK(m8, top_block_off_split_top),
	BREAK(m8, regions_of_an_edge),
	BREAK(m8, frames_from_ram),
	BREAK(m8, frames_of_a_zone),
	BREAK(m8, blocks_in_transition),
	BREAK(m8, described_frames),
};

/* R-MEM-18 */
TAP_TEST(a_broken_record_or_counter_is_named)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char law[3] = { 'M', rows[i].number[1], '\0' };
		struct scene s;

		TAP_REQUIRE(scene_open(&s));
		rows[i].run(&s);
		if (strcmp(world_broken_law(&s.w), law) != 0) {
			TAP_NOTE("%s %s is not found as such", rows[i].number, rows[i].name);
			TAP_OK(false);
		}
		world_abandon(&s.w);
	}
}

/* Several maps at once: each is judged by its own. */
TAP_TEST(a_broken_map_does_not_touch_its_neighbour)
{
	struct world sound;
	struct scene s;

	TAP_REQUIRE(world_open(&sound, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add(&sound, 0, G), 0);
	TAP_REQUIRE(scene_open(&s));
	m8_described_frames(&s);
	TAP_OK(strcmp(world_broken_law(&s.w), "M8") == 0);
	TAP_OK(world_check(&sound));
	world_abandon(&s.w);
	TAP_OK(world_close(&sound));
}

TAP_MAIN()
