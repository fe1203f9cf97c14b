/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "guestclock/v1/peer.pb-c.h"
#include "migrator/peer/source_end.h"
#include "migrator/peer/wire.h"

#define HOST_MAX_BYTES 8192
#define PATH_MIN_BYTES 2
#define INDEX_MAX 4096

const char *const wire_role_names[5] = { "", "control", "main", "side", "storage" };

/* Every type: its message, and how long its body may be. */
static const struct {
	const ProtobufCMessageDescriptor *descriptor;
	size_t limit;
} types[WIRE_N_TYPES] = {
	[WIRE_HELLO] = { &guestclock__v1__peer_hello__descriptor, 16384 },
	[WIRE_WELCOME] = { &guestclock__v1__peer_welcome__descriptor, 8192 + 64 },
	[WIRE_SORRY] = { &guestclock__v1__peer_sorry__descriptor, 512 },
	[WIRE_ASK] = { &guestclock__v1__peer_ask__descriptor, 16 },
	[WIRE_ANSWER] = { &guestclock__v1__peer_answer__descriptor, 32 },
	[WIRE_STOPPED] = { &guestclock__v1__peer_stopped__descriptor, 96 },
	[WIRE_WHERE] = { &guestclock__v1__peer_where__descriptor, 32 },
	[WIRE_THERE] = { &guestclock__v1__peer_there__descriptor, 64 },
	[WIRE_APART] = { &guestclock__v1__peer_apart__descriptor, 32 },
	[WIRE_REPORT] = { &guestclock__v1__peer_report__descriptor, WIRE_MAX_BYTES },
	[WIRE_CANCEL] = { &guestclock__v1__peer_cancel__descriptor, 320 },
};

size_t wire_limit(uint8_t type)
{
	return type < WIRE_N_TYPES ? types[type].limit : 0;
}

static int bad(struct gclk_error *reterr, const char *field, const char *what)
{
	return gclk_fail(reterr, GCLK_MALFORMED, field, GCLK_NO_OFFSET, "%s", what);
}

int wire_header(const uint8_t header[WIRE_HEADER_BYTES], uint8_t *ret_type,
		size_t *ret_body, struct gclk_error *reterr)
{
	uint32_t size = (uint32_t)header[4] | (uint32_t)header[5] << 8 |
			(uint32_t)header[6] << 16 | (uint32_t)header[7] << 24;

	if (header[0] != 'G' || header[1] != 'c' || header[3] != 0) {
		return bad(reterr, "frame",
			   "this is not the protocol of guestclock's ends");
	}
	if (!wire_limit(header[2])) {
		return gclk_fail(reterr, GCLK_MALFORMED, "frame", 2,
				 "there is no message of type %u", header[2]);
	}
	if (size > wire_limit(header[2])) {
		return gclk_fail(
			reterr, GCLK_RANGE, "frame", 4,
			"a message of type %u has %u bytes, at most %zu are allowed",
			header[2], size, wire_limit(header[2]));
	}
	*ret_type = header[2];
	*ret_body = size;
	return 0;
}

/* ---- text ---- */

/* Printable UTF-8, as far as terminals and logs are concerned; NUL-terminated. */
static bool is_plain(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		unsigned more = *p < 0x80   ? 0
				: *p < 0xc2 ? 9
				: *p < 0xe0 ? 1
				: *p < 0xf0 ? 2
				: *p < 0xf5 ? 3
					    : 9;

		if (*p < 0x20 || *p == 0x7f || more == 9 ||
		    (*p == 0xc2 && p[1] < 0xa0)) { /* C1 control characters */
			return false;
		}
		for (; more; more--) {
			if ((*++p & 0xc0) != 0x80) {
				return false;
			}
		}
	}
	return true;
}

/* @from may be NULL: absent, which is "". */
static int take_text(char *to, size_t size, const char *from, const char *field,
		     struct gclk_error *reterr)
{
	to[0] = 0;
	if (!from) {
		return 0;
	}
	if (strlen(from) >= size) {
		return gclk_fail(reterr, GCLK_RANGE, field, GCLK_NO_OFFSET,
				 "%zu characters, at most %zu are allowed", strlen(from),
				 size - 1);
	}
	if (!is_plain(from)) {
		return bad(reterr, field, "text with control characters or broken UTF-8");
	}
	memcpy(to, from, strlen(from) + 1);
	return 0;
}

