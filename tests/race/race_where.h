/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_where.h - what test_race.c wants of where it runs, and what the tests themselves, which stand there, call.
 *
 *   tests/race/race_hosted.c      a process: every kind of machine
 *   tests/metal/race_metal.c      bare metal: the one machine, on several processors
 */
#ifndef TESTS_RACE_RACE_WHERE_H
#define TESTS_RACE_RACE_WHERE_H

#include "tests/race/race.h"

/* race.nr_ops, when MF_OPS does not say. */
uint64_t race_usual_ops(enum slow_kind kind);
/* What the map of the race takes: the same in the end as at first.  Not 0. */
uint64_t race_size(void);

/* Frames that the map says it takes. */
uint64_t race_frames_of_map(void);
/* From nothing to nothing: a machine of that kind, the map, one of the four below; adds to race.total. */
void race_on(enum slow_kind kind, void (*run)(void));
/* From the first state of the map to the first state. */
void race_there_and_back(void);
void race_without_edges(void);
void race_with_diets(void);
/* A CPU for each thread, and for the one that waits: as many threads as that makes, two at least. */
void race_of_few(void);

#endif
