/* SPDX-License-Identifier: MIT */
/*
 * Replay: how owed ticks are paid out to a running guest.
 *
 * A tick is in one of three places. It remains: then it is owed_ticks of the timer's
 * record in any state that is captured now. It was delivered: then it is in the guest, in
 * its interrupt controller at least, and travels with it. Or it was dropped, at the
 * horizon or because somebody said so. A coalesced attempt moves nothing; a tick of the
 * present that vanished in one of the past comes to the remaining ones.
 *
 *	remaining --report--> delivered
 *	    |  ^------- COALESCED
 *	    +---horizon, drop---> dropped
 *
 * No clock is read and nothing is allocated. Every call costs one look at each timer.
 */
#include <guestclock/plan.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"

#define ONE_SHOT_SPACING_NS (1 * GCLK_NS_PER_MS)	/* where there is no period to divide */

static const char *const phase_names[] = { "ready", "running", "stopped", "expired", "done" };
GCLK_API const char *const *const gclk_replay_phase_names = phase_names;

static int is_over(const struct gclk_replay *replay)
{
	return replay->phase > GCLK_REPLAY_RUNNING;
}

/* Rounded up, so that no rate is exceeded; never 0, so that time has to pass. */
static uint64_t spacing_of(uint64_t period_ns, enum gclk_tick_policy policy)
{
	if (!period_ns) {
		return ONE_SHOT_SPACING_NS;
	}
	return policy == GCLK_TICKS_DELAY ? period_ns : period_ns / GCLK_REPLAY_SPEED + 1;
}

/* After an attempt, or at the begin; INT64_MAX is "never" and no instant. */
static int64_t later(int64_t now_ns, uint64_t by_ns)
{
	int64_t t = gclk_add_sat(now_ns, (int64_t)GCLK_MIN(by_ns, (uint64_t)INT64_MAX));

	return GCLK_MIN(t, GCLK_REPLAY_NEVER - 1);
}

GCLK_API void gclk_replay_init(struct gclk_replay *replay, struct gclk_replay_timer *timers,
			       uint32_t timers_max, int64_t horizon_ns)
{
	*replay = (struct gclk_replay){ .timers = timers, .timers_max = timers_max,
					.horizon_ns = horizon_ns, .ends_ns = GCLK_REPLAY_NEVER };
}

static struct gclk_replay_timer *find(struct gclk_replay *replay, enum gclk_tick_timer timer,
				      uint32_t index)
{
	for (uint32_t i = 0; i < replay->n_timers; i++) {
		if (replay->timers[i].timer == timer && replay->timers[i].index == index) {
			return &replay->timers[i];
		}
	}
	return NULL;
}

/* Whether a state has a place for what such a timer owes. */
static int is_nameable(enum gclk_tick_timer timer, uint32_t index)
{
	switch (timer) {
	case GCLK_TICK_PIT:
	case GCLK_TICK_RTC:
		return index == 0;
	case GCLK_TICK_HPET:
		return index < GCLK_HPET_TIMERS_MAX;
	case GCLK_TICK_LAPIC:
		return index < GCLK_VCPUS_MAX;
	case GCLK_TICK_PM_TIMER:
	case GCLK_N_TICK_TIMERS:
		break;
	}
	return 0;
}

GCLK_API int gclk_replay_add(struct gclk_replay *replay, enum gclk_tick_timer timer,
			     uint32_t index, uint32_t owed, uint64_t period_ns,
			     enum gclk_tick_policy policy, struct gclk_error *reterr)
{
	if (replay->phase != GCLK_REPLAY_READY) {
		return gclk_fail(reterr, GCLK_STATE, "replay", GCLK_NO_OFFSET,
				 "the replay is %s", gclk_replay_phase_names[replay->phase]);
	}
	if (!is_nameable(timer, index)) {
		return gclk_fail(reterr, GCLK_RANGE, "replay.timer", GCLK_NO_OFFSET,
				 "timer %u, number %u, can owe no ticks", (unsigned)timer, index);
	}
	if (replay->n_timers == replay->timers_max || find(replay, timer, index)) {
		return gclk_fail(reterr, GCLK_RANGE, gclk_tick_timer_names[timer], GCLK_NO_OFFSET,
				 "number %u is there already, or there is no room beyond %u timers",
				 index, replay->timers_max);
	}
	replay->timers[replay->n_timers++] = (struct gclk_replay_timer){
		.timer = (uint8_t)timer,
		.policy = (uint8_t)policy,
		.index = index,
		.period_ns = period_ns,
		.spacing_ns = spacing_of(period_ns, policy),
		.next_ns = INT64_MIN,
		.owed = owed,
		.remaining = owed,
	};
	return 0;
}

