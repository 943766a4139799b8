# SPDX-License-Identifier: BSD-2-Clause
#
# Builds, tests and installs memfold.  `make help` lists the targets.
#
# Owns everything below $(BUILD), and nothing outside it.  Sources are found by wildcard, so a new file needs no line
# here.  Every object lies in the folder of its flavour, $(BUILD)/<flavour>/<path of its source>.o; what users take lies
# in $(BUILD) itself.  Installs no packages of its own accord: that is tools/setup, which only `run`, `test`, `soak` and
# `fuzz` call.

BUILD ?= build
ifneq ($(words $(BUILD)),1)
$(error BUILD is one folder, without spaces in its name, not "$(BUILD)")
endif
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
CLANG ?= clang
AR ?= ar
PKG_CONFIG ?= pkg-config
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

ifeq ($(origin CC),default)
CC := gcc
endif

# Parallel unless told otherwise; a make inside a make shares the jobs of the outer one.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif

# `make V=1` shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

VERSION := $(shell sed -n 's/^.define MF_VERSION "\(.*\)"/\1/p' include/memfold/base.h)
SONAME := libmemfold.so.0
SHARED := libmemfold.so.$(VERSION)

# ---- Sources -------------------------------------------------------------------------------------------------------

CORE_SRC := $(sort $(wildcard core/*/*.c))
LIB_SRC := $(CORE_SRC) $(sort $(wildcard machines/sim/*.c machines/linux/*.c))
CLI_SRC := $(sort $(wildcard cli/*.c))
EXAMPLE_SRC := $(sort $(wildcard examples/*.c))
TEST_LIB_SRC := $(sort $(wildcard tests/lib/*.c))
TEST_KINDS := unit contract laws model failure race
TEST_SRC := $(sort $(foreach kind,$(TEST_KINDS),$(wildcard tests/$(kind)/test_*.c tests/$(kind)/*_child.c)))
# A test may have several sources: test_x.c, and x_*.c beside it.
parts_of = $(filter-out $(TEST_SRC),$(wildcard $(subst /test_,/,$(1:.c=_*.c))))
TEST_PART_SRC := $(sort $(foreach test,$(TEST_SRC),$(call parts_of,$(test))))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
TEST_SCRIPTS := $(sort $(wildcard tests/*/t_*.sh))
HEADERS := $(sort $(wildcard include/memfold/*.h))
MANUALS := $(sort $(wildcard man/*.1 man/*.3 man/*.7))

# ---- Flags ---------------------------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes -Wmissing-prototypes
BASE_FLAGS := -std=c11 $(WARNINGS) -g -fPIC -fvisibility=hidden -fno-semantic-interposition -Iinclude -I. -pthread

# Warnings are errors where we test.  Who only builds or installs may have a newer compiler that warns of more.
test-built soak-built fuzz-built: WERROR ?= -Werror

# By top folder of the source.  The core may rely on no C library: tests/build/t_symbols.sh looks at the objects.
core_flags := -ffreestanding -fno-stack-protector
machines_flags := -D_GNU_SOURCE
cli_flags := -D_GNU_SOURCE @$(BUILD)/cli.cflags
examples_flags := -D_GNU_SOURCE
tests_flags := -D_GNU_SOURCE
folder_flags = $($(firstword $(subst /, ,$(1)))_flags)

# By flavour: compiler, flags, flags at link time only, kinds of tests that run in it.
FLAVOURS := release debug asan tsan clang fuzz

release_cc = $(CC)
release_flags := -O2
release_tests := model

debug_cc = $(CC)
debug_flags := -O1 -DMF_DEBUG
debug_tests := unit contract laws model failure race

asan_cc = $(CC)
asan_flags := -O1 -DMF_DEBUG -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
asan_tests := unit contract laws model failure

tsan_cc = $(CLANG)
tsan_flags := -O1 -DMF_DEBUG -fsanitize=thread
tsan_tests := race

# Without an operating system: the port's programs (see "Bare metal"), for figures and with the core's assertions.
x86_64_cc = $(CC)
x86_64_flags := -O2

x86_64-debug_cc = $(CC)
x86_64-debug_flags := -O2 -DMF_DEBUG

# Compiled for clang's warnings, never run.
clang_cc = $(CLANG)
clang_flags := -O2
x86_64-clang_cc = $(CLANG)
x86_64-clang_flags := -O2

fuzz_cc = $(CLANG)
fuzz_flags := -O1 -DMF_DEBUG -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
fuzz_ldflags := -fsanitize=fuzzer

# ---- What a flavour builds -----------------------------------------------------------------------------------------

objects = $(patsubst %.c,$(BUILD)/$(1)/%.o,$(2))
programs = $(patsubst %.c,$(BUILD)/$(1)/%,$(2))
tests_of = $(foreach kind,$($(1)_tests),$(filter tests/$(kind)/test_%,$(TEST_SRC)))
children_of = $(foreach kind,$($(1)_tests),$(filter tests/$(kind)/%_child.c,$(TEST_SRC)))
fuzz_programs = $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
replay_programs = $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/asan/tests/fuzz/replay_%,$(FUZZ_SRC))

define flavour
$(BUILD)/$(1)/%.o: %.c Makefile
	$$(call say,CC,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_cc) $$(BASE_FLAGS) $$(WERROR) $$($(1)_flags) $$(call folder_flags,$$<) $$(CFLAGS) -MMD -MP \
		-c -o $$@ $$<

# Quick append: two rooms may have sources of one name.
$(BUILD)/$(1)/libmemfold.a: $(call objects,$(1),$(LIB_SRC))
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$$(Q)$$(AR) qcs $$@ $$^

# What tests take of the command: everything but its main().
$(BUILD)/$(1)/libcli.a: $(call objects,$(1),$(filter-out cli/main.c,$(CLI_SRC)))
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$$(Q)$$(AR) qcs $$@ $$^

$(call programs,$(1),$(TEST_SRC)): %: %.o $(call objects,$(1),$(TEST_LIB_SRC)) $(BUILD)/$(1)/libcli.a \
		$(BUILD)/$(1)/libmemfold.a $(BUILD)/cli.libs
	$$(call say,LD,$$@)
	$$(Q)$$($(1)_cc) $$($(1)_flags) -pthread -o $$@ $$(filter-out %.libs,$$^) @$(BUILD)/cli.libs $$(LDFLAGS)

$(call objects,$(1),$(CLI_SRC)): $(BUILD)/cli.cflags
endef
$(foreach name,$(FLAVOURS),$(eval $(call flavour,$(name))))
$(foreach name,$(FLAVOURS),$(foreach test,$(TEST_SRC),\
	$(eval $(call programs,$(name),$(test)): $(call objects,$(name),$(call parts_of,$(test))))))

# ---- Products ------------------------------------------------------------------------------------------------------

COMMAND := $(if $(CLI_SRC),$(BUILD)/memfold)
EXAMPLES := $(patsubst examples/%.c,$(BUILD)/examples/%,$(EXAMPLE_SRC))
LIBRARIES := $(BUILD)/libmemfold.a $(BUILD)/$(SHARED)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all check-layers run test test-built soak soak-built bench qemu bench-metal fuzz fuzz-built install uninstall clean help

all: check-layers $(LIBRARIES) $(COMMAND) $(EXAMPLES)

$(BUILD)/libmemfold.a: $(BUILD)/release/libmemfold.a
	$(Q)cp -f $< $@

# Never unloaded: the hooks of threads and of fork lie in it.
$(BUILD)/$(SHARED): $(call objects,release,$(LIB_SRC)) libmemfold.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -pthread -Wl,-soname,$(SONAME) -Wl,--version-script=libmemfold.map \
		-Wl,-z,defs -Wl,-z,nodelete -o $@ $(filter %.o,$^) $(LDFLAGS)
	$(Q)ln -sf $(@F) $(BUILD)/$(SONAME) && ln -sf $(SONAME) $(BUILD)/libmemfold.so

# Asked of pkg-config when the command is built, not when this file is read: `make test` installs the libraries first.
$(BUILD)/cli.cflags $(BUILD)/cli.libs: $(BUILD)/cli.%:
	@mkdir -p $(@D)
	@$(PKG_CONFIG) --$* json-c smartcols > $@ || \
		{ echo 'memfold: the command needs json-c and libsmartcols: run tools/setup run' >&2; exit 1; }

$(BUILD)/memfold: $(call objects,release,$(CLI_SRC)) $(BUILD)/libmemfold.a $(BUILD)/cli.libs
	$(call say,LD,$@)
	$(Q)$(CC) $(release_flags) -pthread -o $@ $(filter-out %.libs,$^) @$(BUILD)/cli.libs $(LDFLAGS)

$(EXAMPLES): $(BUILD)/examples/%: $(BUILD)/release/examples/%.o $(BUILD)/libmemfold.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(release_flags) -pthread -o $@ $^ $(LDFLAGS)

check-layers:
	$(Q)perl tools/layers

# ---- Bare metal ----------------------------------------------------------------------------------------------------

# Programs of the port: x.elf of tests/metal/main_x.c, and tests/<kind>/test_x.elf of the tests that METAL_TESTS lists;
# each in $(BUILD)/x86_64 and, with the core's assertions, in $(BUILD)/x86_64-debug.  tools/metal runs one.
METAL_FLAVOURS := x86_64 x86_64-debug x86_64-clang
METAL_C_SRC := $(sort $(wildcard machines/x86_64/*.c))
METAL_S_SRC := $(sort $(wildcard machines/x86_64/*.S))
METAL_MAIN_SRC := $(sort $(wildcard metal/main_*.c tests/metal/main_*.c))
METAL_TESTS := $(sort $(wildcard tests/metal/test_*.c tests/contract/test_*.c tests/failure/test_*.c \
	tests/race/test_*.c)) tests/model/test_model.c
# What is of a process only has its counterpart in tests/metal, or none.
metal_parts_of = $(filter-out %_hosted.c,$(call parts_of,$(1)))
METAL_PART_SRC := $(sort $(foreach test,$(METAL_TESTS),$(call metal_parts_of,$(test))))
METAL_LIB_SRC := $(filter-out %_hosted.c $(METAL_MAIN_SRC) $(METAL_TESTS) $(METAL_PART_SRC), \
	$(TEST_LIB_SRC) $(sort $(wildcard metal/*.c tests/metal/*.c)))

# Nothing but the general registers: interrupts save no others.
METAL_FLAGS := -std=c11 $(WARNINGS) -g -Iinclude -I. -ffreestanding -mcmodel=kernel -mno-red-zone -mgeneral-regs-only \
	-fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none
METAL_LDFLAGS := -nostdlib -static -no-pie -Wl,-z,max-page-size=0x1000 -Wl,--build-id=none
# The headers of a C library that tests include.
metal_tests_flags := -Itests/metal/include
metal_folder_flags = $(metal_$(firstword $(subst /, ,$(1)))_flags)

METAL_SRC := $(METAL_C_SRC) $(METAL_MAIN_SRC) $(METAL_TESTS) $(METAL_PART_SRC) $(METAL_LIB_SRC)

metal_objects = $(call objects,$(1),$(CORE_SRC) $(METAL_C_SRC)) $(patsubst %,$(BUILD)/$(1)/%.o,$(METAL_S_SRC))
metal_mains = $(patsubst main_%.c,$(BUILD)/$(1)/%.elf,$(notdir $(METAL_MAIN_SRC)))
metal_tests = $(patsubst %.c,$(BUILD)/$(1)/%.elf,$(METAL_TESTS))

define metal_flavour
$(BUILD)/$(1)/%.o: %.c Makefile
	$$(call say,CC,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_cc) $$(METAL_FLAGS) $$(WERROR) $$($(1)_flags) $$(call metal_folder_flags,$$<) $$(CFLAGS) -MMD -MP \
		-c -o $$@ $$<

# boot.S is not boot.c.
$(BUILD)/$(1)/%.S.o: %.S Makefile
	$$(call say,AS,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_cc) $$(METAL_FLAGS) $$($(1)_flags) -MMD -MP -c -o $$@ $$<

# Of this a program takes what it needs; tests take their x86_main() from it.
$(BUILD)/$(1)/libtests.a: $(call objects,$(1),$(METAL_LIB_SRC))
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$$(Q)$$(AR) qcs $$@ $$^

$(call metal_tests,$(1)): %.elf: %.o
$(call metal_mains,$(1)) $(call metal_tests,$(1)): $(call metal_objects,$(1)) $(BUILD)/$(1)/libtests.a \
		machines/x86_64/link.ld
	$$(call say,LD,$$@)
	$$(Q)$$($(1)_cc) $$(METAL_LDFLAGS) -T machines/x86_64/link.ld -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^)
endef
$(foreach name,$(METAL_FLAVOURS),$(eval $(call metal_flavour,$(name))))
$(foreach name,$(METAL_FLAVOURS),$(foreach main,$(METAL_MAIN_SRC),\
	$(eval $(patsubst main_%.c,$(BUILD)/$(name)/%.elf,$(notdir $(main))): $(call objects,$(name),$(main)))))
$(foreach name,$(METAL_FLAVOURS),$(foreach test,$(METAL_TESTS),\
	$(eval $(patsubst %.c,$(BUILD)/$(name)/%.elf,$(test)): $(call objects,$(name),$(call metal_parts_of,$(test))))))

# ---- Running and testing -------------------------------------------------------------------------------------------

# Rules with a second half install packages first, and then let a fresh make look at the machine.
PROVE = MF_BUILD='$(abspath $(BUILD))' CC='$(CC)' CLANG='$(CLANG)' UBSAN_OPTIONS=print_stacktrace=1 \
	prove --exec 'sh tools/run-test'

TEST_PROGRAMS := $(foreach name,$(FLAVOURS),$(call programs,$(name),$(call tests_of,$(name)))) $(replay_programs)
# What test programs run: they lie beside them.
TEST_CHILDREN := $(foreach name,$(FLAVOURS),$(call programs,$(name),$(call children_of,$(name))))
TEST_NEEDS := $(TEST_PROGRAMS) $(TEST_CHILDREN) \
	$(call objects,clang,$(LIB_SRC) $(CLI_SRC) $(EXAMPLE_SRC) $(TEST_LIB_SRC) $(TEST_SRC) $(TEST_PART_SRC) \
	$(FUZZ_SRC)) \
	$(call objects,debug,$(CORE_SRC)) \
	$(call metal_mains,x86_64-debug) $(call metal_tests,x86_64-debug) $(call objects,x86_64-clang,$(METAL_SRC))

run:
	@tools/setup run
	@$(MAKE) --no-print-directory $(BUILD)/memfold
	$(BUILD)/memfold run

test:
	@tools/setup test
	@$(MAKE) --no-print-directory test-built

# What failed is told once more at the end, where one looks first.
told_again = : >$(BUILD)/failures; MF_FAILURES='$(abspath $(BUILD))/failures' $(1) || \
	{ cat $(BUILD)/failures >&2; exit 1; }

test-built: all $(TEST_NEEDS)
	@$(call told_again,$(PROVE) -j2 $(TEST_PROGRAMS) $(TEST_SCRIPTS))

# The races, the models and the command again, for as long as each program likes when it finds MF_SOAK set; and what is
# long on bare metal.
soak_part = $(filter $(foreach part,tsan/tests/race debug/tests/race release/tests/model,$(BUILD)/$(part)/%),$(1))
SOAK_PROGRAMS := $(call soak_part,$(TEST_PROGRAMS))
SOAK_METAL := $(BUILD)/debug/tests/contract/test_contract $(call metal_tests,x86_64-debug)

soak:
	@tools/setup test
	@$(MAKE) --no-print-directory soak-built

soak-built: all $(SOAK_PROGRAMS) $(SOAK_METAL) $(call soak_part,$(TEST_CHILDREN))
	@$(call told_again,MF_SOAK=1 MF_TEST_TIMEOUT=0 $(PROVE) --timer -j2 $(SOAK_PROGRAMS) \
		tests/metal/t_race.sh tests/metal/t_exhaust.sh tests/metal/t_metal.sh tests/cli/t_run.sh)

bench: all
	MF_BUILD='$(abspath $(BUILD))' bench/run

$(fuzz_programs): $(BUILD)/fuzz/fuzz_%: $(BUILD)/fuzz/tests/fuzz/fuzz_%.o $(call objects,fuzz,$(TEST_LIB_SRC)) \
		$(BUILD)/fuzz/libcli.a $(BUILD)/fuzz/libmemfold.a $(BUILD)/cli.libs
	$(call say,LD,$@)
	$(Q)$(fuzz_cc) $(fuzz_flags) $(fuzz_ldflags) -pthread -o $@ $(filter-out %.libs,$^) @$(BUILD)/cli.libs $(LDFLAGS)

$(replay_programs): $(BUILD)/asan/tests/fuzz/replay_%: $(BUILD)/asan/tests/fuzz/fuzz_%.o \
		$(BUILD)/asan/tests/fuzz/replay_main.o $(call objects,asan,$(TEST_LIB_SRC)) $(BUILD)/asan/libcli.a \
		$(BUILD)/asan/libmemfold.a $(BUILD)/cli.libs
	$(call say,LD,$@)
	$(Q)$(asan_cc) $(asan_flags) -pthread -o $@ $(filter-out %.libs,$^) @$(BUILD)/cli.libs $(LDFLAGS)

# The port on a machine of 8 GiB, for people.
qemu:
	@tools/setup test
	@$(MAKE) --no-print-directory $(BUILD)/x86_64/memfold.elf
	@tools/metal $(BUILD)/x86_64/memfold.elf -m 8G -c 4

# Counted in instructions, on the processor that bench/peers/linux.md tells of.
bench-metal:
	@tools/setup test
	@$(MAKE) --no-print-directory $(BUILD)/x86_64/bench.elf
	@tools/metal $(BUILD)/x86_64/bench.elf -m 8G --icount --cpu max,-erms,-la57
	@tools/metal $(BUILD)/x86_64/bench.elf -m 64G --icount --cpu max,-erms,-la57 jobs=no heap=16M

fuzz:
	@tools/setup test
	@$(MAKE) --no-print-directory fuzz-built

# New inputs go to the build folder; whoever finds one worth keeping copies it to tests/fuzz/corpus.
fuzz-built: $(fuzz_programs)
	@set -e; for program in $(fuzz_programs); do \
		target=$${program##*/fuzz_}; found=$(BUILD)/fuzz/found/$$target; mkdir -p $$found; \
		echo "fuzz: $$target, $(FUZZ_SECONDS) s, inputs in $$found"; \
		$$program -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=$$found- $$found \
			$$(ls -d tests/fuzz/corpus/$$target 2>/dev/null || true); \
	done

# ---- Installing ----------------------------------------------------------------------------------------------------

# The names a page describes: its own, and those that `install` makes links for.
man_names = $(shell sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([^ ]*\).*/\1/p' $(1))
man_links = $(filter-out $(notdir $(basename $(1))),$(call man_names,$(1)))

# The loader's list of libraries is the machine's: only for an installation into it, by root.
refresh_loader = if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" -eq 0 ]; then PATH="$$PATH:/usr/sbin:/sbin" ldconfig; fi

install: all
	install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(INCLUDEDIR)/memfold'
	install -m 644 $(HEADERS) '$(DESTDIR)$(INCLUDEDIR)/memfold'
	install -m 644 $(BUILD)/libmemfold.a '$(DESTDIR)$(LIBDIR)'
	install -m 755 $(BUILD)/$(SHARED) '$(DESTDIR)$(LIBDIR)'
	ln -sf $(SHARED) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libmemfold.so'
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' memfold.pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig/memfold.pc'
	$(if $(COMMAND),install -m 755 $(COMMAND) '$(DESTDIR)$(BINDIR)')
	set -e; for page in $(MANUALS); do \
		install -D -m 644 $$page '$(DESTDIR)$(MANDIR)'/man$${page##*.}/$${page##*/}; done
	set -e; $(foreach page,$(filter %.3,$(MANUALS)),for name in $(call man_links,$(page)); do \
		ln -sf $(notdir $(page)) '$(DESTDIR)$(MANDIR)/man3/'$$name.3; done;)
	$(refresh_loader)

uninstall:
	rm -f $(foreach name,$(notdir $(HEADERS)),'$(DESTDIR)$(INCLUDEDIR)/memfold/$(name)')
	rm -f $(foreach name,libmemfold.a libmemfold.so $(SONAME) $(SHARED),'$(DESTDIR)$(LIBDIR)/$(name)')
	rm -f '$(DESTDIR)$(LIBDIR)/pkgconfig/memfold.pc' '$(DESTDIR)$(BINDIR)/memfold'
	rm -f $(foreach page,$(MANUALS),'$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page))')
	rm -f $(foreach page,$(filter %.3,$(MANUALS)),$(foreach name,$(call man_links,$(page)),\
		'$(DESTDIR)$(MANDIR)/man3/$(name).3'))
	if [ -d '$(DESTDIR)$(INCLUDEDIR)/memfold' ]; then rmdir '$(DESTDIR)$(INCLUDEDIR)/memfold'; fi
	$(refresh_loader)

clean:
	rm -rf '$(BUILD)'

help:
	@echo 'all            libraries, command, examples (the default); BUILD=build CC=gcc WERROR= V= (1: show commands)'
	@echo 'run            build what is needed and run `memfold run`'
	@echo 'test           everything under test, in all flavours ($(FLAVOURS))'
	@echo 'soak           races (also on bare metal), models and `memfold run`, long'
	@echo 'fuzz           every fuzz target for FUZZ_SECONDS=60'
	@echo 'bench          bench/run'
	@echo 'qemu           the bare-metal port in an emulator: all memory of a machine, told for people'
	@echo 'bench-metal    its instructions and metadata, beside those of Linux'
	@echo 'check-layers   no room includes a room above it'
	@echo 'install        PREFIX=/usr/local DESTDIR=; and uninstall'
	@echo 'clean          remove BUILD'

-include $(foreach name,$(FLAVOURS),$(patsubst %.o,%.d,$(call objects,$(name),\
	$(LIB_SRC) $(CLI_SRC) $(EXAMPLE_SRC) $(TEST_LIB_SRC) $(TEST_SRC) $(TEST_PART_SRC) $(FUZZ_SRC) \
	tests/fuzz/replay_main.c)))
-include $(foreach name,$(METAL_FLAVOURS),$(patsubst %.o,%.d,$(call metal_objects,$(name)) \
	$(call objects,$(name),$(METAL_SRC))))
