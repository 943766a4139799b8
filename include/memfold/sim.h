/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim.h - the machine for tests: page tables in plain memory, the process's own mappings as the TLB, failures on
 * demand.
 *
 *   frames   [ 0 ... nr_frames: described | ... + nr_ram_frames: RAM ]   one sparse memfd, all of it at direct_map
 *   window   [ ----- | fill | ----- | fill (a block) | ----- ]           reserved; a fill maps frames of the memfd
 *
 * A first touch of a window walks the tables below its root, by the machine's own walker, and fills: from then on the
 * address reads and writes the frame that the tables named at that moment, until it is flushed.  So a missing flush
 * shows, and a write to what the tables map read-only is caught as a fault.
 *
 * Owns: the memfd, the windows' addresses, its control memory, and the process's SIGSEGV handler while any sim exists
 * (faults that are not a sim's go to the handler that was there before).
 *
 * Does not: have a TLB per CPU (they share the one, so a flush reaches all of them at once); cache inner tables in
 * walks (mf_sim_reachable() tells what a processor could have cached); survive fork (a child would share the frames:
 * do not touch them there).  System calls that are given an address in a window see EFAULT where nothing was filled. 
 * Frames that do not fit into the host's memory end in SIGBUS.
 *
 * Works under the sanitizers; that of threads does not know that window and direct map show the same frame.  Under
 * Valgrind's tools an access can be repeated after a fault only with --px-default=allregs-at-each-insn
 * --px-file-backed=allregs-at-each-insn (Valgrind 3.19 starts again with stale registers under allregs-at-mem-access);
 * memcheck reports each first touch.
 */
#ifndef MEMFOLD_SIM_H
#define MEMFOLD_SIM_H

#include <memfold/machine.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
	MF_SIM_FILLS_MAX = 32768, /* translations held at once; one more panics (a host maps 65530 ranges by default) */
	MF_SIM_WINDOWS_MAX = 16,  /* windows reserved at once; one more is -MF_ENOMEM                                 */
};

enum mf_sim_flags {
	/* RAM is full of 0xA5 when it is handed out and when it is given back. */
	MF_SIM_POISON_RAM = 1,
	/* ram_put panics when the TLB, or a processor's cache of inner tables, may still reach the frame (law M5). */
	MF_SIM_CHECK_REUSE = 2,
};

struct mf_sim_config {
	struct mf_paging paging;  /* page_shift 12 to 16                                                       */
	uint64_t nr_frames;       /* frames [0, nr_frames): what regions may describe; may be 0                 */
	uint64_t nr_ram_frames;   /* frames behind them, for ram_get; may be 0                                  */
	unsigned flags;           /* of enum mf_sim_flags                                                       */
	unsigned nr_cpus;         /* 0 or 1: every thread is CPU 0; more: each says which it is, mf_sim_cpu_set() */
};

/*
 * Creates a machine.  Nothing of its memory is touched, so several TiB cost nothing until they are used.
 * Gives: *out, to be destroyed by mf_sim_destroy().
 * Fails, *out unchanged: -MF_EINVAL (paging constants or a flag that cannot be, no frame at all, more than MF_CPUS_MAX
 * CPUs), -MF_E2BIG (more frames than the entries or the process can address), -MF_ENOMEM.
 * May: allocate, sleep.
 */
MF_API MF_MUST_CHECK int mf_sim_create(const struct mf_sim_config *config, struct mf_machine **out);

/*
 * Ends a machine.
 * Needs: no map uses it and no thread touches its windows or frames.
 * Gives: windows and frames are unmapped.  RAM and control memory still out are the caller's leak: ask
 * mf_sim_stats() before.  Control memory still out is not freed, so that a leak checker names it.
 * May: free, sleep.
 */
MF_API void mf_sim_destroy(struct mf_machine *machine);

/*
 * From now on the calling thread is this CPU, of every sim that has several.
 * Needs: no other thread is that CPU of the same sim at a time; the thread is in no reader section and holds no lock. 
 * A thread that calls anything on a map and is no CPU of its sim panics.
 */
