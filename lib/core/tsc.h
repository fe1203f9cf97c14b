/* SPDX-License-Identifier: MIT */
/*
 * How a guest's TSC is made from the host's:
 *
 *	guest = ((host * ratio) >> frac_bits) + offset		(modulo 2^64)
 *
 * ratio is a fixed-point number with frac_bits fractional bits: 48 on Intel (16.48),
 * 32 on AMD (8.32). Where the ratio is 1 hardware skips the multiplication, and the
 * formula gives the same. All sums are modulo 2^64: an offset is negative for a guest
 * that is younger than its host, and unsigned arithmetic needs no case for it.
 *
 * Each floor in (scale, elapsed * rate) loses less than one cycle.
 */
#ifndef GCLK_CORE_TSC_H
#define GCLK_CORE_TSC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/ratio.h"

#define GCLK_TSC_FRAC_INTEL 48
#define GCLK_TSC_FRAC_AMD 32

/* KVM's default of its parameter tsc_tolerance_ppm. */
#define GCLK_TSC_TOLERANCE_PPM 250

struct gclk_tsc_scaling {
	uint64_t ratio;		/* fixed point; gclk_tsc_ratio_one() is 1.0 */
	unsigned frac_bits;	/* GCLK_TSC_FRAC_*: 1..63 */
	uint64_t offset;	/* cycles of the guest, modulo 2^64 */
};

static inline uint64_t gclk_tsc_ratio_one(unsigned frac_bits)
{
	return UINT64_C(1) << frac_bits;
}

/* The largest ratio that hardware holds: 2^64-1 on Intel, 0xFFFFFFFFFF (8.32) on AMD. */
static inline uint64_t gclk_tsc_ratio_max(unsigned frac_bits)
{
	return frac_bits == GCLK_TSC_FRAC_AMD ? UINT64_C(0xffffffffff) : UINT64_MAX;
}

/**
 * gclk_tsc_ratio_floor() - the ratio that KVM programs for two frequencies
 * @frac_bits:	GCLK_TSC_FRAC_INTEL or GCLK_TSC_FRAC_AMD
 * @guest_khz:	frequency of the guest's TSC, kHz (or any unit shared with @host_khz)
 * @host_khz:	frequency of the host's TSC
 * @ret_ratio:	floor(2^frac_bits * guest / host)
 *
 * Errors: GCLK_RANGE where it is 0, or not below gclk_tsc_ratio_max(), as KVM refuses it;
 *         GCLK_UNSUPPORTED for any other frac_bits
 */
int gclk_tsc_ratio_floor(unsigned frac_bits, uint64_t guest_khz, uint64_t host_khz,
			 uint64_t *ret_ratio);

/* The same for exact rates. KVM, working in kHz, may arrive at another. */
int gclk_tsc_ratio_of_rates_floor(unsigned frac_bits, struct gclk_rate guest,
				  struct gclk_rate host, uint64_t *ret_ratio);

/**
 * gclk_tsc_rate_scaled_floor() - the rate at which a scaled TSC really runs
 * @host:	the host's TSC
 * @ratio:	as programmed
 * @frac_bits:	of the ratio
 * @ret:	host * ratio / 2^frac_bits
 *
 * Rounding: exact where the fraction is a valid rate, which it is for AMD's ratios;
 *           otherwise lower by less than 10^-12 of itself
 * Errors: GCLK_RANGE where that cannot be held or an argument is not valid
 */
int gclk_tsc_rate_scaled_floor(struct gclk_rate host, uint64_t ratio, unsigned frac_bits,
			       struct gclk_rate *ret);

/* max_guest_tsc_khz of KVM: SET_TSC_KHZ takes less than this. */
uint64_t gclk_tsc_khz_limit(unsigned frac_bits, uint64_t host_khz);

/* (host * ratio) >> frac_bits, modulo 2^64. */
static inline uint64_t gclk_tsc_scale(uint64_t host_tsc, uint64_t ratio,
				      unsigned frac_bits)
{
	return gclk_mulshift_wrap(host_tsc, ratio, frac_bits);
}

/*
 * The kHz from which released kernels derive a scaled guest's kvmclock: 1 kHz below the
 * wish whenever the ratio was truncated.
 */
static inline uint64_t gclk_tsc_khz_scaled_floor(uint64_t host_khz, uint64_t ratio,
						 unsigned frac_bits)
{
	return gclk_tsc_scale(host_khz, ratio, frac_bits);
}

