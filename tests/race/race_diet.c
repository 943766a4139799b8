/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * race_diet.c - those who put folios on a diet and take them off it, one by one and in lists; who turns the diet on and
 * off; and regions that are populated on it, or whose folios are all on it, while they come and go.
 *
 * Laws: while a folio is held, every descriptor of it leads to it, from below and from above, and none but the head is
 * anything but a tail with no count.  On a machine with tables a write to a slot that is an alias ends in a panic.
 * R-HVO-77, R-SCN-16, R-SCN-17
 */
#include <sched.h>

#include <memfold/diet.h>

#include "tests/race/race.h"
#include "tests/tap.h"

enum { LIST_MAX = 6 };

/* ---- One folio --------------------------------------------------------------------------------------------------- */

/* Others may hold a reference for a moment. */
static bool seize(struct mf_folio *folio)
{
	for (int tries = 0; tries < 500; tries++) {
		if (mf_folio_freeze(folio, 1))
			return true;
		sched_yield();
	}
	return false;
}

static void check_tail(struct mf_folio *folio, mf_pfn_t pfn, mf_pfn_t index)
{
	struct mf_page *page = mf_pfn_to_page(race.map, pfn + index);

	TAP_OK(mf_page_folio(race.map, page) == folio && mf_pfn_folio(race.map, pfn + index) == folio);
	TAP_OK(mf_page_kind(page) == MF_KIND_TAIL);
	if (!(mf_page_word(page) & 1))
		TAP_OK(mf_page_word(&folio->page) & MF_WORD_ALIASED);
	else
		TAP_EQ(__atomic_load_n(&page->counts, __ATOMIC_RELAXED), 0);
}

/* Held by the caller. */
static void check_folio(struct worker *w, struct mf_folio *folio)
{
	mf_pfn_t pfn = mf_folio_pfn(race.map, folio), nr = mf_folio_nr_frames(folio), step = mf_max(nr / 8, 64u);

	for (mf_pfn_t i = step; i < nr; i += step)
		check_tail(folio, pfn, i);
	for (int i = 0; i < 4; i++)
		check_tail(folio, pfn, 1 + pick(w, nr - 1));
	TAP_OK(mf_page_kind(&folio->page) == MF_KIND_USED);
}

/* Its tails were folios of their own until now, which others have seen and held. */
static struct mf_folio *live_before(struct worker *w, struct mf_folio *folio)
{
	unsigned order = mf_folio_order(folio), piece = (unsigned)pick(w, 8);
	mf_pfn_t pfn = mf_folio_pfn(race.map, folio);

	if (mf_folio_split(race.map, folio, piece))
		return folio;
	for (int i = 0; i < 16; i++)
		race_hint(w, pfn + pick(w, (mf_pfn_t)1 << order));
	sched_yield();
	folio = race_merge(w, pfn, order, piece);
	if (folio)
		count(LIVES);
	return folio;
}

static struct mf_folio *obtain(struct worker *w, int node, unsigned order)
{
	struct mf_folio *folio = race_obtain(w, node, order, MF_ALLOC_WAIT | MF_ALLOC_THIS_NODE);

	if (folio && one_in(w, 2))
		folio = live_before(w, folio);
	if (!folio)
		return NULL;
	for (int i = 0; i < 4; i++)
		race_hint(w, mf_folio_pfn(race.map, folio) + pick(w, (mf_pfn_t)1 << order) / 64 * 64);
	return folio;
}

/* ---- Lists of frozen folios -------------------------------------------------------------------------------------- */

static struct mf_folio *folio_of(struct mf_list *node)
{
	return (struct mf_folio *)mf_container_of(node, struct mf_page, list);
}

/* The others leave the list and are given up. */
static void list_seize(struct worker *w, struct mf_list *list)
{
	struct mf_list *next;

	for (struct mf_list *at = list->next; at != list; at = next) {
		next = at->next;
		if (seize(folio_of(at)))
			continue;
		mf_list_remove(at);
		race_give_up(w, folio_of(at));
	}
}

static void list_thaw(struct worker *w, struct mf_list *list)
{
	for (struct mf_list *at = list->next; at != list; at = at->next)
		mf_folio_unfreeze(folio_of(at), 1);
	for (struct mf_list *at = list->next; at != list; at = at->next)
		check_folio(w, folio_of(at));
}

static void list_give_up(struct worker *w, struct mf_list *list)
{
	while (!mf_list_is_empty(list)) {
		struct mf_list *at = list->next;

		mf_list_remove(at);
		if (mf_folio_is_on_diet(folio_of(at)))
			count(KEPT);
		race_give_up(w, folio_of(at));
	}
}

/* Memory fails where race_switch() makes it, and nowhere else. */
static void refused(const char *what, int err)
{
	if (!err)
		return;
	count(REFUSED);
	if (err == -MF_ENOMEM && race.slow.kind == SLOW_TABLES)
		return;
	TAP_NOTE("%s: %s", what, mf_strerror(err));
	TAP_OK(err == 0);
}

static void list_remap(struct worker *w, struct mf_list *list)
{
	uint64_t nr = 0;

	if (one_in(w, 2)) {
		refused("remap of a list", mf_diet_remap_list(race.map, list, &nr));
		atomic_fetch_add(&race.tally[REMAPS], nr);
		return;
	}
	for (struct mf_list *at = list->next; at != list; at = at->next) {
		refused("remap", mf_diet_remap(race.map, folio_of(at)));
		if (mf_folio_is_on_diet(folio_of(at)))
			count(REMAPS);
	}
}

