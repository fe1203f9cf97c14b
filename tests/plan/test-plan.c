/* SPDX-License-Identifier: MIT */
/* The rules of the plan, one by one; design of the rules: docs/theory.md. */
#include <ctype.h>
#include <stdlib.h>

#include "gclk-test.h"
#include "world.h"

#define WORLD(carrier) \
	struct world w; \
	world_make(&w, carrier); \
	const struct gclk_state *to = w.plan->state; \
	(void)to

GCLK_TEST(plan, count_moves_every_clock_by_the_gap)
{
	WORLD(&world_axis);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->gap_ns, 10 * S);
	GCLK_EQ(w.plan->counted_ns, 10 * S);
	GCLK_EQ(to->virtual_clock.clock_ns, 110 * S);
	GCLK_EQ(to->virtual_clock.host_ticks, 220 * S);
	GCLK_EQ(to->tsc[0].value_ticks, 220 * S);
	GCLK_EQ(to->tsc[1].value_ticks, 220 * S + 30000);	/* R2: one delta for all */
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns);	/* it counts by itself */
	GCLK_EQ(to->hpet.offset_ns, 0);				/* it rides */
	world_end(&w);
}

GCLK_TEST(plan, load_and_run_part)
{
	WORLD(&world_kernel);
	world_resume(&w, 4 * S, 9 * S);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->tsc[0].value_ticks, 208 * S);	/* 4 s at 2 GHz; runs for 5 s more */
	GCLK_EQ(to->kvmclock.clock_ns, 109 * S);
	GCLK_EQ(to->virtual_clock.clock_ns, 109 * S);
	GCLK_EQ(to->virtual_clock.host_ticks, 200 * S);	/* not this guest's TSC */
	world_end(&w);
}

GCLK_TEST(plan, a_counter_that_starts_at_the_load_is_never_set_back)	/* R1 */
{
	WORLD(&world_kernel);
	world_resume(&w, 1 * S, 9 * S);
	w.policy.gap = GCLK_GAP_CAP;
	w.policy.cap_ns = 2 * S;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->tsc[0].value_ticks, 200 * S);
	GCLK_EQ(to->kvmclock.clock_ns, 102 * S);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "resume-after-load"));
	CU_ASSERT(world_bound(&w, "tsc") >= 6 * (uint64_t)S);
	world_end(&w);
}

GCLK_TEST(plan, pause_between_stop_and_save_is_taken_out)
{
	WORLD(&world_kernel);
	w.state->guest.run_state = GCLK_RUN_RUNNING;
	GCLK_SET(kvmclock, &w.state->kvmclock, read_after_stop_ns, UINT64_C(3000000000));
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->kvmclock.clock_ns, 107 * S);	/* 97 s at the stop, and 10 */
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "kvmclock-pause-removed"));
	CU_ASSERT(world_bound(&w, "kvmclock") < 100000);

	GCLK_UNSET(kvmclock, &w.state->kvmclock, read_after_stop_ns);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "kvmclock-pause-unknown"));
	GCLK_EQ(world_bound(&w, "kvmclock"), GCLK_UNBOUNDED);
	world_end(&w);
}

GCLK_TEST(plan, an_unreliable_clock_lags)
{
	WORLD(&world_kernel);
	w.state->kvmclock.reliable = 0;
	world_resume(&w, 4 * S, 9 * S);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->kvmclock.clock_ns, 100 * S);	/* the loader does not look at it */
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "kvmclock-lags"));
	CU_ASSERT(world_bound(&w, "kvmclock") >= 5 * (uint64_t)S);
	world_end(&w);
}

/* Every present field and the presence bits, through the tables. */
static int same_state(const struct gclk_state *a, const struct gclk_state *b)
{
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		uint32_t n, m;
		const void *x = gclk_state_part(a, &gclk_parts[i], &n);
		const void *y = gclk_state_part(b, &gclk_parts[i], &m);

		if (n != m || (n && memcmp(x, y, (size_t)n * gclk_parts[i].record->size))) {
			return 0;
		}
	}
	return 1;
}

