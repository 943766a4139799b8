/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_failure_diet.c - remap and restore with the n-th allocation failing, for every n until none is left, and with
 * RAM that ends after so many frames.
 *
 * What fails leaves the map as it was: digest, frames counted by the map and by the machine, control memory, and every
 * descriptor as readers see it; then the same call succeeds.
 */
#include "tests/failure/failure_diet.h"
#include "tests/lib/hog.h"
#include "tests/tap.h"

/* ---- A world with one folio ------------------------------------------------------------------------------------- */

static const struct kind {
	unsigned order;
	enum mf_map_flags flags;
} kinds[] = {
	{ 9, MF_MAP_SHARE_TABLES },
	{ 9, MF_MAP_PRIVATE_TABLES },
	{ 18, MF_MAP_SHARE_TABLES },
	{ 18, MF_MAP_PRIVATE_TABLES },
};

enum { NR_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

struct stage {
	struct world w;
	struct mf_folio *folio;
	struct diet_copy copy;
};

static bool stage_open(struct stage *s, const struct kind *kind, enum mf_layout layout)
{
	struct world_config config = {
		.nr_frames = G,
		.nr_ram_frames = kind->order == 18 ? NR_RAM_MAX : 4300,
		.flags = kind->flags,
	};

	if (!diet_open(&s->w, &config, layout))
		return false;
	s->folio = diet_folio(&s->w, kind->order);
	return s->folio && diet_copy_take(&s->copy, s->folio, kind->order, layout);
}

static void stage_close(struct stage *s)
{
	diet_copy_free(&s->copy);
	diet_folio_free(&s->w, s->folio);
	TAP_OK(world_close(&s->w));
}

static void check_unharmed(struct stage *s)
{
	TAP_OK(diet_copy_is_read(&s->w, &s->copy));
	TAP_OK(world_check(&s->w));
}

/* Of a large folio not every descriptor each time. */
static void check_unharmed_sometimes(struct stage *s, uint64_t nth)
{
	if (s->copy.order < 18 || nth % 10 == 1)
		check_unharmed(s);
	else
		TAP_OK(world_check(&s->w));
}

static void each_kind(void (*play)(const struct kind *kind, enum mf_layout layout, enum world_sort sort))
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_KINDS; j++)
			for (unsigned sort = 0; sort < WORLD_NR_SORTS; sort++) {
				play(&kinds[j], diet_layouts[i], (enum world_sort)sort);
				if (atomic_load(&tap_state.failed)) {
					TAP_NOTE("%s, order %u, %s tables, sort %u", mf_layout_name(diet_layouts[i]),
						 kinds[j].order, kinds[j].flags ? "private" : "shared", sort);
					return;
				}
			}
}

/* ---- One folio: the n-th allocation ----------------------------------------------------------------------------- */

/* A world of its own for each n: what was made once (a table of a split leaf, the zone's tails) is found again. */
static void play_remap(const struct kind *kind, enum mf_layout layout, enum world_sort sort)
{
	uint64_t n = 0, nr_calls;

	do {
		struct state before;
		struct stage s;
		int err;

		TAP_REQUIRE(stage_open(&s, kind, layout));
		before = state_of(&s.w);
		world_fail(&s.w, sort, ++n);
		err = mf_diet_remap(s.w.map, s.folio);
		nr_calls = world_fail_end(&s.w);
		TAP_EQ(err, nr_calls >= n ? -MF_ENOMEM : 0);
		TAP_EQ(mf_folio_is_on_diet(s.folio), !err);
		if (err) {
			check_state(&s.w, &before);
			check_unharmed(&s);
			TAP_EQ(mf_diet_remap(s.w.map, s.folio), 0);
			TAP_OK(mf_folio_is_on_diet(s.folio));
		}
		check_unharmed(&s);
		stage_close(&s);
	} while (nr_calls >= n && n < ATTEMPTS_MAX && !atomic_load(&tap_state.failed));
	TAP_OK(n < ATTEMPTS_MAX);
}

