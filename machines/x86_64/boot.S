/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * boot.S - from the loader's jump in 32 bits to boot() in 64 bits, at the image's own addresses.
 *
 * Owns the first page tables, the first segments and the first stack, all in the image.  The tables map the first 4 GiB
 * twice, at their own addresses and from X86_DIRECT, and the image's 1 GiB from X86_IMAGE, everything writable and
 * executable: paging_init() replaces them before anything relies on protection.  On a processor that lacks what the
 * port needs: a sentence on COM1 and exit code 1, since nothing else works there yet.
 *
 *   from the loader (PVH): 32 bits, no paging, flat segments, no stack, %ebx = physical address of hvm_start_info
 */
#include "machines/x86_64/x86_64.h"

/* Where a symbol stands while addresses are physical. */
#define PHYSICAL(symbol) ((symbol) - X86_IMAGE)

#define COM1 0x3f8
#define LINE_STATUS 5
#define TRANSMIT_EMPTY 0x20
#define EXIT_PORT 0xf4

#define CR0_PE 0x1
#define CR0_WP 0x10000
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define CR4_LA57 0x1000
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define EFER_NXE 0x800

#define CPUID_LONG_MODE 0x20000000  /* 0x80000001, edx */
#define CPUID_NO_EXECUTE 0x00100000 /* 0x80000001, edx */
#define CPUID_APIC 0x200            /* 1, edx          */
#define CPUID_LA57 0x10000          /* 7, ecx          */

#define TABLE 0x3  /* present, writable            */
#define BLOCK 0x83 /* and a leaf of 2 MiB          */
#define ENTRIES 512
#define LOW_TABLES 4 /* 4 GiB in leaves of 2 MiB   */

/* Where loaders look for the way in: type 18, "Xen", the physical address of 32-bit code. */
	.section .note.pvh, "a", @note
	.align 4
	.long 4, 8, 18
	.asciz "Xen"
	.quad PHYSICAL(x86_entry)

/* ---- 32 bits --------------------------------------------------------------------------------------------------- */

	.text
	.code32
	.globl x86_entry
x86_entry:
	cli
	cld
	movl %ebx, %ebp
	movl $PHYSICAL(x86_bss_start), %edi
	movl $PHYSICAL(x86_image_end), %ecx
	subl %edi, %ecx
	shrl $2, %ecx
	xorl %eax, %eax
	rep stosl

	movl $0x80000000, %eax
	cpuid
	movl $PHYSICAL(lacks_long_mode), %esi
	cmpl $0x80000001, %eax
	jb refuse
	movl $0x80000001, %eax
	cpuid
	testl $CPUID_LONG_MODE, %edx
	jz refuse
	movl $PHYSICAL(lacks_no_execute), %esi
	testl $CPUID_NO_EXECUTE, %edx
	jz refuse
	movl $1, %eax
	cpuid
	movl $PHYSICAL(lacks_apic), %esi
	testl $CPUID_APIC, %edx
	jz refuse

	/* The first 4 GiB in leaves. */
	movl $PHYSICAL(low_leaves), %edi
	movl $BLOCK, %eax
	movl $(LOW_TABLES * ENTRIES), %ecx
1:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 1b
	movl $(PHYSICAL(low_leaves) + TABLE), %eax
	movl $PHYSICAL(low_table), %edi
	movl $LOW_TABLES, %ecx
