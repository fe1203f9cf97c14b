/* SPDX-License-Identifier: MIT */
/*
 * From the end of a stream to its device tail, without reading the RAM:
 *
 *	... ram 7e id | 04 ... 7e id  04 ... 7e id | 00 | 06 be32 { ... }
 *	              ^ 3. sum of sections          ^ 2.  ^ 1. search     ^ end
 *
 * 1. backwards for 06 and a be32 that is exactly the distance to the end;
 * 2. the text describes the sections, so their bytes add up;
 * 3. that many before the EOF byte the first of them must begin, right behind
 *    the footer of another section; every byte between must agree.
 */
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/util.h"
#include "image/qemu/tail.h"

#define HEAD_PIECE (16u << 10)
#define HEAD_MAX (2u << 20)		/* 4096 RAM blocks and more */
#define WALK_PIECE (256u << 10)
#define PROGRESS_EVERY (16u << 20)
#define FIRST_SEARCH (128u << 10)

enum { BEFORE_TEXT = 6, FOOTER = 5 };

/* What stands before the RAM; refuses what the stream parser refuses there. */
static int read_head(const struct gclk_window *w, uint64_t end,
		     struct gclk_stream_head *ret, struct gclk_error *reterr)
{
	uint8_t *piece = malloc(HEAD_PIECE);
	struct gclk_stream *s = NULL;
	struct gclk_stream_taken taken;
	uint64_t at = 0;
	int r = gclk_stream_new(NULL, &s, reterr);

	if (r == 0 && !piece) {
		r = gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	while (r >= 0 && gclk_stream_phase(s) < GCLK_STREAM_ROUNDS && at < HEAD_MAX) {
		size_t n = (size_t)GCLK_MIN(end - at, (uint64_t)HEAD_PIECE);

		if (n == 0) {
			r = gclk_stream_end(s, reterr);
			break;
		}
		r = gclk_window_read(w, at, piece, n, reterr);
		if (r >= 0) {
			r = gclk_stream_push(s, piece, n, &taken, reterr);
		}
		at += n;
	}
	if (r >= 0) {
		gclk_stream_take_head(s, ret);
		r = 0;
	}
	gclk_stream_free(s);
	free(piece);
	return r;
}

/* The 06 whose length reaches exactly to the end of @p; SIZE_MAX when there is none. */
static size_t find_length(const uint8_t *p, size_t n)
{
	for (size_t i = n < 7 ? 0 : n - 6; i-- > 1;) {
		if (p[i] == 0x06 && gclk_get_be32(p + i + 1) == n - i - 5 &&
		    p[i - 1] == 0 && (p[i + 5] == '{' || p[i + 5] == '"')) {
			return i;
		}
	}
	return SIZE_MAX;
}

/*
 * Reads the description at the end. *@ret_eof is the position of the 00 before it.
 */
static int read_description(const struct gclk_window *w, uint64_t end,
			    struct gclk_vmdesc **ret, uint64_t *ret_eof,
			    struct gclk_error *reterr)
{
	uint64_t most = GCLK_MIN(end, (uint64_t)GCLK_VMDESC_MAX_BYTES + BEFORE_TEXT);
	uint64_t n = GCLK_MIN(most, (uint64_t)FIRST_SEARCH);
	uint8_t *bytes = NULL;
	int r;

	for (;; n = GCLK_MIN(n * 4, most)) {
		size_t at;

		free(bytes);
		bytes = malloc(n + 1);
		if (!bytes) {
			return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
					 "no memory");
		}
		r = gclk_window_read(w, end - n, bytes, n, reterr);
		at = r < 0 ? SIZE_MAX : find_length(bytes, n);
		if (at != SIZE_MAX) {
			*ret_eof = end - n + at - 1;
			r = gclk_vmdesc_parse(bytes + at + 5, n - at - 5, ret, reterr);
			break;
		}
		if (r < 0 || n == most) {
			r = r < 0 ? r : gclk_fail(reterr, GCLK_UNSUPPORTED, "vmdesc", end,
						  "the stream does not end in a device "
						  "description");
			break;
		}
	}
	free(bytes);
	return r;
}

/* Reads [start, end) and holds the description against it. */
static int check_tail(const struct gclk_window *w, uint64_t start, uint64_t end,
		      bool footers, struct gclk_tail *tail, struct gclk_error *reterr)
{
	uint8_t before[FOOTER];
	int r;

	tail->offset = start;
	tail->size = (size_t)(end - start);
	tail->bytes = malloc(tail->size);
	if (!tail->bytes) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	r = gclk_window_read(w, start, tail->bytes, tail->size, reterr);
	if (r == 0) {
		r = gclk_window_read(w, start - FOOTER, before, FOOTER, reterr);
	}
	if (r == 0 && footers && before[0] != 0x7e) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "vmdesc", start - FOOTER,
			      "no section ends where the device state should begin");
	}
	if (r == 0) {
		r = gclk_vmdesc_tile(tail->desc, tail->bytes, tail->sections_size,
				     footers, reterr);
	}
	return r;
}

