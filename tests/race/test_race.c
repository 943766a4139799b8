/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_race.c - everything at once: allocators, a splitter, folders, regions that come and go, speculative takers from
 * above and below, pinners, an iterator, on a machine that yields in between.
 *
 *      region A  [edge | 1 GiB | 1 GiB | edge)            always there, node 0
 *      region B                              (edge | 2 MiB ...)   comes and goes, node 0 or 1, shares A's last edge
 *
 * Laws held in every thread: two never own one frame (owner[]); what I hold keeps its word and answers alike from above
 * and below; nothing is unbacked below a reader section that saw a count (armed[]); who iterates finds the folios that
 * stay (sentinels).  In the end everything is freed and folded, and the map is what it was at first, page for page.
 *
 * The number of operations is fixed, not the time: MF_OPS=n sets it, MF_SOAK makes it 20 times as many.  MF_SEED=n
 * repeats the choices, not the interleaving.  That the laws are watched: t_sabotage.sh.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memfold/memfold.h>

#include "tests/lib/slow_machine.h"
#include "tests/tap.h"

#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif
#ifndef WITH_TSAN
#define WITH_TSAN 0
#endif

enum {
	TOP = 18,
	A_START = (1 << TOP) - 3 * 512 - 17,
	A_END = (3 << TOP) + 2 * 512 + 100,
	B_END = A_END + 6 * 512 + 33,
	SPAN = 4 << TOP,
	NR_HINTS = 256,
	NR_SENTINELS = 8,
	NR_SLOTS = 48,
	NR_ARMED = 2,
	OPS = WITH_TSAN ? 20000 : 40000, /* of an allocator; others by their price */
	OPS_UNIT = 10000,
};

/* What is counted, and the least of it in OPS_UNIT operations that makes a run worth something. */
enum tally {
	ALLOCS, NOWAITS, SPLITS, MERGES, FOLDED, GETS_BELOW, GETS_ABOVE, PINS, RELEASES, PASSES, REGIONS, ARMED,
	NR_TALLIES,
};
static const struct {
	const char *name;
	uint64_t least;
} tally_of[NR_TALLIES] = {
	[ALLOCS] = { "allocations", 3000 },
	[NOWAITS] = { "of them without waiting", 500 },
	[SPLITS] = { "splits", 300 },
	[MERGES] = { "merges", 300 },
	[FOLDED] = { "blocks folded on request", 20 },
	[GETS_BELOW] = { "takes from below", 50 },
	[GETS_ABOVE] = { "takes from above", 100 },
	[PINS] = { "pins", 100 },
	[RELEASES] = { "owner releases", 3000 },
	[PASSES] = { "iterations", 50 },
	[REGIONS] = { "regions added and removed", 50 },
	[ARMED] = { "sections that saw a count", 100 },
};

static struct slow_machine slow;
static struct mf_map *map;
static _Atomic uint32_t owner[SPAN];
static _Atomic uint64_t hint[NR_HINTS];        /* pfns that were in use lately */
static mf_pfn_t sentinel[NR_SENTINELS];
static _Atomic uintptr_t armed[NR_ARMED];      /* the record whose count a section has seen, 0: none */
static atomic_uint_least64_t tally[NR_TALLIES];
static atomic_uint nr_working;                 /* threads that change things */
static uint64_t seed, nr_ops;

struct worker {
	pthread_t thread;
	void (*run)(struct worker *w);
	unsigned number;
	bool changes;   /* the readers go on until all of these are done */
	uint64_t random;
};

static uint64_t pick(struct worker *w, uint64_t below)
{
	return slow_random(&w->random) % below;
}

static void count(enum tally what)
{
	atomic_fetch_add_explicit(&tally[what], 1, memory_order_relaxed);
}

static bool one_in(struct worker *w, uint64_t n)
{
	return pick(w, n) == 0;
}

/* ---- Ownership ---------------------------------------------------------------------------------------------- */

