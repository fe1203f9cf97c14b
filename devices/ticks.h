/* SPDX-License-Identifier: MIT */
/*
 * Clock ticks and ns, for devices: exact, floored towards minus infinity, held
 * at the ends of int64_t. The products of a span below two hours need 64 bits
 * only, and take the fast way.
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

static inline int64_t gclk_floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static inline int64_t gclk_floor_mod(int64_t a, int64_t b)
{
	int64_t r = a % b;

	return r < 0 ? r + b : r;
}

/* floor(a * b / d), b and d positive */
static inline int64_t gclk_scale(int64_t a, int64_t b, int64_t d)
{
	int64_t product;
	gclk_i128 wide, q;

	if (!__builtin_mul_overflow(a, b, &product)) {
		return gclk_floor_div(product, d);
	}
	wide = (gclk_i128)a * b;
	q = wide / d;
	return gclk_clip(wide % d < 0 ? q - 1 : q);
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

static inline int64_t gclk_tick_ceil(int64_t ticks, int64_t hz)
{
	return -gclk_scale(-ticks, GCLK_NS_PER_S, hz);
}

static inline int64_t gclk_add(int64_t a, int64_t b)
{
	return gclk_clip((gclk_i128)a + b);
}

static inline int64_t gclk_sub(int64_t a, int64_t b)
{
	return gclk_clip((gclk_i128)a - b);
}

#endif
