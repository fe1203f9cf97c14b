/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/metrics.h"
#include "migrator/output.h"

/* Upper ends of the buckets, in the form that OpenMetrics wants of numbers. */
static const struct {
	const char *le;
	uint64_t ns;
} buckets[] = {
	{ "1e-06", 1000 },	     { "1e-05", 10000 },      { "0.0001", 100000 },
	{ "0.0005", 500000 },	     { "0.001", 1000000 },    { "0.002", 2000000 },
	{ "0.005", 5000000 },	     { "0.01", 10000000 },    { "0.02", 20000000 },
	{ "0.05", 50000000 },	     { "0.1", 100000000 },    { "0.3", 300000000 },
	{ "1.0", 1000000000 },	     { "10.0", 10000000000 }, { "60.0", 60000000000 },
	{ "3600.0", 3600000000000 },
};
#define N_BUCKETS GCLK_COUNT(buckets)

struct histogram {
	uint64_t counts[N_BUCKETS]; /* each by itself */
	uint64_t count;		    /* the unbounded ones, too */
	gclk_u128 sum_ns;	    /* of the bounded ones */
};

enum span { GAP, HOLD, BLACKOUT, DISAGREEMENT, N_SPANS };

static const struct {
	const char *name, *help;
} spans[N_SPANS] = {
	[GAP] = { "gap", "True time between the stop and the planned resume." },
	[HOLD] = { "hold", "How long guests were held back for their instant." },
	[BLACKOUT] = { "blackout", "How long guests stood: stop to run." },
	[DISAGREEMENT] = { "disagreement",
			   "How far the two hosts' wall clocks were apart." },
};

static const char *const verbs[] = { "migrate", "save",	 "restore",
				     "hook",	"proxy", "other" };
#define N_VERDICTS GCLK_COUNT(move_verdict_names)

struct metrics {
	pthread_mutex_t lock;
	int64_t sessions;
	uint64_t moves[GCLK_COUNT(verbs)][N_VERDICTS];
	struct histogram spans[N_SPANS];
	struct histogram error[GCLK_N_CLOCKS], bound[GCLK_N_CLOCKS];
	uint64_t *findings; /* as many as the table has */
};

struct metrics *metrics_new(void)
{
	struct metrics *metrics = calloc(1, sizeof(*metrics));

	if (metrics) {
		metrics->findings =
			calloc(gclk_n_finding_infos, sizeof(*metrics->findings));
	}
	if (!metrics || !metrics->findings || pthread_mutex_init(&metrics->lock, NULL)) {
		if (metrics) {
			free(metrics->findings);
		}
		free(metrics);
		return NULL;
	}
	return metrics;
}

struct metrics *metrics_free(struct metrics *metrics)
{
	if (metrics) {
		pthread_mutex_destroy(&metrics->lock);
		free(metrics->findings);
		free(metrics);
	}
	return NULL;
}

/* ---- counting ---- */

static uint64_t magnitude(int64_t ns)
{
	return ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
}

static void observe(struct histogram *histogram, uint64_t ns)
{
	histogram->count++;
	if (ns == GCLK_UNBOUNDED) {
		return;
	}
	histogram->sum_ns += ns;
	for (unsigned i = 0; i < N_BUCKETS; i++) {
		if (ns <= buckets[i].ns) {
			histogram->counts[i]++;
			return;
		}
	}
}

static unsigned verb_of(const struct move *move)
{
	unsigned i = 0;

	while (i < GCLK_COUNT(verbs) - 1 && strcmp(verbs[i], move->verb)) {
		i++;
	}
	return i;
}

static void count_clocks(struct metrics *metrics, const struct move *move)
{
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		for (unsigned clock = 0; clock < GCLK_N_CLOCKS; clock++) {
			if (!strcmp(gclk_clock_names[clock], move->clocks[i].clock)) {
				observe(&metrics->error[clock],
					magnitude(move->clocks[i].error_ns));
				observe(&metrics->bound[clock], move->clocks[i].bound_ns);
			}
		}
	}
}

/* One that was refused or cancelled has no gap, and its clocks went nowhere. */
static void count_carried_out(struct metrics *metrics, const struct move *move)
{
	if (move->gap_ns) {
		observe(&metrics->spans[GAP], magnitude(move->gap_ns));
	}
	if (move->blackout_ns) {
		observe(&metrics->spans[BLACKOUT], magnitude(move->blackout_ns));
		observe(&metrics->spans[HOLD], magnitude(move->hold_ns));
	}
	count_clocks(metrics, move);
}

