/* SPDX-License-Identifier: MIT */
/* What the files of lib/bundle share beyond <guestclock/bundle.h>. */
#ifndef GCLK_BUNDLE_BUNDLE_H
#define GCLK_BUNDLE_BUNDLE_H

#include <guestclock/bundle.h>

#include "guestclock/v1/bundle.pb-c.h"

/**
 * gclk_message_from_plan() - a plan without its new state, as a message
 * @carrier:	or NULL
 *
 * Returns NULL when memory is short. Ownership: the caller's, in @mem.
 */
Guestclock__V1__Plan *gclk_message_from_plan(const struct gclk_plan *plan,
					     const struct gclk_carrier *carrier,
					     ProtobufCAllocator *mem);

#endif
