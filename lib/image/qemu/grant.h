/* SPDX-License-Identifier: MIT */
/*
 * What of a stream need not be shown to the parser: the rest of something whose length it
 * knows, and behind it whole and zero pages of one block of memory. Most of a migration is
 * that. The parser says so in advance, and whoever has the bytes lets them go without it.
 *
 *	rest bytes | be64 page-offset+flags  4096 bytes | be64 page-offset+flags  byte | ...
 *
 * Of a page its first 8 bytes are compared, and of its memory the first 32 where pages
 * that look like a guest's clock are to be seen. Nothing is done with any of them.
 */
#ifndef GCLK_IMAGE_QEMU_GRANT_H
#define GCLK_IMAGE_QEMU_GRANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a record of memory: the low 12 bits of its first 8 bytes, whose others are an offset. */
enum ram_flag {
	RAM_ZERO = 0x002, RAM_MEM_SIZE = 0x004, RAM_PAGE_WHOLE = 0x008, RAM_EOS = 0x010,
	RAM_CONTINUE = 0x020, RAM_XBZRLE = 0x040, RAM_HOOK = 0x080, RAM_ZLIB = 0x100,
	RAM_MULTIFD_FLUSH = 0x200,
};

#define GCLK_WATCH_MAX 32
#define GCLK_GRANT_HEAD_BYTES 40	/* so many of a record are always enough to tell */

/* Pages that somebody wants to see, in case they hold the guest's clock. */
struct gclk_page_watch {
	uint64_t offsets[GCLK_WATCH_MAX];	/* those here, in any block */
	uint64_t places;	/* for speed: the bits of their page numbers modulo 64 */
	uint32_t n;
	uint8_t clock_pages;	/* and those that look like one */
};

struct gclk_grant {
	uint64_t rest;		/* so many bytes, whatever they are */
	uint64_t below;		/* then pages at offsets below it, of the block as before */
	const struct gclk_page_watch *watch;	/* but not these; NULL: nobody wants any */
};

/**
 * gclk_grant_use() - how many of these bytes are granted
 * @grant:	afterwards: what is, of the bytes that follow them
 *
 * Less than @n: what follows is the parser's to see.
 */
size_t gclk_grant_use(struct gclk_grant *grant, const uint8_t *bytes, size_t n);

/* One more, while there is room. */
void gclk_watch_add(struct gclk_page_watch *watch, uint64_t offset);

/* Whether a page whose memory begins so may be a guest's clock. */
bool gclk_page_looks_like_clock(const uint8_t *page);

#endif
