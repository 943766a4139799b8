/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bootmap.c - what memory there is and who has it, as the loader told; frames for whoever comes before memfold.
 *
 * Owns boot_map.  Laws: ranges are ascending, disjoint, of whole frames, and no two that touch are alike; RAM is what
 * the loader calls RAM in full frames, and what anybody else has even a byte of is not RAM.  Knows nothing of ACPI.
 */
#include "machines/x86_64/x86_64.h"

enum {
	START_MAGIC = 0x336ec578,
	START_VERSION = 1, /* the first that has a memory map */
	MEMORY_RAM = 1,
	TRAMPOLINE_BYTES = 2 * X86_PAGE,
};

/* Above it the direct map ends. */
static const uint64_t ADDRESSES_END = 64 * MF_TIB;
/* Above it boot.S maps nothing. */
static const uint64_t EARLY_END = 4 * MF_GIB;

/* The loader's, in its memory. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, command_line, rsdp;
	uint64_t memory;
	uint32_t nr_memory, reserved;
};

struct start_module {
	uint64_t paddr, size, command_line, reserved;
};

struct start_memory {
	uint64_t addr, size;
	uint32_t type, reserved;
};

MF_BUILD_ASSERT(sizeof(struct start_info) == 56, "as the loader lays it out");
MF_BUILD_ASSERT(sizeof(struct start_module) == 32, "as the loader lays it out");
MF_BUILD_ASSERT(sizeof(struct start_memory) == 24, "as the loader lays it out");

/* From link.ld. */
extern const char x86_text_start[], x86_image_end[];

struct boot_map boot_map;

/* ---- Ranges ---------------------------------------------------------------------------------------------------- */

static void open_gap(unsigned at)
{
	MF_PANIC_IF(boot_map.nr == BOOT_RANGES_MAX, "x86_64: the boot map has more than %d ranges.", BOOT_RANGES_MAX);
	for (unsigned i = boot_map.nr++; i > at; i--)
		boot_map.range[i] = boot_map.range[i - 1];
}

static void close_gap(unsigned at)
{
	boot_map.nr--;
	for (unsigned i = at; i < boot_map.nr; i++)
		boot_map.range[i] = boot_map.range[i + 1];
}

/* The first range that ends above addr; boot_map.nr when there is none. */
static unsigned range_above(uint64_t addr)
{
	unsigned i = 0;

	while (i < boot_map.nr && boot_map.range[i].end <= addr)
		i++;
	return i;
}

/* No range contains what is on both sides of addr. */
static void split(uint64_t addr)
{
	unsigned i = range_above(addr);

	if (i == boot_map.nr || boot_map.range[i].start >= addr)
		return;
	open_gap(i);
	boot_map.range[i].end = addr;
	boot_map.range[i + 1].start = addr;
}

static void merge(void)
{
	for (unsigned i = 1; i < boot_map.nr;) {
		struct boot_range *before = &boot_map.range[i - 1], *range = &boot_map.range[i];

		if (before->end == range->start && before->kind == range->kind && before->node == range->node) {
			before->end = range->end;
			close_gap(i);
		} else {
			i++;
		}
	}
}

/* What nobody has told of yet becomes `kind`. */
static void fill_holes(uint64_t start, uint64_t end, enum boot_kind kind)
{
	while (start < end) {
		unsigned i = range_above(start);
		uint64_t stop = i < boot_map.nr ? mf_min(end, boot_map.range[i].start) : end;

		if (start < stop) {
			open_gap(i);
			boot_map.range[i] = (struct boot_range){.start = start, .end = stop, .kind = kind};
		}
		start = mf_max(stop, boot_map.range[i].end);
	}
	merge();
}

