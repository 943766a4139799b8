/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_compound.c - regions of compounds (layout devdax): what they cost, what every descriptor answers, who may write
 * where, which are refused, and when they can go.
 *
 * The rule that a test holds stands above it.  Pieces of compounds, and failures: test_compound_pieces.c.
 */
#include "tests/unit/compound_rig.h"

#define G WORLD_GIB_FRAMES

enum { FRAME = 4096 };

/* ---- What they cost ---------------------------------------------------------------------------------------------- */

/*
 * RAM, in frames, that a GiB of compounds costs beside one that stands: slots and tables of its own, since the tables
 * above and the slot of the top window are there already.
 */
static uint64_t cost_of_a_gib(unsigned order, enum mf_map_flags flags)
{
	struct world w;
	uint64_t before, cost;

	if (!world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .flags = flags }))
		return 0;
	TAP_EQ(compound_add(&w, 0, G, order, NULL), 0);
	before = mf_sim_ram_used(w.sim);
	TAP_EQ(compound_add(&w, G, 2 * G, order, NULL), 0);
	cost = mf_sim_ram_used(w.sim) - before;
	TAP_EQ(stats_of(&w).nr_dieted, 2 * (G >> order));
	TAP_EQ(stats_of(&w).nr_aliases, (2 * G >> order) * (nr_slots(&w, order) - 2));
	TAP_OK(world_check(&w));
	TAP_OK(world_close(&w));
	return cost;
}

/* A 2 MiB compound: 2 slots of 8, 6 saved, and its share of 8 tables a GiB.  R-DAX-4, R-DAX-6, R-DAX-7, R-DAX-19 */
TAP_TEST(compounds_of_2_mib_cost_two_slots_each)
{
	TAP_EQ(cost_of_a_gib(9, 0) * FRAME, 512 * (8192 + 64));
	TAP_EQ(cost_of_a_gib(9, MF_MAP_PRIVATE_TABLES) * FRAME, 512 * (8192 + 64));
}

/* A 1 GiB compound: 2 slots of 4096, 4094 saved, and 8 tables, of which 7 can be one.  R-DAX-6, R-DAX-7, L-DAX-9 */
TAP_TEST(a_compound_of_1_gib_costs_two_slots)
{
	TAP_EQ(cost_of_a_gib(18, MF_MAP_PRIVATE_TABLES) * FRAME, 8192 + 32768);
	TAP_EQ(cost_of_a_gib(18, 0) * FRAME, 8192 + 8192);
}

/*
 * Orders that Linux does not have, too.  Tables are shared by those that fill more than one.  R-DAX-7, L-DAX-10,
 * R-MEM-50
 */
TAP_TEST(compounds_of_every_order_that_saves_cost_two_slots)
{
	for (unsigned order = 8; order <= 18; order++) {
		uint64_t nr = G >> order, shared = order > 15 ? 2 * nr : 8;

		TAP_EQ(cost_of_a_gib(order, 0), 2 * nr + shared);
		TAP_EQ(cost_of_a_gib(order, MF_MAP_PRIVATE_TABLES), 2 * nr + 8);
	}
}

/* Compounds whose map fills two slots or less keep all of it.  R-DAX-4, R-DAX-5, R-MEM-19 */
TAP_TEST(compounds_that_would_save_nothing_are_not_dieted)
{
	for (unsigned order = 0; order < 8; order++) {
		struct world w;
		mf_pfn_t size = (mf_pfn_t)1 << order;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
		TAP_EQ(compound_add(&w, 1024, 2048, order, NULL), 0);
		TAP_EQ(stats_of(&w).nr_aliases, 0);
		TAP_EQ(stats_of(&w).nr_dieted, 0);
		TAP_EQ(stats_of(&w).nr_device, 1024);
		for (mf_pfn_t pfn = 1024; pfn < 2048; pfn += size)
			TAP_OK(compound_is_right(&w, pfn, order));
		TAP_OK(world_close(&w));
	}
}

/*
 * With an altmap every slot has a frame, from the altmap; compounds begin behind it.  R-DAX-4, R-DAX-7, R-DAX-23,
 * R-MEM-19, R-MEM-52, R-SCN-10
 */
