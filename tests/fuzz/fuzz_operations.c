/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_operations.c - bytes become operations on a small map on sim, each held against the oracle.
 *
 * What an operation is: tests/lib/operations.h.  The first byte chooses the world, the next ones the regions, the rest
 * operations until they are used up.  At the end the laws are checked and everything is freed, folded and torn down.
 * A difference aborts.
 */
#include "tests/lib/operations.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

#include <memfold/sim.h>
#include <stdlib.h>

enum { STEPS_MAX = 300, LAWS_EVERY = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum world_kind { PLAIN, LITTLE_RAM, CLASSIC, CLASSIC_HOG };

/*
 * Small worlds whose blocks of tier 1 are the top, so that sets fold at once; and some with both tiers.  Inputs that
 * are kept count on the order: new ones go to the end.
 */
static const struct fuzz_world {
	struct world_config config;
	enum world_kind kind; /* CLASSIC: with the classic layouts; HOG: where RAM comes and goes                  */
} worlds[] = {
	{ { .machine = "sim", .nr_frames = 1u << 13, .top = 1 }, PLAIN },
	{ { .machine = "sim", .nr_frames = 2 * WORLD_GIB_FRAMES }, PLAIN },
	{ { .machine = "sim-5", .nr_frames = 1u << 13, .top = 1, .nr_ram_frames = 200 }, LITTLE_RAM },
	{ { .machine = "sim-arm64-16k", .nr_frames = 1u << 15, .top = 1 }, PLAIN },
	{ { .machine = "sim", .nr_frames = 1u << 13, .top = 1 }, CLASSIC },
	{ { .machine = "sim", .nr_frames = 2 * WORLD_GIB_FRAMES }, CLASSIC },
	{ { .machine = "sim-5", .nr_frames = 1u << 13, .top = 1, .nr_ram_frames = 1024 }, CLASSIC_HOG },
	{ { .machine = "sim-arm64-16k", .nr_frames = 1u << 16, .top = 1, .nr_ram_frames = 2048 }, CLASSIC_HOG },
};

static void comment(const char *text)
{
	TAP_NOTE("%s", text);
}

static void stop(const struct operations *ops, const char *why)
{
	TAP_NOTE("%s", why);
	operations_print(ops, comment);
	abort();
}

static void stop_on_panic(void *ctx, const char *sentence)
{
	stop(ctx, sentence);
}

static void check(struct operations *ops, struct world *world)
{
	if (!world_check(world))
		stop(ops, "a law is broken");
}

static void add_regions(struct operations *ops, mf_pfn_t span)
{
	mf_pfn_t start = choose(ops, 2) ? choose(ops, 512) : 0;
	struct mf_region_config first = { .start_pfn = start, .end_pfn = span / 2 + choose(ops, 1024) };
	struct mf_region_config second = { .start_pfn = first.end_pfn, .end_pfn = span - choose(ops, 600), .node = 1,
					   .source = MF_SOURCE_RAM };

	operations_begin(ops, OP_REGION_ADD, 0, 0);
	first.source = choose(ops, 4) ? MF_SOURCE_SELF : MF_SOURCE_RAM;
	if (!operations_add_region(ops, &first) || (choose(ops, 2) && !operations_add_region(ops, &second)))
		stop(ops, ops->oracle.text);
}

/* A tiered one, then a classic one and perhaps compounds. */
static void add_classic_regions(struct operations *ops, mf_pfn_t span)
{
	static const enum mf_layout layouts[] = { MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18, MF_LAYOUT_HVO_7_1 };
	mf_pfn_t block = (mf_pfn_t)1 << ops->step;
	struct mf_region_config tiered = { .start_pfn = choose(ops, 512), .end_pfn = span / 4 + choose(ops, 1024) };
	struct mf_region_config classic = { .start_pfn = tiered.end_pfn, .end_pfn = 3 * (span / 4) - choose(ops, 600),
					    .node = (unsigned)choose(ops, 2) };
	struct mf_region_config compounds = { .start_pfn = 3 * (span / 4), .end_pfn = span - block, .node = 1,
					      .layout = MF_LAYOUT_DEVDAX, .source = MF_SOURCE_RAM };

	operations_begin(ops, OP_REGION_ADD, 0, 0);
	tiered.source = choose(ops, 2) ? MF_SOURCE_SELF : MF_SOURCE_RAM;
	classic.layout = layouts[choose(ops, 3)];
	classic.source = choose(ops, 4) ? MF_SOURCE_RAM : MF_SOURCE_SELF;
	classic.flags = (unsigned)choose(ops, MF_REGION_DIET_FLAGS + 1);
	compounds.unit_order = ops->step - (unsigned)choose(ops, 3);
	if (!operations_add_region(ops, &tiered) || !operations_add_region(ops, &classic) ||
	    (choose(ops, 2) && !operations_add_region(ops, &compounds)))
		stop(ops, ops->oracle.text);
}

/* Inputs are short: what unfolds and folds comes more often than in the model test. */
static void favour_transitions(struct operations *ops)
{
	ops->weight[OP_SPLIT] = 120;
	ops->weight[OP_MERGE] = 100;
	ops->weight[OP_FOLD] = 100;
	ops->weight[OP_SWEEP] = 40;
	ops->weight[OP_REGION_ADD] = 15;
	ops->weight[OP_REGION_REMOVE] = 15;
}

/* None in worlds that have no classic layouts. */
static void weigh_diets(struct operations *ops, bool has_classic)
{
	ops->has_classic = has_classic;
	ops->weight[OP_REMAP] = has_classic ? 160 : 0;
	ops->weight[OP_RESTORE] = has_classic ? 50 : 0;
	ops->weight[OP_REMAP_LIST] = has_classic ? 40 : 0;
	ops->weight[OP_RESTORE_LIST] = has_classic ? 20 : 0;
	ops->weight[OP_DIET_SWITCH] = has_classic ? 8 : 0;
	ops->weight[OP_FOLD] = has_classic ? 40 : ops->weight[OP_FOLD];
}

static void run(struct operations *ops, struct world *world)
{
	for (unsigned i = 0; i < STEPS_MAX && !ops->choices->ended; i++) {
		if (!operations_step(ops))
			stop(ops, ops->oracle.text);
		if (i % LAWS_EVERY == LAWS_EVERY - 1)
			check(ops, world);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct operations ops;
	static struct hog hog;
	struct byte_choices bytes;
	const struct fuzz_world *w;
	struct world world;

	byte_choices_init(&bytes, data, size);
	w = &worlds[bytes.choices.next(&bytes.choices, sizeof(worlds) / sizeof(worlds[0]))];
	if (!world_open(&world, &w->config) || !operations_init(&ops, world.map, world.machine, &bytes.choices))
		abort();
	mf_panic_hook_set(stop_on_panic, &ops);
	ops.pieces_log2_max = 9;
	favour_transitions(&ops);
	weigh_diets(&ops, w->kind >= CLASSIC);
	ops.may_lack_ram = w->kind == LITTLE_RAM;
	if (w->kind >= CLASSIC)
		add_classic_regions(&ops, w->config.nr_frames);
	else
		add_regions(&ops, w->config.nr_frames);
	if (w->kind == CLASSIC_HOG)
		operations_set_hog(&ops, &hog);
	run(&ops, &world);
	check(&ops, &world);
	if (!operations_free_all(&ops))
		stop(&ops, ops.oracle.text);
	if (!world_close(&world))
		stop(&ops, "something is left");
	operations_exit(&ops);
	mf_panic_hook_set(NULL, NULL);
	return 0;
}