/* What is RAM in these bytes is somebody's from now on. */
static void claim(uint64_t paddr, uint64_t size_bytes, enum boot_kind kind)
{
	uint64_t start = mf_round_down(paddr, X86_PAGE), end;

	if (paddr >= ADDRESSES_END)
		return;
	end = mf_round_up(paddr + mf_min(size_bytes, ADDRESSES_END - paddr), X86_PAGE);
	split(start);
	split(end);
	for (unsigned i = range_above(start); i < boot_map.nr && boot_map.range[i].start < end; i++)
		if (boot_map.range[i].kind == BOOT_RAM)
			boot_map.range[i].kind = kind;
	merge();
}

void bootmap_set_node(uint64_t start, uint64_t end, unsigned node)
{
	start = mf_round_down(start, X86_PAGE);
	end = mf_round_down(end, X86_PAGE);
	split(start);
	split(end);
	for (unsigned i = range_above(start); i < boot_map.nr && boot_map.range[i].start < end; i++)
		boot_map.range[i].node = node;
	merge();
}

/* ---- From the loader ------------------------------------------------------------------------------------------- */

/* Early addresses are the loader's own, as long as boot.S maps them. */
static const void *at(uint64_t paddr, uint64_t size_bytes)
{
	MF_PANIC_IF(paddr >= EARLY_END || size_bytes > EARLY_END - paddr,
		    "x86_64: the loader left 0x%llx bytes of data at 0x%llx, not all of them below 4 GiB.",
		    (unsigned long long)size_bytes, (unsigned long long)paddr);
	return x86_direct(paddr);
}

/* Of a text, whose end only the text itself tells. */
static char char_at(uint64_t paddr)
{
	return *(const char *)at(paddr, 1);
}

static uint64_t clipped_end(const struct start_memory *memory)
{
	uint64_t end;

	return mf_add_fits(memory->addr, memory->size, &end) ? mf_min(end, ADDRESSES_END) : ADDRESSES_END;
}

/* First what is RAM and nothing else, so that an entry that overlaps another can only take from it. */
static void read_memory(const struct start_info *info)
{
	const struct start_memory *memory = at(info->memory, info->nr_memory * sizeof(*memory));

	for (uint32_t i = 0; i < info->nr_memory; i++)
		if (memory[i].type == MEMORY_RAM && memory[i].addr < ADDRESSES_END)
			fill_holes(mf_round_up(memory[i].addr, X86_PAGE),
				   mf_round_down(clipped_end(&memory[i]), X86_PAGE), BOOT_RAM);
	for (uint32_t i = 0; i < info->nr_memory; i++)
		if (memory[i].type != MEMORY_RAM && memory[i].size > 0 && memory[i].addr < ADDRESSES_END) {
			uint64_t start = mf_round_down(memory[i].addr, X86_PAGE);
			uint64_t end = mf_round_up(clipped_end(&memory[i]), X86_PAGE);

			claim(start, end - start, BOOT_FIRMWARE);
			fill_holes(start, end, BOOT_FIRMWARE);
		}
}

static void read_command_line(uint64_t paddr)
{
	size_t length = 0;

	if (paddr == 0)
		return;
	while (length < sizeof(boot_map.command_line) - 1 && char_at(paddr + length) != '\0') {
		boot_map.command_line[length] = char_at(paddr + length);
		length++;
	}
	claim(paddr, length + 1, BOOT_DATA);
}

static void read_modules(const struct start_info *info)
{
	const struct start_module *module;

	if (info->nr_modules == 0 || info->modules == 0)
		return;
	module = at(info->modules, info->nr_modules * sizeof(*module));
	claim(info->modules, info->nr_modules * sizeof(*module), BOOT_DATA);
	for (uint32_t i = 0; i < info->nr_modules; i++)
		claim(module[i].paddr, module[i].size, BOOT_DATA);
}

