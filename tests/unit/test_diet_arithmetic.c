/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_diet_arithmetic.c - what the layouts save by arithmetic alone, against the tables and at the ends of every
 * range.
 */
#include "tests/tap.h"

#include <memfold/diet.h>

static const enum mf_layout dieted[] = {
	MF_LAYOUT_HVO_5_14, MF_LAYOUT_HVO_5_18, MF_LAYOUT_HVO_7_1, MF_LAYOUT_DEVDAX,
};

enum { NR_DIETED = sizeof(dieted) / sizeof(dieted[0]) };

/* The sizes of HugeTLB pages that Linux knows, and what each design saves of their V map slots. */
static const struct {
	unsigned page_shift, size_shift;
	uint64_t hvo, devdax, hvo_2020;
	uint64_t mib_per_tib; /* saved by hvo in 1 TiB of such pages                                          */
} sizes[] = {
	{ 12, 16, 0, 0, 0, 0 },
	{ 12, 21, 7, 6, 6, 14336 },
	{ 12, 25, 127, 126, 126, 16256 },
	{ 12, 30, 4095, 4094, 4094, 16380 },
	{ 14, 21, 0, 0, 0, 0 },
	{ 14, 25, 7, 6, 6, 3584 },
	{ 14, 30, 255, 254, 254, 4080 },
	{ 16, 21, 0, 0, 0, 0 },
	{ 16, 29, 7, 6, 6, 896 },
	{ 16, 34, 255, 254, 254, 1020 },
};

enum { NR_SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/* R-HVO-1, R-HVO-2, R-HVO-3, R-HVO-4, R-HVO-8, R-DAX-7 */
TAP_TEST(every_size_saves_what_the_table_says)
{
	for (unsigned i = 0; i < NR_SIZES; i++) {
		unsigned shift = sizes[i].page_shift, order = sizes[i].size_shift - shift;

		TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, shift, 64, order), sizes[i].hvo);
		TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_5_18, shift, 64, order), sizes[i].hvo);
		TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_5_14, shift, 64, order), sizes[i].hvo_2020);
		TAP_EQ(mf_diet_saves(MF_LAYOUT_DEVDAX, shift, 64, order), sizes[i].devdax);
		TAP_EQ(mf_diet_saves(MF_LAYOUT_TIERED, shift, 64, order), 0);
		TAP_EQ(mf_diet_saves(MF_LAYOUT_FLAT, shift, 64, order), 0);
	}
}

/* R-HVO-5 */
TAP_TEST(a_tib_saves_what_the_table_says)
{
	for (unsigned i = 0; i < NR_SIZES; i++) {
		unsigned shift = sizes[i].page_shift;
		uint64_t nr = (uint64_t)1 << (40 - sizes[i].size_shift);
		uint64_t saved = nr * mf_diet_saves(MF_LAYOUT_HVO_7_1, shift, 64, sizes[i].size_shift - shift);

		TAP_EQ((saved << shift) >> 20, sizes[i].mib_per_tib);
	}
}

/*
 * A folio of the pages that one table's entry maps: 8 slots whatever the page size; the next level: P slots.  R-HVO-3
 */
TAP_TEST(leaf_sizes_have_as_many_slots_for_every_page_size)
{
	for (unsigned shift = 12; shift <= 16; shift += 2) {
		unsigned step = shift - 3;

		TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, shift, 64, step), 7);
		TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, shift, 64, 2 * step), ((uint64_t)1 << shift) - 1);
	}
}

/* The smallest orders that save, and how many orders there are from there to 16 GiB.  R-HVO-7, R-DAX-4 */
TAP_TEST(the_smallest_order_that_saves)
{
	static const struct {
		unsigned page_shift, hvo, devdax, nr_orders;
	} cases[] = { { 12, 7, 8, 16 }, { 14, 9, 10, 12 }, { 16, 11, 12, 8 } };

	for (unsigned i = 0; i < 3; i++) {
		unsigned shift = cases[i].page_shift, nr = 0;

		for (unsigned order = 0; order <= 34 - shift; order++) {
			TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, shift, 64, order) > 0, order >= cases[i].hvo);
			TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_5_18, shift, 64, order) > 0, order >= cases[i].hvo);
			TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_5_14, shift, 64, order) > 0, order >= cases[i].devdax);
			TAP_EQ(mf_diet_saves(MF_LAYOUT_DEVDAX, shift, 64, order) > 0, order >= cases[i].devdax);
			nr += mf_diet_saves(MF_LAYOUT_HVO_7_1, shift, 64, order) > 0;
		}
		TAP_EQ(nr, cases[i].nr_orders);
	}
}

