/* SPDX-License-Identifier: MIT */
/* The closing report of a move, for people. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/message.h"
#include "migrator/move.h"
#include "migrator/report-text.h"
#include "migrator/text.h"

static const struct {
	enum style style;
	const char *text;
} verdicts[] = {
	[MOVE_DONE] = { STYLE_GREEN, "the clocks went on" },
	[MOVE_UNPROVEN] = { STYLE_YELLOW, "carried out, not proven" },
	[MOVE_LATE] = { STYLE_YELLOW, "carried out, resumed late" },
	[MOVE_UNTOUCHED] = { STYLE_YELLOW, "the clocks were left alone" },
	[MOVE_REFUSED] = { STYLE_RED, "refused" },
	[MOVE_CANCELLED] = { STYLE_RED, "cancelled; the guest stays where it was" },
};

static void put_title(const struct move *move)
{
	printf("%s", style(STYLE_BOLD));
	put_text(stdout, move->domain[0] ? move->domain : move->uuid);
	printf("%s: ", style(STYLE_PLAIN));
	put_text(stdout, move->verb);
	if (move->from[0] || move->to[0]) {
		putchar(' ');
		put_text(stdout, move->from[0] ? move->from : "?");
		fputs(" -> ", stdout);
		put_text(stdout, move->to[0] ? move->to : "?");
	}
	printf(": %s%s%s\n", style(verdicts[move->verdict].style),
	       verdicts[move->verdict].text, style(STYLE_PLAIN));
}

static void put_instant(const char *label, const struct gclk_instant *at,
			const char *basis)
{
	char when[TEXT_BYTES], uncertain[TEXT_BYTES];

	if (!at->ns && at->uncertainty_ns == GCLK_UNBOUNDED) {
		return;
	}
	put_line(label, "%s %s%s%s", text_instant(when, at->ns, at->uncertainty_ns),
		 text_uncertain(uncertain, at->uncertainty_ns), basis[0] ? " by " : "",
		 basis);
}

/* "0.31 ms late", "0.02 ms early". */
static void put_late(const struct move *move)
{
	int64_t late = gclk_sub_sat(move->ran.ns, move->planned.ns);
	char span[TEXT_BYTES];

	if (move->ran.uncertainty_ns != GCLK_UNBOUNDED && move->planned.ns) {
		put_line("resumed", "%s %s than planned",
			 text_approx(span, late < 0 ? gclk_sub_sat(0, late) : late),
			 late < 0 ? "earlier" : "later");
	}
}

static void put_circumstances(const struct move *move)
{
	char a[TEXT_BYTES], b[TEXT_BYTES];

	put_instant("stopped", &move->stopped, move->stopped_basis);
	put_instant("ran", &move->ran, move->ran_basis);
	put_late(move);
	if (move->blackout_ns) {
		put_line("blackout", "%s%s%s%s", text_approx(a, move->blackout_ns),
			 move->hold_ns ? ", of which " : "",
			 move->hold_ns ? text_approx(b, move->hold_ns) : "",
			 move->hold_ns ? " held for the planned instant" : "");
	}
	if (move->gap_ns) {
		put_line("gap", "%s", text_span(a, move->gap_ns));
	}
	if (move->disagreement.uncertainty_ns != GCLK_UNBOUNDED ||
	    move->disagreement_basis[0]) {
		put_line("wall clocks", "destination minus source %s %s%s%s%s",
			 text_approx(a, move->disagreement.ns),
			 text_uncertain(b, move->disagreement.uncertainty_ns),
			 move->disagreement_basis[0] ? " (" : "",
			 move->disagreement_basis,
			 move->disagreement_basis[0] ? ")" : "");
	}
	if (move->round_trip_ns) {
		put_line("round trip", "%s at least",
			 text_approx(a, (int64_t)GCLK_MIN(move->round_trip_ns,
							  (uint64_t)INT64_MAX)));
	}
}

/* What the guest finds: "-0.31 ms" is slow by that. */
static int put_clocks(const struct move *move)
{
	static const char *const headings[] = { "CLOCK", ">SET FORWARD BY", ">OFF BY",
						">BOUND" };
	struct table table;

	table_begin(&table, 4, headings);
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		const struct move_clock *clock = &move->clocks[i];
		char forward[TEXT_BYTES], off[TEXT_BYTES], bound[TEXT_BYTES];

		table_row(&table, clock->clock,
			  text_approx(forward, clock->correction_ns),
			  text_approx(off, clock->error_ns),
			  text_uncertain(bound, clock->bound_ns));
	}
	if (move->n_clocks) {
		putchar('\n');
	}
	return table_end(&table, stdout);
}

/* "tsc: verified by tsc-offset: it reads 0.02 ms more than planned, to 0.4 us". */
static void put_proofs(const struct move *move)
{
	static const char *const words[] = { "unverified", "verified", "NOT AS PLANNED" };
	char off[TEXT_BYTES], width[TEXT_BYTES];
	const char *label = "read back";

	for (uint32_t i = 0; i < move->n_clocks; i++) {
		const struct move_clock *c = &move->clocks[i];

		if (c->read_by[0]) {
			put_line(label, "%s %s: %s from what was planned, %s by %s%s%s",
				 c->clock, words[c->proof], text_approx(off, c->read_ns),
				 text_uncertain(width, c->read_width_ns), c->read_by,
				 c->unread[0] ? "; " : "", c->unread);
		} else if (c->unread[0]) {
			put_line(label, "%s unverified: %s", c->clock, c->unread);
		} else {
			continue;
		}
		label = "";
	}
}

static int put_ledger(const struct move *move)
{
	static const char *const headings[] = { "TICKS OF", ">PERIOD",	 ">OWED",
						">MISSED",  ">REPLAYED", ">MERGED",
						">DROPPED", "POLICY" };
	struct table table;

	table_begin(&table, 8, headings);
	for (uint32_t i = 0; i < move->n_ledger; i++) {
		const struct gclk_ledger_entry *e = &move->ledger[i];
		char n[5][TEXT_BYTES], period[TEXT_BYTES] = "once";

		if (e->period_ns) {
			text_approx(period,
				    (int64_t)GCLK_MIN(e->period_ns, (uint64_t)INT64_MAX));
		}
		table_row(&table, e->timer, period, text_count(n[0], e->owed_before),
			  text_count(n[1], e->missed), text_count(n[2], e->replayed),
			  text_count(n[3], e->merged), text_count(n[4], e->dropped),
			  gclk_tick_policy_names[e->policy]);
	}
	if (move->n_ledger) {
		putchar('\n');
	}
	return table_end(&table, stdout);
}

int move_print(const struct move *move)
{
	int r;

	put_title(move);
	if (move->why[0]) {
		put_line("because", "%s", move->why);
	}
	put_circumstances(move);
	r = put_clocks(move);
	put_proofs(move);
	if (r == 0) {
		r = put_ledger(move);
	}
	put_findings(&move->findings);
	return r;
}
