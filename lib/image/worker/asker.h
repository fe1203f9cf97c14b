/* SPDX-License-Identifier: MIT */
/*
 * An image that a worker reads for us (struct gclk_image_options, .worker): what the
 * functions of <guestclock/image.h> do then. Here, where the privileges are, the file is
 * opened, locked, written and named, and nothing of it is read but its head (guard.h).
 */
#ifndef GCLK_IMAGE_WORKER_ASKER_H
#define GCLK_IMAGE_WORKER_ASKER_H

#include "image/image.h"

struct gclk_asker;

/*
 * Starts one and hears that it is ready: confined, and of this release. Its patience holds
 * for all that is sent and received from then on; gclk_worker_is_unhurried() ends that.
 */
int gclk_worker_begin(const struct gclk_worker *worker, struct gclk_worker_process *ret,
		      struct gclk_error *reterr);
void gclk_worker_is_unhurried(const struct gclk_worker_process *process);

/* No frame came or went, errno says how: ends it, and says in one sentence what it was. */
void gclk_worker_lost(const struct gclk_worker *worker, struct gclk_worker_process *process,
		      struct gclk_error *ret_why);

/* Fills @image. Ownership of image->asker: gclk_asker_free(). */
int gclk_asker_open(struct gclk_image *image, const char *path,
		    const struct gclk_image_options *options, struct gclk_error *reterr);
struct gclk_asker *gclk_asker_free(struct gclk_asker *asker);

enum gclk_image_format gclk_asker_format(const struct gclk_asker *asker);
const char *gclk_asker_compression(const struct gclk_asker *asker);
int gclk_asker_was_running(const struct gclk_asker *asker);
uint64_t gclk_asker_digest(const struct gclk_asker *asker);
const void *gclk_asker_record(const struct gclk_asker *asker, size_t *ret_size);
void gclk_asker_span(const struct gclk_asker *asker, struct gclk_image_span *ret);
int gclk_asker_field(struct gclk_asker *asker, unsigned index, struct gclk_source_field *ret);

int gclk_asker_encode(struct gclk_asker *asker, const struct gclk_plan *plan,
		      const struct gclk_image_change **ret_changes, unsigned *ret_n,
		      struct gclk_error *reterr);
int gclk_asker_patch(struct gclk_asker *asker, const struct gclk_plan *plan,
		     const void *payload, size_t n_payload, struct gclk_error *reterr);
int gclk_asker_late_begin(struct gclk_asker *asker, const struct gclk_plan *plan,
			  const void *payload, size_t n_payload, struct gclk_image_span *ret,
			  struct gclk_error *reterr);
int gclk_asker_late_write(struct gclk_asker *asker, const struct gclk_plan *plan,
			  const struct gclk_late_gate *gate, struct gclk_error *reterr);
int gclk_asker_write(struct gclk_asker *asker, const struct gclk_plan *plan,
		     const void *payload, size_t n_payload, const char *out_path,
		     struct gclk_error *reterr);

int gclk_asker_undo(const char *path, const struct gclk_image_options *options,
		    int *ret_undone, struct gclk_error *reterr);

#endif
