/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map.c - an empty map: its geometry, its windows, and on TABLES machines the page tables that back them.
 *
 * Windows lie back to back in ascending tiers from a base that is aligned to twice their span, so that heads of every
 * order are found by a mask and a parent by one constant.  Owns nothing of regions or zones.
 */
#include "core/memmap/map.h"

MF_BUILD_ASSERT(offsetof(struct mf_map, geo) == 0, "mf_map_geometry() casts");

static const char *const layout_names[MF_NR_LAYOUTS] = {
	[MF_LAYOUT_TIERED] = "tiered",
	[MF_LAYOUT_FLAT] = "flat",
	[MF_LAYOUT_HVO_5_14] = "hvo-5.14",
	[MF_LAYOUT_HVO_5_18] = "hvo-5.18",
	[MF_LAYOUT_HVO_7_1] = "hvo-7.1",
	[MF_LAYOUT_DEVDAX] = "devdax",
};

static const char *const source_names[MF_NR_SOURCES] = {
	[MF_SOURCE_SELF] = "self",
	[MF_SOURCE_RAM] = "ram",
	[MF_SOURCE_ALTMAP] = "altmap",
	[MF_SOURCE_HOST] = "host",
};

static const char *const flush_for_names[MF_NR_FLUSH_FOR] = {
	[MF_FLUSH_FOR_ADD] = "region add",
	[MF_FLUSH_FOR_REMOVE] = "region remove",
	[MF_FLUSH_FOR_UNFOLD] = "unfold",
	[MF_FLUSH_FOR_FOLD] = "fold",
	[MF_FLUSH_FOR_SET] = "fold set",
	[MF_FLUSH_FOR_MOVE] = "move",
	[MF_FLUSH_FOR_REMAP] = "remap",
	[MF_FLUSH_FOR_RESTORE] = "restore",
	[MF_FLUSH_FOR_SETTLE] = "settle",
	[MF_FLUSH_FOR_MERGE] = "merge",
	[MF_FLUSH_FOR_POPULATE] = "populate",
	[MF_FLUSH_FOR_DEPOPULATE] = "depopulate",
	[MF_FLUSH_FOR_END] = "map end",
};

static int name_index(const char *const *names, unsigned nr, const char *name)
{
	for (unsigned i = 0; name && i < nr; i++) {
		const char *a = names[i], *b = name;

		while (*a && *a == *b)
			a++, b++;
		if (*a == *b)
			return (int)i;
	}
	return -MF_EINVAL;
}

const char *mf_layout_name(enum mf_layout layout)
{
	return (unsigned)layout < MF_NR_LAYOUTS ? layout_names[layout] : NULL;
}

int mf_layout_by_name(const char *name, enum mf_layout *layout)
{
	int i = name_index(layout_names, MF_NR_LAYOUTS, name);

	if (i < 0)
		return i;
	*layout = (enum mf_layout)i;
	return 0;
}

const char *mf_source_name(enum mf_source source)
{
	return (unsigned)source < MF_NR_SOURCES ? source_names[source] : NULL;
}

int mf_source_by_name(const char *name, enum mf_source *source)
{
	int i = name_index(source_names, MF_NR_SOURCES, name);

	if (i < 0)
		return i;
	*source = (enum mf_source)i;
	return 0;
}

const char *mf_flush_for_name(enum mf_flush_for purpose)
{
	return (unsigned)purpose < MF_NR_FLUSH_FOR ? flush_for_names[purpose] : NULL;
}

/* Everything but the addresses. */
static int geometry_plan(struct mf_map *map, const struct mf_map_config *config)
{
	struct mf_geometry *g = &map->geo;
	uint64_t span, bytes = 0, whole_block;

	g->step = config->machine->paging.page_shift - 3;
	g->top = config->top ? config->top : 2;
	if (g->top >= MF_TIERS_MAX || config->span == 0)
		return -MF_EINVAL;
	whole_block = (uint64_t)1 << (g->step * g->top);
	span = mf_max(config->span, whole_block);
	if (span > (uint64_t)1 << 56)
		return -MF_E2BIG;
	if (!mf_is_power_of_two(span))
		span = (uint64_t)2 << mf_log2(span);
	g->span = span;
	for (unsigned tier = 0; tier <= g->top; tier++) {
		g->shift[tier] = (uint8_t)(g->step * tier);
		bytes += (span >> g->shift[tier]) << MF_DESCRIPTOR_SHIFT;
	}
	map->window_bytes = mf_round_up(bytes, (uint64_t)1 << config->machine->paging.page_shift);
	return 0;
}

