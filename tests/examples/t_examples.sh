#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The examples do what they say and find nothing wrong; they, and the program in README.md, need the public headers and
# the shared library only.  MF_BUILD is the build folder.
: "${MF_BUILD:=build}" "${CC:=gcc}"
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
nr=0

# try WHAT COMMAND...: passes when the command succeeds; shows what it said when it does not.
try() {
	nr=$((nr + 1))
	what=$1
	shift
	if output=$("$@" 2>&1); then
		echo "ok $nr - $what"
	else
		echo "not ok $nr - $what"
		printf '%s\n' "$output" | sed 's/^/# /'
	fi
}

# shows PATTERN COMMAND...: the command succeeds and its output has a line with the pattern.
shows() {
	pattern=$1
	shift
	"$@" > "$work/output" 2>&1 && grep -q "$pattern" "$work/output" && return
	cat "$work/output"
	return 1
}

# exits CODE COMMAND...: the command ends with this code and says something on standard error only.
exits() {
	code=$1
	shift
	"$@" > "$work/output" 2> "$work/error"
	[ $? -eq "$code" ] && [ -s "$work/error" ] && [ ! -s "$work/output" ] && return
	cat "$work/output" "$work/error"
	return 1
}

# As a user compiles: strictly, and with nothing of the source tree but the public headers.
build_outside() {
	cp -r include "$work" && (cd "$work" && $CC -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Iinclude -o "$1" "$2" \
		"$shared" -Wl,-rpath,"${shared%/*}")
}

readme_program() {
	sed -n '/^```c$/,/^```$/p' README.md | grep -v '^```' > "$work/readme.c" && [ -s "$work/readme.c" ] &&
		build_outside readme readme.c
}

shared=$(cd "$MF_BUILD" && pwd)/libmemfold.so.0

try buffer_pool_finds_nothing_wrong shows '^laws  *held$' "$MF_BUILD/examples/buffer_pool"
try buffer_pool_evicts_and_writes_back shows '[1-9][0-9]* evictions, [1-9][0-9]* pages written' \
	"$MF_BUILD/examples/buffer_pool"
try guest_memory_finds_nothing_wrong shows '^laws held$' "$MF_BUILD/examples/guest_memory"
try guest_memory_takes_any_size shows 'guest of 1024 GiB' "$MF_BUILD/examples/guest_memory" 1024
try guest_memory_refuses_nonsense exits 2 "$MF_BUILD/examples/guest_memory" 2x
try guest_memory_refuses_too_little exits 2 "$MF_BUILD/examples/guest_memory" 1
for source in examples/*.c; do
	cp "$source" "$work"
	name=$(basename "$source" .c)
	try "${name}_needs_public_headers_only" build_outside "$name" "$name.c"
done
try readme_program_compiles readme_program
try readme_program_runs shows . "$work/readme"
echo "1..$nr"
