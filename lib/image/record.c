/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/error.h"
#include "core/util.h"
#include "image/record.h"

#define HEADER_BYTES 56
#define RANGE_BYTES 16
#define FOOTER_BYTES 24
#define MIN_BYTES (HEADER_BYTES + FOOTER_BYTES)
#define VERSION 1
#define VERSION_OPEN 2

static const char header_magic[8] = { 'G', 'C', 'L', 'K', 'U', 'N', 'D', 'O' };
static const char footer_magic[8] = { 'G', 'C', 'L', 'K', 'D', 'O', 'N', 'E' };

static uint64_t checksum(const void *bytes, size_t n)
{
	return lzma_crc64(bytes, n, 0);
}

void gclk_undo_free(struct gclk_undo *undo)
{
	free(undo->patches);
	free(undo->bytes);
	*undo = (struct gclk_undo){ 0 };
}

/* ---- the record as bytes ---- */

int gclk_patches_check(const struct gclk_patch *patches, size_t n_patches, uint64_t size,
		       struct gclk_error *reterr)
{
	uint64_t free_from = 0;

	for (size_t i = 0; i < n_patches; i++) {
		const struct gclk_patch *p = &patches[i];

		if (p->offset < free_from) {
			return gclk_fail(reterr, GCLK_RANGE, "patches", p->offset,
					 "patch %zu begins before the end of the one before it", i);
		}
		if (p->offset > size || p->n_old > size - p->offset) {
			return gclk_fail(reterr, GCLK_RANGE, "patches", p->offset,
					 "patch %zu (%" PRIu32 " bytes) reaches past the end of the "
					 "stream at %" PRIu64, i, p->n_old, size);
		}
		/* Two insertions at one place would have no order. */
		free_from = p->offset + GCLK_MAX(p->n_old, UINT32_C(1));
	}
	return 0;
}

static uint64_t packed_size(const struct gclk_patch *patches, size_t n_patches,
			    size_t n_payload)
{
	uint64_t n = MIN_BYTES;

	for (size_t i = 0; i < n_patches; i++) {
		n += RANGE_BYTES + (uint64_t)patches[i].n_old + patches[i].n_new;
	}
	return n + n_payload;
}

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t n)
{
	if (n) {
		memcpy(at, bytes, n);
	}
	return at + n;
}

static uint8_t *put_range(uint8_t *at, const struct gclk_patch *p)
{
	gclk_put_be64(at, p->offset);
	gclk_put_be32(at + 8, p->n_old);
	gclk_put_be32(at + 12, p->n_new);
	at = put_bytes(at + RANGE_BYTES, p->old_bytes, p->n_old);
	return put_bytes(at, p->new_bytes, p->n_new);
}

static int pack(const struct gclk_patch *patches, size_t n_patches, const void *payload,
		size_t n_payload, uint64_t base, uint64_t offset, bool open, uint8_t **ret_bytes,
		size_t *ret_n, struct gclk_error *reterr)
{
	uint64_t n = packed_size(patches, n_patches, n_payload);
	uint8_t *bytes, *at;

	if (n > GCLK_UNDO_MAX_BYTES || n_patches > GCLK_UNDO_MAX_RANGES) {
		return gclk_fail(reterr, GCLK_RANGE, "undo record", GCLK_NO_OFFSET,
				 "%" PRIu64 " bytes in %zu ranges are more than a record may hold",
				 n, n_patches);
	}
	bytes = malloc(n);
	if (!bytes) {
		return gclk_fail(reterr, GCLK_NOMEM, "undo record", GCLK_NO_OFFSET,
				 "no memory for %" PRIu64 " bytes", n);
	}
	memcpy(bytes, header_magic, 8);
	gclk_put_be32(bytes + 8, open ? VERSION_OPEN : VERSION);
	gclk_put_be32(bytes + 12, (uint32_t)n_patches);
	gclk_put_be64(bytes + 16, n);
	gclk_put_be64(bytes + 24, base);
	gclk_put_be64(bytes + 32, offset);
	gclk_put_be64(bytes + 40, n_payload);
	gclk_put_be64(bytes + 48, checksum(bytes, 48));
	at = bytes + HEADER_BYTES;
	for (size_t i = 0; i < n_patches; i++) {
		at = put_range(at, &patches[i]);
	}
	at = put_bytes(at, payload, n_payload);
	gclk_put_be64(at, n);
	gclk_put_be64(at + 8, checksum(bytes, n - 16));
	memcpy(at + 16, footer_magic, 8);
	*ret_bytes = bytes;
	*ret_n = n;
	return 0;
}

int gclk_undo_pack(const struct gclk_patch *patches, size_t n_patches, const void *payload,
		   size_t n_payload, uint64_t base, uint64_t offset, uint8_t **ret_bytes,
		   size_t *ret_n, struct gclk_error *reterr)
{
	return pack(patches, n_patches, payload, n_payload, base, offset, false, ret_bytes, ret_n,
		    reterr);
}

