# SPDX-License-Identifier: BSD-2-Clause
#
# run.sh - what the tests of memfold run share, besides command.sh: what its JSON says, and what it is to be good or
# unable.
. "$(dirname "$0")/../lib/command.sh"

# holds EXPRESSION: true of $run, the JSON document in $folder/out, of @row, its rows, and of $ok, how many are.  What
# every document has to be like is looked at first: the keys, their types, and values that cannot be otherwise.
cat >"$folder/holds.pl" <<'END'
use strict;
use JSON::PP;
use B;
local $/;
my $run = JSON::PP->new->decode(<STDIN>);
my @row = @{$run->{layouts}};
sub whole { my $x = shift; defined $x && !ref $x && B::svref_2object(\$x)->FLAGS & B::SVp_IOK && $x >= 0 }
sub number {
	my $x = shift;
	defined $x && !ref $x && B::svref_2object(\$x)->FLAGS & (B::SVp_IOK | B::SVp_NOK) && $x >= 0
}
sub need { $_[0] or do { print "$_[1]\n"; exit 1 } }
need(join(" ", sort keys %$run) eq "layouts schema", "the top object has other keys");
need(whole($run->{schema}) && $run->{schema} == 1 && @row, "no schema 1 or no row");
for my $r (@row) {
	my @keys = qw(layout status described_bytes unit_bytes);
	push @keys, "why" if $r->{status} ne "ok";
	push @keys, qw(map_bytes map_bytes_per_tib table_bytes bytes_per_2mib bring_up_ns remap_ns pin_unpin_ns
		base_pages dieted_units laws) if $r->{status} ne "unable";
	need($r->{status} =~ /^(ok|unable|broken)$/, "status $r->{status}");
	need(join(" ", sort keys %$r) eq join(" ", sort @keys), "keys: " . join(" ", sort keys %$r));
	need(whole($r->{described_bytes}) && $r->{described_bytes} > 0, "described_bytes");
	need(!defined $r->{unit_bytes} || whole($r->{unit_bytes}), "unit_bytes");
	next if $r->{status} eq "unable";
	need(whole($r->{$_}), "$_ is no whole number")
		for qw(map_bytes map_bytes_per_tib table_bytes bring_up_ns remap_ns base_pages dieted_units);
	need(number($r->{$_}), "$_ is no number") for qw(bytes_per_2mib pin_unpin_ns);
	next if $r->{status} eq "broken";
	need($r->{laws} eq "held", "laws: $r->{laws}");
	need($r->{$_} > 0, "$_ is 0") for qw(map_bytes bring_up_ns pin_unpin_ns bytes_per_2mib);
	need($r->{base_pages} > 0, "base_pages is 0") if $r->{layout} !~ /^(devdax|as described)$/;
	need($r->{remap_ns} < $r->{bring_up_ns}, "remap_ns is not less than bring_up_ns");
	my $per = ($r->{map_bytes} + $r->{table_bytes}) * 2**21 / $r->{described_bytes};
	need(abs($per - $r->{bytes_per_2mib}) <= 0.001, "bytes_per_2mib is $r->{bytes_per_2mib}, not $per");
	$per = $r->{map_bytes} * 2**40 / $r->{described_bytes};
	need(abs($per - $r->{map_bytes_per_tib}) <= 1, "map_bytes_per_tib is $r->{map_bytes_per_tib}, not $per");
}
my $ok = grep { $_->{status} eq "ok" } @row;
my $expression = shift;
need(scalar(eval "no warnings; $expression"), "$expression does not hold: $@");
END
holds() {
	perl "$folder/holds.pl" "$1" <"$folder/out" || {
		cat "$folder/out"
		false
	}
}

# good EXPRESSION OPTION...: exit code 0, no message, and the expression holds.
good() {
	expression=$1
	shift
	code 0 "$memfold" run --json "$@" && [ ! -s "$folder/error" ] && holds "$expression"
}

# unable WHY OPTION...: exit code 2, one message, no row could run, and the first says why (a Perl pattern).
unable() {
	why=$1
	shift
	code 2 "$memfold" run --json "$@" && [ "$(wc -l <"$folder/error")" -eq 1 ] &&
		holds "!grep { \$_->{status} ne 'unable' } @row" && holds "\$row[0]{why} =~ /$why/"
}
