/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot.c - what boot builds before memfold: the boot map, frames, the command line, the heap, the image. */
#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

void *memmove(void *to, const void *from, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

/* ---- The boot map ---------------------------------------------------------------------------------------------- */

static bool is_lawful(const struct boot_map *map)
{
	for (unsigned i = 0; i < map->nr; i++) {
		const struct boot_range *range = &map->range[i], *next = range + 1;

		if (range->start >= range->end || range->start % X86_PAGE || range->end % X86_PAGE)
			return false;
		if (i + 1 < map->nr && range->end > next->start)
			return false;
		if (i + 1 < map->nr && range->end == next->start && range->kind == next->kind &&
		    range->node == next->node)
			return false;
	}
	return true;
}

/* -1: a hole. */
static int kind_of(const struct boot_map *map, uint64_t paddr)
{
	for (unsigned i = 0; i < map->nr; i++)
		if (paddr >= map->range[i].start && paddr < map->range[i].end)
			return (int)map->range[i].kind;
	return -1;
}

static uint64_t bytes_of(const struct boot_map *map, enum boot_kind kind)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < map->nr; i++)
		if (map->range[i].kind == kind)
			sum += map->range[i].end - map->range[i].start;
	return sum;
}

TAP_TEST(boot_map_is_lawful)
{
	TAP_OK(is_lawful(&boot_map));
	TAP_EQ(kind_of(&boot_map, 0), BOOT_DATA);
	TAP_EQ(kind_of(&boot_map, X86_TRAMPOLINE), BOOT_DATA);
	TAP_EQ(kind_of(&boot_map, X86_TRAMPOLINE + X86_PAGE), BOOT_DATA);
	TAP_EQ(kind_of(&boot_map, (uintptr_t)&boot_map - X86_IMAGE), BOOT_IMAGE);
	TAP_EQ(kind_of(&boot_map, (uintptr_t)"a constant" - X86_IMAGE), BOOT_IMAGE);
}

/* A loader's, as PVH lays it out; it lies in the image, which is below 4 GiB as a loader's is. */
static struct info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, command_line, rsdp, memory;
	uint32_t nr_memory, reserved;
} made_up_info;
static struct memory {
	uint64_t addr, size;
	uint32_t type, reserved;
} made_up_memory[40];
static struct {
	uint64_t paddr, size, command_line, reserved;
} made_up_modules[2];

enum { MAGIC = 0x336ec578 };
enum { MADE_UP_RAM = 1, MADE_UP_RESERVED = 2, MADE_UP_TABLES = 3 };

static void make_up(uint64_t addr, uint64_t size, uint32_t type)
{
	made_up_memory[made_up_info.nr_memory].addr = addr;
	made_up_memory[made_up_info.nr_memory].size = size;
	made_up_memory[made_up_info.nr_memory++].type = type;
}

static void make_up_nothing(void)
{
	memset(&made_up_info, 0, sizeof(made_up_info));
	made_up_info.magic = MAGIC;
	made_up_info.version = 1;
	made_up_info.memory = (uintptr_t)made_up_memory - X86_IMAGE;
}

/* What bootmap_init() makes of a start_info there, in *map; the real one stays. */
static void read_info(uint64_t paddr, struct boot_map *map)
{
	static struct boot_map kept;

	kept = boot_map;
	memset(&boot_map, 0, sizeof(boot_map));
	bootmap_init(paddr);
	*map = boot_map;
	boot_map = kept;
}

static void read_made_up(struct boot_map *map)
{
	read_info((uintptr_t)&made_up_info - X86_IMAGE, map);
}

static bool info_panics(uint64_t paddr)
{
	static struct boot_map kept;
	bool panics;

	kept = boot_map;
	memset(&boot_map, 0, sizeof(boot_map));
	panics = TAP_PANICS(bootmap_init(paddr));
	boot_map = kept;
	return panics;
}

