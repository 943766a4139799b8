/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run.c - the verb run: describes real memory of this machine under each layout in turn, works it, checks it, and
 * prints side by side what it really cost.  One row's work is in row.c.
 *
 * Without a size: every layout at a third of the memory, at most 8 GiB, and tiered once more at 1 TiB.
 */
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/row.h"
#include "cli/size.h"
#include "cli/verbs.h"
#include <inttypes.h>
#include <memfold/memfold.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROWS_MAX = 8 };

struct request {
	struct options_shared shared;
	enum mf_layout layout[ROWS_MAX];
	unsigned nr_layouts;
	struct row_request row; /* what is common to all rows                                            */
};

static int help(void)
{
	puts("Usage: memfold run [--size SIZE] [--unit 2MiB|1GiB] [OPTION]...\n"
	     "       memfold run [OPTION]... MACHINE.json\n"
	     "\n"
	     "Describes memory of this machine under each layout in turn, works it, checks it and measures it.\n"
	     "\n"
	     "      --size SIZE          memory to describe (default: rows of a third of the memory, at most 8GiB,\n"
	     "                           and one row, tiered, of 1TiB)\n"
	     "      --unit SIZE          what it is allocated in, or, devdax, its compounds: a power of two\n"
	     "                           (default 2MiB)\n"
	     "      --backing KIND       memfd (default), hugetlbfs, anon, or the path of a file or of a dax device\n"
	     "      --layout NAME,...    flat, hvo-5.14, hvo-5.18, hvo-7.1, devdax, tiered (default: all of them;\n"
	     "                           one that does not fit here is \"unable\", and says what it needs)\n"
	     "      --touch              write to every page of the described memory what it holds already\n"
	     "      --json               JSON for programs\n"
	     "      --help               show this help\n"
	     "\n"
	     "SIZE counts by 1024: 4096, 512MiB, 8GiB.");
	return EXIT_GOOD;
}

/* ---- Layouts --------------------------------------------------------------------------------------------- */

#define LAYOUT_NAMES "flat, hvo-5.14, hvo-5.18, hvo-7.1, devdax or tiered"

/* In the order of the schemes: from what costs most to what costs least. */
static void take_all_layouts(struct request *r)
{
	for (unsigned i = 0; i < MF_NR_SCHEMES; i++)
		if (mf_layout_by_name(mf_scheme_name((enum mf_scheme)i), &r->layout[r->nr_layouts]) == 0)
			r->nr_layouts++;
}

/* Why a layout cannot be run, for a message. */
static const char *layout_fault(const char *name)
{
	enum mf_scheme scheme;

	if (mf_scheme_by_name(name, &scheme) == 0)
		return "can be planned, but not run: in user space every map is in memory of the host";
	return "is no layout";
}

/* ---- The command line ----------------------------------------------------------------------------------- */

static bool take_layouts(struct request *r, const char *list)
{
	char name[64]; /* longer than what a message shows of it */

	r->nr_layouts = 0;
	for (;;) {
		size_t length = strcspn(list, ",");

		snprintf(name, sizeof(name), "%.*s", (int)length, list);
		if (r->nr_layouts == ROWS_MAX) {
			message_error("--layout: more than %d names; use each layout once", ROWS_MAX);
			return false;
		}
		if (mf_layout_by_name(name, &r->layout[r->nr_layouts]) != 0) {
			message_error("--layout: %s %s; use " LAYOUT_NAMES, message_quote(name), layout_fault(name));
			return false;
		}
		r->nr_layouts++;
		if (list[length] == '\0')
			return true;
		list += length + 1;
	}
}

static bool take_backing(struct request *r, const char *value)
{
	static const struct {
		const char *name;
		enum mf_linux_memory_kind kind;
	} kinds[] = { { "memfd", MF_LINUX_MEMFD }, { "hugetlbfs", MF_LINUX_HUGETLBFS }, { "anon", MF_LINUX_ANON } };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].name, value) == 0) {
			r->row.backing = kinds[i].kind;
			return true;
		}
	}
	if (!strchr(value, '/')) {
		message_error("--backing: %s is no kind of memory; use memfd, hugetlbfs, anon, or a path with a '/'",
			      message_quote(value));
		return false;
	}
	r->row.backing = strncmp(value, "/dev/dax", strlen("/dev/dax")) == 0 ? MF_LINUX_DAX : MF_LINUX_FILE;
	r->row.path = value;
	return true;
}

static bool take_option(void *ctx, int c, const char *value)
{
	struct request *r = ctx;

	switch (c) {
	case 'l':
		return take_layouts(r, value);
	case 'b':
		return take_backing(r, value);
	default:
		return r->row.touch = true;
	}
}

static bool read_options(struct request *r, int argc, char **argv)
{
	static const struct option table[] = {
		{ "layout", required_argument, NULL, 'l' },
		{ "backing", required_argument, NULL, 'b' },
		{ "touch", no_argument, NULL, 't' },
		OPTIONS_SHARED,
	};

	return options_read(&r->shared, argc, argv, table, take_option, r);
}

