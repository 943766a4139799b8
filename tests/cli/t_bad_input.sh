#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What memfold says to input that it cannot use: exit code 2, nothing on standard output, one line on standard error
# that names the place and what would be right.  MF_BUILD is the build folder.
. "$(dirname "$0")/../lib/command.sh"
file=$folder/machine.json

# file_refused SAYS: the description in $file.
file_refused() {
	refused "$1" plan "$file"
}

# region_refused SAYS MEMBERS: a description of one region.
region_refused() {
	echo "{\"schema\":1,\"regions\":[{$2}]}" >"$file"
	file_refused "$file: $1"
}

# ---- The command line ----

refused 'a verb is missing'
refused '"frob" is no verb' frob
refused '"--frob" is no verb' --frob
refused '"--frob" is no option of memfold plan' plan --frob
refused '"-x" is no option of memfold plan' plan -x
refused '"--size": a value is missing' plan --size
refused '"--json=1": this option takes no value' plan --json=1
refused 'one file at most' plan one two
refused '--size: "2MB": "MB" is no unit here, sizes count by 1024; use 2MiB' plan --size 2MB
refused 'use 8GiB' plan --size 8G
refused '"-4096" is no size' plan --size -4096
refused '"" is no size' plan --size ''
refused 'does not fit in 64 bits' plan --size 18446744073709551616
refused 'does not fit in 64 bits' plan --size 16EiB
refused '--size: 2EiB is more than 1EiB' plan --size 2EiB
refused '--size: 0 is no range' plan --size 0
refused '--size: 3MiB is no multiple of the unit, 2MiB; use 4MiB' plan --size 3MiB
refused '--unit: 3MiB is no power of two; use 2MiB or 4MiB' plan --unit 3MiB
refused '--unit: 2KiB is less than one page; use 4KiB' plan --unit 2KiB
refused '--unit: 0 is less than one page' plan --unit 0
refused '--page-size: "8KiB" is no page size; use 4KiB, 16KiB or 64KiB' plan --page-size 8KiB
refused '--split: "2" is no share' plan --split 2
refused '--split: "0,5" is no share' plan --split 0,5
refused '--source: "host" is no source to plan for; use self or ram' plan --source host
refused '--source: "" is no source' plan --source ''

# ---- The file itself ----

echo '{"schema":1,"regions":[{"start":"0","size":"1GiB"}]}' >"$file"
refused 'leave out --size or the file' plan --size 1GiB "$file"
refused 'leave out --unit or the file' plan "$file" --unit 2MiB
refused 'no-such-file: No such file or directory' plan "$folder/no-such-file"
refused "$folder: Is a directory" plan "$folder"
mkfifo "$folder/pipe"
refused 'pipe: a device or a named pipe; a regular JSON file is needed' plan "$folder/pipe"
refused '/dev/null: a device or a named pipe; a regular JSON file is needed' plan /dev/null
check 'what another program writes to standard input is read' sh -c '
	cat "$2" | "$1" plan /dev/stdin >"$3/out" && [ -s "$3/out" ]' sh "$memfold" "$file" "$folder"