/* Every frame changes hands from `from` to `to`, and from nobody else. */
static void mark(mf_pfn_t pfn, unsigned order, uint32_t from, uint32_t to)
{
	for (mf_pfn_t end = pfn + ((mf_pfn_t)1 << order); pfn < end; pfn++) {
		uint32_t was = atomic_exchange_explicit(&owner[pfn], to, memory_order_relaxed);

		if (was != from) {
			TAP_NOTE("frame %llu belongs to %u, not to %u", (unsigned long long)pfn, was, from);
			TAP_OK(was == from);
			return;
		}
	}
}

/* Called with count 0.  Half of the folios it ends itself; and it may allocate, which waits. */
static bool on_release(struct mf_map *m, struct mf_folio *folio, const struct mf_owner *self)
{
	uint64_t choice = folio->page.index;
	struct mf_folio *other;

	TAP_OK(mf_folio_refcount(folio) == 0 && mf_folio_owner(folio) == self);
	count(RELEASES);
	if (choice % 8 == 0 && mf_folio_alloc(m, 0, 1, MF_ALLOC_WAIT, &other) == 0)
		mf_folio_put(m, other);
	if (choice % 2)
		return false;
	mf_folio_free_frozen(m, folio);
	return true;
}

static const struct mf_owner tenant = { "tenant", on_release };

static struct mf_folio *obtain(struct worker *w, unsigned order, unsigned flags)
{
	struct mf_folio *folio;
	mf_pfn_t pfn;

	if (mf_folio_alloc(map, 0, order, flags, &folio))
		return NULL;
	pfn = mf_folio_pfn(map, folio);
	TAP_OK(mf_folio_order(folio) == order && pfn % ((mf_pfn_t)1 << order) == 0);
	mark(pfn, order, 0, w->number);
	folio->page.index = pick(w, 1 << 16);
	mf_folio_set_owner(folio, &tenant);
	atomic_store_explicit(&hint[pick(w, NR_HINTS)], pfn, memory_order_relaxed);
	count(ALLOCS);
	return folio;
}

static void give_up(struct worker *w, struct mf_folio *folio)
{
	mark(mf_folio_pfn(map, folio), mf_folio_order(folio), w->number, 0);
	mf_folio_put(map, folio);
}

/* ---- Those who change things -------------------------------------------------------------------------------- */

static unsigned any_order(struct worker *w)
{
	if (one_in(w, 400))
		return 13 + (unsigned)pick(w, TOP - 12);
	return one_in(w, 12) ? 9 + (unsigned)pick(w, 3) : (unsigned)pick(w, one_in(w, 2) ? 9 : 1);
}

static void allocator(struct worker *w)
{
	struct mf_folio *slot[NR_SLOTS] = { NULL };

	for (uint64_t i = 0; i < nr_ops; i++) {
		unsigned s = (unsigned)pick(w, NR_SLOTS), flags = one_in(w, 4) ? MF_ALLOC_NOWAIT : MF_ALLOC_WAIT;

		if (slot[s]) {
			give_up(w, slot[s]);
			slot[s] = NULL;
		} else {
			slot[s] = obtain(w, any_order(w), flags);
			if (slot[s] && flags == MF_ALLOC_NOWAIT)
				count(NOWAITS);
		}
		if (i % 256 && i != nr_ops - 1)
			continue;
		for (s = 0; s < NR_SLOTS; s++) {
			if (slot[s])
				give_up(w, slot[s]);
			slot[s] = NULL;
		}
	}
}

