/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * window.c - the addresses of windows: reserve, attach to tables, release.
 *
 * Owns the table of windows of a sim.  Keeps: a window lies within what the machine's levels reach, and at the same
 * place in every run where that is free, so that runs repeat (how many tables a window needs depends on its address).
 * Maps no frames: that is the TLB's.
 */
#include "machines/sim/unwatched.h"

SIM_UNWATCHED_BEGIN

#include "machines/sim/sim.h"

#include <sys/mman.h>

/* Far from what hosts and sanitizers use, aligned for every level. */
#define FIRST_CHOICE ((uint64_t)1 << 45)
#define USER_ADDRESS_BITS 47

/* Eight places in each of 16 ranges, each half as far as the one before: sanitizers leave only low or high ones. */
enum { RANGES = 16, CHOICES_PER_RANGE = 8 };

/* First address beyond what a walk can tell apart, and beyond user space. */
static uint64_t reach(const struct mf_paging *p)
{
	unsigned bits = p->page_shift + p->levels * (p->page_shift - 3);

	return (uint64_t)1 << mf_min(bits, USER_ADDRESS_BITS);
}

static void *reserve(uintptr_t at, uint64_t size_bytes)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *base = mmap((void *)at, size_bytes, PROT_NONE, flags, -1, 0);

	return base == MAP_FAILED ? NULL : base;
}

/* Where the host likes: more than is needed, then trimmed to the alignment. */
static void *place_anywhere(uint64_t size_bytes, uint64_t align_bytes, uint64_t end)
{
	uintptr_t start, base;
	uint64_t total;
	void *whole;

	if (!mf_add_fits(size_bytes, align_bytes, &total))
		return NULL;
	whole = reserve(0, total);
	if (!whole)
		return NULL;
	start = (uintptr_t)whole;
	base = mf_round_up(start, align_bytes);
	if (base + size_bytes > end) {
		munmap(whole, total);
		return NULL;
	}
	if (base > start)
		munmap(whole, base - start);
	if (base + size_bytes < start + total)
		munmap((void *)(base + size_bytes), start + total - (base + size_bytes));
	return (void *)base;
}

static void *place(const struct mf_paging *p, uint64_t size_bytes, uint64_t align_bytes)
{
	uint64_t end = reach(p);

	if (size_bytes > end || align_bytes > end)
		return NULL;
	for (unsigned i = 0; i < RANGES * CHOICES_PER_RANGE; i++) {
		uint64_t range = mf_min(FIRST_CHOICE, end / 2) >> (i / CHOICES_PER_RANGE);
		uint64_t at = mf_round_up(range + range / CHOICES_PER_RANGE * (i % CHOICES_PER_RANGE), align_bytes);
		void *base;

		if (at > end - size_bytes)
			continue;
		/* A wish only: a sanitizer turns an address that it does not want into 0, and a fixed 0 is had. */
		base = reserve(at, size_bytes);
		if ((uintptr_t)base == at)
			return base;
		if (base)
			munmap(base, size_bytes);
	}
	return place_anywhere(size_bytes, align_bytes, end);
}

static struct sim_window *window_free_locked(struct sim *s)
{
	for (unsigned i = 0; i < MF_SIM_WINDOWS_MAX; i++) {
		if (s->windows[i].size_bytes == 0)
			return &s->windows[i];
	}
	return NULL;
}

int sim_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	struct sim *s = sim_of(m);
	uint64_t page = (uint64_t)1 << m->paging.page_shift;
	struct sim_window *window;
	void *at;

	MF_PANIC_IF(size_bytes == 0 || size_bytes % page != 0 || !mf_is_power_of_two(align_bytes),
		    "memfold: sim: a window of 0x%llx bytes aligned to 0x%llx was asked for.",
		    (unsigned long long)size_bytes, (unsigned long long)align_bytes);
	if (sim_call_fails(s, NULL))
		return -MF_ENOMEM;
	at = place(&m->paging, size_bytes, mf_max(align_bytes, page));
	if (!at)
		return -MF_ENOMEM;
	sim_tlb_lock();
	window = window_free_locked(s);
	if (window)
		*window = (struct sim_window){.base = (uintptr_t)at, .size_bytes = size_bytes};
	sim_tlb_unlock();
	if (!window) {
		munmap(at, size_bytes);
		return -MF_ENOMEM;
	}
	*base = at;
	return 0;
}

struct sim_window *sim_window_find_locked(struct sim *s, uintptr_t addr)
{
	for (unsigned i = 0; i < MF_SIM_WINDOWS_MAX; i++) {
		/* An unused entry has no size, so no address is inside it. */
		if (addr - s->windows[i].base < s->windows[i].size_bytes)
			return &s->windows[i];
	}
	return NULL;
}

static struct sim_window *window_exact_locked(struct sim *s, const void *base, uint64_t size_bytes)
{
	struct sim_window *window = sim_window_find_locked(s, (uintptr_t)base);

	return window && window->base == (uintptr_t)base && window->size_bytes == size_bytes ? window : NULL;
}

void sim_window_attach(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root)
{
	struct sim *s = sim_of(m);
	struct sim_window *window;

	MF_PANIC_IF(root >= sim_frames(s), "memfold: sim: root frame 0x%llx is beyond the machine.",
		    (unsigned long long)root);
	sim_tlb_lock();
	window = window_exact_locked(s, base, size_bytes);
	if (window) {
		window->root = root;
		window->is_attached = true;
	}
	sim_tlb_unlock();
	MF_PANIC_IF(!window, "memfold: sim: [%p, + 0x%llx) is attached, but was not reserved so.", base,
		    (unsigned long long)size_bytes);
}

/* The entry goes first: a fault that comes later is no longer a window's, and fills nothing over what is unmapped. */
void sim_window_release(struct mf_machine *m, void *base, uint64_t size_bytes)
{
	struct sim *s = sim_of(m);
	struct sim_window *window;
	const char *problem = NULL;

	sim_tlb_lock();
	window = window_exact_locked(s, base, size_bytes);
	if (window) {
		problem = sim_tlb_drop_locked(s, window->base, window->base + size_bytes);
		*window = (struct sim_window){.size_bytes = 0};
		s->epoch++; /* the root is forgotten, and with it all tables that were cached */
	}
	sim_tlb_unlock();
	MF_PANIC_IF(!window, "memfold: sim: [%p, + 0x%llx) is released, but was not reserved so.", base,
		    (unsigned long long)size_bytes);
	MF_PANIC_IF(problem, "%s", problem);
	munmap(base, size_bytes);
}

void sim_window_release_all(struct sim *s)
{
	for (unsigned i = 0; i < MF_SIM_WINDOWS_MAX; i++) {
		if (s->windows[i].size_bytes)
			sim_window_release(&s->machine, (void *)s->windows[i].base, s->windows[i].size_bytes);
	}
}

SIM_UNWATCHED_END
