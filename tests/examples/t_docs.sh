#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The documents name what is there: every public function has a manual page, every page a name and a purpose, and every
# file that docs/ and README.md name exists.
. "$(dirname "$0")/../lib/tap.sh"

# Functions of the public headers: mf_ names before a parenthesis, where a declaration starts.
public_functions() {
	sed -n -E 's/^(MF_API|static inline) [^(]*[ *](mf_[a-z0-9_]+)\(.*/\2/p' include/memfold/*.h | sort -u
}

# Small things that the headers explain and no page does: arithmetic, bits, lists, the lock, parts of the word.
is_small() {
	case $1 in
	mf_add_fits | mf_mul_fits | mf_is_power_of_two | mf_log2 | mf_ctz | mf_round_up | mf_round_down | mf_min | mf_max) ;;
	mf_list_* | mf_lock_* | mf_word_* | mf_page_word | mf_machine_lock | mf_machine_unlock | mf_machine_frame) ;;
	*) return 1 ;;
	esac
}

functions_without_page() {
	for name in $(public_functions); do
		is_small "$name" || grep -q -w "$name" man/*.3 || echo "$name"
	done
}

pages_without_purpose() {
	for page in man/*.[0-9]; do
		grep -A3 -i -x '[.]sh "*name"*' "$page" | grep -q -e '[\][\]*- .' || grep -q '^[.]Nd .' "$page" || echo "$page"
	done
}

files_named_but_absent() {
	for doc in README.md docs/*.md docs/decisions/*.md; do
		grep -o -E '\b(core|machines|include|docs|tests|examples|tools|cli|man|bench)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' "$doc" |
			sort -u | while read -r path; do
			[ -e "$path" ] || [ -n "$(ls -d "$path"* 2>/dev/null)" ] || echo "$path, named in $doc"
		done
	done
}

nothing manuals_cover_every_function "$(functions_without_page)"
nothing manuals_have_a_purpose "$(pages_without_purpose)"
nothing documents_name_files_that_exist "$(files_named_but_absent)"
nothing headers_have_functions "$([ "$(public_functions | wc -l)" -gt 100 ] || echo 'the headers have few functions')"
echo "1..$nr"