GCLK_TEST(plan, freeze_changes_nothing)
{
	static const struct gclk_carrier *const carriers[] = { &world_axis, &world_kernel };

	for (unsigned i = 0; i < 2; i++) {
		WORLD(carriers[i]);
		w.policy.gap = GCLK_GAP_FREEZE;
		world_resume(&w, 7 * S, 90 * S);
		w.disagreement.ns = 5 * S;
		GCLK_EQ(world_plan(&w), 0);
		CU_ASSERT(same_state(w.state, to));
		CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "rtc-runs-on"));
		CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "clocks-behind"));
		CU_ASSERT(world_bound(&w, "rtc") >= 85 * (uint64_t)S);
		world_end(&w);
	}
}

/* A host that stalled: the guest was stopped before its timers had come to what was due. */
GCLK_TEST(plan, freeze_leaves_what_was_due_at_the_stop)
{
	WORLD(&world_axis);
	const int64_t due = w.state->virtual_clock.clock_ns - S;

	w.policy.gap = GCLK_GAP_FREEZE;
	GCLK_SET(pit_channel, &w.state->pit.channels[0], next_transition_ns, due);
	GCLK_SET(hpet_timer, &w.state->hpet.timers[0], expiry_ns, due);
	GCLK_SET(lapic, &w.state->lapic[0], expiry_ns, due);
	GCLK_SET(lapic, &w.state->lapic[0], next_time_ns, due);
	world_resume(&w, 7 * S, 90 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT(same_state(w.state, to));
	world_end(&w);
}

GCLK_TEST(plan, no_gap_and_no_disagreement_change_nothing)	/* R9 */
{
	WORLD(&world_axis);
	world_resume(&w, 0, 0);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT(same_state(w.state, to));
	world_end(&w);
}

GCLK_TEST(plan, wall_moves_the_real_time_clock_alone)
{
	WORLD(&world_axis);
	w.policy.gap = GCLK_GAP_WALL;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->virtual_clock.clock_ns, 100 * S);
	GCLK_EQ(to->tsc[0].value_ticks, 200 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns);
	const struct gclk_finding *finding = world_finding(&w, "wall-clock-behind");
	CU_ASSERT_PTR_NOT_NULL_FATAL(finding);
	CU_ASSERT_PTR_NULL(world_finding(&w, "clocks-behind"));
	GCLK_EQ(finding->severity, GCLK_ERROR);

	/* the same on the axis, which stands: what it shows is moved instead */
	w.state->rtc.axis = GCLK_AXIS_GUEST;
	w.state->rtc.base_at_ns = 0;
	w.state->rtc.next_periodic_ns = w.state->rtc.periodic_expiry_ns = 100 * S + 500001;
	world_resume(&w, 10 * S, 10 * S + 250 * MS);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->rtc.base_s, w.state->rtc.base_s + 10);
	GCLK_EQ(to->rtc.offset_ns, 250 * MS);

	w.state->rtc.offset_ns = -500 * MS;	/* loaders take the part of a second for positive */
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->rtc.base_s, w.state->rtc.base_s + 9);
	GCLK_EQ(to->rtc.offset_ns, 750 * MS);
	world_end(&w);
}

GCLK_TEST(plan, cap_counts_up_to_it_and_freezes_the_rest)
{
	WORLD(&world_axis);
	w.policy.gap = GCLK_GAP_CAP;
	w.policy.cap_ns = 4 * S;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->counted_ns, 4 * S);
	GCLK_EQ(to->virtual_clock.clock_ns, 104 * S);
	GCLK_EQ(to->tsc[0].value_ticks, 208 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns + 6 * S);	/* held back by 6 s */
	w.policy.cap_ns = 400 * S;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->counted_ns, 10 * S);
	w.policy.cap_ns = -1;
	GCLK_EQ(world_plan(&w), -GCLK_RANGE);
	world_end(&w);
}

