/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compound.c - a region of compounds that is populated on its diet: the map slots of each come and go, in any pieces.
 *
 *   slot        0      1      2      3  ...      511    512  ...  1023   1024 ...
 *             [own]  [own]<--------------------------  [ uniform table ][ uniform table ]    read-only from slot 1 on
 *
 * Slot 0 has a frame of its own, all others show the compound's tail frame, which counts them in private_data of its
 * first descriptor.  What a slot is its absolute address says; any other one that is backed leads to the tail frame;
 * who takes the last one away frees that [R-DAX-15, R-DAX-20, R-DAX-57].  A table all of whose slots one call backs is
 * the compound's uniform table, if tables are shared; it goes in one piece, too.
 *
 * Owns nothing.  Runs under map->region_lock; folds and unfolds next door change the same tables meanwhile.  Nothing is
 * written but frames that are shown first here; the records are compound_folio.c's.
 */
#include "core/memmap/diet.h"

/* The compound that has the slot at va. */
static struct diet_unit unit_of_slot(struct mf_map *map, const struct mf_region *r, uintptr_t va)
{
	unsigned order = r->config.unit_order;
	uintptr_t head = mf_round_down(va, (uintptr_t)MF_DESCRIPTOR_SIZE << order);

	return diet_unit_at(map, r, (struct mf_page *)head, order);
}

static uint64_t slot_index(const struct diet_unit *u, uintptr_t va)
{
	return (va - u->start) >> u->map->machine->paging.page_shift;
}

/* Of the slots [index, end), those that lie in the table of the first. */
static uint64_t slots_in_table(const struct diet_unit *u, uint64_t index, uint64_t end)
{
	uint64_t per_table = diet_table_slots(u->map);

	return mf_min(end, mf_round_down(index, per_table) + per_table) - index;
}

/* The table of slot 0 holds something else, too. */
static bool is_whole_table(const struct diet_unit *u, uint64_t index, uint64_t nr)
{
	return diet_shares_tables(u) && index > 0 && nr == diet_table_slots(u->map);
}

/* Is this slot backed?  *next: how far the same is known of those behind it. */
static bool is_backed(struct mf_map *map, uintptr_t va, uintptr_t *next)
{
	struct mf_entry entry;
	bool backed;

	table_lock(map);
	entry = mf_pgtable_entry(&map->pgtable, va);
	backed = entry.kind != MF_ENTRY_BACKGROUND;
	*next = mf_round_down(va, diet_table_bytes(map)) + diet_table_bytes(map);
	if (entry.kind == MF_ENTRY_TABLE) {
		backed = !mf_pgtable_walk(&map->pgtable, va).background;
		*next = va + diet_slot_bytes(map);
	}
	table_unlock(map);
	return backed;
}

/* ---- What the compound has already ----------------------------------------------------------------------------- */

static uint64_t *slots_that_show(struct mf_map *map, mf_pfn_t tails)
{
	return &((struct mf_page *)mf_machine_frame(map->machine, tails))->private_data;
}

static mf_pfn_t frame_of_slot(const struct diet_unit *u, uint64_t index)
{
	struct mf_translation t = diet_walk(u->map, diet_slot_address(u, index));

	return t.background ? DIET_NO_FRAME : t.pfn;
}

/* The tail frame, by a slot outside of [index, end) that shows it: mostly a neighbour. */
static mf_pfn_t find_tails(const struct diet_unit *u, uint64_t index, uint64_t end)
{
	const uint64_t likely[] = { index - 1, end, 1 };
	uintptr_t va = diet_slot_address(u, 1), unit_end = diet_slot_address(u, u->nr_slots), next;
	mf_pfn_t pfn = DIET_NO_FRAME;

	for (unsigned i = 0; i < sizeof(likely) / sizeof(likely[0]) && pfn == DIET_NO_FRAME; i++)
		if (likely[i] >= 1 && likely[i] < u->nr_slots)
			pfn = frame_of_slot(u, likely[i]);
	for (; va < unit_end && pfn == DIET_NO_FRAME; va = next)
		if (is_backed(u->map, va, &next))
			pfn = frame_of_slot(u, slot_index(u, va));
	return pfn;
}

