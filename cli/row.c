/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row.c - the work of one row.
 *
 *   open      machine, described memory, map
 *   bring up  add each region, take all of it as units, put those on the diet of the layout   timed; then measured
 *   pins      pin and unpin all of them in random order                                       timed
 *   divide    free a share, use it as base pages, free those, fold, and take the units again
 *   close     free, remove, destroy
 *
 * Units of a device are compounds of the region: they are held, and never divided.  The laws are checked between the
 * steps, never inside what is measured.  What memfold calls a broken contract ends the row as broken, not the program;
 * a broken row's map is left as it is, since taking it down may break more.
 */
#include "cli/measure.h"
#include "cli/progress.h"
#include "cli/row_work.h"
#include "cli/size.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The share that is used as base pages: 1/16 of the memory, but no more than this, and at least one unit. */
#define DIVIDE_BYTES_MAX (2 * MF_GIB)

/* ---- What is told ----------------------------------------------------------------------------------------- */

static void step_begin(const struct work *w, const char *step)
{
	progress_begin(w->request->progress, w->row->name, step);
}

bool row_unable(struct work *w, enum row_status status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(w->row->why, sizeof(w->row->why), format, args);
	va_end(args);
	w->row->status = status;
	return false;
}

bool row_failed(struct work *w, const char *what, int err)
{
	char text[MESSAGE_MAX / 2];

	snprintf(text, sizeof(text), "%s: %s", what, mf_strerror(err));
	if (err == -MF_ENOMEM)
		return row_short(w, text);
	return row_unable(w, err == -MF_E2BIG ? ROW_UNABLE : ROW_BROKEN, "%s", text);
}

static bool laws_hold(struct work *w, const char *when)
{
	struct mf_violation v;
	int err;

	step_begin(w, "checking the laws");
	err = mf_map_check(w->map, &v);
	progress_end();
	if (err == 0)
		return true;
	if (err < 0)
		return row_failed(w, "checking the laws", err);
	snprintf(w->row->laws, sizeof(w->row->laws), "%s broken %s at pfn %" PRIu64 ": %s", v.law, when, v.pfn, v.text);
	return row_unable(w, ROW_BROKEN, "%s", w->row->laws);
}

/* ---- A region of the description --------------------------------------------------------------------------- */

enum mf_layout row_layout(const struct work *w, const struct description_region *r)
{
	enum mf_layout layout = w->request->layout;

	MF_PANIC_IF(w->request->as_described && mf_layout_by_name(mf_scheme_name(r->layout), &layout) != 0,
		    "memfold: %s is no layout that can be run.", mf_scheme_name(r->layout));
	return layout;
}

unsigned row_unit_order(const struct work *w, const struct description_region *r)
{
	return mf_log2(r->unit_bytes) - w->page_shift;
}

uint64_t row_saved_slots(const struct work *w, const struct description_region *r)
{
	return mf_diet_saves(row_layout(w, r), w->page_shift, MF_DESCRIPTOR_SIZE, row_unit_order(w, r));
}

mf_pfn_t row_span(const struct work *w)
{
	mf_pfn_t span = 0;

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++) {
		const struct description_region *r = &w->request->machine->regions[i];

		span = mf_max(span, (r->start_bytes + r->size_bytes) >> w->page_shift);
	}
	return span;
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
	char message[MESSAGE_MAX / 2];
	int err;

	if (w->request->path)
		memory.offset_bytes = *offset;
	*offset += r->size_bytes;
	err = mf_linux_memory_add(w->machine, &memory, message, sizeof(message));
	if (err == -MF_ENOMEM && memory.kind != MF_LINUX_HUGETLBFS) /* which tells of huge pages itself */
		return row_short(w, message);
	if (err)
		return row_unable(w, err == -MF_ENOMEM ? ROW_UNABLE : ROW_REFUSED, "%s", message);
	return true;
}

