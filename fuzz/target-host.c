/* SPDX-License-Identifier: MIT */
/* A host profile as JSON. */
#include <string.h>

#include "fuzz.h"
#include "migrator/json-state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gclk_error error = { 0 };
	struct gclk_host host, again;
	struct json_object *value;
	const char *text;
	int r = host_from_json((const char *)data, size, &host, &error);

	if (r < 0) {
		FUZZ_CHECK(error.status == -r && error.message[0]);
		return 0;
	}
	value = json_from_record(&gclk_host_record, &host);
	FUZZ_CHECK(value);
	text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
	FUZZ_CHECK(host_from_json(text, strlen(text), &again, &error) == 0);
	FUZZ_CHECK(host.has == again.has);
	json_object_put(value);
	return 0;
}
