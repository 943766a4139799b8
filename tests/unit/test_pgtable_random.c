/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_pgtable_random.c - anything in any order on page tables, against an array of what each address should translate
 * to.
 *
 * Every step is followed by mf_pgtable_check() and a count of all frames (rig_is_sound()): what the page tables hold
 * and what the machine has left is always the whole.
 */
#include "tests/unit/pgtable_rig.h"

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

/* ---- What is expected -------------------------------------------------------------------------------------------- */

enum { NR_SITES = 3, SITE_TABLES = 2 };

/* What one frame's worth of addresses should translate to; level is that of its leaf. */
struct expected {
	mf_pfn_t pfn;
	unsigned level;
	bool mapped, writable;
};

/* SITE_TABLES neighbouring level-0 tables' worth of addresses. */
struct site {
	uintptr_t va;
	struct expected *at;
};

struct model {
	struct rig r;
	struct site site[NR_SITES];
	unsigned fanout;
};

/* `nr` frames' worth from `index` on, within one level-0 table. */
struct spot {
	struct site *site;
	unsigned index, nr;
	uintptr_t va;
};

static struct spot spot_at(struct model *m, struct site *site, unsigned index, unsigned nr)
{
	return (struct spot){site, index, nr, site->va + ((uintptr_t)index << m->r.flat.machine.paging.page_shift)};
}

static struct spot random_spot(struct model *m)
{
	unsigned nr = 1 + (unsigned)random_below(8), table = (unsigned)random_below(SITE_TABLES);
	/* Few places, so that steps meet: the start, which holds the digits, and the end. */
	unsigned start = random_below(2) ? (unsigned)random_below(16) : m->fanout - nr - (unsigned)random_below(8);

	return spot_at(m, &m->site[random_below(NR_SITES)], table * m->fanout + start, nr);
}

static struct spot table_spot(struct model *m, const struct spot *s)
{
	return spot_at(m, s->site, s->index / m->fanout * m->fanout, m->fanout);
}

static bool all_mapped(const struct spot *s, bool mapped, unsigned level)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (s->site->at[s->index + i].mapped != mapped || (mapped && s->site->at[s->index + i].level != level))
			return false;
	return true;
}

static bool spot_translates(struct model *m, struct spot s)
{
	unsigned shift = m->r.flat.machine.paging.page_shift;

	for (unsigned i = 0; i < s.nr; i++) {
		const struct expected *e = &s.site->at[s.index + i];
		struct mf_translation t =
			mf_pgtable_walk(&m->r.pt, s.va + ((uintptr_t)i << shift) + random_below(4096));

		if (t.background == e->mapped || t.writable != e->writable || t.level != e->level ||
		    t.pfn != (e->mapped ? e->pfn : m->r.pt.zero))
			return false;
	}
	return true;
}

static bool model_holds(struct model *m)
{
	for (unsigned i = 0; i < NR_SITES; i++)
		if (!spot_translates(m, spot_at(m, &m->site[i], 0, SITE_TABLES * m->fanout)))
			return false;
	return true;
}

/* ---- Steps, each on the page tables and on the array ------------------------------------------------------------- */

/* The frame that would continue a block of level 1, so that merges can succeed; or any frame. */
static mf_pfn_t choose_pfn(struct model *m, const struct spot *s, unsigned i)
{
	mf_pfn_t first = (mf_pfn_t)(1000 + (s->site - m->site)) * SITE_TABLES * m->fanout;

	return s->nr <= 8 && random_below(20) == 0 ? 0x700000 + random_below(0x1000) : first + s->index + i;
}

static void step_map(struct model *m, struct spot s, unsigned level)
{
	mf_pfn_t pfn[8192];
	mf_pfn_t block = 0x40000000u + random_below(8) * m->fanout;
	enum mf_prot prot = random_below(4) ? MF_PROT_WRITE : MF_PROT_READ;

	if (!all_mapped(&s, false, 0))
		return;
	for (unsigned i = 0; i < s.nr; i++) {
		pfn[i] = level == 0 ? choose_pfn(m, &s, i) : block + i;
		s.site->at[s.index + i] = (struct expected){pfn[i], level, true, prot == MF_PROT_WRITE};
	}
	TAP_EQ(map_drawn(&m->r, s.va, level, pfn, level == 0 ? s.nr : 1, prot), 0);
}

