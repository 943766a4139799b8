#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# memfold plan: its figures, its two forms of output, and what it does when it cannot print.  MF_BUILD is the build
# folder.
. "$(dirname "$0")/../lib/command.sh"

# figures EXPRESSION OPTION...: the Perl expression holds, given $plan (the JSON document) and %s (schemes by name).
figures() {
	expression=$1
	shift
	"$memfold" plan --json "$@" >"$folder/json" || return 1
	perl -MJSON::PP -e '
		local $/;
		my $plan = decode_json(<STDIN>);
		my %s = map { $_->{scheme} => $_ } @{$plan->{schemes}};
		my $expression = shift;
		exit 0 if eval $expression;
		print "$expression does not hold: $@\n";
		exit 1' "$expression" <"$folder/json" || {
		cat "$folder/json"
		return 1
	}
}

check 'JSON has the members that were promised' figures '
	$plan->{schema} == 1 && $plan->{described_bytes} == 2**40 && $plan->{unit_bytes} == 2**21 &&
	join(" ", map { $_->{scheme} } @{$plan->{schemes}}) eq
		"flat hvo-5.14 hvo-5.18 hvo-7.1 devdax devdax-altmap tiered" &&
	!grep { $_->{descriptor_bytes} + $_->{table_bytes} != $_->{total_bytes} } @{$plan->{schemes}}' \
	--size 1TiB --unit 2MiB
check 'a TiB of 2 MiB units costs what Linux was measured to take' figures '
	int($s{flat}{total_bytes} / 2**20) == 16384 && int($s{"hvo-7.1"}{total_bytes} / 2**20) == 2080 &&
	int($s{tiered}{total_bytes} / 2**20) == 32' --size 1TiB --unit 2MiB
check 'a TiB of 1 GiB units' figures '
	int($s{"hvo-5.18"}{total_bytes} / 2**20) == 36 && $s{tiered}{total_bytes} <= 2**18' --size 1TiB --unit 1GiB
check '1 EiB with every page size' figures '$plan->{described_bytes} == 2**60' --size 1EiB
check '1 EiB in pages of 16 KiB' figures '$plan->{unit_bytes} == 2**25' --size 1EiB --page-size 16KiB
check '1 EiB in pages of 64 KiB' figures '$plan->{unit_bytes} == 2**29' --size 1EiB --page-size 64KiB
check 'a split quarter costs a quarter of flat and a little' figures '
	$plan->{split_units} == 131072 && $s{tiered}{total_bytes} > $s{flat}{total_bytes} / 4 &&
	$s{tiered}{total_bytes} < $s{flat}{total_bytes} * 0.27' --split 25%
check 'source self says what it takes away' figures '
	$s{tiered}{units_obtainable} == 524288 - 17 && $s{tiered}{pool_idle_bytes} > 0' --source self
check 'one page of memory' figures '$s{"hvo-7.1"}{descriptor_bytes} == 4096' --size 4KiB --unit 4KiB

cat >"$folder/machine.json" <<'END'
{"schema": 1, "page_size": "4KiB", "regions": [
	{"name": "dram", "start": "0", "size": "64GiB", "unit": "2MiB", "layout": "tiered", "source": "self"},
	{"name": "cxl", "start": "64GiB", "size": "64GiB", "node": 1, "unit": "1GiB", "layout": "flat"}]}
END
check 'a machine is the sum of its regions' figures '
	$plan->{described_bytes} == 2**37 && !defined $plan->{unit_bytes} && $plan->{units} == 32768 + 64 &&
	$s{tiered}{units_obtainable} == 32766 + 64 &&
	$plan->{as_described}{total_bytes} > $s{tiered}{total_bytes} &&
	$plan->{as_described}{total_bytes} < $s{flat}{total_bytes}' "$folder/machine.json"
cat >"$folder/linux.json" <<'END'
{"schema": 1, "regions": [
	{"start": "0", "size": "1GiB", "layout": "hvo-7.1"},
	{"start": "1GiB", "size": "1GiB", "layout": "hvo-5.14", "source": "altmap"},
	{"start": "2GiB", "size": "1GiB", "layout": "devdax", "source": "host"},
	{"start": "3GiB", "size": "1GiB", "layout": "devdax-altmap", "source": "altmap"}]}
END
check 'source self is no source of Linux schemes, whose diets need another' figures '
	$plan->{as_described}{units_obtainable} == 2048 - 8 && $s{flat}{units_obtainable} < 2048 &&
	$s{tiered}{units_obtainable} < 2048 &&
	!grep { $s{$_}{units_obtainable} != 2048 } qw(hvo-5.14 hvo-5.18 hvo-7.1 devdax)' \
	--source self "$folder/linux.json"
check 'the table says of which schemes the map is in the memory itself' sh -c '
	"$1" plan --source self | head -1 | grep -q "map frames of tiered and flat from the memory itself$" &&
	"$1" plan | head -1 | grep -q "map frames from RAM$"' sh "$memfold"
check 'the table has a line for each scheme' sh -c '
	test "$("$1" plan | grep -cE "^(flat|hvo-5.14|hvo-5.18|hvo-7.1|devdax|devdax-altmap|tiered) ")" = 7' \
	sh "$memfold"
check 'the table of a machine says what was described' sh -c '
	"$1" plan "$2" | grep -q "^as described"' sh "$memfold" "$folder/machine.json"
check 'help and version go to standard output' sh -c '
	"$1" --help | grep -q "^Usage" && "$1" plan --help | grep -q -- "--split" &&
	"$1" --version | grep -q "^memfold [0-9]"' sh "$memfold"

if [ -w /dev/full ]; then
	check 'a full disk: exit code 2' code 2 sh -c '"$1" plan >/dev/full' sh "$memfold"
	check 'a full disk: one message' grep -q '^memfold: standard output: No space left' "$folder/error"
fi
# The reader is gone for certain before anything is written.
check 'a closed pipe: exit code 2' code 2 sh -c '
	mkfifo "$2/pipe" && { exec 3<>"$2/pipe" 4>"$2/pipe" 3>&-; } && "$1" plan --json >&4' sh "$memfold" "$folder"
check 'a closed pipe: one message' grep -q '^memfold: standard output: Broken pipe' "$folder/error"
check 'no standard output at all: exit code 2' code 2 sh -c '"$1" plan >&-' sh "$memfold"
echo "1..$nr"
