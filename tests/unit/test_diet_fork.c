/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_fork.c - one process per map, with folios on a diet: a child sees zeroes in every descriptor and gets
 * -MF_EPERM from every call, whenever it was forked, and the parent's map is as if there had been no child.
 *
 * Windows are the host's memory, so aliases are mappings, which a child must not inherit.  Between remaps, between the
 * steps of one, and while another thread is in the middle of one.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memfold/linux.h>
#include <memfold/memfold.h>

#include "core/memmap/diet.h"
#include "tests/unit/diet_rig.h"

/* A region a layout, each a node of its own; in each some folios, and room for one more. */
enum { NR_LAYOUTS = NR_DIET_LAYOUTS + 1, DEVDAX = NR_LAYOUTS - 1, FRAMES = 1 << 13, ORDER = 9, NR_FOLIOS = 3 };
enum { LATE_START = NR_LAYOUTS * FRAMES, LATE_END = LATE_START + FRAMES };

struct scene {
	struct world w;
	struct mf_folio *folio[NR_LAYOUTS][NR_FOLIOS];
	struct diet_copy copy[NR_LAYOUTS][NR_FOLIOS];
};

static struct mf_region_config config_of(unsigned i, mf_pfn_t start)
{
	return (struct mf_region_config){
		.start_pfn = start,
		.end_pfn = start + FRAMES,
		.node = i,
		.layout = i == DEVDAX ? MF_LAYOUT_DEVDAX : diet_layouts[i],
		.source = MF_SOURCE_HOST,
		.unit_order = i == DEVDAX ? ORDER : 0,
	};
}

/* Compounds come on their diet; a folio is frozen, and on none. */
static bool folio_open(struct scene *s, unsigned i, unsigned j)
{
	enum mf_layout layout = config_of(i, 0).layout;
	struct mf_folio **folio = &s->folio[i][j];

	if (i == DEVDAX)
		*folio = mf_pfn_folio(s->w.map, i * FRAMES + (mf_pfn_t)j * (1 << ORDER));
	else if (mf_folio_alloc(s->w.map, (int)i, ORDER, MF_ALLOC_WAIT | MF_ALLOC_THIS_NODE, folio) != 0 ||
		 !mf_folio_freeze(*folio, 1))
		return false;
	return *folio && diet_copy_take(&s->copy[i][j], *folio, ORDER, layout);
}

static bool scene_open(struct scene *s)
{
	if (!world_open(&s->w, &(struct world_config){ .machine = "linux", .nr_frames = LATE_END }))
		return false;
	for (unsigned i = 0; i < NR_LAYOUTS; i++) {
		struct mf_region_config config = config_of(i, i * FRAMES);

		if (world_add_region(&s->w, &config, NULL) != 0)
			return false;
		for (unsigned j = 0; j < NR_FOLIOS; j++)
			if (!folio_open(s, i, j))
				return false;
	}
	return world_check(&s->w);
}

/* Every descriptor reads as it did before the first child. */
static bool scene_is_whole(struct scene *s)
{
	bool whole = world_check(&s->w);

	for (unsigned i = 0; i < NR_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_FOLIOS; j++)
			whole = diet_copy_is_read(&s->w, &s->copy[i][j]) && whole;
	return whole;
}

static bool scene_close(struct scene *s)
{
	for (unsigned i = 0; i < NR_LAYOUTS; i++)
		for (unsigned j = 0; j < NR_FOLIOS; j++) {
			diet_copy_free(&s->copy[i][j]);
			if (i != DEVDAX)
				diet_folio_free(&s->w, s->folio[i][j]);
		}
	return world_close(&s->w);
}

static int switch_all(struct scene *s, int (*change)(struct mf_map *map, struct mf_folio *folio))
{
	int err = 0;

	for (unsigned i = 0; i < DEVDAX && !err; i++)
		for (unsigned j = 0; j < NR_FOLIOS && !err; j++)
			err = change(s->w.map, s->folio[i][j]);
	return err;
}

/* ---- The child --------------------------------------------------------------------------------------------------- */

static bool is_zero(const void *memory, uint64_t bytes)
{
	const uint64_t *word = memory;

	for (uint64_t i = 0; i < bytes / sizeof(*word); i++)
		if (word[i] != 0)
			return false;
	return true;
}

