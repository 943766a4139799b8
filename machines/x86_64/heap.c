/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * heap.c - control memory and what tests allocate: one range of RAM, first fit, one lock.
 *
 * Owns the range.  Laws: blocks lie side by side, each behind a head of 64 bytes that knows its own length and that of
 * the block before it, so that one that comes back joins its free neighbours at once; what is given out is zero.
 *
 *   | head | ... used ... | head | ... free ... | head | used | head (the end, 0 bytes, never free)
 */
#include "machines/x86_64/x86_64.h"

enum { ALIGN = 64 };

struct block {
	struct mf_list link;  /* of the free list, while it is free                       */
	uint64_t size_bytes;  /* with this head                                           */
	uint64_t before_bytes; /* of the block before; 0 in the first                      */
	uint64_t state;
	char pad[ALIGN - sizeof(struct mf_list) - 3 * sizeof(uint64_t)];
};

MF_BUILD_ASSERT(sizeof(struct block) == ALIGN, "what follows is aligned");

/* Unlikely numbers: what is no head shows when it comes back. */
static const uint64_t USED = 0x6d66687573656421, FREE = 0x6d66686672656521;

static struct {
	struct mf_lock lock;
	struct mf_list free;
	uint64_t used_bytes;
} heap;

static void heap_lock(void)
{
	while (!mf_lock_try(&heap.lock))
		__builtin_ia32_pause();
}

static struct block *block_after(struct block *block)
{
	return (struct block *)(void *)((char *)block + block->size_bytes);
}

static struct block *block_before(struct block *block)
{
	return (struct block *)(void *)((char *)block - block->before_bytes);
}

static void set_size(struct block *block, uint64_t size_bytes)
{
	block->size_bytes = size_bytes;
	block_after(block)->before_bytes = size_bytes;
}

static void set_free(struct block *block)
{
	block->state = FREE;
	mf_list_push_front(&heap.free, &block->link);
}

void heap_init(uint64_t paddr, uint64_t size_bytes)
{
	struct block *first = x86_direct(paddr);

	mf_list_init(&heap.free);
	first->before_bytes = 0;
	set_size(first, mf_round_down(size_bytes, ALIGN) - sizeof(struct block));
	set_free(first);
	block_after(first)->size_bytes = 0;
	block_after(first)->state = USED;
}

static struct block *take_fitting(uint64_t size_bytes)
{
	for (struct mf_list *at = heap.free.next; at != &heap.free; at = at->next) {
		struct block *block = mf_container_of(at, struct block, link), *rest;
		uint64_t rest_bytes = block->size_bytes - size_bytes;

		if (block->size_bytes < size_bytes)
			continue;
		mf_list_remove(&block->link);
		block->state = USED;
		if (rest_bytes > sizeof(struct block)) {
			block->size_bytes = size_bytes;
			rest = block_after(block);
			rest->before_bytes = size_bytes;
			set_size(rest, rest_bytes);
			set_free(rest);
		}
		heap.used_bytes += block->size_bytes;
		return block;
	}
	return NULL;
}

void *heap_alloc(size_t size_bytes)
{
	struct block *block;
	uint64_t whole;

	if (!mf_add_fits(size_bytes, sizeof(struct block) + ALIGN - 1, &whole))
		return NULL;
	heap_lock();
	block = take_fitting(mf_round_down(whole, ALIGN));
	mf_lock_release(&heap.lock);
	return block ? __builtin_memset(block + 1, 0, block->size_bytes - sizeof(*block)) : NULL;
}

void heap_free(void *memory)
{
	struct block *block = (struct block *)memory - 1, *near;

	if (!memory)
		return;
	MF_PANIC_IF(block->state != USED, "x86_64: %p came back to the heap that had not given it out, or twice.", memory);
	heap_lock();
	heap.used_bytes -= block->size_bytes;
	near = block_after(block);
	if (near->state == FREE) {
		mf_list_remove(&near->link);
		set_size(block, block->size_bytes + near->size_bytes);
	}
	near = block_before(block);
	if (near->state == FREE) {
		mf_list_remove(&near->link);
		block->state = 0;
		set_size(near, near->size_bytes + block->size_bytes);
		block = near;
	}
	set_free(block);
	mf_lock_release(&heap.lock);
}

uint64_t heap_used(void)
{
	uint64_t used_bytes;

	heap_lock();
	used_bytes = heap.used_bytes;
	mf_lock_release(&heap.lock);
	return used_bytes;
}
