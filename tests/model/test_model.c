/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_model.c - random operations against a naive oracle (tests/lib/operations.h), on page tables (sim, or the bare
 * metal this runs on) and on linux.
 *
 * Regions of all layouts lie side by side and come and go; folios of the classic ones go on their diet and off it.
 * What each operation touched is compared after it; every 1000 steps the laws and every frame, from above and from
 * below.  At the end everything is freed and folded, and the map must cost what a fresh one of the same regions costs.
 *
 *   MF_SEED=n    replays a run
 *   MF_STEPS=n   so many steps (a run of another length is the same run, cut or continued)
 *   MF_SOAK=1    fifty times longer, another seed each time
 */
#include "tests/lib/operations.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* So is an emulated processor. */
#define IS_SLOW (SANITIZED || !__STDC_HOSTED__)

enum { STEPS = IS_SLOW ? 50000 : 500000, LAWS_EVERY = 1000, MOOD_EVERY = 4096 };
/* Of folds and unfolds together, in a run of STEPS. */
enum { TRANSITIONS_MIN = IS_SLOW ? 500 : 5000 };
/* Of remaps of folios. */
enum { REMAPS_MIN = IS_SLOW ? 200 : 2000 };

struct model {
	struct world world;
	struct operations ops;
	struct random_choices random;
	uint64_t seed, steps;
	unsigned nr_biases;                   /* of operations.order_bias, 0: 3                                  */
	uint64_t frames_max;                  /* in regions at most; 0: three of four                             */
	bool favours_diets;                   /* small worlds and short runs have enough of them so               */
	uint64_t transitions_min, remaps_min; /* for runs of the usual length                                    */
	struct hog *hog;                      /* RAM comes and goes, or NULL                                     */
	uint64_t most_kept, most_hosted;      /* folios and blocks, seen with the laws                            */
	uint64_t *digests;                    /* one for every LAWS_EVERY steps, or NULL                          */
};

/* ---- Settings -------------------------------------------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static bool is_soak(void)
{
	return setting("MF_SOAK", 0) != 0;
}

/* Whoever chooses the seed or the length need not meet everything that the usual run meets. */
static bool is_usual(void)
{
	return !getenv("MF_STEPS") && !getenv("MF_SEED");
}

static uint64_t seed_of_run(uint64_t fixed)
{
	return setting("MF_SEED", is_soak() ? (uint64_t)time(NULL) * 1000003 + fixed : fixed);
}

static uint64_t steps_of_run(uint64_t normal)
{
	return setting("MF_STEPS", normal * (is_soak() ? 50 : 1));
}

/* ---- A run ----------------------------------------------------------------------------------------------------- */

static void comment(const char *text)
{
	TAP_NOTE("%s", text);
}

/* A panic ends the program: say what led to it. */
static void print_and_abort(void *ctx, const char *sentence)
{
	const struct model *model = ctx;

	TAP_NOTE("seed %" PRIu64 ": panic: %s", model->seed, sentence);
	operations_print(&model->ops, comment);
	abort();
}

static void tell_failure(const struct model *model)
{
	TAP_NOTE("seed %" PRIu64 ", step %" PRIu64 ": %s", model->seed, model->ops.nr_steps, model->ops.oracle.text);
	operations_print(&model->ops, comment);
}

static bool add_regions(struct operations *ops, const struct mf_region_config *regions, unsigned nr)
{
	bool good = true;

	for (unsigned i = 0; i < nr && good; i++)
		good = operations_add_region(ops, &regions[i]);
	return good;
}

static void favour_diets(struct operations *ops)
{
	ops->weight[OP_REMAP] = 120;
	ops->weight[OP_REMAP_LIST] = 40;
	ops->weight[OP_FOLD] = 8;
}

static bool model_open(struct model *model, const struct world_config *config, const struct mf_region_config *regions,
		       unsigned nr)
{
	if (!world_open(&model->world, config))
		return false;
	random_choices_init(&model->random, model->seed);
	if (!operations_init(&model->ops, model->world.map, model->world.machine, &model->random.choices))
		return false;
	if (model->favours_diets)
		favour_diets(&model->ops);
	if (model->hog)
		operations_set_hog(&model->ops, model->hog);
	mf_panic_hook_set(print_and_abort, model);
	model->ops.frames_max = model->frames_max ? model->frames_max : config->nr_frames - config->nr_frames / 4;
	return add_regions(&model->ops, regions, nr);
}

