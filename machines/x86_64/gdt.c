/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gdt.c - the segments of each CPU, and the stacks on which it takes what must not rely on its own.
 *
 * Owns the GDTs and the TSSes.  Law: a page fault has a stack of its own, since it may be the stack that has
 * overflowed; what goes wrong there is a double fault, with another stack.  Who maps them: paging_map_stack(), which
 * leaves what lies below each unmapped.
 *
 *   stacks of one CPU, from X86_STACKS + number * X86_STACK_STRIDE on:
 *     . [ #DF ] . [ #PF ] . [ NMI ] . [ #MC ] ................... [ its own ]      .: never mapped
 */
#include "machines/x86_64/trap.h"

#include "machines/x86_64/cpu.h"

#define CODE_64 0x00209b0000000000   /* present, code, 64 bits; accessed, so that the CPU never writes it */
#define DATA 0x0000930000000000      /* present, writable, accessed                                     */
#define TSS_AVAILABLE 0x0000890000000000

/* Bytes, as the hardware reads it. */
struct tss {
	uint32_t reserved;
	uint32_t rsp[6];     /* for changes of privilege: there are none                                         */
	uint32_t reserved_too[2];
	uint32_t ist[14];    /* seven addresses, low halves first                                               */
	uint32_t reserved_last[2];
	uint16_t reserved_word;
	uint16_t io_map;
};
MF_BUILD_ASSERT(sizeof(struct tss) == 104, "the processor's TSS");

struct descriptor_table {
	uint64_t entry[X86_TSS_SELECTOR / 8 + 2];
	struct tss tss;
};

static struct descriptor_table tables[X86_CPUS_MAX];

static uintptr_t fault_stack_top(unsigned cpu, unsigned ist)
{
	return X86_STACKS + (uintptr_t)cpu * X86_STACK_STRIDE + (uintptr_t)ist * X86_FAULT_STACK_STRIDE;
}

static void set_ist(struct tss *tss, unsigned ist, uintptr_t top)
{
	tss->ist[2 * (ist - 1)] = (uint32_t)top;
	tss->ist[2 * (ist - 1) + 1] = (uint32_t)(top >> 32);
}

static void load(const struct descriptor_table *table)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} pointer = {sizeof(table->entry) - 1, (uintptr_t)table->entry};
	uint64_t scratch;

	__asm__ volatile("lgdt %1\n\t"
			 "pushq %2\n\t"
			 "leaq 1f(%%rip), %0\n\t"
			 "pushq %0\n\t"
			 "lretq\n"
			 "1:\n\t"
			 "movl %3, %%ds\n\t"
			 "movl %3, %%es\n\t"
			 "movl %3, %%ss\n\t"
			 "movl %4, %%fs\n\t"
			 "movl %4, %%gs\n\t"
			 "ltr %w5"
			 : "=&r"(scratch)
			 : "m"(pointer), "i"(X86_CODE_SELECTOR), "r"(X86_DATA_SELECTOR), "r"(0),
			   "r"(X86_TSS_SELECTOR)
			 : "memory");
}

void gdt_init_cpu(unsigned cpu)
{
	struct descriptor_table *table = &tables[cpu];
	uintptr_t tss = (uintptr_t)&table->tss;

	x86_cpus[cpu].self = &x86_cpus[cpu];
	x86_cpus[cpu].number = cpu;
	x86_cpus[cpu].stack_top = paging_map_stack(cpu);

	*table = (struct descriptor_table){
		.entry[X86_CODE_SELECTOR / 8] = CODE_64,
		.entry[X86_DATA_SELECTOR / 8] = DATA,
		.entry[X86_TSS_SELECTOR / 8] = TSS_AVAILABLE | (sizeof(struct tss) - 1) | (tss & 0xffffff) << 16 |
					       (tss >> 24 & 0xff) << 56,
		.entry[X86_TSS_SELECTOR / 8 + 1] = tss >> 32,
		.tss.io_map = sizeof(struct tss),
	};
	for (unsigned ist = 1; ist <= TRAP_NR_STACKS; ist++)
		set_ist(&table->tss, ist, fault_stack_top(cpu, ist));
	load(table);
	cpu_msr_set(CPU_MSR_GS_BASE, (uintptr_t)&x86_cpus[cpu]);
	trap_load();
}

void gdt_keep_fault_stack(void)
{
	unsigned cpu = x86_this_cpu()->number;
	uintptr_t here = (uintptr_t)__builtin_frame_address(0), top = fault_stack_top(cpu, TRAP_STACK_PAGE_FAULT);

	if (here < top && here >= top - X86_FAULT_STACK_BYTES)
		set_ist(&tables[cpu].tss, TRAP_STACK_PAGE_FAULT, mf_round_down(here - X86_FAULT_STACK_BYTES / 4, 16));
}