/* The number of the first call that answers something else; 0 when none does. */
static int child_errors(struct scene *s)
{
	struct mf_map *map = s->w.map;
	struct mf_folio *folio = s->folio[0][0], *other;
	struct mf_region_config late = config_of(DEVDAX, LATE_START);
	struct mf_violation violation;
	struct mf_list none, done;
	unsigned id;

	mf_list_init(&none);
	mf_list_init(&done);
	int answers[] = {
		mf_diet_remap(map, folio),
		mf_diet_restore(map, folio),
		mf_diet_remap_list(map, &none, NULL),
		mf_diet_restore_list(map, &none, &done, NULL),
		mf_region_add(map, &late, &id),
		mf_region_remove(map, DEVDAX),
		mf_map_check(map, &violation),
		mf_fold(map, MF_ANY_NODE, MF_FOLD_ALL, NULL),
		mf_folio_alloc(map, 0, ORDER, MF_ALLOC_WAIT, &other),
		mf_folio_split(map, folio, 0),
		mf_map_destroy(map),
	};

	for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		if (answers[i] != -MF_EPERM)
			return (int)i + 1;
	return 0;
}

static int child_looks(struct scene *s)
{
	const struct mf_map *map = s->w.map;

	if (!is_zero(mf_pfn_to_page(map, 0), (uint64_t)LATE_END * MF_DESCRIPTOR_SIZE))
		return 100;
	for (const struct diet_tails *t = map->tails; t; t = t->next)
		if (!is_zero(t->slot, diet_slot_bytes(map)))
			return 101;
	for (mf_pfn_t pfn = 0; pfn < LATE_END; pfn += 100)
		if (mf_pfn_folio(map, pfn))
			return 102;
	return child_errors(s);
}

/* What a child forked now says; 254: nothing, since it was killed, by SIGALRM where it waits for ever. */
static int fork_and_look(struct scene *s)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		signal(SIGALRM, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		alarm(60);
		_exit(child_looks(s));
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return 254;
	return WEXITSTATUS(status);
}

/* ---- Between remaps ---------------------------------------------------------------------------------------------- */

TAP_TEST(child_sees_nothing_of_what_is_on_a_diet)
{
	struct scene s;
	uint64_t digest;

	TAP_REQUIRE(scene_open(&s));
	TAP_EQ(fork_and_look(&s), 0);
	TAP_EQ(switch_all(&s, mf_diet_remap), 0);
	/* One of each is off it again, one is kept. */
	for (unsigned i = 0; i < DEVDAX; i++) {
		struct mf_folio *kept;

		TAP_EQ(mf_diet_restore(s.w.map, s.folio[i][1]), 0);
		TAP_REQUIRE(mf_folio_alloc(s.w.map, (int)i, ORDER, MF_ALLOC_THIS_NODE, &kept) == 0);
		TAP_REQUIRE(mf_folio_freeze(kept, 1) && mf_diet_remap(s.w.map, kept) == 0);
		diet_folio_free(&s.w, kept);
	}
	digest = mf_map_digest(s.w.map);
	for (unsigned round = 0; round < 3; round++)
		TAP_EQ(fork_and_look(&s), 0);
	TAP_EQ(mf_map_digest(s.w.map), digest);
	TAP_EQ(diet_stats(&s.w).nr_kept, NR_DIET_LAYOUTS);
	TAP_OK(scene_is_whole(&s));
	/* And works: all of it goes off its diet, and on it. */
	TAP_EQ(switch_all(&s, mf_diet_restore), 0);
	TAP_OK(scene_is_whole(&s));
	TAP_EQ(switch_all(&s, mf_diet_remap), 0);
	TAP_OK(scene_is_whole(&s));
	TAP_OK(scene_close(&s));
}

/* ---- Between the steps of one ------------------------------------------------------------------------------------ */

/* Stands before the machine's own operations, and forks before and after each that switches slots. */
static struct forker {
	struct mf_machine_ops ops;
	const struct mf_machine_ops *inner;
	struct scene *scene;
	unsigned nr_forks, nr_wrong;
} forker;

