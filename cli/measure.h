/* SPDX-License-Identifier: BSD-2-Clause */
/* measure.h - what this process really uses, as the kernel tells it. */
#ifndef CLI_MEASURE_H
#define CLI_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Resident bytes of the private mappings inside [start, start + size): the zero page is not among them.  0 when
 * unreadable.
 */
uint64_t measure_private(const void *start, uint64_t size_bytes);

/* Bytes in page tables of the whole process (VmPTE). */
uint64_t measure_page_tables(void);

/*
 * Bytes of addresses that this process can still map, by its limit (RLIMIT_AS) and by what the host has for a
 * process.
 */
uint64_t measure_addresses(void);

/* Monotonic. */
uint64_t measure_now_ns(void);

#endif
