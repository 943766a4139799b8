/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * region.c - regions come and go, at any pfn alignment.
 *
 * A region covers whole blocks, and at its ends parts of blocks (edges).  An edge is split for as long as any region
 * has a part of it; what is absent there has records of kind hole.
 *
 *      region                 [-------------------------------------)
 *      tier 2       |    edge     |    run     |    run     |   edge      |
 *      tier 1       |hole|edge|run|                         |run|edge|hole|
 *      tier 0            |hole|run|                             |run|hole|
 *
 * A run above the region's top tier T (a flat region has T = 0) is split as well: straight to tier T, for ever.
 *
 * Adding is two passes over the cover: prepare backs every slot and may fail (what it backed is trimmed again); commit
 * writes records, children before parents, and cannot fail.  Removing: the frames off the lists, withdraw (parents
 * first), quiesce, trim.  Everything here runs under map->region_lock.
 */
#include "core/memmap/diet.h"

/* Called for every run of whole blocks, and on entering and leaving every edge, in ascending order of pfn. */
struct cover {
	int (*run)(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end);
	int (*enter_edge)(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block);
	int (*leave_edge)(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block);
};

static int cover_walk(struct mf_map *map, struct mf_region *r, const struct cover *cover, unsigned tier, mf_pfn_t start,
		      mf_pfn_t end);

static int cover_edge(struct mf_map *map, struct mf_region *r, const struct cover *cover, unsigned tier, mf_pfn_t start,
		      mf_pfn_t end)
{
	mf_pfn_t block = mf_round_down(start, map_block_frames(map, tier));
	int err = cover->enter_edge ? cover->enter_edge(map, r, tier, block) : 0;

	if (!err)
		err = cover_walk(map, r, cover, tier - 1, start, end);
	if (!err && cover->leave_edge)
		err = cover->leave_edge(map, r, tier, block);
	return err;
}

static int cover_walk(struct mf_map *map, struct mf_region *r, const struct cover *cover, unsigned tier, mf_pfn_t start,
		      mf_pfn_t end)
{
	mf_pfn_t size = map_block_frames(map, tier);
	mf_pfn_t first = mf_round_up(start, size), last = mf_round_down(end, size);
	int err = 0;

	if (first > last)
		return cover_edge(map, r, cover, tier, start, end);
	if (start < first)
		err = cover_edge(map, r, cover, tier, start, first);
	if (!err && first < last && cover->run)
		err = cover->run(map, r, tier, first, last);
	if (!err && last < end)
		err = cover_edge(map, r, cover, tier, last, end);
	return err;
}

/* A tiered region's reserve is covered by itself, so that its blocks are records of their own. */
static int region_cover(struct mf_map *map, struct mf_region *r, const struct cover *cover)
{
	mf_pfn_t middle = r->reserve.group ? r->reserve.end : r->config.start_pfn;
	int err = 0;

	if (middle > r->config.start_pfn)
		err = cover_walk(map, r, cover, map->geo.top, r->config.start_pfn, middle);
	return err ? err : cover_walk(map, r, cover, map->geo.top, middle, r->config.end_pfn);
}

static unsigned run_tier(const struct mf_region *r, unsigned tier)
{
	return tier < r->top ? tier : r->top;
}

static bool block_is_split(const struct mf_map *map, unsigned tier, mf_pfn_t block)
{
	return mf_page_kind(map_record(map, tier, block)) == MF_KIND_SPLIT;
}

/* Its compounds are device folios; and the map of those that lie in whole blocks is populated on its diet. */
static bool is_compound(const struct mf_region *r)
{
	return r->config.layout == MF_LAYOUT_DEVDAX;
}

/* All of it belongs to somebody else. */
static bool is_reserved(const struct mf_region_config *c)
{
	return (c->flags & MF_REGION_RESERVED) != 0;
}

static bool is_populated_dieted(const struct mf_map *map, const struct mf_region *r)
{
	unsigned page_shift = map->machine->paging.page_shift, order = r->config.unit_order;

	return is_compound(r) && r->source != MF_SOURCE_ALTMAP &&
	       mf_diet_saves(r->config.layout, page_shift, MF_DESCRIPTOR_SIZE, order) > 0;
}

static bool has_flat_reserve(const struct mf_region *r)
{
	return r->top == 0 && r->reserve.end > r->reserve.start;
}

/* ---- Prepare: back the slots ----------------------------------------------------------------------------------- */