static bool is_uuid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	for (unsigned i = 0; i < sizeof(form); i++) {
		if (form[i] == 'x' ? !strchr("0123456789abcdef", text[i]) || !text[i]
				   : text[i] != form[i]) {
			return false;
		}
	}
	return true;
}

/* Absolute, and the same place whatever links there are: no "..", no empty part. */
static bool is_path(const char *text)
{
	size_t n = strlen(text);

	if (n < PATH_MIN_BYTES || text[0] != '/' || text[n - 1] == '/') {
		return false;
	}
	for (const char *p = text; p; p = strchr(p + 1, '/')) {
		size_t part = strcspn(p + 1, "/");

		if (part == 0 || (part <= 2 && !strncmp(p + 1, "..", part))) {
			return false;
		}
	}
	return true;
}

static int take_path(char to[WIRE_PATH_BYTES], const char *from, const char *field,
		     struct gclk_error *reterr)
{
	int r = take_text(to, WIRE_PATH_BYTES, from, field, reterr);

	if (r == 0 && to[0] && !is_path(to)) {
		return bad(reterr, field, "no absolute path without \"..\"");
	}
	return r;
}

/* ---- hosts ---- */

static int pack_host(const struct gclk_host *host, ProtobufCBinaryData *ret,
		     struct gclk_error *reterr)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	int64_t n = bundle ? 0 : -GCLK_NOMEM;

	if (n == 0) {
		n = gclk_bundle_set_host(bundle, host, reterr);
	}
	if (n == 0) {
		n = gclk_bundle_pack(bundle, NULL, 0, reterr);
	}
	if (n > HOST_MAX_BYTES) {
		n = bad(reterr, "host", "the profile is too long");
	}
	if (n > 0) {
		ret->len = (size_t)n;
		ret->data = malloc(ret->len);
		n = ret->data ? gclk_bundle_pack(bundle, ret->data, ret->len, reterr)
			      : -GCLK_NOMEM;
	}
	gclk_bundle_free(bundle);
	return n < 0 ? (int)n : 0;
}

static int take_host(struct gclk_host *to, const ProtobufCBinaryData *from,
		     struct gclk_error *reterr)
{
	struct gclk_bundle *bundle;
	int r;

	if (from->len > HOST_MAX_BYTES) {
		return bad(reterr, "host", "the profile is too long");
	}
	r = gclk_bundle_unpack(from->data, from->len, &bundle, reterr);
	if (r < 0) {
		return r;
	}
	r = gclk_bundle_host(bundle, to, reterr);
	gclk_bundle_free(bundle);
	return r == GCLK_BUNDLE_ABSENT ? bad(reterr, "host", "no host profile") : r;
}

/* ---- policies ---- */

static int find_name(const char *const names[], unsigned n, const char *text)
{
	for (unsigned i = 0; text && i < n; i++) {
		if (names[i] && !strcmp(names[i], text)) {
			return (int)i;
		}
	}
	return -1;
}

static int take_ticks(struct gclk_policy *to, const Guestclock__V1__PeerPolicy *from,
		      struct gclk_error *reterr)
{
	for (size_t i = 0; i < from->n_ticks; i++) {
		const Guestclock__V1__PeerTicks *t = from->ticks[i];
		int timer =
			find_name(gclk_tick_timer_names, GCLK_N_TICK_TIMERS, t->timer);
		int policy = find_name(gclk_tick_policy_names,
				       GCLK_N_TICK_POLICIES, t->policy);

		if (timer < 0 || policy <= GCLK_TICKS_UNKNOWN) {
			return bad(reterr, "policy.ticks",
				   "no such timer or tick policy");
		}
		to->ticks[timer].policy = (uint8_t)policy;
		to->ticks[timer].by_operator = t->has_by_operator && t->by_operator;
	}
	return 0;
}

static int take_force(struct wire_move *to, const Guestclock__V1__PeerPolicy *from,
		      struct gclk_error *reterr)
{
	int r = 0;

	if (from->n_force > WIRE_FORCE_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, "policy.force", GCLK_NO_OFFSET,
				 "%zu findings, at most %u are allowed", from->n_force,
				 WIRE_FORCE_MAX);
	}
	to->n_force = (uint32_t)from->n_force;
	for (size_t i = 0; i < from->n_force && r == 0; i++) {
		r = take_text(to->force[i], sizeof(to->force[i]), from->force[i],
			      "policy.force", reterr);
	}
	return r;
}

