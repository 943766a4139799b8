/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_ram.c - the allocator of frames outside regions: every order, every odd range, pieces in any order, and calls
 * that must panic.
 *
 * Most of it needs no memory: the allocator writes to frames only when it is to fill them with junk.
 */
#include "machines/x86_64/ram.h"
#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

#include <stdlib.h>

enum { POISON = 0xA5 };

static uint64_t random_state = 88172645463325252;

static uint64_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

/* ---- What is expected, frame by frame ---------------------------------------------------------------------------- */

struct rig {
	struct ram ram;
	uint64_t heap_used; /* before */
	bool *taken;        /* [frame - start] */
	uint64_t nr_taken;
};

static void rig_open(struct rig *r, mf_pfn_t start, mf_pfn_t end)
{
	*r = (struct rig){.heap_used = heap_used()};
	MF_PANIC_IF(ram_init(&r->ram, start, end, NULL) != 0, "the heap is too small for this test");
	r->taken = calloc(end - start, sizeof(bool));
	MF_PANIC_IF(!r->taken, "the heap is too small for this test");
}

static bool note_taken(struct rig *r, unsigned order, mf_pfn_t pfn, bool taken)
{
	uint64_t nr = (uint64_t)1 << order;

	if (pfn % nr != 0 || pfn < r->ram.start || pfn + nr > r->ram.end)
		return false;
	for (uint64_t i = 0; i < nr; i++) {
		if (r->taken[pfn - r->ram.start + i] == taken)
			return false;
		r->taken[pfn - r->ram.start + i] = taken;
	}
	r->nr_taken += taken ? nr : -nr;
	return ram_nr_used(&r->ram) == r->nr_taken;
}

enum answer { TAKEN, NONE, WRONG };

static bool has_room(const struct rig *r, unsigned order)
{
	uint64_t nr = (uint64_t)1 << order;

	for (mf_pfn_t at = mf_round_up(r->ram.start, nr); at + nr <= r->ram.end; at += nr) {
		uint64_t i = 0;

		while (i < nr && !r->taken[at - r->ram.start + i])
			i++;
		if (i == nr)
			return true;
	}
	return false;
}

/* Taken: aligned, in the range, nobody else's.  None: rightly. */
static enum answer take(struct rig *r, unsigned order, mf_pfn_t *pfn)
{
	if (ram_take(&r->ram, order, pfn) == 0)
		return note_taken(r, order, *pfn, true) ? TAKEN : WRONG;
	return has_room(r, order) ? WRONG : NONE;
}

static bool give(struct rig *r, unsigned order, mf_pfn_t pfn)
{
	ram_give(&r->ram, order, pfn);
	return note_taken(r, order, pfn, false);
}

/* The range in as few blocks as can be: what a fresh one has, and what all that came back has to be again. */
static unsigned nr_blocks(mf_pfn_t start, mf_pfn_t end)
{
	unsigned nr = 0;

	for (mf_pfn_t at = start; at < end; nr++)
		at += (mf_pfn_t)1 << mf_min(mf_log2(end - at), at ? mf_ctz(at) : RAM_ORDERS - 1);
	return nr;
}

static bool is_whole(struct rig *r)
{
	enum { BLOCKS_MAX = 2 * RAM_ORDERS };
	unsigned nr = 0, order = RAM_ORDERS;
	bool good = ram_nr_used(&r->ram) == 0;
	unsigned orders[BLOCKS_MAX];
	mf_pfn_t pfn[BLOCKS_MAX];

	while (order-- > 0)
		while (nr < BLOCKS_MAX && ram_take(&r->ram, order, &pfn[nr]) == 0)
			orders[nr++] = order;
	good &= nr == nr_blocks(r->ram.start, r->ram.end) && ram_nr_used(&r->ram) == r->ram.end - r->ram.start;
	while (nr-- > 0)
		ram_give(&r->ram, orders[nr], pfn[nr]);
	return good;
}

static void rig_close(struct rig *r)
{
	TAP_EQ(r->nr_taken, 0);
	TAP_OK(is_whole(r));
	ram_exit(&r->ram);
	free(r->taken);
	TAP_EQ(heap_used(), r->heap_used);
}

static const struct {
	mf_pfn_t start, end;
} ranges[] = {
	{0, 1}, {0, 4096}, {1, 2}, {7, 8}, {3, 4099}, {511, 513}, {512, 1024}, {513, 1023}, {0x3ff00, 0x40155},
	{((mf_pfn_t)1 << 40) - 777, ((mf_pfn_t)1 << 40) + 778},
};

