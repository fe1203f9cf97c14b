/* SPDX-License-Identifier: MIT */
/*
 * The main channel at the destination. Memory passes; the device state is held until it is
 * whole. Then, while the guest stands still:
 *
 *	when did it stop?	the source's word, or when which bytes passed its end
 *	how far apart are the clocks?	the exchange
 *	when will it run?	what earlier moves teach
 *	plan, patch, send all but the last byte
 *	the gate: T_load has come, both ends are healthy, nobody has cancelled
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <guestclock/image.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/peer/relay.h"
#include "migrator/peer/session.h"

#define STOPPED_WAIT_NS (5 * GCLK_NS_PER_MS) /* for the source's word, once all is here */
#define BURST_WAIT_NS (GCLK_NS_PER_MS / 2)   /* the last answer is 50 ms old at most */
#define THERE_WAIT_NS (2 * GCLK_NS_PER_S)
#define PATCH_NS (1 * GCLK_NS_PER_MS) /* plan, patch and send: the last byte goes then */
#define LOAD_USUAL_NS (2 * GCLK_NS_PER_MS) /* from the last byte to the end of the load */
#define RESUME_USUAL_NS                                                                  \
	(16 * GCLK_NS_PER_MS)		 /* ... until a manager says that it stands */
#define UNLEARNT_NS (5 * GCLK_NS_PER_MS) /* how far off those can be */

struct main_channel {
	struct session *session;
	struct link *a, *b;
	struct gclk_filter *filter;
	struct gclk_plan *plan;
	struct wire_stopped stopped; /* what the plan is made with */
	int64_t stopped_boot_ns;
	uint64_t ran_offset, stopped_offset;
	bool final;	    /* the last round has begun: the guest stands */
	int64_t release_ns; /* CLOCK_MONOTONIC: not before */
};

/* ---- what flows ---- */

static void note_phase(struct main_channel *m, uint64_t before)
{
	struct session *s = m->session;
	enum gclk_filter_phase phase = gclk_filter_phase(m->filter);

	if (m->final || phase < GCLK_FILTER_FINAL || phase > GCLK_FILTER_WHOLE) {
		return;
	}
	m->final = true;
	m->ran_offset = before;
	m->stopped_offset = gclk_filter_offset(m->filter) - 1;
	pthread_mutex_lock(&s->lock);
	s->want_burst = true;
	pthread_mutex_unlock(&s->lock);
	session_wake(s);
}

static void note_passing(struct main_channel *m)
{
	struct session *s = m->session;

	pthread_mutex_lock(&s->lock);
	if (s->state == SESSION_OPEN) {
		s->state = SESSION_PASSING;
		s->report.verdict = MOVE_UNTOUCHED;
		s->report.findings = *gclk_filter_findings(m->filter);
		gclk_text_copy(s->report.why, sizeof(s->report.why),
			       s->report.findings.n ? s->report.findings.items[0].message
						    : "the stream cannot be filtered");
		session_log(s, 4, "it passes untouched: %.200s", s->report.why);
	}
	pthread_mutex_unlock(&s->lock);
}

static int note_push(struct main_channel *m, int r, uint64_t before)
{
	if (r >= 0) {
		note_phase(m, before);
	}
	if (r == GCLK_FILTER_OFF && session_state(m->session) == SESSION_OPEN) {
		note_passing(m);
	}
	return r;
}

static int push(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		size_t *ret_held, struct gclk_error *reterr)
{
	struct main_channel *m = ctx;
	uint64_t before = gclk_filter_offset(m->filter);

	return note_push(m, gclk_filter_push(m->filter, bytes, n, ret_pass, ret_held, reterr),
			 before);
}

static int push_most(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		     size_t *ret_held, struct gclk_error *reterr)
{
	struct main_channel *m = ctx;
	uint64_t before = gclk_filter_offset(m->filter);

	return note_push(m,
			 gclk_filter_push_most(m->filter, bytes, n, ret_pass, ret_held, reterr),
			 before);
}

static int quiet(void *ctx, struct gclk_error *reterr)
{
	struct main_channel *m = ctx;

	return gclk_filter_phase(m->filter) == GCLK_FILTER_TAIL
		       ? gclk_filter_quiet(m->filter, reterr)
		       : GCLK_FILTER_MORE;
}

/* ---- when it stopped ---- */

