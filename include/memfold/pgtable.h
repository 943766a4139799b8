/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pgtable.h - radix page tables in frames, driven by a machine's paging constants, with tables shared that are alike.
 *
 * A table whose entries are all the *background* of its level is never built: the background of level 0 is a
 * read-only leaf of the zero frame, that of level l > 0 an entry that points to the one shared table of the level
 * below.  So an untouched range of any size costs one zero frame and one shared table a level; the root is never
 * shared.
 *
 *      root (private)                 [ S2 | S2 | T | S2 ... ]
 *                                                 |
 *      level 2 table T (private: 1)       [ S1 | U | S1 ... ]      S2, S1, S0: the shared tables
 *                                               |
 *      level 0 ... a slot, or the zero frame, read-only
 *
 * A private table counts its private entries (those unlike the background) in the soft bits of its entries.  A
 * table whose count falls to 0 is replaced by the shared table above it and handed out, to be flushed and then
 * reused.
 *
 * Frames come from and go to a *bag* that the caller fills and empties: nothing here allocates, waits or flushes.
 * The rule "change, flush, reuse" (law M5) is the caller's: what arrives in an `out` bag may be reused after a
 * flush only.
 *
 * Locks: none inside.  Changes to one struct mf_pgtable are serialised by the caller (memmap: map->table_lock);
 * hardware and mf_pgtable_walk() may read at any time.  Entries are single 64-bit atomic stores; a table is filled
 * before it is linked (release).
 */
#ifndef MEMFOLD_PGTABLE_H
#define MEMFOLD_PGTABLE_H

#include <memfold/machine.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Frames in transit, last in first out. */
enum { MF_BAG_MAX = 48 };

struct mf_bag {
	unsigned nr;
	mf_pfn_t pfn[MF_BAG_MAX];
};

/* Panics when full: the caller sized it. */
MF_API void mf_bag_put(struct mf_bag *bag, mf_pfn_t pfn);
/* Panics when empty. */
MF_API mf_pfn_t mf_bag_take(struct mf_bag *bag);

enum mf_pgtable_flags {
	MF_PGTABLE_SHARE = 0,
	MF_PGTABLE_PRIVATE = 1, /* tables made private stay so when their count falls to 0 (see privatise) */
};

enum mf_prot { MF_PROT_READ, MF_PROT_WRITE };

/* What the machine's constants amount to at one level, so that a walk works it out but once. */
struct mf_pgtable_level {
	uint64_t background;     /* the entry, soft bits 0                                             */
	uint64_t span_mask;      /* bytes that one entry maps, less 1                                  */
	uint32_t shift;          /* va >> shift & index_mask is the index; both make it 0 beyond bit 63 */
	uint32_t index_mask;
	mf_pfn_t forbidden_bits; /* in no leaf: they do not fit the entry, or are not aligned          */
	mf_pfn_t forbidden_pfn;  /* the block that the zero frame lies in                              */
};

struct due_log;

struct mf_pgtable {
	struct mf_machine *machine;
	uintptr_t base;      /* range served: every address passed lies in [base, base + size)          */
	uint64_t size_bytes;
	mf_pfn_t root;
	mf_pfn_t zero;       /* the zero frame                                                         */
	mf_pfn_t shared[MF_PGTABLE_LEVELS_MAX]; /* [l]: the shared table of level l, l < levels - 1      */
	enum mf_pgtable_flags flags;
	uintptr_t paddr0;    /* where physical address 0 would stand in the direct map                         */
	uint64_t nr_private[MF_PGTABLE_LEVELS_MAX]; /* private tables of each level, the root included     */
	uint64_t soft_mask;
	struct mf_pgtable_level level[MF_PGTABLE_LEVELS_MAX];
	struct due_log *due; /* debug builds: where changes are noted until they are flushed; NULL: nowhere     */
};

/* Frames that init takes from `in`: the root, the zero frame, one shared table a level below the root. */
MF_API unsigned mf_pgtable_init_frames(const struct mf_paging *paging);

