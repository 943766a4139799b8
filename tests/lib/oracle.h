/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * oracle.h - what a map should say, kept the naive way: one entry for every frame, one for every folio.
 *
 * Knows nothing of tiers, blocks, map frames, lists or caches: a frame is absent, unused, or part of a folio.  Whoever
 * calls the map tells the oracle what the documented result was; oracle_check_*() then hold every answer of the map
 * against it.  The first difference is kept in `text` and every later check fails too.  Not thread-safe.
 */
#ifndef TESTS_LIB_ORACLE_H
#define TESTS_LIB_ORACLE_H

#include <memfold/folio.h>

struct oracle_frame {
	uint32_t folio;  /* 0: no folio                                                                        */
	uint16_t region; /* 1 + its number; 0: no memory                                                       */
};

struct oracle_folio {
	struct mf_folio *handle; /* what the map gave its holder                                               */
	mf_pfn_t pfn;
	unsigned order;
	uint32_t refs, pins;     /* refs 0: frozen                                                             */
	int32_t mapped, whole;
	const struct mf_owner *owner;
	uint64_t index, private_data, flags;
	uint32_t place;          /* in live[]                                                                  */
};

struct oracle_region {
	bool present;
	struct mf_region_config config;
	uint64_t nr_used;        /* frames of it in folios                                                     */
};

enum { ORACLE_REGIONS_MAX = 16 };

struct oracle {
	struct mf_map *map;
	mf_pfn_t span;
	struct oracle_frame *frame;  /* [span]                                                                 */
	struct oracle_folio *folio;  /* [room], from 1; those of number >= nr_folios have never been used         */
	uint32_t *live, *spare;      /* numbers in use, in no order; numbers to be used again                      */
	uint32_t room, nr_folios, nr_live, nr_spare;
	struct oracle_region region[ORACLE_REGIONS_MAX]; /* [the map's number]                                 */
	bool failed;
	char text[256];
};

bool oracle_create(struct oracle *o, struct mf_map *map);
void oracle_destroy(struct oracle *o);

/* ---- What happened --------------------------------------------------------------------------------------------- */

void oracle_region_added(struct oracle *o, unsigned id, const struct mf_region_config *config);
void oracle_region_removed(struct oracle *o, unsigned id);
/* A folio of count 1, without owner; 0 and a failure when its frames are not unused memory of one region. */
uint32_t oracle_folio_added(struct oracle *o, struct mf_folio *handle, mf_pfn_t pfn, unsigned order);
void oracle_folio_removed(struct oracle *o, uint32_t number);

/* ---- Questions ------------------------------------------------------------------------------------------------- */

static inline struct oracle_folio *oracle_at(struct oracle *o, mf_pfn_t pfn)
{
	uint32_t number = pfn < o->span ? o->frame[pfn].folio : 0;

	return number ? &o->folio[number] : NULL;
}

/* The region of the frame, or NULL. */
const struct oracle_region *oracle_region_at(const struct oracle *o, mf_pfn_t pfn);
bool oracle_overlaps(const struct oracle *o, mf_pfn_t start, mf_pfn_t end);
/* Naturally aligned runs of 2^order unused frames, each in one region; on one node, or on MF_ANY_NODE. */
uint64_t oracle_unused_runs(const struct oracle *o, int node, unsigned order);

/* ---- Comparisons: false, and the difference in o->text --------------------------------------------------------- */

bool oracle_fail(struct oracle *o, const char *format, ...) MF_PRINTF(2, 3);
/* One frame, from above and from below, with every count of its folio. */
bool oracle_check_frame(struct oracle *o, mf_pfn_t pfn);
/* The counts of a folio, and both ends and some frames of it. */
bool oracle_check_folio(struct oracle *o, uint32_t number);
/* Both ends and some frames of a range, and what stands around it. */
bool oracle_check_range(struct oracle *o, mf_pfn_t start, mf_pfn_t end);
/* Every frame of every region, and the totals. */
bool oracle_check_all(struct oracle *o);

#endif
