/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_contents.c - every descriptor of a folio answers the same before, while and after it is on a diet, also to
 * a processor that still holds the old translations, and in the middle of a list.
 */
#include "tests/lib/saboteur.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

/* Page sizes, larger leaves split or not, tables shared or not, one table or several. */
static const struct kind {
	const char *machine;
	unsigned order;
	uint64_t nr_frames;
	enum mf_map_flags flags;
} kinds[] = {
	{ "sim", 9, G, MF_MAP_SHARE_TABLES },
	{ "sim", 9, G, MF_MAP_PRIVATE_TABLES },
	{ "sim", 18, G, MF_MAP_SHARE_TABLES },
	{ "sim", 18, G, MF_MAP_PRIVATE_TABLES },
	{ "sim-arm64-16k", 11, 1 << 17, MF_MAP_SHARE_TABLES },
	{ "sim-arm64-64k", 13, 1 << 17, MF_MAP_SHARE_TABLES },
};

enum { NR_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static bool open_kind(struct world *w, const struct kind *kind, enum mf_layout layout)
{
	struct world_config config = { .machine = kind->machine, .nr_frames = kind->nr_frames, .flags = kind->flags };

	return diet_open(w, &config, layout);
}

/* A folio frozen, and its descriptors copied, which touches every slot. */
static struct mf_folio *folio_copied(struct world *w, unsigned order, enum mf_layout layout, struct diet_copy *copy)
{
	struct mf_folio *folio = diet_folio(w, order);

	return folio && diet_copy_take(copy, folio, order, layout) ? folio : NULL;
}

/* What the tables say now, whatever a processor still believes. */
static bool tables_show(struct world *w, const struct diet_copy *copy)
{
	uint64_t per_slot = diet_per_slot(w);

	for (uint64_t slot = 0; slot < diet_nr_slots(w, copy->order); slot++) {
		uintptr_t va = (uintptr_t)diet_slot(w, copy->folio, slot);
		const struct mf_page *page = mf_machine_frame(w->sim, mf_pgtable_walk(&w->map->pgtable, va).pfn);

		for (uint64_t i = 0; i < per_slot; i++)
			if (!diet_may_read(w, copy, slot * per_slot + i, &page[i]))
				return false;
	}
	return true;
}

/* R-GEN-2, R-HVO-29, R-HVO-44, R-HVO-45, R-CPD-45 */
static void check_contents(const struct kind *kind, enum mf_layout layout)
{
	struct diet_copy copy;
	struct mf_folio *folio;
	struct world w;

	TAP_REQUIRE(open_kind(&w, kind, layout));
	folio = folio_copied(&w, kind->order, layout, &copy);
	TAP_REQUIRE(folio);
	TAP_OK(diet_answers(&w, folio, kind->order));
	for (unsigned i = 0; i < 3; i++) {
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_OK(tables_show(&w, &copy));
		TAP_OK(diet_copy_is_read(&w, &copy));
		TAP_OK(diet_answers(&w, folio, kind->order));
		TAP_EQ(mf_sim_stale(w.sim), 0);
		TAP_EQ(mf_diet_restore(w.map, folio), 0);
		TAP_OK(tables_show(&w, &copy));
		TAP_OK(diet_answers(&w, folio, kind->order));
		/* Exactly as it was, marks included. */
		TAP_OK(memcmp(copy.page, &folio->page, sizeof(*copy.page) << kind->order) == 0);
		TAP_EQ(mf_sim_stale(w.sim), 0);
	}
	diet_copy_free(&copy);
	diet_folio_free(&w, folio);
	TAP_OK(world_close(&w));
}

TAP_TEST(contents_are_the_same_before_during_and_after)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_KINDS; j++) {
			check_contents(&kinds[j], diet_layouts[i]);
			if (atomic_load(&tap_state.failed)) {
				TAP_NOTE("%s on %s, order %u, flags %d", mf_layout_name(diet_layouts[i]),
					 kinds[j].machine, kinds[j].order, (int)kinds[j].flags);
				return;
			}
		}
}

/* Byte for byte what preparing a tail writes.  R-HVO-19, R-HVO-17, R-GEN-4, R-CPD-20, R-CPD-21, R-CPD-9, R-CPD-10 */
TAP_TEST(the_zones_tail_frame_is_what_prepared_tails_are)
{
	for (unsigned j = 0; j < NR_KINDS; j++) {
		struct mf_folio *folio;
		struct diet_copy copy;
		const char *frame;
		struct world w;

		TAP_REQUIRE(open_kind(&w, &kinds[j], MF_LAYOUT_HVO_7_1));
		folio = folio_copied(&w, kinds[j].order, MF_LAYOUT_HVO_7_1, &copy);
		TAP_REQUIRE(folio);
		TAP_EQ(mf_diet_remap(w.map, folio), 0);
		TAP_REQUIRE(w.map->tails && !w.map->tails->next);
		TAP_EQ(w.map->tails->order, kinds[j].order);
		frame = mf_machine_frame(w.sim, w.map->tails->frame);
		for (uint64_t i = 0; i < diet_per_slot(&w); i++) {
			struct mf_page prepared = { 0 };

			mf_page_prepare_tail(&prepared, kinds[j].order);
			TAP_OK(memcmp(frame + i * sizeof(prepared), &prepared, sizeof(prepared)) == 0);
			TAP_OK(memcmp(&copy.page[diet_per_slot(&w) + i], &prepared, sizeof(prepared)) == 0);
		}
		diet_copy_free(&copy);
		diet_folio_free(&w, folio);
		TAP_OK(world_close(&w));
	}
}

