#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# That the race tests can fail: one step is taken out of one source of the core, the debug programs are linked with
# that source in place of the library's, and must fail (by a check, a panic or a hang).  Where the window is a few
# instructions wide, a yield is put into it first; with the yield alone the program must pass.  MF_BUILD is the build
# folder.
. "$(dirname "$0")/../lib/tap.sh"
debug=$MF_BUILD/debug

# The objects of a program: test_x, and x_* beside it.
objects_of() {
	for source in "tests/race/$1.c" "tests/race/${1#test_}"_*.c; do
		case $source in
		*_child.c | *'*'*) ;;
		*) echo "$debug/${source%.c}.o" ;;
		esac
	done
}

# The headers that sources are built with; change_header HEADER SED-SCRIPT takes others, until the next of these calls.
include=include
change_header() {
	include=$folder/include
	rm -rf "$include" && cp -R include "$include" && sed "$2" "include/memfold/$1" >"$include/memfold/$1"
	! cmp -s "include/memfold/$1" "$include/memfold/$1" || echo "nothing changed in $1" >"$include/memfold/$1"
}

# build PROGRAM SOURCE SED-SCRIPT: 99 when the script changed nothing or the result does not link.
build() {
	sed "$3" "$2" >"$folder/changed.c"
	cmp -s "$2" "$folder/changed.c" && return 99
	rm -f "$folder/changed.o" "$folder/output"
	$CC -std=c11 -O1 -g -DMF_DEBUG -ffreestanding -fPIC -I"$include" -I. -I"$(dirname "$2")" -c -o "$folder/changed.o" \
		"$folder/changed.c" || return 99
	$CC -pthread -o "$folder/program" $(objects_of "$1") "$folder/changed.o" "$debug"/tests/lib/*.o \
		"$debug/libmemfold.a" || return 99
}

# run OPERATIONS SEED [TEST]: the exit code of what was built last.
run() {
	MF_OPS=$1 MF_SEED=$2 timeout -k 1 120 "$folder/program" ${3:+"$3"} >"$folder/output" 2>&1
}

passes() {
	build "$2" "$3" "$4" && run 20000 1 "$5"
	report $? "$1" "$folder/output"
}

# A race may be lost once; it is not lost with one seed after the other and ever more operations.
is_caught() {
	name=$1
	test=$5
	if build "$2" "$3" "$4"; then
		for seed in 1 2 3 4 5 6 7 8; do
			if ! run $((seed * 20000)) $seed "$test"; then
				report 0 "$name"
				return
			fi
		done
	fi
	report 1 "$name"
}

no_quiesce='/^void mf_quiesce/,/^}/s/now = .*/return;/'
yield='1i int sched_yield(void);'
take_slowly="$yield
s/if (!folio || !counts_try_add/if ((sched_yield(), !folio) || !counts_try_add/"
next_slowly="$yield
/^struct mf_folio .mf_folio_next/,/^}/s/word = mf_page_word/sched_yield(); word = mf_page_word/"
link_slowly="$yield
/^void pgtable_grow/,/^}/s/entry_change(/sched_yield(); entry_change(/"
link_first="$yield
/^void pgtable_grow/,/^}/{
	/table_fill/d
	s/entry_change(.*/& sched_yield(); table_fill(p, path[at - 1], pt->level[at - 1].background);/
}"
tail_of='/^static inline struct mf_folio .mf_page_folio(/,/^}/s/(a & word) : mf_page/(sched_yield(), a \& WORD) : mf_page/'
offline_slowly="$yield
s/err = offline_once(map, r);/{ for (int i = 0; i < 20; i++) sched_yield(); err = offline_once(map, r); }/"

is_caught no_quiesce_is_caught_in_order test_order core/memmap/reader.c "$no_quiesce"
is_caught no_quiesce_is_caught_in_race test_race core/memmap/reader.c "$no_quiesce" cpus
passes a_slow_take_passes test_race core/folio/count.c "$take_slowly" cpus
# R-CPD-26
is_caught no_second_resolve_is_caught test_race core/folio/count.c "$take_slowly
s/still = .*/still = true;/" cpus
# R-CPD-24
change_header memmap.h "$(echo "$tail_of" | sed s/WORD/word/)"
passes a_slow_lookup_of_a_tail_passes test_race core/folio/count.c "$yield" cpus
change_header memmap.h "$(echo "$tail_of" | sed 's/WORD/mf_page_word(page)/')"
is_caught a_second_load_of_a_tail_is_caught test_race core/folio/count.c "$yield" cpus
include=include
# R-MEM-23
passes a_slow_link_of_a_table_passes test_race core/pgtable/change.c "$link_slowly" race_on_page
is_caught a_table_linked_before_it_is_filled_is_caught test_race core/pgtable/change.c "$link_first" race_on_page
passes a_slow_iterator_passes test_overtake core/folio/folio.c "$next_slowly" iterator
is_caught no_second_look_of_the_iterator_is_caught test_overtake core/folio/folio.c "$next_slowly
/a merge overtook us/s/continue;/;/" iterator
passes a_slow_offline_passes test_overtake core/frames/client.c "$offline_slowly" region
is_caught an_offline_of_split_blocks_is_caught test_overtake core/frames/client.c "$offline_slowly
s/zone_parent(o->zone, mf_word_tier(word), pfn))/false)/" region
freeze_anyway='/^bool mf_folio_freeze/,/^}/s/= expected;/= mf_folio_refcount(folio); (void)expected;/'
is_caught a_split_beside_other_holders_is_caught test_race core/folio/count.c "$freeze_anyway" cpus
is_caught restores_without_end_are_caught test_lack core/frames/alloc.c 's/if (!restore_failed && /if (/' restore
is_caught settling_without_end_is_caught test_lack core/frames/alloc.c 's/if (!settle_failed && /if (/' settle
echo "1..$nr"
