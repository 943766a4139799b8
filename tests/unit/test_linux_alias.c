/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_linux_alias.c - slots that share memory on the machine for user space: what they show, what they cost, and what
 * happens when memory runs out.
 *
 * Owns a fallocate() and a madvise() of its own, which stand before the C library's, so that memory runs out on demand.
 * Children, limits of the process and threads: test_linux_alias_process.c.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/alias_rig.h"

/* ---- The host, failing on demand ------------------------------------------------------------------------------ */

static int fail_error;      /* fallocate() that would allocate ends in this errno, 0: does not           */
static unsigned fail_after; /* after so many bytes                                                         */
static int fail_times;
static int fail_advice; /* the advice to fail with ENOMEM, 0: none                                          */

int fallocate(int file, int mode, off_t offset, off_t size)
{
	if (mode == 0 && fail_error != 0 && fail_times > 0) {
		if (size <= fail_after) {
			fail_after -= (unsigned)size;
			return (int)syscall(SYS_fallocate, file, mode, offset, size);
		}
		if (fail_after > 0)
			syscall(SYS_fallocate, file, mode, offset, (off_t)fail_after);
		fail_after = 0;
		fail_times--;
		errno = fail_error;
		return -1;
	}
	return (int)syscall(SYS_fallocate, file, mode, offset, size);
}

int madvise(void *addr, size_t size, int advice)
{
	if (fail_advice != 0 && advice == fail_advice) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_madvise, addr, size, advice);
}

static void memory_fails(int error, unsigned after, int times)
{
	fail_error = error;
	fail_after = after;
	fail_times = times;
}

/* ---- What slots show and cost ---------------------------------------------------------------------------------- */

static void share_alias_unalias(unsigned flags, unsigned page_shift)
{
	struct rig r;
	uint64_t nr_mappings;

	TAP_REQUIRE(rig_open_with(&r, flags, page_shift));
	TAP_EQ(cost(&r), 0);
	TAP_REQUIRE(share(&r, 0, 16) == 0);
	nr_mappings = mappings();
	TAP_EQ(cost(&r), 16);
	TAP_OK(shows(&r, 0, NR_SLOTS, 0));
	for (uint64_t slot = 0; slot < 16; slot++)
		fill(&r, slot, 1, 100 + slot);

	TAP_REQUIRE(alias(&r, 1, 7, 0) == 0);
	TAP_OK(shows(&r, 0, 8, 100));
	TAP_OK(shows(&r, 8, 1, 108) && shows(&r, 15, 1, 115));
	TAP_EQ(cost(&r), 9);
	TAP_OK(IS_THREAD_SANITIZER || mappings() == nr_mappings + 8);
	for (uint64_t slot = 1; slot < 8; slot++)
		TAP_OK(write_faults(&r, slot));
	TAP_OK(!write_faults(&r, 0) && !write_faults(&r, 8));
	fill(&r, 0, 1, 42);
	TAP_OK(shows(&r, 0, 8, 42));

	TAP_REQUIRE(alias(&r, 2, 6, 8) == 0);
	TAP_OK(shows(&r, 0, 2, 42) && shows(&r, 2, 6, 108));
	TAP_EQ(cost(&r), 9);

	TAP_REQUIRE(unalias(&r, 0, 8) == 0);
	TAP_OK(shows(&r, 0, 2, 42) && shows(&r, 2, 6, 108));
	TAP_EQ(cost(&r), 16);
	TAP_OK(IS_THREAD_SANITIZER || mappings() == nr_mappings);
	for (uint64_t slot = 0; slot < 8; slot++)
		fill(&r, slot, 1, slot);
	for (uint64_t slot = 0; slot < 8; slot++)
		TAP_OK(shows(&r, slot, 1, slot));
	TAP_OK(shows(&r, 8, 1, 108));
	rig_close(&r);
}

TAP_TEST(alias_shows_its_target_and_costs_nothing)
{
	share_alias_unalias(0, 12);
}

TAP_TEST(alias_works_with_pages_larger_than_the_hosts)
{
	share_alias_unalias(0, 16);
}

