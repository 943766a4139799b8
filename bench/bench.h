/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench.h - what the benches share: time, medians, and the line that says what one question's answer is.
 *
 * A bench prints one line per question, fields parted by tabs, for bench/run to put in a table:
 *
 *   result  <question>  <unit>  <goal, or ->  <median>  <lowest>  <highest>  <remark>
 *   skipped <question>  <unit>  <goal, or ->  <why>
 *
 * In every unit lower is better.  A goal is met when the median is at most the goal.  Whatever breaks ends the
 * program with 1.
 */
#ifndef MEMFOLD_BENCH_H
#define MEMFOLD_BENCH_H

#include <stdint.h>

#include <memfold/folio.h>

enum { BENCH_ROUNDS = 9 };

/* Samples of one question, by round; of a ratio, the ratio within each round. */
struct samples {
	double at[BENCH_ROUNDS];
	unsigned nr;
};

struct question {
	const char *text, *unit;
	double goal; /* 0: none */
};

void must(int err, const char *what);
void samples_add(struct samples *s, double value);
double samples_median(const struct samples *s);
void report(const struct question *q, const struct samples *s, const char *remark, ...) MF_PRINTF(3, 4);
void report_skipped(const struct question *q, const char *why, ...) MF_PRINTF(2, 3);

/* Nanoseconds: of the clock, and of this thread's time on a processor. */
double clock_ns(void);
double cpu_ns(void);

/* A permutation of 0 .. nr-1, the same in every run. */
uint32_t *shuffled(uint32_t nr);

/* A value in KiB from a file of lines "Key:  1234 kB"; ends the program when there is none. */
uint64_t proc_kib(const char *path, const char *key);

/* ---- A map of [0, size_bytes) of one layout on a linux machine of its own, described only ------------------------ */

struct described {
	struct mf_machine *machine;
	struct mf_map *map;
	mf_pfn_t end;
	unsigned region;
};

/* The map without its region, and then the region. */
struct described described_create(uint64_t size_bytes);
void described_add(struct described *d, enum mf_layout layout);
/* Everything as folios of one order, none left free. */
void described_allocate(const struct described *d, unsigned order);
/* All folios go on the diet of the layout. */
void described_remap(const struct described *d);
/*
 * How much memory in 2 MiB folios can be on its diet (hvo-7.1) at once in this process, where an alias needs a mapping:
 * whole GiB.  0: less than one, and so it is reported for these questions.
 */
uint64_t remap_max_bytes(const struct question *q, unsigned nr);
void described_free(const struct described *d);
void described_check(const struct described *d);
/* Frees, removes, destroys. */
void described_end(struct described *d);

#endif
