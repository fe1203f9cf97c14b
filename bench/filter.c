/* SPDX-License-Identifier: MIT */
/*
 * The live filter against what is done to the bytes anyway.
 *
 *	bench-filter [MIB]
 *
 * In one run, over the same bytes: copying them, moving them through a relay between two
 * UNIX sockets, the same with the filter in it, the same with the filter in a process of its
 * own, and the filter alone; then what the device
 * state of real streams takes, from its last piece to the patched bytes.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <guestclock/image.h>

#include "../tests/harness/gclk-test.h"
#include "../tests/image/stream-writer.h"
#include "common.h"

#define PIECE (256u << 10)
#define RUNS 9
#define RAM (UINT64_C(1) << 30)

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Up to the first page of a round; then records of @flag, over and over. */
static void make_stream(struct bytes *b, unsigned flag, size_t n)
{
	put_header(b, "pc-i440fx-7.2");
	put_command(b, 1, NULL, 0);
	put_start(b, 3, "ram", 0, 4);
	put64(b, RAM | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, RAM);
	put_eos(b);
	put_footer(b, 3);
	put_part(b, 2, 3);
	put_page_word(b, "pc.ram", 0, W_ZERO);
	put8(b, 0);
	for (uint64_t page = 1; b->n < n; page++) {
		put64(b, (page * 4096) % RAM | flag | W_CONTINUE);
		if (flag == W_PAGE) {
			put_random(b, 4096);
		} else {
			put8(b, 0);
		}
	}
}

/* The filter's other process; what it gives up besides costs nothing while bytes flow. */
static int start_worker(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	int ends[2];

	(void)ctx;
	(void)reterr;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
		abort();
	}
	fflush(stdout);
	*ret = (struct gclk_worker_process){ ends[0], fork() };
	if (ret->pid == 0) {
		close(ends[0]);
		_exit(gclk_image_work(ends[1], NULL) < 0);
	}
	close(ends[1]);
	return 0;
}

static void stop_worker(void *ctx, struct gclk_worker_process *process, int failed,
			struct gclk_error *reterr)
{
	(void)ctx;
	(void)reterr;
	close(process->socket);
	waitpid(process->pid, NULL, 0);
	if (failed) {
		abort();
	}
}

static const struct gclk_worker worker = { start_worker, stop_worker, NULL };

struct relay { int from, to; struct gclk_filter *filter; };

static void *relay(void *arg)
{
	struct relay *r = arg;
	uint8_t *buffer = malloc(PIECE);
	size_t pass, held;
	ssize_t n;

	while ((n = recv(r->from, buffer, PIECE, 0)) > 0) {
		pass = (size_t)n;
		if (r->filter &&
		    gclk_filter_push(r->filter, buffer, (size_t)n, &pass, &held, NULL) < 0) {
			abort();
		}
		for (size_t at = 0; at < pass;) {
			ssize_t sent = send(r->to, buffer + at, pass - at, MSG_NOSIGNAL);

			at += sent > 0 ? (size_t)sent : 0;
		}
	}
	shutdown(r->to, SHUT_WR);
	free(buffer);
	return NULL;
}

/* One half is read and written while the other is looked at. */
static void *far_relay(void *arg)
{
	struct relay *r = arg;
	size_t pass, held, size;
	uint8_t *now = gclk_filter_room(r->filter, &size), *next = now + size / 2, *last;
	ssize_t n = recv(r->from, now, PIECE, 0), k;

	while (n > 0) {
		gclk_filter_ahead(r->filter, now, (size_t)n);
		k = recv(r->from, next, PIECE, MSG_DONTWAIT);
		if (gclk_filter_push(r->filter, now, (size_t)n, &pass, &held, NULL) < 0) {
			abort();
		}
		if (k > 0) {
			gclk_filter_ahead(r->filter, next, (size_t)k);
		}
		for (size_t at = 0; at < pass;) {
			ssize_t sent = send(r->to, now + at, pass - at, MSG_NOSIGNAL);

			at += sent > 0 ? (size_t)sent : 0;
		}
		n = k >= 0 ? k : recv(r->from, next, PIECE, 0);
		last = now;
		now = next;
		next = last;
	}
	shutdown(r->to, SHUT_WR);
	return NULL;
}

