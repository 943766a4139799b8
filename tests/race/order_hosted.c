/* SPDX-License-Identifier: BSD-2-Clause */
/* order_hosted.c - that the thread sanitizer, where the tests are built with it, would speak up: race_child.c. */
#include <libgen.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tap.h"

#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN true
#endif
#endif
#ifndef WITH_TSAN
#define WITH_TSAN false
#endif

TAP_TEST(sanitizer_reports_a_race)
{
	char self[1024], command[1200];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int status;

	if (!WITH_TSAN)
		TAP_SKIP("built without the thread sanitizer");
	TAP_REQUIRE(n > 0);
	self[n] = '\0';
	(void)snprintf(command, sizeof(command), "exec '%s/race_child' >/dev/null 2>&1", dirname(self));
	status = system(command);
	TAP_OK(WIFEXITED(status));
	TAP_EQ(WEXITSTATUS(status), 66); /* the sanitizer's own code; the program's would be 0 or 1 */
}
