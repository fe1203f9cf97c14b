/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "guestclock/v1/peer.pb-c.h"
#include "migrator/peer/small.h"
#include "migrator/peer/source_end.h"
#include "migrator/peer/wire.h"

#define HOST_MAX_BYTES 8192
#define PATH_MIN_BYTES 2
#define INDEX_MAX 4096

const char *const wire_role_names[5] = { "", "control", "main", "side", "storage" };

/* Every type: how long its body may be, and the kinds of its fields (small.h). */
static const struct {
	size_t limit;
	uint8_t kinds[SMALL_FIELDS];
} types[WIRE_N_TYPES] = {
	[WIRE_HELLO] = { 16384, { SMALL_U32, SMALL_U32, SMALL_BYTES, SMALL_U32, SMALL_U32,
				  SMALL_BYTES } },
	[WIRE_WELCOME] = { 8192 + 64, { SMALL_U32, SMALL_BYTES } },
	[WIRE_SORRY] = { 512, { SMALL_U32, SMALL_BYTES } },
	[WIRE_ASK] = { 16, { SMALL_U32 } },
	[WIRE_ANSWER] = { 32, { SMALL_U32, SMALL_S64, SMALL_S64 } },
	[WIRE_STOPPED] = { 96, { SMALL_S64, SMALL_U64, SMALL_BYTES, SMALL_S64 } },
	[WIRE_WHERE] = { 32, { SMALL_U32, SMALL_U64, SMALL_U64 } },
	[WIRE_THERE] = { 64, { SMALL_U32, SMALL_S64, SMALL_S64, SMALL_S64 } },
	[WIRE_APART] = { 32, { SMALL_S64, SMALL_U64 } },
	[WIRE_REPORT] = { WIRE_MAX_BYTES, { SMALL_BYTES } },
	[WIRE_CANCEL] = { 320, { SMALL_BYTES } },
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

/* The same of bytes, which have no end of their own. */
static int take_small_text(char *to, size_t size, const struct small_value *from,
			   const char *field, struct gclk_error *reterr)
{
	memset(to, 0, size);
	if (from->size >= size) {
		return gclk_fail(reterr, GCLK_RANGE, field, GCLK_NO_OFFSET,
				 "%zu characters, at most %zu are allowed", from->size,
				 size - 1);
	}
	if (from->size) {
		memcpy(to, from->bytes, from->size);
	}
	return strlen(to) == from->size && is_plain(to)
		       ? 0
		       : bad(reterr, field, "text with control characters or broken UTF-8");
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
	r = take_ticks(p, from, reterr);
	return r < 0 ? r : take_force(to, from, reterr);
}

/* ---- what holds of a move, wherever it was unpacked ---- */

static int check_durations(const struct wire_move *move, struct gclk_error *reterr)
{
	const struct gclk_policy *p = &move->policy;

	if (p->gap >= GCLK_N_GAP_POLICIES) {
		return bad(reterr, "policy.gap", "no such policy");
	}
	if (p->cap_ns < 0 || p->horizon_ns < 0 || p->long_gap_ns < 0 ||
	    p->replay_horizon_ns < 0) {
		return bad(reterr, "policy", "a negative duration");
	}
	if (move->max_hold_ns < 0 || move->max_hold_ns > 60 * GCLK_NS_PER_S) {
		return bad(reterr, "move.max_hold_ns", "not within 0..60 s");
	}
	if (move->unreadable > PEER_REFUSE || move->disagree > PEER_REFUSE_APART) {
		return bad(reterr, "move", "a choice that does not exist");
	}
	return 0;
}

static int check_move(const struct wire_move *move, struct gclk_error *reterr)
{
	if (move->uuid[0] && !is_uuid(move->uuid)) {
		return bad(reterr, "move.uuid", "no UUID");
	}
	if (!move->main_path[0]) {
		return bad(reterr, "move.main_path", "no path");
	}
	return check_durations(move, reterr);
}

static int check_hello(const struct wire_hello *hello, struct gclk_error *reterr)
{
	if (!hello->version_min || hello->version_min > hello->version_max) {
		return bad(reterr, "hello.version", "no range of versions");
	}
	if (hello->role < WIRE_CONTROL || hello->role > WIRE_STORAGE) {
		return bad(reterr, "hello.role", "no such role");
	}
	return hello->index > INDEX_MAX ? bad(reterr, "hello.index", "too many connections") :
					  0;
}

static int check_version(uint32_t version, struct gclk_error *reterr)
{
	return version < WIRE_VERSION_MIN || version > WIRE_VERSION_MAX ?
		       bad(reterr, "welcome.version", "not one of those that were offered") :
		       0;
}

/* ---- unpacking what has messages in it ---- */

static void take_switches(struct wire_move *to, const Guestclock__V1__PeerMove *from)
{
	to->max_hold_ns = from->has_max_hold_ns ? from->max_hold_ns : PEER_MAX_HOLD_NS;
	to->own_resume = from->has_own_resume && from->own_resume;
	to->tells_stop = from->has_tells_stop && from->tells_stop;
	to->ask_monitor = from->has_ask_monitor && from->ask_monitor;
	to->running = from->has_running ? (from->running ? 1 : 0) : -1;
	/* what is no choice stays none */
	to->unreadable = from->has_unreadable ? (uint8_t)GCLK_MIN((unsigned)from->unreadable, 255u)
					      : PEER_PASS;
	to->disagree = from->has_disagree ? (uint8_t)GCLK_MIN((unsigned)from->disagree, 255u)
					  : PEER_CORRECT;
	to->disagree_limit_ns = from->disagree_limit_ns;
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
	take_switches(to, from);
	return check_move(to, reterr);
}

static int unpack_move(struct wire_hello *to, const uint8_t *body, size_t size,
		       struct gclk_error *reterr)
{
	Guestclock__V1__PeerHello *hello = guestclock__v1__peer_hello__unpack(NULL, size, body);
	int r;

	if (!hello || !hello->move) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "PeerHello", GCLK_NO_OFFSET,
			      "%zu bytes that are no such message", size);
	} else {
		r = take_move(&to->move, hello->move, reterr);
	}
	if (hello) {
		guestclock__v1__peer_hello__free_unpacked(hello, NULL);
	}
	return r;
}

