/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memmap.h - the map itself: descriptors, windows, regions and layouts; lookups from below and from above.
 *
 *   W_top  [1 GiB][1 GiB][split][1 GiB] ...            one descriptor of 64 bytes per block of the top tier
 *   W_1     0  0  0 ... [2M][2M][split][2M] ... 0 0     backed only under a split block of tier 2
 *   W_0     0  0  0 ...  0   0  [4K][4K].. 0  ...       backed only under a split block of tier 1
 *
 * Law M2: a descriptor whose first word is zero says "look one tier up".  A reader may start at any descriptor and go
 * up while it reads zero, or start from a pfn at the top and go down while it reads "split".
 *
 * Words are fixed in docs/GLOSSARY.md; laws M1 to M8 in docs/INVARIANTS.md; locks in docs/LOCKING.md.
 */
#ifndef MEMFOLD_MEMMAP_H
#define MEMFOLD_MEMMAP_H

#include <memfold/machine.h>
#include <memfold/pgtable.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The first word of a descriptor ------------------------------------------------------------------------ */

/*
 *  63      50 49   40 39   32 31      15 14   9 8   7 6  5  4  3  1  0
 * +----------+-------+-------+----------+------+-----+----+---+----+---+
 * |  region  | node  | zone  |  flags   | order|child|tier| A |kind| 0 |   a record;  A: aliased
 * +----------+-------+-------+----------+------+-----+----+---+----+---+
 * |             ~(64 * 2^k - 1), k = order - b * tier               | 1 |   a tail: AND-mask to its head
 * +-----------------------------------------------------------------+---+
 *   0: look one tier up.        all ones: uninitialised.
 */
enum mf_kind {
	MF_KIND_NONE,     /* word 0, or no memory there                                                     */
	MF_KIND_FREE,     /* in the allocator (or a CPU's cache); count 0                                    */
	MF_KIND_USED,     /* head of a folio                                                                */
	MF_KIND_SPLIT,    /* described one tier (child tier) down; count 0                                   */
	MF_KIND_MAP,      /* a map frame; count 0; index and private say what it backs                       */
	MF_KIND_RESERVED, /* present, never the allocator's                                                  */
	MF_KIND_HOLE,     /* no memory, inside a block of which another part is present; count 0             */
	MF_KIND_DEVICE,   /* device memory                                                                  */
	MF_KIND_TAIL,     /* never stored: what mf_page_kind() answers for a tail                            */
};

/*
 * Beside the kind: the head of a folio whose own map slot stands in for its tails' slots (hvo-5.18), so that this
 * record is read at the first descriptor of each of them, too.  Whoever meets it asks the next descriptor, a tail, for
 * the head.
 */
#define MF_WORD_ALIASED ((uint64_t)8 << MF_WORD_KIND_SHIFT)

enum {
	MF_WORD_KIND_SHIFT = 1,
	MF_WORD_TIER_SHIFT = 5,
	MF_WORD_CHILD_SHIFT = 7,
	MF_WORD_ORDER_SHIFT = 9,
	MF_WORD_FLAGS_SHIFT = 15,
	MF_WORD_ZONE_SHIFT = 32,
	MF_WORD_NODE_SHIFT = 40,
	MF_WORD_REGION_SHIFT = 50,
	MF_WORD_REGION_BITS = 14,
	MF_TIERS_MAX = 3,
	MF_ORDERS_MAX = 48,
	MF_NODES_MAX = 64,
	MF_ZONES_MAX = 128,
	MF_REGIONS_MAX = 4096,
	MF_DESCRIPTOR_SHIFT = 6,
	MF_DESCRIPTOR_SIZE = 1 << MF_DESCRIPTOR_SHIFT,
	MF_BLOCK_SLOTS = 8, /* map slots of the 2^b children of one block: 2^b * 64 / P, the same for every P    */
};

#define MF_FLAG(n) ((uint64_t)1 << (MF_WORD_FLAGS_SHIFT + (n)))

