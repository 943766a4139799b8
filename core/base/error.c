/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * error.c - the sentence for each error code.
 *
 * Owns a constant table, no state.  Law: never NULL, never allocates.  Does not print.
 */
#include <memfold/base.h>

static const struct {
	unsigned code;
	const char *sentence;
} sentences[] = {
	{0, "success"},
	{MF_EPERM, "the map belongs to another process"},
	{MF_ENOENT, "there is no such thing"},
	{MF_EIO, "the host failed to read or write the backing"},
	{MF_E2BIG, "more than the map, the machine or a table was made for"},
	{MF_EAGAIN, "overtaken by another operation, try again"},
	{MF_ENOMEM, "no frame, no descriptor memory, or too few mappings"},
	{MF_EACCES, "the backing does not allow it"},
	{MF_EFAULT, "an address outside what it should lie in"},
	{MF_EBUSY, "in use"},
	{MF_EEXIST, "already there, or overlapping something that is"},
	{MF_ENODEV, "no such machine, node or device"},
	{MF_EINVAL, "an argument that can never be right"},
	{MF_ENOSPC, "a fixed reserve is full"},
	{MF_ERANGE, "a number outside the range it must be in"},
	{MF_EOVERFLOW, "a sum or a count beyond its type"},
	{MF_EOPNOTSUPP, "not possible on this machine or with this layout"},
};

const char *mf_strerror(int error)
{
	/* Negated as unsigned: -INT_MIN is not an int. */
	unsigned code = error < 0 ? 0u - (unsigned)error : (unsigned)error;

	for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++)
		if (sentences[i].code == code)
			return sentences[i].sentence;
	return "an unknown error code";
}