GCLK_API uint64_t gclk_replay_remaining(const struct gclk_replay *replay)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < replay->n_timers; i++) {
		sum += replay->timers[i].remaining;
	}
	return sum;
}

GCLK_API int gclk_replay_due(const struct gclk_replay *replay, int64_t *ret_due_ns)
{
	int64_t due = GCLK_REPLAY_NEVER;
	int any = 0;

	for (uint32_t i = 0; i < replay->n_timers && !is_over(replay); i++) {
		const struct gclk_replay_timer *timer = &replay->timers[i];

		if (timer->remaining) {
			any = 1;
			due = timer->waits ? due : GCLK_MIN(due, timer->next_ns);
		}
	}
	*ret_due_ns = GCLK_MIN(due, replay->ends_ns);
	return any;
}

static void drop_all(struct gclk_replay *replay)
{
	for (uint32_t i = 0; i < replay->n_timers; i++) {
		replay->timers[i].dropped += replay->timers[i].remaining;
		replay->timers[i].remaining = 0;
	}
}

static void begin(struct gclk_replay *replay, int64_t now_ns)
{
	replay->phase = GCLK_REPLAY_RUNNING;
	if (replay->horizon_ns != GCLK_REPLAY_NEVER) {
		replay->ends_ns = later(now_ns, (uint64_t)GCLK_MAX(replay->horizon_ns, 0));
	}
}

/* Over, one way or the other, once nothing remains or the time is up. */
static void conclude(struct gclk_replay *replay, int64_t now_ns)
{
	if (is_over(replay)) {
		return;
	}
	if (!gclk_replay_remaining(replay)) {
		replay->phase = GCLK_REPLAY_DONE;
	} else if (now_ns >= replay->ends_ns) {
		drop_all(replay);
		replay->phase = GCLK_REPLAY_EXPIRED;
	}
}

static int is_due(const struct gclk_replay_timer *timer, int64_t now_ns)
{
	return timer->remaining && !timer->waits && timer->next_ns <= now_ns;
}

GCLK_API struct gclk_replay_timer *gclk_replay_next(struct gclk_replay *replay, int64_t now_ns)
{
	if (replay->phase == GCLK_REPLAY_READY) {
		begin(replay, now_ns);
	}
	conclude(replay, now_ns);
	for (uint32_t i = 0; i < replay->n_timers && !is_over(replay); i++) {
		struct gclk_replay_timer *timer = &replay->timers[replay->turn];

		if (is_due(timer, now_ns)) {
			return timer;
		}
		replay->turn = (replay->turn + 1) % replay->n_timers;
	}
	return NULL;
}

GCLK_API void gclk_replay_report(struct gclk_replay *replay, struct gclk_replay_timer *timer,
				 enum gclk_replay_outcome outcome, int64_t now_ns)
{
	timer->next_ns = later(now_ns, timer->spacing_ns);
	if (outcome == GCLK_REPLAY_COALESCED) {
		timer->coalesced++;
		return;
	}
	if (timer->remaining) {
		timer->remaining--;
		timer->delivered++;
	}
	timer->waits = outcome == GCLK_REPLAY_UNTIL_ACK;
	conclude(replay, INT64_MIN);
}

GCLK_API void gclk_replay_acknowledge(struct gclk_replay *replay, enum gclk_tick_timer timer,
				      uint32_t index)
{
	struct gclk_replay_timer *which = find(replay, timer, index);

	if (which) {
		which->waits = 0;
		which->acknowledged++;
	}
}

GCLK_API void gclk_replay_owe(struct gclk_replay *replay, enum gclk_tick_timer timer,
			      uint32_t index, uint32_t ticks)
{
	struct gclk_replay_timer *which = find(replay, timer, index);

	if (!which || is_over(replay) || !which->remaining ||
	    (which->policy != GCLK_TICKS_CATCHUP && which->policy != GCLK_TICKS_DELAY)) {
		return;
	}
	ticks = GCLK_MIN(ticks, UINT32_MAX - which->owed);
	which->owed += ticks;
	which->remaining += ticks;
}