/* ---- While translations are stale ------------------------------------------------------------------------------- */

enum { NR_WATCHED = 3 };

/* Called before each flush: whoever reads then may hold translations of any age. */
struct watch {
	struct world w;
	struct saboteur saboteur;
	struct diet_copy copy[NR_WATCHED];
	unsigned nr_copies, nr_flushes, nr_stale;
	bool is_right;
};

static void look(void *ctx, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct watch *watch = ctx;

	(void)start;
	(void)size_bytes;
	(void)scope;
	watch->nr_flushes++;
	watch->nr_stale += mf_sim_stale(watch->w.sim) > 0;
	for (unsigned i = 0; i < watch->nr_copies; i++)
		watch->is_right &= diet_copy_is_read(&watch->w, &watch->copy[i]) &&
				   tables_show(&watch->w, &watch->copy[i]) &&
				   diet_answers(&watch->w, watch->copy[i].folio, watch->copy[i].order) &&
				   watch->copy[i].folio->page.counts == 0;
}

static bool watch_open(struct watch *watch, const struct kind *kind, enum mf_layout layout, struct mf_list *list)
{
	struct world_config config = {
		.machine = kind->machine,
		.nr_frames = NR_WATCHED * kind->nr_frames,
		.flags = kind->flags,
		.wrap = saboteur_wrap,
		.wrap_ctx = &watch->saboteur,
	};

	*watch = (struct watch){ .is_right = true };
	mf_list_init(list);
	if (!diet_open(&watch->w, &config, layout))
		return false;
	for (; watch->nr_copies < NR_WATCHED; watch->nr_copies++) {
		struct mf_folio *folio = folio_copied(&watch->w, kind->order, layout, &watch->copy[watch->nr_copies]);

		if (!folio)
			return false;
		mf_list_push_back(list, &folio->page.list);
		/* The links are the list's own; what readers may see of them is what they are from now on. */
	}
	for (unsigned i = 0; i < NR_WATCHED; i++)
		watch->copy[i].page[0] = watch->copy[i].folio->page;
	watch->saboteur.watch_ctx = watch;
	watch->saboteur.flushing = look;
	return true;
}

static void watch_close(struct watch *watch, struct mf_list *list)
{
	watch->saboteur.flushing = NULL;
	for (unsigned i = 0; i < watch->nr_copies; i++)
		diet_copy_free(&watch->copy[i]);
	diet_list_free(&watch->w, list);
	TAP_OK(world_close(&watch->w));
}

/* Every slot is touched, so every translation is held when its entry is switched. */
static void touch_all(struct watch *watch)
{
	for (unsigned i = 0; i < watch->nr_copies; i++)
		TAP_OK(diet_copy_is_read(&watch->w, &watch->copy[i]));
}

/*
 * Twice: the first time splitting has flushed what was touched; the second time all of it is stale when entries are
 * switched.  R-HVO-81, R-CPD-44, R-CPD-46, R-SCN-17
 */
static void check_stale_readers(const struct kind *kind, enum mf_layout layout)
{
	struct mf_list list, restored;
	unsigned nr_stale = 0;
	struct watch watch;

	mf_list_init(&restored);
	TAP_REQUIRE(watch_open(&watch, kind, layout, &list));
	for (unsigned round = 0; round < 2; round++) {
		touch_all(&watch);
		TAP_EQ(mf_diet_remap_list(watch.w.map, &list, NULL), 0);
		nr_stale += watch.nr_stale;
		touch_all(&watch);
		watch.nr_flushes = watch.nr_stale = 0;
		TAP_EQ(mf_diet_restore_list(watch.w.map, &list, &restored, NULL), 0);
		TAP_OK(watch.nr_flushes == 1 && watch.nr_stale == 1);
		while (!mf_list_is_empty(&restored)) {
			struct mf_list *node = restored.next;

			mf_list_remove(node);
			mf_list_push_back(&list, node);
		}
		for (unsigned i = 0; i < NR_WATCHED; i++)
			watch.copy[i].page[0] = watch.copy[i].folio->page;
		watch.nr_flushes = watch.nr_stale = 0;
	}
	TAP_OK(watch.is_right);
	TAP_OK(nr_stale >= 1);
	watch_close(&watch, &list);
}

TAP_TEST(stale_readers_see_the_same_in_a_list)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_KINDS; j++)
			check_stale_readers(&kinds[j], diet_layouts[i]);
}

/* One folio by itself: the split of its leaf, the remap, the restore.  R-HVO-29, R-HVO-81, R-CPD-44, R-CPD-46 */
TAP_TEST(stale_readers_see_the_same_in_single_calls)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		struct mf_list list;
		struct watch watch;

		TAP_REQUIRE(watch_open(&watch, &kinds[0], diet_layouts[i], &list));
		for (unsigned round = 0; round < 2; round++) {
			for (unsigned j = 0; j < NR_WATCHED; j++) {
				touch_all(&watch);
				TAP_EQ(mf_diet_remap(watch.w.map, watch.copy[j].folio), 0);
			}
			for (unsigned j = 0; j < NR_WATCHED; j++) {
				touch_all(&watch);
				TAP_EQ(mf_diet_restore(watch.w.map, watch.copy[j].folio), 0);
			}
		}
		TAP_OK(watch.is_right);
		TAP_OK(watch.nr_flushes >= 4 * NR_WATCHED && watch.nr_stale > 0);
		watch_close(&watch, &list);
	}
}

TAP_MAIN()
