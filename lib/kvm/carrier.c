/* SPDX-License-Identifier: MIT */
/*
 * What KVM honours when it is asked by the backend of this directory. load and resume are
 * one instant there, that of the plan: every clock is set so that it reads right from that
 * instant on, whenever the vCPUs run.
 */
#include "core/util.h"
#include "kvm/backend.h"

/*
 * How far from the plan's instant a clock may stand. The TSC is exact by its offset; the
 * kernel takes kvmclock's instant 27..422 ns after its reference, which is measured and
 * removed, and computes its answer and the guest's page in two ways; the axis was read from
 * CLOCK_MONOTONIC at the capture, to half of what that took; timers begin at their ioctl,
 * whose place in the call is not known.
 */
#define TSC_NS 2
#define KVMCLOCK_NS 4
#define AXIS_NS 50
#define TIMER_NS 20000

#define ROW(set_, phase_, missed_, ns_, why_) \
	{ .set = GCLK_SET_##set_, .start = GCLK_START_RUN, .phase = GCLK_PHASE_##phase_, \
	  .missed = GCLK_MISSED_##missed_, .start_uncertainty_ns = ns_, .why = why_ }

GCLK_API const struct gclk_carrier gclk_kvm_carrier = {
	.name = "kvm",
	.reference = "docs/kvm-backend.md",
	.loader_rescales = 1,
	.rows = {
		[GCLK_CLOCK_TSC] = ROW(OWN, KEPT, NONE, TSC_NS, "the TSC_OFFSET attribute, or MSR 0x10"),
		[GCLK_CLOCK_KVMCLOCK] = ROW(OWN, KEPT, NONE, KVMCLOCK_NS, "KVM_SET_CLOCK"),
		[GCLK_CLOCK_VIRTUAL] = ROW(OWN, KEPT, NONE, AXIS_NS, "CLOCK_MONOTONIC and an offset"),
		[GCLK_CLOCK_RTC] = ROW(AXIS, KEPT, INJECT, AXIS_NS, "the VMM's own device"),
		[GCLK_CLOCK_HPET] = ROW(AXIS, KEPT, INJECT, AXIS_NS, "the VMM's own device"),
		[GCLK_CLOCK_PM_TIMER] = ROW(AXIS, KEPT, ONE, AXIS_NS, "the VMM's own device"),
		[GCLK_CLOCK_PIT] = ROW(NEVER, RESTARTS, INJECT, TIMER_NS,
				       "the kernel's: its phase cannot be read, and setting it starts a new period"),
		[GCLK_CLOCK_LAPIC] = ROW(OWN, KEPT, INJECT, TIMER_NS, "the kernel's: set with the count that is left"),
	},
};
