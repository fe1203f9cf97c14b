/* SPDX-License-Identifier: MIT */
/*
 * The device tail of a stream: every FULL section, the EOF byte and the vmdesc,
 * with the model that locates each field in it.
 */
#ifndef GCLK_IMAGE_QEMU_TAIL_H
#define GCLK_IMAGE_QEMU_TAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "image/qemu/stream.h"
#include "image/qemu/vmdesc.h"
#include "image/window.h"

/*
 * @bytes, @size: from the 04 of the first section to the last byte of the vmdesc
 * @offset:	of bytes[0] in the stream
 * @sections_size: bytes before the EOF byte
 * @desc:	the model, tiled; its offsets index @bytes
 * @head:	what stands before the RAM; head.blocks is owned by the tail
 * @walked:	found by walking the whole stream, not from its end
 */
struct gclk_tail {
	uint8_t *bytes;
	size_t size;
	uint64_t offset;
	size_t sections_size;
	struct gclk_vmdesc *desc;
	struct gclk_stream_head head;
	bool walked;
};

struct gclk_tail_options {
	size_t tail_bytes;		/* as in gclk_stream_options */
	bool never_walk;		/* fail rather than read the RAM */
	/* Called during a walk, now and then; a result other than 0 ends it. */
	int (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
};

/**
 * gclk_tail_read() - find and read the device tail of a stream in a window
 * @w:		the stream starts at its offset 0
 * @end:	where the stream ends in it: the window's size, less what a caller
 *		knows to be its own trailer
 * @options:	NULL for the defaults
 * @ret:	the tail; free with gclk_tail_free()
 *
 * Looks from the end: the vmdesc says how long the sections are, and everything
 * must agree to the byte. The cost does not depend on the size of the RAM. Where
 * that does not work out the stream is walked from its start; bytes between the
 * vmdesc and @end are then tolerated.
 *
 * Errors: those of gclk_stream_push() and gclk_stream_end(); STATE when @progress
 * ended the walk or never_walk forbade it.
 */
int gclk_tail_read(const struct gclk_window *w, uint64_t end,
		   const struct gclk_tail_options *options, struct gclk_tail **ret,
		   struct gclk_error *reterr);

/**
 * gclk_tail_walk_ram() - show every RAM record of a stream to a visitor
 *
 * Reads the whole stream in @w up to its device tail.
 *
 * Errors: as gclk_tail_read().
 */
int gclk_tail_walk_ram(const struct gclk_window *w,
		       const struct gclk_ram_visitor *visitor,
		       const struct gclk_tail_options *options,
		       struct gclk_error *reterr);

/* Accepts NULL, returns NULL. */
struct gclk_tail *gclk_tail_free(struct gclk_tail *tail);

#endif