static void claim_image(void)
{
	uint64_t start = (uintptr_t)x86_text_start - X86_IMAGE, end = (uintptr_t)x86_image_end - X86_IMAGE;
	unsigned i = range_above(start);

	MF_PANIC_IF(i == boot_map.nr || boot_map.range[i].start > start || boot_map.range[i].end < end ||
		    boot_map.range[i].kind != BOOT_RAM,
		    "x86_64: the image lies at [0x%llx, 0x%llx), which the loader does not call RAM.",
		    (unsigned long long)start, (unsigned long long)end);
	claim(start, end - start, BOOT_IMAGE);
}

void bootmap_init(uint64_t start_info_paddr)
{
	const struct start_info *info = at(start_info_paddr, sizeof(*info));

	MF_PANIC_IF(info->magic != START_MAGIC, "x86_64: no start_info of a PVH loader at 0x%llx.",
		    (unsigned long long)start_info_paddr);
	MF_PANIC_IF(info->version < START_VERSION || info->nr_memory == 0,
		    "x86_64: the loader's start_info (version %u) has no memory map.", info->version);
	boot_map.rsdp = info->rsdp;
	read_memory(info);
	claim_image();
	claim(0, X86_PAGE, BOOT_DATA);
	claim(X86_TRAMPOLINE, TRAMPOLINE_BYTES, BOOT_DATA);
	claim(start_info_paddr, sizeof(*info), BOOT_DATA);
	claim(info->memory, info->nr_memory * sizeof(struct start_memory), BOOT_DATA);
	read_modules(info);
	read_command_line(info->command_line);
}

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

/* The highest piece of that size in RAM below limit; 0: none (page 0 is never RAM). */
static uint64_t find_frames(uint64_t size_bytes, uint64_t limit)
{
	for (unsigned i = boot_map.nr; i-- > 0;) {
		const struct boot_range *range = &boot_map.range[i];
		uint64_t end = mf_min(range->end, limit);
		uint64_t start = end < size_bytes ? 0 : mf_round_down(end - size_bytes, size_bytes);

		if (range->kind == BOOT_RAM && start >= range->start && start > 0)
			return start;
	}
	return 0;
}

uint64_t boot_frames_unzeroed(unsigned order, uint64_t limit)
{
	uint64_t size_bytes = (uint64_t)X86_PAGE << order;
	uint64_t paddr;

	if (limit == 0)
		limit = ADDRESSES_END;
	paddr = find_frames(size_bytes, mf_min(limit, 4 * MF_GIB));
	if (paddr == 0)
		paddr = find_frames(size_bytes, limit);
	MF_PANIC_IF(paddr == 0, "x86_64: no %llu bytes of RAM below 0x%llx are left.", (unsigned long long)size_bytes,
		    (unsigned long long)limit);
	claim(paddr, size_bytes, BOOT_DATA);
	return paddr;
}

uint64_t boot_frames(unsigned order, uint64_t limit)
{
	uint64_t paddr = boot_frames_unzeroed(order, limit);

	__builtin_memset(x86_direct(paddr), 0, (size_t)X86_PAGE << order);
	return paddr;
}

/* ---- Command line ---------------------------------------------------------------------------------------------- */

static const char *next_word(const char *text)
{
	while (*text != '\0' && *text != ' ')
		text++;
	while (*text == ' ')
		text++;
	return text;
}

/* What stands behind name in a word of that name; NULL in another. */
static const char *behind_name(const char *word, const char *name)
{
	while (*name != '\0' && *word == *name) {
		word++;
		name++;
	}
	return *name == '\0' && (*word == '=' || *word == ' ' || *word == '\0') ? word : NULL;
}

const char *boot_option(const char *name, char *value, size_t size)
{
	for (const char *word = boot_map.command_line; *word != '\0'; word = next_word(word)) {
		const char *found = behind_name(word, name);
		size_t length = 0;

		if (!found)
			continue;
		if (*found == '=')
			found++;
		while (length + 1 < size && found[length] != '\0' && found[length] != ' ') {
			value[length] = found[length];
			length++;
		}
		value[length] = '\0';
		return value;
	}
	return NULL;
}