static struct window_ensure records_of(struct mf_map *map, const struct mf_region *r, unsigned tier, mf_pfn_t start,
				       mf_pfn_t end)
{
	return (struct window_ensure){
		.start = (uintptr_t)map_record(map, tier, start),
		.end = (uintptr_t)(map_record(map, tier, end - 1) + 1),
		.node = r->config.node,
		/* Device DAX with its map in RAM is populated slot by slot. */
		.leaves = r->top == 0 && (!is_compound(r) || r->source == MF_SOURCE_ALTMAP),
	};
}

static int ensure_records(struct mf_map *map, const struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	struct window_ensure want = records_of(map, r, tier, start, end);

	return window_ensure(map, &want);
}

/* The records of whole blocks that are split for as long as the region lives. */
static int ensure_children(struct mf_map *map, struct mf_region *r, mf_pfn_t start, mf_pfn_t end)
{
	struct window_ensure want = records_of(map, r, r->top, start, end);

	if (is_populated_dieted(map, r))
		return compound_populate(map, r, want.start, want.end);
	want.can_alias = mf_layout_diet(r->config.layout)->is_by_remap;
	want.reserve = has_flat_reserve(r) ? &r->reserve : NULL;
	return window_ensure(map, &want);
}

static int prepare_run(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	int err = 0;

	if (tier == map->geo.top)
		err = ensure_records(map, r, tier, start, end);
	if (!err && tier > r->top)
		err = ensure_children(map, r, start, end);
	return err;
}

static int prepare_edge(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block)
{
	int err = 0;

	if (tier == map->geo.top)
		err = ensure_records(map, r, tier, block, block + map_block_frames(map, tier));
	if (!err && !block_is_split(map, tier, block))
		err = ensure_records(map, r, tier - 1, block, block + map_block_frames(map, tier));
	return err;
}

/* ---- Commit: write the records --------------------------------------------------------------------------------- */

static void write_run(struct mf_map *map, unsigned tier, mf_pfn_t start, mf_pfn_t end, uint64_t word)
{
	struct mf_page *page = map_record(map, tier, start), *last = map_record(map, tier, end - 1);

	for (; page <= last; page++)
		map_set_word(page, word);
}

/* What stands behind the reserve is compounds; the reserve's own records follow. */
static void commit_compounds(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	mf_pfn_t middle = mf_min(mf_max(start, r->free_start), end);

	if (start < middle)
		write_run(map, 0, start, middle, map_region_word(r, MF_KIND_RESERVED, 0));
	if (middle < end)
		compound_commit(map, r, middle, end, tier > 0 && is_populated_dieted(map, r));
}

static int commit_run(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	unsigned at = run_tier(r, tier);
	bool reserved = is_reserved(&r->config) || (r->reserve.group && start < r->reserve.end);

	if (is_compound(r))
		commit_compounds(map, r, tier, start, end);
	else
		write_run(map, at, start, end, map_region_word(r, reserved ? MF_KIND_RESERVED : MF_KIND_FREE, at));
	if (at < tier)
		write_run(map, tier, start, end,
			  map_region_word(r, MF_KIND_SPLIT, tier) | map_word_child(at) | MF_FLAG_EDGE);
	return 0;
}

static int commit_enter_edge(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block)
{
	(void)r;
	if (!block_is_split(map, tier, block))
		write_run(map, tier - 1, block, block + map_block_frames(map, tier),
			  map_word(MF_KIND_HOLE, tier - 1, 0, 0, 0));
	return 0;
}

static int commit_leave_edge(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block)
{
	struct mf_page *record = map_record(map, tier, block);

	record->mapping++;
	if (!block_is_split(map, tier, block))
		map_set_word(record, map_region_word(r, MF_KIND_SPLIT, tier) | map_word_child(tier - 1) | MF_FLAG_EDGE);
	return 0;
}

static int online_run(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	start = mf_max(start, r->free_start);
	if (start < end)
		map->client->online(map, r, run_tier(r, tier), start, end);
	return 0;
}

/* ---- A flat region on its own frames --------------------------------------------------------------------------- */

static int count_slots(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	if (tier > r->top)
		r->nr_flat_slots += (end - start) >> (map->machine->paging.page_shift - MF_DESCRIPTOR_SHIFT);
	return 0;
}

