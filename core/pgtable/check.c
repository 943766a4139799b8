/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check.c - going through all of the page tables: visit, survives, check.
 *
 * Owns nothing and changes nothing.  Law: check believes nothing that it can count itself.  Does not look at
 * frames that leaves point to, and trusts that addresses in table entries are memory.
 */
#include "entry.h"

/* ---- Visits --------------------------------------------------------------------------------------------- */

/* Does it lead to a uniform table? */
static bool entry_is_uniform(const struct mf_pgtable *pt, unsigned level, uint64_t entry)
{
	return level == 1 && !entry_is_leaf(&pt->machine->paging, 1, entry) &&
	       table_is_uniform(pt, entry_table(pt, entry));
}

/* Bounded recursion: once a level. */
static int visit_below(const struct mf_pgtable *pt, const uint64_t *table, unsigned level, uintptr_t table_va,
		       mf_pgtable_visit_fn visit, void *ctx)
{
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t span = mf_pgtable_span(p, level);

	for (unsigned i = 0; i < paging_fanout(p); i++) {
		uint64_t entry = entry_load(&table[i]);
		bool is_table = !entry_is_leaf(p, level, entry);
		uintptr_t va = table_va + i * span;
		int answer;

		if (pgtable_is_background(pt, level, entry))
			continue;
		answer = visit(ctx, level, va, entry_pfn(p, entry), is_table);
		if (answer == 0 && is_table && !entry_is_uniform(pt, level, entry))
			answer = visit_below(pt, entry_table(pt, entry), level - 1, va, visit, ctx);
		if (answer != 0)
			return answer;
	}
	return 0;
}

int mf_pgtable_for_each(const struct mf_pgtable *pt, mf_pgtable_visit_fn visit, void *ctx)
{
	unsigned top = pt->machine->paging.levels - 1;

	return visit_below(pt, pgtable_table(pt, pt->root), top, pgtable_first(pt), visit, ctx);
}

struct survival {
	const struct mf_pgtable *pt;
	mf_pgtable_dies_fn dies;
	void *ctx;
};

static int entry_survives(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table)
{
	const struct survival *s = ctx;

	/* Nothing in a uniform table can be cleared. */
	if (is_table)
		return level == 1 && table_is_uniform(s->pt, pgtable_table(s->pt, pfn));
	return level > 0 || !s->dies(s->ctx, va);
}

bool mf_pgtable_survives(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pgtable_dies_fn dies, void *ctx)
{
	struct survival survival = {pt, dies, ctx};
	uint64_t span = mf_pgtable_span(&pt->machine->paging, level + 1);
	mf_pfn_t pfn;

	if (!mf_pgtable_table(pt, va, level, &pfn))
		return false;
	return visit_below(pt, pgtable_table(pt, pfn), level, va & ~(uintptr_t)(span - 1), entry_survives, &survival) !=
	       0;
}

/* ---- Check ---------------------------------------------------------------------------------------------- */

struct checker {
	const struct mf_pgtable *pt;
	char *text;
	size_t size;
	const uint64_t *uniform; /* the one found good last: neighbours mostly lead to the same               */
	uint64_t nr_private[MF_PGTABLE_LEVELS_MAX];
};

/* The sentence, or its fixed form where there is no room for one: a finding is never NULL. */
#define FINDING(c, ...)                                                                                                \
	((c)->size > 0 ? (mf_format((c)->text, (c)->size, __VA_ARGS__), (const char *)(c)->text)                       \
		       : "a law of the page tables is broken")

static const char *check_table(struct checker *c, const uint64_t *table, unsigned level, uintptr_t table_va);

static bool is_shared_frame(const struct mf_pgtable *pt, mf_pfn_t pfn)
{
	for (unsigned level = 0; level < pt->machine->paging.levels - 1; level++)
		if (pfn == pt->shared[level])
			return true;
	return pfn == pt->zero || pfn == pt->root;
}

