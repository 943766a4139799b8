/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tap_write.c - where comments of tests/lib go in programs without TAP_MAIN(): fuzz targets.  Weak, as TAP_MAIN()'s
 * is.
 */
#include "tests/tap.h"

TAP_DEFINE_WRITE
