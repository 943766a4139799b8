/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * frames.h - zones: a buddy allocator over the tiers, the map pool, per-CPU caches, lazy folding.
 *
 * Users take and return memory through folio.h; this header holds what an owner of a machine asks of a zone.
 * A zone is the pool of one node and one source of map frames.
 */
#ifndef MEMFOLD_FRAMES_H
#define MEMFOLD_FRAMES_H

#include <memfold/memmap.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Creates an empty map.
 * Gives: *map, to be destroyed by mf_map_destroy() in the same process.
 * Fails: -MF_EINVAL (no machine, span 0, top out of range), -MF_E2BIG (windows beyond the machine's addresses),
 * -MF_ENOMEM (control memory, addresses, or on TABLES machines the root, the zero frame and the shared tables),
 * -MF_EPERM (the machine is another process's: a forked child); nothing is left behind.  May: allocate, wait.
 */
MF_API MF_MUST_CHECK int mf_map_create(const struct mf_map_config *config, struct mf_map **map);

/*
 * Needs: no region left, no other thread in any call (panics otherwise).  Returns every frame.  -MF_EPERM in a forked
 * child.
 */
MF_API int mf_map_destroy(struct mf_map *map);

enum mf_alloc_flags {
	MF_ALLOC_WAIT = 0,
	MF_ALLOC_NOWAIT = 1,    /* never unfolds, folds, flushes or waits: from the lists and the zone's stock        */
	/* This node (not MF_ANY_NODE) or none; else other nodes follow in ascending distance of number. */
	MF_ALLOC_THIS_NODE = 2,
	MF_ALLOC_FLAGS_ALL = 3,
};

enum mf_fold_flags {
	MF_FOLD_KEEP = 0, /* keep one foldable block per tier and zone, so that a boundary does not thrash            */
	MF_FOLD_ALL = 1,  /* fold every block that can be folded                                                    */
};

enum { MF_ANY_NODE = -1 };

/*
 * Folds what is free: drains the caches, folds split blocks without users, from the lowest tier up, and releases
 * their map frames.  node: a node, or MF_ANY_NODE.
 * Gives: the number of blocks folded in *nr_folded unless NULL.  Fails: -MF_EINVAL (no such node), -MF_EPERM.  May:
 * wait, flush.
 */
MF_API int mf_fold(struct mf_map *map, int node, enum mf_fold_flags flags, uint64_t *nr_folded);

/* Returns every frame in the CPUs' caches and the stocks to the free lists.  May: take every cache's lock in turn. */
MF_API int mf_drain(struct mf_map *map);

struct mf_zone_info {
	unsigned node;
	enum mf_source source;
	/* Frames users could still have, cached ones included; the idle map pool and kept folios (diet.h) apart. */
	uint64_t nr_free;
	uint64_t nr_pool_idle;   /* frames of set-aside blocks that nobody uses                                      */
	uint64_t nr_cached;      /* frames in caches and stock, included in nr_free                                  */
	uint64_t nr_foldable[MF_TIERS_MAX]; /* split blocks without users, by tier                                   */
	uint64_t nr_set_aside;
	uint64_t nr_free_blocks[MF_TIERS_MAX][MF_ORDERS_MAX]; /* free blocks by tier and order                        */
};
/* zone: 0, 1, ... until -MF_ENOENT. */
MF_API MF_MUST_CHECK int mf_zone_info(struct mf_map *map, unsigned zone, struct mf_zone_info *info);

#ifdef __cplusplus
}
#endif
#endif
