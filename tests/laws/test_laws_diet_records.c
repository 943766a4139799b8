/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_laws_diet_records.c - on a diet something is changed behind the map's back: a slot shows another frame or can be
 * written, a tail holds more than its word, a mark or a counter is wrong; mf_map_check() names the law.
 */
#include "tests/tap.h"
#include "tests/unit/compound_rig.h"
#include "tests/unit/diet_rig.h"

#include <memfold/sim.h>

#include "core/memmap/diet.h"

#define G WORLD_GIB_FRAMES

/* A folio of four tables on its diet, another one kept. */
struct scene {
	struct world w;
	struct mf_map *map;
	struct mf_folio *folio, *kept;
	enum mf_layout layout;
};

static bool scene_open(struct scene *s, enum mf_layout layout)
{
	*s = (struct scene){ .layout = layout };
	if (!diet_open(&s->w, &(struct world_config){ .nr_frames = G, .will_break = true }, layout))
		return false;
	s->map = s->w.map;
	s->folio = diet_folio(&s->w, 17);
	s->kept = diet_folio(&s->w, 9);
	if (!s->folio || !s->kept || mf_diet_remap(s->map, s->folio) != 0 || mf_diet_remap(s->map, s->kept) != 0)
		return false;
	diet_folio_free(&s->w, s->kept);
	return world_check(&s->w);
}

static uintptr_t slot_of(struct scene *s, uint64_t index)
{
	return (uintptr_t)diet_slot(&s->w, s->folio, index);
}

static void protect(struct scene *s, uint64_t index, enum mf_prot prot)
{
	TAP_EQ(mf_pgtable_protect(&s->map->pgtable, slot_of(s, index), prot), 0);
}

static mf_pfn_t new_frame(struct scene *s)
{
	mf_pfn_t pfn = 0;

	TAP_EQ(ram_get(s->map, 0, 0, &pfn), 0);
	diet_write_tails(s->map, mf_machine_frame(s->w.sim, pfn), 17);
	return pfn;
}

static void set_word(struct scene *s, uint64_t set, uint64_t clear)
{
	struct mf_page *head = &s->folio->page;

	map_set_word(head, (mf_page_word(head) | set) & ~clear);
}

static void alias_is_writable(struct scene *s)
{
	protect(s, 7, MF_PROT_WRITE);
}

static void kept_slot_is_read_only(struct scene *s)
{
	protect(s, 0, MF_PROT_READ);
}

static void kept_folio_has_a_slot_read_only(struct scene *s)
{
	s->folio = s->kept;
	protect(s, 0, MF_PROT_READ);
}

/* A folio that was never on a diet. */
static void own_slot_is_read_only(struct scene *s)
{
	struct mf_folio *other = diet_folio(&s->w, 9);

	TAP_OK(other != NULL);
	if (!other)
		return;
	s->folio = other;
	protect(s, 3, MF_PROT_READ);
}

static void restored_slot_is_read_only(struct scene *s)
{
	TAP_EQ(mf_diet_restore(s->map, s->folio), 0);
	protect(s, 1, MF_PROT_READ);
}

static void free_slot_is_read_only(struct scene *s)
{
	TAP_EQ(mf_pgtable_protect(&s->map->pgtable, (uintptr_t)mf_pfn_to_page(s->map, G - 1), MF_PROT_READ), 0);
}

static void shown_slot_is_writable(struct scene *s)
{
	protect(s, 1, MF_PROT_WRITE);
}

static void alias_shows_another_frame(struct scene *s)
{
	mf_pgtable_replace(&s->map->pgtable, slot_of(s, 300), new_frame(s));
}

static void table_shows_another_frame(struct scene *s)
{
	mf_pfn_t table = new_frame(s);
	struct mf_entry entry = { .kind = MF_ENTRY_UNIFORM, .pfn = table }, old;

	mf_pgtable_fill(&s->map->pgtable, table, MF_ENTRY_UNIFORM, new_frame(s), 0, MF_PROT_READ);
	TAP_EQ(mf_pgtable_exchange(&s->map->pgtable, slot_of(s, 512), &entry, NULL, &old), 0);
	TAP_EQ(old.kind, MF_ENTRY_UNIFORM);
}

/* An entry of a uniform table, where the direct map does not protect it. */
static void uniform_table_is_written(struct scene *s)
{
	struct mf_entry entry = mf_pgtable_entry(&s->map->pgtable, slot_of(s, 512));
	uint64_t *table = mf_machine_frame(s->w.sim, entry.pfn);

	TAP_EQ(entry.kind, MF_ENTRY_UNIFORM);
	s->w.sim->ops->direct_protect(s->w.sim, entry.pfn, true);
	table[77] = table[77] & ~s->w.machine->paging.address_mask;
}

static void tail_frame_is_written(struct scene *s)
{
	mf_pfn_t frame = s->map->tails->frame;
	struct mf_page *page = mf_machine_frame(s->w.sim, frame);

	s->w.sim->ops->direct_protect(s->w.sim, frame, true);
	page[13].counts = 1;
}

