/* SPDX-License-Identifier: MIT */
#include "core/tsc.h"
#include "property.h"

static const unsigned fracs[] = { GCLK_TSC_FRAC_INTEL, GCLK_TSC_FRAC_AMD };

GCLK_TEST(tsc, ratio_vectors)
{
	static const struct {
		uint64_t guest_khz, host_khz, intel, amd, scaled_intel, scaled_amd,
			floor_khz;
	} rows[] = {
		{ 2100000, 2593906, 0xcf4147fb804d, 0xcf4147fb,
		  0xebcf653e029e25, 0xebcf653d70a3d6, 2099999 },
		{ 2593906, 2100000, 0x13c35a15ae765, 0x13c35a15a,
		  0x167c6b0c2735d4a, 0x167c6b0c16c16c0, 2593905 },
		{ 1500000, 2000000, 0xc00000000000, 0xc0000000,
		  0xda740da740da73, 0xda740da740da73, 1500000 },
		{ 2345678, 2900000, 0xcf11165eabd8, 0xcf11165e,
		  0xeb988fc7dff6e4, 0xeb988fc71c71c6, 2345677 },
		{ 3000000, 2400000, 0x1400000000000, 0x140000000,
		  0x16c16c16c16c16a, 0x16c16c16c16c16a, 3000000 },
	};
	uint64_t ratio = 7;

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_INTEL, rows[i].guest_khz,
					     rows[i].host_khz, &ratio), 0);
		GCLK_EQ(ratio, rows[i].intel);
		GCLK_EQ(gclk_tsc_scale(0x0123456789ABCDEF, ratio, GCLK_TSC_FRAC_INTEL),
			rows[i].scaled_intel);
		GCLK_EQ(gclk_tsc_khz_scaled_floor(rows[i].host_khz, ratio,
						  GCLK_TSC_FRAC_INTEL),
			rows[i].floor_khz);
		GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_AMD, rows[i].guest_khz,
					     rows[i].host_khz, &ratio), 0);
		GCLK_EQ(ratio, rows[i].amd);
		GCLK_EQ(gclk_tsc_scale(0x0123456789ABCDEF, ratio, GCLK_TSC_FRAC_AMD),
			rows[i].scaled_amd);
		GCLK_EQ(gclk_tsc_khz_scaled_floor(rows[i].host_khz, ratio,
						  GCLK_TSC_FRAC_AMD),
			rows[i].floor_khz);
	}
}

GCLK_TEST(tsc, ratio_limits)
{
	uint64_t ratio = 7;

	GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_AMD, 255999, 1000, &ratio), 0);
	GCLK_EQ(ratio, 0xffffbe76c8);
	/* 256 needs a ninth integer bit; 0xFFFFFFFFFF itself is refused as KVM does */
	GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_AMD, 256000, 1000, &ratio),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_AMD, 0xffffffffff, UINT64_C(1) << 32,
				     &ratio),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_INTEL, 65536, 1, &ratio), -GCLK_RANGE);
	GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_INTEL, 0, 1000, &ratio), -GCLK_RANGE);
	GCLK_EQ(gclk_tsc_ratio_floor(GCLK_TSC_FRAC_INTEL, 1000, 0, &ratio), -GCLK_RANGE);
	GCLK_EQ(gclk_tsc_ratio_floor(40, 1000, 1000, &ratio), -GCLK_UNSUPPORTED);
	GCLK_EQ(gclk_tsc_ratio_of_rates_floor(40, gclk_rate_of_hz(1), gclk_rate_of_hz(1),
					      &ratio),
		-GCLK_UNSUPPORTED);
	GCLK_EQ(gclk_tsc_ratio_of_rates_floor(48, (struct gclk_rate){ 1, 0 },
					      gclk_rate_of_hz(1), &ratio),
		-GCLK_RANGE);
	GCLK_EQ(ratio, 0xffffbe76c8);
	GCLK_EQ(gclk_tsc_khz_limit(GCLK_TSC_FRAC_AMD, 2000000), 511999999);
	GCLK_EQ(gclk_tsc_khz_limit(GCLK_TSC_FRAC_INTEL, 2000000), 0x7fffffff);
	GCLK_EQ(gclk_tsc_khz_limit(GCLK_TSC_FRAC_INTEL, 1000), 65535999);
}

