/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations_folio.c - the life of folios: allocated, dropped, frozen, marked, iterated over; with what the headers
 * promise about each result.
 *
 * Owners: none; one whose hook lets the folio go; one whose hook keeps it frozen.  The hook is called exactly once, by
 * the last drop, for the folio that was dropped.
 */
#include "tests/lib/operations.h"

static const struct mf_folio *released;
static unsigned nr_released;

static bool note_release(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner);

static const struct mf_owner watcher = { "watcher", note_release }, keeper = { "keeper", note_release };
static const struct mf_owner *const owners[] = { NULL, &watcher, &keeper };

static bool note_release(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner)
{
	(void)map;
	released = folio;
	nr_released++;
	return owner == &keeper;
}

/* ---- Which folio ------------------------------------------------------------------------------------------------- */

uint32_t operations_any_folio(struct operations *ops)
{
	struct oracle *o = &ops->oracle;

	if (choose(ops, 3) == 0)
		return o->frame[operations_any_pfn(ops)].folio;
	return o->nr_live ? o->live[choose(ops, o->nr_live)] : 0;
}

uint32_t operations_any_folio_that(struct operations *ops, bool (*fits)(const struct oracle_folio *f))
{
	for (unsigned i = 0; i < 8; i++) {
		uint32_t number = operations_any_folio(ops);

		if (number && fits(&ops->oracle.folio[number]))
			return number;
	}
	return 0;
}

/* ---- Drop and free --------------------------------------------------------------------------------------------- */

static void unmap_all(struct oracle_folio *f)
{
	for (; f->whole > 0; f->whole--, f->mapped--)
		mf_folio_unmap_whole(f->handle);
	if (f->mapped > 0)
		mf_folio_unmap_frames(f->handle, (uint32_t)f->mapped);
	f->mapped = 0;
}

static void gone(struct operations *ops, uint32_t number)
{
	const struct oracle_folio was = ops->oracle.folio[number];

	ops->nr_kept += was.dieted;
	oracle_folio_removed(&ops->oracle, number);
	oracle_check_range(&ops->oracle, was.pfn, was.pfn + ((mf_pfn_t)1 << was.order));
}

static void free_frozen(struct operations *ops, uint32_t number)
{
	struct oracle_folio *f = &ops->oracle.folio[number];

	unmap_all(f);
	mf_folio_free_frozen(ops->map, f->handle);
	gone(ops, number);
}

void operations_drop(struct operations *ops, uint32_t number)
{
	struct oracle_folio *f = &ops->oracle.folio[number];
	uint32_t own = oracle_own_refs(f);
	bool last = f->refs == 1, told = last && f->owner;

	if (f->refs == own + 1)
		unmap_all(f);
	nr_released = 0;
	released = NULL;
	if (f->refs - own > f->pins) {
		mf_folio_put(ops->map, f->handle);
	} else {
		mf_folio_unpin(ops->map, f->handle);
		f->pins--;
	}
	f->refs--;
	if (nr_released != told || (told && released != f->handle))
		oracle_fail(&ops->oracle, "the owner of the folio at pfn %llu was told %u times of its release",
			    (unsigned long long)f->pfn, nr_released);
	else if (last && f->owner != &keeper)
		gone(ops, number);
	else
		oracle_check_folio(&ops->oracle, number);
}

void operations_drop_all(struct operations *ops, uint32_t number)
{
	struct oracle_folio *f = &ops->oracle.folio[number];

	while (f->refs > 1 && !ops->oracle.failed)
		operations_drop(ops, number);
	if (f->kind == MF_KIND_DEVICE)
		return;
	if (f->refs == 1 && f->owner == &keeper)
		operations_drop(ops, number);
	if (ops->oracle.failed)
		return;
	if (f->refs == 0)
		free_frozen(ops, number);
	else
		operations_drop(ops, number);
}

void operations_drop_range(struct operations *ops, mf_pfn_t start, mf_pfn_t end)
{
	struct oracle *o = &ops->oracle;

	for (mf_pfn_t pfn = start; pfn < end && !o->failed;) {
		uint32_t number = o->frame[pfn].folio;

		pfn = number ? o->folio[number].pfn + ((mf_pfn_t)1 << o->folio[number].order) : pfn + 1;
		if (number)
			operations_drop_all(ops, number);
	}
}

