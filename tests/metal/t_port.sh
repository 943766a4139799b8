#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The port's own tests, each on machines that differ in board, memory (also such that ends off every larger leaf),
# processors and what these can do, so that each two of these meet.  A line for each program and machine.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"

# world_open() wants a GiB from a whole one on.
wants_a_world='test_fault'

on() {
	where=$*
	for source in "$here"/test_*.c; do
		program=$(basename "$source" .c)
		[ $program != test_flush ] || continue # t_flush.sh
		case " $wants_a_world " in
		*" $program "*) case $where in *'-m 256M'*) continue ;; esac ;;
		esac
		whole "$where" metal/"$program" "$@"
	done
}

on -M q35 -m 256M -c 1 --cpu max
on -M q35 -m 8G -c 8 --cpu max,-la57
on -M q35 -m 64G -c 2 --cpu max,-pdpe1gb
on -M q35 -m 4999M -c 4 --cpu max,-la57,-pdpe1gb
on -M q35 -m 4999M -c 8 --cpu max --numa
on -M q35 -m 64G -c 4 --cpu max,-la57 --numa
on -M q35 -m 8G -c 2 --cpu max,-la57,-pdpe1gb --numa
on -M microvm -m 256M -c 4 --cpu max,-pdpe1gb
on -M microvm -m 8G -c 1 --cpu max
on -M microvm -m 4999M -c 2 --cpu max,-la57
on -M microvm -m 64G -c 8 --cpu max,-la57,-pdpe1gb
echo "1..$nr"
