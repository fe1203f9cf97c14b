/* SPDX-License-Identifier: MIT */
/*
 * The head of a libvirt save image (virsh save, managedsave, external snapshots).
 *
 *	 0 16  magic "LibvirtQemudSave"; "LibvirtQemudPart" while written, or failed
 *	16  4  version, 1 or 2; a reader that sees more swaps all five words
 *	20  4  data_len: bytes between this header and the stream
 *	24  4  was_running
 *	28  4  format: 0 raw, 1 gzip, 2 bzip2, 3 xz, 4 lzop, 5 zstd, 6 sparse
 *	32  4  cookie_offset, from the end of this header; 0: no cookie
 *	36 56  unused
 *	92     XML NUL, cookie NUL, zeros up to 92 + data_len; then the stream
 *
 * The words are in the writer's byte order.
 */
#ifndef GCLK_IMAGE_LIBVIRT_SAVE_H
#define GCLK_IMAGE_LIBVIRT_SAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#include "image/compress.h"

#define GCLK_LIBVIRT_HEADER_BYTES 92
/* XML, cookie and padding together; libvirt's own are below 200 KiB. */
#define GCLK_LIBVIRT_MAX_DATA (UINT32_C(16) << 20)

struct gclk_libvirt_save {
	uint32_t version, data_len, was_running, format, cookie_offset;
	bool swapped;		/* the words are in the other byte order than ours */
	char *xml;		/* NUL-terminated */
	size_t n_xml;		/* without the NUL */
	char *cookie;		/* NULL: none */
	size_t n_cookie;
};

/* Does a file that begins with these bytes claim to be a save image, complete or not? */
bool gclk_libvirt_save_probe(const void *bytes, size_t n);

/**
 * gclk_libvirt_save_header() - the 92 bytes
 * @bytes:	GCLK_LIBVIRT_HEADER_BYTES of them
 * @ret:	its numbers; no text yet
 *
 * Errors: STATE for a partial image, UNSUPPORTED for format 6 (mapped-ram) and
 * unknown ones, VERSION, RANGE for lengths that cannot be.
 */
int gclk_libvirt_save_header(const void *bytes, struct gclk_libvirt_save *ret,
			     struct gclk_error *reterr);

/**
 * gclk_libvirt_save_texts() - XML and cookie
 * @save:	with its header read
 * @data:	@save->data_len bytes that follow the header
 *
 * Errors: MALFORMED where a text is not terminated or is not where it must be.
 */
int gclk_libvirt_save_texts(struct gclk_libvirt_save *save, const void *data,
			    struct gclk_error *reterr);

void gclk_libvirt_save_free(struct gclk_libvirt_save *save);

#endif