struct header {
	bool open;
	uint32_t n_ranges;
	uint64_t n, base, offset, n_payload;
};

/*
 * A header is accepted if its magic and its own checksum are right, it stands where
 * it says, and its lengths can be.
 */
static int read_header(const uint8_t *bytes, size_t n, uint64_t offset, struct header *ret,
		       struct gclk_error *reterr)
{
	const char *where = "undo record";

	if (n < HEADER_BYTES) {
		return gclk_fail(reterr, GCLK_TRUNCATED, where, offset,
				 "%zu bytes are too few for a header", n);
	}
	if (memcmp(bytes, header_magic, 8) || gclk_get_be64(bytes + 48) != checksum(bytes, 48)) {
		return gclk_fail(reterr, GCLK_MALFORMED, where, offset,
				 "the header does not match its checksum");
	}
	if (gclk_get_be32(bytes + 8) != VERSION && gclk_get_be32(bytes + 8) != VERSION_OPEN) {
		return gclk_fail(reterr, GCLK_VERSION, where, offset,
				 "version %" PRIu32 " is not known, only %d and %d",
				 gclk_get_be32(bytes + 8), VERSION, VERSION_OPEN);
	}
	ret->open = gclk_get_be32(bytes + 8) == VERSION_OPEN;
	ret->n_ranges = gclk_get_be32(bytes + 12);
	ret->n = gclk_get_be64(bytes + 16);
	ret->base = gclk_get_be64(bytes + 24);
	ret->offset = gclk_get_be64(bytes + 32);
	ret->n_payload = gclk_get_be64(bytes + 40);
	if (ret->offset != offset || ret->base > offset || ret->n < MIN_BYTES ||
	    ret->n > GCLK_UNDO_MAX_BYTES || ret->n_payload > ret->n - MIN_BYTES ||
	    ret->n_ranges > GCLK_UNDO_MAX_RANGES ||
	    ret->n_ranges > (ret->n - MIN_BYTES) / RANGE_BYTES) {
		return gclk_fail(reterr, GCLK_MALFORMED, where, offset,
				 "a place or length in the header cannot be");
	}
	return 0;
}

static int check_footer(const uint8_t *bytes, const struct header *h,
			struct gclk_error *reterr)
{
	const uint8_t *footer = bytes + h->n - FOOTER_BYTES;

	if (gclk_get_be64(footer) != h->n || memcmp(footer + 16, footer_magic, 8) ||
	    gclk_get_be64(footer + 8) != checksum(bytes, h->n - 16)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "undo record", h->offset,
				 "the record does not match its checksum");
	}
	return 0;
}

/* @undo->bytes are complete and checked; what is left is their inner order. */
static int read_ranges(struct gclk_undo *undo, const struct header *h,
		       struct gclk_error *reterr)
{
	struct gclk_cursor c = gclk_cursor_of(undo->bytes + HEADER_BYTES, h->n - MIN_BYTES,
					      undo->offset + HEADER_BYTES);
	int r;

	for (size_t i = 0; i < h->n_ranges; i++) {
		struct gclk_patch *p = &undo->patches[i];

		p->offset = gclk_cursor_be64(&c);
		p->n_old = gclk_cursor_be32(&c);
		p->n_new = gclk_cursor_be32(&c);
		p->old_bytes = gclk_cursor_take(&c, p->n_old);
		p->new_bytes = gclk_cursor_take(&c, p->n_new);
	}
	undo->payload = gclk_cursor_take(&c, h->n_payload);
	undo->n_payload = h->n_payload;
	undo->n_patches = h->n_ranges;
	r = gclk_cursor_finish_all(&c, "undo record", reterr);
	return r < 0 ? r : gclk_patches_check(undo->patches, undo->n_patches, undo->base, reterr);
}

int gclk_undo_unpack(const void *bytes, size_t n, uint64_t offset, struct gclk_undo *ret,
		     struct gclk_error *reterr)
{
	struct gclk_undo undo = { 0 };
	struct header h;
	int r;

	r = read_header(bytes, n, offset, &h, reterr);
	if (r < 0) {
		return r;
	}
	if (n < h.n) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "undo record", offset,
				 "%" PRIu64 " bytes announced, %zu there", h.n, n);
	}
	r = check_footer(bytes, &h, reterr);
	if (r < 0) {
		return r;
	}
	undo.open = h.open;
	undo.base = h.base;
	undo.offset = offset;
	undo.n_bytes = h.n;
	undo.bytes = malloc(h.n);
	undo.patches = calloc((size_t)h.n_ranges + 1, sizeof(*undo.patches));
	if (!undo.bytes || !undo.patches) {
		gclk_undo_free(&undo);
		return gclk_fail(reterr, GCLK_NOMEM, "undo record", offset,
				 "no memory for %" PRIu64 " bytes", h.n);
	}
	memcpy(undo.bytes, bytes, h.n);
	r = read_ranges(&undo, &h, reterr);
	if (r < 0) {
		gclk_undo_free(&undo);
		return r;
	}
	*ret = undo;
	return 0;
}

