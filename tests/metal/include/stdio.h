/* SPDX-License-Identifier: BSD-2-Clause */
/* stdio.h - what tests use of it, on bare metal: texts into memory, in the formats of mf_format(). */
#ifndef TESTS_METAL_STDIO_H
#define TESTS_METAL_STDIO_H

#include <memfold/base.h>

int snprintf(char *text, size_t size, const char *format, ...) MF_PRINTF(3, 4);
int vsnprintf(char *text, size_t size, const char *format, va_list args) MF_PRINTF(3, 0);

#endif
