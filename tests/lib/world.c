/* SPDX-License-Identifier: BSD-2-Clause */
/* world.c - machines by name, maps on them, and what must be left when they are gone: nothing. */
#include "tests/lib/world.h"

#include "tests/tap.h"

#include <memfold/linux.h>
#include <memfold/sim.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable(void)
{
}

static void __lsan_enable(void)
{
}
#endif

struct kind {
	const char *name;
	unsigned page_shift, levels; /* page_shift 0: linux */
};

static const struct kind kinds[] = {
	{ "sim", 12, 4 },
	{ "sim-5", 12, 5 },
	{ "sim-arm64-16k", 14, 3 },
	{ "sim-arm64-64k", 16, 3 },
	{ "linux", 0, 0 },
};

const char *const world_machines[] = { "sim", "sim-5", "sim-arm64-16k", "sim-arm64-64k", "linux", NULL };

static const struct kind *kind_by_name(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

/* ---- Open ------------------------------------------------------------------------------------------------------- */

/* All of it flat (1/64 of the frames), tables of 4 KiB leaves for that (2^-9 of it), and as much again to try more. */
static uint64_t plenty(uint64_t nr_frames)
{
	return nr_frames / 16 + 4096;
}

static int machine_make(struct world *w, const struct kind *kind, const struct world_config *config)
{
	struct mf_sim_config sim = {
		.nr_frames = config->nr_frames,
		.nr_ram_frames = config->nr_ram_frames ? config->nr_ram_frames : plenty(config->nr_frames),
		.flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE,
	};
	int err;

	if (kind->page_shift == 0)
		return mf_linux_create(NULL, &w->machine);
	sim.paging = kind->page_shift == 12 ? mf_paging_x86_64(kind->levels) :
					      mf_paging_arm64(kind->page_shift, kind->levels);
	err = mf_sim_create(&sim, &w->sim);
	if (!err)
		w->machine = config->wrap ? config->wrap(config->wrap_ctx, w->sim) : w->sim;
	return err;
}

static void machine_destroy(struct world *w)
{
	if (w->will_break)
		__lsan_enable();
	if (w->sim)
		mf_sim_destroy(w->sim);
	else
		mf_linux_destroy(w->machine);
}

bool world_open(struct world *w, const struct world_config *config)
{
	const struct kind *kind = kind_by_name(config->machine ? config->machine : "sim");
	struct mf_map_config map = { .span = config->nr_frames, .top = config->top, .flags = config->flags };
	int err;

	*w = (struct world){ .name = kind ? kind->name : NULL, .will_break = config->will_break };
	if (!kind) {
		TAP_NOTE("no machine is called %s", config->machine);
		return false;
	}
	if (w->will_break)
		__lsan_disable();
	err = machine_make(w, kind, config);
	if (err) {
		if (w->will_break)
			__lsan_enable();
		TAP_NOTE("machine %s: %s", kind->name, mf_strerror(err));
		return false;
	}
	map.machine = w->machine;
	err = mf_map_create(&map, &w->map);
	if (err) {
		TAP_NOTE("map on %s: %s", kind->name, mf_strerror(err));
		machine_destroy(w);
		return false;
	}
	return true;
}

/* ---- Use -------------------------------------------------------------------------------------------------------- */

int world_add_region(struct world *w, const struct mf_region_config *config, unsigned *id)
{
	unsigned number;
	int err = mf_region_add(w->map, config, &number);

	if (!err && id)
		*id = number;
	return err;
}

int world_add(struct world *w, mf_pfn_t start_pfn, mf_pfn_t end_pfn)
{
	struct mf_region_config config = { .start_pfn = start_pfn, .end_pfn = end_pfn };

	return world_add_region(w, &config, NULL);
}

int world_add_flat(struct world *w, mf_pfn_t start_pfn, mf_pfn_t end_pfn)
{
	struct mf_region_config config = {
		.start_pfn = start_pfn,
		.end_pfn = end_pfn,
		.layout = MF_LAYOUT_FLAT,
		.source = MF_SOURCE_RAM,
	};

	return world_add_region(w, &config, NULL);
}

struct mf_folio *world_alloc(struct world *w, unsigned order)
{
	struct mf_folio *folio;

	return mf_folio_alloc(w->map, MF_ANY_NODE, order, MF_ALLOC_WAIT, &folio) == 0 ? folio : NULL;
}

unsigned world_block_order(const struct world *w, unsigned tier)
{
	return mf_map_geometry(w->map)->shift[tier];
}

/* ---- Check ------------------------------------------------------------------------------------------------------ */

static bool sim_check(struct world *w)
{
	struct mf_sim_stats stats;
	uint64_t stale = mf_sim_stale(w->sim);

	mf_sim_stats(w->sim, &stats);
	if (stale)
		TAP_NOTE("M5: %llu translations are stale: a flush is missing", (unsigned long long)stale);
	if (stats.stray_writes != w->stray_writes)
		TAP_NOTE("M6: %llu stray writes, %llu of them expected", (unsigned long long)stats.stray_writes,
			 (unsigned long long)w->stray_writes);
	return stale == 0 && stats.stray_writes == w->stray_writes;
}

bool world_check(struct world *w)
{
	struct mf_violation violation;
	int err = mf_map_check(w->map, &violation);

	if (err < 0)
		TAP_NOTE("mf_map_check: %s", mf_strerror(err));
	else if (err > 0)
		TAP_NOTE("%s at pfn %llu: %s", violation.law, (unsigned long long)violation.pfn, violation.text);
	return (!w->sim || sim_check(w)) && err == 0;
}

const char *world_broken_law(struct world *w)
{
	static struct mf_violation violation;
	int err = mf_map_check(w->map, &violation);

	if (err > 0)
		TAP_NOTE("found: %s at pfn %llu: %s", violation.law, (unsigned long long)violation.pfn, violation.text);
	return err == 0 ? "" : err > 0 ? violation.law : mf_strerror(err);
}

/* ---- Close ------------------------------------------------------------------------------------------------------ */

static bool remove_regions(struct world *w)
{
	bool good = true;

	for (unsigned id = 0; id < MF_REGIONS_MAX; id++) {
		struct mf_region_info info;
		int err;

		if (mf_region_info(w->map, id, &info) != 0)
			continue;
		err = mf_region_remove(w->map, id);
		if (err) {
			TAP_NOTE("region %u cannot be removed: %s", id, mf_strerror(err));
			good = false;
		}
	}
	return good;
}

static bool nothing_left(struct world *w)
{
	struct mf_sim_stats stats;

	if (!w->sim)
		return true; /* mf_linux_destroy() panics when something is */
	mf_sim_stats(w->sim, &stats);
	if (stats.nr_ram_used || stats.nr_meta_used || stats.nr_fills)
		TAP_NOTE("left behind: %llu frames of RAM, %llu pieces of control memory, %llu translations",
			 (unsigned long long)stats.nr_ram_used, (unsigned long long)stats.nr_meta_used,
			 (unsigned long long)stats.nr_fills);
	return !stats.nr_ram_used && !stats.nr_meta_used && !stats.nr_fills;
}

bool world_close(struct world *w)
{
	bool good = world_check(w);
	int err;

	if (!remove_regions(w)) {
		world_abandon(w);
		return false;
	}
	good &= world_check(w);
	err = mf_map_destroy(w->map);
	if (err) {
		TAP_NOTE("mf_map_destroy: %s", mf_strerror(err));
		world_abandon(w);
		return false;
	}
	good &= nothing_left(w);
	machine_destroy(w);
	return good;
}

void world_abandon(struct world *w)
{
	if (w->will_break)
		__lsan_enable();
	if (w->sim)
		mf_sim_destroy(w->sim);
	w->map = NULL;
	w->machine = NULL;
}