/* The source's word. The lock is held. */
static bool wait_stopped(struct session *s)
{
	int64_t deadline = clock_mono_ns() + (s->move.tells_stop ? STOPPED_WAIT_NS : 0);

	while (!s->has_stopped && s->state == SESSION_OPEN && session_wait(s, deadline)) {
	}
	return s->has_stopped;
}

/* Which bytes passed the source end when. The lock is held. */
static int ask_where(struct main_channel *m, struct gclk_error *reterr)
{
	struct session *s = m->session;
	struct wire_message where = { .type = WIRE_WHERE };
	int64_t deadline = clock_mono_ns() + THERE_WAIT_NS;
	int r;

	where.where.number = 1;
	where.where.ran_offset = m->ran_offset;
	where.where.stopped_offset = m->stopped_offset;
	pthread_mutex_unlock(&s->lock);
	r = session_send(s, &where, reterr);
	pthread_mutex_lock(&s->lock);
	while (r == 0 && !s->has_there && !s->has_stopped && s->state == SESSION_OPEN &&
	       session_wait(s, deadline)) {
	}
	if (r < 0 || s->has_there || s->has_stopped) {
		return r;
	}
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the source end does not say when the guest stopped");
}

static int find_stop(struct main_channel *m, struct gclk_error *reterr)
{
	struct session *s = m->session;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (!wait_stopped(s)) {
		r = ask_where(m, reterr);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void wait_burst(struct session *s)
{
	int64_t deadline = clock_mono_ns() + BURST_WAIT_NS;

	pthread_mutex_lock(&s->lock);
	while ((s->want_burst || s->asker.burst || !s->asker.exchanges.n) &&
	       s->state == SESSION_OPEN && session_wait(s, deadline)) {
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- when it will run ---- */

static uint64_t spread(const struct margin *margin)
{
	int64_t off = GCLK_MAX(margin->high_ns - margin->ns, margin->ns - margin->low_ns);

	return (uint64_t)(margin->n < MARGINS_FEW ? GCLK_MAX(off, UNLEARNT_NS)
					: GCLK_MAX(off, GCLK_NS_PER_MS));
}

static struct margin learnt(const struct session *s, const char *kind, int64_t usual_ns,
			    int64_t max_hold_ns)
{
	struct margins margins = { 0 };

	if (s->options.margins_path[0]) {
		margins_read(s->options.margins_path, kind, &margins);
	}
	return margins_choose(&margins, usual_ns, max_hold_ns);
}

/* Of whoever resumes guests here; 0: nobody can tell. */
static uint64_t slowness_milli(const struct session *s)
{
	return s->resume ? s->options.resume->slow_milli(s->resume) : 0;
}

static void choose_instants(struct main_channel *m, struct gclk_when *when)
{
	struct session *s = m->session;
	int64_t hold = GCLK_MIN(s->move.max_hold_ns, s->options.max_hold_ns);
	int64_t release = wall_line_ns(&s->line) + PATCH_NS;
	struct margin load = learnt(s, "load", LOAD_USUAL_NS, INT64_MAX);
	struct margin run;

	m->release_ns = clock_mono_ns() + PATCH_NS;
	when->load.ns = release + load.ns;
	when->load.uncertainty_ns = spread(&load);
	if (s->move.own_resume) {
		run = learnt(s, "ready",
			     margins_guess(RESUME_USUAL_NS, margins_load_milli(),
					   (uint64_t)sysconf(_SC_NPROCESSORS_ONLN),
					   slowness_milli(s), hold),
			     hold);
		when->run.ns = release + GCLK_MAX(run.ns, load.ns);
		when->run.uncertainty_ns =
			0; /* it is kept, or the lateness is measured */
	} else {
		run = learnt(s, "resume", load.ns, INT64_MAX);
		when->run.ns = release + GCLK_MAX(run.ns, load.ns);
		when->run.uncertainty_ns = spread(&run);
	}
	when->run_tai_s = s->host.tai_offset_s;
	when->captured_tai_s = s->move.host.tai_offset_s;
}

/* ---- the plan ---- */

/* A live gap is not negative, and began while both ends were connected. */
static int check_gap(const struct main_channel *m, const struct gclk_when *when,
		     const struct gclk_disagreement *d, struct gclk_error *reterr)
{
	int64_t now = boot_clock_ns();
	int64_t ahead = gclk_sub_sat(when->run.ns, wall_line_ns(&m->session->line));
	int64_t here = gclk_add_sat(now - m->session->opened_ns, ahead);
	int64_t there = gclk_add_sat(
		gclk_add_sat(m->stopped.age_ns, now - m->stopped_boot_ns), ahead);
	int64_t gap = gclk_sub_sat(gclk_sub_sat(when->run.ns, when->captured.ns), d->ns);

	if (port_wall_was_set(m->session->port)) {
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "a gap of %lld ns cannot be told: this host's wall clock was set "
				 "a moment before", (long long)gap);
	}
	if (gap < 0 || gap > here || gap > there) {
		return gclk_fail(
			reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			"a gap of %lld ns cannot be: the connection is %lld ns old "
			"here, %lld ns there",
			(long long)gap, (long long)here, (long long)there);
	}
	return 0;
}

static void take_stop(struct main_channel *m, struct gclk_when *when)
{
	struct session *s = m->session;

	pthread_mutex_lock(&s->lock);
	s->stop_taken = true;
	m->stopped = s->stopped;
	m->stopped_boot_ns = s->stopped_boot_ns;
	pthread_mutex_unlock(&s->lock);
	when->captured = m->stopped.at;
	s->report.stopped = m->stopped.at;
	gclk_text_copy(s->report.stopped_basis, sizeof(s->report.stopped_basis),
		       m->stopped.basis);
}

static int take_disagreement(struct session *s, const struct gclk_when *when,
			     struct gclk_disagreement *d, struct gclk_error *reterr)
{
	pthread_mutex_lock(&s->lock);
	gclk_exchanges_over(&s->asker.exchanges, when->captured.ns, when->run.ns, d);
	s->report.round_trip_ns =
		s->asker.exchanges.n ? s->asker.exchanges.round_trip_ns : 0;
	pthread_mutex_unlock(&s->lock);
	if (d->uncertainty_ns == GCLK_UNBOUNDED) {
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "the source end has not answered what time it is");
	}
	s->report.disagreement = *d;
	gclk_text_copy(s->report.disagreement_basis, sizeof(s->report.disagreement_basis),
		       "exchange");
	return 0;
}

/* The limit on how far the clocks may be apart: a matter of trust, not of arithmetic. */
static int check_disagreement(struct session *s, const struct gclk_disagreement *d,
			      struct gclk_findings *findings, struct gclk_error *reterr)
{
	uint64_t apart = gclk_span_magnitude_ns(gclk_span_of_ns(d->ns));
	char text[160];

	if (s->move.disagree == PEER_CORRECT || apart <= s->move.disagree_limit_ns) {
		return 0;
	}
	snprintf(text, sizeof(text),
		 "the two hosts' wall clocks are %llu ns apart, more than "
		 "the limit of %llu ns",
		 (unsigned long long)apart,
		 (unsigned long long)s->move.disagree_limit_ns);
	if (s->move.disagree == PEER_REFUSE_APART) {
		return gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET, "%s", text);
	}
	gclk_findings_add(findings, "hosts-apart", "",
			  "%s; the guest is carried by the measured "
			  "relation",
			  text);
	return 0;
}

static int refusal(const struct gclk_plan *plan, struct gclk_error *reterr)
{
	for (unsigned i = 0; i < plan->findings.n; i++) {
		const struct gclk_finding *f = &plan->findings.items[i];

		if (f->info && f->info->refuses && !f->forced) {
			return gclk_fail(reterr, GCLK_REFUSED, f->info->id,
					 GCLK_NO_OFFSET, "%.250s", f->message);
		}
	}
	return gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
			 "the plan is refused");
}

