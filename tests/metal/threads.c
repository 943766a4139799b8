/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * threads.c - see threads.h: pthread_create(), pthread_join(), sched_yield().
 *
 * Owns the stacks of the threads and, for each CPU, the ring of those that live there.  What a CPU ran before there
 * were threads, x86_main() on the first one and take_turns() on the others, is in its ring as well: its base.
 *
 *   first CPU                                   CPU n
 *   pthread_create: into ring n; if it is idle  smp_run: take_turns(), the base
 *                                                 sched_yield() -> thread -> thread -> base -> ...
 *   pthread_join: sched_yield(), until          a thread ends: out of the ring, on to the next one, which says so
 *   it has ended; frees it                        the ring has its base only: idle again
 *
 * Laws: a thread runs on its home CPU only.  Its memory is free when the CPU has left its stack: has_ended is set by
 * whoever runs next.  The word at the end of a stack is never written.
 */
#include "tests/metal/threads.h"

#include "machines/x86_64/cpu.h"
#include "machines/x86_64/x86_64.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { STACK_BYTES = 64 << 10 };

static const uint64_t CANARY = 0x6d66737461636b21;

struct thread {
	struct mf_list node; /* of its CPU's ring: the lock of that                                         */
	uintptr_t sp;        /* while it does not run                                                        */
	uint64_t *stack;     /* NULL: a base                                                                 */
	void *(*run)(void *ctx);
	void *ctx, *result;
	bool has_ended;      /* atomic                                                                       */
	uint64_t own[THREAD_OWN_BYTES / sizeof(uint64_t)];
};

/* ring, is_busy: the lock's.  The rest is the CPU's own; but begin_ring() is whoever's comes first. */
static struct ring {
	_Alignas(64) struct mf_lock lock;
	struct mf_list ring;
	bool is_busy;              /* its base takes turns, or is about to                                */
	struct thread base;
	struct thread *running;    /* NULL: the base, and there was never another                         */
	struct thread *ended;      /* the one that ran before, if it has ended                            */
	unsigned nr_pins;
} rings[X86_CPUS_MAX];

/* Pushes what a function must keep, leaves this stack for the other, and goes on where that was left. */
void thread_switch(uintptr_t *sp, uintptr_t next_sp);
/* Where a stack that was never on a processor goes on. */
void thread_enter(void);

__asm__(".text\n"
	".globl thread_switch\n"
	"thread_switch:\n"
	"	pushq %rbx\n"
	"	pushq %rbp\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbp\n"
	"	popq %rbx\n"
	"	ret\n");

/* ---- One CPU ----------------------------------------------------------------------------------------------------- */

static struct ring *own_ring(void)
{
	return &rings[x86_this_cpu()->number];
}

static void lock_ring(struct ring *ring)
{
	while (!mf_lock_try(&ring->lock)) {
		smp_serve_flush();
		cpu_pause();
	}
}

static void unlock_ring(struct ring *ring)
{
	mf_lock_release(&ring->lock);
}

/* Under the lock. */
static void begin_ring(struct ring *ring)
{
	if (ring->running)
		return;
	mf_list_init(&ring->ring);
	mf_list_push_back(&ring->ring, &ring->base.node);
	ring->running = &ring->base;
}

static struct thread *after(struct ring *ring, struct thread *thread)
{
	struct mf_list *next = thread->node.next;

	return mf_container_of(next == &ring->ring ? next->next : next, struct thread, node);
}

static void check_stack(const struct thread *thread)
{
	MF_PANIC_IF(thread->stack && thread->stack[0] != CANARY, "tests: a thread's stack of %u KiB has overflowed.",
		    (unsigned)STACK_BYTES >> 10);
}

/* On the stack of the one that goes on, or begins. */
static void bury(struct ring *ring)
{
	struct thread *ended = ring->ended;

	ring->ended = NULL;
	if (ended)
		__atomic_store_n(&ended->has_ended, true, __ATOMIC_RELEASE);
}

static void switch_to(struct ring *ring, struct thread *next)
{
	struct thread *before = ring->running;

	check_stack(before);
	ring->running = next;
	MF_PANIC_IF(__atomic_load_n(&before->has_ended, __ATOMIC_RELAXED),
		    "tests: a thread has ended, and its CPU is on its stack.");
	thread_switch(&before->sp, next->sp);
	bury(ring);
}

