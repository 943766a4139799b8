#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# memfold run: its two forms of output, every backing that this host has, what it says when it cannot, and what a broken
# map ends in.  Figures of time are only looked at for being there.  What single layouts cost is t_run_layouts.sh's.
# MF_BUILD is the build folder.
#
# What it mounts, nobody else sees, and is gone with it whatever happens, where a mount namespace of its own can be had.
if [ -z "${MF_UNSHARED:-}" ] && unshare -m true 2>/dev/null; then
	MF_UNSHARED=1 exec unshare -m sh "$0" "$@"
fi
. "$(dirname "$0")/run.sh"
mounted=
clean_up() {
	[ -z "$mounted" ] || umount "$mounted"
	rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- Rows ----

check 'all layouts by default, side by side' good '
	join(" ", map { $_->{layout} } @row) eq "flat hvo-5.14 hvo-5.18 hvo-7.1 devdax tiered" &&
	!grep { $_->{status} ne "ok" || $_->{described_bytes} != 2**26 || $_->{unit_bytes} != 2**21 } @row' --size 64MiB
# One slot of the top window, eight of W_1; each frame of a flat map 64 bytes; what an edge takes is 8 slots a tier.
check 'tiered costs a top slot and eight' good '$row[0]{map_bytes} == 36864 && $row[0]{base_pages} == 4 * 4096' \
	--size 1GiB --layout tiered
check 'flat costs 64 bytes a frame and the edges' good '
	$row[0]{map_bytes} >= 2**20 && $row[0]{map_bytes} <= 2**20 + 17 * 4096' --size 64MiB --layout flat
check 'layouts in the order they are named' good '
	join(" ", map { $_->{layout} } @row) eq "tiered flat tiered"' --size 4MiB --layout tiered,flat,tiered
check 'units of 1 GiB' good '$row[0]{unit_bytes} == 2**30 && $row[0]{map_bytes} == 4096' \
	--size 4GiB --unit 1GiB --layout tiered
check 'units above the top tier' good '$row[0]{map_bytes} == 4096' --size 16GiB --unit 8GiB --layout tiered
check 'units of base pages' good '
	$ok == 6 && !grep { $_->{base_pages} != ($_->{layout} ne "devdax" && 64) } @row' --size 4MiB --unit 4KiB
check 'one page of memory' good '
	$ok == 6 && !grep { $_->{base_pages} != ($_->{layout} ne "devdax") } @row' --size 4KiB --unit 4KiB
check 'odd units of 64 KiB' good '$ok == 6' --size 3MiB --unit 64KiB
check '1 TiB that is never touched' good '$row[0]{map_bytes} + $row[0]{table_bytes} <= 33 * 2**20' \
	--size 1TiB --layout tiered
check '1 TiB in units of 1 GiB' good '$row[0]{map_bytes} + $row[0]{table_bytes} <= 256 * 2**10' \
	--size 1TiB --unit 1GiB --layout tiered
if [ -n "${MF_SOAK:-}" ]; then
	check '8 TiB' good '$row[0]{described_bytes} == 2**43' --size 8TiB --layout tiered
else
	skip '8 TiB' 'it takes up to a minute: set MF_SOAK=1'
fi

# ---- Backings ----

check 'memfd, touched' good '$ok == 6' --size 64MiB --backing memfd --touch
check 'anonymous memory' good '$ok == 6' --size 64MiB --backing anon
check 'anonymous memory, touched' good '$ok == 6' --size 64MiB --backing anon --touch
truncate -s 64M "$folder/memory"
check 'a file' good '$ok == 6' --size 64MiB --backing "$folder/memory"
blocks=$(stat -c %b "$folder/memory")
check 'a file that is not touched stays empty' [ "$blocks" -eq 0 ]
check 'a sparse file, touched' good '$ok == 6' --size 64MiB --backing "$folder/memory" --touch
blocks=$(stat -c %b "$folder/memory")
check 'a sparse file that is touched has every page written' [ "$blocks" -ge $((64 * 2048)) ]
perl -e 'print pack("V", $_) x 1024 for 1 .. 16384' >"$folder/memory"
cp "$folder/memory" "$folder/before"
check 'a file of data, touched' good '$ok == 6' --size 64MiB --backing "$folder/memory" --touch
check 'a file that is touched keeps what it holds' cmp "$folder/before" "$folder/memory"
rm "$folder/before"
check 'part of a larger file' good '@row == 1' --size 32MiB --layout tiered --backing "$folder/memory"

pool=/sys/kernel/mm/hugepages/hugepages-2048kB
# The host's pool is everybody's: one test at a time grows it (tests/unit/test_linux_memory.c takes the same turn).
with_pool() {
	exec 9<"$pool" && flock 9 || return 1
	had=$(cat "$pool/nr_hugepages")
	trap 'echo $had >"$pool/nr_hugepages"; clean_up' EXIT
	echo $((had + 16)) >"$pool/nr_hugepages" && [ "$(cat "$pool/free_hugepages")" -ge 16 ]
}
pool_back() {
	echo "$had" >"$pool/nr_hugepages"
	trap clean_up EXIT
	exec 9<&-
}
if [ ! -w "$pool/nr_hugepages" ]; then
	skip 'huge pages' 'the pool of huge pages cannot be changed here'
elif with_pool; then
	check 'huge pages' good '$ok == 6' --size 32MiB --backing hugetlbfs
	check 'huge pages, touched' good '$ok == 6' --size 32MiB --backing hugetlbfs --touch
	free=$(cat "$pool/free_hugepages")
	check 'huge pages come back' [ "$free" -ge 16 ]
	check 'too few huge pages' unable "[0-9]+ pages are needed, [0-9]+ are free" \
		--size $((free * 2 + 2))MiB --backing hugetlbfs --touch
	pages=$folder/huge
	mkdir "$pages"
	if mount -t hugetlbfs -o pagesize=2M none "$pages" 2>/dev/null; then
		mounted=$pages
		truncate -s $((free * 2 + 64))M "$pages/memory"
		check 'a file of huge pages' good '@row == 1' --size 16MiB --layout tiered --touch --backing "$pages/memory"
		rm "$pages/memory"
		truncate -s $((free * 2 + 64))M "$pages/memory"
		check 'a file of too few huge pages' unable 'are needed|needs' --size $((free * 2 + 64))MiB \
			--layout tiered --touch --backing "$pages/memory"
		umount "$pages"
		mounted=
	else
		skip 'a file of huge pages' 'no hugetlbfs can be mounted here'
	fi
	pool_back
else
	pool_back
	skip 'huge pages' 'the host has no memory for huge pages'
fi

disk=$folder/disk
mkdir "$disk"
if mount -t tmpfs -o size=4m none "$disk" 2>/dev/null; then
	mounted=$disk
	truncate -s 64M "$disk/memory"
	check 'a sparse file on a full disk, untouched' good '@row == 1' --size 64MiB --layout tiered \
		--backing "$disk/memory"
	check 'a sparse file on a full disk, touched' unable 'needs 64.00 MiB behind the memory, the host gave 4.00 MiB' \
		--size 64MiB --layout tiered --touch --backing "$disk/memory"
	umount "$disk"
	mounted=
else
	skip 'a sparse file on a full disk' 'no file system can be mounted here'
fi

# ---- Not enough ----

pattern='needs about 1.02 TiB of memory, [0-9.]+ [KMGT]iB is available'
memory=$(awk '/^MemTotal/ { print int($2 / 1048576) }' /proc/meminfo)
if [ "$memory" -lt 1000 ]; then
	check 'a flat map that cannot fit' unable "$pattern" --size 64TiB --layout flat
	check 'one that can beside it: exit code 0' good '
		$row[0]{status} eq "unable" && $row[0]{why} =~ /'"$pattern"'/ && $row[1]{status} eq "ok"' \
		--size 64TiB --unit 1GiB --layout flat,tiered
else
	skip 'a flat map that cannot fit' 'this host has the memory'
fi
check 'more than a process has addresses for' unable 'needs [0-9.]+ PiB of addresses.*; [0-9.]+ [TP]iB is available' \
	--size 64PiB --unit 1PiB --layout tiered
check 'a limit of addresses' sh -c '
	ulimit -v 2000000; "$1" run --size 8GiB --json >"$2/out" 2>"$2/error"; [ $? -eq 2 ]' sh "$memfold" "$folder"
check 'a limit of addresses is told' holds '$row[0]{why} =~ /needs 8.\d\d GiB of addresses.*; 1.\d\d GiB is available/'
check 'a limit of private memory' sh -c '
	ulimit -d 60000; "$1" run --size 64MiB --backing anon --json >"$2/out" 2>"$2/error"; [ $? -eq 2 ]' sh "$memfold" "$folder"
check 'a limit of private memory is told with what is needed, and what there is' holds '
	$row[0]{why} =~ /about 257.\d\d MiB of memory and 80.00 MiB of addresses are needed, [0-9.]+ .iB and/'

# ---- Descriptions ----

cat >"$folder/machine.json" <<'END'
{"schema": 1, "page_size": "4KiB", "regions": [
	{"name": "a", "start": "0", "size": "2GiB", "unit": "1GiB", "node": 0, "source": "self"},
	{"name": "b", "start": "8GiB", "size": "130MiB", "unit": "2MiB", "node": 5, "top": 1, "source": "altmap"},
	{"name": "c", "start": "8322MiB", "size": "12KiB", "unit": "4KiB", "node": 5, "source": "ram"}]}
END
check 'a machine of three regions' good '
	$ok == 6 && $row[5]{layout} eq "tiered" &&
	!grep { defined $_->{unit_bytes} || $_->{described_bytes} != 2**31 + 130 * 2**20 + 12288 } @row' \
	"$folder/machine.json"
check 'a machine under one layout' good '@row == 1 && $row[0]{layout} eq "flat"' --layout flat "$folder/machine.json"
truncate -s 3G "$folder/memory"
check 'a machine in a file' good '$ok == 6' --backing "$folder/memory" "$folder/machine.json"
cat >"$folder/mixed.json" <<'END'
{"schema": 1, "regions": [
	{"start": "0", "size": "3GiB", "unit": "1GiB", "node": 0},
	{"start": "4GiB", "size": "8MiB", "unit": "2MiB", "node": 1, "layout": "flat"}]}
END
check 'a machine that says layouts is one row' good '@row == 1 && $row[0]{layout} eq "as described"' \
	"$folder/mixed.json"
check 'what it says yields to --layout' good '@row == 2 && $row[0]{layout} eq "tiered"' \
	--layout tiered,flat "$folder/mixed.json"
# Small units on node 1 and large ones on node 0, all of them freed: each comes back where it was.
perl -e '
	my @size = ("1GiB", "2MiB");
	print q({"schema":1,"regions":[), join(",", map {
		qq({"start":"${_}GiB","size":"$size[$_ % 2]","unit":"$size[$_ % 2]","node":) . $_ % 2 . "}"
	} 0 .. 63), "]}"' >"$folder/nodes.json"
check 'units of several sizes and nodes are taken again' good '@row == 1' --layout tiered "$folder/nodes.json"
for size in 16KiB 64KiB; do
	echo "{\"schema\":1,\"page_size\":\"$size\",\"regions\":[{\"start\":0,\"size\":\"1GiB\",\"unit\":\"$size\"}]}" \
		>"$folder/pages.json"
	check "pages of $size" good '$ok == 6' "$folder/pages.json"
done

# ---- For people ----

check 'the table' code 0 "$memfold" run --size 64MiB
check 'a line for each layout' sh -c '
	[ "$(grep -cE "^(flat|hvo-[57][.0-9]+|devdax|tiered) +64.00 MiB +2MiB .* held *$" "$1")" = 6 ]' sh "$folder/out"
check 'no progress where nobody looks' [ ! -s "$folder/error" ]
check 'help' sh -c '"$1" run --help | grep -q -- "--backing KIND"' sh "$memfold"
if [ -w /dev/full ]; then
	check 'a full disk: exit code 2' sh -c '
		"$1" run --size 4MiB >/dev/full 2>"$2/error"; [ $? -eq 2 ]' sh "$memfold" "$folder"
	check 'a full disk: one message' grep -q '^memfold: standard output: No space left' "$folder/error"
fi
check 'no standard output at all: exit code 2' sh -c '"$1" run --size 4MiB 2>/dev/null >&-; [ $? -eq 2 ]' sh "$memfold"

# ---- Broken, and slow ----

# The command itself with another mf_map_check(), which fails, panics or takes three seconds on the second call,
# or never has memory.
cat >"$folder/wrap.c" <<'END'
#include <memfold/memfold.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int __real_mf_map_check(struct mf_map *map, struct mf_violation *violation);
int __wrap_mf_map_check(struct mf_map *map, struct mf_violation *violation);

int __wrap_mf_map_check(struct mf_map *map, struct mf_violation *violation)
{
	static unsigned calls;
	const char *how = getenv("HOW");

	if (++calls == 2 && strcmp(how, "panic") == 0)
		mf_panic("memfold: the test panics.");
	if (strcmp(how, "short") == 0)
		return -MF_ENOMEM;
	if (calls == 2 && strcmp(how, "slow") == 0)
		sleep(3);
	if (calls != 2 || strcmp(how, "broken") != 0)
		return __real_mf_map_check(map, violation);
	violation->law = "M8";
	violation->pfn = 77;
	snprintf(violation->text, sizeof(violation->text), "the test says so");
	return 1;
}
END
check 'the command with a check of our own' "$CC" -std=c11 -D_GNU_SOURCE -Iinclude -pthread -Wl,--wrap=mf_map_check \
	-o "$folder/wrapped" "$folder/wrap.c" "$MF_BUILD"/release/cli/*.o "$MF_BUILD/libmemfold.a" "@$MF_BUILD/cli.libs"
check 'a broken row: exit code 1' code 1 env HOW=broken "$folder/wrapped" run --json --size 64MiB
check 'a broken row says which law; the other runs' holds '
	$row[0]{status} eq "broken" && $row[1]{status} eq "ok" && $row[0]{laws} eq $row[0]{why} &&
	$row[0]{laws} =~ /^M8 broken while a share is used as base pages at pfn 77: the test says so/'
check 'a broken row in the table' code 1 env HOW=broken "$folder/wrapped" run --size 64MiB
check 'a broken row in the table says why' grep -q '^flat: broken: M8 broken' "$folder/out"
check 'a panic is a broken row: exit code 1' code 1 env HOW=panic "$folder/wrapped" run --json --size 64MiB
check 'a panic is told in its row' holds '
	$row[0]{status} eq "broken" && $row[0]{why} eq "memfold: the test panics." &&
	$row[0]{laws} eq "not all checked" && $row[1]{status} eq "ok"'
check 'memory that runs out in a step: exit code 2' code 2 env HOW=short "$folder/wrapped" run --json --size 64MiB
check 'memory that runs out in a step: what is needed, and what there is' holds '
	!grep { $_->{status} ne "unable" || $_->{why} !~ /^checking the laws: .* .all in all about [0-9.]+ [MG]iB of / ||
		$_->{why} !~ /memory and [0-9.]+ [MG]iB of addresses are needed, [0-9.]+ .iB and [0-9.]+ .iB are left/ } @row'
if command -v script >/dev/null; then
	check 'a slow step on a terminal: exit code 0' sh -c '
		HOW=slow script -qec "$1/wrapped run --size 64MiB --layout tiered" /dev/null >"$1/terminal" </dev/null' \
		sh "$folder"
	check 'a slow step on a terminal is told of' grep -q 'tiered: checking the laws, 1 s' "$folder/terminal"
else
	skip 'a slow step on a terminal' 'there is no script(1) here'
fi
check 'a slow step elsewhere' code 0 env HOW=slow "$folder/wrapped" run --size 64MiB --layout tiered
check 'a slow step elsewhere is not told of' [ ! -s "$folder/error" ]

# ---- Bad input ----

refused '"--frob" is no option of memfold run' run --frob
refused '"--size": a value is missing' run --size
refused '"--touch=1": this option takes no value' run --touch=1
refused 'one file at most' run one two
refused '--size: "2MB": "MB" is no unit here, sizes count by 1024; use 2MiB' run --size 2MB
refused 'does not fit in 64 bits' run --size 18446744073709551616
refused 'is more than 1EiB' run --size 2EiB --unit 1GiB
refused '--size: 0 is no range' run --size 0
refused '--size: 3MiB is no multiple of the unit, 2MiB; use 4MiB' run --size 3MiB
refused '--size: 1GiB is no multiple of the unit, 2GiB; use 2GiB' run --size 1GiB --unit 2GiB
refused '--unit: 3MiB is no power of two' run --unit 3MiB
refused '--unit: 3MiB is no power of two' run --size 3MiB --unit 3MiB
refused '--unit: 1KiB is less than one page' run --unit 1KiB
refused '--unit: 0 is less than one page' run --unit 0
refused '--unit: 0 is less than one page' run --size 4MiB --unit 0
refused '--layout: "devdax-altmap" can be planned, but not run: in user space' run --layout devdax-altmap
refused '--layout: "fancy" is no layout; use flat, hvo-5.14, hvo-5.18, hvo-7.1, devdax or tiered' \
	run --layout flat,fancy
refused '--layout: "" is no layout' run --layout ''
refused '--layout: "" is no layout' run --layout flat,
refused '--layout: "tieredtieredtieredtieredtieredtieredtier.." is no layout' \
	run --layout tieredtieredtieredtieredtieredtieredtieredtiered
refused '--layout: more than 8 names' run --layout flat,flat,flat,flat,flat,flat,flat,flat,flat
refused '--backing: "floppy" is no kind of memory; use memfd, hugetlbfs, anon, or a path' run --backing floppy
refused '--backing: "" is no kind of memory' run --backing ''
refused "\"$folder\" is a directory" run --size 4MiB --backing "$folder"
refused "no such file" run --size 4MiB --backing "$folder/no-such-file"
refused 'not a regular file' run --size 4MiB --backing /dev/null
refused 'no such file' run --size 4MiB --backing /dev/dax99.99
truncate -s 1M "$folder/small"
refused 'has 1048576 bytes' run --size 4MiB --backing "$folder/small"
refused 'huge page' run --size 4KiB --unit 4KiB --backing hugetlbfs
refused 'leave out --size or the file' run --size 4MiB "$folder/machine.json"
refused 'leave out --unit or the file' run "$folder/machine.json" --unit 2MiB
refused 'no-such.json: No such file or directory' run "$folder/no-such.json"
refused "$folder: Is a directory" run "$folder"
echo '{"schema":1,"regions":[{"start":"0","size":"4MiB","layout":"devdax-altmap"}]}' >"$folder/bad.json"
refused 'regions[0].layout: "devdax-altmap" can be planned, but not run' run "$folder/bad.json"
echo '{"schema":1,"regions":[{"start":"0","size":"4MiB","colour":1}]}' >"$folder/bad.json"
refused 'regions[0]: unknown key "colour"' run "$folder/bad.json"
echo '{"schema":1,"regions":[{"start":"0","size":"4MiB"},{"start":"2MiB","size":"4MiB"}]}' >"$folder/bad.json"
refused 'overlaps regions[0]' run "$folder/bad.json"
perl -e '
	print q({"schema":1,"regions":[), join(",", map { q({"start":) . $_ * 8192 . q(,"size":4096}) } 1 .. 1025),
		"]}"' >"$folder/bad.json"
refused "$folder/bad.json: regions: 1025 can be planned, but not run; use at most 1024" run "$folder/bad.json"
if [ "$(id -u)" -ne 0 ] || command -v setpriv >/dev/null; then
	chmod 755 "$folder"
	truncate -s 4M "$folder/readable"
	chmod 444 "$folder/readable"
	cp "$memfold" "$folder/command"
	user=
	[ "$(id -u)" -ne 0 ] || user='setpriv --reuid 65534 --regid 65534 --clear-groups'
	check 'a file that is read-only: exit code 2' code 2 $user "$folder/command" run --size 4MiB \
		--backing "$folder/readable"
	check 'a file that is read-only: one message' grep -q '^memfold: .*readable.*writ' "$folder/error"
else
	skip 'a file that is read-only' 'root may write to it, and there is no setpriv(1)'
fi
echo "1..$nr"