/* ---- finding it ---- */

/* Bytes [from, from + n) of an image, allocated. */
static int read_piece(const struct gclk_window *image, uint64_t from, uint64_t n,
		      uint8_t **ret, struct gclk_error *reterr)
{
	uint8_t *bytes = malloc(n + 1);
	int r;

	if (!bytes) {
		return gclk_fail(reterr, GCLK_NOMEM, "undo record", from,
				 "no memory for %" PRIu64 " bytes", n);
	}
	r = gclk_window_read(image, from, bytes, n, reterr);
	if (r < 0) {
		free(bytes);
		return r;
	}
	*ret = bytes;
	return 0;
}

static int unpack_at(const struct gclk_window *image, uint64_t offset, uint64_t n,
		     struct gclk_undo *ret, struct gclk_error *reterr)
{
	uint8_t *bytes;
	int r;

	r = read_piece(image, offset, n, &bytes, reterr);
	if (r < 0) {
		return r;
	}
	r = gclk_undo_unpack(bytes, n, offset, ret, reterr);
	free(bytes);
	return r;
}

/*
 * A footer is written only after the rest is on disk, hence a footer whose record
 * does not check out is damage: an error, since the image may hold patched bytes
 * whose originals can no longer be told. Only the footer itself may be torn, when
 * it lies across two sectors; that is for find() to find out.
 */
static int find_by_footer(const struct gclk_window *image, struct gclk_undo *ret,
			  struct gclk_error *reterr)
{
	uint8_t footer[FOOTER_BYTES];
	uint64_t n;
	int r;

	if (image->size < MIN_BYTES) {
		return GCLK_UNDO_NONE;
	}
	r = gclk_window_read(image, image->size - FOOTER_BYTES, footer, FOOTER_BYTES, reterr);
	if (r < 0) {
		return r;
	}
	if (memcmp(footer + 16, footer_magic, 8)) {
		return GCLK_UNDO_NONE;
	}
	n = gclk_get_be64(footer);
	if (n < MIN_BYTES || n > GCLK_UNDO_MAX_BYTES || n > image->size) {
		return gclk_fail(reterr, GCLK_MALFORMED, "undo record", image->size - FOOTER_BYTES,
				 "the record that ends the image is damaged: its length cannot be");
	}
	return unpack_at(image, image->size - n, n, ret, reterr);
}

/* What may follow a stream: two records, the gap between them, a torn one. */
#define MAX_TRAILER_BYTES (3 * GCLK_UNDO_MAX_BYTES)
/* Records do not overlap; what does is made to keep us busy. */
#define MAX_SEARCH_WORK (2 * MAX_TRAILER_BYTES)

/*
 * Could the footer of a record whose other bytes are there have been torn? Then its
 * first bytes are still the zeros of a file that grew, and the rest is right.
 */
static bool footer_is_torn(const uint8_t *bytes, const struct header *h)
{
	const uint8_t *footer = bytes + h->n - FOOTER_BYTES;
	uint8_t whole[FOOTER_BYTES];
	size_t zeros = 0;

	gclk_put_be64(whole, h->n);
	gclk_put_be64(whole + 8, lzma_crc64(whole, 8, checksum(bytes, h->n - FOOTER_BYTES)));
	memcpy(whole + 16, footer_magic, 8);
	while (zeros < FOOTER_BYTES && footer[zeros] == 0) {
		zeros++;
	}
	return !memcmp(footer + zeros, whole + zeros, FOOTER_BYTES - zeros);
}

/*
 * A record stands at @h->offset that is not whole. If the world stopped while it was
 * appended, no byte was patched yet (U3); so the ranges that can be read must all
 * hold their originals. Else it once was whole and is damaged now.
 */
static int check_torn(const struct gclk_window *image, const uint8_t *bytes, size_t n,
		      const struct header *h, struct gclk_error *reterr)
{
	struct gclk_cursor c = gclk_cursor_of(bytes, n, h->offset);
	uint64_t free_from = 0;

	if (n >= h->n && !footer_is_torn(bytes, h)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "undo record", h->offset,
				 "the record does not match its checksum");
	}
	gclk_cursor_skip(&c, HEADER_BYTES);
	for (uint32_t i = 0; i < h->n_ranges; i++) {
		uint64_t before = free_from, offset = free_from = gclk_cursor_be64(&c);
		uint32_t n_old = gclk_cursor_be32(&c), n_new = gclk_cursor_be32(&c);
		const uint8_t *old = gclk_cursor_take(&c, n_old);
		uint8_t *now;
		int differs, r;

		gclk_cursor_skip(&c, n_new);
		/* in order, as each is written: what is compressed can only be read forwards */
		if (!gclk_cursor_ok(&c) || offset < before || offset > h->base ||
		    n_old > h->base - offset) {
			break;
		}
		r = read_piece(image, offset, n_old, &now, reterr);
		if (r < 0) {
			return r;
		}
		differs = memcmp(now, old, n_old);
		free(now);
		if (differs) {
			return gclk_fail(reterr, GCLK_MALFORMED, "undo record", h->offset,
					 "the record is damaged, and the image holds rewritten "
					 "bytes at %" PRIu64, offset);
		}
	}
	return GCLK_UNDO_NONE;
}

