/* SPDX-License-Identifier: MIT */
/* The pages in guest memory through which the guest reads its time. */
#include <string.h>

#include "core/pvclock.h"
#include "core/util.h"
#include "kvm/backend.h"

#define STEAL_BYTES 8		/* struct kvm_steal_time begins with the counter */

static int read_memory(const struct gclk_kvm *k, uint64_t address, void *bytes, uint32_t size)
{
	return k->memory ? k->memory(k->memory_context, address, bytes, size, 0) : -1;
}

static void capture_pvclock(const struct gclk_kvm *k, struct gclk_vcpu *vcpu)
{
	uint64_t msr = GCLK_HAS(vcpu, vcpu, system_time_msr) ? vcpu->system_time_msr :
							       vcpu->system_time_old_msr;
	uint8_t bytes[GCLK_PVCLOCK_BYTES];
	struct gclk_pvclock page;

	if (!(msr & 1) || read_memory(k, msr & ~UINT64_C(1), bytes, sizeof(bytes)) < 0 ||
	    gclk_pvclock_parse(bytes, &page, NULL) < 0) {
		return;
	}
	GCLK_SET(vcpu, vcpu, pvclock_tsc_ticks, page.tsc_timestamp);
	GCLK_SET(vcpu, vcpu, pvclock_system_ns, page.system_time_ns);
	GCLK_SET(vcpu, vcpu, pvclock_mul, page.scale.mul);
	GCLK_SET(vcpu, vcpu, pvclock_shift, page.scale.shift);
	GCLK_SET(vcpu, vcpu, pvclock_flags, page.flags);
}

static void capture_steal(const struct gclk_kvm *k, struct gclk_vcpu *vcpu)
{
	uint64_t ns;

	if ((vcpu->steal_time_msr & 1) &&
	    read_memory(k, vcpu->steal_time_msr & ~UINT64_C(0x3f), &ns, STEAL_BYTES) == 0) {
		GCLK_SET(vcpu, vcpu, steal_ns, ns);
	}
}

void gclk_kvm_capture_pages(const struct gclk_kvm *k, struct gclk_vcpu *vcpu)
{
	capture_pvclock(k, vcpu);
	capture_steal(k, vcpu);
}
