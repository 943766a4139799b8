/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * description.h - MACHINE.json: the memory of a machine, as memfold is told of it.
 *
 *	{"schema": 1, "page_size": "4KiB", "regions": [
 *	  {"name": "ram0", "start": "0", "size": "8GiB", "node": 0, "layout": "tiered", "unit": "2MiB",
 *	   "source": "self", "top": 2}]}
 *
 * schema, regions and each region's start and size are needed.  Sizes are strings as size_parse() takes them, or
 * numbers of bytes.  When left out:
 *
 *	name    none; else unique and at most 63 bytes
 *	node    0; at most 63
 *	layout  "tiered"; else any of enum mf_scheme
 *	unit    one block of tier 1, or one page in a region that is no multiple of it; what the memory is used in:
 *	        devdax: a compound
 *	source  left to the verb; else self, ram, altmap or host; hvo-*: not self; devdax: ram or host;
 *	        devdax-altmap: altmap
 *	top     2; else 1: the highest tier of its blocks
 *
 * Law: what is accepted is well formed (units, alignment, no overlap, no key twice or unknown), so nobody checks it
 * again.
 */
#ifndef CLI_DESCRIPTION_H
#define CLI_DESCRIPTION_H

#include <memfold/plan.h>

enum { DESCRIPTION_NAME_MAX = 64, DESCRIPTION_DEPTH_MAX = 32 };

/* Largest file. */
#define DESCRIPTION_BYTES_MAX MF_MIB

struct description_region {
	char name[DESCRIPTION_NAME_MAX];
	uint64_t start_bytes, size_bytes, unit_bytes; /* start and size are multiples of the unit          */
	unsigned node, top;
	enum mf_scheme layout;
	enum mf_source source;
	bool has_layout, has_source; /* the file says it; a source that it does not say is ram  */
};

struct description {
	unsigned page_shift;
	bool has_page_size; /* the file says it                                          */
	unsigned nr_regions;
	struct description_region *regions; /* in the order of the file; owned           */
};

/*
 * Parses `length` bytes.  page_shift: of a file that does not say.
 * Gives: *out, to be freed by description_free().
 * Fails, *out unchanged: -MF_EINVAL, -MF_E2BIG, -MF_EOVERFLOW, -MF_ENOMEM and one sentence in message, which starts
 * with the place in the file ("regions[1].size: ").
 */
MF_MUST_CHECK int description_parse(const char *text, size_t length, unsigned page_shift, struct description *out,
				    char *message, size_t message_size);

/*
 * Reads and parses a file, or what another program writes to a pipe ("/dev/stdin"); the message starts with the path.
 * Fails as description_parse() does, and with -MF_EIO: unreadable, or neither a regular file nor a pipe.
 */
MF_MUST_CHECK int description_read(const char *path, unsigned page_shift, struct description *out, char *message,
				   size_t message_size);

void description_free(struct description *d);

/*
 * Refuses, of a well-formed JSON text, a key that stands twice in one object, since json-c would silently take the
 * last, and a key with a backslash, since it could be the same as another.  The message starts with the line.
 * Objects of more keys than there are known ones are searched as far as that.
 * Fails: -MF_EINVAL.
 */
MF_MUST_CHECK int description_keys_check(const char *text, size_t length, char *message, size_t message_size);

/*
 * Refuses regions of one name, and regions that overlap.
 * Fails: -MF_EINVAL, -MF_ENOMEM; the message starts with the region of the two that comes later in the file.
 */
MF_MUST_CHECK int description_regions_check(const struct description *d, char *message, size_t message_size);

#endif
