/* SPDX-License-Identifier: MIT */
/*
 * Prepare and restore.
 *
 * One instant, that of a host sample (the anchor), is what the plan is made for. From it
 * every clock is set so that it reads what the plan says there and counts on, so it does
 * not matter how long the writing takes or when the vCPUs run. The order:
 *
 *	nothing touched	the plan; what it cannot know: MSRs, pages, frequencies (R6)
 *	1 frequencies	where VM-level ones could not be had; a new one makes the TSC jump
 *	2 TSC		of every vCPU, one after the other: the kernel keeps its master clock
 *			only when all offsets are written alike
 *	3 MSRs		adjust, paravirtual pages
 *	4 kvmclock	needs the master clock, hence after 2; read back, and the time that
 *			the kernel took until it looked at its clock taken out
 *	5 wall clock	the kernel writes realtime - kvmclock into guest memory: after 4
 *	6 devices	the axis; RTC, HPET, PM timer are the VMM's
 *	7 timers	start as they are written, so last: LAPIC pages, then deadlines (whose
 *			mode is in the page), PIT
 *	8 marks		GUEST_STOPPED, which the next run puts into the guest's pages
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/pvclock.h"
#include "core/time.h"
#include "core/util.h"
#include "kvm/backend.h"
#include "plan/move.h"

#define SAMPLES 16
#define CLOCK_TRIES 6
#define TSC_TRIES 5
#define TSC_SLACK_TICKS 1000
#define CONSISTENT_NS 1		/* TSC and kvmclock, as far as integers go */
#define NEAR_NS 200		/* an error that the kernel's latency explains */
#define CLOCK_APART_NS 100000	/* more is no latency: the clock was not set */
/* Old kernels replace a TSC within a second of what they expect: aim elsewhere first. */
#define FAR_SECONDS 10

