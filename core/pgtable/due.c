/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * due.c - the notes of flushes that are due: made, met, asked for.  See due.h.
 *
 * What a change requires:
 *
 *   a leaf goes or changes           its addresses, and its frames wait
 *   background becomes a leaf        its addresses: processors keep the zero that they have seen
 *   a leaf becomes a table           its addresses: a changed live entry, though it says the same and nobody waits
 *   a table comes, or goes empty     TABLES, some address of it: all translations stay what they were, but an inner
 *                                    entry may be kept; the table waits
 *   a table goes                     TABLES, all of its addresses; the table waits, and what its entries led to
 *   a table moves, or is merged      the same, but nobody who relies on a translation waits: none has changed
 *
 * A note that grows after a flush has begun would be taken for met by it: runs grow only as long as none has.
 */
#include "due.h"

#include "entry.h"

MF_BUILD_ASSERT(sizeof(struct due_counts) == 6 * sizeof(uint64_t), "without MF_DEBUG there is nothing else here");

#ifdef MF_DEBUG

static bool only_counts;

/* How many of the last runs a new change is held against. */
enum { GROWING = 4 };

static void set_nr(struct due_log *log, unsigned nr)
{
	__atomic_store_n(&log->nr, nr, __ATOMIC_RELAXED);
}

static bool is_quiet(const struct due_log *log)
{
	return !log || __atomic_load_n(&log->nr, __ATOMIC_RELAXED) == 0;
}

static uintptr_t run_end(const struct due_run *run)
{
	return run->start + run->unit * run->nr;
}

/* ---- Made ------------------------------------------------------------------------------------------------------- */

/* The new change goes on where the run ends, in addresses and in what waits. */
static bool run_continues(struct due_run *run, const struct due_run *new)
{
	uint64_t step = new->pfn - run->pfn;

	if (run_end(run) != new->start || run->unit != new->unit || run->noted != new->noted ||
	    run->nr_frames != new->nr_frames || run->needs_tables != new->needs_tables ||
	    run->by_touch != new->by_touch || run->says_same != new->says_same || run->nr + new->nr < run->nr)
		return false;
	if (new->nr_frames == 0)
		return true;
	if (run->nr == 1 && (step == 0 || step == run->nr_frames))
		run->stride = (uint32_t)step;
	return step == (uint64_t)run->stride * run->nr;
}

static void add_locked(struct due_log *log, const struct due_run *new)
{
	for (unsigned i = log->nr; i > 0 && i + GROWING > log->nr; i--) {
		if (run_continues(&log->run[i - 1], new)) {
			log->run[i - 1].nr += new->nr;
			return;
		}
	}
	if (log->nr == DUE_RUNS_MAX) {
		log->counts.overflowed += new->nr;
		return;
	}
	log->run[log->nr] = *new;
	set_nr(log, log->nr + 1);
}

static void note(const struct mf_pgtable *pt, struct due_run run)
{
	struct due_log *log = pt->due;

	mf_machine_lock(pt->machine, &log->lock);
	run.noted = log->begun;
	log->counts.required += run.nr;
	add_locked(log, &run);
	mf_machine_unlock(pt->machine, &log->lock);
}

/* What one entry of `level` serves of the tables' range. */
static struct due_run run_of_entry(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	uint64_t span = mf_pgtable_span(&pt->machine->paging, level);
	uintptr_t start = span ? mf_round_down(va, span) : 0, last = start + (span - 1);

	start = mf_max(start, pt->base);
	last = mf_min(last, pt->base + (pt->size_bytes - 1));
	return (struct due_run){ .start = start, .unit = last - start + 1, .nr = 1 };
}

static struct due_run run_of_table(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	struct due_run run = run_of_entry(pt, va, level + 1);

	run.needs_tables = true;
	return run;
}

void due_changed(const struct mf_pgtable *pt, uintptr_t va, unsigned level, uint64_t old)
{
	const struct mf_paging *p = &pt->machine->paging;
	struct due_run run = run_of_entry(pt, va, level);
	const uint64_t *table;

	if (!pt->due)
		return;
	if (pgtable_is_background(pt, level, old)) {
		run.needs_tables = level > 0;
		note(pt, run);
		return;
	}
	run.pfn = entry_pfn(p, old);
	if (entry_is_leaf(p, level, old)) {
		run.nr_frames = run.stride = (uint32_t)leaf_frames(p, level);
		note(pt, run);
		return;
	}
	run.needs_tables = true;
	run.nr_frames = run.stride = 1;
	note(pt, run);
	table = entry_table(pt, old);
	for (unsigned i = 0; i < paging_fanout(p); i++)
		due_changed(pt, mf_round_down(va, mf_pgtable_span(p, level)) + i * mf_pgtable_span(p, level - 1),
			    level - 1, entry_load_own(&table[i]));
}