static void *drain(void *arg)
{
	const int *fd = arg;
	uint8_t *buffer = malloc(PIECE);

	while (recv(*fd, buffer, PIECE, 0) > 0) {
	}
	free(buffer);
	return NULL;
}

static struct gclk_filter *new_filter(bool page_clock, bool far)
{
	struct gclk_filter_options options = { .want_page_clock = page_clock,
					       .worker = far ? &worker : NULL };
	struct gclk_filter *f;

	if (gclk_filter_new(&options, &f, NULL) < 0) {
		abort();
	}
	return f;
}

enum what { COPY, FILTER, FILTER_PAGE, RELAY, RELAY_FILTER, RELAY_FAR, N_WHATS };
static const char *const what_names[] = {
	"memcpy", "filter", "filter, looking for the clock page",
	"relay", "relay with filter", "relay with filter in a process",
};

static void through_relay(const struct bytes *b, bool filtered, bool far)
{
	struct relay r = { .filter = filtered ? new_filter(true, far) : NULL };
	int in[2], out[2];
	pthread_t relaying, draining;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, in) || socketpair(AF_UNIX, SOCK_STREAM, 0, out)) {
		abort();
	}
	r.from = in[1];
	r.to = out[0];
	pthread_create(&relaying, NULL, far ? far_relay : relay, &r);
	pthread_create(&draining, NULL, drain, &out[1]);
	for (size_t at = 0; at < b->n;) {
		size_t n = b->n - at < PIECE ? b->n - at : PIECE;
		ssize_t sent = send(in[0], b->p + at, n, MSG_NOSIGNAL);

		at += sent > 0 ? (size_t)sent : 0;
	}
	shutdown(in[0], SHUT_WR);
	pthread_join(relaying, NULL);
	pthread_join(draining, NULL);
	close(in[0]);
	close(in[1]);
	close(out[0]);
	close(out[1]);
	gclk_filter_free(r.filter);
}

static void once(enum what what, const struct bytes *b, uint8_t *to)
{
	struct gclk_filter *f = what == FILTER || what == FILTER_PAGE ? new_filter(what == FILTER_PAGE, false) : NULL;
	size_t pass, held;

	if (what >= RELAY) {
		through_relay(b, what != RELAY, what == RELAY_FAR);
		return;
	}
	for (size_t at = 0; at < b->n; at += PIECE) {
		size_t n = b->n - at < PIECE ? b->n - at : PIECE;

		if (!f) {
			memcpy(to, b->p + at, n);
			__asm__ volatile("" : : "r"(to) : "memory");
		} else if (gclk_filter_push(f, b->p + at, n, &pass, &held, NULL) < 0 || held) {
			abort();
		}
	}
	gclk_filter_free(f);
}

static void throughput(const char *name, const struct bytes *b)
{
	uint8_t *to = malloc(PIECE);
	double best[N_WHATS], used[N_WHATS], ratios[RUNS], far[RUNS], took[N_WHATS];

	for (int what = 0; what < N_WHATS; what++) {
		best[what] = used[what] = 1e9;
	}
	/* by turn, so that all meet the same neighbours */
	for (int i = 0; i < RUNS; i++) {
		for (int what = 0; what < N_WHATS; what++) {
			double begin = now_s(CLOCK_MONOTONIC_RAW), cpu = now_s(CLOCK_PROCESS_CPUTIME_ID);

			once((enum what)what, b, to);
			begin = now_s(CLOCK_MONOTONIC_RAW) - begin;
			cpu = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
			took[what] = begin;
			best[what] = begin < best[what] ? begin : best[what];
			used[what] = cpu < used[what] ? cpu : used[what];
		}
		ratios[i] = took[RELAY] / took[RELAY_FILTER];
		far[i] = took[RELAY] / took[RELAY_FAR];
	}
	qsort(ratios, RUNS, sizeof(ratios[0]), compare);
	qsort(far, RUNS, sizeof(far[0]), compare);
	for (int what = 0; what < N_WHATS; what++) {
		printf("%-12s %-36s %7.2f GB/s  %6.3f CPU s/GiB\n", name, what_names[what],
		       (double)b->n / best[what] / 1e9, used[what] * (double)(1 << 30) / (double)b->n);
	}
	printf("%-12s relay with filter / relay: %.3f of the throughput (median), %+.3f CPU s/GiB\n",
	       name, ratios[RUNS / 2],
	       (used[RELAY_FILTER] - used[RELAY]) * (double)(1 << 30) / (double)b->n);
	printf("%-12s relay with filter in a process / relay: %.3f of the throughput (median)\n", name,
	       far[RUNS / 2]);
	free(to);
}

