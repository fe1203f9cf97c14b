/* SPDX-License-Identifier: MIT */
/*
 *	         before the capture |  gap, and what    | after the resume
 *	pit[0]    |   |   |   |   | | becomes of its    | |   |   |   |   |
 *	rtc         |       |       | ticks             |    |       |      in 3 h
 *	name     0 ... PANEL        |<---- GAP_WIDTH -->|
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/output.h"
#include "migrator/readings.h"
#include "migrator/text.h"
#include "migrator/timeline.h"

#define NAMES 150
#define PANEL 360
#define GAP_WIDTH 230
#define EDGE 110
#define ROW 24
#define TOP 64
#define PERIODS 5		/* of the slowest timer that is shown by ticks, on each side */
#define SLOWEST_NS GCLK_NS_PER_S
#define CLOSEST 3		/* points; what is denser is a band */

struct picture {
	FILE *to;
	int64_t span_ns;	/* of one panel */
	unsigned left, right;	/* where time 0 of each panel is */
	unsigned y;
};

/* Names come from files: what XML or a reader could take for something else becomes '?'. */
static void put_plain(FILE *to, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		fputc(c < 0x20 || c > 0x7e || strchr("<>&\"'", c) ? '?' : c, to);
	}
}

static void label(const struct picture *p, unsigned x, const char *colour, const char *text)
{
	fprintf(p->to, "<text x=\"%u\" y=\"%u\" fill=\"%s\">", x, p->y + 5, colour);
	put_plain(p->to, text);
	fprintf(p->to, "</text>\n");
}

static int64_t place(const struct picture *p, int64_t ns)
{
	return (int64_t)((gclk_i128)ns * PANEL / p->span_ns);
}

static void tick(const struct picture *p, int64_t x, const char *colour)
{
	fprintf(p->to, "<path stroke=\"%s\" d=\"M%" PRId64 " %uv14\"/>\n", colour, x, p->y - 7);
}

static void band(const struct picture *p, int64_t from, int64_t to)
{
	fprintf(p->to, "<rect x=\"%" PRId64 "\" y=\"%u\" width=\"%" PRId64 "\" height=\"14\" "
		       "fill=\"#9db8d2\"/>\n", from, p->y - 7, to - from);
}

static bool dense(const struct picture *p, const struct reading *r)
{
	return r->period_ns && (r->period_ns < (uint64_t)p->span_ns / (PANEL / CLOSEST));
}

/* The last expiry of a grid at or before time 0. */
static int64_t last_of(int64_t at, int64_t period)
{
	int64_t rest = at % period;

	return rest > 0 ? rest - period : rest;
}

/* The expiries that the guest had: back from the next one. */
static void draw_before(const struct picture *p, const struct reading *r)
{
	int64_t period = (int64_t)GCLK_MIN(r->period_ns, (uint64_t)INT64_MAX);

	if (!period) {
		return;
	}
	if (dense(p, r)) {
		band(p, p->left - PANEL, p->left);
		return;
	}
	for (int64_t at = last_of(r->next_ns, period); at > -p->span_ns; at -= period) {
		if (at != r->next_ns) {
			tick(p, p->left + place(p, at), "#1f6fb4");
		}
	}
}

static void draw_after(const struct picture *p, const struct reading *r)
{
	int64_t period = (int64_t)GCLK_MIN(r->period_ns, (uint64_t)INT64_MAX);
	int64_t at = r->next_ns;
	char text[TEXT_BYTES];

	if (at < 0) {		/* had not come to the guest yet: it comes first of all */
		tick(p, p->right, "#d1495b");
		at = period ? last_of(at, period) + period : INT64_MAX;
	}
	if (at >= p->span_ns) {
		if (at != INT64_MAX) {
			text_approx(text, at);
			label(p, p->right + PANEL + 8, "#555", text);
		}
		return;
	}
	if (dense(p, r)) {
		band(p, p->right + place(p, at), p->right + PANEL);
		return;
	}
	do {
		tick(p, p->right + place(p, at), "#1f6fb4");
		at = gclk_add_sat(at, period);
	} while (period && at < p->span_ns);
}

static const struct gclk_ledger_entry *entry_of(const struct gclk_plan *plan, const char *clock)
{
	size_t n = strcspn(clock, "[");

	for (uint32_t i = 0; plan && i < plan->n_ledger; i++) {
		const struct gclk_ledger_entry *e = &plan->ledger[i];

		if (!strcmp(e->timer, clock) ||
		    (!strcmp(clock, "pit[0]") && !strncmp(e->timer, clock, n) && !e->timer[n])) {
			return e;
		}
	}
	return NULL;
}

