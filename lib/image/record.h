/* SPDX-License-Identifier: MIT */
/*
 * The undo record: what a rewritten image needs to become the captured one again
 * (rule R9), kept in the image itself.
 *
 * QEMU reads its stream up to the end of the vmdesc and ignores what follows, so
 * the record follows it:
 *
 *	0                         base                          end of file
 *	+-------------------------+-----------------------------+
 *	| stream (and what an     | record                      |
 *	| image already had there)|                             |
 *	+-------------------------+-----------------------------+
 *
 * All integers are big-endian, as in the stream:
 *
 *	header	 0  8  magic "GCLKUNDO"
 *		 8  4  version, 1; 2: open, the ranges may hold any bytes (see below)
 *		12  4  n_ranges
 *		16  8  length of the record, header and footer included
 *		24  8  base: size of the image without any record, in stream offsets
 *		32  8  own offset; base, or behind an older record while that is superseded
 *		40  8  length of the payload
 *		48  8  CRC-64 of bytes 0..47
 *	ranges	per range: 8 offset in the original stream, 4 n_old, 4 n_new,
 *		n_old original bytes, n_new new bytes; sorted, not overlapping
 *	payload	the caller's (provenance, the applied plan), opaque here
 *	footer	 0  8  length of the record, again
 *		 8  8  CRC-64 of all bytes before this one
 *		16  8  magic "GCLKDONE"
 *
 * The footer makes the record found from the end of the file by reading 24 bytes.
 * The checksum (CRC-64/XZ, which liblzma has) is against tearing and accident.
 * It is not against forgery: whoever can write the image can write the guest's
 * memory; the payload is where a sealed bundle proves its origin.
 *
 * In place, with S the stream's bytes, 0 original, 1 and 2 rewritten:
 *
 *	S0                   --append R1, sync-->        S0 R1
 *	S0 R1                --patch, sync-->            S1 R1
 *	S1 R1                --append R2, sync-->        S1 R1 .. R2
 *	S1 R1 .. R2          --patch, sync-->            S2 R1 .. R2
 *	S2 R1 .. R2          --R2 again at base, sync--> S2 R2 .. R2
 *	S2 R2 .. R2          --truncate, sync-->         S2 R2
 *	S2 R2                --originals, sync-->        S0 R2
 *	S0 R2                --truncate, sync-->         S0
 *
 * R2 stands far enough behind R1 that its copy at base never overlaps it. R2 covers
 * all ranges of R1 too. Whatever call the world stops after, then:
 *  (U1) before the first patched byte a whole record with its original is on disk;
 *  (U2) each byte of a range is its original or a new value of R1 or R2, hence a
 *       record with any other byte in its ranges is not of this image: refused;
 *  (U3) a torn record, which can only stand at the end, is followed by no patch. A
 *       record that is not whole, yet whose readable ranges do not all hold their
 *       originals, is therefore not torn but damaged: refused.
 */
#ifndef GCLK_IMAGE_RECORD_H
#define GCLK_IMAGE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#include "image/io.h"
#include "image/window.h"

/* Beyond these a record is malformed. */
#define GCLK_UNDO_MAX_BYTES (UINT64_C(4) << 20)
#define GCLK_UNDO_MAX_RANGES (UINT32_C(1) << 16)

/*
 * @n_old bytes at @offset become @n_new bytes. The lengths differ only when a
 * subsection is inserted, which needs a copy. @offset counts in the stream as it
 * was before any patch.
 */
struct gclk_patch {
	uint64_t offset;
	uint32_t n_old, n_new;
	const uint8_t *old_bytes;	/* compared before anything is written */
	const uint8_t *new_bytes;
};

/* A record as it was found; patches and payload point into @bytes. */
struct gclk_undo {
	bool open;			/* a writer was still at work: see gclk_undo_apply_open() */
	uint64_t base;			/* size of the image without it */
	uint64_t offset;		/* where it stands, in stream offsets */
	struct gclk_patch *patches;	/* NULL: no record */
	size_t n_patches;
	const uint8_t *payload;
	size_t n_payload;
	uint8_t *bytes;
	size_t n_bytes;
};

void gclk_undo_free(struct gclk_undo *undo);

/**
 * gclk_patches_check() - sorted, not overlapping, within a stream
 * @size:	of the stream before the patches
 *
 * Errors: RANGE with the offset of the first patch that is wrong.
 */
int gclk_patches_check(const struct gclk_patch *patches, size_t n_patches, uint64_t size,
		       struct gclk_error *reterr);

