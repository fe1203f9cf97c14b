/* SPDX-License-Identifier: MIT */
/*
 * Capture: every clock of the guest, at one instant of the host.
 *
 *	1 LAPIC pages		first: the shortest time in which an expiry can be missed
 *	2 KVM_GET_CLOCK		its pair (host TSC, CLOCK_REALTIME) is the instant; where the
 *				kernel does not tell it, a bracket around the call
 *	3 offsets, MSRs		the TSC of each vCPU is computed for that instant, and held
 *				against MSR 0x10, which is what the guest would read
 *	4 PIT, pages, devices
 *	5 the wall clock once more: whether it was set meanwhile
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/pvclock.h"
#include "core/time.h"
#include "core/util.h"
#include "devices/state.h"
#include "kvm/backend.h"

#define SAMPLES 3
#define STEP_SAMPLES 9		/* what it can tell is as fine as the narrowest */
#define CLOCK_TRIES 5
#define TSC_TRIES 9
#define TSC_SLACK_TICKS 1000	/* an offset that is ignored is off by far more */
/*
 * A guest's page and KVM_GET_CLOCK part by what the kernel's arithmetic rounds (0.5 ppm
 * where it scales) since the page was written; beyond this the page is not this clock's.
 */
#define PAGE_APART_NS (20 * GCLK_NS_PER_MS)

static int check(struct gclk_kvm *k, const struct gclk_host *host, struct gclk_state *st,
		 struct gclk_error *reterr)
{
	if (k->n_vcpus < 1 || k->n_vcpus > gclk_state_capacity(st)) {
		return gclk_fail(reterr, GCLK_RANGE, "n_vcpus", GCLK_NO_OFFSET,
				 "%" PRIu32 " vCPUs do not fit a state made for %" PRIu32,
				 k->n_vcpus, gclk_state_capacity(st));
	}
	if (!gclk_rate_is_valid(gclk_kvm_host_rate(host))) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "host.tsc_hz", GCLK_NO_OFFSET,
				 "the frequency of this host's TSC is not known");
	}
	return gclk_kvm_probe(k, reterr);
}

static void set_clock(struct gclk_kvmclock *to, const struct kvm_clock_data *clock,
		      uint64_t clock_ns, const struct gclk_kvm_anchor *at)
{
	GCLK_SET(kvmclock, to, clock_ns, clock_ns);
	GCLK_SET(kvmclock, to, read_after_stop_ns, 0);	/* all clocks are of one instant */
	GCLK_SET(kvmclock, to, reliable, 1);
	GCLK_SET(kvmclock, to, flags, clock->flags);
	GCLK_SET(kvmclock, to, realtime_ns, (uint64_t)at->real_ns);
	GCLK_SET(kvmclock, to, host_ticks, at->ticks);
}

/* The kernel tells the instant: it becomes the capture's. */
static void move_anchor(struct gclk_kvm_anchor *at, const struct kvm_clock_data *clock,
			struct gclk_rate rate)
{
	at->mono_ns += gclk_kvm_span_ns(rate, at->ticks, clock->host_tsc);
	at->real_ns = (int64_t)clock->realtime;
	at->ticks = clock->host_tsc;
}

/* The kernel does not: the clock is moved to the sample's instant, from mid-bracket. */
static uint64_t clock_at(const struct gclk_kvm_anchor *at, const struct gclk_kvm_bracket *b,
			 struct gclk_rate rate)
{
	uint64_t middle = b->before + (b->after - b->before) / 2;
	int64_t ns = gclk_kvm_span_ns(rate, middle, at->ticks);

	return ns < 0 && (uint64_t)-ns > b->value ? 0 : b->value + (uint64_t)ns;
}

static int capture_clock(const struct gclk_kvm *k, const struct gclk_host *host,
			 struct gclk_state *st, struct gclk_kvm_anchor *at,
			 struct gclk_error *reterr)
{
	struct gclk_rate rate = gclk_kvm_host_rate(host);
	struct kvm_clock_data clock;
	struct gclk_kvm_bracket b, best = { 0 };
	int r = gclk_kvm_sample(k, rate, SAMPLES, at, reterr);