static void step_clear(struct model *m, struct spot s, unsigned level)
{
	mf_pfn_t old[8192];

	if (!all_mapped(&s, true, level))
		return;
	mf_pgtable_clear(&m->r.pt, s.va, level, level == 0 ? s.nr : 1, old, &m->r.bag);
	for (unsigned i = 0; i < s.nr; i++) {
		TAP_OK(level == 1 || old[i] == s.site->at[s.index + i].pfn);
		s.site->at[s.index + i] = (struct expected){0};
	}
	TAP_OK(m->r.bag.nr <= root_level(&m->r));
	give_back(&m->r);
}

static void clear_all(struct model *m, struct spot s)
{
	for (unsigned i = 0; i < s.nr; i++) {
		const struct expected *e = &s.site->at[s.index + i];

		if (e->mapped)
			step_clear(m, spot_at(m, s.site, s.index + i, e->level == 1 ? m->fanout : 1), e->level);
	}
}

static void step_protect(struct model *m, struct spot s)
{
	bool writable = random_below(2);
	struct expected *e = &s.site->at[s.index];
	unsigned first = e->level == 1 ? s.index / m->fanout * m->fanout : s.index;

	TAP_EQ(mf_pgtable_protect(&m->r.pt, s.va + 17, writable ? MF_PROT_WRITE : MF_PROT_READ),
	       e->mapped ? 0 : -MF_ENOENT);
	for (unsigned i = 0; e->mapped && i < (e->level == 1 ? m->fanout : 1); i++)
		s.site->at[first + i].writable = writable;
}

static void step_replace(struct model *m, struct spot s)
{
	struct expected *e = &s.site->at[s.index];
	mf_pfn_t pfn = choose_pfn(m, &s, 0);

	if (!e->mapped || e->level != 0)
		return;
	TAP_EQ(mf_pgtable_replace(&m->r.pt, s.va, pfn), e->pfn);
	e->pfn = pfn;
}

static void step_split(struct model *m, struct spot s)
{
	struct spot whole = table_spot(m, &s);
	bool is_block = all_mapped(&whole, true, 1);

	draw(&m->r, 1);
	TAP_EQ(mf_pgtable_split(&m->r.pt, s.va, 1, &m->r.bag), is_block ? 0 : -MF_ENOENT);
	TAP_EQ(m->r.bag.nr, is_block ? 0 : 1);
	give_back(&m->r);
	for (unsigned i = 0; is_block && i < m->fanout; i++)
		whole.site->at[whole.index + i].level = 0;
}

static void step_merge(struct model *m, struct spot s)
{
	struct spot whole = table_spot(m, &s);
	struct expected *e = &whole.site->at[whole.index];
	bool fits = all_mapped(&whole, true, 0) && e->pfn % m->fanout == 0;
	mf_pfn_t table;
	int expected;

	for (unsigned i = 0; fits && i < m->fanout; i++)
		fits = e[i].pfn == e->pfn + i && e[i].writable == e->writable;
	expected = fits ? 0 : mf_pgtable_table(&m->r.pt, s.va, 0, &table) ? -MF_EINVAL : -MF_ENOENT;
	TAP_EQ(mf_pgtable_merge(&m->r.pt, s.va, 1, &m->r.bag), expected);
	give_back(&m->r);
	for (unsigned i = 0; fits && i < m->fanout; i++)
		e[i].level = 1;
}

static void step_move(struct model *m, struct spot s)
{
	unsigned level = (unsigned)random_below(root_level(&m->r));
	mf_pfn_t table;

	if (!mf_pgtable_table(&m->r.pt, s.va, level, &table))
		return;
	draw(&m->r, 1);
	TAP_EQ(mf_pgtable_move(&m->r.pt, s.va, level, mf_bag_take(&m->r.bag)), table);
	memset(frame_words(&m->r, table), 0xee, (size_t)1 << m->r.flat.machine.paging.page_shift);
	mf_bag_put(&m->r.bag, table);
	give_back(&m->r);
}

static void step_privatise_or_share(struct model *m, struct spot s)
{
	uintptr_t end = s.site->va + ((uintptr_t)SITE_TABLES * m->fanout << m->r.flat.machine.paging.page_shift);

	if ((m->r.pt.flags & MF_PGTABLE_PRIVATE) == 0)
		return;
	if (random_below(4) == 0) {
		TAP_OK(mf_pgtable_share(&m->r.pt, s.va, end, &m->r.bag));
	} else {
		draw(&m->r, mf_pgtable_tables_needed(&m->r.pt, s.va, 0));
		TAP_EQ(mf_pgtable_privatise(&m->r.pt, s.va, &m->r.bag), 0);
		TAP_EQ(m->r.bag.nr, 0);
	}
	give_back(&m->r);
}

