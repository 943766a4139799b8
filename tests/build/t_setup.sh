#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# tools/setup against a made-up dpkg and apt: silent when nothing is missing, asks for what is missing and nothing else,
# tells a user without rights what to type.  Installs nothing.
fake=$(mktemp -d) || exit 1
trap 'rm -rf "$fake"' EXIT
nr=0

# All that setup finds of the real machine: so no apt of it can run, and there is a sudo only where a test makes one.
for tool in awk sed tr head mktemp cat rm env; do
	ln -s "$(command -v $tool)" "$fake/$tool"
done

# fake_command NAME LINE...: a program for setup to find.
fake_command() {
	name=$1
	shift
	printf '%s\n' '#!/bin/sh' "$@" > "$fake/$name"
	chmod +x "$fake/$name"
}

# installed PACKAGE[=VERSION]...: what dpkg-query answers.
installed() {
	for package in "$@"; do
		case $package in
		*=*) echo "ii |${package%%=*}|${package#*=}" ;;
		*) echo "ii |$package|1.0" ;;
		esac
	done > "$fake/packages"
}

# expect WHAT CODE PATTERN SET: runs setup; PATTERN is matched against the output and the calls of apt-get together,
# "" stands for silence.
expect() {
	nr=$((nr + 1))
	: > "$fake/calls"
	PATH="$fake" tools/setup "$4" >"$fake/said" 2>&1
	code=$?
	said=$(cat "$fake/said" "$fake/calls")
	if [ -n "$3" ]; then
		printf '%s\n' "$said" | grep -q -e "$3"
	else
		[ -z "$said" ]
	fi
	if [ $? = 0 ] && [ $code = "$2" ]; then
		echo "ok $nr - $1"
	else
		echo "not ok $nr - $1"
		printf '%s\n' "exit code $code" "$said" | sed 's/^/# /'
	fi
}

run_set='make gcc libc6-dev pkg-config libjson-c-dev libsmartcols-dev'
test_set="$run_set perl llvm valgrind spin qemu-system-x86"
fake_command dpkg-query "cat '$fake/packages'"
fake_command apt-get "echo \"apt-get \$*\" >> '$fake/calls'"
# apt translates.
fake_command apt-cache '[ "$LC_ALL" = C ] && echo "  Depends: clang-18" || echo "  Hängt ab von: clang-18"'
fake_command id 'echo 0'

installed $run_set
expect setup_is_silent_when_run_has_all 0 '' run
installed $test_set clang=1:16.0-57 libclang-rt-16-dev
expect setup_is_silent_when_test_has_all 0 '' test
installed make gcc libc6-dev pkg-config libjson-c-dev
expect setup_installs_what_is_missing_only 0 'install -y --no-install-recommends libsmartcols-dev$' run
expect setup_updates_lists_only_when_needed 0 'apt-get -qq -o [^ ]* install.*dev$' run
installed $test_set clang=1:16.0-57 libclang-rt-14-dev
expect setup_follows_the_version_of_clang 0 'recommends libclang-rt-16-dev$' test
installed $test_set
expect setup_asks_apt_for_the_version_of_clang 0 'recommends clang libclang-rt-18-dev$' test
installed perl
expect setup_asks_for_all_by_full_names 0 "install -y [^ ]* $run_set clang libclang-rt-18-dev llvm valgrind spin qemu-system-x86\$" test

fake_command apt-get "echo \"apt-get \$*\" >> '$fake/calls'" 'case $* in *install*) exit 100 ;; esac'
expect setup_fails_when_apt_does 2 'apt-get could not install: make gcc' test
expect setup_updates_lists_after_a_failure 2 '^apt-get .* update$' test

# A user without rights.  apt-get is run to ask whether the line would do, and for nothing else.
fake_command id 'echo 1000'
fake_command sudo 'exit 1'
expect setup_as_user_prints_what_root_can_do 2 '^sudo tools/setup test$' test
fake_command apt-get 'case $* in *--simulate*) exit 0 ;; esac' "echo \"apt-get \$*\" >> '$fake/calls'"
line='apt-get install -y --no-install-recommends'
expect setup_as_user_prints_the_line_to_type 2 "^sudo $line $run_set clang libclang-rt-18-dev llvm valgrind spin qemu-system-x86\$" test
if [ -s "$fake/calls" ]; then
	echo "not ok $((nr += 1)) - setup_as_user_runs_no_apt"
else
	echo "ok $((nr += 1)) - setup_as_user_runs_no_apt"
fi
rm "$fake/sudo"
expect setup_says_sudo_only_where_it_is 2 "^$line $run_set\$" run
expect setup_refuses_an_unknown_set 2 'it is run or test$' everything
echo "1..$nr"
