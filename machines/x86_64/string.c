/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * string.c - the four functions that a compiler calls of its own accord.
 *
 * Law: their bodies are string instructions, or loops that no compiler takes for a call of the function itself.
 */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

/* Words, then the odd bytes; the direction flag is clear by the ABI. */
static void copy_upwards(void *to, const void *from, size_t size)
{
	size_t words = size / sizeof(uint64_t), bytes = size % sizeof(uint64_t);

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

/* Without the direction flag: who leaves by a fault would take it along. */
static void copy_downwards(unsigned char *to, const unsigned char *from, size_t size)
{
	while (size-- > 0) {
		to[size] = from[size];
		__asm__ volatile("" : : : "memory");
	}
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	copy_upwards(to, from, size);
	return to;
}

void *memmove(void *to, const void *from, size_t size)
{
	if ((uintptr_t)to - (uintptr_t)from >= size)
		copy_upwards(to, from, size);
	else
		copy_downwards(to, from, size);
	return to;
}

void *memset(void *to, int byte, size_t size)
{
	void *at = to;
	uint64_t pattern = (uint8_t)byte * UINT64_C(0x0101010101010101);
	size_t words = size / sizeof(uint64_t), bytes = size % sizeof(uint64_t);

	__asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(pattern) : "memory");
	__asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(pattern) : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const unsigned char *left = a, *right = b;

	for (size_t i = 0; i < size; i++)
		if (left[i] != right[i])
			return left[i] < right[i] ? -1 : 1;
	return 0;
}
