/* SPDX-License-Identifier: MIT */
/* What becomes of ticks, timer by timer. Grids are computed here by hand. */
#include "gclk-test.h"
#include "world.h"

static void choose(struct world *w, enum gclk_tick_timer timer, enum gclk_tick_policy policy,
		   int by_operator)
{
	w->policy.ticks[timer].policy = (uint8_t)policy;
	w->policy.ticks[timer].by_operator = (uint8_t)by_operator;
}

static void check(const struct world *w, const char *timer, uint64_t missed, uint64_t replayed,
		  uint64_t merged, uint64_t dropped)
{
	const struct gclk_ledger_entry *e = world_entry(w, timer);

	CU_ASSERT_PTR_NOT_NULL(e);
	if (e) {
		GCLK_EQ(e->missed, missed);
		GCLK_EQ(e->replayed, replayed);
		GCLK_EQ(e->merged, merged);
		GCLK_EQ(e->dropped, dropped);
	}
}

GCLK_TEST(ledger, hpet_merge_and_discard)
{
	struct world w;

	/* expiries at 100.004 s + k * 10 ms; resume at 110 s: k = 0..999 missed */
	world_make(&w, &world_axis);
	choose(&w, GCLK_TICK_HPET, GCLK_TICKS_MERGE, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "hpet[0]", 1000, 1, 999, 0);
	GCLK_EQ(w.plan->state->hpet.timers[0].expiry_ns, 110 * S - 6 * MS);
	GCLK_EQ(w.plan->state->hpet.timers[0].comparator_ticks, (110 * S - 6 * MS) / 10);

	choose(&w, GCLK_TICK_HPET, GCLK_TICKS_DISCARD, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "hpet[0]", 1000, 0, 0, 1000);
	GCLK_EQ(w.plan->state->hpet.timers[0].expiry_ns, 110 * S + 4 * MS);
	GCLK_EQ(w.plan->state->hpet.timers[0].comparator_ticks, (110 * S + 4 * MS) / 10);
	world_end(&w);
}

GCLK_TEST(ledger, lapic_merge_and_discard)
{
	struct world w;

	/* count 9999999 + 1 at 1 ns: every 10 ms from 99 s; 110.000 s is on the grid */
	world_make(&w, &world_axis);
	choose(&w, GCLK_TICK_LAPIC, GCLK_TICKS_DISCARD, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "lapic[0]", 1000, 0, 0, 1000);
	GCLK_EQ(w.plan->state->lapic[1].expiry_ns, 110 * S + 10 * MS);
	GCLK_EQ(w.plan->state->lapic[1].next_time_ns, 110 * S + 10 * MS);

	choose(&w, GCLK_TICK_LAPIC, GCLK_TICKS_MERGE, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "lapic[1]", 1000, 1, 999, 0);
	GCLK_EQ(w.plan->state->lapic[0].expiry_ns, 110 * S);
	world_end(&w);
}

GCLK_TEST(ledger, a_one_shot_is_always_delivered)
{
	struct world w;

	world_make(&w, &world_axis);
	for (unsigned i = 0; i < 2; i++) {
		w.state->lapic[i].lvt_timer = 0xef;
		w.state->lapic[i].load_time_ns = 100 * S;
		w.state->lapic[i].initial_count = 5000000;
		w.state->lapic[i].expiry_ns = w.state->lapic[i].next_time_ns = 100 * S + 5 * MS;
	}
	choose(&w, GCLK_TICK_LAPIC, GCLK_TICKS_DISCARD, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "lapic[0]", 1, 1, 0, 0);
	GCLK_EQ(w.plan->state->lapic[0].expiry_ns, 100 * S + 5 * MS);
	world_end(&w);
}

GCLK_TEST(ledger, pit_in_step_with_its_count)
{
	struct world w;
	/* rising edges at floor-free k * 1193 / 1193182 s: between 100 s and 110 s */
	uint64_t first = 100 * UINT64_C(1193182) / 1193 + 1, last = 110 * UINT64_C(1193182) / 1193;

	world_make(&w, &world_axis);
	choose(&w, GCLK_TICK_PIT, GCLK_TICKS_MERGE, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "pit", last - first + 1, 1, last - first, 0);
	CU_ASSERT(w.plan->state->pit.channels[0].next_transition_ns <= 110 * S);
	CU_ASSERT(w.plan->state->pit.channels[0].next_transition_ns > 110 * S - 2 * MS);
	choose(&w, GCLK_TICK_PIT, GCLK_TICKS_DISCARD, 1);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT(w.plan->state->pit.channels[0].next_transition_ns > 110 * S);
	CU_ASSERT(w.plan->state->pit.channels[0].next_transition_ns < 110 * S + MS);
	GCLK_EQ(w.plan->state->pit.channels[0].load_time_ns, 0);
	world_end(&w);
}

