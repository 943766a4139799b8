/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_window.c - windows as private anonymous memory: reserve, release, populate, discard.
 *
 * Owns the list of a machine's windows.  Keeps: a window costs what is populated and nothing else; what is not
 * populated reads as zero (the kernel's zero page); in a forked child all of it does.  A memfd would not do: a read of
 * a hole allocates.  Slots that are to share memory have one nevertheless: host_alias.c.
 *
 * Under strict overcommit the kernel charges for writable private memory when it is reserved.  There a window is
 * reserved read-only, which is free, and made writable by pieces as it is populated.  A piece stays writable, and
 * charged.
 */
#include "machines/linux/host.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The kernel says EAGAIN for a shortage that passes; one that does not is reported. */
enum { POPULATE_TRIES = 1000 };

static char *aligned_reserve(uint64_t size_bytes, uint64_t align_bytes)
{
	uint64_t padded;
	uintptr_t raw, start;
	void *mapped;

	if (!mf_add_fits(size_bytes, align_bytes, &padded) || size_bytes == 0)
		return NULL;
	mapped = mmap(NULL, padded, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapped == MAP_FAILED)
		return NULL;
	raw = (uintptr_t)mapped;
	start = mf_round_up(raw, align_bytes);
	if (start > raw)
		munmap(mapped, start - raw);
	munmap((void *)(start + size_bytes), raw + padded - start - size_bytes);
	return (char *)start;
}

/*
 * Huge pages would cost 2 MiB for the first slot touched.  A host that has none refuses the advice, rightly.  Wiping on
 * fork is no courtesy: a child that saw counts would take them for its own.
 */
bool linux_window_advise(void *start, uint64_t size_bytes)
{
	madvise(start, size_bytes, MADV_NOHUGEPAGE);
	return madvise(start, size_bytes, MADV_WIPEONFORK) == 0;
}

int linux_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	struct linux_machine *machine = linux_machine_of(m);
	struct linux_window *window = malloc(sizeof(*window));
	uint64_t rounded = mf_round_up(size_bytes, machine->host_page_bytes);
	char *start = NULL;

	if (!window || rounded < size_bytes)
		goto out_window;
	start = aligned_reserve(rounded, mf_max(align_bytes, machine->host_page_bytes));
	if (!start)
		goto out_window;
	if (!linux_window_advise(start, rounded))
		goto out_mapping;
	*window = (struct linux_window){.start = start, .size_bytes = rounded};
	window->is_read_only = machine->is_strict || mprotect(start, rounded, PROT_READ | PROT_WRITE) != 0;
	linux_lock();
	mf_list_push_back(&machine->windows, &window->node);
	linux_unlock();
	*base = start;
	return 0;

out_mapping:
	munmap(start, rounded);
out_window:
	free(window);
	return -MF_ENOMEM;
}

struct linux_window *linux_window_find_locked(struct linux_machine *machine, const char *start, uint64_t size_bytes)
{
	for (struct mf_list *at = machine->windows.next; at != &machine->windows; at = at->next) {
		struct linux_window *window = mf_container_of(at, struct linux_window, node);

		if (start >= window->start && size_bytes <= window->size_bytes &&
		    (uint64_t)(start - window->start) <= window->size_bytes - size_bytes)
			return window;
	}
	return NULL;
}

void linux_window_release(struct mf_machine *m, void *base, uint64_t size_bytes)
{
	struct linux_machine *machine = linux_machine_of(m);
	uint64_t rounded = mf_round_up(size_bytes, machine->host_page_bytes);
	struct linux_window *window;
	bool is_whole;

	linux_lock();
	window = linux_window_find_locked(machine, base, rounded);
	is_whole = window && window->start == base && window->size_bytes == rounded;
	if (is_whole) {
		linux_file_leave_locked(machine, window);
		mf_list_remove(&window->node);
	}
	linux_unlock();
	MF_PANIC_IF(!is_whole,
		    "memfold: window_release() of %p, %llu bytes, which is no window of this machine.", base,
		    (unsigned long long)size_bytes);
	munmap(window->start, window->size_bytes);
	free(window);
}

