/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable_alias_random.c - switches, exchanges and uniform tables in any order, among everything else that changes
 * page tables, against an array that holds, per slot, frame and protection.
 *
 * Every step is followed by mf_pgtable_check() and a count of all frames (is_sound()).
 */
#include "tests/unit/pgtable_alias_rig.h"

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

/* ---- What is expected -------------------------------------------------------------------------------------------- */

enum { NR_SITES = 2, SITE_TABLES = 3, NR_UNIFORM = 2, ALIAS = 0x5000 };

/* What one slot shows. */
struct shown {
	mf_pfn_t pfn;
	bool mapped, writable;
};

/* What one entry of level 1 maps.  In a uniform table, under a leaf, or else each for itself. */
struct place {
	uintptr_t va;
	struct shown *slot;
	bool leaf, uniform;
};

struct model {
	struct rig r;
	struct place place[NR_SITES * SITE_TABLES];
	mf_pfn_t uniform[NR_UNIFORM]; /* uniform[i] shows frame ALIAS + i */
	unsigned fanout;
	/* A private table that was taken out, and what it maps; pfn 0: none. */
	mf_pfn_t taken;
	struct shown *taken_slot;
};

/* `nr` slots of one place, from `index` on. */
struct spot {
	struct place *place;
	unsigned index, nr;
	uintptr_t va;
};

static struct spot spot_at(const struct model *m, struct place *place, unsigned index, unsigned nr)
{
	return (struct spot){place, index, nr, place->va + ((uintptr_t)index << m->r.flat.machine.paging.page_shift)};
}

static struct spot random_spot(struct model *m)
{
	unsigned nr = 1 + (unsigned)random_below(random_below(4) ? 16 : m->fanout / 2);
	/* Few places, so that steps meet: the start, which holds digits and mark, and the end. */
	unsigned start = random_below(2) ? (unsigned)random_below(16) : m->fanout - nr - (unsigned)random_below(8);

	return spot_at(m, &m->place[random_below(NR_SITES * SITE_TABLES)], start, nr);
}

static struct spot whole_spot(struct model *m, struct place *place)
{
	return spot_at(m, place, 0, m->fanout);
}

static bool all_mapped(const struct spot *s, bool mapped)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (s->place->slot[s->index + i].mapped != mapped)
			return false;
	return true;
}

static bool spot_holds(struct model *m, const struct spot *s)
{
	for (unsigned i = 0; i < s->nr; i++) {
		const struct shown *e = &s->place->slot[s->index + i];
		uintptr_t va = s->va + ((uintptr_t)i << m->r.flat.machine.paging.page_shift) + random_below(4096);
		struct mf_translation t = mf_pgtable_walk(&m->r.pt, va);

		if (t.background == e->mapped || t.writable != e->writable || t.level != (s->place->leaf ? 1 : 0) ||
		    t.pfn != (e->mapped ? e->pfn : m->r.pt.zero))
			return false;
	}
	return true;
}

static struct mf_entry expected_entry(struct model *m, struct place *place)
{
	mf_pfn_t table;

	if (place->leaf)
		return (struct mf_entry){MF_ENTRY_LEAF, place->slot[0].pfn, place->slot[0].writable};
	if (place->uniform)
		return (struct mf_entry){.kind = MF_ENTRY_UNIFORM, .pfn = m->uniform[place->slot[0].pfn - ALIAS]};
	if (mf_pgtable_table(&m->r.pt, place->va, 0, &table))
		return (struct mf_entry){.kind = MF_ENTRY_TABLE, .pfn = table};
	return (struct mf_entry){.kind = MF_ENTRY_BACKGROUND};
}

static bool place_holds(struct model *m, struct place *place)
{
	struct spot s = whole_spot(m, place);
	struct mf_entry e = expected_entry(m, place);

	return spot_holds(m, &s) && is_entry(mf_pgtable_entry(&m->r.pt, s.va), e.kind, e.pfn, e.writable);
}

