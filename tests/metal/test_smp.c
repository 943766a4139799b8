/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_smp.c - processors on bare metal: they come up, run work, and drop translations for each other.
 *
 * Owns the last window of the port, with tables of its own: one page there for each CPU, which shows one of a few
 * frames.  A translation is stale when the page still shows the frame it showed before.  Hardware may drop translations
 * whenever it likes; the emulator keeps them, and what it must show then is required.
 */
#include "machines/x86_64/cpu.h"
#include "machines/x86_64/port.h"
#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

#include <stdlib.h>

#define WINDOW (X86_NR_WINDOWS - 1)
#define PRESENT_WRITABLE 0x63 /* accessed and dirty, too                */
#define GLOBAL 0x100          /* survives a load of CR3, as core's do  */

enum {
	WORDS = X86_PAGE / 8,
	CONFIG_SELECT = 0x510,
	CONFIG_DATA = 0x511,
	CONFIG_KEY_NR_CPUS = 5,
	FRAMES = 4, /* of each page: a power of two */
	ROUNDS = 200,
	RACE_VERSIONS = 200,
	SABOTAGED_VERSIONS = 10000000, /* ends when a stale page is seen */
};

static _Alignas(X86_PAGE) uint64_t tables[3][WORDS];
static _Alignas(X86_PAGE) uint64_t frames[X86_CPUS_MAX][FRAMES][WORDS];

static uint64_t paddr_of(const void *in_image)
{
	return (uintptr_t)in_image - X86_IMAGE;
}

static uintptr_t page_of(unsigned cpu)
{
	return X86_WINDOWS + WINDOW * X86_WINDOW_BYTES + (uintptr_t)cpu * X86_PAGE;
}

static uint64_t read_page(unsigned cpu)
{
	return __atomic_load_n((const uint64_t *)page_of(cpu), __ATOMIC_ACQUIRE);
}

/* Nobody is told. */
static void show(unsigned cpu, uint64_t which)
{
	uint64_t entry = paddr_of(frames[cpu][which % FRAMES]) | PRESENT_WRITABLE | GLOBAL;

	__atomic_store_n(&tables[2][cpu], entry, __ATOMIC_RELEASE);
}

static void open_window(void)
{
	tables[0][0] = paddr_of(tables[1]) | PRESENT_WRITABLE;
	tables[1][0] = paddr_of(tables[2]) | PRESENT_WRITABLE;
	for (unsigned cpu = 0; cpu < X86_CPUS_MAX; cpu++) {
		frames[cpu][0][0] = 0;
		frames[cpu][1][0] = 1;
		show(cpu, 0);
	}
	paging_set_window(WINDOW, paddr_of(tables[0]));
	smp_flush(page_of(0), X86_WINDOW_BYTES, MF_FLUSH_TABLES);
}

static void close_window(void)
{
	paging_set_window(WINDOW, 0);
	smp_flush(page_of(0), X86_WINDOW_BYTES, MF_FLUSH_TABLES);
}

/* On one CPU, be it this one. */
static void run_on(unsigned n, void (*work)(void *ctx), void *ctx)
{
	if (n == x86_this_cpu()->number) {
		work(ctx);
		return;
	}
	smp_run(n, work, ctx);
	smp_wait(n);
}

/* On all CPUs at once; items of `size` bytes, one for each. */
static void run_on_all(void (*work)(void *ctx), void *items, size_t size)
{
	for (unsigned n = 1; n < x86_nr_cpus; n++)
		smp_run(n, work, (char *)items + n * size);
	work(items);
	for (unsigned n = 1; n < x86_nr_cpus; n++)
		smp_wait(n);
}

/* ---- Coming up ------------------------------------------------------------------------------------------------- */

