/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flat_machine.h - the smallest machine: physical memory is one array, the direct map is that array.
 *
 * Owns the array.  Law: a frame from ram_get holds junk, so that nobody relies on zeroes.  Has no processor, no TLB and
 * no windows: page tables are built in it and read by mf_pgtable_walk() only.  Direct-map protection is recorded, not
 * kept. Not thread-safe.
 */
#ifndef TESTS_LIB_FLAT_MACHINE_H
#define TESTS_LIB_FLAT_MACHINE_H

#include <memfold/machine.h>

struct flat_machine {
	struct mf_machine machine;
	uint64_t nr_frames;
	uint64_t nr_free;
	uint64_t nr_read_only;
	bool *taken;           /* [pfn] */
	bool *read_only;       /* [pfn]: in the direct map */
	uint64_t ram_fails_at; /* the n-th ram_get from now on, and all after it, fail; 0: none */
	uint64_t nr_flushes;
	enum mf_flush_scope last_flush;
};

/* Returns 0, or -MF_ENOMEM.  Frame 0 is never handed out: a pfn of 0 is a mistake then. */
int flat_machine_create(struct flat_machine *flat, struct mf_paging paging, uint64_t nr_frames);
void flat_machine_destroy(struct flat_machine *flat);

#endif