void due_shown(const struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr)
{
	struct due_run run = run_of_entry(pt, va, level);

	run.nr = nr;
	run.needs_tables = level > 0;
	if (pt->due)
		note(pt, run);
}

void due_split(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	struct due_run run = run_of_entry(pt, va, level);

	run.says_same = true;
	if (pt->due)
		note(pt, run);
}

void due_table_came(const struct mf_pgtable *pt, uintptr_t va, unsigned level)
{
	struct due_run run = run_of_table(pt, va, level);

	run.by_touch = true;
	if (pt->due)
		note(pt, run);
}

void due_table_emptied(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t pfn)
{
	struct due_run run = run_of_table(pt, va, level);

	run.by_touch = true;
	run.pfn = pfn;
	run.nr_frames = run.stride = 1;
	if (pt->due)
		note(pt, run);
}

void due_table_left(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t pfn)
{
	struct due_run run = run_of_table(pt, va, level);

	/* Its copy, or the leaf in its place, translates as it did: who relies on a slot there need not wait. */
	run.says_same = true;
	run.pfn = pfn;
	run.nr_frames = run.stride = 1;
	if (pt->due)
		note(pt, run);
}

void due_all(const struct mf_pgtable *pt)
{
	unsigned top = pt->machine->paging.levels - 1;

	due_table_left(pt, pt->base, top, pt->root);
	for (unsigned level = 0; level < top; level++)
		due_table_left(pt, pt->base, top, pt->shared[level]);
	due_table_left(pt, pt->base, top, pt->zero);
}

/* ---- Met -------------------------------------------------------------------------------------------------------- */

/* The changes [*first, *end) of the run that a flush of [start, last] reaches; false when it reaches none. */
static bool reached(const struct due_run *run, uintptr_t start, uintptr_t last, uint64_t *first, uint64_t *end)
{
	uintptr_t run_last = run_end(run) - 1, from, to;

	if (start > run_last || last < run->start)
		return false;
	from = mf_max(start, run->start) - run->start;
	to = mf_min(last, run_last) - run->start + 1;
	*first = run->by_touch ? from / run->unit : (from + run->unit - 1) / run->unit;
	*end = run->by_touch ? (to + run->unit - 1) / run->unit : to / run->unit;
	return *first < *end;
}

static struct due_run part_of(const struct due_run *run, uint64_t first, uint64_t end)
{
	struct due_run part = *run;

	part.start += first * run->unit;
	part.pfn += first * run->stride;
	part.nr = (uint32_t)(end - first);
	return part;
}

/* Takes the changes [first, end) out of run i.  False when the last run has taken its place. */
static bool cut_locked(struct due_log *log, unsigned i, uint64_t first, uint64_t end)
{
	struct due_run before = part_of(&log->run[i], 0, first), behind = part_of(&log->run[i], end, log->run[i].nr);

	if (before.nr == 0 && behind.nr == 0) {
		log->run[i] = log->run[log->nr - 1];
		set_nr(log, log->nr - 1);
		return false;
	}
	log->run[i] = before.nr ? before : behind;
	if (before.nr == 0 || behind.nr == 0)
		return true;
	if (log->nr == DUE_RUNS_MAX) {
		log->counts.overflowed += behind.nr;
		return true;
	}
	log->run[log->nr] = behind;
	set_nr(log, log->nr + 1);
	return true;
}

uint64_t due_flush_begin(struct mf_machine *m, struct due_log *log)
{
	uint64_t begun;

	mf_machine_lock(m, &log->lock);
	begun = ++log->begun;
	mf_machine_unlock(m, &log->lock);
	return begun;
}

void due_flush_end(struct mf_machine *m, struct due_log *log, uint64_t begun, unsigned purpose, uintptr_t start,
		   uint64_t size_bytes, enum mf_flush_scope scope)
{
	uint64_t first, end, met = 0;

	mf_machine_lock(m, &log->lock);
	for (unsigned i = 0; i < log->nr;) {
		const struct due_run *run = &log->run[i];

		if (run->noted < begun && (scope == MF_FLUSH_TABLES || !run->needs_tables) &&
		    reached(run, start, start + (size_bytes - 1), &first, &end)) {
			met += end - first;
			i += cut_locked(log, i, first, end);
		} else {
			i++;
		}
	}
	log->counts.met += met;
	log->counts.sent++;
	log->counts.needless += met == 0;
	log->needless_for[purpose] += met == 0;
	mf_machine_unlock(m, &log->lock);
}

