/* SPDX-License-Identifier: MIT */
/*
 * A file in memory that remembers every call that changed it, so that a test can
 * rebuild what a disk may hold after the world stopped at any of them.
 */
#ifndef GCLK_TEST_MEMORY_IO_H
#define GCLK_TEST_MEMORY_IO_H

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "image/io.h"
#include "image/window.h"

struct memory_op {
	enum { MEMORY_WRITE, MEMORY_SYNC, MEMORY_RESIZE } kind;
	uint64_t offset;	/* or the new size */
	uint8_t *bytes;
	size_t n;
};

struct memory {
	uint8_t *bytes;
	size_t n;
	struct memory_op *ops;
	size_t n_ops;
};

static inline void memory_set_size(struct memory *m, size_t n)
{
	m->bytes = realloc(m->bytes, n + 1);
	if (n > m->n) {
		memset(m->bytes + m->n, 0, n - m->n);
	}
	m->n = n;
}

static inline void memory_put(struct memory *m, uint64_t offset, const void *bytes, size_t n)
{
	if (offset + n > m->n) {
		memory_set_size(m, offset + n);
	}
	if (n) {
		memcpy(m->bytes + offset, bytes, n);
	}
}

static inline struct memory_op *memory_log(struct memory *m, int kind, uint64_t offset)
{
	m->ops = realloc(m->ops, (m->n_ops + 1) * sizeof(*m->ops));
	m->ops[m->n_ops] = (struct memory_op){ .kind = kind, .offset = offset };
	return &m->ops[m->n_ops++];
}

static inline int memory_read(void *ctx, uint64_t offset, void *buf, size_t n,
			      struct gclk_error *reterr)
{
	struct memory *m = ctx;

	if (offset > m->n || n > m->n - offset) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "memory", offset, "past the end");
	}
	if (n) {
		memcpy(buf, m->bytes + offset, n);
	}
	return 0;
}

static inline int memory_write(void *ctx, uint64_t offset, const void *buf, size_t n,
			       struct gclk_error *reterr)
{
	struct memory *m = ctx;
	struct memory_op *op = memory_log(m, MEMORY_WRITE, offset);

	(void)reterr;
	op->bytes = malloc(n + 1);
	op->n = n;
	if (n) {
		memcpy(op->bytes, buf, n);
	}
	memory_put(m, offset, buf, n);
	return 0;
}

static inline int memory_sync(void *ctx, struct gclk_error *reterr)
{
	(void)reterr;
	memory_log(ctx, MEMORY_SYNC, 0);
	return 0;
}

static inline int memory_resize(void *ctx, uint64_t size, struct gclk_error *reterr)
{
	(void)reterr;
	memory_log(ctx, MEMORY_RESIZE, size);
	memory_set_size(ctx, size);
	return 0;
}

static inline int memory_size(void *ctx, uint64_t *ret_size, struct gclk_error *reterr)
{
	(void)reterr;
	*ret_size = ((struct memory *)ctx)->n;
	return 0;
}

static inline struct gclk_io memory_io(struct memory *m)
{
	return (struct gclk_io){ m, memory_read, memory_write, memory_sync, memory_resize,
				 memory_size };
}

static inline struct gclk_window memory_window(struct memory *m)
{
	return (struct gclk_window){ .read = memory_read, .size = m->n, .ctx = m };
}

static inline void memory_free(struct memory *m)
{
	for (size_t i = 0; i < m->n_ops; i++) {
		free(m->ops[i].bytes);
	}
	free(m->ops);
	free(m->bytes);
	*m = (struct memory){ 0 };
}

static inline struct memory memory_copy(const struct memory *m)
{
	struct memory copy = { 0 };

	memory_put(&copy, 0, m->bytes, m->n);
	return copy;
}

static inline int memory_same(const struct memory *a, const struct memory *b)
{
	return a->n == b->n && (!a->n || !memcmp(a->bytes, b->bytes, a->n));
}

/* Does what @op did; of a write only bytes [from, to). */
static inline void memory_redo(struct memory *m, const struct memory_op *op, size_t from,
			       size_t to)
{
	if (op->kind == MEMORY_WRITE && from < to) {
		memory_put(m, op->offset + from, op->bytes + from, to - from);
	} else if (op->kind == MEMORY_RESIZE) {
		memory_set_size(m, op->offset);
	}
}

/*
 * Calls @check with every image that may be on the disk when the world stops at any
 * point of what @log remembers, beginning from @before:
 *  - a killed process: all calls up to one, and of that any part from its front;
 *  - a power cut: what the last sync covered, and of the calls since any subset
 *    (beyond 2^8 of them a sample), the last one perhaps torn in the middle, or the
 *    file longer and its new bytes zero.
 */
static inline void memory_crash_everywhere(const struct memory *before,
					   const struct memory *log,
					   void (*check)(struct memory *image, void *ctx),
					   void *ctx)
{
	size_t synced = 0;

	for (size_t k = 0; k <= log->n_ops; k++) {
		size_t n = k < log->n_ops ? log->ops[k].n : 0;
		size_t pending = k - synced;
		struct memory image;

		for (size_t part = 0; part <= n; part += 1 + n / 97) {	/* killed */
			image = memory_copy(before);
			for (size_t i = 0; i < k; i++) {
				memory_redo(&image, &log->ops[i], 0, log->ops[i].n);
			}
			if (k < log->n_ops && log->ops[k].kind == MEMORY_WRITE) {
				memory_redo(&image, &log->ops[k], 0, part);
			}
			check(&image, ctx);
			memory_free(&image);
		}
		for (unsigned set = 0; set < 1u << (pending < 8 ? pending : 8); set++) {
			for (int tear = 0; tear < 3; tear++) {		/* power cut */
				image = memory_copy(before);
				for (size_t i = 0; i < k; i++) {
					const struct memory_op *op = &log->ops[i];
					size_t from = 0, to = op->n;

					if (i >= synced && !(set >> (i - synced) % 8 & 1)) {
						continue;
					}
					if (i + 1 == k && i >= synced && tear == 1) {
						to /= 2;
					}
					if (i + 1 == k && i >= synced && tear == 2) {
						from = to / 2;
					}
					memory_redo(&image, op, from, to);
				}
				check(&image, ctx);
				memory_free(&image);
			}
		}
		if (k < log->n_ops && log->ops[k].kind == MEMORY_SYNC) {
			synced = k + 1;
		}
	}
}

#endif
