/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_paging.c - the kernel's own translations on bare metal, all of them, and single frames made read-only.
 *
 * Owns nothing: it reads every table from the root, and protects frames of RAM that nobody has, whose contents it gives
 * back.
 */
#include "machines/x86_64/cpu.h"
#include "machines/x86_64/paging.h"
#include "tests/tap.h"

enum { PLENTY = 160 }; /* frames: more than there are tables to protect them one by one */

/* ---- All translations -------------------------------------------------------------------------------------------- */

typedef void (*visit_fn)(void *ctx, uintptr_t va, uint64_t entry, unsigned level);

static uintptr_t canonical(uintptr_t va)
{
	unsigned unused = 64 - (X86_PAGE_SHIFT + BITS_PER_LEVEL * x86_features.levels);

	return (uintptr_t)((intptr_t)(va << unused) >> unused);
}

static void visit_table(const uint64_t *table, uintptr_t base, unsigned level, visit_fn visit, void *ctx)
{
	for (unsigned i = 0; i < ENTRIES; i++) {
		uintptr_t va = canonical(base + i * entry_span(level));

		if (!(table[i] & ENTRY_PRESENT))
			continue;
		if (entry_is_leaf(table[i], level))
			visit(ctx, va, table[i], level);
		else
			visit_table(entry_table(table[i]), va, level - 1, visit, ctx);
	}
}

static void visit_all(visit_fn visit, void *ctx)
{
	visit_table(x86_direct(paging_root()), 0, x86_features.levels - 1, visit, ctx);
}

static void check_leaf(void *ctx, uintptr_t va, uint64_t entry, unsigned level)
{
	bool is_executable = !(entry & ENTRY_NO_EXECUTE);
	bool is_text = va >= (uintptr_t)x86_text_start && va + entry_span(level) <= (uintptr_t)x86_text_end;
	bool was_right = !tap_state.failed;

	++*(uint64_t *)ctx;
	TAP_OK(is_executable == is_text);
	TAP_OK(!(is_executable && entry & ENTRY_WRITE));
	TAP_OK(entry & ENTRY_ACCESSED);
	TAP_OK(!(entry & ENTRY_WRITE) == !(entry & ENTRY_DIRTY));
	TAP_OK(entry & ENTRY_GLOBAL);
	TAP_OK(va >= X86_DIRECT);
	if (was_right && tap_state.failed)
		TAP_NOTE("0x%llx: entry 0x%llx at level %u", (unsigned long long)va, (unsigned long long)entry, level);
}

TAP_TEST(paging_nothing_is_writable_and_executable)
{
	uint64_t nr = 0;

	visit_all(check_leaf, &nr);
	TAP_OK(nr > 0);
}

/* ---- The direct map ---------------------------------------------------------------------------------------------- */

enum protection { HOLE, READ_ONLY, WRITABLE };

static enum protection protection_of(const struct boot_range *range, uint64_t paddr)
{
	if (range->kind == BOOT_FIRMWARE)
		return READ_ONLY;
	return range->kind == BOOT_IMAGE && paddr < (uintptr_t)x86_rodata_end - X86_IMAGE ? READ_ONLY : WRITABLE;
}

/* HOLE also where it is not the same in all of [start, end). */
static enum protection wanted(uint64_t start, uint64_t end)
{
	enum protection all = HOLE;

	for (unsigned i = 0; i < boot_map.nr && start < end; i++) {
		const struct boot_range *range = &boot_map.range[i];
		uint64_t upto = mf_min(end, range->end);

		if (range->end <= start)
			continue;
		if (range->start > start || protection_of(range, start) != protection_of(range, upto - 1) ||
		    (all != HOLE && all != protection_of(range, start)))
			return HOLE;
		all = protection_of(range, start);
		start = upto;
	}
	return start < end ? HOLE : all;
}

struct direct {
	uint64_t nr_bytes, nr_leaves[3];
};

static void check_direct_leaf(void *ctx, uintptr_t va, uint64_t entry, unsigned level)
{
	unsigned top = x86_features.has_1gib ? 2 : 1;
	uint64_t paddr = va - X86_DIRECT, above = mf_round_down(paddr, entry_span(level + 1));
	struct direct *direct = ctx;

	if (va < X86_DIRECT || va >= X86_WINDOWS)
		return;
	TAP_OK(level <= top);
	direct->nr_bytes += entry_span(level);
	direct->nr_leaves[level]++;
	TAP_EQ(entry & ENTRY_ADDRESS & ~(entry_span(level) - 1), paddr);
	TAP_EQ(wanted(paddr, paddr + entry_span(level)), entry & ENTRY_WRITE ? WRITABLE : READ_ONLY);
	/* A larger leaf would have shown a hole, or two protections in one. */
	if (level < top)
		TAP_EQ(wanted(above, above + entry_span(level + 1)), HOLE);
}

