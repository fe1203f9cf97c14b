/* SPDX-License-Identifier: MIT */
/* Where protobuf-c's trees live: memory that has an end, whatever the input says. */
#ifndef GCLK_BUNDLE_MEMORY_H
#define GCLK_BUNDLE_MEMORY_H

#include <protobuf-c/protobuf-c.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Heap memory with a limit. A message of two bytes on the wire can take hundreds
 * in a tree, so a limit on the input alone limits nothing.
 */
struct gclk_budget {
	size_t left;
	bool exceeded;		/* a request was refused because of the limit */
	bool no_memory;		/* ... because the heap had no more */
};
ProtobufCAllocator gclk_budget_allocator(struct gclk_budget *budget);

/* A few kB on the stack, enough for the tree of any one record. free() does nothing. */
#define GCLK_ARENA_BYTES 8192
struct gclk_arena {
	size_t used;
	alignas(max_align_t) unsigned char bytes[GCLK_ARENA_BYTES];
};
ProtobufCAllocator gclk_arena_allocator(struct gclk_arena *arena);

static inline void *gclk_mem_alloc(const ProtobufCAllocator *mem, size_t size)
{
	return mem->alloc(mem->allocator_data, size);
}

static inline void gclk_mem_free(const ProtobufCAllocator *mem, void *p)
{
	mem->free(mem->allocator_data, p);
}

#endif