static void put(struct operations *ops)
{
	uint32_t number = operations_any_folio_that(ops, oracle_is_held);

	if (!number)
		return;
	operations_begin(ops, OP_PUT, ops->oracle.folio[number].pfn, ops->oracle.folio[number].order);
	operations_drop(ops, number);
	operations_end(ops, 0);
}

/* ---- Allocate -------------------------------------------------------------------------------------------------- */

/* Mostly base frames and blocks of tier 1; few of the top tier, since a handful of those is all there is. */
static unsigned any_order(struct operations *ops)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	uint64_t what = choose(ops, 16);

	if (ops->order_bias && what < 12)
		return g->shift[mf_min(ops->order_bias - 1, g->top)];
	if (what < 8)
		return 0;
	if (what < 11)
		return (unsigned)choose(ops, g->step);
	if (what < 14)
		return g->step;
	if (what == 14)
		return g->step + (unsigned)choose(ops, g->step + 3);
	what = choose(ops, 8);
	return what < 3 ? g->shift[g->top] : what < 7 ? g->step : (unsigned)choose(ops, 64);
}

/* Does a block still host slots of its own, for which RAM was lacking? */
static bool hosts_itself(struct operations *ops)
{
	struct mf_map_stats stats;

	mf_map_stats(ops->map, &stats);
	return stats.nr_hosted > 0;
}

/*
 * No memory is a legal answer only when there is none: no free frame for order 0; for blocks of tier 1 and up at
 * most as many unused ones as there are set-aside blocks to spoil them, and nothing that could be restored.  (In
 * between, hosts lie among unused ones.)
 */
static void check_refusal(struct operations *ops, int node, unsigned order)
{
	uint64_t nr_free = 0, nr_set_aside = 0, nr_runs;
	struct mf_zone_info info;

	for (unsigned zone = 0; mf_zone_info(ops->map, zone, &info) == 0; zone++) {
		if (node != MF_ANY_NODE && info.node != (unsigned)node)
			continue;
		nr_free += info.nr_free + info.nr_pool_idle;
		nr_set_aside += info.nr_set_aside;
	}
	if (order == 0 && nr_free)
		oracle_fail(&ops->oracle, "no memory of order 0, but %llu frames are free",
			    (unsigned long long)nr_free);
	oracle_check_none_kept(&ops->oracle, node);
	if (order < ops->step || (ops->hog && hosts_itself(ops)))
		return;
	nr_runs = oracle_unused_runs(&ops->oracle, node, order);
	if (nr_runs > nr_set_aside)
		oracle_fail(&ops->oracle, "no memory of order %u, but %llu such blocks are unused and %llu set aside",
			    order, (unsigned long long)nr_runs, (unsigned long long)nr_set_aside);
}

static void allocated(struct operations *ops, struct mf_folio *folio, unsigned order, int node, unsigned flags)
{
	mf_pfn_t pfn = mf_folio_pfn(ops->map, folio);
	uint32_t number = oracle_folio_added(&ops->oracle, folio, pfn, order);

	if (!number)
		return;
	if (flags & MF_ALLOC_THIS_NODE && oracle_region_at(&ops->oracle, pfn)->config.node != (unsigned)node)
		oracle_fail(&ops->oracle, "pfn %llu is not of node %d", (unsigned long long)pfn, node);
	oracle_check_folio(&ops->oracle, number);
}

static void alloc(struct operations *ops)
{
	unsigned order = any_order(ops), flags = 0;
	int node = (int)choose(ops, 4) - 1, err;
	uint64_t how = choose(ops, 16);
	struct mf_folio *folio = NULL;

	if (how < 3)
		flags |= MF_ALLOC_NOWAIT;
	if (how > 1 && how < 5 && node != MF_ANY_NODE)
		flags |= MF_ALLOC_THIS_NODE;
	operations_begin(ops, OP_ALLOC, order, flags);
	err = mf_folio_alloc(ops->map, node, order, flags, &folio);
	operations_end(ops, err);
	if (!err)
		allocated(ops, folio, order, node, flags);
	else if (err != (order >= MF_ORDERS_MAX ? -MF_EINVAL : -MF_ENOMEM))
		oracle_fail(&ops->oracle, "mf_folio_alloc() of order %u gave %d", order, err);
	else if (err == -MF_ENOMEM && !(flags & MF_ALLOC_NOWAIT) && !operations_lack_ram(ops) &&
		 ops->nr_refused[OP_ALLOC] % 8 == 1)
		check_refusal(ops, flags & MF_ALLOC_THIS_NODE ? node : MF_ANY_NODE, order);
}

