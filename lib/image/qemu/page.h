/* SPDX-License-Identifier: MIT */
/*
 * Looking up pages of guest RAM while a stream goes by: for every page asked for,
 * what the guest last had in it, whatever kinds of record carried it.
 */
#ifndef GCLK_IMAGE_QEMU_PAGE_H
#define GCLK_IMAGE_QEMU_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "image/qemu/stream.h"

#define GCLK_PAGE_BYTES 4096u

/*
 * @block, @offset: which page is meant; set by the caller. @block is borrowed.
 * @known:	@bytes holds the page; false where the stream did not carry it (other
 *		multifd channels, shared RAM) or only a difference to an unseen page
 */
struct gclk_page {
	const char *block;
	uint64_t offset;
	bool known;
	uint8_t bytes[GCLK_PAGE_BYTES];
};

struct gclk_pages {
	struct gclk_page *pages;
	size_t n;
};

/* A visitor for gclk_stream_options.ram that keeps @pages up to date. */
struct gclk_ram_visitor gclk_pages_visitor(struct gclk_pages *pages);

/**
 * gclk_page_apply() - bring one page up to date with a record of it
 *
 * Errors: MALFORMED where the record does not decode to one page.
 */
int gclk_page_apply(struct gclk_page *page, const struct gclk_ram_record *r,
		    struct gclk_error *reterr);

#endif
