/* SPDX-License-Identifier: MIT */
/*
 * The plan: one pass from the arguments to the answer. No clock is read, nothing
 * is opened, nothing is allocated; no program that runs guests is named. What a
 * carrier can do comes as data.
 */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "plan/findings.h"
#include "plan/move.h"

static const char *const clock_names[GCLK_N_CLOCKS] = {
	[GCLK_CLOCK_TSC] = "tsc",	    [GCLK_CLOCK_KVMCLOCK] = "kvmclock",
	[GCLK_CLOCK_VIRTUAL] = "virtual_clock", [GCLK_CLOCK_RTC] = "rtc",
	[GCLK_CLOCK_HPET] = "hpet",	    [GCLK_CLOCK_PM_TIMER] = "pm_timer",
	[GCLK_CLOCK_PIT] = "pit",	    [GCLK_CLOCK_LAPIC] = "lapic",
};
static const char *const gap_policy_names[GCLK_N_GAP_POLICIES] = { "count", "freeze", "wall",
								   "cap" };
static const char *const tick_policy_names[GCLK_N_TICK_POLICIES] = {
	"unknown", "delay", "catchup", "merge", "discard"
};
static const char *const tick_timer_names[GCLK_N_TICK_TIMERS] = { "pit", "rtc", "hpet", "lapic",
								  "pm_timer" };
GCLK_API const char *const *const gclk_clock_names = clock_names;
GCLK_API const char *const *const gclk_gap_policy_names = gap_policy_names;
GCLK_API const char *const *const gclk_tick_policy_names = tick_policy_names;
GCLK_API const char *const *const gclk_tick_timer_names = tick_timer_names;

GCLK_API const struct gclk_policy gclk_policy_default = {
	.gap = GCLK_GAP_COUNT,
	.horizon_ns = 60 * GCLK_NS_PER_S,
	.long_gap_ns = 60 * GCLK_NS_PER_S,
	.replay_max = 100000,
	.replay_horizon_ns = 600 * GCLK_NS_PER_S,
};

GCLK_API struct gclk_plan *gclk_plan_free(struct gclk_plan *plan)
{
	if (plan) {
		gclk_state_free(plan->state);
		free(plan->ledger);
		free(plan->replay.timers);
		free(plan);
	}
	return NULL;
}

GCLK_API struct gclk_plan *gclk_plan_new(uint32_t n_vcpus)
{
	struct gclk_plan *plan = calloc(1, sizeof(*plan));

	if (!plan) {
		return NULL;
	}
	plan->ledger_max = n_vcpus + GCLK_HPET_TIMERS_MAX + GCLK_N_TICK_TIMERS;
	plan->ledger = calloc(plan->ledger_max, sizeof(*plan->ledger));
	plan->replay.timers = calloc(plan->ledger_max, sizeof(*plan->replay.timers));
	plan->replay.timers_max = plan->ledger_max;
	plan->state = gclk_state_new(n_vcpus);
	if (!plan->ledger || !plan->replay.timers || !plan->state) {
		return gclk_plan_free(plan);
	}
	return plan;
}

static int check_policy(const struct gclk_policy *policy, struct gclk_error *reterr)
{
	if (policy->gap > GCLK_GAP_CAP) {
		return gclk_fail(reterr, GCLK_RANGE, "policy.gap", GCLK_NO_OFFSET,
				 "gap policy %u is not known", policy->gap);
	}
	if (policy->gap == GCLK_GAP_CAP && policy->cap_ns < 0) {
		return gclk_fail(reterr, GCLK_RANGE, "policy.cap", GCLK_NO_OFFSET,
				 "a cap of %lld ns is negative", (long long)policy->cap_ns);
	}
	for (unsigned i = 0; i < GCLK_N_TICK_TIMERS; i++) {
		if (policy->ticks[i].policy > GCLK_TICKS_DISCARD) {
			return gclk_fail(reterr, GCLK_RANGE, gclk_tick_timer_names[i],
					 GCLK_NO_OFFSET, "tick policy %u is not known",
					 policy->ticks[i].policy);
		}
	}
	return 0;
}

