/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_file.c - the memory behind slots that can be shared: one memfd of a machine, in which each window has a place of
 * its own size.
 *
 *   window      [ private | shared | alias of X | alias of X | shared ... ]
 *   its place   [ hole    | memory | hole       | hole       | memory ... ]      (slot for slot)
 *
 * Owns the file, the places, and the record of what each slot of a window is.  Keeps: a slot's place holds memory when
 * the slot is shared, and is a hole otherwise, so that the file's blocks are what shared slots cost.  A hole is never
 * mapped: reading it would allocate, and end in SIGBUS where there is no memory.
 */
#include "machines/linux/host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Asked for by pieces, since a signal makes the host give up a piece. */
#define POPULATE_PIECE (2 * MF_MIB)
enum { POPULATE_TRIES = 1000 };

/* ---- The record of a window's slots --------------------------------------------------------------------------- */

static uint64_t slots_bytes(const struct linux_machine *machine, const struct linux_window *window)
{
	uint64_t nr_slots = ((window->size_bytes - 1) >> machine->machine.paging.page_shift) + 1;

	return nr_slots * sizeof(*window->slots);
}

enum linux_slot_kind linux_slot_kind(const struct linux_machine *machine, const struct linux_window *window,
				     uint64_t offset)
{
	if (!window->slots)
		return LINUX_SLOT_PRIVATE;
	return (enum linux_slot_kind)(window->slots[offset >> machine->machine.paging.page_shift] &
				      LINUX_SLOT_KIND_MASK);
}

uint64_t linux_slot_target(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset)
{
	return window->slots[offset >> machine->machine.paging.page_shift] & ~(uint64_t)LINUX_SLOT_KIND_MASK;
}

void linux_slots_set_locked(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset,
			    uint64_t end, enum linux_slot_kind kind, uint64_t target)
{
	unsigned shift = machine->machine.paging.page_shift;

	for (uint64_t slot = offset >> shift; slot < end >> shift; slot++)
		window->slots[slot] = target | kind;
}

uint64_t linux_run_end(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset,
		       uint64_t end)
{
	enum linux_slot_kind kind = linux_slot_kind(machine, window, offset);
	uint64_t slot_bytes = (uint64_t)1 << machine->machine.paging.page_shift;
	uint64_t at = offset;

	if (!window->slots)
		return end;
	while (at < end && linux_slot_kind(machine, window, at) == kind)
		at += slot_bytes;
	return mf_min(at, end);
}

/* Does one mapping serve the slots before and behind `offset`? */
static bool is_one_mapping(const struct linux_machine *machine, const struct linux_window *window, uint64_t offset)
{
	uint64_t slot_bytes = (uint64_t)1 << machine->machine.paging.page_shift;
	enum linux_slot_kind kind = linux_slot_kind(machine, window, offset);

	if (kind != linux_slot_kind(machine, window, offset - slot_bytes))
		return false;
	return kind != LINUX_SLOT_ALIAS || linux_slot_target(machine, window, offset) ==
						   linux_slot_target(machine, window, offset - slot_bytes) + slot_bytes;
}

uint64_t linux_slots_edges_locked(const struct linux_machine *machine, const struct linux_window *window,
				  uint64_t offset, uint64_t end)
{
	uint64_t slot_bytes = (uint64_t)1 << machine->machine.paging.page_shift, nr = 0;

	for (uint64_t at = mf_max(offset, slot_bytes); at <= end && at < window->size_bytes; at += slot_bytes)
		nr += !is_one_mapping(machine, window, at);
	return nr;
}

/* ---- Places in the file ------------------------------------------------------------------------------------------ */

/* The lowest that no window has; there are few windows. */
static uint64_t place_find_locked(const struct linux_machine *machine, uint64_t size_bytes)
{
	const struct mf_list *at = machine->windows.next;
	uint64_t place = 0;

	while (at != &machine->windows) {
		const struct linux_window *window = mf_container_of(at, struct linux_window, node);
		uint64_t end = window->file_offset + window->size_bytes;

		at = at->next;
		if (window->slots && place < end && window->file_offset < place + size_bytes) {
			place = end;
			at = machine->windows.next;
		}
	}
	return place;
}

