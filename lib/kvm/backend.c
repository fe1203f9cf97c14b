/* SPDX-License-Identifier: MIT */
/*
 * Readings: the host's clocks at one instant, a vCPU's TSC between two readings of the
 * host's, what the kernel can do.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/time.h"
#include "core/util.h"

GCLK_API int64_t gclk_kvm_axis_now(const struct gclk_kvm *k)
{
	int64_t ns = 0;

	gclk_sys_clock(k, CLOCK_MONOTONIC, &ns);	/* cannot fail where Linux runs */
	return gclk_add_sat(ns, k->axis_ns);
}

/* The TSC before, between and after the two clocks. */
struct reading {
	uint64_t ticks[3];
	int64_t mono_ns, real_ns;
};

static int read_all(const struct gclk_kvm *k, struct reading *ret)
{
	int failed;

	ret->ticks[0] = gclk_sys_tsc(k);
	failed = gclk_sys_clock(k, CLOCK_MONOTONIC, &ret->mono_ns);
	ret->ticks[1] = gclk_sys_tsc(k);
	failed |= gclk_sys_clock(k, CLOCK_REALTIME, &ret->real_ns);
	ret->ticks[2] = gclk_sys_tsc(k);
	return failed;
}

static uint64_t whole(const struct reading *r)
{
	return r->ticks[2] - r->ticks[0];
}

/* Half of what a reading took; a clock of 1 ns may be off by that too. */
static uint64_t half_ns(struct gclk_rate rate, uint64_t from, uint64_t to)
{
	return 2 + (uint64_t)gclk_kvm_span_ns(rate, from, to) / 2;
}

int gclk_kvm_sample(const struct gclk_kvm *k, struct gclk_rate rate, unsigned tries,
		    struct gclk_kvm_anchor *ret, struct gclk_error *reterr)
{
	struct reading best = { .ticks = { 0 } }, r;

	for (unsigned i = 0; i < tries; i++) {
		if (read_all(k, &r) < 0) {
			return gclk_fail(reterr, GCLK_SYS, "host sample", GCLK_NO_OFFSET,
					 "the clocks of this host cannot be read");
		}
		if (i == 0 || whole(&r) < whole(&best)) {
			best = r;
		}
	}
	/* middles: what a reading on one side is off by would add up over moves */
	ret->ticks = best.ticks[1] + (best.ticks[2] - best.ticks[1]) / 2;
	ret->real_ns = best.real_ns;
	ret->mono_ns = best.mono_ns + gclk_kvm_span_ns(rate, 0, whole(&best) / 2);
	ret->mono_width_ns = half_ns(rate, best.ticks[0], best.ticks[1]);
	ret->real_width_ns = half_ns(rate, best.ticks[1], best.ticks[2]);
	return 0;
}

static int has_attribute(const struct gclk_kvm *k, uint64_t attribute)
{
	const struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = attribute };

	return gclk_sys_ioctl(k, k->vcpus[0], KVM_HAS_DEVICE_ATTR, &attr) == 0;
}

static int32_t capability(const struct gclk_kvm *k, unsigned long number)
{
	int value = gclk_sys_ioctl_value(k, k->vm, KVM_CHECK_EXTENSION, number);

	return value < 0 ? 0 : value;
}

int gclk_kvm_probe(struct gclk_kvm *k, struct gclk_error *reterr)
{
	if (k->own.probed) {
		return 0;
	}
	if (k->n_vcpus < 1 || k->n_vcpus > GCLK_VCPUS_MAX || !k->vcpus) {
		return gclk_fail(reterr, GCLK_STATE, "vcpus", GCLK_NO_OFFSET,
				 "%" PRIu32 " vCPUs: none to look at", k->n_vcpus);
	}
	k->own.cap_clock = capability(k, KVM_CAP_ADJUST_CLOCK);
	k->own.scales = capability(k, KVM_CAP_TSC_CONTROL) > 0;
	k->own.has_offset = (uint8_t)has_attribute(k, KVM_VCPU_TSC_OFFSET);
	k->own.has_scale = (uint8_t)has_attribute(k, KVM_VCPU_TSC_SCALE);
	k->own.probed = 1;
	return 0;
}

uint32_t gclk_kvm_host_khz(const struct gclk_host *host)
{
	uint64_t den = host->tsc_hz_den ? host->tsc_hz_den : 1;

	if (GCLK_HAS(host, host, tsc_khz_kernel)) {
		return host->tsc_khz_kernel;
	}
	return (uint32_t)gclk_muldiv_floor_sat(host->tsc_hz, 1, den * 1000);
}

