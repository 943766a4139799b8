/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libc.c - the functions of a C library that tests call, on the port's heap, formatter and command line.
 *
 * Owns nothing but the text of getenv().  A piece of memory is zero at first, and has a head of 64 bytes before it.
 */
#include "machines/x86_64/x86_64.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Strings ---------------------------------------------------------------------------------------------------- */

int strcmp(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b) {
		a++;
		b++;
	}
	return (unsigned char)*a - (unsigned char)*b;
}

int vsnprintf(char *text, size_t size, const char *format, va_list args)
{
	return (int)mf_vformat(text, size, format, args);
}

int snprintf(char *text, size_t size, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(text, size, format, args);
	va_end(args);
	return length;
}

static unsigned digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	return c >= 'a' && c <= 'z' ? (unsigned)(c - 'a' + 10) : 36;
}

/* Base 10 or 16, or 0: what the text says; lower case; no sign. */
unsigned long long strtoull(const char *text, char **end, int base)
{
	bool is_hex = text[0] == '0' && text[1] == 'x';
	unsigned radix = is_hex && base != 10 ? 16 : base ? (unsigned)base : 10;
	unsigned long long n = 0;

	if (radix == 16 && is_hex)
		text += 2;
	for (; digit_of(*text) < radix; text++)
		n = n * radix + digit_of(*text);
	if (end)
		*end = (char *)(uintptr_t)text;
	return n;
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

struct head {
	void *start;  /* what the heap gave                                                                    */
	size_t size;
	char pad[48];
};

static struct head *head_of(void *memory)
{
	return (struct head *)memory - 1;
}

void *aligned_alloc(size_t align, size_t size)
{
	uintptr_t memory;
	uint64_t bytes;
	void *start;

	align = mf_max(align, sizeof(struct head));
	start = mf_add_fits(size, align + sizeof(struct head), &bytes) ? heap_alloc(bytes) : NULL;
	if (!start)
		return NULL;
	memory = mf_round_up((uintptr_t)start + sizeof(struct head), align);
	*head_of((void *)memory) = (struct head){ .start = start, .size = size };
	return (void *)memory;
}

void *malloc(size_t size)
{
	return aligned_alloc(sizeof(struct head), size);
}

void *calloc(size_t nr, size_t size)
{
	uint64_t bytes;

	return mf_mul_fits(nr, size, &bytes) ? malloc(bytes) : NULL;
}

void free(void *memory)
{
	if (memory)
		heap_free(head_of(memory)->start);
}

void *realloc(void *memory, size_t size)
{
	void *larger = malloc(size);

	if (larger && memory) {
		memcpy(larger, memory, mf_min(head_of(memory)->size, size));
		free(memory);
	}
	return larger;
}

/* ---- The rest ---------------------------------------------------------------------------------------------------- */

char *getenv(const char *name)
{
	static char value[64];

	return (char *)(uintptr_t)boot_option(name, value, sizeof(value));
}

/* No clock: the processor's counter, in some billions. */
time_t time(time_t *out)
{
	time_t now = (time_t)(__builtin_ia32_rdtsc() >> 30);

	if (out)
		*out = now;
	return now;
}

void abort(void)
{
	console_write("# abort()\n");
	x86_exit(1);
}