enum mf_flag_bit {
	MF_FLAG_BUDDY_BIT,     /* free: head of a free block on a zone's list; its order is valid               */
	MF_FLAG_CACHED_BIT,    /* free: in a CPU's cache or a zone's stock.  used: freed, kept until it is restored  */
	MF_FLAG_CHANGING_BIT,  /* being unfolded or folded: nobody may take it                                  */
	MF_FLAG_EDGE_BIT,      /* split: for ever (a partial block, or one above the region's top tier)         */
	MF_FLAG_SET_ASIDE_BIT, /* split: its free frames are the zone's map pool                                */
	MF_FLAG_CHOSEN_BIT,    /* split: chosen to fold in a set                                               */
	MF_FLAG_PENDING_BIT,   /* map: claimed, not linked yet                                                  */
	MF_FLAG_DIET_BIT,      /* used: map slots of the folio are aliases.  map: hosts slots of its own block    */
	MF_FLAG_USER_BIT,      /* used: four flags of the owner, MF_FLAG_USER0 .. 3                              */
};

#define MF_FLAG_BUDDY MF_FLAG(MF_FLAG_BUDDY_BIT)
#define MF_FLAG_CACHED MF_FLAG(MF_FLAG_CACHED_BIT)
#define MF_FLAG_CHANGING MF_FLAG(MF_FLAG_CHANGING_BIT)
#define MF_FLAG_EDGE MF_FLAG(MF_FLAG_EDGE_BIT)
#define MF_FLAG_SET_ASIDE MF_FLAG(MF_FLAG_SET_ASIDE_BIT)
#define MF_FLAG_CHOSEN MF_FLAG(MF_FLAG_CHOSEN_BIT)
#define MF_FLAG_PENDING MF_FLAG(MF_FLAG_PENDING_BIT)
#define MF_FLAG_DIET MF_FLAG(MF_FLAG_DIET_BIT)
#define MF_FLAG_USER0 MF_FLAG(MF_FLAG_USER_BIT)
#define MF_FLAG_USER1 MF_FLAG(MF_FLAG_USER_BIT + 1)
#define MF_FLAG_USER2 MF_FLAG(MF_FLAG_USER_BIT + 2)
#define MF_FLAG_USER3 MF_FLAG(MF_FLAG_USER_BIT + 3)
#define MF_FLAGS_USER (MF_FLAG_USER0 | MF_FLAG_USER1 | MF_FLAG_USER2 | MF_FLAG_USER3)

/* Bit 0 included: a tail never compares equal to a kind. */
#define MF_WORD_KIND_MASK (((uint64_t)15 << MF_WORD_KIND_SHIFT) | 1)
#define MF_WORD_UNINITIALISED (~(uint64_t)0)

static inline bool mf_word_is_tail(uint64_t word)
{
	return word & 1;
}

/* Is it a record that answers for its block: not zero, no tail, not split, not aliased?  One bit test on five bits. */
static inline bool mf_word_answers(uint64_t word)
{
	const uint32_t answering = 0x00005555u & ~(1u << (MF_KIND_NONE << MF_WORD_KIND_SHIFT)) &
				   ~(1u << (MF_KIND_SPLIT << MF_WORD_KIND_SHIFT));

	return answering >> (word & 31) & 1;
}

static inline enum mf_kind mf_word_kind(uint64_t word)
{
	return (enum mf_kind)(word >> MF_WORD_KIND_SHIFT & 7);
}

static inline unsigned mf_word_tier(uint64_t word)
{
	return word >> MF_WORD_TIER_SHIFT & 3;
}

static inline unsigned mf_word_child(uint64_t word)
{
	return word >> MF_WORD_CHILD_SHIFT & 3;
}

static inline unsigned mf_word_order(uint64_t word)
{
	return word >> MF_WORD_ORDER_SHIFT & 63;
}

static inline unsigned mf_word_zone(uint64_t word)
{
	return word >> MF_WORD_ZONE_SHIFT & 0xff;
}

static inline unsigned mf_word_node(uint64_t word)
{
	return word >> MF_WORD_NODE_SHIFT & 0x3ff;
}

static inline unsigned mf_word_region(uint64_t word)
{
	return (unsigned)(word >> MF_WORD_REGION_SHIFT);
}

