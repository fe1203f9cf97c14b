/* SPDX-License-Identifier: MIT */
/* Bytes through a relay: all of them, in order, in both directions, and the last one last. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <guestclock/image.h>

#include "core/error.h"
#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/relay.h"

struct stage {
	struct link a, b;	/* the relay's */
	int left, right;	/* the neighbours' */
	struct relay relay;
	struct gclk_error error;
	int status, wake;
	pthread_t thread;
};

static void *running(void *arg)
{
	struct stage *s = arg;

	s->status = relay_run(&s->relay, &s->error);
	link_close(&s->a);
	link_close(&s->b);
	return NULL;
}

static void stage_open(struct stage *s, const struct relay_filter *filter, void *ctx)
{
	int l[2], r[2];

	memset(s, 0, sizeof(*s));
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l) == 0 &&
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r) == 0);
	link_init(&s->a, l[0], l[0], "left");
	link_init(&s->b, r[0], r[0], "right");
	s->left = l[1];
	s->right = r[1];
	s->wake = eventfd(0, EFD_CLOEXEC);
	s->relay = (struct relay){ .a = &s->a, .b = &s->b, .filter = filter, .ctx = ctx,
				   .wake = s->wake };
	CU_ASSERT_FATAL(pthread_create(&s->thread, NULL, running, s) == 0);
}

static void stage_close(struct stage *s)
{
	pthread_join(s->thread, NULL);
	if (s->left >= 0) {
		close(s->left);
	}
	if (s->right >= 0) {
		close(s->right);
	}
	close(s->wake);
}

/* A byte by its place in a stream. */
static uint8_t byte_at(uint64_t seed, size_t i)
{
	return (uint8_t)((i * 2654435761u + seed) >> 13);
}

struct writing {
	int fd;
	uint64_t seed;
	size_t n;
};

static void *write_stream(void *arg)
{
	const struct writing *w = arg;
	uint8_t piece[50000];
	size_t done = 0;

	while (done < w->n) {
		size_t n = GCLK_MIN(sizeof(piece), w->n - done);
		ssize_t r;

		for (size_t i = 0; i < n; i++) {
			piece[i] = byte_at(w->seed, done + i);
		}
		r = send(w->fd, piece, n, MSG_NOSIGNAL);
		if (r <= 0) {
			return NULL;
		}
		done += (size_t)r;
	}
	shutdown(w->fd, SHUT_WR);
	return NULL;
}

/* How many bytes came as they were written. */
static size_t read_stream(int fd, uint64_t seed)
{
	uint8_t piece[30000];
	size_t done = 0;
	ssize_t n;

	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (piece[i] != byte_at(seed, done++)) {
				return done - 1;
			}
		}
	}
	return done;
}

GCLK_TEST(relay, both_directions_at_once_and_half_close)
{
	struct stage s;
	struct writing there = { .seed = 1, .n = 20000000 }, back = { .seed = 2, .n = 3000000 };
	pthread_t t, u;
	size_t n;

	stage_open(&s, NULL, NULL);
	there.fd = s.left;
	back.fd = s.right;
	CU_ASSERT_FATAL(pthread_create(&t, NULL, write_stream, &there) == 0);
	CU_ASSERT_FATAL(pthread_create(&u, NULL, write_stream, &back) == 0);
	/* the right end reads only what the left end's writer has to wait for */
	n = read_stream(s.right, 1);
	GCLK_EQ(n, there.n);
	GCLK_EQ(read_stream(s.left, 2), back.n);
	pthread_join(t, NULL);
	pthread_join(u, NULL);
	stage_close(&s);
	GCLK_EQ(s.status, 0);
}

GCLK_TEST(relay, one_direction_ends_the_other_goes_on)
{
	struct stage s;
	char text[8];

	stage_open(&s, NULL, NULL);
	shutdown(s.left, SHUT_WR);
	GCLK_EQ(read(s.right, text, sizeof(text)), 0);
	CU_ASSERT(write(s.right, "late", 4) == 4);
	GCLK_EQ(read(s.left, text, sizeof(text)), 4);
	shutdown(s.right, SHUT_WR);
	GCLK_EQ(read(s.left, text, sizeof(text)), 0);
	stage_close(&s);
	GCLK_EQ(s.status, 0);
}

GCLK_TEST(relay, a_neighbour_that_goes_breaks_it)
{
	struct stage s;
	struct writing there = { .seed = 1, .n = 20000000 };
	pthread_t t;

	stage_open(&s, NULL, NULL);
	there.fd = s.left;
	CU_ASSERT_FATAL(pthread_create(&t, NULL, write_stream, &there) == 0);
	close(s.right);
	s.right = -1;
	pthread_join(t, NULL);	/* it does not hang: its connection has been closed */
	stage_close(&s);
	GCLK_EQ(s.status, -GCLK_PEER);
}

