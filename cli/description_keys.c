/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * description_keys.c - finds a key that stands twice in one JSON object.
 *
 * Owns no state.  Relies on a text that the parser has accepted; does not undo escapes in keys.
 */
#include "cli/description.h"
#include <string.h>

enum { KEYS_MAX = 16 };

struct keys {
	unsigned nr;
	struct {
		const char *text;
		size_t length;
	} key[KEYS_MAX];
};

/* Behind the closing quote of the string that starts at p, or the end. */
static const char *skip_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\' && end - p > 1)
			p++;
	return p < end ? p + 1 : end;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Notes the key; true when it was there. */
static bool note_key(struct keys *keys, const char *text, size_t length)
{
	for (unsigned i = 0; i < keys->nr; i++)
		if (keys->key[i].length == length && memcmp(keys->key[i].text, text, length) == 0)
			return true;
	if (keys->nr < KEYS_MAX) {
		keys->key[keys->nr].text = text;
		keys->key[keys->nr++].length = length;
	}
	return false;
}

static unsigned line_of(const char *text, const char *where)
{
	unsigned line = 1;

	for (; text < where; text++)
		line += *text == '\n';
	return line;
}

bool description_key_twice(const char *text, size_t length, unsigned *line, char *key, size_t key_size)
{
	static struct keys open[DESCRIPTION_DEPTH_MAX];
	const char *p = text, *end = text + length, *after, *string;
	unsigned depth = 0;

	while (p < end) {
		if (*p == '{' || *p == '[') {
			if (depth == DESCRIPTION_DEPTH_MAX)
				return false;
			open[depth++].nr = 0;
		} else if (*p == '}' || *p == ']') {
			depth -= depth > 0;
		}
		if (*p != '"') {
			p++;
			continue;
		}
		string = p + 1;
		p = skip_string(p, end);
		for (after = p; after < end && is_blank(*after); after++)
			;
		if (depth == 0 || after == end || *after != ':')
			continue;
		if (note_key(&open[depth - 1], string, (size_t)(p - 1 - string))) {
			size_t n = mf_min((uint64_t)(p - 1 - string), key_size - 1);

			memcpy(key, string, n);
			key[n] = '\0';
			*line = line_of(text, string);
			return true;
		}
	}
	return false;
}
