/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_compound_pieces.c - the map slots of compounds come and go in pieces: in any order, over each other, with memory
 * running out at every step; and the compound whose slots are the host's memory.
 *
 * A region is added whole, its slots are taken away and put back by the calls below mf_region_add(), and its records
 * committed again, so that mf_map_check() can judge in the end.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/compound_rig.h"

#define G WORLD_GIB_FRAMES

/* Map slots of a GiB, and of one table of them. */
enum { ALL_SLOTS = 4096, PER_TABLE = 512 };

struct pieces {
	struct world w;
	const struct mf_region *r;
	unsigned order;
	uint64_t ram_min; /* with no slot there: tables above, the top slot, and with private tables all of them   */
};

/* Reads some of the slots, the last among them, in the window: what they show is translated until it is flushed. */
static void look(const struct pieces *p, uint64_t slot, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i += 1 + (nr - 1 - i) / 8)
		(void)mf_page_word((const struct mf_page *)slot_va(&p->w, G, slot + i));
}

static int populate(struct pieces *p, uint64_t slot, uint64_t nr)
{
	look(p, slot, nr);
	return compound_populate(p->w.map, p->r, slot_va(&p->w, G, slot), slot_va(&p->w, G, slot + nr));
}

static void depopulate(struct pieces *p, uint64_t slot, uint64_t nr)
{
	look(p, slot, nr);
	compound_depopulate(p->w.map, p->r, slot_va(&p->w, G, slot), slot_va(&p->w, G, slot + nr));
}

/* One GiB of compounds; none of their slots is there. */
static bool pieces_open(struct pieces *p, unsigned order, enum mf_map_flags flags)
{
	unsigned id;

	*p = (struct pieces){ .order = order };
	if (!world_open(&p->w, &(struct world_config){ .nr_frames = 2 * G, .flags = flags }) ||
	    compound_add(&p->w, 0, G, order, NULL) != 0 || compound_add(&p->w, G, 2 * G, order, &id) != 0)
		return false;
	p->r = p->w.map->region[id];
	depopulate(p, 0, ALL_SLOTS);
	p->ram_min = mf_sim_ram_used(p->w.sim);
	return true;
}

/* All of it again, and gone. */
static bool pieces_close(struct pieces *p)
{
	int err = populate(p, 0, ALL_SLOTS);

	TAP_EQ(err, 0);
	compound_commit(p->w.map, p->r, G, 2 * G, true);
	compound_online(p->w.map, p->r);
	for (mf_pfn_t pfn = G; pfn < 2 * G; pfn += mf_max((mf_pfn_t)1 << p->order, G / 8))
		TAP_OK(compound_is_right(&p->w, pfn, p->order));
	return world_close(&p->w);
}

static bool tables_are_right(struct pieces *p)
{
	char text[128];
	const char *broken = mf_pgtable_check(&p->w.map->pgtable, text, sizeof(text));

	if (broken)
		TAP_NOTE("%s", broken);
	return !broken && mf_sim_stale(p->w.sim) == 0;
}

static bool same_backing(const struct backing *a, const struct backing *b)
{
	return a->head == b->head && a->tails == b->tails && a->nr_tails == b->nr_tails && a->counted == b->counted &&
	       a->good && b->good;
}

/* ---- Sections of a 1 GiB compound ------------------------------------------------------------------------------- */

enum { NR_SECTIONS = 8 };

static const unsigned section_orders[][NR_SECTIONS] = {
	{ 0, 1, 2, 3, 4, 5, 6, 7 },
	{ 7, 6, 5, 4, 3, 2, 1, 0 },
	{ 3, 7, 1, 0, 6, 2, 5, 4 },
	{ 5, 4, 0, 7, 2, 1, 3, 6 },
};

enum { NR_SECTION_ORDERS = sizeof(section_orders) / sizeof(section_orders[0]) };

