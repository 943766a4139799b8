#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What the objects define and need: the shared library exports mf_* and nothing else, and the core needs nothing of a C
# library, in release and debug.  MF_BUILD is the build folder.
. "$(dirname "$0")/../lib/tap.sh"

# The objects of one flavour that come from sources of the core.
core_objects() {
	for source in core/*/*.c; do
		echo "$MF_BUILD/$1/${source%.c}.o"
	done
}

# Needed, not defined within the core, not an mf_* that a machine gives, not among the four that every freestanding
# compiler may call, not the linker's own.
needed_outside() {
	nm -P $(core_objects "$1") | awk -v allowed='^(mf_.*|mem(cpy|set|move|cmp)|_GLOBAL_OFFSET_TABLE_)$' '
		NF < 2 { next }
		$2 == "U" { needed[$1] = 1; next }
		$2 == "w" || $2 == "v" { if (NF < 3) needed[$1] = 1; next }
		{ defined[$1] = 1 }
		END {
			for (name in needed)
				if (!(name in defined) && name !~ allowed)
					print name
		}'
}

exported() {
	nm -D --defined-only "$MF_BUILD/libmemfold.so.0" | awk '{ sub(/@.*/, "", $NF); print $NF }'
}

for flavour in release debug; do
	nothing "core_needs_no_c_library_in_$flavour" "$(needed_outside $flavour 2>&1)"
done
nothing library_exports_mf_names_only "$(exported 2>&1 | grep -v -e '^mf_' -e '^MEMFOLD_0$')"
nothing library_exports_something "$(exported | grep -q '^mf_' || echo 'no function at all')"
echo "1..$nr"
