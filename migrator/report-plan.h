/* SPDX-License-Identifier: MIT */
/* A plan as an answer: for people and for programs; `plan` and `rewrite` share it. */
#ifndef GCLK_MIGRATOR_REPORT_PLAN_H
#define GCLK_MIGRATOR_REPORT_PLAN_H

#include <json-c/json_object.h>

#include "migrator/situation.h"

/**
 * make_plan() - the plan for a source in a situation
 * @ret:	the caller's, also when it was refused
 *
 * Returns 0, GCLK_REFUSED (the findings tell), or another exit code after having said
 * what is wrong.
 */
int make_plan(const struct source *source, const struct situation *situation,
	      struct gclk_plan **ret);

/* Each refusing finding as a message on standard error. Returns GCLK_REFUSED. */
int say_refused(const struct source *source, const struct gclk_plan *plan);

/* Everything about the plan. Returns 0 or GCLK_NOMEM. */
int put_plan(const struct source *source, const struct situation *situation,
	     const struct gclk_plan *plan);

/* The answer of @verb, to which `rewrite` adds. */
struct json_object *plan_json(const char *verb, const struct source *source,
			      const struct situation *situation,
			      const struct gclk_plan *plan);

#endif
