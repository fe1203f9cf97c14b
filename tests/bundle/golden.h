/* SPDX-License-Identifier: MIT */
#ifndef GCLK_TEST_GOLDEN_H
#define GCLK_TEST_GOLDEN_H

#include <stdio.h>

#include <guestclock/state.h>

/* Every present field, one line each: "hpet.timers[2].config 30720", bytes and texts in hex. */
void print_state(FILE *out, const struct gclk_state *state);
void print_record(FILE *out, const char *path, const struct gclk_record *record,
		  const void *base);

#endif
