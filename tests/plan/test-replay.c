/* SPDX-License-Identifier: MIT */
/*
 * The replay engine against a simulation that walks through time step by step and keeps
 * its own books, with guests that acknowledge when they please.
 */
#include <guestclock/devices.h>

#include "gclk-test.h"
#include "world.h"

#define TIMERS 6
#define NEVER GCLK_REPLAY_NEVER

static const struct {
	enum gclk_tick_timer timer;
	uint32_t index;
} names[TIMERS] = {
	{ GCLK_TICK_PIT, 0 },  { GCLK_TICK_RTC, 0 },   { GCLK_TICK_HPET, 0 },
	{ GCLK_TICK_HPET, 2 }, { GCLK_TICK_LAPIC, 0 }, { GCLK_TICK_LAPIC, 1 },
};

/* What the simulation knows of one timer, from the words of the interface alone. */
struct book {
	uint64_t spacing;
	int64_t last;			/* the last attempt; INT64_MIN: none */
	uint32_t owed, delivered, in_vain, acknowledged;
	int waits;
};

struct guest {
	struct gclk_replay replay;
	struct gclk_replay_timer timers[TIMERS];
	struct book books[TIMERS];
	int64_t now, ends;
	unsigned n;
};

static struct book *book_of(struct guest *g, const struct gclk_replay_timer *timer)
{
	return &g->books[timer - g->timers];
}

static void add(struct guest *g, uint32_t owed, uint64_t period, enum gclk_tick_policy policy)
{
	unsigned i = g->n++;

	GCLK_EQ(gclk_replay_add(&g->replay, names[i].timer, names[i].index, owed, period, policy,
				NULL), 0);
	g->books[i] = (struct book){
		.spacing = policy == GCLK_TICKS_DELAY ? period : (period + 8) / 8,
		.last = INT64_MIN, .owed = owed,
	};
}

/* Up to six timers with small periods, so that walking step by step is feasible. */
static void make(struct guest *g, int64_t horizon)
{
	unsigned n = 1 + (unsigned)gclk_random_below(TIMERS);

	memset(g, 0, sizeof(*g));
	gclk_replay_init(&g->replay, g->timers, TIMERS, horizon);
	g->now = (int64_t)gclk_random_below(1000) - 500;
	g->ends = horizon == NEVER ? NEVER : g->now + horizon;
	for (unsigned i = 0; i < n; i++) {
		add(g, (uint32_t)gclk_random_below(20), 1 + gclk_random_below(60),
		    gclk_random_below(2) ? GCLK_TICKS_DELAY : GCLK_TICKS_CATCHUP);
	}
}

static int may_try(const struct book *b, int64_t now)
{
	return b->delivered < b->owed && !b->waits &&
	       (b->last == INT64_MIN || now >= b->last + (int64_t)b->spacing);
}

static void check_sums(const struct guest *g)
{
	for (unsigned i = 0; i < g->n; i++) {
		const struct gclk_replay_timer *t = &g->timers[i];

		GCLK_EQ((uint64_t)t->delivered + t->remaining + t->dropped, t->owed);
		GCLK_EQ(t->delivered, g->books[i].delivered);
		GCLK_EQ(t->coalesced, g->books[i].in_vain);
		GCLK_EQ(t->acknowledged, g->books[i].acknowledged);
	}
}

/* All attempts that the engine makes now; each must be one that the books allow. */
static unsigned inject(struct guest *g)
{
	struct gclk_replay_timer *timer;
	unsigned n = 0;

	while ((timer = gclk_replay_next(&g->replay, g->now))) {
		struct book *b = book_of(g, timer);
		enum gclk_replay_outcome outcome = (enum gclk_replay_outcome)gclk_random_below(3);

		CU_ASSERT(may_try(b, g->now));
		b->last = g->now;
		b->delivered += outcome != GCLK_REPLAY_COALESCED;
		b->in_vain += outcome == GCLK_REPLAY_COALESCED;
		b->waits = outcome == GCLK_REPLAY_UNTIL_ACK;
		gclk_replay_report(&g->replay, timer, outcome, g->now);
		n++;
	}
	for (unsigned i = 0; i < g->n && g->now < g->ends; i++) {
		CU_ASSERT(!may_try(&g->books[i], g->now));	/* none was left lying */
	}
	check_sums(g);
	return n;
}

