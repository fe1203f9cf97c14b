/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "migrator/foreign.h"
#include "migrator/peer/reader.h"

/* The inner message as a plain value, or NULL where the type has none. */
static void *inner_of(struct wire_message *message, size_t *ret_n)
{
	switch (message->type) {
	case WIRE_HELLO:
		*ret_n = sizeof(message->hello.move);
		return &message->hello.move;
	case WIRE_WELCOME:
		*ret_n = sizeof(message->welcome.host);
		return &message->welcome.host;
	default:
		return NULL;
	}
}

/* ---- in the worker ---- */

static int say_inner(uint8_t type, const void *body, size_t n, void **ret, size_t *ret_n,
		     struct gclk_error *reterr)
{
	struct wire_message message = { .type = type };
	const void *inner = inner_of(&message, ret_n);
	int r;

	if (!inner) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "frame", GCLK_NO_OFFSET,
				 "nothing is within a message of type %u", type);
	}
	r = wire_unpack(type, body, n, &message, reterr);
	if (r == 0 && !(*ret = malloc(*ret_n))) {
		r = gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	if (r == 0) {
		memcpy(*ret, inner, *ret_n);
	}
	return r;
}

int peer_read(uint32_t what, const void *bytes, size_t n, void **ret, size_t *ret_n,
	      struct gclk_error *reterr)
{
	return what < FOREIGN_FRAME ?
		       foreign_read(what, bytes, n, ret, ret_n, reterr) :
		       say_inner((uint8_t)(what - FOREIGN_FRAME), bytes, n, ret, ret_n, reterr);
}

/* ---- here ---- */

int wire_take_inner(const void *said, size_t n, struct wire_message *message,
		    struct gclk_error *reterr)
{
	size_t size = 0;
	void *inner = inner_of(message, &size);

	if (!inner || n != size) {
		return foreign_refuse("a message's length", reterr);
	}
	memcpy(inner, said, n);
	return wire_settle(message) ? 0 : foreign_refuse("a message", reterr);
}

static int begin(struct peer_reader *by, struct gclk_error *reterr)
{
	return by->reading ? 0 : gclk_reading_new(by->worker, &by->reading, reterr);
}

void peer_reader_end(struct peer_reader *by)
{
	by->reading = gclk_reading_free(by->reading);
}

/* One that failed is not asked again. */
static int done(struct peer_reader *by, int r)
{
	if (!by->keeps || r == -GCLK_PEER) {
		peer_reader_end(by);
	}
	return r;
}

static int ask_inner(struct peer_reader *by, const uint8_t *body, size_t size,
		     struct wire_message *message, struct gclk_error *reterr)
{
	void *said = NULL;
	size_t n = 0;
	int r = begin(by, reterr);

	r = r < 0 ? r : gclk_reading_ask(by->reading, FOREIGN_FRAME + message->type, body, size,
					 &said, &n, reterr);
	r = r < 0 ? r : wire_take_inner(said, n, message, reterr);
	free(said);
	return done(by, r);
}

int wire_read(struct peer_reader *by, uint8_t type, const uint8_t *body, size_t size,
	      struct wire_message *ret, struct gclk_error *reterr)
{
	bool nested;
	int r;

	if (!by->worker) {
		return wire_unpack(type, body, size, ret, reterr);
	}
	r = wire_unpack_outer(type, body, size, ret, &nested, reterr);
	return r < 0 || !nested ? r : ask_inner(by, body, size, ret, reterr);
}

int peer_read_report(struct peer_reader *by, const char *json, size_t n, struct move *ret,
		     struct gclk_error *reterr)
{
	int r;

	if (!by->worker) {
		return move_from_json(json, n, ret, reterr);
	}
	r = by->reading ? done(by, foreign_move_by(by->reading, json, n, ret, reterr)) :
			  -GCLK_PEER;
	if (r == -GCLK_PEER) {		/* the one that was kept may have died of anything */
		r = begin(by, reterr);
		r = done(by, r < 0 ? r : foreign_move_by(by->reading, json, n, ret, reterr));
	}
	return r;
}