/*
 * Builds the root and the shared tables; afterwards every address of the range reads as zero, read-only.  Takes
 * mf_pgtable_init_frames() frames from `in` (panics if there are fewer).  Zero frame and shared tables are
 * read-only in the direct map from here on.  Fails, nothing taken: -MF_EINVAL when the range is empty, is not
 * aligned to P, or lies outside what the levels reach, or the machine's paging constants contradict each other (frame0
 * that is no multiple of what the largest leaf maps, or is no address for an entry, is such a contradiction);
 * -MF_EOPNOTSUPP when the machine is not `zero`.
 */
MF_API MF_MUST_CHECK int mf_pgtable_init(struct mf_pgtable *pt, struct mf_machine *machine, enum mf_pgtable_flags flags,
					 uintptr_t base, uint64_t size_bytes, struct mf_bag *in);

/*
 * The reverse.  Needs: no private entry left (panics otherwise; with MF_PGTABLE_PRIVATE, private empty tables have
 * been released by mf_pgtable_share()), the machine detached and flushed.  The frames go to `out`, writable in the
 * direct map again.
 */
MF_API void mf_pgtable_destroy(struct mf_pgtable *pt, struct mf_bag *out);

/* Bytes that one entry of a table of this level maps; 0 stands for 2^64 and more (64 KiB, level 4). */
static inline uint64_t mf_pgtable_span(const struct mf_paging *p, unsigned level)
{
	unsigned shift = p->page_shift + level * (p->page_shift - 3);

	return shift < 64 ? (uint64_t)1 << shift : 0;
}

/*
 * Tables that map()/privatise() at this level would have to make private on the way to va: 0 .. levels - 1 - level,
 * and 0 under a leaf.
 */
MF_API unsigned mf_pgtable_tables_needed(const struct mf_pgtable *pt, uintptr_t va, unsigned level);

/*
 * Maps `nr` consecutive entries of one level, from va on, to frames pfn[0..nr) (level > 0: to naturally aligned
 * blocks that start there).  Needs: the entries lie in one table; each is background now (panics otherwise; at
 * level > 0 "background" includes a private table without private entries).  Gives: va translates to the frames;
 * tables made private on the way were taken from `in`; an empty private table that a leaf replaces is put in `in`,
 * not to be reused before a flush of MF_FLUSH_TABLES.  `in` may be NULL when no table is needed.  Fails, nothing
 * changed: -MF_ENOMEM when `in` holds fewer than mf_pgtable_tables_needed(); -MF_ENOSPC when replaced tables do
 * not fit in it; -MF_EINVAL for nr = 0, a misaligned va or block, a frame beyond address_mask, the zero frame, a
 * level above max_leaf_level, or entries that span two tables; -MF_EFAULT outside the range.  The old translation
 * (zero) may be cached: flush before relying on the new one, where the machine is `zero`.
 */
MF_API MF_MUST_CHECK int mf_pgtable_map(struct mf_pgtable *pt, uintptr_t va, unsigned level, const mf_pfn_t *pfn,
					unsigned nr, enum mf_prot prot, struct mf_bag *in);

/*
 * Turns `nr` consecutive entries back into background.  Needs: they lie in one table, all are leaves of this level
 * (panics otherwise).  Gives: the old frames in old_pfn[0..nr) unless NULL; tables that became empty in `out`
 * (at most levels - 1).  Cannot fail.  Everything it gave must be flushed before reuse: MF_FLUSH_TABLES if `out`
 * grew.
 */
MF_API void mf_pgtable_clear(struct mf_pgtable *pt, uintptr_t va, unsigned level, unsigned nr, mf_pfn_t *old_pfn,
			     struct mf_bag *out);

/* The entry that translates va: its level and bits.  Panics outside the range; the zero frame is a translation. */
struct mf_translation {
	mf_pte_t pte;
	mf_pfn_t pfn;    /* the frame of va itself, also inside a larger leaf                          */
	unsigned level;
	bool writable;
	bool background; /* va reads as zero because nothing is mapped there                            */
};
MF_API struct mf_translation mf_pgtable_walk(const struct mf_pgtable *pt, uintptr_t va);

/* Changes the protection of one leaf.  -MF_ENOENT when va is background, -MF_EFAULT outside.  Flush to narrow it. */
MF_API MF_MUST_CHECK int mf_pgtable_protect(struct mf_pgtable *pt, uintptr_t va, enum mf_prot prot);