static void acknowledge_at_random(struct guest *g)
{
	unsigned i = (unsigned)gclk_random_below(TIMERS);

	gclk_replay_acknowledge(&g->replay, names[i].timer, names[i].index);
	if (i < g->n) {
		g->books[i].waits = 0;
		g->books[i].acknowledged++;
	}
}

static int64_t first_allowed(const struct guest *g)
{
	int64_t first = g->ends;

	for (unsigned i = 0; i < g->n; i++) {
		const struct book *b = &g->books[i];
		int64_t at = b->last == INT64_MIN ? INT64_MIN : b->last + (int64_t)b->spacing;

		if (b->delivered < b->owed && !b->waits && at < first) {
			first = at;
		}
	}
	return first;
}

static uint64_t left(const struct guest *g)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < g->n; i++) {
		n += g->books[i].owed - g->books[i].delivered;
	}
	return n;
}

/* Every ns is looked at, so an attempt too late or too early would be seen. */
GCLK_TEST(replay, step_by_step)
{
	for (unsigned run = 0; run < 300 * gclk_test_scale(); run++) {
		struct guest g;
		int64_t due;

		make(&g, NEVER);
		for (unsigned step = 0; left(&g); step++, g.now++) {
			GCLK_EQ(gclk_replay_due(&g.replay, &due), 1);
			GCLK_EQ(due, first_allowed(&g));
			inject(&g);
			if (gclk_random_below(4) == 0) {
				acknowledge_at_random(&g);
			}
			if (step > 100000) {
				CU_FAIL("the replay does not end");
				return;
			}
		}
		gclk_replay_next(&g.replay, g.now);
		GCLK_EQ(g.replay.phase, GCLK_REPLAY_DONE);
		GCLK_EQ(gclk_replay_due(&g.replay, &due), 0);
		GCLK_EQ(gclk_replay_remaining(&g.replay), 0);
	}
}

/* A caller that sleeps until it is due, or overslept, sees no burst afterwards. */
GCLK_TEST(replay, driven_by_due_and_late)
{
	for (unsigned run = 0; run < 300 * gclk_test_scale(); run++) {
		struct guest g;
		int64_t due;

		make(&g, NEVER);
		while (gclk_replay_due(&g.replay, &due)) {
			GCLK_EQ(due, first_allowed(&g));
			if (due == NEVER) {		/* all wait for the guest */
				acknowledge_at_random(&g);
				continue;
			}
			g.now = due > g.now ? due : g.now;
			g.now += gclk_random_below(3) ? 0 : (int64_t)gclk_random_below(500);
			CU_ASSERT(inject(&g) > 0);
		}
		GCLK_EQ(left(&g), 0);
	}
}

GCLK_TEST(replay, the_horizon_drops_the_rest)
{
	for (unsigned run = 0; run < 300 * gclk_test_scale(); run++) {
		int64_t horizon = (int64_t)gclk_random_below(200), due;
		uint64_t dropped = 0;
		struct guest g;

		make(&g, horizon);
		gclk_replay_next(&g.replay, g.now);
		while (gclk_replay_due(&g.replay, &due)) {
			CU_ASSERT(due <= g.ends);
			g.now = due > g.now ? due : g.now;
			if (inject(&g)) {
				CU_ASSERT(g.now < g.ends);
			}
			if (gclk_random_below(3) == 0) {
				acknowledge_at_random(&g);
			}
		}
		for (unsigned i = 0; i < g.n; i++) {
			dropped += g.timers[i].dropped;
		}
		GCLK_EQ(dropped, left(&g));
		GCLK_EQ(g.replay.phase, dropped ? GCLK_REPLAY_EXPIRED : GCLK_REPLAY_DONE);
		GCLK_EQ(gclk_replay_remaining(&g.replay), 0);
		check_sums(&g);
	}
}