enum step {
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

static const char *const step_names[N_STEPS] = {
	"TSC frequency", "TSC", "clock MSRs", "kvmclock", "wall clock MSR", "devices",
	"LAPIC timer", "deadline and synthetic timers", "PIT",
};

struct restore {
	struct gclk_kvm *k;
	const struct gclk_state *st;
	const struct gclk_policy *policy;
	struct gclk_plan *plan;
	struct gclk_host host;		/* with the anchor's sample */
	struct gclk_rate rate;
	struct gclk_kvm_anchor at;
	uint32_t done[N_STEPS];		/* how many vCPUs, or 1 */
	uint8_t same_boot;
	uint8_t not_honoured;		/* the TSC is not what was written, and that was forced */
	struct gclk_error *reterr;
};

/* To the nearest kHz, which is all that KVM takes; 0: the state does not tell. */
static uint32_t wanted_khz(const struct gclk_tsc *tsc)
{
	uint64_t den = tsc->frequency_den ? tsc->frequency_den : 1, khz = 0;

	if (GCLK_HAS(tsc, tsc, frequency_hz)) {
		gclk_muldiv_round(tsc->frequency_hz, 1, den * 1000, &khz);
	}
	return khz > UINT32_MAX ? 0 : (uint32_t)khz;
}

/*
 * Prepare
 */

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

/* Outside a scaling kernel the VM's frequency is never set: it would be taken, and freeze the TSC. */
static int prepare_khz(struct gclk_kvm *k, const struct gclk_state *st,
		       struct gclk_error *reterr)
{
	uint32_t khz = wanted_khz(&st->tsc[0]);
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

/*
 * Findings and bounds
 */

/* A finding that refuses, unless the policy's force names it. */
static int object(struct restore *r, const char *id, const char *clock, const char *text)
{
	gclk_findings_add(&r->plan->findings, id, clock, "%s", text);
	gclk_findings_force(&r->plan->findings, r->policy->force);
	return r->plan->findings.n_refusing ?
		       gclk_fail(r->reterr, GCLK_UNPROVEN, clock, GCLK_NO_OFFSET, "%s", text) : 0;
}

static void widen_bound(struct restore *r, const char *clock, uint64_t by_ns)
{
	for (uint32_t i = 0; i < r->plan->n_bounds; i++) {
		if (!strcmp(r->plan->bounds[i].clock, clock)) {
			r->plan->bounds[i].bound_ns =
				gclk_bound_add(r->plan->bounds[i].bound_ns, by_ns);
		}
	}
}

/* What had been changed when it failed: with anything, the VM is not what it was. */
static int say_what_was_done(struct restore *r)
{
	char text[320];
	size_t n = 0;
	int any = 0;

	for (unsigned i = 0; i < N_STEPS && n < sizeof(text) - 64; i++) {
		if (r->done[i]) {
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s (%" PRIu32 ")",
					      any ? ", " : "", step_names[i], r->done[i]);
			any = 1;
		}
	}
	if (any) {
		gclk_findings_add(&r->plan->findings, "restore-incomplete", "",
				  "changed, with how many of each: %s", text);
	}
	return any;
}

/*
 * Before anything is touched
 */

static int check_sequence(const struct gclk_kvm *k, const struct gclk_state *st,
			  struct gclk_error *reterr)
{
	if (k->own.step != GCLK_KVM_PREPARED) {
		return gclk_fail(reterr, GCLK_STATE, "restore", GCLK_NO_OFFSET,
				 "%s", k->own.step == GCLK_KVM_NEW ?
				 "prepare comes first, before the vCPUs are made" :
				 "this VM was restored already: prepare it again");
	}
	if (k->n_vcpus != st->n_vcpus) {
		return gclk_fail(reterr, GCLK_STATE, "n_vcpus", GCLK_NO_OFFSET,
				 "the VM has %" PRIu32 " vCPUs, the state %" PRIu32, k->n_vcpus,
				 st->n_vcpus);
	}
	return 0;
}

static int missing_device(struct restore *r, const char *name)
{
	return gclk_fail(r->reterr, GCLK_STATE, name, GCLK_NO_OFFSET,
			 "the state has one, and the VM was not said to");
}

static int check_devices(struct restore *r)
{
	const struct gclk_state *st = r->st;
	const struct gclk_kvm *k = r->k;

	if (st->rtc.has && !k->rtc) {
		return missing_device(r, "rtc");
	}
	if (st->hpet.has && !k->hpet) {
		return missing_device(r, "hpet");
	}
	if (st->pm_timer.has && !k->pm_timer) {
		return missing_device(r, "pm_timer");
	}
	if (st->pit.has && !k->pit) {
		return missing_device(r, "pit");
	}
	if (st->lapic[0].has && !k->irqchip) {
		return missing_device(r, "lapic");
	}
	return st->pit.has ? gclk_kvm_check_pit(&st->pit, r->reterr) : 0;
}

static int check_msrs(struct restore *r)
{
	struct gclk_tsc tsc = { 0 };
	struct gclk_vcpu vcpu = { 0 };
	const char *name;
	int e = gclk_kvm_read_msrs(r->k, 0, &tsc, &vcpu, r->reterr);

	if (e < 0) {
		return e;
	}
	name = gclk_kvm_unknown_msr(r->k, r->st);
	return !name ? 0 : gclk_fail(r->reterr, GCLK_UNSUPPORTED, name, GCLK_NO_OFFSET,
				     "the guest uses it, and this kernel does not know it");
}

/* A frequency that only catch-up can approach needs the operator's word. */
static int is_forced(const struct restore *r, const char *id)
{
	for (const char *const *force = r->policy->force; force && *force; force++) {
		if (!strcmp(*force, id)) {
			return 1;
		}
	}
	return 0;
}

static int check_khz(struct restore *r, uint32_t i)
{
	uint32_t khz = wanted_khz(&r->st->tsc[i]), now = 0;
	int e = gclk_kvm_khz(r->k, i, &now, r->reterr);

	if (e < 0 || !khz || now == khz || gclk_kvm_is_unscaled(&r->host, khz) ||
	    r->k->own.scales || is_forced(r, "tsc-rate-not-honoured")) {
		return e;
	}
	return gclk_fail(r->reterr, GCLK_UNSUPPORTED, "tsc.frequency_hz", GCLK_NO_OFFSET,
			 "vCPU %" PRIu32 " has %" PRIu32 " kHz, the guest needs %" PRIu32
			 ", and this kernel does not scale", i, now, khz);
}

static int check_all(struct restore *r)
{
	int e = check_devices(r);

	e = e ? e : check_msrs(r);
	for (uint32_t i = 0; e == 0 && i < r->st->n_vcpus; i++) {
		e = check_khz(r, i);
		if (e == 0 && r->st->lapic[i].has) {
			e = gclk_kvm_check_lapic_page(r->k, i, &r->st->lapic[i], r->reterr);
		}
	}
	return e;
}

/*
 * The plan for the instant of the anchor
 */

/* The same kernel has run since: its TSC tells the gap, and offsets hold as they are. */
static int is_same_boot(const struct restore *r)
{
	const struct gclk_host *source = r->k->source;

	return source && GCLK_HAS(host, source, boot_id) && GCLK_HAS(host, &r->host, boot_id) &&
	       !strcmp(source->boot_id, r->host.boot_id) &&
	       GCLK_HAS(kvmclock, &r->st->kvmclock, host_ticks) &&
	       r->at.ticks > r->st->kvmclock.host_ticks;
}

static struct gclk_rate true_rate(const struct gclk_host *host)
{
	struct gclk_rate rate = { host->tsc_hz, host->tsc_hz_den ? host->tsc_hz_den : 1 };

