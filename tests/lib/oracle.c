/* SPDX-License-Identifier: BSD-2-Clause */
/* oracle.c - the naive model of a map, and the comparison with the real one. */
#include "tests/lib/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool oracle_create(struct oracle *o, struct mf_map *map, const struct mf_machine *machine)
{
	*o = (struct oracle){ .map = map, .span = mf_map_geometry(map)->span, .room = 1024, .nr_folios = 1 };
	o->page_shift = machine->paging.page_shift;
	o->on_tables = machine->backing == MF_WINDOW_TABLES;
	o->frame = calloc(o->span, sizeof(*o->frame));
	o->folio = malloc(o->room * sizeof(*o->folio));
	o->live = malloc(o->room * sizeof(*o->live));
	o->spare = malloc(o->room * sizeof(*o->spare));
	if (oracle_diet_create(o) && o->frame && o->folio && o->live && o->spare)
		return true;
	oracle_destroy(o);
	return false;
}

void oracle_destroy(struct oracle *o)
{
	free(o->frame);
	free(o->folio);
	free(o->live);
	free(o->spare);
	oracle_diet_destroy(o);
}

bool oracle_fail(struct oracle *o, const char *format, ...)
{
	va_list args;

	if (o->failed)
		return false;
	o->failed = true;
	va_start(args, format);
	vsnprintf(o->text, sizeof(o->text), format, args);
	va_end(args);
	return false;
}

/* ---- What happened --------------------------------------------------------------------------------------------- */

void oracle_region_added(struct oracle *o, unsigned id, const struct mf_region_config *config)
{
	struct mf_region_info info;

	if (id >= ORACLE_REGIONS_MAX || o->region[id].present) {
		oracle_fail(o, "a region got number %u, which is taken or not the lowest", id);
		return;
	}
	if (mf_region_info(o->map, id, &info) != 0) {
		oracle_fail(o, "region %u has just been added, and is not there", id);
		return;
	}
	o->region[id] = (struct oracle_region){ .present = true, .config = *config, .zone = info.zone };
	for (mf_pfn_t pfn = config->start_pfn; pfn < config->end_pfn; pfn++)
		o->frame[pfn].region = (uint16_t)(id + 1);
	if (config->layout == MF_LAYOUT_DEVDAX)
		oracle_compounds_added(o, id);
}

void oracle_region_removed(struct oracle *o, unsigned id)
{
	const struct mf_region_config *c = &o->region[id].config;

	for (mf_pfn_t pfn = c->start_pfn; pfn < c->end_pfn; pfn++) {
		if (o->frame[pfn].folio)
			oracle_folio_removed(o, o->frame[pfn].folio);
		if (o->frame[pfn].kept)
			oracle_kept_ended(o, o->frame[pfn].kept);
		o->frame[pfn] = (struct oracle_frame){ 0 };
	}
	o->region[id].present = false;
	oracle_tails_dropped(o, o->region[id].zone);
}

static void *grown(void *old, size_t nr, size_t size)
{
	void *memory = realloc(old, nr * size);

	if (!memory)
		abort();
	return memory;
}

static uint32_t new_number(struct oracle *o)
{
	if (o->nr_spare)
		return o->spare[--o->nr_spare];
	if (o->nr_folios == o->room) {
		o->room *= 2;
		o->folio = grown(o->folio, o->room, sizeof(*o->folio));
		o->live = grown(o->live, o->room, sizeof(*o->live));
		o->spare = grown(o->spare, o->room, sizeof(*o->spare));
	}
	return o->nr_folios++;
}

static bool is_unused_memory(const struct oracle *o, mf_pfn_t pfn, mf_pfn_t end)
{
	uint16_t region = pfn < o->span ? o->frame[pfn].region : 0;

	for (; region && pfn < end; pfn++)
		if (pfn >= o->span || o->frame[pfn].region != region || o->frame[pfn].folio)
			return false;
	return region != 0;
}

