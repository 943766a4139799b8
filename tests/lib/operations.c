/* SPDX-License-Identifier: BSD-2-Clause */
/* operations.c - which operation comes next; what concerns the map as a whole; choices at random and from bytes. */
#include "tests/lib/operations.h"

#include <stdio.h>

const char *const operation_name[NR_OPERATIONS] = {
	[OP_ALLOC] = "alloc", [OP_PUT] = "put", [OP_GET] = "get", [OP_TRY_GET] = "try_get",
	[OP_TRY_GET_TIER] = "try_get_tier", [OP_PIN] = "pin", [OP_TRY_PIN] = "try_pin", [OP_MAP] = "map",
	[OP_UNMAP] = "unmap", [OP_FREEZE] = "freeze", [OP_UNFREEZE] = "unfreeze", [OP_MARK] = "mark",
	[OP_SPLIT] = "split", [OP_MERGE] = "merge", [OP_SWEEP] = "sweep", [OP_FOLD] = "fold", [OP_DRAIN] = "drain",
	[OP_REGION_ADD] = "region_add", [OP_REGION_REMOVE] = "region_remove", [OP_NEXT] = "next",
	[OP_REMAP] = "remap", [OP_RESTORE] = "restore", [OP_REMAP_LIST] = "remap_list",
	[OP_RESTORE_LIST] = "restore_list", [OP_DIET_SWITCH] = "diet_switch",
	[OP_RAM] = "ram",
};

static const unsigned balanced[NR_OPERATIONS] = {
	[OP_ALLOC] = 340, [OP_PUT] = 250, [OP_GET] = 30, [OP_TRY_GET] = 60, [OP_TRY_GET_TIER] = 60, [OP_PIN] = 25,
	[OP_TRY_PIN] = 25, [OP_MAP] = 30, [OP_UNMAP] = 30, [OP_FREEZE] = 25, [OP_UNFREEZE] = 25, [OP_MARK] = 25,
	[OP_SPLIT] = 40, [OP_MERGE] = 40, [OP_SWEEP] = 5, [OP_FOLD] = 25, [OP_DRAIN] = 4, [OP_REGION_ADD] = 2,
	[OP_REGION_REMOVE] = 1, [OP_NEXT] = 10, [OP_REMAP] = 40, [OP_RESTORE] = 20, [OP_REMAP_LIST] = 10,
	[OP_RESTORE_LIST] = 5, [OP_DIET_SWITCH] = 2,
};

/* ---- Choices --------------------------------------------------------------------------------------------------- */

static uint64_t random_next(struct choices *choices, uint64_t below)
{
	struct random_choices *random = mf_container_of(choices, struct random_choices, choices);
	uint64_t z = random->state += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) % below;
}

void random_choices_init(struct random_choices *random, uint64_t seed)
{
	*random = (struct random_choices){ .choices.next = random_next, .state = seed };
}

static uint64_t byte_next(struct choices *choices, uint64_t below)
{
	struct byte_choices *bytes = mf_container_of(choices, struct byte_choices, choices);
	uint64_t value = 0;

	for (uint64_t most = below - 1; most; most >>= 8) {
		if (bytes->size == 0) {
			choices->ended = true;
			return 0;
		}
		value = value << 8 | *bytes->data++;
		bytes->size--;
	}
	return value % below;
}

void byte_choices_init(struct byte_choices *bytes, const uint8_t *data, size_t size)
{
	*bytes = (struct byte_choices){ .choices.next = byte_next, .data = data, .size = size };
}

/* ---- A run ----------------------------------------------------------------------------------------------------- */

bool operations_init(struct operations *ops, struct mf_map *map, struct mf_machine *machine, struct choices *choices)
{
	*ops = (struct operations){ .choices = choices, .map = map, .has_classic = true, .pieces_log2_max = 12 };
	for (unsigned i = 0; i < NR_OPERATIONS; i++)
		ops->weight[i] = balanced[i];
	ops->step = mf_map_geometry(map)->step;
	ops->frames_max = mf_map_geometry(map)->span;
	ops->machine = machine;
	ops->on_tables = machine->backing == MF_WINDOW_TABLES;
	return oracle_create(&ops->oracle, map, machine);
}

void operations_set_hog(struct operations *ops, struct hog *hog)
{
	ops->hog = hog;
	ops->weight[OP_RAM] = 3;
}

void operations_exit(struct operations *ops)
{
	oracle_destroy(&ops->oracle);
}

void operations_begin(struct operations *ops, enum operation what, uint64_t a, uint64_t b)
{
	ops->history[ops->nr_steps % OPERATIONS_HISTORY] = (struct operations_history){ what, a, b, 1 };
}

void operations_end(struct operations *ops, int64_t result)
{
	struct operations_history *now = &ops->history[ops->nr_steps % OPERATIONS_HISTORY];

	now->result = result;
	ops->nr_refused[now->what] += result < 0;
	ops->nr_done[now->what] += result >= 0;
}