	return gclk_rate_is_valid(rate) ? rate : gclk_kvm_host_rate(host);
}

static void set_when(struct restore *r, struct gclk_when *when)
{
	int64_t since = gclk_sub_sat(r->at.real_ns, when->run.ns);

	if (when->elapsed_given) {
		when->elapsed_ns = gclk_add_sat(when->elapsed_ns, since);
	}
	if (r->k->source && !when->captured_tai_s) {
		when->captured_tai_s = r->k->source->tai_offset_s;
	}
	if (r->same_boot) {
		when->elapsed_given = 1;
		when->elapsed_ns = gclk_kvm_span_ns(true_rate(&r->host),
						    r->st->kvmclock.host_ticks, r->at.ticks);
	}
	when->run.ns = r->at.real_ns;
	when->run.uncertainty_ns = r->at.width_ns;
	when->load = when->run;
}

static int make_plan(struct restore *r, const struct gclk_disagreement *disagreement)
{
	struct gclk_when when = r->plan->when;
	int e = gclk_kvm_sample(r->k, SAMPLES, &r->at, r->reterr);

	if (e < 0) {
		return e;
	}
	GCLK_SET(host, &r->host, tsc_ticks, r->at.ticks);
	GCLK_SET(host, &r->host, realtime_ns, r->at.real_ns);
	GCLK_SET(host, &r->host, monotonic_ns, r->at.mono_ns);
	GCLK_SET(host, &r->host, sample_width_ns, r->at.width_ns);
	r->rate = gclk_kvm_host_rate(&r->host);
	if (!gclk_rate_is_valid(r->rate)) {
		return gclk_fail(r->reterr, GCLK_UNSUPPORTED, "host.tsc_hz", GCLK_NO_OFFSET,
				 "the frequency of this host's TSC is not known");
	}
	r->same_boot = (uint8_t)is_same_boot(r);
	set_when(r, &when);
	return gclk_plan(r->st, &gclk_kvm_carrier, &r->host, &when, disagreement, r->policy,
			 r->plan, r->reterr);
}

/* All that passed is counted, by the same TSC: its own line goes on. */
static int goes_on(const struct restore *r)
{
	return r->same_boot && r->plan->counted_ns == r->plan->gap_ns;
}

/*
 * 1 Frequencies
 */

static int set_khz(struct restore *r, uint32_t i)
{
	uint32_t khz = wanted_khz(&r->st->tsc[i]), now = 0;
	int fd = r->k->vcpus[i], e = gclk_kvm_khz(r->k, i, &now, r->reterr);
	char text[120];

	if (e < 0 || !khz || now == khz) {
		return e;
	}
	e = gclk_sys_ioctl_value(r->k, fd, KVM_SET_TSC_KHZ, khz);
	r->done[STEP_KHZ]++;
	if (e == 0) {
		e = gclk_kvm_khz(r->k, i, &now, r->reterr);
		if (e == 0 && now == khz) {
			return 0;
		}
	}
	/* what GET says after a refusal is void: back to the host's own */
	gclk_sys_ioctl_value(r->k, fd, KVM_SET_TSC_KHZ, 0);
	snprintf(text, sizeof(text), "vCPU %" PRIu32 " cannot have %" PRIu32 " kHz", i, khz);
	return object(r, "tsc-frequency-refused", "tsc", text);
}

static void say_catch_up(struct restore *r)
{
	uint32_t khz = wanted_khz(&r->st->tsc[0]);

	if (khz && !r->k->own.scales && !gclk_kvm_is_unscaled(&r->host, khz)) {
		gclk_findings_add(&r->plan->findings, "tsc-catches-up", "tsc",
				  "%" PRIu32 " kHz on a host of %" PRIu32 " kHz that does not scale",
				  khz, gclk_kvm_host_khz(&r->host));
		widen_bound(r, "tsc", GCLK_UNBOUNDED);
	}
}

/*
 * 2 TSC
 */

static struct gclk_tsc_scaling scaling_of(const struct gclk_tsc *tsc)
{
	return (struct gclk_tsc_scaling){ tsc->ratio, tsc->ratio_frac_bits,
					  (uint64_t)tsc->offset_ticks };
}

/* Offsets of the same boot and ratio are kept to the bit, and the plan's value follows. */
static int keeps_offset(const struct restore *r, uint32_t i,
			const struct gclk_tsc_scaling *scaling)
{
	const struct gclk_tsc *from = &r->st->tsc[i];

	return goes_on(r) && GCLK_HAS(tsc, from, offset_ticks) && from->ratio == scaling->ratio &&
	       from->ratio_frac_bits == scaling->frac_bits;
}

/* Which offset makes the plan's value at the anchor; noted in the plan's state. */
static int choose_offset(struct restore *r, uint32_t i)
{
	struct gclk_tsc *tsc = &r->plan->state->tsc[i];
	struct gclk_tsc_scaling scaling;
	uint32_t khz = 0;
	int e = gclk_kvm_khz(r->k, i, &khz, r->reterr);

	if (e < 0 ||
	    (e = gclk_kvm_ratio(r->k, &r->host, i, khz, &scaling, r->reterr)) < 0) {
		return e;
	}
	if (keeps_offset(r, i, &scaling)) {
		scaling.offset = (uint64_t)r->st->tsc[i].offset_ticks;
		tsc->value_ticks = gclk_tsc_guest_at(&scaling, r->at.ticks);
	} else {
		scaling.offset = gclk_tsc_offset_for(tsc->value_ticks, r->at.ticks, scaling.ratio,
						     scaling.frac_bits);
	}
	GCLK_SET(tsc, tsc, offset_ticks, (int64_t)scaling.offset);
	GCLK_SET(tsc, tsc, ratio, scaling.ratio);
	GCLK_SET(tsc, tsc, ratio_frac_bits, (uint8_t)scaling.frac_bits);
	GCLK_SET(tsc, tsc, host_ticks, r->at.ticks);
	return 0;
}

static int not_honoured(struct restore *r, uint32_t i, int64_t ticks)
{
	char text[160];

	r->not_honoured = 1;
	snprintf(text, sizeof(text),
		 "vCPU %" PRIu32 "'s TSC was written and is %" PRId64 " ticks off: this kernel "
		 "does not honour it", i, ticks);
	return object(r, "tsc-not-honoured", "tsc", text);
}

static int write_offset(struct restore *r, uint32_t i)
{
	struct gclk_tsc *tsc = &r->plan->state->tsc[i];
	uint64_t read = 0;
	int e = gclk_kvm_set_offset(r->k, i, (uint64_t)tsc->offset_ticks, r->reterr);

	if (e < 0) {
		return e;
	}
	r->done[STEP_TSC]++;
	if ((e = gclk_kvm_get_offset(r->k, i, &read, r->reterr)) < 0) {
		return e;
	}
	GCLK_SET(tsc, tsc, offset_read_back_ticks, (int64_t)read);
	return read == (uint64_t)tsc->offset_ticks ?
		       0 : not_honoured(r, i, (int64_t)(read - (uint64_t)tsc->offset_ticks));
}

/* MSR 0x10: the value for the instant at which the kernel will take it, about. */
static int write_msr(struct restore *r, uint32_t i, uint64_t ahead_ticks, uint64_t lead_ticks)
{
	struct gclk_tsc_scaling scaling = scaling_of(&r->plan->state->tsc[i]);
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry.index = MSR_TSC };

