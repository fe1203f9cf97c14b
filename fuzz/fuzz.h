/* SPDX-License-Identifier: MIT */
/*
 * What the targets share. A target is a function of bytes: it reads them as its format,
 * does with the result what a user would, and holds what must hold whatever the bytes are.
 */
#ifndef GCLK_FUZZ_H
#define GCLK_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libFuzzer's own; and what targets of streams have instead (mutate-stream.c). */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* Something that must hold; also with NDEBUG. */
#define FUZZ_CHECK(condition)                                                     \
	do {                                                                      \
		if (!(condition)) {                                               \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                  \
		}                                                                 \
	} while (0)

/* A number from the input, for choices that are not in it: where to cut, which policy. */
static inline uint64_t fuzz_hash(const uint8_t *data, size_t size)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < size; i++) {
		hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
	}
	return hash ^ hash >> 29;
}

static inline uint64_t fuzz_next(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

#endif