GCLK_TEST(relay, it_can_be_broken_off)
{
	struct stage s;
	uint64_t one = 1;
	char byte;

	stage_open(&s, NULL, NULL);
	CU_ASSERT(write(s.wake, &one, sizeof(one)) == sizeof(one));
	GCLK_EQ(read(s.left, &byte, 1), 0);
	GCLK_EQ(read(s.right, &byte, 1), 0);
	stage_close(&s);
	GCLK_EQ(s.status, -GCLK_STATE);
}

/* ---- a filter that holds 1000 bytes from 5000 on, and gives them out doubled ---- */

struct holding {
	uint8_t held[2000];
	size_t seen, n_held;
	atomic_int gates, releases, broken;
	bool refuse;
	struct stage *stage;
};

static int hold_push(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		     size_t *ret_held, struct gclk_error *reterr)
{
	struct holding *h = ctx;
	size_t pass = h->seen < 5000 ? GCLK_MIN(5000 - h->seen, n) : h->n_held == 1000 ? n : 0;
	size_t held = h->n_held < 1000 ? GCLK_MIN(1000 - h->n_held, n - pass) : 0;
	bool was = h->n_held == 1000;

	(void)reterr;
	memcpy(h->held + h->n_held, bytes + pass, held);
	h->n_held += held;
	h->seen += pass + held;
	*ret_pass = pass;
	*ret_held = held;
	return was ? GCLK_FILTER_OFF : h->n_held == 1000 ? GCLK_FILTER_READY : GCLK_FILTER_MORE;
}

static int hold_ready(void *ctx, const uint8_t **ret_bytes, size_t *ret_n,
		      struct gclk_error *reterr)
{
	struct holding *h = ctx;

	(void)reterr;
	memcpy(h->held + 1000, h->held, 1000);
	*ret_bytes = h->held;
	*ret_n = 2000;
	return 0;
}

static int hold_gate(void *ctx, struct gclk_error *reterr)
{
	struct holding *h = ctx;
	uint8_t got[6999];
	char byte;

	/* everything but the last byte is there, and nothing more */
	GCLK_EQ(recv(h->stage->right, got, sizeof(got), MSG_WAITALL), 6999);
	GCLK_EQ(recv(h->stage->right, &byte, 1, MSG_DONTWAIT), -1);
	h->gates++;
	return h->refuse ? gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET, "no") : 0;
}

static void hold_released(void *ctx)
{
	((struct holding *)ctx)->releases++;
}

static int hold_end(void *ctx, struct gclk_error *reterr)
{
	struct holding *h = ctx;

	h->broken = !h->releases;
	return h->releases ? 0 : gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET, "too early");
}

static const struct relay_filter holds = { hold_push, NULL, NULL, hold_ready, hold_gate,
					   hold_released, NULL, hold_end };

static void feed(struct stage *s, struct holding *h, size_t n, bool refuse)
{
	uint8_t bytes[7000];

	memset(h, 0, sizeof(*h));
	h->refuse = refuse;
	h->stage = s;
	stage_open(s, &holds, h);
	for (size_t i = 0; i < n; i++) {
		bytes[i] = byte_at(9, i);
	}
	CU_ASSERT(write(s->left, bytes, n) == (ssize_t)n);
	shutdown(s->left, SHUT_WR);
}

GCLK_TEST(relay, the_last_byte_waits_at_the_gate)
{
	struct holding h;
	struct stage s;
	uint8_t rest[200];

	feed(&s, &h, 6100, false);
	while (!h.releases) { /* until then the gate reads there */
		usleep(1000);
	}
	/* the held ones' last byte, and what came behind them */
	GCLK_EQ(recv(s.right, rest, sizeof(rest), MSG_WAITALL), 101);
	GCLK_EQ(rest[0], byte_at(9, 5999));
	GCLK_EQ(rest[1], byte_at(9, 6000));
	shutdown(s.right, SHUT_WR);
	stage_close(&s);
	GCLK_EQ(s.status, 0);
	GCLK_EQ(h.gates, 1);
	GCLK_EQ(h.releases, 1);
}

GCLK_TEST(relay, a_gate_that_stays_shut_lets_nothing_out)
{
	struct holding h;
	struct stage s;
	uint8_t rest[8];

	feed(&s, &h, 6100, true);
	pthread_join(s.thread, NULL);
	GCLK_EQ(read(s.right, rest, sizeof(rest)), 0);
	GCLK_EQ(h.releases, 0);
	GCLK_EQ(s.status, -GCLK_REFUSED);
	close(s.left);
	close(s.right);
	close(s.wake);
}