void metrics_count(struct metrics *metrics, const struct move *move)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->moves[verb_of(move)][move->verdict < N_VERDICTS ? move->verdict : 0]++;
	if (move->verdict <= MOVE_UNTOUCHED) {
		count_carried_out(metrics, move);
	}
	if (move->disagreement.uncertainty_ns != GCLK_UNBOUNDED) {
		observe(&metrics->spans[DISAGREEMENT], magnitude(move->disagreement.ns));
	}
	for (unsigned i = 0; i < move->findings.n; i++) {
		metrics->findings[move->findings.items[i].info - gclk_finding_table]++;
	}
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_session(struct metrics *metrics, int step)
{
	pthread_mutex_lock(&metrics->lock);
	metrics->sessions += step;
	pthread_mutex_unlock(&metrics->lock);
}

/* ---- text ---- */

/* "# TYPE guestclock_moves counter": before OpenMetrics the type was that of the sample. */
static void put_head(FILE *to, enum metrics_form form, const char *name, const char *type,
		     const char *unit, const char *help)
{
	const char *suffix = "";

	if (form == METRICS_PROMETHEUS && !strcmp(type, "counter")) {
		suffix = "_total";
	} else if (form == METRICS_PROMETHEUS && !strcmp(type, "info")) {
		suffix = "_info";
		type = "gauge";
	}
	fprintf(to, "# HELP guestclock_%s%s %s\n", name, suffix, help);
	fprintf(to, "# TYPE guestclock_%s%s %s\n", name, suffix, type);
	if (form == METRICS_OPENMETRICS && unit) {
		fprintf(to, "# UNIT guestclock_%s %s\n", name, unit);
	}
}

/* @label is "" or "clock=\"tsc\"". */
static void put_histogram(FILE *to, const char *name, const char *label,
			  const struct histogram *histogram)
{
	const char *comma = label[0] ? "," : "", *open = label[0] ? "{" : "",
		   *close = label[0] ? "}" : "";
	uint64_t below = 0;

	for (unsigned i = 0; i < N_BUCKETS; i++) {
		below += histogram->counts[i];
		fprintf(to, "guestclock_%s_seconds_bucket{%s%sle=\"%s\"} %" PRIu64 "\n",
			name, label, comma, buckets[i].le, below);
	}
	fprintf(to, "guestclock_%s_seconds_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name,
		label, comma, histogram->count);
	fprintf(to, "guestclock_%s_seconds_sum%s%s%s %" PRIu64 ".%09" PRIu64 "\n", name,
		open, label, close, (uint64_t)(histogram->sum_ns / GCLK_NS_PER_S),
		(uint64_t)(histogram->sum_ns % GCLK_NS_PER_S));
	fprintf(to, "guestclock_%s_seconds_count%s%s%s %" PRIu64 "\n", name, open, label,
		close, histogram->count);
}

static void put_moves(FILE *to, enum metrics_form form, const struct metrics *metrics)
{
	put_head(to, form, "moves", "counter", NULL,
		 "Moves of guests that have ended, by verb and verdict.");
	for (unsigned v = 0; v < GCLK_COUNT(verbs); v++) {
		for (unsigned i = 0; i < N_VERDICTS; i++) {
			/* those that happen are there from the start: a rate needs a zero */
			if (strcmp(verbs[v], "other") || metrics->moves[v][i]) {
				fprintf(to,
					"guestclock_moves_total{verb=\"%s\",verdict=\"%"
					"s\"} %" PRIu64 "\n",
					verbs[v], move_verdict_names[i],
					metrics->moves[v][i]);
			}
		}
	}
}

static void put_clocks(FILE *to, enum metrics_form form, const char *name,
		       const char *help, const struct histogram histograms[GCLK_N_CLOCKS])
{
	char full[32];

	snprintf(full, sizeof(full), "%s_seconds", name);
	put_head(to, form, full, "histogram", "seconds", help);
	for (unsigned i = 0; i < GCLK_N_CLOCKS; i++) {
		char label[48];

		snprintf(label, sizeof(label), "clock=\"%s\"", gclk_clock_names[i]);
		if (histograms[i].count) {
			put_histogram(to, name, label, &histograms[i]);
		}
	}
}

static void put_spans(FILE *to, enum metrics_form form, const struct metrics *metrics)
{
	for (unsigned i = 0; i < N_SPANS; i++) {
		char full[32];

		snprintf(full, sizeof(full), "%s_seconds", spans[i].name);
		put_head(to, form, full, "histogram", "seconds", spans[i].help);
		put_histogram(to, spans[i].name, "", &metrics->spans[i]);
	}
}

static void put_findings(FILE *to, enum metrics_form form, const struct metrics *metrics)
{
	put_head(to, form, "findings", "counter", NULL,
		 "Findings about moves, by their id.");
	for (unsigned i = 0; i < gclk_n_finding_infos; i++) {
		if (metrics->findings[i]) {
			fprintf(to, "guestclock_findings_total{id=\"%s\"} %" PRIu64 "\n",
				gclk_finding_table[i].id, metrics->findings[i]);
		}
	}
}

