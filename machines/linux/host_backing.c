/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_backing.c - from a description of memory to an open file whose nature is known.
 *
 * Owns nothing.  Keeps: what is wrong with a backing is found here and said in one sentence, not later by SIGBUS. Never
 * writes to a file it was given.  Does not map: host_map.c.
 */
#include "machines/linux/host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

int linux_fail(const struct linux_report *report, int error, const char *format, ...)
{
	va_list args;

	if (report->text && report->size > 0) {
		va_start(args, format);
		vsnprintf(report->text, report->size, format, args);
		va_end(args);
	}
	return -error;
}

/* ---- What a file descriptor leads to ------------------------------------------------------------------------ */

static int regular_inspect(struct linux_backing *backing, const struct stat *status)
{
	struct statfs system;

	if (fstatfs(backing->fd, &system) != 0)
		return linux_fail(backing->report, MF_EIO, "%s: its file system does not answer: %s.", backing->name,
				  strerror(errno));
	if (system.f_type == HUGETLBFS_MAGIC)
		backing->unit_bytes = mf_max(backing->unit_bytes, (uint64_t)system.f_bsize);
	backing->limit_bytes = (uint64_t)status->st_size;
	return 0;
}

static int dax_inspect(struct linux_backing *backing, const struct stat *status)
{
	char path[128], link[PATH_MAX];
	unsigned device_major = major(status->st_rdev), device_minor = minor(status->st_rdev);
	uint64_t align_bytes;
	const char *subsystem;
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/subsystem", device_major, device_minor);
	length = readlink(path, link, sizeof(link) - 1);
	link[length > 0 ? length : 0] = '\0';
	subsystem = strrchr(link, '/');
	if (!subsystem || strcmp(subsystem, "/dax") != 0)
		return linux_fail(
			backing->report, MF_ENODEV,
			"%s is a character device but no device-dax; a device-dax is called /dev/dax0.0 or alike.",
			backing->name);
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/size", device_major, device_minor);
	if (!linux_number_read(path, &backing->limit_bytes))
		return linux_fail(backing->report, MF_EIO, "%s: %s does not tell its size.", backing->name, path);
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/align", device_major, device_minor);
	if (linux_number_read(path, &align_bytes) && mf_is_power_of_two(align_bytes))
		backing->unit_bytes = mf_max(backing->unit_bytes, align_bytes);
	return 0;
}

static int descriptor_inspect(struct linux_backing *backing)
{
	struct stat status;
	int access = fcntl(backing->fd, F_GETFL);

	if (access < 0 || fstat(backing->fd, &status) != 0)
		return linux_fail(backing->report, MF_EINVAL, "%s is not an open file.", backing->name);
	if (S_ISDIR(status.st_mode))
		return linux_fail(backing->report, MF_EINVAL, "%s is a directory; memory needs a file.", backing->name);
	if ((access & O_ACCMODE) != O_RDWR)
		return linux_fail(backing->report, MF_EACCES, "%s is not open for reading and writing.", backing->name);
	backing->map_flags = MAP_SHARED;
	if (S_ISREG(status.st_mode) && backing->memory->kind != MF_LINUX_DAX)
		return regular_inspect(backing, &status);
	if (S_ISCHR(status.st_mode) && backing->memory->kind != MF_LINUX_FILE)
		return dax_inspect(backing, &status);
	return linux_fail(backing->report, MF_EINVAL, "%s is not %s.", backing->name,
			  backing->memory->kind == MF_LINUX_DAX ? "a character device" : "a regular file");
}

/* ---- Units ------------------------------------------------------------------------------------------------ */

static int unit_check(const struct linux_backing *backing, const char *what, uint64_t value)
{
	if (value % backing->unit_bytes == 0)
		return 0;
	return linux_fail(backing->report, MF_EINVAL, "%s: %s, %llu bytes, is not a multiple of its unit, %llu bytes.",
			  backing->name, what, (unsigned long long)value, (unsigned long long)backing->unit_bytes);
}

int linux_backing_units_check(const struct linux_backing *backing)
{
	const struct mf_linux_memory *memory = backing->memory;
	int error = unit_check(backing, "the size", memory->size_bytes);

	if (!error)
		error = unit_check(backing, "the offset", memory->offset_bytes);
	if (!error)
		error = unit_check(backing, "the physical address", backing->start_bytes);
	return error;
}

/* ---- Opening, one function per kind --------------------------------------------------------------------------- */