static bool open_world(struct work *w)
{
	const struct description *d = w->request->machine;
	struct mf_linux_config config = { .page_shift = w->page_shift };
	struct mf_map_config map_config = { .span = row_span(w) };
	uint64_t offset = 0;
	int err = mf_linux_create(&config, &w->machine);

	if (err)
		return row_failed(w, "starting", err);
	for (unsigned i = 0; i < d->nr_regions; i++) {
		const struct description_region *r = &d->regions[i];

		w->nr_folios += r->size_bytes / r->unit_bytes;
		if (!add_memory(w, r, &offset))
			return false;
	}
	map_config.machine = w->machine;
	err = mf_map_create(&map_config, &w->map);
	if (err)
		return row_failed(w, "reserving addresses for the windows", err);
	w->folio = malloc(w->nr_folios * sizeof(struct mf_folio *));
	w->region = calloc(d->nr_regions, sizeof(*w->region));
	if (!w->folio || !w->region)
		return row_failed(w, "listing the units", -MF_ENOMEM);
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
		return row_failed(w, "removing a region", err);
	if (w->row->status == ROW_OK && !laws_hold(w, "after everything was removed"))
		return false;
	err = mf_map_destroy(w->map);
	return err ? row_failed(w, "ending the map", err) : true;
}

static void close_world(struct work *w)
{
	bool closed = !w->map || (w->row->status != ROW_BROKEN && close_map(w));

	free(w->folio);
	free(w->base);
	free(w->region);
	/* A map that is not taken down still uses the machine. */
	if (w->machine && closed)
		mf_linux_destroy(w->machine);
}

/* ---- The steps --------------------------------------------------------------------------------------------- */

static bool add_region(struct work *w, const struct description_region *r)
{
	enum mf_layout layout = row_layout(w, r);
	struct mf_region_config config = {
		.start_pfn = r->start_bytes >> w->page_shift,
		.end_pfn = (r->start_bytes + r->size_bytes) >> w->page_shift,
		.node = r->node,
		.layout = layout,
		.source = MF_SOURCE_HOST,
		.top = layout == MF_LAYOUT_TIERED ? r->top : 0,
		.unit_order = layout == MF_LAYOUT_DEVDAX ? row_unit_order(w, r) : 0,
	};
	int err = mf_region_add(w->map, &config, &w->region[w->nr_regions]);

	if (err)
		return row_failed(w, "adding a region", err);
	w->nr_regions++;
	return true;
}

static bool take_units(struct work *w, const struct description_region *r)
{
	uint64_t nr = r->size_bytes / r->unit_bytes;
	unsigned order = row_unit_order(w, r);

	for (uint64_t i = 0; i < nr; i++) {
		int err = mf_folio_alloc(w->map, (int)r->node, order, MF_ALLOC_THIS_NODE, &w->folio[w->nr_folios]);

		if (err)
			return row_failed(w, "allocating all of a region", err);
		w->nr_folios++;
		w->nr_done++;
		if ((i & 1023) == 0)
			progress_at(w->nr_done, w->nr_to_do);
	}
	return true;
}

static bool remap_units(struct work *w, uint64_t first)
{
	uint64_t began = measure_now_ns();
	bool good = row_remap(w, first);

	w->row->remap_ns += measure_now_ns() - began;
	return good;
}

static bool bring_up_region(struct work *w, const struct description_region *r)
{
	uint64_t first = w->nr_folios;

	if (!add_region(w, r))
		return false;
	if (row_layout(w, r) == MF_LAYOUT_DEVDAX)
		return row_hold_compounds(w, r);
	return take_units(w, r) && (!row_is_by_remap(w, r) || remap_units(w, first));
}

/* What is private of the windows smaps says, what is shared the machine: never the same memory. */
static bool measure_map(struct work *w)
{
	const struct mf_geometry *g = mf_map_geometry(w->map);
	uint64_t window_bytes = g->window[g->top] + (g->span >> g->shift[g->top]) * MF_DESCRIPTOR_SIZE - g->window[0];
	uint64_t shared;
	int err = mf_linux_window_bytes(w->machine, &shared);

	w->row->map_bytes = measure_private((const void *)g->window[0],
					    mf_round_up(window_bytes, (uint64_t)1 << w->page_shift));
	if (err)
		return row_failed(w, "asking for the size of shared windows", err);
	w->row->map_bytes += shared;
	return true;
}

