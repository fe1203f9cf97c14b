/* SPDX-License-Identifier: MIT */
/*
 * What a process that works on images and its worker say to each other. The worker reads
 * foreign bytes and may be in a stranger's hands: everything that comes from it is length
 * bounded here, and looked at in facts.c before anybody uses it.
 *
 *	u32 type | u32 size | size bytes
 *
 * Both ends are the same program on the same host, so structs travel as they are; the
 * worker's first frame names their sizes. One question at a time: the asker sends it and
 * reads SAY frames until DONE.
 */
#ifndef GCLK_IMAGE_WORKER_FRAMES_H
#define GCLK_IMAGE_WORKER_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

enum gclk_frame_type {
	/* to the worker */
	GCLK_ASK_OPEN = 1,		/* struct gclk_ask_open, with a descriptor */
	GCLK_ASK_FIELDS,
	GCLK_ASK_ENCODE,		/* a state */
	GCLK_ASK_PATCH,			/* a state, then the payload */
	GCLK_ASK_LATE_BEGIN,		/* the same */
	GCLK_ASK_LATE_WRITE,		/* a state */
	GCLK_ASK_COPY,			/* a state, then the payload; with a descriptor */
	GCLK_ASK_UNDO,			/* struct gclk_ask_open, with a descriptor */
	GCLK_ASK_UNDO_COPY,		/* afterwards, with a descriptor for the copy */
	GCLK_ASK_SNAPSHOTS,		/* struct gclk_ask_open, with a descriptor */
	GCLK_ASK_FILTER,		/* struct gclk_far_options, with a room: far.h from here on */
	GCLK_ASK_DOMAIN,		/* a domain's XML; answered by struct gclk_domain */
	GCLK_ASK_READ,			/* u32 what, u32 0, the bytes: for the program's own reader */
	/* to the worker, in answer to its WRITE, SYNC and RESIZE */
	GCLK_TELL_RESULT = 32,		/* struct gclk_error; its status 0: done */
	/* from the worker */
	GCLK_SAY_READY = 64,		/* struct gclk_say_ready */
	GCLK_SAY_PROGRESS,		/* u64 done, u64 total */
	GCLK_SAY_WRITE,			/* u64 offset in the file, the bytes */
	GCLK_SAY_SYNC,
	GCLK_SAY_RESIZE,		/* u64 bytes of the file */
	GCLK_SAY_DONE,			/* i32 result, i32 0, struct gclk_error, the answer */
};

#define GCLK_FRAME_MAX (UINT32_C(64) << 20)

struct gclk_say_ready {
	uint32_t failed;		/* the worker could not be confined: .error says why */
	uint32_t layout;		/* gclk_frames_layout() */
	struct gclk_error error;
};

/* Sizes of what travels as it is, folded together: other programs have others. */
uint32_t gclk_frames_layout(void);

struct gclk_frame {
	uint32_t type, size;
	uint8_t *bytes;			/* malloc()ed */
	int fd;				/* -1: none came with it */
};

/* A piece of a frame that is sent. */
struct gclk_piece {
	const void *bytes;
	size_t n;
};

/**
 * gclk_frame_send() - all of it
 * @fd:		goes along; -1: none
 *
 * Errors: GCLK_PEER when the other end is gone, GCLK_RANGE for more than GCLK_FRAME_MAX.
 */
int gclk_frame_send(int socket, enum gclk_frame_type type, const struct gclk_piece *pieces,
		    unsigned n_pieces, int fd, struct gclk_error *reterr);

/* The same with @before in front of it, which is no frame: the other end is woken once. */
int gclk_frame_send_behind(int socket, struct gclk_piece before, enum gclk_frame_type type,
			   const struct gclk_piece *pieces, unsigned n_pieces,
			   struct gclk_error *reterr);

/**
 * gclk_frame_receive() - the next one
 * @with_fd:	a descriptor may come along; else one that does is not taken
 *
 * Ownership: gclk_frame_free(), which closes a descriptor that is still there. Returns 0,
 * 1 at the end; errors: GCLK_PEER, with errno EAGAIN where nothing came in time;
 * GCLK_NOMEM.
 */
int gclk_frame_receive(int socket, bool with_fd, struct gclk_frame *ret,
		       struct gclk_error *reterr);
void gclk_frame_free(struct gclk_frame *frame);

/* What is left of a frame while it is read. */
struct gclk_rest {
	const uint8_t *at;
	size_t n;
};

/* The next @n bytes, copied. False: there are not so many. */
bool gclk_rest_take(struct gclk_rest *rest, void *to, size_t n);

#endif
