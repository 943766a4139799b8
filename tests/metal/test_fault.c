/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_fault.c - what nobody may do really faults, on bare metal, is told rightly, and can be gone on from.
 *
 * Each test does something wrong on purpose under x86_expect_fault(), and holds address, kind of access and the words
 * of x86_describe_fault() against what it did.
 */
#include "machines/x86_64/paging.h"
#include "machines/x86_64/trap.h"
#include "tests/lib/world.h"
#include "metal/explain.h"
#include "tests/tap.h"

enum { TEXT_MAX = 480, RETURN_INSTRUCTION = 0xc3 };

static const uint64_t constant = 1; /* in the image's constants */
static uint64_t variable = 1;       /* in its data              */

/* ---- Wrong things to do ------------------------------------------------------------------------------------------ */

static void write_to(void *at)
{
	*(volatile uint64_t *)at = 1;
}

static void read_from(void *at)
{
	(void)*(volatile uint64_t *)at;
}

/* Where there is no fault, a return is what it finds. */
static void execute(void *at)
{
	((void (*)(void))at)();
}

/* Called through a pointer that the compiler cannot see through, or it makes a loop of it. */
static uint64_t descend(uint64_t depth);
static uint64_t (*volatile deeper)(uint64_t depth) = descend;

/* Deeper than any stack. */
static uint64_t descend(uint64_t depth)
{
	volatile char half_page[X86_PAGE / 2];

	half_page[depth % sizeof(half_page)] = 1;
	return depth == 0 ? 0 : deeper(depth - 1) + (uint64_t)half_page[depth % sizeof(half_page)];
}

static void overflow_stack(void *ctx)
{
	*(uint64_t *)ctx = descend(2 * X86_STACK_STRIDE / X86_PAGE);
}

/* ---- What is to come of it --------------------------------------------------------------------------------------- */

struct expectation {
	void (*work)(void *ctx);
	uintptr_t va;
	uint64_t error;       /* these bits, among present, write and fetch */
	const char *words[5]; /* in the text */
};

static void check_words(const struct x86_fault *fault, const char *const *words)
{
	char text[TEXT_MAX];

	x86_describe_fault(fault, text, sizeof(text));
	TAP_NOTE("%s", text);
	for (; *words; words++) {
		if (!tap_contains(text, *words)) {
			TAP_NOTE("lacks: %s", *words);
			TAP_OK(false);
		}
	}
}

static void check(const struct expectation *e)
{
	struct x86_fault fault = {.address = 1};

	if (!x86_expect_fault(e->work, (void *)e->va, &fault)) {
		TAP_NOTE("no fault at 0x%llx", (unsigned long long)e->va);
		TAP_OK(false);
		return;
	}
	TAP_EQ(fault.vector, TRAP_PAGE_FAULT);
	TAP_EQ(fault.address, e->va);
	TAP_EQ(fault.cpu, x86_this_cpu()->number);
	TAP_EQ(fault.error & (TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE | TRAP_ERROR_FETCH), e->error);
	if (!(e->error & TRAP_ERROR_FETCH))
		TAP_OK(fault.rip >= (uintptr_t)x86_text_start && fault.rip < (uintptr_t)x86_text_end);
	check_words(&fault, e->words);
}

static void check_write(uintptr_t va, const char *place)
{
	check(&(struct expectation){write_to, va, TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE,
				    {"write to", place, "read-only"}});
}

static void check_execute(uintptr_t va, const char *place)
{
	check(&(struct expectation){execute, va, TRAP_ERROR_PRESENT | TRAP_ERROR_FETCH,
				    {"execution of", place, "not executable"}});
}

static void check_absent(uintptr_t va, const char *place)
{
	check(&(struct expectation){read_from, va, 0, {"read of", place, "not mapped"}});
	check(&(struct expectation){write_to, va, TRAP_ERROR_WRITE, {"write to", place, "not mapped"}});
}

static uintptr_t direct_of_image(const void *in_image)
{
	return X86_DIRECT + ((uintptr_t)in_image - X86_IMAGE);
}

/* ---- The image and the direct map -------------------------------------------------------------------------------- */

TAP_TEST(fault_writes_to_text)
{
	check_write((uintptr_t)x86_text_start, "the image, text");
	check_write(direct_of_image(x86_text_start), "direct map, physical 0x100000, the image");
}

TAP_TEST(fault_writes_to_constants)
{
	check_write((uintptr_t)&constant, "the image, constants");
	check_write(direct_of_image(&constant), "the image");
	TAP_EQ(constant, 1);
}

TAP_TEST(fault_data_is_not_executed)
{
	static uint64_t code = RETURN_INSTRUCTION;
	uint64_t on_stack = RETURN_INSTRUCTION;

	check_execute((uintptr_t)&code, "the image, data");
	check_execute((uintptr_t)&constant, "the image, constants");
	check_execute(direct_of_image(&code), "direct map");
	check_execute(direct_of_image(x86_text_start), "direct map");
	check_execute((uintptr_t)&on_stack, "a stack of CPU 0");
}

