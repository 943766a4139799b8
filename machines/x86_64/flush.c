/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flush.c - translations dropped on all CPUs.
 *
 * Owns one request per CPU (what it wants dropped, and how many have not done so yet) and one word per CPU (whose
 * requests it has not served yet, a bit for each).
 *
 *   who asks (CPU i)                             who is asked (CPU j)
 *   changes tables
 *   request[i] = range, nr_waiting = others
 *   asked[j] |= bit i; was 0: interrupt     ---> interrupt, or any CPU that waits:
 *   drops the range itself                       bits = asked[j], asked[j] = 0
 *   waits for nr_waiting == 0, serving others    drops request[i]'s range; request[i].nr_waiting--
 *
 * Order.  The bit is set by a locked instruction, which releases everything before it: the change of the tables and
 * the request; the exchange that takes the bit acquires them.  So the translation is dropped after the change is
 * visible, and what is loaded again is the new one.  The decrement releases and the last look acquires: whatever CPU j
 * read through the old translation, it read before the caller goes on and gives the frame to somebody else.
 *
 * No interrupt is sent where asked[j] was not 0: who made it so sends one, or has; it is taken back to 0 before any
 * request behind it is served, so a request either finds 0 and sends, or is among those that are taken then.
 *
 * Why it cannot deadlock.  Nothing is held while waiting: no lock, and the request belongs to the CPU that waits, so
 * that all may ask at once.  What CPU i waits for is that each CPU j looks at asked[j].  j runs with interrupts on: it
 * does at once.  j waits here itself, or in smp_wait() or another loop that serves: it does, whatever its interrupts.
 * Otherwise j has interrupts off for a section without such waits, which ends.  So whoever spins with interrupts off
 * for something that a flush may delay must call smp_serve_flush(), as mf_machine_ops.relax does.  Serving waits for
 * nobody.
 */
#include "machines/x86_64/x86_64.h"

#include "machines/x86_64/cpu.h"

/* More pages than this: everything.  A guess at what refilling costs; no law depends on it. */
enum { FLUSH_PAGES_MAX = 32 };

/* Written by its CPU before the bits are set, constant while one is. */
struct request {
	_Alignas(64) uintptr_t start;
	uint64_t size_bytes;
	unsigned nr_waiting; /* atomic */
};

struct asked {
	_Alignas(64) uint64_t by; /* atomic; bit i: CPU i's request is not served yet */
};

MF_BUILD_ASSERT(X86_CPUS_MAX <= 64, "a bit for each CPU that asks");

static struct request requests[X86_CPUS_MAX];
static struct asked asked[X86_CPUS_MAX];

bool (*volatile smp_flush_sabotage)(uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope);

/* Global translations too.  An interrupt between the two writes does no harm: what it loads is dropped as well. */
static void drop_all(void)
{
	uint64_t cr4 = cpu_cr4();

	if (cr4 & CPU_CR4_PGE) {
		cpu_cr4_set(cr4 & ~CPU_CR4_PGE);
		cpu_cr4_set(cr4);
	} else {
		cpu_cr3_set(cpu_cr3());
	}
}

/*
 * INVLPG, also on a page in the middle of a large leaf, drops all of the leaf's translation, and with it every inner
 * entry that this CPU has cached for any address: nothing more is due when a table goes.  There is one address space
 * (no PCID).
 */
void smp_flush_here(uintptr_t start, uint64_t size_bytes)
{
	uintptr_t page = mf_round_down(start, X86_PAGE);
	uint64_t nr_pages;

	if (size_bytes > FLUSH_PAGES_MAX * X86_PAGE) {
		drop_all();
		return;
	}
	nr_pages = (mf_round_up(start - page + size_bytes, X86_PAGE)) >> X86_PAGE_SHIFT;
	if (nr_pages > FLUSH_PAGES_MAX) {
		drop_all();
		return;
	}
	for (uint64_t i = 0; i < nr_pages; i++)
		cpu_invalidate(page + (i << X86_PAGE_SHIFT));
}

/* May be interrupted by itself: each takes bits of its own. */
void smp_serve_flush(void)
{
	struct x86_cpu *cpu = x86_this_cpu();
	uint64_t by;

	if (__atomic_load_n(&asked[cpu->number].by, __ATOMIC_RELAXED) == 0)
		return;
	for (by = __atomic_exchange_n(&asked[cpu->number].by, 0, __ATOMIC_ACQUIRE); by != 0; by &= by - 1) {
		struct request *request = &requests[mf_ctz(by)];

		smp_flush_here(request->start, request->size_bytes);
		(void)__atomic_fetch_add(&cpu->nr_ipis_served, 1, __ATOMIC_RELAXED);
		(void)__atomic_fetch_sub(&request->nr_waiting, 1, __ATOMIC_RELEASE);
	}
}

/* How many interrupts it took. */
static unsigned ask_others(struct x86_cpu *cpu, unsigned nr_cpus)
{
	uint64_t bit = (uint64_t)1 << cpu->number;
	unsigned nr_sent = 0;

	for (unsigned n = 0; n < nr_cpus; n++) {
		if (n == cpu->number || __atomic_fetch_or(&asked[n].by, bit, __ATOMIC_RELEASE) != 0)
			continue;
		apic_send(x86_cpus[n].apic_id, X86_VECTOR_FLUSH);
		nr_sent++;
	}
	cpu->nr_ipis_sent += nr_sent;
	return nr_sent;
}

unsigned smp_flush(uintptr_t start, uint64_t size_bytes, enum mf_flush_scope scope)
{
	struct x86_cpu *cpu = x86_this_cpu();
	struct request *request = &requests[cpu->number];
	unsigned nr_cpus = __atomic_load_n(&x86_nr_cpus, __ATOMIC_ACQUIRE), nr_sent = 0;
	bool (*leaves_out)(uintptr_t, uint64_t, enum mf_flush_scope) = smp_flush_sabotage;

	if (leaves_out && leaves_out(start, size_bytes, scope))
		nr_cpus = 1;
	MF_ASSERT(__atomic_load_n(&request->nr_waiting, __ATOMIC_RELAXED) == 0);
	cpu->nr_flushes++;
	request->start = start;
	request->size_bytes = size_bytes;
	__atomic_store_n(&request->nr_waiting, nr_cpus - 1, __ATOMIC_RELAXED);
	if (nr_cpus > 1)
		nr_sent = ask_others(cpu, nr_cpus);
	smp_flush_here(start, size_bytes);
	while (__atomic_load_n(&request->nr_waiting, __ATOMIC_ACQUIRE) != 0) {
		smp_serve_flush();
		cpu_pause();
	}
	return nr_sent;
}
