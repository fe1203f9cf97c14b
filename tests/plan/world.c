/* SPDX-License-Identifier: MIT */
#include "world.h"

#define ROW(set_, start_, phase_, missed_) \
	{ .set = GCLK_SET_##set_, .start = GCLK_START_##start_, .phase = GCLK_PHASE_##phase_, \
	  .missed = GCLK_MISSED_##missed_, .start_uncertainty_ns = 1000, .why = "test" }

const struct gclk_carrier world_axis = {
	.name = "axis", .reference = "tests", .rate_follows_host = 1,
	.rows = {
		[GCLK_CLOCK_TSC] = ROW(AXIS, RUN, KEPT, NONE),
		[GCLK_CLOCK_KVMCLOCK] = { .set = GCLK_SET_ABSENT },
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, RUN, KEPT, NONE),
		[GCLK_CLOCK_RTC] = { .set = GCLK_SET_OWN, .start = GCLK_START_ALWAYS,
				     .missed = GCLK_MISSED_REPLAY, .replay_horizon_s = 60,
				     .start_uncertainty_ns = 1000, .why = "test" },
		[GCLK_CLOCK_HPET] = ROW(AXIS, RUN, KEPT, ONE),
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, RUN, KEPT, ONE),
		[GCLK_CLOCK_PIT] = ROW(AXIS, RUN, KEPT, ONE),
		[GCLK_CLOCK_LAPIC] = ROW(AXIS, RUN, KEPT, ONE),
	},
};

const struct gclk_carrier world_kernel = {
	.name = "kernel", .reference = "tests", .loader_rescales = 1, .clock_from_page = 1,
	.rows = {
		[GCLK_CLOCK_TSC] = ROW(OWN, LOAD, KEPT, NONE),
		[GCLK_CLOCK_KVMCLOCK] = ROW(OWN, RUN, KEPT, NONE),
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, RUN, KEPT, NONE),
		[GCLK_CLOCK_RTC] = { .set = GCLK_SET_OWN, .start = GCLK_START_ALWAYS,
				     .missed = GCLK_MISSED_REPLAY, .replay_horizon_s = 60,
				     .start_uncertainty_ns = 1000, .why = "test" },
		[GCLK_CLOCK_HPET] = ROW(AXIS, RUN, KEPT, ONE),
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, RUN, KEPT, ONE),
		[GCLK_CLOCK_PIT] = ROW(NEVER, RUN, RESTARTS, NONE),
		[GCLK_CLOCK_LAPIC] = ROW(NEVER, LOAD, RESTARTS, NONE),
	},
};

const struct gclk_carrier world_linked = {
	.name = "linked", .reference = "tests",
	.rows = {
		[GCLK_CLOCK_TSC] = ROW(OWN, RUN, KEPT, NONE),
		[GCLK_CLOCK_KVMCLOCK] = ROW(OWN, RUN, KEPT, NONE),
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, RUN, KEPT, NONE),
		[GCLK_CLOCK_RTC] = ROW(OWN, RUN, KEPT, INJECT),
		[GCLK_CLOCK_HPET] = ROW(OWN, RUN, KEPT, INJECT),
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, RUN, KEPT, ONE),
		[GCLK_CLOCK_PIT] = ROW(OWN, RUN, RESTARTS, INJECT),
		[GCLK_CLOCK_LAPIC] = ROW(OWN, RUN, KEPT, INJECT),
	},
};

static void make_pit(struct gclk_state *state, int in_kernel)
{
	struct gclk_pit_channel *channel = &state->pit.channels[0];

	GCLK_SET(pit, &state->pit, dialect, GCLK_DIALECT_QEMU);
	GCLK_SET(pit, &state->pit, irq_disabled, 0);
	GCLK_SET(pit, &state->pit, in_kernel, in_kernel);
	for (unsigned i = 0; i < 3; i++) {
		GCLK_SET(pit_channel, &state->pit.channels[i], count, 65536);
		GCLK_SET(pit_channel, &state->pit.channels[i], mode, 3);
		GCLK_SET(pit_channel, &state->pit.channels[i], gate, 1);
		GCLK_SET(pit_channel, &state->pit.channels[i], rw_mode, 3);
		GCLK_SET(pit_channel, &state->pit.channels[i], load_time_ns, 0);
		GCLK_SET(pit_channel, &state->pit.channels[i], next_transition_ns, -1);
	}
	/* 1000.15 Hz, next pulse at 100 s and 0.9 ms: 1193 clocks are 999847.5 ns */
	channel->count = 1193;
	channel->mode = 2;
	channel->next_transition_ns = 100 * S + 593651;
}

