/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * placement.c - what it is worth that records in use lie side by side, and what it costs that tier 0 comes in small
 * pieces.
 *
 *   tiered : hvo   mf_folio_pin and mf_folio_unpin on the 2 MiB folios of two real maps, as many as the host allows
 *                  to be on their diet (hvo-7.1: a mapping for each alias)
 *
 *   heads dense    mf_folio_pin and mf_folio_unpin on the 2 MiB folios of a real tiered map: 64 bytes apart
 *   heads apart    the same calls on records 32 KiB apart, each in a page of its own, as a map keeps them that backs
 *                  the first slot of every huge page's descriptors and aliases the rest (hvo); once with frames as
 *                  the host hands them out, and, where that takes no more than 1 GiB, with frames 32 KiB apart too,
 *                  as hvo leaves them (they collide in the sets of the caches)
 *
 *   split          a tiered map of which every block is split into base pages: pfn -> page -> folio -> get -> put
 *   flat           the same on a flat map; and on a copy of its records in 2 MiB pages, as a kernel would map them
 *
 * Both sides of a ratio run the same function within one round, in turn; time is this thread's on a processor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memfold/linux.h>

#include "bench/bench.h"

enum { ORDER_2M = 9, SHIFT_DENSE = 6, SHIFT_APART = 15, STEPS_MIN = 1 << 18, BATCH = 512 };

/* Records in plain memory. */
struct plain {
	char *base;
	size_t size;
};

static struct plain plain_map(size_t size, int advice)
{
	struct plain p = { .size = size };
	char *at = mmap(NULL, size + 2 * MF_MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);

	must(at == MAP_FAILED ? -MF_ENOMEM : 0, "map plain memory");
	p.base = (char *)mf_round_up((uintptr_t)at, 2 * MF_MIB);
	must(madvise(p.base, size, advice) ? -MF_EINVAL : 0, "madvise");
	return p;
}

/* ---- Pins ---------------------------- */

struct heads {
	struct mf_map *map;
	char *base;
	unsigned shift;
};

static inline struct mf_folio *head(const struct heads *h, uint32_t i)
{
	return (struct mf_folio *)(void *)(h->base + ((size_t)i << h->shift));
}

/* Pins `batch` folios, then unpins them: one at a time, or as many as a request for direct I/O holds. */
static __attribute__((noinline)) double pin_all(const struct heads *h, const uint32_t *order, uint32_t nr, uint32_t batch)
{
	uint32_t steps = 0;
	double start = cpu_ns();
	int err = 0;

	do {
		for (uint32_t from = 0; from < nr; from += batch) {
			uint32_t to = (uint32_t)mf_min(nr, from + batch);

			for (uint32_t i = from; i < to; i++)
				err |= mf_folio_pin(head(h, order[i]));
			for (uint32_t i = from; i < to; i++)
				mf_folio_unpin(h->map, head(h, order[i]));
		}
		steps += nr;
	} while (steps < STEPS_MIN);
	must(err, "pin");
	return (cpu_ns() - start) / steps;
}

static void pin_rounds(const struct question *q, const struct heads *dense, const struct heads *apart, uint32_t nr,
		       uint32_t batch)
{
	uint32_t *order = shuffled(nr);
	struct samples ratio = { 0 }, dense_ns = { 0 }, apart_ns = { 0 };

	pin_all(dense, order, nr, batch);
	pin_all(apart, order, nr, batch);
	for (unsigned round = 0; round < BENCH_ROUNDS; round++) {
		double a = pin_all(dense, order, nr, batch), b = pin_all(apart, order, nr, batch);

		samples_add(&dense_ns, a);
		samples_add(&apart_ns, b);
		samples_add(&ratio, a / b);
	}
	report(q, &ratio, "%u folios, %.1f ns against %.1f ns; one folio again and again %.1f ns", nr,
	       samples_median(&dense_ns), samples_median(&apart_ns), pin_all(dense, order, 1, 1));
	free(order);
}

/* Records of 2 MiB folios 32 KiB apart; whether their frames are, too, or come as the host hands them out. */
enum apart { APART, APART_FRAMES };

/*
 * APART_FRAMES: every 2 MiB of records is populated as one huge page, and its tail slots are given back, which leaves
 * the head slots where they are, each mapped by a small page: what the kernel does when it optimises a huge page's records.
 */
