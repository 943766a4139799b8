/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memory.c - RAM frames, control memory, protection of the direct map, and failures on demand.
 *
 * Owns the record of which RAM frames are handed out.  Keeps: the same calls give the same frames in every run; what is
 * given back is what was handed out, whole or in naturally aligned pieces, once.  Does not look at the described frames.
 */
#include "machines/sim/sim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { POISON = 0xA5, META_ALIGN = 64, ORDERS_MAX = 48 };

/* One byte for each RAM frame: free, inside a piece, or RAM_HEAD + order where a piece starts. */
enum { RAM_FREE = 0, RAM_INSIDE = 1, RAM_HEAD = 2 };

/* ---- Failures on demand ---------------------------------------------------------------------------------------- */

static bool injector_count(struct sim_injector *injector)
{
	injector->calls++;
	return injector->calls == injector->fail_at;
}

bool sim_call_fails(struct sim *s, struct sim_injector *sort)
{
	bool sort_fails, any_fails;

	mf_machine_lock(&s->machine, &s->lock);
	sort_fails = sort && injector_count(sort);
	any_fails = injector_count(&s->fail_any);
	mf_machine_unlock(&s->machine, &s->lock);
	return sort_fails || any_fails;
}

static void injector_arm(struct sim *s, struct sim_injector *injector, uint64_t nth)
{
	mf_machine_lock(&s->machine, &s->lock);
	injector->fail_at = nth ? injector->calls + nth : 0;
	mf_machine_unlock(&s->machine, &s->lock);
}

void mf_sim_fail_ram(struct mf_machine *machine, uint64_t nth)
{
	struct sim *s = sim_of(machine);

	injector_arm(s, &s->fail_ram, nth);
}

void mf_sim_fail_meta(struct mf_machine *machine, uint64_t nth)
{
	struct sim *s = sim_of(machine);

	injector_arm(s, &s->fail_meta, nth);
}

void mf_sim_fail_any(struct mf_machine *machine, uint64_t nth)
{
	struct sim *s = sim_of(machine);

	injector_arm(s, &s->fail_any, nth);
}

/* ---- Control memory ------------------------------------------------------------------------------------------- */

/* In front of every piece, so that a wrong size shows when it comes back; the piece ends where malloc's does. */
struct meta_head {
	size_t size_bytes;
	char pad[META_ALIGN - sizeof(size_t)];
};

MF_BUILD_ASSERT(sizeof(struct meta_head) == META_ALIGN, "what follows is aligned");

void *sim_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	struct sim *s = sim_of(m);
	struct meta_head *head;
	void *memory;

	if (sim_call_fails(s, &s->fail_meta) || size_bytes > PTRDIFF_MAX - META_ALIGN ||
	    posix_memalign(&memory, META_ALIGN, META_ALIGN + size_bytes) != 0)
		return NULL;
	memset(memory, 0, META_ALIGN + size_bytes);
	head = memory;
	head->size_bytes = size_bytes;
	mf_machine_lock(m, &s->lock);
	s->nr_meta_used++;
	s->meta_used_bytes += size_bytes;
	mf_machine_unlock(m, &s->lock);
	return head + 1;
}

void sim_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	struct sim *s = sim_of(m);
	struct meta_head *head = (struct meta_head *)memory - 1;

	MF_PANIC_IF(head->size_bytes != size_bytes,
		    "memfold: sim: control memory of %zu bytes comes back as %zu bytes.", head->size_bytes, size_bytes);
	mf_machine_lock(m, &s->lock);
	s->nr_meta_used--;
	s->meta_used_bytes -= size_bytes;
	mf_machine_unlock(m, &s->lock);
	free(head);
}

/* ---- RAM ------------------------------------------------------------------------------------------------------ */

static bool ram_is_free(const struct sim *s, uint64_t first, uint64_t nr)
{
	for (uint64_t i = first; i < first + nr; i++) {
		if (s->ram[i] != RAM_FREE)
			return false;
	}
	return true;
}

/* First fit: the lowest naturally aligned piece (by pfn, not by its place in RAM). */
static bool ram_take_locked(struct sim *s, unsigned order, mf_pfn_t *pfn)
{
	uint64_t nr = (uint64_t)1 << order;

	while (s->ram_lowest < s->nr_ram_frames && s->ram[s->ram_lowest] != RAM_FREE)
		s->ram_lowest++;
	for (mf_pfn_t at = mf_round_up(s->nr_frames + s->ram_lowest, nr); at + nr <= sim_frames(s); at += nr) {
		uint64_t first = at - s->nr_frames;

		if (!ram_is_free(s, first, nr))
			continue;
		memset(s->ram + first, RAM_INSIDE, nr);
		s->ram[first] = (uint8_t)(RAM_HEAD + order);
		s->nr_ram_used += nr;
		*pfn = at;
		return true;
	}
	return false;
}

