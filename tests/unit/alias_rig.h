/* SPDX-License-Identifier: BSD-2-Clause */
/* alias_rig.h - a window of the linux machine in which tests let slots share memory; what slots show and cost. */
#ifndef MEMFOLD_TESTS_ALIAS_RIG_H
#define MEMFOLD_TESTS_ALIAS_RIG_H

#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>

#include <memfold/linux.h>

#include "tests/tap.h"

#if defined(__has_feature)
#define IS_THREAD_SANITIZER __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define IS_THREAD_SANITIZER 1
#else
#define IS_THREAD_SANITIZER 0
#endif

enum { PAGE = 4096, NR_SLOTS = 64 };

struct rig {
	struct mf_machine *machine;
	const struct mf_machine_ops *ops;
	char *base;
	uint64_t slot_bytes, window_bytes;
};

static inline bool rig_open_with(struct rig *r, unsigned flags, unsigned page_shift)
{
	struct mf_linux_config config = {.flags = flags, .page_shift = page_shift};
	void *base;

	*r = (struct rig){.slot_bytes = (uint64_t)1 << page_shift};
	r->window_bytes = NR_SLOTS * r->slot_bytes;
	if (mf_linux_create(&config, &r->machine) != 0)
		return false;
	r->ops = r->machine->ops;
	if (r->ops->window_reserve(r->machine, r->window_bytes, r->slot_bytes, &base) != 0)
		return false;
	r->base = base;
	return true;
}

static inline bool rig_open(struct rig *r)
{
	return rig_open_with(r, 0, 12);
}

static inline void rig_close(struct rig *r)
{
	r->ops->window_release(r->machine, r->base, r->window_bytes);
	mf_linux_destroy(r->machine);
}

static inline char *at(const struct rig *r, uint64_t slot)
{
	return r->base + slot * r->slot_bytes;
}

static inline int share(const struct rig *r, uint64_t slot, uint64_t nr)
{
	return r->ops->host_share(r->machine, at(r, slot), nr * r->slot_bytes);
}

static inline int alias(const struct rig *r, uint64_t slot, uint64_t nr, uint64_t target)
{
	return r->ops->host_alias(r->machine, at(r, slot), nr * r->slot_bytes, at(r, target));
}

static inline int unalias(const struct rig *r, uint64_t slot, uint64_t nr)
{
	return r->ops->host_unalias(r->machine, at(r, slot), nr * r->slot_bytes);
}

static inline void discard(const struct rig *r, uint64_t slot, uint64_t nr)
{
	r->ops->host_discard(r->machine, at(r, slot), nr * r->slot_bytes);
}

/* Slots of shared memory. */
static inline uint64_t cost(const struct rig *r)
{
	uint64_t bytes = ~(uint64_t)0;

	return mf_linux_window_bytes(r->machine, &bytes) == 0 ? bytes / r->slot_bytes : bytes;
}

static inline void fill(const struct rig *r, uint64_t slot, uint64_t nr, uint64_t value)
{
	_Atomic uint64_t *word = (_Atomic uint64_t *)(void *)at(r, slot);

	for (uint64_t i = 0; i < nr * r->slot_bytes / sizeof(*word); i++)
		atomic_store_explicit(&word[i], value, memory_order_relaxed);
}

static inline bool shows(const struct rig *r, uint64_t slot, uint64_t nr, uint64_t value)
{
	const _Atomic uint64_t *word = (const _Atomic uint64_t *)(void *)at(r, slot);

	for (uint64_t i = 0; i < nr * r->slot_bytes / sizeof(*word); i++)
		if (atomic_load_explicit(&word[i], memory_order_relaxed) != value)
			return false;
	return true;
}

static sigjmp_buf faulted;

static inline void on_fault(int number)
{
	(void)number;
	siglongjmp(faulted, 1);
}

/* Writes what is there already, so that a write that goes through does no harm. */
static inline bool write_faults(const struct rig *r, uint64_t slot)
{
	struct sigaction action = {.sa_handler = on_fault}, before;
	volatile char *byte = at(r, slot) + r->slot_bytes - 1;
	volatile bool faults = true;

	sigaction(SIGSEGV, &action, &before);
	if (sigsetjmp(faulted, 1) == 0) {
		*byte = *byte;
		faults = false;
	}
	sigaction(SIGSEGV, &before, NULL);
	return faults;
}

/* Of the process, so with those that the thread sanitizer makes when it likes. */
static inline uint64_t mappings(void)
{
	uint64_t used = 0, limit;

	return mf_linux_mappings(&used, &limit) == 0 ? used : 0;
}

#endif