/* ---- unpacking what has none ---- */

static int take_hello(struct wire_hello *to, const struct small_value v[SMALL_FIELDS],
		      struct gclk_error *reterr)
{
	if (!v[0].has || !v[1].has) {
		return bad(reterr, "hello.version", "no range of versions");
	}
	if (!v[2].has || v[2].size != WIRE_SESSION_BYTES) {
		return bad(reterr, "hello.session", "not 16 bytes");
	}
	if (!v[3].has || v[3].n > WIRE_STORAGE) {
		return bad(reterr, "hello.role", "no such role");
	}
	if ((v[3].n == WIRE_CONTROL) != v[5].has) {
		return bad(reterr, "hello.move",
			   "the control connection says it, and no other");
	}
	to->version_min = (uint32_t)v[0].n;
	to->version_max = (uint32_t)v[1].n;
	memcpy(to->session, v[2].bytes, WIRE_SESSION_BYTES);
	to->role = (uint8_t)v[3].n;
	to->index = (uint32_t)v[4].n;
	return check_hello(to, reterr);
}

static int take_welcome(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
			struct gclk_error *reterr)
{
	to->welcome.version = (uint32_t)v[0].n;
	to->welcome.has_host = v[1].has;
	return check_version(v[0].has ? to->welcome.version : 0, reterr);
}

static int take_sorry(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		      struct gclk_error *reterr)
{
	if (!v[0].has || v[0].n == 0 || v[0].n > GCLK_UNPROVEN) {
		return bad(reterr, "sorry.status", "no status");
	}
	to->sorry.status = (uint32_t)v[0].n;
	return take_small_text(to->sorry.message, sizeof(to->sorry.message), &v[1],
			       "sorry.message", reterr);
}

