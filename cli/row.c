/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row.c - the work of one row.
 *
 *   open      machine, described memory, map
 *   bring up  add each region and allocate all of it as unit folios          timed; then measured
 *   pins      pin and unpin all of them in random order                      timed
 *   divide    free a share, use it as base pages, free those, fold, and take the units again
 *   close     free, remove, destroy
 *
 * The laws are checked between the steps, never inside what is measured.
 */
#include "cli/row.h"
#include "cli/measure.h"
#include "cli/size.h"
#include <inttypes.h>
#include <memfold/memfold.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The share that is used as base pages: 1/16 of the memory, but no more than this, and at least one unit. */
#define DIVIDE_BYTES_MAX (2 * MF_GIB)
/* What bringing up may not take, because the machine has other work too. */
#define RESERVE_BYTES (256 * MF_MIB)

struct work {
	const struct row_request *request;
	struct row *row;
	unsigned page_shift;
	struct mf_machine *machine;
	struct mf_map *map;
	unsigned *region;          /* ids, in the order of the description                              */
	unsigned nr_regions;
	struct mf_folio **folio;   /* all units                                                        */
	uint64_t nr_folios;
	struct mf_folio **base;    /* base pages                                                       */
	uint64_t nr_base;
	uint64_t step_began_ns, step_told_ns;
};

/* ---- What is told ----------------------------------------------------------------------------------------- */

static void step_begin(struct work *w)
{
	w->step_began_ns = w->step_told_ns = measure_now_ns();
}

/* Called now and then inside a step. */
static void step_tell(struct work *w, const char *what, uint64_t done, uint64_t all)
{
	uint64_t now = measure_now_ns();

	if (!w->request->progress || now - w->step_told_ns < 1000000000u)
		return;
	w->step_told_ns = now;
	fprintf(stderr, "\r%s: %s, %" PRIu64 " %% ", w->row->name, what, all ? done * 100 / all : 0);
	fflush(stderr);
}

static void step_end(struct work *w)
{
	if (w->step_told_ns != w->step_began_ns)
		fprintf(stderr, "\r%*s\r", 60, "");
}

static bool unable(struct work *w, enum row_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool unable(struct work *w, enum row_status status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(w->row->why, sizeof(w->row->why), format, args);
	va_end(args);
	w->row->status = status;
	return false;
}

static bool failed(struct work *w, const char *what, int err)
{
	return unable(w, err == -MF_ENOMEM || err == -MF_E2BIG ? ROW_UNABLE : ROW_BROKEN, "%s: %s", what, mf_strerror(err));
}

static bool laws_hold(struct work *w, const char *when)
{
	struct mf_violation v;
	int err = mf_map_check(w->map, &v);

	if (err == 0)
		return true;
	if (err < 0)
		return failed(w, "checking the laws", err);
	snprintf(w->row->laws, sizeof(w->row->laws), "%s broken %s at pfn %" PRIu64 ": %s", v.law, when, v.pfn, v.text);
	return unable(w, ROW_BROKEN, "%s", w->row->laws);
}

/* ---- Before: is there enough? --------------------------------------------------------------------------------- */

static enum mf_layout layout_of(const struct work *w, const struct description_region *r)
{
	if (!w->request->as_described)
		return w->request->layout;
	return r->layout == MF_SCHEME_FLAT ? MF_LAYOUT_FLAT : MF_LAYOUT_TIERED;
}

static unsigned unit_order(const struct work *w, const struct description_region *r)
{
	return mf_log2(r->unit_bytes) - w->page_shift;
}

/* A little more than what the region's descriptors, its folios' list and, with --touch, the memory itself will take. */
static uint64_t bytes_needed(const struct work *w, const struct description_region *r)
{
	uint64_t frames = r->size_bytes >> w->page_shift, units = r->size_bytes / r->unit_bytes;
	bool by_frame = layout_of(w, r) == MF_LAYOUT_FLAT || unit_order(w, r) < w->page_shift - 3;
	uint64_t records = by_frame ? frames : frames >> (w->page_shift - 3);

	return records * (MF_DESCRIPTOR_SIZE + 1) + units * sizeof(struct mf_folio *) +
	       (w->request->touch ? r->size_bytes : 0);
}

static bool is_enough_memory(struct work *w)
{
	uint64_t need = RESERVE_BYTES, have = mf_linux_available_bytes();
	char text[2][SIZE_TEXT_MAX];

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++)
		need += bytes_needed(w, &w->request->machine->regions[i]);
	if (need <= have)
		return true;
	return unable(w, ROW_UNABLE, "needs about %s of memory, %s is available", size_rounded(text[0], need),
		      size_rounded(text[1], have));
}

/* ---- Open and close ---------------------------------------------------------------------------------------------- */

