/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest_memory.c - the memory of a virtual machine, as its monitor (VMM) keeps it: whole GiB folios, divided only where
 * and while something asks for less.
 *
 *   usage: guest_memory [GIB]        2 or more, 8 when left out; described, not touched
 *
 *   1 GiB          [ GiB ][ GiB ][ GiB ] ...            as it starts: one descriptor per GiB
 *   dirty log      [ GiB ][2M 2M 4K.. 2M ...][ GiB ]    the guest's writes are tracked: 2 MiB, 4 KiB where it wrote
 *   balloon        [2M 2M -- -- 2M ...][ GiB ]          the guest gave back 2 MiB pieces
 *
 * A folio here is what the guest can have mapped by one leaf of its nested page tables, so map counts say how it is
 * mapped: mf_folio_map_whole() by one leaf, mf_folio_map_frames() by smaller ones.  Splitting and merging need the sole
 * holder: a folio that is mapped, or pinned for a device, stays as it is (-MF_EBUSY) until that ends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <memfold/linux.h>
#include <memfold/memfold.h>

enum { PAGE_SHIFT = 12, ORDER_4K = 0, ORDER_2M = 9, ORDER_1G = 18 };
enum { NR_2M_IN_1G = 1 << (ORDER_1G - ORDER_2M), NR_4K_IN_2M = 1 << ORDER_2M };

#define FRAMES_1G ((mf_pfn_t)1 << ORDER_1G)
#define FRAMES_2M ((mf_pfn_t)1 << ORDER_2M)

/* Owner flag: the guest wrote to this folio since the log began. */
#define FOLIO_DIRTY MF_FLAG_USER0

struct guest {
	struct mf_machine *machine;
	struct mf_map *map;
	unsigned region;
	unsigned nr_gib;
	mf_pfn_t end_pfn; /* guest memory is [0, end_pfn) */
};

static void fail_if(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "guest_memory: %s: %s\n", what, mf_strerror(err));
	exit(1);
}

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "guest_memory: it does not hold that %s\n", what);
	exit(1);
}

static uint64_t map_bytes(const struct guest *guest)
{
	struct mf_map_stats s;

	mf_map_stats(guest->map, &s);
	return (s.nr_slots + s.nr_tables + s.nr_zero) << PAGE_SHIFT;
}

static void report(const struct guest *guest, const char *state)
{
	printf("%-44s %8llu KiB of map\n", state, (unsigned long long)(map_bytes(guest) / MF_KIB));
}

/* ---- The guest's mappings: what its nested page tables would be told ------------------------------ */

static void map_all(struct guest *guest, mf_pfn_t pfn, mf_pfn_t end)
{
	struct mf_folio *folio;

	while ((folio = mf_folio_next(guest->map, pfn, end, &pfn)) != NULL)
		fail_if(mf_folio_map_whole(folio), "mapping a folio into the guest");
}

static void unmap_all(struct guest *guest, mf_pfn_t pfn, mf_pfn_t end)
{
	struct mf_folio *folio;

	while ((folio = mf_folio_next(guest->map, pfn, end, &pfn)) != NULL)
		mf_folio_unmap_whole(folio);
}

static unsigned count_folios(struct guest *guest, mf_pfn_t pfn, mf_pfn_t end, uint64_t flags)
{
	struct mf_folio *folio;
	unsigned nr = 0;

	while ((folio = mf_folio_next(guest->map, pfn, end, &pfn)) != NULL)
		nr += (mf_folio_flags(folio) & flags) == flags;
	return nr;
}

/* ---- From start to end ------------------------------ */

static void guest_start(struct guest *guest, unsigned nr_gib)
{
	struct mf_linux_config linux_config = {.page_shift = PAGE_SHIFT};
	struct mf_linux_memory memory = {.kind = MF_LINUX_MEMFD, .size_bytes = nr_gib * MF_GIB};
	struct mf_region_config region = {.end_pfn = nr_gib * FRAMES_1G, .source = MF_SOURCE_HOST};
	struct mf_map_config config = {.span = nr_gib * FRAMES_1G};
	char why[200] = "";

	guest->nr_gib = nr_gib;
	guest->end_pfn = region.end_pfn;
	fail_if(mf_linux_create(&linux_config, &guest->machine), "the machine");
	fail_if(mf_linux_memory_add(guest->machine, &memory, why, sizeof(why)), why);
	config.machine = guest->machine;
	fail_if(mf_map_create(&config, &guest->map), "the map");
	fail_if(mf_region_add(guest->map, &region, &guest->region), "the region");
	for (unsigned i = 0; i < nr_gib; i++) {
		struct mf_folio *folio;

		fail_if(mf_folio_alloc(guest->map, MF_ANY_NODE, ORDER_1G, MF_ALLOC_WAIT, &folio), "a folio of 1 GiB");
	}
	map_all(guest, 0, guest->end_pfn);
}

