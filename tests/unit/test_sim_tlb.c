/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_sim_tlb.c - the sim's TLB: what it fills, what is stale until which flush, and readers that race flushes.
 */
#include "tests/unit/sim_rig.h"

#include <pthread.h>
#include <stdatomic.h>

TAP_TEST(tlb_translates_in_every_format)
{
	for (unsigned i = 0; i < NR_FORMATS; i++) {
		struct mf_paging paging = format_paging(i);
		struct rig r;

		TAP_NOTE("%s", formats[i].name);
		TAP_REQUIRE(rig_make(&r, paging, 16 * span(&paging, 0), 0));
		map(&r, page(&r, 0), 0, 7, WRITABLE);
		map(&r, page(&r, 15), 0, 9, READ_ONLY);
		frame(&r, 9)[1] = 99;
		poke(page(&r, 0) + 8, 77);
		TAP_EQ(frame(&r, 7)[1], 77);
		TAP_EQ(peek(page(&r, 15) + 8), 99);
		TAP_EQ(stats_of(&r).fills, 2);
		do_read(page(&r, 0));
		TAP_EQ(stats_of(&r).fills, 2);
		TAP_EQ(mf_sim_catch_fault(r.m, do_write, page(&r, 15), NULL), 1);
		TAP_EQ(mf_sim_stale(r.m), 0);
		rig_end(&r);
	}
}

TAP_TEST(tlb_fills_a_whole_leaf)
{
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), 4 * MF_MIB, 0));
	map(&r, page(&r, 512), 1, 1024, WRITABLE);
	poke(page(&r, 512 + 300), 5);
	poke(page(&r, 512), 6);
	TAP_EQ(frame(&r, 1024 + 300)[0], 5);
	TAP_EQ(frame(&r, 1024)[0], 6);
	TAP_EQ(stats_of(&r).fills, 1);
	TAP_EQ(mf_sim_reachable(r.m, 1024 + 511), 1);
	TAP_EQ(mf_sim_reachable(r.m, 1024 + 512), 0);
	flush(&r, page(&r, 512 + 17), 1); /* a flush of any part drops the translation */
	TAP_EQ(stats_of(&r).nr_fills, 0);
	TAP_EQ(peek(page(&r, 512 + 300)), 5);
	rig_end(&r);
}

TAP_TEST(tlb_is_stale_until_flushed)
{
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	map(&r, page(&r, 3), 0, 10, WRITABLE);
	poke(page(&r, 3), 1);
	frame(&r, 11)[0] = 2;
	map(&r, page(&r, 3), 0, 11, WRITABLE);
	TAP_EQ(mf_sim_stale(r.m), 1);
	TAP_EQ(peek(page(&r, 3)), 1);
	poke(page(&r, 3), 3);
	TAP_EQ(frame(&r, 10)[0], 3);
	TAP_EQ(frame(&r, 11)[0], 2);
	flush(&r, page(&r, 3), 1);
	TAP_EQ(mf_sim_stale(r.m), 0);
	TAP_EQ(peek(page(&r, 3)), 2);
	map(&r, page(&r, 3), 0, 11, READ_ONLY);
	TAP_EQ(mf_sim_stale(r.m), 1);
	poke(page(&r, 3), 4);
	flush(&r, page(&r, 3), 1);
	TAP_EQ(mf_sim_catch_fault(r.m, do_write, page(&r, 3), NULL), 1);
	*entry_at(&r, page(&r, 3), 0) = 0;
	TAP_EQ(mf_sim_stale(r.m), 1);
	rig_end(&r);
}

/* An old small fill stays what it was when a leaf around it is filled. */
TAP_TEST(tlb_breaks_a_leaf_around_an_old_fill)
{
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), 2 * MF_MIB, 0));
	map(&r, page(&r, 5), 0, 3, WRITABLE);
	poke(page(&r, 5), 1);
	map(&r, page(&r, 0), 1, 512, WRITABLE);
	poke(page(&r, 6), 2);
	TAP_EQ(frame(&r, 512 + 6)[0], 2);
	poke(page(&r, 5), 3);
	TAP_EQ(frame(&r, 3)[0], 3);
	TAP_EQ(mf_sim_stale(r.m), 1);
	flush(&r, page(&r, 5), 1);
	poke(page(&r, 5), 4);
	TAP_EQ(frame(&r, 512 + 5)[0], 4);
	TAP_EQ(mf_sim_stale(r.m), 0);
	rig_end(&r);
}

/* Split into the same translations: nothing that a fill says became wrong. */
TAP_TEST(tlb_is_not_stale_after_a_plain_split)
{
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), 2 * MF_MIB, 0));
	map(&r, page(&r, 0), 1, 512, WRITABLE);
	do_read(page(&r, 1));
	*entry_at(&r, page(&r, 0), 1) = 0;
	for (unsigned i = 0; i < 512; i++)
		map(&r, page(&r, i), 0, 512 + i, WRITABLE);
	TAP_EQ(mf_sim_stale(r.m), 0);
	map(&r, page(&r, 400), 0, 9, WRITABLE);
	TAP_EQ(mf_sim_stale(r.m), 1);
	rig_end(&r);
}

