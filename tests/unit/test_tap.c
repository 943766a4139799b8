/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_tap.c - the harness itself: what it prints and with which code it exits, seen from outside on a child program,
 * and TAP_PANICS from inside.
 */
#include "tests/tap.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs the program tap_child that lies beside this one; its exit code, or 128 when a signal ended it. */
static int child_run(const char *part, char *output, size_t size)
{
	char self[PATH_MAX], command[PATH_MAX + 128];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	size_t used;
	FILE *pipe;
	int status;

	if (length < 0)
		return -1;
	self[length] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(command, sizeof(command), "exec '%s/tap_child' %s 2>/dev/null", self, part);
	pipe = popen(command, "r");
	if (!pipe)
		return -1;
	used = fread(output, 1, size - 1, pipe);
	output[used] = '\0';
	status = pclose(pipe);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TAP_TEST(tap_exits_0_when_all_pass)
{
	char output[4096];

	TAP_EQ(child_run("child_passes", output, sizeof(output)), 0);
	TAP_OK(strcmp(output, "1..1\nok 1 - child_passes\n") == 0);
}

TAP_TEST(tap_exits_1_when_one_fails)
{
	char output[4096];

	TAP_EQ(child_run("child_goes_on", output, sizeof(output)), 1);
	TAP_OK(strstr(output, "not ok 1 - child_goes_on_after_ok\n") != NULL);
	TAP_OK(strstr(output, "tests/unit/tap_child.c:") != NULL);
	TAP_OK(strstr(output, ": 1 + 1 == 3\n") != NULL);
	TAP_OK(strstr(output, "# went on\n# after ok\n") != NULL);
}

TAP_TEST(tap_prints_both_numbers)
{
	char output[4096];

	TAP_EQ(child_run("child_compares", output, sizeof(output)), 1);
	TAP_OK(strstr(output, "-MF_ENOMEM is -12, expected 0 = 0 (0x0)\n") != NULL);
	TAP_OK(strstr(output, "4096 is 4096 (0x1000), expected 8192 = 8192 (0x2000)\n") != NULL);
}

TAP_TEST(tap_require_ends_the_test)
{
	char output[4096];

	TAP_EQ(child_run("child_returns", output, sizeof(output)), 1);
	TAP_OK(strstr(output, "not ok 1 - ") != NULL);
	TAP_OK(strstr(output, "went on") == NULL);
}

TAP_TEST(tap_skip_is_a_pass_with_a_reason)
{
	char output[4096];

	TAP_EQ(child_run("child_skips", output, sizeof(output)), 0);
	TAP_OK(strcmp(output, "1..1\nok 1 - child_skips # SKIP no such hardware\n") == 0);
}

TAP_TEST(tap_skip_does_not_hide_a_failure)
{
	char output[4096];

	TAP_EQ(child_run("child_fails_before", output, sizeof(output)), 1);
	TAP_OK(strstr(output, "\nnot ok 1 - ") != NULL);
}

TAP_TEST(tap_runs_in_the_order_of_the_file)
{
	char output[4096];

	TAP_EQ(child_run("child", output, sizeof(output)), 128);
	TAP_OK(strncmp(output, "1..7\nok 1 - child_passes\n", 24) == 0);
	TAP_OK(strstr(output, "\nnot ok 6 - child_fails_before_it_skips") != NULL);
}

TAP_TEST(tap_refuses_a_name_of_no_test)
{
	char output[4096];

	TAP_EQ(child_run("no_such_test", output, sizeof(output)), 1);
	TAP_OK(strncmp(output, "1..0 # SKIP", 11) == 0);
}

TAP_TEST(tap_dies_of_a_panic_nobody_expects)
{
	char output[4096];

	TAP_OK(child_run("child_panics", output, sizeof(output)) > 1);
	TAP_OK(strstr(output, "ok 1 - ") == NULL);
}

TAP_TEST(tap_panics_catches_a_panic)
{
	TAP_OK(TAP_PANICS(mf_panic("frame %d is broken.", 7)));
	TAP_OK(strcmp(tap_state.panic, "frame 7 is broken.") == 0);
	TAP_OK(!TAP_PANICS((void)0));
	TAP_OK(TAP_PANICS(mf_panic("twice in one test.")));
}

static void *check_from_thread(void *unused)
{
	(void)unused;
	for (int i = 0; i < 1000; i++)
		TAP_OK(i >= 0);
	return NULL;
}

TAP_TEST(tap_checks_from_several_threads)
{
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		TAP_REQUIRE(pthread_create(&thread[i], NULL, check_from_thread, NULL) == 0);
	for (int i = 0; i < 2; i++)
		TAP_EQ(pthread_join(thread[i], NULL), 0);
}

TAP_MAIN()
