/* SPDX-License-Identifier: MIT */
/*
 * Restore.
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
#include "kvm/restore.h"
#include "plan/move.h"

#define SAMPLES 4

static const char *const step_names[N_STEPS] = {
	"TSC frequency", "TSC", "clock MSRs", "kvmclock", "wall clock MSR", "devices",
	"LAPIC timer", "deadline and synthetic timers", "PIT",
};

/*
 * Findings and bounds
 */

int gclk_kvm_object(struct gclk_kvm_restore *r, const char *id, const char *clock,
		    const char *text)
{
	gclk_findings_add(&r->plan->findings, id, clock, "%s", text);
	gclk_findings_force(&r->plan->findings, r->policy->force);
	return r->plan->findings.n_refusing ?
		       gclk_fail(r->reterr, GCLK_UNPROVEN, clock, GCLK_NO_OFFSET, "%s", text) : 0;
}

static uint64_t *bound_of(struct gclk_kvm_restore *r, const char *clock)
{
	for (uint32_t i = 0; i < r->plan->n_bounds; i++) {
		if (!strcmp(r->plan->bounds[i].clock, clock)) {
			return &r->plan->bounds[i].bound_ns;
		}
	}
	return NULL;
}

void gclk_kvm_widen_bound(struct gclk_kvm_restore *r, const char *clock, uint64_t by_ns)
{
	uint64_t *bound = bound_of(r, clock);

	if (bound) {
		*bound = gclk_bound_add(*bound, by_ns);
	}
}

void gclk_kvm_set_bound(struct gclk_kvm_restore *r, const char *clock, uint64_t bound_ns)
{
	uint64_t *bound = bound_of(r, clock);

	if (bound) {
		*bound = bound_ns;
	}
}

/* Clocks that count the gap; the first two by the TSC, the others by CLOCK_MONOTONIC. */
static const char *const counting[] = { "tsc", "kvmclock", "virtual_clock", "rtc", "hpet",
					"pm_timer" };
#define FIRST_ON_THE_AXIS 2

void gclk_kvm_narrow_bounds(struct gclk_kvm_restore *r, uint64_t to_ns)
{
	struct gclk_plan *plan = r->plan;

	if (r->same_boot || to_ns >= r->pair_ns || plan->gap_uncertainty_ns == GCLK_UNBOUNDED ||
	    plan->policy == GCLK_GAP_FREEZE ||
	    plan->policy == GCLK_GAP_WALL) {
		return;		/* what counts nothing by the wall clock has nothing of it */
	}
	plan->gap_uncertainty_ns -= r->pair_ns - to_ns;
	plan->when.run.uncertainty_ns = to_ns;
	for (unsigned i = 0; i < GCLK_COUNT(counting); i++) {
		uint64_t *bound = bound_of(r, counting[i]);

		if (bound && *bound != GCLK_UNBOUNDED) {
			*bound -= r->pair_ns - to_ns;
		}
	}
}

/* Where CLOCK_MONOTONIC stood at the anchor is known as it was read. */
static void widen_axis(struct gclk_kvm_restore *r)
{
	for (unsigned i = FIRST_ON_THE_AXIS; i < GCLK_COUNT(counting) && !gclk_kvm_goes_on(r); i++) {
		gclk_kvm_widen_bound(r, counting[i], r->at.mono_width_ns);
	}
}

/* What had been changed when it failed: with anything, the VM is not what it was. */
static int say_what_was_done(struct gclk_kvm_restore *r)
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
				  "changed, with how many of each, the last perhaps in part: %s", text);
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

static int missing_device(struct gclk_kvm_restore *r, const char *name)
{
	return gclk_fail(r->reterr, GCLK_STATE, name, GCLK_NO_OFFSET,
			 "the state has one, and the VM was not said to");
}

static int check_devices(struct gclk_kvm_restore *r)
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

static int check_msrs(struct gclk_kvm_restore *r)
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
static int is_forced(const struct gclk_kvm_restore *r, const char *id)
{
	for (const char *const *force = r->policy->force; force && *force; force++) {
		if (!strcmp(*force, id)) {
			return 1;
		}
	}
	return 0;
}

