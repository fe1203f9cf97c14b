/* SPDX-License-Identifier: MIT */
/*
 * Which host can take which guest, as far as clocks are concerned: the plan is asked, with
 * a guest that is nothing but its TSC.
 */
#ifndef GCLK_MIGRATOR_TAKES_H
#define GCLK_MIGRATOR_TAKES_H

#include <guestclock/image.h>
#include <guestclock/plan.h>

enum takes {
	TAKES_YES,	/* the same frequency, but for the rounding of it */
	TAKES_SCALED,	/* another one, which the host makes in hardware */
	TAKES_DRIFTING, /* another one, which is taken for the same: see the finding */
	TAKES_UNKNOWN,	/* one of the two is not known */
	TAKES_NO,
};
extern const char
	*const takes_names[5]; /* "yes", "scaled", "drifting", "unknown", "no" */

/* What a guest needs of a host. */
struct takes_guest {
	uint64_t tsc_hz;     /* of its TSC; 0: not known */
	uint64_t tsc_hz_den; /* 0: 1 */
	uint8_t emulated;    /* no KVM: its TSC always has its host's frequency */
};

/* A guest that has run on @host with the frequency that it has there. */
struct takes_guest takes_guest_of_host(const struct gclk_host *host);

/* A guest of a domain: the frequency that its XML pins, else that of its @host. */
struct takes_guest takes_guest_of_domain(const struct gclk_domain *domain,
					 const struct gclk_host *host);

/**
 * takes() - can @to take it?
 * @findings:	the reasons are added; may be NULL
 *
 * Errors: those of gclk_plan(), for a profile that is not valid.
 */
int takes(const struct takes_guest *guest, const struct gclk_host *to, enum takes *ret,
	  struct gclk_findings *findings, struct gclk_error *reterr);

/* What is wrong with a domain's clocks by its XML alone, wherever it runs. */
void takes_lint(const struct gclk_domain *domain, struct gclk_findings *findings);

#endif
