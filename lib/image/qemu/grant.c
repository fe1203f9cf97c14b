/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/cursor.h"
#include "core/pvclock.h"
#include "core/util.h"
#include "image/qemu/grant.h"
#include "image/qemu/page.h"

#define HEAD_BYTES 8

_Static_assert(GCLK_GRANT_HEAD_BYTES == HEAD_BYTES + GCLK_PVCLOCK_BYTES, "what is looked at");

static uint64_t place(uint64_t offset)
{
	return UINT64_C(1) << (offset / GCLK_PAGE_BYTES % 64);
}

void gclk_watch_add(struct gclk_page_watch *watch, uint64_t offset)
{
	if (watch->n < GCLK_WATCH_MAX) {
		watch->offsets[watch->n++] = offset;
		watch->places |= place(offset);
	}
}

static bool is_watched(const struct gclk_page_watch *watch, uint64_t offset)
{
	unsigned i = 0;

	if (!(watch->places & place(offset))) {
		return false;
	}
	while (i < watch->n && watch->offsets[i] != offset) {
		i++;
	}
	return i < watch->n;
}

bool gclk_page_looks_like_clock(const uint8_t *bytes)
{
	static const uint8_t zeros[4];
	struct gclk_pvclock page;

	/* the multiplier is always normalised, and a page that was never filled in has none */
	return bytes[27] & 0x80 && !memcmp(bytes + 4, zeros, 4) &&
	       gclk_pvclock_parse(bytes, &page, NULL) == 0 && page.version &&
	       page.tsc_timestamp && page.flags <= 3;
}

/* The bytes of the record at @bytes, or 0: somebody has to see it. */
static size_t record_size(const struct gclk_grant *g, const uint8_t *bytes, size_t n)
{
	uint64_t word = gclk_get_be64(bytes);
	uint64_t flags = word & (GCLK_PAGE_BYTES - 1), offset = word - flags;

	if (offset >= g->below || (g->watch && is_watched(g->watch, offset))) {
		return 0;
	}
	if (flags == (RAM_ZERO | RAM_CONTINUE)) {
		return HEAD_BYTES + 1;
	}
	if (flags != (RAM_PAGE_WHOLE | RAM_CONTINUE) ||
	    (g->watch && g->watch->clock_pages &&
	     (n < GCLK_GRANT_HEAD_BYTES ||
	      gclk_page_looks_like_clock(bytes + HEAD_BYTES)))) {
		return 0;
	}
	return HEAD_BYTES + GCLK_PAGE_BYTES;
}

size_t gclk_grant_use(struct gclk_grant *g, const uint8_t *bytes, size_t n)
{
	size_t at = (size_t)GCLK_MIN(g->rest, (uint64_t)n);

	g->rest -= at;
	while (n - at > HEAD_BYTES) {
		size_t size = record_size(g, bytes + at, n - at);

		if (size > n - at) {
			g->rest = size - (n - at);
			return n;
		}
		if (!size) {
			break;
		}
		at += size;
	}
	return at;
}