static bool add_memory(struct work *w, const struct description_region *r, uint64_t *offset)
{
	struct mf_linux_memory memory = {
		.kind = w->request->backing,
		.start_pfn = r->start_bytes >> w->page_shift,
		.size_bytes = r->size_bytes,
		.huge_page_bytes = r->unit_bytes >= MF_GIB ? MF_GIB : 2 * MF_MIB,
		.path = w->request->path,
	};
	char message[MESSAGE_MAX];
	int err;

	if (w->request->path)
		memory.offset_bytes = *offset;
	*offset += r->size_bytes;
	err = mf_linux_memory_add(w->machine, &memory, message, sizeof(message));
	if (err)
		return unable(w, err == -MF_ENOMEM ? ROW_UNABLE : ROW_REFUSED, "%s", message);
	return true;
}

static bool open_world(struct work *w)
{
	const struct description *d = w->request->machine;
	struct mf_linux_config config = { .page_shift = w->page_shift };
	struct mf_map_config map_config = { 0 };
	uint64_t offset = 0;
	int err = mf_linux_create(&config, &w->machine);

	if (err)
		return failed(w, "starting", err);
	for (unsigned i = 0; i < d->nr_regions; i++) {
		const struct description_region *r = &d->regions[i];

		map_config.span = mf_max(map_config.span, (r->start_bytes + r->size_bytes) >> w->page_shift);
		w->nr_folios += r->size_bytes / r->unit_bytes;
		if (!add_memory(w, r, &offset))
			return false;
	}
	map_config.machine = w->machine;
	err = mf_map_create(&map_config, &w->map);
	if (err)
		return failed(w, "reserving addresses for the windows", err);
	w->folio = malloc(w->nr_folios * sizeof(struct mf_folio *));
	w->region = calloc(d->nr_regions, sizeof(*w->region));
	if (!w->folio || !w->region)
		return failed(w, "listing the units", -MF_ENOMEM);
	/* Now, so that the page tables of this list are no part of what the bring-up takes. */
	memset(w->folio, 0xff, w->nr_folios * sizeof(struct mf_folio *));
	w->row->nr_units = w->nr_folios;
	w->nr_folios = 0;
	return true;
}

static void put_all(struct work *w, struct mf_folio **list, uint64_t *nr)
{
	while (*nr > 0)
		mf_folio_put(w->map, list[--*nr]);
}

static bool close_map(struct work *w)
{
	int err = 0;

	put_all(w, w->base, &w->nr_base);
	put_all(w, w->folio, &w->nr_folios);
	while (w->nr_regions > 0 && !err)
		err = mf_region_remove(w->map, w->region[--w->nr_regions]);
	if (err)
		return failed(w, "removing a region", err);
	if (w->row->status == ROW_OK && !laws_hold(w, "after everything was removed"))
		return false;
	err = mf_map_destroy(w->map);
	return err ? failed(w, "ending the map", err) : true;
}

static void close_world(struct work *w)
{
	bool closed = !w->map || close_map(w);

	free(w->folio);
	free(w->base);
	free(w->region);
	/* A map that could not be taken down still uses the machine. */
	if (w->machine && closed)
		mf_linux_destroy(w->machine);
}

/* ---- The steps ------------------------------------------------------------------------------------------------------ */

static bool bring_up_region(struct work *w, const struct description_region *r)
{
	struct mf_region_config config = {
		.start_pfn = r->start_bytes >> w->page_shift,
		.end_pfn = (r->start_bytes + r->size_bytes) >> w->page_shift,
		.node = r->node,
		.layout = layout_of(w, r),
		.source = MF_SOURCE_HOST,
		.top = layout_of(w, r) == MF_LAYOUT_TIERED ? r->top : 0,
	};
	uint64_t nr = r->size_bytes / r->unit_bytes;
	unsigned order = unit_order(w, r);
	int err = mf_region_add(w->map, &config, &w->region[w->nr_regions]);

	if (err)
		return failed(w, "adding a region", err);
	w->nr_regions++;
	for (uint64_t i = 0; i < nr; i++) {
		err = mf_folio_alloc(w->map, (int)r->node, order, MF_ALLOC_THIS_NODE, &w->folio[w->nr_folios]);
		if (err)
			return failed(w, "allocating all of a region", err);
		w->nr_folios++;
		if ((i & 1023) == 0)
			step_tell(w, "bringing up", w->nr_folios, w->row->nr_units);
	}
	return true;
}

static bool bring_up(struct work *w)
{
	const struct mf_geometry *g = mf_map_geometry(w->map);
	uint64_t tables = measure_page_tables(), began = measure_now_ns();
	uint64_t window_bytes = g->window[g->top] + (g->span >> g->shift[g->top]) * MF_DESCRIPTOR_SIZE - g->window[0];

	step_begin(w);
	for (unsigned i = 0; i < w->request->machine->nr_regions; i++)
		if (!bring_up_region(w, &w->request->machine->regions[i]))
			return false;
	w->row->bring_up_ns = measure_now_ns() - began;
	step_end(w);
	w->row->map_bytes = measure_resident((const void *)g->window[0], mf_round_up(window_bytes, (uint64_t)1 << w->page_shift));
	w->row->table_bytes = measure_page_tables();
	w->row->table_bytes -= mf_min(tables, w->row->table_bytes);
	return laws_hold(w, "after the bring-up");
}

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static void shuffle(struct mf_folio **list, uint64_t nr)
{
	uint64_t state = 1;

	for (uint64_t i = nr; i > 1; i--) {
		uint64_t j = (next_random(&state) << 31 | next_random(&state)) % i;
		struct mf_folio *folio = list[i - 1];

		list[i - 1] = list[j];
		list[j] = folio;
	}
}

