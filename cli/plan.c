/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan.c - the verb plan: what a machine's memory map would cost under each scheme, without the memory.
 *
 * Owns the sums.  The sums of one range are mf_plan()'s; a machine is summed region by region, each counted for the
 * range alone.
 */
#include "cli/description.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/size.h"
#include "cli/verbs.h"
#include <inttypes.h>
#include <stdio.h>

struct request {
	struct options_shared shared;
	unsigned page_shift; /* 0: not given                                  */
	uint64_t numerator, denominator;
	enum mf_source source;
	struct description machine;
	struct description_region range; /* the machine's only one, without a file       */
};

struct sum {
	struct mf_plan total;
	uint64_t nr_split;
	bool self; /* a region is its own source */
};

struct sums {
	struct sum scheme[MF_NR_SCHEMES];
	struct sum described; /* each region under the layout that the file says */
	bool has_described;
	uint64_t unit_bytes; /* 0: regions differ */
};

static int help(void)
{
	puts("Usage: memfold plan [--size SIZE] [--unit SIZE] [OPTION]...\n"
	     "       memfold plan [OPTION]... MACHINE.json\n"
	     "\n"
	     "Says what a memory map would cost under each scheme: frames in map slots and in page tables.\n"
	     "\n"
	     "      --size SIZE       memory to describe, up to 1EiB (default 1TiB)\n"
	     "      --unit SIZE       what it is used in: a power of two (default: one block of tier 1,\n"
	     "                        2MiB for pages of 4KiB)\n"
	     "      --page-size SIZE  4KiB (default), 16KiB or 64KiB\n"
	     "      --split FRACTION  share of the units that is used as base pages: 0.25, 25% or 1/4 (default 0)\n"
	     "      --source SOURCE   where tiered and flat take map frames: ram (default) or self,\n"
	     "                        the described memory\n"
	     "      --json            JSON for programs\n"
	     "      --help            show this help\n"
	     "\n"
	     "SIZE counts by 1024: 4096, 512MiB, 8GiB, 1EiB.");
	return EXIT_GOOD;
}

/* ---- The command line ----------------------------------------------------------------------------------- */

static bool take_option(void *ctx, int c, const char *value)
{
	struct request *r = ctx;
	char message[MESSAGE_MAX];

	switch (c) {
	case 'p':
		if (size_parse_page(value, &r->page_shift, message, sizeof(message)) == 0)
			return true;
		message_error("--page-size: %s", message);
		return false;
	case 'f':
		if (size_parse_share(value, &r->numerator, &r->denominator, message, sizeof(message)) == 0)
			return true;
		message_error("--split: %s", message);
		return false;
	default:
		if (mf_source_by_name(value, &r->source) == 0 &&
		    (r->source == MF_SOURCE_SELF || r->source == MF_SOURCE_RAM))
			return true;
		message_error("--source: %s is no source to plan for; use self or ram", message_quote(value));
		return false;
	}
}

static bool read_options(struct request *r, int argc, char **argv)
{
	static const struct option table[] = {
		{"page-size", required_argument, NULL, 'p'},
		{"split", required_argument, NULL, 'f'},
		{"source", required_argument, NULL, 'o'},
		OPTIONS_SHARED,
	};

	return options_read(&r->shared, argc, argv, table, take_option, r);
}

static bool describe_range(struct request *r)
{
	unsigned page_shift = r->page_shift ? r->page_shift : 12;
	uint64_t size = r->shared.has_size ? r->shared.size : MF_TIB;
	uint64_t unit = r->shared.has_unit ? r->shared.unit : (uint64_t)1 << (2 * page_shift - 3);

	return options_describe_range(page_shift, size, unit, &r->range, &r->machine);
}

static bool describe_file(struct request *r)
{
	if (!options_describe_file(r->shared.file, r->page_shift ? r->page_shift : 12, &r->machine))
		return false;
	if (!r->page_shift || r->machine.page_shift == r->page_shift)
		return true;
	message_error("--page-size: %s says another page_size; leave out one of them", message_quote(r->shared.file));
	description_free(&r->machine);
	return false;
}

/* ---- Sums ----------------------------------------------------------------------------------------------- */

