#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# That tools/rules finds each fault it promises to find, on small trees made for it, and none in this tree.
. "$(dirname "$0")/../lib/tap.sh"
tree=$folder/tree

# An id written out here would be a tag.
toy=R-TOY later=R-LATE

# put FILE LINE...: a file of the tree.
put() {
	file=$tree/$1
	shift
	mkdir -p "$(dirname "$file")"
	printf '%s\n' "$@" >"$file"
}

# add FILE LINE...: more lines at its end.
add() {
	file=$tree/$1
	shift
	printf '%s\n' "$@" >>"$file"
}

rules() {
	perl tools/rules "$@" "$tree" >"$folder/said" 2>&1
}

fresh() {
	rm -rf "$tree"
	mkdir -p "$tree/docs"
	put docs/rules.txt '# A comment.' "$toy  title: the area" "$toy-1  title: held" "$toy-2  title: half" \
		"$toy-2  partly: the rest is" '	not there' "$toy-9  title: something else" \
		"$toy-9  replaced: by tests/unit/test_a.c" "$toy-10  title: no such thing" \
		"$toy-10  not applicable: there is none" "$later  later: another area"
	put tests/unit/test_a.c '/*' " * test_a.c - a file.  $toy-1" ' */' '#include "tap.h"' '' \
		"/* $toy-1, $toy-2 */" 'static void helper(void)' '{' '}' '' 'TAP_TEST(first)' '{' \
		"	ok(1, \"$later-3\");" '}' '' 'TAP_TEST(second)' '{' "	/* $toy-2 */" '}'
	put tests/build/t_b.sh "# $toy-1"
	rules
}

# passes WHAT: accepted in silence.
passes() {
	rules --check && [ ! -s "$folder/said" ]
	report $? "$1" "$folder/said"
}

# finds WHAT PATTERN: refused with exit code 1 and one line that matches.
finds() {
	rules --check
	[ $? = 1 ] && [ "$(wc -l <"$folder/said")" = 1 ] && grep -q "$2" "$folder/said"
	report $? "$1" "$folder/said"
}

# says WHAT LINE: a line of the page.
says() {
	grep -qxF -e "$2" "$tree/docs/RULES.md"
	report $? "$1" "$tree/docs/RULES.md"
}

fresh
passes rules_accepts_a_tree_in_order
says rules_names_tests_and_files \
	"| $toy-1 | held | kept: \`tests/build/t_b.sh\`; \`tests/unit/test_a.c\`: \`first\` |"
says rules_names_every_test_and_the_reason \
	"| $toy-2 | half | kept in part (the rest is not there): \`tests/unit/test_a.c\`: \`first\`, \`second\` |"
says rules_gives_a_reason_without_a_test "| $toy-9 | something else | replaced: by tests/unit/test_a.c |"
says rules_counts "| all | 1 | 1 | 1 | 1 | 0 | 0 |"
says rules_lists_tags_of_an_area_to_come "- $later-3: \`tests/unit/test_a.c\`: \`first\`"

fresh
add docs/RULES.md 'edited by hand'
finds rules_finds_a_page_that_was_edited '^docs/RULES.md: is not what tools/rules writes'

fresh
rm "$tree/docs/RULES.md"
finds rules_finds_a_page_that_is_absent '^docs/RULES.md: is not what tools/rules writes'

fresh
add tests/build/t_b.sh "# $toy-11"
finds rules_finds_a_tag_that_is_in_no_list "^tests/build/t_b.sh:2: $toy-11 is in no list"

fresh
add tests/build/t_b.sh "# $toy-10"
rules
finds rules_finds_a_rule_with_a_test_and_a_reason "^tests/build/t_b.sh:2: names $toy-10, which is \"not applicable\""

fresh
sed -i "/$toy-10  title/i $toy-9x  title: wrong" "$tree/docs/rules.txt"
finds rules_finds_a_line_without_form '^docs/rules.txt:9: no line of the form'

fresh
sed -i "/$toy-10  not/d" "$tree/docs/rules.txt"
rules
finds rules_finds_a_rule_with_neither "^$toy-10: no test names it, and docs/rules.txt gives no reason"

fresh
sed -i "s/$toy-1, $toy-2/$toy-1/; s/$toy-2//" "$tree/tests/unit/test_a.c"
rules
finds rules_finds_a_part_without_a_test "^$toy-2: no test names it (half)"

fresh
sed -i "s/$toy-10  not applicable/$toy-10  unwanted/; /$toy-10/p" "$tree/docs/rules.txt"
rules
[ $? = 1 ] && grep -q '"unwanted" is no state of a rule' "$folder/said"
report $? rules_writes_nothing_from_a_list_that_is_wrong "$folder/said"

fresh
sed -i "s/$toy-9  title/$toy-11  title/; s/$toy-9  replaced/$toy-11  replaced/" "$tree/docs/rules.txt"
rules --check
grep -q "^docs/rules.txt:9: $toy-10 does not follow $toy-11" "$folder/said"
report $? rules_finds_numbers_out_of_order "$folder/said"

fresh
sed -i 's/test_a.c$/test_gone.c/' "$tree/docs/rules.txt"
rules --check
grep -q "^docs/rules.txt:8: $toy-9 names tests/unit/test_gone.c, which is not there" "$folder/said"
report $? rules_finds_a_reason_that_names_no_file "$folder/said"

tree=.
passes rules_finds_nothing_in_this_tree

echo "1..$nr"
