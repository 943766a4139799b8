/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host_thread.c - threads as CPUs: which index a thread has with which machine.
 *
 * Owns a list of registrations per thread, in thread-local storage.  Keeps: an index belongs to one live thread at a
 * time.  A registration names its machine by id, never by address, so that one which outlives its machine is harmless;
 * it is dropped at the thread's next registration or end.
 */
#include "machines/linux/host.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

/* Spins between two yields: long enough for a holder that runs, short for one that was preempted. */
enum { SPINS_PER_YIELD = 32 };

struct registration {
	struct registration *next;
	uint64_t machine_id;
	unsigned index;
};

struct thread {
	struct registration *registrations;
	uint64_t last_id; /* the machine that cpu() was asked for last (0: none), and the answer */
	unsigned last_index;
	unsigned spins;
};

/* initial-exec: cpu() is on every path of the map, and in a shared library this saves it a call. */
static _Thread_local struct thread self __attribute__((tls_model("initial-exec")));
static pthread_key_t exit_key; /* its value is not used; its destructor ends forgotten registrations */

static void index_free_locked(struct linux_machine *machine, unsigned index)
{
	machine->threads[index / 64] &= ~((uint64_t)1 << (index % 64));
}

static bool index_take_locked(struct linux_machine *machine, unsigned *index)
{
	for (unsigned i = 0; i < machine->machine.nr_cpus; i++) {
		uint64_t bit = (uint64_t)1 << (i % 64);

		if ((machine->threads[i / 64] & bit) == 0) {
			machine->threads[i / 64] |= bit;
			*index = i;
			return true;
		}
	}
	return false;
}

static struct registration **registration_find(uint64_t machine_id)
{
	struct registration **at = &self.registrations;

	while (*at && (*at)->machine_id != machine_id)
		at = &(*at)->next;
	return at;
}

static void registration_drop(struct registration **at)
{
	struct registration *dead = *at;

	if (self.last_id == dead->machine_id)
		self.last_id = 0;
	*at = dead->next;
	free(dead);
}

static void registrations_prune_locked(void)
{
	struct registration **at = &self.registrations;

	while (*at) {
		if (linux_find_locked((*at)->machine_id))
			at = &(*at)->next;
		else
			registration_drop(at);
	}
}

static void thread_exit(void *unused)
{
	(void)unused;
	linux_lock();
	while (self.registrations) {
		struct linux_machine *machine = linux_find_locked(self.registrations->machine_id);

		if (machine)
			index_free_locked(machine, self.registrations->index);
		registration_drop(&self.registrations);
	}
	linux_unlock();
}

int linux_thread_key_create(void)
{
	return pthread_key_create(&exit_key, thread_exit) == 0 ? 0 : -MF_ENOMEM;
}

int mf_linux_thread_register(struct mf_machine *m)
{
	struct linux_machine *machine = linux_machine_checked(m);
	struct registration *fresh;
	bool found;

	if (!linux_may_use(m))
		return -MF_EPERM;
	if (*registration_find(machine->id))
		return -MF_EEXIST;
	fresh = malloc(sizeof(*fresh));
	if (!fresh || pthread_setspecific(exit_key, &self) != 0) {
		free(fresh);
		return -MF_ENOMEM;
	}
	linux_lock();
	registrations_prune_locked();
	found = index_take_locked(machine, &fresh->index);
	linux_unlock();
	if (!found) {
		free(fresh);
		return -MF_E2BIG;
	}
	fresh->machine_id = machine->id;
	fresh->next = self.registrations;
	self.registrations = fresh;
	return 0;
}

int mf_linux_thread_unregister(struct mf_machine *m)
{
	struct linux_machine *machine = linux_machine_checked(m);
	struct registration **at = registration_find(machine->id);

	if (!linux_may_use(m))
		return -MF_EPERM;
	if (!*at)
		return -MF_ENOENT;
	linux_lock();
	index_free_locked(machine, (*at)->index);
	linux_unlock();
	registration_drop(at);
	return 0;
}

void linux_thread_forget(uint64_t id)
{
	struct registration **at = registration_find(id);

	if (*at)
		registration_drop(at);
}

unsigned linux_cpu(struct mf_machine *m)
{
	uint64_t id = linux_machine_of(m)->id;

	if (MF_UNLIKELY(self.last_id != id)) {
		const struct registration *found = *registration_find(id);

		MF_PANIC_IF(!found, "memfold: this thread is not registered with the machine: "
				    "it calls mf_linux_thread_register() before it uses a map.");
		self.last_id = id;
		self.last_index = found->index;
	}
	return self.last_index;
}

void linux_relax(struct mf_machine *m)
{
	(void)m;
	if (++self.spins % SPINS_PER_YIELD == 0) {
		sched_yield();
		return;
	}
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}