/* Growing a file beyond RLIMIT_FSIZE is a signal, which ends the program. */
static int file_grow_locked(struct linux_machine *machine, uint64_t file_bytes)
{
	struct rlimit limit;

	if (file_bytes <= machine->file_bytes)
		return 0;
	if (file_bytes > INT64_MAX || getrlimit(RLIMIT_FSIZE, &limit) != 0 ||
	    (limit.rlim_cur != RLIM_INFINITY && file_bytes > limit.rlim_cur))
		return -MF_ENOMEM;
	if (machine->file < 0)
		machine->file = memfd_create("memfold windows", MFD_CLOEXEC);
	if (machine->file < 0 || ftruncate(machine->file, (off_t)file_bytes) != 0)
		return -MF_ENOMEM;
	machine->file_bytes = file_bytes;
	return 0;
}

int linux_file_place_locked(struct linux_machine *machine, struct linux_window *window)
{
	uint64_t place = place_find_locked(machine, window->size_bytes);
	void *slots;
	int error;

	if (window->slots)
		return 0;
	error = file_grow_locked(machine, place + window->size_bytes);
	if (error)
		return error;
	slots = mmap(NULL, slots_bytes(machine, window), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slots == MAP_FAILED)
		return -MF_ENOMEM;
	madvise(slots, slots_bytes(machine, window), MADV_NOHUGEPAGE);
	window->slots = slots;
	window->file_offset = place;
	atomic_store_explicit(&machine->shares, true, memory_order_release);
	return 0;
}

/* The memory goes before the place is anyone else's. */
void linux_file_leave_locked(struct linux_machine *machine, struct linux_window *window)
{
	if (!window->slots)
		return;
	linux_file_punch(machine, window->file_offset, window->size_bytes);
	munmap(window->slots, slots_bytes(machine, window));
	window->slots = NULL;
}

void linux_file_close_locked(struct linux_machine *machine)
{
	if (machine->file >= 0)
		close(machine->file);
	machine->file = -1;
}

/* ---- Memory in the file ------------------------------------------------------------------------------------------ */

static int piece_populate(const struct linux_machine *machine, uint64_t place, uint64_t size_bytes)
{
	for (int tries = 0; tries < POPULATE_TRIES; tries++) {
		if (fallocate(machine->file, 0, (off_t)place, (off_t)size_bytes) == 0)
			return 0;
		if (errno != EINTR && errno != EAGAIN)
			break;
	}
	return -MF_ENOMEM;
}

int linux_file_populate(const struct linux_machine *machine, uint64_t place, uint64_t size_bytes)
{
	int error = 0;

	for (uint64_t done = 0; done < size_bytes && !error; done += POPULATE_PIECE)
		error = piece_populate(machine, place + done, mf_min(POPULATE_PIECE, size_bytes - done));
	if (error)
		linux_file_punch(machine, place, size_bytes);
	return error;
}

void linux_file_punch(const struct linux_machine *machine, uint64_t place, uint64_t size_bytes)
{
	int error;

	do
		error = fallocate(machine->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)place,
				  (off_t)size_bytes) == 0 ? 0 : errno;
	while (error == EINTR);
	MF_PANIC_IF(error != 0, "memfold: the host refused to take back %llu bytes of shared window memory: %s.",
		    (unsigned long long)size_bytes, strerror(error));
}

int mf_linux_window_bytes(struct mf_machine *m, uint64_t *bytes)
{
	struct linux_machine *machine = linux_machine_checked(m);
	struct stat status = {.st_blocks = 0};
	int error = 0;

	if (!linux_may_use(m))
		return -MF_EPERM;
	linux_lock();
	if (machine->file >= 0 && fstat(machine->file, &status) != 0)
		error = -MF_EIO;
	linux_unlock();
	if (!error)
		*bytes = (uint64_t)status.st_blocks * 512;
	return error;
}