/* What sections [0, 8) that are there amount to; with shared tables all but the first have one table in common. */
static bool sections_are_right(struct pieces *p, const bool *there)
{
	bool shares = !(p->w.map->flags & MF_MAP_PRIVATE_TABLES);
	struct backing b = backing_of(&p->w, G, 18);
	uint64_t nr = 0, later = 0, ram = mf_sim_ram_used(p->w.sim) - p->ram_min;

	for (unsigned i = 0; i < NR_SECTIONS; i++) {
		nr += there[i] ? PER_TABLE : 0;
		later += i > 0 && there[i];
		for (unsigned s = 0; s < PER_TABLE; s += 73)
			if (slot_shows(&p->w, G, i * PER_TABLE + s).background == there[i])
				return false;
	}
	return b.good && b.nr_tails == nr - there[0] && (b.head != DIET_NO_FRAME) == there[0] &&
	       ram == (nr > 0) + (uint64_t)there[0] + (shares ? (uint64_t)there[0] + (later > 0) : 0) &&
	       tables_are_right(p);
}

static void sections_come_and_go(const unsigned *come, const unsigned *go, enum mf_map_flags flags)
{
	bool there[NR_SECTIONS] = { false };
	struct backing b;
	struct pieces p;

	TAP_REQUIRE(pieces_open(&p, 18, flags));
	for (unsigned i = 0; i < NR_SECTIONS; i++) {
		TAP_EQ(populate(&p, come[i] * PER_TABLE, PER_TABLE), 0);
		there[come[i]] = true;
		TAP_OK(sections_are_right(&p, there));
	}
	b = backing_of(&p.w, G, 18);
	TAP_EQ(b.nr_tails, 4095);
	TAP_EQ(b.counted, 4095);
	compound_commit(p.w.map, p.r, G, 2 * G, true);
	compound_online(p.w.map, p.r);
	TAP_OK(world_check(&p.w) && compound_is_right(&p.w, G, 18));
	for (unsigned i = 0; i < NR_SECTIONS; i++) {
		depopulate(&p, go[i] * PER_TABLE, PER_TABLE);
		there[go[i]] = false;
		TAP_OK(sections_are_right(&p, there));
	}
	TAP_EQ(mf_sim_ram_used(p.w.sim), p.ram_min);
	TAP_OK(pieces_close(&p));
}

/*
 * Two frames, of which one counts 4095 slots, whatever comes and goes first: forward, reverse and in no order, the tail
 * frame goes once and last, and what stays stays readable.
 * R-DAX-10, R-DAX-11, R-DAX-13, R-DAX-15, R-DAX-20, R-DAX-21, R-DAX-57, L-DAX-5,
 * R-MEM-41, R-SCN-7
 */
TAP_TEST(sections_of_a_1_gib_compound_come_and_go_in_any_order)
{
	for (unsigned i = 0; i < NR_SECTION_ORDERS; i++)
		for (unsigned k = 0; k < NR_SECTION_ORDERS; k++) {
			sections_come_and_go(section_orders[i], section_orders[k], 0);
			sections_come_and_go(section_orders[i], section_orders[k], MF_MAP_PRIVATE_TABLES);
		}
}

/* The first section brings two frames, the others none.  R-DAX-13, R-DAX-22, R-GEN-7 */
TAP_TEST(first_section_of_a_compound_brings_the_frames)
{
	struct pieces p;

	TAP_REQUIRE(pieces_open(&p, 18, MF_MAP_PRIVATE_TABLES));
	for (unsigned i = 0; i < NR_SECTIONS; i++) {
		TAP_EQ(populate(&p, i * PER_TABLE, PER_TABLE), 0);
		TAP_EQ(mf_sim_ram_used(p.w.sim) - p.ram_min, 2);
	}
	TAP_OK(pieces_close(&p));
}