/* One tick at a time, any answer, and a guest that acknowledges in between. */
static void pay(struct gclk_replay *replay, unsigned attempts, int64_t *now, uint64_t got[TIMERS])
{
	struct gclk_replay_timer *timer;
	int64_t due;

	while (attempts && gclk_replay_due(replay, &due)) {
		for (unsigned i = 0; i < TIMERS && due == NEVER; i++) {
			gclk_replay_acknowledge(replay, names[i].timer, names[i].index);
		}
		*now = due != NEVER && due > *now ? due : *now + 1;
		timer = gclk_replay_next(replay, *now);
		if (timer) {
			enum gclk_replay_outcome outcome =
				(enum gclk_replay_outcome)gclk_random_below(3);

			for (unsigned i = 0; i < TIMERS; i++) {
				if (names[i].timer == timer->timer &&
				    names[i].index == timer->index) {
					got[i] += outcome != GCLK_REPLAY_COALESCED;
				}
			}
			gclk_replay_report(replay, timer, outcome, *now);
			attempts--;
		}
	}
}

static uint32_t owed_in(const struct gclk_state *state, unsigned i)
{
	switch (names[i].timer) {
	case GCLK_TICK_PIT:
		return state->pit.channels[0].owed_ticks;
	case GCLK_TICK_RTC:
		return state->rtc.owed_ticks;
	case GCLK_TICK_HPET:
		return state->hpet.timers[names[i].index].owed_ticks;
	default:
		return state->lapic[names[i].index].owed_ticks;
	}
}

/* Captured after every possible number of attempts, and again on the way. */
GCLK_TEST(replay, captured_at_every_point)
{
	static const uint32_t owed[TIMERS] = { 7, 1, 0, 5, 3, 11 };

	for (unsigned at = 0; at < 60; at++) {
		struct gclk_replay_timer timers[TIMERS];
		struct gclk_replay replay;
		uint64_t got[TIMERS] = { 0 };
		int64_t now = 0;
		struct world w;

		world_make(&w, &world_axis);
		gclk_replay_init(&replay, timers, TIMERS, NEVER);
		for (unsigned i = 0; i < TIMERS; i++) {
			gclk_replay_add(&replay, names[i].timer, names[i].index, owed[i], 10 * MS,
					GCLK_TICKS_CATCHUP, NULL);
		}
		for (unsigned attempts = at; attempts; attempts = attempts / 2) {
			pay(&replay, attempts, &now, got);
			gclk_replay_stop(&replay);
			GCLK_EQ(gclk_replay_save(&replay, w.state, NULL), 0);
			for (unsigned i = 0; i < TIMERS; i++) {
				GCLK_EQ(owed_in(w.state, i) + got[i], owed[i]);
			}
			gclk_replay_init(&replay, timers, TIMERS, NEVER);
			for (unsigned i = 0; i < TIMERS; i++) {
				gclk_replay_add(&replay, names[i].timer, names[i].index,
						owed_in(w.state, i), 10 * MS, GCLK_TICKS_CATCHUP,
						NULL);
			}
		}
		pay(&replay, UINT32_MAX, &now, got);
		for (unsigned i = 0; i < TIMERS; i++) {
			GCLK_EQ(got[i], owed[i]);
		}
		world_end(&w);
	}
}

GCLK_TEST(replay, rate_of_each_policy)
{
	struct guest g = { .ends = NEVER };
	uint64_t got[TIMERS] = { 0 };
	int64_t due = 0, end[2] = { 0 };

	gclk_replay_init(&g.replay, g.timers, TIMERS, NEVER);
	add(&g, 101, 10 * (uint64_t)MS, GCLK_TICKS_DELAY);
	add(&g, 101, 8000, GCLK_TICKS_CATCHUP);
	while (gclk_replay_due(&g.replay, &due)) {
		struct gclk_replay_timer *timer;

		g.now = due > 0 ? due : 0;
		while ((timer = gclk_replay_next(&g.replay, g.now))) {
			end[timer - g.timers] = g.now;
			got[timer - g.timers]++;
			gclk_replay_report(&g.replay, timer, GCLK_REPLAY_DELIVERED, g.now);
		}
	}
	GCLK_EQ(got[0], 101);
	GCLK_EQ(got[1], 101);
	GCLK_EQ(end[0], 100 * 10 * MS);		/* the timer's own rate */
	GCLK_EQ(end[1], 100 * 1001);		/* eight times of it, rounded down */
}