static bool model_holds(struct model *m)
{
	for (unsigned i = 0; i < NR_SITES * SITE_TABLES; i++)
		if (!place_holds(m, &m->place[i]))
			return false;
	return true;
}

/* ---- Slots ------------------------------------------------------------------------------------------------------- */

/* A frame of the slot's own: blocks that merge, as long as the generation is the same. */
static mf_pfn_t own_frame(const struct model *m, const struct place *place, unsigned index, unsigned generation)
{
	mf_pfn_t nth = (mf_pfn_t)(place - m->place) + NR_SITES * SITE_TABLES * (mf_pfn_t)(100 + generation);

	return nth * m->fanout + index;
}

static unsigned random_generation(void)
{
	return random_below(4) ? 0 : (unsigned)random_below(3);
}

static enum mf_prot random_prot(void)
{
	return random_below(4) ? MF_PROT_WRITE : MF_PROT_READ;
}

static void step_map(struct model *m, struct spot s)
{
	mf_pfn_t pfn[8192];
	enum mf_prot prot = random_prot();
	unsigned generation = random_generation();

	if (!all_mapped(&s, false))
		return;
	for (unsigned i = 0; i < s.nr; i++) {
		pfn[i] = own_frame(m, s.place, s.index + i, generation);
		s.place->slot[s.index + i] = (struct shown){pfn[i], true, prot == MF_PROT_WRITE};
	}
	TAP_EQ(map_drawn(&m->r, s.va, 0, pfn, s.nr, prot), 0);
}

static void step_clear(struct model *m, struct spot s)
{
	mf_pfn_t old[8192];

	if (!all_mapped(&s, true) || s.place->leaf || s.place->uniform)
		return;
	mf_pgtable_clear(&m->r.pt, s.va, 0, s.nr, old, &m->r.bag);
	for (unsigned i = 0; i < s.nr; i++) {
		TAP_OK(old[i] == s.place->slot[s.index + i].pfn);
		s.place->slot[s.index + i] = (struct shown){0};
	}
	give_back(&m->r);
}

static void step_switch(struct model *m, struct spot s)
{
	static mf_pfn_t pfn[3 * 8192];
	mf_pfn_t old[8192], table;
	unsigned stride = (unsigned)random_below(4), generation = random_generation();
	enum mf_prot prot = stride == 0 ? MF_PROT_READ : random_prot();

	if (!mf_pgtable_table(&m->r.pt, s.va, 0, &table))
		return;
	pfn[0] = ALIAS + random_below(3);
	for (unsigned i = 0; stride > 0 && i < s.nr; i++)
		pfn[i * stride] = own_frame(m, s.place, s.index + i, generation);
	mf_pgtable_switch(&m->r.pt, s.va, pfn, stride, s.nr, prot, random_below(8) ? old : NULL);
	for (unsigned i = 0; i < s.nr; i++)
		s.place->slot[s.index + i] = (struct shown){pfn[i * stride], true, prot == MF_PROT_WRITE};
}

/* As step_switch(), and the old frames are looked at; to one frame, as a folio goes on its diet. */
static void step_alias(struct model *m, struct spot s)
{
	mf_pfn_t frame = ALIAS + random_below(3), old[8192], table;

	if (!mf_pgtable_table(&m->r.pt, s.va, 0, &table))
		return;
	mf_pgtable_switch(&m->r.pt, s.va, &frame, 0, s.nr, MF_PROT_READ, old);
	for (unsigned i = 0; i < s.nr; i++) {
		struct shown *e = &s.place->slot[s.index + i];

		TAP_OK(old[i] == (e->mapped ? e->pfn : m->r.pt.zero));
		*e = (struct shown){frame, true, false};
	}
}

