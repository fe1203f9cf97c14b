/* SPDX-License-Identifier: MIT */
/* What differs between two clock states, field by field, from the field tables alone. */
#ifndef GCLK_MIGRATOR_DIFF_H
#define GCLK_MIGRATOR_DIFF_H

#include <guestclock/state.h>

struct change {
	char clock[64]; /* "tsc[0]", "pit.channels[2]" */
	const struct gclk_record *record;
	const struct gclk_field *field;
	const void *a, *b; /* the records; NULL: not there */
};

struct changes {
	struct change *items;
	unsigned n, max;
	int no_memory;
};

/* Every field whose presence or value differs. Returns 0 or GCLK_NOMEM. */
int diff_states(const struct gclk_state *a, const struct gclk_state *b,
		struct changes *ret);
void changes_free(struct changes *changes);

/* Whether the field is there on that side. */
int change_has(const struct change *change, const void *side);

/* "ns", "ticks", "hz", ...; "" for a plain number. */
const char *unit_name(unsigned unit);

/*
 * b - a as decimal text into @to; unsigned ticks are taken modulo 2^64, the shorter
 * way round. Returns 0 where a difference has no meaning.
 */
int change_delta(const struct change *change, char to[48]);

/* A value as people read it: "4 512 345", "0x34", "merge", "enable legacy". */
void value_text(const struct gclk_field *field, const void *record, char *to,
		size_t size);

#endif
