/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flush_look.c - every processor looks at the slots that changed; see flush_look.h.
 *
 * One processor runs the map and waits while the others look, so that nothing changes meanwhile.  What a stale
 * translation makes of a look does no harm: it reads, and adds nothing to a word by a locked instruction.
 */
#include "tests/metal/flush_look.h"

#include "machines/x86_64/x86_64.h"

#include <stdlib.h>
#include <string.h>

static struct look_spot spots[LOOK_SPOTS_MAX];
static unsigned nr_spots;
static uint64_t nr_stale_of[X86_CPUS_MAX];

/* ---- What the tables say ---------------------------------------------------------------------------------------- */

static uintptr_t window_start(const struct look *l)
{
	return l->w->map->geo.window[0];
}

/* Where a slot leads, and how. */
static uint64_t key_of(const struct mf_translation *t)
{
	return t->pfn << 1 | t->writable;
}

static uint64_t slot_number(const struct look *l, uintptr_t va)
{
	return (va - window_start(l)) >> X86_PAGE_SHIFT;
}

/* ---- A look ----------------------------------------------------------------------------------------------------- */

enum { NR_WORDS = X86_PAGE / 8, LAST_WORD = NR_WORDS - 1, STRIDE = 61 };

static void add_nothing(void *at)
{
	(void)__atomic_fetch_or((uint64_t *)at, 0, __ATOMIC_RELAXED);
}

static bool sees(const struct look_spot *spot)
{
	const volatile uint64_t *slot = (const volatile uint64_t *)spot->va;
	struct x86_fault fault;
	bool same = true;

	if (spot->writable)
		return slot[LAST_WORD] == spot->nonce && !x86_expect_fault(add_nothing, (void *)spot->va, &fault);
	for (unsigned i = 0; i < NR_WORDS; i += STRIDE)
		same &= slot[i] == spot->frame[i];
	return same && x86_expect_fault(add_nothing, (void *)spot->va, &fault);
}

static void look(void *ctx)
{
	uint64_t *nr_stale = ctx;

	for (unsigned i = 0; i < nr_spots; i++)
		*nr_stale += !sees(&spots[i]);
}

/*
 * An emulator keeps one translation for all pages whose numbers end in the same bits, of as many bits as were used of
 * late.  So pages that differ in them are used first, and each processor loads slots that do not drive each other out.
 */
enum { NR_FILL = 2048, GROWING_ROUNDS = 8 };

static void load(void *ctx)
{
	const struct mf_machine *m = ctx;

	for (unsigned i = 0; i < NR_FILL; i++)
		(void)*(const volatile uint64_t *)mf_machine_frame(m, i);
	for (unsigned i = 0; i < nr_spots; i++)
		if (spots[i].loaded_by == x86_this_cpu()->number)
			(void)*(const volatile uint64_t *)spots[i].va;
}

/* One of the others that loads nothing else in its place; false when all do. */
static bool find_loader(uintptr_t va, unsigned *cpu)
{
	static bool taken[X86_CPUS_MAX][NR_FILL];

	if (nr_spots == 0)
		memset(taken, 0, sizeof(taken));
	for (*cpu = 0; *cpu < x86_nr_cpus; ++*cpu) {
		bool *place = &taken[*cpu][(va >> X86_PAGE_SHIFT) % NR_FILL];

		if (*cpu != x86_this_cpu()->number && !*place) {
			*place = true;
			return true;
		}
	}
	return false;
}

static void run_on_others(void (*work)(void *ctx), void *(*ctx_of)(struct look *l, unsigned n), struct look *l)
{
	for (unsigned n = 0; n < x86_nr_cpus; n++)
		if (n != x86_this_cpu()->number)
			smp_run(n, work, ctx_of(l, n));
	for (unsigned n = 0; n < x86_nr_cpus; n++)
		if (n != x86_this_cpu()->number)
			smp_wait(n);
}

static void *machine_for(struct look *l, unsigned n)
{
	(void)n;
	return l->w->machine;
}

static void *nr_stale_for(struct look *l, unsigned n)
{
	(void)l;
	nr_stale_of[n] = 0;
	return &nr_stale_of[n];
}

/* All of the spots, by the others and perhaps by this processor.  How often one was not what it should be. */
static uint64_t look_all(struct look *l, bool here)
{
	unsigned self = x86_this_cpu()->number;
	uint64_t nr = 0;

	for (unsigned i = 0; i < nr_spots; i++) {
		spots[i].saved = spots[i].frame[LAST_WORD];
		spots[i].nonce = ++l->nonce << 32 | 0x10cc;
		if (spots[i].writable)
			spots[i].frame[LAST_WORD] = spots[i].nonce;
	}
	run_on_others(look, nr_stale_for, l);
	nr_stale_of[self] = 0;
	if (here)
		look(&nr_stale_of[self]);
	for (unsigned n = 0; n < x86_nr_cpus; n++)
		nr += nr_stale_of[n];
	for (unsigned i = 0; i < nr_spots; i++)
		if (spots[i].writable)
			spots[i].frame[LAST_WORD] = spots[i].saved;
	return nr;
}