/* ---- The descriptor ------------------------------------------------------------------------------------------- */

/*
 * One block at one tier.  Zeroed memory is right for every count.
 *
 * Who may touch a field (docs/LOCKING.md):  a  atomic, anyone with a reference;  z  under the zone's lock;
 * o  the owner of the folio;  m  set once by who claims the map frame.
 */
struct mf_page {
	uint64_t word;             /* a: atomic loads; changed by the zone (z) or, for owner flags, by atomics      */
	union {
		uint64_t counts;   /* a: both counts in one atomic word: a pin adds to both at once                 */
		struct {
			uint32_t refcount; /* holders, pins included (for reading only)                             */
			uint32_t pincount; /* pins (for reading only)                                               */
		};
	};
	union {
		struct {
			int32_t mapcount;       /* a: mappings of the folio, whole or in part                        */
			int32_t whole_mapcount; /* a: mappings of the whole folio                                    */
		};
		struct {                        /* split: z                                                         */
			uint16_t nr_free;       /* children on free lists, in blocks of the child tier               */
			uint16_t capacity;      /* children that users could have                                   */
			uint16_t nr_map;        /* children that are claimed map frames (set aside)                  */
			/* 1 + index of the first child that hosts this block's own slots; 0: hosted elsewhere. */
			uint16_t host;
		};
	};
	struct mf_list list;       /* z or o: free list, foldable list; in use: the owner's                         */
	uint64_t mapping;          /* o: the owner; split edge: number of regions; map: what it backs (m)           */
	uint64_t index;            /* o; map: the first window address that it serves (m)                           */
	uint64_t private_data;     /* o                                                                            */
};

/* The unit of ownership: its record is its head descriptor. */
struct mf_folio {
	struct mf_page page;
};

MF_BUILD_ASSERT(sizeof(struct mf_page) == MF_DESCRIPTOR_SIZE, "a descriptor is 64 bytes");
MF_BUILD_ASSERT(offsetof(struct mf_page, word) == 0, "lookups read offset 0");
MF_BUILD_ASSERT(offsetof(struct mf_page, counts) == 8, "one aligned word for both counts");
MF_BUILD_ASSERT(offsetof(struct mf_page, mapcount) == 16 && offsetof(struct mf_page, list) == 24, "layout");
MF_BUILD_ASSERT(offsetof(struct mf_page, mapping) == 40 && offsetof(struct mf_page, private_data) == 56, "layout");

static inline uint64_t mf_page_word(const struct mf_page *page)
{
	return __atomic_load_n(&page->word, __ATOMIC_ACQUIRE);
}

/* ---- Geometry: what lookups need, and nothing else --------------------------------------------------------------- */

/* The first member of every struct mf_map, constant after mf_map_create(). */
struct mf_geometry {
	uint64_t parent_add;              /* C: parent(a) = ((a >> b) & ~63) + C                                  */
	unsigned step;                    /* b = log2(P) - 3: tier t blocks are 2^(b*t) frames                     */
	unsigned top;                     /* the top tier                                                         */
	mf_pfn_t span;                    /* pfns lie in [0, span)                                                */
	uintptr_t top_window;             /* window[top] and shift[top] again: lookups need them without a detour   */
	unsigned top_shift;
	uintptr_t window[MF_TIERS_MAX];   /* W_t                                                                  */
	uint8_t shift[MF_TIERS_MAX];      /* b * t                                                                */
};

struct mf_map;

static inline const struct mf_geometry *mf_map_geometry(const struct mf_map *map)
{
	return (const struct mf_geometry *)(const void *)map;
}

/* The descriptor of the block of `tier` that contains pfn.  Pure arithmetic.  Needs: pfn < span, tier <= top. */
static inline struct mf_page *mf_geometry_descriptor(const struct mf_geometry *g, unsigned tier, mf_pfn_t pfn)
{
	return (struct mf_page *)(g->window[tier] + ((pfn >> g->shift[tier]) << MF_DESCRIPTOR_SHIFT));
}