	msr.entry.data = gclk_tsc_guest_at(&scaling, gclk_sys_tsc(r->k) + lead_ticks) + ahead_ticks;
	if (gclk_sys_ioctl(r->k, r->k->vcpus[i], KVM_SET_MSRS, &msr) != 1) {
		return gclk_fail(r->reterr, GCLK_SYS, "tsc.value_ticks", GCLK_NO_OFFSET,
				 "KVM_SET_MSRS 0x10 on vCPU %" PRIu32 ": %s", i, strerror(errno));
	}
	return 0;
}

/* The offset that a bracketed reading shows. */
static uint64_t seen_offset(const struct gclk_tsc_scaling *scaling,
			    const struct gclk_kvm_bracket *b)
{
	return gclk_tsc_offset_for(b->value, b->before + (b->after - b->before) / 2,
				   scaling->ratio, scaling->frac_bits);
}

/*
 * The first vCPU begins a generation, unless an old kernel takes the value for the one
 * it expects; writing one far ahead first makes the second new. The rest falls into step
 * with it: the kernel gives them its offset. What the write took stays in the offset, so
 * it is measured and becomes part of the state and the bound.
 */
static int write_by_msr(struct restore *r, uint32_t i)
{
	struct gclk_tsc *tsc = &r->plan->state->tsc[i];
	struct gclk_tsc_scaling scaling = scaling_of(tsc);
	struct gclk_kvm_bracket b = { 0 };
	uint64_t khz = wanted_khz(tsc), error = 0, lead = 0;
	int64_t off;
	int e = 0;

	if (i == 0) {
		/* how long a write takes until the kernel looks at its clock: half a read */
		e = gclk_kvm_read_tsc(r->k, i, TSC_TRIES, &b, r->reterr);
		lead = (b.after - b.before) / 2;
		e = e ? e : write_msr(r, i, FAR_SECONDS * 1000 * (khz ? khz :
					gclk_kvm_host_khz(&r->host)), 0);
	}
	r->done[STEP_TSC]++;
	if (e < 0 || (e = write_msr(r, i, 0, lead)) < 0 ||
	    (e = gclk_kvm_read_tsc(r->k, i, TSC_TRIES, &b, r->reterr)) < 0) {
		return e;
	}
	off = (int64_t)(seen_offset(&scaling, &b) - scaling.offset);
	error = (uint64_t)(off < 0 ? -off : off);
	if (error > gclk_kvm_host_khz(&r->host)) {		/* 1 ms */
		return not_honoured(r, i, off);
	}
	if (i > 0 && gclk_kvm_tsc_error(&(struct gclk_tsc_scaling){ scaling.ratio,
			scaling.frac_bits, (uint64_t)r->plan->state->tsc[0].offset_ticks },
			&b) == 0) {
		scaling.offset = (uint64_t)r->plan->state->tsc[0].offset_ticks;
	} else {
		scaling.offset = seen_offset(&scaling, &b);
	}
	GCLK_SET(tsc, tsc, offset_ticks, (int64_t)scaling.offset);
	GCLK_SET(tsc, tsc, offset_read_back_ticks, (int64_t)scaling.offset);
	if (i == 0) {
		widen_bound(r, "tsc", 1 + (uint64_t)gclk_kvm_span_ns(r->rate, 0, error +
								     (b.after - b.before)));
	}
	return 0;
}