GCLK_TEST(replay, stop_keeps_and_drop_drops)
{
	for (int drop = 0; drop < 2; drop++) {
		struct gclk_replay_timer timers[1];
		struct gclk_replay replay;
		int64_t due;

		gclk_replay_init(&replay, timers, 1, NEVER);
		gclk_replay_add(&replay, GCLK_TICK_PIT, 0, 5, 100, GCLK_TICKS_CATCHUP, NULL);
		gclk_replay_report(&replay, gclk_replay_next(&replay, 0), GCLK_REPLAY_DELIVERED, 0);
		(drop ? gclk_replay_drop : gclk_replay_stop)(&replay);
		GCLK_EQ(replay.phase, GCLK_REPLAY_STOPPED);
		GCLK_EQ(gclk_replay_due(&replay, &due), 0);
		CU_ASSERT_PTR_NULL(gclk_replay_next(&replay, 1 * S));
		GCLK_EQ(timers[0].remaining, drop ? 0 : 4);
		GCLK_EQ(timers[0].dropped, drop ? 4 : 0);
	}
}

GCLK_TEST(replay, another_period)
{
	struct gclk_replay_timer t[1];
	struct gclk_replay replay;

	gclk_replay_init(&replay, t, 1, NEVER);
	gclk_replay_add(&replay, GCLK_TICK_RTC, 0, 100, 15625000, GCLK_TICKS_CATCHUP, NULL);
	for (int i = 0; i < 10; i++) {
		gclk_replay_report(&replay, gclk_replay_next(&replay, i * S),
				   GCLK_REPLAY_DELIVERED, i * S);
	}
	/* 90 ticks of 1/64 s are 1440 of 1/1024 s, and back; nothing gets lost on the way */
	gclk_replay_retime(&replay, GCLK_TICK_RTC, 0, 976562);
	GCLK_EQ(t->remaining, 1440);
	GCLK_EQ(t->owed, 1450);
	GCLK_EQ(t->spacing_ns, 976562 / 8 + 1);
	gclk_replay_retime(&replay, GCLK_TICK_RTC, 0, 15625000);
	GCLK_EQ(t->remaining, 90);
	GCLK_EQ(t->owed, 100);
	GCLK_EQ(t->rest_ns, 0);
	gclk_replay_retime(&replay, GCLK_TICK_RTC, 0, 0);
	GCLK_EQ(t->dropped, 90);
	GCLK_EQ(t->owed, 100);
	GCLK_EQ(replay.phase, GCLK_REPLAY_DONE);
}

/* What does not fit is refused and changes nothing. */
GCLK_TEST(replay, refusals)
{
	struct gclk_replay_timer timers[2];
	struct gclk_replay replay;
	struct gclk_error error;
	struct world w;

	gclk_replay_init(&replay, timers, 2, NEVER);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_PM_TIMER, 0, 1, 1, GCLK_TICKS_MERGE, &error),
		-GCLK_RANGE);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_HPET, 32, 1, 1, GCLK_TICKS_MERGE, &error),
		-GCLK_RANGE);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_RTC, 1, 1, 1, GCLK_TICKS_MERGE, &error),
		-GCLK_RANGE);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_LAPIC, 2, 9, 1, GCLK_TICKS_MERGE, &error), 0);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_LAPIC, 2, 9, 1, GCLK_TICKS_MERGE, &error),
		-GCLK_RANGE);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_PIT, 0, 4, 1, GCLK_TICKS_MERGE, &error), 0);
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_RTC, 0, 1, 1, GCLK_TICKS_MERGE, &error),
		-GCLK_RANGE);
	CU_ASSERT_PTR_NOT_NULL(gclk_replay_next(&replay, 0));
	GCLK_EQ(gclk_replay_add(&replay, GCLK_TICK_RTC, 0, 1, 1, GCLK_TICKS_MERGE, &error),
		-GCLK_STATE);
	/* the world has two vCPUs, number 2 is none of them */
	world_make(&w, &world_axis);
	GCLK_EQ(gclk_replay_save(&replay, w.state, &error), -GCLK_RANGE);
	CU_ASSERT(!GCLK_HAS(pit_channel, &w.state->pit.channels[0], owed_ticks));
	world_end(&w);
}