/* R-SCN-27 */
TAP_TEST(flush_drops_its_range_only)
{
	struct mf_sim_stats stats;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	for (unsigned i = 0; i < 64; i++)
		map(&r, page(&r, i), 0, i, WRITABLE);
	for (unsigned i = 0; i < 64; i++)
		poke(page(&r, 63 - i), i);
	TAP_EQ(stats_of(&r).nr_fills, 64);
	flush(&r, page(&r, 10), 20);
	TAP_EQ(stats_of(&r).nr_fills, 44);
	TAP_EQ(mf_sim_reachable(r.m, 9), 1);
	TAP_EQ(mf_sim_reachable(r.m, 10), 0);
	TAP_EQ(mf_sim_reachable(r.m, 29), 0);
	TAP_EQ(mf_sim_reachable(r.m, 30), 1);
	flush(&r, page(&r, 10), 20);
	for (unsigned i = 0; i < 64; i++)
		TAP_EQ(peek(page(&r, i)), 63 - i);
	r.m->ops->flush(r.m, 0, UINT64_MAX, MF_FLUSH_TABLES);
	stats = stats_of(&r);
	TAP_EQ(stats.nr_fills, 0);
	TAP_EQ(stats.fills, 84);
	TAP_EQ(stats.flushes, 3);
	TAP_EQ(stats.table_flushes, 1);
	rig_end(&r);
}

TAP_TEST(tables_are_reachable_until_flushed)
{
	mf_pfn_t table;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, MF_SIM_CHECK_REUSE));
	map(&r, page(&r, 0), 0, 1, WRITABLE);
	table = *entry_at(&r, page(&r, 0), 1) >> 12 & 0xffffffffff;
	TAP_EQ(mf_sim_reachable(r.m, table), 0);
	do_read(page(&r, 0));
	TAP_EQ(mf_sim_reachable(r.m, table), 1);
	*entry_at(&r, page(&r, 0), 1) = 0;
	flush(&r, page(&r, 0), 1);
	TAP_EQ(mf_sim_reachable(r.m, table), 1);
	TAP_OK(TAP_PANICS(r.m->ops->ram_put(r.m, 0, 0, table)));
	r.m->ops->flush(r.m, (uintptr_t)r.window, MF_MIB, MF_FLUSH_TABLES);
	TAP_EQ(mf_sim_reachable(r.m, table), 0);
	r.m->ops->ram_put(r.m, 0, 0, table);
	rig_end(&r);
}

TAP_TEST(tlb_overflow_is_loud)
{
	uint64_t nr_pages = MF_SIM_FILLS_MAX + 1, i;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), nr_pages << 12, 0));
	for (i = 0; i < nr_pages; i++)
		map(&r, page(&r, i), 0, i % NR_FRAMES, WRITABLE); /* neighbours join: few mappings of the host */
	for (i = 0; i + 1 < nr_pages; i++)
		do_read(page(&r, i));
	TAP_OK(TAP_PANICS(do_read(page(&r, i))));
	TAP_EQ(stats_of(&r).nr_fills, MF_SIM_FILLS_MAX);
	flush(&r, page(&r, 0), nr_pages);
	do_read(page(&r, i));
	rig_end(&r);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

enum { NR_THREADS = 4, NR_SHARED_PAGES = 32, NR_ROUNDS = 300 };

struct reader {
	struct rig *rig;
	atomic_bool *stop;
	uint64_t wrong;
};

static void *read_until_stopped(void *arg)
{
	struct reader *reader = arg;

	while (!atomic_load(reader->stop)) {
		for (unsigned i = 0; i < NR_SHARED_PAGES; i++)
			reader->wrong += peek(page(reader->rig, i)) != i;
	}
	return NULL;
}

/* All pages are read-only: a reader that lost a race with a flush or a fill must not be taken for a writer. */
TAP_TEST(readers_race_flushes)
{
	struct reader readers[NR_THREADS];
	pthread_t threads[NR_THREADS];
	atomic_bool stop = false;
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	for (unsigned i = 0; i < NR_SHARED_PAGES; i++) {
		frame(&r, i)[0] = i;
		frame(&r, i + 100)[0] = i;
		map(&r, page(&r, i), 0, i, READ_ONLY);
	}
	for (unsigned i = 0; i < NR_THREADS; i++) {
		readers[i] = (struct reader){.rig = &r, .stop = &stop};
		TAP_REQUIRE(pthread_create(&threads[i], NULL, read_until_stopped, &readers[i]) == 0);
	}
	for (unsigned i = 0; i < NR_ROUNDS; i++) {
		unsigned at = i % NR_SHARED_PAGES;

		__atomic_store_n(entry_at(&r, page(&r, at), 0), leaf(r.p, 0, at + 100 * (i & 1), READ_ONLY),
				 __ATOMIC_RELEASE);
		flush(&r, page(&r, at), 1 + i % 5);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < NR_THREADS; i++) {
		pthread_join(threads[i], NULL);
		TAP_EQ(readers[i].wrong, 0);
	}
	TAP_EQ(stats_of(&r).faults, 0);
	TAP_EQ(mf_sim_stale(r.m), 0);
	rig_end(&r);
}

TAP_MAIN()
