/* SPDX-License-Identifier: MIT */
/* Restoring kvmclock, so that it and the TSC stand to each other as they did. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/pvclock.h"
#include "core/util.h"
#include "kvm/restore.h"

#define CLOCK_TRIES 6
#define CONSISTENT_NS 1		/* TSC and kvmclock, as far as integers go */
#define NEAR_NS 200		/* an error that the kernel's latency explains */
#define FOLLOW_PART 1000	/* of the gap: crystals are far better than that */
#define PAIR_NS 2		/* the kernel's pair of TSC and wall clock, each rounded down */
#define CLOCK_APART_NS 100000	/* more is no latency: the clock was not set */

/* What the clock is to read when the host's TSC is @ticks. */
static uint64_t clock_target(const struct gclk_kvm_restore *r, uint64_t ticks)
{
	return r->plan->state->kvmclock.clock_ns +
	       (uint64_t)gclk_kvm_span_ns(r->rate, r->at.ticks, ticks);
}

/* Without the kernel's help the value is for now, and its call takes its time. */
static int set_clock(struct gclk_kvm_restore *r, int64_t bias_ns)
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
	uint8_t moved_anchor;		/* the TSCs have to follow */
};

/*
 * The kernel tells its TSC and CLOCK_REALTIME of one instant, where our own sample reads one
 * after the other: on which side of its middle the clock was read is the same each time, and
 * would add up over moves. The plan's instant is by the wall clock, so its TSC moves.
 */
static void refine_anchor(struct gclk_kvm_restore *r, const struct kvm_clock_data *clock,
			  struct clock_error *ret)
{
	int64_t late = (int64_t)(clock->realtime - (uint64_t)r->at.real_ns) -
		       gclk_kvm_span_ns(r->true_rate, r->at.ticks, clock->host_tsc);
	int64_t allowed = (int64_t)r->pair_ns + PAIR_NS, ticks = 0;

	if (!gclk_kvm_clock_is_paired(clock) || r->same_boot || r->pair_ns <= PAIR_NS ||
	    late > allowed || -late > allowed) {
		return;		/* known, not asked, or the wall clock was set meanwhile */
	}
	gclk_ticks_from_ns_floor_i64(r->rate, late, &ticks);
	r->at.ticks -= (uint64_t)ticks;
	ret->moved_anchor |= ticks != 0;
	gclk_kvm_narrow_bounds(r, PAIR_NS);
	r->pair_ns = PAIR_NS;
}

static int can_move_tsc(const struct gclk_kvm_restore *r, uint32_t flags);

