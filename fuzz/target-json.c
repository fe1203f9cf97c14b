/* SPDX-License-Identifier: MIT */
/* A bundle as JSON: what is read and written is read again as the same. */
#include <string.h>

#include "fuzz.h"
#include "migrator/json-state.h"

static char *text_of(const struct gclk_bundle *bundle)
{
	struct json_object *value = NULL;
	struct gclk_error error = { 0 };
	char *text;

	if (json_from_bundle(bundle, &value, &error) < 0) {
		return NULL;
	}
	text = strdup(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
	FUZZ_CHECK(text);
	json_object_put(value);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gclk_bundle *bundle = NULL, *again = NULL;
	struct gclk_error error = { 0 };
	char *a, *b;
	int r = bundle_from_json((const char *)data, size, &bundle, &error);

	if (r < 0) {
		FUZZ_CHECK(error.status == -r && error.message[0] && !bundle);
		return 0;
	}
	a = text_of(bundle);
	if (a) {
		FUZZ_CHECK(bundle_from_json(a, strlen(a), &again, &error) == 0);
		b = text_of(again);
		FUZZ_CHECK(b && !strcmp(a, b));
		free(b);
	}
	free(a);
	gclk_bundle_free(again);
	gclk_bundle_free(bundle);
	return 0;
}