void gclk_move_bound(struct gclk_move *move, enum gclk_clock clock, uint64_t bound_ns)
{
	struct gclk_bound *bound = &move->plan->bounds[move->plan->n_bounds++];

	gclk_text_copy(bound->clock, sizeof(bound->clock), gclk_clock_names[clock]);
	bound->bound_ns = bound_ns;
}

/* Differences of TAI and UTC that moved in the gap, where both sides know theirs. */
static int64_t leap_ns(const struct gclk_when *when)
{
	if (!when->captured_tai_s || !when->run_tai_s) {
		return 0;
	}
	return ((int64_t)when->run_tai_s - when->captured_tai_s) * GCLK_NS_PER_S;
}

/* The gap, and what the wall clock's axis did in it by itself. */
static int measure_gap(struct gclk_move *move, const struct gclk_when *when,
		       const struct gclk_disagreement *disagreement, int64_t *ret_elapsed,
		       int64_t *ret_wall, struct gclk_error *reterr)
{
	int captured_known = when->captured.uncertainty_ns != GCLK_UNBOUNDED;
	int64_t wall, elapsed;

	if (__builtin_sub_overflow(when->run.ns, when->load.ns, &move->resume_ns) ||
	    move->resume_ns < 0) {
		return gclk_fail(reterr, GCLK_RANGE, "when.load", GCLK_NO_OFFSET,
				 "the load ends after the resume");
	}
	if (__builtin_sub_overflow(when->run.ns, when->captured.ns, &wall) ||
	    __builtin_sub_overflow(wall + leap_ns(when), disagreement->ns, &elapsed)) {
		return gclk_fail(reterr, GCLK_RANGE, "when", GCLK_NO_OFFSET,
				 "the gap does not fit 64 bits");
	}
	if (when->elapsed_given) {
		elapsed = when->elapsed_ns;
		if (!captured_known) {
			wall = gclk_add_sat(elapsed, disagreement->ns);
		}
		move->rtc_uncertainty_ns = captured_known ? when->captured.uncertainty_ns : 0;
	} else if (!captured_known) {
		gclk_findings_put(&move->plan->findings, GCLK_F_CAPTURE_INSTANT_UNKNOWN, "",
				  "nothing tells when this guest stopped");
		move->stop_uncertainty_ns = GCLK_UNBOUNDED;
	} else {
		move->stop_uncertainty_ns = gclk_bound_add(when->captured.uncertainty_ns,
							   disagreement->uncertainty_ns);
	}
	move->uncertainty_ns = gclk_bound_add(when->run.uncertainty_ns, move->stop_uncertainty_ns);
	*ret_elapsed = elapsed;
	*ret_wall = wall;
	return 0;
}

static int64_t counted(const struct gclk_policy *policy, int64_t elapsed_ns)
{
	switch ((enum gclk_gap_policy)policy->gap) {
	case GCLK_GAP_COUNT:
		return elapsed_ns;
	case GCLK_GAP_CAP:
		return GCLK_MIN(elapsed_ns, policy->cap_ns);
	case GCLK_GAP_FREEZE:
	case GCLK_GAP_WALL:
		break;
	}
	return 0;
}

/* Half a turn of what guests keep time by where they trust neither TSC nor hypervisor. */
#define PM_TIMER_HALF_TURN_NS INT64_C(2343486504)	/* 2^23 / 3579545 Hz */
#define HPET_HALF_TURN_NS INT64_C(21474836480)		/* 2^31 / 100 MHz */
#define STALL_TIMEOUT_NS (20 * GCLK_NS_PER_S)		/* of a stock kernel: lockups; RCU takes 1 s more */

