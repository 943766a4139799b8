/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_sim.c - the sim by itself: windows, the TLB, faults.  Its memory: test_sim_memory.c.
 *
 * The tables are built here by hand, entry by entry from the paging constants, so that neither core/pgtable nor the
 * sim's walker judges itself.
 */
#include <stdatomic.h>

#include "tests/tap.h"

#include <memfold/sim.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

enum { NR_FRAMES = 4096, NR_RAM_FRAMES = 2048 };

/* ---- A machine with one window and its tables ------------------------------------------------------------------- */

struct rig {
	struct mf_machine *m;
	const struct mf_paging *p;
	char *window;
	uint64_t size_bytes;
	mf_pfn_t root;
};

static mf_pfn_t table_new(struct mf_machine *m)
{
	mf_pfn_t pfn = 0;

	MF_PANIC_IF(m->ops->ram_get(m, 0, 0, &pfn) != 0, "the test's machine has too little RAM");
	memset(mf_machine_frame(m, pfn), 0, (size_t)1 << m->paging.page_shift);
	return pfn;
}

static uint64_t span(const struct mf_paging *p, unsigned level)
{
	return (uint64_t)1 << (p->page_shift + level * (p->page_shift - 3));
}

/* The entry of `level` for va; the tables above it are made where they are absent. */
static uint64_t *entry_at(struct rig *r, const void *va, unsigned level)
{
	const struct mf_paging *p = r->p;
	mf_pfn_t table = r->root;

	for (unsigned at = p->levels - 1;; at--) {
		uint64_t *entries = mf_machine_frame(r->m, table);
		uint64_t *entry = &entries[((uintptr_t)va / span(p, at)) % (span(p, 1) / span(p, 0))];

		if (at == level)
			return entry;
		if (*entry == 0)
			*entry = table_new(r->m) << p->page_shift | p->table_bits;
		table = (*entry & p->address_mask) >> p->page_shift;
	}
}

enum access { READ_ONLY, WRITABLE };

static uint64_t leaf(const struct mf_paging *p, unsigned level, mf_pfn_t pfn, enum access access)
{
	return pfn << p->page_shift | p->leaf_bits | (level ? p->leaf_block_bits : p->leaf_base_bits) |
	       (access == WRITABLE ? p->write_set : p->write_clear);
}

static void map(struct rig *r, const void *va, unsigned level, mf_pfn_t pfn, enum access access)
{
	*entry_at(r, va, level) = leaf(r->p, level, pfn, access);
}

static bool rig_make(struct rig *r, struct mf_paging paging, uint64_t size_bytes, unsigned flags)
{
	struct mf_sim_config config = {
		.paging = paging,
		.nr_frames = NR_FRAMES,
		.nr_ram_frames = NR_RAM_FRAMES,
		.flags = flags,
	};
	void *base;

	if (mf_sim_create(&config, &r->m) != 0)
		return false;
	r->p = &r->m->paging;
	r->size_bytes = size_bytes;
	if (r->m->ops->window_reserve(r->m, size_bytes, span(r->p, r->p->max_leaf_level), &base) != 0) {
		mf_sim_destroy(r->m);
		return false;
	}
	r->window = base;
	r->root = table_new(r->m);
	r->m->ops->window_attach(r->m, base, size_bytes, r->root);
	return true;
}

static void rig_end(struct rig *r)
{
	r->m->ops->window_release(r->m, r->window, r->size_bytes);
	mf_sim_destroy(r->m);
}

static char *page(const struct rig *r, uint64_t index)
{
	return r->window + (index << r->p->page_shift);
}

static void flush(struct rig *r, const void *va, uint64_t nr_pages)
{
	r->m->ops->flush(r->m, (uintptr_t)va, nr_pages << r->p->page_shift, MF_FLUSH_LEAVES);
}

static uint64_t peek(const void *at)
{
	return *(const volatile uint64_t *)at;
}

/* Kept, because Valgrind leaves out loads that nobody uses. */
static _Thread_local volatile uint64_t last_read;

static void do_read(void *at)
{
	last_read = peek(at);
}

static void poke(void *at, uint64_t value)
{
	*(volatile uint64_t *)at = value;
}

static uint64_t *frame(const struct rig *r, mf_pfn_t pfn)
{
	return mf_machine_frame(r->m, pfn);
}

static struct mf_sim_stats stats_of(const struct rig *r)
{
	struct mf_sim_stats stats;

	mf_sim_stats(r->m, &stats);
	return stats;
}

static void do_write(void *at)
{
	poke(at, 1);
}

static const struct {
	const char *name;
	bool is_arm;
	unsigned page_shift, levels;
} formats[] = {
	{"x86-64, 4 levels", false, 12, 4},
	{"x86-64, 5 levels", false, 12, 5},
	{"x86-64, 2 levels", false, 12, 2},
	{"arm64, 4 KiB, 3 levels", true, 12, 3},
	{"arm64, 16 KiB, 3 levels", true, 14, 3},
	{"arm64, 64 KiB, 3 levels", true, 16, 3},
	{"arm64, 64 KiB, 2 levels", true, 16, 2},
};

enum { NR_FORMATS = sizeof(formats) / sizeof(formats[0]) };

