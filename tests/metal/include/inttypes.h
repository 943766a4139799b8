/* SPDX-License-Identifier: BSD-2-Clause */
/* inttypes.h - what tests use of it, on bare metal. */
#ifndef TESTS_METAL_INTTYPES_H
#define TESTS_METAL_INTTYPES_H

#include <stdint.h>

#define PRIu64 "lu"

#endif
