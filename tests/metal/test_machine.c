/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_machine.c - struct mf_machine on bare metal, operation by operation, as the core calls them.
 */
#include "machines/x86_64/cpu.h"
#include "tests/metal/machine_rig.h"

#include <string.h>

enum { POISON = 0xA5 };

/* ---- Creation ---------------------------------------------------------------------------------------------------- */

static struct boot_range image(void)
{
	unsigned i = 0;

	while (boot_map.range[i].kind != BOOT_IMAGE)
		i++;
	return boot_map.range[i];
}

TAP_TEST(machine_refuses_what_cannot_be)
{
	struct x86_machine_config good = config_usual(), bad[9];
	struct mf_machine *m = NULL, *other;
	unsigned nr = 0;

	for (unsigned i = 0; i < 9; i++)
		bad[i] = good;
	bad[nr++].first_paddr += X86_PAGE;
	bad[nr++].first_paddr = mf_round_up(good.ram_end, MF_GIB);
	bad[nr++].ram_end = good.ram_start;
	bad[nr++].ram_end = good.ram_start - X86_PAGE;
	bad[nr++].ram_start += 8;
	bad[nr++].ram_end -= 8;
	bad[nr++].ram_start = image().start; /* with what is no RAM */
	bad[nr++] = (struct x86_machine_config){.ram_start = image().start, .ram_end = image().end};
	bad[nr].ram_start = (uint64_t)1 << 60;
	bad[nr++].ram_end = ((uint64_t)1 << 60) + MF_MIB;
	for (unsigned i = 0; i < nr; i++)
		TAP_EQ(x86_machine_create(&bad[i], &m), -MF_EINVAL);
	TAP_OK(m == NULL);

	TAP_REQUIRE(x86_machine_create(&good, &m) == 0);
	TAP_EQ(x86_machine_create(&good, &other), -MF_EINVAL); /* that RAM is taken */
	good.ram_start -= X86_PAGE;
	TAP_EQ(x86_machine_create(&good, &other), -MF_EINVAL);
	good.ram_end -= RAM_FRAMES * X86_PAGE;
	TAP_EQ(x86_machine_create(&good, &other), 0);
	x86_machine_destroy(other);
	x86_machine_destroy(m);
}

TAP_TEST(machine_says_what_it_is)
{
	struct x86_machine_config config = config_usual();
	uint64_t before = heap_used();
	struct mf_machine *m;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	TAP_EQ(m->nr_cpus, x86_nr_cpus);
	TAP_EQ(m->ops->cpu(m), x86_this_cpu()->number);
	TAP_EQ(m->paging.levels, 3);
	TAP_EQ(m->paging.frame0, config.first_paddr);
	TAP_OK(mf_machine_frame(m, pfn_of(m, config.ram_start)) == x86_direct(config.ram_start));
	TAP_OK(m->backing == MF_WINDOW_TABLES && m->unbacked == MF_UNBACKED_ZERO);
	x86_machine_destroy(m);
	TAP_EQ(heap_used(), before);
}

/* ---- RAM and control memory -------------------------------------------------------------------------------------- */

TAP_TEST(machine_has_ram_of_every_order_and_no_more_than_it_was_given)
{
	struct x86_machine_config config = config_usual();
	static mf_pfn_t pfn[RAM_FRAMES + 1];
	struct mf_machine *m;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	for (unsigned order = 0; order <= 11; order++) {
		unsigned nr = 0;

		while (nr <= RAM_FRAMES && m->ops->ram_get(m, 0, order, &pfn[nr]) == 0) {
			unsigned char *bytes = mf_machine_frame(m, pfn[nr]);

			TAP_OK(pfn[nr] % ((mf_pfn_t)1 << order) == 0 && pfn[nr] >= pfn_of(m, config.ram_start) &&
			       pfn[nr] + ((mf_pfn_t)1 << order) <= pfn_of(m, config.ram_end));
			TAP_OK(bytes[0] == POISON && bytes[((size_t)X86_PAGE << order) - 1] == POISON);
			bytes[0] = 1;
			nr++;
		}
		TAP_OK(order > 0 || nr == RAM_FRAMES);
		TAP_EQ(stats_of(m).nr_ram_used, (uint64_t)nr << order);
		TAP_EQ(m->ops->ram_get(m, 0, order, &pfn[nr]), -MF_ENOMEM);
		while (nr-- > 0) {
			m->ops->ram_put(m, 0, order, pfn[nr]);
			TAP_EQ(*(unsigned char *)mf_machine_frame(m, pfn[nr]), POISON);
		}
		TAP_EQ(stats_of(m).nr_ram_used, 0);
	}
	TAP_OK(TAP_PANICS(m->ops->ram_put(m, 0, 0, pfn_of(m, config.ram_start))));
	x86_machine_destroy(m);
}

