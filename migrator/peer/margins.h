/* SPDX-License-Identifier: MIT */
/*
 * What earlier moves to this host teach: how long it takes from the last byte's release
 * until the guest could run.
 */
#ifndef GCLK_MIGRATOR_PEER_MARGINS_H
#define GCLK_MIGRATOR_PEER_MARGINS_H

#include <stdint.h>

#include <guestclock/error.h>

#define MARGINS_MAX 64

/* Delays of one kind, oldest first. */
struct margins {
	uint32_t n;
	int64_t delays_ns[MARGINS_MAX];
};

/* One more; the oldest makes room. What is negative or beyond 60 s is no delay. */
void margins_add(struct margins *margins, int64_t delay_ns);

/* What they come to. */
struct margin {
	int64_t ns;		/* to plan with */
	int64_t low_ns, high_ns; /* one of twenty was shorter, one of twenty longer */
	uint32_t n;		/* from how many */
};

/**
 * margins_choose() - the delay to plan with
 * @usual_ns:	without any experience
 * @max_hold_ns: a guest that is ready early waits at most so long
 *
 * The high one, so that the guest is seldom late; but no later than the low one plus
 * @max_hold_ns, where delays spread wider than that. Pure.
 */
struct margin margins_choose(const struct margins *margins, int64_t usual_ns,
			     int64_t max_hold_ns);

/*
 * A file of them: lines "KIND NS NS ...", oldest first. What cannot be read is no
 * experience. The file is replaced in one step.
 */
void margins_read(const char *path, const char *kind, struct margins *ret);
int margins_learn(const char *path, const char *kind, int64_t delay_ns,
		  struct gclk_error *reterr);

#endif
