/* SPDX-License-Identifier: MIT */
/*
 * The live filter against what is done to the bytes anyway.
 *
 *	bench-filter [MIB]
 *
 * In one run, over the same bytes: copying them, moving them through a relay between two
 * UNIX sockets, the same with the filter in it, the same with the filter in a process of its
 * own, and the filter alone; then what the device state of real streams takes, from its last
 * byte to the patched bytes, here and in that process.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "stream.h"

#define PIECE (256u << 10)
#define RUNS 15

struct relay { int from, to; struct gclk_filter *filter; };

static void send_all(int fd, const uint8_t *bytes, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

		bytes += sent > 0 ? sent : 0;
		n -= sent > 0 ? (size_t)sent : 0;
	}
}

/* What is left of the last piece goes before the next one, if that is there at once. */
static void *relay(void *arg)
{
	struct relay *r = arg;
	uint8_t *own = malloc(PIECE), *buffer = own;
	size_t pass, held, size = 0, left = 0;
	ssize_t n;

	if (r->filter && gclk_filter_room(r->filter, &size)) {
		buffer = gclk_filter_room(r->filter, &size);
	}
	while ((n = recv(r->from, buffer + left, PIECE - left, left ? MSG_DONTWAIT : 0)) != 0 ||
	       left) {
		bool alone = n <= 0;

		left += n > 0 ? (size_t)n : 0;
		pass = left;
		if (r->filter && (alone ? gclk_filter_push : gclk_filter_push_most)(
					 r->filter, buffer, left, &pass, &held, NULL) < 0) {
			abort();
		}
		send_all(r->to, buffer, pass);
		left -= pass;
		memmove(buffer, buffer + pass, left);
	}
	shutdown(r->to, SHUT_WR);
	free(own);
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
					       .worker = far ? &bench_worker : NULL };
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

struct figures { double s, cpu_s; };

static void through_relay(const struct bytes *b, struct gclk_filter *filter)
{
	struct relay r = { .filter = filter };
	int in[2], out[2];
	pthread_t relaying, draining;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, in) || socketpair(AF_UNIX, SOCK_STREAM, 0, out)) {
		abort();
	}
	r.from = in[1];
	r.to = out[0];
	pthread_create(&relaying, NULL, relay, &r);
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
}

static void through_filter(const struct bytes *b, struct gclk_filter *f, uint8_t *to)
{
	size_t pass, held;

	for (size_t at = 0; at < b->n; at += PIECE) {
		size_t n = b->n - at < PIECE ? b->n - at : PIECE;

		if (!f) {
			memcpy(to, b->p + at, n);
			__asm__ volatile("" : : "r"(to) : "memory");
		} else if (gclk_filter_push(f, b->p + at, n, &pass, &held, NULL) < 0 || held) {
			abort();
		}
	}
}

/* The filter's process is there before: what it costs to start one is no matter of bytes. */
static struct figures once(enum what what, const struct bytes *b, uint8_t *to)
{
	bool page_clock = what != FILTER;
	struct gclk_filter *f = what == COPY || what == RELAY ? NULL :
				new_filter(page_clock, what == RELAY_FAR);
	double begin = now_s(CLOCK_MONOTONIC_RAW), cpu = all_cpu_s();
	struct figures figures;

	if (what >= RELAY) {
		through_relay(b, f);
	} else {
		through_filter(b, f, to);
	}
	figures.s = now_s(CLOCK_MONOTONIC_RAW) - begin;
	gclk_filter_free(f);
	figures.cpu_s = all_cpu_s() - cpu;
	return figures;
}

/* As many of the time and of the processor as the plain relay of the same turn. */
static void against(const char *name, enum what what, double took[][RUNS], double used[][RUNS])
{
	double speed[RUNS], cpu[RUNS];

	for (int i = 0; i < RUNS; i++) {
		speed[i] = took[RELAY][i] / took[what][i];
		cpu[i] = used[what][i] / used[RELAY][i];
	}
	printf("%-12s %s / relay: %.3f of the throughput, %.3f of the CPU (medians)\n", name,
	       what_names[what], median(speed, RUNS), median(cpu, RUNS));
}

static void throughput(const char *name, const struct bytes *b)
{
	static double took[N_WHATS][RUNS], used[N_WHATS][RUNS];
	double per_gib = (double)(1 << 30) / (double)b->n;
	uint8_t *to = malloc(PIECE);

	/* by turn, so that all meet the same neighbours */
	for (int i = 0; i < RUNS; i++) {
		for (int j = 0; j < N_WHATS; j++) {
			int what = i % 2 ? N_WHATS - 1 - j : j;	/* no one always after another */
			struct figures figures = once((enum what)what, b, to);

			took[what][i] = figures.s;
			used[what][i] = figures.cpu_s;
		}
	}
	against(name, RELAY_FILTER, took, used);
	against(name, RELAY_FAR, took, used);
	for (int what = 0; what < N_WHATS; what++) {
		printf("%-12s %-36s %7.2f GB/s  %6.3f CPU s/GiB (medians)\n", name,
		       what_names[what], (double)b->n / median(took[what], RUNS) / 1e9,
		       median(used[what], RUNS) * per_gib);
	}
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

static void tail(const char *name, bool far)
{
	enum { TIMES = 101 };
	double read[TIMES], rest[TIMES];
	struct bytes b = { 0 };
	size_t size = 0;

	read_data(name, &b);
	for (int i = 0; i < TIMES; i++) {
		struct gclk_filter_options options = {
			.one_way = 1, .worker = far ? &bench_worker : NULL };
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
	median(read, TIMES);
	median(rest, TIMES);	/* they are sorted now */
	printf("%-12s device state of %6zu bytes%s: read %4.0f us, planned and patched %3.0f us (medians);"
	       " 96 of %d within %.0f and %.0f us\n", name, size, far ? " in a process" : "",
	       read[TIMES / 2] * 1e6, rest[TIMES / 2] * 1e6, TIMES, read[95] * 1e6, rest[95] * 1e6);
	bytes_free(&b);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? (size_t)atoi(argv[1]) : 256;
	struct bytes pages = { 0 }, zeros = { 0 };

	bench_entry(argv);
	printf("# %s %zu: MiB of stream per run, %d runs by turn\n", argv[0], mib, RUNS);
	make_stream(&pages, W_PAGE, mib << 20);
	make_stream(&zeros, W_ZERO, mib << 18);
	throughput("whole pages", &pages);
	throughput("zero pages", &zeros);
	for (int far = 0; far < 2; far++) {
		tail("pc-xbzrle", far);
		tail("pc-multifd", far);
		tail("q35-kvm-4", far);
	}
	bytes_free(&pages);
	bytes_free(&zeros);
	return 0;
}
