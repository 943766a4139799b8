/* SPDX-License-Identifier: BSD-2-Clause */
/* walk.c - every record of the map, from above; and what is counted by walking: statistics and the digest. */
#include "core/memmap/diet.h"

/* ---- The walk -------------------------------------------------------------------------------------------------- */

struct walk {
	struct mf_map *map;
	map_visit_fn visit;
	void *ctx;
	/* Everything below was spoken for: a folio or free block may reach beyond the split block it starts in. */
	mf_pfn_t done;
};

/* How far one record speaks: a folio or free block by its order, everything else for its own block. */
static uint64_t frames_of(const struct mf_map *map, uint64_t word, unsigned tier)
{
	bool by_order = map_word_is_folio(word) || word & MF_FLAG_BUDDY;

	return by_order && !mf_word_is_tail(word) ? (uint64_t)1 << mf_word_order(word) : map_block_frames(map, tier);
}

static int walk_range(struct walk *w, unsigned tier, mf_pfn_t start, mf_pfn_t end)
{
	for (mf_pfn_t pfn = mf_max(start, w->done); pfn < end;) {
		struct mf_page *page = map_record(w->map, tier, pfn);
		struct map_visit at = { .page = page, .word = mf_page_word(page), .tier = tier, .pfn = pfn };
		int err = 0;

		at.nr_frames = frames_of(w->map, at.word, tier);
		if (at.word)
			err = w->visit(w->ctx, w->map, &at);
		if (!err && !mf_word_is_tail(at.word) && mf_word_kind(at.word) == MF_KIND_SPLIT &&
		    mf_word_child(at.word) < tier)
			err = walk_range(w, mf_word_child(at.word), pfn, pfn + at.nr_frames);
		if (err)
			return err;
		pfn += at.nr_frames;
		w->done = mf_max(w->done, pfn);
	}
	return 0;
}

/* The next region that starts at or after pfn, in ascending order; NULL at the end. */
static const struct mf_region *region_from(const struct mf_map *map, mf_pfn_t pfn)
{
	const struct mf_region *best = NULL;

	for (unsigned i = 0; i < MF_REGIONS_MAX; i++) {
		const struct mf_region *r = map->region[i];

		if (r && r->config.end_pfn > pfn && (!best || r->config.start_pfn < best->config.start_pfn))
			best = r;
	}
	return best;
}

int map_walk(struct mf_map *map, map_visit_fn visit, void *ctx)
{
	struct walk w = { map, visit, ctx, 0 };
	mf_pfn_t size = map_block_frames(map, map->geo.top), done = 0;
	const struct mf_region *r;

	while ((r = region_from(map, done)) != NULL) {
		mf_pfn_t start = mf_max(done, mf_round_down(r->config.start_pfn, size));
		mf_pfn_t end = mf_round_up(r->config.end_pfn, size);
		int err = walk_range(&w, map->geo.top, start, end);

		if (err)
			return err;
		done = end;
	}
	return 0;
}

/* ---- Statistics ------------------------------------------------------------------------------------------------ */

static int count_record(void *ctx, struct mf_map *map, const struct map_visit *at)
{
	struct mf_map_stats *stats = ctx;

	if (map_word_is_folio(at->word) && at->word & MF_FLAG_DIET) {
		/* By the word that was seen: the record may be something else by now. */
		struct diet_unit u = diet_unit_at(map, map_word_region(map, at->word), at->page,
						  mf_word_order(at->word));

		stats->nr_dieted++;
		stats->nr_aliases += u.nr_slots - u.diet->nr_kept;
	}
	switch (mf_word_kind(at->word)) {
	case MF_KIND_FREE:
		stats->nr_free += at->nr_frames;
		break;
	case MF_KIND_USED:
		stats->nr_used += at->nr_frames;
		break;
	case MF_KIND_MAP:
		stats->nr_map += at->nr_frames;
		break;
	case MF_KIND_RESERVED:
		stats->nr_reserved += at->nr_frames;
		break;
	case MF_KIND_HOLE:
		stats->nr_hole += at->nr_frames;
		break;
	case MF_KIND_DEVICE:
		stats->nr_device += at->nr_frames;
		break;
	case MF_KIND_SPLIT:
		stats->nr_split[at->tier]++;
		if (map->machine->backing == MF_WINDOW_HOST) {
			uint64_t nr = at->nr_frames >> map->geo.shift[mf_word_child(at->word)];

			stats->nr_slots += nr << MF_DESCRIPTOR_SHIFT >> map->machine->paging.page_shift;
		}
		break;
	default:
		break;
	}
	return 0;
}

static int count_entry(void *ctx, unsigned level, uintptr_t va, mf_pfn_t pfn, bool is_table)
{
	struct {
		const struct mf_map *map;
		struct mf_map_stats *stats;
	} *c = ctx;

	(void)pfn;
	if (!is_table)
		c->stats->nr_slots += (uint64_t)1 << (level * c->map->geo.step);
	else if (level == 1 && mf_pgtable_entry(&c->map->pgtable, va).kind == MF_ENTRY_UNIFORM)
		c->stats->nr_slots += (uint64_t)1 << c->map->geo.step;
	return 0;
}