/**
 * gclk_undo_pack() - a record as bytes
 * @base:	see struct gclk_undo
 * @offset:	where it will stand
 * @ret_bytes:	malloc()ed, the caller's
 */
int gclk_undo_pack(const struct gclk_patch *patches, size_t n_patches, const void *payload,
		   size_t n_payload, uint64_t base, uint64_t offset, uint8_t **ret_bytes,
		   size_t *ret_n, struct gclk_error *reterr);

/**
 * gclk_undo_unpack() - a record from bytes
 * @bytes:	begins with the header; @n may be more than the record
 * @offset:	where the bytes stood
 * @ret:	filled with copies; gclk_undo_free()
 *
 * Errors: MALFORMED, TRUNCATED, VERSION, NOMEM.
 */
int gclk_undo_unpack(const void *bytes, size_t n, uint64_t offset, struct gclk_undo *ret,
		     struct gclk_error *reterr);

/* Positive: nothing wrong, but there is no record. */
#define GCLK_UNDO_NONE 1

/**
 * gclk_undo_find() - the record of an image
 * @image:	read only
 * @stream_end:	where the stream ends, when the caller has walked it; else
 *		GCLK_UNDO_UNKNOWN_END
 * @ret:	filled on 0
 *
 * Without @stream_end only the footer at the end counts: 24 bytes are read when
 * there is none. With it what follows the stream is searched too, which finds the
 * record before a torn one.
 *
 * Returns 0, GCLK_UNDO_NONE, or an error. The bytes of the ranges are not looked
 * at: gclk_undo_state().
 */
#define GCLK_UNDO_UNKNOWN_END UINT64_MAX
int gclk_undo_find(const struct gclk_window *image, uint64_t stream_end,
		   struct gclk_undo *ret, struct gclk_error *reterr);

enum gclk_undo_state {
	GCLK_UNDO_APPLIED = 0,	/* every range holds its new bytes */
	GCLK_UNDO_PARTIAL,	/* interrupted: rewrite again, or undo */
	GCLK_UNDO_REVERTED,	/* every range holds its original bytes */
};

/**
 * gclk_undo_state() - hold a record against its image
 *
 * Errors: MALFORMED where a byte of a range is neither its original nor a new
 * value: the record is refused.
 */
int gclk_undo_state(const struct gclk_window *image, const struct gclk_undo *undo,
		    enum gclk_undo_state *ret, struct gclk_error *reterr);

/**
 * gclk_undo_original() - read the image as it was before any rewriting
 * @undo:	of this image, checked by gclk_undo_state(); or with no patches
 * @offset:	in the original stream
 */
int gclk_undo_original(const struct gclk_window *image, const struct gclk_undo *undo,
		       uint64_t offset, void *buf, size_t n, struct gclk_error *reterr);

/**
 * gclk_undo_apply() - rewrite in place, so that it can be taken back
 * @image:	stream offsets
 * @stream_end:	as for gclk_undo_find()
 * @patches:	against the original stream; those that change nothing are left out
 * @payload:	what the record carries besides, may be NULL
 *
 * Supersedes a record that is there. If no patch changes a byte the image is made
 * the original, and an image without record is not written at all.
 *
 * Errors: before anything is written: MALFORMED (record refused, old bytes do not
 * match), UNSUPPORTED (lengths differ), RANGE. Afterwards only those of @image;
 * then gclk_undo_revert() leads back.
 */
int gclk_undo_apply(const struct gclk_io *image, uint64_t stream_end,
		    const struct gclk_patch *patches, size_t n_patches, const void *payload,
		    size_t n_payload, struct gclk_error *reterr);

/**
 * gclk_undo_apply_open() - rewrite a range that will be written again soon, without records
 * @range:	everything that may change; all of its original bytes go into the record
 *
 * As gclk_undo_apply(), but the record stays open: it vouches for the originals and not
 * for what the range holds, so that from now on any bytes may be written there, in one
 * write and without waiting for the disk, and still every crash leaves an image that can
 * be undone. gclk_undo_apply() with the last values closes it.
 */
int gclk_undo_apply_open(const struct gclk_io *image, uint64_t stream_end,
			 const struct gclk_patch *range, const void *payload, size_t n_payload,
			 struct gclk_error *reterr);

/**
 * gclk_undo_revert() - the captured image again, byte for byte
 *
 * Also removes a torn record of ours behind @stream_end.
 *
 * Returns 0, or GCLK_UNDO_NONE when there was nothing to undo.
 */
int gclk_undo_revert(const struct gclk_io *image, uint64_t stream_end,
		     struct gclk_error *reterr);

#endif
