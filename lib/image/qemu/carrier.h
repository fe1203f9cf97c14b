/* SPDX-License-Identifier: MIT */
/* Stock QEMU as a carrier: what it honours of a state that comes through its stream. */
#ifndef GCLK_IMAGE_QEMU_CARRIER_H
#define GCLK_IMAGE_QEMU_CARRIER_H

#include <guestclock/plan.h>

/**
 * gclk_qemu_carrier() - the rows for a captured state
 * @state:	its accelerator, machine and RTC axis choose
 */
const struct gclk_carrier *gclk_qemu_carrier(const struct gclk_state *state);

#endif