static bool made_up_panics(void)
{
	return info_panics((uintptr_t)&made_up_info - X86_IMAGE);
}

TAP_TEST(boot_map_sorts_and_clips)
{
	static struct boot_map map;

	make_up_nothing();
	make_up(5 * MF_GIB + 100, MF_GIB, MADE_UP_RAM);
	make_up(3 * MF_GIB, 1, MADE_UP_RESERVED);
	make_up(0, 0x9fc00, MADE_UP_RAM);
	make_up(MF_MIB, 2 * MF_GIB, MADE_UP_RAM);
	read_made_up(&map);
	TAP_OK(is_lawful(&map));
	TAP_EQ(kind_of(&map, 0x9e000), BOOT_RAM);
	TAP_EQ(kind_of(&map, 0x9f000), -1);
	TAP_EQ(kind_of(&map, 2 * MF_GIB + MF_MIB - 1), BOOT_RAM);
	TAP_EQ(kind_of(&map, 2 * MF_GIB + MF_MIB), -1);
	TAP_EQ(kind_of(&map, 3 * MF_GIB + X86_PAGE - 1), BOOT_FIRMWARE);
	TAP_EQ(kind_of(&map, 3 * MF_GIB + X86_PAGE), -1);
	TAP_EQ(kind_of(&map, 5 * MF_GIB), -1);
	TAP_EQ(kind_of(&map, 5 * MF_GIB + X86_PAGE), BOOT_RAM);
	TAP_EQ(kind_of(&map, 6 * MF_GIB - 1), BOOT_RAM);
	TAP_EQ(kind_of(&map, 6 * MF_GIB), -1);
}

TAP_TEST(boot_map_gives_firmware_what_overlaps)
{
	static struct boot_map map;

	make_up_nothing();
	make_up(64 * MF_MIB - 1, 2, MADE_UP_RESERVED);
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	make_up(96 * MF_MIB, 64 * MF_MIB, MADE_UP_TABLES);
	make_up(127 * MF_MIB, MF_MIB, MADE_UP_RAM);
	read_made_up(&map);
	TAP_OK(is_lawful(&map));
	TAP_EQ(kind_of(&map, 64 * MF_MIB - X86_PAGE), BOOT_FIRMWARE);
	TAP_EQ(kind_of(&map, 64 * MF_MIB), BOOT_FIRMWARE);
	TAP_EQ(kind_of(&map, 64 * MF_MIB + X86_PAGE), BOOT_RAM);
	TAP_EQ(bytes_of(&map, BOOT_FIRMWARE), 64 * MF_MIB + 2 * X86_PAGE);
}

TAP_TEST(boot_map_survives_absurd_sizes)
{
	static struct boot_map map;

	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	make_up(4 * MF_GIB, UINT64_MAX, MADE_UP_RAM);
	make_up(UINT64_MAX - 10, 20, MADE_UP_RESERVED);
	make_up(256 * MF_MIB, 0, MADE_UP_RAM);
	make_up(256 * MF_MIB + 1, X86_PAGE, MADE_UP_RAM);
	read_made_up(&map);
	TAP_OK(is_lawful(&map));
	TAP_EQ(kind_of(&map, 256 * MF_MIB), -1);
	TAP_EQ(kind_of(&map, 64 * MF_TIB - 1), BOOT_RAM);
	TAP_EQ(kind_of(&map, 64 * MF_TIB), -1);
}

TAP_TEST(boot_map_leaves_out_ram_above_all_addresses)
{
	static struct boot_map map;

	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	make_up(UINT64_MAX - 100, 50, MADE_UP_RAM);
	make_up(UINT64_MAX - 100, 200, MADE_UP_RAM);
	read_made_up(&map);
	TAP_OK(is_lawful(&map));
	TAP_EQ(kind_of(&map, 128 * MF_MIB - 1), BOOT_RAM);
	TAP_EQ(kind_of(&map, 128 * MF_MIB), -1);
	TAP_EQ(kind_of(&map, 64 * MF_TIB - 1), -1);
}

