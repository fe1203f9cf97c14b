/* SPDX-License-Identifier: MIT */
/*
 * A wall clock that nobody sets. Instants are told by CLOCK_REALTIME, and somebody may set
 * that while they are waited for or compared. CLOCK_BOOTTIME is slewed like it, counts a
 * sleep of the host like it, and is never set: so a line is CLOCK_REALTIME as it stood at
 * one reading, carried on by CLOCK_BOOTTIME. While nobody sets anything the two are one.
 *
 *	wall_line_begin(&line);
 *	... instants on the line: wall_line_ns(&line) ...
 *	on the wall clock as it is now: plus wall_line_step_ns(&line)
 */
#ifndef GCLK_MIGRATOR_WALL_H
#define GCLK_MIGRATOR_WALL_H

#include <stdbool.h>
#include <stdint.h>

#include <guestclock/plan.h>

struct wall_line {
	int64_t ahead_ns;  /* CLOCK_REALTIME minus CLOCK_BOOTTIME */
	uint64_t width_ns; /* known to +- this */
};

/* CLOCK_REALTIME, as it is. */
int64_t wall_clock_ns(void);

int64_t boot_clock_ns(void);

/* The line of the wall clock as it is now. */
void wall_line_begin(struct wall_line *line);

/* The line of a host's sample. False: it has none. */
bool wall_line_of(struct wall_line *line, const struct gclk_host *host);

/* Now, on the line. */
int64_t wall_line_ns(const struct wall_line *line);

/* By how much the wall clock was set since; 0: by no more than such readings show. */
int64_t wall_line_step_ns(const struct wall_line *line);

/* From one line to another of the same boot; 0 as above. */
int64_t wall_line_apart_ns(const struct wall_line *from, const struct wall_line *to);

/**
 * wall_line_stamp() - an instant that another process has stamped, on the line
 * @at_ns:	its stamp, CLOCK_REALTIME
 * @came_ns:	CLOCK_REALTIME when the stamp came here
 * @boot_ns:	CLOCK_BOOTTIME at the same moment
 *
 * False where the clock was set between stamp and arrival: then the stamp lies in the
 * future, or longer ago than such messages take.
 */
bool wall_line_stamp(const struct wall_line *line, int64_t at_ns, int64_t came_ns,
		     int64_t boot_ns, int64_t *ret_ns);

#endif
