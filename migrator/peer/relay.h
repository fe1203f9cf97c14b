/* SPDX-License-Identifier: MIT */
/*
 * Two links, one thread: what comes on either goes out on the other, with half-close and
 * back-pressure, until both directions have ended. Nothing waits for an end of input. The
 * direction from a to b may have a filter in it.
 */
#ifndef GCLK_MIGRATOR_PEER_RELAY_H
#define GCLK_MIGRATOR_PEER_RELAY_H

#include <stdatomic.h>

#include "migrator/peer/link.h"

#define RELAY_BYTES (256u << 10)

/* What may stand in the way from a to b; every member may be NULL. */
struct relay_filter {
	/* as gclk_filter_push(); NULL: everything passes */
	int (*push)(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		    size_t *ret_held, struct gclk_error *reterr);
	/* as gclk_filter_push_most(); NULL: push() */
	int (*push_most)(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
			 size_t *ret_held, struct gclk_error *reterr);
	/* as gclk_filter_quiet(), every 100 ms without a byte */
	int (*quiet)(void *ctx, struct gclk_error *reterr);
	/* what push() has announced: goes out, but for the last byte */
	int (*ready)(void *ctx, const uint8_t **ret_bytes, size_t *ret_n,
		     struct gclk_error *reterr);
	/* everything but that byte has gone: waits, looks, and decides. 0: it goes, too */
	int (*gate)(void *ctx, struct gclk_error *reterr);
	/* it has gone */
	void (*released)(void *ctx);
	/* bytes have come the other way */
	void (*back)(void *ctx, size_t n);
	/* the input has ended: 0: so does the output; an error: both links are broken */
	int (*end)(void *ctx, struct gclk_error *reterr);
};

struct relay {
	struct link *a, *b;
	const struct relay_filter *filter;	/* or NULL */
	void *ctx;
	uint8_t *room;		/* what comes from a is read into it; NULL: into memory of its own */
	size_t room_bytes;	/* at least 32 KiB */
	int wake;		/* a descriptor whose readability breaks everything off; -1: none */
	atomic_uint_fast64_t *bytes;	/* counts what went from a to b, or NULL */
};

/**
 * relay_run() - until both directions have ended
 *
 * Returns 0, or a negative status: then close both links, so that both neighbours see a
 * broken stream. GCLK_STATE: woken.
 */
int relay_run(struct relay *relay, struct gclk_error *reterr);

#endif