GCLK_API void gclk_replay_retime(struct gclk_replay *replay, enum gclk_tick_timer timer,
				 uint32_t index, uint64_t period_ns)
{
	struct gclk_replay_timer *which = find(replay, timer, index);
	gclk_u128 left_ns, ticks;
	uint32_t most;

	if (!which || which->period_ns == period_ns) {
		return;
	}
	if (period_ns) {
		left_ns = (gclk_u128)which->remaining * which->period_ns + which->rest_ns;
		ticks = left_ns / period_ns;
		which->rest_ns = (uint64_t)(left_ns % period_ns);
		/* as many as can be counted, however short the new period */
		most = UINT32_MAX - which->delivered - which->dropped;
		which->remaining = ticks < most ? (uint32_t)ticks : most;
		which->owed = which->delivered + which->dropped + which->remaining;
	} else {
		which->dropped += which->remaining;
		which->remaining = 0;
		which->rest_ns = 0;
	}
	which->period_ns = period_ns;
	which->spacing_ns = spacing_of(period_ns, (enum gclk_tick_policy)which->policy);
	conclude(replay, INT64_MIN);
}

GCLK_API void gclk_replay_stop(struct gclk_replay *replay)
{
	conclude(replay, INT64_MIN);
	if (!is_over(replay)) {
		replay->phase = GCLK_REPLAY_STOPPED;
	}
}

GCLK_API void gclk_replay_drop(struct gclk_replay *replay)
{
	gclk_replay_stop(replay);
	drop_all(replay);
}

/* The record that has the timer's owed_ticks, as the switch below sets it, is there. */
static int is_in(const struct gclk_state *state, const struct gclk_replay_timer *timer)
{
	switch ((enum gclk_tick_timer)timer->timer) {
	case GCLK_TICK_PIT:
		return state->pit.channels[0].has != 0;
	case GCLK_TICK_RTC:
		return state->rtc.has != 0;
	case GCLK_TICK_HPET:
		return state->hpet.has && timer->index < state->hpet.n_timers;
	case GCLK_TICK_LAPIC:
		return timer->index < state->n_vcpus && state->lapic[timer->index].has;
	case GCLK_TICK_PM_TIMER:
	case GCLK_N_TICK_TIMERS:
		break;
	}
	return 0;
}

static void owe(const struct gclk_replay_timer *timer, struct gclk_state *state)
{
	switch ((enum gclk_tick_timer)timer->timer) {
	case GCLK_TICK_PIT:
		GCLK_SET(pit_channel, &state->pit.channels[0], owed_ticks, timer->remaining);
		break;
	case GCLK_TICK_RTC:
		GCLK_SET(rtc, &state->rtc, owed_ticks, timer->remaining);
		break;
	case GCLK_TICK_HPET:
		GCLK_SET(hpet_timer, &state->hpet.timers[timer->index], owed_ticks,
			 timer->remaining);
		break;
	case GCLK_TICK_LAPIC:
		GCLK_SET(lapic, &state->lapic[timer->index], owed_ticks, timer->remaining);
		break;
	case GCLK_TICK_PM_TIMER:
	case GCLK_N_TICK_TIMERS:
		break;
	}
}

GCLK_API int gclk_replay_save(const struct gclk_replay *replay, struct gclk_state *state,
			      struct gclk_error *reterr)
{
	for (uint32_t i = 0; i < replay->n_timers; i++) {
		const struct gclk_replay_timer *timer = &replay->timers[i];

		if (timer->remaining && !is_in(state, timer)) {
			return gclk_fail(reterr, GCLK_RANGE, gclk_tick_timer_names[timer->timer],
					 GCLK_NO_OFFSET,
					 "number %u owes %u ticks, but is not in the state",
					 timer->index, timer->remaining);
		}
	}
	for (uint32_t i = 0; i < replay->n_timers; i++) {
		if (is_in(state, &replay->timers[i])) {
			owe(&replay->timers[i], state);
		}
	}
	return 0;
}
