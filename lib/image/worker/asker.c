/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "image/io.h"
#include "image/raw.h"
#include "image/worker/asker.h"
#include "image/worker/guard.h"

struct gclk_asker {
	struct gclk_worker worker;
	struct gclk_worker_process process;	/* .socket -1: has ended */
	char why[200];			/* it has, if it was not asked to */
	int fd;				/* the file */
	bool owns_fd;
	struct gclk_output spool;	/* of a pipe; fd -1: none */
	bool plain, sync;
	bool wrote;			/* something, already */
	const struct gclk_late_gate *gate; /* of the late writing at work; or NULL */
	struct gclk_guard guard;
	struct gclk_progress progress;
	struct gclk_facts facts;
	void *record;
	struct gclk_said_change *said_changes;
	struct gclk_image_change *changes;
	struct gclk_said_field *fields;
	unsigned n_fields;
};

/* ---- a question ---- */

static void end_worker(struct gclk_asker *a)
{
	if (a->process.socket >= 0) {
		a->worker.stop(a->worker.ctx, &a->process, false, NULL);
		a->process.socket = -1;
	}
}

/*
 * It is not asked again, for this reason. Once it has written who knows what the file is
 * now: that is more important than what it was that went wrong.
 */
static int give_up(struct gclk_asker *a, enum gclk_status status, const char *why,
		   struct gclk_error *reterr)
{
	end_worker(a);
	snprintf(a->why, sizeof(a->why), "%s", why);
	return gclk_fail(reterr, a->wrote ? GCLK_UNPROVEN : status, NULL, GCLK_NO_OFFSET, "%s",
			 why);
}

/* How it died says more than that it did. */
static int lost_worker(struct gclk_asker *a, struct gclk_error *reterr)
{
	struct gclk_error error;

	if (a->process.socket < 0) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
				 "the confined process that reads the file has ended%s%s",
				 *a->why ? ": " : "", a->why);
	}
	gclk_worker_lost(&a->worker, &a->process, &error);
	return give_up(a, GCLK_PEER, error.message, reterr);
}

/* One that says what it should not is not asked again. */
static int misbehaved(struct gclk_asker *a, const char *what, struct gclk_error *reterr)
{
	char why[160];

	snprintf(why, sizeof(why),
		 "the confined process that reads the file %s, and was ended", what);
	return give_up(a, GCLK_PEER, why, reterr);
}

static int write_bytes(struct gclk_asker *a, uint64_t at, const struct gclk_rest *bytes,
		       struct gclk_error *reterr)
{
	struct gclk_io file = gclk_io_file(a->fd);
	int r = gclk_gate_open(a->gate, reterr);

	if (r < 0) {
		return r;
	}
	a->wrote = true;
	r = file.write(file.ctx, at, bytes->at, bytes->n, reterr);
	gclk_gate_close(a->gate);
	return r;
}

static int write_for(struct gclk_asker *a, const struct gclk_frame *frame,
		     struct gclk_error *reterr)
{
	struct gclk_rest rest = { frame->bytes, frame->size };
	struct gclk_io file = gclk_io_file(a->fd);
	uint64_t at;

	switch (frame->type) {
	case GCLK_SAY_SYNC:
		/* what has no name yet has no order to keep */
		return a->spool.fd >= 0 ? 0 : file.sync(file.ctx, reterr);
	case GCLK_SAY_WRITE:
		if (!gclk_rest_take(&rest, &at, sizeof(at)) ||
		    !gclk_guard_allows_write(&a->guard, at, rest.n)) {
			return -GCLK_PEER;
		}
		return write_bytes(a, at, &rest, reterr);
	default:
		if (!gclk_rest_take(&rest, &at, sizeof(at)) || rest.n ||
		    !gclk_guard_allows_size(&a->guard, at)) {
			return -GCLK_PEER;
		}
		a->wrote = true;
		return file.resize(file.ctx, at, reterr);
	}
}

