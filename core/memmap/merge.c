/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * merge.c - larger leaves again: a table that a diet has made of a leaf, of which nothing is on a diet any more.
 *
 *   a leaf   [         2^b frames, one block         ]      remap splits it, frames go;  restore gets single ones
 *   a table  [ a ][ b ][ c ][ d ][ e ][ f ][ g ][ h ]      -> a block is got, filled slot by slot, the table goes
 *
 * Frames of RAM that happen to lie in a row are no block: they were got singly, and are to be given back so.  Those of
 * the region itself may stay.
 *
 * All the memory described there is free and isolated (core/frames/isolate.c), so nobody writes to the slots while they
 * move; the argument is that of hosted.c.  Each slot shows one frame or the other at every moment, with the same
 * contents.
 */
#include "core/memmap/diet.h"

/* A table that a block hosts is the block's (hosted.c), and goes when that settles. */
bool merge_is_due(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	struct mf_entry entry;

	if (map->machine->paging.max_leaf_level < 1)
		return false;
	entry = diet_entry(map, (uintptr_t)map_record(map, 0, pfn));
	return entry.kind == MF_ENTRY_TABLE && !diet_frame_hosts(map, r, entry.pfn);
}

/* Memory that its owner has given for its map is not exchanged for RAM: how many slots lie there. */
static uint64_t count_own(struct mf_map *map, const struct mf_region *r, uintptr_t start)
{
	uint64_t bytes = diet_slot_bytes(map), nr = 0;

	table_lock(map);
	for (uintptr_t va = start; va < start + diet_table_bytes(map); va += bytes) {
		struct mf_translation t = mf_pgtable_walk(&map->pgtable, va);

		MF_ASSERT(!t.background && t.writable);
		nr += t.pfn >= r->config.start_pfn && t.pfn < r->config.end_pfn;
	}
	table_unlock(map);
	return nr;
}

/* The slots from va on move to the frames from `block` on. */
static void move_slots(struct mf_map *map, const struct mf_region *r, struct diet_work *w, uintptr_t va, unsigned nr,
		       mf_pfn_t block)
{
	uint64_t bytes = diet_slot_bytes(map);
	mf_pfn_t to[DIET_CHUNK], from[DIET_CHUNK];

	table_lock(map);
	for (unsigned i = 0; i < nr; i++) {
		mf_pfn_t old = mf_pgtable_walk(&map->pgtable, va + i * bytes).pfn;

		to[i] = block + i;
		__builtin_memcpy(mf_machine_frame(map->machine, to[i]), mf_machine_frame(map->machine, old), bytes);
	}
	mf_pgtable_switch(&map->pgtable, va, to, 1, nr, MF_PROT_WRITE, from);
	table_unlock(map);
	diet_work_changed(w, va, nr * bytes, MF_FLUSH_LEAVES);
	for (unsigned i = 0; i < nr; i++)
		diet_work_add(w, r, from[i], 1, DIET_FRAMES);
}

/* -MF_EINVAL: the frames behind the table are no block. */
static int merge_in_place(struct mf_map *map, const struct mf_region *r, struct diet_work *w, uintptr_t va)
{
	struct mf_bag tables = { 0 };
	int err;

	table_lock(map);
	err = mf_pgtable_merge(&map->pgtable, va, 1, &tables);
	table_unlock(map);
	if (err)
		return err;
	diet_work_changed(w, va, diet_table_bytes(map), MF_FLUSH_TABLES);
	diet_work_add(w, r, mf_bag_take(&tables), 1, DIET_TABLE);
	return 0;
}

int merge_leaf(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	uintptr_t va = (uintptr_t)map_record(map, 0, pfn);
	uint64_t nr = diet_table_slots(map), nr_own = count_own(map, r, va);
	struct diet_work w;
	mf_pfn_t block;
	int err = 0;

	if (nr_own == 0)
		err = ram_get(map, r->config.node, map->geo.step, &block);
	else if (nr_own < nr)
		err = -MF_EINVAL;
	if (err)
		return err;
	diet_work_begin(&w, map, MF_FLUSH_FOR_MERGE, 1);
	for (uint64_t i = 0; i < nr && nr_own == 0; i += DIET_CHUNK)
		move_slots(map, r, &w, va + i * diet_slot_bytes(map), DIET_CHUNK, block + i);
	err = merge_in_place(map, r, &w, va);
	diet_work_end(&w);
	return err;
}
