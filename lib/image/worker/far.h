/* SPDX-License-Identifier: MIT */
/*
 * A live stream whose filter runs in a worker (struct gclk_filter_options, .worker).
 *
 * The bytes stay here. They are read into a room that the worker can see and cannot write;
 * it says of each piece how much passes and how much is held, and held bytes are kept here.
 * With each answer it grants what of the following may go without asking (qemu/grant.h), so
 * that whole pages of memory cost neither side anything. When the state is whole it says what the state is, and of a plan which bytes of the held
 * ones become which others: nothing else of a stream can be changed by it.
 *
 *	ask: op, place and length in the room, what went by the last grant ->
 *				<- answer: result, phase, passed, held, grant; a frame may follow
 */
#ifndef GCLK_IMAGE_WORKER_FAR_H
#define GCLK_IMAGE_WORKER_FAR_H

#include "image/qemu/grant.h"
#include "image/worker/facts.h"

#define GCLK_FAR_ROOM_BYTES (UINT32_C(1) << 18)
#define GCLK_FAR_FINDINGS 2

enum gclk_far_op {
	GCLK_FAR_PUSH = 1,		/* with READY and OFF facts follow, as for ... */
	GCLK_FAR_QUIET,
	GCLK_FAR_END,
	GCLK_FAR_FACTS,			/* ... this: answered by struct gclk_far_facts and, if known, a state */
	GCLK_FAR_PATCH,			/* a frame with a state follows; answered by patches */
};

struct gclk_far_options {
	uint64_t tail_bytes;
	uint8_t unreadable, one_way, want_page_clock;
};

struct gclk_far_ask {
	uint32_t op, n;
	uint64_t at;			/* in the room */
	uint64_t went, rest;		/* by the grant; what is left of its .rest */
};

struct gclk_far_answer {
	int32_t result;			/* negative: a frame with a struct gclk_error follows */
	uint32_t phase;			/* enum gclk_filter_phase */
	uint64_t passed, held;
	uint64_t rest, below;		/* the grant, as struct gclk_grant has it */
	struct gclk_page_watch watch;
};

struct gclk_far_facts {
	int32_t was_running;
	uint8_t has_state, has_uuid;
	uint8_t uuid[16];
	char machine[256];
	uint32_t n_findings;
	struct {
		char id[40];
		char message[360];
	} findings[GCLK_FAR_FINDINGS];
};

struct gclk_far_patch {
	struct gclk_said_change change;
	uint64_t at;			/* in what is held */
	uint8_t bytes[256];
};

/* Fixed sizes, both ways; false: the other end is gone, or, with errno EAGAIN, silent. */
bool gclk_far_send(int socket, const void *bytes, size_t n);
bool gclk_far_receive(int socket, void *bytes, size_t n);

/* ---- in the worker ---- */

/* Until the other end is done; @room_fd can be mapped for reading. */
int gclk_far_work(int socket, int room_fd, const struct gclk_far_options *how);

/* In the worker: what it will touch is in memory when the stream comes. */
void gclk_far_get_ready(void);

/* ---- here ---- */

struct gclk_far;

int gclk_far_new(const struct gclk_filter_options *options, struct gclk_far **ret,
		 struct gclk_error *reterr);
struct gclk_far *gclk_far_free(struct gclk_far *far);
void *gclk_far_room(struct gclk_far *far);
int gclk_far_push(struct gclk_far *far, const void *bytes, size_t n, bool most,
		  size_t *ret_pass, size_t *ret_held, struct gclk_error *reterr);
int gclk_far_quiet(struct gclk_far *far, struct gclk_error *reterr);
int gclk_far_end(struct gclk_far *far, struct gclk_error *reterr);
const struct gclk_state *gclk_far_state(const struct gclk_far *far);
const struct gclk_findings *gclk_far_findings(const struct gclk_far *far);
enum gclk_filter_phase gclk_far_phase(const struct gclk_far *far);
uint64_t gclk_far_offset(const struct gclk_far *far);
int gclk_far_was_running(const struct gclk_far *far);
const char *gclk_far_machine(struct gclk_far *far);
int gclk_far_uuid(struct gclk_far *far, uint8_t ret[16]);
int gclk_far_apply(struct gclk_far *far, const struct gclk_plan *plan, const uint8_t **ret_bytes,
		   size_t *ret_n, struct gclk_error *reterr);
unsigned gclk_far_changes(const struct gclk_far *far, const struct gclk_image_change **ret);

/* ---- for tests: what is believed ---- */

int gclk_take_far_facts(struct gclk_rest *rest, struct gclk_far_facts *ret,
			struct gclk_error *reterr);
/* Laid over @held, @n bytes. */
int gclk_take_far_patches(struct gclk_rest *rest, uint8_t *held, size_t n,
			  struct gclk_far_patch **ret, unsigned *ret_n, struct gclk_error *reterr);
bool gclk_far_answer_holds(const struct gclk_far_answer *answer, size_t n);

#endif
