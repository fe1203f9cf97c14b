/* SPDX-License-Identifier: MIT */
/* What must be settled before there are vCPUs: the bus clock's period, the VM's frequency. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/util.h"
#include "kvm/restore.h"

uint32_t gclk_kvm_wanted_khz(const struct gclk_tsc *tsc)
{
	uint64_t den = tsc->frequency_den ? tsc->frequency_den : 1, khz = 0;

	if (GCLK_HAS(tsc, tsc, frequency_hz)) {
		gclk_muldiv_round(tsc->frequency_hz, 1, den * 1000, &khz);
	}
	return khz > UINT32_MAX ? 0 : (uint32_t)khz;
}

static int prepare_bus(struct gclk_kvm *k, const struct gclk_virtual_clock *axis,
		       struct gclk_error *reterr)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_APIC_BUS_CYCLES_NS };
	uint32_t ns = GCLK_HAS(virtual_clock, axis, apic_bus_ns) ? axis->apic_bus_ns : 1;

	if (ns == (k->apic_bus_ns ? k->apic_bus_ns : 1)) {
		return 0;
	}
	if (gclk_sys_ioctl_value(k, k->vm, KVM_CHECK_EXTENSION,
				 KVM_CAP_X86_APIC_BUS_CYCLES_NS) <= 0) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "virtual_clock.apic_bus_ns",
				 GCLK_NO_OFFSET, "this kernel's APIC bus period is 1 ns, not %"
				 PRIu32, ns);
	}
	cap.args[0] = ns;
	if (gclk_sys_ioctl(k, k->vm, KVM_ENABLE_CAP, &cap) < 0) {
		return gclk_fail(reterr, errno == EINVAL ? GCLK_STATE : GCLK_SYS,
				 "virtual_clock.apic_bus_ns", GCLK_NO_OFFSET,
				 "the APIC bus period cannot be set (%s): it must be before the "
				 "first vCPU, after the interrupt controller", strerror(errno));
	}
	k->apic_bus_ns = ns;
	return 0;
}

/*
 * The VM's frequency is set only where the kernel scales: elsewhere it would be taken, and
 * the TSCs stand at 0 for ever.
 */
static int prepare_khz(struct gclk_kvm *k, const struct gclk_state *st,
		       struct gclk_error *reterr)
{
	uint32_t khz = gclk_kvm_wanted_khz(&st->tsc[0]);
	int now = gclk_sys_ioctl_value(k, k->vm, KVM_GET_TSC_KHZ, 0);

	if (!khz || now == (int)khz ||
	    gclk_sys_ioctl_value(k, k->vm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TSC_CONTROL) <= 0) {
		return 0;	/* as it is, or by vCPU, in restore() */
	}
	if (gclk_sys_ioctl_value(k, k->vm, KVM_SET_TSC_KHZ, khz) < 0) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "tsc[0].frequency_hz", GCLK_NO_OFFSET,
				 "KVM_SET_TSC_KHZ refuses %" PRIu32 " kHz: %s", khz,
				 strerror(errno));
	}
	now = gclk_sys_ioctl_value(k, k->vm, KVM_GET_TSC_KHZ, 0);
	if (now != (int)khz) {
		return gclk_fail(reterr, GCLK_UNPROVEN, "tsc[0].frequency_hz", GCLK_NO_OFFSET,
				 "%" PRIu32 " kHz were set and the VM reads %d", khz, now);
	}
	return 0;
}

GCLK_API int gclk_kvm_prepare(struct gclk_kvm *k, const struct gclk_plan *plan,
			      struct gclk_error *reterr)
{
	int r;

	if (plan->findings.n_refusing) {
		return gclk_fail(reterr, GCLK_REFUSED, "plan", GCLK_NO_OFFSET,
				 "%u of its findings refuse", plan->findings.n_refusing);
	}
	if (plan->state->n_vcpus < 1 || !plan->when.run.ns) {
		return gclk_fail(reterr, GCLK_STATE, "plan", GCLK_NO_OFFSET,
				 "no plan was made: gclk_plan() comes first");
	}
	if ((r = prepare_bus(k, &plan->state->virtual_clock, reterr)) < 0 ||
	    (r = prepare_khz(k, plan->state, reterr)) < 0) {
		return r;
	}
	k->own.step = GCLK_KVM_PREPARED;
	return 0;
}