TAP_TEST(boot_map_survives_absurd_modules)
{
	static struct boot_map map;

	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	made_up_info.nr_modules = 2;
	made_up_info.modules = (uintptr_t)made_up_modules - X86_IMAGE;
	made_up_modules[0].paddr = 64 * MF_MIB;
	made_up_modules[0].size = UINT64_MAX - 64 * MF_MIB;
	made_up_modules[1].paddr = UINT64_MAX - 100;
	made_up_modules[1].size = 200;
	read_made_up(&map);
	TAP_OK(is_lawful(&map));
	TAP_EQ(kind_of(&map, 32 * MF_MIB), BOOT_RAM);
	TAP_EQ(kind_of(&map, 64 * MF_MIB - 1), BOOT_RAM);
	TAP_EQ(kind_of(&map, 64 * MF_MIB), BOOT_DATA);
	TAP_EQ(kind_of(&map, 128 * MF_MIB - 1), BOOT_DATA);
	TAP_EQ(kind_of(&map, 128 * MF_MIB), -1);
}

/* In memory that is nobody's to take: what is not RAM counts, too. */
static void check_claimed(uint64_t paddr, uint64_t size_bytes)
{
	for (uint64_t page = mf_round_down(paddr, X86_PAGE); page < paddr + size_bytes; page += X86_PAGE)
		if (kind_of(&boot_map, page) == BOOT_RAM) {
			TAP_NOTE("page 0x%llx", (unsigned long long)page);
			TAP_OK(false);
		}
}

/* NULL: it is not in the first MiB, where loaders leave it, or has been written over. */
static const struct info *find_info(void)
{
	for (unsigned i = 0; i < boot_map.nr && boot_map.range[i].start < MF_MIB; i++) {
		uint64_t end = mf_min(boot_map.range[i].end, MF_MIB);

		for (uint64_t at = boot_map.range[i].start; at + sizeof(struct info) <= end; at += sizeof(uint64_t)) {
			const struct info *info = x86_direct(at);

			if (info->magic == MAGIC && info->version == 1 && info->nr_memory > 0 &&
			    info->memory < MF_MIB && info->command_line < MF_MIB)
				return info;
		}
	}
	return NULL;
}

TAP_TEST(boot_map_claims_what_this_loader_left)
{
	const struct info *info = find_info();

	if (!info)
		TAP_SKIP("start_info is not in the first MiB");
	TAP_NOTE("start_info at 0x%llx, memory at 0x%llx, command line at 0x%llx",
		 (unsigned long long)((uintptr_t)info - X86_DIRECT), (unsigned long long)info->memory,
		 (unsigned long long)info->command_line);
	check_claimed((uintptr_t)info - X86_DIRECT, sizeof(*info));
	check_claimed(info->memory, info->nr_memory * sizeof(struct memory));
	check_claimed(info->command_line, 1);
}

/*
 * What a loader leaves in RAM, each from the last bytes of a page into the next one; between two such pages lies one
 * that is nobody's.
 */
