/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flush_log.h - what a map asks of its machine, in order: flushes, with how often the map had waited for readers by
 * then, and RAM that goes back.
 *
 *	struct flush_log log;
 *
 *	diet_open(&w, &(struct world_config){ ..., .wrap = flush_log_wrap, .wrap_ctx = &log }, layout);
 *	flush_log_start(&log, w.map);
 *	...
 *	TAP_EQ(flush_log_flushes(&log), 2);
 */
#ifndef TESTS_UNIT_FLUSH_LOG_H
#define TESTS_UNIT_FLUSH_LOG_H

#include "tests/lib/saboteur.h"

#include "core/memmap/map.h"

enum { FLUSH_LOG_MAX = 16384 };

struct flush_entry {
	bool is_flush; /* else RAM goes back                                                                   */
	uintptr_t start, end;
	enum mf_flush_scope scope;
	uint64_t nr_quiesces; /* since flush_log_start()                                                        */
	bool was_marked;      /* the watched folio                                                            */
	mf_pfn_t pfn;
	uint64_t nr_frames;
};

struct flush_log {
	struct saboteur saboteur;
	struct mf_map *map;
	const struct mf_folio *watched; /* NULL: none                                                           */
	uint64_t quiesces;              /* at the start                                                        */
	unsigned nr;
	struct flush_entry entry[FLUSH_LOG_MAX];
};

static inline struct flush_entry *flush_log_new(struct flush_log *log)
{
	MF_PANIC_IF(log->nr == FLUSH_LOG_MAX, "the test logs more than it has room for");
	return &log->entry[log->nr++];
}

static inline void flush_log_flush(void *ctx, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct flush_log *log = ctx;

	*flush_log_new(log) = (struct flush_entry){
		.is_flush = true,
		.start = start,
		.end = start + size_bytes,
		.scope = scope,
		.nr_quiesces = log->map->quiesces - log->quiesces,
		.was_marked = log->watched && mf_page_word(&log->watched->page) & MF_FLAG_DIET,
	};
}

static inline void flush_log_put(void *ctx, mf_pfn_t pfn, unsigned order)
{
	*flush_log_new(ctx) = (struct flush_entry){ .pfn = pfn, .nr_frames = (uint64_t)1 << order };
}

static inline struct mf_machine *flush_log_wrap(void *ctx, struct mf_machine *machine)
{
	struct flush_log *log = ctx;

	log->saboteur = (struct saboteur){ .watch_ctx = log };
	return saboteur_wrap(&log->saboteur, machine);
}

/* From here on, and from nothing. */
static inline void flush_log_start(struct flush_log *log, struct mf_map *map)
{
	log->map = map;
	log->quiesces = map->quiesces;
	log->nr = 0;
	log->watched = NULL;
	log->saboteur.flushing = flush_log_flush;
	log->saboteur.putting = flush_log_put;
}

static inline void flush_log_stop(struct flush_log *log)
{
	log->saboteur.flushing = NULL;
	log->saboteur.putting = NULL;
}

static inline unsigned flush_log_flushes(const struct flush_log *log)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < log->nr; i++)
		nr += log->entry[i].is_flush;
	return nr;
}

/* The n-th flush, from 0; NULL when there were not so many. */
static inline const struct flush_entry *flush_log_nth(const struct flush_log *log, unsigned n)
{
	for (unsigned i = 0; i < log->nr; i++)
		if (log->entry[i].is_flush && n-- == 0)
			return &log->entry[i];
	return NULL;
}

/* Frames that went back between the n-th flush and the next. */
static inline uint64_t flush_log_frames_after(const struct flush_log *log, unsigned n)
{
	const struct flush_entry *at = flush_log_nth(log, n), *end = &log->entry[log->nr];
	uint64_t nr = 0;

	for (at = at ? at + 1 : end; at < end && !at->is_flush; at++)
		nr += at->nr_frames;
	return nr;
}

/* Frames that went back before the first flush. */
static inline uint64_t flush_log_frames_before(const struct flush_log *log)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < log->nr && !log->entry[i].is_flush; i++)
		nr += log->entry[i].nr_frames;
	return nr;
}

static inline bool flush_reaches(const struct flush_entry *flush, uintptr_t start, uintptr_t end)
{
	return flush && flush->start <= start && flush->end >= end;
}

#endif
