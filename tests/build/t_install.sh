#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# `make install` into an empty folder gives what a stranger's program needs: found by pkg-config, compiled against the
# shared and the static library, run; every header stands alone, in C and C++; every name has its manual page; `make
# uninstall` takes all of it away.
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

headers_are_good_cxx() {
	for header in "$dest$prefix"/include/memfold/*.h; do
		echo "#include <memfold/${header##*/}>" |
			g++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only $(flags --cflags) -x c++ - || return 1
	done
}

# Every name in the NAME section of a page of section 3 opens that page.
manual_has_a_page_for_every_name() {
	manual=$dest$prefix/share/man/man3
	for page in man/*.3; do
		names=$(sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([^ ]*\).*/\1/p' "$page")
		[ -n "$names" ] || return 1
		for name in $names; do
			cmp "$page" "$manual/$name.3" || return 1
		done
	done
}

library_is_never_unloaded() {
	readelf -d "$dest$prefix/lib/libmemfold.so" | grep -q NODELETE
}

# loader_calls UID DESTDIR: how often an install and an uninstall by that user refresh the loader's list.
loader_calls() {
	mkdir -p "$dest/bin"
	: > "$dest/calls"
	printf '#!/bin/sh\necho %s\n' "$1" > "$dest/bin/id"
	printf '#!/bin/sh\necho refreshed >> "%s"\n' "$dest/calls" > "$dest/bin/ldconfig"
	chmod +x "$dest/bin/id" "$dest/bin/ldconfig"
	for target in install uninstall; do
		(PATH="$dest/bin:$PATH" && make_here PREFIX="$dest/as-$1" DESTDIR="$2" $target) > /dev/null || return 1
	done
	wc -l < "$dest/calls"
}

loader_is_refreshed_by_root_only() {
	[ "$(loader_calls 0 '')" -eq 2 ] && [ "$(loader_calls 1000 '')" -eq 0 ] && [ "$(loader_calls 0 "$dest")" -eq 0 ]
}

folder_with_a_space_is_refused() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make BUILD="$dest/a b" help 2>&1 | grep -q 'without spaces'
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
if command -v g++ > /dev/null; then
	try install_headers_are_good_cxx headers_are_good_cxx
else
	nr=$((nr + 1))
	echo "ok $nr - install_headers_are_good_cxx # SKIP no g++ here"
fi
try install_manual_has_a_page_for_every_name manual_has_a_page_for_every_name
try install_library_is_never_unloaded library_is_never_unloaded
try install_loader_is_refreshed_by_root_only loader_is_refreshed_by_root_only
try build_folder_with_a_space_is_refused folder_with_a_space_is_refused
try install_version_is_the_headers version_is_the_headers
try install_serves_a_shared_program build_shared
try install_runs_a_shared_program env LD_LIBRARY_PATH="$dest$prefix/lib" "$dest/shared"
try install_serves_a_static_program build_static
try install_runs_a_static_program "$dest/static"
try uninstall_succeeds make_here uninstall
try uninstall_leaves_nothing nothing_is_left
echo "1..$nr"
