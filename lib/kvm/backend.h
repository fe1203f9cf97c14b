/* SPDX-License-Identifier: MIT */
/* What the parts of the backend share: samples, brackets, MSRs, the kernel's devices. */
#ifndef GCLK_KVM_BACKEND_H
#define GCLK_KVM_BACKEND_H

#include <guestclock/kvm.h>

#include "core/ratio.h"
#include "core/tsc.h"
#include "kvm/abi.h"
#include "kvm/sys.h"

/* gclk_kvm.own.step */
enum gclk_kvm_step {
	GCLK_KVM_NEW,
	GCLK_KVM_PREPARED,
	GCLK_KVM_BROKEN,		/* a restore failed after its first write */
	GCLK_KVM_RESTORED,
};

/* The host's clocks at one instant, and how well the two belong to that TSC, +-. */
struct gclk_kvm_anchor {
	uint64_t ticks;
	int64_t mono_ns, real_ns;
	uint64_t mono_width_ns, real_width_ns;
};

/* The narrowest of @tries readings: TSC, CLOCK_MONOTONIC, TSC, CLOCK_REALTIME, TSC. */
int gclk_kvm_sample(const struct gclk_kvm *k, struct gclk_rate rate, unsigned tries,
		    struct gclk_kvm_anchor *ret, struct gclk_error *reterr);

/**
 * gclk_kvm_probe() - what this kernel can do for this VM, once
 * Asked on the descriptors. Errors: GCLK_STATE without a vCPU.
 */
int gclk_kvm_probe(struct gclk_kvm *k, struct gclk_error *reterr);

/* The kernel's tsc_khz; 0: not known. */
uint32_t gclk_kvm_host_khz(const struct gclk_host *host);

/* The rate by which the kernel converts the host's TSC: for short spans, and for kvmclock. */
struct gclk_rate gclk_kvm_host_rate(const struct gclk_host *host);

/**
 * gclk_kvm_same_boot() - whether the kernel of the capture has run ever since
 * @source:	the host of the capture, or NULL
 * @host:	this one
 * @at:		its clocks now
 * @ret_gap_ns:	since the capture, by CLOCK_MONOTONIC, to 1 ns and whatever was done to the
 *		wall clock
 *
 * Not where its TSC went otherwise meanwhile: then the host has slept.
 */
int gclk_kvm_same_boot(const struct gclk_state *st, const struct gclk_host *source,
		       const struct gclk_host *host, const struct gclk_kvm_anchor *at,
		       int64_t *ret_gap_ns);

/* Signed span between two readings of the host's TSC, in ns, rounded down. */
int64_t gclk_kvm_span_ns(struct gclk_rate rate, uint64_t from_ticks, uint64_t to_ticks);

/* A vCPU's frequency, kHz. Errors: GCLK_SYS. */
int gclk_kvm_khz(const struct gclk_kvm *k, uint32_t vcpu, uint32_t *ret_khz,
		 struct gclk_error *reterr);

/* Whether a guest of @khz runs at the host's own rate, by the kernel's tolerance. */
int gclk_kvm_is_unscaled(const struct gclk_host *host, uint32_t khz);

/**
 * gclk_kvm_ratio() - how the kernel scales a vCPU's TSC
 * @khz:	the vCPU's frequency
 * @ret:	ratio and frac_bits; 1.0 with 48 bits where nothing is scaled
 *
 * From the kernel where it tells, else derived as KVM does it.
 * Errors: GCLK_UNSUPPORTED where it scales and nobody knows how many bits
 */
int gclk_kvm_ratio(const struct gclk_kvm *k, const struct gclk_host *host, uint32_t vcpu,
		   uint32_t khz, struct gclk_tsc_scaling *ret, struct gclk_error *reterr);

/* The TSC_OFFSET attribute. */
int gclk_kvm_get_offset(const struct gclk_kvm *k, uint32_t vcpu, uint64_t *ret,
			struct gclk_error *reterr);
int gclk_kvm_set_offset(const struct gclk_kvm *k, uint32_t vcpu, uint64_t offset,
			struct gclk_error *reterr);

/* A value that was taken between two readings of the host's TSC. */
struct gclk_kvm_bracket {
	uint64_t before, value, after;
};

/* MSR 0x10 of a vCPU, the narrowest of @tries. */
int gclk_kvm_read_tsc(const struct gclk_kvm *k, uint32_t vcpu, unsigned tries,
		      struct gclk_kvm_bracket *ret, struct gclk_error *reterr);

