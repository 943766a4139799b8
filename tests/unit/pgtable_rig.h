/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pgtable_rig.h - page tables on the flat machine, for the tests of core/pgtable: made, fed with frames, closed with a
 * look for leaks.
 *
 *	struct rig r;
 *
 *	rig_open(&r, mf_paging_x86_64(4), MF_PGTABLE_SHARE);
 *	TAP_EQ(map_drawn(&r, r.pt.base, 0, &pfn, 1, MF_PROT_READ), 0);
 *	TAP_OK(rig_is_sound(&r));
 *	clear_given(&r, r.pt.base, 0, 1);
 *	rig_close(&r);
 *
 * Law: what the page tables hold, what lies in the bag and what the machine has left is always the whole.  Whoever maps
 * clears, before rig_close().
 */
#ifndef TESTS_UNIT_PGTABLE_RIG_H
#define TESTS_UNIT_PGTABLE_RIG_H

#include "tests/lib/flat_machine.h"
#include "tests/tap.h"

#include <memfold/pgtable.h>
#include <stdlib.h>
#include <string.h>

enum { NR_FRAMES = 160 };

struct rig {
	struct flat_machine flat;
	struct mf_pgtable pt;
	struct mf_bag bag; /* empty between the steps */
};

/* The same constants on a machine whose memory begins there. */
static inline struct mf_paging from_paddr(struct mf_paging paging, uint64_t frame0)
{
	paging.frame0 = frame0;
	return paging;
}

static inline unsigned fanout_of(const struct rig *r)
{
	return 1u << (r->flat.machine.paging.page_shift - 3);
}

static inline unsigned root_level(const struct rig *r)
{
	return r->flat.machine.paging.levels - 1;
}

static inline uint64_t *frame_words(const struct rig *r, mf_pfn_t pfn)
{
	return mf_machine_frame(&r->flat.machine, pfn);
}

static inline void draw(struct rig *r, unsigned nr)
{
	mf_pfn_t pfn;

	while (r->bag.nr < nr) {
		if (r->flat.machine.ops->ram_get(&r->flat.machine, 0, 0, &pfn) != 0) {
			TAP_NOTE("the machine has no frame left");
			exit(1);
		}
		mf_bag_put(&r->bag, pfn);
	}
}

static inline void give_back(struct rig *r)
{
	while (r->bag.nr > 0)
		r->flat.machine.ops->ram_put(&r->flat.machine, 0, 0, mf_bag_take(&r->bag));
}

/* Half of what the levels reach, at most 2^40 bytes, in the upper half of the address space. */
static inline void rig_open(struct rig *r, struct mf_paging paging, enum mf_pgtable_flags flags)
{
	unsigned reach = paging.page_shift + paging.levels * (paging.page_shift - 3);
	uint64_t size_bytes = (uint64_t)1 << (reach - 1 < 40 ? reach - 1 : 40);

	memset(r, 0, sizeof(*r));
	if (flat_machine_create(&r->flat, paging, NR_FRAMES) != 0)
		exit(1);
	draw(r, mf_pgtable_init_frames(&paging));
	TAP_EQ(mf_pgtable_init(&r->pt, &r->flat.machine, flags, (uintptr_t)0xffff800000000000, size_bytes, &r->bag), 0);
	TAP_EQ(r->bag.nr, 0);
	TAP_EQ(r->flat.nr_read_only, paging.levels);
}

static inline bool rig_is_sound(struct rig *r)
{
	char text[200];
	const char *finding = mf_pgtable_check(&r->pt, text, sizeof(text));
	uint64_t nr_taken = r->flat.nr_frames - 1 - r->flat.nr_free;

	if (finding)
		TAP_NOTE("%s", finding);
	return !finding && mf_pgtable_frames(&r->pt) + r->bag.nr == nr_taken;
}

/* Everything has been cleared: nothing may leak. */
static inline void rig_close(struct rig *r)
{
	TAP_EQ(mf_pgtable_frames(&r->pt), r->flat.machine.paging.levels + 1);
	mf_pgtable_destroy(&r->pt, &r->bag);
	give_back(r);
	TAP_EQ(r->flat.nr_free, r->flat.nr_frames - 1);
	TAP_EQ(r->flat.nr_read_only, 0);
	flat_machine_destroy(&r->flat);
}

/* With exactly the frames it needs, and what comes back goes back. */
static inline int map_drawn(struct rig *r, uintptr_t va, unsigned level, const mf_pfn_t *pfn, unsigned nr,
			    enum mf_prot prot)
{
	int err;

	draw(r, mf_pgtable_tables_needed(&r->pt, va, level));
	err = mf_pgtable_map(&r->pt, va, level, pfn, nr, prot, &r->bag);
	give_back(r);
	return err;
}

static inline void clear_given(struct rig *r, uintptr_t va, unsigned level, unsigned nr)
{
	mf_pgtable_clear(&r->pt, va, level, nr, NULL, &r->bag);
	give_back(r);
}

#endif