/* What the guest reads when the host's TSC is @host_tsc. */
static inline uint64_t gclk_tsc_guest_at(const struct gclk_tsc_scaling *scaling,
					 uint64_t host_tsc)
{
	return gclk_tsc_scale(host_tsc, scaling->ratio, scaling->frac_bits) +
	       scaling->offset;
}

/* The offset with which the guest reads @guest_tsc when the host's TSC is @host_tsc. */
static inline uint64_t gclk_tsc_offset_for(uint64_t guest_tsc, uint64_t host_tsc,
					   uint64_t ratio, unsigned frac_bits)
{
	return guest_tsc - gclk_tsc_scale(host_tsc, ratio, frac_bits);
}

/**
 * gclk_tsc_compose() - the scaling of a nested guest, seen from the host
 * @l1:	host to L1
 * @l2:	L1 to L2, as L1 programmed it, with the same frac_bits
 * @ret:	host to L2
 *
 * Rounding: as KVM: the product of the ratios is floored, L1's offset is scaled as a
 *           signed number by magnitude, towards zero. While L1's TSC does not wrap, the
 *           reading is within (host_tsc + l2 ratio) * 2^-frac_bits + 2 cycles of scaling
 *           in two steps
 * Errors: GCLK_RANGE where frac_bits differ or the ratio needs more than 64 bits
 */
int gclk_tsc_compose(const struct gclk_tsc_scaling *l1, const struct gclk_tsc_scaling *l2,
		     struct gclk_tsc_scaling *ret);

/* The frequencies that KVM takes for the host's own: floor of +-ppm, both inclusive. */
void gclk_tsc_tolerance_khz(uint64_t host_khz, uint32_t ppm, uint64_t *ret_low,
			    uint64_t *ret_high);

/* Whether KVM would leave a guest of @guest_khz unscaled, in silence. */
bool gclk_tsc_is_tolerated_khz(uint64_t guest_khz, uint64_t host_khz, uint32_t ppm);

/**
 * gclk_tsc_advance() - a TSC value some time later
 * @tsc:	value now
 * @rate:	of the guest's TSC
 * @elapsed_ns:	how much later; negative is earlier
 * @ret:	tsc + floor(elapsed * rate), modulo 2^64
 *
 * Errors: GCLK_RANGE where the elapsed ticks exceed 63 bits
 */
int gclk_tsc_advance(uint64_t tsc, struct gclk_rate rate, int64_t elapsed_ns,
		     uint64_t *ret);

/**
 * gclk_tsc_move() - the offset that continues a guest's TSC on another host
 * @src:	the scaling on the source
 * @src_host_tsc:	the source's TSC at the reference instant
 * @rate:	of the guest's TSC
 * @elapsed_ns:	from that instant to the destination's reference instant
 * @dst_host_tsc:	the destination's TSC there
 * @dst:	in: ratio and frac_bits on the destination; out: its offset
 *
 * Errors: as gclk_tsc_advance(), @dst is then unchanged
 */
int gclk_tsc_move(const struct gclk_tsc_scaling *src, uint64_t src_host_tsc,
		  struct gclk_rate rate, int64_t elapsed_ns, uint64_t dst_host_tsc,
		  struct gclk_tsc_scaling *dst);

/**
 * gclk_tsc_offset_by_kvmclock() - the procedure in KVM's documentation of TSC_OFFSET
 * @src_offset:	offset on the source
 * @src_tsc:	host TSC of the source's KVM_GET_CLOCK
 * @src_clock_ns:	its kvmclock
 * @dst_tsc:	host TSC of the destination's KVM_GET_CLOCK
 * @dst_clock_ns:	its kvmclock
 * @rate:	of guest and both hosts
 * @ret_offset:	offset for the destination
 *
 * Keeps the guest's TSC at kvmclock 0. Valid only where both ratios are 1 and @rate is
 * that of both hosts; otherwise it mixes cycles of different clocks: use gclk_tsc_move().
 */
int gclk_tsc_offset_by_kvmclock(uint64_t src_offset, uint64_t src_tsc,
				int64_t src_clock_ns, uint64_t dst_tsc,
				int64_t dst_clock_ns, struct gclk_rate rate,
				uint64_t *ret_offset);

#endif