TAP_TEST(alias_works_in_windows_reserved_read_only)
{
	share_alias_unalias(MF_LINUX_WINDOWS_READ_ONLY, 12);
}

TAP_TEST(alias_works_where_populating_is_touching)
{
	share_alias_unalias(MF_LINUX_POPULATE_BY_TOUCH, 12);
}

static void discard_works(unsigned flags)
{
	struct rig r;

	TAP_REQUIRE(rig_open_with(&r, flags, 12));
	TAP_REQUIRE(r.ops->host_populate(r.machine, at(&r, 0), 4 * PAGE) == 0);
	fill(&r, 0, 4, 7);
	TAP_REQUIRE(share(&r, 4, 28) == 0);
	fill(&r, 4, 28, 8);
	TAP_REQUIRE(alias(&r, 9, 7, 8) == 0);
	TAP_EQ(cost(&r), 21);
	/* Private, shared and aliased slots at once, and back from each. */
	discard(&r, 2, 4);
	discard(&r, 12, 12);
	TAP_OK(shows(&r, 0, 2, 7) && shows(&r, 2, 4, 0) && shows(&r, 6, 6, 8));
	TAP_OK(shows(&r, 12, 12, 0) && shows(&r, 24, 8, 8) && shows(&r, 32, 32, 0));
	TAP_EQ(cost(&r), 11);
	TAP_OK(r.ops->host_populate(r.machine, at(&r, 12), 4 * PAGE) == 0);
	fill(&r, 12, 4, 9);
	TAP_EQ(cost(&r), 11);
	TAP_REQUIRE(share(&r, 16, 4) == 0);
	TAP_OK(shows(&r, 16, 4, 0) && shows(&r, 12, 4, 9));
	discard(&r, 0, NR_SLOTS);
	TAP_OK(shows(&r, 0, NR_SLOTS, 0));
	TAP_EQ(cost(&r), 0);
	rig_close(&r);
}

TAP_TEST(discard_ends_sharing_of_any_part)
{
	discard_works(0);
}

TAP_TEST(discard_ends_sharing_in_windows_reserved_read_only)
{
	discard_works(MF_LINUX_WINDOWS_READ_ONLY);
}

/* There a piece of 2 MiB is made writable at once. */
TAP_TEST(alias_stays_read_only_when_its_neighbours_are_populated)
{
	struct rig r;

	TAP_REQUIRE(rig_open_with(&r, MF_LINUX_WINDOWS_READ_ONLY, 12));
	TAP_REQUIRE(share(&r, 8, 8) == 0);
	fill(&r, 8, 1, 5);
	TAP_REQUIRE(alias(&r, 9, 7, 8) == 0);
	TAP_OK(write_faults(&r, 16));
	TAP_REQUIRE(r.ops->host_populate(r.machine, at(&r, 16), PAGE) == 0);
	TAP_OK(!write_faults(&r, 16) && !write_faults(&r, 0) && !write_faults(&r, 8));
	TAP_OK(write_faults(&r, 9) && write_faults(&r, 15));
	TAP_OK(shows(&r, 8, 8, 5));
	rig_close(&r);
}

/* A window of its own for what many show. */
TAP_TEST(alias_reaches_another_window)
{
	struct rig r, tails;
	void *base;

	TAP_REQUIRE(rig_open(&r));
	TAP_REQUIRE(share(&r, 0, 8) == 0);
	fill(&r, 0, 8, 1);
	tails = r;
	TAP_REQUIRE(r.ops->window_reserve(r.machine, PAGE, PAGE, &base) == 0);
	tails.base = base;
	for (int round = 0; round < 3; round++) {
		TAP_REQUIRE(share(&tails, 0, 1) == 0);
		TAP_OK(shows(&tails, 0, 1, 0) && shows(&r, 0, 8, 1));
		fill(&tails, 0, 1, 2);
		TAP_REQUIRE(r.ops->host_alias(r.machine, at(&r, 1), 7 * PAGE, tails.base) == 0);
		TAP_OK(shows(&r, 0, 1, 1) && shows(&r, 1, 7, 2));
		TAP_EQ(cost(&r), 2);
		TAP_REQUIRE(unalias(&r, 1, 7) == 0);
		fill(&r, 0, 8, 1);
		/* With and without a discard before it; the place is used again. */
		if (round == 1)
			discard(&tails, 0, 1);
		r.ops->window_release(r.machine, tails.base, PAGE);
		TAP_EQ(cost(&r), 8);
		TAP_REQUIRE(r.ops->window_reserve(r.machine, PAGE, PAGE, &base) == 0);
		tails.base = base;
	}
	r.ops->window_release(r.machine, tails.base, PAGE);
	rig_close(&r);
}

