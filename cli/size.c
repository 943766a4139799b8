/* SPDX-License-Identifier: BSD-2-Clause */
/* size.c - see size.h.  Owns no state.  Law: every number is checked against 64 bits before it is used. */
#include "cli/size.h"
#include "cli/message.h"
#include <ctype.h>
#include <inttypes.h>
#include <memfold/plan.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { NR_PREFIXES = 6, DECIMALS_MAX = 9 };

static const char prefixes[NR_PREFIXES + 1] = "KMGTPE";

#define SIZE_SHOULD_BE "write a whole number with B, KiB, MiB, GiB, TiB, PiB or EiB, as in 8GiB"

static const char *too_large(const char *text, char *message, size_t size)
{
	snprintf(message, size, "%s does not fit in 64 bits; the largest size is 1EiB", message_quote(text));
	return NULL;
}

/* Digits of the radix; NULL, with a message, when there is none or the number does not fit; else what follows them. */
static const char *parse_digits(const char *text, const char *digits, unsigned radix, uint64_t *number, char *message,
				size_t size)
{
	const char *p = digits;
	uint64_t n = 0;

	for (; isxdigit((unsigned char)*p); p++) {
		unsigned digit = isdigit((unsigned char)*p) ? (unsigned)(*p - '0')
							     : (unsigned)(tolower((unsigned char)*p) - 'a') + 10;

		if (digit >= radix)
			break;
		if (!mf_mul_fits(n, radix, &n) || !mf_add_fits(n, digit, &n))
			return too_large(text, message, size);
	}
	if (p == digits) {
		snprintf(message, size, "%s is no size; " SIZE_SHOULD_BE, message_quote(text));
		return NULL;
	}
	*number = n;
	return p;
}

/* log2 of what the suffix stands for; -1, with a message, when it stands for nothing. */
static int parse_suffix(const char *text, const char *suffix, uint64_t number, char *message, size_t size)
{
	const char *prefix = *suffix ? strchr(prefixes, toupper((unsigned char)*suffix)) : NULL;

	if (strcmp(suffix, "") == 0 || strcmp(suffix, "B") == 0)
		return 0;
	if (prefix && *suffix == *prefix && strcmp(suffix + 1, "iB") == 0)
		return 10 * (int)(prefix - prefixes + 1);
	if (prefix && (suffix[1] == '\0' || strcasecmp(suffix + 1, "B") == 0 || strcasecmp(suffix + 1, "iB") == 0 ||
		       strcasecmp(suffix + 1, "i") == 0))
		snprintf(message, size, "%s: %s is no unit here, sizes count by 1024; use %" PRIu64 "%ciB",
			 message_quote(text), message_quote(suffix), number, *prefix);
	else if (*suffix == '.')
		snprintf(message, size, "%s is no whole number; use a smaller unit, as in 1536MiB for 1.5GiB",
			 message_quote(text));
	else
		snprintf(message, size, "%s: %s is no unit; " SIZE_SHOULD_BE, message_quote(text),
			 message_quote(suffix));
	return -1;
}

int size_parse(const char *text, uint64_t *bytes, char *message, size_t message_size)
{
	bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *end;
	uint64_t number;
	int shift;

	end = parse_digits(text, text + (is_hex ? 2 : 0), is_hex ? 16 : 10, &number, message, message_size);
	if (!end)
		return -MF_EINVAL;
	shift = parse_suffix(text, end, number, message, message_size);
	if (shift < 0)
		return -MF_EINVAL;
	if (!mf_mul_fits(number, (uint64_t)1 << shift, &number)) {
		too_large(text, message, message_size);
		return -MF_EOVERFLOW;
	}
	*bytes = number;
	return 0;
}

int size_parse_page(const char *text, unsigned *page_shift, char *message, size_t message_size)
{
	uint64_t bytes;
	int err = size_parse(text, &bytes, message, message_size);

	if (err)
		return err;
	if (bytes != 4 * MF_KIB && bytes != 16 * MF_KIB && bytes != 64 * MF_KIB) {
		snprintf(message, message_size, "%s is no page size; use 4KiB, 16KiB or 64KiB", message_quote(text));
		return -MF_EINVAL;
	}
	*page_shift = mf_log2(bytes);
	return 0;
}

/* "12.345" as 12345 / 1000; at most `decimals` digits behind the point, few enough in all to fit. */
static bool parse_decimal(const char *text, size_t length, unsigned decimals, uint64_t *numerator,
			  uint64_t *denominator)
{
	uint64_t n = 0, d = 1;
	bool behind = false;

	if (length == 0 || !isdigit((unsigned char)text[0]) || !isdigit((unsigned char)text[length - 1]))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '.' && !behind) {
			behind = true;
			continue;
		}
		if (!isdigit((unsigned char)text[i]) || n >= MF_TIB || (behind && decimals-- == 0))
			return false;
		n = n * 10 + (uint64_t)(text[i] - '0');
		d *= behind ? 10 : 1;
	}
	*numerator = n;
	*denominator = d;
	return true;
}

