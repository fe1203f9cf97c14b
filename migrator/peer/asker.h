/* SPDX-License-Identifier: MIT */
/*
 * Who drives the clock exchange: the destination end asks on the control connection, one
 * question at a time, in a burst where it matters and every 50 ms between.
 */
#ifndef GCLK_MIGRATOR_PEER_ASKER_H
#define GCLK_MIGRATOR_PEER_ASKER_H

#include <guestclock/exchange.h>

#include "migrator/peer/port.h"

#define ASKER_BURST 32
#define ASKER_PAUSE_NS INT64_C(50000000)
#define ASKER_SILENCE_NS INT64_C(30000000000)	/* an answer that takes longer never comes */
#define ASKER_RESOLUTION_NS 100

struct asker {
	struct gclk_exchanges exchanges;
	uint32_t number;	/* of the last question */
	bool waiting;		/* for its answer */
	int64_t asked_ns;	/* wall clock */
	int64_t asked_mono_ns;
	int64_t due_ns;		/* CLOCK_MONOTONIC of the next one */
	unsigned burst;		/* questions that follow without a pause */
};

/* The two profiles tell how far apart the clocks' rates can be. */
uint64_t asker_drift_ppb(const struct gclk_host *a, const struct gclk_host *b);

void asker_init(struct asker *asker, uint64_t drift_ppb);
void asker_burst(struct asker *asker);

/* When the port is to be looked after again, CLOCK_MONOTONIC. */
int64_t asker_next_ns(const struct asker *asker);

/**
 * asker_ask() - the next question, if it is due
 *
 * Errors: GCLK_PEER, also where the last answer is too long in coming.
 */
int asker_ask(struct asker *asker, struct port *port, struct gclk_error *reterr);

/* WIRE_ANSWER has come. Errors: GCLK_PEER for one that does not fit. */
int asker_take(struct asker *asker, const struct port *port, const struct wire_message *answer,
	       struct gclk_error *reterr);

/* The other side of it: WIRE_ASK has come. */
int asker_answer(struct port *port, const struct wire_message *ask, struct gclk_error *reterr);

#endif
