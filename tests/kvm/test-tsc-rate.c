/* SPDX-License-Identifier: MIT */
/* Choosing the TSC's rate: whatever is chosen, its ppb covers the truth. */
#include "gclk-test.h"

#include "core/util.h"
#include "kvm/host.h"

#define KHZ 2500000

static struct gclk_tsc_guess guess(uint64_t hz, uint64_t ppb)
{
	return (struct gclk_tsc_guess){ gclk_rate_of_hz(hz), ppb, GCLK_TSC_MEASURED };
}

/* |hz - truth| <= ppb of truth, in whole numbers. */
static bool covers(const struct gclk_tsc_guess *g, uint64_t truth_hz)
{
	gclk_u128 a = g->rate.num, b = (gclk_u128)truth_hz * g->rate.den;
	gclk_u128 apart = a > b ? a - b : b - a;

	return apart * 1000000000 <= (gclk_u128)g->ppb * b;
}

GCLK_TEST(tsc_rate, nothing_known_is_unknown)
{
	struct gclk_tsc_evidence e = { .correction_known = 1 };

	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_UNKNOWN);
	e.kernel_khz = KHZ;	/* which another clocksource does not follow */
	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_UNKNOWN);
}

GCLK_TEST(tsc_rate, kernel_khz_is_exact_with_its_multiplier)
{
	struct gclk_tsc_evidence e = {
		.kernel_khz = KHZ, .clocksource_is_tsc = 1, .correction_known = 1,
	};
	struct gclk_tsc_guess g = gclk_tsc_choose(&e);

	GCLK_EQ(g.basis, GCLK_TSC_KERNEL);
	GCLK_EQ(g.rate.num, UINT64_C(2500000149));	/* mult 6710886, shift 24 */
	GCLK_EQ(g.rate.den, 1);
	GCLK_EQ(g.ppb, 1);
	e.kernel_khz = 2499998;			/* measured: 2499997913.838 */
	GCLK_EQ(gclk_tsc_choose(&e).rate.num, UINT64_C(2499997914));
	e.kernel_khz = 1000000;
	g = gclk_tsc_choose(&e);
	GCLK_EQ(g.rate.num, UINT64_C(1000000000));
	GCLK_EQ(g.ppb, 0);
}

GCLK_TEST(tsc_rate, discipline_costs_one_ppm)
{
	struct gclk_tsc_evidence e = {
		.kernel_khz = KHZ, .clocksource_is_tsc = 1, .correction_known = 1,
		.synchronised = 1,
	};

	GCLK_EQ(gclk_tsc_choose(&e).ppb, 1001);
}

/* +20 ppm: the wall clock runs faster than RAW, so the TSC makes fewer ticks per second. */
GCLK_TEST(tsc_rate, correction_is_followed)
{
	struct gclk_tsc_evidence e = {
		.kernel_khz = KHZ, .clocksource_is_tsc = 1, .correction_known = 1,
		.correction = 20 * 65536,
	};

	GCLK_EQ(gclk_tsc_choose(&e).rate.num, 2499950150);	/* 2.5e9 / 1.00002 */
	e.correction = -20 * 65536;
	GCLK_EQ(gclk_tsc_choose(&e).rate.num, 2500050150);	/* 2.5e9 / 0.99998 */
}

GCLK_TEST(tsc_rate, correction_of_half_is_no_correction)
{
	struct gclk_tsc_evidence e = {
		.kernel_khz = KHZ, .clocksource_is_tsc = 1, .correction_known = 1,
		.correction = INT64_MIN,
	};

	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_UNKNOWN);
	e.correction = INT64_MAX;
	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_UNKNOWN);
}

GCLK_TEST(tsc_rate, without_adjtimex_the_wall_clock_itself_or_500_ppm)
{
	struct gclk_tsc_evidence e = { .kernel_khz = KHZ, .clocksource_is_tsc = 1 };

	GCLK_EQ(gclk_tsc_choose(&e).ppb, 500001);
	e.real = guess(2499950000, 900);
	GCLK_EQ(gclk_tsc_choose(&e).rate.num, 2499950000);
	GCLK_EQ(gclk_tsc_choose(&e).ppb, 900);
}