/* Regions do not overlap and end below 1 EiB, so no sum comes near 2^64. */
static bool add_region(const struct request *r, const struct description_region *region, enum mf_scheme scheme,
		       struct sum *sum)
{
	struct mf_plan_input in = {
		.described_frames = region->size_bytes >> r->machine.page_shift,
		.page_shift = r->machine.page_shift,
		.unit_order = mf_log2(region->unit_bytes) - r->machine.page_shift,
		.top = region->top,
		.source = region->has_source ? region->source : r->source,
	};
	struct mf_plan plan;
	int err = mf_plan_split_units(region->size_bytes / region->unit_bytes, r->numerator, r->denominator,
				      &in.nr_split_units);

	if (!err)
		err = mf_plan(scheme, &in, &plan);
	if (err) {
		message_error("%s cannot be planned: %s", mf_scheme_name(scheme), mf_strerror(err));
		return false;
	}
	sum->total.nr_units += plan.nr_units;
	sum->total.nr_units_obtainable += plan.nr_units_obtainable;
	sum->total.described_bytes += plan.described_bytes;
	sum->total.descriptor_bytes += plan.descriptor_bytes;
	sum->total.table_bytes += plan.table_bytes;
	sum->total.total_bytes += plan.total_bytes;
	sum->total.pool_idle_bytes += plan.pool_idle_bytes;
	sum->nr_split += in.nr_split_units;
	sum->self |= in.source == MF_SOURCE_SELF;
	return true;
}

static bool sum_up(const struct request *r, struct sums *sums)
{
	for (unsigned i = 0; i < r->machine.nr_regions; i++) {
		const struct description_region *region = &r->machine.regions[i];

		for (unsigned scheme = 0; scheme < MF_NR_SCHEMES; scheme++)
			if (!add_region(r, region, (enum mf_scheme)scheme, &sums->scheme[scheme]))
				return false;
		if (!add_region(r, region, region->layout, &sums->described))
			return false;
		sums->has_described |= region->has_layout;
		if (i == 0)
			sums->unit_bytes = region->unit_bytes;
		else if (sums->unit_bytes != region->unit_bytes)
			sums->unit_bytes = 0;
	}
	return true;
}

static double per_unit(const struct mf_plan *total)
{
	return (double)total->total_bytes / (double)total->nr_units;
}

/* ---- A table -------------------------------------------------------------------------------------------- */

static void print_head(const struct request *r, const struct sums *sums)
{
	const struct sum *sum = &sums->scheme[MF_SCHEME_TIERED];
	char size[SIZE_TEXT_MAX], unit[SIZE_TEXT_MAX], page[SIZE_TEXT_MAX];

	size_rounded(size, sum->total.described_bytes);
	size_exact(page, (uint64_t)1 << r->machine.page_shift);
	if (sums->unit_bytes)
		size_exact(unit, sums->unit_bytes);
	printf("%s in %" PRIu64 " units of %s", size, sum->total.nr_units, sums->unit_bytes ? unit : "several sizes");
	if (sum->nr_split > 0)
		printf(", %" PRIu64 " of them split", sum->nr_split);
	printf("; pages of %s; map frames %s\n\n", page,
	       sum->self ? "of tiered and flat from the memory itself" : "from RAM");
}

static void add_line(struct libscols_table *table, const char *name, const struct mf_plan *total,
		     const struct mf_plan *flat)
{
	double share = 100.0 * (double)total->total_bytes / (double)flat->total_bytes;
	char text[7][SIZE_TEXT_MAX];

	size_rounded(text[0], total->descriptor_bytes);
	size_rounded(text[1], total->table_bytes);
	size_rounded(text[2], total->total_bytes);
	snprintf(text[3], SIZE_TEXT_MAX, "%.1f", per_unit(total));
	snprintf(text[4], SIZE_TEXT_MAX, share < 0.01 ? "< 0.01 %%" : "%.2f %%", share);
	snprintf(text[5], SIZE_TEXT_MAX, "%" PRIu64, total->nr_units_obtainable);
	size_rounded(text[6], total->pool_idle_bytes);
	output_line(table,
		    (const char *const[]){name, text[0], text[1], text[2], text[3], text[4], text[5], text[6]}, 8);
}

