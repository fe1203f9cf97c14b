/* SPDX-License-Identifier: MIT */
/*
 * Carrying a plan out: from two states to patches, from patches to bytes on disk.
 * Only located fields that the plan changed are written.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "image/image.h"
#include "image/worker/asker.h"

#define PATCH_MAX 256			/* bytes of the widest field */

static int by_offset(const void *a, const void *b)
{
	const struct gclk_located *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

static int reserve(struct gclk_image *image, struct gclk_error *reterr)
{
	size_t n = image->bindings.n, n_bytes = 0;

	for (size_t i = 0; i < n; i++) {
		n_bytes += image->bindings.rows[i].size;
	}
	if (image->changes) {
		return 0;
	}
	qsort(image->bindings.rows, n, sizeof(*image->bindings.rows), by_offset);
	image->changes = calloc(n + 1, sizeof(*image->changes));
	image->patches = calloc(n + 1, sizeof(*image->patches));
	image->bytes = calloc(1, n_bytes + 1);
	image->names = calloc(n + 1, sizeof(*image->names));
	if (!image->changes || !image->patches || !image->bytes || !image->names) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	return 0;
}

static void describe(struct gclk_image *image, const struct gclk_located *row,
		     const uint8_t *before, const uint8_t *after)
{
	unsigned n = image->n_changes;
	int is_signed;

	gclk_located_section(row, image->names[n][0], sizeof(image->names[n][0]));
	gclk_located_name(row, image->names[n][1], sizeof(image->names[n][1]));
	image->changes[n] = (struct gclk_image_change){
		.offset = image->tail->offset + row->offset,
		.size = row->size,
		.section = image->names[n][0],
		.field = image->names[n][1],
		.instance = row->section->instance,
		.before = gclk_located_value(row, before, &is_signed),
		.after = gclk_located_value(row, after, &is_signed),
	};
	image->patches[n] = (struct gclk_patch){
		.offset = image->tail->offset + row->offset,
		.n_old = row->size,
		.n_new = row->size,
		.old_bytes = before,
		.new_bytes = after,
	};
	image->n_changes++;
}

GCLK_API int gclk_image_encode(struct gclk_image *image, const struct gclk_plan *plan,
			       const struct gclk_image_change **ret_changes, unsigned *ret_n,
			       struct gclk_error *reterr)
{
	uint8_t *to, was[PATCH_MAX];
	int r;

	if (image->asker) {
		return gclk_asker_encode(image->asker, plan, ret_changes, ret_n, reterr);
	}
	r = reserve(image, reterr);
	if (r < 0) {
		return r;
	}
	if (plan->state->n_vcpus != image->state->n_vcpus) {
		return gclk_fail(reterr, GCLK_STATE, "plan", GCLK_NO_OFFSET,
				 "the plan is of another guest: %u vCPUs, not %u",
				 plan->state->n_vcpus, image->state->n_vcpus);
	}
	r = gclk_bindings_cover(&image->bindings, image->state, plan->state, reterr);
	if (r < 0) {
		return r;
	}
	to = image->bytes;
	image->n_changes = 0;
	for (size_t i = 0; i < image->bindings.n; i++) {
		const struct gclk_located *row = &image->bindings.rows[i];

		/* Both states through the same encoder: what the plan left is not written. */
		if ((r = gclk_located_encode(row, image->state, was, reterr)) < 0 ||
		    (r = gclk_located_encode(row, plan->state, to, reterr)) < 0) {
			return r;
		}
		if (memcmp(was, to, row->size)) {
			describe(image, row, image->tail->bytes + row->offset, to);
			to += row->size;
		}
	}
	*ret_changes = image->changes;
	*ret_n = image->n_changes;
	return 0;
}

/* Every changed byte as it is in the image now (R7). */
static int read_back(struct gclk_image *image, struct gclk_error *reterr)
{
	const struct gclk_window *window;
	uint8_t bytes[PATCH_MAX];
	int r = gclk_container_window(image->container, GCLK_VIEW_CURRENT, &window, reterr);

	for (unsigned i = 0; r == 0 && i < image->n_changes; i++) {
		const struct gclk_patch *patch = &image->patches[i];

		r = gclk_window_read(window, patch->offset, bytes, patch->n_new, reterr);
		if (r == 0 && memcmp(bytes, patch->new_bytes, patch->n_new)) {
			return gclk_fail(reterr, GCLK_UNPROVEN, image->changes[i].section,
					 patch->offset, "%s reads back other than it was written",
					 image->changes[i].field);
		}
	}
	return r < 0 ? gclk_fail(reterr, GCLK_UNPROVEN, NULL, GCLK_NO_OFFSET,
				 "what was written could not be read back") : 0;
}

GCLK_API int gclk_image_patch(struct gclk_image *image, const struct gclk_plan *plan,
			      const void *payload, size_t payload_size, struct gclk_error *reterr)
{
	const struct gclk_image_change *changes;
	unsigned n;
	int r;

	if (image->asker) {
		return gclk_asker_patch(image->asker, plan, payload, payload_size, reterr);
	}
	r = gclk_image_encode(image, plan, &changes, &n, reterr);
	if (r < 0) {
		return r;
	}
	if (!image->info->in_place) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, image->path, GCLK_NO_OFFSET,
				 "a %s image cannot be rewritten in place; write a copy (-o)",
				 gclk_image_compression(image));
	}
	r = gclk_container_rewrite(image->container, image->patches, n, payload, payload_size,
				   reterr);
	image->late = false;
	return r < 0 ? r : read_back(image, reterr);
}

