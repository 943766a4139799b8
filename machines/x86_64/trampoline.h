/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trampoline.h - what smp.c tells trampoline.S, which runs at X86_TRAMPOLINE in real mode first.
 *
 * Layout of the two pages: code, then at TRAMPOLINE_DATA the struct below.  One processor at a time.
 */
#ifndef MEMFOLD_MACHINES_X86_64_TRAMPOLINE_H
#define MEMFOLD_MACHINES_X86_64_TRAMPOLINE_H

#define TRAMPOLINE_DATA 0x1000

#define TRAMPOLINE_CR0 0
#define TRAMPOLINE_CR3 4
#define TRAMPOLINE_CR4 8
#define TRAMPOLINE_EFER 12
#define TRAMPOLINE_STACK 16
#define TRAMPOLINE_ENTRY 24
#define TRAMPOLINE_CPU 32

#ifndef __ASSEMBLER__

#include <memfold/base.h>

struct trampoline {
	uint32_t cr0, cr3, cr4, efer;
	uint64_t stack_top;
	void (*entry)(unsigned cpu); /* does not return */
	unsigned cpu;
};

MF_BUILD_ASSERT(offsetof(struct trampoline, cr0) == TRAMPOLINE_CR0, "as trampoline.S reads it");
MF_BUILD_ASSERT(offsetof(struct trampoline, cr3) == TRAMPOLINE_CR3, "as trampoline.S reads it");
MF_BUILD_ASSERT(offsetof(struct trampoline, cr4) == TRAMPOLINE_CR4, "as trampoline.S reads it");
MF_BUILD_ASSERT(offsetof(struct trampoline, efer) == TRAMPOLINE_EFER, "as trampoline.S reads it");
MF_BUILD_ASSERT(offsetof(struct trampoline, stack_top) == TRAMPOLINE_STACK, "as trampoline.S reads it");
MF_BUILD_ASSERT(offsetof(struct trampoline, entry) == TRAMPOLINE_ENTRY, "as trampoline.S reads it");
MF_BUILD_ASSERT(offsetof(struct trampoline, cpu) == TRAMPOLINE_CPU, "as trampoline.S reads it");

extern const char trampoline_start[], trampoline_end[];

#endif
#endif