TAP_TEST(machine_has_control_memory)
{
	struct x86_machine_config config = config_usual();
	struct mf_machine *m;
	unsigned char *a, *b;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	a = m->ops->meta_alloc(m, 5000);
	TAP_REQUIRE(a && (uintptr_t)a % 64 == 0);
	memset(a, 0xff, 5000);
	m->ops->meta_free(m, a, 5000);
	b = m->ops->meta_alloc(m, 5000);
	TAP_REQUIRE(b && b[0] == 0 && b[4999] == 0);
	TAP_EQ(stats_of(m).nr_meta_used, 1);
	m->ops->meta_free(m, b, 5000);
	TAP_EQ(stats_of(m).nr_meta_used, 0);
	TAP_OK(m->ops->meta_alloc(m, (size_t)1 << 60) == NULL);
	TAP_EQ(stats_of(m).nr_meta_used, 0);
	x86_machine_destroy(m);
}

TAP_TEST(machine_fails_on_demand_once)
{
	struct x86_machine_config config = config_usual();
	struct mf_machine *m;
	mf_pfn_t pfn[3];
	void *memory;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	x86_machine_fail_ram(m, 2);
	TAP_EQ(m->ops->ram_get(m, 0, 0, &pfn[0]), 0);
	memory = m->ops->meta_alloc(m, 64);
	TAP_OK(memory != NULL);
	TAP_EQ(m->ops->ram_get(m, 0, 0, &pfn[1]), -MF_ENOMEM);
	TAP_EQ(m->ops->ram_get(m, 0, 0, &pfn[1]), 0);
	x86_machine_fail_any(m, 2);
	TAP_EQ(m->ops->ram_get(m, 0, 0, &pfn[2]), 0);
	TAP_OK(m->ops->meta_alloc(m, 64) == NULL);
	x86_machine_fail_any(m, 1);
	x86_machine_fail_any(m, 0);
	m->ops->meta_free(m, memory, 64);
	for (unsigned i = 0; i < 3; i++)
		m->ops->ram_put(m, 0, 0, pfn[i]);
	x86_machine_destroy(m);
}

TAP_TEST(machine_protects_single_frames)
{
	struct x86_machine_config config = config_usual();
	struct mf_machine *m;
	mf_pfn_t pfn;
	char *frames;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	TAP_REQUIRE(m->ops->ram_get(m, 0, 2, &pfn) == 0);
	frames = mf_machine_frame(m, pfn);
	m->ops->direct_protect(m, pfn + 1, false);
	TAP_OK(is_read_only(frames + X86_PAGE) && is_read_only(frames + 2 * X86_PAGE - 8));
	write_to(frames + X86_PAGE - 8);
	write_to(frames + 2 * X86_PAGE);
	m->ops->direct_protect(m, pfn + 1, true);
	write_to(frames + X86_PAGE);
	m->ops->ram_put(m, 0, 2, pfn);
	x86_machine_destroy(m);
}

TAP_TEST(machine_knows_where_data_is)
{
	struct x86_machine_config config = config_usual();
	struct boot_range ram = largest_ram();
	mf_pfn_t first, last;
	struct mf_machine *m;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	first = pfn_of(m, ram.start);
	last = pfn_of(m, boot_map.range[boot_map.nr - 1].end) - 1;
	TAP_OK(m->ops->data(m, first, 1) == x86_direct(ram.start));
	TAP_OK(m->ops->data(m, first, (ram.end - ram.start) >> X86_PAGE_SHIFT) == x86_direct(ram.start));
	write_to(m->ops->data(m, first, 1));
	TAP_OK(m->ops->data(m, last, 1) != NULL);
	TAP_OK(m->ops->data(m, last, 2) == NULL);
	TAP_OK(m->ops->data(m, last + 1, 1) == NULL);
	TAP_OK(m->ops->data(m, (mf_pfn_t)-1, 2) == NULL && m->ops->data(m, first, (uint64_t)-1) == NULL);
	TAP_OK(m->ops->data(m, (mf_pfn_t)1 << 52, 1) == NULL);
	x86_machine_destroy(m);
}

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

TAP_TEST(machine_gives_windows_of_half_a_tib)
{
	struct x86_machine_config config = config_usual();
	void *base[X86_NR_WINDOWS + 1];
	struct mf_machine *m;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	for (unsigned i = 0; i < X86_NR_WINDOWS; i++) {
		TAP_REQUIRE(m->ops->window_reserve(m, MF_GIB, X86_WINDOW_BYTES, &base[i]) == 0);
		TAP_EQ((uintptr_t)base[i] % X86_WINDOW_BYTES, 0);
		for (unsigned k = 0; k < i; k++)
			TAP_OK(base[k] != base[i]);
		TAP_OK(is_absent(base[i]));
	}
	TAP_EQ(m->ops->window_reserve(m, MF_GIB, X86_PAGE, &base[X86_NR_WINDOWS]), -MF_ENOMEM);
	m->ops->window_release(m, base[3], MF_GIB);
	TAP_OK(TAP_PANICS(m->ops->window_release(m, base[3], MF_GIB)));
	TAP_OK(TAP_PANICS(m->ops->window_release(m, base[4], 2 * MF_GIB)));
	TAP_OK(TAP_PANICS(m->ops->window_attach(m, (char *)base[4] + X86_PAGE, MF_GIB, 5)));
	TAP_EQ(m->ops->window_reserve(m, X86_WINDOW_BYTES + X86_PAGE, X86_PAGE, &base[3]), -MF_ENOMEM);
	TAP_EQ(m->ops->window_reserve(m, MF_GIB, 2 * X86_WINDOW_BYTES, &base[3]), -MF_ENOMEM);
	TAP_EQ(m->ops->window_reserve(m, X86_WINDOW_BYTES, X86_PAGE, &base[3]), 0);
	/* What is left is the machine's to release. */
	x86_machine_destroy(m);
}