static bool may_switch(const struct ring *ring)
{
	return ring->running && ring->nr_pins == 0 && cpu_flags() & CPU_RFLAGS_IF;
}

int sched_yield(void)
{
	struct ring *ring = own_ring();
	struct thread *next;

	smp_serve_flush();
	cpu_pause();
	if (!may_switch(ring))
		return 0;
	lock_ring(ring);
	next = after(ring, ring->running);
	unlock_ring(ring);
	if (next != ring->running)
		switch_to(ring, next);
	return 0;
}

void thread_pin(void)
{
	own_ring()->nr_pins++;
}

void thread_unpin(void)
{
	struct ring *ring = own_ring();

	MF_PANIC_IF(ring->nr_pins == 0, "tests: a thread lets go of its CPU more often than it held on to it.");
	ring->nr_pins--;
}

void *thread_own(void)
{
	struct ring *ring = own_ring();

	return ring->running ? ring->running->own : ring->base.own;
}

/* The base of a CPU, as long as others live there. */
static void take_turns(void *ctx)
{
	struct ring *ring = ctx;
	bool is_busy = true;

	while (is_busy) {
		sched_yield();
		lock_ring(ring);
		is_busy = ring->is_busy = ring->base.node.next != ring->base.node.prev;
		unlock_ring(ring);
	}
}

/* ---- One thread -------------------------------------------------------------------------------------------------- */

void thread_enter(void)
{
	struct ring *ring = own_ring();
	struct thread *self = ring->running, *next;

	bury(ring);
	self->result = self->run(self->ctx);
	MF_PANIC_IF(ring->nr_pins != 0, "tests: a thread ends and holds on to its CPU.");
	lock_ring(ring);
	next = after(ring, self);
	mf_list_remove(&self->node);
	unlock_ring(ring);
	ring->ended = self;
	switch_to(ring, next);
	mf_panic("tests: a thread that has ended goes on.");
}

/* As thread_switch() leaves a stack: six registers, and the address it returns to, where a call would have put one. */
static void prepare_stack(struct thread *thread)
{
	uint64_t *top = &thread->stack[STACK_BYTES / sizeof(uint64_t)];

	thread->stack[0] = CANARY;
	top[-2] = (uintptr_t)thread_enter;
	thread->sp = (uintptr_t)&top[-8];
}

static void live_on(unsigned cpu, struct thread *thread)
{
	struct ring *ring = &rings[cpu];
	bool was_busy;

	lock_ring(ring);
	begin_ring(ring);
	mf_list_push_back(&ring->ring, &thread->node);
	was_busy = ring->is_busy;
	ring->is_busy = true;
	unlock_ring(ring);
	if (cpu == x86_this_cpu()->number || was_busy)
		return;
	smp_wait(cpu); /* it may not have left its last turns yet */
	smp_run(cpu, take_turns, ring);
}

/* The first CPU's. */
static unsigned nr_threads, nr_created;

int pthread_create(pthread_t *out, const void *attributes, void *(*run)(void *ctx), void *ctx)
{
	struct thread *thread = calloc(1, sizeof(*thread));

	MF_PANIC_IF(attributes || x86_this_cpu()->number != 0,
		    "tests: threads come from the first CPU, and are alike.");
	if (!thread)
		return 1;
	thread->stack = malloc(STACK_BYTES);
	if (!thread->stack) {
		free(thread);
		return 1;
	}
	thread->run = run;
	thread->ctx = ctx;
	prepare_stack(thread);
	*out = thread;
	if (nr_threads++ == 0)
		nr_created = 0;
	live_on(++nr_created % x86_nr_cpus, thread);
	return 0;
}

int pthread_join(pthread_t thread, void **result)
{
	while (!__atomic_load_n(&thread->has_ended, __ATOMIC_ACQUIRE))
		sched_yield();
	check_stack(thread);
	if (result)
		*result = thread->result;
	free(thread->stack);
	free(thread);
	nr_threads--;
	return 0;
}
