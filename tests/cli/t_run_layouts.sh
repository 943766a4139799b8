#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# memfold run: what each layout costs, to the byte; units of every size; regions of several layouts in one machine; and
# aliases, of which a process may have so many.  MF_BUILD is the build folder.
. "$(dirname "$0")/run.sh"

# ---- What it costs ----

# slots TIMES SHARED: bytes of 32 units of 2 MiB that keep so many slots each, a zone's frame of tails, and of the top:
# one slot, and eight of tier 1 under it.
slots() {
	echo $(((32 * $1 + $2 + 9) * 4096))
}

# costs LAYOUT BYTES DIETED: 64 MiB in units of 2 MiB.
costs() {
	check "$1 of 64 MiB" good '
		my $r = $row[0];
		@row == 1 && $r->{layout} eq "'"$1"'" && $r->{map_bytes} == '"$2"' && $r->{dieted_units} == '"$3"' &&
		$r->{base_pages} == ($r->{layout} ne "devdax" && 1024) &&
		($r->{remap_ns} > 0) == ($r->{layout} =~ /^hvo/)' --size 64MiB --layout "$1"
}

costs hvo-5.14 "$(slots 2 0)" 32
costs hvo-5.18 "$(slots 1 0)" 32
costs hvo-7.1 "$(slots 1 1)" 32
costs devdax "$(slots 2 0)" 32
costs tiered "$(slots 0 0)" 0

# What the memory holds is no part of the map, though it is shared memory, too.
check 'what is touched is not counted' good '
	join(" ", map { $_->{map_bytes} } @row) eq "'"$(slots 2 0) $(slots 1 0) $(slots 1 1) $(slots 2 0)"'"' \
	--size 64MiB --touch --layout hvo-5.14,hvo-5.18,hvo-7.1,devdax

# 7 slots of 8 are saved, or 6; the top slot beside them.
check 'GiB of map per TiB: 16, 4, 2, 2, 4, and 32 MiB' good '
	join(" ", map { ($_->{map_bytes_per_tib} - 1024 * 4096) / 2**30 } @row[0..2, 4]) eq "16 4 2 4" &&
	$row[3]{map_bytes_per_tib} == $row[2]{map_bytes_per_tib} + 1024 * 4096 &&
	$row[5]{map_bytes_per_tib} == 36 * 2**20 &&
	!grep { $_->{table_bytes} < 32 * 1024 } @row[0..4]' --size 1GiB
check 'without a size: every layout, and tiered once more at 1 TiB' good '
	join(" ", map { $_->{layout} } @row) eq "flat hvo-5.14 hvo-5.18 hvo-7.1 devdax tiered tiered" &&
	join(" ", map { int($_->{map_bytes_per_tib} / 2**30) } @row) eq "16 4 2 2 4 0 0" &&
	$row[6]{described_bytes} == 2**40 && !grep { $_->{described_bytes} != $row[0]{described_bytes} } @row[1..5]'

# ---- Units ----

check 'units of 1 GiB' good '
	join(" ", map { $_->{map_bytes} / 4096 } @row) eq "8193 5 3 4 5 1" &&
	join(" ", map { $_->{dieted_units} } @row) eq "0 2 2 2 2 0" &&
	!grep { $_->{base_pages} != ($_->{layout} ne "devdax" && 2**18) } @row' --size 2GiB --unit 1GiB
# Two slots: hvo-5.14 and devdax keep both.
check 'units of 512 KiB' good '
	join(" ", map { $_->{dieted_units} } @row) eq "0 0 128 128 0 0" && $row[1]{map_bytes} == $row[0]{map_bytes} &&
	$row[2]{map_bytes} == $row[0]{map_bytes} - 128 * 4096' --size 64MiB --unit 512KiB
check 'units that save nothing are simply run' good '
	$ok == 6 && !grep { $_->{dieted_units} || $_->{remap_ns} } @row' --size 64MiB --unit 256KiB
# The last 1 MiB is half a block, which no layout has on its diet.
check 'units in a part of a block' good '
	join(" ", map { $_->{dieted_units} } @row) eq "0 2 2 2 2 0"' --size 3MiB --unit 1MiB
check 'compounds end with the top tier' unable 'units of 2GiB are larger than a compound can be, 1GiB' \
	--size 4GiB --unit 2GiB --layout devdax
check 'hvo does not' good '$row[0]{dieted_units} == 2' --size 4GiB --unit 2GiB --layout hvo-7.1

# ---- Descriptions ----

cat >"$folder/machine.json" <<'END'
{"schema": 1, "regions": [
	{"name": "dram", "start": "0", "size": "130MiB", "unit": "2MiB", "layout": "tiered"},
	{"name": "pages", "start": "130MiB", "size": "6MiB", "unit": "4KiB", "layout": "flat"},
	{"name": "pool", "start": "136MiB", "size": "64MiB", "unit": "2MiB", "layout": "hvo-7.1"},
	{"name": "old", "start": "200MiB", "size": "32MiB", "unit": "4MiB", "layout": "hvo-5.14", "node": 1},
	{"name": "odd", "start": "1027MiB", "size": "31MiB", "unit": "1MiB", "layout": "hvo-5.18", "node": 1},
	{"name": "cxl", "start": "2GiB", "size": "16MiB", "unit": "2MiB", "layout": "devdax", "source": "ram"},
	{"name": "far", "start": "3GiB", "size": "2GiB", "unit": "1GiB", "layout": "devdax", "node": 2}]}
