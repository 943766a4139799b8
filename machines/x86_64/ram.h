/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ram.h - the frames of one machine that lie outside every region: for machine.c, which owns one of these.
 */
#ifndef MEMFOLD_MACHINES_X86_64_RAM_H
#define MEMFOLD_MACHINES_X86_64_RAM_H

#include <memfold/base.h>

/* Blocks of 2^0 ... 2^31 frames; a range has fewer than 2^32. */
enum { RAM_ORDERS = 32 };

struct ram {
	struct mf_lock lock;
	mf_pfn_t start, end;
	char *memory;              /* of frame `start`, where it is to be filled with junk; else NULL            */
	struct ram_link *link;     /* lock: [frame]                                                             */
	uint8_t *state;            /* lock: [frame]                                                             */
	uint32_t first[RAM_ORDERS]; /* lock: of the lists of free blocks                                         */
	uint32_t orders;           /* lock: bit o: first[o] leads to a block                                    */
	uint64_t nr_used;          /* lock                                                                     */
};

/* All of [start, end) is free.  memory: filled with 0xA5 when a frame comes or goes; NULL: left alone.  0, -MF_ENOMEM. */
MF_MUST_CHECK int ram_init(struct ram *ram, mf_pfn_t start, mf_pfn_t end, char *memory);
void ram_exit(struct ram *ram);

/* 2^order frames, naturally aligned by pfn.  0, -MF_ENOMEM. */
MF_MUST_CHECK int ram_take(struct ram *ram, unsigned order, mf_pfn_t *pfn);
/* What was taken, whole or in naturally aligned pieces, once; panics otherwise, nothing changed. */
void ram_give(struct ram *ram, unsigned order, mf_pfn_t pfn);

uint64_t ram_nr_used(struct ram *ram);
/* Calls visit for each frame that is out.  Needs: nobody takes or gives meanwhile. */
void ram_for_each_used(struct ram *ram, void (*visit)(void *ctx, mf_pfn_t pfn), void *ctx);

#endif