static void draw_ledger(const struct picture *p, const struct gclk_ledger_entry *e)
{
	char text[200];

	if (!e) {
		return;
	}
	snprintf(text, sizeof(text), "%" PRIu64 " missed: +%" PRIu64 " =%" PRIu64 " -%" PRIu64,
		 e->owed_before + e->missed, e->replayed, e->merged, e->dropped);
	label(p, p->left + 10, "#555", text);
}

static const struct reading *find(const struct readings *readings, const char *clock)
{
	for (unsigned i = 0; i < readings->n; i++) {
		if (!strcmp(readings->items[i].clock, clock)) {
			return &readings->items[i];
		}
	}
	return NULL;
}

static bool shown(const struct reading *r)
{
	return r->armed && !r->silent;
}

static int64_t choose_span(const struct readings *readings)
{
	uint64_t slowest = 0;

	for (unsigned i = 0; i < readings->n; i++) {
		const struct reading *r = &readings->items[i];

		if (shown(r) && r->period_ns <= (uint64_t)SLOWEST_NS) {
			slowest = GCLK_MAX(slowest, r->period_ns);
		}
	}
	return slowest ? (int64_t)(PERIODS * slowest) : SLOWEST_NS;
}

static void draw_frame(struct picture *p, const struct source *source,
		       const struct gclk_plan *plan, unsigned n_rows)
{
	unsigned bottom = TOP + n_rows * ROW, width = p->right + PANEL + EDGE;
	char text[TEXT_BYTES], gap[TEXT_BYTES];

	fprintf(p->to, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		       "font-family=\"sans-serif\" font-size=\"12\">\n"
		       "<rect width=\"%u\" height=\"%u\" fill=\"white\"/>\n",
		width, bottom + 30, width, bottom + 30);
	p->y = 20;
	text_instant(text, source->captured.ns, source->captured.uncertainty_ns);
	label(p, 10, "black", source->captured.uncertainty_ns == GCLK_UNBOUNDED
				      ? "captured: not known when" : text);
	text_approx(text, p->span_ns);
	p->y = 46;
	label(p, p->left - PANEL, "#555", text);
	label(p, p->left - 55, "#555", "capture");
	label(p, p->right + PANEL - 40, "#555", text);
	if (plan) {
		text_approx(gap, plan->gap_ns);
		fprintf(p->to, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" "
			       "fill=\"#f2ede4\"/>\n", p->left, TOP - 10, GAP_WIDTH, bottom - TOP);
		label(p, p->left + 10, "black", gap);
		label(p, p->right, "#555", "resume");
		p->y = bottom + 18;
		label(p, p->left - PANEL, "#555",
		      "in the gap: missed (with those owed before): +replayed =merged into one "
		      "-dropped");
	}
	fprintf(p->to, "<path stroke=\"#888\" d=\"M%u %uV%uM%u %uV%u\"/>\n", p->left, TOP - 10,
		bottom - 10, p->right, TOP - 10, bottom - 10);
}

/* After a gap each timer has the plan's expiry; without one, its own. */
static void draw(struct picture *p, const struct source *source, const struct readings *before,
		 const struct readings *after, const struct gclk_plan *plan)
{
	unsigned n_rows = 0, row = 0;

	for (unsigned i = 0; i < before->n; i++) {
		n_rows += shown(&before->items[i]);
	}
	draw_frame(p, source, plan, n_rows);
	for (unsigned i = 0; i < before->n; i++) {
		const struct reading *r = &before->items[i], *then = find(after, r->clock);

		if (!shown(r)) {
			continue;
		}
		p->y = TOP + row++ * ROW;
		label(p, 10, "black", r->clock);
		draw_before(p, r);
		draw_ledger(p, entry_of(plan, r->clock));
		if (then && shown(then)) {
			draw_after(p, then);
		}
	}
	fprintf(p->to, "</svg>\n");
}

static int draw_all(FILE *to, const struct source *source, const struct gclk_plan *plan)
{
	struct picture p = { .to = to, .left = NAMES + PANEL, .right = NAMES + PANEL };
	struct readings before, after;
	int r = readings_take(source->state, &source->stands_at, &before);

	if (r) {
		return r;
	}
	p.span_ns = choose_span(&before);
	if (!plan) {
		draw(&p, source, &before, &before, NULL);
	} else if ((r = readings_take(plan->state, &plan->when.run, &after)) == 0) {
		p.right += GAP_WIDTH;
		draw(&p, source, &before, &after, plan);
		readings_free(&after);
	}
	readings_free(&before);
	return r;
}

int timeline_write(const struct source *source, const struct gclk_plan *plan, const char *path,
		   struct gclk_error *reterr)
{
	char *bytes = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&bytes, &size);
	int r = to ? draw_all(to, source, plan) : GCLK_NOMEM;

	if (to && fclose(to)) {
		r = GCLK_NOMEM;
	}
	r = r ? gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory")
	      : write_whole(path, bytes, size, reterr);
	free(bytes);
	return r;
}
