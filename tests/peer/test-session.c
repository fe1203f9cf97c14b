/* SPDX-License-Identifier: MIT */
/* The control connection of a session, as the threads of its channels may use it. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

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
	close(s->other);
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
