/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * remap.c - one folio goes on its diet.
 *
 *   split the leaf   (quiesce)   take what is lacking   mark   copy the head's slot   switch entries   (flush, release)
 *
 * Everything that can be lacking is taken before the first entry is switched.  A table whose 2^b slots all belong to
 * the folio, and show one frame, is replaced as a whole by a uniform table.
 */
#include "core/memmap/diet.h"

/* ---- Splitting a larger leaf ----------------------------------------------------------------------------------- */

/*
 * Only the first table of a unit is needed for single slots: where a unit has several, either the others become uniform
 * tables as a whole, or tables are private and no larger leaf was ever there.
 */
int diet_split(const struct diet_unit *u, struct diet_work *w, bool flush)
{
	struct mf_map *map = u->map;
	uintptr_t first = mf_round_down(u->start, diet_table_bytes(map));
	struct mf_bag tables = { 0 };
	int err;

	w->has_split = false;
	if (!diet_on_tables(map) || diet_entry(map, u->start).kind != MF_ENTRY_LEAF)
		return 0;
	err = ram_fill(map, u->r->config.node, &tables, 1);
	if (err)
		return err;
	table_lock(map);
	err = mf_pgtable_split(&map->pgtable, u->start, 1, &tables);
	table_unlock(map);
	ram_empty(map, u->r->config.node, &tables);
	/* -MF_ENOENT: another thread was faster, which is no failure. */
	MF_PANIC_IF(err != 0 && err != -MF_ENOENT, "memfold: the leaf of map slots at 0x%llx cannot be split: %s.",
		    (unsigned long long)u->start, mf_strerror(err));
	w->has_split = err == 0;
	if (!err && flush)
		window_flush(map, MF_FLUSH_FOR_REMAP, first, diet_table_bytes(map), MF_FLUSH_LEAVES);
	else if (!err)
		diet_work_changed(w, first, diet_table_bytes(map), MF_FLUSH_LEAVES);
	return 0;
}

/*
 * Frames that were not got as one block never stand behind one leaf, not even in a row: only what was just split is
 * merged.  Another remap may have found the table, and rely on it; or have ended since, and a restore have got the same
 * frames one by one.
 */
void diet_unsplit(const struct diet_unit *u, struct diet_work *w)
{
	struct mf_map *map = u->map;
	struct mf_bag tables = { 0 };
	int err = -MF_EBUSY;

	if (!w->has_split)
		return;
	table_lock(map);
	if (__atomic_load_n(&map->remaps_begun, __ATOMIC_RELAXED) == w->nth_remap)
		err = mf_pgtable_merge(&map->pgtable, u->start, 1, &tables);
	table_unlock(map);
	if (err)
		return;
	diet_work_changed(w, mf_round_down(u->start, diet_table_bytes(map)), diet_table_bytes(map), MF_FLUSH_TABLES);
	diet_work_add(w, u->r, mf_bag_take(&tables), 1, DIET_TABLE);
}

/* ---- Slots become aliases -------------------------------------------------------------------------------------- */

/* Slots [index, end) show `frame`; what was behind them becomes waste, unless it is that frame already. */
static void alias_slots(const struct diet_unit *u, struct diet_work *w, uint64_t index, uint64_t end, mf_pfn_t frame)
{
	struct mf_map *map = u->map;

	while (index < end) {
		uint64_t in_table = diet_table_slots(map) - (index & (diet_table_slots(map) - 1));
		unsigned nr = (unsigned)mf_min(mf_min(end - index, in_table), (uint64_t)DIET_CHUNK);
		uintptr_t va = diet_slot_address(u, index);
		mf_pfn_t old[DIET_CHUNK];

		table_lock(map);
		mf_pgtable_switch(&map->pgtable, va, &frame, 0, nr, MF_PROT_READ, old);
		table_unlock(map);
		diet_work_changed(w, va, nr * diet_slot_bytes(map), MF_FLUSH_LEAVES);
		for (unsigned i = 0; i < nr; i++)
			if (old[i] != frame)
				diet_work_add(w, u->r, old[i], 1, DIET_FRAMES);
		index += nr;
	}
}

/* A whole table of aliases: the uniform one. */
static void alias_table(const struct diet_unit *u, struct diet_work *w, uint64_t index, mf_pfn_t frame,
			mf_pfn_t uniform)
{
	struct mf_map *map = u->map;
	uintptr_t va = diet_slot_address(u, index);
	struct mf_entry old = diet_entry(map, va);

	if (old.kind == MF_ENTRY_UNIFORM)
		return;
	if (old.kind == MF_ENTRY_TABLE)
		alias_slots(u, w, index, index + diet_table_slots(map), frame);
	old = diet_exchange(map, va, MF_ENTRY_UNIFORM, uniform);
	diet_work_changed(w, va, diet_table_bytes(map), old.kind == MF_ENTRY_TABLE ? MF_FLUSH_TABLES : MF_FLUSH_LEAVES);
	if (old.kind == MF_ENTRY_TABLE)
		diet_work_add(w, u->r, old.pfn, 1, DIET_TABLE);
	else
		diet_work_add(w, u->r, old.pfn, 1, DIET_BLOCK);
}

