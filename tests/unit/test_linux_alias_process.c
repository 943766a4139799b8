/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_linux_alias_process.c - slots that share memory, and the process around them: its children, its limits (size of
 * files, number of mappings), its threads.
 *
 * The limit of mappings is the host's own; children fill it up.
 */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/alias_rig.h"

/* ---- Children ---------------------------------------------------------------------------------------------------- */

enum { BY_SIGNAL = 128 };

/* What the child answers, or BY_SIGNAL and the signal that ended it. */
static int child_run(pid_t child, int (*run)(void *), void *arg)
{
	int status = -1;

	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(run(arg));
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 255;
	return WIFEXITED(status) ? WEXITSTATUS(status) : BY_SIGNAL + WTERMSIG(status);
}

static int in_child(int (*run)(void *), void *arg)
{
	return child_run(fork(), run, arg);
}

static unsigned files_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	char link[64];
	unsigned nr = 0;

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[length > 0 ? length : 0] = '\0';
		nr += strstr(link, "memfold windows") != NULL;
	}
	if (dir)
		closedir(dir);
	return nr;
}

static int see_zero(void *arg)
{
	return shows(arg, 0, NR_SLOTS, 0) ? 0 : 20;
}

static int look_in_child(void *arg)
{
	const struct rig *r = arg;
	uint64_t bytes;

	if (r->ops->may_use(r->machine))
		return 1;
	if (!shows(r, 0, NR_SLOTS, 0))
		return 2;
	if (mf_linux_window_bytes(r->machine, &bytes) != -MF_EPERM)
		return 3;
	if (files_open() != 0)
		return 4;
	mf_linux_destroy(r->machine);
	return in_child(see_zero, arg);
}

TAP_TEST(alias_reads_as_zero_in_a_child)
{
	static const unsigned flags[] = {0, MF_LINUX_WINDOWS_READ_ONLY};

	for (unsigned i = 0; i < 2; i++) {
		struct rig r;

		TAP_REQUIRE(rig_open_with(&r, flags[i], 12));
		TAP_REQUIRE(r.ops->host_populate(r.machine, at(&r, 0), 4 * PAGE) == 0);
		TAP_REQUIRE(share(&r, 4, 40) == 0);
		fill(&r, 0, 44, 3);
		TAP_REQUIRE(alias(&r, 9, 7, 8) == 0);
		TAP_REQUIRE(alias(&r, 17, 7, 16) == 0 && unalias(&r, 17, 7) == 0);
		discard(&r, 30, 2);
		TAP_EQ(files_open(), 1);
		TAP_EQ(in_child(look_in_child, &r), 0);
		TAP_OK(shows(&r, 0, 30, 3) && shows(&r, 30, 2, 0) && shows(&r, 32, 12, 3));
		TAP_EQ(cost(&r), 31);
		rig_close(&r);
		TAP_EQ(files_open(), 0);
	}
}

/* A child that no hook of fork() knows of: wiped where memory is private, nothing where it is shared. */
static int in_bare_child(int (*run)(void *), void *arg)
{
	return child_run((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), run, arg);
}

static int is_zero(void *slot)
{
	return *(volatile uint64_t *)slot == 0 ? 0 : 1;
}

TAP_TEST(alias_is_never_seen_by_a_child_without_hooks)
{
	static const uint64_t shared[] = {4, 8, 9, 15, 16, 17, 23, 33, 43};
	struct rig r;

	TAP_REQUIRE(rig_open(&r));
	TAP_REQUIRE(r.ops->host_populate(r.machine, at(&r, 0), 4 * PAGE) == 0);
	TAP_REQUIRE(share(&r, 4, 40) == 0);
	TAP_REQUIRE(alias(&r, 9, 7, 8) == 0);
	TAP_REQUIRE(alias(&r, 17, 7, 16) == 0 && unalias(&r, 17, 7) == 0);
	discard(&r, 30, 2);
	TAP_REQUIRE(r.ops->host_populate(r.machine, at(&r, 30), 2 * PAGE) == 0);
	fill(&r, 0, 9, 3);
	fill(&r, 16, 28, 3);
	for (unsigned i = 0; i < sizeof(shared) / sizeof(shared[0]); i++)
		TAP_EQ(in_bare_child(is_zero, at(&r, shared[i])), BY_SIGNAL + SIGSEGV);
	TAP_EQ(in_bare_child(is_zero, at(&r, 0)), 0);
	TAP_EQ(in_bare_child(is_zero, at(&r, 30)), 0);
	TAP_OK(shows(&r, 0, 44, 3));
	rig_close(&r);
}