/* Does a header of ours begin here, of a record that superseded none? */
static bool begins_record(const uint8_t *bytes, size_t n, uint64_t offset, struct header *ret)
{
	return read_header(bytes, n, offset, ret, NULL) == 0 && ret->base == offset;
}

/*
 * An append may have been torn within its header: then the image ends with the
 * beginning of one. Three bytes or fewer count only right behind the stream, lest
 * foreign ones be taken for it.
 */
static const uint8_t *torn_header(const uint8_t *bytes, size_t n)
{
	for (size_t k = GCLK_MIN(n, (size_t)HEADER_BYTES - 1); k > 0; k--) {
		if (!memcmp(bytes + n - k, header_magic, GCLK_MIN(k, sizeof(header_magic))) &&
		    (k >= 4 || k == n)) {
			return bytes + n - k;
		}
	}
	return NULL;
}

/* Bytes whose checksum it takes to tell whether the record that begins here is whole. */
static uint64_t checksum_work(const uint8_t *bytes, size_t n, uint64_t offset)
{
	struct header h;
	const uint8_t *footer;

	if (read_header(bytes, n, offset, &h, NULL) < 0 || n < h.n) {
		return 0;
	}
	footer = bytes + h.n - FOOTER_BYTES;
	return gclk_get_be64(footer) == h.n && !memcmp(footer + 16, footer_magic, 8) ? h.n : 0;
}

/*
 * The last whole record behind @stream_end wins; without one, *@ret_torn is where a
 * record begins that is not whole, or UINT64_MAX.
 */
static int search(const struct gclk_window *image, uint64_t stream_end, const uint8_t *bytes,
		  size_t n, struct gclk_undo *ret, uint64_t *ret_torn,
		  struct gclk_error *reterr)
{
	const uint8_t *at = bytes, *end = bytes + n, *torn = NULL;
	struct header header = { 0 };
	uint64_t work = 0;
	int r = GCLK_UNDO_NONE;

	while ((at = memmem(at, (size_t)(end - at), header_magic, 8))) {
		uint64_t offset = stream_end + (uint64_t)(at - bytes);
		size_t left = (size_t)(end - at);
		struct gclk_undo undo;

		work += checksum_work(at, left, offset);
		if (work > MAX_SEARCH_WORK) {
			gclk_undo_free(ret);
			return gclk_fail(reterr, GCLK_MALFORMED, "undo record", offset,
					 "too many things that look like a record");
		}
		if (gclk_undo_unpack(at, left, offset, &undo, NULL) == 0) {
			gclk_undo_free(ret);
			*ret = undo;
			at += undo.n_bytes;
			continue;
		}
		if (!torn && begins_record(at, left, offset, &header)) {
			torn = at;
		}
		at++;
	}
	if (ret->patches) {
		return 0;
	}
	if (torn) {
		r = check_torn(image, torn, (size_t)(end - torn), &header, reterr);
		*ret_torn = r < 0 ? UINT64_MAX : header.offset;
	} else if ((torn = torn_header(bytes, n))) {
		*ret_torn = stream_end + (uint64_t)(torn - bytes);
	}
	return r;
}

static int find_by_search(const struct gclk_window *image, uint64_t stream_end,
			  struct gclk_undo *ret, uint64_t *ret_torn, struct gclk_error *reterr)
{
	uint64_t n = GCLK_MIN(image->size - stream_end, MAX_TRAILER_BYTES);
	uint8_t *bytes;
	int r;

	r = read_piece(image, stream_end, n, &bytes, reterr);
	if (r < 0) {
		return r;
	}
	r = search(image, stream_end, bytes, n, ret, ret_torn, reterr);
	free(bytes);
	return r;
}

static int find(const struct gclk_window *image, uint64_t stream_end, struct gclk_undo *ret,
		uint64_t *ret_torn, struct gclk_error *reterr)
{
	struct gclk_error e = { 0 }, searched = { 0 };
	int r;

	*ret = (struct gclk_undo){ 0 };
	*ret_torn = UINT64_MAX;
	r = find_by_footer(image, ret, &e);
	if (r != 0 && stream_end < image->size) {
		int by_search = find_by_search(image, stream_end, ret, ret_torn, &searched);

		/* A bad footer stands, unless the search explains it. */
		if (r > 0 || by_search == 0 || *ret_torn != UINT64_MAX) {
			r = by_search;
			e = searched;
		}
	}
	if (r < 0 && reterr) {
		*reterr = e;
	}
	if (r == 0 && stream_end != GCLK_UNDO_UNKNOWN_END && ret->base < stream_end) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "undo record", ret->offset,
			      "it says that the image ends at %" PRIu64 ", the stream ends at %"
			      PRIu64, ret->base, stream_end);
		gclk_undo_free(ret);
	}
	return r;
}

