/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_unsplit.c - two remaps in one table: a leaf that the other has split meanwhile; and of which one fails: it
 * makes a leaf of the table again that it has split, but not while the other relies on that, nor when it has changed
 * what is in there.
 *
 *	one    split the leaf    get a head: wait ............... fails, unsplit
 *	two                      find a table, get a head: wait ..................... switch entries
 *
 * Two threads, of which one runs at a time: sim is one CPU.
 */
#include "core/memmap/map.h"
#include "tests/lib/hog.h"
#include "tests/lib/saboteur.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <pthread.h>

#define G WORLD_GIB_FRAMES

enum { NOBODY, ONE, TWO };

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	int turn;
} stage = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NOBODY };

static _Thread_local int me; /* NOBODY: calls go through                                                      */
static _Thread_local unsigned nr_calls;

static void hand_over(int next)
{
	pthread_mutex_lock(&stage.mutex);
	stage.turn = next;
	pthread_cond_broadcast(&stage.changed);
	pthread_mutex_unlock(&stage.mutex);
}

static void wait_for_turn(void)
{
	pthread_mutex_lock(&stage.mutex);
	while (stage.turn != me)
		pthread_cond_wait(&stage.changed, &stage.mutex);
	pthread_mutex_unlock(&stage.mutex);
}

/* ---- The machine ------------------------------------------------------------------------------------------------- */

static struct saboteur saboteur;
static void (*meanwhile)(struct world *w); /* called once, while memory is got                               */
static struct world *meanwhile_world;
static unsigned meanwhile_at; /* so many other times before: 0, for a table; 1, for a head                  */
static bool fails_then;       /* what was asked for meanwhile is not had                                       */
static struct mf_machine_ops staged;
static const struct mf_machine_ops *plain;

/* One: a table, then a head.  Two: a head. */
static int get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	if (meanwhile && meanwhile_at-- == 0) {
		void (*happens)(struct world *w) = meanwhile;

		meanwhile = NULL;
		meanwhile_at = 0;
		happens(meanwhile_world);
		if (fails_then)
			return -MF_ENOMEM;
	}
	nr_calls++;
	if (me == ONE && nr_calls == 2) {
		hand_over(TWO);
		wait_for_turn();
		return -MF_ENOMEM;
	}
	if (me == TWO && nr_calls == 1) {
		hand_over(ONE);
		wait_for_turn();
	}
	return plain->ram_get(m, node, order, pfn);
}

static struct mf_machine *wrap(void *ctx, struct mf_machine *machine)
{
	struct mf_machine *m = saboteur_wrap(ctx, machine);

	plain = m->ops;
	staged = *plain;
	staged.ram_get = get;
	m->ops = &staged;
	return m;
}

/* ---- The threads ------------------------------------------------------------------------------------------------- */

struct part {
	struct world *w;
	struct mf_folio *folio;
	int me, next, err;
};

static void *play(void *arg)
{
	struct part *part = arg;

	me = part->me;
	wait_for_turn();
	part->err = mf_diet_remap(part->w->map, part->folio);
	hand_over(part->next);
	return NULL;
}

TAP_TEST(a_table_that_another_remap_has_found_stays)
{
	struct world_config config = { .nr_frames = G, .wrap = wrap, .wrap_ctx = &saboteur };
	struct part one, two;
	pthread_t first, second;
	uint64_t nr_tables;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &config, MF_LAYOUT_HVO_7_1));
	one = (struct part){ &w, diet_folio(&w, 9), ONE, TWO, 0 };
	two = (struct part){ &w, diet_folio(&w, 9), TWO, NOBODY, 0 };
	TAP_REQUIRE(one.folio && two.folio);
	nr_tables = diet_stats(&w).nr_tables;
	TAP_REQUIRE(pthread_create(&first, NULL, play, &one) == 0 && pthread_create(&second, NULL, play, &two) == 0);
	hand_over(ONE);
	pthread_join(first, NULL);
	pthread_join(second, NULL);
	TAP_EQ(one.err, -MF_ENOMEM);
	TAP_EQ(two.err, 0);
	TAP_EQ(diet_stats(&w).nr_tables, nr_tables + 1);
	TAP_OK(diet_answers(&w, two.folio, 9));
	TAP_OK(world_check(&w));
	diet_folio_free(&w, one.folio);
	diet_folio_free(&w, two.folio);
	TAP_OK(world_close(&w));
}

/* ---- Meanwhile --------------------------------------------------------------------------------------------------- */

static mf_pfn_t frame_of_slot(struct world *w, struct mf_folio *folio, uint64_t index)
{
	return mf_pgtable_walk(&w->map->pgtable, (uintptr_t)diet_slot(w, folio, index)).pfn;
}

static void split_another(struct world *w)
{
	struct mf_bag tables = { 0 };

	TAP_EQ(ram_fill(w->map, 0, &tables, 1), 0);
	TAP_EQ(mf_pgtable_split(&w->map->pgtable, (uintptr_t)mf_pfn_to_page(w->map, 0), 1, &tables), 0);
}

