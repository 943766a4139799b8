/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reserve.c - frames at a region's start that are kept for its map: an altmap, or a flat region on its own frames.
 *
 *   flat     [ low slots | leaf | leaf | leaf | high slots ][ the allocator's ... taken once, while the region is added
 *   tiered   [ 8 | 8 | 8 | 8 | 8 ... whole blocks          ][ the allocator's ... a group for each block that unfolds
 *
 * A tiered reserve is whole blocks of tier 1 with records of kind reserved, so that it costs nothing on tier 0; a flat
 * one's used frames have records of kind map, the rest are reserved.  Tables never come from here.
 */
#include "core/memmap/diet.h"

static int groups_init(struct mf_map *map, struct mf_region *r)
{
	struct mf_machine *m = map->machine;
	struct reserve *reserve = &r->reserve;
	uint64_t nr = (reserve->end - reserve->start) / MF_BLOCK_SLOTS;

	if (nr > UINT32_MAX)
		return -MF_EINVAL;
	reserve->group = m->ops->meta_alloc(m, nr * sizeof(*reserve->group));
	if (!reserve->group)
		return -MF_ENOMEM;
	/* The lowest group is on top. */
	for (uint64_t i = 0; i < nr; i++)
		reserve->group[i] = (uint32_t)(nr - 1 - i);
	reserve->nr_free = (unsigned)nr;
	return 0;
}

int reserve_init(struct mf_map *map, struct mf_region *r)
{
	struct reserve *reserve = &r->reserve;
	mf_pfn_t start = r->config.start_pfn, block = map_block_frames(map, 1);
	uint64_t nr = r->source == MF_SOURCE_ALTMAP ? r->config.nr_altmap : 0;

	if (r->source == MF_SOURCE_SELF && r->top == 0)
		nr = r->nr_flat_slots;
	r->free_start = start + nr;
	*reserve = (struct reserve){ .start = start, .end = start + nr };
	if (nr == 0)
		return 0;
	if (r->top > 0)
		return groups_init(map, r);
	if (nr < r->nr_flat_slots)
		return -MF_ENOMEM;
	if (mf_layout_diet(r->config.layout)->is_by_remap && r->source == MF_SOURCE_ALTMAP) {
		if (nr > UINT32_MAX)
			return -MF_EINVAL;
		reserve->spare = map->machine->ops->meta_alloc(map->machine, nr * sizeof(*reserve->spare));
		if (!reserve->spare)
			return -MF_ENOMEM;
	}
	reserve->low_next = start;
	reserve->low_end = mf_min(mf_round_up(start, block), reserve->end);
	reserve->leaf_next = reserve->low_end;
	reserve->high_next = reserve->end;
	return 0;
}

void reserve_exit(struct mf_map *map, struct mf_region *r)
{
	struct reserve *reserve = &r->reserve;
	uint64_t nr = (reserve->end - reserve->start) / MF_BLOCK_SLOTS;

	if (reserve->group)
		map->machine->ops->meta_free(map->machine, reserve->group, nr * sizeof(*reserve->group));
	nr = reserve->end - reserve->start;
	if (reserve->spare)
		map->machine->ops->meta_free(map->machine, reserve->spare, nr * sizeof(*reserve->spare));
}

int reserve_take(struct reserve *reserve, unsigned order, mf_pfn_t *pfn)
{
	mf_pfn_t nr = (mf_pfn_t)1 << order;

	if (order == 0 && reserve->low_next < reserve->low_end) {
		*pfn = reserve->low_next++;
		return 0;
	}
	if (reserve->leaf_next + nr > reserve->high_next)
		return -MF_ENOMEM;
	if (order == 0) {
		*pfn = --reserve->high_next;
	} else {
		*pfn = reserve->leaf_next;
		reserve->leaf_next += nr;
	}
	return 0;
}

void reserve_untake(struct reserve *reserve, unsigned order, mf_pfn_t pfn)
{
	if (order > 0)
		reserve->leaf_next = pfn;
	else if (pfn < reserve->low_end)
		reserve->low_next = pfn;
	else
		reserve->high_next = pfn + 1;
}

int reserve_take_slots(struct mf_map *map, struct mf_region *r, mf_pfn_t slot[MF_BLOCK_SLOTS])
{
	struct reserve *reserve = &r->reserve;
	bool found;
	uint32_t group = 0;

	mf_machine_lock(map->machine, &reserve->lock);
	found = reserve->nr_free > 0;
	if (found)
		group = reserve->group[--reserve->nr_free];
	mf_machine_unlock(map->machine, &reserve->lock);
	for (unsigned i = 0; i < MF_BLOCK_SLOTS && found; i++)
		slot[i] = reserve->start + (mf_pfn_t)group * MF_BLOCK_SLOTS + i;
	return found ? 0 : -MF_ENOMEM;
}

void reserve_put_slots(struct mf_map *map, struct mf_region *r, mf_pfn_t first)
{
	struct reserve *reserve = &r->reserve;

	map_reuse(map, first, MF_BLOCK_SLOTS);
	mf_machine_lock(map->machine, &reserve->lock);
	reserve->group[reserve->nr_free++] = (uint32_t)((first - reserve->start) / MF_BLOCK_SLOTS);
	mf_machine_unlock(map->machine, &reserve->lock);
}

/* ---- Classic diets --------------------------------------------------------------------------------------------- */

void reserve_set_backs(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn, uintptr_t va)
{
	struct mf_page *page;

	if (!reserve_holds(&r->reserve, pfn))
		return;
	page = map_record(map, 0, pfn);
	page->mapping = map_backs_slot(0);
	page->index = va;
	map_set_word(page, map_region_word(r, MF_KIND_MAP, 0));
}

void reserve_put_frame(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	struct reserve *reserve = &map->region[r->id]->reserve;
	struct mf_page *page = map_record(map, 0, pfn);

	map_reuse(map, pfn, 1);
	page->mapping = 0;
	page->index = 0;
	map_set_word(page, map_region_word(r, MF_KIND_RESERVED, 0));
	mf_machine_lock(map->machine, &reserve->lock);
	reserve->spare[reserve->nr_spare++] = (uint32_t)(pfn - reserve->start);
	mf_machine_unlock(map->machine, &reserve->lock);
}

bool reserve_take_frame(struct mf_map *map, const struct mf_region *r, mf_pfn_t *pfn)
{
	struct reserve *reserve = &map->region[r->id]->reserve;
	bool found;

	if (!reserve->spare)
		return false;
	mf_machine_lock(map->machine, &reserve->lock);
	found = reserve->nr_spare > 0;
	if (found)
		*pfn = reserve->start + reserve->spare[--reserve->nr_spare];
	mf_machine_unlock(map->machine, &reserve->lock);
	return found;
}