/* Does entry i of a table from table_va on serve any address of the range? */
static bool entry_is_in_range(const struct mf_pgtable *pt, unsigned level, uintptr_t table_va, unsigned i)
{
	const struct mf_paging *p = &pt->machine->paging;
	unsigned shift = p->page_shift + level * paging_fanout_shift(p);
	uint64_t span = mf_pgtable_span(p, level);
	uintptr_t first = table_va + i * span;

	if (shift >= 64 ? i != 0 : (uint64_t)i << shift >> shift != i)
		return false;
	return first + (span - 1) >= pt->base && first <= pt->base + (pt->size_bytes - 1);
}

static const char *check_leaf(struct checker *c, uint64_t entry, unsigned level, uintptr_t va)
{
	const struct mf_paging *p = &c->pt->machine->paging;
	mf_pfn_t pfn = entry_pfn(p, entry), inside = leaf_frames(p, level) - 1;
	enum mf_prot prot = entry_is_writable(p, entry) ? MF_PROT_WRITE : MF_PROT_READ;

	if (level > p->max_leaf_level || (pfn & c->pt->level[level].forbidden_bits) != 0 ||
	    entry != (frame_paddr(p, pfn) | leaf_bits(p, level, prot)))
		return FINDING(c, "M1: leaf 0x%llx of level %u at 0x%llx is malformed.", (unsigned long long)entry,
			       level, (unsigned long long)va);
	if ((c->pt->zero & ~inside) == pfn)
		return FINDING(c, "M6: leaf 0x%llx of level %u at 0x%llx maps the zero frame.",
			       (unsigned long long)entry, level, (unsigned long long)va);
	return NULL;
}

/* What is marked as uniform, from va on: one frame, read-only, every entry counted, all soft bits of the mark set. */
static const char *check_uniform(struct checker *c, const uint64_t *table, uintptr_t va)
{
	const struct mf_pgtable *pt = c->pt;
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t soft = pt->soft_mask, first = entry_load(table) & ~soft;
	const char *finding;

	if (table == c->uniform)
		return NULL;
	finding = check_leaf(c, first, 0, va);
	if (finding)
		return finding;
	if (entry_is_writable(p, first))
		return FINDING(c, "M6: the uniform table at 0x%llx is writable.", (unsigned long long)va);
	for (unsigned i = 0; i < paging_fanout(p); i++)
		if ((entry_load(&table[i]) & ~soft) != first)
			return FINDING(c, "M6: entry %u of the uniform table at 0x%llx is unlike the others.", i,
				       (unsigned long long)va);
	for (unsigned i = table_digits(p); i < paging_fanout(p); i++)
		if ((entry_load(&table[i]) & soft) != (i == UNIFORM_MARK ? soft : 0))
			return FINDING(c, "M8: entry %u of the uniform table at 0x%llx is marked wrongly.", i,
				       (unsigned long long)va);
	if (table_count(p, table) != paging_fanout(p))
		return FINDING(c, "M8: the uniform table at 0x%llx counts %u entries.", (unsigned long long)va,
			       table_count(p, table));
	c->uniform = table;
	return NULL;
}

/* A private entry that is no leaf. */
static const char *check_table_entry(struct checker *c, uint64_t entry, unsigned level, uintptr_t va)
{
	const struct mf_pgtable *pt = c->pt;
	const struct mf_paging *p = &pt->machine->paging;
	mf_pfn_t pfn = entry_pfn(p, entry);

	if (entry != table_entry(p, pfn))
		return FINDING(c, "M1: entry 0x%llx of level %u at 0x%llx is neither a leaf nor a table.",
			       (unsigned long long)entry, level, (unsigned long long)va);
	if (is_shared_frame(pt, pfn))
		return FINDING(c, "M6: entry 0x%llx of level %u at 0x%llx leads to a frame that is shared elsewhere.",
			       (unsigned long long)entry, level, (unsigned long long)va);
	if (entry_is_uniform(pt, level, entry))
		return check_uniform(c, entry_table(pt, entry), va);
	return check_table(c, entry_table(pt, entry), level - 1, va);
}

