/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of frames.h. It has the file to read, and a socket; writing, it asks
 * the other end for. What it is asked comes from the program that started it.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "image/compress.h"
#include "image/container-private.h"
#include "image/domain-xml.h"
#include "image/image.h"
#include "image/worker/facts.h"
#include "image/worker/far.h"

/* A file that is read here and written there. */
struct far_file {
	int socket;
	struct gclk_io here;
};

struct work {
	int socket;
	int fd;				/* the file; -1: none yet */
	struct far_file far;
	struct gclk_io io;
	char name[512];
	struct gclk_image *image;
	struct gclk_container *undo;	/* of a file that is to be undone by a copy */
	gclk_worker_reader *read;	/* the program's own; or NULL */
};

/* ---- writing ---- */

static int wait_for_result(const struct far_file *far, struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_error said;
	int r = gclk_frame_receive(far->socket, false, &frame, reterr);

	if (r == 0 && (frame.type != GCLK_TELL_RESULT || frame.size != sizeof(said))) {
		r = 1;
	}
	if (r == 0) {
		memcpy(&said, frame.bytes, sizeof(said));
		r = -said.status;
		if (r < 0 && reterr) {
			*reterr = said;
		}
	} else if (r > 0) {
		r = gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET, "nobody writes for us");
	}
	gclk_frame_free(&frame);
	return r;
}

static int far_write(void *ctx, uint64_t offset, const void *buf, size_t n,
		     struct gclk_error *reterr)
{
	const struct far_file *far = ctx;
	const struct gclk_piece pieces[] = { { &offset, sizeof(offset) }, { buf, n } };
	int r = gclk_frame_send(far->socket, GCLK_SAY_WRITE, pieces, 2, -1, reterr);

	return r < 0 ? r : wait_for_result(far, reterr);
}

static int far_sync(void *ctx, struct gclk_error *reterr)
{
	const struct far_file *far = ctx;
	int r = gclk_frame_send(far->socket, GCLK_SAY_SYNC, NULL, 0, -1, reterr);

	return r < 0 ? r : wait_for_result(far, reterr);
}

static int far_resize(void *ctx, uint64_t size, struct gclk_error *reterr)
{
	const struct far_file *far = ctx;
	const struct gclk_piece piece = { &size, sizeof(size) };
	int r = gclk_frame_send(far->socket, GCLK_SAY_RESIZE, &piece, 1, -1, reterr);

	return r < 0 ? r : wait_for_result(far, reterr);
}

static int far_read(void *ctx, uint64_t offset, void *buf, size_t n, struct gclk_error *reterr)
{
	const struct far_file *far = ctx;

	return far->here.read(far->here.ctx, offset, buf, n, reterr);
}

static int far_size(void *ctx, uint64_t *ret_size, struct gclk_error *reterr)
{
	const struct far_file *far = ctx;

	return far->here.size(far->here.ctx, ret_size, reterr);
}

/* ---- answers ---- */

static int answer(struct work *w, int result, const struct gclk_error *error,
		  const struct gclk_piece *pieces, unsigned n_pieces)
{
	int32_t said[2] = { result, 0 };
	struct gclk_error none = { 0 };
	struct gclk_piece all[2 + 2 + GCLK_STATE_PIECES] = { { said, sizeof(said) },
				     { result < 0 ? error : &none, sizeof(none) } };

	for (unsigned i = 0; i < n_pieces; i++) {
		all[2 + i] = pieces[i];
	}
	return gclk_frame_send(w->socket, GCLK_SAY_DONE, all, 2 + n_pieces, -1, NULL);
}

static int say_progress(void *ctx, uint64_t done, uint64_t total)
{
	const struct work *w = ctx;
	uint64_t both[2] = { done, total };
	const struct gclk_piece piece = { both, sizeof(both) };

	return gclk_frame_send(w->socket, GCLK_SAY_PROGRESS, &piece, 1, -1, NULL) < 0;
}

static bool read_ask(struct work *w, struct gclk_frame *frame, struct gclk_ask_open *ret)
{
	if (frame->size != sizeof(*ret) || frame->fd < 0 || w->fd >= 0) {
		return false;
	}
	memcpy(ret, frame->bytes, sizeof(*ret));
	w->fd = frame->fd;
	frame->fd = -1;
	memcpy(w->name, ret->name, sizeof(w->name));
	w->far = (struct far_file){ w->socket, gclk_io_file(w->fd) };
	w->io = (struct gclk_io){ &w->far, far_read, far_write, far_sync, far_resize, far_size };
	return true;
}