static mf_pfn_t find_uniform(const struct diet_unit *u)
{
	for (uint64_t i = diet_table_slots(u->map); i < u->nr_slots; i += diet_table_slots(u->map)) {
		struct mf_entry entry = diet_entry(u->map, diet_slot_address(u, i));

		if (entry.kind == MF_ENTRY_UNIFORM)
			return entry.pfn;
	}
	return DIET_NO_FRAME;
}

/* ---- Populate: what a piece of one compound needs -------------------------------------------------------------- */

struct piece_frames {
	mf_pfn_t head, tails, uniform; /* DIET_NO_FRAME: not needed                                              */
};

/* Tables that the slots [index, end) may need.  A compound is served by one table of level 1 and one of each above. */
static unsigned nr_tables(const struct diet_unit *u, uint64_t index, uint64_t end)
{
	unsigned nr = u->map->machine->paging.levels - 2;

	while (index < end) {
		uint64_t here = slots_in_table(u, index, end);

		nr += !is_whole_table(u, index, here);
		index += here;
	}
	return nr;
}

static bool has_whole_table(const struct diet_unit *u, uint64_t index, uint64_t end)
{
	for (uint64_t here; index < end; index += here) {
		here = slots_in_table(u, index, end);
		if (is_whole_table(u, index, here))
			return true;
	}
	return false;
}

/* A frame full of tails that nothing shows yet. */
static int make_tails(const struct diet_unit *u, mf_pfn_t *tails)
{
	int err = ram_get(u->map, u->r->config.node, 0, tails);

	if (!err)
		diet_write_tails(u->map, mf_machine_frame(u->map->machine, *tails), u->order);
	return err;
}

static void put_frames(const struct diet_unit *u, const struct piece_frames *f)
{
	if (f->head != DIET_NO_FRAME)
		ram_put(u->map, u->r->config.node, 0, f->head);
	if (f->tails != DIET_NO_FRAME && *slots_that_show(u->map, f->tails) == 0)
		ram_put(u->map, u->r->config.node, 0, f->tails);
}

static int get_frames(const struct diet_unit *u, uint64_t index, uint64_t end, struct piece_frames *f,
		      struct mf_bag *tables)
{
	struct mf_map *map = u->map;
	unsigned node = u->r->config.node;
	int err = ram_fill(map, node, tables, nr_tables(u, index, end));

	*f = (struct piece_frames){ DIET_NO_FRAME, DIET_NO_FRAME, DIET_NO_FRAME };
	if (!err && index == 0)
		err = ram_get(map, node, 0, &f->head);
	if (!err && end > 1) {
		f->tails = find_tails(u, index, end);
		if (f->tails == DIET_NO_FRAME)
			err = make_tails(u, &f->tails);
	}
	if (!err && has_whole_table(u, index, end)) {
		f->uniform = find_uniform(u);
		if (f->uniform == DIET_NO_FRAME)
			err = diet_uniform_make(map, node, f->tails, &f->uniform);
	}
	if (err)
		put_frames(u, f);
	return err;
}

/* ---- Populate: slots that were background show something ------------------------------------------------------- */

/* All in one table. */
static void show_frame(const struct diet_unit *u, uint64_t index, uint64_t nr, mf_pfn_t frame, enum mf_prot prot,
		       struct mf_bag *tables)
{
	struct mf_map *map = u->map;
	mf_pfn_t pfn[DIET_CHUNK];

	for (unsigned i = 0; i < DIET_CHUNK; i++)
		pfn[i] = frame;
	while (nr > 0) {
		unsigned now = (unsigned)mf_min(nr, (uint64_t)DIET_CHUNK);
		int err;

		table_lock(map);
		err = mf_pgtable_map(&map->pgtable, diet_slot_address(u, index), 0, pfn, now, prot, tables);
		table_unlock(map);
		MF_PANIC_IF(err != 0, "memfold: map slots at 0x%llx cannot show frame 0x%llx: %s.",
			    (unsigned long long)diet_slot_address(u, index), (unsigned long long)frame,
			    mf_strerror(err));
		index += now;
		nr -= now;
	}
}

/* The entry of level 1 for a whole table of slots; tables above come from the bag, or go to it. */
static struct mf_entry exchange(const struct diet_unit *u, uint64_t index, enum mf_entry_kind kind, mf_pfn_t pfn,
				struct mf_bag *tables)
{
	struct mf_map *map = u->map;
	struct mf_entry entry = { .kind = kind, .pfn = pfn }, old;
	int err;

