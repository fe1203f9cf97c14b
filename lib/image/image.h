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

/* Of a live stream (filter.c) there is no container, and what is opened from it is NULL. */
struct gclk_image {
	char *path;
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
};

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
