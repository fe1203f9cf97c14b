/* SPDX-License-Identifier: MIT */
/* Moves as numbers for a monitoring system. */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/metrics.h"

static struct move *a_move(uint8_t verdict)
{
	struct move *move = malloc(sizeof(*move));

	move_init(move, "migrate");
	move->verdict = verdict;
	move->gap_ns = 40000000;
	move->blackout_ns = 45000000;
	move->hold_ns = 2000000;
	move->disagreement = (struct gclk_disagreement){ -3000000000, 50000 };
	move->n_clocks = 2;
	strcpy(move->clocks[0].clock, "tsc");
	move->clocks[0].error_ns = -150000;
	move->clocks[0].bound_ns = 900000;
	strcpy(move->clocks[1].clock, "kvmclock");
	move->clocks[1].bound_ns = GCLK_UNBOUNDED;
	gclk_findings_add(&move->findings, gclk_finding_table[3].id, "tsc", "so");
	return move;
}

static void count(struct metrics *metrics, uint8_t verdict)
{
	struct move *move = a_move(verdict);

	metrics_count(metrics, move);
	free(move);
}

/* The number of the sample, or -1. */
static long long sample(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = strstr(text, name); at; at = strstr(at + 1, name)) {
		if ((at == text || at[-1] == '\n') && at[n] == ' ') {
			return atoll(at + n);
		}
	}
	return -1;
}

GCLK_TEST(metrics, moves_are_counted_by_verdict_and_size)
{
	struct metrics *metrics = metrics_new();
	size_t size;
	char *text;

	count(metrics, MOVE_DONE);
	count(metrics, MOVE_DONE);
	count(metrics, MOVE_CANCELLED);
	metrics_session(metrics, 1);
	text = metrics_render(metrics, METRICS_OPENMETRICS, &size);
	GCLK_EQ(strlen(text), size);
	GCLK_EQ(sample(text, "guestclock_sessions"), 1);
	GCLK_EQ(sample(text, "guestclock_moves_total{verb=\"migrate\",verdict=\"done\"}"),
		2);
	GCLK_EQ(sample(text,
		       "guestclock_moves_total{verb=\"migrate\",verdict=\"cancelled\"}"),
		1);
	GCLK_EQ(sample(text, "guestclock_moves_total{verb=\"save\",verdict=\"done\"}"),
		0);
	/* one that was cancelled has no gap */
	GCLK_EQ(sample(text, "guestclock_gap_seconds_count"), 2);
	GCLK_EQ(sample(text, "guestclock_gap_seconds_bucket{le=\"0.02\"}"), 0);
	GCLK_EQ(sample(text, "guestclock_gap_seconds_bucket{le=\"0.05\"}"), 2);
	CU_ASSERT(strstr(text, "\nguestclock_gap_seconds_sum 0.080000000\n") != NULL);
	GCLK_EQ(sample(text, "guestclock_disagreement_seconds_bucket{le=\"1.0\"}"), 0);
	GCLK_EQ(sample(text, "guestclock_disagreement_seconds_bucket{le=\"10.0\"}"), 3);
	/* the size of an error, either way */
	GCLK_EQ(sample(text, "guestclock_clock_error_seconds_bucket{clock=\"tsc\",le=\"0."
			     "0001\"}"),
		0);
	GCLK_EQ(sample(text, "guestclock_clock_error_seconds_bucket{clock=\"tsc\",le=\"0."
			     "0005\"}"),
		2);
	/* an unbounded bound is in no bucket but the last, and in no sum */
	GCLK_EQ(sample(text, "guestclock_clock_bound_seconds_bucket{clock=\"kvmclock\","
			     "le=\"3600.0\"}"),
		0);
	GCLK_EQ(sample(text, "guestclock_clock_bound_seconds_bucket{clock=\"kvmclock\","
			     "le=\"+Inf\"}"),
		2);
	CU_ASSERT(strstr(text, "\nguestclock_clock_bound_seconds_sum{clock=\"kvmclock\"} "
			       "0.000000000\n") != NULL);
	CU_ASSERT(strstr(text, "guestclock_findings_total{id=") != NULL);
	free(text);
	metrics_free(metrics);
}