static uint64_t units_to_remap(const struct work *w)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < w->request->machine->nr_regions; i++) {
		const struct description_region *r = &w->request->machine->regions[i];

		nr += row_is_by_remap(w, r) ? r->size_bytes / r->unit_bytes : 0;
	}
	return nr;
}

static bool bring_up(struct work *w)
{
	struct mf_map_stats stats;
	uint64_t tables, began;

	step_begin(w, "bringing up");
	w->nr_to_do = w->row->nr_units + units_to_remap(w);
	tables = measure_page_tables();
	began = measure_now_ns();
	for (unsigned i = 0; i < w->request->machine->nr_regions; i++)
		if (!bring_up_region(w, &w->request->machine->regions[i]))
			return false;
	w->row->bring_up_ns = measure_now_ns() - began;
	if (!measure_map(w))
		return false;
	w->row->table_bytes = measure_page_tables();
	w->row->table_bytes -= mf_min(tables, w->row->table_bytes);
	progress_end();
	mf_map_stats(w->map, &stats);
	w->row->nr_dieted = stats.nr_dieted;
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
	step_begin(w, "pinning");
	began = measure_now_ns();
	for (uint64_t i = 0; i < w->nr_folios && !err; i++) {
		err = mf_folio_pin(w->folio[i]);
		if (!err)
			mf_folio_unpin(w->map, w->folio[i]);
	}
	w->row->pin_unpin_ns = (double)(measure_now_ns() - began) / (double)w->nr_folios;
	progress_end();
	return err ? row_failed(w, "pinning", err) : true;
}

/*
 * A hole of a sparse file may have no room behind it, on a full disk or without free huge pages: asked for in this
 * way it is an error, and written to at once a SIGBUS.  Hosts before Linux 5.14 cannot be asked.
 */
