/* SPDX-License-Identifier: MIT */
/* Bytes that are sent to a worker, on the side that has them. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "image/domain-xml.h"
#include "image/worker/asker.h"
#include "image/worker/facts.h"

struct gclk_reading {
	struct gclk_worker worker;
	struct gclk_worker_process process;	/* .socket -1: has ended */
};

GCLK_API int gclk_reading_new(const struct gclk_worker *worker, struct gclk_reading **ret,
			      struct gclk_error *reterr)
{
	struct gclk_reading *reading = calloc(1, sizeof(*reading));
	int r;

	if (!reading) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	reading->worker = *worker;
	r = gclk_worker_begin(worker, &reading->process, reterr);
	if (r < 0) {
		free(reading);
		return r;
	}
	*ret = reading;
	return 0;
}

static void end_worker(struct gclk_reading *reading)
{
	if (reading->process.socket >= 0) {
		reading->worker.stop(reading->worker.ctx, &reading->process, false, NULL);
		reading->process.socket = -1;
	}
}

GCLK_API struct gclk_reading *gclk_reading_free(struct gclk_reading *reading)
{
	if (reading) {
		end_worker(reading);
		free(reading);
	}
	return NULL;
}

static int lost(struct gclk_reading *reading, struct gclk_error *reterr)
{
	struct gclk_error why;

	gclk_worker_lost(&reading->worker, &reading->process, &why);
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET, "%s", why.message);
}

/* What says no answer to the question is not asked again. */
static int misbehaved(struct gclk_reading *reading, struct gclk_error *reterr)
{
	end_worker(reading);
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the confined process that reads it gave an answer that is none, and was "
			 "ended");
}

static int hear(struct gclk_reading *reading, struct gclk_frame *ret, struct gclk_rest *ret_rest,
		struct gclk_error *reterr)
{
	struct gclk_error said, error;
	int result, r = gclk_frame_receive(reading->process.socket, false, ret, &error);

	if (r < 0 && error.status == GCLK_NOMEM) {
		end_worker(reading);
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	if (r) {
		return lost(reading, reterr);
	}
	*ret_rest = (struct gclk_rest){ ret->bytes, ret->size };
	if (ret->type != GCLK_SAY_DONE || gclk_take_done(ret_rest, &result, &said, NULL) < 0) {
		return misbehaved(reading, reterr);
	}
	if (result < 0 && reterr) {
		*reterr = said;
	}
	return result;
}

/* The answer in @ret, in any case the caller's to free. */
static int ask(struct gclk_reading *reading, enum gclk_frame_type type,
	       const struct gclk_piece *pieces, unsigned n_pieces, struct gclk_frame *ret,
	       struct gclk_rest *ret_rest, struct gclk_error *reterr)
{
	struct gclk_error error;
	int r;

	*ret = (struct gclk_frame){ .fd = -1 };
	if (reading->process.socket < 0) {
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "the confined process that read it has ended");
	}
	r = gclk_frame_send(reading->process.socket, type, pieces, n_pieces, -1, &error);
	if (r == -GCLK_RANGE) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET, "%s", error.message);
	}
	return r < 0 ? lost(reading, reterr) : hear(reading, ret, ret_rest, reterr);
}

GCLK_API int gclk_reading_ask(struct gclk_reading *reading, uint32_t what, const void *bytes,
			      size_t n, void **ret, size_t *ret_n, struct gclk_error *reterr)
{
	const uint32_t head[2] = { what, 0 };
	const struct gclk_piece pieces[] = { { head, sizeof(head) }, { bytes, n } };
	struct gclk_frame frame;
	struct gclk_rest rest;
	void *answer = NULL;
	int r = ask(reading, GCLK_ASK_READ, pieces, GCLK_COUNT(pieces), &frame, &rest, reterr);

	if (r >= 0 && rest.n && !(answer = malloc(rest.n))) {
		r = gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	if (r >= 0) {
		*ret_n = rest.n;
		*ret = answer;
		gclk_rest_take(&rest, answer, rest.n);
	}
	gclk_frame_free(&frame);
	return r < 0 ? r : 0;
}

static int take_domain(struct gclk_rest *rest, struct gclk_domain *ret, struct gclk_error *reterr)
{
	struct gclk_domain *domain = malloc(sizeof(*domain));
	int r;

	if (!domain) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	r = gclk_take_domain(rest, domain, reterr);
	if (r == 0) {
		*ret = *domain;
	}
	free(domain);
	return r;
}

GCLK_API int gclk_worker_domain_read(const struct gclk_worker *worker, const char *xml,
				     size_t size, struct gclk_domain *ret,
				     struct gclk_error *reterr)
{
	const struct gclk_piece piece = { xml, size };
	struct gclk_reading *reading;
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r;

	if (!worker) {
		return gclk_domain_parse(xml, size, ret, reterr);
	}
	r = gclk_reading_new(worker, &reading, reterr);
	if (r < 0) {
		return r;
	}
	r = ask(reading, GCLK_ASK_DOMAIN, &piece, 1, &frame, &rest, reterr);
	r = r < 0 ? r : take_domain(&rest, ret, reterr);
	gclk_frame_free(&frame);
	gclk_reading_free(reading);
	return r;
}
