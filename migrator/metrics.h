/* SPDX-License-Identifier: MIT */
/*
 * What became of the moves, as numbers for a monitoring system: counters and histograms
 * since the program's start, in OpenMetrics text. From any thread.
 *
 *	metrics = metrics_new();
 *	metrics_count(metrics, &move);		with each move that has ended
 *	metrics_serve(metrics, fd, 2000);	with each connection to the socket; closes it
 *	metrics_write(metrics, "/var/lib/prometheus/node-exporter/guestclock.prom", &err);
 */
#ifndef GCLK_MIGRATOR_METRICS_H
#define GCLK_MIGRATOR_METRICS_H

#include <stddef.h>

#include "migrator/move.h"

struct metrics;

struct metrics *metrics_new(void);
/* Accepts NULL, returns NULL. */
struct metrics *metrics_free(struct metrics *metrics);

void metrics_count(struct metrics *metrics, const struct move *move);

/* Sessions in progress: 1 when one begins, -1 when it ends. */
void metrics_session(struct metrics *metrics, int step);

/* OpenMetrics, or what Prometheus had before it, which node_exporter reads from files. */
enum metrics_form { METRICS_OPENMETRICS, METRICS_PROMETHEUS };

/* The text, with its NUL; the caller's. NULL when memory is short. */
char *metrics_render(struct metrics *metrics, enum metrics_form form, size_t *ret_size);

/**
 * metrics_serve() - one connection, to its end
 * @fd:		a connected socket; closed here
 * @timeout_ms:	for the question and for the answer
 *
 * Answers an HTTP GET as such, anything else (also nothing but an end) with the bare text.
 */
void metrics_serve(struct metrics *metrics, int fd, int timeout_ms);

/* The textfile of node_exporter: replaced as a whole. Errors: GCLK_SYS, GCLK_NOMEM. */
int metrics_write(struct metrics *metrics, const char *path, struct gclk_error *reterr);

#endif
