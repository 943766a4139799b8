/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_self_altmap.c - a folio that hosts its own map slots while its altmap, empty at first, is given frames: a
 * part of it has a slot in the block's own frames only where that is refused a diet.
 *
 *	another remap    takes all spare frames ................ gives them back
 *	an allocation    kept folio: nothing to restore it with, hosts its slots ......
 *
 * One thread: the other's steps are made at the n-th moment at which a processor is pinned, for each n.
 */
#include "core/memmap/map.h"
#include "tests/lib/saboteur.h"
#include "tests/tap.h"
#include "tests/unit/self_rig.h"

enum { NR_FRAMES = 1 << 18, ALTMAP = NR_FRAMES / 64, NR_RAM = 6144 };

static struct saboteur saboteur;
static struct hog hog;
static struct mf_list others;
static struct mf_machine_ops staged;
static struct {
	struct world *w;
	mf_pfn_t pfn[ALTMAP];
	uint64_t nr, nr_pins, at; /* at: given back then; 0: never                                            */
} taken;

static void give_back(void)
{
	while (taken.nr > 0)
		reserve_put_frame(taken.w->map, taken.w->map->region[0], taken.pfn[--taken.nr]);
}

static void pin(struct mf_machine *m)
{
	(void)m;
	if (taken.at == 0 || ++taken.nr_pins != taken.at)
		return;
	taken.at = 0;
	give_back();
}

static void unpin(struct mf_machine *m)
{
	(void)m;
}

static struct mf_machine *wrap(void *ctx, struct mf_machine *machine)
{
	struct mf_machine *m = saboteur_wrap(ctx, machine);

	staged = *m->ops;
	staged.pin_cpu = pin;
	staged.unpin_cpu = unpin;
	m->ops = &staged;
	return m;
}

/* All that is free, in large pieces. */
static void take_others(struct world *w)
{
	mf_list_init(&others);
	for (unsigned order = 18; order-- > 0;)
		while (diet_list_fill(w, &others, order, 1))
			;
}

/* One folio on its diet and freed, everything else in use; no RAM, and nothing to spare in the altmap. */
static bool open_kept(struct world *w, enum mf_layout layout, enum mf_map_flags flags, unsigned order)
{
	struct mf_region_config region = { .end_pfn = NR_FRAMES, .layout = layout, .source = MF_SOURCE_ALTMAP,
					   .nr_altmap = ALTMAP, .flags = MF_REGION_RESTORE_FROM_SELF };
	struct world_config config = { .nr_frames = NR_FRAMES, .nr_ram_frames = NR_RAM, .flags = flags,
				       .wrap = wrap, .wrap_ctx = &saboteur };
	struct mf_list folios;

	taken.w = w;
	if (!world_open(w, &config) || world_add_region(w, &region, NULL) != 0 || !self_diet(w, &folios, order, 1))
		return false;
	take_others(w);
	while (reserve_take_frame(w->map, w->map->region[0], &taken.pfn[taken.nr]))
		taken.nr++;
	hog_all(&hog, w->sim);
	diet_list_free(w, &folios);
	return taken.nr > 0;
}

static unsigned nr_hosted, nr_refused, nr_remapped;

static void remap_parts(struct world *w, struct mf_list *parts)
{
	bool is_hosted = diet_stats(w).nr_hosted > 0;

	nr_hosted += is_hosted;
	for (struct mf_list *at = parts->next; at != parts; at = at->next) {
		int err = mf_diet_remap(w->map, diet_list_folio(at));

		TAP_OK(err == 0 || (err == -MF_EOPNOTSUPP && is_hosted));
		nr_refused += err != 0;
		nr_remapped += err == 0;
	}
	TAP_OK(world_check(w));
}

/* Whether the moment came. */
static bool host_meanwhile(enum mf_layout layout, enum mf_map_flags flags, unsigned order, unsigned part, uint64_t at)
{
	struct mf_list parts;
	struct world w;
	bool came;

	TAP_OK(open_kept(&w, layout, flags, order));
	mf_list_init(&parts);
	taken.nr_pins = 0;
	taken.at = at;
	TAP_OK(diet_list_fill(&w, &parts, part, 1));
	came = taken.at == 0;
	taken.at = 0;
	give_back();
	TAP_OK(world_check(&w));
	hog_end(&hog);
	while (diet_list_fill(&w, &parts, part, 1))
		;
	remap_parts(&w, &parts);
	diet_list_free(&w, &parts);
	diet_list_free(&w, &others);
	TAP_OK(world_close(&w));
	return came;
}

static void host_at_each_moment(enum mf_map_flags flags, unsigned order, unsigned part, uint64_t step)
{
	for (unsigned i = 0; i < NR_DIET_LAYOUTS; i++) {
		uint64_t at = 1;

		while (host_meanwhile(diet_layouts[i], flags, order, part, at))
			at += step;
		TAP_OK(at > 1);
	}
}

/* Given back early, all slots are in the altmap, and parts go on their diet; later, the block hosts them. */
static void check_that_all_was_met(void)
{
	TAP_NOTE("hosted %u times; of its parts %u refused, %u remapped", nr_hosted, nr_refused, nr_remapped);
	TAP_OK(nr_hosted > 0 && nr_refused > 0 && nr_remapped > 0);
	nr_hosted = nr_refused = nr_remapped = 0;
}

/* Slots under one table of RAM. */
TAP_TEST(a_slot_in_the_blocks_own_frames_is_never_given_to_ram)
{
	host_at_each_moment(MF_MAP_SHARE_TABLES, 9, 8, 1);
	host_at_each_moment(MF_MAP_SHARE_TABLES, 9, 7, 1);
	check_that_all_was_met();
}

/* Slots under several tables, which the block hosts, too, or which are private. */
TAP_TEST(a_table_in_the_blocks_own_frames_is_never_given_to_ram)
{
	for (unsigned part = 15; part < 17; part++) {
		host_at_each_moment(MF_MAP_SHARE_TABLES, 17, part, 23);
		host_at_each_moment(MF_MAP_PRIVATE_TABLES, 17, part, 23);
	}
	check_that_all_was_met();
}

TAP_MAIN()
