# SPDX-License-Identifier: BSD-2-Clause
#
# metal.sh - what tests on bare metal share, besides tap.sh: boots of a program that prints TAP.  Read at the beginning:
#
#	here=$(cd "$(dirname "$0")" && pwd)
#	. "$here/metal.sh"
if ! command -v "${MF_QEMU:-qemu-system-x86_64}" >/dev/null; then
	echo '1..0 # SKIP no emulator of x86-64 is installed'
	exit 0
fi
. "$here/../lib/tap.sh"

# boot PROGRAM OPTION...: what it said is in $folder/out then, its tests in $folder/lines.  True when all of them were
# run, and the machine ended as they say.
boot() {
	program=$1
	shift
	code=0
	"$here/../../tools/metal" "$MF_BUILD/x86_64-debug/tests/$program.elf" "$@" >"$folder/raw" 2>"$folder/error" ||
		code=$?
	tr -d '\r' <"$folder/raw" >"$folder/out"
	cat "$folder/error" >>"$folder/out"
	grep -e '^ok ' -e '^not ok ' "$folder/out" >"$folder/lines"
	planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$folder/out")
	failed=0
	! grep -q '^not ok' "$folder/lines" || failed=1
	[ "${planned:-0}" -gt 0 ] && [ "$(wc -l <"$folder/lines")" -eq "$planned" ] && [ "$code" -eq "$failed" ]
}

# whole WHERE PROGRAM OPTION...: one line for all of its tests.
whole() {
	where=$1
	shift
	boot "$@" && ! grep -q '^not ok' "$folder/lines"
	report $? "${1#*/}, $where" "$folder/out"
}

# each WHERE PROGRAM OPTION...: a line for each of its tests, and one for its end.
each() {
	where=$1
	shift
	boot "$@"
	ended=$?
	while read -r line; do
		case $line in
		ok*) report 0 "${1#*/}, $where: ${line#* - }" ;;
		*) report 1 "${1#*/}, $where: ${line#* - }" "$folder/out" ;;
		esac
	done <"$folder/lines"
	report $ended "${1#*/}, $where: ran to its end" "$folder/out"
}