uint32_t oracle_folio_added(struct oracle *o, struct mf_folio *handle, mf_pfn_t pfn, unsigned order)
{
	mf_pfn_t end = pfn + ((mf_pfn_t)1 << order);
	uint32_t number;

	if (pfn & (end - pfn - 1) || !is_unused_memory(o, pfn, end)) {
		oracle_fail(o, "the folio at pfn %llu of order %u is misaligned or covers what is no unused memory",
			    (unsigned long long)pfn, order);
		return 0;
	}
	number = new_number(o);
	o->folio[number] = (struct oracle_folio){ .handle = handle, .pfn = pfn, .order = order, .refs = 1,
						  .kind = MF_KIND_USED, .place = o->nr_live };
	o->live[o->nr_live++] = number;
	o->region[o->frame[pfn].region - 1].nr_used += end - pfn;
	for (; pfn < end; pfn++) {
		if (o->frame[pfn].kept)
			oracle_kept_ended(o, o->frame[pfn].kept);
		o->frame[pfn].folio = number;
	}
	return number;
}

void oracle_folio_removed(struct oracle *o, uint32_t number)
{
	struct oracle_folio *f = &o->folio[number];
	mf_pfn_t end = f->pfn + ((mf_pfn_t)1 << f->order);

	if (f->kind == MF_KIND_USED)
		o->region[o->frame[f->pfn].region - 1].nr_used -= end - f->pfn;
	for (mf_pfn_t pfn = f->pfn; pfn < end; pfn++)
		o->frame[pfn].folio = 0;
	if (f->dieted && f->kind == MF_KIND_USED)
		oracle_kept_added(o, f);
	o->live[f->place] = o->live[--o->nr_live];
	o->folio[o->live[f->place]].place = f->place;
	o->spare[o->nr_spare++] = number;
}

/* ---- Questions ------------------------------------------------------------------------------------------------- */

const struct oracle_region *oracle_region_at(const struct oracle *o, mf_pfn_t pfn)
{
	unsigned region = pfn < o->span ? o->frame[pfn].region : 0;

	return region ? &o->region[region - 1] : NULL;
}

bool oracle_overlaps(const struct oracle *o, mf_pfn_t start, mf_pfn_t end)
{
	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++)
		if (o->region[i].present && start < o->region[i].config.end_pfn && o->region[i].config.start_pfn < end)
			return true;
	return false;
}

uint64_t oracle_unused_runs(const struct oracle *o, int node, unsigned order)
{
	mf_pfn_t size = (mf_pfn_t)1 << order;
	uint64_t nr = 0;

	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
		const struct mf_region_config *c = &o->region[i].config;

		/* A reserve of the region's own frames is not the allocator's. */
		if (c->layout != MF_LAYOUT_TIERED && c->source != MF_SOURCE_RAM)
			continue;
		if (!o->region[i].present || (node != MF_ANY_NODE && c->node != (unsigned)node))
			continue;
		for (mf_pfn_t pfn = mf_round_up(c->start_pfn, size); pfn + size <= c->end_pfn; pfn += size)
			nr += is_unused_memory(o, pfn, pfn + size);
	}
	return nr;
}

/* ---- Comparisons ----------------------------------------------------------------------------------------------- */

static bool check_unused(struct oracle *o, mf_pfn_t pfn, const struct mf_folio *answer)
{
	const struct oracle_region *r = oracle_region_at(o, pfn);
	uint64_t word = answer ? mf_page_word(&answer->page) : 0;
	enum mf_kind kind = mf_word_kind(word);

	if (!r)
		return (!answer || kind == MF_KIND_HOLE) ? true :
		       oracle_fail(o, "pfn %llu is no memory, but kind %d answers", (unsigned long long)pfn, (int)kind);
	if ((kind != MF_KIND_FREE && kind != MF_KIND_MAP && kind != MF_KIND_RESERVED) || mf_word_is_tail(word) ||
	    answer->page.counts != 0)
		return oracle_fail(o, "pfn %llu is unused, but kind %d with count %llu answers", (unsigned long long)pfn,
				   (int)kind, answer ? (unsigned long long)answer->page.counts : 0);
	if (mf_word_node(word) != r->config.node || mf_word_region(word) != o->frame[pfn].region - 1u)
		return oracle_fail(o, "pfn %llu: node %u, region %u answer; node %u, region %u were expected",
				   (unsigned long long)pfn, mf_word_node(word), mf_word_region(word), r->config.node,
				   o->frame[pfn].region - 1u);
	return true;
}