GCLK_TEST(plan, hosts_that_disagree)
{
	static const char *const unmeasured[] = { "wall-clocks-unmeasured", NULL };

	WORLD(&world_axis);
	/* destination 3 s ahead: 10 s by the clocks were 7 s */
	w.disagreement = (struct gclk_disagreement){ 3 * S, 1000 };
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->gap_ns, 7 * S);
	GCLK_EQ(to->virtual_clock.clock_ns, 107 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns + 3 * S);
	CU_ASSERT(world_bound(&w, "virtual_clock") >= 1000);
	w.disagreement.uncertainty_ns = GCLK_UNBOUNDED;
	GCLK_EQ(world_plan(&w), -GCLK_REFUSED);
	w.policy.force = unmeasured;
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "wall-clocks-unmeasured"));
	GCLK_EQ(world_bound(&w, "virtual_clock"), GCLK_UNBOUNDED);
	GCLK_EQ(world_bound(&w, "rtc"), GCLK_UNBOUNDED);
	/* what counts nothing by the wall clocks, and a gap that is given, need no comparison */
	w.policy.force = NULL;
	w.policy.gap = GCLK_GAP_FREEZE;
	GCLK_EQ(world_plan(&w), 0);
	w.policy.gap = GCLK_GAP_COUNT;
	w.when.elapsed_given = 1;
	GCLK_EQ(world_plan(&w), 0);
	world_end(&w);
}

GCLK_TEST(plan, leap_seconds_are_time_too)
{
	WORLD(&world_axis);
	w.when.captured_tai_s = 37;
	w.when.run_tai_s = 38;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->gap_ns, 11 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns - S);
	w.when.captured_tai_s = 0;	/* unknown on one side: no guess */
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->gap_ns, 10 * S);
	world_end(&w);
}

GCLK_TEST(plan, a_resume_before_the_stop_holds_all_clocks)	/* R1 */
{
	WORLD(&world_axis);
	world_resume(&w, -2 * S, -1 * S);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->gap_ns, -S);
	GCLK_EQ(to->virtual_clock.clock_ns, 100 * S);
	GCLK_EQ(to->tsc[0].value_ticks, 200 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns - S);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "gap-negative"));
	world_end(&w);
}

GCLK_TEST(plan, elapsed_stands_for_the_instants)
{
	WORLD(&world_axis);
	w.when.elapsed_given = 1;
	w.when.elapsed_ns = 3600 * S;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->virtual_clock.clock_ns, 3700 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns - 3590 * S);	/* it counted 10 s */
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "long-gap"));
	w.when.captured.uncertainty_ns = GCLK_UNBOUNDED;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->virtual_clock.clock_ns, 3700 * S);
	GCLK_EQ(to->rtc.base_at_ns, w.state->rtc.base_at_ns);
	world_end(&w);
}

GCLK_TEST(plan, an_unknown_stop_is_refused_unless_forced)	/* R6 */
{
	static const char *const force[] = { "capture-instant-unknown", NULL };

	WORLD(&world_axis);
	w.when.captured.uncertainty_ns = GCLK_UNBOUNDED;
	GCLK_EQ(world_plan(&w), -GCLK_REFUSED);
	w.policy.force = force;
	GCLK_EQ(world_plan(&w), 0);
	const struct gclk_finding *finding = world_finding(&w, "capture-instant-unknown");
	CU_ASSERT_PTR_NOT_NULL_FATAL(finding);
	GCLK_EQ(finding->severity, GCLK_WARNING);
	GCLK_EQ(finding->forced, 1);
	GCLK_EQ(world_bound(&w, "tsc"), GCLK_UNBOUNDED);
	world_end(&w);
}

