/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * measure.c - reads /proc/self/smaps, /proc/self/status and the limits of the process.
 *
 * Of windows that are private anonymous memory, what smaps calls resident is what the map costs.  What is shared is not
 * counted here: each alias is resident, too, and they all show one page.
 */
#include "cli/measure.h"
#include <inttypes.h>
#include <memfold/base.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { LINE_BYTES = 512 };

/* "from-to rwxp ...": the first line of a mapping.  What follows it begins with a name. */
static int is_mapping(const char *line, uint64_t *low, uint64_t *high, int *is_private)
{
	char may[8];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", low, high, may) != 3)
		return 0;
	*is_private = strchr(may, 'p') != NULL;
	return 1;
}

uint64_t measure_private(const void *start, uint64_t size_bytes)
{
	uint64_t from = (uint64_t)(uintptr_t)start, kib = 0, total = 0, low, high;
	FILE *f = fopen("/proc/self/smaps", "re");
	int inside = 0, is_private;
	char line[LINE_BYTES];

	while (f && fgets(line, sizeof(line), f)) {
		if (is_mapping(line, &low, &high, &is_private))
			inside = is_private && low >= from && high <= from + size_bytes;
		else if (inside && sscanf(line, "Rss: %" SCNu64 " kB", &kib) == 1)
			total += kib << 10;
	}
	if (f)
		fclose(f);
	return total;
}

/* A line "Name:  N kB" of /proc/self/status, in bytes. */
static uint64_t status_bytes(const char *name)
{
	FILE *f = fopen("/proc/self/status", "re");
	size_t length = strlen(name);
	char line[LINE_BYTES];
	uint64_t kib = 0;

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, length) == 0 && sscanf(line + length, ": %" SCNu64 " kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

uint64_t measure_page_tables(void)
{
	return status_bytes("VmPTE");
}

/* The stack lies at the upper end of what a process has. */
uint64_t measure_addresses(void)
{
	uint64_t used = status_bytes("VmSize"), have;
	struct rlimit limit;

	have = (uint64_t)2 << mf_log2((uintptr_t)&limit);
	if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		have = mf_min(have, limit.rlim_cur);
	return have - mf_min(used, have);
}

uint64_t measure_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
