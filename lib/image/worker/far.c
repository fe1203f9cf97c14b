/* SPDX-License-Identifier: MIT */
/* The filter of a live stream, on the side that has the stream. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "image/worker/asker.h"
#include "image/worker/far.h"

#define TAIL_BYTES (UINT64_C(24) << 20)		/* as gclk_filter_options has it for 0 */

struct gclk_far {
	struct gclk_worker worker;
	struct gclk_worker_process process;	/* .socket -1: has ended */
	uint8_t *room;
	size_t tail_max;
	enum gclk_filter_phase phase;
	uint64_t offset;
	bool ready, applied, through;
	struct gclk_grant grant;
	struct gclk_page_watch watch;	/* the grant's */
	uint64_t went;			/* by it, since the last answer */
	uint8_t *held, *patched;
	size_t n_held, held_room;
	struct gclk_far_facts facts;
	struct gclk_state *state;
	struct gclk_findings findings;
	struct gclk_error refused;	/* why the phase is that */
	struct gclk_far_patch *patches;
	struct gclk_image_change *changes;
	unsigned n_changes;
};

/* ---- what is believed ---- */

static int refuse(const char *what, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the confined process that filters the stream answers what cannot be: %s",
			 what);
}

/* No more bytes than it was given; all of them, where it says so. */
bool gclk_far_answer_holds(const struct gclk_far_answer *a, size_t n)
{
	if (a->phase > GCLK_FILTER_REFUSED || a->result < -GCLK_UNPROVEN ||
	    a->result > GCLK_FILTER_OFF || a->passed > n || a->held > n - a->passed ||
	    a->watch.n > GCLK_WATCH_MAX) {
		return false;
	}
	return a->result != GCLK_FILTER_MORE || a->passed + a->held == n;
}

int gclk_take_far_facts(struct gclk_rest *rest, struct gclk_far_facts *ret,
			struct gclk_error *reterr)
{
	if (!gclk_rest_take(rest, ret, sizeof(*ret)) || ret->was_running < -1 ||
	    ret->was_running > 1 || ret->n_findings > GCLK_FAR_FINDINGS) {
		return refuse("facts", reterr);
	}
	ret->has_state = ret->has_state != 0;
	ret->has_uuid = ret->has_uuid != 0;
	gclk_text_tame(ret->machine, sizeof(ret->machine));
	for (unsigned i = 0; i < ret->n_findings; i++) {
		gclk_text_tame(ret->findings[i].id, sizeof(ret->findings[i].id));
		gclk_text_tame(ret->findings[i].message, sizeof(ret->findings[i].message));
		if (!gclk_finding_by_id(ret->findings[i].id)) {
			return refuse("a finding", reterr);
		}
	}
	return 0;
}

int gclk_take_far_patches(struct gclk_rest *rest, uint8_t *held, size_t n,
			  struct gclk_far_patch **ret, unsigned *ret_n, struct gclk_error *reterr)
{
	size_t count = rest->n / sizeof(**ret);
	struct gclk_far_patch *all;

	if (rest->n % sizeof(**ret)) {
		return refuse("a list's length", reterr);
	}
	all = calloc(count + 1, sizeof(*all));
	if (!all) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	gclk_rest_take(rest, all, count * sizeof(*all));
	for (size_t i = 0; i < count; i++) {
		struct gclk_said_change *change = &all[i].change;

		if (change->size > sizeof(all[i].bytes) || all[i].at > n ||
		    change->size > n - all[i].at) {
			free(all);
			return refuse("a change outside of the device state", reterr);
		}
		gclk_text_tame(change->section, sizeof(change->section));
		gclk_text_tame(change->field, sizeof(change->field));
		memcpy(held + all[i].at, all[i].bytes, change->size);
	}
	*ret = all;
	*ret_n = (unsigned)count;
	return 0;
}

/* ---- asking ---- */

static void end_worker(struct gclk_far *f)
{
	if (f->process.socket >= 0) {
		f->worker.stop(f->worker.ctx, &f->process, false, NULL);
		f->process.socket = -1;
	}
}

/* From now on nothing else is answered. */
static int refuse_all(struct gclk_far *f, const struct gclk_error *why,
		      struct gclk_error *reterr)
{
	f->phase = GCLK_FILTER_REFUSED;
	f->refused = *why;
	if (reterr) {
		*reterr = *why;
	}
	return -why->status;
}

