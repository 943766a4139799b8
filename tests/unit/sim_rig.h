/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim_rig.h - a sim with one window and tables for it, for the tests of machines/sim.
 *
 *	struct rig r;
 *
 *	TAP_REQUIRE(rig_make(&r, mf_paging_x86_64(4), MF_MIB, 0));
 *	map(&r, page(&r, 3), 0, 10, WRITABLE);
 *	poke(page(&r, 3), 1);
 *	TAP_EQ(frame(&r, 10)[0], 1);
 *	rig_end(&r);
 *
 * The tables are built by hand, entry by entry from the paging constants, so that neither core/pgtable nor the sim's
 * walker judges itself.  Owns the machine and the window; what a test reserves besides goes with the machine.
 */
#ifndef TESTS_UNIT_SIM_RIG_H
#define TESTS_UNIT_SIM_RIG_H

#include "tests/tap.h"

#include <memfold/sim.h>
#include <string.h>

enum { NR_FRAMES = 4096, NR_RAM_FRAMES = 2048 };

struct rig {
	struct mf_machine *m;
	const struct mf_paging *p;
	char *window;
	uint64_t size_bytes;
	mf_pfn_t root;
};

static inline mf_pfn_t table_new(struct mf_machine *m)
{
	mf_pfn_t pfn = 0;

	MF_PANIC_IF(m->ops->ram_get(m, 0, 0, &pfn) != 0, "the test's machine has too little RAM");
	memset(mf_machine_frame(m, pfn), 0, (size_t)1 << m->paging.page_shift);
	return pfn;
}

static inline uint64_t span(const struct mf_paging *p, unsigned level)
{
	return (uint64_t)1 << (p->page_shift + level * (p->page_shift - 3));
}

/* The entry of `level` for va; the tables above it are made where they are absent. */
static inline uint64_t *entry_at(struct rig *r, const void *va, unsigned level)
{
	const struct mf_paging *p = r->p;
	mf_pfn_t table = r->root;

	for (unsigned at = p->levels - 1;; at--) {
		uint64_t *entries = mf_machine_frame(r->m, table);
		uint64_t *entry = &entries[((uintptr_t)va / span(p, at)) % (span(p, 1) / span(p, 0))];

		if (at == level)
			return entry;
		if (*entry == 0)
			*entry = (p->frame0 + (table_new(r->m) << p->page_shift)) | p->table_bits;
		table = ((*entry & p->address_mask) - p->frame0) >> p->page_shift;
	}
}

enum access { READ_ONLY, WRITABLE };

static inline uint64_t leaf(const struct mf_paging *p, unsigned level, mf_pfn_t pfn, enum access access)
{
	return (p->frame0 + (pfn << p->page_shift)) | p->leaf_bits | (level ? p->leaf_block_bits : p->leaf_base_bits) |
	       (access == WRITABLE ? p->write_set : p->write_clear);
}

static inline void map(struct rig *r, const void *va, unsigned level, mf_pfn_t pfn, enum access access)
{
	*entry_at(r, va, level) = leaf(r->p, level, pfn, access);
}

static inline bool rig_make(struct rig *r, struct mf_paging paging, uint64_t size_bytes, unsigned flags)
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

static inline void rig_end(struct rig *r)
{
	r->m->ops->window_release(r->m, r->window, r->size_bytes);
	mf_sim_destroy(r->m);
}

static inline char *page(const struct rig *r, uint64_t index)
{
	return r->window + (index << r->p->page_shift);
}

static inline void flush(struct rig *r, const void *va, uint64_t nr_pages)
{
	r->m->ops->flush(r->m, (uintptr_t)va, nr_pages << r->p->page_shift, MF_FLUSH_LEAVES);
}

static inline uint64_t peek(const void *at)
{
	return *(const volatile uint64_t *)at;
}

/* Kept, because Valgrind leaves out loads that nobody uses. */
static _Thread_local volatile uint64_t last_read;

static inline void do_read(void *at)
{
	last_read = peek(at);
}

static inline void poke(void *at, uint64_t value)
{
	*(volatile uint64_t *)at = value;
}

static inline void do_write(void *at)
{
	poke(at, 1);
}

static inline uint64_t *frame(const struct rig *r, mf_pfn_t pfn)
{
	return mf_machine_frame(r->m, pfn);
}

static inline struct mf_sim_stats stats_of(const struct rig *r)
{
	struct mf_sim_stats stats;

	mf_sim_stats(r->m, &stats);
	return stats;
}

/* For tests that hold in every format. */
static const struct {
	const char *name;
	bool is_arm;
	unsigned page_shift, levels;
	uint64_t frame0;
} formats[] = {
	{"x86-64, 4 levels", false, 12, 4, 0},
	{"x86-64, 5 levels", false, 12, 5, 0},
	{"x86-64, 3 levels, memory from 4 GiB", false, 12, 3, 4 * MF_GIB},
	{"x86-64, 2 levels", false, 12, 2, 0},
	{"arm64, 4 KiB, 3 levels", true, 12, 3, 0},
	{"arm64, 16 KiB, 3 levels", true, 14, 3, 0},
	{"arm64, 64 KiB, 3 levels", true, 16, 3, 0},
	{"arm64, 64 KiB, 3 levels, memory from 1 TiB", true, 16, 3, 1024 * MF_GIB},
	{"arm64, 64 KiB, 2 levels", true, 16, 2, 0},
};

enum { NR_FORMATS = sizeof(formats) / sizeof(formats[0]) };

static inline struct mf_paging format_paging(unsigned i)
{
	struct mf_paging paging = formats[i].is_arm ? mf_paging_arm64(formats[i].page_shift, formats[i].levels) :
						      mf_paging_x86_64(formats[i].levels);

	paging.frame0 = formats[i].frame0;
	return paging;
}

#endif
