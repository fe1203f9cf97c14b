/* SPDX-License-Identifier: MIT */
/*
 * A link with messages on it. One thread receives; any thread may send.
 */
#ifndef GCLK_MIGRATOR_PEER_PORT_H
#define GCLK_MIGRATOR_PEER_PORT_H

#include <pthread.h>

#include "migrator/peer/link.h"
#include "migrator/peer/reader.h"
#include "migrator/wall.h"

struct port {
	struct link link;
	pthread_mutex_t lock;	/* around every use of the link */
	pthread_mutex_t sending; /* one message at a time */
	uint8_t header[WIRE_HEADER_BYTES];
	uint8_t *body;
	size_t n_header, n_body, body_bytes;
	uint8_t type;
	int64_t heard_ns;	/* wall clock right after the last header's first byte was read */
	int64_t skew_ns;	/* added to the wall clock: for tests */
	struct wall_line line;	/* as it was when somebody last looked */
	int64_t set_boot_ns;	/* when the wall clock was last seen to have been set; 0: never */
	struct peer_reader reader; /* who reads messages within messages: the receiving thread's */
};

/* Takes the link over. */
void port_init(struct port *port, const struct link *link);

int64_t port_wall_ns(const struct port *port);

/**
 * port_wall_was_set() - look, and say whether somebody set the wall clock within the last second
 *
 * What was measured before that is of another clock; some twenty exchanges later all is of the
 * new one. By less than a millisecond does not count. Each question and each answer looks.
 */
bool port_wall_was_set(struct port *port);

/**
 * port_send() - one message, whole
 * @ret_sent_ns: the wall clock right before it went, or NULL
 *
 * Blocks while the other end does not read, for 10 s at most. Errors: GCLK_PEER.
 */
int port_send(struct port *port, const struct wire_message *message, int64_t *ret_sent_ns,
	      struct gclk_error *reterr);

/**
 * port_receive() - the next message; takes no byte that lies behind it
 * @deadline_ns: CLOCK_MONOTONIC
 * @wake:	a descriptor whose readability ends the waiting; -1: none
 *
 * Returns 0 (wire_clear() the message), LINK_WAIT at the deadline or when it was woken, or
 * an error: GCLK_PEER at the end of the connection.
 */
int port_receive(struct port *port, struct wire_message *ret, int64_t deadline_ns, int wake,
		 struct gclk_error *reterr);

/* WIRE_SORRY with an error's status and message; what becomes of it does not matter. */
void port_sorry(struct port *port, const struct gclk_error *error);

/* The error that a WIRE_SORRY or WIRE_CANCEL stands for. Returns its negative status. */
int port_refusal(const struct wire_message *message, struct gclk_error *reterr);

void port_close(struct port *port);

/* The link, out of the port: what follows is no message. The port is closed. */
void port_give(struct port *port, struct link *ret);

#endif
