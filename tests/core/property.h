/* SPDX-License-Identifier: MIT */
/*
 * What the random tests of lib/core share: a 256-bit number as schoolbook arithmetic on
 * 32-bit digits, so that results are held against a form of calculation that the library
 * does not use, and an assertion that says with which numbers it failed.
 */
#ifndef TESTS_CORE_PROPERTY_H
#define TESTS_CORE_PROPERTY_H

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "gclk-test.h"

#define N_RANDOM (UINT64_C(100000) * gclk_test_scale())

/* Ends the case at the first failure, with the numbers of that failure. */
#define REQUIRE(condition, ...)                                                          \
	do {                                                                             \
		if (!(condition)) {                                                      \
			printf("\n    %s:%d: %s, with ", __FILE__, __LINE__,             \
			       #condition);                                              \
			printf(__VA_ARGS__);                                             \
			printf("\n");                                                    \
			CU_FAIL(#condition);                                             \
			return;                                                          \
		}                                                                        \
	} while (0)

#define WIDE_DIGITS 8

struct wide {
	uint32_t digit[WIDE_DIGITS];	/* least significant first */
};

static inline struct wide wide_of(uint64_t value)
{
	return (struct wide){ { (uint32_t)value, (uint32_t)(value >> 32) } };
}

static inline struct wide wide_add(struct wide a, struct wide b)
{
	uint64_t carry = 0;

	for (int i = 0; i < WIDE_DIGITS; i++) {
		carry += (uint64_t)a.digit[i] + b.digit[i];
		a.digit[i] = (uint32_t)carry;
		carry >>= 32;
	}
	if (carry) {
		abort();	/* a test that needs more digits is wrong */
	}
	return a;
}

static inline int wide_compare(struct wide a, struct wide b)
{
	for (int i = WIDE_DIGITS - 1; i >= 0; i--) {
		if (a.digit[i] != b.digit[i]) {
			return a.digit[i] < b.digit[i] ? -1 : 1;
		}
	}
	return 0;
}

/* a - b for a >= b. */
static inline struct wide wide_subtract(struct wide a, struct wide b)
{
	int64_t borrow = 0;

	if (wide_compare(a, b) < 0) {
		abort();
	}
	for (int i = 0; i < WIDE_DIGITS; i++) {
		borrow += (int64_t)a.digit[i] - b.digit[i];
		a.digit[i] = (uint32_t)borrow;
		borrow >>= 32;
	}
	return a;
}

static inline struct wide wide_multiply(struct wide a, uint64_t b)
{
	struct wide product = { { 0 } };
	uint32_t parts[2] = { (uint32_t)b, (uint32_t)(b >> 32) };

	for (int k = 0; k < 2; k++) {
		uint64_t carry = 0;

		for (int i = 0; i + k < WIDE_DIGITS; i++) {
			carry += (uint64_t)a.digit[i] * parts[k] + product.digit[i + k];
			product.digit[i + k] = (uint32_t)carry;
			carry >>= 32;
		}
		if (carry || (k && a.digit[WIDE_DIGITS - 1] && parts[1])) {
			abort();
		}
	}
	return product;
}

static inline struct wide wide_of_product(uint64_t a, uint64_t b)
{
	return wide_multiply(wide_of(a), b);
}

/* a * 2^shift */
static inline struct wide wide_shift(struct wide a, unsigned shift)
{
	for (; shift >= 32; shift -= 32) {
		a = wide_multiply(a, UINT64_C(1) << 32);
	}
	return wide_multiply(a, UINT64_C(1) << shift);
}

/* Whether q = floor(n / d), decided without dividing: q * d <= n < (q + 1) * d. */
static inline bool wide_is_floor(uint64_t q, struct wide n, struct wide d)
{
	struct wide low = wide_multiply(d, q);

	return wide_compare(low, n) <= 0 && wide_compare(n, wide_add(low, d)) < 0;
}

/* Whether q = ceil(n / d): (q - 1) * d < n <= q * d. */
static inline bool wide_is_ceil(uint64_t q, struct wide n, struct wide d)
{
	struct wide high = wide_multiply(d, q);

	return wide_compare(n, high) <= 0 && wide_compare(high, wide_add(n, d)) < 0;
}

/* Whether q is n / d to the nearest, ties up: floor((2 n + d) / 2 d). */
static inline bool wide_is_round(uint64_t q, struct wide n, struct wide d)
{
	return wide_is_floor(q, wide_add(wide_add(n, n), d), wide_add(d, d));
}

/* The same with ties down: ceil((2 n - d) / 2 d), or 0 where n <= d / 2. */
static inline bool wide_is_round_ties_down(uint64_t q, struct wide n, struct wide d)
{
	struct wide twice = wide_add(n, n);

	return wide_compare(twice, d) <= 0 ?
		       q == 0 :
		       wide_is_ceil(q, wide_subtract(twice, d), wide_add(d, d));
}

/* Whether n / d, rounded down, needs more than 64 bits. */
static inline bool wide_exceeds_64(struct wide n, struct wide d)
{
	return wide_compare(n, wide_shift(d, 64)) >= 0;
}

#endif
