/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.h - what the files of the linux machine share: the machine's record, and the calls between them.
 *
 * Locks: linux_mutex (one for the process) serialises whatever changes machines, threads, windows and memories.  It is
 * a leaf: nothing of memfold is called while it is held.  fork() takes it, so that a child finds everything consistent.
 * What fast paths read is written so that they need no lock: see cpu() and data().
 */
#ifndef MACHINES_LINUX_HOST_H
#define MACHINES_LINUX_HOST_H

#include <memfold/linux.h>
#include <stdatomic.h>

/* A window that was reserved; on a list, since maps reserve few. */
struct linux_window {
	struct mf_list node;
	char *start;
	uint64_t size_bytes;
	bool is_read_only;    /* m; made writable by pieces of LINUX_WRITABLE_PIECE as it is populated */
	uint64_t file_offset; /* m; its place in the machine's file; with `slots` only, then constant */
	uint64_t *slots;      /* m, but who works on slots may read of them; what each is; NULL: none was ever shared */
};

/* The lowest bits of an entry of `slots`; the rest of an alias is the offset in the file of what it shows. */
enum linux_slot_kind { LINUX_SLOT_PRIVATE, LINUX_SLOT_SHARED, LINUX_SLOT_ALIAS, LINUX_SLOT_KIND_MASK = 3 };

#define LINUX_WRITABLE_PIECE (2 * MF_MIB)

/* One described range.  data() reads the atomic fields without a lock, guarded by linux_machine.memories_seq. */
struct linux_memory {
	_Atomic uint64_t start_pfn;
	_Atomic uint64_t end_pfn;
	_Atomic(char *) base;   /* NULL: described only */
	_Atomic bool is_mapped; /* by us, so it is ours to unmap */
};

/* Letters: m = under linux_mutex; c = set at creation; a = atomic. */
struct linux_machine {
	struct mf_machine machine;          /* c; first, so that the two pointers are one                       */
	uint64_t id;                        /* c; unique in the process, never reused: stale threads cannot match */
	struct mf_list node;                /* m; on the list of live machines                                  */
	atomic_uint *owner;                 /* c; 1; in a page that a forked child sees wiped, so 0 there        */
	uint64_t host_page_bytes;           /* c                                                               */
	bool is_strict;                     /* c; reserve windows read-only                                     */
	atomic_bool populates_by_touch;     /* a                                                               */
	atomic_uint_least64_t meta_bytes;   /* a; control memory that is out                                    */
	struct mf_list windows;             /* m                                                               */
	int file;                           /* m; behind shared slots; -1: none yet.  Stays as it is after that     */
	uint64_t file_bytes;                /* m                                                               */
	atomic_bool shares;                 /* a; a window had slots                                            */
	char *ballast;                      /* m; NULL: none                                                   */
	uint64_t threads[MF_CPUS_MAX / 64]; /* m; a bit for each index that a thread has                        */
	atomic_uint_least64_t memories_seq; /* a; odd while memories change (writers: m)                        */
	atomic_uint nr_memories;            /* a; writers: m                                                   */
	struct linux_memory memories[MF_LINUX_MEMORIES_MAX]; /* sorted by start_pfn, disjoint                    */
};

static inline struct linux_machine *linux_machine_of(struct mf_machine *m)
{
	return mf_container_of(m, struct linux_machine, machine);
}

/* ---- host.c ---- */
void linux_lock(void);
void linux_unlock(void);
/* The live machine of that id, or NULL.  linux_mutex is held. */
struct linux_machine *linux_find_locked(uint64_t id);
/* Panics when it is a machine of another kind. */
struct linux_machine *linux_machine_checked(struct mf_machine *m);
bool linux_may_use(struct mf_machine *m);
/* The number at the start of a file of /proc or /sys. */
bool linux_number_read(const char *path, uint64_t *value);

/* ---- host_thread.c ---- */
int linux_thread_key_create(void);
void linux_thread_forget(uint64_t id);
unsigned linux_cpu(struct mf_machine *m);
void linux_relax(struct mf_machine *m);

/* ---- host_window.c ---- */
int linux_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base);
void linux_window_release(struct mf_machine *m, void *base, uint64_t size_bytes);
int linux_host_populate(struct mf_machine *m, void *addr, uint64_t size_bytes);
void linux_host_discard(struct mf_machine *m, void *addr, uint64_t size_bytes);
/* The window that [start, start + size) lies in, or NULL. */
struct linux_window *linux_window_find_locked(struct linux_machine *machine, const char *start, uint64_t size_bytes);
/* Makes fresh private memory that of a window: no huge pages, wiped on fork. */
bool linux_window_advise(void *start, uint64_t size_bytes);
/* Populates what is writable; -MF_ENOMEM: a part may be populated. */
int linux_range_populate(struct linux_machine *machine, char *addr, uint64_t size_bytes);
/* Discards what is private. */
void linux_range_discard(char *addr, uint64_t size_bytes);