static void put_all(FILE *to, enum metrics_form form, const struct metrics *metrics)
{
	put_head(to, form, "build", "info", NULL, "This release.");
	fprintf(to, "guestclock_build_info{version=\"%s\"} 1\n", GUESTCLOCK_VERSION);
	put_head(to, form, "sessions", "gauge", NULL, "Moves in progress.");
	fprintf(to, "guestclock_sessions %" PRId64 "\n", metrics->sessions);
	put_moves(to, form, metrics);
	put_spans(to, form, metrics);
	put_clocks(to, form, "clock_error",
		   "Known error of a guest's clock after a move.", metrics->error);
	put_clocks(to, form, "clock_bound",
		   "What a clock's other error is less than; "
		   "unbounded ones count in +Inf alone.",
		   metrics->bound);
	put_findings(to, form, metrics);
	if (form == METRICS_OPENMETRICS) {
		fputs("# EOF\n", to);
	}
}

char *metrics_render(struct metrics *metrics, enum metrics_form form, size_t *ret_size)
{
	char *text = NULL;
	FILE *to = open_memstream(&text, ret_size);

	if (!to) {
		return NULL;
	}
	pthread_mutex_lock(&metrics->lock);
	put_all(to, form, metrics);
	pthread_mutex_unlock(&metrics->lock);
	if (fclose(to) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- where it goes ---- */

static int64_t monotonic_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* Until the socket is ready, or the end; who comes with one byte a second does not stay. */
static bool wait_for(int fd, short events, int64_t end_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left = end_ms - monotonic_ms();

	return left > 0 && poll(&p, 1, (int)left) > 0;
}

/* The question; what is longer than @size is nobody's. Returns whether it is an HTTP one. */
static bool read_question(int fd, char *to, size_t size, int64_t end_ms)
{
	size_t n = 0;

	to[0] = 0;
	while (n + 1 < size && !strstr(to, "\r\n\r\n") && !strstr(to, "\n\n") &&
	       wait_for(fd, POLLIN, end_ms)) {
		ssize_t got = recv(fd, to + n, size - 1 - n, MSG_DONTWAIT);

		if (got <= 0 && (got == 0 || (errno != EINTR && errno != EAGAIN))) {
			break;
		}
		n += got > 0 ? (size_t)got : 0;
		to[n] = 0;
	}
	return !strncmp(to, "GET ", 4) || !strncmp(to, "HEAD ", 5);
}

static void send_all(int fd, const char *text, size_t size, int64_t end_ms)
{
	while (size && wait_for(fd, POLLOUT, end_ms)) {
		ssize_t n = send(fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			return;
		}
		text += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
}

#define OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define PROMETHEUS_TYPE "text/plain; version=0.0.4; charset=utf-8"

static void answer(struct metrics *metrics, int fd, const char *question, bool is_http,
		   int64_t end_ms)
{
	enum metrics_form form =
		!is_http || strstr(question, "application/openmetrics-text")
			? METRICS_OPENMETRICS
			: METRICS_PROMETHEUS;
	char head[256];
	size_t size = 0;
	char *text = metrics_render(metrics, form, &size);

	if (is_http) {
		int n = snprintf(
			head, sizeof(head),
			"HTTP/1.0 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			"Connection: close\r\n\r\n",
			text ? "200 OK" : "503 Service Unavailable",
			form == METRICS_OPENMETRICS ? OPENMETRICS_TYPE : PROMETHEUS_TYPE,
			size);

		send_all(fd, head, (size_t)n, end_ms);
	}
	if (text && strncmp(question, "HEAD ", 5)) {
		send_all(fd, text, size, end_ms);
	}
	free(text);
}

void metrics_serve(struct metrics *metrics, int fd, int timeout_ms)
{
	int64_t end_ms = monotonic_ms() + timeout_ms;
	char question[4096];
	bool is_http = read_question(fd, question, sizeof(question), end_ms);

	answer(metrics, fd, question, is_http, monotonic_ms() + timeout_ms);
	shutdown(fd, SHUT_WR);
	close(fd);
}

int metrics_write(struct metrics *metrics, const char *path, struct gclk_error *reterr)
{
	size_t size = 0;
	char *text = metrics_render(metrics, METRICS_PROMETHEUS, &size);
	int r;

	if (!text) {
		return gclk_fail(reterr, GCLK_NOMEM, path, GCLK_NO_OFFSET,
				 "out of memory");
	}
	r = write_whole(path, text, size, reterr);
	free(text);
	return r;
}
