#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# All memory handed out as base pages, and back: of a machine of 2 GiB, which is more than one top block, and in
# `make soak` of 8 GiB.  t_port.sh runs the same test on its machines, where the large ones leave the base pages out.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/metal.sh"

each '4 processors, 2 GiB' metal/test_exhaust -m 2G -c 4
if [ -n "${MF_SOAK:-}" ]; then
	each '4 processors, 8 GiB' metal/test_exhaust -m 8G -c 4 MF_SOAK=1
fi
echo "1..$nr"
