/* SPDX-License-Identifier: MIT */
/*
 * A window over bytes that come one after the other: all of them are read once, the
 * first and the last are kept. What parsers of a stream want is its beginning and
 * its device tail, so that one pass mostly is all.
 */
#ifndef GCLK_IMAGE_SEQUENTIAL_H
#define GCLK_IMAGE_SEQUENTIAL_H

#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#include "image/compress.h"
#include "image/raw.h"

struct gclk_sequential {
	/* From the first byte again; NULL: cannot. */
	int (*restart)(void *ctx, struct gclk_source *ret, struct gclk_error *reterr);
	void *ctx;
	struct gclk_progress progress;
	size_t head_max, tail_max;

	/* kept by gclk_sequential_load() */
	uint8_t *head, *tail;		/* the tail is a ring: byte o is tail[o % tail_max] */
	uint64_t total;
	struct gclk_source forward;	/* a later pass, and where it stands */
	uint64_t at;
};

/**
 * gclk_sequential_load() - read everything once
 * @from:	at its first byte; @s has the members above filled in
 */
int gclk_sequential_load(struct gclk_sequential *s, const struct gclk_source *from,
			 struct gclk_error *reterr);
/* For struct gclk_window, of s->total bytes; cheap in head and tail, and forwards. */
int gclk_sequential_read(void *s, uint64_t offset, void *buf, size_t n,
			 struct gclk_error *reterr);
void gclk_sequential_free(struct gclk_sequential *s);

#endif
