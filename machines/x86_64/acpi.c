/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * acpi.c - what firmware's tables say of processors (MADT) and of the node that memory is near to (SRAT).
 *
 * Owns nothing.  Law: a table counts when its length is possible and its checksum right; an entry when it lies whole in
 * its table.  Who has no tables is asked otherwise: QEMU's configuration device says how many processors there are, and
 * they have the numbers 0, 1, 2, ... there, as long as no level of their topology has a size that is no power of two.
 *
 * Limits: 8-bit numbers of APICs; X86_CPUS_MAX processors; processors that could be plugged in later are not there.
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/port.h"

enum {
	EBDA_POINTER = 0x40e, /* a segment */
	EBDA_SEARCHED = 1024,
	BIOS_START = 0xe0000,
	BIOS_END = 0x100000,
	RSDP_STEP = 16,

	TABLE_BYTES_MAX = 1 << 20,

	MADT_LOCAL_APIC = 0,
	MADT_LOCAL_APIC_ADDRESS = 5,
	MADT_LOCAL_X2APIC = 9,
	MADT_ENABLED = 1 << 0,
	APIC_ID_BROADCAST = 255,

	SRAT_MEMORY = 1,
	SRAT_ENABLED = 1 << 0,
	NODES_MAX = 64,

	CONFIG_SELECT = 0x510,
	CONFIG_DATA = 0x511,
	CONFIG_KEY_SIGNATURE = 0,
	CONFIG_KEY_NR_CPUS = 5,
};

#define DEFAULT_LOCAL_APIC 0xfee00000u

/* ---- Layouts, as the specification gives them ------------------------------------------------------------------ */

struct rsdp {
	char signature[8];
	uint8_t checksum; /* of the first RSDP_BYTES_1 */
	char oem[6];
	uint8_t revision; /* 2: what follows is there  */
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} __attribute__((packed));

enum { RSDP_BYTES_1 = 20 };
MF_BUILD_ASSERT(sizeof(struct rsdp) == 36, "as the specification has it");

struct table {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[6], oem_table[8];
	uint32_t oem_revision, creator, creator_revision;
} __attribute__((packed));

MF_BUILD_ASSERT(sizeof(struct table) == 36, "as the specification has it");

struct madt {
	struct table table;
	uint32_t local_apic, flags;
} __attribute__((packed));

struct srat {
	struct table table;
	uint8_t reserved[12];
} __attribute__((packed));

/* How entries of both begin. */
struct entry {
	uint8_t type, length;
} __attribute__((packed));

struct madt_local_apic {
	struct entry entry;
	uint8_t processor, apic_id;
	uint32_t flags;
} __attribute__((packed));

struct madt_local_apic_address {
	struct entry entry;
	uint16_t reserved;
	uint64_t address;
} __attribute__((packed));

struct madt_local_x2apic {
	struct entry entry;
	uint16_t reserved;
	uint32_t apic_id, flags, processor;
} __attribute__((packed));

struct srat_memory {
	struct entry entry;
	uint32_t domain;
	uint16_t reserved;
	uint64_t start, size;
	uint32_t reserved2, flags;
	uint64_t reserved3;
} __attribute__((packed));

MF_BUILD_ASSERT(sizeof(struct srat_memory) == 40, "as the specification has it");

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

/*
 * The direct map has what the boot map has; the rest of firmware's memory is looked at like a device.  NULL when there
 * can be no memory at all.
 */
static const void *look_at(uint64_t paddr, uint64_t size)
{
	uint64_t limit = (uint64_t)1 << x86_features.paddr_bits;

	if (paddr >= limit || size > limit - paddr)
		return NULL;
	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *r = &boot_map.range[i];

		if (r->start <= paddr && paddr < r->end && size <= r->end - paddr)
			return x86_direct(paddr);
	}
	return paging_map_device(paddr, size);
}

static bool has_signature(const char *signature, const char *expected, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		if (signature[i] != expected[i])
			return false;
	return true;
}

