/* SPDX-License-Identifier: MIT */
/*
 * Hosts from the inside: what <guestclock/kvm.h> is made of.
 *
 * What tsc_hz means
 * -----------------
 * Plans give instants on CLOCK_REALTIME, so what they need is how many ticks the TSC
 * makes in one second of that clock in the long run. Linux makes its clocks out of
 * the TSC in two steps, and we follow both:
 *
 *	CLOCK_MONOTONIC_RAW = TSC * mult / 2^shift	mult from the kernel's tsc_khz
 *	CLOCK_REALTIME rate = RAW rate * (1 + correction)	adjtimex(2): tick and freq
 *
 * hence tsc_hz = (ticks per second of RAW) / (1 + correction), where ticks per second of
 * RAW come from the best of
 *
 *	basis    taken when                                             error against RAW
 *	KERNEL   clocksource is tsc, KVM tells tsc_khz                  none but 1 Hz
 *	CPUID    clocksource is tsc, and the leaf agrees with the       kHz rounding + mult
 *	         kernel's kHz, or the kernel has tsc_known_freq
 *	MEASURED a measurement was asked for                            both brackets / its length
 *
 * and a CPUID or KERNEL figure that the measurement contradicts is dropped.
 *
 * What tsc_hz_ppb covers
 * ----------------------
 *	- the error of the table's last column: "mult" is the rounding of the kernel's
 *	  multiplier (at most 120 ppb at 2.5 GHz), "kHz rounding" 0.5 kHz / f;
 *	- while the wall clock is disciplined, 1 ppm for what the discipline still gets
 *	  wrong: then tsc_hz holds against true time, not only against this host's clock;
 *	- a slew in progress, by as much as CLOCK_REALTIME was seen to run otherwise than
 *	  the correction says;
 *	- 500 ppm, the largest correction of the kernel's, where adjtimex(2) is not allowed
 *	  and nothing was measured.
 *
 * It does not cover how far the wall clock of a host without discipline runs from true
 * time: nothing on that host knows. GCLK_HOST_SYNCHRONISED is then absent.
 */
#ifndef GCLK_KVM_HOST_H
#define GCLK_KVM_HOST_H

#include <guestclock/kvm.h>

#include "core/ratio.h"

/*
 * gclk_host_read() with files and devices below @root ("" for the real ones), so that
 * tests can show it any host. System calls and CPUID are this machine's.
 */
int gclk_host_read_at(const char *root, struct gclk_host *ret_host, uint64_t measure_ns,
		      struct gclk_error *reterr);

/* A rate of the TSC and how far off it can be. Not there: basis GCLK_TSC_UNKNOWN. */
struct gclk_tsc_guess {
	struct gclk_rate rate;
	uint64_t ppb;
	uint8_t basis;		/* enum gclk_tsc_basis */
};

/* What a choice of the TSC's rate is made from. */
struct gclk_tsc_evidence {
	uint32_t kernel_khz;		/* KVM_GET_TSC_KHZ; 0: not known */
	uint8_t clocksource_is_tsc;
	uint8_t known_freq;		/* the kernel took its kHz from the processor */
	struct gclk_rate cpuid;		/* num 0: no leaf tells */
	struct gclk_tsc_guess raw;	/* measured against CLOCK_MONOTONIC_RAW */
	struct gclk_tsc_guess real;	/* the same, against CLOCK_REALTIME */
	uint8_t synchronised;
	uint8_t correction_known;
	int64_t correction;		/* of the wall clock, positive: faster; 2^-16 ppm */
};

/**
 * gclk_tsc_choose() - the TSC's rate against CLOCK_REALTIME, by the table above
 *
 * Rounding: to whole Hz, 1 Hz added to ppb, where a correction applies; exact elsewhere.
 * Returns a guess whose basis is GCLK_TSC_UNKNOWN where there is no evidence.
 */
struct gclk_tsc_guess gclk_tsc_choose(const struct gclk_tsc_evidence *evidence);

/**
 * gclk_tsc_measured() - ticks per second from two bracketed samples
 * @ticks:	between the samples
 * @ns:		between them, on the clock measured against
 * @width_ns:	of both brackets together
 *
 * Basis GCLK_TSC_UNKNOWN where a clock stood still or the brackets are wider than the span.
 */
struct gclk_tsc_guess gclk_tsc_measured(uint64_t ticks, int64_t ns, uint64_t width_ns);

/**
 * gclk_clocksource_rate() - ticks in a second of CLOCK_MONOTONIC_RAW, for a TSC of @khz
 * Exactly: the kernel's mult and shift follow from its kHz. Measured at 2499998 kHz over
 * 60 s: 2499997913.838 Hz +- 0.8 ppb, where this gives 2499997913.839.
 */
struct gclk_rate gclk_clocksource_rate(uint64_t khz);

/* Upper bound of the rounding of the kernel's multiplier for a TSC of @khz > 0. */
uint64_t gclk_clocksource_rounding_ppb(uint64_t khz);

/**
 * gclk_tsc_rate_from_cpuid() - CPUID 0x15 and 0x16
 * @leaf15:	EAX denominator, EBX numerator, ECX crystal in Hz
 * @base_mhz:	leaf 0x16 EAX, which stands in for a crystal that is not told; 0: no leaf
 *
 * Returns num 0 where the leaves do not tell.
 * Source: Intel SDM volume 2A, CPUID
 */
struct gclk_rate gclk_tsc_rate_from_cpuid(const uint32_t leaf15[4], uint32_t base_mhz);

/* adjtimex's tick (us per USER_HZ) and freq as one correction in 2^-16 ppm. */
int64_t gclk_ntp_correction(int64_t tick_us, int64_t user_hz, int64_t freq);

#endif
