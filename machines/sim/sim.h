/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim.h - the record of one sim and what the files of this machine share.  Private to machines/sim.
 *
 *   sim.c     creation, end, the table of operations, counters
 *   memory.c  RAM, control memory, protection of the direct map, failures on demand
 *   window.c  addresses of windows
 *   tlb.c     the walker, fills and flushes
 *   fault.c   SIGSEGV: fills on first touch, reports what is no fill
 *
 * tlb.c, fault.c and window.c run in the signal handler; they are the hardware, and unwatched.h says who looks away.
 *
 * Who may touch a field:  C  constant after creation;  T  under the TLB lock;  R  under the sim's own lock.
 *
 * The TLB lock is one for the process, because the signal handler must find out which sim an address belongs to.  It
 * is a spin lock, because the handler takes it.  Nothing under it touches a window or writes a frame, so the handler
 * never interrupts its own holder.  Order: none, the two locks are never held together.
 */
#ifndef MACHINES_SIM_SIM_H
#define MACHINES_SIM_SIM_H

#include <memfold/sim.h>

/* One translation that the TLB holds: [va, va + span(level)) is mapped from the memfd, from frame pfn on. */
struct sim_fill {
	uintptr_t va;
	mf_pfn_t pfn;
	uint64_t id; /* never reused in the process: says that it is still the same fill */
	unsigned level;
	bool is_writable;
};

struct sim_window {
	uintptr_t base;
	uint64_t size_bytes; /* 0: this entry is unused */
	mf_pfn_t root;
	bool is_attached;
};

/* Calls of one sort, and the one that shall fail (0: none). */
struct sim_injector {
	uint64_t calls;
	uint64_t fail_at;
};

struct sim {
	struct mf_machine machine; /* C: first, the core holds a pointer to it                                 */
	struct mf_machine_ops ops; /* C: what machine.ops points to                                           */
	struct mf_list node;       /* T: in the list of live sims                                              */
	uint64_t nr_frames;        /* C                                                                       */
	uint64_t nr_ram_frames;    /* C                                                                       */
	unsigned flags;            /* C                                                                       */
	int memfd;                 /* C: frames, then table_epoch                                               */
	uint64_t mapped_bytes;     /* C: of both, at direct_map                                                */

	struct sim_window windows[MF_SIM_WINDOWS_MAX]; /* T                                                    */
	struct sim_fill *fills;    /* T: sorted by address, disjoint                                            */
	uint64_t nr_fills;         /* T                                                                       */
	uint64_t epoch;            /* T: 1 + flushes of tables so far                                           */
	uint64_t *table_epoch;     /* T: by pfn, when a walk last went through the frame as a table              */
	uint64_t fills_ever, flushes, table_flushes, stray_writes, faults; /* T                                */

	struct mf_lock lock;
	uint8_t *ram;              /* R: by RAM frame; see memory.c                                             */
	uint64_t ram_lowest;       /* R: no RAM frame below this one is free                                    */
	uint64_t nr_ram_used;      /* R                                                                       */
	uint64_t nr_meta_used, meta_used_bytes; /* R                                                          */
	struct sim_injector fail_ram, fail_meta, fail_any; /* R                                                */
};

/* Panics when the machine is not a sim. */
struct sim *sim_of(struct mf_machine *machine);

static inline uint64_t sim_frames(const struct sim *s)
{
	return s->nr_frames + s->nr_ram_frames;
}

/* Frames under one entry of this level. */
static inline uint64_t sim_span_frames(const struct sim *s, unsigned level)
{
	return (uint64_t)1 << (level * (s->machine.paging.page_shift - 3));
}

static inline uint64_t sim_span_bytes(const struct sim *s, unsigned level)
{
	return sim_span_frames(s, level) << s->machine.paging.page_shift;
}

/* ---- memory.c ---- */
void *sim_meta_alloc(struct mf_machine *m, size_t size_bytes);
void sim_meta_free(struct mf_machine *m, void *memory, size_t size_bytes);
int sim_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn);
void sim_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn);
void sim_direct_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable);
/* Counts one call of this sort; true when it shall fail. */
bool sim_call_fails(struct sim *s, struct sim_injector *sort);

/* ---- window.c ---- */
int sim_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base);
void sim_window_release(struct mf_machine *m, void *base, uint64_t size_bytes);
void sim_window_attach(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root);
/* The window that contains addr, or NULL. */
struct sim_window *sim_window_find_locked(struct sim *s, uintptr_t addr);
void sim_window_release_all(struct sim *s);

/* ---- tlb.c ---- */
enum sim_walk_end { SIM_WALK_LEAF, SIM_WALK_ABSENT, SIM_WALK_BROKEN };

struct sim_walk {
	enum sim_walk_end end;
	unsigned level;
	mf_pte_t pte;
	mf_pfn_t pfn; /* LEAF: the frame of the address itself */
	bool is_writable;
};

void sim_tlb_lock(void);
void sim_tlb_unlock(void);
struct sim_walk sim_walk_locked(struct sim *s, const struct sim_window *window, uintptr_t va);
struct sim_fill *sim_tlb_find_locked(struct sim *s, uintptr_t va);
/* Fills for va what the walk found.  NULL, or the sentence to panic with once the lock is released. */
const char *sim_tlb_fill_locked(struct sim *s, const struct sim_window *window, uintptr_t va,
				const struct sim_walk *walk, uint64_t *id);
/* Drops what is filled in [start, end), which lies in one window.  NULL, or a sentence likewise. */
const char *sim_tlb_drop_locked(struct sim *s, uintptr_t start, uintptr_t end);
uint64_t sim_tlb_reaches(struct sim *s, mf_pfn_t pfn, uint64_t nr_frames);
unsigned sim_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);

/* ---- fault.c ---- */
/* From insert on, faults of this sim are answered; the first one installs the handler, the last remove takes it away.
 * 0, -MF_ENOMEM. */
int sim_fault_insert(struct sim *s);
void sim_fault_remove(struct sim *s);

#endif