TAP_TEST(fault_touches_of_nothing)
{
	uint64_t end = boot_map.range[boot_map.nr - 1].end;

	check_absent(0, "a null pointer");
	check_absent(0x100000, "no part of the kernel's addresses"); /* where the image is: no identity map is left */
	check_absent((uintptr_t)x86_image_end, "outside its text and data");
	check_absent(X86_WINDOWS - X86_PAGE, "direct map");
	check_absent(X86_DIRECT + end, "a hole");
	for (unsigned i = 1; i < boot_map.nr; i++)
		if (boot_map.range[i].start > boot_map.range[i - 1].end)
			check_absent(X86_DIRECT + boot_map.range[i - 1].end, "a hole");
}

/* Bits that are neither all ones nor all zeroes above the address: no page fault, but general protection. */
TAP_TEST(fault_address_that_is_none)
{
	struct x86_fault fault;

	TAP_REQUIRE(x86_expect_fault(read_from, (void *)0x8123456789abcdef, &fault));
	TAP_EQ(fault.vector, TRAP_PROTECTION);
	check_words(&fault, (const char *const[]){"general protection", "on CPU 0", NULL});
}

TAP_TEST(fault_none)
{
	struct x86_fault fault = {.address = 42};

	TAP_OK(!x86_expect_fault(write_to, &variable, &fault));
	TAP_EQ(fault.address, 42);
	TAP_OK(!x86_this_cpu()->expected);
}

/* The tables allow it: who faulted there had an older translation. */
TAP_TEST(fault_for_lack_of_a_flush)
{
	struct x86_fault fault = {.vector = TRAP_PAGE_FAULT, .address = (uintptr_t)&variable,
				  .error = TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE};

	check_words(&fault, (const char *const[]){"the image, data", "a flush is missing", NULL});
}

/* ---- Stacks ------------------------------------------------------------------------------------------------------ */

static void check_overflow(void *ctx)
{
	unsigned cpu = x86_this_cpu()->number;
	uintptr_t bottom = x86_this_cpu()->stack_top - X86_STACK_BYTES;
	struct x86_fault fault;
	char whose[64];
	uint64_t sum;

	(void)ctx;
	(void)mf_format(whose, sizeof(whose), "guard below the stack of CPU %u, which has overflowed", cpu);
	for (unsigned i = 0; i < 3; i++) {
		TAP_OK(x86_expect_fault(overflow_stack, &sum, &fault));
		TAP_EQ(fault.vector, TRAP_PAGE_FAULT);
		TAP_EQ(fault.cpu, cpu);
		TAP_OK(fault.address < bottom && fault.address >= bottom - X86_PAGE);
		TAP_EQ(fault.error & (TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE), TRAP_ERROR_WRITE);
	}
	check_words(&fault, (const char *const[]){whose, NULL});
}

TAP_TEST(fault_stack_overflows)
{
	check_overflow(NULL);
}

TAP_TEST(fault_guards_of_all_stacks)
{
	uintptr_t start = x86_this_cpu()->stack_top - X86_STACK_STRIDE;

	check_absent(start + X86_STACK_STRIDE - X86_STACK_BYTES - 8, "guard below the stack of CPU 0");
	check_absent(start + X86_FAULT_STACK_STRIDE - X86_FAULT_STACK_BYTES - 8, "for double faults of CPU 0");
	check_absent(start + 2 * X86_FAULT_STACK_STRIDE - X86_FAULT_STACK_BYTES - 8, "for page faults of CPU 0");
	check_absent(start + 3 * X86_FAULT_STACK_STRIDE - X86_FAULT_STACK_BYTES - 8, "for non-maskable interrupts");
	check_absent(start + 4 * X86_FAULT_STACK_STRIDE - X86_FAULT_STACK_BYTES - 8, "for machine checks of CPU 0");
}

/* ---- Other processors -------------------------------------------------------------------------------------------- */

static void check_on_this_cpu(void *ctx)
{
	check_write((uintptr_t)&constant, "the image, constants");
	check_absent(0, "a null pointer");
	check_absent(0x100000, "no part of the kernel's addresses");
	check_execute((uintptr_t)&variable, "the image, data");
	check_overflow(ctx);
}

TAP_TEST(fault_on_every_cpu)
{
	if (x86_nr_cpus == 1)
		TAP_SKIP("one CPU");
	for (unsigned n = 1; n < x86_nr_cpus; n++) {
		smp_run(n, check_on_this_cpu, NULL);
		smp_wait(n);
	}
}

/* Interrupts are on again afterwards, and flushes are served: the fault had turned them off. */
TAP_TEST(fault_leaves_interrupts_as_they_were)
{
	struct x86_fault fault;
	uint64_t flags;

	TAP_REQUIRE(x86_expect_fault(read_from, NULL, &fault));
	__asm__ volatile("pushfq; popq %0" : "=r"(flags));
	TAP_OK(flags & (1 << 9));
	__asm__ volatile("cli");
	(void)x86_expect_fault(read_from, NULL, &fault);
	__asm__ volatile("pushfq; popq %0; sti" : "=r"(flags));
	TAP_OK(!(flags & (1 << 9)));
}

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

