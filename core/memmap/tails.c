/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tails.c - what stands behind aliases and belongs to no folio: the frames that serve the tails of a whole zone, and
 * uniform tables.
 *
 * Owns map->tails: one entry for each zone and order that needs it, under map->tails_lock, a leaf that is held for a
 * few instructions.  Who loses a race to make one gives its own back [R-HVO-17].
 */
#include "core/memmap/diet.h"

int diet_uniform_make(struct mf_map *map, unsigned node, mf_pfn_t frame, mf_pfn_t *table)
{
	int err = ram_get(map, node, 0, table);

	if (err)
		return err;
	mf_pgtable_fill(&map->pgtable, *table, MF_ENTRY_UNIFORM, frame, 0, MF_PROT_READ);
	map_count(&map->nr_uniform, 1);
	return 0;
}

void diet_uniform_end(struct mf_map *map, unsigned node, mf_pfn_t table)
{
	mf_pgtable_unfill(&map->pgtable, table);
	ram_put(map, node, 0, table);
	__atomic_fetch_sub(&map->nr_uniform, 1, __ATOMIC_RELAXED);
}

/* ---- The tails of a zone --------------------------------------------------------------------------------------- */

static void tails_lock(struct mf_map *map)
{
	mf_machine_lock(map->machine, &map->tails_lock);
}

static void tails_unlock(struct mf_map *map)
{
	mf_machine_unlock(map->machine, &map->tails_lock);
}

static struct diet_tails *tails_find_locked(struct mf_map *map, unsigned zone, unsigned order)
{
	for (struct diet_tails *t = map->tails; t; t = t->next)
		if (t->zone == zone && t->order == order)
			return t;
	return NULL;
}

static void tails_unback(struct mf_map *map, struct diet_tails *t)
{
	uint64_t slot = (uint64_t)1 << map->machine->paging.page_shift;

	if (map->machine->backing == MF_WINDOW_HOST) {
		map->machine->ops->host_discard(map->machine, t->slot, slot);
		map->machine->ops->window_release(map->machine, t->slot, slot);
		return;
	}
	if (t->uniform != DIET_NO_FRAME)
		diet_uniform_end(map, t->node, t->uniform);
	ram_protect(map, t->frame, true);
	ram_put(map, t->node, 0, t->frame);
}

static int tails_back_host(const struct diet_unit *u, struct diet_tails *t)
{
	struct mf_machine *m = u->map->machine;
	uint64_t slot = diet_slot_bytes(u->map);
	int err = m->ops->window_reserve(m, slot, slot, &t->slot);

	if (err)
		return err;
	err = m->ops->host_share(m, t->slot, slot);
	if (err)
		m->ops->window_release(m, t->slot, slot);
	else
		diet_write_tails(u->map, t->slot, u->order);
	return err;
}

/* All or nothing.  Whether a uniform table is needed is the same for all units of one order. */
static int tails_back(const struct diet_unit *u, struct diet_tails *t)
{
	int err;

	if (!diet_on_tables(u->map))
		return tails_back_host(u, t);
	err = ram_get(u->map, t->node, 0, &t->frame);
	if (err)
		return err;
	if (diet_shares_tables(u))
		err = diet_uniform_make(u->map, t->node, t->frame, &t->uniform);
	if (err) {
		ram_put(u->map, t->node, 0, t->frame);
		return err;
	}
	diet_write_tails(u->map, mf_machine_frame(u->map->machine, t->frame), u->order);
	ram_protect(u->map, t->frame, false);
	return 0;
}

/* A new entry, or the one that another has made meanwhile. */
static int tails_make(const struct diet_unit *u, struct diet_tails **tails)
{
	struct mf_map *map = u->map;
	struct mf_machine *m = map->machine;
	struct diet_tails *t = m->ops->meta_alloc(m, sizeof(*t)), *other;
	int err;

	if (!t)
		return -MF_ENOMEM;
	*t = (struct diet_tails){
		.zone = u->r->zone,
		.order = u->order,
		.node = u->r->config.node,
		.frame = DIET_NO_FRAME,
		.uniform = DIET_NO_FRAME,
	};
	err = tails_back(u, t);
	if (err) {
		m->ops->meta_free(m, t, sizeof(*t));
		return err;
	}
	tails_lock(map);
	other = tails_find_locked(map, t->zone, t->order);
	if (!other) {
		t->next = map->tails;
		map->tails = t;
		map_count(&map->nr_tails, 1);
	}
	tails_unlock(map);
	*tails = other ? other : t;
	if (other) {
		tails_unback(map, t);
		m->ops->meta_free(m, t, sizeof(*t));
	}
	return 0;
}

int diet_tails_get(const struct diet_unit *u, struct diet_tails **tails)
{
	tails_lock(u->map);
	*tails = tails_find_locked(u->map, u->r->zone, u->order);
	tails_unlock(u->map);
	return *tails ? 0 : tails_make(u, tails);
}

void diet_tails_drop(struct mf_map *map, unsigned zone)
{
	struct diet_tails **at = &map->tails, *dead = NULL;

	tails_lock(map);
	while (*at) {
		struct diet_tails *t = *at;

		if (t->zone != zone) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		t->next = dead;
		dead = t;
	}
	tails_unlock(map);
	while (dead) {
		struct diet_tails *t = dead;

		dead = t->next;
		tails_unback(map, t);
		__atomic_fetch_sub(&map->nr_tails, 1, __ATOMIC_RELAXED);
		map->machine->ops->meta_free(map->machine, t, sizeof(*t));
	}
}