/* The frames that back these records say so. */
static int mark_run(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	uintptr_t va = (uintptr_t)map_record(map, 0, start), last = (uintptr_t)map_record(map, 0, end - 1);

	for (; tier > 0 && va <= last; va += (uintptr_t)1 << map->machine->paging.page_shift) {
		mf_pfn_t pfn = diet_walk(map, va).pfn;
		struct mf_page *page = map_record(map, 0, pfn);

		page->mapping = map_backs_slot(0);
		page->index = va;
		map_set_word(page, map_region_word(r, MF_KIND_MAP, 0));
	}
	return 0;
}

static const struct cover count = { .run = count_slots };
static const struct cover mark = { .run = mark_run };

static void mark_reserve(struct mf_map *map, struct mf_region *r)
{
	if (!has_flat_reserve(r))
		return;
	write_run(map, 0, r->reserve.start, r->reserve.end, map_region_word(r, MF_KIND_RESERVED, 0));
	(void)region_cover(map, r, &mark);
}

/* ---- Withdraw and trim ----------------------------------------------------------------------------------------- */

/* What a block that belongs to nobody reads as: zero at the top, a hole inside an edge. */
static uint64_t absent_word(const struct mf_map *map, unsigned tier)
{
	return tier == map->geo.top ? 0 : map_word(MF_KIND_HOLE, tier, 0, 0, 0);
}

static void forget(struct mf_map *map, unsigned tier, mf_pfn_t block)
{
	struct mf_page *page = map_record(map, tier, block);

	map_set_word(page, absent_word(map, tier));
	map_clear_fields(page);
}

static int withdraw_run(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	(void)r;
	for (mf_pfn_t pfn = start; pfn < end; pfn += map_block_frames(map, tier))
		forget(map, tier, pfn);
	return 0;
}

static int withdraw_edge(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block)
{
	struct mf_page *record = map_record(map, tier, block);

	(void)r;
	if (--record->mapping == 0)
		forget(map, tier, block);
	return 0;
}

static int trim_run(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	uintptr_t first = (uintptr_t)map_record(map, r->top, start);
	uintptr_t last = (uintptr_t)(map_record(map, r->top, end - 1) + 1);

	if (tier > r->top && is_populated_dieted(map, r))
		compound_depopulate(map, r, first, last);
	else if (tier > r->top)
		window_trim(map, first, last, r->config.node, r);
	if (tier == map->geo.top)
		window_trim(map, (uintptr_t)map_record(map, tier, start),
			    (uintptr_t)(map_record(map, tier, end - 1) + 1), r->config.node, NULL);
	return 0;
}

static int trim_edge(struct mf_map *map, struct mf_region *r, unsigned tier, mf_pfn_t block)
{
	uintptr_t record = (uintptr_t)map_record(map, tier, block);

	if (block_is_split(map, tier, block))
		return 0;
	window_trim(map, (uintptr_t)map_record(map, tier - 1, block),
		    (uintptr_t)(map_record(map, tier - 1, block + map_block_frames(map, tier) - 1) + 1),
		    r->config.node, NULL);
	if (tier == map->geo.top)
		window_trim(map, record, record + MF_DESCRIPTOR_SIZE, r->config.node, NULL);
	return 0;
}

static const struct cover prepare = { .run = prepare_run, .enter_edge = prepare_edge };
static const struct cover commit = {
	.run = commit_run, .enter_edge = commit_enter_edge, .leave_edge = commit_leave_edge
};
static const struct cover online = { .run = online_run };
static const struct cover withdraw = { .run = withdraw_run, .leave_edge = withdraw_edge };
static const struct cover trim = { .run = trim_run, .leave_edge = trim_edge };

static void cover_all(struct mf_map *map, struct mf_region *r, const struct cover *cover)
{
	int err = region_cover(map, r, cover);

	MF_ASSERT(err == 0);
	(void)err;
}

/* ---- The calls ------------------------------------------------------------------------------------------------- */

/* Compounds are naturally aligned, so that tails find their head by a mask [R-DAX-31]. */
static bool units_are_right(const struct mf_map *map, const struct mf_region_config *c)
{
	mf_pfn_t inside;

	if (c->layout != MF_LAYOUT_DEVDAX)
		return c->unit_order == 0;
	if (c->source == MF_SOURCE_SELF || c->unit_order > map->geo.shift[map->geo.top])
		return false;
	inside = ((mf_pfn_t)1 << c->unit_order) - 1;
	return ((c->start_pfn | c->end_pfn | c->nr_altmap) & inside) == 0;
}

