/* SPDX-License-Identifier: BSD-2-Clause */
/* slow_hosted.c - the machines of a process behind the slow one: linux and the sim. */
#include "tests/lib/slow_kind.h"

#include <memfold/linux.h>
#include <memfold/sim.h>

static _Thread_local struct slow_thread self;

struct slow_thread *slow_thread(void)
{
	return &self;
}

static int create_linux(struct slow_machine *slow)
{
	const struct mf_linux_config config = { .max_threads = SLOW_CPUS };

	return mf_linux_create(&config, &slow->inner);
}

static int create_sim(struct slow_machine *slow, uint64_t nr_frames)
{
	const struct mf_sim_config config = {
		.paging = mf_paging_x86_64(4),
		.nr_frames = nr_frames,
		.nr_ram_frames = nr_frames / 16 + 4096,
		.flags = MF_SIM_POISON_RAM | MF_SIM_CHECK_REUSE,
		.nr_cpus = SLOW_CPUS,
	};

	mf_sim_cpu_set(0);
	return mf_sim_create(&config, &slow->inner);
}

int slow_kind_create(struct slow_machine *slow, uint64_t nr_frames)
{
	return slow->kind == SLOW_TABLES ? create_sim(slow, nr_frames) : create_linux(slow);
}

/* Before a lock is taken and after it was given up: where another may come in between. */
static void slow_pin(struct mf_machine *m)
{
	slow_dawdle(m);
}

void slow_kind_change_ops(struct slow_machine *slow)
{
	if (slow->kind == SLOW_PINNED) {
		slow->ops.pin_cpu = slow_pin;
		slow->ops.unpin_cpu = slow_pin;
	}
}

void slow_kind_destroy(struct slow_machine *slow)
{
	if (slow->kind == SLOW_TABLES)
		mf_sim_destroy(slow->inner);
	else
		mf_linux_destroy(slow->inner);
}

bool slow_kind_register(struct slow_machine *slow, unsigned number)
{
	if (slow->kind != SLOW_TABLES)
		return mf_linux_thread_register(slow->inner) == 0;
	mf_sim_cpu_set(number);
	return true;
}

void slow_machine_fail_any(struct slow_machine *slow, uint64_t n)
{
	mf_sim_fail_any(slow->inner, n);
}
