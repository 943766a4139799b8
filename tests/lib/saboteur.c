/* SPDX-License-Identifier: BSD-2-Clause */
/* saboteur.c - operations passed on to the sim, but for one. */
#include "tests/lib/saboteur.h"

static struct saboteur *saboteur_of(struct mf_machine *m)
{
	return mf_container_of(m, struct saboteur, machine);
}

static struct mf_machine *inner_of(struct mf_machine *m)
{
	return saboteur_of(m)->inner;
}

static void *pass_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	return inner_of(m)->ops->meta_alloc(inner_of(m), size_bytes);
}

static void pass_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	inner_of(m)->ops->meta_free(inner_of(m), memory, size_bytes);
}

static int pass_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	return inner_of(m)->ops->window_reserve(inner_of(m), size_bytes, align_bytes, base);
}

static void pass_window_release(struct mf_machine *m, void *base, uint64_t size_bytes)
{
	inner_of(m)->ops->window_release(inner_of(m), base, size_bytes);
}

static void pass_window_attach(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root)
{
	inner_of(m)->ops->window_attach(inner_of(m), base, size_bytes, root);
}

static int spoilt_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	if (saboteur_of(m)->what == SABOTAGE_RAM)
		return -MF_ENOMEM;
	return inner_of(m)->ops->ram_get(inner_of(m), node, order, pfn);
}

static void spoilt_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn)
{
	struct saboteur *s = saboteur_of(m);

	if (s->putting)
		s->putting(s->watch_ctx, pfn, order);
	if (s->what != SABOTAGE_RAM_LEAK)
		inner_of(m)->ops->ram_put(inner_of(m), node, order, pfn);
}

static void spoilt_direct_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable)
{
	if (saboteur_of(m)->what != SABOTAGE_PROTECT)
		inner_of(m)->ops->direct_protect(inner_of(m), pfn, writable);
}

static unsigned spoilt_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct saboteur *s = saboteur_of(m);
	const struct mf_machine_ops *ops = s->inner->ops;
	unsigned nr_sent = 0;

	s->nr_flushes++;
	if (s->flushing)
		s->flushing(s->watch_ctx, start, size_bytes, scope);
	switch (s->what) {
	case SABOTAGE_FLUSH:
		break;
	case SABOTAGE_FLUSH_SCOPE:
		nr_sent = ops->flush(s->inner, start, size_bytes, MF_FLUSH_LEAVES);
		break;
	case SABOTAGE_FLUSH_LATE:
		if (s->late_bytes)
			nr_sent = ops->flush(s->inner, s->late_start, s->late_bytes, s->late_scope);
		s->late_start = start;
		s->late_bytes = size_bytes;
		s->late_scope = scope;
		break;
	default:
		nr_sent = ops->flush(s->inner, start, size_bytes, scope);
	}
	if (s->flushed)
		s->flushed(s->watch_ctx, start, size_bytes, scope);
	return nr_sent;
}

static unsigned played_cpu(struct mf_machine *m)
{
	return saboteur_of(m)->cpu;
}

static void spoilt_relax(struct mf_machine *m)
{
	struct saboteur *s = saboteur_of(m);

	if (s->relaxed)
		s->relaxed(s->relaxed_ctx);
	s->inner->ops->relax(s->inner);
}

static void *pass_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames)
{
	return inner_of(m)->ops->data(inner_of(m), pfn, nr_frames);
}

static const struct mf_machine_ops saboteur_ops = {
	.name = "saboteur",
	.meta_alloc = pass_meta_alloc,
	.meta_free = pass_meta_free,
	.window_reserve = pass_window_reserve,
	.window_release = pass_window_release,
	.window_attach = pass_window_attach,
	.ram_get = spoilt_ram_get,
	.ram_put = spoilt_ram_put,
	.direct_protect = spoilt_direct_protect,
	.flush = spoilt_flush,
	.cpu = played_cpu,
	.relax = spoilt_relax,
	.data = pass_data,
};

struct mf_machine *saboteur_wrap(void *ctx, struct mf_machine *machine)
{
	struct saboteur *s = ctx;

	s->inner = machine;
	s->machine = *machine;
	s->machine.ops = &saboteur_ops;
	if (s->nr_cpus)
		s->machine.nr_cpus = s->nr_cpus;
	return &s->machine;
}