TAP_TEST(altmap_keeps_all_slots)
{
	static const unsigned orders[] = { 9, 12, 15 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct mf_region_config config = compound_config(G, 2 * G, orders[i]);
		struct mf_map_stats before, now;
		struct world w;

		config.source = MF_SOURCE_ALTMAP;
		config.nr_altmap = 1 << 15;
		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
		TAP_EQ(compound_add(&w, 0, G, 9, NULL), 0);
		before = stats_of(&w);
		TAP_EQ(world_add_region(&w, &config, NULL), 0);
		now = stats_of(&w);
		TAP_EQ(now.nr_slots - before.nr_slots, 4096);
		TAP_EQ(now.nr_aliases, before.nr_aliases);
		TAP_EQ(now.nr_dieted, before.nr_dieted);
		TAP_EQ(now.nr_map, 4096);
		TAP_EQ(now.nr_device - before.nr_device, G - (1 << 15));
		TAP_OK(now.nr_ram - before.nr_ram <= 8);
		for (mf_pfn_t pfn = G + (1 << 15); pfn < 2 * G; pfn += (mf_pfn_t)1 << orders[i])
			TAP_OK(compound_is_right(&w, pfn, orders[i]));
		TAP_OK(world_check(&w));
		TAP_OK(world_close(&w));
	}
}

/* ---- What every descriptor answers ------------------------------------------------------------------------------- */

/* The region's own reference, no owner, no map; tails are tails.  R-DAX-24, R-DAX-25, R-DAX-29, R-DAX-30, R-GEN-2 */
TAP_TEST(every_descriptor_leads_to_its_compound)
{
	static const struct {
		const char *machine;
		unsigned order;
		mf_pfn_t nr_frames;
	} rows[] = {
		{ "sim", 9, G },
		{ "sim", 12, G },
		{ "sim", 18, 2 * G },
		{ "sim-5", 9, G },
		{ "sim-5", 18, G },
		{ "sim-arm64-16k", 10, 1 << 14 },
		{ "sim-arm64-16k", 11, 1 << 14 },
		{ "sim-arm64-16k", 16, 1 << 22 },
		{ "sim-arm64-16k", 22, 1 << 22 },
		{ "sim-arm64-64k", 12, 1 << 15 },
		{ "sim-arm64-64k", 13, 1 << 15 },
		{ "sim-arm64-64k", 26, 1 << 26 },
		{ "linux", 9, 1 << 14 },
		{ "linux", 15, 1 << 18 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		mf_pfn_t size = (mf_pfn_t)1 << rows[i].order, step = mf_max(size, rows[i].nr_frames / 64);
		uint64_t ram = 0;
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){
						   .machine = rows[i].machine,
						   .nr_frames = rows[i].nr_frames,
						   .nr_ram_frames = 1 << 14,
					   }));
		if (w.sim)
			ram = mf_sim_ram_used(w.sim);
		TAP_EQ(compound_add(&w, 0, rows[i].nr_frames, rows[i].order, NULL), 0);
		TAP_EQ(stats_of(&w).nr_device, rows[i].nr_frames);
		TAP_EQ(stats_of(&w).nr_aliases, rows[i].nr_frames / size * (nr_slots(&w, rows[i].order) - 2));
		for (mf_pfn_t pfn = 0; pfn < rows[i].nr_frames; pfn += step)
			TAP_OK(compound_is_right(&w, pfn, rows[i].order));
		TAP_OK(world_check(&w));
		TAP_EQ(mf_region_remove(w.map, 0), 0);
		if (w.sim)
			TAP_EQ(mf_sim_ram_used(w.sim), ram);
		TAP_OK(world_close(&w));
	}
}

/* What is read in any slot after the first is the same bytes.  R-DAX-6, R-DAX-27 */
TAP_TEST(all_slots_but_the_first_are_alike)
{
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(compound_add(&w, 0, G, 18, NULL), 0);
	for (uint64_t slot = 2; slot < 4096; slot++)
		TAP_OK(__builtin_memcmp((void *)slot_va(&w, 0, 1), (void *)slot_va(&w, 0, slot), FRAME) == 0);
	TAP_OK(world_close(&w));
}

