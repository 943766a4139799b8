/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * world.h - a machine with a map on it, for tests: made by name, checked as a whole, closed with a look for leaks.
 *
 *	struct world w;
 *
 *	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "sim", .nr_frames = 4 * WORLD_GIB_FRAMES }));
 *	TAP_EQ(world_add(&w, 0, 4 * WORLD_GIB_FRAMES), 0);
 *	...
 *	TAP_OK(world_check(&w));
 *	TAP_OK(world_close(&w));
 *
 * Owns the machine and the map.  Law: world_check() and world_close() answer false only after a TAP comment that says
 * why.
 * Does not: keep folios; whoever allocates frees, before world_close().
 */
#ifndef TESTS_LIB_WORLD_H
#define TESTS_LIB_WORLD_H

#include <memfold/memfold.h>

/* 4 KiB frames. */
#define WORLD_GIB_FRAMES ((mf_pfn_t)1 << 18)

/*
 * Machines by name:
 *   sim           x86-64 paging, 4 levels       sim-arm64-16k   arm64 paging, 16 KiB frames, 3 levels
 *   sim-5         x86-64 paging, 5 levels       sim-arm64-64k   arm64 paging, 64 KiB frames, 3 levels
 *   sim-high      x86-64 paging, 4 levels, frame 0 at 4 GiB
 *   linux         user space, memory described only
 *   x86_64        on bare metal, and nothing else there: see tests/metal/world_metal.c
 * Every sim poisons RAM and panics when a frame is reused before it is flushed.  world_machines are those that can be
 * had here, and ends with NULL; the first has page tables and frames of 4 KiB.
 */
extern const char *const world_machines[];
/* Is it one of these?  NULL stands for the first. */
bool world_has(const char *machine);

/* All zero but nr_frames is a good configuration. */
struct world_config {
	const char *machine;    /* NULL: the first of world_machines                                          */
	uint64_t nr_frames;     /* what regions may describe; the map's span                                  */
	uint64_t nr_real_frames; /* no region goes beyond these, where RAM stands on bare metal; 0: nr_frames     */
	uint64_t nr_ram_frames; /* tables: frames beside them; 0: enough to split all of it, and for a flat map of it */
	unsigned top;           /* of the map; 0: 2                                                          */
	enum mf_map_flags flags;
	/* Puts a machine of the test's in front of the sim; the map is made on what it returns, freed by nobody. */
	struct mf_machine *(*wrap)(void *ctx, struct mf_machine *machine);
	void *wrap_ctx;
	bool will_break;        /* the test ends in world_abandon(): a leak checker looks away until then           */
};

/* What can fail: RAM (where windows are the host's memory: populating them), control memory; these and addresses. */
enum world_sort { WORLD_RAM, WORLD_META, WORLD_ANY, WORLD_NR_SORTS };

struct world_fail {
	struct mf_machine_ops ops;
	const struct mf_machine_ops *inner; /* the machine's own                                             */
	enum world_sort sort;
	uint64_t at, nr;
};

struct world {
	const char *name;
	struct mf_machine *machine; /* what the map is on                                                     */
	struct mf_machine *sim;     /* the sim itself, when that is one                                        */
	struct mf_machine *metal;   /* the machine of bare metal itself, when it is on that                    */
	struct mf_map *map;
	struct world_fail fail;     /* world_fail()'s; the world is not moved meanwhile                        */
	bool will_break;
	uint64_t stray_writes;      /* faults that a test provoked and caught: world_close() forgives so many      */
};

/* True when it stands; false after a comment, nothing left behind. */
bool world_open(struct world *w, const struct world_config *config);
/* Its first half: the machine without a map.  The test sets w->map; or closes it without. */
bool world_open_machine(struct world *w, const struct world_config *config);

/* 0 or the error of mf_region_add(); id may be NULL.  The short forms use node 0, the map's top; flat: source RAM. */
int world_add_region(struct world *w, const struct mf_region_config *config, unsigned *id);
int world_add(struct world *w, mf_pfn_t start_pfn, mf_pfn_t end_pfn);
int world_add_flat(struct world *w, mf_pfn_t start_pfn, mf_pfn_t end_pfn);

/* A folio of this order from any node, or NULL.  May wait. */
struct mf_folio *world_alloc(struct world *w, unsigned order);

/* Every law that mf_map_check() knows; on sim no stale translation, no stray write but those in w->stray_writes. */
bool world_check(struct world *w);

/* The law that mf_map_check() finds broken ("M1" ...), "" when none is. */
const char *world_broken_law(struct world *w);

/*
 * The n-th allocation of this sort that the map asks for from now on (1: the next) fails as if there were no memory,
 * once; 0: none does.  Until world_fail_end(), which answers how many it asked for.  One thread only.
 */
void world_fail(struct world *w, enum world_sort sort, uint64_t n);
uint64_t world_fail_end(struct world *w);

/* Frames of RAM, pieces of control memory and translations that are out now; on linux nobody counts: 0. */
struct world_used {
	uint64_t nr_ram, nr_meta, nr_fills;
};
struct world_used world_used(const struct world *w);

/* Order of a block of this tier on the world's machine: 0, 9, 18 for 4 KiB frames. */
unsigned world_block_order(const struct world *w, unsigned tier);

/*
 * world_check(), all regions removed, the map destroyed, and nothing left: no RAM, no control memory.  The machine is
 * gone afterwards in any case; a region that cannot be removed (a folio was left in it) is a comment, false, and a
 * leak.
 */
bool world_close(struct world *w);

/*
 * After a panic inside the map, or a corruption: the machine goes, the map's control memory is leaked.  On linux the
 * machine is leaked as well.
 */
void world_abandon(struct world *w);

#endif