/* Everything but the kept slots; also what a restore that failed has changed already. */
void diet_alias_all(const struct diet_unit *u, struct diet_work *w, mf_pfn_t frame, mf_pfn_t uniform)
{
	uint64_t per_table = diet_table_slots(u->map);
	uint64_t singly = uniform == DIET_NO_FRAME ? u->nr_slots : mf_min(u->nr_slots, per_table);

	alias_slots(u, w, u->diet->nr_kept, singly, frame);
	for (uint64_t index = singly; index < u->nr_slots; index += per_table)
		alias_table(u, w, index, frame, uniform);
}

/* The frame behind the last slot that is kept: what aliases show, but under MF_TAILS_ZONE. */
static mf_pfn_t last_kept_frame(const struct diet_unit *u)
{
	return diet_walk(u->map, diet_slot_address(u, u->diet->nr_kept - 1)).pfn;
}

/* What a unit needs before its first entry is switched. */
struct supplies {
	mf_pfn_t head;    /* the head's new frame, or DIET_NO_FRAME                                             */
	mf_pfn_t tails;   /* the frame to show                                                                 */
	mf_pfn_t uniform; /* a table of it, or DIET_NO_FRAME                                                    */
};

static int supply(const struct diet_unit *u, struct supplies *s)
{
	struct mf_map *map = u->map;
	struct diet_tails *tails;
	int err = 0;

	*s = (struct supplies){ DIET_NO_FRAME, DIET_NO_FRAME, DIET_NO_FRAME };
	if (u->diet->moves_head)
		err = diet_frame_get(map, u->r, 0, &s->head);
	if (!err && u->diet->tails == MF_TAILS_ZONE) {
		err = diet_tails_get(u, &tails);
		if (!err) {
			s->tails = tails->frame;
			s->uniform = tails->uniform;
		}
	} else if (!err) {
		s->tails = last_kept_frame(u);
		if (diet_shares_tables(u))
			err = diet_uniform_make(map, u->r->config.node, s->tails, &s->uniform);
	}
	if (err && s->head != DIET_NO_FRAME)
		diet_frame_put(map, u->r, s->head);
	return err;
}

static uint64_t marks(const struct diet_unit *u)
{
	return MF_FLAG_DIET | (u->diet->tails == MF_TAILS_HEAD ? MF_WORD_ALIASED : 0);
}

/* Before the head's slot is copied, so that the copy is marked, too [R-CPD-46]. */
static void mark(const struct diet_unit *u)
{
	__atomic_fetch_or(&u->head->word, marks(u), __ATOMIC_RELEASE);
}

void diet_restored(const struct diet_unit *u)
{
	diet_rely(u);
	__atomic_fetch_and(&u->head->word, ~marks(u), __ATOMIC_RELEASE);
}

/* The copy is whole before the entry is switched: entries are stored with release [R-CPD-45]. */
static void move_head(const struct diet_unit *u, struct diet_work *w, mf_pfn_t frame)
{
	struct mf_map *map = u->map;
	mf_pfn_t old;

	diet_copy_kept(u, mf_machine_frame(map->machine, frame), 1);
	reserve_set_backs(map, u->r, frame, u->start);
	table_lock(map);
	mf_pgtable_switch(&map->pgtable, u->start, &frame, 1, 1, MF_PROT_WRITE, &old);
	table_unlock(map);
	diet_work_changed(w, u->start, diet_slot_bytes(map), MF_FLUSH_LEAVES);
	diet_work_add(w, u->r, old, 1, DIET_FRAMES);
}

static int remap_host(const struct diet_unit *u)
{
	struct mf_machine *m = u->map->machine;
	uint64_t kept = u->diet->nr_kept * diet_slot_bytes(u->map);
	const void *target = (const void *)diet_slot_address(u, u->diet->nr_kept - 1);
	int err;

	if (u->diet->tails == MF_TAILS_ZONE) {
		struct diet_tails *tails;

		err = diet_tails_get(u, &tails);
		if (err)
			return err;
		target = tails->slot;
	}
	mark(u);
	err = m->ops->host_alias(m, (void *)(u->start + kept), u->nr_slots * diet_slot_bytes(u->map) - kept, target);
	if (err)
		diet_restored(u);
	return err;
}

int diet_remap(const struct diet_unit *u, struct diet_work *w)
{
	struct supplies s;
	int err;

	if (!diet_on_tables(u->map))
		return remap_host(u);
	err = supply(u, &s);
	if (err)
		return err;
	mark(u);
	if (s.head != DIET_NO_FRAME)
		move_head(u, w, s.head);
	if (u->diet->tails == MF_TAILS_FIRST_TAIL)
		diet_protect(u, w, u->diet->nr_kept - 1, MF_PROT_READ);
	diet_alias_all(u, w, s.tails, s.uniform);
	return 0;
}

