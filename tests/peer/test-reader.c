/* SPDX-License-Identifier: MIT */
/*
 * Frames read by hand and by another process, against protobuf-c, which read all of them
 * before; and what that process may say.
 */
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "forked-worker.h"
#include "gclk-test.h"
#include "guestclock/v1/peer.pb-c.h"
#include "migrator/foreign.h"
#include "migrator/peer/reader.h"

static struct forked forked = { .read = peer_read };
static const struct gclk_worker worker = FORKED_WORKER(&forked);
static struct peer_reader nobody, by = { .worker = &worker };

static void fill_hello(struct wire_message *m)
{
	struct wire_move *move = &m->hello.move;

	memset(m, 0, sizeof(*m));
	m->type = WIRE_HELLO;
	m->hello.version_min = 1;
	m->hello.version_max = 7;
	memcpy(m->hello.session, "0123456789abcdef", 16);
	m->hello.role = WIRE_CONTROL;
	strcpy(move->verb, "migrate");
	strcpy(move->domain, "web1");
	strcpy(move->uuid, "01234567-89ab-cdef-0123-456789abcdef");
	strcpy(move->main_path, "/run/guestclock/web1.sock");
	strcpy(move->storage_path, "/run/guestclock/web1.nbd");
	GCLK_SET(host, &move->host, tsc_hz, 2499997914);
	move->policy = gclk_policy_default;
	move->n_force = 2;
	strcpy(move->force[0], "tsc-frequency-refused");
	strcpy(move->force[1], "gap-negative");
	move->max_hold_ns = 20 * GCLK_NS_PER_MS;
	move->running = -1;
}

static void fill_welcome(struct wire_message *m)
{
	memset(m, 0, sizeof(*m));
	m->type = WIRE_WELCOME;
	m->welcome.version = 1;
	m->welcome.has_host = 1;
	GCLK_SET(host, &m->welcome.host, tsc_hz, 2499997914);
}

static size_t body_of(const struct wire_message *m, uint8_t to[WIRE_MAX_BYTES])
{
	uint8_t *frame;
	size_t n;

	CU_ASSERT_FATAL(wire_pack(m, &frame, &n, NULL) == 0);
	memcpy(to, frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES);
	free(frame);
	return n - WIRE_HEADER_BYTES;
}

static uint8_t body[WIRE_MAX_BYTES];

GCLK_TEST(reader, what_is_nested_is_read_alike_by_both)
{
	struct wire_message m, here, there;
	size_t n;

	forked.started = forked.stopped = 0;
	fill_hello(&m);
	n = body_of(&m, body);
	CU_ASSERT_FATAL(wire_read(&nobody, WIRE_HELLO, body, n, &here, NULL) == 0);
	CU_ASSERT_FATAL(wire_read(&by, WIRE_HELLO, body, n, &there, NULL) == 0);
	CU_ASSERT(!memcmp(&here, &there, sizeof(here)));
	CU_ASSERT(!memcmp(&m.hello, &there.hello, sizeof(m.hello)));
	fill_welcome(&m);
	n = body_of(&m, body);
	CU_ASSERT_FATAL(wire_read(&by, WIRE_WELCOME, body, n, &there, NULL) == 0);
	CU_ASSERT(!memcmp(&m, &there, sizeof(m)));
	GCLK_EQ(forked.started, 2);
	GCLK_EQ(forked.stopped, 2);
}

/* One for all that a connection has to read, and another one where that has died. */
GCLK_TEST(reader, one_is_kept_for_the_report)
{
	struct peer_reader kept = { .worker = &worker, .keeps = true };
	struct move *move = malloc(sizeof(*move)), *back = malloc(sizeof(*back));
	struct wire_message m, there;
	size_t n;
	char *text;

	move_init(move, "migrate");
	text = move_to_text(move, &n);
	fill_welcome(&m);
	forked.started = forked.stopped = 0;
	GCLK_EQ(wire_read(&kept, m.type, body, body_of(&m, body), &there, NULL), 0);
	GCLK_EQ(peer_read_report(&kept, text, n, back, NULL), 0);
	CU_ASSERT_STRING_EQUAL(back->verb, "migrate");
	GCLK_EQ(forked.started, 1);
	GCLK_EQ(forked.stopped, 0);
	kill(forked.last, SIGKILL);
	memset(back, 0, sizeof(*back));
	GCLK_EQ(peer_read_report(&kept, text, n, back, NULL), 0);
	CU_ASSERT_STRING_EQUAL(back->verb, "migrate");
	GCLK_EQ(forked.started, 2);
	peer_reader_end(&kept);
	GCLK_EQ(forked.stopped, 2);
	free(text);
	free(move);
	free(back);
}