struct gclk_rate gclk_kvm_host_rate(const struct gclk_host *host)
{
	struct gclk_rate rate = { host->tsc_hz, host->tsc_hz_den ? host->tsc_hz_den : 1 };

	return GCLK_HAS(host, host, tsc_khz_kernel) ? gclk_rate_of_khz(host->tsc_khz_kernel) :
						      rate;
}

/* More than a clock is ever steered by, and a millisecond. */
static int went_alike(int64_t mono_ns, int64_t tsc_ns)
{
	int64_t apart = mono_ns - tsc_ns, allowed = mono_ns / 1000 + GCLK_NS_PER_MS;

	return apart <= allowed && -apart <= allowed;
}

int gclk_kvm_same_boot(const struct gclk_state *st, const struct gclk_host *source,
		       const struct gclk_host *host, const struct gclk_kvm_anchor *at,
		       int64_t *ret_gap_ns)
{
	const struct gclk_virtual_clock *axis = &st->virtual_clock;
	int64_t gap;

	if (!source || !GCLK_HAS(host, source, boot_id) || !GCLK_HAS(host, host, boot_id) ||
	    strcmp(source->boot_id, host->boot_id) ||
	    !GCLK_HAS(kvmclock, &st->kvmclock, host_ticks) ||
	    !GCLK_HAS(virtual_clock, axis, host_monotonic_ns) ||
	    at->ticks <= st->kvmclock.host_ticks) {
		return 0;
	}
	gap = gclk_sub_sat(at->mono_ns, axis->host_monotonic_ns);
	if (gap < 0 || !went_alike(gap, gclk_kvm_span_ns(gclk_kvm_host_rate(host),
							 st->kvmclock.host_ticks, at->ticks))) {
		return 0;
	}
	*ret_gap_ns = gap;
	return 1;
}

int64_t gclk_kvm_span_ns(struct gclk_rate rate, uint64_t from_ticks, uint64_t to_ticks)
{
	int64_t ns = 0;

	gclk_ns_from_ticks_floor_i64(rate, (int64_t)(to_ticks - from_ticks), &ns);
	return ns;
}

static const char *vcpu_name(char name[32], uint32_t i, const char *field)
{
	snprintf(name, 32, "tsc[%" PRIu32 "].%s", i, field);
	return name;
}

int gclk_kvm_khz(const struct gclk_kvm *k, uint32_t vcpu, uint32_t *ret_khz,
		 struct gclk_error *reterr)
{
	int khz = gclk_sys_ioctl_value(k, k->vcpus[vcpu], KVM_GET_TSC_KHZ, 0);
	char name[32];

	if (khz <= 0) {
		return gclk_fail(reterr, GCLK_SYS, vcpu_name(name, vcpu, "frequency_hz"),
				 GCLK_NO_OFFSET, "KVM_GET_TSC_KHZ returned %d", khz);
	}
	*ret_khz = (uint32_t)khz;
	return 0;
}

int gclk_kvm_is_unscaled(const struct gclk_host *host, uint32_t khz)
{
	uint32_t ppm = GCLK_HAS(host, host, tsc_tolerance_ppm) ? host->tsc_tolerance_ppm :
								 GCLK_TSC_TOLERANCE_PPM;

	return gclk_tsc_is_tolerated_khz(khz, gclk_kvm_host_khz(host), ppm);
}

/* The kernel's own answer; a number of bits that no processor has is none. */
static int ratio_from_kernel(const struct gclk_kvm *k, uint32_t vcpu,
			     struct gclk_tsc_scaling *ret)
{
	struct gclk_kvm_tsc_scale scale = { 0 };
	const struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_SCALE,
		.addr = (uint64_t)(uintptr_t)&scale,
	};

	if (!k->own.has_scale ||
	    gclk_sys_ioctl(k, k->vcpus[vcpu], KVM_GET_DEVICE_ATTR, &attr) < 0 || !scale.ratio ||
	    (scale.frac_bits != GCLK_TSC_FRAC_INTEL && scale.frac_bits != GCLK_TSC_FRAC_AMD)) {
		return 0;
	}
	ret->ratio = scale.ratio;
	ret->frac_bits = (unsigned)scale.frac_bits;
	return 1;
}

