/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * replay_main.c - runs a fuzz target over inputs that are kept, without a fuzzer, and prints TAP.
 *
 * replay_TARGET [FILE|FOLDER]...: without arguments tests/fuzz/corpus/TARGET, after the target's own name, seen from
 * the top of the sources.  The empty input always comes first.  A target fails by crashing, as under the fuzzer.
 */
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned nr_tests;
static bool failed;

static void report(bool passed, const char *name)
{
	printf("%sok %u - %s\n", passed ? "" : "not ", ++nr_tests, name);
	fflush(stdout);
	failed |= !passed;
}

/* Copied to the heap at its exact size, so that the address sanitizer sees a read beyond its end. */
static bool replay_file(const char *path, size_t size)
{
	uint8_t *data = malloc(size > 0 ? size : 1);
	FILE *file = fopen(path, "rb");
	bool whole = data && file && fread(data, 1, size, file) == size;

	if (file)
		fclose(file);
	if (whole)
		LLVMFuzzerTestOneInput(data, size);
	else
		printf("# %s: cannot be read\n", path);
	free(data);
	return whole;
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void replay(const char *path)
{
	struct dirent **entry;
	struct stat about;
	int nr;

	if (stat(path, &about) != 0) {
		report(false, path);
		return;
	}
	if (!S_ISDIR(about.st_mode)) {
		/* Named before it runs: a crash leaves no other trace of which input it was. */
		printf("# %s\n", path);
		fflush(stdout);
		report(replay_file(path, (size_t)about.st_size), path);
		return;
	}
	nr = scandir(path, &entry, is_visible, alphasort);
	for (int i = 0; i < nr; i++) {
		char below[PATH_MAX];

		snprintf(below, sizeof(below), "%s/%s", path, entry[i]->d_name);
		replay(below);
		free(entry[i]);
	}
	if (nr >= 0)
		free(entry);
	else
		report(false, path);
}

int main(int argc, char **argv)
{
	static const uint8_t nothing[1];
	const char *target = strstr(argv[0], "replay_");
	char corpus[256];
	struct stat about;

	LLVMFuzzerTestOneInput(nothing, 0);
	report(true, "the empty input");
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (argc == 1 && target) {
		snprintf(corpus, sizeof(corpus), "tests/fuzz/corpus/%s", target + strlen("replay_"));
		if (stat(corpus, &about) == 0)
			replay(corpus);
	}
	printf("1..%u\n", nr_tests);
	return failed;
}