static int refused(const struct gclk_far *f, struct gclk_error *reterr)
{
	if (reterr) {
		*reterr = f->refused;
	}
	return -f->refused.status;
}

static int lost(struct gclk_far *f, struct gclk_error *reterr)
{
	struct gclk_error error;
	struct gclk_error why = { .message = "the confined process that filters has ended" };

	if (f->process.socket >= 0) {
		gclk_worker_lost(&f->worker, &f->process, &why);
	}
	gclk_fail(&error, GCLK_PEER, NULL, f->offset, "%s", why.message);
	return refuse_all(f, &error, reterr);
}

/* @r: has said so in @reterr, if there is one. */
static int misbehaved(struct gclk_far *f, int r, const struct gclk_error *reterr)
{
	const struct gclk_error why = { .status = -r, .offset = GCLK_NO_OFFSET,
					.message = "the confined process that filters the stream "
						   "misbehaved" };

	end_worker(f);
	return refuse_all(f, reterr ? reterr : &why, NULL);
}

static int take_error(struct gclk_far *f, int result, struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_error said;
	int r = gclk_frame_receive(f->process.socket, false, &frame, NULL);

	if (r || frame.size != sizeof(said)) {
		errno = r ? errno : EPROTO;
		gclk_frame_free(&frame);
		return lost(f, reterr);
	}
	memcpy(&said, frame.bytes, sizeof(said));
	gclk_frame_free(&frame);
	gclk_text_tame(said.where, sizeof(said.where));
	gclk_text_tame(said.message, sizeof(said.message));
	said.status = -result;
	if (f->phase == GCLK_FILTER_REFUSED) {
		return refuse_all(f, &said, reterr);
	}
	if (reterr) {
		*reterr = said;
	}
	return result;
}

static void take_grant(struct gclk_far *f, const struct gclk_far_answer *answer)
{
	f->watch = answer->watch;
	f->grant = (struct gclk_grant){ answer->rest, answer->below, &f->watch };
	f->went = 0;
}

/* With a plan its state goes behind it, in one piece. */
static bool send_ask(const struct gclk_far *f, const struct gclk_far_ask *ask,
		     const struct gclk_plan *plan)
{
	struct gclk_piece pieces[GCLK_STATE_PIECES];
	struct gclk_state scratch;

	if (!plan) {
		return gclk_far_send(f->process.socket, ask, sizeof(*ask));
	}
	gclk_state_pieces(plan->state, &scratch, pieces);
	return gclk_frame_send_behind(f->process.socket,
				      (struct gclk_piece){ ask, sizeof(*ask) }, GCLK_ASK_ENCODE,
				      pieces, GCLK_STATE_PIECES, NULL) == 0;
}

static int ask(struct gclk_far *f, struct gclk_far_ask *ask, const struct gclk_plan *plan,
	       struct gclk_far_answer *ret, struct gclk_error *reterr)
{
	ask->went = f->went;
	ask->rest = f->grant.rest;
	if (f->process.socket < 0 || !send_ask(f, ask, plan) ||
	    !gclk_far_receive(f->process.socket, ret, sizeof(*ret))) {
		return lost(f, reterr);
	}
	if (!gclk_far_answer_holds(ret, ask->n)) {
		return misbehaved(f, refuse("a result", reterr), reterr);
	}
	f->phase = (enum gclk_filter_phase)ret->phase;
	take_grant(f, ret);
	return ret->result < 0 ? take_error(f, ret->result, reterr) : ret->result;
}

/* The frame behind an answer. */
static int frame_behind(struct gclk_far *f, struct gclk_frame *ret, struct gclk_rest *ret_rest,
			struct gclk_error *reterr)
{
	if (gclk_frame_receive(f->process.socket, false, ret, NULL)) {
		return lost(f, reterr);
	}
	*ret_rest = (struct gclk_rest){ ret->bytes, ret->size };
	return 0;
}

static int take_facts(struct gclk_far *f, struct gclk_error *reterr)
{
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r = frame_behind(f, &frame, &rest, reterr);

	if (r < 0) {
		return r;
	}
	r = gclk_take_far_facts(&rest, &f->facts, reterr);
	if (r == 0 && f->facts.has_state && !f->state) {
		r = gclk_take_state(&rest, &f->state, reterr);
	}
	gclk_frame_free(&frame);
	if (r < 0) {
		return misbehaved(f, r, reterr);
	}
	memset(&f->findings, 0, sizeof(f->findings));
	for (unsigned i = 0; i < f->facts.n_findings; i++) {
		gclk_findings_add(&f->findings, f->facts.findings[i].id, "", "%s",
				  f->facts.findings[i].message);
	}
	return 0;
}

