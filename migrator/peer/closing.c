/* SPDX-License-Identifier: MIT */
/* What becomes of a session once its last byte has gone, or once it is clear that it will not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/peer/session.h"

#define ARRIVE_NS                                                                        \
	(30 * GCLK_NS_PER_S)	    /* for the guest to stand there after its instant */
#define SHUT_NS (2 * GCLK_NS_PER_S) /* for the hypervisor's last word */
#define TOLERANCE_NS (2 * GCLK_NS_PER_MS)
#define BYE_NS (2 * GCLK_NS_PER_S) /* for the other end to have read the report */

static void learn(struct session *s, const char *kind, int64_t delay_ns)
{
	struct gclk_error error;

	if (s->options.margins_path[0] &&
	    margins_learn(s->options.margins_path, kind, delay_ns, &error) < 0) {
		session_log(s, 4, "what was learnt is not kept: %s: %s", error.where,
			    error.message);
	}
}

/* Whoever may connect could fill the log with moves of which nothing ever came. */
static bool has_begun(struct session *s)
{
	bool began;

	pthread_mutex_lock(&s->lock);
	began = s->began;
	pthread_mutex_unlock(&s->lock);
	return began;
}

static void put_report(struct session *s, const struct move *report)
{
	struct wire_message m = { .type = WIRE_REPORT };
	struct gclk_error error;

	if (!strcmp(s->move.verb, "hosts")) {
		return; /* it asked what this host can do: no guest was to move */
	}
	if (s->options.ended) {
		s->options.ended(report);
	}
	m.report.json = move_to_text(report, &m.report.size);
	if (!m.report.json) {
		session_log(s, 3, "the report did not reach the source: out of memory");
	} else if (port_send(s->port, &m, NULL, &error) < 0) {
		session_log(s, 5, "the report did not reach the source: %s", error.message);
	}
	free(m.report.json);
	if (s->options.audit_path[0] && has_begun(s) &&
	    move_audit(report, s->options.audit_path, &error) < 0) {
		session_log(s, 3, "the audit log: %s: %s", error.where, error.message);
	}
}

/* The end of the hypervisor's load, as its last word on the main channel shows it. */
static bool wait_shut(struct session *s, int64_t for_ns)
{
	int64_t deadline = clock_mono_ns() + for_ns;
	bool shut;

	pthread_mutex_lock(&s->lock);
	while (!s->shut_ns && !s->main_over && session_wait(s, deadline)) {
	}
	shut = s->shut_ns != 0;
	pthread_mutex_unlock(&s->lock);
	return shut;
}

/*
 * The load ended between the last byte's release and the hypervisor's last word. Clocks
 * that count from it are off by as much as the plan's instant is: where that is more than
 * the plan allowed for, their bounds grow.
 */
static void check_load(struct session *s)
{
	int64_t early = gclk_sub_sat(s->shut_ns, s->load.ns);
	int64_t late = gclk_sub_sat(s->load.ns, s->released_ns);
	int64_t off = GCLK_MAX(early, late);

	for (uint32_t i = 0; s->run_ns && i < s->report.n_clocks; i++) {
		struct move_clock *clock = &s->report.clocks[i];

		if (clock->start == GCLK_START_LOAD &&
		    clock->bound_ns != GCLK_UNBOUNDED && off > 0 &&
		    (uint64_t)off > s->load.uncertainty_ns) {
			clock->bound_ns += (uint64_t)off - s->load.uncertainty_ns;
		}
	}
}

/* One that was late although it seemed ready was not: what made it wait counts. */
static int64_t ready_in_fact(const struct session *s, const struct destination_ran *ran)
{
	bool late = ran->at.uncertainty_ns != GCLK_UNBOUNDED &&
		    gclk_sub_sat(ran->at.ns, s->run_ns) > TOLERANCE_NS;

	return late ? GCLK_MAX(ran->at.ns, ran->ready_ns) : ran->ready_ns;
}

static void take_ran(struct session *s, const struct destination_ran *ran)
{
	struct move *move = &s->report;

	if (ran->ready_ns > 0 && s->released_ns > 0 && s->run_ns) {
		learn(s, s->move.own_resume ? "ready" : "resume",
		      ready_in_fact(s, ran) - s->released_ns);
		move->hold_ns = GCLK_MAX(ran->at.ns - ran->ready_ns, 0);
	}
	if (move->stopped.uncertainty_ns != GCLK_UNBOUNDED && s->run_ns) {
		move->blackout_ns =
			gclk_sub_sat(gclk_sub_sat(ran->at.ns, move->stopped.ns),
				     move->disagreement.ns);
	}
	if (s->run_ns) {
		move_ran(move, &ran->at, ran->until_ns, ran->basis, TOLERANCE_NS);
	} else {
		move->ran = ran->at;
		gclk_text_copy(move->ran_basis, sizeof(move->ran_basis), ran->basis);
	}
}

