/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tap.h - the whole test harness: tests register themselves, TAP_MAIN() runs them and prints TAP.
 *
 *	TAP_TEST(buddy_refuses_oversized_order)
 *	{
 *		TAP_EQ(mf_something(99), -MF_EINVAL);
 *	}
 *
 *	TAP_MAIN()
 *
 * Owns: one struct tap_state per program, defined by TAP_MAIN(), which stands in exactly one source of it.  Other
 * sources of the program may define tests and check as well.  TAP_OK, TAP_EQ and TAP_NOTE may be used from any thread.
 *
 * Law: a failed check makes its test "not ok" and the exit code 1.  Only bookkeeping lives here: no timeouts (see
 * tools/run-test), no forks, no mocks.  Without a C library the machine provides tap_write() and the section symbols.
 */
#ifndef MEMFOLD_TESTS_TAP_H
#define MEMFOLD_TESTS_TAP_H

#include <memfold/base.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __STDC_HOSTED__
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#define TAP_FORMAT snprintf
#define TAP_THREAD _Thread_local
#define TAP_SETJMP(jump) setjmp(jump)
#define TAP_LONGJMP(jump) longjmp(jump, 1)
#define TAP_ABORT() abort()
typedef jmp_buf tap_jump_t;
#else
#define TAP_FORMAT mf_format
#define TAP_THREAD
#define TAP_SETJMP(jump) __builtin_setjmp(jump)
#define TAP_LONGJMP(jump) __builtin_longjmp(jump, 1)
#define TAP_ABORT() __builtin_trap()
typedef void *tap_jump_t[5];
#endif

#if defined(__GNUC__) && !defined(__clang__)
/* TAP_PANICS: a local variable that its statement changed before the panic is indeterminate; no test reads one. */
#pragma GCC diagnostic ignored "-Wclobbered"
#endif

struct tap_test {
	void (*run)(void);
	const char *name, *file;
	unsigned line;
};

struct tap_state {
	atomic_bool failed; /* the running test                                                             */
	const char *skip;   /* why it was skipped, or NULL                                                   */
	char panic[256];    /* the sentence of the last panic that TAP_PANICS caught                        */
};

extern struct tap_state tap_state;
extern TAP_THREAD bool tap_jump_set; /* this thread is inside TAP_PANICS */
extern TAP_THREAD tap_jump_t tap_jump;

void tap_write(const char *text);

/* Laid side by side by the linker; weak, since a program may have no test at all. */
extern struct tap_test *__start_tap_tests[] __attribute__((weak));
extern struct tap_test *__stop_tap_tests[] __attribute__((weak));

#define TAP_TEST(name_)                                                                                          \
	static void test_##name_(void);                                                                          \
	static struct tap_test tap_test_##name_ = {test_##name_, #name_, __FILE__, __LINE__};                    \
	static struct tap_test *tap_entry_##name_ __attribute__((used, section("tap_tests"))) = &tap_test_##name_; \
	static void test_##name_(void)

/* The test goes on after TAP_OK and TAP_EQ, returns after TAP_REQUIRE and TAP_SKIP (so in the test function only). */
#define TAP_OK(...) ((void)tap_check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__))
#define TAP_EQ(actual, expected) \
	tap_check_equal((uint64_t)(actual), (uint64_t)(expected), #actual, #expected, __FILE__, __LINE__)

#define TAP_REQUIRE(...)                                                         \
	do {                                                                     \
		if (!tap_check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)) \
			return;                                                  \
	} while (0)

#define TAP_SKIP(reason)                   \
	do {                               \
		tap_state.skip = (reason); \
		return;                    \
	} while (0)

/* At most 511 bytes; newlines start further comment lines. */
#define TAP_NOTE(...)                                                    \
	do {                                                             \
		char tap_line[512];                                      \
		(void)TAP_FORMAT(tap_line, sizeof(tap_line), __VA_ARGS__); \
		tap_comment(tap_line);                                   \
	} while (0)

/*
 * True when the statement ended in the panic hook, in this thread; the sentence is in tap_state.panic then.  One thread
 * at a time, not nested; the hook is the default one afterwards.  What the panic left locked stays locked.
 */
#define TAP_PANICS(...)                                       \
	__extension__({                                       \
		volatile bool tap_panicked = true;            \
		mf_panic_hook_set(tap_catch, NULL);           \
		tap_jump_set = true;                          \
		if (TAP_SETJMP(tap_jump) == 0) {              \
			__VA_ARGS__;                          \
			tap_panicked = false;                 \
		}                                             \
		tap_jump_set = false;                         \
		mf_panic_hook_set(NULL, NULL);                \
		(bool)tap_panicked;                           \
	})

static inline void tap_comment(const char *text)
{
	char line[512];

	while (*text != '\0') {
		size_t used = 0;

		line[used++] = '#';
		line[used++] = ' ';
		while (*text != '\0' && *text != '\n' && used < sizeof(line) - 2)
			line[used++] = *text++;
		if (*text == '\n')
			text++;
		line[used++] = '\n';
		line[used] = '\0';
		tap_write(line);
	}
}

