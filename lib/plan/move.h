/* SPDX-License-Identifier: MIT */
/* What the parts of a plan share while it is being made. */
#ifndef GCLK_PLAN_MOVE_H
#define GCLK_PLAN_MOVE_H

#include <guestclock/plan.h>

#include "core/ratio.h"
#include "core/time.h"

/*
 * One move. All spans are true time:
 *
 *	stop                      load        run
 *	 |<---------- elapsed ----------------->|
 *	 |                         |<- resume ->|
 *
 * counted is what of elapsed the guest's clocks count under the policy.
 */
struct gclk_move {
	const struct gclk_state *from;
	const struct gclk_carrier *carrier;
	const struct gclk_host *host;
	const struct gclk_policy *policy;
	struct gclk_plan *plan;		/* plan->state starts as a copy of @from */

	int64_t elapsed_ns;		/* >= 0 */
	int64_t resume_ns;		/* run - load; >= 0 */
	int64_t counted_ns;		/* 0..elapsed */
	uint64_t uncertainty_ns;	/* of elapsed: the stop's and the resume's */
	uint64_t stop_uncertainty_ns;	/* of the stop, as the destination's clock has it */
	int64_t rtc_shift_ns;		/* added to the instants of a clock on the wall's axis */
	uint64_t rtc_uncertainty_ns;

	int64_t axis_before_ns;		/* the shared axis at the stop and at the resume */
	int64_t axis_after_ns;

	uint8_t ticks[GCLK_N_TICK_TIMERS];	/* policy as applied; 0: not yet asked for */

	struct gclk_rate rate;		/* of the guest's TSC; num 0: not known */
	uint64_t rate_ppb;		/* its uncertainty */
};

static inline const struct gclk_carrier_row *gclk_move_row(const struct gclk_move *move,
							   enum gclk_clock clock)
{
	return &move->carrier->rows[clock];
}

/* Sums of uncertainties: unbounded stays unbounded. */
static inline uint64_t gclk_bound_add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? GCLK_UNBOUNDED : sum;
}

/* Nothing is touched under `freeze`: the state goes on as the carrier itself would have it. */
static inline int gclk_move_is_untouched(const struct gclk_move *move)
{
	return move->policy->gap == GCLK_GAP_FREEZE;
}

/* The guest has a page from which it can read time, and be told that it was stopped. */
static inline int gclk_tells_time_by_page(const struct gclk_state *state)
{
	const struct gclk_vcpu *vcpu = &state->vcpu[0];

	return (vcpu->system_time_msr & 1) || (vcpu->hv_reference_tsc_msr & 1);
}

/* plan.c: how far off a clock can be, into the plan. */
void gclk_move_bound(struct gclk_move *move, enum gclk_clock clock, uint64_t bound_ns);

/* clocks.c: that of a counter or timer on the shared axis: the axis' own, and one tick. */
void gclk_move_bound_on_axis(struct gclk_move *move, enum gclk_clock clock, uint64_t tick_ns);

/* rate.c: the frequency of the guest's TSC, and what the destination makes of it. */
void gclk_move_rate(struct gclk_move *move);

/* clocks.c: the readings of every clock, and their bounds. */
int gclk_move_clocks(struct gclk_move *move, struct gclk_error *reterr);

/* ledger.c: what becomes of expiries in the gap. */
void gclk_move_ticks(struct gclk_move *move);

void gclk_findings_force(struct gclk_findings *findings, const char *const *force);

#endif
