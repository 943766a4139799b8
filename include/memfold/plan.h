/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan.h - what a memory map would cost, without the memory: frames in map slots and in page tables for a range of a
 * given size, under each scheme.
 *
 * Owns no state.  Integers only; the time does not depend on the size of the range.  Law: the figures are those of the
 * engine on a MF_WINDOW_TABLES machine, frame by frame; for the Linux schemes with MF_MAP_PRIVATE_TABLES, and less what
 * only memfold has (the windows above W_0, the zero frame).  Exceptions: with source self and a partial top block,
 * which blocks the engine sets aside depends on the order of allocations, and tables and idle frames differ by a few;
 * and the engine leaves on no diet what lies in a partial block of tier 1.  Does not know what is allocated.
 *
 * How it counts.  The range is [0, described_frames), alone in its map, whose top tier is 2.  b = page_shift - 3, a
 * block of tier t is 2^(b*t) frames, a unit is 2^unit_order frames.
 *   - Every frame that backs a map slot, the zero frame among them, is a descriptor frame.  Every page table below
 *     the root is a table frame, shared ones too; shared frames and tables count once.
 *   - Windows: back to back in ascending tiers from address 0, for a span rounded up to a power of two of at least
 *     one top block.  levels = 0 takes the fewest that reach the end of the windows, but never below 3, so that a
 *     leaf of level 1 stands below the root.
 *   - Always there: one zero frame, one shared table for each level below the root.
 *   - Edges: a partial top block is split, and so is a partial block of tier 1.  A split block has 8 slots one tier
 *     down.
 *   - flat: slots of W_0 for all blocks of tier 1, partial ones too, by leaves of level 1 where one lies entirely
 *     under full blocks; slots of W_1 under an edge only; the slots of W_2.
 *   - tiered: the slots of W_2; slots of W_1 under every split top block; slots of W_0 under every split block of
 *     tier 1.  Units of less than one top block split every top block, units of less than one block of tier 1 split
 *     all.
 *   - Split units are described by base pages throughout.  They are the lowest units behind those that set-aside
 *     blocks lie in, as long as enough units are left; where there are not, blocks are set aside inside split
 *     units.
 *   - Source self: the slots of W_2, what edges need, and the tables of both come from RAM.  A split block of tier
 *     1 hosts its own 8 slots.  The rest comes from set-aside blocks of 2^b - 8 frames each, the lowest blocks of
 *     the range: as few as serve it, their own tables included.  Source self of flat: the frames of W_0 are the
 *     first frames of the range.
 *   - All other sources count as RAM: the same frames, elsewhere.
 *   - The Linux schemes: slots of P bytes for one array of 64 bytes a frame, with private tables, no zero frame,
 *     nothing shared but the tail frame of hvo-7.1.  A unit of more than 1 slot (hvo-5.14, devdax: more than 2)
 *     that is not split keeps 1 of them (2), any other unit all.  The split units are the lowest.  Units that keep
 *     all their slots are mapped by leaves of level 1 where one has no part of others: under hvo, and under
 *     devdax-altmap where P is 4 KiB; all else is mapped slot by slot.  The source is RAM, but the slots of
 *     devdax-altmap are the first frames of the range; with P of 4 KiB what fills no leaf is in RAM.
 */
#ifndef MEMFOLD_PLAN_H
#define MEMFOLD_PLAN_H

#include <memfold/memmap.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One vocabulary with enum mf_layout: a layout and the scheme of the same name are the same thing. */
enum mf_scheme {
	MF_SCHEME_FLAT,
	MF_SCHEME_HVO_5_14,
	MF_SCHEME_HVO_5_18,
	MF_SCHEME_HVO_7_1,
	MF_SCHEME_DEVDAX,
	MF_SCHEME_DEVDAX_ALTMAP,
	MF_SCHEME_TIERED,
	MF_NR_SCHEMES,
};

/* "flat", "hvo-5.14" ... "tiered"; NULL for a number that is no scheme.  The reverse: -MF_EINVAL for an unknown one. */
MF_API const char *mf_scheme_name(enum mf_scheme scheme);
MF_API MF_MUST_CHECK int mf_scheme_by_name(const char *name, enum mf_scheme *scheme);

/* Largest range: 1 EiB. */
#define MF_PLAN_BYTES_MAX ((uint64_t)1 << 60)

struct mf_plan_input {
	uint64_t described_frames;
	unsigned page_shift;     /* log2(P): 12, 14 or 16                                                      */
	unsigned levels;         /* of page tables, root included: 2 to MF_PGTABLE_LEVELS_MAX; 0: the fewest that fit */
	unsigned unit_order;     /* log2 of the frames of one unit                                             */
	unsigned top;            /* highest tier of the region's blocks, 1 or 2; 0 means 2                     */
	uint64_t nr_split_units; /* units that are used as base pages                                          */
	enum mf_source source;
};

struct mf_plan {
	uint64_t descriptor_frames;   /* frames that back map slots, the zero frame included                   */
	uint64_t table_frames;        /* page tables below the root                                            */
	uint64_t total_frames;        /* both                                                                  */
	uint64_t hosted_frames;       /* of total_frames: inside the range itself                              */
	uint64_t set_aside_blocks;    /* blocks of tier 1 that are the map pool                                */
	uint64_t pool_idle_frames;    /* frames of set-aside blocks that nothing uses; not in total_frames     */
	uint64_t nr_units;            /* units in the range; frames behind the last whole unit stay free       */
	uint64_t nr_units_obtainable; /* units that the allocator can hand out, split ones included            */
	uint64_t described_bytes, descriptor_bytes, table_bytes, total_bytes, pool_idle_bytes;
	unsigned levels;              /* of page tables, root included                                         */
};

/*
 * Says what the scheme costs for the range.
 * Gives: *out.
 * Fails, *out unchanged: -MF_EINVAL (unknown scheme or source, page_shift, levels or top out of range, an empty
 * range, a unit larger than the range, more split units than units), -MF_E2BIG (beyond MF_PLAN_BYTES_MAX, or more
 * than the levels reach).
 * May: nothing; any thread, any context.
 */
MF_API MF_MUST_CHECK int mf_plan(enum mf_scheme scheme, const struct mf_plan_input *in, struct mf_plan *out);

/*
 * Units in a share of them, rounded down: nr_units * numerator / denominator.
 * Fails, *nr_split unchanged: -MF_EINVAL (denominator 0 or above 2^32, numerator > denominator).
 */
MF_API MF_MUST_CHECK int mf_plan_split_units(uint64_t nr_units, uint64_t numerator, uint64_t denominator,
					     uint64_t *nr_split);

#ifdef __cplusplus
}
#endif
#endif