/* In the window only the first slot is written, 64 descriptors of 262144; the tail frame below it.  R-DAX-26 */
TAP_TEST(nothing_is_initialised_but_the_unique_frames)
{
	struct mf_sim_stats before, now;
	struct backing b;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G }));
	TAP_EQ(compound_add(&w, 0, G, 18, NULL), 0);
	mf_sim_stats(w.sim, &before);
	TAP_EQ(compound_add(&w, G, 2 * G, 18, NULL), 0);
	mf_sim_stats(w.sim, &now);
	/* Its first slot and that of the top window, which the flush of the change may have dropped. */
	TAP_OK(now.fills - before.fills <= 2);
	b = backing_of(&w, G, 18);
	TAP_OK(mf_sim_reachable(w.sim, b.head) == 1);
	TAP_OK(mf_sim_reachable(w.sim, b.tails) == 0);
	TAP_OK(world_close(&w));
}

/* ---- Who may write ----------------------------------------------------------------------------------------------- */

static void write_word(void *arg)
{
	volatile uint64_t *word = arg;

	*word = *word;
}

static bool write_is_caught(struct world *w, void *address)
{
	struct mf_sim_fault fault;
	bool caught = mf_sim_catch_fault(w->sim, write_word, address, &fault) && fault.kind == MF_SIM_FAULT_STRAY;

	w->stray_writes += caught;
	return caught;
}

/* A stray write to a tail would change all tails of the compound.  L-DAX-3 */
TAP_TEST(stray_writes_to_all_slots_but_the_first_fault)
{
	static const unsigned orders[] = { 8, 9, 15, 18 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
		TAP_EQ(compound_add(&w, 0, G, orders[i], NULL), 0);
		TAP_OK(!write_is_caught(&w, (void *)slot_va(&w, 0, 0)));
		for (uint64_t slot = 1; slot < nr_slots(&w, orders[i]); slot++)
			if (!write_is_caught(&w, (void *)(slot_va(&w, 0, slot) + slot * 8 % FRAME)))
				TAP_OK(false);
		TAP_OK(compound_is_right(&w, 0, orders[i]));
		TAP_OK(world_check(&w));
		TAP_OK(world_close(&w));
	}
}

/* ---- What is refused --------------------------------------------------------------------------------------------- */

#define DEVDAX(from, to, order)                                                                                  \
	{ .start_pfn = (from), .end_pfn = (to), .layout = MF_LAYOUT_DEVDAX, .source = MF_SOURCE_RAM,              \
	  .unit_order = (order) }
#define DEVDAX_ALTMAP(from, to, order, nr)                                                                       \
	{ .start_pfn = (from), .end_pfn = (to), .layout = MF_LAYOUT_DEVDAX, .source = MF_SOURCE_ALTMAP,           \
	  .unit_order = (order), .nr_altmap = (nr) }

static const struct mf_region_config misfits[] = {
	/* A 1 GiB compound that starts at 2 MiB, and the like. */
	DEVDAX(512, 512 + G, 18),
	DEVDAX(G, 2 * G + 512, 18),
	DEVDAX(0, G - 1, 9),
	DEVDAX(1, G, 9),
	DEVDAX(256, 256 + 512, 9),
	DEVDAX(255, 511, 8),
	DEVDAX(G, 2 * G - 1, 1),
	DEVDAX_ALTMAP(G, 2 * G, 9, 8 * 512 + 1),
	DEVDAX_ALTMAP(G, 2 * G, 15, 8 * 512),
	DEVDAX_ALTMAP(G, 2 * G, 18, 8 * 512),
	DEVDAX_ALTMAP(G, 2 * G, 18, G),
	/* Larger than a block of the top tier. */
	DEVDAX(0, 2 * G, 19),
	DEVDAX(0, 2 * G, 63),
	DEVDAX(0, 2 * G, 64),
	/* A map in the compounds themselves; compounds where the allocator makes the folios. */
	{ .end_pfn = G, .layout = MF_LAYOUT_DEVDAX, .unit_order = 9 },
	{ .end_pfn = G, .unit_order = 9 },
	{ .end_pfn = G, .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_RAM, .unit_order = 9 },
	{ .end_pfn = G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_RAM, .unit_order = 9 },
};

/*
 * Start, end and altmap are multiples of the compound, which Linux does not check.  R-DAX-31, R-SCN-24, L-DAX-4,
 * R-DAX-1
 */