int gclk_undo_find(const struct gclk_window *image, uint64_t stream_end,
		   struct gclk_undo *ret, struct gclk_error *reterr)
{
	uint64_t torn;

	return find(image, stream_end, ret, &torn, reterr);
}

/* ---- holding it against the image ---- */

static bool changes_length(const struct gclk_undo *undo)
{
	for (size_t i = 0; i < undo->n_patches; i++) {
		if (undo->patches[i].n_old != undo->patches[i].n_new) {
			return true;
		}
	}
	return false;
}

/*
 * Does @older say that the byte at @offset may be @byte? Called with the record
 * that is being superseded, whose lengths are equal.
 */
static bool older_allows(const struct gclk_undo *older, uint64_t offset, uint8_t byte)
{
	size_t low = 0, high = older->n_patches;

	while (low < high) {	/* they are sorted, and do not overlap */
		size_t i = low + (high - low) / 2;
		const struct gclk_patch *p = &older->patches[i];

		if (offset >= p->offset && offset - p->offset < p->n_new) {
			return older->open || p->new_bytes[offset - p->offset] == byte;
		}
		low = offset < p->offset ? low : i + 1;
		high = offset < p->offset ? i : high;
	}
	return false;
}

struct tally {
	bool all_old, all_new;
};

static int check_range(const struct gclk_patch *p, const uint8_t *now, uint64_t at, bool open,
		       const struct gclk_undo *older, struct tally *tally,
		       struct gclk_error *reterr)
{
	for (uint32_t i = 0; i < p->n_new; i++) {
		bool same_length = p->n_old == p->n_new;
		bool is_new = now[i] == p->new_bytes[i];
		bool is_old = same_length && now[i] == p->old_bytes[i];

		if (!is_new && !is_old && !open &&
		    !(same_length && older_allows(older, at + i, now[i]))) {
			return gclk_fail(reterr, GCLK_MALFORMED, "undo record", at + i,
					 "byte 0x%02x is neither the original 0x%02x nor the "
					 "rewritten 0x%02x: the record is not of this image", now[i],
					 same_length ? p->old_bytes[i] : 0, p->new_bytes[i]);
		}
		tally->all_old &= is_old;
		tally->all_new &= is_new;
	}
	/* A deletion shows in no byte; it came with a whole copy. */
	if (p->n_old != p->n_new) {
		tally->all_old = false;
	}
	return 0;
}

/* The record that @undo supersedes, while it is still there. */
static void find_older(const struct gclk_window *image, const struct gclk_undo *undo,
		       struct gclk_undo *ret)
{
	*ret = (struct gclk_undo){ 0 };
	if (undo->offset == undo->base || undo->offset - undo->base > GCLK_UNDO_MAX_BYTES) {
		return;
	}
	if (unpack_at(image, undo->base, undo->offset - undo->base, ret, NULL) < 0 ||
	    changes_length(ret)) {
		gclk_undo_free(ret);
	}
}

static int check_ranges(const struct gclk_window *image, const struct gclk_undo *undo,
			const struct gclk_undo *older, struct tally *tally,
			struct gclk_error *reterr)
{
	uint64_t shift = 0;	/* modulo 2^64, as lengths may shrink too */

	for (size_t i = 0; i < undo->n_patches; i++) {
		const struct gclk_patch *p = &undo->patches[i];
		uint64_t at = p->offset + shift;
		uint8_t *now;
		int r;

		r = read_piece(image, at, p->n_new, &now, reterr);
		if (r < 0) {
			return r;
		}
		r = check_range(p, now, at, undo->open, older, tally, reterr);
		free(now);
		if (r < 0) {
			return r;
		}
		shift += (uint64_t)p->n_new - p->n_old;
	}
	return 0;
}

int gclk_undo_state(const struct gclk_window *image, const struct gclk_undo *undo,
		    enum gclk_undo_state *ret, struct gclk_error *reterr)
{
	struct tally tally = { true, true };
	struct gclk_undo older;
	int r;

	find_older(image, undo, &older);
	r = check_ranges(image, undo, &older, &tally, reterr);
	gclk_undo_free(&older);
	if (r < 0) {
		return r;
	}
	*ret = tally.all_new ? GCLK_UNDO_APPLIED :
	       tally.all_old ? GCLK_UNDO_REVERTED : GCLK_UNDO_PARTIAL;
	return 0;
}

int gclk_undo_original(const struct gclk_window *image, const struct gclk_undo *undo,
		       uint64_t offset, void *buf, size_t n, struct gclk_error *reterr)
{
	uint8_t *to = buf;
	uint64_t shift = 0;

	for (size_t i = 0; n && i < undo->n_patches; i++) {
		const struct gclk_patch *p = &undo->patches[i];

		if (offset < p->offset) {	/* untouched bytes before this patch */
			size_t k = (size_t)GCLK_MIN((uint64_t)n, p->offset - offset);
			int r = gclk_window_read(image, offset + shift, to, k, reterr);

			if (r < 0) {
				return r;
			}
			to += k;
			offset += k;
			n -= k;
		}
		if (n && offset - p->offset < p->n_old) {
			size_t skip = (size_t)(offset - p->offset);
			size_t k = GCLK_MIN(n, p->n_old - skip);

			memcpy(to, p->old_bytes + skip, k);
			to += k;
			offset += k;
			n -= k;
		}
		shift += (uint64_t)p->n_new - p->n_old;
	}
	return n ? gclk_window_read(image, offset + shift, to, n, reterr) : 0;
}

