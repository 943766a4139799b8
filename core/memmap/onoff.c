/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * onoff.c - the calls: folios and lists of them go on the diet and off it.
 *
 * A list that goes on the diet costs one wait for readers and two flushes: leaves are split first, all of them; frames
 * go back at the end.  One that goes off it waits for nobody, and costs one flush.
 */
#include "core/memmap/diet.h"

static struct diet_unit unit_checked(struct mf_map *map, struct mf_folio *folio)
{
	struct mf_page *head = &folio->page;
	uint64_t word = mf_page_word(head);

	MF_PANIC_IF(mf_word_is_tail(word) || mf_word_kind(word) != MF_KIND_USED ||
			    __atomic_load_n(&head->counts, __ATOMIC_RELAXED) != 0,
		    "memfold: the map of pfn %llu is remapped or restored, but that is no folio frozen by its owner.",
		    (unsigned long long)mf_page_to_pfn(map, head));
	return diet_unit(map, head);
}

static bool wants_remap(const struct diet_unit *u)
{
	return diet_unit_saves(u) && !(mf_page_word(u->head) & MF_FLAG_DIET);
}

/* A map that lies in the memory it describes stays as it is, as on Linux [R-HVO-30], unless that was asked for. */
static int may_remap(const struct diet_unit *u)
{
	if (u->r->source == MF_SOURCE_SELF && !(u->r->config.flags & MF_REGION_DIET_SELF_HOSTED))
		return -MF_EOPNOTSUPP;
	return diet_unit_is_hosted(u) ? -MF_EOPNOTSUPP : 0;
}

/*
 * Counted before its first look at an entry, and again after its last switch.  A remap during which no other was on its
 * way may make a leaf again of a table that it has split (diet_unsplit()).  One that is seen to have ended is seen to
 * have begun.
 */
static void remap_begin(struct diet_work *w, struct mf_map *map, uint64_t nr_units)
{
	diet_work_begin(w, map, MF_FLUSH_FOR_REMAP, nr_units);
	w->nth_remap = __atomic_add_fetch(&map->remaps_begun, 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&map->remaps_ended, __ATOMIC_ACQUIRE) != w->nth_remap - 1)
		w->nth_remap = 0;
}

static void remap_end(struct diet_work *w)
{
	__atomic_fetch_add(&w->map->remaps_ended, 1, __ATOMIC_RELEASE);
	diet_work_end(w);
}

int mf_diet_remap(struct mf_map *map, struct mf_folio *folio)
{
	struct diet_unit u;
	struct diet_work w;
	int err = map_permit(map);

	if (err)
		return err;
	u = unit_checked(map, folio);
	if (!mf_diet_is_on(map) || !wants_remap(&u))
		return 0;
	err = may_remap(&u);
	if (err)
		return err;
	remap_begin(&w, map, 1);
	err = diet_split(&u, &w, true);
	if (!err) {
		mf_quiesce(map);
		err = diet_remap(&u, &w);
		if (err)
			diet_unsplit(&u, &w);
	}
	remap_end(&w);
	diet_rely(&u);
	return err;
}

static struct mf_folio *folio_of_list(struct mf_list *at)
{
	return (struct mf_folio *)mf_container_of(at, struct mf_page, list);
}

/*
 * The leaves that the first pass split last.  When it has taken all memory for tables, the first folio lacks what it
 * needs: a table, its head's frame, the zone's tail frame.  So many are merged again; with what that folio gives back
 * the next one goes, and a list fails only where single calls would.
 */
enum { FIRST_NEEDS = 3 };

struct recent {
	struct diet_unit unit[FIRST_NEEDS];
	unsigned nr; /* ever; the last of them are at nr % FIRST_NEEDS */
};

/* Splits what has to be split, until memory runs out; how many folios want the diet. */
static uint64_t split_list(struct mf_map *map, struct mf_list *folios, struct diet_work *w, struct recent *recent)
{
	uint64_t nr = 0;
	int err = 0;

	for (struct mf_list *at = folios->next; at != folios; at = at->next) {
		struct diet_unit u = unit_checked(map, folio_of_list(at));

		if (!wants_remap(&u) || may_remap(&u))
			continue;
		nr++;
		if (err)
			continue;
		err = diet_split(&u, w, false);
		if (w->has_split)
			recent->unit[recent->nr++ % FIRST_NEEDS] = u;
	}
	return nr;
}

