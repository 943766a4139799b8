/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations_split.c - folios split into smaller ones and merged into larger ones, and what becomes of what they were
 * marked with.
 */
#include "tests/lib/operations.h"

static bool is_large(const struct oracle_folio *f)
{
	return f->order > 0;
}

static bool is_sole(const struct oracle_folio *f)
{
	return f->refs == 1 && f->pins == 0 && f->mapped == 0;
}

/* Nothing but its holder may say no to a split or a merge. */
static bool is_whole(const struct oracle_folio *f)
{
	return is_sole(f) && f->kind == MF_KIND_USED && !f->dieted;
}

/* At least a block of tier 1, for every P, and nobody else's. */
static bool is_huge(const struct oracle_folio *f)
{
	return f->order >= 9 && is_sole(f);
}

/* ---- Split ------------------------------------------------------------------------------------------------------- */

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
	uint32_t number = operations_any_folio_that(ops, choose(ops, 2) ? is_large : is_huge);
	struct oracle_folio *f = &ops->oracle.folio[number];
	unsigned piece;
	int err, expected;

	if (!number)
		return;
	piece = any_piece(ops, f->order);
	expected = piece >= f->order || f->kind == MF_KIND_DEVICE ? -MF_EINVAL : is_whole(f) ? 0 : -MF_EBUSY;
	operations_begin(ops, OP_SPLIT, f->pfn, (uint64_t)f->order << 8 | piece);
	err = mf_folio_split(ops->map, f->handle, piece);
	operations_end(ops, err);
	if (err != expected && !(err == -MF_ENOMEM && expected == 0 && ops->on_tables))
		oracle_fail(&ops->oracle,
			    "a split of the folio at pfn %llu from order %u to %u gave %d; %d was expected",
			    (unsigned long long)f->pfn, f->order, piece, err, expected);
	else if (!err)
		was_split(ops, number, piece);
	else
		oracle_check_folio(&ops->oracle, number);
}

/* ---- Merge ------------------------------------------------------------------------------------------------------- */

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

		if (!f || f->pfn != at || !is_whole(f) || f->owner != first->owner ||
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
	uint32_t number = operations_any_folio(ops);
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
		oracle_fail(&ops->oracle, "a merge at pfn %llu to order %u gave %d; %d was expected",
			    (unsigned long long)pfn, order, err, expected);
	else if (!err)
		was_merged(ops, folio, pfn, order);
	else if (pfn < ops->oracle.span)
		oracle_check_range(&ops->oracle, pfn, mf_min(pfn + ((mf_pfn_t)1 << order), ops->oracle.span));
}

void operations_run_split(struct operations *ops, enum operation what)
{
	if (what == OP_SPLIT)
		split(ops);
	else
		merge(ops);
}
