/* SPDX-License-Identifier: MIT */
#ifndef GCLK_DEVICES_STATE_H
#define GCLK_DEVICES_STATE_H

#include <guestclock/state.h>

/*
 * How many vCPUs a state has room for: n_vcpus may be set to anything from 1 up
 * to it, for instance by who fills the state from a bundle.
 */
uint32_t gclk_state_capacity(const struct gclk_state *state);

#endif