static void make_lapics(struct gclk_state *state, int in_kernel)
{
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		struct gclk_lapic *lapic = &state->lapic[i];

		GCLK_SET(lapic, lapic, vcpu, i);
		GCLK_SET(lapic, lapic, dialect, GCLK_DIALECT_QEMU);
		GCLK_SET(lapic, lapic, in_kernel, in_kernel);
		GCLK_SET(lapic, lapic, lvt_timer, 1 << 17 | 0xef);
		GCLK_SET(lapic, lapic, initial_count, 9999999);
		GCLK_SET(lapic, lapic, divide_config, 0xb);
		GCLK_SET(lapic, lapic, divide_shift, 0);
		GCLK_SET(lapic, lapic, load_time_ns, 99 * S);
		GCLK_SET(lapic, lapic, next_time_ns, 100 * S + 10 * MS);
		GCLK_SET(lapic, lapic, expiry_ns, 100 * S + 10 * MS);
	}
}

static void make_rtc(struct gclk_state *state)
{
	struct gclk_rtc *rtc = &state->rtc;

	GCLK_SET(rtc, rtc, dialect, GCLK_DIALECT_QEMU);
	GCLK_SET(rtc, rtc, axis, GCLK_AXIS_REALTIME);
	rtc->has |= GCLK_BIT(rtc, cmos);
	rtc->cmos[10] = 0x26;
	rtc->cmos[11] = 0x42;		/* PIE, 24 h */
	rtc->cmos[13] = 0x80;
	GCLK_SET(rtc, rtc, base_s, T0 / S - 100);
	GCLK_SET(rtc, rtc, base_at_ns, T0 - 100 * S);
	GCLK_SET(rtc, rtc, offset_ns, 0);
	GCLK_SET(rtc, rtc, period_clocks, 32);
	GCLK_SET(rtc, rtc, next_periodic_ns, T0 + 500001);
	GCLK_SET(rtc, rtc, periodic_expiry_ns, T0 + 500001);
	GCLK_SET(rtc, rtc, update_expiry_ns, -1);
	GCLK_SET(rtc, rtc, next_alarm_ns, INT64_MAX);
	GCLK_SET(rtc, rtc, owed_ticks, 0);
}

static void make_hpet(struct gclk_state *state)
{
	struct gclk_hpet *hpet = &state->hpet;

	GCLK_SET(hpet, hpet, dialect, GCLK_DIALECT_QEMU);
	GCLK_SET(hpet, hpet, config, 1);
	GCLK_SET(hpet, hpet, isr, 0);
	GCLK_SET(hpet, hpet, counter_ticks, 100 * S / 10);
	GCLK_SET(hpet, hpet, period_fs, 10000000);
	GCLK_SET(hpet, hpet, offset_ns, 0);
	GCLK_SET(hpet, hpet, n_timers, 3);
	for (unsigned i = 0; i < 3; i++) {
		GCLK_SET(hpet_timer, &hpet->timers[i], index, i);
		GCLK_SET(hpet_timer, &hpet->timers[i], config, 0x30);
		GCLK_SET(hpet_timer, &hpet->timers[i], comparator_ticks, UINT64_MAX);
		GCLK_SET(hpet_timer, &hpet->timers[i], expiry_ns, -1);
	}
	/* periodic, 100 Hz, enabled */
	hpet->timers[0].config = 0x3c;
	GCLK_SET(hpet_timer, &hpet->timers[0], comparator_ticks, 100 * S / 10 + 400000);
	GCLK_SET(hpet_timer, &hpet->timers[0], period_ticks, 1000000);
	GCLK_SET(hpet_timer, &hpet->timers[0], expiry_ns, 100 * S + 4 * MS);
}

