/* SPDX-License-Identifier: MIT */
/* The guest's own wall clock, through the agent in it. */
#ifndef GCLK_MIGRATOR_VIRT_GUEST_TIME_H
#define GCLK_MIGRATOR_VIRT_GUEST_TIME_H

#include <stdint.h>

#include <libvirt/libvirt.h>

#include <guestclock/error.h>

struct guest_time {
	int64_t off_ns;		/* the guest's clock minus this host's, */
	uint64_t bound_ns;	/* known to within so much: half of what the question took */
};

/**
 * guest_time_set() - to this host's wall clock, and how far it is off afterwards
 *
 * What the agent takes before it sets the clock makes the clock late: where that is more than
 * can be told, two more tries allow for it. An agent that is there but not connected yet,
 * as just after a move, is waited for, for 5 s. Errors: GCLK_SYS in libvirt's words.
 */
int guest_time_set(virDomainPtr domain, struct guest_time *ret, struct gclk_error *reterr);

/* The same, and says how it came out. @domain NULL: it is not in reach. */
void guest_time_say(virDomainPtr domain, const char *name);

#endif
