/* SPDX-License-Identifier: MIT */
/*
 * What shows only after the guest has run: the rate of its TSCs, the master clock, the
 * pages that the kernel writes as a vCPU enters the guest. And vCPUs that come later.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/pvclock.h"
#include "core/time.h"
#include "core/util.h"
#include "kvm/backend.h"

#define TSC_TRIES 5
#define SLACK_TICKS 1000
#define RATE_PPB 1000		/* beyond the brackets: what a measurement may still be off by */
#define PAGE_APART_NS 2
#define SCALED_PPB 600		/* released kernels lose up to 1 kHz of a scaled frequency */

static struct gclk_tsc_scaling scaling_of(const struct gclk_tsc *tsc)
{
	return (struct gclk_tsc_scaling){ tsc->ratio, tsc->ratio_frac_bits,
					  (uint64_t)tsc->offset_ticks };
}

/* A TSC that runs at another rate leaves its line by that much since the restore. */
static int verify_rate(struct gclk_kvm *k, uint32_t i, struct gclk_plan *plan,
		       struct gclk_error *reterr)
{
	const struct gclk_tsc *tsc = &plan->state->tsc[i];
	struct gclk_tsc_scaling scaling = scaling_of(tsc);
	struct gclk_kvm_bracket b = { 0 };
	uint64_t since, size, allowed;
	int64_t error, ppb = 0;
	int r = gclk_kvm_read_tsc(k, i, TSC_TRIES, &b, reterr);

	if (r < 0) {
		return r;
	}
	error = gclk_kvm_tsc_error(&scaling, &b);
	since = gclk_tsc_scale(b.after - k->own.anchor_ticks, scaling.ratio, scaling.frac_bits);
	size = (uint64_t)(error < 0 ? -error : error);
	allowed = SLACK_TICKS + gclk_muldiv_ceil_sat(since, RATE_PPB, GCLK_NS_PER_S);
	if (size > allowed) {
		gclk_muldiv_floor_i64(error, GCLK_NS_PER_S, since ? since : 1, &ppb);
		gclk_findings_add(&plan->findings, "tsc-rate-wrong", "tsc",
				  "vCPU %" PRIu32 ": %" PRId64 " ticks off after %" PRIu64
				  " (%" PRId64 " ppb)", i, error, since, ppb);
	}
	return 0;
}

static int verify_clock(struct gclk_kvm *k, struct gclk_plan *plan, struct gclk_error *reterr)
{
	struct kvm_clock_data clock;
	struct gclk_kvm_bracket b;
	int r = gclk_kvm_get_clock(k, &clock, &b, reterr);

	if (r == 0 && k->own.expect_stable && !(clock.flags & CLOCK_IS_STABLE)) {
		gclk_findings_add(&plan->findings, "master-clock-lost", "kvmclock",
				  "KVM_GET_CLOCK's flags are 0x%x after the first run", clock.flags);
	}
	return r;
}

/* The guest's page at the plan's TSC, against the plan's clock there. */
static void compare_page(struct gclk_plan *plan, const struct gclk_vcpu *vcpu,
			 const struct gclk_tsc *tsc)
{
	const struct gclk_pvclock page = {
		.tsc_timestamp = vcpu->pvclock_tsc_ticks,
		.system_time_ns = vcpu->pvclock_system_ns,
		.scale = { vcpu->pvclock_mul, (int8_t)vcpu->pvclock_shift },
	};
	struct gclk_rate rate = gclk_rate_of_hz(tsc->frequency_hz);
	uint64_t ticks = page.tsc_timestamp - tsc->value_ticks, since = 0, target, size, allowed;
	int64_t apart;

	if ((int64_t)ticks < 0 || gclk_ns_from_ticks_floor(rate, ticks, &since) < 0) {
		return;			/* of before the restore */
	}
	target = plan->state->kvmclock.clock_ns + since;
	apart = (int64_t)(page.system_time_ns - target);
	size = (uint64_t)(apart < 0 ? -apart : apart);
	allowed = PAGE_APART_NS + gclk_drift_ns_ceil(since, SCALED_PPB);
	for (uint32_t i = 0; i < plan->n_bounds; i++) {
		if (!strcmp(plan->bounds[i].clock, "kvmclock")) {
			allowed = GCLK_MAX(allowed, plan->bounds[i].bound_ns);
		}
	}
	if (size > allowed) {
		gclk_findings_add(&plan->findings, "clocks-apart", "kvmclock",
				  "vCPU %" PRIu32 "'s page stands %" PRId64
				  " ns from where its TSC puts it", vcpu->vcpu, apart);
	}
}

/* The page was written by the kernel since: its timestamp is of after the restore. */
static void verify_page(struct gclk_kvm *k, uint32_t i, struct gclk_plan *plan)
{
	const struct gclk_vcpu *planned = &plan->state->vcpu[i];
	struct gclk_vcpu now = { .system_time_msr = planned->system_time_msr,
				 .system_time_old_msr = planned->system_time_old_msr };

	now.has = planned->has & (GCLK_BIT(vcpu, system_time_msr) |
				  GCLK_BIT(vcpu, system_time_old_msr));
	GCLK_SET(vcpu, &now, vcpu, i);
	if (!k->memory || !((now.system_time_msr | now.system_time_old_msr) & 1)) {
		return;
	}
	gclk_kvm_capture_pages(k, &now);
	if (!GCLK_HAS(vcpu, &now, pvclock_mul) ||
	    (int64_t)(now.pvclock_tsc_ticks - plan->state->tsc[i].value_ticks) < 0) {
		gclk_findings_add(&plan->findings, "clock-page-stale", "kvmclock",
				  "vCPU %" PRIu32 "'s page was not written since the restore", i);
		return;
	}
	if ((now.pvclock_flags & GCLK_PVCLOCK_TSC_STABLE) || plan->state->n_vcpus == 1) {
		compare_page(plan, &now, &plan->state->tsc[i]);
	}
}

