/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations_diet.c - folios go on the diet of their layout and off it, one by one and in lists, whatever they are used
 * for; and the switch.
 *
 * A folio is frozen for it, unless it is frozen already, and has its references back afterwards.
 */
#include "tests/lib/operations.h"

enum { LIST_MAX = 16 };

/* ---- Which folio ------------------------------------------------------------------------------------------------- */

static bool can_change(const struct oracle_folio *f)
{
	return f->kind == MF_KIND_USED && f->pins == 0;
}

/* A region of the classic layouts, or NULL; compounds are changed by nobody. */
static const struct oracle_region *any_classic(struct operations *ops)
{
	unsigned first = (unsigned)choose(ops, ORACLE_REGIONS_MAX);

	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
		const struct oracle_region *r = &ops->oracle.region[(first + i) % ORACLE_REGIONS_MAX];

		if (r->present && oracle_is_remapped(r->config.layout))
			return r;
	}
	return NULL;
}

static bool saves_slots(const struct operations *ops, const struct oracle_folio *f)
{
	const struct mf_region_config *c = &oracle_region_at(&ops->oracle, f->pfn)->config;

	return oracle_is_remapped(c->layout) && oracle_saves(&ops->oracle, c, f->pfn, f->order);
}

/* A folio, or 0: in this region if there is one, and large enough for a diet rather than not. */
static uint32_t any_dieting(struct operations *ops, const struct oracle_region *r)
{
	uint32_t number, other = 0;

	for (unsigned i = 0; i < 4 && r; i++) {
		mf_pfn_t pfn = r->config.start_pfn + choose(ops, r->config.end_pfn - r->config.start_pfn);

		number = ops->oracle.frame[pfn].folio;
		if (!number || !can_change(&ops->oracle.folio[number]))
			continue;
		if (saves_slots(ops, &ops->oracle.folio[number]))
			return number;
		other = number;
	}
	return other ? other : operations_any_folio_that(ops, can_change);
}

/* ---- What is expected -------------------------------------------------------------------------------------------- */

static bool wants_remap(const struct operations *ops, const struct oracle_folio *f)
{
	return !ops->diet_is_off && !f->dieted && saves_slots(ops, f);
}

/* A map in the memory that it describes stays as it is, unless that was asked for. */
static int expected_remap(const struct operations *ops, const struct oracle_folio *f)
{
	const struct mf_region_config *c = &oracle_region_at(&ops->oracle, f->pfn)->config;

	if (!wants_remap(ops, f) || !ops->on_tables || c->source != MF_SOURCE_SELF)
		return 0;
	return c->flags & MF_REGION_DIET_SELF_HOSTED ? 0 : -MF_EOPNOTSUPP;
}

/* With little RAM; also because a block that lacked it, some time ago, still hosts slots of its own. */
static bool may_fail(const struct operations *ops, const struct oracle_folio *f, int err)
{
	const struct mf_region_config *c = &oracle_region_at(&ops->oracle, f->pfn)->config;

	if (err == -MF_EOPNOTSUPP)
		return ops->hog && c->flags & MF_REGION_RESTORE_FROM_SELF;
	return err == -MF_ENOMEM && operations_lack_ram(ops);
}

/* ---- Frozen for it ----------------------------------------------------------------------------------------------- */

/* The references that it has back afterwards. */
static uint32_t freeze(struct operations *ops, uint32_t number)
{
	struct oracle_folio *f = &ops->oracle.folio[number];
	uint32_t refs = f->refs;

	if (refs && !mf_folio_freeze(f->handle, refs))
		oracle_fail(&ops->oracle, "the folio at pfn %llu cannot be frozen from %u",
			    (unsigned long long)f->pfn, refs);
	f->refs = 0;
	return refs;
}

static void thaw(struct operations *ops, uint32_t number, uint32_t refs)
{
	struct oracle_folio *f = &ops->oracle.folio[number];

	oracle_check_folio(&ops->oracle, number);
	if (refs)
		mf_folio_unfreeze(f->handle, refs);
	f->refs = refs;
	oracle_check_frame(&ops->oracle, f->pfn);
}

/* ---- One folio --------------------------------------------------------------------------------------------------- */

