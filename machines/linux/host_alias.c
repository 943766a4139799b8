/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_alias.c - slots that share memory: share, alias, unalias, and back to private memory.
 *
 * Owns nothing; the file and the record of slots are host_file.c's.  Keeps: a slot is switched by replacing its
 * mapping, which a reader sees before or after, never half done; what it is switched to holds its contents before, and
 * what it had goes back afterwards.  Whatever may fail comes first; what follows the switch cannot.
 *
 * Every change of a mapping, and of the record with it, is made under linux_mutex, so that a child never sees half of
 * it: shared memory is kept from children (MADV_DONTFORK), and the hook of fork() puts zero memory where it would be.
 * Filling and copying are done without the lock: nobody else works on that range.
 */
#include "machines/linux/host.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Replaces what is mapped there.  Straight to the kernel: the thread sanitizer takes mmap() for a write of the whole
 * range, which readers may not race with.
 */
static bool range_map(char *addr, uint64_t size_bytes, int protection, int flags, int file, uint64_t offset)
{
	return syscall(SYS_mmap, addr, size_bytes, protection, flags | MAP_FIXED, file, offset) != -1;
}

/* For what may not fail: the second try has the ballast's mappings. */
static void again_locked(struct linux_machine *machine, const char *what, const char *addr)
{
	MF_PANIC_IF(!linux_ballast_drop_locked(machine), "memfold: the host has no mapping to %s a window at %p.", what,
		    (const void *)addr);
}

static void range_keep_from_children_locked(struct linux_machine *machine, char *addr, uint64_t size_bytes)
{
	while (madvise(addr, size_bytes, MADV_DONTFORK) != 0)
		again_locked(machine, "keep from children a part of", addr);
}

/* ---- Ranges -------------------------------------------------------------------------------------------------- */

/* A part of a window, by offsets in it. */
struct part {
	struct linux_window *window; /* NULL: it lies in none */
	uint64_t start, end;
};

static struct part part_find_locked(struct linux_machine *machine, const char *addr, uint64_t size_bytes)
{
	struct part part = {.window = linux_window_find_locked(machine, addr, size_bytes)};

	if (part.window) {
		part.start = (uint64_t)(addr - part.window->start);
		part.end = part.start + size_bytes;
	}
	return part;
}

static bool part_has(const struct linux_machine *machine, const struct part *part, enum linux_slot_kind kind)
{
	uint64_t next;

	for (uint64_t at = part->start; at < part->end; at = next) {
		next = linux_run_end(machine, part->window, at, part->end);
		if (linux_slot_kind(machine, part->window, at) == kind)
			return true;
	}
	return false;
}

static uint64_t part_edges_locked(const struct linux_machine *machine, const struct part *part)
{
	return linux_slots_edges_locked(machine, part->window, part->start, part->end);
}

/* Maps [at, next), slots of one kind, as the record has them. */
static bool run_map(const struct linux_machine *machine, const struct linux_window *window, uint64_t at, uint64_t next)
{
	uint64_t slot_bytes = (uint64_t)1 << machine->machine.paging.page_shift;

	if (linux_slot_kind(machine, window, at) == LINUX_SLOT_SHARED)
		return range_map(window->start + at, next - at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
				 machine->file, window->file_offset + at);
	while (at < next && range_map(window->start + at, slot_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE,
				      machine->file, linux_slot_target(machine, window, at)))
		at += slot_bytes;
	return at == next;
}

/* Maps what may be mapped otherwise, as the record has it; cannot fail. */
static void part_map_locked(struct linux_machine *machine, const struct part *part)
{
	char *addr = part->window->start + part->start;
	uint64_t next;

	for (uint64_t at = part->start; at < part->end; at = next) {
		next = linux_run_end(machine, part->window, at, part->end);
		while (!run_map(machine, part->window, at, next))
			again_locked(machine, "put memory in a part of", addr);
	}
	range_keep_from_children_locked(machine, addr, part->end - part->start);
}

/* ---- Share ----------------------------------------------------------------------------------------------------- */

static int part_share_locked(struct linux_machine *machine, const struct part *part)
{
	char *addr = part->window->start + part->start;
	uint64_t size_bytes = part->end - part->start, nr_edges = part_edges_locked(machine, part);

	if (!linux_ballast_have_locked(machine) || !linux_mappings_allow_locked(2))
		return -MF_ENOMEM;
	if (!range_map(addr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine->file,
		       part->window->file_offset + part->start))
		return -MF_ENOMEM;
	range_keep_from_children_locked(machine, addr, size_bytes);
	linux_slots_set_locked(machine, part->window, part->start, part->end, LINUX_SLOT_SHARED, 0);
	linux_mappings_changed_locked(nr_edges, part_edges_locked(machine, part));
	return 0;
}

