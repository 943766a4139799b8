/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clock.c - microseconds in ticks of the time stamp counter, for the waits that starting a processor takes.
 *
 * Owns the counter's frequency.  It is measured against channel 0 of the interval timer, whose interrupt stays masked.
 * Where that does not go, the highest frequency that a processor is likely to have is taken: waits are too long then,
 * never too short.  Under an emulator that counts instructions both clocks are made of them: this holds there, too.
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/cpu.h"
#include "machines/x86_64/port.h"

enum {
	PIT_CHANNEL0 = 0x40,
	PIT_COMMAND = 0x43,
	PIT_LATCH0 = 0x00,
	PIT_RATE0 = 0x34,      /* channel 0, low byte then high byte, counts down from 65536 again and again */
	PIT_HERTZ = 1193182,

	MEASURE_MICROSECONDS = 2000,
	MEASURE_PIT_TICKS = PIT_HERTZ / (1000000 / MEASURE_MICROSECONDS),
	FASTEST_MHZ = 6000,
};

static uint64_t ticks_per_microsecond; /* 0: not measured yet */

static uint16_t pit_read(void)
{
	unsigned low;

	port_write8(PIT_COMMAND, PIT_LATCH0);
	low = port_read8(PIT_CHANNEL0);
	return (uint16_t)(low | (unsigned)port_read8(PIT_CHANNEL0) << 8);
}

/* Ticks in a microsecond, or FASTEST_MHZ where the timer does not go. */
static uint64_t measure(void)
{
	uint64_t start, ticks, give_up = (uint64_t)FASTEST_MHZ * MEASURE_MICROSECONDS * 2;
	unsigned passed;
	uint16_t first;

	port_write8(PIT_COMMAND, PIT_RATE0);
	port_write8(PIT_CHANNEL0, 0);
	port_write8(PIT_CHANNEL0, 0);
	start = cpu_ticks(); /* first: what comes between makes waits longer, not shorter */
	first = pit_read();
	do {
		cpu_pause();
		passed = (uint16_t)(first - pit_read());
		ticks = cpu_ticks() - start;
		if (ticks > give_up)
			return FASTEST_MHZ;
	} while (passed < MEASURE_PIT_TICKS);
	return mf_max(ticks / MEASURE_MICROSECONDS, 1);
}

uint64_t clock_ticks(uint64_t microseconds)
{
	if (!ticks_per_microsecond)
		ticks_per_microsecond = measure();
	return ticks_per_microsecond * microseconds;
}

void clock_wait(uint64_t microseconds)
{
	uint64_t ticks = clock_ticks(microseconds), start = cpu_ticks();

	while (cpu_ticks() - start < ticks)
		cpu_pause();
}
