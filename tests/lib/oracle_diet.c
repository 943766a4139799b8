/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * oracle_diet.c - what the classic layouts add to the naive model: the slots that each keeps, compounds that come with
 * their region, folios that were freed on their diet, and the frames that zones have for tails.
 *
 * Says nothing of which frame stands behind which slot: mf_map_check() does.
 */
#include "tests/lib/oracle.h"

#include <stdlib.h>

/* Map slots that stay a folio's own. */
static const unsigned slots_kept[MF_NR_LAYOUTS] = {
	[MF_LAYOUT_HVO_5_14] = 2,
	[MF_LAYOUT_HVO_5_18] = 1,
	[MF_LAYOUT_HVO_7_1] = 1,
	[MF_LAYOUT_DEVDAX] = 2,
};

uint64_t oracle_saves(const struct oracle *o, const struct mf_region_config *c, mf_pfn_t pfn, unsigned order)
{
	mf_pfn_t block = (mf_pfn_t)1 << mf_map_geometry(o->map)->step, end = pfn + ((mf_pfn_t)1 << order);
	uint64_t nr = oracle_slots(o, order), kept = slots_kept[c->layout];

	if (mf_round_down(pfn, block) < c->start_pfn || mf_round_up(end, block) > c->end_pfn)
		return 0;
	return kept && nr > kept ? nr - kept : 0;
}

bool oracle_is_remapped(enum mf_layout layout)
{
	return slots_kept[layout] && layout != MF_LAYOUT_DEVDAX;
}

/* ---- Compounds ------------------------------------------------------------------------------------------------- */

/* With an altmap, for which the host has no use, every slot has a frame. */
static bool compound_is_dieted(const struct oracle *o, const struct mf_region_config *c, mf_pfn_t pfn)
{
	return oracle_saves(o, c, pfn, c->unit_order) && (c->source != MF_SOURCE_ALTMAP || !o->on_tables);
}

void oracle_compounds_added(struct oracle *o, unsigned id)
{
	const struct mf_region_config *c = &o->region[id].config;
	mf_pfn_t size = (mf_pfn_t)1 << c->unit_order, pfn = c->start_pfn + (o->on_tables ? c->nr_altmap : 0);

	for (; pfn < c->end_pfn && !o->failed; pfn += size) {
		uint32_t number = oracle_folio_added(o, mf_pfn_folio(o->map, pfn), pfn, c->unit_order);
		struct oracle_folio *f = &o->folio[number];

		if (!number)
			return;
		f->kind = MF_KIND_DEVICE;
		f->dieted = compound_is_dieted(o, c, pfn);
		o->region[id].nr_used -= size;
	}
}

bool oracle_has_busy_compound(const struct oracle *o, unsigned id)
{
	const struct mf_region_config *c = &o->region[id].config;
	mf_pfn_t size = (mf_pfn_t)1 << c->unit_order;

	if (!o->region[id].present || c->layout != MF_LAYOUT_DEVDAX)
		return false;
	for (mf_pfn_t pfn = c->start_pfn; pfn < c->end_pfn; pfn += size) {
		const struct oracle_folio *f = &o->folio[o->frame[pfn].folio];

		if (o->frame[pfn].folio && (oracle_is_held(f) || f->mapped))
			return true;
	}
	return false;
}

/* ---- On the diet, and kept --------------------------------------------------------------------------------------- */

/* What saves slots has two at least. */
bool oracle_diet_create(struct oracle *o)
{
	uint64_t nr = oracle_slots(o, mf_log2(o->span)) / 2 + 2;

	if (nr > UINT16_MAX)
		return false;
	o->kept_room = (uint32_t)nr;
	o->kept = calloc(nr, sizeof(*o->kept));
	o->spare_kept = calloc(nr, sizeof(*o->spare_kept));
	for (uint32_t i = o->kept_room - 1; i > 0 && o->spare_kept; i--)
		o->spare_kept[o->nr_spare_kept++] = (uint16_t)i;
	return o->kept && o->spare_kept;
}

void oracle_diet_destroy(struct oracle *o)
{
	free(o->kept);
	free(o->spare_kept);
}

void oracle_kept_added(struct oracle *o, const struct oracle_folio *f)
{
	uint16_t number = o->spare_kept[--o->nr_spare_kept];

	o->kept[number] = (struct oracle_kept){ true, f->handle, f->pfn, f->order };
	o->nr_kept++;
	for (mf_pfn_t pfn = f->pfn; pfn < f->pfn + ((mf_pfn_t)1 << f->order); pfn++)
		o->frame[pfn].kept = number;
}

void oracle_kept_ended(struct oracle *o, uint16_t number)
{
	struct oracle_kept *k = &o->kept[number];

	for (mf_pfn_t pfn = k->pfn; pfn < k->pfn + ((mf_pfn_t)1 << k->order); pfn++)
		o->frame[pfn].kept = 0;
	k->present = false;
	o->spare_kept[o->nr_spare_kept++] = number;
	o->nr_kept--;
	o->nr_kept_ended++;
}