/* The memory is there before it is mapped, so that no reader can meet SIGBUS. */
int linux_host_share(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct linux_machine *machine = linux_machine_of(m);
	bool is_private = true;
	struct part part;
	uint64_t place;
	int error = 0;

	linux_lock();
	part = part_find_locked(machine, addr, size_bytes);
	if (part.window) {
		error = linux_file_place_locked(machine, part.window);
		is_private = !part_has(machine, &part, LINUX_SLOT_SHARED) &&
			     !part_has(machine, &part, LINUX_SLOT_ALIAS);
	}
	linux_unlock();
	MF_PANIC_IF(!part.window || !is_private, "memfold: host_share() of %p, %llu bytes, which are %s.", addr,
		    (unsigned long long)size_bytes, part.window ? "shared already" : "outside every window");
	if (error)
		return error;
	place = part.window->file_offset + part.start;
	error = linux_file_populate(machine, place, size_bytes);
	if (error)
		return error;
	linux_lock();
	error = part_share_locked(machine, &part);
	linux_unlock();
	if (error) {
		linux_file_punch(machine, place, size_bytes);
		return error;
	}
	error = linux_range_populate(machine, addr, size_bytes);
	if (error)
		linux_slots_discard(machine, addr, size_bytes);
	return error;
}

/* ---- Alias ------------------------------------------------------------------------------------------------------- */

static const char *alias_mistake_locked(const struct linux_machine *machine, const struct part *part,
					const struct part *target)
{
	if (!part->window || !target->window)
		return "one of which is outside every window";
	if (part_has(machine, part, LINUX_SLOT_PRIVATE))
		return "which are not shared";
	if (linux_slot_kind(machine, target->window, target->start) != LINUX_SLOT_SHARED)
		return "which has no shared memory of its own";
	if (part->window == target->window && target->start >= part->start && target->start < part->end)
		return "which is among them";
	return NULL;
}

static int part_alias_locked(struct linux_machine *machine, const struct part *part, uint64_t target)
{
	uint64_t slot_bytes = (uint64_t)1 << machine->machine.paging.page_shift;
	uint64_t nr_slots = (part->end - part->start) / slot_bytes, nr_edges = part_edges_locked(machine, part);

	if (!linux_ballast_have_locked(machine) || !linux_mappings_allow_locked(nr_slots + 1))
		return -MF_ENOMEM;
	for (uint64_t at = part->start; at < part->end; at += slot_bytes) {
		if (!range_map(part->window->start + at, slot_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE,
			       machine->file, target)) {
			linux_mappings_refused_locked();
			if (at > part->start)
				part_map_locked(machine, &(struct part){part->window, part->start, at});
			return -MF_ENOMEM;
		}
	}
	range_keep_from_children_locked(machine, part->window->start + part->start, part->end - part->start);
	linux_slots_set_locked(machine, part->window, part->start, part->end, LINUX_SLOT_ALIAS, target);
	linux_mappings_changed_locked(nr_edges, part_edges_locked(machine, part));
	return 0;
}

int linux_host_alias(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target)
{
	struct linux_machine *machine = linux_machine_of(m);
	const char *mistake;
	struct part part, of;
	int error = 0;

	linux_lock();
	part = part_find_locked(machine, addr, size_bytes);
	of = part_find_locked(machine, target, (uint64_t)1 << machine->machine.paging.page_shift);
	mistake = alias_mistake_locked(machine, &part, &of);
	if (!mistake)
		error = part_alias_locked(machine, &part, of.window->file_offset + of.start);
	linux_unlock();
	MF_PANIC_IF(mistake, "memfold: host_alias() of %p, %llu bytes, to %p, %s.", addr,
		    (unsigned long long)size_bytes, target, mistake);
	if (!error)
		linux_file_punch(machine, part.window->file_offset + part.start, size_bytes);
	return error;
}

/* ---- Unalias ----------------------------------------------------------------------------------------------------- */

/* Slots of [start, end) that are aliases keep no memory in their places. */
static void places_punch(const struct linux_machine *machine, const struct part *part)
{
	uint64_t next;

	for (uint64_t at = part->start; at < part->end; at = next) {
		next = linux_run_end(machine, part->window, at, part->end);
		if (linux_slot_kind(machine, part->window, at) == LINUX_SLOT_ALIAS)
			linux_file_punch(machine, part->window->file_offset + at, next - at);
	}
}

static uint64_t *place_map(const struct linux_machine *machine, uint64_t place, uint64_t size_bytes)
{
	void *mapped;

	linux_lock();
	mapped = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine->file, (off_t)place);
	if (mapped != MAP_FAILED && madvise(mapped, size_bytes, MADV_DONTFORK) != 0) {
		munmap(mapped, size_bytes);
		mapped = MAP_FAILED;
	}
	linux_unlock();
	return mapped == MAP_FAILED ? NULL : mapped;
}

