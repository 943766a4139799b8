/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row.h - one row of `memfold run`: a described machine under one layout, brought up, measured, worked, checked and
 * taken down.  Owns everything it makes; nothing is left behind.
 */
#ifndef CLI_ROW_H
#define CLI_ROW_H

#include "cli/description.h"
#include "cli/message.h"
#include <memfold/linux.h>
#include <stdbool.h>

struct row_request {
	const struct description *machine;
	enum mf_layout layout;             /* of every region, or                                      */
	bool as_described;                 /* each region's own                                       */
	enum mf_linux_memory_kind backing; /* MF_LINUX_FILE: path, regions one after the other in it    */
	const char *path;
	bool touch;                        /* write to every page what it holds already              */
	bool progress;                     /* say on standard error what takes over a second          */
};

enum row_status { ROW_OK, ROW_UNABLE, ROW_BROKEN, ROW_REFUSED };

struct row {
	const char *name;
	enum row_status status;    /* REFUSED: bad input, why says what                                */
	char why[MESSAGE_MAX];
	char laws[MESSAGE_MAX];    /* "held", the law that is broken, or "not all checked"             */
	uint64_t described_bytes;
	uint64_t unit_bytes;       /* 0: regions differ                                               */
	uint64_t map_bytes;        /* in the windows after the bring-up, before any check             */
	uint64_t table_bytes;      /* growth of the process's page tables over the bring-up            */
	uint64_t bring_up_ns;
	uint64_t remap_ns;         /* of that: putting units on the diet                               */
	double pin_unpin_ns;       /* of one pin and unpin, in random order over all units             */
	uint64_t nr_units, nr_base_pages; /* brought up; used as base pages meanwhile                  */
	uint64_t nr_dieted;        /* of the units brought up                                         */
};

void row_run(const struct row_request *request, struct row *row);

#endif
