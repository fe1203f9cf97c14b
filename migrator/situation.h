/* SPDX-License-Identifier: MIT */
/*
 * Everything that a plan needs besides the state: where, when, under which policies.
 * Here the command reads clocks and hosts, so that the plan itself reads neither.
 */
#ifndef GCLK_MIGRATOR_SITUATION_H
#define GCLK_MIGRATOR_SITUATION_H

#include <guestclock/kvm.h>
#include <guestclock/plan.h>

#include "migrator/conf.h"
#include "migrator/options.h"
#include "migrator/source.h"
#include "migrator/wall.h"

struct situation {
	int64_t now_ns;	       /* this host's wall clock, once */
	struct gclk_host here; /* this host */
	struct wall_line line; /* its wall clock as it was then: .when and .disagreement are by it */
	struct gclk_host host; /* where the guest will run */
	struct settings settings;
	struct gclk_when when;
	const char *basis; /* of when.captured: "given", "birth-time", "none" ... */
	struct gclk_disagreement disagreement;
	/*
	 * "given", "same-boot", "assumed-same-host", "synchronised" (both wall clocks are
	 * disciplined; their largest errors), "unmeasured"
	 */
	const char *disagreement_basis;
};

/**
 * situation_find() - what holds for a plan now
 * @margin_ns:	how long it takes until the guest can run, where nobody says when
 *
 * Returns 0, or the exit code after having said what is wrong.
 */
int situation_find(struct situation *s, const struct source *source,
		   const struct options *o, int64_t margin_ns);

/* This host and the one that is meant, alone. Returns like situation_find(). */
int situation_find_hosts(struct situation *s, const struct options *o);

/* The policies for a source, from all layers. Returns like situation_find(). */
int find_settings(struct settings *settings, const struct source *source,
		  const struct options *o);

/* This host, measured briefly if that is the only way to know its TSC's frequency. */
int read_this_host(struct gclk_host *ret, struct gclk_error *reterr);

/**
 * disagreement_find() - how far two hosts' wall clocks are apart, as far as is known
 * @from:	where the state was captured; without members: not known
 * @to:		where it will run
 * @here:	this host, which stands for an unknown @from
 *
 * Returns the basis, see struct situation.
 */
const char *disagreement_find(const struct gclk_host *from, const struct gclk_host *to,
			      const struct gclk_host *here,
			      struct gclk_disagreement *ret);

#endif
