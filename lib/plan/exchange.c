/* SPDX-License-Identifier: MIT */
/*
 * One exchange, with d the disagreement (there minus here), r the stamps' resolution:
 *
 *	here	asked ----.                .---> got
 *	                   \              /
 *	there	            `-> heard  answered
 *
 *	heard - d >= asked	d <= heard - asked + 2r
 *	answered - d <= got	d >= answered - got - 2r
 *
 * Both hold at some instant of the exchange; from there to its end, as from one exchange
 * to the next, the clocks drift apart by at most drift_ppb of the time between.
 */
#include <guestclock/exchange.h>

#include "core/error.h"
#include "core/ratio.h"
#include "core/time.h"
#include "core/util.h"

#define RATE_SPAN_NS GCLK_NS_PER_S
#define FAR_NS (INT64_MAX / 4)	/* 73 years: no sum of such stamps overflows */

GCLK_API void gclk_exchanges_init(struct gclk_exchanges *exchanges, uint64_t drift_ppb,
			 uint64_t resolution_ns)
{
	*exchanges = (struct gclk_exchanges){
		.drift_ppb = drift_ppb,
		.resolution_ns = GCLK_MIN(resolution_ns, (uint64_t)GCLK_NS_PER_S),
		.round_trip_ns = GCLK_UNBOUNDED,
	};
}

/* What the clocks may drift apart in @span_ns, as a number to add to an instant. */
static int64_t drift_ns(const struct gclk_exchanges *e, int64_t span_ns)
{
	uint64_t ns = gclk_drift_ns_ceil((uint64_t)GCLK_MAX(span_ns, 0), e->drift_ppb);

	return (int64_t)GCLK_MIN(ns, (uint64_t)FAR_NS);
}

/* What the stamps of an exchange of @span_ns may be off by. */
static int64_t own_slack(const struct gclk_exchanges *e, int64_t span_ns)
{
	return 2 * (int64_t)e->resolution_ns + drift_ns(e, span_ns);
}

static int check(const struct gclk_exchanges *e, const struct gclk_exchange *x, int64_t *ret_trip,
		 struct gclk_error *reterr)
{
	int64_t away = gclk_sub_sat(x->got_ns, x->asked_ns);
	int64_t there = gclk_sub_sat(x->answered_ns, x->heard_ns);
	int64_t slack = own_slack(e, away);

	if (away < 0 || there < 0) {
		return gclk_fail(reterr, GCLK_PEER, away < 0 ? "got" : "answered", GCLK_NO_OFFSET,
				 "an answer stands %lld ns before its question",
				 (long long)gclk_sub_sat(0, GCLK_MIN(away, there)));
	}
	if (gclk_sub_sat(there, slack) > away) {
		return gclk_fail(reterr, GCLK_PEER, "answered", GCLK_NO_OFFSET,
				 "the other host kept the question for %lld ns of a round trip of "
				 "%lld ns", (long long)there, (long long)away);
	}
	if (e->n && x->got_ns < e->at_ns) {
		return gclk_fail(reterr, GCLK_RANGE, "got", GCLK_NO_OFFSET,
				 "it is older than the exchange before it");
	}
	*ret_trip = GCLK_MAX(gclk_sub_sat(away, there), 0);
	return 0;
}

static int fits(int64_t ns)
{
	return ns > -FAR_NS && ns < FAR_NS;
}

static void begin(struct gclk_exchanges *e, int64_t at_ns, int64_t low_ns, int64_t high_ns)
{
	e->n = 0;
	e->round_trip_ns = GCLK_UNBOUNDED;
	e->low_ns = e->first_low_ns = low_ns;
	e->high_ns = e->first_high_ns = high_ns;
	e->first_ns = at_ns;
}

GCLK_API int gclk_exchanges_add(struct gclk_exchanges *exchanges, const struct gclk_exchange *x,
		       struct gclk_error *reterr)
{
	struct gclk_exchanges *e = exchanges;
	int64_t trip = 0, low, high, apart, own;
	int r = check(e, x, &trip, reterr);

	if (r < 0) {
		return r;
	}
	low = gclk_sub_sat(x->answered_ns, x->got_ns);
	high = gclk_sub_sat(x->heard_ns, x->asked_ns);
	if (!fits(low) || !fits(high)) {
		return gclk_fail(reterr, GCLK_RANGE, "heard", GCLK_NO_OFFSET,
				 "the clocks are more than 73 years apart");
	}
	/* as of its end: the question came at any time before it */
	own = own_slack(e, gclk_sub_sat(x->got_ns, x->asked_ns));
	low -= own;
	high += own;
	if (e->n) {
		apart = drift_ns(e, gclk_sub_sat(x->got_ns, e->at_ns));
		e->low_ns = GCLK_MAX(gclk_sub_sat(e->low_ns, apart), low);
		e->high_ns = GCLK_MIN(gclk_add_sat(e->high_ns, apart), high);
	}
	if (!e->n || e->low_ns > e->high_ns) {
		e->n_steps += e->n != 0;
		begin(e, x->got_ns, low, high);
	}
	e->at_ns = x->got_ns;
	e->round_trip_ns = GCLK_MIN(e->round_trip_ns, (uint64_t)trip);
	e->n++;
	return 0;
}

GCLK_API void gclk_exchanges_at(const struct gclk_exchanges *exchanges, int64_t now_ns,
		       struct gclk_disagreement *ret)
{
	const struct gclk_exchanges *e = exchanges;
	uint64_t length;

	*ret = (struct gclk_disagreement){ 0, GCLK_UNBOUNDED };
	if (!e->n) {
		return;
	}
	length = (uint64_t)e->high_ns - (uint64_t)e->low_ns;
	ret->ns = e->low_ns + (int64_t)(length / 2);
	ret->uncertainty_ns = length - length / 2 +
			      (uint64_t)drift_ns(e, gclk_sub_sat(now_ns, e->at_ns));
}

GCLK_API void gclk_exchanges_over(const struct gclk_exchanges *exchanges, int64_t stopped_ns,
				  int64_t run_ns, struct gclk_disagreement *ret)
{
	int64_t gap_ns;

	gclk_exchanges_at(exchanges, run_ns, ret);
	if (ret->uncertainty_ns == GCLK_UNBOUNDED) {
		return;
	}
	ret->ns = -ret->ns;
	gap_ns = gclk_sub_sat(gclk_sub_sat(run_ns, stopped_ns), ret->ns);
	ret->uncertainty_ns += (uint64_t)(drift_ns(exchanges, gap_ns) + 1) / 2;
}

static int64_t floor_ppb(int64_t ns, int64_t span_ns)
{
	gclk_i128 n = (gclk_i128)ns * GCLK_NS_PER_S;
	gclk_i128 q = n / span_ns - (n % span_ns < 0);

	return q < INT64_MIN ? INT64_MIN : q > INT64_MAX ? INT64_MAX : (int64_t)q;
}

GCLK_API int gclk_exchanges_rate(const struct gclk_exchanges *exchanges, int64_t *ret_low_ppb,
			int64_t *ret_high_ppb)
{
	const struct gclk_exchanges *e = exchanges;
	int64_t span = gclk_sub_sat(e->at_ns, e->first_ns);

	if (!e->n || span < RATE_SPAN_NS) {
		return 0;
	}
	*ret_low_ppb = floor_ppb(gclk_sub_sat(e->low_ns, e->first_high_ns), span);
	*ret_high_ppb = -floor_ppb(gclk_sub_sat(e->first_low_ns, e->high_ns), span);
	return 1;
}
