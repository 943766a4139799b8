#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# `make install` into an empty folder gives what a stranger's program needs: found by pkg-config, compiled against the
# shared and the static library, run; every header stands alone, in C and C++; every name has its manual page; `make
# uninstall` takes all of it away.
. "$(dirname "$0")/../lib/tap.sh"
prefix=/opt/memfold

# The outer make's jobs are not this one's.
make_here() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make BUILD="$MF_BUILD" CC="$CC" PREFIX=$prefix DESTDIR="$folder" "$@"
}

flags() {
	PKG_CONFIG_SYSROOT_DIR="$folder" PKG_CONFIG_PATH="$folder$prefix/lib/pkgconfig" pkg-config "$@" memfold
}

build_shared() {
	$CC -o "$folder/shared" "$folder/user.c" $(flags --cflags --libs)
}

build_static() {
	$CC -static -o "$folder/static" "$folder/user.c" $(flags --static --cflags --libs)
}

headers_stand_alone() {
	for header in "$folder$prefix"/include/memfold/*.h; do
		echo "#include <memfold/${header##*/}>" |
			$CC -std=c11 -Wall -Wextra -Werror -fsyntax-only $(flags --cflags) -x c - || return 1
	done
}

headers_are_good_cxx() {
	for header in "$folder$prefix"/include/memfold/*.h; do
		echo "#include <memfold/${header##*/}>" |
			g++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only $(flags --cflags) -x c++ - || return 1
	done
}

# Every name in the NAME section of a page of section 3 opens that page.
manual_has_a_page_for_every_name() {
	manual=$folder$prefix/share/man/man3
	for page in man/*.3; do
		names=$(sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([^ ]*\).*/\1/p' "$page")
		[ -n "$names" ] || return 1
		for name in $names; do
			cmp "$page" "$manual/$name.3" || return 1
		done
	done
}

library_is_never_unloaded() {
	readelf -d "$folder$prefix/lib/libmemfold.so" | grep -q NODELETE
}

# loader_calls UID DESTDIR: how often an install and an uninstall by that user refresh the loader's list.
loader_calls() {
	mkdir -p "$folder/bin"
	: > "$folder/calls"
	printf '#!/bin/sh\necho %s\n' "$1" > "$folder/bin/id"
	printf '#!/bin/sh\necho refreshed >> "%s"\n' "$folder/calls" > "$folder/bin/ldconfig"
	chmod +x "$folder/bin/id" "$folder/bin/ldconfig"
	for target in install uninstall; do
		(PATH="$folder/bin:$PATH" && make_here PREFIX="$folder/as-$1" DESTDIR="$2" $target) > /dev/null ||
			return 1
	done
	wc -l < "$folder/calls"
}

loader_is_refreshed_by_root_only() {
	[ "$(loader_calls 0 '')" -eq 2 ] && [ "$(loader_calls 1000 '')" -eq 0 ] &&
		[ "$(loader_calls 0 "$folder")" -eq 0 ]
}

folder_with_a_space_is_refused() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make BUILD="$folder/a b" help 2>&1 | grep -q 'without spaces'
}

version_is_the_headers() {
	grep -q "MF_VERSION \"$(flags --modversion)\"" include/memfold/base.h
}

nothing_is_left() {
	[ -z "$(find "$folder$prefix" ! -type d)" ]
}

cat > "$folder/user.c" <<'END'
#include <memfold/base.h>
#include <stdio.h>
int main(void)
{
	return puts(mf_strerror(-MF_ENOMEM)) < 0;
}
END

check install_succeeds make_here install
check install_headers_stand_alone headers_stand_alone
if command -v g++ > /dev/null; then
	check install_headers_are_good_cxx headers_are_good_cxx
else
	skip install_headers_are_good_cxx 'no g++ here'
fi
check install_manual_has_a_page_for_every_name manual_has_a_page_for_every_name
check install_library_is_never_unloaded library_is_never_unloaded
check install_loader_is_refreshed_by_root_only loader_is_refreshed_by_root_only
check build_folder_with_a_space_is_refused folder_with_a_space_is_refused
check install_version_is_the_headers version_is_the_headers
check install_serves_a_shared_program build_shared
check install_runs_a_shared_program env LD_LIBRARY_PATH="$folder$prefix/lib" "$folder/shared"
check install_serves_a_static_program build_static
check install_runs_a_static_program "$folder/static"
check uninstall_succeeds make_here uninstall
check uninstall_leaves_nothing nothing_is_left
echo "1..$nr"
