/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim.c - the sim itself: creation and end, the table of operations, counters, and what a broken contract does here.
 *
 * Owns the record of a sim and the memfd behind its frames.  Keeps: creation touches no frame, so that the size
 * described costs nothing.  Memory, windows, the TLB and faults are in the files beside this one.
 */
#include "machines/sim/sim.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The direct map, the epochs and the windows have to fit below this, with room to spare. */
#define MAPPED_BYTES_MAX ((uint64_t)1 << 46)

static void panic_default(void *ctx, const char *sentence)
{
	(void)ctx;
	fprintf(stderr, "%s\n", sentence);
	abort();
}

/* Before main(), so that it never replaces a hook that the program set. */
__attribute__((constructor)) static void panic_default_install(void)
{
	mf_panic_default_set(panic_default);
}

struct sim *sim_of(struct mf_machine *machine)
{
	MF_PANIC_IF(machine->ops->flush != sim_flush, "memfold: sim: a machine of another kind (%s) was passed to it.",
		    machine->ops->name);
	return mf_container_of(machine, struct sim, machine);
}

/* Every thread runs on the one CPU; whoever holds a lock may have lost it, hence the yield below. */
static unsigned sim_cpu(struct mf_machine *m)
{
	(void)m;
	return 0;
}

/* Where there are several, a thread is the one that it has said. */
static _Thread_local unsigned cpu_of_thread = MF_CPUS_MAX;

static unsigned sim_cpu_of_thread(struct mf_machine *m)
{
	MF_PANIC_IF(cpu_of_thread >= m->nr_cpus, "memfold: sim: a thread that is none of the %u CPUs calls: see "
						 "mf_sim_cpu_set().", m->nr_cpus);
	return cpu_of_thread;
}

void mf_sim_cpu_set(unsigned cpu)
{
	cpu_of_thread = cpu;
}

static void sim_relax(struct mf_machine *m)
{
	(void)m;
	sched_yield();
}

static void *sim_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames)
{
	const struct sim *s = sim_of(m);
	uint64_t end;

	if (!mf_add_fits(pfn, nr_frames, &end) || end > s->nr_frames)
		return NULL;
	return mf_machine_frame(m, pfn);
}

static const struct mf_machine_ops sim_ops = {
	.name = "sim",
	.meta_alloc = sim_meta_alloc,
	.meta_free = sim_meta_free,
	.window_reserve = sim_window_reserve,
	.window_release = sim_window_release,
	.window_attach = sim_window_attach,
	.ram_get = sim_ram_get,
	.ram_put = sim_ram_put,
	.direct_protect = sim_direct_protect,
	.flush = sim_flush,
	.cpu = sim_cpu,
	.relax = sim_relax,
	.data = sim_data,
};

/* ---- Creation and end --------------------------------------------------------------------------------------- */

static bool paging_is_possible(const struct mf_paging *p)
{
	return p->page_shift >= 12 && p->page_shift <= 16 && p->levels >= 2 && p->levels <= MF_PGTABLE_LEVELS_MAX &&
	       p->page_shift + (p->levels - 1) * (p->page_shift - 3) < 64 &&
	       p->max_leaf_level <= p->levels - 2 && p->present_mask != 0 && p->address_mask != 0 &&
	       (p->address_mask & (((uint64_t)1 << p->page_shift) - 1)) == 0 &&
	       p->frame0 % ((uint64_t)1 << (p->page_shift + p->max_leaf_level * (p->page_shift - 3))) == 0;
}

/* Bytes of frames and of the epochs behind them. */
static int measure(const struct mf_sim_config *config, uint64_t *direct_bytes, uint64_t *mapped_bytes)
{
	const uint64_t known_flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE;
	uint64_t page, nr, last;

	if (!paging_is_possible(&config->paging) || (config->flags & ~known_flags) || config->nr_cpus > MF_CPUS_MAX)
		return -MF_EINVAL;
	page = (uint64_t)1 << config->paging.page_shift;
	if (!mf_add_fits(config->nr_frames, config->nr_ram_frames, &nr))
		return -MF_E2BIG;
	if (nr == 0)
		return -MF_EINVAL;
	if (!mf_mul_fits(nr, page, direct_bytes) || *direct_bytes > MAPPED_BYTES_MAX ||
	    !mf_add_fits(*direct_bytes - page, config->paging.frame0, &last) || last & ~config->paging.address_mask)
		return -MF_E2BIG;
	*mapped_bytes = *direct_bytes + mf_round_up(nr * sizeof(uint64_t), page);
	return 0;
}

