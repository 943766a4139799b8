/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_removal.c - removals of regions whose folios are freed on their diet meanwhile, and whether memory is said
 * to lack only where it does.
 *
 * One thread: the machine's pin_cpu() puts the folio at the n-th moment of the removal at which no short lock is held.
 * Each n is tried until the removal has no moment left.
 */
#include "tests/lib/hog.h"
#include "tests/tap.h"
#include "tests/unit/diet_rig.h"

#include "core/frames/zone.h"

/* A small world: one is made for each moment. */
enum { SPAN = 1 << 13, NR_RAM = 512, MOMENTS_MAX = 1000 };

static struct hog hog;

static struct {
	struct mf_machine_ops ops;
	struct mf_map *map;
	struct mf_folio *folio; /* to be put; NULL: none, or done                                               */
	unsigned depth;         /* of pins                                                                    */
	unsigned nr, at;        /* moments so far, and the one that counts                                     */
} late;

static void put_in_time(struct mf_machine *m)
{
	struct mf_folio *folio = late.folio;

	(void)m;
	if (late.depth++ > 0 || !folio || ++late.nr < late.at)
		return;
	late.folio = NULL;
	mf_folio_put(late.map, folio);
}

static void unpin(struct mf_machine *m)
{
	(void)m;
	late.depth--;
}

static struct mf_machine *pins(void *unused, struct mf_machine *machine)
{
	(void)unused;
	memset(&late, 0, sizeof(late));
	late.ops = *machine->ops;
	late.ops.pin_cpu = put_in_time;
	late.ops.unpin_cpu = unpin;
	machine->ops = &late.ops;
	return machine;
}

static bool open_world(struct world *w)
{
	struct world_config config = { .nr_frames = SPAN, .nr_ram_frames = NR_RAM, .wrap = pins };

	if (!world_open(w, &config))
		return false;
	late.map = w->map;
	return true;
}

static bool add(struct world *w, mf_pfn_t start, mf_pfn_t end, enum mf_layout layout, unsigned flags, unsigned *id)
{
	const struct mf_region_config region = {
		.start_pfn = start, .end_pfn = end, .layout = layout, .source = MF_SOURCE_RAM, .flags = flags
	};

	return world_add_region(w, &region, id) == 0;
}

/* On a diet, with one reference. */
static struct mf_folio *dieted(struct world *w, unsigned order)
{
	struct mf_folio *folio = diet_folio(w, order);

	if (!folio || mf_diet_remap(w->map, folio) != 0)
		return NULL;
	mf_folio_unfreeze(folio, 1);
	return folio;
}

static int remove_while_put(struct world *w, unsigned id, struct mf_folio *folio, unsigned at)
{
	int err;

	late.nr = 0;
	late.at = at;
	late.folio = folio;
	err = mf_region_remove(w->map, id);
	late.folio = NULL;
	return err;
}

/* ---- A restore failed once --------------------------------------------------------------------------------------- */

/* A folio that lacked memory, hosted its own map, and settled when there was some. */
static bool host_and_settle(struct world *w)
{
	struct mf_folio *folio = dieted(w, 9);
	struct mf_map_stats hosting, settled;

	if (!folio)
		return false;
	hog_all(&hog, w->sim);
	mf_folio_put(w->map, folio);
	if (mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL) != 0)
		return false;
	hosting = diet_stats(w);
	hog_end(&hog);
	if (mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, NULL) != 0)
		return false;
	settled = diet_stats(w);
	return hosting.nr_hosted == 1 && settled.nr_hosted + settled.nr_kept == 0;
}

/* Memory is not lacking any more: what is put between a fold and the look after it is no reason to say so. */
TAP_TEST(a_lack_that_is_over_is_not_blamed)
{
	bool met = true;

	for (unsigned at = 1; met && at < MOMENTS_MAX; at++) {
		struct mf_folio *folio;
		struct world w;
		unsigned id;
		int err;

		TAP_REQUIRE(open_world(&w) && add(&w, 0, SPAN, MF_LAYOUT_HVO_7_1, MF_REGION_RESTORE_FROM_SELF, &id));
		TAP_REQUIRE(host_and_settle(&w));
		folio = dieted(&w, 9);
		TAP_REQUIRE(folio);
		err = remove_while_put(&w, id, folio, at);
		met = late.nr == at;
		TAP_EQ(err, met ? 0 : -MF_EBUSY);
		if (!met)
			mf_folio_put(w.map, folio);
		TAP_OK(world_close(&w));
		TAP_OK(met || at > 2);
	}
	TAP_NOTE("%u moments", late.nr);
	TAP_OK(!met);
}

