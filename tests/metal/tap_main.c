/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tap_main.c - a test program as the image: TAP on the serial line.
 *
 *	test=PART     in the command line: only tests whose names contain this
 *	MF_SEED=n     and what else a test asks its environment for
 */
#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

/* TAP_MAIN()'s. */
int main(int argc, char **argv);

void tap_write(const char *text)
{
	console_write(text);
}

int x86_main(void)
{
	static char program[] = "test", part[64];
	char *argv[] = { program, part, NULL };
	int argc = boot_option("test", part, sizeof(part)) ? 2 : 1;

	TAP_NOTE("x86_64: %u levels, %u CPUs, leaves of 1 GiB: %s", x86_features.levels, x86_nr_cpus,
		 x86_features.has_1gib ? "yes" : "no");
	return main(argc, argv);
}