static void ram_poison(struct sim *s, mf_pfn_t pfn, uint64_t nr)
{
	memset(mf_machine_frame(&s->machine, pfn), POISON, nr << s->machine.paging.page_shift);
}

int sim_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct sim *s = sim_of(m);
	mf_pfn_t found;
	bool taken;

	(void)node;
	if (sim_call_fails(s, &s->fail_ram) || order >= ORDERS_MAX)
		return -MF_ENOMEM;
	mf_machine_lock(m, &s->lock);
	taken = ram_take_locked(s, order, &found);
	mf_machine_unlock(m, &s->lock);
	if (!taken)
		return -MF_ENOMEM;
	if (s->flags & MF_SIM_POISON_RAM)
		ram_poison(s, found, (uint64_t)1 << order);
	*pfn = found;
	return 0;
}

/*
 * Was the piece handed out, as such or as part of a larger one?  Then the larger one is halved until the piece stands for
 * itself, so that the rest can come back, too, and nothing twice.
 */
static bool ram_is_ours_locked(struct sim *s, mf_pfn_t pfn, unsigned order)
{
	unsigned larger = order;
	mf_pfn_t head = pfn;

	if (pfn < s->nr_frames || pfn >= sim_frames(s) || order >= ORDERS_MAX || pfn & (((mf_pfn_t)1 << order) - 1))
		return false;
	while (head >= s->nr_frames && s->ram[head - s->nr_frames] != RAM_HEAD + larger) {
		if (++larger == ORDERS_MAX)
			return false;
		head = mf_round_down(pfn, (mf_pfn_t)1 << larger);
	}
	if (head < s->nr_frames)
		return false;
	while (larger-- > order) {
		mf_pfn_t half = head + ((mf_pfn_t)1 << larger);

		s->ram[head - s->nr_frames] = (uint8_t)(RAM_HEAD + larger);
		s->ram[half - s->nr_frames] = (uint8_t)(RAM_HEAD + larger);
		head = pfn >= half ? half : head;
	}
	return true;
}

void sim_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn)
{
	struct sim *s = sim_of(m);
	uint64_t nr = (uint64_t)1 << order;
	unsigned shift = m->paging.page_shift;
	bool is_ours;

	(void)node;
	mf_machine_lock(m, &s->lock);
	is_ours = ram_is_ours_locked(s, pfn, order);
	mf_machine_unlock(m, &s->lock);
	MF_PANIC_IF(!is_ours, "memfold: sim: RAM frame 0x%llx comes back with order %u, but it was not handed out so.",
		    (unsigned long long)pfn, order);
	MF_PANIC_IF((s->flags & MF_SIM_CHECK_REUSE) && sim_tlb_reaches(s, pfn, nr) != 0,
		    "memfold: sim: RAM frame 0x%llx (order %u) comes back reachable: a flush is missing.",
		    (unsigned long long)pfn, order);
	/* Before the frames are free again: from then on they may be another thread's. */
	if (s->flags & MF_SIM_POISON_RAM)
		ram_poison(s, pfn, nr);
	else
		fallocate(s->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(pfn << shift),
			  (off_t)(nr << shift));
	mf_machine_lock(m, &s->lock);
	memset(s->ram + (pfn - s->nr_frames), RAM_FREE, nr);
	s->ram_lowest = mf_min(s->ram_lowest, pfn - s->nr_frames);
	s->nr_ram_used -= nr;
	mf_machine_unlock(m, &s->lock);
}

void sim_direct_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable)
{
	const struct sim *s = sim_of(m);
	int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;

	MF_PANIC_IF(pfn >= sim_frames(s), "memfold: sim: frame 0x%llx is beyond the machine.", (unsigned long long)pfn);
	MF_PANIC_IF(mprotect(mf_machine_frame(m, pfn), (size_t)1 << m->paging.page_shift, prot) != 0,
		    "memfold: sim: the host refuses to protect frame 0x%llx (vm.max_map_count is reached).",
		    (unsigned long long)pfn);
}
