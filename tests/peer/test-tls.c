/* SPDX-License-Identifier: MIT */
/* Handshakes over socket pairs: which succeed, and what those that do not say. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/link.h"
#include "pki.h"

/* As in the programs: OpenSSL writes to sockets whose other end has gone. */
__attribute__((constructor)) static void ignore_pipes(void)
{
	signal(SIGPIPE, SIG_IGN);
}

struct side {
	const struct peer_tls *files;
	const char *host;	/* NULL: server */
	struct link link;
	struct gclk_error error;
	int fd, status;
};

static void *shake(void *arg)
{
	struct side *side = arg;
	struct tls_identity *identity;
	struct tls *tls = NULL;

	link_none(&side->link);
	side->status = tls_identity_new(side->files, side->host == NULL, &identity, &side->error);
	if (side->status == 0) {
		side->status = tls_start(identity, side->fd, side->host,
					 clock_mono_ns() + 5 * GCLK_NS_PER_S, &tls, &side->error);
		tls_identity_free(identity);
	}
	if (side->status == 0) {
		link_init(&side->link, side->fd, side->fd, "other");
		side->link.tls = tls;
	} else {
		close(side->fd);
	}
	return NULL;
}

static void both(struct side *client, struct side *server)
{
	pthread_t thread;
	int fds[2];

	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	client->fd = fds[0];
	server->fd = fds[1];
	CU_ASSERT_FATAL(pthread_create(&thread, NULL, shake, server) == 0);
	shake(client);
	pthread_join(thread, NULL);
}

/* In TLS 1.3 a client learns what the server thinks of it by the first read. */
static int first_read(struct side *side)
{
	char byte;
	long r;

	if (side->status < 0) {
		return side->status;
	}
	do {
		r = link_read(&side->link, &byte, 1, &side->error);
	} while (r == LINK_WAIT &&
		 link_wait(&side->link, false, clock_mono_ns() + 2 * GCLK_NS_PER_S));
	return (int)r;
}

static void close_both(struct side *client, struct side *server)
{
	link_close(&client->link);
	link_close(&server->link);
}

GCLK_TEST(tls, two_of_one_authority_talk)
{
	struct pki pki;
	char text[8], name[64];
	long r;

	pki_open(&pki);
	struct peer_tls a = pki_make(&pki, "a", "host-a", 1);
	struct peer_tls b = pki_make(&pki, "a", "host-b", 1);
	struct side client = { .files = &a, .host = "host-b" }, server = { .files = &b };

	both(&client, &server);
	GCLK_EQ(client.status, 0);
	GCLK_EQ(server.status, 0);
	tls_peer_name(server.link.tls, name, sizeof(name));
	CU_ASSERT(!strcmp(name, "CN=host-a"));
	/* half a name may be somebody else's: all of it, or none */
	tls_peer_name(server.link.tls, name, sizeof("CN=host-a"));
	CU_ASSERT(!strcmp(name, "CN=host-a"));
	tls_peer_name(server.link.tls, name, sizeof("CN=host-a") - 1);
	CU_ASSERT(!strcmp(name, ""));
	CU_ASSERT(strstr(tls_cipher(client.link.tls), "TLS_") == tls_cipher(client.link.tls));
	GCLK_EQ(link_write(&client.link, "hello", 5, NULL), 5);
	while ((r = link_read(&server.link, text, sizeof(text), NULL)) == LINK_WAIT) {
	}
	GCLK_EQ(r, 5);
	CU_ASSERT(link_is_healthy(&server.link) && link_is_healthy(&client.link));
	/* half-close: the other direction still works */
	GCLK_EQ(link_shut(&client.link), 0);
	while ((r = link_read(&server.link, text, sizeof(text), NULL)) == LINK_WAIT) {
	}
	GCLK_EQ(r, 0);
	CU_ASSERT(!link_is_healthy(&server.link));
	GCLK_EQ(link_write(&server.link, "bye", 3, NULL), 3);
	while ((r = link_read(&client.link, text, sizeof(text), NULL)) == LINK_WAIT) {
	}
	GCLK_EQ(r, 3);
	close_both(&client, &server);
	pki_close(&pki);
}

