/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trampoline.S - an application processor's way from its start-up interrupt, in real mode, to C.
 *
 * smp.c copies this text to X86_TRAMPOLINE and fills the data behind it: it is constants here, and runs only there.
 * The control registers are those of the first processor, its page tables too: these must still map X86_TRAMPOLINE at
 * its own address, executable, and stand below 4 GiB.  Nothing of the processor's former life matters after INIT.
 */
#include "machines/x86_64/trampoline.h"
#include "machines/x86_64/x86_64.h"

/* Where a label, or a field of the data, stands when this runs. */
#define PLACE(label) (X86_TRAMPOLINE + (label) - trampoline_start)
#define DATA(field) (X86_TRAMPOLINE + TRAMPOLINE_DATA + (field))

#define CR0_PE 0x1
#define MSR_EFER 0xc0000080

#define SELECTOR_CODE64 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_CODE32 0x18

	.section .rodata
	.balign 16
	.globl trampoline_start
trampoline_start:
	.code16
	cli
	cld
	xorl %eax, %eax
	movw %ax, %ds
	lgdtl PLACE(gdt_pointer)
	movl %cr0, %eax
	orl $CR0_PE, %eax
	movl %eax, %cr0
	ljmpl $SELECTOR_CODE32, $PLACE(protected_mode)

	.code32
protected_mode:
	movl $SELECTOR_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl DATA(TRAMPOLINE_CR4), %eax
	movl %eax, %cr4
	movl DATA(TRAMPOLINE_CR3), %eax
	movl %eax, %cr3
	movl $MSR_EFER, %ecx
	movl DATA(TRAMPOLINE_EFER), %eax
	xorl %edx, %edx
	wrmsr
	movl DATA(TRAMPOLINE_CR0), %eax /* paging: long mode from here */
	movl %eax, %cr0
	ljmpl $SELECTOR_CODE64, $PLACE(long_mode)

	.code64
long_mode:
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movq DATA(TRAMPOLINE_STACK), %rsp
	movq DATA(TRAMPOLINE_ENTRY), %rax
	movl DATA(TRAMPOLINE_CPU), %edi
	xorl %ebp, %ebp
	call *%rax
	ud2

	/* Accessed already: a processor that loads one of these writes nothing here. */
	.balign 8
gdt:
	.quad 0
	.quad 0x00209b0000000000 /* 64-bit code */
	.quad 0x00cf93000000ffff /* data        */
	.quad 0x00cf9b000000ffff /* 32-bit code */
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long PLACE(gdt)
	.globl trampoline_end
trampoline_end:

	.section .note.GNU-stack, "", @progbits