/* Only slots that show a frame of their own become writable: an alias that is would break a law. */
static void step_protect(struct model *m, struct spot s)
{
	struct shown *e = &s.place->slot[s.index];
	bool writable = random_below(2) && e->pfn - ALIAS >= 3;

	if (s.place->uniform)
		return;
	TAP_EQ(mf_pgtable_protect(&m->r.pt, s.va + 17, writable ? MF_PROT_WRITE : MF_PROT_READ),
	       e->mapped ? 0 : -MF_ENOENT);
	if (s.place->leaf)
		for (unsigned i = 0; i < m->fanout; i++)
			s.place->slot[i].writable = writable;
	else if (e->mapped)
		e->writable = writable;
}

static void step_replace(struct model *m, struct spot s)
{
	struct shown *e = &s.place->slot[s.index];
	mf_pfn_t pfn = own_frame(m, s.place, s.index, random_generation());

	if (!e->mapped || s.place->leaf || s.place->uniform)
		return;
	TAP_EQ(mf_pgtable_replace(&m->r.pt, s.va, pfn), e->pfn);
	e->pfn = pfn;
}

/* ---- Entries of level 1 ------------------------------------------------------------------------------------------ */

/* Puts an entry there; what was there is ended, but for a uniform table. */
static void place_set(struct model *m, struct place *place, struct mf_entry entry)
{
	struct mf_entry expected = expected_entry(m, place), old;

	old = exchange_drawn(&m->r, place->va, entry.kind, entry.pfn, entry.writable);
	TAP_OK(is_entry(old, expected.kind, expected.pfn, expected.writable));
	if (old.kind == MF_ENTRY_TABLE && old.pfn != entry.pfn) {
		memset(frame_words(&m->r, old.pfn), 0xee, (size_t)1 << m->r.flat.machine.paging.page_shift);
		frame_end(&m->r, old.pfn);
	}
	place->leaf = entry.kind == MF_ENTRY_LEAF;
	place->uniform = entry.kind == MF_ENTRY_UNIFORM;
}

static void step_exchange(struct model *m, struct place *place)
{
	struct mf_entry entry = {.kind = (enum mf_entry_kind)random_below(4)};
	unsigned generation = random_generation(), step = 1;
	struct shown first = {.pfn = own_frame(m, place, 0, generation), .mapped = true, .writable = random_below(2)};

	if (entry.kind == MF_ENTRY_LEAF && m->r.flat.machine.paging.max_leaf_level == 0)
		return;
	if (entry.kind == MF_ENTRY_BACKGROUND) {
		first = (struct shown){0};
		step = 0;
	} else if (entry.kind == MF_ENTRY_UNIFORM || (entry.kind == MF_ENTRY_TABLE && random_below(2))) {
		first = (struct shown){ALIAS + random_below(NR_UNIFORM), true, false};
		step = 0;
	}
	if (entry.kind == MF_ENTRY_LEAF)
		entry = (struct mf_entry){MF_ENTRY_LEAF, first.pfn, first.writable};
	if (entry.kind == MF_ENTRY_UNIFORM)
		entry.pfn = m->uniform[first.pfn - ALIAS];
	if (entry.kind == MF_ENTRY_TABLE) {
		entry.pfn = frame_new(&m->r);
		mf_pgtable_fill(&m->r.pt, entry.pfn, entry.kind, first.pfn, step,
				first.writable ? MF_PROT_WRITE : MF_PROT_READ);
	}
	place_set(m, place, entry);
	for (unsigned i = 0; i < m->fanout; i++, first.pfn += step)
		place->slot[i] = first;
}

