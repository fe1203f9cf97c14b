/* SPDX-License-Identifier: MIT */
/*
 * Exact products and quotients, and the conversion between ticks and ns.
 *
 * Each function states its rounding in its name: _floor goes towards minus
 * infinity (also for negative numbers), _ceil towards plus infinity, _round to
 * the nearest with ties towards plus infinity. Nothing is rounded twice: the
 * intermediate product is kept whole. A result that does not fit is -GCLK_RANGE,
 * or the nearest end of the type in the _sat forms; no division by zero traps.
 */
#ifndef GCLK_CORE_RATIO_H
#define GCLK_CORE_RATIO_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/util.h"

/*
 * a * b / d. Return 0 and set @ret, or -GCLK_RANGE where d is 0 or the result does
 * not fit (then @ret is left alone).
 */
int gclk_muldiv_floor(uint64_t a, uint64_t b, uint64_t d, uint64_t *ret);
int gclk_muldiv_ceil(uint64_t a, uint64_t b, uint64_t d, uint64_t *ret);
int gclk_muldiv_round(uint64_t a, uint64_t b, uint64_t d, uint64_t *ret);
int gclk_muldiv_floor_i64(int64_t a, uint64_t b, uint64_t d, int64_t *ret);
int gclk_muldiv_ceil_i64(int64_t a, uint64_t b, uint64_t d, int64_t *ret);
int gclk_muldiv_round_i64(int64_t a, uint64_t b, uint64_t d, int64_t *ret);

/* The same, held at UINT64_MAX; a division by 0 is held there too, unless a * b is 0. */
uint64_t gclk_muldiv_floor_sat(uint64_t a, uint64_t b, uint64_t d);
uint64_t gclk_muldiv_ceil_sat(uint64_t a, uint64_t b, uint64_t d);

/* (a * b) >> shift modulo 2^64, shift 0..127: how hardware and KVM scale a counter. */
static inline uint64_t gclk_mulshift_wrap(uint64_t a, uint64_t b, unsigned shift)
{
	return (uint64_t)((gclk_u128)a * b >> shift);
}

/**
 * gclk_scale_floor() - floor(a * m / b) for operands wider than 64 bits
 * @a:	any value
 * @m:	multiplier
 * @b:	divisor, 1..2^127
 * @ret:	the quotient
 * @ret_rest:	the remainder a * m - ret * b, 0..b-1; may be NULL
 *
 * The product may need 192 bits; it is never formed.
 *
 * Errors: GCLK_RANGE where @b is out of range or the quotient exceeds 64 bits
 */
int gclk_scale_floor(gclk_u128 a, uint64_t m, gclk_u128 b, uint64_t *ret,
		     gclk_u128 *ret_rest);

/*
 * A frequency of num/den Hz, exactly. The denominator is bounded so that one tick's
 * worth of remainder, den * 10^9, fits 64 bits; the kHz of KVM, an HPET period in
 * fs, CPUID leaf 0x15 and every pvclock mul/shift are within it.
 */
struct gclk_rate {
	uint64_t num;	/* > 0 */
	uint64_t den;	/* 1..GCLK_RATE_DEN_MAX */
};

#define GCLK_RATE_DEN_MAX (UINT64_MAX / UINT64_C(1000000000))

static inline struct gclk_rate gclk_rate_of_hz(uint64_t hz)
{
	return (struct gclk_rate){ hz, 1 };
}

/* kHz <= UINT64_MAX / 1000. */
static inline struct gclk_rate gclk_rate_of_khz(uint64_t khz)
{
	return (struct gclk_rate){ khz * 1000, 1 };
}

/* One tick every @period_fs femtoseconds, as the HPET states it; 1..GCLK_RATE_DEN_MAX. */
static inline struct gclk_rate gclk_rate_of_period_fs(uint64_t period_fs)
{
	return (struct gclk_rate){ UINT64_C(1000000000000000), period_fs };
}

static inline bool gclk_rate_is_valid(struct gclk_rate rate)
{
	return rate.num > 0 && rate.den > 0 && rate.den <= GCLK_RATE_DEN_MAX;
}

