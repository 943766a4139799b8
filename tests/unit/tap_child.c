/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tap_child.c - tests that end in every way a test can end, for test_tap.c to look at from outside.
 *
 * Never run by itself: most of it fails on purpose.
 */
#include "tests/tap.h"

TAP_TEST(child_passes)
{
	TAP_OK(1 + 1 == 2);
	TAP_EQ(0x10, 16);
	TAP_REQUIRE(true);
}

TAP_TEST(child_goes_on_after_ok)
{
	TAP_OK(1 + 1 == 3);
	TAP_NOTE("went on\nafter %s", "ok");
}

TAP_TEST(child_compares)
{
	TAP_EQ(-MF_ENOMEM, 0);
	TAP_EQ(4096, 8192);
}

TAP_TEST(child_returns_after_require)
{
	TAP_REQUIRE(false);
	TAP_NOTE("went on");
}

TAP_TEST(child_skips)
{
	TAP_SKIP("no such hardware");
}

TAP_TEST(child_fails_before_it_skips)
{
	TAP_OK(false);
	TAP_SKIP("too late");
}

TAP_TEST(child_panics_outside)
{
	mf_panic("child: nobody catches this.");
}

TAP_MAIN()
