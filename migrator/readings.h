/* SPDX-License-Identifier: MIT */
/*
 * A clock state as a person asks about it: what does each clock read, how fast does
 * it run, when does it next interrupt the guest. All from the closed forms of
 * <guestclock/devices.h>, at the instant that the state describes.
 */
#ifndef GCLK_MIGRATOR_READINGS_H
#define GCLK_MIGRATOR_READINGS_H

#include <guestclock/state.h>
#include <guestclock/plan.h>

#include "migrator/text.h"

struct reading {
	char clock[64]; /* "tsc[0]", "hpet[2]", a timer's own name */
	char reads[TEXT_BYTES];
	char rate[TEXT_BYTES];
	char note[TEXT_BYTES]; /* "masked", "deadline mode" */
	uint8_t counts;	       /* a clock that only goes up: value is what it reads ... */
	uint64_t value;	       /* ... in units of hz_den / hz seconds; hz 0: not known */
	uint64_t hz, hz_den;
	uint8_t armed;	    /* next_ns counts */
	uint8_t silent;	    /* an expiry does not reach the guest */
	int64_t next_ns;    /* from the capture on; negative: overdue */
	uint64_t period_ns; /* 0: once */
};

struct readings {
	struct reading *items;
	unsigned n, max;
	int no_memory;
};

/**
 * readings_take() - one reading per clock and timer
 * @captured:	when it was captured: an RTC on its host's wall clock is read there
 * @ret:	the caller's, readings_free()
 *
 * Returns 0 or GCLK_NOMEM. For more than a few vCPUs, those whose clocks agree are
 * put together.
 */
int readings_take(const struct gclk_state *state, const struct gclk_instant *captured,
		  struct readings *ret);
void readings_free(struct readings *readings);

#endif