/* Self and altmap would write to its frames. */
static bool may_be_reserved(const struct mf_region_config *c)
{
	return (c->layout == MF_LAYOUT_TIERED || c->layout == MF_LAYOUT_FLAT) &&
	       (c->source == MF_SOURCE_RAM || c->source == MF_SOURCE_HOST);
}

static int config_check(const struct mf_map *map, const struct mf_region_config *c)
{
	if (c->start_pfn >= c->end_pfn || c->node >= MF_NODES_MAX || (unsigned)c->layout >= MF_NR_LAYOUTS ||
	    (unsigned)c->source >= MF_NR_SOURCES || c->flags & ~(unsigned)MF_REGION_FLAGS_ALL ||
	    c->top > map->geo.top ||
	    (c->nr_altmap != 0) != (c->source == MF_SOURCE_ALTMAP) || !units_are_right(map, c) ||
	    (is_reserved(c) && !may_be_reserved(c)))
		return -MF_EINVAL;
	if (c->end_pfn > map->geo.span)
		return -MF_E2BIG;
	if (map->machine->backing == MF_WINDOW_HOST)
		return mf_layout_diet(c->layout)->nr_kept == 0 || map->machine->ops->host_alias ? 0 : -MF_EOPNOTSUPP;
	if (c->source == MF_SOURCE_HOST)
		return -MF_EOPNOTSUPP;
	if (c->source != MF_SOURCE_ALTMAP)
		return 0;
	/* A tiered reserve is whole blocks of tier 1. */
	if (c->nr_altmap >= c->end_pfn - c->start_pfn ||
	    (c->layout == MF_LAYOUT_TIERED && (c->start_pfn | c->nr_altmap) & (map_block_frames(map, 1) - 1)))
		return -MF_EINVAL;
	return 0;
}

/* A free number for the region; -MF_EEXIST when it overlaps another. */
static int region_number(const struct mf_map *map, const struct mf_region_config *c, unsigned *id)
{
	unsigned nr = map->region_limit;

	for (unsigned i = 0; i < map->region_limit; i++) {
		const struct mf_region *r = map->region[i];

		if (!r)
			nr = nr == map->region_limit ? i : nr;
		else if (c->start_pfn < r->config.end_pfn && r->config.start_pfn < c->end_pfn)
			return -MF_EEXIST;
	}
	*id = nr;
	return nr == MF_REGIONS_MAX ? -MF_E2BIG : 0;
}

void region_lock(struct mf_map *map)
{
	while (!mf_lock_try(&map->region_lock))
		map->machine->ops->relax(map->machine);
}

void region_unlock(struct mf_map *map)
{
	mf_lock_release(&map->region_lock);
}

/* Sharing off: every table under the region, in every window. */
static int region_privatise(struct mf_map *map, const struct mf_region *r)
{
	int err = 0;

	if (!(map->flags & MF_MAP_PRIVATE_TABLES) || map->machine->backing != MF_WINDOW_TABLES)
		return 0;
	for (unsigned tier = 0; tier <= map->geo.top && !err; tier++)
		err = window_privatise(map, (uintptr_t)map_record(map, tier, r->config.start_pfn),
				       (uintptr_t)(map_record(map, tier, r->config.end_pfn - 1) + 1), r->config.node);
	return err;
}

static void region_share(struct mf_map *map, const struct mf_region *r)
{
	if (!(map->flags & MF_MAP_PRIVATE_TABLES) || map->machine->backing != MF_WINDOW_TABLES)
		return;
	for (unsigned tier = 0; tier <= map->geo.top; tier++)
		window_share(map, (uintptr_t)map_record(map, tier, r->config.start_pfn),
			     (uintptr_t)(map_record(map, tier, r->config.end_pfn - 1) + 1), r->config.node);
}

/* Slots, tables and reserve go back; nothing of the region is described any more. */
static void region_unback(struct mf_map *map, struct mf_region *r)
{
	cover_all(map, r, &trim);
	region_share(map, r);
	reserve_exit(map, r);
	map->machine->ops->meta_free(map->machine, r, sizeof(*r));
}

static int region_back(struct mf_map *map, struct mf_region *r)
{
	int err = map->client->zone_get(map, r->config.node, r->source, &r->zone);

	if (!err)
		err = region_privatise(map, r);
	return err ? err : region_cover(map, r, &prepare);
}

