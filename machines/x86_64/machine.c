/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * machine.c - struct mf_machine on bare metal: what the core asks for, answered by the files beside this one.
 *
 * Owns the machines, which window belongs to which, and what is counted for each.  Laws: a machine's RAM is no other
 * machine's; a window's tables are those of its map from attach to release, and no processor holds a translation of it
 * when release returns.
 *
 *   top table     ... | window 0 | window 1 | ...      an entry each, 512 GiB: the root of a map's own tables, so that
 *                          |                           paging.levels is 3 whether the processor walks 4 levels or 5
 *                     [ root of the map's tables ]
 *
 * Interrupts.  The core may be called with interrupts on or off, and does not change that.  A CPU runs one thread, so
 * there is nothing to pin; but what runs in an interrupt must not call the core, which may hold a lock just there: the
 * handlers of this machine do not.  A flush waits for every CPU.  One with interrupts on answers by its handler.  One
 * with interrupts off answers where it waits itself: in a flush, or in relax(), and so in every loop of the core that
 * waits for a lock, for readers, or for another's transition.  So nobody waits for a CPU that waits; a CPU that does
 * something else for long with interrupts off holds up the others' flushes for that long, and no more.
 */
#include "machines/x86_64/ram.h"
#include "machines/x86_64/x86_64.h"

struct x86_machine {
	struct mf_machine machine; /* first: the core holds a pointer to it                                      */
	struct mf_list node;       /* machines.lock                                                            */
	uint64_t first_paddr;
	struct ram ram;
	uint64_t fail_ram, fail_any; /* atomic: calls until one fails, that one included; 0: none does           */
	uint64_t nr_meta_used, nr_flushes, nr_flushed_bytes; /* atomic                                         */
};

struct window {
	const struct x86_machine *owner; /* NULL: nobody's                                                      */
	uint64_t size_bytes;
};

static struct {
	struct mf_lock lock;
	struct mf_list list;
	struct window window[X86_NR_WINDOWS];
} machines = {.list = {&machines.list, &machines.list}};

MF_BUILD_ASSERT(X86_WINDOWS % X86_WINDOW_BYTES == 0, "a window begins where its entry of the top table does");

static void lock_machines(void)
{
	while (!mf_lock_try(&machines.lock))
		__builtin_ia32_pause();
}

static void unlock_machines(void)
{
	mf_lock_release(&machines.lock);
}

static unsigned x86_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);

static struct x86_machine *machine_of(struct mf_machine *m)
{
	MF_PANIC_IF(m->ops->flush != x86_flush, "memfold: x86_64: a machine of another kind (%s) was passed to it.",
		    m->ops->name);
	return mf_container_of(m, struct x86_machine, machine);
}

static uint64_t frame_paddr(const struct x86_machine *x, mf_pfn_t pfn)
{
	return x->first_paddr + (pfn << X86_PAGE_SHIFT);
}

static void count(uint64_t *counter, uint64_t nr)
{
	(void)__atomic_fetch_add(counter, nr, __ATOMIC_RELAXED);
}