static void remap(struct operations *ops)
{
	uint32_t number = any_dieting(ops, any_classic(ops)), refs;
	struct oracle_folio *f = &ops->oracle.folio[number];
	int err, expected;
	bool wanted;

	if (!number)
		return;
	wanted = wants_remap(ops, f);
	expected = expected_remap(ops, f);
	operations_begin(ops, OP_REMAP, f->pfn, f->order);
	refs = freeze(ops, number);
	err = mf_diet_remap(ops->map, f->handle);
	operations_end(ops, err);
	if (err != expected && !(wanted && may_fail(ops, f, err)))
		oracle_fail(&ops->oracle, "a remap of the folio at pfn %llu, order %u, gave %d; %d was expected",
			    (unsigned long long)f->pfn, f->order, err, expected);
	if (!err && wanted) {
		oracle_folio_dieted(&ops->oracle, number);
		ops->nr_remapped++;
	}
	thaw(ops, number, refs);
}

static void restore(struct operations *ops)
{
	uint32_t number = any_dieting(ops, any_classic(ops)), refs;
	struct oracle_folio *f = &ops->oracle.folio[number];
	int err;

	if (!number)
		return;
	operations_begin(ops, OP_RESTORE, f->pfn, f->order);
	refs = freeze(ops, number);
	err = mf_diet_restore(ops->map, f->handle);
	operations_end(ops, err);
	if (err && !(err == -MF_ENOMEM && f->dieted && operations_lack_ram(ops)))
		oracle_fail(&ops->oracle, "a restore of the folio at pfn %llu, order %u, gave %d",
			    (unsigned long long)f->pfn, f->order, err);
	ops->nr_restored += !err && f->dieted;
	if (!err)
		oracle_folio_restored(&ops->oracle, number);
	thaw(ops, number, refs);
}

/* ---- Lists ------------------------------------------------------------------------------------------------------- */

struct batch {
	unsigned nr;
	struct { uint32_t number, refs; } at[LIST_MAX];
	struct mf_list list;
};

static struct oracle_folio *batch_folio(struct operations *ops, const struct batch *b, unsigned i)
{
	return &ops->oracle.folio[b->at[i].number];
}

static bool has(const struct batch *b, uint32_t number)
{
	for (unsigned i = 0; i < b->nr; i++)
		if (b->at[i].number == number)
			return true;
	return false;
}

/* Mostly of one region: a list costs one flush, from its first slot to its last. */
static void batch_make(struct operations *ops, struct batch *b, enum operation what)
{
	const struct oracle_region *r = any_classic(ops);
	unsigned nr = (unsigned)choose(ops, LIST_MAX + 1);
	bool is_mixed = choose(ops, 8) == 0;

	b->nr = 0;
	mf_list_init(&b->list);
	for (; nr > 0; nr--) {
		uint32_t number = any_dieting(ops, is_mixed ? any_classic(ops) : r);

		if (!number || has(b, number))
			continue;
		b->at[b->nr].number = number;
		b->at[b->nr].refs = freeze(ops, number);
		mf_list_push_back(&b->list, &ops->oracle.folio[number].handle->page.list);
		b->nr++;
	}
	operations_begin(ops, what, b->nr ? batch_folio(ops, b, 0)->pfn : 0, b->nr);
}

/* Holds the list those of the batch from `first` on, so many and in their order?  It is empty afterwards. */
static bool batch_is_listed(struct operations *ops, const struct batch *b, struct mf_list *list, unsigned first,
			    unsigned nr)
{
	bool same = true;

	for (unsigned i = first; i < first + nr && same; i++) {
		struct mf_list *node = list->next;

		same = node == &batch_folio(ops, b, i)->handle->page.list;
		if (same)
			mf_list_remove(node);
	}
	return same && mf_list_is_empty(list);
}

static void batch_end(struct operations *ops, struct batch *b)
{
	for (unsigned i = 0; i < b->nr; i++)
		thaw(ops, b->at[i].number, b->at[i].refs);
}

/* Why it is not on its diet; -MF_ENOMEM when that is a guess. */
static int reason_of(const struct operations *ops, const struct oracle_folio *f, int err)
{
	int expected = expected_remap(ops, f);

	if (expected)
		return expected;
	return may_fail(ops, f, err) ? err : -MF_ENOMEM;
}