/* Now and then mostly allocations, or mostly frees, of mostly one order: memory runs out, and is whole again. */
static void change_mood(struct model *model)
{
	struct operations *ops = &model->ops;
	static const unsigned alloc[4] = { 340, 900, 500, 100 }, free_[4] = { 250, 50, 100, 700 };
	static const unsigned sweep[4] = { 5, 0, 1, 20 };
	uint64_t mood = choose(ops, 4);

	ops->weight[OP_ALLOC] = alloc[mood];
	ops->weight[OP_PUT] = free_[mood];
	ops->weight[OP_SWEEP] = sweep[mood];
	ops->order_bias = (unsigned)choose(ops, model->nr_biases ? model->nr_biases : 3);
}

static void look_at_kept(struct model *model)
{
	struct mf_map_stats stats;

	mf_map_stats(model->world.map, &stats);
	model->most_kept = mf_max(model->most_kept, stats.nr_kept);
	model->most_hosted = mf_max(model->most_hosted, stats.nr_hosted);
}

static bool check_laws(struct model *model)
{
	look_at_kept(model);
	if (!oracle_check_all(&model->ops.oracle)) {
		tell_failure(model);
		return false;
	}
	if (!world_check(&model->world)) {
		oracle_fail(&model->ops.oracle, "a law is broken");
		tell_failure(model);
		return false;
	}
	if (model->digests)
		model->digests[model->ops.nr_steps / LAWS_EVERY - 1] = mf_map_digest(model->world.map);
	return true;
}

static bool model_run(struct model *model)
{
	struct operations *ops = &model->ops;

	while (ops->nr_steps < model->steps) {
		if (ops->nr_steps % MOOD_EVERY == 0)
			change_mood(model);
		if (!operations_step(ops)) {
			tell_failure(model);
			return false;
		}
		if (ops->nr_steps % LAWS_EVERY == 0 && !check_laws(model))
			return false;
	}
	return true;
}

static void tell_counts(const struct model *model, const struct mf_map_stats *stats)
{
	TAP_NOTE("seed %" PRIu64 " on %s: %" PRIu64 " steps; unfolds %" PRIu64 " + %" PRIu64 ", folds %" PRIu64
		 " + %" PRIu64 ", tables moved %" PRIu64 "; %" PRIu64 " frames, %" PRIu64 " used by %u folios",
		 model->seed, model->world.name, model->ops.nr_steps, stats->unfolds[1], stats->unfolds[2],
		 stats->folds[1], stats->folds[2], stats->tables_moved, stats->nr_described, stats->nr_used,
		 model->ops.oracle.nr_live);
	TAP_NOTE("  remaps %" PRIu64 ", restores %" PRIu64 "; freed on a diet %" PRIu64 ", of them restored %" PRIu64
		 ", most at once kept %" PRIu64 ", hosting themselves %" PRIu64 "; on a diet now %" PRIu64,
		 model->ops.nr_remapped, model->ops.nr_restored, model->ops.nr_kept, model->ops.oracle.nr_kept_ended,
		 model->most_kept, model->most_hosted, stats->nr_dieted);
	for (unsigned i = 0; i < NR_OPERATIONS; i++)
		TAP_NOTE("  %14s %8" PRIu64 " done %8" PRIu64 " refused", operation_name[i], model->ops.nr_done[i],
			 model->ops.nr_refused[i]);
}

/* ---- The end --------------------------------------------------------------------------------------------------- */

/* The frames that zones have for tails come with the first folio that goes on its diet, and stay. */
static bool same_cost(const struct mf_map_stats *now, const struct mf_map_stats *first, const struct oracle *o)
{
	uint64_t nr_tails = o->nr_tails, nr_tables = 0;

	for (unsigned i = 0; i < o->nr_tails; i++)
		nr_tables += o->tails[i].has_table;
	return now->nr_described == first->nr_described && now->nr_slots == first->nr_slots + nr_tails &&
	       now->nr_tables == first->nr_tables + nr_tables &&
	       now->nr_ram == first->nr_ram + (o->on_tables ? nr_tails + nr_tables : 0) &&
	       now->nr_free == first->nr_free && now->nr_used == first->nr_used && now->nr_map == first->nr_map &&
	       now->nr_device == first->nr_device &&
	       now->nr_hole == first->nr_hole && now->nr_split[1] == first->nr_split[1] &&
	       now->nr_split[2] == first->nr_split[2] && now->nr_set_aside == first->nr_set_aside &&
	       now->nr_dieted == first->nr_dieted && now->nr_kept == 0 && now->nr_hosted == 0;
}