/* One call less to go; true when this is the one. */
static bool fails_now(uint64_t *calls)
{
	uint64_t left = __atomic_load_n(calls, __ATOMIC_RELAXED);

	while (left > 0)
		if (__atomic_compare_exchange_n(calls, &left, left - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return left == 1;
	return false;
}

/* ---- Control memory and RAM -------------------------------------------------------------------------------------- */

static void *x86_meta_alloc(struct mf_machine *m, size_t size_bytes)
{
	struct x86_machine *x = machine_of(m);
	void *memory = fails_now(&x->fail_any) ? NULL : heap_alloc(size_bytes);

	if (memory)
		count(&x->nr_meta_used, 1);
	return memory;
}

static void x86_meta_free(struct mf_machine *m, void *memory, size_t size_bytes)
{
	(void)size_bytes;
	heap_free(memory);
	count(&machine_of(m)->nr_meta_used, (uint64_t)-1);
}

/* One range of RAM: the wish for a node cannot be met. */
static int x86_ram_get(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn)
{
	struct x86_machine *x = machine_of(m);
	bool ram_fails = fails_now(&x->fail_ram), any_fails = fails_now(&x->fail_any);

	(void)node;
	return ram_fails || any_fails ? -MF_ENOMEM : ram_take(&x->ram, order, pfn);
}

static void x86_ram_put(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn)
{
	(void)node;
	ram_give(&machine_of(m)->ram, order, pfn);
}

static void x86_direct_protect(struct mf_machine *m, mf_pfn_t pfn, bool writable)
{
	paging_protect(frame_paddr(machine_of(m), pfn), writable);
}

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

static void *window_base(unsigned i)
{
	return (void *)(X86_WINDOWS + i * X86_WINDOW_BYTES);
}

static int x86_window_reserve(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base)
{
	struct x86_machine *x = machine_of(m);
	unsigned i;

	if (fails_now(&x->fail_any) || size_bytes > X86_WINDOW_BYTES || align_bytes > X86_WINDOW_BYTES)
		return -MF_ENOMEM;
	lock_machines();
	for (i = 0; i < X86_NR_WINDOWS && machines.window[i].owner; i++)
		;
	if (i < X86_NR_WINDOWS)
		machines.window[i] = (struct window){x, size_bytes};
	unlock_machines();
	if (i == X86_NR_WINDOWS)
		return -MF_ENOMEM;
	*base = window_base(i);
	return 0;
}

/* The number of a window that was reserved so, and is not released yet: its owner's to change. */
static unsigned window_index(const struct x86_machine *x, const void *base, uint64_t size_bytes)
{
	uint64_t i = ((uintptr_t)base - X86_WINDOWS) / X86_WINDOW_BYTES;

	MF_PANIC_IF((uintptr_t)base % X86_WINDOW_BYTES != 0 || i >= X86_NR_WINDOWS ||
			    machines.window[i].owner != x || machines.window[i].size_bytes != size_bytes,
		    "memfold: x86_64: [%p, + 0x%llx) is no window that was reserved so.", base,
		    (unsigned long long)size_bytes);
	return (unsigned)i;
}

/* Nothing to flush: processors keep no entry that was absent. */
static void x86_window_attach(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root)
{
	struct x86_machine *x = machine_of(m);

	paging_set_window(window_index(x, base, size_bytes), frame_paddr(x, root));
}

static void x86_window_release(struct mf_machine *m, void *base, uint64_t size_bytes)
{
	unsigned i = window_index(machine_of(m), base, size_bytes);

	paging_set_window(i, 0);
	smp_flush((uintptr_t)base, size_bytes, MF_FLUSH_TABLES);
	lock_machines();
	machines.window[i].owner = NULL;
	unlock_machines();
}

static unsigned x86_flush(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct x86_machine *x = machine_of(m);

	count(&x->nr_flushes, 1);
	count(&x->nr_flushed_bytes, size_bytes);
	return smp_flush(start, size_bytes, scope);
}

/* ---- Processors, data -------------------------------------------------------------------------------------------- */

static unsigned x86_cpu_number(struct mf_machine *m)
{
	(void)m;
	return x86_this_cpu()->number;
}

/* With interrupts on there is nothing to serve, and to find that out is one load. */
static void x86_relax(struct mf_machine *m)
{
	(void)m;
	smp_serve_flush();
	__builtin_ia32_pause();
}

/* Does all of [start, end) lie in boot ranges? */
static bool is_known(uint64_t start, uint64_t end, bool only_ram)
{
	for (unsigned i = 0; i < boot_map.nr && start < end; i++) {
		const struct boot_range *range = &boot_map.range[i];

		if (start >= range->start && start < range->end && (!only_ram || range->kind == BOOT_RAM))
			start = range->end;
	}
	return start >= end;
}

/* The direct map has every boot range, and no more. */
static void *x86_data(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames)
{
	const struct x86_machine *x = machine_of(m);
	uint64_t offset, size_bytes, start, end;

	if (!mf_mul_fits(pfn, X86_PAGE, &offset) || !mf_mul_fits(nr_frames, X86_PAGE, &size_bytes) ||
	    !mf_add_fits(x->first_paddr, offset, &start) || !mf_add_fits(start, size_bytes, &end) ||
	    !is_known(start, end, false))
		return NULL;
	return x86_direct(start);
}

static const struct mf_machine_ops x86_ops = {
	.name = "x86_64",
	.meta_alloc = x86_meta_alloc,
	.meta_free = x86_meta_free,
	.window_reserve = x86_window_reserve,
	.window_release = x86_window_release,
	.window_attach = x86_window_attach,
	.ram_get = x86_ram_get,
	.ram_put = x86_ram_put,
	.direct_protect = x86_direct_protect,
	.flush = x86_flush,
	.cpu = x86_cpu_number,
	.relax = x86_relax,
	.data = x86_data,
};

/* ---- Creation and end -------------------------------------------------------------------------------------------- */

static bool config_is_possible(const struct x86_machine_config *c)
{
	return c->first_paddr % MF_GIB == 0 && (c->ram_start | c->ram_end) % X86_PAGE == 0 &&
	       c->first_paddr <= c->ram_start && c->ram_start < c->ram_end &&
	       is_known(c->ram_start, c->ram_end, true);
}

/* False when its RAM is another machine's. */
static bool insert(struct x86_machine *x)
{
	uint64_t start = frame_paddr(x, x->ram.start), end = frame_paddr(x, x->ram.end);
	bool is_alone = true;

	lock_machines();
	for (struct mf_list *at = machines.list.next; at != &machines.list; at = at->next) {
		const struct x86_machine *other = mf_container_of(at, struct x86_machine, node);

		if (start < frame_paddr(other, other->ram.end) && frame_paddr(other, other->ram.start) < end)
			is_alone = false;
	}
	if (is_alone)
		mf_list_push_back(&machines.list, &x->node);
	unlock_machines();
	return is_alone;
}

int x86_machine_create(const struct x86_machine_config *config, struct mf_machine **out)
{
	mf_pfn_t start = (config->ram_start - config->first_paddr) >> X86_PAGE_SHIFT;
	mf_pfn_t end = (config->ram_end - config->first_paddr) >> X86_PAGE_SHIFT;
	struct x86_machine *x;
	int err;

	if (!config_is_possible(config))
		return -MF_EINVAL;
	x = heap_alloc(sizeof(*x));
	if (!x)
		return -MF_ENOMEM;
	x->machine = (struct mf_machine){
		.ops = &x86_ops,
		.paging = mf_paging_x86_64(3),
		.backing = MF_WINDOW_TABLES,
		.unbacked = MF_UNBACKED_ZERO,
		.nr_cpus = x86_nr_cpus,
		.direct_map = x86_direct(config->first_paddr),
	};
	x->machine.paging.frame0 = config->first_paddr;
	x->first_paddr = config->first_paddr;
	err = ram_init(&x->ram, start, end, config->poison_ram ? x86_direct(config->ram_start) : NULL);
	if (err)
		goto out_free;
	err = insert(x) ? 0 : -MF_EINVAL;
	if (err)
		goto out_ram;
	*out = &x->machine;
	return 0;
out_ram:
	ram_exit(&x->ram);
out_free:
	heap_free(x);
	return err;
}

static void make_writable(void *ctx, mf_pfn_t pfn)
{
	paging_protect(frame_paddr(ctx, pfn), true);
}

/* What a map that was given up has left behind is nobody's: its windows, and frames that are read-only still. */
void x86_machine_destroy(struct mf_machine *m)
{
	struct x86_machine *x = machine_of(m);

	for (unsigned i = 0; i < X86_NR_WINDOWS; i++)
		if (machines.window[i].owner == x)
			x86_window_release(m, window_base(i), machines.window[i].size_bytes);
	if (ram_nr_used(&x->ram) > 0)
		ram_for_each_used(&x->ram, make_writable, x);
	lock_machines();
	mf_list_remove(&x->node);
	unlock_machines();
	ram_exit(&x->ram);
	heap_free(x);
}

/* ---- For tests and for people ------------------------------------------------------------------------------------ */

void x86_machine_stats(struct mf_machine *m, struct x86_machine_stats *stats)
{
	struct x86_machine *x = machine_of(m);

	stats->nr_ram_used = ram_nr_used(&x->ram);
	stats->nr_meta_used = __atomic_load_n(&x->nr_meta_used, __ATOMIC_RELAXED);
	stats->nr_flushes = __atomic_load_n(&x->nr_flushes, __ATOMIC_RELAXED);
	stats->nr_flushed_bytes = __atomic_load_n(&x->nr_flushed_bytes, __ATOMIC_RELAXED);
}

void x86_machine_fail_ram(struct mf_machine *m, uint64_t n)
{
	__atomic_store_n(&machine_of(m)->fail_ram, n, __ATOMIC_RELAXED);
}

void x86_machine_fail_any(struct mf_machine *m, uint64_t n)
{
	__atomic_store_n(&machine_of(m)->fail_any, n, __ATOMIC_RELAXED);
}
