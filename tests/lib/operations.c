/* SPDX-License-Identifier: BSD-2-Clause */
/* operations.c - which operation comes next; regions, folding; choices at random and from bytes. */
#include "tests/lib/operations.h"

#include <stdio.h>

const char *const operation_name[NR_OPERATIONS] = {
	[OP_ALLOC] = "alloc", [OP_PUT] = "put", [OP_GET] = "get", [OP_TRY_GET] = "try_get",
	[OP_TRY_GET_TIER] = "try_get_tier", [OP_PIN] = "pin", [OP_TRY_PIN] = "try_pin", [OP_MAP] = "map",
	[OP_UNMAP] = "unmap", [OP_FREEZE] = "freeze", [OP_UNFREEZE] = "unfreeze", [OP_MARK] = "mark",
	[OP_SPLIT] = "split", [OP_MERGE] = "merge", [OP_SWEEP] = "sweep", [OP_FOLD] = "fold", [OP_DRAIN] = "drain",
	[OP_REGION_ADD] = "region_add", [OP_REGION_REMOVE] = "region_remove", [OP_NEXT] = "next",
};

static const unsigned balanced[NR_OPERATIONS] = {
	[OP_ALLOC] = 340, [OP_PUT] = 250, [OP_GET] = 30, [OP_TRY_GET] = 60, [OP_TRY_GET_TIER] = 60, [OP_PIN] = 25,
	[OP_TRY_PIN] = 25, [OP_MAP] = 30, [OP_UNMAP] = 30, [OP_FREEZE] = 25, [OP_UNFREEZE] = 25, [OP_MARK] = 25,
	[OP_SPLIT] = 40, [OP_MERGE] = 40, [OP_SWEEP] = 5, [OP_FOLD] = 25, [OP_DRAIN] = 4, [OP_REGION_ADD] = 2,
	[OP_REGION_REMOVE] = 1, [OP_NEXT] = 10,
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

bool operations_init(struct operations *ops, struct mf_map *map, const struct mf_machine *machine,
		     struct choices *choices)
{
	*ops = (struct operations){ .choices = choices, .map = map, .pieces_log2_max = 12 };
	for (unsigned i = 0; i < NR_OPERATIONS; i++)
		ops->weight[i] = balanced[i];
	ops->step = mf_map_geometry(map)->step;
	ops->frames_max = mf_map_geometry(map)->span;
	ops->on_tables = machine->backing == MF_WINDOW_TABLES;
	return oracle_create(&ops->oracle, map);
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

/* ---- Regions --------------------------------------------------------------------------------------------------- */

static int expected_add(const struct operations *ops, const struct mf_region_config *c)
{
	if (c->start_pfn >= c->end_pfn)
		return -MF_EINVAL;
	if (c->end_pfn > ops->oracle.span)
		return -MF_E2BIG;
	return oracle_overlaps(&ops->oracle, c->start_pfn, c->end_pfn) ? -MF_EEXIST : 0;
}

bool operations_add_region(struct operations *ops, const struct mf_region_config *config)
{
	unsigned id = ORACLE_REGIONS_MAX;
	int expected = expected_add(ops, config);
	int err = mf_region_add(ops->map, config, &id);

	if (err != expected && !(ops->may_lack_ram && err == -MF_ENOMEM && !expected))
		return oracle_fail(&ops->oracle, "mf_region_add(%llu, %llu) gave %d; %d was expected",
				   (unsigned long long)config->start_pfn, (unsigned long long)config->end_pfn, err,
				   expected);
	operations_end(ops, err);
	if (!err) {
		oracle_region_added(&ops->oracle, id, config);
		oracle_check_range(&ops->oracle, config->start_pfn, config->end_pfn);
	}
	return !ops->oracle.failed;
}

static uint64_t frames_present(const struct operations *ops, unsigned *nr_regions)
{
	uint64_t nr = 0;

	*nr_regions = 0;
	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
		const struct oracle_region *r = &ops->oracle.region[i];

		*nr_regions += r->present;
		nr += r->present ? r->config.end_pfn - r->config.start_pfn : 0;
	}
	return nr;
}

/* Small, of some blocks of tier 1, or large; at any alignment or at a block's. */
static void region_add(struct operations *ops)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	unsigned nr_regions, size = (unsigned)choose(ops, 4), align = (unsigned)choose(ops, 4);
	uint64_t present = frames_present(ops, &nr_regions);
	mf_pfn_t start = choose(ops, ops->oracle.span), nr, unit;
	struct mf_region_config config;

	if (present < ops->frames_max / 4 * 3)
		size = 3;
	nr = choose(ops, size == 0 ? 64 : size < 3 ? (uint64_t)40 << g->step : ops->oracle.span / 3);
	unit = (mf_pfn_t)1 << (align == 0 ? 0 : align == 1 ? g->shift[1] : align == 2 ? g->shift[g->top] : 3);
	start = mf_round_down(start, unit);
	for (unsigned i = 0; i < 8 && oracle_overlaps(&ops->oracle, start, start + nr); i++)
		start = mf_round_down(choose(ops, ops->oracle.span), unit);
	config = (struct mf_region_config){
		.start_pfn = start,
		.end_pfn = align ? mf_round_up(start + nr, unit) : start + nr,
		.node = (unsigned)choose(ops, 3),
		.layout = choose(ops, 4) ? MF_LAYOUT_TIERED : MF_LAYOUT_FLAT,
		.top = (unsigned)choose(ops, g->top + 1),
	};
	config.source = choose(ops, config.layout == MF_LAYOUT_FLAT ? 8 : 2) ? MF_SOURCE_RAM : MF_SOURCE_SELF;
	operations_begin(ops, OP_REGION_ADD, config.start_pfn, config.end_pfn);
	if (nr_regions >= OPERATIONS_REGIONS || present + nr > ops->frames_max)
		return;
	operations_add_region(ops, &config);
}