/* Asked of the emulator, by a way that the port takes only where there are no tables. */
TAP_TEST(smp_brings_up_every_processor)
{
	char told[5] = "", count[2];

	port_write16(CONFIG_SELECT, 0);
	for (unsigned i = 0; i < 4; i++)
		told[i] = (char)port_read8(CONFIG_DATA);
	if (!tap_contains(told, "QEMU"))
		TAP_SKIP("no configuration device to ask");
	port_write16(CONFIG_SELECT, CONFIG_KEY_NR_CPUS);
	for (unsigned i = 0; i < 2; i++)
		count[i] = (char)port_read8(CONFIG_DATA);
	TAP_EQ(x86_nr_cpus, (uint8_t)count[0] | (unsigned)(uint8_t)count[1] << 8);
}

struct self {
	unsigned number;
	uint32_t apic;
	uintptr_t stack;
	uint64_t cr0, cr3, cr4, efer, flags;
	const struct x86_cpu *record;
};

static void look_at_self(void *ctx)
{
	struct self *self = ctx;

	*self = (struct self){
		.number = x86_this_cpu()->number,
		.apic = apic_id(),
		.stack = (uintptr_t)__builtin_frame_address(0),
		.cr0 = cpu_cr0(),
		.cr3 = cpu_cr3(),
		.cr4 = cpu_cr4(),
		.efer = cpu_msr(CPU_MSR_EFER),
		.flags = cpu_flags(),
		.record = x86_this_cpu(),
	};
}

TAP_TEST(smp_gives_each_processor_its_own_and_the_same_control_registers)
{
	static struct self selves[X86_CPUS_MAX];

	run_on_all(look_at_self, selves, sizeof(selves[0]));
	for (unsigned n = 0; n < x86_nr_cpus; n++) {
		const struct self *self = &selves[n];

		TAP_EQ(self->number, n);
		TAP_EQ(self->apic, x86_cpus[n].apic_id);
		TAP_OK(self->record == &x86_cpus[n]);
		TAP_OK(self->stack <= x86_cpus[n].stack_top && x86_cpus[n].stack_top - self->stack < X86_STACK_BYTES);
		TAP_EQ(self->cr0, selves[0].cr0);
		TAP_EQ(self->cr3, paging_root());
		TAP_EQ(self->cr4, selves[0].cr4);
		TAP_EQ(self->efer, selves[0].efer);
		TAP_OK(self->flags & CPU_RFLAGS_IF);
		for (unsigned other = 0; other < n; other++) {
			TAP_OK(self->apic != selves[other].apic);
			TAP_OK(x86_cpus[n].stack_top != x86_cpus[other].stack_top);
		}
	}
}

static void add_one(void *ctx)
{
	(void)__atomic_fetch_add((uint64_t *)ctx, 1, __ATOMIC_RELAXED);
}

TAP_TEST(smp_runs_work_once_each_time)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < ROUNDS; i++)
		for (unsigned n = 1; n < x86_nr_cpus; n++)
			run_on(n, add_one, &sum);
	TAP_EQ(sum, (uint64_t)ROUNDS * (x86_nr_cpus - 1));
	for (unsigned i = 0; i < ROUNDS; i++)
		run_on_all(add_one, &sum, 0);
	TAP_EQ(sum, (uint64_t)ROUNDS * (2 * x86_nr_cpus - 1));
}

TAP_TEST(smp_refuses_work_for_oneself_and_for_nobody)
{
	uint64_t sum = 0;

	TAP_OK(TAP_PANICS(smp_run(x86_this_cpu()->number, add_one, &sum)));
	TAP_OK(TAP_PANICS(smp_run(x86_nr_cpus, add_one, &sum)));
	TAP_EQ(sum, 0);
}

/* ---- One at a time --------------------------------------------------------------------------------------------- */

/* From `offset` in the window; `page` changes before. */
struct flush {
	uintptr_t offset;
	uint64_t size_bytes;
	enum mf_flush_scope scope;
	unsigned page;
};

static void do_flush(void *ctx)
{
	const struct flush *flush = ctx;

	smp_flush(page_of(0) + flush->offset, flush->size_bytes, flush->scope);
}

