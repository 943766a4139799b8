/* SPDX-License-Identifier: BSD-2-Clause */
/* test_fork.c - one process per map: in a forked child every call that can fail answers -MF_EPERM, and changes nothing. */
#include <sys/wait.h>
#include <unistd.h>

#include <memfold/linux.h>
#include <memfold/memfold.h>

#include "tests/lib/world.h"
#include "tests/tap.h"

/* The number of the first call that answers something else; 0 when none does. */
static int child_calls(struct world *w, struct mf_folio *held, mf_pfn_t held_pfn)
{
	struct mf_region_config config = { .start_pfn = WORLD_GIB_FRAMES, .end_pfn = 2 * WORLD_GIB_FRAMES };
	struct mf_folio *folio;
	struct mf_region_info region;
	struct mf_zone_info zone;
	struct mf_violation violation;
	uint64_t nr;
	unsigned id;
	int answers[] = {
		mf_region_add(w->map, &config, &id),
		mf_region_remove(w->map, 0),
		mf_region_info(w->map, 0, &region),
		mf_map_check(w->map, &violation),
		mf_fold(w->map, MF_ANY_NODE, MF_FOLD_ALL, &nr),
		mf_drain(w->map),
		mf_zone_info(w->map, 0, &zone),
		mf_folio_alloc(w->map, MF_ANY_NODE, 0, 0, &folio),
		mf_folio_alloc(w->map, MF_ANY_NODE, 9, MF_ALLOC_NOWAIT, &folio),
		mf_folio_alloc(w->map, MF_ANY_NODE, 18, 0, &folio),
		mf_folio_split(w->map, held, 0),
		mf_folio_merge(w->map, held_pfn, 9, &folio),
		mf_map_destroy(w->map),
	};

	for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		if (answers[i] != -MF_EPERM)
			return (int)i + 1;
	return mf_pfn_folio(w->map, held_pfn) ? 100 : 0; /* the windows are wiped there */
}

TAP_TEST(fork_child_may_not_use_the_map)
{
	struct world w;
	struct mf_folio *held;
	mf_pfn_t pfn;
	int status = -1;
	pid_t child;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "linux", .nr_frames = 2 * WORLD_GIB_FRAMES }));
	TAP_EQ(world_add(&w, 0, WORLD_GIB_FRAMES), 0);
	held = world_alloc(&w, 9);
	TAP_REQUIRE(held);
	pfn = mf_folio_pfn(w.map, held);
	child = fork();
	if (child == 0)
		_exit(child_calls(&w, held, pfn));
	TAP_REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	TAP_OK(WIFEXITED(status));
	TAP_EQ(WEXITSTATUS(status), 0);
	/* The parent's map is what it was. */
	TAP_OK(mf_pfn_folio(w.map, pfn) == held && mf_folio_refcount(held) == 1);
	mf_folio_put(w.map, held);
	TAP_OK(world_close(&w));
}

TAP_MAIN()