TAP_TEST(paging_direct_map_shows_all_memory_in_the_largest_leaves_and_no_hole)
{
	struct direct direct = {0};
	uint64_t nr_bytes = 0;

	for (unsigned i = 0; i < boot_map.nr; i++)
		nr_bytes += boot_map.range[i].end - boot_map.range[i].start;
	visit_all(check_direct_leaf, &direct);
	TAP_EQ(direct.nr_bytes, nr_bytes);
	TAP_NOTE("%llu leaves of 1 GiB, %llu of 2 MiB, %llu of 4 KiB", (unsigned long long)direct.nr_leaves[2],
		 (unsigned long long)direct.nr_leaves[1], (unsigned long long)direct.nr_leaves[0]);
}

/* ---- Every processor --------------------------------------------------------------------------------------------- */

static void check_cpu(void *ctx)
{
	(void)ctx;
	TAP_EQ(cpu_cr3(), paging_root());
	TAP_OK(cpu_cr0() >> 16 & 1);                                   /* WP  */
	TAP_OK(cpu_msr(CPU_MSR_EFER) >> 11 & 1);                       /* NXE */
	TAP_EQ(cpu_cr4() & CPU_CR4_PGE, x86_features.has_global ? CPU_CR4_PGE : 0);
	TAP_EQ(cpu_cr4() >> 12 & 1, x86_features.levels == 5);         /* LA57 */
	TAP_OK(x86_this_cpu()->self == x86_this_cpu());
	TAP_OK((uintptr_t)__builtin_frame_address(0) < x86_this_cpu()->stack_top);
	TAP_OK((uintptr_t)__builtin_frame_address(0) >= x86_this_cpu()->stack_top - X86_STACK_BYTES);
}

TAP_TEST(paging_every_cpu_protects)
{
	check_cpu(NULL);
	for (unsigned n = 1; n < x86_nr_cpus; n++) {
		smp_run(n, check_cpu, NULL);
		smp_wait(n);
	}
}

/* ---- Single frames ----------------------------------------------------------------------------------------------- */

/* The n-th block of 2 MiB of RAM that nobody has. */
static uint64_t block_of_ram(unsigned n)
{
	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *range = &boot_map.range[i];
		uint64_t start = mf_round_up(range->start, entry_span(1));

		if (range->kind != BOOT_RAM)
			continue;
		for (; start + entry_span(1) <= range->end; start += entry_span(1))
			if (n-- == 0)
				return start;
	}
	return 0;
}

struct touch {
	uint64_t paddr;
	bool is_written;
};

/* Writes what is there: the frame stays as it is. */
static void rewrite(void *ctx)
{
	volatile uint64_t *at = ctx;

	*at = *at;
}

static void try_to_write(void *ctx)
{
	struct touch *touch = ctx;
	struct x86_fault fault;

	touch->is_written = !x86_expect_fault(rewrite, x86_direct(touch->paddr), &fault);
}

static bool is_writable(uint64_t paddr)
{
	struct touch touch = {.paddr = paddr};

	try_to_write(&touch);
	return touch.is_written;
}

/* On every CPU, each of which holds a translation afterwards. */
static void check_everywhere(uint64_t paddr, bool writable)
{
	TAP_EQ(is_writable(paddr), writable);
	for (unsigned n = 1; n < x86_nr_cpus; n++) {
		struct touch touch = {.paddr = paddr};

		smp_run(n, try_to_write, &touch);
		smp_wait(n);
		TAP_EQ(touch.is_written, writable);
	}
}

TAP_TEST(protect_one_frame_and_no_neighbour)
{
	uint64_t block = block_of_ram(0), frame = block + 5 * X86_PAGE;

	TAP_REQUIRE(block != 0);
	check_everywhere(frame, true);
	paging_protect(frame, false);
	paging_protect(frame, false);
	check_everywhere(frame, false);
	check_everywhere(frame - X86_PAGE, true);
	check_everywhere(frame + X86_PAGE, true);
	check_everywhere(block + entry_span(1) - X86_PAGE, true);
	paging_protect(frame, true);
	paging_protect(frame, true);
	check_everywhere(frame, true);
	TAP_EQ(paging_nr_unprotected(), 0);
}

