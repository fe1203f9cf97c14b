/* SPDX-License-Identifier: MIT */
/*
 * What every clock reads at the resume, and how far off it can be.
 *
 * A clock that starts at the resume is set to its reading at the stop plus what
 * is counted. One that starts at the load runs by itself from there to the
 * resume, so it is set that much lower, but never below the stop (R1).
 */
#include "core/error.h"
#include "core/tsc.h"
#include "core/util.h"
#include "devices/ticks.h"
#include "plan/findings.h"
#include "plan/move.h"

/* What is added to a clock, by its row: never negative. @ret_ahead_ns: where R1 held it. */
static int64_t advance_ns(const struct gclk_move *move, enum gclk_clock clock,
			  uint64_t *ret_ahead_ns)
{
	int64_t ns = move->counted_ns;

	*ret_ahead_ns = 0;
	if (gclk_move_row(move, clock)->start == GCLK_START_LOAD) {
		ns -= move->resume_ns;
	}
	if (gclk_move_is_untouched(move)) {
		*ret_ahead_ns = (uint64_t)(move->counted_ns - ns);
		return 0;
	}
	if (ns < 0) {
		*ret_ahead_ns = (uint64_t)-ns;
		return 0;
	}
	return ns;
}

/* What holds for every clock that counts the gap: the gap's own uncertainty, and the start's. */
static uint64_t base_bound(const struct gclk_move *move, enum gclk_clock clock)
{
	uint64_t bound = gclk_move_row(move, clock)->start_uncertainty_ns;

	if (move->policy->gap == GCLK_GAP_FREEZE || move->policy->gap == GCLK_GAP_WALL) {
		return bound;	/* stands still, whatever the gap was */
	}
	return gclk_bound_add(bound, move->uncertainty_ns);
}

/*
 * A clock that runs from the load: with all of the gap counted its error is the stop's
 * and the load's, wherever the resume is; otherwise it is off by what lies between load
 * and resume.
 */
static uint64_t load_bound(const struct gclk_move *move, enum gclk_clock clock)
{
	const struct gclk_when *when = &move->plan->when;
	uint64_t bound = gclk_bound_add(gclk_move_row(move, clock)->start_uncertainty_ns,
					when->load.uncertainty_ns);

	return gclk_bound_add(bound, move->policy->gap == GCLK_GAP_COUNT ?
					     move->stop_uncertainty_ns : when->run.uncertainty_ns);
}

static void say_ahead(struct gclk_move *move, uint64_t ahead_ns)
{
	char text[GCLK_DURATION_TEXT_BYTES];

	if (ahead_ns) {
		gclk_findings_put(&move->plan->findings, GCLK_F_RESUME_AFTER_LOAD, "tsc",
				  "the TSC will be %s ahead of the other clocks",
				  gclk_duration_format((int64_t)ahead_ns, text));
	}
}

static int move_tsc(struct gclk_move *move, struct gclk_error *reterr)
{
	const struct gclk_carrier_row *row = gclk_move_row(move, GCLK_CLOCK_TSC);
	struct gclk_state *to = move->plan->state;
	uint64_t ahead_ns, bound, delta = 0;
	int64_t ns = advance_ns(move, GCLK_CLOCK_TSC, &ahead_ns);

	if (move->rate.num &&
	    gclk_ticks_from_ns_floor(move->rate, (uint64_t)ns, &delta) < 0) {
		return gclk_fail(reterr, GCLK_RANGE, "tsc", GCLK_NO_OFFSET,
				 "a gap of %lld ns does not fit the TSC", (long long)ns);
	}
	for (uint32_t i = 0; i < to->n_vcpus; i++) {
		to->tsc[i].value_ticks += delta;	/* one delta for all: R2 */
	}
	if (row->set == GCLK_SET_AXIS &&
	    !GCLK_HAS(virtual_clock, &to->virtual_clock, icount_bias_ns)) {
		to->virtual_clock.host_ticks =
			(int64_t)((uint64_t)to->virtual_clock.host_ticks + delta);
	}
	say_ahead(move, ahead_ns);
	bound = row->start == GCLK_START_LOAD ? load_bound(move, GCLK_CLOCK_TSC) :
						base_bound(move, GCLK_CLOCK_TSC);
	bound = gclk_bound_add(bound, ahead_ns);
	bound = gclk_bound_add(bound, 1);		/* the floor, less than a tick */
	if (ns) {
		bound = gclk_bound_add(bound, move->rate_ppb == GCLK_UNBOUNDED ? GCLK_UNBOUNDED :
					      gclk_drift_ns_ceil((uint64_t)ns, move->rate_ppb));
	}
	gclk_move_bound(move, GCLK_CLOCK_TSC, bound);
	return 0;
}

