/* SPDX-License-Identifier: BSD-2-Clause */
/* bench.c - what the benches share. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <memfold/diet.h>
#include <memfold/linux.h>

#include "bench/bench.h"

void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "bench: %s: %s\n", what, mf_strerror(err));
	exit(1);
}

/* ---- Samples ---------------------------- */

void samples_add(struct samples *s, double value)
{
	unsigned i = s->nr++;

	/* Kept in ascending order. */
	for (; i > 0 && s->at[i - 1] > value; i--)
		s->at[i] = s->at[i - 1];
	s->at[i] = value;
}

double samples_median(const struct samples *s)
{
	return (s->at[(s->nr - 1) / 2] + s->at[s->nr / 2]) / 2;
}

static void print_question(const char *kind, const struct question *q)
{
	printf("%s\t%s\t%s\t", kind, q->text, q->unit);
	if (q->goal > 0)
		printf("%.6g\t", q->goal);
	else
		printf("-\t");
}

void report(const struct question *q, const struct samples *s, const char *remark, ...)
{
	va_list args;

	print_question("result", q);
	printf("%.6g\t%.6g\t%.6g\t", samples_median(s), s->at[0], s->at[s->nr - 1]);
	va_start(args, remark);
	vprintf(remark, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void report_skipped(const struct question *q, const char *why, ...)
{
	va_list args;

	print_question("skipped", q);
	va_start(args, why);
	vprintf(why, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* ---- The host ---------------------------- */

static double ns_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double clock_ns(void)
{
	return ns_of(CLOCK_MONOTONIC);
}

double cpu_ns(void)
{
	return ns_of(CLOCK_THREAD_CPUTIME_ID);
}

uint32_t *shuffled(uint32_t nr)
{
	uint32_t *order = malloc(nr * sizeof(*order));
	uint64_t state = 1;

	must(order ? 0 : -MF_ENOMEM, "shuffle");
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t j;

		state = state * 6364136223846793005u + 1442695040888963407u;
		j = (uint32_t)((state >> 32) * (i + 1) >> 32);
		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

uint64_t proc_kib(const char *path, const char *key)
{
	FILE *file = fopen(path, "r");
	size_t length = strlen(key);
	uint64_t kib = UINT64_MAX;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, key, length) == 0 && line[length] == ':')
			kib = strtoull(line + length + 1, NULL, 10);
	if (file)
		fclose(file);
	if (kib == UINT64_MAX) {
		fprintf(stderr, "bench: %s has no line \"%s\"\n", path, key);
		exit(1);
	}
	return kib;
}

/* ---- Maps ---------------------------- */

struct described described_create(uint64_t size_bytes)
{
	struct mf_map_config config = { 0 };
	struct described d = { 0 };

	must(mf_linux_create(NULL, &d.machine), "machine");
	d.end = size_bytes >> d.machine->paging.page_shift;
	config.machine = d.machine;
	config.span = d.end;
	must(mf_map_create(&config, &d.map), "map");
	return d;
}

void described_add(struct described *d, enum mf_layout layout)
{
	struct mf_region_config region = { .end_pfn = d->end, .layout = layout, .source = MF_SOURCE_HOST };

	must(mf_region_add(d->map, &region, &d->region), "region");
}

void described_allocate(const struct described *d, unsigned order)
{
	for (mf_pfn_t nr = d->end >> order; nr > 0; nr--) {
		struct mf_folio *folio;

		must(mf_folio_alloc(d->map, 0, order, MF_ALLOC_WAIT, &folio), "allocate");
	}
}

void described_remap(const struct described *d)
{
	struct mf_folio *folio;
	struct mf_list all;
	uint64_t nr_remapped, nr = 0;
	mf_pfn_t pfn = 0;

	mf_list_init(&all);
	for (; (folio = mf_folio_next(d->map, pfn, d->end, &pfn)) != NULL; nr++) {
		must(mf_folio_freeze(folio, 1) ? 0 : -MF_EBUSY, "freeze");
		mf_list_push_back(&all, &folio->page.list);
	}
	must(mf_diet_remap_list(d->map, &all, &nr_remapped), "remap");
	must(nr_remapped == nr ? 0 : -MF_EINVAL, "remap every folio");
	while (!mf_list_is_empty(&all)) {
		struct mf_page *page = mf_container_of(all.next, struct mf_page, list);

		mf_list_remove(&page->list);
		mf_folio_unfreeze((struct mf_folio *)page, 1);
	}
}

/* Per folio the head's slot and seven aliases.  1/64 is left to the rest of the process (linux.h), some to us. */
uint64_t remap_max_bytes(const struct question *q, unsigned nr)
{
	const uint64_t per_gib = 512 * 8, others = 256;
	uint64_t used, allowed, taken, nr_gib;

	must(mf_linux_mappings(&used, &allowed), "count mappings");
	taken = allowed / 64 + used + others;
	nr_gib = allowed > taken ? (allowed - taken) / per_gib : 0;
	for (unsigned i = 0; i < nr && nr_gib == 0; i++)
		report_skipped(&q[i], "unable: 1 GiB needs %llu mappings, %llu of %llu can be had (vm.max_map_count)",
			       (unsigned long long)per_gib, (unsigned long long)(allowed - mf_min(taken, allowed)),
			       (unsigned long long)allowed);
	return nr_gib * MF_GIB;
}

void described_free(const struct described *d)
{
	struct mf_folio *folio;
	mf_pfn_t pfn = 0;

	while ((folio = mf_folio_next(d->map, pfn, d->end, &pfn)) != NULL)
		mf_folio_put(d->map, folio);
}

void described_check(const struct described *d)
{
	struct mf_violation violation;
	int broken = mf_map_check(d->map, &violation);

	if (broken == 0)
		return;
	must(broken < 0 ? broken : 0, "check");
	fprintf(stderr, "bench: law %s does not hold at pfn %llu: %s\n", violation.law,
		(unsigned long long)violation.pfn, violation.text);
	exit(1);
}

void described_end(struct described *d)
{
	described_free(d);
	must(mf_region_remove(d->map, d->region), "remove");
	must(mf_map_destroy(d->map), "destroy");
	mf_linux_destroy(d->machine);
}
