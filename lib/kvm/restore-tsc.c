/* SPDX-License-Identifier: MIT */
/*
 * Restoring the TSCs: by the TSC_OFFSET attribute, exact to a tick, or where the kernel
 * has none by MSR 0x10, whose value belongs to an instant that the caller can only guess.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/util.h"
#include "kvm/restore.h"

#define TSC_TRIES 5
#define TSC_SLACK_TICKS 1000
#define FAR_SECONDS 10

/*
 * Frequencies
 */

static int set_khz(struct gclk_kvm_restore *r, uint32_t i)
{
	uint32_t khz = gclk_kvm_wanted_khz(&r->st->tsc[i]), now = 0;
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
	return gclk_kvm_object(r, "tsc-frequency-refused", "tsc", text);
}

static void say_catch_up(struct gclk_kvm_restore *r)
{
	uint32_t khz = gclk_kvm_wanted_khz(&r->st->tsc[0]);

	if (khz && !r->k->own.scales && !gclk_kvm_is_unscaled(&r->host, khz)) {
		gclk_findings_add(&r->plan->findings, "tsc-catches-up", "tsc",
				  "%" PRIu32 " kHz on a host of %" PRIu32 " kHz that does not scale",
				  khz, gclk_kvm_host_khz(&r->host));
		gclk_kvm_widen_bound(r, "tsc", GCLK_UNBOUNDED);
	}
}

/*
 * TSC
 */

struct gclk_tsc_scaling gclk_kvm_scaling_of(const struct gclk_tsc *tsc)
{
	return (struct gclk_tsc_scaling){ tsc->ratio, tsc->ratio_frac_bits,
					  (uint64_t)tsc->offset_ticks };
}

/* Offsets of the same boot and ratio are kept to the bit, and the plan's value follows. */
static int keeps_offset(const struct gclk_kvm_restore *r, uint32_t i,
			const struct gclk_tsc_scaling *scaling)
{
	const struct gclk_tsc *from = &r->st->tsc[i];

	return gclk_kvm_goes_on(r) && GCLK_HAS(tsc, from, offset_ticks) &&
	       from->ratio == scaling->ratio &&
	       from->ratio_frac_bits == scaling->frac_bits;
}