static void do_flush_with_interrupts_off(void *ctx)
{
	uint64_t flags = cpu_interrupts_off();

	do_flush(ctx);
	cpu_interrupts_restore(flags);
}

struct reader {
	unsigned page;
	uint64_t value;
};

static void read_one_page(void *ctx)
{
	struct reader *reader = ctx;

	reader->value = read_page(reader->page);
}

static unsigned nr_that_read(unsigned page, uint64_t expected)
{
	unsigned nr = 0;

	for (unsigned n = 0; n < x86_nr_cpus; n++) {
		struct reader reader = {.page = page};

		run_on(n, read_one_page, &reader);
		nr += reader.value == expected;
	}
	return nr;
}

/* A page changes what it shows, CPU `by` works on the flush; how many CPUs see the change. */
static unsigned nr_that_see_change(unsigned by, void (*work)(void *ctx), const struct flush *flush)
{
	struct flush copy = *flush;
	unsigned nr;

	show(flush->page, 0);
	smp_flush(page_of(flush->page), X86_PAGE, MF_FLUSH_LEAVES);
	TAP_EQ(nr_that_read(flush->page, 0), x86_nr_cpus);
	show(flush->page, 1);
	run_on(by, work, &copy);
	nr = nr_that_read(flush->page, 1);
	show(flush->page, 0);
	smp_flush(page_of(flush->page), X86_PAGE, MF_FLUSH_LEAVES);
	return nr;
}

/* A page; as many as are dropped singly, or one more, also where they begin within a page; much; tables. */
static const struct flush flushes[] = {
	{0, X86_PAGE, MF_FLUSH_LEAVES, 0},
	{0, 1, MF_FLUSH_LEAVES, 0},
	{0, 8 * X86_PAGE, MF_FLUSH_LEAVES, 7},
	{X86_PAGE - 8, 16, MF_FLUSH_LEAVES, 0},
	{X86_PAGE - 8, 16, MF_FLUSH_LEAVES, 1},
	{0, 32 * X86_PAGE, MF_FLUSH_LEAVES, 31},
	{8, 32 * X86_PAGE, MF_FLUSH_LEAVES, 0},
	{8, 32 * X86_PAGE, MF_FLUSH_LEAVES, 32},
	{0, 33 * X86_PAGE, MF_FLUSH_LEAVES, 32},
	{0, X86_WINDOW_BYTES, MF_FLUSH_LEAVES, 0},
	{0, X86_PAGE, MF_FLUSH_TABLES, 0},
	{0, 512 * X86_PAGE, MF_FLUSH_TABLES, 63},
};

enum { NR_FLUSHES = sizeof(flushes) / sizeof(flushes[0]) };

TAP_TEST(smp_flush_reaches_every_processor_from_every_processor)
{
	open_window();
	for (unsigned i = 0; i < NR_FLUSHES; i++)
		for (unsigned by = 0; by < x86_nr_cpus; by++) {
			TAP_EQ(nr_that_see_change(by, do_flush, &flushes[i]), x86_nr_cpus);
			TAP_EQ(nr_that_see_change(by, do_flush_with_interrupts_off, &flushes[i]), x86_nr_cpus);
		}
	close_window();
}

static bool leave_others_alone(uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	(void)start;
	(void)size_bytes;
	(void)scope;
	return true;
}

static void do_sabotaged_flush(void *ctx)
{
	smp_flush_sabotage = leave_others_alone;
	do_flush(ctx);
	smp_flush_sabotage = NULL;
}

/* Else the test above would show nothing: the CPU that flushes sees the change, and nobody else. */
TAP_TEST(smp_flush_left_out_leaves_stale_translations)
{
	open_window();
	for (unsigned i = 0; i < NR_FLUSHES; i++)
		for (unsigned by = 0; by < x86_nr_cpus; by++)
			TAP_EQ(nr_that_see_change(by, do_sabotaged_flush, &flushes[i]), 1);
	close_window();
}