static void drop_range(struct operations *ops, mf_pfn_t start, mf_pfn_t end)
{
	struct oracle *o = &ops->oracle;

	for (mf_pfn_t pfn = start; pfn < end && !o->failed;) {
		uint32_t number = o->frame[pfn].folio;

		pfn = number ? o->folio[number].pfn + ((mf_pfn_t)1 << o->folio[number].order) : pfn + 1;
		if (number)
			operations_drop_all(ops, number);
	}
}

/* With users it must be refused.  Without, it may host map slots of others where the map lies in frames. */
static void region_remove(struct operations *ops)
{
	unsigned id = (unsigned)choose(ops, ORACLE_REGIONS_MAX);
	struct oracle_region *r = &ops->oracle.region[id];
	bool evacuate = choose(ops, 4) == 0, may_refuse;
	unsigned nr_regions;
	int err;

	operations_begin(ops, OP_REGION_REMOVE, id, evacuate);
	if (r->present && evacuate && frames_present(ops, &nr_regions) > ops->frames_max / 3 * 2)
		drop_range(ops, r->config.start_pfn, r->config.end_pfn);
	if (ops->oracle.failed)
		return;
	may_refuse = r->nr_used || (ops->on_tables && r->config.source == MF_SOURCE_SELF);
	err = mf_region_remove(ops->map, id);
	operations_end(ops, err);
	if (!r->present) {
		if (err != -MF_ENOENT)
			oracle_fail(&ops->oracle, "mf_region_remove(%u) of no region gave %d", id, err);
		return;
	}
	if (err == -MF_EBUSY ? !may_refuse : err != 0 || r->nr_used)
		oracle_fail(&ops->oracle, "mf_region_remove(%u) gave %d with %llu frames in use", id, err,
			    (unsigned long long)r->nr_used);
	else if (!err)
		oracle_region_removed(&ops->oracle, id);
	oracle_check_range(&ops->oracle, r->config.start_pfn, r->config.end_pfn);
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
	drop_range(ops, pfn, mf_min(pfn + size, ops->oracle.span));
	operations_end(ops, 0);
}

static void run(struct operations *ops, enum operation what)
{
	switch (what) {
	case OP_REGION_ADD:
		region_add(ops);
		break;
	case OP_REGION_REMOVE:
		region_remove(ops);
		break;
	case OP_FOLD:
		fold(ops);
		break;
	case OP_DRAIN:
		drain(ops);
		break;
	case OP_SWEEP:
		sweep(ops);
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
	while (o->nr_live && !o->failed)
		operations_drop_all(ops, o->live[o->nr_live - 1]);
	if (!o->failed && mf_fold(ops->map, MF_ANY_NODE, MF_FOLD_ALL, NULL) != 0)
		oracle_fail(o, "mf_fold() of everything failed");
	return !o->failed && oracle_check_all(o);
}
