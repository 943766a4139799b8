/* SPDX-License-Identifier: BSD-2-Clause */
/* description_file.c - reads the file of a description, never more of it than a description may have. */
#include "cli/description.h"
#include "cli/message.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int description_read(const char *path, unsigned page_shift, struct description *out, char *message, size_t message_size)
{
	size_t size = DESCRIPTION_BYTES_MAX + 1, length = 0;
	char *text = malloc(size), why[MESSAGE_MAX];
	FILE *file;
	int err = -MF_EIO;

	errno = 0;
	file = fopen(path, "rb");
	if (file && text)
		length = fread(text, 1, size, file);
	if (!text || !file || ferror(file))
		snprintf(why, sizeof(why), "%s; a readable JSON file is needed", strerror(errno ? errno : EIO));
	else
		err = description_parse(text, length, page_shift, out, why, sizeof(why));
	if (err)
		snprintf(message, message_size, "%s: %s", path, why);
	if (file)
		fclose(file);
	free(text);
	return err;
}
