/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diet.c - the classic diets as parameters: what a layout keeps and saves, the slots of one unit, the map's switch.
 */
#include "core/memmap/diet.h"

static const struct mf_diet diets[MF_NR_LAYOUTS] = {
	[MF_LAYOUT_HVO_5_14] = { .nr_kept = 2, .tails = MF_TAILS_FIRST_TAIL, .is_by_remap = true },
	[MF_LAYOUT_HVO_5_18] = { .nr_kept = 1, .tails = MF_TAILS_HEAD, .is_by_remap = true },
	[MF_LAYOUT_HVO_7_1] = { .nr_kept = 1, .tails = MF_TAILS_ZONE, .is_by_remap = true, .moves_head = true },
	[MF_LAYOUT_DEVDAX] = { .nr_kept = 2, .tails = MF_TAILS_FIRST_TAIL, .is_counted = true },
};

const struct mf_diet *mf_layout_diet(enum mf_layout layout)
{
	return &diets[(unsigned)layout < MF_NR_LAYOUTS ? layout : MF_LAYOUT_TIERED];
}

/* [R-HVO-1, R-HVO-2, R-DAX-4, R-DAX-7, R-GEN-3] */
uint64_t mf_diet_saves(enum mf_layout layout, unsigned page_shift, unsigned descriptor_bytes, unsigned order)
{
	const struct mf_diet *diet = mf_layout_diet(layout);
	unsigned shift;
	uint64_t nr;

	if (diet->nr_kept == 0 || page_shift >= 64 || !mf_is_power_of_two(descriptor_bytes))
		return 0;
	shift = mf_log2(descriptor_bytes);
	if (shift > page_shift || order >= 64 || order < page_shift - shift)
		return 0;
	nr = (uint64_t)1 << (order - (page_shift - shift));
	return nr > diet->nr_kept ? nr - diet->nr_kept : 0;
}

/* ---- Units ----------------------------------------------------------------------------------------------------- */

struct diet_unit diet_unit_at(struct mf_map *map, const struct mf_region *r, struct mf_page *head, unsigned order)
{
	return (struct diet_unit){
		.map = map,
		.r = r,
		.diet = mf_layout_diet(r->config.layout),
		.head = head,
		.order = order,
		.start = (uintptr_t)head,
		.nr_slots = (uint64_t)MF_DESCRIPTOR_SIZE << order >> map->machine->paging.page_shift,
	};
}

struct diet_unit diet_unit(struct mf_map *map, struct mf_page *head)
{
	uint64_t word = mf_page_word(head);

	return diet_unit_at(map, map_word_region(map, word), head, mf_word_order(word));
}

/* Slots of a partial block are of RAM whatever the source: another region may need them when this one is gone. */
static bool lies_in_whole_blocks(const struct diet_unit *u)
{
	mf_pfn_t block = map_block_frames(u->map, 1), pfn = mf_page_to_pfn(u->map, u->head);

	return pfn >= mf_round_up(u->r->config.start_pfn, block) &&
	       pfn + ((mf_pfn_t)1 << u->order) <= mf_round_down(u->r->config.end_pfn, block);
}

bool diet_unit_saves(const struct diet_unit *u)
{
	return u->diet->is_by_remap && u->nr_slots > u->diet->nr_kept && lies_in_whole_blocks(u);
}

/* Whole descriptors at a time, as stores of a few registers: this is most of what a restore costs. */
void diet_write_tails(struct mf_map *map, void *slot, unsigned order)
{
	const struct mf_page tail = { .word = map_tail_word(order) };
	struct mf_page *page = slot, *end = page + diet_slot_bytes(map) / sizeof(*page);

	for (; page < end; page += 4) {
		page[0] = tail;
		page[1] = tail;
		page[2] = tail;
		page[3] = tail;
	}
}

/* The counts of a frozen head are 0.  They are not read: a taker that was overtaken may be about to write them. */
void diet_copy_kept(const struct diet_unit *u, void *to, uint64_t nr_slots)
{
	const size_t rest = offsetof(struct mf_page, counts) + sizeof(u->head->counts);
	struct mf_page *head = to;

	if (nr_slots == 0)
		return;
	head->word = mf_page_word(u->head);
	head->counts = 0;
	__builtin_memcpy((char *)to + rest, (const char *)u->head + rest, nr_slots * diet_slot_bytes(u->map) - rest);
}

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

int diet_frame_get(struct mf_map *map, const struct mf_region *r, unsigned order, mf_pfn_t *pfn)
{
	if (order == 0 && reserve_take_frame(map, r, pfn))
		return 0;
	return ram_get(map, r->config.node, order, pfn);
}

void diet_frame_put(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	if (!reserve_holds(&r->reserve, pfn))
		ram_put(map, r->config.node, 0, pfn);
	else if (r->reserve.spare)
		reserve_put_frame(map, r, pfn);
	else
		map->client->frame_put(map, r, pfn);
}

void diet_block_put(struct mf_map *map, const struct mf_region *r, mf_pfn_t pfn)
{
	mf_pfn_t end = pfn + map_block_frames(map, 1);

	if (!reserve_holds(&r->reserve, pfn)) {
		ram_put(map, r->config.node, map->geo.step, pfn);
		return;
	}
	for (; pfn < end; pfn++)
		diet_frame_put(map, r, pfn);
}

/* ---- The switch ------------------------------------------------------------------------------------------------ */

void mf_diet_switch(struct mf_map *map, bool on)
{
	__atomic_store_n(&map->diet_is_off, !on, __ATOMIC_RELAXED);
}

bool mf_diet_is_on(const struct mf_map *map)
{
	return !__atomic_load_n(&map->diet_is_off, __ATOMIC_RELAXED);
}
