/* SPDX-License-Identifier: BSD-2-Clause */
/* slow_machine.c - see slow_machine.h.  Every operation is forwarded; the noise is in front of it. */
#include "tests/lib/slow_machine.h"

#include <sched.h>

static _Thread_local uint64_t noise_state;

static struct slow_machine *slow_of(struct mf_machine *m)
{
	return mf_container_of(m, struct slow_machine, machine);
}

static struct mf_machine *dawdle(struct mf_machine *m)
{
	const struct slow_machine *slow = slow_of(m);

	if (noise_state == 0)
		noise_state = (uint64_t)(uintptr_t)&noise_state;
	if (slow->yields_in && slow_random(&noise_state) % slow->yields_in == 0)
		sched_yield();
	return slow->inner;
}

static void *slow_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);

	return inner->ops->meta_alloc(inner, size_bytes);
}

static void slow_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);

	inner->ops->meta_free(inner, memory, size_bytes);
}

static int slow_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	struct mf_machine *inner = dawdle(m);

	return inner->ops->window_reserve(inner, size_bytes, align_bytes, base);
}

static void slow_window_release(struct mf_machine *m, void *base, uint64_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);

	inner->ops->window_release(inner, base, size_bytes);
}

static int slow_populate(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);
	int err = inner->ops->host_populate(inner, addr, size_bytes);

	dawdle(m);
	return err;
}

static void slow_discard(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);
	struct slow_machine *slow = slow_of(m);

	if (slow->on_discard)
		slow->on_discard(slow->ctx, (uintptr_t)addr, size_bytes);
	inner->ops->host_discard(inner, addr, size_bytes);
	dawdle(m);
}

static unsigned slow_cpu(struct mf_machine *m)
{
	struct mf_machine *inner = dawdle(m);

	return inner->ops->cpu(inner);
}

static void slow_relax(struct mf_machine *m)
{
	struct mf_machine *inner = dawdle(m);
	struct slow_machine *slow = slow_of(m);

	if (slow->on_relax)
		slow->on_relax(slow->ctx);
	inner->ops->relax(inner);
}

/* Before a lock is taken and after it was given up: where another may come in between. */
static void slow_pin(struct mf_machine *m)
{
	dawdle(m);
}

static bool slow_may_use(struct mf_machine *m)
{
	struct mf_machine *inner = slow_of(m)->inner;

	return inner->ops->may_use(inner);
}

static void *slow_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames)
{
	struct mf_machine *inner = dawdle(m);

	return inner->ops->data(inner, pfn, nr_frames);
}

static const struct mf_machine_ops slow_ops = {
	.name = "slow",
	.meta_alloc = slow_meta_alloc,
	.meta_free = slow_meta_free,
	.window_reserve = slow_window_reserve,
	.window_release = slow_window_release,
	.host_populate = slow_populate,
	.host_discard = slow_discard,
	.cpu = slow_cpu,
	.relax = slow_relax,
	.may_use = slow_may_use,
	.data = slow_data,
};

int slow_machine_create(struct slow_machine *slow, enum slow_kind kind)
{
	const struct mf_linux_config config = { .max_threads = 32 };
	int err;

	*slow = (struct slow_machine){ 0 };
	err = mf_linux_create(&config, &slow->inner);
	if (err)
		return err;
	slow->ops = slow_ops;
	if (kind == SLOW_PINNED) {
		slow->ops.pin_cpu = slow_pin;
		slow->ops.unpin_cpu = slow_pin;
	}
	slow->machine = *slow->inner;
	slow->machine.ops = &slow->ops;
	return 0;
}

void slow_machine_destroy(struct slow_machine *slow)
{
	mf_linux_destroy(slow->inner);
}