/* Every line is a comment that is known or a sample of the family before it. */
static void check_grammar(const char *text, bool is_openmetrics)
{
	char family[96] = "", kind[16] = "", line[256], name[96];
	uint64_t last = 0;

	for (const char *at = text; *at; at += strcspn(at, "\n") + 1) {
		snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
		if (sscanf(line, "# HELP %95s", family) == 1) {
			last = 0;
			continue;
		}
		if (sscanf(line, "# TYPE %95s %15s", name, kind) == 2 ||
		    sscanf(line, "# UNIT %95s", name) == 1) {
			CU_ASSERT_STRING_EQUAL(name, family);
			continue;
		}
		if (!strcmp(line, "# EOF")) {
			CU_ASSERT(is_openmetrics && !at[6]);
			continue;
		}
		/* of the family, and a number at the end */
		CU_ASSERT(!strncmp(line, family, strlen(family)));
		CU_ASSERT(strrchr(line, ' ') != NULL &&
			  strspn(strrchr(line, ' ') + 1, "0123456789.") ==
				  strlen(strrchr(line, ' ') + 1));
		if (strstr(line, "_bucket{")) {
			uint64_t n = strtoull(strrchr(line, ' ') + 1, NULL, 10);

			CU_ASSERT(n >= last);
			last = strstr(line, "+Inf") ? 0 : n;
			CU_ASSERT_STRING_EQUAL(kind, "histogram");
		}
		if (!strcmp(kind, "counter") && is_openmetrics) {
			CU_ASSERT(!strncmp(line + strlen(family), "_total", 6));
		}
	}
	GCLK_EQ(strcmp(text + strlen(text) - 6, "# EOF\n") == 0, is_openmetrics);
}

GCLK_TEST(metrics, both_forms_are_well_formed)
{
	struct metrics *metrics = metrics_new();
	size_t size;

	for (unsigned i = 0; i < 6; i++) {
		count(metrics, (uint8_t)i);
	}
	for (int form = METRICS_OPENMETRICS; form <= METRICS_PROMETHEUS; form++) {
		char *text = metrics_render(metrics, (enum metrics_form)form, &size);

		check_grammar(text, form == METRICS_OPENMETRICS);
		free(text);
	}
	metrics_free(metrics);
}

struct served {
	struct metrics *metrics;
	int fd;
};

static void *serve(void *arg)
{
	struct served *served = arg;

	metrics_serve(served->metrics, served->fd, 500);
	return NULL;
}

/* What a client gets that asks @question; with or without its end. */
static char *ask(struct metrics *metrics, const char *question, bool with_end)
{
	struct served served = { .metrics = metrics };
	char *text = calloc(1, 1 << 18);
	size_t used = 0;
	pthread_t thread;
	int fds[2];
	ssize_t n;

	GCLK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	served.fd = fds[1];
	GCLK_EQ(pthread_create(&thread, NULL, serve, &served), 0);
	GCLK_EQ(write(fds[0], question, strlen(question)), strlen(question));
	if (with_end) {
		shutdown(fds[0], SHUT_WR);
	}
	while ((n = read(fds[0], text + used, (1 << 18) - 1 - used)) > 0) {
		used += (size_t)n;
	}
	pthread_join(thread, NULL);
	close(fds[0]);
	return text;
}

GCLK_TEST(metrics, a_connection_is_answered)
{
	static const char
		http[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
		open[] = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;"
			 "version=1.0.0,text/plain;q=0.5\r\n\r\n";
	struct metrics *metrics = metrics_new();
	char *text = ask(metrics, http, false), *body = strstr(text, "\r\n\r\n");

	count(metrics, MOVE_DONE);
	CU_ASSERT(!strncmp(text, "HTTP/1.0 200 OK\r\n", 17));
	CU_ASSERT(strstr(text, "text/plain; version=0.0.4") != NULL);
	CU_ASSERT_FATAL(body != NULL);
	GCLK_EQ(atoll(strstr(text, "Content-Length: ") + 16), strlen(body + 4));
	check_grammar(body + 4, false);
	free(text);

	text = ask(metrics, open, false);
	CU_ASSERT(strstr(text, "application/openmetrics-text; version=1.0.0") != NULL);
	check_grammar(strstr(text, "\r\n\r\n") + 4, true);
	free(text);

	text = ask(metrics, "HEAD / HTTP/1.0\r\n\r\n", false);
	CU_ASSERT_STRING_EQUAL(strstr(text, "\r\n\r\n"), "\r\n\r\n");
	free(text);

	text = ask(metrics, "", true); /* who only listens */
	check_grammar(text, true);
	free(text);

	text = ask(metrics, "", false); /* and does not even end: the time limit */
	check_grammar(text, true);
	free(text);
	metrics_free(metrics);
}

GCLK_TEST(metrics, the_textfile_is_replaced_as_a_whole)
{
	char directory[] = "/tmp/gclk-metrics-XXXXXX", path[64];
	struct metrics *metrics = metrics_new();
	struct gclk_error error = { 0 };
	struct stat first, second;

	CU_ASSERT_FATAL(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/guestclock.prom", directory);
	GCLK_EQ(metrics_write(metrics, path, &error), 0);
	GCLK_EQ(stat(path, &first), 0);
	count(metrics, MOVE_DONE);
	GCLK_EQ(metrics_write(metrics, path, &error), 0);
	GCLK_EQ(stat(path, &second), 0);
	CU_ASSERT(first.st_ino != second.st_ino);
	CU_ASSERT(second.st_size > first.st_size);
	unlink(path);
	GCLK_EQ(rmdir(directory), 0); /* nothing else is there */
	GCLK_EQ(metrics_write(metrics, path, &error), -GCLK_SYS);
	metrics_free(metrics);
}