/* Which offset makes the plan's value at the anchor; noted in the plan's state. */
static int choose_offset(struct gclk_kvm_restore *r, uint32_t i)
{
	struct gclk_tsc *tsc = &r->plan->state->tsc[i];
	struct gclk_tsc_scaling scaling;
	uint32_t khz = r->khz_differs ? 0 : gclk_kvm_wanted_khz(&r->st->tsc[i]);
	int e = khz ? 0 : gclk_kvm_khz(r->k, i, &khz, r->reterr);

	if (e < 0 ||
	    (e = gclk_kvm_ratio(r->k, &r->host, i, khz, &scaling, r->reterr)) < 0) {
		return e;
	}
	if (keeps_offset(r, i, &scaling)) {
		scaling.offset = (uint64_t)r->st->tsc[i].offset_ticks;
		tsc->value_ticks = gclk_tsc_guest_at(&scaling, r->at.ticks);
		r->kept++;
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

static uint64_t size_of(int64_t n)
{
	return n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
}

static int not_honoured(struct gclk_kvm_restore *r, uint32_t i, int64_t ticks)
{
	char text[160];

	r->not_honoured = 1;
	gclk_kvm_widen_bound(r, "tsc", (uint64_t)gclk_kvm_span_ns(r->rate, 0, size_of(ticks)) + 1);
	snprintf(text, sizeof(text),
		 "vCPU %" PRIu32 "'s TSC was written and is %" PRId64 " ticks off: this kernel "
		 "does not honour it", i, ticks);
	return gclk_kvm_object(r, "tsc-not-honoured", "tsc", text);
}

/* Writes the offset of the plan's state, and reads it back. */
static int write_offset(struct gclk_kvm_restore *r, uint32_t i)
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

int gclk_kvm_move_tscs(struct gclk_kvm_restore *r, int64_t ahead_ns)
{
	int e = 0;

	for (uint32_t i = 0; i < r->st->n_vcpus; i++) {
		struct gclk_tsc *tsc = &r->plan->state->tsc[i];
		uint64_t offset = gclk_tsc_offset_for(tsc->value_ticks, r->at.ticks, tsc->ratio,
						      tsc->ratio_frac_bits);
		int64_t ticks = 0;

		gclk_ticks_from_ns_floor_i64(gclk_rate_of_hz(tsc->frequency_hz), ahead_ns, &ticks);
		tsc->offset_ticks = (int64_t)(offset + (uint64_t)ticks);
		tsc->host_ticks = r->at.ticks;
	}
	for (uint32_t i = 0; e == 0 && i < r->st->n_vcpus; i++) {
		e = write_offset(r, i);
	}
	return e;
}

/* MSR 0x10: the value for the instant at which the kernel will take it, about. */
static int write_msr(struct gclk_kvm_restore *r, uint32_t i, uint64_t ahead_ticks,
		     uint64_t lead_ticks)
{
	struct gclk_tsc_scaling scaling = gclk_kvm_scaling_of(&r->plan->state->tsc[i]);
	struct gclk_kvm_one_msr msr = { .nmsrs = 1, .entry.index = MSR_TSC };

	msr.entry.data = gclk_tsc_guest_at(&scaling, gclk_sys_tsc(r->k) + lead_ticks) + ahead_ticks;
	if (gclk_sys_ioctl(r->k, r->k->vcpus[i], KVM_SET_MSRS, &msr) != 1) {
		return gclk_fail(r->reterr, GCLK_SYS, "tsc.value_ticks", GCLK_NO_OFFSET,
				 "KVM_SET_MSRS 0x10 on vCPU %" PRIu32 ": %s", i, strerror(errno));
	}
	r->done[STEP_TSC] = i + 1;
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
 * A value far from what the kernel expects, so that the next one begins a generation even
 * where an old kernel would take it for the expected. @ret_lead: how long a write takes
 * until the kernel looks at its clock, which is half of a read.
 */
static int begin_generation(struct gclk_kvm_restore *r, uint64_t *ret_lead)
{
	uint64_t khz = gclk_kvm_wanted_khz(&r->st->tsc[0]);
	struct gclk_kvm_bracket b = { 0 };
	int e = gclk_kvm_read_tsc(r->k, 0, TSC_TRIES, &b, r->reterr);

	khz = khz ? khz : gclk_kvm_host_khz(&r->host);
	*ret_lead = (b.after - b.before) / 2;
	return e ? e : write_msr(r, 0, FAR_SECONDS * 1000 * khz, 0);
}

/* The offset that a vCPU has now: vCPU 0's, where that explains what is read. */
static void note_offset(struct gclk_kvm_restore *r, uint32_t i, const struct gclk_kvm_bracket *b)
{
	struct gclk_tsc *tsc = &r->plan->state->tsc[i];
	struct gclk_tsc_scaling scaling = gclk_kvm_scaling_of(tsc);
	struct gclk_tsc_scaling first = gclk_kvm_scaling_of(&r->plan->state->tsc[0]);
	int in_step = i > 0 && first.ratio == scaling.ratio && gclk_kvm_tsc_error(&first, b) == 0;
	uint64_t offset = in_step ? first.offset : seen_offset(&scaling, b);

	GCLK_SET(tsc, tsc, offset_ticks, (int64_t)offset);
	GCLK_SET(tsc, tsc, offset_read_back_ticks, (int64_t)offset);
}

/*
 * The first vCPU begins a generation; the rest falls into step with it, since the kernel
 * gives them its offset. What the write took stays in the offset, so it is measured and
 * becomes part of the state and the bound.
 */
static int write_by_msr(struct gclk_kvm_restore *r, uint32_t i)
{
	struct gclk_tsc_scaling scaling = gclk_kvm_scaling_of(&r->plan->state->tsc[i]);
	struct gclk_kvm_bracket b = { 0 };
	uint64_t lead = 0, size;
	int64_t off;
	int e;

	if ((i == 0 && (e = begin_generation(r, &lead)) < 0) ||
	    (e = write_msr(r, i, 0, lead)) < 0 ||
	    (e = gclk_kvm_read_tsc(r->k, i, TSC_TRIES, &b, r->reterr)) < 0) {
		return e;
	}
	off = (int64_t)(seen_offset(&scaling, &b) - scaling.offset);
	size = size_of(off);
	if (size > gclk_kvm_host_khz(&r->host)) {		/* 1 ms */
		return not_honoured(r, i, off);
	}
	note_offset(r, i, &b);
	if (i == 0) {
		gclk_kvm_widen_bound(r, "tsc", 1 + (uint64_t)gclk_kvm_span_ns(
							  r->rate, 0, size + (b.after - b.before)));
	}
	return 0;
}

/* What the guest will read, whatever the attribute says. */
static int check_tsc(struct gclk_kvm_restore *r, uint32_t i)
{
	struct gclk_tsc_scaling scaling = gclk_kvm_scaling_of(&r->plan->state->tsc[i]);
	struct gclk_kvm_bracket b = { 0 };
	int64_t error;
	int e = gclk_kvm_read_tsc(r->k, i, 1, &b, r->reterr);

	if (e < 0) {
		return e;
	}
	error = gclk_kvm_tsc_error(&scaling, &b);
	return error < -TSC_SLACK_TICKS || error > TSC_SLACK_TICKS ? not_honoured(r, i, error) : 0;
}

int gclk_kvm_restore_tsc(struct gclk_kvm_restore *r)
{
	uint32_t n = r->st->n_vcpus;
	int e = 0;

	for (uint32_t i = 0; e == 0 && r->khz_differs && i < n; i++) {
		e = set_khz(r, i);
	}
	for (uint32_t i = 0; e == 0 && i < n; i++) {
		e = choose_offset(r, i);
	}
	if (r->kept == n && r->k->own.has_offset) {
		gclk_kvm_set_bound(r, "tsc", 1);	/* its own line, to the tick */
	}
	for (uint32_t i = 0; e == 0 && i < n; i++) {
		e = r->k->own.has_offset ? write_offset(r, i) : write_by_msr(r, i);
	}
	for (uint32_t i = 0; e == 0 && i < n; i++) {
		e = check_tsc(r, i);
	}
	if (e == 0) {
		say_catch_up(r);
	}
	return e;
}
