/* SPDX-License-Identifier: MIT */
/*
 * How well the clock exchange knows how far two clocks are apart, against the truth.
 *
 *	bench-exchange [SECONDS]			two ends in this process, on ways of all sorts
 *	bench-exchange SECONDS tcp NAME			the same over loopback, whatever that is like now
 *	bench-exchange SECONDS ADDRESS TRUTH_NS		with a guestclock at ADDRESS, over the real way
 *
 * One asks as a live move does: 32 questions in a row, then one every 50 ms. The truth is
 * that both read one clock, one of them with a known number added. Exit status 1 where
 * an error was ever beyond its bound.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/util.h"
#include "migrator/peer/asker.h"
#include "migrator/peer/source_end.h"

#define SKEW_NS INT64_C(3000000123)
#define US INT64_C(1000)
#define MS INT64_C(1000000)
#define DRIFT_PPB 1000000	/* of two hosts of which nothing is known */

static void pause_ns(int64_t ns)
{
	nanosleep(&(struct timespec){ ns / GCLK_NS_PER_S, ns % GCLK_NS_PER_S }, NULL);
}

/* ---- what the errors were ---- */

struct tally {
	unsigned n, beyond;
	int64_t worst_ns, last_ns;
	uint64_t first_bound_ns, least_bound_ns, last_bound_ns;
};

static void count(struct tally *t, const struct gclk_disagreement *d, int64_t truth_ns)
{
	int64_t error = d->ns - truth_ns;

	if (d->uncertainty_ns == GCLK_UNBOUNDED) {
		return;
	}
	t->last_ns = error;
	error = error < 0 ? -error : error;
	t->first_bound_ns = t->n ? t->first_bound_ns : d->uncertainty_ns;
	t->least_bound_ns = t->n ? GCLK_MIN(t->least_bound_ns, d->uncertainty_ns) :
				   d->uncertainty_ns;
	t->last_bound_ns = d->uncertainty_ns;
	t->worst_ns = GCLK_MAX(t->worst_ns, error);
	t->beyond += (uint64_t)error > d->uncertainty_ns;
	t->n++;
}

static int show(const char *name, const struct tally *t)
{
	printf("%-34s %5u looks; error: worst %9.3f us, last %+9.3f us; bound: first %9.3f us, "
	       "last %9.3f us; beyond it %u\n", name, t->n, (double)t->worst_ns / 1e3,
	       (double)t->last_ns / 1e3, (double)t->first_bound_ns / 1e3,
	       (double)t->last_bound_ns / 1e3, t->beyond);
	fflush(stdout);
	return t->n == 0 || t->beyond;
}

/* ---- ways ---- */

struct way {
	const char *name;
	int64_t out_ns, back_ns;	/* question, answer */
	int64_t jitter_ns;		/* at most, of each */
	unsigned lost_percent;		/* each comes 200 ms later, as TCP sends it again */
};

static const struct way ways[] = {
	{ "a socket", 0, 0, 0, 0 },
	{ "0.2 ms", 200 * US, 200 * US, 20 * US, 0 },
	{ "20 ms, jitter 5 ms", 20 * MS, 20 * MS, 5 * MS, 0 },
	{ "20 ms, jitter 5 ms, 3 % lost", 20 * MS, 20 * MS, 5 * MS, 3 },
	{ "30 ms there, 10 ms back", 30 * MS, 10 * MS, 5 * MS, 0 },
};

struct lane {
	int from, to;
	int64_t delay_ns;
	const struct way *way;
	uint64_t random;
};

static uint64_t draw(uint64_t *x, uint64_t below)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return below ? *x % below : 0;
}

/* One thing is under way at a time: to wait here delays nothing else. */
static void *carry(void *arg)
{
	struct lane *l = arg;
	char bytes[4096];
	ssize_t n;

	while ((n = read(l->from, bytes, sizeof(bytes))) > 0) {
		int64_t ns = l->delay_ns + (int64_t)draw(&l->random, (uint64_t)l->way->jitter_ns);

		ns += draw(&l->random, 100) < l->way->lost_percent ? 200 * MS : 0;
		if (ns) {
			pause_ns(ns);
		}
		if (write(l->to, bytes, (size_t)n) != n) {
			break;
		}
	}
	shutdown(l->from, SHUT_RDWR);
	shutdown(l->to, SHUT_RDWR);
	return NULL;
}

