/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_self.c - folios that are freed on their diet while memory is lacking host their own map slots: how many
 * frames that takes, who gets the rest, how it ends, and that nothing is refused but what must be.
 */
#include "tests/tap.h"
#include "tests/unit/self_rig.h"

#include "core/frames/zone.h"

#define G WORLD_GIB_FRAMES

static struct hog hog;

/* The map of so much memory, and less beside it than a hog holds. */
static struct world_config world_of(uint64_t nr_frames, enum mf_map_flags flags)
{
	return (struct world_config){ .nr_frames = nr_frames, .nr_ram_frames = nr_frames / 64 + 6144, .flags = flags };
}

static bool open_each(struct world *w, uint64_t nr_frames, unsigned i, enum mf_map_flags flags)
{
	struct world_config config = world_of(nr_frames, flags);

	return self_open(w, &config, diet_layouts[i], MF_SOURCE_RAM, MF_REGION_RESTORE_FROM_SELF);
}

static const enum mf_map_flags sharing[] = { MF_MAP_SHARE_TABLES, MF_MAP_PRIVATE_TABLES };

/* ---- Figures ----------------------------------------------------------------------------------------------------- */

/*
 * The whole life: 100 folios freed without a frame of RAM, users get what they do not host, and the blocks are whole
 * again when memory is back.  No reader is waited for.  Lifts L-HVO-2
 */
static void live(unsigned i, enum mf_map_flags flags)
{
	struct mf_list folios, pages;
	struct mf_map_stats before, dieted, now;
	uint64_t hosts, digest, free_once;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, i, flags));
	hosts = self_saved(&w, diet_layouts[i], 9);
	before = diet_stats(&w);
	digest = mf_map_digest(w.map);
	TAP_REQUIRE(self_diet(&w, &folios, 9, 100));
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	dieted = diet_stats(&w);
	TAP_EQ(dieted.nr_kept, 100);
	TAP_EQ(dieted.nr_hosted, 0);

	TAP_EQ(self_fold(&w), 0);
	now = diet_stats(&w);
	TAP_EQ(now.quiesces, dieted.quiesces);
	TAP_EQ(now.nr_kept + now.nr_dieted + now.nr_aliases + now.nr_used, 0);
	TAP_EQ(now.nr_hosted, 100);
	TAP_EQ(now.nr_map, 100 * hosts);
	TAP_EQ(now.nr_free, G - 100 * hosts);
	TAP_EQ(mf_map_digest(w.map), digest);
	TAP_OK(world_check(&w));

	free_once = self_take_all(&w, &pages);
	TAP_EQ(free_once, G - 100 * hosts);
	TAP_OK(world_check(&w));
	hog_end(&hog);
	/* Users in the way: nothing settles. */
	TAP_EQ(self_fold(&w), 0);
	TAP_EQ(diet_stats(&w).nr_hosted, 100);
	self_drop(&w, &pages);

	/* All 512 can be had at once again. */
	TAP_OK(diet_list_fill(&w, &folios, 9, 512));
	now = diet_stats(&w);
	TAP_EQ(now.nr_hosted + now.nr_map, 0);
	TAP_OK(world_check(&w));
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	now = diet_stats(&w);
	TAP_EQ(now.nr_free, before.nr_free);
	TAP_EQ(now.nr_tables, before.nr_tables);
	TAP_EQ(mf_map_digest(w.map), digest);
	TAP_OK(world_close(&w));
}

TAP_TEST(freed_without_memory_users_get_the_rest_and_later_all)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < 2; j++)
			live(i, sharing[j]);
}

/* Without the flag they wait.  R-HVO-48 */
TAP_TEST(without_the_flag_freed_folios_are_kept)
{
	struct mf_list folios;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_7_1));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 3));
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	TAP_EQ(diet_stats(&w).nr_kept, 3);
	TAP_EQ(diet_stats(&w).nr_hosted, 0);
	hog_end(&hog);
	TAP_OK(world_close(&w));
}

