/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * work.c - what a diet has switched away and may not reuse yet: frames and tables that wait for one flush, and single
 * steps on the entries that led to them.
 */
#include "core/memmap/diet.h"

static void work_reset(struct diet_work *w)
{
	w->start = ~(uintptr_t)0;
	w->end = 0;
	w->scope = MF_FLUSH_LEAVES;
	w->nr = 0;
}

/* A list's folios leave a few runs each; a page or two of control memory makes one flush of many. */
enum { RUNS_PER_UNIT = 2, RUNS_MAX = 4096 };

void diet_work_begin(struct diet_work *w, struct mf_map *map, enum mf_flush_for purpose, uint64_t nr_units)
{
	uint64_t want = nr_units > RUNS_MAX / RUNS_PER_UNIT ? RUNS_MAX : nr_units * RUNS_PER_UNIT;

	w->map = map;
	w->purpose = purpose;
	w->run = want > DIET_RUNS_OWN ? map->machine->ops->meta_alloc(map->machine, want * sizeof(*w->run)) : NULL;
	w->max = w->run ? (unsigned)want : DIET_RUNS_OWN;
	w->run = w->run ? w->run : w->own;
	w->has_split = false;
	w->nth_remap = 0;
	work_reset(w);
}

static void release(struct mf_map *map, const struct diet_run *run)
{
	switch (run->what) {
	case DIET_FRAMES:
		for (mf_pfn_t pfn = run->pfn; pfn < run->pfn + run->nr; pfn++)
			diet_frame_put(map, run->r, pfn);
		break;
	case DIET_BLOCK:
		diet_block_put(map, run->r, run->pfn);
		break;
	case DIET_TABLE:
		map->client->table_put(map, run->r->config.node, run->pfn);
		break;
	case DIET_UNIFORM:
		diet_uniform_end(map, run->r->config.node, run->pfn);
		break;
	}
}

void diet_work_flush(struct diet_work *w)
{
	if (w->end > w->start)
		window_flush(w->map, w->purpose, w->start, w->end - w->start, w->scope);
	for (unsigned i = 0; i < w->nr; i++)
		release(w->map, &w->run[i]);
	work_reset(w);
}

void diet_work_end(struct diet_work *w)
{
	diet_work_flush(w);
	if (w->run != w->own)
		w->map->machine->ops->meta_free(w->map->machine, w->run, w->max * sizeof(*w->run));
}

void diet_work_changed(struct diet_work *w, uintptr_t va, uint64_t bytes, enum mf_flush_scope scope)
{
	w->start = mf_min(w->start, va);
	w->end = mf_max(w->end, va + bytes);
	w->scope = scope == MF_FLUSH_TABLES ? scope : w->scope;
}

/* Needs: what led to it is switched and noted. */
void diet_work_add(struct diet_work *w, const struct mf_region *r, mf_pfn_t pfn, uint32_t nr, enum diet_waste what)
{
	struct diet_run *last = w->nr > 0 ? &w->run[w->nr - 1] : NULL;

	if (last && what == DIET_FRAMES && last->what == what && last->r == r && last->pfn + last->nr == pfn) {
		last->nr += nr;
		return;
	}
	if (w->nr == w->max)
		diet_work_flush(w);
	w->run[w->nr++] = (struct diet_run){ .r = r, .pfn = pfn, .nr = nr, .what = what };
}

/* ---- Entries --------------------------------------------------------------------------------------------------- */

struct mf_entry diet_entry(struct mf_map *map, uintptr_t va)
{
	struct mf_entry entry;

	table_lock(map);
	entry = mf_pgtable_entry(&map->pgtable, va);
	table_unlock(map);
	return entry;
}

struct mf_translation diet_walk(struct mf_map *map, uintptr_t va)
{
	struct mf_translation t;

	table_lock(map);
	t = mf_pgtable_walk(&map->pgtable, va);
	table_unlock(map);
	return t;
}

/* The tables above stand, so none is needed and none becomes uniform. */
struct mf_entry diet_exchange(struct mf_map *map, uintptr_t va, enum mf_entry_kind kind, mf_pfn_t pfn)
{
	struct mf_entry entry = { .kind = kind, .pfn = pfn, .writable = kind == MF_ENTRY_LEAF }, old;
	struct mf_bag none = { 0 };
	int err;

	table_lock(map);
	err = mf_pgtable_exchange(&map->pgtable, va, &entry, &none, &old);
	table_unlock(map);
	MF_PANIC_IF(err != 0 || none.nr != 0,
		    "memfold: the table of a dieted folio's slots at 0x%llx has no table above it.",
		    (unsigned long long)va);
	return old;
}

void diet_protect(const struct diet_unit *u, struct diet_work *w, uint64_t index, enum mf_prot prot)
{
	int err;

	table_lock(u->map);
	err = mf_pgtable_protect(&u->map->pgtable, diet_slot_address(u, index), prot);
	table_unlock(u->map);
	MF_ASSERT(err == 0);
	(void)err;
	diet_work_changed(w, diet_slot_address(u, index), diet_slot_bytes(u->map), MF_FLUSH_LEAVES);
}

