/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * smp.c - the other processors: brought up, given work.
 *
 * Owns the records of all CPUs and how many there are.  Law: CPUs 0 .. x86_nr_cpus - 1 have come up, and each takes
 * part in flushes (flush.c) from the moment it is counted; what translations it had before, it has dropped when it
 * begins.
 *
 *   first                                       n-th
 *   trampoline filled, INIT, STARTUP, STARTUP
 *                                               trampoline.S, segments, tables, APIC; is_ready
 *   x86_nr_cpus = n + 1                         (waits)
 *                                               drops all translations; sleeps, runs what it is asked to
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/cpu.h"
#include "machines/x86_64/trampoline.h"

enum {
	INIT_MICROSECONDS = 10000,
	STARTUP_MICROSECONDS = 200,
	ANSWER_MICROSECONDS = 1000000,
};

struct x86_cpu x86_cpus[X86_CPUS_MAX] = {{.self = &x86_cpus[0]}};
unsigned x86_nr_cpus = 1;

static uint64_t ready; /* atomic; 1 + APIC of the last one that came up, which may not be counted yet */

/* ---- On the new processor -------------------------------------------------------------------------------------- */

/*
 * Interrupts are off from the look at `call` to the hlt, so that the interrupt that tells of new work ends the sleep
 * even if it comes between the two.
 */
static MF_NORETURN void idle(struct x86_cpu *cpu)
{
	void (*work)(void *ctx);

	for (;;) {
		(void)cpu_interrupts_off();
		work = __atomic_load_n(&cpu->call, __ATOMIC_ACQUIRE);
		if (!work) {
			cpu_sleep();
			continue;
		}
		cpu_interrupts_on();
		work(cpu->call_ctx);
		__atomic_store_n(&cpu->call, NULL, __ATOMIC_RELEASE);
	}
}

static MF_NORETURN void begin(unsigned number)
{
	struct x86_cpu *cpu = &x86_cpus[number];

	gdt_init_cpu(number);
	paging_enter_cpu();
	apic_init_cpu();
	cpu->apic_id = apic_id();
	__atomic_store_n(&ready, 1 + (uint64_t)cpu->apic_id, __ATOMIC_RELEASE);
	while (__atomic_load_n(&x86_nr_cpus, __ATOMIC_ACQUIRE) <= number)
		cpu_pause();
	smp_flush_here(0, UINT64_MAX);
	idle(cpu);
}

/* ---- On the first ---------------------------------------------------------------------------------------------- */

static struct trampoline *trampoline_data(void)
{
	return x86_direct(X86_TRAMPOLINE + TRAMPOLINE_DATA);
}

static void fill_trampoline(void)
{
	size_t size = (size_t)(trampoline_end - trampoline_start);

	MF_PANIC_IF(size > TRAMPOLINE_DATA, "memfold: x86_64: the trampoline has %zu bytes, more than a page.", size);
	MF_PANIC_IF(paging_root() > UINT32_MAX,
		    "memfold: x86_64: the top table is at 0x%llx, beyond a new processor's reach.",
		    (unsigned long long)paging_root());
	__builtin_memcpy(x86_direct(X86_TRAMPOLINE), trampoline_start, size);
	*trampoline_data() = (struct trampoline){
		.cr0 = (uint32_t)cpu_cr0(),
		.cr3 = (uint32_t)paging_root(),
		.cr4 = (uint32_t)(cpu_cr4() & ~CPU_CR4_PCIDE), /* not before long mode */
		.efer = (uint32_t)(cpu_msr(CPU_MSR_EFER) & ~CPU_EFER_LMA),
		.entry = begin,
	};
}

static bool is_ready_within(uint32_t id, uint64_t microseconds)
{
	uint64_t ticks = clock_ticks(microseconds), start = cpu_ticks();

	while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != 1 + (uint64_t)id) {
		if (cpu_ticks() - start > ticks)
			return false;
		cpu_pause();
	}
	return true;
}

/*
 * Whether the processor answered.  The second start-up interrupt is for one that missed the first; others ignore it.
 * One that is late is put back to sleep by INIT: it may not run when its trampoline is another's, or gone.
 */
static bool start(unsigned number, uint32_t id)
{
	struct x86_cpu *cpu = &x86_cpus[number];

	*cpu = (struct x86_cpu){.self = cpu, .number = number, .apic_id = id, .stack_top = paging_map_stack(number)};
	trampoline_data()->stack_top = cpu->stack_top;
	trampoline_data()->cpu = number;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	apic_send_init(id);
	clock_wait(INIT_MICROSECONDS);
	apic_send_startup(id, X86_TRAMPOLINE >> X86_PAGE_SHIFT);
	if (is_ready_within(id, STARTUP_MICROSECONDS))
		return true;
	apic_send_startup(id, X86_TRAMPOLINE >> X86_PAGE_SHIFT);
	if (is_ready_within(id, ANSWER_MICROSECONDS))
		return true;
	apic_send_init(id);
	clock_wait(INIT_MICROSECONDS);
	return false;
}

void smp_init(const struct acpi_info *info)
{
	uint32_t own = apic_id();

	x86_cpus[0].apic_id = own;
	for (unsigned i = 0; i < info->nr_cpus; i++) {
		unsigned number = x86_nr_cpus;

		if (info->apic_id[i] == own || number == X86_CPUS_MAX)
			continue;
		if (number == 1)
			fill_trampoline();
		if (start(number, info->apic_id[i]))
			__atomic_store_n(&x86_nr_cpus, number + 1, __ATOMIC_RELEASE);
		else
			console_print("memfold: x86_64: the processor with APIC %u does not answer: it is left out.\n",
				      info->apic_id[i]);
	}
}

/* ---- Work ------------------------------------------------------------------------------------------------------ */

void smp_run(unsigned n, void (*work)(void *ctx), void *ctx)
{
	struct x86_cpu *cpu = &x86_cpus[n];

	MF_PANIC_IF(n >= x86_nr_cpus || cpu == x86_this_cpu(),
		    "memfold: x86_64: CPU %u cannot be given work by CPU %u.", n, x86_this_cpu()->number);
	MF_PANIC_IF(__atomic_load_n(&cpu->call, __ATOMIC_ACQUIRE), "memfold: x86_64: CPU %u has work already.", n);
	cpu->call_ctx = ctx;
	__atomic_store_n(&cpu->call, work, __ATOMIC_RELEASE);
	apic_send(cpu->apic_id, X86_VECTOR_CALL);
}

void smp_wait(unsigned n)
{
	while (__atomic_load_n(&x86_cpus[n].call, __ATOMIC_ACQUIRE)) {
		smp_serve_flush();
		cpu_pause();
	}
}