/* Every size: V less what is kept, and the tables that uniform ones stood for. */
static void check_order(unsigned i, enum mf_map_flags flags, unsigned order)
{
	uint64_t slots = (uint64_t)1 << (order - 6), tables = flags == 0 && slots > 512 ? slots / 512 - 1 : 0, hosts;
	uint64_t nr_wrong = 0;
	struct mf_map_stats now;
	struct mf_list folios;
	struct mf_folio *folio;
	mf_pfn_t pfn;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, i, flags));
	hosts = self_saved(&w, diet_layouts[i], order) + tables;
	TAP_REQUIRE(self_diet(&w, &folios, order, 1));
	pfn = mf_folio_pfn(w.map, diet_list_folio(folios.next));
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	now = diet_stats(&w);
	TAP_EQ(now.nr_map, hosts);
	TAP_EQ(now.nr_hosted, 1);
	TAP_OK(world_check(&w));
	/* They are the last ones. */
	for (mf_pfn_t at = pfn; at < pfn + ((mf_pfn_t)1 << order); at++) {
		enum mf_kind kind = at < pfn + ((mf_pfn_t)1 << order) - hosts ? MF_KIND_FREE : MF_KIND_MAP;

		folio = mf_pfn_folio(w.map, at);
		if (mf_page_kind(&folio->page) != kind || mf_page_folio(w.map, mf_pfn_to_page(w.map, at)) != folio)
			nr_wrong++;
	}
	TAP_EQ(nr_wrong, 0);
	hog_end(&hog);
	TAP_EQ(self_fold(&w), 0);
	TAP_EQ(diet_stats(&w).nr_map + diet_stats(&w).nr_hosted, 0);
	TAP_OK(diet_list_fill(&w, &folios, 18, 1));
	diet_list_free(&w, &folios);
	TAP_OK(world_close(&w));
}

TAP_TEST(hosts_are_as_many_as_needed_and_the_last)
{
	static const unsigned orders[] = { 7, 9, 15, 16, 18 };

	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned o = 0; o < sizeof(orders) / sizeof(orders[0]); o++)
			for (unsigned j = 0; j < 2; j++)
				if (mf_diet_saves(diet_layouts[i], 12, MF_DESCRIPTOR_SIZE, orders[o]) > 0)
					check_order(i, sharing[j], orders[o]);
}

/* ---- On demand --------------------------------------------------------------------------------------------------- */

/* Everything else in use: a base page divides one folio, not all; a block as large as they are divides none. */
TAP_TEST(an_allocation_divides_no_more_than_it_needs)
{
	struct mf_list folios, pages;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, 2, MF_MAP_SHARE_TABLES));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 3));
	self_take_all(&w, &pages);
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	TAP_OK(!world_alloc(&w, 9));
	TAP_EQ(diet_stats(&w).nr_kept, 3);
	folio = world_alloc(&w, 8);
	TAP_REQUIRE(folio);
	TAP_EQ(diet_stats(&w).nr_kept, 2);
	TAP_EQ(diet_stats(&w).nr_hosted, 1);
	TAP_OK(world_check(&w));
	mf_folio_put(w.map, folio);

	/* Memory for one: an allocation takes no more than that, either. */
	hog_put(&hog, 7);
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	TAP_EQ(diet_stats(&w).nr_kept + diet_stats(&w).nr_hosted, 2);
	TAP_OK(world_check(&w));
	mf_folio_put(w.map, folio);
	hog_end(&hog);
	self_drop(&w, &pages);
	TAP_OK(world_close(&w));
}

TAP_TEST(an_allocation_settles_no_more_than_it_needs)
{
	struct mf_list folios, pages;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, 0, MF_MAP_SHARE_TABLES));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 3));
	self_take_all(&w, &pages);
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	TAP_EQ(diet_stats(&w).nr_hosted, 3);
	hog_end(&hog);
	for (uint64_t left = 3; left > 0; left--) {
		folio = world_alloc(&w, 9);
		TAP_REQUIRE(folio);
		mf_list_push_back(&pages, &folio->page.list);
		TAP_EQ(diet_stats(&w).nr_hosted, left - 1);
	}
	TAP_OK(world_check(&w));
	self_drop(&w, &pages);
	TAP_OK(world_close(&w));
}

/* Frames for one block settle one, and what lacks frames stays as it was. */
TAP_TEST(blocks_settle_as_far_as_memory_goes)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_list folios;
		uint64_t hosts;
		struct world w;

		TAP_REQUIRE(open_each(&w, 2 * G, i, MF_MAP_SHARE_TABLES));
		hosts = self_saved(&w, diet_layouts[i], 9);
		TAP_REQUIRE(self_diet(&w, &folios, 18, 1));
		TAP_REQUIRE(diet_list_fill(&w, &folios, 9, 5) && mf_diet_remap_list(w.map, &folios, NULL) == 0);
		hog_all(&hog, w.sim);
		diet_list_free(&w, &folios);
		TAP_EQ(self_fold(&w), 0);
		TAP_EQ(diet_stats(&w).nr_hosted, 6);
		hog_put(&hog, 2 * hosts + 1);
		TAP_EQ(self_fold(&w), 0);
		TAP_EQ(diet_stats(&w).nr_hosted, 4);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		TAP_EQ(self_fold(&w), 0);
		TAP_EQ(diet_stats(&w).nr_hosted, 0);
		TAP_OK(world_close(&w));
	}
}

