/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <guestclock/image.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/peer/relay.h"

#define QUIET_NS (100 * GCLK_NS_PER_MS)

/* One direction. */
struct flow {
	struct link *from, *to;
	const struct relay_filter *filter; /* or NULL */
	void (*back)(void *ctx, size_t n); /* of the other direction's filter */
	void *ctx;
	atomic_uint_fast64_t *bytes;
	uint8_t *buffer;
	size_t size; /* of it */
	const uint8_t *in; /* read, not yet pushed */
	size_t n_in;
	bool little; /* what is left of it is pushed together with what follows, if that is there */
	bool alone;  /* ... and it was not */
	const uint8_t *out; /* to be written */
	size_t n_out;
	bool ready; /* push() has announced something */
	bool last;  /* one byte waits at the gate: out[0] */
	bool ended, shut;
	int64_t heard_ns; /* CLOCK_MONOTONIC of the last byte */
};

static int flow_write(struct flow *flow, struct gclk_error *reterr)
{
	while (flow->n_out) {
		long r = link_write(flow->to, flow->out, flow->n_out, reterr);

		if (r < 0) {
			return (int)r;
		}
		flow->out += r;
		flow->n_out -= (size_t)r;
		if (flow->bytes) {
			atomic_fetch_add_explicit(flow->bytes, (uint_fast64_t)r,
						  memory_order_relaxed);
		}
	}
	return 0;
}

static int flow_push(struct flow *flow, struct gclk_error *reterr)
{
	const struct relay_filter *filter = flow->filter;
	size_t pass = flow->n_in, held = 0;
	int r = 0;

	if (filter && filter->push_most && !flow->alone && !flow->ended) {
		r = filter->push_most(flow->ctx, flow->in, flow->n_in, &pass, &held, reterr);
	} else if (filter && filter->push) {
		r = filter->push(flow->ctx, flow->in, flow->n_in, &pass, &held, reterr);
	}
	if (r < 0) {
		return r;
	}
	flow->out = flow->in;
	flow->n_out = pass;
	flow->in += pass + held;
	flow->n_in -= pass + held;
	flow->little = flow->n_in && r == GCLK_FILTER_MORE && !flow->ended;
	flow->ready = r == GCLK_FILTER_READY;
	return 0;
}

/* What was held goes, but its last byte. */
static int flow_ready(struct flow *flow, struct gclk_error *reterr)
{
	int r = flow->filter->ready(flow->ctx, &flow->out, &flow->n_out, reterr);

	if (r < 0) {
		return r;
	}
	flow->ready = false;
	if (flow->n_out) {
		flow->n_out--;
		flow->last = true;
	}
	return 0;
}

static int flow_gate(struct flow *flow, struct gclk_error *reterr)
{
	int r = flow->filter->gate ? flow->filter->gate(flow->ctx, reterr) : 0;

	if (r < 0) {
		return r;
	}
	flow->n_out = 1;
	do {
		r = flow_write(flow, reterr);
	} while (r == LINK_WAIT &&
		 link_wait(flow->to, true, clock_mono_ns() + 10 * GCLK_NS_PER_S));
	if (r < 0) {
		return r;
	}
	flow->last = false;
	if (flow->filter->released) {
		flow->filter->released(flow->ctx);
	}
	return 0;
}

/* Reads until the buffer is full or nothing more is there. Returns LINK_WAIT for no byte. */
static int flow_read(struct flow *flow, struct gclk_error *reterr)
{
	size_t before = flow->n_in, n = before;
	long r = 0;

	memmove(flow->buffer, flow->in, before);
	flow->in = flow->buffer;
	flow->little = false;
	do {
		r = link_read(flow->from, flow->buffer + n, flow->size - n, reterr);
		n += r > 0 ? (size_t)r : 0;
	} while (r > 0 && flow->from->tls && n <= flow->size - (16u << 10));
	if (r < 0 && r != LINK_WAIT) {
		return (int)r;
	}
	if (r == 0) {
		flow->ended = true;
	}
	flow->alone = n == before;
	if (n == 0) {
		return flow->ended ? 0 : LINK_WAIT;
	}
	if (n > before) {
		flow->heard_ns = clock_mono_ns();
		if (flow->back) {
			flow->back(flow->ctx, n - before);
		}
	}
	flow->n_in = n;
	return 0;
}

