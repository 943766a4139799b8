/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * paging.c - the constants of the page-table formats we know.
 *
 * Owns nothing.  Law: what is here is what the processor manuals say; whatever a processor would write by itself
 * (Accessed, Dirty) is preset, so that it never writes a shared table.  Does not read any processor state.
 *
 *   x86-64 (Intel SDM vol. 3, 4.5)          63  62..59  58..52  51..12   8  7      6  5  1  0
 *                                           NX  keys    soft    address  G  PS     D  A  W  P
 *   arm64, stage 1 (Arm ARM, D8.3)          58..55  54   53   47..12   10  9..8  7      4..2  1..0
 *                                           soft    UXN  PXN  address  AF  SH    AP[2]  attr  type
 */
#include <memfold/machine.h>

#define BIT(n)            ((uint64_t)1 << (n))
#define BITS(first, last) ((~(uint64_t)0 >> (63 - (last))) & ~(BIT(first) - 1))

enum { X86_PRESENT = 0, X86_WRITE = 1, X86_ACCESSED = 5, X86_DIRTY = 6, X86_PS = 7, X86_GLOBAL = 8, X86_NX = 63 };
enum { ARM64_VALID = 0, ARM64_TABLE = 1, ARM64_READ_ONLY = 7, ARM64_SHARED = 8, ARM64_AF = 10 };
enum { ARM64_PXN = 53, ARM64_UXN = 54 };

static unsigned highest_leaf(unsigned format_allows, unsigned levels)
{
	return format_allows < levels - 2 ? format_allows : levels - 2;
}

/*
 * Dirty goes with Write: a leaf that is Dirty and not writable would be a shadow-stack page where CET is on.  Needs
 * EFER.NXE; the leaves are global, so a flush has to use an instruction that drops global translations.
 */
struct mf_paging mf_paging_x86_64(unsigned levels)
{
	MF_PANIC_IF(levels < 2 || levels > MF_PGTABLE_LEVELS_MAX, "memfold: page tables of %u levels.", levels);
	return (struct mf_paging){
		.page_shift = 12,
		.levels = levels,
		.max_leaf_level = highest_leaf(2, levels),
		.address_mask = BITS(12, 51),
		.present_mask = BIT(X86_PRESENT),
		.table_bits = BIT(X86_PRESENT) | BIT(X86_WRITE) | BIT(X86_ACCESSED),
		.leaf_bits = BIT(X86_PRESENT) | BIT(X86_ACCESSED) | BIT(X86_GLOBAL) | BIT(X86_NX),
		.leaf_base_bits = 0,
		.leaf_block_bits = BIT(X86_PS),
		.block_mask = BIT(X86_PS),
		.block_value = BIT(X86_PS),
		.write_set = BIT(X86_WRITE) | BIT(X86_DIRTY),
		.write_clear = 0,
		.write_mask = BIT(X86_WRITE) | BIT(X86_DIRTY),
		.soft_shift = 52,
		.soft_bits = 7,
	};
}

/*
 * Inner shareable, memory type of MAIR index 0, which the machine makes Normal write-back.  Bits 58..55 are software's
 * in leaves and ignored in table entries.  48-bit physical addresses (no LPA, no LPA2).
 */
struct mf_paging mf_paging_arm64(unsigned page_shift, unsigned levels)
{
	MF_PANIC_IF(page_shift != 12 && page_shift != 14 && page_shift != 16,
		    "memfold: arm64 has no granule of 2^%u bytes.", page_shift);
	MF_PANIC_IF(levels < 2 || levels > MF_PGTABLE_LEVELS_MAX, "memfold: page tables of %u levels.", levels);
	return (struct mf_paging){
		.page_shift = page_shift,
		.levels = levels,
		.max_leaf_level = highest_leaf(page_shift == 12 ? 2 : 1, levels),
		.address_mask = BITS(page_shift, 47),
		.present_mask = BIT(ARM64_VALID),
		.table_bits = BIT(ARM64_VALID) | BIT(ARM64_TABLE),
		.leaf_bits = BIT(ARM64_AF) | (uint64_t)3 << ARM64_SHARED | BIT(ARM64_PXN) | BIT(ARM64_UXN),
		.leaf_base_bits = BIT(ARM64_VALID) | BIT(ARM64_TABLE),
		.leaf_block_bits = BIT(ARM64_VALID),
		.block_mask = BIT(ARM64_VALID) | BIT(ARM64_TABLE),
		.block_value = BIT(ARM64_VALID),
		.write_set = 0,
		.write_clear = BIT(ARM64_READ_ONLY),
		.write_mask = BIT(ARM64_READ_ONLY),
		.soft_shift = 55,
		.soft_bits = 4,
	};
}