/* Another may hold a reference for a moment: that is -MF_EBUSY, and then all is as it was. */
static void split_and_merge(struct worker *w, struct mf_folio *folio, unsigned order, unsigned piece)
{
	mf_pfn_t pfn = mf_folio_pfn(map, folio), end = pfn + ((mf_pfn_t)1 << order);
	int err = mf_folio_split(map, folio, piece);

	TAP_OK(err == 0 || err == -MF_EBUSY);
	if (err) {
		give_up(w, folio);
		return;
	}
	count(SPLITS);
	sched_yield();
	for (int tries = 0; tries < 50; tries++) {
		err = mf_folio_merge(map, pfn, order, &folio);
		if (err == 0) {
			TAP_OK(mf_folio_pfn(map, folio) == pfn && mf_folio_order(folio) == order);
			count(MERGES);
			give_up(w, folio);
			return;
		}
		TAP_OK(err == -MF_EBUSY);
		sched_yield();
	}
	for (; pfn < end; pfn += (mf_pfn_t)1 << piece)
		give_up(w, mf_pfn_folio(map, pfn));
}

static void splitter(struct worker *w)
{
	for (uint64_t i = 0; i < nr_ops / 8; i++) {
		/* Across two tiers, across one, and within one. */
		unsigned order = one_in(w, 64) ? TOP : one_in(w, 3) ? 2 + (unsigned)pick(w, 7) : 9 + (unsigned)pick(w, 2);
		unsigned piece = order == TOP ? 9 + (unsigned)pick(w, 6) : (unsigned)pick(w, order < 9 ? order : 9);
		struct mf_folio *folio = obtain(w, order, MF_ALLOC_WAIT);

		if (folio)
			split_and_merge(w, folio, order, piece);
	}
}

static void folder(struct worker *w)
{
	struct mf_map_stats stats;
	struct mf_zone_info zone;
	uint64_t nr;

	for (uint64_t i = 0; i < nr_ops / 12; i++) {
		TAP_EQ(mf_fold(map, MF_ANY_NODE, one_in(w, 2) ? MF_FOLD_ALL : MF_FOLD_KEEP, &nr), 0);
		atomic_fetch_add(&tally[FOLDED], nr);
		if (one_in(w, 4))
			TAP_EQ(mf_drain(map), 0);
		if (one_in(w, 64)) {
			mf_map_stats(map, &stats);
			TAP_OK(stats.nr_described >= A_END - A_START);
			TAP_EQ(mf_zone_info(map, 0, &zone), 0);
		}
		sched_yield();
	}
}

static void use_node(struct worker *w, mf_pfn_t start, mf_pfn_t end)
{
	struct mf_folio *folio[8];
	uint64_t nr_folded;
	int nr = 0;

	while (nr < 8 && mf_folio_alloc(map, 1, (unsigned)pick(w, 11), MF_ALLOC_THIS_NODE, &folio[nr]) == 0) {
		mf_pfn_t pfn = mf_folio_pfn(map, folio[nr]);

		TAP_OK(pfn >= start && pfn + mf_folio_nr_frames(folio[nr]) <= end);
		mark(pfn, mf_folio_order(folio[nr]), 0, w->number);
		atomic_store_explicit(&hint[pick(w, NR_HINTS)], pfn, memory_order_relaxed);
		nr++;
	}
	while (nr > 0)
		give_up(w, folio[--nr]);
	TAP_EQ(mf_fold(map, 1, MF_FOLD_ALL, &nr_folded), 0);
	atomic_fetch_add(&tally[FOLDED], nr_folded);
}

/* Behind A's last edge nothing is left: not even for those who ask from below. */
static void check_gone(void)
{
	for (mf_pfn_t pfn = mf_round_up(A_END, 512); pfn < B_END; pfn++)
		if (mf_page_word(mf_pfn_to_page(map, pfn)) != 0) {
			TAP_NOTE("pfn %llu is still described", (unsigned long long)pfn);
			TAP_OK(mf_page_word(mf_pfn_to_page(map, pfn)) == 0);
			return;
		}
}

