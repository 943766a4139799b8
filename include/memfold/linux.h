/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * linux.h - the machine for user space on Linux: windows are private anonymous memory, threads play the CPUs, and the
 * described frames are whatever the caller names (a memfd, huge pages, a file, /dev/dax, a mapping) or nothing at all.
 * Layouts in which slots share memory (the classic diets) have it in a memfd that is made when the first needs it: a
 * file descriptor, closed on exec, that a program must not close, and one mapping for each slot that is an alias.
 *
 * Owns per machine: its windows, that memfd, its control memory, the mappings it made of described memory, the list of
 * registered threads.  Does not own: descriptors and pointers that the caller handed in.
 *
 * Fork: a machine belongs to the process that created it.  In a child its windows are wiped (they read as zero: "no
 * memory there") and may_use() is false.  There every call on a map that returns an error returns -MF_EPERM; lookups
 * and speculative takes find nothing; put, unpin, free_frozen and mf_linux_destroy() do nothing; statistics and
 * digest are 0; the data pointer is NULL.  Calls that are given a folio and no map must not be made there: folio.h
 * names them.  The parent notices nothing.  Described memory follows the rules of its kind: shared mappings stay
 * shared, MF_LINUX_ANON is copied.  A child made past the hooks of fork() (_Fork, a bare clone) faults where slots
 * were shared.
 *
 * Write protection (law M6): an alias is mapped read-only, so that a stray write to it ends in SIGSEGV.  Nothing else
 * in a window is shared, so nothing else needs it, or has it.  Not async-signal-safe.
 */
#ifndef MEMFOLD_LINUX_H
#define MEMFOLD_LINUX_H

#include <memfold/machine.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MF_LINUX_THREADS_DEFAULT = 64, MF_LINUX_MEMORIES_MAX = 1024 };

enum mf_linux_flags {
	/* Reserve windows read-only and make them writable by 2 MiB as they are populated, as is done in any case where
	 * vm.overcommit_memory is 2.  Costs up to two mappings for each such piece. */
	MF_LINUX_WINDOWS_READ_ONLY = 1,
	/* Populate by touching pages, as is done in any case where the kernel has no MADV_POPULATE_WRITE (before 5.14).
	 * Memory that runs out then ends in the OOM killer, not in -MF_ENOMEM. */
	MF_LINUX_POPULATE_BY_TOUCH = 2,
};

/* All zero is a good configuration. */
struct mf_linux_config {
	unsigned page_shift;  /* log2(P), at least the host's page; 0: the host's page                     */
	unsigned max_threads; /* registered at once, 1 .. MF_CPUS_MAX; 0: MF_LINUX_THREADS_DEFAULT            */
	unsigned flags;       /* of enum mf_linux_flags                                                    */
};

/*
 * Creates a machine and registers the calling thread with it.
 * Needs: config may be NULL (all zero).
 * Gives: *out, to be destroyed by mf_linux_destroy().
 * Fails, *out unchanged: -MF_EINVAL (a flag, page_shift or max_threads that cannot be), -MF_ENOMEM, -MF_EOPNOTSUPP (the
 * kernel has no MADV_WIPEONFORK: older than 4.14).
 * May: allocate, sleep.
 */
MF_API MF_MUST_CHECK int mf_linux_create(const struct mf_linux_config *config, struct mf_machine **out);

/*
 * Ends a machine.
 * Needs: no map uses it, no thread is inside a call on it.  Panics when windows or control memory are still out.
 * Threads need not be unregistered.  In a forked child it does nothing: the copy goes with the process.
 * Gives: the mappings it made of described memory are gone; the caller's descriptors and pointers are untouched.
 * May: free, sleep.
 */
MF_API void mf_linux_destroy(struct mf_machine *machine);

/*
 * Gives the calling thread an index below nr_cpus, which every thread needs before it calls anything on a map.
 * Gives: 0; the index is the thread's until it unregisters or ends (a forgotten thread is unregistered at its end).
 * Fails, nothing changed: -MF_EEXIST (it is registered), -MF_E2BIG (max_threads are), -MF_ENOMEM, -MF_EPERM (a
 * forked child).
 * May: allocate, sleep.
 */
MF_API MF_MUST_CHECK int mf_linux_thread_register(struct mf_machine *machine);

/*
 * Takes it back.
 * Needs: the thread holds no lock of a map and is in no reader section.
 * Fails, nothing changed: -MF_ENOENT (it is not registered), -MF_EPERM (a forked child).
 * May: free, sleep.
 */
MF_API MF_MUST_CHECK int mf_linux_thread_unregister(struct mf_machine *machine);

/* ---- Described memory ------------------------------------------------------------------------------------- */

enum mf_linux_memory_kind {
	MF_LINUX_NONE,      /* described only: never mapped, never touched                                 */
	MF_LINUX_MEMFD,     /* fresh shared memory                                                         */
	MF_LINUX_HUGETLBFS, /* fresh huge pages of huge_page_bytes, reserved when added                     */
	MF_LINUX_ANON,      /* fresh private anonymous memory                                              */
	MF_LINUX_FILE,      /* path, from offset_bytes: a regular file, on hugetlbfs too                    */
	MF_LINUX_DAX,       /* path, from offset_bytes: a device-dax character device (/dev/dax0.0)         */
	MF_LINUX_MAPPING,   /* mapping: readable and writable memory that the caller keeps mapped          */
	MF_LINUX_FD,        /* fd, from offset_bytes: what FILE or DAX would open; fd may be closed afterwards */
};

/*
 * The unit is P, or the size of a huge page, or a device's alignment, whichever is greatest.  size_bytes, offset_bytes
 * and the physical address of start_pfn are multiples of it.  What is mapped stands at an address that agrees with the
 * physical one modulo 2 MiB (1 GiB from that size on), so that a huge folio's data is aligned; MAPPING stands where it
 * is.
 */
struct mf_linux_memory {
	enum mf_linux_memory_kind kind;
	mf_pfn_t start_pfn;
	uint64_t size_bytes;
	uint64_t offset_bytes;
	uint64_t huge_page_bytes;
	const char *path;
	void *mapping;
	int fd;
};

/*
 * Puts memory behind the frames [start_pfn, start_pfn + size_bytes / P), for the machine's data().
 * Needs: message may be NULL; on failure it receives one sentence (at most size - 1 bytes): what, where, what would be
 * right.
 * Gives: the memory is mapped, none of it is touched.  A sparse file is not filled: writing to a hole of a full file
 * system ends in SIGBUS, as it does without memfold.
 * Fails, nothing changed: -MF_EINVAL (not a multiple of its unit, no file but a directory, ...), -MF_EOVERFLOW,
 * -MF_EEXIST (overlaps what was added), -MF_E2BIG (MF_LINUX_MEMORIES_MAX), -MF_ENOENT (no such file), -MF_EACCES (not
 * readable and writable), -MF_ERANGE (the backing is too small), -MF_ENODEV (no device-dax), -MF_EOPNOTSUPP (huge pages
 * of a size the host lacks), -MF_EFAULT (mapping is not mapped throughout), -MF_ENOMEM (also: too few huge pages),
 * -MF_EIO, -MF_EPERM (a forked child).
 * May: allocate, sleep.
 */
MF_API MF_MUST_CHECK int mf_linux_memory_add(struct mf_machine *machine, const struct mf_linux_memory *memory,
					     char *message, size_t message_size);

/*
 * Takes away what was added at start_pfn.
 * Needs: nobody uses the memory or asks data() for it.
 * Gives: what memfold mapped is unmapped; fresh memory is gone with its contents.
 * Fails, nothing changed: -MF_ENOENT (nothing was added there), -MF_ENOMEM (too many mappings), -MF_EPERM (a forked
 * child).
 * May: sleep.
 */
MF_API MF_MUST_CHECK int mf_linux_memory_remove(struct mf_machine *machine, mf_pfn_t start_pfn);

/*
 * Bytes that the machine's shared window memory really occupies: each piece once, however many slots show it (smaps
 * rounds them away).  Windows without aliases have none; they cost what is resident there.
 * Gives: *bytes, 0 where nothing was ever shared.
 * Fails, *bytes unchanged: -MF_EIO (the host does not say), -MF_EPERM (a forked child).
 */
MF_API MF_MUST_CHECK int mf_linux_window_bytes(struct mf_machine *machine, uint64_t *bytes);

/*
 * Mappings that this process has, and may have (vm.max_map_count): an alias needs one of its own.  New aliases leave
 * 1/64 of what is allowed to the rest of the process; they are -MF_ENOMEM from there on.
 * Needs: /proc.  Takes tens of milliseconds where there are many.
 * Fails, both unchanged: -MF_EIO (the host does not say).
 */
MF_API MF_MUST_CHECK int mf_linux_mappings(uint64_t *used, uint64_t *limit);

/*
 * Bytes that new work can use without swapping, as the host estimates them (MemAvailable; limits of a control group are
 * not in it); 0 when the host does not say.
 */
MF_API uint64_t mf_linux_available_bytes(void);

#ifdef __cplusplus
}
#endif
#endif