static const char *check_entry(struct checker *c, uint64_t entry, unsigned level, uintptr_t table_va, unsigned i)
{
	const struct mf_paging *p = &c->pt->machine->paging;
	uintptr_t va = table_va + i * mf_pgtable_span(p, level);

	if (!entry_is_in_range(c->pt, level, table_va, i))
		return FINDING(c, "M1: entry %u of level %u at 0x%llx is private and serves no address of the range.",
			       i, level, (unsigned long long)va);
	return entry_is_leaf(p, level, entry) ? check_leaf(c, entry, level, va)
					      : check_table_entry(c, entry, level, va);
}

static const char *check_table(struct checker *c, const uint64_t *table, unsigned level, uintptr_t table_va)
{
	const struct mf_pgtable *pt = c->pt;
	const struct mf_paging *p = &pt->machine->paging;
	uint64_t soft = pt->soft_mask, before = pt->level[level].background;
	unsigned nr = 0, nr_digits = table_digits(p);

	c->nr_private[level]++;
	for (unsigned i = 0; i < paging_fanout(p); i++) {
		uint64_t entry = entry_load(&table[i]);
		const char *finding;

		if (i >= nr_digits && (entry & soft) != 0)
			return FINDING(c, "M8: entry %u of the table of level %u at 0x%llx has a digit and should not.",
				       i, level, (unsigned long long)table_va);
		if (level == 0 && entry_is_writable(p, entry) && ((entry ^ before) & ~soft) == 0)
			return FINDING(c, "M6: entries %u and %u of the table at 0x%llx write to one frame.", i - 1, i,
				       (unsigned long long)table_va);
		before = entry;
		if (pgtable_is_background(pt, level, entry))
			continue;
		nr++;
		finding = check_entry(c, entry & ~soft, level, table_va, i);
		if (finding)
			return finding;
	}
	if (nr != table_count(p, table))
		return FINDING(c, "M8: the table of level %u at 0x%llx counts %u private entries and has %u.", level,
			       (unsigned long long)table_va, table_count(p, table), nr);
	if (nr == 0 && level < p->levels - 1 && (pt->flags & MF_PGTABLE_PRIVATE) == 0)
		return FINDING(c, "M3: the table of level %u at 0x%llx is private and holds nothing.", level,
			       (unsigned long long)table_va);
	return NULL;
}

static const char *check_shared(struct checker *c)
{
	const struct mf_pgtable *pt = c->pt;
	const struct mf_paging *p = &pt->machine->paging;
	const uint64_t *words = pgtable_table(pt, pt->zero);

	for (unsigned i = 0; i < paging_fanout(p); i++)
		if (entry_load(&words[i]) != 0)
			return FINDING(c, "M6: the zero frame holds 0x%llx at byte %u.",
				       (unsigned long long)entry_load(&words[i]), i * 8);
	for (unsigned level = 0; level < p->levels - 1; level++) {
		words = pgtable_table(pt, pt->shared[level]);
		for (unsigned i = 0; i < paging_fanout(p); i++)
			if (entry_load(&words[i]) != pt->level[level].background)
				return FINDING(c, "M6: entry %u of the shared table of level %u is 0x%llx.", i, level,
					       (unsigned long long)entry_load(&words[i]));
	}
	return NULL;
}

const char *mf_pgtable_check(const struct mf_pgtable *pt, char *text, size_t size)
{
	struct checker c = {.pt = pt, .text = text, .size = size};
	unsigned top = pt->machine->paging.levels - 1;
	const char *finding = check_shared(&c);

	if (!finding)
		finding = check_table(&c, pgtable_table(pt, pt->root), top, pgtable_first(pt));
	for (unsigned level = 0; !finding && level <= top; level++)
		if (c.nr_private[level] != pt->nr_private[level])
			return FINDING(&c, "M8: %llu private tables of level %u are counted and %llu are there.",
				       (unsigned long long)pt->nr_private[level], level,
				       (unsigned long long)c.nr_private[level]);
	return finding;
}