/* A failed write is the worker's to report; one that is not allowed is its last. */
static int serve_write(struct gclk_asker *a, const struct gclk_frame *frame,
		       struct gclk_error *reterr)
{
	struct gclk_error result = { 0 };
	const struct gclk_piece piece = { &result, sizeof(result) };
	int r = write_for(a, frame, &result);

	if (r == -GCLK_PEER) {
		return misbehaved(a, "asked to write what it may not", reterr);
	}
	return gclk_frame_send(a->process.socket, GCLK_TELL_RESULT, &piece, 1, -1, NULL) < 0 ?
		       lost_worker(a, reterr) : 0;
}

static int serve_progress(struct gclk_asker *a, const struct gclk_frame *frame,
			  struct gclk_error *reterr)
{
	struct gclk_rest rest = { frame->bytes, frame->size };
	uint64_t both[2];

	if (!gclk_rest_take(&rest, both, sizeof(both))) {
		return misbehaved(a, "told of progress that is none", reterr);
	}
	if (a->progress.report && a->progress.report(a->progress.ctx, both[0], both[1])) {
		end_worker(a);
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "cancelled");
	}
	return 0;
}

/* What it says before it has done: 0, and go on. */
static int serve(struct gclk_asker *a, const struct gclk_frame *frame, struct gclk_error *reterr)
{
	switch (frame->type) {
	case GCLK_SAY_PROGRESS:
		return serve_progress(a, frame, reterr);
	case GCLK_SAY_WRITE:
	case GCLK_SAY_SYNC:
	case GCLK_SAY_RESIZE:
		return serve_write(a, frame, reterr);
	default:
		return misbehaved(a, "said what it was not asked for", reterr);
	}
}

/* The answer in @ret, in any case the caller's to free. Returns the worker's result. */
static int listen_for(struct gclk_asker *a, struct gclk_frame *ret, struct gclk_rest *ret_rest,
		      struct gclk_error *reterr)
{
	struct gclk_error said, error;
	int result, r;

	for (;;) {
		r = gclk_frame_receive(a->process.socket, false, ret, &error);
		if (r) {
			return r < 0 && error.status == GCLK_NOMEM ?
				       give_up(a, GCLK_NOMEM, "out of memory", reterr) :
				       lost_worker(a, reterr);
		}
		if (ret->type == GCLK_SAY_DONE) {
			break;
		}
		r = serve(a, ret, reterr);
		gclk_frame_free(ret);
		if (r < 0) {
			return r;
		}
	}
	*ret_rest = (struct gclk_rest){ ret->bytes, ret->size };
	if (gclk_take_done(ret_rest, &result, &said, NULL) < 0) {
		return misbehaved(a, "gave an answer that is none", reterr);
	}
	/* it had no answer from here, or no memory, perhaps amid a change */
	if (result == -GCLK_PEER || (result == -GCLK_NOMEM && a->wrote)) {
		return give_up(a, GCLK_PEER, said.message, reterr);
	}
	if (result < 0 && reterr) {
		*reterr = said;
	}
	return result;
}

static int ask(struct gclk_asker *a, enum gclk_frame_type type, const struct gclk_piece *pieces,
	       unsigned n_pieces, int fd, struct gclk_frame *ret, struct gclk_rest *ret_rest,
	       struct gclk_error *reterr)
{
	*ret = (struct gclk_frame){ .fd = -1 };
	if (a->process.socket < 0 ||
	    gclk_frame_send(a->process.socket, type, pieces, n_pieces, fd, NULL) < 0) {
		return lost_worker(a, reterr);
	}
	return listen_for(a, ret, ret_rest, reterr);
}

/* A state and more; the answer has nothing but the result. */
static int ask_with_plan(struct gclk_asker *a, enum gclk_frame_type type,
			 const struct gclk_plan *plan, const void *payload, size_t n_payload,
			 int fd, struct gclk_frame *ret, struct gclk_rest *ret_rest,
			 struct gclk_error *reterr)
{
	struct gclk_piece pieces[GCLK_STATE_PIECES + 1];
	struct gclk_state scratch;