static inline struct mf_page *mf_pfn_to_page(const struct mf_map *map, mf_pfn_t pfn)
{
	return mf_geometry_descriptor(mf_map_geometry(map), 0, pfn);
}

static inline unsigned mf_page_tier(const struct mf_map *map, const struct mf_page *page)
{
	const struct mf_geometry *g = mf_map_geometry(map);
	unsigned tier = 0;

	while (tier < g->top && (uintptr_t)page >= g->window[tier + 1])
		tier++;
	return tier;
}

/* First pfn of the block that this descriptor describes, whatever its tier.  Pure arithmetic. */
static inline mf_pfn_t mf_page_to_pfn(const struct mf_map *map, const struct mf_page *page)
{
	const struct mf_geometry *g = mf_map_geometry(map);
	unsigned tier = mf_page_tier(map, page);

	return (((uintptr_t)page - g->window[tier]) >> MF_DESCRIPTOR_SHIFT) << g->shift[tier];
}

/*
 * From above: the same answer for a pfn, from the top window down.  NULL: no memory there, or pfn beyond the span.
 * Whole blocks of the top tier cost one load.
 */
static inline struct mf_folio *mf_pfn_folio(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_geometry *g = mf_map_geometry(map);
	uintptr_t a;
	uint64_t word;

	if (MF_UNLIKELY(pfn >= g->span))
		return NULL;
	for (;;) {
		a = g->top_window + ((pfn >> g->top_shift) << MF_DESCRIPTOR_SHIFT);
		word = mf_page_word((const struct mf_page *)a);
		if (MF_LIKELY(mf_word_answers(word)))
			return (struct mf_folio *)a;
		if (word == 0)
			return NULL;
		while (!mf_word_is_tail(word)) {
			if (MF_UNLIKELY(word & MF_WORD_ALIASED)) {
				a += MF_DESCRIPTOR_SIZE;
				word = mf_page_word((const struct mf_page *)a);
				break;
			}
			a = (uintptr_t)mf_geometry_descriptor(g, mf_word_child(word), pfn);
			word = mf_page_word((const struct mf_page *)a);
			if (MF_LIKELY(mf_word_answers(word)))
				return (struct mf_folio *)a;
			if (MF_UNLIKELY(word == 0))
				break;
		}
		if (MF_LIKELY(mf_word_is_tail(word)))
			return (struct mf_folio *)(a & word);
		/* A fold overtook us, or a restore: start again. */
	}
}

/* From below, where the word is neither a tail nor a record that answers, and not zero: a split record is itself. */
static inline struct mf_folio *mf_page_folio_special(const struct mf_map *map, const struct mf_page *page,
						     uint64_t word)
{
	uint64_t next;

	if (!(word & MF_WORD_ALIASED))
		return (struct mf_folio *)(uintptr_t)page;
	next = mf_page_word(page + 1);
	if (MF_LIKELY(mf_word_is_tail(next)))
		return (struct mf_folio *)((uintptr_t)(page + 1) & next);
	return mf_pfn_folio(map, mf_page_to_pfn(map, page));
}

/*
 * From below: the head record that answers for the block of this descriptor: of a folio, or a record of another kind
 * (free, map, hole ...).  NULL: no memory there.
 * Needs: `page` is an address inside the map's windows; no lock, no reference.  Without a reference the answer may be
 * outdated at once: take one, resolve again, compare (mf_folio_try_get does).
 * May: nothing.  A base page costs one load; each tier up one more.
 */
static inline struct mf_folio *mf_page_folio(const struct mf_map *map, const struct mf_page *page)
{
	const struct mf_geometry *g = mf_map_geometry(map);
	uintptr_t a = (uintptr_t)page;
	uint64_t word = mf_page_word(page);

	if (MF_LIKELY(word != 0)) {
		if (MF_LIKELY(mf_word_answers(word)))
			return (struct mf_folio *)a;
		return mf_word_is_tail(word) ? (struct mf_folio *)(a & word) : mf_page_folio_special(map, page, word);
	}
	do {
		if (a >= g->top_window)
			return NULL;
		a = ((a >> g->step) & ~(uintptr_t)(MF_DESCRIPTOR_SIZE - 1)) + g->parent_add;
		word = mf_page_word((const struct mf_page *)a);
		if (MF_LIKELY(mf_word_answers(word)))
			return (struct mf_folio *)a;
		if (mf_word_is_tail(word))
			return (struct mf_folio *)(a & word);
	} while (word == 0);
	/* Zero below and split above at once: an unfold or fold overtook us, or the answer lies below `page`
	 * (a tier that this region does not use).  From above the answer is found in either case. */
	return mf_pfn_folio(map, mf_page_to_pfn(map, page));
}

