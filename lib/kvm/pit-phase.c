/* SPDX-License-Identifier: MIT */
/*
 * The phase of the kernel's PIT.
 *
 * Nobody can read it, and KVM_SET_PIT2 begins a period. So it is known where we began that
 * period, or the VMM saw an expiry (gclk_kvm.pit_edge_ns), and it is restored by making the
 * call at the instant of an expiry. That takes up to a period, in which the guest runs: a
 * step of the replay, not of the restore.
 *
 * Ticks: until the step the PIT ticks on the wrong grid, from the restore on, once for every
 * whole period. The right grid has one tick more by then, that of the step's own instant,
 * which is delivered here, and perhaps another that the restore counted no whole period for.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include <guestclock/devices.h>

#include "core/time.h"
#include "core/util.h"
#include "devices/ticks.h"
#include "kvm/backend.h"

#define SPIN_NS (2 * GCLK_NS_PER_MS)	/* waited for with the vCPUs standing, at most */

/* 0: it does not tick by itself. The dialect's periods are whole ns. */
static int64_t period_of(const struct gclk_pit *pit)
{
	struct gclk_cadence cadence;

	gclk_pit_cadence(pit, &cadence);
	return cadence.periodic ? (int64_t)(cadence.period_num / cadence.period_den) : 0;
}

static int is_as_noted(const struct gclk_kvm *k, const struct gclk_pit *pit)
{
	return k->pit_edge_known && k->pit_edge_count == pit->channels[0].count &&
	       k->pit_edge_mode == pit->channels[0].mode;
}

void gclk_kvm_note_pit(struct gclk_kvm *k, const struct gclk_pit *pit, int64_t began_ns)
{
	int64_t period = period_of(pit);

	k->pit_edge_known = period > 0;
	k->pit_edge_ns = gclk_add_sat(began_ns, period);
	k->pit_edge_count = pit->channels[0].count;
	k->pit_edge_mode = pit->channels[0].mode;
}

/* The first of a grid after @t; @period > 0. */
static int64_t next_on_grid(int64_t point, int64_t period, int64_t t)
{
	return gclk_add_sat(t, period - gclk_floor_mod(gclk_sub_sat(t, point), period));
}

void gclk_kvm_capture_pit_phase(const struct gclk_kvm *k, struct gclk_pit *pit)
{
	int64_t period = period_of(pit);

	if (period && is_as_noted(k, pit)) {
		GCLK_SET(pit_channel, &pit->channels[0], next_transition_ns,
			 next_on_grid(k->pit_edge_ns, period, gclk_kvm_axis_now(k)));
	}
}

static int is_legacy(const struct gclk_kvm *k)
{
	return k->hpet && (k->hpet->config & 2);
}

GCLK_API int gclk_kvm_pit_due(const struct gclk_kvm *k, const struct gclk_plan *plan,
			      int64_t now_ns, int64_t *ret_due_ns)
{
	const struct gclk_pit *pit = &plan->state->pit;
	const struct gclk_pit_channel *channel = &pit->channels[0];
	int64_t period = pit->has ? period_of(pit) : 0;

	if (!k->pit || !period || k->own.step != GCLK_KVM_RESTORED || k->own.pit_timed ||
	    is_legacy(k) || !GCLK_HAS(pit_channel, channel, next_transition_ns)) {
		return 0;
	}
	*ret_due_ns = gclk_sub_sat(next_on_grid(channel->next_transition_ns, period,
						gclk_add_sat(now_ns, k->axis_ns)), k->axis_ns);
	return 1;
}

static int get_pit(const struct gclk_kvm *k, struct kvm_pit_state2 *ret, int64_t *ret_took_ns,
		   struct gclk_error *reterr)
{
	int64_t before = gclk_kvm_axis_now(k);

	memset(ret, 0, sizeof(*ret));
	if (gclk_sys_ioctl(k, k->vm, KVM_GET_PIT2, ret) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "pit", GCLK_NO_OFFSET, "KVM_GET_PIT2: %s",
				 strerror(errno));
	}
	*ret_took_ns = gclk_kvm_axis_now(k) - before;
	return 0;
}

