/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_linux_memory.c - described memory in user space: every kind that this host has, the sentence for every kind of
 * bad backing, and readers of data() beside changes.
 *
 * Grows the host's pool of huge pages by four where it may, and gives them back.  Says nothing about windows and
 * threads: test_linux.c does.
 */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memfold/linux.h>

#include "tests/tap.h"

enum { PAGE = 4096 };

static char message[512];

static struct mf_machine *machine_new(void)
{
	struct mf_machine *machine = NULL;

	return mf_linux_create(NULL, &machine) == 0 ? machine : NULL;
}

static int memory_add(struct mf_machine *machine, struct mf_linux_memory memory)
{
	message[0] = '\0';
	return mf_linux_memory_add(machine, &memory, message, sizeof(message));
}

/* Refused with this error and a sentence that holds `word`; nothing was added at the frame. */
static bool memory_refused(struct mf_machine *machine, struct mf_linux_memory memory, int error, const char *word)
{
	int result = memory_add(machine, memory);

	TAP_NOTE("%s", message);
	return result == -error && strstr(message, word) && message[strlen(message) - 1] == '.' &&
	       mf_linux_memory_remove(machine, memory.start_pfn) == -MF_ENOENT;
}

/* An open file without a name, of this size. */
static int file_new(off_t size)
{
	char path[] = "/tmp/memfold-test-XXXXXX";
	int fd = mkstemp(path);

	if (fd < 0)
		return -1;
	unlink(path);
	if (ftruncate(fd, size) == 0)
		return fd;
	close(fd);
	return -1;
}

/* ---- Described memory: what works
 * -------------------------------------------------------------------------------------- */

/* Both ends of what was added can be written and read back, and the edges are edges. */
static bool memory_works(struct mf_machine *machine, struct mf_linux_memory memory)
{
	uint64_t nr = memory.size_bytes / PAGE, align = memory.size_bytes < MF_GIB ? 2 * MF_MIB : MF_GIB;
	char *data;

	if (memory_add(machine, memory) != 0) {
		TAP_NOTE("%s", message);
		return false;
	}
	data = machine->ops->data(machine, memory.start_pfn, nr);
	if (!data || (memory.kind != MF_LINUX_MAPPING && ((uintptr_t)data - memory.start_pfn * PAGE) % align != 0))
		return false;
	data[0] = 1;
	data[memory.size_bytes - 1] = 2;
	return data[0] == 1 && machine->ops->data(machine, memory.start_pfn + nr - 1, 1) == data + (nr - 1) * PAGE &&
	       !machine->ops->data(machine, memory.start_pfn + 1, nr) &&
	       !machine->ops->data(machine, memory.start_pfn + nr, 1) &&
	       mf_linux_memory_remove(machine, memory.start_pfn) == 0 &&
	       !machine->ops->data(machine, memory.start_pfn, 1);
}

/* Then private memory counts against the host's limit from when it is mapped, touched or not. */
static bool overcommit_is_strict(void)
{
	FILE *file = fopen("/proc/sys/vm/overcommit_memory", "re");
	int mode = file ? fgetc(file) : EOF;

	if (file)
		fclose(file);
	return mode == '2';
}

