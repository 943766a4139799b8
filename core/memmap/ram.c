/* SPDX-License-Identifier: BSD-2-Clause */
/* ram.c - map frames of source RAM: frames outside every region, from the machine, counted. */
#include "core/memmap/map.h"

int ram_get(struct mf_map *map, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct mf_machine *m = map->machine;
	int err;

	map_may_wait(map);
	err = m->ops->ram_get(m, node, order, pfn);

	if (err)
		return err;
	map_count(&map->nr_ram, (uint64_t)1 << order);
	return 0;
}

void ram_put(struct mf_map *map, unsigned node, unsigned order, mf_pfn_t pfn)
{
	map_reuse(map, pfn, (uint64_t)1 << order);
	map->machine->ops->ram_put(map->machine, node, order, pfn);
	__atomic_fetch_sub(&map->nr_ram, (uint64_t)1 << order, __ATOMIC_RELAXED);
}

int ram_fill(struct mf_map *map, unsigned node, struct mf_bag *bag, unsigned nr)
{
	unsigned had = bag->nr;

	while (bag->nr < nr) {
		mf_pfn_t pfn;
		int err = ram_get(map, node, 0, &pfn);

		if (err) {
			while (bag->nr > had)
				ram_put(map, node, 0, mf_bag_take(bag));
			return err;
		}
		mf_bag_put(bag, pfn);
	}
	return 0;
}

void ram_protect(struct mf_map *map, mf_pfn_t pfn, bool writable)
{
	if (map->machine->ops->direct_protect)
		map->machine->ops->direct_protect(map->machine, pfn, writable);
}

void ram_empty(struct mf_map *map, unsigned node, struct mf_bag *bag)
{
	while (bag->nr > 0)
		ram_put(map, node, 0, mf_bag_take(bag));
}