static bool check_counts(struct oracle *o, const struct oracle_folio *f)
{
	const struct mf_folio *h = f->handle;
	uint64_t word = mf_page_word(&h->page);

	if (mf_word_kind(word) != f->kind || mf_word_is_tail(word) || mf_folio_order(h) != f->order ||
	    mf_folio_pfn(o->map, h) != f->pfn || mf_word_region(word) != o->frame[f->pfn].region - 1u ||
	    mf_word_node(word) != o->region[o->frame[f->pfn].region - 1].config.node ||
	    mf_folio_is_on_diet(h) != f->dieted)
		return oracle_fail(o, "the folio at pfn %llu, order %u, %s a diet, has the word %llx",
				   (unsigned long long)f->pfn, f->order, f->dieted ? "on" : "not on",
				   (unsigned long long)word);
	if (mf_folio_refcount(h) != f->refs || mf_folio_pincount(h) != f->pins || mf_folio_mapcount(h) != f->mapped ||
	    mf_folio_whole_mapcount(h) != f->whole)
		return oracle_fail(o, "the folio at pfn %llu has counts %u %u %d %d; %u %u %d %d were expected",
				   (unsigned long long)f->pfn, mf_folio_refcount(h), mf_folio_pincount(h),
				   mf_folio_mapcount(h), mf_folio_whole_mapcount(h), f->refs, f->pins, f->mapped, f->whole);
	if (mf_folio_owner(h) != f->owner || h->page.index != f->index || h->page.private_data != f->private_data ||
	    mf_folio_flags(h) != f->flags)
		return oracle_fail(o, "the folio at pfn %llu has other owner's words or flags than were set",
				   (unsigned long long)f->pfn);
	return true;
}

/* Both lookups of one frame. */
static bool check_lookups(struct oracle *o, mf_pfn_t pfn, const struct mf_folio **answer)
{
	const struct mf_folio *below = mf_page_folio(o->map, mf_pfn_to_page(o->map, pfn));

	*answer = mf_pfn_folio(o->map, pfn);
	if (*answer != below)
		return oracle_fail(o, "pfn %llu: %p answers from above, %p from below", (unsigned long long)pfn,
				   (const void *)*answer, (const void *)below);
	return true;
}

/*
 * What the lowest descriptor of a frame of a folio is: its head, a tail; nothing where the folio is described in larger
 * blocks, which only a tiered region does.
 */
static bool check_kind(struct oracle *o, mf_pfn_t pfn, const struct oracle_folio *f)
{
	enum mf_kind kind = mf_page_kind(mf_pfn_to_page(o->map, pfn));
	enum mf_kind expected = pfn == f->pfn ? f->kind : MF_KIND_TAIL;

	if (mf_page_tier(o->map, &f->handle->page) > 0 && oracle_region_at(o, pfn)->config.layout == MF_LAYOUT_TIERED)
		expected = MF_KIND_NONE;
	return kind == expected ? true :
				  oracle_fail(o, "pfn %llu has a descriptor of kind %d; %d was expected",
					      (unsigned long long)pfn, (int)kind, (int)expected);
}

static bool check_part(struct oracle *o, mf_pfn_t pfn, const struct oracle_folio *f, const struct mf_folio *answer)
{
	if (answer != f->handle)
		return oracle_fail(o, "pfn %llu: %p answers; it is part of the folio %p", (unsigned long long)pfn,
				   (const void *)answer, (const void *)f->handle);
	return check_kind(o, pfn, f);
}

bool oracle_check_frame(struct oracle *o, mf_pfn_t pfn)
{
	const struct oracle_folio *f = oracle_at(o, pfn);
	const struct mf_folio *answer;

	if (o->failed || !check_lookups(o, pfn, &answer))
		return false;
	if (mf_pfn_is_valid(o->map, pfn) != (o->frame[pfn].region != 0))
		return oracle_fail(o, "pfn %llu: the map and the oracle differ about whether there is memory",
				   (unsigned long long)pfn);
	if (f)
		return check_part(o, pfn, f, answer) && check_counts(o, f);
	return oracle_is_kept(o, pfn, answer) ? oracle_check_kept(o, pfn) : check_unused(o, pfn, answer);
}

