/* SPDX-License-Identifier: BSD-2-Clause */
/* options.c - see options.h. */
#include "cli/options.h"
#include "cli/message.h"
#include "cli/size.h"
#include <string.h>

enum { OPTIONS_END = -1, OPTIONS_WRONG = '?' };

/* The `val` of the next option; OPTIONS_END; OPTIONS_WRONG after its message. */
static int next_option(int argc, char **argv, const struct option *table)
{
	const char *given;
	int c;

	opterr = 0;
	c = getopt_long(argc, argv, ":", table, NULL);
	if (c != '?' && c != ':')
		return c;
	given = argv[optind - 1];
	if (c == ':')
		message_error("%s: a value is missing; see memfold %s --help", message_quote(given), argv[0]);
	else if (optopt != 0 && strncmp(given, "--", 2) == 0 && strchr(given, '='))
		message_error("%s: this option takes no value; see memfold %s --help", message_quote(given), argv[0]);
	else if (optopt != 0)
		message_error("\"-%c\" is no option of memfold %s; see memfold %s --help", optopt, argv[0], argv[0]);
	else
		message_error("%s is no option of memfold %s, or short for several; see memfold %s --help",
			      message_quote(given), argv[0], argv[0]);
	return OPTIONS_WRONG;
}

static bool take_size(const char *name, const char *value, uint64_t *bytes)
{
	char message[MESSAGE_MAX];

	if (size_parse(value, bytes, message, sizeof(message)) == 0)
		return true;
	message_error("--%s: %s", name, message);
	return false;
}

/* At most one operand is left: the file, which says all sizes. */
static bool take_file(struct options_shared *shared, int argc, char **argv)
{
	if (argc - optind > 1) {
		message_error("%s: one file at most; see memfold %s --help", message_quote(argv[optind + 1]), argv[0]);
		return false;
	}
	if (argc == optind)
		return true;
	shared->file = argv[optind];
	if (!shared->has_size && !shared->has_unit)
		return true;
	message_error("%s: a file says all sizes; leave out %s or the file", message_quote(shared->file),
		      shared->has_size ? "--size" : "--unit");
	return false;
}

bool options_read(struct options_shared *shared, int argc, char **argv, const struct option *table,
		  bool (*take)(void *ctx, int c, const char *value), void *ctx)
{
	int c;

	while ((c = next_option(argc, argv, table)) != OPTIONS_END) {
		switch (c) {
		case OPTIONS_WRONG:
			return false;
		case 's':
			if (!take_size("size", optarg, &shared->size))
				return false;
			shared->has_size = true;
			break;
		case 'u':
			if (!take_size("unit", optarg, &shared->unit))
				return false;
			shared->has_unit = true;
			break;
		case 'j':
			shared->json = true;
			break;
		case 'h':
			shared->help = true;
			return true;
		default:
			if (!take(ctx, c, optarg))
				return false;
			break;
		}
	}
	return take_file(shared, argc, argv);
}

bool options_describe_file(const char *file, unsigned page_shift, struct description *d)
{
	char message[MESSAGE_MAX];

	if (description_read(file, page_shift, d, message, sizeof(message)) == 0)
		return true;
	message_error("%s", message);
	return false;
}

bool options_describe_range(unsigned page_shift, uint64_t size, uint64_t unit, struct description_region *region,
			    struct description *d)
{
	char message[MESSAGE_MAX];

	if (size_check_units(page_shift, size, unit, message, sizeof(message)) != 0) {
		message_error("--%s", message);
		return false;
	}
	*region = (struct description_region){
		.size_bytes = size, .unit_bytes = unit, .top = 2, .layout = MF_SCHEME_TIERED};
	*d = (struct description){.page_shift = page_shift, .nr_regions = 1, .regions = region};
	return true;
}