static struct gclk_plan *make_plan(struct gclk_filter *f)
{
	struct gclk_plan *plan = gclk_plan_new(gclk_filter_state(f)->n_vcpus);
	struct gclk_when when = { .elapsed_given = 1, .elapsed_ns = 100000000 };
	struct gclk_disagreement none = { 0 };
	struct gclk_host host = { 0 };

	when.run.ns = when.load.ns = INT64_C(1800000000000000000);
	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &host, flags, GCLK_HOST_TSC_SCALING);
	if (gclk_plan(gclk_filter_state(f), gclk_filter_carrier(f), &host, &when, &none,
		      &gclk_policy_default, plan, NULL) != 0) {
		abort();
	}
	return plan;
}

static void tail(const char *name)
{
	enum { TIMES = 101 };
	double read[TIMES], rest[TIMES];
	struct bytes b = { 0 };
	size_t size = 0;

	read_data(name, &b);
	for (int i = 0; i < TIMES; i++) {
		struct gclk_filter_options options = { .one_way = 1 };
		struct gclk_filter *f;
		struct gclk_plan *plan;
		const uint8_t *bytes;
		size_t pass, held;

		if (gclk_filter_new(&options, &f, NULL) < 0 ||
		    gclk_filter_push(f, b.p, b.n - 1, &pass, &held, NULL) != GCLK_FILTER_MORE) {
			abort();
		}
		read[i] = now_s(CLOCK_MONOTONIC_RAW);
		if (gclk_filter_push(f, b.p + b.n - 1, 1, &pass, &held, NULL) != GCLK_FILTER_READY) {
			abort();
		}
		rest[i] = now_s(CLOCK_MONOTONIC_RAW);
		read[i] = rest[i] - read[i];
		plan = make_plan(f);
		if (gclk_filter_apply(f, plan, &bytes, &size, NULL) < 0) {
			abort();
		}
		rest[i] = now_s(CLOCK_MONOTONIC_RAW) - rest[i];
		gclk_plan_free(plan);
		gclk_filter_free(f);
	}
	qsort(read, TIMES, sizeof(read[0]), compare);
	qsort(rest, TIMES, sizeof(rest[0]), compare);
	printf("%-12s device state of %6zu bytes: read %4.0f us, planned and patched %3.0f us (medians)\n",
	       name, size, read[TIMES / 2] * 1e6, rest[TIMES / 2] * 1e6);
	bytes_free(&b);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? (size_t)atoi(argv[1]) : 256;
	struct bytes pages = { 0 }, zeros = { 0 };

	printf("# %s %zu: MiB of stream per run, %d runs by turn, the best of them\n", argv[0], mib, RUNS);
	make_stream(&pages, W_PAGE, mib << 20);
	make_stream(&zeros, W_ZERO, mib << 18);
	throughput("whole pages", &pages);
	throughput("zero pages", &zeros);
	tail("pc-xbzrle");
	tail("pc-multifd");
	tail("q35-kvm-4");
	bytes_free(&pages);
	bytes_free(&zeros);
	return 0;
}
