/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test_base.c - the ground: error sentences, the formatter, panic and log hooks, lists, bits, the lock.
 *
 * The formatter is compared with the C library's, which it has to agree with on everything that it knows.
 */
#include "tests/tap.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* R-GEN-9 */
TAP_TEST(error_has_a_sentence_for_every_code)
{
	static const int codes[] = {0,         MF_EPERM,  MF_ENOENT, MF_EIO,       MF_E2BIG,     MF_EAGAIN,
				    MF_ENOMEM, MF_EACCES, MF_EFAULT, MF_EBUSY,     MF_EEXIST,    MF_ENODEV,
				    MF_EINVAL, MF_ENOSPC, MF_ERANGE, MF_EOVERFLOW, MF_EOPNOTSUPP};
	const char *unknown = mf_strerror(9999);

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		TAP_OK(strcmp(mf_strerror(codes[i]), unknown) != 0);
		TAP_OK(strcmp(mf_strerror(-codes[i]), mf_strerror(codes[i])) == 0);
	}
	TAP_OK(strcmp(mf_strerror(INT_MIN), unknown) == 0);
	TAP_OK(strcmp(mf_strerror(INT_MAX), unknown) == 0);
}

#define SAME(...)                                                                                                      \
	do {                                                                                                           \
		char ours[200], theirs[200];                                                                           \
		size_t length = mf_format(ours, sizeof(ours), __VA_ARGS__);                                            \
		TAP_EQ(length, (size_t)snprintf(theirs, sizeof(theirs), __VA_ARGS__));                                 \
		TAP_OK(strcmp(ours, theirs) == 0);                                                                     \
	} while (0)

TAP_TEST(format_agrees_with_the_c_library)
{
	SAME("plain");
	SAME("%s|%8s|%c|%3c|100%%", "text", "right", 'x', 'y');
	SAME("%d %d %d %6d %06d %06d", 0, INT_MIN, INT_MAX, -42, -42, 42);
	SAME("%u %10u %010u %x %8x %08x", UINT_MAX, 7u, 7u, 0xbeefu, 0xbeefu, 0xbeefu);
	SAME("%lu %lx %llu %llx %ld %lld", ULONG_MAX, 1ul, ULLONG_MAX, ULLONG_MAX, LONG_MIN, LLONG_MIN);
	SAME("%zu %16llx %016llx", (size_t)-1, 0xfeedull, 0xfeedull);
	SAME("%p", (void *)(uintptr_t)0xffff8000);
}

TAP_TEST(format_never_writes_beyond_the_buffer)
{
	for (size_t size = 0; size <= 12; size++) {
		char buffer[16], expected[16];

		memset(buffer, '#', sizeof(buffer));
		memset(expected, '#', sizeof(expected));
		if (size > 0) {
			memcpy(expected, "frame 1234", mf_min(size, 11));
			expected[mf_min(size, 11) - 1] = '\0';
		}
		TAP_EQ(mf_format(buffer, size, "frame %d", 1234), 10);
		TAP_OK(memcmp(buffer, expected, sizeof(buffer)) == 0);
	}
	TAP_EQ(mf_format(NULL, 0, "%s", "measured"), 8);
}

TAP_TEST(format_shows_a_null_string)
{
	char text[16];
	const char *volatile nothing = NULL;

	mf_format(text, sizeof(text), "<%s>", nothing);
	TAP_OK(strcmp(text, "<(null)>") == 0);
}

static char log_line[600];
static enum mf_log_level log_level;
static unsigned nr_log_lines;

static void keep_line(void *ctx, enum mf_log_level level, const char *line)
{
	TAP_OK(ctx == log_line);
	log_level = level;
	nr_log_lines++;
	snprintf(log_line, sizeof(log_line), "%s", line);
}

TAP_TEST(log_goes_to_the_hook_or_nowhere)
{
	mf_log(MF_LOG_ERROR, "dropped");
	mf_log_hook_set(keep_line, log_line);
	mf_log(MF_LOG_WARNING, "zone %u is %s", 3u, "low");
	mf_log_hook_set(NULL, NULL);
	mf_log(MF_LOG_ERROR, "dropped");
	TAP_EQ(nr_log_lines, 1);
	TAP_EQ(log_level, MF_LOG_WARNING);
	TAP_OK(strcmp(log_line, "zone 3 is low") == 0);
}

TAP_TEST(panic_hands_a_sentence_to_the_hook)
{
	TAP_OK(TAP_PANICS(mf_panic("frame 0x%llx has %d owners.", 0x123ull, 2)));
	TAP_OK(strcmp(tap_state.panic, "frame 0x123 has 2 owners.") == 0);
	TAP_OK(TAP_PANICS(MF_PANIC_IF(1 + 1 == 2, "so it is.")));
	TAP_OK(!TAP_PANICS(MF_PANIC_IF(1 + 1 == 3, "so it is not.")));
}

TAP_TEST(panic_cuts_a_long_sentence)
{
	char longer[2000];

	memset(longer, 'm', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	TAP_OK(TAP_PANICS(mf_panic("%s", longer)));
	TAP_OK(strlen(tap_state.panic) > 100);
}

TAP_TEST(bits_round_and_count)
{
	uint64_t result;

	TAP_OK(mf_is_power_of_two(1) && mf_is_power_of_two(1ull << 63));
	TAP_OK(!mf_is_power_of_two(0) && !mf_is_power_of_two(6));
	TAP_EQ(mf_log2(1), 0);
	TAP_EQ(mf_log2(UINT64_MAX), 63);
	TAP_EQ(mf_ctz(1ull << 63), 63);
	TAP_EQ(mf_round_up(4097, 4096), 8192);
	TAP_EQ(mf_round_down(8191, 4096), 4096);
	TAP_EQ(mf_min(1, 2) + mf_max(1, 2), 3);
	TAP_OK(mf_add_fits(UINT64_MAX, 0, &result) && !mf_add_fits(UINT64_MAX, 1, &result));
	TAP_OK(mf_mul_fits(1ull << 32, 1ull << 31, &result) && !mf_mul_fits(1ull << 32, 1ull << 32, &result));
}

struct element {
	unsigned number;
	struct mf_list link;
};

TAP_TEST(list_keeps_its_order_and_zeroes_what_leaves)
{
	struct mf_list head;
	struct element e[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
	unsigned expected = 0;

	mf_list_init(&head);
	TAP_OK(mf_list_is_empty(&head));
	mf_list_push_back(&head, &e[1].link);
	mf_list_push_back(&head, &e[2].link);
	mf_list_push_front(&head, &e[0].link);
	for (struct mf_list *at = head.next; at != &head; at = at->next)
		TAP_EQ(mf_container_of(at, struct element, link)->number, expected++);
	TAP_EQ(expected, 3);
	mf_list_remove(&e[1].link);
	TAP_OK(e[1].link.next == NULL && e[1].link.prev == NULL);
	TAP_OK(head.next == &e[0].link && head.prev == &e[2].link && e[0].link.next == &e[2].link);
	mf_list_remove(&e[0].link);
	mf_list_remove(&e[2].link);
	TAP_OK(mf_list_is_empty(&head));
}

TAP_TEST(lock_excludes)
{
	struct mf_lock lock;

	mf_lock_init(&lock);
	TAP_OK(mf_lock_try(&lock));
	TAP_OK(!mf_lock_try(&lock));
	mf_lock_release(&lock);
	TAP_OK(mf_lock_try(&lock));
}

TAP_MAIN()
