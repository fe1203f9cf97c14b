/* SPDX-License-Identifier: MIT */
/* How fast the host's TSC runs: host.h tells what is chosen, and what its ppb covers. */
#include "kvm/host.h"

#include "core/util.h"

#define PPB UINT64_C(1000000000)
#define NTP_ONE (INT64_C(1000000) << 16)	/* a correction of 100 %, in 2^-16 ppm */
#define NTP_LARGEST_PPB 500000			/* what the kernel's freq can hold */
#define NTP_WANDER_PPB 1000

static struct gclk_tsc_guess no_guess(void)
{
	return (struct gclk_tsc_guess){ .basis = GCLK_TSC_UNKNOWN };
}

static uint64_t add_ppb(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* One Hz of rounding, as ppb of @hz. */
static uint64_t one_hz_ppb(uint64_t hz)
{
	return gclk_muldiv_ceil_sat(PPB, 1, hz);
}

/*
 * The kernel writes ns = ticks * mult >> shift with the widest mult for which ten minutes
 * of ticks do not overflow: the bits that 600000 * kHz has above 32 are taken from mult's
 * 32. mult has its top bit set, so rounding it costs at most 0.5 / 2^(bits - 1).
 */
static unsigned mult_bits(uint64_t khz)
{
	uint64_t high = gclk_muldiv_floor_sat(khz, 600000, UINT64_C(1) << 32);
	unsigned bits = 32;

	while (high > 0 && bits > 1) {
		high >>= 1;
		bits--;
	}
	return bits;
}

uint64_t gclk_clocksource_rounding_ppb(uint64_t khz)
{
	return gclk_muldiv_ceil_sat(PPB, 1, UINT64_C(1) << mult_bits(khz));
}

/* The largest shift, of 32 at most, with which mult keeps to its bits. */
struct gclk_rate gclk_clocksource_rate(uint64_t khz)
{
	struct gclk_rate rate = { 0, 1 };
	unsigned bits = mult_bits(khz);
	uint64_t mult = 0;
	unsigned shift = 32;

	for (; khz > 0 && shift > 0; shift--) {
		mult = ((UINT64_C(1000000) << shift) + khz / 2) / khz;
		if (mult >> bits == 0) {
			break;
		}
	}
	if (mult == 0 || mult >> bits ||
	    gclk_rate_make((gclk_u128)PPB << shift, mult, &rate) < 0) {
		return gclk_rate_of_khz((uint32_t)khz);
	}
	return rate;
}

struct gclk_rate gclk_tsc_rate_from_cpuid(const uint32_t leaf15[4], uint32_t base_mhz)
{
	struct gclk_rate none = { 0, 1 }, rate;
	uint32_t den = leaf15[0], num = leaf15[1], crystal_hz = leaf15[2];

	if (den == 0 || num == 0) {
		return none;
	}
	if (crystal_hz == 0) {		/* base = crystal * num / den, told in MHz */
		return (struct gclk_rate){ (uint64_t)base_mhz * 1000000, 1 };
	}
	return gclk_rate_make((gclk_u128)crystal_hz * num, den, &rate) == 0 ? rate : none;
}

int64_t gclk_ntp_correction(int64_t tick_us, int64_t user_hz, int64_t freq)
{
	int64_t ppm;

	/* the kernel keeps a tick within 10 % of 1 s / user_hz */
	if (user_hz < 1 || user_hz > 10000 || tick_us < 1 || tick_us > 2000000 / user_hz) {
		return freq;
	}
	ppm = tick_us * user_hz - 1000000;
	return ppm * 65536 + freq;
}

struct gclk_tsc_guess gclk_tsc_measured(uint64_t ticks, int64_t ns, uint64_t width_ns)
{
	struct gclk_tsc_guess guess = { .basis = GCLK_TSC_MEASURED };
	uint64_t hz;

	if (ns <= 0 || width_ns >= (uint64_t)ns ||
	    gclk_muldiv_round(ticks, GCLK_NS_PER_S, (uint64_t)ns, &hz) < 0 || hz == 0) {
		return no_guess();
	}
	guess.rate = gclk_rate_of_hz(hz);
	/* against the shortest that the span can have been */
	guess.ppb = add_ppb(gclk_muldiv_ceil_sat(width_ns, PPB, (uint64_t)ns - width_ns),
			    one_hz_ppb(hz));
	return guess;
}

/* |a - b| in ppb of b, never below the truth. */
static uint64_t apart_ppb(struct gclk_rate a, struct gclk_rate b)
{
	uint64_t ppb;

	return gclk_rate_error_ppb_bound(a, b, &ppb) == 0 ? ppb : UINT64_MAX;
}

static bool is_contradicted(const struct gclk_tsc_guess *guess,
			    const struct gclk_tsc_guess *measured)
{
	return measured->basis != GCLK_TSC_UNKNOWN &&
	       apart_ppb(guess->rate, measured->rate) > add_ppb(guess->ppb, measured->ppb);
}

/* Digits beyond the Hz are worth less than a ppb, and cost every reader of a profile. */
static struct gclk_tsc_guess in_whole_hz(struct gclk_rate rate, uint8_t basis)
{
	uint64_t hz = gclk_rate_hz_round(rate);

	return (struct gclk_tsc_guess){
		.rate = gclk_rate_of_hz(hz),
		.ppb = rate.den == 1 ? 0 : one_hz_ppb(hz),
		.basis = basis,
	};
}

static struct gclk_tsc_guess guess_by_kernel(const struct gclk_tsc_evidence *e)
{
	if (e->kernel_khz == 0 || !e->clocksource_is_tsc) {
		return no_guess();
	}
	return in_whole_hz(gclk_clocksource_rate(e->kernel_khz), GCLK_TSC_KERNEL);
}

/*
 * The leaf says what the processor was meant to be. The kernel's clocks follow it only
 * where the kernel took it over, rounded to kHz.
 */
static struct gclk_tsc_guess guess_by_cpuid(const struct gclk_tsc_evidence *e)
{
	struct gclk_tsc_guess guess = { .rate = e->cpuid, .basis = GCLK_TSC_CPUID };
	uint64_t hz, rounding_ppb;

	if (!gclk_rate_is_valid(e->cpuid) || !e->clocksource_is_tsc) {
		return no_guess();
	}
	hz = gclk_rate_hz_floor(e->cpuid);
	rounding_ppb = gclk_muldiv_ceil_sat(500, PPB, hz);
	if (hz < 1000 || (e->kernel_khz == 0 && !e->known_freq) ||
	    (e->kernel_khz != 0 && apart_ppb(gclk_rate_of_khz(e->kernel_khz), e->cpuid) >
					   2 * rounding_ppb)) {
		return no_guess();
	}
	guess.ppb = rounding_ppb + gclk_clocksource_rounding_ppb(hz / 1000);
	/* the kernel may cut where we would round */
	guess.ppb += e->kernel_khz != 0 ? rounding_ppb : 0;
	return guess;
}

/* The rate against CLOCK_MONOTONIC_RAW. */
static struct gclk_tsc_guess choose_raw(const struct gclk_tsc_evidence *e)
{
	struct gclk_tsc_guess guess = guess_by_kernel(e);

	if (guess.basis == GCLK_TSC_UNKNOWN || is_contradicted(&guess, &e->raw)) {
		guess = guess_by_cpuid(e);
	}
	if (guess.basis == GCLK_TSC_UNKNOWN || is_contradicted(&guess, &e->raw)) {
		guess = e->raw;
	}
	return guess;
}

/* From ticks per second of RAW to ticks per second of the wall clock. */
static struct gclk_tsc_guess correct(struct gclk_tsc_guess guess, int64_t correction)
{
	gclk_u128 num, den;

	if (correction == 0) {
		return guess;
	}
	if (correction <= -NTP_ONE / 2 || correction >= NTP_ONE / 2) {
		return no_guess();	/* no kernel corrects by half */
	}
	num = (gclk_u128)guess.rate.num * (uint64_t)NTP_ONE;
	den = (gclk_u128)guess.rate.den * (uint64_t)(NTP_ONE + correction);
	num = (num + den / 2) / den;
	if (num == 0 || num > UINT64_MAX) {
		return no_guess();
	}
	guess.rate = gclk_rate_of_hz((uint64_t)num);
	guess.ppb = add_ppb(guess.ppb, one_hz_ppb((uint64_t)num));
	return guess;
}

/* How much faster or slower the wall clock was seen to run than its correction says. */
static uint64_t slew_ppb(const struct gclk_tsc_guess *guess, const struct gclk_tsc_guess *real)
{
	return is_contradicted(guess, real) ? apart_ppb(guess->rate, real->rate) : 0;
}

struct gclk_tsc_guess gclk_tsc_choose(const struct gclk_tsc_evidence *e)
{
	struct gclk_tsc_guess guess = choose_raw(e);

	if (guess.basis == GCLK_TSC_UNKNOWN) {
		return guess;
	}
	if (!e->correction_known && e->real.basis != GCLK_TSC_UNKNOWN) {
		return e->real;
	}
	if (!e->correction_known) {
		guess.ppb = add_ppb(guess.ppb, NTP_LARGEST_PPB);
		return guess;
	}
	guess = correct(guess, e->correction);
	if (guess.basis == GCLK_TSC_UNKNOWN) {
		return guess;
	}
	guess.ppb = add_ppb(guess.ppb, e->synchronised ? NTP_WANDER_PPB : 0);
	guess.ppb = add_ppb(guess.ppb, slew_ppb(&guess, &e->real));
	return guess;
}
