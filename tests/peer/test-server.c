/* SPDX-License-Identifier: MIT */
/* Who gets a place at a port that anybody can reach. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/port.h"
#include "migrator/peer/server.h"
#include "pki.h"

#define SILENT 40 /* far more than may be amid their handshake */
#define CONNECTIONS 32

struct stage {
	struct pki pki;
	struct peer_tls files;
	struct destination_end *end;
	struct server *server;
	struct sockaddr_in at;
	pthread_t thread;
	int wake, silent[SILENT];
};

static void *run(void *arg)
{
	struct stage *s = arg;

	GCLK_EQ(server_run(s->server, s->wake, NULL), 0);
	return NULL;
}

static void stage_open(struct stage *s)
{
	const struct server_access access = { .anyone = true };
	struct destination_options options;
	struct tls_identity *identity;
	socklen_t n = sizeof(s->at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	memset(s, 0, sizeof(*s));
	memset(s->silent, -1, sizeof(s->silent));
	pki_open(&s->pki);
	s->files = pki_make(&s->pki, "a", "host-a", 1);
	destination_options_init(&options);
	s->at = (struct sockaddr_in){ .sin_family = AF_INET,
				      .sin_addr = { htonl(INADDR_LOOPBACK) } };
	s->wake = eventfd(0, 0);
	CU_ASSERT_FATAL(
		bind(fd, (struct sockaddr *)&s->at, n) == 0 && listen(fd, 64) == 0 &&
		getsockname(fd, (struct sockaddr *)&s->at, &n) == 0 &&
		tls_identity_new(&s->files, true, &identity, NULL) == 0 &&
		destination_end_new(&options, &s->end, NULL) == 0 &&
		server_new(s->end, CONNECTIONS, &access, &s->server, NULL) == 0 &&
		server_adopt(s->server, fd, identity, NULL) == 0 &&
		pthread_create(&s->thread, NULL, run, s) == 0);
}

static void stage_close(struct stage *s)
{
	for (unsigned i = 0; i < SILENT; i++) {
		if (s->silent[i] >= 0) {
			close(s->silent[i]);
		}
	}
	eventfd_write(s->wake, 1);
	pthread_join(s->thread, NULL);
	GCLK_EQ(server_drain(s->server, clock_mono_ns() + 5 * GCLK_NS_PER_S), 1);
	server_free(s->server);
	destination_end_free(s->end);
	pki_close(&s->pki);
	close(s->wake);
}

/* Connected, and nothing said. All of 127.0.0.0/8 is this machine's. */
static int connect_from(const struct stage *s, const char *address)
{
	struct sockaddr_in from = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, address, &from.sin_addr);
	CU_ASSERT_FATAL(bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0 &&
			connect(fd, (const struct sockaddr *)&s->at, sizeof(s->at)) == 0);
	return fd;
}

static void fill(struct stage *s, const char *address)
{
	for (unsigned i = 0; i < SILENT; i++) {
		s->silent[i] = connect_from(s, address);
	}
}

/* Whether the other end answers what is said to it: that it speaks no such version, or why not. */
static bool is_answered(struct link *link, int64_t deadline, struct gclk_error *ret_why)
{
	struct wire_message m = { .type = WIRE_HELLO };
	struct port port;
	bool answered;

	m.hello.version_min = m.hello.version_max = WIRE_VERSION_MAX + 1;
	m.hello.role = WIRE_MAIN;
	port_init(&port, link);
	answered = port_send(&port, &m, NULL, NULL) == 0 &&
		   port_receive(&port, &m, deadline, -1, NULL) == 0;
	if (answered) {
		GCLK_EQ(m.type, WIRE_SORRY);
		port_refusal(&m, ret_why);
		wire_clear(&m);
	}
	port_close(&port);
	return answered;
}

