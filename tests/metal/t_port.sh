#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The port's own tests, each on machines that differ in board, memory (also such that ends off every larger leaf),
# processors (1, 4, 8), what these can do and nodes (on q35), so that each two of these meet.  A line for each program
# and machine.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"

# world_open() wants a GiB from a whole one on.
wants_a_world='test_fault'

on() {
	where=$*
	for source in "$here"/test_*.c; do
		program=$(basename "$source" .c)
		case $program in test_flush|test_exhaust) continue ;; esac # t_flush.sh, t_exhaust.sh
		case " $wants_a_world " in
		*" $program "*)
			case $where in
			*'-m 256M'*)
				skip "$program, $where" 'it wants a GiB from a whole one on'
				continue
				;;
			esac
			;;
		esac
		whole "$where" metal/"$program" "$@"
	done
}

on -M microvm -m 256M -c 1 --cpu max,-la57
on -M q35 -m 256M -c 4 --cpu max --numa
on -M microvm -m 256M -c 8 --cpu max,-la57,-pdpe1gb
on -M q35 -m 4999M -c 1 --cpu max,-la57,-pdpe1gb --numa
on -M microvm -m 4999M -c 4 --cpu max
on -M q35 -m 4999M -c 8 --cpu max,-pdpe1gb --numa
on -M microvm -m 8G -c 1 --cpu max,-pdpe1gb
on -M q35 -m 8G -c 4 --cpu max,-la57
on -M q35 -m 8G -c 8 --cpu max,-pdpe1gb --numa
on -M q35 -m 64G -c 1 --cpu max,-pdpe1gb
on -M microvm -m 64G -c 4 --cpu max,-la57,-pdpe1gb
on -M q35 -m 64G -c 8 --cpu max --numa
echo "1..$nr"