/* ---- The limit of file size ------------------------------------------------------------------------------------ */

/* A file beyond the limit would be a signal. */
static int share_beyond_file_size(void *unused)
{
	struct rlimit limit = {.rlim_cur = NR_SLOTS * PAGE - 1, .rlim_max = RLIM_INFINITY};
	struct rig r;

	(void)unused;
	if (!rig_open(&r) || setrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 1;
	if (share(&r, 0, 8) != -MF_ENOMEM || cost(&r) != 0)
		return 2;
	limit.rlim_cur++;
	if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 3;
	if (share(&r, NR_SLOTS - 8, 8) != 0 || alias(&r, NR_SLOTS - 7, 7, NR_SLOTS - 8) != 0 ||
	    unalias(&r, NR_SLOTS - 7, 7) != 0)
		return 4;
	rig_close(&r);
	return 0;
}

TAP_TEST(share_respects_the_limit_of_file_size)
{
	TAP_EQ(in_child(share_beyond_file_size, NULL), 0);
}

/* ---- The limit of mappings ------------------------------------------------------------------------------------- */

/* Beyond that, filling it up takes long. */
enum { MAPPINGS_MAX = 1 << 18 };

/* Why the limit cannot be reached, or NULL. */
static const char *limit_out_of_reach(uint64_t *limit)
{
	uint64_t used;

	if (mf_linux_mappings(&used, limit) != 0)
		return "the host does not say how many mappings it allows";
	if (*limit > MAPPINGS_MAX)
		return "vm.max_map_count is too large to reach it";
	return IS_THREAD_SANITIZER ? "the thread sanitizer itself needs mappings" : NULL;
}

/* Pages of alternating protection, each a mapping. */
struct filler {
	char *pages;
	uint64_t nr, max;
};

static bool filler_open(struct filler *f)
{
	uint64_t used;

	*f = (struct filler){0};
	if (mf_linux_mappings(&used, &f->max) != 0)
		return false;
	f->pages = mmap(NULL, f->max * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return f->pages != MAP_FAILED;
}

static bool filler_free(struct filler *f, uint64_t nr)
{
	f->nr -= nr;
	return munmap(f->pages + f->nr * PAGE, (f->max - f->nr) * PAGE) == 0;
}

/* Until the host refuses, and then about so many less. */
static bool filler_leave(struct filler *f, uint64_t nr_free)
{
	while (f->nr < f->max && mprotect(f->pages + f->nr * PAGE, PAGE, PROT_READ << (f->nr & 1)) == 0)
		f->nr++;
	return f->nr < f->max && f->nr > nr_free && filler_free(f, nr_free);
}

static bool is_as_before(const struct rig *r)
{
	for (uint64_t slot = 0; slot < 32; slot++) {
		uint64_t shown = slot >= 17 && slot < 20 ? 16 : slot;

		if (!shows(r, slot, 1, shown) || write_faults(r, slot) != (shown != slot))
			return false;
	}
	return cost(r) == 32 - 3;
}

/* The machine has counted, and then others take all but so many: the host refuses in the middle of the work. */
static int alias_when_mappings_run_out(void *arg)
{
	uint64_t nr_free = *(const uint64_t *)arg, nr_mappings;
	struct filler filler;
	struct rig r;
	int error;

	if (!rig_open(&r) || share(&r, 0, 32) != 0)
		return 1;
	for (uint64_t slot = 0; slot < 32; slot++)
		fill(&r, slot, 1, slot);
	if (alias(&r, 17, 3, 16) != 0 || !filler_open(&filler) || !filler_leave(&filler, nr_free))
		return 2;
	nr_mappings = mappings();
	/* Own slots and aliases. */
	error = alias(&r, 8, 20, 4);
	if (error == 0)
		return shows(&r, 8, 20, 4) && cost(&r) == 12 && mappings() == nr_mappings + 17 ? 100 : 3;
	if (error != -MF_ENOMEM)
		return 4;
	if (!is_as_before(&r))
		return 5;
	if (mappings() > nr_mappings)
		return 6;
	/* What was aliased before can still be undone. */
	if (unalias(&r, 16, 4) != 0 || !shows(&r, 16, 4, 16) || write_faults(&r, 17))
		return 7;
	discard(&r, 6, 2);
	return shows(&r, 5, 1, 5) && shows(&r, 6, 2, 0) && shows(&r, 8, 1, 8) ? 0 : 8;
}

TAP_TEST(alias_without_mappings_changes_nothing)
{
	static uint64_t nr_free[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 14, 30};
	const unsigned nr = sizeof(nr_free) / sizeof(nr_free[0]);
	uint64_t limit;

	if (limit_out_of_reach(&limit))
		TAP_SKIP(limit_out_of_reach(&limit));
	for (unsigned i = 0; i < nr; i++)
		TAP_EQ(in_child(alias_when_mappings_run_out, &nr_free[i]), i == nr - 1 ? 100 : 0);
}

/* The host makes no mapping at all any more. */
static bool fill_up(void)
{
	struct filler filler;
	int protection = PROT_READ;

	if (!filler_open(&filler) || !filler_leave(&filler, 0))
		return false;
	while (mmap(NULL, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		protection ^= PROT_READ;
	return true;
}

static int work_without_mappings(void *unused)
{
	struct rig r;

	(void)unused;
	if (!rig_open(&r) || share(&r, 0, 32) != 0)
		return 1;
	for (uint64_t slot = 0; slot < 32; slot++)
		fill(&r, slot, 1, slot);
	if (alias(&r, 17, 3, 16) != 0 || !fill_up())
		return 2;
	if (share(&r, 40, 8) != -MF_ENOMEM || alias(&r, 1, 1, 0) != -MF_ENOMEM || unalias(&r, 17, 3) != -MF_ENOMEM)
		return 3;
	if (!is_as_before(&r) || !shows(&r, 32, NR_SLOTS - 32, 0))
		return 4;
	/* Which may not fail. */
	discard(&r, 4, 2);
	if (!shows(&r, 3, 1, 3) || !shows(&r, 4, 2, 0) || !shows(&r, 6, 1, 6) || cost(&r) != 32 - 3 - 2)
		return 5;
	return unalias(&r, 17, 3) == 0 && shows(&r, 16, 4, 16) && shows(&r, 20, 1, 20) && cost(&r) == 30 ? 0 : 6;
}

TAP_TEST(discard_works_without_mappings)
{
	uint64_t limit;

	if (limit_out_of_reach(&limit))
		TAP_SKIP(limit_out_of_reach(&limit));
	TAP_EQ(in_child(work_without_mappings, NULL), 0);
}

static int alias_leaves_some(void *arg)
{
	uint64_t limit = *(const uint64_t *)arg;
	struct filler filler;
	struct rig r;

	if (!rig_open(&r) || share(&r, 0, NR_SLOTS) != 0 || !filler_open(&filler) || !filler_leave(&filler, 0))
		return 1;
	if (alias(&r, 1, 20, 0) != -MF_ENOMEM)
		return 2;
	if (!filler_free(&filler, limit / 64 + 36) || alias(&r, 1, 20, 0) != 0)
		return 3;
	if (alias(&r, 30, 20, 0) != -MF_ENOMEM || mappings() > limit - limit / 64 || cost(&r) != NR_SLOTS - 20)
		return 4;
	/* What it gives back it can have again. */
	if (unalias(&r, 1, 20) != 0 || alias(&r, 30, 20, 0) != 0 || alias(&r, 1, 20, 0) != -MF_ENOMEM)
		return 5;
	/* A refusal holds for a moment. */
	if (!filler_free(&filler, 100) || usleep(200000) != 0 || alias(&r, 1, 20, 0) != 0)
		return 6;
	return cost(&r) == NR_SLOTS - 40 ? 0 : 7;
}

TAP_TEST(alias_leaves_mappings_to_the_rest_of_the_process)
{
	uint64_t limit;

	if (limit_out_of_reach(&limit))
		TAP_SKIP(limit_out_of_reach(&limit));
	TAP_EQ(in_child(alias_leaves_some, &limit), 0);
}

/* ---- Threads -------------------------------------------------------------------------------------------------- */

/* Each changer has a unit of eight slots, all alike; the last one's are zero and are shared and discarded. */
enum { NR_CHANGERS = 3, NR_READERS = 2, NR_ROUNDS = 1000, UNIT = 8 };

static struct rig threads_rig;
static atomic_bool is_over;
static atomic_uint nr_wrong;

static uint64_t unit_value(uint64_t unit)
{
	return unit == NR_CHANGERS - 1 ? 0 : unit + 1;
}

static void *change(void *arg)
{
	const struct rig *r = &threads_rig;
	uint64_t unit = (uint64_t)(uintptr_t)arg, first = unit * UNIT;
	int error = 0;

	for (int round = 0; round < NR_ROUNDS && !error; round++) {
		if (unit_value(unit) == 0)
			error = share(r, first, UNIT);
		if (!error)
			error = alias(r, first + 1, UNIT - 1, first);
		if (unit_value(unit) == 0)
			discard(r, first, UNIT);
		else if (!error)
			error = unalias(r, first, UNIT);
	}
	atomic_fetch_add(&nr_wrong, error != 0);
	return NULL;
}

static void *look(void *arg)
{
	uint64_t unit = (uint64_t)(uintptr_t)arg;

	while (!atomic_load(&is_over)) {
		atomic_fetch_add(&nr_wrong, !shows(&threads_rig, unit * UNIT, UNIT, unit_value(unit)));
		unit = (unit + 1) % NR_CHANGERS;
	}
	return NULL;
}

/* A fork finds shared memory kept from children, whatever the changers are in the middle of. */
TAP_TEST(alias_is_never_seen_halfway)
{
	pthread_t changer[NR_CHANGERS], reader[NR_READERS];

	TAP_REQUIRE(rig_open(&threads_rig));
	TAP_REQUIRE(share(&threads_rig, 0, (NR_CHANGERS - 1) * UNIT) == 0);
	for (uint64_t unit = 0; unit < NR_CHANGERS; unit++)
		if (unit_value(unit) != 0)
			fill(&threads_rig, unit * UNIT, UNIT, unit_value(unit));
	for (uintptr_t i = 0; i < NR_READERS; i++)
		TAP_REQUIRE(pthread_create(&reader[i], NULL, look, (void *)i) == 0);
	for (uintptr_t i = 0; i < NR_CHANGERS; i++)
		TAP_REQUIRE(pthread_create(&changer[i], NULL, change, (void *)i) == 0);
	for (int i = 0; i < 20; i++)
		TAP_EQ(in_child(see_zero, &threads_rig), 0);
	for (unsigned i = 0; i < NR_CHANGERS; i++)
		pthread_join(changer[i], NULL);
	atomic_store(&is_over, true);
	for (unsigned i = 0; i < NR_READERS; i++)
		pthread_join(reader[i], NULL);
	TAP_EQ(atomic_load(&nr_wrong), 0);
	TAP_EQ(cost(&threads_rig), (NR_CHANGERS - 1) * UNIT);
	rig_close(&threads_rig);
}

/* Counts in a slot that is its own throughout; aliases show it. */
static void *count_up(void *arg)
{
	for (int i = 0; i < 200000; i++)
		atomic_fetch_add((_Atomic uint64_t *)arg, 1);
	atomic_store(&is_over, true);
	return NULL;
}

TAP_TEST(alias_loses_no_write_to_its_target)
{
	pthread_t counter;
	struct rig r;
	unsigned nr_rounds = 0;
	int error = 0;

	TAP_REQUIRE(rig_open(&r));
	TAP_REQUIRE(share(&r, 0, UNIT) == 0);
	atomic_store(&is_over, false);
	TAP_REQUIRE(pthread_create(&counter, NULL, count_up, at(&r, 0)) == 0);
	while (!error && (!atomic_load(&is_over) || nr_rounds < 10)) {
		error = alias(&r, 1, UNIT - 1, 0);
		if (!error)
			error = unalias(&r, 0, UNIT);
		nr_rounds++;
	}
	pthread_join(counter, NULL);
	TAP_EQ(error, 0);
	TAP_EQ(*(_Atomic uint64_t *)(void *)at(&r, 0), 200000);
	rig_close(&r);
}

TAP_MAIN()
