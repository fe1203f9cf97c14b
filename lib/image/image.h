/* SPDX-License-Identifier: MIT */
/* An open image, as its parts share it. */
#ifndef GCLK_IMAGE_IMAGE_H
#define GCLK_IMAGE_IMAGE_H

#include <stdbool.h>

#include <guestclock/image.h>

#include "core/pvclock.h"
#include "image/container.h"
#include "image/qemu/bindings.h"
#include "image/qemu/tail.h"

#define GCLK_EVIDENCE_MAX 4

struct gclk_asker;

/* Of a live stream (filter.c) there is no container, and what is opened from it is NULL. */
struct gclk_image {
	char *path;
	struct gclk_asker *asker;		/* another process has the rest; state, domain, evidence are here */
	struct gclk_container *container;
	const struct gclk_container_info *info;
	struct gclk_tail *tail;			/* of the original stream */
	struct gclk_state *state;
	struct gclk_bindings bindings;
	struct gclk_domain domain;
	bool has_domain;
	struct gclk_evidence evidence[GCLK_EVIDENCE_MAX];
	unsigned n_evidence;
	struct gclk_progress progress;
	bool plain;				/* copies without compression */

	/* the last answer of gclk_image_encode(), and the text of its names */
	struct gclk_image_change *changes;
	struct gclk_patch *patches;
	uint8_t *bytes;
	unsigned n_changes;
	char (*names)[2][96];
	char source_names[2][96];

	/* of a late rewriting: everything between the first and the last clock's field */
	uint8_t *span;
	bool late;
	struct gclk_late_gate gate;
};

/* Before and after the write that it is for; NULL: there is none. Errors: GCLK_STATE, not now */
int gclk_gate_open(const struct gclk_late_gate *gate, struct gclk_error *reterr);
void gclk_gate_close(const struct gclk_late_gate *gate);

/* A file that somebody else has opened, for worker/work.c. */
struct gclk_image_inside {
	int fd;
	const char *name;			/* for messages */
	const struct gclk_io *io;		/* by which it is written; NULL: it is not */
};
int gclk_image_open_inside(const struct gclk_image_inside *inside,
			   const struct gclk_image_options *options, struct gclk_image **ret,
			   struct gclk_error *reterr);

/* Where the device state begins that a filter holds whole. */
uint64_t gclk_filter_tail_offset(const struct gclk_filter *filter);

/* As gclk_stream_grant() and gclk_stream_went(); of a filter that is not another process's. */
void gclk_filter_grant(const struct gclk_filter *filter, struct gclk_grant *ret);
void gclk_filter_went(struct gclk_filter *filter, uint64_t n, uint64_t rest);

/* gclk_image_write() into an empty file that has no name yet. */
int gclk_image_write_fd(struct gclk_image *image, const struct gclk_plan *plan,
			const void *payload, size_t payload_size, int fd,
			struct gclk_error *reterr);

/* gclk_image_undo() in place: 0, GCLK_UNDO_NONE, or that only a copy without patches does. */
#define GCLK_UNDO_BY_COPY 2
int gclk_undo_inside(struct gclk_container *container, struct gclk_error *reterr);

int gclk_snapshots_of(int fd, const char *name, struct gclk_snapshot *ret, unsigned max,
		      struct gclk_error *reterr);

/* From image->tail to image->state and the rows that encode it. */
int gclk_image_read_state(struct gclk_image *image, struct gclk_error *reterr);

/* evidence.c: what the image tells about the instant of the stop, best first. */
void gclk_image_find_evidence(struct gclk_image *image);

/*
 * page-clock.c: how long after the stop the paravirtual clock was read, from the
 * guest's own page. One pass over the RAM. Fills vcpu[0].pvclock_* and
 * kvmclock.read_after_stop_ns where it succeeds; what is not there is no error.
 */
int gclk_image_find_page_clock(struct gclk_image *image, struct gclk_error *reterr);

/* Where that page is; false: it is not needed, or not in the RAM. */
bool gclk_image_page_clock_place(const struct gclk_image *image,
				 const struct gclk_stream_block **ret_block, uint64_t *ret_offset);
/* And what stands there. */
void gclk_image_keep_page_clock(struct gclk_image *image,
				const uint8_t bytes[GCLK_PVCLOCK_BYTES]);

#endif