static int flow_end(struct flow *flow, struct gclk_error *reterr)
{
	int r = flow->filter && flow->filter->end ? flow->filter->end(flow->ctx, reterr)
						  : 0;

	if (r == 0) {
		r = link_shut(flow->to);
	}
	flow->shut = r == 0;
	return r;
}

/* As far as it goes without waiting. Returns 0 at the end of all, LINK_WAIT, or an error. */
static int flow_run(struct flow *flow, struct gclk_error *reterr)
{
	/* the other direction is to have its turn, too */
	for (int turns = 0; turns < 16; turns++) {
		int r;

		if (flow->n_out) {
			r = flow_write(flow, reterr);
		} else if (flow->last) {
			r = flow_gate(flow, reterr);
		} else if (flow->ready) {
			r = flow_ready(flow, reterr);
		} else if (flow->n_in && !flow->little) {
			r = flow_push(flow, reterr);
		} else if (!flow->ended) {
			r = flow_read(flow, reterr);
		} else if (!flow->shut) {
			r = flow_end(flow, reterr);
		} else {
			return 0;
		}
		if (r < 0) {
			return r;
		}
	}
	return 1;
}

static bool flow_writes(const struct flow *flow)
{
	return flow->n_out || (flow->ended && !flow->shut);
}

static struct pollfd flow_poll(const struct flow *flow)
{
	const struct link *link = flow_writes(flow) ? flow->to : flow->from;
	short needs = flow_writes(flow) ? link->write_needs : link->read_needs;

	if (flow->shut) {
		return (struct pollfd){ -1, 0, 0 };
	}
	return (struct pollfd){ needs == POLLOUT ? link->out : link->in, needs, 0 };
}

static int flow_quiet(struct flow *flow, int64_t now_ns, struct gclk_error *reterr)
{
	int r;

	if (!flow->filter || !flow->filter->quiet || flow_writes(flow) || flow->n_in || flow->shut ||
	    now_ns - flow->heard_ns < QUIET_NS) {
		return 0;
	}
	flow->heard_ns = now_ns;
	r = flow->filter->quiet(flow->ctx, reterr);
	flow->ready = r == GCLK_FILTER_READY;
	return r < 0 ? r : 0;
}

static int run(struct relay *relay, struct flow *ab, struct flow *ba,
	       struct gclk_error *reterr)
{
	const struct timespec quiet = { 0, QUIET_NS }, at_once = { 0 };

	for (;;) {
		struct pollfd p[3];
		bool more;
		int r = flow_run(ab, reterr);
		int s = r < 0 && r != LINK_WAIT ? 0 : flow_run(ba, reterr);

		if ((r < 0 && r != LINK_WAIT) || (s < 0 && s != LINK_WAIT)) {
			return r < 0 && r != LINK_WAIT ? r : s;
		}
		if (r == 0 && s == 0) {
			return 0;
		}
		more = r == 1 || s == 1 || ab->ready;
		p[0] = flow_poll(ab);
		p[1] = flow_poll(ba);
		p[2] = (struct pollfd){ relay->wake, POLLIN, 0 };
		ppoll(p, 3, more ? &at_once : &quiet, NULL);
		if (relay->wake >= 0 && p[2].revents) {
			return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
					 "cancelled");
		}
		r = flow_quiet(ab, clock_mono_ns(), reterr);
		if (r < 0) {
			return r;
		}
	}
}

int relay_run(struct relay *relay, struct gclk_error *reterr)
{
	int64_t now = clock_mono_ns();
	struct flow ab = { .from = relay->a,
			   .to = relay->b,
			   .filter = relay->filter,
			   .ctx = relay->ctx,
			   .bytes = relay->bytes,
			   .heard_ns = now };
	struct flow ba = { .from = relay->b,
			   .to = relay->a,
			   .ctx = relay->ctx,
			   .heard_ns = now,
			   .back = relay->filter ? relay->filter->back : NULL };
	uint8_t *own = relay->room ? NULL : malloc(RELAY_BYTES);
	int r;

	ab.in = ab.buffer = relay->room ? relay->room : own;
	ab.size = relay->room ? relay->room_bytes : RELAY_BYTES;
	ba.in = ba.buffer = malloc(RELAY_BYTES);
	ba.size = RELAY_BYTES;
	r = ab.buffer && ba.buffer ? run(relay, &ab, &ba, reterr)
				   : gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
					       "no memory for a relay");
	free(own);
	free(ba.buffer);
	return r;
}