/**
 * gclk_rate_make() - num/den Hz in lowest terms
 *
 * Errors: GCLK_RANGE where either is 0 or the reduced pair is not a valid rate
 */
int gclk_rate_make(gclk_u128 num, gclk_u128 den, struct gclk_rate *ret);

/* Exact: -1, 0, 1 as a is slower than, equal to, faster than b; both valid. */
int gclk_rate_compare(struct gclk_rate a, struct gclk_rate b);

/* Whole Hz of a valid rate. */
uint64_t gclk_rate_hz_floor(struct gclk_rate rate);
uint64_t gclk_rate_hz_round(struct gclk_rate rate);

/*
 * Spans of time <-> ticks of a clock. Errors: GCLK_RANGE where the rate is not valid
 * or the result does not fit.
 */
int gclk_ticks_from_ns_floor(struct gclk_rate rate, uint64_t ns, uint64_t *ret_ticks);
int gclk_ticks_from_ns_ceil(struct gclk_rate rate, uint64_t ns, uint64_t *ret_ticks);
int gclk_ticks_from_ns_round(struct gclk_rate rate, uint64_t ns, uint64_t *ret_ticks);
int gclk_ns_from_ticks_floor(struct gclk_rate rate, uint64_t ticks, uint64_t *ret_ns);
int gclk_ns_from_ticks_ceil(struct gclk_rate rate, uint64_t ticks, uint64_t *ret_ns);
int gclk_ns_from_ticks_round(struct gclk_rate rate, uint64_t ticks, uint64_t *ret_ns);

/* Signed spans: towards minus infinity, so that adjacent spans join without overlap. */
int gclk_ticks_from_ns_floor_i64(struct gclk_rate rate, int64_t ns, int64_t *ret_ticks);
int gclk_ns_from_ticks_floor_i64(struct gclk_rate rate, int64_t ticks, int64_t *ret_ns);
int gclk_ns_from_ticks_ceil_i64(struct gclk_rate rate, int64_t ticks, int64_t *ret_ns);

/**
 * gclk_ticks_from_ns_carry() - whole ticks in a span, with the rest kept
 * @rate:	the counter's frequency
 * @ns:	length of the span
 * @carry:	in: the fraction of a tick that had passed before the span, in units of
 *		1/(rate.den * 10^9) tick, less than one tick; out: the same after it
 * @ret_ticks:	ticks that completed in the span
 *
 * Converting a span in pieces, with one carry, gives exactly what converting it at
 * once gives. @carry is changed on success only.
 *
 * Errors: GCLK_RANGE as above, or a carry of one tick or more
 */
int gclk_ticks_from_ns_carry(struct gclk_rate rate, uint64_t ns, uint64_t *carry,
			     uint64_t *ret_ticks);

/* The other way; the carry is in units of 1/rate.num ns and less than one ns. */
int gclk_ns_from_ticks_carry(struct gclk_rate rate, uint64_t ticks, uint64_t *carry,
			     uint64_t *ret_ns);

/*
 * How far @actual runs from @nominal, positive where it is faster: _ppb_round is for
 * people, _ppb_bound (a magnitude, never below the truth) for bounds; ns_per_day is
 * floored. Errors: GCLK_RANGE where a rate is not valid or the result does not fit.
 */
int gclk_rate_error_ppb_round(struct gclk_rate actual, struct gclk_rate nominal,
			      int64_t *ret_ppb);
int gclk_rate_error_ppb_bound(struct gclk_rate actual, struct gclk_rate nominal,
			      uint64_t *ret_ppb);
int gclk_rate_error_ns_per_day(struct gclk_rate actual, struct gclk_rate nominal,
			       int64_t *ret_ns);

/* 1 ppb is 86400 ns a day; -GCLK_RANGE where the product does not fit. */
int gclk_ns_per_day_from_ppb(int64_t ppb, int64_t *ret_ns);

/* What @ppb of rate error can amount to in @ns, rounded up and saturated: a bound. */
uint64_t gclk_drift_ns_ceil(uint64_t ns, uint64_t ppb);

#endif