/* What the guest will read, whatever the attribute says. */
static int check_tsc(struct restore *r, uint32_t i)
{
	struct gclk_tsc_scaling scaling = scaling_of(&r->plan->state->tsc[i]);
	struct gclk_kvm_bracket b = { 0 };
	int64_t error;
	int e = gclk_kvm_read_tsc(r->k, i, 1, &b, r->reterr);

	if (e < 0) {
		return e;
	}
	error = gclk_kvm_tsc_error(&scaling, &b);
	return error < -TSC_SLACK_TICKS || error > TSC_SLACK_TICKS ? not_honoured(r, i, error) : 0;
}

static int restore_tsc(struct restore *r)
{
	uint32_t n = r->st->n_vcpus;
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < n; i++) {
		e = set_khz(r, i);
	}
	for (uint32_t i = 0; e == 0 && i < n; i++) {
		e = choose_offset(r, i);
		e = e ? e : r->k->own.has_offset ? write_offset(r, i) : write_by_msr(r, i);
	}
	for (uint32_t i = 0; e == 0 && i < n; i++) {
		e = check_tsc(r, i);
	}
	if (e == 0) {
		say_catch_up(r);
	}
	return e;
}

/*
 * 4 kvmclock
 */

/* What the clock is to read when the host's TSC is @ticks. */
static uint64_t clock_target(const struct restore *r, uint64_t ticks)
{
	return r->plan->state->kvmclock.clock_ns +
	       (uint64_t)gclk_kvm_span_ns(r->rate, r->at.ticks, ticks);
}