void operations_print(const struct operations *ops, void (*line)(const char *text))
{
	uint64_t first = ops->nr_steps < OPERATIONS_HISTORY ? 0 : ops->nr_steps + 1 - OPERATIONS_HISTORY;

	for (uint64_t i = first; i <= ops->nr_steps; i++) {
		const struct operations_history *h = &ops->history[i % OPERATIONS_HISTORY];
		char text[128];

		snprintf(text, sizeof(text), "step %llu: %s %llu (0x%llx) %llu -> %lld", (unsigned long long)i,
			 operation_name[h->what], (unsigned long long)h->a, (unsigned long long)h->a,
			 (unsigned long long)h->b, (long long)h->result);
		line(text);
	}
}

mf_pfn_t operations_any_pfn(struct operations *ops)
{
	unsigned id = (unsigned)choose(ops, ORACLE_REGIONS_MAX);
	const struct oracle_region *r = &ops->oracle.region[id];
	mf_pfn_t at = choose(ops, ops->oracle.span);

	if (!r->present)
		return at;
	return r->config.start_pfn + at % (r->config.end_pfn - r->config.start_pfn);
}

/* ---- The map as a whole ---------------------------------------------------------------------------------------- */

static void fold(struct operations *ops)
{
	enum mf_fold_flags flags = choose(ops, 3) ? MF_FOLD_KEEP : MF_FOLD_ALL;
	int node = (int)choose(ops, 4) - 1, err;
	mf_pfn_t pfn = operations_any_pfn(ops);
	uint64_t nr;

	operations_begin(ops, OP_FOLD, flags, (uint64_t)(node + 1));
	err = mf_fold(ops->map, node, flags, &nr);
	operations_end(ops, err ? err : (int64_t)nr);
	if (err)
		oracle_fail(&ops->oracle, "mf_fold() gave %d", err);
	oracle_check_frame(&ops->oracle, pfn);
	if (!operations_lack_ram(ops))
		oracle_check_none_kept(&ops->oracle, node);
}

static void drain(struct operations *ops)
{
	int err;

	operations_begin(ops, OP_DRAIN, 0, 0);
	err = mf_drain(ops->map);
	operations_end(ops, err);
	if (err)
		oracle_fail(&ops->oracle, "mf_drain() gave %d", err);
}

static void sweep(struct operations *ops)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	mf_pfn_t size = (mf_pfn_t)1 << (choose(ops, 8) ? g->shift[1] + choose(ops, 4) : g->shift[g->top]);
	mf_pfn_t pfn = mf_round_down(operations_any_pfn(ops), size);

	operations_begin(ops, OP_SWEEP, pfn, size);
	operations_drop_range(ops, pfn, mf_min(pfn + size, ops->oracle.span));
	operations_end(ops, 0);
}

/* A few frames of RAM are left, or all of it. */
static void ram(struct operations *ops)
{
	uint64_t nr = choose(ops, 3) ? choose(ops, 64) : ~(uint64_t)0;

	operations_begin(ops, OP_RAM, nr, 0);
	hog_end(ops->hog);
	if (nr != ~(uint64_t)0) {
		hog_all(ops->hog, ops->machine);
		hog_put(ops->hog, nr);
	}
	operations_end(ops, 0);
}

static void run(struct operations *ops, enum operation what)
{
	switch (what) {
	case OP_FOLD:
		fold(ops);
		break;
	case OP_DRAIN:
		drain(ops);
		break;
	case OP_SWEEP:
		sweep(ops);
		break;
	case OP_RAM:
		ram(ops);
		break;
	case OP_REGION_ADD:
	case OP_REGION_REMOVE:
		operations_run_region(ops, what);
		break;
	case OP_REMAP:
	case OP_RESTORE:
	case OP_REMAP_LIST:
	case OP_RESTORE_LIST:
	case OP_DIET_SWITCH:
		operations_run_diet(ops, what);
		break;
	case OP_GET:
	case OP_TRY_GET:
	case OP_TRY_GET_TIER:
	case OP_PIN:
	case OP_TRY_PIN:
	case OP_MAP:
	case OP_UNMAP:
		operations_run_hold(ops, what);
		break;
	case OP_SPLIT:
	case OP_MERGE:
		operations_run_split(ops, what);
		break;
	default:
		operations_run_folio(ops, what);
		break;
	}
}

bool operations_step(struct operations *ops)
{
	unsigned sum = 0, at, what = 0;

	for (unsigned i = 0; i < NR_OPERATIONS; i++)
		sum += ops->weight[i];
	at = (unsigned)choose(ops, sum);
	while (at >= ops->weight[what])
		at -= ops->weight[what++];
	operations_begin(ops, (enum operation)what, 0, 0);
	run(ops, (enum operation)what);
	if (ops->oracle.failed)
		return false;
	ops->nr_steps++;
	return true;
}

bool operations_free_all(struct operations *ops)
{
	struct oracle *o = &ops->oracle;

	operations_begin(ops, OP_SWEEP, 0, o->span);
	if (ops->hog)
		hog_end(ops->hog);
	/* The last one takes the place of one that goes; what is passed and stays is a compound. */
	for (uint32_t i = o->nr_live; i > 0 && !o->failed; i--)
		operations_drop_all(ops, o->live[i - 1]);
	if (!o->failed && mf_fold(ops->map, MF_ANY_NODE, MF_FOLD_ALL, NULL) != 0)
		oracle_fail(o, "mf_fold() of everything failed");
	if (!operations_lack_ram(ops))
		oracle_check_none_kept(o, MF_ANY_NODE);
	return !o->failed && oracle_check_all(o);
}
