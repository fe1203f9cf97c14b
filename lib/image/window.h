/* SPDX-License-Identifier: MIT */
/*
 * A window: random access to the bytes of one thing inside a container — the
 * migration stream within a libvirt save image, a snapshot's state within a
 * qcow2 file, or simply a whole file. Containers make windows; readers of
 * streams use them and never learn what is around.
 */
#ifndef GCLK_IMAGE_WINDOW_H
#define GCLK_IMAGE_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * @read:	fills @buf with exactly @n bytes from @offset, or fails; only called
 *		with offset + n <= size
 * @size:	bytes in the window
 * @ctx:	the container's own, handed to @read
 */
struct gclk_window {
	int (*read)(void *ctx, uint64_t offset, void *buf, size_t n,
		    struct gclk_error *reterr);
	uint64_t size;
	void *ctx;
};

/*
 * gclk_window_read() - read @n bytes at @offset, all or nothing
 *
 * Errors: TRUNCATED where the window ends before offset + n.
 */
static inline int gclk_window_read(const struct gclk_window *w, uint64_t offset,
				   void *buf, size_t n, struct gclk_error *reterr)
{
	if (offset > w->size || n > w->size - offset) {
		return gclk_fail(reterr, GCLK_TRUNCATED, NULL, offset,
				 "%zu bytes wanted, the input ends at %llu", n,
				 (unsigned long long)w->size);
	}
	return n ? w->read(w->ctx, offset, buf, n, reterr) : 0;
}

#endif