	for (unsigned i = 0; r == 0 && i < CLOCK_TRIES; i++) {
		r = gclk_kvm_get_clock(k, &clock, &b, reterr);
		if (r == 0 && gclk_kvm_clock_is_paired(&clock)) {
			move_anchor(at, &clock, rate);
			set_clock(&st->kvmclock, &clock, clock.clock, at);
			return 0;
		}
		if (i == 0 || b.after - b.before < best.after - best.before) {
			best = b;
		}
	}
	if (r == 0) {
		set_clock(&st->kvmclock, &clock, clock_at(at, &best, rate), at);
	}
	return r;
}

/* Whether vCPU 0's TSC is also what this vCPU reads; then they are in step. */
static int is_in_step(const struct gclk_tsc_scaling *first, const struct gclk_kvm_bracket *b)
{
	return first->ratio && gclk_kvm_tsc_error(first, b) == 0;
}

/*
 * The offset, by the attribute where there is one and it is what the guest reads; else
 * from MSR 0x10. Brackets of several vCPUs differ by their width although the vCPUs are
 * in step: one that vCPU 0's offset explains is given vCPU 0's.
 */
static int find_offset(const struct gclk_kvm *k, uint32_t i, struct gclk_tsc_scaling *scaling,
		       const struct gclk_tsc_scaling *first, struct gclk_error *reterr)
{
	struct gclk_kvm_bracket b = { 0 };
	int64_t error;
	int r;

	if (k->own.has_offset &&
	    (r = gclk_kvm_get_offset(k, i, &scaling->offset, reterr)) < 0) {
		return r;
	}
	r = gclk_kvm_read_tsc(k, i, k->own.has_offset ? 1 : TSC_TRIES, &b, reterr);
	if (r < 0) {
		return r;
	}
	error = gclk_kvm_tsc_error(scaling, &b);
	if (k->own.has_offset && error >= -TSC_SLACK_TICKS && error <= TSC_SLACK_TICKS) {
		return 0;
	}
	if (i > 0 && first->ratio == scaling->ratio && is_in_step(first, &b)) {
		*scaling = *first;
		return 0;
	}
	scaling->offset = gclk_tsc_offset_for(b.value, b.before + (b.after - b.before) / 2,
					      scaling->ratio, scaling->frac_bits);
	return 0;
}

/* What the counter really makes in a second, as far as the host's own rate is known. */
static void set_measured(struct gclk_tsc *tsc, const struct gclk_host *host,
			 const struct gclk_tsc_scaling *scaling)
{
	struct gclk_rate rate = { host->tsc_hz, host->tsc_hz_den ? host->tsc_hz_den : 1 };
	struct gclk_rate scaled;

	if (GCLK_HAS(host, host, tsc_hz_ppb) && gclk_rate_is_valid(rate) &&
	    gclk_tsc_rate_scaled_floor(rate, scaling->ratio, scaling->frac_bits, &scaled) == 0) {
		GCLK_SET(tsc, tsc, measured_hz, gclk_rate_hz_round(scaled));
		GCLK_SET(tsc, tsc, measured_ppb, host->tsc_hz_ppb);
	}
}

static int capture_tsc(const struct gclk_kvm *k, const struct gclk_host *host, uint32_t i,
		       const struct gclk_kvm_anchor *at, struct gclk_tsc_scaling *first,
		       struct gclk_tsc *tsc, struct gclk_error *reterr)
{
	struct gclk_tsc_scaling scaling;
	uint32_t khz = 0;
	int r;