/* Nobody tells when it ran: as planned, perhaps. */
static void predict(struct session *s)
{
	struct destination_ran ran = { .at = { s->run_ns, GCLK_UNBOUNDED },
				       .basis = "predicted" };

	if (s->run_ns) {
		take_ran(s, &ran);
	}
}

static void resume(struct session *s)
{
	const struct destination_resume *ops = s->options.resume;
	struct destination_ran ran = { 0 };
	struct wall_line line = s->line;
	struct gclk_error error;
	int64_t run = s->run_ns;
	int r;

	if (!run) { /* nothing was planned: by the clock as it is now */
		wall_line_begin(&line);
		run = wall_line_ns(&line);
	}
	r = s->move.own_resume
		    ? ops->at(s->resume, &line, s->pid, run, run + ARRIVE_NS, &ran, &error)
		    : ops->watch(s->resume, &line, run + ARRIVE_NS, &ran, &error);
	if (r == 0) {
		take_ran(s, &ran);
		if (s->run_ns) {
			move_wall_set(&s->report, &s->proof.rtc, wall_line_step_ns(&line));
		}
		return;
	}
	session_log(s, 3, "the resume: %s", error.message);
	if (r == -GCLK_STATE && s->move.own_resume) {
		s->report.verdict = MOVE_CANCELLED;
		snprintf(s->report.why, sizeof(s->report.why), "%.250s", error.message);
		return;
	}
	predict(s);
}

/*
 * What the guest's clocks are now (R7); the monitor only if the operator wants it asked, and of
 * that guest, not of another one whose name the source may have given.
 */
static void verify(struct session *s, bool resumes)
{
	bool ask = s->move.ask_monitor && resumes && s->is_guests && s->options.resume->ask;

	if (s->run_ns) {
		proof_read(&s->proof, "", s->pid, ask ? s->options.resume->ask : NULL, s->resume,
			   &s->report);
	}
}

void session_conclude(struct session *s)
{
	struct move *move = &s->report;
	bool over = s->state == SESSION_PASSING;
	bool resumes = s->resume && (s->runs || (over && s->move.running != 0));

	move->written_ns = wall_clock_ns();
	if (resumes) {
		resume(s);
	} else if (s->runs) {
		predict(s);
	}
	if (!over && wait_shut(s, resumes ? 0 : SHUT_NS)) {
		check_load(s);
		learn(s, "load", s->shut_ns - s->released_ns);
	} else if (!over && !resumes && s->main_error.status) {
		move->verdict = MOVE_UNPROVEN;
		snprintf(move->why, sizeof(move->why),
			 "the hypervisor did not confirm: %.200s", s->main_error.message);
	}
	verify(s, resumes);
	move->written_ns = wall_clock_ns();
	put_report(s, move);
	session_log(s, 6, "%s: gap %lld ns, blackout %lld ns",
		    move_verdict_names[move->verdict], (long long)move->gap_ns,
		    (long long)move->blackout_ns);
}

/* The session's report is the main channel's until its thread has gone. */
static bool wait_main_over(struct session *s, int64_t deadline)
{
	bool over;

	pthread_mutex_lock(&s->lock);
	while (s->has_main && !s->main_over && session_wait(s, deadline)) {
	}
	over = !s->has_main || s->main_over;
	pthread_mutex_unlock(&s->lock);
	return over;
}

void session_give_up(struct session *s)
{
	int64_t deadline = clock_mono_ns() + BYE_NS;
	struct wire_message m;
	struct move *report = &s->report, alone;

	if (!wait_main_over(s, deadline)) {
		/* it may be amid a plan: what it says of that is not waited for */
		session_report_init(s, &alone);
		report = &alone;
	}
	report->verdict = s->refused ? MOVE_REFUSED : MOVE_CANCELLED;
	snprintf(report->why, sizeof(report->why), "%s", s->why.message);
	report->written_ns = wall_clock_ns();
	session_log(s, s->refused ? 4 : 5, "%s: %s", move_verdict_names[report->verdict],
		    s->why.message);
	put_report(s, report);
	port_sorry(s->port, &s->why);
	link_shut(&s->port->link);
	/* a connection closed with unread bytes takes what was sent with it */
	deadline = clock_mono_ns() + BYE_NS;
	while (clock_mono_ns() < deadline &&
	       port_receive(s->port, &m, deadline, -1, NULL) == 0) {
		wire_clear(&m);
	}
}
