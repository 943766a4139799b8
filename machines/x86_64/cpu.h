/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cpu.h - single instructions of the processor that C cannot say: control registers, interrupts on and off, time.
 *
 * Owns nothing.  Ports: port.h.
 */
#ifndef MEMFOLD_MACHINES_X86_64_CPU_H
#define MEMFOLD_MACHINES_X86_64_CPU_H

#include <memfold/base.h>

enum {
	CPU_MSR_APIC_BASE = 0x1b,
};

#define CPU_MSR_EFER 0xc0000080u
#define CPU_MSR_GS_BASE 0xc0000101u

#define CPU_EFER_LMA ((uint64_t)1 << 10)
#define CPU_CR4_PGE ((uint64_t)1 << 7)
#define CPU_CR4_PCIDE ((uint64_t)1 << 17)
#define CPU_RFLAGS_IF ((uint64_t)1 << 9)

static inline uint64_t cpu_msr(uint32_t number)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void cpu_msr_set(uint32_t number, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t cpu_cr0(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr0, %0" : "=r"(value) : : "memory");
	return value;
}

static inline uint64_t cpu_cr3(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr3, %0" : "=r"(value) : : "memory");
	return value;
}

static inline void cpu_cr3_set(uint64_t value)
{
	__asm__ volatile("movq %0, %%cr3" : : "r"(value) : "memory");
}

static inline uint64_t cpu_cr4(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr4, %0" : "=r"(value) : : "memory");
	return value;
}

static inline void cpu_cr4_set(uint64_t value)
{
	__asm__ volatile("movq %0, %%cr4" : : "r"(value) : "memory");
}

/* Drops one translation, and on this CPU every cached inner entry of the current address space. */
static inline void cpu_invalidate(uintptr_t address)
{
	__asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* In a loop that waits for another CPU. */
static inline void cpu_pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline void cpu_interrupts_on(void)
{
	__asm__ volatile("sti" : : : "memory");
}

static inline uint64_t cpu_flags(void)
{
	uint64_t flags;

	__asm__ volatile("pushfq; popq %0" : "=r"(flags) : : "memory");
	return flags;
}

/* Off, and what they were. */
static inline uint64_t cpu_interrupts_off(void)
{
	uint64_t flags = cpu_flags();

	__asm__ volatile("cli" : : : "memory");
	return flags;
}

static inline void cpu_interrupts_restore(uint64_t flags)
{
	if (flags & CPU_RFLAGS_IF)
		cpu_interrupts_on();
}

/*
 * Sleeps until an interrupt.  Call it with interrupts off: they go on with the hlt and not an instruction earlier, so
 * that what was looked at before it cannot change unnoticed.
 */
static inline void cpu_sleep(void)
{
	__asm__ volatile("sti; hlt" : : : "memory");
}

static inline uint64_t cpu_ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

#endif