static void tell_evidence(const struct gclk_image *image, struct gclk_facts *to)
{
	to->n_evidence = image->n_evidence;
	for (unsigned i = 0; i < image->n_evidence; i++) {
		const struct gclk_evidence *from = &image->evidence[i];
		struct gclk_said_evidence *said = &to->evidence[i];

		strncpy(said->basis, from->basis, sizeof(said->basis) - 1);
		strncpy(said->note, from->note ? from->note : "", sizeof(said->note) - 1);
		said->ns = from->at.ns;
		said->uncertainty_ns = from->at.uncertainty_ns;
	}
}

static int tell_image(struct work *w)
{
	struct gclk_image *image = w->image;
	struct gclk_facts *facts = calloc(1, sizeof(*facts));
	struct gclk_state *scratch = malloc(sizeof(*scratch));
	struct gclk_piece pieces[2 + GCLK_STATE_PIECES];
	size_t n_record;
	int r = -GCLK_NOMEM;

	if (facts && scratch) {
		const void *record = gclk_image_record(image, &n_record);

		facts->kind = (uint32_t)image->info->kind;
		facts->compression = (uint32_t)image->info->compression;
		facts->was_running = gclk_image_was_running(image);
		facts->in_place = image->info->in_place;
		facts->has_domain = image->has_domain;
		facts->domain = image->domain;
		facts->digest = gclk_image_digest(image);
		facts->tail_begin = image->info->stream_offset + image->tail->offset;
		facts->tail_end = facts->tail_begin + image->tail->size;
		facts->n_record = (uint32_t)n_record;
		gclk_image_late_span(image, &facts->span);
		tell_evidence(image, facts);
		pieces[0] = (struct gclk_piece){ facts, sizeof(*facts) };
		gclk_state_pieces(image->state, scratch, pieces + 1);
		pieces[1 + GCLK_STATE_PIECES] = (struct gclk_piece){ record, n_record };
		r = answer(w, 0, NULL, pieces, GCLK_COUNT(pieces));
	}
	free(facts);
	free(scratch);
	return r;
}

static int open_image(struct work *w, struct gclk_frame *frame)
{
	struct gclk_ask_open ask;
	struct gclk_image_inside inside = { .name = w->name };
	struct gclk_image_options options = { .progress = say_progress, .progress_ctx = w };
	struct gclk_error error;
	int r;

	if (!read_ask(w, frame, &ask)) {
		return -GCLK_PEER;
	}
	inside.fd = w->fd;
	inside.io = ask.writable ? &w->io : NULL;
	options.want_page_clock = ask.want_page_clock;
	options.as_it_stands = ask.as_it_stands;
	options.plain = ask.plain;
	options.sync = ask.sync;
	options.snapshot = ask.has_snapshot ? ask.snapshot : NULL;
	r = gclk_image_open_inside(&inside, &options, &w->image, &error);
	return r < 0 ? answer(w, r, &error, NULL, 0) : tell_image(w);
}

static int tell_fields(struct work *w)
{
	struct gclk_said_field *all = calloc(w->image->bindings.n + 1, sizeof(*all));
	struct gclk_source_field field;
	struct gclk_piece piece = { all, 0 };
	unsigned n = 0;
	int r;

	if (!all) {
		return -GCLK_NOMEM;
	}
	while (gclk_image_source_field(w->image, n, &field)) {
		struct gclk_said_field *said = &all[n++];

		said->offset = field.offset;
		said->value = field.value;
		said->instance = field.instance;
		said->size = GCLK_MIN(field.size, (uint32_t)sizeof(said->bytes));
		said->is_signed = field.is_signed;
		strncpy(said->section, field.section, sizeof(said->section) - 1);
		strncpy(said->field, field.field, sizeof(said->field) - 1);
		memcpy(said->bytes, field.bytes, said->size);
	}
	piece.n = n * sizeof(*all);
	r = answer(w, 0, NULL, &piece, 1);
	free(all);
	return r;
}

