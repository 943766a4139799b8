/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.c - the linux machine itself: creation and end, the table of operations, control memory, the owner, and what a
 * broken contract does in a hosted program.
 *
 * Owns the list of live machines and linux_mutex.  Keeps: a machine works in the process that created it and in no
 * child. Windows, threads and described memory are in the files beside this one.
 */
#include "machines/linux/host.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Control memory from this size on is mapped, so that large tables cost what they use. */
#define META_MAPPED_FROM (64 * MF_KIB)

static pthread_mutex_t linux_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct mf_list live_machines = {&live_machines, &live_machines};
static uint64_t last_id;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;
static int process_error;

void linux_lock(void)
{
	pthread_mutex_lock(&linux_mutex);
}

void linux_unlock(void)
{
	pthread_mutex_unlock(&linux_mutex);
}

static void panic_default(void *ctx, const char *sentence)
{
	(void)ctx;
	fprintf(stderr, "%s\n", sentence);
	abort();
}

/* Before main(), so that it never replaces a hook that the program set. */
__attribute__((constructor)) static void panic_default_install(void)
{
	mf_panic_default_set(panic_default);
}

/* linux_mutex was taken before the fork, so nothing is halfway. */
static void child_start(void)
{
	for (struct mf_list *at = live_machines.next; at != &live_machines; at = at->next)
		linux_windows_forked_locked(mf_container_of(at, struct linux_machine, node));
	linux_unlock();
}

static void process_init(void)
{
	process_error = linux_thread_key_create();
	if (process_error == 0 && pthread_atfork(linux_lock, linux_unlock, child_start) != 0)
		process_error = -MF_ENOMEM;
}

struct linux_machine *linux_find_locked(uint64_t id)
{
	for (struct mf_list *at = live_machines.next; at != &live_machines; at = at->next) {
		struct linux_machine *machine = mf_container_of(at, struct linux_machine, node);

		if (machine->id == id)
			return machine;
	}
	return NULL;
}

bool linux_number_read(const char *path, uint64_t *value)
{
	FILE *file = fopen(path, "re");
	unsigned long long number;
	bool found;

	if (!file)
		return false;
	found = fscanf(file, "%llu", &number) == 1;
	fclose(file);
	if (found)
		*value = number;
	return found;
}

uint64_t mf_linux_available_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long kib = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file) && sscanf(line, "MemAvailable: %llu", &kib) != 1)
		continue;
	fclose(file);
	return kib * MF_KIB;
}

/* ---- Operations ------------------------------------------------------------------------------------------ */

static void *linux_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	size_t rounded;
	void *memory;

	if (size_bytes > SIZE_MAX - 63)
		return NULL;
	rounded = mf_round_up(size_bytes, 64);
	if (rounded >= META_MAPPED_FROM) {
		memory = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			return NULL;
	} else {
		memory = aligned_alloc(64, rounded ? rounded : 64);
		if (!memory)
			return NULL;
		memset(memory, 0, rounded);
	}
	atomic_fetch_add_explicit(&linux_machine_of(m)->meta_bytes, rounded, memory_order_relaxed);
	return memory;
}

static void linux_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	size_t rounded = mf_round_up(size_bytes, 64);

	if (!memory)
		return;
	atomic_fetch_sub_explicit(&linux_machine_of(m)->meta_bytes, rounded, memory_order_relaxed);
	if (rounded >= META_MAPPED_FROM)
		munmap(memory, rounded);
	else
		free(memory);
}

bool linux_may_use(struct mf_machine *m)
{
	return atomic_load_explicit(linux_machine_of(m)->owner, memory_order_relaxed) != 0;
}

static const struct mf_machine_ops linux_ops = {
	.name = "linux",
	.meta_alloc = linux_meta_alloc,
	.meta_free = linux_meta_free,
	.window_reserve = linux_window_reserve,
	.window_release = linux_window_release,
	.host_populate = linux_host_populate,
	.host_discard = linux_host_discard,
	.host_share = linux_host_share,
	.host_alias = linux_host_alias,
	.host_unalias = linux_host_unalias,
	.cpu = linux_cpu,
	.relax = linux_relax,
	.may_use = linux_may_use,
	.data = linux_data,
};

struct linux_machine *linux_machine_checked(struct mf_machine *m)
{
	MF_PANIC_IF(m->ops != &linux_ops, "memfold: a linux call was given a machine of kind \"%s\".", m->ops->name);
	return linux_machine_of(m);
}

