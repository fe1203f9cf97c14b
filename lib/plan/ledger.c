/* SPDX-License-Identifier: MIT */
/*
 * The ledger: what becomes of the expiries that fell in the gap.
 *
 *	owed before + missed = replayed + merged + dropped
 *
 * replayed are the interrupts that the guest receives, late; merged vanish into
 * one of these; dropped are never seen. Devices count their own edges; here it is
 * decided, by policy and carrier, and written into the fields that decide when a
 * loaded device fires next:
 *
 *	discard	the first point of the timer's grid after the resume
 *	merge	the last one before it, which fires at once, for all of them
 *
 * and what a carrier injects (catchup, delay) is owed: the device goes on from the first
 * point of its grid after the resume, and the plan's replay has the rest.
 *
 * A one-shot that fell in the gap is always delivered: dropping it would leave
 * the guest waiting.
 */
#include <string.h>

#include <guestclock/devices.h>

#include "core/text.h"
#include "core/util.h"
#include "plan/findings.h"
#include "plan/move.h"

/*
 * A clock on the wall's axis fires while the guest is loaded but not yet running,
 * and the load may end earlier than said: its next tick is set this far back, and
 * the device counts from there by itself.
 */
#define WALL_MARGIN_NS (15 * GCLK_NS_PER_S)

struct outcome {
	enum gclk_tick_policy policy;	/* as applied */
	uint64_t replayed;
};

/*
 * Where the missed expiries of a timer begin: one that was due at the stop, and that
 * nobody had handled yet, is among them.
 */
static int64_t missed_since(const struct gclk_move *move, int known, int64_t expiry_ns)
{
	return known && expiry_ns >= 0 ?
		       GCLK_MIN(move->axis_before_ns, gclk_sub_sat(expiry_ns, 1)) :
		       move->axis_before_ns;
}

/* The policy for a kind of timer, before the carrier has its say. */
static enum gclk_tick_policy wanted(struct gclk_move *move, enum gclk_tick_timer timer)
{
	const struct gclk_tick_choice *choice = &move->policy->ticks[timer];
	const char *name = gclk_tick_timer_names[timer];
	struct gclk_findings *findings = &move->plan->findings;

	if (choice->policy == GCLK_TICKS_UNKNOWN) {
		gclk_findings_put(findings, GCLK_F_TICKS_POLICY_UNKNOWN, name,
				  "missed ticks of %s are merged into one", name);
		return GCLK_TICKS_MERGE;
	}
	if (choice->policy <= GCLK_TICKS_CATCHUP && !choice->by_operator &&
	    move->elapsed_ns > move->policy->horizon_ns) {
		gclk_findings_put(findings, GCLK_F_TICKS_BEYOND_HORIZON, name,
				  "the domain says %s, but the gap is longer than %lld s",
				  gclk_tick_policy_names[choice->policy],
				  (long long)(move->policy->horizon_ns / GCLK_NS_PER_S));
		return GCLK_TICKS_MERGE;
	}
	return (enum gclk_tick_policy)choice->policy;
}

/* Whoever loads the state delivers what is owed, unless the device does so by itself. */
static int injects(const struct gclk_move *move, enum gclk_clock clock)
{
	return gclk_move_row(move, clock)->missed == GCLK_MISSED_INJECT &&
	       !(clock == GCLK_CLOCK_RTC && move->from->rtc.catches_up);
}

/* A device that replays takes `catchup` alone. */
static int can_replay(const struct gclk_move *move, enum gclk_clock clock,
		      enum gclk_tick_policy policy)
{
	return injects(move, clock) || (gclk_move_row(move, clock)->missed >= GCLK_MISSED_REPLAY &&
					policy == GCLK_TICKS_CATCHUP);
}

/* What can be done of it. */
static enum gclk_tick_policy possible(struct gclk_move *move, enum gclk_tick_timer timer,
				      enum gclk_clock clock)
{
	enum gclk_tick_policy policy = wanted(move, timer);
	const char *name = gclk_tick_timer_names[timer];

