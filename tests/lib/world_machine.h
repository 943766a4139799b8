/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * world_machine.h - what world.c wants of where the tests run: which machines there are, and how they are made, looked
 * at and ended.
 *
 *   tests/lib/world_hosted.c     a process: sims and linux
 *   tests/metal/world_metal.c    bare metal: the machine itself
 */
#ifndef TESTS_LIB_WORLD_MACHINE_H
#define TESTS_LIB_WORLD_MACHINE_H

#include "tests/lib/world.h"

/* Sets w->machine, and what else world_machine_destroy() needs; w->name is set.  0, or an error after a comment. */
int world_machine_create(struct world *w, const struct world_config *config);
void world_machine_destroy(struct world *w);
/* The same when a map may still use it; what cannot be had back then is leaked. */
void world_machine_abandon(struct world *w);
/* The laws that only the machine knows of; false after a comment. */
bool world_machine_check(struct world *w);

/* Frames of RAM: for all of it flat (1/64), tables of 4 KiB leaves for that (2^-9 of it), and as much to try more. */
static inline uint64_t world_plenty(uint64_t nr_frames)
{
	return nr_frames / 16 + 4096;
}

#endif