TAP_TEST(alias_panics_on_broken_contracts)
{
	struct rig r;

	TAP_REQUIRE(rig_open(&r));
	TAP_REQUIRE(share(&r, 0, 16) == 0);
	TAP_REQUIRE(alias(&r, 1, 3, 0) == 0);
	TAP_OK(TAP_PANICS(alias(&r, 8, 2, 1)));
	TAP_OK(strstr(tap_state.panic, "no shared memory of its own") != NULL);
	TAP_OK(TAP_PANICS(alias(&r, 8, 2, 20)));
	TAP_OK(TAP_PANICS(alias(&r, 8, 2, 9)));
	TAP_OK(TAP_PANICS(alias(&r, 15, 2, 0)));
	TAP_OK(TAP_PANICS(alias(&r, NR_SLOTS, 1, 0)));
	TAP_OK(TAP_PANICS(share(&r, 15, 2)));
	TAP_OK(TAP_PANICS(share(&r, NR_SLOTS - 1, 2)));
	TAP_OK(TAP_PANICS(unalias(&r, 15, 2)));
	TAP_OK(TAP_PANICS(unalias(&r, NR_SLOTS, 1)));
	TAP_EQ(cost(&r), 13);
	rig_close(&r);
}

/* ---- Random steps, against a model ------------------------------------------------------------------------------- */

enum { PRIVATE = -1, OWN = -2 };

struct model {
	int shows[NR_SLOTS]; /* PRIVATE, OWN, or the slot it is an alias of */
	uint64_t value[NR_SLOTS];
	unsigned state;
};

static unsigned next_random(struct model *m, unsigned below)
{
	m->state = m->state * 1103515245u + 12345u;
	return (m->state >> 16) % below;
}

static bool model_is_shown(const struct model *m, unsigned first, unsigned end)
{
	for (unsigned i = 0; i < NR_SLOTS; i++)
		if (m->shows[i] >= (int)first && m->shows[i] < (int)end && (i < first || i >= end))
			return true;
	return false;
}

static bool model_has(const struct model *m, unsigned first, unsigned end, bool is_private)
{
	for (unsigned i = first; i < end; i++)
		if ((m->shows[i] == PRIVATE) == is_private)
			return true;
	return false;
}

static uint64_t model_value(const struct model *m, unsigned slot)
{
	return m->shows[slot] >= 0 ? m->value[m->shows[slot]] : m->value[slot];
}

static bool model_alias(struct model *m, const struct rig *r, unsigned first, unsigned end)
{
	unsigned target = next_random(m, NR_SLOTS);

	if (m->shows[target] != OWN || (target >= first && target < end) || model_is_shown(m, first, end) ||
	    model_has(m, first, end, true))
		return true;
	for (unsigned i = first; i < end; i++)
		m->shows[i] = (int)target;
	return alias(r, first, end - first, target) == 0;
}

static bool model_unalias(struct model *m, const struct rig *r, unsigned first, unsigned end)
{
	if (model_has(m, first, end, true))
		return true;
	for (unsigned i = first; i < end; i++) {
		m->value[i] = model_value(m, i);
		m->shows[i] = OWN;
	}
	return unalias(r, first, end - first) == 0;
}

