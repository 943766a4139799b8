/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_crash.c - a program that goes wrong in the way that its command line names, for t_crash.sh: each must end in a
 * report and exit code 1, whatever CPU, stack and lock it strikes.
 *
 *	crash=null | text | opcode | interrupt | stack | double |
 *	      nmi | machine_check | nested | kept | lock | none      on the first CPU
 *	cpu=1                                                        on the second
 */
#include "machines/x86_64/trap.h"
#include "metal/explain.h"

#include <memfold/memfold.h>
#include <stdlib.h>
#include <string.h>

/* ---- Ways to go wrong -------------------------------------------------------------------------------------------- */

static uint64_t *volatile null; /* more than the compiler may know */

static void crash_null(void)
{
	null[1] = 1;
}

static void crash_text(void)
{
	*(volatile uint64_t *)(uintptr_t)crash_null = 1;
}

static void crash_opcode(void)
{
	__asm__ volatile("movl $0x600d, %%ebx; ud2" : : : "rbx");
}

/* One that nobody has a use for. */
static void crash_interrupt(void)
{
	__asm__ volatile("int $0x77");
}

/* Called through a pointer that the compiler cannot see through, or it makes a loop of it. */
static uint64_t descend(uint64_t depth);
static uint64_t (*volatile deeper)(uint64_t depth) = descend;

static uint64_t descend(uint64_t depth)
{
	volatile char half_page[X86_PAGE / 2];

	half_page[depth % sizeof(half_page)] = 1;
	return depth == 0 ? 0 : deeper(depth - 1) + (uint64_t)half_page[depth % sizeof(half_page)];
}

static void crash_stack(void)
{
	(void)descend(2 * X86_STACK_STRIDE / X86_PAGE);
}

/* A page fault whose own stack is not mapped: an IST entry of this CPU's TSS, which its GDT leads to. */
static void crash_double(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} gdt;
	const uint64_t *tss_descriptor;
	uintptr_t tss;
	uint64_t nowhere = X86_STACKS + X86_FAULT_STACK_STRIDE - X86_FAULT_STACK_BYTES;

	__asm__ volatile("sgdt %0" : "=m"(gdt));
	tss_descriptor = (const uint64_t *)(gdt.base + X86_TSS_SELECTOR);
	tss = (tss_descriptor[0] >> 16 & 0xffffff) | (tss_descriptor[0] >> 56) << 24 | tss_descriptor[1] << 32;
	memcpy((void *)(tss + 0x24 + 8 * (TRAP_STACK_PAGE_FAULT - 1)), &nowhere, sizeof(nowhere));
	crash_null();
}

/*
 * Where the stack is none, as it may be when a real one strikes: only a stack of its own can take it.  The instruction
 * goes through the same gate as the interrupt.
 */
static void crash_nmi(void)
{
	__asm__ volatile("xorl %esp, %esp; int $2");
}

static void crash_machine_check(void)
{
	__asm__ volatile("xorl %esp, %esp; int $18");
}

/* The map that is to explain the address is none, so that asking it is a fault itself. */
static void crash_nested(void)
{
	explain_map((const struct mf_map *)(uintptr_t)64);
	*(volatile uint64_t *)X86_WINDOWS = 1;
}

/*
 * Explains for the report, so on the stack for page faults, at whose top the registers of the first fault stand.  Asked
 * for everything it faults, and when it is asked for less it looks whether the second fault was put over the first.
 */
static bool fault_and_look(const struct mf_map *map, uintptr_t va, bool may_lock, char *text, size_t size)
{
	static struct x86_frame first;
	uintptr_t top = X86_STACKS + x86_this_cpu()->number * (uintptr_t)X86_STACK_STRIDE +
			TRAP_STACK_PAGE_FAULT * (uintptr_t)X86_FAULT_STACK_STRIDE;
	const struct x86_frame *frame = (const struct x86_frame *)top - 1;

	(void)map;
	(void)va;
	if (may_lock) {
		first = *frame;
		crash_null();
	}
	(void)mf_format(text, size, "the first fault is %s",
			memcmp(&first, frame, sizeof(first)) == 0 ? "still there" : "overwritten");
	return true;
}

static void crash_kept(void)
{
	explain_map((const struct mf_map *)(uintptr_t)64);
	x86_explain_window = fault_and_look;
	*(volatile uint64_t *)X86_WINDOWS = 1;
}

/* ---- Inside the map, with its locks held ------------------------------------------------------------------------- */

static struct mf_machine_ops ops;

static int crash_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	(void)m;
	(void)node;
	(void)order;
	*pfn = 0;
	*(volatile uint64_t *)X86_WINDOWS = 1;
	return -MF_ENOMEM;
}

/* Adding memory takes frames while it holds region_lock, which whoever asks for a region's layout takes, too. */
static void crash_lock(void)
{
	uint64_t start = 0, end = 0;
	struct mf_machine *machine;
	struct mf_map *map;
	unsigned id;

	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *range = &boot_map.range[i];

		if (range->kind == BOOT_RAM && range->end - range->start > end - start) {
			start = range->start;
			end = range->end;
		}
	}
	if (x86_machine_create(&(struct x86_machine_config){.ram_start = start, .ram_end = end}, &machine))
		return;
	if (mf_map_create(&(struct mf_map_config){.machine = machine, .span = 1 << 19}, &map))
		return;
	if (mf_region_add(map, &(struct mf_region_config){.end_pfn = 1 << 18, .source = MF_SOURCE_RAM}, &id))
		return;
	explain_map(map);
	ops = *machine->ops;
	ops.ram_get = crash_ram_get;
	machine->ops = &ops;
	if (mf_region_add(map, &(struct mf_region_config){.start_pfn = 1 << 18, .end_pfn = (1 << 18) + 512,
							  .source = MF_SOURCE_RAM}, &id))
		return;
}

/* ---- Which ------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*crash)(void);
} crashes[] = {
	{"null", crash_null},           {"text", crash_text},
	{"opcode", crash_opcode},       {"interrupt", crash_interrupt},
	{"stack", crash_stack},         {"double", crash_double},
	{"nmi", crash_nmi},             {"machine_check", crash_machine_check},
	{"nested", crash_nested},       {"kept", crash_kept},
	{"lock", crash_lock},
};

static void crash(void *name)
{
	for (unsigned i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		if (strcmp(crashes[i].name, name) == 0)
			crashes[i].crash();
}

int x86_main(void)
{
	char name[32] = "", cpu[32] = "0";
	unsigned n;

	(void)boot_option("crash", name, sizeof(name));
	(void)boot_option("cpu", cpu, sizeof(cpu));
	n = (unsigned)strtoull(cpu, NULL, 10);
	if (n == 0) {
		crash(name);
	} else {
		smp_run(n, crash, name);
		smp_wait(n);
	}
	console_write("nothing went wrong\n");
	return 0;
}
