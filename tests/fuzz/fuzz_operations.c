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

/* Three small worlds whose blocks of tier 1 are the top, so that sets fold at once; and one with both tiers. */
static const struct world_config worlds[] = {
	{ .machine = "sim", .nr_frames = 1u << 13, .top = 1 },
	{ .machine = "sim", .nr_frames = 2 * WORLD_GIB_FRAMES },
	{ .machine = "sim-5", .nr_frames = 1u << 13, .top = 1, .nr_ram_frames = 200 },
	{ .machine = "sim-arm64-16k", .nr_frames = 1u << 15, .top = 1 },
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
	struct byte_choices bytes;
	const struct world_config *config;
	struct world world;

	byte_choices_init(&bytes, data, size);
	config = &worlds[bytes.choices.next(&bytes.choices, sizeof(worlds) / sizeof(worlds[0]))];
	if (!world_open(&world, config) || !operations_init(&ops, world.map, world.machine, &bytes.choices))
		abort();
	mf_panic_hook_set(stop_on_panic, &ops);
	ops.pieces_log2_max = 9;
	favour_transitions(&ops);
	ops.may_lack_ram = config->nr_ram_frames != 0;
	add_regions(&ops, config->nr_frames);
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
