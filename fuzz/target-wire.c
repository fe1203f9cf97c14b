/* SPDX-License-Identifier: MIT */
/* Frames between the two ends of a move, one after the other as they would come. */
#include <string.h>

#include "fuzz.h"
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