/* The ends of the axis: nothing wraps, and no instant is mistaken for "never". */
GCLK_TEST(replay, extreme_instants)
{
	static const int64_t instants[] = { INT64_MIN, -1, 0, INT64_MAX - 1, INT64_MAX };

	for (unsigned i = 0; i < sizeof(instants) / sizeof(*instants); i++) {
		struct gclk_replay_timer timers[1], *timer;
		struct gclk_replay replay;
		int64_t due;

		gclk_replay_init(&replay, timers, 1, INT64_MAX - 1);
		gclk_replay_add(&replay, GCLK_TICK_PIT, 0, UINT32_MAX, UINT64_MAX,
				GCLK_TICKS_DELAY, NULL);
		timer = gclk_replay_next(&replay, instants[i]);
		if (instants[i] >= INT64_MAX - 1) {		/* the horizon cannot be later */
			CU_ASSERT_PTR_NULL(timer);
			GCLK_EQ(timers[0].dropped, UINT32_MAX);
			continue;
		}
		CU_ASSERT_PTR_NOT_NULL_FATAL(timer);
		gclk_replay_report(&replay, timer, GCLK_REPLAY_DELIVERED, instants[i]);
		GCLK_EQ(gclk_replay_due(&replay, &due), 1);
		CU_ASSERT(due > instants[i] && due != NEVER);
	}
}

/* ---- through plans ---- */

static void choose_all(struct world *w, enum gclk_tick_policy policy)
{
	for (unsigned i = 0; i < GCLK_N_TICK_TIMERS; i++) {
		w->policy.ticks[i] = (struct gclk_tick_choice){ (uint8_t)policy, 1 };
	}
}

/* The guest's own axis for all devices, so that the periods are the same in any plan. */
static void make_linked(struct world *w, enum gclk_tick_policy policy)
{
	world_make(w, &world_linked);
	w->state->rtc.axis = GCLK_AXIS_GUEST;
	w->state->rtc.base_at_ns = 0;
	w->state->rtc.next_periodic_ns = 100 * S + 500001;
	w->state->rtc.periodic_expiry_ns = 100 * S + 500001;
	choose_all(w, policy);
	w->policy.replay_horizon_ns = 0;
}

static const struct gclk_replay_timer *owed_by(const struct world *w, enum gclk_tick_timer timer,
					       uint32_t index)
{
	const struct gclk_replay *replay = &w->plan->replay;

	for (uint32_t i = 0; i < replay->n_timers; i++) {
		if (replay->timers[i].timer == timer && replay->timers[i].index == index) {
			return &replay->timers[i];
		}
	}
	return NULL;
}

/* By hand: HPET and LAPIC every 10 ms from 100.004 and 100.010 s, resume at 110 s. */
GCLK_TEST(replay, what_a_plan_owes)
{
	struct world w;

	make_linked(&w, GCLK_TICKS_CATCHUP);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(owed_by(&w, GCLK_TICK_HPET, 0)->owed, 1000);
	GCLK_EQ(owed_by(&w, GCLK_TICK_HPET, 0)->spacing_ns, 10 * MS / 8 + 1);
	GCLK_EQ(owed_by(&w, GCLK_TICK_LAPIC, 1)->owed, 1000);
	GCLK_EQ(owed_by(&w, GCLK_TICK_RTC, 0)->owed, 10240);
	GCLK_EQ(owed_by(&w, GCLK_TICK_PIT, 0)->owed, 10001);
	/* the devices go on behind the resume by themselves */
	GCLK_EQ(w.plan->state->hpet.timers[0].expiry_ns, 110 * S + 4 * MS);
	GCLK_EQ(w.plan->state->lapic[0].expiry_ns, 110 * S + 10 * MS);
	CU_ASSERT(w.plan->state->rtc.next_periodic_ns > 110 * S);
	CU_ASSERT(w.plan->state->rtc.next_periodic_ns <= 110 * S + 976563);
	GCLK_EQ(w.plan->state->hpet.timers[0].owed_ticks, 1000);
	CU_ASSERT(GCLK_HAS(lapic, &w.plan->state->lapic[1], owed_ticks));

	choose_all(&w, GCLK_TICKS_DELAY);
	w.policy.replay_max = 700;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(owed_by(&w, GCLK_TICK_HPET, 0)->owed, 700);
	GCLK_EQ(owed_by(&w, GCLK_TICK_HPET, 0)->spacing_ns, 10 * MS);
	GCLK_EQ(world_entry(&w, "hpet[0]")->replayed, 700);
	GCLK_EQ(world_entry(&w, "hpet[0]")->dropped, 300);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "ticks-capped"));

	/* one for all comes from the device where it keeps its phase */
	choose_all(&w, GCLK_TICKS_MERGE);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->replay.n_timers, 1);
	GCLK_EQ(owed_by(&w, GCLK_TICK_PIT, 0)->owed, 1);
	GCLK_EQ(world_entry(&w, "pit")->merged, 10000);
	GCLK_EQ(w.plan->state->hpet.timers[0].expiry_ns, 110 * S - 6 * MS);

	choose_all(&w, GCLK_TICKS_DISCARD);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->replay.n_timers, 0);
	GCLK_EQ(world_entry(&w, "pit")->dropped, 10001);
	world_end(&w);
}

