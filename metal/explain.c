/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * explain.c - what an address in a window is to its map: tier, pfn, and the layout of its region.
 *
 * Owns nothing.  It stands here because the port is below the map and may not know it.
 */
#include "metal/explain.h"

#include "machines/x86_64/x86_64.h"

#include <memfold/memmap.h>

/* By what the lookup from above finds at pfn. */
static void explain_region(const struct mf_map *map, mf_pfn_t pfn, char *text, size_t size)
{
	const struct mf_folio *folio = mf_pfn_folio(map, pfn);
	unsigned id = folio ? mf_word_region(mf_page_word(&folio->page)) : 0;
	struct mf_region_info info;

	if (folio && mf_region_info(map, id, &info) == 0 && pfn >= info.config.start_pfn && pfn < info.config.end_pfn)
		(void)mf_format(text, size, ", region %u, layout %s", id, mf_layout_name(info.config.layout));
	else
		(void)mf_format(text, size, ", in no region");
}

static bool explain_window(const struct mf_map *map, uintptr_t va, bool may_lock, char *text, size_t size)
{
	const struct mf_geometry *g = mf_map_geometry(map);
	char region[64] = "";

	for (unsigned tier = 0; tier <= g->top; tier++) {
		uint64_t index = (va - g->window[tier]) >> MF_DESCRIPTOR_SHIFT;
		mf_pfn_t pfn = index << g->shift[tier];

		if (va < g->window[tier] || index >= g->span >> g->shift[tier])
			continue;
		if (may_lock)
			explain_region(map, pfn, region, sizeof(region));
		(void)mf_format(text, size, "tier %u, pfn 0x%llx%s", tier, (unsigned long long)pfn, region);
		return true;
	}
	return false;
}

void explain_map(const struct mf_map *map)
{
	x86_explain_window = explain_window;
	x86_explained_map = map;
}
