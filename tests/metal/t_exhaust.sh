#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# All memory of machines handed out, and back; as base pages where that is 2 GiB, more than one top block, or less, and
# in `make soak` 8 GiB.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"

whole 'microvm, 1 processor, 256 MiB' metal/test_exhaust -M microvm -m 256M
each '4 processors, 2 GiB' metal/test_exhaust -m 2G -c 4
whole '4 processors, 2 nodes, 4999 MiB' metal/test_exhaust -m 4999M -c 4 --cpu max,-la57,-pdpe1gb --numa
whole '8 processors, 64 GiB' metal/test_exhaust -m 64G -c 8
if [ -n "${MF_SOAK:-}" ]; then
	each '4 processors, 8 GiB' metal/test_exhaust -m 8G -c 4 MF_SOAK=1
fi
echo "1..$nr"