/* ---- rewriting ---- */

/* What apply and revert know about an image before they write. */
struct scene {
	const struct gclk_io *io;
	struct gclk_window window;
	struct gclk_undo undo;		/* no patches array: no record */
	enum gclk_undo_state state;
	uint64_t base;			/* size of the captured image */
	bool torn;			/* a torn record stands at base */
};

static int look(const struct gclk_io *image, uint64_t stream_end, struct scene *s,
		struct gclk_error *reterr)
{
	uint64_t torn;
	int r;

	*s = (struct scene){ .io = image };
	s->window.ctx = image->ctx;
	s->window.read = image->read;
	r = image->size(image->ctx, &s->window.size, reterr);
	if (r < 0) {
		return r;
	}
	s->base = s->window.size;
	r = find(&s->window, stream_end, &s->undo, &torn, reterr);
	if (r < 0) {
		return r;
	}
	if (r == GCLK_UNDO_NONE) {
		s->torn = torn != UINT64_MAX;
		s->base = s->torn ? torn : s->window.size;
		return 0;
	}
	s->base = s->undo.base;
	if (changes_length(&s->undo)) {
		r = gclk_fail(reterr, GCLK_UNSUPPORTED, "undo record", s->undo.offset,
			      "the image was rewritten with an insertion, which cannot be taken "
			      "back in place");
	} else {
		r = gclk_undo_state(&s->window, &s->undo, &s->state, reterr);
	}
	if (r < 0) {
		gclk_undo_free(&s->undo);
	}
	return r;
}

static int resize_and_sync(const struct gclk_io *io, uint64_t size, struct gclk_error *reterr)
{
	int r = io->resize(io->ctx, size, reterr);

	return r < 0 ? r : io->sync(io->ctx, reterr);
}

/* S0 R, or a mixture under R, or a torn R: S0. */
static int back_to_original(const struct scene *s, struct gclk_error *reterr)
{
	const struct gclk_io *io = s->io;
	int r;

	for (size_t i = 0; i < s->undo.n_patches; i++) {
		const struct gclk_patch *p = &s->undo.patches[i];

		r = io->write(io->ctx, p->offset, p->old_bytes, p->n_old, reterr);
		if (r < 0) {
			return r;
		}
	}
	if (s->undo.n_patches) {
		r = io->sync(io->ctx, reterr);
		if (r < 0) {
			return r;
		}
	}
	return resize_and_sync(io, s->base, reterr);
}

int gclk_undo_revert(const struct gclk_io *image, uint64_t stream_end,
		     struct gclk_error *reterr)
{
	struct scene s;
	int r;

	r = look(image, stream_end, &s, reterr);
	if (r < 0) {
		return r;
	}
	if (!s.undo.patches && !s.torn) {
		return GCLK_UNDO_NONE;
	}
	r = back_to_original(&s, reterr);
	gclk_undo_free(&s.undo);
	return r;
}

static int check_old_bytes(const struct scene *s, const struct gclk_patch *p,
			   struct gclk_error *reterr)
{
	uint8_t *now = malloc((size_t)p->n_old + 1);
	int r;

	if (!now) {
		return gclk_fail(reterr, GCLK_NOMEM, "patches", p->offset,
				 "no memory for %" PRIu32 " bytes", p->n_old);
	}
	r = gclk_undo_original(&s->window, &s->undo, p->offset, now, p->n_old, reterr);
	if (r == 0 && memcmp(now, p->old_bytes, p->n_old)) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "patches", p->offset,
			      "the %" PRIu32 " bytes there are not the ones that the plan was "
			      "made for", p->n_old);
	}
	free(now);
	return r;
}

/* What is to be carried out: values against the original, and how they are recorded. */
struct wish {
	const struct gclk_patch *patches;
	size_t n_patches;
	const void *payload;
	size_t n_payload;
	bool open;
};

static bool patch_changes(const struct gclk_patch *p)
{
	return p->n_old != p->n_new || memcmp(p->old_bytes, p->new_bytes, p->n_old);
}

/*
 * Keeps those that change a byte: *@ret_n of them in @ret, which has room for all. Of an
 * open record all count, as their bytes may change yet.
 */
static int check_patches(const struct scene *s, uint64_t stream_end, const struct wish *wish,
			 struct gclk_patch *ret, size_t *ret_n, struct gclk_error *reterr)
{
	size_t n = 0;
	int r;

