/* SPDX-License-Identifier: MIT */
/*
 * Rewritten copies. The captured stream is cut into pieces: between the places where
 * a byte changes (because of this rewriting, or to undo an earlier one) bytes are
 * passed on as they are, by the kernel where nothing is compressed; there, they are
 * put together in memory.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "image/container-private.h"

#define PIECE_BYTES (UINT32_C(1) << 18)

struct job {
	struct gclk_container *c;
	const struct gclk_copy *copy;
	struct gclk_output out;
	struct gclk_compressor *compressor;	/* NULL: plain */
	uint64_t at;				/* in the captured stream */
	uint64_t shift;				/* from there to the present one, modulo 2^64 */
	size_t next_undo, next_patch;
	uint8_t *piece;
};

static int emit(struct job *j, const void *bytes, size_t n, struct gclk_error *reterr)
{
	return j->compressor ? gclk_compressor_write(j->compressor, bytes, n, reterr) :
			       gclk_output_write(&j->out, bytes, n, reterr);
}

/* Through memory: in the stream's order, so that a decompressor only goes forwards. */
static int pass_by_hand(struct job *j, uint64_t to, struct gclk_error *reterr)
{
	const struct gclk_progress *progress = &j->copy->progress;
	int r = 0;

	while (r == 0 && j->at < to) {
		size_t n = (size_t)GCLK_MIN(to - j->at, PIECE_BYTES);

		r = gclk_window_read(&j->c->current, j->at + j->shift, j->piece, n, reterr);
		r = r < 0 ? r : emit(j, j->piece, n, reterr);
		j->at += n;
		if (r == 0 && progress->report &&
		    progress->report(progress->ctx, j->at, j->c->original.size)) {
			r = gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "cancelled");
		}
	}
	return r;
}

/* Bytes [j->at, to) as they are. */
static int pass(struct job *j, uint64_t to, struct gclk_error *reterr)
{
	int r;

	if (!j->c->info.random_access) {
		return pass_by_hand(j, to, reterr);
	}
	r = gclk_output_copy(&j->out, j->c->fd, j->c->info.stream_offset + j->at + j->shift,
			     to - j->at, &j->copy->progress, reterr);
	j->at = to;
	return r;
}

static uint64_t next_change(const struct job *j)
{
	const struct gclk_undo *undo = &j->c->undo;
	uint64_t next = j->c->original.size;

	if (j->next_undo < undo->n_patches) {
		next = GCLK_MIN(next, undo->patches[j->next_undo].offset);
	}
	if (j->next_patch < j->copy->n_patches) {
		next = GCLK_MIN(next, j->copy->patches[j->next_patch].offset);
	}
	return next;
}

/* A range that an earlier rewriting changed, where no patch begins sooner. */
static int emit_original(struct job *j, struct gclk_error *reterr)
{
	const struct gclk_patch *p = &j->c->undo.patches[j->next_undo];
	uint64_t end = p->offset + p->n_old;
	int r = 0;

	if (j->next_patch < j->copy->n_patches) {
		end = GCLK_MIN(end, j->copy->patches[j->next_patch].offset);
	}
	if (end > j->at) {
		r = emit(j, p->old_bytes + (j->at - p->offset), (size_t)(end - j->at), reterr);
		j->at = end;
	}
	return r;
}

/* What the plan was made for must still be there. */
static int emit_patch(struct job *j, const struct gclk_patch *p, struct gclk_error *reterr)
{
	uint8_t *now = malloc((size_t)p->n_old + 1);
	int r;

	if (!now) {
		return gclk_fail(reterr, GCLK_NOMEM, "patches", p->offset,
				 "no memory for %" PRIu32 " bytes", p->n_old);
	}
	r = gclk_undo_original(&j->c->current, &j->c->undo, p->offset, now, p->n_old, reterr);
	if (r == 0 && p->n_old && memcmp(now, p->old_bytes, p->n_old)) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "patches", p->offset,
			      "the %" PRIu32 " bytes there are not the ones that the plan was "
			      "made for", p->n_old);
	}
	free(now);
	r = r < 0 ? r : emit(j, p->new_bytes, p->n_new, reterr);
	j->at = p->offset + p->n_old;
	return r;
}

/* Ranges of the earlier rewriting that lie behind us. */
static void leave_undone(struct job *j)
{
	const struct gclk_undo *undo = &j->c->undo;

	while (j->next_undo < undo->n_patches) {
		const struct gclk_patch *p = &undo->patches[j->next_undo];

		if (p->offset + p->n_old > j->at) {
			return;
		}
		j->shift += (uint64_t)p->n_new - p->n_old;
		j->next_undo++;
	}
}

