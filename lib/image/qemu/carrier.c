/* SPDX-License-Identifier: MIT */
/*
 * QEMU's rows, by accelerator. The facts are measured on stock QEMU 7.2
 * (docs/qemu-carrier-facts.md) and the same in 4.2 to 10.2:
 *
 * Everything in QEMU's own process stands on its virtual clock, which starts at
 * the resume: HPET, PIT, PM timer and emulated LAPIC ride on it. Overdue
 * expiries run back to back in the main loop and reach the guest as one
 * interrupt. Under KVM the TSC is written at the end of the load and runs from
 * there; kvmclock is set at the resume; the kernel's PIT starts a new period at
 * the resume; a kernel LAPIC's running count is not in the stream.
 *
 * The RTC stands on the host's wall clock, unless -rtc clock=vm puts it on the
 * virtual clock.
 */
#include "core/util.h"
#include "image/qemu/carrier.h"

/*
 * How far from its instant a clock may start. RESUME stamps stood 38..139 us from
 * the virtual clock on a loaded machine; the end of a load followed the stream's
 * last byte by 0.9..3.4 ms.
 */
#define RUN_NS 1000000
#define LOAD_NS 5000000
#define HOST_NS 1000000

#define ROW(set_, start_, phase_, missed_, ns_, why_) \
	{ .set = GCLK_SET_##set_, .start = GCLK_START_##start_, .phase = GCLK_PHASE_##phase_, \
	  .missed = GCLK_MISSED_##missed_, .start_uncertainty_ns = ns_, .why = why_ }
#define ABSENT { .set = GCLK_SET_ABSENT }

#define RTC_ON_HOST \
	{ .set = GCLK_SET_OWN, .start = GCLK_START_ALWAYS, .phase = GCLK_PHASE_KEPT, \
	  .missed = GCLK_MISSED_REPLAY, .start_uncertainty_ns = HOST_NS, .replay_horizon_s = 60, \
	  .why = "on the host's wall clock; later than 60 s after its next tick the phase restarts" }
#define RTC_ON_AXIS \
	ROW(AXIS, RUN, RESTARTS, REPLAY, RUN_NS, "on the virtual clock; its phase restarts at the load")

#define EMULATED(tsc_why_, rtc_) \
	{ \
		[GCLK_CLOCK_TSC] = ROW(AXIS, RUN, KEPT, NONE, RUN_NS, tsc_why_), \
		[GCLK_CLOCK_KVMCLOCK] = ABSENT, \
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, RUN, KEPT, NONE, RUN_NS, "cpu_clock_offset"), \
		[GCLK_CLOCK_RTC] = rtc_, \
		[GCLK_CLOCK_HPET] = ROW(AXIS, RUN, KEPT, ONE, RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, RUN, KEPT, ONE, RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_PIT] = ROW(AXIS, RUN, KEPT, ONE, RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_LAPIC] = ROW(AXIS, RUN, KEPT, ONE, RUN_NS, "on the virtual clock"), \
	}

#define KERNEL(rtc_) \
	{ \
		[GCLK_CLOCK_TSC] = ROW(OWN, LOAD, KEPT, NONE, LOAD_NS, "written at the end of the load"), \
		[GCLK_CLOCK_KVMCLOCK] = ROW(OWN, RUN, KEPT, NONE, RUN_NS, "KVM_SET_CLOCK at the resume"), \
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, RUN, KEPT, NONE, RUN_NS, "cpu_clock_offset"), \
		[GCLK_CLOCK_RTC] = rtc_, \
		[GCLK_CLOCK_HPET] = ROW(AXIS, RUN, KEPT, ONE, RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, RUN, KEPT, ONE, RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_PIT] = ROW(NEVER, RUN, RESTARTS, NONE, RUN_NS, \
				       "the kernel's: a new period starts at the resume"), \
		[GCLK_CLOCK_LAPIC] = ROW(NEVER, LOAD, RESTARTS, NONE, LOAD_NS, \
					 "the kernel's: the running count is not in the stream"), \
	}

#define FACTS .reference = "docs/qemu-carrier-facts.md"

/* By accelerator and by whether the RTC stands on the virtual clock. */
static const struct gclk_carrier carriers[3][2] = {
	{ { .name = "qemu-tcg", FACTS, .rate_follows_host = 1,
	    .rows = EMULATED("the host's counter, handed through", RTC_ON_HOST) },
	  { .name = "qemu-tcg", FACTS, .rate_follows_host = 1,
	    .rows = EMULATED("the host's counter, handed through", RTC_ON_AXIS) } },
	{ { .name = "qemu-tcg-icount", FACTS,
	    .rows = EMULATED("the virtual clock itself, 1 GHz", RTC_ON_HOST) },
	  { .name = "qemu-tcg-icount", FACTS,
	    .rows = EMULATED("the virtual clock itself, 1 GHz", RTC_ON_AXIS) } },
	{ { .name = "qemu-kvm", FACTS, .loader_rescales = 1, .clock_from_page = 1,
	    .rows = KERNEL(RTC_ON_HOST) },
	  { .name = "qemu-kvm", FACTS, .loader_rescales = 1, .clock_from_page = 1,
	    .rows = KERNEL(RTC_ON_AXIS) } },
};

const struct gclk_carrier *gclk_qemu_carrier(const struct gclk_state *state)
{
	unsigned on_axis = state->rtc.axis == GCLK_AXIS_GUEST && GCLK_HAS(rtc, &state->rtc, axis);

	switch (state->guest.accelerator) {
	case GCLK_ACCEL_KVM:
		return &carriers[2][on_axis];
	case GCLK_ACCEL_TCG_ICOUNT:
		return &carriers[1][on_axis];
	default:
		return &carriers[0][on_axis];
	}
}
