/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tlb.c - the hardware's side of paging: the walker, and the TLB made of the process's own mappings.
 *
 * Owns the fills of every sim and the lock over them.  Keeps: a fill is what the tables said when it was made, and
 * changes only by a flush.  Shares no code with core/pgtable on purpose: it reads the entries as a processor would, so
 * that an entry built wrongly shows here.
 *
 * Slack: a processor may evict a translation at any time, the sim never does; it may cache inner tables, the sim only
 * remembers (by epochs) which tables it could have cached since the last MF_FLUSH_TABLES.
 */
#include "machines/sim/unwatched.h"

SIM_UNWATCHED_BEGIN

#include "machines/sim/sim.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct mf_lock tlb_lock;
static uint64_t last_fill_id; /* under tlb_lock */

void sim_tlb_lock(void)
{
	while (!mf_lock_try(&tlb_lock))
		sched_yield();
}

void sim_tlb_unlock(void)
{
	mf_lock_release(&tlb_lock);
}

/* ---- The walker --------------------------------------------------------------------------------------------- */

static bool has_bits(uint64_t entry, uint64_t bits)
{
	return (entry & bits) == bits;
}

/* May the hardware follow a leaf of this level?  Without Accessed it would write the table, which may be shared. */
static bool leaf_is_possible(const struct sim *s, uint64_t entry, unsigned level, mf_pfn_t pfn)
{
	const struct mf_paging *p = &s->machine.paging;
	uint64_t nr = sim_span_frames(s, level);

	return level <= p->max_leaf_level && has_bits(entry, p->leaf_bits) &&
	       has_bits(entry, level ? p->leaf_block_bits : p->leaf_base_bits) && pfn % nr == 0 &&
	       pfn < sim_frames(s) && nr <= sim_frames(s) - pfn;
}

static void walk_end_leaf(const struct sim *s, uintptr_t va, mf_pfn_t pfn, struct sim_walk *walk)
{
	const struct mf_paging *p = &s->machine.paging;

	if (!leaf_is_possible(s, walk->pte.bits, walk->level, pfn))
		return;
	walk->end = SIM_WALK_LEAF;
	walk->pfn = pfn + (va >> p->page_shift) % sim_span_frames(s, walk->level);
	walk->is_writable = (walk->pte.bits & p->write_mask) == p->write_set;
}

static struct sim_walk walk_tables(struct sim *s, mf_pfn_t table, uintptr_t va, uint64_t epoch)
{
	const struct mf_paging *p = &s->machine.paging;
	struct sim_walk walk = {.end = SIM_WALK_BROKEN, .level = p->levels};
	uint64_t index_mask = ((uint64_t)1 << (p->page_shift - 3)) - 1;

	while (table < sim_frames(s)) {
		const uint64_t *entries = mf_machine_frame(&s->machine, table);
		uint64_t index = va / sim_span_bytes(s, walk.level - 1) & index_mask;

		if (epoch)
			s->table_epoch[table] = epoch;
		walk.level--;
		walk.pte.bits = __atomic_load_n(&entries[index], __ATOMIC_ACQUIRE);
		/* An address below frame0 becomes a frame beyond all others. */
		table = ((walk.pte.bits & p->address_mask) - p->frame0) >> p->page_shift;
		if (!(walk.pte.bits & p->present_mask)) {
			walk.end = SIM_WALK_ABSENT;
			break;
		}
		if (walk.level == 0 || (walk.pte.bits & p->block_mask) == p->block_value) {
			walk_end_leaf(s, va, table, &walk);
			break;
		}
		if (!has_bits(walk.pte.bits, p->table_bits))
			break;
	}
	return walk;
}

struct sim_walk sim_walk_locked(struct sim *s, const struct sim_window *window, uintptr_t va)
{
	if (!window->is_attached)
		return (struct sim_walk){.end = SIM_WALK_ABSENT, .level = s->machine.paging.levels};
	return walk_tables(s, window->root, va, s->epoch);
}

/*
 * mmap itself, not the C library's: a fill is no access of the program's, but ThreadSanitizer would take it for a write
 * to the whole range.  False when the host refuses.
 */
static bool map_fixed(uintptr_t start, uint64_t size_bytes, int prot, int flags, int fd, uint64_t offset)
{
	return syscall(SYS_mmap, start, size_bytes, prot, flags | MAP_FIXED | MAP_NORESERVE, fd, offset) != -1;
}

/* ---- Fills -------------------------------------------------------------------------------------------------- */

static uintptr_t fill_end(const struct sim *s, const struct sim_fill *fill)
{
	return fill->va + sim_span_bytes(s, fill->level);
}

/* Index of the first fill that ends beyond va: the one that contains it, if one does. */
static uint64_t fills_from(const struct sim *s, uintptr_t va)
{
	uint64_t low = 0, high = s->nr_fills;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (fill_end(s, &s->fills[middle]) <= va)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct sim_fill *sim_tlb_find_locked(struct sim *s, uintptr_t va)
{
	uint64_t at = fills_from(s, va);

	return at < s->nr_fills && s->fills[at].va <= va ? &s->fills[at] : NULL;
}

static bool is_empty_locked(const struct sim *s, uintptr_t start, uintptr_t end)
{
	uint64_t at = fills_from(s, start);

	return at == s->nr_fills || s->fills[at].va >= end;
}

/*
 * The greatest level at which va can be filled: the leaf's, or a lower one where the window ends first or where an
 * older fill, stale perhaps, still holds part of the leaf.  Processors break up leaves in the same way.
 */
static unsigned level_to_fill(const struct sim *s, const struct sim_window *window, uintptr_t va, unsigned level)
{
	while (level > 0) {
		uintptr_t start = mf_round_down(va, sim_span_bytes(s, level));
		uint64_t size = sim_span_bytes(s, level);

		if (start >= window->base && start - window->base <= window->size_bytes &&
		    size <= window->size_bytes - (start - window->base) && is_empty_locked(s, start, start + size))
			break;
		level--;
	}
	return level;
}

/* Moves all from `from` on.  Not memmove(): the thread sanitizer looks into that. */
static void fills_move(struct sim *s, uint64_t from, uint64_t to)
{
	uint64_t nr = s->nr_fills - from;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t at = to < from ? i : nr - 1 - i;

		s->fills[to + at] = s->fills[from + at];
		__asm__ volatile("" ::: "memory"); /* and compilers know what this is */
	}
}

