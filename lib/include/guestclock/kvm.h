/* SPDX-License-Identifier: MIT */
/* Hosts, and the KVM descriptors of the caller's own process. */
#ifndef GUESTCLOCK_KVM_H
#define GUESTCLOCK_KVM_H

#include <guestclock/plan.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * gclk_host_read() - this host's profile, and a sample of its clocks
 * @ret_host:	filled as far as this process may look; what could not be read is absent
 * @measure_ns:	how long to measure the TSC against CLOCK_MONOTONIC_RAW; 0: not at all
 *
 * tsc_hz is what the TSC makes in one second of CLOCK_REALTIME in the long run, as the
 * kernel steers that clock. tsc_hz_ppb covers the rounding on the way (120 ppb at 2.5 GHz
 * where the kernel's kHz is known, the width of the brackets where it was measured), 1 ppm
 * for the discipline of a synchronised wall clock, and a slew in progress. It does not
 * cover the error of a wall clock without discipline: GCLK_HOST_SYNCHRONISED is then absent.
 *
 * Opens /dev/kvm, /proc and /sys, and closes all of them again: call it before a
 * sandbox closes. Errors: none for what is merely missing; GCLK_SYS when even
 * the clocks cannot be read.
 */
int gclk_host_read(struct gclk_host *ret_host, uint64_t measure_ns, struct gclk_error *reterr);

/**
 * gclk_host_sample() - one bracketed reading of the host's clocks into @host
 *
 * The narrowest of several brackets; its width is sample_width_ns. Opens nothing.
 */
int gclk_host_sample(struct gclk_host *host, struct gclk_error *reterr);

/**
 * gclk_host_missing() - what gclk_host_read() could not learn
 * @index:	0.. until NULL comes back
 * Returns the name of an absent field of struct gclk_host.
 */
const char *gclk_host_missing(const struct gclk_host *host, unsigned index);

/**
 * gclk_kvm_keeps_tsc() - whether this host's KVM keeps what is written to a guest's TSC
 *
 * Some kernels take the write, and the guest reads the host's counter all the same. Makes
 * a virtual machine of its own for a moment. Returns 1 or 0. Errors: GCLK_SYS where none
 * can be made.
 */
int gclk_kvm_keeps_tsc(struct gclk_error *reterr);

/*
 * The clocks of a guest through the KVM descriptors of the caller's own process.
 *
 *	source, all vCPUs stopped:
 *		struct gclk_kvm k = { .vm = vm, .vcpus = fds, .n_vcpus = n, .irqchip = 1 };
 *		gclk_kvm_capture(&k, &host, st, &err);
 *
 *	destination, VM and interrupt controller made, no vCPU yet:
 *		gclk_kvm_when(st, &source, &host, &when);
 *		gclk_plan(st, &gclk_kvm_carrier, &host, &when, &disagreement, &policy, plan, &err);
 *		gclk_kvm_prepare(&k, plan, &err);
 *		... vCPUs, CPUID, SREGS, RAM, LAPIC pages, all MSRs but gclk_kvm_msrs ...
 *		k.vcpus = fds;
 *		gclk_kvm_restore(&k, st, &host, &disagreement, &policy, plan, &err);
 *		... run ...
 *		gclk_kvm_verify(&k, plan, &err);	(vCPUs stopped again)
 *		while (gclk_replay_due(&plan->replay, &due)) {
 *			... wait until due, or the guest acknowledges ...
 *			gclk_kvm_inject(&k, &plan->replay, now, 0, &err);
 *		}
 *
 * Any one thread may call while all vCPUs are stopped. Nothing is opened and nothing is
 * allocated: ioctls on the given descriptors and clocks of the vDSO are all that is used.
 * What a kernel can do is probed on the descriptors, never taken from its version.
 *
 * The guest's shared axis (GUEST_NS) is CLOCK_MONOTONIC plus .axis_ns: a VMM's own devices
 * read their instants from gclk_kvm_axis_now(). restore() sets .axis_ns, so that the axis
 * goes on where the plan wants it.
 */
struct gclk_kvm_sys;			/* the system calls; tests put a simulated kernel there */

/* What a vCPU's LAPIC timer showed when the vCPU left KVM_RUN for the last time. */
struct gclk_kvm_stop {
	uint8_t known;
	uint32_t tmcct;			/* current count */
	int64_t at_ns;			/* guest axis */
};

struct gclk_kvm {
	/* the caller's; descriptors stay its own */
	int vm;
	const int *vcpus;		/* n_vcpus descriptors; not looked at by prepare() */
	uint32_t n_vcpus;
	uint8_t irqchip;		/* the LAPICs are the kernel's */
	uint8_t pit;			/* the PIT is the kernel's */
	uint8_t pit_discards;		/* KVM_REINJECT_CONTROL was set to 0: it has no getter */
	uint8_t x2apic_ids;		/* KVM_CAP_X2APIC_API was enabled, with 32-bit ids */
	uint8_t hyperv;			/* the guest was given Hyper-V's CPUID leaves */
	uint32_t apic_bus_ns;		/* as set by KVM_CAP_X86_APIC_BUS_CYCLES_NS; 0: never */
	int64_t axis_ns;		/* the shared axis minus CLOCK_MONOTONIC; set by restore() */
	struct gclk_rtc *rtc;		/* the VMM's own devices, or NULL */
	struct gclk_hpet *hpet;
	struct gclk_pm_timer *pm_timer;
	struct gclk_kvm_stop *stops;	/* n_vcpus, filled by gclk_kvm_stopped(); or NULL */
	/*
	 * An expiry of the PIT's channel 0, on the axis, while it counts from pit_edge_count in
	 * pit_edge_mode. restore() notes it; nobody else can but a VMM that saw one. A guest
	 * that writes the same count again starts a period unseen: such a VMM clears it.
	 */
	uint8_t pit_edge_known, pit_edge_mode;
	uint32_t pit_edge_count;
	int64_t pit_edge_ns;
	const struct gclk_host *source;	/* restore(): the source's profile, or NULL */

	/*
	 * Reads or writes guest memory; returns 0, or -1 where there is none. NULL: the
	 * guest's clock pages are not looked at.
	 */
	int (*memory)(void *context, uint64_t gpa, void *bytes, uint32_t size, int write);
	void *memory_context;
	const struct gclk_kvm_sys *sys;	/* NULL: the real ones */

	/* the library's own; zero to begin with */
	struct {
		uint8_t step, probed, has_offset, has_scale, scales;
		int32_t cap_clock;	/* KVM_CAP_ADJUST_CLOCK */
		uint64_t msrs_absent;	/* by row of the table of MSRs */
		uint64_t anchor_ticks;	/* host TSC of the plan's instant */
		int64_t anchor_mono_ns;
		uint8_t expect_stable;	/* verify(): the master clock is to be on */
		uint8_t pit_timed;
	} own;
};

/* Lists for the VMM's own restore, which leaves these MSRs out, and for its seccomp filter. */
extern const uint32_t *const gclk_kvm_msrs;
extern const unsigned gclk_n_kvm_msrs;
extern const uint64_t *const gclk_kvm_ioctls;
extern const unsigned gclk_n_kvm_ioctls;

/* What KVM honours, for gclk_plan(). */
extern const struct gclk_carrier gclk_kvm_carrier;

/* The guest's shared axis now, in ns; for the VMM's own devices. */
int64_t gclk_kvm_axis_now(const struct gclk_kvm *k);

/**
 * gclk_kvm_stopped() - note what a vCPU's LAPIC timer shows as the vCPU stops
 * @vcpu:	index; the vCPU has just left KVM_RUN for the last time
 *
 * KVM forgets an expiry that it has not delivered when the LAPIC is read. With this
 * note capture() tells an expiry after the stop, which the guest has not seen, from one
 * before it; without, an expired one-shot is taken to be undelivered, because one
 * interrupt more is harmless and one less can hang a guest. May be called by the
 * vCPU's own thread. Does nothing without .stops or .irqchip.
 *
 * Errors: GCLK_SYS, GCLK_RANGE for an index beyond n_vcpus
 */
int gclk_kvm_stopped(struct gclk_kvm *k, uint32_t vcpu, struct gclk_error *reterr);

/**
 * gclk_kvm_capture() - every clock of the guest, at one instant
 * @host:	this host's profile, for its frequency; its sample is made anew
 * @st:		from gclk_state_new() for at least n_vcpus
 *
 * All vCPUs are stopped. The instant is that of KVM_GET_CLOCK where it tells the host
 * TSC and CLOCK_REALTIME, else the middle of the narrowest bracket around it; it is
 * st->kvmclock.realtime_ns and .host_ticks, and st->virtual_clock.clock_ns on the axis.
 * Nothing in the VM changes; the VMM's devices are copied as they are (they describe
 * themselves at every later instant), and stay usable if the move is called off.
 *
 * Errors: GCLK_SYS with the call; GCLK_RANGE for a state that is too small;
 *         GCLK_UNSUPPORTED where no TSC frequency is known. @st is then incomplete.
 */
int gclk_kvm_capture(struct gclk_kvm *k, const struct gclk_host *host, struct gclk_state *st,
		     struct gclk_error *reterr);

/**
 * gclk_kvm_when() - the instants for a first gclk_plan()
 * @st:		captured by gclk_kvm_capture()
 * @source:	the profile of the host where it was; NULL: not known
 * @host:	sampled now, on the destination: load and run are that instant
 *
 * Within one boot of a host the gap is what its own clocks counted: elapsed_ns is given, and
 * no wall clock takes part. captured.uncertainty_ns is GCLK_UNBOUNDED where the state does
 * not tell the instant.
 */
void gclk_kvm_when(const struct gclk_state *st, const struct gclk_host *source,
		   const struct gclk_host *host, struct gclk_when *ret_when);

/**
 * gclk_kvm_prepare() - what must be settled before there are vCPUs
 * @plan:	accepted by gclk_plan() with gclk_kvm_carrier
 *
 * The VM's TSC frequency, where the kernel scales, and the period of the APIC bus
 * clock. Needs the interrupt controller.
 *
 * Errors: GCLK_REFUSED for a refused plan; GCLK_UNSUPPORTED for a bus period or a
 *         frequency that this kernel cannot give; GCLK_UNPROVEN where a frequency did
 *         not take; GCLK_SYS. Nothing that the guest sees exists yet.
 */
int gclk_kvm_prepare(struct gclk_kvm *k, const struct gclk_plan *plan,
		     struct gclk_error *reterr);

/**
 * gclk_kvm_restore() - set every clock, in the order that KVM needs, and read it back
 * @st:		as captured
 * @host:	this host's profile; its sample is made anew
 * @disagreement: of the wall clock as it was when @host was sampled: where somebody has set it
 *		since, the gap is counted by it as it was (`wall-clock-set`). Compared later?
 *		gclk_host_sample() first
 * @plan:	the one given to prepare(): its .when tells the capture's instant; made anew
 *		for the instant of this call, and completed with what was read back
 *
 * After CPUID, SREGS, RAM and the VMM's own LAPIC pages, MSRs and Hyper-V SynIC; right
 * before the run. All clocks count from the plan's instant on, run or not.
 *
 * A finding that the policy does not force refuses before anything is touched (R6).
 * What was written is read back (R7). A failure after the first write is listed in
 * the plan's findings: restore-incomplete says what had been changed by then.
 *
 * Errors: GCLK_STATE before prepare(), without its frequency, or without the LAPIC
 *         pages; GCLK_REFUSED; GCLK_UNPROVEN where a write did not take, with the
 *         field; GCLK_UNSUPPORTED; GCLK_SYS
 */
int gclk_kvm_restore(struct gclk_kvm *k, const struct gclk_state *st,
		     const struct gclk_host *host, const struct gclk_disagreement *disagreement,
		     const struct gclk_policy *policy, struct gclk_plan *plan,
		     struct gclk_error *reterr);

/**
 * gclk_kvm_verify() - what shows only after the guest has run
 * @plan:	from restore()
 *
 * All vCPUs have run, and are stopped again. The rate of each TSC against the host's,
 * the master clock, and, where memory can be read, that the guest's clock pages were
 * written anew and agree with the kernel's clock. The longer ago the restore, the finer
 * the rate is known; 50 ms give 0.1 ppm of a 1 GHz TSC.
 *
 * What is wrong is a finding of @plan. Errors: GCLK_STATE before restore();
 * GCLK_UNPROVEN where a finding of severity error was added; GCLK_SYS
 */
int gclk_kvm_verify(struct gclk_kvm *k, struct gclk_plan *plan, struct gclk_error *reterr);

#define GCLK_KVM_STAND 1	/* a condition, not an error: the vCPUs have to stand for this */

/**
 * gclk_kvm_inject() - deliver the ticks that are due
 * @replay:	of the plan that restore() completed
 * @now_ns:	on the axis of the caller's choice: the one of gclk_replay_due()
 * @vcpus_stand: no vCPU runs during this call
 *
 * One attempt for each timer that is due. vCPUs may run, but an edge wants them to stand (PIT,
 * LAPIC timers, an edge-triggered HPET), because only then it shows whether it vanished in
 * one still pending: GCLK_KVM_STAND is returned, to be called again when they do. For as
 * long as the call takes nobody else may use the RTC and the HPET; their level-triggered
 * lines may be up afterwards, which their records say (irq_level).
 *
 * What the kernel cannot tell, the VMM does: that the guest has read register C of the RTC
 * (gclk_replay_acknowledge()), that a tick of the guest's present vanished in an owed one
 * (gclk_replay_owe()), that it has given a timer another period (gclk_replay_retime()).
 * With a PIT or a LAPIC timer of the kernel's nobody can: a tick that expires while an owed
 * one is pending is lost with it, which takes a vCPU that does not run for so long.
 *
 * Errors: GCLK_SYS, and the tick is still owed then; GCLK_UNSUPPORTED where the interrupt
 *         controllers are not the kernel's: there the VMM injects, and reports
 */
int gclk_kvm_inject(struct gclk_kvm *k, struct gclk_replay *replay, int64_t now_ns,
		    int vcpus_stand, struct gclk_error *reterr);

/**
 * gclk_kvm_pit_due() - when the kernel's PIT can be put back into its phase
 * @plan:	from restore()
 * @now_ns:	CLOCK_MONOTONIC
 * @ret_due_ns:	its next expiry on the grid of before, on the same clock
 *
 * restore() begins a new period, because that is all that the kernel has a call for. Where
 * the phase was known at the capture (pit_edge_ns), the same call at that instant restores
 * it: a step of the replay for which the vCPUs stand for a moment, if the VMM wants it.
 *
 * Returns 1; 0 where the phase is not known, was restored already, or does not matter.
 */
int gclk_kvm_pit_due(const struct gclk_kvm *k, const struct gclk_plan *plan, int64_t now_ns,
		     int64_t *ret_due_ns);

struct gclk_kvm_pit_timed {
	int64_t off_ns;			/* the grid that it now ticks on minus that of before */
	uint64_t width_ns;		/* known to +- this */
	uint8_t delivered;		/* the tick of that instant; else it waits or is owed */
	uint8_t reprogrammed;		/* the guest has, since the restore: nothing was done */
};

/**
 * gclk_kvm_time_pit() - do so; the vCPUs stand
 * @plan:	its bound for the PIT becomes what was reached
 *
 * Waits for the instant, which is less than 2 ms away, and delivers its tick. Ticks that
 * the kernel had queued for the PIT are lost with the call, as with every KVM_SET_PIT2.
 *
 * Errors: GCLK_STATE where gclk_kvm_pit_due() says 0 or more than that; GCLK_SYS
 */
int gclk_kvm_time_pit(struct gclk_kvm *k, struct gclk_plan *plan,
		      struct gclk_kvm_pit_timed *ret, struct gclk_error *reterr);

/**
 * gclk_kvm_add_vcpu() - put a hot-plugged vCPU in step with vCPU 0
 * @vcpu:	its index; the vCPU has not run
 *
 * Errors: GCLK_UNPROVEN where its TSC cannot be brought to vCPU 0's; GCLK_SYS
 */
int gclk_kvm_add_vcpu(struct gclk_kvm *k, uint32_t vcpu, struct gclk_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