/* What became of each, and the error that the first one not on its diet stands for. */
static int remapped(struct operations *ops, const struct batch *b, int err, uint64_t *nr)
{
	int first = 0;

	*nr = 0;
	for (unsigned i = 0; i < b->nr; i++) {
		struct oracle_folio *f = batch_folio(ops, b, i);
		int expected = expected_remap(ops, f), reason = reason_of(ops, f, err);
		bool is_on = mf_folio_is_on_diet(f->handle);

		if (!wants_remap(ops, f))
			continue;
		if (is_on ? expected != 0 : reason != expected && !may_fail(ops, f, reason))
			oracle_fail(&ops->oracle, "a remap of %u folios gave %d, and number %u is %s its diet", b->nr,
				    err, i, is_on ? "on" : "not on");
		if (!is_on) {
			first = first ? first : reason;
			continue;
		}
		oracle_folio_dieted(&ops->oracle, b->at[i].number);
		++*nr;
	}
	return first;
}

static void remap_list(struct operations *ops)
{
	uint64_t nr, nr_dieted;
	int err, expected;
	struct batch b;

	batch_make(ops, &b, OP_REMAP_LIST);
	err = mf_diet_remap_list(ops->map, &b.list, &nr);
	operations_end(ops, err);
	expected = remapped(ops, &b, err, &nr_dieted);
	ops->nr_remapped += nr_dieted;
	if (err != expected || nr != nr_dieted || !batch_is_listed(ops, &b, &b.list, 0, b.nr))
		oracle_fail(&ops->oracle, "a remap of %u folios gave %d for %llu of them; %d and %llu were expected",
			    b.nr, err, (unsigned long long)nr, expected, (unsigned long long)nr_dieted);
	batch_end(ops, &b);
}

/* As far as it goes, in order; those that are off their diet have moved to the other list. */
static void restore_list(struct operations *ops)
{
	struct mf_list restored;
	uint64_t nr, nr_off = 0;
	unsigned done = 0;
	struct batch b;
	int err;

	mf_list_init(&restored);
	batch_make(ops, &b, OP_RESTORE_LIST);
	err = mf_diet_restore_list(ops->map, &b.list, &restored, &nr);
	operations_end(ops, err);
	if (err && !(err == -MF_ENOMEM && operations_lack_ram(ops)))
		oracle_fail(&ops->oracle, "a restore of %u folios gave %d", b.nr, err);
	while (done < b.nr && !mf_folio_is_on_diet(batch_folio(ops, &b, done)->handle)) {
		nr_off += batch_folio(ops, &b, done)->dieted;
		oracle_folio_restored(&ops->oracle, b.at[done++].number);
	}
	ops->nr_restored += nr_off;
	if (nr != nr_off || (err == 0) != (done == b.nr) || !batch_is_listed(ops, &b, &restored, 0, done) ||
	    !batch_is_listed(ops, &b, &b.list, done, b.nr - done))
		oracle_fail(&ops->oracle,
			    "a restore of %u folios gave %d for %llu of them; %u are off it, %llu of them by this",
			    b.nr, err, (unsigned long long)nr, done, (unsigned long long)nr_off);
	batch_end(ops, &b);
}

/* ---- The switch -------------------------------------------------------------------------------------------------- */

/* On most of the time. */
static void diet_switch(struct operations *ops)
{
	bool on = choose(ops, 4) != 0;

	operations_begin(ops, OP_DIET_SWITCH, on, 0);
	mf_diet_switch(ops->map, on);
	ops->diet_is_off = !on;
	operations_end(ops, 0);
	if (mf_diet_is_on(ops->map) != on)
		oracle_fail(&ops->oracle, "the switch is not where it was put");
}

void operations_run_diet(struct operations *ops, enum operation what)
{
	switch (what) {
	case OP_REMAP:
		remap(ops);
		break;
	case OP_RESTORE:
		restore(ops);
		break;
	case OP_REMAP_LIST:
		remap_list(ops);
		break;
	case OP_RESTORE_LIST:
		restore_list(ops);
		break;
	default:
		diet_switch(ops);
		break;
	}
}
