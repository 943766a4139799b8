/* SPDX-License-Identifier: BSD-2-Clause */
/* test_size.c - sizes and shares as users write them.  Links cli/size.c and cli/message.c. */
#include "cli/size.h"
#include <string.h>
#include "tests/tap.h"

static char message[256];

static uint64_t parsed(const char *text)
{
	uint64_t bytes = 0;

	message[0] = '\0';
	TAP_EQ(size_parse(text, &bytes, message, sizeof(message)), 0);
	return bytes;
}

static bool refused(const char *text, const char *should_say)
{
	uint64_t bytes = 4711;

	message[0] = '\0';
	return size_parse(text, &bytes, message, sizeof(message)) < 0 && bytes == 4711 && strstr(message, should_say) &&
	       !strchr(message, '\n');
}

TAP_TEST(size_counts_by_1024)
{
	TAP_EQ(parsed("4096"), 4096);
	TAP_EQ(parsed("4096B"), 4096);
	TAP_EQ(parsed("0"), 0);
	TAP_EQ(parsed("007KiB"), 7 * MF_KIB);
	TAP_EQ(parsed("512MiB"), 512 * MF_MIB);
	TAP_EQ(parsed("8GiB"), 8 * MF_GIB);
	TAP_EQ(parsed("3TiB"), 3 * MF_TIB);
	TAP_EQ(parsed("1PiB"), MF_TIB << 10);
	TAP_EQ(parsed("1EiB"), MF_TIB << 20);
	TAP_EQ(parsed("0x200000"), 2 * MF_MIB);
	TAP_EQ(parsed("0xFFffFFffFFffFFff"), UINT64_MAX);
	TAP_EQ(parsed("18446744073709551615"), UINT64_MAX);
	TAP_EQ(parsed("15EiB"), 15 * (MF_TIB << 20));
}

TAP_TEST(size_says_what_to_use_instead)
{
	TAP_OK(refused("2MB", "use 2MiB"));
	TAP_OK(refused("2mb", "use 2MiB"));
	TAP_OK(refused("2M", "use 2MiB"));
	TAP_OK(refused("2m", "use 2MiB"));
	TAP_OK(refused("16k", "use 16KiB"));
	TAP_OK(refused("8gib", "use 8GiB"));
	TAP_OK(refused("8Gi", "use 8GiB"));
	TAP_OK(refused("1.5GiB", "smaller unit"));
}

TAP_TEST(size_refuses_what_is_none)
{
	static const char *const none[] = {"",  " 4", "4 ",  "4 KiB", "-1",	 "+1", "KiB",
					   "x", "0x", "0xg", "4XiB",  "4bits", "--"};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		TAP_OK(refused(none[i], "as in 8GiB"));
		if (tap_state.failed)
			TAP_NOTE("\"%s\": %s", none[i], message);
	}
	TAP_OK(refused("4\n", "?"));
}

TAP_TEST(size_refuses_more_than_64_bits)
{
	TAP_OK(refused("18446744073709551616", "64 bits"));
	TAP_OK(refused("99999999999999999999999999", "64 bits"));
	TAP_OK(refused("16EiB", "64 bits"));
	TAP_OK(refused("0x10000000000000000", "64 bits"));
	TAP_OK(refused("17179869184GiB", "64 bits"));
}

TAP_TEST(size_knows_three_pages)
{
	unsigned shift = 0;

	TAP_EQ(size_parse_page("4KiB", &shift, message, sizeof(message)), 0);
	TAP_EQ(shift, 12);
	TAP_EQ(size_parse_page("65536", &shift, message, sizeof(message)), 0);
	TAP_EQ(shift, 16);
	TAP_OK(size_parse_page("8KiB", &shift, message, sizeof(message)) < 0);
	TAP_OK(strstr(message, "16KiB"));
	TAP_EQ(shift, 16);
}

static bool share_is(const char *text, uint64_t numerator, uint64_t denominator)
{
	uint64_t n = 0, d = 0;

	return size_parse_share(text, &n, &d, message, sizeof(message)) == 0 && n == numerator && d == denominator;
}

TAP_TEST(size_reads_shares)
{
	static const char *const none[] = {"",    "1.5",   "2",    "101%", "-0.5",	   ".5",
					   "5.",  "1/0",   "2/1",  "1/",   "/2",	   "50%%",
					   "0.5x", "nan", "1e-3", "0..5", "0.1234567891", "1.0/2"};
	uint64_t n = 7, d = 8;

	TAP_OK(share_is("0", 0, 1));
	TAP_OK(share_is("1", 1, 1));
	TAP_OK(share_is("0.25", 25, 100));
	TAP_OK(share_is("25%", 25, 100));
	TAP_OK(share_is("12.5%", 125, 1000));
	TAP_OK(share_is("100%", 100, 100));
	TAP_OK(share_is("1/3", 1, 3));
	TAP_OK(share_is("0.123456789", 123456789, 1000000000));
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		TAP_OK(size_parse_share(none[i], &n, &d, message, sizeof(message)) < 0);
		TAP_OK(n == 7 && d == 8);
	}
}

static const char *unit_message(uint64_t size, uint64_t unit)
{
	message[0] = '\0';
	TAP_OK(size_check_units(12, size, unit, message, sizeof(message)) < 0);
	return message;
}

TAP_TEST(size_checks_units)
{
	TAP_EQ(size_check_units(12, MF_TIB << 20, 4096, message, sizeof(message)), 0);
	TAP_EQ(size_check_units(16, 65536, 65536, message, sizeof(message)), 0);
	TAP_OK(strstr(unit_message(3 * MF_MIB, 2 * MF_MIB), "size: 3MiB is no multiple of the unit, 2MiB; use 4MiB"));
	TAP_OK(strcmp(unit_message(MF_GIB, 3 * MF_MIB), "unit: 3MiB is no power of two; use 2MiB or 4MiB") == 0);
	TAP_OK(strstr(unit_message(MF_GIB, 2048), "unit: 2KiB"));
	TAP_OK(strstr(unit_message(MF_GIB, 0), "unit: "));
	TAP_OK(strstr(unit_message(0, 4096), "size: 0"));
	TAP_OK(strstr(unit_message((MF_TIB << 20) + 4096, 4096), "1EiB"));
	TAP_OK(strstr(unit_message(UINT64_MAX, 4096), "1EiB"));
	TAP_OK(strstr(unit_message(4096, (uint64_t)1 << 63), "unit: 8EiB"));
}

TAP_TEST(size_prints_what_it_reads)
{
	char text[SIZE_TEXT_MAX];

	for (unsigned bit = 0; bit < 64; bit++)
		for (uint64_t n = 1; n < 8; n += 2)
			TAP_EQ(parsed(size_exact(text, n << bit)), n << bit);
	TAP_OK(strcmp(size_exact(text, 0), "0") == 0);
	TAP_OK(strcmp(size_rounded(text, 512), "512 B") == 0);
	TAP_OK(strcmp(size_rounded(text, 16 * MF_GIB), "16.00 GiB") == 0);
	TAP_OK(strcmp(size_rounded(text, UINT64_MAX), "16.00 EiB") == 0);
}

TAP_MAIN()