	if ((r = gclk_kvm_khz(k, i, &khz, reterr)) < 0 ||
	    (r = gclk_kvm_ratio(k, host, i, khz, &scaling, reterr)) < 0 ||
	    (r = find_offset(k, i, &scaling, first, reterr)) < 0) {
		return r;
	}
	if (i == 0) {
		*first = scaling;
	}
	GCLK_SET(tsc, tsc, vcpu, i);
	GCLK_SET(tsc, tsc, value_ticks, gclk_tsc_guest_at(&scaling, at->ticks));
	GCLK_SET(tsc, tsc, frequency_hz, (uint64_t)khz * 1000);
	GCLK_SET(tsc, tsc, offset_ticks, (int64_t)scaling.offset);
	GCLK_SET(tsc, tsc, ratio, scaling.ratio);
	GCLK_SET(tsc, tsc, ratio_frac_bits, (uint8_t)scaling.frac_bits);
	GCLK_SET(tsc, tsc, host_ticks, at->ticks);
	set_measured(tsc, host, &scaling);
	if (k->stops && k->stops[i].known) {
		GCLK_SET(tsc, tsc, last_run_ns, k->stops[i].at_ns);
	}
	return 0;
}

static int capture_vcpus(struct gclk_kvm *k, const struct gclk_host *host,
			 struct gclk_state *st, const struct gclk_kvm_anchor *at,
			 struct gclk_error *reterr)
{
	struct gclk_tsc_scaling first = { 0 };
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < k->n_vcpus; i++) {
		r = capture_tsc(k, host, i, at, &first, &st->tsc[i], reterr);
		r = r ? r : gclk_kvm_read_msrs(k, i, &st->tsc[i], &st->vcpu[i], reterr);
		GCLK_SET(vcpu, &st->vcpu[i], vcpu, i);
		gclk_kvm_capture_pages(k, &st->vcpu[i]);
	}
	return r;
}

/*
 * What the guest itself would read: its own page at its TSC. KVM_GET_CLOCK is computed in
 * another way and differs, by 1 or 2 ns, or by 0.5 ppm since the page was written where
 * the TSC is scaled. Pages that are not stable are each vCPU's own, and no one clock.
 */
static void believe_page(struct gclk_state *st)
{
	const struct gclk_vcpu *vcpu = &st->vcpu[0];
	const struct gclk_pvclock page = {
		.tsc_timestamp = vcpu->pvclock_tsc_ticks,
		.system_time_ns = vcpu->pvclock_system_ns,
		.scale = { vcpu->pvclock_mul, (int8_t)vcpu->pvclock_shift },
	};
	int64_t apart;
	uint64_t ns;

	if (!(vcpu->pvclock_flags & GCLK_PVCLOCK_TSC_STABLE) ||
	    gclk_pvclock_ns_at(&page, st->tsc[0].value_ticks, &ns) < 0) {
		return;
	}
	apart = (int64_t)(ns - st->kvmclock.clock_ns);
	if (apart >= -PAGE_APART_NS && apart <= PAGE_APART_NS) {
		st->kvmclock.clock_ns = ns;
	}
}

static void capture_axis(const struct gclk_kvm *k, struct gclk_state *st,
			 const struct gclk_kvm_anchor *at)
{
	GCLK_SET(virtual_clock, &st->virtual_clock, clock_ns,
		 gclk_add_sat(at->mono_ns, k->axis_ns));
	GCLK_SET(virtual_clock, &st->virtual_clock, host_monotonic_ns, at->mono_ns);
	if (k->apic_bus_ns) {
		GCLK_SET(virtual_clock, &st->virtual_clock, apic_bus_ns, k->apic_bus_ns);
	}
	GCLK_SET(guest, &st->guest, accelerator, GCLK_ACCEL_KVM);
	GCLK_SET(guest, &st->guest, run_state, GCLK_RUN_RUNNING);
}

/*
 * As they are: each describes itself from its last change on, so an edge that the VMM has
 * not worked off yet is still in it.
 */
static void capture_devices(const struct gclk_kvm *k, struct gclk_state *st)
{
	if (k->rtc) {
		st->rtc = *k->rtc;
	}
	if (k->hpet) {
		st->hpet = *k->hpet;
	}
	if (k->pm_timer) {
		st->pm_timer = *k->pm_timer;
	}
}