static int tell_changes(struct work *w, const struct gclk_image_change *changes, unsigned n)
{
	struct gclk_said_change *all = calloc((size_t)n + 1, sizeof(*all));
	const struct gclk_piece piece = { all, n * sizeof(*all) };
	int r;

	if (!all) {
		return -GCLK_NOMEM;
	}
	for (unsigned i = 0; i < n; i++) {
		all[i].offset = changes[i].offset;
		all[i].before = changes[i].before;
		all[i].after = changes[i].after;
		all[i].size = changes[i].size;
		all[i].instance = changes[i].instance;
		strncpy(all[i].section, changes[i].section, sizeof(all[i].section) - 1);
		strncpy(all[i].field, changes[i].field, sizeof(all[i].field) - 1);
	}
	r = answer(w, 0, NULL, &piece, 1);
	free(all);
	return r;
}

/* What needs a plan: of it, the new state is all that is asked for here. */
static int carry_out(struct work *w, const struct gclk_frame *frame, const struct gclk_plan *plan,
		     const struct gclk_rest *payload)
{
	const struct gclk_image_change *changes = NULL;
	struct gclk_image_span span;
	struct gclk_error error = { 0 };
	unsigned n = 0;
	int r = 0;

	switch (frame->type) {
	case GCLK_ASK_ENCODE:
		r = gclk_image_encode(w->image, plan, &changes, &n, &error);
		return r < 0 ? answer(w, r, &error, NULL, 0) : tell_changes(w, changes, n);
	case GCLK_ASK_PATCH:
		r = gclk_image_patch(w->image, plan, payload->at, payload->n, &error);
		break;
	case GCLK_ASK_LATE_BEGIN:
		r = gclk_image_late_begin(w->image, plan, payload->at, payload->n, &span, &error);
		break;
	case GCLK_ASK_LATE_WRITE:
		r = gclk_image_late_write(w->image, plan, &error);
		break;
	default:
		r = gclk_image_write_fd(w->image, plan, payload->at, payload->n, frame->fd, &error);
		break;
	}
	return answer(w, r, &error, NULL, 0);
}

static int with_plan(struct work *w, const struct gclk_frame *frame)
{
	struct gclk_rest rest = { frame->bytes, frame->size };
	struct gclk_plan *plan = calloc(1, sizeof(*plan));
	int r;

	r = plan ? gclk_take_state(&rest, &plan->state, NULL) : -GCLK_NOMEM;
	if (r == 0) {
		r = carry_out(w, frame, plan, &rest);
		gclk_state_free(plan->state);
	}
	free(plan);
	return r;
}

static int undo(struct work *w, struct gclk_frame *frame)
{
	struct gclk_ask_open ask;
	struct gclk_error error;
	int r;

	if (!read_ask(w, frame, &ask)) {
		return -GCLK_PEER;
	}
	r = gclk_container_open_fd(w->fd, w->name,
				   &(const struct gclk_container_options){
					   .snapshot = ask.has_snapshot ? ask.snapshot : NULL,
					   .writable = true, .io = &w->io,
					   .progress = { say_progress, w } },
				   &w->undo, &error);
	r = r < 0 ? r : gclk_undo_inside(w->undo, &error);
	return answer(w, r, &error, NULL, 0);
}

static int undo_by_copy(struct work *w, const struct gclk_frame *frame)
{
	const struct gclk_copy copy = { .progress = { say_progress, w } };
	struct gclk_error error;
	int r = w->undo ? gclk_container_copy_fd(w->undo, frame->fd, &copy, &error) : -GCLK_PEER;

	return w->undo ? answer(w, r, &error, NULL, 0) : r;
}

#define SNAPSHOTS_MAX 256

static int tell_snapshots(struct work *w, struct gclk_frame *frame)
{
	struct gclk_snapshot *all = calloc(SNAPSHOTS_MAX, sizeof(*all));
	struct gclk_piece piece = { all, 0 };
	struct gclk_ask_open ask;
	struct gclk_error error;
	int r = all && read_ask(w, frame, &ask) ? 0 : -GCLK_PEER;

	if (r == 0) {
		int n = gclk_snapshots_of(w->fd, w->name, all, SNAPSHOTS_MAX, &error);

		piece.n = (size_t)GCLK_MIN(GCLK_MAX(n, 0), SNAPSHOTS_MAX) * sizeof(*all);
		r = answer(w, n, &error, &piece, 1);
	}
	free(all);
	return r;
}