static void do_nothing(void *ctx)
{
	(void)ctx;
}

TAP_TEST(smp_flush_not_asked_for_leaves_stale_translations)
{
	open_window();
	TAP_EQ(nr_that_see_change(0, do_nothing, &flushes[0]), 0);
	close_window();
}

/* Another page's translation stays; so a flush of a page is one of that page, not of everything. */
TAP_TEST(smp_flush_of_a_page_leaves_others)
{
	struct flush next = {X86_PAGE, X86_PAGE, MF_FLUSH_LEAVES, 0};

	open_window();
	for (unsigned by = 0; by < x86_nr_cpus; by++)
		TAP_EQ(nr_that_see_change(by, do_flush, &next), 0);
	close_window();
}

static uint64_t nr_served(void)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < x86_nr_cpus; n++)
		sum += __atomic_load_n(&x86_cpus[n].nr_ipis_served, __ATOMIC_RELAXED);
	return sum;
}

TAP_TEST(smp_flush_counts_what_it_sends_and_serves)
{
	struct flush flush = {0, X86_PAGE, MF_FLUSH_LEAVES, 0};

	for (unsigned by = 0; by < x86_nr_cpus; by++) {
		struct x86_cpu before = x86_cpus[by];
		uint64_t served = nr_served();

		run_on(by, do_flush, &flush);
		TAP_EQ(x86_cpus[by].nr_flushes - before.nr_flushes, 1);
		TAP_EQ(x86_cpus[by].nr_ipis_sent - before.nr_ipis_sent, x86_nr_cpus - 1);
		TAP_EQ(x86_cpus[by].nr_ipis_served, before.nr_ipis_served);
		TAP_EQ(nr_served() - served, x86_nr_cpus - 1);
	}
}

/* ---- At once --------------------------------------------------------------------------------------------------- */

static bool goes_on; /* atomic */

/* As mf_machine_ops.relax does, and nothing but that ends it. */
static void wait_with_interrupts_off(void *ctx)
{
	uint64_t flags = cpu_interrupts_off();

	*(bool *)ctx = true;
	while (__atomic_load_n(&goes_on, __ATOMIC_ACQUIRE)) {
		smp_serve_flush();
		cpu_pause();
	}
	cpu_interrupts_restore(flags);
}

TAP_TEST(smp_flush_is_served_by_who_waits_with_interrupts_off)
{
	uint64_t served = nr_served();
	bool is_waiting = false;

	if (x86_nr_cpus == 1)
		TAP_SKIP("one CPU");
	__atomic_store_n(&goes_on, true, __ATOMIC_RELEASE);
	smp_run(1, wait_with_interrupts_off, &is_waiting);
	while (!__atomic_load_n(&is_waiting, __ATOMIC_ACQUIRE))
		cpu_pause();
	for (unsigned i = 0; i < ROUNDS; i++)
		smp_flush(page_of(0), X86_PAGE, MF_FLUSH_LEAVES);
	__atomic_store_n(&goes_on, false, __ATOMIC_RELEASE);
	smp_wait(1);
	TAP_EQ(nr_served() - served, (uint64_t)ROUNDS * (x86_nr_cpus - 1));
}

/*
 * Each CPU has a page.  A version of it is written to a frame that the page has not shown for long, then the page shows
 * that frame, everybody is flushed, and then the version is announced: from now on nobody may read an older one.
 */
struct racer {
	_Alignas(64) uint64_t announced; /* atomic */
	uint64_t nr_stale;
};

/* Of one race; the last two are atomic. */
static struct {
	uint64_t nr_versions;
	bool has_interrupts_off_at_times;
	unsigned nr_at_start;
	bool is_lost;
} race_now;

static struct racer racers[X86_CPUS_MAX];

