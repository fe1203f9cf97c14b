/* SPDX-License-Identifier: MIT */
#include "core/ratio.h"
#include "property.h"

#define NS_PER_S UINT64_C(1000000000)

static uint64_t magnitude(int64_t value)
{
	return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

/* Not 0, often small, often close to a power of two. */
static uint64_t random_positive(void)
{
	uint64_t value = gclk_random_bits();

	if (gclk_random_below(4) == 0) {
		value = (UINT64_C(1) << gclk_random_below(64)) - 1 + gclk_random_below(3);
	}
	return value ? value : 1;
}

static struct gclk_rate random_rate(void)
{
	switch (gclk_random_below(4)) {
	case 0:
		return gclk_rate_of_hz(1 + gclk_random_below(6000000000));
	case 1:
		return gclk_rate_of_khz(1 + gclk_random_below(6000000));
	case 2:
		return gclk_rate_of_period_fs(1 + gclk_random_below(100000000));
	default:
		return (struct gclk_rate){ random_positive(),
					   1 + gclk_random_below(GCLK_RATE_DEN_MAX) };
	}
}

/* The product ns * rate in ticks is @num / @den; its inverse the other way round. */
static struct wide ticks_num(struct gclk_rate rate, uint64_t ns)
{
	return wide_of_product(ns, rate.num);
}

static struct wide ticks_den(struct gclk_rate rate)
{
	return wide_of_product(rate.den, NS_PER_S);
}

static struct wide ns_num(struct gclk_rate rate, uint64_t ticks)
{
	return wide_multiply(wide_of_product(ticks, rate.den), NS_PER_S);
}

GCLK_TEST(ratio, muldiv_known_values)
{
	uint64_t u = 7;
	int64_t s = 7;

	GCLK_EQ(gclk_muldiv_floor(10, 10, 8, &u), 0);
	GCLK_EQ(u, 12);
	GCLK_EQ(gclk_muldiv_ceil(10, 10, 8, &u), 0);
	GCLK_EQ(u, 13);
	GCLK_EQ(gclk_muldiv_round(10, 10, 8, &u), 0);
	GCLK_EQ(u, 13);	/* 12.5: the tie goes up */
	GCLK_EQ(gclk_muldiv_round(9, 11, 8, &u), 0);
	GCLK_EQ(u, 12);	/* 12.375 */
	GCLK_EQ(gclk_muldiv_floor_i64(-10, 10, 8, &s), 0);
	GCLK_EQ(s, -13);
	GCLK_EQ(gclk_muldiv_ceil_i64(-10, 10, 8, &s), 0);
	GCLK_EQ(s, -12);
	GCLK_EQ(gclk_muldiv_round_i64(-10, 10, 8, &s), 0);
	GCLK_EQ(s, -12);	/* -12.5: the tie goes up */
	GCLK_EQ(gclk_muldiv_round_i64(-101, 1, 8, &s), 0);
	GCLK_EQ(s, -13);	/* -12.625 */
}

GCLK_TEST(ratio, muldiv_ends_of_the_range)
{
	uint64_t u = 7;
	int64_t s = 7;

	GCLK_EQ(gclk_muldiv_floor(UINT64_MAX, UINT64_MAX, UINT64_MAX, &u), 0);
	GCLK_EQ(u, UINT64_MAX);
	u = 7;
	GCLK_EQ(gclk_muldiv_floor(UINT64_MAX, 2, 1, &u), -GCLK_RANGE);
	GCLK_EQ(gclk_muldiv_floor(1, 1, 0, &u), -GCLK_RANGE);
	/* 2^64 - 1/2: fits only rounded down */
	GCLK_EQ(gclk_muldiv_ceil(UINT64_MAX, 3, 2, &u), -GCLK_RANGE);
	GCLK_EQ(u, 7);
	GCLK_EQ(gclk_muldiv_floor_i64(INT64_MIN, 1, 1, &s), 0);
	GCLK_EQ(s, INT64_MIN);
	GCLK_EQ(gclk_muldiv_floor_i64(INT64_MAX, 1, 1, &s), 0);
	GCLK_EQ(s, INT64_MAX);
	s = 7;
	GCLK_EQ(gclk_muldiv_floor_i64(INT64_MIN, 3, 2, &s), -GCLK_RANGE);
	GCLK_EQ(gclk_muldiv_floor_i64(INT64_MAX, 2, 1, &s), -GCLK_RANGE);
	GCLK_EQ(gclk_muldiv_floor_i64(1, 1, 0, &s), -GCLK_RANGE);
	GCLK_EQ(s, 7);
	GCLK_EQ(gclk_muldiv_floor_sat(UINT64_MAX, 3, 2), UINT64_MAX);
	GCLK_EQ(gclk_muldiv_ceil_sat(5, 1, 0), UINT64_MAX);
	GCLK_EQ(gclk_muldiv_ceil_sat(0, 5, 0), 0);
	GCLK_EQ(gclk_muldiv_ceil_sat(7, 1, 2), 4);
	GCLK_EQ(gclk_muldiv_floor_sat(7, 1, 2), 3);
	GCLK_EQ(gclk_mulshift_wrap(UINT64_MAX, UINT64_MAX, 0), 1);
	GCLK_EQ(gclk_mulshift_wrap(UINT64_MAX, UINT64_MAX, 64), UINT64_MAX - 1);
	GCLK_EQ(gclk_mulshift_wrap(UINT64_MAX, UINT64_MAX, 127), 1);
}

GCLK_TEST(ratio, muldiv_is_exact)
{
	for (uint64_t i = 0; i < 2 * N_RANDOM; i++) {
		uint64_t a = random_positive() - 1, b = random_positive() - 1,
			 d = random_positive();
		struct wide n = wide_of_product(a, b), w = wide_of(d);
		uint64_t low = 0, high = 0, near = 0;
		int r = gclk_muldiv_floor(a, b, d, &low),
		    rc = gclk_muldiv_ceil(a, b, d, &high);
		int rr = gclk_muldiv_round(a, b, d, &near);

		REQUIRE(r == (wide_exceeds_64(n, w) ? -GCLK_RANGE : 0),
			"%" PRIu64 " * %" PRIu64 " / %" PRIu64, a, b, d);
		REQUIRE(r < 0 || wide_is_floor(low, n, w), "%" PRIu64 " * %" PRIu64
			" / %" PRIu64 " = %" PRIu64, a, b, d, low);
		REQUIRE(rc < 0 || wide_is_ceil(high, n, w), "%" PRIu64 " * %" PRIu64
			" / %" PRIu64 " = %" PRIu64, a, b, d, high);
		REQUIRE(rr < 0 || wide_is_round(near, n, w), "%" PRIu64 " * %" PRIu64
			" / %" PRIu64 " = %" PRIu64, a, b, d, near);
		REQUIRE(r < 0 || low == UINT64_MAX ||
				(rc == 0 && rr == 0 && low <= near && near <= high &&
				 high - low <= 1),
			"%" PRIu64 " * %" PRIu64 " / %" PRIu64, a, b, d);
	}
}

GCLK_TEST(ratio, signed_muldiv_is_exact)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		int64_t a = (int64_t)(random_positive() *
				      (gclk_random() & 1 ? 1 : UINT64_MAX));
		uint64_t b = random_positive() - 1, d = random_positive();
		struct wide n = wide_of_product(magnitude(a), b), w = wide_of(d);
		int64_t low = 0, high = 0, near = 0;
		bool ok;

		if (gclk_muldiv_floor_i64(a, b, d, &low) < 0 ||
		    gclk_muldiv_ceil_i64(a, b, d, &high) < 0 ||
		    gclk_muldiv_round_i64(a, b, d, &near) < 0) {
			/* beyond 63 bits, or at the very end of them after rounding */
			REQUIRE(wide_compare(n, wide_multiply(w, INT64_MAX - 1)) > 0,
				"%" PRId64 " * %" PRIu64 " / %" PRIu64, a, b, d);
			continue;
		}
		ok = a < 0 ? wide_is_ceil(magnitude(low), n, w) &&
			     wide_is_floor(magnitude(high), n, w) &&
			     wide_is_round_ties_down(magnitude(near), n, w) :
			     wide_is_floor((uint64_t)low, n, w) &&
			     wide_is_ceil((uint64_t)high, n, w) &&
			     wide_is_round((uint64_t)near, n, w);
		REQUIRE(ok,
			"%" PRId64 " * %" PRIu64 " / %" PRIu64 " = %" PRId64 " %" PRId64
			" %" PRId64,
			a, b, d, low, near, high);
	}
}