	table_lock(map);
	err = mf_pgtable_exchange(&map->pgtable, diet_slot_address(u, index), &entry, tables, &old);
	table_unlock(map);
	MF_PANIC_IF(err != 0, "memfold: the table of map slots at 0x%llx cannot be exchanged: %s.",
		    (unsigned long long)diet_slot_address(u, index), mf_strerror(err));
	return old;
}

static void back(const struct diet_unit *u, uint64_t index, uint64_t end, const struct piece_frames *f,
		 struct mf_bag *tables)
{
	if (index == 0) {
		void *head = mf_machine_frame(u->map->machine, f->head);

		__builtin_memset(head, 0, diet_slot_bytes(u->map));
		show_frame(u, index++, 1, f->head, MF_PROT_WRITE, tables);
	}
	if (index < end)
		*slots_that_show(u->map, f->tails) += end - index;
	while (index < end) {
		uint64_t nr = slots_in_table(u, index, end);

		if (is_whole_table(u, index, nr))
			exchange(u, index, MF_ENTRY_UNIFORM, f->uniform, tables);
		else
			show_frame(u, index, nr, f->tails, MF_PROT_READ, tables);
		index += nr;
	}
}

/* ---- Populate: any piece --------------------------------------------------------------------------------------- */

/* Slots in a row that are not backed: what a failure leaves so. */
struct gap {
	uintptr_t start, end;
};

/* Those of [start, end), in `gap` unless NULL.  How many. */
static uint64_t find_gaps(struct mf_map *map, uintptr_t start, uintptr_t end, struct gap *gap)
{
	uint64_t nr = 0;
	uintptr_t next;

	for (bool was_backed = true; start < end; start = next) {
		bool backed = is_backed(map, start, &next);

		next = mf_min(next, end);
		nr += was_backed && !backed;
		if (gap && !backed) {
			gap[nr - 1].start = was_backed ? start : gap[nr - 1].start;
			gap[nr - 1].end = next;
		}
		was_backed = backed;
	}
	return nr;
}

static int fill_gap(struct mf_map *map, const struct mf_region *r, const struct gap *gap, struct mf_bag *tables)
{
	uintptr_t va = gap->start;
	int err = 0;

	while (va < gap->end && !err) {
		struct diet_unit u = unit_of_slot(map, r, va);
		uintptr_t end = mf_min(gap->end, diet_slot_address(&u, u.nr_slots));
		struct piece_frames frames;

		err = get_frames(&u, slot_index(&u, va), slot_index(&u, end), &frames, tables);
		if (err)
			break;
		back(&u, slot_index(&u, va), slot_index(&u, end), &frames, tables);
		va = end;
	}
	if (err)
		compound_depopulate(map, r, gap->start, va);
	return err;
}

static int fill_gaps(struct mf_map *map, const struct mf_region *r, const struct gap *gap, uint64_t nr)
{
	struct mf_bag tables = { 0 };
	uint64_t done = 0;
	int err = 0;

	while (done < nr && !err) {
		err = fill_gap(map, r, &gap[done], &tables);
		done += !err;
	}
	while (err && done > 0) {
		done--;
		compound_depopulate(map, r, gap[done].start, gap[done].end);
	}
	ram_empty(map, r->config.node, &tables);
	return err;
}

static int populate_tables(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end)
{
	const struct mf_machine_ops *ops = map->machine->ops;
	uint64_t nr = find_gaps(map, start, end, NULL);
	struct gap own, *gap = &own;
	int err;

	if (nr > 1) {
		gap = ops->meta_alloc(map->machine, nr * sizeof(*gap));
		if (!gap)
			return -MF_ENOMEM;
	}
	find_gaps(map, start, end, gap);
	err = fill_gaps(map, r, gap, nr);
	if (gap != &own)
		ops->meta_free(map->machine, gap, nr * sizeof(*gap));
	window_flush(map, MF_FLUSH_FOR_POPULATE, start, end - start, MF_FLUSH_TABLES);
	map_rely(map, start, end - start);
	return err;
}

int compound_populate(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end)
{
	return diet_on_tables(map) ? populate_tables(map, r, start, end) : compound_populate_host(map, r, start, end);
}

