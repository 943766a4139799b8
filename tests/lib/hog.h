/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hog.h - RAM of a sim that a test keeps from the map, so that it ends when the test says so.
 *
 *	static struct hog hog;
 *
 *	hog_all(&hog, w.sim);
 *	hog_put(&hog, 7);         7 frames are left
 *	...
 *	hog_end(&hog);
 *
 * Goes around the map, so its counters do not know; everything is given back before the world is closed.
 */
#ifndef TESTS_LIB_HOG_H
#define TESTS_LIB_HOG_H

#include <memfold/machine.h>

enum { HOG_MAX = 1 << 15 };

struct hog {
	struct mf_machine *machine;
	mf_pfn_t pfn[HOG_MAX];
	unsigned nr;
};

/* Every frame, or as many as it holds; the machine gives the lowest first. */
static inline void hog_all(struct hog *hog, struct mf_machine *machine)
{
	hog->machine = machine;
	for (hog->nr = 0; hog->nr < HOG_MAX; hog->nr++)
		if (machine->ops->ram_get(machine, 0, 0, &hog->pfn[hog->nr]) != 0)
			break;
}

/*
 * Gives back `nr` frames, the lowest first, none of them the first of an aligned block of 512: no larger leaf can be
 * made of them.  How many it had.
 */
static inline uint64_t hog_put(struct hog *hog, uint64_t nr)
{
	unsigned kept = 0;
	uint64_t nr_put = 0;

	for (unsigned i = 0; i < hog->nr; i++) {
		if (nr_put < nr && hog->pfn[i] % 512 != 0) {
			hog->machine->ops->ram_put(hog->machine, 0, 0, hog->pfn[i]);
			nr_put++;
		} else {
			hog->pfn[kept++] = hog->pfn[i];
		}
	}
	hog->nr = kept;
	return nr_put;
}

/* Gives back an aligned block of 512 frames; false when there is none. */
static inline bool hog_put_block(struct hog *hog)
{
	for (unsigned i = 0; i + 512 <= hog->nr; i++) {
		if (hog->pfn[i] % 512 != 0 || hog->pfn[i + 511] != hog->pfn[i] + 511)
			continue;
		for (unsigned j = i; j < i + 512; j++)
			hog->machine->ops->ram_put(hog->machine, 0, 0, hog->pfn[j]);
		for (hog->nr -= 512; i < hog->nr; i++)
			hog->pfn[i] = hog->pfn[i + 512];
		return true;
	}
	return false;
}

static inline void hog_end(struct hog *hog)
{
	while (hog->nr > 0)
		hog->machine->ops->ram_put(hog->machine, 0, 0, hog->pfn[--hog->nr]);
}

#endif
