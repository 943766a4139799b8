/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * description_file.c - reads the file of a description, never more of it than a description may have.
 *
 * Owns nothing once it returns.  Waits for nobody but the writer of a pipe without a name: named pipes and devices are
 * opened without waiting, and refused.
 */
#include "cli/description.h"
#include "cli/message.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A pipe without a name has a writer, or had one: what a shell makes of | and <(). */
static bool is_unnamed_pipe(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS_MAGIC && fcntl(fd, F_SETFL, O_RDONLY) == 0;
}

/* A descriptor to read from, or -1 after a text in why. */
static int file_open(const char *path, char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0) {
		snprintf(why, why_size, "%s; a readable JSON file is needed", strerror(errno));
	} else if (S_ISDIR(st.st_mode)) {
		snprintf(why, why_size, "%s; a readable JSON file is needed", strerror(EISDIR));
	} else if (S_ISREG(st.st_mode) || (S_ISFIFO(st.st_mode) && is_unnamed_pipe(fd))) {
		return fd;
	} else {
		snprintf(why, why_size, "a device or a named pipe; a regular JSON file is needed");
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Up to `size` bytes; -1 with errno set. */
static ssize_t file_read(int fd, char *text, size_t size)
{
	size_t length = 0;
	ssize_t n = 1;

	while (n != 0 && length < size) {
		n = read(fd, text + length, size - length);
		if (n < 0 && errno != EINTR)
			return -1;
		length += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)length;
}

int description_read(const char *path, unsigned page_shift, struct description *out, char *message, size_t message_size)
{
	size_t size = DESCRIPTION_BYTES_MAX + 1;
	char *text = malloc(size), why[MESSAGE_MAX];
	int fd = -1, err = -MF_EIO;
	ssize_t length;

	if (!text)
		snprintf(why, sizeof(why), "not enough memory");
	else
		fd = file_open(path, why, sizeof(why));
	if (fd >= 0) {
		length = file_read(fd, text, size);
		if (length < 0)
			snprintf(why, sizeof(why), "%s; a readable JSON file is needed", strerror(errno));
		else
			err = description_parse(text, (size_t)length, page_shift, out, why, sizeof(why));
		close(fd);
	}
	if (err)
		snprintf(message, message_size, "%s: %s", path, why);
	free(text);
	return err;
}