static int populate(void *data, uint64_t bytes)
{
	int err;

	do
		err = madvise(data, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
	while (err == EINTR || err == EAGAIN);
	return err == EINVAL ? 0 : err;
}

static bool touch_all(struct work *w)
{
	uint64_t page = (uint64_t)1 << w->page_shift, touched = 0;
	char text[2][SIZE_TEXT_MAX];

	step_begin(w, "touching");
	for (uint64_t i = 0; i < w->nr_folios; i++) {
		volatile char *data = mf_folio_data(w->map, w->folio[i]);
		uint64_t bytes = mf_folio_nr_frames(w->folio[i]) * page;

		if (!data)
			return row_unable(w, ROW_BROKEN, "a folio has no data pointer although its memory is mapped");
		if (populate((void *)(uintptr_t)data, bytes) != 0)
			return row_unable(w, ROW_UNABLE, "touching needs %s behind the memory, the host gave %s",
				      size_rounded(text[0], w->row->described_bytes), size_rounded(text[1], touched));
		/* A write that changes nothing: the memory may be a file of somebody's. */
		for (uint64_t at = 0; at < bytes; at += page)
			(void)__atomic_fetch_add(&data[at], 0, __ATOMIC_RELAXED);
		touched += bytes;
		progress_at(touched, w->row->described_bytes);
	}
	progress_end();
	return true;
}

static bool use_base_pages(struct work *w, uint64_t nr_frames)
{
	step_begin(w, "using base pages");
	w->base = calloc(nr_frames, sizeof(struct mf_folio *));
	if (!w->base)
		return row_failed(w, "listing base pages", -MF_ENOMEM);
	for (; w->nr_base < nr_frames; w->nr_base++) {
		int err = mf_folio_alloc(w->map, MF_ANY_NODE, 0, 0, &w->base[w->nr_base]);

		if (err)
			return row_failed(w, "using freed units as base pages", err);
		if ((w->nr_base & 1023) == 0)
			progress_at(w->nr_base, nr_frames);
	}
	w->row->nr_base_pages = nr_frames;
	return laws_hold(w, "while a share is used as base pages");
}

/* What has to be taken again, and on which node. */
struct freed {
	unsigned order, node;
};

/* Frees units from the end of the (shuffled) list until they are the share.  Answers how many frames to use of it. */
static uint64_t free_share(struct work *w, struct freed *freed)
{
	uint64_t wanted = mf_min(w->row->described_bytes / 16, DIVIDE_BYTES_MAX) >> w->page_shift, frames = 0;

	while (w->nr_folios > w->nr_devices && (frames < wanted || frames == 0)) {
		struct mf_folio *folio = w->folio[--w->nr_folios];

		freed[w->nr_folios] = (struct freed){ mf_folio_order(folio), mf_word_node(mf_page_word(&folio->page)) };
		frames += mf_folio_nr_frames(folio);
		mf_folio_put(w->map, folio);
	}
	return mf_min(frames, DIVIDE_BYTES_MAX >> w->page_shift);
}

static int larger_first(const void *a, const void *b)
{
	const struct freed *x = a, *y = b;

	return (x->order < y->order) - (x->order > y->order);
}

/* In this order they always fit: a smaller one may be served by a block that a larger one would need. */
static bool take_again(struct work *w, struct freed *freed, uint64_t had)
{
	uint64_t first = w->nr_folios;

	qsort(freed + first, had - first, sizeof(*freed), larger_first);
	for (; w->nr_folios < had; w->nr_folios++) {
		const struct freed *f = &freed[w->nr_folios];
		int err = mf_folio_alloc(w->map, (int)f->node, f->order, MF_ALLOC_THIS_NODE, &w->folio[w->nr_folios]);

		if (err)
			return row_unable(w, ROW_BROKEN, "taking the units again after folding back: %s",
					  mf_strerror(err));
	}
	return row_remap(w, first) && laws_hold(w, "after the units were taken again");
}

static bool fold_back(struct work *w)
{
	int err;

	step_begin(w, "folding back");
	put_all(w, w->base, &w->nr_base);
	err = mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
	return err ? row_failed(w, "folding", err) : laws_hold(w, "after folding back");
}

static bool divide(struct work *w)
{
	uint64_t had = w->nr_folios;
	struct freed *freed;
	bool good;

	row_devices_first(w);
	if (had == w->nr_devices)
		return true;
	freed = calloc(had, sizeof(*freed));
	if (!freed)
		return row_failed(w, "listing what is freed", -MF_ENOMEM);
	good = use_base_pages(w, free_share(w, freed)) && fold_back(w) && take_again(w, freed, had);
	free(freed);
	return good;
}

/* ---- All of them ------------------------------------------------------------------------------------------- */

static void panicked(void *ctx, const char *sentence)
{
	struct work *w = ctx;

	row_unable(w, ROW_BROKEN, "%s", sentence);
	longjmp(w->panicked, 1);
}

/* Nothing here may be a local variable that changes: a panic comes back to the first line. */
static void work_all(struct work *w)
{
	if (setjmp(w->panicked) != 0)
		return;
	mf_panic_hook_set(panicked, w);
	if (row_compounds_fit(w) && row_is_enough(w) && open_world(w) && bring_up(w) &&
	    (!w->request->touch || touch_all(w)) && pin_all(w))
		divide(w);
	progress_end();
	close_world(w);
	if (w->row->status == ROW_OK)
		snprintf(w->row->laws, sizeof(w->row->laws), "held");
}

void row_run(const struct row_request *request, struct row *row)
{
	const struct description *d = request->machine;
	struct work w = { .request = request, .row = row, .page_shift = d->page_shift };

	*row = (struct row){ .name = request->as_described ? "as described" : mf_layout_name(request->layout) };
	snprintf(row->laws, sizeof(row->laws), "not all checked");
	for (unsigned i = 0; i < d->nr_regions; i++) {
		row->described_bytes += d->regions[i].size_bytes;
		if (i == 0)
			row->unit_bytes = d->regions[i].unit_bytes;
		else if (row->unit_bytes != d->regions[i].unit_bytes)
			row->unit_bytes = 0;
	}
	work_all(&w);
	mf_panic_hook_set(NULL, NULL);
	progress_end();
}
