/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_linux.c - the machine for user space: windows, populating them, threads, fork, control memory.
 *
 * Owns a madvise() and a mprotect() of its own, which stand before the C library's, so that the host's failures come on
 * demand.  Says nothing about described memory (test_linux_memory.c) or maps (tests/contract).
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memfold/linux.h>

#include "tests/tap.h"

enum { PAGE = 4096, SLOTS = 8 * PAGE };

/* ---- The host, failing on demand ---------------------------------------------------------------------------- */

static int fail_advice;   /* the advice to fail, 0: none */
static int fail_error;    /* with this errno */
static int fail_times;    /* so often */
static size_t fail_after; /* having done this many bytes */
static int advice_calls;

int madvise(void *addr, size_t size, int advice)
{
	if (advice == fail_advice) {
		advice_calls++;
		if (fail_times > 0) {
			fail_times--;
			if (fail_after > 0)
				syscall(SYS_madvise, addr, fail_after, advice);
			errno = fail_error;
			return -1;
		}
	}
	return (int)syscall(SYS_madvise, addr, size, advice);
}

static bool protect_fails;

int mprotect(void *addr, size_t size, int protection)
{
	if (protect_fails) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_mprotect, addr, size, protection);
}

static void advice_fails(int advice, int error, int times, size_t after)
{
	fail_advice = advice;
	fail_error = error;
	fail_times = times;
	fail_after = after;
	advice_calls = 0;
}

/* ---- Helpers -------------------------------------------------------------------------------------------------- */

static struct mf_machine *machine_new(unsigned flags, unsigned max_threads)
{
	struct mf_linux_config config = {.flags = flags, .max_threads = max_threads};
	struct mf_machine *machine = NULL;

	return mf_linux_create(&config, &machine) == 0 ? machine : NULL;
}

static bool is_zero(const char *bytes, size_t size)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static unsigned pages_resident(char *start, size_t size)
{
	unsigned char there[64] = {0};
	unsigned nr = 0;

	if (size > sizeof(there) * PAGE || mincore(start, size, there) != 0)
		return ~0u;
	for (size_t i = 0; i < size / PAGE; i++)
		nr += there[i] & 1u;
	return nr;
}

/* ---- Creation ---------------------------------------------------------------------------------------------------- */

TAP_TEST(linux_refuses_bad_config)
{
	struct mf_machine *machine = NULL;
	struct mf_linux_config small_pages = {.page_shift = 11}, large_pages = {.page_shift = 17};
	struct mf_linux_config many = {.max_threads = MF_CPUS_MAX + 1}, flags = {.flags = 1u << 31};

	TAP_OK(mf_linux_create(&small_pages, &machine) == -MF_EINVAL);
	TAP_OK(mf_linux_create(&large_pages, &machine) == -MF_EINVAL);
	TAP_OK(mf_linux_create(&many, &machine) == -MF_EINVAL);
	TAP_OK(mf_linux_create(&flags, &machine) == -MF_EINVAL);
	TAP_OK(machine == NULL);
	advice_fails(MADV_WIPEONFORK, EINVAL, 1, 0);
	TAP_OK(mf_linux_create(NULL, &machine) == -MF_EOPNOTSUPP);
	advice_fails(0, 0, 0, 0);
	TAP_OK(machine == NULL);
}

TAP_TEST(linux_says_what_it_is)
{
	struct mf_linux_config config = {.page_shift = 16, .max_threads = 3};
	struct mf_machine *machine = NULL;

	TAP_REQUIRE(mf_linux_create(&config, &machine) == 0);
	TAP_EQ(machine->paging.page_shift, 16);
	TAP_EQ(machine->nr_cpus, 3);
	TAP_OK(machine->backing == MF_WINDOW_HOST && machine->unbacked == MF_UNBACKED_ZERO);
	TAP_OK(machine->ops->may_use(machine));
	TAP_OK(mf_linux_available_bytes() > 0);
	mf_linux_destroy(machine);
	mf_linux_destroy(NULL);
}

TAP_TEST(linux_meta_is_zeroed_and_aligned)
{
	static const size_t sizes[] = {1, 64, 100, 65535, 65536, 1 << 20};
	struct mf_machine *machine = machine_new(0, 0);

	TAP_REQUIRE(machine);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			char *memory = machine->ops->meta_alloc(machine, sizes[i]);

			TAP_REQUIRE(memory);
			TAP_EQ((uintptr_t)memory % 64, 0);
			TAP_OK(is_zero(memory, sizes[i]));
			memset(memory, 0xff, sizes[i]);
			machine->ops->meta_free(machine, memory, sizes[i]);
		}
	}
	TAP_OK(machine->ops->meta_alloc(machine, SIZE_MAX) == NULL);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_destroy_panics_while_in_use)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *memory;

	TAP_REQUIRE(machine);
	memory = machine->ops->meta_alloc(machine, 64);
	TAP_OK(TAP_PANICS(mf_linux_destroy(machine)));
	machine->ops->meta_free(machine, memory, 64);
	mf_linux_destroy(machine);
}