TAP_TEST(misaligned_compounds_are_refused)
{
	uint64_t digest, ram;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 4 * G }));
	digest = mf_map_digest(w.map);
	ram = mf_sim_ram_used(w.sim);
	for (unsigned i = 0; i < sizeof(misfits) / sizeof(misfits[0]); i++) {
		int err = world_add_region(&w, &misfits[i], NULL);

		if (err != -MF_EINVAL)
			TAP_NOTE("misfit %u", i);
		TAP_EQ(err, -MF_EINVAL);
		TAP_EQ(mf_map_digest(w.map), digest);
		TAP_EQ(mf_sim_ram_used(w.sim), ram);
	}
	TAP_OK(world_close(&w));
}

/* Of the map, not of any: where the top tier is 1, that is 2 MiB. */
TAP_TEST(compounds_are_at_most_a_block_of_the_top_tier)
{
	for (unsigned top = 1; top <= 2; top++) {
		unsigned order;
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .top = top }));
		order = world_block_order(&w, top);
		TAP_EQ(compound_add(&w, 0, 2 * G, order + 1, NULL), -MF_EINVAL);
		TAP_EQ(compound_add(&w, 0, 2 * G, order, NULL), 0);
		TAP_OK(compound_is_right(&w, (mf_pfn_t)1 << order, order));
		TAP_OK(world_close(&w));
	}
}

/* ---- In use ------------------------------------------------------------------------------------------------------ */

static bool stays(struct world *w, const char *why)
{
	uint64_t digest = mf_map_digest(w->map), ram = mf_sim_ram_used(w->sim);
	int err = mf_region_remove(w->map, 0);

	if (err != -MF_EBUSY)
		TAP_NOTE("%s: %s", why, err ? mf_strerror(err) : "removed");
	return err == -MF_EBUSY && mf_map_digest(w->map) == digest && mf_sim_ram_used(w->sim) == ram && world_check(w);
}

/* The region's own references let it go; anybody else's do not, on whichever compound.  R-DAX-24 */
TAP_TEST(region_stays_while_a_compound_is_held_pinned_or_mapped)
{
	static const mf_pfn_t users[] = { 0, 5 * 512, G - 512 };
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(compound_add(&w, 0, G, 9, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct mf_folio *folio = mf_pfn_try_get(w.map, users[i] + 100 * i);

		TAP_REQUIRE(folio && folio == compound_at(&w, users[i]));
		TAP_OK(stays(&w, "held"));
		TAP_EQ(mf_folio_map_whole(folio), 0);
		TAP_OK(stays(&w, "held and mapped"));
		mf_folio_put(w.map, folio);
		TAP_OK(stays(&w, "mapped"));
		mf_folio_unmap_whole(folio);
		TAP_EQ(mf_folio_map_frames(folio, 7), 0);
		TAP_OK(stays(&w, "mapped in part"));
		mf_folio_unmap_frames(folio, 7);
		TAP_OK(mf_pfn_try_pin(w.map, users[i] + 511) == folio);
		TAP_OK(stays(&w, "pinned"));
		mf_folio_unpin(w.map, folio);
		TAP_EQ(mf_folio_refcount(folio), 1);
	}
	TAP_EQ(mf_region_remove(w.map, 0), 0);
	TAP_OK(!mf_pfn_is_valid(w.map, 0) && !mf_pfn_try_get(w.map, 5 * 512));
	TAP_OK(world_close(&w));
}

/* Users find compounds by iteration, and cannot end, split or merge them.  R-DAX-8 */
TAP_TEST(compounds_are_found_and_belong_to_their_region)
{
	struct mf_folio *folio, *merged;
	mf_pfn_t next = 0, nr = 0;
	struct world w;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G }));
	TAP_EQ(compound_add(&w, 0, G, 9, NULL), 0);
	while ((folio = mf_folio_next(w.map, next, G, &next)) != NULL) {
		TAP_EQ(mf_folio_pfn(w.map, folio), nr++ * 512);
		TAP_EQ(next, nr * 512);
	}
	TAP_EQ(nr, 512);
	TAP_OK(!world_alloc(&w, 0) && !world_alloc(&w, 9));
	folio = compound_at(&w, 512);
	TAP_EQ(mf_folio_split(w.map, folio, 8), -MF_EINVAL);
	TAP_EQ(mf_folio_merge(w.map, 0, 10, &merged), -MF_EBUSY);
	TAP_OK(TAP_PANICS(mf_folio_put(w.map, folio)));
	TAP_OK(tap_contains(tap_state.panic, "its region's own"));
	mf_folio_unfreeze(folio, 1);
	TAP_OK(world_check(&w));
	TAP_OK(world_close(&w));
}