GCLK_TEST(tsc, ratio_is_exact)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		unsigned frac = fracs[i & 1];
		uint64_t guest = gclk_random_bits(), host = gclk_random_bits(), ratio;
		struct wide n = wide_shift(wide_of(guest), frac);

		if (gclk_tsc_ratio_floor(frac, guest, host, &ratio) < 0) {
			REQUIRE(host == 0 || wide_compare(n, wide_of(host)) < 0 ||
					wide_compare(n,
						     wide_of_product(host,
								     gclk_tsc_ratio_max(
									     frac))) >= 0,
				"%" PRIu64 " / %" PRIu64, guest, host);
			continue;
		}
		REQUIRE(wide_is_floor(ratio, n, wide_of(host)) &&
				ratio < gclk_tsc_ratio_max(frac),
			"%" PRIu64 " / %" PRIu64 " = %" PRIx64, guest, host, ratio);
	}
}

static struct gclk_rate random_tsc_rate(void)
{
	uint64_t den = 1 + gclk_random_below(1000);

	return (struct gclk_rate){ (500000000 + gclk_random_below(5500000000)) * den +
				   gclk_random_below(den), den };
}

/* ratio_of_rates is exact; the rate that results is the wish less the quantisation. */
GCLK_TEST(tsc, scaled_rate_is_the_wish_less_quantisation)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		unsigned frac = fracs[i & 1];
		struct gclk_rate host = random_tsc_rate(), guest = random_tsc_rate(),
				 real;
		struct wide n = wide_shift(wide_of_product(guest.num, host.den), frac),
			    truth, got;
		uint64_t ratio = 0, bound = 0;

		REQUIRE(gclk_tsc_ratio_of_rates_floor(frac, guest, host, &ratio) == 0 &&
			wide_is_floor(ratio, n, wide_of_product(host.num, guest.den)),
			"%" PRIx64, ratio);
		REQUIRE(gclk_tsc_rate_scaled_floor(host, ratio, frac, &real) == 0 &&
			gclk_rate_is_valid(real), "%" PRIx64, ratio);
		/* truth - got, over truth, is in 0 .. 10^-12 */
		truth = wide_multiply(wide_of_product(host.num, ratio), real.den);
		got = wide_multiply(wide_shift(wide_of(host.den), frac), real.num);
		REQUIRE(wide_compare(got, truth) <= 0, "%" PRIx64, ratio);
		REQUIRE(wide_compare(
				wide_multiply(wide_subtract(truth, got), 1000000000000),
				truth) < 0,
			"%" PRIx64, ratio);
		/* 2^-32 / ratio on AMD: 0.23 ppb at 1.0, 2.8 ppb at 1/12 */
		REQUIRE(gclk_rate_compare(real, guest) <= 0 &&
				gclk_rate_error_ppb_bound(real, guest, &bound) == 0 &&
				bound <= (frac == GCLK_TSC_FRAC_AMD ? 3 : 1),
			"%" PRIu64 " ppb", bound);
	}
}

GCLK_TEST(tsc, scaled_rate_on_amd_is_exact)
{
	struct gclk_rate rate;

	GCLK_EQ(gclk_tsc_rate_scaled_floor(gclk_rate_of_khz(2593906), 0xcf4147fb,
					   GCLK_TSC_FRAC_AMD, &rate), 0);
	CU_ASSERT((gclk_u128)rate.num << 32 ==
		  (gclk_u128)2593906000 * 0xcf4147fb * rate.den);
	GCLK_EQ(gclk_tsc_rate_scaled_floor(gclk_rate_of_khz(2000000), 0xc00000000000,
					   GCLK_TSC_FRAC_INTEL, &rate), 0);
	CU_ASSERT(rate.num == 1500000000 && rate.den == 1);
	GCLK_EQ(gclk_tsc_rate_scaled_floor(gclk_rate_of_hz(1), 0, 48, &rate),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_rate_scaled_floor(gclk_rate_of_hz(1), 1, 64, &rate),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_rate_scaled_floor((struct gclk_rate){ 0, 1 }, 1, 48, &rate),
		-GCLK_RANGE);
	/* numerators of 17 bits and of none; a denominator that is odd in its low bits */
	GCLK_EQ(gclk_tsc_rate_scaled_floor(gclk_rate_of_hz(1), (UINT64_C(1) << 30) + 1,
					   48, &rate),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_rate_scaled_floor((struct gclk_rate){ UINT64_MAX,
							       (UINT64_C(1) << 33) + 1 },
					   UINT64_MAX, 48, &rate),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_rate_scaled_floor(gclk_rate_of_hz(1), 1, 48, &rate),
		-GCLK_RANGE);
}