GCLK_TEST(relay, an_input_that_ends_early_is_broken)
{
	struct holding h;
	struct stage s;

	feed(&s, &h, 5700, false);
	pthread_join(s.thread, NULL);
	GCLK_EQ(s.status, -GCLK_PEER);
	GCLK_EQ(h.broken, 1);
	GCLK_EQ(h.gates, 0);
	close(s.left);
	close(s.right);
	close(s.wake);
}

/* ---- a filter that leaves up to 40 bytes of each piece for the next one ---- */

struct leaving {
	atomic_uint n_left, n_all;	/* pushes that left something; of what was left, alone */
};

static int leave_some(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		      size_t *ret_held, struct gclk_error *reterr)
{
	struct leaving *l = ctx;
	size_t left = GCLK_MIN(n, (size_t)(bytes[n - 1] % 41));

	(void)reterr;
	*ret_pass = n - left;
	*ret_held = 0;
	l->n_left += left > 0;
	return GCLK_FILTER_MORE;
}

static int leave_nothing(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
			 size_t *ret_held, struct gclk_error *reterr)
{
	struct leaving *l = ctx;

	(void)bytes;
	(void)reterr;
	*ret_pass = n;
	*ret_held = 0;
	l->n_all++;
	return GCLK_FILTER_MORE;
}

static const struct relay_filter leaves = { leave_nothing, leave_some };

GCLK_TEST(relay, what_a_filter_leaves_goes_before_what_follows)
{
	struct leaving l = { 0 };
	struct stage s;
	struct writing there = { .seed = 1, .n = 20000000 };
	pthread_t t;

	stage_open(&s, &leaves, &l);
	there.fd = s.left;
	CU_ASSERT_FATAL(pthread_create(&t, NULL, write_stream, &there) == 0);
	GCLK_EQ(read_stream(s.right, 1), there.n);
	shutdown(s.right, SHUT_WR);
	pthread_join(t, NULL);
	stage_close(&s);
	GCLK_EQ(s.status, 0);
	CU_ASSERT(l.n_left > 10);
}

GCLK_TEST(relay, and_waits_for_nothing)
{
	static const char text[] = "0123456789abcdef'";	/* ' is 39: nothing of 17 goes at first */
	struct leaving l = { 0 };
	struct stage s;
	char got[20];

	stage_open(&s, &leaves, &l);
	for (unsigned i = 1; i <= 20; i++) {
		CU_ASSERT(write(s.left, text, 17) == 17);
		GCLK_EQ(recv(s.right, got, 17, MSG_WAITALL), 17);
		CU_ASSERT(!memcmp(got, text, 17));
		GCLK_EQ(l.n_left, i);
		GCLK_EQ(l.n_all, i);
	}
	shutdown(s.left, SHUT_WR);
	GCLK_EQ(read(s.right, got, 1), 0);
	shutdown(s.right, SHUT_WR);
	stage_close(&s);
	GCLK_EQ(s.status, 0);
}

GCLK_TEST(link, addresses)
{
	static const char *const good[] = { "unix:/run/x", "exec:true", "tls:host", "tls:host:1",
					    "tls:[::1]", "tls:[::1]:16519", "tls:10.0.0.1:5" };
	static const char *const bad[] = { "", "unix:", "exec:", "tls:", "tls::5", "tls:host:",
					   "tls:[::1", "tls:[::1]5", "tcp:host", "/run/x" };

	for (unsigned i = 0; i < GCLK_COUNT(good); i++) {
		GCLK_EQ(link_check_address(good[i], NULL), 0);
	}
	for (unsigned i = 0; i < GCLK_COUNT(bad); i++) {
		GCLK_EQ(link_check_address(bad[i], NULL), -GCLK_USAGE);
	}
}

GCLK_TEST(link, a_child_answers_and_is_gone_afterwards)
{
	struct link link;
	char text[8] = "";
	long r;

	CU_ASSERT_FATAL(link_dial("exec:exec cat", NULL, 1000, &link, NULL) == 0);
	GCLK_EQ(link_write(&link, "echo", 4, NULL), 4);
	while ((r = link_read(&link, text, 4, NULL)) == LINK_WAIT) {
		CU_ASSERT_FATAL(link_wait(&link, false, clock_mono_ns() + 5 * GCLK_NS_PER_S));
	}
	GCLK_EQ(r, 4);
	CU_ASSERT(!memcmp(text, "echo", 4));
	CU_ASSERT(link_is_healthy(&link));
	GCLK_EQ(link_shut(&link), 0);
	while ((r = link_read(&link, text, 4, NULL)) == LINK_WAIT) {
		CU_ASSERT_FATAL(link_wait(&link, false, clock_mono_ns() + 5 * GCLK_NS_PER_S));
	}
	GCLK_EQ(r, 0);
	link_close(&link);
	GCLK_EQ(link.child, 0);
}