static void ask_facts(struct gclk_far *f)
{
	struct gclk_far_ask facts = { .op = GCLK_FAR_FACTS };
	struct gclk_far_answer answer;

	if (f->process.socket >= 0 && ask(f, &facts, NULL, &answer, NULL) >= 0) {
		take_facts(f, NULL);
	}
}

/* ---- the object ---- */

static int make_room(struct gclk_far *f, int *ret_fd, struct gclk_error *reterr)
{
	char self[64];
	int fd = memfd_create("guestclock-stream", MFD_CLOEXEC);
	void *room = MAP_FAILED;

	*ret_fd = -1;
	if (fd >= 0 && ftruncate(fd, GCLK_FAR_ROOM_BYTES) == 0) {
		room = mmap(NULL, GCLK_FAR_ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		*ret_fd = open(self, O_RDONLY | O_CLOEXEC);
	}
	f->room = room == MAP_FAILED ? NULL : room;
	if (!f->room || *ret_fd < 0) {
		gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
			  "no memory that is shared with a confined process: %m");
	}
	if (fd >= 0) {
		close(fd);
	}
	return f->room && *ret_fd >= 0 ? 0 : -GCLK_SYS;
}

static int begin(struct gclk_far *f, const struct gclk_filter_options *options, int room_fd,
		 struct gclk_error *reterr)
{
	struct gclk_far_options how;
	const struct gclk_piece piece = { &how, sizeof(how) };
	int r = gclk_worker_begin(&f->worker, &f->process, reterr);

	if (r < 0) {
		f->process.socket = -1;
		return r;
	}
	memset(&how, 0, sizeof(how));	/* what stood between its members is nobody else's */
	how.tail_bytes = options->tail_bytes;
	how.unreadable = options->unreadable;
	how.one_way = options->one_way;
	how.want_page_clock = options->want_page_clock;
	return gclk_frame_send(f->process.socket, GCLK_ASK_FILTER, &piece, 1, room_fd, reterr);
}

int gclk_far_new(const struct gclk_filter_options *options, struct gclk_far **ret,
		 struct gclk_error *reterr)
{
	struct gclk_far *f = calloc(1, sizeof(*f));
	int fd, r;

