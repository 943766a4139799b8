/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * options.h - what the verbs share of their command lines: --size, --unit, --json, --help and a file, in one reading
 * with one message in memfold's own words; and the memory that they tell of.
 *
 *	static const struct option table[] = {{"touch", no_argument, NULL, 't'}, ..., OPTIONS_SHARED};
 *
 *	if (!options_read(&r.shared, argc, argv, table, take_option, &r))
 *		return EXIT_UNABLE;
 *	if (r.shared.help)
 *		return help();
 *
 * Long options only.  State: that of getopt (optind, optarg).
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "cli/description.h"
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

struct options_shared {
	uint64_t size, unit;     /* of --size and --unit; else untouched                         */
	bool has_size, has_unit; /* never both a file and one of these                            */
	bool json, help;         /* help: nothing was read beyond it                              */
	const char *file;        /* NULL: none was named                                         */
};

/* The end of every table.  A verb's own options have a `val` other than these. */
#define OPTIONS_SHARED                                                                              \
	{"size", required_argument, NULL, 's'}, {"unit", required_argument, NULL, 'u'},             \
	{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}

/* Reads the whole command line; take() gets the verb's own options.  false after a message, take()'s too. */
bool options_read(struct options_shared *shared, int argc, char **argv, const struct option *table,
		  bool (*take)(void *ctx, int c, const char *value), void *ctx);

/* What a file describes, for description_free().  page_shift: of a file that does not say.  false after a message. */
bool options_describe_file(const char *file, unsigned page_shift, struct description *d);

/* --size and --unit as a machine of one region, which is the caller's: not to be freed.  false after a message. */
bool options_describe_range(unsigned page_shift, uint64_t size, uint64_t unit, struct description_region *region,
			    struct description *d);

#endif
