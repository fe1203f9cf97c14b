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
#define MARGINS_FEW 4

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
 * The high one, so that the guest is seldom late; the usual one is one of them while there are
 * fewer than MARGINS_FEW, since a move that went well does not tell how one goes that does not.
 * But no later than the low one plus @max_hold_ns, where delays spread wider than that, and
 * than 2 s. Pure.
 */
struct margin margins_choose(const struct margins *margins, int64_t usual_ns,
			     int64_t max_hold_ns);

/**
 * margins_guess() - the usual delay, where there is no experience but the host is seen to be
 * busy, or slow
 * @usual_ns:	of a host with two processors or more, and up to two that want each
 * @load_milli:	how many want to run, in thousandths; 0: not known
 * @slow_milli:	how many times as long as usual short work takes, in thousandths; 0: not known
 * @max_hold_ns: as above, for a guest that is ready when the quick ones are, in a fifth of it
 *
 * Who waits for a processor waits the longer the more there are; what has one processor takes
 * twice as long; on a slow host all is slow, also what is quick. Never under @usual_ns. Pure.
 */
int64_t margins_guess(int64_t usual_ns, uint64_t load_milli, uint64_t processors,
		      uint64_t slow_milli, int64_t max_hold_ns);

/* For that: of the last minute, on this host. 0: the kernel does not say. */
uint64_t margins_load_milli(void);

/*
 * A file of them: lines "KIND NS NS ...", oldest first. What cannot be read is no
 * experience. The file is replaced in one step.
 */
void margins_read(const char *path, const char *kind, struct margins *ret);
int margins_learn(const char *path, const char *kind, int64_t delay_ns,
		  struct gclk_error *reterr);

#endif
