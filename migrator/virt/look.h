/* SPDX-License-Identifier: MIT */
/* A running domain, looked at without touching it. */
#ifndef GCLK_MIGRATOR_VIRT_LOOK_H
#define GCLK_MIGRATOR_VIRT_LOOK_H

#include <stdbool.h>

#include <guestclock/image.h>
#include <guestclock/plan.h>

struct looked {
	struct gclk_domain domain;
	const char *state;		/* "running", "paused", "shut off", ... */
	bool is_local;			/* the domain runs on this very machine */
	char host[128];			/* as libvirt has it */
	bool has_agent;			/* the guest told its time */
	struct gclk_disagreement agent; /* the guest's wall clock minus this host's */
	char agent_error[256];		/* why it did not; "" where it was not asked */
};

/**
 * look_at() - what libvirt knows of a domain
 * @uri:	NULL: libvirt's default
 * @text:	name, UUID or id
 * @by:		who reads its XML; NULL: here
 *
 * The agent is asked where the domain runs and has one. Errors: GCLK_SYS, GCLK_STATE, those
 * of gclk_domain_read().
 */
int look_at(const char *uri, const char *text, const struct gclk_worker *by,
	    struct looked *ret, struct gclk_error *reterr);

#endif
