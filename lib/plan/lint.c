/* SPDX-License-Identifier: MIT */
/*
 * What is wrong with a captured state, whatever will be done with it.
 */
#include <string.h>

#include <guestclock/devices.h>

#include "core/util.h"
#include "plan/findings.h"
#include "plan/move.h"

#define STORM_EDGES 100			/* overdue expiries that are worth a word */
#define SKEW_NS_PER_VCPU GCLK_NS_PER_MS	/* vCPUs' counters are read one after the other */
#define ZONE_NS (900 * GCLK_NS_PER_S)	/* time zones lie on quarters of an hour */
#define DEADLINE_MODE 2

static int vector_waits(const struct gclk_lapic *lapic)
{
	unsigned vector = lapic->lvt_timer & 0xff;

	return (lapic->irr[vector / 8] | lapic->isr[vector / 8]) >> (vector % 8) & 1;
}

static void lint_deadline(const struct gclk_state *state, uint32_t i,
			  struct gclk_findings *findings)
{
	const struct gclk_lapic *lapic = &state->lapic[i];
	const struct gclk_tsc *tsc = &state->tsc[i];

	if (!lapic->has || (lapic->lvt_timer >> 17 & 3) != DEADLINE_MODE ||
	    lapic->lvt_timer & 1u << 16) {
		return;
	}
	if (!tsc->deadline_ticks && !vector_waits(lapic)) {
		gclk_findings_put(findings, GCLK_F_DEADLINE_LOST, "lapic",
				  "vCPU %u waits in deadline mode with TSC_DEADLINE 0", i);
	} else if (tsc->deadline_ticks && tsc->deadline_ticks <= tsc->value_ticks) {
		gclk_findings_put(findings, GCLK_F_DEADLINE_OVERDUE, "lapic",
				  "vCPU %u: %llu ticks ago", i,
				  (unsigned long long)(tsc->value_ticks - tsc->deadline_ticks));
	}
}

static struct gclk_rate any_rate(const struct gclk_state *state, const struct gclk_host *host)
{
	if (state->tsc[0].frequency_hz) {
		return gclk_rate_of_hz(state->tsc[0].frequency_hz);
	}
	return gclk_rate_of_hz(host && host->tsc_hz ? host->tsc_hz : 1000000000);
}

static void lint_skew(const struct gclk_state *state, const struct gclk_host *host,
		      struct gclk_findings *findings)
{
	uint64_t low = UINT64_MAX, high = 0, ns = 0;
	char text[GCLK_DURATION_TEXT_BYTES];

	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		low = GCLK_MIN(low, state->tsc[i].value_ticks);
		high = GCLK_MAX(high, state->tsc[i].value_ticks);
	}
	if (high > low && gclk_ns_from_ticks_floor(any_rate(state, host), high - low, &ns) == 0 &&
	    ns > (uint64_t)SKEW_NS_PER_VCPU * state->n_vcpus) {
		gclk_findings_put(findings, GCLK_F_TSC_SKEW, "tsc", "by %s over %u vCPUs",
				  gclk_duration_format((int64_t)GCLK_MIN(ns, (uint64_t)INT64_MAX),
						       text), state->n_vcpus);
	}
}

static void lint_kvmclock(const struct gclk_state *state, struct gclk_findings *findings)
{
	const struct gclk_kvmclock *clock = &state->kvmclock;
	char text[GCLK_DURATION_TEXT_BYTES];

	if (!GCLK_HAS(kvmclock, clock, clock_ns)) {
		return;
	}
	if (GCLK_HAS(kvmclock, clock, reliable) && !clock->reliable) {
		gclk_findings_put(findings, GCLK_F_CLOCK_UNRELIABLE, "kvmclock",
				  "the loader takes it from the guest's page");
	}
	if (clock->read_after_stop_ns > (uint64_t)GCLK_NS_PER_MS) {
		gclk_findings_put(findings, GCLK_F_KVMCLOCK_TSC_APART, "kvmclock",
				  "the clock is %s ahead of what the guest's page gives at its TSC",
				  gclk_duration_format((int64_t)clock->read_after_stop_ns, text));
	}
	if (GCLK_HAS(vcpu, &state->vcpu[0], pvclock_tsc_ticks) &&
	    state->vcpu[0].pvclock_tsc_ticks > state->tsc[0].value_ticks) {
		gclk_findings_put(findings, GCLK_F_PAGE_AHEAD_OF_TSC, "kvmclock",
				  "by %llu ticks",
				  (unsigned long long)(state->vcpu[0].pvclock_tsc_ticks -
						       state->tsc[0].value_ticks));
	}
}

