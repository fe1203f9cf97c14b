/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/peer/port.h"
#include "migrator/peer/server.h"

#define HANDSHAKE_NS (5 * GCLK_NS_PER_S)
#define STRANGERS_MAX 64
#define GIVE_WAY_NS (100 * GCLK_NS_PER_MS)
#define TURN_AWAY_NS GCLK_NS_PER_S
#define NAMES_MAX 64
#define NAME_BYTES 256

struct listener {
	int fd;
	bool tls;
	char path[108]; /* to be removed; "": none */
};

struct connection {
	struct server *server;
	int fd;
	bool tls;
	bool counted; /* among .n_connections */
	bool gave_way;
	uint8_t from[16]; /* of TLS: the address, of IPv6 its first half */
	char name[NAME_BYTES]; /* of TLS: in its certificate */
	struct connection *next; /* of those of TLS that are counted */
};

struct server {
	struct destination_end *end;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned n_connections, max_connections; /* strangers are none yet */
	struct connection *named; /* those of TLS among them */
	unsigned n_threads;
	struct connection *strangers[STRANGERS_MAX]; /* amid the handshake, oldest first */
	unsigned n_strangers;
	struct server_access access;
	struct tls_identity *identity;
	unsigned identity_users;
	struct tls_identity *retired[8]; /* until nobody uses them */
	unsigned n_retired;
	char names[NAMES_MAX][NAME_BYTES];
	unsigned n_names;
	struct listener listeners[SERVER_LISTENERS_MAX];
	unsigned n_listeners;
};

int server_new(struct destination_end *end, unsigned max_connections,
	       const struct server_access *access, struct server **ret,
	       struct gclk_error *reterr)
{
	struct server *server = calloc(1, sizeof(*server));
	pthread_condattr_t attributes;

	if (!server) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	server->end = end;
	server->max_connections = max_connections;
	server->access = *access;
	pthread_mutex_init(&server->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&server->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	*ret = server;
	return 0;
}

void server_limit(struct server *server, unsigned max_connections,
		  const struct server_access *access)
{
	pthread_mutex_lock(&server->lock);
	server->max_connections = max_connections;
	server->access = *access;
	pthread_mutex_unlock(&server->lock);
}

/* ---- listening ---- */

static int add(struct server *server, int fd, bool tls, const char *path,
	       struct gclk_error *reterr)
{
	struct listener *l = &server->listeners[server->n_listeners];

	if (server->n_listeners == SERVER_LISTENERS_MAX) {
		close(fd);
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "more than %d sockets", SERVER_LISTENERS_MAX);
	}
	l->fd = fd;
	l->tls = tls;
	snprintf(l->path, sizeof(l->path), "%s", path);
	server->n_listeners++;
	return 0;
}

int server_listen_unix(struct server *server, const char *path, mode_t mode, gid_t group,
		       struct gclk_error *reterr)
{
	int fd, r = listen_unix(path, mode, group, &fd, reterr);

	return r < 0 ? r : add(server, fd, false, path, reterr);
}

int server_adopt(struct server *server, int fd, struct tls_identity *identity,
		 struct gclk_error *reterr)
{
	if (identity) {
		server_identity(server, identity);
	}
	return add(server, fd, identity != NULL, "", reterr);
}

static int listen_one(const struct addrinfo *one)
{
	int fd = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, error;

	if (fd < 0) {
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (one->ai_family == AF_INET6) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	}
	if (bind(fd, one->ai_addr, one->ai_addrlen) == 0 && listen(fd, 128) == 0) {
		return fd;
	}
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

int server_listen_tls(struct server *server, const char *address,
		      struct tls_identity *identity, struct gclk_error *reterr)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *all, *one;
	char host[256];
	const char *colon = strrchr(address, ':');
	const char *port = colon && colon[1] ? colon + 1 : LINK_PORT;
	size_t n = colon ? (size_t)(colon - address) : strlen(address);
	unsigned before = server->n_listeners;
	int error, fd, r = 0;

	if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
		address++;
		n -= 2;
	}
	snprintf(host, sizeof(host), "%.*s", (int)n, address);
	error = getaddrinfo(host[0] ? host : NULL, port, &hints, &all);
	if (error) {
		return gclk_fail(reterr, GCLK_SYS, address, GCLK_NO_OFFSET, "%s",
				 gai_strerror(error));
	}
	error = 0;
	for (one = all; one && r == 0; one = one->ai_next) {
		fd = listen_one(one);
		error = fd < 0 ? errno : error;
		r = fd < 0 ? 0 : add(server, fd, true, "", reterr);
	}
	freeaddrinfo(all);
	if (r == 0 && server->n_listeners == before) {
		errno = error;
		return gclk_fail(reterr, GCLK_SYS, address, GCLK_NO_OFFSET,
				 "no socket: %s", strerror(error));
	}
	server_identity(server, identity);
	return r;
}

