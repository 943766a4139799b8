#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What is wrong on bare metal and expected by nobody: on each CPU it ends in a report that names it, and the machine in
# exit code 1, at once and not when a timeout ends it.  What goes wrong: tests/metal/main_crash.c.
here=$(cd "$(dirname "$0")" && pwd)

. "$here/metal.sh"

boot_crash() {
	MF_METAL_TIMEOUT=60 "$here/../../tools/metal" "$MF_BUILD/x86_64-debug/crash.elf" -c 2 "crash=$1" "cpu=$2"
}

# crash HOW CPU WORDS...: each of the words stands in what it says, and the end comes with 1.
crash() {
	how=$1 cpu=$2
	shift 2
	code 1 boot_crash "$how" "$cpu" || return 1
	for words in "$@"; do
		grep -qF "$words" "$folder/out" || {
			echo "lacks: $words"
			cat "$folder/out"
			return 1
		}
	done
	[ "$(grep -c unexpected "$folder/out")" -eq 1 ]
}

for cpu in 0 1; do
	check "null_on_$cpu" crash null $cpu "exception 14 (page fault, error 0x2)" "on CPU $cpu" \
		"write to 0x8 on CPU $cpu" "a null pointer; not mapped"
	check "text_on_$cpu" crash text $cpu "on CPU $cpu" "the image, text; read-only"
	check "opcode_on_$cpu" crash opcode $cpu "exception 6 (invalid opcode, error 0x0)" "on CPU $cpu" \
		"rbx 000000000000600d"
	check "interrupt_on_$cpu" crash interrupt $cpu "interrupt 119" "on CPU $cpu"
	check "stack_on_$cpu" crash stack $cpu "guard below the stack of CPU $cpu, which has overflowed"
	check "double_on_$cpu" crash double $cpu "exception 8 (double fault" "on CPU $cpu" \
		"guard below the stack for double faults"
	check "nmi_on_$cpu" crash nmi $cpu "exception 2 (non-maskable interrupt, error 0x0)" "on CPU $cpu" \
		"rsp 0000000000000000"
	check "machine_check_on_$cpu" crash machine_check $cpu "exception 18 (machine check, error 0x0)" "on CPU $cpu" \
		"rsp 0000000000000000"
	check "broken_map_on_$cpu" crash nested $cpu "window 0, of which no map is known" "did not answer"
	check "second_fault_leaves_first_on_$cpu" crash kept $cpu "window 0, the first fault is still there" \
		"did not answer"
	check "locked_map_on_$cpu" crash lock $cpu "window 0, tier 0, pfn 0x0; not backed" "did not answer"
done
check nothing_wrong_ends_with_0 code 0 boot_crash none 0
echo "1..$nr"
