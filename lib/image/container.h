/* SPDX-License-Identifier: MIT */
/*
 * Containers: the files in which QEMU's migration stream is found. Each gives the
 * stream as one window of bytes, says what it knows besides, and can be rewritten.
 *
 *	content begins with	kind		stream
 *	QEVM			stream		the file
 *	LibvirtQemudSave	libvirt		behind header and XML, perhaps compressed
 *	QFI 0xfb		qcow2		in a snapshot's vm state
 *	gzip, bzip2, xz,	stream		the file, decompressed (virsh dump)
 *	zstd, lzop
 *
 * What came behind the stream of an image that was rewritten before, our own
 * record, is no part of a window; image/record.h says what it holds.
 */
#ifndef GCLK_IMAGE_CONTAINER_H
#define GCLK_IMAGE_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#include "image/compress.h"
#include "image/libvirt-save.h"
#include "image/qcow2.h"
#include "image/raw.h"
#include "image/record.h"
#include "image/window.h"

enum gclk_container_kind {
	GCLK_CONTAINER_STREAM,
	GCLK_CONTAINER_LIBVIRT,
	GCLK_CONTAINER_QCOW2,
};

/* "qemu-stream", "libvirt-save", "qcow2-snapshot": the words of the JSON. */
const char *gclk_container_kind_name(enum gclk_container_kind kind);

/* What a file that begins with these bytes (16 suffice) may be; not proven yet. */
bool gclk_container_probe(const void *bytes, size_t n);

struct gclk_container_options {
	bool writable;			/* for in-place rewriting: takes QEMU's locks */
	bool defer_snapshot;		/* qcow2: list only, choose later or never */
	const char *snapshot;		/* qcow2: id or name; NULL: the only one */
	/*
	 * A pipe can be read once. With this set it is first copied into an unnamed
	 * file beside this path (where the result will stand), and is then as good as
	 * a file.
	 */
	const char *spool_beside;
	/* By which the file is written, where its descriptor cannot be; then nothing is locked. */
	const struct gclk_io *io;
	bool sync;			/* copies are on the disk when they get their name */
	struct gclk_progress progress;	/* of passes over the whole; may be empty */
};

struct gclk_container_info {
	enum gclk_container_kind kind;
	enum gclk_compression compression;
	bool random_access;		/* cheap reads anywhere: not compressed, not a pipe */
	bool pipe;			/* can be read once, forwards */
	bool in_place;			/* can be rewritten so, as far as the kind goes */
	uint64_t stream_offset;		/* in the file; of a qcow2 the guest offset */
	struct gclk_file_facts file;
	const struct gclk_libvirt_save *libvirt;	/* NULL unless of that kind */
	const struct gclk_qcow2_snapshot *snapshots;	/* qcow2: all of them */
	size_t n_snapshots;
	const struct gclk_qcow2_snapshot *snapshot;	/* qcow2: the chosen one */
};

struct gclk_container;

/**
 * gclk_container_open() - recognise a file by its content
 * @path:	a file, or a fifo
 * @options:	NULL: read only
 *
 * Errors: UNSUPPORTED with the reason for what is recognised and cannot be read
 * (mapped-ram, encryption, ...), MALFORMED for what is not recognised, STATE for an
 * incomplete save image and for a file that is in use.
 */
int gclk_container_open(const char *path, const struct gclk_container_options *options,
			struct gclk_container **ret, struct gclk_error *reterr);

/**
 * gclk_container_open_fd() - the same from a descriptor
 * @fd:		stays the caller's; must stay open
 * @name:	for messages: "standard input"
 */
int gclk_container_open_fd(int fd, const char *name,
			   const struct gclk_container_options *options,
			   struct gclk_container **ret, struct gclk_error *reterr);
/* NULL is fine; returns NULL. */
struct gclk_container *gclk_container_free(struct gclk_container *c);

/* Borrowed until the free. */
const struct gclk_container_info *gclk_container_info(const struct gclk_container *c);

/* CURRENT: what a hypervisor would load. ORIGINAL: as captured, before any rewriting (R9). */
enum gclk_view { GCLK_VIEW_CURRENT, GCLK_VIEW_ORIGINAL };