TAP_TEST(protect_refuses_what_is_read_only_for_good)
{
	uint64_t text = (uintptr_t)x86_text_start - X86_IMAGE;

	paging_protect(text, false);
	TAP_OK(TAP_PANICS(paging_protect(text, true)));
	TAP_OK(tap_contains(tap_state.panic, "frame 0x100000 is read-only for good"));
	TAP_OK(!is_writable(text));
	TAP_OK(TAP_PANICS(paging_protect(boot_map.range[boot_map.nr - 1].end, false)));
	TAP_OK(tap_contains(tap_state.panic, "is not in the direct map"));
}

static uint64_t frame_of_block(unsigned n)
{
	return block_of_ram(n) + (uint64_t)(n * 7 % ENTRIES) * X86_PAGE;
}

static unsigned level_of(uint64_t paddr)
{
	unsigned level;

	(void)paging_entry(X86_DIRECT + paddr, &level);
	return level;
}

/*
 * Each frame in a block of its own takes a table, until there is none: that is counted, and the frame stays writable.
 * Tables of frames that are writable again serve others, and the leaves that they stood for are whole again.
 */
TAP_TEST(protect_as_many_as_there_are_tables_and_again)
{
	unsigned nr_blocks = 0, nr_kept = 0, nr_whole = 0;
	bool was_whole[PLENTY];

	while (nr_blocks < PLENTY && block_of_ram(nr_blocks) != 0)
		nr_blocks++;
	if (nr_blocks < 100)
		TAP_SKIP("memory is too small");
	for (unsigned n = 0; n < nr_blocks; n++) {
		*(uint64_t *)x86_direct(frame_of_block(n)) = n;
		was_whole[n] = level_of(frame_of_block(n)) > 0;
	}
	for (unsigned round = 0; round < 2; round++) {
		/* From below, then from above, so that the second round needs tables that others had. */
		for (unsigned n = 0; n < nr_blocks; n++)
			paging_protect(frame_of_block(round ? nr_blocks - 1 - n : n), false);
		nr_kept = 0;
		for (unsigned n = 0; n < nr_blocks; n++)
			nr_kept += !is_writable(frame_of_block(n));
		TAP_OK(nr_kept > 32 && nr_kept < nr_blocks);
		TAP_EQ(paging_nr_unprotected(), (round + 1) * (nr_blocks - nr_kept));
		TAP_OK(!is_writable(frame_of_block(round ? nr_blocks - 1 : 0)));
		TAP_OK(is_writable(frame_of_block(round ? 0 : nr_blocks - 1)));
		for (unsigned n = 0; n < nr_blocks; n++)
			paging_protect(frame_of_block(n), true);
	}
	for (unsigned n = 0; n < nr_blocks; n++) {
		TAP_OK(is_writable(frame_of_block(n)));
		TAP_EQ(*(uint64_t *)x86_direct(frame_of_block(n)), n);
		nr_whole += was_whole[n] && level_of(frame_of_block(n)) > 0;
	}
	/* What the first round split and the second did not is whole. */
	TAP_OK(nr_whole >= nr_blocks - nr_kept - 1);
	TAP_NOTE("%u of %u frames protected at a time", nr_kept, nr_blocks);
}

/* ---- All at once ------------------------------------------------------------------------------------------------- */

enum { RACE_ROUNDS = 96 }; /* of all CPUs together: each waits for all others */

struct racer {
	unsigned first;
	uint64_t nr_wrong;
};

/* Its own blocks, interleaved with those of the others; more than there are tables for, all in all. */
static void race(void *ctx)
{
	struct racer *racer = ctx;

	for (unsigned i = 0; i < RACE_ROUNDS / x86_nr_cpus; i++) {
		uint64_t frame = frame_of_block(racer->first + i % 24 * x86_nr_cpus);

		paging_protect(frame, false);
		racer->nr_wrong += is_writable(frame);
		paging_protect(frame, true);
		racer->nr_wrong += !is_writable(frame);
	}
}

TAP_TEST(protect_from_all_cpus_at_once)
{
	static struct racer racers[X86_CPUS_MAX];
	uint64_t before = paging_nr_unprotected();

	if (x86_nr_cpus == 1 || block_of_ram(24 * x86_nr_cpus) == 0)
		TAP_SKIP("one CPU, or memory is too small");
	for (unsigned n = 0; n < x86_nr_cpus; n++) {
		racers[n].first = n;
		if (n > 0)
			smp_run(n, race, &racers[n]);
	}
	race(&racers[0]);
	for (unsigned n = 0; n < x86_nr_cpus; n++) {
		if (n > 0)
			smp_wait(n);
		TAP_EQ(racers[n].nr_wrong, 0);
	}
	TAP_EQ(paging_nr_unprotected(), before);
}

TAP_MAIN()
