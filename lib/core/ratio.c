/* SPDX-License-Identifier: MIT */
/*
 * One division decides every result here: quotient and remainder of an exact product, and
 * from the remainder alone the direction of rounding. Two facts keep products within 128
 * bits. 64 x 64 bits always fit. Where a third factor m comes in, a = q*b + r gives
 *
 *	floor(a * m / b) = q * m + floor(r * m / b),	r < b,
 *
 * and the last term is found bit by bit of m, without forming r * m.
 */
#include "core/ratio.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_DAY (UINT64_C(86400) * NS_PER_S)

enum rounding {
	DOWN,			/* of a magnitude: towards 0 */
	UP,
	NEAREST_TIES_UP,
	NEAREST_TIES_DOWN,
	AWAY,			/* from 0, for either sign: a bound */
};

/* The rounding of a magnitude that rounds -magnitude as @how rounds a positive number. */
static enum rounding mirrored(enum rounding how)
{
	switch (how) {
	case DOWN:
		return UP;
	case UP:
		return DOWN;
	case NEAREST_TIES_UP:
		return NEAREST_TIES_DOWN;
	case NEAREST_TIES_DOWN:
		return NEAREST_TIES_UP;
	default:
		return how;
	}
}

/* 1 where a quotient with remainder @rest of @divisor is to be rounded up. */
static unsigned round_up(gclk_u128 rest, gclk_u128 divisor, enum rounding how)
{
	switch (how) {
	case UP:
	case AWAY:
		return rest != 0;
	case NEAREST_TIES_UP:
		return rest >= divisor - rest;
	case NEAREST_TIES_DOWN:
		return rest > divisor - rest;
	default:
		return 0;
	}
}

static int to_u64(gclk_u128 value, uint64_t *ret)
{
	if (value > UINT64_MAX) {
		return -GCLK_RANGE;
	}
	*ret = (uint64_t)value;
	return 0;
}

static int to_i64(bool negative, gclk_u128 magnitude, int64_t *ret)
{
	if (magnitude > (gclk_u128)INT64_MAX + negative) {
		return -GCLK_RANGE;
	}
	*ret = (int64_t)(negative ? 0 - (uint64_t)magnitude : (uint64_t)magnitude);
	return 0;
}

