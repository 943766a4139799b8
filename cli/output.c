/* SPDX-License-Identifier: BSD-2-Clause */
/* output.c - see output.h.  Owns one flag: that a table could not be written. */
#include "cli/output.h"
#include "cli/message.h"
#include "cli/verbs.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int table_error;

static _Noreturn void no_memory(void)
{
	exit(message_unable("not enough memory for the output"));
}

struct libscols_table *output_table(const struct output_column *columns, size_t nr_columns)
{
	struct libscols_table *table = scols_new_table();

	if (!table || scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER) != 0 ||
	    scols_table_set_column_separator(table, "  ") != 0)
		no_memory();
	for (size_t i = 0; i < nr_columns; i++)
		if (!scols_table_new_column(table, columns[i].name, 0,
					    columns[i].align == OUTPUT_RIGHT ? SCOLS_FL_RIGHT : 0))
			no_memory();
	return table;
}

void output_line(struct libscols_table *table, const char *const *cells, size_t nr_cells)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);

	if (!line)
		no_memory();
	for (size_t i = 0; i < nr_cells; i++)
		if (cells[i] && scols_line_set_data(line, i, cells[i]) != 0)
			no_memory();
}

void output_table_print(struct libscols_table *table)
{
	int err;

	/* The library writes to the stream without looking; a stream that fails is seen by output_finish(). */
	scols_table_set_stream(table, stdout);
	err = scols_print_table(table);
	if (err && !table_error)
		table_error = -err;
	scols_unref_table(table);
}

struct json_object *output_object(void)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		no_memory();
	return object;
}

struct json_object *output_array(void)
{
	struct json_object *array = json_object_new_array();

	if (!array)
		no_memory();
	return array;
}

void output_add(struct json_object *object, const char *key, struct json_object *value)
{
	if (json_object_object_add(object, key, value) != 0)
		no_memory();
}

void output_append(struct json_object *array, struct json_object *value)
{
	if (json_object_array_add(array, value) != 0)
		no_memory();
}

void output_add_string(struct json_object *object, const char *key, const char *value)
{
	struct json_object *string = json_object_new_string(value);

	if (!string)
		no_memory();
	output_add(object, key, string);
}

void output_add_number(struct json_object *object, const char *key, uint64_t value)
{
	struct json_object *number = json_object_new_uint64(value);

	if (!number)
		no_memory();
	output_add(object, key, number);
}

void output_add_decimal(struct json_object *object, const char *key, double value)
{
	struct json_object *number;
	char text[64];

	snprintf(text, sizeof(text), "%.3f", value);
	number = json_object_new_double_s(value, text);
	if (!number)
		no_memory();
	output_add(object, key, number);
}

void output_object_print(struct json_object *object)
{
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
									 JSON_C_TO_STRING_NOSLASHESCAPE);

	if (!text)
		no_memory();
	puts(text);
	json_object_put(object);
}

int output_finish(int code)
{
	int err = table_error;

	errno = 0;
	if (ferror(stdout) && !err)
		err = EIO;
	if (fflush(stdout) != 0 && errno != 0)
		err = errno;
	if (fclose(stdout) != 0 && !err)
		err = errno ? errno : EIO;
	if (!err)
		return code;
	return message_unable("standard output: %s; the result is incomplete", strerror(err));
}