/* Remainders beyond 64 bits that come out even, by doubling and by adding. */
GCLK_TEST(ratio, scale_of_even_parts)
{
	gclk_u128 b = (gclk_u128)3 << 100, rest = 7;
	uint64_t q = 7;

	GCLK_EQ(gclk_scale_floor(b / 2, 2, b, &q, &rest), 0);
	CU_ASSERT(q == 1 && rest == 0);
	GCLK_EQ(gclk_scale_floor(b / 3, 3, b, &q, &rest), 0);
	CU_ASSERT(q == 1 && rest == 0);
	GCLK_EQ(gclk_scale_floor(b / 2, 3, b, &q, &rest), 0);
	CU_ASSERT(q == 1 && rest == b / 2);
	GCLK_EQ(gclk_scale_floor(b - 1, UINT64_MAX, b, &q, &rest), 0);
	CU_ASSERT(q == UINT64_MAX - 1 && rest == b - UINT64_MAX);
}

/* a, b < 2^127 of random widths, against a * m = q * b + rest with rest < b. */
GCLK_TEST(ratio, scale_keeps_192_bits)
{
	gclk_u128 rest;
	uint64_t q;

	for (uint64_t i = 0; i < N_RANDOM; i++) {
		uint64_t a1 = gclk_random_bits(), a0 = gclk_random(),
			 m = random_positive() - 1;
		uint64_t b1 = gclk_random_bits() >> 1, b0 = gclk_random() | 1;
		gclk_u128 a = (gclk_u128)a1 << 64 | a0, b = (gclk_u128)b1 << 64 | b0;
		struct wide wa = wide_add(wide_shift(wide_of(a1), 64), wide_of(a0));
		struct wide wb = wide_add(wide_shift(wide_of(b1), 64), wide_of(b0));
		struct wide n = wide_multiply(wa, m), back;

		if (gclk_scale_floor(a, m, b, &q, &rest) < 0) {
			REQUIRE(wide_exceeds_64(n, wb), "m %" PRIu64, m);
			continue;
		}
		REQUIRE(!wide_exceeds_64(n, wb) && rest < b, "m %" PRIu64, m);
		back = wide_add(wide_shift(wide_of((uint64_t)(rest >> 64)), 64),
				wide_of((uint64_t)rest));
		back = wide_add(back, wide_multiply(wb, q));
		REQUIRE(wide_compare(n, back) == 0,
			"a %" PRIx64 "%016" PRIx64 " m %" PRIx64 " b %" PRIx64
			"%016" PRIx64,
			a1, a0, m, b1, b0);
	}
	GCLK_EQ(gclk_scale_floor(1, 1, 0, &q, NULL), -GCLK_RANGE);
	GCLK_EQ(gclk_scale_floor(1, 1, ((gclk_u128)1 << 127) + 1, &q, NULL), -GCLK_RANGE);
	GCLK_EQ(gclk_scale_floor((gclk_u128)1 << 127, 5, (gclk_u128)1 << 127, &q, NULL),
		0);
	GCLK_EQ(q, 5);
}