/* Absent fields keep the built-in values. */
static int take_policy(struct wire_move *to, const Guestclock__V1__PeerPolicy *from,
		       struct gclk_error *reterr)
{
	struct gclk_policy *p = &to->policy;
	int r;

	*p = gclk_policy_default;
	if (!from) {
		return 0;
	}
	if (from->has_gap && from->gap >= GCLK_N_GAP_POLICIES) {
		return bad(reterr, "policy.gap", "no such policy");
	}
	p->gap = from->has_gap ? (uint8_t)from->gap : p->gap;
	p->cap_ns = from->has_cap_ns ? from->cap_ns : p->cap_ns;
	p->horizon_ns = from->has_horizon_ns ? from->horizon_ns : p->horizon_ns;
	p->long_gap_ns = from->has_long_gap_ns ? from->long_gap_ns : p->long_gap_ns;
	p->replay_max = from->has_replay_max ? from->replay_max : p->replay_max;
	p->replay_horizon_ns = from->has_replay_horizon_ns ? from->replay_horizon_ns
							   : p->replay_horizon_ns;
	if (p->cap_ns < 0 || p->horizon_ns < 0 || p->long_gap_ns < 0 ||
	    p->replay_horizon_ns < 0) {
		return bad(reterr, "policy", "a negative duration");
	}
	r = take_ticks(p, from, reterr);
	return r < 0 ? r : take_force(to, from, reterr);
}

/* ---- unpacking ---- */

static int take_switches(struct wire_move *to, const Guestclock__V1__PeerMove *from,
			 struct gclk_error *reterr)
{
	to->max_hold_ns = from->has_max_hold_ns ? from->max_hold_ns : PEER_MAX_HOLD_NS;
	to->own_resume = from->has_own_resume && from->own_resume;
	to->tells_stop = from->has_tells_stop && from->tells_stop;
	to->ask_monitor = from->has_ask_monitor && from->ask_monitor;
	to->running = from->has_running ? (from->running ? 1 : 0) : -1;
	to->unreadable = from->has_unreadable ? (uint8_t)from->unreadable : PEER_PASS;
	to->disagree = from->has_disagree ? (uint8_t)from->disagree : PEER_CORRECT;
	to->disagree_limit_ns = from->disagree_limit_ns;
	if (to->max_hold_ns < 0 || to->max_hold_ns > 60 * GCLK_NS_PER_S) {
		return bad(reterr, "move.max_hold_ns", "not within 0..60 s");
	}
	if ((from->has_unreadable && to->unreadable > PEER_REFUSE) ||
	    (from->has_disagree && to->disagree > PEER_REFUSE_APART)) {
		return bad(reterr, "move", "a choice that does not exist");
	}
	return 0;
}

static int take_move(struct wire_move *to, const Guestclock__V1__PeerMove *from,
		     struct gclk_error *reterr)
{
	int r;

	if (!from->has_host || !from->main_path) {
		return bad(reterr, "move", "no host profile or no path");
	}
	if ((r = take_text(to->verb, sizeof(to->verb), from->verb, "move.verb", reterr)) <
		    0 ||
	    (r = take_text(to->domain, sizeof(to->domain), from->domain, "move.domain",
			   reterr)) < 0 ||
	    (r = take_text(to->uuid, sizeof(to->uuid), from->uuid, "move.uuid", reterr)) <
		    0 ||
	    (r = take_path(to->main_path, from->main_path, "move.main_path", reterr)) <
		    0 ||
	    (r = take_path(to->storage_path, from->storage_path, "move.storage_path",
			   reterr)) < 0 ||
	    (r = take_host(&to->host, &from->host, reterr)) < 0 ||
	    (r = take_policy(to, from->policy, reterr)) < 0) {
		return r;
	}
	if (to->uuid[0] && !is_uuid(to->uuid)) {
		return bad(reterr, "move.uuid", "no UUID");
	}
	if (!to->main_path[0]) {
		return bad(reterr, "move.main_path", "no path");
	}
	return take_switches(to, from, reterr);
}