static bool apart_map(struct plain *plain, uint32_t nr, enum apart how)
{
	size_t size = (size_t)nr << SHIFT_APART, slot = (size_t)1 << SHIFT_APART, page = 4096;
	uint64_t huge_kib = proc_kib("/proc/self/smaps_rollup", "AnonHugePages");

	*plain = plain_map(size, how == APART_FRAMES ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (how == APART)
		return true;
	for (size_t at = 0; at < size; at += 2 * MF_MIB)
		plain->base[at] = 1;
	huge_kib = proc_kib("/proc/self/smaps_rollup", "AnonHugePages") - huge_kib;
	for (size_t at = 0; at < size; at += slot)
		must(madvise(plain->base + at + page, slot - page, MADV_DONTNEED) ? -MF_EINVAL : 0, "give back tail slots");
	return huge_kib >= size / 1024 * 9 / 10;
}

static bool is_too_large(const struct question *q, uint32_t nr, enum apart how)
{
	uint64_t need = (how == APART_FRAMES ? (uint64_t)nr << SHIFT_APART : (uint64_t)nr * 4096) + 512 * MF_MIB;
	uint64_t have = mf_linux_available_bytes();

	if (have >= need)
		return false;
	report_skipped(q, "needs %llu MiB, %llu are available", (unsigned long long)(need / MF_MIB),
		       (unsigned long long)(have / MF_MIB));
	return true;
}

static struct heads heads_of(const struct described *d, unsigned tier, unsigned shift)
{
	return (struct heads){ d->map, (char *)mf_geometry_descriptor(mf_map_geometry(d->map), tier, 0), shift };
}

/* One at a time, and in batches. */
static void bench_pins_on_diet(void)
{
	static const struct question q[] = {
		{ "pin + unpin of random 2 MiB folios: tiered against hvo-7.1, as large as that fits", "ratio", 0 },
		{ "512 pins, then 512 unpins: tiered against hvo-7.1, as large as that fits", "ratio", 0 },
	};
	uint64_t size_bytes = remap_max_bytes(q, 2);
	uint32_t nr = (uint32_t)(size_bytes >> 21);
	struct described tiered, hvo;
	struct heads dense, apart;

	if (size_bytes == 0)
		return;
	tiered = described_create(size_bytes);
	described_add(&tiered, MF_LAYOUT_TIERED);
	described_allocate(&tiered, ORDER_2M);
	hvo = described_create(size_bytes);
	described_add(&hvo, MF_LAYOUT_HVO_7_1);
	described_allocate(&hvo, ORDER_2M);
	described_remap(&hvo);
	dense = heads_of(&tiered, 1, SHIFT_DENSE);
	apart = heads_of(&hvo, 0, SHIFT_APART);
	pin_rounds(&q[0], &dense, &apart, nr, 1);
	pin_rounds(&q[1], &dense, &apart, nr, BATCH);
	described_end(&hvo);
	described_end(&tiered);
}

static void bench_pins(const struct question *q, uint64_t size_bytes, enum apart how, uint32_t batch)
{
	uint32_t nr = (uint32_t)(size_bytes >> 21);
	struct described d;
	struct heads dense;
	struct plain plain;

	if (is_too_large(q, nr, how))
		return;
	d = described_create(size_bytes);
	described_add(&d, MF_LAYOUT_TIERED);
	described_allocate(&d, ORDER_2M);
	if (apart_map(&plain, nr, how)) {
		for (uint32_t i = 0; i < nr; i++)
			memcpy(plain.base + ((size_t)i << SHIFT_APART), mf_pfn_folio(d.map, (mf_pfn_t)i << ORDER_2M),
			       MF_DESCRIPTOR_SIZE);
		dense = heads_of(&d, 1, SHIFT_DENSE);
		pin_rounds(q, &dense, &(struct heads){ d.map, plain.base, SHIFT_APART }, nr, batch);
	} else {
		report_skipped(q, "the host gave no 2 MiB pages");
	}
	munmap(plain.base, plain.size);
	described_end(&d);
}

/* ---- Base pages ---------------------------- */

struct pages {
	struct mf_map *map;
	char *base; /* record of pfn 0 */
};

static __attribute__((noinline)) double use_in_sequence(const struct pages *p, uint32_t nr)
{
	double start = cpu_ns();

	for (uint32_t i = 0; i < nr; i++) {
		struct mf_folio *folio = mf_page_folio(p->map, (struct mf_page *)(void *)p->base + i);

		mf_folio_get(folio);
		mf_folio_put(p->map, folio);
	}
	return (cpu_ns() - start) / nr;
}

static __attribute__((noinline)) double use_at_random(const struct pages *p, const uint32_t *order, uint32_t nr)
{
	double start = cpu_ns();

	for (uint32_t i = 0; i < nr; i++) {
		struct mf_folio *folio = mf_page_folio(p->map, (struct mf_page *)(void *)p->base + order[i]);

		mf_folio_get(folio);
		mf_folio_put(p->map, folio);
	}
	return (cpu_ns() - start) / nr;
}

enum { SPLIT, FLAT, FLAT_2M, NR_MAPS };

struct base_pages {
	struct pages pages[NR_MAPS];
	struct samples sequence[NR_MAPS], random[NR_MAPS]; /* ratio split : this; SPLIT: ns                        */
};

static void base_round(struct base_pages *b, const uint32_t *order, uint32_t nr, bool keep)
{
	double sequence[NR_MAPS], random[NR_MAPS];

	for (unsigned i = 0; i < NR_MAPS; i++) {
		sequence[i] = use_in_sequence(&b->pages[i], nr);
		random[i] = use_at_random(&b->pages[i], order, nr);
	}
	for (unsigned i = 0; i < NR_MAPS && keep; i++) {
		samples_add(&b->sequence[i], i == SPLIT ? sequence[i] : sequence[SPLIT] / sequence[i]);
		samples_add(&b->random[i], i == SPLIT ? random[i] : random[SPLIT] / random[i]);
	}
}

static void base_report(const struct base_pages *b, bool huge)
{
	static const struct question sequence[NR_MAPS] = {
		[FLAT] = { "base pages, in sequence: split throughout against flat", "ratio", 1.25 },
		[FLAT_2M] = { "base pages, in sequence: split throughout against flat in 2 MiB pages", "ratio", 1.25 },
	};
	static const struct question random[NR_MAPS] = {
		[FLAT] = { "base pages, at random: split throughout against flat", "ratio", 1.4 },
		[FLAT_2M] = { "base pages, at random: split throughout against flat in 2 MiB pages", "ratio", 1.4 },
	};

	for (unsigned i = FLAT; i < NR_MAPS; i++) {
		if (i == FLAT_2M && !huge) {
			report_skipped(&sequence[i], "the host gave no 2 MiB pages");
			report_skipped(&random[i], "the host gave no 2 MiB pages");
			continue;
		}
		report(&sequence[i], &b->sequence[i], "split %.2f ns", samples_median(&b->sequence[SPLIT]));
		report(&random[i], &b->random[i], "split %.2f ns", samples_median(&b->random[SPLIT]));
	}
}

static void bench_base_pages(uint64_t size_bytes)
{
	uint32_t nr = (uint32_t)(size_bytes >> 12), *order = shuffled(nr);
	size_t bytes = (size_t)nr << SHIFT_DENSE;
	struct described split = described_create(size_bytes), flat = described_create(size_bytes);
	struct plain copy = plain_map(bytes, MADV_HUGEPAGE);
	struct base_pages b = { 0 };
	uint64_t huge_kib = proc_kib("/proc/self/smaps_rollup", "AnonHugePages");

	described_add(&split, MF_LAYOUT_TIERED);
	described_add(&flat, MF_LAYOUT_FLAT);
	described_allocate(&split, 0);
	described_allocate(&flat, 0);
	memcpy(copy.base, mf_pfn_to_page(flat.map, 0), bytes);
	huge_kib = proc_kib("/proc/self/smaps_rollup", "AnonHugePages") - huge_kib;
	b.pages[SPLIT] = (struct pages){ split.map, (char *)mf_pfn_to_page(split.map, 0) };
	b.pages[FLAT] = (struct pages){ flat.map, (char *)mf_pfn_to_page(flat.map, 0) };
	b.pages[FLAT_2M] = (struct pages){ flat.map, copy.base };
	for (unsigned round = 0; round <= BENCH_ROUNDS; round++)
		base_round(&b, order, nr, round > 0);
	base_report(&b, huge_kib >= bytes / 1024 * 9 / 10);
	munmap(copy.base, copy.size);
	free(order);
	described_end(&split);
	described_end(&flat);
}

int main(void)
{
	static const struct question pins[] = {
		{ "pin + unpin of random 2 MiB folios, 64 GiB: heads dense against 32 KiB apart", "ratio", 0.40 },
		{ "pin + unpin of random 2 MiB folios, 64 GiB: the same, frames 32 KiB apart too", "ratio", 0.40 },
		{ "pin + unpin of random 2 MiB folios, 1 TiB: heads dense against 32 KiB apart", "ratio", 0.25 },
		{ "512 pins, then 512 unpins, 64 GiB: heads dense against 32 KiB apart", "ratio", 0.40 },
		{ "512 pins, then 512 unpins, 64 GiB: the same, frames 32 KiB apart too", "ratio", 0.40 },
		{ "512 pins, then 512 unpins, 1 TiB: heads dense against 32 KiB apart", "ratio", 0.25 },
	};

	bench_pins_on_diet();
	for (unsigned i = 0; i < 2; i++) {
		uint32_t batch = i ? BATCH : 1;

		bench_pins(&pins[3 * i], 64 * MF_GIB, APART, batch);
		bench_pins(&pins[3 * i + 1], 64 * MF_GIB, APART_FRAMES, batch);
		bench_pins(&pins[3 * i + 2], MF_TIB, APART, batch);
	}
	bench_base_pages(16 * MF_GIB);
	return 0;
}