/* The bytes that any plan may change, as one range of the tail. */
static void span_of(const struct gclk_image *image, uint32_t *ret_begin, uint32_t *ret_end)
{
	uint32_t begin = UINT32_MAX, end = 0;

	for (size_t i = 0; i < image->bindings.n; i++) {
		const struct gclk_located *row = &image->bindings.rows[i];

		begin = GCLK_MIN(begin, row->offset);
		end = GCLK_MAX(end, row->offset + row->size);
	}
	*ret_begin = GCLK_MIN(begin, end);
	*ret_end = end;
}

GCLK_API void gclk_image_late_span(struct gclk_image *image, struct gclk_image_span *ret)
{
	uint64_t tail;
	uint32_t begin, end;

	if (image->asker) {
		gclk_asker_span(image->asker, ret);
		return;
	}
	tail = image->info->stream_offset + image->tail->offset;
	span_of(image, &begin, &end);
	ret->begin = tail + begin;
	ret->end = tail + end;
	ret->stream_end = tail + image->tail->size;
}

/* The original span with what the last gclk_image_encode() changes laid over it. */
static int make_span(struct gclk_image *image, struct gclk_patch *ret, struct gclk_error *reterr)
{
	uint32_t begin, end;

	span_of(image, &begin, &end);
	if (!image->span) {
		image->span = malloc((size_t)(end - begin) + 1);
	}
	if (!image->span) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	*ret = (struct gclk_patch){
		.offset = image->tail->offset + begin,
		.n_old = end - begin,
		.n_new = end - begin,
		.old_bytes = image->tail->bytes + begin,
		.new_bytes = image->span,
	};
	memcpy(image->span, ret->old_bytes, ret->n_old);
	for (unsigned i = 0; i < image->n_changes; i++) {
		const struct gclk_patch *patch = &image->patches[i];

		memcpy(image->span + (patch->offset - ret->offset), patch->new_bytes,
		       patch->n_new);
	}
	return 0;
}

static int encode_span(struct gclk_image *image, const struct gclk_plan *plan,
		       struct gclk_patch *ret, struct gclk_error *reterr)
{
	const struct gclk_image_change *changes;
	unsigned n;
	int r = gclk_image_encode(image, plan, &changes, &n, reterr);

	return r < 0 ? r : make_span(image, ret, reterr);
}

GCLK_API int gclk_image_late_begin(struct gclk_image *image, const struct gclk_plan *plan,
				   const void *payload, size_t payload_size,
				   struct gclk_image_span *ret_span, struct gclk_error *reterr)
{
	struct gclk_patch range;
	int r;

	if (image->asker) {
		return gclk_asker_late_begin(image->asker, plan, payload, payload_size, ret_span,
					     reterr);
	}
	r = encode_span(image, plan, &range, reterr);
	if (r < 0) {
		return r;
	}
	if (!image->info->in_place || image->info->snapshot) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, image->path, GCLK_NO_OFFSET,
				 "a %s image cannot be rewritten while it is loaded",
				 image->info->snapshot ? "qcow2" : gclk_image_compression(image));
	}
	r = gclk_container_rewrite_open(image->container, &range, payload, payload_size, reterr);
	if (r < 0) {
		return r;
	}
	gclk_image_late_span(image, ret_span);
	image->late = true;
	return read_back(image, reterr);
}

GCLK_API void gclk_image_late_gate(struct gclk_image *image, const struct gclk_late_gate *gate)
{
	image->gate = *gate;
}

int gclk_gate_open(const struct gclk_late_gate *gate, struct gclk_error *reterr)
{
	return gate && gate->may && gate->may(gate->ctx) ?
		       gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "not now") : 0;
}

void gclk_gate_close(const struct gclk_late_gate *gate)
{
	if (gate && gate->done) {
		gate->done(gate->ctx);
	}
}

