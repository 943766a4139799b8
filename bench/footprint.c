/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * footprint.c - on this host, described only: how long a map takes to come up, and how much memory it holds.
 *
 *   bring-up   the region is added and all of it allocated as 2 MiB folios: tiered against flat, at the largest
 *              power of two for which the flat map takes at most a third of what is available (and at most
 *              256 GiB: time); and tiered against hvo-7.1, all folios on their diet, as many as the host allows
 *   metadata   resident bytes of the windows (smaps), plus growth of the process's page tables (VmPTE), at 1 TiB
 *   full run   8 TiB in 2 MiB folios: bring up, pin and unpin all, use a share as base pages, free, fold; laws checked
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <memfold/diet.h>
#include <memfold/linux.h>

#include "bench/bench.h"

enum { ORDER_2M = 9, ORDER_1G = 18, BRING_UPS = 5 };

/* ---- Bring-up ---------------------------- */

struct bring_up {
	double add_ns, all_ns;
};

static struct bring_up bring_up(uint64_t size_bytes, enum mf_layout layout)
{
	struct described d = described_create(size_bytes);
	struct bring_up took;
	double start = clock_ns();

	described_add(&d, layout);
	took.add_ns = clock_ns() - start;
	described_allocate(&d, ORDER_2M);
	if (mf_layout_diet(layout)->is_by_remap)
		described_remap(&d);
	took.all_ns = clock_ns() - start;
	described_end(&d);
	return took;
}

static void bench_bring_up(void)
{
	static const struct question all = { "bring-up, region added and allocated in 2 MiB folios: tiered against flat",
					     "ratio", 1.0 / 300 };
	static const struct question add = { "bring-up, region added: tiered against flat", "ratio", 1.0 / 300 };
	uint64_t size = 256 * MF_GIB, have = mf_linux_available_bytes();
	struct samples all_ratio = { 0 }, add_ratio = { 0 }, tiered_ns = { 0 }, flat_ns = { 0 };

	while (size / 64 > have / 3 && size > MF_GIB)
		size /= 2;
	for (unsigned round = 0; round < BRING_UPS; round++) {
		struct bring_up tiered = bring_up(size, MF_LAYOUT_TIERED), flat = bring_up(size, MF_LAYOUT_FLAT);

		samples_add(&all_ratio, tiered.all_ns / flat.all_ns);
		samples_add(&add_ratio, tiered.add_ns / flat.add_ns);
		samples_add(&tiered_ns, tiered.all_ns);
		samples_add(&flat_ns, flat.all_ns);
	}
	report(&all, &all_ratio, "%" PRIu64 " GiB: %.2f ms against %.0f ms, %.0f times", size / MF_GIB,
	       samples_median(&tiered_ns) / 1e6, samples_median(&flat_ns) / 1e6, 1 / samples_median(&all_ratio));
	report(&add, &add_ratio, "%" PRIu64 " GiB: %.0f times", size / MF_GIB, 1 / samples_median(&add_ratio));
}

static void bench_bring_up_on_diet(void)
{
	static const struct question q = { "bring-up, all 2 MiB folios on their diet: tiered against hvo-7.1",
					   "ratio", 0 };
	struct samples ratio = { 0 }, tiered_ns = { 0 }, hvo_ns = { 0 };
	uint64_t size = remap_max_bytes(&q, 1);

	if (size == 0)
		return;
	for (unsigned round = 0; round < BRING_UPS; round++) {
		struct bring_up tiered = bring_up(size, MF_LAYOUT_TIERED), hvo = bring_up(size, MF_LAYOUT_HVO_7_1);

		samples_add(&ratio, tiered.all_ns / hvo.all_ns);
		samples_add(&tiered_ns, tiered.all_ns);
		samples_add(&hvo_ns, hvo.all_ns);
	}
	report(&q, &ratio, "%" PRIu64 " GiB: %.2f ms against %.0f ms, %.0f times", size / MF_GIB,
	       samples_median(&tiered_ns) / 1e6, samples_median(&hvo_ns) / 1e6, 1 / samples_median(&ratio));
}

/* ---- Metadata ---------------------------- */

/* KiB resident in the mappings that lie in [start, end). */
static uint64_t resident_kib(uintptr_t start, uintptr_t end)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	uintptr_t from = 0, to = 0;
	uint64_t kib, total = 0;
	char line[512];

	must(file ? 0 : -MF_EIO, "open smaps");
	while (fgets(line, sizeof(line), file)) {
		uintptr_t a, b;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &a, &b) == 2)
			from = a, to = b;
		else if (from >= start && to <= end && sscanf(line, "Rss: %" SCNu64 " kB", &kib) == 1)
			total += kib;
	}
	fclose(file);
	return total;
}

