/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * describe.c - what a fault hit, in words: the address's place in the layout of x86_64.h, and in the map.
 *
 * Owns which map is explained, and by whom: a machine knows no map.  Reads the tables as they are now: where they allow
 * what has faulted, a CPU still held an older translation, and a flush is missing.  Changes nothing.
 */
#include "machines/x86_64/paging.h"
#include "machines/x86_64/trap.h"

enum { PLACE_MAX = 320, SLOT_MAX = 160 };

const struct mf_map *volatile x86_explained_map;
x86_explain_fn volatile x86_explain_window;

/* ---- The translation --------------------------------------------------------------------------------------------- */

static bool is_write(const struct x86_fault *fault)
{
	return fault->error & TRAP_ERROR_WRITE;
}

static bool is_fetch(const struct x86_fault *fault)
{
	return fault->error & TRAP_ERROR_FETCH;
}

/* Why the tables forbid it. */
static const char *reason(const struct x86_fault *fault, uint64_t entry)
{
	if (!(entry & ENTRY_PRESENT))
		return "not mapped";
	if (fault->error & TRAP_ERROR_RESERVED)
		return "mapped by an entry with reserved bits";
	if (is_fetch(fault) && entry & ENTRY_NO_EXECUTE)
		return "not executable";
	if (is_write(fault) && !(entry & ENTRY_WRITE))
		return "read-only";
	return "allowed by the tables: a flush is missing";
}

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

static bool is_zero_frame(uint64_t entry)
{
	const uint64_t *word = entry_table(entry);

	for (unsigned i = 0; i < ENTRIES; i++)
		if (word[i] != 0)
			return false;
	return true;
}

/* What a slot is that cannot be written, or not touched at all. */
static const char *slot_state(const struct x86_fault *fault, uint64_t entry)
{
	if (!(entry & ENTRY_PRESENT) || is_fetch(fault) || !is_write(fault) || entry & ENTRY_WRITE)
		return reason(fault, entry);
	return is_zero_frame(entry) ? "not backed: it shows the zero frame, read-only" :
				      "read-only and shared: it shows another slot's frame, or a zone's tails";
}

static void describe_window(const struct x86_fault *fault, uint64_t entry, enum describe_detail detail, char *text,
			    size_t size)
{
	unsigned window = (unsigned)((fault->address - X86_WINDOWS) / X86_WINDOW_BYTES);
	const struct mf_map *map = detail == DESCRIBE_NOTHING || !x86_explain_window ? NULL : x86_explained_map;
	char slot[SLOT_MAX];

	if (map && x86_explain_window(map, fault->address, detail == DESCRIBE_REGION, slot, sizeof(slot)))
		(void)mf_format(text, size, "window %u, %s; %s", window, slot, slot_state(fault, entry));
	else
		(void)mf_format(text, size, "window %u, %s; %s", window,
				map ? "no tier of the map" : "of which no map is known", reason(fault, entry));
}

/* ---- The rest of the address space ------------------------------------------------------------------------------- */

static void describe_direct(const struct x86_fault *fault, uint64_t entry, char *text, size_t size)
{
	static const char *const kind_name[] = {
		[BOOT_RAM] = "RAM",
		[BOOT_IMAGE] = "the image",
		[BOOT_DATA] = "boot data",
		[BOOT_FIRMWARE] = "the firmware's",
	};
	uint64_t paddr = fault->address - X86_DIRECT;
	const char *kind = "a hole", *protected = "";

	for (unsigned i = 0; i < boot_map.nr; i++)
		if (paddr >= boot_map.range[i].start && paddr < boot_map.range[i].end)
			kind = kind_name[boot_map.range[i].kind];
	if (entry & ENTRY_PRESENT && entry & ENTRY_PROTECTED)
		protected = ", as a shared table, tails or the zero frame is";
	(void)mf_format(text, size, "direct map, physical 0x%llx, %s; %s%s", (unsigned long long)paddr, kind,
			reason(fault, entry), protected);
}