int size_parse_share(const char *text, uint64_t *numerator, uint64_t *denominator, char *message, size_t message_size)
{
	const char *slash = strchr(text, '/');
	size_t length = strlen(text);
	bool is_percent = length > 0 && text[length - 1] == '%';
	uint64_t n, d, one;
	bool good;

	if (slash)
		good = parse_decimal(text, (size_t)(slash - text), 0, &n, &one) &&
		       parse_decimal(slash + 1, strlen(slash + 1), 0, &d, &one) && d <= 1000000000;
	else if (is_percent)
		good = parse_decimal(text, length - 1, DECIMALS_MAX - 2, &n, &d);
	else
		good = parse_decimal(text, length, DECIMALS_MAX, &n, &d);
	if (good && is_percent)
		d *= 100;
	if (!good || d == 0 || n > d) {
		snprintf(message, message_size,
			 "%s is no share; write one between 0 and 1 with at most 9 decimals, as in 0.25, 25%% or 1/4",
			 message_quote(text));
		return -MF_EINVAL;
	}
	*numerator = n;
	*denominator = d;
	return 0;
}

static int check_unit(unsigned page_shift, uint64_t unit, char *message, size_t size)
{
	char given[SIZE_TEXT_MAX], page[SIZE_TEXT_MAX], below[SIZE_TEXT_MAX], above[SIZE_TEXT_MAX];

	size_exact(given, unit);
	size_exact(page, (uint64_t)1 << page_shift);
	if (unit < (uint64_t)1 << page_shift) {
		snprintf(message, size, "unit: %s is less than one page; use %s or more", given, page);
		return -MF_EINVAL;
	}
	if (unit > MF_PLAN_BYTES_MAX) {
		snprintf(message, size, "unit: %s is more than 1EiB, the largest range", given);
		return -MF_E2BIG;
	}
	if (!mf_is_power_of_two(unit)) {
		snprintf(message, size, "unit: %s is no power of two; use %s or %s", given,
			 size_exact(below, (uint64_t)1 << mf_log2(unit)),
			 size_exact(above, (uint64_t)2 << mf_log2(unit)));
		return -MF_EINVAL;
	}
	return 0;
}

int size_check_units(unsigned page_shift, uint64_t size_bytes, uint64_t unit_bytes, char *message, size_t message_size)
{
	char given[SIZE_TEXT_MAX], unit[SIZE_TEXT_MAX], right[SIZE_TEXT_MAX];
	int err = check_unit(page_shift, unit_bytes, message, message_size);

	if (err)
		return err;
	size_exact(given, size_bytes);
	size_exact(unit, unit_bytes);
	if (size_bytes == 0) {
		snprintf(message, message_size, "size: 0 is no range; use a multiple of the unit, %s", unit);
		return -MF_EINVAL;
	}
	if (size_bytes > MF_PLAN_BYTES_MAX) {
		snprintf(message, message_size, "size: %s is more than 1EiB, the largest range", given);
		return -MF_E2BIG;
	}
	if (size_bytes & (unit_bytes - 1)) {
		size_exact(right, mf_round_up(size_bytes, unit_bytes));
		snprintf(message, message_size, "size: %s is no multiple of the unit, %s; use %s", given, unit, right);
		return -MF_EINVAL;
	}
	return 0;
}

const char *size_exact(char text[SIZE_TEXT_MAX], uint64_t bytes)
{
	unsigned prefix = bytes ? mf_ctz(bytes) / 10 : 0;

	if (prefix == 0)
		snprintf(text, SIZE_TEXT_MAX, "%" PRIu64, bytes);
	else
		snprintf(text, SIZE_TEXT_MAX, "%" PRIu64 "%ciB", bytes >> 10 * prefix, prefixes[prefix - 1]);
	return text;
}

const char *size_rounded(char text[SIZE_TEXT_MAX], uint64_t bytes)
{
	unsigned prefix = bytes ? mf_log2(bytes) / 10 : 0;

	if (prefix == 0)
		snprintf(text, SIZE_TEXT_MAX, "%" PRIu64 " B", bytes);
	else
		snprintf(text, SIZE_TEXT_MAX, "%.2f %ciB", (double)bytes / (double)((uint64_t)1 << 10 * prefix),
			 prefixes[prefix - 1]);
	return text;
}