GCLK_TEST(plan, frequencies)
{
	static const char *const force[] = { "tsc-rate-not-honoured", NULL };

	WORLD(&world_kernel);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NULL(world_finding(&w, "tsc-rate-tolerated"));

	w.host.tsc_hz = 2000400000;	/* 200 ppm: accepted by kernels in silence */
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "tsc-rate-tolerated"));
	CU_ASSERT(world_bound(&w, "tsc") >= 2 * (uint64_t)MS);	/* 200 ppm of 10 s */

	w.host.tsc_hz = 2100000000;
	GCLK_EQ(world_plan(&w), -GCLK_REFUSED);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "tsc-rate-not-honoured"));
	w.policy.force = force;
	GCLK_EQ(world_plan(&w), 0);
	w.policy.force = NULL;
	GCLK_SET(host, &w.host, flags, GCLK_HOST_TSC_SCALING);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "tsc-scaled"));
	GCLK_EQ(to->tsc[0].value_ticks, 220 * S);	/* its own rate, not the host's */
	world_end(&w);
}

GCLK_TEST(plan, an_emulated_counter_follows_its_host)
{
	WORLD(&world_axis);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "tsc-frequency-assumed"));
	for (uint32_t i = 0; i < 2; i++) {
		GCLK_SET(tsc, &w.state->tsc[i], frequency_hz, UINT64_C(2000000000));
	}
	w.host.tsc_hz = 2000100000;
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "tsc-rate-follows-host"));
	w.host.tsc_hz = 3000000000;
	GCLK_SET(host, &w.host, flags, GCLK_HOST_TSC_SCALING);
	GCLK_EQ(world_plan(&w), -GCLK_REFUSED);
	world_end(&w);
}

/* R5: 400 Hz of 2 GHz are 200 ppb, 200 us in 1000 s. */
GCLK_TEST(plan, whole_kilohertz_are_a_rounding_other_frequencies_are_the_guests_own)
{
	static const struct { uint64_t guest_hz, counts_hz, bound_ns; } cases[] = {
		{ 2000000000, 2000000400, 300000 },
		{ 1999999900, 1999999900, 100000 },
	};
	struct world w;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t before, bound;

		world_make(&w, &world_linked);
		w.host.tsc_hz = 2000000400;	/* known to 100 ppb */
		world_resume(&w, 1000 * S, 1000 * S);
		for (unsigned v = 0; v < w.state->n_vcpus; v++) {
			w.state->tsc[v].frequency_hz = cases[i].guest_hz;
		}
		before = w.state->tsc[0].value_ticks;
		GCLK_EQ(world_plan(&w), 0);
		GCLK_EQ(w.plan->state->tsc[0].value_ticks - before, 1000 * cases[i].counts_hz);
		bound = world_bound(&w, "tsc");
		CU_ASSERT(bound >= cases[i].bound_ns && bound < cases[i].bound_ns + 10000);
		world_end(&w);
	}
}

GCLK_TEST(plan, without_any_frequency_it_refuses)
{
	WORLD(&world_axis);
	GCLK_UNSET(host, &w.host, tsc_hz);
	GCLK_EQ(world_plan(&w), -GCLK_REFUSED);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "tsc-frequency-unknown"));
	world_end(&w);
}

GCLK_TEST(plan, watchdogs_move_and_early_timers_are_told)	/* R10 */
{
	WORLD(&world_axis);
	GCLK_SET(i6300esb, &w.state->i6300esb, enabled, 1);
	GCLK_SET(i6300esb, &w.state->i6300esb, stage, 1);
	GCLK_SET(i6300esb, &w.state->i6300esb, expiry_ns, 102 * S);
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(to->i6300esb.expiry_ns, 112 * S);
	GCLK_EQ(to->timers[0].expiry_ns, 103 * S);
	GCLK_EQ(to->timers[1].expiry_ns, 115 * S);
	GCLK_EQ(to->timers[2].expiry_ns, 500 * S);
	const struct gclk_finding *finding = world_finding(&w, "timers-fire-early");
	CU_ASSERT_PTR_NOT_NULL_FATAL(finding);
	CU_ASSERT_PTR_NOT_NULL(strstr(finding->message, "1 timer of other devices"));
	CU_ASSERT_PTR_NOT_NULL(strstr(finding->message, "mit_timer"));
	world_end(&w);
}

GCLK_TEST(plan, unknown_features_are_refused)
{
	WORLD(&world_axis);
	strcpy(w.state->incompatible[w.state->n_incompatible++], "time-crystals");
	GCLK_EQ(world_plan(&w), -GCLK_REFUSED);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "incompatible-feature"));
	world_end(&w);
}