const char *sim_tlb_fill_locked(struct sim *s, const struct sim_window *window, uintptr_t va,
				const struct sim_walk *walk, uint64_t *id)
{
	unsigned level = level_to_fill(s, window, va, walk->level), shift = s->machine.paging.page_shift;
	uintptr_t start = mf_round_down(va, sim_span_bytes(s, level));
	mf_pfn_t pfn = walk->pfn - ((va - start) >> shift);
	uint64_t at = fills_from(s, va);
	int prot = walk->is_writable ? PROT_READ | PROT_WRITE : PROT_READ;

	if (s->nr_fills == MF_SIM_FILLS_MAX)
		return "memfold: sim: the TLB holds 32768 translations, and more were touched before a flush: "
		       "use a smaller machine or touch less of it.";
	if (!map_fixed(start, sim_span_bytes(s, level), prot, MAP_SHARED, s->memfd, pfn << shift))
		return "memfold: sim: the host refuses another mapping for the TLB (vm.max_map_count is reached).";
	fills_move(s, at, at + 1);
	s->fills[at] = (struct sim_fill){start, pfn, ++last_fill_id, level, walk->is_writable};
	s->nr_fills++;
	s->fills_ever++;
	*id = last_fill_id;
	return NULL;
}

/* One mapping over all fills in the range: between them is nothing but reserved addresses. */
const char *sim_tlb_drop_locked(struct sim *s, uintptr_t start, uintptr_t end)
{
	uint64_t first = fills_from(s, start), last = first;
	uintptr_t from;

	while (last < s->nr_fills && s->fills[last].va < end)
		last++;
	if (last == first)
		return NULL;
	from = s->fills[first].va;
	if (!map_fixed(from, fill_end(s, &s->fills[last - 1]) - from, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
		return "memfold: sim: the host refuses to drop translations (vm.max_map_count is reached).";
	fills_move(s, last, first);
	s->nr_fills -= last - first;
	return NULL;
}

unsigned sim_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct sim *s = sim_of(m);
	uint64_t end;
	const char *problem = NULL;

	if (!mf_add_fits(start, size_bytes, &end))
		end = UINT64_MAX;
	sim_tlb_lock();
	for (unsigned i = 0; i < MF_SIM_WINDOWS_MAX && !problem; i++) {
		uint64_t low = mf_max(start, s->windows[i].base);
		uint64_t high = mf_min(end, s->windows[i].base + s->windows[i].size_bytes);

		if (low < high)
			problem = sim_tlb_drop_locked(s, low, high);
	}
	s->flushes++;
	if (scope == MF_FLUSH_TABLES) {
		s->table_flushes++;
		s->epoch++;
	}
	sim_tlb_unlock();
	MF_PANIC_IF(problem, "%s", problem);
	return 0;
}

/* ---- Questions of tests --------------------------------------------------------------------------------------- */

static bool fill_is_stale_locked(struct sim *s, const struct sim_window *window, const struct sim_fill *fill)
{
	unsigned shift = s->machine.paging.page_shift;
	uintptr_t va = fill->va;

	while (va < fill_end(s, fill)) {
		struct sim_walk walk = walk_tables(s, window->root, va, 0);

		if (walk.end != SIM_WALK_LEAF || walk.is_writable != fill->is_writable ||
		    walk.pfn != fill->pfn + ((va - fill->va) >> shift))
			return true;
		va = mf_round_down(va, sim_span_bytes(s, walk.level)) + sim_span_bytes(s, walk.level);
	}
	return false;
}

uint64_t mf_sim_stale(struct mf_machine *machine)
{
	struct sim *s = sim_of(machine);
	uint64_t nr = 0;

	sim_tlb_lock();
	for (uint64_t i = 0; i < s->nr_fills; i++)
		nr += fill_is_stale_locked(s, sim_window_find_locked(s, s->fills[i].va), &s->fills[i]);
	sim_tlb_unlock();
	return nr;
}

uint64_t sim_tlb_reaches(struct sim *s, mf_pfn_t pfn, uint64_t nr_frames)
{
	uint64_t nr = 0;

	sim_tlb_lock();
	for (uint64_t i = 0; i < s->nr_fills; i++) {
		const struct sim_fill *fill = &s->fills[i];

		nr += fill->pfn < pfn + nr_frames && pfn < fill->pfn + sim_span_frames(s, fill->level);
	}
	for (mf_pfn_t at = pfn; at < pfn + nr_frames; at++)
		nr += s->table_epoch[at] == s->epoch;
	sim_tlb_unlock();
	return nr;
}

uint64_t mf_sim_reachable(struct mf_machine *machine, mf_pfn_t pfn)
{
	struct sim *s = sim_of(machine);

	MF_PANIC_IF(pfn >= sim_frames(s), "memfold: sim: frame 0x%llx is beyond the machine.", (unsigned long long)pfn);
	return sim_tlb_reaches(s, pfn, 1);
}

SIM_UNWATCHED_END
