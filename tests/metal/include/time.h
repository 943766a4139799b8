/* SPDX-License-Identifier: BSD-2-Clause */
/* time.h - what tests use of it, on bare metal: a number that is another one each time, for seeds. */
#ifndef TESTS_METAL_TIME_H
#define TESTS_METAL_TIME_H

typedef long time_t;

time_t time(time_t *out);

#endif