static void tell_cost(const struct mf_map_stats *s)
{
	TAP_NOTE("slots %" PRIu64 ", tables %" PRIu64 ", RAM %" PRIu64 ", free %" PRIu64 ", map %" PRIu64
		 ", split %" PRIu64 " + %" PRIu64 ", set aside %" PRIu64 ", on a diet %" PRIu64 ", hosted %" PRIu64,
		 s->nr_slots, s->nr_tables, s->nr_ram, s->nr_free, s->nr_map, s->nr_split[1], s->nr_split[2],
		 s->nr_set_aside, s->nr_dieted, s->nr_hosted);
}

/* With no user left, folding everything returns records and tables to what they were at first (law M4). */
static void check_as_fresh(struct model *model, const struct world_config *config)
{
	struct world fresh;
	struct mf_map_stats now, first;
	bool as_fresh;

	TAP_REQUIRE(world_open(&fresh, config));
	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++)
		if (model->ops.oracle.region[i].present)
			TAP_EQ(world_add_region(&fresh, &model->ops.oracle.region[i].config, NULL), 0);
	mf_map_stats(model->world.map, &now);
	mf_map_stats(fresh.map, &first);
	as_fresh = same_cost(&now, &first, &model->ops.oracle);
	if (!as_fresh) {
		tell_cost(&now);
		tell_cost(&first);
		TAP_NOTE("%u zones' frames of tails", model->ops.oracle.nr_tails);
	}
	TAP_OK(as_fresh);
	TAP_OK(world_close(&fresh));
}

/* The map of these lies in frames of their own, which a diet exchanges for RAM and never back. */
static bool is_on_own_frames(const struct oracle *o, const struct mf_region_config *c)
{
	return o->on_tables && oracle_is_remapped(c->layout) && c->source != MF_SOURCE_RAM;
}

/* Regions of the classic layouts leave nothing behind: those first that do not cost what they did, then all. */
static void check_without_classic(struct model *model, const struct world_config *config)
{
	struct oracle *o = &model->ops.oracle;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
			const struct mf_region_config *c = &o->region[i].config;

			if (!o->region[i].present || !oracle_is_remapped(c->layout) ||
			    (pass == 0 && !is_on_own_frames(o, c)))
				continue;
			TAP_EQ(mf_region_remove(model->world.map, i), 0);
			oracle_region_removed(o, i);
		}
		check_as_fresh(model, config);
	}
}

static void model_end(struct model *model, const struct world_config *config)
{
	bool all_freed = operations_free_all(&model->ops);

	TAP_OK(all_freed);
	if (!all_freed)
		tell_failure(model);
	TAP_OK(world_check(&model->world));
	check_without_classic(model, config);
	TAP_OK(world_close(&model->world));
	operations_exit(&model->ops);
	mf_panic_hook_set(NULL, NULL);
}

static void run_model(struct model *model, const struct world_config *config, const struct mf_region_config *regions,
		      unsigned nr)
{
	struct mf_map_stats stats;
	uint64_t transitions;

	TAP_REQUIRE(model_open(model, config, regions, nr));
	TAP_NOTE("MF_SEED=%" PRIu64 " MF_STEPS=%" PRIu64 " on %s", model->seed, model->steps, model->world.name);
	TAP_REQUIRE(model_run(model));
	mf_map_stats(model->world.map, &stats);
	tell_counts(model, &stats);
	transitions = stats.unfolds[1] + stats.unfolds[2] + stats.folds[1] + stats.folds[2];
	if (is_usual()) {
		TAP_OK(transitions >= model->transitions_min);
		TAP_OK(model->ops.nr_remapped >= model->remaps_min);
	}
	model_end(model, config);
}

/* ---- The worlds: 4 KiB frames, up to 4.5 GiB described in a span of 8 ------------------------------------------ */

#define GIB WORLD_GIB_FRAMES
#define NR(array) (sizeof(array) / sizeof((array)[0]))