static void print_table(const struct request *r, const struct sums *sums)
{
	static const struct output_column columns[] = {
		{"SCHEME", OUTPUT_LEFT},     {"DESCRIPTORS", OUTPUT_RIGHT}, {"TABLES", OUTPUT_RIGHT},
		{"TOTAL", OUTPUT_RIGHT},     {"BYTES/UNIT", OUTPUT_RIGHT},  {"OF FLAT", OUTPUT_RIGHT},
		{"OBTAINABLE", OUTPUT_RIGHT}, {"IDLE", OUTPUT_RIGHT},
	};
	const struct mf_plan *flat = &sums->scheme[MF_SCHEME_FLAT].total;
	const struct mf_plan *tiered = &sums->scheme[MF_SCHEME_TIERED].total;
	struct libscols_table *table = output_table(columns, sizeof(columns) / sizeof(columns[0]));
	char size[SIZE_TEXT_MAX];

	print_head(r, sums);
	for (unsigned i = 0; i < MF_NR_SCHEMES; i++)
		add_line(table, mf_scheme_name((enum mf_scheme)i), &sums->scheme[i].total, flat);
	if (sums->has_described)
		add_line(table, "as described", &sums->described.total, flat);
	output_table_print(table);
	printf("\ntiered: %s, %.*f %% of what flat takes for the same memory.\n",
	       size_rounded(size, tiered->total_bytes), tiered->total_bytes < flat->total_bytes / 10 ? 3 : 1,
	       100.0 * (double)tiered->total_bytes / (double)flat->total_bytes);
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

static struct json_object *costs(const char *scheme, const struct sum *sum)
{
	struct json_object *object = output_object();

	if (scheme)
		output_add_string(object, "scheme", scheme);
	output_add_number(object, "descriptor_bytes", sum->total.descriptor_bytes);
	output_add_number(object, "table_bytes", sum->total.table_bytes);
	output_add_number(object, "total_bytes", sum->total.total_bytes);
	output_add_decimal(object, "bytes_per_unit", per_unit(&sum->total));
	output_add_number(object, "pool_idle_bytes", sum->total.pool_idle_bytes);
	output_add_number(object, "units_obtainable", sum->total.nr_units_obtainable);
	return object;
}

static void print_json(const struct request *r, const struct sums *sums)
{
	const struct sum *tiered = &sums->scheme[MF_SCHEME_TIERED];
	struct json_object *top = output_object(), *schemes = output_array();

	output_add_number(top, "schema", 1);
	output_add_number(top, "described_bytes", tiered->total.described_bytes);
	if (sums->unit_bytes)
		output_add_number(top, "unit_bytes", sums->unit_bytes);
	else
		output_add(top, "unit_bytes", NULL); /* null: regions differ */
	output_add_number(top, "page_bytes", (uint64_t)1 << r->machine.page_shift);
	output_add_number(top, "units", tiered->total.nr_units);
	output_add_number(top, "split_units", tiered->nr_split);
	for (unsigned i = 0; i < MF_NR_SCHEMES; i++)
		output_append(schemes, costs(mf_scheme_name((enum mf_scheme)i), &sums->scheme[i]));
	output_add(top, "schemes", schemes);
	if (sums->has_described)
		output_add(top, "as_described", costs(NULL, &sums->described));
	output_object_print(top);
}

int cmd_plan(int argc, char **argv)
{
	struct request r = {.denominator = 1, .source = MF_SOURCE_RAM};
	struct sums sums = {.has_described = false};
	int code = EXIT_UNABLE;

	if (!read_options(&r, argc, argv))
		return EXIT_UNABLE;
	if (r.shared.help)
		return help();
	if (!(r.shared.file ? describe_file(&r) : describe_range(&r)))
		return EXIT_UNABLE;
	if (sum_up(&r, &sums)) {
		if (r.shared.json)
			print_json(&r, &sums);
		else
			print_table(&r, &sums);
		code = EXIT_GOOD;
	}
	if (r.shared.file)
		description_free(&r.machine);
	return code;
}