/* What a guest makes of the step that nothing tells it about. */
static void step_findings(struct gclk_move *move)
{
	struct gclk_findings *findings = &move->plan->findings;
	int hpet = (move->from->hpet.config & 1) != 0;
	char text[GCLK_DURATION_TEXT_BYTES];

	if (gclk_tells_time_by_page(move->from)) {
		return;
	}
	gclk_duration_format(move->counted_ns, text);
	if (move->counted_ns > STALL_TIMEOUT_NS) {
		gclk_findings_put(findings, GCLK_F_STALL_REPORTS, "",
				  "%s at once is more than the 20 s after which kernels report "
				  "a soft lockup or a stall", text);
	}
	if (move->counted_ns > PM_TIMER_HALF_TURN_NS) {
		int wraps = hpet && move->counted_ns > HPET_HALF_TURN_NS;

		gclk_findings_put(findings, GCLK_F_CLOCKSOURCE_WRAPS, wraps ? "hpet" : "pm_timer",
				  "%s is more than half a turn of the PM timer (4.687 s)%s: a guest "
				  "that keeps time by it misreads the gap", text,
				  wraps ? " and of the HPET's low half (42.95 s)" : "");
	}
}

static void gap_findings(struct gclk_move *move, int64_t raw_elapsed_ns)
{
	struct gclk_findings *findings = &move->plan->findings;
	char a[GCLK_DURATION_TEXT_BYTES], b[GCLK_DURATION_TEXT_BYTES];

	if (raw_elapsed_ns < 0) {
		gclk_findings_put(findings, GCLK_F_GAP_NEGATIVE, "",
				  "the resume lies %s before the stop; all clocks hold",
				  gclk_duration_format(-raw_elapsed_ns, a));
	}
	if (move->uncertainty_ns != GCLK_UNBOUNDED &&
	    move->uncertainty_ns > (uint64_t)GCLK_NS_PER_S) {
		gclk_findings_put(findings, GCLK_F_CAPTURE_INSTANT_UNCERTAIN, "",
				  "the gap of %s is known to +-%s",
				  gclk_duration_format(move->elapsed_ns, a),
				  gclk_duration_format((int64_t)GCLK_MIN(move->uncertainty_ns,
									 (uint64_t)INT64_MAX), b));
	}
	if (move->counted_ns > move->policy->long_gap_ns) {
		gclk_findings_put(findings, GCLK_F_LONG_GAP, "",
				  "the guest finds %s gone at once: watchdogs, leases and "
				  "time-outs shorter than that are overdue",
				  gclk_duration_format(move->counted_ns, a));
	}
	step_findings(move);
	if (GCLK_HAS(host, move->host, ntp_state) && move->host->ntp_state >= 1 &&
	    move->host->ntp_state <= 3 && !move->plan->when.elapsed_given) {
		gclk_findings_put(findings, GCLK_F_LEAP_SECOND_NEAR, "",
				  "this host's wall clock %s a leap second",
				  move->host->ntp_state == 3 ? "is within" : "announces");
	}
	if (gclk_move_row(move, GCLK_CLOCK_TSC)->start == GCLK_START_LOAD && !move->resume_ns &&
	    move->counted_ns) {
		gclk_findings_put(findings, GCLK_F_RESUME_IS_THE_LOAD, "tsc",
				  "the TSC runs from the load, the other clocks from the resume");
	}
	if (move->policy->gap != GCLK_GAP_WALL && move->elapsed_ns > move->counted_ns) {
		gclk_findings_put(findings, GCLK_F_CLOCKS_BEHIND, "",
				  "%s of the gap are not counted",
				  gclk_duration_format(move->elapsed_ns - move->counted_ns, a));
	}
	if (move->policy->gap == GCLK_GAP_WALL && move->elapsed_ns > 0) {
		gclk_findings_put(findings, GCLK_F_WALL_CLOCK_BEHIND, "",
				  "a running guest's wall clock stays %s behind until it is set",
				  gclk_duration_format(move->elapsed_ns, a));
	}
}

/* The span that the state's own clocks can take without leaving their types. */
static int check_span(const struct gclk_move *move, struct gclk_error *reterr)
{
	int64_t after;

	if (__builtin_add_overflow(move->axis_before_ns, move->counted_ns, &after) ||
	    move->elapsed_ns > INT64_MAX / 8) {
		return gclk_fail(reterr, GCLK_RANGE, "virtual_clock.clock_ns", GCLK_NO_OFFSET,
				 "a gap of %lld ns does not fit the guest's clocks",
				 (long long)move->elapsed_ns);
	}
	return 0;
}

