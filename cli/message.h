/* SPDX-License-Identifier: BSD-2-Clause */
/* message.h - the one message of a failed command: what, where in the input, what would be right. */
#ifndef CLI_MESSAGE_H
#define CLI_MESSAGE_H

#include <stddef.h>

/* Buffers for messages; text that is longer is cut. */
enum { MESSAGE_MAX = 512 };

/* Prints "memfold: " and the text as one line to standard error. */
void message_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Returns EXIT_UNABLE after message_error(): `return message_unable("...");`. */
int message_unable(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * User's text on its way into a message: in quotes, cut after some 40 characters, with no control characters, so
 * that a message stays one line and cannot drive the terminal.  Valid until the fourth call from now.
 */
const char *message_quote(const char *text);

/* The same of a JSON value as JSON writes it: text has its quotes already, and a number has none. */
const char *message_json(const char *text);

#endif
