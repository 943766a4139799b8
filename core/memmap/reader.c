/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reader.c - reader sections and quiesce: epochs per CPU.
 *
 * A reader may have loaded a count of 1 and be about to compare-and-swap on a slot that turns read-only.  So a folder,
 * after it has made the counts 0 and the parent whole, waits for every section that began before.
 *
 *   reader                                   folder
 *     slot.epoch = map.epoch                   parent whole, counts 0
 *     fence  ------------------------------->  fence
 *     load words and counts, compare-and-swap  e = ++map.epoch
 *     slot.epoch = 0 (release)                 for each slot: wait while 0 < slot.epoch < e (acquire)
 *
 * The two fences order store-then-load on both sides: either the folder sees the reader's epoch and waits, or the
 * reader sees the whole parent.  A section that begins during the wait has the new epoch and is not waited for.
 */
#include "core/memmap/map.h"

void mf_reader_enter(struct mf_map *map)
{
	struct mf_machine *m = map->machine;
	struct map_reader *reader;

	if (m->ops->pin_cpu)
		m->ops->pin_cpu(m);
	reader = &map->reader[m->ops->cpu(m)];
	if (reader->depth++ != 0)
		return;
	__atomic_store_n(&reader->epoch, __atomic_load_n(&map->epoch, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void mf_reader_exit(struct mf_map *map)
{
	struct mf_machine *m = map->machine;
	struct map_reader *reader = &map->reader[m->ops->cpu(m)];

	MF_PANIC_IF(reader->depth == 0, "memfold: a reader section ends that was never entered on this CPU.");
	if (--reader->depth == 0)
		__atomic_store_n(&reader->epoch, 0, __ATOMIC_RELEASE);
	if (m->ops->unpin_cpu)
		m->ops->unpin_cpu(m);
}

void reader_none_open(struct mf_map *map)
{
	struct mf_machine *m = map->machine;
	unsigned depth;

	if (m->ops->pin_cpu)
		m->ops->pin_cpu(m);
	depth = map->reader[m->ops->cpu(m)].depth;
	if (m->ops->unpin_cpu)
		m->ops->unpin_cpu(m);
	MF_PANIC_IF(depth != 0, "memfold: a call that may wait for readers is made inside a reader section.");
}

void mf_quiesce(struct mf_map *map)
{
	struct mf_machine *m = map->machine;
	uint64_t now;

	reader_none_open(map);
	map_may_wait(map);
	map_count(&map->quiesces, 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	now = __atomic_add_fetch(&map->epoch, 1, __ATOMIC_SEQ_CST);
	for (unsigned cpu = 0; cpu < m->nr_cpus; cpu++) {
		struct map_reader *reader = &map->reader[cpu];

		for (;;) {
			uint64_t epoch = __atomic_load_n(&reader->epoch, __ATOMIC_ACQUIRE);

			if (epoch == 0 || epoch >= now)
				break;
			m->ops->relax(m);
		}
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
