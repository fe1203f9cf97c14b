/* SPDX-License-Identifier: MIT */
/*
 * Frames with messages within messages: the hello of a control connection, which brings a
 * move and a host's profile, and its welcome. Another process reads these two, before
 * anything moves; all other frames are read by hand (small.h), because a guest may stand
 * still meanwhile or a clock be asked for, and because that is as simple as reading what
 * the other process would say of them.
 */
#ifndef GCLK_MIGRATOR_PEER_READER_H
#define GCLK_MIGRATOR_PEER_READER_H

#include <guestclock/image.h>

#include "migrator/move.h"
#include "migrator/peer/wire.h"

/* Who reads for one connection. All 0: nobody else, it is read here. */
struct peer_reader {
	const struct gclk_worker *worker;
	struct gclk_reading *reading;	/* of the worker, once it was needed */
	bool keeps;			/* it is needed again: it is there for a report, then */
};

/* Errors: as wire_unpack(), and GCLK_PEER. */
int wire_read(struct peer_reader *by, uint8_t type, const uint8_t *body, size_t size,
	      struct wire_message *ret, struct gclk_error *reterr);

/* The report of a move. Errors: as move_from_json(), and GCLK_PEER. */
int peer_read_report(struct peer_reader *by, const char *json, size_t n, struct move *ret,
		     struct gclk_error *reterr);

void peer_reader_end(struct peer_reader *by);

/* What a worker has said of @message's inner one. Errors: GCLK_PEER for what cannot be. */
int wire_take_inner(const void *said, size_t n, struct wire_message *message,
		    struct gclk_error *reterr);

/* A gclk_worker_reader for frames, and for what foreign_read() reads. */
int peer_read(uint32_t what, const void *bytes, size_t n, void **ret, size_t *ret_n,
	      struct gclk_error *reterr);

#endif