static void tail_frame_has_an_owner(struct scene *s)
{
	mf_pfn_t frame = s->map->tails->frame;
	struct mf_page *page = mf_machine_frame(s->w.sim, frame);

	s->w.sim->ops->direct_protect(s->w.sim, frame, true);
	page[0].private_data = 1;
}

/* Back to RAM, which poisons it, while slots show it. */
static void shown_frame_is_freed(struct scene *s)
{
	mf_pfn_t frame = mf_pgtable_walk(&s->map->pgtable, slot_of(s, 5)).pfn;

	s->w.sim->ops->flush(s->w.sim, s->map->geo.window[0], s->map->window_bytes, MF_FLUSH_TABLES);
	s->w.sim->ops->direct_protect(s->w.sim, frame, true);
	s->w.sim->ops->ram_put(s->w.sim, 0, 0, frame);
}

static void shown_tail_is_written(struct scene *s)
{
	mf_pfn_t frame = mf_pgtable_walk(&s->map->pgtable, slot_of(s, 5)).pfn;
	struct mf_page *page = mf_machine_frame(s->w.sim, frame);

	page[13].word = page[12].word & ~(uint64_t)0xffff;
}

/* Slot 1 leads to its head; the slots that show it do not. */
static void shown_tail_is_of_another_order(struct scene *s)
{
	mf_pfn_t frame = mf_pgtable_walk(&s->map->pgtable, slot_of(s, 5)).pfn;
	struct mf_page *page = mf_machine_frame(s->w.sim, frame);

	map_set_word(&page[13], map_tail_word(9));
}

static void shown_tail_has_an_owner(struct scene *s)
{
	mf_pfn_t frame = mf_pgtable_walk(&s->map->pgtable, slot_of(s, 5)).pfn;
	struct mf_page *page = mf_machine_frame(s->w.sim, frame);

	page[0].private_data = 1;
}

static void tail_is_mapped(struct scene *s)
{
	(&s->folio->page)[5].mapcount = 1;
}

static void tail_is_linked(struct scene *s)
{
	(&s->folio->page)[63].list.prev = &s->folio->page.list;
}

/* On no diet; what is wrong would be in the copies when it goes on one. */
static void own_tail_has_an_owner(struct scene *s)
{
	struct mf_folio *other = diet_folio(&s->w, 9);

	TAP_OK(other != NULL);
	if (other)
		(&other->page)[200].mapping = 1;
}

static void free_record_has_an_owner(struct scene *s)
{
	mf_pfn_to_page(s->map, G - 1)->index = 1;
}

static void head_is_not_marked(struct scene *s)
{
	set_word(s, 0, MF_WORD_ALIASED);
}

static void head_is_marked(struct scene *s)
{
	set_word(s, MF_WORD_ALIASED, 0);
}

/* Marked as on its diet, with slots of its own. */
static void flag_without_a_diet(struct scene *s)
{
	struct mf_folio *other = diet_folio(&s->w, 9);

	TAP_OK(other != NULL);
	if (other)
		map_set_word(&other->page, mf_page_word(&other->page) | MF_FLAG_DIET |
					       (s->layout == MF_LAYOUT_HVO_5_18 ? MF_WORD_ALIASED : 0));
}

/* Smaller than anything that saves. */
static void flag_on_a_base_frame(struct scene *s)
{
	struct mf_folio *other = diet_folio(&s->w, 0);

	TAP_OK(other != NULL);
	if (other)
		map_set_word(&other->page, mf_page_word(&other->page) | MF_FLAG_DIET);
}

static void diet_without_its_flag(struct scene *s)
{
	set_word(s, 0, MF_FLAG_DIET | MF_WORD_ALIASED);
}

static void tails_are_forgotten(struct scene *s)
{
	s->map->tails = NULL;
}

static void nr_uniform_is_wrong(struct scene *s)
{
	s->map->nr_uniform++;
}

static void nr_tails_is_wrong(struct scene *s)
{
	s->map->nr_tails--;
}

static void nr_ram_is_wrong(struct scene *s)
{
	s->map->nr_ram--;
}

static void kept_folio_loses_its_flag(struct scene *s)
{
	map_set_word(&s->kept->page, mf_page_word(&s->kept->page) & ~MF_FLAG_CACHED);
}

static void kept_folio_is_off_its_list(struct scene *s)
{
	mf_list_remove(&s->kept->page.list);
}

static void folio_counts_as_kept(struct scene *s)
{
	set_word(s, MF_FLAG_CACHED, 0);
}

enum { IN_5_14 = 1, IN_5_18 = 2, IN_7_1 = 4, IN_ALL = 7 };

#define BREAK(law, name, where) { #law, #name, name, where }

