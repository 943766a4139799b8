/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * options.h - what the verbs share in reading their command lines: getopt_long with one message in memfold's own
 * words, and options that are sizes.
 *
 *	static const struct option options[] = {{"size", required_argument, NULL, 's'}, ..., {NULL, 0, NULL, 0}};
 *
 *	while ((c = options_next(argc, argv, options)) != OPTIONS_END)
 *		switch (c) { ... case OPTIONS_WRONG: return EXIT_UNABLE; }
 *
 * Long options only.  State: that of getopt (optind, optarg).
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

enum { OPTIONS_END = -1, OPTIONS_WRONG = '?' };

/* The `val` of the next option; OPTIONS_END; OPTIONS_WRONG after its message. */
int options_next(int argc, char **argv, const struct option *options);

/* At most one operand is left: the file.  *file is NULL when there is none.  false after a message: there are more. */
bool options_file(int argc, char **argv, const char **file);

/* The value of --name, a size.  false after a message. */
bool options_size(const char *name, const char *value, uint64_t *bytes);

/* The value of --page-size.  false after a message. */
bool options_page_size(const char *value, unsigned *page_shift);

#endif
