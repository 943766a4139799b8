/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_model.c - random operations against a naive oracle (tests/lib/operations.h), on sim and on linux.
 *
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
#include <memfold/sim.h>
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

enum { STEPS = SANITIZED ? 50000 : 500000, LAWS_EVERY = 1000, MOOD_EVERY = 4096 };
/* Of folds and unfolds together, in a run of STEPS. */
enum { TRANSITIONS_MIN = SANITIZED ? 500 : 5000 };

struct model {
	struct world world;
	struct operations ops;
	struct random_choices random;
	uint64_t seed, steps, digest;
	uint64_t *digests; /* one for every LAWS_EVERY steps, or NULL                                          */
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

/* Odd borders, two nodes and more, both layouts, both sources, both top tiers; in units of a block of tier 1. */
static bool add_regions(struct operations *ops, const struct mf_region_config *regions, unsigned nr)
{
	bool good = true;

	for (unsigned i = 0; i < nr && good; i++)
		good = operations_add_region(ops, &regions[i]);
	return good;
}

static bool model_open(struct model *model, const struct world_config *config, const struct mf_region_config *regions,
		       unsigned nr)
{
	if (!world_open(&model->world, config))
		return false;
	random_choices_init(&model->random, model->seed);
	if (!operations_init(&model->ops, model->world.map, model->world.machine, &model->random.choices))
		return false;
	mf_panic_hook_set(print_and_abort, model);
	model->ops.frames_max = config->nr_frames - config->nr_frames / 4;
	return add_regions(&model->ops, regions, nr);
}

/* Now and then mostly allocations, or mostly frees, of mostly one order: memory runs out, and is whole again. */
static void change_mood(struct operations *ops)
{
	static const unsigned alloc[4] = { 340, 900, 500, 100 }, free_[4] = { 250, 50, 100, 700 }, sweep[4] = { 5, 0, 1, 20 };
	uint64_t mood = choose(ops, 4);

	ops->weight[OP_ALLOC] = alloc[mood];
	ops->weight[OP_PUT] = free_[mood];
	ops->weight[OP_SWEEP] = sweep[mood];
	ops->order_bias = (unsigned)choose(ops, 3);
}

static bool check_laws(struct model *model)
{
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
			change_mood(ops);
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
	TAP_NOTE("seed %" PRIu64 " on %s: %" PRIu64 " steps; unfolds %" PRIu64 " + %" PRIu64 ", folds %" PRIu64 " + %" PRIu64
		 ", tables moved %" PRIu64 "; %" PRIu64 " frames, %" PRIu64 " used by %u folios",
		 model->seed, model->world.name, model->ops.nr_steps, stats->unfolds[1], stats->unfolds[2],
		 stats->folds[1], stats->folds[2], stats->tables_moved, stats->nr_described, stats->nr_used,
		 model->ops.oracle.nr_live);
	for (unsigned i = 0; i < NR_OPERATIONS; i++)
		TAP_NOTE("  %-14s %8" PRIu64 " done %8" PRIu64 " refused", operation_name[i], model->ops.nr_done[i],
			 model->ops.nr_refused[i]);
}

/* ---- The end --------------------------------------------------------------------------------------------------- */

static bool same_cost(const struct mf_map_stats *a, const struct mf_map_stats *b)
{
	bool same = a->nr_described == b->nr_described && a->nr_slots == b->nr_slots && a->nr_tables == b->nr_tables &&
		    a->nr_ram == b->nr_ram && a->nr_free == b->nr_free && a->nr_used == b->nr_used &&
		    a->nr_map == b->nr_map && a->nr_hole == b->nr_hole && a->nr_split[1] == b->nr_split[1] &&
		    a->nr_split[2] == b->nr_split[2] && a->nr_set_aside == b->nr_set_aside;

	if (!same)
		TAP_NOTE("slots %" PRIu64 ", tables %" PRIu64 ", RAM %" PRIu64 ", free %" PRIu64 ", map %" PRIu64
			 ", split %" PRIu64 " + %" PRIu64 ", set aside %" PRIu64,
			 a->nr_slots, a->nr_tables, a->nr_ram, a->nr_free, a->nr_map, a->nr_split[1], a->nr_split[2],
			 a->nr_set_aside);
	return same;
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
	as_fresh = same_cost(&now, &first);
	if (!as_fresh)
		same_cost(&first, &now);
	TAP_OK(as_fresh);
	TAP_OK(world_close(&fresh));
}

static void model_end(struct model *model, const struct world_config *config)
{
	bool all_freed = operations_free_all(&model->ops);

	TAP_OK(all_freed);
	if (!all_freed)
		tell_failure(model);
	TAP_OK(world_check(&model->world));
	check_as_fresh(model, config);
	TAP_OK(world_close(&model->world));
	operations_exit(&model->ops);
	mf_panic_hook_set(NULL, NULL);
}

static void run_model(struct model *model, const struct world_config *config, const struct mf_region_config *regions,
		      unsigned nr, uint64_t transitions_min)
{
	struct mf_map_stats stats;
	uint64_t transitions;

	TAP_REQUIRE(model_open(model, config, regions, nr));
	TAP_NOTE("MF_SEED=%" PRIu64 " MF_STEPS=%" PRIu64 " on %s", model->seed, model->steps, model->world.name);
	TAP_REQUIRE(model_run(model));
	mf_map_stats(model->world.map, &stats);
	tell_counts(model, &stats);
	transitions = stats.unfolds[1] + stats.unfolds[2] + stats.folds[1] + stats.folds[2];
	if (!getenv("MF_STEPS"))
		TAP_OK(transitions >= transitions_min);
	model_end(model, config);
}

/* ---- The worlds: 4 KiB frames, up to 6 GiB described in a span of 8 -------------------------------------------- */

#define GIB WORLD_GIB_FRAMES

static const struct mf_region_config base_regions[] = {
	{ .start_pfn = 1000, .end_pfn = 2 * GIB + 333, .node = 0, .source = MF_SOURCE_SELF },
	{ .start_pfn = 2 * GIB + 333, .end_pfn = 2 * GIB + 60000, .node = 1, .source = MF_SOURCE_RAM, .top = 1 },
	{ .start_pfn = 3 * GIB, .end_pfn = 4 * GIB + 5 * 512, .node = 1, .source = MF_SOURCE_RAM },
	{ .start_pfn = 4 * GIB + 200000, .end_pfn = 4 * GIB + 230007, .node = 2, .layout = MF_LAYOUT_FLAT,
	  .source = MF_SOURCE_RAM },
};

enum { NR_BASE_REGIONS = sizeof(base_regions) / sizeof(base_regions[0]) };

static void run_base(const char *machine, uint64_t seed)
{
	static struct model model;
	struct world_config config = { .machine = machine, .nr_frames = 8 * GIB };

	model = (struct model){ .seed = seed_of_run(seed), .steps = steps_of_run(STEPS) };
	run_model(&model, &config, base_regions, NR_BASE_REGIONS, TRANSITIONS_MIN);
}

TAP_TEST(model_on_sim)
{
	run_base("sim", 20260001);
}

TAP_TEST(model_on_linux)
{
	run_base("linux", 20260002);
}

/* 16 KiB frames: blocks of 32 MiB and 64 GiB. */
TAP_TEST(model_on_sim_with_16k_frames)
{
	static const struct mf_region_config regions[] = {
		{ .start_pfn = 5000, .end_pfn = 40000, .node = 0, .source = MF_SOURCE_SELF },
		{ .start_pfn = (mf_pfn_t)1 << 22, .end_pfn = (mf_pfn_t)2 << 22, .node = 1, .source = MF_SOURCE_SELF },
		{ .start_pfn = 50000, .end_pfn = 90001, .node = 2, .source = MF_SOURCE_RAM, .top = 1 },
	};
	static struct model model;
	struct world_config config = { .machine = "sim-arm64-16k", .nr_frames = (mf_pfn_t)2 << 22 };

	model = (struct model){ .seed = seed_of_run(16), .steps = steps_of_run(STEPS / 100) };
	run_model(&model, &config, regions, 3, TRANSITIONS_MIN / 500);
}

/* 64 KiB frames: blocks of 512 MiB; the next tier's would be 4 TiB. */
TAP_TEST(model_on_sim_with_64k_frames)
{
	static const struct mf_region_config regions[] = {
		{ .start_pfn = 5000, .end_pfn = 60000, .node = 0, .source = MF_SOURCE_SELF },
		{ .start_pfn = 1u << 16, .end_pfn = 100001, .node = 1, .source = MF_SOURCE_RAM },
	};
	static struct model model;
	struct world_config config = { .machine = "sim-arm64-64k", .nr_frames = 1u << 17, .top = 1 };

	model = (struct model){ .seed = seed_of_run(64), .steps = steps_of_run(STEPS / 10) };
	run_model(&model, &config, regions, 2, TRANSITIONS_MIN / 500);
}

/* The same seed gives the same map at every thousandth step. */
TAP_TEST(model_on_sim_is_deterministic)
{
	enum { NR = 10 };
	static uint64_t digests[2][NR];
	static struct model model;
	struct world_config config = { .machine = "sim", .nr_frames = 8 * GIB };
	uint64_t seed = seed_of_run(7);

	for (unsigned i = 0; i < 2; i++) {
		model = (struct model){ .seed = seed, .steps = NR * LAWS_EVERY, .digests = digests[i] };
		run_model(&model, &config, base_regions, NR_BASE_REGIONS, 1);
	}
	for (unsigned i = 0; i < NR; i++)
		TAP_EQ(digests[0][i], digests[1][i]);
	TAP_OK(digests[0][0] != digests[0][NR - 1]);
}

TAP_MAIN()