/* Copies what the slots show to their places.  By words, since others may change counts in what they show. */
static int run_copy(const struct linux_machine *machine, const struct linux_window *window, uint64_t at, uint64_t next)
{
	const uint64_t *shown = (const uint64_t *)(const void *)(window->start + at);
	uint64_t *copy;
	int error = linux_file_populate(machine, window->file_offset + at, next - at);

	if (error)
		return error;
	copy = place_map(machine, window->file_offset + at, next - at);
	if (!copy) {
		linux_file_punch(machine, window->file_offset + at, next - at);
		return -MF_ENOMEM;
	}
	for (uint64_t i = 0; i < (next - at) / sizeof(*copy); i++)
		copy[i] = __atomic_load_n(&shown[i], __ATOMIC_RELAXED);
	munmap(copy, next - at);
	return 0;
}

static int part_copy(const struct linux_machine *machine, const struct part *part)
{
	uint64_t next;

	for (uint64_t at = part->start; at < part->end; at = next) {
		next = linux_run_end(machine, part->window, at, part->end);
		if (linux_slot_kind(machine, part->window, at) == LINUX_SLOT_ALIAS &&
		    run_copy(machine, part->window, at, next) != 0) {
			places_punch(machine, &(struct part){part->window, part->start, at});
			return -MF_ENOMEM;
		}
	}
	return 0;
}

/* Fewer mappings than before, so nothing but the ballast is needed. */
static int part_unalias_locked(struct linux_machine *machine, const struct part *part)
{
	uint64_t nr_edges = part_edges_locked(machine, part);

	if (!linux_ballast_have_locked(machine))
		return -MF_ENOMEM;
	linux_slots_set_locked(machine, part->window, part->start, part->end, LINUX_SLOT_SHARED, 0);
	part_map_locked(machine, part);
	linux_mappings_changed_locked(nr_edges, part_edges_locked(machine, part));
	return 0;
}

int linux_host_unalias(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct linux_machine *machine = linux_machine_of(m);
	struct part part;
	bool is_shared;
	int error;

	linux_lock();
	part = part_find_locked(machine, addr, size_bytes);
	is_shared = part.window && !part_has(machine, &part, LINUX_SLOT_PRIVATE);
	linux_unlock();
	MF_PANIC_IF(!is_shared, "memfold: host_unalias() of %p, %llu bytes, which are not shared.", addr,
		    (unsigned long long)size_bytes);
	error = part_copy(machine, &part);
	if (error)
		return error;
	linux_lock();
	error = part_unalias_locked(machine, &part);
	linux_unlock();
	if (error)
		places_punch(machine, &part);
	return error;
}

/* ---- Private again --------------------------------------------------------------------------------------------- */

/* What the host will not make writable now is made so when it is populated. */
static void part_zero_locked(struct linux_machine *machine, const struct part *part)
{
	char *addr = part->window->start + part->start;
	uint64_t size_bytes = part->end - part->start, nr_edges = part_edges_locked(machine, part);

	while (!range_map(addr, size_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ||
	       !linux_window_advise(addr, size_bytes))
		again_locked(machine, "discard a part of", addr);
	if (!part->window->is_read_only && mprotect(addr, size_bytes, PROT_READ | PROT_WRITE) != 0)
		part->window->is_read_only = true;
	linux_slots_set_locked(machine, part->window, part->start, part->end, LINUX_SLOT_PRIVATE, 0);
	linux_mappings_changed_locked(nr_edges, part_edges_locked(machine, part));
}

void linux_slots_discard(struct linux_machine *machine, char *addr, uint64_t size_bytes)
{
	struct part part;
	uint64_t next;
	bool has_slots;

	linux_lock();
	part = part_find_locked(machine, addr, size_bytes);
	has_slots = part.window && part.window->slots;
	linux_unlock();
	if (!has_slots) {
		linux_range_discard(addr, size_bytes);
		return;
	}
	for (uint64_t at = part.start; at < part.end; at = next) {
		bool is_private = linux_slot_kind(machine, part.window, at) == LINUX_SLOT_PRIVATE;

		next = linux_run_end(machine, part.window, at, part.end);
		if (is_private) {
			linux_range_discard(part.window->start + at, next - at);
			continue;
		}
		linux_lock();
		part_zero_locked(machine, &(struct part){part.window, at, next});
		linux_unlock();
		linux_file_punch(machine, part.window->file_offset + at, next - at);
	}
}

/* A window without memory is one mapping; where the host refuses even that, a look at it ends the child. */
void linux_windows_forked_locked(struct linux_machine *machine)
{
	for (struct mf_list *at = machine->windows.next; at != &machine->windows; at = at->next) {
		const struct linux_window *window = mf_container_of(at, struct linux_window, node);
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

		if (window->slots &&
		    (window->is_read_only ||
		     !range_map(window->start, window->size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0)))
			range_map(window->start, window->size_bytes, PROT_READ, flags, -1, 0);
	}
	linux_file_close_locked(machine);
}