/* Aliases stay read-only, and what is shared is writable. */
static int private_make_writable_locked(const struct linux_machine *machine, const struct linux_window *window,
					uint64_t start, uint64_t end)
{
	uint64_t next;

	for (uint64_t at = start; at < end; at = next) {
		next = linux_run_end(machine, window, at, end);
		if (linux_slot_kind(machine, window, at) == LINUX_SLOT_PRIVATE &&
		    mprotect(window->start + at, next - at, PROT_READ | PROT_WRITE) != 0)
			return -MF_ENOMEM;
	}
	return 0;
}

/* Makes the pieces of a read-only window that [addr, addr + size) touches writable; nothing to do for other windows. */
static int range_make_writable(struct linux_machine *machine, char *addr, uint64_t size_bytes)
{
	struct linux_window *window;
	int error = 0;

	linux_lock();
	window = linux_window_find_locked(machine, addr, size_bytes);
	if (window && window->is_read_only) {
		uint64_t start = mf_round_down((uint64_t)(addr - window->start), LINUX_WRITABLE_PIECE);
		uint64_t end = mf_round_up((uint64_t)(addr - window->start) + size_bytes, LINUX_WRITABLE_PIECE);

		error = private_make_writable_locked(machine, window, start, mf_min(end, window->size_bytes));
	}
	linux_unlock();
	MF_PANIC_IF(!window, "memfold: host_populate() of %p, %llu bytes, outside every window.", (void *)addr,
		    (unsigned long long)size_bytes);
	return error;
}

/* A write that changes nothing.  Compare-and-swap, since compilers turn "add 0" into a load. */
static void range_touch(char *addr, uint64_t size_bytes, uint64_t page_bytes)
{
	for (uint64_t offset = 0; offset < size_bytes; offset += page_bytes) {
		_Atomic unsigned char *byte = (_Atomic unsigned char *)(void *)(addr + offset);
		unsigned char seen = atomic_load_explicit(byte, memory_order_relaxed);

		while (!atomic_compare_exchange_weak_explicit(byte, &seen, seen, memory_order_relaxed,
							      memory_order_relaxed))
			continue;
	}
}

int linux_range_populate(struct linux_machine *machine, char *addr, uint64_t size_bytes)
{
	if (atomic_load_explicit(&machine->populates_by_touch, memory_order_relaxed)) {
		range_touch(addr, size_bytes, machine->host_page_bytes);
		return 0;
	}
	for (int tries = 0; tries < POPULATE_TRIES; tries++) {
		if (madvise(addr, size_bytes, MADV_POPULATE_WRITE) == 0)
			return 0;
		if (errno == EINVAL) {
			atomic_store_explicit(&machine->populates_by_touch, true, memory_order_relaxed);
			range_touch(addr, size_bytes, machine->host_page_bytes);
			return 0;
		}
		if (errno != EINTR && errno != EAGAIN)
			return -MF_ENOMEM;
		if (errno == EAGAIN)
			sched_yield();
	}
	return -MF_ENOMEM;
}

/*
 * After a failure halfway: gives back the pages that hold nothing.  Those that were populated before and are in use (a
 * slot that two regions share) hold records, and stay.
 */
static void range_discard_zero(char *addr, uint64_t size_bytes, uint64_t page_bytes)
{
	for (uint64_t offset = 0; offset < size_bytes; offset += page_bytes) {
		const char *page = addr + offset;

		if (page[0] == 0 && memcmp(page, page + 1, page_bytes - 1) == 0)
			madvise(addr + offset, page_bytes, MADV_DONTNEED);
	}
}

int linux_host_populate(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct linux_machine *machine = linux_machine_of(m);
	int error = range_make_writable(machine, addr, size_bytes);

	if (error)
		return error;
	error = linux_range_populate(machine, addr, size_bytes);
	if (error)
		range_discard_zero(addr, size_bytes, machine->host_page_bytes);
	return error;
}

void linux_range_discard(char *addr, uint64_t size_bytes)
{
	int error = madvise(addr, size_bytes, MADV_DONTNEED) == 0 ? 0 : errno;

	MF_PANIC_IF(error != 0, "memfold: the host refused to discard %llu bytes of a window at %p: %s.",
		    (unsigned long long)size_bytes, (void *)addr, strerror(error));
}

void linux_host_discard(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct linux_machine *machine = linux_machine_of(m);

	if (atomic_load_explicit(&machine->shares, memory_order_acquire))
		linux_slots_discard(machine, addr, size_bytes);
	else
		linux_range_discard(addr, size_bytes);
}
