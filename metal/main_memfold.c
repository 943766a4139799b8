/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_memfold.c - `make qemu`: what this machine's memory is, what a flat map of it would cost, what it costs now, and how
 * that changes while memory is split into base pages and folds back.  For people; every number is counted at that moment.
 */
#include "machines/x86_64/x86_64.h"
#include "metal/own.h"

enum { UNIT_ORDER = 9, SHARES = 8 };

static const char *const kind_name[] = {
	[BOOT_RAM] = "memory", [BOOT_IMAGE] = "kernel image", [BOOT_DATA] = "boot data", [BOOT_FIRMWARE] = "firmware",
};

static void print_memory(void)
{
	console_print("memfold on bare metal: x86-64, %u levels of page tables, %u CPUs\n\n", x86_features.levels,
		      x86_nr_cpus);
	console_print("What the memory is\n");
	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *r = &boot_map.range[i];

		if (i > 0 && boot_map.range[i - 1].end < r->start)
			console_print("  %11llx - %11llx  hole\n", (unsigned long long)boot_map.range[i - 1].end,
				      (unsigned long long)r->start);
		console_print("  %11llx - %11llx  %s, node %u, %llu KiB\n", (unsigned long long)r->start,
			      (unsigned long long)r->end, kind_name[r->kind], r->node,
			      (unsigned long long)((r->end - r->start) / MF_KIB));
	}
}

static void print_flat(const struct own *own)
{
	struct mf_plan_input in = {
		.described_frames = own->described_bytes >> X86_PAGE_SHIFT,
		.page_shift = X86_PAGE_SHIFT,
		.source = MF_SOURCE_RAM,
	};
	struct mf_plan plan;
	int err = mf_plan(MF_SCHEME_FLAT, &in, &plan);

	MF_PANIC_IF(err != 0, "memfold: no plan: %s.", mf_strerror(err));
	console_print("\nA flat map of the %llu MiB that are memfold's: %llu KiB of descriptors and tables (computed)\n"
		      "Withheld: %llu KiB, which it would take as much to describe\n\n",
		      (unsigned long long)(own->described_bytes / MF_MIB),
		      (unsigned long long)(plan.total_bytes / MF_KIB),
		      (unsigned long long)(own->withheld_bytes / MF_KIB));
	console_print("What it costs, counted in the page tables\n  slots  tables      KiB  bytes/2MiB  idle frames\n");
}

static void print_cost(const struct own *own, const char *when)
{
	struct counted c = count_windows(own);
	struct mf_map_stats stats;

	mf_map_stats(own->map, &stats);
	console_print("%7llu %7llu %8llu %11llu %12llu  %s\n", (unsigned long long)c.slots,
		      (unsigned long long)c.tables, (unsigned long long)(counted_bytes(c) / MF_KIB),
		      (unsigned long long)(counted_bytes(c) / (own->described_bytes / (2 * MF_MIB))),
		      (unsigned long long)stats.nr_pool_idle, when);
}

static struct mf_folio *alloc(const struct own *own, unsigned order)
{
	struct mf_folio *folio;

	return mf_folio_alloc(own->map, MF_ANY_NODE, order, MF_ALLOC_WAIT, &folio) == 0 ? folio : NULL;
}

static void keep(struct mf_list *list, struct mf_folio *folio)
{
	mf_list_push_back(list, &folio->page.list);
}

static struct mf_folio *take(struct mf_list *list)
{
	struct mf_list *node = list->next;

	if (node == list)
		return NULL;
	mf_list_remove(node);
	return (struct mf_folio *)mf_container_of(node, struct mf_page, list);
}

static uint64_t fill(const struct own *own, struct mf_list *list, unsigned order, uint64_t most)
{
	struct mf_folio *folio;
	uint64_t nr = 0;

	for (; nr < most && (folio = alloc(own, order)) != NULL; nr++)
		keep(list, folio);
	return nr;
}

static void drop(const struct own *own, struct mf_list *list, uint64_t nr)
{
	struct mf_folio *folio;

	for (; nr > 0 && (folio = take(list)) != NULL; nr--)
		mf_folio_put(own->map, folio);
}

static void check(const struct own *own)
{
	struct mf_violation violation;
	int err = mf_map_check(own->map, &violation);

	MF_PANIC_IF(err < 0, "memfold: the map cannot be checked: %s.", mf_strerror(err));
	MF_PANIC_IF(err > 0, "memfold: %s is broken at pfn %llu: %s", violation.law, (unsigned long long)violation.pfn,
		    violation.text);
}

/* Shares of the units become base pages, one after the other, until all are; and back. */
static void split_and_fold(const struct own *own, struct mf_list *units, uint64_t nr_units)
{
	struct mf_list pages;
	uint64_t share = nr_units / SHARES, nr = 0;
	char line[64];
	int err;

	mf_list_init(&pages);
	for (unsigned i = 1; i <= SHARES; i++) {
		drop(own, units, i < SHARES ? share : nr_units);
		nr += fill(own, &pages, 0, share << UNIT_ORDER);
		(void)mf_format(line, sizeof(line), "%u of %u are base pages, %llu pages", i, SHARES,
				(unsigned long long)nr);
		print_cost(own, line);
	}
	drop(own, &pages, UINT64_MAX);
	err = mf_fold(own->map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
	MF_PANIC_IF(err != 0, "memfold: nothing folds: %s.", mf_strerror(err));
	print_cost(own, "all free again, and folded");
}

static void print_flushes(const struct own *own)
{
	struct mf_map_stats stats;

	mf_map_stats(own->map, &stats);
	console_print("\nFlushes and interrupts by operation\n  flushes  interrupts\n");
	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++)
		if (stats.flushes_for[i] > 0)
			console_print("%9llu %11llu  %s\n", (unsigned long long)stats.flushes_for[i],
				      (unsigned long long)stats.interrupts_for[i],
				      mf_flush_for_name((enum mf_flush_for)i));
}

int x86_main(void)
{
	struct mf_list units;
	struct own own;
	uint64_t nr;
	char line[64];

	mf_list_init(&units);
	print_memory();
	own_all_memory(&own, MF_MIB);
	print_flat(&own);
	print_cost(&own, "all free");
	nr = fill(&own, &units, UNIT_ORDER, UINT64_MAX);
	(void)mf_format(line, sizeof(line), "all of it in folios of 2 MiB, %llu", (unsigned long long)nr);
	print_cost(&own, line);
	split_and_fold(&own, &units, nr);
	check(&own);
	print_flushes(&own);
	own_nothing(&own);
	console_print("\nAll laws held; nothing was left behind.\n");
	return 0;
}