/* ---- Rows ------------------------------------------------------------------------------------------------- */

struct rows {
	struct row row[ROWS_MAX + 1];
	unsigned nr;
};

static unsigned host_page_shift(void)
{
	return mf_log2((uint64_t)sysconf(_SC_PAGESIZE));
}

static bool describe_range(uint64_t size, uint64_t unit, struct description_region *region, struct description *d)
{
	return options_describe_range(host_page_shift(), size, unit, region, d);
}

static bool run_row(const struct request *r, const struct description *d, enum mf_layout layout, bool as_described,
		    struct rows *rows)
{
	struct row_request row = r->row;

	row.machine = d;
	row.layout = layout;
	row.as_described = as_described;
	row_run(&row, &rows->row[rows->nr++]);
	if (rows->row[rows->nr - 1].status != ROW_REFUSED)
		return true;
	message_error("%s", rows->row[rows->nr - 1].why);
	return false;
}

static bool run_layouts(const struct request *r, const struct description *d, struct rows *rows)
{
	for (unsigned i = 0; i < r->nr_layouts; i++)
		if (!run_row(r, d, r->layout[i], false, rows))
			return false;
	return true;
}

/* What can be planned, but not run. */
static bool is_runnable(const char *file, const struct description *d)
{
	char text[SIZE_TEXT_MAX];

	if (d->page_shift < host_page_shift()) {
		message_error("%s: page_size: this host has no smaller pages than %s; use that", file,
			      size_exact(text, (uint64_t)1 << host_page_shift()));
		return false;
	}
	if (d->nr_regions > MF_LINUX_MEMORIES_MAX) {
		message_error("%s: regions: %u can be planned, but not run; use at most %d", file, d->nr_regions,
			      MF_LINUX_MEMORIES_MAX);
		return false;
	}
	for (unsigned i = 0; i < d->nr_regions; i++) {
		const char *name = mf_scheme_name(d->regions[i].layout);
		enum mf_layout layout;

		if (mf_layout_by_name(name, &layout) == 0)
			continue;
		message_error("%s: regions[%u].layout: %s %s; use " LAYOUT_NAMES, file, i, message_quote(name),
			      layout_fault(name));
		return false;
	}
	return true;
}

static bool has_layouts(const struct description *d)
{
	for (unsigned i = 0; i < d->nr_regions; i++)
		if (d->regions[i].has_layout)
			return true;
	return false;
}

static bool run_file(struct request *r, struct rows *rows)
{
	struct description d;
	bool good;

	if (!options_describe_file(r->shared.file, host_page_shift(), &d))
		return false;
	good = is_runnable(r->shared.file, &d);
	if (good && has_layouts(&d) && r->nr_layouts == 0) {
		good = run_row(r, &d, MF_LAYOUT_TIERED, true, rows);
	} else if (good) {
		if (r->nr_layouts == 0)
			take_all_layouts(r);
		good = run_layouts(r, &d, rows);
	}
	description_free(&d);
	return good;
}

static uint64_t default_size(uint64_t unit)
{
	uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	return mf_max(mf_min(ram / 3, 8 * MF_GIB) / unit * unit, unit);
}

static bool run_range(struct request *r, struct rows *rows)
{
	uint64_t unit = r->shared.has_unit ? r->shared.unit : 2 * MF_MIB;
	struct description_region region;
	struct description d;

	if (r->nr_layouts == 0)
		take_all_layouts(r);
	if (r->shared.has_size)
		return describe_range(r->shared.size, unit, &region, &d) && run_layouts(r, &d, rows);
	if (!describe_range(mf_is_power_of_two(unit) ? default_size(unit) : unit, unit, &region, &d) ||
	    !run_layouts(r, &d, rows))
		return false;
	/* Described, never touched: what a flat map could not do here. */
	if (r->row.backing != MF_LINUX_MEMFD || r->row.touch || unit > MF_TIB)
		return true;
	return describe_range(MF_TIB, unit, &region, &d) && run_row(r, &d, MF_LAYOUT_TIERED, false, rows);
}

/* ---- Results ------------------------------------------------------------------------------------------------ */

static double per_2mib(const struct row *row)
{
	return (double)(row->map_bytes + row->table_bytes) * (2.0 * (double)MF_MIB) / (double)row->described_bytes;
}

/* What the map of 1 TiB takes at this rate. */
static uint64_t per_tib(const struct row *row)
{
	return (uint64_t)((double)row->map_bytes * ((double)MF_TIB / (double)row->described_bytes) + 0.5);
}

static const char *status_name(enum row_status status)
{
	return status == ROW_OK ? "ok" : status == ROW_UNABLE ? "unable" : "broken";
}

