/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_fork.c - one process per map: in a forked child every call on a map that returns an error returns -MF_EPERM,
 * and no other stops or waits, whatever the parent's threads were in the middle of.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memfold/linux.h>
#include <memfold/memfold.h>

#include "core/memmap/map.h"
#include "tests/lib/world.h"
#include "tests/tap.h"

/* The number of the first call that answers something else; 0 when none does. */
static int child_errors(struct world *w, struct mf_folio *held, mf_pfn_t held_pfn)
{
	struct mf_map_config map_config = { .machine = w->machine, .span = WORLD_GIB_FRAMES };
	struct mf_region_config config = { .start_pfn = WORLD_GIB_FRAMES, .end_pfn = 2 * WORLD_GIB_FRAMES };
	struct mf_map *map;
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
		mf_map_create(&map_config, &map),
		mf_linux_thread_register(w->machine),
		mf_linux_thread_unregister(w->machine),
	};

	for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		if (answers[i] != -MF_EPERM)
			return (int)i + 1;
	return 0;
}

/* Lookups find nothing. */
static int child_lookups(struct world *w, struct mf_folio *held, mf_pfn_t held_pfn)
{
	mf_pfn_t next = 0;

	if (mf_pfn_folio(w->map, held_pfn) || mf_pfn_is_valid(w->map, held_pfn))
		return 100;
	if (mf_folio_try_get(w->map, &held->page) || mf_pfn_try_get(w->map, held_pfn) ||
	    mf_pfn_try_pin(w->map, held_pfn))
		return 101;
	if (mf_folio_next(w->map, 0, WORLD_GIB_FRAMES, &next))
		return 102;
	return mf_folio_data(w->map, held) ? 103 : 0;
}

/* What has no answer does nothing, however often. */
static int child_drops(struct world *w, struct mf_folio *held)
{
	for (int i = 0; i < 3; i++) {
		mf_folio_put(w->map, held);
		mf_folio_unpin(w->map, held);
		mf_folio_free_frozen(w->map, held);
	}
	return held->page.counts || held->page.word ? 110 : 0;
}

static int child_sums(struct world *w)
{
	struct mf_map_stats stats, none;

	memset(&stats, 0x5a, sizeof(stats));
	memset(&none, 0, sizeof(none));
	mf_map_stats(w->map, &stats);
	if (memcmp(&stats, &none, sizeof(stats)) != 0)
		return 120;
	return mf_map_digest(w->map) ? 121 : 0;
}

static int child_calls(struct world *w, struct mf_folio *held, mf_pfn_t held_pfn)
{
	int failed = child_errors(w, held, held_pfn);

	if (!failed)
		failed = child_lookups(w, held, held_pfn);
	if (!failed)
		failed = child_drops(w, held);
	return failed ? failed : child_sums(w);
}

/* What child_calls() says in a child; 254 when the child was killed, by SIGALRM where it waits for ever. */
static int fork_and_call(struct world *w, struct mf_folio *held, mf_pfn_t held_pfn)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		signal(SIGALRM, SIG_DFL);
		alarm(60);
		_exit(child_calls(w, held, held_pfn));
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return 254;
	return WEXITSTATUS(status);
}

static bool open_with_memory(struct world *w)
{
	struct mf_linux_memory memory = { .kind = MF_LINUX_MEMFD, .size_bytes = MF_GIB };

	return world_open(w, &(struct world_config){ .machine = "linux", .nr_frames = 2 * WORLD_GIB_FRAMES }) &&
	       mf_linux_memory_add(w->machine, &memory, NULL, 0) == 0 && world_add(w, 0, WORLD_GIB_FRAMES) == 0;
}

TAP_TEST(fork_child_may_not_use_the_map)
{
	static const unsigned orders[] = { 9, 0 };
	struct world w;

	TAP_REQUIRE(open_with_memory(&w));
	for (unsigned i = 0; i < 2; i++) {
		struct mf_folio *held = world_alloc(&w, orders[i]);
		mf_pfn_t pfn;

		TAP_REQUIRE(held);
		pfn = mf_folio_pfn(w.map, held);
		TAP_OK(mf_folio_data(w.map, held) != NULL);
		TAP_EQ(mf_folio_pin(held), 0);
		TAP_EQ(fork_and_call(&w, held, pfn), 0);
		/* The parent's map is what it was. */
		TAP_OK(mf_pfn_folio(w.map, pfn) == held && mf_folio_refcount(held) == 2);
		TAP_EQ(mf_folio_pincount(held), 1);
		mf_folio_unpin(w.map, held);
		mf_folio_put(w.map, held);
	}
	TAP_OK(world_close(&w));
}

/* ---- Fork while another thread is in the middle of a change ---------------------------------------------------- */

static sem_t inside, go_on;

/* Regions log where they come and go, under their lock: there the thread stays until the test lets it go on. */
static void stay_inside(void *ctx, enum mf_log_level level, const char *line)
{
	(void)level;
	if (!strstr(line, ctx))
		return;
	sem_post(&inside);
	sem_wait(&go_on);
}

struct changer {
	struct world *w;
	int added, removed;
};

static void *change_regions(void *arg)
{
	struct changer *c = arg;
	struct mf_region_config config = { .start_pfn = WORLD_GIB_FRAMES, .end_pfn = 2 * WORLD_GIB_FRAMES };
	unsigned id;

	if (mf_linux_thread_register(c->w->machine) == 0)
		c->added = mf_region_add(c->w->map, &config, &id);
	if (c->added == 0)
		c->removed = mf_region_remove(c->w->map, id);
	sem_post(&inside); /* should it never have been there */
	return NULL;
}

/* The child finds the lock taken, by a thread that it does not have; `line` says in which call. */
static void fork_inside(char *line)
{
	struct world w;
	struct changer c = { .w = &w, .added = 1, .removed = 1 };
	struct mf_folio *held;
	pthread_t thread;

	TAP_REQUIRE(open_with_memory(&w));
	held = world_alloc(&w, 9);
	TAP_REQUIRE(held);
	sem_init(&inside, 0, 0);
	sem_init(&go_on, 0, 0);
	mf_log_hook_set(stay_inside, line);
	TAP_REQUIRE(pthread_create(&thread, NULL, change_regions, &c) == 0);
	sem_wait(&inside);
	TAP_OK(w.map->region_lock.held);
	TAP_EQ(fork_and_call(&w, held, mf_folio_pfn(w.map, held)), 0);
	sem_post(&go_on);
	pthread_join(thread, NULL);
	mf_log_hook_set(NULL, NULL);
	TAP_EQ(c.added, 0);
	TAP_EQ(c.removed, 0);
	mf_folio_put(w.map, held);
	TAP_OK(world_close(&w));
}

TAP_TEST(fork_while_a_region_is_added)
{
	static char line[] = "added";

	fork_inside(line);
}

TAP_TEST(fork_while_a_region_is_removed)
{
	static char line[] = "removed";

	fork_inside(line);
}

TAP_MAIN()