/* The lock is held. */
static void free_retired(struct server *server)
{
	while (server->identity_users == 0 && server->n_retired) {
		tls_identity_free(server->retired[--server->n_retired]);
	}
}

void server_identity(struct server *server, struct tls_identity *identity)
{
	pthread_mutex_lock(&server->lock);
	if (server->identity && server->identity != identity) {
		if (server->n_retired < GCLK_COUNT(server->retired)) {
			server->retired[server->n_retired++] = server->identity;
		}
	}
	server->identity = identity;
	free_retired(server);
	pthread_mutex_unlock(&server->lock);
}

void server_names(struct server *server, char *const *names, unsigned n)
{
	pthread_mutex_lock(&server->lock);
	server->n_names = GCLK_MIN(n, (unsigned)NAMES_MAX);
	for (unsigned i = 0; i < server->n_names; i++) {
		snprintf(server->names[i], NAME_BYTES, "%s", names[i]);
	}
	pthread_mutex_unlock(&server->lock);
}

/* ---- connections ---- */

static int check_user(struct server *server, int fd, char *name, size_t size,
		      struct gclk_error *reterr)
{
	struct ucred user = { .uid = (uid_t)-1 };
	socklen_t n = sizeof(user);
	bool may;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &n) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "who is it? %s",
				 strerror(errno));
	}
	snprintf(name, size, "process %d of user %u", (int)user.pid, user.uid);
	pthread_mutex_lock(&server->lock);
	may = server->access.anyone || user.uid == 0 || user.uid == geteuid();
	for (unsigned i = 0; i < server->access.n_uids; i++) {
		may = may || server->access.uids[i] == user.uid;
	}
	pthread_mutex_unlock(&server->lock);
	return may ? 0
		   : gclk_fail(reterr, GCLK_REFUSED, name, GCLK_NO_OFFSET,
			       "this user may not connect");
}

static bool is_named(struct server *server, const char *name)
{
	bool may;

	pthread_mutex_lock(&server->lock);
	may = server->n_names == 0;
	/* no name at all is nobody's */
	for (unsigned i = 0; i < server->n_names && name[0]; i++) {
		may = may || !strcmp(server->names[i], name);
	}
	pthread_mutex_unlock(&server->lock);
	return may;
}

/* ---- who has not said yet who it is ---- */

/* Where it comes from: of IPv6 the network, in which one machine may have any address. */
static void take_address(struct connection *c, const struct sockaddr_storage *from)
{
	const struct sockaddr_in *v4 = (const void *)from;
	const struct sockaddr_in6 *v6 = (const void *)from;

	if (from->ss_family == AF_INET) {
		memcpy(c->from, &v4->sin_addr, sizeof(v4->sin_addr));
	} else if (from->ss_family == AF_INET6) {
		c->from[15] = 6;
		memcpy(c->from, &v6->sin6_addr, 8);
	}
}

static unsigned count_from(const struct server *server, const uint8_t from[16])
{
	unsigned n = 0;

	for (unsigned i = 0; i < server->n_strangers; i++) {
		n += !memcmp(server->strangers[i]->from, from, 16);
	}
	return n;
}

static void forget_stranger(struct server *server, unsigned i)
{
	server->n_strangers--;
	memmove(&server->strangers[i], &server->strangers[i + 1],
		(server->n_strangers - i) * sizeof(server->strangers[0]));
}

/* The lock is held: of those from where most come, the oldest. */
static void give_way(struct server *server)
{
	unsigned which = 0, most = 0;

	for (unsigned i = 0; i < server->n_strangers; i++) {
		unsigned n = count_from(server, server->strangers[i]->from);

		if (n > most) {
			which = i;
			most = n;
		}
	}
	server->strangers[which]->gave_way = true;
	shutdown(server->strangers[which]->fd, SHUT_RDWR);
	forget_stranger(server, which);
}

/* The lock is held. Those that gave way are not gone at once. */
static void wait_for_threads(struct server *server)
{
	int64_t until = clock_mono_ns() + GIVE_WAY_NS;
	struct timespec t = { until / GCLK_NS_PER_S, until % GCLK_NS_PER_S };

	while (server->n_threads - server->n_connections >= 2 * STRANGERS_MAX &&
	       pthread_cond_timedwait(&server->changed, &server->lock, &t) != ETIMEDOUT) {
	}
}

/*
 * A handshake takes milliseconds, and costs whoever does not finish it nothing. So they have
 * few places, apart from those of connections, and the newest always gets one.
 */