/* ---- bytes that were sent ---- */

static int tell_domain(struct work *w, const struct gclk_frame *frame)
{
	struct gclk_domain *domain = calloc(1, sizeof(*domain));
	const struct gclk_piece piece = { domain, sizeof(*domain) };
	struct gclk_error error;
	int r;

	if (!domain) {
		return -GCLK_NOMEM;
	}
	r = gclk_domain_parse((const char *)frame->bytes, frame->size, domain, &error);
	r = answer(w, r, &error, &piece, r == 0);
	free(domain);
	return r;
}

static int tell_read(struct work *w, const struct gclk_frame *frame)
{
	struct gclk_rest rest = { frame->bytes, frame->size };
	struct gclk_piece piece = { NULL, 0 };
	struct gclk_error error = { 0 };
	uint32_t head[2];
	void *said = NULL;
	int r;

	if (!w->read || !gclk_rest_take(&rest, head, sizeof(head))) {
		return -GCLK_PEER;
	}
	r = w->read(head[0], rest.at, rest.n, &said, &piece.n, &error);
	piece.bytes = said;
	r = answer(w, r, &error, &piece, r >= 0 && said);
	free(said);
	return r;
}

/* From here on the socket speaks as far.h has it. */
static int work_on_stream(struct work *w, const struct gclk_frame *frame)
{
	struct gclk_far_options how;

	if (frame->size != sizeof(how) || frame->fd < 0) {
		return -GCLK_PEER;
	}
	memcpy(&how, frame->bytes, sizeof(how));
	return gclk_far_work(w->socket, frame->fd, &how) < 0 ? -GCLK_PEER : 1;
}

static int carry_out_frame(struct work *w, struct gclk_frame *frame)
{
	switch (frame->type) {
	case GCLK_ASK_OPEN:
		return open_image(w, frame);
	case GCLK_ASK_UNDO:
		return undo(w, frame);
	case GCLK_ASK_UNDO_COPY:
		return undo_by_copy(w, frame);
	case GCLK_ASK_SNAPSHOTS:
		return tell_snapshots(w, frame);
	case GCLK_ASK_FILTER:
		return work_on_stream(w, frame);
	case GCLK_ASK_DOMAIN:
		return tell_domain(w, frame);
	case GCLK_ASK_READ:
		return tell_read(w, frame);
	case GCLK_ASK_FIELDS:
		return w->image ? tell_fields(w) : -GCLK_PEER;
	case GCLK_ASK_ENCODE:
	case GCLK_ASK_PATCH:
	case GCLK_ASK_LATE_BEGIN:
	case GCLK_ASK_LATE_WRITE:
	case GCLK_ASK_COPY:
		return w->image ? with_plan(w, frame) : -GCLK_PEER;
	default:
		return -GCLK_PEER;
	}
}

/* No memory is an answer; a question that cannot be is the end. */
static int dispatch(struct work *w, struct gclk_frame *frame)
{
	struct gclk_error error;
	int r = carry_out_frame(w, frame);

	if (r == -GCLK_NOMEM) {
		gclk_fail(&error, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
		r = answer(w, r, &error, NULL, 0);
	}
	return r;
}

GCLK_API int gclk_image_work(int socket, const struct gclk_error *failure)
{
	return gclk_worker_run(socket, failure, NULL);
}

GCLK_API int gclk_worker_run(int socket, const struct gclk_error *failure,
			     gclk_worker_reader *read)
{
	struct gclk_say_ready ready = { .failed = failure != NULL,
					.layout = gclk_frames_layout() };
	const struct gclk_piece piece = { &ready, sizeof(ready) };
	struct work w = { .socket = socket, .fd = -1, .read = read };
	int r;

	if (failure) {
		ready.error = *failure;
	} else {
		gclk_compression_run_nothing();
	}
	r = gclk_frame_send(socket, GCLK_SAY_READY, &piece, 1, -1, NULL);
	while (r == 0 && !failure) {
		struct gclk_frame frame;

		r = gclk_frame_receive(socket, true, &frame, NULL);
		r = r ? r : dispatch(&w, &frame);
		gclk_frame_free(&frame);
	}
	gclk_image_close(w.image);
	gclk_container_free(w.undo);
	if (w.fd >= 0) {
		close(w.fd);
	}
	return r < 0 ? r : 0;
}
