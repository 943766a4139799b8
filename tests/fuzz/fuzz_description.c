/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_description.c - any bytes as MACHINE.json.
 *
 * What is accepted must be well formed, and every region must have a plan under every scheme; what is refused must
 * say so in one line.  Links cli/description*.c, cli/size.c and cli/message.c, json-c.
 */
#include "cli/description.h"
#include "cli/message.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_region(const struct description *d, unsigned i)
{
	const struct description_region *r = &d->regions[i];
	struct mf_plan_input in = {.page_shift = d->page_shift, .top = r->top, .source = r->source};
	struct mf_plan plan;

	require(r->size_bytes > 0 && mf_is_power_of_two(r->unit_bytes) && r->unit_bytes >> d->page_shift > 0);
	require(((r->start_bytes | r->size_bytes) & (r->unit_bytes - 1)) == 0);
	require(r->start_bytes + r->size_bytes <= MF_PLAN_BYTES_MAX && r->node < MF_NODES_MAX);
	for (unsigned j = 0; j < i && i < 64; j++) {
		const struct description_region *other = &d->regions[j];

		require(r->start_bytes + r->size_bytes <= other->start_bytes ||
			other->start_bytes + other->size_bytes <= r->start_bytes);
		require(r->name[0] == '\0' || strcmp(r->name, other->name) != 0);
	}
	in.described_frames = r->size_bytes >> d->page_shift;
	in.unit_order = mf_log2(r->unit_bytes) - d->page_shift;
	in.nr_split_units = (in.described_frames >> in.unit_order) / 2;
	for (unsigned scheme = 0; scheme < MF_NR_SCHEMES; scheme++)
		require(mf_plan((enum mf_scheme)scheme, &in, &plan) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char message[MESSAGE_MAX] = "";
	struct description d;

	if (description_parse((const char *)data, size, 12, &d, message, sizeof(message)) != 0) {
		require(message[0] != '\0' && !strchr(message, '\n'));
		return 0;
	}
	require(d.nr_regions > 0 && (d.page_shift == 12 || d.page_shift == 14 || d.page_shift == 16));
	for (unsigned i = 0; i < d.nr_regions; i++)
		check_region(&d, i);
	description_free(&d);
	return 0;
}