static int make_plan(struct main_channel *m, struct gclk_error *reterr)
{
	struct session *s = m->session;
	const struct gclk_state *state = gclk_filter_state(m->filter);
	const struct gclk_carrier *carrier = gclk_filter_carrier(m->filter);
	struct gclk_policy policy = s->move.policy;
	struct gclk_disagreement d;
	struct gclk_when when = { 0 };
	int r;

	policy.force = s->force;
	m->plan = gclk_plan_new(state->n_vcpus);
	if (!m->plan) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a plan");
	}
	r = find_stop(m, reterr);
	if (r < 0) {
		return r;
	}
	wait_burst(s);
	take_stop(m, &when);
	wall_line_begin(&s->line);
	choose_instants(m, &when);
	if ((r = take_disagreement(s, &when, &d, reterr)) < 0 ||
	    (r = check_gap(m, &when, &d, reterr)) < 0) {
		return r;
	}
	r = gclk_plan(state, carrier, &s->host, &when, &d, &policy, m->plan, reterr);
	if (r == 0) {
		r = check_disagreement(s, &d, &m->plan->findings, reterr);
	} else if (r == -GCLK_REFUSED) {
		r = refusal(m->plan, reterr);
	}
	if (r == 0 || r == -GCLK_REFUSED) {
		move_take_plan(&s->report, state, carrier, &s->host, m->plan);
	}
	if (r == 0) {
		proof_take(&s->proof, m->plan->state, carrier, &s->host, &when);
		s->run_ns = when.run.ns;
		s->load = when.load;
	}
	return r;
}