/* (host * ratio) >> frac modulo 2^64 against schoolbook; an offset gives any value. */
GCLK_TEST(tsc, scale_and_offset_are_exact)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		unsigned frac = fracs[i & 1];
		uint64_t host = gclk_random_bits(), wish = gclk_random(),
			 ratio = gclk_random_bits();
		struct wide product = wide_of_product(host, ratio);
		struct gclk_tsc_scaling s = { .ratio = ratio, .frac_bits = frac };
		uint64_t expected = 0;

		for (unsigned bit = 0; bit < 64; bit++) {
			unsigned from = bit + frac;

			expected |= (uint64_t)(product.digit[from / 32] >> from % 32 & 1)
				    << bit;
		}
		REQUIRE(gclk_tsc_scale(host, ratio, frac) == expected,
			"%" PRIx64 " * %" PRIx64, host, ratio);
		s.offset = gclk_tsc_offset_for(wish, host, ratio, frac);
		REQUIRE(gclk_tsc_guest_at(&s, host) == wish, "%" PRIx64, wish);
	}
}

GCLK_TEST(tsc, unit_ratio_changes_nothing)
{
	for (size_t i = 0; i < GCLK_COUNT(fracs); i++) {
		uint64_t one = gclk_tsc_ratio_one(fracs[i]), ratio = 7;

		GCLK_EQ(gclk_tsc_scale(UINT64_MAX, one, fracs[i]), UINT64_MAX);
		GCLK_EQ(gclk_tsc_ratio_floor(fracs[i], 2593906, 2593906, &ratio), 0);
		GCLK_EQ(ratio, one);
	}
}

static uint64_t random_ratio(unsigned frac)	/* 1/8 .. 8 */
{
	uint64_t one = gclk_tsc_ratio_one(frac);

	return one / 8 + gclk_random_below(one * 8);
}

/* Host to L2 at once and in two steps, within the bound that the header states. */
GCLK_TEST(tsc, nested_composition)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		unsigned frac = fracs[i & 1];
		uint64_t host = gclk_random() >> (4 + gclk_random_below(40)),
			 r1 = random_ratio(frac);
		struct gclk_tsc_scaling l1 = { r1, frac, 0 },
					l2 = { random_ratio(frac), frac, gclk_random() },
					both;
		uint64_t bound = ((host + l2.ratio) >> frac) + 2;
		int64_t difference;

		/* L1 younger or older than the host, its TSC within 0..2^63 */
		l1.offset = gclk_random_below(gclk_tsc_guest_at(&l1, host) / 2 + 1);
		l1.offset = gclk_random() & 1 ? 0 - l1.offset : l1.offset;
		REQUIRE(gclk_tsc_compose(&l1, &l2, &both) == 0, "%" PRIx64 " %" PRIx64,
			l1.ratio, l2.ratio);
		REQUIRE(wide_is_floor(both.ratio, wide_of_product(l1.ratio, l2.ratio),
				      wide_shift(wide_of(1), frac)),
			"%" PRIx64, both.ratio);
		difference =
			(int64_t)(gclk_tsc_guest_at(&both, host) -
				  gclk_tsc_guest_at(&l2, gclk_tsc_guest_at(&l1, host)));
		REQUIRE((uint64_t)llabs(difference) <= bound, "%" PRId64 " > %" PRIu64,
			difference, bound);
	}
}

GCLK_TEST(tsc, nested_known_values)
{
	struct gclk_tsc_scaling half = { UINT64_C(1) << 31, 32, (uint64_t)-1001 };
	struct gclk_tsc_scaling twice = { UINT64_C(1) << 33, 32, 5 }, both, keep;
	struct gclk_tsc_scaling other = { UINT64_C(1) << 48, 48, 0 };

	GCLK_EQ(gclk_tsc_compose(&half, &twice, &both), 0);
	GCLK_EQ(both.ratio, UINT64_C(1) << 32);
	GCLK_EQ(both.offset, -1997);
	/* -1001 * 0.5 goes towards zero */
	GCLK_EQ(gclk_tsc_compose(&half, &half, &both), 0);
	GCLK_EQ(both.offset, -500 - 1001);
	keep = both;
	GCLK_EQ(gclk_tsc_compose(&half, &other, &both), -GCLK_RANGE);
	twice.ratio = UINT64_C(0xffffffffff);
	GCLK_EQ(gclk_tsc_compose(&twice, &twice, &both), -GCLK_RANGE);
	CU_ASSERT(both.ratio == keep.ratio && both.offset == keep.offset);
}