GCLK_TEST(ratio, ticks_and_ns_are_exact)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_rate rate = random_rate();
		uint64_t from = random_positive() - 1, down, up, near;
		struct wide n = ticks_num(rate, from), d = ticks_den(rate);

		if (gclk_ticks_from_ns_floor(rate, from, &down) == 0 &&
		    gclk_ticks_from_ns_ceil(rate, from, &up) == 0 &&
		    gclk_ticks_from_ns_round(rate, from, &near) == 0) {
			REQUIRE(wide_is_floor(down, n, d) && wide_is_ceil(up, n, d) &&
					wide_is_round(near, n, d),
				"%" PRIu64 " ns at %" PRIu64 "/%" PRIu64 " Hz", from,
				rate.num, rate.den);
		} else {
			REQUIRE(wide_exceeds_64(wide_add(n, d), d), "%" PRIu64 " ns",
				from);
		}
		n = ns_num(rate, from);
		d = wide_of(rate.num);
		if (gclk_ns_from_ticks_floor(rate, from, &down) == 0 &&
		    gclk_ns_from_ticks_ceil(rate, from, &up) == 0 &&
		    gclk_ns_from_ticks_round(rate, from, &near) == 0) {
			REQUIRE(wide_is_floor(down, n, d) && wide_is_ceil(up, n, d) &&
				wide_is_round(near, n, d), "%" PRIu64 " ticks at %" PRIu64
				"/%" PRIu64 " Hz", from, rate.num, rate.den);
		} else {
			REQUIRE(wide_exceeds_64(wide_add(n, d), d), "%" PRIu64 " ticks",
				from);
		}
	}
}

