/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * window.c - which slots of the windows are backed, on both kinds of machine.
 *
 * Two kinds of slots:  the children of one block, linked and unlinked as it is unfolded and folded (struct children),
 * and slots that live as long as a region does (ensure, trim).  Law M5 in both: change, flush, reuse.
 *
 * TABLES: slots are mapped to map frames by core/pgtable under map->table_lock.  HOST: the host populates and discards;
 * there are no map frames and nothing to flush.
 */
#include "core/memmap/map.h"

static bool on_tables(const struct mf_map *map)
{
	return map->machine->backing == MF_WINDOW_TABLES;
}

static uint64_t slot_bytes(const struct mf_map *map)
{
	return (uint64_t)1 << map->machine->paging.page_shift;
}

/* table_lock may be held across flushes, so its holder is not pinned to a CPU. */
void table_lock(struct mf_map *map)
{
	map_may_wait(map);
	while (!mf_lock_try(&map->table_lock))
		map->machine->ops->relax(map->machine);
}

void table_unlock(struct mf_map *map)
{
	mf_lock_release(&map->table_lock);
}

void window_flush(struct mf_map *map, enum mf_flush_for purpose, uintptr_t start, uint64_t size_bytes,
		  enum mf_flush_scope scope)
{
	struct map_flushes *count = &map->flushes_for[purpose];
	struct mf_machine *m = map->machine;
	unsigned nr_interrupts;
	uint64_t begun;

	map_may_wait(map);
	if (!on_tables(map))
		return;
	map_count(&count->nr, 1);
	begun = due_flush_begin(m, map_due(map));
	nr_interrupts = m->ops->flush(m, start, size_bytes, scope);
	due_flush_end(m, map_due(map), begun, purpose, start, size_bytes, scope);
	if (nr_interrupts > 0)
		map_count(&count->nr_interrupts, nr_interrupts);
}

void window_flush_children(struct mf_map *map, enum mf_flush_for purpose, const struct children *c,
			   enum mf_flush_scope scope)
{
	window_flush(map, purpose, children_address(map, c), children_bytes(map), scope);
}

/* ---- The children of one block --------------------------------------------------------------------------------- */

struct mf_page *children_record(const struct mf_map *map, const struct children *c, unsigned index)
{
	unsigned per_slot_shift = map->machine->paging.page_shift - MF_DESCRIPTOR_SHIFT;
	struct mf_page *slot;

	if (!on_tables(map))
		return (struct mf_page *)children_address(map, c) + index;
	slot = mf_machine_frame(map->machine, c->slot[index >> per_slot_shift]);
	return slot + (index & ((1u << per_slot_shift) - 1));
}

/* As stores of a few registers: this is most of what an unfold costs. */
static inline void write_record(struct mf_page *page, uint64_t word)
{
	page->word = word;
	page->counts = 0;
	map_clear_fields(page);
}

void children_write(struct mf_map *map, const struct children *c, uint64_t word)
{
	unsigned per_slot = (unsigned)(slot_bytes(map) >> MF_DESCRIPTOR_SHIFT);

	if (!on_tables(map)) {
		struct mf_page *page = children_record(map, c, 0);

		/* Readers may look already; the rest of each record is zero since the slots were populated. */
		for (unsigned i = 0; i < children_nr(map); i++)
			__atomic_store_n(&page[i].word, word, __ATOMIC_RELAXED);
		return;
	}
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++) {
		struct mf_page *page = mf_machine_frame(map->machine, c->slot[i]), *end = page + per_slot;

		for (; page < end; page += 4) {
			write_record(page, word);
			write_record(page + 1, word);
			write_record(page + 2, word);
			write_record(page + 3, word);
		}
	}
}

unsigned window_tables_needed(struct mf_map *map, const struct children *c)
{
	unsigned nr;

	if (!on_tables(map))
		return 0;
	table_lock(map);
	nr = mf_pgtable_tables_needed(&map->pgtable, children_address(map, c), 0);
	table_unlock(map);
	return nr;
}

int window_populate_host(struct mf_map *map, const struct children *c)
{
	struct mf_machine *m = map->machine;

	if (on_tables(map))
		return 0;
	return m->ops->host_populate(m, (void *)children_address(map, c), children_bytes(map));
}

int window_link(struct mf_map *map, const struct children *c, struct mf_bag *tables)
{
	int err;

	if (!on_tables(map))
		return 0;
	table_lock(map);
	err = mf_pgtable_map(&map->pgtable, children_address(map, c), 0, c->slot, MF_BLOCK_SLOTS, MF_PROT_WRITE,
			     tables);
	table_unlock(map);
	return err;
}

