/* SPDX-License-Identifier: BSD-2-Clause */
/* world.c - maps on machines, looked at as a whole, and what must be left when they are gone: nothing. */
#include "tests/lib/world_machine.h"

#include "tests/tap.h"

#include <string.h>

#include "core/memmap/map.h"

/* ---- Open ------------------------------------------------------------------------------------------------------- */

static const char *machine_by_name(const char *name)
{
	for (const char *const *i = world_machines; *i; i++)
		if (!name || strcmp(*i, name) == 0)
			return *i;
	return NULL;
}

bool world_has(const char *machine)
{
	return machine_by_name(machine) != NULL;
}

bool world_open_machine(struct world *w, const struct world_config *config)
{
	*w = (struct world){ .name = machine_by_name(config->machine), .will_break = config->will_break };
	if (!w->name) {
		TAP_NOTE("no machine is called %s", config->machine);
		return false;
	}
	return world_machine_create(w, config) == 0;
}

bool world_open(struct world *w, const struct world_config *config)
{
	struct mf_map_config map = { .span = config->nr_frames, .top = config->top, .flags = config->flags };
	int err;

	if (!world_open_machine(w, config))
		return false;
	map.machine = w->machine;
	err = mf_map_create(&map, &w->map);
	if (err) {
		TAP_NOTE("map on %s: %s", w->name, mf_strerror(err));
		world_machine_destroy(w);
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

/* Debug builds: every change of an entry was watched for its flush, none found no room. */
static bool dues_were_watched(struct world *w)
{
	uint64_t nr = 0;

	if (w->machine->backing == MF_WINDOW_TABLES)
		nr = due_counts(w->machine, map_due(w->map)).overflowed;
	if (nr)
		TAP_NOTE("nobody watched whether %llu changes were flushed", (unsigned long long)nr);
	return nr == 0;
}

bool world_check(struct world *w)
{
	struct mf_violation violation;
	int err = mf_map_check(w->map, &violation);

	if (err < 0)
		TAP_NOTE("mf_map_check: %s", mf_strerror(err));
	else if (err > 0)
		TAP_NOTE("%s at pfn %llu: %s", violation.law, (unsigned long long)violation.pfn, violation.text);
	return world_machine_check(w) && dues_were_watched(w) && err == 0;
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

static bool nothing_left(const struct world *w)
{
	struct world_used used = world_used(w);

	if (used.nr_ram || used.nr_meta || used.nr_fills)
		TAP_NOTE("left behind: %llu frames of RAM, %llu pieces of control memory, %llu translations",
			 (unsigned long long)used.nr_ram, (unsigned long long)used.nr_meta,
			 (unsigned long long)used.nr_fills);
	return !used.nr_ram && !used.nr_meta && !used.nr_fills;
}

static bool destroy_map(struct world *w)
{
	int err = mf_map_destroy(w->map);

	if (err)
		TAP_NOTE("mf_map_destroy: %s", mf_strerror(err));
	return err == 0;
}

bool world_close(struct world *w)
{
	bool good = true;

	if (w->map) {
		good = world_check(w);
		if (!remove_regions(w)) {
			world_abandon(w);
			return false;
		}
		good &= world_check(w);
		if (!destroy_map(w)) {
			world_abandon(w);
			return false;
		}
	}
	good &= nothing_left(w);
	world_machine_destroy(w);
	return good;
}

void world_abandon(struct world *w)
{
	world_machine_abandon(w);
	w->map = NULL;
	w->machine = NULL;
}