/* The domain's word ends at the horizon, also for what is injected. */
GCLK_TEST(replay, beyond_the_horizon_of_the_policy)
{
	struct world w;

	make_linked(&w, GCLK_TICKS_CATCHUP);
	w.policy.ticks[GCLK_TICK_HPET].by_operator = 0;
	world_resume(&w, 61 * S, 61 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NULL(owed_by(&w, GCLK_TICK_HPET, 0));
	GCLK_EQ(world_entry(&w, "hpet[0]")->merged, 6099);
	GCLK_EQ(owed_by(&w, GCLK_TICK_LAPIC, 0)->owed, 6100);
	world_end(&w);
}

/* A device that replays by itself is not helped. */
GCLK_TEST(replay, a_device_that_catches_up)
{
	struct world w;

	make_linked(&w, GCLK_TICKS_CATCHUP);
	GCLK_SET(rtc, &w.state->rtc, catches_up, 1);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NULL(owed_by(&w, GCLK_TICK_RTC, 0));
	GCLK_EQ(world_entry(&w, "rtc")->replayed, 10240);
	world_end(&w);
}

/*
 * A guest that is moved again and again while ticks are still being paid out. Whatever
 * the policy of each move: what is owed in the end is what the ledgers say, and what the
 * engine delivered and the ledgers dropped and merged accounts for every missed tick.
 */
GCLK_TEST(replay, moved_in_the_middle)
{
	static const enum gclk_tick_policy policies[] = { GCLK_TICKS_CATCHUP, GCLK_TICKS_DELAY,
							  GCLK_TICKS_MERGE, GCLK_TICKS_DISCARD };

	for (unsigned run = 0; run < 60 * gclk_test_scale(); run++) {
		uint64_t got[TIMERS] = { 0 }, missed[TIMERS] = { 0 }, gone[TIMERS] = { 0 };
		static const char *const entries[TIMERS] = { "pit", "rtc", "hpet[0]", NULL,
							     "lapic[0]", "lapic[1]" };
		int64_t now = 0, at = 100 * S;
		struct world w;

		make_linked(&w, GCLK_TICKS_CATCHUP);
		for (unsigned move = 0; move < 6; move++) {
			int64_t gap = (int64_t)gclk_random_below(200 * MS);

			choose_all(&w, move == 5 || gclk_random_below(3) ?
					       GCLK_TICKS_CATCHUP :
					       policies[gclk_random_below(4)]);
			world_resume(&w, gap, gap);
			w.policy.gap = gclk_random_below(4) ? GCLK_GAP_COUNT : GCLK_GAP_FREEZE;
			GCLK_EQ(world_plan(&w), 0);
			for (unsigned i = 0; i < TIMERS; i++) {
				const struct gclk_ledger_entry *e =
					entries[i] ? world_entry(&w, entries[i]) : NULL;
				uint32_t owed = owed_in(w.plan->state, i);

				if (!e) {
					continue;
				}
				GCLK_EQ(e->owed_before + e->missed,
					e->replayed + e->merged + e->dropped);
				GCLK_EQ(e->owed_before, owed_in(w.state, i));
				missed[i] += e->missed;
				gone[i] += e->merged + e->dropped;
				/* the device itself delivers what is not injected */
				GCLK_EQ(owed <= e->replayed, 1);
				gone[i] += e->replayed - owed;
			}
			pay(&w.plan->replay, move == 5 ? UINT32_MAX :
							 (unsigned)gclk_random_below(300),
			    &now, got);
			/* the guest runs on for a while: its devices tick, the next stop */
			GCLK_EQ(gclk_state_assign(w.state, w.plan->state, NULL), 0);
			GCLK_EQ(gclk_replay_save(&w.plan->replay, w.state, NULL), 0);
			at = w.state->virtual_clock.clock_ns;
			gclk_hpet_advance(&w.state->hpet, at, NULL);
			gclk_rtc_advance(&w.state->rtc, at, NULL);
			for (unsigned i = 0; i < 2; i++) {
				gclk_lapic_advance(&w.state->lapic[i], at, NULL);
			}
		}
		for (unsigned i = 0; i < TIMERS; i++) {
			GCLK_EQ(got[i] + gone[i], missed[i]);
			GCLK_EQ(owed_in(w.state, i), 0);
		}
		world_end(&w);
	}
}

/* A tick of the present that vanished in one of the past: both are delivered in the end. */
GCLK_TEST(replay, ticks_that_vanish_while_it_runs)
{
	struct gclk_replay_timer t[2];
	struct gclk_replay replay;
	int64_t due, now = 0;

	gclk_replay_init(&replay, t, 2, NEVER);
	gclk_replay_add(&replay, GCLK_TICK_PIT, 0, 2, 80, GCLK_TICKS_CATCHUP, NULL);
	gclk_replay_add(&replay, GCLK_TICK_HPET, 1, 1, 80, GCLK_TICKS_MERGE, NULL);
	gclk_replay_owe(&replay, GCLK_TICK_PIT, 0, 3);
	gclk_replay_owe(&replay, GCLK_TICK_HPET, 1, 3);		/* one for all is enough */
	gclk_replay_owe(&replay, GCLK_TICK_RTC, 0, 3);		/* not its timer */
	while (gclk_replay_due(&replay, &due)) {
		struct gclk_replay_timer *timer;

		now = due > now ? due : now;
		while ((timer = gclk_replay_next(&replay, now))) {
			gclk_replay_report(&replay, timer, GCLK_REPLAY_DELIVERED, now);
		}
	}
	GCLK_EQ(t[0].delivered, 5);
	GCLK_EQ(t[0].owed, 5);
	GCLK_EQ(t[1].delivered, 1);
	gclk_replay_owe(&replay, GCLK_TICK_PIT, 0, 1);		/* too late: it is caught up */
	GCLK_EQ(gclk_replay_remaining(&replay), 0);
}

/* Whatever the guest does to the period, the time that is owed stays the same, to the ns. */
GCLK_TEST(replay, any_period_owes_the_same_time)
{
	for (unsigned run = 0; run < 200 * gclk_test_scale(); run++) {
		uint64_t period = 1000 + gclk_random_below(100000000), taken_ns = 0, owed_ns;
		struct gclk_replay_timer t[1], *due;
		struct gclk_replay replay;
		int64_t now = 0;

		gclk_replay_init(&replay, t, 1, NEVER);
		gclk_replay_add(&replay, GCLK_TICK_RTC, 0, 1 + (uint32_t)gclk_random_below(1000),
				period, GCLK_TICKS_CATCHUP, NULL);
		owed_ns = t->owed * period;
		for (unsigned step = 0; step < 20; step++) {
			now += S;
			due = gclk_replay_next(&replay, now);
			if (due && gclk_random_below(2)) {
				gclk_replay_report(&replay, due, GCLK_REPLAY_DELIVERED, now);
				taken_ns += t->period_ns;
			} else if (replay.phase == GCLK_REPLAY_RUNNING) {
				gclk_replay_retime(&replay, GCLK_TICK_RTC, 0,
						   1000 + gclk_random_below(100000000));
			}
			GCLK_EQ(t->remaining * t->period_ns + t->rest_ns + taken_ns, owed_ns);
			GCLK_EQ(t->owed, t->delivered + t->remaining + t->dropped);
		}
	}
}