/* ---- host_file.c: offsets are those in a window, multiples of P, unless they are called places ---- */
enum linux_slot_kind linux_slot_kind(const struct linux_machine *machine, const struct linux_window *window,
				     uint64_t offset);
/* The place that an alias shows. */
uint64_t linux_slot_target(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset);
void linux_slots_set_locked(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset,
			    uint64_t end, enum linux_slot_kind kind, uint64_t target);
/* Up to where slots are of the kind of the one at `offset`; at most `end`. */
uint64_t linux_run_end(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset,
		       uint64_t end);
/* At how many slots of [offset, end], both included, another mapping begins. */
uint64_t linux_slots_edges_locked(const struct linux_machine *machine, const struct linux_window *window,
				  uint64_t offset, uint64_t end);
/* Gives a window a place and `slots`, if it has none; -MF_ENOMEM. */
int linux_file_place_locked(struct linux_machine *machine, struct linux_window *window);
void linux_file_leave_locked(struct linux_machine *machine, struct linux_window *window);
void linux_file_close_locked(struct linux_machine *machine);
/* Memory for a piece of the file that is a hole: all or nothing, -MF_ENOMEM; never a signal later. */
int linux_file_populate(const struct linux_machine *machine, uint64_t place, uint64_t size_bytes);
void linux_file_punch(const struct linux_machine *machine, uint64_t place, uint64_t size_bytes);

/* ---- host_mappings.c ---- */
/* May memfold make so many more? */
bool linux_mappings_allow_locked(uint64_t nr);
/* It made some, or dropped some: so many there were, and so many there are. */
void linux_mappings_changed_locked(uint64_t nr_before, uint64_t nr_after);
/* The host said no: they are counted before the next one is made. */
void linux_mappings_refused_locked(void);
/* Sees to it that there is ballast; false: the host refuses. */
bool linux_ballast_have_locked(struct linux_machine *machine);
/* Frees its mappings; false: there was none. */
bool linux_ballast_drop_locked(struct linux_machine *machine);

/* ---- host_alias.c ---- */
int linux_host_share(struct mf_machine *m, void *addr, uint64_t size_bytes);
int linux_host_alias(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target);
int linux_host_unalias(struct mf_machine *m, void *addr, uint64_t size_bytes);
/* host_discard() of a machine that shares. */
void linux_slots_discard(struct linux_machine *machine, char *addr, uint64_t size_bytes);
/* In a forked child: zero memory in the place of what was shared. */
void linux_windows_forked_locked(struct linux_machine *machine);

/* ---- host_memory.c ---- */
void *linux_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames);
void linux_memories_unmap(struct linux_machine *machine);

/* ---- host_backing.c ---- */

/* Where a failure's sentence goes; text may be NULL. */
struct linux_report {
	char *text;
	size_t size;
};

/* Writes the sentence and returns -error. */
int linux_fail(const struct linux_report *report, int error, const char *format, ...) MF_PRINTF(3, 4);

enum { LINUX_BACKING_NAME_MAX = 256 };

/* What is being mapped. */
struct linux_backing {
	const struct mf_linux_memory *memory;
	const struct linux_report *report;
	char name[LINUX_BACKING_NAME_MAX]; /* what messages call it; a long path is cut */
	int fd;                            /* -1: none; ours to close unless kind FD */
	int map_flags;
	uint64_t start_bytes; /* physical */
	uint64_t unit_bytes;  /* at least P */
	uint64_t limit_bytes; /* size of the file or device */
};

/*
 * Opens what backing->memory names and fills in what it is.  On failure backing->fd may be open: linux_backing_close()
 * in either case.
 */
int linux_backing_open(struct linux_backing *backing);
void linux_backing_close(const struct linux_backing *backing);
/* Are size, offset and physical address multiples of the unit? */
int linux_backing_units_check(const struct linux_backing *backing);

/* ---- host_map.c ---- */

/*
 * Maps what `memory` names.  Its range has been checked; its unit has not.  0 and *base (NULL for kind NONE), or an
 * error of mf_linux_memory_add() with nothing mapped.
 */
int linux_backing_map(const struct linux_machine *machine, const struct mf_linux_memory *memory,
		      const struct linux_report *report, char **base);

#endif