static void lint_rtc(const struct gclk_state *state, const struct gclk_instant *captured,
		     struct gclk_findings *findings)
{
	const struct gclk_rtc *rtc = &state->rtc;
	int64_t at, shown, ns, apart, rest;
	char text[GCLK_DURATION_TEXT_BYTES];

	if (!GCLK_HAS(rtc, rtc, base_s) || !captured || !gclk_rtc_is_running(rtc) ||
	    captured->uncertainty_ns > (uint64_t)GCLK_NS_PER_S ||
	    rtc->axis == GCLK_AXIS_MONOTONIC) {
		return;
	}
	at = rtc->axis == GCLK_AXIS_GUEST ? state->virtual_clock.clock_ns : captured->ns;
	shown = gclk_rtc_seconds_at(rtc, at, &ns);
	if (__builtin_mul_overflow(shown, GCLK_NS_PER_S, &apart) ||
	    __builtin_sub_overflow(apart + ns, captured->ns, &apart)) {
		return;
	}
	rest = apart % ZONE_NS;
	rest = GCLK_MIN(rest < 0 ? -rest : rest, ZONE_NS - (rest < 0 ? -rest : rest));
	if (rest > 2 * GCLK_NS_PER_S || apart > 14 * 4 * ZONE_NS || apart < -14 * 4 * ZONE_NS) {
		gclk_findings_put(findings, GCLK_F_RTC_WALL_APART, "rtc",
				  "it is %s off the host's wall clock (UTC)",
				  gclk_duration_format(apart, text));
	}
}

static void storm(struct gclk_findings *findings, const char *clock, uint64_t n_overdue)
{
	if (n_overdue > STORM_EDGES) {
		gclk_findings_put(findings, GCLK_F_TICK_STORM, clock, "%llu expiries are overdue",
				  (unsigned long long)n_overdue);
	}
}

static void lint_storms(const struct gclk_state *state, struct gclk_findings *findings)
{
	int64_t now = state->virtual_clock.clock_ns;
	const struct gclk_pit_channel *channel = &state->pit.channels[0];

	if (channel->has && channel->next_transition_ns >= 0 && channel->next_transition_ns < now &&
	    !state->pit.in_kernel) {
		storm(findings, "pit", gclk_pit_edges(&state->pit, channel->next_transition_ns, now));
	}
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		const struct gclk_lapic *lapic = &state->lapic[i];

		if (lapic->has && !lapic->in_kernel && lapic->expiry_ns >= 0 &&
		    lapic->expiry_ns < now) {
			storm(findings, "lapic", gclk_lapic_edges(lapic, lapic->expiry_ns, now));
		}
	}
	storm(findings, "rtc", state->rtc.owed_ticks);
}

GCLK_API void gclk_lint(const struct gclk_state *state, const struct gclk_host *host,
			const struct gclk_instant *captured, struct gclk_findings *findings)
{
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		lint_deadline(state, i, findings);
	}
	lint_skew(state, host, findings);
	lint_kvmclock(state, findings);
	lint_rtc(state, captured, findings);
	lint_storms(state, findings);
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		gclk_findings_put(findings, GCLK_F_INCOMPATIBLE_FEATURE, "", "the state needs \"%s\"",
				  state->incompatible[i]);
	}
	if (state->timers_left_out) {
		gclk_findings_put(findings, GCLK_F_TIMERS_LEFT_OUT, "", "%u armed timers are not listed",
				  state->timers_left_out);
	}
}
