/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations.h - one operation on a map after the other, each told to an oracle and compared with it.
 *
 * Which operation, on what, is read from a source of choices: a random generator (tests/model) or the bytes of a fuzzer
 * (tests/fuzz).  Owns the oracle, counters and the last operations; the machine and the map are the caller's.
 *
 *   operations.c         the dispatcher, history, folding, the end of a run
 *   operations_region.c  regions come and go
 *   operations_folio.c   folios: allocate, drop, freeze, mark, iterate
 *   operations_hold.c    folios: reference, pin, map
 *   operations_split.c   folios: split, merge
 *   operations_diet.c    folios: on a diet and off it, one by one and in lists; the switch
 */
#ifndef TESTS_LIB_OPERATIONS_H
#define TESTS_LIB_OPERATIONS_H

#include "tests/lib/hog.h"
#include "tests/lib/oracle.h"

/* A number in [0, below); below > 0.  When a finite source has no more it answers 0 and sets `ended`. */
struct choices {
	uint64_t (*next)(struct choices *choices, uint64_t below);
	bool ended;
};

/* Pseudo-random, the same sequence for the same seed on every machine. */
struct random_choices {
	struct choices choices;
	uint64_t state;
};
void random_choices_init(struct random_choices *random, uint64_t seed);

/* From bytes: one for below <= 256, two for 65536, and so on. */
struct byte_choices {
	struct choices choices;
	const uint8_t *data;
	size_t size;
};
void byte_choices_init(struct byte_choices *bytes, const uint8_t *data, size_t size);

enum operation {
	OP_ALLOC, OP_PUT, OP_GET, OP_TRY_GET, OP_TRY_GET_TIER, OP_PIN, OP_TRY_PIN, OP_MAP, OP_UNMAP, OP_FREEZE,
	OP_UNFREEZE, OP_MARK, OP_SPLIT, OP_MERGE, OP_SWEEP, OP_FOLD, OP_DRAIN, OP_REGION_ADD, OP_REGION_REMOVE, OP_NEXT,
	OP_REMAP, OP_RESTORE, OP_REMAP_LIST, OP_RESTORE_LIST, OP_DIET_SWITCH, OP_RAM,
	NR_OPERATIONS,
};

struct operations_history {
	enum operation what;
	uint64_t a, b;
	int64_t result;
};

enum { OPERATIONS_HISTORY = 20, OPERATIONS_SPLITS = 16, OPERATIONS_REGIONS = 9 };

struct operations {
	struct oracle oracle;
	struct choices *choices;
	struct mf_map *map;
	unsigned step;                /* order of a block of tier 1                                          */
	bool on_tables;
	bool may_lack_ram;            /* the machine has little: no memory is a legal answer of more calls        */
	struct hog *hog;              /* for OP_RAM: now and then it has most of the machine's RAM; or NULL        */
	struct mf_machine *machine;
	bool has_classic;             /* regions of the classic layouts come, too                               */
	bool diet_is_off;             /* the map's switch                                                      */
	uint64_t frames_max;          /* frames in regions at most                                           */
	unsigned pieces_log2_max;     /* a split makes at most so many pieces                                  */
	unsigned weight[NR_OPERATIONS];
	unsigned order_bias;          /* 0: mixed; 1, 2, 3: mostly base frames, blocks of tier 1, of tier 2          */
	uint64_t nr_steps, nr_done[NR_OPERATIONS], nr_refused[NR_OPERATIONS];
	uint64_t nr_remapped, nr_restored; /* folios, in lists or not; restored by name                         */
	uint64_t nr_kept;             /* freed on a diet                                                       */
	struct operations_history history[OPERATIONS_HISTORY]; /* [nr_steps % OPERATIONS_HISTORY]              */
	struct { mf_pfn_t pfn; unsigned order; } split[OPERATIONS_SPLITS]; /* the last ones, to be merged again */
	unsigned nr_splits;
};

extern const char *const operation_name[NR_OPERATIONS];

/* All weights as for a balanced mix, without a hog.  False when there is no memory. */
bool operations_init(struct operations *ops, struct mf_map *map, struct mf_machine *machine, struct choices *choices);
/* RAM comes and goes from now on: `hog` takes it from a sim. */
void operations_set_hog(struct operations *ops, struct hog *hog);
void operations_exit(struct operations *ops);

/* Adds a region to map and oracle; for what stands there at the beginning.  False: see ops->oracle.text. */
bool operations_add_region(struct operations *ops, const struct mf_region_config *config);

/* One operation and its comparison; false, and ops->oracle.text, at the first difference. */
bool operations_step(struct operations *ops);

/* Every folio is dropped, with all its references, pins and maps; everything folded; compared. */
bool operations_free_all(struct operations *ops);

/* Calls line() for each of the last operations, oldest first. */
void operations_print(const struct operations *ops, void (*line)(const char *text));

/* ---- For the files above ----------------------------------------------------------------------------------------- */

static inline uint64_t choose(struct operations *ops, uint64_t below)
{
	return ops->choices->next(ops->choices, below);
}

/* No memory is a legal answer now. */
static inline bool operations_lack_ram(const struct operations *ops)
{
	return ops->may_lack_ram || (ops->hog && ops->hog->nr > 0);
}

/* Notes an operation's arguments before it runs, and its result afterwards. */
void operations_begin(struct operations *ops, enum operation what, uint64_t a, uint64_t b);
void operations_end(struct operations *ops, int64_t result);

/* A frame of memory, or, rarely, any frame of the span. */
mf_pfn_t operations_any_pfn(struct operations *ops);

/*
 * A folio in use, or 0: one of all, however small, or the one around any frame, mostly a large one.  The second
 * form tries to find one with a quality.
 */
uint32_t operations_any_folio(struct operations *ops);
uint32_t operations_any_folio_that(struct operations *ops, bool (*fits)(const struct oracle_folio *f));


/* One holder less; the last one frees, unless an owner keeps it.  The number may be gone afterwards. */
void operations_drop(struct operations *ops, uint32_t number);
/* Drops all of them, maps too, and frees it though an owner may keep it; but a compound of a device stays. */
void operations_drop_all(struct operations *ops, uint32_t number);
/* The same for every folio that starts in the range or reaches into it. */
void operations_drop_range(struct operations *ops, mf_pfn_t start, mf_pfn_t end);
/* Runs one of the operations that the file is for. */
void operations_run_folio(struct operations *ops, enum operation what);
void operations_run_hold(struct operations *ops, enum operation what);
void operations_run_split(struct operations *ops, enum operation what);
void operations_run_region(struct operations *ops, enum operation what);
void operations_run_diet(struct operations *ops, enum operation what);

#endif