GCLK_TEST(tsc_rate, measurement_overrules_what_it_contradicts)
{
	struct gclk_tsc_evidence e = {
		.kernel_khz = KHZ, .clocksource_is_tsc = 1, .correction_known = 1,
	};
	struct gclk_tsc_guess g;

	e.raw = guess(2500002000, 1000);	/* 800 ppb away: within both */
	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_KERNEL);
	e.raw = guess(2500250000, 1000);	/* 100 ppm */
	g = gclk_tsc_choose(&e);
	GCLK_EQ(g.basis, GCLK_TSC_MEASURED);
	GCLK_EQ(g.rate.num, 2500250000);
	GCLK_EQ(g.ppb, 1000);
}

GCLK_TEST(tsc_rate, slew_in_progress_is_covered)
{
	struct gclk_tsc_evidence e = {
		.kernel_khz = KHZ, .clocksource_is_tsc = 1, .correction_known = 1,
		.raw = guess(2500000000, 1000),
		.real = guess(2498750000, 1000),	/* -500 ppm */
	};
	struct gclk_tsc_guess g = gclk_tsc_choose(&e);

	GCLK_EQ(g.rate.num, 2500000149);
	CU_ASSERT(covers(&g, 2498750000));
	CU_ASSERT(g.ppb < 502000);
}

/* 24 MHz * 188 / 2 = 2.256 GHz; 25 MHz * 250 / 3 is not a whole number of Hz. */
GCLK_TEST(tsc_rate, cpuid_is_a_ratio)
{
	const uint32_t skylake[4] = { 2, 188, 24000000, 0 };
	const uint32_t thirds[4] = { 3, 250, 25000000, 0 };
	const uint32_t no_crystal[4] = { 2, 188, 0, 0 };
	const uint32_t no_ratio[4] = { 0, 0, 24000000, 0 };
	const uint32_t hostile[4] = { UINT32_MAX, UINT32_MAX, UINT32_MAX, 0 };
	struct gclk_rate rate = gclk_tsc_rate_from_cpuid(skylake, 0);

	GCLK_EQ(rate.num, 2256000000);
	GCLK_EQ(rate.den, 1);
	rate = gclk_tsc_rate_from_cpuid(thirds, 0);
	GCLK_EQ(rate.num, 6250000000);
	GCLK_EQ(rate.den, 3);
	GCLK_EQ(gclk_tsc_rate_from_cpuid(no_crystal, 2300).num, 2300000000);
	GCLK_EQ(gclk_tsc_rate_from_cpuid(no_crystal, 0).num, 0);
	GCLK_EQ(gclk_tsc_rate_from_cpuid(no_ratio, 2300).num, 0);
	GCLK_EQ(gclk_tsc_rate_from_cpuid(hostile, 0).num, UINT32_MAX);
}

GCLK_TEST(tsc_rate, cpuid_counts_where_the_kernel_took_it)
{
	struct gclk_tsc_evidence e = {
		.clocksource_is_tsc = 1, .correction_known = 1, .known_freq = 1,
		.cpuid = { 6250000000, 3 },
	};
	struct gclk_tsc_guess g = gclk_tsc_choose(&e);

	GCLK_EQ(g.basis, GCLK_TSC_CPUID);
	GCLK_EQ(g.rate.num, 6250000000);
	GCLK_EQ(g.rate.den, 3);
	CU_ASSERT(covers(&g, 2083333000));	/* which the kernel's clocks follow */
	e.kernel_khz = 2083333;			/* and of which the kernel's own word is exact */
	CU_ASSERT(covers(&g, gclk_tsc_choose(&e).rate.num));
	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_KERNEL);
	GCLK_EQ(gclk_tsc_choose(&e).ppb, 1);
	e.kernel_khz = 0;
	e.known_freq = 0;			/* nobody says that it took it */
	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_UNKNOWN);
	e.known_freq = 1;
	e.cpuid = gclk_rate_of_hz(12);		/* no processor */
	GCLK_EQ(gclk_tsc_choose(&e).basis, GCLK_TSC_UNKNOWN);
}

