/* SPDX-License-Identifier: MIT */
/* The shared axis of a guest whose emulator counts instructions (-icount). */
#ifndef GCLK_IMAGE_QEMU_ICOUNT_H
#define GCLK_IMAGE_QEMU_ICOUNT_H

#include <guestclock/state.h>

/**
 * gclk_icount_axis() - where the axis stood
 * @state:	as read: icount, icount_bias_ns, and the emulated timers
 *
 * It is bias + (icount << shift). The shift is an option of the emulator that streams do not
 * carry (shift=auto excepted, which changes as it runs), so it is found: the one shift for
 * which no armed timer is overdue and nothing was loaded in the future.
 *
 * Returns 0 when no shift, or more than one, fits.
 */
int gclk_icount_axis(const struct gclk_state *state, int64_t *ret_ns);

#endif
