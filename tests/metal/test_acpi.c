/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_acpi.c - what the port makes of firmware's tables, with tables of the test's own in place of the machine's.
 *
 * The machine's own tables count in what they say, not here: where a test leaves none that is sound, what comes out is
 * what the machine says.  The boot map is as before after each test.
 */
#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

#include <string.h>

enum { XSDT = 0x100, RSDT = 0x180, MADT = 0x200, SRAT = 0x600, AREA_BYTES = 0x1000, TABLE_HEADER = 36 };

static _Alignas(16) uint8_t area[AREA_BYTES];
static struct boot_map kept;

static uint64_t paddr_of(uint64_t at)
{
	return (uintptr_t)area - X86_IMAGE + at;
}

static void put(uint64_t at, uint64_t number, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		area[at + i] = (uint8_t)(number >> 8 * i);
}

static uint32_t length_of(uint64_t table)
{
	return area[table + 4] | (uint32_t)area[table + 5] << 8;
}

/* So that [at, at + nr) sums to 0, by the byte at `sum`. */
static void seal(uint64_t at, uint64_t nr, uint64_t sum)
{
	uint8_t total = 0;

	area[sum] = 0;
	for (uint64_t i = 0; i < nr; i++)
		total = (uint8_t)(total + area[at + i]);
	area[sum] = (uint8_t)-total;
}

static void seal_table(uint64_t table)
{
	seal(table, length_of(table), table + 9);
}

static void begin_table(uint64_t table, const char *signature, uint32_t header_bytes)
{
	memcpy(&area[table], signature, 4);
	put(table + 4, header_bytes, 4);
}

/* At the table's end; where the entry is. */
static uint64_t add_entry(uint64_t table, uint8_t type, uint8_t nr)
{
	uint64_t at = table + length_of(table);

	area[at] = type;
	area[at + 1] = nr;
	put(table + 4, length_of(table) + nr, 4);
	return at;
}

static void add_apic(uint8_t id, uint32_t flags)
{
	uint64_t at = add_entry(MADT, 0, 8);

	area[at + 3] = id;
	put(at + 4, flags, 4);
	seal_table(MADT);
}

static void add_x2apic(uint32_t id)
{
	uint64_t at = add_entry(MADT, 9, 16);

	put(at + 4, id, 4);
	put(at + 8, 1, 4);
	seal_table(MADT);
}

static void add_memory(uint32_t domain, uint64_t start, uint64_t size, uint32_t flags)
{
	uint64_t at = add_entry(SRAT, 1, 40);

	put(at + 2, domain, 4);
	put(at + 8, start, 8);
	put(at + 16, size, 8);
	put(at + 28, flags, 4);
	seal_table(SRAT);
}

/* Sound, and empty: no processor, no memory.  Revision 2 leads to the tables by the XSDT, 0 by the RSDT. */
static void begin(uint8_t revision)
{
	kept = boot_map;
	memset(area, 0, sizeof(area));
	memcpy(area, "RSD PTR ", 8);
	area[15] = revision;
	put(16, revision ? 0 : paddr_of(RSDT), 4);
	put(20, 36, 4);
	put(24, paddr_of(XSDT), 8);
	seal(0, 20, 8);
	seal(0, 36, 32);
	begin_table(XSDT, "XSDT", TABLE_HEADER + 16);
	put(XSDT + TABLE_HEADER, paddr_of(MADT), 8);
	put(XSDT + TABLE_HEADER + 8, paddr_of(SRAT), 8);
	seal_table(XSDT);
	begin_table(RSDT, "RSDT", TABLE_HEADER + 8);
	put(RSDT + TABLE_HEADER, paddr_of(MADT), 4);
	put(RSDT + TABLE_HEADER + 4, paddr_of(SRAT), 4);
	seal_table(RSDT);
	begin_table(MADT, "APIC", TABLE_HEADER + 8);
	put(MADT + TABLE_HEADER, 0xfee00000, 4);
	seal_table(MADT);
	begin_table(SRAT, "SRAT", TABLE_HEADER + 12);
	seal_table(SRAT);
	boot_map.rsdp = paddr_of(0);
}

static struct acpi_info read_and_end(void)
{
	struct acpi_info info;

	acpi_init(&info);
	boot_map = kept;
	return info;
}

static struct acpi_info machines_own(void)
{
	kept = boot_map;
	return read_and_end();
}

/* One that no machine of the tests has. */
static bool is_ours(const struct acpi_info *info)
{
	return info->nr_cpus > 0 && info->apic_id[0] == 0xab;
}

TAP_TEST(acpi_lists_enabled_processors)
{
	struct acpi_info info;

	begin(2);
	add_apic(0xab, 1);
	add_apic(0xac, 0); /* not there, but could be plugged in */
	add_apic(0xad, 1);
	add_apic(0xad, 1); /* the same again    */
	add_x2apic(0xad);
	add_x2apic(0x21);
	add_apic(0xff, 1); /* everybody's number */
	add_x2apic(0x123);
	info = read_and_end();
	TAP_EQ(info.nr_cpus, 3);
	TAP_EQ(info.apic_id[0], 0xab);
	TAP_EQ(info.apic_id[1], 0xad);
	TAP_EQ(info.apic_id[2], 0x21);
	TAP_EQ(info.local_apic, 0xfee00000);
}

