/* SPDX-License-Identifier: MIT */
/*
 * Plain files: their facts, their locks, copies of them that appear whole or not
 * at all.
 */
#ifndef GCLK_IMAGE_RAW_H
#define GCLK_IMAGE_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <guestclock/error.h>

#include "image/compress.h"

/* Realtime instants; a file system that has no birth time leaves it 0. */
struct gclk_file_facts {
	bool regular;
	bool has_birth;
	int64_t birth_ns, mtime_ns;
	uint64_t bytes;			/* 0 where not regular */
	uint32_t mode;			/* permission bits */
	uint32_t uid, gid;
	uint64_t device, inode;
};

int gclk_file_facts(int fd, struct gclk_file_facts *ret, struct gclk_error *reterr);

/**
 * gclk_file_lock() - hold a file as QEMU would that shares it with nobody
 * @fd:		regular, open for reading and writing; the locks last until it, and
 *		every duplicate of it, is closed
 *
 * QEMU says with a shared lock on byte 100 + i that it uses permission i, and with
 * one on byte 200 + i that it bears no other user of it (i: 0 consistent read, 1
 * write, 2 write unchanged, 3 resize). Open file description locks, as QEMU's.
 *
 * Errors: STATE when somebody else has the file open so: a domain is on.
 */
int gclk_file_lock(int fd, const char *name, struct gclk_error *reterr);

/* Told from time to time; a positive return cancels with GCLK_STATE. */
struct gclk_progress {
	int (*report)(void *ctx, uint64_t done, uint64_t total);	/* total 0: unknown */
	void *ctx;
};

/*
 * A file that is being written. It has no name, or a hidden one beside the place
 * where it will stand, until gclk_output_commit() gives it its own.
 */
struct gclk_output {
	int fd;				/* open for reading and writing */
	char *path;			/* final; symbolic links resolved */
	char *temporary;		/* NULL: has no name yet */
	uint64_t bytes;			/* written so far by gclk_output_write() */
	uint64_t flushed;		/* of these, handed to the disk */
	bool sync;			/* it shall be on the disk when it gets its name */
};

/**
 * gclk_output_open() - begin
 * @path:	where it will stand
 * @like:	a file whose owner, mode, extended attributes and label it takes as far
 *		as the process may; -1: mode 0600
 *
 * A file that takes another's place is on the disk before it does (.sync is set), or a
 * power cut could leave neither. A new one is not waited for: what it is made from is
 * still there. The caller may set .sync before the first byte.
 *
 * Errors: GCLK_UNSUPPORTED where something else than a regular file stands there.
 */
int gclk_output_open(const char *path, int like, struct gclk_output *ret,
		     struct gclk_error *reterr);
/* Appends; for struct gclk_sink. */
int gclk_output_write(void *output, const void *buf, size_t n, struct gclk_error *reterr);
/* Appends bytes of a file, in the kernel where it can; holes stay holes. */
int gclk_output_copy(struct gclk_output *output, int fd, uint64_t offset, uint64_t n,
		     const struct gclk_progress *progress, struct gclk_error *reterr);
/**
 * gclk_output_commit() - complete, under its name; with .sync on disk, and the name too
 * @replace:	false: a file that is already there is an error (STATE)
 */
int gclk_output_commit(struct gclk_output *output, bool replace, struct gclk_error *reterr);
/* Leaves nothing behind unless committed; harmless after it. */
void gclk_output_close(struct gclk_output *output);

/* Sequential reading of a descriptor from where it stands; regular files and pipes. */
struct gclk_source gclk_source_fd(int *fd);

#endif