struct look {
	void *at;
	bool is_absent;
};

static void look(void *ctx)
{
	struct look *l = ctx;

	l->is_absent = is_absent(l->at);
}

/* On every CPU; true when all say this. */
static bool all_see(void *at, bool absent)
{
	bool good = is_absent(at) == absent;

	for (unsigned n = 1; n < x86_nr_cpus; n++) {
		struct look l = {.at = at};

		smp_run(n, look, &l);
		smp_wait(n);
		good &= l.is_absent == absent;
	}
	return good;
}

/* Tables by hand: a page at the start of the window, global as the core's are, that each CPU has read. */
TAP_TEST(machine_takes_a_window_away_from_every_processor)
{
	struct x86_machine_config config = config_usual();
	struct mf_machine *m;
	mf_pfn_t pfn[4];
	void *base;

	TAP_REQUIRE(x86_machine_create(&config, &m) == 0);
	for (unsigned i = 0; i < 4; i++) {
		TAP_REQUIRE(m->ops->ram_get(m, 0, 0, &pfn[i]) == 0);
		memset(mf_machine_frame(m, pfn[i]), 0, X86_PAGE);
	}
	for (unsigned i = 0; i < 3; i++)
		*(uint64_t *)mf_machine_frame(m, pfn[i]) =
			(m->paging.frame0 + (pfn[i + 1] << X86_PAGE_SHIFT)) |
			(i < 2 ? m->paging.table_bits : m->paging.leaf_bits | m->paging.write_set);
	TAP_REQUIRE(m->ops->window_reserve(m, X86_PAGE, X86_PAGE, &base) == 0);
	TAP_OK(all_see(base, true));
	m->ops->window_attach(m, base, X86_PAGE, pfn[0]);
	TAP_OK(all_see(base, false));
	write_to(base);
	TAP_EQ(*(uint64_t *)mf_machine_frame(m, pfn[3]), 1);
	m->ops->window_release(m, base, X86_PAGE);
	TAP_OK(all_see(base, true));
	for (unsigned i = 0; i < 4; i++)
		m->ops->ram_put(m, 0, 0, pfn[i]);
	x86_machine_destroy(m);
}

/* ---- Several processors ------------------------------------------------------------------------------------------ */

struct waiter {
	struct mf_machine *m;
	unsigned cpu;    /* what the machine says */
	bool is_waiting; /* atomic */
	bool goes_on;    /* atomic */
};

/* With interrupts off, in a loop as the core has them. */
static void wait_in_relax(void *ctx)
{
	struct waiter *waiter = ctx;
	uint64_t flags = cpu_interrupts_off();

	waiter->cpu = waiter->m->ops->cpu(waiter->m);
	__atomic_store_n(&waiter->is_waiting, true, __ATOMIC_RELEASE);
	while (__atomic_load_n(&waiter->goes_on, __ATOMIC_ACQUIRE))
		waiter->m->ops->relax(waiter->m);
	cpu_interrupts_restore(flags);
}

TAP_TEST(relax_answers_flushes_with_interrupts_off)
{
	struct x86_machine_config config = config_usual();
	struct waiter waiter = {.goes_on = true};

	if (x86_nr_cpus == 1)
		TAP_SKIP("one CPU");
	TAP_REQUIRE(x86_machine_create(&config, &waiter.m) == 0);
	smp_run(1, wait_in_relax, &waiter);
	while (!__atomic_load_n(&waiter.is_waiting, __ATOMIC_ACQUIRE))
		cpu_pause();
	TAP_EQ(waiter.cpu, 1);
	for (unsigned i = 0; i < 100; i++)
		waiter.m->ops->flush(waiter.m, X86_WINDOWS, X86_PAGE, MF_FLUSH_LEAVES);
	TAP_EQ(stats_of(waiter.m).nr_flushes, 100);
	TAP_EQ(stats_of(waiter.m).nr_flushed_bytes, 100 * X86_PAGE);
	__atomic_store_n(&waiter.goes_on, false, __ATOMIC_RELEASE);
	smp_wait(1);
	x86_machine_destroy(waiter.m);
}

TAP_MAIN()
