/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * measure.c - reads /proc/self/smaps and /proc/self/status.
 *
 * The windows are private anonymous memory, so what smaps calls resident there is what the map costs.  Other backings
 * would need another measure: smaps rounds shared aliases away.
 */
#include "cli/measure.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 512 };

uint64_t measure_resident(const void *start, uint64_t size_bytes)
{
	uint64_t from = (uint64_t)(uintptr_t)start, kib = 0, total = 0, low, high;
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[LINE_BYTES];
	int inside = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &low, &high) == 2)
			inside = low >= from && high <= from + size_bytes;
		else if (inside && sscanf(line, "Rss: %" SCNu64 " kB", &kib) == 1)
			total += kib << 10;
	}
	if (f)
		fclose(f);
	return total;
}

uint64_t measure_page_tables(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[LINE_BYTES];
	uint64_t kib = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPTE: %" SCNu64 " kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

uint64_t measure_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
