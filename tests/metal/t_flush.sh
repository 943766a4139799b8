#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# That no flush can be left out: each is taken out of the core, one at a time, the source is built as the library's with
# assertions and linked in its place, and the program (test_flush.c) must fail.  It says what noticed: a processor that
# saw an old translation, or the dues alone (core/pgtable/due.h), where what a processor here can see stays the same.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"
objects=$MF_BUILD/x86_64-debug
flags='-std=c11 -g -O2 -DMF_DEBUG -Iinclude -I. -ffreestanding -mcmodel=kernel -mno-red-zone -mgeneral-regs-only
	-fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none'
machine='-m 12G -c 4 --single'

# build SOURCE SED-SCRIPT: false when the script changed nothing or the result does not link.
build() {
	sed "$2" "$1" >"$folder/changed.c"
	! cmp -s "$1" "$folder/changed.c" || return 1
	diff "$1" "$folder/changed.c" | sed -n "s|^< |$1:|p" >>"$folder/taken"
	rm -f "$folder/changed.o"
	set -- "$1" "$objects/tests/metal/test_flush.o" "$objects/tests/metal/flush_look.o" "$folder/changed.o" \
		$(find "$objects/core" "$objects/machines" -name '*.o' ! -path "$objects/${1%.c}.o")
	shift
	$CC $flags -c -o "$folder/changed.o" "$folder/changed.c" &&
		$CC -nostdlib -static -no-pie -Wl,-z,max-page-size=0x1000 -Wl,--build-id=none \
			-T machines/x86_64/link.ld -o "$folder/changed.elf" "$@" "$objects/libtests.a"
}

# run ARGUMENT...: what the program says is in $folder/out.
run() {
	MF_METAL_TIMEOUT=120 "$here/../../tools/metal" "$folder/changed.elf" $machine "$@" >"$folder/out" 2>&1
}

# What processors saw: how often, or how one of them went wrong; and what the dues said.
seen_by_processors() {
	sed -n -e 's/^# seen: \([1-9][0-9]* stale translations\).*/\1/p' \
		-e 's/^memfold: unexpected \([a-z ]*[a-z]\).*/an \1/p' -e '/M5/!s/^panic: memfold: \(.*\)/"\1"/p' "$folder/out" | head -n 1
}
seen_by_dues() {
	sed -n -e 's/^# \(M5 at .*\)/"\1"/p' -e 's/^panic: memfold: \(M5.*\)/"\1"/p' "$folder/out" | head -n 1
}

# is_noticed BY WHAT TEST SOURCE SED-SCRIPT: BY processors, or by the dues alone, which panic.
is_noticed() {
	by=$1 what=$2 test=$3
	if ! build "$4" "$5" >"$folder/out" 2>&1; then
		report 1 "$what left out: it does not build" "$folder/out"
		return
	fi
	[ "$by" = processors ] || set -- panic
	[ "$by" = dues ] || set --
	if run "test=$test" "$@"; then
		report 1 "$what left out is noticed by nobody" "$folder/out"
		return
	fi
	seen=$("seen_by_$by")
	[ -n "$seen" ]
	report $? "$what left out is noticed by $by: $seen" "$folder/out"
}

# Needless: another flush comes before anybody relies on it.
goes_unnoticed() {
	build "$3" "$4" >"$folder/out" 2>&1 && run "test=$2"
	report $? "$1 left out is no breach" "$folder/out"
}

in_function() {
	echo "/^[a-z].*[ *]$1(/,/^}/s/$2.*;/;/"
}

each 'q35, 4 processors in turn' metal/test_flush $machine

is_noticed processors 'the flush of slots that a region adds' blocks_self core/memmap/window.c \
	"$(in_function ensure_tables window_flush)"
is_noticed processors 'the flush of slots that a region leaves' flushes_of_regions core/memmap/window.c \
	"$(in_function trim_tables window_flush)"
is_noticed dues 'the flush of tables that become private' private_tables core/memmap/window.c \
	"$(in_function window_privatise window_flush)"
is_noticed dues 'the flush of tables that a region shares again' private_tables core/memmap/window.c \
	"$(in_function window_share window_flush)"
is_noticed dues 'the flush of all tables of a map that ends' private_tables core/memmap/map.c \
	"$(in_function map_exit window_flush)"
is_noticed dues 'the flush of tables that no region shares again' private_tables core/memmap/map.c \
	"$(in_function tables_share window_flush)"
is_noticed processors 'the flush of an unfold' blocks_ram core/frames/unfold.c 's/window_flush_children(.*u->c, .*/;/'
is_noticed dues 'the flush of what seeds an unfold' blocks_self core/frames/unfold.c \
	's/window_flush_children(.*u->seed, .*/;/'
is_noticed dues 'the scope of the flush of an unfold' blocks_ram core/frames/unfold.c \
	's/MF_FLUSH_TABLES/MF_FLUSH_LEAVES/'
is_noticed processors 'the flush of a fold' blocks_ram core/frames/fold.c "$(in_function finish window_flush_children)"
is_noticed processors 'the flush of a set' blocks_ram core/frames/set.c "$(in_function fold_all window_flush)"
is_noticed dues 'the flush of a set that has too many frames' many_blocks core/frames/set.c \
	"$(in_function release_later window_flush)"
is_noticed dues 'the flush of slots that move' slots_that_move core/frames/set.c \
	"$(in_function move_slots window_flush)"
is_noticed processors 'the flush of a populate' compounds core/memmap/compound.c \
	"$(in_function populate_tables window_flush)"
is_noticed dues 'the flush of a leaf that one remap splits' hvo_7_1 core/memmap/remap.c \
	"$(in_function diet_split window_flush)"
is_noticed processors 'the flush of a diet' hvo_7_1 core/memmap/work.c "$(in_function diet_work_flush window_flush)"
is_noticed processors 'the flush of a depopulate' compounds core/memmap/work.c \
	"$(in_function diet_work_flush window_flush)"
is_noticed processors 'the flush at the end of a diet' hvo_5_18 core/memmap/work.c \
	"$(in_function diet_work_end diet_work_flush)"
goes_unnoticed 'the flush of all leaves that a list splits' hvo_7_1 core/memmap/onoff.c \
	'/split_list(map, folios/,/mf_quiesce/s/diet_work_flush(&w);/;/'

# But for the definitions, and the one call for all children of a block.
grep -H 'window_flush[a-z_]*(' core/*/*.c | grep -v -e ':void ' -e '(map, purpose,' | sort -u >"$folder/flushes"
nothing 'no flush of the core was forgotten' "$(sort -u "$folder/taken" | comm -23 "$folder/flushes" -)"
echo "1..$nr"
