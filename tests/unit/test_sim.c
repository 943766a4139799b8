/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_sim.c - the sim as a machine: what it refuses to be, its sizes, its windows.  Its memory: test_sim_memory.c; its
 * TLB: test_sim_tlb.c; its faults: test_sim_fault.c.
 */
#include "tests/unit/sim_rig.h"

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
