/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main.c - the command memfold: finds the verb and runs it.
 *
 * Exit codes: 0 good, 1 a finding, 2 cannot run.  To add a verb: its function in verbs.h, its line in the table.
 */
#include "cli/message.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include <memfold/base.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} verbs[] = {
	{"run", cmd_run, "describe real memory under each layout, work it, check it, and measure it"},
	{"plan", cmd_plan, "say what a memory map would cost under each scheme, at any size, without the memory"},
};

static const size_t nr_verbs = sizeof(verbs) / sizeof(verbs[0]);

static int help(void)
{
	puts("Usage: memfold VERB [OPTION]... [MACHINE.json]\n"
	     "\n"
	     "A memory map whose cost follows how finely memory is divided, not how much memory there is.\n");
	for (size_t i = 0; i < nr_verbs; i++)
		printf("  %-6s %s\n", verbs[i].name, verbs[i].what);
	puts("\n"
	     "      --help     show this help; memfold VERB --help shows that of a verb\n"
	     "      --version  show the version\n"
	     "\n"
	     "Exit status: 0 good, 1 a finding, 2 cannot run.  Manual: memfold(1).");
	return EXIT_GOOD;
}

static int dispatch(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!name)
		return message_unable("a verb is missing; use memfold run or memfold plan, or see memfold --help");
	if (strcmp(name, "--help") == 0)
		return help();
	if (strcmp(name, "--version") == 0) {
		puts("memfold " MF_VERSION);
		return EXIT_GOOD;
	}
	for (size_t i = 0; i < nr_verbs; i++)
		if (strcmp(verbs[i].name, name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	return message_unable("%s is no verb; use memfold run or memfold plan, or see memfold --help",
			      message_quote(name));
}

int main(int argc, char **argv)
{
	/* A reader that goes away is an error like a full disk, told by output_finish(). */
	signal(SIGPIPE, SIG_IGN);
	return output_finish(dispatch(argc, argv));
}
