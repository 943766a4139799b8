/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault.c - SIGSEGV: the first touch of a window fills the TLB, everything else is reported.
 *
 * Owns the list of live sims and, while it is not empty, the process's handler for SIGSEGV.  Keeps: a fault that is
 * no sim's goes to the handler that was there before, as if we were not.
 *
 * The handler runs on the stack of the thread that faulted and blocks no signal, so that a report may leave it by
 * longjmp (a catch, or a panic hook of a test).  It calls mmap and sched_yield only, besides what a report calls.
 *
 * How it tells a write to a read-only fill from a read that another thread's fill has just served, without
 * reading machine registers: it lets the first fault on a fill that it meets retry.  A second one by the same thread on
 * the same fill was an access that began while the fill was in place; reads succeed there, so it is a write.
 */
#include "machines/sim/unwatched.h"

SIM_UNWATCHED_BEGIN

#include "machines/sim/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

struct catch {
	struct catch *outer;
	const struct sim *sim;
	struct mf_sim_fault fault;
	sigjmp_buf jump;
};

/* Initial-exec: the handler must not be the one to allocate them. */
#define HANDLER_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

static HANDLER_LOCAL struct catch *innermost;
static HANDLER_LOCAL uint64_t seen_fill; /* the fill that this thread's last fault met or made */

static struct mf_list live_sims = {&live_sims, &live_sims}; /* under the TLB lock */
static struct sigaction previous;                           /* written while live_sims is empty */

/* ---- What a fault is -------------------------------------------------------------------------------------------- */

enum verdict {
	VERDICT_FOREIGN, /* no sim's                                             */
	VERDICT_RETRY,   /* the TLB holds a translation now                      */
	VERDICT_FAULT,   /* *fault says what it is                               */
	VERDICT_PROBLEM, /* the sim cannot go on: *problem is the sentence       */
};

struct finding {
	enum verdict verdict;
	struct sim *sim;
	struct mf_sim_fault fault;
	const char *problem;
};

static void found_fault(struct sim *s, const struct sim_walk *walk, struct finding *finding)
{
	finding->verdict = VERDICT_FAULT;
	finding->fault.level = walk->level;
	finding->fault.pte = walk->pte;
	s->faults++;
	switch (walk->end) {
	case SIM_WALK_ABSENT:
		finding->fault.kind = MF_SIM_FAULT_ABSENT;
		return;
	case SIM_WALK_BROKEN:
		finding->fault.kind = MF_SIM_FAULT_BROKEN;
		return;
	case SIM_WALK_LEAF:
		break;
	}
	finding->fault.pfn = walk->pfn;
	finding->fault.kind = walk->is_writable ? MF_SIM_FAULT_STALE : MF_SIM_FAULT_STRAY;
	if (!walk->is_writable)
		s->stray_writes++;
}

static void resolve_in_window(struct sim *s, const struct sim_window *window, uintptr_t addr, struct finding *finding)
{
	const struct sim_fill *fill = sim_tlb_find_locked(s, addr);
	struct sim_walk walk;

	finding->verdict = VERDICT_RETRY;
	if (fill && (fill->is_writable || fill->id != seen_fill)) {
		seen_fill = fill->id;
		return;
	}
	walk = sim_walk_locked(s, window, addr);
	if (fill || walk.end != SIM_WALK_LEAF) {
		found_fault(s, &walk, finding);
		return;
	}
	finding->problem = sim_tlb_fill_locked(s, window, addr, &walk, &seen_fill);
	if (finding->problem)
		finding->verdict = VERDICT_PROBLEM;
}

static void resolve_in_direct_map(struct sim *s, uint64_t offset, struct finding *finding)
{
	finding->verdict = VERDICT_FAULT;
	finding->fault.kind = MF_SIM_FAULT_DIRECT;
	finding->fault.pfn = offset >> s->machine.paging.page_shift;
	s->faults++;
	s->stray_writes++;
}

static struct finding resolve(uintptr_t addr)
{
	struct finding finding = {.verdict = VERDICT_FOREIGN, .fault.addr = addr};

	sim_tlb_lock();
	for (struct mf_list *at = live_sims.next; at != &live_sims; at = at->next) {
		struct sim *s = mf_container_of(at, struct sim, node);
		const struct sim_window *window = sim_window_find_locked(s, addr);
		uint64_t offset = addr - (uintptr_t)s->machine.direct_map;

		finding.sim = s;
		if (window)
			resolve_in_window(s, window, addr, &finding);
		else if (offset < sim_frames(s) << s->machine.paging.page_shift)
			resolve_in_direct_map(s, offset, &finding);
		else
			continue;
		break;
	}
	sim_tlb_unlock();
	return finding;
}

