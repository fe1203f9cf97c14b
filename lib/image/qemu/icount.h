/* SPDX-License-Identifier: MIT */
/* The shared axis of a guest whose emulator counts instructions (-icount). */
#ifndef GCLK_IMAGE_QEMU_ICOUNT_H
#define GCLK_IMAGE_QEMU_ICOUNT_H

#include <guestclock/state.h>

#define GCLK_ICOUNT_SHIFT_MAX 10	/* of the emulator */

/* The axis where an instruction takes 2^@shift ns; 0 where that does not fit. */
int gclk_icount_at(const struct gclk_virtual_clock *clock, unsigned shift, int64_t *ret_ns);

/**
 * gclk_icount_axis() - where the axis stood, the shift not being known
 * @state:	as read: icount, icount_bias_ns, and the emulated timers
 *
 * A fixed shift is an option of the emulator that streams do not carry; it is the one for
 * which no armed timer is overdue and nothing was loaded in the future.
 *
 * Returns 0 when no shift, or more than one, fits.
 */
int gclk_icount_axis(const struct gclk_state *state, int64_t *ret_ns);

#endif
