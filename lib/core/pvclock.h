/* SPDX-License-Identifier: MIT */
/*
 * pvclock: the page through which KVM and Xen give a guest its time, and Hyper-V's
 * reference TSC page, which KVM derives from it.
 *
 *	offset  0  u32  version			odd while the host is writing
 *	        4  u32  pad
 *	        8  u64  tsc_timestamp		guest TSC at system_time
 *	       16  u64  system_time		ns
 *	       24  u32  tsc_to_system_mul	32.32 fixed point, integer part 0
 *	       28  s8   tsc_shift
 *	       29  u8   flags
 *	       30  u8   pad[2]
 *
 *	ns = system_time + ((((tsc - tsc_timestamp) << shift) * mul) >> 32)
 *
 * with >> -shift for a negative shift, and a product of 96 bits. All is little-endian.
 */
#ifndef GCLK_CORE_PVCLOCK_H
#define GCLK_CORE_PVCLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/ratio.h"
#include "core/time.h"

#define GCLK_PVCLOCK_BYTES 32
#define GCLK_PVCLOCK_WALL_BYTES 12
#define GCLK_HV_TSC_PAGE_BYTES 24	/* of the 4096, the part with a meaning */

#define GCLK_PVCLOCK_TSC_STABLE 0x01	/* monotonic across vCPUs */
#define GCLK_PVCLOCK_GUEST_STOPPED 0x02	/* watchdogs should forgive one pause */

/* A rate as the guest sees it: ns = (ticks << shift) * mul / 2^32. */
struct gclk_pvclock_scale {
	uint32_t mul;
	int8_t shift;
};

/**
 * gclk_pvclock_scale_from_hz() - mul and shift as KVM derives them
 * @to_hz:	frequency of the result's unit: 10^9 for ns
 * @from_hz:	frequency of the counter
 * @ret:	so that result = (counter << shift) * mul / 2^32
 *
 * Rounding: mul is floored, which makes the result slow; a counter of more than twice
 *           @to_hz loses low bits, which makes it fast: less than 2^-29 + 2 / to_hz of
 *           itself, and less than 1 ppb for ns of a counter of 0.5..6 GHz
 * Errors: GCLK_RANGE where a frequency is 0 or the shift is outside -31..31
 */
int gclk_pvclock_scale_from_hz(uint64_t to_hz, uint64_t from_hz,
			       struct gclk_pvclock_scale *ret);

/* The frequency that a scale stands for, exactly: 10^9 * 2^32 / (mul * 2^shift) Hz. */
int gclk_pvclock_scale_to_rate(struct gclk_pvclock_scale scale, struct gclk_rate *ret);

/* ((delta << shift) * mul) >> 32, shifted in 64 bits as the guest does; |shift| <= 63. */
uint64_t gclk_pvclock_scale_delta(struct gclk_pvclock_scale scale, uint64_t delta);

struct gclk_pvclock {
	uint32_t version;
	uint64_t tsc_timestamp;
	uint64_t system_time_ns;
	struct gclk_pvclock_scale scale;
	uint8_t flags;			/* GCLK_PVCLOCK_* */
};

/**
 * gclk_pvclock_parse() - a page from a guest's memory or from KVM
 * @bytes:	GCLK_PVCLOCK_BYTES
 * @ret:	the page
 *
 * Errors: GCLK_STATE for an odd version (copied while it was being written: copy again),
 *         GCLK_MALFORMED for a multiplier of 0 (never filled in), |shift| > 31, or bits
 *         in the padding
 */
int gclk_pvclock_parse(const uint8_t bytes[GCLK_PVCLOCK_BYTES], struct gclk_pvclock *ret,
		       struct gclk_error *reterr);

void gclk_pvclock_write(const struct gclk_pvclock *pv, uint8_t bytes[GCLK_PVCLOCK_BYTES]);

/* What the guest computes at @tsc, be it before tsc_timestamp or after: modulo 2^64. */
uint64_t gclk_pvclock_ns_wrap(const struct gclk_pvclock *pv, uint64_t tsc);

/* The same, to be relied on: -GCLK_RANGE where @tsc < tsc_timestamp, or on overflow. */
int gclk_pvclock_ns_at(const struct gclk_pvclock *pv, uint64_t tsc, uint64_t *ret_ns);

/* Wall-clock time at kvmclock 0: version u32, seconds u32, ns u32. */
struct gclk_pvclock_wall {
	uint32_t version;
	uint32_t seconds;
	uint32_t ns;
};

/* Errors: GCLK_STATE for an odd version, GCLK_MALFORMED where ns >= 10^9. */
int gclk_pvclock_wall_parse(const uint8_t bytes[GCLK_PVCLOCK_WALL_BYTES],
			    struct gclk_pvclock_wall *ret, struct gclk_error *reterr);
gclk_real gclk_pvclock_wall_at_zero(const struct gclk_pvclock_wall *wall);

/*
 * Hyper-V's reference TSC page: sequence u32 @0, scale u64 @8, offset s64 @16;
 * units of 100 ns = ((tsc * scale) >> 64) + offset.
 */
struct gclk_hv_tsc_page {
	uint32_t sequence;	/* 0: not valid, the guest reads the MSR instead */
	uint64_t scale;
	int64_t offset;		/* units of 100 ns */
};

/**
 * gclk_hv_tsc_page_from_pvclock() - the page that KVM makes of a pvclock
 * @pv:	with TSC_STABLE
 * @ret:	scale and offset; sequence is left 0, it is the host's to choose
 *
 * Rounding: scale, system_time / 100 and the scaled timestamp are each floored
 * Errors: GCLK_UNSUPPORTED without TSC_STABLE, GCLK_RANGE where the scale exceeds 64 bits
 */
int gclk_hv_tsc_page_from_pvclock(const struct gclk_pvclock *pv,
				  struct gclk_hv_tsc_page *ret);

void gclk_hv_tsc_page_parse(const uint8_t bytes[GCLK_HV_TSC_PAGE_BYTES],
			    struct gclk_hv_tsc_page *ret);
void gclk_hv_tsc_page_write(const struct gclk_hv_tsc_page *page,
			    uint8_t bytes[GCLK_HV_TSC_PAGE_BYTES]);

/* Whether a guest would use the page: sequence neither 0 nor the reserved 0xFFFFFFFF. */
bool gclk_hv_tsc_page_is_valid(const struct gclk_hv_tsc_page *page);

/* Reference time in units of 100 ns at @tsc, modulo 2^64. */
uint64_t gclk_hv_tsc_page_time_at(const struct gclk_hv_tsc_page *page, uint64_t tsc);

#endif