/*
 * Replaces the frame behind one level-0 leaf, keeping its protection (the caller has copied the contents).  Gives:
 * the old frame.  Flush before the old frame is reused.  Panics when va is background.
 */
MF_API mf_pfn_t mf_pgtable_replace(struct mf_pgtable *pt, uintptr_t va, mf_pfn_t new_pfn);

/*
 * A leaf of level > 0 becomes a table of leaves one level down with the same translations and protection; takes
 * one frame from `in`.  -MF_ENOMEM when `in` is empty, -MF_ENOENT when no leaf of that level maps va, -MF_EFAULT
 * outside the range; nothing changed.  No flush needed for correctness of reads.
 */
MF_API MF_MUST_CHECK int mf_pgtable_split(struct mf_pgtable *pt, uintptr_t va, unsigned level, struct mf_bag *in);

/*
 * The reverse: a table whose leaves are contiguous, aligned and of one protection becomes one leaf of `level`,
 * which is above 0.  The table goes to `out`.  -MF_EINVAL when they are not, or no leaf may stand at `level`;
 * -MF_ENOENT when there is no table, -MF_EFAULT outside the range; nothing changed.
 */
MF_API MF_MUST_CHECK int mf_pgtable_merge(struct mf_pgtable *pt, uintptr_t va, unsigned level, struct mf_bag *out);

/*
 * Sharing off: makes the tables on the way to va private down to level 0 although nothing is mapped there (needs
 * mf_pgtable_tables_needed(pt, va, 0) frames in `in`: -MF_ENOMEM, nothing changed; -MF_EFAULT outside the range).
 * Under a larger leaf there is nothing to do.  A private table that stays empty needs MF_PGTABLE_PRIVATE, or
 * check() objects.  share() releases every private table without private entries that serves [start, end) only,
 * into `out`, until `out` is full; true when it is done.
 */
MF_API MF_MUST_CHECK int mf_pgtable_privatise(struct mf_pgtable *pt, uintptr_t va, struct mf_bag *in);
MF_API bool mf_pgtable_share(struct mf_pgtable *pt, uintptr_t start, uintptr_t end, struct mf_bag *out);

/* ---- Aliases and uniform tables: what the classic diets need ---------------------------------------------- */

/*
 * Switches `nr` consecutive entries of level 0, from va on, whatever they were, to the frames pfn[0], pfn[stride],
 * pfn[2 * stride] ...: stride 0 puts one frame behind all of them.  Needs: the entries lie in one table, which is
 * private; frames that can stand behind a leaf; MF_PROT_READ where one frame is to stand behind several entries (panics
 * otherwise).  Gives: the old frames in old_pfn[0..nr) unless NULL; the zero frame for an entry that was background.
 * Cannot fail.  Flush before an old frame is reused.
 */
MF_API void mf_pgtable_switch(struct mf_pgtable *pt, uintptr_t va, const mf_pfn_t *pfn, unsigned stride, unsigned nr,
			      enum mf_prot prot, mf_pfn_t *old_pfn);

/*
 * A *uniform table* is a table of level 0 all of whose leaves are one frame, read-only.  Any number of entries of level
 * 1 may lead to it; who they are is the caller's to know, and it is made and freed by the caller.  It is no private
 * table: it is in no count, and nothing in it is ever changed.  There, walk() finds a leaf; map, clear, switch,
 * protect, replace and move panic; split says -MF_ENOENT, merge -MF_EINVAL; no table is needed to get there, and
 * privatise() has nothing to do; share() leaves it; a table above it survives().
 */
enum mf_entry_kind {
	MF_ENTRY_BACKGROUND,
	MF_ENTRY_LEAF,    /* pfn: the first frame                                                           */
	MF_ENTRY_TABLE,   /* pfn: a private table of level 0                                                */
	MF_ENTRY_UNIFORM, /* pfn: a uniform table                                                           */
};

/* What an entry of level 1 is.  Members that mean nothing for a kind are 0 in answers, and not looked at. */
struct mf_entry {
	enum mf_entry_kind kind;
	mf_pfn_t pfn;
	bool writable;    /* LEAF                                                                           */
};

