/* SPDX-License-Identifier: BSD-2-Clause */
/* string.h - what tests use of it, on bare metal.  mem*() are the port's (machines/x86_64/string.c). */
#ifndef TESTS_METAL_STRING_H
#define TESTS_METAL_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *memory, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
int strcmp(const char *a, const char *b);

#endif