/* R-HVO-20, R-HVO-32, R-HVO-33, R-HVO-34, R-HVO-35, R-GEN-7, R-SCN-5 */
TAP_TEST(failure_of_remap)
{
	each_kind(play_remap);
}

/* Of thousands of allocations all at the ends, and some between. */
static uint64_t next_n(uint64_t n, uint64_t last)
{
	return n < 20 || n + 10 > last ? n + 1 : n + 113;
}

/*
 * In one world: after a failure the folio is on its diet as it was; what can be done without (a block for a larger
 * leaf) is no failure, and the folio goes on its diet anew.
 */
static void play_restore(const struct kind *kind, enum mf_layout layout, enum world_sort sort)
{
	uint64_t n = 0, nth = 0;
	bool is_done = false;
	struct stage s;

	/* No control memory is asked for: what fails of any sort is RAM. */
	if (sort == WORLD_ANY && kind->order == 18)
		return;
	TAP_REQUIRE(stage_open(&s, kind, layout));
	while (!is_done && !atomic_load(&tap_state.failed)) {
		struct state before;
		int err;

		TAP_EQ(mf_diet_remap(s.w.map, s.folio), 0);
		before = state_of(&s.w);
		n = next_n(n, diet_nr_slots(&s.w, kind->order));
		world_fail(&s.w, sort, n);
		err = mf_diet_restore(s.w.map, s.folio);
		is_done = world_fail_end(&s.w) < n;
		TAP_EQ(mf_folio_is_on_diet(s.folio), err != 0);
		if (err) {
			TAP_EQ(err, -MF_ENOMEM);
			TAP_OK(!is_done);
			check_state(&s.w, &before);
		}
		check_unharmed_sometimes(&s, ++nth);
	}
	check_unharmed(&s);
	/* Where nothing stands in for a single frame. */
	if (sort != WORLD_META && (kind->order == 9 || kind->flags == MF_MAP_PRIVATE_TABLES))
		TAP_EQ(n, diet_nr_slots(&s.w, kind->order) - mf_layout_diet(layout)->nr_kept + 1);
	TAP_OK(!mf_folio_is_on_diet(s.folio));
	stage_close(&s);
}

/* R-HVO-43, R-GEN-7, R-SCN-5 */
TAP_TEST(failure_of_restore)
{
	each_kind(play_restore);
}

/* ---- One folio: RAM ends --------------------------------------------------------------------------------------- */

static struct hog hog;

/*
 * Frames that a restore needs when there is no block of them: one for each aliased slot, and a table for each uniform
 * one.
 */
static uint64_t restore_needs(struct world *w, const struct kind *kind, enum mf_layout layout)
{
	uint64_t nr = diet_nr_slots(w, kind->order), tables = kind->order == 18 && !kind->flags ? 7 : 0;

	return nr - mf_layout_diet(layout)->nr_kept + tables;
}

/* With so many frames left, and no block among them, it fails; with one more it does not. */
static void check_restore_with(struct stage *s, const struct kind *kind, enum mf_layout layout, uint64_t nr_left)
{
	uint64_t needed = restore_needs(&s->w, kind, layout);
	struct state before;
	int err;

	TAP_EQ(mf_diet_remap(s->w.map, s->folio), 0);
	hog_all(&hog, s->w.machine);
	TAP_EQ(hog_put(&hog, nr_left), nr_left);
	before = state_of(&s->w);
	err = mf_diet_restore(s->w.map, s->folio);
	TAP_EQ(err, nr_left < needed ? -MF_ENOMEM : 0);
	if (err)
		check_state(&s->w, &before);
	check_unharmed(s);
	hog_end(&hog);
	TAP_EQ(mf_diet_restore(s->w.map, s->folio), 0);
	check_unharmed(s);
}

