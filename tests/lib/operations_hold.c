/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations_hold.c - operations of those who hold folios or would like to: references and pins, taken by who holds
 * one already and by who only guesses; map counts.
 */
#include "tests/lib/operations.h"

static bool is_mapped(const struct oracle_folio *f)
{
	return oracle_is_held(f) && f->mapped > 0;
}

/* ---- References and pins ----------------------------------------------------------------------------------------- */

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
	uint32_t number = operations_any_folio_that(ops, oracle_is_held);
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

/* ---- Maps -------------------------------------------------------------------------------------------------------- */

static void map_some(struct operations *ops)
{
	uint32_t number = operations_any_folio_that(ops, oracle_is_held), nr = 1 + (uint32_t)choose(ops, 256);
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
	uint32_t number = operations_any_folio_that(ops, is_mapped), nr;
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

void operations_run_hold(struct operations *ops, enum operation what)
{
	switch (what) {
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
	default:
		unmap_some(ops);
		break;
	}
}