refused 'two?lines: No such file' plan "two
lines"
: >"$file"
file_refused 'the JSON ends before it is complete'
echo '{"schema":1' >"$file"
file_refused 'the JSON ends before it is complete'
echo 'regions: []' >"$file"
file_refused 'line 1: this is no JSON'
printf '{"schema":1,\n"regions":[,]}' >"$file"
file_refused 'line 2: this is no JSON'
echo '{"schema":1,"regions":[]} x' >"$file"
file_refused 'this is no JSON'
printf '{"schema":1,"regions":[{"name":"\377"}]}' >"$file"
file_refused 'this is no JSON'
echo '[1]' >"$file"
file_refused 'top: an object is needed'
echo 'null' >"$file"
file_refused 'null is no machine'
perl -e 'print "[" x 100, "]" x 100' >"$file"
file_refused 'nested deeper than 32 levels'
perl -e 'print "[" x 900000' >"$file"
file_refused 'nested deeper than 32 levels'
perl -e 'print "{\"schema\":1,", " " x 1100000, "\"regions\":[]}"' >"$file"
file_refused 'larger than 1MiB'
perl -e 'print "{\"schema\":1,\"regions\":[", join(",", ("0") x 4097), "]}"' >"$file"
file_refused '4097 are too many'
echo '{"regions":[]}' >"$file"
file_refused 'schema: it is missing'
echo '{"schema":2,"regions":[]}' >"$file"
file_refused 'schema: this memfold knows schema 1 only'
echo '{"schema":1}' >"$file"
file_refused 'regions: it is missing'
echo '{"schema":1,"regions":[]}' >"$file"
file_refused 'at least one region'
echo '{"schema":1,"regions":{}}' >"$file"
file_refused 'at least one region'
echo '{"schema":1,"regions":[7]}' >"$file"
file_refused 'regions[0]: 7 is no object; write'
echo '{"schema":1,"zones":[]}' >"$file"
file_refused 'unknown key "zones"; known are schema, page_size and regions'
echo '{"schema":1,"schema":1,"regions":[]}' >"$file"
file_refused 'the key "schema" stands twice'
printf '{"schema":1,\n"\\u0073chema":1,"regions":[]}' >"$file"
file_refused 'line 2: the key "\u0073chema" is written with a backslash; write its letters as they are'
echo '{"schema":1,"page_size":"8KiB","regions":[]}' >"$file"
file_refused 'page_size: "8KiB" is no page size'
echo '{"schema":1,"page_size":4096,"regions":[]}' >"$file"
file_refused 'page_size: 4096 is no text; write'
echo '{"schema":1,"page_size":"16KiB","regions":[{"start":"0","size":"1GiB"}]}' >"$file"
refused '--page-size: ' plan --page-size 4KiB "$file"

# ---- A region ----

region_refused 'regions[0].start: it is missing' '"size":"1GiB"'
region_refused 'regions[0].size: it is missing' '"start":"0"'
region_refused 'regions[0]: unknown key "sise"; known are name, start, size' '"start":"0","sise":"1GiB"'
region_refused 'regions[0].size: "2MB": "MB" is no unit here, sizes count by 1024; use 2MiB' '"start":"0","size":"2MB"'
region_refused 'regions[0].size: "99999999999999999999" does not fit' '"start":"0","size":"99999999999999999999"'
region_refused 'regions[0].size: the number does not fit in 64 bits' '"start":"0","size":99999999999999999999'
region_refused 'regions[0].size: -1 is no whole number' '"start":"0","size":-1'
region_refused 'regions[0].size: 1.5 is no text' '"start":"0","size":1.5'
region_refused 'regions[0].size: 0 is no range' '"start":"0","size":"0"'
region_refused 'regions[0].size: 3MiB is no multiple of the unit, 2MiB; use 4MiB' \
	'"start":"0","size":"3MiB","unit":"2MiB"'
region_refused 'regions[0].start: 1MiB is no multiple of the unit, 2MiB; use 2MiB' \
	'"start":"1MiB","size":"4MiB","unit":"2MiB"'
region_refused 'regions[0].start: 1EiB and the size go beyond 1EiB' '"start":"1EiB","size":"2MiB"'
region_refused 'regions[0].start: 15EiB and the size go beyond 1EiB' '"start":"15EiB","size":"1EiB"'
region_refused 'regions[0].unit: 3MiB is no power of two' '"start":"0","size":"3MiB","unit":"3MiB"'
region_refused 'regions[0].unit: 0 is no unit' '"start":"0","size":"3MiB","unit":0'
region_refused 'regions[0].node: 64 is no whole number from 0 to 63' '"start":"0","size":"4MiB","node":64'
region_refused 'regions[0].top: 0 is no whole number from 1 to 2' '"start":"0","size":"4MiB","top":0'
# A value of the wrong type, as it stands in the file: text in one pair of quotes, all else in none.
region_refused 'regions[0].node: "3" is no whole number' '"start":"0","size":"4MiB","node":"3"'
region_refused 'regions[0].node: null is no whole number' '"start":"0","size":"4MiB","node":null'
region_refused 'regions[0].node: [1,"a/b?"] is no whole number' '"start":"0","size":"4MiB","node":[1,"a/b\177"]'
region_refused 'regions[0].top: "0123456789012345678901234567890123456789.. is no whole number' \
	'"start":"0","size":"4MiB","top":"01234567890123456789012345678901234567890123456789"'
