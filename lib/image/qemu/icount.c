/* SPDX-License-Identifier: MIT */
#include <guestclock/devices.h>

#include "core/time.h"
#include "core/util.h"
#include "image/qemu/icount.h"

#define LATE_NS GCLK_NS_PER_MS		/* expiries are handled, and set anew, between blocks of instructions */

/* What the devices tell: the axis has reached @past and not yet @future. */
struct evidence {
	int64_t past, future;
};

static void loaded(struct evidence *e, int given, int64_t ns)
{
	if (given) {
		e->past = GCLK_MAX(e->past, ns);
	}
}

/* @period_ns: what it was armed for at most; 0: not known. */
static void armed(struct evidence *e, int given, int64_t ns, int64_t period_ns)
{
	if (given && ns > 0) {
		e->future = GCLK_MIN(e->future, ns);
		loaded(e, period_ns > 0, gclk_sub_sat(ns, period_ns));
	}
}

static int64_t pit_period_ns(const struct gclk_pit_channel *channel)
{
	return GCLK_HAS(pit_channel, channel, count) ?
		       (int64_t)channel->count * GCLK_NS_PER_S / GCLK_PIT_HZ + 1 : 0;
}

/* Each of its ticks takes 1 ns times the divider. */
static int64_t lapic_period_ns(const struct gclk_lapic *lapic)
{
	return ((int64_t)lapic->initial_count + 1) * gclk_lapic_divider(lapic->divide_config);
}

static struct evidence collect(const struct gclk_state *state)
{
	const struct gclk_pit_channel *pit = state->pit.channels;
	const struct gclk_hpet_timer *timers = state->hpet.timers;
	const struct gclk_pm_timer *pm = &state->pm_timer;
	struct evidence e = { 0, INT64_MAX };

	for (unsigned n = 0; n < GCLK_COUNT(state->pit.channels); n++) {
		loaded(&e, GCLK_HAS(pit_channel, &pit[n], load_time_ns), pit[n].load_time_ns);
	}
	armed(&e, GCLK_HAS(pit_channel, &pit[0], next_transition_ns) && !state->pit.irq_disabled,
	      pit[0].next_transition_ns, pit_period_ns(&pit[0]));
	for (unsigned n = 0; n < state->hpet.n_timers; n++) {
		armed(&e, GCLK_HAS(hpet_timer, &timers[n], expiry_ns), timers[n].expiry_ns,
		      0);
	}
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		const struct gclk_lapic *lapic = &state->lapic[i];

		loaded(&e, GCLK_HAS(lapic, lapic, load_time_ns), lapic->load_time_ns);
		armed(&e, GCLK_HAS(lapic, lapic, expiry_ns), lapic->expiry_ns,
		      lapic_period_ns(lapic));
	}
	armed(&e, GCLK_HAS(pm_timer, pm, expiry_ns), pm->expiry_ns, 0);
	return e;
}

int gclk_icount_at(const struct gclk_virtual_clock *clock, unsigned shift, int64_t *ret_ns)
{
	int64_t counted_ns;

	return !__builtin_mul_overflow(clock->icount, INT64_C(1) << shift, &counted_ns) &&
	       !__builtin_add_overflow(clock->icount_bias_ns, counted_ns, ret_ns);
}

int gclk_icount_axis(const struct gclk_state *state, int64_t *ret_ns)
{
	struct evidence e = collect(state);
	unsigned n = 0;
	int64_t ns;

	for (unsigned shift = 0; shift <= GCLK_ICOUNT_SHIFT_MAX; shift++) {
		if (gclk_icount_at(&state->virtual_clock, shift, &ns) &&
		    gclk_add_sat(ns, LATE_NS) >= e.past &&
		    gclk_sub_sat(ns, LATE_NS) <= e.future) {
			*ret_ns = ns;
			n++;
		}
	}
	return n == 1;
}
