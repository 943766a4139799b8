/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ram.c - a buddy allocator over the frames that a machine keeps outside every region.
 *
 * Owns the record of who has which of them.  Laws: a block of 2^order frames is naturally aligned by its pfn; two free
 * buddies are one block; what comes back was taken, and has not come back yet.  Keeps nothing in free frames, so that a
 * stray write there does no harm to it.
 *
 *   frame    0      1      2      3      4      5      6      7
 *   state    USED+1 INSIDE FREE+1 INSIDE FREE+2 INSIDE INSIDE INSIDE     a state stands where its block begins
 */
#include "machines/x86_64/ram.h"

#include "machines/x86_64/x86_64.h"

enum { POISON = 0xA5 };
enum { INSIDE = 0, FREE = 0x40, USED = 0x80 };

/* Neighbours on the list of free blocks of one order, by the frame a block begins with. */
struct ram_link {
	uint32_t next, before;
};

static const uint32_t NONE = UINT32_MAX;

/* Interrupts may be off: who holds the lock flushes nothing, so there is nothing to serve. */
static void lock_ram(struct ram *ram)
{
	while (!mf_lock_try(&ram->lock))
		__builtin_ia32_pause();
}

static void unlock_ram(struct ram *ram)
{
	mf_lock_release(&ram->lock);
}

/* ---- Free blocks ------------------------------------------------------------------------------------------------- */

static void push(struct ram *ram, unsigned order, uint64_t at)
{
	uint32_t next = ram->first[order];

	ram->link[at] = (struct ram_link){next, NONE};
	if (next != NONE)
		ram->link[next].before = (uint32_t)at;
	ram->first[order] = (uint32_t)at;
	ram->orders |= 1u << order;
	ram->state[at] = (uint8_t)(FREE | order);
}

static void take_off(struct ram *ram, unsigned order, uint64_t at)
{
	struct ram_link link = ram->link[at];

	if (link.next != NONE)
		ram->link[link.next].before = link.before;
	if (link.before != NONE)
		ram->link[link.before].next = link.next;
	else
		ram->first[order] = link.next;
	if (ram->first[order] == NONE)
		ram->orders &= ~(1u << order);
	ram->state[at] = INSIDE;
}

/* The block joins its buddy as long as that is free and in the range. */
static void free_block(struct ram *ram, unsigned order, mf_pfn_t pfn)
{
	for (; order + 1 < RAM_ORDERS; order++) {
		mf_pfn_t nr = (mf_pfn_t)1 << order, buddy = pfn ^ nr;

		if (buddy < ram->start || buddy + nr > ram->end || ram->state[buddy - ram->start] != (FREE | order))
			break;
		take_off(ram, order, buddy - ram->start);
		pfn &= ~nr;
	}
	push(ram, order, pfn - ram->start);
}

/* ---- The calls --------------------------------------------------------------------------------------------------- */

int ram_init(struct ram *ram, mf_pfn_t start, mf_pfn_t end, char *memory)
{
	uint64_t nr = end - start;

	*ram = (struct ram){.start = start, .end = end, .memory = memory};
	mf_lock_init(&ram->lock);
	if (nr >= NONE)
		return -MF_ENOMEM;
	ram->link = heap_alloc(nr * sizeof(*ram->link));
	ram->state = heap_alloc(nr);
	if (!ram->link || !ram->state) {
		ram_exit(ram);
		return -MF_ENOMEM;
	}
	for (unsigned order = 0; order < RAM_ORDERS; order++)
		ram->first[order] = NONE;
	for (mf_pfn_t at = start; at < end;) {
		unsigned order = (unsigned)mf_min(mf_log2(end - at), at ? mf_ctz(at) : RAM_ORDERS - 1);

		push(ram, order, at - start);
		at += (mf_pfn_t)1 << order;
	}
	return 0;
}

void ram_exit(struct ram *ram)
{
	heap_free(ram->link);
	heap_free(ram->state);
}

static bool take_locked(struct ram *ram, unsigned order, mf_pfn_t *pfn)
{
	uint32_t fitting = order < RAM_ORDERS ? ram->orders >> order << order : 0;
	unsigned from;
	uint64_t at;

	if (fitting == 0)
		return false;
	from = mf_ctz(fitting);
	at = ram->first[from];
	take_off(ram, from, at);
	while (from-- > order)
		push(ram, from, at + ((uint64_t)1 << from));
	ram->state[at] = (uint8_t)(USED | order);
	ram->nr_used += (uint64_t)1 << order;
	*pfn = ram->start + at;
	return true;
}

static void poison(const struct ram *ram, unsigned order, mf_pfn_t pfn)
{
	if (ram->memory)
		__builtin_memset(ram->memory + ((pfn - ram->start) << X86_PAGE_SHIFT), POISON,
				 (size_t)X86_PAGE << order);
}

int ram_take(struct ram *ram, unsigned order, mf_pfn_t *pfn)
{
	bool taken;

	lock_ram(ram);
	taken = take_locked(ram, order, pfn);
	unlock_ram(ram);
	if (!taken)
		return -MF_ENOMEM;
	poison(ram, order, *pfn);
	return 0;
}

/* Was the piece taken, as such or in a larger one?  Then that one is halved until the piece stands for itself. */
static bool part_locked(struct ram *ram, unsigned order, mf_pfn_t pfn)
{
	unsigned larger = order;
	mf_pfn_t head = pfn;

	if (order >= RAM_ORDERS || pfn < ram->start || pfn >= ram->end || (pfn & (((mf_pfn_t)1 << order) - 1)) != 0)
		return false;
	while (ram->state[head - ram->start] != (USED | larger)) {
		larger++;
		head = mf_round_down(pfn, (mf_pfn_t)1 << larger);
		if (larger == RAM_ORDERS || head < ram->start)
			return false;
	}
	while (larger-- > order) {
		mf_pfn_t half = head + ((mf_pfn_t)1 << larger);

		ram->state[head - ram->start] = (uint8_t)(USED | larger);
		ram->state[half - ram->start] = (uint8_t)(USED | larger);
		head = pfn >= half ? half : head;
	}
	return true;
}

void ram_give(struct ram *ram, unsigned order, mf_pfn_t pfn)
{
	bool is_ours;

	lock_ram(ram);
	is_ours = part_locked(ram, order, pfn);
	if (is_ours) {
		poison(ram, order, pfn); /* before another may have it */
		ram->state[pfn - ram->start] = INSIDE;
		free_block(ram, order, pfn);
		ram->nr_used -= (uint64_t)1 << order;
	}
	unlock_ram(ram);
	MF_PANIC_IF(!is_ours,
		    "memfold: x86_64: RAM frame 0x%llx comes back with order %u, but it is not out, or not so.",
		    (unsigned long long)pfn, order);
}

/* ---- Questions --------------------------------------------------------------------------------------------------- */

uint64_t ram_nr_used(struct ram *ram)
{
	uint64_t nr;

	lock_ram(ram);
	nr = ram->nr_used;
	unlock_ram(ram);
	return nr;
}

void ram_for_each_used(struct ram *ram, void (*visit)(void *ctx, mf_pfn_t pfn), void *ctx)
{
	for (mf_pfn_t at = ram->start; at < ram->end;) {
		unsigned state = ram->state[at - ram->start], order = state & (RAM_ORDERS - 1);
		mf_pfn_t next = at + ((mf_pfn_t)1 << order);

		for (mf_pfn_t pfn = at; state & USED && pfn < next; pfn++)
			visit(ctx, pfn);
		at = next;
	}
}