static int path_open_error(const struct linux_backing *backing, int host_error)
{
	switch (host_error) {
	case ENOENT:
	case ENOTDIR:
		return linux_fail(backing->report, MF_ENOENT, "%s: there is no such file.", backing->name);
	case EISDIR:
		return linux_fail(backing->report, MF_EINVAL, "%s is a directory; memory needs a file.", backing->name);
	case EACCES:
	case EPERM:
	case EROFS:
	case ETXTBSY:
		return linux_fail(backing->report, MF_EACCES, "%s cannot be opened for reading and writing: %s.",
				  backing->name, strerror(host_error));
	case ENXIO:
	case ENODEV:
		return linux_fail(backing->report, MF_ENODEV, "%s: no device answers there.", backing->name);
	case ENOMEM:
		return linux_fail(backing->report, MF_ENOMEM, "%s: no memory to open it.", backing->name);
	default:
		return linux_fail(backing->report, MF_EIO, "%s cannot be opened: %s.", backing->name,
				  strerror(host_error));
	}
}

/* O_NONBLOCK and O_NOCTTY: a path that turns out to be a pipe or a terminal is refused, not waited for. */
static int path_open(struct linux_backing *backing)
{
	const char *path = backing->memory->path;

	if (!path || path[0] == '\0')
		return linux_fail(backing->report, MF_EINVAL, "Memory at frame 0x%llx: the path is missing.",
				  (unsigned long long)backing->memory->start_pfn);
	snprintf(backing->name, sizeof(backing->name), "\"%s\"", path);
	backing->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (backing->fd < 0)
		return path_open_error(backing, errno);
	return descriptor_inspect(backing);
}

/* A memfd of the size asked for; huge pages when extra_flags says so. */
static int memfd_open(struct linux_backing *backing, unsigned extra_flags)
{
	const struct mf_linux_memory *memory = backing->memory;

	backing->fd = memfd_create("memfold", MFD_CLOEXEC | extra_flags);
	if (backing->fd < 0 && extra_flags != 0 && (errno == ENODEV || errno == EINVAL || errno == ENOENT))
		return linux_fail(backing->report, MF_EOPNOTSUPP, "%s: the host has no huge pages of that size.",
				  backing->name);
	if (backing->fd < 0)
		return linux_fail(backing->report, MF_ENOMEM, "%s cannot be created: %s.", backing->name,
				  strerror(errno));
	if (memory->size_bytes > INT64_MAX || ftruncate(backing->fd, (off_t)memory->size_bytes) != 0)
		return linux_fail(backing->report, MF_ENOMEM, "%s: the host refuses %llu bytes of it.", backing->name,
				  (unsigned long long)memory->size_bytes);
	backing->limit_bytes = memory->size_bytes;
	backing->map_flags = MAP_SHARED | (extra_flags ? 0 : MAP_NORESERVE);
	return 0;
}

static int hugetlb_open(struct linux_backing *backing)
{
	uint64_t huge_page_bytes = backing->memory->huge_page_bytes;
	unsigned long long host_page_bytes = (unsigned long long)sysconf(_SC_PAGESIZE);
	int error;

	/* The kernel would take log2 = 0 for "of the default size". */
	if (!mf_is_power_of_two(huge_page_bytes) || huge_page_bytes <= host_page_bytes)
		return linux_fail(backing->report, MF_EINVAL,
				  "Memory at frame 0x%llx: %llu bytes is no size of a huge page; it would be a power "
				  "of two above %llu bytes.",
				  (unsigned long long)backing->memory->start_pfn, (unsigned long long)huge_page_bytes,
				  host_page_bytes);
	snprintf(backing->name, sizeof(backing->name), "memory of %llu KiB huge pages",
		 (unsigned long long)(huge_page_bytes / MF_KIB));
	backing->unit_bytes = mf_max(backing->unit_bytes, huge_page_bytes);
	/* Before the pool is asked for a size that it would only refuse. */
	error = linux_backing_units_check(backing);
	if (error)
		return error;
	return memfd_open(backing, MFD_HUGETLB | (mf_log2(huge_page_bytes) << MAP_HUGE_SHIFT));
}

int linux_backing_open(struct linux_backing *backing)
{
	switch (backing->memory->kind) {
	case MF_LINUX_MEMFD:
		strcpy(backing->name, "memory of a memfd");
		return memfd_open(backing, 0);
	case MF_LINUX_HUGETLBFS:
		return hugetlb_open(backing);
	case MF_LINUX_ANON:
		strcpy(backing->name, "anonymous memory");
		backing->map_flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
		backing->limit_bytes = UINT64_MAX;
		return 0;
	case MF_LINUX_FILE:
	case MF_LINUX_DAX:
		return path_open(backing);
	case MF_LINUX_FD:
		backing->fd = backing->memory->fd;
		snprintf(backing->name, sizeof(backing->name), "file descriptor %d", backing->fd);
		return descriptor_inspect(backing);
	default:
		return linux_fail(backing->report, MF_EINVAL, "Memory at frame 0x%llx: kind %d is not known.",
				  (unsigned long long)backing->memory->start_pfn, (int)backing->memory->kind);
	}
}

void linux_backing_close(const struct linux_backing *backing)
{
	if (backing->fd >= 0 && backing->memory->kind != MF_LINUX_FD)
		close(backing->fd);
}
