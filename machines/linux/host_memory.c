/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_memory.c - the table of described memory: which frames have which memory behind them.
 *
 * Owns the table and the mappings that host_backing.c made for it.  Keeps: ranges are disjoint and sorted; a call that
 * fails leaves the table as it was.  Readers (data) take no lock: writers make memories_seq odd, change entries with
 * release stores, and make it even; a reader that met an odd or changed number looks again.
 */
#include "machines/linux/host.h"

#include <sys/mman.h>

static uint64_t load(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_acquire);
}

static void entry_set(struct linux_memory *entry, uint64_t start_pfn, uint64_t end_pfn, char *base, bool is_mapped)
{
	atomic_store_explicit(&entry->start_pfn, start_pfn, memory_order_release);
	atomic_store_explicit(&entry->end_pfn, end_pfn, memory_order_release);
	atomic_store_explicit(&entry->base, base, memory_order_release);
	atomic_store_explicit(&entry->is_mapped, is_mapped, memory_order_release);
}

static void entry_copy(struct linux_memory *to, const struct linux_memory *from)
{
	entry_set(to, load(&from->start_pfn), load(&from->end_pfn),
		  atomic_load_explicit(&from->base, memory_order_acquire),
		  atomic_load_explicit(&from->is_mapped, memory_order_acquire));
}

/* Index of the first entry that ends above pfn; nr_memories when there is none. */
static unsigned entry_above(const struct linux_machine *machine, mf_pfn_t pfn)
{
	unsigned low = 0;
	unsigned high = atomic_load_explicit(&machine->nr_memories, memory_order_acquire);

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (load(&machine->memories[middle].end_pfn) > pfn)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static char *data_try(const struct linux_machine *machine, mf_pfn_t pfn, uint64_t nr_frames)
{
	unsigned i = entry_above(machine, pfn);
	uint64_t start_pfn, end_pfn;
	char *base;

	if (i >= atomic_load_explicit(&machine->nr_memories, memory_order_acquire))
		return NULL;
	start_pfn = load(&machine->memories[i].start_pfn);
	end_pfn = load(&machine->memories[i].end_pfn);
	base = atomic_load_explicit(&machine->memories[i].base, memory_order_acquire);
	if (!base || pfn < start_pfn || pfn >= end_pfn || nr_frames > end_pfn - pfn)
		return NULL;
	return base + ((pfn - start_pfn) << machine->machine.paging.page_shift);
}

void *linux_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames)
{
	const struct linux_machine *machine = linux_machine_of(m);

	for (;;) {
		uint64_t seq = atomic_load_explicit(&machine->memories_seq, memory_order_acquire);
		char *found = data_try(machine, pfn, nr_frames);

		if ((seq & 1) == 0 && atomic_load_explicit(&machine->memories_seq, memory_order_relaxed) == seq)
			return found;
		linux_relax(m);
	}
}

static void change_begin(struct linux_machine *machine)
{
	atomic_fetch_add_explicit(&machine->memories_seq, 1, memory_order_relaxed);
}

static void change_end(struct linux_machine *machine)
{
	atomic_fetch_add_explicit(&machine->memories_seq, 1, memory_order_release);
}

static int range_check(const struct linux_machine *machine, const struct mf_linux_memory *memory,
		       const struct linux_report *report)
{
	unsigned shift = machine->machine.paging.page_shift;
	unsigned long long start = memory->start_pfn;
	uint64_t nr_frames = memory->size_bytes >> shift;
	mf_pfn_t end_pfn;

	if (memory->size_bytes == 0)
		return linux_fail(report, MF_EINVAL, "Memory at frame 0x%llx has no size.", start);
	if (memory->size_bytes != nr_frames << shift)
		return linux_fail(
			report, MF_EINVAL,
			"Memory at frame 0x%llx: its size, %llu bytes, is not a multiple of a frame (%llu bytes).",
			start, (unsigned long long)memory->size_bytes, 1ull << shift);
	if (!mf_add_fits(memory->start_pfn, nr_frames, &end_pfn) || end_pfn > UINT64_MAX >> shift)
		return linux_fail(report, MF_EOVERFLOW,
				  "Memory at frame 0x%llx ends beyond what a 64-bit physical address can name.", start);
	return 0;
}