GCLK_TEST(tsc_rate, measured_covers_its_brackets)
{
	unsigned i, n = 100000 * gclk_test_scale(), failures = 0;

	for (i = 0; i < n; i++) {
		uint64_t hz = 1000000 + gclk_random_below(UINT64_C(6000000000));
		int64_t ns = 1000000 + (int64_t)gclk_random_below(2000000000);
		uint64_t width = 1 + gclk_random_below(10000);
		int64_t read = ns + (int64_t)gclk_random_below(2 * width + 1) - (int64_t)width;
		uint64_t ticks;
		struct gclk_tsc_guess g;

		/* ticks in the true span, seen against a clock off by up to the width */
		if (gclk_ticks_from_ns_round(gclk_rate_of_hz(hz), (uint64_t)ns, &ticks) < 0) {
			continue;
		}
		g = gclk_tsc_measured(ticks, read, width);
		/* ticks are whole: half a tick of the span is not the brackets' */
		g.ppb += 1000000000 / (ticks + 1) + 1;
		failures += g.basis != GCLK_TSC_MEASURED || !covers(&g, hz);
	}
	GCLK_EQ(failures, 0);
}

GCLK_TEST(tsc_rate, measured_without_a_span_is_unknown)
{
	GCLK_EQ(gclk_tsc_measured(1000, 0, 1).basis, GCLK_TSC_UNKNOWN);
	GCLK_EQ(gclk_tsc_measured(1000, -5, 1).basis, GCLK_TSC_UNKNOWN);
	GCLK_EQ(gclk_tsc_measured(1000, 100, 100).basis, GCLK_TSC_UNKNOWN);
	GCLK_EQ(gclk_tsc_measured(0, 1000000, 100).basis, GCLK_TSC_UNKNOWN);
	GCLK_EQ(gclk_tsc_measured(UINT64_MAX, 1, 0).basis, GCLK_TSC_UNKNOWN);
}

/* The kernel's way to a multiplier, retold: the widest that ten minutes do not overflow. */
static uint64_t true_rounding_ppb(uint64_t khz)
{
	unsigned room = 32, shift;
	uint64_t mult = 0, high = (khz * 600000) >> 32;
	gclk_u128 exact, have, apart;

	for (; high > 0; high >>= 1) {
		room--;
	}
	for (shift = 32; shift > 0; shift--) {
		mult = ((UINT64_C(1000000) << shift) + khz / 2) / khz;
		if (mult >> room == 0) {
			break;
		}
	}
	exact = (gclk_u128)1000000 << shift;
	have = (gclk_u128)mult * khz;
	apart = exact > have ? exact - have : have - exact;
	return (uint64_t)((apart * 1000000000 + exact - 1) / exact);
}

GCLK_TEST(tsc_rate, multiplier_rounding_is_covered)
{
	unsigned i, n = 100000 * gclk_test_scale(), failures = 0, close = 0;

	for (i = 0; i < n; i++) {
		uint64_t khz = 1000 + gclk_random_below(9999000);
		uint64_t bound = gclk_clocksource_rounding_ppb(khz);
		uint64_t truth = true_rounding_ppb(khz);

		failures += truth > bound;
		close += truth * 2 > bound;
	}
	GCLK_EQ(failures, 0);
	CU_ASSERT(close > n / 10);	/* the bound is not just large */
	GCLK_EQ(gclk_clocksource_rounding_ppb(2500000), 120);
	GCLK_EQ(gclk_clocksource_rounding_ppb(5000000), 239);
}

GCLK_TEST(tsc_rate, correction_joins_tick_and_freq)
{
	GCLK_EQ(gclk_ntp_correction(10000, 100, 0), 0);
	GCLK_EQ(gclk_ntp_correction(10000, 100, -65536), -65536);
	GCLK_EQ(gclk_ntp_correction(10001, 100, 65536), 101 * 65536);
	GCLK_EQ(gclk_ntp_correction(1000, 1000, 7), 7);
	GCLK_EQ(gclk_ntp_correction(0, 100, 7), 7);
	GCLK_EQ(gclk_ntp_correction(10000, 0, 7), 7);
	GCLK_EQ(gclk_ntp_correction(INT64_MAX, 100, 7), 7);
}
