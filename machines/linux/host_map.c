/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_map.c - from an open backing, or the caller's own mapping, to the address where the described memory stands.
 *
 * Owns nothing that outlives a call but the mapping it returns.  Keeps: huge pages are reserved now (no MAP_NORESERVE),
 * so that an exhausted pool refuses the mapping and nobody meets SIGBUS.  Never touches the memory.
 */
#include "machines/linux/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Threads may take addresses between our looking for free ones and using them. */
enum { PLACE_TRIES = 16 };

static int size_check(const struct linux_backing *backing)
{
	const struct mf_linux_memory *memory = backing->memory;
	uint64_t end_bytes;

	if (!mf_add_fits(memory->offset_bytes, memory->size_bytes, &end_bytes) || end_bytes > INT64_MAX)
		return linux_fail(backing->report, MF_EOVERFLOW, "%s: offset and size together are beyond any file.",
				  backing->name);
	if (end_bytes > backing->limit_bytes)
		return linux_fail(backing->report, MF_ERANGE,
				  "%s has %llu bytes; %llu bytes from offset %llu need %llu.", backing->name,
				  (unsigned long long)backing->limit_bytes, (unsigned long long)memory->size_bytes,
				  (unsigned long long)memory->offset_bytes, (unsigned long long)end_bytes);
	return 0;
}

/*
 * A free address range that agrees with the physical one modulo `align_bytes`; it may be taken by another thread at
 * once. NULL when there is none.
 */
static char *place_find(const struct linux_backing *backing, uint64_t align_bytes)
{
	uint64_t padded;
	void *raw;

	if (!mf_add_fits(backing->memory->size_bytes, align_bytes, &padded))
		return NULL;
	raw = mmap(NULL, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return NULL;
	munmap(raw, padded);
	return (char *)raw + ((backing->start_bytes - (uintptr_t)raw) & (align_bytes - 1));
}

static int map_error(const struct linux_backing *backing, int host_error)
{
	const struct mf_linux_memory *memory = backing->memory;
	unsigned long long size = memory->size_bytes;
	char path[96];
	uint64_t nr_free = 0;

	switch (host_error) {
	case EACCES:
	case EPERM:
		return linux_fail(backing->report, MF_EACCES, "%s does not allow a writable mapping: %s.",
				  backing->name, strerror(host_error));
	case ENOMEM:
		break;
	case EINVAL:
	case ENODEV:
		return linux_fail(backing->report, MF_EINVAL, "%s cannot be mapped: %s.", backing->name,
				  strerror(host_error));
	default:
		return linux_fail(backing->report, MF_EIO, "%s cannot be mapped: %s.", backing->name,
				  strerror(host_error));
	}
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
		 (unsigned long long)(backing->unit_bytes / MF_KIB));
	if (linux_number_read(path, &nr_free))
		return linux_fail(backing->report, MF_ENOMEM,
				  "%s: %llu pages are needed, %llu are free, some of which may be reserved.",
				  backing->name, size / backing->unit_bytes, (unsigned long long)nr_free);
	return linux_fail(backing->report, MF_ENOMEM, "%s: the host refuses to map %llu bytes: %s.", backing->name,
			  size, strerror(host_error));
}

static int backing_place(const struct linux_backing *backing, char **base)
{
	uint64_t size_bytes = backing->memory->size_bytes;
	uint64_t align_bytes = mf_max(size_bytes < MF_GIB ? 2 * MF_MIB : MF_GIB, backing->unit_bytes);
	int flags = backing->map_flags | MAP_FIXED_NOREPLACE;
	off_t offset = backing->fd >= 0 ? (off_t)backing->memory->offset_bytes : 0;
	int host_error = EEXIST;

	for (int tries = 0; tries < PLACE_TRIES && host_error == EEXIST; tries++) {
		char *place = place_find(backing, align_bytes);
		void *mapped;

		if (!place)
			return map_error(backing, ENOMEM);
		mapped = mmap(place, size_bytes, PROT_READ | PROT_WRITE, flags, backing->fd, offset);
		if (mapped == place) {
			*base = place;
			return 0;
		}
		/* Kernels before 4.17 take the place for a wish. */
		host_error = mapped == MAP_FAILED ? errno : EEXIST;
		if (mapped != MAP_FAILED)
			munmap(mapped, size_bytes);
	}
	return map_error(backing, host_error == EEXIST ? ENOMEM : host_error);
}

/* Adds a line of /proc/self/maps to what is known good from *at on; false when it shows a fault. */
static bool mapping_line_check(const char *line, uintptr_t *at, bool *is_writable)
{
	unsigned long start, end;
	char protection[5];

	if (sscanf(line, "%lx-%lx %4s", &start, &end, protection) != 3 || end <= *at)
		return true;
	if (start > *at)
		return false;
	*is_writable = protection[0] == 'r' && protection[1] == 'w';
	if (*is_writable)
		*at = end;
	return *is_writable;
}

/* The caller's mapping: it is all there, and may be read and written. */
static int mapping_check(const struct linux_backing *backing)
{
	const uintptr_t start = (uintptr_t)backing->memory->mapping;
	uintptr_t at = start, end;
	FILE *maps;
	char *line = NULL;
	size_t room = 0;
	bool is_writable = true;

	if (start == 0 || start % backing->unit_bytes != 0 ||
	    __builtin_add_overflow(start, backing->memory->size_bytes, &end))
		return linux_fail(backing->report, MF_EINVAL,
				  "%s: a mapping starts at a multiple of %llu bytes, not at %p.", backing->name,
				  (unsigned long long)backing->unit_bytes, backing->memory->mapping);
	maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return linux_fail(backing->report, MF_EIO, "%s: /proc/self/maps cannot be read to check it.",
				  backing->name);
	while (at < end && getline(&line, &room, maps) >= 0 && mapping_line_check(line, &at, &is_writable))
		continue;
	free(line);
	fclose(maps);
	if (at >= end)
		return 0;
	return linux_fail(backing->report, is_writable ? MF_EFAULT : MF_EACCES, "%s: at 0x%lx it is not %s.",
			  backing->name, (unsigned long)at, is_writable ? "mapped" : "readable and writable");
}

static int mapping_take(struct linux_backing *backing, char **base)
{
	int error;

	strcpy(backing->name, "the caller's mapping");
	error = linux_backing_units_check(backing);
	if (!error)
		error = mapping_check(backing);
	if (!error)
		*base = backing->memory->mapping;
	return error;
}

int linux_backing_map(const struct linux_machine *machine, const struct mf_linux_memory *memory,
		      const struct linux_report *report, char **base)
{
	unsigned shift = machine->machine.paging.page_shift;
	struct linux_backing backing = {
		.memory = memory,
		.report = report,
		.fd = -1,
		.start_bytes = memory->start_pfn << shift,
		.unit_bytes = (uint64_t)1 << shift,
	};
	int error;

	*base = NULL;
	if (memory->kind == MF_LINUX_NONE)
		return 0;
	if (memory->kind == MF_LINUX_MAPPING)
		return mapping_take(&backing, base);
	error = linux_backing_open(&backing);
	if (!error)
		error = linux_backing_units_check(&backing);
	if (!error && memory->kind != MF_LINUX_ANON)
		error = size_check(&backing);
	if (!error)
		error = backing_place(&backing, base);
	linux_backing_close(&backing);
	return error;
}
