/* SPDX-License-Identifier: MIT */
/* What a field allows: ranges, and lists of names of values and of bits. */
#ifndef GCLK_DEVICES_ALLOW_H
#define GCLK_DEVICES_ALLOW_H

#include <stdbool.h>

#include <guestclock/record.h>

static inline bool gclk_within(uint64_t value, uint64_t min, uint64_t max)
{
	return value >= min && value <= max;
}

static inline bool gclk_within_signed(int64_t value, uint64_t min, uint64_t max)
{
	return value >= (int64_t)min && value <= (int64_t)max;
}

/* The list has the value. */
static inline bool gclk_names_have(const struct gclk_name *names, uint64_t value)
{
	for (const struct gclk_name *n = names; n->name; n++) {
		if (n->value == value) {
			return true;
		}
	}
	return false;
}

/* Each bit of the value has a name. */
static inline bool gclk_names_cover(const struct gclk_name *names, uint64_t value)
{
	for (const struct gclk_name *n = names; n->name; n++) {
		value &= ~n->value;
	}
	return value == 0;
}

#endif
