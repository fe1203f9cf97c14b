/* SPDX-License-Identifier: MIT */
/* A clock state and its message. */
#ifndef GCLK_BUNDLE_STATE_H
#define GCLK_BUNDLE_STATE_H

#include <guestclock/state.h>

#include "guestclock/v1/state.pb-c.h"

/**
 * gclk_message_from_state() - write a state into its message
 * @message:	new, or with earlier content: what the state has no place for stays
 * @state:	valid
 */
int gclk_message_from_state(Guestclock__V1__ClockState *message,
			    const struct gclk_state *state, ProtobufCAllocator *mem,
			    struct gclk_error *reterr);

/* Fills and validates @state; on failure it is empty. */
int gclk_state_from_message(struct gclk_state *state,
			    const Guestclock__V1__ClockState *message,
			    struct gclk_error *reterr);

/* How many vCPUs a message's state has, at least 1. */
uint32_t gclk_message_n_vcpus(const Guestclock__V1__ClockState *message);

/* Bytes on their way out: counted always, written while they fit. */
struct gclk_sink {
	uint8_t *buf;
	size_t size;
	size_t n;
};
void gclk_sink_message(struct gclk_sink *sink, const ProtobufCMessage *message);

/* A field that holds a message of @n bytes, which follow: its key and length. */
void gclk_sink_prefix(struct gclk_sink *sink, uint32_t field, size_t n);

/**
 * gclk_sink_state() - a state's message, without heap memory
 * @state:	valid
 *
 * The same bytes as the message as a whole would give.
 */
int gclk_sink_state(struct gclk_sink *sink, const struct gclk_state *state,
		    struct gclk_error *reterr);

#endif