GCLK_TEST(tsc, tolerance)
{
	uint64_t low, high;

	gclk_tsc_tolerance_khz(2000000, GCLK_TSC_TOLERANCE_PPM, &low, &high);
	GCLK_EQ(low, 1999500);
	GCLK_EQ(high, 2000500);
	gclk_tsc_tolerance_khz(2593906, GCLK_TSC_TOLERANCE_PPM, &low, &high);
	GCLK_EQ(low, 2593257);
	GCLK_EQ(high, 2594554);
	CU_ASSERT(gclk_tsc_is_tolerated_khz(2593257, 2593906, 250));
	CU_ASSERT(gclk_tsc_is_tolerated_khz(2594554, 2593906, 250));
	CU_ASSERT(!gclk_tsc_is_tolerated_khz(2593256, 2593906, 250));
	CU_ASSERT(!gclk_tsc_is_tolerated_khz(2594555, 2593906, 250));
	CU_ASSERT(gclk_tsc_is_tolerated_khz(2000000, 2000000, 0));
	CU_ASSERT(!gclk_tsc_is_tolerated_khz(2000001, 2000000, 0));
	gclk_tsc_tolerance_khz(2000000, 2000000, &low, &high);	/* more than all of it */
	GCLK_EQ(low, 0);
	GCLK_EQ(high, 6000000);
}

GCLK_TEST(tsc, migration_as_documented)
{
	uint64_t offset = 0;
	struct gclk_rate rate = gclk_rate_of_khz(2000000);

	GCLK_EQ(gclk_tsc_offset_by_kvmclock((uint64_t)-INT64_C(2900000000000),
					    3000000000000, 50000000000, 900000000000,
					    51500000123, rate, &offset),
		0);
	GCLK_EQ(offset, -INT64_C(796999999754));
	/* the guest's TSC, before and after */
	GCLK_EQ(3000000000000 + (uint64_t)-INT64_C(2900000000000), 100000000000);
	GCLK_EQ(900000000000 + offset, 103000000246);
	GCLK_EQ(gclk_tsc_offset_by_kvmclock(0, 0, INT64_MIN, 0, 1, rate, &offset),
		-GCLK_RANGE);
	GCLK_EQ(gclk_tsc_offset_by_kvmclock(0, 0, 0, 0, INT64_MAX, rate, &offset),
		-GCLK_RANGE);
	GCLK_EQ(offset, -INT64_C(796999999754));
}

GCLK_TEST(tsc, migration_with_scaling)
{
	struct gclk_tsc_scaling src = { 0xcf4147fb804d, 48,
					(uint64_t)-INT64_C(4000000000000) };
	struct gclk_tsc_scaling dst = { .frac_bits = 48 };
	struct gclk_rate rate = gclk_rate_of_khz(2100000);
	uint64_t tsc;

	GCLK_EQ(gclk_tsc_ratio_floor(48, 2100000, 2900000, &dst.ratio), 0);
	GCLK_EQ(dst.ratio, 0xb9611a7b9611);
	GCLK_EQ(gclk_tsc_guest_at(&src, 5000000000000), 47949308880);
	GCLK_EQ(gclk_tsc_advance(47949308880, rate, 1234567890, &tsc), 0);
	GCLK_EQ(tsc, 50541901449);
	GCLK_EQ(gclk_tsc_scale(123456789012, dst.ratio, 48), 89399743767);
	GCLK_EQ(gclk_tsc_move(&src, 5000000000000, rate, 1234567890, 123456789012, &dst),
		0);
	GCLK_EQ(dst.offset, -INT64_C(38857842318));
	GCLK_EQ(gclk_tsc_guest_at(&dst, 123456789012), 50541901449);
	GCLK_EQ(gclk_tsc_move(&src, 0, rate, INT64_MAX, 0, &dst), -GCLK_RANGE);
	GCLK_EQ(dst.offset, -INT64_C(38857842318));
}

/* Elapsed 0 keeps the value; a move there and back, too; earlier is floored downwards. */
GCLK_TEST(tsc, move_is_continuous)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		unsigned frac = fracs[i & 1];
		struct gclk_rate rate = random_tsc_rate();
		struct gclk_tsc_scaling src = { random_ratio(frac), frac, gclk_random() };
		struct gclk_tsc_scaling dst = { random_ratio(frac), frac, 0 };
		uint64_t a = gclk_random(), b = gclk_random(), there = 0, back = 0;
		int64_t ns = (int64_t)gclk_random_below(3600000000000);

		REQUIRE(gclk_tsc_move(&src, a, rate, 0, b, &dst) == 0 &&
			gclk_tsc_guest_at(&dst, b) == gclk_tsc_guest_at(&src, a),
			"%" PRIx64 " %" PRIx64, a, b);
		REQUIRE(gclk_tsc_advance(a, rate, ns, &there) == 0 &&
			gclk_tsc_advance(there, rate, -ns, &back) == 0 && a - back <= 1,
			"%" PRIu64 " -> %" PRIu64 " -> %" PRIu64, a, there, back);
	}
}
