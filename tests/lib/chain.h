/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chain.h - GiB that hang on each other: A hosts the slots of B, B those of D, and D has users.
 *
 *	struct chain c;
 *
 *	TAP_REQUIRE(chain_open(&c, &(struct chain_config){ 0 }));
 *	TAP_EQ(mf_fold(c.w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
 *	...
 *	TAP_OK(chain_close(&c));
 *
 * A and B have no users and are split.  A is the home; B has a set-aside block, since A's was empty when a block of B
 * was unfolded.  Source self, 4 KiB frames.
 */
#ifndef TESTS_LIB_CHAIN_H
#define TESTS_LIB_CHAIN_H

#include "tests/lib/world.h"

enum { CHAIN_GIBS = 4 };

struct chain {
	struct world w;
	mf_pfn_t a, b, d;          /* first pfn of each GiB                                                      */
	struct mf_page *set_aside; /* the block of B that hosts D's slots                                        */
	uint64_t first_ram;        /* frames of RAM before anything was allocated                                */
};

/* All zero is a good configuration. */
struct chain_config {
	struct world_config world; /* its nr_frames are CHAIN_GIBS GiB                                            */
	bool pool_is_short;        /* pieces of D are divided until B's set-aside block has fewer than 8 frames    */
};

/* False after a comment, nothing left behind. */
bool chain_open(struct chain *c, const struct chain_config *config);

/* Puts every folio and closes the world. */
bool chain_close(struct chain *c);

/* Puts every folio in [start, end) but `keep`. */
void chain_put(struct world *w, mf_pfn_t start, mf_pfn_t end, const struct mf_folio *keep);

bool chain_is_split(const struct world *w, mf_pfn_t gib);

/* A frame of B's set-aside block, claimed as by an unfold elsewhere; pool_put() gives it back. */
mf_pfn_t chain_claim(struct chain *c);

/* The frame behind slot `i` of a split GiB. */
mf_pfn_t chain_slot(const struct world *w, mf_pfn_t gib, unsigned i);
uintptr_t chain_slot_address(const struct world *w, mf_pfn_t gib, unsigned i);

#endif