static struct mf_paging format_paging(unsigned i)
{
	return formats[i].is_arm ? mf_paging_arm64(formats[i].page_shift, formats[i].levels) :
				   mf_paging_x86_64(formats[i].levels);
}

/* ---- Creation ---------------------------------------------------------------------------------------------------- */

TAP_TEST(sim_refuses_what_cannot_be)
{
	struct mf_sim_config good = {.paging = mf_paging_x86_64(4), .nr_frames = 16};
	struct mf_sim_config bad = good;
	struct mf_machine *m = NULL;

	bad.nr_frames = 0;
	TAP_EQ(mf_sim_create(&bad, &m), -MF_EINVAL);
	bad = good;
	bad.flags = 1u << 31;
	TAP_EQ(mf_sim_create(&bad, &m), -MF_EINVAL);
	bad = good;
	bad.paging.page_shift = 11;
	TAP_EQ(mf_sim_create(&bad, &m), -MF_EINVAL);
	bad = good;
	bad.paging.levels = 1;
	TAP_EQ(mf_sim_create(&bad, &m), -MF_EINVAL);
	bad = good;
	bad.paging = mf_paging_arm64(16, 6);
	TAP_EQ(mf_sim_create(&bad, &m), -MF_EINVAL);
	bad = good;
	bad.nr_ram_frames = UINT64_MAX;
	TAP_EQ(mf_sim_create(&bad, &m), -MF_E2BIG);
	bad.nr_ram_frames = (uint64_t)1 << 60;
	TAP_EQ(mf_sim_create(&bad, &m), -MF_E2BIG);
	TAP_OK(m == NULL);
}

TAP_TEST(sim_describes_tebibytes_without_touching_them)
{
	struct mf_sim_config config = {
		.paging = mf_paging_x86_64(4),
		.nr_frames = 8 * MF_TIB >> 12,
		.nr_ram_frames = 64,
	};
	struct mf_machine *m;
	mf_pfn_t pfn = 0;
	int error = mf_sim_create(&config, &m);

	if (error == -MF_ENOMEM)
		TAP_SKIP("this host has no 8 TiB of addresses");
	TAP_REQUIRE(error == 0);
	TAP_EQ(m->ops->ram_get(m, 0, 0, &pfn), 0);
	TAP_EQ(pfn, config.nr_frames);
	poke(m->ops->data(m, config.nr_frames - 1, 1), 42);
	TAP_EQ(peek(m->direct_map + ((config.nr_frames - 1) << 12)), 42);
	TAP_OK(m->ops->data(m, config.nr_frames - 1, 2) == NULL);
	TAP_OK(m->ops->data(m, 1, UINT64_MAX) == NULL);
	TAP_EQ(mf_sim_reachable(m, 0), 0);
	mf_sim_destroy(m);
}

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

TAP_TEST(window_lies_within_reach_and_aligned)
{
	for (unsigned i = 0; i < NR_FORMATS; i++) {
		struct mf_paging paging = format_paging(i);
		uint64_t end = paging.levels < 5 ? span(&paging, paging.levels) : 0;
		void *other = NULL;
		struct rig r;

		TAP_NOTE("%s", formats[i].name);
		TAP_REQUIRE(rig_make(&r, paging, 64 * span(&paging, 0), 0));
		TAP_EQ((uintptr_t)r.window % span(&paging, paging.max_leaf_level), 0);
		TAP_OK(end == 0 || (uintptr_t)r.window + r.size_bytes <= end);
		TAP_EQ(r.m->ops->window_reserve(r.m, span(&paging, 0), 1, &other), 0);
		TAP_OK((char *)other < r.window || (char *)other >= r.window + r.size_bytes);
		r.m->ops->window_release(r.m, other, span(&paging, 0));
		TAP_EQ(r.m->ops->window_reserve(r.m, (uint64_t)1 << 47, 4096, &other), -MF_ENOMEM);
		TAP_OK(TAP_PANICS(r.m->ops->window_release(r.m, r.window, r.size_bytes - span(&paging, 0))));
		rig_end(&r);
	}
}

TAP_TEST(window_count_is_limited)
{
	void *base[MF_SIM_WINDOWS_MAX];
	struct rig r;

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	for (unsigned i = 0; i + 1 < MF_SIM_WINDOWS_MAX; i++)
		TAP_EQ(r.m->ops->window_reserve(r.m, MF_MIB, MF_MIB, &base[i]), 0);
	TAP_EQ(r.m->ops->window_reserve(r.m, MF_MIB, MF_MIB, &base[MF_SIM_WINDOWS_MAX - 1]), -MF_ENOMEM);
	rig_end(&r); /* the others go with the machine */
}

/* ---- The TLB ---------------------------------------------------------------------------------------------------- */

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

/* ---- Faults ----------------------------------------------------------------------------------------------------- */

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

/* ---- The rest ---------------------------------------------------------------------------------------------------- */

TAP_TEST(machine_is_one_cpu)
{
	struct rig r, fake;
	struct mf_machine_ops foreign_ops = {.name = "another"};
	struct mf_machine foreign = {.ops = &foreign_ops};

	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
	TAP_EQ(r.m->nr_cpus, 1);
	TAP_EQ(r.m->ops->cpu(r.m), 0);
	fake.m = &foreign;
	TAP_OK(TAP_PANICS(mf_sim_stale(fake.m)));
	rig_end(&r);
}

TAP_MAIN()
