/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * output.h - results on standard output: a table for people (libsmartcols), JSON for programs (json-c).
 *
 * JSON: bytes are integers, addresses hexadecimal strings, the top object says "schema": 1.  Whoever runs out of
 * memory here ends the program with a message and EXIT_UNABLE.  Failed writes are kept for output_finish(), which
 * main() calls once.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stddef.h>
#include <stdint.h>
#include <json-c/json.h>
#include <libsmartcols/libsmartcols.h>

enum output_align { OUTPUT_LEFT, OUTPUT_RIGHT };

struct output_column {
	const char *name;
	enum output_align align;
};

/* A table without lines; owned by the caller until output_table_print(). */
struct libscols_table *output_table(const struct output_column *columns, size_t nr_columns);

/* A new line; cells[i] is copied, NULL stays empty. */
void output_line(struct libscols_table *table, const char *const *cells, size_t nr_cells);

/* Prints the table, never cut to the width of a terminal, and frees it. */
void output_table_print(struct libscols_table *table);

struct json_object *output_object(void);
struct json_object *output_array(void);

/* Adds a member or an element; the container owns it from then on. */
void output_add(struct json_object *object, const char *key, struct json_object *value);
void output_append(struct json_object *array, struct json_object *value);
void output_add_string(struct json_object *object, const char *key, const char *value);
void output_add_number(struct json_object *object, const char *key, uint64_t value);

/* A number with at most three decimals. */
void output_add_decimal(struct json_object *object, const char *key, double value);

/* Prints the object as one document and frees it. */
void output_object_print(struct json_object *object);

/* Closes standard output.  Gives: the code, or EXIT_UNABLE after a message when not all could be written. */
int output_finish(int code);

#endif
