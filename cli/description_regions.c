/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * description_regions.c - the regions of a description against each other: no two of one name, none that overlap.
 *
 * Owns no state.  Sorts pointers to them once by name and once by start; what is wrong then stands side by side.
 */
#include "cli/description.h"
#include "cli/message.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of equals the one that comes first in the file: they lie in one array. */
static int by_place(const struct description_region *a, const struct description_region *b)
{
	return (a > b) - (a < b);
}

static int by_name(const void *left, const void *right)
{
	const struct description_region *a = *(const struct description_region *const *)left;
	const struct description_region *b = *(const struct description_region *const *)right;
	int order = strcmp(a->name, b->name);

	return order ? order : by_place(a, b);
}

static int by_start(const void *left, const void *right)
{
	const struct description_region *a = *(const struct description_region *const *)left;
	const struct description_region *b = *(const struct description_region *const *)right;
	int order = (a->start_bytes > b->start_bytes) - (a->start_bytes < b->start_bytes);

	return order ? order : by_place(a, b);
}

/* Neighbours by name; a comes first in the file when the names are equal. */
static bool names_differ(const struct description *d, const struct description_region *a,
			 const struct description_region *b, char *message, size_t size)
{
	if (a->name[0] == '\0' || strcmp(a->name, b->name) != 0)
		return true;
	snprintf(message, size, "regions[%td].name: %s is the name of regions[%td] already; names are unique",
		 b - d->regions, message_quote(b->name), a - d->regions);
	return false;
}

/* Neighbours by start. */
static bool are_apart(const struct description *d, const struct description_region *a,
		      const struct description_region *b, char *message, size_t size)
{
	const struct description_region *first = a < b ? a : b, *later = a < b ? b : a;

	if (a->start_bytes + a->size_bytes <= b->start_bytes)
		return true;
	snprintf(message, size,
		 "regions[%td]: 0x%" PRIx64 " to 0x%" PRIx64 " overlaps regions[%td], 0x%" PRIx64 " to 0x%" PRIx64
		 " (ends exclusive); move one of them",
		 later - d->regions, later->start_bytes, later->start_bytes + later->size_bytes, first - d->regions,
		 first->start_bytes, first->start_bytes + first->size_bytes);
	return false;
}

int description_regions_check(const struct description *d, char *message, size_t message_size)
{
	const struct description_region **sorted = malloc(d->nr_regions * sizeof(*sorted));
	bool good = true;

	if (!sorted) {
		snprintf(message, message_size, "regions: not enough memory");
		return -MF_ENOMEM;
	}
	for (unsigned i = 0; i < d->nr_regions; i++)
		sorted[i] = &d->regions[i];
	qsort(sorted, d->nr_regions, sizeof(*sorted), by_name);
	for (unsigned i = 1; i < d->nr_regions && good; i++)
		good = names_differ(d, sorted[i - 1], sorted[i], message, message_size);
	qsort(sorted, d->nr_regions, sizeof(*sorted), by_start);
	for (unsigned i = 1; i < d->nr_regions && good; i++)
		good = are_apart(d, sorted[i - 1], sorted[i], message, message_size);
	free(sorted);
	return good ? 0 : -MF_EINVAL;
}