	gclk_state_pieces(plan->state, &scratch, pieces);
	pieces[GCLK_STATE_PIECES] = (struct gclk_piece){ payload, payload ? n_payload : 0 };
	return ask(a, type, pieces, GCLK_COUNT(pieces), fd, ret, ret_rest, reterr);
}

/* ---- opening ---- */

/* A pipe's bytes, which nobody looks at here. */
static int spool(struct gclk_asker *a, const char *beside, struct gclk_error *reterr)
{
	static const size_t size = (size_t)1 << 20;
	uint8_t *piece = aligned_alloc(4096, size);
	ssize_t n = 1;
	int r = piece ? gclk_output_open(beside, -1, &a->spool, reterr) :
			gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");

	if (r < 0) {
		a->spool.fd = -1;
	}
	(void)!fcntl(a->fd, F_SETPIPE_SZ, size);
	while (r == 0 && n > 0) {
		do {
			n = read(a->fd, piece, size);
		} while (n < 0 && errno == EINTR);
		r = n < 0 ? gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				      "cannot read the input: %m") :
			    gclk_output_write(&a->spool, piece, (size_t)n, reterr);
		if (r == 0 && a->progress.report &&
		    a->progress.report(a->progress.ctx, a->spool.bytes, 0)) {
			r = gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "cancelled");
		}
	}
	free(piece);
	return r;
}

static int open_file(struct gclk_asker *a, const char *path, bool writable,
		     struct gclk_error *reterr)
{
	struct stat st;

	a->owns_fd = strcmp(path, "-") != 0;
	a->fd = a->owns_fd ? open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC) :
			     STDIN_FILENO;
	if (a->fd < 0 || fstat(a->fd, &st) < 0) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "cannot open it: %m");
	}
	if (!writable) {
		return 0;
	}
	return S_ISREG(st.st_mode) ? gclk_file_lock(a->fd, path, reterr) :
	       gclk_fail(reterr, GCLK_UNSUPPORTED, path, GCLK_NO_OFFSET,
			 "only a regular file can be rewritten in place");
}

static bool is_pipe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) < 0;
}

/* The same file, which cannot be written by this descriptor. */
static int read_only(int fd, struct gclk_error *reterr)
{
	char self[64];
	int r, mode = fcntl(fd, F_GETFL);

	if (mode >= 0 && (mode & O_ACCMODE) == O_RDONLY) {
		r = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	} else {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		r = open(self, O_RDONLY | O_CLOEXEC);
	}
	return r >= 0 ? r : gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				      "cannot open it for reading alone: %m");
}

static int check_ready(const struct gclk_frame *frame, struct gclk_error *reterr)
{
	struct gclk_say_ready ready;

	if (frame->type != GCLK_SAY_READY || frame->size != sizeof(ready)) {
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "a process that should be confined does not say that it is");
	}
	memcpy(&ready, frame->bytes, sizeof(ready));
	if (ready.failed) {
		gclk_text_tame(ready.error.message, sizeof(ready.error.message));
		return gclk_fail(reterr, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET, "%s",
				 ready.error.message);
	}
	return ready.layout == gclk_frames_layout() ? 0 :
	       gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the confined process is of another release");
}

#define PATIENCE_MS 30000

static uint32_t patience_of(const struct gclk_worker *worker)
{
	return worker->patience_ms ? worker->patience_ms : PATIENCE_MS;
}

