/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row_work.h - what the files of one row share: the state of its work, and how a step says that it could not go on.
 *
 *   row.c        the steps
 *   row_diet.c   units on the diet of their layout, and compounds of a device
 *   row_needs.c  is there enough of everything; and what was short
 *
 * Private to row*.c.
 */
#ifndef CLI_ROW_WORK_H
#define CLI_ROW_WORK_H

#include "cli/row.h"
#include <memfold/memfold.h>
#include <setjmp.h>

struct work {
	const struct row_request *request;
	struct row *row;
	unsigned page_shift;
	struct mf_machine *machine;
	struct mf_map *map;
	unsigned *region;          /* ids, in the order of the description                              */
	unsigned nr_regions;
	struct mf_folio **folio;   /* all units, those of a device first once they were pinned           */
	uint64_t nr_folios, nr_devices;
	struct mf_folio **base;    /* base pages                                                       */
	uint64_t nr_base;
	uint64_t nr_done, nr_to_do; /* of the bring-up: units taken, and units put on their diet           */
	uint64_t mappings_before;  /* of the process, when the row began                               */
	jmp_buf panicked;
};

/* ---- A region of the description, under the row's layout --------------------------------------------------------- */

mf_pfn_t row_span(const struct work *w);
/* Needs, as described: a layout that can be run. */
enum mf_layout row_layout(const struct work *w, const struct description_region *r);
unsigned row_unit_order(const struct work *w, const struct description_region *r);
/* Map slots that a unit saves on the diet. */
uint64_t row_saved_slots(const struct work *w, const struct description_region *r);

/* ---- row_diet.c -------------------------------------------------------------------------------------------------- */

/* Does the layout put the region's units on a diet after they were taken? */
bool row_is_by_remap(const struct work *w, const struct description_region *r);
/* Puts the units from number `first` of the list on the diet of their layouts.  Others are left as they are. */
bool row_remap(struct work *w, uint64_t first);
/* No compound is larger than a block of the top tier.  false: the row is unable. */
bool row_compounds_fit(struct work *w);
/* Adds all compounds of a region to the list, each with a reference. */
bool row_hold_compounds(struct work *w, const struct description_region *r);
/* Devices first in the list, so that the rest can be freed and taken again. */
void row_devices_first(struct work *w);

/* ---- row_needs.c ------------------------------------------------------------------------------------------------- */

/* Nothing was taken yet.  false: the row is unable, and says what is needed and what there is. */
bool row_is_enough(struct work *w);
/* What the host is short of, -MF_ENOMEM does not tell: unable, with how it stands with all. */
bool row_short(struct work *w, const char *what);

/* ---- How a row ends before its end: all of these are false ------------------------------------------------------- */

bool row_unable(struct work *w, enum row_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool row_failed(struct work *w, const char *what, int err);

#endif
