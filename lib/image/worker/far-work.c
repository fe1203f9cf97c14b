/* SPDX-License-Identifier: MIT */
/* The filter of a live stream, in the worker. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "core/util.h"
#include "image/image.h"
#include "image/worker/far.h"

struct far_work {
	int socket;
	const uint8_t *room;
	struct gclk_filter *filter;
};

bool gclk_far_send(int socket, const void *bytes, size_t n)
{
	const uint8_t *from = bytes;

	while (n) {
		struct iovec piece = { (void *)(uintptr_t)from, n };
		struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
		ssize_t r = sendmsg(socket, &message, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR) {
			continue;
		}
		if (r <= 0) {
			return false;
		}
		from += r;
		n -= (size_t)r;
	}
	return true;
}

bool gclk_far_receive(int socket, void *bytes, size_t n)
{
	uint8_t *to = bytes;

	while (n) {
		struct iovec piece = { to, n };
		struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
		ssize_t r = recvmsg(socket, &message, 0);

		if (r < 0 && errno == EINTR) {
			continue;
		}
		if (r <= 0) {
			errno = r < 0 ? errno : ECONNRESET;
			return false;
		}
		to += r;
		n -= (size_t)r;
	}
	return true;
}

static struct gclk_far_answer make_answer(const struct far_work *w, int result, size_t passed,
					  size_t held)
{
	struct gclk_far_answer answer = { result, gclk_filter_phase(w->filter), passed, held };
	struct gclk_grant grant;

	gclk_filter_grant(w->filter, &grant);
	answer.rest = grant.rest;
	answer.below = grant.below;
	if (grant.watch) {
		answer.watch = *grant.watch;
	}
	return answer;
}

/* In one piece: who waits for it is woken once. */
static bool say_with(struct far_work *w, const struct gclk_far_answer *answer,
		     const struct gclk_piece *pieces, unsigned n)
{
	const struct gclk_piece before = { answer, sizeof(*answer) };

	return gclk_frame_send_behind(w->socket, before, GCLK_SAY_DONE, pieces, n, NULL) == 0;
}

static bool say(struct far_work *w, const struct gclk_far_answer *answer,
		const struct gclk_error *error)
{
	const struct gclk_piece piece = { error, sizeof(*error) };

	return answer->result < 0 ? say_with(w, answer, &piece, 1) :
				    gclk_far_send(w->socket, answer, sizeof(*answer));
}

static void fill_facts(const struct far_work *w, struct gclk_far_facts *to)
{
	const struct gclk_findings *findings = gclk_filter_findings(w->filter);

	to->was_running = gclk_filter_was_running(w->filter);
	to->has_state = gclk_filter_state(w->filter) != NULL;
	to->has_uuid = (uint8_t)gclk_filter_uuid(w->filter, to->uuid);
	strncpy(to->machine, gclk_filter_machine(w->filter), sizeof(to->machine) - 1);
	to->n_findings = GCLK_MIN(findings->n, (unsigned)GCLK_FAR_FINDINGS);
	for (unsigned i = 0; i < to->n_findings; i++) {
		strncpy(to->findings[i].id, findings->items[i].info->id,
			sizeof(to->findings[i].id) - 1);
		strncpy(to->findings[i].message, findings->items[i].message,
			sizeof(to->findings[i].message) - 1);
	}
}

static bool tell_facts(struct far_work *w, const struct gclk_far_answer *answer)
{
	struct gclk_far_facts facts = { 0 };
	struct gclk_piece pieces[1 + GCLK_STATE_PIECES] = { { &facts, sizeof(facts) } };
	struct gclk_state scratch;
	unsigned n = 1;

	fill_facts(w, &facts);
	if (facts.has_state) {
		gclk_state_pieces(gclk_filter_state(w->filter), &scratch, pieces + 1);
		n += GCLK_STATE_PIECES;
	}
	return say_with(w, answer, pieces, n);
}

/* A guest may stand still for it: what would be asked next is said at once. */
static bool say_verdict(struct far_work *w, int result, size_t passed, size_t held,
			const struct gclk_error *error)
{
	const struct gclk_far_answer answer = make_answer(w, result, passed, held);

	return result == GCLK_FILTER_READY || result == GCLK_FILTER_OFF ?
		       tell_facts(w, &answer) : say(w, &answer, error);
}

static bool say_result(struct far_work *w, int result, const struct gclk_error *error)
{
	const struct gclk_far_answer answer = make_answer(w, result, 0, 0);

	return say(w, &answer, error);
}