static void look_and_know(struct look *l)
{
	l->nr_stale += look_all(l, true);
	for (unsigned i = 0; i < nr_spots; i++) {
		struct mf_translation t = mf_pgtable_walk(&l->w->map->pgtable, spots[i].va);

		l->known[slot_number(l, spots[i].va)] = key_of(&t);
	}
}

static void add_spot(struct look *l, uintptr_t va, const struct mf_translation *t)
{
	spots[nr_spots++] = (struct look_spot){
		.va = va,
		.frame = mf_machine_frame(l->w->machine, t->pfn),
		.writable = t->writable,
	};
}

/* Every slot of [start, end) that leads elsewhere than processors were shown. */
static void look_at_changes(struct look *l, uintptr_t start, uintptr_t end)
{
	nr_spots = 0;
	for (uintptr_t va = start; va < end; va += X86_PAGE) {
		struct mf_translation t = mf_pgtable_walk(&l->w->map->pgtable, va);

		if (key_of(&t) == l->known[slot_number(l, va)])
			continue;
		add_spot(l, va, &t);
		if (nr_spots == LOOK_SPOTS_MAX) {
			look_and_know(l);
			nr_spots = 0;
		}
	}
	if (nr_spots > 0)
		look_and_know(l);
}

void look_after(struct look *l)
{
	look_at_changes(l, window_start(l), window_start(l) + l->w->map->window_bytes);
}

/* Flushes that the others did for anybody, also of the direct map: what they had loaded before may be gone. */
static uint64_t nr_served(void)
{
	uint64_t nr = 0;

	for (unsigned n = 0; n < x86_nr_cpus; n++)
		nr += __atomic_load_n(&x86_cpus[n].nr_ipis_served, __ATOMIC_RELAXED);
	return nr;
}

/* The slots in focus, but those that changed and wait for another flush, and those for which there is no room. */
static void load_focus(struct look *l)
{
	unsigned cpu;

	for (uint64_t i = 0; i < l->nr_slots; i++)
		l->loaded[i] = 0;
	nr_spots = 0;
	for (unsigned i = 0; i < l->nr_focus; i++) {
		struct mf_translation t = mf_pgtable_walk(&l->w->map->pgtable, l->focus[i]);
		uint64_t number = slot_number(l, l->focus[i]);

		/* Two spots in one frame would overwrite each other's nonces. */
		if (l->loaded[number] || key_of(&t) != l->known[number] || !find_loader(l->focus[i], &cpu))
			continue;
		add_spot(l, l->focus[i], &t);
		spots[nr_spots - 1].loaded_by = cpu;
		l->loaded[number] = 1;
	}
	look_and_know(l);
	run_on_others(load, machine_for, l);
	l->nr_served = nr_served();
}

void look_load(struct look *l)
{
	look_after(l);
	load_focus(l);
}

enum { FOCUS_ENDS = 32 };

void look_away(struct look *l)
{
	l->nr_focus = 0;
}

void look_focus(struct look *l, mf_pfn_t pfn, unsigned order)
{
	const struct mf_geometry *g = &l->w->map->geo;

	for (unsigned tier = 0; tier <= g->top; tier++) {
		uintptr_t va = mf_round_down((uintptr_t)map_record(l->w->map, tier, pfn), X86_PAGE);
		uintptr_t last = (uintptr_t)map_record(l->w->map, tier, pfn + ((mf_pfn_t)1 << order) - 1);
		uint64_t nr = (mf_round_down(last, X86_PAGE) - va) / X86_PAGE + 1;

		for (uint64_t i = 0; i < nr; i++)
			if ((i < FOCUS_ENDS || i + FOCUS_ENDS >= nr) && l->nr_focus < LOOK_SPOTS_MAX)
				l->focus[l->nr_focus++] = va + i * X86_PAGE;
	}
}

/* ---- Around each flush ------------------------------------------------------------------------------------------ */

static bool leaves_others_alone(uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	(void)size_bytes;
	(void)scope;
	return start >= X86_WINDOWS && start < X86_WINDOWS + X86_NR_WINDOWS * X86_WINDOW_BYTES;
}

/* What the running flush is for: it is counted already. */
static enum mf_flush_for purpose_now(struct look *l)
{
	enum mf_flush_for purpose = MF_FLUSH_FOR_END;

	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++) {
		if (l->w->map->flushes_for[i].nr != l->total[i])
			purpose = (enum mf_flush_for)i;
		l->total[i] = l->w->map->flushes_for[i].nr;
	}
	return purpose;
}

static bool is_required(struct look *l, uintptr_t start, uintptr_t end)
{
	return due_covers(l->w->machine, map_due(l->w->map), start, end - start);
}

