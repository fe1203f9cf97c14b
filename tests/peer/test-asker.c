/* SPDX-License-Identifier: MIT */
/* The clock exchange between two ports whose clocks are set apart. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/asker.h"

struct pair {
	struct port here, there;
	int (*answer)(struct pair *pair, const struct wire_message *ask);
	pthread_t thread;
};

static void *answering(void *arg)
{
	struct pair *pair = arg;
	struct wire_message m;

	while (port_receive(&pair->there, &m, clock_mono_ns() + 5 * GCLK_NS_PER_S, -1, NULL) == 0) {
		if (m.type != WIRE_ASK || pair->answer(pair, &m) < 0) {
			break;
		}
	}
	return NULL;
}

static void pair_open(struct pair *pair, int64_t skew_ns,
		      int (*answer)(struct pair *pair, const struct wire_message *ask))
{
	struct link link;
	int fds[2];

	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	link_init(&link, fds[0], fds[0], "there");
	port_init(&pair->here, &link);
	link_init(&link, fds[1], fds[1], "here");
	port_init(&pair->there, &link);
	pair->there.skew_ns = skew_ns;
	pair->answer = answer;
	CU_ASSERT_FATAL(pthread_create(&pair->thread, NULL, answering, pair) == 0);
}

static void pair_close(struct pair *pair)
{
	port_close(&pair->here);
	pthread_join(pair->thread, NULL);
	port_close(&pair->there);
}

/* Until so many answers have come, or an error. */
static int converse(struct asker *asker, struct pair *pair, uint32_t n)
{
	struct wire_message m;
	uint32_t got = 0;
	int r = 0;

	while (r == 0 && got < n) {
		r = asker_ask(asker, &pair->here, NULL);
		if (r < 0) {
			break;
		}
		r = port_receive(&pair->here, &m, asker_next_ns(asker), -1, NULL);
		if (r == LINK_WAIT) {
			r = 0;
			continue;
		}
		if (r == 0) {
			r = m.type == WIRE_ANSWER ? asker_take(asker, &pair->here, &m, NULL) : -1;
			got++;
		}
	}
	return r;
}

static int honest(struct pair *pair, const struct wire_message *ask)
{
	return asker_answer(&pair->there, ask, NULL);
}

GCLK_TEST(asker, finds_how_far_the_clocks_are_apart)
{
	static const int64_t skews[] = { 0, 3 * GCLK_NS_PER_S, -3 * GCLK_NS_PER_S, 12345678 };

	for (unsigned i = 0; i < GCLK_COUNT(skews); i++) {
		struct gclk_disagreement d;
		struct asker asker;
		struct pair pair;

		pair_open(&pair, skews[i], honest);
		asker_init(&asker, 1000000);
		GCLK_EQ(converse(&asker, &pair, ASKER_BURST + 2), 0);
		gclk_exchanges_at(&asker.exchanges, wall_clock_ns(), &d);
		CU_ASSERT(llabs(d.ns - skews[i]) <= (int64_t)d.uncertainty_ns);
		CU_ASSERT(d.uncertainty_ns < 50 * (uint64_t)GCLK_NS_PER_MS);
		GCLK_EQ(asker.exchanges.n_steps, 0);
		pair_close(&pair);
	}
}

GCLK_TEST(asker, asks_quickly_first_and_then_at_leisure)
{
	struct asker asker;
	struct pair pair;
	int64_t begin = clock_mono_ns();

	pair_open(&pair, 0, honest);
	asker_init(&asker, 1000000);
	GCLK_EQ(converse(&asker, &pair, ASKER_BURST), 0);
	GCLK_EQ(asker.burst, 0);
	GCLK_EQ(converse(&asker, &pair, 2), 0);
	CU_ASSERT(clock_mono_ns() - begin >= 2 * ASKER_PAUSE_NS);
	asker_burst(&asker);
	CU_ASSERT(asker_next_ns(&asker) <= clock_mono_ns());
	pair_close(&pair);
}

static int wrong_number(struct pair *pair, const struct wire_message *ask)
{
	struct wire_message m = *ask;

	m.ask.number++;
	return asker_answer(&pair->there, &m, NULL);
}

