/* SPDX-License-Identifier: MIT */
/*
 * Bytes with a bound. Every foreign byte is read through a cursor: a read past the end
 * returns 0 (or NULL), moves nothing, and is remembered; all reads after it do the same.
 * So a parser reads a whole structure and asks once:
 *
 *	struct gclk_cursor c = gclk_cursor_of(data, size, 0);
 *	uint32_t magic = gclk_cursor_be32(&c);
 *	uint64_t count = gclk_cursor_be64(&c);
 *
 *	r = gclk_cursor_finish(&c, "header", reterr);
 *	if (r < 0) {
 *		return r;
 *	}
 *
 * but must not use a value as a length or as a loop's bound before it has asked.
 */
#ifndef GCLK_CORE_CURSOR_H
#define GCLK_CORE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/error.h"

/* Whole numbers at any alignment. */
static inline uint16_t gclk_get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t gclk_get_be32(const uint8_t *p)
{
	return (uint32_t)gclk_get_be16(p) << 16 | gclk_get_be16(p + 2);
}

static inline uint64_t gclk_get_be64(const uint8_t *p)
{
	return (uint64_t)gclk_get_be32(p) << 32 | gclk_get_be32(p + 4);
}

static inline uint16_t gclk_get_le16(const uint8_t *p)
{
	return (uint16_t)(p[1] << 8 | p[0]);
}

static inline uint32_t gclk_get_le32(const uint8_t *p)
{
	return (uint32_t)gclk_get_le16(p + 2) << 16 | gclk_get_le16(p);
}

static inline uint64_t gclk_get_le64(const uint8_t *p)
{
	return (uint64_t)gclk_get_le32(p + 4) << 32 | gclk_get_le32(p);
}

static inline void gclk_put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void gclk_put_be32(uint8_t *p, uint32_t v)
{
	gclk_put_be16(p, (uint16_t)(v >> 16));
	gclk_put_be16(p + 2, (uint16_t)v);
}

static inline void gclk_put_be64(uint8_t *p, uint64_t v)
{
	gclk_put_be32(p, (uint32_t)(v >> 32));
	gclk_put_be32(p + 4, (uint32_t)v);
}

static inline void gclk_put_le16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void gclk_put_le32(uint8_t *p, uint32_t v)
{
	gclk_put_le16(p, (uint16_t)v);
	gclk_put_le16(p + 2, (uint16_t)(v >> 16));
}

static inline void gclk_put_le64(uint8_t *p, uint64_t v)
{
	gclk_put_le32(p, (uint32_t)v);
	gclk_put_le32(p + 4, (uint32_t)(v >> 32));
}

/* A big-endian number of 1, 2, 4 or 8 bytes; 0 for another width. */
uint64_t gclk_get_be(const uint8_t *p, size_t width);

/* The same to memory, low bytes of @v; nothing is written for another width. */
void gclk_put_be(uint8_t *p, size_t width, uint64_t v);

struct gclk_cursor {
	const uint8_t *data;
	size_t size;
	size_t at;		/* next byte, <= size */
	uint64_t base;		/* offset of data[0] in the whole input */
	int status;		/* 0, or the negative status of the first failure */
	uint64_t failed_at;	/* offset in the whole input where that was */
	uint64_t wanted;	/* bytes that it asked for; 0 unless truncated */
	uint64_t had;		/* bytes that were left for it */
};

/* A cursor over @size bytes at offset @base of the whole input; borrows @data. */
static inline struct gclk_cursor gclk_cursor_of(const void *data, size_t size,
						uint64_t base)
{
	return (struct gclk_cursor){ .data = data, .size = size, .base = base };
}

/*
 * Takes @n bytes and returns where they are, or NULL with the failure remembered. A taken
 * length of 0 is never NULL unless the cursor has failed.
 */
const uint8_t *gclk_cursor_take(struct gclk_cursor *c, uint64_t n);

/*
 * Remembers a failure of the caller's own (a bad value: -GCLK_MALFORMED), at the present
 * position, unless there is an earlier one. Everything read from now on is 0.
 */
void gclk_cursor_fail(struct gclk_cursor *c, int status);

static inline bool gclk_cursor_ok(const struct gclk_cursor *c)
{
	return c->status == 0;
}

/* Bytes left; 0 after a failure, so that a loop over them ends. */
static inline size_t gclk_cursor_left(const struct gclk_cursor *c)
{
	return c->status ? 0 : c->size - c->at;
}

/* Offset of the next byte in the whole input. */
static inline uint64_t gclk_cursor_position(const struct gclk_cursor *c)
{
	return c->base + c->at;
}

static inline void gclk_cursor_skip(struct gclk_cursor *c, uint64_t n)
{
	(void)gclk_cursor_take(c, n);
}

/* Copies @n bytes to @to; zeroes on failure. */
static inline void gclk_cursor_copy(struct gclk_cursor *c, void *to, size_t n)
{
	const uint8_t *p = gclk_cursor_take(c, n);

	if (!n) {
		return;
	}
	if (p) {
		memcpy(to, p, n);
	} else {
		memset(to, 0, n);
	}
}

static inline uint8_t gclk_cursor_u8(struct gclk_cursor *c)
{
	const uint8_t *p = gclk_cursor_take(c, 1);

	return p ? p[0] : 0;
}

#define GCLK_CURSOR_READ(order, bits)                                             \
	static inline uint##bits##_t gclk_cursor_##order##bits(struct gclk_cursor *c) \
	{                                                                         \
		const uint8_t *p = gclk_cursor_take(c, bits / 8);                 \
		return p ? gclk_get_##order##bits(p) : 0;                         \
	}

GCLK_CURSOR_READ(be, 16)
GCLK_CURSOR_READ(be, 32)
GCLK_CURSOR_READ(be, 64)
GCLK_CURSOR_READ(le, 16)
GCLK_CURSOR_READ(le, 32)
GCLK_CURSOR_READ(le, 64)

/*
 * Takes @n bytes as a cursor of their own, whose positions stay those of the whole input.
 * Where they are not there, @c has failed and so has the result, in the same way.
 */
struct gclk_cursor gclk_cursor_sub(struct gclk_cursor *c, uint64_t n);

/**
 * gclk_cursor_finish() - whether everything so far was there
 * @c:	the cursor
 * @where:	what was being read, for the message
 *
 * Returns 0, or the first failure, described in @reterr with its offset.
 */
int gclk_cursor_finish(const struct gclk_cursor *c, const char *where,
		       struct gclk_error *reterr);

/* The same, and -GCLK_MALFORMED where bytes are left over. */
int gclk_cursor_finish_all(const struct gclk_cursor *c, const char *where,
			   struct gclk_error *reterr);

#endif
