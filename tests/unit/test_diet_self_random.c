/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_self_random.c - random lives of folios on diets while RAM comes and goes: every law holds at every step, no
 * frame is lost, and with memory back all of it is whole again.
 *
 * Three regions in one map: classic with its map in RAM, classic with its map in itself, and tiered, which takes
 * folios, too.
 */
#include "tests/tap.h"
#include "tests/unit/self_rig.h"

#define G WORLD_GIB_FRAMES

enum { SEEDS = 12, STEPS = 500, CHECK_EVERY = 10, NR_FOLIOS = 32, NR_RAM = 5000 };

struct life {
	struct world w;
	uint64_t random;
	struct mf_folio *folio[NR_FOLIOS]; /* one reference each, or NULL                                      */
	uint64_t nr_hosted, nr_settled;    /* seen: what would be tested without                              */
};

static struct hog hog;

static uint64_t next_random(struct life *l, uint64_t below)
{
	l->random ^= l->random << 13;
	l->random ^= l->random >> 7;
	l->random ^= l->random << 17;
	return l->random % below;
}

static bool life_open(struct life *l, enum mf_layout layout, enum mf_map_flags sharing)
{
	struct world_config config = { .nr_frames = 3 * G, .nr_ram_frames = NR_RAM, .flags = sharing };
	struct mf_region_config ram = { .end_pfn = G / 4 + 700, .layout = layout, .source = MF_SOURCE_RAM,
					.flags = MF_REGION_RESTORE_FROM_SELF };
	struct mf_region_config self = { .start_pfn = G / 4 + 700, .end_pfn = 3 * G / 4, .layout = layout,
					 .source = MF_SOURCE_SELF, .flags = MF_REGION_DIET_FLAGS };

	return world_open(&l->w, &config) && world_add_region(&l->w, &ram, NULL) == 0 &&
	       world_add_region(&l->w, &self, NULL) == 0 && world_add(&l->w, 2 * G, 2 * G + G / 8) == 0;
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

static void change_folio(struct life *l, struct mf_folio **folio)
{
	static const unsigned orders[] = { 0, 5, 7, 8, 9, 9, 9, 9, 10, 11, 15, 16 };
	struct world *w = &l->w;
	int err;

	if (!*folio) {
		*folio = world_alloc(w, orders[next_random(l, sizeof(orders) / sizeof(orders[0]))]);
		return;
	}
	switch (next_random(l, 4)) {
	case 0:
	case 1:
		TAP_OK(mf_folio_freeze(*folio, 1));
		err = mf_diet_remap(w->map, *folio);
		TAP_OK(err == 0 || err == -MF_ENOMEM || err == -MF_EOPNOTSUPP);
		mf_folio_unfreeze(*folio, 1);
		break;
	case 2:
		TAP_OK(mf_folio_freeze(*folio, 1));
		err = mf_diet_restore(w->map, *folio);
		TAP_OK(err == 0 || err == -MF_ENOMEM);
		mf_folio_unfreeze(*folio, 1);
		break;
	default:
		mf_folio_put(w->map, *folio);
		*folio = NULL;
	}
}

static void step(struct life *l)
{
	uint64_t choice = next_random(l, 32);

	if (choice == 0) {
		hog_end(&hog);
		hog_all(&hog, l->w.sim);
		hog_put(&hog, next_random(l, 2) * next_random(l, 40));
	} else if (choice == 1) {
		hog_end(&hog);
	} else if (choice < 4) {
		TAP_EQ(self_fold(&l->w), 0);
	} else if (choice == 4) {
		TAP_EQ(mf_fold(l->w.map, MF_ANY_NODE, MF_FOLD_KEEP, NULL), 0);
	} else {
		change_folio(l, &l->folio[next_random(l, NR_FOLIOS)]);
	}
}

static bool all_is_there(struct life *l)
{
	struct mf_map_stats stats = diet_stats(&l->w);

	return stats.nr_free + stats.nr_used + stats.nr_map + stats.nr_reserved == stats.nr_described &&
	       world_check(&l->w);
}

/* ---- Lives ------------------------------------------------------------------------------------------------------- */

static bool live(struct life *l)
{
	uint64_t hosted = 0;

	for (unsigned i = 0; i < STEPS; i++) {
		uint64_t now;

		step(l);
		now = diet_stats(&l->w).nr_hosted;
		l->nr_hosted += now > hosted ? now - hosted : 0;
		l->nr_settled += now < hosted ? hosted - now : 0;
		hosted = now;
		if (i % CHECK_EVERY == 0 && !all_is_there(l)) {
			TAP_NOTE("step %u", i);
			return false;
		}
	}
	return true;
}

/* Memory back and nobody left: nothing is hosted, kept or on a diet. */
static bool end(struct life *l)
{
	struct mf_map_stats stats;

	for (unsigned i = 0; i < NR_FOLIOS; i++)
		if (l->folio[i])
			mf_folio_put(l->w.map, l->folio[i]);
	hog_end(&hog);
	if (self_fold(&l->w) != 0)
		return false;
	stats = diet_stats(&l->w);
	return stats.nr_used + stats.nr_hosted + stats.nr_kept + stats.nr_dieted == 0 && all_is_there(l);
}

TAP_TEST(random_lives_lose_nothing)
{
	uint64_t nr_hosted = 0, nr_settled = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct life l = { .random = seed * 0x9e3779b97f4a7c15u };
		enum mf_map_flags sharing = seed % 2 ? MF_MAP_SHARE_TABLES : MF_MAP_PRIVATE_TABLES;
		bool good;

		TAP_REQUIRE(life_open(&l, diet_layouts[seed % NR_DIET_LAYOUTS], sharing));
		good = live(&l);
		good &= end(&l);
		if (!good)
			TAP_NOTE("seed %llu", (unsigned long long)seed);
		TAP_OK(good);
		nr_hosted += l.nr_hosted;
		nr_settled += l.nr_settled;
		TAP_OK(world_close(&l.w));
	}
	TAP_NOTE("%llu blocks hosted themselves, %llu of them settled", (unsigned long long)nr_hosted,
		 (unsigned long long)nr_settled);
	TAP_OK(nr_hosted > 20 && nr_settled > 20);
}

TAP_MAIN()
