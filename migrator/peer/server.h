/* SPDX-License-Identifier: MIT */
/* Listening sockets in front of a destination end: a thread per connection, counted. */
#ifndef GCLK_MIGRATOR_PEER_SERVER_H
#define GCLK_MIGRATOR_PEER_SERVER_H

#include <sys/types.h>

#include "migrator/peer/destination_end.h"

struct server;

#define SERVER_LISTENERS_MAX 16

/* Who may connect to a UNIX socket, besides root and this process' own user. */
struct server_access {
	bool anyone;		/* the socket's mode is all that counts */
	uid_t uids[8];
	unsigned n_uids;
};

int server_new(struct destination_end *end, unsigned max_connections,
	       const struct server_access *access, struct server **ret,
	       struct gclk_error *reterr);

void server_limit(struct server *server, unsigned max_connections,
		  const struct server_access *access);

/**
 * server_listen_unix() - a socket at @path
 * @mode:	of it
 *
 * One that nobody listens on any more is replaced. Errors: GCLK_SYS, GCLK_STATE: in use.
 */
int server_listen_unix(struct server *server, const char *path, mode_t mode, gid_t group,
		       struct gclk_error *reterr);

/* "HOST:PORT", ":PORT": all addresses. @identity is borrowed, see server_identity(). */
int server_listen_tls(struct server *server, const char *address,
		      struct tls_identity *identity, struct gclk_error *reterr);

/* A listening socket that somebody else made; UNIX, or with @identity TLS. */
int server_adopt(struct server *server, int fd, struct tls_identity *identity,
		 struct gclk_error *reterr);

/* From now on; the former one is freed when no handshake needs it. */
void server_identity(struct server *server, struct tls_identity *identity);

/* Distinguished names, as TLS clients must have one; NULL: any that the authority signed. */
void server_names(struct server *server, char *const *names, unsigned n);

/**
 * server_run() - accept until @wake becomes readable
 *
 * May be called again afterwards. Errors: GCLK_SYS.
 */
int server_run(struct server *server, int wake, struct gclk_error *reterr);

bool server_has_tls(struct server *server);

unsigned server_connections(struct server *server);

/* Closes the listening sockets, waits for the threads until @deadline_ns. 1: none is left. */
int server_drain(struct server *server, int64_t deadline_ns);

/* After server_drain() returned 1. */
struct server *server_free(struct server *server);

/* A listening UNIX socket, also for others. */
int listen_unix(const char *path, mode_t mode, gid_t group, int *ret,
		struct gclk_error *reterr);

/*
 * Mode and group of a socket of ours; -1: as it is. Errors: GCLK_SYS; GCLK_REFUSED for anything
 * else that has its name.
 */
int listen_own(const char *path, mode_t mode, gid_t group, struct gclk_error *reterr);

/* "127.0.0.1:PORT" or "[::1]:PORT", nothing else. */
int listen_loopback(const char *address, int *ret, struct gclk_error *reterr);

#endif