static int measure_clock(struct gclk_kvm_restore *r, struct clock_error *ret)
{
	struct kvm_clock_data clock;
	struct gclk_kvm_bracket b;
	uint64_t at;
	int e = gclk_kvm_get_clock(r->k, &clock, &b, r->reterr);

	if (e < 0) {
		return e;
	}
	if (can_move_tsc(r, clock.flags)) {
		refine_anchor(r, &clock, ret);
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
static int can_move_tsc(const struct gclk_kvm_restore *r, uint32_t flags)
{
	return r->k->own.has_offset && r->plan->findings.n_refusing == 0 && !gclk_kvm_goes_on(r) &&
	       !r->not_honoured && (flags & CLOCK_HAS_HOST_TSC);
}

/*
 * The kernel reads its clock some time after we ask it to; what it was off by is asked
 * for less the next time. With a paired reading the error is known to 1 ns. What the
 * kernel's own variation leaves (10 ns) goes into the TSCs; where it cannot, or a call
 * was interrupted, it is tried again.
 */
static int set_clock_closely(struct gclk_kvm_restore *r, struct clock_error *ret)
{
	int64_t bias = 0;
	int e = 0;

	for (unsigned i = 0; e == 0 && i < CLOCK_TRIES; i++) {
		if ((e = set_clock(r, bias)) < 0 || (e = measure_clock(r, ret)) < 0 ||
		    is_close(ret) || (i > 0 && size_of(ret) <= NEAR_NS && can_move_tsc(r, ret->flags))) {
			break;
		}
		bias += ret->ns;
	}
	return e;
}

/* The proposed way: the pair (TSC, clock) at one reading of the TSC, by the kernel. */
static int set_pair(struct gclk_kvm_restore *r)
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
	return 1;
}

/* Returns 1 where that did it. The clock follows the TSC: where that moves, once more. */
static int set_clock_by_pair(struct gclk_kvm_restore *r, struct clock_error *ret)
{
	int e = set_pair(r);

	if (e == 0 || (e = measure_clock(r, ret)) < 0) {
		return e;
	}
	if (ret->moved_anchor) {
		ret->moved_anchor = 0;
		e = gclk_kvm_move_tscs(r, 0);
		e = e ? e : set_pair(r) ? measure_clock(r, ret) : 0;
	}
	return e ? e : is_close(ret);
}

/* kvmclock stays where it is; every TSC is moved to it, by less than a microsecond. */
static int move_tsc_to_clock(struct gclk_kvm_restore *r, const struct clock_error *error)
{
	int64_t ns = is_close(error) ? 0 : error->ns;

	gclk_kvm_widen_bound(r, "tsc", (uint64_t)(ns < 0 ? -ns : ns));
	return gclk_kvm_move_tscs(r, ns);
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

/* The page is made for whole kHz: the clock gains on a scaled TSC by what they lack. */
static void say_rate(struct gclk_kvm_restore *r)
{
	const struct gclk_tsc *tsc = &r->plan->state->tsc[0];
	char text[GCLK_DURATION_TEXT_BYTES];
	struct gclk_rate page, real;
	int64_t ppb, ns_per_day;

	if (tsc->ratio == gclk_tsc_ratio_one(tsc->ratio_frac_bits) || r->not_honoured ||
	    gclk_tsc_rate_scaled_floor(r->rate, tsc->ratio, tsc->ratio_frac_bits, &real) < 0) {
		return;
	}
	page = gclk_rate_of_khz((uint32_t)(gclk_rate_hz_floor(real) / 1000));
	if (gclk_rate_error_ppb_round(real, page, &ppb) == 0 && ppb != 0 &&
	    gclk_rate_error_ns_per_day(real, page, &ns_per_day) == 0) {
		gclk_findings_add(&r->plan->findings, "kvmclock-rate-rounded", "kvmclock",
				  "its page is for %" PRIu64 " kHz, the TSC has %" PRIu64 " Hz: it "
				  "gains %" PRId64 " ppb on the TSC, %s a day",
				  gclk_rate_hz_floor(page) / 1000, gclk_rate_hz_round(real), ppb,
				  gclk_duration_format(ns_per_day, text));
	}
}

static void say_clock(struct gclk_kvm_restore *r, const struct clock_error *error)
{
	const struct gclk_state *st = r->plan->state;

	gclk_kvm_widen_bound(r, "kvmclock", size_of(error) + error->width_ns);
	r->k->own.expect_stable = (error->flags & CLOCK_IS_STABLE) != 0;
	if (!(error->flags & CLOCK_IS_STABLE) && r->k->own.cap_clock >= 2) {
		gclk_findings_add(&r->plan->findings, "master-clock-lost", "kvmclock",
				  "KVM_GET_CLOCK's flags are 0x%x; the vCPUs' offsets are %s",
				  error->flags, are_equal(st) ? "alike" : "not alike");
	}
	if (!is_close(error) && !can_move_tsc(r, error->flags)) {
		gclk_findings_add(&r->plan->findings, "clocks-apart", "kvmclock",
				  "kvmclock stands %" PRId64 " ns from where the TSC puts it",
				  error->ns);
	}
}

/* The same boot: the kernel's own line goes on, whatever the frequency was measured as. */
static void keep_clock(struct gclk_kvm_restore *r)
{
	const struct gclk_kvmclock *from = &r->st->kvmclock;

	if (gclk_kvm_goes_on(r)) {
		r->plan->state->kvmclock.clock_ns =
			from->clock_ns +
			(uint64_t)gclk_kvm_span_ns(r->rate, from->host_ticks, r->at.ticks);
	}
}

/*
 * Over the gap the TSC has counted at the rate that it really has, and the plan's clock true
 * time. The guest's page ties the two by whole kHz, up to 240 ppb beside it, and that is how
 * they went while it ran: the clock stays on the TSC's line, as it would have. What that
 * makes in true time is in the bound.
 */
static void follow_tsc(struct gclk_kvm_restore *r)
{
	const struct gclk_tsc *from = &r->st->tsc[0], *to = &r->plan->state->tsc[0];
	struct gclk_kvmclock *clock = &r->plan->state->kvmclock;
	int64_t apart, ns = 0;

	if (gclk_kvm_goes_on(r) || r->not_honoured || !from->frequency_hz ||
	    gclk_ns_from_ticks_floor_i64(gclk_rate_of_hz(from->frequency_hz),
					 (int64_t)(to->value_ticks - from->value_ticks), &ns) < 0) {
		return;
	}
	apart = (int64_t)(r->st->kvmclock.clock_ns + (uint64_t)ns - clock->clock_ns);
	if (ns >= 0 && apart <= ns / FOLLOW_PART && -apart <= ns / FOLLOW_PART) {
		clock->clock_ns += (uint64_t)apart;
		gclk_kvm_widen_bound(r, "kvmclock", (uint64_t)(apart < 0 ? -apart : apart));
	}
}

int gclk_kvm_restore_clock(struct gclk_kvm_restore *r)
{
	struct clock_error error = { 0 };
	int e;

	if (!GCLK_HAS(kvmclock, &r->st->kvmclock, clock_ns)) {
		return 0;
	}
	keep_clock(r);
	follow_tsc(r);
	e = set_clock_by_pair(r, &error);
	if (e == 0) {
		e = set_clock_closely(r, &error);
		if (e == 0 && !is_set(&error)) {
			return gclk_fail(r->reterr, GCLK_UNPROVEN, "kvmclock.clock_ns",
					 GCLK_NO_OFFSET, "it was set and is %" PRId64 " ns off",
					 error.ns);
		}
	}
	if (e >= 0 && (!is_close(&error) || error.moved_anchor) && can_move_tsc(r, error.flags)) {
		e = move_tsc_to_clock(r, &error);
	}
	if (e < 0) {
		return e;
	}
	say_clock(r, &error);
	say_rate(r);
	GCLK_SET(kvmclock, &r->plan->state->kvmclock, flags, error.flags);
	return 0;
}