static void be_patient(int socket, uint32_t ms)
{
	const struct timeval patience = { ms / 1000, (suseconds_t)(ms % 1000 * 1000) };

	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

void gclk_worker_is_unhurried(const struct gclk_worker_process *process)
{
	be_patient(process->socket, 0);
}

void gclk_worker_lost(const struct gclk_worker *worker, struct gclk_worker_process *process,
		      struct gclk_error *ret_why)
{
	bool silent = errno == EAGAIN || errno == EWOULDBLOCK;
	uint32_t ms = patience_of(worker);

	worker->stop(worker->ctx, process, !silent, ret_why);
	process->socket = -1;
	if (silent) {
		gclk_fail(ret_why, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			  "the confined process that reads it has been silent for "
			  "%" PRIu32 ".%03" PRIu32 " s, and was ended", ms / 1000, ms % 1000);
	}
}

int gclk_worker_begin(const struct gclk_worker *worker, struct gclk_worker_process *ret,
		      struct gclk_error *reterr)
{
	struct gclk_error why;
	struct gclk_frame frame;
	int r = worker->start(worker->ctx, ret, reterr);

	if (r < 0) {
		return r;
	}
	be_patient(ret->socket, patience_of(worker));
	if (gclk_frame_receive(ret->socket, false, &frame, NULL)) {
		gclk_worker_lost(worker, ret, &why);
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET, "%s", why.message);
	}
	r = check_ready(&frame, reterr);
	gclk_frame_free(&frame);
	if (r < 0) {
		worker->stop(worker->ctx, ret, false, NULL);
	}
	return r;
}

static int start(struct gclk_asker *a, struct gclk_error *reterr)
{
	int r = gclk_worker_begin(&a->worker, &a->process, reterr);

	if (r < 0) {
		a->process.socket = -1;
	} else {
		gclk_worker_is_unhurried(&a->process);	/* to read a file takes what it takes */
	}
	return r;
}

static void fill_ask(const struct gclk_image_options *options, const char *path,
		     struct gclk_ask_open *to)
{
	*to = (struct gclk_ask_open){
		.writable = options->writable,
		.want_page_clock = options->want_page_clock,
		.as_it_stands = options->as_it_stands,
		.plain = options->plain,
		.sync = options->sync,
		.has_snapshot = options->snapshot != NULL,
	};
	snprintf(to->snapshot, sizeof(to->snapshot), "%s",
		 options->snapshot ? options->snapshot : "");
	snprintf(to->name, sizeof(to->name), "%s",
		 strcmp(path, "-") ? path : "standard input");
}

/* The file here, its reader there, and the first question. */
static int begin(struct gclk_asker *a, const char *path, const struct gclk_image_options *options,
		 enum gclk_frame_type type, struct gclk_frame *ret, struct gclk_rest *ret_rest,
		 struct gclk_error *reterr)
{
	struct gclk_ask_open how;
	const struct gclk_piece piece = { &how, sizeof(how) };
	int fd, r;

	*ret = (struct gclk_frame){ .fd = -1 };
	fill_ask(options, path, &how);
	/* first, so that it has no part in the file's locks: they hold as long as anybody's does */
	r = start(a, reterr);
	r = r < 0 ? r : open_file(a, path, options->writable, reterr);
	if (r == 0 && options->spool_beside && is_pipe(a->fd)) {
		r = spool(a, options->spool_beside, reterr);
		if (r == 0 && a->owns_fd) {
			close(a->fd);
		}
		if (r == 0) {
			a->fd = a->spool.fd;
			a->owns_fd = false;
			how.writable = 1;
		}
	}
	r = r < 0 ? r : gclk_guard_begin(a->fd, how.writable, &a->guard, reterr);
	if (r < 0) {
		return r;
	}
	fd = read_only(a->fd, reterr);
	if (fd < 0) {
		return fd;
	}
	r = ask(a, type, &piece, 1, fd, ret, ret_rest, reterr);
	close(fd);
	return r;
}

static struct gclk_asker *asker_new(const struct gclk_image_options *options,
				    struct gclk_error *reterr)
{
	struct gclk_asker *a = calloc(1, sizeof(*a));