static bool in_undone(const struct job *j)
{
	const struct gclk_undo *undo = &j->c->undo;

	return j->next_undo < undo->n_patches && undo->patches[j->next_undo].offset <= j->at;
}

static int emit_stream(struct job *j, struct gclk_error *reterr)
{
	uint64_t end = j->c->original.size;
	int r = 0;

	while (r == 0 && (j->at < end || j->next_patch < j->copy->n_patches)) {
		const struct gclk_patch *p = j->next_patch < j->copy->n_patches ?
					     &j->copy->patches[j->next_patch] : NULL;

		leave_undone(j);
		if (p && p->offset == j->at) {
			j->next_patch++;
			r = emit_patch(j, p, reterr);
		} else if (in_undone(j)) {
			r = emit_original(j, reterr);
		} else {
			r = pass(j, next_change(j), reterr);
		}
	}
	return r;
}

/* The patches that change something, for the record; NULL and 0 when none does. */
static int effective(const struct gclk_copy *copy, struct gclk_patch **ret, size_t *ret_n,
		     struct gclk_error *reterr)
{
	struct gclk_patch *kept = calloc(copy->n_patches + 1, sizeof(*kept));
	size_t n = 0;

	if (!kept) {
		return gclk_fail(reterr, GCLK_NOMEM, "patches", GCLK_NO_OFFSET, "no memory");
	}
	for (size_t i = 0; i < copy->n_patches; i++) {
		const struct gclk_patch *p = &copy->patches[i];

		if (p->n_old != p->n_new || memcmp(p->old_bytes, p->new_bytes, p->n_old)) {
			kept[n++] = *p;
		}
	}
	*ret = kept;
	*ret_n = n;
	return 0;
}

static int emit_record(struct job *j, struct gclk_error *reterr)
{
	uint64_t size = j->c->original.size;
	struct gclk_patch *kept = NULL;
	uint8_t *record = NULL;
	size_t n_kept = 0, n = 0;
	int r;

	r = effective(j->copy, &kept, &n_kept, reterr);
	if (r < 0) {
		return r;
	}
	for (size_t i = 0; i < n_kept; i++) {
		size += (uint64_t)kept[i].n_new - kept[i].n_old;
	}
	if (n_kept) {
		r = gclk_undo_pack(kept, n_kept, j->copy->payload, j->copy->n_payload, size, size,
				   &record, &n, reterr);
		r = r < 0 ? r : emit(j, record, n, reterr);
	}
	free(record);
	free(kept);
	return r;
}

static int sink_to_output(void *ctx, const void *buf, size_t n, struct gclk_error *reterr)
{
	return gclk_output_write(ctx, buf, n, reterr);
}

/* Format 0 in the header of a save image, whatever its byte order. */
#define FORMAT_OFFSET 28

static int make_plain(struct job *j, struct gclk_error *reterr)
{
	static const uint8_t none[4];

	if (pwrite(j->out.fd, none, sizeof(none), FORMAT_OFFSET) != (ssize_t)sizeof(none)) {
		return gclk_fail(reterr, GCLK_SYS, NULL, FORMAT_OFFSET,
				 "cannot write the header: %m");
	}
	return 0;
}

static int copy_stream(struct job *j, struct gclk_error *reterr)
{
	const struct gclk_container_info *info = &j->c->info;
	struct gclk_sink sink = { sink_to_output, &j->out };
	int r;

	j->piece = malloc(PIECE_BYTES);
	if (!j->piece) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	/* Header and XML of a save image; data_len stays, whatever happens behind it. */
	r = gclk_output_copy(&j->out, j->c->fd, 0, info->stream_offset, NULL, reterr);
	if (r == 0 && j->copy->plain && info->libvirt) {
		r = make_plain(j, reterr);
	} else if (r == 0 && info->compression != GCLK_COMPRESSION_NONE) {
		r = gclk_compressor_open(info->compression, &sink, &j->compressor, reterr);
	}
	r = r < 0 ? r : emit_stream(j, reterr);
	r = r < 0 ? r : emit_record(j, reterr);
	if (r == 0 && j->compressor) {
		r = gclk_compressor_finish(j->compressor, reterr);
	}
	gclk_compressor_free(j->compressor);
	free(j->piece);
	return r;
}

