/* SPDX-License-Identifier: MIT */
/* Messages there and back; bytes that nobody should have sent. */
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/source_end.h"
#include "migrator/peer/wire.h"

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
	strcpy(move->domain, "web-\xc3\xa9" "1");
	strcpy(move->uuid, "01234567-89ab-cdef-0123-456789abcdef");
	strcpy(move->main_path, "/run/guestclock/web1.sock");
	GCLK_SET(host, &move->host, realtime_ns, 1795228008000000000);
	GCLK_SET(host, &move->host, tsc_hz, 2499997914);
	move->host.has |= GCLK_BIT(host, hostname);
	strcpy(move->host.hostname, "a");
	move->policy = gclk_policy_default;
	move->policy.gap = GCLK_GAP_CAP;
	move->policy.cap_ns = 60 * GCLK_NS_PER_S;
	move->policy.ticks[GCLK_TICK_RTC].policy = GCLK_TICKS_CATCHUP;
	move->policy.ticks[GCLK_TICK_RTC].by_operator = 1;
	move->n_force = 2;
	strcpy(move->force[0], "tsc-frequency-refused");
	strcpy(move->force[1], "gap-negative");
	move->max_hold_ns = 20 * GCLK_NS_PER_MS;
	move->own_resume = 1;
	move->tells_stop = 1;
	move->ask_monitor = 1;
	move->running = 1;
	move->unreadable = PEER_REFUSE;
	move->disagree = PEER_WARN;
	move->disagree_limit_ns = 12345;
}

/* The message that a frame is, or a status. */
static int reread(const uint8_t *frame, size_t n, struct wire_message *ret,
		  struct gclk_error *reterr)
{
	uint8_t type;
	size_t body;
	int r = wire_header(frame, &type, &body, reterr);

	if (r < 0) {
		return r;
	}
	GCLK_EQ(n, WIRE_HEADER_BYTES + body);
	return wire_unpack(type, frame + WIRE_HEADER_BYTES, body, ret, reterr);
}

static int round_trip(const struct wire_message *m, struct wire_message *ret)
{
	struct gclk_error error;
	uint8_t *frame;
	size_t n;
	int r = wire_pack(m, &frame, &n, &error);

	if (r < 0) {
		printf("\n    %s: %s\n", error.where, error.message);
		return r;
	}
	r = reread(frame, n, ret, &error);
	free(frame);
	return r;
}

GCLK_TEST(wire, a_hello_comes_as_it_went)
{
	struct wire_message m, back;

	fill_hello(&m);
	GCLK_EQ(round_trip(&m, &back), 0);
	CU_ASSERT(!memcmp(&m.hello, &back.hello, sizeof(m.hello)));
}

GCLK_TEST(wire, a_channel_says_no_move)
{
	struct wire_message m, back;

	fill_hello(&m);
	m.hello.role = WIRE_STORAGE;
	m.hello.index = 3;
	GCLK_EQ(round_trip(&m, &back), 0);
	GCLK_EQ(back.hello.role, WIRE_STORAGE);
	GCLK_EQ(back.hello.index, 3);
	GCLK_EQ(back.hello.move.main_path[0], 0);
}

GCLK_TEST(wire, all_others_come_as_they_went)
{
	struct wire_message m = { .type = WIRE_ANSWER }, back;

	m.answer.number = 7;
	m.answer.heard_ns = INT64_MIN;
	m.answer.answered_ns = INT64_MAX;
	GCLK_EQ(round_trip(&m, &back), 0);
	CU_ASSERT(!memcmp(&m, &back, sizeof(m)));
	m = (struct wire_message){ .type = WIRE_STOPPED };
	m.stopped.at = (struct gclk_instant){ -5, GCLK_UNBOUNDED };
	strcpy(m.stopped.basis, "event");
	m.stopped.age_ns = 17;
	GCLK_EQ(round_trip(&m, &back), 0);
	CU_ASSERT(!memcmp(&m, &back, sizeof(m)));
	m = (struct wire_message){ .type = WIRE_APART, .apart = { -3, GCLK_UNBOUNDED } };
	GCLK_EQ(round_trip(&m, &back), 0);
	CU_ASSERT(!memcmp(&m, &back, sizeof(m)));
	m = (struct wire_message){ .type = WIRE_THERE, .there = { 1, -2, 3, 4 } };
	GCLK_EQ(round_trip(&m, &back), 0);
	CU_ASSERT(!memcmp(&m, &back, sizeof(m)));
	m = (struct wire_message){ .type = WIRE_REPORT };
	m.report.json = (char[]){ "{\"a\": 1}" };
	m.report.size = 8;
	GCLK_EQ(round_trip(&m, &back), 0);
	CU_ASSERT(!strcmp(back.report.json, "{\"a\": 1}"));
	wire_clear(&back);
}

/* One field of a hello that must not get through, in either direction. */
#define REFUSED(change)                                                                  \
	do {                                                                             \
		struct wire_message m_;                                                  \
		uint8_t *frame_ = NULL;                                                  \
		size_t n_;                                                               \
		fill_hello(&m_);                                                         \
		change;                                                                  \
		CU_ASSERT(wire_pack(&m_, &frame_, &n_, NULL) < 0);                       \
	} while (0)

