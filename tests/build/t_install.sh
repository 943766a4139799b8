#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# `make install` into an empty folder gives what a stranger's program needs: found by pkg-config, compiled against the
# shared and the static library, run; every header stands alone; `make uninstall` takes all of it away.
: "${MF_BUILD:=build}" "${CC:=gcc}"
dest=$(mktemp -d) || exit 1
trap 'rm -rf "$dest"' EXIT
prefix=/opt/memfold
nr=0

# try WHAT COMMAND...: passes when the command succeeds; shows what it said when it does not.
try() {
	nr=$((nr + 1))
	what=$1
	shift
	if output=$("$@" 2>&1); then
		echo "ok $nr - $what"
	else
		echo "not ok $nr - $what"
		printf '%s\n' "$output" | sed 's/^/# /'
	fi
}

# The outer make's jobs are not this one's.
make_here() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make BUILD="$MF_BUILD" CC="$CC" PREFIX=$prefix DESTDIR="$dest" "$@"
}

flags() {
	PKG_CONFIG_SYSROOT_DIR="$dest" PKG_CONFIG_PATH="$dest$prefix/lib/pkgconfig" pkg-config "$@" memfold
}

build_shared() {
	$CC -o "$dest/shared" "$dest/user.c" $(flags --cflags --libs)
}

build_static() {
	$CC -static -o "$dest/static" "$dest/user.c" $(flags --static --cflags --libs)
}

headers_stand_alone() {
	for header in "$dest$prefix"/include/memfold/*.h; do
		echo "#include <memfold/${header##*/}>" |
			$CC -std=c11 -Wall -Wextra -Werror -fsyntax-only $(flags --cflags) -x c - || return 1
	done
}

version_is_the_headers() {
	grep -q "MF_VERSION \"$(flags --modversion)\"" include/memfold/base.h
}

nothing_is_left() {
	[ -z "$(find "$dest$prefix" ! -type d)" ]
}

cat > "$dest/user.c" <<'END'
#include <memfold/base.h>
#include <stdio.h>
int main(void)
{
	return puts(mf_strerror(-MF_ENOMEM)) < 0;
}
END

try install_succeeds make_here install
try install_headers_stand_alone headers_stand_alone
try install_version_is_the_headers version_is_the_headers
try install_serves_a_shared_program build_shared
try install_runs_a_shared_program env LD_LIBRARY_PATH="$dest$prefix/lib" "$dest/shared"
try install_serves_a_static_program build_static
try install_runs_a_static_program "$dest/static"
try uninstall_succeeds make_here uninstall
try uninstall_leaves_nothing nothing_is_left
echo "1..$nr"
