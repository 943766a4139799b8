/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * paging.c - the kernel's own translations: image, direct map, stacks, devices, and the entries for windows.
 *
 * Owns the tables, which lie in boot frames, and x86_features.  Laws: nothing is both writable and executable; a hole
 * of the boot map is mapped nowhere but as a device; text and constants are read-only under both of their addresses.
 * The one exception to the first ends with paging_drop_identity(): processors that come up, and the first segments,
 * need the image's place where addresses are physical.
 *
 * Tables are made here while one CPU runs; later only protect.c changes any, and paging_set_window(), whose entries are
 * the machine's, one store each.
 */
#include "machines/x86_64/paging.h"

#include "machines/x86_64/cpu.h"

#define DIRECT_BYTES (64 * MF_TIB)

#define CR0_WP ((uint64_t)1 << 16)
#define CR4_LA57 ((uint64_t)1 << 12)
#define EFER_NXE ((uint64_t)1 << 11)

enum {
	CPUID_GLOBAL_BIT = 13, /* 1, edx           */
	CPUID_1GIB_BIT = 26,   /* 0x80000001, edx  */
	PADDR_BITS_DEFAULT = 36,
};

struct x86_features x86_features;

static uint64_t root;       /* physical */
static uint64_t kernel_top; /* physical: the table of all kernel addresses, the root or below its last entry */
static uint64_t identity_bytes;
static uintptr_t next_device = X86_DEVICES;

/* ---- The processor ----------------------------------------------------------------------------------------------- */

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static struct cpuid cpuid(uint32_t leaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(0));
	return r;
}

static void features_read(void)
{
	struct cpuid base = cpuid(0), family = cpuid(1), extended = cpuid(0x80000001);
	uint32_t vendor[3] = {base.ebx, base.edx, base.ecx};

	for (unsigned i = 0; i < sizeof(vendor); i++)
		x86_features.vendor[i] = (char)(vendor[i / 4] >> (i % 4 * 8));
	x86_features.levels = cpu_cr4() & CR4_LA57 ? 5 : 4;
	x86_features.has_global = family.edx >> CPUID_GLOBAL_BIT & 1;
	x86_features.has_1gib = extended.edx >> CPUID_1GIB_BIT & 1;
	x86_features.paddr_bits = PADDR_BITS_DEFAULT;
	if (cpuid(0x80000000).eax >= 0x80000008)
		x86_features.paddr_bits = cpuid(0x80000008).eax & 0xff;
}

void paging_enter_cpu(void)
{
	cpu_msr_set(CPU_MSR_EFER, cpu_msr(CPU_MSR_EFER) | EFER_NXE);
	__asm__ volatile("movq %0, %%cr0" : : "r"(cpu_cr0() | CR0_WP) : "memory");
	cpu_cr3_set(root);
	if (x86_features.has_global)
		cpu_cr4_set(cpu_cr4() | CPU_CR4_PGE);
}

uint64_t paging_root(void)
{
	return root;
}

/* ---- Walks ------------------------------------------------------------------------------------------------------- */

uint64_t *paging_walk(uintptr_t va, unsigned last, unsigned *level)
{
	uint64_t *entry = &entry_table(root)[entry_index(va, x86_features.levels - 1)];

	for (*level = x86_features.levels - 1; *level > last; entry = &entry_table(*entry)[entry_index(va, *level)]) {
		if (!(*entry & ENTRY_PRESENT) || entry_is_leaf(*entry, *level))
			break;
		--*level;
	}
	return entry;
}

uint64_t paging_entry(uintptr_t va, unsigned *level)
{
	unsigned unused_bits = 64 - (X86_PAGE_SHIFT + BITS_PER_LEVEL * x86_features.levels);

	*level = x86_features.levels - 1;
	if ((uintptr_t)((intptr_t)(va << unused_bits) >> unused_bits) != va)
		return 0;
	return __atomic_load_n(paging_walk(va, 0, level), __ATOMIC_ACQUIRE);
}

/* ---- Building ---------------------------------------------------------------------------------------------------- */

/* Where an entry of `level` for va stands, in tables that are made as needed. */
static uint64_t *entry_make(uintptr_t va, unsigned level)
{
	unsigned at;
	uint64_t *entry;

	while (entry = paging_walk(va, level, &at), at > level) {
		MF_PANIC_IF(*entry & ENTRY_PRESENT, "memfold: x86_64: 0x%llx is mapped twice.", (unsigned long long)va);
		*entry = boot_frames(0, BOOT_TABLES_BELOW) | ENTRY_TABLE;
	}
	return entry;
}

/* In the largest leaves, none above `top` and each within [paddr, paddr + size_bytes). */
static void map(uintptr_t va, uint64_t paddr, uint64_t size_bytes, uint64_t bits, unsigned top)
{
	while (size_bytes > 0) {
		unsigned level = top;

		while (level > 0 && ((va | paddr) % entry_span(level) != 0 || size_bytes < entry_span(level)))
			level--;
		*entry_make(va, level) = paddr | bits | (level ? ENTRY_BLOCK : 0);
		va += entry_span(level);
		paddr += entry_span(level);
		size_bytes -= entry_span(level);
	}
}

