/* SPDX-License-Identifier: MIT */
/*
 * Rewriting an image while it is loaded. A big guest's memory takes long to read, and
 * how long nobody knows in advance; so the clocks, which come last, are written again and
 * again, always from the captured bytes, each time for the instant at which the guest will
 * run if its reader goes on as it does now, until the reader is near.
 *
 *	image   |header, XML|   RAM ...  ->reader      |margin|clocks, devices|record|
 *	                                 distance .....|      |^ span, one write
 */
#ifndef GCLK_MIGRATOR_HOOK_LATE_H
#define GCLK_MIGRATOR_HOOK_LATE_H

#include "migrator/hook/learned.h"
#include "migrator/hook/reader.h"
#include "migrator/situation.h"

enum late_outcome {
	LATE_AT_ONCE,	/* nobody to follow: written once, bounds cover the whole load */
	LATE_FOLLOWED,	/* the last write was before the reader came near */
	LATE_RACED,	/* the reader may have come to the span during the last write */
	LATE_LOST,	/* the reader went away before it was seen in the span */
};
extern const char *const late_outcome_names[4];

struct late {
	struct source *source;	     /* an image, opened to be changed */
	struct situation *situation; /* .when holds the last prediction */
	struct learned learned;
	/*
	 * 0: the guest runs as soon as it is loaded. Else it is loaded paused, and whoever
	 * loads it resumes it so long after it is expected to be ready.
	 */
	int64_t hold_ns;
	uint64_t hold_uncertainty_ns;	/* how well it keeps that instant */
	int64_t startup_ns;	/* until a reader appears, where there is none yet */

	struct gclk_plan *plan; /* as last written */
	struct gclk_image_span span;
	struct reader reader;
	bool has_reader;

	/*
	 * The wall clock when the last plan was made, which is by it, and by how much it had been
	 * set by then; situation.when and all instants here are on situation.line.
	 */
	struct wall_line line;
	int64_t stepped_ns;

	/* how it went; 0: not seen */
	enum late_outcome outcome;
	unsigned n_writes;
	int64_t last_write_ns;
	uint64_t last_distance;	/* bytes from the reader to the span then */
	int64_t took_ns;	/* the longest write, from the look before it to that after it */
	int64_t began_ns;	/* the reader moved first */
	int64_t tail_ns;	/* it had read the span ... */
	int64_t tail_before_ns; /* ... and had not */
	int64_t open_ns;	/* the loader was last seen to have the image open ... */
	int64_t closed_ns;	/* ... and had closed it */
	uint64_t bytes_per_s;
};

/**
 * late_begin() - the first writing, with its record
 * @late:	source, situation, learned and hold_ns are set; has_reader and reader too
 *
 * Plans for a reader that begins now. Returns 0, -GCLK_REFUSED (late->plan tells), or an
 * error; then nothing was changed, but for GCLK_SYS and GCLK_UNPROVEN.
 */
int late_begin(struct late *late, struct gclk_error *reterr);

/**
 * late_again() - the same image for another reader, whoever read it before has gone
 *
 * Writes once, and forgets how it went: late_follow() is next. Errors: as late_begin()
 */
int late_again(struct late *late, struct gclk_error *reterr);

/**
 * late_follow() - write until the reader is near, watch until it has closed the image
 * @limit_ns:	give up when the reader has not moved for so long
 * @stop:	looked at now and then: true ends it; may be NULL
 */
void late_follow(struct late *late, int64_t limit_ns, bool (*stop)(void *ctx), void *ctx);

/* The last plan once more, for what situation.when says by now: nothing is written. */
int late_plan_again(struct late *late, struct gclk_error *reterr);

/* An instant of the line, on the wall clock by which the last plan was made. */
int64_t late_on_wall(const struct late *late, int64_t line_ns);

/* By how much the wall clock was set since the last plan was made: move_wall_set(). */
int64_t late_set_since(const struct late *late);

/* The guest was loaded after all: a reader that was lost had been too quick to be seen. */
void late_was_loaded(struct late *late);

/* Puts an ordinary record in place of the open one; the image stays as it was loaded. */
int late_end(struct late *late, struct gclk_error *reterr);

/* What this restore teaches, if the guest was seen to run at @run_ns. */
bool late_lesson(const struct late *late, int64_t run_ns, struct lesson *ret);

#endif