/*
 * A wall clock that was set amid the capture would leave an instant that nobody can place:
 * whoever asks from now on asks the clock that was set. A step is what CLOCK_REALTIME gained on
 * CLOCK_MONOTONIC, beyond what the readings took; both are slewed alike.
 */
static int follow_wall_clock(const struct gclk_kvm *k, const struct gclk_host *host,
			     struct gclk_kvmclock *clock, const struct gclk_kvm_anchor *at,
			     struct gclk_error *reterr)
{
	struct gclk_kvm_anchor now;
	int r = gclk_kvm_sample(k, gclk_kvm_host_rate(host), STEP_SAMPLES, &now, reterr);
	int64_t step, width;

	if (r == 0) {
		step = gclk_sub_sat(gclk_sub_sat(now.real_ns, now.mono_ns),
				    gclk_sub_sat(at->real_ns, at->mono_ns));
		width = (int64_t)(at->mono_width_ns + at->real_width_ns + now.mono_width_ns +
				  now.real_width_ns);
		if (step > width || step < -width) {
			clock->realtime_ns += (uint64_t)step;
			clock->flags &= ~(uint32_t)CLOCK_HAS_REALTIME;	/* it is ours now */
		}
	}
	return r;
}

GCLK_API int gclk_kvm_capture(struct gclk_kvm *k, const struct gclk_host *host,
			      struct gclk_state *st, struct gclk_error *reterr)
{
	struct gclk_kvm_anchor at = { 0 };
	int r = check(k, host, st, reterr);

	if (r < 0) {
		return r;
	}
	gclk_state_clear(st);
	st->n_vcpus = k->n_vcpus;
	for (uint32_t i = 0; r == 0 && k->irqchip && i < k->n_vcpus; i++) {
		r = gclk_kvm_capture_lapic(k, i, &st->lapic[i], reterr);
	}
	if (r < 0 || (r = capture_clock(k, host, st, &at, reterr)) < 0 ||
	    (r = capture_vcpus(k, host, st, &at, reterr)) < 0 ||
	    (k->pit && (r = gclk_kvm_capture_pit(k, &st->pit, reterr)) < 0)) {
		return r;
	}
	if ((r = follow_wall_clock(k, host, &st->kvmclock, &at, reterr)) < 0) {
		return r;
	}
	believe_page(st);
	capture_axis(k, st, &at);
	capture_devices(k, st);
	return gclk_state_validate(st, reterr);
}

/* How far the instant of an unpaired reading may lie from the clock: the widest ioctl. */
#define UNPAIRED_NS 60000
#define PAIRED_NS 2		/* two clocks, each rounded down to 1 ns */

GCLK_API void gclk_kvm_when(const struct gclk_state *st, const struct gclk_host *source,
			    const struct gclk_host *host, struct gclk_when *ret_when)
{
	const struct gclk_kvmclock *clock = &st->kvmclock;
	const struct gclk_kvm_anchor at = { .ticks = host->tsc_ticks,
					    .mono_ns = host->monotonic_ns };
	uint32_t paired = CLOCK_HAS_REALTIME | CLOCK_HAS_HOST_TSC;

	memset(ret_when, 0, sizeof(*ret_when));
	ret_when->captured.ns = (int64_t)clock->realtime_ns;
	ret_when->captured.uncertainty_ns = !GCLK_HAS(kvmclock, clock, realtime_ns) ?
						    GCLK_UNBOUNDED :
					    (clock->flags & paired) == paired ? PAIRED_NS :
										UNPAIRED_NS;
	ret_when->captured_tai_s = source ? source->tai_offset_s : 0;
	ret_when->run.ns = host->realtime_ns;
	ret_when->run.uncertainty_ns = host->sample_width_ns;
	ret_when->elapsed_given = (uint8_t)gclk_kvm_same_boot(st, source, host, &at,
							      &ret_when->elapsed_ns);
	ret_when->load = ret_when->run;
	ret_when->run_tai_s = host->tai_offset_s;
}
