/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * due.h - flushes that are due, in debug builds: what each change of an entry requires, held against what is sent.
 *
 *   an entry changes   ->  noted: addresses, scope, and the frame or table that it led to
 *   a flush            ->  meets what was noted before it began, where it reaches and its scope suffices
 *   a frame is reused  ->  panics while a note names it          \
 *   slots are used     ->  panics while a note covers them        > law M5: change, flush, reuse
 *   mf_map_check()     ->  finds what is noted still             /
 *
 * Owns the notes of one map, as runs under a lock of their own, which is a leaf; who makes a note holds what serialises
 * changes of the tables.  Bounded: what finds no room is counted (overflowed), and not watched.  In other builds all of
 * it is nothing.
 */
#ifndef CORE_PGTABLE_DUE_H
#define CORE_PGTABLE_DUE_H

#include <memfold/pgtable.h>

struct due_counts {
	uint64_t required;   /* entries and tables that changed                                                */
	uint64_t met;        /* of them, by a flush                                                            */
	uint64_t sent;       /* flushes                                                                        */
	uint64_t needless;   /* of them, that met nothing                                                      */
	uint64_t overflowed; /* changes that nobody watches: there was no room                                 */
	uint64_t breaches;   /* that due_only_count() let pass                                                 */
};

/*
 * A list of folios on its way may leave 4096 runs of frames for one flush, and as many other changes; a set that folds
 * in 1 TiB 8227.
 */
enum { DUE_RUNS_MAX = 16384, DUE_PURPOSES_MAX = 16 };

#ifdef MF_DEBUG

/* Changes in a row: the i-th at start + i * unit. */
struct due_run {
	uintptr_t start;
	uint64_t unit;       /* bytes that one change concerns                                                 */
	uint64_t noted;      /* flushes that had begun by then                                                 */
	mf_pfn_t pfn;        /* what the first led to                                                          */
	uint32_t nr;
	uint32_t nr_frames;  /* of each; 0: nothing waits for the flush to be reused                            */
	uint32_t stride;     /* from one to the next: as many, or 0 where all led to the same                   */
	uint8_t needs_tables; /* MF_FLUSH_TABLES                                                               */
	uint8_t by_touch;    /* met by a flush of any part of the unit: an inner entry goes with any address     */
	uint8_t says_same;   /* no translation changed: nobody who relies on one has to wait                      */
};

struct due_log {
	struct mf_lock lock;
	unsigned nr;         /* atomic: 0 is seen without the lock                                              */
	uint64_t begun;      /* flushes                                                                        */
	struct due_counts counts;
	uint64_t needless_for[DUE_PURPOSES_MAX];
	struct due_run run[DUE_RUNS_MAX];
};

/* ---- Noted by core/pgtable, after the store --------------------------------------------------------------------- */

/* An entry of `level` for va was `old` and says something else now; below a table that went, all of its entries. */
void due_changed(const struct mf_pgtable *pt, uintptr_t va, unsigned level, uint64_t old);
/* `nr` entries of `level` from va on were background. */
void due_shown(const struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr);
/* A leaf of `level` became a table that says the same. */
void due_split(const struct mf_pgtable *pt, uintptr_t va, unsigned level);
/* The table of `level` that serves va: there was the shared one;  it was empty, and is unlinked;  is elsewhere now. */
void due_table_came(const struct mf_pgtable *pt, uintptr_t va, unsigned level);
void due_table_emptied(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t pfn);
void due_table_left(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t pfn);
/* The processors were told to forget the root; it, the shared tables and the zero frame are not needed any more. */
void due_all(const struct mf_pgtable *pt);

/* ---- Met and asked for by core/memmap and above; NULL: no log --------------------------------------------------- */

uint64_t due_flush_begin(struct mf_machine *m, struct due_log *log);
void due_flush_end(struct mf_machine *m, struct due_log *log, uint64_t begun, unsigned purpose, uintptr_t start,
		   uint64_t size_bytes, enum mf_flush_scope scope);

/* The frames [pfn, pfn + nr) may be somebody else's from now on. */
void due_reuse(struct mf_machine *m, struct due_log *log, mf_pfn_t pfn, uint64_t nr);
/* From now on somebody relies on what [start, start + size) translates to. */
void due_rely(struct mf_machine *m, struct due_log *log, uintptr_t start, uint64_t size_bytes);
/* Something is noted still: a sentence in `text`. */
bool due_is_pending(struct mf_machine *m, struct due_log *log, char *text, size_t size);

/* For tests, which look at what a flush left out does to processors: a breach is counted from now on, no panic. */
void due_only_count(bool on);
struct due_counts due_counts(struct mf_machine *m, struct due_log *log);
uint64_t due_needless(struct mf_machine *m, struct due_log *log, unsigned purpose);
bool due_covers(struct mf_machine *m, struct due_log *log, uintptr_t start, uint64_t size_bytes);

#else

static inline void due_changed(const struct mf_pgtable *pt, uintptr_t va, unsigned level, uint64_t old)
{
	(void)pt, (void)va, (void)level, (void)old;
}

static inline void due_shown(const struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr)
{
	(void)pt, (void)va, (void)level, (void)nr;
}

static inline void due_split(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	(void)pt, (void)va, (void)level;
}

static inline void due_table_came(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	(void)pt, (void)va, (void)level;
}

static inline void due_table_emptied(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t pfn)
{
	(void)pt, (void)va, (void)level, (void)pfn;
}

static inline void due_table_left(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t pfn)
{
	(void)pt, (void)va, (void)level, (void)pfn;
}

static inline void due_all(const struct mf_pgtable *pt)
{
	(void)pt;
}

static inline uint64_t due_flush_begin(struct mf_machine *m, struct due_log *log)
{
	(void)m, (void)log;
	return 0;
}

static inline void due_flush_end(struct mf_machine *m, struct due_log *log, uint64_t begun, unsigned purpose,
				 uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	(void)m, (void)log, (void)begun, (void)purpose, (void)start, (void)size_bytes, (void)scope;
}

static inline void due_reuse(struct mf_machine *m, struct due_log *log, mf_pfn_t pfn, uint64_t nr)
{
	(void)m, (void)log, (void)pfn, (void)nr;
}

static inline void due_rely(struct mf_machine *m, struct due_log *log, uintptr_t start, uint64_t size_bytes)
{
	(void)m, (void)log, (void)start, (void)size_bytes;
}

static inline bool due_is_pending(struct mf_machine *m, struct due_log *log, char *text, size_t size)
{
	(void)m, (void)log, (void)text, (void)size;
	return false;
}

static inline void due_only_count(bool on)
{
	(void)on;
}

static inline struct due_counts due_counts(struct mf_machine *m, struct due_log *log)
{
	(void)m, (void)log;
	return (struct due_counts){ 0 };
}

static inline uint64_t due_needless(struct mf_machine *m, struct due_log *log, unsigned purpose)
{
	(void)m, (void)log, (void)purpose;
	return 0;
}

static inline bool due_covers(struct mf_machine *m, struct due_log *log, uintptr_t start, uint64_t size_bytes)
{
	(void)m, (void)log, (void)start, (void)size_bytes;
	return false;
}

#endif
#endif