static bool pin_all(struct work *w)
{
	uint64_t began;
	int err = 0;

	shuffle(w->folio, w->nr_folios);
	step_begin(w);
	began = measure_now_ns();
	for (uint64_t i = 0; i < w->nr_folios && !err; i++) {
		err = mf_folio_pin(w->folio[i]);
		mf_folio_unpin(w->map, w->folio[i]);
	}
	w->row->pin_unpin_ns = (double)(measure_now_ns() - began) / (double)w->nr_folios;
	step_end(w);
	return err ? failed(w, "pinning", err) : true;
}

static bool touch_all(struct work *w)
{
	uint64_t page = (uint64_t)1 << w->page_shift;

	step_begin(w);
	for (uint64_t i = 0; i < w->nr_folios; i++) {
		volatile char *data = mf_folio_data(w->map, w->folio[i]);
		uint64_t bytes = mf_folio_nr_frames(w->folio[i]) * page;

		if (!data)
			return unable(w, ROW_BROKEN, "a folio has no data pointer although its memory is mapped");
		for (uint64_t at = 0; at < bytes; at += page)
			data[at] = 1;
		step_tell(w, "touching", i, w->nr_folios);
	}
	step_end(w);
	return true;
}

/* Base pages until as many frames are out as the units that were freed had. */
static bool use_base_pages(struct work *w, uint64_t nr_frames)
{
	step_begin(w);
	w->base = calloc(nr_frames, sizeof(struct mf_folio *));
	if (!w->base)
		return failed(w, "listing base pages", -MF_ENOMEM);
	for (; w->nr_base < nr_frames; w->nr_base++) {
		int err = mf_folio_alloc(w->map, MF_ANY_NODE, 0, 0, &w->base[w->nr_base]);

		if (err)
			return failed(w, "using freed units as base pages", err);
		if ((w->nr_base & 1023) == 0)
			step_tell(w, "using base pages", w->nr_base, nr_frames);
	}
	step_end(w);
	w->row->nr_base_pages = nr_frames;
	return laws_hold(w, "while a share is used as base pages");
}

/* Frees units from the end of the (shuffled) list, remembering their orders in the order of freeing. */
static bool divide(struct work *w)
{
	uint64_t had = w->nr_folios, frames = 0, wanted;
	unsigned *order;
	bool good;

	wanted = mf_min(w->row->described_bytes / 16, DIVIDE_BYTES_MAX) >> w->page_shift;
	order = calloc(had, sizeof(*order));
	if (!order)
		return failed(w, "listing what is freed", -MF_ENOMEM);
	while (w->nr_folios > 0 && (frames < wanted || frames == 0)) {
		struct mf_folio *folio = w->folio[--w->nr_folios];

		order[w->nr_folios] = mf_folio_order(folio);
		frames += mf_folio_nr_frames(folio);
		mf_folio_put(w->map, folio);
	}
	good = use_base_pages(w, frames);
	put_all(w, w->base, &w->nr_base);
	if (good) {
		int err = mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL);

		good = err ? failed(w, "folding", err) : laws_hold(w, "after folding back");
	}
	/* Largest first would always fit; the same orders in the reverse order fit as well, because all of them is free. */
	for (; good && w->nr_folios < had; w->nr_folios++) {
		int err = mf_folio_alloc(w->map, MF_ANY_NODE, order[w->nr_folios], 0, &w->folio[w->nr_folios]);

		good = err ? failed(w, "taking the units again after folding back", err) : true;
	}
	free(order);
	return good && laws_hold(w, "after the units were taken again");
}

void row_run(const struct row_request *request, struct row *row)
{
	const struct description *d = request->machine;
	struct work w = { .request = request, .row = row, .page_shift = d->page_shift };

	*row = (struct row){ .name = request->as_described ? "as described" : mf_layout_name(request->layout) };
	snprintf(row->laws, sizeof(row->laws), "held");
	for (unsigned i = 0; i < d->nr_regions; i++) {
		row->described_bytes += d->regions[i].size_bytes;
		if (i == 0)
			row->unit_bytes = d->regions[i].unit_bytes;
		else if (row->unit_bytes != d->regions[i].unit_bytes)
			row->unit_bytes = 0;
	}
	if (is_enough_memory(&w) && open_world(&w) && bring_up(&w) && (!request->touch || touch_all(&w)) && pin_all(&w))
		divide(&w);
	close_world(&w);
}