bool oracle_is_kept(struct oracle *o, mf_pfn_t pfn, const struct mf_folio *answer)
{
	uint16_t number = o->frame[pfn].kept;

	if (number == 0)
		return false;
	if (answer == o->kept[number].handle && mf_word_kind(mf_page_word(&answer->page)) == MF_KIND_USED)
		return true;
	oracle_kept_ended(o, number);
	return false;
}

/* As it was, frozen and nobody's. */
bool oracle_check_kept(struct oracle *o, mf_pfn_t pfn)
{
	const struct oracle_kept *k = &o->kept[o->frame[pfn].kept];
	const struct mf_folio *h = k->handle;

	if (!mf_folio_is_on_diet(h) || mf_folio_order(h) != k->order || mf_folio_pfn(o->map, h) != k->pfn ||
	    h->page.counts != 0 || mf_folio_mapcount(h) != 0 || mf_folio_owner(h) ||
	    mf_page_kind(mf_pfn_to_page(o->map, pfn)) != (pfn == k->pfn ? MF_KIND_USED : MF_KIND_TAIL))
		return oracle_fail(o,
				   "pfn %llu: the freed folio at pfn %llu of order %u has the word %llx, counts %llx",
				   (unsigned long long)pfn, (unsigned long long)k->pfn, k->order,
				   (unsigned long long)mf_page_word(&h->page), (unsigned long long)h->page.counts);
	return true;
}

bool oracle_check_none_kept(struct oracle *o, int node)
{
	for (uint32_t i = 1; i < o->kept_room && o->nr_kept && !o->failed; i++) {
		mf_pfn_t pfn = o->kept[i].pfn;

		if (!o->kept[i].present ||
		    (node != MF_ANY_NODE && oracle_region_at(o, pfn)->config.node != (unsigned)node))
			continue;
		if (oracle_check_frame(o, pfn) && o->kept[i].present)
			oracle_fail(o, "the folio at pfn %llu is kept, although there is memory to restore it",
				    (unsigned long long)pfn);
	}
	return !o->failed;
}

/* ---- Tails of zones ---------------------------------------------------------------------------------------------- */

static bool has_tails(const struct oracle *o, unsigned zone, unsigned order)
{
	for (unsigned i = 0; i < o->nr_tails; i++)
		if (o->tails[i].zone == zone && o->tails[i].order == order)
			return true;
	return false;
}

void oracle_folio_dieted(struct oracle *o, uint32_t number)
{
	struct oracle_folio *f = &o->folio[number];
	const struct oracle_region *r = oracle_region_at(o, f->pfn);

	f->dieted = true;
	if (r->config.layout != MF_LAYOUT_HVO_7_1 || has_tails(o, r->zone, f->order))
		return;
	MF_PANIC_IF(o->nr_tails == ORACLE_TAILS_MAX, "the oracle has room for %u frames of tails.",
		    (unsigned)ORACLE_TAILS_MAX);
	o->tails[o->nr_tails++] = (struct oracle_tails){
		.zone = r->zone,
		.order = f->order,
		.has_table = o->on_tables && oracle_slots(o, f->order) >> mf_map_geometry(o->map)->step > 1,
	};
}

void oracle_folio_restored(struct oracle *o, uint32_t number)
{
	o->folio[number].dieted = false;
}

/* With the last region of a zone that needs them. */
void oracle_tails_dropped(struct oracle *o, unsigned zone)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++)
		if (o->region[i].present && o->region[i].zone == zone &&
		    o->region[i].config.layout == MF_LAYOUT_HVO_7_1)
			return;
	for (unsigned i = 0; i < o->nr_tails; i++)
		if (o->tails[i].zone != zone)
			o->tails[nr++] = o->tails[i];
	o->nr_tails = nr;
}

static uint64_t saved_at(const struct oracle *o, mf_pfn_t pfn, unsigned order)
{
	return oracle_saves(o, &oracle_region_at(o, pfn)->config, pfn, order);
}

void oracle_count_dieted(const struct oracle *o, uint64_t *nr_dieted, uint64_t *nr_aliases)
{
	*nr_dieted = o->nr_kept;
	*nr_aliases = 0;
	for (uint32_t i = 1; i < o->kept_room; i++)
		if (o->kept[i].present)
			*nr_aliases += saved_at(o, o->kept[i].pfn, o->kept[i].order);
	for (uint32_t i = 0; i < o->nr_live; i++) {
		const struct oracle_folio *f = &o->folio[o->live[i]];

		*nr_dieted += f->dieted;
		if (f->dieted)
			*nr_aliases += saved_at(o, f->pfn, f->order);
	}
}