static void guest_end(struct guest *guest)
{
	mf_pfn_t pfn = 0;
	struct mf_folio *folio;

	unmap_all(guest, 0, guest->end_pfn);
	while ((folio = mf_folio_next(guest->map, pfn, guest->end_pfn, &pfn)) != NULL)
		mf_folio_put(guest->map, folio);
	fail_if(mf_region_remove(guest->map, guest->region), "removing the region");
	fail_if(mf_map_destroy(guest->map), "destroying the map");
	mf_linux_destroy(guest->machine);
}

static void guest_check(struct guest *guest)
{
	struct mf_violation violation;
	int err = mf_map_check(guest->map, &violation);

	if (err == 1)
		fprintf(stderr, "guest_memory: %s, pfn %llu: %s\n", violation.law, (unsigned long long)violation.pfn,
			violation.text);
	require(err == 0, "every law holds");
}

/* ---- Dirty log: which 4 KiB of one GiB does the guest write? ------------------------------ */

/* The folio around pfn, unmapped, becomes folios of a lower order, mapped again. */
static int divide(struct guest *guest, mf_pfn_t pfn, unsigned new_order)
{
	struct mf_folio *folio = mf_pfn_folio(guest->map, pfn);
	mf_pfn_t start = mf_folio_pfn(guest->map, folio), end = start + mf_folio_nr_frames(folio);
	int err;

	unmap_all(guest, start, end);
	err = mf_folio_split(guest->map, folio, new_order);
	map_all(guest, start, end);
	return err;
}

/* All of [start, start + 1 GiB), however divided, becomes one folio again, mapped by one leaf. */
static int reunite(struct guest *guest, mf_pfn_t start)
{
	struct mf_folio *folio;
	int err;

	unmap_all(guest, start, start + FRAMES_1G);
	err = mf_folio_merge(guest->map, start, ORDER_1G, &folio);
	map_all(guest, start, start + FRAMES_1G);
	return err;
}

/* The guest wrote to a write-protected leaf: a clean 2 MiB is divided, so that the log stays exact. */
static void log_write(struct guest *guest, mf_pfn_t pfn)
{
	struct mf_folio *folio = mf_pfn_folio(guest->map, pfn);

	if (mf_folio_order(folio) > ORDER_4K) {
		fail_if(divide(guest, pfn, ORDER_4K), "dividing 2 MiB");
		folio = mf_pfn_folio(guest->map, pfn);
	}
	mf_folio_set_flags(folio, FOLIO_DIRTY);
}

static void dirty_log(struct guest *guest, mf_pfn_t start)
{
	enum { NR_HOT = 5, NR_WRITES = 40 };
	uint64_t at_first = map_bytes(guest);
	mf_pfn_t end = start + FRAMES_1G, pfn = start;
	struct mf_folio *folio;

	fail_if(divide(guest, start, ORDER_2M), "dividing 1 GiB");
	for (unsigned i = 0; i < NR_HOT * NR_WRITES; i++)
		log_write(guest, start + (i % NR_HOT) * 7 * FRAMES_2M + i / NR_HOT);
	require(count_folios(guest, start, end, FOLIO_DIRTY) == NR_HOT * NR_WRITES, "every write is in the log, once");
	require(count_folios(guest, start, end, 0) == NR_2M_IN_1G - NR_HOT + NR_HOT * NR_4K_IN_2M,
		"only what was written to is divided");
	report(guest, "dirty log of 1 GiB, 5 of its 2 MiB written");
	while ((folio = mf_folio_next(guest->map, pfn, end, &pfn)) != NULL)
		mf_folio_clear_flags(folio, FOLIO_DIRTY); /* copied to the other side */
	fail_if(reunite(guest, start), "making 1 GiB whole");
	require(map_bytes(guest) == at_first, "the log left nothing behind");
	report(guest, "log ended, 1 GiB again");
}