/* All of the file; then in place in the copy, which nobody sees yet. */
static int copy_qcow2(struct job *j, struct gclk_error *reterr)
{
	const struct gclk_container_options options = {
		.snapshot = j->c->info.snapshot->id,
		.progress = j->copy->progress,
	};
	struct gclk_container *made = NULL;
	int r;

	r = gclk_output_copy(&j->out, j->c->fd, 0, j->c->info.file.bytes, &j->copy->progress,
			     reterr);
	r = r < 0 ? r : gclk_container_open_fd(j->out.fd, j->c->name, &options, &made, reterr);
	if (r < 0) {
		return r;
	}
	made->writable = true;	/* without locks: it has no name */
	if (j->copy->n_patches) {
		r = gclk_container_rewrite(made, j->copy->patches, j->copy->n_patches,
					   j->copy->payload, j->copy->n_payload, reterr);
	} else {
		r = gclk_container_revert(made, reterr);
	}
	gclk_container_free(made);
	return r;
}

static int no_sync(void *ctx, struct gclk_error *reterr)
{
	(void)ctx;
	(void)reterr;
	return 0;
}

/* A pipe that was spooled where the output shall be: it becomes the output. */
static int finish_spooled(struct gclk_container *c, const char *out_path,
			  const struct gclk_copy *copy, struct gclk_error *reterr)
{
	struct gclk_output final = c->spool;
	struct gclk_io unseen = c->stream;
	int r;

	final.path = realpath(out_path, NULL);
	final.path = final.path ? final.path : strdup(out_path);
	if (!final.path) {
		return gclk_fail(reterr, GCLK_NOMEM, out_path, GCLK_NO_OFFSET, "no memory");
	}
	unseen.sync = no_sync;		/* has no name yet, so no order to keep */
	r = gclk_undo_apply(&unseen, c->stream_end, copy->patches, copy->n_patches,
			    copy->payload, copy->n_payload, reterr);
	r = r < 0 ? r : gclk_output_commit(&final, copy->replace, reterr);
	free(final.path);
	c->spool.temporary = final.temporary;
	gclk_container_forget(c);
	return r;
}

static bool can_finish_spooled(const struct gclk_container *c, const struct gclk_copy *copy)
{
	return c->spool.fd >= 0 && c->info.random_access && !c->qcow2 &&
	       !gclk_patches_change_length(copy->patches, copy->n_patches) &&
	       !gclk_patches_change_length(c->undo.patches, c->undo.n_patches);
}

static int check_job(struct gclk_container *c, const struct gclk_copy *copy,
		     struct gclk_error *reterr)
{
	const struct gclk_window *original;
	int r;

	if (c->info.pipe) {
		return gclk_fail(reterr, GCLK_STATE, c->name, GCLK_NO_OFFSET,
				 "a pipe must be spooled before it can be rewritten");
	}
	r = gclk_container_window(c, GCLK_VIEW_ORIGINAL, &original, reterr);
	return r < 0 ? r : gclk_patches_check(copy->patches, copy->n_patches, original->size,
					      reterr);
}

int gclk_container_copy(struct gclk_container *c, const char *out_path,
			const struct gclk_copy *copy, struct gclk_error *reterr)
{
	struct job j = { .c = c, .copy = copy };
	int r;

	r = check_job(c, copy, reterr);
	if (r < 0) {
		return r;
	}
	if (can_finish_spooled(c, copy)) {
		return finish_spooled(c, out_path, copy, reterr);
	}
	if (!copy->replace && access(out_path, F_OK) == 0) {	/* before the work, not after */
		return gclk_fail(reterr, GCLK_STATE, out_path, GCLK_NO_OFFSET,
				 "the file exists already");
	}
	r = gclk_output_open(out_path, c->fd, &j.out, reterr);
	if (r < 0) {
		return r;
	}
	j.out.sync |= c->sync;
	r = c->qcow2 ? copy_qcow2(&j, reterr) : copy_stream(&j, reterr);
	r = r < 0 ? r : gclk_output_commit(&j.out, copy->replace, reterr);
	gclk_output_close(&j.out);
	return r;
}

int gclk_container_copy_fd(struct gclk_container *c, int fd, const struct gclk_copy *copy,
			   struct gclk_error *reterr)
{
	static char path[] = "the copy";
	struct job j = { .c = c, .copy = copy, .out = { .fd = fd, .path = path, .sync = c->sync } };
	int r = check_job(c, copy, reterr);

	if (r < 0) {
		return r;
	}
	return c->qcow2 ? copy_qcow2(&j, reterr) : copy_stream(&j, reterr);
}