region_refused 'regions[0].name: true is no text; write it as in "ram0"' '"start":"0","size":"4MiB","name":true'
region_refused 'regions[0].name: "a\u0000b" is no text' '"start":"0","size":"4MiB","name":"a\u0000b"'
region_refused 'regions[0].layout: "hvo" is no layout; use flat, tiered' '"start":"0","size":"4MiB","layout":"hvo"'
region_refused 'regions[0].source: "disk" is no source; use self' '"start":"0","size":"4MiB","source":"disk"'
for layout in hvo-5.14 hvo-5.18 hvo-7.1; do
	says="\"self\" is no source for $layout; use ram, or the layout tiered or flat"
	region_refused "regions[0].source: $says" \
		"\"start\":\"0\",\"size\":\"4MiB\",\"layout\":\"$layout\",\"source\":\"self\""
	refused "$file: regions[0].source: \"self\" is no source for $layout" run "$file"
done
for source in self altmap; do
	says="\"$source\" is no source for devdax; use ram, or altmap and the layout devdax-altmap"
	region_refused "regions[0].source: $says" \
		"\"source\":\"$source\",\"start\":\"0\",\"size\":\"4MiB\",\"layout\":\"devdax\""
done
for source in self ram host; do
	region_refused "regions[0].source: \"$source\" is no source for devdax-altmap; use altmap" \
		"\"start\":\"0\",\"size\":\"4MiB\",\"layout\":\"devdax-altmap\",\"source\":\"$source\""
done
# Said of the command line it is for tiered and flat alone, and run has no such choice.
refused '"--source" is no option of memfold run' run --source self "$file"
region_refused 'regions[0].name: "" is empty' '"start":"0","size":"4MiB","name":""'
region_refused 'regions[0].name: "?[2J" has control characters' '"start":"0","size":"4MiB","name":"\u001b[2J"'
region_refused 'line 1: the key "size" stands twice' '"start":"0","size":"4MiB","size":"8MiB"'

# ---- Regions against each other ----

echo '{"schema":1,"regions":[{"name":"a","start":"0","size":"4MiB"},
{"name":"a","start":"4MiB","size":"4MiB"}]}' >"$file"
file_refused "$file: regions[1].name: \"a\" is the name of regions[0] already"
echo '{"schema":1,"regions":[{"start":"0","size":"4MiB"},{"start":8388608,"size":"4MiB"},
{"start":"2MiB","size":"8MiB"}]}' >"$file"
file_refused "$file: regions[2]: 0x200000 to 0xa00000 overlaps regions[0], 0x0 to 0x400000"
# The same in another order, and far apart: what is told is told of the later one in the file.
echo '{"schema":1,"regions":[{"start":"2MiB","size":"8MiB"},{"start":"64MiB","size":"4MiB"},
{"start":"0","size":"4MiB"}]}' >"$file"
file_refused "$file: regions[2]: 0x0 to 0x400000 overlaps regions[0], 0x200000 to 0xa00000"
perl -e 'print q({"schema":1,"regions":[), join(",", map { qq({"name":"n) . $_ % 4095 . q(","start":) .
	(4095 - $_) * 8192 . q(,"size":4096}) } 0 .. 4095), "]}"' >"$file"
file_refused "$file: regions[4095].name: \"n0\" is the name of regions[0] already"
echo "1..$nr"
