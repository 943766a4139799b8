/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compound_folio.c - compounds as folios: their records, the reference that is the region's own, and the end of it; and
 * how their map slots come where windows are the host's memory.
 *
 * Keeps: nothing is written to a slot that is an alias; count 1 is stored when every lookup finds the compound, and from
 * then on anybody may hold, pin and map it.
 */
#include "core/memmap/diet.h"

/* ---- The host's memory ----------------------------------------------------------------------------------------- */

/* Readers may look already; the rest of each descriptor is zero since the memory was shared. */
static void write_tails_host(struct mf_map *map, struct mf_page *page, unsigned order)
{
	for (uint64_t i = 0; i < diet_slot_bytes(map) / MF_DESCRIPTOR_SIZE; i++)
		map_set_word(&page[i], map_tail_word(order));
}

static int populate_one_host(struct mf_map *map, unsigned order, uintptr_t start, uint64_t bytes)
{
	struct mf_machine *m = map->machine;
	uint64_t slot = diet_slot_bytes(map);
	int err = m->ops->host_share(m, (void *)start, bytes);

	if (err)
		return err;
	write_tails_host(map, (struct mf_page *)(start + slot), order);
	err = m->ops->host_alias(m, (void *)(start + 2 * slot), bytes - 2 * slot, (const void *)(start + slot));
	if (err)
		m->ops->host_discard(m, (void *)start, bytes);
	return err;
}

int compound_populate_host(struct mf_map *map, const struct mf_region *r, uintptr_t start, uintptr_t end)
{
	uint64_t bytes = (uint64_t)MF_DESCRIPTOR_SIZE << r->config.unit_order;
	int err = 0;

	MF_PANIC_IF((start | end) & (bytes - 1), "memfold: the host populates whole compounds, not 0x%llx to 0x%llx.",
		    (unsigned long long)start, (unsigned long long)end);
	for (uintptr_t va = start; va < end && !err; va += bytes) {
		err = populate_one_host(map, r->config.unit_order, va, bytes);
		if (err && va > start)
			map->machine->ops->host_discard(map->machine, (void *)start, va - start);
	}
	return err;
}

/* ---- Records --------------------------------------------------------------------------------------------------- */

/* Slot 1 of a dieted compound is full of tails since it was populated, and read-only [R-DAX-26, R-DAX-27]. */
static void write_folio(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn, bool is_dieted)
{
	unsigned order = r->config.unit_order;
	struct mf_page *head = map_record(map, 0, pfn);
	uint64_t word = map_region_word(r, MF_KIND_DEVICE, 0) | map_word_order(order) | (is_dieted ? MF_FLAG_DIET : 0);
	uint64_t nr = is_dieted ? diet_slot_bytes(map) / MF_DESCRIPTOR_SIZE : (uint64_t)1 << order;

	for (uint64_t i = 1; i < nr; i++)
		map_set_word(&head[i], map_tail_word(order));
	map_set_word(head, word);
}

void compound_commit(struct mf_map *map, const struct mf_region *r, mf_pfn_t start, mf_pfn_t end, bool is_dieted)
{
	for (mf_pfn_t pfn = start; pfn < end; pfn += (mf_pfn_t)1 << r->config.unit_order)
		write_folio(map, r, pfn, is_dieted);
}

static void thaw(struct mf_map *map, const struct mf_region *r, mf_pfn_t end)
{
	for (mf_pfn_t pfn = r->free_start; pfn < end; pfn += (mf_pfn_t)1 << r->config.unit_order)
		__atomic_store_n(&map_record(map, 0, pfn)->counts, 1, __ATOMIC_RELEASE);
}

void compound_online(struct mf_map *map, const struct mf_region *r)
{
	thaw(map, r, r->config.end_pfn);
}

/* ---- The end --------------------------------------------------------------------------------------------------- */

/* A mapping needs a reference, and the region's may have been taken for it. */
static bool freeze(struct mf_page *head)
{
	uint64_t counts = 1;

	if (!__atomic_compare_exchange_n(&head->counts, &counts, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return false;
	if (__atomic_load_n(&head->mapcount, __ATOMIC_RELAXED) == 0)
		return true;
	__atomic_store_n(&head->counts, 1, __ATOMIC_RELEASE);
	return false;
}

int compound_offline(struct mf_map *map, const struct mf_region *r)
{
	mf_pfn_t nr_frames = (mf_pfn_t)1 << r->config.unit_order, pfn = r->free_start;

	while (pfn < r->config.end_pfn && freeze(map_record(map, 0, pfn)))
		pfn += nr_frames;
	if (pfn >= r->config.end_pfn)
		return 0;
	thaw(map, r, pfn);
	return -MF_EBUSY;
}