/* R-GEN-4, R-HVO-14, R-HVO-19, R-HVO-25, R-CPD-10, R-CPD-18, R-OBS-5 */
static const struct row {
	const char *law, *name;
	void (*run)(struct scene *s);
	unsigned where;
} rows[] = {
	BREAK(M1, head_is_not_marked, IN_5_18),
	BREAK(M1, head_is_marked, IN_5_14 | IN_7_1),
	BREAK(M1, shown_tail_is_written, IN_5_14),
	BREAK(M1, shown_tail_is_of_another_order, IN_5_14),
	BREAK(M1, shown_tail_has_an_owner, IN_5_14),
	BREAK(M1, tail_is_mapped, IN_ALL),
	BREAK(M1, tail_is_linked, IN_ALL),
	BREAK(M1, own_tail_has_an_owner, IN_ALL),
	BREAK(M1, free_record_has_an_owner, IN_ALL),
	BREAK(M1, diet_without_its_flag, IN_5_18),
	BREAK(M6, alias_is_writable, IN_ALL),
	BREAK(M6, kept_slot_is_read_only, IN_ALL),
	BREAK(M6, kept_folio_has_a_slot_read_only, IN_ALL),
	BREAK(M6, own_slot_is_read_only, IN_ALL),
	BREAK(M6, restored_slot_is_read_only, IN_ALL),
	BREAK(M6, free_slot_is_read_only, IN_ALL),
	BREAK(M6, diet_without_its_flag, IN_5_14 | IN_7_1),
	BREAK(M6, shown_slot_is_writable, IN_5_14),
	BREAK(M6, alias_shows_another_frame, IN_ALL),
	BREAK(M6, table_shows_another_frame, IN_ALL),
	BREAK(M6, uniform_table_is_written, IN_ALL),
	BREAK(M6, tail_frame_is_written, IN_7_1),
	BREAK(M6, tail_frame_has_an_owner, IN_7_1),
	BREAK(M6, shown_frame_is_freed, IN_7_1),
	BREAK(M6, flag_without_a_diet, IN_ALL),
	BREAK(M6, flag_on_a_base_frame, IN_ALL),
	BREAK(M6, tails_are_forgotten, IN_7_1),
	BREAK(M8, nr_uniform_is_wrong, IN_ALL),
	BREAK(M8, nr_tails_is_wrong, IN_7_1),
	BREAK(M8, nr_ram_is_wrong, IN_ALL),
	BREAK(M8, kept_folio_loses_its_flag, IN_ALL),
	BREAK(M8, kept_folio_is_off_its_list, IN_ALL),
	BREAK(M8, folio_counts_as_kept, IN_ALL),
};

TAP_TEST(what_is_wrong_with_a_diet_is_named)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned j = 0; j < NR_DIET_LAYOUTS; j++) {
			const char *broken;
			struct scene s;

			if (!(rows[i].where & 1u << j))
				continue;
			TAP_REQUIRE(scene_open(&s, diet_layouts[j]));
			rows[i].run(&s);
			broken = world_broken_law(&s.w);
			if (strcmp(broken, rows[i].law) != 0) {
				TAP_NOTE("%s in %s: %s is broken, found \"%s\"", rows[i].name,
					 mf_layout_name(diet_layouts[j]), rows[i].law, broken);
				TAP_OK(false);
			}
			world_abandon(&s.w);
		}
	}
}

static bool is_broken(struct world *w, const char *law)
{
	const char *broken = world_broken_law(w);

	if (strcmp(broken, law) != 0)
		TAP_NOTE("%s is broken, found \"%s\"", law, broken);
	return strcmp(broken, law) == 0;
}

/* The tail frame of a compound: its first descriptor has the count, and that is all.  R-DAX-15 */
TAP_TEST(m8_tail_frame_holds_its_count_and_nothing_else)
{
	struct world w;
	struct mf_page *tails;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 1 << 14 }));
	TAP_REQUIRE(compound_add(&w, 0, 1 << 14, 9, NULL) == 0);
	TAP_OK(world_check(&w));
	tails = mf_machine_frame(w.sim, slot_shows(&w, 0, 1).pfn);
	TAP_EQ(tails[0].private_data, 7);

	tails[0].private_data = 6;
	TAP_OK(is_broken(&w, "M8"));
	tails[0].private_data = 7;
	tails[0].index = 1;
	TAP_OK(is_broken(&w, "M1"));
	tails[0].index = 0;
	tails[1].private_data = 7;
	TAP_OK(is_broken(&w, "M1"));
	tails[1].private_data = 0;
	TAP_OK(world_close(&w));
}

/* A frame that slots show and processors reach does not go back: the machine knows. */
TAP_TEST(m6_shown_frame_that_is_freed_is_caught)
{
	struct scene s;
	mf_pfn_t frame;

	TAP_REQUIRE(scene_open(&s, MF_LAYOUT_HVO_7_1));
	frame = mf_pgtable_walk(&s.map->pgtable, slot_of(&s, 5)).pfn;
	(void)mf_page_folio(s.map, diet_slot(&s.w, s.folio, 5));
	TAP_OK(TAP_PANICS(s.w.sim->ops->ram_put(s.w.sim, 0, 0, frame)));
	world_abandon(&s.w);
}

TAP_MAIN()