/* ---- Windows -------------------------------------------------------------------------------------------------------
 */

static void window_works(unsigned flags)
{
	struct mf_machine *machine = machine_new(flags, 0);
	const uint64_t size = 64 * MF_GIB;
	void *base;
	char *slots;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, size, MF_GIB, &base) == 0);
	TAP_EQ((uintptr_t)base % MF_GIB, 0);
	/* Over the border of two writable pieces. */
	slots = (char *)base + 2 * MF_MIB - SLOTS / 2;
	TAP_EQ(pages_resident(slots, SLOTS), 0);
	TAP_OK(is_zero(slots, SLOTS));
	TAP_OK(is_zero((char *)base + size - PAGE, PAGE));
	TAP_OK(machine->ops->host_populate(machine, slots, SLOTS) == 0);
	TAP_EQ(pages_resident(slots, SLOTS), SLOTS / PAGE);
	memset(slots, 0x5a, SLOTS);
	TAP_OK(machine->ops->host_populate(machine, slots, SLOTS) == 0);
	TAP_OK(slots[0] == 0x5a && slots[SLOTS - 1] == 0x5a);
	machine->ops->host_discard(machine, slots, SLOTS);
	TAP_EQ(pages_resident(slots, SLOTS), 0);
	TAP_OK(is_zero(slots, SLOTS));
	TAP_OK(machine->ops->host_populate(machine, (char *)base + size - PAGE, PAGE) == 0);
	machine->ops->window_release(machine, base, size);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_window_costs_what_is_populated)
{
	window_works(0);
}

TAP_TEST(linux_window_reserved_read_only_works)
{
	window_works(MF_LINUX_WINDOWS_READ_ONLY);
}

TAP_TEST(linux_window_populated_by_touch_works)
{
	window_works(MF_LINUX_POPULATE_BY_TOUCH);
}

TAP_TEST(linux_window_refuses_impossible_size)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *base = NULL;

	TAP_REQUIRE(machine);
	TAP_OK(machine->ops->window_reserve(machine, (uint64_t)1 << 60, PAGE, &base) == -MF_ENOMEM);
	TAP_OK(machine->ops->window_reserve(machine, UINT64_MAX, PAGE, &base) == -MF_ENOMEM);
	TAP_OK(machine->ops->window_reserve(machine, (uint64_t)1 << 63, (uint64_t)1 << 63, &base) == -MF_ENOMEM);
	advice_fails(MADV_WIPEONFORK, ENOMEM, 1, 0);
	TAP_OK(machine->ops->window_reserve(machine, MF_MIB, PAGE, &base) == -MF_ENOMEM);
	advice_fails(0, 0, 0, 0);
	TAP_OK(base == NULL);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_window_panics_on_wrong_range)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *base;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, MF_MIB, PAGE, &base) == 0);
	TAP_OK(TAP_PANICS(machine->ops->host_populate(machine, (char *)base + MF_MIB - PAGE, 2 * PAGE)));
	TAP_OK(TAP_PANICS(machine->ops->window_release(machine, base, MF_MIB + 1)));
	TAP_OK(TAP_PANICS(mf_linux_destroy(machine)));
	machine->ops->window_release(machine, base, MF_MIB);
	mf_linux_destroy(machine);
}

/* ---- Populate: what the host may answer ----------------------------------------------------------------------------
 */

