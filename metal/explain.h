/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * explain.h - lets the port say where in a map an address lies that has faulted.
 */
#ifndef METAL_EXPLAIN_H
#define METAL_EXPLAIN_H

struct mf_map;

/* From now on x86_describe_fault() and reports explain windows by this map; NULL: by none. */
void explain_map(const struct mf_map *map);

#endif
