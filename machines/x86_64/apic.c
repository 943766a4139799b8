/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * apic.c - the local interrupt controller of each processor, through its page of registers.
 *
 * Owns the mapping of that page.  Interrupts come from other processors only: the old controllers are masked, the
 * timer and the error interrupt too.  A controller that firmware has switched to the mode without registers in memory
 * (x2APIC) is refused in a sentence.
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/cpu.h"
#include "machines/x86_64/port.h"

enum {
	REG_ID = 0x20,
	REG_TASK_PRIORITY = 0x80,
	REG_END_OF_INTERRUPT = 0xb0,
	REG_SPURIOUS = 0xf0,
	REG_ERROR_STATUS = 0x280,
	REG_COMMAND = 0x300,
	REG_COMMAND_TARGET = 0x310,
	REG_LOCAL_TIMER = 0x320,
	REG_LOCAL_INT0 = 0x350,
	REG_LOCAL_ERROR = 0x370,

	ID_SHIFT = 24,
	SPURIOUS_ENABLED = 0x100,
	LOCAL_MASKED = 0x10000,

	COMMAND_FIXED = 0x0000,
	COMMAND_INIT = 0x0500,
	COMMAND_STARTUP = 0x0600,
	COMMAND_IS_PENDING = 0x1000,
	COMMAND_ASSERT = 0x4000,

	BASE_IS_X2APIC = 1 << 10,
	BASE_IS_ENABLED = 1 << 11,

	OLD_MASTER_MASK = 0x21,
	OLD_SLAVE_MASK = 0xa1,
	OLD_ALL = 0xff,
};

static volatile uint32_t *registers;

static uint32_t apic_read(unsigned reg)
{
	return registers[reg / 4];
}

static void apic_write(unsigned reg, uint32_t value)
{
	registers[reg / 4] = value;
}

void apic_init(uint64_t local_apic_paddr)
{
	port_write8(OLD_MASTER_MASK, OLD_ALL);
	port_write8(OLD_SLAVE_MASK, OLD_ALL);
	registers = paging_map_device(local_apic_paddr, X86_PAGE);
}

void apic_init_cpu(void)
{
	uint64_t base = cpu_msr(CPU_MSR_APIC_BASE);

	MF_PANIC_IF(base & BASE_IS_X2APIC,
		    "memfold: x86_64: firmware left the local APIC in x2APIC mode, which the port lacks.");
	if (!(base & BASE_IS_ENABLED))
		cpu_msr_set(CPU_MSR_APIC_BASE, base | BASE_IS_ENABLED);
	apic_write(REG_TASK_PRIORITY, 0);
	apic_write(REG_SPURIOUS, SPURIOUS_ENABLED | X86_VECTOR_SPURIOUS);
	apic_write(REG_LOCAL_TIMER, LOCAL_MASKED);
	apic_write(REG_LOCAL_INT0, LOCAL_MASKED);
	apic_write(REG_LOCAL_ERROR, LOCAL_MASKED);
	apic_write(REG_ERROR_STATUS, 0);
}

uint32_t apic_id(void)
{
	return apic_read(REG_ID) >> ID_SHIFT;
}

void apic_end_of_interrupt(void)
{
	apic_write(REG_END_OF_INTERRUPT, 0);
}

/* The target and the command are two registers: no interrupt that sends may come between. */
static void apic_command(uint32_t id, uint32_t command)
{
	uint64_t flags = cpu_interrupts_off();

	while (apic_read(REG_COMMAND) & COMMAND_IS_PENDING)
		cpu_pause();
	apic_write(REG_COMMAND_TARGET, id << ID_SHIFT);
	apic_write(REG_COMMAND, command | COMMAND_ASSERT);
	cpu_interrupts_restore(flags);
}

void apic_send(uint32_t id, unsigned vector)
{
	apic_command(id, COMMAND_FIXED | vector);
}

void apic_send_init(uint32_t id)
{
	apic_command(id, COMMAND_INIT);
}

void apic_send_startup(uint32_t id, unsigned page)
{
	apic_command(id, COMMAND_STARTUP | page);
}