static void regions(struct worker *w)
{
	for (uint64_t i = 0; i < nr_ops / 40; i++) {
		struct mf_region_config config = {
			.start_pfn = A_END + pick(w, 1000), .end_pfn = B_END - pick(w, 600),
			.node = (unsigned)pick(w, 2), .layout = one_in(w, 3) ? MF_LAYOUT_FLAT : MF_LAYOUT_TIERED,
			.top = 1 + (unsigned)pick(w, 2),
		};
		struct mf_region_info info;
		unsigned id;
		int err = mf_region_add(map, &config, &id);

		TAP_EQ(err, 0);
		if (err)
			return;
		if (config.node == 1)
			use_node(w, config.start_pfn, config.end_pfn);
		TAP_EQ(mf_region_info(map, id, &info), 0);
		TAP_EQ(info.config.start_pfn, config.start_pfn);
		while ((err = mf_region_remove(map, id)) == -MF_EBUSY)
			sched_yield(); /* others hold frames of it, each for a bounded number of operations */
		TAP_EQ(err, 0);
		TAP_EQ(mf_region_info(map, id, &info), -MF_ENOENT);
		check_gone();
		count(REGIONS);
	}
}

/* ---- Those who look ----------------------------------------------------------------------------------------- */

static mf_pfn_t somewhere(struct worker *w)
{
	uint64_t near = atomic_load_explicit(&hint[pick(w, NR_HINTS)], memory_order_relaxed);

	if (one_in(w, 4))
		return pick(w, SPAN);
	return mf_min(near + pick(w, one_in(w, 4) ? 1024 : 2), SPAN - 1);
}

/* It is mine as long as I hold it: the same word, the same answer from every side. */
static void check_held(struct worker *w, struct mf_folio *folio, mf_pfn_t pfn)
{
	uint64_t word = mf_page_word(&folio->page);
	mf_pfn_t first = mf_folio_pfn(map, folio);

	TAP_OK(!mf_word_is_tail(word) && mf_word_kind(word) == MF_KIND_USED);
	TAP_OK(pfn >= first && pfn < first + ((mf_pfn_t)1 << mf_word_order(word)));
	if (one_in(w, 4))
		sched_yield();
	TAP_OK(mf_folio_refcount(folio) > 0);
	TAP_OK(mf_pfn_folio(map, pfn) == folio && mf_page_folio(map, mf_pfn_to_page(map, pfn)) == folio);
	TAP_OK(mf_pfn_is_valid(map, pfn));
	TAP_OK(mf_page_word(&folio->page) == word);
}

static void look_once(struct worker *w, enum tally how)
{
	mf_pfn_t pfn = somewhere(w);
	unsigned tier = (unsigned)pick(w, 3);
	struct mf_page *page = mf_geometry_descriptor(mf_map_geometry(map), tier, pfn);
	struct mf_folio *folio;

	if (how == GETS_BELOW) {
		folio = mf_folio_try_get(map, page);
		pfn = mf_page_to_pfn(map, page); /* of the tier's block: what the descriptor stands for */
	} else {
		folio = how == PINS ? mf_pfn_try_pin(map, pfn) : mf_pfn_try_get(map, pfn);
	}
	if (!folio)
		return;
	count(how);
	check_held(w, folio, pfn);
	if (how == PINS) {
		TAP_OK(mf_folio_pincount(folio) > 0);
		TAP_EQ(mf_folio_pin(folio), 0);
		mf_folio_unpin(map, folio);
		mf_folio_unpin(map, folio);
		return;
	}
	mf_folio_get(folio);
	mf_folio_put(map, folio);
	mf_folio_put(map, folio);
}

static void look(struct worker *w)
{
	static const enum tally how[] = { GETS_BELOW, GETS_ABOVE, PINS };

	for (uint64_t i = 0; i < nr_ops || atomic_load_explicit(&nr_working, memory_order_relaxed); i++)
		look_once(w, how[i % 3]);
}

/* A section that has seen a count: its record stays backed until the section ends. */
static void arm(struct worker *w)
{
	_Atomic uintptr_t *mine = &armed[w->number % NR_ARMED];

	for (uint64_t i = 0; i < nr_ops / 4 || atomic_load_explicit(&nr_working, memory_order_relaxed); i++) {
		struct mf_folio *folio;

		mf_reader_enter(map);
		folio = mf_pfn_folio(map, somewhere(w));
		if (folio && mf_folio_refcount(folio) > 0) {
			atomic_store(mine, (uintptr_t)folio);
			count(ARMED);
			sched_yield();
			atomic_store(mine, 0);
		}
		mf_reader_exit(map);
	}
}

