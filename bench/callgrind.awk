# SPDX-License-Identifier: BSD-2-Clause
#
# callgrind.awk - flattens a callgrind.out file, one line each:
#
#   inclusive FUNCTION instructions        with everything it called, signal handlers apart
#   into      FUNCTION instructions calls  of all calls to it
#   edge      CALLER FUNCTION instructions calls
#
# Names are compressed in the file: "(12) name" the first time, "(12)" from then on.  The cost line behind "calls=" is
# that of the call; every other one belongs to the function itself.
function name_of(text,   id)
{
	match(text, /^\([0-9]+\)/)
	id = substr(text, 1, RLENGTH)
	if (length(text) > RLENGTH)
		name[id] = substr(text, RLENGTH + 2)
	return name[id]
}
/^fn=/ { caller = name_of(substr($0, 4)); functions[caller]; next }
/^cfn=/ { callee = name_of(substr($0, 5)); next }
/^calls=/ { split(substr($1, 7), count, " "); nr = count[1]; of_call = 1; next }
/^[-+*0-9]/ && NF >= 2 {
	if (of_call) {
		edge[caller " " callee] += $2
		calls[caller " " callee] += nr
		into[callee] += $2
		into_calls[callee] += nr
		inclusive[caller] += $2
	} else {
		inclusive[caller] += $2
	}
	of_call = 0
}
END {
	for (f in functions)
		printf "inclusive %s %d\n", f, inclusive[f]
	for (f in into)
		printf "into %s %d %d\n", f, into[f], into_calls[f]
	for (e in edge)
		printf "edge %s %d %d\n", e, edge[e], calls[e]
}