/* Nobody is started for them: a guest may stand still. */
GCLK_TEST(reader, nothing_else_needs_another_process)
{
	struct wire_message m = { .type = WIRE_ANSWER, .answer = { 1, -2, 3 } }, there;

	forked.started = 0;
	GCLK_EQ(wire_read(&by, m.type, body, body_of(&m, body), &there, NULL), 0);
	CU_ASSERT(!memcmp(&m, &there, sizeof(m)));
	fill_hello(&m);
	memset(&m.hello.move, 0, sizeof(m.hello.move));
	m.hello.role = WIRE_MAIN;
	GCLK_EQ(wire_read(&by, m.type, body, body_of(&m, body), &there, NULL), 0);
	GCLK_EQ(there.hello.role, WIRE_MAIN);
	fill_welcome(&m);
	memset(&m.welcome.host, 0, sizeof(m.welcome.host));
	m.welcome.has_host = 0;
	GCLK_EQ(wire_read(&by, m.type, body, body_of(&m, body), &there, NULL), 0);
	m = (struct wire_message){ .type = WIRE_REPORT };
	m.report.json = (char[]){ "{}" };
	m.report.size = 2;
	GCLK_EQ(wire_read(&by, m.type, body, body_of(&m, body), &there, NULL), 0);
	wire_clear(&there);
	GCLK_EQ(forked.started, 0);
}

/* ---- by hand, against protobuf-c ---- */

static const ProtobufCMessageDescriptor *const descriptors[WIRE_N_TYPES] = {
	[WIRE_HELLO] = &guestclock__v1__peer_hello__descriptor,
	[WIRE_WELCOME] = &guestclock__v1__peer_welcome__descriptor,
	[WIRE_SORRY] = &guestclock__v1__peer_sorry__descriptor,
	[WIRE_ASK] = &guestclock__v1__peer_ask__descriptor,
	[WIRE_ANSWER] = &guestclock__v1__peer_answer__descriptor,
	[WIRE_STOPPED] = &guestclock__v1__peer_stopped__descriptor,
	[WIRE_WHERE] = &guestclock__v1__peer_where__descriptor,
	[WIRE_THERE] = &guestclock__v1__peer_there__descriptor,
	[WIRE_APART] = &guestclock__v1__peer_apart__descriptor,
	[WIRE_REPORT] = &guestclock__v1__peer_report__descriptor,
	[WIRE_CANCEL] = &guestclock__v1__peer_cancel__descriptor,
};

static bool same(const struct wire_message *a, const struct wire_message *b)
{
	if (a->type == WIRE_REPORT) {
		return b->type == WIRE_REPORT && a->report.size == b->report.size &&
		       !memcmp(a->report.json, b->report.json, a->report.size);
	}
	return !memcmp(a, b, sizeof(*a));
}

/* What the hand takes protobuf-c takes too, and understands the same by it. */
static bool agree_on(uint8_t type, const uint8_t *bytes, size_t n)
{
	static uint8_t again[WIRE_MAX_BYTES + 4096];
	struct wire_message by_hand, by_both;
	ProtobufCMessage *message;
	bool nested;
	size_t size;

	if (wire_unpack_outer(type, bytes, n, &by_hand, &nested, NULL) < 0 || nested) {
		return false;
	}
	message = protobuf_c_message_unpack(descriptors[type], NULL, n, bytes);
	CU_ASSERT_FATAL(message != NULL);
	size = protobuf_c_message_pack(message, again);
	CU_ASSERT_FATAL(wire_unpack(type, again, size, &by_both, NULL) == 0);
	CU_ASSERT(same(&by_hand, &by_both));
	protobuf_c_message_free_unpacked(message, NULL);
	wire_clear(&by_hand);
	wire_clear(&by_both);
	return true;
}

static void put_varint(uint8_t *to, size_t *n, uint64_t value)
{
	for (; value >= 0x80; value >>= 7) {
		to[(*n)++] = (uint8_t)(value | 0x80);
	}
	to[(*n)++] = (uint8_t)value;
}

/* Fields in any order, twice, unknown, of forms that they should not have. */
static size_t random_body(uint8_t *to, size_t max)
{
	size_t n = 0;

	for (uint64_t k = gclk_random_below(6); k > 0 && n + 40 < max; k--) {
		unsigned form = (unsigned)(gclk_random_below(8) ? gclk_random_below(2) * 2 :
								  gclk_random_below(8));
		size_t length = (size_t)gclk_random_below(18);

		put_varint(to, &n, (1 + gclk_random_below(8)) << 3 | form);
		if (form == 0) {
			put_varint(to, &n, gclk_random_below(2) ? gclk_random_below(5)
								: gclk_random_bits());
		} else {
			length = form == 1 ? 8 : form == 5 ? 4 : length;
			if (form == 2) {
				put_varint(to, &n, length);
			}
			while (length-- > 0) {
				to[n++] = (uint8_t)(' ' + gclk_random_below(90));
			}
		}
	}
	return n;
}

