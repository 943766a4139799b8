/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_child.c - a data race on purpose: two threads change one field of a descriptor without the lock that guards it.
 *
 * Never run by itself: test_order.c expects that the thread sanitizer ends it with a report.
 */
#include <pthread.h>

#include <memfold/memmap.h>

#include "tests/tap.h"

static struct mf_page page;

static void *change(void *unused)
{
	(void)unused;
	for (int i = 0; i < 1000; i++)
		page.index++;
	return NULL;
}

TAP_TEST(child_races)
{
	pthread_t a, b;

	TAP_REQUIRE(pthread_create(&a, NULL, change, NULL) == 0 && pthread_create(&b, NULL, change, NULL) == 0);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	TAP_OK(page.index > 0);
}

TAP_MAIN()