static int take_hello(struct wire_hello *to, const Guestclock__V1__PeerHello *from,
		      struct gclk_error *reterr)
{
	if (!from->has_version_min || !from->has_version_max || !from->version_min ||
	    from->version_min > from->version_max) {
		return bad(reterr, "hello.version", "no range of versions");
	}
	if (!from->has_session || from->session.len != WIRE_SESSION_BYTES) {
		return bad(reterr, "hello.session", "not 16 bytes");
	}
	if (!from->has_role || from->role < (int)WIRE_CONTROL ||
	    from->role > (int)WIRE_STORAGE) {
		return bad(reterr, "hello.role", "no such role");
	}
	if (from->index > INDEX_MAX) {
		return bad(reterr, "hello.index", "too many connections");
	}
	if ((from->role == (int)WIRE_CONTROL) != (from->move != NULL)) {
		return bad(reterr, "hello.move",
			   "the control connection says it, and no other");
	}
	to->version_min = from->version_min;
	to->version_max = from->version_max;
	memcpy(to->session, from->session.data, WIRE_SESSION_BYTES);
	to->role = (uint8_t)from->role;
	to->index = from->index;
	return from->move ? take_move(&to->move, from->move, reterr) : 0;
}

static int take_welcome(struct wire_message *to, const Guestclock__V1__PeerWelcome *from,
			struct gclk_error *reterr)
{
	if (!from->has_version || from->version < WIRE_VERSION_MIN ||
	    from->version > WIRE_VERSION_MAX) {
		return bad(reterr, "welcome.version",
			   "not one of those that were offered");
	}
	to->welcome.version = from->version;
	to->welcome.has_host = from->has_host != 0;
	return from->has_host ? take_host(&to->welcome.host, &from->host, reterr) : 0;
}

static int take_sorry(struct wire_message *to, const Guestclock__V1__PeerSorry *from,
		      struct gclk_error *reterr)
{
	if (!from->has_status || from->status == 0 || from->status > GCLK_UNPROVEN) {
		return bad(reterr, "sorry.status", "no status");
	}
	to->sorry.status = from->status;
	return take_text(to->sorry.message, sizeof(to->sorry.message), from->message,
			 "sorry.message", reterr);
}

static int take_stopped(struct wire_stopped *to, const Guestclock__V1__PeerStopped *from,
			struct gclk_error *reterr)
{
	if (!from->has_realtime_ns || !from->has_uncertainty_ns || !from->has_age_ns ||
	    from->age_ns < 0) {
		return bad(reterr, "stopped",
			   "an instant, its uncertainty or an age is missing");
	}
	to->at.ns = from->realtime_ns;
	to->at.uncertainty_ns = from->uncertainty_ns;
	to->age_ns = from->age_ns;
	return take_text(to->basis, sizeof(to->basis), from->basis, "stopped.basis",
			 reterr);
}

static int take_there(struct wire_message *to, const Guestclock__V1__PeerThere *from,
		      struct gclk_error *reterr)
{
	if (!from->has_number || !from->has_low_ns || !from->has_high_ns ||
	    !from->has_age_ns || from->age_ns < 0 || from->low_ns > from->high_ns) {
		return bad(reterr, "there", "no interval, or no age");
	}
	to->there.number = from->number;
	to->there.low_ns = from->low_ns;
	to->there.high_ns = from->high_ns;
	to->there.age_ns = from->age_ns;
	return 0;
}

static int take_report(struct wire_message *to, const Guestclock__V1__PeerReport *from,
		       struct gclk_error *reterr)
{
	if (!from->has_json || !from->json.len ||
	    memchr(from->json.data, 0, from->json.len)) {
		return bad(reterr, "report.json", "no text");
	}
	to->report.json = malloc(from->json.len + 1);
	if (!to->report.json) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a report");
	}
	memcpy(to->report.json, from->json.data, from->json.len);
	to->report.json[from->json.len] = 0;
	to->report.size = from->json.len;
	return 0;
}

