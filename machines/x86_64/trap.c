/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trap.c - exceptions and interrupts: served, expected, or the end of the machine.
 *
 * Owns the IDT.  Laws: a fault that somebody expects ends in x86_expect_fault() on the same CPU, unless it came from
 * inside an interrupt, whose fault nobody could have meant; every other exception is reported once, in full, by the
 * first CPU that has one, and ends the machine with exit code 1.  Repairs nothing.
 *
 * The report asks the map about the address.  The CPU may hold a lock of the map, and the map may be broken: so it is
 * asked step by step (the trap flag) on a counted number of instructions, and a fault there only ends the asking.
 */
#include "machines/x86_64/trap.h"

#include "machines/x86_64/cpu.h"

enum { STEPS_MAX = 200000, TEXT_MAX = 480 };

#define GATE_INTERRUPT 0x8e00 /* present, interrupts off inside */
#define RFLAGS_TRAP "0x100"

struct gate {
	uint16_t offset_low, selector, attributes, offset_middle;
	uint32_t offset_high, reserved;
};
MF_BUILD_ASSERT(sizeof(struct gate) == 16, "the processor's gate");

/* Each CPU's own. */
struct trap_state {
	unsigned nr_interrupts; /* being served, nested   */
	unsigned steps_left;    /* of asking the map      */
	bool is_reporting;
};

extern char trap_entries[];

static struct gate idt[TRAP_NR_VECTORS];
static struct trap_state states[X86_CPUS_MAX];
static unsigned nr_reports; /* atomic */

/* ---- The IDT ----------------------------------------------------------------------------------------------------- */

static unsigned stack_of(unsigned vector)
{
	switch (vector) {
	case TRAP_DOUBLE_FAULT:
		return TRAP_STACK_DOUBLE_FAULT;
	case TRAP_PAGE_FAULT:
		return TRAP_STACK_PAGE_FAULT;
	case TRAP_NMI:
		return TRAP_STACK_NMI;
	case TRAP_MACHINE_CHECK:
		return TRAP_STACK_MACHINE_CHECK;
	default:
		return 0;
	}
}

void trap_init(void)
{
	for (unsigned vector = 0; vector < TRAP_NR_VECTORS; vector++) {
		uintptr_t entry = (uintptr_t)trap_entries + (uintptr_t)vector * TRAP_ENTRY_BYTES;

		idt[vector] = (struct gate){
			.offset_low = (uint16_t)entry,
			.selector = X86_CODE_SELECTOR,
			.attributes = (uint16_t)(GATE_INTERRUPT | stack_of(vector)),
			.offset_middle = (uint16_t)(entry >> 16),
			.offset_high = (uint32_t)(entry >> 32),
		};
	}
}

void trap_load(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} pointer = {sizeof(idt) - 1, (uintptr_t)idt};

	__asm__ volatile("lidt %0" : : "m"(pointer) : "memory");
}

/* ---- Expected faults --------------------------------------------------------------------------------------------- */

/* Not inlined: what is jumped to must be a frame of its own. */
__attribute__((noinline)) bool x86_expect_fault(void (*work)(void *ctx), void *ctx, struct x86_fault *fault)
{
	struct x86_cpu *volatile cpu = x86_this_cpu();
	volatile uint64_t flags = cpu_flags();
	volatile bool has_faulted = true;

	MF_PANIC_IF(cpu->expected, "memfold: x86_64: a fault is expected on CPU %u already.", cpu->number);
	cpu->expected = fault;
	if (__builtin_setjmp(cpu->expected_jump) == 0) {
		work(ctx);
		has_faulted = false;
	}
	cpu->expected = NULL;
	cpu_interrupts_restore(flags);
	return has_faulted;
}

/* Leaves the stack of the fault behind: no return from it is due, the next one finds it empty. */
static MF_NORETURN void end_expectation(struct x86_cpu *cpu, const struct x86_fault *fault)
{
	*cpu->expected = *fault;
	__builtin_longjmp(cpu->expected_jump, 1);
}

/* ---- The report -------------------------------------------------------------------------------------------------- */

static const char *const exception_name[TRAP_FIRST_INTERRUPT] = {
	"divide error", "debug", "non-maskable interrupt", "breakpoint", "overflow", "bound exceeded",
	"invalid opcode", "device not available", "double fault", "coprocessor overrun", "invalid TSS",
	"segment not present", "stack fault", "general protection", "page fault", "reserved", "x87 error",
	"alignment check", "machine check", "SIMD error", "virtualization", "control protection", "reserved",
	"reserved", "reserved", "reserved", "reserved", "reserved", "hypervisor injection", "VMM communication",
	"security", "reserved",
};

struct description {
	struct x86_fault fault;
	enum describe_detail detail;
	char text[TEXT_MAX];
};

/* Each instruction from here on is a step. */
static void describe_in_steps(void *ctx)
{
	struct description *d = ctx;

	__asm__ volatile("pushfq; orq $" RFLAGS_TRAP ", (%%rsp); popfq" : : : "memory", "cc");
	describe_fault(&d->fault, d->detail, d->text, sizeof(d->text));
	__asm__ volatile("pushfq; andq $~" RFLAGS_TRAP ", (%%rsp); popfq" : : : "memory", "cc");
}