/* The epochs lie behind the frames in the memfd: sparse like them, and no promise of memory to a strict host. */
static int frames_map(struct sim *s, uint64_t direct_bytes)
{
	void *at;

	s->memfd = memfd_create("memfold-sim", MFD_CLOEXEC);
	if (s->memfd < 0)
		return -MF_ENOMEM;
	if (ftruncate(s->memfd, (off_t)s->mapped_bytes) != 0)
		goto out_close;
	at = mmap(NULL, s->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->memfd, 0);
	if (at == MAP_FAILED)
		goto out_close;
	s->machine.direct_map = at;
	s->table_epoch = (uint64_t *)(void *)(s->machine.direct_map + direct_bytes);
	return 0;
out_close:
	close(s->memfd);
	return -MF_ENOMEM;
}

static void frames_unmap(struct sim *s)
{
	munmap(s->machine.direct_map, s->mapped_bytes);
	close(s->memfd);
}

static void record_free(struct sim *s)
{
	free(s->ram);
	free(s->fills);
	free(s);
}

static struct sim *record_alloc(const struct mf_sim_config *config)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fills = calloc(MF_SIM_FILLS_MAX, sizeof(*s->fills));
	s->ram = calloc(mf_max(config->nr_ram_frames, 1), sizeof(*s->ram));
	if (!s->fills || !s->ram) {
		record_free(s);
		return NULL;
	}
	s->ops = sim_ops;
	if (config->nr_cpus > 1)
		s->ops.cpu = sim_cpu_of_thread;
	s->machine = (struct mf_machine){
		.ops = &s->ops,
		.paging = config->paging,
		.backing = MF_WINDOW_TABLES,
		.unbacked = MF_UNBACKED_ZERO,
		.nr_cpus = config->nr_cpus ? config->nr_cpus : 1,
	};
	s->nr_frames = config->nr_frames;
	s->nr_ram_frames = config->nr_ram_frames;
	s->flags = config->flags;
	s->epoch = 1;
	mf_lock_init(&s->lock);
	return s;
}

int mf_sim_create(const struct mf_sim_config *config, struct mf_machine **out)
{
	uint64_t direct_bytes, mapped_bytes;
	struct sim *s;
	int error = measure(config, &direct_bytes, &mapped_bytes);

	if (error)
		return error;
	s = record_alloc(config);
	if (!s)
		return -MF_ENOMEM;
	s->mapped_bytes = mapped_bytes;
	error = frames_map(s, direct_bytes);
	if (error)
		goto out_record;
	error = sim_fault_insert(s);
	if (error)
		goto out_frames;
	*out = &s->machine;
	return 0;
out_frames:
	frames_unmap(s);
out_record:
	record_free(s);
	return error;
}

void mf_sim_destroy(struct mf_machine *machine)
{
	struct sim *s = sim_of(machine);

	sim_window_release_all(s);
	sim_fault_remove(s);
	frames_unmap(s);
	record_free(s);
}

/* ---- Counters ----------------------------------------------------------------------------------------------- */

void mf_sim_stats(struct mf_machine *machine, struct mf_sim_stats *stats)
{
	struct sim *s = sim_of(machine);

	sim_tlb_lock();
	stats->nr_fills = s->nr_fills;
	stats->fills = s->fills_ever;
	stats->flushes = s->flushes;
	stats->table_flushes = s->table_flushes;
	stats->stray_writes = s->stray_writes;
	stats->faults = s->faults;
	sim_tlb_unlock();

	mf_machine_lock(machine, &s->lock);
	stats->nr_ram_used = s->nr_ram_used;
	stats->nr_meta_used = s->nr_meta_used;
	stats->meta_used_bytes = s->meta_used_bytes;
	stats->ram_calls = s->fail_ram.calls;
	stats->meta_calls = s->fail_meta.calls;
	stats->any_calls = s->fail_any.calls;
	mf_machine_unlock(machine, &s->lock);
}

uint64_t mf_sim_ram_used(struct mf_machine *machine)
{
	struct mf_sim_stats stats;

	mf_sim_stats(machine, &stats);
	return stats.nr_ram_used;
}