static uint64_t *bound_of(struct gclk_plan *plan)
{
	for (uint32_t i = 0; i < plan->n_bounds; i++) {
		if (!strcmp(plan->bounds[i].clock, "pit")) {
			return &plan->bounds[i].bound_ns;
		}
	}
	return NULL;
}

static const struct gclk_ledger_entry *entry_of(const struct gclk_plan *plan)
{
	for (uint32_t i = 0; i < plan->n_ledger; i++) {
		if (!strcmp(plan->ledger[i].timer, "pit")) {
			return &plan->ledger[i];
		}
	}
	return NULL;
}

/* Of the gap, beyond its whole periods: where missed ticks are replayed, this one is too. */
static void owe_the_remainder(struct gclk_kvm *k, struct gclk_plan *plan, int64_t period,
			      int64_t due)
{
	const struct gclk_ledger_entry *entry = entry_of(plan);
	int64_t first = plan->state->pit.channels[0].next_transition_ns;
	int64_t expected = (due - first) / period + 1;
	int64_t wrong = (due - (k->pit_edge_ns - period)) / period;

	if (entry && (entry->policy == GCLK_TICKS_CATCHUP || entry->policy == GCLK_TICKS_DELAY) &&
	    expected - wrong - 1 > (int64_t)entry->missed) {
		gclk_replay_owe(&plan->replay, GCLK_TICK_PIT, 0, 1);
	}
}

/* The call looks at its clock about as far on its way as the one before it took to half. */
static int call_at(struct gclk_kvm *k, const struct kvm_pit_state2 *state, int64_t due,
		   int64_t lead, struct gclk_kvm_pit_timed *ret, struct gclk_error *reterr)
{
	int64_t before, after;

	do {
		before = gclk_kvm_axis_now(k);
	} while (before < due - lead);
	if (gclk_sys_ioctl(k, k->vm, KVM_SET_PIT2, state) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "pit", GCLK_NO_OFFSET, "KVM_SET_PIT2: %s",
				 strerror(errno));
	}
	after = gclk_kvm_axis_now(k);
	ret->off_ns = before + (after - before) / 2 - due;
	ret->width_ns = (uint64_t)(after - before) / 2 + 1;
	return 0;
}

GCLK_API int gclk_kvm_time_pit(struct gclk_kvm *k, struct gclk_plan *plan,
			       struct gclk_kvm_pit_timed *ret, struct gclk_error *reterr)
{
	const struct gclk_pit_channel *channel = &plan->state->pit.channels[0];
	int64_t now = gclk_sub_sat(gclk_kvm_axis_now(k), k->axis_ns), due = 0, took = 0, period;
	struct kvm_pit_state2 state;
	uint64_t *bound = bound_of(plan);
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!gclk_kvm_pit_due(k, plan, now, &due) || due - now > SPIN_NS) {
		return gclk_fail(reterr, GCLK_STATE, "pit", GCLK_NO_OFFSET,
				 "there is no phase to restore, or not yet");
	}
	due = gclk_add_sat(due, k->axis_ns);
	period = period_of(&plan->state->pit);
	if ((r = get_pit(k, &state, &took, reterr)) < 0) {
		return r;
	}
	if (state.channels[0].count != channel->count ||
	    state.channels[0].mode != channel->mode) {
		k->own.pit_timed = 1;		/* its phase is the guest's own again */
		k->pit_edge_known = 0;
		ret->reprogrammed = 1;
		return 0;
	}
	owe_the_remainder(k, plan, period, due);
	if ((r = call_at(k, &state, due, took / 2, ret, reterr)) < 0) {
		return r;
	}
	k->own.pit_timed = 1;
	gclk_kvm_note_pit(k, &plan->state->pit, due + ret->off_ns);
	if (bound) {
		*bound = (uint64_t)(ret->off_ns < 0 ? -ret->off_ns : ret->off_ns) + ret->width_ns;
	}
	r = gclk_kvm_pulse_pit(k, &ret->delivered, reterr);
	if (r == 0 && !ret->delivered) {
		gclk_replay_owe(&plan->replay, GCLK_TICK_PIT, 0, 1);
	}
	return r;
}