/* ---- Depopulate ------------------------------------------------------------------------------------------------ */

/* `nr` slots from `index` on show `frame` no more. */
static void hide_frame(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t nr, mf_pfn_t frame)
{
	uint64_t *showing;

	if (index > 0) {
		showing = slots_that_show(u->map, frame);
		*showing -= nr;
		if (*showing > 0)
			return;
	}
	diet_work_add(w, u->r, frame, 1, DIET_FRAMES);
}

/* Entries of the unit were switched; tables that this emptied. */
static void changed(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t nr, struct mf_bag *tables,
		    enum mf_flush_scope scope)
{
	diet_work_changed(w, diet_slot_address(u, index), nr * diet_slot_bytes(u->map),
			  tables->nr > 0 ? MF_FLUSH_TABLES : scope);
	while (tables->nr > 0)
		diet_work_add(w, u->r, mf_bag_take(tables), 1, DIET_TABLE);
}

/* From `index` on at most `max` slots of one table that are backed.  How many. */
static unsigned clear_run(const struct diet_unit *u, uint64_t index, unsigned max, mf_pfn_t *old, struct mf_bag *tables)
{
	struct mf_pgtable *pt = &u->map->pgtable;
	unsigned nr = 0;

	table_lock(u->map);
	while (nr < max && !mf_pgtable_walk(pt, diet_slot_address(u, index + nr)).background)
		nr++;
	if (nr > 0)
		mf_pgtable_clear(pt, diet_slot_address(u, index), 0, nr, old, tables);
	table_unlock(u->map);
	return nr;
}

static void unback_slots(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t end)
{
	while (index < end) {
		mf_pfn_t old[DIET_CHUNK];
		struct mf_bag tables = { 0 };
		unsigned nr = clear_run(u, index, (unsigned)mf_min(end - index, (uint64_t)DIET_CHUNK), old, &tables);

		if (nr > 0)
			changed(u, w, index, nr, &tables, MF_FLUSH_LEAVES);
		for (unsigned i = 0; i < nr; i++)
			hide_frame(u, w, index + i, 1, old[i]);
		index += mf_max(nr, 1u);
	}
}

/* To cut one would need a frame for a private table, and this must not fail. */
static void unback_uniform(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t nr)
{
	mf_pfn_t tails = frame_of_slot(u, index);
	struct mf_bag tables = { 0 };
	struct mf_entry old;

	MF_PANIC_IF(nr != diet_table_slots(u->map),
		    "memfold: %llu map slots at 0x%llx are depopulated that were populated as a whole table of %llu.",
		    (unsigned long long)nr, (unsigned long long)diet_slot_address(u, index),
		    (unsigned long long)diet_table_slots(u->map));
	old = exchange(u, index, MF_ENTRY_BACKGROUND, 0, &tables);
	changed(u, w, index, nr, &tables, MF_FLUSH_TABLES);
	if (find_uniform(u) == DIET_NO_FRAME)
		diet_work_add(w, u->r, old.pfn, 1, DIET_UNIFORM);
	hide_frame(u, w, index, nr, tails);
}

static void depopulate_unit(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t end)
{
	while (index < end) {
		uint64_t nr = slots_in_table(u, index, end);
		enum mf_entry_kind kind = diet_entry(u->map, diet_slot_address(u, index)).kind;

		if (kind == MF_ENTRY_UNIFORM)
			unback_uniform(u, w, index, nr);
		else if (kind != MF_ENTRY_BACKGROUND)
			unback_slots(u, w, index, index + nr);
		index += nr;
	}
}

void compound_depopulate(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end)
{
	uint64_t unit_bytes = (uint64_t)MF_DESCRIPTOR_SIZE << r->config.unit_order;
	struct diet_work w;

	if (!diet_on_tables(map)) {
		map->machine->ops->host_discard(map->machine, (void *)start, end - start);
		return;
	}
	diet_work_begin(&w, map, MF_FLUSH_FOR_DEPOPULATE, (end - start) / unit_bytes + 1);
	while (start < end) {
		struct diet_unit u = unit_of_slot(map, r, start);
		uintptr_t to = mf_min(end, diet_slot_address(&u, u.nr_slots));

		depopulate_unit(&u, &w, slot_index(&u, start), slot_index(&u, to));
		start = to;
	}
	diet_work_end(&w);
}
