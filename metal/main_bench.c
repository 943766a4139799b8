/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_bench.c - `make bench-metal`: instructions for the jobs that were measured on Linux, on the same emulated
 * processor (bench/peers/linux.md says how), and bytes of metadata by walking the real page tables.
 *
 * Wants -icount shift=0: the time-stamp counter then counts instructions, which is checked first.  One CPU.
 * "jobs=no" in the command line: the metadata only, for a boot with more memory.
 */
#include "machines/x86_64/x86_64.h"
#include "metal/own.h"

#include <memfold/diet.h>

enum { ORDER_2M = 9, ORDER_1G = 18, NR_2M = 1024, NR_1G = 2 };

static uint64_t now(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static void must(int err, const char *what)
{
	MF_PANIC_IF(err != 0, "bench: %s: %s.", what, mf_strerror(err));
}

/* A loop of two instructions, a million times: the counter has to say two million. */
static bool counts_instructions(void)
{
	uint64_t n = 1000000, start = now(), taken;

	__asm__ volatile("1: dec %0; jnz 1b" : "+r"(n));
	taken = now() - start;
	return taken >= 2000000 && taken < 2000200;
}

/* goal 0: none was set.  peer: what Linux takes. */
static void print_job(const char *job, uint64_t instructions, uint64_t goal, const char *peer)
{
	console_print("%12llu  %10llu %7s  %20s  %s\n", (unsigned long long)instructions, (unsigned long long)goal,
		      goal == 0 ? "" : instructions <= goal ? "met" : "missed", peer, job);
}

static void print_head(const char *what)
{
	console_print("\n%s\n%12s  %10s %7s  %20s\n", what, "memfold", "goal", "", "Linux 7.3");
}

/* ---- Folios ---------------------------------------------------------------------------------------------------- */

static struct mf_folio *folio_of(struct mf_list *node)
{
	return (struct mf_folio *)mf_container_of(node, struct mf_page, list);
}

static void grow(struct mf_map *map, struct mf_list *list, unsigned order, uint64_t nr)
{
	struct mf_folio *folio;

	for (; nr > 0; nr--) {
		must(mf_folio_alloc(map, MF_ANY_NODE, order, MF_ALLOC_WAIT, &folio), "allocation");
		mf_list_push_back(list, &folio->page.list);
	}
}

static void shrink(struct mf_map *map, struct mf_list *list)
{
	while (!mf_list_is_empty(list)) {
		struct mf_list *node = list->next;

		mf_list_remove(node);
		mf_folio_put(map, folio_of(node));
	}
}

static void bench_lists(struct mf_map *map)
{
	static const char *const when[] = { "first", "again" };
	struct mf_list list;
	uint64_t t[3];
	char job[64];

	mf_list_init(&list);
	print_head("A plain list of folios (there are no pools yet), instructions per folio of 2 MiB; both of 1 GiB");
	for (unsigned i = 0; i < 2; i++) {
		t[0] = now();
		grow(map, &list, ORDER_2M, NR_2M);
		t[1] = now();
		shrink(map, &list);
		t[2] = now();
		(void)mf_format(job, sizeof(job), "grow by 1024 of 2 MiB, %s", when[i]);
		print_job(job, (t[1] - t[0]) / NR_2M, 350, i == 0 ? "3542, hvo 12270" : "3542, hvo 8547");
		(void)mf_format(job, sizeof(job), "shrink, %s", when[i]);
		print_job(job, (t[2] - t[1]) / NR_2M, 350, i == 0 ? "14096, hvo 23052" : "14096, hvo 21952");
	}
	must(mf_fold(map, MF_ANY_NODE, MF_FOLD_ALL, NULL), "fold");
	t[0] = now();
	grow(map, &list, ORDER_1G, NR_1G);
	t[1] = now();
	shrink(map, &list);
	t[2] = now();
	print_job("grow by two of 1 GiB", t[1] - t[0], 0, "9.0 M, hvo 14.3 M");
	print_job("shrink", t[2] - t[1], 0, "13.4 M, hvo 21.9 M");
}

static void bench_split(struct mf_map *map)
{
	struct mf_folio *folio[NR_1G];
	uint64_t start, taken;

	for (unsigned i = 0; i < NR_1G; i++)
		must(mf_folio_alloc(map, MF_ANY_NODE, ORDER_1G, MF_ALLOC_WAIT, &folio[i]), "allocation of 1 GiB");
	start = now();
	for (unsigned i = 0; i < NR_1G; i++)
		must(mf_folio_split(map, folio[i], ORDER_2M), "split");
	taken = now() - start;
	print_job("split two of 1 GiB into 2 MiB", taken, 40000, "2.8 M, hvo 17.6 M");
	for (unsigned i = 0; i < NR_1G; i++) {
		mf_pfn_t pfn = mf_folio_pfn(map, folio[i]);

		for (mf_pfn_t at = pfn; at < pfn + ((mf_pfn_t)1 << ORDER_1G); at += (mf_pfn_t)1 << ORDER_2M)
			mf_folio_put(map, mf_pfn_folio(map, at));
	}
	must(mf_fold(map, MF_ANY_NODE, MF_FOLD_ALL, NULL), "fold");
}

/* ---- 4 GiB come and go ----------------------------------------------------------------------------------------- */

/*
 * All memory of the region is in folios of one order from "up" to "down": base pages and compounds are as soon as they
 * are described, a tiered region's blocks are free in that size; others are taken from the allocator, and put on the
 * diet where the layout has one.
 */
enum how { DESCRIBED, ALLOCATED };

struct bring_up {
	enum mf_layout layout;
	unsigned nr_altmap; /* frames of the region for its map; 0: map in RAM                                  */
	unsigned unit_order;
	enum how how;
	uint64_t goal;
	const char *up, *down; /* device DAX of Linux 7.3 in that unit; -: not measured there                      */
};

enum {
	ALTMAP_FLAT = 1 << 14,                 /* a descriptor for each of 2^20 frames                           */
	ALTMAP_1G = 1 << ORDER_1G,             /* of whole compounds                                              */
	ALTMAP_TIERED = 1 << ORDER_2M,         /* the slots of a few divided blocks                               */
	ALTMAP_TIERED_4K = 33 << ORDER_2M,     /* of all blocks, in all tiers                                     */
};

#define DAX_4K "46.40 M", "0.33 M"
#define DAX_2M "18.33 M", "2.3 M"
#define DAX_1G "4.22 M", "1.34 M"
#define NONE   "-", "-"

static const struct bring_up bring_ups[] = {
	{ MF_LAYOUT_FLAT, 0, 0, DESCRIBED, 15 * 1048576, DAX_4K },
	{ MF_LAYOUT_FLAT, 0, 0, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_FLAT, 0, ORDER_2M, ALLOCATED, 0, DAX_2M },
	{ MF_LAYOUT_FLAT, 0, ORDER_1G, ALLOCATED, 0, DAX_1G },
	{ MF_LAYOUT_DEVDAX, 0, 0, DESCRIBED, 0, DAX_4K },
	{ MF_LAYOUT_DEVDAX, 0, ORDER_2M, DESCRIBED, 0, DAX_2M },
	{ MF_LAYOUT_DEVDAX, 0, ORDER_1G, DESCRIBED, 0, DAX_1G },
	{ MF_LAYOUT_DEVDAX, ALTMAP_FLAT, 0, DESCRIBED, 0, NONE },
	{ MF_LAYOUT_DEVDAX, ALTMAP_FLAT, ORDER_2M, DESCRIBED, 0, NONE },
	{ MF_LAYOUT_DEVDAX, ALTMAP_1G, ORDER_1G, DESCRIBED, 0, NONE },
	{ MF_LAYOUT_HVO_5_14, 0, 0, DESCRIBED, 0, NONE },
	{ MF_LAYOUT_HVO_5_14, 0, ORDER_2M, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_HVO_5_14, 0, ORDER_1G, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_HVO_5_18, 0, 0, DESCRIBED, 0, NONE },
	{ MF_LAYOUT_HVO_5_18, 0, ORDER_2M, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_HVO_5_18, 0, ORDER_1G, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_HVO_7_1, 0, 0, DESCRIBED, 0, NONE },
	{ MF_LAYOUT_HVO_7_1, 0, ORDER_2M, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_HVO_7_1, 0, ORDER_1G, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_TIERED, 0, 0, ALLOCATED, 0, DAX_4K },
	{ MF_LAYOUT_TIERED, 0, ORDER_2M, DESCRIBED, 200000, DAX_2M },
	{ MF_LAYOUT_TIERED, 0, ORDER_2M, ALLOCATED, 200000, DAX_2M },
	{ MF_LAYOUT_TIERED, 0, ORDER_1G, DESCRIBED, 20000, DAX_1G },
	{ MF_LAYOUT_TIERED, 0, ORDER_1G, ALLOCATED, 20000, DAX_1G },
	{ MF_LAYOUT_TIERED, ALTMAP_TIERED_4K, 0, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_TIERED, ALTMAP_TIERED, ORDER_2M, ALLOCATED, 0, NONE },
	{ MF_LAYOUT_TIERED, ALTMAP_TIERED, ORDER_1G, ALLOCATED, 0, NONE },
};

static const char *unit_name(unsigned order)
{
	return order == 0 ? "4 KiB" : order == ORDER_2M ? "2 MiB" : "1 GiB";
}

static void freeze_all(struct mf_list *list)
{
	for (struct mf_list *at = list->next; at != list; at = at->next)
		MF_PANIC_IF(!mf_folio_freeze(folio_of(at), 1), "bench: a folio has more holders than one.");
}

static void thaw_all(struct mf_list *list)
{
	for (struct mf_list *at = list->next; at != list; at = at->next)
		mf_folio_unfreeze(folio_of(at), 1);
}

static void bench_bring_up(struct mf_map *map, const struct bring_up *b)
{
	const mf_pfn_t nr_frames = (4 * MF_GIB) >> X86_PAGE_SHIFT;
	struct mf_region_config config = {
		.end_pfn = nr_frames,
		.layout = b->layout,
		.source = b->nr_altmap ? MF_SOURCE_ALTMAP : MF_SOURCE_RAM,
		.nr_altmap = b->nr_altmap,
		/* A tiered region's free blocks are as large as its top tier. */
		.top = b->layout == MF_LAYOUT_TIERED && b->how == DESCRIBED ? b->unit_order / ORDER_2M : 0,
		.unit_order = b->layout == MF_LAYOUT_DEVDAX ? b->unit_order : 0,
	};
	bool diets = b->how == ALLOCATED && b->layout != MF_LAYOUT_TIERED && b->layout != MF_LAYOUT_FLAT;
	const char *how = b->how == DESCRIBED ? "" : diets ? ", all on the diet" : ", all allocated";
	struct mf_list list, restored;
	uint64_t t[3];
	unsigned id;
	char job[2][80];

	mf_list_init(&list);
	mf_list_init(&restored);
	t[0] = now();
	must(mf_region_add(map, &config, &id), "region");
	if (b->how == ALLOCATED)
		grow(map, &list, b->unit_order, (nr_frames - b->nr_altmap) >> b->unit_order);
	if (diets) {
		freeze_all(&list);
		must(mf_diet_remap_list(map, &list, NULL), "remap");
		thaw_all(&list);
	}
	t[1] = now();
	if (diets) {
		freeze_all(&list);
		must(mf_diet_restore_list(map, &list, &restored, NULL), "restore");
		thaw_all(&restored);
	}
	shrink(map, diets ? &restored : &list);
	must(mf_region_remove(map, id), "removal");
	t[2] = now();
	for (unsigned i = 0; i < 2; i++)
		(void)mf_format(job[i], sizeof(job[i]), "%s%s, %s%s: %s", mf_layout_name(b->layout),
				b->nr_altmap ? "-altmap" : "", unit_name(b->unit_order), how, i ? "down" : "up");
	print_job(job[0], t[1] - t[0], b->goal, b->up);
	print_job(job[1], t[2] - t[1], 0, b->down);
}

/* The end of memory that starts at this address, 0 when none does. */
static uint64_t end_of_memory_at(uint64_t start)
{
	for (unsigned i = 0; i < boot_map.nr; i++)
		if (boot_map.range[i].kind == BOOT_RAM && boot_map.range[i].start == start)
			return boot_map.range[i].end;
	return 0;
}

/* In a map of their own: a zone that has had a region is asked first for good, also when it has nothing any more. */
static void bench_bring_ups_of(struct mf_machine *m, bool on_altmap)
{
	struct mf_map_config config = { .machine = m, .span = (4 * MF_GIB) >> X86_PAGE_SHIFT };
	struct mf_map *map;

	must(mf_map_create(&config, &map), "map");
	print_head(on_altmap ? "The same, map in the first of these frames" :
		   "4 GiB come and go, map in RAM, instructions");
	for (unsigned i = 0; i < sizeof(bring_ups) / sizeof(bring_ups[0]); i++)
		if ((bring_ups[i].nr_altmap != 0) == on_altmap)
			bench_bring_up(map, &bring_ups[i]);
	must(mf_map_destroy(map), "end of the map");
}

/* Physical memory from 4 GiB on, without holes: 4 GiB to describe, the rest is RAM. */
static void bench_bring_ups(void)
{
	struct x86_machine_config config = {
		.first_paddr = 4 * MF_GIB, .ram_start = 8 * MF_GIB, .ram_end = end_of_memory_at(4 * MF_GIB)
	};
	struct mf_machine *m;

	if (config.ram_end < config.ram_start + MF_GIB) {
		console_write("\nBring-up of 4 GiB: not measured, this boot has less than 5 GiB above 4 GiB\n");
		return;
	}
	must(x86_machine_create(&config, &m), "machine");
	bench_bring_ups_of(m, false);
	bench_bring_ups_of(m, true);
	x86_machine_destroy(m);
}

/* ---- Metadata -------------------------------------------------------------------------------------------------- */

static uint64_t nr_zones(const struct own *own)
{
	struct mf_zone_info zone;
	unsigned nr = 0;

	while (mf_zone_info(own->map, nr, &zone) == 0)
		nr++;
	return nr;
}

/* The goals are for 64 GiB: bytes for each folio, or frames of each zone beside the one with the largest records. */
static void judge_metadata(const struct own *own, unsigned order, struct counted c, uint64_t nr)
{
	uint64_t constant = c.slots + c.tables - 1, limit = 24 * nr_zones(own);

	if (own->described_bytes < 60 * MF_GIB)
		return;
	if (order == ORDER_2M)
		console_print("%6s goal 68 bytes: %s\n", "", counted_bytes(c) <= 68 * nr ? "met" : "missed");
	else
		console_print("%6s %llu frames beside the records', in %llu zones, goal 24 for each: %s\n", "",
			      (unsigned long long)constant, (unsigned long long)nr_zones(own),
			      constant <= limit ? "met" : "missed");
}

static void bench_metadata(const struct own *own, unsigned order, const char *peer)
{
	struct mf_map_stats stats;
	struct mf_folio *folio;
	struct mf_list list;
	struct counted c;
	uint64_t nr = 0;

	mf_list_init(&list);
	for (; mf_folio_alloc(own->map, MF_ANY_NODE, order, MF_ALLOC_WAIT, &folio) == 0; nr++)
		mf_list_push_back(&list, &folio->page.list);
	MF_PANIC_IF(nr == 0, "bench: there is no folio of %s here.", unit_name(order));
	c = count_windows(own);
	mf_map_stats(own->map, &stats);
	console_print("%6s %9llu %8llu %8llu %8llu.%02llu %13llu  %s\n", unit_name(order),
		      (unsigned long long)nr, (unsigned long long)c.slots, (unsigned long long)c.tables,
		      (unsigned long long)(counted_bytes(c) / nr),
		      (unsigned long long)(counted_bytes(c) * 100 / nr % 100), (unsigned long long)stats.nr_pool_idle,
		      peer);
	judge_metadata(own, order, c, nr);
	shrink(own->map, &list);
	must(mf_fold(own->map, MF_ANY_NODE, MF_FOLD_ALL, NULL), "fold");
}

int x86_main(void)
{
	struct own own;
	char jobs[8];

	if (!counts_instructions()) {
		console_write("bench: the time-stamp counter does not count instructions: run with -icount shift=0,sleep=off\n");
		return 1;
	}
	if (!boot_option("jobs", jobs, sizeof(jobs)))
		bench_bring_ups();
	own_all_memory(&own, MF_MIB);
	if (!boot_option("jobs", jobs, sizeof(jobs))) {
		bench_lists(own.map);
		bench_split(own.map);
	}
	console_print("\nMetadata of all of %llu MiB in folios of one size, frames counted in the page tables; %llu KiB\n"
		      "of memory are withheld, which it would take as much to describe\n"
		      "%6s %9s %8s %8s %11s %13s  %s\n",
		      (unsigned long long)(own.described_bytes / MF_MIB),
		      (unsigned long long)(own.withheld_bytes / MF_KIB), "unit", "folios", "slots", "tables",
		      "bytes/unit", "idle frames", "Linux 7.3, bytes/unit");
	bench_metadata(&own, ORDER_2M, "32768, hvo 4160");
	bench_metadata(&own, ORDER_1G, "16777216, hvo 36864");
	console_print("Not in it: control memory, %llu KiB of the heap; %llu KiB of source RAM, of which slots and tables\n"
		      "that nobody hosts are taken\n", (unsigned long long)(heap_used() / MF_KIB),
		      (unsigned long long)(own.ram_bytes / MF_KIB));
	own_nothing(&own);
	return 0;
}
