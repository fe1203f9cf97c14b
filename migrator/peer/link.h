/* SPDX-License-Identifier: MIT */
/*
 * One connection, whatever carries it: a UNIX socket, TLS over TCP, the standard input and
 * output of a child or of this process. Never blocks but where a deadline is an argument.
 * One thread at a time, but for what a port (port.h) does with it.
 */
#ifndef GCLK_MIGRATOR_PEER_LINK_H
#define GCLK_MIGRATOR_PEER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <guestclock/error.h>

#include "migrator/peer/source_end.h"
#include "migrator/peer/tls.h"
#include "migrator/wall.h"

#define LINK_WAIT (-1000)	/* would block: poll for .read_needs or .write_needs */
#define LINK_PORT "16519"	/* of tls:HOST */

struct link {
	int in, out;		/* the same of a socket; -1: closed */
	struct tls *tls;	/* or NULL */
	pid_t child;		/* of exec:, or 0 */
	bool ended;		/* nothing more comes */
	bool shut;		/* nothing more goes */
	short read_needs, write_needs;	/* POLLIN or POLLOUT */
	int64_t opened_ns;	/* CLOCK_BOOTTIME */
	char name[128];		/* the other end, for messages */
};

/* CLOCK_MONOTONIC in ns; the other clocks are in migrator/wall.h. */
int64_t clock_mono_ns(void);

/* @in and @out become the link's own, and non-blocking. */
void link_init(struct link *link, int in, int out, const char *name);

/* Empty, but closable. */
void link_none(struct link *link);

/**
 * link_dial() - connect to the other end
 * @address:	"unix:PATH", "tls:HOST[:PORT]", "exec:COMMAND"
 * @tls:	for tls:, else ignored
 * @timeout_ms:	for all of it, TLS included
 *
 * Errors: GCLK_USAGE for an address of another form, GCLK_SYS, GCLK_PEER (TLS),
 * GCLK_REFUSED for a UNIX socket of another user than root and this process' own.
 */
int link_dial(const char *address, const struct peer_tls *tls, int timeout_ms,
	      struct link *ret, struct gclk_error *reterr);

/* A UNIX socket alone: @path. */
int link_dial_unix(const char *path, int timeout_ms, struct link *ret,
		   struct gclk_error *reterr);

/*
 * The same for a @path that somebody else has named: only a socket that stands there itself.
 * A symbolic link in its place would lead who runs as root wherever its maker likes.
 */
int link_dial_named(const char *path, int timeout_ms, struct link *ret,
		    struct gclk_error *reterr);

/* Is this an address that link_dial() would take? Else an error with a sentence. */
int link_check_address(const char *address, struct gclk_error *reterr);

/**
 * link_read() - what has come
 *
 * Returns the number of bytes, 0 at an orderly end, LINK_WAIT, or a negative status.
 */
long link_read(struct link *link, void *to, size_t n, struct gclk_error *reterr);

/* The same for what goes; never 0 for @n > 0. */
long link_write(struct link *link, const void *from, size_t n, struct gclk_error *reterr);

/* Nothing more goes; what comes still comes. Returns 0, LINK_WAIT or a status. */
int link_shut(struct link *link);

/* Bytes that were taken off the network and not yet given out: poll() knows nothing of them. */
bool link_pending(const struct link *link);

/*
 * Is the other end there, as far as this host can know without waiting? An orderly end
 * of what comes counts as gone. Takes no byte out.
 */
bool link_is_healthy(struct link *link);

/**
 * link_wait() - until something can be read or written, or a deadline
 * @deadline_ns: CLOCK_MONOTONIC
 * Returns 1, 0 at the deadline.
 */
int link_wait(const struct link *link, bool to_write, int64_t deadline_ns);

/* Closes at once, whatever is under way; a child is waited for, and ended after 2 s. */
void link_close(struct link *link);

#endif
