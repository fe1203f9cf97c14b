/* SPDX-License-Identifier: MIT */
#include <stdint.h>
#include <stdlib.h>

#include "bundle/memory.h"

/* Before each block of a budget, so that freeing it gives its size back. */
union block {
	size_t size;
	max_align_t align;
};

static void *budget_alloc(void *data, size_t size)
{
	struct gclk_budget *budget = data;
	union block *block;

	if (size > budget->left || budget->left - size < sizeof(*block)) {
		budget->exceeded = true;
		return NULL;
	}
	block = malloc(sizeof(*block) + size);
	if (!block) {
		budget->no_memory = true;
		return NULL;
	}
	block->size = sizeof(*block) + size;
	budget->left -= block->size;
	return block + 1;
}

static void budget_free(void *data, void *p)
{
	struct gclk_budget *budget = data;
	union block *block = p;

	if (block) {
		block--;
		budget->left += block->size;
		free(block);
	}
}

ProtobufCAllocator gclk_budget_allocator(struct gclk_budget *budget)
{
	return (ProtobufCAllocator){ budget_alloc, budget_free, budget };
}

static void *arena_alloc(void *data, size_t size)
{
	struct gclk_arena *arena = data;
	size_t start = (arena->used + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);

	if (start > sizeof(arena->bytes) || size > sizeof(arena->bytes) - start) {
		return NULL;
	}
	arena->used = start + size;
	return arena->bytes + start;
}

static void arena_free(void *data, void *p)
{
	(void)data;
	(void)p;
}

ProtobufCAllocator gclk_arena_allocator(struct gclk_arena *arena)
{
	return (ProtobufCAllocator){ arena_alloc, arena_free, arena };
}