/* A private table leaves its place, or comes to another one, with whatever it maps. */
static void step_take_or_put(struct model *m, struct place *place)
{
	size_t size = m->fanout * sizeof(struct shown);
	struct mf_entry old;

	if (m->taken) {
		place_set(m, place, (struct mf_entry){.kind = MF_ENTRY_TABLE, .pfn = m->taken});
		memcpy(place->slot, m->taken_slot, size);
		m->taken = 0;
		return;
	}
	if (expected_entry(m, place).kind != MF_ENTRY_TABLE)
		return;
	old = exchange_drawn(&m->r, place->va, MF_ENTRY_BACKGROUND, 0, false);
	TAP_EQ(old.kind, MF_ENTRY_TABLE);
	m->taken = old.pfn;
	memcpy(m->taken_slot, place->slot, size);
	memset(place->slot, 0, size);
}

static void step_split(struct model *m, struct place *place)
{
	draw(&m->r, 1);
	TAP_EQ(mf_pgtable_split(&m->r.pt, place->va, 1, &m->r.bag), place->leaf ? 0 : -MF_ENOENT);
	TAP_EQ(m->r.bag.nr, place->leaf ? 0 : 1);
	give_back(&m->r);
	place->leaf = false;
}

static void step_merge(struct model *m, struct place *place)
{
	struct shown *e = place->slot;
	bool fits = !place->leaf && e->mapped && e->pfn % m->fanout == 0;
	mf_pfn_t table;
	int expected;

	for (unsigned i = 0; fits && i < m->fanout; i++)
		fits = e[i].mapped && e[i].pfn == e->pfn + i && e[i].writable == e->writable;
	if (m->r.flat.machine.paging.max_leaf_level == 0)
		fits = false;
	if (fits)
		expected = 0;
	else if (place->uniform || m->r.flat.machine.paging.max_leaf_level == 0)
		expected = -MF_EINVAL;
	else
		expected = mf_pgtable_table(&m->r.pt, place->va, 0, &table) ? -MF_EINVAL : -MF_ENOENT;
	TAP_EQ(mf_pgtable_merge(&m->r.pt, place->va, 1, &m->r.bag), expected);
	give_back(&m->r);
	place->leaf |= fits;
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

static void step_move(struct model *m, struct place *place)
{
	unsigned level = (unsigned)random_below(root_level(&m->r));
	mf_pfn_t table;

	if (!mf_pgtable_table(&m->r.pt, place->va, level, &table))
		return;
	TAP_EQ(mf_pgtable_move(&m->r.pt, place->va, level, frame_new(&m->r)), table);
	memset(frame_words(&m->r, table), 0xee, (size_t)1 << m->r.flat.machine.paging.page_shift);
	frame_end(&m->r, table);
}

static void step_privatise_or_share(struct model *m, struct place *place)
{
	bool all = random_below(2);
	uintptr_t start = all ? m->r.pt.base : place->va, end = start + (all ? m->r.pt.size_bytes : span_of(&m->r));

	if ((m->r.pt.flags & MF_PGTABLE_PRIVATE) == 0)
		return;
	if (random_below(4) == 0) {
		TAP_OK(mf_pgtable_share(&m->r.pt, start, end, &m->r.bag));
	} else {
		draw(&m->r, mf_pgtable_tables_needed(&m->r.pt, place->va, 0));
		TAP_EQ(mf_pgtable_privatise(&m->r.pt, place->va, &m->r.bag), 0);
		TAP_EQ(m->r.bag.nr, 0);
	}
	give_back(&m->r);
}

/* ---- A run ------------------------------------------------------------------------------------------------------- */

static void random_step(struct model *m)
{
	struct spot s = random_spot(m);
	static void (*const on_slots[8])(struct model *, struct spot) = {
		step_map, step_map, step_clear, step_switch, step_switch, step_alias, step_protect, step_replace,
	};
	static void (*const on_places[8])(struct model *, struct place *) = {
		step_exchange, step_exchange, step_take_or_put, step_take_or_put,
		step_split,    step_merge,    step_move,        step_privatise_or_share,
	};

	if (random_below(2))
		on_slots[random_below(8)](m, s);
	else
		on_places[random_below(8)](m, s.place);
}

/* The start of the range and its end: neighbours share a table of level 1, the sites nothing below the root. */
static void model_open(struct model *m, struct mf_paging paging, enum mf_pgtable_flags flags)
{
	*m = (struct model){.taken = 0};
	rig_open(&m->r, paging, flags);
	m->fanout = fanout_of(&m->r);
	m->taken_slot = calloc(m->fanout, sizeof(struct shown));
	for (unsigned i = 0; i < NR_UNIFORM; i++)
		m->uniform[i] = uniform_new(&m->r, ALIAS + i);
	for (unsigned i = 0; i < NR_SITES * SITE_TABLES; i++) {
		uintptr_t end = m->r.pt.base + m->r.pt.size_bytes - SITE_TABLES * span_of(&m->r);

		m->place[i].va = (i < SITE_TABLES ? m->r.pt.base : end) + i % SITE_TABLES * span_of(&m->r);
		m->place[i].slot = calloc(m->fanout, sizeof(struct shown));
	}
}

static void model_close(struct model *m)
{
	for (unsigned i = 0; i < NR_SITES * SITE_TABLES; i++) {
		place_set(m, &m->place[i], (struct mf_entry){.kind = MF_ENTRY_BACKGROUND});
		free(m->place[i].slot);
	}
	if (m->taken)
		frame_end(&m->r, m->taken);
	free(m->taken_slot);
	TAP_OK(mf_pgtable_share(&m->r.pt, m->r.pt.base, m->r.pt.base + m->r.pt.size_bytes, &m->r.bag));
	give_back(&m->r);
	for (unsigned i = 0; i < NR_UNIFORM; i++)
		uniform_end(&m->r, m->uniform[i]);
	rig_close(&m->r);
}

static void run_random(struct mf_paging paging, enum mf_pgtable_flags flags, unsigned nr_steps)
{
	struct model m;

	random_state = 0x9e3779b97f4a7c15u + paging.page_shift * 8 + paging.levels;
	model_open(&m, paging, flags);
	for (unsigned step = 0; step < nr_steps; step++) {
		random_step(&m);
		if (!is_sound(&m.r, NR_UNIFORM + (m.taken != 0)) || (step % 8 == 0 && !model_holds(&m))) {
			TAP_NOTE("shift %u, %u levels, step %u", paging.page_shift, paging.levels, step);
			TAP_OK(model_holds(&m) && step == nr_steps);
			return;
		}
	}
	TAP_OK(model_holds(&m));
	model_close(&m);
}

TAP_TEST(random_steps_x86_64_4_levels)
{
	run_random(mf_paging_x86_64(4), MF_PGTABLE_SHARE, 8000);
}
TAP_TEST(random_steps_x86_64_5_levels)
{
	run_random(mf_paging_x86_64(5), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_4_kib)
{
	run_random(mf_paging_arm64(12, 4), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_4_kib_2_levels)
{
	run_random(mf_paging_arm64(12, 2), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_16_kib)
{
	run_random(mf_paging_arm64(14, 4), MF_PGTABLE_SHARE, 2000);
}
TAP_TEST(random_steps_arm64_64_kib)
{
	run_random(mf_paging_arm64(16, 3), MF_PGTABLE_SHARE, 800);
}
TAP_TEST(random_steps_private_tables)
{
	run_random(mf_paging_x86_64(4), MF_PGTABLE_PRIVATE, 8000);
}
TAP_TEST(random_steps_arm64_private_tables)
{
	run_random(mf_paging_arm64(14, 3), MF_PGTABLE_PRIVATE, 2000);
}
TAP_TEST(random_steps_x86_64_3_levels_from_4_gib)
{
	run_random(from_paddr(mf_paging_x86_64(3), 4 * MF_GIB), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_16_kib_from_1_tib)
{
	run_random(from_paddr(mf_paging_arm64(14, 3), MF_TIB), MF_PGTABLE_PRIVATE, 2000);
}

TAP_MAIN()