static void geometry_place(struct mf_map *map, uintptr_t base)
{
	struct mf_geometry *g = &map->geo;

	for (unsigned tier = 0; tier <= g->top; tier++) {
		g->window[tier] = base;
		base += (g->span >> g->shift[tier]) << MF_DESCRIPTOR_SHIFT;
	}
	g->parent_add = g->window[1] - (g->window[0] >> g->step);
	g->top_window = g->window[g->top];
	g->top_shift = g->shift[g->top];
}

static int tables_init(struct mf_map *map, enum mf_pgtable_flags flags)
{
	struct mf_machine *m = map->machine;
	struct mf_bag bag = { 0 };
	uintptr_t base = map->geo.window[0];
	int err;

	err = ram_fill(map, 0, &bag, mf_pgtable_init_frames(&m->paging));
	if (err)
		return err;
	err = mf_pgtable_init(&map->pgtable, m, flags, base, map->window_bytes, &bag);
	if (err) {
		ram_empty(map, 0, &bag);
		return err;
	}
	map_watch(map);
	m->ops->window_attach(m, (void *)base, map->window_bytes, map->pgtable.root);
	return 0;
}

static bool machine_is_complete(const struct mf_machine *m)
{
	const struct mf_machine_ops *ops = m->ops;

	if (!ops || !ops->meta_alloc || !ops->meta_free || !ops->window_reserve || !ops->window_release || !ops->cpu ||
	    !ops->relax || m->nr_cpus == 0 || m->nr_cpus > MF_CPUS_MAX || m->paging.page_shift < 12 ||
	    m->paging.page_shift > 16)
		return false;
	if (m->backing == MF_WINDOW_HOST)
		return ops->host_populate && ops->host_discard;
	return ops->window_attach && ops->ram_get && ops->ram_put && ops->flush && m->direct_map;
}

int map_init(struct mf_map *map, const struct mf_map_config *config, const struct map_client *client)
{
	struct mf_machine *m = config->machine;
	void *base;
	int err;

	if (!machine_is_complete(m) || (config->flags & ~(unsigned)MF_MAP_PRIVATE_TABLES))
		return -MF_EINVAL;
	map->machine = m;
	map->client = client;
	map->flags = config->flags;
	map->epoch = 1;
	err = geometry_plan(map, config);
	if (err)
		return err;
	map->reader = m->ops->meta_alloc(m, m->nr_cpus * sizeof(*map->reader));
	if (!map->reader)
		return -MF_ENOMEM;
	err = m->ops->window_reserve(m, map->window_bytes, 2 * map->geo.span << MF_DESCRIPTOR_SHIFT, &base);
	if (err)
		goto out_reader;
	geometry_place(map, (uintptr_t)base);
	if (m->backing == MF_WINDOW_TABLES) {
		err = tables_init(map, map->flags & MF_MAP_PRIVATE_TABLES ? MF_PGTABLE_PRIVATE : MF_PGTABLE_SHARE);
		if (err)
			goto out_window;
	}
	return 0;
out_window:
	m->ops->window_release(m, base, map->window_bytes);
out_reader:
	m->ops->meta_free(m, map->reader, m->nr_cpus * sizeof(*map->reader));
	return err;
}

/*
 * Tables that stayed private although nothing is left in them (MF_MAP_PRIVATE_TABLES).  No region is left: they are
 * RAM.
 */
static void tables_share(struct mf_map *map)
{
	uintptr_t start = map->geo.window[0];
	bool done = false;

	while (!done) {
		struct mf_bag bag = { 0 };

		done = mf_pgtable_share(&map->pgtable, start, start + map->window_bytes, &bag);
		window_flush(map, MF_FLUSH_FOR_END, start, map->window_bytes, MF_FLUSH_TABLES);
		ram_empty(map, 0, &bag);
	}
}

void map_exit(struct mf_map *map)
{
	struct mf_machine *m = map->machine;
	struct mf_bag bag = { 0 };

	if (m->backing == MF_WINDOW_TABLES && map->flags & MF_MAP_PRIVATE_TABLES)
		tables_share(map);
	m->ops->window_release(m, (void *)map->geo.window[0], map->window_bytes);
	if (m->backing == MF_WINDOW_TABLES)
		due_all(&map->pgtable);
	window_flush(map, MF_FLUSH_FOR_END, map->geo.window[0], map->window_bytes, MF_FLUSH_TABLES);
	if (m->backing == MF_WINDOW_TABLES) {
		mf_pgtable_destroy(&map->pgtable, &bag);
		ram_empty(map, 0, &bag);
	}
	map_tell_dues(map);
	m->ops->meta_free(m, map->reader, m->nr_cpus * sizeof(*map->reader));
}
