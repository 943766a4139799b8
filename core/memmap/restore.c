/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * restore.c - one folio goes off its diet.
 *
 *   take frames, fill them with tails    switch entries    (flush, unmark)
 *
 * Frames are taken as it goes; when they run out, what was switched is switched back, which needs nothing.  A table
 * whose 2^b slots all belong to the folio becomes a larger leaf again if a block of frames can be had.  A folio that
 * hosts its own slots (hosted.c) has frames enough.
 */
#include "core/memmap/diet.h"

static int take_frame(const struct diet_unit *u, mf_pfn_t *pfn)
{
	if (!u->host)
		return diet_frame_get(u->map, u->r, 0, pfn);
	if (!u->host->has_slots && reserve_take_frame(u->map, u->r, pfn))
		return 0;
	u->host->has_slots = true;
	*pfn = --u->host->first;
	return 0;
}

static int take_table(const struct diet_unit *u, mf_pfn_t *pfn)
{
	if (!u->host)
		return ram_get(u->map, u->r->config.node, 0, pfn);
	*pfn = --u->host->first;
	return 0;
}

/* Frames full of tails for `nr` slots; -MF_ENOMEM and none. */
static int take_tails(const struct diet_unit *u, mf_pfn_t *pfn, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		int err = take_frame(u, &pfn[i]);

		if (err) {
			while (i > 0)
				diet_frame_put(u->map, u->r, pfn[--i]);
			return err;
		}
		diet_write_tails(u->map, mf_machine_frame(u->map->machine, pfn[i]), u->order);
	}
	return 0;
}

/* Slots [index, end) of tables that are private. */
static int restore_slots(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t end)
{
	struct mf_map *map = u->map;

	while (index < end) {
		uint64_t in_table = diet_table_slots(map) - (index & (diet_table_slots(map) - 1));
		unsigned nr = (unsigned)mf_min(mf_min(end - index, in_table), (uint64_t)DIET_CHUNK);
		uintptr_t va = diet_slot_address(u, index);
		mf_pfn_t own[DIET_CHUNK];
		int err = take_tails(u, own, nr);

		if (err)
			return err;
		for (unsigned i = 0; i < nr; i++)
			if (!u->host || own[i] < u->host->first)
				reserve_set_backs(map, u->r, own[i], diet_slot_address(u, index + i));
		table_lock(map);
		mf_pgtable_switch(&map->pgtable, va, own, 1, nr, MF_PROT_WRITE, NULL);
		table_unlock(map);
		diet_work_changed(w, va, nr * diet_slot_bytes(map), MF_FLUSH_LEAVES);
		index += nr;
	}
	return 0;
}

/*
 * A table full of the unit's slots becomes a larger leaf, if there is a block of frames for it.  The first one holds
 * the slots that were kept, whose contents move; the unit is frozen, so nobody writes to them.
 */
static bool restore_leaf(const struct diet_unit *u, struct diet_work *w, uint64_t index)
{
	struct mf_map *map = u->map;
	uint64_t kept = index == 0 ? u->diet->nr_kept : 0, bytes = diet_slot_bytes(map);
	uintptr_t va = diet_slot_address(u, index);
	mf_pfn_t block, own[2] = { 0 };
	struct mf_entry old;
	char *frame;

	/* An altmap has single frames to spare; no RAM is taken in their place. */
	if (u->r->reserve.spare || map->machine->paging.max_leaf_level < 1 ||
	    diet_frame_get(map, u->r, map->geo.step, &block))
		return false;
	frame = mf_machine_frame(map->machine, block);
	diet_copy_kept(u, frame, kept);
	for (uint64_t i = kept; i < diet_table_slots(map); i++)
		diet_write_tails(map, frame + i * bytes, u->order);
	table_lock(map);
	for (uint64_t i = 0; i < kept; i++)
		own[i] = mf_pgtable_walk(&map->pgtable, va + i * bytes).pfn;
	table_unlock(map);
	old = diet_exchange(map, va, MF_ENTRY_LEAF, block);
	diet_work_changed(w, va, diet_table_bytes(map), MF_FLUSH_TABLES);
	for (uint64_t i = 0; i < kept; i++)
		diet_work_add(w, u->r, own[i], 1, DIET_FRAMES);
	if (old.kind == MF_ENTRY_TABLE)
		diet_work_add(w, u->r, old.pfn, 1, DIET_TABLE);
	return true;
}

