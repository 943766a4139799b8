/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * x86_64.h - the bare-metal port: what its files owe each other and whoever is its main().
 *
 *   boot.S      PVH entry, 32 bits to 64, the first stack          link.ld    one ELF, PT_NOTE for the loader
 *   boot.c      from start_info to main(): the order of everything
 *   bootmap.c   what memory there is, and who has it; frames for whoever comes before memfold
 *   console.c   COM1, the exit code; port.h                        acpi.c     processors and nodes
 *   string.c    what compilers call of their own accord
 *   paging.c    the kernel's own translations, direct map, guards  protect.c  single frames of the direct map read-only
 *   gdt.c       segments, TSS, stacks of faults                    describe.c what an address lies in, in words
 *   trap.S/.c   exceptions and interrupts, faults that are expected
 *   smp.c       the other processors: brought up, given work       trampoline.S, .h  their way from real mode
 *   flush.c     translations dropped on all CPUs                   apic.c     the local APIC
 *   clock.c     microseconds in ticks of the processor             cpu.h      single instructions
 *   machine.c   struct mf_machine on all of this                   heap.c     control memory
 *
 *   virtual addresses, 48 bits (57 with 5 levels: the same addresses, one more table above)
 *     0xffff800000000000  direct map, 64 TiB: physical address p stands at X86_DIRECT + p
 *     0xffffe00000000000  windows, X86_NR_WINDOWS of 512 GiB each: each is one entry of the kernel's top table, and
 *                         one describes 16 TiB from its first frame on: less than the direct map may show
 *     0xfffff00000000000  stacks, X86_STACK_STRIDE for each CPU: four for faults, its own at the end, unmapped between
 *     0xfffff80000000000  device memory, uncached
 *     0xffffffff80000000  the image, at X86_IMAGE + physical address (loaded at 1 MiB)
 *
 * Owns nothing.  Layering: includes the public headers, and nothing of core/.
 */
#ifndef MEMFOLD_MACHINES_X86_64_H
#define MEMFOLD_MACHINES_X86_64_H

/* Shared with assembly. */
#define X86_DIRECT 0xffff800000000000
#define X86_WINDOWS 0xffffe00000000000
#define X86_WINDOW_BYTES 0x8000000000
#define X86_NR_WINDOWS 16
#define X86_STACKS 0xfffff00000000000
#define X86_STACK_BYTES 0x10000
#define X86_STACK_STRIDE 0x40000
#define X86_FAULT_STACK_BYTES 0x4000
#define X86_FAULT_STACK_STRIDE 0x8000
#define X86_DEVICES 0xfffff80000000000
#define X86_IMAGE 0xffffffff80000000
#define X86_CPUS_MAX 64
#define X86_TRAMPOLINE 0x8000 /* physical, below 1 MiB; the page after it is the trampoline's, too */

#define X86_CODE_SELECTOR 0x08
#define X86_DATA_SELECTOR 0x10
#define X86_TSS_SELECTOR 0x18 /* of the CPU's own GDT */

/*
 * What is written to isa-debug-exit for code 0.  The emulator ends with (written << 1) | 1: 33 for success, then, which
 * none of its own failures is.
 */
#define X86_EXIT_BASE 16

/* Vectors. */
#define X86_VECTOR_FLUSH 0xf0
#define X86_VECTOR_CALL 0xf1
#define X86_VECTOR_SPURIOUS 0xff

#ifndef __ASSEMBLER__

#include <memfold/machine.h>

enum { X86_PAGE = 4096, X86_PAGE_SHIFT = 12 };

static inline void *x86_direct(uint64_t paddr)
{
	return (void *)(X86_DIRECT + paddr);
}

/* ---- console.c: no lock held, any CPU, also inside a fault ------------------------------------------------------- */

void console_init(void);
/* Whole texts do not mix: a lock that whoever has it may take again. */
void console_write(const char *text);
/* At most 511 bytes. */
void console_print(const char *format, ...) MF_PRINTF(1, 2);
/* Ends the emulator through isa-debug-exit (see X86_EXIT_BASE); halts where there is none. */
MF_NORETURN void x86_exit(unsigned code);