/* Without the kernel's help the value is for now, and its call takes its time. */
static int set_clock(struct restore *r, int64_t bias_ns)
{
	struct kvm_clock_data data = { .flags = 0 };
	struct gclk_kvm *k = r->k;

	if (k->own.cap_clock >= 4 && (k->own.cap_clock & CLOCK_HAS_REALTIME)) {
		data.flags = CLOCK_HAS_REALTIME;
		data.realtime = (uint64_t)r->at.real_ns;
		data.clock = r->plan->state->kvmclock.clock_ns - (uint64_t)bias_ns;
	} else {
		data.clock = clock_target(r, gclk_sys_tsc(k)) - (uint64_t)bias_ns;
	}
	if (gclk_sys_ioctl(k, k->vm, KVM_SET_CLOCK, &data) < 0) {
		return gclk_fail(r->reterr, GCLK_SYS, "kvmclock.clock_ns", GCLK_NO_OFFSET,
				 "KVM_SET_CLOCK: %s", strerror(errno));
	}
	r->done[STEP_CLOCK] = 1;
	return 0;
}

struct clock_error {
	int64_t ns;			/* kernel's clock minus the target */
	uint64_t width_ns;		/* known to +- this */
	uint32_t flags;
};

static int measure_clock(struct restore *r, struct clock_error *ret)
{
	struct kvm_clock_data clock;
	struct gclk_kvm_bracket b;
	uint64_t at;
	int e = gclk_kvm_get_clock(r->k, &clock, &b, r->reterr);

	if (e < 0) {
		return e;
	}
	at = clock.flags & CLOCK_HAS_HOST_TSC ? clock.host_tsc : b.before + (b.after - b.before) / 2;
	ret->ns = (int64_t)(clock.clock - clock_target(r, at));
	ret->width_ns = clock.flags & CLOCK_HAS_HOST_TSC ?
				1 : 1 + (uint64_t)gclk_kvm_span_ns(r->rate, b.before, b.after) / 2;
	ret->flags = clock.flags;
	return 0;
}

static uint64_t size_of(const struct clock_error *error)
{
	return (uint64_t)(error->ns < 0 ? -error->ns : error->ns);
}

static int is_close(const struct clock_error *error)
{
	return size_of(error) <= GCLK_MAX(error->width_ns, CONSISTENT_NS);
}

static int is_set(const struct clock_error *error)
{
	return size_of(error) <= CLOCK_APART_NS + error->width_ns;
}

/* What is left can go into the TSCs: not where their offsets are those of before. */
static int can_move_tsc(const struct restore *r, const struct clock_error *error)
{
	return r->k->own.has_offset && r->plan->findings.n_refusing == 0 && !goes_on(r) &&
	       !r->not_honoured && (error->flags & CLOCK_HAS_HOST_TSC);
}

/*
 * The kernel reads its clock some time after we ask it to; what it was off by is asked
 * for less the next time. With a paired reading the error is known to 1 ns. What the
 * kernel's own variation leaves (10 ns) goes into the TSCs; where it cannot, or a call
 * was interrupted, it is tried again.
 */
static int set_clock_closely(struct restore *r, struct clock_error *ret)
{
	int64_t bias = 0;
	int e = 0;

	for (unsigned i = 0; e == 0 && i < CLOCK_TRIES; i++) {
		if ((e = set_clock(r, bias)) < 0 || (e = measure_clock(r, ret)) < 0 ||
		    is_close(ret) || (i > 0 && size_of(ret) <= NEAR_NS && can_move_tsc(r, ret))) {
			break;
		}
		bias += ret->ns;
	}
	return e;
}

/* The proposed way: the pair (TSC, clock) at one reading of the TSC, by the kernel. */
static int set_clock_by_pair(struct restore *r, struct clock_error *ret)
{
	const struct gclk_kvm_sys *sys = gclk_kvm_sys_of(r->k);
	const struct gclk_tsc *tsc = &r->plan->state->tsc[0];
	struct gclk_pvclock page = { .tsc_timestamp = tsc->value_ticks,
				     .system_time_ns = r->plan->state->kvmclock.clock_ns,
				     .flags = GCLK_PVCLOCK_TSC_STABLE };
	uint8_t bytes[GCLK_PVCLOCK_BYTES];

	if (!sys->set_clock_guest || !tsc->frequency_hz ||
	    gclk_pvclock_scale_from_hz(GCLK_NS_PER_S, tsc->frequency_hz, &page.scale) < 0) {
		return 0;
	}
	gclk_pvclock_write(&page, bytes);
	if (gclk_sys_ioctl(r->k, r->k->vcpus[0], sys->set_clock_guest, bytes) < 0) {
		return 0;	/* not by this kernel, or not with this guest: the other way */
	}
	r->done[STEP_CLOCK] = 1;
	return measure_clock(r, ret) < 0 ? -1 : is_close(ret);
}