/* A section of 2 MiB compounds: 64 of them, 128 frames, 384 slots more that show one.  R-DAX-12, R-DAX-14 */
TAP_TEST(section_of_small_compounds_has_two_frames_each)
{
	uint64_t nr_aliases = 0;
	struct pieces p;

	TAP_REQUIRE(pieces_open(&p, 9, MF_MAP_PRIVATE_TABLES));
	TAP_EQ(populate(&p, 3 * PER_TABLE, PER_TABLE), 0);
	TAP_EQ(mf_sim_ram_used(p.w.sim) - p.ram_min, 128);
	for (unsigned i = 3 * 64; i < 4 * 64; i++) {
		struct backing b = backing_of(&p.w, G + i * 512, 9);

		TAP_OK(b.good && b.nr_tails == 7 && b.head != DIET_NO_FRAME);
		nr_aliases += b.nr_tails - 1;
	}
	TAP_EQ(nr_aliases, 384);
	depopulate(&p, 3 * PER_TABLE, PER_TABLE);
	TAP_EQ(mf_sim_ram_used(p.w.sim), p.ram_min);
	TAP_OK(pieces_close(&p));
}

/* ---- Odd pieces -------------------------------------------------------------------------------------------------- */

/* Whichever slot comes first makes the tail frame; slot 1 shows it when it comes.  R-DAX-57, R-DAX-15, L-DAX-5 */
TAP_TEST(slot_1_may_come_last)
{
	static const struct {
		uint64_t slot, nr;
	} piece[] = { { 700, 1 }, { 3, 1 }, { 0, 1 }, { 4095, 1 }, { 100, 300 }, { 2, 1 }, { 701, 3394 }, { 1, 1 } };
	mf_pfn_t tails = DIET_NO_FRAME;
	uint64_t nr = 0;
	struct pieces p;

	TAP_REQUIRE(pieces_open(&p, 18, MF_MAP_PRIVATE_TABLES));
	for (unsigned i = 0; i < sizeof(piece) / sizeof(piece[0]); i++) {
		struct backing b;

		TAP_EQ(populate(&p, piece[i].slot, piece[i].nr), 0);
		nr += piece[i].slot > 0 ? piece[i].nr : 0;
		b = backing_of(&p.w, G, 18);
		TAP_OK(b.good && (i == 0 || b.tails == tails));
		TAP_EQ(b.nr_tails, nr);
		tails = b.tails;
	}
	TAP_EQ(slot_shows(&p.w, G, 1).pfn, tails);
	TAP_OK(tables_are_right(&p));
	TAP_OK(pieces_close(&p));
}

/* A slot that is there keeps its frame and is not counted again.  R-DAX-16 */
TAP_TEST(slots_that_are_there_are_left_as_they_are)
{
	for (unsigned order = 8; order <= 18; order += 5) {
		struct backing before, now;
		uint64_t nr, ram;
		struct pieces p;

		TAP_REQUIRE(pieces_open(&p, order, 0));
		nr = mf_min(2 * nr_slots(&p.w, order), (uint64_t)ALL_SLOTS);
		TAP_EQ(populate(&p, 0, nr), 0);
		before = backing_of(&p.w, G, order);
		ram = mf_sim_ram_used(p.w.sim);
		TAP_EQ(populate(&p, 0, nr), 0);
		TAP_EQ(populate(&p, 1, 2), 0);
		now = backing_of(&p.w, G, order);
		TAP_OK(same_backing(&before, &now));
		TAP_EQ(mf_sim_ram_used(p.w.sim), ram);
		TAP_OK(pieces_close(&p));
	}
}

/* What a table of slots was populated as it goes as, since to cut it would need memory.  R-DAX-20 */
TAP_TEST(shared_table_is_not_cut)
{
	struct pieces p;

	TAP_REQUIRE(pieces_open(&p, 18, 0));
	TAP_EQ(populate(&p, 0, ALL_SLOTS), 0);
	TAP_OK(TAP_PANICS(depopulate(&p, 512, 511)));
	TAP_OK(tap_contains(tap_state.panic, "as a whole table of 512"));
	TAP_OK(backing_of(&p.w, G, 18).good);
	TAP_OK(pieces_close(&p));
}