TAP_TEST(boot_map_claims_what_the_loader_left)
{
	enum { INFO, MEMORY, MODULES, COMMAND_LINE, NR_LEFT, PAGES_EACH = 3, ORDER = 4 };
	static const char command_line[] = "left";
	static struct boot_map map;
	uint64_t start = boot_frames(ORDER, 4 * MF_GIB), left[NR_LEFT];

	for (unsigned i = 0; i < NR_LEFT; i++)
		left[i] = start + (PAGES_EACH * i + 2) * X86_PAGE - 8;
	left[COMMAND_LINE] += 8 - (sizeof(command_line) - 1); /* the end alone lies in the next page */
	make_up_nothing();
	make_up(0, 4 * MF_GIB, MADE_UP_RAM);
	made_up_info.memory = left[MEMORY];
	made_up_info.nr_modules = 1;
	made_up_info.modules = left[MODULES];
	made_up_info.command_line = left[COMMAND_LINE];
	made_up_modules[0].paddr = start - 8;
	made_up_modules[0].size = 16;
	memcpy(x86_direct(left[INFO]), &made_up_info, sizeof(made_up_info));
	memcpy(x86_direct(left[MEMORY]), made_up_memory, sizeof(made_up_memory[0]));
	memcpy(x86_direct(left[MODULES]), made_up_modules, sizeof(made_up_modules[0]));
	memcpy(x86_direct(left[COMMAND_LINE]), command_line, sizeof(command_line));
	read_info(left[INFO], &map);
	TAP_OK(is_lawful(&map));
	TAP_EQ(memcmp(map.command_line, command_line, sizeof(command_line)), 0);
	TAP_EQ(kind_of(&map, 0), BOOT_DATA);
	for (unsigned i = 0; i < NR_LEFT; i++) {
		uint64_t page = start + (PAGES_EACH * i + 1) * X86_PAGE;

		TAP_EQ(kind_of(&map, page), BOOT_DATA);
		TAP_EQ(kind_of(&map, page + X86_PAGE), BOOT_DATA);
		TAP_EQ(kind_of(&map, page + 2 * X86_PAGE), BOOT_RAM);
	}
	TAP_EQ(kind_of(&map, start - 2 * X86_PAGE), BOOT_RAM);
	TAP_EQ(kind_of(&map, start - X86_PAGE), BOOT_DATA);
	TAP_EQ(kind_of(&map, start), BOOT_DATA);
}

TAP_TEST(boot_map_refuses_what_boot_does_not_map)
{
	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	made_up_info.nr_modules = 2;
	made_up_info.modules = 4 * MF_GIB - sizeof(made_up_modules[0]);
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "0x40 bytes of data at 0xffffffe0, not all of them below 4 GiB"));
	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	made_up_info.command_line = 4 * MF_GIB;
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "0x1 bytes of data at 0x100000000"));
	made_up_info.nr_memory = 2;
	made_up_info.memory = 4 * MF_GIB - sizeof(made_up_memory[0]);
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "0x30 bytes of data at 0xffffffe8"));
	TAP_OK(info_panics(4 * MF_GIB - 8));
	TAP_OK(tap_contains(tap_state.panic, "0x38 bytes of data at 0xfffffff8"));
	TAP_OK(info_panics(UINT64_MAX - 8));
	TAP_OK(tap_contains(tap_state.panic, "not all of them below 4 GiB"));
}

TAP_TEST(boot_map_refuses_what_makes_no_sense)
{
	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	made_up_info.magic++;
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "no start_info"));
	made_up_info.magic--;
	made_up_info.version = 0;
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "no memory map"));
	made_up_info.version = 1;
	made_up_memory[0].size = MF_MIB;
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "does not call RAM"));
	make_up_nothing();
	make_up(0, 128 * MF_MIB, MADE_UP_RAM);
	for (uint64_t i = 1; i < 33; i++)
		make_up(i * 3 * MF_MIB, MF_MIB, MADE_UP_RESERVED);
	TAP_OK(made_up_panics());
	TAP_OK(tap_contains(tap_state.panic, "more than 64 ranges"));
}

TAP_TEST(boot_map_splits_at_nodes)
{
	static struct boot_map kept;
	uint64_t ram_bytes = bytes_of(&boot_map, BOOT_RAM);

	kept = boot_map;
	bootmap_set_node(8 * MF_MIB, 16 * MF_MIB, 7);
	TAP_OK(is_lawful(&boot_map));
	TAP_EQ(boot_map.nr, kept.nr + 2);
	TAP_EQ(bytes_of(&boot_map, BOOT_RAM), ram_bytes);
	bootmap_set_node(8 * MF_MIB, 16 * MF_MIB, 0);
	TAP_EQ(boot_map.nr, kept.nr);
	boot_map = kept;
}

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

