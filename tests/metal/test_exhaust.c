/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_exhaust.c - all memory of the machine is handed out, until there is none left for anybody, and comes back: as base
 * pages, in folios of 2 MiB, in orders of all sorts, to one processor and to all at once.
 *
 * What is checked each time: no frame is had twice or is the map's (each folio's memory keeps what its owner wrote there),
 * none is left over, and afterwards the map is what it was at first, in the page tables, too, frame for frame.
 */
#include "machines/x86_64/x86_64.h"

#include <memfold/memfold.h>

#include "metal/own.h"
#include "tests/tap.h"

enum {
	LARGEST_ORDER = 18,
	BASE_PAGES_MAX_GIB = 2, /* beyond, a descriptor for each base page takes an emulator minutes: MF_SOAK=1    */
	WRITTEN_MAX_GIB = 1,
};

/* What one processor has. */
struct hoard {
	struct mf_list list;
	uint64_t nr, nr_frames, random;
	unsigned order;      /* LARGEST_ORDER + 1: of all sorts                                                */
	int err;             /* what the last allocation said                                                  */
};

static struct own own;
static struct hoard hoards[X86_CPUS_MAX];

static uint64_t random_of(struct hoard *h)
{
	h->random = h->random * 6364136223846793005u + 1442695040888963407u;
	return h->random >> 33;
}

static bool is_for_soak(unsigned order)
{
	char value[8];

	return order == 0 && own.described_bytes > BASE_PAGES_MAX_GIB * (uint64_t)MF_GIB &&
	       !boot_option("MF_SOAK", value, sizeof(value));
}

static bool is_written(void)
{
	return own.described_bytes <= WRITTEN_MAX_GIB * (uint64_t)MF_GIB;
}

/* First and last word of its memory say whose it is; so does a word of the descriptor. */
static uint64_t *word_of(const struct mf_folio *folio, bool last)
{
	uint64_t nr_bytes = mf_folio_nr_frames(folio) << X86_PAGE_SHIFT;
	char *data = x86_direct(mf_folio_pfn(own.map, folio) << X86_PAGE_SHIFT);

	return (uint64_t *)(data + (last ? nr_bytes - sizeof(uint64_t) : 0));
}

static void sign(struct mf_folio *folio)
{
	folio->page.index = (uintptr_t)folio;
	if (!is_written())
		return;
	*word_of(folio, false) = (uintptr_t)folio;
	*word_of(folio, true) = ~(uintptr_t)folio;
}

static bool is_signed(const struct mf_folio *folio)
{
	return folio->page.index == (uintptr_t)folio &&
	       (!is_written() || (*word_of(folio, false) == (uintptr_t)folio && *word_of(folio, true) == ~(uintptr_t)folio));
}

/* In no order: to the front or to the back. */
static void keep(struct hoard *h, struct mf_folio *folio)
{
	if (random_of(h) % 2)
		mf_list_push_back(&h->list, &folio->page.list);
	else
		mf_list_push_front(&h->list, &folio->page.list);
	h->nr++;
	h->nr_frames += mf_folio_nr_frames(folio);
}

static int alloc(struct hoard *h, unsigned order)
{
	struct mf_folio *folio;
	int err = mf_folio_alloc(own.map, MF_ANY_NODE, order, MF_ALLOC_WAIT, &folio);

	if (err)
		return err;
	sign(folio);
	keep(h, folio);
	return 0;
}

/* A failure of a higher order is no end: smaller ones are tried, down to base pages. */
static void take_all(void *ctx)
{
	struct hoard *h = ctx;

	if (h->order <= LARGEST_ORDER) {
		do {
			h->err = alloc(h, h->order);
		} while (!h->err);
		return;
	}
	for (unsigned most = LARGEST_ORDER;;) {
		unsigned order = (unsigned)(random_of(h) % (most + 1));

		h->err = alloc(h, order);
		if (!h->err)
			continue;
		if (order == 0)
			return;
		most = order - 1;
	}
}

static void give_all(void *ctx)
{
	struct hoard *h = ctx;
	bool are_signed = true;

	while (!mf_list_is_empty(&h->list)) {
		struct mf_folio *folio = mf_container_of(h->list.next, struct mf_folio, page.list);

		mf_list_remove(&folio->page.list);
		are_signed &= is_signed(folio);
		mf_folio_put(own.map, folio);
	}
	TAP_OK(are_signed);
}