static void add_line(struct libscols_table *table, const struct row *row)
{
	char text[8][SIZE_TEXT_MAX];
	bool ok = row->status == ROW_OK;

	size_rounded(text[0], row->described_bytes);
	size_exact(text[1], row->unit_bytes);
	size_rounded(text[2], row->map_bytes);
	size_rounded(text[3], per_tib(row));
	size_rounded(text[4], row->table_bytes);
	snprintf(text[5], SIZE_TEXT_MAX, "%.1f", per_2mib(row));
	snprintf(text[6], SIZE_TEXT_MAX, "%.3f ms", (double)row->bring_up_ns / 1e6);
	snprintf(text[7], SIZE_TEXT_MAX, "%.1f ns", row->pin_unpin_ns);
	output_line(table,
		    (const char *const[]){ row->name, text[0], row->unit_bytes ? text[1] : "several",
					   ok ? text[2] : NULL, ok ? text[3] : NULL, ok ? text[4] : NULL,
					   ok ? text[5] : NULL, ok ? text[6] : NULL, ok ? text[7] : NULL,
					   ok ? row->laws : status_name(row->status) },
		    10);
}

static void print_table(const struct rows *rows)
{
	static const struct output_column columns[] = {
		{ "LAYOUT", OUTPUT_LEFT },	{ "DESCRIBED", OUTPUT_RIGHT }, { "UNIT", OUTPUT_RIGHT },
		{ "MAP", OUTPUT_RIGHT },	{ "MAP/TiB", OUTPUT_RIGHT },   { "PAGE TABLES", OUTPUT_RIGHT },
		{ "BYTES/2MiB", OUTPUT_RIGHT }, { "BRING-UP", OUTPUT_RIGHT },  { "PIN+UNPIN", OUTPUT_RIGHT },
		{ "LAWS", OUTPUT_LEFT },
	};
	struct libscols_table *table = output_table(columns, sizeof(columns) / sizeof(columns[0]));

	for (unsigned i = 0; i < rows->nr; i++)
		add_line(table, &rows->row[i]);
	output_table_print(table);
	for (unsigned i = 0; i < rows->nr; i++)
		if (rows->row[i].status != ROW_OK)
			printf("%s: %s: %s\n", rows->row[i].name, status_name(rows->row[i].status), rows->row[i].why);
}

static struct json_object *row_object(const struct row *row)
{
	struct json_object *object = output_object();

	output_add_string(object, "layout", row->name);
	output_add_string(object, "status", status_name(row->status));
	output_add_number(object, "described_bytes", row->described_bytes);
	if (row->unit_bytes)
		output_add_number(object, "unit_bytes", row->unit_bytes);
	else
		output_add(object, "unit_bytes", NULL); /* null: regions differ */
	if (row->status != ROW_OK)
		output_add_string(object, "why", row->why);
	if (row->status == ROW_UNABLE)
		return object;
	output_add_number(object, "map_bytes", row->map_bytes);
	output_add_number(object, "map_bytes_per_tib", per_tib(row));
	output_add_number(object, "table_bytes", row->table_bytes);
	output_add_decimal(object, "bytes_per_2mib", per_2mib(row));
	output_add_number(object, "bring_up_ns", row->bring_up_ns);
	output_add_number(object, "remap_ns", row->remap_ns);
	output_add_decimal(object, "pin_unpin_ns", row->pin_unpin_ns);
	output_add_number(object, "base_pages", row->nr_base_pages);
	output_add_number(object, "dieted_units", row->nr_dieted);
	output_add_string(object, "laws", row->laws);
	return object;
}

static void print_json(const struct rows *rows)
{
	struct json_object *top = output_object(), *layouts = output_array();

	output_add_number(top, "schema", 1);
	for (unsigned i = 0; i < rows->nr; i++)
		output_append(layouts, row_object(&rows->row[i]));
	output_add(top, "layouts", layouts);
	output_object_print(top);
}

static int verdict(const struct rows *rows)
{
	int code = EXIT_UNABLE;

	for (unsigned i = 0; i < rows->nr; i++) {
		if (rows->row[i].status == ROW_BROKEN)
			return EXIT_FINDING;
		if (rows->row[i].status == ROW_OK)
			code = EXIT_GOOD;
	}
	return code;
}

int cmd_run(int argc, char **argv)
{
	static struct rows rows;
	struct request r = { .row = { .backing = MF_LINUX_MEMFD } };

	if (!read_options(&r, argc, argv))
		return EXIT_UNABLE;
	if (r.shared.help)
		return help();
	r.row.progress = isatty(STDERR_FILENO) == 1;
	if (!(r.shared.file ? run_file(&r, &rows) : run_range(&r, &rows)))
		return EXIT_UNABLE;
	if (r.shared.json)
		print_json(&rows);
	else
		print_table(&rows);
	if (verdict(&rows) == EXIT_UNABLE)
		message_error("no layout could run; standard output says why");
	return verdict(&rows);
}