/* kvmclock stays where it is; every TSC is moved to it, by less than a microsecond. */
static int move_tsc_to_clock(struct restore *r, const struct clock_error *error)
{
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < r->st->n_vcpus; i++) {
		struct gclk_tsc *tsc = &r->plan->state->tsc[i];
		struct gclk_rate rate = gclk_rate_of_hz(tsc->frequency_hz);
		int64_t ticks = 0;

		gclk_ticks_from_ns_floor_i64(rate, error->ns, &ticks);
		tsc->offset_ticks = (int64_t)((uint64_t)tsc->offset_ticks + (uint64_t)ticks);
		e = write_offset(r, i);
	}
	widen_bound(r, "tsc", size_of(error));
	return e;
}

static int are_equal(const struct gclk_state *st)
{
	for (uint32_t i = 1; i < st->n_vcpus; i++) {
		if (st->tsc[i].offset_ticks != st->tsc[0].offset_ticks) {
			return 0;
		}
	}
	return 1;
}

static void say_clock(struct restore *r, const struct clock_error *error)
{
	const struct gclk_state *st = r->plan->state;

	widen_bound(r, "kvmclock", size_of(error) + error->width_ns);
	r->k->own.expect_stable = (error->flags & CLOCK_IS_STABLE) != 0;
	if (!(error->flags & CLOCK_IS_STABLE) && r->k->own.cap_clock >= 2) {
		gclk_findings_add(&r->plan->findings, "master-clock-lost", "kvmclock",
				  "KVM_GET_CLOCK's flags are 0x%x; the vCPUs' offsets are %s",
				  error->flags, are_equal(st) ? "alike" : "not alike");
	}
	if (!is_close(error) && !can_move_tsc(r, error)) {
		gclk_findings_add(&r->plan->findings, "clocks-apart", "kvmclock",
				  "kvmclock stands %" PRId64 " ns from where the TSC puts it",
				  error->ns);
	}
}

/* The same boot: the kernel's own line goes on, whatever the frequency was measured as. */
static void keep_clock(struct restore *r)
{
	const struct gclk_kvmclock *from = &r->st->kvmclock;

	if (goes_on(r)) {
		r->plan->state->kvmclock.clock_ns =
			from->clock_ns +
			(uint64_t)gclk_kvm_span_ns(r->rate, from->host_ticks, r->at.ticks);
	}
}

static int restore_clock(struct restore *r)
{
	struct clock_error error = { 0 };
	int e;

	if (!GCLK_HAS(kvmclock, &r->st->kvmclock, clock_ns)) {
		return 0;
	}
	keep_clock(r);
	e = set_clock_by_pair(r, &error);
	if (e == 0) {
		e = set_clock_closely(r, &error);
		if (e == 0 && !is_set(&error)) {
			return gclk_fail(r->reterr, GCLK_UNPROVEN, "kvmclock.clock_ns",
					 GCLK_NO_OFFSET, "it was set and is %" PRId64 " ns off",
					 error.ns);
		}
		if (e == 0 && !is_close(&error) && can_move_tsc(r, &error)) {
			e = move_tsc_to_clock(r, &error);
		}
	}
	if (e < 0) {
		return e;
	}
	say_clock(r, &error);
	GCLK_SET(kvmclock, &r->plan->state->kvmclock, flags, error.flags);
	return 0;
}

/*
 * 3, 5, 7 MSRs
 */

static uint64_t tsc_now(const struct restore *r, uint32_t i)
{
	struct gclk_tsc_scaling scaling = scaling_of(&r->plan->state->tsc[i]);

	return gclk_tsc_guest_at(&scaling, gclk_sys_tsc(r->k));
}

static int restore_msrs(struct restore *r, enum gclk_kvm_msr_phase phase, enum step step)
{
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < r->st->n_vcpus; i++) {
		r->done[step]++;
		e = gclk_kvm_write_msrs(r->k, i, r->plan->state, phase, r->reterr);
		e = e ? e : gclk_kvm_check_msrs(r->k, i, r->plan->state, phase, tsc_now(r, i),
						r->reterr);
	}
	return e;
}

/*
 * The kernel rewrites the guest's wall clock record as the MSR is written. A guest whose
 * clocks count the gap has the right one in its memory; only `wall` makes it wrong.
 */
