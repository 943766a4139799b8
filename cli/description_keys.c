/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * description_keys.c - refuses a key that stands twice in one JSON object, or that is written with a backslash.
 *
 * Owns no state.  Relies on a text that the parser has accepted; compares keys as they are written, which is why none
 * may have escapes.
 */
#include "cli/description.h"
#include "cli/message.h"
#include <stdio.h>
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

/* NULL, or what is wrong with the key. */
static const char *key_fault(struct keys *keys, const char *text, size_t length)
{
	if (memchr(text, '\\', length))
		return "is written with a backslash; write its letters as they are";
	return note_key(keys, text, length) ? "stands twice in one object" : NULL;
}

int description_keys_check(const char *text, size_t length, char *message, size_t message_size)
{
	static struct keys open[DESCRIPTION_DEPTH_MAX];
	const char *p = text, *end = text + length, *after, *string, *fault;
	unsigned depth = 0;
	char key[64]; /* longer than what a message shows of it */

	while (p < end) {
		if (*p == '{' || *p == '[') {
			if (depth == DESCRIPTION_DEPTH_MAX)
				return 0;
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
		fault = key_fault(&open[depth - 1], string, (size_t)(p - 1 - string));
		if (fault) {
			snprintf(key, sizeof(key), "%.*s", (int)(p - 1 - string), string);
			snprintf(message, message_size, "line %u: the key %s %s", line_of(text, string),
				 message_quote(key), fault);
			return -MF_EINVAL;
		}
	}
	return 0;
}
