/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hosted.c - freed folios that host their own map slots, because memory for them was lacking; and how that ends.
 *
 *   [ free ................................. | h | h | h | h | h | h | h ]   hvo-7.1: 505 frames, 7 for slots 1 to 7
 *     ^ pfn, and the head until now            ^ host: the first whose record is of kind map
 *
 * A folio that nobody uses has frames enough for its own descriptors.  They are taken from its end, so that what is
 * left is free in large pieces; also for the tables that its slots need anew.  The records of those frames say what
 * they back, the first one's private_data the order of the block.
 *
 * Neither waits for readers.  Hosting is a restore: no slot turns read-only; the frames that it writes to held a freed
 * folio's data, which nobody reads; and records of hosts are written as those of any free block are, after the flush.
 * Settling is the same copy as any: everything in the block is free and isolated, so nobody writes to the slots, and a
 * compare-and-swap that a reader began before fails in the old frame as it would in the new (docs/LOCKING.md 3.4).
 */
#include "core/memmap/diet.h"

bool diet_frame_hosts(const struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	return pfn >= r->config.start_pfn && pfn < r->config.end_pfn &&
	       diet_word_hosts(mf_page_word(map_record(map, 0, pfn)));
}

/* The private table of level 0 that serves va, or DIET_NO_FRAME. */
static mf_pfn_t table_at(struct mf_map *map, uintptr_t va)
{
	mf_pfn_t pfn = DIET_NO_FRAME;

	table_lock(map);
	(void)mf_pgtable_table(&map->pgtable, va, 0, &pfn);
	table_unlock(map);
	return pfn;
}

/*
 * A smaller folio in such a block: its last slot is none that the block has kept, since it keeps as many itself, and is
 * in one of the block's frames if any of its slots is (struct diet_host); so is the table of that, of its tables, since
 * all but the block's first were uniform.
 */
bool diet_unit_is_hosted(const struct diet_unit *u)
{
	uintptr_t va = diet_slot_address(u, u->nr_slots - 1);

	if (!(u->r->config.flags & MF_REGION_RESTORE_FROM_SELF) || !diet_on_tables(u->map))
		return false;
	return diet_frame_hosts(u->map, u->r, diet_walk(u->map, va).pfn) ||
	       diet_frame_hosts(u->map, u->r, table_at(u->map, va));
}

/* ---- A folio becomes its own host ------------------------------------------------------------------------------ */

static void mark_host(const struct diet_unit *u, mf_pfn_t pfn, uint64_t backs, uintptr_t address)
{
	struct mf_page *page = map_record(u->map, 0, pfn);

	page->mapping = backs;
	page->index = address;
	map_set_word(page, map_region_word(u->r, MF_KIND_MAP, 0) | MF_FLAG_DIET);
}

/* What the tables say now, said by the records of the frames [host, end). */
static void mark_hosts(const struct diet_unit *u, mf_pfn_t host, mf_pfn_t end)
{
	if (host < end)
		map_record(u->map, 0, host)->private_data = u->order;
	for (uint64_t i = u->diet->nr_kept; i < u->nr_slots; i++) {
		uintptr_t va = diet_slot_address(u, i);
		mf_pfn_t pfn = diet_walk(u->map, va).pfn;

		if (pfn >= host && pfn < end)
			mark_host(u, pfn, map_backs_slot(0), va);
	}
	for (uint64_t i = diet_table_slots(u->map); i < u->nr_slots; i += diet_table_slots(u->map)) {
		uintptr_t va = diet_slot_address(u, i);
		mf_pfn_t pfn = table_at(u->map, va);

		if (pfn >= host && pfn < end)
			mark_host(u, pfn, map_backs_table(0), va);
	}
}

