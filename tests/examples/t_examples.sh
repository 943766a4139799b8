#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The examples do what they say and find nothing wrong; they, and the program in README.md, need the public headers and
# the shared library only.  MF_BUILD is the build folder.
. "$(dirname "$0")/../lib/tap.sh"

# shows PATTERN COMMAND...: the command succeeds and its output has a line with the pattern.
shows() {
	pattern=$1
	shift
	"$@" > "$folder/output" 2>&1 && grep -q "$pattern" "$folder/output" && return
	cat "$folder/output"
	return 1
}

# refuses COMMAND...: the command ends with exit code 2 and says something on standard error only.
refuses() {
	code 2 "$@" || return 1
	[ -s "$folder/error" ] && [ ! -s "$folder/out" ] && return
	cat "$folder/out" "$folder/error"
	return 1
}

# As a user compiles: strictly, and with nothing of the source tree but the public headers.
build_outside() {
	cp -r include "$folder" && (cd "$folder" && $CC -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Iinclude \
		-o "$1" "$2" "$shared" -Wl,-rpath,"${shared%/*}")
}

readme_program() {
	sed -n '/^```c$/,/^```$/p' README.md | grep -v '^```' > "$folder/readme.c" && [ -s "$folder/readme.c" ] &&
		build_outside readme readme.c
}

shared=$(cd "$MF_BUILD" && pwd)/libmemfold.so.0

check buffer_pool_finds_nothing_wrong shows '^laws  *held$' "$MF_BUILD/examples/buffer_pool"
check buffer_pool_evicts_and_writes_back shows '[1-9][0-9]* evictions, [1-9][0-9]* pages written' \
	"$MF_BUILD/examples/buffer_pool"
check guest_memory_finds_nothing_wrong shows '^laws held$' "$MF_BUILD/examples/guest_memory"
check guest_memory_takes_any_size shows 'guest of 1024 GiB' "$MF_BUILD/examples/guest_memory" 1024
check guest_memory_refuses_nonsense refuses "$MF_BUILD/examples/guest_memory" 2x
check guest_memory_refuses_too_little refuses "$MF_BUILD/examples/guest_memory" 1
for source in examples/*.c; do
	cp "$source" "$folder"
	name=$(basename "$source" .c)
	check "${name}_needs_public_headers_only" build_outside "$name" "$name.c"
done
check readme_program_compiles readme_program
check readme_program_runs shows . "$folder/readme"
echo "1..$nr"
