/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * machine.h - the whole contract between memfold's core and what it runs on.
 *
 * A port fills one struct mf_machine and passes it to mf_map_create().  There is no #ifdef of a machine above this
 * file: what differs is a constant in struct mf_paging, or an operation in struct mf_machine_ops.  The same contract
 * tests (tests/contract) run on every machine; a machine that fails one is not a port.  How to write one:
 * docs/PORTING.md.
 *
 *      core        W_0 ... W_top: one contiguous range of addresses ("the windows")
 *        |
 *   MF_WINDOW_TABLES: core/pgtable maps each piece of it       MF_WINDOW_HOST: the range is the host's memory;
 *   to a map frame, through page tables that lie in frames       the host is asked to populate and to discard
 *   (sim, x86_64)                                               pieces of it (linux)
 */
#ifndef MEMFOLD_MACHINE_H
#define MEMFOLD_MACHINE_H

#include <memfold/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mf_machine;

/* ---- Paging constants ------------------------------------------------------------------------------------ */

enum { MF_PGTABLE_LEVELS_MAX = 6 };

/* A page-table entry, as the hardware reads it. */
typedef struct {
	uint64_t bits;
} mf_pte_t;

/*
 * Levels are numbered from the leaves: an entry of a level-0 table maps one frame, an entry of a level-1 table maps a
 * level-0 table or 2^b frames, ...  The root is the table of level `levels - 1`.  b = page_shift - 3.
 *
 * Frame f has the physical address   paddr = frame0 + f * P.   Pfns count from where memory begins: a machine whose
 * memory begins high (arm64) has dense windows all the same, and maps no descriptors for what is not there.
 * An entry is   (paddr & address_mask) | bits   with
 *   table       table_bits
 *   leaf        leaf_bits | (level == 0 ? leaf_base_bits : leaf_block_bits) | (writable ? write_set : write_clear)
 * An entry of level > 0 is a leaf when (e & block_mask) == block_value.  A zero entry is absent on every machine.
 * leaf_bits includes Accessed (and Dirty where hardware would set it), so that hardware never writes a shared table.
 * soft_bits of the bits starting at soft_shift are ignored by hardware in every present and absent entry; memfold
 * keeps a table's count of private entries in them, a digit per entry.  soft_bits * 2^b must be at least b + 1; all
 * machines we know give 1 or more.
 */
struct mf_paging {
	unsigned page_shift;      /* log2(P): 12, 14 or 16                                                   */
	unsigned levels;          /* tables on a walk, root included: 2 to MF_PGTABLE_LEVELS_MAX              */
	unsigned max_leaf_level;  /* highest level at which a leaf may stand: 0 .. levels - 2                 */
	uint64_t address_mask;
	uint64_t frame0;          /* physical address of frame 0: a multiple of what the largest leaf maps      */
	uint64_t present_mask;    /* any of these set: the entry is present                                   */
	uint64_t table_bits;
	uint64_t leaf_bits;
	uint64_t leaf_base_bits;
	uint64_t leaf_block_bits;
	uint64_t block_mask, block_value;
	uint64_t write_set, write_clear, write_mask; /* writable when (e & write_mask) == write_set           */
	unsigned soft_shift, soft_bits;
};

/*
 * x86-64 with 4 or 5 levels, or 3 where the root hangs in an entry of a table that is the kernel's own: 512 GiB of
 * windows, leaves of 2 MiB at most.  arm64 with the 4, 16 or 64 KiB granule (levels as va_bits ask).  frame0 is 0.
 * Pure functions.
 */
MF_API struct mf_paging mf_paging_x86_64(unsigned levels);
MF_API struct mf_paging mf_paging_arm64(unsigned page_shift, unsigned levels);

/* ---- How windows are backed ---------------------------------------------------------------------------------- */

enum mf_window_backing {
	MF_WINDOW_TABLES, /* through page tables that core/pgtable builds in frames                              */
	MF_WINDOW_HOST,   /* the host's private anonymous memory: reads as zero until it is populated            */
};

/* How a slot without a map frame reads (design, section 4).  Today's machines are `zero`. */
enum mf_window_unbacked {
	MF_UNBACKED_ZERO,   /* as zero, from one shared read-only frame; a changed live entry must be flushed     */
	MF_UNBACKED_ABSENT, /* a load faults and the machine repairs it to 0                                     */
};

/* What a flush must reach beyond the translations of the range itself. */
enum mf_flush_scope {
	MF_FLUSH_LEAVES, /* only leaf entries changed                                                          */
	MF_FLUSH_TABLES, /* a table was replaced or freed: paging-structure caches, in all contexts             */
};

/* ---- Operations ---------------------------------------------------------------------------------------------- */

/*
 * Every operation may be called from any CPU or thread unless its comment says otherwise.  "No lock": called with no
 * core lock held, may sleep.  An operation marked optional may be NULL.
 */
struct mf_machine_ops {
	const char *name;

	/* -- control memory: the map, its zones, regions and caches; never descriptors.  No lock.
	 * Zeroed, aligned to 64 bytes; NULL when there is none. */
	void *(*meta_alloc)(struct mf_machine *m, size_t size_bytes);
	void (*meta_free)(struct mf_machine *m, void *memory, size_t size_bytes);

	/* -- windows.  No lock.  Reserve `size_bytes` of addresses aligned to `align_bytes` (a power of two).  TABLES:
	 * the addresses are mapped by the tables below `root` once window_attach has been called; the range that is
	 * released is flushed once more before the tables go.  HOST: they read as zero and cost nothing until
	 * populated.  0, -MF_ENOMEM. */
	int (*window_reserve)(struct mf_machine *m, uint64_t size_bytes, uint64_t align_bytes, void **base);
	void (*window_release)(struct mf_machine *m, void *base, uint64_t size_bytes);

