/* SPDX-License-Identifier: MIT */
/* What container.c and copy.c share. */
#ifndef GCLK_IMAGE_CONTAINER_PRIVATE_H
#define GCLK_IMAGE_CONTAINER_PRIVATE_H

#include "image/container.h"
#include "image/sequential.h"

#define GCLK_CONTAINER_PEEK 64

struct gclk_container {
	int fd;
	bool owns_fd;
	char *path;			/* NULL when opened by descriptor */
	char *name;			/* for messages */
	struct gclk_container_info info;
	struct gclk_progress progress;
	bool writable;
	struct gclk_libvirt_save libvirt;
	struct gclk_qcow2 *qcow2;
	struct gclk_output spool;	/* fd -1: none */
	bool sync;			/* outputs are to be on the disk */

	/* The file, and where the stream is at hand, the stream with what follows it. */
	struct gclk_io file;
	struct gclk_io_part part;
	struct gclk_io stream;

	/* Forwards: from the file or pipe, perhaps decompressed. */
	uint8_t peeked[GCLK_CONTAINER_PEEK];	/* of a pipe: read, not handed out */
	size_t n_peeked, peeked_at;
	bool pipe_used;
	uint64_t at;			/* of a file: next byte */
	struct gclk_decompressor *decompressor;
	struct gclk_source source;

	/* The whole of the stream and what follows it, as a window. */
	bool loaded;
	struct gclk_sequential sequential;
	struct gclk_window all;

	/* What is known of an earlier rewriting. */
	uint64_t stream_end;
	bool looked;
	int look_result;		/* of gclk_undo_find() */
	struct gclk_error look_error;
	struct gclk_undo undo;
	struct gclk_window current, original;
};

/* Fills c->all; of what is not at hand that is a pass over it. */
int gclk_container_load(struct gclk_container *c, struct gclk_error *reterr);

/* Finds the record, once: 0, GCLK_UNDO_NONE, or why it is not usable. */
int gclk_container_look(struct gclk_container *c, struct gclk_error *reterr);

/* After the file has changed. */
void gclk_container_forget(struct gclk_container *c);

/* Size of the captured stream, with what followed it already then. */
uint64_t gclk_container_original_size(const struct gclk_container *c);

/* Everything that forbids writing these, beyond what gclk_undo_apply() checks itself. */
int gclk_container_check_writable(struct gclk_container *c, const struct gclk_patch *patches,
				  size_t n_patches, size_t n_payload,
				  struct gclk_error *reterr);

#endif
