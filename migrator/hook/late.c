/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/hook/late.h"
#include "migrator/payload.h"
#include "migrator/urgent.h"

const char *const late_outcome_names[4] = { "at-once", "followed", "raced", "lost" };

/* Between two looks: often when it is soon, seldom when it is long. */
#define LOOK_MIN_NS GCLK_NS_PER_MS
#define LOOK_MAX_NS (20 * GCLK_NS_PER_MS)
/* What may pass between the look at the reader and the end of the write, at least. */
#define WRITE_NS GCLK_NS_PER_MS
#define MARGIN_MAX_BYTES (UINT64_C(8) << 20)
/* Over which the reader's rate is taken. */
#define RATE_NS (50 * GCLK_NS_PER_MS)
/* Nobody else can say how long a whole load takes when there is no reader to follow. */
#define UNKNOWN_NS (500 * GCLK_NS_PER_MS)

struct following {
	uint64_t position;
	int64_t now_ns;
	/* the rate: two marks, so that it is taken over RATE_NS to 2 RATE_NS */
	int64_t mark_ns[2];
	uint64_t mark[2];
	int64_t moved_ns;	/* when the position was last seen to change */
};

static int64_t span_ns(uint64_t bytes, uint64_t bytes_per_s)
{
	unsigned __int128 ns = (unsigned __int128)bytes * (uint64_t)GCLK_NS_PER_S /
			       GCLK_MAX(bytes_per_s, UINT64_C(1));

	return (int64_t)GCLK_MIN(ns, (unsigned __int128)INT64_MAX / 4);
}

/*
 * The instants if the reader goes on from @position at the present rate. The way to the
 * span is uncertain by half of it, what follows by what earlier restores differed.
 */
static void predict(struct late *late, int64_t now_ns, uint64_t position)
{
	const struct learned *l = &late->learned;
	struct gclk_when *when = &late->situation->when;
	uint64_t distance = late->span.end > position ? late->span.end - position : 0;
	int64_t way = span_ns(distance, late->bytes_per_s);
	uint64_t doubt = (uint64_t)way / 2 + (uint64_t)GCLK_NS_PER_MS;

	if (!late->has_reader) {
		way += late->startup_ns;
		doubt += (uint64_t)(late->startup_ns + UNKNOWN_NS);
	}
	when->load.ns = now_ns + way + l->to_load_ns;
	when->load.uncertainty_ns = doubt + l->to_load_spread_ns;
	when->run.ns = now_ns + way + l->to_run_ns + late->hold_ns;
	when->run.uncertainty_ns = late->hold_ns ? late->hold_uncertainty_ns
						 : doubt + l->to_run_spread_ns;
	when->load.ns = GCLK_MIN(when->load.ns, when->run.ns);
}

/*
 * By the wall clock as it is on @line: where it was set since the situation was found it stands
 * that much further from the source's, and what rides on it goes by it.
 */
static int plan_by(struct late *late, const struct wall_line *line, struct gclk_error *reterr)
{
	const struct situation *s = late->situation;
	int64_t stepped_ns = wall_line_apart_ns(&s->line, line);
	struct gclk_disagreement disagreement = s->disagreement;
	struct gclk_when when = s->when;

	when.load.ns = gclk_add_sat(when.load.ns, stepped_ns);
	when.run.ns = gclk_add_sat(when.run.ns, stepped_ns);
	disagreement.ns = gclk_add_sat(disagreement.ns, stepped_ns);
	late->line = *line;
	late->stepped_ns = stepped_ns;
	return gclk_plan(late->source->state, gclk_image_carrier(late->source->image),
			 &s->host, &when, &disagreement, &s->settings.policy, late->plan,
			 reterr);
}

static int plan_it(struct late *late, struct gclk_error *reterr)
{
	struct wall_line now;

	wall_line_begin(&now);
	return plan_by(late, &now, reterr);
}

int late_plan_again(struct late *late, struct gclk_error *reterr)
{
	const struct wall_line line = late->line;

	return plan_by(late, &line, reterr);
}

static int64_t now_on(const struct late *late)
{
	return wall_line_ns(&late->situation->line);
}

/* How far from the span the reader must be, for a write not to meet it. */
static uint64_t margin(const struct late *late)
{
	int64_t write_ns = GCLK_MAX(WRITE_NS, 2 * late->took_ns);
	uint64_t way = (uint64_t)((unsigned __int128)late->bytes_per_s * (uint64_t)write_ns /
				  (uint64_t)GCLK_NS_PER_S);

	/* before it has begun, it has all of the memory before it */
	return late->reader.stride +
	       (late->began_ns ? GCLK_MIN(way, MARGIN_MAX_BYTES) : 0);
}

