/* SPDX-License-Identifier: MIT */
/*
 * How far two hosts' wall clocks disagree, from stamps that they exchange.
 *
 *	struct gclk_exchanges e;
 *
 *	gclk_exchanges_init(&e, 100000, 1000);
 *	for each answer of the other host:
 *		gclk_exchanges_add(&e, &stamps, &err);
 *	gclk_exchanges_over(&e, stopped, now, &disagreement);	for gclk_plan()
 *
 * Pure: the caller reads the clocks and owns the connection.
 */
#ifndef GUESTCLOCK_EXCHANGE_H
#define GUESTCLOCK_EXCHANGE_H

#include <guestclock/plan.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One question and its answer: CLOCK_REALTIME in ns, of the asking host and of the other. */
struct gclk_exchange {
	int64_t asked_ns;		/* here, before the question was sent */
	int64_t heard_ns;		/* there, after it had come */
	int64_t answered_ns;		/* there, before the answer was sent */
	int64_t got_ns;			/* here, after the answer had come */
};

/*
 * What all exchanges so far leave possible. An answer cannot come before its question, so each
 * exchange confines the disagreement (there minus here) to an interval as long as its round
 * trip; intervals are widened by what the clocks may drift apart until the next, and intersected.
 * The quickest exchange counts most, a slow one can do no harm, and a bound follows that no
 * asymmetry of the path can break.
 */
struct gclk_exchanges {
	uint64_t drift_ppb;		/* the two rates differ by at most this */
	uint64_t resolution_ns;		/* of each stamp */
	int64_t at_ns;			/* here: when the interval was that */
	int64_t low_ns, high_ns;	/* of the disagreement */
	int64_t first_ns, first_low_ns, first_high_ns;	/* the same, of the first since a step */
	uint64_t round_trip_ns;		/* the least, without the other host's own time */
	uint32_t n;			/* exchanges since the last step */
	uint32_t n_steps;		/* times that no common value was left: a clock was set */
};

/**
 * gclk_exchanges_init() - begin
 * @drift_ppb:	how far the two clocks' rates may differ, adjustments included. The kernel
 *		slews by up to 500 ppm on either side: 1000000 holds whatever happens, and
 *		a smaller one what is known of both (frequency, maximum error, no slew)
 * @resolution_ns: of each of the four stamps
 */
void gclk_exchanges_init(struct gclk_exchanges *exchanges, uint64_t drift_ppb,
			 uint64_t resolution_ns);

/**
 * gclk_exchanges_add() - take one exchange into account
 *
 * In the order of time here. Where it leaves nothing possible with those before, a clock has
 * been set: it begins anew with this one, and .n_steps tells.
 *
 * Errors: GCLK_PEER for stamps that no two clocks can give: an answer before its question,
 *         or a stay at the other host that is longer than the round trip; GCLK_RANGE for
 *         one that is older than the last or does not fit. Nothing is changed then.
 */
int gclk_exchanges_add(struct gclk_exchanges *exchanges, const struct gclk_exchange *x,
		       struct gclk_error *reterr);

/**
 * gclk_exchanges_at() - the disagreement at an instant
 * @now_ns:	here; not before the last exchange
 * @ret:	the middle of what is possible, rounded down, and half of it, rounded up;
 *		unbounded before the first exchange. There minus here
 */
void gclk_exchanges_at(const struct gclk_exchanges *exchanges, int64_t now_ns,
		       struct gclk_disagreement *ret);

/**
 * gclk_exchanges_over() - the disagreement for a guest that was stopped there and runs on here
 * @stopped_ns:	there, when it was stopped
 * @run_ns:	here, when it runs again; not before the last exchange
 * @ret:	here minus there, as gclk_plan() takes it
 *
 * Beside what gclk_exchanges_at(@run_ns) leaves open, the wall clocks themselves may count
 * the gap wrongly, each by half of drift_ppb: its length follows from two of their readings.
 */
void gclk_exchanges_over(const struct gclk_exchanges *exchanges, int64_t stopped_ns,
			 int64_t run_ns, struct gclk_disagreement *ret);

/**
 * gclk_exchanges_rate() - by how much the other clock runs faster, on average since the first
 *
 * Returns 0 while nothing can be said (a span under a second), else 1 with the limits in ppb,
 * rounded outwards.
 */
int gclk_exchanges_rate(const struct gclk_exchanges *exchanges, int64_t *ret_low_ppb,
			int64_t *ret_high_ppb);

#ifdef __cplusplus
}
#endif
#endif