/* ---- A run ------------------------------------------------------------------------------------------------------- */

static void random_step(struct model *m)
{
	struct spot s = random_spot(m), whole = table_spot(m, &s);

	switch (random_below(16)) {
	case 0:
	case 1:
	case 2:
	case 3:
		step_map(m, s, 0);
		break;
	case 4:
	case 5:
	case 6:
		step_clear(m, s, 0);
		break;
	case 7:
		clear_all(m, whole);
		step_map(m, whole, (unsigned)random_below(2));
		break;
	case 8:
		step_clear(m, whole, (unsigned)random_below(2));
		break;
	case 9:
		step_protect(m, s);
		break;
	case 10:
		step_replace(m, s);
		break;
	case 11:
	case 12:
		step_split(m, s);
		break;
	case 13:
		step_merge(m, s);
		break;
	case 14:
		step_move(m, s);
		break;
	default:
		step_privatise_or_share(m, s);
		break;
	}
}

/* The start of the range, its end, and a place between that is aligned to a site. */
static uintptr_t site_address(const struct rig *r, unsigned i, uint64_t site_bytes)
{
	return r->pt.base + mf_round_down((r->pt.size_bytes - site_bytes) / (NR_SITES - 1) * i, site_bytes);
}

static void model_open(struct model *m, struct mf_paging paging, enum mf_pgtable_flags flags)
{
	uint64_t site_bytes;

	rig_open(&m->r, paging, flags);
	m->fanout = fanout_of(&m->r);
	site_bytes = (uint64_t)SITE_TABLES * m->fanout << paging.page_shift;
	for (unsigned i = 0; i < NR_SITES; i++) {
		m->site[i].va = site_address(&m->r, i, site_bytes);
		m->site[i].at = calloc((size_t)SITE_TABLES * m->fanout, sizeof(struct expected));
	}
}

static void model_close(struct model *m)
{
	for (unsigned i = 0; i < NR_SITES; i++) {
		clear_all(m, spot_at(m, &m->site[i], 0, SITE_TABLES * m->fanout));
		free(m->site[i].at);
	}
	TAP_OK(mf_pgtable_share(&m->r.pt, m->r.pt.base, m->r.pt.base + m->r.pt.size_bytes, &m->r.bag));
	give_back(&m->r);
	rig_close(&m->r);
}

static void run_random(struct mf_paging paging, enum mf_pgtable_flags flags, unsigned nr_steps)
{
	struct model m;

	random_state = 0x9e3779b97f4a7c15u + paging.page_shift * 8 + paging.levels;
	model_open(&m, paging, flags);
	for (unsigned step = 0; step < nr_steps; step++) {
		struct spot s = random_spot(&m);

		random_step(&m);
		if (!rig_is_sound(&m.r) || !spot_translates(&m, s) || (step % 64 == 0 && !model_holds(&m))) {
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
TAP_TEST(random_steps_arm64_16_kib)
{
	run_random(mf_paging_arm64(14, 4), MF_PGTABLE_SHARE, 2000);
}
TAP_TEST(random_steps_arm64_64_kib)
{
	run_random(mf_paging_arm64(16, 3), MF_PGTABLE_SHARE, 1000);
}
TAP_TEST(random_steps_private_tables)
{
	run_random(mf_paging_x86_64(4), MF_PGTABLE_PRIVATE, 8000);
}
TAP_TEST(random_steps_6_levels)
{
	run_random(mf_paging_x86_64(6), MF_PGTABLE_SHARE, 2000);
}
TAP_TEST(random_steps_x86_64_3_levels_from_4_gib)
{
	run_random(from_paddr(mf_paging_x86_64(3), 4 * MF_GIB), MF_PGTABLE_SHARE, 4000);
}
TAP_TEST(random_steps_arm64_64_kib_from_1_tib)
{
	run_random(from_paddr(mf_paging_arm64(16, 3), MF_TIB), MF_PGTABLE_SHARE, 1000);
}

TAP_MAIN()
