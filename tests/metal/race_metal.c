/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_metal.c - the race on bare metal: on the processors that this boot has, at least two.
 *
 * Every write to a slot that is read-only just then, or not there, is a fault of a processor, and ends the machine.
 * How much is enough for all of it: MF_SOAK in the command line asks for more, and MF_OPS must say more then.
 */
#include "machines/x86_64/x86_64.h"
#include "tests/race/race_where.h"
#include "tests/tap.h"

#include <stdlib.h>

/* With the one that waits for the others. */
enum { NR_THREADS_MAX = 15, NR_THREADS_MIN = 3 };

/* With it the three races together make more than the least. */
enum { OPS = 12000 };

static const struct {
	uint64_t nr_operations, nr_folds;
} least = { 200000, 2000 }, least_in_soak = { 10000000, 100000 };

uint64_t race_usual_ops(enum slow_kind kind)
{
	(void)kind;
	return OPS;
}

/* The map's own count, and the machine's. */
uint64_t race_size(void)
{
	struct x86_machine_stats stats;

	x86_machine_stats(race.slow.inner, &stats);
	return race_frames_of_map() + stats.nr_ram_used;
}

TAP_TEST(race_on_processors)
{
	race_on(SLOW_TABLES, race_there_and_back);
}

TAP_TEST(race_of_sets_on_processors)
{
	race_on(SLOW_TABLES, race_without_edges);
}

/* R-HVO-77, R-SCN-16, R-SCN-17 */
TAP_TEST(race_of_diets_on_processors)
{
	race_on(SLOW_TABLES, race_with_diets);
}

/* As the port is used: a thread is a CPU, nobody pins, and caches are taken on the short way. */
TAP_TEST(race_of_threads_that_are_processors)
{
	if (x86_nr_cpus < NR_THREADS_MIN)
		TAP_SKIP("no two processors beside the first");
	race_on(SLOW_THREADS, x86_nr_cpus < NR_THREADS_MAX ? race_of_few : race_there_and_back);
}

TAP_TEST(race_of_diets_of_threads_that_are_processors)
{
	if (x86_nr_cpus < NR_THREADS_MAX)
		TAP_SKIP("no processor for each thread");
	race_on(SLOW_THREADS, race_with_diets);
}

/* Who gives MF_OPS knows how much it is.  A CPU that served no flush has not taken part. */
TAP_TEST(race_was_large_and_on_every_processor)
{
	bool is_soak = getenv("MF_SOAK") != NULL;

	TAP_OK(x86_nr_cpus > 1);
	if (is_soak || !getenv("MF_OPS")) {
		TAP_OK(race.total.nr_operations >= (is_soak ? least_in_soak : least).nr_operations);
		TAP_OK(race.total.nr_folds >= (is_soak ? least_in_soak : least).nr_folds);
	}
	for (unsigned n = 0; n < x86_nr_cpus; n++) {
		uint64_t nr_served = __atomic_load_n(&x86_cpus[n].nr_ipis_served, __ATOMIC_RELAXED);

		TAP_NOTE("CPU %u asked for %llu flushes with %llu interrupts, and served %llu", n,
			 (unsigned long long)x86_cpus[n].nr_flushes, (unsigned long long)x86_cpus[n].nr_ipis_sent,
			 (unsigned long long)nr_served);
		TAP_OK(x86_cpus[n].nr_flushes > 0 && nr_served > 0);
	}
}
