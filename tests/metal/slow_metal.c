/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * slow_metal.c - the machine of bare metal behind the slow one.
 *
 *   physical   | pfn 0: frames that regions describe ... | RAM | - the end of the largest range of memory
 *
 * Its CPUs are processors, and threads take turns on them (threads.h), so it pins; x86_64 itself need not, since a CPU
 * runs one thread there, and nor does this for SLOW_THREADS, when no two threads have the same home.  Who relaxes lets
 * the others of its CPU run: they may be what it waits for.
 */
#include "tests/lib/slow_kind.h"

#include "machines/x86_64/x86_64.h"
#include "tests/metal/threads.h"

#include <sched.h>

MF_BUILD_ASSERT(sizeof(struct slow_thread) <= THREAD_OWN_BYTES, "it is the thread's own");

static bool is_pinning;

struct slow_thread *slow_thread(void)
{
	return thread_own();
}

/* From a whole GiB on, above 4 GiB, to the end of the range; 0 and 0 where there is no memory. */
static struct boot_range largest_memory(void)
{
	struct boot_range largest = { 0 };

	for (unsigned i = 0; i < boot_map.nr; i++) {
		struct boot_range range = boot_map.range[i];

		range.start = mf_max(mf_round_up(range.start, MF_GIB), 4 * MF_GIB);
		if (range.kind != BOOT_RAM || range.end <= range.start)
			continue;
		if (range.end - range.start > largest.end - largest.start)
			largest = range;
	}
	return largest;
}

/* RAM as in the sim: for all of it flat (1/64), its tables, and as much to try more. */
int slow_kind_create(struct slow_machine *slow, uint64_t nr_frames)
{
	struct boot_range memory = largest_memory();
	uint64_t nr_ram = nr_frames / 16 + 4096;
	struct x86_machine_config config = {
		.first_paddr = memory.start,
		.ram_start = memory.start + (nr_frames << X86_PAGE_SHIFT),
		.ram_end = memory.start + ((nr_frames + nr_ram) << X86_PAGE_SHIFT),
		.poison_ram = true,
	};

	is_pinning = slow->kind != SLOW_THREADS;
	slow->kind = SLOW_TABLES;
	return config.ram_end > memory.end ? -MF_ENOMEM : x86_machine_create(&config, &slow->inner);
}

static void pin(struct mf_machine *m)
{
	slow_dawdle(m);
	thread_pin();
}

static void unpin(struct mf_machine *m)
{
	thread_unpin();
	slow_dawdle(m);
}

static void relax(struct mf_machine *m)
{
	slow_relax(m);
	sched_yield();
}

void slow_kind_change_ops(struct slow_machine *slow)
{
	slow->ops.relax = relax;
	if (is_pinning) {
		slow->ops.pin_cpu = pin;
		slow->ops.unpin_cpu = unpin;
	}
}

void slow_kind_destroy(struct slow_machine *slow)
{
	x86_machine_destroy(slow->inner);
}

bool slow_kind_register(struct slow_machine *slow, unsigned number)
{
	(void)slow;
	return is_pinning || number < x86_nr_cpus;
}

void slow_machine_fail_any(struct slow_machine *slow, uint64_t n)
{
	x86_machine_fail_any(slow->inner, n);
}
