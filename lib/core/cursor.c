/* SPDX-License-Identifier: MIT */
#include <inttypes.h>

#include "core/cursor.h"

uint64_t gclk_get_be(const uint8_t *p, size_t width)
{
	switch (width) {
	case 1:
		return p[0];
	case 2:
		return gclk_get_be16(p);
	case 4:
		return gclk_get_be32(p);
	case 8:
		return gclk_get_be64(p);
	default:
		return 0;
	}
}

void gclk_put_be(uint8_t *p, size_t width, uint64_t v)
{
	switch (width) {
	case 1:
		p[0] = (uint8_t)v;
		break;
	case 2:
		gclk_put_be16(p, (uint16_t)v);
		break;
	case 4:
		gclk_put_be32(p, (uint32_t)v);
		break;
	case 8:
		gclk_put_be64(p, v);
		break;
	default:
		break;
	}
}

void gclk_cursor_fail(struct gclk_cursor *c, int status)
{
	if (c->status == 0) {
		c->status = status;
		c->failed_at = gclk_cursor_position(c);
	}
}

const uint8_t *gclk_cursor_take(struct gclk_cursor *c, uint64_t n)
{
	static const uint8_t nothing[1];
	size_t left = c->size - c->at;
	const uint8_t *p;

	if (c->status) {
		return NULL;
	}
	if (n > left) {
		gclk_cursor_fail(c, -GCLK_TRUNCATED);
		c->wanted = n;
		c->had = left;
		return NULL;
	}
	p = c->data ? c->data + c->at : nothing;
	c->at += (size_t)n;
	return p;
}

struct gclk_cursor gclk_cursor_sub(struct gclk_cursor *c, uint64_t n)
{
	uint64_t base = gclk_cursor_position(c);
	const uint8_t *p = gclk_cursor_take(c, n);
	struct gclk_cursor sub = *c;

	sub.data = p;
	sub.size = p ? (size_t)n : 0;
	sub.at = 0;
	sub.base = base;
	return sub;
}

int gclk_cursor_finish(const struct gclk_cursor *c, const char *where,
		       struct gclk_error *reterr)
{
	if (c->status == 0) {
		return 0;
	}
	if (c->status == -GCLK_TRUNCATED) {
		return gclk_fail(reterr, GCLK_TRUNCATED, where, c->failed_at,
				 "%" PRIu64 " bytes are needed at offset %" PRIu64
				 ", %" PRIu64 " are left",
				 c->wanted, c->failed_at, c->had);
	}
	return gclk_fail(reterr, (enum gclk_status)-c->status, where, c->failed_at,
			 "an unexpected value before offset %" PRIu64, c->failed_at);
}

int gclk_cursor_finish_all(const struct gclk_cursor *c, const char *where,
			   struct gclk_error *reterr)
{
	int r = gclk_cursor_finish(c, where, reterr);

	if (r == 0 && c->at != c->size) {
		uint64_t position = gclk_cursor_position(c);

		return gclk_fail(reterr, GCLK_MALFORMED, where, position,
				 "%zu bytes are left over at offset %" PRIu64,
				 c->size - c->at, position);
	}
	return r;
}