/* A tick begins at ceil(its ns): going there and back gives the tick again. */
GCLK_TEST(ratio, ticks_return_through_ns)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_rate rate = gclk_rate_of_hz(1 + gclk_random_below(NS_PER_S));
		uint64_t ticks = gclk_random_below(UINT64_C(1) << 40), ns;
		uint64_t back = 0, before = 0;
		int64_t a = 0, b = 0;

		if (gclk_ns_from_ticks_ceil(rate, ticks, &ns) < 0) {
			continue;	/* 2^40 ticks of a few Hz */
		}
		REQUIRE(gclk_ticks_from_ns_floor(rate, ns, &back) == 0 && back == ticks,
			"%" PRIu64 " ticks at %" PRIu64 " Hz: %" PRIu64, ticks, rate.num,
			back);
		REQUIRE(ns == 0 ||
				(gclk_ticks_from_ns_floor(rate, ns - 1, &before) == 0 &&
				 before < ticks),
			"%" PRIu64 " ticks", ticks);
		/* signed: floor joins adjacent spans, ceil(-x) = -floor(x) */
		REQUIRE(gclk_ns_from_ticks_floor_i64(rate, -(int64_t)ticks, &a) == 0 &&
			a == -(int64_t)ns, "%" PRIu64 " ticks back", ticks);
		REQUIRE(gclk_ns_from_ticks_ceil_i64(rate, (int64_t)ticks, &b) == 0 &&
				b == -a,
			"%" PRIu64 " ticks", ticks);
		REQUIRE(gclk_ticks_from_ns_floor_i64(rate, -(int64_t)ns, &a) == 0 &&
			wide_is_ceil(magnitude(a), ticks_num(rate, ns), ticks_den(rate)),
			"-%" PRIu64 " ns", ns);
	}
}

GCLK_TEST(ratio, ticks_are_monotone)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_rate rate = random_rate();
		int64_t a = (int64_t)gclk_random() >> gclk_random_below(64);
		int64_t b = (int64_t)gclk_random() >> gclk_random_below(64), ta, tb;

		if (gclk_ticks_from_ns_floor_i64(rate, GCLK_MIN(a, b), &ta) == 0 &&
		    gclk_ticks_from_ns_floor_i64(rate, GCLK_MAX(a, b), &tb) == 0) {
			REQUIRE(ta <= tb, "%" PRId64 " and %" PRId64 " ns", a, b);
		}
	}
}

/* A span in pieces with one carry is the span at once, in both directions. */
GCLK_TEST(ratio, carry_loses_nothing)
{
	for (uint64_t i = 0; i < N_RANDOM / 10; i++) {
		struct gclk_rate rate = random_rate();
		uint64_t carry_t = 0, carry_n = 0, sum = 0, ticks = 0, ns = 0, part,
			 whole;

		for (int k = 0; k < 20; k++) {
			uint64_t piece = gclk_random_bits() >> 20;

			if (gclk_ticks_from_ns_carry(rate, piece, &carry_t, &part) < 0) {
				break;
			}
			ticks += part;
			sum += piece;
		}
		if (gclk_ticks_from_ns_floor(rate, sum, &whole) < 0) {
			continue;
		}
		REQUIRE(ticks == whole,
			"%" PRIu64 " ns at %" PRIu64 "/%" PRIu64 " Hz: %" PRIu64
			" and %" PRIu64,
			sum, rate.num, rate.den, ticks, whole);
		sum = 0;
		for (int k = 0; k < 20; k++) {
			uint64_t piece = gclk_random_bits() >> 40;

			if (gclk_ns_from_ticks_carry(rate, piece, &carry_n, &part) < 0) {
				break;
			}
			ns += part;
			sum += piece;
		}
		if (gclk_ns_from_ticks_floor(rate, sum, &whole) < 0) {
			continue;
		}
		REQUIRE(ns == whole,
			"%" PRIu64 " ticks at %" PRIu64 "/%" PRIu64 " Hz: %" PRIu64
			" and %" PRIu64,
			sum, rate.num, rate.den, ns, whole);
	}
}

