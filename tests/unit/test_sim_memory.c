/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_sim_memory.c - the sim's RAM, control memory, and failures on demand.
 */
#include "tests/tap.h"

#include <memfold/sim.h>
#include <string.h>

/* NULL when it cannot be had. */
static struct mf_machine *machine_make(void)
{
	struct mf_sim_config config = {.paging = mf_paging_x86_64(4), .nr_frames = 16, .nr_ram_frames = 16};
	struct mf_machine *m;

	return mf_sim_create(&config, &m) == 0 ? m : NULL;
}

static struct mf_sim_stats stats_of(struct mf_machine *m)
{
	struct mf_sim_stats stats;

	mf_sim_stats(m, &stats);
	return stats;
}

TAP_TEST(ram_is_aligned_and_runs_out)
{
	struct mf_sim_config config = {.paging = mf_paging_x86_64(4), .nr_frames = 3, .nr_ram_frames = 13};
	struct mf_machine *m;
	mf_pfn_t four, one, rest[16];
	unsigned nr = 0;

	TAP_REQUIRE(mf_sim_create(&config, &m) == 0);
	TAP_EQ(m->ops->ram_get(m, 0, 3, &four), 0);
	TAP_EQ(four, 8);
	TAP_EQ(m->ops->ram_get(m, 0, 3, &one), -MF_ENOMEM);
	TAP_EQ(m->ops->ram_get(m, 0, 63, &one), -MF_ENOMEM);
	while (nr < 16 && m->ops->ram_get(m, 7, 0, &rest[nr]) == 0)
		nr++;
	TAP_EQ(nr, 5);
	TAP_EQ(rest[0], 3);
	TAP_EQ(mf_sim_ram_used(m), 13);
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 4, four)));
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 1, rest[0])));
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 0, 0)));
	m->ops->ram_put(m, 0, 0, rest[2]);
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 0, rest[2])));
	TAP_EQ(m->ops->ram_get(m, 0, 0, &one), 0);
	TAP_EQ(one, rest[2]);
	m->ops->ram_put(m, 0, 3, four);
	TAP_EQ(mf_sim_ram_used(m), 5);
	mf_sim_destroy(m);
}

/* R-SCN-25, R-HVO-28 */
TAP_TEST(ram_comes_back_in_pieces_each_of_them_once)
{
	struct mf_sim_config config = {.paging = mf_paging_x86_64(4), .nr_ram_frames = 16};
	struct mf_machine *m;
	mf_pfn_t block;

	TAP_REQUIRE(mf_sim_create(&config, &m) == 0);
	TAP_REQUIRE(m->ops->ram_get(m, 0, 4, &block) == 0);
	m->ops->ram_put(m, 0, 1, block + 6);
	TAP_EQ(mf_sim_ram_used(m), 14);
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 1, block + 6)));
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 0, block + 7)));
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 3, block)));
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 4, block)));
	m->ops->ram_put(m, 0, 3, block + 8);
	m->ops->ram_put(m, 0, 0, block + 5);
	m->ops->ram_put(m, 0, 0, block + 4);
	m->ops->ram_put(m, 0, 2, block);
	TAP_EQ(mf_sim_ram_used(m), 0);
	TAP_EQ(m->ops->ram_get(m, 0, 4, &block), 0);
	mf_sim_destroy(m);
}

TAP_TEST(ram_is_poisoned_on_request)
{
	struct mf_sim_config config = {
		.paging = mf_paging_x86_64(4),
		.nr_ram_frames = 4,
		.flags = MF_SIM_POISON_RAM,
	};
	struct mf_machine *m;
	uint64_t *words;
	mf_pfn_t pfn;

	TAP_REQUIRE(mf_sim_create(&config, &m) == 0);
	TAP_REQUIRE(m->ops->ram_get(m, 0, 1, &pfn) == 0);
	words = mf_machine_frame(m, pfn);
	TAP_EQ(words[0], 0xa5a5a5a5a5a5a5a5);
	TAP_EQ(words[1023], 0xa5a5a5a5a5a5a5a5);
	words[1023] = 0;
	m->ops->ram_put(m, 0, 1, pfn);
	TAP_EQ(words[1023], 0xa5a5a5a5a5a5a5a5);
	mf_sim_destroy(m);
}

TAP_TEST(meta_is_zeroed_aligned_and_counted)
{
	struct mf_sim_stats stats;
	void *piece[8];
	struct mf_machine *m = machine_make();

	TAP_REQUIRE(m != NULL);
	for (size_t i = 0; i < 8; i++) {
		piece[i] = m->ops->meta_alloc(m, 100 * i);
		TAP_REQUIRE(piece[i] != NULL);
		TAP_EQ((uintptr_t)piece[i] % 64, 0);
		for (size_t byte = 0; byte < 100 * i; byte++)
			TAP_EQ(((char *)piece[i])[byte], 0);
		memset(piece[i], 0xff, 100 * i);
	}
	stats = stats_of(m);
	TAP_EQ(stats.nr_meta_used, 8);
	TAP_EQ(stats.meta_used_bytes, 2800);
	TAP_OK(m->ops->meta_alloc(m, SIZE_MAX) == NULL);
	TAP_OK(TAP_PANICS(m->ops->meta_free(m, piece[1], 101)));
	for (size_t i = 0; i < 8; i++)
		m->ops->meta_free(m, piece[i], 100 * i);
	stats = stats_of(m);
	TAP_EQ(stats.nr_meta_used, 0);
	TAP_EQ(stats.meta_used_bytes, 0);
	mf_sim_destroy(m);
}

static bool ram_works(struct mf_machine *m)
{
	mf_pfn_t pfn;

	if (m->ops->ram_get(m, 0, 0, &pfn) != 0)
		return false;
	m->ops->ram_put(m, 0, 0, pfn);
	return true;
}

static bool meta_works(struct mf_machine *m)
{
	void *memory = m->ops->meta_alloc(m, 8);

	if (memory)
		m->ops->meta_free(m, memory, 8);
	return memory != NULL;
}

static bool reserve_works(struct mf_machine *m)
{
	void *base;

	if (m->ops->window_reserve(m, MF_MIB, MF_MIB, &base) != 0)
		return false;
	m->ops->window_release(m, base, MF_MIB);
	return true;
}

/* R-SCN-30 */
TAP_TEST(failures_come_on_demand)
{
	struct mf_sim_stats before, after;
	struct mf_machine *m = machine_make();

	TAP_REQUIRE(m != NULL);
	before = stats_of(m);
	mf_sim_fail_ram(m, 2);
	mf_sim_fail_meta(m, 1);
	TAP_OK(!meta_works(m) && meta_works(m));
	TAP_OK(ram_works(m) && !ram_works(m) && ram_works(m));
	mf_sim_fail_any(m, 3);
	TAP_OK(ram_works(m) && meta_works(m) && !reserve_works(m) && reserve_works(m));
	mf_sim_fail_any(m, 1);
	mf_sim_fail_any(m, 0);
	TAP_OK(ram_works(m));
	after = stats_of(m);
	TAP_EQ(after.ram_calls - before.ram_calls, 5);
	TAP_EQ(after.meta_calls - before.meta_calls, 3);
	TAP_EQ(after.any_calls - before.any_calls, 10);
	TAP_EQ(after.nr_ram_used, before.nr_ram_used);
	mf_sim_destroy(m);
}

TAP_MAIN()
