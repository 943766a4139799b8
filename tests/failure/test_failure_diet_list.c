/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_failure_diet_list.c - lists of folios go on their diet and off it with the n-th allocation failing, for every n
 * until none is left: each folio is on its diet or off it as a whole, what is told is true, and the others go on.
 */
#include "tests/failure/failure_diet.h"
#include "tests/tap.h"

enum { NR_FOLIOS = 4 };

/* Three folios in one larger leaf and one in another, so that both are split; of 1 GiB: two. */
static const struct kind {
	unsigned order, nr;
	enum mf_map_flags flags;
} kinds[] = {
	{ 9, NR_FOLIOS, MF_MAP_SHARE_TABLES },
	{ 9, NR_FOLIOS, MF_MAP_PRIVATE_TABLES },
	{ 18, 2, MF_MAP_SHARE_TABLES },
};

enum { NR_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

struct stage {
	struct world w;
	const struct kind *kind;
	struct mf_folio *folio[NR_FOLIOS]; /* in the order of the list                                            */
	struct mf_list list, restored;
};

/* What lies between the third and the fourth is given back at once. */
static bool stage_fill(struct stage *s)
{
	for (unsigned i = 0; i < s->kind->nr; i++) {
		struct mf_folio *between = i == 3 ? world_alloc(&s->w, 15) : NULL;

		s->folio[i] = diet_folio(&s->w, s->kind->order);
		if (!s->folio[i])
			return false;
		mf_list_push_back(&s->list, &s->folio[i]->page.list);
		if (between)
			mf_folio_put(s->w.map, between);
	}
	return true;
}

static bool stage_open(struct stage *s, const struct kind *kind, enum mf_layout layout)
{
	struct world_config config = {
		.nr_frames = kind->order == 18 ? 2 * G : G,
		.nr_ram_frames = kind->order == 18 ? 2 * NR_RAM_MAX : 4300,
		.flags = kind->flags,
	};

	s->kind = kind;
	mf_list_init(&s->list);
	mf_list_init(&s->restored);
	return diet_open(&s->w, &config, layout) && stage_fill(s);
}

static void stage_close(struct stage *s)
{
	diet_list_free(&s->w, &s->list);
	diet_list_free(&s->w, &s->restored);
	TAP_OK(world_close(&s->w));
}

static uint64_t nr_on_diet(const struct stage *s)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < s->kind->nr; i++)
		nr += mf_folio_is_on_diet(s->folio[i]);
	return nr;
}

static void each_kind(void (*play)(const struct kind *kind, enum mf_layout layout, enum world_sort sort))
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_KINDS; j++)
			for (unsigned sort = 0; sort < WORLD_NR_SORTS; sort++) {
				play(&kinds[j], diet_layouts[i], (enum world_sort)sort);
				if (atomic_load(&tap_state.failed)) {
					TAP_NOTE("%s, order %u, %s tables, sort %u", mf_layout_name(diet_layouts[i]),
						 kinds[j].order, kinds[j].flags ? "private" : "shared", sort);
					return;
				}
			}
}

/* ---- Remap ------------------------------------------------------------------------------------------------------- */

/* The list is the same, of the same folios. */
static void check_list(const struct stage *s)
{
	const struct mf_list *at = s->list.next;

	for (unsigned i = 0; i < s->kind->nr; i++, at = at->next)
		TAP_OK(at == &s->folio[i]->page.list);
	TAP_OK(at == &s->list);
}

/* One that fails, or none: when something has become free by then, it is tried again. */
static void check_remapped(struct stage *s, int err, uint64_t nr_remapped)
{
	TAP_OK(err == 0 || err == -MF_ENOMEM);
	TAP_EQ(nr_remapped, nr_on_diet(s));
	TAP_EQ(nr_remapped, s->kind->nr - (err != 0));
	TAP_EQ(diet_stats(&s->w).nr_dieted, nr_remapped);
	for (unsigned i = 0; i < s->kind->nr; i++)
		TAP_OK(diet_answers(&s->w, s->folio[i], s->kind->order));
	check_list(s);
	TAP_OK(world_check(&s->w));
}

static void play_remap(const struct kind *kind, enum mf_layout layout, enum world_sort sort)
{
	uint64_t n = 0, nr_calls;

	do {
		uint64_t nr_remapped = 99, nr_slots;
		struct stage s;
		int err;

		TAP_REQUIRE(stage_open(&s, kind, layout));
		nr_slots = diet_stats(&s.w).nr_slots;
		world_fail(&s.w, sort, ++n);
		err = mf_diet_remap_list(s.w.map, &s.list, &nr_remapped);
		nr_calls = world_fail_end(&s.w);
		check_remapped(&s, err, nr_remapped);

		/* The rest follows. */
		TAP_EQ(mf_diet_remap_list(s.w.map, &s.list, &nr_remapped), 0);
		TAP_EQ(nr_remapped, err ? 1 : 0);
		TAP_EQ(nr_on_diet(&s), kind->nr);
		TAP_EQ(mf_diet_restore_list(s.w.map, &s.list, &s.restored, NULL), 0);
		TAP_EQ(diet_stats(&s.w).nr_slots, nr_slots + (layout == MF_LAYOUT_HVO_7_1));
		TAP_OK(world_check(&s.w));
		stage_close(&s);
	} while (nr_calls >= n && n < ATTEMPTS_MAX && !atomic_load(&tap_state.failed));
	TAP_OK(n < ATTEMPTS_MAX);
}