TAP_TEST(boot_frames_are_aligned_zero_and_gone)
{
	for (unsigned order = 0; order < 10; order++) {
		uint64_t ram_bytes = bytes_of(&boot_map, BOOT_RAM), size_bytes = (uint64_t)X86_PAGE << order;
		uint64_t paddr = boot_frames(order, 4 * MF_GIB), sum = 0;
		const uint64_t *words = x86_direct(paddr);

		TAP_EQ(paddr % size_bytes, 0);
		TAP_OK(paddr + size_bytes <= 4 * MF_GIB);
		TAP_EQ(kind_of(&boot_map, paddr), BOOT_DATA);
		TAP_EQ(kind_of(&boot_map, paddr + size_bytes - 1), BOOT_DATA);
		TAP_EQ(bytes_of(&boot_map, BOOT_RAM), ram_bytes - size_bytes);
		for (uint64_t i = 0; i < size_bytes / sizeof(*words); i++)
			sum |= words[i];
		TAP_EQ(sum, 0);
	}
	TAP_OK(is_lawful(&boot_map));
}

TAP_TEST(boot_frames_keep_below_a_limit)
{
	static struct boot_map kept;

	TAP_OK(boot_frames(0, MF_MIB) < MF_MIB);
	kept = boot_map;
	TAP_OK(TAP_PANICS((void)boot_frames_unzeroed(9, MF_MIB)));
	TAP_OK(TAP_PANICS((void)boot_frames_unzeroed(40, 0)));
	boot_map = kept;
}

/* ---- Command line ---------------------------------------------------------------------------------------------- */

TAP_TEST(boot_option_finds_whole_words)
{
	static struct boot_map kept;
	char value[8];

	kept = boot_map;
	memcpy(boot_map.command_line, "abc=1  ab ab=2 c=123456789 d= e", 32);
	TAP_OK(boot_option("a", value, sizeof(value)) == NULL);
	TAP_OK(boot_option("bc", value, sizeof(value)) == NULL);
	TAP_OK(boot_option("ab", value, sizeof(value)) == value && value[0] == '\0');
	TAP_OK(boot_option("abc", value, sizeof(value)) == value && memcmp(value, "1", 2) == 0);
	TAP_OK(boot_option("c", value, sizeof(value)) == value && memcmp(value, "1234567", 8) == 0);
	TAP_OK(boot_option("d", value, sizeof(value)) == value && value[0] == '\0');
	TAP_OK(boot_option("e", value, sizeof(value)) == value && value[0] == '\0');
	boot_map = kept;
}

/* ---- The heap -------------------------------------------------------------------------------------------------- */

TAP_TEST(heap_gives_zeroes_and_takes_all_back)
{
	enum { NR = 64 };
	static unsigned char *pieces[NR];
	static size_t sizes[NR];
	uint64_t used = heap_used(), random = 1;
	unsigned nr_dirty = 0, nr_crooked = 0, nr_written_over = 0;

	for (unsigned step = 0; step < 5000; step++) {
		unsigned i;

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		i = (unsigned)(random >> 32) % NR;
		for (size_t at = 0; pieces[i] && at < sizes[i]; at++)
			nr_written_over += pieces[i][at] != (unsigned char)i;
		heap_free(pieces[i]);
		sizes[i] = (size_t)(random >> 40) % 5000;
		pieces[i] = heap_alloc(sizes[i]);
		TAP_REQUIRE(pieces[i] != NULL);
		nr_crooked += (uintptr_t)pieces[i] % 64 != 0;
		for (size_t at = 0; at < sizes[i]; at++)
			nr_dirty += pieces[i][at] != 0;
		memset(pieces[i], (int)i, sizes[i]);
	}
	for (unsigned i = 0; i < NR; i++)
		heap_free(pieces[i]);
	TAP_EQ(nr_dirty, 0);
	TAP_EQ(nr_crooked, 0);
	TAP_EQ(nr_written_over, 0);
	TAP_EQ(heap_used(), used);
}