static bool model_step(struct model *m, const struct rig *r)
{
	unsigned first = next_random(m, NR_SLOTS), end = first + 1 + next_random(m, (NR_SLOTS - first + 1) / 2);

	switch (next_random(m, 8)) {
	case 0:
	case 1:
		if (model_has(m, first, end, false))
			return true;
		for (unsigned i = first; i < end; i++)
			m->shows[i] = OWN;
		return share(r, first, end - first) == 0;
	case 2:
		end = first + 1;
		if (model_is_shown(m, first, end))
			return true;
		m->shows[first] = PRIVATE;
		m->value[first] = 0;
		discard(r, first, 1);
		return true;
	case 3:
		if (m->shows[first] == OWN)
			fill(r, first, 1, m->value[first] = next_random(m, 1000));
		return true;
	case 4:
		return model_unalias(m, r, first, end);
	default:
		return model_alias(m, r, first, end);
	}
}

TAP_TEST(alias_agrees_with_a_model)
{
	struct model m = {.state = 1};
	struct rig r;

	TAP_REQUIRE(rig_open(&r));
	for (unsigned i = 0; i < NR_SLOTS; i++)
		m.shows[i] = PRIVATE;
	for (unsigned step = 0; step < 3000; step++) {
		uint64_t nr_own = 0;

		TAP_REQUIRE(model_step(&m, &r));
		for (unsigned i = 0; i < NR_SLOTS; i++) {
			TAP_REQUIRE(shows(&r, i, 1, model_value(&m, i)));
			nr_own += m.shows[i] == OWN;
		}
		TAP_REQUIRE(cost(&r) == nr_own);
		if (step % 100 == 0)
			for (unsigned i = 0; i < NR_SLOTS; i++)
				TAP_REQUIRE(write_faults(&r, i) == (m.shows[i] >= 0));
	}
	rig_close(&r);
}

/* ---- Memory runs out --------------------------------------------------------------------------------------------- */

TAP_TEST(share_without_memory_changes_nothing)
{
	struct rig r;

	TAP_REQUIRE(rig_open(&r));
	for (unsigned after = 0; after < 3 * PAGE; after += PAGE) {
		memory_fails(ENOSPC, after, 1);
		TAP_EQ(share(&r, 0, 8), -MF_ENOMEM);
		TAP_EQ(cost(&r), 0);
	}
	memory_fails(0, 0, 0);
	fail_advice = MADV_POPULATE_WRITE;
	TAP_EQ(share(&r, 0, 8), -MF_ENOMEM);
	fail_advice = 0;
	TAP_EQ(cost(&r), 0);
	TAP_OK(shows(&r, 0, NR_SLOTS, 0));
	TAP_EQ(r.ops->host_populate(r.machine, at(&r, 0), 8 * PAGE), 0);
	TAP_EQ(cost(&r), 0);
	discard(&r, 0, 8);
	memory_fails(EINTR, 0, 5);
	TAP_EQ(share(&r, 0, 8), 0);
	TAP_EQ(fail_times, 0);
	memory_fails(0, 0, 0);
	TAP_EQ(cost(&r), 8);
	rig_close(&r);
}

TAP_TEST(unalias_without_memory_changes_nothing)
{
	struct rig r;

	TAP_REQUIRE(rig_open(&r));
	TAP_REQUIRE(share(&r, 0, 16) == 0);
	for (uint64_t slot = 0; slot < 16; slot++)
		fill(&r, slot, 1, slot);
	TAP_REQUIRE(alias(&r, 1, 3, 0) == 0);
	TAP_REQUIRE(alias(&r, 5, 3, 4) == 0);
	/* In the first run of aliases and in the second. */
	for (unsigned after = 0; after < 6 * PAGE; after += PAGE) {
		memory_fails(ENOSPC, after, 1);
		TAP_EQ(unalias(&r, 0, 16), -MF_ENOMEM);
		TAP_EQ(fail_times, 0);
		TAP_EQ(cost(&r), 10);
		TAP_OK(shows(&r, 0, 4, 0) && shows(&r, 4, 4, 4) && shows(&r, 8, 1, 8));
		TAP_OK(write_faults(&r, 1) && write_faults(&r, 7) && !write_faults(&r, 4));
	}
	memory_fails(0, 0, 0);
	TAP_EQ(unalias(&r, 0, 16), 0);
	TAP_EQ(cost(&r), 16);
	rig_close(&r);
}

TAP_MAIN()