static unsigned count_errors(const struct gclk_plan *plan, unsigned from)
{
	unsigned n = 0;

	for (unsigned i = from; i < plan->findings.n; i++) {
		n += plan->findings.items[i].severity == GCLK_ERROR;
	}
	return n;
}

GCLK_API int gclk_kvm_verify(struct gclk_kvm *k, struct gclk_plan *plan,
			     struct gclk_error *reterr)
{
	unsigned n = plan->findings.n;
	int r;

	if (k->own.step != GCLK_KVM_RESTORED) {
		return gclk_fail(reterr, GCLK_STATE, "verify", GCLK_NO_OFFSET,
				 "nothing was restored");
	}
	r = verify_clock(k, plan, reterr);
	for (uint32_t i = 0; r == 0 && i < plan->state->n_vcpus; i++) {
		r = verify_rate(k, i, plan, reterr);
		verify_page(k, i, plan);
	}
	if (r == 0 && count_errors(plan, n)) {
		return gclk_fail(reterr, GCLK_UNPROVEN, plan->findings.items[n].clock,
				 GCLK_NO_OFFSET, "%s", plan->findings.items[n].message);
	}
	return r;
}

/*
 * A vCPU that comes later gets the generation's offset by itself where its frequency is
 * the VM's; where it does not, vCPU 0's is written.
 */
static int put_in_step(struct gclk_kvm *k, uint32_t vcpu, struct gclk_error *reterr)
{
	uint64_t first = 0, own = 0;
	int r;

	if ((r = gclk_kvm_get_offset(k, 0, &first, reterr)) < 0 ||
	    (r = gclk_kvm_get_offset(k, vcpu, &own, reterr)) < 0 || own == first) {
		return r;
	}
	if ((r = gclk_kvm_set_offset(k, vcpu, first, reterr)) < 0 ||
	    (r = gclk_kvm_get_offset(k, vcpu, &own, reterr)) < 0) {
		return r;
	}
	return own == first ? 0 : gclk_fail(reterr, GCLK_UNPROVEN, "tsc.offset_ticks",
					    GCLK_NO_OFFSET,
					    "vCPU %" PRIu32 "'s offset did not take", vcpu);
}

/* Kernels without the attribute: a TSC of 0 is always taken for «as the others». */
static int put_in_step_by_msr(const struct gclk_kvm *k, uint32_t vcpu,
			      struct gclk_error *reterr)
{
	struct gclk_kvm_one_msr msr = { .nmsrs = 1, .entry.index = MSR_TSC };

	if (gclk_sys_ioctl(k, k->vcpus[vcpu], KVM_SET_MSRS, &msr) != 1) {
		return gclk_fail(reterr, GCLK_SYS, "tsc.value_ticks", GCLK_NO_OFFSET,
				 "KVM_SET_MSRS 0x10: %s", strerror(errno));
	}
	return 0;
}

GCLK_API int gclk_kvm_add_vcpu(struct gclk_kvm *k, uint32_t vcpu, struct gclk_error *reterr)
{
	uint32_t khz = 0, own_khz = 0;
	struct gclk_kvm_bracket a = { 0 }, b = { 0 };
	int r;

	if (vcpu < 1 || vcpu >= k->n_vcpus) {
		return gclk_fail(reterr, GCLK_RANGE, "vcpu", GCLK_NO_OFFSET,
				 "%" PRIu32 " is not within 1..%" PRIu32, vcpu, k->n_vcpus - 1);
	}
	if ((r = gclk_kvm_probe(k, reterr)) < 0 || (r = gclk_kvm_khz(k, 0, &khz, reterr)) < 0 ||
	    (r = gclk_kvm_khz(k, vcpu, &own_khz, reterr)) < 0) {
		return r;
	}
	if (own_khz != khz &&
	    gclk_sys_ioctl_value(k, k->vcpus[vcpu], KVM_SET_TSC_KHZ, khz) < 0) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "tsc.frequency_hz", GCLK_NO_OFFSET,
				 "vCPU %" PRIu32 " cannot have vCPU 0's %" PRIu32 " kHz", vcpu, khz);
	}
	r = k->own.has_offset ? put_in_step(k, vcpu, reterr) : put_in_step_by_msr(k, vcpu, reterr);
	if (r < 0 || (r = gclk_kvm_read_tsc(k, 0, TSC_TRIES, &a, reterr)) < 0 ||
	    (r = gclk_kvm_read_tsc(k, vcpu, TSC_TRIES, &b, reterr)) < 0) {
		return r;
	}
	/* b was read after a: by the host's time between them, or not in step */
	if (b.value - a.value > 2 * (b.after - a.before) + SLACK_TICKS) {
		return gclk_fail(reterr, GCLK_UNPROVEN, "tsc.value_ticks", GCLK_NO_OFFSET,
				 "vCPU %" PRIu32 "'s TSC is not in step with vCPU 0's", vcpu);
	}
	return 0;
}