/* R-HVO-28 */
TAP_TEST(a_leaf_that_another_has_split_meanwhile_is_no_failure)
{
	struct world_config config = { .nr_frames = G, .wrap = wrap, .wrap_ctx = &saboteur };
	struct mf_folio *folio;
	uint64_t nr_tables;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &config, MF_LAYOUT_HVO_7_1));
	folio = diet_folio(&w, 9);
	TAP_REQUIRE(folio && mf_folio_pfn(w.map, folio) < 1 << 15);
	nr_tables = diet_stats(&w).nr_tables;
	meanwhile_world = &w;
	meanwhile = split_another;
	TAP_EQ(mf_diet_remap(w.map, folio), 0);
	TAP_OK(meanwhile == NULL);
	TAP_OK(mf_folio_is_on_diet(folio));
	TAP_EQ(diet_stats(&w).nr_tables, nr_tables + 1);
	/* As the other does it. */
	window_flush(w.map, MF_FLUSH_FOR_REMAP, (uintptr_t)mf_pfn_to_page(w.map, 0), 2 * MF_MIB, MF_FLUSH_LEAVES);
	TAP_OK(world_check(&w));
	diet_folio_free(&w, folio);
	TAP_OK(world_close(&w));
}

enum { IN_LEAF = 1 << 15, NR_LEFT = 8 };

static struct hog hog;
static struct mf_folio *other;

/*
 * The neighbour's slots go back to RAM and are got again one by one, in the order of their numbers; what keeps one of
 * them from it for a moment brings about that the head, too, is where it was.
 */
static void change_and_change_back(struct world *w)
{
	mf_pfn_t lowest;

	TAP_EQ(mf_diet_remap(w->map, other), 0);
	TAP_EQ(plain->ram_get(w->machine, 0, 0, &lowest), 0);
	TAP_EQ(mf_diet_restore(w->map, other), 0);
	plain->ram_put(w->machine, 0, 0, lowest);
	TAP_EQ(mf_diet_remap(w->map, other), 0);
	TAP_EQ(mf_diet_restore(w->map, other), 0);
}

/* The same frames in the same order, but no block any more: not to be given back as one. */
TAP_TEST(frames_that_were_got_singly_become_no_leaf)
{
	struct world_config config = {
		.nr_frames = G, .nr_ram_frames = 8192, .wrap = wrap, .wrap_ctx = &saboteur
	};
	struct mf_list folios;
	struct mf_folio *one;
	uint64_t nr_tables;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &config, MF_LAYOUT_HVO_7_1));
	mf_list_init(&folios);
	TAP_REQUIRE(diet_list_fill(&w, &folios, 9, IN_LEAF / 512 + 1));
	one = diet_list_folio(folios.next);
	other = diet_list_folio(folios.next->next);
	TAP_REQUIRE(mf_folio_pfn(w.map, one) / IN_LEAF == mf_folio_pfn(w.map, other) / IN_LEAF);
	/* In another leaf: the zone has its tails. */
	TAP_REQUIRE(mf_folio_pfn(w.map, diet_list_folio(folios.prev)) / IN_LEAF != mf_folio_pfn(w.map, one) / IN_LEAF);
	TAP_EQ(mf_diet_remap(w.map, diet_list_folio(folios.prev)), 0);
	nr_tables = diet_stats(&w).nr_tables;
	/* All that is left lies behind the leaf's frames. */
	hog_all(&hog, w.sim);
	for (unsigned i = 0; i < NR_LEFT; i++)
		w.sim->ops->ram_put(w.sim, 0, 0, hog.pfn[--hog.nr]);
	meanwhile_world = &w;
	meanwhile_at = 1;
	fails_then = true;
	meanwhile = change_and_change_back;
	TAP_EQ(mf_diet_remap(w.map, one), -MF_ENOMEM);
	fails_then = false;
	TAP_OK(meanwhile == NULL);
	/* Else nothing would keep the table from looking like a leaf. */
	for (mf_pfn_t i = 1; i < 16; i++)
		TAP_EQ(frame_of_slot(&w, one, i), frame_of_slot(&w, one, 0) + i);
	TAP_EQ(diet_stats(&w).nr_tables, nr_tables + 1);
	TAP_OK(world_check(&w));
	hog_end(&hog);
	diet_list_free(&w, &folios);
	TAP_OK(world_close(&w));
}

/* The tables do not serve the slots any more. */
static void lose_the_slots(struct world *w)
{
	w->map->pgtable.size_bytes = 0;
}

TAP_TEST(a_leaf_that_cannot_be_split_for_another_reason_panics)
{
	struct world_config config = { .nr_frames = G, .wrap = wrap, .wrap_ctx = &saboteur, .will_break = true };
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(diet_open(&w, &config, MF_LAYOUT_HVO_7_1));
	folio = diet_folio(&w, 9);
	TAP_REQUIRE(folio != NULL);
	meanwhile_world = &w;
	meanwhile = lose_the_slots;
	TAP_OK(TAP_PANICS((void)!mf_diet_remap(w.map, folio)));
	TAP_OK(strstr(tap_state.panic, "cannot be split") != NULL);
	TAP_OK(meanwhile == NULL);
	world_abandon(&w);
}

TAP_MAIN()
