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
 *   linux         user space, memory described only
 * Every sim poisons RAM and panics when a frame is reused before it is flushed.  world_machines ends with NULL.
 */
extern const char *const world_machines[];

/* All zero but nr_frames is a good configuration. */
struct world_config {
	const char *machine;    /* NULL: "sim"                                                                */
	uint64_t nr_frames;     /* what regions may describe; the map's span                                  */
	uint64_t nr_ram_frames; /* sim: frames behind them; 0: enough to split all of it, and for a flat map of it    */
	unsigned top;           /* of the map; 0: 2                                                          */
	enum mf_map_flags flags;
	/* Puts a machine of the test's in front of the sim; the map is made on what it returns, freed by nobody. */
	struct mf_machine *(*wrap)(void *ctx, struct mf_machine *machine);
	void *wrap_ctx;
	bool will_break;        /* the test ends in world_abandon(): a leak checker looks away until then           */
};

struct world {
	const char *name;
	struct mf_machine *machine; /* what the map is on                                                     */
	struct mf_machine *sim;     /* the sim itself; NULL on linux                                           */
	struct mf_map *map;
	bool will_break;
	uint64_t stray_writes;      /* faults that a test provoked and caught: world_close() forgives so many      */
};

/* True when it stands; false after a comment, nothing left behind. */
bool world_open(struct world *w, const struct world_config *config);

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

/* Order of a block of this tier on the world's machine: 0, 9, 18 for 4 KiB frames. */
unsigned world_block_order(const struct world *w, unsigned tier);

/*
 * world_check(), all regions removed, the map destroyed, and nothing left: no RAM, no control memory.  The machine is
 * gone afterwards in any case; a region that cannot be removed (a folio was left in it) is a comment, false, and a
 * leak.
 */
bool world_close(struct world *w);

/*
 * After a panic inside the map, or a corruption: the sim goes, the map's control memory is leaked.  On linux the
 * machine is leaked as well.
 */
void world_abandon(struct world *w);

#endif