static void on_cpus(unsigned nr, void (*work)(void *ctx))
{
	for (unsigned i = 1; i < nr; i++)
		smp_run(i, work, &hoards[i]);
	work(&hoards[0]);
	for (unsigned i = 1; i < nr; i++)
		smp_wait(i);
}

static bool laws_hold(void)
{
	struct mf_violation v = { .law = "error", .text = "" };
	int err = mf_map_check(own.map, &v);

	if (err)
		TAP_NOTE("%s at pfn %llu: %s", v.law, (unsigned long long)v.pfn, v.text);
	return err == 0;
}

/* Frames that can be had as base pages: none is left, and those that were had are all that is not the map's. */
static void check_exhausted(const struct mf_map_stats *before, unsigned nr_cpus, unsigned order)
{
	struct mf_map_stats now;
	uint64_t nr_frames = 0;

	mf_map_stats(own.map, &now);
	for (unsigned i = 0; i < nr_cpus; i++) {
		TAP_EQ(hoards[i].err, -MF_ENOMEM);
		nr_frames += hoards[i].nr_frames;
	}
	TAP_EQ(now.nr_used, nr_frames);
	TAP_EQ(now.nr_used + now.nr_map + now.nr_free, before->nr_used + before->nr_map + before->nr_free);
	TAP_NOTE("orders %u to %u, %u CPUs: %llu frames in use, %llu of the map's own, %llu free, of %llu",
		 order > LARGEST_ORDER ? 0 : order, order > LARGEST_ORDER ? (unsigned)LARGEST_ORDER : order, nr_cpus,
		 (unsigned long long)now.nr_used, (unsigned long long)now.nr_map, (unsigned long long)now.nr_free,
		 (unsigned long long)(own.described_bytes >> X86_PAGE_SHIFT));
	if (order != 9)
		TAP_EQ(now.nr_free, 0);
	/* A block of 2 MiB that can be split hosts its own eight slots; more is lost to edges and tables only. */
	TAP_OK(nr_frames >= (own.described_bytes >> X86_PAGE_SHIFT) * 97 / 100);
}

static void exhaust(unsigned order, unsigned nr_cpus)
{
	struct mf_map_stats before, after;
	struct counted tables, tables_after;
	uint64_t digest;

	own_all_memory(&own, MF_MIB);
	if (is_for_soak(order)) {
		own_nothing(&own);
		TAP_SKIP("so many base pages are for make soak");
	}
	digest = mf_map_digest(own.map);
	tables = count_windows(&own);
	mf_map_stats(own.map, &before);
	/* Twice: the second time from what the first has left behind. */
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < nr_cpus; i++) {
			hoards[i] = (struct hoard){ .random = 2 * i + round, .order = order };
			mf_list_init(&hoards[i].list);
		}
		on_cpus(nr_cpus, take_all);
		check_exhausted(&before, nr_cpus, order);
		TAP_OK(laws_hold());
		on_cpus(nr_cpus, give_all);
	}
	TAP_EQ(mf_fold(own.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	TAP_OK(laws_hold());
	mf_map_stats(own.map, &after);
	tables_after = count_windows(&own);
	TAP_EQ(mf_map_digest(own.map), digest);
	TAP_EQ(after.nr_free, before.nr_free);
	TAP_EQ(tables_after.slots, tables.slots);
	TAP_EQ(tables_after.tables, tables.tables);
	own_nothing(&own);
}

TAP_TEST(all_memory_as_base_pages_and_back)
{
	exhaust(0, 1);
}

TAP_TEST(all_memory_in_2mib_and_back)
{
	exhaust(9, 1);
}

TAP_TEST(all_memory_in_all_sorts_and_back)
{
	exhaust(LARGEST_ORDER + 1, 1);
}

TAP_TEST(all_memory_by_all_processors_as_base_pages_and_back)
{
	exhaust(0, x86_nr_cpus);
}

TAP_TEST(all_memory_by_all_processors_in_all_sorts_and_back)
{
	exhaust(LARGEST_ORDER + 1, x86_nr_cpus);
}

TAP_MAIN()
