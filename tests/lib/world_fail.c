/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * world_fail.c - the n-th allocation fails, on any machine: for a while the map meets operations that count in front
 * of the machine's own.
 */
#include "tests/lib/world.h"

static struct world_fail *fail_of(struct mf_machine *m)
{
	return mf_container_of(m->ops, struct world_fail, ops);
}

static bool fails_now(struct world_fail *fail, enum world_sort sort)
{
	if (fail->sort != sort && fail->sort != WORLD_ANY)
		return false;
	return ++fail->nr == fail->at;
}

static int failing_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct world_fail *fail = fail_of(m);

	return fails_now(fail, WORLD_RAM) ? -MF_ENOMEM : fail->inner->ram_get(m, node, order, pfn);
}

static int failing_populate(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	struct world_fail *fail = fail_of(m);

	return fails_now(fail, WORLD_RAM) ? -MF_ENOMEM : fail->inner->host_populate(m, addr, size_bytes);
}

static void *failing_meta(struct mf_machine *m, size_t size_bytes)
{
	struct world_fail *fail = fail_of(m);

	return fails_now(fail, WORLD_META) ? NULL : fail->inner->meta_alloc(m, size_bytes);
}

static int failing_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	struct world_fail *fail = fail_of(m);

	return fails_now(fail, WORLD_ANY) ? -MF_ENOMEM : fail->inner->window_reserve(m, size_bytes, align_bytes, base);
}

void world_fail(struct world *w, enum world_sort sort, uint64_t n)
{
	struct world_fail *fail = &w->fail;

	*fail = (struct world_fail){ .ops = *w->machine->ops, .inner = w->machine->ops, .sort = sort, .at = n };
	if (fail->ops.ram_get)
		fail->ops.ram_get = failing_ram_get;
	if (fail->ops.host_populate)
		fail->ops.host_populate = failing_populate;
	fail->ops.meta_alloc = failing_meta;
	fail->ops.window_reserve = failing_reserve;
	w->machine->ops = &fail->ops;
}

uint64_t world_fail_end(struct world *w)
{
	w->machine->ops = w->fail.inner;
	return w->fail.nr;
}
