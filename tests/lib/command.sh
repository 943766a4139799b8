# SPDX-License-Identifier: BSD-2-Clause
#
# command.sh - what tests of the command share, besides tap.sh: $memfold, and what it is to refuse.
. "$(dirname "$0")/../lib/tap.sh"
memfold=$MF_BUILD/memfold

# refused SAYS ARGUMENT...: exit code 2, nothing on standard output, one line on standard error that starts with
# "memfold: " and contains the fixed text SAYS.
refused() {
	says=$1
	shift
	if code 2 "$memfold" "$@" >/dev/null && [ ! -s "$folder/out" ] && [ "$(wc -l <"$folder/error")" -eq 1 ] &&
		grep -q '^memfold: ' "$folder/error" && grep -qF -- "$says" "$folder/error"; then
		report 0 "$says"
	else
		{
			echo "exit code $got: memfold $*" | tr '\n\033' '??'
			echo
			cat "$folder/out" "$folder/error"
		} >"$folder/said"
		report 1 "$says" "$folder/said"
	fi
}
