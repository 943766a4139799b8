/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_mappings.c - how many mappings the process has and may have, and how aliases keep within that.
 *
 * An alias is a mapping of its own, and the host allows a process vm.max_map_count of them.  Two precautions, both
 * under linux_mutex:
 *
 *   allowance  what new aliases may use until the mappings are counted again: half of what a count found free beyond
 *              the share that is left to the rest of the process, and in the end all of it.  Counting reads a line for
 *              each mapping, so it is done seldom.  An estimate: others make mappings too, and the host has the last
 *              word.
 *   ballast    some mappings that serve nothing, in each machine that shares memory.  At its limit the host refuses to
 *              replace one mapping by another, so what must not fail (undoing) throws the ballast off first.
 */
#include "machines/linux/host.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* One in so many of the allowed mappings is left to the rest of the process. */
#define MAPPINGS_SPARE 64

/* What is undone needs one or two more at a time; near the limit less ballast will do. */
enum { BALLAST_MAPPINGS = 16, BALLAST_ENOUGH = 4 };

/* Counting takes tens of milliseconds where there are many; a caller that is refused again and again waits for none. */
#define REFUSAL_HOLDS_NS (100 * (uint64_t)1000000)

/* Of the process, as the limit is; under linux_mutex. */
static uint64_t allowance;
static uint64_t refused_ns; /* when a count had to refuse, 0: it did not */

static bool mappings_count(uint64_t *nr)
{
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char text[4096];
	uint64_t nr_lines = 0;
	ssize_t length;

	if (maps < 0)
		return false;
	while ((length = read(maps, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < length; i++)
			nr_lines += text[i] == '\n';
	close(maps);
	if (length < 0)
		return false;
	*nr = nr_lines;
	return true;
}

int mf_linux_mappings(uint64_t *used, uint64_t *limit)
{
	uint64_t nr_used, nr_allowed;

	if (!mappings_count(&nr_used) || !linux_number_read("/proc/sys/vm/max_map_count", &nr_allowed))
		return -MF_EIO;
	*used = nr_used;
	*limit = nr_allowed;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A host that does not say what it allows says so when it is asked for too much. */
static bool allowance_renew_locked(uint64_t nr)
{
	uint64_t used, limit, spare, nr_free;

	if (refused_ns != 0 && now_ns() - refused_ns < REFUSAL_HOLDS_NS)
		return false;
	refused_ns = 0;
	if (mf_linux_mappings(&used, &limit) != 0) {
		allowance = nr;
		return true;
	}
	spare = limit / MAPPINGS_SPARE;
	nr_free = limit - mf_min(limit, used + spare);
	allowance = mf_max(nr, nr_free < spare ? nr_free : nr_free / 2);
	if (nr <= nr_free)
		return true;
	allowance = nr_free;
	refused_ns = now_ns();
	return false;
}

bool linux_mappings_allow_locked(uint64_t nr)
{
	return nr <= allowance || allowance_renew_locked(nr);
}

void linux_mappings_changed_locked(uint64_t nr_before, uint64_t nr_after)
{
	allowance += nr_before;
	allowance -= mf_min(allowance, nr_after);
}

void linux_mappings_refused_locked(void)
{
	allowance = 0;
}

bool linux_ballast_drop_locked(struct linux_machine *machine)
{
	bool had = machine->ballast != NULL;

	if (had)
		munmap(machine->ballast, BALLAST_MAPPINGS * machine->host_page_bytes);
	machine->ballast = NULL;
	return had;
}

/* Neighbouring pages that differ in protection are mappings of their own. */
bool linux_ballast_have_locked(struct linux_machine *machine)
{
	uint64_t page_bytes = machine->host_page_bytes;
	unsigned nr = 0;
	char *ballast;

	if (machine->ballast)
		return true;
	ballast = mmap(NULL, BALLAST_MAPPINGS * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		       0);
	if (ballast == MAP_FAILED)
		return false;
	while (nr < BALLAST_MAPPINGS && mprotect(ballast + nr * page_bytes, page_bytes, PROT_READ) == 0)
		nr += 2;
	machine->ballast = ballast;
	return nr >= BALLAST_ENOUGH || !linux_ballast_drop_locked(machine);
}