TAP_TEST(linux_populate_retries_what_passes)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *base;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, MF_MIB, PAGE, &base) == 0);
	advice_fails(MADV_POPULATE_WRITE, EAGAIN, 3, PAGE);
	TAP_OK(machine->ops->host_populate(machine, base, SLOTS) == 0);
	TAP_EQ(advice_calls, 4);
	advice_fails(MADV_POPULATE_WRITE, EINTR, 3, PAGE);
	TAP_OK(machine->ops->host_populate(machine, (char *)base + SLOTS, SLOTS) == 0);
	TAP_EQ(advice_calls, 4);
	TAP_EQ(pages_resident(base, 2 * SLOTS), 2 * SLOTS / PAGE);
	advice_fails(MADV_POPULATE_WRITE, EAGAIN, 1 << 30, 0);
	TAP_OK(machine->ops->host_populate(machine, (char *)base + 2 * SLOTS, SLOTS) == -MF_ENOMEM);
	advice_fails(0, 0, 0, 0);
	machine->ops->window_release(machine, base, MF_MIB);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_populate_that_fails_leaves_everything_as_it_was)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *base;
	char *slots;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, MF_MIB, PAGE, &base) == 0);
	slots = base;
	TAP_REQUIRE(machine->ops->host_populate(machine, slots + PAGE, PAGE) == 0);
	slots[2 * PAGE - 1] = 7;
	advice_fails(MADV_POPULATE_WRITE, ENOMEM, 1, 4 * PAGE);
	TAP_OK(machine->ops->host_populate(machine, slots, SLOTS) == -MF_ENOMEM);
	advice_fails(0, 0, 0, 0);
	TAP_EQ(pages_resident(slots, SLOTS), 1);
	TAP_OK(slots[2 * PAGE - 1] == 7);
	machine->ops->window_release(machine, base, MF_MIB);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_populate_touches_on_old_kernels)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *base;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, MF_MIB, PAGE, &base) == 0);
	advice_fails(MADV_POPULATE_WRITE, EINVAL, 1, 0);
	TAP_OK(machine->ops->host_populate(machine, base, SLOTS) == 0);
	TAP_OK(machine->ops->host_populate(machine, (char *)base + SLOTS, SLOTS) == 0);
	TAP_EQ(advice_calls, 1);
	advice_fails(0, 0, 0, 0);
	TAP_EQ(pages_resident(base, 2 * SLOTS), 2 * SLOTS / PAGE);
	machine->ops->window_release(machine, base, MF_MIB);
	mf_linux_destroy(machine);
}

/* Strict overcommit refuses to make memory writable; here mprotect() does. */
TAP_TEST(linux_populate_reports_refused_writability)
{
	struct mf_machine *machine = machine_new(MF_LINUX_WINDOWS_READ_ONLY, 0);
	void *base;
	int error;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, 16 * MF_MIB, 2 * MF_MIB, &base) == 0);
	protect_fails = true;
	error = machine->ops->host_populate(machine, base, SLOTS);
	protect_fails = false;
	TAP_OK(error == -MF_ENOMEM);
	TAP_OK(is_zero(base, SLOTS));
	TAP_OK(machine->ops->host_populate(machine, base, SLOTS) == 0);
	machine->ops->window_release(machine, base, 16 * MF_MIB);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_window_falls_back_to_read_only)
{
	struct mf_machine *machine = machine_new(0, 0);
	void *base;
	int error;

	TAP_REQUIRE(machine);
	protect_fails = true;
	error = machine->ops->window_reserve(machine, 16 * MF_MIB, 2 * MF_MIB, &base);
	protect_fails = false;
	TAP_REQUIRE(error == 0);
	TAP_OK(is_zero(base, SLOTS));
	TAP_OK(machine->ops->host_populate(machine, base, SLOTS) == 0);
	memset(base, 1, SLOTS);
	machine->ops->window_release(machine, base, 16 * MF_MIB);
	mf_linux_destroy(machine);
}

/* ---- Threads --------------------------------------------------------------------------------------------------------
 */

enum { NR_THREADS = 8 };

static struct mf_machine *shared_machine;
static pthread_barrier_t barrier;
static atomic_uint nr_refused;

static void *thread_takes_index(void *arg)
{
	unsigned *index = arg;
	int error = mf_linux_thread_register(shared_machine);

	*index = error ? ~0u : shared_machine->ops->cpu(shared_machine);
	if (error == -MF_E2BIG)
		atomic_fetch_add(&nr_refused, 1);
	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < 100; i++)
		shared_machine->ops->relax(shared_machine);
	/* Not unregistered: the end of the thread does it. */
	return NULL;
}

static void threads_run(unsigned index[NR_THREADS])
{
	pthread_t threads[NR_THREADS];

	atomic_store(&nr_refused, 0);
	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, thread_takes_index, &index[i]);
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
}

TAP_TEST(linux_threads_have_indexes_of_their_own)
{
	unsigned index[NR_THREADS];

	/* One for this thread; so one thread too many. */
	shared_machine = machine_new(0, NR_THREADS);
	TAP_REQUIRE(shared_machine);
	TAP_EQ(shared_machine->ops->cpu(shared_machine), 0);
	for (unsigned round = 0; round < 20; round++) {
		unsigned seen = 1;

		threads_run(index);
		TAP_EQ(atomic_load(&nr_refused), 1);
		for (unsigned i = 0; i < NR_THREADS; i++)
			seen |= index[i] < NR_THREADS ? 1u << index[i] : 0;
		TAP_EQ(seen, (1u << NR_THREADS) - 1);
	}
	mf_linux_destroy(shared_machine);
}

