/* SPDX-License-Identifier: BSD-2-Clause */
/* memfold.h - everything a user of the core includes.  Machines have headers of their own: linux.h, sim.h. */
#ifndef MEMFOLD_H
#define MEMFOLD_H

#include <memfold/base.h>
#include <memfold/machine.h>
#include <memfold/pgtable.h>
#include <memfold/memmap.h>
#include <memfold/diet.h>
#include <memfold/plan.h>
#include <memfold/frames.h>
#include <memfold/folio.h>

#endif