/* What the clock read at the stop, which the guest may have seen (R1). */
static uint64_t kvmclock_pause(struct gclk_move *move, uint64_t *ret_unknown)
{
	const struct gclk_kvmclock *clock = &move->from->kvmclock;
	char text[GCLK_DURATION_TEXT_BYTES];

	*ret_unknown = 0;
	if (GCLK_HAS(kvmclock, clock, read_after_stop_ns)) {
		if (clock->read_after_stop_ns && !gclk_move_is_untouched(move)) {
			gclk_findings_put(&move->plan->findings, GCLK_F_KVMCLOCK_PAUSE_REMOVED,
					  "kvmclock", "%s between stop and save",
					  gclk_duration_format((int64_t)clock->read_after_stop_ns,
							       text));
		}
		return clock->read_after_stop_ns;
	}
	if (move->from->guest.run_state != GCLK_RUN_PAUSED) {
		gclk_findings_put(&move->plan->findings, GCLK_F_KVMCLOCK_PAUSE_UNKNOWN, "kvmclock",
				  "the clock may be ahead of the TSC by the time that the source "
				  "stood before it saved");
		*ret_unknown = GCLK_UNBOUNDED;
	}
	return 0;
}

static void move_kvmclock(struct gclk_move *move)
{
	struct gclk_kvmclock *to = &move->plan->state->kvmclock;
	uint64_t unknown, ahead_ns, bound, pause_ns;
	int64_t ns = advance_ns(move, GCLK_CLOCK_KVMCLOCK, &ahead_ns);
	char text[GCLK_DURATION_TEXT_BYTES];

	if (!GCLK_HAS(kvmclock, to, clock_ns)) {
		return;
	}
	bound = gclk_bound_add(base_bound(move, GCLK_CLOCK_KVMCLOCK), 2);
	if (move->carrier->clock_from_page && GCLK_HAS(kvmclock, to, reliable) && !to->reliable) {
		if (move->resume_ns) {
			gclk_findings_put(&move->plan->findings, GCLK_F_KVMCLOCK_LAGS, "kvmclock",
					  "it will lag by %s",
					  gclk_duration_format(move->resume_ns, text));
		}
		gclk_move_bound(move, GCLK_CLOCK_KVMCLOCK,
			  gclk_bound_add(bound, (uint64_t)move->resume_ns));
		return;
	}
	pause_ns = kvmclock_pause(move, &unknown);
	if (gclk_move_is_untouched(move)) {
		bound = gclk_bound_add(bound, pause_ns);
	} else {
		/* clock_ns >= pause_ns: the clock cannot have been read before its start */
		to->clock_ns += (uint64_t)ns;
		to->clock_ns -= GCLK_MIN(pause_ns, to->clock_ns);
		if (GCLK_HAS(kvmclock, to, read_after_stop_ns)) {
			to->read_after_stop_ns = 0;
		}
	}
	gclk_move_bound(move, GCLK_CLOCK_KVMCLOCK,
		  gclk_bound_add(gclk_bound_add(bound, unknown), ahead_ns));
}

/* The shared axis, and what is tied to it beyond the timers of the ledger (R10). */
static void move_axis(struct gclk_move *move)
{
	struct gclk_state *to = move->plan->state;
	int64_t ns = move->counted_ns;
	char text[GCLK_DURATION_TEXT_BYTES];

	to->virtual_clock.clock_ns += ns;
	if (GCLK_HAS(virtual_clock, &to->virtual_clock, icount_bias_ns)) {
		to->virtual_clock.icount_bias_ns =
			gclk_add_sat(to->virtual_clock.icount_bias_ns, ns);
		to->virtual_clock.cpu_clock_ns =
			gclk_add_sat(to->virtual_clock.cpu_clock_ns, ns);
	}
	if (ns && GCLK_HAS(i6300esb, &to->i6300esb, expiry_ns) && to->i6300esb.expiry_ns >= 0) {
		to->i6300esb.expiry_ns += ns;
		gclk_findings_put(&move->plan->findings, GCLK_F_WATCHDOG_MOVED, "i6300esb",
				  "it keeps the %s that it had left",
				  gclk_duration_format(to->i6300esb.expiry_ns -
						       to->virtual_clock.clock_ns, text));
	}
	gclk_move_bound(move, GCLK_CLOCK_VIRTUAL, base_bound(move, GCLK_CLOCK_VIRTUAL));
}

static void move_other_timers(struct gclk_move *move)
{
	struct gclk_state *to = move->plan->state;
	const char *first = NULL;
	unsigned n_early = 0;

	for (uint32_t i = 0; i < to->n_timers && move->counted_ns; i++) {
		struct gclk_timer *timer = &to->timers[i];

		if (timer->axis != GCLK_AXIS_GUEST) {
			continue;
		}
		if (timer->kind == GCLK_TIMER_WATCHDOG) {
			timer->expiry_ns += move->counted_ns;
			gclk_findings_put(&move->plan->findings, GCLK_F_WATCHDOG_MOVED, "",
					  "%s keeps the time that it had left", timer->name);
		} else if (timer->expiry_ns >= move->axis_before_ns &&
			   timer->expiry_ns <= move->axis_after_ns) {
			first = first ? first : timer->name;
			n_early++;
		}
	}
	if (n_early) {
		gclk_findings_put(&move->plan->findings, GCLK_F_TIMERS_FIRE_EARLY, "",
				  "%u timer%s of other devices fire%s at the resume: %s%s", n_early,
				  n_early == 1 ? "" : "s", n_early == 1 ? "s" : "", first,
				  n_early == 1 ? "" : ", ...");
	}
	if (to->timers_left_out) {
		gclk_findings_put(&move->plan->findings, GCLK_F_TIMERS_LEFT_OUT, "",
				  "%u armed timers are not listed", to->timers_left_out);
	}
}

