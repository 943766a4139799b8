/* SPDX-License-Identifier: BSD-2-Clause */
/* world_hosted.c - the machines of a process: sims by name, and linux. */
#include "tests/lib/world_machine.h"

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

static const struct kind {
	const char *name;
	unsigned page_shift, levels; /* page_shift 0: linux */
	uint64_t frame0;
} kinds[] = {
	{ "sim", 12, 4, 0 },
	{ "sim-5", 12, 5, 0 },
	{ "sim-high", 12, 4, 4 * MF_GIB },
	{ "sim-arm64-16k", 14, 3, 0 },
	{ "sim-arm64-64k", 16, 3, 0 },
	{ "linux", 0, 0, 0 },
};

const char *const world_machines[] = { "sim", "sim-5", "sim-high", "sim-arm64-16k", "sim-arm64-64k", "linux", NULL };

static const struct kind *kind_by_name(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

static int sim_create(struct world *w, const struct kind *kind, const struct world_config *config)
{
	struct mf_sim_config sim = {
		.paging = kind->page_shift == 12 ? mf_paging_x86_64(kind->levels) :
						   mf_paging_arm64(kind->page_shift, kind->levels),
		.nr_frames = config->nr_frames,
		.nr_ram_frames = config->nr_ram_frames ? config->nr_ram_frames : world_plenty(config->nr_frames),
		.flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE,
	};
	int err;

	sim.paging.frame0 = kind->frame0;
	err = mf_sim_create(&sim, &w->sim);

	if (!err)
		w->machine = config->wrap ? config->wrap(config->wrap_ctx, w->sim) : w->sim;
	return err;
}

int world_machine_create(struct world *w, const struct world_config *config)
{
	const struct kind *kind = kind_by_name(w->name);
	int err;

	if (w->will_break)
		__lsan_disable();
	err = kind->page_shift == 0 ? mf_linux_create(NULL, &w->machine) : sim_create(w, kind, config);
	if (!err)
		return 0;
	if (w->will_break)
		__lsan_enable();
	TAP_NOTE("machine %s: %s", w->name, mf_strerror(err));
	return err;
}

void world_machine_destroy(struct world *w)
{
	if (w->will_break)
		__lsan_enable();
	if (w->sim)
		mf_sim_destroy(w->sim);
	else
		mf_linux_destroy(w->machine);
}

void world_machine_abandon(struct world *w)
{
	if (w->will_break)
		__lsan_enable();
	if (w->sim)
		mf_sim_destroy(w->sim);
}

bool world_machine_check(struct world *w)
{
	struct mf_sim_stats stats;
	uint64_t stale;

	if (!w->sim)
		return true;
	stale = mf_sim_stale(w->sim);
	mf_sim_stats(w->sim, &stats);
	if (stale)
		TAP_NOTE("M5: %llu translations are stale: a flush is missing", (unsigned long long)stale);
	if (stats.stray_writes != w->stray_writes)
		TAP_NOTE("M6: %llu stray writes, %llu of them expected", (unsigned long long)stats.stray_writes,
			 (unsigned long long)w->stray_writes);
	return stale == 0 && stats.stray_writes == w->stray_writes;
}

struct world_used world_used(const struct world *w)
{
	struct mf_sim_stats stats;

	if (!w->sim)
		return (struct world_used){ 0 }; /* mf_linux_destroy() panics when something is out */
	mf_sim_stats(w->sim, &stats);
	return (struct world_used){ stats.nr_ram_used, stats.nr_meta_used, stats.nr_fills };
}
