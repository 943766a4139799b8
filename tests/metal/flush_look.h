/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flush_look.h - what every processor sees through the windows, held against what the page tables say.
 *
 *	static struct look l;
 *
 *	TAP_REQUIRE(look_open(&l, &(struct world_config){ .nr_frames = WORLD_GIB_FRAMES }));
 *	look_away(&l);
 *	look_focus(&l, pfn, order);      the slots that the next step will change
 *	look_load(&l);                   in every processor's TLB from now on
 *	... the step: after each of its flushes all that it changed in that range is looked at
 *	look_after(&l);                  and all that it changed anywhere
 *	...
 *	look_close(&l);
 *
 * How a processor is asked where a slot leads: the slot's frame is written to through the direct map, the processor
 * reads through the window.  Where the tables say read-only, it reads the frame's contents and its write faults; where
 * they say writable, it does not.
 *
 * l.leaves_out: each flush is done without its interrupts first, and the other processors are looked at; then it is
 * done again.  So each flush is one that was left out, in a sequence that is the same every time.
 */
#ifndef TESTS_METAL_FLUSH_LOOK_H
#define TESTS_METAL_FLUSH_LOOK_H

#include "tests/lib/saboteur.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

#include "core/memmap/map.h"

enum { LOOK_SPOTS_MAX = 512 };

/* A slot, and where it leads. */
struct look_spot {
	uintptr_t va;
	uint64_t *frame;     /* in the direct map                                                              */
	bool writable;
	unsigned loaded_by;  /* the processor that is to hold the translation                                    */
	uint64_t nonce;      /* then: in the frame's last word, in place of what was there                       */
	uint64_t saved;
};

/* A step without its interrupts. */
struct look_left_out {
	uint64_t flushes;    /* of them                                                                        */
	uint64_t required;   /* the dues said so                                                               */
	uint64_t visible;    /* and a slot that the others had loaded leads elsewhere now, or is read-only          */
	uint64_t seen;       /* and one of the others went on as before                                         */
};

struct look {
	struct saboteur saboteur;
	struct world own, *w;
	uint64_t *known;     /* of each slot: where processors were shown to be led, last                        */
	uint8_t *loaded;     /* since the last flush                                                           */
	uint64_t nr_slots;
	uint64_t nr_served;  /* by all processors, then                                                        */
	uintptr_t focus[LOOK_SPOTS_MAX];
	unsigned nr_focus;
	bool leaves_out;
	struct look_left_out left_out[MF_NR_FLUSH_FOR];
	uint64_t total[MF_NR_FLUSH_FOR]; /* flushes of a purpose when the running one was left out                */
	uint64_t nr_stale;   /* slots seen otherwise than the tables say, by the number of processors              */
	uint64_t nonce;
};

/* A world of its own; false after a comment. */
bool look_open(struct look *l, const struct world_config *config);
/* In two steps: what a world is to be opened with; and from now on. */
struct world_config look_config(struct look *l, const struct world_config *config);
void look_begin(struct look *l, struct world *w);

/*
 * Removes all regions; all laws held, nothing was seen that was stale, no flush came too late, none was not watched: as
 * TAP checks.  end: the world is its owner's again.  From here on a flush that is due panics.
 */
void look_end(struct look *l);
void look_close(struct look *l);

/* Nothing; and more: the descriptors of these frames on every tier, at most the first and the last 32 slots of each. */
void look_away(struct look *l);
void look_focus(struct look *l, mf_pfn_t pfn, unsigned order);
void look_load(struct look *l);
void look_after(struct look *l);

#endif