/* One piece as large as can be had, before and after all of it was in small pieces. */
TAP_TEST(heap_joins_what_comes_back)
{
	enum { PIECE = 1 << 16 };
	size_t largest = 1 << 16;
	void *first = NULL, *piece;
	uint64_t used = heap_used();
	unsigned nr = 0;

	while ((piece = heap_alloc(2 * largest)) != NULL) {
		heap_free(piece);
		largest *= 2;
	}
	while ((piece = heap_alloc(PIECE)) != NULL) {
		*(void **)piece = first;
		first = piece;
		nr++;
	}
	TAP_OK(nr > 2);
	TAP_OK(heap_alloc(largest) == NULL);
	/* Every other one first, so that there are neighbours on both sides to be joined. */
	for (void **at = &first; *at && *(void **)*at; at = *at) {
		piece = *at;
		*at = *(void **)piece;
		heap_free(piece);
	}
	while (first) {
		piece = first;
		first = *(void **)piece;
		heap_free(piece);
	}
	TAP_EQ(heap_used(), used);
	piece = heap_alloc(largest);
	TAP_OK(piece != NULL);
	heap_free(piece);
}

TAP_TEST(heap_refuses_what_it_has_not)
{
	TAP_OK(heap_alloc(SIZE_MAX) == NULL);
	TAP_OK(heap_alloc(SIZE_MAX - 100) == NULL);
	TAP_OK(heap_alloc((size_t)MF_TIB) == NULL);
	heap_free(NULL);
}

TAP_TEST(heap_names_what_comes_back_twice)
{
	void *piece = heap_alloc(100);

	TAP_REQUIRE(piece != NULL);
	heap_free(piece);
	TAP_OK(TAP_PANICS(heap_free(piece)));
	TAP_OK(tap_contains(tap_state.panic, "or twice"));
}

/* ---- What compilers call --------------------------------------------------------------------------------------- */

TAP_TEST(memory_functions_do_as_loops_do)
{
	static unsigned char bytes[96], expected[96];
	unsigned nr_wrong = 0;

	for (unsigned from = 0; from < 24; from++)
		for (unsigned to = 0; to < 24; to++)
			for (unsigned size = 0; size < 40; size++) {
				for (unsigned i = 0; i < sizeof(bytes); i++)
					bytes[i] = expected[i] = (unsigned char)(i + 1);
				for (unsigned i = 0; i < size; i++)
					expected[to + i] = (unsigned char)(from + i + 1);
				nr_wrong += memmove(bytes + to, bytes + from, size) != bytes + to;
				nr_wrong += memcmp(bytes, expected, sizeof(bytes)) != 0;
				for (unsigned i = 0; i < size; i++)
					expected[to + i] = 0xfe;
				nr_wrong += memset(bytes + to, 0x1fe, size) != bytes + to;
				nr_wrong += memcmp(bytes, expected, sizeof(bytes)) != 0;
			}
	TAP_EQ(nr_wrong, 0);
	TAP_OK(memcmp("ab", "ac", 2) < 0);
	TAP_OK(memcmp("\xff", "a", 1) > 0);
	TAP_EQ(memcmp("a", "b", 0), 0);
}

/* ---- Protection of the image ----------------------------------------------------------------------------------- */

static void write_to(void *ctx)
{
	*(volatile char *)ctx = 1;
}

TAP_TEST(image_constants_are_read_only)
{
	static const char constant[16] = "constant";
	struct x86_fault fault;

	TAP_REQUIRE(x86_expect_fault(write_to, (void *)(uintptr_t)constant, &fault));
	TAP_EQ(fault.address, (uintptr_t)constant);
	TAP_EQ(constant[0], 'c');
}

TAP_MAIN()