/* The n-th frame is lacking: all of a block settles or none of it, at every step. */
TAP_TEST(nth_failure_of_settling_leaves_a_block_as_it_was)
{
	static const unsigned orders[] = { 9, 16 };

	for (unsigned o = 0; o < 2; o++) {
		struct mf_map_stats hosted, now;
		struct mf_list folios;
		bool settled = false;
		struct world w;

		TAP_REQUIRE(open_each(&w, G, 1, MF_MAP_SHARE_TABLES));
		TAP_REQUIRE(self_diet(&w, &folios, orders[o], 1));
		hog_all(&hog, w.sim);
		diet_list_free(&w, &folios);
		TAP_EQ(self_fold(&w), 0);
		hosted = diet_stats(&w);
		TAP_EQ(hosted.nr_hosted, 1);
		hog_end(&hog);
		for (uint64_t nth = 1; !settled && nth < 2000; nth++) {
			mf_sim_fail_ram(w.sim, nth);
			TAP_EQ(mf_fold(w.map, MF_ANY_NODE, MF_FOLD_KEEP, NULL), 0);
			mf_sim_fail_ram(w.sim, 0);
			now = diet_stats(&w);
			settled = now.nr_hosted == 0;
			TAP_EQ(now.nr_map, settled ? 0 : hosted.nr_map);
			TAP_EQ(now.nr_ram, hosted.nr_ram + (settled ? hosted.nr_map : 0));
			if (nth % 50 == 1 || orders[o] == 9)
				TAP_OK(world_check(&w));
		}
		TAP_OK(settled);
		TAP_OK(world_close(&w));
	}
}

/* ---- What is refused, and what is not ---------------------------------------------------------------------------- */

/* A part of such a block has its map in the block.  R-HVO-30, R-HVO-35 */
TAP_TEST(a_part_of_a_block_that_hosts_itself_goes_on_no_diet)
{
	struct mf_list folios, parts;
	struct mf_folio *part;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, 2, MF_MAP_SHARE_TABLES));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 512));
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	part = diet_folio(&w, 8);
	TAP_REQUIRE(part);
	hog_put(&hog, 10);
	TAP_EQ(mf_diet_remap(w.map, part), -MF_EOPNOTSUPP);
	mf_list_init(&parts);
	mf_list_push_back(&parts, &part->page.list);
	TAP_EQ(mf_diet_remap_list(w.map, &parts, NULL), -MF_EOPNOTSUPP);
	mf_list_remove(&part->page.list);
	TAP_OK(!mf_folio_is_on_diet(part));
	TAP_OK(diet_answers(&w, part, 8));
	TAP_OK(world_check(&w));
	hog_end(&hog);
	diet_folio_free(&w, part);
	TAP_OK(world_close(&w));
}

/* The whole region without a frame of RAM.  Lifts L-HP-9 */
TAP_TEST(a_region_is_removed_though_its_blocks_host_themselves)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_region_config region = { .end_pfn = 2 * G, .layout = diet_layouts[i], .source = MF_SOURCE_RAM,
						   .flags = MF_REGION_RESTORE_FROM_SELF };
		struct world_config config;
		struct mf_list folios;
		uint64_t used;
		struct world w;

		config = world_of(2 * G, MF_MAP_SHARE_TABLES);
		TAP_REQUIRE(world_open(&w, &config));
		used = mf_sim_ram_used(w.sim);
		TAP_REQUIRE(world_add_region(&w, &region, NULL) == 0);
		TAP_REQUIRE(self_diet(&w, &folios, 18, 1));
		TAP_REQUIRE(diet_list_fill(&w, &folios, 9, 200) && mf_diet_remap_list(w.map, &folios, NULL) == 0);
		hog_all(&hog, w.sim);
		diet_list_free(&w, &folios);
		TAP_EQ(mf_region_remove(w.map, 0), 0);
		TAP_OK(world_check(&w));
		TAP_EQ(diet_stats(&w).nr_hosted, 0);
		hog_end(&hog);
		TAP_EQ(mf_sim_ram_used(w.sim), used);
		TAP_OK(world_close(&w));
	}
}

/*
 * Slots come from the altmap, which has all that the diet gave back; only tables of full units are lacking, 3 of them here.
 * The first head was moved to RAM, before anything came back, and stays there.
 */
