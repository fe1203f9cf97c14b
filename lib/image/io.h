/* SPDX-License-Identifier: MIT */
/*
 * Random-access bytes that can be written, synced and resized: a file, a part of
 * one, the vm state inside a qcow2. Each is a table of calls, so that one can lie
 * on another, and so that a test can stop the world after any call.
 */
#ifndef GCLK_IMAGE_IO_H
#define GCLK_IMAGE_IO_H

#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

struct gclk_io {
	void *ctx;
	/* All @n bytes or an error, GCLK_TRUNCATED past the end. */
	int (*read)(void *ctx, uint64_t offset, void *buf, size_t n, struct gclk_error *reterr);
	/* All @n bytes or an error; may extend. */
	int (*write)(void *ctx, uint64_t offset, const void *buf, size_t n,
		     struct gclk_error *reterr);
	/* What was written before is on disk when this returns 0. */
	int (*sync)(void *ctx, struct gclk_error *reterr);
	int (*resize)(void *ctx, uint64_t size, struct gclk_error *reterr);
	int (*size)(void *ctx, uint64_t *ret_size, struct gclk_error *reterr);
};

/**
 * gclk_io_file() - the bytes of an open file
 * @fd:		stays the caller's, and open as long as the table is used
 *
 * Positions are explicit (pread, pwrite); the file's own offset is not used.
 */
struct gclk_io gclk_io_file(int fd);

struct gclk_io_part {
	struct gclk_io below;
	uint64_t base;
};

/**
 * gclk_io_from() - the bytes of @part->below from @part->base on
 * @part:	stays the caller's
 */
struct gclk_io gclk_io_from(struct gclk_io_part *part);

#endif