static void check_not_armed(void *ctx, uintptr_t addr, uint64_t size_bytes)
{
	(void)ctx;
	for (unsigned i = 0; i < NR_ARMED; i++) {
		uintptr_t record = atomic_load(&armed[i]);

		TAP_OK(record < addr || record >= addr + size_bytes);
	}
}

static void iterator(struct worker *w)
{
	(void)w;
	for (uint64_t i = 0; i < nr_ops / 200 || atomic_load_explicit(&nr_working, memory_order_relaxed); i++) {
		mf_pfn_t pfn = 0;
		struct mf_folio *folio;
		unsigned found = 0;

		while ((folio = mf_folio_next(map, pfn, SPAN, &pfn)) != NULL)
			for (unsigned s = 0; s < NR_SENTINELS; s++)
				found += mf_folio_pfn(map, folio) == sentinel[s];
		TAP_EQ(found, NR_SENTINELS);
		count(PASSES);
	}
}

/* ---- The whole ---------------------------------------------------------------------------------------------- */

static void *worker_main(void *ctx)
{
	struct worker *w = ctx;

	TAP_OK(mf_linux_thread_register(slow.inner) == 0);
	w->run(w);
	if (w->changes)
		atomic_fetch_sub(&nr_working, 1);
	return NULL;
}

static void run_all(void)
{
	static struct worker worker[] = {
		{ .run = allocator, .changes = true }, { .run = allocator, .changes = true },
		{ .run = splitter, .changes = true },  { .run = folder, .changes = true },
		{ .run = regions, .changes = true },   { .run = look },
		{ .run = look },                       { .run = arm },
		{ .run = arm },                        { .run = iterator },
	};
	enum { NR = sizeof(worker) / sizeof(worker[0]) };

	for (unsigned i = 0; i < NR; i++) {
		worker[i].number = i + 1;
		worker[i].random = seed + i;
		if (worker[i].changes)
			atomic_fetch_add(&nr_working, 1);
	}
	for (unsigned i = 0; i < NR; i++)
		if (pthread_create(&worker[i].thread, NULL, worker_main, &worker[i]) != 0)
			abort();
	for (unsigned i = 0; i < NR; i++)
		pthread_join(worker[i].thread, NULL);
}

/* Pages of the windows that are really there: what a compare-and-swap on an unbacked slot would add to. */
static uint64_t resident_kib(void)
{
	uintptr_t base = (uintptr_t)mf_pfn_to_page(map, 0);
	unsigned long start = 0, end = 0, kib;
	uint64_t sum = 0;
	char line[256];
	FILE *file = fopen("/proc/self/smaps", "re");

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2)
			start = a, end = b;
		else if (start <= base && base < end && sscanf(line, "Anonymous: %lu kB", &kib) == 1)
			sum += kib;
	}
	if (file)
		fclose(file);
	return sum;
}

/*
 * The folios that stay: 2 MiB each, all over the last top block and A's far edge, so that whatever splits and merges
 * stands before and between them.
 */
static void place_sentinels(struct mf_folio *stays[NR_SENTINELS])
{
	enum { NR = (A_END - A_START) / 512, STEP = 512 / (NR_SENTINELS - 1) * 512 };
	static struct mf_folio *all[NR];
	unsigned nr = 0, nr_stay = 0;

	while (nr < NR && mf_folio_alloc(map, 0, 9, MF_ALLOC_WAIT, &all[nr]) == 0)
		nr++;
	for (unsigned i = 0; i < nr; i++) {
		mf_pfn_t pfn = mf_folio_pfn(map, all[i]);

		if (pfn >= 2 << TOP && (pfn - (2 << TOP)) % STEP == 0 && nr_stay < NR_SENTINELS) {
			sentinel[nr_stay] = pfn;
			mark(pfn, 9, 0, UINT32_MAX);
			stays[nr_stay++] = all[i];
		} else {
			mf_folio_put(map, all[i]);
		}
	}
	TAP_EQ(nr_stay, NR_SENTINELS);
}

