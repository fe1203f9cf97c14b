/* SPDX-License-Identifier: MIT */
/* One row per verb; a new one joins the list in main.c and has a file of its own. */
#ifndef GCLK_MIGRATOR_VERBS_H
#define GCLK_MIGRATOR_VERBS_H

#include "migrator/options.h"

extern const struct verb verb_host, verb_inspect, verb_diff, verb_plan, verb_rewrite,
	verb_undo, verb_extract, verb_explain;

#endif