/* Odd borders, three nodes, all layouts, all sources, both top tiers. */
static const struct mf_region_config base_regions[] = {
	{ .start_pfn = 150001, .end_pfn = 2 * GIB + 333, .node = 0, .source = MF_SOURCE_SELF },
	{ .start_pfn = 2 * GIB + 333, .end_pfn = 2 * GIB + 60000, .node = 1, .source = MF_SOURCE_RAM, .top = 1 },
	{ .start_pfn = 3 * GIB, .end_pfn = 4 * GIB + 5 * 512, .node = 1, .source = MF_SOURCE_RAM },
	{ .start_pfn = 4 * GIB + 200000, .end_pfn = 4 * GIB + 230007, .node = 2, .layout = MF_LAYOUT_FLAT,
	  .source = MF_SOURCE_RAM },
	{ .start_pfn = 6 * GIB, .end_pfn = 6 * GIB + 65536, .node = 2, .layout = MF_LAYOUT_HVO_7_1,
	  .source = MF_SOURCE_RAM },
	{ .start_pfn = 6 * GIB + 66077, .end_pfn = 6 * GIB + 116000, .node = 0, .layout = MF_LAYOUT_HVO_5_18,
	  .source = MF_SOURCE_RAM },
	{ .start_pfn = 6 * GIB + 120000, .end_pfn = 6 * GIB + 150001, .node = 1, .layout = MF_LAYOUT_HVO_5_14,
	  .source = MF_SOURCE_ALTMAP, .nr_altmap = 600 },
	{ .start_pfn = 6 * GIB + 300 * 512, .end_pfn = 6 * GIB + 340 * 512, .node = 2, .layout = MF_LAYOUT_DEVDAX,
	  .source = MF_SOURCE_RAM, .unit_order = 9 },
};

static void run_base(const char *machine, uint64_t seed)
{
	static struct model model;
	struct world_config config = { .machine = machine, .nr_frames = 8 * GIB };

	model = (struct model){ .seed = seed_of_run(seed), .steps = steps_of_run(STEPS), .frames_max = 9 * GIB / 2,
				.transitions_min = TRANSITIONS_MIN, .remaps_min = REMAPS_MIN };
	run_model(&model, &config, base_regions, NR(base_regions));
}

/* R-GEN-2, R-GEN-7, R-HVO-11, R-HVO-12, R-HVO-13, R-HVO-14 */
TAP_TEST(model_on_tables)
{
	run_base(NULL, 20260001);
}

/* R-GEN-2, R-HVO-11, R-HVO-12, R-HVO-13, R-HVO-14 */
TAP_TEST(model_on_linux)
{
	if (!world_has("linux"))
		TAP_SKIP("there is no host here");
	run_base("linux", 20260002);
}

/* RAM runs out and comes back: freed folios are kept, or host their own slots.  R-GEN-7, R-HVO-48 */
TAP_TEST(model_while_ram_comes_and_goes)
{
	static const struct mf_region_config regions[] = {
		{ .start_pfn = 300, .end_pfn = 70000, .node = 0, .source = MF_SOURCE_RAM },
		{ .start_pfn = 70000, .end_pfn = 110000, .node = 1, .source = MF_SOURCE_SELF },
		{ .start_pfn = 120000, .end_pfn = 150000, .node = 0, .layout = MF_LAYOUT_HVO_7_1,
		  .source = MF_SOURCE_RAM, .flags = MF_REGION_RESTORE_FROM_SELF },
		{ .start_pfn = 150000, .end_pfn = 180000, .node = 1, .layout = MF_LAYOUT_HVO_5_18,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 200000, .end_pfn = 230001, .node = 2, .layout = MF_LAYOUT_HVO_5_14,
		  .source = MF_SOURCE_SELF, .flags = MF_REGION_DIET_FLAGS },
	};
	static struct model model;
	static struct hog hog;
	struct world_config config = { .nr_frames = GIB, .nr_ram_frames = 5000 };

	model = (struct model){ .seed = seed_of_run(20260003), .steps = steps_of_run(STEPS / (IS_SLOW ? 2 : 10)),
				.favours_diets = true, .hog = &hog,
				.transitions_min = TRANSITIONS_MIN / 50, .remaps_min = REMAPS_MIN / 10 };
	run_model(&model, &config, regions, NR(regions));
	if (is_usual()) {
		TAP_OK(model.most_kept > 0);
		TAP_OK(model.most_hosted > 0);
	}
}

/* Folios of 1 GiB: thousands of map slots, tables full of aliases.  R-GEN-2 */
TAP_TEST(model_with_huge_folios)
{
	static const struct mf_region_config regions[] = {
		{ .start_pfn = 0, .end_pfn = GIB + 5000, .node = 0, .source = MF_SOURCE_SELF },
		{ .start_pfn = 2 * GIB, .end_pfn = 3 * GIB, .node = 1, .layout = MF_LAYOUT_HVO_7_1,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 3 * GIB, .end_pfn = 4 * GIB + 777, .node = 2, .layout = MF_LAYOUT_HVO_5_18,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 5 * GIB, .end_pfn = 6 * GIB, .node = 2, .layout = MF_LAYOUT_HVO_5_14,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 6 * GIB, .end_pfn = 7 * GIB, .node = 2, .layout = MF_LAYOUT_DEVDAX,
		  .source = MF_SOURCE_RAM, .unit_order = 18 },
	};
	static struct model model;
	struct world_config config = { .nr_frames = 8 * GIB };

	model = (struct model){ .seed = seed_of_run(18), .steps = steps_of_run(STEPS / 50), .nr_biases = 4,
				.transitions_min = 1, .remaps_min = 1 };
	run_model(&model, &config, regions, NR(regions));
}

