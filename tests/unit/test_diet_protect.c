/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_protect.c - what is shared on a diet is read-only: a stray write faults, in the window and in the direct
 * map; what a folio has for itself is written as ever.
 */
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

static void write_back(void *arg)
{
	volatile uint64_t *word = arg;

	*word = *word;
}

/* Written as it is: nothing changes where the write gets through. */
static bool faults(struct world *w, void *at, enum mf_sim_fault_kind kind)
{
	struct mf_sim_fault fault = { 0 };

	if (mf_sim_catch_fault(w->sim, write_back, at, &fault) == 0)
		return false;
	w->stray_writes++;
	if (fault.kind != kind)
		TAP_NOTE("a fault of kind %d, expected %d", (int)fault.kind, (int)kind);
	return fault.kind == kind;
}

static bool is_written(struct world *w, void *at)
{
	return mf_sim_catch_fault(w->sim, write_back, at, NULL) == 0;
}

/* hvo-5.14 shows the last slot it keeps, so that one is read-only as well. */
static uint64_t nr_writable(enum mf_layout layout)
{
	const struct mf_diet *diet = mf_layout_diet(layout);

	return diet->nr_kept - (diet->tails == MF_TAILS_FIRST_TAIL);
}

static void check_slots(struct world *w, struct mf_folio *folio, unsigned order, uint64_t nr_own)
{
	uint64_t last = diet_per_slot(w) - 1;

	for (uint64_t slot = 0; slot < diet_nr_slots(w, order); slot++) {
		struct mf_page *page = diet_slot(w, folio, slot);

		if (slot < nr_own) {
			TAP_OK(is_written(w, page));
			TAP_OK(is_written(w, &page[last].private_data));
		} else {
			TAP_OK(faults(w, page, MF_SIM_FAULT_STRAY));
			TAP_OK(faults(w, &page[last].private_data, MF_SIM_FAULT_STRAY));
		}
	}
}

static void play_slots(const struct world_config *config, unsigned order)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(diet_open(&w, config, diet_layouts[i]));
		folio = diet_folio(&w, order);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		check_slots(&w, folio, order, nr_writable(diet_layouts[i]));
		TAP_OK(world_check(&w));
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		check_slots(&w, folio, order, diet_nr_slots(&w, order));
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

/* R-HVO-21, R-HVO-25, R-HVO-44 */
TAP_TEST(aliased_slots_of_a_2_mib_folio_fault)
{
	play_slots(&(struct world_config){ .nr_frames = G }, 9);
	play_slots(&(struct world_config){ .nr_frames = G, .flags = MF_MAP_PRIVATE_TABLES }, 9);
	play_slots(&(struct world_config){ .machine = "sim-arm64-16k", .nr_frames = 1 << 17 }, 11);
	play_slots(&(struct world_config){ .machine = "sim-arm64-64k", .nr_frames = 1 << 17 }, 13);
}

/* R-HVO-21, R-HVO-25, R-HVO-44 */
TAP_TEST(aliased_slots_of_a_1_gib_folio_fault)
{
	play_slots(&(struct world_config){ .nr_frames = G }, 18);
	play_slots(&(struct world_config){ .nr_frames = G, .flags = MF_MAP_PRIVATE_TABLES }, 18);
}

/* A write that was allowed before must not be allowed by a translation from then.  R-HVO-22, R-HVO-25 */
TAP_TEST(slots_written_before_fault_after)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, diet_layouts[i]));
		folio = diet_folio(&w, 18);
		TAP_REQUIRE(folio);
		for (unsigned round = 0; round < 2; round++) {
			for (uint64_t slot = 0; slot < 4096; slot += 63)
				TAP_OK(is_written(&w, diet_slot(&w, folio, slot)));
			TAP_EQ(mf_diet_remap(w.map, folio), 0);
			for (uint64_t slot = 63; slot < 4096; slot += 63)
				TAP_OK(faults(&w, diet_slot(&w, folio, slot), MF_SIM_FAULT_STRAY));
			TAP_OK(is_written(&w, folio));
			TAP_EQ(mf_diet_restore(w.map, folio), 0);
		}
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

/* ---- The direct map ---------------------------------------------------------------------------------------------- */

/* In every part of the frame. */
static bool is_protected(struct world *w, mf_pfn_t pfn)
{
	char *frame = mf_machine_frame(w->sim, pfn);

	for (size_t at = 0; at < 4096; at += 1024)
		if (!faults(w, frame + at, MF_SIM_FAULT_DIRECT))
			return false;
	return true;
}

static mf_pfn_t uniform_table(const struct world *w, struct mf_folio *folio)
{
	struct mf_entry entry = mf_pgtable_entry(&w->map->pgtable, (uintptr_t)diet_slot(w, folio, 512));

	TAP_EQ(entry.kind, MF_ENTRY_UNIFORM);
	return entry.pfn;
}

/* They are the zone's, and so read-only until its last region goes.  R-HVO-18, R-HVO-85 */
TAP_TEST(tail_frames_and_uniform_tables_are_read_only_in_the_direct_map)
{
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, MF_LAYOUT_HVO_7_1));
	folio = diet_folio(&w, 18);
	TAP_REQUIRE(folio);
	TAP_EQ(mf_diet_remap(w.map, folio), 0);
	TAP_REQUIRE(w.map->tails);
	TAP_EQ(uniform_table(&w, folio), w.map->tails->uniform);
	TAP_OK(is_protected(&w, w.map->tails->frame));
	TAP_OK(is_protected(&w, w.map->tails->uniform));
	TAP_EQ(mf_diet_restore(w.map, folio), 0);
	TAP_OK(is_protected(&w, w.map->tails->frame));
	TAP_OK(is_protected(&w, w.map->tails->uniform));
	diet_folio_free(&w, folio);
	TAP_OK(world_close(&w));
}

TAP_TEST(uniform_tables_of_one_folio_are_read_only_while_they_serve)
{
	static const enum mf_layout layouts[] = { MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18 };

	for (unsigned i = 0; i < 2; i++) {
		struct mf_folio *folio;
		mf_pfn_t table;
		struct world w;

		TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, layouts[i]));
		folio = diet_folio(&w, 18);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		table = uniform_table(&w, folio);
		TAP_OK(is_protected(&w, table));
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_OK(is_written(&w, mf_machine_frame(w.sim, table)));
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
