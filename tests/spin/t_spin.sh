#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The models of this folder: runs every row of README.md's tables and compares the outcome.  A row that holds is
# searched to the end; any other must break exactly the assertion it names.  Two runs at a time.
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..

for tool in spin gcc; do
	if ! command -v $tool >/dev/null; then
		echo "1..0 # SKIP $tool is not installed"
		exit 0
	fi
done
. "$here/../lib/tap.sh"

# run NR MODEL [FLAG...]: one search in a folder of its own; its last line is the outcome.
cat > "$folder/run" <<'RUN'
cd "$1" && mkdir "$3" && cd "$3" || exit 1
model=$2/$4.pml
shift 4
flags=
for flag; do flags="$flags -D$flag"; done
exec > output 2>&1
# The deepest path is a bit less than half of this; a search that is cut off says so and does not hold.
spin $flags -a "$model" && gcc -O1 -w -DSAFETY -DCOLLAPSE -o pan pan.c && timeout 300 ./pan -m1000000
broken=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' output)
case $broken in
'')
	if grep -q 'errors: 0$' output && ! grep -q -e 'max search depth too small' -e 'Search not completed' output; then
		echo holds
	else
		echo 'not finished'
	fi
	;;
'assertion violated'*'||'*) echo "$broken" | sed 's/.*||\([A-Za-z0-9_]*\))$/\1/' ;;
*) echo "$broken" ;;
esac
rm -f pan pan.*
RUN

# NR|RUN|FUNCTION|OUTCOME, from the tables.
sed -n 's/^| `\([a-z][^`]*\)` | `\([^`]*\)` | \([^ ]*\) | .*/\1|\2|\3/p' "$here/README.md" |
	nl -w1 '-s|' > "$folder/rows"
while IFS='|' read -r row run rest; do
	echo "$row $run"
done < "$folder/rows" | xargs -P2 -I{} sh -c "set -- {}; sh '$folder/run' '$folder' '$here' \"\$@\""

while IFS='|' read -r row run function expected; do
	found=$(tail -n 1 "$folder/$row/output")
	[ "$found" = "$expected" ]
	report $? "spin_$(echo "$run" | tr ' =' '__')_$expected" "$folder/$row/output"
done < "$folder/rows"

# Every flag of a model is in a table.
missing=
for model in "$here"/*.pml; do
	name=$(basename "$model" .pml)
	flags=$(grep '^#' "$model" | grep -o -e 'ifn*def [A-Z_]*' -e 'defined([A-Z_]*)' | grep -o '[A-Z][A-Z_]*' | sort -u)
	for flag in $flags; do
		cut -d'|' -f2 "$folder/rows" | grep -q "^$name.* $flag\(=\| \|\$\)" || missing="$missing $name:$flag"
	done
done
nothing spin_every_flag_is_in_a_table "${missing:+not in README.md:$missing}"

# Every function that a table or a step names is one of the C sources.
missing=
functions=$(cut -d'|' -f3 "$folder/rows"
	grep -v 'define STEP' "$here"/*.pml | grep -o 'STEP([a-z_]*' | cut -d'(' -f2 | sort -u)
for function in $functions; do
	grep -rqs "[ *]$function(" "$root/core" "$root/include" || missing="$missing $function"
done
nothing spin_every_function_exists "${missing:+in no C source:$missing}"

echo "1..$nr"
