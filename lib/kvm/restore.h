/* SPDX-License-Identifier: MIT */
/* One restore: what its parts share. restore.c has the order of them. */
#ifndef GCLK_KVM_RESTORE_H
#define GCLK_KVM_RESTORE_H

#include "kvm/backend.h"

enum gclk_kvm_restore_step {
	STEP_KHZ,
	STEP_TSC,
	STEP_MSRS,
	STEP_CLOCK,
	STEP_WALL,
	STEP_DEVICES,
	STEP_LAPIC,
	STEP_TIMERS,
	STEP_PIT,
	N_STEPS,
};


struct gclk_kvm_restore {
	struct gclk_kvm *k;
	const struct gclk_state *st;
	const struct gclk_policy *policy;
	struct gclk_plan *plan;
	struct gclk_host host;		/* with the anchor's sample */
	struct gclk_rate rate;		/* of the host's TSC, as the kernel has it */
	struct gclk_rate true_rate;	/* as it is */
	struct gclk_kvm_anchor at;
	uint64_t pair_ns;		/* how exactly TSC and wall clock of it belong together */
	int64_t gap_ns;			/* within the same boot */
	int64_t stepped_ns;		/* by which the wall clock was set since the host was sampled */
	uint32_t done[N_STEPS];		/* how many vCPUs, or 1 */
	uint32_t kept;			/* vCPUs whose offset is that of before */
	uint8_t same_boot;
	uint8_t khz_differs;		/* some vCPU has not the state's frequency yet */
	uint8_t not_honoured;		/* the TSC is not what was written, and that was forced */
	struct gclk_error *reterr;
};

/* prepare.c: to the nearest kHz, which is all that KVM takes; 0: the state does not tell. */
uint32_t gclk_kvm_wanted_khz(const struct gclk_tsc *tsc);

/* A finding that refuses: -GCLK_UNPROVEN, unless the policy's force names it. */
int gclk_kvm_object(struct gclk_kvm_restore *r, const char *id, const char *clock,
		    const char *text);

void gclk_kvm_widen_bound(struct gclk_kvm_restore *r, const char *clock, uint64_t by_ns);

/* The wall clock of the anchor is now known to +-@to_ns: what counts the gap by it is, too. */
void gclk_kvm_narrow_bounds(struct gclk_kvm_restore *r, uint64_t to_ns);

/* A clock that has gone on as if nothing had been. */
void gclk_kvm_set_bound(struct gclk_kvm_restore *r, const char *clock, uint64_t bound_ns);

/* All that passed is counted, by the same TSC: its own line goes on. */
int gclk_kvm_goes_on(const struct gclk_kvm_restore *r);

/* restore-tsc.c: frequencies and TSCs of all vCPUs. */
int gclk_kvm_restore_tsc(struct gclk_kvm_restore *r);

/* Offsets that make the plan's values at the anchor, and @ahead_ns more, into all vCPUs. */
int gclk_kvm_move_tscs(struct gclk_kvm_restore *r, int64_t ahead_ns);

/* A vCPU's TSC as the plan's state has it: ratio and offset. */
struct gclk_tsc_scaling gclk_kvm_scaling_of(const struct gclk_tsc *tsc);

/* restore-clock.c: kvmclock, and the last ns of the TSCs. */
int gclk_kvm_restore_clock(struct gclk_kvm_restore *r);

#endif