static bool sum_is_zero(const void *start, uint64_t size)
{
	const uint8_t *bytes = start;
	uint8_t sum = 0;

	for (uint64_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return sum == 0;
}

static bool rsdp_is_sound(const struct rsdp *rsdp)
{
	return rsdp && has_signature(rsdp->signature, "RSD PTR ", 8) && sum_is_zero(rsdp, RSDP_BYTES_1) &&
	       (rsdp->revision < 2 || sum_is_zero(rsdp, sizeof(*rsdp)));
}

static const struct rsdp *search_rsdp(uint64_t start, uint64_t end)
{
	const char *area = look_at(start, end - start);

	for (uint64_t at = 0; at + sizeof(struct rsdp) <= end - start; at += RSDP_STEP) {
		const struct rsdp *rsdp = (const void *)(area + at);

		if (rsdp_is_sound(rsdp))
			return rsdp;
	}
	return NULL;
}

/* Where the loader says, or where the specification says that a PC has it. */
static const struct rsdp *find_rsdp(void)
{
	const struct rsdp *rsdp;
	uint64_t ebda;

	if (boot_map.rsdp != 0) {
		rsdp = look_at(boot_map.rsdp, sizeof(*rsdp));
		if (rsdp_is_sound(rsdp))
			return rsdp;
	}
	ebda = (uint64_t)*(const uint16_t *)look_at(EBDA_POINTER, sizeof(uint16_t)) << 4;
	if (ebda != 0 && ebda + EBDA_SEARCHED <= BIOS_START) {
		rsdp = search_rsdp(ebda, ebda + EBDA_SEARCHED);
		if (rsdp)
			return rsdp;
	}
	return search_rsdp(BIOS_START, BIOS_END);
}

/* NULL when there is no such table, or none that is sound. */
static const struct table *table_at(uint64_t paddr, const char *signature)
{
	const struct table *table;

	if (paddr == 0)
		return NULL;
	table = look_at(paddr, sizeof(*table));
	if (!table || !has_signature(table->signature, signature, 4))
		return NULL;
	if (table->length < sizeof(*table) || table->length > TABLE_BYTES_MAX)
		return NULL;
	table = look_at(paddr, table->length);
	return table && sum_is_zero(table, table->length) ? table : NULL;
}

static uint64_t read_number(const char *bytes, unsigned nr)
{
	uint64_t number = 0;

	for (unsigned i = nr; i-- > 0;)
		number = number << 8 | (uint8_t)bytes[i];
	return number;
}

static const struct table *find_table(const struct rsdp *rsdp, const char *signature)
{
	const struct table *list = rsdp->revision >= 2 ? table_at(rsdp->xsdt, "XSDT") : NULL, *found = NULL;
	unsigned width = 8;

	if (!list) {
		list = table_at(rsdp->rsdt, "RSDT");
		width = 4;
	}
	for (uint64_t at = sizeof(*list); list && !found && at + width <= list->length; at += width)
		found = table_at(read_number((const char *)list + at, width), signature);
	return found;
}

/* The entry of a table at *at, which goes on behind it; NULL: no more. */
static const struct entry *next_entry(const struct table *table, uint64_t *at)
{
	const struct entry *entry = (const void *)((const char *)table + *at);

	if (*at + sizeof(*entry) > table->length)
		return NULL;
	if (entry->length < sizeof(*entry) || entry->length > table->length - *at)
		return NULL;
	*at += entry->length;
	return entry;
}

/* ---- Processors ------------------------------------------------------------------------------------------------ */

static void add_cpu(struct acpi_info *info, uint32_t id, uint32_t flags)
{
	if (!(flags & MADT_ENABLED) || id >= APIC_ID_BROADCAST || info->nr_cpus == X86_CPUS_MAX)
		return;
	for (unsigned i = 0; i < info->nr_cpus; i++)
		if (info->apic_id[i] == id)
			return;
	info->apic_id[info->nr_cpus++] = id;
}

static void read_madt(const struct madt *madt, struct acpi_info *info)
{
	const struct entry *entry;
	uint64_t at = sizeof(*madt);

	if (madt->table.length < sizeof(*madt))
		return;
	info->local_apic = madt->local_apic;
	while ((entry = next_entry(&madt->table, &at)) != NULL) {
		const struct madt_local_apic *local = (const void *)entry;
		const struct madt_local_x2apic *local2 = (const void *)entry;
		const struct madt_local_apic_address *address = (const void *)entry;

		if (entry->type == MADT_LOCAL_APIC && entry->length >= sizeof(*local))
			add_cpu(info, local->apic_id, local->flags);
		else if (entry->type == MADT_LOCAL_X2APIC && entry->length >= sizeof(*local2))
			add_cpu(info, local2->apic_id, local2->flags);
		else if (entry->type == MADT_LOCAL_APIC_ADDRESS && entry->length >= sizeof(*address))
			info->local_apic = address->address;
	}
}

static uint64_t config_read(uint16_t key, unsigned nr)
{
	uint64_t number = 0;

	port_write16(CONFIG_SELECT, key);
	for (unsigned i = 0; i < nr; i++)
		number |= (uint64_t)port_read8(CONFIG_DATA) << 8 * i;
	return number;
}

/* Only QEMU has that device, and says so: "QEMU" under the first key. */
static void ask_configuration(struct acpi_info *info)
{
	uint64_t nr;

	if (config_read(CONFIG_KEY_SIGNATURE, 4) != 0x554d4551)
		return;
	nr = mf_min(config_read(CONFIG_KEY_NR_CPUS, 2), X86_CPUS_MAX);
	for (uint32_t id = 0; id < nr; id++)
		add_cpu(info, id, MADT_ENABLED);
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

/* Domains may have any numbers; nodes have 0, 1, 2, ... in the order in which memory names their domains. */
static void read_srat(const struct srat *srat)
{
	uint32_t domains[NODES_MAX];
	const struct entry *entry;
	uint64_t at = sizeof(*srat);
	unsigned nr = 0, node;

	while ((entry = next_entry(&srat->table, &at)) != NULL) {
		const struct srat_memory *memory = (const void *)entry;

		if (entry->type != SRAT_MEMORY || entry->length < sizeof(*memory) || !(memory->flags & SRAT_ENABLED) ||
		    memory->size == 0 || memory->size > UINT64_MAX - memory->start)
			continue;
		for (node = 0; node < nr && domains[node] != memory->domain; node++)
			;
		MF_PANIC_IF(node == NODES_MAX, "memfold: x86_64: firmware tells of more than %u nodes.", NODES_MAX);
		if (node == nr)
			domains[nr++] = memory->domain;
		bootmap_set_node(memory->start, memory->start + memory->size, node);
	}
}

void acpi_init(struct acpi_info *info)
{
	const struct rsdp *rsdp = find_rsdp();
	const struct table *madt = rsdp ? find_table(rsdp, "APIC") : NULL;
	const struct table *srat = rsdp ? find_table(rsdp, "SRAT") : NULL;

	*info = (struct acpi_info){.local_apic = DEFAULT_LOCAL_APIC};
	if (madt)
		read_madt((const void *)madt, info);
	if (info->nr_cpus == 0)
		ask_configuration(info);
	if (info->nr_cpus == 0)
		info->nr_cpus = 1;
	if (srat)
		read_srat((const void *)srat);
}