static int check_khz(struct gclk_kvm_restore *r, uint32_t i)
{
	uint32_t khz = gclk_kvm_wanted_khz(&r->st->tsc[i]), now = 0;
	int e = gclk_kvm_khz(r->k, i, &now, r->reterr);

	if (e < 0 || !khz || now == khz) {
		return e;
	}
	r->khz_differs = 1;
	if (gclk_kvm_is_unscaled(&r->host, khz) || r->k->own.scales ||
	    is_forced(r, "tsc-rate-not-honoured")) {
		return 0;
	}
	return gclk_fail(r->reterr, GCLK_UNSUPPORTED, "tsc.frequency_hz", GCLK_NO_OFFSET,
			 "vCPU %" PRIu32 " has %" PRIu32 " kHz, the guest needs %" PRIu32
			 ", and this kernel does not scale", i, now, khz);
}

static int check_all(struct gclk_kvm_restore *r)
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

static uint64_t size_of(int64_t ns)
{
	return ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
}

static struct gclk_rate true_rate(const struct gclk_host *host)
{
	struct gclk_rate rate = { host->tsc_hz, host->tsc_hz_den ? host->tsc_hz_den : 1 };

	return gclk_rate_is_valid(rate) ? rate : gclk_kvm_host_rate(host);
}

/* How long the host has slept since @then, in which CLOCK_MONOTONIC stands; +-@ret_width. */
static int64_t slept_since(const struct gclk_kvm *k, const struct gclk_host *then,
			   uint64_t *ret_width)
{
	int64_t before, boot, after, slept;

	*ret_width = 0;
	if (!GCLK_HAS(host, then, boottime_ns) ||
	    gclk_sys_clock(k, CLOCK_MONOTONIC, &before) < 0 ||
	    gclk_sys_clock(k, CLOCK_BOOTTIME, &boot) < 0 ||
	    gclk_sys_clock(k, CLOCK_MONOTONIC, &after) < 0) {
		return 0;
	}
	*ret_width = (uint64_t)(after - before) + then->sample_width_ns;
	slept = gclk_sub_sat(gclk_sub_sat(boot, before + (after - before) / 2),
			     gclk_sub_sat(then->boottime_ns, then->monotonic_ns));
	return slept > (int64_t)*ret_width ? slept : 0;
}

/*
 * By how much somebody has set the wall clock since @then, in whose time the hosts were
 * compared: what CLOCK_REALTIME gained on CLOCK_MONOTONIC, which is slewed like it, beyond what
 * the readings took and a sleep of the host explains.
 */
static int64_t step_since(const struct gclk_kvm_restore *r, const struct gclk_host *then)
{
	uint64_t width = r->at.mono_width_ns + r->at.real_width_ns, more;
	int64_t step;

	if (!GCLK_HAS(host, then, realtime_ns) || !GCLK_HAS(host, then, monotonic_ns)) {
		return 0;
	}
	width += then->sample_width_ns;
	step = gclk_sub_sat(gclk_sub_sat(r->at.real_ns, r->at.mono_ns),
			    gclk_sub_sat(then->realtime_ns, then->monotonic_ns));
	if (size_of(step) <= width) {
		return 0;
	}
	step = gclk_sub_sat(step, slept_since(r->k, then, &more));
	return size_of(step) <= width + more ? 0 : step;
}

static void say_step(struct gclk_kvm_restore *r)
{
	char text[GCLK_DURATION_TEXT_BYTES];

	if (r->stepped_ns && !r->plan->when.elapsed_given) {
		gclk_findings_add(&r->plan->findings, "wall-clock-set", "",
				  "it was set by %s since this host's clocks were sampled; the gap is "
				  "counted by it as it was", gclk_duration_format(r->stepped_ns, text));
	}
}

static void set_when(struct gclk_kvm_restore *r, struct gclk_when *when)
{
	int64_t now_ns = gclk_sub_sat(r->at.real_ns, r->stepped_ns);
	int64_t since = gclk_sub_sat(now_ns, when->run.ns);

	if (when->elapsed_given) {
		when->elapsed_ns = gclk_add_sat(when->elapsed_ns, since);
	}
	if (r->k->source && !when->captured_tai_s) {
		when->captured_tai_s = r->k->source->tai_offset_s;
	}
	if (r->same_boot) {
		when->elapsed_given = 1;
		when->elapsed_ns = r->gap_ns;
	}
	when->run.ns = now_ns;
	when->run.uncertainty_ns = r->same_boot ? 1 : r->pair_ns;
	when->load = when->run;
}

