/* SPDX-License-Identifier: MIT */
/* gclk_state_pack() is called where a VMM may not allocate: every way to the heap is counted. */
#include <stdlib.h>

#include <guestclock/bundle.h>

#include "gclk-test.h"
#include "random-state.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEAP_IS_TAKEN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define HEAP_IS_TAKEN 1
#endif

#ifdef HEAP_IS_TAKEN
GCLK_TEST(no_heap, packing_a_state_allocates_nothing)
{
	gclk_test_skip("a sanitizer or another C library has the heap");
}
#else
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

static unsigned n_calls;

void *malloc(size_t size)
{
	n_calls++;
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	n_calls++;
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	n_calls++;
	return __libc_realloc(p, size);
}

GCLK_TEST(no_heap, packing_a_state_allocates_nothing)
{
	struct gclk_state *state = gclk_state_new(64);
	static uint8_t buf[1 << 20];
	unsigned before = n_calls;

	CU_ASSERT(before > 0);
	random_state(state, 100);
	before = n_calls;
	CU_ASSERT(gclk_state_pack(state, NULL, 0, NULL) > 0);
	CU_ASSERT(gclk_state_pack(state, buf, sizeof(buf), NULL) > 0);
	GCLK_EQ(n_calls, before);
	gclk_state_free(state);
}
#endif