static void check_tallies(uint64_t units)
{
	struct mf_map_stats stats;
	char line[480];
	size_t used = 0;

	mf_map_stats(map, &stats);
	for (unsigned i = 0; i < NR_TALLIES; i++) {
		uint64_t n = atomic_load(&tally[i]);

		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%s %llu", i ? ", " : "", tally_of[i].name,
					 (unsigned long long)n);
		if (n < tally_of[i].least * units)
			TAP_NOTE("only %llu %s", (unsigned long long)n, tally_of[i].name);
		TAP_OK(n >= tally_of[i].least * units);
	}
	TAP_NOTE("%s", line);
	TAP_NOTE("unfolds %llu + %llu, folds %llu + %llu of tiers 1 + 2, quiesces %llu",
		 (unsigned long long)stats.unfolds[1], (unsigned long long)stats.unfolds[2],
		 (unsigned long long)stats.folds[1], (unsigned long long)stats.folds[2], (unsigned long long)stats.quiesces);
	TAP_OK(stats.folds[1] >= 300 * units);
	TAP_OK(stats.folds[2] >= 5 * units);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *given = getenv(name);

	return given ? strtoull(given, NULL, 0) : otherwise;
}

static void check_laws(void)
{
	struct mf_violation v = { 0 };

	if (mf_map_check(map, &v))
		TAP_NOTE("law %s at pfn %llu: %s", v.law, (unsigned long long)v.pfn, v.text);
	TAP_OK(v.law == NULL);
}

/* From the first state to the first state. */
static void race(void)
{
	struct mf_folio *stays[NR_SENTINELS];
	uint64_t digest = mf_map_digest(map), kib = resident_kib();

	TAP_OK(kib > 0);
	place_sentinels(stays);
	run_all();
	check_laws();
	check_tallies(nr_ops / OPS_UNIT);
	for (unsigned i = 0; i < NR_SENTINELS; i++) {
		mark(sentinel[i], 9, UINT32_MAX, 0);
		TAP_EQ(mf_folio_refcount(stays[i]), 1);
		mf_folio_put(map, stays[i]);
	}
	TAP_EQ(mf_fold(map, MF_ANY_NODE, MF_FOLD_ALL, NULL), 0);
	check_laws();
	TAP_EQ(mf_map_digest(map), digest);
	TAP_EQ(resident_kib(), kib);
}

static void race_on(enum slow_kind kind)
{
	struct mf_region_config region = { .start_pfn = A_START, .end_pfn = A_END };
	struct mf_map_config config = { .machine = &slow.machine, .span = SPAN };
	unsigned id;

	seed = number_from("MF_SEED", 20240607);
	nr_ops = number_from("MF_OPS", getenv("MF_SOAK") ? 20 * OPS : OPS);
	TAP_NOTE("MF_SEED=%llu MF_OPS=%llu", (unsigned long long)seed, (unsigned long long)nr_ops);
	for (unsigned i = 0; i < NR_TALLIES; i++)
		atomic_store(&tally[i], 0);
	TAP_REQUIRE(slow_machine_create(&slow, kind) == 0);
	slow.yields_in = 64;
	slow.on_discard = check_not_armed;
	TAP_REQUIRE(mf_map_create(&config, &map) == 0);
	TAP_REQUIRE(mf_region_add(map, &region, &id) == 0);
	race();
	TAP_EQ(mf_region_remove(map, id), 0);
	TAP_EQ(mf_map_destroy(map), 0);
	slow_machine_destroy(&slow);
}

TAP_TEST(race_of_threads_that_are_cpus)
{
	race_on(SLOW_THREADS);
}

TAP_TEST(race_of_threads_that_are_pinned)
{
	race_on(SLOW_PINNED);
}

TAP_MAIN()