TAP_TEST(linux_memory_of_fresh_kinds)
{
	struct mf_machine *machine = machine_new();
	struct mf_linux_memory memory = {.start_pfn = 0x100003, .size_bytes = 5 * MF_MIB};

	TAP_REQUIRE(machine);
	memory.kind = MF_LINUX_MEMFD;
	TAP_OK(memory_works(machine, memory));
	memory.kind = MF_LINUX_ANON;
	TAP_OK(memory_works(machine, memory));
	memory.start_pfn = 3 * (MF_GIB / PAGE);
	memory.size_bytes = 64 * MF_GIB;
	TAP_OK(memory_works(machine, memory) ||
	       (overcommit_is_strict() && memory_refused(machine, memory, MF_ENOMEM, "refuses to map 68719476736 ")));
	memory.kind = MF_LINUX_MEMFD;
	TAP_OK(memory_works(machine, memory));
	memory.kind = MF_LINUX_NONE;
	TAP_OK(memory_add(machine, memory) == 0);
	TAP_OK(machine->ops->data(machine, memory.start_pfn, 1) == NULL);
	TAP_OK(mf_linux_memory_remove(machine, memory.start_pfn + 1) == -MF_ENOENT);
	TAP_OK(mf_linux_memory_remove(machine, memory.start_pfn) == 0);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_memory_of_a_file)
{
	struct mf_machine *machine = machine_new();
	struct mf_linux_memory memory = {
		.kind = MF_LINUX_FILE, .start_pfn = 8, .size_bytes = 2 * PAGE, .offset_bytes = PAGE};
	char path[64], bytes[2] = {0};
	int fd = file_new(3 * PAGE);

	TAP_REQUIRE(machine && fd >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memory.path = path;
	TAP_OK(memory_works(machine, memory));
	TAP_OK(pread(fd, bytes, 1, PAGE) == 1 && pread(fd, bytes + 1, 1, 3 * PAGE - 1) == 1);
	TAP_OK(bytes[0] == 1 && bytes[1] == 2);
	memory.kind = MF_LINUX_FD;
	memory.fd = fd;
	TAP_OK(memory_works(machine, memory));
	TAP_OK(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_memory_of_a_mapping)
{
	struct mf_machine *machine = machine_new();
	char *mapping = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mf_linux_memory memory = {
		.kind = MF_LINUX_MAPPING, .start_pfn = 8, .size_bytes = 4 * PAGE, .mapping = mapping};

	TAP_REQUIRE(machine && mapping != MAP_FAILED);
	TAP_OK(memory_works(machine, memory));
	TAP_EQ(mapping[4 * PAGE - 1], 2);
	memory.mapping = mapping + 1;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "multiple"));
	memory.mapping = NULL;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "multiple"));
	memory.mapping = mapping;
	mprotect(mapping + 2 * PAGE, PAGE, PROT_READ);
	TAP_OK(memory_refused(machine, memory, MF_EACCES, "not readable and writable"));
	munmap(mapping + 3 * PAGE, PAGE);
	memory.mapping = mapping + 3 * PAGE;
	memory.size_bytes = PAGE;
	TAP_OK(memory_refused(machine, memory, MF_EFAULT, "not mapped"));
	munmap(mapping, 3 * PAGE);
	mf_linux_destroy(machine);
}

/* ---- Huge pages
 * ------------------------------------------------------------------------------------------------------- */

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static long pool_size(void)
{
	FILE *file = fopen(POOL, "re");
	long nr = -1;

	if (file && fscanf(file, "%ld", &nr) != 1)
		nr = -1;
	if (file)
		fclose(file);
	return nr;
}

static bool pool_resize(long nr)
{
	FILE *file = fopen(POOL, "we");

	if (!file)
		return false;
	fprintf(file, "%ld\n", nr);
	return fclose(file) == 0 && pool_size() == nr;
}

TAP_TEST(linux_memory_of_huge_pages)
{
	struct mf_linux_memory memory = {
		.kind = MF_LINUX_HUGETLBFS, .start_pfn = 512, .size_bytes = 8 * MF_MIB, .huge_page_bytes = 2 * MF_MIB};
	struct mf_machine *machine;
	int turn = open(POOL, O_RDONLY); /* the pool is the host's: other flavours of this test wait */
	long before;

	if (turn < 0 || flock(turn, LOCK_EX) != 0)
		TAP_SKIP("this host has no huge pages of 2 MiB");
	before = pool_size();
	if (!pool_resize(before + 4)) {
		pool_resize(before);
		close(turn);
		TAP_SKIP("the pool of huge pages cannot be grown here");
	}
	machine = machine_new();
	TAP_OK(machine && memory_works(machine, memory));
	/* Reserved, though untouched: a second one of the same size must wait. */
	TAP_OK(memory_add(machine, memory) == 0);
	memory.start_pfn += 4 * 512;
	memory.size_bytes += (uint64_t)before * 2 * MF_MIB;
	TAP_OK(memory_refused(machine, memory, MF_ENOMEM, "pages are needed"));
	mf_linux_destroy(machine);
	TAP_OK(pool_resize(before));
	close(turn);
}

TAP_TEST(linux_memory_refuses_bad_huge_pages)
{
	struct mf_linux_memory memory = {
		.kind = MF_LINUX_HUGETLBFS, .start_pfn = 512, .size_bytes = 3 * MF_MIB, .huge_page_bytes = 2 * MF_MIB};
	struct mf_machine *machine = machine_new();

	TAP_REQUIRE(machine);
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "the size, 3145728 bytes, is not a multiple"));
	memory.size_bytes = 4 * MF_MIB;
	memory.start_pfn = 1;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "the physical address"));
	memory.start_pfn = 512;
	memory.huge_page_bytes = 3 * MF_MIB;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "power of two"));
	memory.huge_page_bytes = 0;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "power of two"));
	memory.huge_page_bytes = 1; /* its log2, 0, is the kernel's word for the default size */
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "no size of a huge page"));
	memory.huge_page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "no size of a huge page"));
	memory.start_pfn = 0;
	memory.huge_page_bytes = 4 * MF_MIB;
	TAP_OK(memory_refused(machine, memory, MF_EOPNOTSUPP, "no huge pages of that size"));
	if (pool_size() >= 0) {
		memory.huge_page_bytes = 2 * MF_MIB;
		memory.size_bytes = 64 * MF_TIB;
		TAP_OK(memory_refused(machine, memory, MF_ENOMEM, "memory of 2048 KiB huge pages"));
	}
	mf_linux_destroy(machine);
}