/* ---- bootmap.c --------------------------------------------------------------------------------------------------- */

enum { BOOT_RANGES_MAX = 64 };

enum boot_kind {
	BOOT_RAM,    /* nobody's yet                                                                          */
	BOOT_IMAGE,  /* the kernel's image                                                                    */
	BOOT_DATA,   /* start_info and what it leads to, the first page, the trampoline, frames given before memfold */
	BOOT_FIRMWARE, /* reserved by firmware, ACPI tables                                                   */
};

/* Physical, whole frames, ascending, disjoint, neighbours differ; what lies between is a hole. */
struct boot_range {
	uint64_t start, end;
	enum boot_kind kind;
	unsigned node;
};

struct boot_map {
	unsigned nr;
	struct boot_range range[BOOT_RANGES_MAX];
	uint64_t rsdp;        /* physical; 0: not told                                                        */
	char command_line[1024];
};

extern struct boot_map boot_map;

/* From the loader's start_info, identity-mapped; panics in a full sentence when it makes no sense. */
void bootmap_init(uint64_t start_info_paddr);
/* All of [start, end) that is known lies on this node. */
void bootmap_set_node(uint64_t start, uint64_t end, unsigned node);
/*
 * 2^order frames, naturally aligned, from the highest RAM below `limit` (0: no limit), zeroed, BOOT_DATA from now on.
 * RAM above 4 GiB is taken when there is no other.  Panics when there is none at all.  One CPU only, before memory is
 * given to a machine.
 */
uint64_t boot_frames(unsigned order, uint64_t limit);
/* The same, as it is found: for who would not look at all of it. */
uint64_t boot_frames_unzeroed(unsigned order, uint64_t limit);
/* The value of " name=value" in the command line, or NULL when it is not there; "" when it has no value. */
const char *boot_option(const char *name, char *value, size_t size);

/* ---- acpi.c ------------------------------------------------------------------------------------------------------ */

struct acpi_info {
	unsigned nr_cpus;                    /* enabled ones, at most X86_CPUS_MAX                               */
	uint32_t apic_id[X86_CPUS_MAX];      /* [0] need not be the processor that boots                       */
	uint64_t local_apic;                 /* physical                                                       */
};

/*
 * Reads MADT, and SRAT into bootmap_set_node().  Without a MADT: as many CPUs as QEMU's configuration device says, or
 * one; without an SRAT: one node.  Needs the direct map.
 */
void acpi_init(struct acpi_info *info);

/* ---- paging.c ---------------------------------------------------------------------------------------------------- */

struct x86_features {
	unsigned levels;      /* 4 or 5: as CR4.LA57 was set by boot.S                                         */
	unsigned paddr_bits;
	bool has_1gib, has_global;
	char vendor[13];
};

extern struct x86_features x86_features;

/*
 * Builds the kernel's own tables and switches to them: image (text read and execute, constants read only, data not
 * executable), direct map of every boot range in the largest leaves the CPU has, never executable, read-only where the
 * image's text and constants lie and where the firmware's memory does, X86_WINDOWS empty.
 * The identity map of boot.S goes when smp is up (paging_drop_identity()).
 */
void paging_init(void);
void paging_drop_identity(void);
/*
 * On an application processor: CR3, CR0.WP, EFER.NXE, CR4.PGE as paging_init() has set them on the first.  Comes there
 * with paging_root() in CR3, 64 bits, EFER.NXE (the tables have no-execute bits) and, with 5 levels, CR4.LA57 set.
 */
void paging_enter_cpu(void);
/*
 * The stack of one CPU, and its four for faults, mapped; the top of its own.  What lies below the lowest page of each
 * is never mapped.  A second call for a CPU gives the same answer and takes no frames.
 */
uintptr_t paging_map_stack(unsigned cpu);
/* Device memory, uncached. */
void *paging_map_device(uint64_t paddr, uint64_t size_bytes);
uint64_t paging_root(void); /* physical: CR3 of every CPU */
/* Entry of the top table for window i: the frame of a table, or 0 for none.  Does not flush. */
void paging_set_window(unsigned i, uint64_t table_paddr);
/* The entry that maps an address now, of whatever level: its bits, or 0 where nothing is mapped. */
uint64_t paging_entry(uintptr_t va, unsigned *level);