static int take(struct wire_message *to, const ProtobufCMessage *from,
		struct gclk_error *reterr)
{
	switch (to->type) {
	case WIRE_HELLO:
		return take_hello(&to->hello, (const void *)from, reterr);
	case WIRE_WELCOME:
		return take_welcome(to, (const void *)from, reterr);
	case WIRE_SORRY:
		return take_sorry(to, (const void *)from, reterr);
	case WIRE_ASK: {
		const Guestclock__V1__PeerAsk *m = (const void *)from;

		to->ask.number = m->number;
		return m->has_number ? 0 : bad(reterr, "ask.number", "missing");
	}
	case WIRE_ANSWER: {
		const Guestclock__V1__PeerAnswer *m = (const void *)from;

		to->answer.number = m->number;
		to->answer.heard_ns = m->heard_ns;
		to->answer.answered_ns = m->answered_ns;
		return m->has_number && m->has_heard_ns && m->has_answered_ns
			       ? 0
			       : bad(reterr, "answer", "a stamp is missing");
	}
	case WIRE_STOPPED:
		return take_stopped(&to->stopped, (const void *)from, reterr);
	case WIRE_WHERE: {
		const Guestclock__V1__PeerWhere *m = (const void *)from;

		to->where.number = m->number;
		to->where.ran_offset = m->ran_offset;
		to->where.stopped_offset = m->stopped_offset;
		return m->has_number && m->has_ran_offset && m->has_stopped_offset &&
				       m->ran_offset <= m->stopped_offset
			       ? 0
			       : bad(reterr, "where", "no two offsets in their order");
	}
	case WIRE_THERE:
		return take_there(to, (const void *)from, reterr);
	case WIRE_APART: {
		const Guestclock__V1__PeerApart *m = (const void *)from;

		to->apart.ns = m->ns;
		to->apart.uncertainty_ns =
			m->has_uncertainty_ns ? m->uncertainty_ns : GCLK_UNBOUNDED;
		return m->has_ns ? 0 : bad(reterr, "apart.ns", "missing");
	}
	case WIRE_REPORT:
		return take_report(to, (const void *)from, reterr);
	case WIRE_CANCEL: {
		const Guestclock__V1__PeerCancel *m = (const void *)from;

		return take_text(to->cancel.why, sizeof(to->cancel.why), m->why,
				 "cancel.why", reterr);
	}
	default:
		return bad(reterr, "frame", "no such type");
	}
}

int wire_unpack(uint8_t type, const uint8_t *body, size_t size, struct wire_message *ret,
		struct gclk_error *reterr)
{
	ProtobufCMessage *message;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!wire_limit(type) || size > wire_limit(type)) {
		return bad(reterr, "frame", "no such message of that size");
	}
	ret->type = type;
	message = protobuf_c_message_unpack(types[type].descriptor, NULL, size, body);
	if (!message) {
		return gclk_fail(reterr, GCLK_MALFORMED,
				 types[type].descriptor->short_name, GCLK_NO_OFFSET,
				 "%zu bytes that are no such message", size);
	}
	r = take(ret, message, reterr);
	protobuf_c_message_free_unpacked(message, NULL);
	return r;
}

void wire_clear(struct wire_message *message)
{
	if (message->type == WIRE_REPORT) {
		free(message->report.json);
		message->report.json = NULL;
	}
	message->type = 0;
}

uint32_t wire_version(const struct wire_hello *hello)
{
	uint32_t best = GCLK_MIN(hello->version_max, (uint32_t)WIRE_VERSION_MAX);

	return best < hello->version_min || best < WIRE_VERSION_MIN ? 0 : best;
}

/* ---- packing: the reverse, checked by unpacking ---- */

static uint8_t *frame(uint8_t type, const ProtobufCMessage *m, size_t *ret_size)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *to = malloc(WIRE_HEADER_BYTES + n);

	if (!to) {
		return NULL;
	}
	memcpy(to,
	       (const uint8_t[WIRE_HEADER_BYTES]){ 'G', 'c', type, 0, n & 0xff,
						   n >> 8 & 0xff, n >> 16 & 0xff,
						   n >> 24 & 0xff },
	       WIRE_HEADER_BYTES);
	protobuf_c_message_pack(m, to + WIRE_HEADER_BYTES);
	*ret_size = WIRE_HEADER_BYTES + n;
	return to;
}

/* protobuf-c has no const in its structs; it only reads these while packing. */
static char *text(const char *from)
{
	return from[0] ? (char *)(uintptr_t)from : NULL;
}

static ProtobufCBinaryData bytes(const void *from, size_t n)
{
	return (ProtobufCBinaryData){ n, (uint8_t *)(uintptr_t)from };
}