/* 16 KiB frames: blocks of 32 MiB and 64 GiB. */
TAP_TEST(model_with_16k_frames)
{
	static const struct mf_region_config regions[] = {
		{ .start_pfn = 5000, .end_pfn = 40000, .node = 0, .source = MF_SOURCE_SELF },
		{ .start_pfn = (mf_pfn_t)1 << 22, .end_pfn = (mf_pfn_t)2 << 22, .node = 1, .source = MF_SOURCE_SELF },
		{ .start_pfn = 50000, .end_pfn = 90001, .node = 0, .source = MF_SOURCE_RAM, .top = 1 },
		{ .start_pfn = 100000, .end_pfn = 140000, .node = 2, .layout = MF_LAYOUT_HVO_7_1,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 150000, .end_pfn = 190001, .node = 2, .layout = MF_LAYOUT_HVO_5_18,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 98 * 2048, .end_pfn = 110 * 2048, .node = 2, .layout = MF_LAYOUT_DEVDAX,
		  .source = MF_SOURCE_RAM, .unit_order = 11 },
	};
	static struct model model;
	struct world_config config = { .machine = "sim-arm64-16k", .nr_frames = (mf_pfn_t)2 << 22 };

	if (!world_has(config.machine))
		TAP_SKIP("no such frames here");
	model = (struct model){ .seed = seed_of_run(16), .steps = steps_of_run(STEPS / 100),
				.favours_diets = true, .transitions_min = TRANSITIONS_MIN / 500, .remaps_min = 1 };
	run_model(&model, &config, regions, NR(regions));
}

/* 64 KiB frames: blocks of 512 MiB; the next tier's would be 4 TiB. */
TAP_TEST(model_with_64k_frames)
{
	static const struct mf_region_config regions[] = {
		{ .start_pfn = 5000, .end_pfn = 60000, .node = 0, .source = MF_SOURCE_SELF },
		{ .start_pfn = 1u << 16, .end_pfn = 100001, .node = 1, .source = MF_SOURCE_RAM },
		{ .start_pfn = 1u << 17, .end_pfn = (1u << 17) + 50000, .node = 2, .layout = MF_LAYOUT_HVO_7_1,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 3u << 16, .end_pfn = (3u << 16) + 20001, .node = 1, .layout = MF_LAYOUT_HVO_5_14,
		  .source = MF_SOURCE_RAM },
		{ .start_pfn = 27 * 8192, .end_pfn = 30 * 8192, .node = 2, .layout = MF_LAYOUT_DEVDAX,
		  .source = MF_SOURCE_RAM, .unit_order = 13 },
	};
	static struct model model;
	struct world_config config = { .machine = "sim-arm64-64k", .nr_frames = 1u << 18, .top = 1 };

	if (!world_has(config.machine))
		TAP_SKIP("no such frames here");
	model = (struct model){ .seed = seed_of_run(64), .steps = steps_of_run(STEPS / 10),
				.favours_diets = true, .transitions_min = TRANSITIONS_MIN / 500,
				.remaps_min = REMAPS_MIN / 100 };
	run_model(&model, &config, regions, NR(regions));
}

/* The same seed gives the same map at every thousandth step. */
TAP_TEST(model_is_deterministic)
{
	enum { NR_DIGESTS = 10 };
	static uint64_t digests[2][NR_DIGESTS];
	static struct model model;
	struct world_config config = { .nr_frames = 8 * GIB };
	uint64_t seed = seed_of_run(7);

	for (unsigned i = 0; i < 2; i++) {
		model = (struct model){ .seed = seed, .steps = NR_DIGESTS * LAWS_EVERY, .digests = digests[i] };
		run_model(&model, &config, base_regions, NR(base_regions));
	}
	for (unsigned i = 0; i < NR_DIGESTS; i++)
		TAP_EQ(digests[0][i], digests[1][i]);
	TAP_OK(digests[0][0] != digests[0][NR_DIGESTS - 1]);
}

TAP_MAIN()