/* ---- What becomes of it ----------------------------------------------------------------------------------------- */

static _Noreturn void panic_about(const struct mf_sim_fault *fault)
{
	unsigned long long addr = fault->addr, pfn = fault->pfn, entry = fault->pte.bits;

	switch (fault->kind) {
	case MF_SIM_FAULT_STRAY:
		mf_panic("memfold: sim: stray write to 0x%llx: the tables map it read-only to frame 0x%llx "
			 "(entry 0x%llx at level %u).", addr, pfn, entry, fault->level);
	case MF_SIM_FAULT_STALE:
		mf_panic("memfold: sim: write to 0x%llx: the tables map it writable to frame 0x%llx (entry 0x%llx at "
			 "level %u), but the TLB still holds it read-only: a flush is missing.", addr, pfn, entry,
			 fault->level);
	case MF_SIM_FAULT_ABSENT:
		mf_panic("memfold: sim: access to 0x%llx: the tables map nothing there (entry 0x%llx at level %u).",
			 addr, entry, fault->level);
	case MF_SIM_FAULT_BROKEN:
		mf_panic("memfold: sim: access to 0x%llx: the walk ends at level %u in entry 0x%llx, which the "
			 "hardware cannot follow.", addr, fault->level, entry);
	case MF_SIM_FAULT_DIRECT:
		mf_panic("memfold: sim: stray write to 0x%llx: frame 0x%llx is read-only in the direct map.", addr,
			 pfn);
	}
	mf_panic("memfold: sim: fault of unknown kind at 0x%llx.", addr);
}

static _Noreturn void report(const struct sim *s, const struct mf_sim_fault *fault)
{
	for (struct catch *c = innermost; c; c = c->outer) {
		if (c->sim == s) {
			c->fault = *fault;
			siglongjmp(c->jump, 1);
		}
	}
	panic_about(fault);
}

/* Without a handler before us the default takes over: the access is repeated and ends the process as it would have. */
static void pass_on(int number, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(number, info, context);
	} else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
		sigaction(SIGSEGV, &previous, NULL);
		if (info->si_code <= 0) /* sent by a process: there is no access to repeat */
			raise(number);
	} else {
		previous.sa_handler(number);
	}
}

static void on_segv(int number, siginfo_t *info, void *context)
{
	int saved_errno = errno;
	struct finding finding = {.verdict = VERDICT_FOREIGN};

	if (info->si_code > 0)
		finding = resolve((uintptr_t)info->si_addr);
	errno = saved_errno;
	switch (finding.verdict) {
	case VERDICT_FOREIGN:
		pass_on(number, info, context);
		break;
	case VERDICT_RETRY:
		break;
	case VERDICT_FAULT:
		report(finding.sim, &finding.fault);
	case VERDICT_PROBLEM:
		mf_panic("%s", finding.problem);
	}
}

int mf_sim_catch_fault(struct mf_machine *machine, void (*fn)(void *arg), void *arg, struct mf_sim_fault *out)
{
	struct catch catch = {.outer = innermost, .sim = sim_of(machine)};
	int has_faulted;

	if (sigsetjmp(catch.jump, 0) == 0) {
		innermost = &catch;
		fn(arg);
		has_faulted = 0;
	} else {
		has_faulted = 1;
		if (out)
			*out = catch.fault;
	}
	innermost = catch.outer;
	return has_faulted;
}

/* ---- The handler's life ----------------------------------------------------------------------------------------- */

int sim_fault_insert(struct sim *s)
{
	struct sigaction ours = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_NODEFER};
	int error = 0;

	sigemptyset(&ours.sa_mask);
	sim_tlb_lock();
	if (mf_list_is_empty(&live_sims) && sigaction(SIGSEGV, &ours, &previous) != 0)
		error = -MF_ENOMEM;
	else
		mf_list_push_back(&live_sims, &s->node);
	sim_tlb_unlock();
	return error;
}

/* A handler that was installed over ours stays: it is the one that knows about us. */
void sim_fault_remove(struct sim *s)
{
	struct sigaction current;

	sim_tlb_lock();
	mf_list_remove(&s->node);
	if (mf_list_is_empty(&live_sims) && sigaction(SIGSEGV, NULL, &current) == 0 &&
	    (current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_segv)
		sigaction(SIGSEGV, &previous, NULL);
	sim_tlb_unlock();
}

SIM_UNWATCHED_END