	if (!a) {
		gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
		return NULL;
	}
	a->worker = *options->worker;
	a->process.socket = a->fd = a->spool.fd = -1;
	a->plain = options->plain;
	a->sync = options->sync;
	a->progress = (struct gclk_progress){ options->progress, options->progress_ctx };
	return a;
}

static int take_image(struct gclk_asker *a, struct gclk_image *image, struct gclk_rest *rest,
		      struct gclk_error *reterr)
{
	struct gclk_facts *facts = &a->facts;
	int r = gclk_take_facts(rest, facts, reterr);

	r = r < 0 ? r : gclk_take_state(rest, &image->state, reterr);
	r = r < 0 ? r : gclk_guard_narrow(&a->guard, facts, reterr);
	if (r < 0) {
		return r;
	}
	if (rest->n != facts->n_record) {
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "the confined process that reads the file says too little or "
				 "too much");
	}
	if (rest->n && !(a->record = malloc(rest->n))) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	gclk_rest_take(rest, a->record, facts->n_record);
	image->domain = facts->domain;
	image->has_domain = facts->has_domain;
	image->n_evidence = facts->n_evidence;
	for (unsigned i = 0; i < facts->n_evidence; i++) {
		const struct gclk_said_evidence *said = &facts->evidence[i];

		image->evidence[i] = (struct gclk_evidence){
			said->basis, { said->ns, said->uncertainty_ns },
			*said->note ? said->note : NULL };
	}
	return 0;
}

int gclk_asker_open(struct gclk_image *image, const char *path,
		    const struct gclk_image_options *options, struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r;

	image->asker = asker_new(options, reterr);
	if (!image->asker) {
		return -GCLK_NOMEM;
	}
	r = begin(image->asker, path, options, GCLK_ASK_OPEN, &frame, &rest, reterr);
	r = r < 0 ? r : take_image(image->asker, image, &rest, reterr);
	gclk_frame_free(&frame);
	return r;
}

struct gclk_asker *gclk_asker_free(struct gclk_asker *a)
{
	if (!a) {
		return NULL;
	}
	end_worker(a);
	if (a->spool.fd >= 0) {
		gclk_output_close(&a->spool);
	}
	if (a->owns_fd && a->fd >= 0) {
		close(a->fd);
	}
	free(a->record);
	free(a->said_changes);
	free(a->changes);
	free(a->fields);
	free(a);
	return NULL;
}

/* ---- what it said ---- */

enum gclk_image_format gclk_asker_format(const struct gclk_asker *a)
{
	static const enum gclk_image_format formats[] = {
		[GCLK_CONTAINER_STREAM] = GCLK_FORMAT_QEMU_STREAM,
		[GCLK_CONTAINER_LIBVIRT] = GCLK_FORMAT_LIBVIRT_SAVE,
		[GCLK_CONTAINER_QCOW2] = GCLK_FORMAT_QCOW2_SNAPSHOT,
	};

	return formats[a->facts.kind];
}

const char *gclk_asker_compression(const struct gclk_asker *a)
{
	return gclk_compression_name((enum gclk_compression)a->facts.compression);
}

int gclk_asker_was_running(const struct gclk_asker *a)
{
	return a->facts.was_running;
}

uint64_t gclk_asker_digest(const struct gclk_asker *a)
{
	return a->facts.digest;
}

const void *gclk_asker_record(const struct gclk_asker *a, size_t *ret_size)
{
	*ret_size = a->facts.n_record;
	return a->record;
}

void gclk_asker_span(const struct gclk_asker *a, struct gclk_image_span *ret)
{
	*ret = a->facts.span;
}

static int ask_fields(struct gclk_asker *a)
{
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r = ask(a, GCLK_ASK_FIELDS, NULL, 0, -1, &frame, &rest, NULL);

	r = r < 0 ? r : gclk_take_fields(&rest, &a->fields, &a->n_fields, NULL);
	gclk_frame_free(&frame);
	return r;
}