/* ---- what was held ---- */

static bool guest_runs(const struct main_channel *m)
{
	int running = m->session->move.running;

	return (running >= 0 ? running : gclk_filter_was_running(m->filter)) != 0;
}

static void leave_untouched(struct session *s, const char *why)
{
	s->report.verdict = MOVE_UNTOUCHED;
	snprintf(s->report.why, sizeof(s->report.why), "%s", why);
}

static int ready(void *ctx, const uint8_t **ret_bytes, size_t *ret_n,
		 struct gclk_error *reterr)
{
	struct main_channel *m = ctx;
	struct session *s = m->session;
	int r = 0;

	m->release_ns = 0;
	if (!gclk_filter_state(m->filter)) {
		note_passing(m);
		return gclk_filter_apply(m->filter, NULL, ret_bytes, ret_n, reterr);
	}
	s->runs = guest_runs(m);
	if (!s->runs) {
		leave_untouched(s,
				"the guest was suspended before the move, and stays so");
		return gclk_filter_apply(m->filter, NULL, ret_bytes, ret_n, reterr);
	}
	r = make_plan(m, reterr);
	if (r < 0) {
		return r;
	}
	s->report.verdict = MOVE_DONE;
	return gclk_filter_apply(m->filter, m->plan, ret_bytes, ret_n, reterr);
}

static void sleep_until(int64_t mono_ns)
{
	struct timespec t = { mono_ns / GCLK_NS_PER_S, mono_ns % GCLK_NS_PER_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
	}
}

static int gate(void *ctx, struct gclk_error *reterr)
{
	struct main_channel *m = ctx;
	struct session *s = m->session;
	bool healthy;
	int r = 0;

	if (m->release_ns) {
		sleep_until(m->release_ns);
	}
	healthy = link_is_healthy(m->a) && link_is_healthy(m->b);
	pthread_mutex_lock(&s->lock);
	if (s->state == SESSION_BROKEN) {
		r = gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "%s",
			      s->why.message);
	} else if (!healthy) {
		r = gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			      "one side is gone before the last byte");
	} else {
		s->released_ns = wall_line_ns(&s->line);
		s->state = s->state == SESSION_OPEN ? SESSION_RELEASED : s->state;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void released(void *ctx)
{
	struct main_channel *m = ctx;

	session_wake(m->session);
}

static void back(void *ctx, size_t n)
{
	struct session *s = ((struct main_channel *)ctx)->session;

	pthread_mutex_lock(&s->lock);
	if (n && s->released_ns && !s->shut_ns) {
		s->shut_ns = wall_line_ns(&s->line);
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Before the last byte has gone, the end of the input is a source that has given up. */
static int ended(void *ctx, struct gclk_error *reterr)
{
	struct main_channel *m = ctx;

	if (session_state(m->session) != SESSION_OPEN) {
		return 0;
	}
	return gclk_fail(
		reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
		"the source ended its stream after %llu bytes, before it was whole",
		(unsigned long long)gclk_filter_offset(m->filter));
}

int main_channel_run(struct session *session, struct link *a, struct link *b,
		     struct gclk_error *reterr)
{
	static const struct relay_filter filter = {
		push, push_most, quiet, ready, gate, released, back, ended
	};
	struct gclk_filter_options options = {
		.tail_bytes = session->options.tail_bytes,
		.unreadable = session->move.unreadable == PEER_REFUSE ? GCLK_FILTER_REFUSE
								      : GCLK_FILTER_PASS,
		.want_page_clock = 1,
		.worker = session->options.worker,
	};
	struct main_channel m = { .session = session, .a = a, .b = b };
	struct relay relay = {
		.a = a, .b = b, .filter = &filter, .ctx = &m, .wake = session->cancel
	};
	int r = gclk_filter_new(&options, &m.filter, reterr);

	if (r == 0) {
		relay.room = gclk_filter_room(m.filter, &relay.room_bytes);
		r = relay_run(&relay, reterr);
	}
	gclk_plan_free(m.plan);
	session->filter = m.filter;
	return r;
}
