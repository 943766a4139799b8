#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# That the race tests can fail: one step is taken out of one source of the core, the debug programs are linked with
# that source in place of the library's, and must fail (by a check, a panic or a hang).  Where the window is a few
# instructions wide, a yield is put into it first; with the yield alone the program must pass.  MF_BUILD is the build
# folder.
: "${MF_BUILD:=build}" "${CC:=gcc}"
debug=$MF_BUILD/debug
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
nr=0

say() {
	nr=$((nr + 1))
	echo "$1 $nr - $2"
}

# run PROGRAM SOURCE SED-SCRIPT [TEST]: its exit code; 99 when the script changed nothing or the result does not link.
run() {
	sed "$3" "$2" >"$work/changed.c"
	cmp -s "$2" "$work/changed.c" && return 99
	rm -f "$work/changed.o"
	$CC -std=c11 -O1 -g -DMF_DEBUG -ffreestanding -fPIC -Iinclude -I. -c -o "$work/changed.o" "$work/changed.c" ||
		return 99
	$CC -pthread -o "$work/program" "$debug/tests/race/$1.o" "$work/changed.o" "$debug"/tests/lib/*.o \
		"$debug/libmemfold.a" || return 99
	MF_OPS=20000 timeout -k 1 120 "$work/program" ${4:+"$4"} >"$work/output" 2>&1
}

passes() {
	if run "$2" "$3" "$4" "$5"; then
		say ok "$1"
	else
		say 'not ok' "$1"
		sed 's/^/# /' "$work/output"
	fi
}

is_caught() {
	run "$2" "$3" "$4" "$5"
	code=$?
	if [ $code -ne 0 ] && [ $code -ne 99 ]; then
		say ok "$1"
	else
		say 'not ok' "$1"
		echo "# exit code $code"
	fi
}

no_quiesce='/^void mf_quiesce/,/^}/s/now = .*/return;/'
yield='1i int sched_yield(void);'
take_slowly="$yield
s/if (!folio || !counts_try_add/if ((sched_yield(), !folio) || !counts_try_add/"
next_slowly="$yield
/^struct mf_folio .mf_folio_next/,/^}/s/word = mf_page_word/sched_yield(); word = mf_page_word/"
offline_slowly="$yield
s/err = offline_once(map, r);/{ for (int i = 0; i < 20; i++) sched_yield(); err = offline_once(map, r); }/"

is_caught no_quiesce_is_caught_in_order test_order core/memmap/reader.c "$no_quiesce"
is_caught no_quiesce_is_caught_in_race test_race core/memmap/reader.c "$no_quiesce" cpus
passes a_slow_take_passes test_race core/folio/count.c "$take_slowly" cpus
is_caught no_second_resolve_is_caught test_race core/folio/count.c "$take_slowly
s/still = .*/still = true;/" cpus
passes a_slow_iterator_passes test_overtake core/folio/folio.c "$next_slowly" iterator
is_caught no_second_look_of_the_iterator_is_caught test_overtake core/folio/folio.c "$next_slowly
/a merge overtook us/s/continue;/;/" iterator
passes a_slow_offline_passes test_overtake core/frames/client.c "$offline_slowly" region
is_caught an_offline_of_split_blocks_is_caught test_overtake core/frames/client.c "$offline_slowly
s/zone_parent(o->zone, mf_word_tier(word), pfn))/false)/" region
freeze_anyway='/^bool mf_folio_freeze/,/^}/s/= expected;/= mf_folio_refcount(folio); (void)expected;/'
is_caught a_split_beside_other_holders_is_caught test_race core/folio/count.c "$freeze_anyway" cpus
echo "1..$nr"