static bool open_world(struct world *w)
{
	struct world_config config = {.nr_frames = 4 * WORLD_GIB_FRAMES, .nr_real_frames = WORLD_GIB_FRAMES / 2};

	if (!world_open(w, &config))
		return false;
	explain_map(w->map);
	return true;
}

static bool close_world(struct world *w)
{
	explain_map(NULL);
	return world_close(w);
}

TAP_TEST(fault_write_to_the_zero_frame)
{
	mf_pfn_t pfn = WORLD_GIB_FRAMES / 4 + 77;
	struct world w;
	uintptr_t va;
	unsigned level;

	TAP_REQUIRE(open_world(&w));
	TAP_EQ(world_add(&w, 0, WORLD_GIB_FRAMES / 2), 0);
	va = (uintptr_t)mf_pfn_to_page(w.map, pfn);
	TAP_EQ(*(uint64_t *)va, 0);
	check(&(struct expectation){write_to, va, TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE,
				    {"tier 0, pfn 0x1004d,", "region 0, layout tiered", "not backed", "on CPU 0"}});
	check(&(struct expectation){execute, va, TRAP_ERROR_PRESENT | TRAP_ERROR_FETCH, {"tier 0", "not executable"}});
	TAP_EQ(*(uint64_t *)va, 0);

	/* The same frame in the direct map, and the table that leads to it. */
	check_write((uintptr_t)entry_table(paging_entry(va, &level)), "as a shared table, tails or the zero frame is");
	TAP_EQ(level, 0);
	check_write((uintptr_t)paging_walk(va, 0, &level), "as a shared table, tails or the zero frame is");
	TAP_OK(close_world(&w));
}

TAP_TEST(fault_write_to_an_alias)
{
	struct mf_region_config config = {.end_pfn = WORLD_GIB_FRAMES / 2, .layout = MF_LAYOUT_HVO_7_1,
					  .source = MF_SOURCE_RAM};
	struct mf_folio *folio;
	struct world w;
	char pfn[32];
	uintptr_t va;

	TAP_REQUIRE(open_world(&w));
	TAP_EQ(world_add_region(&w, &config, NULL), 0);
	folio = world_alloc(&w, 9);
	TAP_REQUIRE(folio);
	TAP_REQUIRE(mf_folio_freeze(folio, 1));
	TAP_EQ(mf_diet_remap(w.map, folio), 0);
	mf_folio_unfreeze(folio, 1);
	va = (uintptr_t)folio + X86_PAGE + MF_DESCRIPTOR_SIZE;
	(void)mf_format(pfn, sizeof(pfn), "pfn 0x%llx,", (unsigned long long)mf_page_to_pfn(w.map, (void *)va));
	check(&(struct expectation){write_to, va, TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE,
				    {"tier 0", pfn, "region 0, layout hvo-7.1", "read-only and shared"}});
	mf_folio_put(w.map, folio);
	TAP_OK(close_world(&w));
}

/* Tier 1 of a whole block of tier 2, which shows nothing: from RAM, since this block is not there. */
TAP_TEST(fault_write_above_tier_0)
{
	struct mf_region_config config = {.end_pfn = 4 * WORLD_GIB_FRAMES, .source = MF_SOURCE_RAM};
	struct world w;
	uintptr_t va;

	TAP_REQUIRE(open_world(&w));
	TAP_EQ(world_add_region(&w, &config, NULL), 0);
	va = mf_map_geometry(w.map)->window[1] + (2 * WORLD_GIB_FRAMES >> 9) * MF_DESCRIPTOR_SIZE;
	check(&(struct expectation){write_to, va + 5 * MF_DESCRIPTOR_SIZE, TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE,
				    {"tier 1, pfn 0x80a00,", "region 0, layout tiered", "not backed"}});
	TAP_OK(close_world(&w));
}

TAP_TEST(fault_outside_the_map)
{
	struct world w;
	uintptr_t va;

	TAP_REQUIRE(open_world(&w));
	TAP_EQ(world_add(&w, 0, WORLD_GIB_FRAMES / 4), 0);
	check_absent(X86_WINDOWS + (X86_NR_WINDOWS - 1) * X86_WINDOW_BYTES, "no tier of the map");
	va = (uintptr_t)mf_pfn_to_page(w.map, WORLD_GIB_FRAMES * 3 / 2);
	check(&(struct expectation){write_to, va, TRAP_ERROR_PRESENT | TRAP_ERROR_WRITE,
				    {"tier 0, pfn 0x60000", "in no region", "not backed"}});
	explain_map(NULL);
	check_write(va, "of which no map is known");
	TAP_OK(close_world(&w));
	check_absent(va, "of which no map is known");
}

TAP_MAIN()
