/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * description.c - MACHINE.json into struct description; see description.h.
 *
 * Owns no state.  Order: JSON, keys (description_keys.c), one value after the other, regions against each other
 * (description_regions.c).  The first thing wrong is the message.
 */
#include "cli/description.h"
#include "cli/message.h"
#include "cli/size.h"
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where we are, and the message when something is wrong there. */
struct parse {
	struct description *d;
	char *message;
	size_t message_size;
	char where[48]; /* "regions[1]." */
};

static int wrong(struct parse *p, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int wrong(struct parse *p, const char *key, const char *format, ...)
{
	char text[MESSAGE_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(p->message, p->message_size, "%s%s: %s", p->where, key, text);
	return -MF_EINVAL;
}

/* ---- Values ------------------------------------------------------------------------------------------------ */

static const char *as_written(struct json_object *value)
{
	return message_json(json_object_to_json_string_ext(value, JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* NULL after a message when it is no string, or one with a zero byte in it. */
static const char *string_of(struct parse *p, const char *key, struct json_object *value, const char *example)
{
	const char *text = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;

	if (text && strlen(text) == (size_t)json_object_get_string_len(value))
		return text;
	wrong(p, key, "%s is no text; write it as in %s", as_written(value), example);
	return NULL;
}

static int number_of(struct parse *p, const char *key, struct json_object *value, uint64_t lowest, uint64_t highest,
		     uint64_t *number)
{
	if (json_object_is_type(value, json_type_int) && json_object_get_int64(value) >= 0) {
		uint64_t n = json_object_get_uint64(value);

		/* json-c saturates; what it saturates to is in no range asked for here. */
		if (n == UINT64_MAX)
			return wrong(p, key, "the number does not fit in 64 bits; the largest here is %" PRIu64,
				     highest);
		if (n >= lowest && n <= highest) {
			*number = n;
			return 0;
		}
	}
	return wrong(p, key, "%s is no whole number from %" PRIu64 " to %" PRIu64, as_written(value), lowest, highest);
}

static int bytes_of(struct parse *p, const char *key, struct json_object *value, uint64_t *bytes)
{
	char message[MESSAGE_MAX];
	const char *text;
	int err;

	if (json_object_is_type(value, json_type_int))
		return number_of(p, key, value, 0, MF_PLAN_BYTES_MAX, bytes);
	text = string_of(p, key, value, "\"8GiB\"");
	if (!text)
		return -MF_EINVAL;
	err = size_parse(text, bytes, message, sizeof(message));
	return err ? wrong(p, key, "%s", message) : 0;
}

/* ---- Keys of a region ---------------------------------------------------------------------------------------- */

static int take_name(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	const char *text = string_of(p, key, value, "\"ram0\"");

	if (!text)
		return -MF_EINVAL;
	if (text[0] == '\0' || strlen(text) >= sizeof(r->name))
		return wrong(p, key, "%s is empty or longer than %zu bytes", message_quote(text), sizeof(r->name) - 1);
	for (const char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return wrong(p, key, "%s has control characters in it; leave them out", message_quote(text));
	strcpy(r->name, text);
	return 0;
}

static int take_start(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	return bytes_of(p, key, value, &r->start_bytes);
}

static int take_size(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	return bytes_of(p, key, value, &r->size_bytes);
}

static int take_unit(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	int err = bytes_of(p, key, value, &r->unit_bytes);

	return !err && r->unit_bytes == 0 ? wrong(p, key, "0 is no unit; write it as in \"2MiB\"") : err;
}

static int take_node(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	uint64_t n;
	int err = number_of(p, key, value, 0, MF_NODES_MAX - 1, &n);

	if (!err)
		r->node = (unsigned)n;
	return err;
}

static int take_top(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	uint64_t n;
	int err = number_of(p, key, value, 1, 2, &n);

	if (!err)
		r->top = (unsigned)n;
	return err;
}

static int take_layout(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	const char *text = string_of(p, key, value, "\"tiered\"");

	if (!text)
		return -MF_EINVAL;
	if (mf_scheme_by_name(text, &r->layout) != 0)
		return wrong(p, key,
			     "%s is no layout; use flat, tiered, hvo-5.14, hvo-5.18, hvo-7.1, devdax or devdax-altmap",
			     message_quote(text));
	r->has_layout = true;
	return 0;
}

static int take_source(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	const char *text = string_of(p, key, value, "\"self\"");

	if (!text)
		return -MF_EINVAL;
	if (mf_source_by_name(text, &r->source) != 0)
		return wrong(p, key, "%s is no source; use self, ram, altmap or host", message_quote(text));
	r->has_source = true;
	return 0;
}

static const struct region_key {
	const char *name;
	int (*take)(struct parse *p, const char *key, struct json_object *value, struct description_region *r);
} region_keys[] = {
	{"name", take_name}, {"start", take_start},   {"size", take_size}, {"node", take_node},
	{"unit", take_unit}, {"layout", take_layout}, {"top", take_top},   {"source", take_source},
};

static int take_region_key(struct parse *p, const char *key, struct json_object *value, struct description_region *r)
{
	for (size_t i = 0; i < sizeof(region_keys) / sizeof(region_keys[0]); i++)
		if (strcmp(region_keys[i].name, key) == 0)
			return region_keys[i].take(p, key, value, r);
	p->where[strlen(p->where) - 1] = '\0';
	return wrong(p, "",
		     "unknown key %s; known are name, start, size, node, layout, unit, source and top",
		     message_quote(key));
}

/* ---- A region on its own ---------------------------------------------------------------------------------------- */

/*
 * What a layout of Linux cannot be hosted by: a map that lies in the memory it describes goes on no diet, and a region
 * of compounds has no frame to spare for its map, unless it is an altmap's.
 */
static int check_source(struct parse *p, const struct description_region *r)
{
	bool outside = r->source == MF_SOURCE_RAM || r->source == MF_SOURCE_HOST, good;
	const char *right;

	switch (r->layout) {
	case MF_SCHEME_FLAT:
	case MF_SCHEME_TIERED:
		return 0;
	case MF_SCHEME_DEVDAX:
		good = outside;
		right = "ram, or altmap and the layout devdax-altmap";
		break;
	case MF_SCHEME_DEVDAX_ALTMAP:
		good = r->source == MF_SOURCE_ALTMAP;
		right = "altmap";
		break;
	default:
		good = r->source != MF_SOURCE_SELF;
		right = "ram, or the layout tiered or flat";
	}
	if (good || !r->has_source)
		return 0;
	return wrong(p, "source", "\"%s\" is no source for %s; use %s", mf_source_name(r->source),
		     mf_scheme_name(r->layout), right);
}

static int check_region(struct parse *p, struct description_region *r)
{
	uint64_t block = (uint64_t)1 << (2 * p->d->page_shift - 3), page = (uint64_t)1 << p->d->page_shift;
	char message[MESSAGE_MAX], start[SIZE_TEXT_MAX], unit[SIZE_TEXT_MAX], right[SIZE_TEXT_MAX];
	int err;

	if (r->unit_bytes == 0)
		r->unit_bytes = (r->start_bytes | r->size_bytes) & (block - 1) ? page : block;
	err = size_check_units(p->d->page_shift, r->size_bytes, r->unit_bytes, message, sizeof(message));
	if (err) {
		snprintf(p->message, p->message_size, "%s%s", p->where, message);
		return err;
	}
	size_exact(start, r->start_bytes);
	size_exact(unit, r->unit_bytes);
	if (r->start_bytes > MF_PLAN_BYTES_MAX - r->size_bytes)
		return wrong(p, "start", "%s and the size go beyond 1EiB, where addresses end", start);
	if (r->start_bytes & (r->unit_bytes - 1))
		return wrong(p, "start", "%s is no multiple of the unit, %s; use %s", start, unit,
			     size_exact(right, mf_round_up(r->start_bytes, r->unit_bytes)));
	return check_source(p, r);
}

static int parse_region(struct parse *p, struct json_object *object, struct description_region *r)
{
	int err;

	*r = (struct description_region){.top = 2, .layout = MF_SCHEME_TIERED, .source = MF_SOURCE_RAM};
	if (!json_object_is_type(object, json_type_object)) {
		p->where[strlen(p->where) - 1] = '\0';
		return wrong(p, "", "%s is no object; write {\"name\": \"ram0\", \"start\": \"0\", \"size\": \"8GiB\"}",
			     as_written(object));
	}
	json_object_object_foreach(object, key, value) {
		err = take_region_key(p, key, value, r);
		if (err)
			return err;
	}
	if (!json_object_object_get_ex(object, "start", NULL))
		return wrong(p, "start", "it is missing; write it as in \"start\": \"0\"");
	if (!json_object_object_get_ex(object, "size", NULL))
		return wrong(p, "size", "it is missing; write it as in \"size\": \"8GiB\"");
	return check_region(p, r);
}

/* ---- The regions --------------------------------------------------------------------------------------------- */

static int parse_regions(struct parse *p, struct json_object *array)
{
	size_t nr = json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
	int err = 0;

	if (nr == 0)
		return wrong(p, "regions", "an array of at least one region is needed");
	if (nr > MF_REGIONS_MAX)
		return wrong(p, "regions", "%zu are too many; %d at most", nr, MF_REGIONS_MAX);
	p->d->regions = calloc(nr, sizeof(*p->d->regions));
	if (!p->d->regions) {
		wrong(p, "regions", "not enough memory");
		return -MF_ENOMEM;
	}
	p->d->nr_regions = (unsigned)nr;
	for (unsigned j = 0; j < nr && !err; j++) {
		snprintf(p->where, sizeof(p->where), "regions[%u].", j);
		err = parse_region(p, json_object_array_get_idx(array, j), &p->d->regions[j]);
	}
	return err ? err : description_regions_check(p->d, p->message, p->message_size);
}

/* ---- The file --------------------------------------------------------------------------------------------- */

static int parse_top(struct parse *p, struct json_object *top)
{
	struct json_object *value;
	char message[MESSAGE_MAX];
	const char *text;
	uint64_t schema;

	if (!json_object_is_type(top, json_type_object))
		return wrong(p, "top", "an object is needed; write {\"schema\": 1, \"regions\": [...]}");
	json_object_object_foreach(top, key, unused) {
		(void)unused;
		if (strcmp(key, "schema") != 0 && strcmp(key, "page_size") != 0 && strcmp(key, "regions") != 0)
			return wrong(p, "top", "unknown key %s; known are schema, page_size and regions",
				     message_quote(key));
	}
	if (!json_object_object_get_ex(top, "schema", &value))
		return wrong(p, "schema", "it is missing; write \"schema\": 1");
	if (number_of(p, "schema", value, 1, 1, &schema) != 0)
		return wrong(p, "schema", "this memfold knows schema 1 only; write \"schema\": 1");
	if (json_object_object_get_ex(top, "page_size", &value)) {
		text = string_of(p, "page_size", value, "\"4KiB\"");
		if (!text)
			return -MF_EINVAL;
		if (size_parse_page(text, &p->d->page_shift, message, sizeof(message)) != 0)
			return wrong(p, "page_size", "%s", message);
		p->d->has_page_size = true;
	}
	if (!json_object_object_get_ex(top, "regions", &value))
		return wrong(p, "regions",
			     "it is missing; write it as in \"regions\": [{\"start\": \"0\", \"size\": \"8GiB\"}]");
	return parse_regions(p, value);
}

/* The JSON document, or NULL after a message. */
static struct json_object *parse_json(struct parse *p, const char *text, size_t length)
{
	struct json_tokener *tokener = json_tokener_new_ex(DESCRIPTION_DEPTH_MAX);
	enum json_tokener_error err;
	struct json_object *top;
	unsigned line = 1;

	if (!tokener) {
		snprintf(p->message, p->message_size, "not enough memory");
		return NULL;
	}
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	top = json_tokener_parse_ex(tokener, text, (int)length);
	err = json_tokener_get_error(tokener);
	for (size_t i = 0; i < json_tokener_get_parse_end(tokener) && i < length; i++)
		line += text[i] == '\n';
	json_tokener_free(tokener);
	if (err == json_tokener_success && top)
		return top;
	if (err == json_tokener_error_depth)
		snprintf(p->message, p->message_size, "line %u: nested deeper than %d levels", line,
			 DESCRIPTION_DEPTH_MAX);
	else if (err == json_tokener_continue)
		snprintf(p->message, p->message_size, "line %u: the JSON ends before it is complete", line);
	else if (err == json_tokener_success)
		snprintf(p->message, p->message_size, "line %u: null is no machine; write {\"schema\": 1, ...}",
			 line);
	else
		snprintf(p->message, p->message_size, "line %u: this is no JSON: %s", line,
			 json_tokener_error_desc(err));
	json_object_put(top);
	return NULL;
}

int description_parse(const char *text, size_t length, unsigned page_shift, struct description *out, char *message,
		      size_t message_size)
{
	struct description d = {.page_shift = page_shift};
	struct parse p = {.d = &d, .message = message, .message_size = message_size};
	struct json_object *top;
	int err;

	if (length > DESCRIPTION_BYTES_MAX) {
		snprintf(message, message_size, "larger than 1MiB, more than any description needs");
		return -MF_E2BIG;
	}
	top = parse_json(&p, text, length);
	if (!top)
		return -MF_EINVAL;
	err = description_keys_check(text, length, message, message_size);
	if (!err)
		err = parse_top(&p, top);
	json_object_put(top);
	if (err)
		description_free(&d);
	else
		*out = d;
	return err;
}

void description_free(struct description *d)
{
	free(d->regions);
	d->regions = NULL;
	d->nr_regions = 0;
}
