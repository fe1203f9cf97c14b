/* SPDX-License-Identifier: MIT */
/* States and records filled through their field tables, and compared through them. */
#ifndef GCLK_TEST_RANDOM_STATE_H
#define GCLK_TEST_RANDOM_STATE_H

#include <stdbool.h>

#include <guestclock/state.h>

/* Each field is present with @percent; 100 also makes texts as long as they can be. */
void random_record(const struct gclk_record *record, void *base, unsigned percent);

/* A valid state: everything that validation lets through can come. */
void random_state(struct gclk_state *state, unsigned percent);

bool records_equal(const struct gclk_record *record, const void *a, const void *b);
bool states_equal(const struct gclk_state *a, const struct gclk_state *b);

/* How many fields are present. */
unsigned count_fields(const struct gclk_state *state);

#endif