	if (policy != GCLK_TICKS_DELAY && policy != GCLK_TICKS_CATCHUP) {
		return policy;
	}
	if (!can_replay(move, clock, policy)) {
		gclk_findings_put(&move->plan->findings, GCLK_F_TICKS_MERGED, name,
				  "%s is asked for; %s can only merge or discard",
				  gclk_tick_policy_names[policy], name);
		return GCLK_TICKS_MERGE;
	}
	if (gclk_tells_time_by_page(move->from)) {
		gclk_findings_put(&move->plan->findings, GCLK_F_REPLAY_AND_COUNT, name,
				  "the guest has a paravirtual clock that counts the gap");
	}
	return policy;
}

/* Decided, and its findings said, once for all timers of a kind, when one missed a tick. */
static enum gclk_tick_policy applied(struct gclk_move *move, enum gclk_tick_timer timer,
				     enum gclk_clock clock)
{
	if (!move->ticks[timer]) {
		move->ticks[timer] = (uint8_t)possible(move, timer, clock);
	}
	return (enum gclk_tick_policy)move->ticks[timer];
}

/* "lapic[17]"; by hand, because it is done for every vCPU. */
static void name_nth(char name[24], const char *kind, uint32_t n)
{
	char digits[11];
	size_t at = strlen(kind), i = 0;

	memcpy(name, kind, at);
	name[at++] = '[';
	do {
		digits[i++] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	while (i) {
		name[at++] = digits[--i];
	}
	name[at++] = ']';
	name[at] = 0;
}

static void enter(struct gclk_move *move, const char *timer, uint64_t period_ns,
		  uint64_t owed_before, uint64_t missed, struct outcome outcome, const char *why)
{
	struct gclk_plan *plan = move->plan;
	uint64_t total = gclk_bound_add(owed_before, missed);
	struct gclk_ledger_entry *entry;

	if (plan->n_ledger == plan->ledger_max) {
		return;
	}
	entry = &plan->ledger[plan->n_ledger++];
	*entry = (struct gclk_ledger_entry){
		.period_ns = period_ns,
		.owed_before = owed_before,
		.missed = missed,
		.replayed = GCLK_MIN(outcome.replayed, total),
		.policy = (uint8_t)outcome.policy,
		.why = why,
	};
	gclk_text_copy(entry->timer, sizeof(entry->timer), timer);
	if (outcome.policy == GCLK_TICKS_MERGE && entry->replayed) {
		entry->merged = total - entry->replayed;
	} else {
		entry->dropped = total - entry->replayed;
	}
}

static uint64_t period_ns(const struct gclk_cadence *cadence)
{
	return cadence->periodic && cadence->period_den ?
		       cadence->period_num / cadence->period_den : 0;
}

/* Expiries of a timer whose phase is not known: whole periods in what is counted. */
static uint64_t whole_periods(const struct gclk_move *move, const struct gclk_cadence *cadence)
{
	return cadence->periodic ? gclk_muldiv_floor_sat((uint64_t)move->counted_ns,
							 cadence->period_den,
							 cadence->period_num) : 0;
}

static int restarts(const struct gclk_move *move, enum gclk_clock clock)
{
	return gclk_move_row(move, clock)->phase == GCLK_PHASE_RESTARTS;
}

/* One interrupt for all, at the resume; none where nothing fell in the gap. */
static struct outcome one(enum gclk_tick_policy policy, uint64_t missed)
{
	return (struct outcome){ policy, policy == GCLK_TICKS_DISCARD ? 0 : missed != 0 };
}

/* As many as may be replayed, and a word about the rest. */
static uint64_t capped(struct gclk_move *move, const char *timer, uint64_t total)
{
	uint64_t limit = GCLK_MIN(total, (uint64_t)move->policy->replay_max);

	if (total > limit) {
		gclk_findings_put(&move->plan->findings, GCLK_F_TICKS_CAPPED, timer,
				  "%llu of %llu ticks are replayed", (unsigned long long)limit,
				  (unsigned long long)total);
	}
	return limit;
}

/* By `freeze` no timer is set anew: what is due at the stop its device finds by itself. */
static int starts_anew(const struct gclk_move *move, const struct gclk_cadence *cadence,
		       uint64_t ticks)
{
	return ticks && cadence->periodic && !gclk_move_is_untouched(move);
}

/* What is injected: of the owed and the missed ticks, those that the device leaves. */
static struct outcome inject(struct gclk_move *move, enum gclk_tick_timer timer,
			     enum gclk_clock clock, uint32_t index,
			     const struct gclk_cadence *cadence, uint64_t missed, uint32_t *owed)
{
	uint64_t total = gclk_bound_add(*owed, missed), left = *owed;
	enum gclk_tick_policy policy = GCLK_TICKS_MERGE;
	struct outcome outcome;

	if (starts_anew(move, cadence, total)) {
		policy = applied(move, timer, clock);
	}
	outcome = one(policy, total);
	if (gclk_move_is_untouched(move)) {
		outcome.replayed = left + (missed != 0);
	} else if (policy == GCLK_TICKS_DISCARD) {
		left = 0;
	} else if (policy == GCLK_TICKS_MERGE) {
		left = total && (!missed || restarts(move, clock));	/* else the device fires */
	} else {
		left = outcome.replayed = capped(move, gclk_tick_timer_names[timer], total);
	}
	*owed = (uint32_t)left;
	if (left) {
		gclk_replay_add(&move->plan->replay, timer, index, *owed, period_ns(cadence),
				policy, NULL);
	}
	return outcome;
}

/* A timer that cannot interrupt any more owes nothing. */
static void forgive(struct gclk_move *move, const char *name, enum gclk_clock clock,
		    uint32_t *owed)
{
	if (injects(move, clock) && *owed) {
		enter(move, name, 0, *owed, 0, (struct outcome){ GCLK_TICKS_DISCARD, 0 },
		      "the guest has switched it off");
		*owed = 0;
	}
}

/* Where a device has to start: on the last expiry before the resume, or after it. */
static enum gclk_tick_policy start_policy(struct outcome outcome)
{
	return outcome.policy == GCLK_TICKS_MERGE ? GCLK_TICKS_MERGE : GCLK_TICKS_DISCARD;
}

static struct outcome settle(struct gclk_move *move, enum gclk_tick_timer timer,
			     enum gclk_clock clock, uint32_t index,
			     const struct gclk_cadence *cadence, uint64_t missed, uint32_t *owed)
{
	if (injects(move, clock)) {
		return inject(move, timer, clock, index, cadence, missed, owed);
	}
	return one(starts_anew(move, cadence, missed) ? applied(move, timer, clock) : GCLK_TICKS_MERGE,
		   missed);
}

/*
 * The planned change from which the PIT must start. The interrupt controller
 * remembers the level of the line: where it was up at the stop and is down after the
 * resume, the fall between is made up for, else the next rise would be no edge.
 */
static int64_t pit_start(const struct gclk_pit *pit, int64_t before, int64_t after,
			 enum gclk_tick_policy policy)
{
	int64_t last;

	if (policy != GCLK_TICKS_DISCARD) {
		return gclk_pit_transition_raising(pit, after);
	}
	if (gclk_pit_out_at(pit, 0, before) && !gclk_pit_out_at(pit, 0, after) &&
	    (last = gclk_pit_last_edge(pit, after)) != GCLK_TIMER_OFF) {
		return gclk_pit_transition_after(pit, last);
	}
	return gclk_pit_transition_after(pit, after);
}

static void move_pit(struct gclk_move *move)
{
	const struct gclk_pit *pit = &move->from->pit;
	struct gclk_pit_channel *to = &move->plan->state->pit.channels[0];
	uint32_t owed = to->owed_ticks;
	struct gclk_cadence cadence;
	struct outcome outcome;
	uint64_t missed;

	if (!pit->channels[0].has) {
		return;
	}
	gclk_pit_cadence(pit, &cadence);
	if (restarts(move, GCLK_CLOCK_PIT)) {
		missed = whole_periods(move, &cadence);
		if (cadence.periodic) {
			gclk_findings_put(&move->plan->findings, GCLK_F_PIT_PHASE_RESTARTS, "pit",
					  "by less than its period of %llu ns",
					  (unsigned long long)period_ns(&cadence));
			outcome = (struct outcome){ GCLK_TICKS_DISCARD, 0 };
			if (injects(move, GCLK_CLOCK_PIT)) {
				outcome = inject(move, GCLK_TICK_PIT, GCLK_CLOCK_PIT, 0, &cadence,
						 missed, &to->owed_ticks);
			}
			enter(move, "pit", period_ns(&cadence), owed, missed, outcome,
			      gclk_move_row(move, GCLK_CLOCK_PIT)->why);
		} else {
			forgive(move, "pit", GCLK_CLOCK_PIT, &to->owed_ticks);
		}
		gclk_move_bound(move, GCLK_CLOCK_PIT,
				cadence.periodic ? period_ns(&cadence) : GCLK_UNBOUNDED);
		return;
	}
	gclk_move_bound_on_axis(move, GCLK_CLOCK_PIT, 839);
	if (!cadence.armed || to->next_transition_ns < 0) {
		forgive(move, "pit", GCLK_CLOCK_PIT, &to->owed_ticks);
		return;
	}
	missed = gclk_pit_edges(pit, missed_since(move, GCLK_HAS(pit_channel, to, next_transition_ns),
						  pit->channels[0].next_transition_ns),
				move->axis_after_ns);
	outcome = settle(move, GCLK_TICK_PIT, GCLK_CLOCK_PIT, 0, &cadence, missed,
			 &to->owed_ticks);
	if (!missed) {
		enter(move, "pit", period_ns(&cadence), owed, 0,
		      injects(move, GCLK_CLOCK_PIT) ? outcome : one(GCLK_TICKS_MERGE, owed),
		      "no tick fell in the gap");
		return;
	}
	if (starts_anew(move, &cadence, missed)) {
		int64_t start = pit_start(pit, move->axis_before_ns, move->axis_after_ns,
					  start_policy(outcome));

		to->next_transition_ns = start != GCLK_TIMER_OFF ? start : to->next_transition_ns;
	}
	enter(move, "pit", period_ns(&cadence), owed, missed, outcome,
	      gclk_move_row(move, GCLK_CLOCK_PIT)->why);
}

static void move_hpet_timer(struct gclk_move *move, unsigned n)
{
	const struct gclk_hpet *hpet = &move->from->hpet;
	struct gclk_hpet_timer *to = &move->plan->state->hpet.timers[n];
	struct outcome outcome = { GCLK_TICKS_DISCARD, 0 };	/* nobody would receive it */
	int interrupts = gclk_hpet_timer_interrupts(hpet, n);
	uint32_t owed = to->owed_ticks;
	struct gclk_cadence cadence;
	char name[24];
	uint64_t missed;

	gclk_hpet_timer_cadence(hpet, n, &cadence);
	name_nth(name, "hpet", n);
	if (!cadence.armed || !interrupts) {
		forgive(move, name, GCLK_CLOCK_HPET, &to->owed_ticks);
	}
	if (!cadence.armed) {
		return;
	}
	missed = gclk_hpet_timer_edges(hpet, n,
				       missed_since(move, GCLK_HAS(hpet_timer, to, expiry_ns),
						    hpet->timers[n].expiry_ns),
				       move->axis_after_ns);
	if (interrupts) {
		outcome = settle(move, GCLK_TICK_HPET, GCLK_CLOCK_HPET, n, &cadence, missed,
				 &to->owed_ticks);
	}
	if (starts_anew(move, &cadence, missed)) {
		struct gclk_hpet later = *hpet;
		int64_t last = gclk_hpet_timer_last(hpet, n, move->axis_after_ns);

		gclk_hpet_advance(&later, start_policy(outcome) == GCLK_TICKS_DISCARD ?
						  move->axis_after_ns : last - 1, NULL);
		to->comparator_ticks = later.timers[n].comparator_ticks;
		to->expiry_ns = later.timers[n].expiry_ns;
	}
	if (interrupts) {
		enter(move, name, period_ns(&cadence), owed, missed, outcome,
		      gclk_move_row(move, GCLK_CLOCK_HPET)->why);
	}
}

static void move_hpet(struct gclk_move *move)
{
	const struct gclk_hpet *hpet = &move->from->hpet;

	for (unsigned n = 0; hpet->has && n < hpet->n_timers; n++) {
		move_hpet_timer(move, n);
	}
}

/* Timers in the kernel whose running count the state does not have. */
static void restart_lapics(struct gclk_move *move)
{
	const struct gclk_state *from = move->from;
	uint64_t longest_ns = 0;
	unsigned n_counting = 0;

	for (uint32_t i = 0; i < from->n_vcpus; i++) {
		const struct gclk_lapic *lapic = &from->lapic[i];
		struct gclk_cadence cadence;
		char name[24];

		if (!lapic->has || !gclk_lapic_interrupts(lapic) || !lapic->initial_count ||
		    (lapic->lvt_timer >> 17 & 3) > 1) {
			continue;
		}
		gclk_lapic_cadence(lapic, &cadence);
		longest_ns = GCLK_MAX(longest_ns, (uint64_t)lapic->initial_count *
					gclk_lapic_divider(lapic->divide_config));
		n_counting++;
		if (cadence.periodic) {
			name_nth(name, "lapic", i);
			enter(move, name, period_ns(&cadence), lapic->owed_ticks,
			      whole_periods(move, &cadence),
			      (struct outcome){ GCLK_TICKS_DISCARD, 0 },
			      gclk_move_row(move, GCLK_CLOCK_LAPIC)->why);
		}
	}
	if (n_counting) {
		gclk_findings_put(&move->plan->findings, GCLK_F_LAPIC_PHASE_RESTARTS, "lapic",
				  "%u timer%s, by up to %llu ns", n_counting,
				  n_counting == 1 ? "" : "s", (unsigned long long)longest_ns);
		gclk_move_bound(move, GCLK_CLOCK_LAPIC, longest_ns);
	}
}

static int move_lapic(struct gclk_move *move, uint32_t i)
{
	const struct gclk_lapic *lapic = &move->from->lapic[i];
	struct gclk_lapic *to = &move->plan->state->lapic[i];
	uint32_t owed = to->owed_ticks;
	struct gclk_lapic later;
	struct gclk_cadence cadence;
	struct outcome outcome;
	struct gclk_line line;
	char name[24];
	uint64_t missed;

	if (!lapic->has) {
		return 0;
	}
	later = *lapic;
	name_nth(name, "lapic", i);
	gclk_lapic_cadence(lapic, &cadence);
	if (!cadence.armed || !gclk_lapic_interrupts(lapic)) {
		forgive(move, name, GCLK_CLOCK_LAPIC, &to->owed_ticks);
		return 0;
	}
	gclk_lapic_advance(&later, move->axis_after_ns, &line);
	missed = line.rises;
	outcome = settle(move, GCLK_TICK_LAPIC, GCLK_CLOCK_LAPIC, i, &cadence, missed,
			 &to->owed_ticks);
	if (starts_anew(move, &cadence, missed)) {
		to->expiry_ns = start_policy(outcome) == GCLK_TICKS_DISCARD ? later.expiry_ns :
									      line.last_rise_ns;
		to->next_time_ns = to->expiry_ns;
	}
	enter(move, name, period_ns(&cadence), owed, missed, outcome,
	      gclk_move_row(move, GCLK_CLOCK_LAPIC)->why);
	return 1;
}

static void move_lapics(struct gclk_move *move)
{
	int any = 0;

	if (restarts(move, GCLK_CLOCK_LAPIC)) {
		restart_lapics(move);
		return;
	}
	for (uint32_t i = 0; i < move->from->n_vcpus; i++) {
		any |= move_lapic(move, i);
	}
	if (any) {
		gclk_move_bound_on_axis(move, GCLK_CLOCK_LAPIC, 128);
	}
}

/* The instant of the load on the axis that the RTC stands on, as the source had it. */
static int64_t rtc_load(const struct gclk_move *move)
{
	return move->from->rtc.axis == GCLK_AXIS_GUEST ?
		       move->axis_after_ns :
		       gclk_sub_sat(move->plan->when.load.ns, move->rtc_shift_ns);
}

/* Under `freeze`: the device does with the gap what it does by itself. */
static struct outcome rtc_by_itself(const struct gclk_move *move, uint64_t missed)
{
	int64_t horizon_ns = move->carrier->rows[GCLK_CLOCK_RTC].replay_horizon_s * GCLK_NS_PER_S;

	if (move->elapsed_ns > horizon_ns) {
		return (struct outcome){ GCLK_TICKS_DISCARD, 0 };
	}
	if (move->from->rtc.catches_up) {
		return (struct outcome){ GCLK_TICKS_CATCHUP, gclk_bound_add(missed,
							move->from->rtc.owed_ticks) };
	}
	return one(GCLK_TICKS_MERGE, missed);
}

/*
 * The tick from which the device goes on by itself: the last one before the load, so
 * that its phase is kept. On the wall's axis a while before it, in case the load ends
 * earlier than said, unless a device that replays would replay that while too.
 */
static int64_t rtc_resume_tick(const struct gclk_rtc *rtc, int64_t load,
			       enum gclk_tick_policy policy)
{
	int exact = rtc->axis == GCLK_AXIS_GUEST ||
		    (policy == GCLK_TICKS_MERGE && rtc->catches_up);
	int64_t tick = gclk_rtc_periodic_last(rtc, gclk_sub_sat(load, exact ? 0 : WALL_MARGIN_NS));

	return tick == GCLK_TIMER_OFF ? rtc->next_periodic_ns :
					GCLK_MAX(tick, rtc->next_periodic_ns);
}

static struct outcome rtc_replay(struct gclk_move *move, uint64_t missed, uint64_t by_plan)
{
	struct gclk_rtc *to = &move->plan->state->rtc;
	uint64_t total = gclk_bound_add(to->owed_ticks, missed);
	uint64_t by_device = missed - by_plan, limit;

	if (!to->catches_up) {
		gclk_findings_put(&move->plan->findings, GCLK_F_REPLAY_NEEDS_DEVICE, "rtc",
				  "%llu ticks are owed",
				  (unsigned long long)GCLK_MIN(total, (uint64_t)move->policy->replay_max));
	}
	limit = capped(move, "rtc", total);
	to->owed_ticks = (uint32_t)(limit > by_device ? limit - by_device : 0);
	to->has |= GCLK_BIT(rtc, owed_ticks);
	return (struct outcome){ GCLK_TICKS_CATCHUP, limit };
}

static struct outcome rtc_outcome(struct gclk_move *move, int64_t load, uint64_t missed,
				  int64_t *ret_next)
{
	const struct gclk_rtc *rtc = &move->from->rtc;
	enum gclk_tick_policy policy = applied(move, GCLK_TICK_RTC, GCLK_CLOCK_RTC);

	if (policy == GCLK_TICKS_DISCARD) {
		*ret_next = gclk_rtc_periodic_next(rtc, load);
		move->plan->state->rtc.owed_ticks = 0;
		return (struct outcome){ policy, 0 };
	}
	*ret_next = rtc_resume_tick(rtc, load, policy);
	if (policy == GCLK_TICKS_CATCHUP) {
		return rtc_replay(move, missed,
				  gclk_rtc_periodic_edges(rtc, rtc->next_periodic_ns - 1,
							  *ret_next - 1));
	}
	move->plan->state->rtc.owed_ticks = 0;
	return one(policy, gclk_bound_add(missed, rtc->owed_ticks));
}

/* The same where ticks are injected. */
static struct outcome rtc_inject(struct gclk_move *move, int64_t load, uint64_t missed,
				 const struct gclk_cadence *cadence, int64_t *ret_next)
{
	struct outcome outcome = inject(move, GCLK_TICK_RTC, GCLK_CLOCK_RTC, 0, cadence, missed,
					&move->plan->state->rtc.owed_ticks);

	if (missed && !gclk_move_is_untouched(move)) {
		*ret_next = start_policy(outcome) == GCLK_TICKS_DISCARD ?
				    gclk_rtc_periodic_next(&move->from->rtc, load) :
				    rtc_resume_tick(&move->from->rtc, load, outcome.policy);
	}
	return outcome;
}

/*
 * The device handled its own ticks up to next_periodic_ns, also after the stop where
 * its axis is the wall's: those are among the owed ones. What is missed begins there.
 */
static void move_rtc_ticks(struct gclk_move *move)
{
	const struct gclk_rtc *rtc = &move->from->rtc;
	struct gclk_rtc *to = &move->plan->state->rtc;
	int64_t load = rtc_load(move), next = GCLK_TIMER_OFF;
	int stands = rtc->axis == GCLK_AXIS_GUEST && !move->counted_ns;
	struct gclk_cadence cadence;
	struct outcome outcome;
	uint64_t missed;

	if (!rtc->has || rtc->axis == GCLK_AXIS_MONOTONIC) {
		return;
	}
	gclk_rtc_cadence(rtc, &cadence);
	if (!cadence.armed || !cadence.periodic || rtc->next_periodic_ns < 1) {
		forgive(move, "rtc", GCLK_CLOCK_RTC, &to->owed_ticks);
		return;
	}
	missed = load < rtc->next_periodic_ns ? 0 :
		 gclk_rtc_periodic_edges(rtc, rtc->next_periodic_ns - 1, load);
	if (injects(move, GCLK_CLOCK_RTC)) {
		missed = stands ? 0 : missed;
		outcome = rtc_inject(move, load, missed, &cadence, &next);
	} else if (gclk_move_is_untouched(move)) {
		outcome = rtc_by_itself(move, missed);
	} else if (stands) {
		/* nothing is missed, what is owed stays owed */
		missed = 0;
		outcome = (struct outcome){ GCLK_TICKS_CATCHUP, rtc->owed_ticks };
	} else if (missed || rtc->owed_ticks) {
		outcome = rtc_outcome(move, load, missed, &next);
	} else {
		outcome = one(GCLK_TICKS_MERGE, 0);
	}
	if (next != GCLK_TIMER_OFF) {
		int64_t shift = rtc->axis == GCLK_AXIS_GUEST ? 0 : move->rtc_shift_ns;

		to->next_periodic_ns = gclk_add_sat(next, shift);
		to->periodic_expiry_ns = to->next_periodic_ns;
	}
	if (restarts(move, GCLK_CLOCK_RTC) && (!missed || outcome.policy == GCLK_TICKS_DISCARD)) {
		gclk_findings_put(&move->plan->findings, GCLK_F_RTC_PHASE_RESTARTS, "rtc",
				  "by less than its period of %llu ns",
				  (unsigned long long)period_ns(&cadence));
	}
	enter(move, "rtc", period_ns(&cadence), rtc->owed_ticks, missed, outcome,
	      gclk_move_row(move, GCLK_CLOCK_RTC)->why);
}

/* Overflows: a guest that clears the status each time has an interrupt for each. */
static void move_pm_timer(struct gclk_move *move)
{
	const struct gclk_pm_timer *pm = &move->from->pm_timer;
	uint64_t missed;

	if (!pm->has || !(pm->enable & 1)) {
		return;
	}
	missed = gclk_pm_timer_overflows(pm, missed_since(move, GCLK_HAS(pm_timer, pm, expiry_ns),
							  pm->expiry_ns),
					 move->axis_after_ns);
	enter(move, "pm_timer", 0, 0, missed, one(GCLK_TICKS_MERGE, missed),
	      gclk_move_row(move, GCLK_CLOCK_PM_TIMER)->why);
}

void gclk_move_ticks(struct gclk_move *move)
{
	move_pit(move);
	move_rtc_ticks(move);
	move_hpet(move);
	move_lapics(move);
	move_pm_timer(move);
	gclk_replay_save(&move->plan->replay, move->plan->state, NULL);	/* the fields' presence */
}