static int make_plan(struct gclk_kvm_restore *r, const struct gclk_disagreement *disagreement)
{
	struct gclk_when when = r->plan->when;
	int e;

	r->rate = gclk_kvm_host_rate(&r->host);
	r->true_rate = true_rate(&r->host);
	if (!gclk_rate_is_valid(r->rate)) {
		return gclk_fail(r->reterr, GCLK_UNSUPPORTED, "host.tsc_hz", GCLK_NO_OFFSET,
				 "the frequency of this host's TSC is not known");
	}
	if ((e = gclk_kvm_sample(r->k, r->rate, SAMPLES, &r->at, r->reterr)) < 0) {
		return e;
	}
	r->stepped_ns = step_since(r, &r->host);
	GCLK_SET(host, &r->host, tsc_ticks, r->at.ticks);
	GCLK_SET(host, &r->host, realtime_ns, r->at.real_ns);
	GCLK_SET(host, &r->host, monotonic_ns, r->at.mono_ns);
	GCLK_SET(host, &r->host, sample_width_ns, 2 * (r->at.mono_width_ns + r->at.real_width_ns));
	r->pair_ns = r->at.real_width_ns;
	r->same_boot = (uint8_t)gclk_kvm_same_boot(r->st, r->k->source, &r->host, &r->at,
						   &r->gap_ns);
	set_when(r, &when);
	/*
	 * The kernel compares frequencies as it names them, not as they are: hosts of one
	 * name are alike to it, whatever their crystals make of it.
	 */
	if (GCLK_HAS(host, &r->host, tsc_khz_kernel)) {
		GCLK_SET(host, &r->host, tsc_hz, r->rate.num);
		GCLK_UNSET(host, &r->host, tsc_hz_den);
	}
	e = gclk_plan(r->st, &gclk_kvm_carrier, &r->host, &when, disagreement, r->policy,
		      r->plan, r->reterr);
	widen_axis(r);
	say_step(r);
	return e;
}

int gclk_kvm_goes_on(const struct gclk_kvm_restore *r)
{
	return r->same_boot && r->plan->counted_ns == r->plan->gap_ns;
}

/*
 * 3, 5, 7 MSRs
 */

static uint64_t tsc_now(const struct gclk_kvm_restore *r, uint32_t i)
{
	struct gclk_tsc_scaling scaling = gclk_kvm_scaling_of(&r->plan->state->tsc[i]);

	return gclk_tsc_guest_at(&scaling, gclk_sys_tsc(r->k));
}

static int restore_msrs(struct gclk_kvm_restore *r, enum gclk_kvm_msr_phase phase,
			enum gclk_kvm_restore_step step)
{
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < r->st->n_vcpus; i++) {
		e = gclk_kvm_write_msrs(r->k, i, r->plan->state, phase, r->reterr);
		r->done[step] += e != -GCLK_SYS;	/* one that was refused has others before it */
		e = e ? e : gclk_kvm_check_msrs(r->k, i, r->plan->state, phase, tsc_now(r, i),
						r->reterr);
	}
	return e;
}

/*
 * The kernel rewrites the guest's wall clock record as the MSR is written. A guest whose
 * clocks count the gap has the right one in its memory; only `wall` makes it wrong.
 */
static int restore_wall_clock(struct gclk_kvm_restore *r)
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

static void restore_devices(struct gclk_kvm_restore *r)
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

static int restore_timers(struct gclk_kvm_restore *r)
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

static void mark_stopped(struct gclk_kvm_restore *r)
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

static int carry_out(struct gclk_kvm_restore *r)
{
	int e = gclk_kvm_restore_tsc(r);

	e = e ? e : restore_msrs(r, GCLK_KVM_MSRS_BEFORE_CLOCK, STEP_MSRS);
	e = e ? e : gclk_kvm_restore_clock(r);
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
	struct gclk_kvm_restore r = { .k = k, .st = st, .policy = policy, .plan = plan,
				      .host = *host,
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