static void map_image_part(const char *start, const char *end, uint64_t bits)
{
	map((uintptr_t)start, (uintptr_t)start - X86_IMAGE, (uint64_t)(end - start), bits, 1);
}

/* ---- The direct map ---------------------------------------------------------------------------------------------- */

/* Memory without a hole, and of one protection. */
struct piece {
	uint64_t start, end;
	bool is_writable;
};

/* What of the boot map lies at `from`, or else next above it, up to where its range or its protection ends. */
static bool piece_from(uint64_t from, struct piece *piece)
{
	uint64_t constants_end = (uintptr_t)x86_rodata_end - X86_IMAGE;
	uint64_t limit = mf_min(DIRECT_BYTES, (uint64_t)1 << x86_features.paddr_bits);

	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *range = &boot_map.range[i];

		if (range->end <= from)
			continue;
		*piece = (struct piece){mf_max(from, range->start), mf_min(range->end, limit), true};
		if (range->kind == BOOT_FIRMWARE) {
			piece->is_writable = false;
		} else if (range->kind == BOOT_IMAGE && piece->start < constants_end) {
			piece->is_writable = false;
			piece->end = mf_min(piece->end, constants_end);
		}
		return piece->start < piece->end;
	}
	return false;
}

/* By address, not by number: the boot map changes whenever a table is taken from it, but not where memory is. */
static void map_direct(void)
{
	unsigned top = x86_features.has_1gib ? 2 : 1;
	struct piece piece, next;

	for (uint64_t at = 0; piece_from(at, &piece); at = piece.end) {
		while (piece_from(piece.end, &next) && next.start == piece.end && next.is_writable == piece.is_writable)
			piece.end = next.end;
		map(X86_DIRECT + piece.start, piece.start, piece.end - piece.start,
		    piece.is_writable ? ENTRY_WRITABLE : ENTRY_READ_ONLY, top);
	}
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

void paging_init(void)
{
	features_read();
	root = boot_frames(0, BOOT_TABLES_BELOW);
	kernel_top = root;
	if (x86_features.levels == 5) {
		kernel_top = boot_frames(0, BOOT_TABLES_BELOW);
		entry_table(root)[ENTRIES - 1] = kernel_top | ENTRY_TABLE;
	}
	map_image_part(x86_text_start, x86_text_end, ENTRY_READ_ONLY & ~ENTRY_NO_EXECUTE);
	map_image_part(x86_text_end, x86_rodata_end, ENTRY_READ_ONLY);
	map_image_part(x86_rodata_end, x86_image_end, ENTRY_WRITABLE);
	map_direct();
	identity_bytes = mf_round_up((uintptr_t)x86_image_end - X86_IMAGE, entry_span(1));
	map(0, 0, identity_bytes, ENTRY_TABLE, 1);
	paging_protect_init();
	paging_enter_cpu();
}

void paging_drop_identity(void)
{
	entry_table(root)[0] = 0;
	smp_flush(0, identity_bytes, MF_FLUSH_TABLES);
}

static void map_stack(uintptr_t top, unsigned order)
{
	uint64_t size_bytes = (uint64_t)X86_PAGE << order;

	map(top - size_bytes, boot_frames(order, 0), size_bytes, ENTRY_WRITABLE, 0);
}

uintptr_t paging_map_stack(unsigned cpu)
{
	uintptr_t start = X86_STACKS + (uintptr_t)cpu * X86_STACK_STRIDE, top = start + X86_STACK_STRIDE;
	unsigned level;

	if (paging_entry(top - X86_PAGE, &level) == 0) {
		for (uintptr_t at = X86_FAULT_STACK_STRIDE; at <= 4 * X86_FAULT_STACK_STRIDE;
		     at += X86_FAULT_STACK_STRIDE)
			map_stack(start + at, mf_log2(X86_FAULT_STACK_BYTES / X86_PAGE));
		map_stack(top, mf_log2(X86_STACK_BYTES / X86_PAGE));
	}
	return top;
}

void *paging_map_device(uint64_t paddr, uint64_t size_bytes)
{
	uint64_t start = mf_round_down(paddr, X86_PAGE), end = mf_round_up(paddr + size_bytes, X86_PAGE);
	uintptr_t at = next_device;

	map(at, start, end - start, ENTRY_WRITABLE | ENTRY_UNCACHED, 0);
	next_device = at + (end - start) + X86_PAGE;
	return (void *)(at + (paddr - start));
}

void paging_set_window(unsigned i, uint64_t table_paddr)
{
	uint64_t *entry = &entry_table(kernel_top)[entry_index(X86_WINDOWS, 3) + i];

	MF_PANIC_IF(i >= X86_NR_WINDOWS, "memfold: x86_64: window %u of %u.", i, X86_NR_WINDOWS);
	__atomic_store_n(entry, table_paddr ? table_paddr | ENTRY_TABLE : 0, __ATOMIC_RELEASE);
}
