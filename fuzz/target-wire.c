/* SPDX-License-Identifier: MIT */
/* Frames between the two ends of a move, one after the other as they would come. */
#include <string.h>

#include "fuzz.h"
#include "guestclock/v1/peer.pb-c.h"
#include "migrator/peer/wire.h"

static void check_again(const struct wire_message *message)
{
	struct gclk_error error = { 0 };
	struct wire_message again;
	uint8_t *bytes = NULL;
	size_t n, body;
	uint8_t type;

	if (wire_pack(message, &bytes, &n, &error) < 0) {
		return;
	}
	FUZZ_CHECK(n >= WIRE_HEADER_BYTES && wire_header(bytes, &type, &body, &error) == 0);
	FUZZ_CHECK(type == message->type && body == n - WIRE_HEADER_BYTES);
	FUZZ_CHECK(wire_unpack(type, bytes + WIRE_HEADER_BYTES, body, &again, &error) == 0);
	wire_clear(&again);
	free(bytes);
}

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

/* What is read by hand protobuf-c reads as well, and means the same by it. */
static void check_both(uint8_t type, const uint8_t *body, size_t n)
{
	struct wire_message by_hand, by_both;
	ProtobufCMessage *message;
	uint8_t *again;
	size_t size;
	bool nested;

	if (wire_unpack_outer(type, body, n, &by_hand, &nested, NULL) < 0 || nested) {
		return;
	}
	message = protobuf_c_message_unpack(descriptors[type], NULL, n, body);
	FUZZ_CHECK(message);
	again = malloc(protobuf_c_message_get_packed_size(message) + 1);
	FUZZ_CHECK(again);
	size = protobuf_c_message_pack(message, again);
	FUZZ_CHECK(wire_unpack(type, again, size, &by_both, NULL) == 0);
	if (type == WIRE_REPORT) {
		FUZZ_CHECK(by_hand.report.size == by_both.report.size &&
			   !memcmp(by_hand.report.json, by_both.report.json, by_hand.report.size));
	} else {
		FUZZ_CHECK(!memcmp(&by_hand, &by_both, sizeof(by_hand)));
	}
	wire_clear(&by_hand);
	wire_clear(&by_both);
	protobuf_c_message_free_unpacked(message, NULL);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gclk_error error = { 0 };
	struct wire_message message;
	uint8_t type;
	size_t body;
	int r;

	while (size >= WIRE_HEADER_BYTES && wire_header(data, &type, &body, &error) == 0) {
		data += WIRE_HEADER_BYTES;
		size -= WIRE_HEADER_BYTES;
		body = body < size ? body : size;
		check_both(type, data, body);
		r = wire_unpack(type, data, body, &message, &error);
		if (r == 0) {
			check_again(&message);
			wire_clear(&message);
		} else {
			FUZZ_CHECK(error.status == -r && error.message[0]);
		}
		data += body;
		size -= body;
	}
	return 0;
}