/* R-GEN-3, R-DAX-4, R-SCN-23 */
TAP_TEST(descriptors_of_an_odd_size_save_nothing)
{
	static const unsigned bytes[] = { 0, 3, 56, 72, 80, 96, 4095 };

	for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		for (unsigned j = 0; j < NR_DIETED; j++)
			for (unsigned order = 0; order < 64; order++)
				TAP_EQ(mf_diet_saves(dieted[j], 12, bytes[i], order), 0);
}

/* Twice the descriptor, twice the slots; half of it, half.  R-GEN-3, R-HVO-1 */
TAP_TEST(descriptors_of_other_powers_of_two_save_by_their_size)
{
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 128, 9), 15);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_5_14, 12, 128, 9), 14);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 32, 9), 3);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_DEVDAX, 12, 32, 9), 2);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 4096, 9), 511);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 1, 13), 1);
}

/* For every page size, descriptor and order that 64 bits hold: V less what is kept, never below 0.  R-HVO-1, R-HVO-2 */
TAP_TEST(every_order_saves_its_slots_less_those_kept)
{
	for (unsigned page_shift = 0; page_shift < 64; page_shift++) {
		for (unsigned shift = 0; shift < 32; shift++) {
			for (unsigned order = 0; order < 70; order++) {
				bool is_some = shift <= page_shift && order < 64 && order + shift >= page_shift;
				uint64_t nr = is_some ? (uint64_t)1 << (order + shift - page_shift) : 0;

				for (unsigned i = 0; i < NR_DIETED; i++) {
					unsigned kept = mf_layout_diet(dieted[i])->nr_kept;

					TAP_EQ(mf_diet_saves(dieted[i], page_shift, 1u << shift, order),
					       nr > kept ? nr - kept : 0);
				}
			}
		}
	}
}

/* R-HVO-1 */
TAP_TEST(the_ends_of_every_range_are_no_error)
{
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 64, 63), ((uint64_t)1 << 57) - 1);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 0, 1, 63), ((uint64_t)1 << 63) - 1);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 64, 64), 0);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 64, ~0u), 0);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 0, 64, 20), 0);     /* a descriptor is larger than a frame */
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 12, 8192, 20), 0);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 63, 64, 58), 1);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, 64, 64, 63), 0);
	TAP_EQ(mf_diet_saves(MF_LAYOUT_HVO_7_1, ~0u, 64, 63), 0);
	TAP_EQ(mf_diet_saves((enum mf_layout)MF_NR_LAYOUTS, 12, 64, 9), 0);
	TAP_EQ(mf_diet_saves((enum mf_layout)99, 12, 64, 9), 0);
}

/* What the eras are, and numbers that are none.  R-HVO-8, R-DAX-6 */
TAP_TEST(layouts_are_parameters_of_one_engine)
{
	static const struct mf_diet expected[] = {
		{ 2, MF_TAILS_FIRST_TAIL, .is_by_remap = true },
		{ 1, MF_TAILS_HEAD, .is_by_remap = true },
		{ 1, MF_TAILS_ZONE, .is_by_remap = true, .moves_head = true },
		{ 2, MF_TAILS_FIRST_TAIL, .is_counted = true },
	};
	static const unsigned none[] = { MF_LAYOUT_TIERED, MF_LAYOUT_FLAT, MF_NR_LAYOUTS, 99 };

	for (unsigned i = 0; i < NR_DIETED; i++) {
		const struct mf_diet *diet = mf_layout_diet(dieted[i]);

		TAP_EQ(diet->nr_kept, expected[i].nr_kept);
		TAP_EQ(diet->tails, expected[i].tails);
		TAP_EQ(diet->is_by_remap, expected[i].is_by_remap);
		TAP_EQ(diet->is_counted, expected[i].is_counted);
		TAP_EQ(diet->moves_head, expected[i].moves_head);
	}
	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		TAP_EQ(mf_layout_diet((enum mf_layout)none[i])->nr_kept, 0);
		TAP_EQ(mf_layout_diet((enum mf_layout)none[i])->tails, MF_TAILS_OWN);
	}
}

TAP_TEST(layouts_have_names)
{
	static const char *const names[MF_NR_LAYOUTS] = {
		"tiered", "flat", "hvo-5.14", "hvo-5.18", "hvo-7.1", "devdax",
	};
	enum mf_layout layout;

	for (unsigned i = 0; i < MF_NR_LAYOUTS; i++) {
		TAP_OK(tap_contains(mf_layout_name((enum mf_layout)i), names[i]));
		TAP_EQ(mf_layout_by_name(names[i], &layout), 0);
		TAP_EQ(layout, i);
	}
	TAP_OK(mf_layout_name((enum mf_layout)MF_NR_LAYOUTS) == NULL);
	TAP_EQ(mf_layout_by_name("hvo", &layout), -MF_EINVAL);
	TAP_EQ(mf_layout_by_name("", &layout), -MF_EINVAL);
}

TAP_MAIN()