static void unsplit_recent(struct diet_work *w, struct recent *recent)
{
	for (unsigned i = 0; i < recent->nr && i < FIRST_NEEDS; i++) {
		w->has_split = true;
		diet_unsplit(&recent->unit[i], w);
	}
	recent->nr = 0;
}

/* What the first pass did not reach is split here; it alone becomes a leaf again when memory lacks. */
static int remap_one(const struct diet_unit *u, struct diet_work *w)
{
	int err = may_remap(u);

	if (!err)
		err = diet_split(u, w, true);
	if (!err) {
		err = diet_remap(u, w);
		if (err)
			diet_unsplit(u, w);
	}
	return err;
}

static uint64_t count_list(const struct mf_list *list)
{
	uint64_t nr = 0;

	for (const struct mf_list *at = list->next; at != list; at = at->next)
		nr++;
	return nr;
}

int mf_diet_remap_list(struct mf_map *map, struct mf_list *folios, uint64_t *nr_remapped)
{
	struct recent recent = { .nr = 0 };
	struct diet_work w;
	uint64_t nr = 0;
	int err, first = map_permit(map);

	if (nr_remapped)
		*nr_remapped = 0;
	if (first || folios->next == folios || !mf_diet_is_on(map))
		return first;
	remap_begin(&w, map, count_list(folios));
	if (split_list(map, folios, &w, &recent) > 0) {
		diet_work_flush(&w);
		mf_quiesce(map);
	}
	for (struct mf_list *at = folios->next; at != folios; at = at->next) {
		struct diet_unit u = unit_checked(map, folio_of_list(at));

		if (!wants_remap(&u))
			continue;
		err = remap_one(&u, &w);
		if (err == -MF_ENOMEM && w.nr == 0 && nr == 0)
			unsplit_recent(&w, &recent);
		if (err == -MF_ENOMEM && w.nr > 0) {
			diet_work_flush(&w);
			err = remap_one(&u, &w);
		}
		nr += err == 0;
		first = first ? first : err;
	}
	remap_end(&w);
	if (nr_remapped)
		*nr_remapped = nr;
	return first;
}

int mf_diet_restore(struct mf_map *map, struct mf_folio *folio)
{
	struct diet_unit u;
	struct diet_work w;
	int err = map_permit(map);

	if (err)
		return err;
	u = unit_checked(map, folio);
	if (!(mf_page_word(u.head) & MF_FLAG_DIET))
		return 0;
	diet_work_begin(&w, map, MF_FLUSH_FOR_RESTORE, 1);
	err = diet_restore(&u, &w);
	diet_work_end(&w);
	if (!err)
		diet_restored(&u);
	return err;
}

int mf_diet_restore_list(struct mf_map *map, struct mf_list *folios, struct mf_list *restored, uint64_t *nr_restored)
{
	struct mf_list *at;
	struct diet_work w;
	uint64_t nr = 0, nr_done = 0;
	int err = map_permit(map);

	if (nr_restored)
		*nr_restored = 0;
	if (err || folios->next == folios)
		return err;
	diet_work_begin(&w, map, MF_FLUSH_FOR_RESTORE, count_list(folios));
	for (at = folios->next; at != folios; at = at->next) {
		struct diet_unit u = unit_checked(map, folio_of_list(at));
		bool dieted = mf_page_word(u.head) & MF_FLAG_DIET;

		if (dieted)
			err = diet_restore(&u, &w);
		if (err)
			break;
		nr += dieted;
		nr_done++;
	}
	diet_work_end(&w);
	/* Only now: a head may have moved, and until the flush a write could have reached its old frame. */
	for (; nr_done > 0; nr_done--) {
		struct diet_unit u;

		at = folios->next;
		u = diet_unit(map, &folio_of_list(at)->page);
		diet_restored(&u);
		mf_list_remove(at);
		mf_list_push_back(restored, at);
	}
	if (nr_restored)
		*nr_restored = nr;
	return err;
}
