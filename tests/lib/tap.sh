# SPDX-License-Identifier: BSD-2-Clause
#
# tap.sh - what tests that are scripts share: a folder of their own, checks, numbers.  Read at the beginning:
#
#	. "$(dirname "$0")/../lib/tap.sh"
#	check 'one file is there' test -e README.md
#	echo "1..$nr"
#
# Gives MF_BUILD, the build folder, and CC where they are not set; $folder, which is gone when the script ends; $nr, the
# tests so far.
: "${MF_BUILD:=build}" "${CC:=gcc}"
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
nr=0

# report CODE WHAT [FILE]: ok when CODE is 0; else FILE, where there is one, says why.
report() {
	nr=$((nr + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $nr - $2"
	else
		echo "not ok $nr - $2"
		[ ! -f "${3:-}" ] || sed 's/^/# /' "$3"
	fi
}

# check WHAT COMMAND...: ok when the command succeeds; shows what it said when it does not.
check() {
	what=$1
	shift
	"$@" >"$folder/said" 2>&1
	report $? "$what" "$folder/said"
}

# nothing WHAT FOUND: ok when FOUND, the list of what should not be, is empty.
nothing() {
	printf '%s\n' "$2" >"$folder/said"
	[ -z "$2" ]
	report $? "$1" "$folder/said"
}

skip() {
	nr=$((nr + 1))
	echo "ok $nr - $1 # SKIP $2"
}

# code EXPECTED COMMAND...: its exit code; what it printed stays in $folder/out and $folder/error.
code() {
	expected=$1
	shift
	"$@" >"$folder/out" 2>"$folder/error" </dev/null
	got=$?
	[ "$got" -eq "$expected" ] || {
		echo "exit code $got, not $expected"
		cat "$folder/out" "$folder/error"
		false
	}
}
