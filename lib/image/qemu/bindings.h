/* SPDX-License-Identifier: MIT */
/*
 * Fields of QEMU's device sections and members of the clock state: one table,
 * read in both directions. Reading locates every row in a tail and fills the
 * state; encoding compares two states through the located rows, so that only
 * what changed is written.
 */
#ifndef GCLK_IMAGE_QEMU_BINDINGS_H
#define GCLK_IMAGE_QEMU_BINDINGS_H

#include <guestclock/state.h>

#include "image/qemu/tail.h"

struct gclk_binding;

/* One row, found: where it lies and what it belongs to. */
struct gclk_located {
	const struct gclk_binding *binding;
	const struct gclk_vmdesc_section *section;
	uint32_t offset;		/* in the tail */
	uint16_t size;			/* bytes on the wire */
	uint16_t index;			/* of the record: vCPU, channel, timer */
};

struct gclk_bindings {
	struct gclk_located *rows;	/* by offset is not promised */
	size_t n, max;
};

/**
 * gclk_bindings_n_vcpus() - how many vCPUs a tail describes
 */
uint32_t gclk_bindings_n_vcpus(const struct gclk_tail *tail);

/**
 * gclk_bindings_read() - the clock state in a tail
 * @tail:	tiled
 * @state:	with gclk_bindings_n_vcpus() vCPUs; filled
 * @ret:	the located rows; gclk_bindings_free()
 *
 * Errors: GCLK_UNSUPPORTED for a section of an unknown layout, GCLK_RANGE for a value that
 * its field does not allow; both with section, field and the offset in the stream.
 */
int gclk_bindings_read(const struct gclk_tail *tail, struct gclk_state *state,
		       struct gclk_bindings *ret, struct gclk_error *reterr);

/* Leaves an empty one. */
void gclk_bindings_free(struct gclk_bindings *bindings);

/* The field's name on the wire, as the table has it: "timer[2].cmp". */
void gclk_located_name(const struct gclk_located *row, char *text, size_t size);
/* The subsection that it is in: "cpu/tsc_khz"; else the section. */
void gclk_located_section(const struct gclk_located *row, char *text, size_t size);

/* The number on the wire, sign-extended where it is signed; 0 for more than 8 bytes. */
uint64_t gclk_located_value(const struct gclk_located *row, const uint8_t *bytes,
			    int *ret_signed);

/**
 * gclk_located_encode() - the bytes with which this row expresses a state
 * @state:	of the same shape as the one that was read
 * @bytes:	receives row->size bytes
 *
 * Errors: GCLK_RANGE when the member's value does not fit the wire.
 */
int gclk_located_encode(const struct gclk_located *row, const struct gclk_state *state,
			uint8_t *bytes, struct gclk_error *reterr);

/**
 * gclk_bindings_cover() - is every difference between two states expressible?
 *
 * Errors: GCLK_UNSUPPORTED naming the first member that changed and has no row.
 */
int gclk_bindings_cover(const struct gclk_bindings *bindings, const struct gclk_state *before,
			const struct gclk_state *after, struct gclk_error *reterr);

#endif
