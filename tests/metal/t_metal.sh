#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The tests of the other machines on bare metal, one boot of the emulator after the other: the contract on every kind of
# processor and board, failures and the model on one.  The contract's answers are those of the other machines.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"

# Two worlds of 8 GiB and their RAM side by side (tests/metal/world_metal.c) above 4 GiB.  Only what is touched costs.
memory=24G

transcript() {
	sed -n 's/^# transcript: //p' "$1"
}

contract() {
	where=$1
	shift
	each "$where" contract/test_contract -m "$memory" "$@"
	transcript "$folder/out" >"$folder/here"
	check "test_contract, $where: the answers of every other machine" cmp "$folder/there" "$folder/here"
}

"$MF_BUILD/debug/tests/contract/test_contract" every_machine_gives_the_same_answers >"$folder/hosted"
transcript "$folder/hosted" >"$folder/there"
check 'the other machines have given their answers' test -s "$folder/there"

contract 'q35, 5 levels'
contract 'q35, 4 levels, 4 processors' -c 4 --cpu max,-la57
contract 'q35, leaves of 2 MiB at most' --cpu max,-la57,-pdpe1gb
contract 'q35, 2 nodes, 2 processors' -c 2 --numa
contract 'microvm, 3 processors' -M microvm -c 3
each q35 failure/test_failure -m "$memory"
each q35 failure/test_failure_diet -m "$memory"
if [ -n "${MF_SOAK:-}" ]; then
	each q35 failure/test_failure_diet_list -m "$memory"
else
	skip test_failure_diet_list 'a minute of an emulator: make soak'
fi
each 'q35, 2 processors' model/test_model -m "$memory" -c 2
skip 'test_plan_diet and test_plan_engine' 'they compare the figures of several sims'
echo "1..$nr"