/* R-HVO-43, R-GEN-7, R-SCN-5 */
TAP_TEST(failure_of_restore_when_ram_ends)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_KINDS; j++) {
			uint64_t needed;
			struct stage s;

			TAP_REQUIRE(stage_open(&s, &kinds[j], diet_layouts[i]));
			needed = restore_needs(&s.w, &kinds[j], diet_layouts[i]);
			const uint64_t left[] = { 0, 1, 64, 600, needed - 1, needed };
			for (unsigned k = 0; k < sizeof(left) / sizeof(left[0]); k++)
				if (left[k] <= needed)
					check_restore_with(&s, &kinds[j], diet_layouts[i], left[k]);
			stage_close(&s);
			if (atomic_load(&tap_state.failed)) {
				TAP_NOTE("%s, order %u, %s tables", mf_layout_name(diet_layouts[i]), kinds[j].order,
					 kinds[j].flags ? "private" : "shared");
				return;
			}
		}
}

/*
 * Blocks for some of the larger leaves, and too little for the rest: leaves that were made again become uniform tables
 * again.  With a block for each but the first, whose slots are then restored singly, it works.  R-HVO-43, R-SCN-5
 */
static void check_restore_with_blocks(struct stage *s, unsigned nr_blocks, uint64_t nr_left, int expected)
{
	struct state before;

	TAP_EQ(mf_diet_remap(s->w.map, s->folio), 0);
	hog_all(&hog, s->w.machine);
	for (unsigned i = 0; i < nr_blocks; i++)
		TAP_OK(hog_put_block(&hog));
	TAP_EQ(hog_put(&hog, nr_left), nr_left);
	before = state_of(&s->w);
	TAP_EQ(mf_diet_restore(s->w.map, s->folio), expected);
	if (expected)
		check_state(&s->w, &before);
	check_unharmed(s);
	hog_end(&hog);
	TAP_EQ(mf_diet_restore(s->w.map, s->folio), 0);
	check_unharmed(s);
}

TAP_TEST(failure_of_restore_when_blocks_end)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		static const struct kind kind = { 18, MF_MAP_SHARE_TABLES };
		struct stage s;

		TAP_REQUIRE(stage_open(&s, &kind, diet_layouts[i]));
		check_restore_with_blocks(&s, 1, 0, -MF_ENOMEM);
		check_restore_with_blocks(&s, 1, 300, -MF_ENOMEM);
		check_restore_with_blocks(&s, 3, 700, -MF_ENOMEM);
		check_restore_with_blocks(&s, 7, 500, -MF_ENOMEM);
		check_restore_with_blocks(&s, 7, 511, 0);
		stage_close(&s);
	}
}

/* ---- Regions ----------------------------------------------------------------------------------------------------- */

/* The zone was made before: it stays with the map. */
static void play_add(enum mf_layout layout, enum mf_source source)
{
	struct mf_region_config region = {
		.start_pfn = 1000,
		.end_pfn = 1000 + 20000,
		.layout = layout,
		.source = source,
		.nr_altmap = source == MF_SOURCE_ALTMAP ? 1000 : 0,
	};
	struct state before;
	struct world w;
	uint64_t n = 0;
	int err;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = G, .nr_ram_frames = 1200 }));
	TAP_EQ(world_add_region(&w, &region, NULL), 0);
	TAP_EQ(mf_region_remove(w.map, 0), 0);
	before = state_of(&w);
	do {
		world_fail(&w, WORLD_ANY, ++n);
		err = world_add_region(&w, &region, NULL);
		world_fail_end(&w);
		if (err) {
			TAP_EQ(err, -MF_ENOMEM);
			check_state(&w, &before);
			TAP_OK(world_check(&w));
		}
	} while (err && n < 2000);
	TAP_OK(err == 0 && n > 10);
	TAP_OK(world_close(&w));
}

/* R-MEM-30, R-SCN-5 */
TAP_TEST(failure_of_adding_a_classic_region)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		play_add(diet_layouts[i], MF_SOURCE_RAM);
		play_add(diet_layouts[i], MF_SOURCE_SELF);
		play_add(diet_layouts[i], MF_SOURCE_ALTMAP);
	}
}

TAP_MAIN()