/* ---- Described memory: what is refused
 * ---------------------------------------------------------------------------------- */

TAP_TEST(linux_memory_refuses_bad_ranges)
{
	struct mf_linux_memory memory = {.kind = MF_LINUX_NONE, .start_pfn = 16, .size_bytes = 0};
	struct mf_machine *machine = machine_new();
	char tiny[8] = "1234567";

	TAP_REQUIRE(machine);
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "no size"));
	memory.size_bytes = PAGE + 1;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "not a multiple"));
	memory.size_bytes = 2 * PAGE;
	memory.start_pfn = UINT64_MAX / PAGE;
	TAP_OK(memory_refused(machine, memory, MF_EOVERFLOW, "ends beyond"));
	memory.start_pfn = UINT64_MAX;
	TAP_OK(memory_refused(machine, memory, MF_EOVERFLOW, "ends beyond"));
	memory.start_pfn = 16;
	memory.kind = (enum mf_linux_memory_kind)99;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "not known"));
	TAP_OK(mf_linux_memory_add(machine, &memory, tiny, 4) == -MF_EINVAL);
	TAP_OK(strcmp(tiny, "Mem") == 0 && tiny[4] == '5');
	TAP_OK(mf_linux_memory_add(machine, &memory, NULL, 0) == -MF_EINVAL);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_memory_refuses_overlaps)
{
	struct mf_linux_memory memory = {.kind = MF_LINUX_ANON, .start_pfn = 16, .size_bytes = 16 * PAGE};
	struct mf_machine *machine = machine_new();

	TAP_REQUIRE(machine);
	TAP_OK(memory_add(machine, memory) == 0);
	memory.start_pfn = 32;
	TAP_OK(memory_add(machine, memory) == 0);
	TAP_OK(machine->ops->data(machine, 31, 1) && machine->ops->data(machine, 32, 1));
	TAP_OK(!machine->ops->data(machine, 31, 2));
	TAP_OK(memory_add(machine, memory) == -MF_EEXIST);
	memory.start_pfn = 47;
	TAP_OK(memory_refused(machine, memory, MF_EEXIST, "overlaps"));
	memory.start_pfn = 1;
	TAP_OK(memory_refused(machine, memory, MF_EEXIST, "overlaps"));
	memory.start_pfn = 0;
	TAP_OK(memory_add(machine, memory) == 0);
	TAP_OK(machine->ops->data(machine, 0, 16) && !machine->ops->data(machine, 0, 17));
	mf_linux_destroy(machine);
}

TAP_TEST(linux_memory_refuses_bad_files)
{
	struct mf_linux_memory memory = {.kind = MF_LINUX_FILE, .start_pfn = 8, .size_bytes = 2 * PAGE};
	struct mf_machine *machine = machine_new();
	char path[64];
	int fd = file_new(2 * PAGE), pipes[2];

	TAP_REQUIRE(machine && fd >= 0 && pipe(pipes) == 0);
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "path is missing"));
	memory.path = "/nonexistent/file";
	TAP_OK(memory_refused(machine, memory, MF_ENOENT, "no such file"));
	memory.path = "/tmp";
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "is a directory"));
	memory.path = "/dev/null";
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "not a regular file"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pipes[0]);
	memory.path = path;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "not a regular file"));
	memory.path = "/proc/version";
	TAP_OK(memory_refused(machine, memory, geteuid() == 0 ? MF_ERANGE : MF_EACCES, "/proc/version"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memory.path = path;
	memory.offset_bytes = 1;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "the offset, 1 bytes"));
	memory.offset_bytes = PAGE;
	TAP_OK(memory_refused(machine, memory, MF_ERANGE, "has 8192 bytes"));
	memory.offset_bytes = UINT64_MAX - PAGE + 1;
	TAP_OK(memory_refused(machine, memory, MF_EOVERFLOW, "beyond any file"));
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_memory_refuses_bad_descriptors)
{
	struct mf_linux_memory memory = {.kind = MF_LINUX_FD, .start_pfn = 8, .size_bytes = PAGE};
	struct mf_machine *machine = machine_new();
	int sealed = memfd_create("sealed", MFD_ALLOW_SEALING);

	TAP_REQUIRE(machine && sealed >= 0);
	memory.fd = -1;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "not an open file"));
	memory.fd = open("/tmp", O_RDONLY | O_DIRECTORY);
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "is a directory"));
	close(memory.fd);
	memory.fd = open("/proc/self/exe", O_RDONLY);
	TAP_OK(memory_refused(machine, memory, MF_EACCES, "not open for reading and writing"));
	close(memory.fd);
	memory.fd = open("/dev/null", O_RDWR);
	TAP_OK(memory_refused(machine, memory, MF_ENODEV, "no device-dax"));
	close(memory.fd);
	TAP_OK(ftruncate(sealed, PAGE) == 0 && fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE) == 0);
	memory.fd = sealed;
	TAP_OK(memory_refused(machine, memory, MF_EACCES, "does not allow a writable mapping"));
	close(sealed);
	mf_linux_destroy(machine);
}