static uint64_t magnitude_of(int64_t value)
{
	return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

static int muldiv(uint64_t a, uint64_t b, uint64_t d, enum rounding how, gclk_u128 *ret)
{
	gclk_u128 product = (gclk_u128)a * b;

	if (d == 0) {
		return -GCLK_RANGE;
	}
	*ret = product / d + round_up(product % d, d, how);
	return 0;
}

static int muldiv_u64(uint64_t a, uint64_t b, uint64_t d, enum rounding how,
		      uint64_t *ret)
{
	gclk_u128 quotient = 0;
	int r = muldiv(a, b, d, how, &quotient);

	return r < 0 ? r : to_u64(quotient, ret);
}

static int muldiv_i64(int64_t a, uint64_t b, uint64_t d, enum rounding how, int64_t *ret)
{
	gclk_u128 quotient = 0;
	int r = muldiv(magnitude_of(a), b, d, a < 0 ? mirrored(how) : how, &quotient);

	return r < 0 ? r : to_i64(a < 0, quotient, ret);
}

int gclk_muldiv_floor(uint64_t a, uint64_t b, uint64_t d, uint64_t *ret)
{
	return muldiv_u64(a, b, d, DOWN, ret);
}

int gclk_muldiv_ceil(uint64_t a, uint64_t b, uint64_t d, uint64_t *ret)
{
	return muldiv_u64(a, b, d, UP, ret);
}

int gclk_muldiv_round(uint64_t a, uint64_t b, uint64_t d, uint64_t *ret)
{
	return muldiv_u64(a, b, d, NEAREST_TIES_UP, ret);
}

int gclk_muldiv_floor_i64(int64_t a, uint64_t b, uint64_t d, int64_t *ret)
{
	return muldiv_i64(a, b, d, DOWN, ret);
}

int gclk_muldiv_ceil_i64(int64_t a, uint64_t b, uint64_t d, int64_t *ret)
{
	return muldiv_i64(a, b, d, UP, ret);
}

int gclk_muldiv_round_i64(int64_t a, uint64_t b, uint64_t d, int64_t *ret)
{
	return muldiv_i64(a, b, d, NEAREST_TIES_UP, ret);
}

static uint64_t muldiv_sat(uint64_t a, uint64_t b, uint64_t d, enum rounding how)
{
	uint64_t quotient;

	if (a == 0 || b == 0) {
		return 0;
	}
	return muldiv_u64(a, b, d, how, &quotient) < 0 ? UINT64_MAX : quotient;
}

uint64_t gclk_muldiv_floor_sat(uint64_t a, uint64_t b, uint64_t d)
{
	return muldiv_sat(a, b, d, DOWN);
}

uint64_t gclk_muldiv_ceil_sat(uint64_t a, uint64_t b, uint64_t d)
{
	return muldiv_sat(a, b, d, UP);
}

/*
 * floor(r * m / b) and its remainder for r < b <= 2^127, by Horner's rule over the bits
 * of m: the accumulator stays below b, so that neither doubling nor adding leaves 128
 * bits, and the quotient stays below m.
 */
static uint64_t scale_rest(gclk_u128 r, uint64_t m, gclk_u128 b, gclk_u128 *ret_rest)
{
	gclk_u128 rest = 0;
	uint64_t quotient = 0;

	for (int bit = 63; bit >= 0; bit--) {
		rest <<= 1;
		quotient <<= 1;
		if (rest >= b) {
			rest -= b;
			quotient++;
		}
		if (m >> bit & 1) {
			rest += r;
			if (rest >= b) {
				rest -= b;
				quotient++;
			}
		}
	}
	*ret_rest = rest;
	return quotient;
}

int gclk_scale_floor(gclk_u128 a, uint64_t m, gclk_u128 b, uint64_t *ret,
		     gclk_u128 *ret_rest)
{
	gclk_u128 whole, r, product, rest;
	uint64_t part;

	if (b == 0 || b > (gclk_u128)1 << 127) {
		return -GCLK_RANGE;
	}
	whole = a / b;
	r = a % b;
	if (m != 0 && whole > UINT64_MAX / m) {
		return -GCLK_RANGE;
	}
	if (r <= UINT64_MAX) {
		product = r * m;
		part = (uint64_t)(product / b);
		rest = product % b;
	} else {
		part = scale_rest(r, m, b, &rest);
	}
	if (__builtin_add_overflow((uint64_t)whole * m, part, ret)) {
		return -GCLK_RANGE;
	}
	if (ret_rest) {
		*ret_rest = rest;
	}
	return 0;
}

static gclk_u128 common_divisor(gclk_u128 a, gclk_u128 b)
{
	while (b) {
		gclk_u128 rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

int gclk_rate_make(gclk_u128 num, gclk_u128 den, struct gclk_rate *ret)
{
	gclk_u128 divisor;

	if (num == 0 || den == 0) {
		return -GCLK_RANGE;
	}
	divisor = common_divisor(num, den);
	num /= divisor;
	den /= divisor;
	if (num > UINT64_MAX || den > GCLK_RATE_DEN_MAX) {
		return -GCLK_RANGE;
	}
	*ret = (struct gclk_rate){ (uint64_t)num, (uint64_t)den };
	return 0;
}

int gclk_rate_compare(struct gclk_rate a, struct gclk_rate b)
{
	gclk_u128 left = (gclk_u128)a.num * b.den, right = (gclk_u128)b.num * a.den;

	return (left > right) - (left < right);
}

uint64_t gclk_rate_hz_floor(struct gclk_rate rate)
{
	return rate.num / rate.den;
}

uint64_t gclk_rate_hz_round(struct gclk_rate rate)
{
	return rate.num / rate.den +
	       round_up(rate.num % rate.den, rate.den, NEAREST_TIES_UP);
}

/* ticks = ns * num / (den * 10^9) */
static int ticks_from_ns(struct gclk_rate rate, uint64_t ns, enum rounding how,
			 gclk_u128 *ret)
{
	if (!gclk_rate_is_valid(rate)) {
		return -GCLK_RANGE;
	}
	return muldiv(ns, rate.num, rate.den * NS_PER_S, how, ret);
}

/* ns = ticks * den * 10^9 / num */
static int ns_from_ticks(struct gclk_rate rate, uint64_t ticks, enum rounding how,
			 gclk_u128 *ret)
{
	gclk_u128 rest;
	uint64_t ns;
	int r;

	if (!gclk_rate_is_valid(rate)) {
		return -GCLK_RANGE;
	}
	r = gclk_scale_floor((gclk_u128)ticks * rate.den, NS_PER_S, rate.num, &ns, &rest);
	if (r < 0) {
		return r;
	}
	*ret = (gclk_u128)ns + round_up(rest, rate.num, how);
	return 0;
}

typedef int convert_fn(struct gclk_rate rate, uint64_t from, enum rounding how,
		       gclk_u128 *ret);

static int convert(convert_fn *fn, struct gclk_rate rate, uint64_t from,
		   enum rounding how, uint64_t *ret)
{
	gclk_u128 value;
	int r = fn(rate, from, how, &value);

	return r < 0 ? r : to_u64(value, ret);
}

static int convert_i64(convert_fn *fn, struct gclk_rate rate, int64_t from,
		       enum rounding how, int64_t *ret)
{
	gclk_u128 value;
	int r = fn(rate, magnitude_of(from), from < 0 ? mirrored(how) : how, &value);

	return r < 0 ? r : to_i64(from < 0, value, ret);
}

int gclk_ticks_from_ns_floor(struct gclk_rate rate, uint64_t ns, uint64_t *ret_ticks)
{
	return convert(ticks_from_ns, rate, ns, DOWN, ret_ticks);
}

int gclk_ticks_from_ns_ceil(struct gclk_rate rate, uint64_t ns, uint64_t *ret_ticks)
{
	return convert(ticks_from_ns, rate, ns, UP, ret_ticks);
}

int gclk_ticks_from_ns_round(struct gclk_rate rate, uint64_t ns, uint64_t *ret_ticks)
{
	return convert(ticks_from_ns, rate, ns, NEAREST_TIES_UP, ret_ticks);
}

int gclk_ns_from_ticks_floor(struct gclk_rate rate, uint64_t ticks, uint64_t *ret_ns)
{
	return convert(ns_from_ticks, rate, ticks, DOWN, ret_ns);
}

int gclk_ns_from_ticks_ceil(struct gclk_rate rate, uint64_t ticks, uint64_t *ret_ns)
{
	return convert(ns_from_ticks, rate, ticks, UP, ret_ns);
}

int gclk_ns_from_ticks_round(struct gclk_rate rate, uint64_t ticks, uint64_t *ret_ns)
{
	return convert(ns_from_ticks, rate, ticks, NEAREST_TIES_UP, ret_ns);
}

int gclk_ticks_from_ns_floor_i64(struct gclk_rate rate, int64_t ns, int64_t *ret_ticks)
{
	return convert_i64(ticks_from_ns, rate, ns, DOWN, ret_ticks);
}

int gclk_ns_from_ticks_floor_i64(struct gclk_rate rate, int64_t ticks, int64_t *ret_ns)
{
	return convert_i64(ns_from_ticks, rate, ticks, DOWN, ret_ns);
}

int gclk_ns_from_ticks_ceil_i64(struct gclk_rate rate, int64_t ticks, int64_t *ret_ns)
{
	return convert_i64(ns_from_ticks, rate, ticks, UP, ret_ns);
}

/* Adds a remainder to an earlier one, both below @unit, and moves a whole unit up. */
static int join_carry(uint64_t whole, gclk_u128 rest, uint64_t unit, uint64_t *carry,
		      uint64_t *ret)
{
	gclk_u128 sum = rest + *carry;
	unsigned over = sum >= unit;

	if (__builtin_add_overflow(whole, over, &whole)) {
		return -GCLK_RANGE;
	}
	*carry = (uint64_t)(over ? sum - unit : sum);
	*ret = whole;
	return 0;
}

int gclk_ticks_from_ns_carry(struct gclk_rate rate, uint64_t ns, uint64_t *carry,
			     uint64_t *ret_ticks)
{
	gclk_u128 product = (gclk_u128)ns * rate.num;
	uint64_t unit, whole;
	int r;

	if (!gclk_rate_is_valid(rate)) {
		return -GCLK_RANGE;
	}
	unit = rate.den * NS_PER_S;
	if (*carry >= unit) {
		return -GCLK_RANGE;
	}
	r = to_u64(product / unit, &whole);
	return r < 0 ? r : join_carry(whole, product % unit, unit, carry, ret_ticks);
}

int gclk_ns_from_ticks_carry(struct gclk_rate rate, uint64_t ticks, uint64_t *carry,
			     uint64_t *ret_ns)
{
	gclk_u128 rest;
	uint64_t whole;
	int r;

	if (!gclk_rate_is_valid(rate) || *carry >= rate.num) {
		return -GCLK_RANGE;
	}
	r = gclk_scale_floor((gclk_u128)ticks * rate.den, NS_PER_S, rate.num, &whole,
			     &rest);
	return r < 0 ? r : join_carry(whole, rest, rate.num, carry, ret_ns);
}

/*
 * |actual - nominal| / nominal * per_one as a rounded magnitude, and whether actual is
 * the slower. @how rounds the signed value.
 */
static int rate_error(struct gclk_rate actual, struct gclk_rate nominal, uint64_t per_one,
		      enum rounding how, bool *ret_slow, gclk_u128 *ret)
{
	gclk_u128 a, n, rest;
	uint64_t error;
	int r;

	if (!gclk_rate_is_valid(actual) || !gclk_rate_is_valid(nominal)) {
		return -GCLK_RANGE;
	}
	a = (gclk_u128)actual.num * nominal.den;
	n = (gclk_u128)nominal.num * actual.den;
	r = gclk_scale_floor(a < n ? n - a : a - n, per_one, n, &error, &rest);
	if (r < 0) {
		return r;
	}
	*ret_slow = a < n;
	*ret = (gclk_u128)error + round_up(rest, n, a < n ? mirrored(how) : how);
	return 0;
}

int gclk_rate_error_ppb_round(struct gclk_rate actual, struct gclk_rate nominal,
			      int64_t *ret_ppb)
{
	gclk_u128 error;
	bool slow;
	int r = rate_error(actual, nominal, NS_PER_S, NEAREST_TIES_UP, &slow, &error);

	return r < 0 ? r : to_i64(slow, error, ret_ppb);
}

int gclk_rate_error_ppb_bound(struct gclk_rate actual, struct gclk_rate nominal,
			      uint64_t *ret_ppb)
{
	gclk_u128 error;
	bool slow;
	int r = rate_error(actual, nominal, NS_PER_S, AWAY, &slow, &error);

	return r < 0 ? r : to_u64(error, ret_ppb);
}

int gclk_rate_error_ns_per_day(struct gclk_rate actual, struct gclk_rate nominal,
			       int64_t *ret_ns)
{
	gclk_u128 error;
	bool slow;
	int r = rate_error(actual, nominal, NS_PER_DAY, DOWN, &slow, &error);

	return r < 0 ? r : to_i64(slow, error, ret_ns);
}

int gclk_ns_per_day_from_ppb(int64_t ppb, int64_t *ret_ns)
{
	int64_t ns;

	if (__builtin_mul_overflow(ppb, INT64_C(86400), &ns)) {
		return -GCLK_RANGE;
	}
	*ret_ns = ns;
	return 0;
}

uint64_t gclk_drift_ns_ceil(uint64_t ns, uint64_t ppb)
{
	return gclk_muldiv_ceil_sat(ns, ppb, NS_PER_S);
}
