/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * world_metal.c - the one machine of bare metal, "x86_64", as often as memory allows at a time.
 *
 *   physical   | pfn 0: frames that regions describe ... | RAM | - | the next world, from a whole GiB on ...
 *
 * Owns who has which part of the largest range of memory.  Needs: regions end below the RAM, which stands at
 * world_config.nr_real_frames.
 */
#include "tests/lib/world_machine.h"

#include "machines/x86_64/x86_64.h"
#include "tests/tap.h"

enum { PLACES_MAX = 4 };

/* machine NULL: no world. */
struct place {
	uint64_t start, end;
	struct mf_machine *machine;
};

static struct place places[PLACES_MAX];

const char *const world_machines[] = { "x86_64", NULL };

static bool is_taken(uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < PLACES_MAX; i++)
		if (places[i].machine && start < places[i].end && places[i].start < end)
			return true;
	return false;
}

static struct place largest_memory(void)
{
	struct place largest = { 0, 0, NULL };

	for (unsigned i = 0; i < boot_map.nr; i++) {
		const struct boot_range *range = &boot_map.range[i];
		uint64_t start = mf_round_up(range->start, MF_GIB);

		if (range->kind == BOOT_RAM && range->end > start && range->end - start > largest.end - largest.start)
			largest = (struct place){ start, range->end, NULL };
	}
	return largest;
}

/* The lowest place for so much; when there is none its end is 0. */
static struct place find_place(uint64_t size_bytes)
{
	struct place memory = largest_memory();

	for (uint64_t start = memory.start; start + size_bytes <= memory.end; start += MF_GIB)
		if (!is_taken(start, start + size_bytes))
			return (struct place){ start, start + size_bytes, NULL };
	return (struct place){ 0, 0, NULL };
}

static struct place *place_of(const struct mf_machine *machine)
{
	for (unsigned i = 0; i < PLACES_MAX; i++)
		if (places[i].machine == machine)
			return &places[i];
	mf_panic("tests: more worlds at a time than %u, or one that is not there.", (unsigned)PLACES_MAX);
}

int world_machine_create(struct world *w, const struct world_config *config)
{
	uint64_t nr_real = config->nr_real_frames ? config->nr_real_frames : config->nr_frames;
	uint64_t nr_ram = config->nr_ram_frames ? config->nr_ram_frames : world_plenty(nr_real);
	struct place found = find_place((nr_real + nr_ram) << X86_PAGE_SHIFT), *place = place_of(NULL);
	struct x86_machine_config machine = {
		.first_paddr = found.start,
		.ram_start = found.start + (nr_real << X86_PAGE_SHIFT),
		.ram_end = found.end,
		.poison_ram = true,
	};
	int err;

	if (found.end == 0) {
		TAP_NOTE("this boot has no %llu MiB for a world", (unsigned long long)(nr_real + nr_ram) >> 8);
		return -MF_ENOMEM;
	}
	err = x86_machine_create(&machine, &found.machine);
	if (err) {
		TAP_NOTE("machine x86_64: %s", mf_strerror(err));
		return err;
	}
	*place = found;
	w->metal = found.machine;
	w->machine = config->wrap ? config->wrap(config->wrap_ctx, found.machine) : found.machine;
	return 0;
}

void world_machine_destroy(struct world *w)
{
	struct place *place = place_of(w->metal);

	x86_machine_destroy(w->metal);
	place->machine = NULL;
}

void world_machine_abandon(struct world *w)
{
	world_machine_destroy(w);
}

/* The processor caught every stray write, by a fault; what it still translates nobody can ask it. */
bool world_machine_check(struct world *w)
{
	(void)w;
	return true;
}

struct world_used world_used(const struct world *w)
{
	struct x86_machine_stats stats;

	x86_machine_stats(w->metal, &stats);
	return (struct world_used){ stats.nr_ram_used, stats.nr_meta_used, 0 };
}