/* Is there memory (of any kind but a hole) at pfn?  Without section tables: the windows say so. */
MF_API bool mf_pfn_is_valid(const struct mf_map *map, mf_pfn_t pfn);

/* The kind of a descriptor as it stands, MF_KIND_TAIL for a tail, MF_KIND_NONE for zero. */
static inline enum mf_kind mf_page_kind(const struct mf_page *page)
{
	uint64_t word = mf_page_word(page);

	if (MF_UNLIKELY(!mf_word_is_tail(word) && word & MF_WORD_ALIASED)) {
		uint64_t next = mf_page_word(page + 1);

		/* Read through an alias the mask of the next descriptor leads further down than this one. */
		if (mf_word_is_tail(next) && ((uintptr_t)(page + 1) & next) != (uintptr_t)page)
			return MF_KIND_TAIL;
	}
	return mf_word_is_tail(word) ? MF_KIND_TAIL : mf_word_kind(word);
}

/* ---- The map --------------------------------------------------------------------------------------------------- */

enum mf_map_flags {
	MF_MAP_SHARE_TABLES = 0,
	MF_MAP_PRIVATE_TABLES = 1, /* no shared tables under regions: for comparison with systems that share none    */
};

struct mf_map_config {
	struct mf_machine *machine; /* must outlive the map                                                        */
	mf_pfn_t span;              /* pfns lie in [0, span); rounded up to a power of two of at least one top block */
	unsigned top;               /* the top tier: 1 or 2; 0 means 2                                              */
	enum mf_map_flags flags;
};

/* ---- Regions ---------------------------------------------------------------------------------------------------- */

/* The classic diets are those of diet.h: layouts of tier 0, like flat. */
enum mf_layout {
	MF_LAYOUT_TIERED,
	MF_LAYOUT_FLAT,
	MF_LAYOUT_HVO_5_14,
	MF_LAYOUT_HVO_5_18,
	MF_LAYOUT_HVO_7_1,
	MF_LAYOUT_DEVDAX,
	MF_NR_LAYOUTS,
};

/*
 * "tiered", "flat", "hvo-5.14" ... "devdax"; NULL for a number that is no layout.  The reverse: -MF_EINVAL for an
 * unknown name.
 */
MF_API const char *mf_layout_name(enum mf_layout layout);
MF_API MF_MUST_CHECK int mf_layout_by_name(const char *name, enum mf_layout *layout);

enum mf_source {
	/* A split block hosts its own slots; the rest from the zone's map pool.  flat: the region's first frames. */
	MF_SOURCE_SELF,
	MF_SOURCE_RAM,    /* frames outside every region, from the machine                                          */
	MF_SOURCE_ALTMAP, /* slots of tier 0 from a fixed reserve at the region's start; the rest from RAM            */
	MF_SOURCE_HOST,   /* the host's memory; what every source is taken for on MF_WINDOW_HOST machines             */
	MF_NR_SOURCES,
};
MF_API const char *mf_source_name(enum mf_source source);
MF_API MF_MUST_CHECK int mf_source_by_name(const char *name, enum mf_source *source);

