/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * message.c - format, panic and log: messages in places without a C library.
 *
 * Owns the two hooks of the program and the buffer of the panic sentence.  Law: nothing is allocated and no lock is
 * taken, so that a message can be made anywhere.  Does not know where messages go: without a hook a panic stops the
 * processor and a log line is dropped.
 *
 * The hooks are set before a second thread uses memfold; they are plain variables.
 */
#include <memfold/base.h>
#include <stdarg.h>

enum { SENTENCE_MAX = 512, DIGITS_MAX = 20 };

/* ---- Format ------------------------------------------------------------------------------------------- */

struct sink {
	char *buffer;
	size_t size;
	size_t length; /* what the text needs; may run ahead of size */
};

struct directive {
	bool zero_padded;
	unsigned width;
	enum { LENGTH_INT, LENGTH_LONG, LENGTH_LLONG, LENGTH_SIZE } length;
};

static void sink_put(struct sink *sink, char c)
{
	if (sink->length + 1 < sink->size)
		sink->buffer[sink->length] = c;
	sink->length++;
}

static void put_padding(struct sink *sink, unsigned width, size_t length, char with)
{
	for (size_t i = length; i < width; i++)
		sink_put(sink, with);
}

static void put_string(struct sink *sink, const struct directive *d, const char *text)
{
	size_t length = 0;

	if (!text)
		text = "(null)";
	while (text[length] != '\0')
		length++;
	put_padding(sink, d->width, length, ' ');
	for (size_t i = 0; i < length; i++)
		sink_put(sink, text[i]);
}

/* prefix: "", "-" or "0x"; zeroes of the padding stand behind it, blanks before it. */
static void put_number(struct sink *sink, const struct directive *d, const char *prefix, uint64_t n, unsigned radix)
{
	char digits[DIGITS_MAX];
	unsigned nr = 0;
	size_t length;

	do {
		digits[nr++] = "0123456789abcdef"[n % radix];
		n /= radix;
	} while (n != 0);
	length = nr;
	for (const char *p = prefix; *p != '\0'; p++)
		length++;
	if (!d->zero_padded)
		put_padding(sink, d->width, length, ' ');
	while (*prefix != '\0')
		sink_put(sink, *prefix++);
	if (d->zero_padded)
		put_padding(sink, d->width, length, '0');
	while (nr > 0)
		sink_put(sink, digits[--nr]);
}

static const char *parse_directive(const char *format, struct directive *d)
{
	*d = (struct directive){.length = LENGTH_INT};
	if (*format == '0') {
		d->zero_padded = true;
		format++;
	}
	for (; *format >= '0' && *format <= '9'; format++)
		d->width = d->width * 10 + (unsigned)(*format - '0');
	if (*format == 'z') {
		d->length = LENGTH_SIZE;
		format++;
	}
	for (; *format == 'l'; format++)
		d->length = d->length == LENGTH_LONG ? LENGTH_LLONG : LENGTH_LONG;
	return format;
}

/* va_list in a struct: the only form in which C lets a function advance its caller's list on every ABI. */
struct arguments {
	va_list list;
};

static uint64_t next_unsigned(const struct directive *d, struct arguments *args)
{
	switch (d->length) {
	case LENGTH_LONG:
		return va_arg(args->list, unsigned long);
	case LENGTH_LLONG:
		return va_arg(args->list, unsigned long long);
	case LENGTH_SIZE:
		return va_arg(args->list, size_t);
	case LENGTH_INT:
	default:
		return va_arg(args->list, unsigned);
	}
}

static void put_signed(struct sink *sink, const struct directive *d, struct arguments *args)
{
	int64_t n;

	switch (d->length) {
	case LENGTH_LONG:
		n = va_arg(args->list, long);
		break;
	case LENGTH_LLONG:
		n = va_arg(args->list, long long);
		break;
	case LENGTH_SIZE:
		n = va_arg(args->list, ptrdiff_t);
		break;
	case LENGTH_INT:
	default:
		n = va_arg(args->list, int);
		break;
	}
	put_number(sink, d, n < 0 ? "-" : "", n < 0 ? 0 - (uint64_t)n : (uint64_t)n, 10);
}

static void put_directive(struct sink *sink, char conversion, const struct directive *d, struct arguments *args)
{
	switch (conversion) {
	case 's':
		put_string(sink, d, va_arg(args->list, const char *));
		break;
	case 'c':
		put_padding(sink, d->width, 1, ' ');
		sink_put(sink, (char)va_arg(args->list, int));
		break;
	case 'd':
		put_signed(sink, d, args);
		break;
	case 'u':
		put_number(sink, d, "", next_unsigned(d, args), 10);
		break;
	case 'x':
		put_number(sink, d, "", next_unsigned(d, args), 16);
		break;
	case 'p':
		put_number(sink, d, "0x", (uintptr_t)va_arg(args->list, void *), 16);
		break;
	default: /* '%', or a directive we do not know: its argument cannot be skipped, so the letter is shown */
		sink_put(sink, conversion);
		break;
	}
}

static size_t format_va(char *buffer, size_t size, const char *format, struct arguments *args)
{
	struct sink sink = {buffer, size, 0};
	struct directive d;

	while (*format != '\0') {
		if (*format != '%') {
			sink_put(&sink, *format++);
			continue;
		}
		format = parse_directive(format + 1, &d);
		if (*format == '\0')
			break;
		put_directive(&sink, *format++, &d, args);
	}
	if (size > 0)
		buffer[mf_min(sink.length, size - 1)] = '\0';
	return sink.length;
}

size_t mf_format(char *buffer, size_t size, const char *format, ...)
{
	struct arguments args;
	size_t length;

	va_start(args.list, format);
	length = format_va(buffer, size, format, &args);
	va_end(args.list);
	return length;
}

size_t mf_vformat(char *buffer, size_t size, const char *format, va_list list)
{
	struct arguments args;
	size_t length;

	va_copy(args.list, list);
	length = format_va(buffer, size, format, &args);
	va_end(args.list);
	return length;
}

/* ---- Panic -------------------------------------------------------------------------------------------- */

static mf_panic_fn panic_hook;
static void *panic_hook_ctx;

static mf_panic_fn panic_default;

void mf_panic_default_set(mf_panic_fn fn)
{
	panic_default = fn;
}

void mf_panic_hook_set(mf_panic_fn fn, void *ctx)
{
	panic_hook_ctx = ctx;
	panic_hook = fn;
}

void mf_panic(const char *format, ...)
{
	/*
	 * Static, because a hook that leaves by longjmp may look at the sentence after this frame is gone.  Two
	 * processors that panic at once may mix their sentences; the last byte stays zero, so neither runs on.
	 */
	static char sentence[SENTENCE_MAX];
	struct arguments args;

	va_start(args.list, format);
	format_va(sentence, sizeof(sentence), format, &args);
	va_end(args.list);
	if (panic_hook)
		panic_hook(panic_hook_ctx, sentence);
	else if (panic_default)
		panic_default(NULL, sentence);
	__builtin_trap();
}

/* ---- Log ---------------------------------------------------------------------------------------------- */

static mf_log_fn log_hook;
static void *log_hook_ctx;

void mf_log_hook_set(mf_log_fn fn, void *ctx)
{
	log_hook_ctx = ctx;
	log_hook = fn;
}

void mf_log(enum mf_log_level level, const char *format, ...)
{
	char line[SENTENCE_MAX];
	struct arguments args;

	if (!log_hook)
		return;
	va_start(args.list, format);
	format_va(line, sizeof(line), format, &args);
	va_end(args.list);
	log_hook(log_hook_ctx, level, line);
}