static void change_own_page(struct racer *racer, unsigned own, uint64_t version)
{
	bool is_off = race_now.has_interrupts_off_at_times && version % 3 != 0;
	uint64_t flags = is_off ? cpu_interrupts_off() : 0;

	if (is_off)
		cpu_pause(); /* others ask meanwhile: an emulator that runs one at a time changes over here */
	__atomic_store_n(&frames[own][version % FRAMES][0], version, __ATOMIC_RELEASE);
	show(own, version);
	smp_flush(page_of(own), version % 64 == 0 ? 64 * X86_PAGE : X86_PAGE,
		  version % 16 == 0 ? MF_FLUSH_TABLES : MF_FLUSH_LEAVES);
	__atomic_store_n(&racer->announced, version, __ATOMIC_RELEASE);
	cpu_interrupts_restore(flags);
}

static void race(void *ctx)
{
	struct racer *racer = ctx;
	unsigned own = x86_this_cpu()->number;

	(void)__atomic_fetch_add(&race_now.nr_at_start, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&race_now.nr_at_start, __ATOMIC_ACQUIRE) < x86_nr_cpus)
		cpu_pause();
	for (uint64_t i = 0; i < race_now.nr_versions && !__atomic_load_n(&race_now.is_lost, __ATOMIC_RELAXED); i++) {
		change_own_page(racer, own, 2 + i);
		for (unsigned other = 0; other < x86_nr_cpus; other++) {
			uint64_t announced = __atomic_load_n(&racers[other].announced, __ATOMIC_ACQUIRE);

			racer->nr_stale += read_page(other) < announced;
		}
		if (racer->nr_stale > 0)
			__atomic_store_n(&race_now.is_lost, true, __ATOMIC_RELAXED);
	}
}

/* "versions=N" in the command line: what a flush takes depends on how many processors the emulator itself has. */
static uint64_t nr_race_versions(void)
{
	char value[24];

	return boot_option("versions", value, sizeof(value)) ? strtoull(value, NULL, 10) : RACE_VERSIONS;
}

/* How often somebody read an old version. */
static uint64_t race_all(uint64_t nr_versions, bool has_interrupts_off_at_times)
{
	uint64_t nr_stale = 0;

	open_window();
	race_now.nr_versions = nr_versions;
	race_now.has_interrupts_off_at_times = has_interrupts_off_at_times;
	race_now.nr_at_start = 0;
	race_now.is_lost = false;
	for (unsigned n = 0; n < x86_nr_cpus; n++)
		racers[n] = (struct racer){0};
	run_on_all(race, racers, sizeof(racers[0]));
	for (unsigned n = 0; n < x86_nr_cpus; n++)
		nr_stale += racers[n].nr_stale;
	close_window();
	return nr_stale;
}

static uint64_t nr_sent(void)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < x86_nr_cpus; n++)
		sum += x86_cpus[n].nr_ipis_sent;
	return sum;
}

TAP_TEST(smp_flush_from_all_at_once)
{
	uint64_t nr_flushes = x86_nr_cpus * nr_race_versions() + 2; /* the window is opened and closed, too */
	uint64_t nr = nr_flushes * (x86_nr_cpus - 1);
	uint64_t served = nr_served(), sent = nr_sent();

	TAP_EQ(race_all(nr_race_versions(), false), 0);
	TAP_EQ(nr_served() - served, nr);
	TAP_OK(nr_sent() - sent <= nr);
	TAP_NOTE("%llu of %llu requests had an interrupt of their own", (unsigned long long)(nr_sent() - sent),
		 (unsigned long long)nr);
}

TAP_TEST(smp_flush_from_all_at_once_with_interrupts_off_at_times)
{
	TAP_EQ(race_all(nr_race_versions(), true), 0);
}

TAP_TEST(smp_race_sees_flushes_left_out)
{
	if (x86_nr_cpus == 1)
		TAP_SKIP("one CPU");
	smp_flush_sabotage = leave_others_alone;
	TAP_OK(race_all(SABOTAGED_VERSIONS, false) > 0);
	smp_flush_sabotage = NULL;
}

TAP_MAIN()