static bool is_near(const struct late *late, uint64_t position)
{
	return position + margin(late) > late->span.begin;
}

int late_begin(struct late *late, struct gclk_error *reterr)
{
	void *payload = NULL;
	size_t size = 0;
	int r;

	late->plan = gclk_plan_new(late->source->state->n_vcpus);
	if (!late->plan) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	late->bytes_per_s = late->learned.bytes_per_s;
	late->outcome = LATE_AT_ONCE;
	gclk_image_late_span(late->source->image, &late->span);
	if (late->has_reader && is_near(late, late->reader.start)) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
				 "whoever reads the image has come to the clocks already");
	}
	predict(late, now_on(late), late->has_reader ? late->reader.start : 0);
	r = plan_it(late, reterr);
	if (r == 0) {
		r = payload_make(late->source, late->situation, late->plan, &payload, &size,
				 reterr);
	}
	if (r == 0) {
		r = gclk_image_late_begin(late->source->image, late->plan, payload, size,
					  &late->span, reterr);
	}
	free(payload);
	if (r == 0) {
		late->n_writes = 1;
		late->last_write_ns = now_on(late);
	}
	return r;
}

int late_again(struct late *late, struct gclk_error *reterr)
{
	int r;

	late->has_reader = false;
	late->reader = (struct reader){ 0 };
	late->outcome = LATE_AT_ONCE;
	late->bytes_per_s = late->learned.bytes_per_s;
	late->last_distance = 0;
	late->took_ns = late->began_ns = late->tail_ns = late->tail_before_ns = 0;
	late->open_ns = late->closed_ns = 0;
	predict(late, now_on(late), 0);
	r = plan_it(late, reterr);
	if (r == 0) {
		r = gclk_image_late_write(late->source->image, late->plan, reterr);
	}
	if (r == 0) {
		late->n_writes++;
		late->last_write_ns = now_on(late);
	}
	return r;
}

static void take_rate(struct late *late, struct following *f)
{
	if (f->now_ns - f->mark_ns[1] < RATE_NS) {
		return;
	}
	if (f->mark_ns[0] && f->position > f->mark[0]) {
		late->bytes_per_s = (uint64_t)((unsigned __int128)(f->position - f->mark[0]) *
					       (uint64_t)GCLK_NS_PER_S /
					       (uint64_t)(f->now_ns - f->mark_ns[0]));
	}
	f->mark_ns[0] = f->mark_ns[1];
	f->mark[0] = f->mark[1];
	f->mark_ns[1] = f->now_ns;
	f->mark[1] = f->position;
}

static bool look(struct late *late, struct following *f)
{
	uint64_t position;

	if (!reader_position(&late->reader, &position)) {
		return false;
	}
	f->now_ns = now_on(late);
	if (position != f->position) {
		f->moved_ns = f->now_ns;
		if (!late->began_ns) {
			late->began_ns = f->now_ns;
			f->mark_ns[1] = f->now_ns;
			f->mark[1] = position;
		}
	}
	f->position = position;
	if (late->began_ns) {
		take_rate(late, f);
	}
	return true;
}

/* A writing, and who looks around it: what is written is made by another process before. */
struct writing {
	struct late *late;
	struct following *f;
	bool may, seen;	/* the reader was far before; it was still there after */
	int64_t from_ns;
	uint64_t distance;
};

static int may_write(void *ctx)
{
	struct writing *w = ctx;

	w->may = look(w->late, w->f) && !is_near(w->late, w->f->position);
	w->from_ns = w->f->now_ns;
	w->distance = w->late->span.begin - w->f->position;
	return !w->may;
}

static void has_written(void *ctx)
{
	struct writing *w = ctx;

	w->seen = look(w->late, w->f);
	w->late->took_ns = GCLK_MAX(w->late->took_ns, now_on(w->late) - w->from_ns);
}

/*
 * One more writing. The look directly before it keeps it from a reader that is near; the
 * one after it says whether that held, also where this process lost the processor.
 */