/* Would a processor that holds the old translation see, or do, something else than it should? */
static bool is_visible(uint64_t old_key, uint64_t new_key)
{
	return new_key & 1 ? old_key >> 1 != new_key >> 1 : (old_key & 1) != 0;
}

static void before_flush(void *ctx, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	(void)ctx;
	(void)start;
	(void)size_bytes;
	(void)scope;
	smp_flush_sabotage = leaves_others_alone;
}

static void look_at_left_out(struct look *l, uintptr_t start, uintptr_t end)
{
	struct look_left_out *left_out = &l->left_out[purpose_now(l)];

	nr_spots = 0;
	for (uintptr_t va = start; va < end && nr_spots < LOOK_SPOTS_MAX; va += X86_PAGE) {
		struct mf_translation t = mf_pgtable_walk(&l->w->map->pgtable, va);

		if (l->loaded[slot_number(l, va)] && is_visible(l->known[slot_number(l, va)], key_of(&t)))
			add_spot(l, va, &t);
	}
	left_out->flushes++;
	left_out->required += is_required(l, start, end);
	if (nr_spots == 0 || l->nr_served != nr_served())
		return;
	left_out->visible++;
	left_out->seen += look_all(l, false) > 0;
}

static void after_flush(void *ctx, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct look *l = ctx;
	uintptr_t from = mf_round_down(start, X86_PAGE), end = mf_round_up(start + size_bytes, X86_PAGE);

	if (l->leaves_out) {
		smp_flush_sabotage = NULL;
		look_at_left_out(l, from, end);
		(void)smp_flush(start, size_bytes, scope);
	}
	look_at_changes(l, from, end);
	load_focus(l);
}

/* ---- Open and close --------------------------------------------------------------------------------------------- */

struct world_config look_config(struct look *l, const struct world_config *config)
{
	struct world_config world = *config;

	*l = (struct look){ .leaves_out = l->leaves_out };
	world.wrap = saboteur_wrap;
	world.wrap_ctx = &l->saboteur;
	return world;
}

void look_begin(struct look *l, struct world *w)
{
	char value[2];

	due_only_count(!boot_option("panic", value, sizeof(value)));
	l->w = w;
	l->nr_slots = w->map->window_bytes >> X86_PAGE_SHIFT;
	l->known = malloc(l->nr_slots * sizeof(*l->known));
	l->loaded = malloc(l->nr_slots);
	TAP_REQUIRE(l->known && l->loaded);
	for (uint64_t i = 0; i < l->nr_slots; i++)
		l->known[i] = w->map->pgtable.zero << 1;
	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++)
		l->total[i] = w->map->flushes_for[i].nr;
	nr_spots = 0;
	for (unsigned i = 0; i < GROWING_ROUNDS; i++) {
		run_on_others(load, machine_for, l);
		(void)smp_flush(0, UINT64_MAX, MF_FLUSH_TABLES);
	}
	l->saboteur.watch_ctx = l;
	l->saboteur.flushed = after_flush;
	l->saboteur.flushing = l->leaves_out ? before_flush : NULL;
}

bool look_open(struct look *l, const struct world_config *config)
{
	struct world_config world = look_config(l, config);

	if (!world_open(&l->own, &world))
		return false;
	look_begin(l, &l->own);
	return true;
}

static void tell(const struct look *l, const struct due_counts *counts)
{
	struct due_log *due = map_due(l->w->map);

	TAP_NOTE("%llu changes required a flush, %llu flushes were sent, %llu of them needless",
		 (unsigned long long)counts->required, (unsigned long long)counts->sent,
		 (unsigned long long)counts->needless);
	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++)
		if (due_needless(l->w->machine, due, i))
			TAP_NOTE("needless: %llu for %s", (unsigned long long)due_needless(l->w->machine, due, i),
				 mf_flush_for_name((enum mf_flush_for)i));
	if (l->nr_stale || counts->breaches)
		TAP_NOTE("seen: %llu stale translations, %llu breaches", (unsigned long long)l->nr_stale,
			 (unsigned long long)counts->breaches);
}

void look_end(struct look *l)
{
	struct mf_map *map = l->w->map;
	struct due_counts counts;

	TAP_OK(world_check(l->w));
	for (unsigned id = 0; id < MF_REGIONS_MAX; id++)
		if (map->region[id])
			TAP_EQ(mf_region_remove(map, id), 0);
	look_after(l);
	TAP_OK(world_check(l->w));
	counts = due_counts(l->w->machine, map_due(map));
	tell(l, &counts);
	TAP_EQ(l->nr_stale, 0);
	TAP_EQ(counts.breaches, 0);
	TAP_EQ(counts.overflowed, 0);
	free(l->known);
	free(l->loaded);
	l->known = NULL;
	l->saboteur.flushing = NULL;
	l->saboteur.flushed = NULL;
	smp_flush_sabotage = NULL;
	due_only_count(false);
}

void look_close(struct look *l)
{
	look_end(l);
	TAP_OK(world_close(l->w));
}