/* ---- Creation and end --------------------------------------------------------------------------------------- */

static int config_resolve(const struct mf_linux_config *asked, struct mf_linux_config *config)
{
	const unsigned known = MF_LINUX_WINDOWS_READ_ONLY | MF_LINUX_POPULATE_BY_TOUCH;
	unsigned host_shift = mf_log2((uint64_t)sysconf(_SC_PAGESIZE));

	*config = asked ? *asked : (struct mf_linux_config){0};
	if (config->page_shift == 0)
		config->page_shift = host_shift;
	if (config->max_threads == 0)
		config->max_threads = MF_LINUX_THREADS_DEFAULT;
	if (config->page_shift < host_shift || config->page_shift > 16 || config->max_threads > MF_CPUS_MAX ||
	    (config->flags & ~known) != 0)
		return -MF_EINVAL;
	return 0;
}

/* The page whose first word tells the owner (1) from a forked child (0), at no cost per call. */
static int owner_page_create(uint64_t page_bytes, atomic_uint **owner)
{
	void *page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -MF_ENOMEM;
	if (madvise(page, page_bytes, MADV_WIPEONFORK) != 0) {
		int error = errno == EINVAL ? MF_EOPNOTSUPP : MF_ENOMEM;

		munmap(page, page_bytes);
		return -error;
	}
	*owner = page;
	atomic_init(*owner, 1);
	return 0;
}

static void machine_init(struct linux_machine *machine, const struct mf_linux_config *config)
{
	uint64_t overcommit = 0;

	machine->machine = (struct mf_machine){
		.ops = &linux_ops,
		.paging = {.page_shift = config->page_shift},
		.backing = MF_WINDOW_HOST,
		.unbacked = MF_UNBACKED_ZERO,
		.nr_cpus = config->max_threads,
	};
	machine->host_page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	machine->is_strict = (config->flags & MF_LINUX_WINDOWS_READ_ONLY) != 0 ||
			     (linux_number_read("/proc/sys/vm/overcommit_memory", &overcommit) && overcommit == 2);
	atomic_init(&machine->populates_by_touch, (config->flags & MF_LINUX_POPULATE_BY_TOUCH) != 0);
	mf_list_init(&machine->windows);
	machine->file = -1;
}

static void machine_list_add(struct linux_machine *machine)
{
	linux_lock();
	machine->id = ++last_id;
	mf_list_push_back(&live_machines, &machine->node);
	linux_unlock();
}

static void machine_free(struct linux_machine *machine)
{
	linux_lock();
	mf_list_remove(&machine->node);
	linux_file_close_locked(machine);
	linux_ballast_drop_locked(machine);
	linux_unlock();
	munmap(machine->owner, machine->host_page_bytes);
	free(machine);
}

int mf_linux_create(const struct mf_linux_config *asked, struct mf_machine **out)
{
	struct mf_linux_config config;
	struct linux_machine *machine;
	int error = config_resolve(asked, &config);

	if (error)
		return error;
	pthread_once(&process_once, process_init);
	if (process_error)
		return process_error;
	machine = calloc(1, sizeof(*machine));
	if (!machine)
		return -MF_ENOMEM;
	machine_init(machine, &config);
	error = owner_page_create(machine->host_page_bytes, &machine->owner);
	if (error) {
		free(machine);
		return error;
	}
	machine_list_add(machine);
	error = mf_linux_thread_register(&machine->machine);
	if (error) {
		machine_free(machine);
		return error;
	}
	*out = &machine->machine;
	return 0;
}

void mf_linux_destroy(struct mf_machine *m)
{
	struct linux_machine *machine;
	uint64_t meta_bytes;

	if (!m)
		return;
	machine = linux_machine_checked(m);
	if (!linux_may_use(m))
		return;
	meta_bytes = atomic_load_explicit(&machine->meta_bytes, memory_order_relaxed);
	MF_PANIC_IF(
		!mf_list_is_empty(&machine->windows) || meta_bytes != 0,
		"memfold: mf_linux_destroy() while a map still uses the machine (%s, %llu bytes of control memory).",
		mf_list_is_empty(&machine->windows) ? "no window" : "a window", (unsigned long long)meta_bytes);
	linux_memories_unmap(machine);
	linux_thread_forget(machine->id);
	machine_free(machine);
}