/*
 * Adds to the time shown without moving any instant. The part of a second is kept within
 * 0..10^9: loaders add it to a difference without a sign.
 */
static void show_later(struct gclk_rtc *rtc, int64_t ns)
{
	int64_t offset = gclk_add_sat(rtc->offset_ns, ns);

	rtc->base_s = gclk_add_sat(rtc->base_s, gclk_floor_div(offset, GCLK_NS_PER_S));
	rtc->offset_ns = gclk_floor_mod(offset, GCLK_NS_PER_S);
}

static void shift_instants(struct gclk_rtc *rtc, int64_t ns)
{
	rtc->base_at_ns = gclk_add_sat(rtc->base_at_ns, ns);
	rtc->next_periodic_ns = gclk_add_sat(rtc->next_periodic_ns, ns);
	if (rtc->next_alarm_ns > 0 && rtc->next_alarm_ns < INT64_MAX) {
		rtc->next_alarm_ns = gclk_add_sat(rtc->next_alarm_ns, ns);
	}
	if (rtc->periodic_expiry_ns >= 0) {
		rtc->periodic_expiry_ns = gclk_add_sat(rtc->periodic_expiry_ns, ns);
	}
	if (rtc->update_expiry_ns >= 0) {
		rtc->update_expiry_ns = gclk_add_sat(rtc->update_expiry_ns, ns);
	}
}

static uint64_t rtc_runs_on(struct gclk_move *move)
{
	char text[GCLK_DURATION_TEXT_BYTES];

	gclk_findings_put(&move->plan->findings, GCLK_F_RTC_RUNS_ON, "rtc",
			  "it will have gone on by %s",
			  gclk_duration_format(move->elapsed_ns, text));
	return gclk_bound_add((uint64_t)move->elapsed_ns, move->uncertainty_ns);
}

static void move_rtc(struct gclk_move *move)
{
	struct gclk_rtc *rtc = &move->plan->state->rtc;
	uint64_t bound = gclk_bound_add(gclk_move_row(move, GCLK_CLOCK_RTC)->start_uncertainty_ns,
					move->uncertainty_ns);
	char text[GCLK_DURATION_TEXT_BYTES];
	int64_t by = move->plan->disagreement.ns;

	if (!GCLK_HAS(rtc, rtc, base_s)) {
		return;
	}
	if (rtc->axis == GCLK_AXIS_GUEST) {
		bound = base_bound(move, GCLK_CLOCK_RTC);
		if (move->policy->gap == GCLK_GAP_WALL) {
			show_later(rtc, move->elapsed_ns);
			bound = gclk_bound_add(bound, move->uncertainty_ns);
		}
	} else if (gclk_move_is_untouched(move)) {
		bound = rtc_runs_on(move);
	} else if (rtc->axis == GCLK_AXIS_REALTIME) {
		shift_instants(rtc, move->rtc_shift_ns);
		bound = gclk_bound_add(bound, move->rtc_uncertainty_ns);
		if (by) {
			gclk_findings_put(&move->plan->findings, GCLK_F_RTC_MOVED_WITH_DISAGREEMENT,
					  "rtc", "the wall clocks differ by %s",
					  gclk_duration_format(by, text));
		}
	} else {
		/* set anew from its registers at the load, in whole seconds */
		bound = GCLK_UNBOUNDED;
	}
	gclk_move_bound(move, GCLK_CLOCK_RTC, bound);
}

void gclk_move_bound_on_axis(struct gclk_move *move, enum gclk_clock clock, uint64_t tick_ns)
{
	gclk_move_bound(move, clock, gclk_bound_add(base_bound(move, clock), tick_ns));
}

int gclk_move_clocks(struct gclk_move *move, struct gclk_error *reterr)
{
	const struct gclk_state *from = move->from;
	int r;

	if (gclk_move_row(move, GCLK_CLOCK_TSC)->set != GCLK_SET_ABSENT &&
	    (r = move_tsc(move, reterr)) < 0) {
		return r;
	}
	move_kvmclock(move);
	if (gclk_move_row(move, GCLK_CLOCK_VIRTUAL)->set != GCLK_SET_ABSENT) {
		move_axis(move);
		move_other_timers(move);
	}
	move_rtc(move);
	if (GCLK_HAS(hpet, &from->hpet, config)) {
		gclk_move_bound_on_axis(move, GCLK_CLOCK_HPET, 10);
	}
	if (from->pm_timer.has) {
		gclk_move_bound_on_axis(move, GCLK_CLOCK_PM_TIMER, 280);
	}
	return 0;
}
