/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs.h - the verbs of the command memfold, one function each.
 *
 * A verb gets its own name as argv[0] and answers with an exit code.  It prints its result to standard output, at
 * most one message to standard error (message_error), and leaves the closing of standard output to main().
 */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

enum exit_code {
	EXIT_GOOD = 0,
	EXIT_FINDING = 1, /* it ran, and found something wrong                 */
	EXIT_UNABLE = 2,  /* nothing could run; one message says why           */
};

int cmd_plan(int argc, char **argv);
int cmd_run(int argc, char **argv);

#endif
