/* SPDX-License-Identifier: MIT */
/*
 * KVM's interface, with what is newer than the headers that we build with at least (6.1).
 * Whether the running kernel has any of it is asked at run time.
 */
#ifndef GCLK_KVM_ABI_H
#define GCLK_KVM_ABI_H

#include <stdint.h>

#include <linux/kvm.h>

#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

/* Proposed beside KVM_VCPU_TSC_OFFSET: read-only, absent where the host does not scale. */
#ifndef KVM_VCPU_TSC_SCALE
#define KVM_VCPU_TSC_SCALE 1
#endif

struct gclk_kvm_tsc_scale {
	uint64_t ratio;
	uint64_t frac_bits;
};

/* Flags of KVM_GET_CLOCK, and values of KVM_CAP_ADJUST_CLOCK. */
#define CLOCK_HAS_REALTIME 4u
#define CLOCK_HAS_HOST_TSC 8u
#define CLOCK_IS_STABLE 2u

/* Offsets in the LAPIC's page. */
#define APIC_SPIV 0xf0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_LVTT 0x320
#define APIC_TMICT 0x380
#define APIC_TMCCT 0x390
#define APIC_TDCR 0x3e0

#define LVTT_VECTOR 0xffu
#define LVTT_MASKED 0x10000u
#define LVTT_PERIODIC 0x20000u
#define LVTT_DEADLINE 0x40000u

#define MSR_TSC 0x10u

/* struct kvm_msrs with room for one. */
struct gclk_kvm_one_msr {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry;
};

#endif
