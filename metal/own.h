/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * own.h - a kernel's first step: all memory of the machine in one map.
 *
 *   boot map    [RAM][image][RAM .........][data]     hole     [RAM .............][source RAM]
 *   regions      tiered reserved  tiered   reserved            tiered             reserved
 *
 * Frames are numbered from physical address 0.  RAM becomes tiered regions that host their own map (source self); the
 * image, boot data and memory that firmware keeps are reserved regions; holes and devices are described by nothing.
 *
 * A block of 2 MiB that is RAM in part only is described frame by frame, which takes eight frames of source RAM and some
 * tables.  Where it has no more RAM than that it is reserved as a whole, with what else lies in it: RAM that nobody has
 * for that reason is `withheld`.
 */
#ifndef METAL_OWN_H
#define METAL_OWN_H

#include <memfold/memfold.h>

struct own {
	struct mf_machine *machine;
	struct mf_map *map;
	uint64_t described_bytes; /* of tiered regions                                                         */
	uint64_t ram_start, ram_bytes; /* source RAM, physical                                                 */
	uint64_t withheld_bytes;  /* RAM that would take as much again to be described                          */
};

/*
 * Everything above, with source RAM taken from the end of the smallest RAM range that has so much: ram_bytes or
 * a little more, whole frames.
 * All that can go wrong at boot is fatal: panics in a sentence.
 */
void own_all_memory(struct own *own, uint64_t ram_bytes);
/* All folios are free again: regions, map and machine go.  Panics when something is left. */
void own_nothing(struct own *own);

/* ---- count.c --------------------------------------------------------------------------------------------------- */

/* What the processor sees: distinct frames that the page tables of the map's windows lead to. */
struct counted {
	uint64_t slots;  /* frames that back descriptors, the zero frame among them                              */
	uint64_t tables; /* frames of tables, the windows' root included                                       */
};

/* Walks the real tables from CR3 on.  Needs: nobody changes them meanwhile.  Panics without memory to remember frames. */
struct counted count_windows(const struct own *own);
static inline uint64_t counted_bytes(struct counted c)
{
	return (c.slots + c.tables) * 4096;
}

#endif
