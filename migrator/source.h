/* SPDX-License-Identifier: MIT */
/*
 * What the verbs work on: a clock state with all that is known about it, read from
 * an image, a bundle or a bundle in JSON. Which of them it is, the content says.
 */
#ifndef GCLK_MIGRATOR_SOURCE_H
#define GCLK_MIGRATOR_SOURCE_H

#include <guestclock/bundle.h>
#include <guestclock/image.h>

#include "migrator/message.h"
#include "migrator/options.h"

struct source {
	const char *path;
	const char *format;		/* as in JSON: "qemu-stream", ..., "bundle" */
	struct gclk_image *image;	/* NULL: a bundle */
	const struct gclk_state *state; /* as captured; to SOURCE_LOOK, as it stands */
	struct gclk_state *own_state;	/* of a bundle */
	/*
	 * From the bundle itself, or from the record that a rewriting left in the image;
	 * without members where there is none.
	 */
	struct gclk_provenance provenance;
	struct gclk_host host;	     /* where the state was captured */
	struct gclk_rewrite rewrite; /* the last rewriting */
	/* the best evidence; uncertainty_ns is GCLK_UNBOUNDED where there is none */
	struct gclk_instant captured;
	const char *basis; /* "none" then */
	const char *note;  /* may be NULL */
	/*
	 * The instant that .state describes: the same, but of a rewritten image as it
	 * stands the resume that it was rewritten for.
	 */
	struct gclk_instant stands_at;
	struct progress progress;
	char held[32];	/* of source_open_fd(): the way to the file */
};

enum source_use {
	SOURCE_LOOK,   /* quick, never reads the guest's memory; an image as it stands */
	SOURCE_STATE,  /* as captured, with what the guest's own clock page tells */
	SOURCE_COPY,   /* ... and to be copied: o->output says where */
	SOURCE_PLAIN,  /* ... without its compression */
	SOURCE_CHANGE, /* ... and to be changed in place */
	SOURCE_HASTE,  /* the same, without the pass over memory that it may take */
};

/**
 * source_open() - recognise a file and read its clock state
 * @path:	"-" is standard input
 *
 * Returns 0, or the exit code after having said what is wrong. In both cases
 * source_close() it.
 */
int source_open(struct source *source, const char *path, const struct options *o,
		enum source_use use);
/**
 * source_open_fd() - the same for a file that is open already
 * @fd:		stays the caller's, and open as long as the source is
 * @name:	of the file, for messages
 *
 * For whoever has looked at it and means that file, whatever has its name by now.
 */
int source_open_fd(struct source *source, int fd, const char *name, const struct options *o,
		   enum source_use use);
void source_close(struct source *source);

/**
 * source_begin() - the first bytes of a file, which stay in it
 * @path:	"-" is standard input
 */
int source_begin(const char *path, unsigned char *to, size_t size, size_t *ret_n,
		 struct gclk_error *reterr);

/* Leaves out what tells the host where it was captured. Errors: GCLK_NOMEM. */
int source_redact(struct source *source, struct gclk_error *reterr);

/* Whether the image has been rewritten. */
static inline bool source_is_rewritten(const struct source *source)
{
	return source->rewrite.has != 0;
}

/**
 * read_whole() - a file's bytes
 * @path:	"-" is standard input
 * @max:	more is an error
 * @ret:	malloc()ed, one NUL behind the end
 */
int read_whole(const char *path, size_t max, char **ret, size_t *ret_size,
	       struct gclk_error *reterr);

#endif
