/* SPDX-License-Identifier: MIT */
/* Hosts, and the KVM descriptors of the caller's own process. */
#ifndef GUESTCLOCK_KVM_H
#define GUESTCLOCK_KVM_H

#include <guestclock/plan.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * gclk_host_read() - this host's profile, and a sample of its clocks
 * @ret_host:	filled as far as this process may look; what could not be read is absent
 * @measure_ns:	how long to measure the TSC against CLOCK_MONOTONIC_RAW; 0: not at all
 *
 * tsc_hz is what the TSC makes in one second of CLOCK_REALTIME in the long run, as the
 * kernel steers that clock. tsc_hz_ppb covers the rounding on the way (120 ppb at 2.5 GHz
 * where the kernel's kHz is known, the width of the brackets where it was measured), 1 ppm
 * for the discipline of a synchronised wall clock, and a slew in progress. It does not
 * cover the error of a wall clock without discipline: GCLK_HOST_SYNCHRONISED is then absent.
 *
 * Opens /dev/kvm, /proc and /sys, and closes all of them again: call it before a
 * sandbox closes. Errors: none for what is merely missing; GCLK_SYS when even
 * the clocks cannot be read.
 */
int gclk_host_read(struct gclk_host *ret_host, uint64_t measure_ns, struct gclk_error *reterr);

/**
 * gclk_host_sample() - one bracketed reading of the host's clocks into @host
 *
 * The narrowest of several brackets; its width is sample_width_ns. Opens nothing.
 */
int gclk_host_sample(struct gclk_host *host, struct gclk_error *reterr);

/**
 * gclk_host_missing() - what gclk_host_read() could not learn
 * @index:	0.. until NULL comes back
 * Returns the name of an absent field of struct gclk_host.
 */
const char *gclk_host_missing(const struct gclk_host *host, unsigned index);

#ifdef __cplusplus
}
#endif
#endif
