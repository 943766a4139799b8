/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trap.h - what trap.S, trap.c, gdt.c and describe.c know of each other.  Owns nothing.
 */
#ifndef MEMFOLD_MACHINES_X86_64_TRAP_H
#define MEMFOLD_MACHINES_X86_64_TRAP_H

#include "machines/x86_64/x86_64.h"

/* Stacks of a CPU for faults, as the TSS and the IDT number them (IST): 0 is whatever stack it is on. */
#define TRAP_STACK_DOUBLE_FAULT 1
#define TRAP_STACK_PAGE_FAULT 2
#define TRAP_STACK_NMI 3
#define TRAP_STACK_MACHINE_CHECK 4
#define TRAP_NR_STACKS 4

/* Bytes from one entry point of trap.S to the next. */
#define TRAP_ENTRY_BYTES 16
#define TRAP_NR_VECTORS 256

#ifndef __ASSEMBLER__

enum {
	TRAP_DEBUG = 1,
	TRAP_NMI = 2,
	TRAP_DOUBLE_FAULT = 8,
	TRAP_PROTECTION = 13,
	TRAP_PAGE_FAULT = 14,
	TRAP_MACHINE_CHECK = 18,
	TRAP_FIRST_INTERRUPT = 32,
};

enum {
	TRAP_ERROR_PRESENT = 1 << 0,
	TRAP_ERROR_WRITE = 1 << 1,
	TRAP_ERROR_RESERVED = 1 << 3,
	TRAP_ERROR_FETCH = 1 << 4,
};

/* The IDT, on the CPU that runs it. */
void trap_load(void);

/* What a description may ask of the map: nothing, what never changes (its geometry), all (takes locks). */
enum describe_detail { DESCRIBE_NOTHING, DESCRIBE_TIER, DESCRIBE_REGION };

void describe_fault(const struct x86_fault *fault, enum describe_detail detail, char *text, size_t size);

#endif
#endif
