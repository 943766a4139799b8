/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_sim_fault.c - the sim's faults: each kind is caught and told apart, catches nest, and what is not the sim's goes
 * to the handler before.
 */
#include "tests/unit/sim_rig.h"

#include <setjmp.h>
#include <signal.h>

TAP_TEST(fault_stray_write_is_caught)
{
	struct mf_sim_fault fault;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	map(&r, page(&r, 2), 0, 20, READ_ONLY);
	for (unsigned round = 0; round < 2; round++) { /* not filled, then filled */
		TAP_EQ(mf_sim_catch_fault(r.m, do_write, page(&r, 2) + 24, &fault), 1);
		TAP_EQ(fault.kind, MF_SIM_FAULT_STRAY);
		TAP_EQ(fault.addr, (uintptr_t)page(&r, 2) + 24);
		TAP_EQ(fault.pfn, 20);
		TAP_EQ(fault.level, 0);
		TAP_EQ(fault.pte.bits, leaf(r.p, 0, 20, READ_ONLY));
	}
	TAP_EQ(frame(&r, 20)[3], 0);
	TAP_EQ(mf_sim_catch_fault(r.m, do_read, page(&r, 2), &fault), 0);
	TAP_EQ(stats_of(&r).stray_writes, 2);
	TAP_OK(TAP_PANICS(poke(page(&r, 2), 1)));
	TAP_EQ(stats_of(&r).stray_writes, 3);
	rig_end(&r);
}

TAP_TEST(fault_stale_write_is_told_apart)
{
	struct mf_sim_fault fault;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	map(&r, page(&r, 2), 0, 20, READ_ONLY);
	map(&r, page(&r, 3), 0, 20, READ_ONLY);
	do_read(page(&r, 2));
	do_read(page(&r, 3));
	map(&r, page(&r, 2), 0, 21, WRITABLE);
	TAP_EQ(mf_sim_catch_fault(r.m, do_write, page(&r, 2), &fault), 1);
	TAP_EQ(fault.kind, MF_SIM_FAULT_STALE);
	TAP_EQ(fault.pfn, 21);
	TAP_EQ(stats_of(&r).stray_writes, 0);
	TAP_EQ(stats_of(&r).faults, 1);
	flush(&r, page(&r, 2), 1);
	TAP_EQ(mf_sim_catch_fault(r.m, do_write, page(&r, 2), &fault), 0);
	TAP_EQ(frame(&r, 21)[0], 1);
	rig_end(&r);
}

TAP_TEST(fault_absent_is_caught)
{
	struct mf_sim_fault fault;
	void *bare;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	TAP_EQ(mf_sim_catch_fault(r.m, do_read, page(&r, 1), &fault), 1);
	TAP_EQ(fault.kind, MF_SIM_FAULT_ABSENT);
	TAP_EQ(fault.level, 3);
	map(&r, page(&r, 2), 0, 20, READ_ONLY);
	TAP_EQ(mf_sim_catch_fault(r.m, do_read, page(&r, 1), &fault), 1);
	TAP_EQ(fault.level, 0);
	TAP_EQ(r.m->ops->window_reserve(r.m, MF_MIB, 4096, &bare), 0);
	TAP_EQ(mf_sim_catch_fault(r.m, do_read, bare, &fault), 1);
	TAP_EQ(fault.kind, MF_SIM_FAULT_ABSENT);
	TAP_OK(TAP_PANICS(do_read(bare)));
	TAP_EQ(stats_of(&r).fills, 0);
	rig_end(&r);
}

static void expect_broken(struct rig *r, unsigned level, uint64_t entry)
{
	struct mf_sim_fault fault = {.kind = MF_SIM_FAULT_STRAY};
	uint64_t *at = entry_at(r, page(r, 1), level), good = *at;

	*at = entry;
	TAP_EQ(mf_sim_catch_fault(r->m, do_read, page(r, 1), &fault), 1);
	TAP_EQ(fault.kind, MF_SIM_FAULT_BROKEN);
	TAP_EQ(fault.level, level);
	TAP_EQ(fault.pte.bits, entry);
	*at = good;
}