TAP_TEST(acpi_takes_as_many_processors_as_it_has_room_for)
{
	struct acpi_info info;

	begin(2);
	for (unsigned id = 0; id < X86_CPUS_MAX + 8; id++)
		add_apic((uint8_t)id, 1);
	info = read_and_end();
	TAP_EQ(info.nr_cpus, X86_CPUS_MAX);
	TAP_EQ(info.apic_id[X86_CPUS_MAX - 1], X86_CPUS_MAX - 1);
}

TAP_TEST(acpi_reads_old_tables_and_the_address_of_the_local_apic)
{
	struct acpi_info info;

	begin(0);
	add_apic(0xab, 1);
	put(add_entry(MADT, 5, 12) + 4, 0x1fee00000, 8);
	seal_table(MADT);
	info = read_and_end();
	TAP_OK(is_ours(&info));
	TAP_EQ(info.local_apic, 0x1fee00000);
}

/* Entries without length would be read for ever; one beyond the end is none. */
TAP_TEST(acpi_stops_at_an_entry_that_cannot_be)
{
	static const uint8_t lengths[] = {0, 1, 9, 255};

	for (unsigned i = 0; i < sizeof(lengths); i++) {
		struct acpi_info info;

		begin(2);
		add_apic(0xab, 1);
		add_apic(0xac, 1);
		area[MADT + length_of(MADT) - 8 + 1] = lengths[i];
		seal_table(MADT);
		info = read_and_end();
		TAP_EQ(info.nr_cpus, 1);
		TAP_OK(is_ours(&info));
	}
}

TAP_TEST(acpi_ignores_entries_too_short_for_their_type)
{
	struct acpi_info info;

	begin(2);
	area[add_entry(MADT, 0, 4) + 3] = 0xac;
	(void)add_entry(MADT, 5, 4);
	(void)add_entry(MADT, 9, 8);
	add_apic(0xab, 1);
	info = read_and_end();
	TAP_EQ(info.nr_cpus, 1);
	TAP_OK(is_ours(&info));
	TAP_EQ(info.local_apic, 0xfee00000);
}

static void spoil_rsdp(void)
{
	area[9] ^= 1;
}

static void spoil_extended_rsdp(void)
{
	area[33] ^= 1;
}

static void spoil_xsdt(void)
{
	area[XSDT + 10] ^= 1;
}

static void spoil_madt(void)
{
	area[MADT + 10] ^= 1;
}

static void name_madt_otherwise(void)
{
	area[MADT] = 'X';
	seal_table(MADT);
}

static void shorten_madt(void)
{
	put(MADT + 4, TABLE_HEADER - 1, 4);
	seal_table(MADT);
}

static void lengthen_madt(void)
{
	put(MADT + 4, UINT32_MAX, 4);
}

static void place_madt_beyond_memory(void)
{
	put(XSDT + TABLE_HEADER, UINT64_MAX - 4, 8);
	seal_table(XSDT);
}

static void place_rsdp_beyond_memory(void)
{
	boot_map.rsdp = UINT64_MAX - 7;
}

static void (*const spoilers[])(void) = {
	spoil_rsdp, spoil_extended_rsdp, spoil_xsdt, spoil_madt, name_madt_otherwise, shorten_madt, lengthen_madt,
	place_madt_beyond_memory, place_rsdp_beyond_memory,
};

TAP_TEST(acpi_believes_no_table_that_is_unsound)
{
	for (unsigned i = 0; i < sizeof(spoilers) / sizeof(spoilers[0]); i++) {
		struct acpi_info info;

		begin(2);
		add_apic(0xab, 1);
		spoilers[i]();
		info = read_and_end();
		TAP_OK(!is_ours(&info));
		TAP_EQ(info.nr_cpus, machines_own().nr_cpus);
	}
}

/* The RAM that has a node, in bytes. */
static uint64_t bytes_of_node(unsigned node)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < boot_map.nr; i++)
		if (boot_map.range[i].node == node)
			sum += boot_map.range[i].end - boot_map.range[i].start;
	return sum;
}

TAP_TEST(acpi_gives_memory_its_node)
{
	struct acpi_info info;
	uint64_t bytes[3];

	begin(2);
	add_memory(7, 0, 64 * MF_MIB, 1);
	add_memory(3, 64 * MF_MIB, 32 * MF_MIB, 1);
	add_memory(7, 96 * MF_MIB, 128 * MF_GIB, 1);
	add_memory(9, 100 * MF_MIB, 8 * MF_MIB, 1);
	add_memory(5, 110 * MF_MIB, 8 * MF_MIB, 0);               /* not there        */
	add_memory(6, 112 * MF_MIB, 0, 1);                        /* nothing          */
	add_memory(6, 112 * MF_MIB, UINT64_MAX - MF_MIB, 1);      /* beyond addresses */
	acpi_init(&info);
	for (unsigned node = 0; node < 3; node++)
		bytes[node] = bytes_of_node(node);
	TAP_EQ(bytes_of_node(3), 0);
	boot_map = kept;
	TAP_OK(bytes[0] > 0);
	TAP_EQ(bytes[1], 32 * MF_MIB);
	TAP_EQ(bytes[2], 8 * MF_MIB);
}

TAP_MAIN()