/* R-HVO-35, R-HVO-36, R-HVO-38, R-HVO-39, R-SCN-5, R-SCN-6 */
TAP_TEST(failure_of_remap_in_a_list)
{
	each_kind(play_remap);
}

/* ---- Restore ----------------------------------------------------------------------------------------------------- */

/* The first `nr` have moved, in their order; the rest stay, in theirs, the first of them on its diet as it was. */
static void check_restored(struct stage *s, int err, uint64_t nr)
{
	const struct mf_list *at = s->restored.next;

	TAP_OK(err == 0 || err == -MF_ENOMEM);
	TAP_EQ(err == 0, nr == s->kind->nr);
	TAP_EQ(nr_on_diet(s), s->kind->nr - nr);
	for (unsigned i = 0; i < s->kind->nr; i++) {
		if (i == nr) {
			TAP_OK(at == &s->restored);
			at = s->list.next;
		}
		TAP_OK(at == &s->folio[i]->page.list);
		TAP_EQ(mf_folio_is_on_diet(s->folio[i]), i >= nr);
		TAP_OK(diet_answers(&s->w, s->folio[i], s->kind->order));
		at = at->next;
	}
	TAP_OK(at == (nr == s->kind->nr ? &s->restored : &s->list));
	TAP_OK(world_check(&s->w));
}

static void move_back(struct stage *s)
{
	for (unsigned i = 0; i < s->kind->nr; i++) {
		mf_list_remove(&s->folio[i]->page.list);
		mf_list_push_back(&s->list, &s->folio[i]->page.list);
	}
}

static void play_restore(const struct kind *kind, enum mf_layout layout, enum world_sort sort)
{
	uint64_t n = 0, nr_calls, nr_failed = 0;
	struct stage s;

	TAP_REQUIRE(stage_open(&s, kind, layout));
	do {
		uint64_t nr_restored = 99;
		int err;

		TAP_EQ(mf_diet_remap_list(s.w.map, &s.list, NULL), 0);
		world_fail(&s.w, sort, ++n);
		err = mf_diet_restore_list(s.w.map, &s.list, &s.restored, &nr_restored);
		nr_calls = world_fail_end(&s.w);
		nr_failed += err != 0;
		check_restored(&s, err, nr_restored);
		move_back(&s);
	} while (nr_calls >= n && n < ATTEMPTS_MAX && !atomic_load(&tap_state.failed));
	TAP_OK(n < ATTEMPTS_MAX);
	if (sort != WORLD_META && kind->order == 9)
		TAP_EQ(nr_failed, kind->nr * (8 - mf_layout_diet(layout)->nr_kept));
	stage_close(&s);
}

/* R-HVO-43, R-HVO-47, R-SCN-5 */
TAP_TEST(failure_of_restore_in_a_list)
{
	each_kind(play_restore);
}

/* ---- Control memory ---------------------------------------------------------------------------------------------- */

/* A long list asks for control memory to remember what waits for the flush; without it there are more flushes. */
TAP_TEST(failure_of_control_memory_costs_flushes_only)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		uint64_t flushes[2], nr = 0;

		for (unsigned fails = 0; fails < 2; fails++) {
			struct mf_list list, restored;
			struct mf_map_stats before;
			struct world w;

			mf_list_init(&list);
			mf_list_init(&restored);
			TAP_REQUIRE(diet_open(&w, &(struct world_config){ .nr_frames = G }, diet_layouts[i]));
			TAP_REQUIRE(diet_list_fill(&w, &list, 9, 256));
			before = diet_stats(&w);
			world_fail(&w, WORLD_META, fails);
			TAP_EQ(mf_diet_remap_list(w.map, &list, &nr), 0);
			world_fail_end(&w);
			TAP_EQ(nr, 256);
			flushes[fails] = diet_stats(&w).flushes - before.flushes;
			TAP_OK(world_check(&w));
			world_fail(&w, WORLD_META, fails);
			TAP_EQ(mf_diet_restore_list(w.map, &list, &restored, &nr), 0);
			world_fail_end(&w);
			TAP_EQ(nr, 256);
			TAP_OK(world_check(&w));
			diet_list_free(&w, &restored);
			TAP_OK(world_close(&w));
		}
		TAP_EQ(flushes[0], 2);
		/* Where heads move, too, what goes back lies in one row. */
		TAP_OK(mf_layout_diet(diet_layouts[i])->moves_head ? flushes[1] == 2 : flushes[1] > 2);
	}
}

TAP_MAIN()