static int check_axis(struct gclk_move *move)
{
	const struct gclk_carrier_row *axis = gclk_move_row(move, GCLK_CLOCK_VIRTUAL);

	if (axis->set != GCLK_SET_ABSENT &&
	    !GCLK_HAS(virtual_clock, &move->from->virtual_clock, clock_ns)) {
		gclk_findings_put(&move->plan->findings, GCLK_F_NO_SHARED_AXIS, "virtual_clock",
				  "the state has no shared clock");
		return 0;
	}
	return 1;
}

static void clear(struct gclk_plan *plan)
{
	plan->n_ledger = 0;
	plan->n_bounds = 0;
	plan->findings.n = 0;
	plan->findings.left_out = 0;
	plan->findings.n_refusing = 0;
}

GCLK_API int gclk_plan(const struct gclk_state *state, const struct gclk_carrier *carrier,
		       const struct gclk_host *host, const struct gclk_when *when,
		       const struct gclk_disagreement *disagreement,
		       const struct gclk_policy *policy, struct gclk_plan *plan,
		       struct gclk_error *reterr)
{
	struct gclk_move move = { .from = state, .carrier = carrier, .host = host,
				  .policy = policy, .plan = plan };
	int64_t raw_elapsed_ns = 0, wall_ns = 0;
	int r;

	clear(plan);
	gclk_replay_init(&plan->replay, plan->replay.timers, plan->replay.timers_max,
			 policy->replay_horizon_ns > 0 ? policy->replay_horizon_ns :
							 GCLK_REPLAY_NEVER);
	if ((r = check_policy(policy, reterr)) < 0 ||
	    (r = gclk_state_validate(state, reterr)) < 0 ||
	    (r = gclk_state_assign(plan->state, state, reterr)) < 0 ||
	    (r = measure_gap(&move, when, disagreement, &raw_elapsed_ns, &wall_ns, reterr)) < 0) {
		return r;
	}
	move.elapsed_ns = GCLK_MAX(raw_elapsed_ns, 0);
	move.counted_ns = counted(policy, move.elapsed_ns);
	move.axis_before_ns = state->virtual_clock.clock_ns;
	if ((r = check_span(&move, reterr)) < 0) {
		return r;
	}
	move.axis_after_ns = move.axis_before_ns + move.counted_ns;

	/*
	 * A clock on the wall's axis has gone on by wall_ns when the guest resumes. It
	 * should have gone on by what the policy counts; under `wall`, by the truth.
	 */
	move.rtc_shift_ns = gclk_sub_sat(wall_ns, policy->gap == GCLK_GAP_WALL ? move.elapsed_ns
									    : move.counted_ns);
	plan->gap_ns = raw_elapsed_ns;
	plan->gap_uncertainty_ns = move.uncertainty_ns;
	plan->counted_ns = move.counted_ns;
	plan->policy = policy->gap;
	plan->when = *when;
	plan->disagreement = *disagreement;

	gap_findings(&move, raw_elapsed_ns);
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		gclk_findings_put(&plan->findings, GCLK_F_INCOMPATIBLE_FEATURE, "",
				  "the state needs \"%s\"", state->incompatible[i]);
	}
	if (disagreement->uncertainty_ns == GCLK_UNBOUNDED && !when->elapsed_given &&
	    policy->gap != GCLK_GAP_FREEZE) {
		gclk_findings_put(&plan->findings, GCLK_F_WALL_CLOCKS_UNMEASURED, "",
				  "the gap is as wrong as the two hosts' wall clocks disagree");
	}
	if (check_axis(&move)) {
		gclk_move_rate(&move);
		if ((r = gclk_move_clocks(&move, reterr)) < 0) {
			return r;
		}
		gclk_move_ticks(&move);
	}
	gclk_findings_force(&plan->findings, policy->force);
	if (plan->findings.n_refusing) {
		return gclk_fail(reterr, GCLK_REFUSED, "plan", GCLK_NO_OFFSET,
				 "%u finding%s stand%s against it", plan->findings.n_refusing,
				 plan->findings.n_refusing == 1 ? "" : "s",
				 plan->findings.n_refusing == 1 ? "s" : "");
	}
	return 0;
}
