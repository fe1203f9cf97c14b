/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <zlib.h>

#include "image/qemu/page.h"

static int bad(const struct gclk_ram_record *r, struct gclk_error *reterr,
	       const char *what)
{
	return gclk_fail(reterr, GCLK_MALFORMED, r->block, GCLK_NO_OFFSET,
			 "the %s record of the page at 0x%llx does not decode", what,
			 (unsigned long long)r->offset);
}

/* A number of xbzrle: seven bits per byte, low ones first, at most two bytes. */
static bool run_length(const uint8_t **p, const uint8_t *end, size_t *ret)
{
	size_t n;

	if (*p == end) {
		return false;
	}
	n = *(*p)++;
	if (n & 0x80) {
		if (*p == end || **p & 0x80) {
			return false;
		}
		n = (n & 0x7f) | (size_t)*(*p)++ << 7;
	}
	*ret = n;
	return true;
}

/* {n bytes as before, m new bytes, the m bytes}, up to the end of record or page. */
static bool apply_xbzrle(uint8_t *page, const uint8_t *p, size_t n)
{
	const uint8_t *end = p + n;
	size_t at = 0, run;

	while (p < end) {
		if (!run_length(&p, end, &run) || run > GCLK_PAGE_BYTES - at) {
			return false;
		}
		at += run;
		if (p == end) {
			break;
		}
		if (!run_length(&p, end, &run) || run > GCLK_PAGE_BYTES - at ||
		    run > (size_t)(end - p)) {
			return false;
		}
		memcpy(page + at, p, run);
		at += run;
		p += run;
	}
	return true;
}

int gclk_page_apply(struct gclk_page *page, const struct gclk_ram_record *r,
		    struct gclk_error *reterr)
{
	uint8_t bytes[GCLK_PAGE_BYTES];
	uLongf n = sizeof(bytes);

	switch (r->kind) {
	case GCLK_RAM_ZERO:
		memset(bytes, r->n ? r->bytes[0] : 0, sizeof(bytes));
		break;
	case GCLK_RAM_PAGE:
		if (r->n != sizeof(bytes)) {
			return bad(r, reterr, "page");
		}
		memcpy(bytes, r->bytes, sizeof(bytes));
		break;
	case GCLK_RAM_XBZRLE:
		if (!page->known) {
			return 0;	/* a difference to something not seen */
		}
		memcpy(bytes, page->bytes, sizeof(bytes));
		if (!apply_xbzrle(bytes, r->bytes, r->n)) {
			return bad(r, reterr, "xbzrle");
		}
		break;
	case GCLK_RAM_ZLIB:
		if (uncompress(bytes, &n, r->bytes, (uLong)r->n) != Z_OK ||
		    n != sizeof(bytes)) {
			return bad(r, reterr, "compressed");
		}
		break;
	}
	memcpy(page->bytes, bytes, sizeof(bytes));
	page->known = true;
	return 0;
}

static struct gclk_page *find_page(const struct gclk_pages *pages, const char *block,
				   uint64_t offset)
{
	for (size_t i = 0; i < pages->n; i++) {
		struct gclk_page *page = &pages->pages[i];

		if (page->offset == offset && !strcmp(page->block, block)) {
			return page;
		}
	}
	return NULL;
}

static bool want(void *ctx, const char *block, uint64_t offset)
{
	return find_page(ctx, block, offset);
}

static int record(void *ctx, const struct gclk_ram_record *r, struct gclk_error *reterr)
{
	return gclk_page_apply(find_page(ctx, r->block, r->offset), r, reterr);
}

struct gclk_ram_visitor gclk_pages_visitor(struct gclk_pages *pages)
{
	return (struct gclk_ram_visitor){ .want = want, .record = record, .ctx = pages };
}