static int region_add_locked(struct mf_map *map, const struct mf_region_config *config, unsigned *id)
{
	struct mf_machine *m = map->machine;
	struct mf_region *r;
	int err = region_number(map, config, id);

	if (err)
		return err;
	r = m->ops->meta_alloc(m, sizeof(*r));
	if (!r)
		return -MF_ENOMEM;
	r->config = *config;
	r->id = *id;
	r->source = m->backing == MF_WINDOW_HOST ? MF_SOURCE_HOST : config->source;
	r->top = config->layout != MF_LAYOUT_TIERED ? 0 : config->top ? config->top : map->geo.top;
	(void)region_cover(map, r, &count);
	err = reserve_init(map, r);
	if (err) {
		m->ops->meta_free(m, r, sizeof(*r));
		return err;
	}
	if (is_reserved(config))
		r->free_start = config->end_pfn;
	err = region_back(map, r);
	if (err) {
		region_unback(map, r);
		return err;
	}
	map->region[*id] = r;
	map->region_limit += *id == map->region_limit;
	cover_all(map, r, &commit);
	mark_reserve(map, r);
	if (is_compound(r))
		compound_online(map, r);
	else
		cover_all(map, r, &online);
	map_count(&map->nr_described, config->end_pfn - config->start_pfn);
	mf_log(MF_LOG_INFO, "memfold: region %u added: pfn %llu to %llu, node %u, %s, source %s", *id,
	       (unsigned long long)config->start_pfn, (unsigned long long)config->end_pfn, config->node,
	       mf_layout_name(config->layout), mf_source_name(r->source));
	return 0;
}

int mf_region_add(struct mf_map *map, const struct mf_region_config *config, unsigned *id)
{
	int err = map_permit(map);

	if (!err)
		err = config_check(map, config);
	if (err)
		return err;
	region_lock(map);
	err = region_add_locked(map, config, id);
	region_unlock(map);
	return err;
}

static bool zone_needs_tails(const struct mf_map *map, unsigned zone)
{
	for (unsigned i = 0; i < map->region_limit; i++) {
		const struct mf_region *r = map->region[i];

		if (r && r->zone == zone && mf_layout_diet(r->config.layout)->tails == MF_TAILS_ZONE)
			return true;
	}
	return false;
}

/* Nobody may have a frame of it from here on.  What is reserved nobody ever had. */
static int region_offline(struct mf_map *map, const struct mf_region *r)
{
	if (is_reserved(&r->config))
		return 0;
	return is_compound(r) ? compound_offline(map, r) : map->client->offline(map, r);
}

static int region_remove_locked(struct mf_map *map, unsigned id)
{
	struct mf_region *r = id < MF_REGIONS_MAX ? map->region[id] : NULL;
	mf_pfn_t start, end;
	unsigned zone;
	int err;

	if (!r)
		return -MF_ENOENT;
	err = region_offline(map, r);
	if (err)
		return err;
	cover_all(map, r, &withdraw);
	mf_quiesce(map);
	map->region[id] = NULL;
	while (map->region_limit > 0 && !map->region[map->region_limit - 1])
		map->region_limit--;
	mf_log(MF_LOG_INFO, "memfold: region %u removed: pfn %llu to %llu", id, (unsigned long long)r->config.start_pfn,
	       (unsigned long long)r->config.end_pfn);
	__atomic_fetch_sub(&map->nr_described, r->config.end_pfn - r->config.start_pfn, __ATOMIC_RELAXED);
	zone = r->zone;
	start = r->config.start_pfn;
	end = r->config.end_pfn;
	region_unback(map, r);
	if (!zone_needs_tails(map, zone))
		diet_tails_drop(map, zone);
	map_reuse(map, start, end - start);
	return 0;
}

int mf_region_remove(struct mf_map *map, unsigned id)
{
	int err = map_permit(map);

	if (err)
		return err;
	region_lock(map);
	err = region_remove_locked(map, id);
	region_unlock(map);
	return err;
}

int mf_region_info(const struct mf_map *map, unsigned id, struct mf_region_info *info)
{
	struct mf_map *locked = (struct mf_map *)(uintptr_t)map; /* nothing but the lock changes */
	const struct mf_region *r;
	int err = map_permit(map);

	if (err)
		return err;
	region_lock(locked);
	r = id < MF_REGIONS_MAX ? map->region[id] : NULL;
	if (r) {
		info->config = r->config;
		info->zone = r->zone;
	}
	region_unlock(locked);
	return r ? 0 : -MF_ENOENT;
}

bool mf_pfn_is_valid(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_folio *folio = mf_pfn_folio(map, pfn);

	return folio && mf_page_kind(&folio->page) != MF_KIND_HOLE;
}
