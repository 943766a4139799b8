/* SPDX-License-Identifier: BSD-2-Clause */
/* message.c - see message.h.  Owns four buffers for quoted text; one thread uses them, the main one. */
#include "cli/message.h"
#include "cli/verbs.h"
#include <stdarg.h>
#include <stdio.h>

enum { QUOTE_MAX = 40, QUOTES = 4 };

static void print_error(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* Paths come from the user as well. */
static void hide_controls(char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static void print_error(const char *format, va_list args)
{
	char line[2 * MESSAGE_MAX];

	vsnprintf(line, sizeof(line), format, args);
	hide_controls(line);
	fflush(stdout);
	fprintf(stderr, "memfold: %s\n", line);
}

void message_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_error(format, args);
	va_end(args);
}

int message_unable(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_error(format, args);
	va_end(args);
	return EXIT_UNABLE;
}

/* Between two marks; no mark is a zero. */
static const char *show(const char *text, char mark)
{
	static char quotes[QUOTES][QUOTE_MAX + 8];
	static unsigned turn;
	char *quote = quotes[turn++ % QUOTES];
	size_t n = 0;

	if (mark)
		quote[n++] = mark;
	for (size_t i = 0; text[i] != '\0'; i++) {
		unsigned char c = (unsigned char)text[i];

		/* Never cut inside a UTF-8 sequence: its later bytes are 10xxxxxx. */
		if ((n > QUOTE_MAX && (c & 0xc0) != 0x80) || n > QUOTE_MAX + 3) {
			quote[n++] = '.';
			quote[n++] = '.';
			break;
		}
		quote[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	if (mark)
		quote[n++] = mark;
	quote[n] = '\0';
	return quote;
}

const char *message_quote(const char *text)
{
	return show(text, '"');
}

const char *message_json(const char *text)
{
	return show(text, '\0');
}