	/* TABLES only.  The windows' translations are those below the table in frame `root` from now on.  After
	 * window_release the machine forgets the root. */
	void (*window_attach)(struct mf_machine *m, void *base, uint64_t size_bytes, mf_pfn_t root);

	/* HOST only.  No lock.  populate: [addr, addr + size) is private writable memory afterwards, zero where it was
	 * not populated before; all or nothing: 0, -MF_ENOMEM.  discard: it reads as zero and costs nothing again.
	 * Multiples of P. */
	int (*host_populate)(struct mf_machine *m, void *addr, uint64_t size_bytes);
	void (*host_discard)(struct mf_machine *m, void *addr, uint64_t size_bytes);

	/* HOST only, for layouts in which slots share memory (the classic diets); optional, all three or none: without
	 * them such layouts are -MF_EOPNOTSUPP.  No lock.  Multiples of P.
	 * share: [addr, addr + size), which is not populated, becomes populated memory that can be aliased: zero,
	 * writable.  All or nothing: 0, -MF_ENOMEM.  host_discard ends it again, for any part.
	 * alias: every slot of [addr, addr + size), shared before, shows read-only what the one slot at `target` shows,
	 * which is shared memory of this machine outside that range; the memory the slots had goes back.  A slot that
	 * is an alias already may be aliased anew.  All or nothing: 0, -MF_ENOMEM (also: no further mapping allowed).
	 * unalias: every slot of the range has memory of its own again, writable, with the contents it showed.  All or
	 * nothing: 0, -MF_ENOMEM.
	 * Readers may look at the range at any time and see the same contents throughout. */
	int (*host_share)(struct mf_machine *m, void *addr, uint64_t size_bytes);
	int (*host_alias)(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target);
	int (*host_unalias)(struct mf_machine *m, void *addr, uint64_t size_bytes);

	/* TABLES only.  Frames that belong to no region: source RAM.  2^order frames, naturally aligned, contents
	 * undefined, `node` is a wish.  No lock.  0, -MF_ENOMEM.  put takes what get gave, whole or in naturally
	 * aligned pieces of 2^order frames, at any time and in any order. */
	int (*ram_get)(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t *pfn);
	void (*ram_put)(struct mf_machine *m, unsigned node, unsigned order, mf_pfn_t pfn);

	/* TABLES only.  Make a frame read-only or writable in the direct map (shared tables, the zero frame).  No lock.
	 * Optional: without it the machine has no such protection and says so in its documentation. */
	void (*direct_protect)(struct mf_machine *m, mf_pfn_t pfn, bool writable);

	/* TABLES only.  Drop every translation of [start, start + size) that any CPU may hold; returns when all have
	 * done so.  Never called with a spin lock held; readers may be running.  Answers how many interrupts it sent
	 * to other CPUs, for statistics: 0 on a machine that needs none. */
	unsigned (*flush)(struct mf_machine *m, uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);

	/* -- processors.  cpu: index of the calling CPU or registered thread, < nr_cpus, stable while a core lock is
	 * held or a reader section is open.  Calling it from a thread that is not registered is a broken contract: the
	 * machine panics. */
	unsigned (*cpu)(struct mf_machine *m);
	void (*relax)(struct mf_machine *m); /* in a spin loop: pause; where threads may be preempted, yield */

	/* Around every spin lock and reader section, so that the holder stays on its CPU; they nest.  Optional. */
	void (*pin_cpu)(struct mf_machine *m);
	void (*unpin_cpu)(struct mf_machine *m);

	/* -- the owner.  false when the calling process may not use the map (a forked child): every call on a map that
	 * returns an error then returns -MF_EPERM, before it takes a lock.  The rest relies on the windows reading as
	 * zero there: lookups find nothing, and a count that is impossible is no broken contract.  Optional: always
	 * allowed. */
	bool (*may_use)(struct mf_machine *m);

	/* -- the memory itself, for the data pointer of a folio: the address at which the described frames
	 * [pfn, pfn + nr) can be read and written, or NULL when they are not mapped (described only).  Optional. */
	void *(*data)(struct mf_machine *m, mf_pfn_t pfn, uint64_t nr_frames);
};

struct mf_machine {
	const struct mf_machine_ops *ops;
	struct mf_paging paging;      /* HOST: only page_shift is used                                          */
	enum mf_window_backing backing;
	enum mf_window_unbacked unbacked;
	unsigned nr_cpus;             /* 1 .. MF_CPUS_MAX                                                       */
	char *direct_map;             /* TABLES: frame f stands at direct_map + f * P                           */
};

enum { MF_CPUS_MAX = 1024 };

static inline void *mf_machine_frame(const struct mf_machine *m, mf_pfn_t pfn)
{
	return m->direct_map + (pfn << m->paging.page_shift);
}

static inline void mf_machine_lock(struct mf_machine *m, struct mf_lock *lock)
{
	if (m->ops->pin_cpu)
		m->ops->pin_cpu(m);
	while (!mf_lock_try(lock))
		m->ops->relax(m);
}

static inline void mf_machine_unlock(struct mf_machine *m, struct mf_lock *lock)
{
	mf_lock_release(lock);
	if (m->ops->unpin_cpu)
		m->ops->unpin_cpu(m);
}

#ifdef __cplusplus
}
#endif
#endif
