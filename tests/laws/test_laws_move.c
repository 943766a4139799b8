/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_laws_move.c - slots of a GiB without users move, taken by hand with a step left out while another processor
 * allocates or gives a map frame back; each is caught.
 *
 * The steps are those of core/frames/move.c; the state is a chain of GiB (tests/lib/chain.h) whose B moves.
 */
#include "tests/lib/chain.h"
#include "tests/lib/saboteur.h"
#include "tests/tap.h"

#include <memfold/sim.h>
#include <string.h>

#include "core/frames/zone.h"

enum step { STEP_NONE, STEP_HOLD, STEP_COPY, STEP_SWITCH, STEP_FLUSH, STEP_PARK };

struct by_hand {
	struct chain c;
	enum step left_out;
	struct move move;
	struct mf_bag bag;           /* where the slots go                                                       */
	mf_pfn_t old[MF_BLOCK_SLOTS]; /* where they were                                                          */
	mf_pfn_t claimed;            /* a frame of B's set-aside block, given back meanwhile                      */
};

static struct by_hand h;

static bool begin(enum step left_out, const struct world_config *world)
{
	h = (struct by_hand){ .left_out = left_out };
	if (!chain_open(&h.c, &(struct chain_config){ .world = *world }))
		return false;
	/* What is left split of B is its set-aside block. */
	while (fold_one(h.c.w.map->zone[0], 0))
		;
	h.claimed = chain_claim(&h.c);
	pool_claim(h.c.w.map->zone[0], &h.bag, MF_BLOCK_SLOTS, POOL_AS_IT_IS);
	return h.bag.nr == MF_BLOCK_SLOTS;
}

static void hold(struct mf_zone *zone)
{
	move_init(&h.move);
	zone_lock(zone);
	move_hold_locked(zone, &h.move, map_record(zone->map, 2, h.c.b));
	zone_unlock(zone);
}

static void move(struct mf_map *map, uintptr_t slot, mf_pfn_t old_pfn, mf_pfn_t new_pfn)
{
	if (h.left_out == STEP_COPY)
		mf_pgtable_replace(&map->pgtable, slot, new_pfn);
	else if (h.left_out == STEP_SWITCH)
		memcpy(mf_machine_frame(map->machine, new_pfn), mf_machine_frame(map->machine, old_pfn), 4096);
	else
		move_slot(map, slot, new_pfn);
	pool_set_backs(map, new_pfn, map_backs_slot(1), slot);
}

/* Takes what it can get of B, and gives back what it has of it. */
static void another_processor(struct mf_map *map)
{
	struct mf_folio *folio;

	while (mf_folio_alloc(map, MF_ANY_NODE, 9, MF_ALLOC_NOWAIT, &folio) == 0)
		;
	if (h.left_out == STEP_PARK)
		map_set_word(h.c.set_aside, mf_page_word(h.c.set_aside) & ~MF_FLAG_CHANGING);
	pool_put(map, 0, h.claimed);
}

static void flush(struct mf_map *map)
{
	window_flush(map, MF_FLUSH_FOR_MOVE, map->geo.window[0], map->window_bytes, MF_FLUSH_TABLES);
}

static void end(struct mf_map *map, struct mf_zone *zone)
{
	zone_lock(zone);
	move_release_locked(zone, &h.move);
	zone_unlock(zone);
	/* Where it was left out before, it comes too late: what was written since is lost. */
	if (h.left_out == STEP_FLUSH)
		flush(map);
}

static void move_by_hand(void)
{
	struct mf_map *map = h.c.w.map;
	struct mf_zone *zone = map->zone[0];

	table_lock(map);
	if (h.left_out != STEP_HOLD)
		hold(zone);
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++) {
		h.old[i] = chain_slot(&h.c.w, h.c.b, i);
		move(map, chain_slot_address(&h.c.w, h.c.b, i), h.old[i], mf_bag_take(&h.bag));
	}
	/* Without records nothing more can be done with B. */
	if (h.left_out != STEP_COPY)
		another_processor(map);
	if (h.left_out != STEP_FLUSH)
		flush(map);
	if (h.left_out != STEP_COPY && h.left_out != STEP_HOLD)
		end(map, zone);
	table_unlock(map);
	for (unsigned i = 0; i < MF_BLOCK_SLOTS; i++)
		pool_put(map, 0, h.old[i]);
}

TAP_TEST(nothing_is_caught_where_no_step_is_left_out)
{
	TAP_REQUIRE(begin(STEP_NONE, &(struct world_config){ 0 }));
	move_by_hand();
	TAP_OK(world_check(&h.c.w));
	TAP_EQ(mf_page_kind(map_record(h.c.w.map, 0, h.claimed)), MF_KIND_FREE);
	TAP_OK(chain_close(&h.c));
}

static void caught(enum step left_out, const char *law)
{
	const char *broken;

	TAP_REQUIRE(begin(left_out, &(struct world_config){ .will_break = true }));
	/* The check is to find it: the dues would panic before. */
	due_only_count(true);
	move_by_hand();
	due_only_count(false);
	broken = world_broken_law(&h.c.w);
	if (strcmp(broken, law) != 0)
		TAP_NOTE("broken: %s, expected %s", broken, law);
	TAP_OK(strcmp(broken, law) == 0);
	world_abandon(&h.c.w);
}

/* What was taken from B's lists meanwhile is free in the copy. */
TAP_TEST(m8_slot_copied_while_its_blocks_are_listed_is_found)
{
	caught(STEP_HOLD, "M8");
}

TAP_TEST(m2_slot_without_its_records_is_found)
{
	caught(STEP_COPY, "M2");
}

/* The frame that goes back still backs the slot; the one that should is claimed for nothing. */
TAP_TEST(m6_slot_that_was_not_switched_is_found)
{
	caught(STEP_SWITCH, "M6");
}

/* The blocks are listed by writing to the old frame. */
TAP_TEST(m8_slot_released_before_the_flush_is_found)
{
	caught(STEP_FLUSH, "M8");
}

/* The set-aside block counts the frame in the old one. */
TAP_TEST(m8_map_frame_given_back_while_its_blocks_slot_moves_is_found)
{
	caught(STEP_PARK, "M8");
}

/* No flush at all, in the set itself. */
TAP_TEST(m5_set_that_moves_slots_without_a_flush_is_stale)
{
	struct saboteur s = { 0 };
	struct world_config world = { .wrap = saboteur_wrap, .wrap_ctx = &s, .will_break = true };
	struct chain c;

	TAP_REQUIRE(chain_open(&c, &(struct chain_config){ .world = world }));
	s.what = SABOTAGE_FLUSH;
	(void)mf_fold(c.w.map, MF_ANY_NODE, MF_FOLD_ALL, NULL);
	TAP_OK(mf_sim_stale(c.w.sim) > 0);
	world_abandon(&c.w);
}

TAP_MAIN()