END
check 'a machine of every layout' good '
	@row == 1 && $row[0]{layout} eq "as described" && $row[0]{base_pages} > 0 && $row[0]{remap_ns} > 0 &&
	$row[0]{dieted_units} == 32 + 8 + 30 + 8 + 2' "$folder/machine.json"
check 'the same under every layout' good '$ok == 2 && $row[0]{dieted_units} == 65 + 32 + 8 + 30 + 8 + 2' \
	--layout hvo-7.1,tiered "$folder/machine.json"
cat >"$folder/device.json" <<'END'
{"schema": 1, "regions": [{"start": "4MiB", "size": "32MiB", "unit": "2MiB", "layout": "devdax"}]}
END
check 'a device alone has nothing to divide' good '
	$row[0]{base_pages} == 0 && $row[0]{dieted_units} == 16' "$folder/device.json"
for size in 16KiB 64KiB; do
	# 8 units of one block.
	unit=$((${size%KiB} * ${size%KiB} / 8))
	echo "{\"schema\":1,\"page_size\":\"$size\",\"regions\":[
		{\"start\":0,\"size\":\"$((unit * 8))MiB\",\"unit\":\"${unit}MiB\"}]}" >"$folder/pages.json"
	check "units of ${unit}MiB, pages of $size" good '
		join(" ", map { $_->{dieted_units} } @row) eq "0 8 8 8 8 0"' "$folder/pages.json"
done

# ---- Mappings ----

# The command with another mf_linux_mappings(), for the command only: so many in use, and so many allowed; from the
# second call on what is true, where LATER is set.
cat >"$folder/wrap.c" <<'END'
#include <memfold/linux.h>
#include <stdlib.h>

int __real_mf_linux_mappings(uint64_t *used, uint64_t *limit);
int __wrap_mf_linux_mappings(uint64_t *used, uint64_t *limit);

int __wrap_mf_linux_mappings(uint64_t *used, uint64_t *limit)
{
	static unsigned calls;

	if (getenv("LATER") && calls++ > 0)
		return __real_mf_linux_mappings(used, limit);
	*used = strtoull(getenv("USED"), NULL, 10);
	*limit = strtoull(getenv("LIMIT"), NULL, 10);
	return 0;
}
END
check 'the command with mappings of our own' "$CC" -std=c11 -D_GNU_SOURCE -Iinclude -pthread \
	-Wl,--wrap=mf_linux_mappings -o "$folder/wrapped" "$folder/wrap.c" "$MF_BUILD"/release/cli/*.o \
	"$MF_BUILD/libmemfold.a" "@$MF_BUILD/cli.libs"

# mappings USED LIMIT OPTION...: the wrapped command.
mappings() {
	USED=$1 LIMIT=$2
	shift 2
	env USED="$USED" LIMIT="$LIMIT" "$folder/wrapped" run --json "$@"
}

# 1 GiB: 512 units of 8 mappings, or 7, and 64 of the row's own.  Of 4288 allowed ones 67 stay with the process.
check 'too many mappings: exit code 0, others could run' code 0 mappings 62 4288 --size 1GiB
check 'too many mappings: what is needed, what there is, and what helps' holds '
	join(" ", map { $_->{status} } @row) eq "ok ok unable unable ok ok" &&
	$row[2]{why} eq "needs 4160 mappings, one for each alias and one for each unit; 4159 are available; " .
		"allow them by sysctl vm.max_map_count=5120" && $row[3]{why} eq $row[2]{why}'
check 'one more is enough' code 0 mappings 61 4288 --size 1GiB --layout hvo-7.1
check 'no layout could run: exit code 2' code 2 mappings 1000 1000 --size 1GiB --layout hvo-5.18,hvo-5.14
check 'no layout could run: none are available' holds '$row[1]{why} =~ /needs 3648 mappings.*; 0 are available; /'

limit=$(cat /proc/sys/vm/max_map_count 2>/dev/null || echo 0)
if [ "$limit" -ge 32768 ] && [ "$limit" -le 131072 ]; then
	units=$((limit / 8 + 1))
	check 'too many for this host: nothing is taken' unable 'needs [0-9]+ mappings, .*vm.max_map_count=[0-9]+' \
		--size $((units * 2))MiB --layout hvo-7.1
	for layout in hvo-5.18 devdax; do
		[ $layout = hvo-5.18 ] || units=$((limit / 7 + 1))
		check "$layout: the host refuses in the end: exit code 2" code 2 env LATER=1 USED=50 LIMIT=1000000 \
			"$folder/wrapped" run --json --size $((units * 2))MiB --layout $layout
		check "$layout: the host refuses in the end: why, and what helps" holds '
			my ($all, $allowed, $used, $advice) = $row[0]{why} =~
				/too few mappings .all in all (.*) mappings .* of (.*) allowed ones (.*) are .*=(.*).$/;
			@row == 1 && $row[0]{status} eq "unable" && $allowed == '"$limit"' && $used < $allowed &&
			$all > $allowed && $advice > $all'
	done
else
	skip 'too many for this host' "vm.max_map_count is $limit: too little, or more than there may be memory for"
fi
echo "1..$nr"