TAP_TEST(linux_cpu_panics_for_unregistered_thread)
{
	struct mf_machine *machine = machine_new(0, 0);

	TAP_REQUIRE(machine);
	TAP_OK(mf_linux_thread_register(machine) == -MF_EEXIST);
	TAP_EQ(machine->ops->cpu(machine), 0);
	TAP_OK(mf_linux_thread_unregister(machine) == 0);
	TAP_OK(mf_linux_thread_unregister(machine) == -MF_ENOENT);
	TAP_OK(TAP_PANICS(machine->ops->cpu(machine)));
	TAP_OK(mf_linux_thread_register(machine) == 0);
	TAP_EQ(machine->ops->cpu(machine), 0);
	mf_linux_destroy(machine);
}

static void *thread_registers_with_both(void *arg)
{
	struct mf_machine **machines = arg;
	bool good = mf_linux_thread_register(machines[1]) == 0 && mf_linux_thread_register(machines[0]) == 0;

	for (unsigned i = 0; good && i < 10; i++)
		good = machines[0]->ops->cpu(machines[0]) == 1 && machines[1]->ops->cpu(machines[1]) == 1;
	return good ? arg : NULL;
}

TAP_TEST(linux_machines_keep_apart)
{
	struct mf_machine *machines[2] = {machine_new(0, 2), machine_new(0, 2)};
	pthread_t thread;
	void *result = NULL;

	TAP_REQUIRE(machines[0] && machines[1]);
	pthread_create(&thread, NULL, thread_registers_with_both, machines);
	pthread_join(thread, &result);
	TAP_OK(result != NULL);
	for (unsigned i = 0; i < 10; i++) {
		TAP_EQ(machines[i % 2]->ops->cpu(machines[i % 2]), 0);
	}
	mf_linux_destroy(machines[0]);
	TAP_EQ(machines[1]->ops->cpu(machines[1]), 0);
	mf_linux_destroy(machines[1]);
}

static void *thread_outlives_machine(void *arg)
{
	bool *good = arg;

	*good = mf_linux_thread_register(shared_machine) == 0;
	pthread_barrier_wait(&barrier); /* the machine is replaced between the two */
	pthread_barrier_wait(&barrier);
	*good = *good && mf_linux_thread_register(shared_machine) == 0 && shared_machine->ops->cpu(shared_machine) == 1;
	return NULL;
}

TAP_TEST(linux_thread_may_outlive_machine)
{
	pthread_t thread;
	bool good = false;

	shared_machine = machine_new(0, 0);
	TAP_REQUIRE(shared_machine);
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, thread_outlives_machine, &good);
	pthread_barrier_wait(&barrier);
	mf_linux_destroy(shared_machine);
	shared_machine = machine_new(0, 0);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	TAP_OK(good);
	mf_linux_destroy(shared_machine);
	pthread_barrier_destroy(&barrier);
}

/* ---- Fork
 * ------------------------------------------------------------------------------------------------------------ */

static int child_look(struct mf_machine *machine, char *slots, const char *data)
{
	struct mf_linux_memory none = {.kind = MF_LINUX_NONE, .start_pfn = 1 << 20, .size_bytes = PAGE};

	if (machine->ops->may_use(machine))
		return 1;
	if (!is_zero(slots, SLOTS))
		return 2;
	if (mf_linux_memory_add(machine, &none, NULL, 0) != -MF_EPERM)
		return 3;
	if (mf_linux_memory_remove(machine, 0) != -MF_EPERM)
		return 4;
	if (data[0] != 42)
		return 5;
	mf_linux_destroy(machine);
	return 0;
}

TAP_TEST(linux_child_may_not_use_the_machine)
{
	struct mf_machine *machine = machine_new(0, 0);
	struct mf_linux_memory memory = {.kind = MF_LINUX_MEMFD, .start_pfn = 0, .size_bytes = MF_MIB};
	void *base;
	char *data;
	int status = -1;
	pid_t child;

	TAP_REQUIRE(machine);
	TAP_REQUIRE(machine->ops->window_reserve(machine, MF_MIB, PAGE, &base) == 0);
	TAP_REQUIRE(machine->ops->host_populate(machine, base, SLOTS) == 0);
	TAP_REQUIRE(mf_linux_memory_add(machine, &memory, NULL, 0) == 0);
	memset(base, 0x5a, SLOTS);
	data = machine->ops->data(machine, 0, 1);
	TAP_REQUIRE(data);
	data[0] = 42;
	child = fork();
	if (child == 0)
		_exit(child_look(machine, base, data));
	TAP_REQUIRE(child > 0);
	waitpid(child, &status, 0);
	TAP_EQ(status, 0);
	TAP_OK(machine->ops->may_use(machine));
	TAP_OK(*(char *)base == 0x5a);
	machine->ops->window_release(machine, base, MF_MIB);
	mf_linux_destroy(machine);
}

TAP_MAIN()