	r = gclk_patches_check(wish->patches, wish->n_patches, GCLK_MIN(stream_end, s->base),
			       reterr);
	for (size_t i = 0; r == 0 && i < wish->n_patches; i++) {
		const struct gclk_patch *p = &wish->patches[i];

		if (p->n_old != p->n_new) {
			return gclk_fail(reterr, GCLK_UNSUPPORTED, "patches", p->offset,
					 "%" PRIu32 " bytes cannot become %" PRIu32 " in place",
					 p->n_old, p->n_new);
		}
		r = check_old_bytes(s, p, reterr);
		if (r == 0 && (wish->open || patch_changes(p))) {
			ret[n++] = *p;
		}
	}
	*ret_n = n;
	return r;
}

static int by_offset(const void *a, const void *b)
{
	const struct gclk_patch *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/*
 * The union of two sorted lists as intervals: sorted, touching ones joined. Only
 * offset and n_old of the result are set.
 */
static size_t join(const struct gclk_patch *a, size_t n_a, const struct gclk_patch *b,
		   size_t n_b, struct gclk_patch *ret)
{
	size_t n = n_a + n_b, kept = 0;

	if (n_a) {
		memcpy(ret, a, n_a * sizeof(*a));
	}
	if (n_b) {
		memcpy(ret + n_a, b, n_b * sizeof(*b));
	}
	qsort(ret, n, sizeof(*ret), by_offset);
	for (size_t i = 0; i < n; i++) {
		struct gclk_patch *last = kept ? &ret[kept - 1] : NULL;
		uint64_t end = ret[i].offset + ret[i].n_old;

		if (last && ret[i].offset <= last->offset + last->n_old) {
			last->n_old = (uint32_t)(GCLK_MAX(end, last->offset + last->n_old) -
						 last->offset);
		} else {
			ret[kept++] = ret[i];
		}
	}
	return kept;
}

/* Lays what @patches say over the interval that begins at @offset. */
static void overlay(const struct gclk_patch *patches, size_t n_patches, uint64_t offset,
		    uint8_t *bytes, uint32_t n)
{
	for (size_t i = 0; i < n_patches; i++) {
		const struct gclk_patch *p = &patches[i];

		if (p->offset >= offset && p->offset - offset < n) {
			memcpy(bytes + (p->offset - offset), p->new_bytes, p->n_new);
		}
	}
}

/*
 * The patches that lead from anything the old record allows to the new values: the
 * union of both records' ranges, original outside the new ones. @ret_store holds
 * their bytes.
 */
static int transition(const struct scene *s, const struct gclk_patch *patches,
		      size_t n_patches, struct gclk_patch **ret, size_t *ret_n,
		      uint8_t **ret_store, struct gclk_error *reterr)
{
	struct gclk_patch *all = calloc(n_patches + s->undo.n_patches + 1, sizeof(*all));
	uint8_t *store = NULL, *at;
	uint64_t total = 0;
	size_t n = 0;
	int r = 0;

	if (all) {
		n = join(patches, n_patches, s->undo.patches, s->undo.n_patches, all);
	}
	for (size_t i = 0; i < n; i++) {
		total += 2 * (uint64_t)all[i].n_old;
	}
	store = malloc(total + 1);
	if (!all || !store) {
		free(all);
		free(store);
		return gclk_fail(reterr, GCLK_NOMEM, "patches", GCLK_NO_OFFSET,
				 "no memory for %" PRIu64 " bytes", total);
	}
	at = store;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct gclk_patch *p = &all[i];

		r = gclk_undo_original(&s->window, &s->undo, p->offset, at, p->n_old, reterr);
		p->old_bytes = at;
		memcpy(at + p->n_old, at, p->n_old);
		overlay(patches, n_patches, p->offset, at + p->n_old, p->n_old);
		p->new_bytes = at + p->n_old;
		p->n_new = p->n_old;
		at += 2 * (size_t)p->n_old;
	}
	if (r < 0) {
		free(all);
		free(store);
		return r;
	}
	*ret = all;
	*ret_n = n;
	*ret_store = store;
	return 0;
}

/* The footer last, when the rest is on disk: see find_by_footer(). */
static int write_record(const struct gclk_io *io, uint64_t offset, const uint8_t *bytes,
			size_t n, struct gclk_error *reterr)
{
	int r;

	r = io->write(io->ctx, offset, bytes, n - FOOTER_BYTES, reterr);
	r = r < 0 ? r : io->sync(io->ctx, reterr);
	r = r < 0 ? r : io->write(io->ctx, offset + n - FOOTER_BYTES, bytes + n - FOOTER_BYTES,
				  FOOTER_BYTES, reterr);
	return r < 0 ? r : io->sync(io->ctx, reterr);
}

/*
 * A record that comes before any patch. Where there is no room for it the image is left as
 * long as it was; if not even that can be done, what stands there is a torn record.
 */
static int write_first_record(const struct scene *s, uint64_t offset, const uint8_t *bytes,
			      size_t n, struct gclk_error *reterr)
{
	int r = write_record(s->io, offset, bytes, n, reterr);
	struct gclk_error ignored;

	if (r < 0) {
		s->io->resize(s->io->ctx, GCLK_MIN(offset, s->window.size), &ignored);
	}
	return r;
}

