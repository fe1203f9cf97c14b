/* SPDX-License-Identifier: MIT */
/*
 * What a worker says that was asked to read a bundle, a host's profile, a report or what is
 * in a frame, once it is in a stranger's hands: refused, or what could have been read. The
 * first byte says which.
 */
#include <string.h>

#include <guestclock/devices.h>

#include "fuzz.h"
#include "migrator/foreign.h"
#include "migrator/peer/reader.h"

static void take_bundle(const uint8_t *said, size_t n)
{
	struct foreign_bundle bundle;
	struct gclk_error error = { 0 };
	int r = foreign_take_bundle(said, n, &bundle, &error);

	if (r < 0) {
		FUZZ_CHECK(error.status == -r && error.message[0]);
		return;
	}
	FUZZ_CHECK(!bundle.state || gclk_state_validate(bundle.state, NULL) == 0);
	FUZZ_CHECK(gclk_record_is_valid(&gclk_provenance_record, &bundle.provenance));
	FUZZ_CHECK(gclk_record_is_valid(&gclk_rewrite_record, &bundle.rewrite));
	FUZZ_CHECK(memchr(bundle.provenance.basis, 0, sizeof(bundle.provenance.basis)));
	foreign_bundle_clear(&bundle);
}

static void take_host(const uint8_t *said, size_t n)
{
	struct gclk_host host;

	if (foreign_take_host(said, n, &host, NULL) == 0) {
		FUZZ_CHECK(gclk_record_is_valid(&gclk_host_record, &host));
		FUZZ_CHECK(memchr(host.hostname, 0, sizeof(host.hostname)));
	}
}

/* Written, and read again. */
static void take_move(const uint8_t *said, size_t n)
{
	struct move *move = malloc(sizeof(*move)), *again = malloc(sizeof(*again));
	struct gclk_error error;
	size_t size;
	char *text;

	FUZZ_CHECK(move && again);
	if (foreign_take_move(said, n, move, NULL) == 0) {
		text = move_to_text(move, &size);
		FUZZ_CHECK(text && move_from_json(text, size, again, &error) == 0);
		free(text);
	}
	free(move);
	free(again);
}

/* Sent, and read again. */
static void take_inner(struct wire_message *m, const uint8_t *said, size_t n)
{
	struct wire_message again;
	uint8_t *frame = NULL;
	size_t size = 0;

	if (wire_take_inner(said, n, m, NULL) == 0) {
		FUZZ_CHECK(wire_pack(m, &frame, &size, NULL) == 0);
		FUZZ_CHECK(wire_unpack(m->type, frame + WIRE_HEADER_BYTES,
				       size - WIRE_HEADER_BYTES, &again, NULL) == 0);
		free(frame);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_message m = { 0 };

	if (!size) {
		return 0;
	}
	switch (data[0] % 5) {
	case 0:
		take_bundle(data + 1, size - 1);
		break;
	case 1:
		take_host(data + 1, size - 1);
		break;
	case 2:
		take_move(data + 1, size - 1);
		break;
	case 3:
		m.type = WIRE_HELLO;
		m.hello.version_min = m.hello.version_max = 1;
		m.hello.role = WIRE_CONTROL;
		take_inner(&m, data + 1, size - 1);
		break;
	default:
		m.type = WIRE_WELCOME;
		m.welcome.version = m.welcome.has_host = 1;
		take_inner(&m, data + 1, size - 1);
		break;
	}
	return 0;
}
