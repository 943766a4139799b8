/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flat_machine.c - physical memory as one array (see flat_machine.h).
 *
 * Owns the array and what is recorded about its frames.  Law: put takes what get gave, or the machine panics.
 */
#include "flat_machine.h"

#include <stdlib.h>
#include <string.h>

enum { META_ALIGN = 64, JUNK = 0xa5 };

static struct flat_machine *flat_of(struct mf_machine *m)
{
	return mf_container_of(m, struct flat_machine, machine);
}

static void *flat_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	size_t rounded = mf_round_up(size_bytes, META_ALIGN);
	void *memory = aligned_alloc(META_ALIGN, rounded);

	(void)m;
	return memory ? memset(memory, 0, rounded) : NULL;
}

static void flat_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	(void)m;
	(void)size_bytes;
	free(memory);
}

static bool flat_is_free(const struct flat_machine *flat, mf_pfn_t pfn, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		if (flat->taken[pfn + i])
			return false;
	return true;
}

static int flat_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct flat_machine *flat = flat_of(m);
	uint64_t nr = (uint64_t)1 << order;

	(void)node;
	if (flat->ram_fails_at == 1)
		return -MF_ENOMEM;
	if (flat->ram_fails_at > 1)
		flat->ram_fails_at--;
	for (mf_pfn_t at = 0; at + nr <= flat->nr_frames; at += nr) {
		if (!flat_is_free(flat, at, nr))
			continue;
		memset(flat->taken + at, true, nr);
		memset(mf_machine_frame(m, at), JUNK, nr << m->paging.page_shift);
		flat->nr_free -= nr;
		*pfn = at;
		return 0;
	}
	return -MF_ENOMEM;
}

static void flat_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn)
{
	struct flat_machine *flat = flat_of(m);
	uint64_t nr = (uint64_t)1 << order;

	(void)node;
	for (uint64_t i = 0; i < nr; i++) {
		MF_PANIC_IF(pfn + i >= flat->nr_frames || pfn + i == 0 || !flat->taken[pfn + i],
			    "flat machine: frame %llu is given back but was not taken.", (unsigned long long)(pfn + i));
		MF_PANIC_IF(flat->read_only[pfn + i], "flat machine: frame %llu is given back read-only.",
			    (unsigned long long)(pfn + i));
		flat->taken[pfn + i] = false;
	}
	flat->nr_free += nr;
}

static void flat_direct_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable)
{
	struct flat_machine *flat = flat_of(m);

	MF_PANIC_IF(pfn >= flat->nr_frames, "flat machine: there is no frame %llu.", (unsigned long long)pfn);
	if (flat->read_only[pfn] == writable)
		flat->nr_read_only += writable ? UINT64_MAX : 1;
	flat->read_only[pfn] = !writable;
}

static unsigned flat_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct flat_machine *flat = flat_of(m);

	(void)start;
	(void)size_bytes;
	flat->nr_flushes++;
	flat->last_flush = scope;
	return 0;
}

static unsigned flat_cpu(struct mf_machine *m)
{
	(void)m;
	return 0;
}

static void flat_relax(struct mf_machine *m)
{
	(void)m;
}

static const struct mf_machine_ops flat_ops = {
	.name = "flat",
	.meta_alloc = flat_meta_alloc,
	.meta_free = flat_meta_free,
	.ram_get = flat_ram_get,
	.ram_put = flat_ram_put,
	.direct_protect = flat_direct_protect,
	.flush = flat_flush,
	.cpu = flat_cpu,
	.relax = flat_relax,
};

int flat_machine_create(struct flat_machine *flat, struct mf_paging paging, uint64_t nr_frames)
{
	size_t frame_bytes = (size_t)1 << paging.page_shift;

	*flat = (struct flat_machine){
		.machine = {.ops = &flat_ops,
			    .paging = paging,
			    .backing = MF_WINDOW_TABLES,
			    .unbacked = MF_UNBACKED_ZERO,
			    .nr_cpus = 1,
			    .direct_map = aligned_alloc(frame_bytes, nr_frames * frame_bytes)},
		.nr_frames = nr_frames,
		.nr_free = nr_frames - 1,
		.taken = calloc(nr_frames, sizeof(bool)),
		.read_only = calloc(nr_frames, sizeof(bool)),
	};
	if (!flat->machine.direct_map || !flat->taken || !flat->read_only) {
		flat_machine_destroy(flat);
		return -MF_ENOMEM;
	}
	memset(flat->machine.direct_map, JUNK, nr_frames * frame_bytes);
	flat->taken[0] = true;
	return 0;
}

void flat_machine_destroy(struct flat_machine *flat)
{
	free(flat->machine.direct_map);
	free(flat->taken);
	free(flat->read_only);
	*flat = (struct flat_machine){0};
}