static int restore_table(const struct diet_unit *u, struct diet_work *w, uint64_t index, mf_pfn_t frame)
{
	struct mf_map *map = u->map;
	uintptr_t va = diet_slot_address(u, index);
	mf_pfn_t table;
	int err;

	if (!u->host && !(map->flags & MF_MAP_PRIVATE_TABLES) && restore_leaf(u, w, index))
		return 0;
	if (diet_entry(map, va).kind == MF_ENTRY_UNIFORM) {
		err = take_table(u, &table);
		if (err)
			return err;
		mf_pgtable_fill(&map->pgtable, table, MF_ENTRY_TABLE, frame, 0, MF_PROT_READ);
		diet_exchange(map, va, MF_ENTRY_TABLE, table);
		diet_work_changed(w, va, diet_table_bytes(map), MF_FLUSH_TABLES);
	}
	return restore_slots(u, w, index == 0 ? u->diet->nr_kept : index, index + diet_table_slots(map));
}

/*
 * The first table last: until then it holds the frame that a failure switches back to.  A host does not fail, and takes
 * frames in the order of the slots.
 */
static int restore_all(const struct diet_unit *u, struct diet_work *w, mf_pfn_t frame)
{
	uint64_t per_table = diet_table_slots(u->map);
	int err = 0;

	if (u->nr_slots < per_table)
		return restore_slots(u, w, u->diet->nr_kept, u->nr_slots);
	for (uint64_t at = 0; at < u->nr_slots && !err; at += per_table)
		err = restore_table(u, w, u->host ? at : u->nr_slots - per_table - at, frame);
	return err;
}

/*
 * The host gives each slot the contents that it showed.  Where that was the head's slot, its first descriptor is the
 * head with its mark, which readers pass by until a tail stands there.
 */
static int restore_host(const struct diet_unit *u)
{
	struct mf_machine *m = u->map->machine;
	uint64_t kept = u->diet->nr_kept * diet_slot_bytes(u->map);
	int err = m->ops->host_unalias(m, (void *)(u->start + kept), u->nr_slots * diet_slot_bytes(u->map) - kept);

	for (uint64_t i = u->diet->nr_kept; i < u->nr_slots && !err && u->diet->tails == MF_TAILS_HEAD; i++) {
		struct mf_page *page = (struct mf_page *)diet_slot_address(u, i);

		map_clear_fields(page);
		map_set_word(page, map_tail_word(u->order));
	}
	return err;
}

int diet_restore(const struct diet_unit *u, struct diet_work *w)
{
	struct mf_map *map = u->map;
	mf_pfn_t frame, uniform = DIET_NO_FRAME;
	int err;

	if (!diet_on_tables(map))
		return restore_host(u);
	table_lock(map);
	frame = mf_pgtable_walk(&map->pgtable, diet_slot_address(u, u->diet->nr_kept)).pfn;
	if (diet_shares_tables(u))
		uniform = mf_pgtable_entry(&map->pgtable, u->start + diet_table_bytes(map)).pfn;
	table_unlock(map);
	err = restore_all(u, w, frame);
	if (err) {
		diet_alias_all(u, w, frame, uniform);
		return err;
	}
	if (u->diet->tails == MF_TAILS_FIRST_TAIL && diet_entry(map, u->start).kind == MF_ENTRY_TABLE)
		diet_protect(u, w, u->diet->nr_kept - 1, MF_PROT_WRITE);
	if (uniform != DIET_NO_FRAME && u->diet->tails != MF_TAILS_ZONE)
		diet_work_add(w, u->r, uniform, 1, DIET_UNIFORM);
	return 0;
}

