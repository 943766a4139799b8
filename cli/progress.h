/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * progress.h - says on standard error, once a second, how far a step is that takes longer than that.
 *
 * A thread of its own speaks, so that a step is not slowed down and one that cannot say how far it is is told of too.
 * One step at a time; begin and end are called by the main thread.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Ends the step before.  The texts stay the caller's and are constant.  wanted: false does nothing. */
void progress_begin(bool wanted, const char *what, const char *step);

/* How far the step is, of how much. */
void progress_at(uint64_t done, uint64_t all);

/* Wipes the line, if there is one. */
void progress_end(void);

#endif
