/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations_folio.c - operations on folios, with what the headers promise about each result.
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

/* ---- Which folio ----------------------------------------------------------------------------------------------- */

/*
 * A folio in use, or 0: one of all, however small, or the one around any frame, mostly a large one.  The second
 * form tries to find one with a quality.
 */
static uint32_t any_folio(struct operations *ops)
{
	struct oracle *o = &ops->oracle;

	if (choose(ops, 3) == 0)
		return o->frame[operations_any_pfn(ops)].folio;
	return o->nr_live ? o->live[choose(ops, o->nr_live)] : 0;
}

static uint32_t any_folio_that(struct operations *ops, bool (*fits)(const struct oracle_folio *f))
{
	for (unsigned i = 0; i < 8; i++) {
		uint32_t number = any_folio(ops);

		if (number && fits(&ops->oracle.folio[number]))
			return number;
	}
	return 0;
}

static bool is_held(const struct oracle_folio *f)
{
	return f->refs > 0;
}

static bool is_frozen(const struct oracle_folio *f)
{
	return f->refs == 0;
}

static bool is_mapped(const struct oracle_folio *f)
{
	return f->refs > 0 && f->mapped > 0;
}

static bool is_large(const struct oracle_folio *f)
{
	return f->order > 0;
}

/* At least a block of tier 1, for every P, and nobody else's. */
static bool is_huge(const struct oracle_folio *f)
{
	return f->order >= 9 && f->refs == 1 && f->pins == 0 && f->mapped == 0;
}