enum mf_region_flags {
	/*
	 * Where the classic diets go beyond Linux: these two.  Other layouts, and MF_WINDOW_HOST machines, accept them
	 * without effect.
	 *
	 * Where memory to restore a freed folio with is lacking, the folio's own last frames become its map frames (and
	 * are written to): the others are free then, but no whole block.  When memory can be had again, and all of the
	 * others are free, the slots move there and the block is whole: by mf_fold(), or an allocation that finds
	 * nothing else.
	 */
	MF_REGION_RESTORE_FROM_SELF = 1,
	/* Source self: folios go on a diet, too.  What that saves of the region's own frames is free memory then. */
	MF_REGION_DIET_SELF_HOSTED = 2,
	MF_REGION_DIET_FLAGS = 3,
	/*
	 * Memory that is there and is not memfold's: the kernel's image, firmware, boot data.  All of its frames are of
	 * kind reserved, in the largest blocks that there are, and stay so: nobody can allocate one, and none is ever
	 * written to.  They count as described and as reserved (mf_map_stats.nr_reserved), neither as free nor as used.
	 * tiered or flat, source RAM or HOST.
	 */
	MF_REGION_RESERVED = 4,
	MF_REGION_FLAGS_ALL = 7,
};

struct mf_region_config {
	mf_pfn_t start_pfn, end_pfn; /* end exclusive; any alignment                                                */
	unsigned node;               /* < MF_NODES_MAX                                                              */
	enum mf_layout layout;
	enum mf_source source;
	unsigned top;                /* tiered: highest tier of its blocks, 1 .. the map's top; 0: the map's top     */
	unsigned unit_order;         /* devdax: log2 of the frames of a compound, at most the map's top block; else 0 */
	/* MF_SOURCE_ALTMAP: frames at start_pfn that are kept for the map; tiered: a multiple of 2^b. */
	uint64_t nr_altmap;
	unsigned flags;              /* of enum mf_region_flags                                                     */
};

/*
 * Adds memory: describes it and gives all of it to the allocator of its zone, as free blocks (not when it is reserved).
 * Needs: may be called at any time from any registered thread.  Gives: *id, the region's number until it is removed.
 * Fails, the world as before: -MF_EINVAL (empty, start >= end, unknown layout, source, top or flag, altmap misfit),
 * -MF_E2BIG (end beyond the span; too many regions or zones), -MF_EEXIST (overlaps a region), -MF_EOPNOTSUPP (source
 * or layout not on this machine), -MF_ENOMEM, -MF_EPERM.  devdax: also -MF_EINVAL for source self, for a compound
 * larger than the map's top block, and where start, end and altmap are no multiples of the compound.  Reserved: also
 * -MF_EINVAL for layouts other than tiered and flat, and for sources self and altmap.
 * May: allocate, wait, flush.
 */
MF_API MF_MUST_CHECK int mf_region_add(struct mf_map *map, const struct mf_region_config *config, unsigned *id);

/*
 * Removes it.  Needs: every frame of it free, or all reserved; devdax: nobody holds, pins or maps a compound.
 * Fails, the world as before: -MF_ENOENT (no such region), -MF_EBUSY (frames in use, or hosting map slots of memory
 * in use elsewhere), -MF_ENOMEM (freed folios are on a diet still, and the memory to restore their map slots is
 * lacking; not with MF_REGION_RESTORE_FROM_SELF), -MF_EPERM.  May: wait, flush; folds what can be folded and drains the
 * caches.
 */
MF_API MF_MUST_CHECK int mf_region_remove(struct mf_map *map, unsigned id);

struct mf_region_info {
	struct mf_region_config config;
	unsigned zone;
};
/* -MF_ENOENT when there is no region of that number. */
MF_API MF_MUST_CHECK int mf_region_info(const struct mf_map *map, unsigned id, struct mf_region_info *info);

/* ---- Readers --------------------------------------------------------------------------------------------------- */

/*
 * A reader section spans a lookup without a reference and the attempt to take one; it does not sleep and may nest.
 * A folder waits for the sections that began before it (quiesce).  mf_folio_try_get() and mf_pfn_try_get() open their
 * own.
 */
MF_API void mf_reader_enter(struct mf_map *map);
MF_API void mf_reader_exit(struct mf_map *map);

/* ---- What it costs, and whether it holds ----------------------------------------------------------------------- */