/* ---- Asked for -------------------------------------------------------------------------------------------------- */

static bool run_names(const struct due_run *run, mf_pfn_t pfn, uint64_t nr)
{
	uint64_t nr_named = run->nr_frames + (uint64_t)run->stride * (run->nr - 1);

	return run->nr_frames && pfn < run->pfn + nr_named && run->pfn < pfn + nr;
}

static bool run_covers(const struct due_run *run, uintptr_t start, uintptr_t last)
{
	return !run->says_same && start <= run_end(run) - 1 && last >= run->start;
}

/* True when it is to panic. */
static bool breach(struct due_log *log)
{
	if (only_counts)
		__atomic_fetch_add(&log->counts.breaches, 1, __ATOMIC_RELAXED);
	return !only_counts;
}

void due_reuse(struct mf_machine *m, struct due_log *log, mf_pfn_t pfn, uint64_t nr)
{
	struct due_run found = { .nr = 0 };

	if (is_quiet(log))
		return;
	mf_machine_lock(m, &log->lock);
	for (unsigned i = 0; i < log->nr && !found.nr; i++)
		if (run_names(&log->run[i], pfn, nr))
			found = log->run[i];
	mf_machine_unlock(m, &log->lock);
	MF_PANIC_IF(found.nr && breach(log),
		    "memfold: M5: %llu frames from 0x%llx on are reused, and what has led there from 0x%llx on, "
		    "0x%llx bytes, is not flushed%s since.",
		    (unsigned long long)nr, (unsigned long long)pfn, (unsigned long long)found.start,
		    (unsigned long long)(found.unit * found.nr), found.needs_tables ? " with its tables" : "");
}

void due_rely(struct mf_machine *m, struct due_log *log, uintptr_t start, uint64_t size_bytes)
{
	struct due_run found = { .nr = 0 };

	if (is_quiet(log))
		return;
	mf_machine_lock(m, &log->lock);
	for (unsigned i = 0; i < log->nr && !found.nr; i++)
		if (run_covers(&log->run[i], start, start + (size_bytes - 1)))
			found = log->run[i];
	mf_machine_unlock(m, &log->lock);
	MF_PANIC_IF(found.nr && breach(log),
		    "memfold: M5: map slots at 0x%llx are relied on, and a change from 0x%llx on, 0x%llx bytes, is not "
		    "flushed%s yet.",
		    (unsigned long long)start, (unsigned long long)found.start,
		    (unsigned long long)(found.unit * found.nr), found.needs_tables ? " with its tables" : "");
}

bool due_is_pending(struct mf_machine *m, struct due_log *log, char *text, size_t size)
{
	struct due_run found = { .nr = 0 };

	if (is_quiet(log))
		return false;
	mf_machine_lock(m, &log->lock);
	if (log->nr)
		found = log->run[0];
	mf_machine_unlock(m, &log->lock);
	if (found.nr)
		(void)mf_format(text, size, "a change from 0x%llx on, 0x%llx bytes, is not flushed%s yet",
				(unsigned long long)found.start, (unsigned long long)(found.unit * found.nr),
				found.needs_tables ? " with its tables" : "");
	return found.nr != 0;
}

/* ---- For tests -------------------------------------------------------------------------------------------------- */

void due_only_count(bool on)
{
	only_counts = on;
}

struct due_counts due_counts(struct mf_machine *m, struct due_log *log)
{
	struct due_counts counts;

	mf_machine_lock(m, &log->lock);
	counts = log->counts;
	mf_machine_unlock(m, &log->lock);
	return counts;
}

uint64_t due_needless(struct mf_machine *m, struct due_log *log, unsigned purpose)
{
	uint64_t nr;

	mf_machine_lock(m, &log->lock);
	nr = log->needless_for[purpose];
	mf_machine_unlock(m, &log->lock);
	return nr;
}

bool due_covers(struct mf_machine *m, struct due_log *log, uintptr_t start, uint64_t size_bytes)
{
	bool found = false;

	mf_machine_lock(m, &log->lock);
	for (unsigned i = 0; i < log->nr; i++)
		found |= start <= run_end(&log->run[i]) - 1 && start + (size_bytes - 1) >= log->run[i].start;
	mf_machine_unlock(m, &log->lock);
	return found;
}

#endif