GCLK_TEST(plan, instants_out_of_order_or_range)
{
	WORLD(&world_axis);
	world_resume(&w, 10 * S, 9 * S);
	GCLK_EQ(world_plan(&w), -GCLK_RANGE);
	world_resume(&w, 10 * S, 10 * S);
	w.when.captured.ns = INT64_MIN;
	GCLK_EQ(world_plan(&w), -GCLK_RANGE);
	w.when.captured.ns = T0;
	w.when.elapsed_given = 1;
	w.when.elapsed_ns = INT64_MAX;
	GCLK_EQ(world_plan(&w), -GCLK_RANGE);
	world_end(&w);
}

GCLK_TEST(plan, bounds_add_up)	/* R5 */
{
	WORLD(&world_axis);
	w.when.captured.uncertainty_ns = 300;
	w.when.run.uncertainty_ns = 40;
	w.disagreement.uncertainty_ns = 5000;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(w.plan->gap_uncertainty_ns, 5340);
	GCLK_EQ(world_bound(&w, "virtual_clock"), 6340);
	/* the start's 1000, the gap's, a floor, and 100 ppb of 10 s */
	GCLK_EQ(world_bound(&w, "tsc"), 6340 + 1 + 1000);
	world_end(&w);
}

GCLK_TEST(plan, pure_and_reusable)
{
	WORLD(&world_kernel);
	struct gclk_plan *again = gclk_plan_new(2);

	GCLK_EQ(world_plan(&w), 0);
	for (int i = 0; i < 3; i++) {
		GCLK_EQ(gclk_plan(w.state, w.carrier, &w.host, &w.when, &w.disagreement, &w.policy,
				  again, NULL), 0);
		CU_ASSERT(same_state(to, again->state));
		GCLK_EQ(again->n_ledger, w.plan->n_ledger);
		GCLK_EQ(memcmp(again->ledger, w.plan->ledger, again->n_ledger * sizeof(*again->ledger)), 0);
		GCLK_EQ(again->findings.n, w.plan->findings.n);
	}
	gclk_plan_free(again);
	world_end(&w);
}

/* R1, R2 and the ledger's sum, over random gaps, policies and instants. */
GCLK_TEST(plan, rules_hold_for_random_moves)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		WORLD(gclk_random_below(2) ? &world_axis : &world_kernel);
		int64_t run = (int64_t)(gclk_random_bits() % (uint64_t)(400 * 86400 * S)) - 5 * S;
		int64_t resume = (int64_t)(gclk_random_bits() % (uint64_t)(20 * S));

		world_resume(&w, run - resume, run);
		w.policy.gap = (uint8_t)gclk_random_below(4);
		w.policy.cap_ns = (int64_t)gclk_random_below((uint64_t)(100 * S));
		for (unsigned k = 0; k < GCLK_N_TICK_TIMERS; k++) {
			w.policy.ticks[k].policy = (uint8_t)gclk_random_below(5);
			w.policy.ticks[k].by_operator = (uint8_t)gclk_random_below(2);
		}
		w.disagreement.ns = (int64_t)gclk_random_below((uint64_t)(4 * S)) - 2 * S;
		w.state->rtc.owed_ticks = (uint32_t)gclk_random_below(50);
		GCLK_EQ(world_plan(&w), 0);
		CU_ASSERT(to->virtual_clock.clock_ns >= w.state->virtual_clock.clock_ns);
		CU_ASSERT(to->kvmclock.clock_ns >= w.state->kvmclock.clock_ns);
		CU_ASSERT(to->tsc[0].value_ticks >= w.state->tsc[0].value_ticks);
		GCLK_EQ(to->tsc[1].value_ticks - to->tsc[0].value_ticks, 30000);
		CU_ASSERT(w.plan->counted_ns <= (w.plan->gap_ns > 0 ? w.plan->gap_ns : 0));
		for (unsigned k = 0; k < w.plan->n_ledger; k++) {
			const struct gclk_ledger_entry *e = &w.plan->ledger[k];

			GCLK_EQ(e->owed_before + e->missed, e->replayed + e->merged + e->dropped);
		}
		if (CU_get_number_of_failures()) {
			world_end(&w);
			printf("run %lld resume %lld gap %u\n", (long long)run, (long long)resume,
			       w.policy.gap);
			return;
		}
		world_end(&w);
	}
}

