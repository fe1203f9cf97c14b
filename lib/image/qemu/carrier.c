/* SPDX-License-Identifier: MIT */
/*
 * QEMU's rows, by accelerator. The facts are measured on stock QEMU 7.2
 * (docs/qemu-carrier-facts.md); by its sources they are the same from 4.2 to 10.2 (what
 * was read, and what differs: docs/formats.md):
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
 * How far from its instant a clock may start, on a busy machine. Emulated, the virtual
 * clock stood 0.05..0.2 ms after the RESUME stamp, once 3 ms; under KVM the TSC
 * started 0.1..10.8 ms after the stream's last byte, kvmclock 0.3..12.8 ms after `cont`
 * (docs/qemu-carrier-facts.md, docs/lab.md).
 */
#define RUN_NS 3000000
#define KVM_RUN_NS 12000000
#define KVM_LOAD_NS 12000000
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
		[GCLK_CLOCK_TSC] = ROW(OWN, LOAD, KEPT, NONE, KVM_LOAD_NS, "written at the end of the load"), \
		[GCLK_CLOCK_KVMCLOCK] = ROW(OWN, RUN, KEPT, NONE, KVM_RUN_NS, "KVM_SET_CLOCK at the resume"), \
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, RUN, KEPT, NONE, KVM_RUN_NS, "cpu_clock_offset"), \
		[GCLK_CLOCK_RTC] = rtc_, \
		[GCLK_CLOCK_HPET] = ROW(AXIS, RUN, KEPT, ONE, KVM_RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, RUN, KEPT, ONE, KVM_RUN_NS, "on the virtual clock"), \
		[GCLK_CLOCK_PIT] = ROW(NEVER, RUN, RESTARTS, NONE, KVM_RUN_NS, \
				       "the kernel's: a new period starts at the resume"), \
		[GCLK_CLOCK_LAPIC] = ROW(NEVER, LOAD, RESTARTS, NONE, KVM_LOAD_NS, \
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
