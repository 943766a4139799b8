/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_hosted.c - the race in a process: on each kind of machine.
 *
 * MF_SOAK makes it 20 times as many operations.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/race/race_where.h"
#include "tests/tap.h"

#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif
#ifndef WITH_TSAN
#define WITH_TSAN 0
#endif

/* On page tables the first touch of a slot after a flush is a signal: that takes longer. */
enum { OPS = WITH_TSAN ? 20000 : 40000, OPS_TABLES = 10000 };

uint64_t race_usual_ops(enum slow_kind kind)
{
	uint64_t nr = kind == SLOW_TABLES ? OPS_TABLES : OPS;

	return getenv("MF_SOAK") ? 20 * nr : nr;
}

/* Pages of the windows that are really there: what a compare-and-swap on an unbacked slot would add to. */
static uint64_t resident_kib(void)
{
	const struct mf_geometry *g = mf_map_geometry(race.map);
	uintptr_t base = g->window[0], last = (uintptr_t)mf_geometry_descriptor(g, g->top, SPAN - 1);
	unsigned long start = 0, end = 0, kib;
	uint64_t sum = 0;
	char line[256];
	FILE *file = fopen("/proc/self/smaps", "re");

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2)
			start = a, end = b;
		else if (start <= last && base < end && sscanf(line, "Anonymous: %lu kB", &kib) == 1)
			sum += kib;
	}
	if (file)
		fclose(file);
	return sum;
}

uint64_t race_size(void)
{
	return race.slow.kind == SLOW_TABLES ? race_frames_of_map() : resident_kib();
}

TAP_TEST(race_of_threads_that_are_cpus)
{
	race_on(SLOW_THREADS, race_there_and_back);
}

TAP_TEST(race_of_threads_that_are_pinned)
{
	race_on(SLOW_PINNED, race_there_and_back);
}

TAP_TEST(race_on_page_tables)
{
	race_on(SLOW_TABLES, race_there_and_back);
}

TAP_TEST(race_of_sets_on_page_tables)
{
	race_on(SLOW_TABLES, race_without_edges);
}

/* R-HVO-77, R-SCN-17 */
TAP_TEST(race_of_diets_on_the_host)
{
	race_on(SLOW_THREADS, race_with_diets);
}

/* R-HVO-77, R-SCN-16, R-SCN-17 */
TAP_TEST(race_of_diets_on_page_tables)
{
	race_on(SLOW_TABLES, race_with_diets);
}