/* ---- A restore of another region fails --------------------------------------------------------------------------- */

/* A large folio of one region lacks memory; a small one of the other, in the same zone, is put meanwhile. */
TAP_TEST(a_lack_of_another_region_is_not_blamed)
{
	bool met = true;

	for (unsigned at = 1; met && at < MOMENTS_MAX; at++) {
		struct mf_folio *large, *small;
		struct world w;
		unsigned id, other;
		int err;

		TAP_REQUIRE(open_world(&w) && add(&w, 0, 1024, MF_LAYOUT_HVO_7_1, 0, &other));
		large = dieted(&w, 10);
		TAP_REQUIRE(large && add(&w, 1024, SPAN, MF_LAYOUT_HVO_7_1, 0, &id));
		small = dieted(&w, 9);
		TAP_REQUIRE(small && mf_folio_pfn(w.map, small) >= 1024);
		mf_folio_put(w.map, large);
		hog_all(&hog, w.sim);
		TAP_EQ(hog_put(&hog, 7), 7);
		TAP_EQ(mf_region_remove(w.map, other), -MF_ENOMEM);
		err = remove_while_put(&w, id, small, at);
		met = late.nr == at;
		TAP_EQ(err, met ? 0 : -MF_EBUSY);
		if (!met)
			mf_folio_put(w.map, small);
		hog_end(&hog);
		TAP_OK(world_close(&w));
		TAP_OK(met || at > 2);
	}
	TAP_NOTE("%u moments", late.nr);
	TAP_OK(!met);
}

/* Of two folios of one order the second needs a frame less, and that is what there is. */
TAP_TEST(what_needs_less_by_its_layout_does_not_wait)
{
	struct mf_folio *more, *less;
	struct world w;
	unsigned id, other;

	TAP_REQUIRE(open_world(&w) && add(&w, 0, 512, MF_LAYOUT_HVO_5_18, 0, &other));
	more = dieted(&w, 9);
	TAP_REQUIRE(more && add(&w, 512, 1024, MF_LAYOUT_HVO_5_14, 0, &id));
	less = dieted(&w, 9);
	TAP_REQUIRE(less);
	mf_folio_put(w.map, more);
	mf_folio_put(w.map, less);
	hog_all(&hog, w.sim);
	TAP_EQ(hog_put(&hog, 6), 6);
	TAP_EQ(mf_region_remove(w.map, other), -MF_ENOMEM);
	TAP_EQ(diet_stats(&w).nr_kept, 1);
	TAP_EQ(mf_region_remove(w.map, id), 0);
	hog_end(&hog);
	TAP_OK(world_close(&w));
}

/* ---- Whom it is said of ------------------------------------------------------------------------------------------ */

static bool is_lacking(struct world *w, const struct mf_folio *folio)
{
	struct mf_zone *zone = w->map->zone[0];
	bool lacking;

	zone_lock(zone);
	lacking = kept_lacks_memory_locked(zone, &folio->page);
	zone_unlock(zone);
	return lacking;
}

/* Once it was tried in vain, not before; not of what can host its own map; not of the next that has its record. */
TAP_TEST(lack_is_said_of_what_was_tried)
{
	for (unsigned flags = 0; flags <= MF_REGION_RESTORE_FROM_SELF; flags++) {
		struct mf_folio *folio;
		struct world w;

		TAP_REQUIRE(open_world(&w) && add(&w, 0, 512, MF_LAYOUT_HVO_5_14, flags, NULL));
		folio = dieted(&w, 9);
		TAP_REQUIRE(folio);
		hog_all(&hog, w.sim);
		mf_folio_put(w.map, folio);
		TAP_OK(!is_lacking(&w, folio));
		TAP_OK(world_alloc(&w, 9) == NULL);
		TAP_EQ(diet_stats(&w).nr_kept, 1);
		TAP_EQ(is_lacking(&w, folio), !flags);
		TAP_OK(world_check(&w));
		hog_end(&hog);
		folio = dieted(&w, 9);
		TAP_REQUIRE(folio);
		hog_all(&hog, w.sim);
		mf_folio_put(w.map, folio);
		TAP_OK(!is_lacking(&w, folio));
		hog_end(&hog);
		TAP_OK(world_close(&w));
	}
}

TAP_MAIN()