/* With as much of the map's help as it gives. */
static void describe(struct description *d)
{
	struct trap_state *state = &states[d->fault.cpu];
	struct x86_fault inner;

	gdt_keep_fault_stack();
	x86_this_cpu()->expected = NULL;
	state->nr_interrupts = 0;
	for (d->detail = DESCRIBE_REGION;; d->detail--) {
		state->steps_left = STEPS_MAX;
		if (!x86_expect_fault(describe_in_steps, d, &inner))
			break;
		(void)mf_format(d->text, sizeof(d->text), "the tables cannot be read");
		if (d->detail == DESCRIBE_NOTHING)
			break;
	}
	state->steps_left = 0;
}

static void print_registers(const struct x86_frame *f, uint64_t address)
{
	static const char line[] = "  %s %016llx  %s %016llx  %s %016llx  %s %016llx\n";

#define REGISTER(name) #name, (unsigned long long)f->name
	console_print(line, REGISTER(rax), REGISTER(rbx), REGISTER(rcx), REGISTER(rdx));
	console_print(line, REGISTER(rsi), REGISTER(rdi), REGISTER(rbp), REGISTER(rsp));
	console_print(line, " r8", (unsigned long long)f->r8, " r9", (unsigned long long)f->r9, REGISTER(r10),
		      REGISTER(r11));
	console_print(line, REGISTER(r12), REGISTER(r13), REGISTER(r14), REGISTER(r15));
	console_print(line, REGISTER(rip), "flg", (unsigned long long)f->rflags, "cr2", (unsigned long long)address,
		      "cr3", (unsigned long long)cpu_cr3());
#undef REGISTER
}

/* Other CPUs that have something to report, too, wait for the end. */
static MF_NORETURN void report(const struct x86_frame *frame, const struct x86_fault *fault)
{
	struct trap_state *state = &states[fault->cpu];
	struct description description = {.fault = *fault};

	if (state->is_reporting) {
		console_print("memfold: exception %u at 0x%llx (address 0x%llx) while CPU %u was reporting.\n",
			      fault->vector, (unsigned long long)fault->rip, (unsigned long long)fault->address,
			      fault->cpu);
		x86_exit(1);
	}
	if (__atomic_fetch_add(&nr_reports, 1, __ATOMIC_ACQ_REL) > 0)
		for (;;)
			__asm__ volatile("cli; hlt");
	state->is_reporting = true;
	console_print("memfold: unexpected %s %u (%s, error 0x%llx) at 0x%llx on CPU %u.\n",
		      fault->vector < TRAP_FIRST_INTERRUPT ? "exception" : "interrupt", fault->vector,
		      fault->vector < TRAP_FIRST_INTERRUPT ? exception_name[fault->vector] : "nobody's",
		      (unsigned long long)fault->error, (unsigned long long)fault->rip, fault->cpu);
	print_registers(frame, fault->address);
	if (fault->vector == TRAP_PAGE_FAULT || fault->vector == TRAP_DOUBLE_FAULT) {
		describe(&description);
		console_print("  %s%s\n", description.text, description.detail == DESCRIBE_REGION ? "" :
			      " (the map was asked for more and did not answer)");
	}
	x86_exit(1);
}

/* ---- The way in -------------------------------------------------------------------------------------------------- */

static struct x86_fault fault_of(const struct x86_frame *frame)
{
	struct x86_fault fault = {
		.vector = (unsigned)frame->vector,
		.cpu = x86_this_cpu()->number,
		.error = frame->error,
		.rip = frame->rip,
	};

	if (fault.vector == TRAP_PAGE_FAULT || fault.vector == TRAP_DOUBLE_FAULT)
		__asm__ volatile("movq %%cr2, %0" : "=r"(fault.address));
	return fault;
}

static void exception(const struct x86_frame *frame)
{
	struct x86_fault fault = fault_of(frame);
	struct x86_cpu *cpu = x86_this_cpu();
	struct trap_state *state = &states[fault.cpu];
	bool is_step = fault.vector == TRAP_DEBUG && state->steps_left > 0;

	if (is_step && --state->steps_left > 0)
		return;
	if (cpu->expected && state->nr_interrupts == 0 &&
	    (is_step || fault.vector == TRAP_PAGE_FAULT || fault.vector == TRAP_PROTECTION))
		end_expectation(cpu, &fault);
	report(frame, &fault);
}

static void interrupt(const struct x86_frame *frame)
{
	struct trap_state *state = &states[x86_this_cpu()->number];
	struct x86_fault fault;

	state->nr_interrupts++;
	switch (frame->vector) {
	case X86_VECTOR_FLUSH:
		smp_serve_flush();
		apic_end_of_interrupt();
		break;
	case X86_VECTOR_CALL: /* it has woken the CPU, which looks for itself */
		apic_end_of_interrupt();
		break;
	case X86_VECTOR_SPURIOUS: /* asks for no end */
		break;
	default:
		fault = fault_of(frame);
		report(frame, &fault);
	}
	state->nr_interrupts--;
}

void trap_handle(struct x86_frame *frame)
{
	if (frame->vector < TRAP_FIRST_INTERRUPT)
		exception(frame);
	else
		interrupt(frame);
}
