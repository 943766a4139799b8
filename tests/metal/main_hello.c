/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_hello.c - the smallest program on the port: prints what the loader told, and ends with 0.
 */
#include "machines/x86_64/x86_64.h"

static const char *const kind_names[] = {
	[BOOT_RAM] = "RAM", [BOOT_IMAGE] = "image", [BOOT_DATA] = "boot data", [BOOT_FIRMWARE] = "firmware",
};

int x86_main(void)
{
	console_print("memfold " MF_VERSION " on x86-64: %u CPUs, %u levels, command line \"%s\"\n", x86_nr_cpus,
		      x86_features.levels, boot_map.command_line);
	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *range = &boot_map.range[i];

		console_print("[0x%012llx, 0x%012llx) node %u %s\n", (unsigned long long)range->start,
			      (unsigned long long)range->end, range->node, kind_names[range->kind]);
	}
	console_print("rsdp at 0x%llx, %llu bytes of the heap in use\n", (unsigned long long)boot_map.rsdp,
		      (unsigned long long)heap_used());
	return 0;
}
