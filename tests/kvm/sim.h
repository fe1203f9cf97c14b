/* SPDX-License-Identifier: MIT */
/*
 * A kernel's KVM, as far as clocks go, in memory: the semantics of the ioctls that the
 * backend uses, after the kernel's documentation and what was measured on real ones
 * (docs/kvm-backend.md). It stands in for what no test machine has: processors that
 * scale, old kernels, proposed ioctls, protected TSCs, a call that fails.
 *
 * Its time is a number that every call moves on, so what a guest reads can be compared
 * with the truth to the ns.
 */
#ifndef TESTS_KVM_SIM_H
#define TESTS_KVM_SIM_H

#include <stdint.h>

#include <guestclock/kvm.h>

#include "core/tsc.h"
#include "kvm/abi.h"
#include "kvm/sys.h"

#define SIM_VCPUS 8
#define SIM_MSRS 40
#define SIM_MEMORY 65536
#define SIM_FD_VM 1000
#define SIM_FD_VCPU 2000
#define SIM_SET_CLOCK_GUEST 0x4020aed6ul

/* What kind of kernel, and of host. */
struct sim_kernel {
	const char *name;
	uint32_t khz;
	int32_t ppb;			/* by which the TSC is faster than that */
	int cap_clock;			/* KVM_CAP_ADJUST_CLOCK: 1, 2 or 0xe */
	uint8_t offset_attr, scale_attr, vm_khz, set_clock_guest, bus_cap;
	uint8_t frac_bits;		/* of the multiplier; 0: does not scale */
	uint8_t no_master;		/* the clocksource is not the TSC */
	uint8_t ignores_tsc;		/* guests read the host's TSC, whatever is written */
	uint8_t snaps_first;		/* before 6.8: the first write too is held against 1 s */
	uint8_t hyperv;			/* knows Hyper-V's MSRs */
};

struct sim_timer {
	uint8_t armed, pending;
	uint64_t target_ns, period_ns;	/* on now_ns */
};

struct sim_vcpu {
	uint32_t khz;
	struct gclk_tsc_scaling tsc;
	uint8_t catches_up;
	uint64_t generation;
	uint64_t msr[SIM_MSRS];		/* by place in the table of known ones */
	uint8_t page[1024];
	struct sim_timer timer;
	uint64_t deadline;
	unsigned delivered;		/* timer interrupts */
	uint8_t stopped_mark;
	uint32_t page_version;
};

struct sim {
	struct sim_kernel kernel;
	/* truth */
	uint64_t now_ns;
	uint64_t tsc0;
	int64_t mono0_ns, real0_ns;
	/* the VM */
	uint32_t n_vcpus;
	struct sim_vcpu vcpus[SIM_VCPUS];
	uint32_t default_khz, bus_ns;
	uint64_t last_ns, last_tsc, last_offset, cur_offset, generation;
	uint32_t last_khz, n_matched;
	uint8_t user_set_tsc;
	uint8_t master;			/* the snapshot below is in use */
	uint64_t master_ns, master_tsc;
	int64_t kvmclock_offset;
	struct kvm_pit_state2 pit;
	uint64_t pit_began_ns;		/* on now_ns: when channel 0 began a period */
	unsigned pit_pulses;		/* by KVM_IRQ_LINE_STATUS */
	uint8_t pic_irr;
	uint8_t reinject;
	uint8_t memory[SIM_MEMORY];
	/* the run of a test */
	unsigned calls, fail_at;	/* the ioctl that fails with EIO; 0: none */
	unsigned writes;		/* calls that changed something */
	unsigned long ignore;		/* an ioctl that is taken and ignored */
	uint32_t ignore_msr, refuse_msr;
	unsigned readings, step_at;	/* before that call or reading of a clock its wall clock */
	int64_t step_ns;		/* is stepped by so much; 0: never */
	uint64_t slept_ns;		/* in which the monotonic clock stood */
	unsigned call_ns;
	uint64_t random;
	struct gclk_kvm_sys sys;
	int fds[SIM_VCPUS];
};

/* A host at @real_ns with no VM yet. */
void sim_init(struct sim *sim, const struct sim_kernel *kernel, int64_t real_ns, uint64_t tsc0,
	      uint64_t seed);
void sim_add_vcpu(struct sim *sim);

/* The VM's descriptors, with all in-kernel devices and access to memory. */
void sim_kvm(struct sim *sim, struct gclk_kvm *k);

/* The host's profile, sampled now. */
void sim_host(struct sim *sim, struct gclk_host *host);

void sim_pass(struct sim *sim, uint64_t ns);

/* Each vCPU enters and leaves the guest once. */
void sim_run(struct sim *sim);

/* What the guest reads now: its TSC, its clock by its page (after a run), the kernel's clock. */
uint64_t sim_guest_tsc(const struct sim *sim, uint32_t vcpu);
uint64_t sim_guest_clock(const struct sim *sim, uint32_t vcpu);
uint64_t sim_kernel_clock(const struct sim *sim);

/* The VM part, without counters of the test: for «nothing was changed». */
uint64_t sim_fingerprint(const struct sim *sim);

uint64_t *sim_msr(struct sim *sim, uint32_t vcpu, uint32_t index);

#endif