static void count_tables(struct mf_map *map, struct mf_map_stats *stats)
{
	struct {
		const struct mf_map *map;
		struct mf_map_stats *stats;
	} c = { map, stats };

	stats->nr_zero = 1;
	/* Neither the root nor the zero frame. */
	stats->nr_tables = mf_pgtable_frames(&map->pgtable) - 2 + __atomic_load_n(&map->nr_uniform, __ATOMIC_RELAXED);
	mf_pgtable_for_each(&map->pgtable, count_entry, &c);
}

/* HOST: pages of the top window that hold records. */
static uint64_t top_slots(const struct mf_map *map)
{
	uint64_t nr = 0;
	uintptr_t done = 0;
	const struct mf_region *r;

	for (mf_pfn_t pfn = 0; (r = region_from(map, pfn)) != NULL; pfn = r->config.end_pfn) {
		unsigned shift = map->machine->paging.page_shift;
		uintptr_t first = (uintptr_t)map_record(map, map->geo.top, r->config.start_pfn) >> shift;
		uintptr_t last = (uintptr_t)map_record(map, map->geo.top, r->config.end_pfn - 1) >> shift;

		first = mf_max(first, done);
		nr += last + 1 > first ? last + 1 - first : 0;
		done = last + 1;
	}
	return nr;
}

void mf_map_stats(struct mf_map *map, struct mf_map_stats *stats)
{
	__builtin_memset(stats, 0, sizeof(*stats));
	/* Before any lock: in a forked child it may be held by a thread that does not exist there. */
	if (map_permit(map))
		return;
	stats->nr_described = __atomic_load_n(&map->nr_described, __ATOMIC_RELAXED);
	stats->nr_ram = __atomic_load_n(&map->nr_ram, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < MF_NR_FLUSH_FOR; i++) {
		stats->flushes_for[i] = __atomic_load_n(&map->flushes_for[i].nr, __ATOMIC_RELAXED);
		stats->interrupts_for[i] = __atomic_load_n(&map->flushes_for[i].nr_interrupts, __ATOMIC_RELAXED);
		stats->flushes += stats->flushes_for[i];
		stats->interrupts += stats->interrupts_for[i];
	}
	stats->quiesces = __atomic_load_n(&map->quiesces, __ATOMIC_RELAXED);
	stats->tables_moved = __atomic_load_n(&map->tables_moved, __ATOMIC_RELAXED);
	for (unsigned tier = 0; tier < MF_TIERS_MAX; tier++) {
		stats->unfolds[tier] = __atomic_load_n(&map->unfolds[tier], __ATOMIC_RELAXED);
		stats->folds[tier] = __atomic_load_n(&map->folds[tier], __ATOMIC_RELAXED);
	}
	region_lock(map); /* else the walk might read a region that is gone */
	if (map->machine->backing == MF_WINDOW_TABLES) {
		table_lock(map);
		count_tables(map, stats);
		table_unlock(map);
	} else {
		stats->nr_slots = top_slots(map);
	}
	map_walk(map, count_record, stats);
	region_unlock(map);
	/* Until here every slot that shows something was counted. */
	stats->nr_slots += __atomic_load_n(&map->nr_tails, __ATOMIC_RELAXED);
	stats->nr_slots -= mf_min(stats->nr_slots, stats->nr_aliases);
	map->client->stats(map, stats);
}

/* ---- The digest ------------------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t digest, uint64_t value)
{
	digest = (digest ^ value) * 0x9e3779b97f4a7c15u;
	return digest ^ digest >> 29;
}

/*
 * Free frames and map frames of the pool are not told apart: how far blocks are folded is no part of the digest.
 * Folios, with owner and counts, and whatever else is neither, are.
 */
static int digest_record(void *ctx, struct mf_map *map, const struct map_visit *at)
{
	uint64_t *digest = ctx;
	enum mf_kind kind = mf_word_kind(at->word);

	(void)map;
	if (kind == MF_KIND_FREE || kind == MF_KIND_MAP || kind == MF_KIND_SPLIT || kind == MF_KIND_HOLE)
		return 0;
	/* Kept: free for everybody but the memory that restores it. */
	if (map_word_is_kept(at->word))
		return 0;
	*digest = mix(*digest, at->pfn);
	*digest = mix(*digest, at->word);
	*digest = mix(*digest, at->page->counts);
	*digest = mix(*digest, (uint64_t)(uint32_t)at->page->mapcount << 32 | (uint32_t)at->page->whole_mapcount);
	*digest = mix(*digest, at->page->mapping);
	*digest = mix(*digest, at->page->index);
	*digest = mix(*digest, at->page->private_data);
	return 0;
}

uint64_t mf_map_digest(struct mf_map *map)
{
	uint64_t digest = mix(1, map->nr_described);

	if (map_permit(map))
		return 0;
	for (unsigned i = 0; i < MF_REGIONS_MAX; i++) {
		const struct mf_region *r = map->region[i];

		if (!r)
			continue;
		digest = mix(digest, i);
		digest = mix(digest, r->config.start_pfn);
		digest = mix(digest, r->config.end_pfn);
		digest = mix(digest, (uint64_t)r->config.node << 32 | (uint64_t)r->config.layout << 16 |
					     (uint64_t)r->config.source << 8 | r->config.top);
		digest = mix(digest, (uint64_t)r->config.flags << 32 | r->config.unit_order);
	}
	map_walk(map, digest_record, &digest);
	return digest;
}