/**
 * gclk_container_window() - the stream as random-access bytes
 * @ret:	borrowed until the free; its size ends before a record of ours
 *
 * Of compressed images and pipes this reads all of it once and keeps the first
 * GCLK_CONTAINER_HEAD and the last GCLK_CONTAINER_TAIL bytes. Reads in between
 * decompress again, cheap only if they go forwards; of a pipe they fail (STATE).
 *
 * Errors: those of reading; MALFORMED for ORIGINAL when the record does not match.
 */
#define GCLK_CONTAINER_HEAD (UINT32_C(1) << 16)
#define GCLK_CONTAINER_TAIL (UINT32_C(24) << 20)
int gclk_container_window(struct gclk_container *c, enum gclk_view view,
			  const struct gclk_window **ret, struct gclk_error *reterr);

/**
 * gclk_container_source() - the stream, forwards, from its first byte
 * @ret:	borrowed until the free or the next call
 *
 * As a hypervisor would load it, with what follows the stream. Of a pipe once only
 * and not after gclk_container_window() (STATE).
 */
int gclk_container_source(struct gclk_container *c, const struct gclk_source **ret,
			  struct gclk_error *reterr);

/**
 * gclk_container_set_end() - tell where the stream ends
 * @stream_end:	offset behind the last byte of the vmdesc
 *
 * Needed only when the tail was not where the window ends, so that the stream was
 * walked: then a record before a torn one is found.
 */
void gclk_container_set_end(struct gclk_container *c, uint64_t stream_end);

/**
 * gclk_container_undo() - the record of an earlier rewriting
 * @ret:	borrowed until the container is written or freed
 * @ret_state:	may be NULL
 *
 * Returns 0, or GCLK_UNDO_NONE. Errors: MALFORMED when it does not match its bytes.
 */
int gclk_container_undo(struct gclk_container *c, const struct gclk_undo **ret,
			enum gclk_undo_state *ret_state, struct gclk_error *reterr);

/**
 * gclk_container_rewrite() - in place
 * @c:		opened writable, info->in_place
 * @patches:	against GCLK_VIEW_ORIGINAL
 * @payload:	for the record, may be NULL
 *
 * As gclk_undo_apply(). Windows and undo records that were borrowed are stale then.
 */
int gclk_container_rewrite(struct gclk_container *c, const struct gclk_patch *patches,
			   size_t n_patches, const void *payload, size_t n_payload,
			   struct gclk_error *reterr);

/* The same with one range that stays open, as gclk_undo_apply_open(); not in a qcow2. */
int gclk_container_rewrite_open(struct gclk_container *c, const struct gclk_patch *range,
				const void *payload, size_t n_payload,
				struct gclk_error *reterr);

/* Bytes within the range of an open record: one write, not waited for. */
int gclk_container_overwrite(struct gclk_container *c, uint64_t offset, const void *bytes,
			     size_t n, struct gclk_error *reterr);

/* As gclk_undo_revert(): 0, or GCLK_UNDO_NONE. */
int gclk_container_revert(struct gclk_container *c, struct gclk_error *reterr);

struct gclk_copy {
	const struct gclk_patch *patches;	/* against GCLK_VIEW_ORIGINAL */
	size_t n_patches;
	const void *payload;			/* for the record */
	size_t n_payload;
	bool replace;				/* the output may exist */
	bool plain;				/* libvirt: without compression */
	struct gclk_progress progress;
};

/**
 * gclk_container_copy() - a rewritten copy, in the same container and compression
 * @out_path:	may be the input's own path, with replace
 *
 * Starts from the original; without effective patches the copy is the captured
 * image. The input is not touched. Until all is on disk, nothing has @out_path's
 * name; on failure nothing is left behind. Owner, group, mode and extended
 * attributes follow the input as far as the process may set them.
 *
 * Errors: MALFORMED with the offset where old bytes do not match; SYS; STATE when
 * cancelled or when the output exists.
 */
int gclk_container_copy(struct gclk_container *c, const char *out_path,
			const struct gclk_copy *copy, struct gclk_error *reterr);

/* The same into an empty file, which is left to the caller to name. */
int gclk_container_copy_fd(struct gclk_container *c, int fd, const struct gclk_copy *copy,
			   struct gclk_error *reterr);

/* Do patches change the length? Only a copy can then be made, or taken back. */
bool gclk_patches_change_length(const struct gclk_patch *patches, size_t n_patches);

#endif