GCLK_TEST(tls, a_connection_that_is_cut_is_broken_not_ended)
{
	struct pki pki;
	char byte;

	pki_open(&pki);
	struct peer_tls a = pki_make(&pki, "a", "host-a", 1);
	struct side client = { .files = &a, .host = "host-a" }, server = { .files = &a };

	both(&client, &server);
	CU_ASSERT_FATAL(client.status == 0 && server.status == 0);
	shutdown(client.fd, SHUT_RDWR);
	GCLK_EQ(link_read(&server.link, &byte, 1, &server.error), -GCLK_PEER);
	CU_ASSERT(!link_is_healthy(&server.link));
	close_both(&client, &server);
	pki_close(&pki);
}

/* @word: in what the one says that refuses. */
static void refused(const struct peer_tls *a, const struct peer_tls *b, const char *host,
		    const char *word)
{
	struct side client = { .files = a, .host = host }, server = { .files = b };

	both(&client, &server);
	CU_ASSERT(client.status < 0 || server.status < 0);
	CU_ASSERT(first_read(&client) < 0);
	CU_ASSERT(strstr(client.error.message, word) || strstr(server.error.message, word));
	if (!strstr(client.error.message, word) && !strstr(server.error.message, word)) {
		printf("\n    client: %s\n    server: %s\n", client.error.message,
		       server.error.message);
	}
	close_both(&client, &server);
}

GCLK_TEST(tls, others_do_not)
{
	struct pki pki;

	pki_open(&pki);
	struct peer_tls a = pki_make(&pki, "a", "host-a", 1);
	struct peer_tls expired = pki_make(&pki, "a", "host-a", -1);
	struct peer_tls stranger = pki_make(&pki, "b", "host-a", 1);
	struct peer_tls naive = a;

	naive.ca = stranger.ca;
	refused(&expired, &a, "host-a", "expired");
	refused(&a, &expired, "host-a", "expired");
	refused(&stranger, &a, "host-a", "certificate");
	refused(&naive, &a, "host-a", "certificate");
	refused(&a, &a, "host-b", "mismatch");
	pki_close(&pki);
}

GCLK_TEST(tls, files_that_are_not_there_or_do_not_fit)
{
	struct tls_identity *identity;
	struct gclk_error error;
	struct pki pki;

	pki_open(&pki);
	struct peer_tls a = pki_make(&pki, "a", "host-a", 1);
	struct peer_tls b = pki_make(&pki, "a", "host-b", 1), c = a;

	c.certificate = "/nowhere/cert.pem";
	GCLK_EQ(tls_identity_new(&c, true, &identity, &error), -GCLK_SYS);
	c = a;
	c.key = b.key;
	GCLK_EQ(tls_identity_new(&c, true, &identity, &error), -GCLK_MALFORMED);
	c = a;
	c.ca = a.key;
	CU_ASSERT(tls_identity_new(&c, false, &identity, &error) < 0);
	c = a;
	c.crl = "/nowhere/crl.pem";
	CU_ASSERT(tls_identity_new(&c, false, &identity, &error) < 0);
	pki_close(&pki);
}

GCLK_TEST(tls, silence_ends_at_the_deadline)
{
	struct tls_identity *identity;
	struct gclk_error error;
	struct pki pki;
	struct tls *tls;
	int64_t begin = clock_mono_ns();
	int fds[2];

	pki_open(&pki);
	struct peer_tls a = pki_make(&pki, "a", "host-a", 1);

	CU_ASSERT_FATAL(tls_identity_new(&a, true, &identity, &error) == 0);
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	GCLK_EQ(tls_start(identity, fds[0], NULL, begin + 100 * GCLK_NS_PER_MS, &tls, &error),
		-GCLK_PEER);
	CU_ASSERT(clock_mono_ns() - begin < 3 * GCLK_NS_PER_S);
	tls_identity_free(identity);
	close(fds[0]);
	close(fds[1]);
	pki_close(&pki);
}