MF_API void mf_sim_cpu_set(unsigned cpu);

/* ---- The TLB ------------------------------------------------------------------------------------------------ */

/*
 * Counts the fills whose frame or protection, in any part, is not what the tables say now: each wants a flush.
 * Needs: nobody changes the tables meanwhile.  May: read the tables; fills nothing.
 */
MF_API uint64_t mf_sim_stale(struct mf_machine *machine);

/*
 * Could a processor still reach this frame without asking the tables anew?  Counts the fills that map it, plus 1 when a
 * walk since the last MF_FLUSH_TABLES went through it as a table.  Needs: pfn is a frame of the machine.
 */
MF_API uint64_t mf_sim_reachable(struct mf_machine *machine, mf_pfn_t pfn);

/* ---- Faults ------------------------------------------------------------------------------------------------- */

enum mf_sim_fault_kind {
	MF_SIM_FAULT_STRAY,  /* write; the TLB and the tables say read-only                                      */
	MF_SIM_FAULT_STALE,  /* write; the TLB says read-only, the tables writable: a flush is missing            */
	MF_SIM_FAULT_ABSENT, /* the walk ended at an entry that is not present, or the window has no tables       */
	MF_SIM_FAULT_BROKEN, /* the walk met an entry that the hardware could not follow                         */
	MF_SIM_FAULT_DIRECT, /* write to a frame that direct_protect made read-only, through the direct map       */
};

struct mf_sim_fault {
	enum mf_sim_fault_kind kind;
	uintptr_t addr;
	mf_pfn_t pfn;    /* frame of addr; 0 where there is none (ABSENT, BROKEN)                                */
	unsigned level;  /* where the walk ended                                                               */
	mf_pte_t pte;    /* the entry there; 0 for DIRECT                                                       */
};

/*
 * Runs fn(arg) and catches its first fault on this machine, instead of panicking with a sentence about it.
 * Needs: fn returns or faults (it leaves in no other way) and holds no lock where it may fault.
 * Gives: 1 when it faulted: it was left at that instruction, *out (may be NULL) says how; 0 when it returned.
 * Catches of one thread nest.
 */
MF_API int mf_sim_catch_fault(struct mf_machine *machine, void (*fn)(void *arg), void *arg, struct mf_sim_fault *out);

/* ---- Failures on demand ---------------------------------------------------------------------------------------- */

/*
 * The n-th call from now (1: the next) fails as if there were no memory, once; 0: never.  any counts ram_get,
 * meta_alloc and window_reserve together, whatever the other two do.
 */
MF_API void mf_sim_fail_ram(struct mf_machine *machine, uint64_t nth);
MF_API void mf_sim_fail_meta(struct mf_machine *machine, uint64_t nth);
MF_API void mf_sim_fail_any(struct mf_machine *machine, uint64_t nth);

/* ---- Counters --------------------------------------------------------------------------------------------------- */

struct mf_sim_stats {
	uint64_t nr_fills;         /* translations held now                                                   */
	uint64_t nr_ram_used;      /* RAM frames handed out now                                                */
	uint64_t nr_meta_used;     /* pieces of control memory handed out now                                  */
	uint64_t meta_used_bytes;
	uint64_t fills;            /* since creation, from here on                                             */
	uint64_t flushes;          /* of either scope                                                         */
	uint64_t table_flushes;    /* those of MF_FLUSH_TABLES                                                 */
	uint64_t stray_writes;     /* STRAY and DIRECT, caught ones too                                         */
	uint64_t faults;           /* of every kind, caught ones too                                            */
	uint64_t ram_calls, meta_calls, any_calls; /* what the failures on demand count                         */
};

MF_API void mf_sim_stats(struct mf_machine *machine, struct mf_sim_stats *stats);

/* RAM frames handed out now. */
MF_API uint64_t mf_sim_ram_used(struct mf_machine *machine);

#ifdef __cplusplus
}
#endif
#endif