static inline bool tap_check(bool holds, const char *text, const char *file, int line)
{
	if (!holds) {
		atomic_store(&tap_state.failed, true);
		TAP_NOTE("%s:%d: %s", file, line, text);
	}
	return holds;
}

/* Small negative numbers are error codes and read as such; the rest in decimal and hexadecimal. */
static inline void tap_number(char *text, size_t size, uint64_t value)
{
	if (value >= (uint64_t)-4095)
		(void)TAP_FORMAT(text, size, "%d", -(int)(0 - value));
	else
		(void)TAP_FORMAT(text, size, "%llu (0x%llx)", (unsigned long long)value, (unsigned long long)value);
}

static inline void tap_check_equal(uint64_t actual, uint64_t expected, const char *actual_text,
				   const char *expected_text, const char *file, int line)
{
	char got[64], wanted[64];

	if (actual == expected)
		return;
	atomic_store(&tap_state.failed, true);
	tap_number(got, sizeof(got), actual);
	tap_number(wanted, sizeof(wanted), expected);
	TAP_NOTE("%s:%d: %s is %s, expected %s = %s", file, line, actual_text, got, expected_text, wanted);
}

/* A panic outside TAP_PANICS, in another thread for example, has no place to jump to. */
static inline void tap_catch(void *ctx, const char *sentence)
{
	(void)ctx;
	if (!tap_jump_set) {
		TAP_NOTE("panic: %s", sentence);
		TAP_ABORT();
	}
	(void)TAP_FORMAT(tap_state.panic, sizeof(tap_state.panic), "%s", sentence);
	TAP_LONGJMP(tap_jump);
}

/* Whether text contains part; an absent part is contained in everything. */
static inline bool tap_contains(const char *text, const char *part)
{
	if (!part)
		return true;
	for (;; text++) {
		size_t n = 0;

		while (part[n] != '\0' && text[n] == part[n])
			n++;
		if (part[n] == '\0')
			return true;
		if (*text == '\0')
			return false;
	}
}

/* Compilers may emit the entries of a file in any order; people expect the order of the file. */
static inline void tap_sort(struct tap_test **first, struct tap_test **end)
{
	for (struct tap_test **i = first; i < end; i++)
		for (struct tap_test **j = i; j > first && j[-1]->file == j[0]->file && j[-1]->line > j[0]->line; j--) {
			struct tap_test *later = j[-1];

			j[-1] = j[0];
			j[0] = later;
		}
}

static inline bool tap_run_one(const struct tap_test *test, unsigned number)
{
	char line[512];
	bool failed;

	atomic_store(&tap_state.failed, false);
	tap_state.skip = NULL;
	test->run();
	failed = atomic_load(&tap_state.failed);
	(void)TAP_FORMAT(line, sizeof(line), "%sok %u - %s%s%s\n", failed ? "not " : "", number, test->name,
			 tap_state.skip ? " # SKIP " : "", tap_state.skip ? tap_state.skip : "");
	tap_write(line);
	return !failed;
}

/* Runs the tests whose names contain `part`.  The exit code: 1 when one failed, or when a `part` was given in vain. */
static inline int tap_run_all(const char *part)
{
	unsigned nr = 0, nr_run = 0, nr_failed = 0;
	char line[128];

	tap_sort(__start_tap_tests, __stop_tap_tests);
	for (struct tap_test **i = __start_tap_tests; i < __stop_tap_tests; i++)
		nr += tap_contains((*i)->name, part);
	if (nr == 0) {
		tap_write("1..0 # SKIP no test of that name\n");
		return part != NULL;
	}
	(void)TAP_FORMAT(line, sizeof(line), "1..%u\n", nr);
	tap_write(line);
	for (struct tap_test **i = __start_tap_tests; i < __stop_tap_tests; i++)
		if (tap_contains((*i)->name, part) && !tap_run_one(*i, ++nr_run))
			nr_failed++;
	return nr_failed > 0;
}

#if __STDC_HOSTED__
/* Flushed at once: what was printed before a crash is what one wants to read. */
#define TAP_DEFINE_WRITE                                            \
	__attribute__((weak)) void tap_write(const char *text)      \
	{                                                           \
		fputs(text, stdout);                                \
		fflush(stdout);                                     \
	}
#else
#define TAP_DEFINE_WRITE
#endif

#define TAP_MAIN()                                              \
	struct tap_state tap_state;                             \
	TAP_THREAD bool tap_jump_set;                           \
	TAP_THREAD tap_jump_t tap_jump;                         \
	TAP_DEFINE_WRITE                                        \
	int main(int argc, char **argv);                        \
	int main(int argc, char **argv)                         \
	{                                                       \
		return tap_run_all(argc > 1 ? argv[1] : NULL);  \
	}

#endif
