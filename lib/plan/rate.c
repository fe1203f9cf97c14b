/* SPDX-License-Identifier: MIT */
/*
 * The frequency of the guest's TSC: which one it counted with, and what the
 * destination makes of it. Exact rationals; differences are said in ppb and in
 * time per day.
 */
#include "plan/findings.h"
#include "plan/move.h"

static struct gclk_rate host_rate(const struct gclk_host *host)
{
	struct gclk_rate rate = { host->tsc_hz, host->tsc_hz_den ? host->tsc_hz_den : 1 };

	return GCLK_HAS(host, host, tsc_hz) && gclk_rate_is_valid(rate) ?
		       rate : (struct gclk_rate){ 0, 1 };
}

static struct gclk_rate guest_rate(const struct gclk_state *state)
{
	const struct gclk_tsc *tsc = &state->tsc[0];
	struct gclk_rate rate = { tsc->frequency_hz, tsc->frequency_den ? tsc->frequency_den : 1 };

	return GCLK_HAS(tsc, tsc, frequency_hz) && gclk_rate_is_valid(rate) ?
		       rate : (struct gclk_rate){ 0, 1 };
}

static uint64_t host_ppb(const struct gclk_host *host)
{
	return GCLK_HAS(host, host, tsc_hz_ppb) ? host->tsc_hz_ppb : GCLK_UNBOUNDED;
}

static int host_scales(const struct gclk_host *host)
{
	return (host->flags & GCLK_HOST_TSC_SCALING) != 0;
}

static void say_difference(struct gclk_move *move, enum gclk_finding_number id, struct gclk_rate host,
			   struct gclk_rate guest, int64_t ppb)
{
	char day[GCLK_DURATION_TEXT_BYTES];
	int64_t ns_per_day = 0;
	int64_t size = ppb < 0 ? -ppb : ppb;

	gclk_rate_error_ns_per_day(host, guest, &ns_per_day);
	gclk_findings_put(&move->plan->findings, id, "tsc",
			  "the guest's TSC has %llu Hz, this host's %llu Hz: %s%lld.%03lld ppm, %s a day",
			  (unsigned long long)gclk_rate_hz_round(guest),
			  (unsigned long long)gclk_rate_hz_round(host), ppb < 0 ? "-" : "+",
			  (long long)(size / 1000), (long long)(size % 1000),
			  gclk_duration_format(ns_per_day, day));
}

/* Differences that rounding to kHz explains are no finding. */
static int is_rounding(struct gclk_rate host, struct gclk_rate guest)
{
	uint64_t a = gclk_rate_hz_round(host), b = gclk_rate_hz_round(guest);

	return (a > b ? a - b : b - a) <= 1000;
}

/*
 * Whole kHz are what a kernel or an emulator made of some frequency; if that was this host's,
 * the guest really counted at the host's. Any other number is the guest's own.
 */
static void rounded(struct gclk_move *move, struct gclk_rate host, struct gclk_rate guest,
		    uint64_t ppb)
{
	if (guest.den == 1 && guest.num % 1000 == 0) {
		move->rate = host;
		move->rate_ppb = gclk_bound_add(move->rate_ppb, ppb);
	}
}

static void compare(struct gclk_move *move, struct gclk_rate host, struct gclk_rate guest)
{
	uint32_t tolerance_ppm = GCLK_HAS(host, move->host, tsc_tolerance_ppm) ?
					 move->host->tsc_tolerance_ppm : 250;
	int64_t ppb, size;

	if (gclk_rate_error_ppb_round(host, guest, &ppb) < 0) {
		ppb = INT64_MAX;
	}
	size = ppb < 0 ? -ppb : ppb;
	if (is_rounding(host, guest)) {
		rounded(move, host, guest, (uint64_t)size);
		return;
	}
	if (size <= (int64_t)tolerance_ppm * 1000) {
		say_difference(move, move->carrier->rate_follows_host ? GCLK_F_TSC_RATE_FOLLOWS_HOST :
							GCLK_F_TSC_RATE_TOLERATED, host, guest, ppb);
		move->rate_ppb = gclk_bound_add(move->rate_ppb, (uint64_t)size);
		return;
	}
	if (move->carrier->rate_follows_host || !move->carrier->loader_rescales ||
	    !host_scales(move->host)) {
		say_difference(move, GCLK_F_TSC_RATE_NOT_HONOURED, host, guest, ppb);
		return;
	}
	say_difference(move, GCLK_F_TSC_SCALED, host, guest, ppb);
	move->rate_ppb = gclk_bound_add(move->rate_ppb, 250);	/* kHz rounding of the wish */
}

/* What the counter really made in a second while the guest ran: that is what it goes on by. */
static void prefer_measured(struct gclk_move *move)
{
	const struct gclk_tsc *tsc = &move->from->tsc[0];

	if (GCLK_HAS(tsc, tsc, measured_hz) && GCLK_HAS(tsc, tsc, measured_ppb)) {
		move->rate = gclk_rate_of_hz(tsc->measured_hz);
		move->rate_ppb = tsc->measured_ppb;
	}
}

void gclk_move_rate(struct gclk_move *move)
{
	struct gclk_findings *findings = &move->plan->findings;
	struct gclk_rate host = host_rate(move->host), guest = guest_rate(move->from);
	enum gclk_carrier_set set = gclk_move_row(move, GCLK_CLOCK_TSC)->set;

	if (set == GCLK_SET_ABSENT) {
		return;
	}
	move->rate_ppb = host_ppb(move->host);
	move->rate = guest.num ? guest : host;
	if (move->from->guest.accelerator == GCLK_ACCEL_TCG_ICOUNT && guest.num) {
		move->rate_ppb = 0;	/* counted in the same virtual ns as the shared axis */
	} else if (!guest.num && !host.num) {
		gclk_findings_put(findings, GCLK_F_TSC_FREQUENCY_UNKNOWN, "tsc",
				  "neither the state nor the host profile has a TSC frequency");
	} else if (!guest.num) {
		gclk_findings_put(findings, GCLK_F_TSC_FREQUENCY_ASSUMED, "tsc",
				  "%llu Hz, that of the host profile, is taken for the guest",
				  (unsigned long long)gclk_rate_hz_round(host));
	} else if (!host.num) {
		gclk_findings_put(findings, GCLK_F_HOST_FREQUENCY_UNKNOWN, "tsc",
				  "the guest's TSC has %llu Hz, the host profile has no frequency",
				  (unsigned long long)gclk_rate_hz_round(guest));
	} else {
		compare(move, host, guest);
	}
	prefer_measured(move);
	if (move->rate_ppb == GCLK_UNBOUNDED && move->counted_ns) {
		gclk_findings_put(findings, GCLK_F_TSC_FREQUENCY_BOUND_UNKNOWN, "tsc",
				  "the host profile does not say how exact its frequency is");
	}
}