void window_unlink_locked(struct mf_map *map, struct children *c, struct mf_bag *tables)
{
	if (on_tables(map))
		mf_pgtable_clear(&map->pgtable, children_address(map, c), 0, MF_BLOCK_SLOTS, c->slot, tables);
	else
		map->machine->ops->host_discard(map->machine, (void *)children_address(map, c), children_bytes(map));
}

void window_unlink(struct mf_map *map, struct children *c, struct mf_bag *tables)
{
	table_lock(map);
	window_unlink_locked(map, c, tables);
	table_unlock(map);
}

/* ---- Slots that live as long as a region ----------------------------------------------------------------------- */

static int take_frames(struct mf_map *map, const struct window_ensure *want, unsigned order, mf_pfn_t *pfn)
{
	return want->reserve ? reserve_take(want->reserve, order, pfn) : ram_get(map, want->node, order, pfn);
}

static void untake_frames(struct mf_map *map, const struct window_ensure *want, unsigned order, mf_pfn_t pfn)
{
	if (want->reserve)
		reserve_untake(want->reserve, order, pfn);
	else
		ram_put(map, want->node, order, pfn);
}

/* One larger leaf at va, zeroed.  False when it does not fit there or there is no block of frames for it. */
static bool ensure_leaf(struct mf_map *map, const struct window_ensure *want, uintptr_t va, struct mf_bag *tables)
{
	const struct mf_paging *p = &map->machine->paging;
	uint64_t span = mf_pgtable_span(p, 1);
	unsigned order = p->page_shift - 3;
	mf_pfn_t pfn, table;

	if (!want->leaves || p->max_leaf_level < 1 || va & (span - 1) || va < want->start || want->end - va < span ||
	    mf_pgtable_table(&map->pgtable, va, 0, &table))
		return false;
	if (take_frames(map, want, order, &pfn))
		return false;
	__builtin_memset(mf_machine_frame(map->machine, pfn), 0, span);
	if (mf_pgtable_map(&map->pgtable, va, 1, &pfn, 1, MF_PROT_WRITE, tables) == 0)
		return true;
	untake_frames(map, want, order, pfn);
	return false;
}

static int ensure_slot(struct mf_map *map, const struct window_ensure *want, uintptr_t va, struct mf_bag *tables)
{
	mf_pfn_t pfn;
	int err = take_frames(map, want, 0, &pfn);

	if (err)
		return err;
	__builtin_memset(mf_machine_frame(map->machine, pfn), 0, slot_bytes(map));
	err = mf_pgtable_map(&map->pgtable, va, 0, &pfn, 1, MF_PROT_WRITE, tables);
	if (err)
		untake_frames(map, want, 0, pfn);
	return err;
}

/*
 * Backs slots from `start` on while a bag of tables lasts that suffices for one walk.  Returns 0 and where it got to.
 */
static int ensure_tables(struct mf_map *map, const struct window_ensure *want, uintptr_t start, uintptr_t end)
{
	struct mf_bag tables = { 0 };
	bool changed = false;
	int err = 0;

	for (uintptr_t va = start; va < end && !err;) {
		struct mf_translation t;
		uint64_t step = slot_bytes(map);

		err = ram_fill(map, want->node, &tables, map->machine->paging.levels - 1);
		if (err)
			break;
		table_lock(map);
		t = mf_pgtable_walk(&map->pgtable, va);
		changed |= t.background;
		if (!t.background)
			step = mf_pgtable_span(&map->machine->paging, t.level);
		else if (ensure_leaf(map, want, va, &tables))
			step = mf_pgtable_span(&map->machine->paging, 1);
		else
			err = ensure_slot(map, want, va, &tables);
		table_unlock(map);
		va = mf_round_down(va, step) + step;
	}
	ram_empty(map, want->node, &tables);
	if (changed)
		window_flush(map, MF_FLUSH_FOR_ADD, start, end - start, MF_FLUSH_TABLES);
	map_rely(map, start, end - start);
	return err;
}

int window_ensure(struct mf_map *map, const struct window_ensure *want)
{
	uintptr_t start = mf_round_down(want->start, slot_bytes(map));
	uintptr_t end = mf_round_up(want->end, slot_bytes(map));

	if (on_tables(map))
		return ensure_tables(map, want, start, end);
	if (want->can_alias)
		return map->machine->ops->host_share(map->machine, (void *)start, end - start);
	return map->machine->ops->host_populate(map->machine, (void *)start, end - start);
}