int gclk_asker_field(struct gclk_asker *a, unsigned index, struct gclk_source_field *ret)
{
	const struct gclk_said_field *said;
	int r = a->fields ? 0 : ask_fields(a);

	if (r < 0) {
		return r;
	}
	if (index >= a->n_fields) {
		return 0;
	}
	said = &a->fields[index];
	*ret = (struct gclk_source_field){
		.section = said->section, .instance = said->instance, .field = said->field,
		.offset = said->offset, .size = said->size, .value = said->value,
		.is_signed = said->is_signed, .bytes = said->bytes };
	return 1;
}

/* ---- plans ---- */

static int take_changes(struct gclk_asker *a, struct gclk_rest *rest, unsigned *ret_n,
			struct gclk_error *reterr)
{
	int r;

	free(a->said_changes);
	a->said_changes = NULL;
	r = gclk_take_changes(rest, &a->said_changes, ret_n, reterr);
	if (r < 0) {
		return r;
	}
	free(a->changes);
	a->changes = calloc((size_t)*ret_n + 1, sizeof(*a->changes));
	if (!a->changes) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	for (unsigned i = 0; i < *ret_n; i++) {
		const struct gclk_said_change *said = &a->said_changes[i];

		a->changes[i] = (struct gclk_image_change){
			said->offset, said->size, said->section, said->field, said->instance,
			said->before, said->after };
	}
	return 0;
}

int gclk_asker_encode(struct gclk_asker *a, const struct gclk_plan *plan,
		      const struct gclk_image_change **ret_changes, unsigned *ret_n,
		      struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r = ask_with_plan(a, GCLK_ASK_ENCODE, plan, NULL, 0, -1, &frame, &rest, reterr);

	r = r < 0 ? r : take_changes(a, &rest, ret_n, reterr);
	gclk_frame_free(&frame);
	*ret_changes = a->changes;
	return r < 0 ? r : 0;
}

static int order(struct gclk_asker *a, enum gclk_frame_type type, const struct gclk_plan *plan,
		 const void *payload, size_t n_payload, int fd, struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r = ask_with_plan(a, type, plan, payload, n_payload, fd, &frame, &rest, reterr);

	gclk_frame_free(&frame);
	return r < 0 ? r : 0;
}

int gclk_asker_patch(struct gclk_asker *a, const struct gclk_plan *plan, const void *payload,
		     size_t n_payload, struct gclk_error *reterr)
{
	return order(a, GCLK_ASK_PATCH, plan, payload, n_payload, -1, reterr);
}

int gclk_asker_late_begin(struct gclk_asker *a, const struct gclk_plan *plan,
			  const void *payload, size_t n_payload, struct gclk_image_span *ret,
			  struct gclk_error *reterr)
{
	int r = order(a, GCLK_ASK_LATE_BEGIN, plan, payload, n_payload, -1, reterr);

	*ret = a->facts.span;
	return r;
}

int gclk_asker_late_write(struct gclk_asker *a, const struct gclk_plan *plan,
			  const struct gclk_late_gate *gate, struct gclk_error *reterr)
{
	int r;

	a->gate = gate;
	r = order(a, GCLK_ASK_LATE_WRITE, plan, NULL, 0, -1, reterr);
	a->gate = NULL;
	return r;
}

/* A pipe that was spooled where the output shall be: it becomes the output. */
static int finish_spooled(struct gclk_asker *a, const struct gclk_plan *plan,
			  const void *payload, size_t n_payload, const char *out_path,
			  struct gclk_error *reterr)
{
	struct gclk_output final = a->spool;
	int r = gclk_asker_patch(a, plan, payload, n_payload, reterr);

	if (r < 0) {
		return r;
	}
	end_worker(a);
	final.path = realpath(out_path, NULL);
	final.path = final.path ? final.path : strdup(out_path);
	if (!final.path) {
		return gclk_fail(reterr, GCLK_NOMEM, out_path, GCLK_NO_OFFSET, "no memory");
	}
	final.sync |= a->sync;
	r = gclk_output_commit(&final, true, reterr);
	free(final.path);
	a->spool.temporary = final.temporary;
	return r;
}