static uint64_t windows_kib(const struct described *d)
{
	const struct mf_geometry *g = mf_map_geometry(d->map);
	uintptr_t end = g->window[g->top] + ((g->span >> g->shift[g->top]) << MF_DESCRIPTOR_SHIFT);

	return resident_kib(g->window[0], mf_round_up(end, (uint64_t)1 << d->machine->paging.page_shift));
}

static void bench_metadata(const struct question *q, uint64_t size_bytes, unsigned order)
{
	uint64_t tables_before = proc_kib("/proc/self/status", "VmPTE"), tables, windows;
	struct described d = described_create(size_bytes);
	struct samples s = { 0 };

	described_add(&d, MF_LAYOUT_TIERED);
	described_allocate(&d, order);
	windows = windows_kib(&d);
	tables = proc_kib("/proc/self/status", "VmPTE") - tables_before;
	if (windows == 0) {
		fprintf(stderr, "bench: smaps shows nothing resident in the windows\n");
		exit(1);
	}
	samples_add(&s, (double)(windows + tables));
	report(q, &s, "windows %" PRIu64 " KiB, page tables %" PRIu64 " KiB", windows, tables);
	described_check(&d);
	described_end(&d);
}

/* ---- A full run ---------------------------- */

static void pin_all(const struct described *d)
{
	uint32_t nr = (uint32_t)(d->end >> ORDER_2M), *order = shuffled(nr);
	char *heads = (char *)mf_geometry_descriptor(mf_map_geometry(d->map), 1, 0);

	for (uint32_t i = 0; i < nr; i++) {
		struct mf_folio *folio = (struct mf_folio *)(void *)(heads + (size_t)order[i] * MF_DESCRIPTOR_SIZE);

		must(mf_folio_pin(folio), "pin");
		mf_folio_unpin(d->map, folio);
	}
	free(order);
}

/* Every nr-th 2 MiB folio is freed and its memory taken again as base pages. */
static void use_share_as_base_pages(const struct described *d, unsigned nr)
{
	uint64_t freed = 0;

	for (mf_pfn_t pfn = 0; pfn < d->end; pfn += (mf_pfn_t)nr << ORDER_2M, freed++)
		mf_folio_put(d->map, mf_pfn_folio(d->map, pfn));
	for (uint64_t i = 0; i < freed << ORDER_2M; i++) {
		struct mf_folio *folio;

		must(mf_folio_alloc(d->map, 0, 0, MF_ALLOC_WAIT, &folio), "allocate base pages");
	}
}

static void bench_full_run(uint64_t size_bytes)
{
	static const struct question q = { "full run at 8 TiB in 2 MiB folios, laws held throughout", "s", 0 };
	uint64_t need = size_bytes / 32768 + 512 * MF_MIB, have = mf_linux_available_bytes();
	struct described d;
	struct samples s = { 0 };
	double start = clock_ns();

	if (have < need) {
		report_skipped(&q, "needs %" PRIu64 " MiB, %" PRIu64 " are available", need / MF_MIB, have / MF_MIB);
		return;
	}
	d = described_create(size_bytes);
	described_add(&d, MF_LAYOUT_TIERED);
	described_allocate(&d, ORDER_2M);
	described_check(&d);
	pin_all(&d);
	use_share_as_base_pages(&d, 4096);
	described_check(&d);
	described_free(&d);
	must(mf_fold(d.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), "fold");
	described_check(&d);
	described_end(&d);
	samples_add(&s, (clock_ns() - start) / 1e9);
	report(&q, &s, "bring up, pin and unpin all, 1 of 4096 as base pages, free, fold, tear down");
}

int main(void)
{
	static const struct question in_2m = { "map and tables resident, 1 TiB in 2 MiB folios", "KiB", 33 * 1024 };
	static const struct question in_1g = { "map and tables resident, 1 TiB in 1 GiB folios", "KiB", 256 };

	bench_bring_up();
	bench_bring_up_on_diet();
	bench_metadata(&in_2m, MF_TIB, ORDER_2M);
	bench_metadata(&in_1g, MF_TIB, ORDER_1G);
	bench_full_run(8 * MF_TIB);
	return 0;
}
