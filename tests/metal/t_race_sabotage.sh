#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# That the races on bare metal can fail: one step is taken out of one source, the programs are linked with that in place
# of what the build made of it, and must fail, by a check or a fault of a processor.  With nothing taken out they pass.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"
built=$MF_BUILD/x86_64-debug

objects_of() {
	for source in "tests/race/$1.c" "tests/race/${1#test_}"_*.c; do
		case $source in
		*_child.c | *_hosted.c | *'*'*) ;;
		*) echo "$built/${source%.c}.o" ;;
		esac
	done
}

# Headers that go before those of the tree.
headers=$folder/headers

# change_header HEADER SED-SCRIPT: for all builds from then on.  Nothing compiles with one that did not change.
change_header() {
	mkdir -p "$headers/$(dirname "$1")"
	sed "$2" "$1" >"$headers/$1"
	! cmp -s "$1" "$headers/$1" || echo "nothing changed in $1" >"$headers/$1"
}

# build PROGRAM SOURCE SED-SCRIPT: 99 when the result does not link, or nothing changed but should have.
build() {
	sed "$3" "$2" >"$folder/changed.c"
	[ -z "$3" ] || ! cmp -s "$2" "$folder/changed.c" || return 99
	rm -f "$folder/changed.o" "$folder/output"
	$CC -std=c11 -O2 -g -DMF_DEBUG -ffreestanding -mcmodel=kernel -mno-red-zone -mgeneral-regs-only -fno-pic \
		-fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -I"$headers" \
		-Iinclude -I. -I"$(dirname "$2")" -c -o "$folder/changed.o" "$folder/changed.c" || return 99
	others=$(ls "$built"/core/*/*.o "$built"/machines/x86_64/*.o | grep -vF "/${2%.c}.o")
	$CC -nostdlib -static -no-pie -Wl,-z,max-page-size=0x1000 -Wl,--build-id=none -T machines/x86_64/link.ld \
		-o "$folder/program.elf" $(objects_of "$1") "$folder/changed.o" $others "$built/libtests.a" || return 99
}

# run SEED: the exit code of what was built last, with $options and $operations, and more with each seed.
options='-c 4 --single' operations=4000
run() {
	MF_METAL_TIMEOUT=120 tools/metal "$folder/program.elf" -m 12G $options "MF_SEED=$1" \
		"MF_OPS=$(($1 * operations))" >"$folder/output" 2>&1
}

passes() {
	build "$2" "$3" '' && run 1
	report $? "$1" "$folder/output"
}

# A race may be lost once; it is not lost with one seed after the other and ever more operations.
is_caught() {
	if build "$2" "$3" "$4"; then
		for seed in 1 2 3 4 5; do
			if ! run $seed; then
				report 0 "$1"
				return
			fi
		done
	fi
	report 1 "$1" "$folder/output"
}

no_quiesce='/^void mf_quiesce/,/^}/s/now = .*/return;/'
no_exchange='s/__atomic_exchange_n(&(.own)->lock.held, 1, .*) == 0/!(*own)->lock.held \&\& ((*own)->lock.held = 1)/'
flush_left_out='s/if (leaves_out && .*/if (cpu->nr_flushes % 16 == 15)/'

passes nothing_taken_out_passes_in_order test_order core/memmap/reader.c
is_caught no_quiesce_is_caught_in_order test_order core/memmap/reader.c "$no_quiesce"
passes nothing_taken_out_passes_in_race test_race core/memmap/reader.c
is_caught no_quiesce_is_caught_in_race test_race core/memmap/reader.c "$no_quiesce"
is_caught every_16th_flush_left_out_is_caught_in_race test_race machines/x86_64/flush.c "$flush_left_out"
# Two steps that are a few instructions apart: only processors that run at the same time come in between.
options='-c 3 test=threads' operations=500000
passes nothing_taken_out_passes_at_the_same_time test_race core/folio/folio.c
change_header core/frames/zone.h "$no_exchange"
is_caught a_cache_that_is_looked_at_and_then_locked_is_caught_at_the_same_time test_race core/folio/folio.c ''
echo "1..$nr"
