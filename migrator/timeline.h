/* SPDX-License-Identifier: MIT */
/* When each timer interrupts the guest, as a picture: before the capture, after it, across a gap. */
#ifndef GCLK_MIGRATOR_TIMELINE_H
#define GCLK_MIGRATOR_TIMELINE_H

#include <guestclock/plan.h>

#include "migrator/source.h"

/**
 * timeline_write() - an SVG file with a row for every armed timer
 * @plan:	for a gap between the capture and the resume; NULL: it goes on at once
 * @path:	replaced when the picture is complete; "-" is standard output
 *
 * Both sides have one linear scale, chosen by the periods. Errors: GCLK_SYS, GCLK_NOMEM.
 */
int timeline_write(const struct source *source, const struct gclk_plan *plan, const char *path,
		   struct gclk_error *reterr);

#endif