GCLK_TEST(wire, values_out_of_range_are_refused)
{
	REFUSED(m_.hello.version_min = 0);
	REFUSED(m_.hello.version_max = 0);
	REFUSED(m_.hello.role = 5);
	REFUSED(m_.hello.index = 1000000);
	REFUSED(m_.hello.move.max_hold_ns = -1);
	REFUSED(m_.hello.move.max_hold_ns = INT64_MAX);
	REFUSED(m_.hello.move.policy.gap = 4);
	REFUSED(m_.hello.move.policy.cap_ns = -1);
	REFUSED(m_.hello.move.unreadable = 2);
	REFUSED(m_.hello.move.disagree = 3);
	REFUSED(m_.hello.move.n_force = WIRE_FORCE_MAX + 1);
	REFUSED(m_.hello.move.main_path[0] = 0);
	REFUSED(strcpy(m_.hello.move.main_path, "relative.sock"));
	REFUSED(strcpy(m_.hello.move.main_path, "/run/../etc/x"));
	REFUSED(strcpy(m_.hello.move.main_path, "/run//x"));
	REFUSED(strcpy(m_.hello.move.main_path, "/run/./x"));
	REFUSED(strcpy(m_.hello.move.main_path, "/run/x/"));
	REFUSED(strcpy(m_.hello.move.storage_path, "x"));
	REFUSED(strcpy(m_.hello.move.uuid, "01234567-89AB-cdef-0123-456789abcdef"));
	REFUSED(strcpy(m_.hello.move.uuid, "nothing"));
	REFUSED(strcpy(m_.hello.move.domain, "a\x1b[2J"));
	REFUSED(strcpy(m_.hello.move.domain, "a\xc3"));
	REFUSED(strcpy(m_.hello.move.domain, "a\xc2\x9b"));
	REFUSED(strcpy(m_.hello.move.force[1], "a\nb"));
}

GCLK_TEST(wire, headers_are_looked_at)
{
	struct gclk_error error;
	uint8_t header[8] = { 'G', 'c', WIRE_ASK, 0, 2, 0, 0, 0 };
	uint8_t type;
	size_t n;

	GCLK_EQ(wire_header(header, &type, &n, &error), 0);
	GCLK_EQ(n, 2);
	header[4] = 200;
	GCLK_EQ(wire_header(header, &type, &n, &error), -GCLK_RANGE);
	header[4] = 2;
	header[3] = 1;
	GCLK_EQ(wire_header(header, &type, &n, &error), -GCLK_MALFORMED);
	header[3] = 0;
	header[2] = 0;
	GCLK_EQ(wire_header(header, &type, &n, &error), -GCLK_MALFORMED);
	header[2] = WIRE_N_TYPES;
	GCLK_EQ(wire_header(header, &type, &n, &error), -GCLK_MALFORMED);
	memcpy(header, "QEVM\0\0\0\3", 8);
	GCLK_EQ(wire_header(header, &type, &n, &error), -GCLK_MALFORMED);
}

GCLK_TEST(wire, versions_meet_or_do_not)
{
	struct wire_hello hello = { .version_min = 1, .version_max = 9 };

	GCLK_EQ(wire_version(&hello), WIRE_VERSION_MAX);
	hello.version_min = WIRE_VERSION_MAX + 1;
	GCLK_EQ(wire_version(&hello), 0);
}

/* Whatever comes, it is refused or valid: what is valid can be packed again. */
static void try_bytes(uint8_t type, const uint8_t *body, size_t n)
{
	struct wire_message m;
	uint8_t *frame;
	size_t size;

	if (wire_unpack(type, body, n, &m, NULL) < 0) {
		return;
	}
	if (wire_pack(&m, &frame, &size, NULL) == 0) {
		free(frame);
	} else {
		CU_FAIL("it was valid, and now it is not");
	}
	wire_clear(&m);
}

GCLK_TEST(wire, damaged_messages_are_refused_or_valid)
{
	struct wire_message m;
	uint8_t *frame, copy[WIRE_HEADER_BYTES + 16384];
	size_t n;

	fill_hello(&m);
	CU_ASSERT_FATAL(wire_pack(&m, &frame, &n, NULL) == 0);
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		size_t length = n - WIRE_HEADER_BYTES;

		memcpy(copy, frame, n);
		for (uint64_t k = gclk_random_below(4); k < 4; k++) {
			copy[WIRE_HEADER_BYTES + gclk_random_below(length)] =
				(uint8_t)gclk_random();
		}
		if (gclk_random_below(4) == 0) {
			length = gclk_random_below(length + 1);
		}
		try_bytes((uint8_t)(1 + gclk_random_below(WIRE_N_TYPES)), copy + WIRE_HEADER_BYTES,
			  length);
		try_bytes(WIRE_HELLO, copy + WIRE_HEADER_BYTES, length);
	}
	free(frame);
}

GCLK_TEST(wire, random_bytes_are_refused_or_valid)
{
	uint8_t body[64];

	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		size_t n = gclk_random_below(sizeof(body));

		for (size_t k = 0; k < n; k++) {
			body[k] = (uint8_t)(gclk_random_below(3) ? gclk_random_below(24) :
								   gclk_random());
		}
		try_bytes((uint8_t)gclk_random_below(WIRE_N_TYPES + 1), body, n);
	}
}
