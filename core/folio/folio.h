/* SPDX-License-Identifier: BSD-2-Clause */
/* folio.h - what the files of the room folio share: writing the records of a folio on one tier. */
#ifndef MEMFOLD_CORE_FOLIO_FOLIO_H
#define MEMFOLD_CORE_FOLIO_FOLIO_H

#include <memfold/folio.h>

#include "core/frames/zone.h"

/* Both counts of a pin, and of a reference, in struct mf_page.counts. */
#define COUNT_REF ((uint64_t)1)
#define COUNT_PIN (((uint64_t)1 << 32) | 1)

/* Adds `what` unless the count is 0 or a half would pass MF_COUNT_MAX.  The caller may lack a reference. */
static inline bool counts_try_add(struct mf_page *page, uint64_t what)
{
	uint64_t counts = __atomic_load_n(&page->counts, __ATOMIC_RELAXED);

	do {
		if ((uint32_t)counts == 0 || (uint32_t)counts >= MF_COUNT_MAX)
			return false;
	} while (!__atomic_compare_exchange_n(&page->counts, &counts, counts + what, true, __ATOMIC_ACQUIRE,
					      __ATOMIC_RELAXED));
	return true;
}

/* Tails 1 .. n-1 of a folio whose head stands there; n in descriptors of its tier. */
static inline void write_tails(struct mf_page *head, unsigned order_in_tier)
{
	for (uint64_t i = 1; i < (uint64_t)1 << order_in_tier; i++)
		mf_page_prepare_tail(&head[i], order_in_tier);
}

#endif