enum { RANGE_FRAMES_MAX = 4096, NR_RANGES = sizeof(ranges) / sizeof(ranges[0]) };

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

TAP_TEST(ram_gives_every_order_aligned_until_there_is_no_more)
{
	static mf_pfn_t pfn[RANGE_FRAMES_MAX + 1];

	for (unsigned i = 0; i < NR_RANGES; i++) {
		for (unsigned order = 0; order <= 13; order++) {
			enum answer answer = TAKEN;
			unsigned nr = 0;
			bool good = true;
			struct rig r;

			rig_open(&r, ranges[i].start, ranges[i].end);
			while (nr <= RANGE_FRAMES_MAX && (answer = take(&r, order, &pfn[nr])) == TAKEN)
				nr++;
			TAP_EQ(answer, NONE);
			TAP_OK(order > 0 || nr == ranges[i].end - ranges[i].start);
			/* Every third first. */
			for (unsigned step = 0; step < 3; step++)
				for (unsigned k = step; k < nr; k += 3)
					good &= give(&r, order, pfn[k]);
			TAP_OK(good);
			rig_close(&r);
		}
	}
}

TAP_TEST(ram_refuses_orders_beyond_all)
{
	mf_pfn_t pfn = 77;
	struct rig r;

	rig_open(&r, 0, 4096);
	TAP_EQ(ram_take(&r.ram, 13, &pfn), -MF_ENOMEM);
	TAP_EQ(ram_take(&r.ram, RAM_ORDERS, &pfn), -MF_ENOMEM);
	TAP_EQ(ram_take(&r.ram, 64, &pfn), -MF_ENOMEM);
	TAP_EQ(ram_take(&r.ram, UINT32_MAX, &pfn), -MF_ENOMEM);
	TAP_EQ(pfn, 77);
	rig_close(&r);
}

/* One large block in pieces of all sizes, the middle first. */
TAP_TEST(ram_comes_back_in_pieces)
{
	struct rig r;
	mf_pfn_t block, other;

	rig_open(&r, 3, 4099);
	TAP_EQ(take(&r, 9, &block), TAKEN);
	TAP_EQ(take(&r, 3, &other), TAKEN);
	TAP_OK(give(&r, 0, block + 200));
	TAP_OK(give(&r, 7, block + 256));
	TAP_OK(give(&r, 0, block + 511));
	TAP_OK(give(&r, 0, block));
	TAP_OK(give(&r, 6, block + 64));
	TAP_OK(give(&r, 3, other));
	for (unsigned i = 1; i < 511; i++)
		if (r.taken[block + i - r.ram.start])
			TAP_OK(give(&r, 0, block + i));
	rig_close(&r);
}

TAP_TEST(ram_panics_about_what_is_not_out)
{
	struct rig r;
	mf_pfn_t pfn;

	rig_open(&r, 16, 80);
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 0, 20))); /* never taken */
	TAP_EQ(take(&r, 2, &pfn), TAKEN);
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 3, mf_round_down(pfn, 8)))); /* larger */
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 1, pfn + 1)));               /* not aligned */
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 0, pfn + 4)));               /* behind it */
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 0, 15)));                    /* outside */
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 0, 80)));
	TAP_OK(TAP_PANICS(ram_give(&r.ram, RAM_ORDERS, 0)));
	TAP_OK(give(&r, 0, pfn + 1));
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 0, pfn + 1))); /* twice */
	TAP_OK(tap_contains(tap_state.panic, "comes back"));
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 2, pfn))); /* a part is missing */
	TAP_OK(TAP_PANICS(ram_give(&r.ram, 1, pfn)));
	TAP_EQ(ram_nr_used(&r.ram), 3);
	TAP_OK(give(&r, 0, pfn));
	TAP_OK(give(&r, 1, pfn + 2));
	rig_close(&r);
}

struct seen {
	const struct rig *r;
	uint64_t nr;
	bool all_are_taken;
};

static void see(void *ctx, mf_pfn_t pfn)
{
	struct seen *seen = ctx;

	seen->nr++;
	seen->all_are_taken &= seen->r->taken[pfn - seen->r->ram.start];
}

struct held {
	mf_pfn_t pfn;
	unsigned order;
};