static int take_answer(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		       struct gclk_error *reterr)
{
	to->answer.number = (uint32_t)v[0].n;
	to->answer.heard_ns = (int64_t)v[1].n;
	to->answer.answered_ns = (int64_t)v[2].n;
	return v[0].has && v[1].has && v[2].has ? 0
						: bad(reterr, "answer", "a stamp is missing");
}

static int take_stopped(struct wire_stopped *to, const struct small_value v[SMALL_FIELDS],
			struct gclk_error *reterr)
{
	if (!v[0].has || !v[1].has || !v[3].has || (int64_t)v[3].n < 0) {
		return bad(reterr, "stopped",
			   "an instant, its uncertainty or an age is missing");
	}
	to->at.ns = (int64_t)v[0].n;
	to->at.uncertainty_ns = v[1].n;
	to->age_ns = (int64_t)v[3].n;
	return take_small_text(to->basis, sizeof(to->basis), &v[2], "stopped.basis", reterr);
}

static int take_where(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		      struct gclk_error *reterr)
{
	to->where.number = (uint32_t)v[0].n;
	to->where.ran_offset = v[1].n;
	to->where.stopped_offset = v[2].n;
	return v[0].has && v[1].has && v[2].has && v[1].n <= v[2].n
		       ? 0
		       : bad(reterr, "where", "no two offsets in their order");
}

static int take_there(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		      struct gclk_error *reterr)
{
	to->there.number = (uint32_t)v[0].n;
	to->there.low_ns = (int64_t)v[1].n;
	to->there.high_ns = (int64_t)v[2].n;
	to->there.age_ns = (int64_t)v[3].n;
	return v[0].has && v[1].has && v[2].has && v[3].has && to->there.age_ns >= 0 &&
			       to->there.low_ns <= to->there.high_ns
		       ? 0
		       : bad(reterr, "there", "no interval, or no age");
}

static int take_apart(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		      struct gclk_error *reterr)
{
	to->apart.ns = (int64_t)v[0].n;
	to->apart.uncertainty_ns = v[1].has ? v[1].n : GCLK_UNBOUNDED;
	return v[0].has ? 0 : bad(reterr, "apart.ns", "missing");
}

static int take_report(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		       struct gclk_error *reterr)
{
	if (!v[0].size || memchr(v[0].bytes, 0, v[0].size)) {
		return bad(reterr, "report.json", "no text");
	}
	to->report.json = malloc(v[0].size + 1);
	if (!to->report.json) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a report");
	}
	memcpy(to->report.json, v[0].bytes, v[0].size);
	to->report.json[v[0].size] = 0;
	to->report.size = v[0].size;
	return 0;
}

static int take_small(struct wire_message *to, const struct small_value v[SMALL_FIELDS],
		      struct gclk_error *reterr)
{
	switch (to->type) {
	case WIRE_HELLO:
		return take_hello(&to->hello, v, reterr);
	case WIRE_WELCOME:
		return take_welcome(to, v, reterr);
	case WIRE_SORRY:
		return take_sorry(to, v, reterr);
	case WIRE_ASK:
		to->ask.number = (uint32_t)v[0].n;
		return v[0].has ? 0 : bad(reterr, "ask.number", "missing");
	case WIRE_ANSWER:
		return take_answer(to, v, reterr);
	case WIRE_STOPPED:
		return take_stopped(&to->stopped, v, reterr);
	case WIRE_WHERE:
		return take_where(to, v, reterr);
	case WIRE_THERE:
		return take_there(to, v, reterr);
	case WIRE_APART:
		return take_apart(to, v, reterr);
	case WIRE_REPORT:
		return take_report(to, v, reterr);
	case WIRE_CANCEL:
		return take_small_text(to->cancel.why, sizeof(to->cancel.why), &v[0],
				       "cancel.why", reterr);
	default:
		return bad(reterr, "frame", "no such type");
	}
}

int wire_unpack_outer(uint8_t type, const uint8_t *body, size_t size,
		      struct wire_message *ret, bool *ret_nested, struct gclk_error *reterr)
{
	struct small_value values[SMALL_FIELDS];