/* ---- Freeze and mark --------------------------------------------------------------------------------------------- */

static bool is_frozen(const struct oracle_folio *f)
{
	return f->refs == 0;
}

/* Of a compound one reference is nobody's to freeze. */
static bool can_be_frozen(const struct oracle_folio *f)
{
	return oracle_is_held(f) && f->kind == MF_KIND_USED;
}

static void freeze(struct operations *ops)
{
	uint32_t number = operations_any_folio_that(ops, can_be_frozen);
	struct oracle_folio *f = &ops->oracle.folio[number];
	uint32_t expected;
	bool frozen;

	if (!number)
		return;
	expected = f->refs + (choose(ops, 4) == 0);
	operations_begin(ops, OP_FREEZE, f->pfn, expected);
	frozen = mf_folio_freeze(f->handle, expected);
	operations_end(ops, frozen ? 0 : -MF_EBUSY);
	if (frozen != (expected == f->refs && f->pins == 0))
		oracle_fail(&ops->oracle, "a freeze of the folio at pfn %llu from %u gave %d",
			    (unsigned long long)f->pfn, expected, frozen);
	f->refs = frozen ? 0 : f->refs;
	oracle_check_folio(&ops->oracle, number);
}

static void unfreeze(struct operations *ops)
{
	uint32_t number = operations_any_folio_that(ops, is_frozen), count = (uint32_t)choose(ops, 4);
	struct oracle_folio *f = &ops->oracle.folio[number];

	if (!number)
		return;
	operations_begin(ops, OP_UNFREEZE, f->pfn, count);
	operations_end(ops, 0);
	if (count == 0) {
		free_frozen(ops, number);
		return;
	}
	mf_folio_unfreeze(f->handle, count);
	f->refs = count;
	oracle_check_folio(&ops->oracle, number);
}

/* The owner's words and flags. */
static void mark(struct operations *ops)
{
	uint32_t number = operations_any_folio_that(ops, oracle_is_held);
	struct oracle_folio *f = &ops->oracle.folio[number];
	uint64_t flags = choose(ops, 16) * MF_FLAG_USER0;

	if (!number)
		return;
	operations_begin(ops, OP_MARK, f->pfn, flags);
	f->owner = owners[choose(ops, 3)];
	f->index = choose(ops, 1u << 16);
	f->private_data = choose(ops, 1u << 16);
	mf_folio_set_owner(f->handle, f->owner);
	f->handle->page.index = f->index;
	f->handle->page.private_data = f->private_data;
	if (choose(ops, 2)) {
		mf_folio_set_flags(f->handle, flags);
		f->flags |= flags;
	} else {
		mf_folio_clear_flags(f->handle, flags);
		f->flags &= ~flags;
	}
	operations_end(ops, 0);
	oracle_check_folio(&ops->oracle, number);
}

/* ---- Iteration ------------------------------------------------------------------------------------------------- */

static void next(struct operations *ops)
{
	mf_pfn_t pfn = operations_any_pfn(ops), end = pfn + choose(ops, 4096), at = pfn, after = 0, expected;
	const struct mf_folio *found = mf_folio_next(ops->map, pfn, end, &after);
	const struct oracle_folio *f = NULL;

	operations_begin(ops, OP_NEXT, pfn, end);
	while (at < end && !f)
		f = oracle_at(&ops->oracle, at++);
	expected = f ? f->pfn + ((mf_pfn_t)1 << f->order) : end;
	operations_end(ops, found ? 0 : -MF_ENOENT);
	if (found != (f ? f->handle : NULL) || after != expected)
		oracle_fail(&ops->oracle,
			    "the next folio from pfn %llu to %llu is %p, then %llu; %p, %llu were expected",
			    (unsigned long long)pfn, (unsigned long long)end, (const void *)found,
			    (unsigned long long)after, f ? (const void *)f->handle : NULL,
			    (unsigned long long)expected);
}

void operations_run_folio(struct operations *ops, enum operation what)
{
	switch (what) {
	case OP_ALLOC:
		alloc(ops);
		break;
	case OP_PUT:
		put(ops);
		break;
	case OP_FREEZE:
		freeze(ops);
		break;
	case OP_UNFREEZE:
		unfreeze(ops);
		break;
	case OP_MARK:
		mark(ops);
		break;
	default:
		next(ops);
		break;
	}
}