GCLK_TEST(ratio, carry_keeps_its_value_on_failure)
{
	struct gclk_rate rate = gclk_rate_of_hz(32768);
	uint64_t carry = NS_PER_S - 1, ticks = 7, ns = 7;

	GCLK_EQ(gclk_ticks_from_ns_carry(rate, 30518, &carry, &ticks), 0);
	GCLK_EQ(ticks,
		2); /* one of the span, one that only 1 ns / 10^9 was missing for */
	carry = NS_PER_S;	/* a whole tick */
	GCLK_EQ(gclk_ticks_from_ns_carry(rate, 1, &carry, &ticks), -GCLK_RANGE);
	GCLK_EQ(carry, NS_PER_S);
	GCLK_EQ(ticks, 2);
	carry = 32768;
	GCLK_EQ(gclk_ns_from_ticks_carry(rate, 1, &carry, &ns), -GCLK_RANGE);
	carry = 5;
	GCLK_EQ(gclk_ns_from_ticks_carry(gclk_rate_of_hz(1), UINT64_MAX, &carry, &ns),
		-GCLK_RANGE);
	carry = 5;
	GCLK_EQ(gclk_ns_from_ticks_carry(rate, UINT64_MAX, &carry, &ns), -GCLK_RANGE);
	GCLK_EQ(carry, 5);
	GCLK_EQ(ns, 7);
	rate.den = 0;
	GCLK_EQ(gclk_ticks_from_ns_carry(rate, 1, &carry, &ticks), -GCLK_RANGE);
	GCLK_EQ(gclk_ns_from_ticks_carry(rate, 1, &carry, &ns), -GCLK_RANGE);
}

/* The worked periods and elapsed counts of PIT and HPET (their devices test the rest). */
GCLK_TEST(ratio, device_rates)
{
	static const struct {
		struct gclk_rate rate;
		uint64_t ticks, ns;	/* ns is floored */
	} rows[] = {
		{ { 1193182, 1 }, 65536, 54925401 },
		{ { 1193182, 1 }, 11932, 10000150 },
		{ { 1193182, 1 }, 1193, 999847 },
		{ { UINT64_C(1000000000000000), 10000000 }, 100, 1000 },
		{ { UINT64_C(1000000000000000), 69841279 }, 14318179, 999999934 },
		{ { 3579545, 1 }, 16777216, 4686968874 },
	};
	uint64_t value = 7;

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		GCLK_EQ(gclk_ns_from_ticks_floor(rows[i].rate, rows[i].ticks, &value), 0);
		GCLK_EQ(value, rows[i].ns);
	}
	GCLK_EQ(gclk_ticks_from_ns_floor(gclk_rate_of_period_fs(69841279), NS_PER_S,
					 &value),
		0);
	GCLK_EQ(value, 14318179);
	GCLK_EQ(gclk_ticks_from_ns_floor(gclk_rate_of_hz(32768), 86400 * NS_PER_S,
					 &value),
		0);
	GCLK_EQ(value / 4, 707788800);
}

GCLK_TEST(ratio, rate_reduces_and_refuses)
{
	struct gclk_rate rate = { 7, 7 };

	GCLK_EQ(gclk_rate_make((gclk_u128)24000000 * 200, 2, &rate), 0); /* CPUID 0x15 */
	CU_ASSERT(rate.num == 2400000000 && rate.den == 1);
	GCLK_EQ(gclk_rate_make((gclk_u128)1 << 100, (gclk_u128)1 << 90, &rate), 0);
	CU_ASSERT(rate.num == 1024 && rate.den == 1);
	GCLK_EQ(gclk_rate_make(0, 1, &rate), -GCLK_RANGE);
	GCLK_EQ(gclk_rate_make(1, 0, &rate), -GCLK_RANGE);
	GCLK_EQ(gclk_rate_make(((gclk_u128)1 << 64) + 1, 2, &rate), -GCLK_RANGE);
	GCLK_EQ(gclk_rate_make(1, GCLK_RATE_DEN_MAX + 1, &rate), -GCLK_RANGE);
	CU_ASSERT(rate.num == 1024 && rate.den == 1);
	CU_ASSERT(!gclk_rate_is_valid((struct gclk_rate){ 0, 1 }));
	CU_ASSERT(!gclk_rate_is_valid((struct gclk_rate){ 1, 0 }));
	CU_ASSERT(!gclk_rate_is_valid((struct gclk_rate){ 1, GCLK_RATE_DEN_MAX + 1 }));
	CU_ASSERT(gclk_rate_is_valid((struct gclk_rate){ 1, GCLK_RATE_DEN_MAX }));
	GCLK_EQ(gclk_rate_compare(gclk_rate_of_khz(3), gclk_rate_of_hz(3000)), 0);
	GCLK_EQ(gclk_rate_compare(gclk_rate_of_hz(2999), gclk_rate_of_khz(3)), -1);
	GCLK_EQ(gclk_rate_compare((struct gclk_rate){ 10, 3 }, gclk_rate_of_hz(3)), 1);
	GCLK_EQ(gclk_rate_hz_floor((struct gclk_rate){ 11, 3 }), 3);
	GCLK_EQ(gclk_rate_hz_round((struct gclk_rate){ 11, 3 }), 4);
	GCLK_EQ(gclk_rate_hz_round((struct gclk_rate){ 10, 4 }), 3);
}