static int write_patches(const struct gclk_io *io, const struct gclk_patch *patches,
			 size_t n_patches, struct gclk_error *reterr)
{
	for (size_t i = 0; i < n_patches; i++) {
		int r = io->write(io->ctx, patches[i].offset, patches[i].new_bytes,
				  patches[i].n_new, reterr);

		if (r < 0) {
			return r;
		}
	}
	return io->sync(io->ctx, reterr);
}

/* S0: S0 R1, S1 R1. */
static int apply_first(const struct scene *s, const struct gclk_patch *patches,
		       size_t n_patches, const uint8_t *record, size_t n_record,
		       struct gclk_error *reterr)
{
	int r = write_first_record(s, s->base, record, n_record, reterr);

	return r < 0 ? r : write_patches(s->io, patches, n_patches, reterr);
}

/* S1 R1: S1 R1..R2, S2 R1..R2, S2 R2..R2, S2 R2. @record is R2 as it will stay. */
static int apply_again(const struct scene *s, const struct wish *wish, const uint8_t *record,
		       size_t n_record, struct gclk_error *reterr)
{
	const struct gclk_io *io = s->io;
	uint64_t far = GCLK_MAX(s->window.size, s->base + n_record);
	uint8_t *store = NULL, *bridge = NULL;
	struct gclk_patch *all = NULL;
	size_t n_all = 0, n_bridge = 0;
	int r;

	r = transition(s, wish->patches, wish->n_patches, &all, &n_all, &store, reterr);
	if (r < 0) {
		return r;
	}
	r = pack(all, n_all, wish->payload, wish->n_payload, s->base, far, wish->open, &bridge,
		 &n_bridge, reterr);
	r = r < 0 ? r : write_first_record(s, far, bridge, n_bridge, reterr);
	r = r < 0 ? r : write_patches(io, all, n_all, reterr);
	r = r < 0 ? r : write_record(io, s->base, record, n_record, reterr);
	r = r < 0 ? r : resize_and_sync(io, s->base + n_record, reterr);
	free(bridge);
	free(store);
	free(all);
	return r;
}

/* Old and new record are not to be told apart from more than two generations. */
static bool is_settled(const struct scene *s)
{
	return !s->torn && (!s->undo.patches || s->undo.offset == s->undo.base);
}

static int apply_checked(const struct scene *s, const struct wish *wish,
			 struct gclk_error *reterr)
{
	uint8_t *record;
	size_t n_record;
	int r;

	if (!wish->n_patches) {	/* all deltas are zero: the original it is (R9) */
		return s->undo.patches || s->torn ? back_to_original(s, reterr) : 0;
	}
	r = pack(wish->patches, wish->n_patches, wish->payload, wish->n_payload, s->base, s->base,
		 wish->open, &record, &n_record, reterr);
	if (r < 0) {
		return r;
	}
	if (!is_settled(s)) {
		r = back_to_original(s, reterr);
	}
	if (r < 0) {
		/* nothing more */
	} else if (s->undo.patches && is_settled(s)) {
		r = apply_again(s, wish, record, n_record, reterr);
	} else {
		r = apply_first(s, wish->patches, wish->n_patches, record, n_record, reterr);
	}
	free(record);
	return r;
}

/* @wish->patches are replaced by those that count. */
static int apply(const struct gclk_io *image, uint64_t stream_end, struct wish *wish,
		 struct gclk_error *reterr)
{
	struct gclk_patch *kept;
	struct scene s;
	size_t n_kept = 0;
	int r;

	r = look(image, stream_end, &s, reterr);
	if (r < 0) {
		return r;
	}
	kept = calloc(wish->n_patches + 1, sizeof(*kept));
	if (!kept) {
		r = gclk_fail(reterr, GCLK_NOMEM, "patches", GCLK_NO_OFFSET,
			      "no memory for %zu patches", wish->n_patches);
	} else {
		r = check_patches(&s, stream_end, wish, kept, &n_kept, reterr);
	}
	if (r == 0) {
		wish->patches = kept;
		wish->n_patches = n_kept;
		r = apply_checked(&s, wish, reterr);
	}
	free(kept);
	gclk_undo_free(&s.undo);
	return r;
}

int gclk_undo_apply(const struct gclk_io *image, uint64_t stream_end,
		    const struct gclk_patch *patches, size_t n_patches, const void *payload,
		    size_t n_payload, struct gclk_error *reterr)
{
	struct wish wish = { patches, n_patches, payload, n_payload, false };

	return apply(image, stream_end, &wish, reterr);
}

int gclk_undo_apply_open(const struct gclk_io *image, uint64_t stream_end,
			 const struct gclk_patch *range, const void *payload, size_t n_payload,
			 struct gclk_error *reterr)
{
	struct wish wish = { range, 1, payload, n_payload, true };

	return apply(image, stream_end, &wish, reterr);
}