/* A device-dax itself needs hardware that most hosts lack; what is none must be told apart everywhere. */
TAP_TEST(linux_memory_refuses_what_is_no_dax)
{
	struct mf_linux_memory memory = {.kind = MF_LINUX_DAX, .start_pfn = 8, .size_bytes = PAGE};
	struct mf_machine *machine = machine_new();
	char path[64];
	int fd = file_new(PAGE);

	TAP_REQUIRE(machine && fd >= 0);
	memory.path = "/dev/null";
	TAP_OK(memory_refused(machine, memory, MF_ENODEV, "no device-dax"));
	memory.path = "/dev/dax99.99";
	TAP_OK(memory_refused(machine, memory, MF_ENOENT, "no such file"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memory.path = path;
	TAP_OK(memory_refused(machine, memory, MF_EINVAL, "not a character device"));
	close(fd);
	mf_linux_destroy(machine);
}

TAP_TEST(linux_memories_fill_and_empty_the_table)
{
	struct mf_linux_memory memory = {.kind = MF_LINUX_NONE, .size_bytes = PAGE};
	struct mf_machine *machine = machine_new();
	bool good = machine != NULL;

	/* An order that is neither up nor down. */
	for (uint64_t i = 0; good && i < MF_LINUX_MEMORIES_MAX; i++) {
		memory.start_pfn = 2 * (i * 389 % MF_LINUX_MEMORIES_MAX);
		good = memory_add(machine, memory) == 0;
	}
	TAP_REQUIRE(good);
	memory.start_pfn = 1;
	TAP_OK(memory_refused(machine, memory, MF_E2BIG, "at most 1024"));
	for (uint64_t i = 0; good && i < MF_LINUX_MEMORIES_MAX; i++)
		good = mf_linux_memory_remove(machine, 2 * (i * 253 % MF_LINUX_MEMORIES_MAX)) == 0;
	TAP_OK(good);
	mf_linux_destroy(machine);
}

static struct mf_machine *shared_machine;
static atomic_bool reader_ends;

static void *thread_reads_data(void *arg)
{
	char *expected = arg;
	bool good = true;

	while (good && !atomic_load(&reader_ends))
		good = shared_machine->ops->data(shared_machine, 1000, 1) == expected;
	return good ? arg : NULL;
}

TAP_TEST(linux_data_is_right_while_memories_change)
{
	struct mf_linux_memory fixed = {.kind = MF_LINUX_ANON, .start_pfn = 1000, .size_bytes = PAGE};
	struct mf_linux_memory moving = {.kind = MF_LINUX_NONE, .size_bytes = PAGE};
	pthread_t thread;
	void *result = NULL;
	bool good = true;

	shared_machine = machine_new();
	TAP_REQUIRE(shared_machine && memory_add(shared_machine, fixed) == 0);
	atomic_store(&reader_ends, false);
	pthread_create(&thread, NULL, thread_reads_data, shared_machine->ops->data(shared_machine, 1000, 1));
	for (unsigned round = 0; good && round < 2000; round++) {
		moving.start_pfn = round * 7 % 1000;
		good = memory_add(shared_machine, moving) == 0;
		if (round % 8 == 7)
			for (unsigned i = round - 7; good && i <= round; i++)
				good = mf_linux_memory_remove(shared_machine, i * 7 % 1000) == 0;
	}
	atomic_store(&reader_ends, true);
	pthread_join(thread, &result);
	TAP_OK(good);
	TAP_OK(result != NULL);
	mf_linux_destroy(shared_machine);
}

TAP_MAIN()
