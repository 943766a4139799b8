/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_host.c - the classic diets where windows are the host's memory: there are no tables to read off what a slot
 * shows, so mf_map_check() compares bytes; each test makes it find one that is wrong.
 */
#include "core/memmap/diet.h"
#include "tests/tap.h"
#include "tests/unit/compound_rig.h"
#include "tests/unit/diet_rig.h"

enum { NR_FRAMES = 1 << 14, ORDER = 9 };

struct scene {
	struct world w;
	struct mf_folio *folio;
	const struct mf_diet *diet;
};

/* A folio or compound of eight slots on its diet. */
static bool scene_open(struct scene *s, enum mf_layout layout)
{
	struct world_config config = { .machine = "linux", .nr_frames = NR_FRAMES };

	*s = (struct scene){ .diet = mf_layout_diet(layout) };
	if (layout == MF_LAYOUT_DEVDAX) {
		if (!world_open(&s->w, &config) || compound_add(&s->w, 0, NR_FRAMES, ORDER, NULL) != 0)
			return false;
		s->folio = compound_at(&s->w, 0);
		return world_check(&s->w);
	}
	if (!diet_open(&s->w, &config, layout))
		return false;
	s->folio = diet_folio(&s->w, ORDER);
	return s->folio && mf_diet_remap(s->w.map, s->folio) == 0 && world_check(&s->w);
}

static bool scene_close(struct scene *s)
{
	if (s->diet->is_by_remap)
		diet_folio_free(&s->w, s->folio);
	return world_close(&s->w);
}

static bool breaks(struct scene *s, const char *law)
{
	const char *broken = world_broken_law(&s->w);

	if (strcmp(broken, law) != 0)
		TAP_NOTE("%s is broken, found \"%s\"", law, broken);
	return strcmp(broken, law) == 0;
}

/* What the aliases show. */
static void *shown(struct scene *s)
{
	if (s->diet->tails == MF_TAILS_ZONE)
		return s->w.map->tails->slot;
	return diet_slot(&s->w, s->folio, s->diet->nr_kept - 1);
}

/* An alias gets memory of its own, as a restore would give it, and becomes one again. */
static void slot_stands_alone(struct scene *s, uint64_t index)
{
	const struct mf_machine_ops *ops = s->w.machine->ops;
	const uint64_t bytes = slot_size(&s->w), offsets[] = { 0, 8, 63, bytes / 2 + 40, bytes - 1 };
	unsigned char *slot = (unsigned char *)diet_slot(&s->w, s->folio, index);

	TAP_EQ(ops->host_unalias(s->w.machine, slot, bytes), 0);
	TAP_OK(world_check(&s->w));
	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		slot[offsets[i]] ^= 0x40;
		TAP_OK(breaks(s, "M6"));
		slot[offsets[i]] ^= 0x40;
	}
	TAP_EQ(ops->host_alias(s->w.machine, slot, bytes, shown(s)), 0);
	TAP_OK(world_check(&s->w));
}

/* Under hvo-5.18 that is the head's slot, byte for byte.  R-CPD-18, R-HVO-14, R-HVO-19, R-DAX-15 */
TAP_TEST(m6_each_alias_shows_all_bytes_of_its_target)
{
	for (enum mf_layout layout = MF_LAYOUT_HVO_5_14; layout < MF_NR_LAYOUTS; layout++) {
		struct scene s;

		TAP_REQUIRE(scene_open(&s, layout));
		for (uint64_t index = s.diet->nr_kept; index < diet_nr_slots(&s.w, ORDER); index++)
			slot_stands_alone(&s, index);
		TAP_OK(scene_close(&s));
	}
}

/* All slots agree, on something that no tail holds.  R-HVO-19 */
TAP_TEST(what_is_shown_is_tails)
{
	for (enum mf_layout layout = MF_LAYOUT_HVO_5_14; layout < MF_NR_LAYOUTS; layout++) {
		struct mf_page *page;
		struct scene s;

		TAP_REQUIRE(scene_open(&s, layout));
		page = (struct mf_page *)shown(&s) + 13;
		page->private_data = 1;
		TAP_OK(breaks(&s, s.diet->tails == MF_TAILS_ZONE ? "M6" : "M1"));
		page->private_data = 0;
		TAP_OK(scene_close(&s));
	}
}

/* The count of a tail frame is of frames; the host's memory counts itself. */
TAP_TEST(m1_a_tail_frame_of_the_host_counts_nothing)
{
	struct scene s;

	TAP_REQUIRE(scene_open(&s, MF_LAYOUT_DEVDAX));
	((struct mf_page *)shown(&s))->private_data = 7;
	TAP_OK(breaks(&s, "M1"));
	((struct mf_page *)shown(&s))->private_data = 0;
	TAP_OK(scene_close(&s));
}

/* R-HVO-17 */
TAP_TEST(m6_aliases_without_the_tails_of_their_zone)
{
	struct diet_tails *tails;
	struct scene s;

	TAP_REQUIRE(scene_open(&s, MF_LAYOUT_HVO_7_1));
	tails = s.w.map->tails;
	s.w.map->tails = NULL;
	TAP_OK(breaks(&s, "M6"));
	s.w.map->tails = tails;
	TAP_OK(scene_close(&s));
}

TAP_MAIN()
