#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# That tools/layers catches each breach it promises to catch, on small trees made for it, and passes this tree.
tree=$(mktemp -d) || exit 1
trap 'rm -rf "$tree"' EXIT
nr=0

# put FILE LINE...: a file of the tree.
put() {
	file=$tree/$1
	shift
	mkdir -p "$(dirname "$file")"
	printf '%s\n' "$@" > "$file"
}

fresh() {
	rm -rf "$tree"
	put include/memfold/base.h '#include <stdint.h>'
	put include/memfold/machine.h '#include <memfold/base.h>'
	put include/memfold/memmap.h '#include <memfold/machine.h>'
	put include/memfold/sim.h '#include <memfold/machine.h>'
	put core/memmap/map.h '#include <memfold/memmap.h>'
	put core/memmap/map.c '#include "map.h"' '#include "core/memmap/map.h"'
	put machines/sim/sim.c '#include <stdlib.h>' '#include <memfold/sim.h>'
	put cli/main.c '#include <stdio.h>' '#include <memfold/memmap.h>' '#include <memfold/sim.h>'
}

report() {
	nr=$((nr + 1))
	if [ "$1" = 0 ]; then
		echo "ok $nr - $2"
	else
		echo "not ok $nr - $2"
		printf '%s\n' "$output" | sed 's/^/# /'
	fi
}

# passes TREE WHAT: it is accepted in silence.
passes() {
	output=$(perl tools/layers "$1" 2>&1)
	[ $? = 0 ] && [ -z "$output" ]
	report $? "$2"
}

# catches WHAT PATTERN: it is refused with exit code 1 and one line that matches.
catches() {
	output=$(perl tools/layers "$tree" 2>&1)
	[ $? = 1 ] && [ "$(printf '%s\n' "$output" | wc -l)" = 1 ] && printf '%s\n' "$output" | grep -q "$2"
	report $? "$1"
}

fresh
passes "$tree" layers_accepts_a_tree_in_order

fresh
put core/pgtable/entry.c '#include <stddef.h>' ' # include "core/memmap/map.h"'
catches layers_catches_an_upward_include '^core/pgtable/entry.c:2: pgtable includes core/memmap/map.h of memmap,.*above'

fresh
put include/memfold/pgtable.h '#include <memfold/memmap.h>'
catches layers_catches_an_upward_public_header '^include/memfold/pgtable.h:1: pgtable includes .* above it'

fresh
put core/memmap/fold.c '#include <stdio.h>'
catches layers_catches_a_c_library_in_the_core '^core/memmap/fold.c:1: .*<stdio.h>'

fresh
put machines/sim/tlb.c '#include <memfold/memmap.h>'
catches layers_catches_a_machine_that_knows_the_map '^machines/sim/tlb.c:1: .*memmap'

fresh
put machines/linux/host.c '#include <memfold/sim.h>'
catches layers_catches_a_machine_that_knows_another '^machines/linux/host.c:1: .*another machine'

fresh
put cli/run.c '#include "core/memmap/map.h"'
catches layers_catches_a_private_header_outside_the_core '^cli/run.c:1: .*private'

fresh
put core/memmap/a.h '#include "b.h"'
put core/memmap/b.h '#include "core/memmap/a.h"'
catches layers_catches_a_cycle 'a cycle of includes: core/memmap/a.h -> core/memmap/b.h -> core/memmap/a.h'

fresh
put include/memfold/novelty.h ''
catches layers_catches_a_header_of_no_room '^include/memfold/novelty.h:1: .*no room'

fresh
put core/memmap/fold.c '#include "gone.h"'
catches layers_catches_a_header_that_is_absent '^core/memmap/fold.c:1: "gone.h" does not exist'

fresh
put core/memmap/fold.c '#include MAP_HEADER'
catches layers_catches_what_it_cannot_read '^core/memmap/fold.c:1: .*preprocessor'

passes . layers_accepts_this_tree

echo "1..$nr"