/* It gets its name when nobody else can write it any more, and its head is the input's. */
static int commit_copy(struct gclk_asker *a, struct gclk_output *out, int in,
		       struct gclk_error *reterr)
{
	bool plain = a->plain && a->facts.kind == GCLK_CONTAINER_LIBVIRT;
	int r;

	end_worker(a);
	r = gclk_guard_check_copy(&a->guard, in, out->fd, plain, reterr);
	return r < 0 ? r : gclk_output_commit(out, true, reterr);
}

int gclk_asker_write(struct gclk_asker *a, const struct gclk_plan *plan, const void *payload,
		     size_t n_payload, const char *out_path, struct gclk_error *reterr)
{
	struct gclk_output out;
	int r;

	if (a->spool.fd >= 0 && a->facts.in_place && a->facts.kind != GCLK_CONTAINER_QCOW2) {
		return finish_spooled(a, plan, payload, n_payload, out_path, reterr);
	}
	if (a->spool.fd < 0 && is_pipe(a->fd)) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
				 "a pipe must be spooled before it can be rewritten");
	}
	r = gclk_output_open(out_path, a->fd, &out, reterr);
	if (r < 0) {
		return r;
	}
	out.sync |= a->sync;
	r = order(a, GCLK_ASK_COPY, plan, payload, n_payload, out.fd, reterr);
	r = r < 0 ? r : commit_copy(a, &out, a->fd, reterr);
	gclk_output_close(&out);
	return r;
}

/* ---- without an image ---- */

static int undo_by_copy(struct gclk_asker *a, const char *path, struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_rest rest;
	struct gclk_output out;
	int r = gclk_output_open(path, a->fd, &out, reterr);

	if (r < 0) {
		return r;
	}
	r = ask(a, GCLK_ASK_UNDO_COPY, NULL, 0, out.fd, &frame, &rest, reterr);
	gclk_frame_free(&frame);
	r = r < 0 ? r : commit_copy(a, &out, a->fd, reterr);
	gclk_output_close(&out);
	return r;
}

int gclk_asker_undo(const char *path, const struct gclk_image_options *options,
		    int *ret_undone, struct gclk_error *reterr)
{
	struct gclk_image_options how = *options;
	struct gclk_asker *a = asker_new(options, reterr);
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r;

	if (!a) {
		return -GCLK_NOMEM;
	}
	how.writable = true;
	how.spool_beside = NULL;
	r = begin(a, path, &how, GCLK_ASK_UNDO, &frame, &rest, reterr);
	gclk_frame_free(&frame);
	if (r == GCLK_UNDO_BY_COPY) {
		r = undo_by_copy(a, path, reterr);
	}
	if (r >= 0) {
		*ret_undone = r != GCLK_UNDO_NONE;
		r = 0;
	}
	gclk_asker_free(a);
	return r;
}

GCLK_API int gclk_worker_list_snapshots(const struct gclk_worker *worker, const char *path,
					struct gclk_snapshot *ret, unsigned max,
					struct gclk_error *reterr)
{
	const struct gclk_image_options options = { .worker = worker };
	struct gclk_asker *a = asker_new(&options, reterr);
	struct gclk_frame frame;
	struct gclk_rest rest;
	unsigned n = 0;
	int r;

	if (!a) {
		return -GCLK_NOMEM;
	}
	r = begin(a, path, &options, GCLK_ASK_SNAPSHOTS, &frame, &rest, reterr);
	if (r >= 0 && gclk_take_snapshots(&rest, ret, max, &n, reterr) < 0) {
		r = -GCLK_PEER;
	}
	gclk_frame_free(&frame);
	gclk_asker_free(a);
	return r < 0 ? r : (int)n;
}