TAP_TEST(fault_broken_entry_is_caught)
{
	const uint64_t accessed = 1 << 5;
	const struct mf_paging *p;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	p = r.p;
	map(&r, page(&r, 1), 0, 1, WRITABLE);
	expect_broken(&r, 0, leaf(p, 0, 1, WRITABLE) & ~accessed);
	expect_broken(&r, 0, leaf(p, 0, NR_FRAMES + NR_RAM_FRAMES, WRITABLE));
	expect_broken(&r, 1, leaf(p, 1, 511, WRITABLE));
	expect_broken(&r, 1, leaf(p, 1, NR_FRAMES + NR_RAM_FRAMES, WRITABLE));
	expect_broken(&r, 2, (NR_FRAMES + NR_RAM_FRAMES) << 12 | p->table_bits);
	expect_broken(&r, 2, r.root << 12 | (p->table_bits & ~accessed));
	expect_broken(&r, 3, leaf(p, 3, 0, WRITABLE));
	TAP_EQ(mf_sim_catch_fault(r.m, do_read, page(&r, 1), NULL), 0);
	rig_end(&r);
}

TAP_TEST(fault_direct_map_is_protected)
{
	struct mf_sim_fault fault;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_arm64(16, 3), MF_MIB, 0));
	r.m->ops->direct_protect(r.m, 5, false);
	for (uint64_t offset = 0; offset < 65536; offset += 65528) {
		TAP_EQ(mf_sim_catch_fault(r.m, do_write, r.m->direct_map + 5 * 65536 + offset, &fault), 1);
		TAP_EQ(fault.kind, MF_SIM_FAULT_DIRECT);
		TAP_EQ(fault.pfn, 5);
	}
	do_write(frame(&r, 4));
	do_write(frame(&r, 6));
	do_read(frame(&r, 5));
	TAP_OK(TAP_PANICS(do_write(frame(&r, 5))));
	r.m->ops->direct_protect(r.m, 5, true);
	do_write(frame(&r, 5));
	rig_end(&r);
}

struct nest {
	struct rig *other;
	int inner;
};

/* The inner catch is another machine's, so the fault on ours is the outer one's. */
static void nest_inner(void *arg)
{
	struct nest *nest = arg;

	nest->inner = mf_sim_catch_fault(nest->other->m, do_write, nest->other->window, NULL);
}

struct cross {
	struct rig *ours, *other;
};

static void cross_write_ours(void *arg)
{
	do_write(((struct cross *)arg)->ours->window);
}

static void cross_catch_other(void *arg)
{
	mf_sim_catch_fault(((struct cross *)arg)->other->m, cross_write_ours, arg, NULL);
}

TAP_TEST(fault_catches_nest_and_machines_keep_apart)
{
	struct rig a, b;
	struct nest nest = {.other = &b};
	struct cross cross = {.ours = &a, .other = &b};

	TAP_REQUIRE(rig_make(&a, mf_paging_x86_64(4), MF_MIB, 0));
	TAP_REQUIRE(rig_make(&b, mf_paging_arm64(14, 3), MF_MIB, 0));
	map(&a, a.window, 0, 1, READ_ONLY);
	map(&b, b.window, 0, 1, READ_ONLY);
	TAP_EQ(mf_sim_catch_fault(a.m, nest_inner, &nest, NULL), 0);
	TAP_EQ(nest.inner, 1);
	TAP_EQ(mf_sim_catch_fault(a.m, cross_catch_other, &cross, NULL), 1);
	TAP_EQ(stats_of(&a).stray_writes, 1);
	TAP_EQ(stats_of(&b).stray_writes, 1);
	rig_end(&a);
	TAP_EQ(mf_sim_catch_fault(b.m, do_read, b.window, NULL), 0);
	rig_end(&b);
}

static sigjmp_buf foreign_jump;

static void on_foreign(int number)
{
	(void)number;
	siglongjmp(foreign_jump, 1);
}

static bool is_foreign(void *at)
{
	if (sigsetjmp(foreign_jump, 1) == 0) {
		do_read(at);
		return false;
	}
	return true;
}

TAP_TEST(fault_of_others_goes_to_the_handler_before)
{
	struct sigaction mine = {.sa_handler = on_foreign}, before, after;
	void *window;
	struct rig r;

	sigemptyset(&mine.sa_mask);
	TAP_EQ(sigaction(SIGSEGV, &mine, &before), 0);
	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	window = r.window;
	map(&r, window, 0, 1, READ_ONLY);
	TAP_OK(!is_foreign(window));
	r.m->ops->window_release(r.m, window, r.size_bytes);
	TAP_OK(is_foreign(window));
	mf_sim_destroy(r.m);
	TAP_EQ(sigaction(SIGSEGV, &before, &after), 0);
	TAP_OK(after.sa_handler == on_foreign);
}

TAP_MAIN()
