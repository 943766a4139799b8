/* SPDX-License-Identifier: BSD-2-Clause */
/* stdlib.h - what tests use of it, on bare metal: the port's heap, the kernel's command line as environment. */
#ifndef TESTS_METAL_STDLIB_H
#define TESTS_METAL_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *aligned_alloc(size_t align, size_t size);
void *calloc(size_t nr, size_t size);
void *realloc(void *memory, size_t size);
void free(void *memory);

/* The value of "name=value" in the command line; good until the next call. */
char *getenv(const char *name);
unsigned long long strtoull(const char *text, char **end, int base);
/* Ends the machine, as a failure. */
_Noreturn void abort(void);

#endif