static int restore_wall_clock(struct restore *r)
{
	const struct gclk_vcpu *vcpu = &r->st->vcpu[0];
	uint64_t at = vcpu->wall_clock_msr ? vcpu->wall_clock_msr : vcpu->wall_clock_old_msr;
	uint8_t record[GCLK_PVCLOCK_WALL_BYTES];
	struct gclk_kvm *k = r->k;
	int keep = at && k->memory && r->policy->gap != GCLK_GAP_WALL &&
		   k->memory(k->memory_context, at, record, sizeof(record), 0) == 0;
	int e = restore_msrs(r, GCLK_KVM_MSRS_AFTER_CLOCK, STEP_WALL);

	if (keep && e == 0 && k->memory(k->memory_context, at, record, sizeof(record), 1) < 0) {
		return gclk_fail(r->reterr, GCLK_SYS, "vcpu.wall_clock_msr", GCLK_NO_OFFSET,
				 "the guest's wall clock record cannot be written back");
	}
	return e;
}

/*
 * 6, 7 devices and timers
 */

static void restore_devices(struct restore *r)
{
	const struct gclk_state *to = r->plan->state;
	struct gclk_kvm *k = r->k;

	k->axis_ns = gclk_sub_sat(to->virtual_clock.clock_ns, r->at.mono_ns);
	if (to->rtc.has) {
		*k->rtc = to->rtc;
	}
	if (to->hpet.has) {
		*k->hpet = to->hpet;
	}
	if (to->pm_timer.has) {
		*k->pm_timer = to->pm_timer;
	}
	r->done[STEP_DEVICES] = 1;
}

static int restore_timers(struct restore *r)
{
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < r->st->n_vcpus; i++) {
		if (r->plan->state->lapic[i].has) {
			r->done[STEP_LAPIC]++;
			e = gclk_kvm_restore_lapic(r->k, i, &r->plan->state->lapic[i], r->reterr);
		}
	}
	e = e ? e : restore_msrs(r, GCLK_KVM_MSRS_TIMERS, STEP_TIMERS);
	if (e == 0 && r->plan->state->pit.has) {
		r->done[STEP_PIT] = 1;
		e = gclk_kvm_restore_pit(r->k, &r->plan->state->pit, r->reterr);
	}
	return e;
}

/*
 * 8 GUEST_STOPPED, by which a guest forgives its watchdogs the pause
 */

static void mark_stopped(struct restore *r)
{
	uint32_t failed = 0;

	for (uint32_t i = 0; i < r->st->n_vcpus; i++) {
		const struct gclk_vcpu *vcpu = &r->st->vcpu[i];

		if ((vcpu->system_time_msr | vcpu->system_time_old_msr) & 1 &&
		    gclk_sys_ioctl_value(r->k, r->k->vcpus[i], KVM_KVMCLOCK_CTRL, 0) < 0) {
			failed++;
		}
	}
	if (failed) {
		gclk_findings_add(&r->plan->findings, "guest-not-told", "kvmclock",
				  "%" PRIu32 " of its vCPUs: %s", failed, strerror(errno));
	}
}

static int carry_out(struct restore *r)
{
	int e = restore_tsc(r);

	e = e ? e : restore_msrs(r, GCLK_KVM_MSRS_BEFORE_CLOCK, STEP_MSRS);
	e = e ? e : restore_clock(r);
	e = e ? e : restore_wall_clock(r);
	if (e < 0) {
		return e;
	}
	restore_devices(r);
	if ((e = restore_timers(r)) < 0) {
		return e;
	}
	mark_stopped(r);
	return 0;
}

GCLK_API int gclk_kvm_restore(struct gclk_kvm *k, const struct gclk_state *st,
			      const struct gclk_host *host,
			      const struct gclk_disagreement *disagreement,
			      const struct gclk_policy *policy, struct gclk_plan *plan,
			      struct gclk_error *reterr)
{
	struct restore r = { .k = k, .st = st, .policy = policy, .plan = plan, .host = *host,
			     .reterr = reterr };
	int e;

	if ((e = check_sequence(k, st, reterr)) < 0 || (e = gclk_kvm_probe(k, reterr)) < 0 ||
	    (e = make_plan(&r, disagreement)) < 0 || (e = check_all(&r)) < 0) {
		return e;
	}
	e = carry_out(&r);
	if (e < 0) {
		k->own.step = say_what_was_done(&r) ? GCLK_KVM_BROKEN : GCLK_KVM_PREPARED;
		return e;
	}
	k->own.anchor_ticks = r.at.ticks;
	k->own.anchor_mono_ns = r.at.mono_ns;
	k->own.step = GCLK_KVM_RESTORED;
	return 0;
}