/* ---- protect.c --------------------------------------------------------------------------------------------------- */

/*
 * One frame of the direct map; leaves are split as needed, with tables from a stock of boot frames, which get whole
 * again when the stock is empty.  Flushes on all CPUs.  A frame for which there is no table stays writable.
 * Who finds nothing to change returns at once, also while the CPU that has changed it is still flushing: the caller
 * serialises calls for one frame, as the core does.
 */
void paging_protect(uint64_t paddr, bool writable);
void paging_protect_init(void); /* from paging_init(): the stock */
uint64_t paging_nr_unprotected(void); /* calls that left a frame writable */

/* ---- gdt.c, trap.c, describe.c ----------------------------------------------------------------------------------- */

/* As trap.S pushes them. */
struct x86_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

/*
 * Of the CPU that runs it: segments, TSS with stacks of their own for #DF, #PF, NMI and #MC, the one IDT, GS with self,
 * number and stack_top of its struct x86_cpu.  Whoever starts CPU n has called paging_map_stack(n).
 */
void gdt_init_cpu(unsigned cpu);
/* From trap.c, which does not go back: a page fault of this CPU that comes now leaves the caller's stack alone. */
void gdt_keep_fault_stack(void);
void trap_init(void);     /* the IDT itself, once */
void trap_handle(struct x86_frame *frame); /* from trap.S */

struct x86_fault {
	unsigned vector, cpu;
	uint64_t address, error, rip; /* error: bit 0 present, 1 write, 4 instruction fetch                     */
};

/*
 * Runs work(ctx) and answers true when it ended in a page fault (or general protection) on this CPU, which is told in
 * *fault; what work() had locked stays locked.  Not nested.
 */
bool x86_expect_fault(void (*work)(void *ctx), void *ctx, struct x86_fault *fault);
/*
 * The line that names a fault: address, what it lies in (window with tier, pfn and layout; direct map; guard), CPU.
 * Takes locks of the map explained.
 */
void x86_describe_fault(const struct x86_fault *fault, char *text, size_t size);
/* The map whose windows are explained, NULL for none: explain_map() [metal/explain.c] sets both of these. */
struct mf_map;
extern const struct mf_map *volatile x86_explained_map;
/*
 * "tier 0, pfn 0x41, region 0, layout tiered" for an address of a window; false when it lies in no tier of the map.
 * The region only where locks may be taken.  Set by whoever knows maps, which a machine does not: metal/explain.c.
 */
typedef bool (*x86_explain_fn)(const struct mf_map *map, uintptr_t va, bool may_lock, char *text, size_t size);
extern x86_explain_fn volatile x86_explain_window;

/* ---- smp.c, flush.c, apic.c -------------------------------------------------------------------------------------- */

/* Found through GS. */
struct x86_cpu {
	struct x86_cpu *self;
	unsigned number;
	uint32_t apic_id;
	uintptr_t stack_top;
	uint64_t nr_flushes;              /* that it asked for                                                   */
	uint64_t nr_ipis_sent;            /* for these: fewer than CPUs asked, when those had an interrupt coming */
	uint64_t nr_ipis_served;          /* atomic; flushes done for others, by interrupt or while it waited    */
	void (*volatile call)(void *ctx); /* what an idle CPU is asked to run; NULL again when it has ended        */
	void *call_ctx;
	struct x86_fault *expected;       /* x86_expect_fault() runs                                             */
	void *expected_jump[5];
};

extern struct x86_cpu x86_cpus[X86_CPUS_MAX];
extern unsigned x86_nr_cpus;          /* those that came up */

static inline struct x86_cpu *x86_this_cpu(void)
{
	struct x86_cpu *cpu;

	__asm__("movq %%gs:0, %0" : "=r"(cpu));
	return cpu;
}

