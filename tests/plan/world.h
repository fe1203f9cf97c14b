/* SPDX-License-Identifier: MIT */
/*
 * A guest, two carriers and a host for tests of the plan. Nothing here is taken
 * from a real loader: the rows exercise the kinds of carrier there can be.
 */
#ifndef GCLK_TEST_PLAN_WORLD_H
#define GCLK_TEST_PLAN_WORLD_H

#include <string.h>

#include <guestclock/plan.h>

#define S INT64_C(1000000000)
#define MS INT64_C(1000000)
#define T0 INT64_C(1800000000000000000)	/* the stop, on the source's wall clock */

/* Everything on one axis that starts at the resume. */
extern const struct gclk_carrier world_axis;
/* TSC from the load, paravirtual clock from the resume, tick devices that restart. */
extern const struct gclk_carrier world_kernel;

struct world {
	struct gclk_state *state;
	struct gclk_plan *plan;
	const struct gclk_carrier *carrier;
	struct gclk_host host;
	struct gclk_when when;
	struct gclk_disagreement disagreement;
	struct gclk_policy policy;
	struct gclk_error error;
};

/* In the process that runs the guest: what is owed is injected; the PIT alone restarts. */
extern const struct gclk_carrier world_linked;

/* A plain guest of two vCPUs on @carrier, stopped at T0 exactly, resumed 10 s later. */
void world_make(struct world *world, const struct gclk_carrier *carrier);
void world_end(struct world *world);
int world_plan(struct world *world);

/* Times two runs of @load and @run after the stop. */
void world_resume(struct world *world, int64_t load_ns, int64_t run_ns);

/* The finding with this id, or NULL. */
const struct gclk_finding *world_finding(const struct world *world, const char *id);
uint64_t world_bound(const struct world *world, const char *clock);
const struct gclk_ledger_entry *world_entry(const struct world *world, const char *timer);

#endif