enum { HELD_MAX = 400, NR_STEPS = 20000 };

/* A piece of what is held, chosen at random, goes back; the rest stays in pieces of half the size each. */
static bool give_piece(struct rig *r, struct held *held, unsigned *nr_held)
{
	unsigned i = (unsigned)random_below(*nr_held), order = (unsigned)random_below(held[i].order + 1);
	struct held whole = held[i];
	mf_pfn_t pfn = mf_round_down(whole.pfn + random_below((uint64_t)1 << whole.order), (mf_pfn_t)1 << order);

	held[i] = held[--*nr_held];
	while (whole.order > order) {
		mf_pfn_t half = whole.pfn + ((mf_pfn_t)1 << --whole.order);

		held[(*nr_held)++] = (struct held){pfn >= half ? whole.pfn : half, whole.order};
		whole.pfn = pfn >= half ? half : whole.pfn;
	}
	return give(r, order, pfn);
}

TAP_TEST(ram_survives_anything_in_any_order)
{
	static struct held held[HELD_MAX];

	for (unsigned i = 0; i < NR_RANGES; i++) {
		unsigned nr_held = 0;
		bool good = true;
		struct seen seen;
		struct rig r;

		rig_open(&r, ranges[i].start, ranges[i].end);
		seen = (struct seen){.r = &r, .all_are_taken = true};
		for (unsigned step = 0; step < NR_STEPS && good; step++) {
			if (nr_held > 0 && (random_below(2) || nr_held + 16 > HELD_MAX)) {
				good = give_piece(&r, held, &nr_held);
			} else {
				unsigned order = (unsigned)random_below(random_below(13) + 1);
				enum answer answer = take(&r, order, &held[nr_held].pfn);

				held[nr_held].order = order;
				nr_held += answer == TAKEN;
				good = answer != WRONG;
			}
		}
		TAP_OK(good);
		ram_for_each_used(&r.ram, see, &seen);
		TAP_OK(seen.all_are_taken && seen.nr == r.nr_taken);
		while (nr_held-- > 0)
			TAP_OK(give(&r, held[nr_held].order, held[nr_held].pfn));
		rig_close(&r);
	}
}

TAP_TEST(ram_says_when_the_heap_is_too_small)
{
	uint64_t before = heap_used();
	struct ram ram;

	TAP_EQ(ram_init(&ram, 0, (mf_pfn_t)1 << 40, NULL), -MF_ENOMEM);
	TAP_EQ(ram_init(&ram, 0, (mf_pfn_t)1 << 31, NULL), -MF_ENOMEM);
	TAP_EQ(heap_used(), before);
}

static unsigned char *bytes_of(uint64_t first_paddr, mf_pfn_t pfn)
{
	return x86_direct(first_paddr + (pfn << X86_PAGE_SHIFT));
}

static bool is_poisoned(const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != POISON)
			return false;
	return true;
}

/* On frames of a page's worth of heap, so that it is known who else has them: nobody. */
TAP_TEST(ram_fills_frames_with_junk)
{
	enum { NR = 16 };
	char *memory = aligned_alloc(X86_PAGE, NR * X86_PAGE);
	uint64_t paddr = (uintptr_t)memory - X86_DIRECT;
	mf_pfn_t pfn;
	struct ram ram;

	TAP_REQUIRE(memory && ram_init(&ram, 32, 32 + NR, memory) == 0);
	for (unsigned order = 0; order <= 4; order++) {
		TAP_EQ(ram_take(&ram, order, &pfn), 0);
		TAP_OK(is_poisoned(bytes_of(paddr, pfn - 32), (size_t)X86_PAGE << order));
		__builtin_memset(bytes_of(paddr, pfn - 32), 0, (size_t)X86_PAGE << order);
		ram_give(&ram, order, pfn);
		TAP_OK(is_poisoned(bytes_of(paddr, pfn - 32), (size_t)X86_PAGE << order));
	}
	/* No more than what was taken. */
	__builtin_memset(memory, 0, NR * X86_PAGE);
	TAP_EQ(ram_take(&ram, 1, &pfn), 0);
	for (mf_pfn_t at = 32; at < 32 + NR; at++)
		TAP_EQ(is_poisoned(bytes_of(paddr, at - 32), X86_PAGE), at - pfn < 2);
	ram_give(&ram, 1, pfn);
	ram_exit(&ram);
	free(memory);
}

TAP_MAIN()