static uint8_t *frame_control(const struct wire_hello *from,
			      Guestclock__V1__PeerHello *hello, size_t *ret_size,
			      struct gclk_error *reterr)
{
	const struct wire_move *w = &from->move;
	const struct gclk_policy *p = &w->policy;
	Guestclock__V1__PeerMove m = GUESTCLOCK__V1__PEER_MOVE__INIT;
	Guestclock__V1__PeerPolicy policy = GUESTCLOCK__V1__PEER_POLICY__INIT;
	Guestclock__V1__PeerTicks ticks[GCLK_N_TICK_TIMERS], *rows[GCLK_N_TICK_TIMERS];
	char *force[WIRE_FORCE_MAX];
	uint8_t *to;

	if (w->n_force > WIRE_FORCE_MAX || pack_host(&w->host, &m.host, reterr) < 0) {
		return NULL;
	}
	m.verb = text(w->verb);
	m.domain = text(w->domain);
	m.uuid = text(w->uuid);
	m.has_host = 1;
	m.main_path = text(w->main_path);
	m.storage_path = text(w->storage_path);
	m.policy = &policy;
	m.has_max_hold_ns = m.has_own_resume = m.has_unreadable = m.has_disagree = 1;
	m.has_disagree_limit_ns = 1;
	m.max_hold_ns = w->max_hold_ns;
	m.own_resume = w->own_resume;
	m.has_tells_stop = 1;
	m.tells_stop = w->tells_stop;
	m.has_ask_monitor = w->ask_monitor != 0;
	m.ask_monitor = w->ask_monitor;
	m.has_running = w->running >= 0;
	m.running = w->running > 0;
	m.unreadable = (Guestclock__V1__PeerUnreadable)w->unreadable;
	m.disagree = (Guestclock__V1__PeerDisagree)w->disagree;
	m.disagree_limit_ns = w->disagree_limit_ns;
	policy.has_gap = policy.has_cap_ns = policy.has_horizon_ns = 1;
	policy.has_long_gap_ns = policy.has_replay_max = policy.has_replay_horizon_ns = 1;
	policy.gap = p->gap;
	policy.cap_ns = p->cap_ns;
	policy.horizon_ns = p->horizon_ns;
	policy.long_gap_ns = p->long_gap_ns;
	policy.replay_max = p->replay_max;
	policy.replay_horizon_ns = p->replay_horizon_ns;
	policy.ticks = rows;
	for (unsigned i = 0; i < GCLK_N_TICK_TIMERS; i++) {
		if (p->ticks[i].policy != GCLK_TICKS_UNKNOWN &&
		    p->ticks[i].policy < GCLK_N_TICK_POLICIES) {
			Guestclock__V1__PeerTicks *t = &ticks[policy.n_ticks];

			guestclock__v1__peer_ticks__init(t);
			t->timer = text(gclk_tick_timer_names[i]);
			t->policy = text(gclk_tick_policy_names[p->ticks[i].policy]);
			t->has_by_operator = 1;
			t->by_operator = p->ticks[i].by_operator;
			rows[policy.n_ticks++] = t;
		}
	}
	policy.force = force;
	policy.n_force = w->n_force;
	for (unsigned i = 0; i < w->n_force; i++) {
		force[i] = (char *)(uintptr_t)w->force[i];
	}
	hello->move = &m;
	to = frame(WIRE_HELLO, &hello->base, ret_size);
	hello->move = NULL;
	free(m.host.data);
	return to;
}

static uint8_t *frame_hello(const struct wire_hello *from, size_t *ret_size,
			    struct gclk_error *reterr)
{
	Guestclock__V1__PeerHello m = GUESTCLOCK__V1__PEER_HELLO__INIT;

	m.has_version_min = m.has_version_max = m.has_session = m.has_role = m.has_index =
		1;
	m.version_min = from->version_min;
	m.version_max = from->version_max;
	m.session = bytes(from->session, WIRE_SESSION_BYTES);
	m.role = (Guestclock__V1__PeerRole)from->role;
	m.index = from->index;
	return from->role == WIRE_CONTROL ? frame_control(from, &m, ret_size, reterr)
					  : frame(WIRE_HELLO, &m.base, ret_size);
}

static uint8_t *frame_welcome(const struct wire_message *from, size_t *ret_size,
			      struct gclk_error *reterr)
{
	Guestclock__V1__PeerWelcome m = GUESTCLOCK__V1__PEER_WELCOME__INIT;
	uint8_t *to;

