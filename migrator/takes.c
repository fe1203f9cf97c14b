/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/takes.h"

const char *const takes_names[5] = {
	[TAKES_YES] = "yes",
	[TAKES_SCALED] = "scaled",
	[TAKES_DRIFTING] = "drifting",
	[TAKES_UNKNOWN] = "unknown",
	[TAKES_NO] = "no",
};

struct takes_guest takes_guest_of_host(const struct gclk_host *host)
{
	struct takes_guest guest = { 0 };

	if (GCLK_HAS(host, host, tsc_hz)) {
		guest.tsc_hz = host->tsc_hz;
		guest.tsc_hz_den =
			GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den : 1;
	}
	return guest;
}

struct takes_guest takes_guest_of_domain(const struct gclk_domain *domain,
					 const struct gclk_host *host)
{
	const struct gclk_domain_timer *tsc = gclk_domain_timer(domain, "tsc");
	struct takes_guest guest = takes_guest_of_host(host);

	if (tsc && tsc->frequency_hz) {
		guest = (struct takes_guest){ .tsc_hz = tsc->frequency_hz };
	}
	guest.emulated = domain->type != GCLK_DOMAIN_KVM;
	return guest;
}

/* A loader that asks its host for the frequency that the stream names; an emulator does not. */
static const struct gclk_carrier hardware = {
	.name = "a loader on hardware",
	.rows = {
		[GCLK_CLOCK_TSC] = { .set = GCLK_SET_OWN, .start = GCLK_START_LOAD },
		[GCLK_CLOCK_VIRTUAL] = { .set = GCLK_SET_OWN, .start = GCLK_START_RUN },
	},
	.loader_rescales = 1,
};
static const struct gclk_carrier emulator = {
	.name = "an emulator",
	.rows = {
		[GCLK_CLOCK_TSC] = { .set = GCLK_SET_OWN, .start = GCLK_START_RUN },
		[GCLK_CLOCK_VIRTUAL] = { .set = GCLK_SET_OWN, .start = GCLK_START_RUN },
	},
	.rate_follows_host = 1,
};

/* The worst of what the plan found about the rate. */
static enum takes verdict_of(const struct gclk_findings *findings)
{
	static const struct {
		const char *id;
		enum takes verdict;
	} meanings[] = {
		{ "tsc-scaled", TAKES_SCALED },
		{ "tsc-rate-tolerated", TAKES_DRIFTING },
		{ "tsc-rate-follows-host", TAKES_DRIFTING },
		{ "tsc-frequency-assumed", TAKES_UNKNOWN },
		{ "host-frequency-unknown", TAKES_UNKNOWN },
		{ "tsc-frequency-unknown", TAKES_UNKNOWN },
	};
	enum takes verdict = TAKES_YES;

	for (unsigned i = 0; i < findings->n; i++) {
		const struct gclk_finding_info *info = findings->items[i].info;
		enum takes here = info->refuses ? TAKES_NO : TAKES_YES;

		for (unsigned k = 0; k < GCLK_COUNT(meanings); k++) {
			here = strcmp(info->id, meanings[k].id) ? here
								: meanings[k].verdict;
		}
		verdict = GCLK_MAX(verdict, here);
	}
	return verdict;
}

/* Those about the rate; the others are about a gap that there is not. */
static void keep_reasons(const struct gclk_findings *from, struct gclk_findings *to)
{
	for (unsigned i = 0; i < from->n; i++) {
		const struct gclk_finding *f = &from->items[i];

		if (strcmp(f->clock, "tsc") == 0 &&
		    strcmp(f->info->id, "tsc-frequency-bound-unknown")) {
			gclk_findings_add(to, f->info->id, f->clock, "%s", f->message);
		}
	}
}

#define NOON (INT64_C(1800000000) * GCLK_NS_PER_S)

static int ask(const struct takes_guest *guest, const struct gclk_host *to,
	       struct gclk_state *state, struct gclk_plan *plan,
	       struct gclk_error *reterr)
{
	struct gclk_when when = { .captured = { NOON, 0 },
				  .load = { NOON, 0 },
				  .run = { NOON, 0 } };
	struct gclk_disagreement none = { 0 };
	int r;

	GCLK_SET(tsc, &state->tsc[0], value_ticks, 0);
	if (guest->tsc_hz) {
		GCLK_SET(tsc, &state->tsc[0], frequency_hz, guest->tsc_hz);
		GCLK_SET(tsc, &state->tsc[0], frequency_den,
			 guest->tsc_hz_den ? guest->tsc_hz_den : 1);
	}
	GCLK_SET(virtual_clock, &state->virtual_clock, clock_ns, 0);
	r = gclk_plan(state, guest->emulated ? &emulator : &hardware, to, &when, &none,
		      &gclk_policy_default, plan, reterr);
	return r == -GCLK_REFUSED ? 0 : r;
}

int takes(const struct takes_guest *guest, const struct gclk_host *to, enum takes *ret,
	  struct gclk_findings *findings, struct gclk_error *reterr)
{
	struct gclk_state *state = gclk_state_new(1);
	struct gclk_plan *plan = gclk_plan_new(1);
	int r = state && plan ? ask(guest, to, state, plan, reterr)
			      : gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
					  "no memory");

	if (r == 0) {
		*ret = verdict_of(&plan->findings);
		if (findings) {
			keep_reasons(&plan->findings, findings);
		}
	}
	gclk_plan_free(plan);
	gclk_state_free(state);
	return r;
}

void takes_lint(const struct gclk_domain *domain, struct gclk_findings *findings)
{
	static const char *const ticking[] = { "pit", "rtc" };
	const struct gclk_domain_timer *tsc = gclk_domain_timer(domain, "tsc");

	if (domain->invtsc == GCLK_DOMAIN_YES && (!tsc || !tsc->frequency_hz)) {
		gclk_findings_add(
			findings, "invtsc-without-frequency", "tsc",
			"the domain has the CPU feature invtsc and no TSC frequency");
	}
	for (unsigned i = 0; i < GCLK_COUNT(ticking); i++) {
		const struct gclk_domain_timer *timer =
			gclk_domain_timer(domain, ticking[i]);

		if (!timer || timer->ticks == GCLK_DOMAIN_TICKS_NONE) {
			gclk_findings_add(findings, "ticks-policy-unknown", ticking[i],
					  "<timer name='%s' tickpolicy=...> is not in "
					  "the domain's XML",
					  ticking[i]);
		}
	}
}