	if (!f) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	f->worker = *options->worker;
	f->process.socket = -1;
	f->tail_max = options->tail_bytes ? options->tail_bytes : TAIL_BYTES;
	f->facts.was_running = -1;
	r = make_room(f, &fd, reterr);
	r = r < 0 ? r : begin(f, options, fd, reterr);
	if (fd >= 0) {
		close(fd);
	}
	if (r < 0) {
		gclk_far_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

struct gclk_far *gclk_far_free(struct gclk_far *f)
{
	if (f) {
		end_worker(f);
		if (f->room) {
			munmap(f->room, GCLK_FAR_ROOM_BYTES);
		}
		gclk_state_free(f->state);
		free(f->held);
		free(f->patched);
		free(f->patches);
		free(f->changes);
		free(f);
	}
	return NULL;
}

void *gclk_far_room(struct gclk_far *f)
{
	return f->room;
}

/* ---- pushing ---- */

static int keep(struct gclk_far *f, const uint8_t *bytes, size_t n, struct gclk_error *reterr)
{
	if (!n) {
		return 0;
	}
	if (n > f->tail_max || f->n_held > f->tail_max - n) {
		return misbehaved(f, refuse("it holds more than it may", reterr), reterr);
	}
	if (f->n_held + n > f->held_room) {
		size_t room = GCLK_MAX(2 * f->held_room, f->n_held + n);
		uint8_t *more = realloc(f->held, room);

		if (!more) {
			return misbehaved(f, gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
						       "out of memory"), reterr);
		}
		f->held = more;
		f->held_room = room;
	}
	memcpy(f->held + f->n_held, bytes, n);
	f->n_held += n;
	return 0;
}

/* What a result means for us; it is given on as it is. */
static int settle(struct gclk_far *f, int result, struct gclk_error *reterr)
{
	int r = 0;

	if (result == GCLK_FILTER_READY || result == GCLK_FILTER_OFF) {
		r = take_facts(f, reterr);
	}
	f->ready = r == 0 && result == GCLK_FILTER_READY;
	if (r == 0 && result == GCLK_FILTER_OFF) {
		f->through = true;
		end_worker(f);
	}
	return r < 0 ? r : result;
}

/* One piece in the room. */
static int push_piece(struct gclk_far *f, size_t at, size_t n, size_t *ret_pass,
		      size_t *ret_held, struct gclk_error *reterr)
{
	struct gclk_far_ask push = { .op = GCLK_FAR_PUSH, .n = (uint32_t)n, .at = at };
	struct gclk_far_answer answer;
	int r = ask(f, &push, NULL, &answer, reterr);

	if (r < 0) {
		return r;
	}
	/* what passes comes before what is held; and nothing that is held is forgotten */
	if (r == 0 || (answer.passed && f->n_held) ||
	    ((answer.rest || answer.below) && (f->n_held || answer.held)) ||
	    (r == GCLK_FILTER_OFF && (answer.held || f->n_held))) {
		return misbehaved(f, refuse("a result", reterr), reterr);
	}
	r = keep(f, f->room + at + answer.passed, (size_t)answer.held, reterr);
	if (r < 0) {
		return r;
	}
	*ret_pass = answer.result == GCLK_FILTER_OFF ? n : (size_t)answer.passed;
	*ret_held = (size_t)answer.held;
	f->offset += *ret_pass + *ret_held;
	return settle(f, answer.result, reterr);
}

static bool in_room(const struct gclk_far *f, const uint8_t *bytes, size_t n)
{
	return bytes >= f->room && bytes < f->room + GCLK_FAR_ROOM_BYTES &&
	       n <= (size_t)(f->room + GCLK_FAR_ROOM_BYTES - bytes);
}

static int push_anywhere(struct gclk_far *f, const uint8_t *bytes, size_t n, size_t *ret_pass,
			 size_t *ret_held, struct gclk_error *reterr)
{
	size_t k = GCLK_MIN(n, (size_t)GCLK_FAR_ROOM_BYTES);

	if (in_room(f, bytes, n)) {
		return push_piece(f, (size_t)(bytes - f->room), n, ret_pass, ret_held, reterr);
	}
	if (k) {
		memcpy(f->room, bytes, k);
	}
	return push_piece(f, 0, k, ret_pass, ret_held, reterr);
}

/* What goes without asking; never before what is held. */
static size_t use_grant(struct gclk_far *f, const uint8_t *bytes, size_t n)
{
	size_t went = n && !f->n_held ? gclk_grant_use(&f->grant, bytes, n) : 0;

	f->went += went;
	f->offset += went;
	return went;
}

int gclk_far_push(struct gclk_far *f, const void *bytes, size_t n, bool most,
		  size_t *ret_pass, size_t *ret_held, struct gclk_error *reterr)
{
	const uint8_t *from = bytes;
	size_t pass = 0, held = 0;
	int r = GCLK_FILTER_MORE;

	*ret_pass = *ret_held = 0;
	if (f->phase == GCLK_FILTER_REFUSED) {
		return refused(f, reterr);
	}
	f->through |= f->ready && f->applied;
	if (f->through) {
		end_worker(f);
		*ret_pass = n;
		f->phase = GCLK_FILTER_THROUGH;
		f->offset += n;
		return GCLK_FILTER_OFF;
	}
	if (f->ready) {
		return GCLK_FILTER_READY;
	}
	do {
		pass = use_grant(f, from, n);
		*ret_pass += pass;
		from = n ? from + pass : from;
		n -= pass;
		if ((pass && !n) || (most && n < GCLK_GRANT_HEAD_BYTES && f->grant.below)) {
			break;
		}
		r = push_anywhere(f, from, n, &pass, &held, reterr);
		if (r < 0) {
			return r;
		}
		*ret_pass += pass;
		*ret_held += held;
		from = n ? from + pass + held : from;
		n -= pass + held;
	} while (r == GCLK_FILTER_MORE && n);
	if (r == GCLK_FILTER_OFF && n) {
		*ret_pass += n;
		f->offset += n;
	}
	return r;
}

int gclk_far_quiet(struct gclk_far *f, struct gclk_error *reterr)
{
	struct gclk_far_ask quiet = { .op = GCLK_FAR_QUIET };
	struct gclk_far_answer answer;
	size_t pass, held;
	int r;

	if (f->through || f->ready || f->phase == GCLK_FILTER_REFUSED) {
		return gclk_far_push(f, NULL, 0, false, &pass, &held, reterr);
	}
	r = ask(f, &quiet, NULL, &answer, reterr);
	return r < 0 ? r : settle(f, r, reterr);
}

int gclk_far_end(struct gclk_far *f, struct gclk_error *reterr)
{
	struct gclk_far_ask end = { .op = GCLK_FAR_END };
	struct gclk_far_answer answer;

	if (f->phase == GCLK_FILTER_REFUSED) {
		return refused(f, reterr);
	}
	return f->through || f->ready ? 0 : ask(f, &end, NULL, &answer, reterr);
}

/* ---- looking ---- */

const struct gclk_state *gclk_far_state(const struct gclk_far *f)
{
	return f->state;
}

const struct gclk_findings *gclk_far_findings(const struct gclk_far *f)
{
	return &f->findings;
}

enum gclk_filter_phase gclk_far_phase(const struct gclk_far *f)
{
	return f->phase;
}

uint64_t gclk_far_offset(const struct gclk_far *f)
{
	return f->offset;
}

int gclk_far_was_running(const struct gclk_far *f)
{
	return f->facts.was_running;
}

const char *gclk_far_machine(struct gclk_far *f)
{
	if (!*f->facts.machine) {
		ask_facts(f);
	}
	return f->facts.machine;
}

int gclk_far_uuid(struct gclk_far *f, uint8_t ret[16])
{
	if (!f->facts.has_uuid) {
		ask_facts(f);
	}
	memcpy(ret, f->facts.uuid, f->facts.has_uuid ? 16 : 0);
	return f->facts.has_uuid;
}

/* ---- applying ---- */

static int take_patches(struct gclk_far *f, struct gclk_rest *rest, struct gclk_error *reterr)
{
	int r;

	free(f->patches);
	free(f->changes);
	f->patches = NULL;
	f->changes = NULL;
	f->n_changes = 0;
	r = gclk_take_far_patches(rest, f->patched, f->n_held, &f->patches, &f->n_changes, reterr);
	if (r < 0) {
		return r;
	}
	f->changes = calloc((size_t)f->n_changes + 1, sizeof(*f->changes));
	if (!f->changes) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	for (unsigned i = 0; i < f->n_changes; i++) {
		const struct gclk_said_change *said = &f->patches[i].change;

		f->changes[i] = (struct gclk_image_change){
			said->offset, said->size, said->section, said->field, said->instance,
			said->before, said->after };
	}
	return 0;
}

static int patch(struct gclk_far *f, const struct gclk_plan *plan, struct gclk_error *reterr)
{
	struct gclk_far_ask what = { .op = GCLK_FAR_PATCH };
	struct gclk_far_answer answer;
	struct gclk_frame frame;
	struct gclk_rest rest;
	int r;

	if (!f->patched && !(f->patched = malloc(f->n_held + 1))) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	memcpy(f->patched, f->held, f->n_held);
	r = ask(f, &what, plan, &answer, reterr);
	r = r < 0 ? r : frame_behind(f, &frame, &rest, reterr);
	if (r < 0) {
		return r;
	}
	r = take_patches(f, &rest, reterr);
	gclk_frame_free(&frame);
	return r == -GCLK_PEER ? misbehaved(f, r, reterr) : r;
}

int gclk_far_apply(struct gclk_far *f, const struct gclk_plan *plan, const uint8_t **ret_bytes,
		   size_t *ret_n, struct gclk_error *reterr)
{
	const uint8_t *bytes = f->held;
	int r;

	f->n_changes = 0;
	if (f->phase == GCLK_FILTER_REFUSED) {
		return refused(f, reterr);
	}
	if (plan && !f->state) {
		return gclk_fail(reterr, GCLK_STATE, NULL, f->offset,
				 "a plan for a stream whose state is not known");
	}
	if (f->through) {
		*ret_bytes = (const uint8_t *)"";
		*ret_n = 0;
		return 0;
	}
	if (plan) {
		r = patch(f, plan, reterr);
		if (r < 0) {
			return r;
		}
		bytes = f->patched;
	}
	f->ready = true;
	f->applied = true;
	f->phase = GCLK_FILTER_WHOLE;
	*ret_bytes = bytes ? bytes : (const uint8_t *)"";
	*ret_n = f->n_held;
	return 0;
}

unsigned gclk_far_changes(const struct gclk_far *f, const struct gclk_image_change **ret)
{
	*ret = f->changes;
	return f->changes ? f->n_changes : 0;
}