int gclk_kvm_ratio(const struct gclk_kvm *k, const struct gclk_host *host, uint32_t vcpu,
		   uint32_t khz, struct gclk_tsc_scaling *ret, struct gclk_error *reterr)
{
	char name[32];

	*ret = (struct gclk_tsc_scaling){ gclk_tsc_ratio_one(GCLK_TSC_FRAC_INTEL),
					  GCLK_TSC_FRAC_INTEL, 0 };
	if (ratio_from_kernel(k, vcpu, ret) || !k->own.scales || gclk_kvm_is_unscaled(host, khz)) {
		return 0;
	}
	if (!GCLK_HAS(host, host, tsc_ratio_frac_bits) ||
	    gclk_tsc_ratio_floor(host->tsc_ratio_frac_bits, khz, gclk_kvm_host_khz(host),
				 &ret->ratio) < 0) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, vcpu_name(name, vcpu, "ratio"),
				 GCLK_NO_OFFSET,
				 "how %" PRIu32 " kHz is made of the host's %" PRIu32
				 " kHz is not known", khz, gclk_kvm_host_khz(host));
	}
	ret->frac_bits = host->tsc_ratio_frac_bits;
	return 0;
}

/* @at is read or written, by KVM_GET_DEVICE_ATTR or KVM_SET_DEVICE_ATTR. */
static int offset_attribute(const struct gclk_kvm *k, uint32_t vcpu, unsigned long request,
			    uint64_t *at, struct gclk_error *reterr)
{
	const struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uint64_t)(uintptr_t)at,
	};
	char name[32];

	if (gclk_sys_ioctl(k, k->vcpus[vcpu], request, &attr) < 0) {
		return gclk_fail(reterr, GCLK_SYS, vcpu_name(name, vcpu, "offset_ticks"),
				 GCLK_NO_OFFSET, "KVM_%s_DEVICE_ATTR TSC_OFFSET: %s",
				 request == KVM_GET_DEVICE_ATTR ? "GET" : "SET", strerror(errno));
	}
	return 0;
}

int gclk_kvm_get_offset(const struct gclk_kvm *k, uint32_t vcpu, uint64_t *ret,
			struct gclk_error *reterr)
{
	*ret = 0;
	return offset_attribute(k, vcpu, KVM_GET_DEVICE_ATTR, ret, reterr);
}

int gclk_kvm_set_offset(const struct gclk_kvm *k, uint32_t vcpu, uint64_t offset,
			struct gclk_error *reterr)
{
	return offset_attribute(k, vcpu, KVM_SET_DEVICE_ATTR, &offset, reterr);
}

int gclk_kvm_read_tsc(const struct gclk_kvm *k, uint32_t vcpu, unsigned tries,
		      struct gclk_kvm_bracket *ret, struct gclk_error *reterr)
{
	struct gclk_kvm_bracket b;
	char name[32];
	struct gclk_kvm_one_msr msr = { .nmsrs = 1, .entry.index = MSR_TSC };

	for (unsigned i = 0; i < tries; i++) {
		b.before = gclk_sys_tsc(k);
		if (gclk_sys_ioctl(k, k->vcpus[vcpu], KVM_GET_MSRS, &msr) != 1) {
			return gclk_fail(reterr, GCLK_SYS, vcpu_name(name, vcpu, "value_ticks"),
					 GCLK_NO_OFFSET, "KVM_GET_MSRS 0x10: %s",
					 strerror(errno));
		}
		b.after = gclk_sys_tsc(k);
		b.value = msr.entry.data;
		if (i == 0 || b.after - b.before < ret->after - ret->before) {
			*ret = b;
		}
	}
	return 0;
}

int64_t gclk_kvm_tsc_error(const struct gclk_tsc_scaling *scaling,
			   const struct gclk_kvm_bracket *bracket)
{
	int64_t below = (int64_t)(bracket->value - gclk_tsc_guest_at(scaling, bracket->before));
	int64_t above = (int64_t)(bracket->value - gclk_tsc_guest_at(scaling, bracket->after));

	return below < 0 ? below : above > 0 ? above : 0;
}

int gclk_kvm_get_clock(const struct gclk_kvm *k, struct kvm_clock_data *ret,
		       struct gclk_kvm_bracket *ret_bracket, struct gclk_error *reterr)
{
	memset(ret, 0, sizeof(*ret));
	ret_bracket->before = gclk_sys_tsc(k);
	if (gclk_sys_ioctl(k, k->vm, KVM_GET_CLOCK, ret) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "kvmclock.clock_ns", GCLK_NO_OFFSET,
				 "KVM_GET_CLOCK: %s", strerror(errno));
	}
	ret_bracket->after = gclk_sys_tsc(k);
	ret_bracket->value = ret->clock;
	return 0;
}
