#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The races of tests/race on processors, from the same sources.  With all CPUs on one thread of the host: threads that
# take turns on four, and a CPU for each thread.  With CPUs that run at the same time: threads that take turns on two,
# and a few threads with a CPU for each.  A line for each test of each boot.
#
# MF_SOAK: the race on four CPUs alone, with ten million operations and 100,000 folds in all, which the race checks.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"

# 4 GiB that regions describe and RAM for their map, above 4 GiB.  Only what is touched costs.
memory=12G

# Measured: these make 1.2 times the folds.
soak_ops=300000

if [ -n "${MF_SOAK:-}" ]; then
	MF_METAL_TIMEOUT=0
	export MF_METAL_TIMEOUT
	each '4 processors, for long' race/test_race -m "$memory" -c 4 --single MF_SOAK=1 "MF_OPS=$soak_ops"
	echo "1..$nr"
	exit 0
fi
for source in "$here"/../race/test_*.c; do
	each '4 processors' "race/$(basename "$source" .c)" -m "$memory" -c 4 --single
done
each '16 processors' race/test_race -m "$memory" -c 16 --single MF_OPS=3000 test=threads
each '2 processors at the same time' race/test_race -m "$memory" -c 2 MF_OPS=1000
each '2 processors at the same time' race/test_order -m "$memory" -c 2
for nr_cpus in 3 4; do
	each "$nr_cpus processors at the same time" race/test_race -m "$memory" -c $nr_cpus MF_OPS=100000 test=threads
done
echo "1..$nr"
