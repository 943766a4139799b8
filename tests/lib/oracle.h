/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * oracle.h - what a map should say, kept the naive way: one entry for every frame, one for every folio.
 *
 * Knows nothing of tiers, blocks, map frames, lists or caches: a frame is absent, unused, or part of a folio; a folio
 * is on a diet or not.  Of the classic layouts it knows how many map slots they keep, and that a folio freed on its
 * diet may stand as it was until somebody restores it.  Whoever calls the map tells the oracle what the documented
 * result was; oracle_check_*() then hold every answer of the map against it.  The first difference is kept in `text`
 * and every later check fails too.  Not thread-safe.
 *
 *   oracle.c        regions, folios, comparisons
 *   oracle_diet.c   what the classic layouts add: compounds, kept folios, the tail frames of zones
 */
#ifndef TESTS_LIB_ORACLE_H
#define TESTS_LIB_ORACLE_H

#include <memfold/diet.h>
#include <memfold/folio.h>

struct oracle_frame {
	uint32_t folio;  /* 0: no folio                                                                        */
	uint16_t region; /* 1 + its number; 0: no memory                                                       */
	uint16_t kept;   /* of an unused frame: the freed folio that it may still be part of; 0: none            */
};

struct oracle_folio {
	struct mf_folio *handle; /* what the map gave its holder                                               */
	mf_pfn_t pfn;
	unsigned order;
	enum mf_kind kind;       /* used, or a device's                                                        */
	bool dieted;
	uint32_t refs, pins;     /* refs 0: frozen.  A device's: with the one that is its region's own            */
	int32_t mapped, whole;
	const struct mf_owner *owner;
	uint64_t index, private_data, flags;
	uint32_t place;          /* in live[]                                                                  */
};

struct oracle_region {
	bool present;
	struct mf_region_config config;
	unsigned zone;
	uint64_t nr_used;        /* frames of it in folios, but for compounds of a device                        */
};

/* A folio that was freed on its diet and, as far as is known, waits for its map slots. */
struct oracle_kept {
	bool present;
	const struct mf_folio *handle;
	mf_pfn_t pfn;
	unsigned order;
};

/* A frame of tails that a zone has for its folios of one order, and a uniform table of it where they fill tables. */
struct oracle_tails {
	unsigned zone, order;
	bool has_table;
};

enum { ORACLE_REGIONS_MAX = 16, ORACLE_TAILS_MAX = 128 };

struct oracle {
	struct mf_map *map;
	mf_pfn_t span;
	unsigned page_shift;
	bool on_tables;              /* else windows are the host's                                              */
	struct oracle_frame *frame;  /* [span]                                                                 */
	struct oracle_folio *folio;  /* [room], from 1; those of number >= nr_folios have never been used         */
	uint32_t *live, *spare;      /* numbers in use, in no order; numbers to be used again                      */
	uint32_t room, nr_folios, nr_live, nr_spare;
	struct oracle_region region[ORACLE_REGIONS_MAX]; /* [the map's number]                                 */
	struct oracle_kept *kept;    /* [kept_room], from 1                                                      */
	uint16_t *spare_kept;
	uint32_t kept_room, nr_spare_kept, nr_kept;
	uint64_t nr_kept_ended;      /* since creation                                                          */
	struct oracle_tails tails[ORACLE_TAILS_MAX];
	unsigned nr_tails;
	bool failed;
	char text[256];
};

bool oracle_create(struct oracle *o, struct mf_map *map, const struct mf_machine *machine);
void oracle_destroy(struct oracle *o);

/* ---- What happened --------------------------------------------------------------------------------------------- */

/* devdax: with its compounds, of count 1. */
void oracle_region_added(struct oracle *o, unsigned id, const struct mf_region_config *config);
void oracle_region_removed(struct oracle *o, unsigned id);
/* A folio of count 1, without owner; 0 and a failure when its frames are not unused memory of one region. */
uint32_t oracle_folio_added(struct oracle *o, struct mf_folio *handle, mf_pfn_t pfn, unsigned order);
/* On a diet: it is kept. */
void oracle_folio_removed(struct oracle *o, uint32_t number);
void oracle_folio_dieted(struct oracle *o, uint32_t number);
void oracle_folio_restored(struct oracle *o, uint32_t number);

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

/* References that nobody who uses the folio holds. */
static inline uint32_t oracle_own_refs(const struct oracle_folio *f)
{
	return f->kind == MF_KIND_DEVICE;
}

static inline bool oracle_is_held(const struct oracle_folio *f)
{
	return f->refs > oracle_own_refs(f);
}

/* Slots of tier 0 that a folio of this order has, and those that a layout saves of them. */
static inline uint64_t oracle_slots(const struct oracle *o, unsigned order)
{
	return (uint64_t)MF_DESCRIPTOR_SIZE << order >> o->page_shift;
}
/* Where the region has only a part of a block of tier 1, none. */
uint64_t oracle_saves(const struct oracle *o, const struct mf_region_config *c, mf_pfn_t pfn, unsigned order);
/* By remap: one of hvo-*. */
bool oracle_is_remapped(enum mf_layout layout);
/* Has the region compounds, and is one held, pinned or mapped? */
bool oracle_has_busy_compound(const struct oracle *o, unsigned id);

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
/* None is kept of this node, or MF_ANY_NODE. */
bool oracle_check_none_kept(struct oracle *o, int node);

/* ---- For the files above --------------------------------------------------------------------------------------- */

bool oracle_diet_create(struct oracle *o);
void oracle_diet_destroy(struct oracle *o);
void oracle_compounds_added(struct oracle *o, unsigned id);
void oracle_kept_added(struct oracle *o, const struct oracle_folio *f);
void oracle_kept_ended(struct oracle *o, uint16_t number);
void oracle_tails_dropped(struct oracle *o, unsigned zone);
/* Is the frame part of a folio that is kept?  If the answer says that it is no more, none of its frames is any more. */
bool oracle_is_kept(struct oracle *o, mf_pfn_t pfn, const struct mf_folio *answer);
bool oracle_check_kept(struct oracle *o, mf_pfn_t pfn);
/* How many folios are on a diet, and how many slots they save. */
void oracle_count_dieted(const struct oracle *o, uint64_t *nr_dieted, uint64_t *nr_aliases);

#endif
