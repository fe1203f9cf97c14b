/* SPDX-License-Identifier: MIT */
/*
 * Clock ticks and ns, for devices: exact, floored towards minus infinity, held
 * at the ends of int64_t.
 */
#ifndef GCLK_DEVICES_TICKS_H
#define GCLK_DEVICES_TICKS_H

#include <stdbool.h>
#include <stdint.h>

#include <guestclock/state.h>

#include "core/util.h"

static inline int64_t gclk_clip(gclk_i128 v)
{
	return v > INT64_MAX ? INT64_MAX : v < INT64_MIN ? INT64_MIN : (int64_t)v;
}

static inline __attribute__((always_inline)) int64_t gclk_floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static inline int64_t gclk_floor_mod(int64_t a, int64_t b)
{
	int64_t r = a % b;

	return r < 0 ? r + b : r;
}

/*
 * floor(a * b / d) for positive b and d with b * d < 2^63: whole multiples of d are split
 * off, so that 64 bits are enough for any a whose result fits. Inlined: the divisors are
 * constants, and division by a constant is none.
 */
static inline __attribute__((always_inline)) int64_t gclk_scale(int64_t a, int64_t b, int64_t d)
{
	int64_t whole = gclk_floor_div(a, d), product, sum;
	/* whole * d itself may lie below INT64_MIN, the difference is in [0, d) */
	int64_t rest = (int64_t)((uint64_t)a - (uint64_t)whole * (uint64_t)d);

	if (__builtin_mul_overflow(whole, b, &product) ||
	    __builtin_add_overflow(product, rest * b / d, &sum)) {
		return a < 0 ? INT64_MIN : INT64_MAX;
	}
	return sum;
}

/* Whole ticks by @ns. */
static inline int64_t gclk_ticks_by(int64_t ns, int64_t hz)
{
	return gclk_scale(ns, hz, GCLK_NS_PER_S);
}

/* The last ns at or before tick number @ticks, and the first at or after it. */
static inline int64_t gclk_tick_floor(int64_t ticks, int64_t hz)
{
	return gclk_scale(ticks, GCLK_NS_PER_S, hz);
}

/* ceil(a * b / d), as gclk_scale(); INT64_MIN is held as the value beside it. */
static inline __attribute__((always_inline)) int64_t gclk_scale_up(int64_t a, int64_t b, int64_t d)
{
	int64_t down = gclk_scale(a == INT64_MIN ? INT64_MAX : -a, b, d);

	return down == INT64_MIN ? INT64_MAX : -down;
}

static inline int64_t gclk_tick_ceil(int64_t ticks, int64_t hz)
{
	return gclk_scale_up(ticks, GCLK_NS_PER_S, hz);
}

static inline int64_t gclk_add(int64_t a, int64_t b)
{
	int64_t sum;

	if (!__builtin_add_overflow(a, b, &sum)) {
		return sum;
	}
	return b < 0 ? INT64_MIN : INT64_MAX;
}

static inline int64_t gclk_sub(int64_t a, int64_t b)
{
	int64_t difference;

	if (!__builtin_sub_overflow(a, b, &difference)) {
		return difference;
	}
	return b < 0 ? INT64_MAX : INT64_MIN;
}

#endif