/* Where 4 KiB are not wanted, the folio can stay whole while smaller leaves map it: only its map count changes. */
static void dirty_log_by_leaves(struct guest *guest, mf_pfn_t start)
{
	struct mf_folio *folio = mf_pfn_folio(guest->map, start);

	mf_folio_unmap_whole(folio);
	for (unsigned i = 0; i < NR_2M_IN_1G; i++)
		fail_if(mf_folio_map_frames(folio, FRAMES_2M), "mapping 2 MiB of a folio");
	require(mf_folio_mapcount(folio) == FRAMES_1G && mf_folio_whole_mapcount(folio) == 0, "leaves of 2 MiB map it");
	report(guest, "1 GiB folio mapped by 512 leaves of 2 MiB");
	mf_folio_unmap_frames(folio, FRAMES_1G);
	fail_if(mf_folio_map_whole(folio), "mapping a folio into the guest");
}

/* ---- Balloon: the guest gives memory back, and takes it again ------------------------------ */

static void balloon(struct guest *guest, mf_pfn_t start)
{
	enum { NR_GIVEN = 200 };
	struct mf_folio *folio;

	fail_if(divide(guest, start, ORDER_2M), "dividing 1 GiB");
	for (unsigned i = 0; i < NR_GIVEN; i++) {
		folio = mf_pfn_folio(guest->map, start + 2 * i * FRAMES_2M);
		mf_folio_unmap_whole(folio);
		mf_folio_put(guest->map, folio); /* the last reference: it is free now */
	}
	report(guest, "balloon of 400 MiB");
	require(reunite(guest, start) == -MF_EBUSY, "a GiB with free parts cannot become one folio");

	for (unsigned i = 0; i < NR_GIVEN; i++) {
		fail_if(mf_folio_alloc(guest->map, MF_ANY_NODE, ORDER_2M, MF_ALLOC_WAIT, &folio), "a folio of 2 MiB");
		fail_if(mf_folio_map_whole(folio), "mapping a folio into the guest");
	}
	fail_if(reunite(guest, start), "making 1 GiB whole");
	report(guest, "balloon empty, 1 GiB again");
}

/* ---- A device works on guest memory ------------------------------ */

static void device_access(struct guest *guest, mf_pfn_t start)
{
	mf_pfn_t pfn = start + 3 * FRAMES_2M + 5;
	struct mf_folio *folio = mf_pfn_try_pin(guest->map, pfn);
	char *data;

	require(folio && mf_folio_order(folio) == ORDER_1G, "one pin holds the whole GiB");
	data = mf_folio_data(guest->map, folio);
	require(data != NULL, "guest memory is mapped");
	data[(pfn - start) << PAGE_SHIFT] = 1; /* the only page of the guest that is ever touched */
	require(divide(guest, start, ORDER_2M) == -MF_EBUSY, "a pinned folio is not divided");
	mf_folio_unpin(guest->map, folio);

	fail_if(divide(guest, start, ORDER_2M), "dividing 1 GiB");
	folio = mf_pfn_try_pin(guest->map, pfn);
	require(folio && mf_folio_order(folio) == ORDER_2M, "one pin holds 2 MiB");
	require(reunite(guest, start) == -MF_EBUSY, "pinned parts do not become one");
	mf_folio_unpin(guest->map, folio);
	fail_if(reunite(guest, start), "making 1 GiB whole");
	report(guest, "device done, 1 GiB again");
}

static bool parse_gib(const char *text, unsigned *nr_gib)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	*nr_gib = (unsigned)n;
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && n >= 2 && n <= 65536;
}

int main(int argc, char **argv)
{
	struct guest guest = {0};
	unsigned nr_gib = 8;
	uint64_t at_first;

	if (argc > 2 || (argc == 2 && !parse_gib(argv[1], &nr_gib))) {
		fprintf(stderr, "usage: guest_memory [GIB]   (a number of GiB, 2 to 65536)\n");
		return 2;
	}
	guest_start(&guest, nr_gib);
	at_first = map_bytes(&guest);
	printf("guest of %u GiB; one descriptor per 4 KiB would be %llu KiB of map\n", nr_gib,
	       (unsigned long long)(guest.end_pfn * MF_DESCRIPTOR_SIZE / MF_KIB));
	report(&guest, "started, folios of 1 GiB");
	dirty_log(&guest, FRAMES_1G);
	dirty_log_by_leaves(&guest, FRAMES_1G);
	balloon(&guest, 0);
	device_access(&guest, FRAMES_1G);
	require(map_bytes(&guest) == at_first, "the map costs what it cost at first");
	require(count_folios(&guest, 0, guest.end_pfn, 0) == nr_gib, "the guest has its folios of 1 GiB back");
	guest_check(&guest);
	printf("laws held\n");
	guest_end(&guest);
	return 0;
}
