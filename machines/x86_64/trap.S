/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trap.S - the entry points of all 256 vectors, and the one way in and out.
 *
 * Owns nothing.  Law: what trap_handle() is given is struct x86_frame, whatever the vector: where the processor pushes
 * no error code, a zero stands in its place.  No vector registers are saved, because nothing here is compiled to use
 * them; GS stays, because nobody here has another.
 */
#include "machines/x86_64/trap.h"

/* Vectors with an error code: 8, 10 to 14, 17, 21, 29, 30. */
#define HAS_ERROR_CODE 0x60227d00

	.text
	.balign TRAP_ENTRY_BYTES
	.globl trap_entries
trap_entries:
	.set vector, 0
	.rept TRAP_NR_VECTORS
	.balign TRAP_ENTRY_BYTES
	.if vector >= 32 || !(HAS_ERROR_CODE >> (vector & 31) & 1)
	pushq $0
	.endif
	pushq $vector
	jmp trap_common
	.set vector, vector + 1
	.endr

trap_common:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	call trap_handle
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

	.section .note.GNU-stack, "", @progbits