static void *answer(void *arg)
{
	struct port *port = arg;
	struct wire_message m;

	while (port_receive(port, &m, clock_mono_ns() + 10 * GCLK_NS_PER_S, -1, NULL) == 0 &&
	       m.type == WIRE_ASK && asker_answer(port, &m, NULL) == 0) {
	}
	return NULL;
}

static int converse(struct port *port, int64_t until_ns, struct tally *t)
{
	struct gclk_disagreement d;
	struct wire_message m;
	struct asker asker;
	int r = 0;

	asker_init(&asker, DRIFT_PPB);
	while (r == 0 && clock_mono_ns() < until_ns) {
		r = asker_ask(&asker, port, NULL);
		if (r == 0) {
			r = port_receive(port, &m, asker_next_ns(&asker), -1, NULL);
		}
		if (r == LINK_WAIT) {
			r = 0;
		} else if (r == 0) {
			r = asker_take(&asker, port, &m, NULL);
			gclk_exchanges_at(&asker.exchanges, wall_clock_ns(), &d);
			count(t, &d, SKEW_NS);
		}
	}
	return r;
}

/* One asks over @near_fd, the other answers over @far_fd; both are closed then. */
static int show_talk(int near_fd, int far_fd, const char *name, double seconds)
{
	struct port here, there;
	struct tally t = { 0 };
	struct link link;
	pthread_t thread;
	int r;

	link_init(&link, near_fd, near_fd, "there");
	port_init(&here, &link);
	link_init(&link, far_fd, far_fd, "here");
	port_init(&there, &link);
	there.skew_ns = SKEW_NS;
	pthread_create(&thread, NULL, answer, &there);
	r = converse(&here, clock_mono_ns() + (int64_t)(seconds * 1e9), &t);
	shutdown(near_fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	port_close(&here);
	port_close(&there);
	return show(name, &t) || r < 0;
}

static int one_way(const struct way *way, double seconds)
{
	struct lane out = { .delay_ns = way->out_ns, .way = way, .random = 88172645463325252 };
	struct lane back = { .delay_ns = way->back_ns, .way = way, .random = 362436069362436069 };
	pthread_t threads[2];
	int near[2], far[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, near) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, far) < 0) {
		return 1;
	}
	out.from = back.to = near[1];
	out.to = back.from = far[1];
	pthread_create(&threads[0], NULL, carry, &out);
	pthread_create(&threads[1], NULL, carry, &back);
	r = show_talk(near[0], far[0], way->name, seconds);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
	}
	close(near[1]);
	close(far[1]);
	return r;
}

/* ---- loopback ---- */

/* 0: { who connected, who was connected to } */
static int tcp_pair(int ret[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	ret[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, n) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &n) < 0 ||
	    connect(ret[0], (struct sockaddr *)&address, n) < 0) {
		return -1;
	}
	ret[1] = accept(listener, NULL, NULL);
	close(listener);
	for (unsigned i = 0; i < 2; i++) {
		setsockopt(ret[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	return ret[1] < 0 ? -1 : 0;
}

static int over_tcp(const char *name, double seconds)
{
	int ends[2];

	if (tcp_pair(ends) < 0) {
		perror("loopback");
		return 1;
	}
	return show_talk(ends[0], ends[1], name, seconds);
}

/* ---- a real one ---- */

static int real_way(const char *address, double seconds, int64_t truth_ns)
{
	struct source_end_options options;
	struct gclk_disagreement d;
	struct source_end *end;
	struct gclk_error error;
	struct tally t = { 0 };
	int64_t until_ns;

	source_end_options_init(&options);
	options.verb = "bench";
	options.there_path = "/run/guestclock/bench.sock";
	options.address = address;
	if (source_end_open(&options, &end, &error) < 0) {
		fprintf(stderr, "%s: %s\n", address, error.message);
		return 1;
	}
	until_ns = clock_mono_ns() + (int64_t)(seconds * 1e9);
	while (clock_mono_ns() < until_ns) {
		pause_ns(100 * MS);
		source_end_disagreement(end, &d);
		count(&t, &d, truth_ns);
	}
	source_end_close(end);
	return show(address, &t);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? strtod(argv[1], NULL) : 10;
	int r = 0;

	signal(SIGPIPE, SIG_IGN);
	if (argc > 3 && !strcmp(argv[2], "tcp")) {
		return over_tcp(argv[3], seconds);
	}
	if (argc > 3) {
		return real_way(argv[2], seconds, strtoll(argv[3], NULL, 10));
	}
	for (unsigned i = 0; i < GCLK_COUNT(ways); i++) {
		r |= one_way(&ways[i], seconds);
	}
	return r;
}