	memset(ret, 0, sizeof(*ret));
	*ret_nested = false;
	if (!wire_limit(type) || size > wire_limit(type)) {
		return bad(reterr, "frame", "no such message of that size");
	}
	if (!small_read(body, size, types[type].kinds, values)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "frame", GCLK_NO_OFFSET,
				 "%zu bytes that are no message of type %u", size, type);
	}
	ret->type = type;
	*ret_nested = (type == WIRE_HELLO && values[5].has) ||
		      (type == WIRE_WELCOME && values[1].has);
	return take_small(ret, values, reterr);
}

static int unpack_inner(struct wire_message *to, const uint8_t *body, size_t size,
			struct gclk_error *reterr)
{
	struct small_value values[SMALL_FIELDS];
	ProtobufCBinaryData host;

	if (to->type == WIRE_HELLO) {
		return unpack_move(&to->hello, body, size, reterr);
	}
	small_read(body, size, types[to->type].kinds, values);
	host = (ProtobufCBinaryData){ values[1].size,
				      (uint8_t *)(uintptr_t)values[1].bytes };
	return take_host(&to->welcome.host, &host, reterr);
}

int wire_unpack(uint8_t type, const uint8_t *body, size_t size, struct wire_message *ret,
		struct gclk_error *reterr)
{
	bool nested;
	int r = wire_unpack_outer(type, body, size, ret, &nested, reterr);

	return r < 0 || !nested ? r : unpack_inner(ret, body, size, reterr);
}

/* ---- out of another process's hands ---- */

/* Ends, and is what take_text() lets pass. */
static bool is_settled(char *text, size_t size)
{
	size_t n = strnlen(text, size);

	if (n == size || !is_plain(text)) {
		return false;
	}
	memset(text + n, 0, size - n);
	return true;
}
#define SETTLED(array) is_settled(array, sizeof(array))

static bool settle_policy(struct wire_move *move)
{
	struct gclk_policy *p = &move->policy;

	p->force = NULL;
	for (unsigned i = 0; i < GCLK_N_TICK_TIMERS; i++) {
		p->ticks[i].by_operator = p->ticks[i].by_operator != 0;
		if (p->ticks[i].policy >= GCLK_N_TICK_POLICIES) {
			return false;
		}
	}
	if (move->n_force > WIRE_FORCE_MAX) {
		return false;
	}
	for (unsigned i = 0; i < move->n_force; i++) {
		if (!SETTLED(move->force[i])) {
			return false;
		}
	}
	memset(move->force[move->n_force], 0,
	       (WIRE_FORCE_MAX - move->n_force) * sizeof(move->force[0]));
	return true;
}

static bool settle_move(struct wire_move *move)
{
	move->own_resume = move->own_resume != 0;
	move->tells_stop = move->tells_stop != 0;
	move->ask_monitor = move->ask_monitor != 0;
	return SETTLED(move->verb) && SETTLED(move->domain) && SETTLED(move->uuid) &&
	       SETTLED(move->main_path) && is_path(move->main_path) &&
	       SETTLED(move->storage_path) &&
	       (!move->storage_path[0] || is_path(move->storage_path)) &&
	       gclk_record_settle(&gclk_host_record, &move->host, "", NULL) == 0 &&
	       settle_policy(move) && move->running >= -1 && move->running <= 1 &&
	       check_move(move, NULL) == 0;
}

bool wire_settle(struct wire_message *message)
{
	switch (message->type) {
	case WIRE_HELLO:
		return check_hello(&message->hello, NULL) == 0 &&
		       message->hello.role == WIRE_CONTROL &&
		       settle_move(&message->hello.move);
	case WIRE_WELCOME:
		return check_version(message->welcome.version, NULL) == 0 &&
		       message->welcome.has_host == 1 &&
		       gclk_record_settle(&gclk_host_record, &message->welcome.host, "",
					  NULL) == 0;
	default:
		return false;
	}
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