GCLK_API int gclk_image_late_write(struct gclk_image *image, const struct gclk_plan *plan,
				   struct gclk_error *reterr)
{
	struct gclk_patch range;
	int r;

	if (image->asker) {
		return gclk_asker_late_write(image->asker, plan, &image->gate, reterr);
	}
	if (!image->late) {
		return gclk_fail(reterr, GCLK_STATE, image->path, GCLK_NO_OFFSET,
				 "no late rewriting has begun");
	}
	r = encode_span(image, plan, &range, reterr);
	r = r < 0 ? r : gclk_gate_open(&image->gate, reterr);
	if (r < 0) {
		return r;
	}
	r = gclk_container_overwrite(image->container, range.offset, range.new_bytes,
				     range.n_new, reterr);
	gclk_gate_close(&image->gate);
	return r;
}

static int make_copy(struct gclk_image *image, const struct gclk_plan *plan,
		     const void *payload, size_t payload_size, struct gclk_copy *ret,
		     struct gclk_error *reterr)
{
	const struct gclk_image_change *changes;
	unsigned n;
	int r = gclk_image_encode(image, plan, &changes, &n, reterr);

	if (r == 0) {
		*ret = (struct gclk_copy){ .patches = image->patches, .n_patches = n,
					   .payload = payload, .n_payload = payload_size,
					   .replace = true, .plain = image->plain,
					   .progress = image->progress };
	}
	return r;
}

GCLK_API int gclk_image_write(struct gclk_image *image, const struct gclk_plan *plan,
			      const void *payload, size_t payload_size, const char *out_path,
			      struct gclk_error *reterr)
{
	struct gclk_copy copy;
	int r;

	if (image->asker) {
		return gclk_asker_write(image->asker, plan, payload, payload_size, out_path,
					reterr);
	}
	r = make_copy(image, plan, payload, payload_size, &copy, reterr);
	return r < 0 ? r : gclk_container_copy(image->container, out_path, &copy, reterr);
}

int gclk_image_write_fd(struct gclk_image *image, const struct gclk_plan *plan,
			const void *payload, size_t payload_size, int fd,
			struct gclk_error *reterr)
{
	struct gclk_copy copy;
	int r = make_copy(image, plan, payload, payload_size, &copy, reterr);

	return r < 0 ? r : gclk_container_copy_fd(image->container, fd, &copy, reterr);
}

/* An image whose record is torn needs the end of its stream, which only a walk finds. */
static int tell_end(struct gclk_container *container, struct gclk_error *reterr)
{
	const struct gclk_window *window;
	struct gclk_tail *tail;
	int r = gclk_container_window(container, GCLK_VIEW_CURRENT, &window, reterr);

	if (r == 0) {
		r = gclk_tail_read(window, window->size, NULL, &tail, reterr);
	}
	if (r == 0) {
		if (tail->walked) {
			gclk_container_set_end(container, tail->offset + tail->size);
		}
		gclk_tail_free(tail);
	}
	return r;
}

int gclk_undo_inside(struct gclk_container *container, struct gclk_error *reterr)
{
	const struct gclk_undo *undo = NULL;
	bool in_place = gclk_container_info(container)->in_place;
	int r = in_place ? tell_end(container, reterr) : 0;

	r = r < 0 ? r : gclk_container_undo(container, &undo, NULL, reterr);
	if (r == 0 && (!in_place ||
		       gclk_patches_change_length(undo->patches, undo->n_patches))) {
		return GCLK_UNDO_BY_COPY;
	}
	/* a torn record is no record, but is taken away */
	return r < 0 || !in_place ? r : gclk_container_revert(container, reterr);
}

GCLK_API int gclk_image_undo(const char *path, const struct gclk_image_options *options,
			     int *ret_undone, struct gclk_error *reterr)
{
	struct gclk_container_options how = { .writable = true,
					      .snapshot = options ? options->snapshot : NULL };
	struct gclk_container *container;
	int r;

	if (options && options->worker) {
		return gclk_asker_undo(path, options, ret_undone, reterr);
	}
	r = gclk_container_open(path, &how, &container, reterr);
	if (r < 0) {
		return r;
	}
	if (gclk_container_info(container)->in_place) {
		r = tell_end(container, reterr);
		if (r == 0) {
			r = gclk_container_revert(container, reterr);
		}
	} else {
		/* compressed: the copy without patches is the captured image */
		struct gclk_copy copy = { .replace = true };

		r = gclk_container_undo(container, &(const struct gclk_undo *){ NULL }, NULL, reterr);
		if (r == 0) {
			r = gclk_container_copy(container, path, &copy, reterr);
		}
	}
	if (r >= 0) {
		*ret_undone = r != GCLK_UNDO_NONE;
		r = 0;
	}
	gclk_container_free(container);
	return r;
}