/* Takes @fd; NULL: the handshake failed. */
static struct tls *shake_hands(const struct peer_tls *files, int fd, int64_t deadline)
{
	struct tls_identity *identity;
	struct tls *tls = NULL;

	CU_ASSERT_FATAL(tls_identity_new(files, false, &identity, NULL) == 0);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (tls_start(identity, fd, "host-a", deadline, &tls, NULL) < 0) {
		close(fd);
	}
	tls_identity_free(identity);
	return tls;
}

/* Takes @fd. */
static bool is_heard(const struct peer_tls *files, int fd, struct gclk_error *ret_why)
{
	int64_t deadline = clock_mono_ns() + 4 * GCLK_NS_PER_S;
	struct tls *tls = shake_hands(files, fd, deadline);
	struct link link;

	if (!tls) {
		return false;
	}
	link_init(&link, fd, fd, "server");
	link.tls = tls;
	return is_answered(&link, deadline, ret_why);
}

/* Takes @fd. */
static bool is_served(const struct stage *s, int fd)
{
	struct gclk_error why;

	return is_heard(&s->files, fd, &why) && why.status == GCLK_VERSION;
}

static unsigned count_open(const struct stage *s)
{
	unsigned n = 0;
	char byte;

	for (unsigned i = 0; i < SILENT; i++) {
		n += recv(s->silent[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
	}
	return n;
}

/* They would have held all places for the time of a handshake. */
GCLK_TEST(server, clients_that_say_nothing_keep_nobody_out)
{
	struct stage s;

	stage_open(&s);
	fill(&s, "127.0.0.1");
	CU_ASSERT(is_served(&s, connect_from(&s, "127.0.0.1")));
	CU_ASSERT(count_open(&s) <= CONNECTIONS / 4);
	CU_ASSERT(server_connections(s.server) <= CONNECTIONS / 4 + 1);
	stage_close(&s);
}

GCLK_TEST(server, nor_drive_one_from_elsewhere_away_that_is_slow)
{
	struct stage s;
	int fd;

	stage_open(&s);
	fd = connect_from(&s, "127.0.0.1");
	fill(&s, "127.0.0.2");
	CU_ASSERT(is_served(&s, fd));
	stage_close(&s);
}

/* A host that was taken over has a certificate, and any number of connections. */
GCLK_TEST(server, one_certificate_leaves_places_to_others)
{
	int64_t deadline = clock_mono_ns() + 10 * GCLK_NS_PER_S;
	struct link held[CONNECTIONS];
	struct gclk_error why = { 0 };
	struct peer_tls other;
	struct stage s;
	unsigned n = 0;

	stage_open(&s);
	other = pki_make(&s.pki, "a", "host-b", 1);
	for (; n < CONNECTIONS - CONNECTIONS / 4; n++) {
		int fd = connect_from(&s, "127.0.0.1");

		link_init(&held[n], fd, fd, "server");
		held[n].tls = shake_hands(&s.files, fd, deadline);
		CU_ASSERT_PTR_NOT_NULL_FATAL(held[n].tls);
	}
	while (server_connections(s.server) < n && clock_mono_ns() < deadline) {
		nanosleep(&(struct timespec){ 0, GCLK_NS_PER_MS }, NULL);
	}
	CU_ASSERT(is_heard(&s.files, connect_from(&s, "127.0.0.1"), &why));
	GCLK_EQ(why.status, GCLK_REFUSED);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.message, "more than 24 connections with one certif"));
	CU_ASSERT(is_heard(&other, connect_from(&s, "127.0.0.1"), &why));
	GCLK_EQ(why.status, GCLK_VERSION);
	/* a place that was left is another's */
	link_close(&held[--n]);
	while (!is_served(&s, connect_from(&s, "127.0.0.1")) && clock_mono_ns() < deadline) {
	}
	CU_ASSERT(clock_mono_ns() < deadline);
	while (n > 0) {
		link_close(&held[--n]);
	}
	stage_close(&s);
}
