/* SPDX-License-Identifier: MIT */
/* The parts of an answer for people. All print to standard output. */
#ifndef GCLK_MIGRATOR_REPORT_TEXT_H
#define GCLK_MIGRATOR_REPORT_TEXT_H

#include <guestclock/plan.h>

#include "migrator/readings.h"
#include "migrator/source.h"

/* What the file is, whose clocks these are, when they were captured, what was done. */
void put_head(const struct source *source, int64_t now_ns);

/* A heading, and below it the lines "captured  ...": @label is padded. */
void put_line(const char *label, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Returns 0 or GCLK_NOMEM. */
int put_readings(const struct readings *readings);

/* When what fires next, on a logarithmic scale; nothing where nothing is armed. */
void put_timeline(const struct readings *readings);

/* Errors first. */
void put_findings(const struct gclk_findings *findings);

/* Whether there is a warning or an error, which is what --check asks. */
bool found_something(const struct gclk_findings *findings);

#endif