/* Another region's records may change meanwhile; each begins with its word, which is not zero and ends the scan. */
static bool slot_is_zero(const struct mf_map *map, uintptr_t va)
{
	const uint64_t *word = (const uint64_t *)va;

	for (unsigned i = 0; i < slot_bytes(map) / sizeof(*word); i++)
		if (__atomic_load_n(&word[i], __ATOMIC_RELAXED) != 0)
			return false;
	return true;
}

static bool is_own(const struct mf_region *own, mf_pfn_t pfn)
{
	return own && pfn >= own->config.start_pfn && pfn < own->config.end_pfn;
}

/* Unbacks what is backed of [start, end): whole slots and leaves that hold nothing any more. */
static void trim_tables(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node,
			const struct mf_region *own)
{
	unsigned levels = map->machine->paging.levels;
	uintptr_t va = start;

	while (va < end) {
		struct mf_bag tables = { 0 };
		mf_pfn_t frame[MF_BAG_MAX];
		unsigned order[MF_BAG_MAX], nr = 0;
		uintptr_t from = va;

		table_lock(map);
		while (va < end && nr < MF_BAG_MAX && tables.nr + levels <= MF_BAG_MAX) {
			struct mf_translation t = mf_pgtable_walk(&map->pgtable, va);
			uint64_t step = mf_pgtable_span(&map->machine->paging, t.level);

			if (!t.background) {
				order[nr] = t.level * map->geo.step;
				mf_pgtable_clear(&map->pgtable, va, t.level, 1, &frame[nr++], &tables);
			}
			va = mf_round_down(va, step) + step;
		}
		table_unlock(map);
		if (nr > 0)
			window_flush(map, MF_FLUSH_FOR_REMOVE, from, va - from, MF_FLUSH_TABLES);
		for (unsigned i = 0; i < nr; i++)
			if (!is_own(own, frame[i]))
				ram_put(map, node, order[i], frame[i]);
		while (tables.nr > 0) {
			mf_pfn_t table = mf_bag_take(&tables);

			if (!is_own(own, table))
				map->client->table_put(map, node, table);
		}
	}
}

/* A slot that other regions may share: it goes with its last record. */
static void trim_shared_slot(struct mf_map *map, uintptr_t slot, unsigned node)
{
	if (!slot_is_zero(map, slot))
		return;
	if (on_tables(map))
		trim_tables(map, slot, slot + slot_bytes(map), node, NULL);
	else
		map->machine->ops->host_discard(map->machine, (void *)slot, slot_bytes(map));
}

void window_trim(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node, const struct mf_region *own)
{
	uintptr_t first = mf_round_up(start, slot_bytes(map)), last = mf_round_down(end, slot_bytes(map));

	if (first > last) {
		trim_shared_slot(map, last, node);
		return;
	}
	if (start < first)
		trim_shared_slot(map, first - slot_bytes(map), node);
	if (first < last && on_tables(map))
		trim_tables(map, first, last, node, own);
	else if (first < last)
		map->machine->ops->host_discard(map->machine, (void *)first, last - first);
	if (last < end)
		trim_shared_slot(map, last, node);
}

/* ---- Sharing off ----------------------------------------------------------------------------------------------- */

int window_privatise(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node)
{
	const struct mf_paging *p = &map->machine->paging;
	uint64_t span = mf_pgtable_span(p, 1);
	struct mf_bag tables = { 0 };
	int err = 0;

	for (uintptr_t va = mf_max(mf_round_down(start, span), map->geo.window[0]); va < end && !err;
	     va = mf_round_down(va, span) + span) {
		err = ram_fill(map, node, &tables, p->levels - 1);
		if (err)
			break;
		table_lock(map);
		err = mf_pgtable_privatise(&map->pgtable, va, &tables);
		table_unlock(map);
	}
	ram_empty(map, node, &tables);
	window_flush(map, MF_FLUSH_FOR_ADD, start, end - start, MF_FLUSH_TABLES);
	map_rely(map, start, end - start);
	return err;
}

void window_share(struct mf_map *map, uintptr_t start, uintptr_t end, unsigned node)
{
	bool done = false;

	while (!done) {
		struct mf_bag tables = { 0 };

		table_lock(map);
		done = mf_pgtable_share(&map->pgtable, start, end, &tables);
		table_unlock(map);
		window_flush(map, MF_FLUSH_FOR_REMOVE, start, end - start, MF_FLUSH_TABLES);
		while (tables.nr > 0)
			map->client->table_put(map, node, mf_bag_take(&tables));
	}
}