static void enter_stranger(struct connection *c)
{
	struct server *server = c->server;
	unsigned max;

	pthread_mutex_lock(&server->lock);
	max = GCLK_MIN(GCLK_MAX(server->max_connections / 4, 1U), (unsigned)STRANGERS_MAX);
	while (server->n_strangers >= max) {
		give_way(server);
	}
	wait_for_threads(server);
	server->strangers[server->n_strangers++] = c;
	pthread_mutex_unlock(&server->lock);
}

/* Whether it had to give way. */
static bool leave_stranger(struct connection *c)
{
	struct server *server = c->server;
	bool gave_way;

	pthread_mutex_lock(&server->lock);
	gave_way = c->gave_way;
	for (unsigned i = 0; i < server->n_strangers && !gave_way; i++) {
		if (server->strangers[i] == c) {
			forget_stranger(server, i);
			break;
		}
	}
	pthread_mutex_unlock(&server->lock);
	return gave_way;
}

/*
 * One of those that are limited. Of those with a name, which is a certificate's, none has more
 * than three quarters of the places.
 */
static int count_in(struct connection *c, struct gclk_error *reterr)
{
	struct server *server = c->server;
	unsigned n = 0, most;

	pthread_mutex_lock(&server->lock);
	most = server->max_connections - server->max_connections / 4;
	for (const struct connection *one = server->named; one; one = one->next) {
		n += c->tls && !strcmp(one->name, c->name);
	}
	c->counted = server->n_connections < server->max_connections && n < most;
	server->n_connections += c->counted;
	if (c->counted && c->tls) {
		c->next = server->named;
		server->named = c;
	}
	pthread_mutex_unlock(&server->lock);
	if (c->counted) {
		return 0;
	}
	return n < most ? gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
				    "a connection beyond the limit is closed")
			: gclk_fail(reterr, GCLK_REFUSED, c->name, GCLK_NO_OFFSET,
				    "more than %u connections with one certificate", most);
}

static void count_out(struct connection *c)
{
	struct server *server = c->server;
	struct connection **link = &server->named;

	pthread_mutex_lock(&server->lock);
	while (*link && *link != c) {
		link = &(*link)->next;
	}
	if (*link) {
		*link = c->next;
	}
	server->n_connections -= c->counted;
	c->counted = false;
	pthread_mutex_unlock(&server->lock);
}

static int shake_hands(struct connection *c, struct tls **ret, char *name, size_t size,
		       struct gclk_error *reterr)
{
	struct server *server = c->server;
	struct tls_identity *identity;
	int fd = c->fd, on = 1, r;

	pthread_mutex_lock(&server->lock);
	identity = server->identity;
	server->identity_users++;
	pthread_mutex_unlock(&server->lock);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	r = tls_start(identity, fd, NULL, clock_mono_ns() + HANDSHAKE_NS, ret, reterr);
	pthread_mutex_lock(&server->lock);
	server->identity_users--;
	free_retired(server);
	pthread_mutex_unlock(&server->lock);
	if (leave_stranger(c) && r < 0) {
		return gclk_fail(reterr, GCLK_REFUSED, "TLS", GCLK_NO_OFFSET,
				 "a handshake gave way to newer ones");
	}
	if (r < 0) {
		return r;
	}
	tls_peer_name(*ret, name, size);
	snprintf(c->name, sizeof(c->name), "%s", name);
	return is_named(server, name)
		       ? count_in(c, reterr)
		       : gclk_fail(reterr, GCLK_REFUSED, name, GCLK_NO_OFFSET,
				   "a certificate with this name may not connect");
}

/* It may know why, and hears it: what it has said meanwhile would cut the answer short. */
static void turn_away(struct link *link, const struct gclk_error *error)
{
	int64_t until_ns = clock_mono_ns() + TURN_AWAY_NS;
	struct port port;
	char rest[512];
	long n;

	port_init(&port, link);
	port_sorry(&port, error);
	link_shut(&port.link);
	do {
		n = link_read(&port.link, rest, sizeof(rest), NULL);
	} while (clock_mono_ns() < until_ns &&
		 (n > 0 || (n == LINK_WAIT && link_wait(&port.link, false, until_ns))));
	port_close(&port);
}

static int welcome_link(struct connection *c, struct link *link,
			struct gclk_error *reterr)
{
	struct tls *tls = NULL;
	char name[2 * NAME_BYTES] = "";
	int r = c->tls ? shake_hands(c, &tls, name, sizeof(name), reterr)
		       : check_user(c->server, c->fd, name, sizeof(name), reterr);

	if (r < 0 && c->tls && !tls) {
		close(c->fd);
		return r;
	}
	link_init(link, c->fd, c->fd, name);
	link->tls = tls;
	if (r < 0) {
		turn_away(link, reterr);
	}
	return r;
}

