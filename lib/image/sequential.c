/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "image/sequential.h"

#define PIECE_BYTES (UINT32_C(1) << 18)

static void keep(struct gclk_sequential *s, const uint8_t *bytes, size_t n)
{
	if (s->total < s->head_max) {
		memcpy(s->head + s->total, bytes,
		       GCLK_MIN((uint64_t)n, s->head_max - s->total));
	}
	while (n) {
		size_t in = (size_t)(s->total % s->tail_max);
		size_t k = GCLK_MIN(n, s->tail_max - in);

		memcpy(s->tail + in, bytes, k);
		s->total += k;
		bytes += k;
		n -= k;
	}
}

static int tell(const struct gclk_sequential *s, uint64_t done, struct gclk_error *reterr)
{
	if (s->progress.report && s->progress.report(s->progress.ctx, done, 0)) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "cancelled");
	}
	return 0;
}

int gclk_sequential_load(struct gclk_sequential *s, const struct gclk_source *from,
			 struct gclk_error *reterr)
{
	uint8_t *piece = malloc(PIECE_BYTES);
	size_t n;
	int r = 0;

	s->head = malloc(s->head_max);
	s->tail = malloc(s->tail_max);
	if (!piece || !s->head || !s->tail) {
		free(piece);
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for %zu bytes", s->head_max + s->tail_max);
	}
	do {
		r = from->read(from->ctx, piece, PIECE_BYTES, &n, reterr);
		if (r == 0) {
			keep(s, piece, n);
			r = tell(s, s->total, reterr);
		}
	} while (r == 0 && n);
	free(piece);
	return r;
}

static int skip_to(struct gclk_sequential *s, uint64_t offset, struct gclk_error *reterr)
{
	uint8_t *piece;
	int r = 0;

	if (!s->restart) {
		return gclk_fail(reterr, GCLK_STATE, NULL, offset,
				 "the input is a pipe and can be read only once");
	}
	if (!s->forward.read || offset < s->at) {
		s->at = 0;
		s->forward.read = NULL;
		r = s->restart(s->ctx, &s->forward, reterr);
	}
	if (r < 0 || s->at == offset) {
		return r;
	}
	piece = malloc(PIECE_BYTES);
	if (!piece) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	while (r == 0 && s->at < offset) {
		size_t n = (size_t)GCLK_MIN(offset - s->at, PIECE_BYTES);

		r = s->forward.read(s->forward.ctx, piece, n, &n, reterr);
		if (r == 0 && !n) {
			r = gclk_fail(reterr, GCLK_TRUNCATED, NULL, s->at,
				      "the input has become shorter since it was read first");
		}
		s->at += r < 0 ? 0 : n;
		r = r < 0 ? r : tell(s, s->at, reterr);
	}
	free(piece);
	return r;
}

static int read_forward(struct gclk_sequential *s, uint64_t offset, uint8_t *to, size_t n,
			struct gclk_error *reterr)
{
	int r = skip_to(s, offset, reterr);

	while (r == 0 && n) {
		size_t k;

		r = s->forward.read(s->forward.ctx, to, n, &k, reterr);
		if (r == 0 && !k) {
			r = gclk_fail(reterr, GCLK_TRUNCATED, NULL, s->at,
				      "the input has become shorter since it was read first");
		}
		if (r == 0) {
			s->at += k;
			to += k;
			n -= k;
		}
	}
	if (r < 0) {
		s->forward.read = NULL;	/* where it stands is not known any more */
	}
	return r;
}

int gclk_sequential_read(void *ctx, uint64_t offset, void *buf, size_t n,
			 struct gclk_error *reterr)
{
	struct gclk_sequential *s = ctx;
	uint64_t tail_from = s->total > s->tail_max ? s->total - s->tail_max : 0;
	uint8_t *to = buf;

	if (offset > s->total || n > s->total - offset) {
		return gclk_fail(reterr, GCLK_TRUNCATED, NULL, offset,
				 "%zu bytes wanted, the input ends at %" PRIu64, n, s->total);
	}
	if (offset + n <= s->head_max) {
		memcpy(to, s->head + offset, n);
		return 0;
	}
	if (offset < tail_from) {
		return read_forward(s, offset, to, n, reterr);
	}
	while (n) {
		size_t in = (size_t)(offset % s->tail_max);
		size_t k = GCLK_MIN(n, s->tail_max - in);

		memcpy(to, s->tail + in, k);
		to += k;
		offset += k;
		n -= k;
	}
	return 0;
}

void gclk_sequential_free(struct gclk_sequential *s)
{
	free(s->head);
	free(s->tail);
	*s = (struct gclk_sequential){ 0 };
}