static bool push(struct far_work *w, const struct gclk_far_ask *ask)
{
	struct gclk_error error;
	size_t passed = 0, held = 0;
	int r;

	if (ask->at > GCLK_FAR_ROOM_BYTES || ask->n > GCLK_FAR_ROOM_BYTES - ask->at) {
		return false;
	}
	r = gclk_filter_push(w->filter, w->room + ask->at, ask->n, &passed, &held, &error);
	return say_verdict(w, r, passed, held, &error);
}

static bool tell_patches(struct far_work *w, const uint8_t *patched)
{
	const struct gclk_image_change *changes;
	unsigned n = gclk_filter_changes(w->filter, &changes);
	struct gclk_far_patch *all = calloc((size_t)n + 1, sizeof(*all));
	const struct gclk_far_answer answer = make_answer(w, 0, 0, 0);
	const struct gclk_piece piece = { all, n * sizeof(*all) };
	uint64_t begin = gclk_filter_tail_offset(w->filter);
	bool told;

	for (unsigned i = 0; all && i < n; i++) {
		struct gclk_said_change *said = &all[i].change;

		said->offset = changes[i].offset;
		said->before = changes[i].before;
		said->after = changes[i].after;
		said->size = GCLK_MIN(changes[i].size, (uint32_t)sizeof(all[i].bytes));
		said->instance = changes[i].instance;
		strncpy(said->section, changes[i].section, sizeof(said->section) - 1);
		strncpy(said->field, changes[i].field, sizeof(said->field) - 1);
		all[i].at = changes[i].offset - begin;
		memcpy(all[i].bytes, patched + all[i].at, said->size);
	}
	told = all && say_with(w, &answer, &piece, 1);
	free(all);
	return told;
}

static bool make_patches(struct far_work *w)
{
	struct gclk_plan *plan = calloc(1, sizeof(*plan));
	struct gclk_frame frame;
	struct gclk_rest rest;
	struct gclk_error error;
	const uint8_t *bytes;
	bool told = false;
	size_t n;
	int r = gclk_frame_receive(w->socket, false, &frame, NULL);

	rest = (struct gclk_rest){ frame.bytes, frame.size };
	if (plan && r == 0 && gclk_take_state(&rest, &plan->state, NULL) == 0) {
		r = gclk_filter_apply(w->filter, plan, &bytes, &n, &error);
		told = r < 0 ? say_result(w, r, &error) : tell_patches(w, bytes);
		gclk_state_free(plan->state);
	}
	gclk_frame_free(&frame);
	free(plan);
	return told;
}

static bool answer(struct far_work *w, const struct gclk_far_ask *ask)
{
	struct gclk_far_answer facts;
	struct gclk_error error;

	if (ask->went) {
		gclk_filter_went(w->filter, ask->went, ask->rest);
	}
	switch (ask->op) {
	case GCLK_FAR_PUSH:
		return push(w, ask);
	case GCLK_FAR_QUIET:
		return say_verdict(w, gclk_filter_quiet(w->filter, &error), 0, 0, &error);
	case GCLK_FAR_END:
		return say_result(w, gclk_filter_end(w->filter, &error), &error);
	case GCLK_FAR_FACTS:
		facts = make_answer(w, 0, 0, 0);
		return tell_facts(w, &facts);
	case GCLK_FAR_PATCH:
		return make_patches(w);
	default:
		return false;
	}
}

int gclk_far_work(int socket, int room_fd, const struct gclk_far_options *how)
{
	const struct gclk_filter_options options = {
		.tail_bytes = how->tail_bytes,
		.unreadable = how->unreadable,
		.one_way = how->one_way,
		.want_page_clock = how->want_page_clock,
	};
	struct far_work w = { .socket = socket };
	void *room = mmap(NULL, GCLK_FAR_ROOM_BYTES, PROT_READ, MAP_SHARED, room_fd, 0);
	struct gclk_far_ask ask;
	int r = room == MAP_FAILED ? -GCLK_NOMEM : gclk_filter_new(&options, &w.filter, NULL);

	w.room = room;
	gclk_far_get_ready();
	while (r == 0 && gclk_far_receive(socket, &ask, sizeof(ask)) && answer(&w, &ask)) {
	}
	gclk_filter_free(w.filter);
	if (room != MAP_FAILED) {
		munmap(room, GCLK_FAR_ROOM_BYTES);
	}
	return r;
}