static void make_other_timers(struct gclk_state *state)
{
	static const struct { const char *name; uint8_t kind; int64_t expiry; } timers[] = {
		{ "nic#0/mit_timer", GCLK_TIMER_OTHER, 103 * S },
		{ "dog#0/timer", GCLK_TIMER_WATCHDOG, 105 * S },
		{ "usb#0/frame", GCLK_TIMER_OTHER, 500 * S },
	};

	for (unsigned i = 0; i < 3; i++) {
		struct gclk_timer *timer = &state->timers[state->n_timers++];

		strcpy(timer->name, timers[i].name);
		timer->has |= GCLK_BIT(timer, name);
		GCLK_SET(timer, timer, kind, timers[i].kind);
		GCLK_SET(timer, timer, axis, GCLK_AXIS_GUEST);
		GCLK_SET(timer, timer, expiry_ns, timers[i].expiry);
	}
}

static void make_state(struct gclk_state *state, int kernel)
{
	GCLK_SET(guest, &state->guest, accelerator, kernel ? GCLK_ACCEL_KVM : GCLK_ACCEL_TCG);
	GCLK_SET(guest, &state->guest, run_state, GCLK_RUN_PAUSED);
	GCLK_SET(virtual_clock, &state->virtual_clock, clock_ns, 100 * S);
	GCLK_SET(virtual_clock, &state->virtual_clock, host_ticks, 200 * S);
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		GCLK_SET(tsc, &state->tsc[i], vcpu, i);
		GCLK_SET(vcpu, &state->vcpu[i], vcpu, i);
		GCLK_SET(tsc, &state->tsc[i], value_ticks, 200 * S + 30000 * i);
		if (kernel) {
			GCLK_SET(tsc, &state->tsc[i], frequency_hz, UINT64_C(2000000000));
		}
	}
	if (kernel) {
		GCLK_SET(kvmclock, &state->kvmclock, clock_ns, UINT64_C(100000000000));
		GCLK_SET(kvmclock, &state->kvmclock, reliable, 1);
	}
	make_pit(state, kernel);
	make_lapics(state, kernel);
	make_rtc(state);
	make_hpet(state);
	GCLK_SET(pm_timer, &state->pm_timer, bits, 24);
	GCLK_SET(pm_timer, &state->pm_timer, expiry_ns, -1);
	make_other_timers(state);
}

void world_resume(struct world *world, int64_t load_ns, int64_t run_ns)
{
	world->when.load = (struct gclk_instant){ T0 + load_ns, 0 };
	world->when.run = (struct gclk_instant){ T0 + run_ns, 0 };
}

void world_make(struct world *world, const struct gclk_carrier *carrier)
{
	memset(world, 0, sizeof(*world));
	world->state = gclk_state_new(2);
	world->plan = gclk_plan_new(2);
	world->carrier = carrier;
	make_state(world->state, carrier == &world_kernel || carrier == &world_linked);
	GCLK_SET(host, &world->host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &world->host, tsc_hz_ppb, 100);
	world->when.captured = (struct gclk_instant){ T0, 0 };
	world_resume(world, 10 * S, 10 * S);
	world->policy = gclk_policy_default;
}

void world_end(struct world *world)
{
	world->plan = gclk_plan_free(world->plan);
	world->state = gclk_state_free(world->state);
}

int world_plan(struct world *world)
{
	return gclk_plan(world->state, world->carrier, &world->host, &world->when,
			 &world->disagreement, &world->policy, world->plan, &world->error);
}

const struct gclk_finding *world_finding(const struct world *world, const char *id)
{
	const struct gclk_findings *findings = &world->plan->findings;

	for (unsigned i = 0; i < findings->n; i++) {
		if (!strcmp(findings->items[i].info->id, id)) {
			return &findings->items[i];
		}
	}
	return NULL;
}

uint64_t world_bound(const struct world *world, const char *clock)
{
	for (unsigned i = 0; i < world->plan->n_bounds; i++) {
		if (!strcmp(world->plan->bounds[i].clock, clock)) {
			return world->plan->bounds[i].bound_ns;
		}
	}
	return UINT64_MAX - 1;
}

const struct gclk_ledger_entry *world_entry(const struct world *world, const char *timer)
{
	for (unsigned i = 0; i < world->plan->n_ledger; i++) {
		if (!strcmp(world->plan->ledger[i].timer, timer)) {
			return &world->plan->ledger[i];
		}
	}
	return NULL;
}