/*
 * Fills the frame `table`, which is linked nowhere, as a table of level 0 with the leaves pfn, pfn + stride, pfn + 2 *
 * stride ..., every entry taken, for mf_pgtable_exchange() to link.  kind MF_ENTRY_UNIFORM: a uniform table, which is
 * read-only in the direct map from here on until mf_pgtable_unfill(); MF_ENTRY_TABLE: a private one.  Panics for any
 * other kind, frames that cannot stand behind a leaf, and stride 0 with MF_PROT_WRITE; for a uniform table also with
 * any other stride.
 */
MF_API void mf_pgtable_fill(struct mf_pgtable *pt, mf_pfn_t table, enum mf_entry_kind kind, mf_pfn_t pfn,
			    unsigned stride, enum mf_prot prot);
/* The reverse for a uniform table (panics otherwise) that nothing leads to any more, flushed: an ordinary frame. */
MF_API void mf_pgtable_unfill(struct mf_pgtable *pt, mf_pfn_t table);

/*
 * The entry of level 1 for va, which need not be aligned: BACKGROUND where no such entry is private; under a leaf of a
 * higher level a LEAF, the part of it.  Panics outside the range.
 */
MF_API struct mf_entry mf_pgtable_entry(const struct mf_pgtable *pt, uintptr_t va);

/*
 * Makes the entry of level 1 at va what *entry says, by one store.  Needs (panics otherwise): what the entry maps lies
 * in the range, and va is its first address; no leaf of a higher level is there; a leaf of level 1 can stand there, or
 * the table is of the kind named and, if it is private, holds something (it need not with MF_PGTABLE_PRIVATE).  Gives:
 * *old, what it was; a private table named there is linked nowhere any more and the caller's, with whatever its entries
 * map.  Tables above that had to become private were taken from `bag` (as mf_pgtable_tables_needed() at level 1 says;
 * none for BACKGROUND), those that became empty were put in it (at most levels - 2, none with MF_PGTABLE_PRIVATE).
 * `bag` may be NULL when neither can be.  -MF_ENOMEM when it held too few, nothing changed.  Flush MF_FLUSH_TABLES
 * before anything of the old is reused.  `old` may be `entry`.
 */
MF_API MF_MUST_CHECK int mf_pgtable_exchange(struct mf_pgtable *pt, uintptr_t va, const struct mf_entry *entry,
					     struct mf_bag *bag, struct mf_entry *old);

/* The private table of `level` (below the root) that serves va; false when it is shared or uniform. */
MF_API bool mf_pgtable_table(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t *pfn);

/*
 * Moves that table to the frame new_pfn: copies it, then switches the entry above.  Gives: the old frame, dead after
 * a flush of MF_FLUSH_TABLES over the table's whole range.  Panics when the table is shared or is the root.
 */
MF_API mf_pfn_t mf_pgtable_move(struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pfn_t new_pfn);

/*
 * Would the private table of `level` at va still be needed if every level-0 leaf for which dies(ctx, va) is true were
 * cleared?  Reads every entry below it.
 */
typedef bool (*mf_pgtable_dies_fn)(void *ctx, uintptr_t va);
MF_API bool mf_pgtable_survives(const struct mf_pgtable *pt, uintptr_t va, unsigned level, mf_pgtable_dies_fn dies,
				void *ctx);

/*
 * Calls visit for every private entry, tables before what they contain: level and first address of the entry, the
 * frame it points to, whether that is a table.  A uniform table is visited for every entry that leads to it, what it
 * contains is not.  A non-zero answer ends the walk and is returned.  For checks and counts.
 */
typedef int (*mf_pgtable_visit_fn)(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table);
MF_API int mf_pgtable_for_each(const struct mf_pgtable *pt, mf_pgtable_visit_fn visit, void *ctx);

/* Frames in tables: private ones (root included) plus shared ones plus the zero frame; uniform ones are not known. */
MF_API uint64_t mf_pgtable_frames(const struct mf_pgtable *pt);

/*
 * Recounts everything: private counts, table totals, that shared tables are all background, uniform ones one read-only
 * frame and private ones not empty (without MF_PGTABLE_PRIVATE), the zero frame zero, and that no two neighbours in a
 * table are writable with one frame behind both.  NULL, or a sentence that says what is broken (static or in `text`).
 */
MF_API const char *mf_pgtable_check(const struct mf_pgtable *pt, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