/* @tail->head is there; the rest is found from the end. */
static int read_from_end(const struct gclk_window *w, uint64_t end, size_t limit,
			 struct gclk_tail *tail, struct gclk_error *reterr)
{
	bool footers = tail->head.has_footers;
	uint64_t eof = 0, size;
	int r = read_description(w, end, &tail->desc, &eof, reterr);

	if (r < 0) {
		return r;
	}
	size = gclk_vmdesc_tail_size(tail->desc, footers);
	if (size == 0 || size > eof || eof - size < FOOTER) {
		return gclk_fail(
			reterr, GCLK_MALFORMED, "vmdesc", eof,
			"%llu bytes of devices described, only %llu bytes before the "
			"description",
			(unsigned long long)size, (unsigned long long)eof);
	}
	if (end - (eof - size) > limit) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "vmdesc", eof - size,
				 "more than %zu bytes of device state", limit);
	}
	tail->sections_size = (size_t)size;
	return check_tail(w, eof - size, end, footers, tail, reterr);
}

static int report(const struct gclk_tail_options *o, uint64_t done, uint64_t total,
		  struct gclk_error *reterr)
{
	if (o && o->progress && o->progress(o->ctx, done, total)) {
		return gclk_fail(reterr, GCLK_STATE, NULL, done, "the pass was ended");
	}
	return 0;
}

/* Pushes the window into @s until it is complete, or reaches @until. */
static int walk(const struct gclk_window *w, uint64_t end, struct gclk_stream *s,
		enum gclk_stream_phase until, const struct gclk_tail_options *o,
		struct gclk_error *reterr)
{
	uint8_t *piece = malloc(WALK_PIECE);
	struct gclk_stream_taken taken;
	int r = piece ? GCLK_STREAM_MORE :
		gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");

	for (uint64_t at = 0; r > 0 && at < end && gclk_stream_phase(s) < until;) {
		size_t n = (size_t)GCLK_MIN(end - at, (uint64_t)WALK_PIECE);

		r = at % PROGRESS_EVERY ? 0 : report(o, at, end, reterr);
		if (r == 0) {
			r = gclk_window_read(w, at, piece, n, reterr);
		}
		if (r == 0) {
			r = gclk_stream_push(s, piece, n, &taken, reterr);
		}
		at += n;
	}
	if (r > 0) {
		r = gclk_stream_phase(s) < until ? gclk_stream_end(s, reterr) : 0;
	}
	free(piece);
	return r;
}

static int walk_to_tail(const struct gclk_window *w, uint64_t end,
			const struct gclk_tail_options *o, struct gclk_tail **ret,
			struct gclk_error *reterr)
{
	struct gclk_stream_options so = { .tail_bytes = o ? o->tail_bytes : 0 };
	struct gclk_stream *s = NULL;
	int r = gclk_stream_new(&so, &s, reterr);

	if (r == 0) {
		r = walk(w, end, s, GCLK_STREAM_DONE, o, reterr);
	}
	if (r == 0) {
		r = gclk_stream_take_tail(s, ret, reterr);
	}
	gclk_stream_free(s);
	return r;
}

int gclk_tail_read(const struct gclk_window *w, uint64_t end,
		   const struct gclk_tail_options *options, struct gclk_tail **ret,
		   struct gclk_error *reterr)
{
	size_t limit = options && options->tail_bytes ? options->tail_bytes :
		       GCLK_STREAM_TAIL_BYTES;
	struct gclk_tail *tail = calloc(1, sizeof(*tail));
	int r;

	if (!tail) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	end = GCLK_MIN(end, w->size);
	r = read_head(w, end, &tail->head, reterr);
	if (r < 0) {
		gclk_tail_free(tail);
		return r;
	}
	r = read_from_end(w, end, limit, tail, reterr);
	if (r == 0) {
		*ret = tail;
		return 0;
	}
	gclk_tail_free(tail);
	if (r == -GCLK_NOMEM || r == -GCLK_SYS || (options && options->never_walk)) {
		return r;
	}
	return walk_to_tail(w, end, options, ret, reterr);
}

int gclk_tail_walk_ram(const struct gclk_window *w,
		       const struct gclk_ram_visitor *visitor,
		       const struct gclk_tail_options *options, struct gclk_error *reterr)
{
	struct gclk_stream_options so = { .ram = *visitor };
	struct gclk_stream *s = NULL;
	int r = gclk_stream_new(&so, &s, reterr);

	if (r == 0) {
		r = walk(w, w->size, s, GCLK_STREAM_DEVICES, options, reterr);
	}
	gclk_stream_free(s);
	return r;
}

struct gclk_tail *gclk_tail_free(struct gclk_tail *tail)
{
	if (tail) {
		free(tail->head.blocks);
		free(tail->bytes);
		gclk_vmdesc_free(tail->desc);
		free(tail);
	}
	return NULL;
}