GCLK_TEST(ledger, devices_that_restart)
{
	struct world w;

	world_make(&w, &world_kernel);
	GCLK_EQ(world_plan(&w), 0);
	/* whole periods in 10 s: 10 * 1193182 / 1193 */
	check(&w, "pit", 10001, 0, 0, 10001);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "pit-phase-restarts"));
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "lapic-phase-restarts"));
	GCLK_EQ(world_bound(&w, "pit"), 999847);
	GCLK_EQ(w.plan->state->pit.channels[0].next_transition_ns,
		w.state->pit.channels[0].next_transition_ns);
	world_end(&w);
}

GCLK_TEST(ledger, rtc_catches_up)
{
	struct world w;

	/* 1024 Hz; 10 s: 10240 ticks, all within the device's own reach */
	world_make(&w, &world_axis);
	GCLK_SET(rtc, &w.state->rtc, catches_up, 1);
	w.state->rtc.owed_ticks = 7;
	choose(&w, GCLK_TICK_RTC, GCLK_TICKS_CATCHUP, 0);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "rtc", 10240, 10247, 0, 0);
	GCLK_EQ(w.plan->state->rtc.next_periodic_ns, w.state->rtc.next_periodic_ns);
	GCLK_EQ(w.plan->state->rtc.owed_ticks, 7);

	/* 50 s: the device goes on 15 s before the load by itself, the rest is owed */
	world_resume(&w, 50 * S, 50 * S);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "rtc", 51200, 51207, 0, 0);
	CU_ASSERT(w.plan->state->rtc.next_periodic_ns <= T0 + 35 * S);
	CU_ASSERT(w.plan->state->rtc.next_periodic_ns > T0 + 35 * S - 2 * MS);
	CU_ASSERT(w.plan->state->rtc.owed_ticks >= 35 * 1024 + 7 - 2 &&
		  w.plan->state->rtc.owed_ticks <= 35 * 1024 + 7);

	/* beyond the horizon the domain's word no longer holds, the operator's does */
	world_resume(&w, 70 * S, 70 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "ticks-beyond-horizon"));
	check(&w, "rtc", 71680, 1, 71686, 0);
	choose(&w, GCLK_TICK_RTC, GCLK_TICKS_CATCHUP, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "rtc", 71680, 71687, 0, 0);
	w.policy.replay_max = 60000;
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "rtc", 71680, 60000, 0, 11687);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "ticks-capped"));
	world_end(&w);
}

GCLK_TEST(ledger, policies_that_a_carrier_cannot_keep)
{
	struct world w;

	world_make(&w, &world_axis);
	choose(&w, GCLK_TICK_HPET, GCLK_TICKS_CATCHUP, 1);
	choose(&w, GCLK_TICK_PIT, GCLK_TICKS_DELAY, 1);
	GCLK_EQ(world_plan(&w), 0);
	check(&w, "hpet[0]", 1000, 1, 999, 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "ticks-merged"));
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "ticks-policy-unknown"));	/* rtc, lapic */
	world_end(&w);
}

GCLK_TEST(ledger, replay_to_a_guest_with_a_counting_clock_is_said)	/* R3 */
{
	struct world w;

	world_make(&w, &world_kernel);
	GCLK_SET(vcpu, &w.state->vcpu[0], system_time_msr, UINT64_C(0x1001));
	choose(&w, GCLK_TICK_RTC, GCLK_TICKS_CATCHUP, 1);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "replay-and-count"));
	world_end(&w);
}

GCLK_TEST(ledger, nothing_armed_nothing_said)
{
	struct world w;

	world_make(&w, &world_axis);
	w.state->pit.channels[0].next_transition_ns = -1;
	w.state->hpet.timers[0].expiry_ns = -1;
	w.state->rtc.periodic_expiry_ns = -1;
	w.state->rtc.cmos[11] &= ~0x40;	/* PIE */
	for (unsigned i = 0; i < 2; i++) {
		w.state->lapic[i].expiry_ns = -1;
		w.state->lapic[i].lvt_timer |= 1u << 16;
	}
	GCLK_EQ(world_plan(&w), 0);
	for (unsigned i = 0; i < w.plan->n_ledger; i++) {
		printf("\n    %s is in the ledger", w.plan->ledger[i].timer);
	}
	GCLK_EQ(w.plan->n_ledger, 0);
	CU_ASSERT_PTR_NULL(world_finding(&w, "ticks-policy-unknown"));
	world_end(&w);
}
