/* SPDX-License-Identifier: BSD-2-Clause */
/* slow_machine.c - see slow_machine.h.  Every operation is forwarded; the noise is in front of it. */
#include "tests/lib/slow_machine.h"

#include <memfold/sim.h>
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

static int slow_share(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);

	return inner->ops->host_share(inner, addr, size_bytes);
}

static int slow_alias(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target)
{
	struct mf_machine *inner = dawdle(m);
	struct slow_machine *slow = slow_of(m);
	int err;

	if (slow->on_alias)
		slow->on_alias(slow->ctx, (uintptr_t)addr, size_bytes);
	err = inner->ops->host_alias(inner, addr, size_bytes, target);
	dawdle(m);
	return err;
}

static int slow_unalias(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct mf_machine *inner = dawdle(m);
	int err = inner->ops->host_unalias(inner, addr, size_bytes);

	dawdle(m);
	return err;
}

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

static void slow_attach(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root)
{
	struct mf_machine *inner = dawdle(m);

	inner->ops->window_attach(inner, base, size_bytes, root);
}

static int slow_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct mf_machine *inner = dawdle(m);

	return inner->ops->ram_get(inner, node, order, pfn);
}

static void slow_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn)
{
	struct mf_machine *inner = dawdle(m);

	inner->ops->ram_put(inner, node, order, pfn);
}

static void slow_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable)
{
	struct mf_machine *inner = dawdle(m);

	inner->ops->direct_protect(inner, pfn, writable);
}

static void slow_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct mf_machine *inner = dawdle(m);
	struct slow_machine *slow = slow_of(m);

	if (slow->on_flush)
		slow->on_flush(slow->ctx, start, size_bytes);
	inner->ops->flush(inner, start, size_bytes, scope);
	dawdle(m);
}

/* ---- Processors ------------------------------------------------------------------------------------------------ */

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
	.cpu = slow_cpu,
	.relax = slow_relax,
	.data = slow_data,
};

static int create_linux(struct slow_machine *slow)
{
	const struct mf_linux_config config = { .max_threads = SLOW_CPUS };
	struct mf_machine_ops *ops = &slow->ops;
	int err = mf_linux_create(&config, &slow->inner);

	ops->host_populate = slow_populate;
	ops->host_discard = slow_discard;
	ops->host_share = slow_share;
	ops->host_alias = slow_alias;
	ops->host_unalias = slow_unalias;
	ops->may_use = slow_may_use;
	return err;
}

static int create_sim(struct slow_machine *slow, uint64_t nr_frames)
{
	const struct mf_sim_config config = {
		.paging = mf_paging_x86_64(4),
		.nr_frames = nr_frames,
		.nr_ram_frames = nr_frames / 16 + 4096,
		.flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE,
		.nr_cpus = SLOW_CPUS,
	};
	struct mf_machine_ops *ops = &slow->ops;
	int err = mf_sim_create(&config, &slow->inner);

	mf_sim_cpu_set(0);
	ops->window_attach = slow_attach;
	ops->ram_get = slow_ram_get;
	ops->ram_put = slow_ram_put;
	ops->direct_protect = slow_protect;
	ops->flush = slow_flush;
	return err;
}

int slow_machine_create(struct slow_machine *slow, enum slow_kind kind, uint64_t nr_frames)
{
	int err;

	*slow = (struct slow_machine){ .ops = slow_ops, .kind = kind };
	err = kind == SLOW_TABLES ? create_sim(slow, nr_frames) : create_linux(slow);
	if (err)
		return err;
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
	if (slow->kind == SLOW_TABLES)
		mf_sim_destroy(slow->inner);
	else
		mf_linux_destroy(slow->inner);
}

bool slow_thread_register(struct slow_machine *slow)
{
	unsigned cpu = 1 + atomic_fetch_add(&slow->nr_threads, 1);

	if (slow->kind != SLOW_TABLES)
		return mf_linux_thread_register(slow->inner) == 0;
	mf_sim_cpu_set(cpu);
	return cpu < SLOW_CPUS;
}