/* ---- At random, beside a model ---------------------------------------------------------------------------------- */

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A piece that cuts no shared table: mostly short, sometimes large. */
static void random_piece(struct pieces *p, uint64_t *seed, uint64_t *slot, uint64_t *nr)
{
	uint64_t limit = random_next(seed) % 4 ? 40 : 3000;
	struct mf_entry entry;

	*slot = random_next(seed) % ALL_SLOTS;
	*nr = 1 + random_next(seed) % mf_min(limit, ALL_SLOTS - *slot);
	entry = mf_pgtable_entry(&p->w.map->pgtable, slot_va(&p->w, G, *slot));
	if (entry.kind == MF_ENTRY_UNIFORM) {
		*nr += *slot % PER_TABLE;
		*slot = mf_round_down(*slot, PER_TABLE);
	}
	entry = mf_pgtable_entry(&p->w.map->pgtable, slot_va(&p->w, G, *slot + *nr - 1));
	if (entry.kind == MF_ENTRY_UNIFORM)
		*nr = mf_round_up(*slot + *nr, PER_TABLE) - *slot;
}

static bool model_agrees(const struct pieces *p, const bool *there)
{
	uint64_t per = nr_slots(&p->w, p->order);

	for (uint64_t slot = 0; slot < ALL_SLOTS; slot++)
		if (slot_shows(&p->w, G, slot).background == there[slot])
			return false;
	for (uint64_t at = 0; at < ALL_SLOTS; at += per)
		if (!backing_of(&p->w, G + at * 64, p->order).good)
			return false;
	return true;
}

static void random_pieces(unsigned order, enum mf_map_flags flags, uint64_t seed)
{
	bool there[ALL_SLOTS] = { false };
	struct pieces p;

	TAP_REQUIRE(pieces_open(&p, order, flags));
	for (unsigned step = 0; step < 120; step++) {
		bool comes = random_next(&seed) % 5 < 3;
		uint64_t slot, nr;

		random_piece(&p, &seed, &slot, &nr);
		if (comes)
			TAP_EQ(populate(&p, slot, nr), 0);
		else
			depopulate(&p, slot, nr);
		memset(&there[slot], comes, nr);
		if (model_agrees(&p, there) && tables_are_right(&p))
			continue;
		TAP_NOTE("order %u, step %u: %llu slots from %llu %s", order, step, (unsigned long long)nr,
			 (unsigned long long)slot, comes ? "come" : "go");
		TAP_OK(false);
		break;
	}
	depopulate(&p, 0, ALL_SLOTS);
	TAP_EQ(mf_sim_ram_used(p.w.sim), p.ram_min);
	TAP_OK(pieces_close(&p));
}