GCLK_TEST(findings, ids_are_kebab_case_and_unique)
{
	for (unsigned i = 0; i < gclk_n_finding_infos; i++) {
		const struct gclk_finding_info *info = &gclk_finding_table[i];

		CU_ASSERT_PTR_EQUAL(gclk_finding_by_id(info->id), info);
		for (const char *p = info->id; *p; p++) {
			CU_ASSERT(islower((unsigned char)*p) || *p == '-');
		}
		CU_ASSERT(info->title[0] && info->explanation[0] && info->advice[0]);
		CU_ASSERT(!info->refuses || info->severity == GCLK_ERROR);
	}
	CU_ASSERT_PTR_NULL(gclk_finding_by_id("no-such-finding"));
}

GCLK_TEST(findings, too_many_are_counted)
{
	struct gclk_findings findings = { 0 };

	for (unsigned i = 0; i < GCLK_FINDINGS_MAX + 5; i++) {
		gclk_findings_add(&findings, "long-gap", "", "%u", i);
	}
	GCLK_EQ(findings.n, GCLK_FINDINGS_MAX);
	GCLK_EQ(findings.left_out, 5);
}

GCLK_TEST(plan, leap_seconds_and_one_instant_are_said)
{
	WORLD(&world_kernel);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "resume-is-the-load"));
	CU_ASSERT_PTR_NULL(world_finding(&w, "leap-second-near"));
	GCLK_SET(host, &w.host, ntp_state, 1);
	world_resume(&w, 9 * S, 10 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NULL(world_finding(&w, "resume-is-the-load"));
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "leap-second-near"));
	world_end(&w);
}

GCLK_TEST(plan, a_counter_from_the_load_has_the_loads_uncertainty)	/* R5 */
{
	WORLD(&world_kernel);
	w.when.captured.uncertainty_ns = 7;
	w.when.load.uncertainty_ns = 500;
	w.when.run.uncertainty_ns = 60000;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(world_bound(&w, "tsc"), 1000 + 7 + 500 + 1 + 1000);
	GCLK_EQ(world_bound(&w, "kvmclock"), 1000 + 7 + 60000 + 2);
	w.policy.gap = GCLK_GAP_CAP;
	w.policy.cap_ns = S;
	GCLK_EQ(world_plan(&w), 0);
	GCLK_EQ(world_bound(&w, "tsc"), 1000 + 500 + 60000 + 1 + 100);
	world_end(&w);
}

GCLK_TEST(plan, what_a_guest_makes_of_the_step_is_announced)
{
	WORLD(&world_axis);
	world_resume(&w, 2 * S, 2 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NULL(world_finding(&w, "clocksource-wraps"));
	CU_ASSERT_PTR_NULL(world_finding(&w, "stall-reports"));
	world_resume(&w, 10 * S, 10 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "clocksource-wraps"));
	CU_ASSERT_PTR_NULL(world_finding(&w, "stall-reports"));
	world_resume(&w, 60 * S, 60 * S);
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_finding(&w, "stall-reports"));
	CU_ASSERT_STRING_EQUAL(world_finding(&w, "clocksource-wraps")->clock, "hpet");
	/* a page can carry the word that the guest was stopped */
	GCLK_SET(vcpu, &w.state->vcpu[0], system_time_msr, UINT64_C(0x1001));
	GCLK_EQ(world_plan(&w), 0);
	CU_ASSERT_PTR_NULL(world_finding(&w, "stall-reports"));
	CU_ASSERT_PTR_NULL(world_finding(&w, "clocksource-wraps"));
	world_end(&w);
}