static int forked(int err)
{
	int answer = fork_and_look(forker.scene);

	forker.nr_forks++;
	if (answer != 0 && forker.nr_wrong++ == 0)
		TAP_NOTE("child %u says %d", forker.nr_forks, answer);
	return err;
}

static int forks_share(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	forked(0);
	return forked(forker.inner->host_share(m, addr, size_bytes));
}

static int forks_alias(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target)
{
	forked(0);
	return forked(forker.inner->host_alias(m, addr, size_bytes, target));
}

static int forks_unalias(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	forked(0);
	return forked(forker.inner->host_unalias(m, addr, size_bytes));
}

static void forker_begin(struct scene *s)
{
	struct mf_machine *m = s->w.machine;

	forker = (struct forker){ .ops = *m->ops, .inner = m->ops, .scene = s };
	forker.ops.host_share = forks_share;
	forker.ops.host_alias = forks_alias;
	forker.ops.host_unalias = forks_unalias;
	m->ops = &forker.ops;
}

/* How many children there were; each saw and was told what it should. */
static unsigned forker_end(void)
{
	forker.scene->w.machine->ops = forker.inner;
	TAP_EQ(forker.nr_wrong, 0);
	return forker.nr_forks;
}

TAP_TEST(child_of_any_step_sees_nothing)
{
	struct mf_region_config late = config_of(DEVDAX, LATE_START);
	struct scene s;
	unsigned id;

	TAP_REQUIRE(scene_open(&s));
	forker_begin(&s);
	TAP_EQ(switch_all(&s, mf_diet_remap), 0);
	TAP_OK(forker_end() >= 2 * NR_DIET_LAYOUTS * NR_FOLIOS);
	TAP_OK(scene_is_whole(&s));
	forker_begin(&s);
	TAP_EQ(switch_all(&s, mf_diet_restore), 0);
	TAP_OK(forker_end() >= 2 * NR_DIET_LAYOUTS * NR_FOLIOS);
	TAP_OK(scene_is_whole(&s));
	/* Compounds that come. */
	forker_begin(&s);
	TAP_EQ(mf_region_add(s.w.map, &late, &id), 0);
	TAP_OK(forker_end() >= 2 * (FRAMES >> ORDER));
	TAP_OK(scene_is_whole(&s));
	TAP_EQ(mf_region_remove(s.w.map, id), 0);
	TAP_OK(scene_close(&s));
}

/* ---- While another thread is in the middle of one ---------------------------------------------------------------- */

enum { NR_FORKS = 30 };

struct changer {
	struct scene *s;
	atomic_bool is_over;
	atomic_uint nr_rounds, nr_errors;
};

static void *change(void *arg)
{
	struct changer *c = arg;
	struct mf_region_config late = config_of(DEVDAX, LATE_START);
	unsigned id;

	atomic_fetch_add(&c->nr_errors, mf_linux_thread_register(c->s->w.machine) != 0);
	while (!atomic_load(&c->is_over)) {
		int err = switch_all(c->s, mf_diet_remap);

		if (!err)
			err = mf_region_add(c->s->w.map, &late, &id);
		if (!err)
			err = switch_all(c->s, mf_diet_restore);
		if (!err)
			err = mf_region_remove(c->s->w.map, id);
		atomic_fetch_add(&c->nr_errors, err != 0);
		atomic_fetch_add(&c->nr_rounds, 1);
	}
	return NULL;
}

TAP_TEST(child_sees_nothing_of_what_another_thread_changes)
{
	struct scene s;
	struct changer c = { .s = &s };
	pthread_t thread;

	TAP_REQUIRE(scene_open(&s));
	TAP_REQUIRE(pthread_create(&thread, NULL, change, &c) == 0);
	for (unsigned i = 0; i < NR_FORKS || atomic_load(&c.nr_rounds) < 10; i++)
		TAP_EQ(fork_and_look(&s), 0);
	atomic_store(&c.is_over, true);
	pthread_join(thread, NULL);
	TAP_EQ(atomic_load(&c.nr_errors), 0);
	TAP_OK(scene_is_whole(&s));
	TAP_OK(scene_close(&s));
}

TAP_MAIN()