/* ---- Side by side ------------------------------------------------------------------------------------------------ */

static const struct mf_region_config beside[] = {
	DEVDAX(0, 10 * 512, 9),
	{ .start_pfn = 10 * 512, .end_pfn = 40 * 512 + 256 },
	/* Compounds that lie in a part of a block keep their map, the others do not. */
	DEVDAX(40 * 512 + 256, 44 * 512 + 256, 8),
	{ .start_pfn = 44 * 512 + 256, .end_pfn = 100 * 512, .layout = MF_LAYOUT_FLAT, .source = MF_SOURCE_RAM },
	DEVDAX(128 * 512, 192 * 512, 15),
	{ .start_pfn = 200 * 512, .end_pfn = G, .layout = MF_LAYOUT_HVO_7_1, .source = MF_SOURCE_RAM },
	DEVDAX(G, 2 * G, 18),
	{ .start_pfn = 2 * G, .end_pfn = 3 * G + 77 },
	DEVDAX(3 * G + 1024, 3 * G + 4096, 10),
	DEVDAX(3 * G + 4096, 3 * G + 8192, 3),
	DEVDAX_ALTMAP(3 * G + 8192, 4 * G, 9, 4096),
};

enum { NR_BESIDE = sizeof(beside) / sizeof(beside[0]) };

/* Blocks unfold and fold in the tables next door. */
static bool churn(struct world *w)
{
	enum { NR = 40 };
	struct mf_folio *folio[NR];
	bool good = true;

	for (unsigned i = 0; i < NR; i++) {
		folio[i] = world_alloc(w, i % 10);
		good = good && (!folio[i] || mf_page_kind(&folio[i]->page) == MF_KIND_USED);
	}
	good = world_check(w) && good;
	for (unsigned i = 0; i < NR; i++)
		if (folio[i])
			mf_folio_put(w->map, folio[i]);
	good = mf_drain(w->map) == 0 && mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL) == 0 && good;
	return world_check(w) && good;
}

static bool compounds_are_right(struct world *w, const struct mf_region_config *c)
{
	mf_pfn_t size = (mf_pfn_t)1 << c->unit_order, at = c->start_pfn + c->nr_altmap;
	bool good = true;

	if (c->layout != MF_LAYOUT_DEVDAX)
		return true;
	for (; at < c->end_pfn; at += mf_max(size, mf_round_down((c->end_pfn - at) / 8, size)))
		good = compound_is_right(w, at, c->unit_order) && good;
	return good;
}

/* Each order of coming and going starts elsewhere.  R-GEN-4, R-DAX-4 */
TAP_TEST(compounds_live_beside_every_other_layout)
{
	for (unsigned turn = 0; turn < NR_BESIDE; turn += 2) {
		unsigned id[NR_BESIDE];
		struct world w;

		TAP_REQUIRE(world_open(&w, &(struct world_config){
						   .nr_frames = 4 * G,
						   .flags = turn % 4 ? MF_MAP_PRIVATE_TABLES : 0,
					   }));
		for (unsigned i = 0; i < NR_BESIDE; i++) {
			unsigned n = (i * 5 + turn) % NR_BESIDE;

			TAP_EQ(world_add_region(&w, &beside[n], &id[n]), 0);
			TAP_OK(churn(&w));
		}
		for (unsigned i = 0; i < NR_BESIDE; i++) {
			unsigned n = (i * 7 + turn) % NR_BESIDE;

			for (unsigned k = i; k < NR_BESIDE; k++)
				TAP_OK(compounds_are_right(&w, &beside[(k * 7 + turn) % NR_BESIDE]));
			TAP_EQ(mf_region_remove(w.map, id[n]), 0);
			TAP_OK(churn(&w));
		}
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