void apic_init_cpu(void);                 /* of the CPU that runs it: enabled, spurious vector set */
void apic_init(uint64_t local_apic_paddr); /* once */
void apic_send(uint32_t apic_id, unsigned vector);
void apic_send_init(uint32_t apic_id);
void apic_send_startup(uint32_t apic_id, unsigned page);
void apic_end_of_interrupt(void);
uint32_t apic_id(void);

/* Brings up every CPU of the list but this one; those that do not answer within a second are left out, with a line. */
void smp_init(const struct acpi_info *info);
/* Runs work(ctx) on CPU n, which has none and is not this one, on its own stack, interrupts on.  Returns at once. */
void smp_run(unsigned n, void (*work)(void *ctx), void *ctx);
/* Until it has ended.  Serves flushes meanwhile. */
void smp_wait(unsigned n);

/*
 * No CPU holds a translation of [start, start + size) when it returns; tables: nor an inner entry.  Interrupts may be
 * off here, and are off on the other side at worst for a moment: who waits serves the others' requests.  Not from an
 * interrupt.  How many interrupts it has sent: none where the other CPU had one coming.
 */
unsigned smp_flush(uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);
/* On this CPU only. */
void smp_flush_here(uintptr_t start, uint64_t size_bytes);
/* From the interrupt, and by whoever waits with interrupts off for something that another CPU's flush may delay. */
void smp_serve_flush(void);
/* For tests: where it answers true, smp_flush() leaves the other CPUs alone.  NULL, as it should be: it never does. */
extern bool (*volatile smp_flush_sabotage)(uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);

/* ---- clock.c: before and while the other processors start; one CPU only ------------------------------------------ */

uint64_t clock_ticks(uint64_t microseconds); /* of cpu_ticks() (cpu.h): at least so many                     */
void clock_wait(uint64_t microseconds);

/* ---- heap.c ------------------------------------------------------------------------------------------------------ */

/* Control memory and what tests allocate: one range of RAM, first fit, a lock.  64-byte alignment, zeroed. */
void heap_init(uint64_t paddr, uint64_t size_bytes);
void *heap_alloc(size_t size_bytes); /* NULL: none */
void heap_free(void *memory);
uint64_t heap_used(void);

/* ---- machine.c, ram.c: the map's machine ------------------------------------------------------------------------- */

/*
 * Frames of a machine are numbered from first_paddr: pfn 0 stands there (struct mf_paging, frame0), so that tests have
 * a range without holes, and the kernel itself describes memory from address 0.
 */
struct x86_machine_config {
	uint64_t first_paddr;          /* a multiple of 1 GiB                                                  */
	uint64_t ram_start, ram_end;   /* physical, from first_paddr on, BOOT_RAM: frames for ram_get only      */
	bool poison_ram;               /* ram_get and ram_put fill frames with 0xA5                             */
};

struct x86_machine_stats {
	uint64_t nr_ram_used;          /* frames that are out                                                  */
	uint64_t nr_meta_used;         /* pieces of control memory that are out                                */
	uint64_t nr_flushes, nr_flushed_bytes;
};

/*
 * Any number at a time, at most X86_NR_WINDOWS windows among them.  0, -MF_EINVAL (also: RAM of another machine),
 * -MF_ENOMEM.  destroy: windows and RAM that are still out are nobody's afterwards, control memory is leaked.
 */
MF_MUST_CHECK int x86_machine_create(const struct x86_machine_config *config, struct mf_machine **out);
/* Needs: no map uses it. */
void x86_machine_destroy(struct mf_machine *m);
void x86_machine_stats(struct mf_machine *m, struct x86_machine_stats *stats);
/* The n-th call from now fails, once: of ram_get, or of ram_get, meta_alloc and window_reserve together; 0: none. */
void x86_machine_fail_ram(struct mf_machine *m, uint64_t n);
void x86_machine_fail_any(struct mf_machine *m, uint64_t n);

/* ---- Who the image is: one main() for each ELF ------------------------------------------------------------------- */

/* On the first CPU, everything up, interrupts on.  The exit code, given to x86_exit(). */
int x86_main(void);

#endif
#endif
