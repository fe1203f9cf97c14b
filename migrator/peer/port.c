/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/peer/port.h"

#define SEND_NS (10 * GCLK_NS_PER_S)
#define SET_LEAST_NS GCLK_NS_PER_MS
#define SET_LATELY_NS GCLK_NS_PER_S

void port_init(struct port *port, const struct link *link)
{
	*port = (struct port){ .link = *link };
	pthread_mutex_init(&port->lock, NULL);
	pthread_mutex_init(&port->sending, NULL);
}

int64_t port_wall_ns(const struct port *port)
{
	return wall_clock_ns() + port->skew_ns;
}

bool port_wall_was_set(struct port *port)
{
	struct wall_line now;
	int64_t boot_ns, moved_ns;
	bool lately;

	pthread_mutex_lock(&port->lock);
	wall_line_begin(&now);
	boot_ns = boot_clock_ns();
	moved_ns = port->line.width_ns ? gclk_sub_sat(now.ahead_ns, port->line.ahead_ns) : 0;
	if (moved_ns > SET_LEAST_NS || moved_ns < -SET_LEAST_NS) {
		port->set_boot_ns = boot_ns;
	}
	port->line = now;
	lately = port->set_boot_ns && boot_ns - port->set_boot_ns < SET_LATELY_NS;
	pthread_mutex_unlock(&port->lock);
	return lately;
}

static long port_read(struct port *port, void *to, size_t n, struct gclk_error *reterr)
{
	long r;

	pthread_mutex_lock(&port->lock);
	r = link_read(&port->link, to, n, reterr);
	pthread_mutex_unlock(&port->lock);
	return r;
}

static int send_all(struct port *port, const uint8_t *from, size_t n,
		    struct gclk_error *reterr)
{
	int64_t deadline = clock_mono_ns() + SEND_NS;

	while (n) {
		long r;

		pthread_mutex_lock(&port->lock);
		r = link_write(&port->link, from, n, reterr);
		pthread_mutex_unlock(&port->lock);
		if (r > 0) {
			from += r;
			n -= (size_t)r;
		} else if (r != LINK_WAIT) {
			return (int)r;
		} else if (!link_wait(&port->link, true, deadline)) {
			return gclk_fail(reterr, GCLK_PEER, port->link.name,
					 GCLK_NO_OFFSET,
					 "the other end takes no message");
		}
	}
	return 0;
}

int port_send(struct port *port, const struct wire_message *message, int64_t *ret_sent_ns,
	      struct gclk_error *reterr)
{
	uint8_t *frame;
	size_t n;
	int r = wire_pack(message, &frame, &n, reterr);

	if (r < 0) {
		return r;
	}
	pthread_mutex_lock(&port->sending);
	if (ret_sent_ns) {
		*ret_sent_ns = port_wall_ns(port);
	}
	r = send_all(port, frame, n, reterr);
	pthread_mutex_unlock(&port->sending);
	free(frame);
	return r;
}

/* Returns 1 when there may be something to read, 0 at the deadline or when woken. */
static int wait_readable(const struct port *port, int64_t deadline_ns, int wake)
{
	struct pollfd p[2] = {
		{ port->link.read_needs == POLLOUT ? port->link.out : port->link.in,
		  port->link.read_needs, 0 },
		{ wake, POLLIN, 0 },
	};
	int64_t left = GCLK_MAX(deadline_ns - clock_mono_ns(), 0);
	struct timespec t = { left / GCLK_NS_PER_S, left % GCLK_NS_PER_S };

	return ppoll(p, 2, &t, NULL) > 0 && p[0].revents;
}

/* 1 when @n bytes have come, LINK_WAIT when not, else an error. */
static int fill(struct port *port, uint8_t *to, size_t *n, size_t size,
		struct gclk_error *reterr)
{
	while (*n < size) {
		long r = port_read(port, to + *n, size - *n, reterr);

		if (r == 0) {
			return gclk_fail(reterr, GCLK_PEER, port->link.name,
					 GCLK_NO_OFFSET,
					 "the other end closed the connection");
		}
		if (r < 0) {
			return (int)r;
		}
		if (to == port->header && *n == 0) {
			port->heard_ns = port_wall_ns(port);
		}
		*n += (size_t)r;
	}
	return 1;
}

static int take_header(struct port *port, struct gclk_error *reterr)
{
	size_t size = 0;
	int r = wire_header(port->header, &port->type, &size, reterr);

	if (r < 0) {
		return r;
	}
	free(port->body);
	port->body = malloc(size + 1);
	port->body_bytes = size;
	port->n_body = 0;
	if (!port->body) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a message");
	}
	return 0;
}

/* As fill(), for a whole message. */
static int advance(struct port *port, struct gclk_error *reterr)
{
	int r;

	if (!port->body) {
		r = fill(port, port->header, &port->n_header, WIRE_HEADER_BYTES, reterr);
		if (r <= 0) {
			return r;
		}
		r = take_header(port, reterr);
		if (r < 0) {
			return r;
		}
	}
	return fill(port, port->body, &port->n_body, port->body_bytes, reterr);
}

int port_receive(struct port *port, struct wire_message *ret, int64_t deadline_ns,
		 int wake, struct gclk_error *reterr)
{
	int r;

	for (;;) {
		r = advance(port, reterr);
		if (r != LINK_WAIT) {
			break;
		}
		if (!wait_readable(port, deadline_ns, wake)) {
			return LINK_WAIT;
		}
	}
	if (r < 0) {
		return r;
	}
	r = wire_read(&port->reader, port->type, port->body, port->body_bytes, ret, reterr);
	free(port->body);
	port->body = NULL;
	port->n_header = 0;
	return r;
}

void port_sorry(struct port *port, const struct gclk_error *error)
{
	struct wire_message m = { .type = WIRE_SORRY };
	char place[sizeof(error->where)];

	m.sorry.status = error->status > 0 ? (uint32_t)error->status : GCLK_PEER;
	snprintf(place, sizeof(place), "%s", error->where);
	snprintf(m.sorry.message, sizeof(m.sorry.message), "%s%s%s", place,
		 *place ? ": " : "", error->message);
	port_send(port, &m, NULL, NULL);
}

int port_refusal(const struct wire_message *message, struct gclk_error *reterr)
{
	if (message->type == WIRE_SORRY) {
		return gclk_fail(reterr, (enum gclk_status)message->sorry.status,
				 "the other end", GCLK_NO_OFFSET, "%.250s",
				 message->sorry.message);
	}
	if (message->type == WIRE_CANCEL) {
		return gclk_fail(reterr, GCLK_PEER, "the other end", GCLK_NO_OFFSET,
				 "cancelled: %.230s", message->cancel.why);
	}
	return gclk_fail(reterr, GCLK_PEER, "the other end", GCLK_NO_OFFSET,
			 "a message of type %u is out of place", message->type);
}

static void port_end(struct port *port)
{
	free(port->body);
	port->body = NULL;
	peer_reader_end(&port->reader);
	pthread_mutex_destroy(&port->lock);
	pthread_mutex_destroy(&port->sending);
}

void port_close(struct port *port)
{
	link_close(&port->link);
	port_end(port);
}

void port_give(struct port *port, struct link *ret)
{
	*ret = port->link;
	link_none(&port->link);
	port_end(port);
}
