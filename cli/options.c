/* SPDX-License-Identifier: BSD-2-Clause */
/* options.c - see options.h. */
#include "cli/options.h"
#include "cli/message.h"
#include "cli/size.h"
#include <string.h>

int options_next(int argc, char **argv, const struct option *options)
{
	const char *given;
	int c;

	opterr = 0;
	c = getopt_long(argc, argv, ":", options, NULL);
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

bool options_file(int argc, char **argv, const char **file)
{
	if (argc - optind > 1) {
		message_error("%s: one file at most; see memfold %s --help", message_quote(argv[optind + 1]), argv[0]);
		return false;
	}
	*file = argc > optind ? argv[optind] : NULL;
	return true;
}

bool options_size(const char *name, const char *value, uint64_t *bytes)
{
	char message[MESSAGE_MAX];

	if (size_parse(value, bytes, message, sizeof(message)) == 0)
		return true;
	message_error("--%s: %s", name, message);
	return false;
}

bool options_page_size(const char *value, unsigned *page_shift)
{
	char message[MESSAGE_MAX];

	if (size_parse_page(value, page_shift, message, sizeof(message)) == 0)
		return true;
	message_error("--page-size: %s", message);
	return false;
}
