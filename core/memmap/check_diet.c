/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check_diet.c - laws M1, M6 and M8 where map slots are aliases: kept slots have frames of their own, all others show,
 * read only, the one frame that the layout says, full of tails; and the frames and tables that serve aliases are
 * counted.
 *
 * Reads aliased slots by way of the tables, not of the window: on machines that hold few translations there are many.
 */
#include "core/memmap/diet.h"

static const struct diet_tails *tails_of(const struct mf_map *map, const struct diet_unit *u)
{
	for (const struct diet_tails *t = map->tails; t; t = t->next)
		if (t->zone == u->r->zone && t->order == u->order)
			return t;
	return NULL;
}

static bool is_full_of_tails(const struct mf_map *map, const void *slot, unsigned order)
{
	const struct mf_page *page = slot;
	uint64_t nr = diet_slot_bytes(map) / sizeof(*page);

	for (uint64_t i = 0; i < nr; i++)
		if (page[i].word != map_tail_word(order) || page[i].counts != 0 || !map_fields_are_clear(&page[i]))
			return false;
	return true;
}

/* What the aliased slots of the unit must show. */
static mf_pfn_t expected_frame(const struct diet_unit *u)
{
	const struct diet_tails *tails;

	if (u->diet->tails != MF_TAILS_ZONE)
		return mf_pgtable_walk(&u->map->pgtable, diet_slot_address(u, u->diet->nr_kept - 1)).pfn;
	tails = tails_of(u->map, u);
	return tails ? tails->frame : DIET_NO_FRAME;
}

/* The last kept slot of MF_TAILS_FIRST_TAIL is shared, so it is read-only. */
static bool slot_is_right(const struct diet_unit *u, uint64_t index, mf_pfn_t shown)
{
	struct mf_translation t = mf_pgtable_walk(&u->map->pgtable, diet_slot_address(u, index));
	bool shared = u->diet->tails == MF_TAILS_FIRST_TAIL && index + 1 == u->diet->nr_kept;

	if (t.background)
		return false;
	if (diet_slot_is_alias(u, index))
		return !t.writable && t.pfn == shown;
	return t.writable != shared;
}

/* The first descriptor of a counted tail frame keeps the number of slots that show it [R-DAX-15]. */
static int check_count(const struct diet_unit *u, mf_pfn_t shown, struct mf_violation *violation)
{
	const struct mf_page *first = mf_machine_frame(u->map->machine, shown);
	uint64_t nr = u->nr_slots - (u->diet->nr_kept - 1);

	if (!u->diet->is_counted || first->private_data == nr)
		return 0;
	return check_fail(violation, "M8", mf_page_to_pfn(u->map, u->head),
			  "the tail frame counts %llu slots that show it; there are %llu",
			  (unsigned long long)first->private_data, (unsigned long long)nr);
}

/* What the aliased slots of the unit must show, as an address. */
static const void *expected_slot(const struct diet_unit *u)
{
	const struct diet_tails *tails;

	if (u->diet->tails != MF_TAILS_ZONE)
		return (const void *)diet_slot_address(u, u->diet->nr_kept - 1);
	tails = tails_of(u->map, u);
	return tails ? tails->slot : NULL;
}

/* There are no tables to ask, so the bytes are compared.  Those of the slot shown are checked where it is kept. */
static int check_host(const struct diet_unit *u, struct mf_violation *violation)
{
	const void *shown = expected_slot(u);

	for (uint64_t i = u->diet->nr_kept; i < u->nr_slots; i++) {
		const void *slot = (const void *)diet_slot_address(u, i);

		if (!shown || __builtin_memcmp(slot, shown, diet_slot_bytes(u->map)) != 0)
			return check_fail(violation, "M6", mf_page_to_pfn(u->map, u->head),
					  "map slot %llu of a folio on a diet does not show what its layout says",
					  (unsigned long long)i);
	}
	return 0;
}

int diet_check_unit(struct mf_map *map, struct mf_page *head, struct diet_totals *totals,
		    struct mf_violation *violation)
{
	struct diet_unit u = diet_unit(map, head);
	mf_pfn_t pfn = mf_page_to_pfn(map, head), shown;

	if (u.diet->nr_kept == 0 || u.nr_slots <= u.diet->nr_kept)
		return check_fail(violation, "M6", pfn, "a folio is marked as on a diet, but its layout saves nothing");
	if (((mf_page_word(head) & MF_WORD_ALIASED) != 0) != (u.diet->tails == MF_TAILS_HEAD))
		return check_fail(violation, "M1", pfn, "the mark of a head that is read at its tails is wrong");
	totals->nr_aliases += u.nr_slots - u.diet->nr_kept;
	if (!diet_on_tables(map))
		return check_host(&u, violation);
	totals->nr_read_only += u.nr_slots - u.diet->nr_kept + (u.diet->tails == MF_TAILS_FIRST_TAIL);
	shown = expected_frame(&u);
	for (uint64_t i = 0; i < u.nr_slots; i++)
		if (!slot_is_right(&u, i, shown))
			return check_fail(violation, "M6", pfn,
					  "map slot %llu of a folio on a diet is not as in its layout (frame 0x%llx)",
					  (unsigned long long)i, (unsigned long long)shown);
	if (!map_frame_is_described(map, shown))
		totals->nr_ram_aliases += u.nr_slots - u.diet->nr_kept;
	if (diet_shares_tables(&u) && u.diet->tails != MF_TAILS_ZONE)
		totals->nr_uniform++;
	return check_count(&u, shown, violation);
}

int diet_check_tails(struct mf_map *map, const struct diet_totals *totals, struct mf_violation *violation)
{
	uint64_t nr_tails = 0, nr_uniform = totals->nr_uniform;

	for (const struct diet_tails *t = map->tails; t; t = t->next) {
		const void *slot = diet_on_tables(map) ? mf_machine_frame(map->machine, t->frame) : t->slot;

		nr_tails++;
		nr_uniform += t->uniform != DIET_NO_FRAME;
		if (!is_full_of_tails(map, slot, t->order))
			return check_fail(violation, "M6", 0,
					  "the frame of tails of zone %u, order %u holds something else", t->zone,
					  t->order);
	}
	if (nr_tails != map->nr_tails || nr_uniform != map->nr_uniform)
		return check_fail(violation, "M8", 0,
				  "%llu tail frames and %llu uniform tables are counted; there are %llu and %llu",
				  (unsigned long long)map->nr_tails, (unsigned long long)map->nr_uniform,
				  (unsigned long long)nr_tails, (unsigned long long)nr_uniform);
	return 0;
}