/* 250 ppm is 21.6 s a day; 1 kHz at 2.1 GHz is 476 ppb. */
GCLK_TEST(ratio, rate_error_known_values)
{
	struct gclk_rate host = gclk_rate_of_khz(2000000);
	int64_t ppb = 7, ns = 7;
	uint64_t bound = 7;

	GCLK_EQ(gclk_rate_error_ppb_round(gclk_rate_of_khz(2000500), host, &ppb), 0);
	GCLK_EQ(ppb, 250000);
	GCLK_EQ(gclk_rate_error_ns_per_day(gclk_rate_of_khz(2000500), host, &ns), 0);
	GCLK_EQ(ns, INT64_C(21600000000));
	GCLK_EQ(gclk_ns_per_day_from_ppb(250000, &ns), 0);
	GCLK_EQ(ns, INT64_C(21600000000));
	GCLK_EQ(gclk_rate_error_ppb_round(gclk_rate_of_khz(2099999),
					  gclk_rate_of_khz(2100000), &ppb),
		0);
	GCLK_EQ(ppb, -476);
	GCLK_EQ(gclk_rate_error_ppb_bound(gclk_rate_of_khz(2099999),
					  gclk_rate_of_khz(2100000), &bound),
		0);
	GCLK_EQ(bound, 477);	/* 476.19 */
	GCLK_EQ(gclk_rate_error_ppb_bound(gclk_rate_of_khz(2100001),
					  gclk_rate_of_khz(2100000), &bound),
		0);
	GCLK_EQ(bound, 477);
	GCLK_EQ(gclk_rate_error_ppb_bound(host, host, &bound), 0);
	GCLK_EQ(bound, 0);
	GCLK_EQ(gclk_rate_error_ppb_round((struct gclk_rate){ 1, 0 }, host, &ppb),
		-GCLK_RANGE);
	GCLK_EQ(gclk_rate_error_ppb_round(gclk_rate_of_hz(UINT64_MAX), gclk_rate_of_hz(1),
					  &ppb),
		-GCLK_RANGE);
	GCLK_EQ(gclk_ns_per_day_from_ppb(INT64_MAX / 86400 + 1, &ns), -GCLK_RANGE);
	GCLK_EQ(gclk_drift_ns_ceil(3600 * NS_PER_S, 250), 900000); /* 0.9 ms an hour */
	GCLK_EQ(gclk_drift_ns_ceil(1, 1), 1);
	GCLK_EQ(gclk_drift_ns_ceil(UINT64_MAX, UINT64_MAX), UINT64_MAX);
	GCLK_EQ(gclk_drift_ns_ceil(0, 5), 0);
}

GCLK_TEST(ratio, rate_error_is_exact)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_rate actual = random_rate(), nominal = random_rate();
		struct wide a = wide_of_product(actual.num, nominal.den);
		struct wide n = wide_of_product(nominal.num, actual.den), error;
		bool slow = wide_compare(a, n) < 0;
		int64_t ppb, day;
		uint64_t bound;

		if (gclk_rate_error_ppb_round(actual, nominal, &ppb) < 0 ||
		    gclk_rate_error_ppb_bound(actual, nominal, &bound) < 0 ||
		    gclk_rate_error_ns_per_day(actual, nominal, &day) < 0) {
			/* 2^63 ns are 106751.99 days: only gross ones are refused */
			REQUIRE(wide_compare(a, wide_multiply(n, 106751)) > 0, "%" PRIu64,
				i);
			continue;
		}
		error = slow ? wide_subtract(n, a) : wide_subtract(a, n);
		REQUIRE(wide_is_ceil(bound, wide_multiply(error, NS_PER_S), n),
			"%" PRIu64, bound);
		error = wide_multiply(error, NS_PER_S);
		REQUIRE(slow ? wide_is_round_ties_down(magnitude(ppb), error, n) :
			       wide_is_round((uint64_t)ppb, error, n), "%" PRId64, ppb);
		error = wide_multiply(error, 86400);
		REQUIRE(slow ? wide_is_ceil(magnitude(day), error, n) :
			       wide_is_floor((uint64_t)day, error, n), "%" PRId64, day);
	}
}
