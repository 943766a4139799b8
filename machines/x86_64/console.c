/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * console.c - what the port says, on COM1, and how it ends.
 *
 * Owns the serial port and the lock of it.  Law: works on any CPU at any time, before the CPU knows its number and
 * inside a fault that hit the console itself: so the lock's holder is known by its APIC, and may take it again.
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/port.h"

enum {
	COM1 = 0x3f8,
	COM_DATA = COM1,
	COM_INTERRUPTS = COM1 + 1,
	COM_FIFO = COM1 + 2,
	COM_LINE = COM1 + 3,
	COM_MODEM = COM1 + 4,
	COM_STATUS = COM1 + 5,

	LINE_8N1 = 0x03,
	LINE_DIVISOR = 0x80,
	FIFO_ON_AND_CLEAR = 0x07,
	MODEM_READY = 0x03,
	STATUS_EMPTY = 0x20,
	FIFO_BYTES = 16,

	EXIT_PORT = 0xf4,
	TEXT_MAX = 512,
	NOBODY = 0,
};

static unsigned holder; /* atomic; NOBODY, or 1 + number of the APIC */
static unsigned depth;  /* of the holder                             */

/* ---- The lock -------------------------------------------------------------------------------------------------- */

/* The processor itself tells, before any register or table of ours is set up. */
static unsigned holder_here(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return 1 + (ebx >> 24);
}

static void console_lock(void)
{
	unsigned here = holder_here(), nobody;

	if (__atomic_load_n(&holder, __ATOMIC_RELAXED) != here)
		for (nobody = NOBODY; !__atomic_compare_exchange_n(&holder, &nobody, here, false, __ATOMIC_ACQUIRE,
								   __ATOMIC_RELAXED); nobody = NOBODY)
			__builtin_ia32_pause();
	depth++;
}

static void console_unlock(void)
{
	if (--depth == 0)
		__atomic_store_n(&holder, NOBODY, __ATOMIC_RELEASE);
}

/* ---- Text ------------------------------------------------------------------------------------------------------ */

void console_init(void)
{
	port_write8(COM_INTERRUPTS, 0);
	port_write8(COM_LINE, LINE_DIVISOR);
	port_write8(COM_DATA, 1); /* 115,200 baud */
	port_write8(COM_INTERRUPTS, 0);
	port_write8(COM_LINE, LINE_8N1);
	port_write8(COM_FIFO, FIFO_ON_AND_CLEAR);
	port_write8(COM_MODEM, MODEM_READY);
}

/* As many bytes as the port holds for each look at it: under an emulator every look costs. */
void console_write(const char *text)
{
	console_lock();
	while (*text != '\0') {
		while (!(port_read8(COM_STATUS) & STATUS_EMPTY))
			__builtin_ia32_pause();
		for (unsigned i = 0; i < FIFO_BYTES && *text != '\0'; i++)
			port_write8(COM_DATA, (uint8_t)*text++);
	}
	console_unlock();
}

void console_print(const char *format, ...)
{
	char text[TEXT_MAX];
	va_list args;

	va_start(args, format);
	(void)mf_vformat(text, sizeof(text), format, args);
	va_end(args);
	console_write(text);
}

void x86_exit(unsigned code)
{
	port_write32(EXIT_PORT, X86_EXIT_BASE + code);
	for (;;)
		__asm__ volatile("cli; hlt");
}
