/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * boot.c - from boot.S to x86_main(): the order of everything.
 *
 * Owns the order and the size of the heap.  Law: nothing is used before it is up; each step needs those above it only.
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/cpu.h"

/* From boot.S and to it. */
void boot(uint64_t start_info_paddr);
MF_NORETURN void boot_on_stack(uintptr_t top, void (*rest)(void));

static const uint64_t HEAP_MIN = 16 * MF_MIB, HEAP_MAX = 512 * MF_MIB;

static void end_in_panic(void *ctx, const char *sentence)
{
	(void)ctx;
	console_print("panic: %s\n", sentence);
	x86_exit(1);
}

static uint64_t ram_bytes(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < boot_map.nr; i++)
		if (boot_map.range[i].kind == BOOT_RAM)
			sum += boot_map.range[i].end - boot_map.range[i].start;
	return sum;
}

/* "64M", "1G": bytes; 0 for what is no size. */
static uint64_t parse_size(const char *text)
{
	uint64_t n = 0;
	unsigned shift = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		if (!mf_mul_fits(n, 10, &n) || !mf_add_fits(n, (uint64_t)(*text - '0'), &n))
			return 0;
	if (*text == 'K' || *text == 'M' || *text == 'G')
		shift = *text == 'K' ? 10 : *text == 'M' ? 20 : 30;
	if (text[shift != 0] != '\0' || n > UINT64_MAX >> shift)
		return 0;
	return n << shift;
}

/* A power of two: a part of RAM, so that what a map needs grows with what it describes; or what the option says. */
static void give_heap(void)
{
	uint64_t size_bytes = mf_min(mf_max(ram_bytes() / 64, HEAP_MIN), HEAP_MAX);
	char value[32];

	if (boot_option("heap", value, sizeof(value))) {
		size_bytes = parse_size(value);
		MF_PANIC_IF(size_bytes < X86_PAGE, "x86_64: \"heap=%s\" is no size of a heap.", value);
	}
	size_bytes = (uint64_t)1 << mf_log2(size_bytes);
	heap_init(boot_frames_unzeroed(mf_log2(size_bytes / X86_PAGE), 0), size_bytes);
}

static void boot_rest(void)
{
	struct acpi_info info;

	give_heap();
	acpi_init(&info);
	apic_init(info.local_apic);
	apic_init_cpu();
	smp_init(&info);
	paging_drop_identity();
	cpu_interrupts_on();
	x86_exit((unsigned)x86_main());
}

void boot(uint64_t start_info_paddr)
{
	console_init();
	mf_panic_default_set(end_in_panic);
	bootmap_init(start_info_paddr);
	paging_init();
	trap_init();
	gdt_init_cpu(0);
	boot_on_stack(x86_cpus[0].stack_top, boot_rest);
}
