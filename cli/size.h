/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * size.h - sizes and shares as users write them: "8GiB", "512MiB", "4096", "0x200000"; "0.25", "25%", "1/4".
 *
 * KiB, MiB, GiB, TiB, PiB and EiB count by 1024; nothing counts by 1000, and "2MB" is refused.  Every function that
 * can fail returns 0 or a negative MF_E*, leaves its result alone on failure and puts one sentence, without a final
 * full stop, into `message`.
 */
#ifndef CLI_SIZE_H
#define CLI_SIZE_H

#include <memfold/base.h>

enum { SIZE_TEXT_MAX = 32 };

MF_MUST_CHECK int size_parse(const char *text, uint64_t *bytes, char *message, size_t message_size);

/* 4KiB, 16KiB or 64KiB. */
MF_MUST_CHECK int size_parse_page(const char *text, unsigned *page_shift, char *message, size_t message_size);

/* A share between 0 and 1 with at most 9 decimals: numerator / denominator, the latter at most 10^9. */
MF_MUST_CHECK int size_parse_share(const char *text, uint64_t *numerator, uint64_t *denominator, char *message,
				   size_t message_size);

/*
 * Are size and unit those of a range: the unit a power of two of at least a page, the size a multiple of it,
 * neither 0 nor above 1 EiB?  The message starts with "size: " or "unit: ".
 */
MF_MUST_CHECK int size_check_units(unsigned page_shift, uint64_t size_bytes, uint64_t unit_bytes, char *message,
				   size_t message_size);

/* Exactly, as size_parse() takes it: "2MiB", "5000".  At most SIZE_TEXT_MAX bytes; returns text. */
const char *size_exact(char text[SIZE_TEXT_MAX], uint64_t bytes);

/* For people: "16.00 GiB", "512 B". */
const char *size_rounded(char text[SIZE_TEXT_MAX], uint64_t bytes);

#endif