1:	movl %eax, (%edi)
	addl $0x1000, %eax
	addl $8, %edi
	loop 1b
	movl $(PHYSICAL(low_leaves) + TABLE), (PHYSICAL(image_table) + 8 * (X86_IMAGE >> 30 & 511))
	movl $(PHYSICAL(low_table) + TABLE), PHYSICAL(top_table)
	movl $(PHYSICAL(low_table) + TABLE), (PHYSICAL(top_table) + 8 * (X86_DIRECT >> 39 & 511))
	movl $(PHYSICAL(image_table) + TABLE), (PHYSICAL(top_table) + 8 * (X86_IMAGE >> 39 & 511))
	movl $PHYSICAL(top_table), %edi
	movl $CR4_PAE, %esi

	/* A table more where the processor has five levels: kernel addresses of 48 bits all lie below its last entry. */
	xorl %eax, %eax
	cpuid
	cmpl $7, %eax
	jb 1f
	movl $7, %eax
	xorl %ecx, %ecx
	cpuid
	testl $CPUID_LA57, %ecx
	jz 1f
	movl $(PHYSICAL(top_table) + TABLE), PHYSICAL(fifth_table)
	movl $(PHYSICAL(top_table) + TABLE), (PHYSICAL(fifth_table) + 8 * 511)
	movl $PHYSICAL(fifth_table), %edi
	orl $CR4_LA57, %esi
1:
	movl %edi, %cr3
	movl %esi, %cr4
	movl $MSR_EFER, %ecx
	rdmsr
	orl $(EFER_LME | EFER_NXE), %eax
	wrmsr
	movl $(CR0_PG | CR0_WP | 0x33), %eax /* 0x33: protected mode, MP, ET, NE */
	movl %eax, %cr0
	lgdt PHYSICAL(first_gdt_pointer)
	ljmp $X86_CODE_SELECTOR, $PHYSICAL(long_mode)

/* %esi: physical address of a sentence.  Nobody is there to be told but the serial line. */
refuse:
	movb (%esi), %cl
	testb %cl, %cl
	jz 2f
	movw $(COM1 + LINE_STATUS), %dx
1:	inb %dx, %al
	testb $TRANSMIT_EMPTY, %al
	jz 1b
	movw $COM1, %dx
	movb %cl, %al
	outb %al, %dx
	incl %esi
	jmp refuse
2:	movl $(X86_EXIT_BASE + 1), %eax
	movw $EXIT_PORT, %dx
	outl %eax, %dx
3:	hlt
	jmp 3b

/* ---- 64 bits --------------------------------------------------------------------------------------------------- */

	.code64
long_mode:
	movabsq $1f, %rax
	jmp *%rax
1:	movl $X86_DATA_SELECTOR, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	/* Again, at an address that outlives the identity map. */
	lgdt first_gdt_pointer_high
	movq $first_stack_top, %rsp
	movl %ebp, %edi
	xorl %ebp, %ebp
	call boot
	ud2

/* void boot_on_stack(uintptr_t top, void (*rest)(void)): rest() runs on another stack and does not return. */
	.globl boot_on_stack
boot_on_stack:
	movq %rdi, %rsp
	xorl %ebp, %ebp
	call *%rsi
	ud2

/* ---- Constants and room ---------------------------------------------------------------------------------------- */

	.section .rodata
lacks_long_mode:
	.asciz "memfold: this processor has no long mode (64 bits), which the port needs.\n"
lacks_no_execute:
	.asciz "memfold: this processor has no no-execute bit (NX), which the port needs.\n"
lacks_apic:
	.asciz "memfold: this processor has no local APIC, which the port needs.\n"

	.align 8
first_gdt:
	.quad 0
	.quad 0x00209b0000000000 /* X86_CODE_SELECTOR: 64-bit code, accessed, so that nothing is written here */
	.quad 0x0000930000000000 /* X86_DATA_SELECTOR: data, writable, accessed                                */
first_gdt_end:
first_gdt_pointer:
	.word first_gdt_end - first_gdt - 1
	.long PHYSICAL(first_gdt)
first_gdt_pointer_high:
	.word first_gdt_end - first_gdt - 1
	.quad first_gdt

	.bss
	.align 4096
fifth_table:
	.skip 4096
top_table:
	.skip 4096
low_table:
	.skip 4096
image_table:
	.skip 4096
low_leaves:
	.skip 4096 * LOW_TABLES
	.skip 16384
first_stack_top:

	.section .note.GNU-stack, "", @progbits