static void host_folio(struct mf_map *map, struct mf_page *head, struct diet_work *w)
{
	struct diet_unit u = diet_unit(map, head);
	struct diet_host host = { .first = mf_page_to_pfn(map, head) + ((mf_pfn_t)1 << u.order) };
	int err;

	u.host = &host;
	err = diet_restore(&u, w);
	MF_PANIC_IF(err != 0, "memfold: the folio at pfn %llu cannot host its own map: %s.",
		    (unsigned long long)mf_page_to_pfn(map, head), mf_strerror(err));
	head->index = host.first;
}

void diet_host_list(struct mf_map *map, struct mf_list *folios)
{
	struct diet_work w;

	diet_work_begin(&w, map, MF_FLUSH_FOR_RESTORE, 1);
	for (struct mf_list *at = folios->next; at != folios; at = at->next)
		host_folio(map, mf_container_of(at, struct mf_page, list), &w);
	diet_work_end(&w);
	/* Flushed: descriptors may be written. */
	for (struct mf_list *at = folios->next; at != folios; at = at->next) {
		struct mf_page *head = mf_container_of(at, struct mf_page, list);
		struct diet_unit u = diet_unit(map, head);

		mark_hosts(&u, head->index, mf_page_to_pfn(map, head) + ((mf_pfn_t)1 << u.order));
		diet_restored(&u);
	}
}

/* ---- And hands that on ----------------------------------------------------------------------------------------- */

/* What the record of a host says that it backs is in the frame `to` from now on.  Gives the frame that it was in. */
static mf_pfn_t switch_backing(struct mf_map *map, struct diet_work *w, const struct mf_page *page, mf_pfn_t to)
{
	bool is_table = map_backs_is_table(page->mapping);
	uint64_t bytes = is_table ? diet_table_bytes(map) : diet_slot_bytes(map);
	uintptr_t va = page->index;
	mf_pfn_t from;

	table_lock(map);
	from = is_table ? mf_pgtable_move(&map->pgtable, va, 0, to) : mf_pgtable_replace(&map->pgtable, va, to);
	table_unlock(map);
	diet_work_changed(w, mf_round_down(va, bytes), bytes, is_table ? MF_FLUSH_TABLES : MF_FLUSH_LEAVES);
	return from;
}

static int settle_frame(struct mf_map *map, const struct mf_region *r, struct diet_work *w, mf_pfn_t pfn)
{
	const struct mf_page *page = map_record(map, 0, pfn);
	bool is_table = map_backs_is_table(page->mapping);
	mf_pfn_t to;
	int err = is_table ? ram_get(map, r->config.node, 0, &to) : diet_frame_get(map, r, 0, &to);

	if (err)
		return err;
	if (!is_table) {
		__builtin_memcpy(mf_machine_frame(map->machine, to), mf_machine_frame(map->machine, pfn),
				 diet_slot_bytes(map));
		reserve_set_backs(map, r, to, page->index);
	}
	switch_backing(map, w, page, to);
	return 0;
}

/* The host still holds what it held. */
static void unsettle_frame(struct mf_map *map, const struct mf_region *r, struct diet_work *w, mf_pfn_t pfn)
{
	const struct mf_page *page = map_record(map, 0, pfn);
	mf_pfn_t from = switch_backing(map, w, page, pfn);

	diet_work_add(w, r, from, 1, map_backs_is_table(page->mapping) ? DIET_TABLE : DIET_FRAMES);
}

int diet_settle(struct mf_map *map, const struct mf_region *r, mf_pfn_t host, mf_pfn_t end)
{
	mf_pfn_t at = host;
	struct diet_work w;
	int err = 0;

	diet_work_begin(&w, map, MF_FLUSH_FOR_SETTLE, 1);
	while (at < end && !err) {
		err = settle_frame(map, r, &w, at);
		at += !err;
	}
	while (err && at > host)
		unsettle_frame(map, r, &w, --at);
	diet_work_end(&w);
	for (mf_pfn_t pfn = host; pfn < end && !err; pfn++) {
		struct mf_page *page = map_record(map, 0, pfn);

		map_clear_fields(page);
		map_set_word(page, map_region_word(r, MF_KIND_FREE, 0));
	}
	return err;
}
