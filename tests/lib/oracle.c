/* SPDX-License-Identifier: BSD-2-Clause */
/* oracle.c - the naive model of a map, and the comparison with the real one. */
#include "tests/lib/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool oracle_create(struct oracle *o, struct mf_map *map)
{
	*o = (struct oracle){ .map = map, .span = mf_map_geometry(map)->span, .room = 1024, .nr_folios = 1 };
	o->frame = calloc(o->span, sizeof(*o->frame));
	o->folio = malloc(o->room * sizeof(*o->folio));
	o->live = malloc(o->room * sizeof(*o->live));
	o->spare = malloc(o->room * sizeof(*o->spare));
	if (o->frame && o->folio && o->live && o->spare)
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
	if (id >= ORACLE_REGIONS_MAX || o->region[id].present) {
		oracle_fail(o, "a region got number %u, which is taken or not the lowest", id);
		return;
	}
	o->region[id] = (struct oracle_region){ .present = true, .config = *config };
	for (mf_pfn_t pfn = config->start_pfn; pfn < config->end_pfn; pfn++)
		o->frame[pfn].region = (uint16_t)(id + 1);
}

void oracle_region_removed(struct oracle *o, unsigned id)
{
	const struct mf_region_config *c = &o->region[id].config;

	for (mf_pfn_t pfn = c->start_pfn; pfn < c->end_pfn; pfn++)
		o->frame[pfn] = (struct oracle_frame){ 0 };
	o->region[id].present = false;
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
						  .place = o->nr_live };
	o->live[o->nr_live++] = number;
	o->region[o->frame[pfn].region - 1].nr_used += end - pfn;
	for (; pfn < end; pfn++)
		o->frame[pfn].folio = number;
	return number;
}

void oracle_folio_removed(struct oracle *o, uint32_t number)
{
	struct oracle_folio *f = &o->folio[number];
	mf_pfn_t end = f->pfn + ((mf_pfn_t)1 << f->order);

	o->region[o->frame[f->pfn].region - 1].nr_used -= end - f->pfn;
	for (mf_pfn_t pfn = f->pfn; pfn < end; pfn++)
		o->frame[pfn].folio = 0;
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

		/* The reserve of a flat region on its own frames is never the allocator's. */
		if (c->layout == MF_LAYOUT_FLAT && c->source == MF_SOURCE_SELF)
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

	if (mf_word_kind(word) != MF_KIND_USED || mf_word_is_tail(word) || mf_folio_order(h) != f->order ||
	    mf_folio_pfn(o->map, h) != f->pfn || mf_word_region(word) != o->frame[f->pfn].region - 1u ||
	    mf_word_node(word) != o->region[o->frame[f->pfn].region - 1].config.node)
		return oracle_fail(o, "the folio at pfn %llu, order %u, has the word %llx", (unsigned long long)f->pfn,
				   f->order, (unsigned long long)word);
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

bool oracle_check_frame(struct oracle *o, mf_pfn_t pfn)
{
	const struct oracle_folio *f = oracle_at(o, pfn);
	const struct mf_folio *answer;

	if (o->failed || !check_lookups(o, pfn, &answer))
		return false;
	if (!f)
		return check_unused(o, pfn, answer);
	if (answer != f->handle)
		return oracle_fail(o, "pfn %llu: %p answers; it is part of the folio %p", (unsigned long long)pfn,
				   (const void *)answer, (const void *)f->handle);
	return check_counts(o, f);
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

			if (check_lookups(o, pfn, &answer) && answer != f->handle)
				oracle_fail(o, "pfn %llu leads elsewhere than its folio", (unsigned long long)pfn);
		}
	}
}

bool oracle_check_all(struct oracle *o)
{
	uint64_t nr_described = 0, nr_used = 0;
	struct mf_map_stats stats;

	for (unsigned i = 0; i < ORACLE_REGIONS_MAX; i++) {
		if (!o->region[i].present)
			continue;
		check_region(o, &o->region[i]);
		nr_described += o->region[i].config.end_pfn - o->region[i].config.start_pfn;
		nr_used += o->region[i].nr_used;
	}
	mf_map_stats(o->map, &stats);
	if (stats.nr_described != nr_described || stats.nr_used != nr_used ||
	    stats.nr_free + stats.nr_map != nr_described - nr_used)
		oracle_fail(o, "the map counts %llu frames: %llu used, %llu free, %llu map; %llu, %llu used were expected",
			    (unsigned long long)stats.nr_described, (unsigned long long)stats.nr_used,
			    (unsigned long long)stats.nr_free, (unsigned long long)stats.nr_map,
			    (unsigned long long)nr_described, (unsigned long long)nr_used);
	return !o->failed;
}