TAP_TEST(on_an_altmap_only_tables_are_lacking)
{
	struct mf_region_config region = { .end_pfn = 2 * G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_ALTMAP,
					   .nr_altmap = 8192, .flags = MF_REGION_RESTORE_FROM_SELF };
	struct world_config config = world_of(2 * G, MF_MAP_SHARE_TABLES);
	struct mf_map_stats before, now;
	struct mf_list folios, parts;
	struct mf_folio *part = NULL;
	mf_pfn_t pfn;
	struct world w;

	TAP_REQUIRE(world_open(&w, &config));
	TAP_REQUIRE(world_add_region(&w, &region, NULL) == 0);
	before = diet_stats(&w);
	TAP_REQUIRE(self_diet(&w, &folios, 17, 1));
	pfn = mf_folio_pfn(w.map, diet_list_folio(folios.next));
	TAP_REQUIRE(diet_list_fill(&w, &folios, 9, 10) && mf_diet_remap_list(w.map, &folios, NULL) == 0);
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	now = diet_stats(&w);
	TAP_EQ(now.nr_hosted, 1);
	TAP_EQ(now.nr_map, before.nr_map - 1 + 3);
	TAP_OK(world_check(&w));

	/* The tables of a part are the block's, and stay.  R-HVO-30 */
	mf_list_init(&parts);
	while (!part) {
		TAP_REQUIRE(diet_list_fill(&w, &parts, 16, 1));
		part = diet_list_folio(parts.prev);
		part = mf_folio_pfn(w.map, part) - pfn < (mf_pfn_t)1 << 17 ? part : NULL;
	}
	hog_end(&hog);
	TAP_EQ(mf_diet_remap(w.map, part), -MF_EOPNOTSUPP);
	diet_list_free(&w, &parts);
	TAP_EQ(self_fold(&w), 0);
	now = diet_stats(&w);
	TAP_EQ(now.nr_map, before.nr_map - 1);
	TAP_EQ(now.nr_hosted, 0);
	TAP_OK(world_close(&w));
}

TAP_TEST(flags_are_checked_and_told)
{
	struct mf_region_config region = { .end_pfn = G, .flags = MF_REGION_FLAGS_ALL + 1 };
	struct mf_region_info info;
	unsigned id;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(world_add_region(&w, &region, NULL), -MF_EINVAL);
	for (unsigned layout = 0; layout < MF_NR_LAYOUTS; layout++) {
		region.layout = (enum mf_layout)layout;
		region.source = layout == MF_LAYOUT_DEVDAX ? MF_SOURCE_RAM : MF_SOURCE_SELF;
		region.unit_order = layout == MF_LAYOUT_DEVDAX ? 9 : 0;
		region.flags = MF_REGION_DIET_FLAGS;
		TAP_EQ(world_add_region(&w, &region, &id), 0);
		TAP_EQ(mf_region_info(w.map, id, &info), 0);
		TAP_EQ(info.config.flags, MF_REGION_DIET_FLAGS);
		TAP_OK(world_check(&w));
		TAP_EQ(mf_region_remove(w.map, id), 0);
	}
	TAP_OK(world_close(&w));
}

/* ---- Laws -------------------------------------------------------------------------------------------------------- */

/* What a hosting frame's record says is held against the tables, the block and the list. */
TAP_TEST(broken_hosts_are_found)
{
	struct mf_list folios;
	struct mf_page *first, *page;
	struct mf_page was;
	mf_pfn_t end;
	struct world w;

	TAP_REQUIRE(open_each(&w, G, 2, MF_MAP_SHARE_TABLES));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 2));
	end = mf_folio_pfn(w.map, diet_list_folio(folios.next)) + 512;
	hog_all(&hog, w.sim);
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	first = mf_pfn_to_page(w.map, end - 7);
	page = mf_pfn_to_page(w.map, end - 3);
	TAP_EQ(first->private_data, 9);

	was = *page;
	page->index = first->index;
	TAP_OK(strcmp(world_broken_law(&w), "M6") == 0);
	*page = was;
	page->private_data = 9;
	TAP_OK(strcmp(world_broken_law(&w), "M6") == 0);
	*page = was;
	page->word &= ~MF_FLAG_DIET;
	TAP_OK(strcmp(world_broken_law(&w), "M6") == 0);
	*page = was;

	mf_list_remove(&first->list);
	TAP_OK(strcmp(world_broken_law(&w), "M8") == 0);
	mf_list_push_back(&w.map->zone[0]->hosted, &first->list);
	w.map->zone[0]->nr_hosted++;
	TAP_OK(strcmp(world_broken_law(&w), "M8") == 0);
	w.map->zone[0]->nr_hosted--;
	TAP_OK(world_check(&w));
	hog_end(&hog);
	TAP_OK(world_close(&w));
}

/* The host owns the map's memory: accepted, and nothing else happens than without. */
TAP_TEST(a_host_machine_takes_the_flags_and_does_without)
{
	struct world_config config = { .machine = "linux", .nr_frames = G };
	struct mf_list folios;
	struct world w;

	TAP_REQUIRE(self_open(&w, &config, MF_LAYOUT_HVO_5_18, MF_SOURCE_SELF, MF_REGION_DIET_FLAGS));
	TAP_REQUIRE(self_diet(&w, &folios, 9, 3));
	diet_list_free(&w, &folios);
	TAP_EQ(self_fold(&w), 0);
	TAP_EQ(diet_stats(&w).nr_kept + diet_stats(&w).nr_hosted + diet_stats(&w).nr_dieted, 0);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