static void describe_image(const struct x86_fault *fault, uint64_t entry, char *text, size_t size)
{
	uintptr_t va = fault->address;
	const char *part = "outside its text and data";

	if (va >= (uintptr_t)x86_text_start && va < (uintptr_t)x86_image_end)
		part = va < (uintptr_t)x86_text_end ? "text" : va < (uintptr_t)x86_rodata_end ? "constants" : "data";
	(void)mf_format(text, size, "the image, %s; %s", part, reason(fault, entry));
}

/* Each stack ends where the part of its CPU's addresses ends that is its own. */
static void describe_stack(const struct x86_fault *fault, uint64_t entry, char *text, size_t size)
{
	static const char *const purpose[TRAP_NR_STACKS] = {
		[TRAP_STACK_DOUBLE_FAULT - 1] = " for double faults",
		[TRAP_STACK_PAGE_FAULT - 1] = " for page faults",
		[TRAP_STACK_NMI - 1] = " for non-maskable interrupts",
		[TRAP_STACK_MACHINE_CHECK - 1] = " for machine checks",
	};
	uint64_t cpu = (fault->address - X86_STACKS) / X86_STACK_STRIDE;
	uint64_t offset = (fault->address - X86_STACKS) % X86_STACK_STRIDE;
	uint64_t i = offset / X86_FAULT_STACK_STRIDE;

	if (entry & ENTRY_PRESENT)
		(void)mf_format(text, size, "a stack of CPU %llu; %s", (unsigned long long)cpu, reason(fault, entry));
	else
		(void)mf_format(text, size, "guard below the stack%s of CPU %llu, which has overflowed; not mapped",
				i < TRAP_NR_STACKS ? purpose[i] : "", (unsigned long long)cpu);
}

static bool lies_in(uintptr_t va, uintptr_t start, uint64_t size_bytes)
{
	return va - start < size_bytes;
}

static void describe_place(const struct x86_fault *fault, enum describe_detail detail, char *text, size_t size)
{
	uintptr_t va = fault->address;
	unsigned level;
	uint64_t entry = paging_entry(va, &level);

	if (lies_in(va, X86_WINDOWS, X86_NR_WINDOWS * X86_WINDOW_BYTES))
		describe_window(fault, entry, detail, text, size);
	else if (lies_in(va, X86_DIRECT, X86_WINDOWS - X86_DIRECT))
		describe_direct(fault, entry, text, size);
	else if (lies_in(va, X86_STACKS, (uint64_t)X86_CPUS_MAX * X86_STACK_STRIDE))
		describe_stack(fault, entry, text, size);
	else if (lies_in(va, X86_DEVICES, X86_IMAGE - X86_DEVICES))
		(void)mf_format(text, size, "device memory; %s", reason(fault, entry));
	else if (va >= X86_IMAGE)
		describe_image(fault, entry, text, size);
	else
		(void)mf_format(text, size, "%s; %s",
				va < X86_PAGE ? "a null pointer" : "no part of the kernel's addresses",
				reason(fault, entry));
}

static const char *access_name(const struct x86_fault *fault)
{
	if (fault->vector == TRAP_DOUBLE_FAULT)
		return "double fault, the last address was";
	return is_fetch(fault) ? "execution of" : is_write(fault) ? "write to" : "read of";
}

void describe_fault(const struct x86_fault *fault, enum describe_detail detail, char *text, size_t size)
{
	char place[PLACE_MAX];

	if (fault->vector == TRAP_PROTECTION) {
		(void)mf_format(text, size, "general protection at 0x%llx on CPU %u, error 0x%llx: an address that is "
				"none, or what is not allowed", (unsigned long long)fault->rip, fault->cpu,
				(unsigned long long)fault->error);
		return;
	}
	describe_place(fault, detail, place, sizeof(place));
	(void)mf_format(text, size, "%s 0x%llx on CPU %u by 0x%llx: %s", access_name(fault),
			(unsigned long long)fault->address, fault->cpu, (unsigned long long)fault->rip, place);
}

void x86_describe_fault(const struct x86_fault *fault, char *text, size_t size)
{
	describe_fault(fault, DESCRIBE_REGION, text, size);
}