static int before_it_came(struct pair *pair, const struct wire_message *ask)
{
	struct wire_message m = { .type = WIRE_ANSWER };

	m.answer.number = ask->ask.number;
	m.answer.heard_ns = 1000;
	m.answer.answered_ns = 999;
	return port_send(&pair->there, &m, NULL, NULL);
}

static int something_else(struct pair *pair, const struct wire_message *ask)
{
	(void)ask;
	return link_write(&pair->there.link, "QEVM garbage", 12, NULL) > 0 ? 0 : -1;
}

GCLK_TEST(asker, takes_no_nonsense)
{
	static int (*const liars[])(struct pair *, const struct wire_message *) = {
		wrong_number, before_it_came, something_else,
	};

	for (unsigned i = 0; i < GCLK_COUNT(liars); i++) {
		struct asker asker;
		struct pair pair;

		pair_open(&pair, 0, liars[i]);
		asker_init(&asker, 1000000);
		CU_ASSERT(converse(&asker, &pair, 1) < 0);
		GCLK_EQ(asker.exchanges.n, 0);
		pair_close(&pair);
	}
}

GCLK_TEST(asker, drift_follows_what_is_known)
{
	struct gclk_host any = { 0 }, steered = { .flags = GCLK_HOST_SYNCHRONISED };

	GCLK_EQ(asker_drift_ppb(&any, &any), 1000000);
	CU_ASSERT(asker_drift_ppb(&steered, &steered) < asker_drift_ppb(&steered, &any));
	CU_ASSERT(asker_drift_ppb(&steered, &any) < asker_drift_ppb(&any, &any));
}

GCLK_TEST(port, a_message_in_pieces_is_one)
{
	struct wire_message m = { .type = WIRE_CANCEL }, got;
	struct port port;
	struct link link;
	uint8_t *frame;
	size_t n;
	int fds[2];

	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	link_init(&link, fds[0], fds[0], "there");
	port_init(&port, &link);
	strcpy(m.cancel.why, "no more");
	CU_ASSERT_FATAL(wire_pack(&m, &frame, &n, NULL) == 0);
	for (size_t i = 0; i < n; i++) {
		GCLK_EQ(port_receive(&port, &got, 0, -1, NULL), LINK_WAIT);
		CU_ASSERT(write(fds[1], frame + i, 1) == 1);
	}
	CU_ASSERT(write(fds[1], "behind", 6) == 6);
	GCLK_EQ(port_receive(&port, &got, 0, -1, NULL), 0);
	GCLK_EQ(got.type, WIRE_CANCEL);
	CU_ASSERT(!strcmp(got.cancel.why, "no more"));
	/* what lies behind it is not the port's */
	port_give(&port, &link);
	GCLK_EQ(link_read(&link, frame, 6, NULL), 6);
	CU_ASSERT(!memcmp(frame, "behind", 6));
	close(fds[1]);
	GCLK_EQ(link_read(&link, frame, 6, NULL), 0);
	link_close(&link);
	free(frame);
}

/* A set clock is told from one that is slewed, and from readings that stood apart. */
GCLK_TEST(asker, a_wall_clock_that_was_set_is_seen_for_a_second)
{
	const int64_t ms = 1000000;
	struct port port;
	struct link link;
	int fds[2];

	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	link_init(&link, fds[0], fds[0], "there");
	port_init(&port, &link);
	CU_ASSERT(!port_wall_was_set(&port));	/* the first look has nothing to compare with */
	CU_ASSERT(!port_wall_was_set(&port));
	port.line.ahead_ns += ms / 2;
	CU_ASSERT(!port_wall_was_set(&port));
	for (int by = -1; by <= 1; by += 2) {
		port.line.ahead_ns += by * 50 * ms;
		CU_ASSERT(port_wall_was_set(&port));
		CU_ASSERT(port_wall_was_set(&port));
		port.set_boot_ns -= 1000 * ms;
		CU_ASSERT(!port_wall_was_set(&port));
	}
	port_close(&port);
	close(fds[1]);
}