static void connection_free(struct connection *c)
{
	struct server *server = c->server;

	count_out(c);
	pthread_mutex_lock(&server->lock);
	server->n_threads--;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
	free(c);
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct server *server = c->server;
	struct gclk_error error = { 0 };
	struct link link;

	if (welcome_link(c, &link, &error) == 0) {
		destination_end_serve(server->end, &link, &error);
	}
	if (error.status) {
		destination_end_log(server->end, 5, &error);
	}
	tls_thread_ends();
	connection_free(c);
	return NULL;
}

static struct connection *connection_new(struct server *server, int fd, bool tls,
					 const struct sockaddr_storage *from)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (c) {
		c->server = server;
		c->fd = fd;
		c->tls = tls;
		take_address(c, from);
		pthread_mutex_lock(&server->lock);
		server->n_threads++;
		pthread_mutex_unlock(&server->lock);
	}
	return c;
}

static bool start(struct connection *c)
{
	pthread_attr_t attributes;
	pthread_t thread;
	bool started;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	started = pthread_create(&thread, &attributes, serve, c) == 0;
	pthread_attr_destroy(&attributes);
	return started;
}

/* Those of TLS are counted when it is known who they are. */
static void take(struct server *server, int fd, bool tls,
		 const struct sockaddr_storage *from)
{
	struct connection *c = connection_new(server, fd, tls, from);
	struct gclk_error error;

	gclk_fail(&error, GCLK_REFUSED, NULL, GCLK_NO_OFFSET, "no thread for a connection");
	if (c && tls) {
		enter_stranger(c);
	}
	if (c && (tls || count_in(c, &error) == 0) && start(c)) {
		return;
	}
	close(fd);
	destination_end_log(server->end, 4, &error);
	if (c && tls) {
		leave_stranger(c);
	}
	if (c) {
		connection_free(c);
	}
}

int server_run(struct server *server, int wake, struct gclk_error *reterr)
{
	struct pollfd p[SERVER_LISTENERS_MAX + 1];
	const struct timespec pause = { 0, 50 * GCLK_NS_PER_MS };

	for (;;) {
		unsigned n = server->n_listeners;

		for (unsigned i = 0; i < n; i++) {
			p[i] = (struct pollfd){ server->listeners[i].fd, POLLIN, 0 };
		}
		p[n] = (struct pollfd){ wake, POLLIN, 0 };
		if (poll(p, n + 1, -1) < 0 && errno != EINTR) {
			return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
					 "poll: %s", strerror(errno));
		}
		if (p[n].revents) {
			return 0;
		}
		for (unsigned i = 0; i < n; i++) {
			struct sockaddr_storage from = { 0 };
			socklen_t size = sizeof(from);
			int fd = p[i].revents ? accept4(p[i].fd, (struct sockaddr *)&from,
							&size,
							SOCK_CLOEXEC | SOCK_NONBLOCK)
					      : -1;

			if (fd >= 0) {
				take(server, fd, server->listeners[i].tls, &from);
			} else if (p[i].revents &&
				   (errno == EMFILE || errno == ENFILE ||
				    errno == ENOBUFS || errno == ENOMEM)) {
				nanosleep(&pause, NULL);
			}
		}
	}
}

bool server_has_tls(struct server *server)
{
	bool has = false;

	for (unsigned i = 0; i < server->n_listeners; i++) {
		has = has || server->listeners[i].tls;
	}
	return has;
}

unsigned server_connections(struct server *server)
{
	unsigned n;

	pthread_mutex_lock(&server->lock);
	n = server->n_connections;
	pthread_mutex_unlock(&server->lock);
	return n;
}

int server_drain(struct server *server, int64_t deadline_ns)
{
	struct timespec t = { deadline_ns / GCLK_NS_PER_S, deadline_ns % GCLK_NS_PER_S };
	int empty;

	while (server->n_listeners) {
		struct listener *l = &server->listeners[--server->n_listeners];

		close(l->fd);
		if (l->path[0]) {
			unlink(l->path);
		}
	}
	pthread_mutex_lock(&server->lock);
	while (server->n_threads &&
	       pthread_cond_timedwait(&server->changed, &server->lock, &t) != ETIMEDOUT) {
	}
	empty = server->n_threads == 0;
	pthread_mutex_unlock(&server->lock);
	return empty;
}

struct server *server_free(struct server *server)
{
	if (server) {
		free_retired(server);
		tls_identity_free(server->identity);
		pthread_cond_destroy(&server->changed);
		pthread_mutex_destroy(&server->lock);
		free(server);
	}
	return NULL;
}
