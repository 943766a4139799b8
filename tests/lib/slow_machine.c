/* SPDX-License-Identifier: BSD-2-Clause */
/* slow_machine.c - see slow_machine.h.  Every operation is forwarded; the noise is in front of it. */
#include "tests/lib/slow_kind.h"

#include <sched.h>

static struct slow_machine *slow_of(struct mf_machine *m)
{
	return mf_container_of(m, struct slow_machine, machine);
}

struct mf_machine *slow_dawdle(struct mf_machine *m)
{
	const struct slow_machine *slow = slow_of(m);
	struct slow_thread *self = slow_thread();

	if (self->noise == 0)
		self->noise = (uint64_t)(uintptr_t)self;
	if (slow->yields_in && slow_random(&self->noise) % slow->yields_in == 0)
		sched_yield();
	return slow->inner;
}

static void *slow_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);

	return inner->ops->meta_alloc(inner, size_bytes);
}

static void slow_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);

	inner->ops->meta_free(inner, memory, size_bytes);
}

static int slow_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	struct mf_machine *inner = slow_dawdle(m);

	return inner->ops->window_reserve(inner, size_bytes, align_bytes, base);
}

static void slow_window_release(struct mf_machine *m, void *base, uint64_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);

	inner->ops->window_release(inner, base, size_bytes);
}

static int slow_host_populate(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);
	int err = inner->ops->host_populate(inner, addr, size_bytes);

	slow_dawdle(m);
	return err;
}

static void slow_host_discard(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);
	struct slow_machine *slow = slow_of(m);

	if (slow->on_discard)
		slow->on_discard(slow->ctx, (uintptr_t)addr, size_bytes);
	inner->ops->host_discard(inner, addr, size_bytes);
	slow_dawdle(m);
}

static int slow_host_share(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);

	return inner->ops->host_share(inner, addr, size_bytes);
}

static int slow_host_alias(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target)
{
	struct mf_machine *inner = slow_dawdle(m);
	struct slow_machine *slow = slow_of(m);
	int err;

	if (slow->on_alias)
		slow->on_alias(slow->ctx, (uintptr_t)addr, size_bytes);
	err = inner->ops->host_alias(inner, addr, size_bytes, target);
	slow_dawdle(m);
	return err;
}

static int slow_host_unalias(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = slow_dawdle(m);
	int err = inner->ops->host_unalias(inner, addr, size_bytes);

	slow_dawdle(m);
	return err;
}

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

static void slow_window_attach(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root)
{
	struct mf_machine *inner = slow_dawdle(m);

	inner->ops->window_attach(inner, base, size_bytes, root);
}

static int slow_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct mf_machine *inner = slow_dawdle(m);

	return inner->ops->ram_get(inner, node, order, pfn);
}

static void slow_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn)
{
	struct mf_machine *inner = slow_dawdle(m);

	inner->ops->ram_put(inner, node, order, pfn);
}

static void slow_direct_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable)
{
	struct mf_machine *inner = slow_dawdle(m);

	inner->ops->direct_protect(inner, pfn, writable);
}

static unsigned slow_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct mf_machine *inner = slow_dawdle(m);
	struct slow_machine *slow = slow_of(m);
	unsigned nr_sent;

	if (slow->on_flush)
		slow->on_flush(slow->ctx, start, size_bytes);
	nr_sent = inner->ops->flush(inner, start, size_bytes, scope);
	slow_dawdle(m);
	return nr_sent;
}

/* ---- Processors ------------------------------------------------------------------------------------------------ */

static unsigned slow_cpu(struct mf_machine *m)
{
	struct mf_machine *inner = slow_dawdle(m);

	return inner->ops->cpu(inner);
}

void slow_relax(struct mf_machine *m)
{
	struct mf_machine *inner = slow_dawdle(m);
	struct slow_machine *slow = slow_of(m);

	if (slow->on_relax)
		slow->on_relax(slow->ctx);
	inner->ops->relax(inner);
}

static bool slow_may_use(struct mf_machine *m)
{
	struct mf_machine *inner = slow_of(m)->inner;

	return inner->ops->may_use(inner);
}

static void *slow_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames)
{
	struct mf_machine *inner = slow_dawdle(m);

	return inner->ops->data(inner, pfn, nr_frames);
}

/* Where the inner machine has none, there is none. */
#define FORWARD(op, inner) .op = (inner)->op ? slow_##op : NULL

static struct mf_machine_ops ops_in_front_of(const struct mf_machine_ops *inner)
{
	return (struct mf_machine_ops){
		.name = "slow",
		.meta_alloc = slow_meta_alloc,
		.meta_free = slow_meta_free,
		.window_reserve = slow_window_reserve,
		.window_release = slow_window_release,
		FORWARD(window_attach, inner),
		FORWARD(host_populate, inner),
		FORWARD(host_discard, inner),
		FORWARD(host_share, inner),
		FORWARD(host_alias, inner),
		FORWARD(host_unalias, inner),
		FORWARD(ram_get, inner),
		FORWARD(ram_put, inner),
		FORWARD(direct_protect, inner),
		FORWARD(flush, inner),
		.cpu = slow_cpu,
		.relax = slow_relax,
		FORWARD(may_use, inner),
		FORWARD(data, inner),
	};
}

/* ---- Creation and end ------------------------------------------------------------------------------------------ */

int slow_machine_create(struct slow_machine *slow, enum slow_kind kind, uint64_t nr_frames)
{
	int err;

	*slow = (struct slow_machine){ .kind = kind };
	err = slow_kind_create(slow, nr_frames);
	if (err)
		return err;
	slow->ops = ops_in_front_of(slow->inner->ops);
	slow_kind_change_ops(slow);
	slow->machine = *slow->inner;
	slow->machine.ops = &slow->ops;
	return 0;
}

void slow_machine_destroy(struct slow_machine *slow)
{
	slow_kind_destroy(slow);
}

bool slow_thread_register(struct slow_machine *slow)
{
	struct slow_thread *self = slow_thread();

	self->number = 1 + atomic_fetch_add(&slow->nr_threads, 1);
	return self->number < SLOW_CPUS && slow_kind_register(slow, self->number);
}

unsigned slow_thread_number(void)
{
	return slow_thread()->number;
}