	m.has_version = 1;
	m.version = from->welcome.version;
	m.has_host = from->welcome.has_host;
	if (m.has_host && pack_host(&from->welcome.host, &m.host, reterr) < 0) {
		return NULL;
	}
	to = frame(WIRE_WELCOME, &m.base, ret_size);
	free(m.host.data);
	return to;
}

static uint8_t *pack(const struct wire_message *from, size_t *ret_size,
		     struct gclk_error *reterr)
{
	switch (from->type) {
	case WIRE_HELLO:
		return frame_hello(&from->hello, ret_size, reterr);
	case WIRE_WELCOME:
		return frame_welcome(from, ret_size, reterr);
	case WIRE_SORRY: {
		Guestclock__V1__PeerSorry m = GUESTCLOCK__V1__PEER_SORRY__INIT;

		m.has_status = 1;
		m.status = from->sorry.status;
		m.message = text(from->sorry.message);
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_ASK: {
		Guestclock__V1__PeerAsk m = GUESTCLOCK__V1__PEER_ASK__INIT;

		m.has_number = 1;
		m.number = from->ask.number;
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_ANSWER: {
		Guestclock__V1__PeerAnswer m = GUESTCLOCK__V1__PEER_ANSWER__INIT;

		m.has_number = m.has_heard_ns = m.has_answered_ns = 1;
		m.number = from->answer.number;
		m.heard_ns = from->answer.heard_ns;
		m.answered_ns = from->answer.answered_ns;
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_STOPPED: {
		Guestclock__V1__PeerStopped m = GUESTCLOCK__V1__PEER_STOPPED__INIT;

		m.has_realtime_ns = m.has_uncertainty_ns = m.has_age_ns = 1;
		m.realtime_ns = from->stopped.at.ns;
		m.uncertainty_ns = from->stopped.at.uncertainty_ns;
		m.basis = text(from->stopped.basis);
		m.age_ns = from->stopped.age_ns;
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_WHERE: {
		Guestclock__V1__PeerWhere m = GUESTCLOCK__V1__PEER_WHERE__INIT;

		m.has_number = m.has_ran_offset = m.has_stopped_offset = 1;
		m.number = from->where.number;
		m.ran_offset = from->where.ran_offset;
		m.stopped_offset = from->where.stopped_offset;
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_THERE: {
		Guestclock__V1__PeerThere m = GUESTCLOCK__V1__PEER_THERE__INIT;

		m.has_number = m.has_low_ns = m.has_high_ns = m.has_age_ns = 1;
		m.number = from->there.number;
		m.low_ns = from->there.low_ns;
		m.high_ns = from->there.high_ns;
		m.age_ns = from->there.age_ns;
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_APART: {
		Guestclock__V1__PeerApart m = GUESTCLOCK__V1__PEER_APART__INIT;

		m.has_ns = 1;
		m.ns = from->apart.ns;
		m.has_uncertainty_ns = from->apart.uncertainty_ns != GCLK_UNBOUNDED;
		m.uncertainty_ns = m.has_uncertainty_ns ? from->apart.uncertainty_ns : 0;
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_REPORT: {
		Guestclock__V1__PeerReport m = GUESTCLOCK__V1__PEER_REPORT__INIT;

		m.has_json = 1;
		m.json = bytes(from->report.json, from->report.size);
		return frame(from->type, &m.base, ret_size);
	}
	case WIRE_CANCEL: {
		Guestclock__V1__PeerCancel m = GUESTCLOCK__V1__PEER_CANCEL__INIT;

		m.why = text(from->cancel.why);
		return frame(from->type, &m.base, ret_size);
	}
	default:
		return NULL;
	}
}

int wire_pack(const struct wire_message *message, uint8_t **ret, size_t *ret_size,
	      struct gclk_error *reterr)
{
	struct wire_message check;
	struct gclk_error error = { .status = GCLK_NOMEM,
				    .message = "no memory for a message" };
	size_t n = 0;
	uint8_t *to = pack(message, &n, &error);
	int r = to ? wire_unpack(message->type, to + WIRE_HEADER_BYTES,
				 n - WIRE_HEADER_BYTES, &check, reterr)
		   : -error.status;

	if (!to && reterr) {
		*reterr = error;
	}
	if (r < 0) {
		free(to);
		return r;
	}
	wire_clear(&check);
	*ret = to;
	*ret_size = n;
	return 0;
}