/* What a flush was for. */
enum mf_flush_for {
	MF_FLUSH_FOR_ADD,        /* a region is added: slots that live as long as it does                        */
	MF_FLUSH_FOR_REMOVE,     /* and removed, or its addition failed                                          */
	MF_FLUSH_FOR_UNFOLD,     /* children of a block                                                         */
	MF_FLUSH_FOR_FOLD,       /* a block that folds by itself                                                */
	MF_FLUSH_FOR_SET,        /* blocks that fold in a set                                                   */
	MF_FLUSH_FOR_MOVE,       /* slots that moved out of a set's way                                         */
	MF_FLUSH_FOR_REMAP,      /* onto a diet                                                                */
	MF_FLUSH_FOR_RESTORE,    /* off it                                                                     */
	MF_FLUSH_FOR_SETTLE,     /* slots leave the block that hosted them                                      */
	MF_FLUSH_FOR_MERGE,      /* larger leaves again                                                        */
	MF_FLUSH_FOR_POPULATE,   /* a region of compounds                                                       */
	MF_FLUSH_FOR_DEPOPULATE,
	MF_FLUSH_FOR_END,        /* the map is destroyed                                                        */
	MF_NR_FLUSH_FOR,
};
/* "region add" ... "map end"; NULL for a number that is none of them. */
MF_API const char *mf_flush_for_name(enum mf_flush_for purpose);

struct mf_map_stats {
	uint64_t nr_described;       /* frames in regions                                                      */
	uint64_t nr_slots;           /* map slots that are backed by a frame of their own (HOST: populated)      */
	uint64_t nr_tables;          /* page-table frames, shared, uniform and private, without the root         */
	uint64_t nr_dieted;          /* folios whose map slots are aliases, compounds of devdax included          */
	uint64_t nr_aliases;         /* map slots that show another slot's frame, or a zone's shared tail frame   */
	uint64_t nr_kept;            /* of nr_dieted: freed, and waiting for memory to restore their slots with     */
	uint64_t nr_hosted;          /* blocks freed from their diet that still host slots of their own           */
	uint64_t nr_zero;            /* 1 on TABLES machines: the zero frame                                    */
	uint64_t nr_ram;             /* frames obtained from source RAM, the root included                       */
	uint64_t nr_pool_idle;       /* frames of set-aside blocks that nobody uses                              */
	uint64_t nr_set_aside;       /* set-aside blocks                                                        */
	/* Frames by what they are.  Those of kept folios are in nr_used until their slots are restored. */
	uint64_t nr_free, nr_used, nr_map, nr_reserved, nr_hole, nr_device;
	uint64_t nr_split[MF_TIERS_MAX];            /* split blocks by tier                                      */
	uint64_t unfolds[MF_TIERS_MAX], folds[MF_TIERS_MAX]; /* since creation, by the block's tier             */
	uint64_t flushes, quiesces, tables_moved;   /* since creation                                           */
	uint64_t interrupts;         /* that flushes sent to other CPUs, as the machine counts them              */
	uint64_t flushes_for[MF_NR_FLUSH_FOR], interrupts_for[MF_NR_FLUSH_FOR]; /* the same, by what they were for */
};
/* Needs: no reader section.  May: wait for regions that come or go.  All zero in a forked child. */
MF_API void mf_map_stats(struct mf_map *map, struct mf_map_stats *stats);

/* The first law that does not hold. */
struct mf_violation {
	const char *law;  /* "M1" ... "M8"                                                                        */
	mf_pfn_t pfn;     /* where                                                                               */
	char text[192];   /* one sentence                                                                        */
};

/*
 * Walks the whole map, every window, table and list, and recounts every counter.
 * Needs: no other call is running.  0: every law holds.  1: *violation says which does not.  -MF_EPERM.
 * May: read every descriptor of every region (time and, on HOST machines, page tables grow with what is split).
 */
MF_API MF_MUST_CHECK int mf_map_check(struct mf_map *map, struct mf_violation *violation);

/*
 * A digest of what a failed call must not change (law M7): each frame's kind, owner and counts, the regions, the
 * totals; not list order, caches or how far blocks are folded.  Needs: no other call is running.  0 in a forked child.
 */
MF_API uint64_t mf_map_digest(struct mf_map *map);

#ifdef __cplusplus
}
#endif
#endif