static int insert_locked(struct linux_machine *machine, const struct mf_linux_memory *memory, char *base,
			 const struct linux_report *report)
{
	unsigned nr = atomic_load_explicit(&machine->nr_memories, memory_order_relaxed);
	unsigned at = entry_above(machine, memory->start_pfn);
	mf_pfn_t end_pfn = memory->start_pfn + (memory->size_bytes >> machine->machine.paging.page_shift);
	bool is_mapped = base && memory->kind != MF_LINUX_MAPPING;

	if (at < nr && load(&machine->memories[at].start_pfn) < end_pfn)
		return linux_fail(report, MF_EEXIST,
				  "Memory at frames 0x%llx to 0x%llx overlaps the memory at frames 0x%llx to 0x%llx.",
				  (unsigned long long)memory->start_pfn, (unsigned long long)end_pfn,
				  (unsigned long long)load(&machine->memories[at].start_pfn),
				  (unsigned long long)load(&machine->memories[at].end_pfn));
	if (nr == MF_LINUX_MEMORIES_MAX)
		return linux_fail(report, MF_E2BIG, "Memory at frame 0x%llx: a machine takes at most %d memories.",
				  (unsigned long long)memory->start_pfn, MF_LINUX_MEMORIES_MAX);
	change_begin(machine);
	for (unsigned i = nr; i > at; i--)
		entry_copy(&machine->memories[i], &machine->memories[i - 1]);
	entry_set(&machine->memories[at], memory->start_pfn, end_pfn, base, is_mapped);
	atomic_store_explicit(&machine->nr_memories, nr + 1, memory_order_release);
	change_end(machine);
	return 0;
}

int mf_linux_memory_add(struct mf_machine *m, const struct mf_linux_memory *memory, char *message, size_t message_size)
{
	struct linux_machine *machine = linux_machine_checked(m);
	struct linux_report report = {message, message_size};
	char *base = NULL;
	int error;

	if (!linux_may_use(m))
		return linux_fail(&report, MF_EPERM,
				  "The machine belongs to the process that created it, not to a child.");
	error = range_check(machine, memory, &report);
	if (!error)
		error = linux_backing_map(machine, memory, &report, &base);
	if (error)
		return error;
	linux_lock();
	error = insert_locked(machine, memory, base, &report);
	linux_unlock();
	if (error && base && memory->kind != MF_LINUX_MAPPING)
		munmap(base, memory->size_bytes);
	return error;
}

static int entry_unmap(const struct linux_machine *machine, const struct linux_memory *entry)
{
	uint64_t nr_frames = load(&entry->end_pfn) - load(&entry->start_pfn);

	if (!atomic_load_explicit(&entry->is_mapped, memory_order_relaxed))
		return 0;
	return munmap(atomic_load_explicit(&entry->base, memory_order_relaxed),
		      nr_frames << machine->machine.paging.page_shift);
}

static int remove_locked(struct linux_machine *machine, mf_pfn_t start_pfn)
{
	unsigned nr = atomic_load_explicit(&machine->nr_memories, memory_order_relaxed);
	unsigned at = entry_above(machine, start_pfn);

	if (at == nr || load(&machine->memories[at].start_pfn) != start_pfn)
		return -MF_ENOENT;
	if (entry_unmap(machine, &machine->memories[at]) != 0)
		return -MF_ENOMEM;
	change_begin(machine);
	for (unsigned i = at; i + 1 < nr; i++)
		entry_copy(&machine->memories[i], &machine->memories[i + 1]);
	atomic_store_explicit(&machine->nr_memories, nr - 1, memory_order_release);
	change_end(machine);
	return 0;
}

int mf_linux_memory_remove(struct mf_machine *m, mf_pfn_t start_pfn)
{
	struct linux_machine *machine = linux_machine_checked(m);
	int error;

	if (!linux_may_use(m))
		return -MF_EPERM;
	linux_lock();
	error = remove_locked(machine, start_pfn);
	linux_unlock();
	return error;
}

void linux_memories_unmap(struct linux_machine *machine)
{
	unsigned nr = atomic_load_explicit(&machine->nr_memories, memory_order_relaxed);

	for (unsigned i = 0; i < nr; i++)
		entry_unmap(machine, &machine->memories[i]);
	atomic_store_explicit(&machine->nr_memories, 0, memory_order_relaxed);
}
