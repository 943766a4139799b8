#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# instructions.sh PROGRAM WORK: counts instructions of memfold's operations under callgrind, on sim; prints result lines
# (bench/bench.h).  One count has no spread: the same build gives the same number.
#
# Left out: the simulated hardware (its walker runs in a signal handler, which callgrind keeps apart; sim_flush is
# subtracted, and for diets sim's list of RAM), and for folds the quiesce.
set -eu
program=$1 work=$2
here=$(dirname "$0")

# Debugging lines would make every inlined header a function of its own.
strip --strip-debug -o "$work/counted" "$program"

# Registers are kept up at every instruction: sim's accesses are repeated after a fault, and Valgrind 3.19 would start
# again with a stale one under allregs-at-mem-access.
#
# counts NAME OPTIONS ARGUMENT: runs it and flattens what was counted into $work/NAME.
counts() {
	valgrind -q --tool=callgrind --px-default=allregs-at-each-insn --px-file-backed=allregs-at-each-insn \
		--callgrind-out-file="$work/$1.out" $2 "$work/counted" $3 >"$work/$1.said"
	awk -f "$here/callgrind.awk" "$work/$1.out" >"$work/$1"
}

# result QUESTION GOAL NAME EXPRESSION REMARK: awk's EXPRESSION over inclusive[f], into[f], edge[caller, f], said[key];
# a function that was not counted is an error, not a zero.
result() {
	awk -v question="$1" -v goal="$2" -v remark="$5" '
		function need(array, key) {
			if (!(key in array)) {
				print "instructions.sh: callgrind saw no " key >"/dev/stderr"
				failed = 1
				exit 1
			}
			return array[key]
		}
		function inclusive(f) { return need(inclusive_of, f) }
		function into(f) { return need(into_of, f) }
		function edge(a, b) { return need(edge_of, a " " b) }
		function said(key) { return need(said_of, key) }
		$1 == "inclusive" { inclusive_of[$2] = $3 }
		$1 == "into" { into_of[$2] = $3 }
		$1 == "edge" { edge_of[$2 " " $3] = $4 }
		NF == 2 { said_of[$1] = $2 }
		END {
			if (failed)
				exit 1
			value = int('"$4"' + 0.5) # what a loop sets up once is less than half an instruction a run
			if (failed)
				exit 1
			printf "result\t%s\tinstructions\t%s\t%.6g\t%.6g\t%.6g\t%s\n", question, goal, value, value, value, remark
		}' "$work/$3" "$work/$3.said"
}

counts calls '' calls
counts unfold '--toggle-collect=unfold_free' unfold
counts fold '--toggle-collect=fold_one' unfold
counts remap '--toggle-collect=bench_remap' diet
counts restore '--toggle-collect=bench_restore' diet

result 'allocate + free, order 9, from the CPU cache' 400 calls \
	'(edge("bench_order_9", "mf_folio_alloc") + edge("bench_order_9", "mf_folio_put")) / said("runs")' ''
result 'allocate + free, order 0, from the CPU cache' 120 calls \
	'(edge("bench_order_0", "mf_folio_alloc") + edge("bench_order_0", "mf_folio_put")) / said("runs")' ''
result 'unfold of a 2 MiB block, tables private already' 6000 unfold \
	'(inclusive("unfold_free") - into("sim_flush")) / said("unfolds")' 'flush apart'
result 'fold of a 2 MiB block' 1500 fold \
	'(inclusive("fold_one") - into("sim_flush") - into("mf_quiesce")) / said("folds")' 'flush and quiesce apart'
result 'page -> folio, base page' 8 calls \
	'(edge("lookups_of_base_page", "loop_from_below") - inclusive("loop_without_lookup")) / said("runs")' \
	'inlined, the loop apart'
result 'page -> folio, one tier up' 15 calls \
	'(edge("lookups_one_tier_up", "loop_from_below") - inclusive("loop_without_lookup")) / said("runs")' \
	'inlined, the loop apart'
result 'pfn -> folio from above, top block' 12 calls \
	'(edge("lookups_from_above", "loop_from_above") - inclusive("loop_without_lookup")) / said("runs")' \
	'inlined, the loop apart'
result 'remap of a 2 MiB folio (hvo-7.1)' 6000 remap \
	'(inclusive("bench_remap") - into("sim_flush") - into("sim_ram_get") - into("sim_ram_put")) / said("diets")' \
	'flush and the simulated RAM apart'
result 'restore of a 2 MiB folio (hvo-7.1)' 6000 restore \
	'(inclusive("bench_restore") - into("sim_flush") - into("sim_ram_get")) / said("diets")' \
	'flush and the simulated RAM apart'
result 'get + put' - calls \
	'(edge("bench_get_put", "mf_folio_get") + edge("bench_get_put", "mf_folio_put")) / said("runs")' ''
result 'pin + unpin' - calls \
	'(edge("bench_pin_unpin", "mf_folio_pin") + edge("bench_pin_unpin", "mf_folio_unpin")) / said("runs")' ''
result 'speculative get by pfn + put' - calls \
	'(edge("bench_try_get_put", "mf_pfn_try_get") + edge("bench_try_get_put", "mf_folio_put")) / said("runs")' ''
