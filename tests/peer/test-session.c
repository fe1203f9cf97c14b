/* SPDX-License-Identifier: MIT */
/* The control connection of a session, as the threads of its channels may use it. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/text.h"
#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/port.h"
#include "migrator/peer/session.h"

struct stage {
	struct session session;
	struct port port;
	int other; /* the source's end of the control connection */
	struct gclk_error error;
	atomic_int status, hung_up;
};

static void stage_open(struct stage *s)
{
	struct link link;
	int fds[2];

	memset(s, 0, sizeof(*s));
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	link_init(&link, fds[0], fds[0], "source");
	port_init(&s->port, &link);
	s->other = fds[1];
	s->session.port = &s->port;
	pthread_mutex_init(&s->session.lock, NULL);
	pthread_cond_init(&s->session.changed, NULL);
}

static void stage_close(struct stage *s)
{
	if (s->other >= 0) {
		close(s->other);
	}
	pthread_cond_destroy(&s->session.changed);
	pthread_mutex_destroy(&s->session.lock);
}

static void *sender(void *arg)
{
	const struct wire_message where = { .type = WIRE_WHERE };
	struct stage *s = arg;

	s->status = session_send(&s->session, &where, &s->error);
	return NULL;
}

/* As the control connection's thread ends. */
static void *hanger(void *arg)
{
	struct stage *s = arg;

	session_hang_up(&s->session);
	s->hung_up = 1;
	return NULL;
}

static void rest(void)
{
	nanosleep(&(struct timespec){ 0, 20 * GCLK_NS_PER_MS }, NULL);
}

/* Until nothing more goes into the connection. */
static void stuff(struct stage *s)
{
	char piece[4096] = { 0 };

	while (link_write(&s->port.link, piece, sizeof(piece), NULL) > 0) {
	}
}

static void read_all(int fd)
{
	char piece[4096];

	while (recv(fd, piece, sizeof(piece), MSG_DONTWAIT) > 0) {
	}
}

GCLK_TEST(session, who_hangs_up_waits_for_those_who_send)
{
	pthread_t a, b;
	struct stage s;

	stage_open(&s);
	stuff(&s);
	CU_ASSERT_FATAL(pthread_create(&a, NULL, sender, &s) == 0);
	rest();
	CU_ASSERT_FATAL(pthread_create(&b, NULL, hanger, &s) == 0);
	rest();
	GCLK_EQ(s.hung_up, 0);
	read_all(s.other);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	GCLK_EQ(s.status, 0);
	GCLK_EQ(s.hung_up, 1);
	port_close(&s.port);
	stage_close(&s);
}

GCLK_TEST(session, nobody_sends_on_a_connection_that_is_closed)
{
	const struct wire_message where = { .type = WIRE_WHERE };
	struct gclk_error error = { 0 };
	struct stage s;
	char byte;

	stage_open(&s);
	GCLK_EQ(session_send(&s.session, &where, &error), 0);
	read_all(s.other);
	session_hang_up(&s.session);
	port_close(&s.port);
	memset(&s.port, 0xa5, sizeof(s.port)); /* it was on a stack that others use now */
	GCLK_EQ(session_send(&s.session, &where, &error), -GCLK_STATE);
	CU_ASSERT(error.message[0]);
	GCLK_EQ(recv(s.other, &byte, 1, 0), 0);
	stage_close(&s);
}

static void *end_giving_up(void *arg)
{
	struct stage *s = arg;

	session_give_up(&s->session);
	return NULL;
}

/* What the source is told of a session that was broken off. */
static void hear_report(struct stage *s, struct move *ret)
{
	int64_t deadline = clock_mono_ns() + 10 * GCLK_NS_PER_S;
	struct wire_message m;
	struct link link;
	struct port there;

	link_init(&link, s->other, s->other, "destination");
	port_init(&there, &link);
	CU_ASSERT_FATAL(port_receive(&there, &m, deadline, -1, NULL) == 0);
	CU_ASSERT_FATAL(m.type == WIRE_REPORT);
	GCLK_EQ(move_from_json(m.report.json, m.report.size, ret, NULL), 0);
	wire_clear(&m);
	port_close(&there);
	s->other = -1;
}

static void break_off(struct stage *s, bool main_over, struct move *ret)
{
	const struct gclk_error why = { .status = GCLK_PEER, .message = "a test ends it" };
	struct session *session = &s->session;
	pthread_t thread;

	session->cancel = session->wake = -1;
	session->has_main = true;
	session->main_over = main_over;
	gclk_text_copy(session->move.domain, sizeof(session->move.domain), "web1");
	session_report_init(session, &session->report);
	session->report.verdict = MOVE_DONE; /* as the main channel has it by then */
	session->report.gap_ns = 5;
	CU_ASSERT_FATAL(session_break(session, &why, false));
	CU_ASSERT_FATAL(pthread_create(&thread, NULL, end_giving_up, s) == 0);
	hear_report(s, ret);
	pthread_join(thread, NULL);
	port_close(&s->port);
}

/* It may be writing there at that moment, and for longer than anybody waits for it. */
GCLK_TEST(session, the_report_of_a_main_channel_that_lives_on_is_left_alone)
{
	struct move move;
	struct stage s;

	stage_open(&s);
	break_off(&s, false, &move);
	GCLK_EQ(move.verdict, MOVE_CANCELLED);
	GCLK_EQ(move.gap_ns, 0);
	CU_ASSERT_STRING_EQUAL(move.domain, "web1");
	CU_ASSERT_STRING_EQUAL(move.why, "a test ends it");
	GCLK_EQ(s.session.report.verdict, MOVE_DONE);
	CU_ASSERT(!s.session.report.why[0]);
	stage_close(&s);
}

GCLK_TEST(session, that_of_one_that_has_ended_is_told)
{
	struct move move;
	struct stage s;

	stage_open(&s);
	break_off(&s, true, &move);
	GCLK_EQ(move.verdict, MOVE_CANCELLED);
	GCLK_EQ(move.gap_ns, 5);
	stage_close(&s);
}
