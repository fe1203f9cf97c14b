/* SPDX-License-Identifier: MIT */
/*
 * What a worker says about an image, and how far it is believed. All of it is plain
 * values. The worker may be in a stranger's hands, so each taker here makes of any bytes
 * either an error or values that are safe to use: texts end and are printable, numbers
 * that choose something are within their list, counts within their array, a state is
 * valid and has nothing where its presence bits say that nothing is.
 */
#ifndef GCLK_IMAGE_WORKER_FACTS_H
#define GCLK_IMAGE_WORKER_FACTS_H

#include <guestclock/image.h>

#include "image/image.h"
#include "image/worker/frames.h"

/* How a file is to be opened; the descriptor comes along. */
struct gclk_ask_open {
	uint8_t writable;		/* writes go back to the asker */
	uint8_t want_page_clock, as_it_stands, plain, sync;
	uint8_t has_snapshot;
	char snapshot[256];
	char name[512];			/* for messages */
};

struct gclk_said_evidence {
	char basis[24];
	char note[104];
	int64_t ns;
	uint64_t uncertainty_ns;
};

struct gclk_facts {
	uint32_t kind;			/* enum gclk_container_kind */
	uint32_t compression;		/* enum gclk_compression */
	int32_t was_running;		/* as gclk_image_was_running() */
	uint8_t in_place, has_domain;
	uint64_t digest;
	uint64_t tail_begin, tail_end;	/* the device state; in the file, of a qcow2 in the stream */
	struct gclk_image_span span;
	uint32_t n_evidence, n_record;	/* bytes of the record behind the state */
	struct gclk_said_evidence evidence[GCLK_EVIDENCE_MAX];
	struct gclk_domain domain;
};

struct gclk_said_change {
	uint64_t offset, before, after;
	uint32_t size, instance;
	char section[96], field[96];
};

struct gclk_said_field {
	uint64_t offset, value;
	uint32_t instance, size;
	uint8_t is_signed;
	char section[96], field[96];
	uint8_t bytes[256];
};


/* A state as pieces of a frame; @scratch holds what is left out of the head. */
#define GCLK_STATE_PIECES 5
void gclk_state_pieces(const struct gclk_state *state, struct gclk_state *scratch,
		       struct gclk_piece to[GCLK_STATE_PIECES]);

/* Ownership of what is returned: the caller's. Errors: GCLK_PEER, GCLK_NOMEM. */
int gclk_take_state(struct gclk_rest *rest, struct gclk_state **ret, struct gclk_error *reterr);
/* A result; its error, if it is one, in @reterr. The answer is what is left. */
int gclk_take_done(struct gclk_rest *rest, int *ret_result, struct gclk_error *ret_said,
		   struct gclk_error *reterr);
int gclk_take_facts(struct gclk_rest *rest, struct gclk_facts *ret, struct gclk_error *reterr);
int gclk_take_domain(struct gclk_rest *rest, struct gclk_domain *ret, struct gclk_error *reterr);
int gclk_take_changes(struct gclk_rest *rest, struct gclk_said_change **ret, unsigned *ret_n,
		      struct gclk_error *reterr);
int gclk_take_fields(struct gclk_rest *rest, struct gclk_said_field **ret, unsigned *ret_n,
		     struct gclk_error *reterr);
int gclk_take_snapshots(struct gclk_rest *rest, struct gclk_snapshot *ret, unsigned max,
			unsigned *ret_n, struct gclk_error *reterr);

#endif