/**
 * gclk_kvm_tsc_error() - how far a bracketed reading lies from what is expected
 * Returns 0 within the bracket, else the signed distance to it in guest ticks.
 */
int64_t gclk_kvm_tsc_error(const struct gclk_tsc_scaling *scaling,
			   const struct gclk_kvm_bracket *bracket);

/* KVM_GET_CLOCK between two readings of the host's TSC. */
int gclk_kvm_get_clock(const struct gclk_kvm *k, struct kvm_clock_data *ret,
		       struct gclk_kvm_bracket *ret_bracket, struct gclk_error *reterr);

static inline int gclk_kvm_clock_is_paired(const struct kvm_clock_data *clock)
{
	return (clock->flags & CLOCK_HAS_REALTIME) && (clock->flags & CLOCK_HAS_HOST_TSC);
}

/* msrs.c */

/* Phases of the restore, in their order. */
enum gclk_kvm_msr_phase {
	GCLK_KVM_MSRS_BEFORE_CLOCK,	/* all but the following */
	GCLK_KVM_MSRS_AFTER_CLOCK,	/* wall clock: the kernel writes realtime - kvmclock */
	GCLK_KVM_MSRS_TIMERS,		/* armed as they are written */
};

/**
 * gclk_kvm_read_msrs() - a vCPU's clock MSRs into its records
 * @ret_tsc:	MSR 0x10, read with them; may be NULL
 *
 * MSRs that the kernel does not know are absent, and remembered.
 */
int gclk_kvm_read_msrs(struct gclk_kvm *k, uint32_t i, struct gclk_tsc *tsc,
		       struct gclk_vcpu *vcpu, struct gclk_error *reterr);

/* The first MSR with a value that this kernel does not know; NULL: none. */
const char *gclk_kvm_unknown_msr(const struct gclk_kvm *k, const struct gclk_state *st);

/* Errors: GCLK_UNSUPPORTED with the MSR that was refused, GCLK_SYS */
int gclk_kvm_write_msrs(const struct gclk_kvm *k, uint32_t i, const struct gclk_state *st,
			enum gclk_kvm_msr_phase phase, struct gclk_error *reterr);

/**
 * gclk_kvm_check_msrs() - read a phase back and compare
 * @tsc_now:	guest TSC: a deadline that has passed may read 0
 * Errors: GCLK_UNPROVEN with the field
 */
int gclk_kvm_check_msrs(struct gclk_kvm *k, uint32_t i, const struct gclk_state *st,
			enum gclk_kvm_msr_phase phase, uint64_t tsc_now,
			struct gclk_error *reterr);

/* lapic.c */

int gclk_kvm_capture_lapic(struct gclk_kvm *k, uint32_t i, struct gclk_lapic *lapic,
			   struct gclk_error *reterr);

/* Whether the VMM restored the page; nothing is written. Errors: GCLK_STATE */
int gclk_kvm_check_lapic_page(const struct gclk_kvm *k, uint32_t i,
			      const struct gclk_lapic *lapic, struct gclk_error *reterr);

/* Starts the timer with what is left of it now, and reads the page back. */
int gclk_kvm_restore_lapic(struct gclk_kvm *k, uint32_t i, const struct gclk_lapic *lapic,
			   struct gclk_error *reterr);

/* pit.c */

int gclk_kvm_capture_pit(struct gclk_kvm *k, struct gclk_pit *pit, struct gclk_error *reterr);
int gclk_kvm_check_pit(const struct gclk_pit *pit, struct gclk_error *reterr);
int gclk_kvm_restore_pit(struct gclk_kvm *k, const struct gclk_pit *pit,
			 struct gclk_error *reterr);

/* pit-phase.c */

/* Channel 0 has just begun a period. */
void gclk_kvm_note_pit(struct gclk_kvm *k, const struct gclk_pit *pit, int64_t began_ns);

/* Its next expiry, where that is known. */
void gclk_kvm_capture_pit_phase(const struct gclk_kvm *k, struct gclk_pit *pit);

/* inject.c: a tick of the PIT; the vCPUs stand. Not delivered: one is still pending. */
int gclk_kvm_pulse_pit(const struct gclk_kvm *k, uint8_t *ret_delivered,
		       struct gclk_error *reterr);

/* page.c: the guest's clock pages, where the VMM lets us see them. */

void gclk_kvm_capture_pages(const struct gclk_kvm *k, struct gclk_vcpu *vcpu);

#endif