static bool write_again(struct late *late, struct following *f)
{
	const struct gclk_when written = late->situation->when;
	const struct wall_line line = late->line;
	struct writing w = { .late = late, .f = f };
	const struct gclk_late_gate gate = { may_write, has_written, &w };
	struct gclk_error error;
	int r;

	gclk_image_late_gate(late->source->image, &gate);
	predict(late, f->now_ns, f->position);
	r = plan_it(late, &error);
	r = r < 0 ? r : gclk_image_late_write(late->source->image, late->plan, &error);
	gclk_image_late_gate(late->source->image, &(struct gclk_late_gate){ 0 });
	if (!w.may) {
		/* what stands in the image is what holds: the same plan for the same instants */
		late->situation->when = written;
		plan_by(late, &line, &error);
		return false;
	}
	late->outcome = LATE_RACED;	/* where it failed: nobody knows which part was written */
	if (r < 0) {
		return false;
	}
	late->n_writes++;
	late->last_write_ns = w.from_ns;
	late->last_distance = w.distance;
	if (!w.seen || f->position + late->reader.stride > late->span.begin) {
		return false;
	}
	late->outcome = LATE_FOLLOWED;
	return true;
}

static void rest(int64_t ns)
{
	const struct timespec t = { ns / GCLK_NS_PER_S, ns % GCLK_NS_PER_S };

	nanosleep(&t, NULL);
}

/* When to look again: soon where the span is near. */
static int64_t pause_ns(const struct late *late, const struct following *f)
{
	int64_t way = 0;

	if (late->span.begin > f->position) {
		way = span_ns(late->span.begin - f->position, late->bytes_per_s) / 8;
	}
	return GCLK_MIN(GCLK_MAX(way, LOOK_MIN_NS), LOOK_MAX_NS);
}

/* Until the image is closed: when was the span read? */
static void watch(struct late *late, struct following *f, int64_t limit_ns,
		  bool (*stop)(void *ctx), void *ctx)
{
	int64_t before_ns = f->now_ns;

	while (look(late, f)) {
		if (!late->tail_ns && f->position >= late->span.end) {
			late->tail_ns = f->now_ns;
			late->tail_before_ns = before_ns;
		}
		if (f->now_ns - f->moved_ns > limit_ns || (stop && stop(ctx))) {
			return;
		}
		before_ns = f->now_ns;
		rest(LOOK_MIN_NS);
	}
	late->open_ns = f->now_ns;
	late->closed_ns = now_on(late);
	if (!late->tail_ns && f->position > late->span.begin) {
		late->tail_ns = late->closed_ns;	/* it was too quick to be seen */
		late->tail_before_ns = before_ns;
	}
}

static void follow(struct late *late, struct following *f, int64_t limit_ns,
		   bool (*stop)(void *ctx), void *ctx)
{
	f->moved_ns = now_on(late);
	while (look(late, f) && !is_near(late, f->position) && write_again(late, f)) {
		if (f->now_ns - f->moved_ns > limit_ns || (stop && stop(ctx))) {
			return;
		}
		rest(pause_ns(late, f));
	}
	watch(late, f, limit_ns, stop, ctx);
	if (!late->tail_ns && late->outcome != LATE_RACED) {
		late->outcome = LATE_LOST;
	}
}

void late_follow(struct late *late, int64_t limit_ns, bool (*stop)(void *ctx), void *ctx)
{
	struct following f = { .position = late->reader.start };

	if (late->has_reader) {
		/* who loses the processor between a look and a write meets the reader */
		urgent(true);
		follow(late, &f, limit_ns, stop, ctx);
		urgent(false);
	}
}

int64_t late_on_wall(const struct late *late, int64_t line_ns)
{
	return gclk_add_sat(line_ns, late->stepped_ns);
}

int64_t late_set_since(const struct late *late)
{
	return wall_line_step_ns(&late->line);
}

void late_was_loaded(struct late *late)
{
	if (late->outcome == LATE_LOST) {
		late->outcome = LATE_FOLLOWED;
	}
}

int late_end(struct late *late, struct gclk_error *reterr)
{
	void *payload = NULL;
	size_t size = 0;
	int r = payload_make(late->source, late->situation, late->plan, &payload, &size, reterr);

	if (r == 0) {
		r = gclk_image_patch(late->source->image, late->plan, payload, size, reterr);
	}
	free(payload);
	return r;
}

bool late_lesson(const struct late *late, int64_t run_ns, struct lesson *ret)
{
	int64_t reading = late->tail_ns - late->began_ns;

	if (!late->tail_ns || !late->closed_ns || run_ns < late->tail_ns) {
		return false;
	}
	*ret = (struct lesson){ .to_load_ns = late->closed_ns - late->tail_ns,
				.to_run_ns = run_ns - late->tail_ns };
	if (reading > RATE_NS) {
		ret->bytes_per_s = (uint64_t)((unsigned __int128)
			(late->span.end - late->reader.start) * (uint64_t)GCLK_NS_PER_S /
			(uint64_t)reading);
	}
	return true;
}