static void list_restore(struct worker *w, struct mf_list *list)
{
	struct mf_list restored;
	uint64_t nr = 0;

	if (one_in(w, 2)) {
		mf_list_init(&restored);
		refused("restore of a list", mf_diet_restore_list(race.map, list, &restored, &nr));
		atomic_fetch_add(&race.tally[RESTORES], nr);
		while (!mf_list_is_empty(&restored)) {
			struct mf_list *at = restored.next;

			TAP_OK(!mf_folio_is_on_diet(folio_of(at)));
			mf_list_remove(at);
			mf_list_push_back(list, at);
		}
		return;
	}
	for (struct mf_list *at = list->next; at != list; at = at->next) {
		int err = mf_diet_restore(race.map, folio_of(at));

		refused("restore", err);
		TAP_OK(err || !mf_folio_is_on_diet(folio_of(at)));
		if (!err)
			count(RESTORES);
	}
}

/* On the diet, looked at, and kept on it when freed; or off it again first. */
static void list_live(struct worker *w, struct mf_list *list)
{
	list_seize(w, list);
	list_remap(w, list);
	list_thaw(w, list);
	sched_yield();
	if (one_in(w, 2)) {
		list_seize(w, list);
		list_restore(w, list);
		list_thaw(w, list);
	}
	list_give_up(w, list);
}

void race_dieter(struct worker *w)
{
	struct mf_list list;

	mf_list_init(&list);
	for (uint64_t i = 0; i < race.nr_ops / 50; i++) {
		int node = DIET_NODE + (int)pick(w, NR_DIETS);

		for (uint64_t nr = one_in(w, 2) ? 1 : 1 + pick(w, LIST_MAX); nr > 0; nr--) {
			struct mf_folio *folio = obtain(w, node, 7 + (unsigned)pick(w, 5));

			if (folio)
				mf_list_push_back(&list, &folio->page.list);
		}
		list_live(w, &list);
	}
}

/* ---- Regions ----------------------------------------------------------------------------------------------------- */

static bool add(const struct mf_region_config *config, unsigned *id)
{
	int err = mf_region_add(race.map, config, id);

	refused("add of a region", err);
	return err == 0;
}

/* Others look at it, and hold what they find for a moment.  Where memory fails, it does so for a moment. */
static void remove_region(unsigned id)
{
	int err;

	while ((err = mf_region_remove(race.map, id)) == -MF_EBUSY || err == -MF_ENOMEM) {
		if (err == -MF_ENOMEM)
			refused("removal of a region", err);
		sched_yield();
	}
	TAP_EQ(err, 0);
}

/* Two folios, each of two tables full of slots: uniform tables, larger leaves.  The region goes while they are kept. */
void race_big(struct worker *w)
{
	struct mf_list list;

	mf_list_init(&list);
	for (uint64_t i = 0; i < race.nr_ops / 500; i++) {
		struct mf_region_config config = {
			.end_pfn = E_END, .node = BIG_NODE, .source = MF_SOURCE_RAM,
			.layout = MF_LAYOUT_HVO_5_14 + (enum mf_layout)pick(w, NR_DIETS),
		};
		unsigned id;

		if (!add(&config, &id))
			continue;
		for (int round = 0; round < 3; round++) {
			for (unsigned nr = 0; nr < 2; nr++) {
				struct mf_folio *folio = obtain(w, BIG_NODE, BIG_ORDER);

				if (folio)
					mf_list_push_back(&list, &folio->page.list);
			}
			if (!mf_list_is_empty(&list))
				count(BIG);
			list_live(w, &list);
		}
		remove_region(id);
	}
}

/* Compounds that are on a diet from the beginning; the lookers find, hold and pin them.  R-DAX-15 */
void race_devices(struct worker *w)
{
	for (uint64_t i = 0; i < race.nr_ops / 250; i++) {
		struct mf_region_config config = {
			.start_pfn = E_END, .end_pfn = F_END, .node = DEVICE_NODE, .source = MF_SOURCE_RAM,
			.layout = MF_LAYOUT_DEVDAX, .unit_order = 8 + (unsigned)pick(w, 4),
		};
		unsigned id;

		if (!add(&config, &id))
			continue;
		for (int j = 0; j < 64; j++) {
			race_hint(w, E_END + pick(w, F_END - E_END) / 64 * 64);
			sched_yield();
		}
		remove_region(id);
		count(DEVICES);
	}
}

/* ---- What else changes ------------------------------------------------------------------------------------------- */

/* The diet goes on and off.  On page tables memory fails now and then, for whoever comes next. */
void race_switch(struct worker *w)
{
	for (uint64_t i = 0; i < race.nr_ops / 10; i++) {
		mf_diet_switch(race.map, !one_in(w, 8));
		if (race.slow.kind == SLOW_TABLES && one_in(w, 16))
			slow_machine_fail_any(&race.slow, 1 + pick(w, 30));
		for (int j = 0; j < 10; j++)
			sched_yield();
	}
	mf_diet_switch(race.map, true);
	if (race.slow.kind == SLOW_TABLES)
		slow_machine_fail_any(&race.slow, 0);
}