GCLK_TEST(reader, by_hand_is_as_protobuf_has_it)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < 200000 * gclk_test_scale(); i++) {
		uint8_t type = (uint8_t)(1 + gclk_random_below(WIRE_N_TYPES - 1));
		size_t n = random_body(body, 256);

		for (uint64_t k = gclk_random_below(3); n && k > 0; k--) {
			body[gclk_random_below(n)] = (uint8_t)gclk_random();
		}
		taken += agree_on(type, body, n);
	}
	CU_ASSERT(taken > 2000);
}

/* ---- what a stranger's worker may say ---- */

/* What is taken of it is as if it had been read: it can be sent, and read again. */
static bool take(const void *said, size_t n, const struct wire_message *outer)
{
	struct wire_message m = *outer, back;
	uint8_t *frame;
	size_t size;

	if (wire_take_inner(said, n, &m, NULL) < 0) {
		return false;
	}
	CU_ASSERT_FATAL(wire_pack(&m, &frame, &size, NULL) == 0);
	CU_ASSERT(wire_unpack(m.type, frame + WIRE_HEADER_BYTES, size - WIRE_HEADER_BYTES,
			      &back, NULL) == 0);
	free(frame);
	return true;
}

static void disturb_and_take(const struct wire_message *m, const void *inner, size_t n)
{
	uint8_t *copy = malloc(n);
	unsigned taken = 0, refused = 0;

	for (unsigned i = 0; i < 5000 * gclk_test_scale(); i++) {
		memcpy(copy, inner, n);
		for (uint64_t k = gclk_random_below(6); k > 0; k--) {
			size_t at = (size_t)gclk_random_below(n);

			if (gclk_random_below(4)) {
				copy[at] = (uint8_t)gclk_random();
			} else {
				memset(copy + at, gclk_random_below(2) ? 0xff : 0,
				       GCLK_MIN((size_t)8, n - at));
			}
		}
		if (take(copy, gclk_random_below(16) ? n : n - 1, m)) {
			taken++;
		} else {
			refused++;
		}
	}
	CU_ASSERT(taken > 0 && refused > 0);
	free(copy);
}

GCLK_TEST(reader, what_is_said_is_valid_or_refused)
{
	struct wire_message m;

	fill_hello(&m);
	CU_ASSERT(take(&m.hello.move, sizeof(m.hello.move), &m));
	disturb_and_take(&m, &m.hello.move, sizeof(m.hello.move));
	fill_welcome(&m);
	CU_ASSERT(take(&m.welcome.host, sizeof(m.welcome.host), &m));
	disturb_and_take(&m, &m.welcome.host, sizeof(m.welcome.host));
	m.type = WIRE_ASK;
	CU_ASSERT(!take("", 0, &m));
}

/* One member of a move that must not get through. */
#define REFUSED(change)                                                                  \
	do {                                                                             \
		struct wire_message m_;                                                  \
		fill_hello(&m_);                                                         \
		struct wire_move *move = &m_.hello.move;                                 \
		change;                                                                  \
		CU_ASSERT(!take(move, sizeof(*move), &m_));                              \
	} while (0)

GCLK_TEST(reader, no_member_of_a_move_is_taken_on_trust)
{
	REFUSED(memset(move->verb, 'x', sizeof(move->verb)));
	REFUSED(memset(move->domain, 'x', sizeof(move->domain)));
	REFUSED(strcpy(move->domain, "a\x1b[2J"));
	REFUSED(strcpy(move->uuid, "nothing"));
	REFUSED(move->main_path[0] = 0);
	REFUSED(strcpy(move->main_path, "relative.sock"));
	REFUSED(strcpy(move->main_path, "/run/../etc/x"));
	REFUSED(memset(move->main_path, '/', sizeof(move->main_path)));
	REFUSED(strcpy(move->storage_path, "x"));
	REFUSED(move->host.has = UINT64_MAX);
	REFUSED(move->policy.gap = GCLK_N_GAP_POLICIES);
	REFUSED(move->policy.cap_ns = -1);
	REFUSED(move->policy.horizon_ns = -1);
	REFUSED(move->policy.long_gap_ns = -1);
	REFUSED(move->policy.replay_horizon_ns = -1);
	REFUSED(move->policy.ticks[0].policy = GCLK_N_TICK_POLICIES);
	REFUSED(move->n_force = WIRE_FORCE_MAX + 1);
	REFUSED(memset(move->force[1], 'x', sizeof(move->force[1])));
	REFUSED(move->max_hold_ns = 61 * GCLK_NS_PER_S);
	REFUSED(move->running = 2);
	REFUSED(move->unreadable = 2);
	REFUSED(move->disagree = 3);
}

/* What the program would follow is never theirs. */
GCLK_TEST(reader, no_pointer_is_taken)
{
	static const char *const theirs[] = { "gap-negative", NULL };
	struct wire_message m, taken;

	fill_hello(&m);
	taken = m;
	m.hello.move.policy.force = theirs;
	GCLK_EQ(wire_take_inner(&m.hello.move, sizeof(m.hello.move), &taken, NULL), 0);
	CU_ASSERT(!taken.hello.move.policy.force);
}
