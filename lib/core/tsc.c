/* SPDX-License-Identifier: MIT */
#include "core/tsc.h"

#define KHZ_LIMIT UINT64_C(0x7fffffff)	/* KVM keeps kHz in a signed 32-bit number */
#define MILLION UINT32_C(1000000)
#define RATE_NUM_LEAST (UINT64_C(1) << 40)	/* one unit of it is less than 10^-12 */

static bool frac_bits_exist(unsigned frac_bits)
{
	return frac_bits == GCLK_TSC_FRAC_INTEL || frac_bits == GCLK_TSC_FRAC_AMD;
}

/* KVM refuses 0 and the maximum itself. */
static int ratio_in_limits(uint64_t ratio, unsigned frac_bits, uint64_t *ret_ratio)
{
	if (ratio == 0 || ratio >= gclk_tsc_ratio_max(frac_bits)) {
		return -GCLK_RANGE;
	}
	*ret_ratio = ratio;
	return 0;
}

int gclk_tsc_ratio_floor(unsigned frac_bits, uint64_t guest_khz, uint64_t host_khz,
			 uint64_t *ret_ratio)
{
	uint64_t ratio;
	int r;

	if (!frac_bits_exist(frac_bits)) {
		return -GCLK_UNSUPPORTED;
	}
	r = gclk_muldiv_floor(guest_khz, gclk_tsc_ratio_one(frac_bits), host_khz, &ratio);
	return r < 0 ? r : ratio_in_limits(ratio, frac_bits, ret_ratio);
}

int gclk_tsc_ratio_of_rates_floor(unsigned frac_bits, struct gclk_rate guest,
				  struct gclk_rate host, uint64_t *ret_ratio)
{
	uint64_t ratio;
	int r;

	if (!frac_bits_exist(frac_bits)) {
		return -GCLK_UNSUPPORTED;
	}
	if (!gclk_rate_is_valid(guest) || !gclk_rate_is_valid(host)) {
		return -GCLK_RANGE;
	}
	r = gclk_scale_floor((gclk_u128)guest.num * host.den,
			     gclk_tsc_ratio_one(frac_bits),
			     (gclk_u128)host.num * guest.den, &ratio, NULL);
	return r < 0 ? r : ratio_in_limits(ratio, frac_bits, ret_ratio);
}

/*
 * A 16.48 ratio times Hz has some 80 bits, a rate's numerator 64. The excess is taken off
 * both ends of the fraction: exact below, where host.den * 2^frac_bits gives up zeros,
 * and less than one unit of the numerator above.
 */
int gclk_tsc_rate_scaled_floor(struct gclk_rate host, uint64_t ratio, unsigned frac_bits,
			       struct gclk_rate *ret)
{
	gclk_u128 num = (gclk_u128)host.num * ratio, den = host.den;
	unsigned excess = 0;

	if (!gclk_rate_is_valid(host) || ratio == 0 || frac_bits > 63) {
		return -GCLK_RANGE;
	}
	den <<= frac_bits;
	if (gclk_rate_make(num, den, ret) == 0) {
		return 0;
	}
	while (num >> excess > UINT64_MAX || den >> excess > GCLK_RATE_DEN_MAX) {
		excess++;
	}
	if (den >> excess << excess != den || num >> excess < RATE_NUM_LEAST) {
		return -GCLK_RANGE;
	}
	return gclk_rate_make(num >> excess, den >> excess, ret);
}

uint64_t gclk_tsc_khz_limit(unsigned frac_bits, uint64_t host_khz)
{
	gclk_u128 limit =
		(gclk_u128)gclk_tsc_ratio_max(frac_bits) * host_khz >> frac_bits;

	return limit < KHZ_LIMIT ? (uint64_t)limit : KHZ_LIMIT;
}

/* A signed offset through L2's ratio as KVM does it: magnitude first, then the sign. */
static uint64_t scale_offset(uint64_t offset, uint64_t ratio, unsigned frac_bits)
{
	bool negative = offset >> 63;
	uint64_t scaled =
		gclk_tsc_scale(negative ? 0 - offset : offset, ratio, frac_bits);

	return negative ? 0 - scaled : scaled;
}

int gclk_tsc_compose(const struct gclk_tsc_scaling *l1, const struct gclk_tsc_scaling *l2,
		     struct gclk_tsc_scaling *ret)
{
	unsigned frac_bits = l1->frac_bits;
	gclk_u128 ratio = (gclk_u128)l1->ratio * l2->ratio >> frac_bits;

	if (l2->frac_bits != frac_bits || ratio > gclk_tsc_ratio_max(frac_bits)) {
		return -GCLK_RANGE;
	}
	*ret = (struct gclk_tsc_scaling){
		.ratio = (uint64_t)ratio,
		.frac_bits = frac_bits,
		.offset = scale_offset(l1->offset, l2->ratio, frac_bits) + l2->offset,
	};
	return 0;
}

void gclk_tsc_tolerance_khz(uint64_t host_khz, uint32_t ppm, uint64_t *ret_low,
			    uint64_t *ret_high)
{
	uint32_t below = GCLK_MIN(ppm, MILLION);

	*ret_low = gclk_muldiv_floor_sat(host_khz, MILLION - below, MILLION);
	*ret_high = gclk_muldiv_floor_sat(host_khz, (uint64_t)MILLION + ppm, MILLION);
}

bool gclk_tsc_is_tolerated_khz(uint64_t guest_khz, uint64_t host_khz, uint32_t ppm)
{
	uint64_t low, high;

	gclk_tsc_tolerance_khz(host_khz, ppm, &low, &high);
	return low <= guest_khz && guest_khz <= high;
}

int gclk_tsc_advance(uint64_t tsc, struct gclk_rate rate, int64_t elapsed_ns,
		     uint64_t *ret)
{
	int64_t ticks;
	int r = gclk_ticks_from_ns_floor_i64(rate, elapsed_ns, &ticks);

	if (r < 0) {
		return r;
	}
	*ret = tsc + (uint64_t)ticks;
	return 0;
}

int gclk_tsc_move(const struct gclk_tsc_scaling *src, uint64_t src_host_tsc,
		  struct gclk_rate rate, int64_t elapsed_ns, uint64_t dst_host_tsc,
		  struct gclk_tsc_scaling *dst)
{
	uint64_t tsc;
	int r = gclk_tsc_advance(gclk_tsc_guest_at(src, src_host_tsc), rate, elapsed_ns,
				 &tsc);

	if (r < 0) {
		return r;
	}
	dst->offset = gclk_tsc_offset_for(tsc, dst_host_tsc, dst->ratio, dst->frac_bits);
	return 0;
}

int gclk_tsc_offset_by_kvmclock(uint64_t src_offset, uint64_t src_tsc,
				int64_t src_clock_ns, uint64_t dst_tsc,
				int64_t dst_clock_ns, struct gclk_rate rate,
				uint64_t *ret_offset)
{
	int64_t elapsed_ns;

	if (__builtin_sub_overflow(dst_clock_ns, src_clock_ns, &elapsed_ns)) {
		return -GCLK_RANGE;
	}
	return gclk_tsc_advance(src_offset + (src_tsc - dst_tsc), rate, elapsed_ns,
				ret_offset);
}