bool oracle_check_range(struct oracle *o, mf_pfn_t start, mf_pfn_t end)
{
	mf_pfn_t step = mf_max((end - start) / 5, 1);

	for (mf_pfn_t pfn = start; pfn < end && !o->failed; pfn += step)
		oracle_check_frame(o, pfn);
	if (start > 0)
		oracle_check_frame(o, start - 1);
	if (end < o->span)
		oracle_check_frame(o, end);
	return oracle_check_frame(o, end - 1);
}

bool oracle_check_folio(struct oracle *o, uint32_t number)
{
	const struct oracle_folio *f = &o->folio[number];

	return oracle_check_range(o, f->pfn, f->pfn + ((mf_pfn_t)1 << f->order));
}

static void check_region(struct oracle *o, const struct oracle_region *r)
{
	for (mf_pfn_t pfn = r->config.start_pfn; pfn < r->config.end_pfn && !o->failed; pfn++) {
		const struct oracle_folio *f = oracle_at(o, pfn);

		if (!f || f->pfn == pfn) {
			oracle_check_frame(o, pfn);
		} else {
			const struct mf_folio *answer;

			if (check_lookups(o, pfn, &answer))
				check_part(o, pfn, f, answer);
		}
	}
}

/* Frames of compounds and of what is kept. */
static uint64_t frames_of_compounds(const struct oracle *o)
{
	uint64_t nr = 0;

	for (uint32_t i = 0; i < o->nr_live; i++)
		if (o->folio[o->live[i]].kind == MF_KIND_DEVICE)
			nr += (uint64_t)1 << o->folio[o->live[i]].order;
	return nr;
}

static uint64_t frames_kept(const struct oracle *o)
{
	uint64_t nr = 0;

	for (uint32_t i = 1; i < o->kept_room; i++)
		nr += o->kept[i].present ? (uint64_t)1 << o->kept[i].order : 0;
	return nr;
}

bool oracle_check_all(struct oracle *o)
{
	uint64_t nr_described = 0, nr_used = 0, nr_device = frames_of_compounds(o), nr_dieted, nr_aliases;
	struct mf_map_stats stats;

	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
		if (!o->region[i].present)
			continue;
		check_region(o, &o->region[i]);
		nr_described += o->region[i].config.end_pfn - o->region[i].config.start_pfn;
		nr_used += o->region[i].nr_used;
	}
	mf_map_stats(o->map, &stats);
	nr_used += frames_kept(o);
	oracle_count_dieted(o, &nr_dieted, &nr_aliases);
	if (stats.nr_described != nr_described || stats.nr_used != nr_used || stats.nr_device != nr_device ||
	    stats.nr_free + stats.nr_map + stats.nr_reserved != nr_described - nr_used - nr_device)
		oracle_fail(o,
			    "the map counts %llu frames: %llu used, %llu free, %llu map, %llu device; "
			    "%llu, %llu used and %llu device were expected",
			    (unsigned long long)stats.nr_described, (unsigned long long)stats.nr_used,
			    (unsigned long long)stats.nr_free, (unsigned long long)stats.nr_map,
			    (unsigned long long)stats.nr_device, (unsigned long long)nr_described,
			    (unsigned long long)nr_used, (unsigned long long)nr_device);
	if (stats.nr_dieted != nr_dieted || stats.nr_aliases != nr_aliases || stats.nr_kept != o->nr_kept)
		oracle_fail(o,
			    "the map counts %llu folios on a diet, %llu of them kept, %llu aliases; "
			    "%llu, %u and %llu were expected",
			    (unsigned long long)stats.nr_dieted, (unsigned long long)stats.nr_kept,
			    (unsigned long long)stats.nr_aliases, (unsigned long long)nr_dieted, o->nr_kept,
			    (unsigned long long)nr_aliases);
	return !o->failed;
}