/* A slot is there when the last piece over it came; one frame counts them.  R-DAX-15, R-DAX-16, R-DAX-20, R-DAX-57 */
TAP_TEST(pieces_at_random_leave_what_a_model_says)
{
	static const unsigned orders[] = { 8, 9, 12, 15, 16, 18 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
		for (unsigned seed = 1; seed <= 4; seed++)
			random_pieces(orders[i], seed % 2 ? MF_MAP_PRIVATE_TABLES : 0, 77 * seed + i);
}

/* ---- Memory runs out --------------------------------------------------------------------------------------------- */

static void fail_nth(struct world *w, unsigned what, uint64_t nth)
{
	if (what == 0)
		mf_sim_fail_ram(w->sim, nth);
	else if (what == 1)
		mf_sim_fail_meta(w->sim, nth);
	else
		mf_sim_fail_any(w->sim, nth);
}

static void region_fails_at_every_step(unsigned order, enum mf_map_flags flags, unsigned what)
{
	struct mf_region_config config = compound_config(G - 4 * 512, 2 * G, order);
	struct world w;
	uint64_t digest, ram, n;
	int err = -MF_ENOMEM;
	unsigned id;

	config.start_pfn = order > 11 ? G : config.start_pfn;
	config.end_pfn = order > 11 ? config.end_pfn : G + 4 * 512;
	TAP_REQUIRE(world_open(&w, &(struct world_config){ .nr_frames = 2 * G, .flags = flags }));
	TAP_EQ(world_add(&w, 0, 512), 0);
	/* Where no table is shared, those that serve more than the region stay. */
	TAP_EQ(world_add_region(&w, &config, &id), 0);
	TAP_EQ(mf_region_remove(w.map, id), 0);
	digest = mf_map_digest(w.map);
	ram = mf_sim_ram_used(w.sim);
	for (n = 1; err && n < 1000; n++) {
		fail_nth(&w, what, n);
		err = world_add_region(&w, &config, NULL);
		fail_nth(&w, what, 0);
		TAP_OK(err == 0 || err == -MF_ENOMEM);
		if (err) {
			TAP_EQ(mf_sim_ram_used(w.sim), ram);
			TAP_EQ(mf_map_digest(w.map), digest);
			TAP_OK(world_check(&w));
		}
	}
	TAP_EQ(err, 0);
	TAP_OK(n > 1 + (what != 1));
	TAP_OK(compound_is_right(&w, G, order));
	TAP_OK(world_close(&w));
}

/* The n-th request fails, for every n: no frame, no table, no count is left.  R-DAX-17, R-MEM-16, R-GEN-7 */
TAP_TEST(region_that_lacks_memory_leaves_nothing)
{
	static const unsigned orders[] = { 8, 9, 11, 16, 18 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
		for (unsigned what = 0; what < 3; what++) {
			region_fails_at_every_step(orders[i], 0, what);
			region_fails_at_every_step(orders[i], MF_MAP_PRIVATE_TABLES, what);
		}
}

/* Where the map of 32 TiB needs tables of every level for each; all of them come, and go, with it.  R-DAX-17 */
TAP_TEST(compound_far_from_all_others_brings_its_tables)
{
	static const unsigned orders[] = { 9, 15, 18 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct world_config config = { .nr_frames = (mf_pfn_t)1 << 33, .nr_ram_frames = 4096 };
		struct world w;
		uint64_t ram, n;
		int err = -MF_ENOMEM;

		TAP_REQUIRE(world_open(&w, &config));
		ram = mf_sim_ram_used(w.sim);
		for (n = 1; err && n < 1000; n++) {
			mf_sim_fail_ram(w.sim, n);
			err = compound_add(&w, 0, (mf_pfn_t)1 << orders[i], orders[i], NULL);
			TAP_OK(err == 0 || mf_sim_ram_used(w.sim) == ram);
		}
		mf_sim_fail_ram(w.sim, 0);
		TAP_EQ(err, 0);
		TAP_OK(compound_is_right(&w, 0, orders[i]));
		TAP_OK(world_close(&w));
	}
}

/* Some slots stand in the way: gaps between them are filled, or emptied again, and they keep their frame and count. */
static void gaps_fail_at_every_step(unsigned order, enum mf_map_flags flags, unsigned what)
{
	static const uint64_t standing[] = { 1, 5, 9, 10, 500, 513, 2000 };
	enum { NR = sizeof(standing) / sizeof(standing[0]) };
	bool there[ALL_SLOTS] = { false };
	struct backing before, now;
	struct pieces p;
	uint64_t ram, n;
	int err = -MF_ENOMEM;

	TAP_REQUIRE(pieces_open(&p, order, flags));
	for (unsigned i = 0; i < NR; i++) {
		TAP_EQ(populate(&p, standing[i], 1), 0);
		there[standing[i]] = true;
	}
	before = backing_of(&p.w, G, order);
	ram = mf_sim_ram_used(p.w.sim);
	for (n = 1; err && n < 2000; n++) {
		fail_nth(&p.w, what, n);
		err = populate(&p, 0, 2560);
		fail_nth(&p.w, what, 0);
		if (!err)
			break;
		now = backing_of(&p.w, G, order);
		TAP_EQ(mf_sim_ram_used(p.w.sim), ram);
		TAP_OK(same_backing(&before, &now) && model_agrees(&p, there) && tables_are_right(&p));
	}
	TAP_EQ(err, 0);
	TAP_OK(n > 1);
	memset(there, true, 2560);
	TAP_OK(model_agrees(&p, there) && tables_are_right(&p));
	TAP_OK(pieces_close(&p));
}

/* R-DAX-16, R-DAX-17 */
TAP_TEST(piece_that_lacks_memory_unbacks_what_it_backed_and_no_more)
{
	static const unsigned orders[] = { 11, 15, 18 };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
		for (unsigned what = 0; what < 3; what++) {
			gaps_fail_at_every_step(orders[i], 0, what);
			gaps_fail_at_every_step(orders[i], MF_MAP_PRIVATE_TABLES, what);
		}
}

/* ---- The host's memory ------------------------------------------------------------------------------------------- */

/* The machine `linux`, but that its n-th share or alias from now on fails. */
static const struct mf_machine_ops *host_ops;
static unsigned host_fails_at;

static bool host_fails(void)
{
	return host_fails_at > 0 && --host_fails_at == 0;
}

static int failing_share(struct mf_machine *m, void *addr, uint64_t size_bytes)
{
	return host_fails() ? -MF_ENOMEM : host_ops->host_share(m, addr, size_bytes);
}

static int failing_alias(struct mf_machine *m, void *addr, uint64_t size_bytes, const void *target)
{
	return host_fails() ? -MF_ENOMEM : host_ops->host_alias(m, addr, size_bytes, target);
}

/* Every word of what compounds [0, 5) show is 0. */
static bool host_shows_nothing(const struct world *w)
{
	for (mf_pfn_t pfn = 0; pfn < 5 * 512; pfn++)
		if (mf_page_word(mf_pfn_to_page(w->map, pfn)) != 0)
			return false;
	return true;
}

/* Compounds before the one that fails go, too.  R-DAX-17 */
TAP_TEST(host_that_lacks_memory_keeps_nothing)
{
	struct mf_machine_ops ops;
	const struct mf_region *r;
	uintptr_t start, end;
	struct world w;
	int err = -MF_ENOMEM;
	unsigned n;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "linux", .nr_frames = 1 << 14 }));
	TAP_EQ(compound_add(&w, 0, 5 * 512, 9, NULL), 0);
	r = w.map->region[0];
	start = slot_va(&w, 0, 0);
	end = slot_va(&w, 5 * 512, 0);
	compound_depopulate(w.map, r, start, end);
	TAP_OK(host_shows_nothing(&w));
	host_ops = w.machine->ops;
	ops = *host_ops;
	ops.host_share = failing_share;
	ops.host_alias = failing_alias;
	w.machine->ops = &ops;
	for (n = 1; err && n < 100; n++) {
		host_fails_at = n;
		err = compound_populate(w.map, r, start, end);
		TAP_OK(err == 0 || (err == -MF_ENOMEM && host_shows_nothing(&w)));
	}
	TAP_EQ(n - 1, 2 * 5 + 1);
	w.machine->ops = host_ops;
	compound_commit(w.map, r, 0, 5 * 512, true);
	compound_online(w.map, r);
	for (mf_pfn_t pfn = 0; pfn < 5 * 512; pfn += 512)
		TAP_OK(compound_is_right(&w, pfn, 9));
	TAP_OK(world_close(&w));
}

/* Its slots are shared by whole compounds. */
TAP_TEST(host_populates_whole_compounds)
{
	struct world w;
	int err = 0;

	TAP_REQUIRE(world_open(&w, &(struct world_config){ .machine = "linux", .nr_frames = 1 << 14 }));
	TAP_EQ(compound_add(&w, 0, 512, 9, NULL), 0);
	TAP_OK(TAP_PANICS(err = compound_populate(w.map, w.map->region[0], slot_va(&w, 0, 0), slot_va(&w, 0, 4))));
	(void)err;
	TAP_OK(tap_contains(tap_state.panic, "whole compounds"));
	TAP_OK(world_close(&w));
}

TAP_MAIN()