static bool is_sole(const struct oracle_folio *f)
{
	return f->refs == 1 && f->pins == 0 && f->mapped == 0;
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
	bool last = f->refs == 1, told = last && f->owner;

	if (last)
		unmap_all(f);
	nr_released = 0;
	released = NULL;
	if (f->refs > f->pins) {
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
	if (f->refs == 1 && f->owner == &keeper)
		operations_drop(ops, number);
	if (ops->oracle.failed)
		return;
	if (f->refs == 0)
		free_frozen(ops, number);
	else
		operations_drop(ops, number);
}

static void put(struct operations *ops)
{
	uint32_t number = any_folio_that(ops, is_held);

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
		return g->shift[mf_min(ops->order_bias - 1, 1)];
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

/*
 * No memory is a legal answer only when there is none: no free frame for order 0; for blocks of tier 1 and up at
 * most as many unused ones as there are set-aside blocks to spoil them.  (In between, hosts lie among unused ones.)
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
		oracle_fail(&ops->oracle, "no memory of order 0, but %llu frames are free", (unsigned long long)nr_free);
	if (order < ops->step)
		return;
	nr_runs = oracle_unused_runs(&ops->oracle, node, order);
	if (nr_runs > nr_set_aside)
		oracle_fail(&ops->oracle, "no memory of order %u, but %llu such blocks are unused and %llu set aside", order,
			    (unsigned long long)nr_runs, (unsigned long long)nr_set_aside);
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
	else if (err == -MF_ENOMEM && !(flags & MF_ALLOC_NOWAIT) && !ops->may_lack_ram && ops->nr_refused[OP_ALLOC] % 8 == 1)
		check_refusal(ops, flags & MF_ALLOC_THIS_NODE ? node : MF_ANY_NODE, order);
}

/* ---- References, pins, maps ------------------------------------------------------------------------------------ */

static void got(struct operations *ops, const struct mf_folio *folio, mf_pfn_t pfn, bool expected, bool pinned)
{
	struct oracle_folio *f = oracle_at(&ops->oracle, pfn);

	operations_end(ops, folio ? 0 : -MF_ENOENT);
	if (expected && f && f->refs) {
		f->refs++;
		f->pins += pinned;
		if (folio != f->handle)
			oracle_fail(&ops->oracle, "a speculative take at pfn %llu gave %p; the folio there is %p",
				    (unsigned long long)pfn, (const void *)folio, (const void *)f->handle);
	} else if (folio) {
		oracle_fail(&ops->oracle, "a speculative take at pfn %llu gave %p; none was to be had there",
			    (unsigned long long)pfn, (const void *)folio);
	}
	oracle_check_frame(&ops->oracle, pfn);
}

static void try_take(struct operations *ops, enum operation what)
{
	mf_pfn_t pfn = operations_any_pfn(ops);

	operations_begin(ops, what, pfn, 0);
	if (what == OP_TRY_PIN)
		got(ops, mf_pfn_try_pin(ops->map, pfn), pfn, true, true);
	else
		got(ops, mf_pfn_try_get(ops->map, pfn), pfn, true, false);
}

/* From a descriptor of any tier: the folio at its first pfn, unless that is described further down. */
static void try_get_tier(struct operations *ops)
{
	const struct mf_geometry *g = mf_map_geometry(ops->map);
	unsigned tier = (unsigned)choose(ops, g->top + 1);
	mf_pfn_t pfn = mf_round_down(operations_any_pfn(ops), (mf_pfn_t)1 << g->shift[tier]);
	struct mf_page *page = mf_geometry_descriptor(g, tier, pfn);
	const struct oracle_folio *f = oracle_at(&ops->oracle, pfn);
	bool below = f && mf_page_tier(ops->map, &f->handle->page) < tier;
	bool expected = !below || mf_page_kind(page) == MF_KIND_NONE;

	operations_begin(ops, OP_TRY_GET_TIER, pfn, tier);
	got(ops, mf_folio_try_get(ops->map, page), pfn, expected, false);
}

static void hold(struct operations *ops, enum operation what)
{
	uint32_t number = any_folio_that(ops, is_held);
	struct oracle_folio *f = &ops->oracle.folio[number];

	if (!number)
		return;
	operations_begin(ops, what, f->pfn, f->order);
	if (what == OP_GET)
		mf_folio_get(f->handle);
	else if (mf_folio_pin(f->handle) != 0)
		oracle_fail(&ops->oracle, "a pin of the folio at pfn %llu was refused", (unsigned long long)f->pfn);
	else
		f->pins++;
	f->refs++;
	operations_end(ops, 0);
	oracle_check_folio(&ops->oracle, number);
}

static void map_some(struct operations *ops)
{
	uint32_t number = any_folio_that(ops, is_held), nr = 1 + (uint32_t)choose(ops, 256);
	struct oracle_folio *f = &ops->oracle.folio[number];
	bool whole = choose(ops, 2);
	int err;

	if (!number)
		return;
	operations_begin(ops, OP_MAP, f->pfn, whole ? 0 : nr);
	err = whole ? mf_folio_map_whole(f->handle) : mf_folio_map_frames(f->handle, nr);
	f->mapped += whole ? 1 : (int32_t)nr;
	f->whole += whole;
	operations_end(ops, err);
	if (err)
		oracle_fail(&ops->oracle, "a mapping of the folio at pfn %llu was refused", (unsigned long long)f->pfn);
	oracle_check_folio(&ops->oracle, number);
}

static void unmap_some(struct operations *ops)
{
	uint32_t number = any_folio_that(ops, is_mapped), nr;
	struct oracle_folio *f = &ops->oracle.folio[number];

	if (!number)
		return;
	nr = 1 + (uint32_t)choose(ops, (uint64_t)f->mapped);
	nr = (uint32_t)mf_min(nr, (uint64_t)(f->mapped - f->whole));
	operations_begin(ops, OP_UNMAP, f->pfn, nr);
	if (nr)
		mf_folio_unmap_frames(f->handle, nr);
	else
		mf_folio_unmap_whole(f->handle);
	f->mapped -= nr ? (int32_t)nr : 1;
	f->whole -= nr == 0;
	operations_end(ops, 0);
	oracle_check_folio(&ops->oracle, number);
}

static void freeze(struct operations *ops)
{
	uint32_t number = any_folio_that(ops, is_held);
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
		oracle_fail(&ops->oracle, "a freeze of the folio at pfn %llu from %u gave %d", (unsigned long long)f->pfn,
			    expected, frozen);
	f->refs = frozen ? 0 : f->refs;
	oracle_check_folio(&ops->oracle, number);
}

static void unfreeze(struct operations *ops)
{
	uint32_t number = any_folio_that(ops, is_frozen), count = (uint32_t)choose(ops, 4);
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
	uint32_t number = any_folio_that(ops, is_held);
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

/* ---- Split and merge ------------------------------------------------------------------------------------------- */

static void was_split(struct operations *ops, uint32_t number, unsigned piece)
{
	const struct oracle_folio was = ops->oracle.folio[number];
	mf_pfn_t end = was.pfn + ((mf_pfn_t)1 << was.order);

	oracle_folio_removed(&ops->oracle, number);
	for (mf_pfn_t pfn = was.pfn; pfn < end && !ops->oracle.failed; pfn += (mf_pfn_t)1 << piece) {
		uint32_t new = oracle_folio_added(&ops->oracle, mf_pfn_folio(ops->map, pfn), pfn, piece);
		struct oracle_folio *f = &ops->oracle.folio[new];

		if (!new)
			return;
		f->owner = was.owner;
		f->flags = was.flags;
		f->index = was.index + (pfn - was.pfn);
		f->private_data = pfn == was.pfn ? was.private_data : 0;
		oracle_check_frame(&ops->oracle, pfn);
		oracle_check_frame(&ops->oracle, pfn + ((mf_pfn_t)1 << piece) - 1);
	}
	ops->split[ops->nr_splits % OPERATIONS_SPLITS].pfn = was.pfn;
	ops->split[ops->nr_splits++ % OPERATIONS_SPLITS].order = was.order;
}

static unsigned any_piece(struct operations *ops, unsigned order)
{
	unsigned piece;

	switch (choose(ops, 4)) {
	case 0:
		piece = 0;
		break;
	case 1:
		piece = order > ops->step ? ops->step : 0;
		break;
	case 2:
		piece = order - 1;
		break;
	default:
		piece = (unsigned)choose(ops, order + 1);
		break;
	}
	return order > ops->pieces_log2_max ? (unsigned)mf_max(piece, order - ops->pieces_log2_max) : piece;
}

static void split(struct operations *ops)
{
	uint32_t number = any_folio_that(ops, choose(ops, 2) ? is_large : is_huge);
	struct oracle_folio *f = &ops->oracle.folio[number];
	unsigned piece;
	int err, expected;

	if (!number)
		return;
	piece = any_piece(ops, f->order);
	expected = piece >= f->order ? -MF_EINVAL : is_sole(f) ? 0 : -MF_EBUSY;
	operations_begin(ops, OP_SPLIT, f->pfn, (uint64_t)f->order << 8 | piece);
	err = mf_folio_split(ops->map, f->handle, piece);
	operations_end(ops, err);
	if (err != expected && !(err == -MF_ENOMEM && expected == 0 && ops->on_tables))
		oracle_fail(&ops->oracle, "a split of the folio at pfn %llu from order %u to %u gave %d; %d was expected",
			    (unsigned long long)f->pfn, f->order, piece, err, expected);
	else if (!err)
		was_split(ops, number, piece);
	else
		oracle_check_folio(&ops->oracle, number);
}

static int expected_merge(struct operations *ops, mf_pfn_t pfn, unsigned order)
{
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order);
	const struct oracle_folio *first = oracle_at(&ops->oracle, pfn);

	if (pfn & (end - pfn - 1) || end > ops->oracle.span)
		return -MF_EINVAL;
	if (!first)
		return -MF_EBUSY;
	for (mf_pfn_t at = pfn; at < end;) {
		const struct oracle_folio *f = oracle_at(&ops->oracle, at);

		if (!f || f->pfn != at || !is_sole(f) || f->owner != first->owner ||
		    ops->oracle.frame[at].region != ops->oracle.frame[pfn].region)
			return -MF_EBUSY;
		at += (mf_pfn_t)1 << f->order;
		if (at > end)
			return -MF_EBUSY;
	}
	return 0;
}

static void was_merged(struct operations *ops, struct mf_folio *folio, mf_pfn_t pfn, unsigned order)
{
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order);
	const struct oracle_folio first = *oracle_at(&ops->oracle, pfn);
	uint32_t number;

	while (pfn < end) {
		number = ops->oracle.frame[pfn].folio;
		pfn += (mf_pfn_t)1 << ops->oracle.folio[number].order;
		oracle_folio_removed(&ops->oracle, number);
	}
	number = oracle_folio_added(&ops->oracle, folio, first.pfn, order);
	if (!number)
		return;
	ops->oracle.folio[number].owner = first.owner;
	ops->oracle.folio[number].index = first.index;
	ops->oracle.folio[number].private_data = first.private_data;
	ops->oracle.folio[number].flags = first.flags;
	oracle_check_folio(&ops->oracle, number);
}

static void merge(struct operations *ops)
{
	uint32_t number = any_folio(ops);
	unsigned recent = (unsigned)choose(ops, OPERATIONS_SPLITS), order;
	struct mf_folio *folio = NULL;
	int err, expected;
	mf_pfn_t pfn;

	if (!number)
		return;
	if (recent < ops->nr_splits && choose(ops, 4)) {
		pfn = ops->split[recent].pfn;
		order = ops->split[recent].order;
	} else {
		order = ops->oracle.folio[number].order + (unsigned)choose(ops, 4);
		pfn = mf_round_down(ops->oracle.folio[number].pfn, (mf_pfn_t)1 << order) + (choose(ops, 16) == 0);
	}
	expected = expected_merge(ops, pfn, order);
	operations_begin(ops, OP_MERGE, pfn, order);
	err = mf_folio_merge(ops->map, pfn, order, &folio);
	operations_end(ops, err);
	if (err != expected)
		oracle_fail(&ops->oracle, "a merge at pfn %llu to order %u gave %d; %d was expected", (unsigned long long)pfn,
			    order, err, expected);
	else if (!err)
		was_merged(ops, folio, pfn, order);
	else if (pfn < ops->oracle.span)
		oracle_check_range(&ops->oracle, pfn, mf_min(pfn + ((mf_pfn_t)1 << order), ops->oracle.span));
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
		oracle_fail(&ops->oracle, "the next folio from pfn %llu to %llu is %p, then %llu; %p, %llu were expected",
			    (unsigned long long)pfn, (unsigned long long)end, (const void *)found,
			    (unsigned long long)after, f ? (const void *)f->handle : NULL, (unsigned long long)expected);
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
	case OP_GET:
	case OP_PIN:
		hold(ops, what);
		break;
	case OP_TRY_GET:
	case OP_TRY_PIN:
		try_take(ops, what);
		break;
	case OP_TRY_GET_TIER:
		try_get_tier(ops);
		break;
	case OP_MAP:
		map_some(ops);
		break;
	case OP_UNMAP:
		unmap_some(ops);
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
	case OP_SPLIT:
		split(ops);
		break;
	case OP_MERGE:
		merge(ops);
		break;
	default:
		next(ops);
		break;
	}
}
